//! What a caller gets back, and for how long.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    missing_docs,
    reason = "a test says what it expects"
)]

#[allow(dead_code, reason = "each test file uses a part of it")]
mod support;

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use bytes::Bytes;
use proptest::prelude::*;
use recache_cache::provider::Capability;
use recache_cache::provider::Item;
use recache_cache::{Codec, Policy, Provider};
use serde::{Deserialize, Serialize};
use support::{Bench, Mood, policy};

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct Price {
    cents: u64,
    #[serde(skip_serializing_if = "Option::is_none", default)]
    note: Option<String>,
    rate: f64,
}

fn price() -> Price {
    Price { cents: 1_299, note: None, rate: 0.1 + 0.2 }
}

#[tokio::test]
async fn set_value_comes_back_until_its_time_is_over() {
    let bench = Bench::new();
    let key = bench.key("k");
    bench.cache.set(&key, price(), &Policy::new(Duration::from_secs(1))).await;
    bench.clock.advance(Duration::from_millis(999));
    assert_eq!(bench.cache.get::<Price>(&key).await.as_deref(), Some(&price()));
    bench.clock.advance(Duration::from_millis(1));
    assert_eq!(bench.cache.get::<Price>(&key).await, None);
    let stats = bench.cache.stats();
    assert_eq!((stats.hits, stats.misses, stats.stale_hits), (1, 1, 0));
}

#[tokio::test]
async fn each_entry_has_its_own_time() {
    let bench = Bench::new();
    for seconds in [1, 2, 3] {
        let key = bench.key(&seconds.to_string());
        bench.cache.set(&key, seconds, &Policy::new(Duration::from_secs(seconds))).await;
    }
    bench.clock.advance(Duration::from_secs(2));
    let held = bench.cache.get_many::<u64>(&["1", "2", "3"].map(|name| bench.key(name))).await;
    assert_eq!(held.iter().map(Option::is_some).collect::<Vec<_>>(), [false, false, true]);
}

#[tokio::test]
async fn kept_value_is_given_out_marked_as_stale() {
    let bench = Bench::new();
    let key = bench.key("k");
    let policy = Policy::new(Duration::from_secs(10)).keep_for(Duration::from_secs(30));
    bench.cache.set(&key, 7_u64, &policy).await;
    bench.clock.advance(Duration::from_secs(9));
    let fresh = bench.cache.lookup::<u64>(&key).await.unwrap();
    assert!(fresh.is_fresh);
    bench.clock.advance(Duration::from_secs(11));
    assert_eq!(bench.cache.get::<u64>(&key).await, None);
    let stale = bench.cache.lookup::<u64>(&key).await.unwrap();
    assert_eq!(
        (stale.value.as_deref(), stale.is_fresh, stale.age),
        (Some(&7), false, Duration::from_secs(20))
    );
    bench.clock.advance(Duration::from_secs(10));
    assert!(bench.cache.lookup::<u64>(&key).await.is_none());
    let stats = bench.cache.stats();
    assert_eq!((stats.hits, stats.stale_hits, stats.misses), (1, 2, 1));
}

#[tokio::test]
async fn stale_value_is_loaded_anew() {
    let bench = Bench::new();
    let key = bench.key("k");
    let policy = Policy::new(Duration::from_secs(10)).keep_for(Duration::from_secs(30));
    bench.cache.set(&key, 1_u64, &policy).await;
    bench.clock.advance(Duration::from_secs(20));
    let loaded = bench.cache.get_or_load(&key, &policy, || async { Ok::<_, Infallible>(Some(2_u64)) }).await;
    assert_eq!(loaded.unwrap().as_deref(), Some(&2));
    assert_eq!(bench.cache.get::<u64>(&key).await.as_deref(), Some(&2));
}

#[tokio::test]
async fn hit_gives_the_very_value_that_was_loaded() {
    let bench = Bench::new();
    let key = bench.key("k");
    let load = || async { Ok::<_, Infallible>(Some(Arc::<str>::from("item"))) };
    let loaded = bench.cache.get_or_load(&key, &policy(), load).await.unwrap().unwrap();
    let hit = bench.cache.get_or_load(&key, &policy(), load).await.unwrap().unwrap();
    assert!(Arc::ptr_eq(&loaded, &hit));
    assert_eq!(bench.cache.stats().loads, 1);
}

#[tokio::test]
async fn age_counts_from_the_beginning_of_the_load() {
    let bench = Bench::new();
    let key = bench.key("k");
    let load = || async {
        bench.clock.advance(Duration::from_secs(20));
        Ok::<_, Infallible>(Some(1_u64))
    };
    bench.cache.get_or_load(&key, &policy().keep_for(Duration::from_secs(100)), load).await.unwrap();
    let answer = bench.cache.lookup::<u64>(&key).await.unwrap();
    assert_eq!((answer.age, answer.build_cost), (Duration::from_secs(20), Duration::from_secs(20)));
    bench.clock.advance(Duration::from_secs(40));
    assert!(!bench.cache.lookup::<u64>(&key).await.unwrap().is_fresh);
    bench.clock.advance(Duration::from_secs(40));
    assert!(bench.cache.lookup::<u64>(&key).await.is_none());
}

#[tokio::test]
async fn load_that_outlives_its_policy_is_served_and_not_stored() {
    let bench = Bench::new();
    let key = bench.key("k");
    let load = || async {
        bench.clock.advance(Duration::from_mins(1));
        Ok::<_, Infallible>(Some(1_u64))
    };
    assert_eq!(bench.cache.get_or_load(&key, &policy(), load).await.unwrap().as_deref(), Some(&1));
    assert_eq!(bench.provider.sets.load(Ordering::SeqCst), 0);
    assert_eq!(bench.cache.stats().fills_refused, 1);
}

#[tokio::test]
async fn absent_answer_is_cached_only_when_asked_for() {
    let bench = Bench::new();
    let load = || async { Ok::<_, Infallible>(None::<u64>) };
    let (plain, negative) = (bench.key("plain"), bench.key("negative"));
    let remembering = policy().negative_for(Duration::from_secs(5));
    for _ in 0..2 {
        assert_eq!(bench.cache.get_or_load(&plain, &policy(), load).await.unwrap(), None);
        assert_eq!(bench.cache.get_or_load(&negative, &remembering, load).await.unwrap(), None);
    }
    assert_eq!(bench.cache.stats().loads, 3);
    assert_eq!(bench.cache.lookup::<u64>(&negative).await.unwrap().value, None);
    bench.clock.advance(Duration::from_secs(5));
    bench.cache.get_or_load(&negative, &remembering, load).await.unwrap();
    assert_eq!(bench.cache.stats().loads, 4);
}

#[tokio::test]
async fn zero_fresh_for_stores_nothing_and_set_with_it_removes() {
    let bench = Bench::new();
    let key = bench.key("k");
    bench.cache.set(&key, 1_u64, &policy()).await;
    bench.cache.set(&key, 2_u64, &Policy::new(Duration::ZERO)).await;
    assert!(bench.cache.lookup::<u64>(&key).await.is_none());
}

#[tokio::test]
async fn many_are_set_and_read_in_order() {
    let bench = Bench::new();
    let entries = vec![(bench.key("a"), 1_u64), (bench.key("b"), 2), (bench.key("a"), 3)];
    bench.cache.set_many(entries, &policy()).await;
    let keys = ["b", "missing", "a"].map(|name| bench.key(name));
    let held = bench.cache.get_many::<u64>(&keys).await;
    assert_eq!(
        held.iter().map(|value| value.as_deref().copied()).collect::<Vec<_>>(),
        [Some(2), None, Some(3)]
    );
    let stats = bench.cache.stats();
    assert_eq!((stats.hits, stats.misses), (2, 1));
}

#[tokio::test]
async fn delete_removes_one_value() {
    let bench = Bench::new();
    bench.cache.set_many(vec![(bench.key("a"), 1_u64), (bench.key("b"), 2)], &policy()).await;
    bench.cache.delete(&bench.key("a")).await;
    assert!(bench.cache.get::<u64>(&bench.key("a")).await.is_none());
    assert!(bench.cache.get::<u64>(&bench.key("b")).await.is_some());
}

#[tokio::test]
async fn value_of_another_type_is_a_counted_miss() {
    let bench = Bench::new();
    let key = bench.key("k");
    bench.cache.set(&key, "text".to_owned(), &policy()).await;
    assert!(bench.cache.get::<u64>(&key).await.is_none());
    assert_eq!(bench.cache.get::<Arc<str>>(&key).await.as_deref().map(AsRef::as_ref), Some("text"));
    let stats = bench.cache.stats();
    assert_eq!((stats.decode_errors, stats.misses, stats.hits), (1, 1, 1));
}

#[tokio::test]
async fn foreign_bytes_are_a_counted_miss_and_are_replaced_by_the_next_load() {
    let bench = Bench::new();
    let key = bench.key("k");
    bench.provider.set(&key, Item::from(Bytes::from_static(b"{}")), Duration::from_mins(1)).await.unwrap();
    let loaded =
        bench.cache.get_or_load(&key, &policy(), || async { Ok::<_, Infallible>(Some(5_u64)) }).await;
    assert_eq!(loaded.unwrap().as_deref(), Some(&5));
    assert_eq!(bench.cache.get::<u64>(&key).await.as_deref(), Some(&5));
    assert_eq!(bench.cache.stats().decode_errors, 1);
}

#[tokio::test]
async fn entry_moved_under_another_key_is_not_served() {
    let bench = Bench::new();
    let (mine, other) = (bench.key("mine"), bench.key("other"));
    bench.cache.set(&mine, 1_u64, &policy()).await;
    let bytes = bench.provider.get(&mine).await.unwrap().unwrap().bytes.clone();
    bench.provider.set(&other, Item::from(bytes), Duration::from_mins(1)).await.unwrap();
    assert!(bench.cache.get::<u64>(&other).await.is_none());
    assert_eq!(bench.cache.stats().decode_errors, 1);
}

#[tokio::test]
async fn value_that_cannot_be_written_is_not_stored_and_removes_the_old_one() {
    let bench = Bench::new();
    let key = bench.key("k");
    let by_pair = |value: u64| BTreeMap::from([((1_u8, 2_u8), value)]);
    bench.cache.set(&key, by_pair(1), &policy().codec(Codec::Postcard)).await;
    assert!(bench.cache.get::<BTreeMap<(u8, u8), u64>>(&key).await.is_some());
    bench.cache.set(&key, by_pair(2), &policy()).await;
    assert!(bench.cache.get::<BTreeMap<(u8, u8), u64>>(&key).await.is_none());
    assert_eq!(bench.cache.stats().encode_errors, 1);
}

#[tokio::test]
async fn value_beyond_the_limit_is_not_offered_to_the_provider() {
    let bench = Bench::new();
    let key = bench.key("k");
    let limit = bench.provider.capabilities().limit(Capability::MaxValueBytes).unwrap();
    let load = || async { Ok::<_, Infallible>(Some("x".repeat(limit))) };
    assert_eq!(bench.cache.get_or_load(&key, &policy(), load).await.unwrap().unwrap().len(), limit);
    assert_eq!(bench.provider.sets.load(Ordering::SeqCst), 0);
    assert_eq!(bench.cache.stats().too_large, 1);
}

/// Pitfall 12: the cache is never the truth. Whatever it does, answers come from the loader, and errors are the loader's.
#[tokio::test]
async fn broken_cache_changes_no_answer() {
    let bench = Bench::new();
    let key = bench.key("k");
    bench.cache.set(&key, 1_u64, &policy()).await;
    for mood in [Mood::Fail, Mood::Panic] {
        bench.provider.be(mood);
        assert!(bench.cache.get::<u64>(&key).await.is_none());
        let loaded =
            bench.cache.get_or_load(&key, &policy(), || async { Ok::<_, String>(Some(2_u64)) }).await;
        assert_eq!(loaded.unwrap().as_deref(), Some(&2));
        let failed =
            bench.cache.get_or_load(&key, &policy(), || async { Err::<Option<u64>, _>("gone") }).await;
        assert_eq!(failed.unwrap_err().loader_error(), Some(&"gone"));
        assert_eq!(bench.cache.get_many::<u64>(std::slice::from_ref(&key)).await, [None]);
        bench.cache.set_many(vec![(key.clone(), 3_u64)], &policy()).await;
        bench.cache.delete(&key).await;
        bench.cache.clear().await;
    }
    assert!(bench.cache.stats().provider_errors >= 16, "{:?}", bench.cache.stats());
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// Through bytes, not through the value that is kept beside them.
    #[test]
    fn values_survive_both_codecs(cents: u64, note: Option<String>, rate in any::<f64>().prop_filter("JSON has no NaN", |rate| rate.is_finite())) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
        runtime.block_on(async {
            let bench = Bench::new();
            let key = bench.key("k");
            let value = Price { cents, note: Some(note.unwrap_or_default()), rate };
            for codec in [Codec::Json, Codec::Postcard] {
                bench.cache.set(&key, value.clone(), &policy().codec(codec)).await;
                let bytes = bench.provider.get(&key).await.unwrap().unwrap().bytes.clone();
                bench.provider.set(&key, Item::from(bytes), Duration::from_mins(1)).await.unwrap();
                assert_eq!(bench.cache.get::<Price>(&key).await.as_deref(), Some(&value));
            }
        });
    }
}
