//! Chance, where it only has to differ from process to process: pauses and incarnations.

use std::time::Duration;

use uuid::Uuid;

/// Any number but 0.
pub(super) fn number() -> u64 {
    let (high, low) = Uuid::new_v4().as_u64_pair();
    // Six bits of a UUID are fixed; none of the sum is.
    high.rotate_left(32).wrapping_add(low).max(1)
}

/// From nothing up to `limit`.
pub(super) fn below(limit: Duration) -> Duration {
    let nanos = u64::try_from(limit.as_nanos()).unwrap_or(u64::MAX);
    Duration::from_nanos(number() % nanos.max(1))
}
