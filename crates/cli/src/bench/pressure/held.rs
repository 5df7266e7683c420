//! A transaction that somebody holds open: the database may clear away nothing that ended since it began.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use recache_engine::{Engine, Options};
use recache_store::postgres::pressure::HeldTransaction;
use recache_store::{NewJob, Store};
use recache_worker::{Context, Handlers};
use tokio::time::Instant;

use super::{BenchResult, Place, PressureArgs, Report, queue, run_off, store_of_its_own, whole};

const HANDLER: &str = "bench-held";
const CONNECTIONS: u32 = 10;
/// Bulk submits a second.
const BULKS: u32 = 20;
/// What counts is the last part of the time: by then what cannot be cleared away has gathered.
const PARTS: u32 = 5;

pub(super) async fn measure(args: &PressureArgs, place: &Place, report: &mut Report) -> BenchResult<()> {
    let free = done_per_second(args, place).await?;
    let held = HeldTransaction::begin(&place.url).await?;
    let beside = done_per_second(args, place).await;
    held.end().await?;
    let beside = beside?;
    report.row(format!("jobs done, {} submitted a second", args.held_rate), free, "jobs/s");
    report.row(format!("the same, a transaction held for {} s", args.held_seconds), beside, "jobs/s");
    report.row("loss by the transaction that is held", (1.0 - beside / free.max(0.001)) * 100.0, "%");
    Ok(())
}

/// Of jobs that come at an even pace, how many were done in the last part of the time.
async fn done_per_second(args: &PressureArgs, place: &Place) -> BenchResult<f64> {
    let queue = queue("held");
    let store = store_of_its_own(place, CONNECTIONS).await?;
    let done = Arc::new(AtomicU64::new(0));
    let counter = Arc::clone(&done);
    let mut handlers = Handlers::new();
    handlers.job(HANDLER, move |_: Context, (): ()| {
        counter.fetch_add(1, Ordering::Relaxed);
        async { Ok(()) }
    })?;
    let options = Options { queues: vec![queue.clone()], ..Options::default() };
    let engine = Engine::builder(Arc::clone(&store)).handlers(handlers).options(options).start().await?;
    let submitting =
        tokio::spawn(submit(Arc::clone(&store), queue.clone(), args.held_rate, args.held_seconds));
    let (whole_time, began) = (Duration::from_secs(args.held_seconds), Instant::now());
    tokio::time::sleep_until(began + whole_time / PARTS * (PARTS - 1)).await;
    let (before, from) = (done.load(Ordering::Relaxed), Instant::now());
    tokio::time::sleep_until(began + whole_time).await;
    let counted = whole(done.load(Ordering::Relaxed) - before) / from.elapsed().as_secs_f64();
    submitting.await??;
    run_off(&*store, &queue).await?;
    engine.shut_down().await;
    store.close().await;
    Ok(counted)
}

/// In bulk; what cannot be taken in time comes late, and is not left out.
async fn submit(store: Arc<dyn Store>, queue: String, rate: u32, seconds: u64) -> recache_store::Result<()> {
    let mut pace = tokio::time::interval(Duration::from_secs(1) / BULKS);
    let until = Instant::now() + Duration::from_secs(seconds);
    for place in (0..BULKS).cycle() {
        if Instant::now() >= until {
            break;
        }
        pace.tick().await;
        let job = || NewJob { queue: queue.clone(), ..NewJob::new(HANDLER, "null") };
        // What a second's rate leaves over goes with its first ones.
        let jobs = rate / BULKS + u32::from(place < rate % BULKS);
        store.jobs_submit((0..jobs).map(|_| job()).collect()).await?;
    }
    Ok(())
}
