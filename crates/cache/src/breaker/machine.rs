//! The rules of the breaker: what each call, each result and the passing of time change. Pure: time is passed in, and
//! what changed is left in [`Machine::take_transitions`] for who acts on it.

use std::time::Duration;

use super::window::{Mark, Results};

/// A moment of a monotonic clock, in nanoseconds since an origin of its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Tick(u64);

impl Tick {
    /// The origin.
    pub const ZERO: Self = Self(0);
    /// Later than any moment: 584 years after the origin.
    pub const NEVER: Self = Self(u64::MAX);

    /// So many nanoseconds after the origin.
    pub const fn from_nanos(nanos: u64) -> Self {
        Self(nanos)
    }

    /// Nanoseconds since the origin.
    pub const fn nanos(self) -> u64 {
        self.0
    }

    /// The moment that lies `duration` later; stops at [`Tick::NEVER`].
    #[must_use]
    pub fn after(self, duration: Duration) -> Self {
        Self(self.0.saturating_add(u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)))
    }

    /// How long after `earlier` it lies; zero when it lies before.
    #[must_use]
    pub fn since(self, earlier: Self) -> Duration {
        Duration::from_nanos(self.0.saturating_sub(earlier.0))
    }
}

/// When the breaker opens and how it closes again. Zeros where at least one is needed count as one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settings {
    /// Whether it does anything. Default true.
    pub is_enabled: bool,
    /// Failures in a row that open it. Default 5.
    pub failure_threshold: u32,
    /// Which results the rates are taken from. Default: the last 100 calls.
    pub window: Window,
    /// Results that there must be before a rate opens it; more than a window of calls can hold counts as all that it
    /// can. Default 20.
    pub min_calls: u32,
    /// Share of failed calls that opens it, in percent, inclusive. Default 50.
    pub failure_rate_percent: u32,
    /// Share of slow calls that opens it, in percent, inclusive. Default 80.
    pub slow_rate_percent: u32,
    /// A call that took longer is slow. Default 25 ms.
    pub slow_after: Duration,
    /// How long it stays open. Default 15 s.
    pub open_for: Duration,
    /// By what that time is multiplied with each reopening; 1 leaves it as it is. Closing sets it back. Default 1.
    pub backoff_factor: u32,
    /// It never stays open for longer, unless `open_for` itself is longer. Default 5 min.
    pub open_for_max: Duration,
    /// Calls that a trial admits, and that must succeed for it to close. Default 2.
    pub permits: u32,
    /// How long after the last admission of a trial its calls may be undecided. Default 5 s; never zero.
    pub half_open_max_wait: Duration,
}

/// Which results a breaker judges by.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Window {
    /// Those of the last calls.
    Calls(u32),
    /// Those of the last while, in buckets of a tenth.
    Time(Duration),
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            is_enabled: true,
            failure_threshold: 5,
            window: Window::Calls(100),
            min_calls: 20,
            failure_rate_percent: 50,
            slow_rate_percent: 80,
            slow_after: Duration::from_millis(25),
            open_for: Duration::from_secs(15),
            backoff_factor: 1,
            open_for_max: Duration::from_mins(5),
            permits: 2,
            half_open_max_wait: Duration::from_secs(5),
        }
    }
}

/// How a call ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// It was answered. A miss is an answer.
    Succeeded,
    /// It failed, and that tells of what was called.
    Failed,
    /// It was turned down for what it was: a key or value that is not taken. Tells nothing, unless it was slow.
    Refused,
    /// Its caller no longer waited. Tells nothing, unless it was slow by then: that is a failure.
    GivenUp,
}

/// What a breaker does at present.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Phase {
    /// Admits and watches.
    Closed,
    /// Refuses until its time is up.
    Open,
    /// Admits a few to find out.
    HalfOpen,
    /// Refuses until it is reset.
    ForcedOpen,
    /// Admits, and watches nothing, until it is reset.
    Disabled,
}

impl Phase {
    /// For logs, metrics and errors: `half-open`.
    pub fn name(self) -> &'static str {
        match self {
            Self::Closed => "closed",
            Self::Open => "open",
            Self::HalfOpen => "half-open",
            Self::ForcedOpen => "forced open",
            Self::Disabled => "disabled",
        }
    }
}

/// Why it changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reason {
    /// So many failures in a row as open it.
    FailuresInARow,
    /// The share of failed calls reached its threshold.
    FailureRate,
    /// The share of slow calls reached its threshold.
    SlowRate,
    /// Its time was up, and a call came.
    TimeIsUp,
    /// A call of the trial failed.
    ProbeFailed,
    /// A call of the trial was slow.
    ProbeSlow,
    /// A call of the trial did not end in time.
    ProbesUndecided,
    /// All calls of the trial succeeded.
    ProbesSucceeded,
    /// Somebody said so.
    Told,
}

impl Reason {
    /// For logs: `failure_rate`.
    pub fn name(self) -> &'static str {
        match self {
            Self::FailuresInARow => "failures_in_a_row",
            Self::FailureRate => "failure_rate",
            Self::SlowRate => "slow_rate",
            Self::TimeIsUp => "time_is_up",
            Self::ProbeFailed => "probe_failed",
            Self::ProbeSlow => "probe_slow",
            Self::ProbesUndecided => "probes_undecided",
            Self::ProbesSucceeded => "probes_succeeded",
            Self::Told => "told",
        }
    }
}

/// One change of phase.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Transition {
    /// From what.
    pub from: Phase,
    /// To what.
    pub to: Phase,
    /// Why.
    pub reason: Reason,
    /// When.
    pub at: Tick,
    /// How long it will refuse, when it opened.
    pub open_for: Option<Duration>,
}

/// A breaker at one moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Report {
    /// What it does.
    pub phase: Phase,
    /// For how long already.
    pub since: Duration,
    /// In how long a call may be admitted again; present only while it is open.
    pub next_probe_in: Option<Duration>,
    /// Results in the window.
    pub results: u64,
    /// Failed ones among them.
    pub failures: u64,
    /// Slow ones among them.
    pub slow: u64,
    /// Failures since the last success.
    pub failures_in_a_row: u32,
    /// Times that it opened.
    pub opened: u64,
    /// Calls that it refused.
    pub refused: u64,
}

impl Report {
    /// Failed calls in the window per call, 0 to 1; 0 when there are none.
    pub fn failure_rate(&self) -> f64 {
        share(self.failures, self.results)
    }

    /// Slow calls in the window per call, 0 to 1; 0 when there are none.
    pub fn slow_rate(&self) -> f64 {
        share(self.slow, self.results)
    }
}

/// Of the part in the whole; exact up to 2^32 results.
fn share(part: u64, whole: u64) -> f64 {
    let number = |count: u64| f64::from(u32::try_from(count).unwrap_or(u32::MAX));
    if whole == 0 { 0.0 } else { number(part) / number(whole) }
}

#[derive(Debug, Clone, Copy)]
enum State {
    Closed,
    Open { until: Tick },
    HalfOpen { out: u32, succeeded: u32, last_admission: Tick },
    ForcedOpen,
    Disabled,
}

#[derive(Debug)]
pub(super) struct Machine {
    settings: Settings,
    state: State,
    era: u64,
    since: Tick,
    /// The latest moment that it was told of: time never runs backwards here, whatever callers pass in.
    latest: Tick,
    results: Results,
    failures_in_a_row: u32,
    reopenings: u32,
    opened: u64,
    transitions: Vec<Transition>,
}

impl Machine {
    pub(super) fn new(settings: Settings, now: Tick) -> Self {
        let results = match settings.window {
            Window::Calls(count) => Results::of_last_calls(count),
            Window::Time(while_) => Results::of_last(while_, now),
        };
        let state = if settings.is_enabled { State::Closed } else { State::Disabled };
        Self {
            settings,
            state,
            era: 0,
            since: now,
            latest: now,
            results,
            failures_in_a_row: 0,
            reopenings: 0,
            opened: 0,
            transitions: Vec::new(),
        }
    }

    pub(super) fn phase(&self) -> Phase {
        match self.state {
            State::Closed => Phase::Closed,
            State::Open { .. } => Phase::Open,
            State::HalfOpen { .. } => Phase::HalfOpen,
            State::ForcedOpen => Phase::ForcedOpen,
            State::Disabled => Phase::Disabled,
        }
    }

    pub(super) fn era(&self) -> u64 {
        self.era
    }

    /// Until when every call is refused, while it is open.
    pub(super) fn open_until(&self) -> Option<Tick> {
        match self.state {
            State::Open { until } => Some(until),
            _ => None,
        }
    }

    /// Until when quick successes change nothing but the count of results, so that they may be told later, all at
    /// once, by [`add_successes`](Self::add_successes). They could open it only by making up `min_calls`, or by coming
    /// after others have become too old; the latter may be so already, since only a result opens it, not time.
    pub(super) fn successes_may_wait_until(&self) -> Option<Tick> {
        let tally = self.results.tally();
        let may_wait =
            tally.is_clean() || (tally.results >= self.min_calls() && self.reason_to_open().is_none());
        (may_wait && matches!(self.state, State::Closed)).then(|| self.results.unchanged_until())
    }

    /// Whether a quick success, now or at any time, leaves everything as it is: the window is full of such.
    pub(super) fn successes_change_nothing(&self) -> bool {
        let tally = self.results.tally();
        matches!(self.state, State::Closed)
            && tally.is_clean()
            && Some(tally.results) == self.results.capacity()
    }

    /// The most results that the window can hold, when that is bounded.
    pub(super) fn results_max(&self) -> Option<u64> {
        self.results.capacity()
    }

    pub(super) fn add_successes(&mut self, count: u64) {
        self.results.add_successes(count);
        self.failures_in_a_row = 0;
    }

    /// Asks for admission of one call; the answer is the era in which it was admitted.
    pub(super) fn admit(&mut self, now: Tick) -> Result<u64, Phase> {
        let now = self.look(now);
        if let State::Open { until } = self.state
            && now >= until
        {
            self.change(State::HalfOpen { out: 0, succeeded: 0, last_admission: now }, Reason::TimeIsUp, now);
        }
        let permits = self.settings.permits.max(1);
        match &mut self.state {
            State::Closed | State::Disabled => Ok(self.era),
            State::HalfOpen { out, succeeded, last_admission } if *out + *succeeded < permits => {
                *out += 1;
                *last_admission = now;
                Ok(self.era)
            }
            State::Open { .. } | State::HalfOpen { .. } | State::ForcedOpen => Err(self.phase()),
        }
    }

    /// Takes note of how a call ended that was admitted in `era`.
    pub(super) fn settle(&mut self, era: u64, outcome: Outcome, took: Duration, now: Tick) {
        let now = self.look(now);
        if era != self.era {
            return;
        }
        let mark = self.judge(outcome, took);
        match self.state {
            State::Closed => {
                if let Some(mark) = mark {
                    self.watch(mark, now);
                }
            }
            State::HalfOpen { out, succeeded, last_admission } => {
                let out = out.saturating_sub(1);
                let succeeded = match mark {
                    Some(mark) if mark.is_failure => return self.open(Reason::ProbeFailed, now),
                    Some(mark) if mark.is_slow => return self.open(Reason::ProbeSlow, now),
                    Some(_) => succeeded + 1,
                    None => succeeded,
                };
                if succeeded >= self.settings.permits.max(1) {
                    self.reopenings = 0;
                    self.change(State::Closed, Reason::ProbesSucceeded, now);
                } else {
                    self.state = State::HalfOpen { out, succeeded, last_admission };
                }
            }
            State::Open { .. } | State::ForcedOpen | State::Disabled => {}
        }
    }

    /// Lets time pass: reopens when a trial took too long. Answers the present moment, never before an earlier one.
    pub(super) fn look(&mut self, now: Tick) -> Tick {
        self.latest = self.latest.max(now);
        if let State::HalfOpen { out, last_admission, .. } = self.state {
            let deadline =
                last_admission.after(self.settings.half_open_max_wait.max(Duration::from_nanos(1)));
            if out > 0 && self.latest >= deadline {
                // As of the deadline, not of the call that happens to find out: the wait has a bound.
                self.open(Reason::ProbesUndecided, deadline);
            }
        }
        self.latest
    }

    pub(super) fn force_open(&mut self, now: Tick) {
        let now = self.look(now);
        self.change(State::ForcedOpen, Reason::Told, now);
    }

    pub(super) fn disable(&mut self, now: Tick) {
        let now = self.look(now);
        self.change(State::Disabled, Reason::Told, now);
    }

    /// Closed, with nothing remembered.
    pub(super) fn reset(&mut self, now: Tick) {
        let now = self.look(now);
        self.reopenings = 0;
        self.change(State::Closed, Reason::Told, now);
    }

    pub(super) fn report(&mut self, now: Tick) -> Report {
        let now = self.look(now);
        self.results.move_to(now);
        let tally = self.results.tally();
        Report {
            phase: self.phase(),
            since: now.since(self.since),
            next_probe_in: self.open_until().map(|until| until.since(now)),
            results: tally.results,
            failures: tally.failures,
            slow: tally.slow,
            failures_in_a_row: self.failures_in_a_row,
            opened: self.opened,
            refused: 0,
        }
    }

    /// What changed since this was asked last.
    pub(super) fn take_transitions(&mut self) -> Vec<Transition> {
        std::mem::take(&mut self.transitions)
    }

    /// What a result says of what was called; `None` when it says nothing.
    fn judge(&self, outcome: Outcome, took: Duration) -> Option<Mark> {
        let is_slow = took > self.settings.slow_after;
        match outcome {
            Outcome::Succeeded => Some(Mark { is_failure: false, is_slow }),
            Outcome::Failed => Some(Mark { is_failure: true, is_slow }),
            Outcome::Refused => is_slow.then_some(Mark { is_failure: false, is_slow }),
            Outcome::GivenUp => is_slow.then_some(Mark { is_failure: true, is_slow }),
        }
    }

    fn watch(&mut self, mark: Mark, now: Tick) {
        self.results.add(mark, now);
        self.failures_in_a_row = if mark.is_failure { self.failures_in_a_row.saturating_add(1) } else { 0 };
        if let Some(reason) = self.reason_to_open() {
            self.open(reason, now);
        }
    }

    fn reason_to_open(&self) -> Option<Reason> {
        if self.failures_in_a_row >= self.settings.failure_threshold.max(1) {
            return Some(Reason::FailuresInARow);
        }
        let tally = self.results.tally();
        let reaches = |count: u64, percent: u32| count * 100 >= u64::from(percent.max(1)) * tally.results;
        if tally.results < self.min_calls() {
            None
        } else if reaches(tally.failures, self.settings.failure_rate_percent) {
            Some(Reason::FailureRate)
        } else if reaches(tally.slow, self.settings.slow_rate_percent) {
            Some(Reason::SlowRate)
        } else {
            None
        }
    }

    fn min_calls(&self) -> u64 {
        let min_calls = u64::from(self.settings.min_calls.max(1));
        self.results.capacity().map_or(min_calls, |capacity| min_calls.min(capacity))
    }

    fn open(&mut self, reason: Reason, now: Tick) {
        if matches!(self.state, State::HalfOpen { .. }) {
            self.reopenings = self.reopenings.saturating_add(1);
        }
        let until = now.after(self.open_for());
        self.change(State::Open { until }, reason, now);
    }

    fn open_for(&self) -> Duration {
        let Settings { open_for, backoff_factor, open_for_max, .. } = self.settings;
        let factor = backoff_factor.max(1).saturating_pow(self.reopenings);
        open_for.saturating_mul(factor).min(open_for_max.max(open_for))
    }

    /// Begins a new era with an empty window.
    fn change(&mut self, state: State, reason: Reason, at: Tick) {
        let from = self.phase();
        self.state = state;
        self.era = self.era.wrapping_add(1);
        self.results.move_to(at);
        self.results.clear();
        self.failures_in_a_row = 0;
        let to = self.phase();
        if from == to {
            return;
        }
        self.since = at;
        if matches!(to, Phase::Open | Phase::ForcedOpen) {
            self.opened += 1;
        }
        let open_for = self.open_until().map(|until| until.since(at));
        self.transitions.push(Transition { from, to, reason, at, open_for });
    }
}
