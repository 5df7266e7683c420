//! `cargo xtask fuzz`: the fuzz targets of the cache under libFuzzer, on the stable toolchain. What each does is in
//! `crates/cache/fuzz/bodies`; the suite runs the same on drawn bytes.

use std::ffi::OsString;
use std::fs;
use std::path::Path;
use std::process::{Command, ExitCode};

use crate::{Failure, process, workspace_root};

const TARGETS: [&str; 3] = ["envelope", "key", "memcached"];

/// How long each target runs unless it is said.
const SECONDS_DEFAULT: u32 = 60;
/// A day: more is a slip of the keyboard.
const SECONDS_MAX: u32 = 86_400;

/// What lets libFuzzer see which branches were taken and what was compared; sanitizers would need nightly, and the crate has no
/// unsafe code for them to look at.
const COVERAGE: &str = "--cfg fuzzing -Ccodegen-units=1 -Cdebug-assertions -Coverflow-checks \
    -Cpasses=sancov-module -Cllvm-args=-sanitizer-coverage-level=4 -Cllvm-args=-sanitizer-coverage-inline-8bit-counters \
    -Cllvm-args=-sanitizer-coverage-pc-table -Cllvm-args=-sanitizer-coverage-trace-compares";

#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Options {
    targets: Vec<&'static str>,
    seconds: u32,
}

impl Options {
    pub(crate) fn parse(arguments: &[String]) -> Result<Self, String> {
        let mut options = Self { targets: Vec::new(), seconds: SECONDS_DEFAULT };
        let mut arguments = arguments.iter();
        while let Some(argument) = arguments.next() {
            if argument == "--seconds" {
                let text = arguments.next().ok_or("fuzz: --seconds needs a value")?;
                let seconds = text.parse().ok().filter(|seconds| (1..=SECONDS_MAX).contains(seconds));
                options.seconds = seconds
                    .ok_or_else(|| format!("fuzz: --seconds takes 1 to {SECONDS_MAX}, got `{text}`"))?;
                continue;
            }
            let target = TARGETS.iter().find(|target| *target == argument);
            options.targets.push(target.ok_or_else(|| {
                format!("fuzz: no target or option is called `{argument}`; there are {}", TARGETS.join(", "))
            })?);
        }
        if options.targets.is_empty() {
            options.targets.extend(TARGETS);
        }
        Ok(options)
    }
}

/// Runs the targets one after another. What was found to be interesting is kept in `target/fuzz/corpus` for the next time.
pub(crate) fn run(options: &Options) -> Result<ExitCode, Failure> {
    let host = process::host()?;
    let folder = workspace_root().join("target").join("fuzz");
    let mut build = process::cargo();
    build.args(["build", "--release", "--manifest-path", "crates/cache/fuzz/Cargo.toml", "--target", &host]);
    build.arg("--target-dir").arg(&folder).env("RUSTFLAGS", COVERAGE);
    if !process::status(&mut build)?.success() {
        return Ok(ExitCode::FAILURE);
    }
    let mut code = ExitCode::SUCCESS;
    for target in &options.targets {
        let program = folder.join(&host).join("release").join(target);
        if !process::status(&mut fuzz(&program, target, &folder, options.seconds)?)?.success() {
            code = ExitCode::FAILURE;
        }
    }
    Ok(code)
}

fn fuzz(program: &Path, target: &str, folder: &Path, seconds: u32) -> Result<Command, Failure> {
    let (corpus, artifacts) = (folder.join("corpus").join(target), folder.join("artifacts").join(target));
    for folder in [&corpus, &artifacts] {
        fs::create_dir_all(folder).map_err(Failure::at(format_args!("cannot make {}", folder.display())))?;
    }
    let mut command = Command::new(program);
    command.arg(&corpus);
    // What earlier versions stored is a good beginning.
    if target == "envelope" {
        command.arg(workspace_root().join("crates/cache/tests/fixtures"));
    }
    let mut prefix = OsString::from("-artifact_prefix=");
    prefix.push(&artifacts);
    prefix.push("/");
    command
        .arg(prefix)
        .arg(format!("-max_total_time={seconds}"))
        .args(["-timeout=10", "-print_final_stats=1"]);
    Ok(command)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(arguments: &str) -> Result<Options, String> {
        Options::parse(&arguments.split_whitespace().map(str::to_owned).collect::<Vec<_>>())
    }

    #[test]
    fn targets_and_seconds_are_read() {
        assert_eq!(parse(""), Ok(Options { targets: TARGETS.to_vec(), seconds: SECONDS_DEFAULT }));
        assert_eq!(parse("key --seconds 5"), Ok(Options { targets: vec!["key"], seconds: 5 }));
    }

    #[test]
    fn wrong_options_are_refused() {
        for arguments in ["--seconds", "--seconds 0", "keys", "--seed 1"] {
            assert!(parse(arguments).is_err(), "{arguments}");
        }
    }

    #[test]
    fn every_target_of_the_crate_is_known() {
        let manifest =
            fs::read_to_string(workspace_root().join("crates/cache/fuzz/Cargo.toml")).expect("there");
        let named: Vec<_> =
            TARGETS.iter().filter(|name| manifest.contains(&format!("name = \"{name}\""))).collect();
        assert_eq!((named.len(), manifest.matches("[[bin]]").count()), (TARGETS.len(), TARGETS.len()));
    }
}
