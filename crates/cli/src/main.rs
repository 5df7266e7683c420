//! The `recache` command.

mod builtin;
#[allow(dead_code, unused_imports, reason = "the commands that need the rest are not here yet")]
mod cli_error;
#[allow(dead_code, unused_imports, reason = "the commands that need the rest are not here yet")]
mod config;
mod run;

use std::io::{self, IsTerminal, Write};
use std::path::PathBuf;
use std::process::ExitCode;

use clap::Parser as _;
use cli_error::{CliError, ExitStatus};
use config::{CheckArgs, Environment, ExplainArgs, Output, Style};

/// `recache run`, until all verbs are read the same way.
#[derive(clap::Parser)]
struct RunCommand {
    #[command(flatten)]
    args: run::RunArgs,
}

fn main() -> ExitCode {
    if std::env::args_os().nth(1).is_some_and(|verb| verb == "run") {
        return run_template();
    }
    let (out, err) = (&mut io::stdout().lock(), &mut io::stderr().lock());
    match run_config(out, err) {
        Ok(status) => status.into(),
        // Whoever read the output has gone: nothing is left to be said.
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => ExitStatus::Ok.into(),
        Err(_) => ExitStatus::Failed.into(),
    }
}

fn run_template() -> ExitCode {
    let args = match RunCommand::try_parse_from(std::env::args_os().skip(1)) {
        Ok(command) => command.args,
        Err(error) => error.exit(),
    };
    let Ok(runtime) = tokio::runtime::Builder::new_multi_thread().enable_all().build() else {
        return ExitStatus::Failed.into();
    };
    let status = runtime.block_on(run::run(args));
    // A name that is still being resolved must not hold the end up.
    runtime.shutdown_background();
    status.into()
}

fn run_config(out: &mut dyn Write, err: &mut dyn Write) -> io::Result<ExitStatus> {
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
