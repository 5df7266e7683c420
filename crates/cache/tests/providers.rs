//! Every provider runs the one conformance suite; its capability table is pinned beside it.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    missing_docs,
    reason = "a test says what it expects"
)]

mod conformance;

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use recache_cache::provider::{Item, Moka, Near, Noop, Source};
use recache_cache::{Clock, KeyPrefix, ManualClock, Provider};

use crate::conformance::{World, conformance};

fn moka(clock: Arc<ManualClock>) -> Moka {
    Moka::new(10_000, 128 << 20, clock)
}

fn near(clock: Arc<ManualClock>) -> Near {
    Near::new(10_000, 128 << 20, clock)
}

conformance!(moka_provider, async |prefix| {
    let clock = Arc::new(ManualClock::default());
    World::moved(prefix, Arc::clone(&clock), Arc::new(moka(clock)))
});
conformance!(near_provider, async |prefix| {
    let clock = Arc::new(ManualClock::default());
    World::moved(prefix, Arc::clone(&clock), Arc::new(near(clock)))
});
conformance!(noop_provider, async |prefix| World::moved(prefix, Arc::default(), Arc::new(Noop)));

/// The whole table of a provider, as `name: value`.
fn table(provider: &dyn Provider) -> Vec<String> {
    let capabilities = provider.capabilities();
    assert!(capabilities.rows().all(|row| row.source == Source::Declared));
    let rows = capabilities.rows().map(|row| format!("{}: {}", row.capability.name(), row.value));
    rows.chain([format!("coherence: {}", capabilities.coherence())]).collect()
}

#[test]
fn moka_capabilities() {
    let expected = [
        "retains: yes",
        "shared: no",
        "atomic_increment: no",
        "compare_and_swap: yes",
        "set_if_absent: no",
        "leases: no",
        "ttl_inspection: no",
        "namespaces: yes",
        "tags: yes",
        "batch: yes",
        "push_invalidation: no",
        "max_key_bytes: unlimited",
        "max_value_bytes: 8388608",
        "coherence: eventual",
    ];
    assert_eq!(table(&moka(Arc::default())), expected);
}

#[test]
fn near_capabilities() {
    let expected = [
        "retains: yes",
        "shared: no",
        "atomic_increment: no",
        "compare_and_swap: yes",
        "set_if_absent: no",
        "leases: no",
        "ttl_inspection: no",
        "namespaces: yes",
        "tags: yes",
        "batch: yes",
        "push_invalidation: no",
        "max_key_bytes: unlimited",
        "max_value_bytes: 4193770",
        "coherence: eventual",
    ];
    assert_eq!(table(&near(Arc::default())), expected);
}

#[test]
fn noop_capabilities() {
    let expected = [
        "retains: no",
        "shared: no",
        "atomic_increment: no",
        "compare_and_swap: no",
        "set_if_absent: no",
        "leases: no",
        "ttl_inspection: no",
        "namespaces: yes",
        "tags: no",
        "batch: yes",
        "push_invalidation: no",
        "max_key_bytes: unlimited",
        "max_value_bytes: unlimited",
        "coherence: strict",
    ];
    assert_eq!(table(&Noop), expected);
}

async fn fill(moka: &Moka, count: usize, value_bytes: usize) -> usize {
    let space = KeyPrefix::new("p").space("s");
    let keys: Vec<_> = (0..count).map(|number| space.key([number.to_string()])).collect();
    for key in &keys {
        let item = Item::from(Bytes::from(vec![7; value_bytes]));
        moka.set(key, item, Duration::from_mins(1)).await.unwrap();
    }
    moka.tidy();
    moka.get_many(&keys).await.unwrap().iter().flatten().count()
}

#[tokio::test]
async fn moka_holds_small_entries_up_to_its_capacity_and_counts_evictions() {
    let moka = Moka::new(100, 128 << 20, Arc::new(ManualClock::default()));
    assert_eq!(fill(&moka, 100, 10).await, 100);
    assert_eq!(moka.evictions(), Some(0));
    let held = fill(&moka, 1_000, 10).await;
    assert!((1..=100).contains(&held), "{held} held");
    assert!(moka.evictions() >= Some(900), "{:?}", moka.evictions());
}

#[tokio::test]
async fn moka_holds_large_entries_up_to_its_bytes() {
    let moka = Moka::new(10_000, 1 << 20, Arc::new(ManualClock::default()));
    let held = fill(&moka, 1_000, 16 << 10).await;
    assert!((25..=32).contains(&held), "{held} of 16 KiB, each twice, held in 1 MiB");
}

#[tokio::test]
async fn moka_limits_may_be_out_of_proportion() {
    let clock: Arc<dyn Clock> = Arc::new(ManualClock::default());
    for (capacity, bytes_max) in
        [(0, 0), (1, 1 << 20), (u64::MAX, 1 << 20), (1 << 40, 1 << 20), (10, u64::MAX)]
    {
        let moka = Moka::new(capacity, bytes_max, Arc::clone(&clock));
        let held = fill(&moka, 3, 10).await;
        let fits = if bytes_max == 0 { 0 } else { 3.min(capacity.try_into().unwrap_or(3)) };
        assert_eq!(held, fits, "capacity {capacity}, {bytes_max} bytes");
    }
}
