//! The breaker against a second telling of its rules: plain, slow, and written without a look at the first.
#![allow(clippy::unwrap_used, clippy::panic, missing_docs, reason = "a test says what it expects")]

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use proptest::prelude::*;
use recache_cache::breaker::{
    Breaker, Monotonic, Observer, Outcome, Permit, Phase, Settings, Tick, Transition, Window,
};

/// A clock in milliseconds that stands still until it is moved.
#[derive(Debug, Clone, Default)]
struct Hand(Arc<AtomicU64>);

impl Hand {
    fn advance_ms(&self, ms: u64) {
        self.0.fetch_add(ms, Ordering::SeqCst);
    }

    fn ms(&self) -> u64 {
        self.0.load(Ordering::SeqCst)
    }
}

impl Monotonic for Hand {
    fn now(&self) -> Tick {
        Tick::from_nanos(self.ms() * 1_000_000)
    }
}

/// Remembers every change.
#[derive(Debug, Clone, Default)]
struct Seen(Arc<Mutex<Vec<(Phase, Phase)>>>);

impl Observer for Seen {
    fn changed(&self, transition: &Transition) {
        self.0.lock().unwrap().push((transition.from, transition.to));
    }
}

type TestBreaker = Breaker<Hand, Seen>;

fn breaker(settings: &Settings) -> (TestBreaker, Hand, Seen) {
    let (hand, seen) = (Hand::default(), Seen::default());
    (Breaker::new(settings.clone(), hand.clone(), seen.clone()), hand, seen)
}

/// The rules once more. Keeps every result of the era with its moment, and counts anew each time.
struct Model {
    settings: Settings,
    phase: Phase,
    era: u64,
    /// Moment, failed, slow.
    results: Vec<(u64, bool, bool)>,
    opened_at: u64,
    reopenings: u32,
    out: u32,
    succeeded: u32,
    admitted_at: u64,
    events: Vec<(Phase, Phase)>,
}

impl Model {
    fn new(settings: &Settings) -> Self {
        Self {
            settings: settings.clone(),
            phase: if settings.is_enabled { Phase::Closed } else { Phase::Disabled },
            era: 0,
            results: Vec::new(),
            opened_at: 0,
            reopenings: 0,
            out: 0,
            succeeded: 0,
            admitted_at: 0,
            events: Vec::new(),
        }
    }

    fn go(&mut self, phase: Phase) {
        if phase != self.phase {
            self.events.push((self.phase, phase));
        }
        self.phase = phase;
        self.era += 1;
        self.results.clear();
        (self.out, self.succeeded) = (0, 0);
    }

    fn open_at(&mut self, at: u64) {
        if self.phase == Phase::HalfOpen {
            self.reopenings += 1;
        }
        self.opened_at = at;
        self.go(Phase::Open);
    }

    fn open_ms(&self) -> u64 {
        let mut ms = ms(self.settings.open_for);
        for _ in 0..self.reopenings {
            ms = (ms * u64::from(self.settings.backoff_factor)).min(1 << 40);
        }
        ms.min(self.settings.open_for_max.max(self.settings.open_for).as_millis().try_into().unwrap())
    }

    fn pass(&mut self, now: u64) {
        let deadline = self.admitted_at + ms(self.settings.half_open_max_wait);
        if self.phase == Phase::HalfOpen && self.out > 0 && now >= deadline {
            self.open_at(deadline);
        }
    }

    fn admit(&mut self, now: u64) -> Option<u64> {
        self.pass(now);
        if self.phase == Phase::Open && now >= self.opened_at + self.open_ms() {
            self.go(Phase::HalfOpen);
        }
        match self.phase {
            Phase::Closed | Phase::Disabled => Some(self.era),
            Phase::HalfOpen if self.out + self.succeeded < self.settings.permits => {
                self.out += 1;
                self.admitted_at = now;
                Some(self.era)
            }
            _ => None,
        }
    }

    fn settle(&mut self, era: u64, outcome: Outcome, took: u64, now: u64) {
        // A late one is not even looked at; one of now may be the first to find out that the trial's time has passed.
        if era == self.era {
            self.pass(now);
        }
        if era != self.era {
            return;
        }
        let slow = took > ms(self.settings.slow_after);
        let (counts, failed) = match outcome {
            Outcome::Succeeded => (true, false),
            Outcome::Failed => (true, true),
            Outcome::Refused => (slow, false),
            Outcome::GivenUp => (slow, true),
        };
        if self.phase == Phase::HalfOpen {
            self.out -= 1;
            if counts && (failed || slow) {
                self.open_at(now);
            } else if counts {
                self.succeeded += 1;
                if self.succeeded == self.settings.permits {
                    self.reopenings = 0;
                    self.go(Phase::Closed);
                }
            }
        } else if self.phase == Phase::Closed && counts {
            self.results.push((now, failed, slow));
            if self.must_open(now) {
                self.open_at(now);
            }
        }
    }

    fn in_window(&self, now: u64) -> Vec<(u64, bool, bool)> {
        match self.settings.window {
            Window::Calls(n) => self.results.iter().rev().take(n.try_into().unwrap()).copied().collect(),
            Window::Time(t) => {
                let width = ms(t) / 10;
                self.results.iter().filter(|result| result.0 / width + 10 > now / width).copied().collect()
            }
        }
    }

    fn must_open(&self, now: u64) -> bool {
        let in_a_row = self.results.iter().rev().take_while(|result| result.1).count();
        if in_a_row >= usize::try_from(self.settings.failure_threshold).unwrap() {
            return true;
        }
        let window = self.in_window(now);
        let min_calls = match self.settings.window {
            Window::Calls(n) => self.settings.min_calls.min(n),
            Window::Time(_) => self.settings.min_calls,
        };
        if window.len() < usize::try_from(min_calls).unwrap() {
            return false;
        }
        let share = |count: usize, least: u32| 100 * count >= usize::try_from(least).unwrap() * window.len();
        let failed = window.iter().filter(|result| result.1).count();
        let slow = window.iter().filter(|result| result.2).count();
        share(failed, self.settings.failure_rate_percent) || share(slow, self.settings.slow_rate_percent)
    }
}

fn ms(duration: Duration) -> u64 {
    duration.as_millis().try_into().unwrap()
}

#[derive(Debug, Clone, Copy)]
enum Step {
    /// Asks for admission; the call, if admitted, stays out.
    Admit,
    /// Ends one of the calls that are out.
    End(usize, Outcome),
    /// Admits and ends at once.
    Whole(Outcome),
    /// So many quick successes.
    Successes(u32),
    Advance(u64),
    ForceOpen,
    Disable,
    Reset,
    Look,
}

fn outcome() -> impl Strategy<Value = Outcome> {
    prop_oneof![
        4 => Just(Outcome::Succeeded),
        4 => Just(Outcome::Failed),
        1 => Just(Outcome::Refused),
        2 => Just(Outcome::GivenUp),
    ]
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        8 => Just(Step::Admit),
        8 => (0_usize..8, outcome()).prop_map(|(which, outcome)| Step::End(which, outcome)),
        12 => outcome().prop_map(Step::Whole),
        3 => (1_u32..25).prop_map(Step::Successes),
        4 => (1_u64..15).prop_map(Step::Advance),
        2 => (15_u64..300).prop_map(Step::Advance),
        1 => Just(Step::Look),
        1 => prop_oneof![Just(Step::ForceOpen), Just(Step::Disable), Just(Step::Reset), Just(Step::Reset)],
    ]
}

fn settings() -> impl Strategy<Value = Settings> {
    let window = prop_oneof![
        (1_u32..12).prop_map(Window::Calls),
        (2_u64..20).prop_map(|tens| Window::Time(Duration::from_millis(tens * 10))),
    ];
    (window, 2_u32..8, 1_u32..12, 20_u32..=100, 20_u32..=100, (1_u32..4, 1_u32..4, 1_u64..120)).prop_map(
        |(window, failure_threshold, min_calls, failure_rate_percent, slow_rate_percent, rest)| {
            let (permits, backoff_factor, wait_ms) = rest;
            Settings {
                is_enabled: true,
                failure_threshold,
                window,
                min_calls,
                failure_rate_percent,
                slow_rate_percent,
                slow_after: Duration::from_millis(10),
                open_for: Duration::from_millis(100),
                backoff_factor,
                open_for_max: Duration::from_millis(400),
                permits,
                half_open_max_wait: Duration::from_millis(wait_ms),
            }
        },
    )
}

/// Both of them, with the calls that are out.
struct Pair<'a> {
    breaker: &'a TestBreaker,
    model: Model,
    hand: Hand,
    seen: Seen,
    out: Vec<(Permit<'a, Hand, Seen>, u64, u64)>,
    refused: u64,
}

impl<'a> Pair<'a> {
    fn admit(&mut self) -> Option<(Permit<'a, Hand, Seen>, u64, u64)> {
        let now = self.hand.ms();
        let (real, model) = (self.breaker.admit(), self.model.admit(now));
        assert_eq!(real.is_ok(), model.is_some(), "admission, model {:?}", self.model.phase);
        if let Err(refusal) = &real {
            self.refused += 1;
            assert_eq!(refusal.phase, self.model.phase);
        }
        let mut permit = real.ok()?;
        permit.waits();
        Some((permit, model?, now))
    }

    fn end(&mut self, (permit, era, since): (Permit<'a, Hand, Seen>, u64, u64), outcome: Outcome) {
        let now = self.hand.ms();
        if outcome == Outcome::GivenUp {
            drop(permit);
        } else {
            permit.settle(outcome);
        }
        self.model.settle(era, outcome, now - since, now);
    }

    fn step(&mut self, step: Step) {
        let now = self.hand.ms();
        match step {
            Step::Admit if self.out.len() < 8 => {
                let call = self.admit();
                self.out.extend(call);
            }
            Step::End(which, outcome) if which < self.out.len() => {
                let call = self.out.remove(which);
                self.end(call, outcome);
            }
            Step::Admit | Step::End(..) => {}
            Step::Whole(outcome) => {
                if let Some(call) = self.admit() {
                    self.end(call, outcome);
                }
            }
            Step::Successes(count) => {
                for _ in 0..count {
                    if let Some(call) = self.admit() {
                        self.end(call, Outcome::Succeeded);
                    }
                }
            }
            Step::Advance(by) => self.hand.advance_ms(by),
            Step::ForceOpen => {
                self.breaker.force_open();
                self.model.pass(now);
                self.model.go(Phase::ForcedOpen);
            }
            Step::Disable => {
                self.breaker.disable();
                self.model.pass(now);
                self.model.go(Phase::Disabled);
            }
            Step::Reset => {
                self.breaker.reset();
                self.model.pass(now);
                self.model.reopenings = 0;
                self.model.go(Phase::Closed);
            }
            Step::Look => {
                let report = self.breaker.report();
                self.model.pass(now);
                let window = self.model.in_window(now);
                let count = |which: fn(&(u64, bool, bool)) -> bool| {
                    u64::try_from(window.iter().filter(|result| which(result)).count()).unwrap()
                };
                assert_eq!(report.phase, self.model.phase);
                assert_eq!(
                    (report.results, report.failures, report.slow),
                    (count(|_| true), count(|result| result.1), count(|result| result.2))
                );
                assert_eq!(report.refused, self.refused);
            }
        }
        let seen = self.seen.0.lock().unwrap().clone();
        assert_eq!(seen, self.model.events, "one event per change");
        if self.model.phase == Phase::HalfOpen {
            assert!(self.model.out + self.model.succeeded <= self.model.settings.permits);
        }
    }
}

fn compare(settings: &Settings, steps: &[Step]) -> Vec<(Phase, Phase)> {
    let (breaker, hand, seen) = breaker(settings);
    let model = Model::new(settings);
    let mut pair = Pair { breaker: &breaker, model, hand, seen, out: Vec::new(), refused: 0 };
    for step in steps {
        pair.step(*step);
        pair.step(Step::Look);
    }
    pair.model.events
}

fn compare_unseen(settings: &Settings, steps: &[Step]) {
    let (breaker, hand, seen) = breaker(settings);
    let model = Model::new(settings);
    let mut pair = Pair { breaker: &breaker, model, hand, seen, out: Vec::new(), refused: 0 };
    for step in steps {
        pair.step(*step);
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 500, failure_persistence: None, ..ProptestConfig::default() })]

    /// Looking takes the successes that wait out of the word, so that each sequence also runs without it.
    #[test]
    fn breaker_does_what_the_model_does(settings in settings(), steps in prop::collection::vec(step(), 1..150)) {
        compare_unseen(&settings, &steps);
        compare(&settings, &steps);
    }

    /// From whatever state: with a healthy backend and one call a second, closed within the longest open time, the wait
    /// for undecided probes and a second for each permit.
    #[test]
    fn breaker_is_never_wedged(settings in settings(), steps in prop::collection::vec(step(), 1..150)) {
        let (breaker, hand, seen) = breaker(&settings);
        let mut pair = Pair { breaker: &breaker, model: Model::new(&settings), hand: hand.clone(), seen, out: Vec::new(), refused: 0 };
        for step in steps.iter().filter(|step| !matches!(step, Step::ForceOpen | Step::Disable)) {
            pair.step(*step);
        }
        // The calls that are out never come back: their permits are neither settled nor dropped.
        std::mem::forget(std::mem::take(&mut pair.out));
        let bound = settings.open_for_max + settings.half_open_max_wait + Duration::from_secs(settings.permits.into());
        let started = hand.ms();
        while breaker.report().phase != Phase::Closed {
            prop_assert!(hand.ms() - started <= ms(bound), "still {:?}", breaker.report());
            hand.advance_ms(1_000);
            if let Ok(permit) = breaker.admit() {
                permit.settle(Outcome::Succeeded);
            }
        }
    }
}

/// The sequences above would prove nothing if they never left the closed state.
#[test]
fn random_sequences_reach_every_change() {
    use proptest::strategy::ValueTree;
    use proptest::test_runner::TestRunner;
    let mut runner = TestRunner::deterministic();
    let mut reached: BTreeMap<String, u32> = BTreeMap::new();
    for _ in 0..300 {
        let drawn = (settings(), prop::collection::vec(step(), 150)).new_tree(&mut runner).unwrap().current();
        for (from, to) in compare(&drawn.0, &drawn.1) {
            *reached.entry(format!("{} to {}", from.name(), to.name())).or_default() += 1;
        }
    }
    for change in ["closed to open", "open to half-open", "half-open to open", "half-open to closed"] {
        assert!(reached.get(change).is_some_and(|count| *count > 20), "{change}: {reached:?}");
    }
}

fn call(breaker: &TestBreaker, outcome: Outcome) -> bool {
    breaker.admit().map(|permit| permit.settle(outcome)).is_ok()
}

fn slow_call(breaker: &TestBreaker, hand: &Hand, outcome: Outcome) -> bool {
    let Ok(mut permit) = breaker.admit() else { return false };
    permit.waits();
    hand.advance_ms(26);
    permit.settle(outcome);
    true
}

fn opened() -> (TestBreaker, Hand, Seen) {
    let (breaker, hand, seen) = breaker(&Settings::default());
    (0..5).for_each(|_| assert!(call(&breaker, Outcome::Failed)));
    assert_eq!(breaker.report().phase, Phase::Open);
    (breaker, hand, seen)
}

#[test]
fn opens_on_the_fifth_failure_in_a_row_and_a_success_starts_the_count_anew() {
    let (breaker, _, seen) = breaker(&Settings::default());
    for outcome in [Outcome::Failed, Outcome::Failed, Outcome::Failed, Outcome::Failed, Outcome::Succeeded] {
        call(&breaker, outcome);
    }
    (0..4).for_each(|_| assert!(call(&breaker, Outcome::Failed)));
    assert_eq!(breaker.report().phase, Phase::Closed);
    call(&breaker, Outcome::Failed);
    assert_eq!(*seen.0.lock().unwrap(), [(Phase::Closed, Phase::Open)]);
}

/// 80 % failures that are never five in a row.
#[test]
fn four_failures_and_a_success_in_turn_open_it() {
    let (breaker, _, _) = breaker(&Settings::default());
    for round in 0..4 {
        assert_eq!(breaker.report().phase, Phase::Closed, "round {round}");
        (0..4).for_each(|_| assert!(call(&breaker, Outcome::Failed)));
        call(&breaker, Outcome::Succeeded);
    }
    assert_eq!(breaker.report().phase, Phase::Open, "at the twentieth result, which is a success");
}

#[test]
fn rates_open_it_at_their_threshold_and_not_below() {
    for (slow, phase) in [(79, Phase::Closed), (80, Phase::Open)] {
        let (breaker, hand, _) = breaker(&Settings { min_calls: 100, ..Settings::default() });
        for call_number in 0..100 {
            if call_number < slow {
                slow_call(&breaker, &hand, Outcome::Succeeded);
            } else {
                call(&breaker, Outcome::Succeeded);
            }
        }
        assert_eq!(breaker.report().phase, phase, "{slow} slow of 100");
    }
}

#[test]
fn half_open_admits_two_of_a_thousand() {
    let (breaker, hand, _) = opened();
    hand.advance_ms(14_999);
    assert!(breaker.admit().is_err());
    hand.advance_ms(1);
    let admitted: Vec<_> = (0..1_000).filter_map(|_| breaker.admit().ok()).collect();
    assert_eq!(admitted.len(), 2);
    assert_eq!(breaker.report().refused, 999);
}

#[test]
fn late_success_of_a_call_from_before_it_opened_does_not_close_it() {
    let (breaker, hand, _) = breaker(&Settings { permits: 1, ..Settings::default() });
    let early = breaker.admit().unwrap();
    (0..5).for_each(|_| assert!(call(&breaker, Outcome::Failed)));
    hand.advance_ms(15_000);
    let probe = breaker.admit().unwrap();
    early.settle(Outcome::Succeeded);
    assert_eq!(breaker.report().phase, Phase::HalfOpen);
    probe.settle(Outcome::Succeeded);
    assert_eq!(breaker.report().phase, Phase::Closed);
}

#[test]
fn slow_probe_reopens_and_a_quickly_dropped_one_gives_its_permit_back() {
    let (breaker, hand, _) = opened();
    hand.advance_ms(15_000);
    for _ in 0..10 {
        drop(breaker.admit().unwrap());
    }
    assert!(slow_call(&breaker, &hand, Outcome::Succeeded));
    assert_eq!(breaker.report().phase, Phase::Open);
}

#[test]
fn probe_that_never_ends_costs_no_more_than_the_wait() {
    let (breaker, hand, _) = opened();
    hand.advance_ms(15_000);
    std::mem::forget([breaker.admit().unwrap(), breaker.admit().unwrap()]);
    hand.advance_ms(4_999);
    assert!(breaker.admit().is_err());
    assert_eq!(breaker.report().phase, Phase::HalfOpen);
    hand.advance_ms(1);
    let report = breaker.report();
    assert_eq!((report.phase, report.next_probe_in), (Phase::Open, Some(Duration::from_secs(15))));
}

/// A call a minute: no trial is cut short because nobody came.
#[test]
fn trial_waits_for_calls_as_long_as_it_takes() {
    let (breaker, hand, seen) = opened();
    for _ in 0..2 {
        hand.advance_ms(60_000);
        assert!(call(&breaker, Outcome::Succeeded));
    }
    assert_eq!(breaker.report().phase, Phase::Closed);
    assert_eq!(seen.0.lock().unwrap().len(), 3);
}

#[test]
fn call_given_up_counts_only_when_it_was_slow_by_then() {
    let (breaker, hand, _) = breaker(&Settings::default());
    for _ in 0..100 {
        let mut permit = breaker.admit().unwrap();
        permit.waits();
        hand.advance_ms(25);
        drop(permit);
    }
    assert_eq!(breaker.report().results, 0);
    for _ in 0..5 {
        let mut permit = breaker.admit().unwrap();
        permit.waits();
        hand.advance_ms(26);
        drop(permit);
    }
    assert_eq!(breaker.report().phase, Phase::Open);
}

#[test]
fn back_off_grows_up_to_its_cap_and_closing_sets_it_back() {
    let settings = Settings {
        backoff_factor: 3,
        open_for_max: Duration::from_mins(2),
        permits: 1,
        ..Settings::default()
    };
    let (breaker, hand, _) = breaker(&settings);
    (0..5).for_each(|_| assert!(call(&breaker, Outcome::Failed)));
    let wait = |breaker: &TestBreaker| breaker.report().next_probe_in.unwrap().as_secs();
    for seconds in [15, 45, 120, 120] {
        assert_eq!(wait(&breaker), seconds);
        hand.advance_ms(seconds * 1_000);
        assert!(call(&breaker, Outcome::Failed));
    }
    hand.advance_ms(120_000);
    assert!(call(&breaker, Outcome::Succeeded));
    (0..5).for_each(|_| assert!(call(&breaker, Outcome::Failed)));
    assert_eq!(wait(&breaker), 15);
}

#[test]
fn forced_open_and_disabled_last_until_reset() {
    let (breaker, hand, seen) = breaker(&Settings::default());
    breaker.force_open();
    breaker.force_open();
    hand.advance_ms(1_000_000);
    assert!(breaker.admit().is_err());
    breaker.disable();
    (0..100).for_each(|_| assert!(call(&breaker, Outcome::Failed)));
    breaker.reset();
    assert!(call(&breaker, Outcome::Failed));
    assert_eq!(breaker.report().failures_in_a_row, 1);
    let changes: Vec<_> = seen.0.lock().unwrap().iter().map(|change| change.1).collect();
    assert_eq!(changes, [Phase::ForcedOpen, Phase::Disabled, Phase::Closed]);
}

/// With everything on two cores: no success is lost, none is counted twice.
#[test]
fn every_result_is_counted_once_under_contention() {
    const THREADS: u32 = 4;
    const CALLS: u32 = 20_000;
    let window = Window::Time(Duration::from_hours(1));
    let settings = Settings { window, failure_threshold: u32::MAX, ..Settings::default() };
    let (breaker, _, _) = breaker(&settings);
    std::thread::scope(|scope| {
        for thread in 0..THREADS {
            let breaker = &breaker;
            scope.spawn(move || {
                for number in 0..CALLS {
                    let outcome =
                        if (number + thread) % 3 == 0 { Outcome::Failed } else { Outcome::Succeeded };
                    assert!(call(breaker, outcome));
                }
            });
        }
    });
    let report = breaker.report();
    assert_eq!(report.results, u64::from(THREADS * CALLS));
    let failures =
        (0..THREADS).flat_map(|thread| (0..CALLS).map(move |n| n + thread)).filter(|n| n % 3 == 0).count();
    assert_eq!(report.failures, u64::try_from(failures).unwrap());
}
