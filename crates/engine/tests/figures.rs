//! Figures over what has ended: true numbers, at a cost that follows from the window, through the cache.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stderr,
    missing_docs,
    reason = "a test says what it expects, and says loudly what it cannot run"
)]

mod support;

use std::sync::Arc;
use std::time::{Duration, Instant};

use recache_cache::config::{MemcachedConfig, ServerUrl};
use recache_cache::provider::{Memcached, MemcachedSettings, Moka, Redis, RedisSettings};
use recache_cache::{Cache, Clock, KeyPrefix, Provider, SystemClock};
use recache_engine::Engine;
use recache_engine::figures::{bottlenecks_of, performance_of};
use recache_model::figures::{BottlenecksRequest, MINUTE_US, PerformanceRequest};
use recache_model::time::Clock as _;
use recache_store::conformance::{Subject, TestDatabase, postgres_database, sqlite_database};
use recache_store::{ClaimRequest, FoldLimits, NewJob, NewWorkflow, Outcome, Settlement};
use support::chain;
use uuid::Uuid;

/// Four steps, one after the other.
fn chain_of_four() -> NewWorkflow {
    chain("chain", &["step 0", "step 1", "step 2", "step 3"])
}

/// Claims all that is due and ends each of it after exactly so long.
async fn work(subject: &Subject, ran: Duration) {
    let session = subject.session().await;
    let request = ClaimRequest {
        session,
        queues: vec!["default".to_owned()],
        handlers: vec!["work".to_owned()],
        rows_max: 5_000,
    };
    let claimed = subject.store.jobs_dispatch(Vec::new(), Some(request)).await.unwrap().claimed;
    subject.advance(ran);
    let settlements: Vec<Settlement> = claimed
        .iter()
        .map(|job| Settlement::of(job, Outcome::Completed { output: "1".to_owned() }))
        .collect();
    for settlements in settlements.chunks(100) {
        subject.store.jobs_dispatch(settlements.to_vec(), None).await.unwrap();
    }
    subject.store.session_close(session).await.unwrap();
}

async fn fold(subject: &Subject) {
    let lead = subject
        .store
        .maintenance()
        .leader_take("figures", Uuid::from_u128(1), Duration::from_secs(3_600))
        .await;
    let lead = lead.unwrap().expect("nobody else leads");
    let last = subject.clock.now().micros().div_euclid(MINUTE_US) - 1;
    let figures = subject.store.figures();
    while figures
        .fold(&lead, last, 3, FoldLimits { minutes: 600, ..FoldLimits::default() })
        .await
        .unwrap()
        .is_some_and(|folded| folded < last)
    {}
}

fn near(value: Option<f64>, expected: f64, part: f64) {
    let value = value.expect("a figure");
    assert!((value - expected).abs() <= expected * part, "{value}, not {expected}");
}

/// The truth test at a scale of one to `scale`: 24,000 workflows by 24 hours, a tenth of them without an end. `cargo xtask truth` says
/// that it is 1. Figures are printed.
#[expect(clippy::print_stdout, reason = "figures are for people")]
async fn truth(database: TestDatabase, scale: usize) {
    let given = std::env::var("RECACHE_TRUTH_SCALE").ok();
    let scale = given.map_or(scale, |text| text.parse().expect("a scale"));
    let subject = Subject::new(database).await;
    // The window begins with a full minute.
    let into = subject.clock.now().micros().rem_euclid(MINUTE_US);
    subject.advance(Duration::from_micros(u64::try_from(MINUTE_US - into).unwrap()));
    let by_hour = 1_000 / scale;
    for _hour in 0..24 {
        for _ in 0..by_hour * 9 / 10 {
            subject.store.workflow_submit(chain_of_four()).await.unwrap();
        }
        for _step in 0..4 {
            // Each step is due for half a second before somebody takes it.
            subject.advance(Duration::from_millis(500));
            work(&subject, Duration::from_secs(1)).await;
        }
        for _ in 0..by_hour / 10 {
            let mut unfinished = chain_of_four();
            "nobody".clone_into(&mut unfinished.steps[0].job.handler);
            subject.store.workflow_submit(unfinished).await.unwrap();
        }
        subject.advance(Duration::from_secs(3_600 - 6));
    }
    fold(&subject).await;
    subject.advance(Duration::from_micros(0));
    let request = PerformanceRequest { hours: 25, ..PerformanceRequest::default() };
    let found = performance_of(&*subject.store, &request, false).await.unwrap();
    assert_eq!(
        found,
        performance_of(&*subject.store, &request, true).await.unwrap(),
        "as counted from the rows"
    );
    let request = PerformanceRequest::default();
    let found = performance_of(&*subject.store, &request, false).await.unwrap();
    let number = |count: usize| f64::from(u32::try_from(count).unwrap());
    near(Some(found.tasks_per_hour), number(by_hour), 0.01);
    near(Some(found.tasks_ended_per_hour), number(by_hour) * 0.9, 0.01);
    near(Some(found.steps_per_hour), number(by_hour) * 3.6, 0.01);
    near(found.completion_rate, 1.0, 0.0);
    near(found.completion_rate_of_total, 0.9, 0.01);
    assert_eq!(found.active_tasks, u64::try_from(by_hour / 10 * 24).unwrap());
    assert_eq!(found.active_tasks_submitted, found.active_tasks);
    let seconds = |duration: Option<Duration>| duration.map(|duration| duration.as_secs_f64());
    near(seconds(found.step_duration.mean), 1.0, 0.0);
    near(seconds(found.step_duration.p99), 1.0, 0.01);
    near(seconds(found.queue_wait.mean), 0.5, 0.0);
    near(seconds(found.queue_wait.p50), 0.5, 0.01);
    near(seconds(found.task_duration.mean), 6.0, 0.0);
    let found =
        bottlenecks_of(&*subject.store, &BottlenecksRequest::default(), false).await.unwrap().bottlenecks;
    assert_eq!(found.slowest_by_run.len(), 4);
    for step in &found.slowest_by_run {
        assert_eq!(
            (step.run, step.wait),
            (found.slowest_by_run[0].run, found.slowest_by_run[0].wait),
            "all steps are equal"
        );
        near(step.critical_share, 0.25, 0.0);
    }
    // What has been there for longer than the window says nothing of it.
    let request = PerformanceRequest { hours: 1, ..PerformanceRequest::default() };
    let found = performance_of(&*subject.store, &request, false).await.unwrap();
    assert_eq!(found.active_tasks, u64::try_from(by_hour / 10 * 24).unwrap());
    near(Some(found.tasks_per_hour), number(by_hour), 0.02);
    println!("{}: true over {} workflows in 24 hours", subject.store.kind(), by_hour * 24);
    subject.store.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn figures_are_true_over_a_day_of_chains() {
    truth(sqlite_database(), 20).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn figures_are_true_over_a_day_of_chains_on_postgresql() {
    if let Some(database) = postgres_database().await {
        truth(database, 50).await;
    }
}

const MANY_SQLITE: &str = "INSERT INTO jobs (id, namespace, queue, handler, state, priority, due_at, input, retry, attempt, \
    attempts_max, correlation_id, created_at, started_at, finished_at) \
    WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 100000) \
    SELECT randomblob(16), 'default', 'default', 'old', 'completed', 0, 1600000000000000 + CAST(i AS BIGINT) * 1000000, '{}', '{}', 1, 1, 'c', \
    1600000000000000 + CAST(i AS BIGINT) * 1000000, 1600000000000000 + CAST(i AS BIGINT) * 1000000, 1600000001000000 + CAST(i AS BIGINT) * 1000000 FROM n";
const MANY_POSTGRES: &str = "INSERT INTO recache.jobs (id, namespace, queue, handler, state, priority, due_at, input, retry, attempt, \
    attempts_max, correlation_id, created_at, started_at, finished_at) \
    SELECT gen_random_uuid(), 'default', 'default', 'old', 'completed', 0, 1600000000000000 + CAST(i AS BIGINT) * 1000000, '{}', '{}', 1, 1, 'c', \
    1600000000000000 + CAST(i AS BIGINT) * 1000000, 1600000000000000 + CAST(i AS BIGINT) * 1000000, 1600000001000000 + CAST(i AS BIGINT) * 1000000 FROM generate_series(1, 100000) AS i";

/// Jobs of the long history, in hundred thousands; 1 unless `cargo xtask cost` says more.
fn history_size() -> (usize, bool) {
    let given = std::env::var("RECACHE_COST_JOBS").ok().and_then(|text| text.parse::<usize>().ok());
    (given.map_or(1, |jobs| jobs.div_ceil(100_000)), given.is_some())
}

/// The time of a report is that of its window: a long history behind it makes no difference. In a debug build on a busy machine
/// only a gross one would be told; `cargo xtask cost` holds it at a fifth. Figures are printed.
#[expect(clippy::disallowed_methods, reason = "what is tested is how long it takes")]
#[expect(clippy::print_stdout, reason = "figures are for people")]
async fn cost(database: TestDatabase, history: &'static str) {
    let subject = Subject::new(database).await;
    for _ in 0..10 {
        let jobs = (0..1_000).map(|_| NewJob::new("work", "{}")).collect();
        subject.store.jobs_submit(jobs).await.unwrap();
        work(&subject, Duration::from_secs(60)).await;
    }
    fold(&subject).await;
    let (request, slow) = (PerformanceRequest::default(), BottlenecksRequest::default());
    // The best of each, for each report.
    let best = async || {
        let mut best = [Duration::MAX; 2];
        for _ in 0..7 {
            let began = Instant::now();
            let found = performance_of(&*subject.store, &request, false).await.unwrap();
            best[0] = best[0].min(began.elapsed());
            assert_eq!(found.completed_tasks, 10_000);
            let began = Instant::now();
            let found = bottlenecks_of(&*subject.store, &slow, false).await.unwrap();
            best[1] = best[1].min(began.elapsed());
            assert_eq!(found.bottlenecks.executions, 10_000);
        }
        best
    };
    let short = best().await;
    let (times, is_strict) = history_size();
    for _ in 0..times {
        subject.tamper(history).await;
    }
    let long = best().await;
    for ((report, short), long) in ["performance", "bottlenecks"].into_iter().zip(short).zip(long) {
        println!(
            "{}: {report} takes {short:?} with 10,000 ended jobs, {long:?} with {} more behind",
            subject.store.kind(),
            times * 100_000
        );
        let most = if is_strict { short.mul_f64(1.2) } else { short * 2 + Duration::from_millis(20) };
        assert!(long < most, "{report}: {long:?} after {short:?}");
    }
    subject.store.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn cost_of_a_report_follows_from_its_window() {
    cost(sqlite_database(), MANY_SQLITE).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn cost_of_a_report_follows_from_its_window_on_postgresql() {
    if let Some(database) = postgres_database().await {
        cost(database, MANY_POSTGRES).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn reports_come_from_the_cache_until_their_time_is_over() {
    let subject = Subject::new(sqlite_database()).await;
    let engine = Engine::builder(Arc::clone(&subject.store)).start().await.unwrap();
    let request = PerformanceRequest::default();
    let before = engine.performance(&request).await.unwrap();
    assert_eq!(before.total_tasks, 0);
    engine.submit(NewJob::new("work", "{}")).await.unwrap();
    assert_eq!(engine.performance(&request).await.unwrap(), before, "as of a minute ago at most");
    let other = PerformanceRequest { hours: 2, ..request.clone() };
    assert_eq!(engine.performance(&other).await.unwrap().total_tasks, 1, "another window is another report");
    let mut filtered = request.clone();
    filtered.filter.namespace = Some("none".to_owned());
    assert_eq!(engine.performance(&filtered).await.unwrap().total_tasks, 0);
    let key = engine.cache().keys().analytics_performance(24);
    assert!(engine.cache().explain(&key).await.entry.is_some(), "under the key of the documentation");
    engine.cache().invalidate(&key).await;
    assert_eq!(engine.performance(&request).await.unwrap().total_tasks, 1);
    let bottlenecks = BottlenecksRequest::default();
    assert_eq!(engine.bottlenecks(&bottlenecks).await.unwrap().bottlenecks.executions, 0);
    let key = engine.cache().keys().analytics_bottlenecks(10, 5);
    assert!(engine.cache().explain(&key).await.entry.is_some());
    engine.shut_down().await;
}

/// A cache over each kind of provider for which there is a server.
async fn caches() -> Vec<(&'static str, Cache)> {
    let clock: Arc<dyn Clock> = Arc::new(SystemClock);
    let prefix = format!("figures-{}", Uuid::new_v4());
    let mut providers: Vec<(&str, Arc<dyn Provider>)> =
        vec![("in memory", Arc::new(Moka::new(1_000, 1 << 20, Arc::clone(&clock))))];
    if let Ok(url) = std::env::var("RECACHE_TEST_REDIS_URL") {
        let settings = RedisSettings::single(&url).unwrap();
        providers.push(("redis", Arc::new(Redis::new(&settings, KeyPrefix::new(&prefix)))));
    }
    if let Ok(url) = std::env::var("RECACHE_TEST_MEMCACHED_URL") {
        let config = MemcachedConfig { url: ServerUrl::new(url), ..MemcachedConfig::default() };
        let settings = MemcachedSettings::from_config(&config, Arc::clone(&clock)).unwrap();
        providers.push(("memcached", Arc::new(Memcached::new(settings, &KeyPrefix::new(&prefix)))));
    }
    assert!(providers.len() == 3 || std::env::var("CI").is_err(), "servers of caches are not there");
    let mut caches = Vec::new();
    for (name, provider) in providers {
        while provider.health().await.is_err() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        caches.push((name, Cache::builder(provider, Arc::clone(&clock)).key_prefix(&prefix).build()));
    }
    caches
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn reports_come_from_the_cache_whatever_its_provider() {
    for (name, cache) in caches().await {
        let subject = Subject::new(sqlite_database()).await;
        let engine = Engine::builder(Arc::clone(&subject.store)).cache(cache.clone()).start().await.unwrap();
        let (request, slow) = (PerformanceRequest::default(), BottlenecksRequest::default());
        let before = (engine.performance(&request).await.unwrap(), engine.bottlenecks(&slow).await.unwrap());
        assert_eq!(before.0.total_tasks, 0, "{name}");
        engine.submit(NewJob::new("work", "1")).await.unwrap();
        let after = (engine.performance(&request).await.unwrap(), engine.bottlenecks(&slow).await.unwrap());
        assert_eq!(after, before, "{name}: as of a minute ago at most");
        for key in [cache.keys().analytics_performance(24), cache.keys().analytics_bottlenecks(10, 5)] {
            let found = cache.explain(&key).await.entry.expect(name);
            let minute = cache.lifetimes().analytics;
            assert!(found.fresh_for <= minute && minute == Duration::from_secs(60), "{name}: {found:?}");
            cache.invalidate(&key).await;
        }
        assert_eq!(engine.performance(&request).await.unwrap().total_tasks, 1, "{name}");
        engine.shut_down().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_cannot_be_asked_is_refused_and_caches_nothing() {
    let subject = Subject::new(sqlite_database()).await;
    let engine = Engine::builder(Arc::clone(&subject.store)).start().await.unwrap();
    for hours in [0, 745, u32::MAX] {
        let refused =
            engine.performance(&PerformanceRequest { hours, ..PerformanceRequest::default() }).await;
        assert!(refused.unwrap_err().to_string().contains("`hours` is"));
        let key = engine.cache().keys().analytics_performance(hours);
        assert_eq!(engine.cache().explain(&key).await.entry, None);
    }
    let request = BottlenecksRequest { limit: 0, min_executions: u64::MAX, ..BottlenecksRequest::default() };
    let message = engine.bottlenecks(&request).await.unwrap_err().to_string();
    assert!(message.contains("`limit`") && message.contains("`min_executions`"), "{message}");
    assert!(engine.performance(&PerformanceRequest::default()).await.is_ok(), "nothing else is disturbed");
    engine.shut_down().await;
}
