//! Schedules, seen from outside, on both databases.
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
use recache_store::conformance::TestDatabase;
use recache_store::{JobFilter, NewSchedule};
use recache_worker::{Context, Handlers};
use support::{quick, store_of, until};

on_both_databases!(every_tick_runs_once_whichever_engine_leads);

async fn every_tick_runs_once_whichever_engine_leads(database: TestDatabase) {
    let ran = Arc::new(AtomicUsize::new(0));
    let mut engines = Vec::new();
    for _ in 0..2 {
        let mut handlers = Handlers::new();
        let ran = Arc::clone(&ran);
        let tick = move |_: Context, (): ()| {
            ran.fetch_add(1, Ordering::SeqCst);
            async { Ok(()) }
        };
        handlers.job("tick", tick).unwrap();
        let store = store_of(&database).await;
        engines.push(Engine::builder(store).handlers(handlers).options(quick()).start().await.unwrap());
    }
    let every_second = NewSchedule::new("pulse", "* * * * * *", "tick");
    engines[0].store().schedules().schedule_put(every_second).await.unwrap();
    until("two ticks have run", async || (ran.load(Ordering::SeqCst) >= 2).then_some(())).await;
    // Whoever leads goes away; the other one goes on.
    engines.remove(0).shut_down().await;
    let engine = engines.remove(0);
    let so_far = ran.load(Ordering::SeqCst);
    until("ticks go on", async || (ran.load(Ordering::SeqCst) >= so_far + 2).then_some(())).await;
    engine.store().schedules().schedule_delete("default", "pulse").await.unwrap();
    let filter = JobFilter { rows_max: 100, ..JobFilter::default() };
    let jobs = engine.store().jobs_list(filter).await.unwrap().jobs;
    let mut seconds: Vec<i64> =
        jobs.iter().map(|job| job.created_at.micros().div_euclid(1_000_000)).collect();
    seconds.sort_unstable();
    let count = seconds.len();
    seconds.dedup();
    assert_eq!(seconds.len(), count, "no second has two jobs");
    assert!(engine.stats().scheduled >= 2, "{:?}", engine.stats());
    engine.shut_down().await;
}
