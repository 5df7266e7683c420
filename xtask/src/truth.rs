//! `cargo xtask truth`: the figures over a day of 24,000 workflows of four steps, whose truth is known, on every engine. The suite
//! plays the same day with fewer of them.

use std::process::ExitCode;

use crate::cost::tests_of_figures;
use crate::{Failure, servers};

/// What the test reads; it says what it means in `crates/engine/tests/figures.rs`.
const SCALE_VARIABLE: &str = "RECACHE_TRUTH_SCALE";
/// 1,000 workflows an hour by the scale must have a tenth.
const SCALES: [u32; 5] = [1, 2, 10, 20, 50];

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Options {
    scale: u32,
}

impl Options {
    pub(crate) fn parse(arguments: &[String]) -> Result<Self, String> {
        match arguments {
            [] => Ok(Self { scale: 1 }),
            [name, text] if name == "--scale" => {
                let scale = text.parse().ok().filter(|scale| SCALES.contains(scale));
                let scale = scale
                    .ok_or_else(|| format!("truth: --scale is `{text}`; it must be one of {SCALES:?}"))?;
                Ok(Self { scale })
            }
            [unknown, ..] => Err(format!("truth: expected --scale N, got `{unknown}`")),
        }
    }

    fn command(self) -> Vec<String> {
        tests_of_figures(&format!("{SCALE_VARIABLE}={}", self.scale), "figures_are_true")
    }
}

/// Runs it against servers of its own.
pub(crate) fn run(options: Options) -> Result<ExitCode, Failure> {
    servers::run(&options.command())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scale_is_handed_on_and_one_that_leaves_no_tenth_is_refused() {
        let parse =
            |text: &str| Options::parse(&text.split_whitespace().map(str::to_owned).collect::<Vec<_>>());
        assert_eq!(parse("").expect("no option").command()[1], "RECACHE_TRUTH_SCALE=1");
        assert_eq!(parse("--scale 20").expect("an option").command()[1], "RECACHE_TRUTH_SCALE=20");
        for bad in ["--scale 0", "--scale 3", "--scale", "--scale many", "--all"] {
            assert!(parse(bad).is_err(), "{bad}");
        }
    }
}
