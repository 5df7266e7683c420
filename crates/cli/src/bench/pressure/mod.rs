//! What others do to those who wait: workers that are woken, tenants with much to do, a transaction that is held open, much that has
//! ended. On PostgreSQL, since it is about many processes on one database. Each part is measured with the pressure and without it, in one run.

mod fairness;
mod finished;
mod held;
mod submit;

use std::sync::Arc;
use std::time::Duration;

use recache_store::{OpenOptions, Store, open};

use super::report::Report;
use super::{BenchResult, Place};

/// Which parts, and how hard.
#[derive(Debug, clap::Args)]
pub(super) struct PressureArgs {
    /// What to measure: submit, fairness, held, finished
    #[arg(long, value_enum, value_delimiter = ',', default_values_t = [Part::Submit, Part::Fairness])]
    parts: Vec<Part>,
    /// How long each measurement takes, in seconds
    #[arg(long, default_value_t = 10, value_parser = clap::value_parser!(u64).range(1..=3_600))]
    seconds: u64,
    /// submit: how often each is measured; the middle one counts
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..=100))]
    rounds: u32,
    /// submit: callers that submit one job after the other
    #[arg(long, default_value_t = 32, value_parser = clap::value_parser!(u32).range(1..=256))]
    writers: u32,
    /// submit: worker processes that each submit wakes
    #[arg(long, default_value_t = 8, value_parser = clap::value_parser!(u32).range(1..=64))]
    fleet: u32,
    /// fairness: jobs of the other tenant that wait
    #[arg(long, default_value_t = 100_000, value_parser = clap::value_parser!(u32).range(1..=10_000_000))]
    backlog: u32,
    /// fairness, finished: jobs a second of the tenant who is measured
    #[arg(long, default_value_t = 20, value_parser = clap::value_parser!(u32).range(1..=1_000))]
    rate: u32,
    /// held: jobs that are submitted each second
    #[arg(long, default_value_t = 5_000, value_parser = clap::value_parser!(u32).range(20..=100_000))]
    held_rate: u32,
    /// held: how long the transaction is held, in seconds
    #[arg(long, default_value_t = 600, value_parser = clap::value_parser!(u64).range(5..=86_400))]
    held_seconds: u64,
    /// finished: finished jobs, of which half are then removed
    #[arg(long, default_value_t = 1_000_000, value_parser = clap::value_parser!(u32).range(2..=100_000_000))]
    finished: u32,
}

/// A kind of pressure.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Part {
    /// Workers that each submit wakes
    Submit,
    /// Another tenant's backlog
    Fairness,
    /// A transaction held open beside a steady load
    Held,
    /// Many finished jobs: lists, counts, removal
    Finished,
}

impl PressureArgs {
    fn seconds(&self) -> Duration {
        Duration::from_secs(self.seconds)
    }
}

pub(super) async fn run(args: &PressureArgs, place: &Place) -> BenchResult<Report> {
    let store = place.open().await?;
    if store.kind() != "postgresql" {
        place.close(&*store).await;
        return Err("pressure is measured on PostgreSQL: name one with --database postgres://…".into());
    }
    let mut report = Report::new(format!("under pressure on {}, every commit durable", store.kind()));
    report.bare_transaction(&*store).await?;
    for part in &args.parts {
        match part {
            Part::Submit => submit::measure(args, place, &mut report).await?,
            Part::Fairness => fairness::measure(args, place, &mut report).await?,
            Part::Held => held::measure(args, place, &mut report).await?,
            Part::Finished => finished::measure(args, place, &mut report).await?,
        }
    }
    store.close().await;
    Ok(report)
}

/// As another process would have it.
async fn store_of_its_own(place: &Place, connections_max: u32) -> BenchResult<Arc<dyn Store>> {
    let options = OpenOptions { connections_max, migrate: false, ..OpenOptions::new(place.url.clone()) };
    Ok(open(&options).await?)
}

/// A queue that nobody else uses.
fn queue(name: &str) -> String {
    format!("bench-{name}-{}", std::process::id())
}

/// Until workers have done all that waits there: what is left would be in somebody's way, and doing it is faster than calling it off.
async fn run_off(store: &dyn Store, queue: &str) -> BenchResult<()> {
    loop {
        let record = store.queues().queue_get(queue).await?;
        if record.queued == 0 && record.running == 0 {
            return Ok(());
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

/// A count as a figure; exact below 2^32.
fn whole(count: u64) -> f64 {
    u32::try_from(count).map_or(f64::INFINITY, f64::from)
}
