//! Entries in this process, on quick_cache: the near tier, and a backend of its own.
//!
//! A hit takes one read lock and compares one key; it computes no hash (the key brings it),
//! reads no clock (the caller brings the time) and allocates nothing. quick_cache knows no times: an entry past its
//! keep-for is not given out, is dropped when it is asked for, and else makes room like any other.
//!
//! quick_cache's own loaders and guards are not used: with them an invalidation during a load loses to the load.

use std::fmt;
use std::hash::{BuildHasherDefault, Hasher};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};
use std::time::Duration;

use async_trait::async_trait;
use quick_cache::unsync::Cache;
use quick_cache::{Lifecycle, Weighter};
use xxhash_rust::xxh3::xxh3_64_with_seed;

use super::{
    Atomics, Capabilities, Capability, Copies, Entry, EpochStore, Error, Item, Leases, Messages, Provider,
    Scope,
};
use crate::clock::{Clock, Timestamp};
use crate::key::{KEY_BYTES_MAX, Key};
use crate::usage::Coherence;

const NAME: &str = "near";

/// What an entry occupies beside its key and value: quick_cache's tables and our nodes, estimated.
const ENTRY_OVERHEAD_BYTES: usize = 384;

/// Parts with a lock of their own, at most. Each has its share of the limits, so more parts would mean smaller values.
const SHARDS_MAX: u64 = 8;

/// A part has at least this many slots, or is the only one: small parts fill unevenly.
const SHARD_SLOTS_MIN: u64 = 512;

/// One entry may take this part of a shard.
const LARGEST_ENTRY_PART: u64 = 2;

/// quick_cache remembers half as many evicted keys as this, at most, to tell who comes back.
const ENTRIES_FORESEEN_MAX: u64 = 1 << 20;

/// An in-process cache with two limits that hold at once, in entries and in bytes.
///
/// The bytes are divided into as many slots as there may be entries. An entry takes at least one slot, and more when its
/// size needs more: with 10,000 entries and 128 MiB a slot is 13 KiB, an entry of 50 KiB takes four. So neither limit is
/// ever exceeded. An entry's size is key, value (twice, since the decoded value is kept beside its bytes) and 384 bytes.
///
/// Up to 1,023 slots are one part. More are divided by hash into at most 8, which do not fill quite evenly: with 10,000
/// slots the first entry makes room for another when about 95 % of them are taken.
pub struct Near {
    shards: Box<[RwLock<Shard>]>,
    clock: Arc<dyn Clock>,
    evictions: AtomicU64,
    entry_bytes_max: usize,
    slot_bytes: u64,
}

/// quick_cache's own cache of several shards hands out copies only, which cost a locked instruction each way.
type Shard = Cache<Key, Kept, InSlots, BuildHasherDefault<KeyHash>, KeepEvicted>;

struct Kept {
    item: Item,
    keep_until: Timestamp,
    /// In slots. Kept, because quick_cache asks again and must get the same answer.
    weight: u64,
}

impl Near {
    /// Holds at most `capacity` entries and `bytes_max` bytes; zero counts as one.
    pub fn new(capacity: u64, bytes_max: u64, clock: Arc<dyn Clock>) -> Self {
        let slot_bytes = (bytes_max / capacity.max(1)).max(1);
        let slots = capacity.min(bytes_max / slot_bytes).max(1);
        let shards = 1 << (slots / SHARD_SLOTS_MIN).clamp(1, SHARDS_MAX).ilog2();
        let shard_slots = slots / shards;
        let foreseen = usize::try_from(shard_slots.min(ENTRIES_FORESEEN_MAX / shards)).unwrap_or(1);
        let shard = || {
            RwLock::new(Cache::with(
                foreseen,
                shard_slots,
                InSlots,
                BuildHasherDefault::default(),
                KeepEvicted,
            ))
        };
        let shards = (0..shards).map(|_| shard()).collect();
        let entry_bytes = (shard_slots / LARGEST_ENTRY_PART).max(1).saturating_mul(slot_bytes);
        let entry_bytes_max = usize::try_from(entry_bytes).unwrap_or(usize::MAX);
        Self { shards, clock, evictions: AtomicU64::new(0), entry_bytes_max, slot_bytes }
    }

    /// Fits under every key.
    fn value_bytes_max(&self) -> usize {
        self.entry_bytes_max.saturating_sub(KEY_BYTES_MAX + ENTRY_OVERHEAD_BYTES) / 2
    }

    /// Entries held, those that are past their time and were not asked for since included.
    pub fn entry_count(&self) -> u64 {
        let entries = self.shards.iter().map(|shard| read(shard).len()).sum::<usize>();
        u64::try_from(entries).unwrap_or(u64::MAX)
    }

    /// By bits from the middle of the hash: quick_cache's tables go by both ends. There is always one: shards are a power
    /// of two.
    #[inline]
    fn shard(&self, key: &Key) -> Option<&RwLock<Shard>> {
        let bits = usize::try_from((key.hash_bits() >> 24) & 0xff).unwrap_or(0);
        self.shards.get(bits & (self.shards.len() - 1))
    }

    #[inline]
    fn look(&self, key: &Key, now: Timestamp, see: impl FnOnce(&Item)) {
        let Some(shard) = self.shard(key) else { return };
        match read(shard).get(key) {
            None => return,
            Some(kept) if now < kept.keep_until => return see(&kept.item),
            Some(_) => {}
        }
        let _ = write(shard).remove_if(key, |kept| now >= kept.keep_until);
    }

    fn find(&self, key: &Key, now: Timestamp) -> Option<Item> {
        let mut found = None;
        self.look(key, now, |item| found = Some(item.clone()));
        found
    }

    fn remove(&self, key: &Key) {
        // What is removed is freed after the lock.
        let _removed = self.shard(key).and_then(|shard| write(shard).remove(key));
    }

    fn insert(&self, key: &Key, item: Item, keep_for: Duration) -> Result<(), Error> {
        let kept = self.keep(key, item, keep_for).inspect_err(|_| {
            self.remove(key);
        })?;
        let stored = kept.item.clone();
        let mut gone = Gone::default();
        if let Some(shard) = self.shard(key) {
            write(shard).insert_with_lifecycle(key.clone(), kept, &mut gone);
        }
        // What was replaced is among them, and is no eviction.
        let is_evicted = |(other, kept): &&(Key, Kept)| other != key || kept.item.is_same(&stored);
        let evicted = gone.0.iter().filter(is_evicted).count();
        if evicted > 0 {
            self.evictions.fetch_add(u64::try_from(evicted).unwrap_or(u64::MAX), Ordering::Relaxed);
        }
        Ok(())
    }

    fn keep(&self, key: &Key, item: Item, keep_for: Duration) -> Result<Kept, Error> {
        let len = item.bytes.len();
        let bytes = len.saturating_mul(2).saturating_add(key.as_str().len() + ENTRY_OVERHEAD_BYTES);
        if bytes > self.entry_bytes_max {
            let reason = format!("an entry of {len} bytes, the limit is {}", self.value_bytes_max());
            return Err(Error::Refused { provider: NAME, reason });
        }
        let weight = u64::try_from(bytes).unwrap_or(u64::MAX).div_ceil(self.slot_bytes);
        Ok(Kept { item, keep_until: self.clock.now().saturating_add(keep_for), weight })
    }
}

impl fmt::Debug for Near {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Near")
            .field("entries", &self.entry_count())
            .field("entry_bytes_max", &self.entry_bytes_max)
            .finish_non_exhaustive()
    }
}

#[async_trait]
#[deny(clippy::missing_trait_methods)]
impl Provider for Near {
    fn name(&self) -> &'static str {
        NAME
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
        .limited(Capability::MaxValueBytes, self.value_bytes_max())
    }

    fn peek(&self, key: &Key, now: Timestamp) -> Option<Item> {
        self.find(key, now)
    }

    fn glance(&self, key: &Key, now: Timestamp, see: &mut dyn FnMut(&Item)) {
        self.look(key, now, see);
    }

    async fn get(&self, key: &Key) -> Result<Option<Item>, Error> {
        Ok(self.find(key, self.clock.now()))
    }

    async fn set(&self, key: &Key, item: Item, keep_for: Duration) -> Result<(), Error> {
        self.insert(key, item, keep_for)
    }

    async fn delete(&self, keys: &[Key]) -> Result<(), Error> {
        for key in keys {
            self.remove(key);
        }
        Ok(())
    }

    async fn replace(&self, key: &Key, seen: &Item, item: Item, keep_for: Duration) -> Result<bool, Error> {
        let new = self.keep(key, item, keep_for)?;
        let now = self.clock.now();
        let is_seen = |kept: &Kept| now < kept.keep_until && kept.item.bytes == seen.bytes;
        let Some(shard) = self.shard(key) else { return Ok(false) };
        let mut shard = write(shard);
        let Some(mut kept) = shard.peek_mut(key) else { return Ok(false) };
        if !is_seen(&kept) {
            return Ok(false);
        }
        *kept = new;
        Ok(true)
    }

    async fn get_many(&self, keys: &[Key]) -> Result<Vec<Option<Item>>, Error> {
        let now = self.clock.now();
        Ok(keys.iter().map(|key| self.find(key, now)).collect())
    }

    async fn set_many(&self, entries: Vec<Entry>) -> Result<(), Error> {
        for Entry { key, item, keep_for } in entries {
            self.insert(&key, item, keep_for)?;
        }
        Ok(())
    }

    async fn clear(&self, scope: &Scope) -> Result<(), Error> {
        for shard in &self.shards {
            write(shard).retain(|key, _| !scope.contains(key));
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

fn read(shard: &RwLock<Shard>) -> RwLockReadGuard<'_, Shard> {
    shard.read().unwrap_or_else(PoisonError::into_inner)
}

fn write(shard: &RwLock<Shard>) -> RwLockWriteGuard<'_, Shard> {
    shard.write().unwrap_or_else(PoisonError::into_inner)
}

#[derive(Clone)]
struct InSlots;

impl Weighter<Key, Kept> for InSlots {
    fn weight(&self, _key: &Key, kept: &Kept) -> u64 {
        kept.weight
    }
}

/// Takes what makes room, and what is replaced, out of the lock: there it is counted and freed.
#[derive(Clone)]
struct KeepEvicted;

#[derive(Default)]
struct Gone(Vec<(Key, Kept)>);

impl Lifecycle<Key, Kept> for KeepEvicted {
    type RequestState = Gone;

    fn on_evict(&self, gone: &mut Gone, key: Key, kept: Kept) {
        gone.0.push((key, kept));
    }
}

/// Hands on the hash that the key brings.
#[derive(Default)]
struct KeyHash(u64);

impl Hasher for KeyHash {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write_u64(&mut self, hash: u64) {
        self.0 = hash;
    }

    /// Keys write one number. For anything else: any hash would do.
    fn write(&mut self, bytes: &[u8]) {
        self.0 = xxh3_64_with_seed(bytes, self.0);
    }
}
