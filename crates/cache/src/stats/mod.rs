//! What the cache counts. Relaxed atomics: a counter orders nothing, it is only read.
//!
//! Memory is fixed: reads are told apart by [`USAGES_MAX`] usages and two tiers, times by tier, operation and
//! [`BUCKETS`] buckets. A read costs no locked instruction, see `stats/stripes.rs`.

mod histogram;
mod reads;
mod stripes;

use std::sync::atomic::{AtomicU64, Ordering};

use serde::Serialize;

pub use self::histogram::{BUCKETS, CallTimes, Latency};
pub(crate) use self::histogram::{Histogram, Times};
pub(crate) use self::reads::{Read, Reads, UsageLabel};
pub use self::reads::{TierReads, USAGES_MAX, UsageReads};

/// Where an answer came from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Tier {
    /// Out of this process.
    Near,
    /// From a backend that processes share.
    Far,
}

impl Tier {
    /// For spans and metrics: `near`, `far`.
    pub fn name(self) -> &'static str {
        match self {
            Self::Near => "near",
            Self::Far => "far",
        }
    }
}

macro_rules! counters {
    ($($(#[$doc:meta])* $name:ident),* $(,)?) => {
        /// The counters since the cache was made. A snapshot: each number is right, together they may be a few calls apart.
        #[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
        #[non_exhaustive]
        pub struct Stats {
            /// Reads answered with a fresh entry, absent answers included.
            pub hits: u64,
            /// Reads that found nothing to serve. Each read counts once, as hit, stale hit or miss.
            pub misses: u64,
            /// Reads that found an entry past its freshness, still kept.
            pub stale_hits: u64,
            $($(#[$doc])* pub $name: u64,)*
            /// Entries that the provider dropped for want of space; absent when it does not tell.
            pub evictions: Option<u64>,
            /// The reads by usage and tier: those usages that were ever asked for, in the order in which they were.
            pub usages: Vec<UsageReads>,
            /// How long the provider's calls took, by tier and operation: those that were ever made. Reads that are
            /// answered out of this process without a wait are no calls.
            pub calls: Vec<CallTimes>,
            /// How long loaders took.
            pub load_times: Latency,
        }

        #[derive(Debug, Default)]
        pub(crate) struct Counters {
            pub(crate) reads: Reads,
            pub(crate) calls: Times,
            pub(crate) load_times: Histogram,
            $(pub(crate) $name: Counter,)*
        }

        impl Counters {
            pub(crate) fn snapshot(&self, evictions: Option<u64>) -> Stats {
                let usages = self.reads.snapshot();
                let sum = |count: fn(&UsageReads) -> u64| usages.iter().map(count).sum();
                Stats {
                    hits: sum(|reads| reads.near.hits + reads.far.hits),
                    misses: sum(|reads| reads.misses),
                    stale_hits: sum(|reads| reads.near.stale_hits + reads.far.stale_hits),
                    $($name: self.$name.0.load(Ordering::Relaxed),)*
                    evictions,
                    usages,
                    calls: self.calls.snapshot(),
                    load_times: self.load_times.snapshot(),
                }
            }
        }
    };
}

counters! {
    /// Loader runs begun.
    loads,
    /// Loader runs that returned an error.
    load_errors,
    /// Calls that waited for another caller's load and took its answer.
    coalesced,
    /// Loaded values that were not stored: invalidated, replaced while they were loaded, or too slow for their policy.
    fills_refused,
    /// Stored bytes that were not a value of the key and type asked for.
    decode_errors,
    /// Values that could not be written in their codec.
    encode_errors,
    /// Values beyond the provider's limit, not stored.
    too_large,
    /// Calls that the provider answered with an error, timeouts not included.
    provider_errors,
    /// Calls that the provider did not answer in time.
    timeouts,
    /// Keys whose epoch was raised because a removal or write could not be confirmed.
    keys_retired,
    /// Stale values that were served while somebody loads.
    stale_served,
    /// Stale values that were served because the load failed or was given up.
    stale_served_on_error,
    /// Loads that were given up because they took too long for their policy.
    load_timeouts,
    /// Loads begun in the background, to refresh what is stale or will be soon.
    refreshes,
    /// Loads that were spared because another process made the value.
    fleet_coalesced,
    /// Times that this process waited for another one's load.
    lease_waits,
    /// Times that all copies in this process were dropped, because a message about changes may have been missed.
    gaps,
    /// Invalidations that were checked afterwards, of those made here and those heard of.
    audits,
    /// Of these, how often a copy from before the invalidation was still found.
    audits_stale,
    /// The longest time, in microseconds, for which such a copy was found.
    audit_age_us_max,
}

#[derive(Debug, Default)]
pub(crate) struct Counter(AtomicU64);

impl Counter {
    pub(crate) fn add(&self, count: u64) {
        self.0.fetch_add(count, Ordering::Relaxed);
    }

    pub(crate) fn one(&self) {
        self.add(1);
    }

    /// For figures that are a maximum.
    pub(crate) fn at_least(&self, value: u64) {
        self.0.fetch_max(value, Ordering::Relaxed);
    }
}
