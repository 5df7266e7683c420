//! Several processes over one backend: one load, no fill after an invalidation, nothing back from before an outage.
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
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use recache_cache::{Cache, Coherence, Key, Policy, TagSlots, Usage};
use support::POLICY;
use support::shared::{Fleet, Shape};
use tokio::sync::Notify;
use tokio::time::{Instant, sleep, timeout};

const SHAPES: [Shape; 3] = [Shape::Far, Shape::Tiered, Shape::TieredSilent];
const SECOND: Duration = Duration::from_secs(1);

async fn load(cache: &Cache, key: &Key, value: u64) -> Option<u64> {
    let loader = || async move { Ok::<_, Infallible>(Some(value)) };
    cache.get_or_load(key, &POLICY, loader).await.unwrap().as_deref().copied()
}

async fn read(cache: &Cache, key: &Key) -> Option<u64> {
    cache.get::<u64>(key).await.as_deref().copied()
}

#[tokio::test(start_paused = true)]
async fn two_hundred_callers_on_ten_nodes_load_once() {
    for shape in SHAPES {
        let fleet = Arc::new(Fleet::new(shape, 10));
        let loads = Arc::new(AtomicU64::new(0));
        let began = Instant::now();
        let mut callers = Vec::new();
        for cache in fleet.caches.iter().flat_map(|cache| vec![cache.clone(); 20]) {
            let (loads, key) = (Arc::clone(&loads), fleet.key("k"));
            callers.push(tokio::spawn(async move {
                let loader = || async {
                    loads.fetch_add(1, Ordering::SeqCst);
                    sleep(Duration::from_millis(100)).await;
                    Ok::<_, Infallible>(Some(7_u64))
                };
                cache.get_or_load(&key, &POLICY, loader).await.unwrap()
            }));
        }
        for caller in callers {
            assert_eq!(caller.await.unwrap().as_deref(), Some(&7));
        }
        assert_eq!(loads.load(Ordering::SeqCst), 1, "{shape:?}");
        assert!(began.elapsed() <= Duration::from_millis(150), "{shape:?}: {:?}", began.elapsed());
    }
}

/// Begins a load on node 0, calls `outdate` on node 1 meanwhile, and says what the next readers get.
async fn outdated_elsewhere<F: Future>(shape: Shape, outdate: impl FnOnce(Cache, Key) -> F) {
    let fleet = Fleet::new(shape, 2);
    let key = fleet.key("k");
    let (began, go) = (Arc::new(Notify::new()), Arc::new(Notify::new()));
    let loader = {
        let (cache, key, began, go) = (fleet.caches[0].clone(), key.clone(), began.clone(), go.clone());
        tokio::spawn(async move {
            let load = || async {
                began.notify_one();
                go.notified().await;
                Ok::<_, Infallible>(Some(1_u64))
            };
            let policy = Policy::new(Duration::from_mins(1)).tags(TagSlots::of(["red"]).unwrap());
            cache.get_or_load(&key, &policy, load).await.unwrap()
        })
    };
    began.notified().await;
    outdate(fleet.caches[1].clone(), key.clone()).await;
    go.notify_one();
    assert_eq!(loader.await.unwrap().as_deref(), Some(&1), "who waited before is served");
    let strict = Usage::user("strict", Coherence::Strict);
    for cache in &fleet.caches {
        assert_eq!(read(&cache.for_usage(&strict), &key).await, None, "{shape:?}, strict");
    }
    sleep(SECOND).await;
    for cache in &fleet.caches {
        assert_ne!(read(cache, &key).await, Some(1), "{shape:?}");
        assert_eq!(load(cache, &key, 2).await, Some(2), "{shape:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn invalidation_on_another_node_beats_a_running_load() {
    for shape in SHAPES {
        outdated_elsewhere(shape, |cache, key| async move { cache.invalidate(&key).await }).await;
    }
}

#[tokio::test(start_paused = true)]
async fn invalidating_a_tag_on_another_node_beats_a_running_load() {
    for shape in SHAPES {
        outdated_elsewhere(shape, |cache, _| async move { cache.invalidate_tag("red").await }).await;
    }
}

#[tokio::test(start_paused = true)]
async fn invalidating_the_space_on_another_node_beats_a_running_load() {
    for shape in SHAPES {
        outdated_elsewhere(shape, |cache, key| async move { cache.invalidate_space(&key.space()).await })
            .await;
    }
}

#[tokio::test(start_paused = true)]
async fn clearing_on_another_node_beats_a_running_load() {
    for shape in SHAPES {
        outdated_elsewhere(shape, |cache, _| async move { cache.clear().await }).await;
    }
}

#[tokio::test(start_paused = true)]
async fn set_on_another_node_is_not_overwritten_by_a_running_load() {
    for shape in SHAPES {
        let fleet = Fleet::new(shape, 2);
        let key = fleet.key("k");
        let loader = {
            let (cache, key) = (fleet.caches[0].clone(), key.clone());
            tokio::spawn(async move {
                let slow = || async {
                    sleep(SECOND).await;
                    Ok::<_, Infallible>(Some(1_u64))
                };
                cache.get_or_load(&key, &POLICY, slow).await.unwrap()
            })
        };
        sleep(SECOND / 2).await;
        fleet.caches[1].set(&key, 2_u64, &POLICY).await;
        loader.await.unwrap();
        sleep(SECOND).await;
        for cache in &fleet.caches {
            assert_eq!(read(cache, &key).await, Some(2), "{shape:?}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn leader_that_goes_away_leaves_the_others_served_soon() {
    for shape in SHAPES {
        let fleet = Fleet::new(shape, 2);
        let key = fleet.key("k");
        let stuck = || std::future::pending::<Result<Option<u64>, Infallible>>();
        let gone = timeout(SECOND, fleet.caches[0].get_or_load(&key, &POLICY, stuck)).await;
        assert!(gone.is_err());
        let began = Instant::now();
        assert_eq!(load(&fleet.caches[1], &key, 2).await, Some(2));
        assert!(began.elapsed() < SECOND, "{shape:?}: the lease was given back");
    }
}

#[tokio::test(start_paused = true)]
async fn killed_leader_costs_the_others_its_lease_and_its_late_fill_is_refused() {
    for shape in SHAPES {
        let fleet = Fleet::new(shape, 2);
        let key = fleet.key("k");
        let policy = POLICY.lease_for(SECOND * 3);
        let late = {
            let (cache, key) = (fleet.caches[0].clone(), key.clone());
            tokio::spawn(async move {
                let slow = || async {
                    sleep(SECOND * 60).await;
                    Ok::<_, Infallible>(Some(1_u64))
                };
                cache.get_or_load(&key, &policy, slow).await.unwrap()
            })
        };
        sleep(SECOND / 10).await;
        let began = Instant::now();
        assert_eq!(load(&fleet.caches[1], &key, 2).await, Some(2));
        assert!(began.elapsed() <= SECOND * 4, "{shape:?}: {:?}", began.elapsed());
        assert_eq!(late.await.unwrap().as_deref(), Some(&1));
        assert_eq!(read(&fleet.caches[1], &key).await, Some(2), "{shape:?}");
        assert!(fleet.caches[0].stats().fills_refused >= 1, "{shape:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn values_deleted_during_an_outage_never_come_back() {
    for shape in SHAPES {
        let fleet = Fleet::new(shape, 2);
        let policy = Policy::new(Duration::from_hours(1)).tags(TagSlots::of(["red"]).unwrap());
        let names = ["deleted", "tagged", "kept"];
        for cache in &fleet.caches {
            for name in names {
                cache.set(&fleet.key(name), 1_u64, &policy).await;
                assert_eq!(read(cache, &fleet.key(name)).await, Some(1));
            }
        }
        for node in &fleet.nodes {
            node.cut_off(true);
        }
        let token = fleet.caches[0].invalidate(&fleet.key("deleted")).await;
        assert!(!token.is_confirmed(), "{shape:?}");
        assert_eq!(read(&fleet.caches[0], &fleet.key("deleted")).await, None, "{shape:?}, during the outage");
        sleep(SECOND * 10).await;
        for node in &fleet.nodes {
            node.cut_off(false);
        }
        assert_eq!(read(&fleet.caches[0], &fleet.key("deleted")).await, None, "{shape:?}, at once after it");
        assert!(fleet.server.holds(&fleet.key("deleted")), "the server still has it: nobody could delete it");
        sleep(SECOND * 6).await;
        for cache in &fleet.caches {
            assert_eq!(read(cache, &fleet.key("deleted")).await, None, "{shape:?}, on every node");
            assert_eq!(read(cache, &fleet.key("kept")).await, Some(1), "{shape:?}, others stay");
            assert!(cache.health().await.is_healthy, "{shape:?}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn strict_usages_see_nothing_from_before_an_outage_that_their_node_noticed() {
    for shape in SHAPES {
        let fleet = Fleet::new(shape, 2);
        let key = fleet.key("k");
        let strict = Usage::user("strict", Coherence::Strict);
        let caches: Vec<_> = fleet.caches.iter().map(|cache| cache.for_usage(&strict)).collect();
        caches[0].set(&key, 1_u64, &POLICY).await;
        assert_eq!(read(&caches[1], &key).await, Some(1));
        for node in &fleet.nodes {
            node.cut_off(true);
        }
        assert!(!caches[0].invalidate(&key).await.is_confirmed());
        sleep(SECOND * 3).await;
        // Node 1 comes back first, and nobody has told it anything.
        fleet.nodes[1].cut_off(false);
        assert_eq!(read(&caches[1], &key).await, None, "{shape:?}");
        fleet.nodes[0].cut_off(false);
        sleep(SECOND).await;
        assert_eq!(read(&caches[1], &key).await, None, "{shape:?}");
        assert_eq!(load(&caches[1], &key, 2).await, Some(2));
        assert_eq!(read(&caches[0], &key).await, Some(2));
    }
}

#[tokio::test(start_paused = true)]
async fn lost_epochs_end_everything_that_was_stored_under_them() {
    for shape in SHAPES {
        let fleet = Fleet::new(shape, 2);
        let key = fleet.key("k");
        fleet.caches[0].set(&key, 1_u64, &POLICY).await;
        assert_eq!(read(&fleet.caches[1], &key).await, Some(1));
        fleet.server.lose_epochs();
        sleep(SECOND).await;
        for cache in &fleet.caches {
            assert_eq!(read(cache, &key).await, None, "{shape:?}");
        }
        assert_eq!(load(&fleet.caches[0], &key, 2).await, Some(2));
        assert_eq!(read(&fleet.caches[1], &key).await, Some(2));
    }
}

#[tokio::test(start_paused = true)]
async fn copies_are_dropped_when_another_node_changes_their_entry() {
    for shape in [Shape::Tiered, Shape::TieredSilent] {
        let fleet = Fleet::warm(shape, 2).await;
        let key = fleet.key("k");
        assert_eq!(load(&fleet.caches[0], &key, 1).await, Some(1));
        assert_eq!(read(&fleet.caches[1], &key).await, Some(1));
        let before = fleet.server.gets.load(Ordering::SeqCst);
        assert_eq!(read(&fleet.caches[1], &key).await, Some(1));
        assert_eq!(fleet.server.gets.load(Ordering::SeqCst), before, "{shape:?}: answered by the copy");
        assert!(fleet.caches[0].invalidate(&key).await.is_confirmed());
        sleep(SECOND * 6 / 10).await;
        assert_eq!(read(&fleet.caches[1], &key).await, None, "{shape:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn copies_of_a_node_that_hears_nothing_are_not_served_for_longer_than_the_lag() {
    let fleet = Fleet::warm(Shape::Tiered, 2).await;
    let key = fleet.key("k");
    assert_eq!(load(&fleet.caches[0], &key, 1).await, Some(1));
    assert_eq!(read(&fleet.caches[1], &key).await, Some(1));
    // A silent partition: its messages end, and nobody says so. All else works.
    fleet.server.unhook(1);
    fleet.caches[0].invalidate(&key).await;
    let began = Instant::now();
    while read(&fleet.caches[1], &key).await.is_some() {
        assert!(began.elapsed() <= SECOND * 2, "stale beyond the lag");
        sleep(Duration::from_millis(50)).await;
    }
}

#[tokio::test(start_paused = true)]
async fn node_that_is_cut_off_serves_copies_for_the_lag_and_then_nothing() {
    for shape in [Shape::Tiered, Shape::TieredSilent] {
        let fleet = Fleet::warm(shape, 2).await;
        let key = fleet.key("k");
        assert_eq!(load(&fleet.caches[1], &key, 1).await, Some(1));
        fleet.nodes[1].cut_off(true);
        assert_eq!(read(&fleet.caches[1], &key).await, Some(1), "{shape:?}");
        sleep(SECOND * 3).await;
        assert_eq!(read(&fleet.caches[1], &key).await, None, "{shape:?}");
        fleet.nodes[1].cut_off(false);
        sleep(SECOND).await;
        assert_eq!(read(&fleet.caches[1], &key).await, Some(1), "{shape:?}: it was not changed");
    }
}

#[tokio::test(start_paused = true)]
async fn who_changed_something_reads_it_on_any_node_by_his_token() {
    for shape in SHAPES {
        let fleet = Fleet::new(shape, 2);
        let key = fleet.key("k");
        let session = Usage::user("session", Coherence::Session);
        let caches: Vec<_> = fleet.caches.iter().map(|cache| cache.for_usage(&session)).collect();
        caches[0].set(&key, 1_u64, &POLICY).await;
        assert_eq!(read(&caches[1], &key).await, Some(1));
        let token = caches[0].invalidate_space(&key.space()).await;
        let token = token.to_string().parse().unwrap();
        assert_eq!(read(&caches[1].after(&token), &key).await, None, "{shape:?}, space");
        let token = caches[0].set(&key, 2_u64, &POLICY).await;
        assert_eq!(read(&caches[1].after(&token), &key).await, Some(2), "{shape:?}");
        let token = caches[0].set(&key, 3_u64, &POLICY).await;
        assert_eq!(read(&caches[1].after(&token), &key).await, Some(3), "{shape:?}, key");
    }
}

#[tokio::test(start_paused = true)]
async fn batches_that_overlap_on_two_nodes_wait_for_each_other_without_standing_still() {
    for shape in SHAPES {
        let fleet = Fleet::new(shape, 2);
        let names = ["a", "b", "c", "d"].map(|name| fleet.key(name));
        let loads = Arc::new(AtomicU64::new(0));
        let run = |cache: Cache, keys: Vec<Key>| {
            let loads = Arc::clone(&loads);
            tokio::spawn(async move {
                let loader = |missing: Vec<Key>| {
                    loads.fetch_add(u64::try_from(missing.len()).unwrap(), Ordering::SeqCst);
                    async move {
                        sleep(Duration::from_millis(100)).await;
                        Ok::<_, Infallible>(missing.iter().map(|key| Some(key.as_str().to_owned())).collect())
                    }
                };
                cache.get_or_load_many(&keys, &POLICY, loader).await.unwrap()
            })
        };
        let forward = run(fleet.caches[0].clone(), names.to_vec());
        let backward = run(fleet.caches[1].clone(), names.iter().rev().cloned().collect());
        let (forward, backward) = (forward.await.unwrap(), backward.await.unwrap());
        for (at, key) in names.iter().enumerate() {
            assert_eq!(forward[at].as_ref().unwrap().as_str(), key.as_str());
            assert_eq!(backward[3 - at].as_ref().unwrap().as_str(), key.as_str());
        }
        assert_eq!(loads.load(Ordering::SeqCst), 4, "{shape:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_lease_whose_answer_was_lost_is_given_back() {
    for shape in SHAPES {
        let fleet = Fleet::new(shape, 2);
        let key = fleet.key("k");
        fleet.nodes[0].lose_next_lease();
        assert_eq!(load(&fleet.caches[0], &key, 1).await, Some(1), "{shape:?}");
        let began = Instant::now();
        assert_eq!(load(&fleet.caches[1], &key, 2).await, Some(2), "{shape:?}");
        assert!(began.elapsed() < SECOND, "{shape:?}: waited {:?} for nobody", began.elapsed());
    }
}

#[tokio::test(start_paused = true)]
async fn a_lease_held_when_an_outage_began_is_given_back_after_it() {
    for shape in SHAPES {
        let fleet = Fleet::new(shape, 2);
        let key = fleet.key("k");
        let loader = || async {
            fleet.nodes[0].cut_off(true);
            Ok::<_, Infallible>(Some(1_u64))
        };
        let loaded = fleet.caches[0].get_or_load(&key, &POLICY, loader).await.unwrap();
        assert_eq!(loaded.as_deref(), Some(&1), "{shape:?}");
        sleep(SECOND).await;
        fleet.nodes[0].cut_off(false);
        let began = Instant::now();
        assert_eq!(load(&fleet.caches[1], &key, 2).await, Some(2), "{shape:?}");
        assert!(began.elapsed() < 2 * SECOND, "{shape:?}: waited {:?} for nobody", began.elapsed());
    }
}
