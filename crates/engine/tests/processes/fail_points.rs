//! A process that dies, fails, stands still past its lease or loses an answer at each named place of the store: what was
//! acknowledged is there, nothing happens twice, everything ends.
//!
//! In the suite a few places, drawn by the seed, each in a way that follows from it too; `RECACHE_FAIL_PLACES=all` takes each place,
//! `RECACHE_FAIL_WAYS=all` tries all four ways at each (`cargo xtask crashes`).

use std::collections::BTreeSet;
use std::time::Duration;

use rand::rngs::SmallRng;
use rand::seq::SliceRandom as _;
use rand::{Rng as _, SeedableRng as _};
use recache_model::job::JobState;
use recache_store::JobFilter;
use recache_store::conformance::{TestDatabase, empty_postgres_database, sqlite_database};
use recache_store::fail::{MARK_VARIABLE, POINTS, VARIABLE, WAYS};

use crate::check::{Acknowledged, check_all};
use crate::parent::{Child, Log};
use crate::support::store_of;

const SEED: &str = "RECACHE_FAIL_SEED";
const WAYS_WANTED: &str = "RECACHE_FAIL_WAYS";
const PLACES_WANTED: &str = "RECACHE_FAIL_PLACES";
/// Places that one run of the suite tries on each database.
const PLACES: usize = 6;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn crash_at_fail_points_sqlite() {
    campaign(sqlite_database).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn crash_at_fail_points_postgres() {
    let Some(first) = empty_postgres_database().await else { return };
    drop(first);
    for (point, way) in cases() {
        let database = empty_postgres_database().await.expect("it was there");
        one(database, point, way).await;
    }
}

fn cases() -> Vec<(&'static str, &'static str)> {
    let seed = std::env::var(SEED).map_or_else(|_| rand::random(), |text| text.parse().expect("a number"));
    eprintln!("{SEED}={seed}");
    let mut random = SmallRng::seed_from_u64(seed);
    let is_all = |name| std::env::var(name).is_ok_and(|wanted| wanted == "all");
    let mut places = POINTS.to_vec();
    if !is_all(PLACES_WANTED) {
        places.shuffle(&mut random);
        places.truncate(PLACES);
    }
    let has_all_ways = is_all(WAYS_WANTED);
    let mut cases = Vec::new();
    for point in places {
        let one = WAYS[random.random_range(0..WAYS.len())];
        cases.extend(WAYS.into_iter().filter(|way| has_all_ways || *way == one).map(|way| (point, way)));
    }
    cases
}

async fn campaign(database: fn() -> TestDatabase) {
    for (point, way) in cases() {
        one(database(), point, way).await;
    }
}

/// Leaves running jobs of a dead process, for the sweep of the next. Builds do not count: the next process ends them by its first touch.
async fn leave_jobs_of_the_dead(database: &TestDatabase, log: &Log) {
    let store = store_of(database).await;
    let running = JobFilter { state: Some(JobState::Running), rows_max: 100, ..JobFilter::default() };
    for _ in 0..20 {
        let mut victim = Child::start("load", database.url(), 1, log);
        victim.hear("run ").await.expect("it runs a job");
        tokio::time::sleep(Duration::from_millis(20)).await;
        victim.kill();
        // What it sent before is still carried out.
        tokio::time::sleep(Duration::from_millis(300)).await;
        if store.jobs_list(running.clone()).await.unwrap().jobs.iter().any(|job| job.view.is_none()) {
            return store.close().await;
        }
    }
    panic!("a process that is killed at work left nothing running in 20 tries");
}

async fn one(database: TestDatabase, point: &str, way: &str) {
    let log = Log::default();
    let mark = std::env::temp_dir().join(format!("recache-mark-{}", uuid::Uuid::new_v4()));
    // What begins with a process happens once; anything else also later, when more is at stake.
    let every = if ["migrate", "session", "drain", "claim", "reap", "draft"]
        .iter()
        .any(|begin| point.starts_with(begin))
    {
        1
    } else {
        2
    };
    let armed = format!("{point}={way}@{every}");
    let environment = [(VARIABLE, armed.as_str()), (MARK_VARIABLE, mark.to_str().expect("a name"))];
    if !point.starts_with("migrate") {
        leave_jobs_of_the_dead(&database, &log).await;
    }
    let role = if point.starts_with("drain") { "quiet" } else { "load" };
    let mut child = Child::start_with(role, database.url(), 2, &log, &environment);
    let end = if role == "quiet" { "quiet" } else { "ready" };
    // It may not even get there.
    if child.hear(end).await.is_some() {
        let begun = tokio::time::Instant::now();
        let enough = if way == "pause" { 2_000 } else { 400 };
        while begun.elapsed() < Duration::from_secs(10) && !mark.exists() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        tokio::time::sleep(Duration::from_millis(enough)).await;
    }
    child.kill();
    assert!(mark.exists(), "{armed}: the place was reached");
    std::fs::remove_file(&mark).unwrap();

    let mut last = Child::start("quiet", database.url(), 0, &log);
    last.hear("quiet").await.unwrap_or_else(|| panic!("{armed}: it comes to rest"));
    last.end().await;
    let said = Acknowledged::read(&log.lock().unwrap());
    let store = store_of(&database).await;
    let jobs = check_all(&*store, &said).await;
    let states: BTreeSet<_> = jobs.values().map(|job| job.state.as_str()).collect();
    eprintln!("{armed}: clean, {} jobs, {states:?}", jobs.len());
    store.close().await;
}
