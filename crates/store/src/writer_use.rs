//! What is measured of a database's one writer: for how much of the time it writes, and how long callers wait for their turn.

use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use recache_model::pool::{WriterState, WriterUse};
use tokio::time::Instant;

/// What was measured of the one writer since the database was opened.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct WriterFigures {
    /// As it stands.
    pub state: WriterState,
    /// As it was used.
    pub used: WriterUse,
}

/// Counts of the one writer.
#[derive(Debug)]
pub(crate) struct WriterCounts {
    since: Instant,
    group_max: u32,
    waiting: AtomicU32,
    groups: AtomicU64,
    calls: AtomicU64,
    waited_us: AtomicU64,
    busy: Mutex<Busy>,
}

#[derive(Debug, Default)]
struct Busy {
    total: Duration,
    /// When the transaction that is open was begun.
    since: Option<Instant>,
    recent: Recent,
}

impl WriterCounts {
    pub(crate) fn new(group_max: usize) -> Self {
        Self {
            since: Instant::now(),
            group_max: u32::try_from(group_max).unwrap_or(u32::MAX),
            waiting: AtomicU32::new(0),
            groups: AtomicU64::new(0),
            calls: AtomicU64::new(0),
            waited_us: AtomicU64::new(0),
            busy: Mutex::default(),
        }
    }

    /// A caller wants something done.
    pub(crate) fn wait(counts: &Arc<Self>) -> Waiting {
        counts.waiting.fetch_add(1, Ordering::Relaxed);
        Waiting { counts: Arc::clone(counts), since: Instant::now() }
    }

    /// The writer works until the answer is dropped.
    pub(crate) fn work(&self) -> Working<'_> {
        self.groups.fetch_add(1, Ordering::Relaxed);
        self.busy().since = Some(Instant::now());
        Working(self)
    }

    pub(crate) fn read(&self) -> WriterFigures {
        let now = Instant::now();
        let over = now.duration_since(self.since);
        let (busy, recently) = {
            let busy = self.busy();
            let open = busy.since.map(|since| now.duration_since(since)).unwrap_or_default();
            (busy.total.saturating_add(open), busy.recent.sum(over).saturating_add(open))
        };
        // At first there is no more than the time since the start.
        let window = RECENT.min(over).as_secs_f64();
        let utilisation = if window > 0.0 { (recently.as_secs_f64() / window).min(1.0) } else { 0.0 };
        WriterFigures {
            state: WriterState {
                utilisation,
                waiting: self.waiting.load(Ordering::Relaxed),
                group_max: self.group_max,
            },
            used: WriterUse {
                over,
                busy,
                groups: self.groups.load(Ordering::Relaxed),
                calls: self.calls.load(Ordering::Relaxed),
                waited: Duration::from_micros(self.waited_us.load(Ordering::Relaxed)),
            },
        }
    }

    fn busy(&self) -> MutexGuard<'_, Busy> {
        self.busy.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A caller waits until this is begun or dropped.
#[derive(Debug)]
pub(crate) struct Waiting {
    counts: Arc<WriterCounts>,
    since: Instant,
}

impl Waiting {
    /// It is its turn. Returns how long it had to wait.
    pub(crate) fn begin(self) -> Duration {
        let waited = self.since.elapsed();
        let waited_us = u64::try_from(waited.as_micros()).unwrap_or(u64::MAX);
        self.counts.calls.fetch_add(1, Ordering::Relaxed);
        self.counts.waited_us.fetch_add(waited_us, Ordering::Relaxed);
        waited
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        self.counts.waiting.fetch_sub(1, Ordering::Relaxed);
    }
}

/// The writer works.
#[derive(Debug)]
pub(crate) struct Working<'c>(&'c WriterCounts);

impl Drop for Working<'_> {
    fn drop(&mut self) {
        let over = self.0.since.elapsed();
        let mut busy = self.0.busy();
        let took = busy.since.take().map(|since| since.elapsed()).unwrap_or_default();
        busy.total = busy.total.saturating_add(took);
        busy.recent.add(over, took);
    }
}

/// So far back counts as recent.
const RECENT: Duration = Duration::from_secs(SECONDS);
const SECONDS: u64 = 10;

/// Work by the second in which it ended. What began earlier counts there all the same: a second may hold more than one.
#[derive(Debug, Default)]
struct Recent {
    slots: Vec<(u64, Duration)>,
}

impl Recent {
    /// Work that took so long ended now, which is so long after the start.
    fn add(&mut self, now: Duration, took: Duration) {
        let second = now.as_secs();
        match self.slots.last_mut() {
            Some((last, sum)) if *last == second => *sum = sum.saturating_add(took),
            _ => {
                self.slots.retain(|(slot, _)| slot + SECONDS > second);
                self.slots.push((second, took));
            }
        }
    }

    /// What was done in the last seconds.
    fn sum(&self, now: Duration) -> Duration {
        let recent = self.slots.iter().filter(|(slot, _)| slot + SECONDS > now.as_secs());
        recent.fold(Duration::ZERO, |sum, (_, took)| sum.saturating_add(*took))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn writer_is_used_for_the_part_of_the_last_seconds_in_which_it_wrote() {
        tokio::time::pause();
        let counts = Arc::new(WriterCounts::new(128));
        let (first, second) = (WriterCounts::wait(&counts), WriterCounts::wait(&counts));
        tokio::time::advance(Duration::from_secs(2)).await;
        assert_eq!(counts.read().state.waiting, 2);
        assert_eq!(first.begin(), Duration::from_secs(2));
        drop(second);
        let working = counts.work();
        tokio::time::advance(Duration::from_secs(2)).await;
        let open = counts.read();
        assert!((open.state.utilisation - 0.5).abs() < 1e-9, "two of the first four seconds: {open:?}");
        drop(working);
        tokio::time::advance(Duration::from_secs(6)).await;
        let later = counts.read();
        assert!((later.state.utilisation - 0.2).abs() < 1e-9, "{later:?}");
        let used = WriterUse {
            over: Duration::from_secs(10),
            busy: Duration::from_secs(2),
            groups: 1,
            calls: 1,
            waited: Duration::from_secs(2),
        };
        assert_eq!(
            (later.used, later.state.waiting),
            (used, 0),
            "who gave up waits no more, and was not served"
        );
        tokio::time::advance(Duration::from_secs(10)).await;
        assert!(counts.read().state.utilisation < 1e-9, "long ago");
    }
}
