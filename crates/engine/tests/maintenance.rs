//! What an engine keeps small and true, seen from outside, on both databases.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    missing_docs,
    reason = "a test says what it expects"
)]

mod support;

use std::time::Duration;

use recache_engine::{Engine, Options};
use recache_model::job::JobState;
use recache_model::retention::Retention;
use recache_store::conformance::TestDatabase;
use recache_store::{JobFilter, LetterFilter, NewJob};
use recache_worker::{Context, Failure, Handlers};
use support::{quick, soon, store_of, until};

on_both_databases!(
    ended_jobs_are_removed_once_by_two_engines,
    lead_passes_on_when_its_holder_shuts_down,
    days_of_history_are_tended_by_whoever_leads,
);

fn handlers() -> Handlers {
    let mut handlers = Handlers::new();
    handlers.job("work", async |_: Context, n: i64| Ok(n)).unwrap();
    let fail = async |_: Context, (): ()| Err::<(), _>(Failure::permanent("no", "never"));
    handlers.job("fail", fail).unwrap();
    handlers
}

async fn start(database: &TestDatabase) -> Engine {
    let retention = Retention { done: Duration::ZERO, failed: Duration::from_secs(3600) };
    let often = Duration::from_millis(50);
    let options = Options { retention, maintain: often, compare: often, ..quick() };
    Engine::builder(store_of(database).await).handlers(handlers()).options(options).start().await.unwrap()
}

async fn count(engine: &Engine) -> usize {
    let filter = JobFilter { rows_max: 1000, ..JobFilter::default() };
    engine.store().jobs_list(filter).await.unwrap().jobs.len()
}

async fn ended_jobs_are_removed_once_by_two_engines(database: TestDatabase) {
    let (a, b) = (start(&database).await, start(&database).await);
    let failing = a.submit(NewJob::new("fail", "null")).await.unwrap();
    let jobs = (0..20).map(|n: i32| NewJob::new("work", n.to_string())).collect();
    a.submit_many(jobs).await.unwrap();
    until("what is done is gone", async || (count(&a).await == 1).then_some(())).await;
    assert_eq!(soon(a.wait_for_job(failing)).await.unwrap().state, JobState::Failed);
    assert_eq!(a.store().letters().letters_list(LetterFilter::default(), 10).await.unwrap().len(), 1);
    // On a busy machine the lead may pass from one to the other in between.
    assert_eq!(a.stats().removed + b.stats().removed, 20, "each of them once");
    assert_eq!((a.stats().count_differences, b.stats().count_differences), (0, 0));
    a.shut_down().await;
    b.shut_down().await;
}

async fn days_of_history_are_tended_by_whoever_leads(database: TestDatabase) {
    let engine = start(&database).await;
    let has_days = engine.store().kind() == "postgresql";
    engine.submit(NewJob::new("work", "1")).await.unwrap();
    until("it leads", async || (engine.stats().removed >= 1).then_some(())).await;
    if has_days {
        // What was before the first of them, and three days to come at least.
        until("it looked", async || (engine.stats().history_parts >= 4).then_some(())).await;
    }
    assert_eq!((engine.stats().history_held_up, engine.stats().history_days_dropped), (0, 0));
    assert_eq!(engine.stats().history_parts > 0, has_days);
    engine.shut_down().await;
}

async fn lead_passes_on_when_its_holder_shuts_down(database: TestDatabase) {
    let (a, b) = (start(&database).await, start(&database).await);
    a.submit(NewJob::new("work", "1")).await.unwrap();
    let first = until("somebody leads", async || match (a.stats().removed, b.stats().removed) {
        (1, 0) => Some(true),
        (0, 1) => Some(false),
        _ => None,
    })
    .await;
    let (former, next) = if first { (a, b) } else { (b, a) };
    former.shut_down().await;
    next.submit(NewJob::new("work", "2")).await.unwrap();
    until("the other one leads", async || (next.stats().removed >= 1).then_some(())).await;
    next.shut_down().await;
}
