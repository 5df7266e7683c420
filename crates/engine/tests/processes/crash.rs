//! `kill -9` at random moments: nothing that was acknowledged is lost, nothing happens twice, everything ends.

use std::time::Duration;

use rand::rngs::SmallRng;
use rand::{Rng as _, SeedableRng as _};
use recache_store::conformance::{TestDatabase, empty_postgres_database, sqlite_database};

use crate::check::{Acknowledged, check_all};
use crate::parent::{Child, Log};
use crate::support::store_of;

/// Chooses the moments; printed, so that a run can be had again.
const SEED: &str = "RECACHE_CRASH_SEED";
/// How many kills. Default 50.
const KILLS: &str = "RECACHE_CRASH_KILLS";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn crash_sqlite() {
    killed_at_random(sqlite_database()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn crash_postgres() {
    if let Some(database) = empty_postgres_database().await {
        killed_at_random(database).await;
    }
}

fn number(variable: &str, default: u64) -> u64 {
    std::env::var(variable).map_or(default, |text| text.parse().expect("a number"))
}

async fn killed_at_random(database: TestDatabase) {
    let (seed, kills) = (number(SEED, rand::random()), number(KILLS, 50));
    eprintln!("{SEED}={seed} {KILLS}={kills}");
    let mut random = SmallRng::seed_from_u64(seed);
    let log = Log::default();
    for kill in 0..kills {
        let mut child = Child::start("load", database.url(), random.random(), &log);
        let delay_ms = match kill % 10 {
            // While it starts: first of all, while it makes the schema.
            0 | 5 => random.random_range(0..80),
            // Long enough to take over what its predecessors left.
            9 => {
                child.hear("ready").await.expect("it starts");
                random.random_range(600..1_200)
            }
            _ => {
                child.hear("ready").await.expect("it starts");
                random.random_range(5..150)
            }
        };
        tokio::time::sleep(Duration::from_millis(delay_ms)).await;
        child.kill();
    }
    let mut last = Child::start("quiet", database.url(), 0, &log);
    last.hear("quiet").await.expect("it comes to rest");
    last.end().await;

    let said = Acknowledged::read(&log.lock().unwrap());
    let store = store_of(&database).await;
    let jobs = check_all(&*store, &said).await;
    eprintln!(
        "{} jobs, {} submits, {} outcomes, {} workflows, {} runs, touches {:?}",
        jobs.len(),
        said.submitted.len(),
        said.outcomes.len(),
        said.workflows.len(),
        said.runs.len(),
        said.touches
    );
    // A run in which nothing was at stake shows nothing.
    let at_stake = usize::try_from(kills).unwrap();
    assert!(said.submitted.len() >= at_stake && !said.outcomes.is_empty() && !said.workflows.is_empty());
    assert!(said.touches.values().all(|version| *version > 0) && !said.touches.is_empty());
    store.close().await;
}
