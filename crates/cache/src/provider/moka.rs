//! Entries in this process, on moka.
//!
//! moka's own loaders (`get_with` and its kin) are not used: with them an invalidation during a load loses to the load.
//! moka's own expiry is not what ends an entry's life either: it reads a clock that cannot be injected. Whether an entry
//! may be served is judged here by the injected clock; moka's expiry comes half a minute later and only frees memory.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use ::moka::Expiry;
use ::moka::notification::RemovalCause;
use ::moka::ops::compute::{CompResult, Op};
use ::moka::sync::Cache;
use async_trait::async_trait;

use super::{
    Atomics, Capabilities, Capability, Copies, Entry, EpochStore, Error, Item, Leases, Messages, Provider,
    Scope,
};
use crate::clock::{Clock, Timestamp};
use crate::key::Key;
use crate::usage::Coherence;

/// What an entry occupies beside its key and value: moka's nodes and ours, estimated.
const ENTRY_OVERHEAD_BYTES: usize = 256;

/// How long moka keeps an entry that we no longer serve, so that its clock can never end one early.
const CLEAN_UP_AFTER: Duration = Duration::from_secs(30);

/// One entry may take this part of the whole.
const LARGEST_ENTRY_PART: u64 = 16;

/// An entry that takes more than this part of the whole makes moka tidy up at once, so that a burst of large entries
/// cannot stay over the limit until its next round.
const LARGE_ENTRY_PART: u64 = 1_024;

/// An in-process cache with two limits that hold at once, in entries and in bytes.
///
/// The bytes are divided into as many slots as there may be entries. An entry takes at least one slot, and more when its
/// size needs more: with 10,000 entries and 128 MiB a slot is 13 KiB, an entry of 50 KiB takes four. So neither limit is
/// ever exceeded for long, and small entries reach `capacity` exactly. An entry's size is key, value (twice, since the
/// decoded value is kept beside its bytes) and 256 bytes.
#[derive(Debug)]
pub struct Moka {
    entries: Cache<Key, Kept>,
    clock: Arc<dyn Clock>,
    evictions: Arc<AtomicU64>,
    value_bytes_max: usize,
    slots: u64,
    slot_bytes: u64,
}

#[derive(Debug, Clone)]
struct Kept {
    item: Item,
    keep_until: Timestamp,
    keep_for: Duration,
}

impl Moka {
    /// Holds at most `capacity` entries and about `bytes_max` bytes; zero counts as one.
    pub fn new(capacity: u64, bytes_max: u64, clock: Arc<dyn Clock>) -> Self {
        let slot_bytes = (bytes_max / capacity.max(1)).max(1);
        let slots = capacity.min(bytes_max / slot_bytes).max(1);
        let evictions = Arc::new(AtomicU64::new(0));
        let counted = Arc::clone(&evictions);
        let entries = Cache::builder()
            .name("recache")
            .max_capacity(slots)
            .weigher(move |key, kept| weight(key, kept, slot_bytes))
            .expire_after(CleanUp)
            .eviction_listener(move |_, _, cause| {
                if cause == RemovalCause::Size {
                    counted.fetch_add(1, Ordering::Relaxed);
                }
            })
            .build();
        let value_bytes_max = usize::try_from(bytes_max / LARGEST_ENTRY_PART).unwrap_or(usize::MAX);
        Self { entries, clock, evictions, value_bytes_max, slots, slot_bytes }
    }

    /// Carries out moka's pending work: what is over a limit is gone afterwards, and counted.
    pub fn tidy(&self) {
        self.entries.run_pending_tasks();
    }

    /// Entries held, as of the last tidying; those that are past their time and not yet freed included.
    pub fn entry_count(&self) -> u64 {
        self.entries.entry_count()
    }

    fn insert(&self, key: Key, item: Item, keep_for: Duration) {
        let keep_until = self.clock.now().saturating_add(keep_for);
        let kept = Kept { item, keep_until, keep_for };
        let is_large = u64::from(weight(&key, &kept, self.slot_bytes)) > self.slots / LARGE_ENTRY_PART + 1;
        self.entries.insert(key, kept);
        if is_large {
            self.entries.run_pending_tasks();
        }
    }

    fn find(&self, key: &Key, now: Timestamp) -> Option<Item> {
        let kept = self.entries.get(key)?;
        (now < kept.keep_until).then_some(kept.item)
    }
}

#[async_trait]
#[deny(clippy::missing_trait_methods)]
impl Provider for Moka {
    fn name(&self) -> &'static str {
        "moka"
    }

    /// Eventual: what another process changes is not heard of here, only age ends an entry.
    fn capabilities(&self) -> Capabilities {
        Capabilities::declared(
            Coherence::Eventual,
            &[
                Capability::Retains,
                Capability::CompareAndSwap,
                Capability::Namespaces,
                Capability::Tags,
                Capability::Batch,
            ],
        )
        .limited(Capability::MaxValueBytes, self.value_bytes_max)
    }

    fn peek(&self, key: &Key, now: Timestamp) -> Option<Item> {
        self.find(key, now)
    }

    /// moka hands out copies only.
    fn glance(&self, key: &Key, now: Timestamp, see: &mut dyn FnMut(&Item)) {
        if let Some(item) = self.peek(key, now) {
            see(&item);
        }
    }

    async fn get(&self, key: &Key) -> Result<Option<Item>, Error> {
        Ok(self.find(key, self.clock.now()))
    }

    async fn set(&self, key: &Key, item: Item, keep_for: Duration) -> Result<(), Error> {
        self.insert(key.clone(), item, keep_for);
        Ok(())
    }

    async fn delete(&self, keys: &[Key]) -> Result<(), Error> {
        for key in keys {
            self.entries.invalidate(key);
        }
        Ok(())
    }

    async fn replace(&self, key: &Key, seen: &Item, item: Item, keep_for: Duration) -> Result<bool, Error> {
        let now = self.clock.now();
        let kept = Kept { item, keep_until: now.saturating_add(keep_for), keep_for };
        let done = self.entries.entry_by_ref(key).and_compute_with(|entry| match entry {
            Some(entry) if entry.value().keep_until > now && entry.value().item.bytes == seen.bytes => {
                Op::Put(kept)
            }
            _ => Op::Nop,
        });
        Ok(matches!(done, CompResult::ReplacedWith(_)))
    }

    async fn get_many(&self, keys: &[Key]) -> Result<Vec<Option<Item>>, Error> {
        let now = self.clock.now();
        Ok(keys.iter().map(|key| self.find(key, now)).collect())
    }

    async fn set_many(&self, entries: Vec<Entry>) -> Result<(), Error> {
        for Entry { key, item, keep_for } in entries {
            self.insert(key, item, keep_for);
        }
        Ok(())
    }

    /// Looks at every entry: moka's own predicates are carried out later and pile up until then, and its
    /// `invalidate_all` would reach beyond the scope.
    async fn clear(&self, scope: &Scope) -> Result<(), Error> {
        const BETWEEN_YIELDS: usize = 256;
        let condemned: Vec<_> =
            self.entries.iter().map(|(key, _)| key).filter(|key| scope.contains(key)).collect();
        for (count, key) in condemned.iter().enumerate() {
            self.entries.invalidate(key.as_ref());
            if count % BETWEEN_YIELDS == BETWEEN_YIELDS - 1 {
                tokio::task::yield_now().await;
            }
        }
        Ok(())
    }

    async fn health(&self) -> Result<(), Error> {
        Ok(())
    }

    fn evictions(&self) -> Option<u64> {
        Some(self.evictions.load(Ordering::Relaxed))
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

/// In slots, rounded up.
fn weight(key: &Key, kept: &Kept, slot_bytes: u64) -> u32 {
    let bytes = kept.item.bytes.len().saturating_mul(2) + key.as_str().len() + ENTRY_OVERHEAD_BYTES;
    let bytes = u64::try_from(bytes).unwrap_or(u64::MAX);
    u32::try_from(bytes.div_ceil(slot_bytes)).unwrap_or(u32::MAX)
}

/// Frees what is past its time, [`CLEAN_UP_AFTER`] it by moka's clock.
struct CleanUp;

impl Expiry<Key, Kept> for CleanUp {
    fn expire_after_create(&self, _key: &Key, kept: &Kept, _created_at: Instant) -> Option<Duration> {
        Some(kept.keep_for.saturating_add(CLEAN_UP_AFTER))
    }

    /// An entry that is replaced lives by the new one's time, not by what was left of the old one's.
    fn expire_after_update(
        &self,
        _key: &Key,
        kept: &Kept,
        _updated_at: Instant,
        _left: Option<Duration>,
    ) -> Option<Duration> {
        Some(kept.keep_for.saturating_add(CLEAN_UP_AFTER))
    }
}
