//! How often a caller may ask: a token bucket for each, as the instant at which its bucket would be full (GCRA).

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

/// Callers that have a bucket of their own; when there are more, those with full buckets are forgotten, which changes nothing for them.
const CALLERS_MAX: usize = 10_000;
/// How often full buckets are looked for, at most: a look goes through all of them.
const FORGET_EVERY: Duration = Duration::from_secs(1);

/// Buckets of callers.
#[derive(Debug)]
pub(crate) struct Rates {
    /// Between two requests, on average.
    interval: Duration,
    /// How far ahead of the average a caller may be.
    burst: Duration,
    buckets: Mutex<Buckets>,
}

#[derive(Debug, Default)]
struct Buckets {
    /// When the bucket of each will be full.
    of_each: HashMap<Arc<str>, Instant>,
    /// The one bucket of all callers that found no place for their own: they may be held back, and never go unlimited.
    of_others: Option<Instant>,
    forgot_at: Option<Instant>,
}

impl Rates {
    /// So many a second; twice as many in a burst.
    pub(crate) fn new(per_second: u32) -> Self {
        let interval = Duration::from_secs(1) / per_second.max(1);
        Self { interval, burst: Duration::from_secs(2), buckets: Mutex::default() }
    }

    /// Takes one request of this caller; or says after how long there is room for it.
    pub(crate) fn take(&self, caller: &Arc<str>, now: Instant) -> Result<(), Duration> {
        // A panic elsewhere cannot leave a map of instants half changed.
        let mut buckets = self.buckets.lock().unwrap_or_else(PoisonError::into_inner);
        let admit =
            |full: Option<Instant>| admit(now, full.unwrap_or(now).max(now), self.interval, self.burst);
        if let Some(full) = buckets.of_each.get_mut(caller) {
            *full = admit(Some(*full))?;
            return Ok(());
        }
        if buckets.has_place(now) {
            let next = admit(None)?;
            buckets.of_each.insert(Arc::clone(caller), next);
        } else {
            buckets.of_others = Some(admit(buckets.of_others)?);
        }
        Ok(())
    }
}

impl Buckets {
    /// Whether one more caller may have a bucket.
    fn has_place(&mut self, now: Instant) -> bool {
        let is_early = self.forgot_at.is_some_and(|forgot| now.duration_since(forgot) < FORGET_EVERY);
        if self.of_each.len() >= CALLERS_MAX && !is_early {
            self.of_each.retain(|_, full_at| *full_at > now);
            self.forgot_at = Some(now);
        }
        self.of_each.len() < CALLERS_MAX
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

    #[test]
    fn callers_beyond_those_that_have_buckets_share_one_and_are_not_looked_through_each_time() {
        let rates = Rates::new(10);
        let start = Instant::now();
        let nth = |number: usize| -> Arc<str> { number.to_string().into() };
        for number in 0..CALLERS_MAX {
            assert_eq!(rates.take(&nth(number), start), Ok(()));
        }
        for number in 0..20 {
            assert_eq!(rates.take(&nth(CALLERS_MAX + number), start), Ok(()));
        }
        let late = rates.take(&nth(CALLERS_MAX + 20), start);
        assert_eq!(late, Err(Duration::from_millis(100)), "it is one of those that share a bucket");
        assert_eq!(rates.take(&nth(3), start), Ok(()), "who has a bucket keeps it");
        let looked = rates.buckets.lock().unwrap().forgot_at;
        assert_eq!(looked, Some(start), "once for all of them");
        // All buckets are full again, and forgotten.
        let later = start + FORGET_EVERY;
        assert_eq!(rates.take(&nth(CALLERS_MAX + 21), later), Ok(()));
        assert_eq!(rates.buckets.lock().unwrap().of_each.len(), 1);
    }
}
