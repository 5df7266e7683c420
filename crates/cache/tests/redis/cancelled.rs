//! A caller who gives up leaves an answer under way. It must not reach anybody else.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use recache_cache::provider::{Leased, Redis, RedisSettings};
use recache_cache::{Key, KeyPrefix, Provider};
use tokio::time::timeout;

use crate::redis_server::RedisServer;
use crate::{config, item, key, put, until_healthy};

const TASKS: usize = 32;
const KEYS: usize = 64;
/// Cancelled calls; `RECACHE_TEST_CANCELS=100000` is the long form.
const CANCELS_DEFAULT: usize = 10_000;

/// The value under a key names it, so that a foreign one is seen.
fn value(key: &Key, salt: u64) -> Vec<u8> {
    let length = usize::try_from(salt % 2_000).unwrap();
    format!("{key} {}", "x".repeat(length)).into_bytes()
}

fn assert_own(key: &Key, bytes: &[u8]) {
    let found = std::str::from_utf8(bytes).unwrap();
    assert_eq!(found.split(' ').next(), Some(key.as_str()), "an answer that belongs to another key");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_answer_reaches_another_call_whatever_is_cancelled() {
    let wanted = std::env::var("RECACHE_TEST_CANCELS").map_or(CANCELS_DEFAULT, |text| text.parse().unwrap());
    let server = RedisServer::start().await;
    let mut config = config(&server.url());
    config.max_connections = 3;
    let settings = RedisSettings::from_config(&config).unwrap();
    let redis = Arc::new(Redis::new(&settings, KeyPrefix::new("p")));
    until_healthy(&*redis).await;
    let keys: Arc<Vec<_>> = Arc::new((0..KEYS).map(|number| key(&number.to_string())).collect());
    for key in &*keys {
        put(&*redis, key, &value(key, 1)).await.unwrap();
    }
    let (cancelled, answered) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
    let tasks: Vec<_> = (0..TASKS)
        .map(|task| {
            let (redis, keys) = (Arc::clone(&redis), Arc::clone(&keys));
            let (cancelled, answered) = (Arc::clone(&cancelled), Arc::clone(&answered));
            tokio::spawn(async move {
                let mut seed = 0x5eed + u64::try_from(task).unwrap();
                while cancelled.load(Ordering::Relaxed) < wanted {
                    let key = &keys[usize::try_from(random(&mut seed)).unwrap() % KEYS];
                    let patience = Duration::from_micros(random(&mut seed) % 1_500);
                    let call = one_call(&redis, &keys, key, random(&mut seed));
                    let count = if timeout(patience, call).await.is_ok() { &answered } else { &cancelled };
                    count.fetch_add(1, Ordering::Relaxed);
                }
            })
        })
        .collect();
    for task in tasks {
        task.await.unwrap();
    }
    let answered = answered.load(Ordering::Relaxed);
    assert!(answered > wanted / 20, "hardly anything was answered, so little was tested: {answered}");
    for key in &*keys {
        if let Some(found) = redis.get(key).await.unwrap() {
            assert_own(key, &found.bytes);
        }
    }
}

async fn one_call(redis: &Redis, keys: &[Key], key: &Key, choice: u64) {
    match choice % 8 {
        0..=3 => {
            if let Some(found) = redis.get(key).await.unwrap() {
                assert_own(key, &found.bytes);
            }
        }
        4 => {
            for (key, found) in keys.iter().zip(redis.get_many(keys).await.unwrap()) {
                if let Some(found) = found {
                    assert_own(key, &found.bytes);
                }
            }
        }
        5 => put(redis, key, &value(key, choice)).await.unwrap(),
        6 => {
            let leases = redis.leases().unwrap();
            let token = u128::from(choice);
            match leases.take(key, token, Duration::from_millis(20), None).await.unwrap() {
                Leased::Granted(lease) => {
                    let filled = item(&value(key, choice));
                    leases.fill(key, &lease, filled, Duration::from_secs(60)).await.unwrap();
                }
                Leased::Present(found) => assert_own(key, &found.bytes),
                Leased::Held => {}
            }
        }
        _ => redis.delete(std::slice::from_ref(key)).await.unwrap(),
    }
}

/// SplitMix64 (Steele, Lea, Flood 2014).
fn random(seed: &mut u64) -> u64 {
    *seed = seed.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let mut mixed = *seed;
    mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    mixed ^ (mixed >> 31)
}
