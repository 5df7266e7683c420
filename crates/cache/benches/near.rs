//! What a hit in this process costs, in thread CPU time, beside the peers in the same run.
//!
//! `cargo bench -p recache-cache --bench near`; the time of a peer in another run, or in another's, says nothing about
//! this machine at this moment.
#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs, reason = "a bench says what it expects")]

/// What every hit counts with; private to the crate.
#[path = "../src/stats/stripes.rs"]
#[allow(dead_code, unused_imports, reason = "its tests run with the crate, not here")]
mod stripes;

use std::convert::Infallible;
use std::hint::black_box;
use std::iter::Cycle;
use std::slice::Iter;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use criterion::measurement::{Measurement, ValueFormatter, WallTime};
use criterion::{Criterion, criterion_group, criterion_main};
use recache_cache::provider::{Item, Near};
use recache_cache::{Cache, Clock, Coherence, Key, Policy, Provider, SystemClock, Timestamp, Usage};
use rustix::time::{ClockId, clock_gettime};
use tokio::runtime::{Builder, Runtime};

/// Keys that are asked for in turn.
const KEYS: usize = 1_024;
const CAPACITY: u64 = 10_000;
const BYTES_MAX: u64 = 128 << 20;

/// The time that this thread was on a processor: what another process does is not in it.
struct ThreadCpu;

impl Measurement for ThreadCpu {
    type Intermediate = Duration;
    type Value = Duration;

    fn start(&self) -> Duration {
        let time = clock_gettime(ClockId::ThreadCPUTime);
        Duration::new(time.tv_sec.try_into().unwrap(), time.tv_nsec.try_into().unwrap())
    }

    fn end(&self, start: Duration) -> Duration {
        self.start().saturating_sub(start)
    }

    fn add(&self, one: &Duration, other: &Duration) -> Duration {
        *one + *other
    }

    fn zero(&self) -> Duration {
        Duration::ZERO
    }

    fn to_f64(&self, value: &Duration) -> f64 {
        WallTime.to_f64(value)
    }

    fn formatter(&self) -> &dyn ValueFormatter {
        WallTime.formatter()
    }
}

struct Filled {
    cache: Cache,
    near: Arc<Near>,
    keys: Vec<Key>,
    policy: Policy,
    runtime: Runtime,
}

impl Filled {
    fn new() -> Self {
        let clock: Arc<dyn Clock> = Arc::new(SystemClock);
        let near = Arc::new(Near::new(CAPACITY, BYTES_MAX, Arc::clone(&clock)));
        let cache = Cache::builder(near.clone(), clock).build();
        let cache = cache.for_usage(&Usage::user("bench", Coherence::Eventual));
        let space = cache.keys().space("things");
        let keys: Vec<_> = (0..KEYS).map(|number| space.key([number.to_string()])).collect();
        let policy = Policy::new(Duration::from_hours(24));
        let runtime = Builder::new_current_thread().enable_all().build().unwrap();
        for key in &keys {
            runtime.block_on(cache.set(key, value(key), &policy));
        }
        Self { cache, near, keys, policy, runtime }
    }

    fn in_turn(&self) -> Cycle<Iter<'_, Key>> {
        self.keys.iter().cycle()
    }
}

fn value(key: &Key) -> String {
    format!("the value of {key}")
}

fn hits(criterion: &mut Criterion<ThreadCpu>) {
    let filled = Filled::new();
    let Filled { cache, near, policy, runtime, .. } = &filled;
    let mut group = criterion.benchmark_group("hit");

    let mut keys = filled.in_turn();
    group.bench_function("cache_get", |bencher| {
        bencher.to_async(runtime).iter(|| cache.get::<String>(keys.next().unwrap()));
    });
    let mut keys = filled.in_turn();
    group.bench_function("cache_get_or_load", |bencher| {
        let load = async || Ok::<Option<String>, Infallible>(None);
        bencher.to_async(runtime).iter(|| cache.get_or_load(keys.next().unwrap(), policy, load));
    });
    let mut keys = filled.in_turn();
    group.bench_function("near_glance", |bencher| {
        let seen = &mut |item: &Item| {
            black_box(item.bytes.len());
        };
        bencher.iter(|| near.glance(keys.next().unwrap(), black_box(Timestamp::MIN), seen));
    });

    let moka = moka::sync::Cache::new(CAPACITY);
    filled.keys.iter().for_each(|key| moka.insert(key.clone(), Arc::new(value(key))));
    let mut keys = filled.in_turn();
    group.bench_function("peer_moka_get", |bencher| {
        bencher.iter(|| moka.get(keys.next().unwrap()));
    });

    let quick = quick_cache::sync::Cache::new(CAPACITY.try_into().unwrap());
    filled.keys.iter().for_each(|key| quick.insert(key.clone(), Arc::new(value(key))));
    let mut keys = filled.in_turn();
    group.bench_function("peer_quick_cache_get", |bencher| {
        bencher.iter(|| quick.get(keys.next().unwrap()));
    });
    group.finish();
}

/// What a hit is made of, and what it does without.
fn parts(criterion: &mut Criterion<ThreadCpu>) {
    let clock: Arc<dyn Clock> = Arc::new(SystemClock);
    let mut group = criterion.benchmark_group("part");
    group.bench_function("clock_now", |bencher| bencher.iter(|| clock.now()));
    group.bench_function("clock_now_coarse", |bencher| bencher.iter(|| clock.now_coarse()));
    let stripes = stripes::Stripes::<80>::default();
    group.bench_function("count_in_own_stripe", |bencher| bencher.iter(|| stripes.one(black_box(7))));
    assert!(stripes.sum(7) > 0);
    let locked = AtomicU64::new(0);
    group.bench_function("count_locked", |bencher| bencher.iter(|| locked.fetch_add(1, Ordering::Relaxed)));
    group.finish();
}

criterion_group! {
    name = benches;
    config = Criterion::default()
        .with_measurement(ThreadCpu)
        .warm_up_time(Duration::from_millis(500))
        .measurement_time(Duration::from_secs(2));
    targets = hits, parts
}
criterion_main!(benches);
