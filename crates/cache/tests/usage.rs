//! Each usage gets the coherence that it needs, or no cache.
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
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use futures_util::FutureExt;
use recache_cache::provider::Noop;
use recache_cache::{Cache, Coherence, ManualClock, Policy, Usage};
use support::{Bench, POLICY, Said};
use tokio::sync::Notify;

type Loaded = Result<Option<u64>, Infallible>;

#[tokio::test]
async fn templates_on_a_bare_in_process_cache_are_off_with_one_warning() {
    let (said, _listening) = Said::listen();
    let bench = Bench::new();
    let key = bench.cache.keys().template("shop", "prices", "1.0.0");
    for _ in 0..3 {
        let templates = bench.cache.for_usage(&Usage::Template);
        assert!(!templates.is_on());
        templates.set(&key, 1_u64, &POLICY).await;
        templates.set_many(vec![(key.clone(), 1_u64)], &POLICY).await;
        assert!(templates.get::<u64>(&key).await.is_none());
        assert_eq!(templates.get_many::<u64>(std::slice::from_ref(&key)).await, [None]);
        let loaded = templates.get_or_load(&key, &POLICY, || async { Loaded::Ok(Some(2)) }).await;
        assert_eq!(loaded.unwrap().as_deref(), Some(&2));
    }
    assert_eq!(said.warnings(), 1);
    assert_eq!(bench.provider.calls.load(Ordering::SeqCst), 0);
    let health = bench.cache.health().await;
    assert!(health.is_healthy, "the cache does what it can");
    let off: Vec<_> =
        health.switched_off.iter().map(|off| (off.usage.as_str(), off.needs, off.offered)).collect();
    assert_eq!(off, [("template", Coherence::Strict, Coherence::Eventual)]);
}

#[tokio::test]
async fn each_usage_that_is_off_is_warned_of_and_named() {
    let (said, _listening) = Said::listen();
    let bench = Bench::new();
    bench.cache.for_usage(&Usage::Template);
    bench.cache.for_usage(&Usage::JobState);
    bench.cache.for_usage(&Usage::user("balances", Coherence::Strict));
    bench.cache.for_usage(&Usage::user("balances", Coherence::Strict));
    assert_eq!(said.warnings(), 3);
    let named: Vec<_> = bench.cache.health().await.switched_off.into_iter().map(|off| off.usage).collect();
    assert_eq!(named, ["template", "job_state", "balances"]);
}

#[tokio::test]
async fn usages_that_bear_age_are_on_in_process() {
    let (said, _listening) = Said::listen();
    let bench = Bench::new();
    let day = Coherence::Bounded(Duration::from_hours(24));
    for usage in [
        Usage::Analytics,
        Usage::GraphAnalysis,
        Usage::Handlers,
        Usage::HealthDetail,
        Usage::ViewItem,
        Usage::user("prices", day),
        Usage::user("names", Coherence::Eventual),
    ] {
        assert!(bench.cache.for_usage(&usage).is_on(), "{}", usage.name());
    }
    assert_eq!(said.warnings(), 0);
    assert!(bench.cache.health().await.switched_off.is_empty());
}

#[tokio::test]
async fn bounded_usage_never_gets_anything_older_than_its_bound() {
    let bench = Bench::new();
    let key = bench.key("k");
    let bounded = bench.cache.for_usage(&Usage::user("prices", Coherence::Bounded(Duration::from_secs(10))));
    let long = Policy::new(Duration::from_hours(1));
    bench.cache.set(&key, 1_u64, &long).await;
    bench.clock.advance(Duration::from_secs(9));
    assert!(bounded.get::<u64>(&key).await.is_some());
    bench.clock.advance(Duration::from_secs(1));
    assert!(bounded.lookup::<u64>(&key).await.is_none());
    assert!(bench.cache.get::<u64>(&key).await.is_some());
    let loaded = bounded.get_or_load(&key, &long, || async { Loaded::Ok(Some(2)) }).await;
    assert_eq!(loaded.unwrap().as_deref(), Some(&2));
}

#[tokio::test]
async fn strict_usage_is_on_where_the_provider_is_strict_and_joins_no_earlier_load() {
    let bench = Bench::offering(Coherence::Strict);
    let key = bench.key("k");
    let strict = bench.cache.for_usage(&Usage::Template);
    assert!(strict.is_on());
    let release = Notify::new();
    let mut early = pin!(strict.get_or_load(&key, &POLICY, || async {
        release.notified().await;
        Loaded::Ok(Some(1))
    }));
    assert!((&mut early).now_or_never().is_none());
    let late = strict.get_or_load(&key, &POLICY, || async { Loaded::Ok(Some(2)) }).now_or_never();
    assert_eq!(late.unwrap().unwrap().as_deref(), Some(&2));
    release.notify_one();
    early.await.unwrap();
    assert_eq!(
        strict.get::<u64>(&key).await.as_deref(),
        Some(&2),
        "the earlier load does not overwrite the later"
    );
}

#[tokio::test]
async fn every_usage_may_run_on_a_cache_that_keeps_nothing() {
    let (said, _listening) = Said::listen();
    let cache = Cache::builder(Arc::new(Noop), Arc::new(ManualClock::default())).build();
    assert!(cache.for_usage(&Usage::Template).is_on());
    assert_eq!(said.warnings(), 0);
}

#[tokio::test]
async fn list_of_usages_that_are_off_is_bounded() {
    let (said, _listening) = Said::listen();
    let bench = Bench::new();
    for number in 0..1_000 {
        bench.cache.for_usage(&Usage::user(format!("made up {number}"), Coherence::Strict));
    }
    assert_eq!(bench.cache.health().await.switched_off.len(), 64);
    assert_eq!(said.warnings(), 64);
}
