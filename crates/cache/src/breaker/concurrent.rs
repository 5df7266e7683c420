//! The breaker as many tasks share it: the rules of [`Machine`] behind one word that can be read without a lock.
//!
//! The word holds era and phase, and while closed also how many quick successes came since the machine was told last.
//! A quick success that would change nothing at all, because the window is full of such, is not even written down. One
//! that cannot change the phase only raises that number, by a compare-and-swap that fails when anything else has
//! changed. Everything else takes the lock, takes the number out of the word, tells the machine of it first,
//! and writes the word anew. So the machine sees all results in an order that could have been, and the word is never
//! ahead of it.

use std::fmt;
use std::sync::PoisonError;
use std::time::Duration;

use super::machine::{Machine, Outcome, Phase, Report, Settings, Tick, Transition};
use super::sync::{AtomicU64, Mutex, Ordering};

/// Tells time that never runs backwards and that nobody can set.
pub trait Monotonic: fmt::Debug + Send + Sync {
    /// The present moment.
    fn now(&self) -> Tick;
}

/// Who is told of each change, once, after it has happened.
pub trait Observer: fmt::Debug + Send + Sync {
    /// It has changed.
    fn changed(&self, transition: &Transition);
}

/// No call may be made now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Refusal {
    /// What the breaker does at present.
    pub phase: Phase,
}

/// A circuit breaker; see [the module](super).
#[derive(Debug)]
pub struct Breaker<M: Monotonic, O: Observer> {
    word: AtomicU64,
    /// Until when quick successes may wait in the word, while its phase is [`QUICK`].
    quick_until: AtomicU64,
    /// Until when calls are refused, while the word's phase is [`OPEN`].
    open_until: AtomicU64,
    refused: AtomicU64,
    machine: Mutex<Machine>,
    slow_after: Duration,
    /// After so many quick successes the machine is told: a window of calls then holds nothing else.
    waiting_max: u64,
    monotonic: M,
    observer: O,
}

impl<M: Monotonic, O: Observer> Breaker<M, O> {
    /// A closed one, or a disabled one when `settings` say so.
    pub fn new(settings: Settings, monotonic: M, observer: O) -> Self {
        let slow_after = settings.slow_after;
        let machine = Machine::new(settings, monotonic.now());
        let waiting_max = machine.results_max().map_or(WAITING_MASK, |results| results.min(WAITING_MASK));
        let breaker = Self {
            word: AtomicU64::new(0),
            quick_until: AtomicU64::new(0),
            open_until: AtomicU64::new(0),
            refused: AtomicU64::new(0),
            machine: Mutex::new(machine),
            slow_after,
            waiting_max,
            monotonic,
            observer,
        };
        breaker.locked(|_| ());
        breaker
    }

    /// Admits a call, or refuses it. While closed neither the clock nor a lock is touched.
    #[inline]
    pub fn admit(&self) -> Result<Permit<'_, M, O>, Refusal> {
        let word = Word(self.word.load(Ordering::Acquire));
        match word.phase() {
            CALM | QUICK | CAREFUL | DISABLED => Ok(self.permit(word.era())),
            FORCED_OPEN => self.refuse(Phase::ForcedOpen),
            OPEN if self.monotonic.now().nanos() < self.open_until.load(Ordering::Acquire) => {
                self.refuse(Phase::Open)
            }
            _ => self.admit_locked(),
        }
    }

    #[cold]
    fn admit_locked(&self) -> Result<Permit<'_, M, O>, Refusal> {
        let now = self.monotonic.now();
        match self.locked(|machine| machine.admit(now)) {
            Ok(era) => Ok(self.permit(Word::era_of(era))),
            Err(phase) => self.refuse(phase),
        }
    }

    fn permit(&self, era: u64) -> Permit<'_, M, O> {
        Permit { breaker: self, era, waits_since: None, is_settled: false }
    }

    fn refuse(&self, phase: Phase) -> Result<Permit<'_, M, O>, Refusal> {
        self.refused.fetch_add(1, Ordering::Relaxed);
        Err(Refusal { phase })
    }

    /// Refuses every call until [`reset`](Self::reset).
    pub fn force_open(&self) {
        let now = self.monotonic.now();
        self.locked(|machine| machine.force_open(now));
    }

    /// Admits every call and watches none until [`reset`](Self::reset).
    pub fn disable(&self) {
        let now = self.monotonic.now();
        self.locked(|machine| machine.disable(now));
    }

    /// Closed, as if new.
    pub fn reset(&self) {
        let now = self.monotonic.now();
        self.locked(|machine| machine.reset(now));
    }

    /// Who tells it the time.
    pub fn monotonic(&self) -> &M {
        &self.monotonic
    }

    /// What it does at present, and why.
    pub fn report(&self) -> Report {
        let now = self.monotonic.now();
        let report = self.locked(|machine| machine.report(now));
        Report { refused: self.refused.load(Ordering::Relaxed), ..report }
    }

    /// Settles a call without the lock when its result can wait or says nothing; false when it takes the lock.
    #[inline]
    fn settle_quickly(&self, era: u64, outcome: Outcome, took: Duration, now: Option<Tick>) -> bool {
        let mut now = now;
        let mut word = Word(self.word.load(Ordering::Acquire));
        loop {
            if word.era() != era || word.phase() == DISABLED {
                return true;
            }
            if took > self.slow_after {
                return false;
            }
            match (outcome, word.phase()) {
                (Outcome::Succeeded, CALM)
                | (Outcome::Refused | Outcome::GivenUp, CALM | QUICK | CAREFUL) => {
                    return true;
                }
                (Outcome::Succeeded, QUICK) if word.waiting() < self.waiting_max => {}
                _ => return false,
            }
            let quick_until = self.quick_until.load(Ordering::Acquire);
            if quick_until != Tick::NEVER.nanos() {
                let now = *now.get_or_insert_with(|| self.monotonic.now());
                if now.nanos() >= quick_until {
                    return false;
                }
            }
            match self.word.compare_exchange(word.0, word.0 + 1, Ordering::AcqRel, Ordering::Acquire) {
                Ok(_) => return true,
                Err(changed) => word = Word(changed),
            }
        }
    }

    #[cold]
    fn settle_locked(&self, era: u64, outcome: Outcome, took: Duration, now: Tick) {
        self.locked(|machine| {
            if Word::era_of(machine.era()) == era {
                machine.settle(machine.era(), outcome, took, now);
            }
        });
    }

    /// Lets `act` change the machine, and shows what came of it.
    fn locked<T>(&self, act: impl FnOnce(&mut Machine) -> T) -> T {
        let mut machine = self.machine.lock().unwrap_or_else(PoisonError::into_inner);
        // From here no success can be added to the word: it would be lost.
        let word = Word(self.word.swap(Word::of(&machine, CAREFUL).0, Ordering::AcqRel));
        if word.waiting() > 0 {
            machine.add_successes(word.waiting());
        }
        let answer = act(&mut machine);
        let closed = if machine.successes_change_nothing() {
            CALM
        } else if let Some(until) = machine.successes_may_wait_until() {
            self.quick_until.store(until.nanos(), Ordering::Release);
            QUICK
        } else {
            CAREFUL
        };
        if let Some(until) = machine.open_until() {
            self.open_until.store(until.nanos(), Ordering::Release);
        }
        self.word.store(Word::of(&machine, closed).0, Ordering::Release);
        let transitions = machine.take_transitions();
        drop(machine);
        for transition in &transitions {
            self.observer.changed(transition);
        }
        answer
    }
}

/// The right to make one call. Say how it ended; dropping it says that the caller gave it up.
#[derive(Debug)]
#[must_use]
pub struct Permit<'a, M: Monotonic, O: Observer> {
    breaker: &'a Breaker<M, O>,
    era: u64,
    waits_since: Option<Tick>,
    is_settled: bool,
}

impl<M: Monotonic, O: Observer> Permit<'_, M, O> {
    /// From now on, which is answered, the call waits. One that never waits takes no time, and costs no look at the clock.
    pub fn waits(&mut self) -> Tick {
        *self.waits_since.get_or_insert_with(|| self.breaker.monotonic.now())
    }

    /// The call has ended.
    #[inline]
    pub fn settle(mut self, outcome: Outcome) {
        self.is_settled = true;
        self.end(outcome);
    }

    #[inline]
    fn end(&self, outcome: Outcome) {
        let now = self.waits_since.map(|since| (since, self.breaker.monotonic.now()));
        let took = now.map_or(Duration::ZERO, |(since, now)| now.since(since));
        let now = now.map(|(_, now)| now);
        if !self.breaker.settle_quickly(self.era, outcome, took, now) {
            let now = now.unwrap_or_else(|| self.breaker.monotonic.now());
            self.breaker.settle_locked(self.era, outcome, took, now);
        }
    }
}

impl<M: Monotonic, O: Observer> Drop for Permit<'_, M, O> {
    fn drop(&mut self) {
        if !self.is_settled {
            self.end(Outcome::GivenUp);
        }
    }
}

/// Era, phase and the successes that wait, from high bits to low.
#[derive(Debug, Clone, Copy)]
struct Word(u64);

const WAITING_BITS: u32 = 24;
const WAITING_MASK: u64 = (1 << WAITING_BITS) - 1;
const PHASE_BITS: u32 = 3;
const PHASE_MASK: u64 = (1 << PHASE_BITS) - 1;
const ERA_SHIFT: u32 = WAITING_BITS + PHASE_BITS;

/// Closed, and quick successes may wait.
const QUICK: u64 = 0;
/// Closed, and every result must be told.
const CAREFUL: u64 = 1;
const OPEN: u64 = 2;
const HALF_OPEN: u64 = 3;
const FORCED_OPEN: u64 = 4;
const DISABLED: u64 = 5;
/// Closed, and a quick success changes nothing.
const CALM: u64 = 6;

impl Word {
    fn of(machine: &Machine, closed: u64) -> Self {
        let phase = match machine.phase() {
            Phase::Closed => closed,
            Phase::Open => OPEN,
            Phase::HalfOpen => HALF_OPEN,
            Phase::ForcedOpen => FORCED_OPEN,
            Phase::Disabled => DISABLED,
        };
        Self((Self::era_of(machine.era()) << ERA_SHIFT) | (phase << WAITING_BITS))
    }

    /// As much of an era as the word holds: it comes round after 2^37 changes, and no call takes that long.
    fn era_of(era: u64) -> u64 {
        era & (u64::MAX >> ERA_SHIFT)
    }

    fn era(self) -> u64 {
        self.0 >> ERA_SHIFT
    }

    fn phase(self) -> u64 {
        (self.0 >> WAITING_BITS) & PHASE_MASK
    }

    fn waiting(self) -> u64 {
        self.0 & WAITING_MASK
    }
}
