//! What a call costs more while the backend is down: the same configuration, with a port on which nobody listens.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::TcpListener;
use tokio::time::Instant;

use super::{Row, quantile_us, timed};
use crate::cache::Cache;
use crate::clock::SystemClock;
use crate::config::{Backend, CacheConfig, RedisMode, ServerUrl};
use crate::policy::Policy;
use crate::usage::{Coherence, Usage};

/// Calls within which the breaker has had its failures.
const FIRST_CALLS: u32 = 100;

pub(super) async fn rows(config: &CacheConfig, each: Duration) -> Result<Vec<Row>, String> {
    let config = with_nobody(config).await.map_err(|error| error.to_string())?;
    let cache = Cache::from_config(&config, Arc::new(SystemClock));
    let cache = cache.for_usage(&Usage::user("bench", Coherence::Eventual));
    let space = cache.keys().space("outage");
    let policy = Policy::new(Duration::from_mins(10));
    let load = async || Ok::<_, Infallible>(Some(7_u64));
    let (mut first, mut then, mut number) = (Vec::new(), Vec::new(), 0_u32);
    let until = Instant::now() + each;
    while number <= FIRST_CALLS || Instant::now() < until {
        let key = space.key([number.to_string()]);
        let (_, took) = timed(cache.get_or_load(&key, &policy, load)).await;
        if number < FIRST_CALLS {
            first.push(took);
        } else {
            then.push(took);
        }
        number = number.saturating_add(1);
    }
    let is_open = cache.breakers().is_some_and(|breakers| breakers.reports()[0].is_refusing);
    let state = if is_open { "breaker open" } else { "breaker not open" };
    Ok(vec![
        Row::new("backend down: longest of the first 100 calls", quantile_us(&mut first, 1_000), "us"),
        Row::new(format!("backend down, {state}: p50 of a call"), quantile_us(&mut then, 500), "us"),
        Row::new(format!("backend down, {state}: p99 of a call"), quantile_us(&mut then, 990), "us"),
    ])
}

async fn with_nobody(config: &CacheConfig) -> std::io::Result<CacheConfig> {
    let port = TcpListener::bind(("127.0.0.1", 0)).await?.local_addr()?.port();
    let mut config = config.clone();
    if config.backend() == Some(Backend::Memcached) {
        config.memcached.url = ServerUrl::new(format!("tcp://127.0.0.1:{port}"));
    } else {
        config.redis.url = ServerUrl::new(format!("redis://127.0.0.1:{port}"));
        config.redis.mode = RedisMode::Single;
        config.redis.nodes.clear();
    }
    Ok(config)
}
