//! Writing and invalidating. Both outdate the loads that run: what they bring is not stored.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::timeout;
use tracing::debug;

use super::flight::{Fill, Flight, Lead};
use super::{Cache, Core, Value};
use crate::envelope::{Header, TagSlots};
use crate::epochs::Slot;
use crate::key::{Key, KeyPrefix, Space};
use crate::policy::Policy;
use crate::provider::{Entry, Item, Scope};

impl Cache {
    /// Stores a value in place of what was there. Loads of the key that run now will not overwrite it.
    ///
    /// When it cannot be stored, what was there before is not served any more either: the write may have said that the
    /// old value is wrong.
    pub async fn set<V: Value>(&self, key: &Key, value: V, policy: &Policy) {
        if !self.is_on() {
            return;
        }
        let core = &*self.core;
        let policy = &policy.under(self.schema);
        let (lead, storing) = core.flights.write(key);
        core.wait_for(storing.into_iter().map(|flight| (key, flight)).collect()).await;
        let Some((item, keep_for)) = core.prepare(key, value, policy) else {
            core.forget_all(std::slice::from_ref(key)).await;
            return;
        };
        if !lead.begin_fill() {
            core.calls.counters.fills_refused.one();
            return;
        }
        let stored = core.calls.run("set", core.calls.provider.set(key, item, keep_for)).await;
        lead.end_fill(if stored.is_ok() { Fill::Stored } else { Fill::Unknown });
        if stored.is_err() {
            core.retire_space_of(key);
        }
    }

    /// Stores values, in one call of the provider; of two with the same key the later one. Otherwise as
    /// [`set`](Cache::set).
    pub async fn set_many<V: Value>(&self, entries: Vec<(Key, V)>, policy: &Policy) {
        if !self.is_on() || entries.is_empty() {
            return;
        }
        let core = &*self.core;
        let policy = &policy.under(self.schema);
        let (keys, values): (Vec<Key>, Vec<V>) = entries.into_iter().unzip();
        let mut leads = Vec::with_capacity(keys.len());
        let mut storing = Vec::new();
        for key in &keys {
            let (lead, flights) = core.flights.write(key);
            leads.push(lead);
            storing.extend(flights.into_iter().map(|flight| (key, flight)));
        }
        core.wait_for(storing).await;
        let mut filling: Vec<&Lead<'_>> = Vec::with_capacity(leads.len());
        let mut batch = Vec::with_capacity(leads.len());
        let mut unwritable = Vec::new();
        for ((key, value), lead) in keys.iter().zip(values).zip(&leads) {
            match core.prepare(key, value, policy) {
                None => unwritable.push(key.clone()),
                Some(_) if !lead.begin_fill() => core.calls.counters.fills_refused.one(),
                Some((item, keep_for)) => {
                    filling.push(lead);
                    batch.push(Entry { key: key.clone(), item, keep_for });
                }
            }
        }
        let stored = core.calls.run("set_many", core.calls.provider.set_many(batch)).await;
        for lead in filling {
            lead.end_fill(if stored.is_ok() { Fill::Stored } else { Fill::Unknown });
        }
        if stored.is_err() {
            core.retire_spaces_of(keys.iter());
        } else {
            core.forget_all(&unwritable).await;
        }
    }

    /// Removes the value. The same as [`invalidate`](Cache::invalidate): there is no removal that a running load may
    /// undo.
    pub async fn delete(&self, key: &Key) {
        self.invalidate(key).await;
    }

    /// What is cached under `key` is outdated. When this returns, no later call of this process gets it, nor the result
    /// of a load that began before; also when the provider could not be told.
    ///
    /// Call it after the change is committed. At most twice the operation timeout.
    pub async fn invalidate(&self, key: &Key) {
        let core = &*self.core;
        let storing = core.flights.refuse(key);
        core.wait_for(storing.into_iter().map(|flight| (key, flight)).collect()).await;
        core.forget_all(std::slice::from_ref(key)).await;
    }

    /// As [`invalidate`](Cache::invalidate), for all keys of a space.
    pub async fn invalidate_space(&self, space: &Space) {
        let core = &*self.core;
        core.epochs.raise(&[Slot::of_space(space)]);
        core.clear(Scope::Space(space.clone())).await;
    }

    /// As [`invalidate`](Cache::invalidate), for everything under this cache's prefix.
    pub async fn clear(&self) {
        let core = &*self.core;
        let prefix: &KeyPrefix = self.keys();
        core.epochs.raise(&[Slot::EVERYTHING]);
        core.clear(Scope::Prefix(prefix.clone())).await;
    }
}

impl Core {
    /// What is in the scope has been made unreachable; now loads are refused and memory is freed. A failure of the
    /// provider costs only memory.
    async fn clear(&self, scope: Scope) {
        self.flights.refuse_where(|key| scope.contains(key));
        // Counted and said by `run`; nothing else is left to do.
        let _ = self.calls.run("clear", self.calls.provider.clear(&scope)).await;
    }

    /// Removes entries, for one operation timeout in total.
    async fn forget_all(&self, keys: &[Key]) {
        if keys.is_empty() {
            return;
        }
        if self.calls.run("delete", self.calls.provider.delete(keys)).await.is_err() {
            self.retire_spaces_of(keys.iter());
        }
    }

    /// It is not known whether the provider still holds an outdated entry under `key`. Nobody can remember every such
    /// key, so its whole space becomes unreachable: misses, and nothing wrong.
    fn retire_space_of(&self, key: &Key) {
        self.epochs.raise(&[Slot::of_key(key)]);
        self.calls.counters.spaces_retired.one();
        debug!(space = key.space_text(), "removal could not be confirmed: the key space starts anew");
    }

    fn retire_spaces_of<'a>(&self, keys: impl Iterator<Item = &'a Key>) {
        for key in keys {
            self.retire_space_of(key);
        }
    }

    /// Waits until results that are just being stored are there, so that they can be removed or overwritten; for one
    /// operation timeout in total. Where that cannot be known, their spaces start anew.
    async fn wait_for(&self, storing: Vec<(&Key, Arc<Flight>)>) {
        if storing.is_empty() {
            return;
        }
        let mut settled = 0;
        let all = async {
            for (key, flight) in &storing {
                if flight.fill_over().await == Fill::Unknown {
                    self.retire_space_of(key);
                }
                settled += 1;
            }
        };
        if timeout(self.calls.limit(), all).await.is_err() {
            for (key, _) in storing.iter().skip(settled) {
                self.retire_space_of(key);
            }
        }
    }

    /// The value as an item under a number of its own; `None` when it is not to be stored.
    fn prepare<V: Value>(&self, key: &Key, value: V, policy: &Policy) -> Option<(Item, Duration)> {
        let (fresh_for, keep_for) = policy.lifetime(false)?;
        if !self.retains() {
            return None;
        }
        let now = self.calls.clock.now();
        let header = Header {
            written_at: now,
            fresh_until: now.saturating_add(fresh_for),
            keep_until: now.saturating_add(keep_for),
            stamp: self.epochs.stamp(key, &[])?,
            tags: TagSlots::default(),
            schema: policy.schema_of(),
            build_cost: Duration::ZERO,
            codec: policy.codec_of(),
            is_absent: false,
        };
        Some((self.seal(key, header, policy, Some(Arc::new(value)))?, keep_for))
    }
}
