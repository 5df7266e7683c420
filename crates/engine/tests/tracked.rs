//! Jobs that some other system runs, seen through an engine, on both databases.
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

use recache_cache::{Cache, CacheConfig, ConfigProblem, SystemClock};
use recache_engine::{Engine, Error, Options};
use recache_model::ids::JobId;
use recache_model::retention::Retention;
use recache_model::tracked::{Report, TrackedState};
use recache_store::NewTrackedJob;
use recache_store::conformance::TestDatabase;
use support::{quick, soon, store_of, until};

on_both_databases!(
    job_whose_owner_died_fails_by_itself,
    waiter_sees_the_end_that_another_process_was_told,
    ended_tracked_jobs_are_removed_by_the_engine,
    standing_is_read_through_the_cache_and_one_reads_ones_own_report,
    standing_needs_no_cache,
);

async fn start(database: &TestDatabase, options: Options) -> Engine {
    Engine::builder(store_of(database).await).options(options).start().await.unwrap()
}

fn often() -> Options {
    Options { maintain: Duration::from_millis(50), ..quick() }
}

async fn job_whose_owner_died_fails_by_itself(database: TestDatabase) {
    let engine = start(&database, often()).await;
    let job = |ms| NewTrackedJob { stale_after: Duration::from_millis(ms), ..NewTrackedJob::new("x") };
    let dead = engine.track(job(300)).await.unwrap().job.definition.id;
    let alive = engine.track(job(60_000)).await.unwrap().job.definition.id;
    engine.report(dead, Report::of(TrackedState::Processing)).await.unwrap();
    let ended = soon(engine.wait_for_tracked_job(dead, Duration::from_mins(1))).await.unwrap();
    assert_eq!((ended.course.state, ended.course.code.as_deref()), (TrackedState::Failed, Some("stale")));
    assert!(!engine.report(dead, Report::of(TrackedState::Completed)).await.unwrap().changed);
    assert_eq!(engine.tracked_job(alive).await.unwrap().course.state, TrackedState::Queued);
    assert_eq!(engine.stats().tracked_stale, 1);
    engine.shut_down().await;
}

async fn waiter_sees_the_end_that_another_process_was_told(database: TestDatabase) {
    let (page, worker) = (start(&database, quick()).await, start(&database, quick()).await);
    let job = page.track(NewTrackedJob::new("x")).await.unwrap().job.definition.id;
    let early = page.wait_for_tracked_job(job, Duration::from_millis(20)).await;
    assert!(matches!(early, Err(Error::TimedOut { .. })), "{early:?}");
    let waiting = {
        let page = page.clone();
        tokio::spawn(async move { page.wait_for_tracked_job(job, Duration::from_mins(1)).await })
    };
    worker.report(job, Report::of(TrackedState::Completed)).await.unwrap();
    let ended = soon(waiting).await.unwrap().unwrap();
    assert_eq!(ended.course.state, TrackedState::Completed);
    assert!(page.acknowledge(job, "ann").await.unwrap().changed);
    let unknown = worker.report(JobId::make(), Report::progress(0.5)).await;
    assert!(matches!(unknown, Err(Error::Store(recache_store::Error::NotFound { .. }))), "{unknown:?}");
    page.shut_down().await;
    worker.shut_down().await;
}

async fn ended_tracked_jobs_are_removed_by_the_engine(database: TestDatabase) {
    let retention = Retention { done: Duration::ZERO, failed: Duration::from_hours(1) };
    let engine = start(&database, Options { retention, ..often() }).await;
    let done = engine.track(NewTrackedJob::new("x")).await.unwrap().job.definition.id;
    let failed = engine.track(NewTrackedJob::new("x")).await.unwrap().job.definition.id;
    engine.report(done, Report::of(TrackedState::Completed)).await.unwrap();
    engine.report(failed, Report::of(TrackedState::Failed)).await.unwrap();
    until("what is done is gone", async || engine.tracked_job(done).await.is_err().then_some(())).await;
    assert_eq!(engine.tracked_job(failed).await.unwrap().course.state, TrackedState::Failed);
    engine.shut_down().await;
}

async fn standing_is_read_through_the_cache_and_one_reads_ones_own_report(database: TestDatabase) {
    let (page, worker) = (start(&database, quick()).await, start(&database, quick()).await);
    let job = worker.track(NewTrackedJob::new("x")).await.unwrap().job.definition.id;
    let first = page.standing(job, 0).await.unwrap();
    assert_eq!((first.state, first.revision), (TrackedState::Queued, 1));
    let told = worker.report(job, Report::progress(0.5)).await.unwrap().job;
    // Whatever lies in the page's cache.
    let own = page.standing(job, told.revision).await.unwrap();
    assert_eq!((own.progress, own.revision), (Some(0.5), 2));
    let told = worker.report(job, Report::of(TrackedState::Completed)).await.unwrap().job;
    let latest = until("the cached standing is no older than it may be", async || {
        let standing = page.standing(job, 0).await.unwrap();
        (standing.revision == told.revision).then_some(standing)
    })
    .await;
    assert_eq!((latest.state, latest.finished_at), (TrackedState::Completed, told.finished_at));
    until("some of them come from the cache", async || {
        page.standing(job, 0).await.unwrap();
        (page.cache().stats().hits > 0).then_some(())
    })
    .await;
    page.shut_down().await;
    worker.shut_down().await;
}

async fn standing_needs_no_cache(database: TestDatabase) {
    let problem = ConfigProblem {
        path: "common.cache".to_owned(),
        message: "broken".to_owned(),
        remedy: "mend it".to_owned(),
    };
    let cache = Cache::out_of_order(&CacheConfig::default(), Arc::new(SystemClock), &[problem]);
    let engine =
        Engine::builder(store_of(&database).await).options(quick()).cache(cache).start().await.unwrap();
    let job = engine.track(NewTrackedJob::new("x")).await.unwrap().job.definition.id;
    for done in 1..4 {
        engine.report(job, Report { items_done: Some(done), ..Report::default() }).await.unwrap();
        assert_eq!(engine.standing(job, 0).await.unwrap().items_done, Some(done), "at once");
    }
    let unknown = engine.standing(JobId::make(), 0).await;
    assert!(matches!(unknown, Err(Error::Store(recache_store::Error::NotFound { .. }))), "{unknown:?}");
    engine.shut_down().await;
}
