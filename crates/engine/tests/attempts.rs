//! What handlers keep, say and put off, seen from outside, on both databases.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    missing_docs,
    reason = "a test says what it expects"
)]

mod support;

use std::time::Duration;

use recache_engine::Engine;
use recache_model::job::JobState;
use recache_store::NewJob;
use recache_store::conformance::TestDatabase;
use recache_worker::{Context, Failure, Handlers};
use support::{quick, retries, soon, store_of};

on_both_databases!(
    handler_goes_on_where_its_former_attempt_left_off,
    snooze_puts_a_job_off_without_using_an_attempt,
    what_cannot_be_kept_fails_the_attempt_for_good,
);

async fn start(database: &TestDatabase, handlers: Handlers) -> Engine {
    Engine::builder(store_of(database).await).handlers(handlers).options(quick()).start().await.unwrap()
}

async fn handler_goes_on_where_its_former_attempt_left_off(database: TestDatabase) {
    let mut handlers = Handlers::new();
    let pages = async |context: Context, last: u32| {
        let done: u32 = context.saved()?.unwrap_or(0);
        context.log(&format!("begins after page {done}")).await?;
        for page in done + 1..=last {
            context.save(&page).await?;
            if page == 2 && context.facts().attempt == 1 {
                return Err(Failure::retryable("the feed is gone"));
            }
        }
        Ok(last - done)
    };
    handlers.job("pages", pages).unwrap();
    let engine = start(&database, handlers).await;
    let job = NewJob { retry: retries(3, 1), ..NewJob::new("pages", "5") };
    let job = engine.submit(job).await.unwrap();
    let record = soon(engine.wait_for_job(job)).await.unwrap();
    assert_eq!((record.attempt, record.output.as_deref()), (2, Some("3")), "pages 1 and 2 were done before");
    let lines = engine.store().attempts().log_read(job, 10).await.unwrap();
    let lines: Vec<_> = lines.iter().map(|line| (line.attempt, line.text.as_str())).collect();
    assert_eq!(lines, [(1, "begins after page 0"), (2, "begins after page 2")]);
    engine.shut_down().await;
}

async fn snooze_puts_a_job_off_without_using_an_attempt(database: TestDatabase) {
    let mut handlers = Handlers::new();
    let polls = async |context: Context, (): ()| {
        let looked: u32 = context.saved()?.unwrap_or(0);
        if looked < 3 {
            context.save(&(looked + 1)).await?;
            return Err(Failure::snooze(Duration::from_millis(30)));
        }
        Ok(context.facts().attempt)
    };
    handlers.job("polls", polls).unwrap();
    let engine = start(&database, handlers).await;
    let job = NewJob { retry: retries(1, 1), ..NewJob::new("polls", "null") };
    let job = engine.submit(job).await.unwrap();
    let record = soon(engine.wait_for_job(job)).await.unwrap();
    assert_eq!((record.state, record.attempt, record.output.as_deref()), (JobState::Completed, 1, Some("1")));
    assert_eq!((engine.stats().snoozed, engine.stats().retried), (3, 0));
    let history = engine.store().job_history(job).await.unwrap();
    let pauses: Vec<Duration> = history
        .windows(2)
        .filter(|pair| pair[0].to == JobState::Queued)
        .map(|pair| pair[1].at.since(pair[0].at))
        .collect();
    assert!(
        pauses.len() == 3 && pauses.iter().all(|pause| *pause >= Duration::from_millis(30)),
        "{pauses:?}"
    );
    engine.shut_down().await;
}

async fn what_cannot_be_kept_fails_the_attempt_for_good(database: TestDatabase) {
    let mut handlers = Handlers::new();
    let greedy = async |context: Context, (): ()| context.save(&"x".repeat(65 * 1024)).await;
    handlers.job("greedy", greedy).unwrap();
    let engine = start(&database, handlers).await;
    let job = engine.submit(NewJob::new("greedy", "null")).await.unwrap();
    let record = soon(engine.wait_for_job(job)).await.unwrap();
    assert_eq!((record.state, record.attempt), (JobState::Failed, 1));
    assert!(record.error.unwrap().message.contains("65536 bytes"));
    engine.shut_down().await;
}
