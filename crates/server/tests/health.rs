//! The routes over a real socket and a real store.
#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs, reason = "a test says what it expects")]

use std::net::SocketAddr;

use recache_engine::Engine;
use recache_server::{Error, bind, serve};
use recache_store::{OpenOptions, open};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio_util::sync::CancellationToken;

async fn get(address: SocketAddr, path: &str) -> String {
    let mut stream = TcpStream::connect(address).await.unwrap();
    let request = format!("GET {path} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    answer
}

#[tokio::test]
async fn ready_follows_the_store_and_live_does_not() {
    let store = open(&OpenOptions::new("sqlite::memory:")).await.unwrap();
    let engine = Engine::builder(store.clone()).start().await.unwrap();
    let listener = bind("127.0.0.1:0".parse().unwrap()).await.unwrap();
    let address = listener.local_addr().unwrap();
    let stop = CancellationToken::new();
    let serving = tokio::spawn(serve(listener, engine.clone(), stop.clone()));

    assert!(get(address, "/health/live").await.starts_with("HTTP/1.1 200"));
    let ready = get(address, "/health/ready").await;
    assert!(ready.starts_with("HTTP/1.1 200") && ready.contains("\"ready\""), "{ready}");
    let summary = get(address, "/health").await;
    assert!(summary.starts_with("HTTP/1.1 200") && summary.contains("\"store\":\"sqlite\""), "{summary}");
    assert!(get(address, "/nothing").await.starts_with("HTTP/1.1 404"));

    // A store that cannot write is never called ready.
    store.close().await;
    let not_ready = get(address, "/health/ready").await;
    assert!(not_ready.starts_with("HTTP/1.1 503") && not_ready.contains("closed"), "{not_ready}");
    assert!(get(address, "/health").await.starts_with("HTTP/1.1 503"));
    assert!(get(address, "/health/live").await.starts_with("HTTP/1.1 200"));
    stop.cancel();
    serving.await.unwrap().unwrap();
}

#[tokio::test]
async fn taken_and_foreign_addresses_are_refused() {
    let first = bind("127.0.0.1:0".parse().unwrap()).await.unwrap();
    let address = first.local_addr().unwrap();
    assert!(matches!(bind(address).await, Err(Error::AddressInUse(taken)) if taken == address));
    let anywhere = "0.0.0.0:0".parse().unwrap();
    assert!(matches!(bind(anywhere).await, Err(Error::NotLoopback(_))));
}
