//! `distributed_basic`: one record for each name, with a part for each instance, changed by compare and swap.
//!
//! What an instance counts while an exchange is under way travels together in the next one, numbered. A batch whose
//! answer was lost is kept and offered again; its number in the record tells whether it had arrived. So a count is lost
//! only with its process, and never made twice.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::record::{Batch, LockRecord, Record, add_all, decode, encode};
use super::{Error, Name, Parts, Protocol, Reading};
use crate::breaker::Tick;
use crate::key::Key;

/// Locks of others that are watched at once.
const WATCHED_MAX: usize = 10_000;

#[derive(Debug)]
pub(super) struct Merge {
    parts: Arc<Parts>,
    /// For gauges, of which an instance has one value.
    instance: String,
    /// For counts: batches are numbered by who sends them, and a process may have several of these.
    sender: String,
    outboxes: Mutex<HashMap<Key, Arc<Outbox>>>,
    /// Locks that somebody else holds, as they were seen first.
    watched: Mutex<HashMap<Key, (LockRecord, Tick)>>,
}

/// What this instance has counted under one name and not yet merged.
#[derive(Debug, Default)]
struct Outbox {
    waiting: Mutex<Waiting>,
    /// Held by the one who sends.
    sending: tokio::sync::Mutex<Sending>,
}

#[derive(Debug, Default)]
struct Waiting {
    cells: Vec<i64>,
    /// Number of the last count in it.
    last: u64,
}

#[derive(Debug, Default)]
struct Sending {
    /// Under way, with the number of its last count. It stays here until the record has it, also when its sender is gone.
    batch: Option<(Batch, u64)>,
    batches: u64,
    /// Counts up to this one have arrived.
    arrived: u64,
    totals: Vec<i64>,
}

impl Outbox {
    fn waiting(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Puts a count in; answers its number.
    fn put(&self, deltas: &[i64]) -> u64 {
        let mut waiting = self.waiting();
        add_all(&mut waiting.cells, deltas);
        waiting.last += 1;
        waiting.last
    }

    fn take(&self) -> (Vec<i64>, u64) {
        let mut waiting = self.waiting();
        (std::mem::take(&mut waiting.cells), waiting.last)
    }
}

impl Merge {
    pub(super) fn new(parts: Arc<Parts>) -> Self {
        let instance = parts.instance.to_string();
        let sender = format!("{instance}#{:016x}", parts.chance.draw());
        Self { parts, instance, sender, outboxes: Mutex::default(), watched: Mutex::default() }
    }

    fn outbox(&self, key: &Key) -> Arc<Outbox> {
        Arc::clone(
            self.outboxes.lock().unwrap_or_else(PoisonError::into_inner).entry(key.clone()).or_default(),
        )
    }

    fn watched(&self) -> MutexGuard<'_, HashMap<Key, (LockRecord, Tick)>> {
        self.watched.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn stored<T: DeserializeOwned + Default>(
        &self,
        name: &Name,
        key: &Key,
    ) -> Result<(Option<Bytes>, T), Error> {
        let stored = self.parts.read(key).await?;
        let record = decode(stored.as_ref()).map_err(|reason| unreadable(name, reason))?;
        Ok((stored, record))
    }

    async fn swap<T: Serialize + Sync>(
        &self,
        name: &Name,
        key: &Key,
        stored: Option<&Bytes>,
        new: &T,
    ) -> Result<bool, Error> {
        let new = encode(new).map_err(|reason| unreadable(name, reason))?;
        let expected = stored.map(AsRef::as_ref);
        self.parts.swap(key, expected, Some(new), self.parts.limits.keep_for).await
    }

    /// Brings the batch into the record, unless it is there already.
    async fn merge(&self, name: &Name, key: &Key, sending: &mut Sending) -> Result<(), Error> {
        let limits = &self.parts.limits;
        for attempt in 0..limits.attempts_max {
            let Some((batch, last)) = sending.batch.as_mut() else { return Ok(()) };
            let (stored, mut record): (_, Record) = self.stored(name, key).await?;
            let cells = batch.cells.len();
            let is_there = record.has(&self.sender, batch) || {
                let now_us = self.parts.clock.now().as_micros();
                record.count(&self.sender, batch, now_us);
                record.fold(now_us, limits.instance_expiry, limits.instances_max);
                match self.swap(name, key, stored.as_ref(), &record).await {
                    Ok(is_swapped) => is_swapped,
                    // The next look at the record tells.
                    Err(Error::Unknown { .. }) => false,
                    Err(error) => return Err(error),
                }
            };
            if is_there {
                sending.arrived = *last;
                sending.totals = record.totals(cells);
                sending.batch = None;
                return Ok(());
            }
            self.parts.step_back(attempt).await;
        }
        Err(contended(name, limits.attempts_max))
    }

    fn next_fence(&self, last: u64) -> u64 {
        let wall_us = u64::try_from(self.parts.clock.now().as_micros()).unwrap_or(0);
        last.saturating_add(1).max(if last == 0 { wall_us } else { 0 })
    }
}

fn key_of(name: &Name) -> Key {
    name.key("record")
}

#[async_trait]
impl Protocol for Merge {
    async fn add(&self, name: &Name, deltas: &[i64]) -> Result<Vec<i64>, Error> {
        let key = key_of(name);
        let outbox = self.outbox(&key);
        let number = outbox.put(deltas);
        let mut sending = outbox.sending.lock().await;
        while sending.arrived < number {
            if sending.batch.is_none() {
                sending.batches += 1;
                let (cells, last) = outbox.take();
                sending.batch = Some((Batch { number: sending.batches, cells }, last));
            }
            self.merge(name, &key, &mut sending).await?;
        }
        Ok(sending.totals.clone())
    }

    async fn totals(&self, name: &Name, cells: usize) -> Result<Vec<i64>, Error> {
        let (_, record): (_, Record) = self.stored(name, &key_of(name)).await?;
        Ok(record.totals(cells))
    }

    async fn set_gauge(&self, name: &Name, value: i64) -> Result<(), Error> {
        let (key, limits) = (key_of(name), &self.parts.limits);
        for attempt in 0..limits.attempts_max {
            let (stored, mut record): (_, Record) = self.stored(name, &key).await?;
            let now_us = self.parts.clock.now().as_micros();
            record.set(&self.instance, value, now_us);
            record.drop_departed(now_us, limits.instance_expiry);
            record.fold(now_us, Duration::MAX, limits.instances_max);
            match self.swap(name, &key, stored.as_ref(), &record).await {
                Ok(true) => return Ok(()),
                // Setting it twice is setting it once.
                Ok(false) | Err(Error::Unknown { .. }) => self.parts.step_back(attempt).await,
                Err(error) => return Err(error),
            }
        }
        Err(contended(name, limits.attempts_max))
    }

    async fn gauge(&self, name: &Name) -> Result<Vec<Reading>, Error> {
        let (_, mut record): (_, Record) = self.stored(name, &key_of(name)).await?;
        record.drop_departed(self.parts.clock.now().as_micros(), self.parts.limits.instance_expiry);
        let reading = |part: &super::record::Part| Reading {
            instance: part.instance.clone(),
            value: part.cells.first().copied().unwrap_or_default(),
            at_us: part.seen_us,
        };
        Ok(record.parts().iter().map(reading).collect())
    }

    /// Clocks of two machines are never compared: whoever waits takes the lock over once it has seen it unchanged for
    /// its whole life. The holder has counted its life from before it asked, so its own time has ended by then.
    async fn take(&self, name: &Name, token: u128, life: Duration) -> Result<Option<u64>, Error> {
        let key = key_of(name);
        let (stored, record): (_, LockRecord) = self.stored(name, &key).await?;
        if record.token != 0 {
            let now = self.parts.monotonic.now();
            let mut watched = self.watched();
            if watched.len() >= WATCHED_MAX {
                // Whoever still waits begins to watch anew.
                watched.clear();
            }
            let (seen, since) = watched.entry(key.clone()).or_insert_with(|| (record.clone(), now));
            if *seen != record {
                (*seen, *since) = (record.clone(), now);
            }
            if now < since.after(Duration::from_micros(record.life_us)) {
                return Ok(None);
            }
        }
        let fence = self.next_fence(record.fence);
        // Rounded up: others must not count less than was asked for.
        let life_us = u64::try_from(life.as_nanos().div_ceil(1_000)).unwrap_or(u64::MAX);
        let new = LockRecord { fence, token, extensions: 0, life_us };
        let is_taken = self.swap(name, &key, stored.as_ref(), &new).await?;
        self.watched().remove(&key);
        Ok(is_taken.then_some(fence))
    }

    async fn extend(&self, name: &Name, token: u128, _fence: u64, life: Duration) -> Result<bool, Error> {
        let key = key_of(name);
        let (stored, record): (_, LockRecord) = self.stored(name, &key).await?;
        if record.token != token {
            return Ok(false);
        }
        let life_us = u64::try_from(life.as_nanos().div_ceil(1_000)).unwrap_or(u64::MAX);
        // A number that rises, so that who watches sees that it changed though nothing else did.
        let new = LockRecord { extensions: record.extensions + 1, life_us, ..record };
        self.swap(name, &key, stored.as_ref(), &new).await
    }

    async fn release(&self, name: &Name, token: u128, _fence: u64) -> Result<bool, Error> {
        let key = key_of(name);
        let (stored, record): (_, LockRecord) = self.stored(name, &key).await?;
        if record.token != token {
            return Ok(false);
        }
        self.swap(name, &key, stored.as_ref(), &LockRecord { token: 0, ..record }).await
    }
}

fn unreadable(name: &Name, reason: String) -> Error {
    Error::Unreadable { name: name.text.to_string(), reason }
}

fn contended(name: &Name, attempts: u32) -> Error {
    Error::Contended { name: name.text.to_string(), attempts }
}
