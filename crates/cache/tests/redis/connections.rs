//! Every option of a connection does what it says.

use std::sync::Arc;
use std::time::Duration;

use futures_util::future::join_all;
use recache_cache::config::RedisConfig;
use recache_cache::provider::{Redis, RedisSettings};
use recache_cache::{KeyPrefix, Provider};
use tokio::net::TcpListener;
use tokio::time::{Instant, sleep};

use crate::redis_server::RedisServer;
use crate::{config, connected, key, provider, put, read, until, until_healthy};

fn with(config: &RedisConfig) -> Arc<Redis> {
    Arc::new(Redis::new(&RedisSettings::from_config(config).unwrap(), KeyPrefix::new("p")))
}

/// Connections to the server, but for the one that asks.
async fn connections(server: &RedisServer) -> usize {
    let list: String = server.ask(&["CLIENT", "LIST"]).await;
    list.lines().count() - 1
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn connections_are_opened_as_they_are_needed_up_to_max_connections() {
    for max in [1_u32, 3] {
        let server = RedisServer::start().await;
        let redis = with(&RedisConfig { max_connections: max, ..config(&server.url()) });
        until_healthy(&*redis).await;
        put(&*redis, &key("k"), b"v").await.unwrap();
        assert_eq!(connections(&server).await, 1, "one is enough while there is no crowd");
        let key = key("k");
        for _ in 0..20 {
            let _: () = server.ask(&["CLIENT", "PAUSE", "50", "ALL"]).await;
            for found in join_all((0..200).map(|_| redis.get(&key))).await {
                assert_eq!(found.unwrap().unwrap().bytes, "v");
            }
        }
        assert_eq!(connections(&server).await, usize::try_from(max).unwrap());
    }
}

#[tokio::test]
async fn listening_takes_one_connection_more_and_gives_it_back() {
    let server = RedisServer::start().await;
    let redis = connected(&server.url()).await;
    let messages = redis.messages().unwrap();
    let (mut one, two) = (messages.subscribe("a"), messages.subscribe("b"));
    one.recv().await.unwrap();
    until("one connection listens", async || connections(&server).await == 2).await;
    drop((one, two));
    until("nobody listens", async || connections(&server).await == 1).await;
}

#[tokio::test]
async fn connecting_is_given_up_after_connection_timeout_seconds() {
    let silent = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("redis://{}", silent.local_addr().unwrap());
    let start = Instant::now();
    let redis = with(&RedisConfig { connection_timeout_seconds: 1, ..config(&url) });
    let reason = async || redis.health().await.unwrap_err().to_string();
    assert_eq!(reason().await, "redis is not available: not connected yet");
    until("it is given up", async || reason().await.contains("no connection within 1s")).await;
    let took = start.elapsed();
    assert!((Duration::from_millis(900)..Duration::from_secs(10)).contains(&took), "{took:?}");
    silent.accept().await.unwrap();
    let again = tokio::time::timeout(Duration::from_secs(5), silent.accept()).await;
    assert!(again.is_ok(), "it tries again by itself");
}

#[tokio::test]
async fn calls_fail_at_once_while_there_is_no_connection() {
    let silent = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let redis = provider(&format!("redis://{}", silent.local_addr().unwrap()));
    for _ in 0..20 {
        let start = Instant::now();
        assert!(redis.get(&key("k")).await.unwrap_err().is_failure());
        assert!(put(&*redis, &key("k"), b"v").await.is_err());
        assert!(redis.delete(&[key("k")]).await.is_err());
        assert!(redis.get_many(&[key("k")]).await.is_err());
        assert!(start.elapsed() < Duration::from_millis(200), "{:?}", start.elapsed());
        sleep(Duration::from_millis(5)).await;
    }
}

#[tokio::test]
async fn entries_go_to_the_database_that_is_named() {
    let server = RedisServer::start().await;
    let by_option = with(&RedisConfig { database: 3, ..config(&server.url()) });
    let by_url = with(&config(&format!("{}/5", server.url())));
    for redis in [&by_option, &by_url] {
        until_healthy(&**redis).await;
        put(&**redis, &key("k"), b"v").await.unwrap();
    }
    let keyspace: String = server.ask(&["INFO", "keyspace"]).await;
    assert!(keyspace.contains("db3:keys=1,") && keyspace.contains("db5:keys=1,"), "{keyspace}");
    assert!(!keyspace.contains("db0:"), "{keyspace}");
}

#[tokio::test]
async fn the_password_is_used_and_never_shown() {
    let server = RedisServer::start().await;
    let _: () = server.ask(&["ACL", "SETUSER", "someone", "on", ">sesame", "~*", "&*", "+@all"]).await;
    let url = |password: &str| format!("redis://someone:{password}@127.0.0.1:{}", server.port());
    let redis = connected(&url("sesame")).await;
    put(&*redis, &key("k"), b"v").await.unwrap();
    assert_eq!(read(&*redis, &key("k")).await.unwrap(), b"v");
    let wrong = provider(&url("guessed"));
    let reason = async || wrong.health().await.unwrap_err().to_string();
    until("the server has refused it", async || reason().await.contains("authentication failed")).await;
    for text in [reason().await, format!("{redis:?}"), format!("{wrong:?}")] {
        assert!(!text.contains("guessed") && !text.contains("sesame") && !text.contains("someone"), "{text}");
    }
}

#[test]
fn it_can_be_made_where_there_is_no_runtime_yet() {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    let server = runtime.block_on(RedisServer::start());
    let redis = provider(&server.url());
    runtime.block_on(async {
        until_healthy(&*redis).await;
        put(&*redis, &key("k"), b"v").await.unwrap();
        assert_eq!(read(&*redis, &key("k")).await.unwrap(), b"v");
    });
    drop(redis);
    runtime.block_on(until("its connections are closed", async || connections(&server).await == 0));
}
