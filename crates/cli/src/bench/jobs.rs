//! No-op jobs.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use recache_engine::{Engine, Options};
use recache_model::unique::UniqueRule;
use recache_store::{NewBatch, NewJob, Store};
use recache_worker::{Context, Handlers};
use tokio::sync::Notify;
use tokio::time::Instant;

use super::report::{Report, milliseconds, nearest_rank};
use super::{BenchResult, Place};

/// How many.
#[derive(Debug, clap::Args)]
pub(super) struct JobsArgs {
    /// Jobs to submit and drain
    #[arg(long, default_value_t = 20_000, value_parser = clap::value_parser!(u32).range(1..=10_000_000))]
    jobs: u32,
    /// Jobs of one bulk submit
    #[arg(long, default_value_t = 1_000, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    bulk: u32,
    /// Jobs sent one at a time, each waited for
    #[arg(long, default_value_t = 500, value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    singles: u32,
    /// Give each of them a unique key of its own
    #[arg(long)]
    unique: bool,
    /// Make the drained jobs members of one batch
    #[arg(long)]
    batch: bool,
    /// Workers, handlers that may run at once: 1,10,100 measures each; default: the engine's
    #[arg(long, alias = "slots", value_delimiter = ',')]
    workers: Vec<usize>,
}

pub(super) async fn run(args: &JobsArgs, place: &Place) -> BenchResult<Report> {
    let store = place.open().await?;
    let workers = if args.workers.is_empty() { vec![Options::default().slots] } else { args.workers.clone() };
    let counts: Vec<String> = workers.iter().map(usize::to_string).collect();
    let mut report = Report::new(format!(
        "no-op jobs on {}: {} {}drained by {} workers, history and fencing on, every commit durable",
        store.kind(),
        args.jobs,
        if args.batch { "of one batch " } else { "" },
        counts.join(", then ")
    ));
    let bare = report.bare_transaction(&*store).await?;
    for slots in &workers {
        let of = if workers.len() > 1 { format!("{slots} workers: ") } else { String::new() };
        measure(args, &store, *slots, &of, bare, &mut report).await?;
    }
    store.close().await;
    Ok(report)
}

async fn measure(
    args: &JobsArgs,
    store: &Arc<dyn Store>,
    slots: usize,
    of: &str,
    bare: Duration,
    report: &mut Report,
) -> BenchResult<()> {
    let options = Options { slots, ..Options::default() };
    let batch = if args.batch {
        Some(store.batches().batch_create(NewBatch::new("bench")).await?.0.definition.id)
    } else {
        None
    };
    let total = usize::try_from(args.jobs)?;
    let bulk = usize::try_from(args.bulk)?;
    let began = Instant::now();
    let mut left = total;
    while left > 0 {
        let part = left.min(bulk);
        store
            .jobs_submit(
                (0..part)
                    .map(|place| {
                        let key = || format!("bench-{}-{}", std::process::id(), left - place);
                        let unique = args.unique.then(|| UniqueRule::by_key(key()));
                        NewJob { batch, unique, ..NewJob::new("noop", "null") }
                    })
                    .collect(),
            )
            .await?;
        left -= part;
    }
    let submitted = began.elapsed();
    let with = if args.unique { ", with unique keys" } else { "" };
    report.row(format!("{of}submit, in bulk{with}"), per_second(args.jobs, submitted), "jobs/s");

    let done = Arc::new(AtomicUsize::new(0));
    let all_done = Arc::new(Notify::new());
    let mut handlers = Handlers::new();
    let (counter, notify) = (Arc::clone(&done), Arc::clone(&all_done));
    let last_start = Arc::new(Mutex::new(None));
    let starts = Arc::clone(&last_start);
    handlers.job("noop", move |_: Context, (): ()| {
        if counter.load(Ordering::Relaxed) >= total
            && let Ok(mut start) = starts.lock()
        {
            *start = Some(Instant::now());
        }
        let ran = counter.fetch_add(1, Ordering::Relaxed) + 1;
        if ran == total {
            notify.notify_one();
        }
        async { Ok(()) }
    })?;
    let began = Instant::now();
    let engine = Engine::builder(Arc::clone(store)).handlers(handlers).options(options).start().await?;
    all_done.notified().await;
    // The last handlers have run; what counts is that their ends are committed.
    while engine.held_count() > 0 {
        tokio::time::sleep(Duration::from_micros(200)).await;
    }
    let drained = began.elapsed();
    report.row(format!("{of}drain"), per_second(args.jobs, drained), "jobs/s");

    if let Some(batch) = batch {
        engine.close_batch(batch).await?;
        let ended = engine.wait_for_batch(batch, Duration::from_mins(1)).await?;
        report.row(format!("{of}members counted as completed"), whole(ended.counts.completed), "jobs");
    }

    let (mut to_handler, mut sample) = (Vec::new(), Vec::new());
    for _ in 0..args.singles {
        let began = Instant::now();
        let job = engine.submit(NewJob::new("noop", "null")).await?;
        engine.wait_for_job(job).await?;
        sample.push(began.elapsed());
        let start = last_start.lock().ok().and_then(|mut start| start.take());
        to_handler.extend(start.map(|start: Instant| start.saturating_duration_since(began)));
    }
    report.percentiles(&format!("{of}one job, submit to handler"), &mut to_handler);
    report.percentiles(&format!("{of}one job, submit to done"), &mut sample);
    let median = nearest_rank(&sample, 0.5);
    report.row(
        format!("{of}one job, p50 in bare transactions"),
        milliseconds(median) / milliseconds(bare).max(0.001),
        "x",
    );
    engine.shut_down().await;
    Ok(())
}

/// A count as a figure; exact below 2^32.
fn whole(count: i64) -> f64 {
    u32::try_from(count).map_or(f64::INFINITY, f64::from)
}

fn per_second(count: u32, took: Duration) -> f64 {
    f64::from(count) / took.as_secs_f64()
}
