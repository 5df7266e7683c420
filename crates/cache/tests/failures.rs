//! A provider that fails, hangs or panics costs its callers a bounded time, and the log one line.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    missing_docs,
    reason = "a test says what it expects"
)]

#[allow(dead_code, reason = "each test file uses a part of it")]
mod support;

use std::convert::Infallible;
use std::future::Future;
use std::sync::atomic::Ordering;
use std::time::Duration;

use recache_cache::{Condition, QUIET_BEFORE_RECOVERED};
use support::{Bench, Mood, POLICY, Said};
use tokio::time::Instant;

/// How many operation timeouts of 50 ms the call took; fails when it took anything else. A paused timer rounds to whole
/// milliseconds.
async fn timeouts_taken(call: impl Future) -> u128 {
    let start = Instant::now();
    call.await;
    let millis = start.elapsed().as_millis();
    let timeouts = millis / 50;
    assert!(millis % 50 <= timeouts, "{millis} ms");
    timeouts
}

#[tokio::test(start_paused = true)]
async fn hanging_provider_costs_at_most_its_bound() {
    let bench = Bench::new();
    let (cache, key) = (&bench.cache, bench.key("k"));
    bench.provider.be(Mood::Hang);
    assert_eq!(timeouts_taken(cache.get::<u64>(&key)).await, 1);
    assert_eq!(timeouts_taken(cache.lookup::<u64>(&key)).await, 1);
    assert_eq!(timeouts_taken(cache.get_many::<u64>(&[key.clone(), key.clone()])).await, 1);
    assert_eq!(timeouts_taken(cache.set(&key, 1_u64, &POLICY)).await, 1);
    let many = (0..100_u64).map(|number| (bench.key(&number.to_string()), number)).collect();
    assert_eq!(timeouts_taken(cache.set_many(many, &POLICY)).await, 1);
    assert_eq!(timeouts_taken(cache.invalidate(&key)).await, 1);
    assert_eq!(timeouts_taken(cache.invalidate_space(&key.space())).await, 1);
    assert_eq!(timeouts_taken(cache.clear()).await, 1);
    assert_eq!(timeouts_taken(cache.health()).await, 1);
    let load = || async { Ok::<_, Infallible>(Some(1_u64)) };
    assert_eq!(timeouts_taken(cache.get_or_load(&key, &POLICY, load)).await, 2);
    assert_eq!(cache.stats().timeouts, 11);
    assert_eq!(cache.stats().provider_errors, 0);
}

#[tokio::test]
async fn each_change_between_working_and_failing_is_said_once() {
    let (said, _listening) = Said::listen();
    let bench = Bench::new();
    let key = bench.key("k");
    bench.cache.get::<u64>(&key).await;
    assert_eq!((said.warnings(), said.infos()), (0, 0));

    for round in 1..=3 {
        bench.provider.be(if round == 2 { Mood::Panic } else { Mood::Fail });
        for _ in 0..100 {
            bench.cache.get::<u64>(&key).await;
            bench.cache.set(&key, 1_u64, &POLICY).await;
        }
        assert_eq!((said.warnings(), said.infos()), (round, round - 1));
        bench.provider.be(Mood::Work);
        bench.clock.advance(QUIET_BEFORE_RECOVERED);
        for _ in 0..100 {
            bench.cache.get::<u64>(&key).await;
        }
        assert_eq!((said.warnings(), said.infos()), (round, round));
    }
    assert_eq!(bench.cache.stats().provider_errors, 600);
}

#[tokio::test]
async fn provider_that_fails_now_and_then_does_not_fill_the_log() {
    let (said, _listening) = Said::listen();
    let bench = Bench::new();
    let key = bench.key("k");
    for _ in 0..50 {
        bench.provider.be(Mood::Fail);
        bench.cache.get::<u64>(&key).await;
        bench.provider.be(Mood::Work);
        bench.cache.get::<u64>(&key).await;
        bench.clock.advance(Duration::from_millis(10));
    }
    assert_eq!((said.warnings(), said.infos()), (1, 0));
}

#[tokio::test]
async fn clock_set_back_does_not_delay_recovery() {
    let bench = Bench::new();
    bench.provider.be(Mood::Fail);
    bench.cache.get::<u64>(&bench.key("k")).await;
    bench.provider.be(Mood::Work);
    bench.clock.set(recache_cache::Timestamp::from_micros(0));
    assert!(bench.cache.health().await.is_healthy);
}

#[tokio::test(start_paused = true)]
async fn health_follows_the_provider() {
    let bench = Bench::new();
    let healthy = bench.cache.health().await;
    assert!(healthy.is_healthy && healthy.reasons.is_empty());
    assert_eq!((healthy.condition, healthy.provider), (Condition::Active, "moody"));

    for (mood, reason) in [
        (Mood::Fail, "moody is not available: told to fail"),
        (Mood::Hang, "no answer within 50ms"),
        (Mood::Panic, "the provider panicked"),
    ] {
        bench.provider.be(mood);
        let degraded = bench.cache.health().await;
        assert!(!degraded.is_healthy);
        assert_eq!((degraded.condition, degraded.reasons), (Condition::Degraded, vec![reason.to_owned()]));
    }
    bench.provider.be(Mood::Work);
    assert_eq!(bench.cache.health().await.reasons, ["calls failed within the last 5s"]);
    bench.clock.advance(QUIET_BEFORE_RECOVERED);
    assert!(bench.cache.health().await.is_healthy);
}

#[tokio::test]
async fn values_that_cannot_be_written_are_warned_of_once() {
    let (said, _listening) = Said::listen();
    let bench = Bench::new();
    for _ in 0..3 {
        let by_pair = std::collections::BTreeMap::from([((1_u8, 2_u8), 3_u64)]);
        bench.cache.set(&bench.key("k"), by_pair, &POLICY).await;
    }
    assert_eq!(said.warnings(), 1);
    assert_eq!(bench.cache.stats().encode_errors, 3);
    assert_eq!(bench.provider.sets.load(Ordering::SeqCst), 0);
}

/// A caller who gives up half way leaves nothing behind that others would stumble over.
#[tokio::test(start_paused = true)]
async fn calls_dropped_at_any_await_leave_the_cache_usable() {
    let bench = Bench::new();
    let key = bench.key("k");
    bench.provider.be(Mood::Hang);
    for give_up_after_ms in 0..160 {
        let give_up = Duration::from_millis(give_up_after_ms);
        let load = || async {
            tokio::time::sleep(Duration::from_millis(20)).await;
            Ok::<_, Infallible>(Some(1_u64))
        };
        let _ = tokio::time::timeout(give_up, bench.cache.get_or_load(&key, &POLICY, load)).await;
        let _ = tokio::time::timeout(give_up, bench.cache.set(&key, 1_u64, &POLICY)).await;
        let _ = tokio::time::timeout(give_up, bench.cache.invalidate(&key)).await;
    }
    bench.provider.be(Mood::Work);
    let load = || async { Ok::<_, Infallible>(Some(2_u64)) };
    assert_eq!(bench.cache.get_or_load(&key, &POLICY, load).await.unwrap().as_deref(), Some(&2));
    assert_eq!(bench.cache.get::<u64>(&key).await.as_deref(), Some(&2));
}
