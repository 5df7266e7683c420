//! Jobs that some other system runs, seen through an engine, on both databases.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stderr,
    missing_docs,
    reason = "a test says what it expects"
)]

mod support;

use std::sync::Arc;
use std::time::Duration;

use recache_cache::{Cache, CacheConfig, ConfigProblem, SystemClock};
use recache_engine::{Engine, Error, Options};
use recache_faultproxy::{Accept, Chance, Cut, Ending, Flip, Lane, Plan, Proxy, ServerProcess};
use recache_model::batch::BatchState;
use recache_model::ids::{BatchId, JobId};
use recache_model::retention::Retention;
use recache_model::tracked::{Report, TrackedState};
use recache_store::conformance::TestDatabase;
use recache_store::{NewBatch, NewTrackedJob};
use support::{quick, soon, store_of, until};

on_both_databases!(
    job_whose_owner_died_fails_by_itself,
    waiter_sees_the_end_that_another_process_was_told,
    ended_tracked_jobs_are_removed_by_the_engine,
    standing_is_read_through_the_cache_and_one_reads_ones_own_report,
    standing_needs_no_cache,
    no_fault_of_the_cache_fails_a_tracking_call_or_loses_what_it_said,
);

/// Who starts no server has none: that fails where the suite must run whole, and says so elsewhere.
async fn redis(arguments: &[&str]) -> Option<ServerProcess> {
    match ServerProcess::redis().args(arguments).start().await {
        Ok(server) => Some(server),
        Err(error) if std::env::var_os("CI").is_none() => {
            eprintln!("skipped: {error}");
            None
        }
        Err(error) => panic!("{error}"),
    }
}

/// A member of a batch from its creation to its end, and all that is asked about it on the way. Whatever the cache does, each call is answered by what stands.
async fn one_life(engine: &Engine, batch: BatchId) -> JobId {
    let new = NewTrackedJob { batch: Some(batch), ..NewTrackedJob::new("x") };
    let job = soon(engine.track(new)).await.unwrap().job.definition.id;
    let first = soon(engine.standing(job, 1)).await.unwrap();
    assert_eq!((first.state, first.revision), (TrackedState::Queued, 1));
    for done in 1..=3 {
        let report =
            Report { items_done: Some(done), items_total: Some(3), ..Report::of(TrackedState::Processing) };
        let told = soon(engine.report(job, report)).await.unwrap();
        assert!(told.changed);
        // Who reported reads its report in the very next call, through the cache too.
        let standing = soon(engine.standing(job, told.job.revision)).await.unwrap();
        assert_eq!((standing.items_done, standing.revision), (Some(done), told.job.revision));
        // Without a revision it may be a second old, and is one that there was.
        let any = soon(engine.standing(job, 0)).await.unwrap();
        assert!((1..=told.job.revision).contains(&any.revision), "{any:?}");
        assert!(any.items_done.unwrap_or_default() <= done, "{any:?}");
    }
    soon(engine.heartbeat(job)).await.unwrap();
    let ended = soon(engine.report(job, Report::of(TrackedState::Completed))).await.unwrap().job;
    let standing = soon(engine.standing(job, ended.revision)).await.unwrap();
    assert_eq!((standing.state, standing.finished_at), (TrackedState::Completed, ended.finished_at));
    assert!(
        !soon(engine.report(job, Report::progress(0.1))).await.unwrap().changed,
        "late, and changes nothing"
    );
    assert!(soon(engine.acknowledge(job, "ann")).await.unwrap().changed);
    job
}

/// Over a real server behind a network that breaks in each way, and over one that is full. The store is asked afterwards: all of it is there.
async fn no_fault_of_the_cache_fails_a_tracking_call_or_loses_what_it_said(database: TestDatabase) {
    const LIVES: u64 = 3;
    let (Some(healthy), Some(full)) =
        (redis(&[]).await, redis(&["--maxmemory", "1", "--maxmemory-policy", "noeviction"]).await)
    else {
        return;
    };
    let flips = |percent| Lane::default().flipped(Flip::Chance(Chance::percent(percent)));
    let faults = [
        ("none", Plan::default()),
        ("refuses", Plan::default().accept(Accept::Refuse)),
        ("resets", Plan::default().turn_away(Chance::ALWAYS)),
        ("stands still", Plan::stalled()),
        ("swallows", Plan::default().both(&Lane::default().swallowed())),
        (
            "is slow",
            Plan::default()
                .both(&Lane::default().delayed(Duration::from_millis(80), Duration::from_millis(40))),
        ),
        ("flips what it answers", Plan::default().to_client(flips(2))),
        ("flips what it is told", Plan::default().to_server(flips(2))),
        ("cuts answers", Plan::default().to_client(Lane::default().cut(Cut::after_bytes(40)))),
    ];
    for (server, faults) in [(&healthy, &faults[..]), (&full, &faults[..1])] {
        let proxy = Proxy::start(server.address()).unwrap();
        let mut config: CacheConfig = serde_json::from_value(serde_json::json!({
            "enabled": true, "backend": "redis", "redis": { "url": format!("redis://{}", proxy.address()) },
        }))
        .unwrap();
        // Open for as short as can be, so that calls go out to the broken server again and again.
        config.breaker.timeout_seconds = 1;
        let cache = Cache::from_config(&config, Arc::new(SystemClock));
        let store = store_of(&database).await;
        let engine = Engine::builder(store).options(quick()).cache(cache).start().await.unwrap();
        for (fault, plan) in faults {
            let batch = soon(engine.create_batch(NewBatch::new("import"))).await.unwrap().0.definition.id;
            // Connections that live are part of it: those that were made before the fault, and those that end with it.
            one_life(&engine, batch).await;
            proxy.set(plan.clone()).await;
            if *fault == "refuses" || *fault == "resets" {
                proxy.end_all(Ending::Reset);
            }
            let mut jobs = Vec::new();
            for _ in 1..LIVES {
                jobs.push(one_life(&engine, batch).await);
            }
            assert!(soon(engine.close_batch(batch)).await.unwrap(), "{fault}");
            let counts = soon(engine.batch(batch)).await.unwrap();
            assert_eq!(counts.state, BatchState::Completed, "{fault}: {counts:?}");
            assert_eq!(counts.counts.completed, i64::try_from(LIVES).unwrap(), "{fault}: {counts:?}");
            for job in jobs {
                let kept = engine.store().tracked_jobs().tracked_get(job).await.unwrap();
                assert_eq!(
                    (kept.course.state, kept.course.items_done),
                    (TrackedState::Completed, Some(3)),
                    "{fault}"
                );
            }
            proxy.heal().await;
        }
        engine.shut_down().await;
        engine.store().close().await;
    }
}

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
