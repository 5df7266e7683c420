//! Reads of the configured backend, in turn with the same reads without the cache.
//!
//! In a task of the runtime, as handlers read: on the thread that only waits for the runtime, each read would cost two changes
//! of threads more, here and there.

use std::time::Duration;

use tokio::time::Instant;

use super::peer::{BATCH, Peer};
use super::{Row, Table, quantile_us, timed};
use crate::cache::Cache;
use crate::config::CacheConfig;
use crate::key::Key;
use crate::policy::Policy;
use crate::usage::{Coherence, Usage};

const VALUE_LETTERS: usize = 70;

pub(super) async fn table(cache: Cache, config: CacheConfig, each: Duration) -> Table {
    let cache = cache.for_usage(&Usage::user("bench", Coherence::Eventual));
    let space = cache.keys().space("wire");
    let keys: Vec<Key> = (0..BATCH).map(|number| space.key([format!("{number:04}")])).collect();
    let entries = keys.iter().map(|key| (key.clone(), "v".repeat(VALUE_LETTERS))).collect();
    cache.set_many(entries, &Policy::new(Duration::from_mins(10))).await;
    let mut table = Table::default();
    let mut peer = match beside(&cache, &config, keys.first()).await {
        Ok(peer) => Some(peer),
        Err(reason) => {
            table.missing.push(format!("nothing stands beside `{}`: {reason}", config.backend));
            None
        }
    };
    table.rows.extend(one_by_one(&cache, &keys, peer.as_mut(), each).await);
    table.rows.extend(all_at_once(&cache, &keys, peer.as_mut(), each).await);
    table
}

/// The peer, with entries as long as the cache's with their envelope.
async fn beside(cache: &Cache, config: &CacheConfig, key: Option<&Key>) -> Result<Peer, String> {
    let key = key.ok_or("no key")?;
    let found = cache.provider().get(key).await.map_err(|error| error.to_string())?;
    let stored = found.ok_or("what was set is not there")?;
    Peer::connect(config, stored.bytes.len()).await
}

async fn one_by_one(cache: &Cache, keys: &[Key], mut peer: Option<&mut Peer>, each: Duration) -> Vec<Row> {
    let (mut ours, mut bare, mut misses) = (Vec::new(), Vec::new(), 0_u32);
    let until = Instant::now() + each;
    for (number, key) in keys.iter().enumerate().cycle() {
        let (found, took) = timed(cache.get::<String>(key)).await;
        ours.push(took);
        misses += u32::from(found.is_none());
        if let Some(peer) = peer.as_mut()
            && let (Ok(()), took) = timed(peer.get(number)).await
        {
            bare.push(took);
        }
        if Instant::now() >= until {
            break;
        }
    }
    let mut rows = Vec::new();
    for (name, per_mille) in [("GET p50", 500), ("GET p99", 990)] {
        let row = Row::new(name, quantile_us(&mut ours, per_mille), "us");
        rows.push(match &peer {
            Some(peer) if !bare.is_empty() => row.beside(peer.name(), quantile_us(&mut bare, per_mille)),
            _ => row,
        });
    }
    if misses > 0 {
        rows.push(Row::new("GET not answered in time", f64::from(misses), "reads"));
    }
    rows
}

async fn all_at_once(cache: &Cache, keys: &[Key], mut peer: Option<&mut Peer>, each: Duration) -> Vec<Row> {
    let (mut ours, mut found, mut bare, mut read) = (Duration::ZERO, 0_u32, Duration::ZERO, 0_u32);
    let until = Instant::now() + each;
    while Instant::now() < until {
        let (values, took) = timed(cache.get_many::<String>(keys)).await;
        ours += took;
        found += values.iter().map(|value| u32::from(value.is_some())).sum::<u32>();
        if let Some(peer) = peer.as_mut()
            && let (Ok(()), took) = timed(peer.get_many()).await
        {
            bare += took;
            read += u32::try_from(BATCH).unwrap_or(u32::MAX);
        }
    }
    let rate = |count: u32, time: Duration| f64::from(count) / time.as_secs_f64().max(f64::MIN_POSITIVE);
    let row = Row::new("get_many of 100, one caller", rate(found, ours), "keys/s");
    vec![match &peer {
        Some(peer) if read > 0 => row.beside(peer.name(), rate(read, bare)),
        _ => row,
    }]
}
