//! The dashboard and the alerts name only metrics that a server publishes.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use serde_json::Value;

use crate::served::Served;

pub(crate) fn ops() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../ops").canonicalize().unwrap()
}

fn alerts() -> Vec<(String, String)> {
    let text = std::fs::read_to_string(ops().join("prometheus/alerts.yml")).unwrap();
    let read: Value = serde_saphyr::from_str(&text).unwrap();
    let rules =
        read["groups"].as_array().unwrap().iter().flat_map(|group| group["rules"].as_array().unwrap());
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    rules.map(|rule| (text(&rule["alert"]), text(&rule["expr"]))).collect()
}

fn panels() -> Vec<(String, String)> {
    let text = std::fs::read_to_string(ops().join("grafana/recache.json")).unwrap();
    let read: Value = serde_json::from_str(&text).unwrap();
    let mut found = Vec::new();
    for panel in read["panels"].as_array().unwrap() {
        for target in panel["targets"].as_array().unwrap() {
            found.push((
                panel["title"].as_str().unwrap().to_owned(),
                target["expr"].as_str().unwrap().to_owned(),
            ));
        }
    }
    found
}

/// The names of metrics in an expression: what is neither a function, nor a label, nor a word of the language.
fn metrics_of(expression: &str) -> BTreeSet<String> {
    let mut plain = String::new();
    let (mut in_text, mut in_labels) = (false, false);
    for character in expression.chars() {
        match character {
            '"' => in_text = !in_text,
            '{' | '[' if !in_text => in_labels = true,
            '}' | ']' if !in_text => in_labels = false,
            _ if in_text || in_labels => {}
            other => plain.push(other),
        }
    }
    // `by (a, b)` and the like name labels.
    let mut without = String::new();
    let mut rest = plain.as_str();
    while let Some(at) =
        ["by (", "without (", "on (", "ignoring ("].iter().filter_map(|word| rest.find(word)).min()
    {
        let (before, after) = rest.split_at(at);
        without.push_str(before);
        rest = after.split_once(')').expect("a list of labels ends").1;
    }
    without.push_str(rest);
    let is_name = |character: char| character.is_ascii_alphanumeric() || character == '_' || character == ':';
    let mut names = BTreeSet::new();
    let mut rest = without.as_str();
    while let Some(begin) = rest.find(|character: char| character.is_ascii_alphabetic() || character == '_') {
        // A digit before it: part of a number, such as 1e3.
        let is_number = rest[..begin].ends_with(|character: char| character.is_ascii_digit());
        let word_and_rest = &rest[begin..];
        let end = word_and_rest.find(|character| !is_name(character)).unwrap_or(word_and_rest.len());
        let (word, after) = word_and_rest.split_at(end);
        let is_function = after.trim_start().starts_with('(');
        let is_word = matches!(word, "and" | "or" | "unless" | "bool" | "offset");
        if !is_function && !is_word && !is_number {
            names.insert(word.to_owned());
        }
        rest = after;
    }
    names
}

/// What a server publishes, after it was used a little.
fn published() -> BTreeSet<String> {
    let served = Served::start(&[]);
    served.post("/v1/jobs", r#"{"handler":"echo"}"#);
    served.get("/metrics");
    let text = served.get("/metrics");
    assert!(text.trim_end().ends_with("# EOF"), "{text}");
    let name = |line: &str| line.split(['{', ' ']).next().unwrap().to_owned();
    text.lines().filter(|line| !line.starts_with('#')).map(name).collect()
}

fn unknown(expressions: &[(String, String)], published: &BTreeSet<String>) -> Vec<String> {
    let mut wrong = Vec::new();
    for (place, expression) in expressions {
        let named = metrics_of(expression);
        if named.is_empty() {
            wrong.push(format!("{place}: `{expression}` names no metric"));
        }
        // `up` is Prometheus' own.
        for name in named.iter().filter(|name| *name != "up" && !published.contains(*name)) {
            wrong.push(format!("{place}: `{name}`"));
        }
    }
    wrong
}

#[test]
fn dashboard_and_alerts_name_only_metrics_that_a_running_server_publishes() {
    let published = published();
    let all: Vec<_> = alerts().into_iter().chain(panels()).collect();
    assert!(all.len() > 30, "{all:?}");
    assert_eq!(unknown(&all, &published), Vec::<String>::new(), "published: {published:#?}");
    // And that this test would find one.
    let wrong = [("x".to_owned(), "rate(recache_engine_jobs_lost_total[5m]) > 0".to_owned())];
    assert_eq!(unknown(&wrong, &published), ["x: `recache_engine_jobs_lost_total`"]);
}

#[test]
fn names_are_told_from_functions_labels_and_numbers() {
    let names = |text: &str| metrics_of(text).into_iter().collect::<Vec<_>>();
    assert_eq!(names("sum by (le, route) (rate(a_bucket{b=\"c_d\"}[5m])) / 1e3 > 0.5"), ["a_bucket"]);
    assert_eq!(names("a and on (instance) b unless c"), ["a", "b", "c"]);
    assert_eq!(names("max(up) == 1"), ["up"]);
    assert_eq!(names("1 + 2"), Vec::<String>::new());
}

#[test]
fn every_alert_has_its_lines_in_the_runbook() {
    let runbook = ops().join("../docs/operations/alerts.md");
    let runbook = std::fs::read_to_string(runbook).unwrap();
    let written: BTreeSet<_> =
        runbook.lines().filter_map(|line| line.strip_prefix("| Recache")?.split(' ').next()).collect();
    let alerts = alerts();
    let wanted: BTreeSet<_> = alerts.iter().filter_map(|(name, _)| name.strip_prefix("Recache")).collect();
    assert_eq!(written, wanted);
    assert_eq!(wanted.len(), alerts.len(), "each alert once");
}
