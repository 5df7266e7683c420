//! The chores of Recache, in Rust, so that a fresh machine needs a Rust toolchain, a C compiler and nothing else.
//!
//! ```text
//! cargo xtask test                      the whole suite, against servers of its own
//! cargo xtask test -- -p recache-cache  a part of it
//! cargo xtask servers -- env            any command, with the same servers
//! cargo xtask faults                    the cache under faults, long and loud
//! cargo xtask crashes                   processes that die at named places; `--long` tries everything
//! cargo xtask api                       everything that the API describes, asked by schemathesis
//! cargo xtask cost                      what a report costs with a long history behind it
//! cargo xtask truth                     figures over a day of 24,000 workflows whose truth is known
//! cargo xtask graphs                    analysis of 100,000 steps in its time, and beside networkx
//! cargo xtask fuzz                      any bytes at all, under a fuzzer
//! cargo xtask verify                    format, lints, documentation, dependencies
//! ```
//!
//! Who starts and stops the servers, and what happens when a chore is killed, stands in `servers/mod.rs`.

#![allow(clippy::print_stdout, clippy::print_stderr, reason = "a chore talks to the terminal")]

mod api;
mod cost;
mod crashes;
mod faults;
mod find;
mod fuzz;
mod graphs;
mod install;
pub mod layering;
mod process;
mod servers;
mod test;
mod totals;
mod truth;
mod verify;

use std::ffi::OsString;
use std::fmt;
use std::path::PathBuf;
use std::process::ExitCode;

const USAGE: &str = "\
the chores of Recache

usage: cargo xtask test [--keep-going] [-- FILTER...]   run the suite against servers of its own
       cargo xtask servers -- COMMAND [ARG...]          run a command with those servers
       cargo xtask faults [--seconds N] [--seed S]      the cache under faults; each lasts N seconds (20)
       cargo xtask crashes [--long]                     processes that die at named places, commits whose answers are lost
       cargo xtask api [--examples N] [--seed S] [--database URL] [--only PATHS] [--phases LIST]
                                                        schemathesis asks a server N things of each operation (20)
       cargo xtask cost [--jobs N]                      what a report costs with N finished jobs behind it (1000000)
       cargo xtask truth [--scale N]                    figures over a day of 24,000 workflows by N (1) whose truth is known
       cargo xtask graphs [--seed S]                    analysis of 100,000 steps in its time; 500 graphs beside networkx, new ones of S
       cargo xtask fuzz [TARGET...] [--seconds N]       any bytes at all, under a fuzzer; each target N seconds (60)
       cargo xtask verify                               format, lints, documentation, dependencies

FILTER goes to `cargo nextest run` where it is installed, else to `cargo test`.
PostgreSQL is looked for in $RECACHE_POSTGRES_BIN, on the PATH and in /usr/lib/postgresql/*/bin.";

/// Why a chore could not be done; the text is all that a caller can use.
#[derive(Debug)]
struct Failure(String);

impl Failure {
    fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }

    /// For `map_err`: says what was being tried in front of the cause.
    fn at<E: fmt::Display>(what: impl fmt::Display) -> impl FnOnce(E) -> Self {
        move |cause| Self(format!("{what}: {cause}"))
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Runs the chore that `arguments` name and answers with its exit code: 0 done, 1 failed, 2 not a chore.
///
/// The arguments come without the program's name.
pub fn run(arguments: impl IntoIterator<Item = OsString>) -> ExitCode {
    let arguments: Result<Vec<String>, OsString> = arguments.into_iter().map(OsString::into_string).collect();
    let Ok(arguments) = arguments else {
        return usage("an argument is not valid UTF-8");
    };
    let Some((chore, rest)) = arguments.split_first() else {
        return usage("no chore is named");
    };
    let done = match (chore.as_str(), rest) {
        ("test", rest) => match test::Options::parse(rest) {
            Ok(options) => test::run(&options),
            Err(wrong) => return usage(&wrong),
        },
        ("servers", [dashes, command @ ..]) if dashes == "--" && !command.is_empty() => servers::run(command),
        ("servers", _) => return usage("servers: what is to run stands behind `--`"),
        ("faults", rest) => match faults::Options::parse(rest) {
            Ok(options) => faults::run(&options),
            Err(wrong) => return usage(&wrong),
        },
        ("crashes", rest) => match crashes::Options::parse(rest) {
            Ok(options) => crashes::run(options),
            Err(wrong) => return usage(&wrong),
        },
        ("api", rest) => match api::Options::parse(rest) {
            Ok(options) => api::run(&options),
            Err(wrong) => return usage(&wrong),
        },
        ("cost", rest) => match cost::Options::parse(rest) {
            Ok(options) => cost::run(options),
            Err(wrong) => return usage(&wrong),
        },
        ("truth", rest) => match truth::Options::parse(rest) {
            Ok(options) => truth::run(options),
            Err(wrong) => return usage(&wrong),
        },
        ("graphs", rest) => match graphs::Options::parse(rest) {
            Ok(options) => graphs::run(options),
            Err(wrong) => return usage(&wrong),
        },
        ("fuzz", rest) => match fuzz::Options::parse(rest) {
            Ok(options) => fuzz::run(&options),
            Err(wrong) => return usage(&wrong),
        },
        ("verify", []) => verify::run(),
        ("verify", [more, ..]) => return usage(&format!("verify: takes no argument, got `{more}`")),
        (servers::GUARD_CHORE, rest) => servers::guard(rest).map(|()| ExitCode::SUCCESS),
        ("help" | "--help" | "-h", _) => {
            println!("{USAGE}");
            return ExitCode::SUCCESS;
        }
        (unknown, _) => return usage(&format!("no such chore: `{unknown}`")),
    };
    done.unwrap_or_else(|failure| {
        eprintln!("xtask {chore}: {failure}");
        ExitCode::FAILURE
    })
}

fn usage(wrong: &str) -> ExitCode {
    eprintln!("xtask: {wrong}\n\n{USAGE}");
    ExitCode::from(2)
}

/// The folder that holds the workspace's `Cargo.toml`.
fn workspace_root() -> PathBuf {
    let mut root = PathBuf::from(env!("CARGO_MANIFEST_DIR"));
    root.pop();
    root
}

/// Whether nobody is there to read a hint: what is missing is then a failure.
fn is_ci() -> bool {
    std::env::var("CI").is_ok_and(|value| value == "true" || value == "1")
}
