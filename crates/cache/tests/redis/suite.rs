//! The conformance suite, and what is declared and probed.

use std::sync::Arc;
use std::time::Duration;

use recache_cache::provider::{Capability, Known, Redis, Source};
use recache_cache::{KeyPrefix, Provider};
use tokio::time::{Instant, sleep};

use crate::conformance::{World, conformance};
use crate::redis_server::RedisServer;
use crate::{connected, provider, settings, until, until_healthy};

/// What Redis tells apart safely on a busy machine; it counts in milliseconds.
const TICK: Duration = Duration::from_millis(150);

/// The shared server where there is one, else one of its own.
async fn world(prefix: String) -> World {
    let (url, server) = if let Ok(url) = std::env::var("RECACHE_TEST_REDIS_URL") {
        (url, None)
    } else {
        let server = RedisServer::start().await;
        (server.url(), Some(server))
    };
    let one = || Arc::new(Redis::new(&settings(&url), KeyPrefix::new(&prefix)));
    let (provider, peer) = (one(), one());
    until_healthy(&*provider).await;
    until_healthy(&*peer).await;
    World::real(prefix, TICK, provider).with_peer(peer).holding(server)
}

conformance!(redis_provider, world);

/// The whole table, as `name: value, source`.
fn table(provider: &dyn Provider) -> Vec<String> {
    let capabilities = provider.capabilities();
    let rows =
        capabilities.rows().map(|row| format!("{}: {}, {:?}", row.capability.name(), row.value, row.source));
    rows.chain([format!("coherence: {}", capabilities.coherence())]).collect()
}

#[tokio::test]
async fn capabilities_are_known_by_the_table_before_and_probed_after_connecting() {
    let server = RedisServer::start().await;
    let redis = provider(&server.url());
    let with = |source: &str, limit: &str| {
        vec![
            "retains: yes, Declared".to_owned(),
            "shared: yes, Declared".to_owned(),
            format!("atomic_increment: yes, {source}"),
            format!("compare_and_swap: yes, {source}"),
            format!("set_if_absent: yes, {source}"),
            format!("leases: yes, {source}"),
            format!("ttl_inspection: yes, {source}"),
            "namespaces: yes, Declared".to_owned(),
            "tags: yes, Declared".to_owned(),
            format!("batch: yes, {}", if source == "Probed" { source } else { "Declared" }),
            format!("push_invalidation: yes, {source}"),
            "max_key_bytes: unlimited, Unknown".to_owned(),
            limit.to_owned(),
            "coherence: strict".to_owned(),
        ]
    };
    let limit = "max_value_bytes: 536870912, KnownTable";
    assert_eq!(table(&*redis), with("KnownTable", limit));
    until("it is probed", async || table(&*redis) == with("Probed", limit)).await;
}

#[tokio::test]
async fn entering_and_probing_cost_at_most_four_exchanges_and_leave_nothing_behind() {
    let server = RedisServer::start().await;
    let mut asking = server.connect().await;
    let mut reads = async || -> u64 {
        let stats: String = redis::cmd("INFO").arg("stats").query_async(&mut asking).await.unwrap();
        let count = stats.lines().find_map(|line| line.strip_prefix("total_reads_processed:"));
        count.unwrap().trim().parse().unwrap()
    };
    let before = reads().await;
    let start = Instant::now();
    let redis = provider(&server.url());
    until("it is probed", async || redis.capabilities().rows().any(|row| row.source == Source::Probed)).await;
    sleep(Duration::from_millis(50)).await;
    // One is this question, and every second brings one that asks whether the connection still answers.
    let exchanges = reads().await - before - 1;
    assert!(exchanges <= 4 + start.elapsed().as_secs(), "{exchanges} exchanges");
    let keys: Vec<String> = server.ask(&["KEYS", "*"]).await;
    assert!(keys.is_empty(), "{keys:?}");
}

#[tokio::test]
async fn what_the_access_rules_forbid_is_probed_as_absent() {
    let server = RedisServer::start().await;
    let rules =
        ["ACL", "SETUSER", "limited", "on", ">secret", "~*", "&*", "+@all", "-eval", "-evalsha", "-publish"];
    let _: () = server.ask(&rules).await;
    let redis = connected(&format!("redis://limited:secret@127.0.0.1:{}", server.port())).await;
    until("it is probed", async || redis.capabilities().rows().any(|row| row.source == Source::Probed)).await;
    for capability in [Capability::Leases, Capability::CompareAndSwap, Capability::PushInvalidation] {
        assert!(!redis.capabilities().has(capability), "{}", capability.name());
    }
    assert!(redis.capabilities().has(Capability::SetIfAbsent));
    assert!(redis.leases().is_none() && redis.epochs().is_none() && redis.messages().is_none());
}

#[tokio::test]
async fn a_detector_fills_in_only_what_nobody_else_knows() {
    let server = RedisServer::start().await;
    let detect = |info: &str| {
        assert!(info.contains("redis_version"));
        vec![
            (Capability::MaxKeyBytes, Known::Limit(Some(1_234))),
            (Capability::SetIfAbsent, Known::Has(false)),
        ]
    };
    let redis = Redis::with_detectors(&settings(&server.url()), KeyPrefix::new("p"), vec![detect]);
    until("it is probed", async || redis.capabilities().limit(Capability::MaxKeyBytes) == Some(1_234)).await;
    assert!(redis.capabilities().has(Capability::SetIfAbsent));
}
