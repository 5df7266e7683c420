//! How long a tenant's jobs wait to begin while another tenant has many: each has a queue of its own, and the same workers serve both.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use recache_engine::{Engine, Options};
use recache_model::retention::Retention;
use recache_store::{NewJob, Store};
use recache_worker::{Context, Handlers};
use tokio::time::Instant;

use super::{BenchResult, Place, PressureArgs, Report, queue, run_off, store_of_its_own};
use crate::bench::report::{milliseconds, nearest_rank};

const LARGE: &str = "bench-large";
pub(super) const SMALL: &str = "bench-small";
const CONNECTIONS: u32 = 10;
const BULK: usize = 1_000;
/// Jobs that begin later than this after the last one have their wait taken as they stand.
const PATIENCE: Duration = Duration::from_secs(30);
/// Nothing is removed but what a bench removes.
const KEPT: Retention = Retention { done: TEN_YEARS, failed: TEN_YEARS };
const TEN_YEARS: Duration = Duration::from_hours(10 * 365 * 24);

/// When jobs of the one who is measured began, by their numbers.
pub(super) type Began = Arc<Mutex<HashMap<u64, Instant>>>;

pub(super) async fn measure(args: &PressureArgs, place: &Place, report: &mut Report) -> BenchResult<()> {
    for (adaptive_limit, name) in [(false, "fixed limit"), (true, "adaptive limit")] {
        let (large, small) = (queue("large"), queue("small"));
        let store = store_of_its_own(place, CONNECTIONS).await?;
        let began: Began = Arc::default();
        let engine = start(&store, &[&large, &small], &began, adaptive_limit).await?;
        let mut idle = sample(args, &engine, &small, &began).await?;
        let mut left = usize::try_from(args.backlog)?;
        while left > 0 {
            let part = left.min(BULK);
            let job = || NewJob { queue: large.clone(), ..NewJob::new(LARGE, "null") };
            store.jobs_submit((0..part).map(|_| job()).collect()).await?;
            left -= part;
        }
        let mut beside = sample(args, &engine, &small, &began).await?;
        let waiting =
            u32::try_from(store.queues().queue_get(&large).await?.queued).map_or(f64::INFINITY, f64::from);
        run_off(&*store, &large).await?;
        run_off(&*store, &small).await?;
        engine.shut_down().await;
        store.close().await;
        report.percentiles(&format!("{name}: submit to start, nothing else to do"), &mut idle);
        report
            .percentiles(&format!("{name}: submit to start, {} of another wait", args.backlog), &mut beside);
        let of = |sample: &[Duration]| milliseconds(nearest_rank(sample, 0.99));
        report.row(format!("{name}: p99 against idle"), of(&beside) / of(&idle).max(0.001), "x");
        // With nothing left it was not measured for all of the time: then it takes a larger backlog.
        report.row(format!("{name}: of another waiting at the end, of 100,000 at most"), waiting, "jobs");
    }
    Ok(())
}

/// Workers for both queues, in the order in which they are given.
pub(super) async fn start(
    store: &Arc<dyn Store>,
    queues: &[&str],
    began: &Began,
    adaptive_limit: bool,
) -> BenchResult<Engine> {
    let mut handlers = Handlers::new();
    handlers.job(LARGE, async |_: Context, (): ()| Ok(()))?;
    let began = Arc::clone(began);
    handlers.job(SMALL, move |_: Context, number: u64| {
        began.lock().unwrap_or_else(PoisonError::into_inner).insert(number, Instant::now());
        async { Ok(()) }
    })?;
    let queues = queues.iter().copied().map(str::to_owned).collect();
    let options = Options { queues, adaptive_limit, retention: KEPT, ..Options::default() };
    Ok(Engine::builder(Arc::clone(store)).handlers(handlers).options(options).start().await?)
}

/// Jobs that come at an even pace, whatever becomes of those before, and how long each waited to begin.
pub(super) async fn sample(
    args: &PressureArgs,
    engine: &Engine,
    queue: &str,
    began: &Began,
) -> BenchResult<Vec<Duration>> {
    let count = args.seconds * u64::from(args.rate);
    let mut pace = tokio::time::interval(Duration::from_secs(1) / args.rate);
    let mut asked = Vec::new();
    for number in 0..count {
        pace.tick().await;
        let job = NewJob { queue: queue.to_owned(), ..NewJob::new(SMALL, number.to_string()) };
        asked.push(Instant::now());
        engine.submit(job).await?;
    }
    let until = Instant::now() + PATIENCE;
    loop {
        let all = began.lock().unwrap_or_else(PoisonError::into_inner).len() == asked.len();
        if all || Instant::now() >= until {
            break;
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    let began = std::mem::take(&mut *began.lock().unwrap_or_else(PoisonError::into_inner));
    let now = Instant::now();
    let waited = asked
        .iter()
        .zip(0..)
        .map(|(asked, number)| began.get(&number).unwrap_or(&now).saturating_duration_since(*asked));
    Ok(waited.collect())
}
