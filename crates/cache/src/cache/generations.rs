//! The order of this process's loads and invalidations, and which stored entries are still reachable.
//!
//! Every load and every invalidation draws a number. A key space has a floor: entries that were written under a lower
//! number are not served, whatever the provider still holds. Invalidating a space raises its floor first and removes
//! entries second, and a removal that could not be confirmed raises it too; so what should be gone stays gone even when
//! the provider was down at that moment.
//!
//! Memory is fixed: spaces share [`SPACE_SLOTS`] floors by hash. The floors are this process's own. A provider that
//! outlives the process, or is shared, needs them stored beside the entries.

use std::sync::atomic::{AtomicU64, Ordering};

use crate::clock::Timestamp;
use crate::key::{Key, SPACE_SLOTS, Space};

#[derive(Debug)]
pub(super) struct Generations {
    last: AtomicU64,
    everything: AtomicU64,
    spaces: [AtomicU64; SPACE_SLOTS],
}

impl Generations {
    pub(super) fn new() -> Self {
        Self {
            last: AtomicU64::new(0),
            everything: AtomicU64::new(0),
            spaces: std::array::from_fn(|_| AtomicU64::new(0)),
        }
    }

    /// A number above all that were drawn before; about the time in microseconds, so that it goes on rising over
    /// restarts.
    pub(super) fn next(&self, now: Timestamp) -> u64 {
        let now = u64::try_from(now.as_micros()).unwrap_or(0);
        let after = |last: u64| last.saturating_add(1).max(now);
        let mut last = self.last.load(Ordering::SeqCst);
        loop {
            match self.last.compare_exchange_weak(last, after(last), Ordering::SeqCst, Ordering::SeqCst) {
                Ok(_) => return after(last),
                Err(found) => last = found,
            }
        }
    }

    /// Whether an entry of `key` that was written under `generation` may be served.
    pub(super) fn is_reachable(&self, key: &Key, generation: u64) -> bool {
        let floor = self.spaces.get(key.slot()).map_or(0, |floor| floor.load(Ordering::SeqCst));
        generation >= floor.max(self.everything.load(Ordering::SeqCst))
    }

    /// Nothing that was written in `space` under a number below `floor` is reachable any more.
    pub(super) fn retire_space(&self, space: &Space, floor: u64) {
        self.retire_slot(space.slot(), floor);
    }

    /// As [`retire_space`](Self::retire_space), for the space of `key`.
    pub(super) fn retire_space_of(&self, key: &Key, floor: u64) {
        self.retire_slot(key.slot(), floor);
    }

    /// Nothing that was written under a number below `floor` is reachable any more.
    pub(super) fn retire_everything(&self, floor: u64) {
        self.everything.fetch_max(floor, Ordering::SeqCst);
    }

    fn retire_slot(&self, slot: usize, floor: u64) {
        if let Some(kept) = self.spaces.get(slot) {
            kept.fetch_max(floor, Ordering::SeqCst);
        }
    }
}
