//! What the cache counts. Relaxed atomics: a counter orders nothing, it is only read.

use std::sync::atomic::{AtomicU64, Ordering};

use serde::Serialize;

macro_rules! counters {
    ($($(#[$doc:meta])* $name:ident),* $(,)?) => {
        /// The counters since the cache was made. A snapshot: each number is right, together they may be a few calls apart.
        #[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
        #[non_exhaustive]
        pub struct Stats {
            $($(#[$doc])* pub $name: u64,)*
            /// Entries that the provider dropped for want of space; absent when it does not tell.
            pub evictions: Option<u64>,
        }

        #[derive(Debug, Default)]
        pub(crate) struct Counters {
            $(pub(crate) $name: Counter,)*
        }

        impl Counters {
            pub(crate) fn snapshot(&self, evictions: Option<u64>) -> Stats {
                Stats { $($name: self.$name.0.load(Ordering::Relaxed),)* evictions }
            }
        }
    };
}

counters! {
    /// Reads answered with a fresh entry, absent answers included.
    hits,
    /// Reads that found nothing to serve. Each read counts once, as hit, stale hit or miss.
    misses,
    /// Reads that found an entry past its freshness, still kept.
    stale_hits,
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
