//! How values are written down for a backend outside the process: compressed, and under the fingerprint of their layout.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    missing_docs,
    reason = "a test says what it expects"
)]

#[allow(dead_code, reason = "each test file uses a part of it")]
mod support;

use std::sync::atomic::Ordering;
use std::time::Duration;

use bytes::Bytes;
use recache_cache::envelope::{COMPRESS_FROM_DEFAULT, ZSTD_FROM};
use recache_cache::provider::Item;
use recache_cache::{Cache, Key, Policy, Provider};

use crate::support::{Bench, policy};

async fn stored(bench: &Bench, key: &Key) -> Bytes {
    bench.provider.get(key).await.unwrap().unwrap().bytes.clone()
}

/// As another process would find it: the bytes without the decoded value.
async fn forget_decoded(bench: &Bench, key: &Key) {
    let bytes = stored(bench, key).await;
    bench.provider.set(key, Item::from(bytes), Duration::from_mins(1)).await.unwrap();
}

async fn len_of(bench: &Bench, value: &str, policy: &Policy) -> usize {
    let key = bench.key("k");
    bench.cache.set(&key, value.to_owned(), policy).await;
    forget_decoded(bench, &key).await;
    assert_eq!(*bench.cache.get::<String>(&key).await.unwrap(), value);
    stored(bench, &key).await.len()
}

#[tokio::test]
async fn values_for_a_shared_backend_are_compressed_from_the_threshold() {
    let bench = Bench::new();
    bench.provider.is_shared.store(true, Ordering::SeqCst);
    let (small, medium, large) = ("a".repeat(900), "a".repeat(COMPRESS_FROM_DEFAULT), "a".repeat(ZSTD_FROM));
    assert!(len_of(&bench, &small, &policy()).await > 900);
    assert!(len_of(&bench, &medium, &policy()).await < 200);
    assert!(len_of(&bench, &large, &policy()).await < 200);
    assert!(len_of(&bench, &small, &policy().compress_from(100)).await < 200);
    assert!(len_of(&bench, &large, &policy().uncompressed()).await > ZSTD_FROM);
}

#[tokio::test]
async fn values_that_stay_in_the_process_are_not_compressed() {
    let bench = Bench::new();
    assert!(len_of(&bench, &"a".repeat(ZSTD_FROM), &policy()).await > ZSTD_FROM);
}

#[tokio::test]
async fn loaded_values_are_compressed_too() {
    let bench = Bench::new();
    bench.provider.is_shared.store(true, Ordering::SeqCst);
    let key = bench.key("k");
    let load = async || Ok::<_, std::convert::Infallible>(Some("a".repeat(20_000)));
    bench.cache.get_or_load(&key, &policy(), load).await.unwrap();
    assert!(stored(&bench, &key).await.len() < 200);
}

/// What `reader` finds where `writer` wrote, both with the decoded value at hand and without it.
async fn found(bench: &Bench, writer: &Cache, reader: &Cache, policy: &Policy) -> [bool; 2] {
    let key = bench.key("k");
    writer.set(&key, 1_u32, policy).await;
    let at_hand = reader.get::<u32>(&key).await.is_some();
    forget_decoded(bench, &key).await;
    [at_hand, reader.get::<u32>(&key).await.is_some()]
}

#[tokio::test]
async fn a_reader_with_another_schema_gets_a_counted_miss() {
    let bench = Bench::new();
    let (plain, one, two) = (bench.cache.clone(), bench.cache.with_schema(1), bench.cache.with_schema(2));
    for (writer, reader) in [(&plain, &plain), (&one, &one), (&two, &two)] {
        assert_eq!(found(&bench, writer, reader, &policy()).await, [true; 2]);
    }
    assert_eq!(bench.cache.stats().decode_errors, 0);
    for (writer, reader) in [(&plain, &one), (&one, &plain), (&one, &two)] {
        assert_eq!(found(&bench, writer, reader, &policy()).await, [false; 2]);
    }
    assert_eq!(bench.cache.stats().decode_errors, 6);
    assert_eq!(bench.cache.stats().misses, 6);
}

#[tokio::test]
async fn a_policy_schema_comes_before_that_of_the_handle() {
    let bench = Bench::new();
    let (one, two) = (bench.cache.with_schema(1), bench.cache.with_schema(2));
    assert_eq!(found(&bench, &one, &two, &policy().schema(2)).await, [true; 2]);
    let key = bench.key("k");
    let load = async || Ok::<_, std::convert::Infallible>(Some(7_u32));
    let loaded = one.get_or_load(&key, &policy(), load).await.unwrap().unwrap();
    assert_eq!(*loaded, 7, "what was written for schema 2 does not count");
    let loaded =
        two.get_or_load(&key, &policy().schema(1), async || Err::<Option<u32>, _>("not called")).await;
    assert_eq!(*loaded.unwrap().unwrap(), 7);
}

#[tokio::test]
async fn a_payload_that_claims_too_much_is_a_counted_miss() {
    let bench = Bench::new();
    bench.provider.is_shared.store(true, Ordering::SeqCst);
    let key = bench.key("k");
    bench.cache.set(&key, "a".repeat(20_000), &policy()).await;
    // The claim stands right behind the key; the checksum is made to hold again, as whoever can write could.
    let mut bytes = stored(&bench, &key).await.to_vec();
    let text = key.as_str().as_bytes();
    let at = bytes.windows(text.len()).position(|window| window == text).unwrap() + text.len();
    let claim_len = 1 + bytes[at..].iter().take_while(|byte| **byte >= 0x80).count();
    bytes.splice(at..at + claim_len, [0xff, 0xff, 0xff, 0xff, 0xff, 0x0f]);
    let sum = xxhash_rust::xxh3::xxh3_64_with_seed(&bytes[7..], 2).to_le_bytes();
    bytes[1..7].copy_from_slice(&sum[..6]);
    bench.provider.set(&key, Item::from(Bytes::from(bytes)), Duration::from_mins(1)).await.unwrap();
    assert_eq!(bench.cache.get::<String>(&key).await, None);
    assert_eq!(bench.cache.stats().decode_errors, 1);
    assert_eq!(bench.cache.stats().provider_errors, 0);
}
