//! One load of a key at a time, whatever happens to the one who runs it.
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
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use futures_util::FutureExt;
use futures_util::future::join_all;
use recache_cache::provider::Noop;
use recache_cache::{Cache, ManualClock};
use support::{Bench, POLICY, policy};
use tokio::sync::{Barrier, Notify};
use tokio::time::Instant;

type Loaded = Result<Option<u64>, Infallible>;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_hundred_concurrent_callers_load_once() {
    for round in 0..20 {
        let bench = Bench::new();
        let key = bench.key(&round.to_string());
        let loads = Arc::new(AtomicU64::new(0));
        let start = Arc::new(Barrier::new(200));
        let callers: Vec<_> = (0..200)
            .map(|_| {
                let (cache, key) = (bench.cache.clone(), key.clone());
                let (loads, start) = (Arc::clone(&loads), Arc::clone(&start));
                tokio::spawn(async move {
                    start.wait().await;
                    let load = || async {
                        let load = loads.fetch_add(1, Ordering::SeqCst);
                        tokio::task::yield_now().await;
                        Loaded::Ok(Some(load))
                    };
                    cache.get_or_load(&key, &POLICY, load).await.unwrap().unwrap()
                })
            })
            .collect();
        for caller in join_all(callers).await {
            assert_eq!(*caller.unwrap(), 0);
        }
        assert_eq!(loads.load(Ordering::SeqCst), 1);
        let stats = bench.cache.stats();
        assert_eq!(stats.loads, 1);
        assert_eq!(stats.hits + stats.misses, 200);
        assert_eq!(stats.coalesced, stats.misses - 1);
    }
}

#[tokio::test]
async fn followers_get_the_leaders_value_even_when_nothing_is_stored() {
    let cache = Cache::builder(Arc::new(Noop), Arc::new(ManualClock::default())).build();
    let key = cache.keys().space("s").key(["k"]);
    let release = Notify::new();
    let mut leader = Box::pin(cache.get_or_load(&key, &POLICY, || async {
        release.notified().await;
        Loaded::Ok(Some(1))
    }));
    assert!((&mut leader).now_or_never().is_none());
    let mut follower = Box::pin(cache.get_or_load(&key, &POLICY, || async { Loaded::Ok(Some(2)) }));
    assert!((&mut follower).now_or_never().is_none());
    release.notify_one();
    let led = leader.await.unwrap().unwrap();
    let followed = follower.await.unwrap().unwrap();
    assert!(Arc::ptr_eq(&led, &followed));
    assert_eq!(cache.stats().coalesced, 1);
}

#[tokio::test]
async fn different_keys_load_side_by_side() {
    let bench = Bench::new();
    let (a, b) = (bench.key("a"), bench.key("b"));
    let mut held = Box::pin(bench.cache.get_or_load(&a, &POLICY, std::future::pending::<Loaded>));
    assert!((&mut held).now_or_never().is_none());
    let other = bench.cache.get_or_load(&b, &POLICY, || async { Loaded::Ok(Some(2)) }).now_or_never();
    assert_eq!(other.unwrap().unwrap().as_deref(), Some(&2));
}

#[tokio::test]
async fn dropped_leader_leaves_its_followers_served_by_one_of_them() {
    let bench = Bench::new();
    let key = bench.key("k");
    let loads = AtomicU64::new(0);
    let mut leader = Box::pin(bench.cache.get_or_load(&key, &POLICY, std::future::pending::<Loaded>));
    assert!((&mut leader).now_or_never().is_none());
    let mut followers: Vec<_> = (0..50)
        .map(|_| {
            Box::pin(bench.cache.get_or_load(&key, &POLICY, || async {
                let load = loads.fetch_add(1, Ordering::SeqCst);
                tokio::task::yield_now().await;
                Loaded::Ok(Some(load))
            }))
        })
        .collect();
    for follower in &mut followers {
        assert!(follower.now_or_never().is_none());
    }
    drop(leader);
    for answer in join_all(followers).await {
        assert_eq!(answer.unwrap().as_deref(), Some(&0));
    }
    assert_eq!(loads.load(Ordering::SeqCst), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn dropped_leaders_never_cause_two_loads_to_land() {
    for round in 0..50 {
        let bench = Bench::new();
        let key = bench.key(&round.to_string());
        let mut leader = Box::pin(bench.cache.get_or_load(&key, &POLICY, std::future::pending::<Loaded>));
        assert!((&mut leader).now_or_never().is_none());
        let landed = Arc::new(AtomicU64::new(0));
        let followers: Vec<_> = (0..20)
            .map(|_| {
                let (cache, key, landed) = (bench.cache.clone(), key.clone(), Arc::clone(&landed));
                tokio::spawn(async move {
                    let load = || async { Loaded::Ok(Some(landed.fetch_add(1, Ordering::SeqCst))) };
                    cache.get_or_load(&key, &POLICY, load).await.unwrap().unwrap()
                })
            })
            .collect();
        tokio::task::yield_now().await;
        drop(leader);
        for follower in join_all(followers).await {
            assert_eq!(*follower.unwrap(), 0);
        }
        assert_eq!(landed.load(Ordering::SeqCst), 1, "round {round}");
    }
}

#[tokio::test]
async fn panicking_leader_leaves_its_followers_served() {
    let bench = Bench::new();
    let key = bench.key("k");
    let release = Notify::new();
    let mut leader = Box::pin(
        AssertUnwindSafe(bench.cache.get_or_load(&key, &POLICY, || async {
            release.notified().await;
            assert!(!bench.cache.is_on(), "loader panics");
            Loaded::Ok(None)
        }))
        .catch_unwind(),
    );
    assert!((&mut leader).now_or_never().is_none());
    let mut follower = Box::pin(bench.cache.get_or_load(&key, &POLICY, || async { Loaded::Ok(Some(2)) }));
    assert!((&mut follower).now_or_never().is_none());
    release.notify_one();
    assert!(leader.await.is_err());
    assert_eq!(follower.await.unwrap().as_deref(), Some(&2));
    assert_eq!(bench.cache.get::<u64>(&key).await.as_deref(), Some(&2));
}

#[tokio::test]
async fn loader_error_reaches_present_waiters_and_is_not_cached() {
    let bench = Bench::new();
    let key = bench.key("k");
    let release = Notify::new();
    let mut leader = Box::pin(bench.cache.get_or_load(&key, &POLICY, || async {
        release.notified().await;
        Err::<Option<u64>, _>("no such table".to_owned())
    }));
    assert!((&mut leader).now_or_never().is_none());
    let load = || async { Ok::<_, String>(Some(2_u64)) };
    let mut follower = Box::pin(bench.cache.get_or_load(&key, &POLICY, load));
    assert!((&mut follower).now_or_never().is_none());
    release.notify_one();
    let error = leader.await.unwrap_err();
    let mut late = Box::pin(bench.cache.get_or_load(&key, &POLICY, load));
    assert_eq!((&mut late).await.unwrap().as_deref(), Some(&2));
    let follower_error = follower.await.unwrap_err();
    assert!(std::ptr::eq(error.loader_error().unwrap(), follower_error.loader_error().unwrap()));
    let stats = bench.cache.stats();
    assert_eq!((stats.loads, stats.load_errors, stats.coalesced), (2, 1, 1));
}

#[tokio::test]
async fn caller_with_other_types_is_served_by_its_own_loader() {
    let bench = Bench::new();
    let key = bench.key("k");
    let gate = bench.provider.gate_next_set();
    let mut leader = Box::pin(bench.cache.get_or_load(&key, &POLICY, || async { Loaded::Ok(Some(1)) }));
    assert!((&mut leader).now_or_never().is_none());
    let load = || async { Ok::<_, Infallible>(Some("text".to_owned())) };
    let other = bench.cache.get_or_load(&key, &POLICY, load).await.unwrap();
    assert_eq!(other.unwrap().as_str(), "text");
    gate.release.notify_one();
    leader.await.unwrap();
}

#[tokio::test]
async fn value_reaches_followers_before_it_is_stored() {
    let bench = Bench::new();
    let key = bench.key("k");
    let gate = bench.provider.gate_next_set();
    let mut leader = Box::pin(bench.cache.get_or_load(&key, &POLICY, || async { Loaded::Ok(Some(1)) }));
    assert!((&mut leader).now_or_never().is_none());
    let load = || async { Loaded::Ok(Some(2)) };
    let followed = bench.cache.get_or_load(&key, &POLICY, load).now_or_never().unwrap();
    assert_eq!(followed.unwrap().as_deref(), Some(&1));
    gate.release.notify_one();
    leader.await.unwrap();
    assert_eq!(bench.cache.stats().loads, 1);
}

#[tokio::test(start_paused = true)]
async fn follower_of_a_stuck_leader_loads_for_itself_in_the_end() {
    let bench = Bench::new();
    let key = bench.key("k");
    let mut leader = Box::pin(bench.cache.get_or_load(&key, &POLICY, std::future::pending::<Loaded>));
    assert!((&mut leader).now_or_never().is_none());
    let start = Instant::now();
    let patient = policy().follow_for(Duration::from_secs(3));
    let load = || async { Loaded::Ok(Some(2)) };
    assert_eq!(bench.cache.get_or_load(&key, &patient, load).await.unwrap().as_deref(), Some(&2));
    assert_eq!(start.elapsed().as_secs(), 3);
    assert_eq!(bench.cache.get::<u64>(&key).await.as_deref(), Some(&2));
}
