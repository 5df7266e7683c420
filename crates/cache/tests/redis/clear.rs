//! Clearing finds what belongs to a space, by looking, and takes nothing else.

use std::time::Duration;

use recache_cache::provider::{Entry, Scope};
use recache_cache::{KeyPrefix, Provider};

use crate::redis_server::RedisServer;
use crate::{KEEP_FOR, connected, item, key};

#[tokio::test]
async fn clear_frees_all_entries_and_never_blocks_or_empties_the_server() {
    let server = RedisServer::start().await;
    let redis = connected(&server.url()).await;
    let keys: Vec<_> = (0..5_000).map(|number| key(&number.to_string())).collect();
    let entries = keys.iter().map(|key| Entry { key: key.clone(), item: item(b"v"), keep_for: KEEP_FOR });
    redis.set_many(entries.collect()).await.unwrap();
    let _: () = server.ask(&["SET", "somebody:else", "1"]).await;
    let atomics = redis.atomics().unwrap();
    atomics.add(&key("lock"), 1, Duration::from_secs(60)).await.unwrap();
    let _: () = server.ask(&["CONFIG", "RESETSTAT"]).await;
    redis.clear(&Scope::Prefix(KeyPrefix::new("p"))).await.unwrap();
    let found = redis.get_many(&keys).await.unwrap();
    assert_eq!(found.into_iter().flatten().count(), 0);
    let left: i64 = server.ask(&["EXISTS", "somebody:else"]).await;
    assert_eq!(left, 1);
    assert!(atomics.read(&key("lock")).await.unwrap().is_some(), "locks and counters are no entries");
    let stats: String = server.ask(&["INFO", "commandstats"]).await;
    assert!(!stats.contains("cmdstat_keys") && !stats.contains("cmdstat_flush"), "{stats}");
}

#[tokio::test]
async fn a_hit_is_one_plain_get_and_a_hundred_keys_are_one_exchange() {
    let server = RedisServer::start().await;
    let redis = connected(&server.url()).await;
    let keys: Vec<_> = (0..100).map(|number| key(&number.to_string())).collect();
    let entries = keys.iter().map(|key| Entry { key: key.clone(), item: item(b"v"), keep_for: KEEP_FOR });
    redis.set_many(entries.collect()).await.unwrap();
    let _: () = server.ask(&["CONFIG", "RESETSTAT"]).await;
    for _ in 0..7 {
        assert!(redis.get(&keys[0]).await.unwrap().is_some());
    }
    assert_eq!(redis.get_many(&keys).await.unwrap().into_iter().flatten().count(), 100);
    let stats: String = server.ask(&["INFO", "commandstats"]).await;
    assert!(stats.contains("cmdstat_get:calls=7,") && stats.contains("cmdstat_mget:calls=1,"), "{stats}");
    assert!(!stats.contains("cmdstat_eval"), "{stats}");
}
