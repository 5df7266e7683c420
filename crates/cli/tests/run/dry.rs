//! Dry runs: given results and mapped handlers.

use std::fs;

use serde_json::{Value, json};
use tempfile::TempDir;

use super::{code, run, text};

const TEMPLATE: &str = "
name: order
version: 1.0.0
steps:
  - { name: check, handler: { callable: orders, method: quick }, retry: { max_attempts: 1 } }
  - { name: pay, handler: { callable: bank.pay, resolver: registry }, depends_on: [check] }
  - { name: mail, handler: { callable: mail.send, resolver: prefix, initialization: { to: you } }, depends_on: [pay] }
";

fn dry(results: Option<&Value>, args: &[&str]) -> (i32, String, String) {
    let folder = TempDir::new().unwrap();
    let (template, given) = (folder.path().join("t.yaml"), folder.path().join("results.json"));
    fs::write(&template, TEMPLATE).unwrap();
    let path = given.to_str().unwrap().to_owned();
    let mut all: Vec<&str> = args.to_vec();
    if let Some(results) = results {
        fs::write(&given, results.to_string()).unwrap();
        all.extend(["--results", &path]);
    }
    let output = run(&template, &all);
    (code(&output), text(&output.stdout), text(&output.stderr))
}

fn step(out: &str, name: &str) -> Value {
    let result: Value = serde_json::from_str(out).unwrap();
    result["steps"][name].clone()
}

#[test]
fn given_results_and_mapped_handlers_stand_in_for_all_others() {
    let results = json!({ "check": { "ok": true }, "pay": 7 });
    let (code, out, err) = dry(Some(&results), &["--handler", "mail.*=echo"]);
    assert_eq!(code, 0, "{out}{err}");
    assert_eq!(step(&out, "check")["output"], json!({ "ok": true }), "{out}");
    let mail = step(&out, "mail");
    assert_eq!(
        (&mail["output"]["results"]["pay"], &mail["output"]["settings"]["to"]),
        (&json!(7), &json!("you"))
    );
    let (code, out, err) = dry(None, &["--handler", "*=echo"]);
    assert_eq!(code, 0, "{out}{err}");
}

#[test]
fn failure_may_be_given_in_place_of_a_result() {
    let fail = json!({ "$fail": { "kind": "permanent", "code": "no_stock", "message": "none left" } });
    let (code, out, err) = dry(Some(&json!({ "check": fail })), &["--handler", "*=echo"]);
    assert_eq!(code, 7, "{out}{err}");
    assert!(out.contains("none left") && out.contains("no_stock"), "{out}");
}

#[test]
fn what_a_dry_run_lacks_is_told_at_once_and_nothing_runs() {
    let (code, out, err) = dry(Some(&json!({ "check": 1, "chek": 2 })), &[]);
    assert_eq!((code, out.as_str()), (1, ""));
    for part in
        ["step pay: nothing does `bank.pay`", "step mail: nothing does `mail.send`", "`chek`", "no such step"]
    {
        assert!(err.contains(part), "{part}: {err}");
    }
    let (code, _, err) = dry(Some(&json!([1])), &[]);
    assert!(code == 1 && err.contains("results are an object"), "{err}");
    let odd = json!({ "check": { "$fail": { "kind": "odd", "message": "x" } } });
    let (code, _, err) = dry(Some(&odd), &["--handler", "*=echo"]);
    assert!(code == 1 && err.contains("the failure of step `check`"), "{err}");
    let (code, _, err) = dry(None, &["--handler", "*=shout"]);
    assert!(code == 2 && err.contains("`shout` is not built in"), "{err}");
    let (code, _, err) = dry(None, &["--handler", "*=echo", "--database", "sqlite:never.db"]);
    assert!(code == 2 && err.contains("a dry run cannot have a database"), "{err}");
    let (code, _, err) = dry(None, &[]);
    assert!(code == 1 && err.contains("\"bank.pay\""), "without any of it they are handlers as any: {err}");
}

/// What a dry run publishes is told to nobody and gone with it: there is nothing to make.
#[test]
fn publishers_are_not_asked() {
    let folder = TempDir::new().unwrap();
    let template = folder.path().join("t.yaml");
    let published =
        TEMPLATE.replacen(" retry:", " publishes_events: [{ name: checked, publisher: p }], retry:", 1);
    assert_ne!(published, TEMPLATE);
    fs::write(&template, published).unwrap();
    let output = run(&template, &["--handler", "*=echo"]);
    assert_eq!(code(&output), 0, "{}", text(&output.stderr));
}
