//! The latest results: of the last `n` calls, or of the last while in ten buckets.

use std::time::Duration;

use super::machine::Tick;

/// Buckets of a time window. The oldest leaves as a whole, so the window reaches back nine to ten tenths of its time.
const BUCKETS: u64 = 10;

/// One result.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Mark {
    pub(super) is_failure: bool,
    pub(super) is_slow: bool,
}

/// How many results there are, and of which kind.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Tally {
    pub(super) results: u64,
    pub(super) failures: u64,
    pub(super) slow: u64,
}

impl Tally {
    fn add(&mut self, mark: Mark) {
        self.results += 1;
        self.failures += u64::from(mark.is_failure);
        self.slow += u64::from(mark.is_slow);
    }

    fn subtract(&mut self, other: Self) {
        self.results -= other.results;
        self.failures -= other.failures;
        self.slow -= other.slow;
    }

    pub(super) fn is_clean(&self) -> bool {
        self.failures == 0 && self.slow == 0
    }
}

/// Results in the order in which they came.
#[derive(Debug)]
pub(super) enum Results {
    Calls(LastCalls),
    Time(LastWhile),
}

impl Results {
    pub(super) fn of_last_calls(count: u32) -> Self {
        let count = usize::try_from(count.max(1)).unwrap_or(usize::MAX);
        Self::Calls(LastCalls {
            marks: vec![Mark::default(); count].into(),
            next: 0,
            tally: Tally::default(),
        })
    }

    pub(super) fn of_last(while_: Duration, now: Tick) -> Self {
        let width_ns = (Tick::ZERO.after(while_).nanos() / BUCKETS).max(1);
        let buckets = std::iter::repeat_n(Tally::default(), buckets_len()).collect();
        Self::Time(LastWhile { buckets, width_ns, newest: now.nanos() / width_ns, tally: Tally::default() })
    }

    pub(super) fn add(&mut self, mark: Mark, now: Tick) {
        self.move_to(now);
        match self {
            Self::Calls(calls) => calls.add(mark),
            Self::Time(time) => time.add(mark, 1),
        }
    }

    /// Successes that came since the last change of this window and before anything that comes now.
    pub(super) fn add_successes(&mut self, count: u64) {
        match self {
            Self::Calls(calls) => calls.add_successes(count),
            Self::Time(time) => time.add(Mark::default(), count),
        }
    }

    /// Lets go of what is too old.
    pub(super) fn move_to(&mut self, now: Tick) {
        if let Self::Time(time) = self {
            time.move_to(now);
        }
    }

    pub(super) fn clear(&mut self) {
        match self {
            Self::Calls(calls) => {
                calls.marks.fill(Mark::default());
                calls.next = 0;
                calls.tally = Tally::default();
            }
            Self::Time(time) => {
                time.buckets.fill(Tally::default());
                time.tally = Tally::default();
            }
        }
    }

    pub(super) fn tally(&self) -> Tally {
        match self {
            Self::Calls(calls) => calls.tally,
            Self::Time(time) => time.tally,
        }
    }

    /// When time alone may change it next.
    pub(super) fn unchanged_until(&self) -> Tick {
        match self {
            Self::Calls(_) => Tick::NEVER,
            Self::Time(time) => Tick::from_nanos(time.newest.saturating_add(1).saturating_mul(time.width_ns)),
        }
    }

    /// The most results that it can hold, when that is bounded.
    pub(super) fn capacity(&self) -> Option<u64> {
        match self {
            Self::Calls(calls) => u64::try_from(calls.marks.len()).ok(),
            Self::Time(_) => None,
        }
    }
}

/// A ring. Places that hold no result are clean, so that [`add_successes`](Self::add_successes) may skip over them.
#[derive(Debug)]
pub(super) struct LastCalls {
    marks: Box<[Mark]>,
    next: usize,
    tally: Tally,
}

impl LastCalls {
    fn add(&mut self, mark: Mark) {
        let is_full = u64::try_from(self.marks.len()).is_ok_and(|len| self.tally.results == len);
        let len = self.marks.len();
        if let Some(place) = self.marks.get_mut(self.next) {
            let oldest = std::mem::replace(place, mark);
            if is_full {
                let mut gone = Tally::default();
                gone.add(oldest);
                self.tally.subtract(gone);
            }
            self.tally.add(mark);
            self.next = (self.next + 1) % len;
        }
    }

    fn add_successes(&mut self, count: u64) {
        let len = u64::try_from(self.marks.len()).unwrap_or(u64::MAX);
        if self.tally.is_clean() {
            self.tally.results = self.tally.results.saturating_add(count).min(len);
            let next = u64::try_from(self.next).unwrap_or(0) + count % len;
            self.next = usize::try_from(next % len).unwrap_or(0);
        } else {
            for _ in 0..count.min(len) {
                self.add(Mark::default());
            }
        }
    }
}

/// Sums per bucket. A bucket's place follows from its number, which follows from the time.
#[derive(Debug)]
pub(super) struct LastWhile {
    buckets: Box<[Tally]>,
    width_ns: u64,
    newest: u64,
    tally: Tally,
}

impl LastWhile {
    fn move_to(&mut self, now: Tick) {
        let number = now.nanos() / self.width_ns;
        for step in 1..=number.saturating_sub(self.newest).min(BUCKETS) {
            let place = place_of(self.newest + step);
            if let Some(bucket) = self.buckets.get_mut(place) {
                self.tally.subtract(std::mem::take(bucket));
            }
        }
        self.newest = self.newest.max(number);
    }

    fn add(&mut self, mark: Mark, count: u64) {
        if let Some(bucket) = self.buckets.get_mut(place_of(self.newest)) {
            for sums in [bucket, &mut self.tally] {
                sums.results += count;
                sums.failures += if mark.is_failure { count } else { 0 };
                sums.slow += if mark.is_slow { count } else { 0 };
            }
        }
    }
}

fn buckets_len() -> usize {
    usize::try_from(BUCKETS).unwrap_or(usize::MAX)
}

fn place_of(number: u64) -> usize {
    usize::try_from(number % BUCKETS).unwrap_or(0)
}
