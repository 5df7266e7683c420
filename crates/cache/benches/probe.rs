//! temp
#![allow(missing_docs, clippy::all, clippy::pedantic, clippy::unwrap_used, clippy::print_stdout)]
use futures_util::FutureExt;
use recache_cache::provider::*;
use recache_cache::*;
use std::hint::black_box;
use std::sync::Arc;
use std::time::Duration;
fn cpu_ns() -> u64 {
    std::fs::read_to_string("/proc/thread-self/schedstat")
        .unwrap()
        .split(' ')
        .next()
        .unwrap()
        .parse()
        .unwrap()
}
fn time(name: &str, n: usize, mut f: impl FnMut(usize)) {
    let mut best = f64::MAX;
    let mut all = vec![];
    for _ in 0..7 {
        let t = cpu_ns();
        for i in 0..n {
            f((i & 1023) as usize);
        }
        let d = (cpu_ns() - t) as f64 / n as f64;
        best = best.min(d);
        all.push(d);
    }
    all.sort_by(|a, b| a.total_cmp(b));
    println!("{name}: min {best:.1} median {:.1} ns", all[3]);
}
fn main() {
    let clock: Arc<dyn Clock> = Arc::new(SystemClock);
    let near = Arc::new(Near::new(10_000, 128 << 20, clock.clone()));
    let cache = Cache::builder(near.clone(), clock.clone()).build();
    let keys: Vec<_> = (0..1024).map(|i| cache.keys().space("things").key([format!("item-{i}")])).collect();
    let rt = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let policy = Policy::new(Duration::from_secs(3600));
    for k in &keys {
        rt.block_on(cache.set(k, format!("value of {k}"), &policy));
    }
    let m: moka::sync::Cache<Key, Arc<String>> = moka::sync::Cache::new(10_000);
    for k in &keys {
        m.insert(k.clone(), Arc::new(String::new()));
    }
    let q: quick_cache::sync::Cache<Key, Arc<String>> = quick_cache::sync::Cache::new(10_000);
    for k in &keys {
        q.insert(k.clone(), Arc::new(String::new()));
    }
    let arg = std::env::args().nth(1).unwrap_or_default();
    let n = if arg == "one" { 200_000 } else { 5_000_000 };
    if arg == "one" {
        for i in 0..n {
            let _ = black_box(cache.get::<String>(&keys[i & 1023]).now_or_never());
        }
        return;
    }
    if arg == "none" {
        return;
    }
    time("system clock", n, |_| {
        black_box(clock.now());
    });
    time("coarse clock", n, |_| {
        black_box(clock.now_coarse());
    });
    time("quick_cache", n, |i| {
        black_box(q.get(&keys[i]));
    });
    time("near peek", n, |i| {
        black_box(near.peek(&keys[i], Timestamp::default()));
    });
    time("Cache::get", n, |i| {
        black_box(cache.get::<String>(&keys[i]).now_or_never());
    });
    time("get_or_load", n, |i| {
        black_box(
            cache.get_or_load::<String, (), _>(&keys[i], &policy, || async { Ok(None) }).now_or_never(),
        );
    });
    time("moka", n / 4, |i| {
        black_box(m.get(&keys[i]));
    });
    time("Cache::get 1 key", n, |i| {
        black_box(cache.get::<String>(&keys[i & 0]).now_or_never());
    });
}
