//! Writing and invalidating. Both outdate the loads that run: what they bring is not stored.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use tokio::time::timeout;
use tracing::debug;

use super::calls::Failure;
use super::fleet::give_up_write;
use super::flight::{Fill, Flight, Lead};
use super::{Cache, Core, Value};
use crate::envelope;
use crate::epochs::Slot;
use crate::key::{Key, KeyPrefix, Space};
use crate::policy::Policy;
use crate::provider::{Capability, Entry, Scope};
use crate::token::Token;

impl Cache {
    /// Stores a value in place of what was there. Loads of the key that run now, on whatever node, will not overwrite
    /// it.
    ///
    /// When it cannot be stored, what was there before is not served any more either: the write may have said that the
    /// old value is wrong.
    pub async fn set<V: Value>(&self, key: &Key, value: V, policy: &Policy) -> Token {
        if !self.is_on() {
            return self.core.token(true);
        }
        let core = &self.core;
        core.know_epochs().await;
        let policy = &policy.under(self.schema);
        let (lead, storing) = core.flights.write(key);
        core.wait_for(storing.into_iter().map(|flight| (key, flight)).collect()).await;
        let was_announced = core.announce(std::slice::from_ref(key)).await;
        let Some(Entry { item, keep_for, .. }) = self.prepare(key, value, policy) else {
            return core.forget(std::slice::from_ref(key)).await;
        };
        if !lead.begin_fill() {
            core.calls.counters.fills_refused.one();
            return core.token(true);
        }
        let doubt = Doubt::begin(core, std::slice::from_ref(key));
        let stored = core.calls.run("set", core.calls.provider.set(key, item, keep_for)).await;
        lead.end_fill(if stored.is_ok() { Fill::Stored } else { Fill::Unknown });
        doubt.end(stored.as_ref().err());
        let was_told = core.tell_or_retire(std::slice::from_ref(key)).await;
        core.token(stored.is_ok() && was_announced && was_told)
    }

    /// Stores values, in one call of the provider; of two with the same key the later one. Otherwise as
    /// [`set`](Cache::set).
    pub async fn set_many<V: Value>(&self, entries: Vec<(Key, V)>, policy: &Policy) -> Token {
        if !self.is_on() || entries.is_empty() {
            return self.core.token(true);
        }
        let core = &self.core;
        core.know_epochs().await;
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
        let was_announced = core.announce(&keys).await;
        let mut filling: Vec<&Lead<'_>> = Vec::with_capacity(leads.len());
        let mut batch = Vec::with_capacity(leads.len());
        let mut unwritable = Vec::new();
        for ((key, value), lead) in keys.iter().zip(values).zip(&leads) {
            match self.prepare(key, value, policy) {
                None => unwritable.push(key.clone()),
                Some(_) if !lead.begin_fill() => core.calls.counters.fills_refused.one(),
                Some(entry) => {
                    filling.push(lead);
                    batch.push(entry);
                }
            }
        }
        let doubt = Doubt::begin(core, &keys);
        let stored = core.calls.run("set_many", core.calls.provider.set_many(batch)).await;
        for lead in filling {
            lead.end_fill(if stored.is_ok() { Fill::Stored } else { Fill::Unknown });
        }
        doubt.end(stored.as_ref().err());
        if stored.is_ok() && !unwritable.is_empty() {
            core.forget(&unwritable).await;
        }
        let was_told = core.tell_or_retire(&keys).await;
        core.token(stored.is_ok() && was_announced && was_told)
    }

    /// Lets what is kept under `key` live by `policy` from now on, without a new value. Its age stays what it is.
    /// False when there is nothing that could be extended, or somebody changed it meanwhile.
    pub async fn extend(&self, key: &Key, policy: &Policy) -> bool {
        if !self.is_on() {
            return false;
        }
        let core = &*self.core;
        let provider = &core.calls.provider;
        let Ok(Some(seen)) = core.calls.run("get", provider.get(key)).await else {
            return false;
        };
        let Ok((header, payload)) = envelope::decode(key, &seen.bytes) else { return false };
        let now = core.calls.clock.now();
        let is_served = core.stamp(key, &header) == Some(header.stamp) && now < header.keep_until;
        let Some((fresh_for, keep_for)) = policy.lifetime(header.is_absent, core.chance.part()) else {
            return false;
        };
        if !is_served {
            return false;
        }
        let header = envelope::Header {
            fresh_until: now.saturating_add(fresh_for),
            keep_until: now.saturating_add(keep_for),
            ..header
        };
        let compress_from =
            policy.compress_from_bytes().filter(|_| core.capabilities().has(Capability::Shared));
        let item = envelope::encode(key, &header, &payload, compress_from).into();
        let replaced = core.calls.run("replace", provider.replace(key, &seen, item, keep_for)).await;
        replaced.unwrap_or(false)
    }

    /// Removes the value. The same as [`invalidate`](Cache::invalidate): there is no removal that a running load may
    /// undo.
    pub async fn delete(&self, key: &Key) -> Token {
        self.invalidate(key).await
    }

    /// What is cached under `key` is outdated. When this returns, no later call of this process gets it, nor the result
    /// of a load that began before; also when the provider could not be told. The same holds for other processes once
    /// the token [is confirmed](Token::is_confirmed), within the lag that their usage allows; where it is not, they are
    /// told as soon as that is possible.
    ///
    /// Call it after the change is committed. At most four times the operation timeout.
    pub async fn invalidate(&self, key: &Key) -> Token {
        let core = &self.core;
        core.attend();
        let storing = core.flights.refuse(key);
        core.wait_for(storing.into_iter().map(|flight| (key, flight)).collect()).await;
        let token = core.forget(std::slice::from_ref(key)).await;
        core.audit.sample(key, core.calls.clock.now());
        token
    }

    /// As [`invalidate`](Cache::invalidate), for all keys of a space.
    pub async fn invalidate_space(&self, space: &Space) -> Token {
        let core = &self.core;
        core.attend();
        let is_confirmed = core.raise(&[Slot::of_space(space)]).await;
        core.clear(Scope::Space(space.clone())).await;
        core.token(is_confirmed)
    }

    /// As [`invalidate`](Cache::invalidate), for all entries that were stored with this tag; see
    /// [`Policy::tags`](crate::Policy::tags).
    pub async fn invalidate_tag(&self, tag: &str) -> Token {
        let core = &self.core;
        core.attend();
        let is_confirmed = core.raise(&[Slot::of_tag(tag)]).await;
        // Which keys have the tag nobody knows: their loads were begun under epochs that no longer hold, and so are
        // not stored.
        core.hint().await;
        core.token(is_confirmed)
    }

    /// As [`invalidate`](Cache::invalidate), for everything under this cache's prefix.
    pub async fn clear(&self) -> Token {
        let core = &self.core;
        core.attend();
        let prefix: &KeyPrefix = self.keys();
        let is_confirmed = core.raise(&[Slot::EVERYTHING]).await;
        core.clear(Scope::Prefix(prefix.clone())).await;
        core.token(is_confirmed)
    }

    /// The value as an entry; `None` when it is not to be stored.
    fn prepare<V: Value>(&self, key: &Key, value: V, policy: &Policy) -> Option<Entry> {
        policy.lifetime(false, 0.0)?;
        self.core.entry(&self.fills(key, policy), Some(Arc::new(value)))
    }
}

/// A write that was begun. Whether it has failed, was given up or its caller went away: unless it is known to be done, what
/// stands under its keys is not to be served.
#[derive(Debug)]
struct Doubt<'a> {
    core: &'a Arc<Core>,
    keys: &'a [Key],
    is_done: bool,
    was_sent: bool,
}

impl<'a> Doubt<'a> {
    fn begin(core: &'a Arc<Core>, keys: &'a [Key]) -> Self {
        Self { core, keys, is_done: false, was_sent: true }
    }

    fn end(mut self, failure: Option<&Failure>) {
        self.is_done = failure.is_none();
        self.was_sent = !failure.is_some_and(Failure::was_not_sent);
    }
}

impl Drop for Doubt<'_> {
    fn drop(&mut self) {
        if self.is_done {
            return;
        }
        self.core.retire(self.keys);
        if self.was_sent {
            give_up_write(self.core, self.keys);
        }
    }
}

impl Core {
    fn token(&self, is_confirmed: bool) -> Token {
        let (incarnation, version) = self.epochs.known();
        let sequence = self.sequence.load(Ordering::SeqCst);
        Token { instance: self.instance, sequence, incarnation, version, is_confirmed }
    }

    /// What is in the scope has been made unreachable; now loads are refused and memory is freed. A failure of the
    /// provider costs only memory.
    async fn clear(&self, scope: Scope) {
        self.flights.refuse_where(|key| scope.contains(key));
        // Counted and said by `run`; nothing else is left to do.
        let _ = self.calls.run("clear", self.calls.provider.clear(&scope)).await;
        self.hint().await;
    }

    /// Lets the others ask for the epochs before their next beat.
    async fn hint(&self) {
        self.tell(&[]).await;
    }

    /// Removes entries, and tells those who have copies.
    pub(super) async fn forget(&self, keys: &[Key]) -> Token {
        if keys.is_empty() {
            return self.token(true);
        }
        let is_removed = self.calls.run("delete", self.calls.provider.delete(keys)).await.is_ok();
        if !is_removed {
            self.retire(keys);
        }
        let was_told = self.announce(keys).await && self.tell_or_retire(keys).await;
        self.token(is_removed && was_told)
    }

    /// Where the others hear of changed keys by their epochs alone: raises those. Before a value is written, so that it
    /// is written under the new ones.
    async fn announce(&self, keys: &[Key]) -> bool {
        if !self.tells_keys_by_epoch() {
            return true;
        }
        let slots: Vec<_> = keys.iter().map(Slot::of_key).collect();
        self.raise(&slots).await
    }

    /// It is not known whether the provider still holds an outdated entry under these keys, or somebody a copy of it:
    /// what was stored under them before is not served any more, here from now on, elsewhere as soon as it can be sent.
    fn retire(&self, keys: &[Key]) {
        let slots: Vec<_> = keys.iter().map(Slot::of_key).collect();
        self.raise_later(&slots);
        self.calls.counters.keys_retired.add(u64::try_from(keys.len()).unwrap_or(u64::MAX));
        debug!(
            keys = keys.len(),
            "removal could not be confirmed: what was stored under the keys is not served"
        );
    }

    async fn tell_or_retire(&self, keys: &[Key]) -> bool {
        let was_told = self.tell(keys).await;
        if !was_told {
            self.retire(keys);
        }
        was_told
    }

    /// Waits until results that are just being stored are there, so that they can be removed or overwritten; for one
    /// operation timeout in total. Where that cannot be known, what was stored under the keys is not served.
    async fn wait_for(&self, storing: Vec<(&Key, Arc<Flight>)>) {
        if storing.is_empty() {
            return;
        }
        let mut settled = 0;
        let all = async {
            for (key, flight) in &storing {
                if flight.fill_over().await == Fill::Unknown {
                    self.retire(std::slice::from_ref(*key));
                }
                settled += 1;
            }
        };
        if timeout(self.calls.limit(), all).await.is_err() {
            for (key, _) in storing.iter().skip(settled) {
                self.retire(std::slice::from_ref(*key));
            }
        }
    }
}
