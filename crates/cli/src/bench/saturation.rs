//! Jobs that stand in each other's way: with fixed limits, and with the one that the engine finds.

use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use recache_engine::{Engine, Options};
use recache_store::NewJob;
use recache_worker::{Context, Handlers};
use tokio::time::Instant;

use super::report::{Report, Table, milliseconds, nearest_rank};
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
    /// When each job ended, and how long it took.
    took: Mutex<Vec<(Instant, Duration)>>,
}

/// What one limit came to.
#[derive(Debug)]
struct Outcome {
    name: String,
    /// Jobs a second that were in time.
    in_time: f64,
    p99: Duration,
    /// The longest time in which nothing ended: a limit that starves shows here.
    pause: Duration,
}

/// The limits beside each other; the ratios are of the last one, which the engine found, to each.
fn table(outcomes: &[Outcome]) -> Table {
    let ratio = |of: f64, to: f64| (to > 0.0).then(|| of / to);
    let found = outcomes.last();
    let rows = outcomes.iter().map(|one| {
        let values = vec![
            Some(one.in_time),
            Some(milliseconds(one.p99)),
            found.and_then(|found| ratio(found.in_time, one.in_time)),
            found.and_then(|found| ratio(found.p99.as_secs_f64(), one.p99.as_secs_f64())),
            Some(milliseconds(one.pause)),
        ];
        (one.name.clone(), values)
    });
    Table {
        of: "limit",
        columns: vec!["in time, jobs/s", "p99, ms", "adaptive/in time", "adaptive/p99", "longest pause, ms"],
        rows: rows.collect(),
    }
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
        self.took.lock().unwrap_or_else(PoisonError::into_inner).push((Instant::now(), began.elapsed()));
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
    let mut outcomes = Vec::new();
    for slots in &args.fixed {
        outcomes.push(measure(args, place, &format!("fixed at {slots}"), *slots, false, &mut report).await?);
    }
    outcomes.push(measure(args, place, "adaptive", args.slots, true, &mut report).await?);
    report.table(table(&outcomes));
    Ok(report)
}

async fn measure(
    args: &SaturationArgs,
    place: &Place,
    name: &str,
    slots: usize,
    adaptive_limit: bool,
    report: &mut Report,
) -> BenchResult<Outcome> {
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
    let mut last_end = Instant::now();
    tokio::time::sleep(measured).await;
    let ends = std::mem::take(&mut *resource.took.lock().unwrap_or_else(PoisonError::into_inner));
    let limit = engine.claim_limit();
    let mut pause = Duration::ZERO;
    for (ended_at, _) in &ends {
        pause = pause.max(ended_at.saturating_duration_since(last_end));
        last_end = *ended_at;
    }
    pause = pause.max(last_end.elapsed());
    let mut took: Vec<Duration> = ends.into_iter().map(|(_, took)| took).collect();
    took.sort_unstable();
    let deadline = resource.alone * args.deadline;
    let in_time = took.iter().filter(|took| **took <= deadline).count();
    let float = |count: usize| f64::from(u32::try_from(count).unwrap_or(u32::MAX));
    let outcome = Outcome {
        name: name.to_owned(),
        in_time: float(in_time) / measured.as_secs_f64(),
        p99: nearest_rank(&took, 0.99),
        pause,
    };
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
    Ok(outcome)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ratios_are_of_what_the_engine_found_to_each_fixed_limit() {
        let outcome = |name: &str, in_time, p99_ms| Outcome {
            name: name.to_owned(),
            in_time,
            p99: Duration::from_millis(p99_ms),
            pause: Duration::from_millis(7),
        };
        let table = table(&[
            outcome("fixed at 2", 100.0, 20),
            outcome("fixed at 64", 0.0, 900),
            outcome("adaptive", 300.0, 30),
        ]);
        let rows: Vec<&[Option<f64>]> = table.rows.iter().map(|(_, values)| values.as_slice()).collect();
        assert_eq!(rows[0], [Some(100.0), Some(20.0), Some(3.0), Some(1.5), Some(7.0)]);
        assert_eq!(rows[1][2], None, "nothing was in time");
        assert!(rows[1][3].is_some_and(|ratio| (ratio - 30.0 / 900.0).abs() < 1e-9));
        assert_eq!(rows[2][2..4], [Some(1.0), Some(1.0)]);
    }
}
