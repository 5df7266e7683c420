//! The provider for Redis, against servers that the tests start themselves.
#![cfg(feature = "cache-redis")]
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    missing_docs,
    reason = "a test says what it expects"
)]

#[path = "../conformance/mod.rs"]
mod conformance;
#[path = "../support/redis_server.rs"]
mod redis_server;

mod cancelled;
mod clear;
mod cluster;
mod connections;
mod epochs;
mod outage;
mod refusals;
mod sentinel;
mod suite;
#[cfg(feature = "cache-redis-tls")]
mod tls;

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use recache_cache::config::{RedisConfig, ServerUrl};
use recache_cache::provider::{Error, Item, Redis, RedisSettings};
use recache_cache::{Key, KeyPrefix, Provider};
use tokio::time::{Instant, sleep};

/// How long a test waits for what must happen.
const PATIENCE: Duration = Duration::from_secs(20);
const KEEP_FOR: Duration = Duration::from_mins(10);
const PREFIX: &str = "p";

fn settings(url: &str) -> RedisSettings {
    RedisSettings::single(url).unwrap()
}

fn config(url: &str) -> RedisConfig {
    RedisConfig { url: ServerUrl::new(url), ..RedisConfig::default() }
}

fn provider(url: &str) -> Arc<Redis> {
    Arc::new(Redis::new(&settings(url), KeyPrefix::new(PREFIX)))
}

/// One that has connected and been probed.
async fn connected(url: &str) -> Arc<Redis> {
    let provider = provider(url);
    until_healthy(&*provider).await;
    provider
}

async fn until_healthy(provider: &dyn Provider) {
    until("it is healthy", async || provider.health().await.is_ok()).await;
}

/// Waits until `holds`.
async fn until(what: &str, holds: impl AsyncFn() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !holds().await {
        assert!(Instant::now() < deadline, "not so within {PATIENCE:?}: {what}");
        sleep(Duration::from_millis(5)).await;
    }
}

fn key(name: &str) -> Key {
    KeyPrefix::new(PREFIX).space("s").key([name])
}

fn item(bytes: &[u8]) -> Item {
    Item::from(Bytes::copy_from_slice(bytes))
}

async fn put(provider: &dyn Provider, key: &Key, bytes: &[u8]) -> Result<(), Error> {
    provider.set(key, item(bytes), KEEP_FOR).await
}

async fn read(provider: &dyn Provider, key: &Key) -> Option<Vec<u8>> {
    provider.get(key).await.unwrap().map(|item| item.bytes.to_vec())
}
