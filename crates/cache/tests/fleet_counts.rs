//! What a fleet counts together on real servers, through a network that loses answers, with processes that come and go: sums are exact.
#![cfg(all(feature = "cache-redis", feature = "cache-memcached"))]
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    missing_docs,
    reason = "a test says what it expects"
)]

#[allow(dead_code, reason = "each test file uses a part of it")]
#[path = "support/memcached.rs"]
mod memcached_server;
#[path = "support/redis_server.rs"]
mod redis_server;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use memcached_server::until;
use recache_cache::coordination::{Coordination, Instance, Limits, Strategy};
use recache_cache::provider::{Memcached, MonotonicClock, Redis, RedisSettings};
use recache_cache::{KeyPrefix, Provider, SystemChance, SystemClock};
use recache_faultproxy::{Ending, Proxy};

const PREFIX: &str = "p";
/// Processes of the fleet, tasks of each, counts of each task.
const PROCESSES: u32 = 3;
const TASKS: usize = 4;
const COUNTS: usize = 40;

/// A process that reaches the server through a proxy of its own. `run` tells one run of the same process from another.
fn process(provider: Arc<dyn Provider>, number: u32, run: u64) -> Coordination {
    let limits =
        Limits { operation_timeout: Duration::from_secs(20), attempts_max: 10_000, ..Limits::default() };
    Coordination::with_limits(
        provider,
        &KeyPrefix::new(PREFIX),
        Instance::new("host", number, run),
        Arc::new(SystemClock),
        Arc::new(SystemChance::default()),
        Arc::new(MonotonicClock::new()),
        limits,
    )
    .merged()
}

/// Everything that is kept and was not sent yet.
async fn flush(process: &Coordination) {
    until(async || {
        process.counter("hits").add(0).await.is_ok()
            && process.histogram("times", &[10, 100]).unwrap().observe(&[]).await.is_ok()
    })
    .await;
}

/// Counts on `TASKS` tasks, while connections are cut; answers what was counted.
async fn count(process: &Coordination) -> i64 {
    let mut running = Vec::new();
    for task in 0..TASKS {
        let process = process.clone();
        running.push(tokio::spawn(async move {
            let histogram = process.histogram("times", &[10, 100]).unwrap();
            for value in 0..COUNTS {
                // On an error it is kept and sent with the next one: it is not to be repeated.
                let _ = process.counter("hits").add(1).await;
                let value = u64::try_from(value + task).unwrap();
                let _ = histogram.observe(&[value]).await;
            }
        }));
    }
    for task in running {
        task.await.unwrap();
    }
    i64::try_from(TASKS * COUNTS).unwrap()
}

/// `reach` makes a provider that reaches the server through the port.
async fn sums_are_exact(server_port: u16, reach: impl AsyncFn(u16) -> Arc<dyn Provider>) {
    let server = format!("127.0.0.1:{server_port}").parse().unwrap();
    let proxies: Vec<Arc<Proxy>> = (0..PROCESSES)
        .map(|number| Arc::new(Proxy::start_with_seed(server, u64::from(number)).unwrap()))
        .collect();
    let mut providers = Vec::new();
    for proxy in &proxies {
        let provider = reach(proxy.port()).await;
        until(async || provider.health().await.is_ok()).await;
        providers.push(provider);
    }
    let is_over = Arc::new(AtomicBool::new(false));
    let cutting = tokio::spawn({
        let (proxies, is_over) = (proxies.clone(), Arc::clone(&is_over));
        async move {
            let mut cut = 0;
            while !is_over.load(Ordering::SeqCst) {
                for proxy in &proxies {
                    tokio::time::sleep(Duration::from_millis(7)).await;
                    cut += proxy.end_all(Ending::Reset);
                }
            }
            cut
        }
    });
    // Each process runs twice, one run after the other; what the first one counted stays.
    let runs = providers.iter().zip(0..PROCESSES).map(async |(provider, number)| {
        let mut counted = 0;
        for run in 0..2 {
            let process = process(Arc::clone(provider), number, run);
            assert_eq!(process.strategy(), Strategy::DistributedBasic);
            counted += count(&process).await;
            flush(&process).await;
        }
        counted
    });
    let counted: i64 = futures_util::future::join_all(runs).await.iter().sum();
    is_over.store(true, Ordering::SeqCst);
    let cut = cutting.await.unwrap();
    assert!(cut > 0, "no connection was cut: nothing was tried");
    let reader = process(Arc::clone(&providers[0]), 99, 0);
    until(async || reader.counter("hits").total().await.is_ok()).await;
    assert_eq!(reader.counter("hits").total().await.unwrap(), counted, "after {cut} cuts");
    let times = reader.histogram("times", &[10, 100]).unwrap().read().await.unwrap();
    assert_eq!(i64::try_from(times.buckets.iter().sum::<u64>()).unwrap(), counted);
    let runs = u64::from(PROCESSES) * 2;
    let sum = |task: usize| (0..COUNTS).map(|value| u64::try_from(value + task).unwrap()).sum::<u64>();
    assert_eq!(times.sum, runs * (0..TASKS).map(sum).sum::<u64>());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sums_over_redis_are_exact_though_answers_are_lost_and_processes_restart() {
    let server = redis_server::RedisServer::start().await;
    sums_are_exact(server.port(), async |port| {
        let settings = RedisSettings::single(&format!("redis://127.0.0.1:{port}")).unwrap();
        let provider: Arc<dyn Provider> = Arc::new(Redis::new(&settings, KeyPrefix::new(PREFIX)));
        provider
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sums_over_memcached_are_exact_though_answers_are_lost_and_processes_restart() {
    let server = memcached_server::Server::start(&[]);
    sums_are_exact(server.port(), async |port| {
        let provider: Memcached = memcached_server::provider(&[port], Arc::new(SystemClock), PREFIX);
        let provider: Arc<dyn Provider> = Arc::new(provider);
        provider
    })
    .await;
}
