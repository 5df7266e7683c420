//! One batch of many tracked jobs, which many writers report the ends of.

use std::sync::Arc;
use std::time::Duration;

use recache_engine::Engine;
use recache_model::ids::JobId;
use recache_model::tracked::{Report as TrackedReport, TrackedState};
use recache_store::{NewBatch, NewTrackedJob};
use tokio::task::JoinSet;
use tokio::time::Instant;

use super::report::Report;
use super::{BenchResult, Place};

/// How many.
#[derive(Debug, clap::Args)]
pub(super) struct BatchArgs {
    /// Members of the batch
    #[arg(long, default_value_t = 100_000, value_parser = clap::value_parser!(u32).range(1..=10_000_000))]
    members: u32,
    /// Callers that report at once
    #[arg(long, default_value_t = 8, value_parser = clap::value_parser!(u32).range(1..=256))]
    writers: u32,
    /// Jobs of one call
    #[arg(long, default_value_t = 1_000, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    bulk: u32,
}

/// A batch is looked at within milliseconds of its end.
const PATIENCE: Duration = Duration::from_mins(5);

pub(super) async fn run(args: &BatchArgs, place: &Place) -> BenchResult<Report> {
    let store = place.open().await?;
    let mut report = Report::new(format!(
        "one batch of {} tracked jobs on {}, {} writers, {} jobs a call, every commit durable",
        args.members,
        store.kind(),
        args.writers,
        args.bulk
    ));
    report.bare_transaction(&*store).await?;
    let engine = Engine::builder(Arc::clone(&store)).start().await?;
    let batch = engine.create_batch(NewBatch::new("bench")).await?.0.definition.id;
    let parts = parts(args);
    let began = Instant::now();
    let mut creating = JoinSet::new();
    for parts in parts.clone() {
        let engine = engine.clone();
        creating.spawn(async move {
            for part in parts {
                let job =
                    |id: &JobId| NewTrackedJob { id: *id, batch: Some(batch), ..NewTrackedJob::new("bench") };
                engine.track_many(part.iter().map(job).collect()).await?;
            }
            Ok::<_, recache_engine::Error>(())
        });
    }
    while let Some(created) = creating.join_next().await {
        created??;
    }
    report.row("members added", f64::from(args.members) / began.elapsed().as_secs_f64(), "jobs/s");
    engine.close_batch(batch).await?;
    let began = Instant::now();
    let mut reporting = JoinSet::new();
    for parts in parts {
        let engine = engine.clone();
        reporting.spawn(async move {
            let mut sample = Vec::with_capacity(parts.len());
            for part in parts {
                let end = |id: &JobId| (*id, TrackedReport::of(TrackedState::Completed));
                let began = Instant::now();
                engine.report_many(part.iter().map(end).collect()).await?;
                sample.push(began.elapsed());
            }
            Ok::<_, recache_engine::Error>(sample)
        });
    }
    let mut sample = Vec::new();
    while let Some(reported) = reporting.join_next().await {
        sample.extend(reported??);
    }
    report.row("completions", f64::from(args.members) / began.elapsed().as_secs_f64(), "jobs/s");
    report.percentiles("call that reports", &mut sample);
    let began = Instant::now();
    let ended = engine.wait_for_batch(batch, PATIENCE).await?;
    report.row("last report to the end of the batch", began.elapsed().as_secs_f64() * 1000.0, "ms");
    if ended.counts.completed != i64::from(args.members) || ended.counts.pending() != 0 {
        return Err(format!("the batch counts {:?}", ended.counts).into());
    }
    engine.shut_down().await;
    store.close().await;
    Ok(report)
}

/// Of each writer the calls that it makes.
fn parts(args: &BatchArgs) -> Vec<Vec<Vec<JobId>>> {
    let ids: Vec<JobId> = (0..args.members).map(|_| JobId::make()).collect();
    let bulk = usize::try_from(args.bulk).unwrap_or(1).max(1);
    let mut parts = vec![Vec::new(); usize::try_from(args.writers).unwrap_or(1).max(1)];
    let writers = parts.len();
    for (number, part) in ids.chunks(bulk).enumerate() {
        if let Some(of_writer) = parts.get_mut(number % writers) {
            of_writer.push(part.to_vec());
        }
    }
    parts
}
