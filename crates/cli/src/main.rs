//! The `recache` command.

#[allow(dead_code, unused_imports, reason = "the commands that need the rest are not here yet")]
mod cli_error;
#[allow(dead_code, unused_imports, reason = "the commands that need the rest are not here yet")]
mod config;
mod demo;

use std::io::{self, IsTerminal, Write};
use std::path::PathBuf;
use std::process::ExitCode;

use cli_error::{CliError, ExitStatus};
use config::{CheckArgs, Environment, ExplainArgs, Output, Style};

fn main() -> ExitCode {
    let (out, err) = (&mut io::stdout().lock(), &mut io::stderr());
    match run(out, err) {
        Ok(status) => status.into(),
        // Whoever read the output has gone: nothing is left to be said.
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => ExitStatus::Ok.into(),
        Err(_) => ExitStatus::Failed.into(),
    }
}

#[derive(Debug, clap::Parser)]
struct DemoLine {
    /// sqlite:PATH or postgres://user:password@host/database
    #[arg(long)]
    database: Option<String>,
    #[command(flatten)]
    demo: demo::DemoArgs,
}

fn run_demo(out: &mut dyn Write, err: &mut dyn Write) -> io::Result<ExitStatus> {
    let line = match <DemoLine as clap::Parser>::try_parse_from(std::env::args_os().skip(1)) {
        Ok(line) => line,
        Err(error) => {
            error.print()?;
            return Ok(if error.use_stderr() { ExitStatus::Usage } else { ExitStatus::Ok });
        }
    };
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let surroundings =
        demo::Surroundings { database: line.database, is_terminal: io::stderr().is_terminal(), out };
    match runtime.block_on(demo::run(line.demo, surroundings)) {
        Ok(status) => Ok(status),
        Err(error) => {
            error.write(err)?;
            Ok(error.exit)
        }
    }
}

fn run(out: &mut dyn Write, err: &mut dyn Write) -> io::Result<ExitStatus> {
    if std::env::args_os().nth(1).is_some_and(|word| word == "demo") {
        return run_demo(out, err);
    }
    let environment = Environment::of_process();
    let (mut words, mut file, mut output) = (Vec::new(), None, Output::Table);
    let mut args = std::env::args_os().skip(1).map(|arg| arg.to_string_lossy().into_owned());
    while let Some(arg) = args.next() {
        match arg.as_str() {
            "--config" => match args.next() {
                Some(path) => file = Some(PathBuf::from(path)),
                None => return usage(err),
            },
            "-o" | "--output" => match args.next().as_deref() {
                Some("table") => output = Output::Table,
                Some("json") => output = Output::Json,
                _ => return usage(err),
            },
            flag if flag.starts_with('-') => return usage(err),
            _ => words.push(arg),
        }
    }
    let style = style(&environment);
    match words.iter().map(String::as_str).collect::<Vec<_>>().as_slice() {
        ["config", "check"] => {
            config::check(&CheckArgs { config: file, flags: vec![], style }, &environment, out, err)
        }
        ["config", "explain", key @ ..] if key.len() <= 1 => {
            let key = key.first().map(|key| (*key).to_owned());
            let args = ExplainArgs { config: file, flags: vec![], style, output, key };
            config::explain(&args, &environment, out, err)
        }
        _ => usage(err),
    }
}

fn style(environment: &Environment) -> Style {
    const WIDTH: usize = 100;
    if io::stderr().is_terminal() {
        let colour = environment.variable("NO_COLOR").is_none_or(str::is_empty);
        Style::Terminal { width: WIDTH, colour }
    } else {
        Style::Plain
    }
}

fn usage(err: &mut dyn Write) -> io::Result<ExitStatus> {
    let error = CliError::new("E-USAGE", ExitStatus::Usage, "not a command").help(
        "recache config check [--config FILE], or recache config explain [--config FILE] [-o table|json] [KEY]",
    );
    error.write(err)?;
    Ok(error.exit)
}
