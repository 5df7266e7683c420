//! A database that was put back from a backup, and what the time knows that is no more: caches and workers.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    missing_docs,
    reason = "a test says what it expects"
)]

mod support;

use std::sync::{Arc, Mutex};

use recache_cache::provider::Moka;
use recache_cache::{Cache, SystemClock};
use recache_engine::Engine;
use recache_model::ids::SessionId;
use recache_store::conformance::TestDatabase;
use recache_store::{ClaimRequest, NewJob, Outcome, Settled, Settlement};
use recache_worker::{BuildContext, Handlers};
use support::{LIMIT, at_once, quick, soon, store_of, touch, view};

on_both_databases!(what_was_lost_with_a_restored_backup_comes_back_by_no_cache_and_no_worker,);

/// An engine over a cache that outlives it, as one on a server of its own does.
async fn start(database: &TestDatabase, shared: &Arc<Moka>, input: &Arc<Mutex<String>>) -> Engine {
    let cache = Cache::builder(shared.clone(), Arc::new(SystemClock)).build();
    let mut handlers = Handlers::new();
    let input = Arc::clone(input);
    handlers
        .view("copy", move |build: BuildContext| {
            let value = input.lock().unwrap().clone();
            async move { build.put("x", None, &value).await }
        })
        .unwrap();
    let store = store_of(database).await;
    Engine::builder(store).handlers(handlers).options(quick()).cache(cache).start().await.unwrap()
}

/// Changes the input, touches, waits, reads through the cache.
async fn publish(engine: &Engine, input: &Mutex<String>, value: &str) -> (i64, String) {
    value.clone_into(&mut input.lock().unwrap());
    let version = engine.touch(touch("v", &[])).await.unwrap().version;
    soon(engine.wait_for_version("n", "v", version, LIMIT)).await.unwrap();
    read(engine).await
}

async fn read(engine: &Engine) -> (i64, String) {
    let found = engine.read_item("n", "v", "x").await.unwrap();
    (found.version, found.value.expect("it is there").to_string())
}

async fn close(engine: Engine) {
    engine.shut_down().await;
    engine.store().close().await;
}

async fn what_was_lost_with_a_restored_backup_comes_back_by_no_cache_and_no_worker(database: TestDatabase) {
    let shared = Arc::new(Moka::new(1_000, 1 << 20, Arc::new(SystemClock)));
    let input = Arc::new(Mutex::new(String::new()));
    let engine = start(&database, &shared, &input).await;
    engine.define_view(view("v", "copy", at_once())).await.unwrap();
    assert_eq!(publish(&engine, &input, "kept").await, (1, "\"kept\"".to_owned()));
    close(engine).await;
    let backup = database.back_up().await;

    // A version that will never have been, in the cache; and a worker that goes on with a job that will never have been.
    let engine = start(&database, &shared, &input).await;
    assert_eq!(publish(&engine, &input, "lost").await, (2, "\"lost\"".to_owned()));
    let session = SessionId::make();
    engine.store().session_open(session, "elsewhere", LIMIT).await.unwrap();
    engine.submit(NewJob { queue: "apart".to_owned(), ..NewJob::new("work", "null") }).await.unwrap();
    let request = ClaimRequest {
        session,
        queues: vec!["apart".to_owned()],
        handlers: vec!["work".to_owned()],
        rows_max: 1,
    };
    let claimed = engine.store().jobs_dispatch(Vec::new(), Some(request)).await.unwrap().claimed.remove(0);
    close(engine).await;
    database.put_back(&backup).await;

    let engine = start(&database, &shared, &input).await;
    assert_eq!(read(&engine).await, (1, "\"kept\"".to_owned()));
    let late = Settlement::of(&claimed, Outcome::Completed { output: "1".to_owned() });
    let settled = engine.store().jobs_dispatch(vec![late], None).await.unwrap().settled;
    assert!(matches!(settled[..], [Settled::Refused(_)]), "{settled:?}");
    assert_eq!(
        publish(&engine, &input, "new").await,
        (2, "\"new\"".to_owned()),
        "not what the cache has of the former 2"
    );
    close(engine).await;
}
