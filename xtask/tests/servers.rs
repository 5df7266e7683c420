//! The servers end with the chore that started them, however that ends. Run against the real programs.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test says what it expects")]
#![allow(clippy::print_stderr, reason = "a test that cannot run says so")]

use std::fs;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

/// Prints the addresses and then waits for a line that never comes.
const SHOW_AND_WAIT: &str = "echo $RECACHE_TEST_POSTGRES_URL; echo $RECACHE_TEST_REDIS_URL; echo $RECACHE_TEST_MEMCACHED_URL; read -r line";

/// Whether the suite found all three programs, and therefore a chore within it finds them too.
fn has_all_programs() -> bool {
    let variables = ["RECACHE_TEST_POSTGRES_URL", "RECACHE_TEST_REDIS_URL", "RECACHE_TEST_MEMCACHED_URL"];
    let missing: Vec<_> = variables.into_iter().filter(|name| std::env::var_os(name).is_none()).collect();
    if missing.is_empty() {
        return true;
    }
    assert!(std::env::var_os("CI").is_none(), "under CI these must be set: {missing:?}");
    eprintln!("SKIPPED: not set: {missing:?}; run `cargo xtask test`");
    false
}

/// A folder of its own for the runs' folders, which the servers' account can pass through.
struct Runs(PathBuf);

impl Runs {
    fn new(test: &str) -> Self {
        let path = PathBuf::from(format!("/tmp/xtask-{test}-{}", std::process::id()));
        fs::create_dir(&path).unwrap();
        Self(path)
    }

    fn folders(&self) -> Vec<PathBuf> {
        fs::read_dir(&self.0).unwrap().map(|entry| entry.unwrap().path()).collect()
    }
}

impl Drop for Runs {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// A chore that runs until it is killed, with a connection to each of its servers.
struct Chore {
    child: Child,
    connections: Vec<TcpStream>,
}

fn chore(runs: &Runs, script: &str) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_xtask"));
    command.args(["servers", "--", "sh", "-c", script]).env("TMPDIR", &runs.0).stdin(Stdio::piped());
    command
}

impl Chore {
    fn start(runs: &Runs) -> Self {
        let mut child = chore(runs, SHOW_AND_WAIT).stdout(Stdio::piped()).spawn().unwrap();
        let addresses = BufReader::new(child.stdout.take().unwrap()).lines().take(3);
        let connections = addresses
            .map(|url| {
                let url = url.unwrap();
                let address =
                    url.rsplit_once('@').map_or_else(|| url.split_once("//").unwrap().1, |(_, rest)| rest);
                TcpStream::connect(address.split('/').next().unwrap()).unwrap()
            })
            .collect();
        Self { child, connections }
    }

    /// Returns when each server has closed its end: the event that its stop is.
    fn wait_for_servers_to_stop(self) {
        for mut connection in self.connections {
            let mut rest = Vec::new();
            // A reset is as good an end as any.
            let _ = connection.read_to_end(&mut rest);
        }
    }
}

fn signal(name: &str, pid: &str) {
    assert!(Command::new("kill").args(["-s", name, pid]).status().unwrap().success());
}

/// The guard's process id, as it stands in the folder of its run.
fn guard_of(run: &Path) -> String {
    fs::read_to_string(run.join("owner.lock")).unwrap().trim().to_owned()
}

#[test]
fn killed_chore_takes_its_servers_along() {
    for name in ["KILL", "INT", "TERM"] {
        if !has_all_programs() {
            return;
        }
        let runs = Runs::new(&format!("killed-{name}"));
        let mut chore = Chore::start(&runs);
        assert_eq!(chore.connections.len(), 3);
        assert_eq!(runs.folders().len(), 1);
        signal(name, &chore.child.id().to_string());
        chore.child.wait().unwrap();
        chore.wait_for_servers_to_stop();
    }
}

#[test]
fn next_run_cleans_up_behind_one_that_was_killed_with_its_guard() {
    if !has_all_programs() {
        return;
    }
    let runs = Runs::new("with-guard");
    let mut chore = Chore::start(&runs);
    let left = runs.folders().pop().unwrap();
    signal("KILL", &guard_of(&left));
    signal("KILL", &chore.child.id().to_string());
    chore.child.wait().unwrap();
    // The servers live on: this one still answers.
    let mut redis = chore.connections.get(1).unwrap();
    redis.write_all(b"PING\r\n").unwrap();
    let mut answer = [0; 7];
    redis.read_exact(&mut answer).unwrap();
    assert_eq!(&answer, b"+PONG\r\n");

    assert!(self::chore(&runs, "true").status().unwrap().success());
    chore.wait_for_servers_to_stop();
    assert_eq!(runs.folders(), Vec::<PathBuf>::new());
}

#[test]
fn a_run_leaves_nothing_behind_and_passes_the_exit_code_on() {
    if !has_all_programs() {
        return;
    }
    let runs = Runs::new("exit-code");
    assert_eq!(chore(&runs, "exit 7").status().unwrap().code(), Some(7));
    assert_eq!(runs.folders(), Vec::<PathBuf>::new());
}

#[test]
fn addresses_of_foreign_servers_are_not_passed_on() {
    if !has_all_programs() {
        return;
    }
    let runs = Runs::new("foreign");
    let output = chore(&runs, "echo $RECACHE_TEST_POSTGRES_URL")
        .env("RECACHE_TEST_POSTGRES_URL", "postgres://production.example/orders")
        .output()
        .unwrap();
    let url = String::from_utf8(output.stdout).unwrap();
    assert!(url.starts_with("postgres://postgres:"), "{url}");
    assert!(url.contains("@127.0.0.1:"), "{url}");
}

#[test]
fn wrong_call_is_a_usage_error_that_starts_nothing() {
    for arguments in
        [&["servers"][..], &["servers", "env"], &["test", "name"], &["verify", "all"], &["build"], &[]]
    {
        let output = Command::new(env!("CARGO_BIN_EXE_xtask")).args(arguments).output().unwrap();
        assert_eq!(output.status.code(), Some(2), "{arguments:?}");
        let said = String::from_utf8(output.stderr).unwrap();
        assert!(said.contains("usage: cargo xtask test"), "{arguments:?}: {said}");
        assert!(output.stdout.is_empty(), "{arguments:?}");
    }
}
