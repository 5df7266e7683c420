//! What is refused: with its place and a remedy, and nothing stored.

use std::fs;
use std::path::Path;
use std::process::{Command, Output};

use serde_json::json;
use tempfile::TempDir;

use super::{code, example, jobs, one_step, recache, run, text};

/// Runs a wrong template on a database that has one job in it, and looks that it still has just that.
#[track_caller]
fn refused(template: &[u8], args: &[&str], exit: i32, parts: &[&str]) {
    let database = recache_store::conformance::sqlite_database();
    let good = run(&example("hello.yaml"), &["--database", database.url()]);
    assert_eq!(code(&good), 0, "{}", text(&good.stderr));
    let folder = TempDir::new().unwrap();
    fs::write(folder.path().join("t.yaml"), template).unwrap();
    let output = recache()
        .current_dir(folder.path())
        .args(["t.yaml", "--database", database.url()])
        .args(args)
        .output()
        .unwrap();
    told(&output, exit, parts);
    assert_eq!(jobs(database.url()), [("completed".to_owned(), false)]);
}

#[track_caller]
fn told(output: &Output, exit: i32, parts: &[&str]) {
    let told = text(&output.stderr);
    assert_eq!((code(output), text(&output.stdout).as_str()), (exit, ""), "{told}");
    for part in parts {
        assert!(told.contains(part), "`{part}` is not in:\n{told}");
    }
}

const GOOD: &str = "name: t\nversion: 1.0.0\nsteps:\n  - { name: a, handler: { callable: echo } }\n";

#[test]
fn cycle_is_named() {
    let template = "
name: t
version: 1.0.0
steps:
  - { name: a, handler: { callable: echo }, depends_on: [c] }
  - { name: b, handler: { callable: echo }, depends_on: [a] }
  - { name: c, handler: { callable: echo }, depends_on: [b] }
";
    refused(
        template.as_bytes(),
        &[],
        1,
        &["error[E-TEMPLATE]", r#""a" -> "c" -> "b" -> "a""#, "at t.yaml:5:58", "help: remove one"],
    );
}

#[test]
fn unknown_handler_is_told_with_a_suggestion() {
    let template = GOOD.replace("echo", "ehco");
    refused(
        template.as_bytes(),
        &[],
        1,
        &["\"ehco\"", "at t.yaml:4:37", "did you mean `echo`? ", "echo, fail, http, sleep"],
    );
}

#[test]
fn every_problem_is_told_at_once() {
    let template =
        "nmae: t\nversion: one\nsteps:\n  - { name: a, handler: { callable: echo }, retries: 3 }\n";
    let parts = ["t.yaml:1:1", "t.yaml:2:10", "t.yaml:4:", "did you mean `name`?", "\"retries\""];
    refused(template.as_bytes(), &["--input", "{"], 1, &parts);
    refused(template.as_bytes(), &["--input", "{"], 1, &["error[E-INPUT]", "--input:1:1"]);
}

#[test]
fn bad_settings_are_told_where_they_stand() {
    let template = one_step("sleep", &json!({ "second": 1 }), "");
    let parts = [
        "step only",
        "no setting \"second\"",
        "at t.yaml:7:",
        "did you mean `seconds`?",
        "milliseconds, seconds",
    ];
    refused(template.as_bytes(), &[], 1, &parts);
    let private = one_step("http", &json!({ "url": "http://127.0.0.1:1/" }), "");
    refused(
        private.as_bytes(),
        &[],
        1,
        &["not a public address", "--allow-private-addresses", "at t.yaml:7:"],
    );
}

#[test]
fn what_is_no_yaml_is_told_with_its_place() {
    refused(b"name: [t\nversion: 1.0.0\n", &[], 1, &["error[E-TEMPLATE]", "at t.yaml:"]);
    refused(b"", &[], 1, &["the file holds no template", "at t.yaml:1:1", "help: "]);
    refused(
        b"name: t\nversion: \xff\n",
        &[],
        1,
        &["not UTF-8", "0xff", "at t.yaml:2:10", "save it as UTF-8"],
    );
    refused(&vec![b'#'; 1024 * 1024 + 1], &[], 1, &["larger than 1048576 bytes"]);
}

#[test]
fn input_that_is_no_json_is_told_with_its_place() {
    let good = GOOD.as_bytes();
    refused(
        good,
        &["--input", "{name: 1}"],
        2,
        &["error[E-INPUT]: the input is not JSON", "at --input:1:2", "help: quote it"],
    );
    refused(good, &["--input", r#"{"a": 1, "a": 2}"#], 2, &["the key \"a\" is there twice"]);
    refused(good, &["--input", ""], 2, &["at --input:1:0"]);
    refused(good, &["--input", "@gone.json"], 3, &["cannot read the input", "at gone.json"]);
    refused(good, &["--input", "@t.yaml"], 1, &["the input is not JSON", "at t.yaml:1:"]);
    refused(good, &["--input", "-"], 1, &["at standard input:"]);
}

#[test]
fn file_that_cannot_be_read_is_told() {
    told(
        &run(Path::new("gone.yaml"), &[]),
        3,
        &["cannot read the template", "at gone.yaml", "check the path"],
    );
    let folder = TempDir::new().unwrap();
    told(&run(folder.path(), &[]), 1, &["is a directory", "check that it is a file"]);
}

#[test]
fn wrong_flags_are_usage_errors() {
    for args in [&["--timeout", "60"][..], &["--timeout", "-1s"], &["-o", "xml"], &["--unknown"]] {
        let output = recache().arg(example("hello.yaml")).args(args).output().unwrap();
        assert_eq!(code(&output), 2, "{args:?}");
    }
}

#[test]
fn database_that_cannot_be_used_is_told_and_left_alone() {
    let folder = TempDir::new().unwrap();
    let on = |url: String| run(&example("hello.yaml"), &["--database", &url]);
    told(
        &on("mysql://u:hunter2@host/db".to_owned()),
        1,
        &["error[E-CONFIG]", "sqlite:PATH", "from flag --database"],
    );
    let gone = folder.path().join("gone/x.db");
    told(
        &on(format!("sqlite:{}", gone.display())),
        6,
        &["error[E-DATABASE-FILE]", "x.db", "help: make the folder first"],
    );
    assert!(!gone.exists());
    let foreign = folder.path().join("notes.txt");
    fs::write(&foreign, "not a database, but long enough to be looked at as one. ".repeat(40)).unwrap();
    let before = fs::read(&foreign).unwrap();
    told(&on(format!("sqlite:{}", foreign.display())), 6, &["SQLite database", "notes.txt"]);
    assert_eq!(fs::read(&foreign).unwrap(), before);
    // Nothing listens on port 1.
    let refused = on("postgres://u:hunter2@127.0.0.1:1/db".to_owned());
    told(&refused, 6, &["error[E-UNAVAILABLE]", "127.0.0.1:1", "help: check that the database runs"]);
    assert!(!text(&refused.stderr).contains("hunter2"));
}

#[test]
fn same_version_with_other_content_is_a_conflict() {
    let database = recache_store::conformance::sqlite_database();
    let args = ["--database", database.url()];
    assert_eq!(code(&super::run_text(GOOD, &args)), 0);
    let other = super::run_text(&GOOD.replace("name: a", "name: b"), &args);
    told(&other, 5, &["error[E-DATABASE]", "at t 1.0.0", "raise `version`"]);
    assert_eq!(jobs(database.url()).len(), 1);
}

#[cfg(target_os = "linux")]
#[test]
fn full_disk_is_told_and_changes_nothing() {
    /// Unmounts when the test ends, however it does.
    struct Mounted(TempDir);
    impl Drop for Mounted {
        fn drop(&mut self) {
            let _ = Command::new("umount").arg(self.0.path()).status();
        }
    }
    let folder = TempDir::new().unwrap();
    let mount =
        Command::new("mount").args(["-t", "tmpfs", "-o", "size=2m", "tmpfs"]).arg(folder.path()).output();
    if !mount.as_ref().is_ok_and(|mount| mount.status.success()) {
        eprintln!("SKIPPED: no small file system can be mounted here: {mount:?}");
        return;
    }
    let disk = Mounted(folder);
    let url = format!("sqlite:{}", disk.0.path().join("x.db").display());
    assert_eq!(code(&run(&example("hello.yaml"), &["--database", &url])), 0);
    let filler = disk.0.path().join("filler");
    let mut file = fs::File::create(&filler).unwrap();
    while std::io::Write::write(&mut file, &[0; 4096]).is_ok_and(|written| written > 0) {}
    let output = run(&example("diamond.yaml"), &["--database", &url]);
    told(&output, 6, &["error[E-UNAVAILABLE]", "full", "x.db", "help: "]);
    drop(file);
    fs::remove_file(&filler).unwrap();
    assert_eq!(jobs(&url), [("completed".to_owned(), false)]);
}

#[test]
fn what_this_command_does_not_have_is_refused_by_name() {
    let template = "
name: t
version: 1.0.0
steps:
  - name: a
    handler: { callable: echo, method: loud }
    publishes_events: [{ name: done, publisher: p }]
";
    let parts = [
        "the event done of step a names the publisher \"p\", which is not registered",
        "at t.yaml:7:38",
        "`handlers.publishers`",
        "handler `echo` is built in and has no method `loud`",
    ];
    refused(template.as_bytes(), &[], 1, &parts);
}

#[test]
fn input_that_does_not_fit_the_schema_is_told_whole() {
    let template = GOOD.replace(
        "steps:",
        "input_schema: { required: [a], properties: { b: { type: integer }, c: { enum: [1] } } }\nsteps:",
    );
    let parts = [
        "error[E-INPUT]: the input does not fit the template's `input_schema`",
        "\"a\" is a required property",
        "at the whole input",
        "at /b",
        "at /c",
    ];
    refused(template.as_bytes(), &["--input", r#"{"b": "s3cret", "c": 2}"#], 1, &parts);
}

#[test]
fn unknown_environment_is_told_with_a_suggestion() {
    let template = format!("{GOOD}environments: {{ production: {{}} }}\n");
    refused(
        template.as_bytes(),
        &["--environment", "prodution"],
        1,
        &["no environment \"prodution\"", "at --environment", "did you mean `production`?"],
    );
}
