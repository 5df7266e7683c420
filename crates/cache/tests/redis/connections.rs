//! Every option of a connection does what it says.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use futures_util::future::join_all;
use recache_cache::config::RedisConfig;
use recache_cache::provider::{Redis, RedisSettings};
use recache_cache::{KeyPrefix, Provider};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
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

/// Passes on all, but for one read that is sent to the server, which it loses when it is told to.
async fn relay_that_loses(server: u16, loses: Arc<AtomicBool>) -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    tokio::spawn(async move {
        while let Ok((client, _)) = listener.accept().await {
            let Ok(behind) = TcpStream::connect(("127.0.0.1", server)).await else { continue };
            let loses = Arc::clone(&loses);
            tokio::spawn(async move {
                let (mut from_client, mut to_client) = client.into_split();
                let (mut from_server, mut to_server) = behind.into_split();
                let up = async {
                    let mut bytes = vec![0; 1 << 16];
                    while let Ok(count @ 1..) = from_client.read(&mut bytes).await {
                        let read = b"*2\r\n$3\r\nGET";
                        let is_next = |place: &usize| bytes[*place..count].starts_with(read);
                        let is_lost = is_next(&0) && loses.swap(false, Ordering::SeqCst);
                        let from = if is_lost { (1..count).find(is_next).unwrap_or(count) } else { 0 };
                        to_server.write_all(&bytes[from..count]).await?;
                    }
                    Ok::<_, std::io::Error>(())
                };
                let _ = tokio::join!(up, tokio::io::copy(&mut from_server, &mut to_client));
            });
        }
    });
    port
}

#[tokio::test]
async fn a_connection_whose_answers_are_out_of_step_is_given_up() {
    let server = RedisServer::start().await;
    let loses = Arc::new(AtomicBool::new(false));
    let relay = relay_that_loses(server.port(), Arc::clone(&loses)).await;
    let redis = connected(&format!("redis://127.0.0.1:{relay}")).await;
    let wrong = Arc::new(AtomicU64::new(0));
    let callers: Vec<_> = (0..8)
        .map(|number| {
            let (redis, wrong, key) = (Arc::clone(&redis), Arc::clone(&wrong), key(&format!("k{number}")));
            tokio::spawn(async move {
                put(&*redis, &key, key.as_str().as_bytes()).await.unwrap();
                loop {
                    // As the cache does it: who waits in vain gives up.
                    let found = tokio::time::timeout(Duration::from_millis(20), redis.get(&key)).await;
                    let found = found.ok().and_then(Result::ok).flatten();
                    if found.is_some_and(|found| found.bytes != key.as_str()) {
                        wrong.fetch_add(1, Ordering::SeqCst);
                    }
                    sleep(Duration::from_millis(1)).await;
                }
            })
        })
        .collect();
    sleep(Duration::from_millis(100)).await;
    assert_eq!(wrong.load(Ordering::SeqCst), 0);
    loses.store(true, Ordering::SeqCst);
    until("calls get the answers to others", async || wrong.load(Ordering::SeqCst) > 10).await;
    until("every call gets its own answer", async || {
        let before = wrong.load(Ordering::SeqCst);
        sleep(Duration::from_millis(100)).await;
        wrong.load(Ordering::SeqCst) == before
    })
    .await;
    callers.iter().for_each(tokio::task::JoinHandle::abort);
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
