//! The limiter against a resource that gets slower the more use it: beside fixed limits, and at its edges.
#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    missing_docs,
    reason = "a test says what it expects; figures are for people"
)]

use std::time::Duration;

use proptest::prelude::*;
use recache_model::limiter::{Limiter, Observation, REST_MAX, Reason, Runs, WINDOW};

/// Something that `capacity` jobs can use without noticing each other. Beyond that they share it, and lose `thrash` of it for each job
/// too many.
#[derive(Clone, Copy)]
struct Resource {
    capacity: f64,
    alone: Duration,
    thrash: f64,
}

impl Resource {
    /// How long a job takes while so many run.
    fn run(&self, running: u32) -> Duration {
        let running = f64::from(running);
        let shared = (running / self.capacity).max(1.0);
        let lost = 1.0 + self.thrash * (running - self.capacity).max(0.0);
        self.alone.mul_f64(shared * lost)
    }
}

/// A window in which there is always more to do than may run.
fn window(resource: &Resource, limit: u32) -> Observation {
    let run = resource.run(limit);
    let ended = f64::from(limit) * WINDOW.as_secs_f64() / run.as_secs_f64();
    let count = (0..100_000_u32).take_while(|count| f64::from(*count) < ended).last().unwrap_or(0);
    let runs =
        if limit == 0 { Vec::new() } else { vec![Runs { handler: "h".to_owned(), count, sum: run * count }] };
    Observation { running_max: limit, runs, taken: 20, answered: limit.min(1), ..Observation::default() }
}

/// At its highest.
fn started(limit_max: u32) -> Limiter {
    let mut limiter = Limiter::new(limit_max);
    let mut limits = Vec::new();
    while limiter.limit() < limit_max {
        limits.push(limiter.limit());
        let well = Observation { running_max: limiter.limit(), answered: 1, ..Observation::default() };
        limiter.observe(&well);
    }
    assert!(limits.len() <= 4, "{limits:?}");
    limiter
}

/// What it comes to: jobs a second that ended in time, and how long the slowest took, after it has settled.
fn play(resource: &Resource, limit_max: u32, deadline: Duration, fixed: Option<u32>) -> (f64, Duration) {
    let mut limiter = Limiter::new(limit_max);
    let (mut good, mut windows, mut slowest) = (0.0, 0.0, Duration::ZERO);
    for number in 0..600 {
        let limit = fixed.unwrap_or_else(|| limiter.limit());
        let seen = window(resource, limit);
        limiter.observe(&seen);
        if number >= 60 {
            let run = resource.run(limit);
            slowest = slowest.max(run);
            windows += WINDOW.as_secs_f64();
            if run <= deadline {
                good += f64::from(limit) * WINDOW.as_secs_f64() / run.as_secs_f64();
            }
        }
    }
    (good / windows, slowest)
}

/// A fixed limit is right for one resource only; the limiter is near the best for each.
#[test]
fn limiter_is_near_the_best_fixed_limit_whatever_the_resource() {
    let deadline = Duration::from_millis(400);
    // By limit, 0 for the limiter: jobs in time over all, and how long the slowest took.
    let mut sums: std::collections::BTreeMap<u32, (f64, Duration)> = std::collections::BTreeMap::new();
    let mut add = |limit: u32, (good, slowest): (f64, Duration)| {
        let sum = sums.entry(limit).or_default();
        *sum = (sum.0 + good, sum.1.max(slowest));
    };
    for capacity in [2.0, 8.0, 24.0, 60.0] {
        let resource = Resource { capacity, alone: Duration::from_millis(50), thrash: 0.02 };
        let best = (1..=64).map(|limit| play(&resource, 64, deadline, Some(limit)).0).fold(0.0, f64::max);
        let (good, slowest) = play(&resource, 64, deadline, None);
        println!("capacity {capacity}: {good:.0} jobs/s in time, best fixed {best:.0}, slowest {slowest:?}");
        assert!(good >= best * 0.85, "capacity {capacity}: {good} of {best}");
        assert!(slowest <= resource.alone * 3, "capacity {capacity}: {slowest:?}");
        add(0, (good, slowest));
        for limit in [2, 8, 16, 32, 64] {
            add(limit, play(&resource, 64, deadline, Some(limit)));
        }
    }
    let (adaptive, slowest) = sums[&0];
    let mut best_fixed = (0.0, Duration::ZERO);
    for (limit, fixed) in sums.range(1..) {
        let (good, took) = *fixed;
        println!(
            "fixed {limit}: {good:.0} jobs/s in time over all, slowest {took:?}; the limiter {adaptive:.0}, {slowest:?}"
        );
        assert!(adaptive > good, "{adaptive} against {good} at {limit}");
        best_fixed = if good > best_fixed.0 { *fixed } else { best_fixed };
    }
    assert!(
        slowest < best_fixed.1,
        "the slowest takes {slowest:?}, with the best fixed limit {:?}",
        best_fixed.1
    );
}

#[test]
fn handler_that_takes_longer_whatever_runs_does_not_hold_the_limit_down() {
    let quick = Resource { capacity: 1_000.0, alone: Duration::from_millis(50), thrash: 0.0 };
    let slow = Resource { alone: Duration::from_millis(200), ..quick };
    let mut limiter = Limiter::new(32);
    for _ in 0..20 {
        let seen = window(&quick, limiter.limit());
        limiter.observe(&seen);
    }
    assert_eq!(limiter.limit(), 32);
    let mut lowest = 32;
    for _ in 0..10 {
        let seen = window(&slow, limiter.limit());
        lowest = lowest.min(limiter.observe(&seen));
    }
    assert!(lowest >= 1);
    assert_eq!(limiter.limit(), 32, "nothing got faster by running less");
}

#[test]
fn waits_for_connections_bring_it_down_and_it_comes_back() {
    let mut limiter = started(32);
    let busy = |limit: u32, wait_ms: u64| Observation {
        running_max: limit,
        taken: 100,
        pool_wait: Duration::from_millis(wait_ms),
        answered: 100,
        ..Observation::default()
    };
    assert_eq!(limiter.observe(&busy(32, 10)), 25);
    assert_eq!(limiter.reason(), Reason::PoolWait);
    assert_eq!(limiter.observe(&busy(25, 100)), 12);
    for _ in 0..20 {
        let seen = busy(limiter.limit(), 200);
        limiter.observe(&seen);
    }
    assert_eq!(limiter.limit(), 1, "never to zero for slowness alone");
    assert_eq!(limiter.observe(&busy(1, 3)), 1, "it does not rise while some wait");
    let mut windows = 0;
    while limiter.limit() < 32 {
        let seen = busy(limiter.limit(), 0);
        limiter.observe(&seen);
        windows += 1;
        assert!(windows < 60, "it does not come back");
    }
}

/// Nothing ends and no connection is taken, so that nothing tells of slowness either; but somebody waits.
#[test]
fn it_does_not_rise_while_the_pool_is_wholly_stuck() {
    let mut limiter = Limiter::new(64);
    let before = limiter.limit();
    for _ in 0..20 {
        let stuck = Observation { running_max: limiter.limit(), waiting: 4, ..Observation::default() };
        assert_eq!((limiter.observe(&stuck), limiter.reason()), (before, Reason::PoolWait));
    }
    let free = Observation { running_max: before, answered: 1, ..Observation::default() };
    assert!(limiter.observe(&free) > before, "it goes on when nobody waits any more");
    // The same with runs that ended before it got stuck.
    let mut limiter = Limiter::new(64);
    let runs = vec![Runs { handler: "h".to_owned(), count: 4, sum: Duration::from_millis(40) }];
    let stuck = Observation { running_max: 4, runs, taken: 3, waiting: 1, ..Observation::default() };
    assert_eq!((limiter.observe(&stuck), limiter.reason()), (before, Reason::PoolWait));
}

#[test]
fn dead_database_brings_it_to_zero_and_one_job_brings_it_back() {
    let mut limiter = started(16);
    let dead = Observation { failed: 3, ..Observation::default() };
    let nothing = Observation::default();
    let well = Observation { answered: 3, running_max: 1, ..Observation::default() };
    assert_eq!((limiter.observe(&dead), limiter.reason()), (0, Reason::Resting));
    assert_eq!((limiter.observe(&nothing), limiter.reason()), (1, Reason::Probing));
    assert_eq!(limiter.observe(&nothing), 1, "it waits for an answer with one");
    assert_eq!(limiter.observe(&dead), 0);
    // The rests grow, and no further than to their bound.
    for _ in 0..20 {
        let mut rest = 0;
        while limiter.limit() == 0 {
            limiter.observe(&nothing);
            rest += 1;
        }
        assert!(rest <= REST_MAX, "{rest}");
        limiter.observe(&dead);
    }
    while limiter.limit() == 0 {
        limiter.observe(&nothing);
    }
    assert_eq!(limiter.observe(&well), 8, "half of what it was");
    let mut windows = 0;
    while limiter.limit() < 16 {
        let seen = Observation { running_max: limiter.limit(), answered: 3, ..Observation::default() };
        limiter.observe(&seen);
        windows += 1;
        assert!(windows < 20);
    }
}

fn observation() -> impl Strategy<Value = Observation> {
    let runs = prop::collection::vec((0_u8..4, 0_u32..200, 0_u64..5_000), 0..4);
    (0_u32..200, runs, 0_u64..500, 0_u64..3_000, 0_u32..5, (0_u32..3, 0_u32..3)).prop_map(
        |(running_max, runs, taken, wait_ms, answered, (failed, waiting))| Observation {
            running_max,
            runs: runs
                .into_iter()
                .map(|(handler, count, mean_ms)| Runs {
                    handler: handler.to_string(),
                    count,
                    sum: Duration::from_millis(mean_ms) * count,
                })
                .collect(),
            taken,
            pool_wait: Duration::from_millis(wait_ms),
            waiting,
            answered,
            failed,
        },
    )
}

proptest! {
    /// Whatever is measured: never above the highest, never at zero for longer than the longest rest.
    #[test]
    fn limit_stays_within_its_bounds_and_never_starves(max in 1_u32..100, seen in prop::collection::vec(observation(), 1..200)) {
        let mut limiter = Limiter::new(max);
        let mut at_zero = 0;
        for one in &seen {
            let limit = limiter.observe(one);
            prop_assert!(limit <= max);
            at_zero = if limit == 0 { at_zero + 1 } else { 0 };
            prop_assert!(at_zero <= REST_MAX, "{at_zero} windows at zero");
        }
    }

    /// When all goes well again the limit comes back to the highest.
    #[test]
    fn limit_comes_back_when_all_is_well(max in 1_u32..100, seen in prop::collection::vec(observation(), 1..50)) {
        let mut limiter = Limiter::new(max);
        for one in &seen {
            limiter.observe(one);
        }
        for _ in 0..200 {
            let well = Observation { running_max: limiter.limit(), answered: 1, taken: 100, ..Observation::default() };
            limiter.observe(&well);
        }
        prop_assert_eq!(limiter.limit(), max);
    }
}
