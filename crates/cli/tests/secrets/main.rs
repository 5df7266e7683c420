//! A secret is planted in every place of the configuration that can hold one, and in tokens, headers and webhooks; then the binary is run as people
//! run it, well and badly. What was planted is in nothing that it says: no output, log line, answer, figure, span.
#![cfg(unix)]
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stderr,
    missing_docs,
    reason = "a test says what it expects"
)]

mod callers;
mod running;
mod slots;
mod wrong;

#[allow(dead_code, reason = "webhooks use the rest")]
#[path = "../receiver/mod.rs"]
mod receiver;

use std::process::{Command, Output, Stdio};

/// What must be found nowhere. Longer than any secret must be, and safe in a URL.
pub(crate) const PLANTED: &str = "pl4nted-hunter2-pl4nted-hunter2-pl4nted";

/// The binary in a folder of its own, with nothing of this machine's configuration.
pub(crate) fn recache(folder: &std::path::Path, arguments: &[&str], variables: &[(&str, &str)]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_recache"));
    command
        .args(arguments)
        .current_dir(folder)
        .env("HOME", folder)
        .env("XDG_CONFIG_HOME", folder)
        .envs(variables.iter().copied())
        .stdin(Stdio::null());
    command
}

pub(crate) fn text(output: &Output) -> String {
    format!("{}\n{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

/// Runs it to its end, and looks at what it said; answers that and its exit code.
#[track_caller]
pub(crate) fn said(
    folder: &std::path::Path,
    arguments: &[&str],
    variables: &[(&str, &str)],
) -> (String, i32) {
    let output = recache(folder, arguments, variables).output().unwrap();
    let text = text(&output);
    assert_hidden(&arguments.join(" "), &text);
    (text, output.status.code().unwrap_or(-1))
}

#[track_caller]
pub(crate) fn assert_hidden(what: &str, text: &str) {
    // A part is enough to be a leak.
    for part in [PLANTED, &PLANTED[..16]] {
        if let Some(at) = text.find(part) {
            let from = text.floor_char_boundary(at.saturating_sub(300));
            let to = text.floor_char_boundary((at + 100).min(text.len()));
            panic!("{what} shows what was planted: …{}…", &text[from..to]);
        }
    }
}
