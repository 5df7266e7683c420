//! Many finished jobs: looking at them, removing half of them, and how long new ones wait to begin meanwhile.
//!
//! The rows are copies of one that was really run, with its history: half of them ended forty days ago, the others yesterday.

use std::time::Duration;

use recache_engine::figures::performance_of;
use recache_model::figures::PerformanceRequest;
use recache_model::ids::JobId;
use recache_model::job::JobState;
use recache_store::postgres::pressure::{copy_finished, settle_down};
use recache_store::{JobFilter, NewJob, Store};
use tokio::time::Instant;
use uuid::Uuid;

use super::fairness::{Began, SMALL, sample, start};
use super::{BenchResult, Place, PressureArgs, Report, queue, store_of_its_own, whole};
use crate::bench::report::{milliseconds, nearest_rank};

const CONNECTIONS: u32 = 10;
/// How often each look is taken.
const LOOKS: usize = 100;
const PAGE: u32 = 100;
/// Jobs that one call removes, as many as the engine's maintenance.
const REMOVED: u32 = 1_000;
const OLD: Duration = Duration::from_hours(40 * 24);
const RECENT: Duration = Duration::from_hours(24);
/// What ended longer ago than this is removed.
const KEEP: Duration = Duration::from_hours(30 * 24);
/// A page far back begins so much earlier.
const BACK: Duration = Duration::from_hours(12);

pub(super) async fn measure(args: &PressureArgs, place: &Place, report: &mut Report) -> BenchResult<()> {
    let store = store_of_its_own(place, CONNECTIONS).await?;
    let busy = queue("finished");
    let began = Began::default();
    let engine = start(&store, &[&busy], &began, false).await?;
    let job = engine.submit(NewJob { queue: busy.clone(), ..NewJob::new(SMALL, "0") }).await?;
    engine.wait_for_job(job).await?;
    let mut alone = sample(args, &engine, &busy, &began).await?;
    report.percentiles("submit to start, few finished jobs", &mut alone);

    let filling = Instant::now();
    fill(&place.url, job, args.finished).await?;
    report.row(
        format!("{} finished jobs written and analyzed", args.finished),
        filling.elapsed().as_secs_f64(),
        "s",
    );
    look(&*store, &busy, report).await?;
    let mut beside = sample(args, &engine, &busy, &began).await?;
    report.percentiles("submit to start, beside them", &mut beside);

    let removal = tokio::spawn({
        let store = std::sync::Arc::clone(&store);
        async move { remove(&*store).await }
    });
    let mut meanwhile = Vec::new();
    while !removal.is_finished() {
        meanwhile.extend(sample(args, &engine, &busy, &began).await?);
    }
    let (removed, took) = removal.await??;
    report.row("removed, with their history", removed, "jobs");
    report.row("removed in", took.as_secs_f64(), "s");
    report.percentiles("submit to start, while they are removed", &mut meanwhile);
    engine.shut_down().await;
    store.close().await;
    Ok(())
}

/// Half of them ended long ago, the others yesterday.
async fn fill(url: &str, job: JobId, count: u32) -> BenchResult<()> {
    copy_finished(url, job, OLD, count / 2).await?;
    copy_finished(url, job, RECENT, count - count / 2).await?;
    Ok(settle_down(url).await?)
}

/// What people and pages ask of a table of jobs.
async fn look(store: &dyn Store, queue: &str, report: &mut Report) -> BenchResult<()> {
    let page = JobFilter { rows_max: PAGE, ..JobFilter::default() };
    let of = |change: fn(&mut JobFilter)| {
        let mut filter = page.clone();
        change(&mut filter);
        filter
    };
    let first = store.jobs_list(page.clone()).await?;
    let deep = JobFilter { before: first.jobs.last().map(|job| older(job.id)), ..page.clone() };
    for (name, filter) in [
        ("the newest", page.clone()),
        ("a page far back", deep),
        ("completed", of(|filter| filter.state = Some(JobState::Completed))),
        ("of a queue", JobFilter { queue: Some(queue.to_owned()), ..page.clone() }),
        ("failed, of which there are none", of(|filter| filter.state = Some(JobState::Failed))),
        ("running, of which there are none", of(|filter| filter.state = Some(JobState::Running))),
        ("of a handler that has none", of(|filter| filter.handler = Some("bench-nobody".to_owned()))),
        ("of a queue that has none", of(|filter| filter.queue = Some("bench-nowhere".to_owned()))),
    ] {
        let mut sample = Vec::with_capacity(LOOKS);
        for _ in 0..LOOKS {
            let asked = Instant::now();
            store.jobs_list(filter.clone()).await?;
            sample.push(asked.elapsed());
        }
        p95(report, &format!("list {PAGE}: {name}"), sample);
    }
    let (mut queues, mut totals) = (Vec::new(), Vec::new());
    for _ in 0..LOOKS {
        let asked = Instant::now();
        store.queues().queues_list().await?;
        queues.push(asked.elapsed());
        let asked = Instant::now();
        performance_of(store, &PerformanceRequest::default(), false).await?;
        totals.push(asked.elapsed());
    }
    p95(report, "count what waits and runs, by queue", queues);
    p95(report, "count what ended in a day, by state", totals);
    Ok(())
}

/// An id of [`BACK`] before: with the time in milliseconds an id begins.
fn older(job: JobId) -> JobId {
    let back = BACK.as_millis() << 80;
    JobId::from_uuid(Uuid::from_u128(job.uuid().as_u128().saturating_sub(back)))
}

fn p95(report: &mut Report, name: &str, mut sample: Vec<Duration>) {
    sample.sort_unstable();
    report.row(format!("{name} p95"), milliseconds(nearest_rank(&sample, 0.95)), "ms");
}

/// Removes what is over, call by call, as maintenance does. Answers how many, and how long it took.
async fn remove(store: &dyn Store) -> BenchResult<(f64, Duration)> {
    let maintenance = store.maintenance();
    let lead = maintenance
        .leader_take("bench", Uuid::new_v4(), Duration::from_hours(1))
        .await?
        .ok_or("another bench removes finished jobs just now")?;
    let (began, mut removed) = (Instant::now(), 0);
    loop {
        let gone = maintenance.jobs_remove(&lead, JobState::Completed, KEEP, REMOVED).await?;
        removed += gone;
        if gone == 0 {
            break;
        }
    }
    let took = began.elapsed();
    maintenance.leader_release(&lead).await?;
    Ok((whole(removed), took))
}
