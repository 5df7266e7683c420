//! Where entries are kept: the seam between [`Cache`](crate::Cache) and a backend.
//!
//! A provider stores bytes under keys and reports honestly what went wrong. All else is done once, above it: envelope,
//! freshness, time limits, counting, single flight. Callers use [`Cache`](crate::Cache), never a provider.

mod capabilities;
mod fleet;
mod guarded;
#[cfg(feature = "cache-memcached")]
mod memcached;
#[cfg(feature = "cache-moka")]
mod moka;
mod near;
mod noop;
#[cfg(feature = "cache-redis")]
mod redis;
mod tiered;

use std::any::Any;
use std::fmt;
use std::ops::Deref;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

pub use self::capabilities::{Capabilities, Capability, CapabilityRow, Known, Source};
pub use self::fleet::{Atomics, EpochStore, Lease, Leased, Leases, Message, Messages};
pub use self::guarded::{BreakerReport, Breakers, CALL_TIMEOUT_DEFAULT, CallClass, Guarded, MonotonicClock};
#[cfg(all(fuzzing, feature = "cache-memcached"))]
#[doc(hidden)]
pub use self::memcached::reader_withstands as memcached_reader_withstands;
#[cfg(feature = "cache-memcached")]
pub use self::memcached::{Memcached, MemcachedSettings};
#[cfg(feature = "cache-moka")]
pub use self::moka::Moka;
pub use self::near::Near;
pub use self::noop::Noop;
#[cfg(feature = "cache-redis")]
pub use self::redis::{Detector, Redis, RedisSettings};
pub use self::tiered::Tiered;
use crate::clock::Timestamp;
use crate::key::{Key, KeyPrefix, Space};
use async_trait::async_trait;
use bytes::Bytes;

/// Entries that a tier in this process holds when nothing else is said (`max_capacity`).
pub const CAPACITY_DEFAULT: u64 = 10_000;

/// Bytes that a tier in this process holds when nothing else is said: 128 MiB.
pub const BYTES_MAX_DEFAULT: u64 = 128 << 20;

/// A backend.
///
/// What an implementation owes:
/// - an entry is found under its own key only, and not once its keep-for has passed;
/// - a write that returned `Ok` is seen by every later read through the same provider, a removal likewise;
/// - when a call cannot be carried out, it says so: never `Ok` for what was not done;
/// - every method may be dropped at any await and leaves the provider usable; what was being written is then either
///   there or not, and does not appear later: over a network that holds commands back, a write is refused that arrives
///   after its key was written or removed by others (where the backend grants leases; without them there is no way).
///
/// What the caller guarantees: keys are at most [`KEY_BYTES_MAX`](crate::key::KEY_BYTES_MAX) bytes of printable ASCII,
/// and no value is larger than [`Capability::MaxValueBytes`]. The caller also bounds how long it waits, so no method
/// needs a time limit of its own. Making a provider neither waits nor fails: it connects by itself, and until it has, its
/// calls fail at once.
#[async_trait]
pub trait Provider: fmt::Debug + Send + Sync + 'static {
    /// Short and fixed, for logs and health: `moka`.
    fn name(&self) -> &'static str;

    /// What it can do, as far as is known now. Providers that probe know more once they are connected.
    fn capabilities(&self) -> Capabilities;

    /// The entry, when it lies in this process and may be served from there at `now`: costs no wait, no allocation and
    /// no look at a clock.
    fn peek(&self, key: &Key, now: Timestamp) -> Option<Item>;

    /// As [`peek`](Self::peek), for who only looks: `see` is shown the entry where it lies, perhaps under a lock, and must
    /// neither wait nor call the provider. Saves two locked instructions of a hit.
    fn glance(&self, key: &Key, now: Timestamp, see: &mut dyn FnMut(&Item)) {
        if let Some(item) = self.peek(key, now) {
            see(&item);
        }
    }

    /// The entry under `key`, if there is one. Of two tiers it is the shared one that answers.
    async fn get(&self, key: &Key) -> Result<Option<Item>, Error>;

    /// Stores an entry for `keep_for`, in place of what was there. Voids a lease of the key.
    async fn set(&self, key: &Key, item: Item, keep_for: Duration) -> Result<(), Error>;

    /// Removes the entries, which need not exist, and voids leases of the keys.
    async fn delete(&self, keys: &[Key]) -> Result<(), Error>;

    /// Stores `item` if what stands under `key` is still `seen`; answers whether it did.
    async fn replace(&self, key: &Key, seen: &Item, item: Item, keep_for: Duration) -> Result<bool, Error>;

    /// As many answers as keys, in their order.
    async fn get_many(&self, keys: &[Key]) -> Result<Vec<Option<Item>>, Error>;

    /// Stores all entries and voids leases of their keys. On an error some may have been stored.
    async fn set_many(&self, entries: Vec<Entry>) -> Result<(), Error>;

    /// Frees every entry in `scope` that was there when the call began, and touches nothing outside it. A provider that
    /// cannot find them may leave them: the caller has made them unreachable.
    async fn clear(&self, scope: &Scope) -> Result<(), Error>;

    /// Whether the backend can be used now.
    async fn health(&self) -> Result<(), Error>;

    /// How many entries were dropped for want of space, when it is known.
    fn evictions(&self) -> Option<u64>;

    /// Within which time every [`get`](Self::get) and [`get_many`](Self::get_many) ends, whatever the backend does, when it is sure.
    /// Whoever allows them as much needs no timer of its own.
    fn read_limit(&self) -> Option<Duration> {
        None
    }

    /// The copies in this process of what the shared tier holds, when there are such.
    fn copies(&self) -> Option<&dyn Copies>;

    /// One load per key over the fleet, when it can grant that.
    fn leases(&self) -> Option<&dyn Leases>;

    /// Where the epochs of all processes are kept, when it can keep them.
    fn epochs(&self) -> Option<&dyn EpochStore>;

    /// Values that many change at once, when it has them.
    fn atomics(&self) -> Option<&dyn Atomics>;

    /// Messages between processes, when it carries them.
    fn messages(&self) -> Option<&dyn Messages>;
}

/// Copies in this process of entries that a shared tier holds. The cache keeps them, because it has decoded them, and
/// drops them when it hears that somebody has changed the entry.
#[async_trait]
pub trait Copies: fmt::Debug + Send + Sync {
    /// To be taken before the shared tier is asked, and given to [`keep`](Self::keep) with its answer.
    fn mark(&self) -> u64;

    /// Keeps a copy, unless its key has been forgotten since `mark`.
    fn keep(&self, key: &Key, item: Item, keep_for: Duration, mark: u64);

    /// Drops the copies of these keys; no answer that was marked before brings them back.
    fn forget(&self, keys: &[Key]);

    /// Drops all copies likewise. Until it returns some may still be found.
    async fn forget_all(&self);
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

/// How long the second exchange of a write may come after the first, on a backend where a write is two; it is refused after
/// that. Longer than any call may take.
#[cfg(any(feature = "cache-redis", feature = "cache-memcached"))]
const WRITE_WITHIN: Duration = Duration::from_secs(1);

/// Of entries with the same key only the last.
#[cfg(any(feature = "cache-redis", feature = "cache-memcached"))]
fn latest(mut entries: Vec<Entry>) -> Vec<Entry> {
    if entries.len() > 1 {
        let mut seen = std::collections::HashSet::with_capacity(entries.len());
        entries.reverse();
        entries.retain(|entry| seen.insert(entry.key.clone()));
        entries.reverse();
    }
    entries
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

/// A stored entry: its bytes, and beside them the decoded value once somebody has decoded it. One pointer, cheap to
/// clone; a provider that sends entries away takes the bytes only.
#[derive(Clone)]
pub struct Item(Arc<Stored>);

/// What an [`Item`] points to.
pub struct Stored {
    /// Envelope and payload, see [`envelope`](crate::envelope).
    pub bytes: Bytes,
    decoded: OnceLock<Arc<dyn Any + Send + Sync>>,
}

impl Item {
    /// An entry whose value is at hand, so that it need not be decoded again in this process.
    pub fn with_decoded(bytes: Bytes, decoded: Arc<dyn Any + Send + Sync>) -> Self {
        Self(Arc::new(Stored { bytes, decoded: OnceLock::from(decoded) }))
    }

    /// The cache's own decoded form of the same entry.
    #[inline]
    pub fn decoded(&self) -> Option<&Arc<dyn Any + Send + Sync>> {
        self.0.decoded.get()
    }

    /// Whether both are one entry in memory.
    pub fn is_same(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }

    /// Keeps the decoded form beside the bytes, for all clones of this item. The first one stays.
    pub fn keep_decoded(&self, decoded: Arc<dyn Any + Send + Sync>) {
        // Refused when there is one already: of another type, which its readers go on using.
        let _ = self.0.decoded.set(decoded);
    }
}

impl Deref for Item {
    type Target = Stored;

    #[inline]
    fn deref(&self) -> &Stored {
        &self.0
    }
}

impl From<Bytes> for Item {
    fn from(bytes: Bytes) -> Self {
        Self(Arc::new(Stored { bytes, decoded: OnceLock::new() }))
    }
}

impl fmt::Debug for Item {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Item({:?})", &*self.0)
    }
}

impl fmt::Debug for Stored {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let form = if self.decoded.get().is_some() { "decoded" } else { "encoded" };
        write!(f, "{} bytes, {form}", self.bytes.len())
    }
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
    /// No call was made: the breaker in front of the backend is open.
    #[error("{provider} is cut off: its breaker is {state}")]
    CutOff {
        /// Name of the provider.
        provider: &'static str,
        /// `open`, `half-open`, `forced open`.
        state: &'static str,
    },
    /// The backend is well and does not take this: a key or value beyond its limits, or an operation that it has not.
    #[error("{provider} refuses: {reason}")]
    Refused {
        /// Name of the provider.
        provider: &'static str,
        /// What it does not take, without keys, values or credentials.
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

impl Error {
    /// For spans and metrics: `unavailable`, `cut_off`, `refused`, `protocol`.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Unavailable { .. } => "unavailable",
            Self::CutOff { .. } => "cut_off",
            Self::Refused { .. } => "refused",
            Self::Protocol { .. } => "protocol",
        }
    }

    /// Whether it tells of a backend that is not well, as opposed to one that was not asked or rightly said no.
    pub fn is_failure(&self) -> bool {
        match self {
            Self::Unavailable { .. } | Self::Protocol { .. } => true,
            Self::CutOff { .. } | Self::Refused { .. } => false,
        }
    }
}
