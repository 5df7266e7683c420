//! Memcached fails in every way, under load. What is promised stands in `campaign/mod.rs`, the faults that are not Memcached's
//! own in `campaign/scripts.rs`.

use std::time::Duration;

use recache_faultproxy::{Random, ServerProcess};
use tokio::time::{Instant, sleep};

use super::campaign::figures::Phase;
use super::campaign::raw::Raw;
use super::campaign::{Backend, Campaign, all, fault_for, scripts};
use super::campaigns;

/// How long Memcached stays in each of its states.
const STATE: Duration = Duration::from_millis(250);

campaigns! {
    outages => [
        scripts::killed(Backend::Memcached),
        scripts::away_at_the_start(Backend::Memcached),
        scripts::killed(Backend::TieredMemcached),
        scripts::partitioned(Backend::TieredMemcached),
    ];
    networks => [
        scripts::stalled(Backend::Memcached),
        scripts::partitioned(Backend::Memcached),
        scripts::late_writes_are_refused(Backend::Memcached),
        scripts::flapping(Backend::Memcached),
        scripts::mangled(Backend::Memcached),
        scripts::flipped(Backend::Memcached),
    ];
    callers_and_states => [
        scripts::given_up(Backend::Memcached),
        emptied(),
        no_room(),
        entries_are_spoiled(),
    ];
}

/// It is emptied again and again, and the epochs with it.
async fn emptied() {
    let mut campaign = Campaign::begin("Memcached: emptied", Backend::Memcached).await;
    campaign.figures().enter(Phase::Later);
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
async fn no_room() {
    let recipe = ServerProcess::memcached().args(["-m", "2"]);
    let mut campaign = Campaign::begin_with("Memcached: no room", recipe, Backend::Memcached).await;
    campaign.figures().enter(Phase::Later);
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
async fn entries_are_spoiled() {
    let mut campaign = Campaign::begin("Memcached: entries spoiled", Backend::Memcached).await;
    campaign.figures().enter(Phase::Later);
    let mut random = Random::new(campaign.proxies[0].seed());
    let mut raw = Raw::open(&campaign.server).await;
    let (began, lasts) = (Instant::now(), fault_for(STATE * 6));
    let mut spoiled = 0_u64;
    let mut others = b"nothing".to_vec();
    while began.elapsed() < lasts {
        for key in raw.memcached_keys().await {
            // Not leases: who writes over one holds it, until its time is over.
            if random.below(4) > 0 || key.ends_with(b"~lease") {
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
    assert!(spoiled > 20);
    assert!(seen.decode_errors() > 0, "nobody noticed");
}
