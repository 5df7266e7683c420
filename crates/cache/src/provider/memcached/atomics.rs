//! Values that many processes change at once.

use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;

use super::wire::{Answer, Command, Mode, WireKey};
use super::{Memcached, SWAPS_MAX, contended, record, refused, unexpected};
use crate::key::Key;
use crate::provider::{Atomics, Error};

#[async_trait]
impl Atomics for Memcached {
    /// One command, and so without a loop however many add at once: numbers are kept moved up by 2^63. Past the ends of
    /// `i64` the server stops below and goes round above.
    async fn add(&self, key: &Key, delta: i64, keep_for: Duration) -> Result<i64, Error> {
        let key = WireKey::new(key.as_str())?;
        let seconds = record::seconds_for(keep_for);
        let initial = record::raw_number(delta);
        for _ in 0..SWAPS_MAX {
            match self.ask_one(key, Command::Count { key, delta, initial, seconds }).await? {
                Answer::Counted(raw) => return Ok(record::number_of(raw)),
                Answer::Missing => {}
                other => return Err(unexpected(&other)),
            }
            let text = initial.to_string();
            let value = [text.as_bytes(), b""];
            let make = Command::Store { key, mode: Mode::Add, kind: record::NUMBER, seconds, value };
            match self.ask_one(key, make).await? {
                Answer::Done { .. } => return Ok(delta),
                // Somebody else made it first: add to theirs.
                Answer::NotStored => {}
                other => return Err(unexpected(&other)),
            }
        }
        Err(contended())
    }

    async fn read(&self, key: &Key) -> Result<Option<Bytes>, Error> {
        let found = self.fetch(WireKey::new(key.as_str())?).await?;
        Ok(found.and_then(|found| record::shared_value(&found)))
    }

    async fn compare_and_swap(
        &self,
        key: &Key,
        expected: Option<&[u8]>,
        new: Option<Bytes>,
        keep_for: Duration,
    ) -> Result<bool, Error> {
        let key = WireKey::new(key.as_str())?;
        if new.as_ref().is_some_and(|new| new.len() > self.value_bytes_max()) {
            return Err(refused(format!("a value of more than {} bytes", self.value_bytes_max())));
        }
        let seconds = record::seconds_for(keep_for);
        let store = |mode, new| Command::Store { key, mode, kind: record::PLAIN, seconds, value: [new, b""] };
        for _ in 0..SWAPS_MAX {
            let found = self.fetch(key).await?;
            let there = found.as_ref().and_then(record::shared_value);
            if there.as_deref() != expected {
                return Ok(false);
            }
            let command = match (&found, &new) {
                (Some(found), Some(new)) => store(Mode::Swap(found.cas), new),
                (Some(found), None) => Command::Remove { key, cas: Some(found.cas) },
                (None, Some(new)) => store(Mode::Add, new),
                (None, None) => return Ok(true),
            };
            match self.ask_one(key, command).await? {
                Answer::Done { .. } => return Ok(true),
                // It was changed meanwhile, perhaps back to what is expected: look again.
                Answer::Changed | Answer::NotStored | Answer::Missing => {}
                other => return Err(unexpected(&other)),
            }
        }
        Err(contended())
    }
}
