//! Interleavings of the breaker, all of them, on the breaker's own source with `loom`'s atomics and lock.
//!
//! `RUSTFLAGS="--cfg loom" CARGO_TARGET_DIR=target/loom cargo test -p recache-cache --no-default-features --features cache-moka --test breaker_loom --release`
#![cfg(loom)]
#![allow(
    clippy::unwrap_used,
    missing_docs,
    dead_code,
    unreachable_pub,
    reason = "a test; it includes source"
)]

#[path = "../src/breaker"]
mod breaker {
    mod sync {
        pub(super) use loom::sync::Mutex;
        pub(super) use loom::sync::atomic::{AtomicU64, Ordering};
    }

    mod concurrent;
    mod machine;
    mod window;

    pub use self::concurrent::{Breaker, Monotonic, Observer};
    pub use self::machine::{Outcome, Phase, Settings, Tick, Transition, Window};
}

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use breaker::{Breaker, Monotonic, Observer, Outcome, Phase, Settings, Tick, Transition, Window};
use loom::thread;

/// Not one of loom's atomics: when the clock is read is not what is explored.
#[derive(Debug, Clone, Default)]
struct Hand(Arc<AtomicU64>);

impl Hand {
    fn advance(&self, by: Duration) {
        self.0.fetch_add(u64::try_from(by.as_nanos()).unwrap(), Ordering::SeqCst);
    }
}

impl Monotonic for Hand {
    fn now(&self) -> Tick {
        Tick::from_nanos(self.0.load(Ordering::SeqCst))
    }
}

#[derive(Debug, Clone, Default)]
struct Changes(Arc<AtomicU64>);

impl Observer for Changes {
    fn changed(&self, _: &Transition) {
        self.0.fetch_add(1, Ordering::SeqCst);
    }
}

type LoomBreaker = Breaker<Hand, Changes>;

const OPEN_FOR: Duration = Duration::from_secs(1);
const WAIT: Duration = Duration::from_secs(2);

fn breaker(failure_threshold: u32, permits: u32, window: u32) -> (Arc<LoomBreaker>, Hand, Changes) {
    let settings = Settings {
        failure_threshold,
        window: Window::Calls(window),
        min_calls: 100,
        open_for: OPEN_FOR,
        permits,
        half_open_max_wait: WAIT,
        ..Settings::default()
    };
    let (hand, changes) = (Hand::default(), Changes::default());
    (Arc::new(Breaker::new(settings, hand.clone(), changes.clone())), hand, changes)
}

fn call(breaker: &LoomBreaker, outcome: Outcome) -> bool {
    breaker.admit().map(|permit| permit.settle(outcome)).is_ok()
}

/// Whatever happened: a healthy backend and one call a second close it in time.
fn assert_heals(breaker: &LoomBreaker, hand: &Hand, permits: u64) {
    let seconds = OPEN_FOR.as_secs() + WAIT.as_secs() + permits;
    for _ in 0..seconds {
        if breaker.report().phase == Phase::Closed {
            return;
        }
        hand.advance(Duration::from_secs(1));
        call(breaker, Outcome::Succeeded);
    }
    assert_eq!(breaker.report().phase, Phase::Closed);
}

#[test]
fn no_result_is_lost_or_counted_twice() {
    loom::model(|| {
        // Also across the point where the waiting successes are told and where the window is full of them.
        let (breaker, _, _) = breaker(100, 1, 4);
        let threads: Vec<_> = [Outcome::Succeeded, Outcome::Failed]
            .into_iter()
            .map(|outcome| {
                let breaker = Arc::clone(&breaker);
                thread::spawn(move || {
                    assert!(call(&breaker, Outcome::Succeeded));
                    assert!(call(&breaker, outcome));
                })
            })
            .collect();
        threads.into_iter().for_each(|thread| thread.join().unwrap());
        let report = breaker.report();
        assert_eq!((report.results, report.failures), (4, 1));
    });
}

#[test]
fn failure_is_not_lost_to_a_calm_window() {
    loom::model(|| {
        let (breaker, _, changes) = breaker(1, 1, 1);
        assert!(call(&breaker, Outcome::Succeeded));
        let other = Arc::clone(&breaker);
        let thread = thread::spawn(move || call(&other, Outcome::Succeeded));
        assert!(call(&breaker, Outcome::Failed));
        thread.join().unwrap();
        assert_eq!(breaker.report().phase, Phase::Open);
        assert_eq!(changes.0.load(Ordering::SeqCst), 1);
    });
}

#[test]
fn half_open_never_has_more_than_its_permits_out() {
    for permits in [1_u32, 2] {
        // Three callers: all interleavings with up to two preemptions. With three it holds too, in nine minutes.
        let mut model = loom::model::Builder::new();
        model.preemption_bound = Some(2);
        model.check(move || {
            let (breaker, hand, _) = breaker(1, permits, 4);
            assert!(call(&breaker, Outcome::Failed));
            hand.advance(OPEN_FOR);
            let out = Arc::new(AtomicU64::new(0));
            let probe = |outcome| {
                let (breaker, out) = (Arc::clone(&breaker), Arc::clone(&out));
                move || {
                    if let Ok(permit) = breaker.admit() {
                        let now_out = out.fetch_add(1, Ordering::SeqCst) + 1;
                        // Once closed by the others, any number may be out.
                        let was_half_open = breaker.report().phase == Phase::HalfOpen;
                        assert!(now_out <= u64::from(permits) || !was_half_open);
                        out.fetch_sub(1, Ordering::SeqCst);
                        match outcome {
                            Some(outcome) => permit.settle(outcome),
                            None => drop(permit),
                        }
                    }
                }
            };
            let threads = [thread::spawn(probe(Some(Outcome::Succeeded))), thread::spawn(probe(None))];
            probe(Some(Outcome::Succeeded))();
            threads.into_iter().for_each(|thread| thread.join().unwrap());
            assert_ne!(breaker.report().phase, Phase::Open, "nothing failed");
            assert_heals(&breaker, &hand, u64::from(permits));
        });
    }
}

#[test]
fn late_results_change_nothing_and_it_always_heals() {
    loom::model(|| {
        let (breaker, hand, changes) = breaker(1, 1, 4);
        let early = Arc::clone(&breaker);
        // Admitted while closed or, as a probe, later; settled whenever it likes.
        let thread = thread::spawn(move || {
            let first = early.admit();
            let second = early.admit();
            if let Ok(permit) = first {
                permit.settle(Outcome::Succeeded);
            }
            if let Ok(permit) = second {
                permit.settle(Outcome::Failed);
            }
        });
        call(&breaker, Outcome::Failed);
        hand.advance(OPEN_FOR);
        call(&breaker, Outcome::Succeeded);
        thread.join().unwrap();
        let before = changes.0.load(Ordering::SeqCst);
        assert!((1..=6).contains(&before), "{before} changes");
        assert_heals(&breaker, &hand, 1);
    });
}
