//! Events whose payload a publisher makes: how often it is asked, and how long they wait for it.

use std::time::Duration;

use super::whole_ms;
use crate::retry::{Backoff, RetryPolicy};

/// How long an event waits for its publisher, unless the engine is told otherwise. Then it is kept back.
pub const PUBLISHER_WAIT: Duration = Duration::from_hours(24);
/// How long a publisher may take for one payload, unless the engine is told otherwise.
pub const PUBLISHER_TIMEOUT: Duration = Duration::from_secs(30);

/// How often a publisher is asked for one payload and when: 12 times over about two hours, from a second to half an hour
/// apart.
pub fn publisher_policy() -> RetryPolicy {
    RetryPolicy {
        attempts_max: 12,
        backoff: Backoff::Exponential,
        base_ms: 1_000,
        cap_ms: whole_ms(Duration::from_mins(30)),
        jitter: 0.2,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tries_are_over_before_the_wait_is() {
        let policy = publisher_policy();
        let whole: Duration = (1..policy.attempts_max).map(|attempt| policy.delay(attempt, 0.0)).sum();
        assert!(whole > Duration::from_mins(30) && whole < PUBLISHER_WAIT, "{whole:?}");
    }
}
