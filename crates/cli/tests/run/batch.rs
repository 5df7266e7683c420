//! `recache run --batch`: one template, many inputs, one batch.

use std::fs;

use serde_json::{Value, json};
use tempfile::TempDir;

use super::{LIMIT, code, recache, text};

/// Fails for inputs with `fails`, by a result that a step before decides on.
const TEMPLATE: &str = "
name: greet
namespace: shop
version: 1.0.0
input_schema:
  type: object
  required: [name]
  properties: { name: { type: string } }
steps:
  - name: say
    handler: { callable: echo }
";

const BROKEN: &str = "
name: broken
version: 1.0.0
steps:
  - name: only
    handler: { callable: fail, initialization: { message: no such shop, kind: permanent } }
";

const SLOW: &str = "
name: slow
version: 1.0.0
steps:
  - name: only
    handler: { callable: sleep, initialization: { milliseconds: 60000 } }
";

struct Folder(TempDir);

impl Folder {
    fn with(template: &str, inputs: &str) -> Self {
        let folder = TempDir::new().unwrap();
        fs::write(folder.path().join("template.yaml"), template).unwrap();
        fs::write(folder.path().join("inputs.jsonl"), inputs).unwrap();
        Self(folder)
    }

    fn run(&self, arguments: &[&str]) -> std::process::Output {
        let mut command = recache();
        command.current_dir(self.0.path()).args(["template.yaml", "--batch", "inputs.jsonl"]);
        command.args(["--timeout", LIMIT]).args(arguments).output().unwrap()
    }
}

fn document(output: &std::process::Output) -> Value {
    serde_json::from_slice(&output.stdout)
        .unwrap_or_else(|error| panic!("{error}: {}\n{}", text(&output.stdout), text(&output.stderr)))
}

#[test]
fn each_input_is_a_member_of_one_batch_in_the_database() {
    let folder = Folder::with(TEMPLATE, "{\"name\": \"Ada\"}\n\n{\"name\": \"Grace\"}\n");
    let database = format!("sqlite:{}", folder.0.path().join("run.db").display());
    let output = folder.run(&["--database", &database]);
    assert_eq!(code(&output), 0, "{}", text(&output.stderr));
    let result = document(&output);
    assert_eq!(result["schema"], "recache.run-batch.v1");
    assert_eq!((&result["state"], &result["failed"]), (&json!("completed"), &json!([])));
    let counts =
        json!({ "total": 2, "completed": 2, "failed": 0, "cancelled": 0, "superseded": 0, "pending": 0 });
    assert_eq!(result["counts"], counts);
    assert!(text(&output.stderr).contains("2 of 2 ended"), "{}", text(&output.stderr));
    // The batch is there, closed and ended, for whoever looks later.
    let batch = result["batch"].as_str().unwrap();
    let shown = super::Command::new(env!("CARGO_BIN_EXE_recache"))
        .args(["batch", "show", batch, "-o", "json", "--database", &database])
        .output()
        .unwrap();
    let shown = document(&shown);
    assert_eq!(
        (&shown["batch"]["action"], &shown["batch"]["namespace"]),
        (&json!("run greet"), &json!("shop"))
    );
    assert!(shown["batch"]["finished_at"].is_string() && shown["batch"]["closed_at"].is_string(), "{shown}");
}

#[test]
fn results_of_members_are_lines_in_the_order_of_the_inputs() {
    let inputs: Vec<String> = (0..40).map(|number| format!("{{\"name\": \"{number}\"}}\n")).collect();
    let output = Folder::with(TEMPLATE, &inputs.concat()).run(&["-o", "jsonl"]);
    assert_eq!(code(&output), 0, "{}", text(&output.stderr));
    let lines: Vec<Value> =
        text(&output.stdout).lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let said: Vec<_> = lines.iter().map(|line| line["output"]["say"]["input"]["name"].clone()).collect();
    assert_eq!(said, (0..40).map(|number| json!(number.to_string())).collect::<Vec<_>>());
    assert_eq!((&lines[7]["place"], &lines[7]["state"]), (&json!(8), &json!("completed")));
}

#[test]
fn failed_member_is_named_by_its_place_and_gives_the_exit_code() {
    let folder = Folder::with(BROKEN, "[{}, {\"a\": 1}]");
    let output = folder.run(&[]);
    assert_eq!(code(&output), 7, "{}", text(&output.stderr));
    let result = document(&output);
    assert_eq!((&result["state"], &result["counts"]["failed"]), (&json!("failed"), &json!(2)));
    let places: Vec<_> = result["failed"].as_array().unwrap().iter().map(|failed| &failed["place"]).collect();
    assert_eq!(places, [&json!(1), &json!(2)]);
    assert!(result["failed"][0]["workflow"].as_str().unwrap().starts_with("wf_"), "{result}");
    assert!(text(&output.stderr).contains("E-BATCH"), "{}", text(&output.stderr));
    let table = text(&folder.run(&["-o", "table"]).stdout);
    assert!(table.contains("input 2: wf_") && table.contains("0 of 2 completed, 2 failed"), "{table}");
}

#[test]
fn nothing_is_submitted_unless_every_input_is_right() {
    let inputs = "{\"name\": \"Ada\"}\n{\"name\": 7}\n{\"nam\n{\"name\": \"x\", \"name\": \"y\"}\n";
    let folder = Folder::with(TEMPLATE, inputs);
    let database = format!("sqlite:{}", folder.0.path().join("run.db").display());
    let output = folder.run(&["--database", &database]);
    let told = text(&output.stderr);
    assert_eq!((code(&output), text(&output.stdout).as_str()), (1, ""), "{told}");
    for place in ["inputs.jsonl:2 /name", "inputs.jsonl:3:", "inputs.jsonl:4:"] {
        assert!(told.contains(place), "`{place}` is not in {told}");
    }
    assert!(!folder.0.path().join("run.db").exists(), "nothing was opened");
    let empty = Folder::with(TEMPLATE, " \n").run(&[]);
    assert!(text(&empty.stderr).contains("there are no inputs"), "{}", text(&empty.stderr));
    let both = folder.run(&["--input", "{}"]);
    assert_eq!(code(&both), 2, "{}", text(&both.stderr));
}

#[test]
fn batch_that_takes_too_long_is_cancelled_as_a_whole() {
    let folder = Folder::with(SLOW, "{}\n{}\n{}\n");
    let mut command = recache();
    command.current_dir(folder.0.path()).args([
        "template.yaml",
        "--batch",
        "inputs.jsonl",
        "--timeout",
        "1s",
    ]);
    let output = command.output().unwrap();
    assert_eq!(code(&output), 124, "{}", text(&output.stderr));
    let result = document(&output);
    assert_eq!((&result["counts"]["cancelled"], &result["counts"]["pending"]), (&json!(3), &json!(0)));
}
