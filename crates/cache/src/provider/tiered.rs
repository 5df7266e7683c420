//! Two tiers: copies in this process in front of a backend that all processes share.
//!
//! What stands here is storage only: what may be served from a copy, and for how long without a word from the others, the
//! cache decides. A copy that was read before somebody changed its entry must not be kept after it; so every answer of
//! the shared tier is marked before it is asked, and every change takes note of its key.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use futures_util::FutureExt;
use xxhash_rust::xxh3::xxh3_64;

use super::{
    Atomics, Capabilities, Capability, Copies, Entry, EpochStore, Error, Item, Known, Leases, Messages,
    Provider, Scope,
};
use crate::clock::Timestamp;
use crate::key::{Key, KeyPrefix};

/// Changed keys that are remembered. An answer that took longer than this many changes is not kept.
const RECENT_MAX: usize = 4_096;

/// A near tier in front of a far one.
///
/// `near` is a provider in this process whose calls are answered when they are first polled.
#[derive(Debug)]
pub struct Tiered {
    near: Arc<dyn Provider>,
    far: Arc<dyn Provider>,
    prefix: KeyPrefix,
    recent: Mutex<Recent>,
}

#[derive(Debug, Default)]
struct Recent {
    count: u64,
    /// Before this count anything may have changed.
    all_before: u64,
    /// Hashes of the keys that changed last, the newest in front.
    keys: VecDeque<u64>,
}

impl Tiered {
    /// `near` in front of `far`, for entries under `prefix`.
    pub fn new(near: Arc<dyn Provider>, far: Arc<dyn Provider>, prefix: KeyPrefix) -> Self {
        Self { near, far, prefix, recent: Mutex::default() }
    }

    fn recent(&self) -> MutexGuard<'_, Recent> {
        self.recent.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// In place of what is copied, and of what readers who asked before would keep.
    fn keep_newest(&self, key: &Key, item: Item, keep_for: Duration) {
        let mut recent = self.recent();
        recent.changed(key);
        let _ = self.near.set(key, item, keep_for).now_or_never();
    }
}

impl Recent {
    fn changed(&mut self, key: &Key) {
        self.count += 1;
        self.keys.truncate(RECENT_MAX - 1);
        self.keys.push_front(xxh3_64(key.as_str().as_bytes()));
    }

    fn everything_changed(&mut self) {
        self.count += 1;
        self.all_before = self.count;
        self.keys.clear();
    }

    /// Yes when it is too long ago to know.
    fn may_have_changed(&self, key: &Key, mark: u64) -> bool {
        if mark < self.all_before {
            return true;
        }
        let changes = usize::try_from(self.count.saturating_sub(mark)).unwrap_or(usize::MAX);
        let hash = xxh3_64(key.as_str().as_bytes());
        changes > self.keys.len() || self.keys.iter().take(changes).any(|changed| *changed == hash)
    }
}

#[async_trait]
impl Copies for Tiered {
    fn mark(&self) -> u64 {
        self.recent().count
    }

    fn keep(&self, key: &Key, item: Item, keep_for: Duration, mark: u64) {
        let recent = self.recent();
        if !recent.may_have_changed(key, mark) {
            let _ = self.near.set(key, item, keep_for).now_or_never();
        }
    }

    fn forget(&self, keys: &[Key]) {
        let mut recent = self.recent();
        for key in keys {
            recent.changed(key);
        }
        let _ = self.near.delete(keys).now_or_never();
    }

    async fn forget_all(&self) {
        self.recent().everything_changed();
        // A provider in this process does not fail; were it to, its entries would still carry their stamps.
        let _ = self.near.clear(&Scope::Prefix(self.prefix.clone())).await;
    }
}

#[async_trait]
#[deny(clippy::missing_trait_methods)]
impl Provider for Tiered {
    fn name(&self) -> &'static str {
        "tiered"
    }

    /// Those of the far tier; an entry must fit into it, not into the near one.
    fn capabilities(&self) -> Capabilities {
        self.far.capabilities().overridden(Capability::Retains, Known::Has(true))
    }

    fn peek(&self, key: &Key, now: Timestamp) -> Option<Item> {
        self.near.peek(key, now)
    }

    fn glance(&self, key: &Key, now: Timestamp, see: &mut dyn FnMut(&Item)) {
        self.near.glance(key, now, see);
    }

    async fn get(&self, key: &Key) -> Result<Option<Item>, Error> {
        self.far.get(key).await
    }

    async fn set(&self, key: &Key, item: Item, keep_for: Duration) -> Result<(), Error> {
        self.forget(std::slice::from_ref(key));
        self.far.set(key, item.clone(), keep_for).await?;
        self.keep_newest(key, item, keep_for);
        Ok(())
    }

    /// Forgotten before and after: before, because this call may be dropped half way; after, because somebody may have
    /// read the old entry meanwhile.
    async fn delete(&self, keys: &[Key]) -> Result<(), Error> {
        self.forget(keys);
        let deleted = self.far.delete(keys).await;
        self.forget(keys);
        deleted
    }

    async fn replace(&self, key: &Key, seen: &Item, item: Item, keep_for: Duration) -> Result<bool, Error> {
        self.forget(std::slice::from_ref(key));
        let is_replaced = self.far.replace(key, seen, item.clone(), keep_for).await?;
        self.forget(std::slice::from_ref(key));
        Ok(is_replaced)
    }

    async fn get_many(&self, keys: &[Key]) -> Result<Vec<Option<Item>>, Error> {
        self.far.get_many(keys).await
    }

    async fn set_many(&self, entries: Vec<Entry>) -> Result<(), Error> {
        let keys: Vec<_> = entries.iter().map(|entry| entry.key.clone()).collect();
        self.forget(&keys);
        self.far.set_many(entries.clone()).await?;
        for Entry { key, item, keep_for } in entries {
            self.keep_newest(&key, item, keep_for);
        }
        Ok(())
    }

    async fn clear(&self, scope: &Scope) -> Result<(), Error> {
        self.recent().everything_changed();
        self.near.clear(scope).await?;
        self.far.clear(scope).await
    }

    async fn health(&self) -> Result<(), Error> {
        self.far.health().await
    }

    fn evictions(&self) -> Option<u64> {
        self.near.evictions()
    }

    fn read_limit(&self) -> Option<Duration> {
        self.far.read_limit()
    }

    fn copies(&self) -> Option<&dyn Copies> {
        Some(self)
    }

    fn leases(&self) -> Option<&dyn Leases> {
        self.far.leases()
    }

    fn epochs(&self) -> Option<&dyn EpochStore> {
        self.far.epochs()
    }

    fn atomics(&self) -> Option<&dyn Atomics> {
        self.far.atomics()
    }

    fn messages(&self) -> Option<&dyn Messages> {
        self.far.messages()
    }
}
