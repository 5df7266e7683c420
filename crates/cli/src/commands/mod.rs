//! The verbs, one file a noun, and what they have in common.
//!
//! A new one is a file with a struct that derives [`clap::Args`] and has `async fn run(self, &mut Context<'_>) ->
//! Outcome`, its `mod` line, and its line in `verbs!` below. The summary and the examples of its help stand on the
//! struct; a test holds that they are there.

mod analytics;
mod audit;
mod batch;
mod bench;
mod cache;
mod config;
mod dead;
mod demo;
mod doctor;
mod event;
mod handler;
mod health;
mod job;
mod migrate;
mod profile;
mod queue;
mod run;
mod schedule;
mod serve;
mod template;
mod token;
mod view;
mod webhook;
mod worker;
mod workflow;

mod completions;

mod against;
mod analyzed;
#[cfg(test)]
mod at_a_server;
mod audited;
mod compose;
mod context;
mod database;
mod failure;
mod globals;
mod name;
mod page;

use std::ffi::OsString;
use std::io::{self, Write};

use clap::{ArgMatches, CommandFactory as _, FromArgMatches as _, Parser, Subcommand};

use crate::cli_error::{CliError, ExitStatus};
use crate::config::Environment;
use crate::profiles::{self, Profile, Profiles};

pub(crate) use context::Context;
pub(crate) use database::Database;
pub(crate) use failure::{Failure, Outcome};
pub(crate) use globals::Globals;

/// Makes the list of commands and hands each its arguments.
macro_rules! verbs {
    ($($name:ident($arguments:ty)),* $(,)?) => {
        #[derive(Debug, Subcommand)]
        enum Command {
            $($name($arguments)),*
        }

        impl Command {
            async fn run(self, context: &mut Context<'_>) -> Outcome {
                match self {
                    // In a box: the biggest command must not make every other one's stack as big.
                    $(Self::$name(arguments) => Box::pin(arguments.run(context)).await),*
                }
            }
        }
    };
}

verbs! {
    Demo(demo::Args),
    Run(run::Args),
    Job(job::Args),
    Batch(batch::Args),
    Queue(queue::Args),
    Dead(dead::Args),
    Schedule(schedule::Args),
    Workflow(workflow::Args),
    View(view::Args),
    Event(event::Args),
    Webhook(webhook::Args),
    Template(template::Args),
    Handler(handler::Args),
    Analytics(analytics::Args),
    Cache(cache::Args),
    Serve(serve::Args),
    Worker(worker::Args),
    Profile(profile::Args),
    Token(token::Args),
    Audit(audit::Args),
    Migrate(migrate::Args),
    Config(config::Args),
    Health(health::Args),
    Doctor(doctor::Args),
    Bench(bench::Args),
    Completions(completions::Args),
}

/// Background work that keeps caches right
#[derive(Debug, Parser)]
#[command(
    name = "recache",
    version,
    max_term_width = 80,
    subcommand_required = true,
    arg_required_else_help = true,
    disable_help_subcommand = true,
    after_help = "Examples:
  recache demo
  recache run examples/templates/hello.yaml
  recache migrate --database sqlite:recache.db
  recache job list --state failed
  recache view show shop/prices -o json

Exit codes: 0 done, 1 failed, 2 usage, 3 not found, 4 not allowed, 5 conflict,
6 unavailable, 7 the job that was waited for failed, 124 timed out."
)]
struct Cli {
    #[command(flatten)]
    globals: Globals,
    #[command(subcommand)]
    command: Command,
}

/// Runs one command line. Data goes to `out`, all else to `err`.
pub(crate) fn run(
    arguments: impl IntoIterator<Item = OsString>,
    out: &mut dyn Write,
    err: &mut dyn Write,
) -> ExitStatus {
    let environment = Environment::of_process();
    let (cli, profile) = match read(&arguments.into_iter().collect::<Vec<_>>(), &environment) {
        Ok(read) => read,
        Err(Wrong::Usage(error)) => {
            let status = if error.use_stderr() { ExitStatus::Usage } else { ExitStatus::Ok };
            // Nobody is left to be told that help could not be shown.
            let _ = error.print();
            return status;
        }
        Err(Wrong::Profile(error)) => {
            let _ = error.write(err);
            return error.exit;
        }
    };
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            let error =
                CliError::new("E-RUNTIME", ExitStatus::Failed, format!("cannot start threads: {error}"));
            let _ = error.write(err);
            return error.exit;
        }
    };
    let mut context = Context { globals: cli.globals, environment, profile, out, err };
    let outcome = runtime.block_on(cli.command.run(&mut context));
    // A name that is still being resolved must not hold the end up.
    runtime.shutdown_background();
    let outcome = outcome.and_then(|status| Ok(context.out.flush().map(|()| status)?));
    match outcome {
        Ok(status) | Err(Failure::Reported(status)) => status,
        Err(Failure::Said(error)) => {
            let _ = error.write(context.err);
            error.exit
        }
        // Whoever read the output has gone: nothing is left to be said.
        Err(Failure::Output(error)) if error.kind() == io::ErrorKind::BrokenPipe => ExitStatus::Ok,
        Err(Failure::Output(error)) => {
            let error =
                CliError::new("E-OUTPUT", ExitStatus::Failed, format!("cannot write the output: {error}"));
            let _ = error.write(context.err);
            error.exit
        }
    }
}

/// Why a command line is not carried out.
enum Wrong {
    Usage(clap::Error),
    Profile(CliError),
}

/// The command line, and the profile that it means. A profile's namespace is what `--namespace` is where nothing else is said: the line
/// is read once more with that.
fn read(arguments: &[OsString], environment: &Environment) -> Result<(Cli, Option<Profile>), Wrong> {
    let mut matches = Cli::command().try_get_matches_from(arguments).map_err(Wrong::Usage)?;
    let mut profile = None;
    if let Some(name) = named_profile(&matches, environment) {
        let said = |error| Wrong::Profile(profile::said(error));
        let path = profiles::path(environment).map_err(said)?;
        let found = Profiles::read(&path).map_err(said)?.get(&name).map_err(said)?.clone();
        if let Some(namespace) = &found.namespace {
            // Once a process, for clap keeps defaults as long as that.
            let command = with_namespace(Cli::command(), namespace.clone().leak());
            matches = command.try_get_matches_from(arguments).map_err(Wrong::Usage)?;
        }
        profile = Some(found);
    }
    Ok((Cli::from_arg_matches(&matches).map_err(Wrong::Usage)?, profile))
}

/// The profile that a flag or, where the command asks servers, a variable names.
fn named_profile(matches: &ArgMatches, environment: &Environment) -> Option<String> {
    let (_, of_noun) = matches.subcommand()?;
    // An error: the command has no such flag.
    let flag = of_noun.try_get_one::<String>(against::PROFILE).ok()?;
    let variable = environment.variable("RECACHE_PROFILE").filter(|name| !name.is_empty());
    let server_flag = of_noun.try_get_one::<String>(against::SERVER).ok().flatten();
    match flag {
        Some(name) => Some(name.clone()),
        // A flag stands above the environment.
        None if server_flag.is_some() || matches.try_contains_id("database").unwrap_or(false) => None,
        None => variable.map(str::to_owned),
    }
}

/// The same commands with another default of their `--namespace`.
fn with_namespace(mut command: clap::Command, namespace: &'static str) -> clap::Command {
    const NAMESPACE: &str = "namespace";
    if command.get_arguments().any(|argument| argument.get_id() == NAMESPACE) {
        command = command.mut_arg(NAMESPACE, |argument| argument.default_value(namespace));
    }
    let names: Vec<String> = command.get_subcommands().map(|one| one.get_name().to_owned()).collect();
    for name in names {
        command = command.mut_subcommand(name, |one| with_namespace(one, namespace));
    }
    command
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::Cli;

    fn each(command: &clap::Command, visit: &mut dyn FnMut(&clap::Command)) {
        visit(command);
        for subcommand in command.get_subcommands() {
            each(subcommand, visit);
        }
    }

    #[test]
    fn command_line_is_well_formed() {
        Cli::command().debug_assert();
    }

    #[test]
    fn every_command_has_a_summary_an_example_and_fits_80_columns() {
        let mut root = Cli::command();
        root.build();
        let mut seen = 0;
        each(&root, &mut |command| {
            seen += 1;
            let name = command.get_bin_name().unwrap_or_default().to_owned();
            let about = command.get_about().map(ToString::to_string).unwrap_or_default();
            assert!(!about.is_empty() && !about.contains('\n') && !about.ends_with('.'), "{name}: {about}");
            let help = command.clone().render_long_help().to_string();
            assert!(help.contains("\nExample"), "{name} has no example");
            assert!(help.contains(&format!("  {name}")), "{name}'s examples do not show it");
            for line in help.lines() {
                assert!(line.chars().count() <= 80, "{name}: {line}");
            }
        });
        assert!(seen >= 24, "only {seen} commands were looked at");
    }
}
