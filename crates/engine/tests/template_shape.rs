//! Every field of a template's shape is honoured by the engine, or a workflow that gives it is refused by the field's
//! name. A field that is added to the shape fails here until one of the two is true.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    missing_docs,
    reason = "a test says what it expects"
)]

mod support;

use std::sync::Arc;
use std::time::Duration;

use recache_engine::{Engine, Error, Options};
use recache_model::ids::WorkflowId;
use recache_model::job::JobState;
use recache_model::template::{Template, shape};
use recache_store::{OpenOptions, open};
use recache_worker::{Call, Context, Handler, Handlers, Resolver};
use serde_json::{Value, json};
use support::{Faulty, quick, until};

/// For each field a patch (RFC 7396, but lists of steps are merged place by place) on the plain template below that gives
/// it with a meaning of its own. A field whose fields are all here needs none, and neither does one below a field that is
/// refused. Where a field has a meaning only beside others, the first of the two gives those.
fn sample(path: &str) -> Option<(Value, Value)> {
    if let Some((place, field)) = path.rsplit_once("lifecycle.") {
        let place = |fields: Value| {
            let lifecycle = json!({ "lifecycle": fields });
            if place.is_empty() { lifecycle } else { json!({ "steps": [lifecycle] }) }
        };
        let given = match field {
            "staleness_action" => json!("error"),
            "auto_fail_on_timeout" | "auto_dlq_on_timeout" => json!(true),
            _ => json!(9),
        };
        // What is done needs a limit after which it is done; `none` leaves the rest to be said.
        let base = json!({ "max_duration_minutes": 11, "staleness_action": "none" });
        return Some((place(base), place(json!({ field: given }))));
    }
    if let Some(found) = flow_sample(path) {
        return Some(found);
    }
    simple_sample(path).map(|patch| (json!({}), patch))
}

/// A step that is split into batches, and its worker.
fn batch(config: &Value, result: &Value) -> Value {
    json!({ "steps": [
        { "type": "batchable", "batch_config": config, "handler": { "initialization": { "give": result } } },
        { "type": "batch_worker", "dependencies": ["a"] },
    ] })
}

fn flow_sample(path: &str) -> Option<(Value, Value)> {
    let step = |fields: Value| json!({ "steps": [fields] });
    let rows = json!({ "rows": 3000 });
    let config =
        |fields: Value| Some((batch(&json!({}), &rows), json!({ "steps": [{ "batch_config": fields }] })));
    let beside = |base: Value, fields: Value| Some((step(base), step(fields)));
    let each = json!({ "for_each": { "items": "input.list" } });
    let key = json!({ "concurrency_key": { "key": "input.a" } });
    let rate = json!({ "rate_limit": { "limit": 1 } });
    let wait = json!({ "wait_for": { "signal": "s" } });
    let sub = json!({ "handler": null, "workflow": { "name": "w" } });
    let cache = json!({ "cache": { "inputs": ["input.a"] } });
    match path {
        "steps[].batch_config.batch_size" => config(json!({ "batch_size": 500 })),
        "steps[].batch_config.parallelism" => config(json!({ "parallelism": 1 })),
        "steps[].batch_config.max_parallel_batches" => {
            let asks = json!({ "rows": 3000, "parallelism": 15 });
            let more = json!({ "steps": [{ "batch_config": { "max_parallel_batches": 20 } }] });
            Some((batch(&json!({}), &asks), more))
        }
        "steps[].batch_config.cursor_field" => config(json!({ "cursor_field": "c" })),
        "steps[].batch_config.id_field" => config(json!({ "id_field": "i" })),
        "steps[].batch_config.checkpoint_interval" => config(json!({ "checkpoint_interval": 7 })),
        "steps[].batch_config.checkpoint_stall_minutes" => config(json!({ "checkpoint_stall_minutes": 7 })),
        "steps[].batch_config.failure_strategy" => config(json!({ "failure_strategy": "fail_fast" })),
        "steps[].batch_config.worker_template" => {
            let split = |name: &str, rows: u32| {
                let settings = json!({ "give": { "rows": rows } });
                let handler = json!({ "callable": "h", "initialization": settings });
                json!({ "name": name, "type": "batchable", "handler": handler })
            };
            let worker = json!({
                "name": "w", "type": "batch_worker", "handler": { "callable": "h" }, "dependencies": ["a", "b"],
            });
            let named = json!({ "steps": [{}, { "batch_config": { "worker_template": "w" } }] });
            Some((json!({ "steps": [split("a", 10), split("b", 20), worker] }), named))
        }
        "steps[].for_each.items" => beside(each, json!({ "for_each": { "items": "input.other" } })),
        "steps[].for_each.limit" => beside(each, json!({ "for_each": { "limit": 1 } })),
        "steps[].concurrency_key.key" => beside(key, json!({ "concurrency_key": { "key": "input.b" } })),
        "steps[].concurrency_key.limit" => beside(key, json!({ "concurrency_key": { "limit": 3 } })),
        "steps[].rate_limit.limit" => beside(rate, json!({ "rate_limit": { "limit": 2 } })),
        "steps[].rate_limit.per_seconds" => beside(rate, json!({ "rate_limit": { "per_seconds": 2 } })),
        "steps[].rate_limit.key" => beside(rate, json!({ "rate_limit": { "key": "input.a" } })),
        "steps[].wait_for.signal" => beside(wait, json!({ "wait_for": { "signal": "t" } })),
        "steps[].wait_for.approval" => {
            beside(wait, json!({ "wait_for": { "signal": null, "approval": "s" } }))
        }
        "steps[].wait_for.timeout_seconds" => beside(wait, json!({ "wait_for": { "timeout_seconds": 5 } })),
        "steps[].wait_for.on_timeout" => {
            let short = json!({ "wait_for": { "signal": "s", "timeout_seconds": 0.001 } });
            beside(short, json!({ "wait_for": { "on_timeout": "skip" } }))
        }
        "steps[].workflow.name" => beside(sub, json!({ "workflow": { "name": "v" } })),
        "steps[].workflow.namespace_name" => beside(sub, json!({ "workflow": { "namespace_name": "n" } })),
        "steps[].workflow.version" => beside(sub, json!({ "workflow": { "version": "^9" } })),
        "steps[].workflow.input" => beside(sub, json!({ "workflow": { "input": "input.a" } })),
        "steps[].cache.inputs" => beside(cache, json!({ "cache": { "inputs": ["input"] } })),
        "steps[].cache.ttl_seconds" => beside(cache, json!({ "cache": { "ttl_seconds": 0.001 } })),
        _ => None,
    }
}

fn simple_sample(path: &str) -> Option<Value> {
    let step = |fields: Value| Some(json!({ "steps": [fields] }));
    let production = |fields: Value| Some(json!({ "environments": { "production": { "steps": [fields] } } }));
    match path {
        "name" => Some(json!({ "name": "other" })),
        "namespace_name" => Some(json!({ "namespace_name": "other" })),
        "version" => Some(json!({ "version": "2.0.0" })),
        // An event is declared for the sake of the steps that publish it.
        "domain_events[].name" | "domain_events[].schema" => Some(json!({
            "domain_events": [{ "name": "e", "schema": { "type": "object" } }],
            "steps": [{ "publishes_events": ["e"] }],
        })),
        "input_schema" => Some(json!({ "input_schema": { "type": "array" } })),
        "steps[].name" => step(json!({ "name": "other" })),
        "steps[].handler.callable" => step(json!({ "handler": { "callable": "other" } })),
        "steps[].handler.method" => step(json!({ "handler": { "method": "m" } })),
        "steps[].handler.resolver" => step(json!({ "handler": { "resolver": "r" } })),
        "steps[].handler.initialization" => step(json!({ "handler": { "initialization": { "a": 1 } } })),
        "steps[].type" => Some(json!({ "steps": [{ "type": "decision" }, { "dependencies": ["a"] }] })),
        "steps[].dependencies" => step(json!({ "dependencies": ["b"] })),
        "steps[].retry.retryable" => step(json!({ "retry": { "retryable": false } })),
        "steps[].retry.max_attempts" => step(json!({ "retry": { "max_attempts": 7 } })),
        "steps[].retry.backoff" => step(json!({ "retry": { "backoff": "linear" } })),
        "steps[].retry.backoff_base_ms" => step(json!({ "retry": { "backoff_base_ms": 7 } })),
        "steps[].retry.max_backoff_ms" => step(json!({ "retry": { "max_backoff_ms": 7000 } })),
        "steps[].retry.jitter" => step(json!({ "retry": { "jitter": 0.7 } })),
        "steps[].timeout_seconds" => step(json!({ "timeout_seconds": 7 })),
        "steps[].queue" => step(json!({ "queue": "other" })),
        "steps[].priority" => step(json!({ "priority": 7 })),
        "steps[].publishes_events[].name" => step(json!({ "publishes_events": ["e"] })),
        "steps[].publishes_events[].condition" => {
            step(json!({ "publishes_events": [{ "name": "e", "condition": "always" }] }))
        }
        "steps[].publishes_events[].schema" => {
            step(json!({ "publishes_events": [{ "name": "e", "schema": { "type": "object" } }] }))
        }
        "steps[].publishes_events[].delivery_mode" => {
            step(json!({ "publishes_events": [{ "name": "e", "delivery_mode": "fast" }] }))
        }
        "steps[].publishes_events[].publisher" => {
            step(json!({ "publishes_events": [{ "name": "e", "publisher": "p" }] }))
        }
        "steps[].result_schema" => step(json!({ "result_schema": { "type": "string" } })),
        "steps[].when" => step(json!({ "when": "input.a == 1" })),

        "environments.*.steps[].name" => production(json!({ "name": "b", "timeout_seconds": 7 })),
        "environments.*.steps[].handler.initialization" => {
            production(json!({ "name": "a", "handler": { "initialization": { "a": 1 } } }))
        }
        "environments.*.steps[].timeout_seconds" => production(json!({ "name": "a", "timeout_seconds": 7 })),
        "environments.*.steps[].retry.retryable" => {
            production(json!({ "name": "a", "retry": { "retryable": false } }))
        }
        "environments.*.steps[].retry.max_attempts" => {
            production(json!({ "name": "a", "retry": { "max_attempts": 7 } }))
        }
        "environments.*.steps[].retry.backoff" => {
            production(json!({ "name": "a", "retry": { "backoff": "none" } }))
        }
        "environments.*.steps[].retry.backoff_base_ms" => {
            production(json!({ "name": "a", "retry": { "backoff_base_ms": 7 } }))
        }
        "environments.*.steps[].retry.max_backoff_ms" => {
            production(json!({ "name": "a", "retry": { "max_backoff_ms": 7000 } }))
        }
        "environments.*.steps[].retry.jitter" => {
            production(json!({ "name": "a", "retry": { "jitter": 0.7 } }))
        }
        _ => None,
    }
}

fn plain() -> Value {
    json!({
        "name": "plain", "version": "1.0.0",
        "steps": [
            { "name": "a", "handler": { "callable": "h" } },
            { "name": "b", "handler": { "callable": "h" } },
        ],
    })
}

fn patch(target: &mut Value, with: &Value) {
    match (target, with) {
        (Value::Object(target), Value::Object(with)) => {
            for (name, value) in with {
                patch(target.entry(name.clone()).or_insert(Value::Null), value);
            }
            target.retain(|_, value| !value.is_null());
        }
        (Value::Array(target), Value::Array(with)) if target.len() >= with.len() => {
            target.iter_mut().zip(with).for_each(|(target, with)| patch(target, with));
        }
        (target, with) => *target = with.clone(),
    }
}

/// What it is asked for fails by the name of the call.
struct FindsNothing;

impl Resolver for FindsNothing {
    fn resolve(&self, _: &Call) -> Option<Arc<dyn Handler>> {
        None
    }
}

/// All that two workflows of this template come to: what a worker is given, how its turns end, what waits for what; or why it is
/// refused.
async fn outcome(template: &Template) -> Result<String, String> {
    let store = Faulty::over(open(&OpenOptions::new("sqlite::memory:")).await.unwrap());
    let mut handlers = Handlers::new();
    for name in ["h", "other"] {
        let give = async |context: Context, _: Value| Ok(context.facts().settings.get("give").cloned());
        handlers.job(name, give).unwrap();
    }
    handlers.resolver("r", Arc::new(FindsNothing)).unwrap();
    let options = Options { queues: ["default", "other"].map(str::to_owned).to_vec(), ..quick() };
    let engine = Engine::builder(Arc::<Faulty>::clone(&store)).handlers(handlers).options(options);
    let engine = engine.start().await.unwrap();
    let part = json!({ "name": "w", "version": "1.0.0", "steps": [{ "name": "p", "handler": { "callable": "h" } }] });
    engine.put_template(&Template::parse(&part.to_string(), "w.json").unwrap()).await.unwrap();
    let environment = template.environments().contains_key("production").then_some("production");
    let mut lines = Vec::new();
    for number in 0..2_u8 {
        let id = WorkflowId::from_uuid(uuid::Uuid::from_u128(u128::from(number)));
        let input = json!({ "a": 1, "b": 2, "list": [1, 2], "other": [3], "number": number });
        match engine.submit_workflow_in(id, template, environment, &input).await {
            Ok(_) => lines.extend(until("it rests", async || at_rest(&engine, id).await).await),
            Err(Error::Invalid(why)) => {
                assert!(engine.store().workflow_get(id).await.is_err(), "what is refused is not stored");
                engine.shut_down().await;
                return Err(why);
            }
            Err(other) => panic!("{other}"),
        }
        // Longer than the shortest of times among the samples.
        tokio::time::sleep(Duration::from_millis(3)).await;
    }
    engine.shut_down().await;
    let mut turns: Vec<String> = store.turns.lock().unwrap().iter().map(|turn| without_ids(turn)).collect();
    turns.sort();
    lines.extend(turns);
    Ok(lines.join("\n"))
}

/// How a workflow stands, once nothing in it moves by itself.
async fn at_rest(engine: &Engine, id: WorkflowId) -> Option<Vec<String>> {
    let workflow = engine.store().workflow_get(id).await.unwrap();
    let steps = engine.store().workflow_steps(id).await.unwrap();
    let now = engine.store().now().await.unwrap();
    // What waits for longer than any sample's time waits for somebody.
    let moves = |step: &recache_store::StepRecord| match step.job.state {
        JobState::Running => true,
        JobState::Queued => step.job.due_at <= now.plus(Duration::from_millis(100)),
        _ => false,
    };
    if steps.iter().any(moves) {
        return None;
    }
    let mut lines =
        vec![format!("{} {} {}", workflow.namespace, workflow.template_name, workflow.template_version)];
    for step in steps {
        let job = step.job;
        let error = job.error.map(|error| without_ids(&error.message));
        lines.push(format!(
            "{:?} {} {} {:?} {:?} {:?} {} {:?}",
            job.step, job.state, job.priority, step.waits_for, error, job.publishes, job.handler, job.call
        ));
    }
    for limits in engine.store().flows().limits_list(id, false, 100).await.unwrap() {
        lines.push(format!("{:?} {:?}", limits.step, limits.limits));
    }
    lines.sort();
    Some(lines)
}

/// Ids differ from run to run.
fn without_ids(text: &str) -> String {
    let is_id =
        |part: &str| part.len() == 36 && part.bytes().all(|byte| byte.is_ascii_hexdigit() || byte == b'-');
    let mut kept = String::new();
    let mut at = 0;
    while at < text.len() {
        if text.get(at..at + 36).is_some_and(is_id) {
            at += 36;
            continue;
        }
        let next = text[at..].chars().next().map_or(1, char::len_utf8);
        kept.push_str(&text[at..at + next]);
        at += next;
    }
    kept
}

/// `/steps/0/handler/method` as the shape writes it.
fn general(pointer: &str) -> String {
    pointer.split('/').skip(1).fold(String::new(), |path, segment| {
        if segment.bytes().all(|byte| byte.is_ascii_digit()) {
            path + "[]"
        } else if path.is_empty() {
            segment.to_owned()
        } else {
            path + "." + segment
        }
    })
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_field_of_the_shape_is_honoured_or_refused_by_its_name() {
    let read = |source: &Value| {
        Template::parse(&source.to_string(), "t.json")
            .unwrap_or_else(|problems| panic!("{problems}\n{source}"))
    };
    let usual = outcome(&read(&plain())).await.expect("the plain template runs");
    let shape = shape::fields();
    let (mut honoured, mut refused) = (Vec::new(), Vec::<String>::new());
    for field in &shape {
        let path = field.path.as_str();
        let is_below = |parent: &String| {
            path.strip_prefix(parent.as_str()).is_some_and(|rest| rest.starts_with(['.', '[']))
        };
        if field.is_note || refused.iter().any(is_below) {
            continue;
        }
        let Some((base, with)) = sample(path) else {
            let parts = shape.iter().filter(|other| {
                other.path.strip_prefix(path).is_some_and(|rest| rest.starts_with(['.', '[']))
            });
            assert!(parts.count() > 0, "there is no sample for `{path}`");
            continue;
        };
        let mut source = plain();
        patch(&mut source, &base);
        let usual = match &base {
            Value::Object(fields) if fields.is_empty() => usual.clone(),
            _ => outcome(&read(&source)).await.expect("it runs"),
        };
        patch(&mut source, &with);
        let template = read(&source);
        let found = outcome(&template).await;
        let named = template.unsupported().items().iter().any(|problem| general(&problem.path) == path);
        if named {
            let name = path.rsplit(['.', ']']).next().unwrap();
            let why = found.expect_err("the engine refuses what it does not run");
            assert!(why.contains("not supported yet by this version") && why.contains(name), "{path}: {why}");
            refused.push(path.to_owned());
        } else {
            assert_ne!(found, Ok(usual), "`{path}` is neither honoured nor refused");
            honoured.push(path);
        }
    }
    assert!(honoured.len() >= 50, "{honoured:?}");
    assert!(honoured.contains(&"input_schema") && honoured.contains(&"steps[].retry.jitter"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn input_that_does_not_fit_is_refused_with_all_its_errors() {
    let mut source = plain();
    let schema = json!({ "type": "object", "required": ["a"], "properties": { "b": { "type": "integer" } } });
    patch(&mut source, &json!({ "input_schema": schema }));
    let template = Template::parse(&source.to_string(), "t.json").unwrap();
    let store = open(&OpenOptions::new("sqlite::memory:")).await.unwrap();
    let engine = Engine::builder(Arc::clone(&store)).handlers(Handlers::new()).start().await.unwrap();
    let id = WorkflowId::make();
    let why = engine.submit_workflow(id, &template, &json!({ "b": "x" })).await.unwrap_err().to_string();
    assert!(why.contains("\"a\" is a required property") && why.contains("/b: "), "{why}");
    assert!(store.workflow_get(id).await.is_err());
    engine.submit_workflow(id, &template, &json!({ "a": 1, "b": 2 })).await.unwrap();
    let unknown =
        engine.submit_workflow_in(WorkflowId::make(), &template, Some("moon"), &json!({ "a": 1 })).await;
    assert!(matches!(unknown, Err(Error::Invalid(why)) if why.contains("no environment \"moon\"")));
    engine.shut_down().await;
    store.close().await;
}

/// The overlays change the jobs; what is pinned is the template as it was written, once for all environments.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn workflows_of_all_environments_share_one_pinned_template() {
    let mut source = plain();
    let production = json!({ "steps": [{ "name": "ALL", "timeout_seconds": 9 }] });
    patch(&mut source, &json!({ "environments": { "production": production, "test": {} } }));
    let template = Template::parse(&source.to_string(), "t.json").unwrap();
    let store = open(&OpenOptions::new("sqlite::memory:")).await.unwrap();
    let engine = Engine::builder(Arc::clone(&store)).handlers(Handlers::new()).start().await.unwrap();
    for (environment, timeout) in [(None, None), (Some("test"), None), (Some("production"), Some(9))] {
        let id = WorkflowId::make();
        engine.submit_workflow_in(id, &template, environment, &json!({})).await.unwrap();
        assert_eq!(store.workflow_get(id).await.unwrap().template_digest, template.digest().to_string());
        for step in store.workflow_steps(id).await.unwrap() {
            assert_eq!(step.job.timeout, timeout.map(Duration::from_secs), "{environment:?}");
        }
    }
    engine.shut_down().await;
    store.close().await;
}
