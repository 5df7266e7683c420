//! `cargo xtask cost`: what a report costs with a short history and with a long one behind it. Both must cost the same, since a report is
//! of a window.

use std::process::ExitCode;

use crate::{Failure, servers};

/// Finished jobs behind the window.
const JOBS: u32 = 1_000_000;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Options {
    jobs: u32,
}

impl Options {
    pub(crate) fn parse(arguments: &[String]) -> Result<Self, String> {
        match arguments {
            [] => Ok(Self { jobs: JOBS }),
            [name, count] if name == "--jobs" => match count.parse() {
                Ok(jobs) if (100_000..=10_000_000).contains(&jobs) => Ok(Self { jobs }),
                _ => Err(format!("cost: --jobs is `{count}`; it must be a number from 100000 to 10000000")),
            },
            [unknown, ..] => Err(format!("cost: unknown option `{unknown}`")),
        }
    }

    fn command(self) -> Vec<String> {
        tests_of_figures(&format!("RECACHE_COST_JOBS={}", self.jobs), "cost_of_a_report")
    }
}

/// Tests of figures (`crates/engine/tests/figures.rs`) in a release build, with a variable set. One at a time: they are timed.
pub(crate) fn tests_of_figures(setting: &str, tests: &str) -> Vec<String> {
    let mut command = vec!["env", setting, "cargo", "test", "--release", "--package", "recache-engine"];
    command.extend(["--test", "figures", "--", tests, "--nocapture", "--test-threads=1"]);
    command.into_iter().map(str::to_owned).collect()
}

/// Runs it against servers of its own.
pub(crate) fn run(options: Options) -> Result<ExitCode, Failure> {
    servers::run(&options.command())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn number_of_jobs_is_handed_on_and_bounded() {
        let parse =
            |text: &[&str]| Options::parse(&text.iter().map(|text| (*text).to_owned()).collect::<Vec<_>>());
        assert_eq!(parse(&[]).expect("no option").command()[1], "RECACHE_COST_JOBS=1000000");
        assert_eq!(parse(&["--jobs", "200000"]).expect("an option").jobs, 200_000);
        for bad in [&["--jobs", "5"][..], &["--jobs", "many"], &["--jobs"], &["--all"]] {
            assert!(parse(bad).is_err(), "{bad:?}");
        }
    }
}
