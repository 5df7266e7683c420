//! Where entries are kept: the seam between [`Cache`](crate::Cache) and a backend.
//!
//! A provider stores bytes under keys and reports honestly what went wrong. All else is done once, above it: envelope,
//! freshness, time limits, counting, single flight. Callers use [`Cache`](crate::Cache), never a provider.

mod moka;
mod noop;

use std::any::Any;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use serde::Serialize;

pub use self::moka::{BYTES_MAX_DEFAULT, CAPACITY_DEFAULT, Moka};
pub use self::noop::Noop;
use crate::key::{Key, KeyPrefix, Space};
use crate::usage::Coherence;

/// A backend.
///
/// What an implementation owes:
/// - an entry is found under its own key only, and not once its keep-for has passed;
/// - a write that returned `Ok` is seen by every later read through the same provider, a removal likewise;
/// - when a call cannot be carried out, it says so: never `Ok` for what was not done;
/// - every method may be dropped at any await and leaves the provider usable; what was being written is then either
///   there or not, and does not appear later.
///
/// What the caller guarantees: keys are at most [`KEY_BYTES_MAX`](crate::key::KEY_BYTES_MAX) bytes of printable ASCII,
/// and no value is larger than the capability `max_value_bytes`. The caller also bounds how long it waits, so no method
/// needs a time limit of its own.
#[async_trait]
pub trait Provider: fmt::Debug + Send + Sync + 'static {
    /// Short and fixed, for logs and health: `moka`.
    fn name(&self) -> &'static str;

    /// What it can do. Fixed for the life of the provider.
    fn capabilities(&self) -> Capabilities;

    /// The entry under `key`, if there is one.
    async fn get(&self, key: &Key) -> Result<Option<Item>, Error>;

    /// Stores an entry for `keep_for`, in place of what was there.
    async fn set(&self, key: &Key, item: Item, keep_for: Duration) -> Result<(), Error>;

    /// Removes the entry; it need not exist.
    async fn delete(&self, key: &Key) -> Result<(), Error>;

    /// As many answers as keys, in their order.
    async fn get_many(&self, keys: &[Key]) -> Result<Vec<Option<Item>>, Error>;

    /// Stores all entries. On an error some may have been stored.
    async fn set_many(&self, entries: Vec<Entry>) -> Result<(), Error>;

    /// Removes every entry in `scope` that was there when the call began, and touches nothing outside it.
    async fn clear(&self, scope: &Scope) -> Result<(), Error>;

    /// Whether the backend can be used now.
    async fn health(&self) -> Result<(), Error>;

    /// How many entries were dropped for want of space, when it is known.
    fn evictions(&self) -> Option<u64>;
}

/// One entry to store.
#[derive(Debug, Clone)]
pub struct Entry {
    /// Its key.
    pub key: Key,
    /// What to store.
    pub item: Item,
    /// For how long.
    pub keep_for: Duration,
}

/// What [`Provider::clear`] removes.
#[derive(Debug, Clone)]
pub enum Scope {
    /// One key space.
    Space(Space),
    /// Everything of one deployment.
    Prefix(KeyPrefix),
}

impl Scope {
    /// Whether `key` lies in it.
    pub fn contains(&self, key: &Key) -> bool {
        match self {
            Self::Space(space) => space.contains(key),
            Self::Prefix(prefix) => prefix.contains(key),
        }
    }
}

/// A stored entry: its bytes, and beside them the decoded value when the provider lives in this process and kept it. A
/// provider that sends entries away drops the decoded value.
#[derive(Clone)]
pub struct Item {
    /// Envelope and payload, see [`envelope`](crate::envelope).
    pub bytes: Bytes,
    /// The cache's own decoded form of the same entry.
    pub decoded: Option<Arc<dyn Any + Send + Sync>>,
}

impl From<Bytes> for Item {
    fn from(bytes: Bytes) -> Self {
        Self { bytes, decoded: None }
    }
}

impl fmt::Debug for Item {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "Item({} bytes, {})",
            self.bytes.len(),
            if self.decoded.is_some() { "decoded" } else { "encoded" }
        )
    }
}

/// What a provider can do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Capabilities {
    /// It keeps entries at all. Where it does not, the cache does not even encode values.
    pub retains: bool,
    /// All processes that use it see the same entries.
    pub shared: bool,
    /// The strongest coherence that it gives by itself. Any provider can serve a bounded usage, because the cache takes
    /// no entry that is older than the bound.
    pub coherence: Coherence,
    /// `get_many` and `set_many` cost one exchange, not one for each key.
    pub batch: bool,
    /// The longest key in bytes, when there is a limit.
    pub key_bytes_max: Option<usize>,
    /// The largest entry in bytes, envelope included, when there is a limit. Larger ones are not offered to it.
    pub value_bytes_max: Option<usize>,
}

/// Why a call of a provider was not carried out. The cache's callers never see it: it is counted, warned of and shown
/// in health.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The backend cannot be reached, or broke off.
    #[error("{provider} is not available: {reason}")]
    Unavailable {
        /// Name of the provider.
        provider: &'static str,
        /// What happened, without keys, values or credentials.
        reason: String,
    },
    /// The backend answered what it should not have answered.
    #[error("{provider} broke its protocol: {reason}")]
    Protocol {
        /// Name of the provider.
        provider: &'static str,
        /// What happened, without keys, values or credentials.
        reason: String,
    },
}
