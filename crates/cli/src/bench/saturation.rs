//! Jobs that stand in each other's way: with fixed limits, and with the one that the engine finds.

use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use recache_engine::{Engine, Options};
use recache_store::NewJob;
use recache_worker::{Context, Handlers};
use tokio::time::Instant;

use super::report::{Report, milliseconds, nearest_rank};
use super::{BenchResult, Place};

/// The resource, and for how long.
#[derive(Debug, clap::Args)]
pub(super) struct SaturationArgs {
    /// Jobs that the resource serves without one noticing the other
    #[arg(long, default_value_t = 8, value_parser = clap::value_parser!(u32).range(1..=1_000))]
    capacity: u32,
    /// How long a job takes alone, in milliseconds
    #[arg(long, default_value_t = 20, value_parser = clap::value_parser!(u64).range(1..=10_000))]
    alone_ms: u64,
    /// A job is in time when it takes no longer than so many times that
    #[arg(long, default_value_t = 4, value_parser = clap::value_parser!(u32).range(1..=1_000))]
    deadline: u32,
    /// How long each limit is measured, in seconds
    #[arg(long, default_value_t = 20, value_parser = clap::value_parser!(u64).range(5..=600))]
    seconds: u64,
    /// Fixed limits to measure beside it
    #[arg(long, value_delimiter = ',', default_values_t = [2_usize, 8, 16, 64])]
    fixed: Vec<usize>,
    /// The highest limit that may be found
    #[arg(long, default_value_t = 64)]
    slots: usize,
}

/// A resource of which everybody gets less the more use it, and which loses a part of itself for each one too many.
#[derive(Debug)]
struct Resource {
    capacity: f64,
    alone: Duration,
    running: AtomicU32,
    took: Mutex<Vec<Duration>>,
}

/// What is lost for each job beyond the capacity.
const LOST: f64 = 0.02;

impl Resource {
    /// Uses it as long as it takes among those that use it meanwhile: in small parts, each as slow as it then is.
    async fn serve(&self) {
        const PARTS: u32 = 10;
        self.running.fetch_add(1, Ordering::SeqCst);
        let began = Instant::now();
        for _ in 0..PARTS {
            let running = f64::from(self.running.load(Ordering::SeqCst));
            let shared = (running / self.capacity).max(1.0);
            let lost = 1.0 + LOST * (running - self.capacity).max(0.0);
            tokio::time::sleep((self.alone / PARTS).mul_f64(shared * lost)).await;
        }
        self.running.fetch_sub(1, Ordering::SeqCst);
        self.took.lock().unwrap_or_else(PoisonError::into_inner).push(began.elapsed());
    }
}

pub(super) async fn run(args: &SaturationArgs, place: &Place) -> BenchResult<Report> {
    let store = place.open().await?;
    let kind = store.kind();
    place.close(&*store).await;
    let mut report = Report::new(format!(
        "a resource for {} jobs of {} ms at once, more to do than it can, {} s each on {kind}: jobs that took at most {} ms, and how long \
         they took",
        args.capacity,
        args.alone_ms,
        args.seconds,
        args.alone_ms * u64::from(args.deadline)
    ));
    for slots in &args.fixed {
        measure(args, place, &format!("fixed at {slots}"), *slots, false, &mut report).await?;
    }
    measure(args, place, "adaptive", args.slots, true, &mut report).await?;
    Ok(report)
}

async fn measure(
    args: &SaturationArgs,
    place: &Place,
    name: &str,
    slots: usize,
    adaptive_limit: bool,
    report: &mut Report,
) -> BenchResult<()> {
    let store = place.open().await?;
    let resource = Arc::new(Resource {
        capacity: f64::from(args.capacity),
        alone: Duration::from_millis(args.alone_ms),
        running: AtomicU32::new(0),
        took: Mutex::default(),
    });
    let handler = format!("saturating {name}");
    let mut handlers = Handlers::new();
    let served = Arc::clone(&resource);
    handlers.job(&handler, move |_: Context, (): ()| {
        let resource = Arc::clone(&served);
        async move {
            resource.serve().await;
            Ok(())
        }
    })?;
    let options = Options { slots, adaptive_limit, ..Options::default() };
    let engine = Engine::builder(Arc::clone(&store)).handlers(handlers).options(options).start().await?;
    // More than can be done in the time.
    let most = args.seconds * 1_000 / args.alone_ms.max(1) * u64::from(args.capacity) * 2;
    let mut left = usize::try_from(most)?;
    while left > 0 {
        let part = left.min(1_000);
        engine.submit_many((0..part).map(|_| NewJob::new(handler.clone(), "null")).collect()).await?;
        left -= part;
    }
    // The first quarter is for finding the limit, and counts for nobody.
    let (warm, measured) = (Duration::from_secs(args.seconds) / 4, Duration::from_secs(args.seconds) * 3 / 4);
    tokio::time::sleep(warm).await;
    resource.took.lock().unwrap_or_else(PoisonError::into_inner).clear();
    tokio::time::sleep(measured).await;
    let mut took = std::mem::take(&mut *resource.took.lock().unwrap_or_else(PoisonError::into_inner));
    let limit = engine.claim_limit();
    took.sort_unstable();
    let deadline = resource.alone * args.deadline;
    let in_time = took.iter().filter(|took| **took <= deadline).count();
    let float = |count: usize| f64::from(u32::try_from(count).unwrap_or(u32::MAX));
    report.row(format!("{name}: in time"), float(in_time) / measured.as_secs_f64(), "jobs/s");
    report.row(format!("{name}: p99"), milliseconds(nearest_rank(&took, 0.99)), "ms");
    if adaptive_limit {
        report.row(format!("{name}: limit at the end"), f64::from(limit.limit), "jobs");
    }
    engine.shut_down().await;
    // What is left is called off, so that it is in nobody's way.
    let mut left = recache_store::JobFilter {
        handler: Some(handler),
        state: Some(recache_model::job::JobState::Queued),
        rows_max: 1_000,
        ..recache_store::JobFilter::default()
    };
    loop {
        let page = store.jobs_list(left.clone()).await?;
        for job in page.jobs {
            store.job_cancel(job.id, "the bench is over").await?;
        }
        left.before = page.next;
        if left.before.is_none() {
            break;
        }
    }
    place.close(&*store).await;
    Ok(())
}
