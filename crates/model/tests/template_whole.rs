//! The whole shape of a template: every field read, pinned, changed by an environment, and refused where nobody runs
//! it yet.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    missing_docs,
    reason = "a test says what it expects"
)]

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use recache_model::template::shape::{self, ShapeField};
use recache_model::template::{
    Awaited, BackoffSpec, DeliveryMode, EventCondition, FailureStrategy, OnTimeout, RetrySpec, Scope,
    StalenessAction, Step, StepType, Template,
};
use serde_json::{Map, Value, json};

fn fixture(file: &str) -> String {
    let path: PathBuf = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/templates/good").join(file);
    fs::read_to_string(path).unwrap()
}

fn whole() -> Template {
    parse(&fixture("whole.yaml"))
}

fn parse(source: &str) -> Template {
    Template::parse(source, "t.yaml").unwrap_or_else(|problems| panic!("{problems}"))
}

fn step<'t>(template: &'t Template, name: &str) -> &'t Step {
    template.steps().iter().find(|step| step.name == name).unwrap()
}

/// The values to which a path of the shape leads.
fn values<'v>(document: &'v Value, path: &str) -> Vec<&'v Value> {
    path.split('.').fold(vec![document], |found, segment| {
        let (name, is_list) = segment.strip_suffix("[]").map_or((segment, false), |name| (name, true));
        found
            .into_iter()
            .flat_map(|value| match name {
                "*" => value.as_object().into_iter().flat_map(Map::values).collect::<Vec<_>>(),
                name => value.get(name).into_iter().collect(),
            })
            .flat_map(|value| match value {
                Value::Array(items) if is_list => items.iter().collect::<Vec<_>>(),
                value => vec![value],
            })
            .collect()
    })
}

fn values_mut<'v>(document: &'v mut Value, path: &str) -> Vec<&'v mut Value> {
    path.split('.').fold(vec![document], |found, segment| {
        let (name, is_list) = segment.strip_suffix("[]").map_or((segment, false), |name| (name, true));
        found
            .into_iter()
            .flat_map(|value| match name {
                "*" => value.as_object_mut().into_iter().flat_map(Map::values_mut).collect::<Vec<_>>(),
                name => value.get_mut(name).into_iter().collect(),
            })
            .flat_map(|value| {
                if is_list {
                    value.as_array_mut().into_iter().flatten().collect::<Vec<_>>()
                } else {
                    vec![value]
                }
            })
            .collect()
    })
}

#[test]
fn the_fixture_gives_every_field_of_the_shape() {
    let document: Value = serde_json::from_str(whole().canonical_json()).unwrap();
    let missing: Vec<String> = shape::fields()
        .into_iter()
        .map(|field: ShapeField| field.path)
        .filter(|path| values(&document, path).is_empty())
        .collect();
    assert_eq!(missing, Vec::<String>::new());
}

#[test]
fn every_field_of_the_shape_changes_the_digest() {
    let document: Value = serde_json::from_str(whole().canonical_json()).unwrap();
    let digest = whole().digest();
    let mut left_out = BTreeSet::new();
    for field in shape::fields() {
        let mut changed = document.clone();
        let (parent, name) = field.path.rsplit_once('.').unwrap_or(("", &field.path));
        let parents = if parent.is_empty() { vec![&mut changed] } else { values_mut(&mut changed, parent) };
        let mut removed = 0;
        for parent in parents {
            removed += usize::from(parent.as_object_mut().and_then(|fields| fields.remove(name)).is_some());
        }
        assert!(removed > 0, "{}", field.path);
        // Without it the template is another one, or none at all.
        if let Ok(other) = Template::parse(&changed.to_string(), "t.json") {
            assert_ne!(other.digest(), digest, "{}", field.path);
            assert_ne!(other, whole(), "{}", field.path);
            left_out.insert(field.path);
        }
    }
    assert!(left_out.len() > 60, "only {left_out:?} can be left out");
}

#[test]
fn every_spelling_means_the_same() {
    let (one, other) = (whole(), parse(&fixture("whole_aliases.yaml")));
    assert_eq!(one.canonical_json(), other.canonical_json());
    assert_eq!(one, other);
}

#[test]
fn the_canonical_form_of_the_whole_shape_stays_what_it_is() {
    // Stored digests rest on this text. A change here is a change of format.
    let template = whole();
    assert_eq!(template.canonical_json(), fixture("whole.canonical.json").trim_end());
    let back = Template::from_canonical_json(template.canonical_json()).unwrap_or_else(|e| panic!("{e}"));
    assert_eq!(back, template);
    assert_eq!(back.digest(), template.digest());
}

#[test]
fn each_field_is_typed() {
    let template = whole();
    let known = template.known_metadata();
    assert_eq!((known.author, known.tags.as_slice()), (Some("Ada"), ["orders", "money"].as_slice()));
    assert_eq!(known.documentation_url, Some("https://example.com/orders"));
    assert_eq!((known.created_at, known.updated_at), (Some("2026-01-02T03:04:05Z"), Some("2026-02-03")));
    assert_eq!(known.notes, Some("As short as it can be"));
    assert_eq!(template.metadata()["team"]["size"], 4);
    let systems = template.system_dependencies();
    assert_eq!(
        (systems.primary.as_deref(), systems.secondary.join(",")),
        (Some("warehouse"), "bank,mail".into())
    );
    let event = &template.domain_events()[0];
    assert_eq!(
        (event.name.as_str(), event.description.as_deref()),
        ("order.taken", Some("An order was taken"))
    );
    assert!(event.schema.as_ref().unwrap().check(&json!({ "id": "x" })).is_err());

    let lifecycle = template.lifecycle().unwrap();
    assert_eq!(lifecycle.max_duration_minutes, Some(120));
    assert_eq!(lifecycle.max_waiting_for_dependencies_minutes, Some(30));
    assert_eq!(lifecycle.max_waiting_for_retry_minutes, Some(15));
    assert_eq!(lifecycle.max_steps_in_process_minutes, Some(45));
    assert_eq!(lifecycle.staleness_action, StalenessAction::None);
    assert!(lifecycle.auto_fail_on_timeout && lifecycle.auto_dlq_on_timeout);

    let check = step(&template, "check");
    let handler = check.handler.as_ref().unwrap();
    assert_eq!((handler.method.as_deref(), handler.resolver.as_deref()), (Some("quick"), Some("registry")));
    assert_eq!(check.system_dependency.as_deref(), Some("warehouse"));
    assert_eq!(check.lifecycle.as_ref().unwrap().staleness_action, StalenessAction::Error);
    let [seen, refused] = check.publishes_events.as_slice() else { panic!("two events") };
    assert_eq!((seen.condition, seen.delivery_mode), (EventCondition::Success, DeliveryMode::Durable));
    assert_eq!(refused.condition, EventCondition::PermanentFailure);
    assert_eq!(refused.delivery_mode, DeliveryMode::Broadcast);
    assert_eq!(refused.publisher.as_deref(), Some("orders.publisher"));
    let concurrency = check.concurrency_key.as_ref().unwrap();
    assert_eq!((concurrency.key.source(), concurrency.limit), ("input.customer", 2));
    let rate = check.rate_limit.as_ref().unwrap();
    assert_eq!((rate.limit, rate.per), (10, Duration::from_secs(60)));
    assert_eq!(rate.key.as_ref().unwrap().source(), "input.customer");
    let cache = check.cache.as_ref().unwrap();
    assert_eq!((cache.inputs.len(), cache.ttl), (2, Duration::from_secs(300)));

    let types: Vec<StepType> = template.steps().iter().map(|step| step.step_type).collect();
    assert_eq!(types.iter().filter(|kind| **kind == StepType::DeferredConvergence).count(), 2);
    assert_eq!(step(&template, "route").step_type, StepType::Decision);
    let by_hand = step(&template, "by_hand");
    let wait = by_hand.wait_for.as_ref().unwrap();
    assert_eq!(wait.awaited, Awaited::Approval("chief".to_owned()));
    assert_eq!((wait.timeout, wait.on_timeout), (Some(Duration::from_secs(600)), OnTimeout::Skip));
    assert!(by_hand.handler.is_none());
    let partner = step(&template, "by_partner");
    assert_eq!(partner.wait_for.as_ref().unwrap().awaited, Awaited::Signal("partner.ready".to_owned()));
    let workflow = partner.workflow.as_ref().unwrap();
    assert_eq!((workflow.name.as_str(), workflow.namespace.as_deref()), ("partner_order", Some("partners")));
    let version = workflow.version.as_ref().unwrap();
    assert!(version.matches(&"1.10.0".parse().unwrap()) && !version.matches(&"2.0.0".parse().unwrap()));
    let batch = step(&template, "split").batch_config.as_ref().unwrap();
    assert_eq!((batch.batch_size, batch.parallelism, batch.max_parallel_batches), (500, 4, Some(8)));
    assert_eq!((batch.cursor_field.as_str(), batch.id_field.as_str()), ("row", "sku"));
    assert_eq!(batch.worker_template.as_deref(), Some("pack"));
    assert_eq!((batch.checkpoint_interval, batch.checkpoint_stall_minutes), (Some(50), Some(3)));
    assert_eq!(batch.failure_strategy, FailureStrategy::Isolate);
    let for_each = step(&template, "tell").for_each.as_ref().unwrap();
    assert_eq!((for_each.items.source(), for_each.limit), ("results.packed.addresses", 250));
}

#[test]
fn short_forms_have_the_documented_defaults() {
    let template = parse(
        "
name: x
version: 1.0.0
steps:
  - name: a
    handler: { callable: h }
    for_each: input.list
    concurrency_key: item
    rate_limit: { limit: 3 }
    cache: { inputs: [item] }
  - { name: b, workflow: other }
  - { name: c, type: batchable, handler: { callable: h }, batch_config: {} }
  - { name: d, type: batch_worker, handler: { callable: h }, depends_on: [c] }
  - { name: e, wait_for: { signal: go } }
lifecycle: {}
",
    );
    let a = step(&template, "a");
    assert_eq!(a.for_each.as_ref().unwrap().limit, 1_000);
    assert_eq!(a.concurrency_key.as_ref().unwrap().limit, 1);
    assert_eq!(a.rate_limit.as_ref().unwrap().per, Duration::from_secs(1));
    assert_eq!(a.cache.as_ref().unwrap().ttl, Duration::from_secs(86_400));
    let b = step(&template, "b").workflow.as_ref().unwrap();
    assert_eq!((b.namespace.as_deref(), b.version.as_ref(), b.input.as_ref()), (None, None, None));
    let batch = step(&template, "c").batch_config.as_ref().unwrap();
    assert_eq!(
        (batch.batch_size, batch.parallelism, batch.failure_strategy.word()),
        (1_000, 10, "continue_on_failure")
    );
    assert_eq!(step(&template, "e").wait_for.as_ref().unwrap().on_timeout, OnTimeout::Fail);
    assert_eq!(template.lifecycle().unwrap().staleness_action, StalenessAction::Dlq);
}

#[test]
fn an_environment_changes_what_it_names_and_the_nearer_word_wins() {
    let template = whole();
    let live = template.for_environment("production").unwrap();
    let check = step(&live, "check");
    let settings = &check.handler.as_ref().unwrap().initialization;
    assert_eq!(Value::Object(settings.clone()), json!({ "depth": 9, "mode": "fast", "region": "eu" }));
    assert_eq!(check.timeout, Some(Duration::from_secs(90)));
    let retry = RetrySpec {
        retryable: true,
        max_attempts: 9,
        backoff: BackoffSpec::Linear,
        backoff_base_ms: 1_000,
        max_backoff_ms: 6_000,
        jitter: 0.25,
    };
    assert_eq!(check.retry, retry);
    let route = step(&live, "route");
    assert_eq!(route.timeout, Some(Duration::from_secs(60)));
    assert_eq!(route.handler.as_ref().unwrap().initialization["region"], "eu");
    assert!(step(&live, "by_hand").handler.is_none());
    assert!(live.environments().is_empty());
    assert_ne!(live.digest(), template.digest());
    assert_eq!(Template::from_canonical_json(live.canonical_json()).unwrap(), live);

    // What an overlay does not give stays as it is.
    let source = fixture("whole.yaml").replace("retryable: true, max_attempts: 9, backoff: linear, ", "");
    let changed = parse(&source).for_environment("production").unwrap();
    let retry = &step(&changed, "check").retry;
    assert_eq!(
        (retry.max_attempts, retry.backoff, retry.backoff_base_ms),
        (4, BackoffSpec::Fibonacci, 1_000)
    );

    let test = template.for_environment("test").unwrap();
    assert_eq!(test.steps(), template.steps());

    let unknown = template.for_environment("prodution").unwrap_err();
    let told = unknown.to_string();
    assert!(
        told.contains("no environment \"prodution\"") && told.contains("did you mean `production`"),
        "{told}"
    );
    assert!(live.for_environment("production").is_err());
}

#[test]
fn an_environment_for_all_steps_cannot_be_multiplied_beyond_the_limit() {
    let settings = "x".repeat(10_000);
    let mut source = String::from("name: x\nversion: 1.0.0\nsteps:\n");
    for index in 0..2_000 {
        writeln!(source, "- {{ name: s{index}, handler: {{ callable: h }} }}").unwrap();
    }
    writeln!(source, "environments: {{ big: {{ steps: [{{ name: ALL, handler: {{ initialization: {{ a: {settings} }} }} }}] }} }}").unwrap();
    let problems = Template::parse(&source, "t.yaml").unwrap_err();
    assert_eq!(problems.items().len(), 1, "{problems}");
    assert_eq!(problems.items()[0].code, "too_large");
    assert!(problems.to_string().contains("in the environment \"big\""), "{problems}");
}

#[test]
fn input_is_checked_with_all_errors_and_their_paths_and_without_its_values() {
    let template = whole();
    assert_eq!(template.check_input(&json!({ "customer": "Ada", "items": ["sku-1"] })), Ok(()));
    let input = json!({ "email": "s3cret", "items": ["sku-1", "s3cret", 5], "customer": "" });
    let mismatches = template.check_input(&input).unwrap_err();
    let paths: BTreeSet<&str> = mismatches.items().iter().map(|mismatch| mismatch.path.as_str()).collect();
    assert_eq!(paths, BTreeSet::from(["/customer", "/email", "/items/1", "/items/2"]));
    assert!(!mismatches.to_string().contains("s3cret"), "{mismatches}");
    let missing = template.check_input(&json!({})).unwrap_err();
    assert_eq!(missing.items().len(), 2, "{missing}");
    let many = template.check_input(&json!({ "customer": "a", "items": vec![0; 90] })).unwrap_err();
    assert!(!many.has_more());
    assert_eq!(
        parse("name: x\nversion: 1.0.0\nsteps: [{ name: a, handler: { callable: h } }]").check_input(&input),
        Ok(())
    );
}

#[test]
fn mismatches_beyond_the_limit_are_not_listed() {
    let template = parse(
        "
name: x
version: 1.0.0
input_schema: { type: array, items: { type: string } }
steps: [{ name: a, handler: { callable: h } }]
",
    );
    let mismatches = template.check_input(&json!(vec![0; 101])).unwrap_err();
    assert_eq!(mismatches.items().len(), 100);
    assert!(mismatches.has_more() && mismatches.to_string().ends_with("; and more"));
    let enough = template.check_input(&json!(vec![0; 100])).unwrap_err();
    assert!(!enough.has_more());
}

#[test]
fn older_drafts_are_read_by_their_own_rules() {
    let schema = |draft: &str, keyword: &str| {
        format!(
            "name: x\nversion: 1.0.0\ninput_schema: {{ $schema: '{draft}', {keyword} }}\n\
             steps: [{{ name: a, handler: {{ callable: h }} }}]\n"
        )
    };
    // In draft 7 a list of `items` means one schema for each place; now it is no schema.
    let tuple = "items: [{ type: string }, { type: number }]";
    let old = parse(&schema("http://json-schema.org/draft-07/schema#", tuple));
    assert!(old.check_input(&json!(["a", 1])).is_ok() && old.check_input(&json!([1, "a"])).is_err());
    for draft in
        ["https://json-schema.org/draft/2020-12/schema", "http://json-schema.org/draft-04/schema#", "x"]
    {
        let problems = Template::parse(&schema(draft, tuple), "t.yaml").unwrap_err();
        assert_eq!(problems.items()[0].code, "bad_schema", "{draft}");
    }
    let dependent = "dependentRequired: { a: [b] }";
    let middle = parse(&schema("https://json-schema.org/draft/2019-09/schema", dependent));
    assert!(middle.check_input(&json!({ "a": 1 })).is_err());
}

#[test]
fn what_the_engine_does_not_run_is_listed_with_its_place() {
    let template = parse(
        "
name: t
version: 1.0.0
steps:
  - name: a
    handler: { callable: whole, resolver: prefix }
    publishes_events: [a.done, { name: job.done, publisher: p }]
",
    );
    let unsupported = template.unsupported();
    let found: Vec<String> = unsupported
        .items()
        .iter()
        .map(|problem| format!("{} {}:{}", problem.path, problem.line.unwrap(), problem.column.unwrap()))
        .collect();
    let places = ["/steps/0/handler/resolver 6:33", "/steps/0/publishes_events/1/name 7:34"];
    assert_eq!(found, places, "{unsupported}");
    let pinned = Template::from_canonical_json(template.canonical_json()).unwrap().unsupported();
    assert_eq!(pinned.items().len(), unsupported.items().len());
    assert!(pinned.items().iter().all(|problem| problem.line.is_none()));

    assert!(whole().unsupported().is_empty(), "{}", whole().unsupported());
    for plain in ["catalogue.yaml", "minimal.yaml"] {
        assert!(parse(&fixture(plain)).unsupported().is_empty(), "{plain}");
    }
}

#[test]
fn unknown_fields_are_forgiven_only_when_asked() {
    let source = "
name: x
version: 1.0.0
task_handler: { callable: h }
steps:
  - { name: a, handler: { callable: h, retries: 3 }, timout_seconds: 5 }
";
    let problems = Template::parse(source, "t.yaml").unwrap_err();
    assert_eq!(problems.items().len(), 3);
    let (template, forgiven) = Template::parse_lenient(source, "t.yaml").unwrap();
    assert_eq!(forgiven, problems);
    assert_eq!(step(&template, "a").timeout, None);
    let plain = "name: x\nversion: 1.0.0\nsteps: [{ name: a, handler: { callable: h } }]";
    assert_eq!(template, parse(plain));

    let (_, none) = Template::parse_lenient(plain, "t.yaml").unwrap();
    assert!(none.is_empty());
    // Other problems are not forgiven, and then only they are told.
    let wrong = source.replace("1.0.0", "one");
    let problems = Template::parse_lenient(&wrong, "t.yaml").unwrap_err();
    assert_eq!(problems.items().len(), 1, "{problems}");
}

#[test]
fn conditions_see_input_and_results() {
    let template = whole();
    let when = step(&template, "check").when.as_ref().unwrap();
    let results = Map::new();
    let met = |input: &Value| when.is_met(&Scope { input, results: &results, item: None, index: None });
    assert_eq!(met(&json!({ "items": [1] })), Ok(true));
    assert_eq!(met(&json!({ "items": [] })), Ok(false));
    let missing = met(&json!({})).unwrap_err();
    assert!(missing.to_string().contains("undefined"), "{missing}");

    let tell = step(&template, "tell");
    let results = json!({ "packed": { "addresses": ["a@x", "b@y"] }, "gather": { "ok": "yes" } });
    let results = results.as_object().unwrap();
    let input = json!({});
    let scope = Scope { input: &input, results, item: None, index: None };
    let items = tell.for_each.as_ref().unwrap().items.evaluate(&scope).unwrap();
    assert_eq!(items, json!(["a@x", "b@y"]));
    // Text is neither true nor false.
    let error = tell.when.as_ref().unwrap().is_met(&scope).unwrap_err();
    assert!(error.message.contains("gives text"), "{error}");
    let item = json!({ "domain": "x" });
    let scope = Scope { item: Some(&item), index: Some(0), ..scope };
    assert_eq!(tell.concurrency_key.as_ref().unwrap().key.evaluate(&scope).unwrap(), "x");
}

#[test]
fn every_field_of_the_shape_is_on_its_page_of_the_reference() {
    let page = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/reference/templates.md");
    let page = fs::read_to_string(page).unwrap();
    for field in shape::fields() {
        let name = field.path.rsplit('.').next().unwrap();
        for spelling in std::iter::once(&name).chain(field.aliases) {
            assert!(page.contains(&format!("`{spelling}`")), "{} as {spelling}", field.path);
        }
    }
}
