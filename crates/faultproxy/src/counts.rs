//! What was done.

use std::sync::atomic::{AtomicU64, Ordering};

macro_rules! counts {
    ($($(#[$doc:meta])* $name:ident),* $(,)?) => {
        /// What a proxy has done since it began. Attempts that were refused or ignored never reach it and are not counted.
        #[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
        pub struct Counts {
            $($(#[$doc])* pub $name: u64,)*
        }

        #[derive(Debug, Default)]
        pub(crate) struct Counters {
            $(pub(crate) $name: Counter,)*
        }

        impl Counters {
            pub(crate) fn snapshot(&self) -> Counts {
                Counts { $($name: self.$name.0.load(Ordering::Relaxed),)* }
            }
        }
    };
}

counts! {
    /// Connections that were accepted.
    connections,
    /// Of them, how many were reset at once.
    turned_away,
    /// Of them, how many were left hanging at first.
    hung,
    /// Of them, how many could not be connected to the server, and were reset.
    unconnected,
    /// Connections that the test ended.
    ended,
    /// Connections that were cut where the plan says.
    cuts,
    /// Bytes forwarded to the server.
    bytes_to_server,
    /// Bytes forwarded to clients.
    bytes_to_client,
    /// Slices forwarded, in both directions.
    slices,
    /// Bytes that arrived while they were held.
    held_bytes,
    /// Bytes that vanished.
    swallowed_bytes,
    /// Bytes that were given a delay.
    delayed_bytes,
    /// Bits that were flipped.
    flipped_bits,
}

#[derive(Debug, Default)]
pub(crate) struct Counter(AtomicU64);

impl Counter {
    pub(crate) fn one(&self) {
        self.add(1);
    }

    pub(crate) fn add(&self, count: u64) {
        self.0.fetch_add(count, Ordering::Relaxed);
    }
}

/// A length as a count.
pub(crate) fn count(length: usize) -> u64 {
    u64::try_from(length).unwrap_or(u64::MAX)
}
