//! The epochs of all processes: one item that never ends by itself, changed by compare-and-swap.
//!
//! memcached may drop it like any other item, and does so when it restarts. Then it is made anew with an incarnation
//! drawn at random, so that nothing stamped with an older one is served again.

use std::sync::{Mutex, PoisonError};

use async_trait::async_trait;
use tokio::time::{Duration, sleep};
use xxhash_rust::xxh3::xxh3_64;

use super::wire::{Answer, Command, Found, Mode, WireKey};
use super::{Memcached, SWAPS_MAX, contended, draw, unexpected};
use crate::epochs::{EpochRecord, Slot};
use crate::provider::{EpochStore, Error};

/// The first had no checksum: one changed byte of it could take an epoch back, and what had been invalidated came back with it.
const FORMAT: u8 = 2;
const CHECKSUM_BYTES: usize = 8;
const SLOT_BYTES: usize = 2;
/// More than the 40 bits that a stamp takes of it.
const EPOCH_BYTES: usize = 6;

/// The pause after the first swap that others have won; it grows by this each time, and is spread at random.
const PAUSE: Duration = Duration::from_micros(200);

/// Which item held which record when it was last read, so that an unchanged one is recognised without its value.
#[derive(Debug, Default)]
pub(super) struct LastSeen(Mutex<Option<Sight>>);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Sight {
    cas: u64,
    kind: u32,
    incarnation: u64,
    version: u64,
}

impl LastSeen {
    fn note(&self, found: &Found, record: &EpochRecord) {
        let sight = Sight {
            cas: found.cas,
            kind: found.kind,
            incarnation: record.incarnation,
            version: record.version,
        };
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(sight);
    }

    /// The CAS number alone would not do: after a restart it counts from 1 again.
    fn is(&self, found: &Found, incarnation: u64, version: u64) -> bool {
        let sight = Sight { cas: found.cas, kind: found.kind, incarnation, version };
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) == Some(sight)
    }
}

#[async_trait]
impl EpochStore for Memcached {
    /// Costs a line each way when nothing has changed; the classic dialect sends the record each time.
    async fn read(&self, incarnation: u64, version: u64) -> Result<Option<EpochRecord>, Error> {
        let key = WireKey::new(&self.epochs_key)?;
        let glance = self.ask_one(key, Command::Fetch { key, with_value: false, vivify: None }).await?;
        match &glance {
            Answer::Found(found) if self.epochs_seen.is(found, incarnation, version) => return Ok(None),
            Answer::Found(_) | Answer::Missing => {}
            other => return Err(unexpected(other)),
        }
        let record = self.change_epochs(&[]).await?;
        Ok((record.incarnation != incarnation || record.version != version).then_some(record))
    }

    async fn raise(&self, slots: &[Slot]) -> Result<EpochRecord, Error> {
        self.change_epochs(slots).await
    }

    /// For ever: memcached tells nobody anything.
    async fn changed(&self) {
        std::future::pending::<()>().await;
    }
}

impl Memcached {
    /// The record with each of `slots` raised, made if there is none.
    async fn change_epochs(&self, slots: &[Slot]) -> Result<EpochRecord, Error> {
        let key = WireKey::new(&self.epochs_key)?;
        for attempt in 0..SWAPS_MAX {
            if attempt > 0 {
                sleep(draw::below(PAUSE * attempt)).await;
            }
            let found = self.fetch(key).await?;
            let standing = found.as_ref().and_then(|found| Some((found, decode(&found.value)?)));
            let (mode, mut record) = match (&found, standing) {
                (_, Some((found, record))) => {
                    self.epochs_seen.note(found, &record);
                    if slots.is_empty() {
                        return Ok(record);
                    }
                    (Mode::Swap(found.cas), record)
                }
                // What cannot be read is as good as lost.
                (Some(broken), None) => (Mode::Swap(broken.cas), begun()),
                (None, None) => (Mode::Add, begun()),
            };
            raise(&mut record, slots);
            let value = encode(&record);
            let store = Command::Store { key, mode, kind: digest(&record), seconds: 0, value: [&value, b""] };
            match self.ask_one(key, store).await? {
                Answer::Done { .. } => return Ok(record),
                Answer::Changed | Answer::NotStored | Answer::Missing => {}
                other => return Err(unexpected(&other)),
            }
        }
        Err(contended())
    }
}

fn begun() -> EpochRecord {
    EpochRecord { incarnation: draw::number(), version: 0, epochs: Vec::new() }
}

fn raise(record: &mut EpochRecord, slots: &[Slot]) {
    record.version += 1;
    for slot in slots {
        match record.epochs.binary_search_by_key(slot, |(there, _)| *there) {
            Ok(place) => {
                if let Some((_, epoch)) = record.epochs.get_mut(place) {
                    *epoch += 1;
                }
            }
            Err(place) => record.epochs.insert(place, (*slot, 1)),
        }
    }
}

/// What stands beside the value, so that one record is told from another without it.
fn digest(record: &EpochRecord) -> u32 {
    let mut bytes = record.incarnation.to_le_bytes().to_vec();
    bytes.extend_from_slice(&record.version.to_le_bytes());
    u32::try_from(xxh3_64(&bytes) >> 32).unwrap_or_default()
}

/// Format, checksum of what follows, incarnation, version, then slot and epoch of each that was ever raised, in the order of
/// slots; little-endian.
fn encode(record: &EpochRecord) -> Vec<u8> {
    let mut bytes = vec![FORMAT];
    bytes.extend_from_slice(&[0; CHECKSUM_BYTES]);
    bytes.extend_from_slice(&record.incarnation.to_le_bytes());
    bytes.extend_from_slice(&record.version.to_le_bytes());
    for (slot, epoch) in &record.epochs {
        bytes.extend_from_slice(&slot.number().to_le_bytes());
        bytes.extend(epoch.to_le_bytes().iter().take(EPOCH_BYTES));
    }
    let (head, body) = bytes.split_at_mut(1 + CHECKSUM_BYTES);
    head[1..].copy_from_slice(&checksum(body));
    bytes
}

fn checksum(body: &[u8]) -> [u8; CHECKSUM_BYTES] {
    xxh3_64(body).to_le_bytes()
}

fn decode(bytes: &[u8]) -> Option<EpochRecord> {
    let (sum, body) = bytes.strip_prefix(&[FORMAT])?.split_first_chunk()?;
    if *sum != checksum(body) {
        return None;
    }
    let (incarnation, rest) = body.split_first_chunk()?;
    let (version, mut rest) = rest.split_first_chunk()?;
    let mut record = EpochRecord {
        incarnation: u64::from_le_bytes(*incarnation),
        version: u64::from_le_bytes(*version),
        epochs: Vec::with_capacity(rest.len() / (SLOT_BYTES + EPOCH_BYTES)),
    };
    while !rest.is_empty() {
        let (slot, after) = rest.split_first_chunk::<SLOT_BYTES>()?;
        let (epoch, after) = after.split_first_chunk::<EPOCH_BYTES>()?;
        let mut wide = [0; 8];
        wide.iter_mut().zip(epoch).for_each(|(to, from)| *to = *from);
        let slot = Slot::from_number(u16::from_le_bytes(*slot))?;
        if record.epochs.last().is_some_and(|(before, _)| *before >= slot) {
            return None;
        }
        record.epochs.push((slot, u64::from_le_bytes(wide)));
        rest = after;
    }
    (record.incarnation != 0).then_some(record)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn record_comes_back_whole_or_not_at_all(
            incarnation in 1..u64::MAX,
            raises in prop::collection::vec(0..2_305_u16, 0..100),
            cut: prop::sample::Index,
            bit: prop::sample::Index,
        ) {
            let mut record = EpochRecord { incarnation, version: 3, epochs: Vec::new() };
            for number in &raises {
                raise(&mut record, &[Slot::from_number(*number).unwrap()]);
            }
            let bytes = encode(&record);
            prop_assert_eq!(decode(&bytes), Some(record.clone()));
            prop_assert_eq!(decode(&bytes[..cut.index(bytes.len())]), None);
            let mut changed = bytes.clone();
            let bit = bit.index(bytes.len() * 8);
            changed[bit / 8] ^= 1 << (bit % 8);
            prop_assert_eq!(decode(&changed), None);
            prop_assert_eq!(decode(&[bytes.as_slice(), bytes.as_slice()].concat()), None);
        }

        #[test]
        fn no_bytes_break_it(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            if let Some(record) = decode(&bytes) {
                prop_assert_eq!(encode(&record), bytes);
            }
        }
    }
}
