//! A hit in this process, in thread CPU time, so that what other processes do is not in it.

use std::convert::Infallible;
use std::hint::black_box;
use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt as _;
use tokio::time::Instant;

use super::Row;
use crate::cache::Cache;
use crate::clock::{Clock, SystemClock};
use crate::key::Key;
use crate::policy::Policy;
use crate::provider::Near;
use crate::usage::{Coherence, Usage};

/// Keys that are asked for in turn; also the hits of one batch.
const KEYS: u32 = 1_024;
const CAPACITY: u32 = 10_000;
const BYTES_MAX: u64 = 128 << 20;

pub(super) fn rows(each: Duration) -> Vec<Row> {
    let clock: Arc<dyn Clock> = Arc::new(SystemClock);
    let near = Arc::new(Near::new(u64::from(CAPACITY), BYTES_MAX, Arc::clone(&clock)));
    let cache = Cache::builder(near, clock).build().for_usage(&Usage::user("bench", Coherence::Eventual));
    let space = cache.keys().space("things");
    let keys: Vec<Key> = (0..KEYS).map(|number| space.key([number.to_string()])).collect();
    let value = |key: &Key| format!("the value of {key}");
    let policy = Policy::new(Duration::from_hours(24));
    let moka = moka::sync::Cache::new(u64::from(CAPACITY));
    let quick = quick_cache::sync::Cache::new(usize::try_from(CAPACITY).unwrap_or(usize::MAX));
    for key in &keys {
        // Nothing in this process is waited for.
        let _ = cache.set(key, value(key), &policy).now_or_never();
        moka.insert(key.clone(), Arc::new(value(key)));
        quick.insert(key.clone(), Arc::new(value(key)));
    }
    let load = async || Ok::<Option<String>, Infallible>(None);
    let [get, get_or_load, peer_moka, peer_quick] = medians(
        each,
        &keys,
        [
            &|key| drop(black_box(cache.get::<String>(key).now_or_never())),
            &|key| drop(black_box(cache.get_or_load(key, &policy, load).now_or_never())),
            &|key| drop(black_box(moka.get(key))),
            &|key| drop(black_box(quick.get(key))),
        ],
    );
    vec![
        Row::new("near hit, get", get, "ns").beside("moka get", peer_moka),
        Row::new("near hit, get", get, "ns").beside("quick_cache get", peer_quick),
        Row::new("near hit, get_or_load", get_or_load, "ns").beside("moka get", peer_moka),
    ]
}

/// Thread CPU time of each kind of hit, in nanoseconds: the median of batches, one of each kind in turn, so that what
/// disturbs one disturbs all.
fn medians<const N: usize>(each: Duration, keys: &[Key], hits: [&dyn Fn(&Key); N]) -> [f64; N] {
    let until = Instant::now() + each;
    let mut batches = [const { Vec::new() }; N];
    loop {
        for (hit, batches) in hits.iter().zip(&mut batches) {
            let began = thread_cpu();
            keys.iter().for_each(hit);
            batches.push(thread_cpu().saturating_sub(began));
        }
        if Instant::now() >= until {
            return batches.map(|mut batches| super::quantile_us(&mut batches, 500) * 1e3 / f64::from(KEYS));
        }
    }
}

#[cfg(target_os = "linux")]
fn thread_cpu() -> Duration {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::ThreadCPUTime);
    // Never negative, and never a whole second of nanoseconds.
    Duration::new(u64::try_from(time.tv_sec).unwrap_or(0), u32::try_from(time.tv_nsec).unwrap_or(0))
}

/// Elsewhere the time that passes, which contains what others do.
#[cfg(not(target_os = "linux"))]
fn thread_cpu() -> Duration {
    SystemClock.elapsed()
}
