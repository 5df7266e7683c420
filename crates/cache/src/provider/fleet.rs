//! What processes that share a backend do together. Each is a capability of its own: a provider that lacks one answers
//! `None` for it, and the cache does without.

use std::fmt;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use tokio::sync::mpsc;

use super::{Error, Item};
use crate::epochs::{EpochRecord, Slot};
use crate::key::Key;

/// The right to load one key for the whole fleet, and to store the result.
///
/// Fenced: [`fill`](Self::fill) stores only while the lease still stands. What voids it: its time, another holder, and
/// every `set`, `delete` and `clear` of the key at the provider, from whatever process.
#[async_trait]
pub trait Leases: fmt::Debug + Send + Sync {
    /// Asks for the right to load `key` for `lease_for`. `token` is drawn at random by the caller. `seen` is what the
    /// caller read last under the key, stale or nothing: when something else stands there now, that is the answer.
    async fn take(
        &self,
        key: &Key,
        token: u128,
        lease_for: Duration,
        seen: Option<&Item>,
    ) -> Result<Leased, Error>;

    /// Stores what was loaded and ends the lease, at once; false, and nothing is changed, when the lease was void.
    async fn fill(&self, key: &Key, lease: &Lease, item: Item, keep_for: Duration) -> Result<bool, Error>;

    /// Ends the lease without a value, if it still stands. With [`Lease::FENCE_UNKNOWN`] the caller does not know whether
    /// it was granted; a provider that cannot tell by the token may then end the lease of another holder, who loads
    /// without storing.
    async fn release(&self, key: &Key, lease: &Lease) -> Result<(), Error>;

    /// Returns when a lease of `key` that somebody else held may have ended. A hint: it may come early, late or never,
    /// so the caller bounds the wait and asks again. Begin to wait before asking, not after.
    async fn ended(&self, key: &Key);
}

/// A granted lease.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Lease {
    /// Who holds it: never used twice.
    pub token: u128,
    /// What the provider needs to recognise it; 0 where the token is enough.
    pub fence: u64,
}

impl Lease {
    /// The fence of a lease that was asked for and whose answer was lost.
    pub const FENCE_UNKNOWN: u64 = 0;
}

/// The answer to who asks for a lease.
#[derive(Debug, Clone)]
pub enum Leased {
    /// Load, then fill.
    Granted(Lease),
    /// Somebody else loads.
    Held,
    /// Somebody has stored this meanwhile.
    Present(Item),
}

/// Where the epochs of key spaces, keys and tags are kept for all processes; see [`epochs`](crate::epochs).
#[async_trait]
pub trait EpochStore: fmt::Debug + Send + Sync {
    /// The record, if it has changed since `version` of `incarnation`; it is made when there is none, with an
    /// incarnation that was never used before. A record that may be older than what it once was (a server that came
    /// back from a snapshot) gets a new incarnation before it is given out.
    async fn read(&self, incarnation: u64, version: u64) -> Result<Option<EpochRecord>, Error>;

    /// Raises the epoch of each slot by at least one, and answers the whole record.
    async fn raise(&self, slots: &[Slot]) -> Result<EpochRecord, Error>;

    /// How often a connection to a server was opened, counted before anybody uses it. What was read over a new one may come from a
    /// server that was restarted with what it held long ago, so it is judged by a record that was read after that. 0 where
    /// a server that restarts has lost everything.
    fn entered(&self) -> u64 {
        0
    }

    /// Returns when the record may have changed. A hint, as with [`Leases::ended`]; for ever pending where nobody tells.
    async fn changed(&self);
}

/// Values that many processes change at once. For [`coordination`](crate::coordination).
#[async_trait]
pub trait Atomics: fmt::Debug + Send + Sync {
    /// Adds to a number and answers the new one; a missing one counts as 0. It lives for `keep_for` from now.
    async fn add(&self, key: &Key, delta: i64, keep_for: Duration) -> Result<i64, Error>;

    /// What stands under the key.
    async fn read(&self, key: &Key) -> Result<Option<Bytes>, Error>;

    /// Replaces what stands under `key`, if it is exactly `expected` (`None`: if there is nothing), by `new` (`None`:
    /// removes it). Answers whether it did.
    async fn compare_and_swap(
        &self,
        key: &Key,
        expected: Option<&[u8]>,
        new: Option<Bytes>,
        keep_for: Duration,
    ) -> Result<bool, Error>;
}

/// Messages to every process that listens. At most once: whoever needs more numbers them.
#[async_trait]
pub trait Messages: fmt::Debug + Send + Sync {
    /// Sends to all who listen now, the sender included.
    async fn publish(&self, channel: &str, payload: Bytes) -> Result<(), Error>;

    /// Listens until the receiver is dropped; reconnects by itself.
    fn subscribe(&self, channel: &str) -> mpsc::Receiver<Message>;
}

/// What a listener gets.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Message {
    /// Listening has begun or begun anew, or the receiver was too slow: anything may have been missed before this.
    Gap,
    /// What was published.
    Payload(Bytes),
}
