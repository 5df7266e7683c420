//! What a closed breaker costs a call: admission and success, beside the crate `recloser` in the same run.
//!
//! `cargo bench -p recache-cache --bench breaker`
#![allow(clippy::unwrap_used, missing_docs, reason = "a bench stops where it is wrong")]

use std::hint::black_box;
use std::sync::Arc;
use std::time::Duration;

use criterion::{BenchmarkId, Criterion, criterion_group, criterion_main};
use recache_cache::breaker::{Breaker, Monotonic, Observer, Outcome, Phase, Settings, Transition, Window};
use recache_cache::provider::MonotonicClock;
use recloser::Recloser;

#[derive(Debug)]
struct Unheard;

impl Observer for Unheard {
    fn changed(&self, _transition: &Transition) {}
}

fn breaker(window: Window) -> Breaker<MonotonicClock, Unheard> {
    Breaker::new(Settings { window, ..Settings::default() }, MonotonicClock::new(), Unheard)
}

fn succeed<M: Monotonic>(breaker: &Breaker<M, Unheard>) {
    black_box(breaker).admit().unwrap().settle(Outcome::Succeeded);
}

fn closed(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("closed: admit and succeed");
    group.bench_function("recloser", |bencher| {
        let recloser = Recloser::custom().closed_len(100).build();
        bencher.iter(|| black_box(&recloser).call(|| Ok::<_, ()>(black_box(1))));
    });
    group.bench_function("ours, last 100 calls", |bencher| {
        let breaker = breaker(Window::Calls(100));
        bencher.iter(|| succeed(&breaker));
    });
    group.bench_function("ours, one failure in the window", |bencher| {
        let breaker = breaker(Window::Calls(10_000));
        (0..50).for_each(|_| succeed(&breaker));
        breaker.admit().unwrap().settle(Outcome::Failed);
        bencher.iter(|| succeed(&breaker));
    });
    group.bench_function("ours, last 10 s (one look at the clock)", |bencher| {
        let breaker = breaker(Window::Time(Duration::from_secs(10)));
        bencher.iter(|| succeed(&breaker));
    });
    group.bench_function("ours, a call that waits (two looks at the clock)", |bencher| {
        let breaker = breaker(Window::Calls(100));
        bencher.iter(|| {
            let mut permit = black_box(&breaker).admit().unwrap();
            permit.waits();
            permit.settle(Outcome::Succeeded);
        });
    });
    group.bench_function("two looks at the clock alone", |bencher| {
        let clock = MonotonicClock::new();
        bencher.iter(|| (black_box(&clock).now(), black_box(&clock).now()));
    });
    group.finish();
}

fn open(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("open: refuse");
    let ours = breaker(Window::Calls(100));
    (0..5).for_each(|_| ours.admit().unwrap().settle(Outcome::Failed));
    assert_eq!(ours.report().phase, Phase::Open);
    group.bench_function("ours", |bencher| {
        bencher.iter(|| {
            // It must stay open for the whole run.
            if black_box(&ours).admit().is_ok() {
                ours.force_open();
            }
        });
    });
    group.finish();
}

/// Both cores on one breaker.
fn contended(criterion: &mut Criterion) {
    const THREADS: u64 = 2;
    let mut group = criterion.benchmark_group("closed, two threads");
    let ours = Arc::new(breaker(Window::Calls(100)));
    let recloser = Arc::new(Recloser::custom().closed_len(100).build());
    for is_ours in [false, true] {
        let name = if is_ours { "ours" } else { "recloser" };
        group.bench_function(BenchmarkId::from_parameter(name), |bencher| {
            bencher.iter_custom(|rounds| {
                let clock = MonotonicClock::new();
                let from = clock.now();
                std::thread::scope(|scope| {
                    for _ in 0..THREADS {
                        scope.spawn(|| {
                            for _ in 0..=(rounds / THREADS) {
                                if is_ours {
                                    succeed(&ours);
                                } else {
                                    black_box(recloser.call(|| Ok::<_, ()>(black_box(1)))).unwrap();
                                }
                            }
                        });
                    }
                });
                clock.now().since(from)
            });
        });
    }
    group.finish();
}

criterion_group!(benches, closed, open, contended);
criterion_main!(benches);
