//! A cache on a server of its own, for the demo's readers and for benches.

use std::sync::Arc;
use std::time::Duration;

use recache_cache::{Cache, CacheConfig, Condition, SystemClock};
use serde::Serialize;
use serde_json::json;
use tokio::time::Instant;

/// A server that is not reached after this long is away.
const CONNECT_MAX: Duration = Duration::from_secs(5);
const CONNECT_PAUSE: Duration = Duration::from_millis(50);

/// Why it cannot be used.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Problem {
    #[error("--cache cannot be used: {0}")]
    Url(String),
    #[error("the cache cannot be used: {0}")]
    Away(String),
}

/// What the cache on a server of its own did.
#[derive(Debug, Serialize)]
pub(super) struct Figures {
    /// Which kind of server.
    pub(super) backend: &'static str,
    /// Reads that it answered.
    pub(super) hits: u64,
    /// Reads that went on to the database.
    pub(super) misses: u64,
}

/// A cache on a server, as `--cache` names it. Keys of different runs have nothing in common.
pub(crate) async fn open(url: &str) -> Result<(Cache, &'static str), Problem> {
    let scheme = url.split_once("://").map_or("", |(scheme, _)| scheme);
    let (backend, table) = match scheme {
        "redis" | "rediss" => ("redis", "redis"),
        "tcp" | "memcached" => ("memcached", "memcached"),
        _ => {
            let what = "expected redis://HOST:PORT, rediss://HOST:PORT or, for Memcached, tcp://HOST:PORT"
                .to_owned();
            return Err(Problem::Url(what));
        }
    };
    let url = url.replacen("memcached://", "tcp://", 1);
    let config: CacheConfig = serde_json::from_value(json!({
        "enabled": true,
        "backend": backend,
        "key_prefix": format!("recache-{}", uuid::Uuid::new_v4().simple()),
        table: { "url": url },
    }))
    // The URL may hold a password: what is wrong with it is said, not what it is.
    .map_err(|_| Problem::Url("it is no URL of such a server".to_owned()))?;
    let cache = Cache::configure(&config, Arc::new(SystemClock)).build();
    // A cache that is away never stops an application, nor makes it wait. Whoever asks to see one at work does, and wants to know.
    let deadline = Instant::now() + CONNECT_MAX;
    loop {
        let health = cache.health().await;
        if health.condition == Condition::Active && health.is_healthy {
            return Ok((cache, backend));
        }
        if Instant::now() >= deadline {
            return Err(Problem::Away(health.reasons.join("; ")));
        }
        tokio::time::sleep(CONNECT_PAUSE).await;
    }
}

/// What it has done.
pub(super) fn figures(cache: &Cache, backend: &'static str) -> Figures {
    let stats = cache.stats();
    Figures { backend, hits: stats.hits, misses: stats.misses }
}
