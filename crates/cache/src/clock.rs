//! Time, passed in. Whether a value is fresh is judged by a [`Clock`] and by nothing else, so a test moves time
//! instead of waiting for it.

use std::fmt;
use std::sync::LazyLock;
use std::sync::atomic::{AtomicI64, Ordering};
#[cfg(not(target_os = "linux"))]
use std::time::Instant;
use std::time::{Duration, SystemTime};

#[cfg(target_os = "linux")]
use rustix::time::{ClockId, Timespec, clock_getres, clock_gettime};

/// A moment, in microseconds since the Unix epoch; negative before it.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Timestamp(i64);

impl Timestamp {
    /// The earliest moment that can be told.
    pub const MIN: Self = Self(i64::MIN);
    /// The latest moment that can be told.
    pub const MAX: Self = Self(i64::MAX);

    /// The moment that lies `micros` microseconds after the epoch.
    pub const fn from_micros(micros: i64) -> Self {
        Self(micros)
    }

    /// Microseconds since the epoch.
    pub const fn as_micros(self) -> i64 {
        self.0
    }

    /// This moment and `duration` more; stops at [`Timestamp::MAX`].
    #[inline]
    pub fn saturating_add(self, duration: Duration) -> Self {
        Self(self.0.saturating_add(micros_of(duration)))
    }

    /// How long after `earlier` this moment lies; zero when it lies before.
    #[inline]
    pub fn saturating_since(self, earlier: Self) -> Duration {
        let micros = self.0.saturating_sub(earlier.0);
        Duration::from_micros(u64::try_from(micros).unwrap_or(0))
    }
}

impl fmt::Debug for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}us", self.0)
    }
}

/// Whole microseconds of a duration, at most `i64::MAX`.
fn micros_of(duration: Duration) -> i64 {
    i64::try_from(duration.as_micros()).unwrap_or(i64::MAX)
}

/// Who tells the time. It should not run backwards; when it does, values may be called stale early, and none is called
/// fresh for longer than the step and [`CLOCK_SKEW_MAX`](crate::envelope::CLOCK_SKEW_MAX) allow.
pub trait Clock: fmt::Debug + Send + Sync + 'static {
    /// The present moment.
    fn now(&self) -> Timestamp;

    /// Time since some fixed moment. Never goes back, whatever is done to the wall clock: what must not outlive a
    /// silence is judged by it.
    fn elapsed(&self) -> Duration;

    /// About the present moment, for whoever asks at every hit whether something is over. Cheaper than
    /// [`now`](Clock::now) where the clock has something cheaper: then up to [`COARSE_STEP_MAX`] ahead of the present,
    /// so that an end comes a little early rather than late. On a machine that is held up it may also lag, by as much as
    /// the machine was held up.
    fn now_coarse(&self) -> Timestamp {
        self.now()
    }

    /// [`elapsed`](Clock::elapsed) likewise.
    fn elapsed_coarse(&self) -> Duration {
        self.elapsed()
    }
}

/// How far [`Clock::now_coarse`] may be ahead: 20 ms, two ticks of the slowest kernels.
pub const COARSE_STEP_MAX: Duration = Duration::from_millis(20);

/// The clock of the operating system.
#[derive(Debug, Clone, Copy, Default)]
pub struct SystemClock;

impl Clock for SystemClock {
    #[expect(clippy::disallowed_methods, reason = "the one home of the system's time in this crate")]
    fn now(&self) -> Timestamp {
        match SystemTime::now().duration_since(SystemTime::UNIX_EPOCH) {
            Ok(since) => Timestamp(micros_of(since)),
            Err(before) => Timestamp(-micros_of(before.duration())),
        }
    }

    #[cfg(target_os = "linux")]
    fn elapsed(&self) -> Duration {
        let micros = micros_of_spec(clock_gettime(ClockId::Monotonic));
        Duration::from_micros(u64::try_from(micros).unwrap_or(0))
    }

    #[cfg(not(target_os = "linux"))]
    #[expect(clippy::disallowed_methods, reason = "the one home of the system's time in this crate")]
    fn elapsed(&self) -> Duration {
        static BEGAN: LazyLock<Instant> = LazyLock::new(Instant::now);
        BEGAN.elapsed()
    }

    /// Linux keeps the time of its last tick where a process can read it: a quarter of what reading the clock costs
    /// (7 against 29 ns). It counts whole ticks only, so it may lag by nearly two of them (5.8 ms of 4 ms measured):
    /// these are added.
    #[cfg(target_os = "linux")]
    fn now_coarse(&self) -> Timestamp {
        static LAG_US: LazyLock<i64> =
            LazyLock::new(|| micros_of_spec(clock_getres(ClockId::RealtimeCoarse)).saturating_mul(2));
        Timestamp(micros_of_spec(clock_gettime(ClockId::RealtimeCoarse)).saturating_add(*LAG_US))
    }

    #[cfg(target_os = "linux")]
    fn elapsed_coarse(&self) -> Duration {
        static LAG_US: LazyLock<i64> =
            LazyLock::new(|| micros_of_spec(clock_getres(ClockId::MonotonicCoarse)).saturating_mul(2));
        let micros = micros_of_spec(clock_gettime(ClockId::MonotonicCoarse)).saturating_add(*LAG_US);
        Duration::from_micros(u64::try_from(micros).unwrap_or(0))
    }
}

#[cfg(target_os = "linux")]
fn micros_of_spec(time: Timespec) -> i64 {
    time.tv_sec.saturating_mul(1_000_000).saturating_add(time.tv_nsec / 1_000)
}

/// A clock that stands still until it is moved. For tests, also for those of code that uses this crate.
#[derive(Debug, Default)]
pub struct ManualClock(AtomicI64);

impl ManualClock {
    /// A clock that stands at `now`.
    pub fn new(now: Timestamp) -> Self {
        Self(AtomicI64::new(now.0))
    }

    /// Moves the clock forward.
    pub fn advance(&self, by: Duration) {
        self.set(self.now().saturating_add(by));
    }

    /// Puts the clock to `now`, which may lie in its past.
    pub fn set(&self, now: Timestamp) {
        self.0.store(now.0, Ordering::SeqCst);
    }
}

impl Clock for ManualClock {
    fn now(&self) -> Timestamp {
        Timestamp(self.0.load(Ordering::SeqCst))
    }

    fn elapsed(&self) -> Duration {
        self.now().saturating_since(Timestamp(0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn manual_clock_moves_only_when_told() {
        let clock = ManualClock::new(Timestamp::from_micros(5));
        assert_eq!(clock.now(), clock.now());
        clock.advance(Duration::from_secs(1));
        assert_eq!(clock.now().as_micros(), 1_000_005);
        clock.set(Timestamp::from_micros(-7));
        assert_eq!(clock.now().as_micros(), -7);
    }

    #[test]
    fn timestamps_stop_at_their_ends() {
        assert_eq!(Timestamp::MAX.saturating_add(Duration::MAX), Timestamp::MAX);
        assert_eq!(Timestamp::MIN.saturating_since(Timestamp::MAX), Duration::ZERO);
        assert_eq!(
            Timestamp::from_micros(9).saturating_since(Timestamp::from_micros(4)),
            Duration::from_micros(5)
        );
    }

    /// A machine that is given no time for a while gets its ticks late; so only most looks can be held to the step.
    #[test]
    fn coarse_time_is_mostly_not_behind_and_hardly_ahead() {
        const LOOKS: usize = 100_000;
        let off = |_: &usize| {
            let before = SystemClock.now();
            let coarse = SystemClock.now_coarse();
            let after = SystemClock.now();
            assert!(before.saturating_since(coarse) < Duration::from_secs(1));
            coarse < before || coarse.saturating_since(after) > COARSE_STEP_MAX
        };
        let count = (0..LOOKS).filter(off).count();
        assert!(count < LOOKS / 4, "{count} of {LOOKS} looks were off");
    }

    #[test]
    fn manual_clock_has_one_time_only() {
        let clock = ManualClock::new(Timestamp::from_micros(5));
        assert_eq!(clock.now_coarse(), clock.now());
    }

    #[test]
    fn system_clock_is_past_the_year_2020() {
        assert!(SystemClock.now() > Timestamp::from_micros(1_577_836_800_000_000));
    }
}
