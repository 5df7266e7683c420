//! Members that are watched together, seen through an engine, on both databases.
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

use recache_engine::Engine;
use recache_model::batch::{BatchCallback, BatchState};
use recache_model::ids::BatchId;
use recache_model::job::JobState;
use recache_model::tracked::{Report, TrackedState};
use recache_store::conformance::TestDatabase;
use recache_store::{NewBatch, NewJob, NewTrackedJob, Word};
use recache_worker::{Context, Failure, Handlers};
use support::{quick, soon, store_of, until};

on_both_databases!(
    batch_ends_and_calls_back_by_itself,
    end_that_nobody_noticed_is_found,
    cancel_that_was_given_up_half_way_goes_on,
    retried_batch_ends_again,
    sixty_four_writers_are_counted_exactly,
);

/// The longest wait of a test.
const LONG: Duration = Duration::from_mins(1);

/// `work` fails for odd numbers until `mended` is set; `over` counts its calls.
fn handlers(calls: &Arc<AtomicUsize>, mended: &Arc<AtomicUsize>) -> Handlers {
    let mut handlers = Handlers::new();
    let is_mended = Arc::clone(mended);
    handlers
        .job("work", move |_: Context, n: u64| {
            let fails = n % 2 == 1 && is_mended.load(Ordering::SeqCst) == 0;
            async move { if fails { Err(Failure::permanent("odd", "an odd number")) } else { Ok(n) } }
        })
        .unwrap();
    let counter = Arc::clone(calls);
    handlers
        .job("over", move |_: Context, _: serde_json::Value| {
            counter.fetch_add(1, Ordering::SeqCst);
            async { Ok(()) }
        })
        .unwrap();
    handlers
}

async fn worker(database: &TestDatabase, calls: &Arc<AtomicUsize>, mended: &Arc<AtomicUsize>) -> Engine {
    let handlers = handlers(calls, mended);
    Engine::builder(store_of(database).await).handlers(handlers).options(quick()).start().await.unwrap()
}

fn member(batch: BatchId, n: usize) -> NewJob {
    NewJob { batch: Some(batch), ..NewJob::new("work", n.to_string()) }
}

fn over() -> BatchCallback {
    BatchCallback::new("over")
}

async fn batch_ends_and_calls_back_by_itself(database: TestDatabase) {
    let (calls, mended) = (Arc::default(), Arc::default());
    let engine = worker(&database, &calls, &mended).await;
    let outer = NewBatch { expected: Some(2), on_finish: Some(over()), ..NewBatch::new("outer") };
    let outer = engine.create_batch(outer).await.unwrap().0.definition.id;
    let inner = NewBatch {
        parent: Some(outer),
        expected: Some(200),
        on_first_failure: Some(over()),
        ..NewBatch::new("inner")
    };
    let inner = engine.create_batch(inner).await.unwrap().0.definition.id;
    engine.submit_many((0..200).map(|n| member(inner, n)).collect()).await.unwrap();
    let tracked = NewTrackedJob { batch: Some(outer), ..NewTrackedJob::new("x") };
    let tracked = engine.track(tracked).await.unwrap().job.definition.id;
    let ended = soon(engine.wait_for_batch(inner, LONG)).await.unwrap();
    assert_eq!(
        (ended.state, ended.counts.completed, ended.counts.failed),
        (BatchState::PartialFailure, 100, 100)
    );
    assert_eq!(engine.batch_members(inner, true, None, 1_000).await.unwrap().len(), 100);
    engine.report(tracked, Report::of(TrackedState::Completed)).await.unwrap();
    let ended = soon(engine.wait_for_batch(outer, LONG)).await.unwrap();
    assert_eq!((ended.state, ended.counts.total), (BatchState::PartialFailure, 2));
    until("both callbacks ran", async || (calls.load(Ordering::SeqCst) == 2).then_some(())).await;
    assert_eq!(engine.stats().batches_ended, 2);
    engine.shut_down().await;
}

/// Whoever settled the last member died before it looked.
async fn end_that_nobody_noticed_is_found(database: TestDatabase) {
    let store = store_of(&database).await;
    let batch = NewBatch { on_finish: Some(over()), ..NewBatch::new("x") };
    let batch = store.batches().batch_create(batch).await.unwrap().0.definition.id;
    let tracked = NewTrackedJob { batch: Some(batch), ..NewTrackedJob::new("x") };
    let tracked = store.tracked_jobs().tracked_create(vec![tracked]).await.unwrap()[0].job.definition.id;
    store.batches().batch_close(batch).await.unwrap();
    store.tracked_jobs().tracked_report(vec![(tracked, Report::of(TrackedState::Failed))]).await.unwrap();
    store.close().await;
    let (calls, mended) = (Arc::default(), Arc::default());
    let engine = worker(&database, &calls, &mended).await;
    let ended = soon(engine.wait_for_batch(batch, LONG)).await.unwrap();
    assert_eq!(ended.state, BatchState::Failed);
    until("its callback ran", async || (calls.load(Ordering::SeqCst) == 1).then_some(())).await;
    engine.shut_down().await;
}

async fn cancel_that_was_given_up_half_way_goes_on(database: TestDatabase) {
    let store = store_of(&database).await;
    let batch = store.batches().batch_create(NewBatch::new("x")).await.unwrap().0.definition.id;
    let jobs: Vec<NewJob> =
        (0..20).map(|_| NewJob { batch: Some(batch), ..NewJob::new("nobody", "null") }).collect();
    let last = jobs[19].id;
    store.jobs_submit(jobs).await.unwrap();
    assert_eq!(store.batches().batch_cancel(batch, "no", 5).await.unwrap(), 5);
    store.close().await;
    let (calls, mended) = (Arc::default(), Arc::default());
    let engine = worker(&database, &calls, &mended).await;
    let ended = soon(engine.wait_for_batch(batch, LONG)).await.unwrap();
    assert_eq!((ended.state, ended.counts.cancelled), (BatchState::Failed, 20));
    assert_eq!(engine.job(last).await.unwrap().state, JobState::Cancelled);
    assert_eq!(ended.cancelled.map(|(_, reason)| reason).as_deref(), Some("no"));
    engine.shut_down().await;
}

async fn retried_batch_ends_again(database: TestDatabase) {
    let (calls, mended) = (Arc::default(), Arc::default());
    let engine = worker(&database, &calls, &mended).await;
    let batch = NewBatch { expected: Some(10), on_success: Some(over()), ..NewBatch::new("x") };
    let batch = engine.create_batch(batch).await.unwrap().0.definition.id;
    engine.submit_many((0..10).map(|n| member(batch, n)).collect()).await.unwrap();
    assert_eq!(soon(engine.wait_for_batch(batch, LONG)).await.unwrap().counts.failed, 5);
    mended.store(1, Ordering::SeqCst);
    let done = engine.retry_batch(batch, Word::new("ops", "mended")).await.unwrap();
    assert_eq!((done.changed, done.skipped), (5, 0));
    let ended = soon(engine.wait_for_batch(batch, LONG)).await.unwrap();
    assert_eq!((ended.state, ended.counts.completed), (BatchState::Completed, 10));
    until("success was called back", async || (calls.load(Ordering::SeqCst) == 1).then_some(())).await;
    engine.shut_down().await;
}

/// Adding and ending at once, through two engines; the callback is made once.
async fn sixty_four_writers_are_counted_exactly(database: TestDatabase) {
    const WRITERS: usize = 64;
    const EACH: usize = 100;
    let (calls, mended) = (Arc::default(), Arc::new(AtomicUsize::new(1)));
    let engines = [worker(&database, &calls, &mended).await, worker(&database, &calls, &mended).await];
    let batch = NewBatch { on_finish: Some(over()), ..NewBatch::new("x") };
    let batch = engines[0].create_batch(batch).await.unwrap().0.definition.id;
    let mut writers = Vec::new();
    for n in 0..WRITERS {
        let engine = engines[n % 2].clone();
        writers.push(tokio::spawn(async move {
            for part in 0..EACH / 10 {
                let jobs = (0..5).map(|m| member(batch, n + part + m)).collect();
                engine.submit_many(jobs).await.unwrap();
                let new = || NewTrackedJob { batch: Some(batch), ..NewTrackedJob::new("x") };
                let made = engine.track_many((0..5).map(|_| new()).collect()).await.unwrap();
                let done = Report::of(TrackedState::Completed);
                let reports = made.iter().map(|made| (made.job.definition.id, done.clone())).collect();
                engine.report_many(reports).await.unwrap();
            }
        }));
    }
    for writer in writers {
        soon(writer).await.unwrap();
    }
    assert!(engines[0].close_batch(batch).await.unwrap());
    let ended = soon(engines[1].wait_for_batch(batch, LONG)).await.unwrap();
    let total = i64::try_from(WRITERS * EACH).unwrap();
    assert_eq!((ended.counts.total, ended.counts.completed), (total, total));
    until("its callback ran", async || (calls.load(Ordering::SeqCst) == 1).then_some(())).await;
    for engine in engines {
        engine.shut_down().await;
    }
    assert_eq!(calls.load(Ordering::SeqCst), 1);
}
