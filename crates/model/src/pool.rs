//! How full a pool of connections is, and how many connections it should have.

use std::time::Duration;

/// A pool as it stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct PoolState {
    /// Connections that it may have.
    pub max: u32,
    /// Connections that it has.
    pub size: u32,
    /// Those that are in use.
    pub busy: u32,
    /// Callers who wait for one.
    pub waiting: u32,
}

/// How full it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Band {
    /// Less than half is in use.
    Low,
    /// Less than three quarters.
    Moderate,
    /// Less than nine tenths; or somebody waits.
    High,
    /// More; or as many wait as there are connections.
    Critical,
}

impl Band {
    /// All, from the emptiest.
    pub const ALL: [Self; 4] = [Self::Low, Self::Moderate, Self::High, Self::Critical];

    /// As it is shown: `low`.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Low => "low",
            Self::Moderate => "moderate",
            Self::High => "high",
            Self::Critical => "critical",
        }
    }
}

impl PoolState {
    /// The part that is in use, from 0 to 1.
    pub fn utilisation(&self) -> f64 {
        if self.max == 0 { 1.0 } else { (f64::from(self.busy) / f64::from(self.max)).min(1.0) }
    }

    /// How full it is.
    pub fn band(&self) -> Band {
        let by_use = match self.utilisation() {
            used if used < 0.5 => Band::Low,
            used if used < 0.75 => Band::Moderate,
            used if used < 0.9 => Band::High,
            _ => Band::Critical,
        };
        let by_wait = match self.waiting {
            0 => Band::Low,
            waiting if waiting < self.max.max(1) => Band::High,
            _ => Band::Critical,
        };
        by_use.max(by_wait)
    }
}

/// How a pool was used over some time.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct PoolUse {
    /// Connections that it may have.
    pub max: u32,
    /// Over how long.
    pub over: Duration,
    /// How often a connection was taken.
    pub taken: u64,
    /// How often who took one had to wait for it, for longer than a millisecond.
    pub waited: u64,
    /// How long connections were held, together.
    pub held: Duration,
    /// The most that were in use at once.
    pub busy_peak: u32,
}

/// What part of a pool should be in use on average: beyond it waits grow out of proportion.
const USE_WANTED: f64 = 0.7;
/// From so large a part of takers on that had to wait a pool is too small.
const WAITED_FROM: f64 = 0.01;
/// Fewer takings say nothing.
const TAKEN_MIN: u64 = 100;
/// No pool is advised to be smaller.
const ADVISED_MIN: u32 = 2;

/// How many connections a pool should have, and why.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Advice {
    /// So many.
    pub connections: u32,
    /// What was measured.
    pub why: String,
}

/// How large the pool should be; `None` where it is as it should be, or too little was seen. How many are in use on average is the
/// time that they were held by the time that has passed (Little 1961): it counts no more than the pool has, so a pool that was full is
/// advised to grow by steps.
pub fn advice(used: &PoolUse) -> Option<Advice> {
    let over_s = used.over.as_secs_f64();
    if used.taken < TAKEN_MIN || over_s <= 0.0 || used.max == 0 {
        return None;
    }
    let float = |count: u64| f64::from(u32::try_from(count).unwrap_or(u32::MAX));
    let busy_mean = used.held.as_secs_f64() / over_s;
    let waited = float(used.waited) / float(used.taken);
    let wanted = whole((busy_mean / USE_WANTED).ceil());
    if waited >= WAITED_FROM {
        // By a half, or by what is missing, whichever is more.
        let connections = wanted.max(used.max.saturating_add(used.max.div_ceil(2)));
        return Some(Advice {
            connections,
            why: format!(
                "{:.1} % of {} takings waited for a connection; {busy_mean:.1} of {} were in use on average",
                waited * 100.0,
                used.taken,
                used.max
            ),
        });
    }
    let enough = wanted.max(whole((f64::from(used.busy_peak) / USE_WANTED).ceil())).max(ADVISED_MIN);
    (enough.saturating_mul(2) <= used.max).then(|| Advice {
        connections: enough,
        why: format!(
            "nobody had to wait, and at most {} of {} were in use, {busy_mean:.1} on average",
            used.busy_peak, used.max
        ),
    })
}

/// A number that is not negative, as a whole one.
fn whole(value: f64) -> u32 {
    // No float becomes an integer without a cast; it is looked for.
    let (mut low, mut high) = (0_u32, u32::MAX);
    while low < high {
        let middle = u32::midpoint(low, high);
        if f64::from(middle) < value { low = middle + 1 } else { high = middle }
    }
    low
}

#[cfg(test)]
mod tests {
    use super::*;

    fn state(busy: u32, waiting: u32) -> Band {
        PoolState { max: 20, size: 20, busy, waiting }.band()
    }

    #[test]
    fn bands_follow_from_use_and_from_waits() {
        assert_eq!([0, 9, 10, 14, 15, 17, 18, 20].map(|busy| state(busy, 0)), {
            use Band::{Critical, High, Low, Moderate};
            [Low, Low, Moderate, Moderate, High, High, Critical, Critical]
        });
        assert_eq!((state(0, 1), state(20, 1), state(3, 20)), (Band::High, Band::Critical, Band::Critical));
        assert_eq!(PoolState::default().band(), Band::Critical, "no connection at all");
    }

    fn used(max: u32, taken: u64, waited: u64, held_s: u64, busy_peak: u32) -> PoolUse {
        let (over, held) = (Duration::from_secs(100), Duration::from_secs(held_s));
        PoolUse { max, over, taken, waited, held, busy_peak }
    }

    #[test]
    fn pool_in_which_takers_wait_is_advised_to_grow_and_one_that_rests_to_shrink() {
        let told = advice(&used(10, 1_000, 200, 980, 10)).unwrap();
        assert_eq!(told.connections, 15);
        assert_eq!(
            told.why,
            "20.0 % of 1000 takings waited for a connection; 9.8 of 10 were in use on average"
        );
        assert_eq!(advice(&used(4, 1_000, 11, 600, 4)).unwrap().connections, 9, "by what is missing");
        assert_eq!(advice(&used(20, 1_000, 0, 100, 4)).unwrap().connections, 6);
        assert_eq!(advice(&used(10, 1_000, 0, 300, 6)), None, "as it should be");
        assert_eq!(advice(&used(10, 99, 50, 980, 10)), None, "too little was seen");
        assert_eq!(advice(&used(3, 1_000, 0, 0, 1)), None, "never below two by half");
    }
}
