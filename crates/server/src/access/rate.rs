//! How often a caller may ask: a token bucket for each, as the instant at which its bucket would be full (GCRA).

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

/// Callers that are remembered; when there are more, those with full buckets are forgotten, which changes nothing for them.
const CALLERS_MAX: usize = 10_000;

/// Buckets of callers.
#[derive(Debug)]
pub(crate) struct Rates {
    /// Between two requests, on average.
    interval: Duration,
    /// How far ahead of the average a caller may be.
    burst: Duration,
    full_at: Mutex<HashMap<Arc<str>, Instant>>,
}

impl Rates {
    /// So many a second; twice as many in a burst.
    pub(crate) fn new(per_second: u32) -> Self {
        let interval = Duration::from_secs(1) / per_second.max(1);
        Self { interval, burst: Duration::from_secs(2), full_at: Mutex::default() }
    }

    /// Takes one request of this caller; or says after how long there is room for it.
    pub(crate) fn take(&self, caller: &Arc<str>, now: Instant) -> Result<(), Duration> {
        // A panic elsewhere cannot leave a map of instants half changed.
        let mut full_at = self.full_at.lock().unwrap_or_else(PoisonError::into_inner);
        if full_at.len() >= CALLERS_MAX && !full_at.contains_key(caller) {
            full_at.retain(|_, full_at| *full_at > now);
        }
        let full = full_at.get(caller).copied().unwrap_or(now).max(now);
        let next = admit(now, full, self.interval, self.burst)?;
        if full_at.len() < CALLERS_MAX || full_at.contains_key(caller) {
            full_at.insert(Arc::clone(caller), next);
        }
        Ok(())
    }
}

/// When the bucket will be full after one more request; or how long until it can be taken.
fn admit(now: Instant, full: Instant, interval: Duration, burst: Duration) -> Result<Instant, Duration> {
    let next = full + interval;
    let ahead = next.duration_since(now);
    match ahead.checked_sub(burst) {
        None | Some(Duration::ZERO) => Ok(next),
        Some(wait) => Err(wait),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn burst_is_twice_the_second_and_then_the_average_holds() {
        let rates = Rates::new(10);
        let (caller, other): (Arc<str>, Arc<str>) = ("a".into(), "b".into());
        let start = Instant::now();
        for _ in 0..20 {
            assert_eq!(rates.take(&caller, start), Ok(()));
        }
        let wait = rates.take(&caller, start).unwrap_err();
        assert_eq!(wait, Duration::from_millis(100));
        assert_eq!(rates.take(&other, start), Ok(()), "each caller has its own");
        assert_eq!(rates.take(&caller, start + wait), Ok(()));
        assert!(rates.take(&caller, start + wait).is_err());
    }
}
