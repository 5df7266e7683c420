//! What the processes of a fleet keep in common: counters, gauges, histograms and locks, over whatever the backend can.
//!
//! Three protocols, chosen from the backend's capabilities by [`Strategy::choose`] and shown by
//! [`Coordination::explain`]:
//!
//! | | `distributed_atomic` | `distributed_basic` | `local_only` |
//! |---|---|---|---|
//! | needs | shared, atomic increment, compare and swap | shared, compare and swap | nothing |
//! | a count | one number, raised by the server | one record with a part for each instance, merged by compare and swap | a number in this process |
//! | cost of a count | one exchange, always | two exchanges and more under contention; counts made meanwhile travel together | none |
//! | answer lost | it may have been counted: [`Error::Unknown`] | tried again and counted once: parts are numbered | – |
//! | a gauge | one key an instance, which the server lets expire | a part of the record, dropped when it is too old | a number in this process |
//! | end of a lock | the server's clock | seen unchanged for its whole life, by the waiter's own monotonic clock | this process's clock |
//!
//! A handle is cheap to clone and to make. Nothing here waits for longer than [`Limits::call_timeout`] a call, and
//! nothing is retried without bound. What is kept here is an accelerator's memory: a backend that loses its data loses
//! the counts, and a lock is only as exclusive as its store is durable. Where two holders would do harm, hand the fence
//! ([`Held::fence`]) to what is protected and let it refuse lower ones.

mod atomic;
mod instance;
mod local;
mod lock;
mod merge;
mod record;
mod strategy;

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use tokio::time::timeout;

pub use self::instance::Instance;
pub use self::lock::{Held, LOCK_LIFE_MAX_DEFAULT, Lock};
pub use self::strategy::{Explanation, Strategy};
use crate::breaker::Monotonic;
use crate::chance::Chance;
use crate::clock::Clock;
use crate::key::{Key, KeyPrefix, Space};
use crate::provider::{self, Atomics, CALL_TIMEOUT_DEFAULT, MonotonicClock, Provider};

/// Bounds of everything that could grow or last.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Limits {
    /// How long one call of the backend may take. Default 50 ms.
    pub call_timeout: Duration,
    /// How long one operation may take, with all its calls. Default 500 ms.
    pub operation_timeout: Duration,
    /// How often one operation meets somebody else's change before it gives up. Default 100.
    pub attempts_max: u32,
    /// How long counts, fences and records outlive their last change. Default 7 days.
    pub keep_for: Duration,
    /// An instance that was not heard of for so long is gone: its gauges no longer count, its counts stay. Default 1 min.
    pub instance_expiry: Duration,
    /// Instances that one record names; counts of the longest unheard are folded together beyond it. Default 500.
    pub instances_max: usize,
    /// The longest that a lock is held, extensions included. Default 1 h.
    pub lock_life_max: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            call_timeout: CALL_TIMEOUT_DEFAULT,
            operation_timeout: Duration::from_millis(500),
            attempts_max: 100,
            keep_for: Duration::from_hours(7 * 24),
            instance_expiry: Duration::from_mins(1),
            instances_max: 500,
            lock_life_max: LOCK_LIFE_MAX_DEFAULT,
        }
    }
}

/// Why it was not done.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The backend failed before anything was changed, or refused.
    #[error(transparent)]
    Provider(#[from] provider::Error),
    /// No answer came in time to a call that changes something: it may have been done.
    #[error("no certain answer from {provider}: the change may have been made")]
    Unknown {
        /// Name of the provider.
        provider: &'static str,
    },
    /// It was not finished in time.
    #[error("not finished within {limit:?}: the change may have been made")]
    TooSlow {
        /// How long it could have taken.
        limit: Duration,
    },
    /// Others changed the same thing each time.
    #[error("gave up after {attempts} attempts: others changed {name:?} each time")]
    Contended {
        /// What was to be changed.
        name: String,
        /// How often it was tried.
        attempts: u32,
    },
    /// What stands in the backend is not what was put there.
    #[error("the record of {name:?} cannot be read: {reason}")]
    Unreadable {
        /// Whose record.
        name: String,
        /// What is wrong with it.
        reason: String,
    },
    /// The caller asks for what cannot be.
    #[error("{0}")]
    Invalid(String),
}

/// How one strategy does it. Cells are numbers that are only added to: one for a counter, one for each bucket and
/// one for the sum of a histogram.
#[async_trait]
trait Protocol: fmt::Debug + Send + Sync {
    /// Adds to the cells; answers their totals, as far as they are known without asking again.
    async fn add(&self, name: &Name, deltas: &[i64]) -> Result<Vec<i64>, Error>;
    /// The totals of `cells` cells.
    async fn totals(&self, name: &Name, cells: usize) -> Result<Vec<i64>, Error>;
    /// Sets this instance's value.
    async fn set_gauge(&self, name: &Name, value: i64) -> Result<(), Error>;
    /// The values of all instances that are heard of.
    async fn gauge(&self, name: &Name) -> Result<Vec<Reading>, Error>;
    /// Takes the lock, if nobody holds it. A claim that got no answer is not held.
    async fn take(&self, name: &Name, token: u128, life: Duration) -> Result<Option<u64>, Error>;
    /// Lets the lock live for `life` from now, if `token` still holds it.
    async fn extend(&self, name: &Name, token: u128, fence: u64, life: Duration) -> Result<bool, Error>;
    /// Ends the lock, if `token` still holds it.
    async fn release(&self, name: &Name, token: u128, fence: u64) -> Result<bool, Error>;
}

/// What something is called, and where it is kept.
#[derive(Debug, Clone)]
struct Name {
    text: Arc<str>,
    kind: &'static str,
    space: Space,
    strategy: Strategy,
}

impl Name {
    /// The key of a part. Strategies do not share keys: each would misread what another wrote.
    fn key(&self, part: &str) -> Key {
        self.space.key([self.strategy.name(), self.kind, &self.text, part])
    }
}

/// One thing that the fleet keeps in common.
#[derive(Debug, Clone)]
struct Shared {
    protocol: Arc<dyn Protocol>,
    name: Name,
    parts: Arc<Parts>,
}

impl Shared {
    async fn add(&self, deltas: &[i64]) -> Result<Vec<i64>, Error> {
        self.in_time(self.protocol.add(&self.name, deltas)).await
    }

    async fn totals(&self, cells: usize) -> Result<Vec<i64>, Error> {
        self.in_time(self.protocol.totals(&self.name, cells)).await
    }

    /// Every protocol may be dropped at any point.
    async fn in_time<T>(&self, operation: impl Future<Output = Result<T, Error>>) -> Result<T, Error> {
        let limit = self.parts.limits.operation_timeout;
        timeout(limit, operation).await.unwrap_or(Err(Error::TooSlow { limit }))
    }
}

/// One instance's value of a gauge.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reading {
    /// Whose.
    pub instance: String,
    /// What it set last.
    pub value: i64,
    /// When, by its clock, in microseconds since the Unix epoch.
    pub at_us: i64,
}

/// The way to everything that a fleet keeps in common. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Coordination {
    protocol: Arc<dyn Protocol>,
    explanation: Arc<Explanation>,
    space: Space,
    parts: Arc<Parts>,
}

/// What the protocols are made of.
#[derive(Debug)]
struct Parts {
    provider: Arc<dyn Provider>,
    instance: Instance,
    clock: Arc<dyn Clock>,
    monotonic: Arc<dyn Monotonic>,
    chance: Arc<dyn Chance>,
    limits: Limits,
}

impl Coordination {
    /// Over `provider`, by what it is known to be capable of now: make it when the provider is connected. `prefix`
    /// separates deployments; `instance` is this process.
    pub fn new(
        provider: Arc<dyn Provider>,
        prefix: &KeyPrefix,
        instance: Instance,
        clock: Arc<dyn Clock>,
        chance: Arc<dyn Chance>,
    ) -> Self {
        Self::with_limits(
            provider,
            prefix,
            instance,
            clock,
            chance,
            Arc::new(MonotonicClock::new()),
            Limits::default(),
        )
    }

    /// The same with limits and a monotonic clock of the caller's.
    pub fn with_limits(
        provider: Arc<dyn Provider>,
        prefix: &KeyPrefix,
        instance: Instance,
        clock: Arc<dyn Clock>,
        chance: Arc<dyn Chance>,
        monotonic: Arc<dyn Monotonic>,
        limits: Limits,
    ) -> Self {
        let explanation =
            Strategy::choose(provider.name(), &provider.capabilities(), provider.atomics().is_some());
        let parts = Arc::new(Parts { provider, instance, clock, monotonic, chance, limits });
        let protocol: Arc<dyn Protocol> = match explanation.strategy {
            Strategy::DistributedAtomic => Arc::new(atomic::Atomic::new(Arc::clone(&parts))),
            Strategy::DistributedBasic => Arc::new(merge::Merge::new(Arc::clone(&parts))),
            Strategy::LocalOnly => Arc::new(local::Local::new(Arc::clone(&parts))),
        };
        Self { protocol, explanation: Arc::new(explanation), space: prefix.space("coordination"), parts }
    }

    /// The same, with counts that nothing can falsify: each instance numbers its batches, and the backend has a part for each
    /// instance. A call whose answer was lost is repeated and counts once, where an addition by the server may have counted or not
    /// ([`Error::Unknown`]). It costs two exchanges in place of one, and counts made meanwhile travel together.
    ///
    /// Where the strategy is another one than `distributed_atomic` this is the same. Counts under one name are either merged or added: a
    /// handle from here does not see those of one from elsewhere.
    #[must_use]
    pub fn merged(&self) -> Self {
        if self.strategy() != Strategy::DistributedAtomic {
            return self.clone();
        }
        let explanation = Explanation {
            strategy: Strategy::DistributedBasic,
            why: "exact counts were asked for: the server's own additions may be lost or doubled with their answers",
            ..Explanation::clone(&self.explanation)
        };
        Self {
            protocol: Arc::new(merge::Merge::new(Arc::clone(&self.parts))),
            explanation: Arc::new(explanation),
            space: self.space.clone(),
            parts: Arc::clone(&self.parts),
        }
    }

    /// Which protocol is used.
    pub fn strategy(&self) -> Strategy {
        self.explanation.strategy
    }

    /// Which protocol is used, why, and what it was chosen from.
    pub fn explain(&self) -> &Explanation {
        &self.explanation
    }

    /// This process, as the others see it.
    pub fn instance(&self) -> &Instance {
        &self.parts.instance
    }

    /// The counter of that name.
    pub fn counter(&self, name: &str) -> Counter {
        Counter(self.shared("counter", name))
    }

    /// The gauge of that name.
    pub fn gauge(&self, name: &str) -> Gauge {
        Gauge(self.shared("gauge", name))
    }

    /// The histogram of that name. `bounds` are the inclusive upper ends of its buckets, rising; what is larger falls
    /// into one more. Every process must give the same: they are part of its key.
    pub fn histogram(&self, name: &str, bounds: &[u64]) -> Result<Histogram, Error> {
        if bounds.is_empty() || bounds.len() > BUCKETS_MAX || !bounds.is_sorted_by(|a, b| a < b) {
            return Err(Error::Invalid(format!("histogram {name:?} needs 1 to {BUCKETS_MAX} rising bounds")));
        }
        let shape: Vec<_> = bounds.iter().map(u64::to_string).collect();
        let shared = self.shared("histogram", &format!("{name}/{}", shape.join(",")));
        Ok(Histogram { shared, bounds: bounds.into() })
    }

    /// The tally of that name, of so many numbers: every process must give the same, it is part of its key.
    pub fn tally(&self, name: &str, numbers: usize) -> Result<Tally, Error> {
        if numbers == 0 || numbers > TALLY_MAX {
            return Err(Error::Invalid(format!("tally {name:?} needs 1 to {TALLY_MAX} numbers")));
        }
        Ok(Tally { shared: self.shared("tally", &format!("{name}/{numbers}")), numbers })
    }

    /// The lock of that name.
    pub fn lock(&self, name: &str) -> Lock {
        Lock(self.shared("lock", name))
    }

    fn shared(&self, kind: &'static str, text: &str) -> Shared {
        let strategy = self.explanation.strategy;
        let name = Name { text: text.into(), kind, space: self.space.clone(), strategy };
        Shared { protocol: Arc::clone(&self.protocol), name, parts: Arc::clone(&self.parts) }
    }
}

/// Buckets that a histogram may have.
pub const BUCKETS_MAX: usize = 64;
/// Numbers that a tally may have.
pub const TALLY_MAX: usize = 64;

/// A number that all raise and lower together.
#[derive(Debug, Clone)]
pub struct Counter(Shared);

impl Counter {
    /// Adds `delta`; answers the new total. Do not repeat it on an error: `distributed_atomic` may have counted it, and
    /// `distributed_basic` keeps it and sends it with the next one.
    pub async fn add(&self, delta: i64) -> Result<i64, Error> {
        Ok(self.0.add(&[delta]).await?.first().copied().unwrap_or_default())
    }

    /// The total.
    pub async fn total(&self) -> Result<i64, Error> {
        Ok(self.0.totals(1).await?.first().copied().unwrap_or_default())
    }
}

/// Several numbers that are counted together: one exchange carries them all.
#[derive(Debug, Clone)]
pub struct Tally {
    shared: Shared,
    numbers: usize,
}

impl Tally {
    /// Adds a number to each; those that are not given stay. On an error it is as with a counter: see [`Counter::add`].
    pub async fn add(&self, deltas: &[i64]) -> Result<Vec<i64>, Error> {
        let mut cells = vec![0; self.numbers];
        cells.iter_mut().zip(deltas).for_each(|(cell, delta)| *cell = *delta);
        self.shared.add(&cells).await
    }

    /// The totals.
    pub async fn totals(&self) -> Result<Vec<i64>, Error> {
        self.shared.totals(self.numbers).await
    }
}

/// A value that each instance has for itself, and that is read over all.
#[derive(Debug, Clone)]
pub struct Gauge(Shared);

impl Gauge {
    /// Sets this instance's value. Set it again before [`Limits::instance_expiry`] has passed, or it is dropped.
    pub async fn set(&self, value: i64) -> Result<(), Error> {
        self.0.in_time(self.0.protocol.set_gauge(&self.0.name, value)).await
    }

    /// The values of all instances that were heard of within [`Limits::instance_expiry`].
    pub async fn readings(&self) -> Result<Vec<Reading>, Error> {
        self.0.in_time(self.0.protocol.gauge(&self.0.name)).await
    }

    /// The sum over all instances.
    pub async fn sum(&self) -> Result<i64, Error> {
        Ok(self.readings().await?.iter().fold(0, |sum, reading| sum.saturating_add(reading.value)))
    }

    /// What was set last, by the instances' clocks, by whichever instance.
    pub async fn last(&self) -> Result<Option<Reading>, Error> {
        Ok(self
            .readings()
            .await?
            .into_iter()
            .max_by(|a, b| (a.at_us, &a.instance).cmp(&(b.at_us, &b.instance))))
    }
}

/// How often values of which size were seen, over all instances.
#[derive(Debug, Clone)]
pub struct Histogram {
    shared: Shared,
    bounds: Arc<[u64]>,
}

/// A histogram at one moment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Distribution {
    /// Values in each bucket; one more than there are bounds.
    pub buckets: Vec<u64>,
    /// Inclusive upper ends of all buckets but the last.
    pub bounds: Arc<[u64]>,
    /// Sum of all values.
    pub sum: u64,
}

impl Histogram {
    /// Takes note of these values. With none it sends what an earlier call could not, as a counter does that 0 is added to.
    pub async fn observe(&self, values: &[u64]) -> Result<(), Error> {
        let mut cells = vec![0_i64; self.cells()];
        for value in values {
            let bucket = self.bounds.partition_point(|bound| bound < value);
            for (cell, delta) in [(bucket, 1), (self.cells() - 1, i64::try_from(*value).unwrap_or(i64::MAX))]
            {
                if let Some(cell) = cells.get_mut(cell) {
                    *cell = cell.saturating_add(delta);
                }
            }
        }
        self.shared.add(&cells).await?;
        Ok(())
    }

    /// All that was seen.
    pub async fn read(&self) -> Result<Distribution, Error> {
        let cells = self.shared.totals(self.cells()).await?;
        let mut numbers = cells.into_iter().map(|cell| u64::try_from(cell).unwrap_or(0));
        let buckets = numbers.by_ref().take(self.cells() - 1).collect();
        Ok(Distribution { buckets, bounds: Arc::clone(&self.bounds), sum: numbers.next().unwrap_or(0) })
    }

    /// Buckets, the last of which has no bound, and the sum.
    fn cells(&self) -> usize {
        self.bounds.len() + 2
    }
}

impl Distribution {
    /// How many values there are.
    pub fn count(&self) -> u64 {
        self.buckets.iter().sum()
    }

    /// The bound of the bucket in which `share` (0 to 1) of all values is reached; `None` when it is beyond the last
    /// bound, or when there are no values.
    pub fn quantile_bound(&self, share: f64) -> Option<u64> {
        let count = self.count();
        let mut below = 0;
        for (bucket, bound) in self.buckets.iter().zip(self.bounds.iter()) {
            below += bucket;
            if count > 0 && share <= ratio(below, count) {
                return Some(*bound);
            }
        }
        None
    }
}

/// Exact up to 2^32.
fn ratio(part: u64, whole: u64) -> f64 {
    let number = |count: u64| f64::from(u32::try_from(count).unwrap_or(u32::MAX));
    number(part) / number(whole)
}

impl Parts {
    fn atomics(&self) -> Result<&dyn Atomics, Error> {
        let provider = self.provider.name();
        self.provider.atomics().ok_or_else(|| {
            provider::Error::Refused { provider, reason: "it has no atomics any more".to_owned() }.into()
        })
    }

    /// A call that changes something: without an answer it may have been done.
    async fn change<T>(&self, call: impl Future<Output = Result<T, provider::Error>>) -> Result<T, Error> {
        let provider = self.provider.name();
        match timeout(self.limits.call_timeout, call).await {
            Ok(Ok(answer)) => Ok(answer),
            // It was not sent, or it was refused.
            Ok(Err(error @ (provider::Error::CutOff { .. } | provider::Error::Refused { .. }))) => {
                Err(error.into())
            }
            Ok(Err(_)) | Err(_) => Err(Error::Unknown { provider }),
        }
    }

    /// A call that changes nothing.
    async fn read(&self, key: &Key) -> Result<Option<Bytes>, Error> {
        let limit = self.limits.call_timeout;
        match timeout(limit, self.atomics()?.read(key)).await {
            Ok(answer) => Ok(answer?),
            Err(_) => Err(provider::Error::Unavailable {
                provider: self.provider.name(),
                reason: format!("no answer within {limit:?}"),
            }
            .into()),
        }
    }

    async fn swap(
        &self,
        key: &Key,
        expected: Option<&[u8]>,
        new: Option<Bytes>,
        keep_for: Duration,
    ) -> Result<bool, Error> {
        self.change(self.atomics()?.compare_and_swap(key, expected, new, keep_for)).await
    }

    /// Lets others go first, longer each time and by a random part, so that two do not meet again and again.
    async fn step_back(&self, attempt: u32) {
        if attempt < 2 {
            tokio::task::yield_now().await;
            return;
        }
        let longest_us = 200_u64.saturating_mul(u64::from(attempt)).min(5_000);
        let part = self.chance.draw() % longest_us;
        tokio::time::sleep(Duration::from_micros(part)).await;
    }
}
