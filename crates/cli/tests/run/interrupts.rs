//! Ctrl-C and its kin.

use std::fs;
use std::io::{BufRead as _, BufReader, Read as _};
use std::process::{Child, ChildStderr, Command, Stdio};

use serde_json::json;
use tempfile::TempDir;

use super::{code, jobs, one_step, recache, result};

fn send(signal: &str, child: &Child) {
    let sent = Command::new("kill").args([signal, &child.id().to_string()]).status().unwrap();
    assert!(sent.success());
}

/// Starts a run that would take an hour, and waits until its step runs.
fn started(database: &str) -> (TempDir, Child, BufReader<ChildStderr>) {
    let folder = TempDir::new().unwrap();
    let file = folder.path().join("slow.yaml");
    fs::write(&file, one_step("sleep", &json!({ "seconds": 3600 }), "")).unwrap();
    let mut child = recache()
        .arg(&file)
        .args(["--database", database])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut told = BufReader::new(child.stderr.take().unwrap());
    let mut line = String::new();
    while !line.contains("only: running") {
        line.clear();
        assert!(told.read_line(&mut line).unwrap() > 0, "ended before its step ran");
    }
    (folder, child, told)
}

#[test]
fn ctrl_c_cancels_the_workflow_and_exits_130_without_orphan() {
    let database = recache_store::conformance::sqlite_database();
    for signal in ["-INT", "-TERM"] {
        let (_folder, child, mut told) = started(database.url());
        send(signal, &child);
        let output = child.wait_with_output().unwrap();
        let mut rest = String::new();
        told.read_to_string(&mut rest).unwrap();
        assert_eq!(code(&output), 130, "{rest}");
        assert_eq!(result(&output)["state"], "cancelled");
        assert!(rest.contains("error[E-INTERRUPTED]"), "{rest}");
    }
    assert_eq!(jobs(database.url()), vec![("cancelled".to_owned(), false); 2]);
}

#[test]
fn second_interrupt_is_no_way_to_hang() {
    let (_folder, child, mut told) = started("sqlite::memory:");
    // Two different signals: two of one kind may become one.
    send("-INT", &child);
    send("-TERM", &child);
    let output = child.wait_with_output().unwrap();
    let mut rest = String::new();
    told.read_to_string(&mut rest).unwrap();
    assert_eq!(code(&output), 130, "{rest}");
}
