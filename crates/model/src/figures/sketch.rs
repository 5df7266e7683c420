//! A mergeable sketch of quantiles with a bounded relative error: DDSketch (C. Masson, J. E. Rim, H. K. Lee, PVLDB 12, 2019).
//!
//! Buckets grow by a constant factor, so that the middle of the bucket that holds a quantile is never further from it
//! than a fixed part. Merging adds buckets and loses nothing.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::{Deserialize, Serialize};

/// (1 + e) / (1 - e) for an error of e = 0.01.
const GROWTH: f64 = 1.01 / 0.99;

/// A distribution of durations.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Sketch {
    /// By the number of the bucket, how many. Bucket 0 holds what took less than a microsecond. Durations of up to 292,000 years
    /// fall into fewer than 2,300 buckets: that is the limit of its size.
    buckets: BTreeMap<u32, u64>,
}

impl Sketch {
    /// By which part a quantile that is told may be off from the true one.
    pub const ERROR: f64 = 0.01;

    /// Takes note of a duration.
    pub fn insert(&mut self, duration: Duration) {
        let micros = u64::try_from(duration.as_micros()).unwrap_or(u64::MAX);
        let count = self.buckets.entry(bucket(micros)).or_default();
        *count = count.saturating_add(1);
    }

    /// Takes note of all that `other` has seen.
    pub fn merge(&mut self, other: &Self) {
        for (bucket, count) in &other.buckets {
            let mine = self.buckets.entry(*bucket).or_default();
            *mine = mine.saturating_add(*count);
        }
    }

    /// How many durations were seen.
    pub fn count(&self) -> u64 {
        self.buckets.values().fold(0, |sum, count| sum.saturating_add(*count))
    }

    /// Whether none was.
    pub fn is_empty(&self) -> bool {
        self.buckets.is_empty()
    }

    /// The duration below or at which a part of all lies, from 0 to 1: the one of rank `ceil(part * count)`, off by at most
    /// [`Sketch::ERROR`] of it, or half a microsecond. `None` when nothing was seen.
    pub fn quantile(&self, part: f64) -> Option<Duration> {
        let count = self.count();
        if count == 0 || part.is_nan() {
            return None;
        }
        let wanted = super::float(count) * part.clamp(0.0, 1.0);
        let mut below = 0_u64;
        for (bucket, count) in &self.buckets {
            below = below.saturating_add(*count);
            // A hair's breadth, since the product is rounded.
            if super::float(below) >= wanted - 1e-6 {
                return Some(middle(*bucket));
            }
        }
        self.buckets.last_key_value().map(|(bucket, _)| middle(*bucket))
    }
}

/// Bucket `n` from 1 on holds what is above `GROWTH^(n-2)` and at most `GROWTH^(n-1)` microseconds.
fn bucket(micros: u64) -> u32 {
    if micros == 0 {
        return 0;
    }
    let exponent = (super::float(micros).ln() / GROWTH.ln()).ceil().max(0.0);
    // No float becomes an integer without a cast; it is looked for among the few that there are.
    let (mut low, mut high) = (0_u32, 4_096_u32);
    while low < high {
        let middle = u32::midpoint(low, high);
        if f64::from(middle) < exponent { low = middle + 1 } else { high = middle }
    }
    low + 1
}

/// The duration that is closest, by ratio, to all of a bucket.
fn middle(bucket: u32) -> Duration {
    let Some(exponent) = bucket.checked_sub(1) else { return Duration::ZERO };
    let micros = 2.0 * GROWTH.powf(f64::from(exponent)) / (GROWTH + 1.0);
    Duration::try_from_secs_f64(micros / 1e6).unwrap_or(Duration::MAX)
}
