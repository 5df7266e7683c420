//! `recache demo`, as a newcomer runs it: the real program, the real flights.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    missing_docs,
    reason = "a test says what it expects"
)]

use std::io::{BufRead as _, BufReader};
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};

use serde_json::Value;

/// Few, because the tested program is not optimised.
const TOUCHES: &str = "25";

fn demo(args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_recache"));
    command.arg("demo").args(args).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// The document of a run that must have gone well.
fn document(output: &Output) -> Value {
    let (out, err) = (text(&output.stdout), text(&output.stderr));
    assert_eq!(output.status.code(), Some(0), "stdout: {out}\nstderr: {err}");
    assert_eq!(out.lines().count(), 1, "one document and nothing else: {out}");
    let document: Value = serde_json::from_str(&out).unwrap();
    let recache = &document["recache"];
    assert_eq!(document["schema"], "recache.demo/1");
    assert_eq!(document["flights"], 336_776);
    assert_eq!(recache["misses"], 0, "{out}");
    assert_eq!(recache["torn_reads"], 0, "{out}");
    assert_eq!(recache["alliances_wrong"], serde_json::json!([]));
    assert_eq!(document["self_check"]["passed"], true);
    assert!(document["self_check"]["items"].as_u64().unwrap() > 50, "{out}");
    document
}

fn json_run(folder: &Path, touches: &str) -> Output {
    demo(&["--json", "--touches", touches, "--data-dir", folder.to_str().unwrap()]).output().unwrap()
}

/// Kills what is still running when a test fails.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn throw_away_run_prints_the_table_and_leaves_nothing_behind() {
    let temporary = tempfile::tempdir().unwrap();
    let output = demo(&["--touches", TOUCHES]).env("TMPDIR", temporary.path()).output().unwrap();
    let (out, err) = (text(&output.stdout), text(&output.stderr));
    assert_eq!(output.status.code(), Some(0), "stdout: {out}\nstderr: {err}");
    for part in ["without version control", "builds superseded", "Self-check passed", "Where to go next"] {
        assert!(out.contains(part), "{part} is missing in: {out}");
    }
    assert!(err.contains("336776 flights loaded"), "{err}");
    assert!(!err.contains('\u{1b}'), "no terminal, no escape sequences: {err}");
    assert_eq!(std::fs::read_dir(temporary.path()).unwrap().count(), 0, "the database is gone");
}

#[test]
fn json_document_has_its_keys_and_a_second_run_goes_on() {
    let folder = tempfile::tempdir().unwrap();
    let first = document(&json_run(folder.path(), TOUCHES));
    assert_eq!(first["changes"], 25);
    assert_eq!(first["changes_before"], 0);
    for side in ["recache", "without_version_control"] {
        let side = first[side].as_object().unwrap();
        assert_eq!(side["builds_requested"], 25);
        assert!(side["items_computed"].as_u64().unwrap() > 0);
        assert!(side["reads"].as_u64().unwrap() > 0);
        for key in [
            "builds_started",
            "builds_superseded",
            "builds_published",
            "items_reused",
            "items_wasted",
            "wasted_percent",
            "items_computed_again",
            "fresh_after_ms",
            "idle_after_ms",
            "reads_per_second",
            "read_p50_us",
            "read_p99_us",
            "misses",
            "torn_reads",
            "alliances_wrong",
        ] {
            assert!(side.contains_key(key), "{key}");
        }
    }
    assert!(
        first["recache"]["items_computed"].as_u64()
            < first["without_version_control"]["items_computed"].as_u64(),
        "what did not change is not computed again"
    );
    let output = json_run(folder.path(), "10");
    let second = document(&output);
    assert!(text(&output.stderr).contains("336776 flights are in the database already"));
    assert_eq!(second["changes_before"], 55, "30 founded the alliances, 25 followed");
    assert_eq!(second["changes"], 5, "25 of 30 were made");

    let output = demo(&["--seed", "7", "--data-dir", folder.path().to_str().unwrap()]).output().unwrap();
    assert_eq!(output.status.code(), Some(5));
    assert!(text(&output.stderr).contains("E-DEMO-SEED"), "{}", text(&output.stderr));
}

#[test]
fn run_killed_half_way_goes_on_and_ends_right() {
    let seed: u64 = rand::random();
    println!("kill points drawn with seed {seed}");
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().to_str().unwrap();
    // While the flights are loaded, while Recache runs, and while the plain queue does.
    let phases = ["Loading", "with Recache", "without version control"];
    for (number, phase) in phases.into_iter().enumerate() {
        let mut child = Running(demo(&["--touches", "40", "--data-dir", path]).spawn().unwrap());
        let mut lines = BufReader::new(child.0.stderr.take().unwrap()).lines();
        let reached = lines.find(|line| line.as_ref().is_ok_and(|line| line.contains(phase)));
        assert!(reached.is_some(), "never reached: {phase}");
        // How far into the phase is the random part: nothing is waited for, a moment is drawn.
        let spins = (seed.rotate_left(u32::try_from(number).unwrap() * 16) % 1_000) * 2_000;
        for spin in 0..spins {
            std::hint::black_box(spin);
        }
        child.0.kill().unwrap();
        child.0.wait().unwrap();
    }
    let end = document(&json_run(folder.path(), "40"));
    assert!(end["changes"].as_u64().unwrap() > 0, "seed {seed}: {end}");
}

#[test]
fn second_demo_on_the_same_folder_is_refused_while_the_first_runs() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().to_str().unwrap();
    let mut first = Running(demo(&["--touches", TOUCHES, "--data-dir", path]).spawn().unwrap());
    let mut lines = BufReader::new(first.0.stderr.take().unwrap()).lines();
    assert!(lines.next().unwrap().unwrap().contains("Loading"));
    let second = demo(&["--data-dir", path]).output().unwrap();
    assert_eq!(second.status.code(), Some(5));
    assert!(text(&second.stderr).contains("E-DEMO-BUSY"), "{}", text(&second.stderr));
    assert_eq!(text(&second.stdout), "");
}

#[cfg(unix)]
#[test]
fn interrupted_run_leaves_nothing_behind() {
    let temporary = tempfile::tempdir().unwrap();
    let mut child = Running(demo(&[]).env("TMPDIR", temporary.path()).spawn().unwrap());
    let mut lines = BufReader::new(child.0.stderr.take().unwrap()).lines();
    lines.find(|line| line.as_ref().is_ok_and(|line| line.contains("with Recache"))).unwrap().unwrap();
    let interrupt = Command::new("kill").args(["-INT", &child.0.id().to_string()]).status().unwrap();
    assert!(interrupt.success());
    assert_eq!(child.0.wait().unwrap().code(), Some(130));
    assert_eq!(std::fs::read_dir(temporary.path()).unwrap().count(), 0);
}

#[test]
fn wrong_flags_and_a_file_in_the_way_are_refused() {
    for args in [&["--touches", "0"][..], &["--touches", "many"], &["--seed", "-1"], &["--nonsense"]] {
        let output = demo(args).output().unwrap();
        assert_eq!(output.status.code(), Some(2), "{args:?}");
        assert_eq!(text(&output.stdout), "", "{args:?}");
    }
    let file = tempfile::NamedTempFile::new().unwrap();
    let output = demo(&["--data-dir", file.path().to_str().unwrap()]).output().unwrap();
    assert_eq!(output.status.code(), Some(2));
    let err = text(&output.stderr);
    assert!(err.contains("E-DEMO-DIR") && err.contains(file.path().to_str().unwrap()), "{err}");

    let output = demo(&["--data-dir", "x", "--database", "sqlite:y"]).output().unwrap();
    assert_eq!(output.status.code(), Some(2));
    assert!(text(&output.stderr).contains("exclude each other"));
    assert!(!Path::new("x").exists());

    let output = demo(&["--database", "mysql://somewhere"]).output().unwrap();
    assert_eq!(output.status.code(), Some(1), "{}", text(&output.stderr));
    assert!(text(&output.stderr).contains("scheme `mysql`"), "{}", text(&output.stderr));
}

#[tokio::test]
async fn the_same_over_postgresql_and_then_with_redis() {
    let Some(database) = recache_store::conformance::postgres_database().await else { return };
    let Ok(redis) = std::env::var("RECACHE_TEST_REDIS_URL") else {
        eprintln!("not run: no RECACHE_TEST_REDIS_URL; use `cargo xtask test`");
        return;
    };
    let over_postgresql = || {
        let mut command = demo(&["--json", "--touches", TOUCHES]);
        command.args(["--database", database.url()]);
        command
    };
    let args = |cache: &str| {
        let mut command = over_postgresql();
        command.args(["--cache", cache]);
        command
    };
    let first = document(&over_postgresql().output().unwrap());
    let document = document(&args(&redis).output().unwrap());
    assert_eq!((&first["changes"], &document["changes"]), (&Value::from(25), &Value::from(25)));
    assert_eq!(document["changes_before"], 55, "it goes on where the first one ended");
    let cache = &document["cache"];
    assert_eq!(cache["backend"], "redis");
    assert!(cache["hits"].as_u64().unwrap() > 100, "{cache}");
    let history = &document["history"];
    // Six alliances, and all of them together.
    assert!(history["builds"].as_u64().unwrap() >= 6 && history["items"] == 7, "{history}");
    assert!(history["published"].as_i64().unwrap() >= 2, "as the alliances were: {history}");
    let nobody = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let away = args(&format!("redis://:hunter2@{nobody}")).output().unwrap();
    assert_eq!(away.status.code(), Some(6), "{}", text(&away.stderr));
    assert!(text(&away.stderr).contains("E-CACHE"), "{}", text(&away.stderr));
    assert!(!text(&away.stderr).contains("hunter2"), "{}", text(&away.stderr));
    assert_eq!(args("http://127.0.0.1").output().unwrap().status.code(), Some(2));
}
