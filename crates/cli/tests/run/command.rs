//! The `command` handler with real programs.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use serde_json::{Value, json};
use tempfile::TempDir;

use super::{code, one_step, result, run_text, text};

/// A program that the test writes, as an operator's own script.
struct Script {
    folder: TempDir,
}

impl Script {
    fn new(lines: &str) -> Self {
        let folder = TempDir::new().unwrap();
        let path = folder.path().join("script");
        fs::write(&path, format!("#!/bin/sh\n{lines}\n")).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
        Self { folder }
    }

    fn path(&self) -> String {
        self.folder.path().join("script").display().to_string()
    }

    /// Runs it as the only step: exit code, the step, and what was said.
    fn run(&self, settings: Value, more: &str) -> (i32, Value, String) {
        let mut settings = settings;
        settings["command"] = json!("script");
        let allowed = format!("script={}", self.path());
        let output = run_text(&one_step("command", &settings, more), &["--allow-command", &allowed]);
        let told = text(&output.stderr);
        (code(&output), result(&output)["steps"]["only"].clone(), told)
    }
}

const ONCE: &str = "    retry: { max_attempts: 1 }\n";
const TWICE: &str = "    retry: { max_attempts: 2, backoff: none }\n";

#[test]
fn arguments_arrive_as_they_are_and_json_comes_back_as_json() {
    let script = Script::new(r#"printf '{"first": "%s", "count": %d}' "$1" $#; echo careful >&2"#);
    let (code, step, told) = script.run(json!({ "arguments": ["$(touch /tmp/x); *", "b c"] }), ONCE);
    assert_eq!(code, 0, "{told}");
    let output = json!({ "first": "$(touch /tmp/x); *", "count": 2 });
    assert_eq!(step["output"], json!({ "exit_code": 0, "output": output, "stderr": "careful" }));
}

#[test]
fn it_reads_what_is_known_of_the_step_or_what_it_is_given() {
    let script = Script::new("cat");
    let (_, step, _) = script.run(json!({}), ONCE);
    assert_eq!(step["output"]["output"], json!({ "input": {}, "results": {}, "item": null, "signal": null }));
    let (_, step, _) = script.run(json!({ "input": "plain\ntext" }), ONCE);
    assert_eq!(step["output"]["output"], "plain\ntext");
    let (_, step, _) = script.run(json!({ "input": { "n": [1, 2] } }), ONCE);
    assert_eq!(step["output"]["output"], json!({ "n": [1, 2] }));
}

#[test]
fn environment_and_folder_are_its_own_and_gone_after_it() {
    let script = Script::new("env | cut -d= -f1 | sort | tr '\\n' ' '; pwd; touch left-here; ls -ld .");
    let (code, step, told) = script.run(json!({}), ONCE);
    assert_eq!(code, 0, "{told}");
    let said = step["output"]["output"].as_str().unwrap().to_owned();
    let (names, rest) = said.split_once('/').unwrap();
    // PWD and OLDPWD, `_` and SHLVL are the shell's own.
    let ours: Vec<&str> =
        names.split(' ').filter(|name| !["", "PWD", "OLDPWD", "SHLVL", "_"].contains(name)).collect();
    assert_eq!(
        ours,
        [
            "HOME",
            "LANG",
            "PATH",
            "RECACHE_ATTEMPT",
            "RECACHE_ATTEMPT_TOKEN",
            "RECACHE_CORRELATION_ID",
            "RECACHE_JOB_ID",
            "RECACHE_NAMESPACE",
            "TMPDIR"
        ]
    );
    let folder = format!("/{}", rest.lines().next().unwrap());
    assert!(rest.contains("drwx------"), "{rest}");
    assert!(!Path::new(&folder).exists(), "{folder}");
}

#[test]
fn how_it_ends_says_whether_it_is_tried_again() {
    for (lines, attempts, said) in [
        (
            "echo no such customer >&2; exit 65",
            1,
            "`script` ended with 65: no such customer (command_exit_65)",
        ),
        ("echo busy >&2; exit 75", 2, "`script` ended with 75: busy (command_exit_75)"),
        ("exit 1", 2, "`script` ended with 1 (command_exit_1)"),
        ("kill -9 $$", 2, "`script` was ended by signal 9 (command_signal_9)"),
    ] {
        let (code, step, told) = Script::new(lines).run(json!({}), TWICE);
        assert_eq!((code, &step["attempts"]), (7, &json!(attempts)), "{lines}: {told}");
        assert!(told.contains(said), "{lines}: {told}");
    }
}

#[test]
fn one_that_takes_too_long_ends_with_all_that_it_began() {
    let marks = TempDir::new().unwrap();
    let mark = marks.path().join("pids");
    // It does not care for SIGTERM, nor does what it began.
    let script = Script::new(&format!("trap '' TERM; sleep 600 & echo $$ $! > {}; wait", mark.display()));
    let (code, _, told) = script.run(json!({ "timeout_seconds": 0.3 }), ONCE);
    assert_eq!(code, 7, "{told}");
    assert!(told.contains("did not end within 300 ms: it was still running (command_timeout)"), "{told}");
    for pid in fs::read_to_string(&mark).unwrap().split_whitespace() {
        let state = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        let is_gone = state.is_empty() || state.contains(") Z ");
        assert!(is_gone, "{pid}: {state}");
    }
}

#[test]
fn what_it_leaves_running_neither_holds_it_up_nor_stays() {
    let marks = TempDir::new().unwrap();
    let mark = marks.path().join("pid");
    let script = Script::new(&format!("sleep 600 & echo $! > {}; echo done", mark.display()));
    let (code, step, told) = script.run(json!({ "timeout_seconds": 30 }), ONCE);
    assert_eq!((code, &step["output"]["output"]), (0, &json!("done\n")), "{told}");
    let pid = fs::read_to_string(&mark).unwrap();
    let state = fs::read_to_string(format!("/proc/{}/stat", pid.trim())).unwrap_or_default();
    assert!(state.is_empty() || state.contains(") Z "), "{state}");
}

#[test]
fn output_and_memory_are_bounded() {
    let (code, step, told) = Script::new("yes").run(json!({}), TWICE);
    assert_eq!((code, &step["attempts"]), (7, &json!(1)), "{told}");
    assert!(told.contains("wrote more than 1048576 bytes (command_output_too_large)"), "{told}");
    // Two GiB where one is allowed.
    let lines = "sleep 0.2; exec dd if=/dev/zero of=/dev/null bs=2048M count=1";
    let (code, _, told) = Script::new(lines).run(json!({}), ONCE);
    assert_eq!(code, 7, "{told}");
    assert!(told.contains("memory exhausted") || told.contains("Cannot allocate"), "{told}");
}

#[test]
fn what_does_not_read_its_input_is_not_hung_up_on() {
    let script = Script::new("exec 0<&-; echo fine");
    let (code, step, told) = script.run(json!({ "input": "x".repeat(300_000) }), ONCE);
    assert_eq!((code, &step["output"]["output"]), (0, &json!("fine\n")), "{told}");
}

#[test]
fn without_leave_there_is_no_such_handler() {
    let output = run_text(&one_step("command", &json!({ "command": "true" }), ONCE), &[]);
    assert_eq!(code(&output), 1, "{}", text(&output.stderr));
    assert!(
        text(&output.stderr).contains("this command has echo, fail, http, sleep"),
        "{}",
        text(&output.stderr)
    );
    let output = run_text(
        &one_step("command", &json!({ "command": "/bin/sh", "arguments": ["-c", "true"] }), ONCE),
        &["--allow-command", "true=/bin/true"],
    );
    let told = text(&output.stderr);
    assert!(told.contains("no such program may be run") && told.contains("allows true"), "{told}");
    let output = run_text(&one_step("echo", &json!({}), ONCE), &["--allow-command", "true=bin/true"]);
    assert!(text(&output.stderr).contains("absolute path"), "{}", text(&output.stderr));
}
