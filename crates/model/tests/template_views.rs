//! Templates compared and drawn.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    missing_docs,
    reason = "a test says what it expects"
)]

use std::fs;
use std::path::Path;

use recache_model::template::{Diff, FieldChange, StepChange, Template, draw};
use serde_json::json;

fn read(file: &str) -> String {
    fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/templates").join(file)).unwrap()
}

fn parse(source: &str) -> Template {
    Template::parse(source, "t.yaml").unwrap_or_else(|problems| panic!("{problems}"))
}

fn whole() -> Template {
    parse(&read("good/whole.yaml"))
}

const BASE: &str = "
name: x
version: 1.0.0
steps:
  - { name: a, handler: { callable: h, initialization: { deep: { one: 1, two: 2 }, gone: true } } }
  - { name: b, handler: { callable: h }, depends_on: [a] }
  - { name: c, handler: { callable: h } }
";

#[test]
fn equal_templates_have_no_difference_however_they_are_written() {
    let diff = Diff::between(&whole(), &parse(&read("good/whole_aliases.yaml")));
    assert!(diff.is_empty(), "{diff:?}");
}

#[test]
fn each_change_is_told_at_its_field() {
    let changed = "
name: x
version: 1.1.0
description: New
steps:
  - name: a
    handler: { callable: h, initialization: { deep: { one: 1, two: 3 }, new: [1] } }
    retry: { max_attempts: 5 }
    when: input.x
  - { name: d, handler: { callable: h } }
  - { name: b, handler: { callable: h }, depends_on: [a, d] }
";
    let diff = Diff::between(&parse(BASE), &parse(changed));
    let line = |change: &FieldChange| {
        let text =
            |value: &Option<serde_json::Value>| value.as_ref().map_or("-".to_owned(), ToString::to_string);
        format!("{}: {} -> {}", change.path, text(&change.old), text(&change.new))
    };
    let fields: Vec<String> = diff.fields.iter().map(line).collect();
    assert_eq!(fields, ["description: - -> \"New\"", "version: \"1.0.0\" -> \"1.1.0\""]);
    let [StepChange::Changed { name, fields }, added, StepChange::Changed { name: b, fields: of_b }, removed] =
        diff.steps.as_slice()
    else {
        panic!("{:?}", diff.steps)
    };
    assert_eq!(name, "a");
    assert_eq!(
        fields.iter().map(line).collect::<Vec<_>>(),
        [
            "handler.initialization.deep.two: 2 -> 3",
            "handler.initialization.gone: true -> -",
            "handler.initialization.new: - -> [1]",
            "retry.max_attempts: 3 -> 5",
            "when: - -> \"input.x\"",
        ]
    );
    assert_eq!(added, &StepChange::Added { name: "d".to_owned() });
    assert_eq!((b.as_str(), of_b[0].path.as_str()), ("b", "dependencies"));
    assert_eq!((of_b[0].old.clone(), of_b[0].new.clone()), (Some(json!(["a"])), Some(json!(["a", "d"]))));
    assert_eq!(removed, &StepChange::Removed { name: "c".to_owned() });
    assert!(!diff.is_reordered && !diff.is_empty());
}

#[test]
fn another_order_of_steps_is_told_as_such() {
    let steps: Vec<&str> = BASE.lines().filter(|line| line.starts_with("  - ")).collect();
    let reordered = format!("name: x\nversion: 1.0.0\nsteps:\n{}\n{}\n{}\n", steps[2], steps[0], steps[1]);
    let diff = Diff::between(&parse(BASE), &parse(&reordered));
    assert!(diff.is_reordered && diff.fields.is_empty() && diff.steps.is_empty(), "{diff:?}");
    let removed = format!("name: x\nversion: 1.0.0\nsteps:\n{}\n{}\n", steps[0], steps[1]);
    assert!(!Diff::between(&parse(BASE), &parse(&removed)).is_reordered);
}

#[test]
fn the_whole_shape_is_drawn_in_every_form() {
    let template = whole();
    for (file, drawn) in [
        ("drawn/whole.txt", draw::text(&template)),
        ("drawn/whole.mmd", draw::mermaid(&template)),
        ("drawn/whole.dot", draw::dot(&template)),
        ("drawn/whole.svg", draw::svg(&template)),
    ] {
        assert_eq!(drawn, read(file), "{file}");
    }
}

#[test]
fn a_picture_of_many_steps_has_them_all_and_is_made_soon() {
    let steps: Vec<serde_json::Value> = (0..3_000)
        .map(|index| {
            let needed: Vec<String> = [index / 2, index / 3, index - index % 7]
                .iter()
                .filter(|one| **one < index)
                .map(|one| format!("s{one}"))
                .collect();
            let needed: std::collections::BTreeSet<String> = needed.into_iter().collect();
            json!({ "name": format!("s{index}"), "handler": { "callable": "h" }, "depends_on": needed })
        })
        .collect();
    let template = parse(&json!({ "name": "x", "version": "1.0.0", "steps": steps }).to_string());
    let picture = draw::svg(&template);
    assert_eq!(picture.matches("<g>").count(), 3_000);
    let lines: usize = template.steps().iter().map(|step| step.dependencies.len()).sum();
    assert_eq!(picture.matches("<path class=\"l\"").count(), lines);
    assert_eq!(draw::text(&template).lines().filter(|line| line.starts_with("  ")).count(), 3_000);
}
