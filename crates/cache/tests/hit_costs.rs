//! A hit in this process allocates nothing. How long it takes is for `benches/near.rs` to say.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    missing_docs,
    reason = "a test says what it expects"
)]

use std::convert::Infallible;
use std::hint::black_box;
use std::sync::Arc;
use std::time::Duration;

use allocation_counter::measure;
use futures_util::FutureExt;
use recache_cache::envelope::{self, Header, TagSlots};
use recache_cache::provider::Near;
use recache_cache::{Cache, Clock, Codec, Coherence, Key, Policy, SystemClock, Timestamp, Usage};

const HITS: u64 = 1_000;

fn filled() -> (Cache, Key, Policy) {
    let clock: Arc<dyn Clock> = Arc::new(SystemClock);
    let near = Arc::new(Near::new(100, 1 << 20, Arc::clone(&clock)));
    let cache = Cache::builder(near, clock).build().for_usage(&Usage::user("test", Coherence::Eventual));
    let (key, policy) = (cache.keys().space("things").key(["k"]), Policy::new(Duration::from_hours(1)));
    cache.set(&key, "value".to_owned(), &policy).now_or_never().unwrap();
    (cache, key, policy)
}

/// Allocations of `HITS` calls, once the first has set up what a thread needs.
fn allocations(mut hit: impl FnMut()) -> u64 {
    hit();
    measure(|| (0..HITS).for_each(|_| hit())).count_total
}

#[test]
fn a_near_hit_allocates_nothing() {
    let (cache, key, policy) = filled();
    let get = || assert!(black_box(cache.get::<String>(&key).now_or_never()).unwrap().is_some());
    assert_eq!(allocations(get), 0, "get");
    let lookup = || assert!(black_box(cache.lookup::<String>(&key).now_or_never()).unwrap().is_some());
    assert_eq!(allocations(lookup), 0, "lookup");
    let load = async || Ok::<Option<String>, Infallible>(None);
    let get_or_load = || {
        let loaded = cache.get_or_load(&key, &policy, load).now_or_never();
        assert!(black_box(loaded).unwrap().unwrap().is_some());
    };
    assert_eq!(allocations(get_or_load), 0, "get_or_load");
    assert_eq!(cache.stats().hits, 3 * (HITS + 1), "all of them were hits");
    assert_eq!(
        cache.stats().calls.iter().filter(|calls| calls.operation == "get").count(),
        0,
        "out of this process"
    );
}

#[test]
fn a_miss_is_seen_to_allocate() {
    let (cache, key, _) = filled();
    cache.invalidate(&key).now_or_never().unwrap();
    let miss = || assert!(black_box(cache.get::<String>(&key).now_or_never()).unwrap().is_none());
    assert!(allocations(miss) > 0, "or the counting does not work");
}

/// A stored payload that would be far larger once decompressed costs no memory to refuse.
#[test]
fn a_decompression_bomb_stays_small() {
    let (_, key, _) = filled();
    let header = Header {
        written_at: Timestamp::from_micros(1_795_000_000_000_000),
        fresh_until: Timestamp::from_micros(1_795_003_600_000_000),
        keep_until: Timestamp::from_micros(1_795_003_600_000_000),
        tags: TagSlots::default(),
        schema: 0,
        stamp: 1,
        build_cost: Duration::ZERO,
        codec: Codec::Json,
        is_absent: false,
    };
    for limit in [envelope::ZSTD_FROM - 1, envelope::DECOMPRESSED_BYTES_MAX] {
        let honest = envelope::encode(&key, &header, &vec![b' '; limit], Some(0)).to_vec();
        assert!(honest.len() < limit / 100, "{} bytes", honest.len());
        let text = key.as_str().as_bytes();
        let claim = honest.windows(text.len()).position(|window| window == text).unwrap() + text.len();
        let claim_len = 1 + honest[claim..].iter().take_while(|byte| **byte >= 0x80).count();
        // A tebibyte, and less than what is there.
        for lie in [&[0x80, 0x80, 0x80, 0x80, 0x80, 0x20][..], &[100]] {
            let mut bomb = honest.clone();
            bomb.splice(claim..claim + claim_len, lie.iter().copied());
            let sum = xxhash_rust::xxh3::xxh3_64_with_seed(&bomb[7..], 2).to_le_bytes();
            bomb[1..7].copy_from_slice(&sum[..6]);
            let mut error = None;
            let used = measure(|| error = envelope::decode(&key, &bomb).err());
            assert!(error.is_some());
            assert!(used.bytes_max < 1 << 20, "{used:?} to refuse {limit} bytes that claim {lie:?}");
        }
    }
}
