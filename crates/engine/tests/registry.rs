//! The registry of handlers: read through the cache, outdated when a worker comes or goes and when a template is stored.
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

use recache_cache::Usage;
use recache_engine::registry::{FoundRegistry, registry_of};
use recache_engine::remote::NewWorker;
use recache_engine::{Engine, Options};
use recache_model::template::Template;
use recache_store::conformance::TestDatabase;
use recache_store::{NewJob, NewSchedule, RemoteHandler, Store, TemplateRecord};
use recache_worker::{Context, Description, Handlers};
use serde_json::{Value, json};
use support::{Faulty, at_once, quick, store_of, until, view};
use tokio::sync::oneshot;

on_both_databases!(
    worker_is_in_the_registry_while_its_session_lives,
    worker_that_came_while_the_registry_was_read_goes_too,
    template_and_figures_are_in_the_registry,
    registry_is_cached_and_outdated_by_what_it_shows,
    definitions_of_other_programs_show_within_a_second,
);

fn handlers(version: &str) -> Handlers {
    let mut handlers = Handlers::new();
    handlers.job("charge", async |_: Context, input: Value| Ok(input)).unwrap();
    let description =
        Description { version: Some(version.to_owned()), input_schema: Some(json!({ "type": "object" })) };
    handlers.describe("charge", description).unwrap();
    handlers
}

async fn node(store: &Arc<dyn Store>, version: &str) -> Engine {
    let options = Options { node: format!("node {version}"), ..quick() };
    Engine::builder(Arc::clone(store)).options(options).handlers(handlers(version)).start().await.unwrap()
}

/// Versions of `charge` with the number of their workers.
fn versions(found: &FoundRegistry) -> Vec<(Option<String>, u64)> {
    let mut versions = Vec::new();
    for entry in found.registry.entries.iter().filter(|entry| entry.name == "charge") {
        versions.extend(entry.versions.iter().map(|one| (one.version.clone(), one.workers)));
    }
    versions
}

fn counted(list: &[(&str, u64)]) -> Vec<(Option<String>, u64)> {
    list.iter().map(|(version, count)| (Some((*version).to_owned()), *count)).collect()
}

async fn worker_is_in_the_registry_while_its_session_lives(database: TestDatabase) {
    let store = store_of(&database).await;
    let one = node(&store, "0.9.0").await;
    let other = node(&store, "0.10.0").await;
    // Whoever asks hears of both, also the one that was asked before the other came.
    for engine in [&one, &other] {
        until("both are there", async || {
            let found = engine.handlers().await.unwrap();
            (versions(&found) == counted(&[("0.10.0", 1), ("0.9.0", 1)])).then_some(())
        })
        .await;
    }
    let found = one.handlers().await.unwrap();
    assert_eq!(found.registry.entries[0].newest.as_deref(), Some("0.10.0"));
    assert_eq!(found.registry.entries[0].versions[0].input_schema, Some(json!({ "type": "object" })));
    let remote = NewWorker {
        name: "till".to_owned(),
        handlers: vec![RemoteHandler {
            name: "charge".to_owned(),
            version: Some("2.0.0".to_owned()),
            input_schema: None,
        }],
        queues: vec!["default".to_owned()],
        namespaces: Some(vec!["shop".to_owned()]),
        slots: 2,
        lease: Duration::from_secs(60),
    };
    let opened = other.remote().open(remote).await.unwrap();
    until("the remote one is there", async || {
        let found = one.handlers().await.unwrap();
        found
            .registry
            .find("shop", "charge")
            .filter(|entry| entry.newest.as_deref() == Some("2.0.0"))
            .map(|_| ())
    })
    .await;
    other.remote().close(opened.session, &opened.secret).await.unwrap();
    other.shut_down().await;
    until("only the first is left", async || {
        let found = one.handlers().await.unwrap();
        (versions(&found) == counted(&[("0.9.0", 1)])).then_some(())
    })
    .await;
    one.shut_down().await;
    assert_eq!(registry_of(&*store).await.unwrap().registry.workers, []);
    store.close().await;
}

/// What was read then must not lie under the mark of before it came, to which its going returns.
async fn worker_that_came_while_the_registry_was_read_goes_too(database: TestDatabase) {
    let faulty = Faulty::over(store_of(&database).await);
    let store: Arc<dyn Store> = faulty.clone();
    let one = node(&store, "0.9.0").await;
    until("the first is there, and cached", async || {
        let (first, again) = (one.handlers().await.unwrap(), one.handlers().await.unwrap());
        (Arc::ptr_eq(&first, &again) && versions(&first) == counted(&[("0.9.0", 1)])).then_some(())
    })
    .await;
    let (open, gate) = oneshot::channel();
    *faulty.templates_gate.lock().unwrap() = Some(gate);
    one.put_template(&order("1.0.0")).await.unwrap();
    let reading = tokio::spawn({
        let one = one.clone();
        async move { one.handlers().await.unwrap() }
    });
    until("it is being read", async || faulty.templates_gate.lock().unwrap().is_none().then_some(())).await;
    let other = node(&store, "0.10.0").await;
    until("the other came", async || {
        let workers = store.handler_offers().handlers_workers(9).await.unwrap();
        (workers.len() == 2).then_some(())
    })
    .await;
    open.send(()).unwrap();
    assert_eq!(versions(&reading.await.unwrap()), counted(&[("0.10.0", 1), ("0.9.0", 1)]));
    other.shut_down().await;
    until("only the first is left", async || {
        let found = one.handlers().await.unwrap();
        (versions(&found) == counted(&[("0.9.0", 1)])).then_some(())
    })
    .await;
    one.shut_down().await;
    store.close().await;
}

const ORDER: &str = "namespace: shop
name: order
version: VERSION
steps:
  - name: check
    handler: {callable: check}
  - name: charge
    dependencies: [check]
    handler: {callable: charge}
";

fn order(version: &str) -> Template {
    Template::parse(&ORDER.replace("VERSION", version), "order.yaml").unwrap()
}

async fn template_and_figures_are_in_the_registry(database: TestDatabase) {
    let store = store_of(&database).await;
    let engine = node(&store, "1.0.0").await;
    engine.put_template(&order("0.9.0")).await.unwrap();
    engine.put_template(&order("0.10.0")).await.unwrap();
    let job = NewJob { namespace: "shop".to_owned(), ..NewJob::new("charge", "{}") };
    let job = engine.submit(job).await.unwrap();
    engine.wait_for_job(job).await.unwrap();
    let found = registry_of(&*store).await.unwrap();
    let entry = found.registry.find("shop", "charge").unwrap();
    assert_eq!((entry.executions, entry.error_rate, entry.workers.len()), (1, Some(0.0), 1));
    let steps: Vec<(&str, &str)> =
        entry.steps.iter().map(|step| (step.version.as_str(), step.step.as_str())).collect();
    assert_eq!(steps, [("0.10.0", "charge")], "the newest version counts, by numbers");
    assert_eq!(entry.follows, ["check"]);
    let check = found.registry.find("shop", "check").unwrap();
    assert!(check.workers.is_empty(), "nobody offers it, and it is there all the same");
    assert!(!found.templates_left_out);
    engine.shut_down().await;
    store.close().await;
}

async fn registry_is_cached_and_outdated_by_what_it_shows(database: TestDatabase) {
    let store = store_of(&database).await;
    let reader = Engine::builder(Arc::clone(&store)).options(quick()).start().await.unwrap();
    let usage = reader.cache().for_usage(&Usage::Handlers);
    assert_eq!(usage.default_policy(), recache_cache::Policy::new(Duration::from_secs(120)));
    // Before the epochs of the store were heard nothing is served from the cache.
    let first = until("the answer is cached", async || {
        let (one, other) = (reader.handlers().await.unwrap(), reader.handlers().await.unwrap());
        Arc::ptr_eq(&one, &other).then_some(one)
    })
    .await;
    assert_eq!(first.registry.entries, []);
    let writer = Engine::builder(Arc::clone(&store)).options(quick()).start().await.unwrap();
    writer.put_template(&order("1.0.0")).await.unwrap();
    until("the template is there", async || {
        reader.handlers().await.unwrap().registry.find("shop", "check").map(|_| ())
    })
    .await;
    // Two in a row: the first one outdates at once, and the second is not forgotten.
    for (key, handler) in [("a", "build-a"), ("b", "build-b")] {
        writer.define_view(view(key, handler, at_once())).await.unwrap();
        until("who builds the view is there", async || {
            reader.handlers().await.unwrap().registry.find("n", handler).map(|_| ())
        })
        .await;
    }
    for engine in [reader, writer] {
        engine.shut_down().await;
    }
    store.close().await;
}

/// The command line, or a server of an older version: it writes to the database, and tells no engine.
async fn definitions_of_other_programs_show_within_a_second(database: TestDatabase) {
    let store = store_of(&database).await;
    let reader = Engine::builder(Arc::clone(&store)).options(quick()).start().await.unwrap();
    until("the answer is cached", async || {
        let (one, other) = (reader.handlers().await.unwrap(), reader.handlers().await.unwrap());
        Arc::ptr_eq(&one, &other).then_some(())
    })
    .await;
    let elsewhere = store_of(&database).await;
    let shows = async |handler: &str| {
        let began = tokio::time::Instant::now();
        until("it shows", async || reader.handlers().await.unwrap().registry.find("n", handler).map(|_| ()))
            .await;
        assert!(began.elapsed() < Duration::from_secs(1), "{handler} after {:?}", began.elapsed());
    };
    elsewhere.view_define(view("a", "build-a", at_once())).await.unwrap();
    shows("build-a").await;
    let schedule =
        NewSchedule { namespace: "n".to_owned(), ..NewSchedule::new("nightly", "0 3 * * *", "report") };
    elsewhere.schedules().schedule_put(schedule).await.unwrap();
    shows("report").await;
    let order =
        Template::parse(&ORDER.replace("VERSION", "1.0.0").replace("shop", "n"), "order.yaml").unwrap();
    let record = TemplateRecord {
        digest: order.digest().to_string(),
        namespace: "n".to_owned(),
        name: "order".to_owned(),
        version: "1.0.0".to_owned(),
        content: order.canonical_json().to_owned(),
    };
    elsewhere.template_put(record, None).await.unwrap();
    shows("charge").await;
    elsewhere.schedules().schedule_delete("n", "nightly").await.unwrap();
    until("it is gone", async || {
        reader.handlers().await.unwrap().registry.find("n", "report").is_none().then_some(())
    })
    .await;
    // Nothing changed: what is cached is found again.
    let found = reader.handlers().await.unwrap();
    tokio::time::sleep(Duration::from_millis(600)).await;
    assert!(Arc::ptr_eq(&found, &reader.handlers().await.unwrap()));
    reader.shut_down().await;
    elsewhere.close().await;
    store.close().await;
}
