//! Submits that meet a job that is there, seen from outside, on both databases.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    missing_docs,
    reason = "a test says what it expects"
)]

mod support;

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use recache_engine::Engine;
use recache_model::unique::{OnDuplicate, UniqueRule};
use recache_store::NewJob;
use recache_store::conformance::TestDatabase;
use recache_worker::{Context, Handlers};
use support::{quick, soon, store_of};

on_both_databases!(submit_answers_the_job_that_it_stands_for, repeated_submits_run_their_job_once,);

async fn submit_answers_the_job_that_it_stands_for(database: TestDatabase) {
    // Without handlers: nothing is done meanwhile.
    let engine = Engine::builder(store_of(&database).await).options(quick()).start().await.unwrap();
    let keyed = || NewJob { idempotency_key: Some("order-7".to_owned()), ..NewJob::new("work", "1") };
    let first = engine.submit(keyed()).await.unwrap();
    assert_eq!(engine.submit(keyed()).await.unwrap(), first);
    let other = NewJob { input: "2".to_owned(), ..keyed() };
    assert!(engine.submit(other).await.unwrap_err().to_string().contains("order-7"));
    let unique = |on_duplicate| NewJob {
        unique: Some(UniqueRule { on_duplicate, ..UniqueRule::by_key("nightly") }),
        ..NewJob::new("work", "3")
    };
    let first = engine.submit(unique(OnDuplicate::Return)).await.unwrap();
    assert_eq!(engine.submit(unique(OnDuplicate::Return)).await.unwrap(), first);
    assert_eq!(engine.submit(unique(OnDuplicate::Replace)).await.unwrap(), first);
    assert!(engine.submit(unique(OnDuplicate::Reject)).await.is_err());
    engine.shut_down().await;
}

async fn repeated_submits_run_their_job_once(database: TestDatabase) {
    let ran = Arc::new(AtomicUsize::new(0));
    let mut handlers = Handlers::new();
    let count = Arc::clone(&ran);
    let work = move |_: Context, (): ()| {
        count.fetch_add(1, Ordering::SeqCst);
        async { Ok(()) }
    };
    handlers.job("work", work).unwrap();
    let store = store_of(&database).await;
    let engine = Engine::builder(store).handlers(handlers).options(quick()).start().await.unwrap();
    let mut submits = Vec::new();
    for _ in 0..10 {
        let engine = engine.clone();
        let job = NewJob { idempotency_key: Some("once".to_owned()), ..NewJob::new("work", "null") };
        submits.push(tokio::spawn(async move { engine.submit(job).await.unwrap() }));
    }
    for submit in submits {
        soon(engine.wait_for_job(submit.await.unwrap())).await.unwrap();
    }
    assert_eq!(ran.load(Ordering::SeqCst), 1);
    engine.shut_down().await;
}
