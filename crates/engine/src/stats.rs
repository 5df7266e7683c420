//! What the engine counts, by itself and cheaply.

use std::sync::atomic::{AtomicU64, Ordering};

macro_rules! counters {
    ($($(#[$doc:meta])* $name:ident),* $(,)?) => {
        /// Counts since the engine started.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
        pub struct Stats {
            $($(#[$doc])* pub $name: u64,)*
        }

        #[derive(Debug, Default)]
        pub(crate) struct Counters {
            $(pub(crate) $name: AtomicU64,)*
        }

        impl Counters {
            pub(crate) fn read(&self) -> Stats {
                Stats { $($name: self.$name.load(Ordering::Relaxed),)* }
            }
        }
    };
}

counters! {
    /// Attempts that began.
    started,
    /// Attempts that ended well.
    completed,
    /// Steps that an earlier result served instead of a run.
    reused,
    /// Attempts that failed and run again.
    retried,
    /// Attempts that were put off by their handlers and do not count.
    snoozed,
    /// Jobs that failed for good here.
    failed,
    /// Attempts that were told to stop because their job was cancelled.
    cancelled,
    /// Builds that were told to stop because a newer version is wanted.
    superseded,
    /// Attempts whose job was taken away.
    lease_lost,
    /// Jobs that were handed back unstarted.
    released,
    /// Settlements that the store refused.
    refused,
    /// Handlers that panicked.
    panicked,
    /// Generations published.
    published,
    /// Items whose value a build computed.
    items_computed,
    /// Items that a build took over.
    items_reused,
    /// Items of new generations that were put into the cache before anybody asked for them.
    items_prefetched,
    /// Generations that were not fetched ahead, or not to their end, though that was asked for: the store could not be reached, or too many waited.
    prefetches_left_out,
    /// Values that only the cache had, and that a reader did not find there.
    items_gone,
    /// Touches that this process made for such values.
    views_touched_for_gone,
    /// Touches asked for.
    touches,
    /// Touches that shared another one's statement.
    touches_coalesced,
    /// Build jobs created.
    builds_created,
    /// Jobs of dead workers that were returned to the queue or failed here.
    swept,
    /// Jobs that schedules made here.
    scheduled,
    /// Batches whose end was noticed here.
    batches_ended,
    /// Batches whose kept counts were not those of their members. Anything but 0 deserves a look.
    batch_differences,
    /// Tracked jobs that failed here because nothing was heard of them.
    tracked_stale,
    /// Limits of time of steps and workflows that were found to have passed here.
    limits_passed,
    /// Attempts that were taken away here because they kept no checkpoint for too long.
    stalled,
    /// Payloads of events that publishers made here.
    payloads_made,
    /// Tries to make one that failed here and are made again.
    payload_failures,
    /// Events that were kept back here because their publishers made no good payload. Each deserves a look.
    payloads_refused,
    /// Events that were handed to those who asked for them here.
    events_routed,
    /// Deliveries of events that were made here.
    delivered,
    /// Tries to deliver that failed here and are made again.
    delivery_failures,
    /// Deliveries that were given up here. Each deserves a look.
    deliveries_dead,
    /// Jobs, workflows, dead letters, events and idempotency keys whose time was over and that were removed here.
    removed,
    /// Days of history that were made here.
    history_days_made,
    /// Days of history that were dropped as a whole here.
    history_days_dropped,
    /// Times that a day of history could not be made or dropped here, and was left for later.
    history_held_up,
    /// Not a count: days and other spans of history that have a part of their own, as this process saw it last while it led maintenance.
    history_parts,
    /// Not a count: the bytes of history that lie in none of them.
    history_outside_bytes,
    /// Workflows whose kept counts were not those of their steps. Anything but 0 deserves a look.
    count_differences,
    /// Calls to the store that failed and were tried again.
    store_errors,
}

pub(crate) fn add(counter: &AtomicU64, count: usize) {
    counter.fetch_add(u64::try_from(count).unwrap_or(u64::MAX), Ordering::Relaxed);
}

pub(crate) fn one(counter: &AtomicU64) {
    counter.fetch_add(1, Ordering::Relaxed);
}
