//! Entries: one key each, and nothing beside it but, for a moment, a lease.

use std::sync::atomic::Ordering;
use std::time::Duration;

use async_trait::async_trait;
use futures_util::future::{join_all, try_join_all};
use redis::{Cmd, Pipeline, Value, cmd};
use tracing::debug;

use super::errors::{Failure, NAME, protocol, unavailable};
use super::node::{Line, Node};
use super::servers::Share;
use super::{Redis, millis, names, script, value, wakes};
use crate::clock::Timestamp;
use crate::key::Key;
use crate::provider::{
    Atomics, Capabilities, Capability, Copies, Entry, EpochStore, Error, Item, Leases, Messages, Provider,
    Scope, latest,
};

/// Names that one step of a clear looks at on the server.
const NAMES_A_STEP: usize = 1_000;
/// Steps that a clear takes on one server at most: it looks at ten million names. What it leaves is unreachable anyhow.
const STEPS_MAX: usize = 10_000;

#[async_trait]
#[deny(clippy::missing_trait_methods)]
impl Provider for Redis {
    fn name(&self) -> &'static str {
        NAME
    }

    fn capabilities(&self) -> Capabilities {
        self.inner.abilities.all()
    }

    fn peek(&self, _key: &Key, _now: Timestamp) -> Option<Item> {
        None
    }

    fn glance(&self, _key: &Key, _now: Timestamp, _see: &mut dyn FnMut(&Item)) {}

    async fn get(&self, key: &Key) -> Result<Option<Item>, Error> {
        self.start();
        let mut get = Cmd::with_capacity(2, key.as_str().len() + 3);
        get.arg("GET").arg(key.as_str());
        value::item(self.inner.servers.one(key.as_str(), Line::Any, &get).await?)
    }

    async fn set(&self, key: &Key, item: Item, keep_for: Duration) -> Result<(), Error> {
        self.set_many(vec![Entry { key: key.clone(), item, keep_for }]).await
    }

    /// The leases go first: what is filled in between is removed with the entries.
    async fn delete(&self, keys: &[Key]) -> Result<(), Error> {
        self.start();
        if keys.is_empty() {
            return Ok(());
        }
        let shares = self.inner.servers.shares(keys.iter().map(Key::as_str))?;
        let removed = join_all(shares.iter().map(|share| self.delete_share(share, keys))).await;
        let mut voided = 0;
        for removed in removed {
            voided += removed?;
        }
        if voided > 0 {
            self.wake(keys).await;
        }
        Ok(())
    }

    async fn replace(&self, key: &Key, seen: &Item, item: Item, keep_for: Duration) -> Result<bool, Error> {
        self.start();
        let keep_ms = millis(keep_for);
        let arguments: [&[u8]; 3] = [&seen.bytes, &item.bytes, keep_ms.as_bytes()];
        let replaced = self.inner.servers.script(&script::REPLACE, &[key.as_str()], &arguments).await?;
        Ok(value::integer(&replaced)? == 1)
    }

    /// One exchange with each server that has some of the keys.
    async fn get_many(&self, keys: &[Key]) -> Result<Vec<Option<Item>>, Error> {
        self.start();
        if keys.is_empty() {
            return Ok(Vec::new());
        }
        let shares = self.inner.servers.shares(keys.iter().map(Key::as_str))?;
        let mut items = vec![None; keys.len()];
        for found in try_join_all(shares.iter().map(|share| self.get_share(share, keys))).await? {
            for (index, item) in found {
                if let Some(place) = items.get_mut(index) {
                    *place = item;
                }
            }
        }
        Ok(items)
    }

    /// In two exchanges, so that no load that began before can land after, and this call itself not after a later one.
    async fn set_many(&self, entries: Vec<Entry>) -> Result<(), Error> {
        self.start();
        let entries = latest(entries);
        if self.leases().is_some() {
            return self.write(&entries).await;
        }
        self.write_unfenced(&entries).await
    }

    /// Looks through the names on every server, within bounds.
    async fn clear(&self, scope: &Scope) -> Result<(), Error> {
        self.start();
        let nodes = self.inner.servers.all();
        if nodes.is_empty() {
            return Err(unavailable("no server is known yet"));
        }
        for cleared in join_all(nodes.iter().map(|node| clear_node(node, scope))).await {
            cleared?;
        }
        Ok(())
    }

    async fn health(&self) -> Result<(), Error> {
        self.start();
        let nodes = self.inner.servers.all();
        if nodes.is_empty() {
            return Err(unavailable("no server is known yet"));
        }
        let ping = cmd("PING");
        for answer in join_all(nodes.iter().map(|node| node.one(Line::Ordered, &ping))).await {
            answer.map_err(Failure::into_error)?;
        }
        Ok(())
    }

    /// By all who use the server, as of a minute ago at most.
    fn evictions(&self) -> Option<u64> {
        Some(self.inner.evictions.load(Ordering::Relaxed)).filter(|evictions| *evictions != u64::MAX)
    }

    fn read_limit(&self) -> Option<Duration> {
        None
    }

    fn copies(&self) -> Option<&dyn Copies> {
        None
    }

    // Asked at every call, so without a copy of all capabilities.

    fn leases(&self) -> Option<&dyn Leases> {
        self.has(Capability::Leases).then_some(self)
    }

    fn epochs(&self) -> Option<&dyn EpochStore> {
        self.has(Capability::CompareAndSwap).then_some(self)
    }

    fn atomics(&self) -> Option<&dyn Atomics> {
        self.has(Capability::AtomicIncrement).then_some(self)
    }

    fn messages(&self) -> Option<&dyn Messages> {
        self.has(Capability::PushInvalidation).then_some(self)
    }
}

impl Redis {
    async fn get_share(&self, share: &Share, keys: &[Key]) -> Result<Vec<(usize, Option<Item>)>, Error> {
        let mut commands = Pipeline::with_capacity(share.slots.len());
        for indices in &share.slots {
            let get = commands.cmd("MGET");
            for key in indices.iter().filter_map(|index| keys.get(*index)) {
                get.arg(key.as_str());
            }
        }
        let answers = self.exchange(share, Line::Any, &commands).await?;
        let mut items = Vec::new();
        for (indices, answer) in share.slots.iter().zip(answers) {
            for (index, found) in indices.iter().zip(value::array(answer)?) {
                items.push((*index, value::item(found)?));
            }
        }
        Ok(items)
    }

    /// To a server that runs no scripts, where there are no leases either.
    async fn write_unfenced(&self, entries: &[Entry]) -> Result<(), Error> {
        let shares = self.inner.servers.shares(entries.iter().map(|entry| entry.key.as_str()))?;
        let stored = shares.iter().map(|share| async move {
            let mut commands = Pipeline::new();
            let entries = share.slots.iter().flatten().filter_map(|index| entries.get(*index));
            for Entry { key, item, keep_for } in entries {
                let set = commands.cmd("SET").arg(key.as_str()).arg(&item.bytes[..]);
                set.arg("PX").arg(millis(*keep_for));
            }
            self.exchange(share, Line::Ordered, &commands).await
        });
        try_join_all(stored).await.map(drop)
    }

    /// How many leases were voided.
    async fn delete_share(&self, share: &Share, keys: &[Key]) -> Result<i64, Error> {
        let mut commands = Pipeline::with_capacity(2 * share.slots.len());
        for indices in &share.slots {
            let (mut void, mut remove) = (cmd("UNLINK"), cmd("UNLINK"));
            for key in indices.iter().filter_map(|index| keys.get(*index)) {
                void.arg(names::lease(key));
                remove.arg(key.as_str());
            }
            commands.add_command(void).add_command(remove);
        }
        let answers = self.exchange(share, Line::Ordered, &commands).await?;
        let mut voided = 0;
        for (place, answer) in answers.iter().enumerate() {
            let count = value::integer(answer)?;
            voided += if place % 2 == 0 { count } else { 0 };
        }
        Ok(voided)
    }

    async fn exchange(&self, share: &Share, line: Line, commands: &Pipeline) -> Result<Vec<Value>, Error> {
        let servers = &self.inner.servers;
        let answers =
            share.node.many(line, commands).await.map_err(|failure| servers.broke(failure, &share.node))?;
        servers.learn(&answers, &share.node);
        value::first_error(&answers)?;
        Ok(answers)
    }

    /// Wakes whoever waits for these keys, in whatever process. A hint: that it does not arrive changes nothing.
    async fn wake<'a>(&self, keys: impl IntoIterator<Item = &'a Key> + Send) {
        let message = wakes::of_keys(keys);
        if let Err(error) = self.publish(self.inner.wakes.channel(), message.into()).await {
            debug!(provider = NAME, %error, "waiters of a lease were not woken");
        }
    }
}

async fn clear_node(node: &Node, scope: &Scope) -> Result<(), Error> {
    let mut cursor = "0".to_owned();
    for _ in 0..STEPS_MAX {
        let mut scan = cmd("SCAN");
        scan.arg(&cursor).arg("MATCH").arg(names::pattern(scope)).arg("COUNT").arg(NAMES_A_STEP);
        let mut answer = value::array(node.one(Line::Ordered, &scan).await.map_err(Failure::into_error)?)?;
        let (Some(found), Some(next)) = (answer.pop(), answer.pop().and_then(value::text)) else {
            return Err(protocol("not an answer to SCAN"));
        };
        let found = value::array(found)?.into_iter().filter_map(value::text);
        let condemned: Vec<_> = found.filter(|name| names::is_within(scope, name)).collect();
        remove(node, &condemned).await?;
        if next == "0" {
            return Ok(());
        }
        cursor = next;
    }
    debug!(provider = NAME, "clearing stopped at its bound; what is left is unreachable and ends by itself");
    Ok(())
}

/// Each by itself, since a cluster takes no two slots in one command; in one exchange.
async fn remove(node: &Node, condemned: &[String]) -> Result<(), Error> {
    if condemned.is_empty() {
        return Ok(());
    }
    let mut commands = Pipeline::with_capacity(condemned.len());
    for name in condemned {
        commands.cmd("UNLINK").arg(name);
    }
    let answers = node.many(Line::Ordered, &commands).await.map_err(Failure::into_error)?;
    value::first_error(&answers)
}
