//! A PostgreSQL that keeps its promises (synchronous commit, and `fsync` but for the suite), with data that nobody keeps.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use super::Fsync;
use super::leftover::RunFolder;
use super::server::{Account, Recipe, Server, random_text};
use crate::Failure;
use crate::process::Signal;

/// Each test has a database, and a pool, of its own.
const CONNECTIONS_MAX: u32 = 200;

pub(super) fn start(bin: &Path, fsync: Fsync, run: &RunFolder, account: &Account) -> Result<Server, Failure> {
    let folder = run.path().join("postgres");
    account.create_folder(&folder)?;
    let data = folder.join("data");
    let password = random_text()?;
    init(bin, &folder, &data, &password, account)?;
    let setting = |name: &str, value: &str| ["-c".to_owned(), format!("{name}={value}")];
    Recipe {
        name: "postgres",
        stop: Signal::Quit,
        folder: folder.clone(),
        command: &|port| {
            let mut command = account.command(&bin.join("postgres"), &folder);
            command.arg("-D").arg(&data);
            command.args(setting("listen_addresses", "127.0.0.1")).args(setting("port", &port.to_string()));
            command.args(setting("unix_socket_directories", &folder.to_string_lossy()));
            command.args(setting("max_connections", &CONNECTIONS_MAX.to_string()));
            command.args(setting("fsync", fsync.as_str())).args(setting("synchronous_commit", "on"));
            command
        },
        url: &|port| format!("postgres://postgres:{password}@127.0.0.1:{port}/postgres"),
        // `R`: a request to authenticate. While it starts it answers `E`.
        probe: (&startup_message(), b"R"),
    }
    .start(run)
}

/// With a password, because any user of this machine reaches the port, and a superuser may run programs. It goes over
/// loopback as it is: hashing it a few thousand times for each connection is what an unoptimised build cannot afford.
fn init(bin: &Path, folder: &Path, data: &Path, password: &str, account: &Account) -> Result<(), Failure> {
    let password_file = folder.join("password");
    fs::write(&password_file, password)
        // Within a folder that is closed to others.
        .and_then(|()| fs::set_permissions(&password_file, fs::Permissions::from_mode(0o644)))
        .map_err(Failure::at("cannot write PostgreSQL's password file"))?;
    let output = account
        .command(&bin.join("initdb"), folder)
        // What is written now is not what a test relies on.
        .args(["--no-sync", "--username=postgres", "--auth=password", "--encoding=UTF8", "--locale=C"])
        .arg("--pwfile")
        .arg(&password_file)
        .arg("--pgdata")
        .arg(data)
        .output()
        .map_err(Failure::at("cannot start initdb"))?;
    if output.status.success() {
        return Ok(());
    }
    Err(Failure::new(format!(
        "initdb failed ({}):\n{}",
        output.status,
        String::from_utf8_lossy(&output.stderr)
    )))
}

/// Length, protocol 3.0, then names and values, each ended by a zero.
fn startup_message() -> Vec<u8> {
    let parameters = b"user\0postgres\0database\0postgres\0\0";
    let length = u32::try_from(8 + parameters.len()).unwrap_or(u32::MAX);
    let mut message = length.to_be_bytes().to_vec();
    message.extend([0, 3, 0, 0]);
    message.extend(parameters);
    message
}
