//! Behind sentinels: the master is asked for each time, and followed.

use std::sync::Arc;

use recache_cache::config::{RedisConfig, RedisMode, ServerUrl};
use recache_cache::epochs::Slot;
use recache_cache::provider::{Redis, RedisSettings};
use recache_cache::{KeyPrefix, Provider};

use crate::redis_server::{RedisServer, file, free_port};
use crate::{key, put, read, until, until_healthy};

struct Watched {
    servers: [RedisServer; 2],
    sentinel: RedisServer,
}

async fn watched() -> Watched {
    let master = RedisServer::start().await;
    let port = master.port().to_string();
    let replica = RedisServer::start_with(&[
        "--replicaof",
        &format!("127.0.0.1 {port}"),
        "--repl-diskless-sync-delay",
        "0",
    ])
    .await;
    until("the replica follows", async || {
        let info: String = replica.ask(&["INFO", "replication"]).await;
        info.contains("master_link_status:up")
    })
    .await;
    let folder = tempfile::tempdir().unwrap();
    let text = format!(
        "sentinel monitor themaster 127.0.0.1 {port} 1\n\
         sentinel down-after-milliseconds themaster 500\n\
         sentinel failover-timeout themaster 5000\n"
    );
    let file = file(&folder, "sentinel.conf", &text).display().to_string();
    let sentinel = RedisServer::spawn(free_port(), &[&file, "--sentinel"]);
    sentinel.wait_until_ready().await;
    until("the sentinel knows the replica", async || {
        let info: String = sentinel.ask(&["INFO", "sentinel"]).await;
        info.contains("slaves=1")
    })
    .await;
    Watched { servers: [master, replica], sentinel }
}

fn behind(sentinels: &[String], master: &str) -> Arc<Redis> {
    let config = RedisConfig {
        mode: RedisMode::Sentinel,
        nodes: sentinels.iter().map(ServerUrl::new).collect(),
        sentinel_master: master.to_owned(),
        ..RedisConfig::default()
    };
    Arc::new(Redis::new(&RedisSettings::from_config(&config).unwrap(), KeyPrefix::new("p")))
}

#[tokio::test]
async fn the_master_is_followed_through_a_failover() {
    let watched = watched().await;
    // The first sentinel is down: the next one is asked.
    let sentinels = [format!("redis://127.0.0.1:{}", free_port()), watched.sentinel.url()];
    let redis = behind(&sentinels, "themaster");
    until_healthy(&*redis).await;
    put(&*redis, &key("k"), b"v").await.unwrap();
    let before = redis.epochs().unwrap().raise(&[Slot::EVERYTHING]).await.unwrap();
    // It wants to have heard of the replica lately.
    until("the sentinel agrees", async || {
        watched.sentinel.try_ask::<()>(&["SENTINEL", "FAILOVER", "themaster"]).await.is_ok()
    })
    .await;
    let old = watched.servers[0].port();
    until("another is master", async || {
        let place: Vec<String> =
            watched.sentinel.ask(&["SENTINEL", "GET-MASTER-ADDR-BY-NAME", "themaster"]).await;
        place[1] != old.to_string()
    })
    .await;
    until("it is written to the new master", async || {
        let _ = put(&*redis, &key("after"), b"v").await;
        let there: i64 = watched.servers[1].ask(&["EXISTS", key("after").as_str()]).await;
        there == 1
    })
    .await;
    assert_eq!(read(&*redis, &key("after")).await.unwrap(), b"v");
    let after = redis.epochs().unwrap().read(before.incarnation, before.version).await.unwrap().unwrap();
    assert_ne!(after.incarnation, before.incarnation, "a failover may have lost raises");
}

#[tokio::test]
async fn a_master_that_no_sentinel_knows_is_told_so() {
    let watched = watched().await;
    let redis = behind(&[watched.sentinel.url()], "another");
    until("the sentinel was asked", async || {
        redis.health().await.unwrap_err().to_string().contains("no sentinel knows that master")
    })
    .await;
}
