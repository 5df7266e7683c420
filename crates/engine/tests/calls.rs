//! How a step finds its handler, on both databases.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    missing_docs,
    reason = "a test says what it expects"
)]

mod support;

use std::sync::Arc;

use async_trait::async_trait;
use recache_engine::Engine;
use recache_model::ids::WorkflowId;
use recache_model::job::JobState;
use recache_model::template::Template;
use recache_store::conformance::TestDatabase;
use recache_worker::{Call, Context, Failure, Handler, Handlers, Resolver};
use serde_json::{Value, json};
use support::{quick, soon, store_of};

on_both_databases!(step_finds_its_handler_by_name_method_prefix_and_resolver);

struct Says(String);

#[async_trait]
impl Handler for Says {
    async fn run(&self, context: Context, _: Value) -> Result<Value, Failure> {
        Ok(json!({ "by": self.0, "method": context.facts().method }))
    }
}

/// Knows what begins with `bank.`.
struct Registry;

impl Resolver for Registry {
    fn resolve(&self, call: &Call) -> Option<Arc<dyn Handler>> {
        let name = call.callable.strip_prefix("bank.")?;
        Some(Arc::new(Says(format!("registry, {name}"))))
    }
}

async fn step_finds_its_handler_by_name_method_prefix_and_resolver(database: TestDatabase) {
    let mut handlers = Handlers::new();
    handlers.job("orders", async |_: Context, _: Value| Ok("main")).unwrap();
    handlers.method("orders", "quick", async |_: Context, _: Value| Ok("quick")).unwrap();
    let told = async |context: Context, _: Value| Ok(format!("mail, {}", context.facts().handler));
    handlers.prefix("mail.", told).unwrap();
    handlers.resolver("registry", Arc::new(Registry)).unwrap();
    let step = |name: &str, handler: Value| json!({ "name": name, "handler": handler, "retry": { "retryable": false } });
    let source = json!({ "name": "t", "version": "1.0.0", "steps": [
        step("main", json!({ "callable": "orders" })),
        step("exact", json!({ "callable": "orders", "resolver": "exact" })),
        step("quick", json!({ "callable": "orders", "method": "quick" })),
        step("prefix", json!({ "callable": "mail.send", "resolver": "prefix" })),
        step("registry", json!({ "callable": "bank.pay", "resolver": "registry", "method": "twice" })),
        step("no_method", json!({ "callable": "orders", "method": "slow" })),
        step("not_known", json!({ "callable": "shop.pay", "resolver": "registry" })),
    ] });
    let template = Template::parse(&source.to_string(), "t.json").unwrap();
    let store = store_of(&database).await;
    let engine = Engine::builder(store).handlers(handlers).options(quick()).start().await.unwrap();
    let id = engine.submit_workflow(WorkflowId::make(), &template, &json!({})).await.unwrap();
    soon(engine.wait_for_workflow(id)).await.unwrap();
    let steps = engine.store().workflow_steps(id).await.unwrap();
    let of = |name: &str| {
        let job = &steps.iter().find(|step| step.job.step.as_deref() == Some(name)).unwrap().job;
        let code = job.error.as_ref().and_then(|error| error.code.clone());
        let output: Option<Value> = job.output.as_deref().map(|text| serde_json::from_str(text).unwrap());
        (job.state, output.unwrap_or_default(), code.unwrap_or_default())
    };
    for (name, output) in [
        ("main", json!("main")),
        ("exact", json!("main")),
        ("quick", json!("quick")),
        ("prefix", json!("mail, mail.send")),
        ("registry", json!({ "by": "registry, pay", "method": "twice" })),
    ] {
        assert_eq!(of(name), (JobState::Completed, output, String::new()), "{name}");
    }
    assert_eq!(of("no_method"), (JobState::Failed, Value::Null, "unknown_method".to_owned()));
    assert_eq!(of("not_known"), (JobState::Failed, Value::Null, "unknown_handler".to_owned()));
    engine.shut_down().await;

    let no_dot = json!({ "name": "t", "version": "2.0.0", "steps": [
        step("prefix", json!({ "callable": "mail", "resolver": "prefix" })),
    ] });
    let template = Template::parse(&no_dot.to_string(), "t.json").unwrap();
    assert!(template.unsupported().to_string().contains("its callable has no dot"));
}
