//! Every field of a template's shape is honoured by the engine, or a workflow that gives it is refused by the field's
//! name. A field that is added to the shape fails here until one of the two is true.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    missing_docs,
    reason = "a test says what it expects"
)]

use std::sync::Arc;
use std::time::Duration;

use recache_engine::{Engine, Error};
use recache_model::ids::{SessionId, WorkflowId};
use recache_model::template::{Template, shape};
use recache_store::{ClaimRequest, OpenOptions, Store, open};
use recache_worker::Handlers;
use serde_json::{Value, json};

/// For each field a patch (RFC 7396, but lists of steps are merged place by place) on the plain template below that gives
/// it with a meaning of its own. A field whose fields are all here needs none, and neither does one below a field that is
/// refused.
fn sample(path: &str) -> Option<Value> {
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
        "lifecycle" => Some(json!({ "lifecycle": { "max_duration_minutes": 5 } })),

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
        "steps[].batch_config" => Some(json!({ "steps": [
            { "type": "batchable", "batch_config": { "worker_template": "b" } },
            { "type": "batch_worker", "dependencies": ["a"] },
        ] })),
        "steps[].result_schema" => step(json!({ "result_schema": {} })),
        "steps[].lifecycle" => step(json!({ "lifecycle": { "max_duration_minutes": 5 } })),
        "steps[].when" => step(json!({ "when": "input.a" })),
        "steps[].for_each" => step(json!({ "for_each": "input.a" })),
        "steps[].concurrency_key" => step(json!({ "concurrency_key": "input.a" })),
        "steps[].rate_limit" => step(json!({ "rate_limit": { "limit": 1 } })),
        "steps[].wait_for" => step(json!({ "wait_for": { "signal": "s" } })),
        "steps[].workflow" => step(json!({ "handler": null, "workflow": "w" })),
        "steps[].cache" => step(json!({ "cache": { "inputs": ["input"] } })),

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

/// All that a workflow of this template comes to: what a worker is given, what waits for what, or why it is refused.
async fn outcome(template: &Template) -> Result<String, String> {
    let store = open(&OpenOptions::new("sqlite::memory:")).await.unwrap();
    let engine = Engine::builder(Arc::clone(&store)).handlers(Handlers::new()).start().await.unwrap();
    let id = WorkflowId::make();
    let environment = template.environments().contains_key("production").then_some("production");
    let submitted = engine.submit_workflow_in(id, template, environment, &json!({})).await;
    let found = match submitted {
        Ok(_) => Ok(everything(&store, id).await),
        Err(Error::Invalid(why)) => {
            assert!(store.workflow_get(id).await.is_err(), "what is refused is not stored");
            Err(why)
        }
        Err(other) => panic!("{other}"),
    };
    engine.shut_down().await;
    store.close().await;
    found
}

async fn everything(store: &Arc<dyn Store>, id: WorkflowId) -> String {
    let session = SessionId::make();
    store.session_open(session, "test", Duration::from_secs(60)).await.unwrap();
    let request = ClaimRequest {
        session,
        queues: ["default", "other"].map(str::to_owned).to_vec(),
        handlers: ["h", "other"].map(str::to_owned).to_vec(),
        rows_max: 10,
    };
    let claimed = store.jobs_dispatch(Vec::new(), Some(request)).await.unwrap().claimed;
    let workflow = store.workflow_get(id).await.unwrap();
    let mut lines =
        vec![format!("{} {} {}", workflow.namespace, workflow.template_name, workflow.template_version)];
    for job in claimed {
        lines.push(format!(
            "{:?} {} {} {} {} {:?} {:?}",
            job.step, job.namespace, job.queue, job.handler, job.input, job.retry, job.timeout
        ));
    }
    for step in store.workflow_steps(id).await.unwrap() {
        let job = step.job;
        lines.push(format!(
            "{:?} {} {:?} {:?} {} {:?}",
            job.step, job.priority, step.waits_for, job.publishes, job.handler, job.call
        ));
    }
    lines.sort();
    lines.join("\n")
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
        let Some(with) = sample(path) else {
            let parts = shape.iter().filter(|other| {
                other.path.strip_prefix(path).is_some_and(|rest| rest.starts_with(['.', '[']))
            });
            assert!(parts.count() > 0, "there is no sample for `{path}`");
            continue;
        };
        let mut source = plain();
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
            assert_ne!(found, Ok(usual.clone()), "`{path}` is neither honoured nor refused");
            honoured.push(path);
        }
    }
    assert!(honoured.len() >= 20, "{honoured:?}");
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
