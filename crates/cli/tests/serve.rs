//! `recache serve` and `recache bench` as processes.
#![cfg(unix)]
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    missing_docs,
    reason = "a test says what it expects"
)]

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::process::{Child, Command, Stdio};

struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn recache(arguments: &[&str], address: &str) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_recache"));
    command.args(arguments).env("RECACHE__SERVER__ADDRESS", address).stdin(Stdio::null());
    command
}

#[test]
fn serve_answers_health_and_ends_well_when_told_to() {
    let folder = tempfile::tempdir().unwrap();
    let database = format!("sqlite:{}", folder.path().join("s.db").display());
    let mut child = Running(
        recache(&["serve", "--database", &database], "127.0.0.1:0")
            .stderr(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap(),
    );
    let mut lines = BufReader::new(child.0.stderr.take().unwrap()).lines();
    let address = loop {
        let line = lines.next().expect("it says where it listens").unwrap();
        if let Some((_, rest)) = line.split_once("http://") {
            break rest.trim_end_matches("/health").to_owned();
        }
    };
    let mut stream = TcpStream::connect(&address).unwrap();
    stream.write_all(b"GET /health/ready HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n").unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");

    let terminated = Command::new("kill").args(["-TERM", &child.0.id().to_string()]).status().unwrap();
    assert!(terminated.success());
    assert_eq!(child.0.wait().unwrap().code(), Some(0));
}

#[test]
fn log_has_the_configured_level_and_form() {
    let said = |level: &str, format: &str| {
        let folder = tempfile::tempdir().unwrap();
        let database = format!("sqlite:{}", folder.path().join("s.db").display());
        let child = Running(
            recache(&["serve", "--database", &database], "127.0.0.1:0")
                .env("RECACHE__LOG__LEVEL", level)
                .env("RECACHE__LOG__FORMAT", format)
                .env("RECACHE__COMMON__CACHE__ENABLED", "true")
                .env("RECACHE__COMMON__CACHE__BACKEND", "moka")
                .stderr(Stdio::piped())
                .spawn()
                .unwrap(),
        );
        let mut child = child;
        let lines = BufReader::new(child.0.stderr.take().unwrap()).lines();
        // The line that says where it listens is the last of the start.
        lines.map(Result::unwrap).take_while(|line| !line.contains("http://")).collect::<Vec<_>>()
    };
    let text = said("info", "text");
    assert!(text.iter().any(|line| line.contains("cache is active")), "{text:?}");
    let json = said("info", "json");
    let documents: Vec<serde_json::Value> =
        json.iter().map(|line| serde_json::from_str(line).expect("one JSON object a line")).collect();
    assert!(documents.iter().any(|line| line["fields"]["provider"] == "moka"), "{json:?}");
    assert!(said("warn", "text").is_empty());
}

#[test]
fn taken_port_is_named_with_its_remedy_and_no_database_is_made() {
    let folder = tempfile::tempdir().unwrap();
    let database = format!("sqlite:{}", folder.path().join("s.db").display());
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let output = recache(&["serve", "--database", &database], &address).output().unwrap();
    let said = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(6), "{said}");
    for part in ["error[E-ADDRESS]", &address, "in use", "help: stop the other process"] {
        assert!(said.contains(part), "{said}");
    }
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0);
}

#[test]
fn bench_jobs_drains_all_that_it_submits_and_leaves_nothing() {
    let temporary = tempfile::tempdir().unwrap();
    let output = recache(&["bench", "jobs", "--jobs", "300", "--singles", "5", "-o", "json"], "127.0.0.1:0")
        .env("TMPDIR", temporary.path())
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let report: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(report["schema"], "recache.bench/1");
    let names: Vec<&str> =
        report["rows"].as_array().unwrap().iter().map(|row| row["name"].as_str().unwrap()).collect();
    for name in ["submit, in bulk", "drain", "one job, submit to done p50", "one job, submit to done p99"] {
        assert!(names.contains(&name), "{names:?}");
    }
    assert!(report["rows"].as_array().unwrap().iter().all(|row| row["value"].as_f64().unwrap() > 0.0));
    assert_eq!(std::fs::read_dir(temporary.path()).unwrap().count(), 0);
}

#[test]
fn bench_workflows_runs_every_shape_to_its_end() {
    let arguments = ["bench", "workflows", "--singles", "2", "--many", "5", "-o", "json"];
    let shapes = "linear4,diamond4,dag7,tree8,conditional5,batch1000,fan1000";
    let output = recache(&[&arguments[..], &["--shapes", shapes]].concat(), "127.0.0.1:0").output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let report: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    let names: Vec<&str> =
        report["rows"].as_array().unwrap().iter().filter_map(|row| row["name"].as_str()).collect();
    for shape in shapes.split(',') {
        assert!(
            names.iter().any(|name| name.starts_with(&format!("{shape}: ")) && name.ends_with("p99")),
            "{names:?}"
        );
    }
    let unknown = recache(&["bench", "workflows", "--shapes", "ring"], "127.0.0.1:0").output().unwrap();
    assert!(
        String::from_utf8_lossy(&unknown.stderr).contains("there is no shape `ring`: linear4"),
        "{unknown:?}"
    );
}

#[test]
fn bench_touch_sees_every_build_stopped() {
    let output =
        recache(&["bench", "touch", "--rounds", "10", "-o", "json"], "127.0.0.1:0").output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let report: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(report["rows"].as_array().unwrap().len(), 6);
}
