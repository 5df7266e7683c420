//! An invalidation beats every load that began before it, also when the provider is of no help.
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
use std::pin::pin;
use std::sync::atomic::Ordering;
use std::time::Duration;

use futures_util::FutureExt;
use recache_cache::{Cache, Key};
use support::{Bench, Mood, POLICY};
use tokio::sync::Notify;
use tokio::time::Instant;

type Loaded = Result<Option<u64>, Infallible>;

async fn value(bench: &Bench, key: &Key) -> Option<u64> {
    bench.cache.get::<u64>(key).await.as_deref().copied()
}

async fn load(bench: &Bench, key: &Key, value: u64) -> u64 {
    *bench.cache.get_or_load(key, &POLICY, || async { Loaded::Ok(Some(value)) }).await.unwrap().unwrap()
}

/// Pitfall 9. The old value is being loaded when `outdate` runs; who waited before gets it, nobody after.
async fn outdating_beats_the_load<F: Future>(outdate: impl FnOnce(Cache, Key) -> F, after: u64) {
    let bench = Bench::new();
    let key = bench.key("k");
    let release = Notify::new();
    let mut leader = pin!(bench.cache.get_or_load(&key, &POLICY, || async {
        release.notified().await;
        Loaded::Ok(Some(1))
    }));
    assert!((&mut leader).now_or_never().is_none());
    let mut follower = pin!(load(&bench, &key, 99));
    assert!((&mut follower).now_or_never().is_none());

    outdate(bench.cache.clone(), key.clone()).await;

    let late = load(&bench, &key, 2).now_or_never();
    assert_eq!(late, Some(after), "who comes later neither waits for the old load nor gets its value");
    release.notify_one();
    assert_eq!(leader.await.unwrap().as_deref(), Some(&1));
    assert_eq!(follower.await, 1);
    assert_eq!(value(&bench, &key).await, Some(after));
    assert_eq!(bench.cache.stats().fills_refused, 1);
}

#[tokio::test]
async fn invalidating_the_key_during_its_load_wins() {
    outdating_beats_the_load(|cache, key| async move { cache.invalidate(&key).await }, 2).await;
}

#[tokio::test]
async fn deleting_the_key_during_its_load_wins() {
    outdating_beats_the_load(|cache, key| async move { cache.delete(&key).await }, 2).await;
}

#[tokio::test]
async fn invalidating_the_space_during_a_load_wins() {
    outdating_beats_the_load(|cache, key| async move { cache.invalidate_space(&key.space()).await }, 2).await;
}

#[tokio::test]
async fn clearing_during_a_load_wins() {
    outdating_beats_the_load(|cache, _| async move { cache.clear().await }, 2).await;
}

#[tokio::test]
async fn newer_set_during_a_load_wins() {
    outdating_beats_the_load(|cache, key| async move { cache.set(&key, 7_u64, &POLICY).await }, 7).await;
}

#[tokio::test]
async fn newer_set_many_during_a_load_wins() {
    outdating_beats_the_load(
        |cache, key| async move { cache.set_many(vec![(key, 7_u64)], &POLICY).await },
        7,
    )
    .await;
}

#[tokio::test]
async fn invalidating_another_key_or_space_leaves_a_load_alone() {
    let bench = Bench::new();
    let key = bench.key("k");
    let release = Notify::new();
    let mut leader = pin!(bench.cache.get_or_load(&key, &POLICY, || async {
        release.notified().await;
        Loaded::Ok(Some(1))
    }));
    assert!((&mut leader).now_or_never().is_none());
    bench.cache.invalidate(&bench.key("other")).await;
    bench.cache.invalidate_space(&bench.cache.keys().space("others")).await;
    release.notify_one();
    leader.await.unwrap();
    assert_eq!(value(&bench, &key).await, Some(1));
}

#[tokio::test]
async fn invalidation_while_the_value_is_being_stored_waits_and_removes_it() {
    let bench = Bench::new();
    let key = bench.key("k");
    let gate = bench.provider.gate_next_set();
    let mut leader = pin!(bench.cache.get_or_load(&key, &POLICY, || async { Loaded::Ok(Some(1)) }));
    assert!((&mut leader).now_or_never().is_none());
    let mut first = pin!(bench.cache.invalidate(&key));
    let mut second = pin!(bench.cache.invalidate(&key));
    assert!((&mut first).now_or_never().is_none());
    assert!((&mut second).now_or_never().is_none(), "the second one must not overtake the store either");
    gate.release.notify_one();
    leader.await.unwrap();
    second.await;
    assert_eq!(value(&bench, &key).await, None);
    first.await;
    assert_eq!(value(&bench, &key).await, None);
}

#[tokio::test]
async fn clearing_the_space_while_a_value_is_being_stored_makes_it_unreachable() {
    let bench = Bench::new();
    let key = bench.key("k");
    let gate = bench.provider.gate_next_set();
    let mut leader = pin!(bench.cache.get_or_load(&key, &POLICY, || async { Loaded::Ok(Some(1)) }));
    assert!((&mut leader).now_or_never().is_none());
    bench.cache.invalidate_space(&key.space()).await;
    gate.release.notify_one();
    leader.await.unwrap();
    assert_eq!(bench.provider.sets.load(Ordering::SeqCst), 1);
    assert_eq!(value(&bench, &key).await, None);
    assert_eq!(load(&bench, &key, 2).await, 2);
    assert_eq!(value(&bench, &key).await, Some(2));
}

#[tokio::test]
async fn older_set_that_is_under_way_loses_to_an_invalidation() {
    let bench = Bench::new();
    let key = bench.key("k");
    let gate = bench.provider.gate_next_set();
    let mut set = pin!(bench.cache.set(&key, 1_u64, &POLICY));
    assert!((&mut set).now_or_never().is_none());
    let mut invalidation = pin!(bench.cache.invalidate(&key));
    assert!((&mut invalidation).now_or_never().is_none());
    gate.release.notify_one();
    set.await;
    invalidation.await;
    assert_eq!(value(&bench, &key).await, None);
}

#[tokio::test]
async fn of_two_sets_the_later_call_wins() {
    let bench = Bench::new();
    let key = bench.key("k");
    let gate = bench.provider.gate_next_set();
    let mut first = pin!(bench.cache.set(&key, 1_u64, &POLICY));
    assert!((&mut first).now_or_never().is_none());
    let mut second = pin!(bench.cache.set(&key, 2_u64, &POLICY));
    assert!((&mut second).now_or_never().is_none());
    gate.release.notify_one();
    first.await;
    second.await;
    assert_eq!(value(&bench, &key).await, Some(2));
}

/// The one who stores is not polled any more: its write may land whenever it likes, and must not be seen.
#[tokio::test(start_paused = true)]
async fn store_that_lands_long_after_the_invalidation_is_unreachable() {
    let bench = Bench::new();
    let key = bench.key("k");
    let gate = bench.provider.gate_next_set();
    let mut leader = pin!(bench.cache.get_or_load(&key, &POLICY, || async { Loaded::Ok(Some(1)) }));
    assert!((&mut leader).now_or_never().is_none());
    let start = Instant::now();
    bench.cache.invalidate(&key).await;
    assert!(start.elapsed() <= Duration::from_millis(101), "{:?}", start.elapsed());
    gate.release.notify_one();
    leader.await.unwrap();
    assert_eq!(bench.provider.sets.load(Ordering::SeqCst), 1, "it did land");
    assert_eq!(value(&bench, &key).await, None);
    assert_eq!(bench.cache.stats().keys_retired, 1);
}

/// Pitfall 6: a removal that failed must not let the old value live again.
#[tokio::test(start_paused = true)]
async fn removal_that_could_not_be_carried_out_still_holds() {
    for mood in [Mood::Fail, Mood::Hang, Mood::Panic] {
        let bench = Bench::new();
        let key = bench.key("k");
        let elsewhere = bench.cache.keys().space("elsewhere").key(["k"]);
        bench.cache.set_many(vec![(key.clone(), 1_u64), (elsewhere.clone(), 1)], &POLICY).await;
        bench.provider.writes_be(mood);
        bench.cache.invalidate(&key).await;
        assert_eq!(value(&bench, &key).await, None, "{mood:?}");
        bench.provider.writes_be(Mood::Work);
        assert_eq!(value(&bench, &key).await, None, "{mood:?}");
        assert_eq!(value(&bench, &elsewhere).await, Some(1), "other spaces are spared");
        assert_eq!(load(&bench, &key, 2).await, 2);
        assert_eq!(value(&bench, &key).await, Some(2));
    }
}

#[tokio::test(start_paused = true)]
async fn space_and_all_can_be_invalidated_while_the_provider_is_down() {
    let bench = Bench::new();
    let key = bench.key("k");
    let elsewhere = bench.cache.keys().space("elsewhere").key(["k"]);
    bench.cache.set_many(vec![(key.clone(), 1_u64), (elsewhere.clone(), 1)], &POLICY).await;
    bench.provider.writes_be(Mood::Hang);
    bench.cache.invalidate_space(&key.space()).await;
    assert_eq!(value(&bench, &key).await, None);
    assert_eq!(value(&bench, &elsewhere).await, Some(1));
    bench.cache.clear().await;
    assert_eq!(value(&bench, &elsewhere).await, None);
}

#[tokio::test(start_paused = true)]
async fn set_that_could_not_be_carried_out_does_not_leave_the_older_value() {
    for (mood, in_a_batch) in
        [(Mood::Fail, false), (Mood::Hang, false), (Mood::Fail, true), (Mood::Hang, true)]
    {
        let bench = Bench::new();
        let key = bench.key("k");
        bench.cache.set(&key, 1_u64, &POLICY).await;
        bench.provider.writes_be(mood);
        if in_a_batch {
            bench.cache.set_many(vec![(key.clone(), 2_u64)], &POLICY).await;
        } else {
            bench.cache.set(&key, 2_u64, &POLICY).await;
        }
        bench.provider.writes_be(Mood::Work);
        assert_eq!(value(&bench, &key).await, None, "{mood:?}, in a batch: {in_a_batch}");
    }
}

#[tokio::test]
async fn clear_stays_within_its_prefix() {
    let bench = Bench::new();
    let other = Cache::builder(bench.provider.clone(), bench.clock.clone()).key_prefix("other").build();
    let other_key = other.keys().space("things").key(["k"]);
    other.set(&other_key, 1_u64, &POLICY).await;
    bench.cache.set(&bench.key("k"), 1_u64, &POLICY).await;
    bench.cache.clear().await;
    assert_eq!(value(&bench, &bench.key("k")).await, None);
    assert!(other.get::<u64>(&other_key).await.is_some());
}

/// Readers, loaders and invalidators at once: after an invalidation has returned, nobody may see a value from before it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn under_contention_nothing_old_is_ever_seen_after_its_invalidation() {
    use std::sync::Arc;
    use std::sync::atomic::AtomicU64;

    let bench = Bench::new();
    let truth = Arc::new(AtomicU64::new(0));
    let confirmed = Arc::new(AtomicU64::new(0));
    let key = bench.key("k");
    let mut tasks = Vec::new();
    for reader in 0..8_u64 {
        let (cache, key) = (bench.cache.clone(), key.clone());
        let (truth, confirmed) = (Arc::clone(&truth), Arc::clone(&confirmed));
        tasks.push(tokio::spawn(async move {
            for round in 0..2_000_u64 {
                let at_least = confirmed.load(Ordering::SeqCst);
                let load = || async {
                    let read = truth.load(Ordering::SeqCst);
                    if (round + reader) % 3 == 0 {
                        tokio::task::yield_now().await;
                    }
                    Loaded::Ok(Some(read))
                };
                let seen = *cache.get_or_load(&key, &POLICY, load).await.unwrap().unwrap();
                assert!(seen >= at_least, "saw {seen}, {at_least} was confirmed before");
                tokio::task::yield_now().await;
            }
        }));
    }
    let (cache, writer_key) = (bench.cache.clone(), key.clone());
    tasks.push(tokio::spawn(async move {
        for version in 1..=2_000 {
            truth.store(version, Ordering::SeqCst);
            if version % 10 == 0 {
                cache.invalidate_space(&writer_key.space()).await;
            } else {
                cache.invalidate(&writer_key).await;
            }
            confirmed.store(version, Ordering::SeqCst);
            tokio::task::yield_now().await;
        }
    }));
    for task in tasks {
        task.await.unwrap();
    }
    let stats = bench.cache.stats();
    assert!(stats.hits > 0 && stats.loads > 100, "{stats:?}");
}
