//! Epochs never go back: a server that forgot begins anew.

use std::time::Duration;

use recache_cache::Provider;
use recache_cache::epochs::Slot;
use tokio::time::timeout;

use crate::redis_server::RedisServer;
use crate::{PATIENCE, connected, until_healthy};

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
