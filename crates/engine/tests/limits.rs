//! Queues that are paused, limits and keys, seen from outside, on both databases.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    missing_docs,
    reason = "a test says what it expects"
)]

mod support;

use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use recache_engine::{Engine, Options};
use recache_model::job::JobState;
use recache_model::limits::{Limit, Rate};
use recache_store::conformance::TestDatabase;
use recache_store::{LimitScope, NewJob, Word};
use recache_worker::{Context, Handlers};
use support::{quick, soon, store_of, until};
use tokio::time::Instant;

on_both_databases!(
    limits_hold_over_two_engines_and_everything_is_done,
    paused_queue_rests_until_it_is_resumed,
    rate_is_kept_and_work_goes_on_as_soon_as_it_allows,
);

/// How many handlers ran at once, by name.
#[derive(Debug, Default)]
struct Gauge(Mutex<HashMap<String, (usize, usize)>>);

impl Gauge {
    fn enter(&self, name: &str) {
        let mut gauges = self.0.lock().unwrap();
        let (now, most) = gauges.entry(name.to_owned()).or_default();
        *now += 1;
        *most = (*most).max(*now);
    }

    fn leave(&self, name: &str) {
        self.0.lock().unwrap().entry(name.to_owned()).or_default().0 -= 1;
    }

    fn most(&self, name: &str) -> usize {
        self.0.lock().unwrap().get(name).map_or(0, |(_, most)| *most)
    }
}

fn measured(gauge: &Arc<Gauge>) -> Handlers {
    let mut handlers = Handlers::new();
    for name in ["few", "many"] {
        let gauge = Arc::clone(gauge);
        let run = move |_: Context, key: Option<String>| {
            let gauge = Arc::clone(&gauge);
            async move {
                let gauges: Vec<String> = [Some(name.to_owned()), key].into_iter().flatten().collect();
                for name in &gauges {
                    gauge.enter(name);
                }
                tokio::time::sleep(Duration::from_millis(5)).await;
                for name in &gauges {
                    gauge.leave(name);
                }
                Ok(())
            }
        };
        handlers.job(name, run).unwrap();
    }
    handlers
}

async fn limits_hold_over_two_engines_and_everything_is_done(database: TestDatabase) {
    let gauge = Arc::new(Gauge::default());
    let mut engines = Vec::new();
    for _ in 0..2 {
        let store = store_of(&database).await;
        let options = Options { slots: 8, ..quick() };
        engines
            .push(Engine::builder(store).handlers(measured(&gauge)).options(options).start().await.unwrap());
    }
    let limit = Limit { running_max: Some(3), rate: None };
    let scope = LimitScope::Handler("few".to_owned());
    engines[0].store().queues().limit_set(scope, limit, "test").await.unwrap();
    let mut jobs = Vec::new();
    for n in 0..60 {
        let handler = if n % 2 == 0 { "few" } else { "many" };
        let key = (n % 3 == 0).then(|| format!("key-{}", n % 4));
        jobs.push(NewJob {
            concurrency_key: key.clone(),
            ..NewJob::new(handler, serde_json::json!(key).to_string())
        });
    }
    let submitted = engines[0].submit_many(jobs).await.unwrap();
    for job in submitted {
        assert_eq!(soon(engines[1].wait_for_job(job.id)).await.unwrap().state, JobState::Completed);
    }
    assert!((1..=3).contains(&gauge.most("few")), "{gauge:?}");
    for key in 0..4 {
        assert_eq!(gauge.most(&format!("key-{key}")), 1, "{gauge:?}");
    }
    for engine in engines {
        engine.shut_down().await;
    }
}

async fn paused_queue_rests_until_it_is_resumed(database: TestDatabase) {
    let gauge = Arc::new(Gauge::default());
    let store = store_of(&database).await;
    let engine = Engine::builder(store).handlers(measured(&gauge)).options(quick()).start().await.unwrap();
    let queues = engine.store().queues();
    queues.queue_pause("default", None, Word::new("test", "a rest")).await.unwrap();
    let job = engine.submit(NewJob::new("many", "null")).await.unwrap();
    // Longer than two looks of a worker that polls.
    tokio::time::sleep(quick().poll * 3).await;
    assert_eq!(engine.job(job).await.unwrap().state, JobState::Queued);
    queues.queue_resume("default").await.unwrap();
    assert_eq!(soon(engine.wait_for_job(job)).await.unwrap().state, JobState::Completed);
    engine.shut_down().await;
}

async fn rate_is_kept_and_work_goes_on_as_soon_as_it_allows(database: TestDatabase) {
    let gauge = Arc::new(Gauge::default());
    let store = store_of(&database).await;
    // It would not look again by itself for a long time.
    let options = Options { poll: Duration::from_secs(600), ..quick() };
    let engine = Engine::builder(store).handlers(measured(&gauge)).options(options).start().await.unwrap();
    let period = Duration::from_millis(600);
    let limit = Limit { running_max: None, rate: Some(Rate { starts_max: 2, period }) };
    engine.store().queues().limit_set(LimitScope::Queue("default".to_owned()), limit, "test").await.unwrap();
    let began = Instant::now();
    let jobs = (0..5).map(|_| NewJob::new("many", "null")).collect();
    let submitted = engine.submit_many(jobs).await.unwrap();
    until("all five are done", async || {
        for job in &submitted {
            if engine.job(job.id).await.unwrap().state != JobState::Completed {
                return None;
            }
        }
        Some(())
    })
    .await;
    assert!(began.elapsed() >= period * 2, "two, two and one: {:?}", began.elapsed());
    engine.shut_down().await;
}
