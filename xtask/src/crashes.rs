//! `cargo xtask crashes`: processes that die, fail, stand still and lose answers at named places of the store, connections that are
//! cut around a commit; in the long form random graphs too, each of which must end as the model says.

use std::process::ExitCode;

use crate::{Failure, servers};

/// What the long form sets; the tests say what it means (`crates/engine/tests/processes/fail_points.rs`, `lost_commit.rs`,
/// `random_flows.rs`).
const LONG: [&str; 5] = [
    "RECACHE_FAIL_WAYS=all",
    "RECACHE_LOST_COMMITS=1000",
    "RECACHE_RANDOM_GRAPHS=2000",
    "RECACHE_RANDOM_CRASHED_GRAPHS=50",
    "RECACHE_RANDOM_STEPS=500",
];
/// Its test programs besides.
const LONG_PROGRAMS: [&str; 2] = ["--test", "random_flows"];

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
        command.extend(["--test", "processes", "--test", "lost_commit"]);
        if self.is_long {
            command.extend(LONG_PROGRAMS);
        }
        command.push("--");
        // Whatever is called neither is of the usual suite. One at a time: they kill and wait.
        command.extend([
            "crash_at_fail_points",
            "commit_whose",
            "random_graphs",
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
        let after = 2 + LONG.len();
        assert_eq!(long[2..after], LONG.map(str::to_owned));
        let programs = LONG_PROGRAMS.map(str::to_owned);
        let (rest, without): (Vec<_>, Vec<_>) = (long[after..].to_vec(), short[2..].to_vec());
        let place = rest.iter().position(|argument| argument == "--").expect("the tests' own");
        assert_eq!(rest[place - 2..place], programs);
        assert_eq!([&rest[..place - 2], &rest[place..]].concat(), without);
        assert!(parse(&["--all"]).is_err());
    }
}
