//! What a driver measures of itself: its pool of connections, and how long each kind of call took.
//!
//! A call is named by the method of the contract that made it. Names come from the program and not from callers, so there are as many
//! as there are methods.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use recache_model::pool::{PoolState, PoolUse};
use tokio::time::Instant;

use crate::writer_use::WriterFigures;

/// Upper ends of the buckets of times, in microseconds; what takes longer falls into one more.
pub const BOUNDS_US: [u64; 14] = [
    100, 250, 500, 1_000, 2_500, 5_000, 10_000, 25_000, 50_000, 100_000, 250_000, 500_000, 1_000_000,
    5_000_000,
];
/// Names that are told apart; what is beyond them is `other`.
const NAMES_MAX: usize = 400;
const OTHER: &str = "other";
/// Who waits for no longer did not wait.
const WAITED_FROM: Duration = Duration::from_millis(1);

/// What a driver measured since it was opened.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Measured {
    /// Its pool of connections; on SQLite of those that read. `None` for a database in memory, which has none.
    pub pool: Option<PoolFigures>,
    /// The one writer of SQLite; `None` on PostgreSQL, whose connections write side by side.
    pub writer: Option<WriterFigures>,
    /// Its calls, by name.
    pub statements: Vec<StatementFigures>,
    /// Ends that it folded into figures under no series of their own: there were too many in their minute.
    pub figures_other: u64,
}

/// A pool of connections.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct PoolFigures {
    /// As it stands.
    pub state: PoolState,
    /// As it was used since it was opened.
    pub used: PoolUse,
    /// How long takers waited, together.
    pub waited: Duration,
    /// Connections that were opened.
    pub opened: u64,
    /// How old the oldest connection was that was ever taken: connections are replaced in time.
    pub age_max: Duration,
}

/// Calls of one name.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct StatementFigures {
    /// The name of the contract's method.
    pub name: &'static str,
    /// How many were made.
    pub count: u64,
    /// How many of them failed.
    pub failed: u64,
    /// How many took longer than is slow.
    pub slow: u64,
    /// How long they took, together, without the wait for a connection or for the one writer.
    pub sum: Duration,
    /// How many of them took how long: one more than [`BOUNDS_US`].
    pub buckets: Vec<u64>,
}

/// Times of calls.
#[derive(Debug)]
pub(crate) struct Times {
    slow: Duration,
    by_name: Mutex<BTreeMap<&'static str, StatementFigures>>,
}

impl Times {
    pub(crate) fn new(slow: Duration) -> Self {
        Self { slow, by_name: Mutex::default() }
    }

    /// Takes note of a call on this connection. One that took long is logged.
    pub(crate) fn note(&self, name: &'static str, taken: &Taken<'_>, is_ok: bool) {
        self.add(name, taken.waited, taken.began.elapsed(), is_ok);
    }

    /// The same of one that took so long, after it had waited.
    pub(crate) fn add(&self, name: &'static str, waited: Duration, took: Duration, is_ok: bool) {
        let is_slow = took >= self.slow;
        if is_slow {
            let (took_ms, waited_ms) = (took.as_millis(), waited.as_millis());
            tracing::warn!(statement = name, took_ms, waited_ms, is_ok, "slow call of the database");
        }
        let took_us = u64::try_from(took.as_micros()).unwrap_or(u64::MAX);
        let mut by_name = self.by_name.lock().unwrap_or_else(PoisonError::into_inner);
        let name = if by_name.len() < NAMES_MAX || by_name.contains_key(name) { name } else { OTHER };
        let figures = by_name.entry(name).or_insert_with(|| StatementFigures {
            name,
            buckets: vec![0; BOUNDS_US.len() + 1],
            ..StatementFigures::default()
        });
        figures.count += 1;
        figures.failed += u64::from(!is_ok);
        figures.slow += u64::from(is_slow);
        figures.sum = figures.sum.saturating_add(took);
        let bucket = BOUNDS_US.partition_point(|bound| *bound < took_us);
        if let Some(bucket) = figures.buckets.get_mut(bucket) {
            *bucket += 1;
        }
    }

    pub(crate) fn read(&self) -> Vec<StatementFigures> {
        self.by_name.lock().unwrap_or_else(PoisonError::into_inner).values().cloned().collect()
    }
}

/// The name of the method whose closure this is. The compiler's name of a closure begins with where it stands; how exactly is not
/// promised, so anything else than a plain name is `other`, and nothing but what people see rests on it.
pub(crate) fn name_of<F>(_: &F) -> &'static str {
    let mut path = std::any::type_name::<F>();
    while let Some(outer) = path.strip_suffix("::{{closure}}") {
        path = outer;
    }
    // Of a method that is generic over a lifetime, as those of traits with `async` are, it ends with that: `job_get<'_, '_>`.
    let name = path.rsplit("::").next().and_then(|name| name.split('<').next()).unwrap_or_default();
    let is_plain = !name.is_empty()
        && name.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'_');
    if is_plain { name } else { OTHER }
}

/// Counts of a pool.
#[derive(Debug)]
pub(crate) struct PoolCounts {
    since: Instant,
    waiting: AtomicU32,
    busy: AtomicU32,
    busy_peak: AtomicU32,
    taken: AtomicU64,
    waited: AtomicU64,
    waited_us: AtomicU64,
    held_us: AtomicU64,
    opened: AtomicU64,
    age_max_us: AtomicU64,
}

impl PoolCounts {
    pub(crate) fn new() -> Self {
        Self {
            since: Instant::now(),
            waiting: AtomicU32::new(0),
            busy: AtomicU32::new(0),
            busy_peak: AtomicU32::new(0),
            taken: AtomicU64::new(0),
            waited: AtomicU64::new(0),
            waited_us: AtomicU64::new(0),
            held_us: AtomicU64::new(0),
            opened: AtomicU64::new(0),
            age_max_us: AtomicU64::new(0),
        }
    }

    pub(crate) fn opened(&self) {
        self.opened.fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn aged(&self, age: Duration) {
        self.age_max_us.fetch_max(us(age), Ordering::Relaxed);
    }

    /// Waits for what the pool gives, and counts it until the answer's second part is dropped. A wait that is given up ends too.
    pub(crate) async fn take<T, E>(
        &self,
        taking: impl Future<Output = Result<T, E>>,
    ) -> Result<(T, Taken<'_>), E> {
        let began = Instant::now();
        let waiting = Count::up(&self.waiting);
        let taken = taking.await;
        drop(waiting);
        let waited = began.elapsed();
        self.waited_us.fetch_add(us(waited), Ordering::Relaxed);
        self.waited.fetch_add(u64::from(waited > WAITED_FROM), Ordering::Relaxed);
        let taken = taken?;
        self.taken.fetch_add(1, Ordering::Relaxed);
        let busy = Count::up(&self.busy);
        self.busy_peak.fetch_max(self.busy.load(Ordering::Relaxed), Ordering::Relaxed);
        Ok((taken, Taken { counts: self, began: Instant::now(), waited, _busy: busy }))
    }

    pub(crate) fn read(&self, max: u32, size: u32) -> PoolFigures {
        let load = |count: &AtomicU64| count.load(Ordering::Relaxed);
        let state = PoolState {
            max,
            size,
            busy: self.busy.load(Ordering::Relaxed),
            // Who is just being given one does not wait.
            waiting: self.waiting.load(Ordering::Relaxed),
        };
        PoolFigures {
            state,
            used: PoolUse {
                max,
                over: self.since.elapsed(),
                taken: load(&self.taken),
                waited: load(&self.waited),
                held: Duration::from_micros(load(&self.held_us)),
                busy_peak: self.busy_peak.load(Ordering::Relaxed),
            },
            waited: Duration::from_micros(load(&self.waited_us)),
            opened: load(&self.opened),
            age_max: Duration::from_micros(load(&self.age_max_us)),
        }
    }
}

/// A connection is in use.
#[derive(Debug)]
pub(crate) struct Taken<'p> {
    counts: &'p PoolCounts,
    began: Instant,
    waited: Duration,
    _busy: Count<'p>,
}

impl Drop for Taken<'_> {
    fn drop(&mut self) {
        self.counts.held_us.fetch_add(us(self.began.elapsed()), Ordering::Relaxed);
    }
}

/// One more, until it is dropped.
#[derive(Debug)]
struct Count<'p>(&'p AtomicU32);

impl<'p> Count<'p> {
    fn up(count: &'p AtomicU32) -> Self {
        count.fetch_add(1, Ordering::Relaxed);
        Self(count)
    }
}

impl Drop for Count<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

fn us(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn jobs_settle(times: &Times) {
        let work = || Box::pin(async {});
        times.add(name_of(&work), Duration::ZERO, Duration::ZERO, true);
        work().await;
    }

    /// As `async_trait` makes a method.
    fn jobs_claim<'a: 'b, 'b>(one: &'a Times, other: &'b Times) -> &'static str {
        name_of(&move || (one.read(), other.read()))
    }

    #[tokio::test]
    async fn call_is_named_by_its_method_and_falls_into_its_bucket() {
        let times = Times::new(Duration::from_millis(200));
        jobs_settle(&times).await;
        times.add("jobs_settle", Duration::ZERO, Duration::from_millis(300), false);
        let figures = times.read();
        assert_eq!(figures.len(), 1, "{figures:?}");
        let one = &figures[0];
        assert_eq!((one.name, one.count, one.failed, one.slow), ("jobs_settle", 2, 1, 1));
        assert_eq!((one.buckets[0], one.buckets[11]), (1, 1), "up to 500 ms");
        assert_eq!(one.sum, Duration::from_millis(300));
        assert_eq!(name_of(&Some(7)), OTHER, "it is no closure");
        assert_eq!(jobs_claim(&times, &times), "jobs_claim");
    }

    #[tokio::test]
    async fn pool_counts_who_waits_and_who_holds() {
        tokio::time::pause();
        let counts = PoolCounts::new();
        let taking = async {
            tokio::time::sleep(Duration::from_millis(30)).await;
            Ok::<_, ()>(7)
        };
        let (value, taken) = counts.take(taking).await.unwrap();
        assert_eq!((value, counts.read(5, 1).state.busy, counts.read(5, 1).state.waiting), (7, 1, 0));
        tokio::time::advance(Duration::from_millis(20)).await;
        drop(taken);
        // One that is given up while it waits waits no more.
        let never = counts.take(std::future::pending::<Result<(), ()>>());
        assert!(tokio::time::timeout(Duration::from_millis(1), never).await.is_err());
        let found = counts.read(5, 1);
        assert_eq!((found.state.busy, found.state.waiting), (0, 0));
        assert_eq!((found.used.taken, found.used.waited, found.used.busy_peak), (1, 1, 1));
        assert_eq!(found.used.held, Duration::from_millis(20));
        // Timers go by milliseconds.
        let waited = found.waited.as_millis();
        assert!((30..=31).contains(&waited), "{waited} ms");
    }
}
