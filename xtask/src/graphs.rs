//! `cargo xtask graphs`: the analysis of 100,000 steps within its limit, in a release build, and its longest paths and levels beside
//! those of networkx on 500 random graphs: the ones that are kept, or new ones.

use std::fs;
use std::path::Path;
use std::process::{Command, ExitCode, Stdio};

use crate::{Failure, process, workspace_root};

/// What the test reads; it says what it means in `crates/model/tests/analysis/networkx.rs`.
const ANSWERS_VARIABLE: &str = "RECACHE_NETWORKX_ANSWERS";

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Options {
    /// Draws new graphs, and has networkx answer.
    seed: Option<u64>,
}

impl Options {
    pub(crate) fn parse(arguments: &[String]) -> Result<Self, String> {
        match arguments {
            [] => Ok(Self { seed: None }),
            [name, text] if name == "--seed" => match text.parse() {
                Ok(seed) => Ok(Self { seed: Some(seed) }),
                Err(_) => Err(format!("graphs: --seed takes a number, got `{text}`")),
            },
            [unknown, ..] => Err(format!("graphs: expected --seed S, got `{unknown}`")),
        }
    }
}

/// Runs both.
pub(crate) fn run(options: Options) -> Result<ExitCode, Failure> {
    let mut command = process::cargo();
    command.args(["test", "--release", "--package", "recache-model", "--test", "analysis", "--"]);
    // One at a time: one of them is timed.
    command.args(["a_hundred_thousand_steps", "of_networkx", "layered_graph", "--nocapture"]);
    command.arg("--test-threads=1");
    if let Some(seed) = options.seed {
        let answers = workspace_root().join("target").join(format!("networkx-{seed}.jsonl"));
        draw(seed, &answers)?;
        command.env(ANSWERS_VARIABLE, answers);
    }
    let status = process::status(&mut command)?;
    Ok(if status.success() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Has networkx answer on new graphs.
fn draw(seed: u64, answers: &Path) -> Result<(), Failure> {
    let at = |what: &str| Failure::at(format!("cannot {what} {}", answers.display()));
    if let Some(folder) = answers.parent() {
        fs::create_dir_all(folder).map_err(at("make the folder of"))?;
    }
    let file = fs::File::create(answers).map_err(at("write"))?;
    let mut python = Command::new("python3");
    python.arg(workspace_root().join("crates/model/tests/analysis/networkx_answers.py"));
    python.arg(seed.to_string()).stdout(Stdio::from(file));
    if process::status(&mut python)?.success() {
        return Ok(());
    }
    Err(Failure::new(
        "networkx did not answer; `python3 -m venv V && V/bin/pip install networkx` brings it, and `V/bin` belongs in front on the PATH",
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn seed_is_read_and_what_is_none_is_refused() {
        let parse =
            |text: &str| Options::parse(&text.split_whitespace().map(str::to_owned).collect::<Vec<_>>());
        assert_eq!(parse(""), Ok(Options { seed: None }));
        assert_eq!(parse("--seed 17"), Ok(Options { seed: Some(17) }));
        for bad in ["--seed", "--seed -1", "--seed x", "--all"] {
            assert!(parse(bad).is_err(), "{bad}");
        }
    }
}
