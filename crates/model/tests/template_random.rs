//! Properties of templates under random input: nothing panics, and what is read is read back the same.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    missing_docs,
    reason = "a test says what it expects"
)]

use std::fmt::Write as _;

use proptest::collection::{btree_map, vec};
use proptest::prelude::*;
use proptest::sample::{Index, select};
use recache_model::template::{Template, limits};
use serde_json::{Map, Value, json};

/// Pieces of which YAML goes wrong in interesting ways.
fn fragment() -> impl Strategy<Value = String> {
    prop_oneof![
        3 => select(vec![
            "name: x\n", "version: 1.0.0\n", "steps:\n", "  - name: a\n", "    handler: { callable: h }\n",
            "    depends_on: [a, b]\n", "    retry:\n", "      limit: 1\n", "- ", "? ", ": ", "{", "}", "[", "]",
            ",", "&a ", "*a", "<<: *a\n", "!!str ", "!x ", "|\n", ">-\n", "'", "\"", "\\", "#", "---\n", "...\n",
            "%YAML 1.2\n", "\t", "\r\n", "\n", "  ", "~", "\u{feff}", "\u{0}", "\u{85}", "\u{2028}", "é", "🙂",
            "0x", "1e999", "-0", ".inf", "\"\\ud83d\"", "@", "`",
        ]).prop_map(str::to_owned),
        1 => any::<String>(),
        1 => "[ -~\n]{0,20}",
    ]
}

/// A valid template, broken by random cuts and insertions.
const SOUND: &str = include_str!("templates/good/catalogue_aliases.yaml");

fn json_value() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<u64>().prop_map(Value::from),
        any::<f64>().prop_filter("finite", |value| value.is_finite()).prop_map(Value::from),
        "[^\u{0}]{0,12}".prop_map(Value::from),
    ];
    leaf.prop_recursive(4, 24, 4, |inner| {
        prop_oneof![vec(inner.clone(), 0..4).prop_map(Value::from), object_of(inner).prop_map(Value::Object),]
    })
}

fn object_of(values: impl Strategy<Value = Value>) -> impl Strategy<Value = Map<String, Value>> {
    btree_map("[^\u{0}]{0,6}", values, 0..4).prop_map(|fields| fields.into_iter().collect())
}

fn name() -> impl Strategy<Value = String> {
    "[A-Za-z0-9_.-]{1,12}"
}

/// A retry policy in one spelling or the other.
fn retry() -> impl Strategy<Value = Value> {
    let attempts = (select(vec!["max_attempts", "limit"]), 0..=limits::ATTEMPTS_MAX);
    let backoff = select(vec!["none", "linear", "exponential", "fibonacci"]);
    let base = prop_oneof![
        (0_u64..1_000).prop_map(|value| ("backoff_base_ms", json!(value))),
        (0_u32..1_000).prop_map(|value| ("initial_delay", json!(f64::from(value) / 1_000.0))),
    ];
    let cap = prop_oneof![
        (1_000..=limits::BACKOFF_MS_MAX).prop_map(|value| ("max_backoff_ms", json!(value))),
        (1_u32..=2_592_000).prop_map(|value| ("max_delay", json!(value))),
    ];
    let jitter = prop_oneof![any::<bool>().prop_map(Value::from), (0.0..=1.0).prop_map(Value::from)];
    (any::<bool>(), attempts, backoff, base, cap, jitter).prop_map(
        |(retryable, (attempts, count), backoff, (base, base_value), (cap, cap_value), jitter)| {
            json!({
                "retryable": retryable, attempts: count, "backoff": backoff,
                base: base_value, cap: cap_value, "jitter": jitter,
            })
        },
    )
}

fn step() -> impl Strategy<Value = Value> {
    (
        "[!-~]{1,20}",
        proptest::option::of(object_of(json_value())),
        proptest::option::of("[^\u{0}]{0,20}"),
        proptest::option::of(retry()),
        proptest::option::of(1..=limits::TIMEOUT_MS_MAX),
        proptest::option::of(name()),
        proptest::option::of(limits::PRIORITY_MIN..=limits::PRIORITY_MAX),
    )
        .prop_map(|(callable, initialization, description, retry, timeout_ms, queue, priority)| {
            let timeout = timeout_ms.map(|ms| std::time::Duration::from_millis(ms).as_secs_f64());
            json!({
                "handler": { "callable": callable, "initialization": initialization },
                "description": description, "retry": retry, "timeout_seconds": timeout, "queue": queue,
                "priority": priority,
            })
        })
}

fn expression() -> impl Strategy<Value = &'static str> {
    select(vec!["input", "input.a", "input.list|length > 3", "'x' ~ input.b", "1 if input.c else 2"])
}

/// What else a standard step may have; only what is right together.
fn extras() -> impl Strategy<Value = Map<String, Value>> {
    let seconds = (1..=1_000_000_u32).prop_map(|ms| json!(f64::from(ms) / 1_000.0));
    let event = (name(), select(vec!["success", "failure", "always"]), any::<bool>()).prop_map(
        |(name, condition, short)| {
            if short {
                json!(name)
            } else {
                json!({ "name": name, "condition": condition, "schema": { "type": "object" } })
            }
        },
    );
    let optional = |field: &'static str, value: BoxedStrategy<Value>| {
        proptest::option::of(value).prop_map(move |value| value.map(|value| (field, value)))
    };
    let limited = |field: &'static str, max: u32| {
        prop_oneof![
            expression().prop_map(Value::from),
            (expression(), 1..=max).prop_map(move |(source, limit)| json!({ field: source, "limit": limit })),
        ]
        .boxed()
    };
    let lifecycle = (1_440_u32..100_000, select(vec!["dlq", "error", "none"]), any::<bool>()).prop_map(
        |(minutes, action, fail)| {
            json!({ "max_duration_minutes": minutes * 5, "staleness_action": action, "auto_fail_on_timeout": fail })
        },
    );
    let wait = (
        name(),
        any::<bool>(),
        proptest::option::of((1..80_000_u32, select(vec!["fail", "skip", "proceed"]))),
    )
        .prop_map(|(name, is_signal, timeout)| {
            let kind = if is_signal { "signal" } else { "approval" };
            match timeout {
                Some((seconds, then)) => {
                    json!({ kind: name, "timeout_seconds": seconds, "on_timeout": then })
                }
                None => json!({ kind: name }),
            }
        });
    let fields = vec![
        optional("when", expression().prop_map(Value::from).boxed()).boxed(),
        optional("for_each", limited("items", limits::FOR_EACH_CHILDREN_MAX)).boxed(),
        optional("concurrency_key", limited("key", limits::RUNS_MAX)).boxed(),
        optional(
            "rate_limit",
            (1..=limits::RUNS_MAX, seconds.clone())
                .prop_map(|(limit, per)| json!({ "limit": limit, "per_seconds": per }))
                .boxed(),
        )
        .boxed(),
        optional(
            "cache",
            (vec(expression(), 1..4), seconds)
                .prop_map(|(inputs, ttl)| json!({ "inputs": inputs, "ttl_seconds": ttl }))
                .boxed(),
        )
        .boxed(),
        optional("wait_for", wait.boxed()).boxed(),
        optional(
            "publishes_events",
            proptest::collection::btree_map(name(), event, 0..3)
                .prop_map(|events| {
                    // By name, so that none comes twice.
                    events
                        .into_iter()
                        .map(|(name, event)| match event {
                            Value::Object(mut fields) => {
                                fields.insert("name".to_owned(), name.into());
                                Value::Object(fields)
                            }
                            _ => name.into(),
                        })
                        .collect::<Value>()
                })
                .boxed(),
        )
        .boxed(),
        optional("result_schema", Just(json!({ "type": "object", "required": ["a"] })).boxed()).boxed(),
        optional("system_dependency", name().prop_map(Value::from).boxed()).boxed(),
        optional("lifecycle", lifecycle.boxed()).boxed(),
    ];
    fields.prop_map(|fields| {
        fields.into_iter().flatten().map(|(field, value)| (field.to_owned(), value)).collect()
    })
}

/// A right template as JSON, with every step depending on some of those before it.
fn template() -> impl Strategy<Value = Value> {
    let steps = vec((step(), extras(), vec(any::<Index>(), 0..4)), 1..8);
    let version = (0_u64..30, 0_u64..30, 0_u64..30);
    let environments = btree_map(
        name(),
        vec((any::<Index>(), object_of(json_value()), proptest::option::of(1..80_000_u32)), 0..4),
        0..3,
    );
    (name(), proptest::option::of(name()), version, object_of(json_value()), steps, environments).prop_map(
        |(name, namespace, (major, minor, patch), metadata, steps, environments)| {
            let mut written = Vec::new();
            for (index, (mut step, extras, picks)) in steps.into_iter().enumerate() {
                let mut needed: Vec<usize> =
                    picks.iter().filter(|_| index > 0).map(|pick| pick.index(index)).collect();
                needed.sort_unstable();
                needed.dedup();
                // The order in which dependencies are listed means nothing.
                needed.reverse();
                step["name"] = format!("step-{index}").into();
                step["depends_on"] = needed.iter().map(|needed| format!("step-{needed}")).collect();
                step.as_object_mut().unwrap().extend(extras);
                // Its own limits must let it run that long.
                if step.get("lifecycle").is_some() {
                    step.as_object_mut().unwrap().remove("timeout_seconds");
                    step.as_object_mut().unwrap().remove("retry");
                }
                written.push(step);
            }
            let environments: Map<String, Value> = environments
                .into_iter()
                .map(|(environment, overlays)| {
                    let mut overlaid = Map::new();
                    for (pick, initialization, seconds) in overlays {
                        let step = format!("step-{}", pick.index(written.len()));
                        let overlay = json!({
                            "name": step, "handler": { "initialization": initialization }, "timeout_seconds": seconds,
                        });
                        overlaid.insert(step, overlay);
                    }
                    let overlays: Vec<Value> = overlaid.into_iter().map(|(_, overlay)| overlay).collect();
                    (environment, json!({ "steps": overlays }))
                })
                .collect();
            json!({
                "name": name, "namespace": namespace, "version": format!("{major}.{minor}.{patch}"),
                "metadata": metadata, "steps": written, "environments": environments,
            })
        },
    )
}

/// The same document as block YAML: lists with dashes, keys and texts in double quotes.
fn block_yaml(value: &Value, indent: usize, out: &mut String) {
    let margin = " ".repeat(indent);
    match value {
        Value::Object(fields) if !fields.is_empty() => {
            for (key, field) in fields {
                write!(out, "\n{margin}{}:", escaped(&Value::from(key.as_str()).to_string())).unwrap();
                block_yaml(field, indent + 2, out);
            }
        }
        Value::Array(items) if !items.is_empty() => {
            for item in items {
                write!(out, "\n{margin}-").unwrap();
                block_yaml(item, indent + 2, out);
            }
        }
        leaf => {
            out.push(' ');
            out.push_str(&escaped(&leaf.to_string()));
        }
    }
}

/// JSON may hold characters raw that YAML wants escaped; in either, an escape says the same.
fn escaped(json: &str) -> String {
    json.chars()
        .map(|one| match one {
            '\u{7f}'..='\u{84}' | '\u{86}'..='\u{9f}' | '\u{feff}' | '\u{fffe}' | '\u{ffff}' => {
                format!("\\u{:04x}", u32::from(one))
            }
            other => other.to_string(),
        })
        .collect()
}

/// What a problem promises about itself.
fn check_problems(source: &str) {
    let Err(problems) = Template::parse(source, "random.yaml") else { return };
    assert!(!problems.is_empty(), "an error without a problem");
    let lines = u32::try_from(source.split(['\n', '\r']).count()).unwrap();
    for problem in problems.items() {
        let (line, column) = (problem.line.unwrap(), problem.column.unwrap());
        assert!(line >= 1 && column >= 1, "{problem:?}");
        assert!(line <= lines + 1, "{problem:?}");
    }
    assert_eq!(problems.to_string().lines().count(), problems.items().len(), "{problems}");
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 512, ..ProptestConfig::default() })]

    #[test]
    fn arbitrary_text_never_panics(text in any::<String>()) {
        check_problems(&text);
        let _ = Template::from_canonical_json(&text);
    }

    #[test]
    fn fragments_of_yaml_never_panic(fragments in vec(fragment(), 0..30)) {
        check_problems(&fragments.concat());
    }

    #[test]
    fn a_broken_template_never_panics(
        cuts in vec((any::<Index>(), 0_usize..12, fragment()), 1..4),
    ) {
        let mut text: Vec<char> = SOUND.chars().collect();
        for (at, removed, inserted) in cuts {
            let at = at.index(text.len() + 1);
            let end = (at + removed).min(text.len());
            text.splice(at..end, inserted.chars());
        }
        check_problems(&text.into_iter().collect::<String>());
    }
}

proptest! {
    #[test]
    fn a_template_is_pinned_and_read_back_equal(source in template()) {
        let compact = escaped(&source.to_string());
        let template = Template::parse(&compact, "t.json").unwrap_or_else(|problems| panic!("{problems}\n{compact}"));
        let back = Template::from_canonical_json(template.canonical_json()).unwrap();
        prop_assert_eq!(&back, &template);
        prop_assert_eq!(back.digest(), template.digest());
        prop_assert_eq!(back.canonical_json(), template.canonical_json());

        let pretty = escaped(&serde_json::to_string_pretty(&source).unwrap());
        let pretty = Template::parse(&pretty, "t.json").unwrap_or_else(|problems| panic!("{problems}\n{pretty}"));
        prop_assert_eq!(pretty.digest(), template.digest());

        let mut block = String::new();
        block_yaml(&source, 0, &mut block);
        let block = Template::parse(&block, "t.yaml").unwrap_or_else(|problems| panic!("{problems}\n{block}"));
        prop_assert_eq!(&block, &template);
        prop_assert_eq!(block.digest(), template.digest());
    }

    #[test]
    fn every_environment_of_a_template_is_a_right_template(source in template()) {
        let template = Template::parse(&escaped(&source.to_string()), "t.json").unwrap();
        for (name, environment) in template.environments() {
            let effective = template.for_environment(name).unwrap();
            prop_assert!(effective.environments().is_empty());
            let back = Template::from_canonical_json(effective.canonical_json()).unwrap_or_else(|e| panic!("{e}"));
            prop_assert_eq!(&back, &effective);
            for (step, changed) in template.steps().iter().zip(effective.steps()) {
                let overlay = environment.steps.iter().find(|overlay| overlay.target.name() == step.name);
                let mut expected = step.clone();
                if let Some(overlay) = overlay {
                    let settings = &mut expected.handler.as_mut().unwrap().initialization;
                    settings.extend(overlay.initialization.clone());
                    expected.timeout = overlay.timeout.or(step.timeout);
                }
                prop_assert_eq!(changed, &expected);
            }
        }
    }

    #[test]
    fn a_templates_graph_respects_every_dependency(source in template()) {
        let template = Template::parse(&escaped(&source.to_string()), "t.json").unwrap();
        let mut done = Vec::new();
        for &index in template.graph().topological_order() {
            let step = &template.steps()[index];
            for needed in &step.dependencies {
                prop_assert!(done.contains(&needed.as_str()), "{} before {needed}", step.name);
            }
            done.push(&step.name);
        }
        prop_assert_eq!(done.len(), template.steps().len());
    }
}
