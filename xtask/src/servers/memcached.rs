//! A Memcached with room for the suite.

use std::path::Path;

use super::leftover::RunFolder;
use super::server::{Account, Recipe, Server};
use crate::Failure;
use crate::process::Signal;

pub(super) fn start(program: &Path, run: &RunFolder, account: &Account) -> Result<Server, Failure> {
    let folder = run.path().join("memcached");
    account.create_folder(&folder)?;
    Recipe {
        name: "memcached",
        stop: Signal::Kill,
        folder: folder.clone(),
        command: &|port| {
            let mut command = account.command(program, &folder);
            command.args(["-l", "127.0.0.1", "-p", &port.to_string(), "-U", "0", "-m", "256"]);
            command
        },
        url: &|port| format!("tcp://127.0.0.1:{port}"),
        probe: (b"version\r\n", b"VERSION "),
    }
    .start(run)
}
