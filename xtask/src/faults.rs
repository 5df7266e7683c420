//! `cargo xtask faults`: the campaigns of faults in their long form, one after another, with their figures.

use std::process::ExitCode;

use crate::{Failure, process};

/// The variables that the tests read; they say what they mean in `crates/cache/tests/faults` and `crates/faultproxy`.
const SECONDS_VARIABLE: &str = "RECACHE_FAULT_SECONDS";
const SEED_VARIABLE: &str = "RECACHE_FAULT_SEED";

/// How long each fault lasts unless it is said: long enough for a breaker to be tried many times.
const SECONDS_DEFAULT: u32 = 20;
/// A day: more is a slip of the keyboard.
const SECONDS_MAX: u32 = 86_400;

#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Options {
    seconds: u32,
    seed: Option<u64>,
}

impl Options {
    pub(crate) fn parse(arguments: &[String]) -> Result<Self, String> {
        let mut options = Self { seconds: SECONDS_DEFAULT, seed: None };
        let mut arguments = arguments.iter();
        while let Some(argument) = arguments.next() {
            let mut value = || arguments.next().ok_or_else(|| format!("faults: {argument} needs a value"));
            match argument.as_str() {
                "--seconds" => {
                    let text = value()?;
                    let seconds = text.parse().ok().filter(|seconds| (1..=SECONDS_MAX).contains(seconds));
                    options.seconds = seconds
                        .ok_or_else(|| format!("faults: --seconds takes 1 to {SECONDS_MAX}, got `{text}`"))?;
                }
                "--seed" => {
                    let text = value()?;
                    let seed = parse_seed(text);
                    options.seed = Some(seed.ok_or_else(|| {
                        format!("faults: --seed takes a number, as 17 or 0x11, got `{text}`")
                    })?);
                }
                unknown => return Err(format!("faults: unknown option `{unknown}`")),
            }
        }
        Ok(options)
    }
}

/// As the fault proxy prints it.
fn parse_seed(text: &str) -> Option<u64> {
    match text.strip_prefix("0x") {
        Some(hex) => u64::from_str_radix(hex, 16).ok(),
        None => text.parse().ok(),
    }
}

/// Runs the campaigns. They start their own servers, and say what is missing.
pub(crate) fn run(options: &Options) -> Result<ExitCode, Failure> {
    let mut command = process::cargo();
    command.args(["test", "--package", "recache-cache", "--all-features", "--test", "faults"]);
    // One at a time: latencies are measured.
    command.args(["--", "--nocapture", "--test-threads=1"]);
    command.env(SECONDS_VARIABLE, options.seconds.to_string());
    if let Some(seed) = options.seed {
        command.env(SEED_VARIABLE, seed.to_string());
    }
    let status = process::status(&mut command)?;
    Ok(if status.success() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(arguments: &str) -> Result<Options, String> {
        Options::parse(&arguments.split_whitespace().map(str::to_owned).collect::<Vec<_>>())
    }

    #[test]
    fn seconds_and_seed_are_read() {
        assert_eq!(parse(""), Ok(Options { seconds: SECONDS_DEFAULT, seed: None }));
        assert_eq!(parse("--seed 0x1f --seconds 5"), Ok(Options { seconds: 5, seed: Some(31) }));
    }

    #[test]
    fn wrong_options_are_refused() {
        for arguments in ["--seconds", "--seconds 0", "--seconds x", "--seed x", "--seed -1", "5"] {
            assert!(parse(arguments).is_err(), "{arguments}");
        }
    }
}
