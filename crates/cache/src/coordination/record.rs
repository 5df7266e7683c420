//! The records of `distributed_basic` and their rules, pure. A record has a part for each instance; a part is changed by
//! its own instance only, so that two changes never contradict each other and any order of merging gives the same sums.

use std::time::Duration;

use bytes::Bytes;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

/// Another one is refused: it would be misread.
const FORMAT: u8 = 1;

/// What all instances together have counted or set.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub(super) struct Record {
    /// Counts of instances that are gone.
    departed: Vec<i64>,
    parts: Vec<Part>,
}

/// What one instance has counted or set.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub(super) struct Part {
    pub(super) instance: String,
    /// Number of the last batch in it: one that is sent twice counts once.
    pub(super) batch: u64,
    /// When it was changed last, by its instance's clock.
    pub(super) seen_us: i64,
    pub(super) cells: Vec<i64>,
}

/// A change of one instance.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Batch {
    pub(super) number: u64,
    pub(super) cells: Vec<i64>,
}

impl Record {
    /// Whether the batch is in it already.
    pub(super) fn has(&self, instance: &str, batch: &Batch) -> bool {
        self.part(instance).is_some_and(|part| part.batch >= batch.number)
    }

    /// Adds the batch to its instance's part.
    pub(super) fn count(&mut self, instance: &str, batch: &Batch, now_us: i64) {
        let part = self.part_mut(instance);
        add_all(&mut part.cells, &batch.cells);
        part.batch = batch.number;
        part.seen_us = now_us;
    }

    /// Puts `value` in the place of its instance's part.
    pub(super) fn set(&mut self, instance: &str, value: i64, now_us: i64) {
        let part = self.part_mut(instance);
        part.cells = vec![value];
        part.batch = part.batch.saturating_add(1);
        part.seen_us = now_us;
    }

    /// Moves the counts of instances that were not heard of for `expiry` to those of the departed. Their parts stay for
    /// as long as there is room, empty, with their batch numbers: an instance may come back, and what it then repeats
    /// must still count once. So it does no harm to take a living one for departed.
    pub(super) fn fold(&mut self, now_us: i64, expiry: Duration, parts_max: usize) {
        for part in &mut self.parts {
            if is_older(part.seen_us, now_us, expiry) {
                add_all(&mut self.departed, &part.cells);
                part.cells.clear();
            }
        }
        while self.parts.len() > parts_max.max(1) {
            let oldest =
                self.parts.iter().enumerate().min_by_key(|(_, part)| part.seen_us).map(|(place, _)| place);
            let Some(oldest) = oldest else { break };
            let gone = self.parts.swap_remove(oldest);
            add_all(&mut self.departed, &gone.cells);
        }
    }

    /// Drops what instances have set that were not heard of for `expiry`.
    pub(super) fn drop_departed(&mut self, now_us: i64, expiry: Duration) {
        self.parts.retain(|part| !is_older(part.seen_us, now_us, expiry));
    }

    pub(super) fn totals(&self, cells: usize) -> Vec<i64> {
        let mut totals = vec![0; cells];
        add_all(&mut totals, &self.departed);
        for part in &self.parts {
            add_all(&mut totals, &part.cells);
        }
        totals
    }

    pub(super) fn parts(&self) -> &[Part] {
        &self.parts
    }

    fn part(&self, instance: &str) -> Option<&Part> {
        self.parts.iter().find(|part| part.instance == instance)
    }

    fn part_mut(&mut self, instance: &str) -> &mut Part {
        let place = self.parts.iter().position(|part| part.instance == instance).unwrap_or_else(|| {
            self.parts.push(Part { instance: instance.to_owned(), ..Part::default() });
            self.parts.len() - 1
        });
        &mut self.parts[place]
    }
}

/// A lock as it stands in the store.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub(super) struct LockRecord {
    /// Of the last holder; it stays when the lock is free.
    pub(super) fence: u64,
    /// Whose it is; 0 when it is free.
    pub(super) token: u128,
    /// How often this holding was extended.
    pub(super) extensions: u64,
    /// For how long from its last change it is held.
    pub(super) life_us: u64,
}

pub(super) fn encode<T: Serialize>(value: &T) -> Result<Bytes, String> {
    postcard::to_allocvec(&(FORMAT, value)).map(Bytes::from).map_err(|error| error.to_string())
}

/// Nothing stored is an empty record.
pub(super) fn decode<T: DeserializeOwned + Default>(stored: Option<&Bytes>) -> Result<T, String> {
    let Some(stored) = stored else { return Ok(T::default()) };
    match stored.split_first() {
        Some((format, rest)) if *format == FORMAT => {
            postcard::from_bytes(rest).map_err(|error| error.to_string())
        }
        Some((format, _)) => Err(format!("format {format}, not {FORMAT}")),
        None => Err("it is empty".to_owned()),
    }
}

fn is_older(seen_us: i64, now_us: i64, expiry: Duration) -> bool {
    let expiry_us = i64::try_from(expiry.as_micros()).unwrap_or(i64::MAX);
    now_us.saturating_sub(seen_us) > expiry_us
}

pub(super) fn add_all(sums: &mut Vec<i64>, deltas: &[i64]) {
    if sums.len() < deltas.len() {
        sums.resize(deltas.len(), 0);
    }
    for (sum, delta) in sums.iter_mut().zip(deltas) {
        *sum = sum.saturating_add(*delta);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        /// Whoever is folded, dropped or repeated, and in whatever order: the sum is that of all batches.
        #[test]
        fn folding_and_repeating_lose_and_double_nothing(
            steps in prop::collection::vec((0_u8..5, -9_i64..10, 0_i64..30, any::<bool>()), 1..80),
        ) {
            let (mut record, mut sum, mut now_us) = (Record::default(), 0, 0);
            let mut numbers = [0; 5];
            for (who, delta, passes_us, repeats) in steps {
                now_us += passes_us;
                let number = &mut numbers[usize::from(who)];
                *number += 1;
                let batch = Batch { number: *number, cells: vec![delta] };
                let instance = who.to_string();
                sum += delta;
                for _ in 0..=u8::from(repeats) {
                    if !record.has(&instance, &batch) {
                        record.count(&instance, &batch, now_us);
                    }
                    record.fold(now_us, Duration::from_micros(20), 5);
                }
                prop_assert_eq!(record.totals(1), vec![sum]);
                let stored = encode(&record).unwrap();
                prop_assert_eq!(&decode::<Record>(Some(&stored)).unwrap(), &record);
            }
        }

        #[test]
        fn anything_may_stand_in_the_store(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let bytes = Bytes::from(bytes);
            let _ = decode::<Record>(Some(&bytes));
            let _ = decode::<LockRecord>(Some(&bytes));
        }
    }

    #[test]
    fn record_names_no_more_instances_than_it_may() {
        let mut record = Record::default();
        for number in 0..50_i64 {
            record.count(&number.to_string(), &Batch { number: 1, cells: vec![1] }, number);
            record.fold(number, Duration::MAX, 10);
            assert!(record.parts().len() <= 10);
        }
        assert_eq!(record.totals(1), [50]);
        assert!(record.parts().iter().all(|part| part.seen_us >= 40));
    }
}
