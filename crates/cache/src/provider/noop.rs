//! The provider that keeps nothing: for a cache that is switched off or cannot run.

use std::time::Duration;

use async_trait::async_trait;

use super::{
    Atomics, Capabilities, Capability, Copies, Entry, EpochStore, Error, Item, Leases, Messages, Provider,
    Scope,
};
use crate::clock::Timestamp;
use crate::key::Key;
use crate::usage::Coherence;

/// Keeps nothing, fails never.
#[derive(Debug, Clone, Copy, Default)]
pub struct Noop;

#[async_trait]
#[deny(clippy::missing_trait_methods)]
impl Provider for Noop {
    fn name(&self) -> &'static str {
        "noop"
    }

    /// Strict: what is never served is never served wrong.
    fn capabilities(&self) -> Capabilities {
        Capabilities::declared(Coherence::Strict, &[Capability::Batch, Capability::Namespaces])
    }

    fn peek(&self, _key: &Key, _now: Timestamp) -> Option<Item> {
        None
    }

    fn glance(&self, _key: &Key, _now: Timestamp, _see: &mut dyn FnMut(&Item)) {}

    async fn get(&self, _key: &Key) -> Result<Option<Item>, Error> {
        Ok(None)
    }

    async fn set(&self, _key: &Key, _item: Item, _keep_for: Duration) -> Result<(), Error> {
        Ok(())
    }

    async fn delete(&self, _keys: &[Key]) -> Result<(), Error> {
        Ok(())
    }

    async fn replace(&self, _: &Key, _seen: &Item, _item: Item, _keep_for: Duration) -> Result<bool, Error> {
        Ok(false)
    }

    async fn get_many(&self, keys: &[Key]) -> Result<Vec<Option<Item>>, Error> {
        Ok(keys.iter().map(|_| None).collect())
    }

    async fn set_many(&self, _entries: Vec<Entry>) -> Result<(), Error> {
        Ok(())
    }

    async fn clear(&self, _scope: &Scope) -> Result<(), Error> {
        Ok(())
    }

    async fn health(&self) -> Result<(), Error> {
        Ok(())
    }

    fn evictions(&self) -> Option<u64> {
        None
    }

    fn read_limit(&self) -> Option<Duration> {
        None
    }

    fn copies(&self) -> Option<&dyn Copies> {
        None
    }

    fn leases(&self) -> Option<&dyn Leases> {
        None
    }

    fn epochs(&self) -> Option<&dyn EpochStore> {
        None
    }

    fn atomics(&self) -> Option<&dyn Atomics> {
        None
    }

    fn messages(&self) -> Option<&dyn Messages> {
        None
    }
}
