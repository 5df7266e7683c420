//! A Redis that keeps nothing.

use std::path::Path;

use super::leftover::RunFolder;
use super::server::{Account, Recipe, Server};
use crate::Failure;
use crate::process::Signal;

pub(super) fn start(program: &Path, run: &RunFolder, account: &Account) -> Result<Server, Failure> {
    let folder = run.path().join("redis");
    account.create_folder(&folder)?;
    Recipe {
        name: "redis",
        // There is nothing that a gentle end would save.
        stop: Signal::Kill,
        folder: folder.clone(),
        command: &|port| {
            let mut command = account.command(program, &folder);
            command.args(["--port", &port.to_string(), "--bind", "127.0.0.1", "--daemonize", "no"]);
            command.args(["--save", "", "--appendonly", "no", "--dir"]).arg(&folder);
            command
        },
        url: &|port| format!("redis://127.0.0.1:{port}"),
        probe: (b"PING\r\n", b"+PONG\r\n"),
    }
    .start(run)
}
