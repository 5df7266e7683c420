//! What the near tier promises beyond what every provider does: its limits, its evictions, what a hit costs.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    missing_docs,
    reason = "a test says what it expects"
)]

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use recache_cache::provider::{Error, Item, Near, Scope};
use recache_cache::{Clock, Key, KeyPrefix, ManualClock, Provider, Timestamp};

const KEEP_FOR: Duration = Duration::from_mins(1);

fn key(number: usize) -> Key {
    KeyPrefix::new("p").space("s").key([number.to_string()])
}

fn near(capacity: u64, bytes_max: u64) -> Near {
    Near::new(capacity, bytes_max, Arc::new(ManualClock::default()))
}

fn item(len: usize) -> Item {
    Item::from(Bytes::from(vec![7; len]))
}

fn held(near: &Near, count: usize) -> usize {
    (0..count).filter(|number| near.peek(&key(*number), Timestamp::default()).is_some()).count()
}

async fn fill(near: &Near, count: usize, len: usize) -> usize {
    for number in 0..count {
        near.set(&key(number), item(len), KEEP_FOR).await.unwrap();
    }
    held(near, count)
}

#[tokio::test]
async fn small_entries_reach_a_small_capacity_exactly_and_evictions_are_counted() {
    let near = near(100, 128 << 20);
    assert_eq!(fill(&near, 100, 10).await, 100);
    assert_eq!(near.evictions(), Some(0));
    let held = fill(&near, 1_000, 10).await;
    assert_eq!(held, 100);
    assert_eq!(near.entry_count(), 100);
    assert!((900..=1_000).contains(&near.evictions().unwrap()), "{:?}", near.evictions());
}

#[tokio::test]
async fn a_large_capacity_is_nearly_reached_and_never_exceeded() {
    let near = near(10_000, 1 << 30);
    let held_by_then = fill(&near, 9_500, 10).await;
    assert!(held_by_then >= 9_400, "{held_by_then} of 9,500");
    let held = fill(&near, 30_000, 10).await;
    assert!((9_900..=10_000).contains(&held), "{held} of 10,000");
}

#[tokio::test]
async fn large_entries_are_held_up_to_the_bytes() {
    let near = near(10_000, 8 << 20);
    let held = fill(&near, 1_000, 16 << 10).await;
    assert!((200..=256).contains(&held), "{held} of 16 KiB, each twice, held in 8 MiB");
}

#[tokio::test]
async fn replacing_an_entry_is_no_eviction() {
    let near = near(10, 1 << 20);
    for _ in 0..100 {
        near.set(&key(1), item(10), KEEP_FOR).await.unwrap();
    }
    assert_eq!(near.evictions(), Some(0));
    assert_eq!(near.entry_count(), 1);
}

#[tokio::test]
async fn what_is_too_large_is_refused_and_does_not_leave_the_old_entry_behind() {
    let near = near(1_000, 1 << 20);
    near.set(&key(1), item(10), KEEP_FOR).await.unwrap();
    let refused = near.set(&key(1), item(1 << 20), KEEP_FOR).await;
    assert!(matches!(refused, Err(Error::Refused { .. })), "{refused:?}");
    assert_eq!(held(&near, 2), 0);
    let limit = near.capabilities().limit(recache_cache::provider::Capability::MaxValueBytes).unwrap();
    near.set(&key(1), item(limit), KEEP_FOR).await.unwrap();
    assert_eq!(held(&near, 2), 1, "the limit itself fits");
}

#[tokio::test]
async fn limits_may_be_out_of_proportion() {
    for (capacity, bytes_max) in [(1, 1 << 20), (u64::MAX, 1 << 20), (1 << 40, 1 << 20), (10, u64::MAX)] {
        let near = near(capacity, bytes_max);
        let fits = 3.min(usize::try_from(capacity).unwrap_or(3));
        assert_eq!(fill(&near, 3, 10).await, fits, "capacity {capacity}, {bytes_max} bytes");
    }
    near(0, 0).set(&key(1), item(0), KEEP_FOR).await.unwrap_err();
}

#[tokio::test]
async fn an_entry_past_its_time_is_dropped_when_it_is_asked_for() {
    let clock = Arc::new(ManualClock::default());
    let near = Near::new(100, 1 << 20, clock.clone());
    near.set(&key(1), item(10), KEEP_FOR).await.unwrap();
    clock.advance(KEEP_FOR);
    assert_eq!(near.entry_count(), 1);
    assert!(near.peek(&key(1), clock.now()).is_none());
    assert_eq!(near.entry_count(), 0);
}

#[tokio::test]
async fn decoded_value_stays_beside_the_bytes_for_every_copy() {
    let near = near(100, 1 << 20);
    let given = item(10);
    near.set(&key(1), given.clone(), KEEP_FOR).await.unwrap();
    given.keep_decoded(Arc::new(42_u32));
    given.keep_decoded(Arc::new(43_u32));
    let found = near.get(&key(1)).await.unwrap().unwrap();
    assert_eq!(found.decoded().unwrap().downcast_ref(), Some(&42_u32), "the first one stays");
}

#[tokio::test]
async fn of_many_who_replace_what_they_saw_one_wins_each_time() {
    let near = Arc::new(near(100, 1 << 20));
    let number = |item: &Item| u64::from_le_bytes(item.bytes[..].try_into().unwrap());
    let numbered = |number: u64| Item::from(Bytes::copy_from_slice(&number.to_le_bytes()));
    near.set(&key(1), numbered(0), KEEP_FOR).await.unwrap();
    let raise = || {
        let near = Arc::clone(&near);
        std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
            runtime.block_on(async {
                for _ in 0..2_000 {
                    loop {
                        let seen = near.get(&key(1)).await.unwrap().unwrap();
                        let next = numbered(number(&seen) + 1);
                        if near.replace(&key(1), &seen, next, KEEP_FOR).await.unwrap() {
                            break;
                        }
                    }
                }
            });
        })
    };
    let threads = [raise(), raise(), raise()];
    for thread in threads {
        thread.join().unwrap();
    }
    assert_eq!(number(&near.peek(&key(1), Timestamp::default()).unwrap()), 6_000);
}

#[tokio::test]
async fn replacing_where_there_is_nothing_leaves_nothing_behind() {
    let near = near(100, 1 << 20);
    assert!(!near.replace(&key(1), &item(1), item(2), KEEP_FOR).await.unwrap());
    assert_eq!(held(&near, 2), 0);
    near.set(&key(1), item(3), KEEP_FOR).await.unwrap();
    near.clear(&Scope::Prefix(KeyPrefix::new("p"))).await.unwrap();
    assert_eq!(near.entry_count(), 0);
}
