//! `recache run` as a person uses it: the real program, real signals, real servers.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test says what it expects")]

#[path = "run/batch.rs"]
mod batch;
#[cfg(unix)]
#[path = "run/command.rs"]
mod command;
#[path = "run/dry.rs"]
mod dry;
#[path = "run/http.rs"]
mod http;
#[cfg(unix)]
#[path = "run/interrupts.rs"]
mod interrupts;
#[path = "run/wrong_input.rs"]
mod wrong_input;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use serde_json::{Value, json};
use tempfile::TempDir;

/// Far more than any of these runs needs: only a run that hangs meets it.
const LIMIT: &str = "60s";

fn recache() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_recache"));
    command.arg("run").stdin(Stdio::null());
    // Nobody listens there: a step that took its proxy from the environment would fail.
    for name in ["http_proxy", "HTTP_PROXY", "https_proxy", "HTTPS_PROXY", "all_proxy", "ALL_PROXY"] {
        command.env(name, "http://127.0.0.1:9");
    }
    command
}

fn example(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../examples/templates").join(name)
}

fn run(file: &Path, args: &[&str]) -> Output {
    recache().arg(file).args(["--timeout", LIMIT]).args(args).output().unwrap()
}

/// Runs a template that is given as text.
fn run_text(template: &str, args: &[&str]) -> Output {
    let folder = TempDir::new().unwrap();
    let file = folder.path().join("template.yaml");
    fs::write(&file, template).unwrap();
    run(&file, args)
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).unwrap()
}

fn code(output: &Output) -> i32 {
    output.status.code().unwrap_or(-1)
}

/// The printed result; times and id are replaced after a look at their form.
fn result(output: &Output) -> Value {
    let mut result: Value = serde_json::from_slice(&output.stdout)
        .unwrap_or_else(|error| panic!("{error}: {}\n{}", text(&output.stdout), text(&output.stderr)));
    let id = result["workflow"].as_str().unwrap();
    assert!(id.strip_prefix("wf_").is_some_and(|uuid| uuid.len() == 36), "{id}");
    result["workflow"] = json!("ID");
    for step in result["steps"].as_object_mut().unwrap().values_mut() {
        for time in ["queued_ms", "run_ms"] {
            assert!(step[time].is_u64(), "{step}");
            step[time] = json!("MS");
        }
    }
    result
}

fn completed(attempts: u32, output: &Value) -> Value {
    json!({
        "state": "completed", "attempts": attempts, "output": output, "error": null,
        "queued_ms": "MS", "run_ms": "MS",
    })
}

/// One step with a handler and its settings.
fn one_step(handler: &str, settings: &Value, more: &str) -> String {
    format!(
        "name: one\nversion: 1.0.0\nsteps:\n  - name: only\n    handler:\n      callable: {handler}\n      \
         initialization: {settings}\n{more}"
    )
}

fn block_on<T>(work: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(work)
}

/// Every job in the database, newest first: its state, and whether some session still holds it.
fn jobs(url: &str) -> Vec<(String, bool)> {
    block_on(async {
        let store = recache_store::open(&recache_store::OpenOptions::new(url)).await.unwrap();
        let filter = recache_store::JobFilter { rows_max: 100, ..recache_store::JobFilter::default() };
        let jobs = store.jobs_list(filter).await.unwrap().jobs;
        store.close().await;
        jobs.into_iter().map(|job| (job.state.to_string(), job.session.is_some())).collect()
    })
}

#[test]
fn hello_prints_the_documented_shape_and_nothing_else() {
    let output = run(&example("hello.yaml"), &["--input", r#"{"name": "Ada"}"#]);
    assert_eq!(code(&output), 0, "{}", text(&output.stderr));
    let echoed = json!({ "input": { "name": "Ada" }, "results": {}, "settings": { "greeting": "Hello" } });
    assert_eq!(
        result(&output),
        json!({
            "schema": "recache.run.v1", "workflow": "ID", "state": "completed",
            "steps": { "greet": completed(1, &echoed) }, "output": { "greet": echoed },
        })
    );
    let printed = text(&output.stdout);
    let keys = ["schema", "workflow", "state", "steps", "output"];
    let places: Vec<usize> =
        keys.iter().map(|key| printed.find(&format!("\n  \"{key}\"")).unwrap()).collect();
    assert!(places.is_sorted(), "{printed}");
    let told = text(&output.stderr);
    let told: Vec<&str> = told.lines().collect();
    assert_eq!(told[..2], ["greet: queued", "greet: running, attempt 1 of 3"]);
    assert!(told[2].starts_with("greet: completed in ") && told.len() == 3, "{told:?}");
}

#[test]
fn results_of_a_diamond_reach_its_end() {
    let output = run(&example("diamond.yaml"), &["--input", r#"{"order": 7}"#]);
    assert_eq!(code(&output), 0, "{}", text(&output.stderr));
    let input = json!({ "order": 7 });
    let fetched = json!({ "input": input, "results": {}, "settings": { "source": "orders" } });
    let results = json!({ "price": { "slept_ms": 40 }, "stock": { "slept_ms": 20 } });
    let published = json!({ "input": input, "results": results, "settings": {} });
    assert_eq!(
        result(&output),
        json!({
            "schema": "recache.run.v1", "workflow": "ID", "state": "completed",
            "steps": {
                "fetch": completed(1, &fetched),
                "price": completed(1, &json!({ "slept_ms": 40 })),
                "stock": completed(1, &json!({ "slept_ms": 20 })),
                "publish": completed(1, &published),
            },
            "output": { "publish": published },
        })
    );
    let printed = text(&output.stdout);
    let steps = ["fetch", "price", "stock", "publish"];
    let places: Vec<usize> =
        steps.iter().map(|name| printed.find(&format!("\"{name}\": {{\n      \"state\"")).unwrap()).collect();
    assert!(places.is_sorted(), "steps stand in the template's order: {printed}");
}

#[test]
fn retried_step_succeeds_and_its_failures_are_shown() {
    let output = run(&example("retry.yaml"), &[]);
    assert_eq!(code(&output), 0, "{}", text(&output.stderr));
    let result = result(&output);
    assert_eq!(result["steps"]["flaky"], completed(3, &json!({ "attempt": 3 })));
    assert_eq!(result["output"]["report"]["results"], json!({ "flaky": { "attempt": 3 } }));
    let told = text(&output.stderr);
    for line in ["flaky: running, attempt 2 of 5", "flaky: running, attempt 3 of 5", "report: queued"] {
        assert!(told.lines().any(|told| told == line), "{line}: {told}");
    }
    let is_failure =
        |line: &&str| line.contains("failed after") && line.contains("the other side is busy (fail)");
    assert_eq!(told.lines().filter(is_failure).count(), 2, "{told}");
}

#[test]
fn table_shows_each_step() {
    let output = run(&example("diamond.yaml"), &["-o", "table"]);
    assert_eq!(code(&output), 0);
    let table = text(&output.stdout);
    let rows: Vec<&str> = table.lines().map(|line| line.split_whitespace().next().unwrap()).collect();
    assert_eq!(rows, ["STEP", "fetch", "price", "stock", "publish", "workflow"], "{table}");
}

#[test]
fn every_queue_that_the_template_names_is_served() {
    let template = "
name: queues
version: 1.0.0
steps:
  - { name: a, handler: { callable: echo }, queue: slow }
  - { name: b, handler: { callable: echo }, queue: fast, depends_on: [a] }
  - { name: c, handler: { callable: echo }, depends_on: [b] }
";
    let output = run_text(template, &[]);
    assert_eq!(code(&output), 0, "{}", text(&output.stderr));
}

#[test]
fn template_may_be_json() {
    let folder = TempDir::new().unwrap();
    let file = folder.path().join("one.json");
    let step = json!({ "name": "only", "handler": { "callable": "echo" } });
    fs::write(&file, json!({ "name": "one", "version": "1.0.0", "steps": [step] }).to_string()).unwrap();
    assert_eq!(code(&run(&file, &[])), 0);
}

#[test]
fn input_comes_from_a_file_or_standard_input() {
    let folder = TempDir::new().unwrap();
    let file = folder.path().join("input.json");
    fs::write(&file, "[1, 2]").unwrap();
    let from_file = run(&example("hello.yaml"), &["--input", &format!("@{}", file.display())]);
    assert_eq!(result(&from_file)["output"]["greet"]["input"], json!([1, 2]));
    let stdin = Stdio::from(fs::File::open(&file).unwrap());
    let piped = recache().arg(example("hello.yaml")).args(["--input", "-"]).stdin(stdin).output().unwrap();
    assert_eq!(result(&piped)["output"]["greet"]["input"], json!([1, 2]));
}

#[test]
fn permanent_failure_is_tried_once_and_exits_7() {
    let template = one_step(
        "fail",
        &json!({ "kind": "permanent", "message": "no such customer" }),
        "  - { name: after, handler: { callable: echo }, depends_on: [only] }\n",
    );
    let output = run_text(&template, &[]);
    assert_eq!(code(&output), 7);
    let result = result(&output);
    assert_eq!((&result["state"], &result["output"]), (&json!("failed"), &json!({ "after": null })));
    assert_eq!(result["steps"]["only"]["attempts"], 1);
    let error = json!({ "kind": "permanent", "code": "fail", "message": "no such customer" });
    assert_eq!(result["steps"]["only"]["error"], error);
    let told = text(&output.stderr);
    assert!(told.contains("error[E-WORKFLOW]: the workflow failed"), "{told}");
    assert!(told.contains("step `only` failed after 1 attempt: no such customer (fail)"), "{told}");
}

#[test]
fn timeout_cancels_the_workflow_and_exits_124() {
    let folder = TempDir::new().unwrap();
    let file = folder.path().join("slow.yaml");
    fs::write(&file, one_step("sleep", &json!({ "seconds": 3600 }), "")).unwrap();
    let output = recache().arg(&file).args(["--timeout", "300ms"]).output().unwrap();
    assert_eq!(code(&output), 124, "{}", text(&output.stderr));
    let result = result(&output);
    assert_eq!(
        (&result["state"], &result["steps"]["only"]["state"]),
        (&json!("cancelled"), &json!("cancelled"))
    );
    assert!(text(&output.stderr).contains("not completed within 300 ms"), "{}", text(&output.stderr));
}

#[test]
fn run_on_postgresql_leaves_its_jobs_there() {
    let Some(database) = block_on(recache_store::conformance::postgres_database()) else { return };
    let args = ["--database", database.url(), "--input", r#"{"order": 7}"#];
    let output = run(&example("diamond.yaml"), &args);
    assert_eq!(code(&output), 0, "{}", text(&output.stderr));
    assert_eq!(result(&output)["state"], "completed");
    assert_eq!(jobs(database.url()), vec![("completed".to_owned(), false); 4]);
    let output = run_text(&one_step("fail", &json!({ "kind": "permanent" }), ""), &args[..2]);
    assert_eq!(code(&output), 7, "{}", text(&output.stderr));
}

#[cfg(target_os = "linux")]
#[test]
fn result_that_cannot_be_written_is_an_error() {
    let full = fs::OpenOptions::new().write(true).open("/dev/full").unwrap();
    let output = recache().arg(example("hello.yaml")).stdout(full).output().unwrap();
    assert_eq!(code(&output), 1);
    assert!(text(&output.stderr).contains("cannot write the result"), "{}", text(&output.stderr));
}

#[test]
fn environment_changes_what_the_steps_are_given() {
    let template = "
name: t
version: 1.0.0
steps:
  - { name: a, handler: { callable: echo, initialization: { size: 1, colour: red } }, queue: q }
environments:
  production: { steps: [{ name: a, handler: { initialization: { size: 9 } } }] }
";
    let settings = |args: &[&str]| {
        let output = run_text(template, args);
        assert_eq!(code(&output), 0, "{}", text(&output.stderr));
        result(&output)["output"]["a"]["settings"].clone()
    };
    assert_eq!(settings(&[]), json!({ "size": 1, "colour": "red" }));
    assert_eq!(settings(&["--environment", "production"]), json!({ "size": 9, "colour": "red" }));
}
