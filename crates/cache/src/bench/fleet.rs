//! Several nodes on one key: a node is a cache of its own over the configured backend, as another process would have it.

use std::convert::Infallible;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use tokio::task::JoinSet;
use tokio::time::{Instant, sleep};

use super::{Row, connected, quantile_us, timed};
use crate::cache::Cache;
use crate::clock::SystemClock;
use crate::config::CacheConfig;
use crate::policy::Policy;
use crate::usage::{Coherence, Usage};

const COLD_NODES: usize = 10;
const COLD_CALLERS: usize = 20;
const COLD_LOAD: Duration = Duration::from_millis(100);
const COLD_ROUNDS_MIN: u32 = 3;

const EARLY_NODES: usize = 5;
const EARLY_TTL: Duration = Duration::from_secs(1);
const EARLY_LOAD: Duration = Duration::from_millis(10);
const EARLY_PAUSE: Duration = Duration::from_millis(5);
const EARLY_TTLS_MIN: u32 = 4;

async fn nodes(config: &CacheConfig, count: usize) -> Vec<Cache> {
    let mut nodes = Vec::with_capacity(count);
    for _ in 0..count {
        let cache = Cache::from_config(config, Arc::new(SystemClock));
        // One that cannot be connected shows in the figures.
        let _ = connected(&cache).await;
        nodes.push(cache.for_usage(&Usage::user("bench", Coherence::Eventual)));
    }
    nodes
}

/// All callers of all nodes ask at once for a key that nobody has.
pub(super) async fn cold_key(config: &CacheConfig, each: Duration) -> Vec<Row> {
    let nodes = nodes(config, COLD_NODES).await;
    let loads = Arc::new(AtomicU32::new(0));
    let policy = Policy::new(Duration::from_mins(10));
    let (mut times, mut rounds, until) = (Vec::new(), 0_u32, Instant::now() + each);
    while rounds < COLD_ROUNDS_MIN || Instant::now() < until {
        let mut callers = JoinSet::new();
        for cache in nodes.iter().flat_map(|cache| std::iter::repeat_n(cache, COLD_CALLERS)) {
            let (cache, loads) = (cache.clone(), Arc::clone(&loads));
            let key = cache.keys().space("cold").key([rounds.to_string()]);
            callers.spawn(async move {
                let load = async || {
                    loads.fetch_add(1, Ordering::Relaxed);
                    sleep(COLD_LOAD).await;
                    Ok::<_, Infallible>(Some(7_u64))
                };
                timed(cache.get_or_load(&key, &policy, load)).await.1
            });
        }
        times.extend(callers.join_all().await);
        rounds += 1;
    }
    let a_round = f64::from(loads.load(Ordering::Relaxed)) / f64::from(rounds);
    vec![
        Row::new("10 nodes x 20 callers, one cold key: loads", a_round, "loads").beside("one load", 1.0),
        Row::new("  the same: p99 of a caller", quantile_us(&mut times, 990) / 1e3, "ms")
            .beside("the load", COLD_LOAD.as_secs_f64() * 1e3),
    ]
}

/// Nodes read one key all the time, which is refreshed a little before it ends.
pub(super) async fn early_refresh(config: &CacheConfig, each: Duration) -> Vec<Row> {
    let nodes = nodes(config, EARLY_NODES).await;
    let loads = Arc::new(AtomicU32::new(0));
    let policy = Policy::new(EARLY_TTL).early_refresh(1.0);
    let began = Instant::now();
    let until = began + each.max(EARLY_TTL * EARLY_TTLS_MIN);
    let mut readers = JoinSet::new();
    for cache in nodes {
        let loads = Arc::clone(&loads);
        readers.spawn(async move {
            let key = cache.keys().space("early").key(["one"]);
            let mut times = Vec::new();
            while Instant::now() < until {
                let loads = Arc::clone(&loads);
                let load = move || async move {
                    loads.fetch_add(1, Ordering::Relaxed);
                    sleep(EARLY_LOAD).await;
                    Ok::<_, Infallible>(Some(7_u64))
                };
                times.push(timed(cache.get_or_refresh(&key, &policy, load)).await.1);
                sleep(EARLY_PAUSE).await;
            }
            times
        });
    }
    let mut times: Vec<_> = readers.join_all().await.into_iter().flatten().collect();
    let ttls = began.elapsed().as_secs_f64() / EARLY_TTL.as_secs_f64();
    // The first load fills; it is no rebuild.
    let rebuilds = f64::from(loads.load(Ordering::Relaxed).saturating_sub(1)) / ttls;
    vec![
        Row::new("early refresh, 5 nodes: rebuilds", rebuilds, "per TTL").beside("one a TTL", 1.0),
        Row::new("  the same: p99 of a read", quantile_us(&mut times, 990) / 1e3, "ms")
            .beside("the load", EARLY_LOAD.as_secs_f64() * 1e3),
    ]
}
