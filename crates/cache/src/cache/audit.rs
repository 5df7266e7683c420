//! Checking invalidations afterwards: what do other levels still serve, and how old is it?
//!
//! Two samples. Of the keys that this process invalidated, one in [`EVERY`] is looked up again in the shared tier a beat
//! later; of those that others invalidated, each copy that was still here when the word came counts, with the time that
//! the word took.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tracing::warn;

use super::Core;
use crate::clock::Timestamp;
use crate::envelope;
use crate::key::Key;

/// One invalidation in so many is checked.
const EVERY: u64 = 16;
/// Checks that wait; more are not sampled.
const WAITING_MAX: usize = 64;

#[derive(Debug, Default)]
pub(super) struct Audit {
    invalidations: AtomicU64,
    waiting: Mutex<Vec<(Key, Timestamp)>>,
}

impl Audit {
    /// Takes note of an invalidation that has just been completed.
    pub(super) fn sample(&self, key: &Key, now: Timestamp) {
        if !self.invalidations.fetch_add(1, Ordering::Relaxed).is_multiple_of(EVERY) {
            return;
        }
        let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        if waiting.len() < WAITING_MAX {
            waiting.push((key.clone(), now));
        }
    }

    fn take(&self) -> Vec<(Key, Timestamp)> {
        std::mem::take(&mut *self.waiting.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl Core {
    /// Looks up what was sampled since the last time.
    pub(super) async fn audit_some(&self) {
        for (key, invalidated_at) in self.audit.take() {
            let found = self.calls.run("audit", self.calls.provider.get(&key)).await;
            let Ok(found) = found else { return };
            self.calls.counters.audits.one();
            let Some((header, _)) = found.as_ref().and_then(|item| envelope::decode(&key, &item.bytes).ok())
            else {
                continue;
            };
            let is_reachable = self.stamp(&key, &header) == Some(header.stamp);
            if is_reachable && header.written_at < invalidated_at {
                let age = self.calls.clock.now().saturating_since(invalidated_at);
                self.found_stale(age);
                warn!(
                    provider = self.calls.provider.name(),
                    age_ms = u64::try_from(age.as_millis()).unwrap_or(u64::MAX),
                    space = key.space_text(),
                    "an invalidated entry is still served by the shared tier"
                );
            }
        }
    }

    /// Others have invalidated these keys: counts the copies that are still here.
    pub(super) fn audit_copies(&self, keys: &[Key], sent_at_us: i64) {
        let age = self.calls.clock.now().saturating_since(Timestamp::from_micros(sent_at_us));
        for key in keys {
            self.calls.counters.audits.one();
            if self.calls.peek(key, self.calls.clock.now_coarse()).is_some() {
                self.found_stale(age);
            }
        }
    }

    fn found_stale(&self, age: Duration) {
        self.calls.counters.audits_stale.one();
        self.calls.counters.audit_age_us_max.at_least(u64::try_from(age.as_micros()).unwrap_or(u64::MAX));
    }
}
