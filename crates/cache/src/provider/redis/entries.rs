//! Entries: one key each, and nothing beside it but, for a moment, a lease.

use std::sync::PoisonError;
use std::sync::atomic::Ordering;
use std::time::Duration;

use async_trait::async_trait;
use futures_util::future::{join_all, try_join_all};
use redis::{Cmd, Pipeline, Value, cmd};
use tracing::debug;

use super::errors::{Failure, NAME, protocol, unavailable};
use super::node::{Line, Node};
use super::servers::{Share, transact};
use super::{Redis, millis, names, script, value, wakes};
use crate::clock::Timestamp;
use crate::key::Key;
use crate::provider::{
    Atomics, Capabilities, Capability, Copies, Entry, EpochStore, Error, Item, Leases, Messages, Provider,
    Scope,
};

/// Names that one step of a clear looks at on the server.
const NAMES_A_STEP: usize = 1_000;
/// Steps that a clear takes on one server at most: it looks at ten million names. What it leaves is unreachable anyhow.
const STEPS_MAX: usize = 10_000;
/// Entries that take effect together: more would keep the server from others for too long.
const ENTRIES_A_TRANSACTION: usize = 100;

#[async_trait]
#[deny(clippy::missing_trait_methods)]
impl Provider for Redis {
    fn name(&self) -> &'static str {
        NAME
    }

    fn capabilities(&self) -> Capabilities {
        *self.inner.capabilities.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn peek(&self, _key: &Key, _now: Timestamp) -> Option<Item> {
        None
    }

    async fn get(&self, key: &Key) -> Result<Option<Item>, Error> {
        self.start();
        let mut get = Cmd::with_capacity(2, key.as_str().len() + 3);
        get.arg("GET").arg(key.as_str());
        value::item(self.inner.servers.one(key.as_str(), Line::Any, &get).await?)
    }

    /// The lease is removed in the same step, so that no load that began before can land after.
    async fn set(&self, key: &Key, item: Item, keep_for: Duration) -> Result<(), Error> {
        self.start();
        let mut void = cmd("DEL");
        void.arg(names::lease(key));
        let answers =
            self.inner.servers.transaction(key.as_str(), &[set_command(key, &item, keep_for), void]).await?;
        if answers.last().is_some_and(|voided| matches!(voided, Value::Int(1..))) {
            self.wake([key]).await;
        }
        Ok(())
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

    async fn set_many(&self, entries: Vec<Entry>) -> Result<(), Error> {
        self.start();
        if entries.is_empty() {
            return Ok(());
        }
        let shares = self.inner.servers.shares(entries.iter().map(|entry| entry.key.as_str()))?;
        let mut voided = 0;
        for stored in join_all(shares.iter().map(|share| self.set_share(share, &entries))).await {
            voided += stored?;
        }
        if voided > 0 {
            self.wake(entries.iter().map(|entry| &entry.key)).await;
        }
        Ok(())
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

    fn copies(&self) -> Option<&dyn Copies> {
        None
    }

    fn leases(&self) -> Option<&dyn Leases> {
        self.capabilities().has(Capability::Leases).then_some(self)
    }

    fn epochs(&self) -> Option<&dyn EpochStore> {
        self.capabilities().has(Capability::CompareAndSwap).then_some(self)
    }

    fn atomics(&self) -> Option<&dyn Atomics> {
        self.capabilities().has(Capability::AtomicIncrement).then_some(self)
    }

    fn messages(&self) -> Option<&dyn Messages> {
        self.capabilities().has(Capability::PushInvalidation).then_some(self)
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

    /// How many leases were voided.
    async fn set_share(&self, share: &Share, entries: &[Entry]) -> Result<i64, Error> {
        let mut commands = Pipeline::new();
        let parts = share.slots.iter().flat_map(|indices| indices.chunks(ENTRIES_A_TRANSACTION));
        for indices in parts {
            let entries = || indices.iter().filter_map(|index| entries.get(*index));
            let mut void = cmd("DEL");
            for entry in entries() {
                void.arg(names::lease(&entry.key));
            }
            let sets = entries().map(|entry| set_command(&entry.key, &entry.item, entry.keep_for));
            transact(&mut commands, sets.chain([void]));
        }
        let answers = self.exchange(share, Line::Ordered, &commands).await?;
        // The answers to EXEC are lists, those before them only say that a command was queued.
        let done = answers.into_iter().filter_map(|answer| value::array(answer).ok());
        Ok(done.filter_map(|answers| value::integer(answers.last()?).ok()).sum())
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

fn set_command(key: &Key, item: &Item, keep_for: Duration) -> Cmd {
    let mut set = Cmd::with_capacity(5, key.as_str().len() + item.bytes.len() + 32);
    set.arg("SET").arg(key.as_str()).arg(&item.bytes[..]).arg("PX").arg(millis(keep_for));
    set
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
