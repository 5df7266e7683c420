//! The adaptive limit of running jobs, in a running engine.
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
use std::time::Duration;

use recache_engine::{Engine, Options};
use recache_model::limiter::Reason;
use recache_store::NewJob;
use recache_store::conformance::TestDatabase;
use recache_worker::{Context, Handlers};
use serde_json::Value;
use support::{Faulty, quick, store_of, until};

on_both_databases!(
    jobs_that_slow_each_other_down_run_fewer_at_once,
    limit_goes_to_zero_without_a_database_and_comes_back,
    queue_with_little_to_do_is_not_starved_by_one_with_much,
);

/// A resource that four can use at once; beyond that everybody waits the longer.
struct Shared {
    running: AtomicUsize,
    most: AtomicUsize,
}

fn handlers(shared: &Arc<Shared>) -> Handlers {
    let mut handlers = Handlers::new();
    let shared = Arc::clone(shared);
    handlers
        .job("work", move |_: Context, input: Value| {
            let shared = Arc::clone(&shared);
            async move {
                let running = shared.running.fetch_add(1, Ordering::SeqCst) + 1;
                shared.most.fetch_max(running, Ordering::SeqCst);
                let slowdown = u32::try_from(running.div_ceil(4)).unwrap();
                tokio::time::sleep(Duration::from_millis(20) * slowdown * slowdown).await;
                shared.running.fetch_sub(1, Ordering::SeqCst);
                Ok(input)
            }
        })
        .unwrap();
    handlers
}

fn shared() -> Arc<Shared> {
    Arc::new(Shared { running: AtomicUsize::new(0), most: AtomicUsize::new(0) })
}

fn options() -> Options {
    Options { slots: 64, adaptive_limit: true, ..quick() }
}

async fn jobs_that_slow_each_other_down_run_fewer_at_once(database: TestDatabase) {
    let store = store_of(&database).await;
    let shared = shared();
    let engine = Engine::builder(Arc::clone(&store))
        .options(options())
        .handlers(handlers(&shared))
        .start()
        .await
        .unwrap();
    assert_eq!(engine.claim_limit().slots, 64);
    for _ in 0..2 {
        let jobs = (0..500).map(|_| NewJob::new("work", "1")).collect();
        engine.submit_many(jobs).await.unwrap();
    }
    // It begins with four, may double before it has seen anything, and stays where jobs do not wait for each other.
    until("it has found its limit", async || (engine.stats().completed > 200).then_some(())).await;
    let limit = engine.claim_limit();
    assert!(limit.is_adaptive && (2..=24).contains(&limit.limit), "{limit:?}");
    assert!(shared.most.load(Ordering::SeqCst) <= 40, "{} ran at once", shared.most.load(Ordering::SeqCst));
    engine.shut_down().await;
    store.close().await;
}

async fn limit_goes_to_zero_without_a_database_and_comes_back(database: TestDatabase) {
    let store = store_of(&database).await;
    let faulty = Faulty::over(Arc::clone(&store));
    let shared = shared();
    let through: Arc<dyn recache_store::Store> = faulty.clone();
    let engine =
        Engine::builder(through).options(options()).handlers(handlers(&shared)).start().await.unwrap();
    faulty.dispatch_fails.store(true, Ordering::SeqCst);
    until("nothing may begin", async || {
        let limit = engine.claim_limit();
        (limit.limit == 0 && limit.reason == Reason::Resting).then_some(())
    })
    .await;
    faulty.dispatch_fails.store(false, Ordering::SeqCst);
    let job = engine.submit(NewJob::new("work", "1")).await.unwrap();
    assert!(engine.wait_for_job(job).await.unwrap().state.is_terminal(), "it is never stuck at zero");
    until("it is open again", async || (engine.claim_limit().limit >= 1).then_some(())).await;
    engine.shut_down().await;
    store.close().await;
}

async fn queue_with_little_to_do_is_not_starved_by_one_with_much(database: TestDatabase) {
    let store = store_of(&database).await;
    let shared = shared();
    let options = Options { slots: 4, queues: vec!["many".to_owned(), "few".to_owned()], ..options() };
    let engine = Engine::builder(Arc::clone(&store))
        .options(options)
        .handlers(handlers(&shared))
        .start()
        .await
        .unwrap();
    let of = |queue: &str| NewJob { queue: queue.to_owned(), ..NewJob::new("work", "1") };
    // What is many is more urgent too: by its order alone nothing else would begin before its end.
    let many = (0..600).map(|_| NewJob { priority: 100, ..of("many") }).collect();
    engine.submit_many(many).await.unwrap();
    until("it is busy", async || (engine.stats().completed > 5).then_some(())).await;
    let few = engine.submit(of("few")).await.unwrap();
    engine.wait_for_job(few).await.unwrap();
    let done = engine.stats().completed;
    assert!(done < 500, "it waited for {done} others");
    engine.shut_down().await;
    store.close().await;
}
