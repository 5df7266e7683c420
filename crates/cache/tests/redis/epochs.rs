//! Epochs never go back: a server that forgot begins anew.

use std::sync::Arc;
use std::time::Duration;

use recache_cache::epochs::Slot;
use recache_cache::{Cache, Policy, Provider, SystemClock};
use tokio::time::timeout;

use crate::redis_server::RedisServer;
use crate::{KEEP_FOR, PATIENCE, PREFIX, connected, until_healthy};

#[tokio::test]
async fn a_server_that_came_back_from_an_old_snapshot_begins_a_new_incarnation() {
    let mut server = RedisServer::start().await;
    let redis = connected(&server.url()).await;
    let epochs = redis.epochs().unwrap();
    let saved = epochs.raise(&[Slot::EVERYTHING]).await.unwrap();
    let _: () = server.ask(&["SAVE"]).await;
    let lost = epochs.raise(&[Slot::EVERYTHING]).await.unwrap();
    assert_eq!(lost.incarnation, saved.incarnation);
    server.kill();
    server.start_again().await;
    let version: u64 = server.ask(&["HGET", "p:~epochs", "version"]).await;
    assert_eq!(version, saved.version, "the snapshot is older than what was answered");
    until_healthy(&*redis).await;
    let record = epochs.read(lost.incarnation, lost.version).await.unwrap().expect("it has changed");
    assert_ne!(record.incarnation, lost.incarnation);
    assert!(record.epochs.is_empty());
    let peer = connected(&server.url()).await;
    let same = peer.epochs().unwrap().read(record.incarnation, record.version).await.unwrap();
    assert_eq!(same, None, "one new incarnation for all");
}

/// The record of epochs is elsewhere and as new as ever, so it says nothing of the restart.
#[tokio::test]
async fn what_an_old_snapshot_brings_back_is_not_served_with_epochs_kept_elsewhere() {
    let (mut server, elsewhere) = (RedisServer::start().await, RedisServer::start().await);
    let redis = connected(&server.url()).await;
    let cache = Cache::builder(redis.clone(), Arc::new(SystemClock))
        .key_prefix(PREFIX)
        .epochs(connected(&elsewhere.url()).await)
        .build();
    let [removed, replaced, kept] =
        ["removed", "replaced", "kept"].map(|name| cache.keys().space("s").key([name]));
    let policy = Policy::new(KEEP_FOR);
    for key in [&removed, &replaced, &kept] {
        assert!(cache.set(key, 1_u64, &policy).await.is_confirmed());
    }
    let _: () = server.ask(&["SAVE"]).await;
    assert!(cache.invalidate(&removed).await.is_confirmed());
    assert!(cache.set(&replaced, 2_u64, &policy).await.is_confirmed());
    server.kill();
    server.start_again().await;
    let old: u64 = server.ask(&["EXISTS", removed.as_str(), replaced.as_str(), kept.as_str()]).await;
    assert_eq!(old, 3, "the snapshot has all three");
    until_healthy(&*redis).await;
    let [removed, replaced, kept] = [&removed, &replaced, &kept].map(|key| cache.get::<u64>(key));
    assert_eq!(removed.await, None);
    assert_eq!(replaced.await, None);
    assert_eq!(kept.await.as_deref(), Some(&1), "what nobody changed is still right");
}

#[tokio::test]
async fn a_raise_after_a_restart_begins_a_new_incarnation_too() {
    let mut server = RedisServer::start().await;
    let redis = connected(&server.url()).await;
    let epochs = redis.epochs().unwrap();
    let before = epochs.raise(&[Slot::EVERYTHING]).await.unwrap();
    server.shut_down().await;
    server.start_again().await;
    until_healthy(&*redis).await;
    let after = epochs.raise(&[Slot::EVERYTHING]).await.unwrap();
    assert_ne!(after.incarnation, before.incarnation);
    assert_eq!(after.epochs, [(Slot::EVERYTHING, 1)]);
}

#[tokio::test]
async fn a_record_that_is_gone_is_made_anew_under_another_incarnation() {
    let server = RedisServer::start().await;
    let redis = connected(&server.url()).await;
    let epochs = redis.epochs().unwrap();
    let before = epochs.raise(&[Slot::EVERYTHING]).await.unwrap();
    let _: () = server.ask(&["FLUSHALL"]).await;
    let after = epochs.read(before.incarnation, before.version).await.unwrap().expect("it has changed");
    assert_ne!(after.incarnation, before.incarnation);
}

#[tokio::test]
async fn a_raise_is_heard_by_who_waits_for_changes() {
    let server = RedisServer::start().await;
    let (one, two) = (connected(&server.url()).await, connected(&server.url()).await);
    let epochs = two.epochs().unwrap();
    // Listening begins with the first wait; what it finds then wakes it too.
    timeout(PATIENCE, epochs.changed()).await.unwrap();
    let changed = epochs.changed();
    one.epochs().unwrap().raise(&[Slot::EVERYTHING]).await.unwrap();
    timeout(PATIENCE, changed).await.expect("nobody was told");
    let quiet = timeout(Duration::from_millis(300), epochs.changed()).await;
    assert!(quiet.is_err(), "nothing changes now");
}

#[tokio::test]
async fn an_unchanged_record_costs_one_small_question() {
    let server = RedisServer::start().await;
    let redis = connected(&server.url()).await;
    let epochs = redis.epochs().unwrap();
    let record = epochs.raise(&[Slot::EVERYTHING]).await.unwrap();
    let _: () = server.ask(&["CONFIG", "RESETSTAT"]).await;
    for _ in 0..10 {
        assert_eq!(epochs.read(record.incarnation, record.version).await.unwrap(), None);
    }
    let stats: String = server.ask(&["INFO", "commandstats"]).await;
    assert!(stats.contains("cmdstat_hmget:calls=10,"), "{stats}");
    assert!(!stats.contains("cmdstat_eval") && !stats.contains("cmdstat_hgetall"), "{stats}");
}
