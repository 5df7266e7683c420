//! `distributed_atomic`: the server adds, the server's clock ends what is not renewed. One key for each number.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use futures_util::future::try_join_all;

use super::record::{Record, decode, encode};
use super::{Error, Name, Parts, Protocol, Reading};
use crate::key::Key;

/// A fence below it was begun anew: no present time in microseconds is so low (it is in 2001).
const FENCE_BEGUN: i64 = 1_000_000_000_000_000;

/// So many times its expiry after an instance was heard of last, the roster of a gauge forgets it.
const ROSTER_EXPIRIES: u32 = 10;

#[derive(Debug)]
pub(super) struct Atomic {
    parts: Arc<Parts>,
    /// What this instance put last under its gauges' keys: expected there next time. Lost, it is read again.
    put: Mutex<HashMap<Key, Bytes>>,
}

impl Atomic {
    pub(super) fn new(parts: Arc<Parts>) -> Self {
        Self { parts, put: Mutex::default() }
    }

    async fn add_one(&self, key: &Key, delta: i64) -> Result<i64, Error> {
        self.parts.change(self.parts.atomics()?.add(key, delta, self.parts.limits.keep_for)).await
    }

    async fn number(&self, name: &Name, key: &Key) -> Result<i64, Error> {
        let Some(stored) = self.parts.read(key).await? else { return Ok(0) };
        // Servers may pad a number that became shorter.
        let text = std::str::from_utf8(&stored).unwrap_or_default().trim();
        text.parse().map_err(|_| unreadable(name, "it is not a number"))
    }

    /// Puts what only this instance writes under `key`.
    async fn put(&self, name: &Name, key: &Key, new: &Bytes) -> Result<(), Error> {
        let mut expected = self.put.lock().unwrap_or_else(PoisonError::into_inner).get(key).cloned();
        for attempt in 0..self.parts.limits.attempts_max {
            let expiry = self.parts.limits.instance_expiry;
            if self.parts.swap(key, expected.as_deref(), Some(new.clone()), expiry).await? {
                self.put.lock().unwrap_or_else(PoisonError::into_inner).insert(key.clone(), new.clone());
                return Ok(());
            }
            self.parts.step_back(attempt).await;
            expected = self.parts.read(key).await?;
        }
        Err(contended(name, self.parts.limits.attempts_max))
    }

    /// Sees to it that those who read the gauge know of this instance.
    async fn join(&self, name: &Name) -> Result<(), Error> {
        let Parts { limits, clock, .. } = &*self.parts;
        let key = name.key("roster");
        let instance = self.parts.instance.to_string();
        for attempt in 0..limits.attempts_max {
            let now_us = clock.now().as_micros();
            let stored = self.parts.read(&key).await?;
            let mut roster: Record = decode(stored.as_ref()).map_err(|reason| unreadable(name, &reason))?;
            let is_fresh = roster.parts().iter().any(|part| {
                let half_expiry_us =
                    i64::try_from(limits.instance_expiry.as_micros() / 2).unwrap_or(i64::MAX);
                part.instance == instance && now_us.saturating_sub(part.seen_us) < half_expiry_us
            });
            if is_fresh {
                return Ok(());
            }
            roster.set(&instance, 0, now_us);
            roster.drop_departed(now_us, limits.instance_expiry.saturating_mul(ROSTER_EXPIRIES));
            roster.fold(now_us, Duration::MAX, limits.instances_max);
            let new = encode(&roster).map_err(|reason| unreadable(name, &reason))?;
            if self.parts.swap(&key, stored.as_deref(), Some(new), limits.keep_for).await? {
                return Ok(());
            }
            self.parts.step_back(attempt).await;
        }
        Err(contended(name, limits.attempts_max))
    }
}

#[async_trait]
impl Protocol for Atomic {
    /// Cells that nothing is added to are not asked for, and stand as 0 in the answer, unless there is only one.
    async fn add(&self, name: &Name, deltas: &[i64]) -> Result<Vec<i64>, Error> {
        let calls = deltas.iter().enumerate().map(async |(cell, delta)| {
            let key = name.key(&cell.to_string());
            if *delta != 0 {
                self.add_one(&key, *delta).await
            } else if deltas.len() == 1 {
                self.number(name, &key).await
            } else {
                Ok(0)
            }
        });
        try_join_all(calls).await
    }

    async fn totals(&self, name: &Name, cells: usize) -> Result<Vec<i64>, Error> {
        let calls = (0..cells).map(async |cell| self.number(name, &name.key(&cell.to_string())).await);
        try_join_all(calls).await
    }

    async fn set_gauge(&self, name: &Name, value: i64) -> Result<(), Error> {
        let instance = self.parts.instance.to_string();
        let stored = format!("{value} {}", self.parts.clock.now().as_micros());
        self.put(name, &name.key(&instance), &Bytes::from(stored)).await?;
        self.join(name).await
    }

    async fn gauge(&self, name: &Name) -> Result<Vec<Reading>, Error> {
        let stored = self.parts.read(&name.key("roster")).await?;
        let roster: Record = decode(stored.as_ref()).map_err(|reason| unreadable(name, &reason))?;
        let calls = roster.parts().iter().map(async |part| {
            let stored = self.parts.read(&name.key(&part.instance)).await?;
            let Some(stored) = stored else { return Ok(None) };
            let text = std::str::from_utf8(&stored).unwrap_or_default();
            let numbers =
                text.split_once(' ').and_then(|(value, at)| Some((value.parse().ok()?, at.parse().ok()?)));
            let (value, at_us) = numbers.ok_or_else(|| unreadable(name, "it is not a value and a time"))?;
            Ok::<_, Error>(Some(Reading { instance: part.instance.clone(), value, at_us }))
        });
        Ok(try_join_all(calls).await?.into_iter().flatten().collect())
    }

    async fn take(&self, name: &Name, token: u128, life: Duration) -> Result<Option<u64>, Error> {
        let key = name.key("holder");
        let holder = holder(token);
        match self.parts.swap(&key, None, Some(holder.clone()), life).await {
            Ok(true) => {}
            Ok(false) => return Ok(None),
            Err(error) => {
                // It may be held by a claim that nobody knows of: better gone at once than at the end of its life.
                let _ = self.parts.swap(&key, Some(&holder), None, life).await;
                return Err(error);
            }
        }
        // After the lock, not before it: a fence that was drawn earlier could be lower than that of a holder in between.
        match self.next_fence(name).await {
            Ok(fence) => Ok(Some(fence)),
            Err(error) => {
                let _ = self.parts.swap(&key, Some(&holder), None, life).await;
                Err(error)
            }
        }
    }

    async fn extend(&self, name: &Name, token: u128, _fence: u64, life: Duration) -> Result<bool, Error> {
        let holder = holder(token);
        self.parts.swap(&name.key("holder"), Some(&holder), Some(holder.clone()), life).await
    }

    async fn release(&self, name: &Name, token: u128, _fence: u64) -> Result<bool, Error> {
        let holder = holder(token);
        self.parts.swap(&name.key("holder"), Some(&holder), None, self.parts.limits.lock_life_max).await
    }
}

impl Atomic {
    async fn next_fence(&self, name: &Name) -> Result<u64, Error> {
        let key = name.key("fence");
        let mut fence = self.add_one(&key, 1).await?;
        if fence < FENCE_BEGUN {
            fence = self.add_one(&key, self.parts.clock.now().as_micros().max(FENCE_BEGUN)).await?;
        }
        Ok(u64::try_from(fence).unwrap_or_default())
    }
}

fn holder(token: u128) -> Bytes {
    Bytes::from(format!("{token:032x}"))
}

fn unreadable(name: &Name, reason: &str) -> Error {
    Error::Unreadable { name: name.text.to_string(), reason: reason.to_owned() }
}

fn contended(name: &Name, attempts: u32) -> Error {
    Error::Contended { name: name.text.to_string(), attempts }
}
