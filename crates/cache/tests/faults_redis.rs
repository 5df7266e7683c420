//! Redis fails in every way, under load.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test says what it expects")]
#![cfg(feature = "cache-redis")]

mod campaign;

use std::time::Duration;

use campaign::{Backend, Campaign, fault_for};
use recache_faultproxy::{Lane, Plan};

/// The register itself: it must turn red where nodes really do not hear of each other.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nodes_that_share_nothing_are_found_out() {
    let campaign = Campaign::begin("nothing shared", Backend::Moka).await;
    let seen = campaign.over().await;
    assert!(seen.figures().broken_reads() > 0);
}

const OUTAGE: Duration = Duration::from_millis(2_500);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn redis_killed_and_back_empty() {
    let mut campaign = Campaign::begin("redis killed", Backend::Redis).await;
    campaign.server.kill();
    campaign.suffer(fault_for(OUTAGE)).await;
    campaign.server.start().await.unwrap();
    campaign.caching_again().await;
    campaign.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn redis_stalled_both_and_one_way() {
    let mut campaign = Campaign::begin("redis stalled", Backend::Redis).await;
    for plan in [
        Plan::stalled(),
        Plan::default().to_server(Lane::default().held()),
        Plan::default().to_client(Lane::default().held()),
        Plan::default().to_client(Lane::default().swallowed()),
    ] {
        campaign.plan(&plan).await;
        campaign.suffer(fault_for(OUTAGE) / 2).await;
        campaign.heal().await;
        campaign.caching_again().await;
    }
    campaign.end().await;
}
