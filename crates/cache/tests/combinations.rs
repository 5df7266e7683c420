//! What stands in front of providers runs their suite too: breakers, and a near tier.
#![cfg(all(feature = "cache-redis", feature = "cache-memcached", feature = "cache-moka"))]
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    missing_docs,
    reason = "a test says what it expects"
)]

#[macro_use]
mod conformance;
#[allow(dead_code, reason = "each test file uses a part of it")]
#[path = "support/memcached.rs"]
mod memcached_server;
#[path = "support/redis_server.rs"]
mod redis_server;

use std::sync::Arc;
use std::time::Duration;

use recache_cache::breaker::Settings;
use recache_cache::provider::{Guarded, Memcached, Moka, Near, Noop, Redis, RedisSettings, Tiered};
use recache_cache::{KeyPrefix, ManualClock, Provider, SystemClock};

use crate::conformance::World;
use crate::memcached_server::Server;
use crate::redis_server::RedisServer;

/// Redis counts in milliseconds; a tick is long against the time that a busy machine may lose.
const REDIS_TICK: Duration = Duration::from_millis(300);
/// memcached counts in whole seconds, and what must not end early lives up to two longer.
const MEMCACHED_TICK: Duration = Duration::from_millis(1_500);

fn guarded(provider: Arc<dyn Provider>) -> Arc<dyn Provider> {
    // A call of a suite that runs beside many others may be slow and is well all the same, for the breaker too.
    const SLOW: Duration = Duration::from_secs(10);
    let settings = Settings { slow_after: SLOW, ..Settings::default() };
    Arc::new(Guarded::new(provider, &settings).call_timeout(SLOW))
}

fn tiered(near: Arc<dyn Provider>, far: Arc<dyn Provider>, prefix: &str) -> Arc<dyn Provider> {
    Arc::new(Tiered::new(near, far, KeyPrefix::new(prefix)))
}

fn moka() -> Arc<dyn Provider> {
    Arc::new(Moka::new(10_000, 128 << 20, Arc::new(SystemClock)))
}

fn near() -> Arc<dyn Provider> {
    Arc::new(Near::new(10_000, 128 << 20, Arc::new(SystemClock)))
}

async fn redis(server: &RedisServer, prefix: &str) -> Arc<dyn Provider> {
    let provider = Redis::new(&RedisSettings::single(&server.url()).unwrap(), KeyPrefix::new(prefix));
    well(Arc::new(provider)).await
}

async fn memcached(server: &Server, prefix: &str) -> Arc<dyn Provider> {
    let provider: Memcached = memcached_server::provider(&[server.port()], Arc::new(SystemClock), prefix);
    Arc::new(memcached_server::connected(provider).await)
}

async fn well(provider: Arc<dyn Provider>) -> Arc<dyn Provider> {
    let deadline = tokio::time::Instant::now() + Duration::from_secs(20);
    while provider.health().await.is_err() {
        assert!(tokio::time::Instant::now() < deadline, "{} does not get well", provider.name());
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    provider
}

/// A world over one server in which `wrap` stands before what each of two processes has.
macro_rules! over {
    ($connect:ident, $tick:expr, $wrap:expr) => {
        async |server: Arc<_>, prefix: String| {
            let wrap = $wrap;
            let one = wrap($connect(&server, &prefix).await, &prefix);
            let other = wrap($connect(&server, &prefix).await, &prefix);
            World::real(prefix, $tick, one).with_peer(other).holding(server)
        }
    };
}

fn memcached_alone() -> impl Future<Output = Server> {
    std::future::ready(Server::start(&["-c", "4096"]))
}

conformance!(table_only guarded_moka, async {}, async |_, prefix: String| {
    let clock = Arc::new(ManualClock::default());
    let provider = Arc::new(Moka::new(10_000, 128 << 20, clock.clone()));
    World::moved(prefix, clock, guarded(provider))
});
conformance!(table_only guarded_noop, async {}, async |_, prefix: String| {
    World::moved(prefix, Arc::default(), guarded(Arc::new(Noop)))
});

conformance!(table_only guarded_redis, RedisServer::start(), over!(redis, REDIS_TICK, |far, _: &str| guarded(far)));
conformance!(
    table_only tiered_moka_redis,
    RedisServer::start(),
    over!(redis, REDIS_TICK, |far, prefix: &str| tiered(moka(), far, prefix))
);
conformance!(
    table_only tiered_near_guarded_redis,
    RedisServer::start(),
    over!(redis, REDIS_TICK, |far, prefix: &str| tiered(near(), guarded(far), prefix))
);

conformance!(
    table_only guarded_memcached,
    memcached_alone(),
    over!(memcached, MEMCACHED_TICK, |far, _: &str| guarded(far))
);
conformance!(
    table_only tiered_moka_memcached,
    memcached_alone(),
    over!(memcached, MEMCACHED_TICK, |far, prefix: &str| tiered(moka(), far, prefix))
);
conformance!(
    table_only tiered_moka_guarded_memcached,
    memcached_alone(),
    over!(memcached, MEMCACHED_TICK, |far, prefix: &str| tiered(moka(), guarded(far), prefix))
);
