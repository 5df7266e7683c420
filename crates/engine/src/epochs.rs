//! The store as what makes the caches of all processes agree: their epochs are rows of the database.
//!
//! With it even a cache in each process serves strict usages. What outdates cached things may raise their epochs in its
//! own transaction, so that there is no moment in which the change is there and the cache does not know.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use async_trait::async_trait;
use recache_cache::KeyPrefix;
use recache_cache::epochs::{EpochRecord, Slot};
use recache_cache::provider::{EpochStore, Error};
use recache_store::{CacheMark, CacheRaise, CacheRecord, Signal, Store};
use tokio::sync::broadcast::{self, error::RecvError};

/// The epochs of a cache, kept in a store; for [`recache_cache::Builder::epochs`]. One for each cache.
///
/// Between processes on PostgreSQL a raise is heard at once; where hints are lost, and between processes on one SQLite
/// file, a cache learns of it with its next beat. A strict read asks the store each time.
#[derive(Debug)]
pub struct StoreEpochs {
    store: Arc<dyn Store>,
    prefix: String,
    hints: tokio::sync::Mutex<broadcast::Receiver<Signal>>,
    /// The record as this process last saw it, so that the store tells only what is new.
    seen: Mutex<Seen>,
}

#[derive(Debug, Default)]
struct Seen {
    mark: CacheMark,
    epochs: BTreeMap<u16, u64>,
}

impl Seen {
    /// Takes over what the store answered to who knew `asked`. False when it cannot be told whether that is newer than
    /// what is known: the record became another one twice meanwhile.
    fn learn(&mut self, asked: CacheMark, record: &CacheRecord) -> bool {
        let (known, answer) = (self.mark, record.mark);
        if answer.incarnation != known.incarnation {
            if asked.incarnation != known.incarnation {
                return false;
            }
            *self = Self::default();
        }
        for (slot, epoch) in &record.epochs {
            let known = self.epochs.entry(*slot).or_default();
            *known = (*known).max(*epoch);
        }
        let version = if answer.incarnation == known.incarnation { known.version } else { 0 };
        self.mark = CacheMark { version: answer.version.max(version), ..answer };
        true
    }

    fn record(&self) -> EpochRecord {
        let slot = |(number, epoch): (&u16, &u64)| Some((Slot::from_number(*number)?, *epoch));
        EpochRecord {
            incarnation: self.mark.incarnation,
            version: self.mark.version,
            epochs: self.epochs.iter().filter_map(slot).collect(),
        }
    }
}

impl StoreEpochs {
    /// The epochs of the caches whose keys begin with `prefix`.
    pub fn new(store: Arc<dyn Store>, prefix: &KeyPrefix) -> Self {
        let hints = tokio::sync::Mutex::new(store.subscribe());
        Self { store, prefix: prefix.as_str().to_owned(), hints, seen: Mutex::default() }
    }

    fn seen(&self) -> MutexGuard<'_, Seen> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn learn(&self, asked: CacheMark, record: &CacheRecord) -> Result<EpochRecord, Error> {
        let mut seen = self.seen();
        if seen.learn(asked, record) {
            return Ok(seen.record());
        }
        Err(self.unavailable("the record of epochs is just being replaced"))
    }

    /// Whether the signal tells of something that is not known here.
    fn is_news(&self, signal: &Signal) -> bool {
        let Signal::CacheRaised(prefix, mark) = signal else { return false };
        let known = self.seen().mark;
        *prefix == self.prefix && (mark.incarnation != known.incarnation || mark.version > known.version)
    }

    fn unavailable(&self, reason: &str) -> Error {
        Error::Unavailable { provider: self.store.kind(), reason: reason.to_owned() }
    }

    /// What went wrong by its kind alone: a database's own words may quote addresses and values.
    fn failed(&self, error: &recache_store::Error) -> Error {
        use recache_store::Error as Failure;
        tracing::debug!(%error, "epochs of the cache cannot be had");
        self.unavailable(match error {
            Failure::Unavailable { .. } => "the database cannot be reached or cannot do it now",
            Failure::Unknown { .. } => "the answer of the database was lost",
            Failure::Invalid(_) => "the database takes no such record of epochs",
            Failure::NotFound { .. } | Failure::Conflict(_) | Failure::Broken { .. } => {
                "the database is not as it should be: is its schema of this version?"
            }
        })
    }
}

#[async_trait]
impl EpochStore for StoreEpochs {
    async fn read(&self, incarnation: u64, version: u64) -> Result<Option<EpochRecord>, Error> {
        let known = CacheMark { incarnation, version };
        let asked = self.seen().mark;
        let answer = self.store.cache_epochs_read(&self.prefix, asked).await;
        if let Some(record) = answer.map_err(|error| self.failed(&error))? {
            self.learn(asked, &record)?;
        }
        let seen = self.seen();
        Ok((seen.mark != known).then(|| seen.record()))
    }

    async fn raise(&self, slots: &[Slot]) -> Result<EpochRecord, Error> {
        let asked = self.seen().mark;
        let slots = slots.iter().map(|slot| slot.number()).collect();
        let raise = CacheRaise { prefix: self.prefix.clone(), slots };
        let answer = self.store.cache_epochs_raise(raise, asked).await;
        self.learn(asked, &answer.map_err(|error| self.failed(&error))?)
    }

    async fn changed(&self) {
        let mut hints = self.hints.lock().await;
        loop {
            match hints.recv().await {
                Ok(signal) if self.is_news(&signal) => return,
                Ok(_) => {}
                // Any of those that were missed may have been one.
                Err(RecvError::Lagged(_)) => return,
                Err(RecvError::Closed) => std::future::pending().await,
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mark(incarnation: u64, version: u64) -> CacheMark {
        CacheMark { incarnation, version }
    }

    fn record(mark: CacheMark, epochs: &[(u16, u64)]) -> CacheRecord {
        CacheRecord { mark, epochs: epochs.to_vec() }
    }

    #[test]
    fn answers_that_overtake_each_other_lose_nothing() {
        let mut seen = Seen::default();
        assert!(seen.learn(mark(0, 0), &record(mark(7, 2), &[(1, 2)])));
        assert!(seen.learn(mark(7, 2), &record(mark(7, 4), &[(1, 4), (2, 3)])));
        assert!(seen.learn(mark(7, 2), &record(mark(7, 3), &[(2, 3)])), "it comes late");
        assert_eq!(seen.mark, mark(7, 4));
        assert_eq!(seen.epochs, BTreeMap::from([(1, 4), (2, 3)]));
    }

    #[test]
    fn another_incarnation_takes_the_place_of_what_is_known() {
        let mut seen = Seen::default();
        assert!(seen.learn(mark(0, 0), &record(mark(7, 9), &[(1, 9)])));
        assert!(seen.learn(mark(7, 9), &record(mark(8, 1), &[(2, 1)])));
        assert_eq!((seen.mark, &seen.epochs), (mark(8, 1), &BTreeMap::from([(2, 1)])));
        assert!(
            !seen.learn(mark(7, 9), &record(mark(7, 10), &[(1, 10)])),
            "nobody knows which is the later one"
        );
        assert_eq!((seen.mark, &seen.epochs), (mark(8, 1), &BTreeMap::from([(2, 1)])));
    }
}
