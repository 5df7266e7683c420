//! How long things took, in fixed buckets: four to each doubling, so that a quantile is at most a quarter too high.

use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use serde::ser::SerializeStruct;
use serde::{Serialize, Serializer};

use super::Tier;

/// Buckets of a histogram: from below 1 µs to 67 s; the last one also holds all that took longer.
pub const BUCKETS: usize = 100;

/// Operations that are told apart. What is not listed is counted as the last one.
const OPERATIONS: [&str; 16] = [
    "get",
    "get_exactly",
    "get_many",
    "set",
    "set_many",
    "replace",
    "delete",
    "clear",
    "health",
    "take_lease",
    "fill",
    "release_lease",
    "read_epochs",
    "raise_epochs",
    "publish",
    "other",
];

/// Which bucket; the first four hold one microsecond each.
fn bucket_of(took: Duration) -> usize {
    let micros = u64::try_from(took.as_micros()).unwrap_or(u64::MAX);
    let Some(doublings) = micros.checked_ilog2().and_then(|log| log.checked_sub(2)) else {
        return usize::try_from(micros).unwrap_or(0);
    };
    // Between 4 and 7: the three highest bits.
    let quarter = usize::try_from(micros >> doublings).unwrap_or(4);
    let doublings = usize::try_from(doublings).unwrap_or(BUCKETS);
    (doublings * 4 + quarter).min(BUCKETS - 1)
}

/// All that is in the bucket took less than this.
fn bound_of(bucket: usize) -> Duration {
    let bucket = u32::try_from(bucket).unwrap_or(u32::MAX);
    let micros = match (bucket / 4).checked_sub(1) {
        None => u64::from(bucket) + 1,
        Some(doublings) => u64::from(bucket % 4 + 5).checked_shl(doublings).unwrap_or(u64::MAX),
    };
    Duration::from_micros(micros)
}

pub(crate) struct Histogram {
    buckets: [AtomicU64; BUCKETS],
    sum_us: AtomicU64,
}

impl Histogram {
    pub(crate) fn record(&self, took: Duration) {
        if let Some(bucket) = self.buckets.get(bucket_of(took)) {
            bucket.fetch_add(1, Ordering::Relaxed);
        }
        self.sum_us.fetch_add(u64::try_from(took.as_micros()).unwrap_or(u64::MAX), Ordering::Relaxed);
    }

    pub(super) fn snapshot(&self) -> Latency {
        Latency {
            buckets: self.buckets.iter().map(|bucket| bucket.load(Ordering::Relaxed)).collect(),
            sum: Duration::from_micros(self.sum_us.load(Ordering::Relaxed)),
        }
    }
}

impl Default for Histogram {
    fn default() -> Self {
        Self { buckets: std::array::from_fn(|_| AtomicU64::new(0)), sum_us: AtomicU64::new(0) }
    }
}

impl fmt::Debug for Histogram {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.snapshot().fmt(f)
    }
}

/// Times of calls, by tier and operation.
#[derive(Debug, Default)]
pub(crate) struct Times {
    near: [Histogram; OPERATIONS.len()],
    far: [Histogram; OPERATIONS.len()],
}

impl Times {
    pub(crate) fn record(&self, tier: Tier, operation: &str, took: Duration) {
        let place = OPERATIONS.iter().position(|known| *known == operation).unwrap_or(OPERATIONS.len() - 1);
        if let Some(histogram) = self.of(tier).get(place) {
            histogram.record(took);
        }
    }

    pub(super) fn snapshot(&self) -> Vec<CallTimes> {
        let times = |tier| {
            let all = OPERATIONS.into_iter().zip(self.of(tier));
            all.map(move |(operation, took)| CallTimes { tier, operation, took: took.snapshot() })
        };
        times(Tier::Near).chain(times(Tier::Far)).filter(|times| times.took.count() > 0).collect()
    }

    fn of(&self, tier: Tier) -> &[Histogram; OPERATIONS.len()] {
        match tier {
            Tier::Near => &self.near,
            Tier::Far => &self.far,
        }
    }
}

/// How long one operation took at one tier, failed calls included.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct CallTimes {
    /// The provider's tier.
    pub tier: Tier,
    /// `get`, `set_many`, …; `other` for what has no place of its own.
    pub operation: &'static str,
    /// How long it took.
    pub took: Latency,
}

/// A distribution of times, in fixed buckets. Shown as its count, mean and quantiles.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Latency {
    buckets: Vec<u64>,
    sum: Duration,
}

impl Latency {
    /// How many times were taken.
    pub fn count(&self) -> u64 {
        self.buckets.iter().sum()
    }

    /// All times together.
    pub fn sum(&self) -> Duration {
        self.sum
    }

    /// The mean; zero when there is none.
    pub fn mean(&self) -> Duration {
        u64::try_from(self.sum.as_micros())
            .ok()
            .and_then(|micros| micros.checked_div(self.count()))
            .map_or(Duration::ZERO, Duration::from_micros)
    }

    /// Not exceeded by `per_mille` of 1,000 times: at most a quarter above the truth, from 1 µs to 67 s. `None` when
    /// there is no time.
    pub fn quantile(&self, per_mille: u64) -> Option<Duration> {
        let count = self.count();
        let rank = (count.saturating_mul(per_mille.min(1_000))).div_ceil(1_000).max(1);
        let mut seen = 0;
        let bucket = self.buckets.iter().position(|bucket| {
            seen += bucket;
            seen >= rank
        });
        bucket.filter(|_| count > 0).map(bound_of)
    }

    /// Each bucket's bound, below which all its times lie, and how many they are; from the shortest on. The last one
    /// holds all longer times too.
    pub fn buckets(&self) -> impl Iterator<Item = (Duration, u64)> + '_ {
        self.buckets.iter().enumerate().map(|(bucket, count)| (bound_of(bucket), *count))
    }
}

impl fmt::Debug for Latency {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Latency({} times, mean {:?}, p99 {:?})", self.count(), self.mean(), self.quantile(990))
    }
}

impl Serialize for Latency {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let micros = |time: Duration| u64::try_from(time.as_micros()).unwrap_or(u64::MAX);
        let mut fields = serializer.serialize_struct("Latency", 5)?;
        fields.serialize_field("count", &self.count())?;
        fields.serialize_field("mean_us", &micros(self.mean()))?;
        fields.serialize_field("p50_us", &self.quantile(500).map(micros))?;
        fields.serialize_field("p99_us", &self.quantile(990).map(micros))?;
        fields.serialize_field("p999_us", &self.quantile(999).map(micros))?;
        fields.end()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_time_lies_in_its_bucket_and_buckets_are_narrow() {
        let mut previous = 0;
        for micros in (0..4_000).chain((12..26).flat_map(|power| (1_u64 << power) - 1..=(1 << power) + 1)) {
            let took = Duration::from_micros(micros);
            let bucket = bucket_of(took);
            assert!(bucket >= previous && took < bound_of(bucket), "{took:?} in bucket {bucket}");
            let at_least = bucket.checked_sub(1).map_or(Duration::ZERO, bound_of);
            assert!(took >= at_least, "{took:?} in bucket {bucket}, from {at_least:?}");
            if micros >= 4 {
                assert!(bound_of(bucket) * 4 <= at_least * 5, "bucket {bucket} is too wide");
            }
            previous = bucket;
        }
    }

    #[test]
    fn longest_times_go_to_the_last_bucket() {
        assert_eq!(bucket_of(Duration::from_secs(60)), BUCKETS - 1);
        assert_eq!(bucket_of(Duration::MAX), BUCKETS - 1);
        assert!((66..68).contains(&bound_of(BUCKETS - 1).as_secs()));
    }

    #[test]
    fn quantiles_and_mean() {
        let histogram = Histogram::default();
        assert_eq!(histogram.snapshot().quantile(500), None);
        assert_eq!(histogram.snapshot().mean(), Duration::ZERO);
        for micros in 1..=1_000 {
            histogram.record(Duration::from_micros(micros));
        }
        let latency = histogram.snapshot();
        assert_eq!(latency.count(), 1_000);
        assert_eq!(latency.mean(), Duration::from_micros(500));
        for (per_mille, truth) in [(0, 1), (500, 500), (990, 990), (999, 999), (1_000, 1_000)] {
            let found = u64::try_from(latency.quantile(per_mille).unwrap().as_micros()).unwrap();
            assert!((truth..=truth * 5 / 4 + 1).contains(&found), "{per_mille}: {found} for {truth}");
        }
    }

    #[test]
    fn times_are_kept_apart_by_tier_and_operation_and_unknown_ones_together() {
        let times = Times::default();
        for (tier, operation) in [
            (Tier::Far, "get"),
            (Tier::Near, "get"),
            (Tier::Far, "get"),
            (Tier::Far, "made up"),
            (Tier::Far, "too"),
        ] {
            times.record(tier, operation, Duration::from_millis(1));
        }
        let counted: Vec<_> =
            times.snapshot().iter().map(|times| (times.tier, times.operation, times.took.count())).collect();
        assert_eq!(counted, [(Tier::Near, "get", 1), (Tier::Far, "get", 2), (Tier::Far, "other", 2)]);
    }
}
