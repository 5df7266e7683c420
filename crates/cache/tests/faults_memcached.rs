//! Memcached fails in every way, under load. What is promised stands in `campaign/mod.rs`, the faults that are not Memcached's
//! own in `campaign/scripts.rs`.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test says what it expects")]
#![cfg(feature = "cache-memcached")]

mod campaign;

use std::time::Duration;

use campaign::raw::Raw;
use campaign::{Backend, Campaign, fault_for, scripts};
use recache_faultproxy::{Random, ServerProcess};
use tokio::time::{Instant, sleep};

const STATE: Duration = Duration::from_millis(250);

/// Makes tests of campaigns: the name, and which backend goes through what.
macro_rules! campaigns {
    ($($name:ident => $script:ident($($argument:expr),*);)*) => {
        $(
            #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $name() {
                scripts::$script($($argument),*).await;
            }
        )*
    };
}

campaigns! {
    memcached_is_killed => killed(Backend::Memcached);
    memcached_stands_still => stalled(Backend::Memcached);
    memcached_is_cut_off_from_one_node => partitioned(Backend::Memcached);
    memcached_flaps => flapping(Backend::Memcached);
    memcached_is_away_at_the_start => away_at_the_start(Backend::Memcached);
    memcached_answers_come_mangled => mangled(Backend::Memcached);
    memcached_bits_are_flipped => flipped(Backend::Memcached);
    memcached_calls_are_given_up => given_up(Backend::Memcached, 5_000, 5_000);
    tiered_memcached_is_killed => killed(Backend::TieredMemcached);
    tiered_memcached_is_cut_off_from_one_node => partitioned(Backend::TieredMemcached);
}

/// It is emptied again and again, and the epochs with it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn memcached_is_emptied() {
    let mut campaign = Campaign::begin("Memcached: emptied", Backend::Memcached).await;
    campaign.figures().enter(campaign::figures::Phase::Later);
    let mut raw = Raw::open(&campaign.server).await;
    let (began, lasts) = (Instant::now(), fault_for(STATE * 4));
    while began.elapsed() < lasts {
        assert_eq!(raw.memcached_say("flush_all").await, "OK");
        sleep(Duration::from_millis(50)).await;
    }
    campaign.caching_again().await;
    campaign.end().await;
}

/// It has so little room that it drops entries, leases and epochs as it likes.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn memcached_has_no_room() {
    let recipe = ServerProcess::memcached().args(["-m", "2"]);
    let mut campaign = Campaign::begin_with("Memcached: no room", recipe, Backend::Memcached).await;
    campaign.figures().enter(campaign::figures::Phase::Later);
    let mut raw = Raw::open(&campaign.server).await;
    let mut random = Random::new(campaign.proxies[0].seed());
    let (began, lasts) = (Instant::now(), fault_for(STATE * 4));
    while began.elapsed() < lasts {
        for _ in 0..20 {
            let length = usize::try_from(50 + random.below(3_000)).unwrap();
            raw.memcached_set(format!("filler{}", random.next()).as_bytes(), &vec![b'f'; length], "0").await;
        }
        sleep(Duration::from_millis(2)).await;
    }
    campaign.caching_again().await;
    campaign.end().await;
}

/// Somebody writes nonsense over what the server holds, epochs and all.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn memcached_entries_are_spoiled() {
    let mut campaign = Campaign::begin("Memcached: entries spoiled", Backend::Memcached).await;
    campaign.figures().enter(campaign::figures::Phase::Later);
    let mut random = Random::new(campaign.proxies[0].seed());
    let mut raw = Raw::open(&campaign.server).await;
    let (began, lasts) = (Instant::now(), fault_for(STATE * 6));
    let mut spoiled = 0_u64;
    let mut others = b"nothing".to_vec();
    while began.elapsed() < lasts {
        for key in raw.memcached_keys().await {
            if random.below(4) > 0 {
                continue;
            }
            let Some((value, flags)) = raw.memcached_get(&key).await else { continue };
            if value.is_empty() {
                continue;
            }
            let bytes = scripts::spoiled(&value, &others, &mut random);
            raw.memcached_set(&key, &bytes, &flags).await;
            spoiled += 1;
            others = value;
        }
        sleep(Duration::from_millis(10)).await;
    }
    campaign.remark(format!("{spoiled} entries spoiled"));
    campaign.caching_again().await;
    let seen = campaign.end().await;
    assert!(spoiled > 100);
    assert!(seen.decode_errors() > 0, "nobody noticed");
}
