//! What a server answers that is no answer, as what a caller can do about it.

use std::time::Duration;

use recache_cache::Provider;
use recache_cache::provider::{Error, Leased, Redis};

use crate::redis_server::RedisServer;
use crate::{connected, item, key, provider, put, read, until, until_healthy};

async fn set_error(redis: &Redis) -> Error {
    put(redis, &key("quiet"), b"hush").await.unwrap_err()
}

fn assert_unavailable(error: &Error, code: &str) {
    assert!(matches!(error, Error::Unavailable { .. }), "{error}");
    assert_tells_only(error, code);
}

fn assert_refused(error: &Error, code: &str) {
    assert!(matches!(error, Error::Refused { .. }) && !error.is_failure(), "{error}");
    assert_tells_only(error, code);
}

fn assert_tells_only(error: &Error, code: &str) {
    let text = error.to_string();
    assert!(text.contains(code), "{text}");
    assert!(!text.contains("quiet") && !text.contains("hush") && !text.contains("127.0.0.1"), "{text}");
}

#[tokio::test]
async fn a_full_server_refuses_writes_and_serves_reads_and_removals() {
    let server = RedisServer::start().await;
    let redis = connected(&server.url()).await;
    put(&*redis, &key("k"), b"v").await.unwrap();
    let leases = redis.leases().unwrap();
    let Leased::Granted(lease) = leases.take(&key("held"), 7, Duration::from_secs(60), None).await.unwrap()
    else {
        panic!("nobody else is here")
    };
    let _: () = server.ask(&["CONFIG", "SET", "maxmemory", "1"]).await;
    assert_refused(&set_error(&redis).await, "OOM");
    let late = leases.fill(&key("held"), &lease, item(b"v"), Duration::from_secs(60)).await;
    assert_refused(&late.unwrap_err(), "OOM");
    assert_eq!(read(&*redis, &key("k")).await.unwrap(), b"v");
    redis.delete(&[key("k")]).await.unwrap();
    let _: () = server.ask(&["CONFIG", "SET", "maxmemory", "0"]).await;
    let filled = leases.fill(&key("held"), &lease, item(b"v"), Duration::from_secs(60)).await.unwrap();
    assert!(filled, "the refused fill changed nothing");
}

#[tokio::test]
async fn a_replica_is_unavailable_for_writes_until_it_is_master_again() {
    let server = RedisServer::start().await;
    let redis = connected(&server.url()).await;
    let _: () = server.ask(&["REPLICAOF", "127.0.0.1", "1"]).await;
    until("it is a replica", async || {
        matches!(&put(&*redis, &key("quiet"), b"hush").await, Err(error) if error.to_string().contains("READONLY"))
    })
    .await;
    let _: () = server.ask(&["REPLICAOF", "NO", "ONE"]).await;
    until("it is master again", async || put(&*redis, &key("k"), b"v").await.is_ok()).await;
}

#[tokio::test]
async fn a_server_that_cannot_save_is_unavailable_for_writes() {
    let server = RedisServer::start_with(&["--save", "3600 1"]).await;
    let redis = connected(&server.url()).await;
    put(&*redis, &key("k"), b"v").await.unwrap();
    let _: () = server.ask(&["CONFIG", "SET", "rdb-key-save-delay", "0"]).await;
    std::fs::remove_dir_all(server.folder()).unwrap();
    let _: () = server.ask(&["BGSAVE"]).await;
    until("saving has failed", async || {
        let info: String = server.ask(&["INFO", "persistence"]).await;
        info.contains("rdb_last_bgsave_status:err")
    })
    .await;
    assert_unavailable(&set_error(&redis).await, "MISCONF");
    assert_eq!(read(&*redis, &key("k")).await.unwrap(), b"v");
}

#[tokio::test]
async fn a_server_that_still_loads_is_unavailable_and_then_serves() {
    let mut server = RedisServer::start().await;
    let redis = connected(&server.url()).await;
    for number in 0..200 {
        put(&*redis, &key(&number.to_string()), &[b'x'; 10_000]).await.unwrap();
    }
    server.shut_down().await;
    let port = server.port();
    let options = ["--key-load-delay", "10000", "--loading-process-events-interval-bytes", "1024"];
    let dump = server.folder().join("dump.rdb").display().to_string();
    let folder = tempfile::tempdir().unwrap();
    std::fs::copy(dump, folder.path().join("dump.rdb")).unwrap();
    let folder = folder.path().display().to_string();
    let loading = RedisServer::spawn(port, &[&options[..], &["--dir", &folder]].concat());
    until("it says that it loads", async || match redis.get(&key("1")).await {
        Err(error) => error.to_string().contains("LOADING"),
        Ok(_) => panic!("it served before that was seen"),
    })
    .await;
    until("it serves", async || matches!(redis.get(&key("1")).await, Ok(Some(_)))).await;
    drop(loading);
}

#[tokio::test]
async fn who_is_not_let_in_is_told_so_without_names() {
    let server = RedisServer::start_with(&["--requirepass", "sesame"]).await;
    let redis = provider(&server.url());
    until("it was not let in", async || redis.health().await.unwrap_err().to_string().contains("NOAUTH"))
        .await;
    assert_unavailable(&set_error(&redis).await, "NOAUTH");
}

#[tokio::test]
async fn an_operation_that_the_access_rules_forbid_is_refused() {
    let server = RedisServer::start().await;
    let rules = ["ACL", "SETUSER", "reader", "on", ">secret", "~*", "&*", "+@all", "-set"];
    let _: () = server.ask(&rules).await;
    let redis = connected(&format!("redis://reader:secret@127.0.0.1:{}", server.port())).await;
    assert_refused(&set_error(&redis).await, "NOPERM");
}

#[tokio::test]
async fn something_else_under_the_key_is_refused_and_can_be_replaced() {
    let server = RedisServer::start().await;
    let redis = connected(&server.url()).await;
    let _: () = server.ask(&["LPUSH", key("quiet").as_str(), "hush"]).await;
    assert_refused(&redis.get(&key("quiet")).await.unwrap_err(), "WRONGTYPE");
    put(&*redis, &key("quiet"), b"v").await.unwrap();
    assert_eq!(read(&*redis, &key("quiet")).await.unwrap(), b"v");
}

#[tokio::test]
async fn scripts_that_the_server_forgot_are_sent_again() {
    let server = RedisServer::start().await;
    let redis = connected(&server.url()).await;
    let leases = redis.leases().unwrap();
    for round in 0..3_u128 {
        let _: () = server.ask(&["SCRIPT", "FLUSH"]).await;
        let key = key(&round.to_string());
        let taken = leases.take(&key, round, Duration::from_secs(60), None).await.unwrap();
        assert!(matches!(taken, Leased::Granted(_)), "{taken:?}");
    }
}

#[tokio::test]
async fn a_node_whose_cluster_is_down_is_unavailable() {
    let server = RedisServer::start_with(&["--cluster-enabled", "yes", "--cluster-port", &free()]).await;
    let redis = connected(&server.url()).await;
    assert_unavailable(&set_error(&redis).await, "CLUSTERDOWN");
    assert_unavailable(&redis.get(&key("quiet")).await.unwrap_err(), "CLUSTERDOWN");
}

fn free() -> String {
    crate::redis_server::free_port().to_string()
}

#[tokio::test]
async fn a_number_that_would_overflow_is_refused() {
    let server = RedisServer::start().await;
    let redis = connected(&server.url()).await;
    let atomics = redis.atomics().unwrap();
    let minute = Duration::from_secs(60);
    let beyond_floating = (1_i64 << 53) + 1;
    assert_eq!(atomics.add(&key("n"), beyond_floating, minute).await.unwrap(), beyond_floating);
    assert_eq!(atomics.add(&key("n"), i64::MAX - beyond_floating, minute).await.unwrap(), i64::MAX);
    assert_refused(&atomics.add(&key("n"), 1, minute).await.unwrap_err(), "ERR");
    until_healthy(&*redis).await;
}
