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
    /// Times that a whole key space was made unreachable because a removal or write could not be confirmed.
    spaces_retired,
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
}
