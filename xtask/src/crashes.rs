//! `cargo xtask crashes`: processes that die, fail, stand still and lose answers at named places of the store, and connections that are
//! cut around a commit.

use std::process::ExitCode;

use crate::{Failure, servers};

/// What the long form sets; the tests say what it means (`crates/engine/tests/processes/fail_points.rs`, `lost_commit.rs`).
const LONG: [&str; 2] = ["RECACHE_FAIL_WAYS=all", "RECACHE_LOST_COMMITS=1000"];

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Options {
    is_long: bool,
}

impl Options {
    pub(crate) fn parse(arguments: &[String]) -> Result<Self, String> {
        let mut options = Self::default();
        for argument in arguments {
            match argument.as_str() {
                "--long" => options.is_long = true,
                unknown => return Err(format!("crashes: unknown option `{unknown}`")),
            }
        }
        Ok(options)
    }

    fn command(self) -> Vec<String> {
        let mut command = vec!["env", "RECACHE_FAIL_PLACES=all"];
        if self.is_long {
            command.extend(LONG);
        }
        command.extend(["cargo", "test", "--package", "recache-engine"]);
        command.extend(["--test", "processes", "--test", "lost_commit", "--"]);
        // Whatever is called neither is of the usual suite. One at a time: they kill and wait.
        command.extend([
            "crash_at_fail_points",
            "commit_whose",
            "child_process",
            "--nocapture",
            "--test-threads=1",
        ]);
        command.into_iter().map(str::to_owned).collect()
    }
}

/// Runs them against servers of their own.
pub(crate) fn run(options: Options) -> Result<ExitCode, Failure> {
    servers::run(&options.command())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_form_tries_everything() {
        let parse =
            |text: &[&str]| Options::parse(&text.iter().map(|text| (*text).to_owned()).collect::<Vec<_>>());
        let short = parse(&[]).expect("no option").command();
        assert_eq!(short[..3], ["env", "RECACHE_FAIL_PLACES=all", "cargo"]);
        let long = parse(&["--long"]).expect("an option").command();
        assert_eq!((&long[2..4], &long[4..]), (&LONG.map(str::to_owned)[..], &short[2..]));
        assert!(parse(&["--all"]).is_err());
    }
}
