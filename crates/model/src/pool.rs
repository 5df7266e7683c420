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
        let by_use = band_of(self.utilisation());
        let by_wait = match self.waiting {
            0 => Band::Low,
            waiting if waiting < self.max.max(1) => Band::High,
            _ => Band::Critical,
        };
        by_use.max(by_wait)
    }
}

fn band_of(utilisation: f64) -> Band {
    match utilisation {
        used if used < 0.5 => Band::Low,
        used if used < 0.75 => Band::Moderate,
        used if used < 0.9 => Band::High,
        _ => Band::Critical,
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

fn float(count: u64) -> f64 {
    f64::from(u32::try_from(count).unwrap_or(u32::MAX))
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

/// The one writer of a database that can have no more, as it stands. It writes what waits in groups: that somebody waits while a
/// group is being written is how it works, that more wait than one group takes is not.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct WriterState {
    /// The part of the last seconds in which it wrote, from 0 to 1.
    pub utilisation: f64,
    /// Callers who wait until what they want is being written.
    pub waiting: u32,
    /// Callers that one group takes at most.
    pub group_max: u32,
}

impl WriterState {
    /// How full it is, in the words of a pool: `high` when more wait than one group takes, `critical` from two groups on.
    pub fn band(&self) -> Band {
        let group = self.group_max.max(1);
        let by_wait = match self.waiting {
            waiting if waiting <= group => Band::Low,
            waiting if waiting < group.saturating_mul(2) => Band::High,
            _ => Band::Critical,
        };
        band_of(self.utilisation).max(by_wait)
    }
}

/// How the one writer was used over some time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct WriterUse {
    /// Over how long.
    pub over: Duration,
    /// For how long of it a transaction was open.
    pub busy: Duration,
    /// Transactions.
    pub groups: u64,
    /// Calls that they carried.
    pub calls: u64,
    /// How long calls waited until they were begun, together.
    pub waited: Duration,
}

/// What to do about the one writer; `None` where it has time to spare, or too little was seen. It cannot be made more.
pub fn writer_advice(used: &WriterUse) -> Option<String> {
    let over_s = used.over.as_secs_f64();
    if used.calls < TAKEN_MIN || over_s <= 0.0 {
        return None;
    }
    let busy = used.busy.as_secs_f64() / over_s;
    let mean_ms = used.waited.as_secs_f64() * 1e3 / float(used.calls);
    (busy >= USE_WANTED).then(|| {
        format!(
            "the one writer wrote for {:.0} % of the time, {} calls in {} transactions, and calls waited for {mean_ms:.1} ms on \
             average: send more in one call, or move to PostgreSQL, which has many",
            busy.min(1.0) * 100.0,
            used.calls,
            used.groups
        )
    })
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

    #[test]
    fn writer_is_full_by_its_time_and_by_what_one_group_leaves_behind() {
        let writer = |utilisation, waiting| WriterState { utilisation, waiting, group_max: 128 }.band();
        assert_eq!([writer(0.2, 0), writer(0.2, 128), writer(0.2, 129), writer(0.2, 256)], {
            [Band::Low, Band::Low, Band::High, Band::Critical]
        });
        assert_eq!([writer(0.6, 3), writer(0.8, 3), writer(0.95, 0)], {
            [Band::Moderate, Band::High, Band::Critical]
        });
    }

    #[test]
    fn writer_without_time_to_spare_is_told_what_can_be_done() {
        let used = |busy_s, calls| WriterUse {
            over: Duration::from_secs(100),
            busy: Duration::from_secs(busy_s),
            groups: 100,
            calls,
            waited: Duration::from_secs(4),
        };
        let told = writer_advice(&used(85, 400)).unwrap();
        assert!(
            told.starts_with("the one writer wrote for 85 % of the time, 400 calls in 100 transactions"),
            "{told}"
        );
        assert!(told.contains("waited for 10.0 ms on average") && told.contains("PostgreSQL"), "{told}");
        assert_eq!((writer_advice(&used(69, 400)), writer_advice(&used(85, 99))), (None, None));
    }
}
