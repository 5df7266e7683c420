//! What a campaign measured.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use super::truth::Violation;

/// Parts of a campaign. The first second of a fault stands alone: breakers open in it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Phase {
    Calm,
    FirstSecond,
    Later,
    /// The fault is healed.
    After,
    /// Everybody has had time to hear of everything.
    Settled,
}

const PHASES: [Phase; 5] = [Phase::Calm, Phase::FirstSecond, Phase::Later, Phase::After, Phase::Settled];

/// Calls of one kind.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Call {
    Get,
    GetMany,
    /// Without the loader's own time.
    Load,
    Set,
    Invalidate,
    InvalidateSpace,
}

#[derive(Debug, Default)]
pub(crate) struct Figures {
    phase: AtomicUsize,
    micros: Mutex<BTreeMap<(Phase, Call), Vec<u64>>>,
    violations: Mutex<BTreeMap<(Phase, bool, Violation), u64>>,
    hits: Mutex<BTreeMap<Phase, u64>>,
}

/// How long calls of one kind took.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Spread {
    pub(crate) calls: usize,
    pub(crate) p50: Duration,
    pub(crate) p99: Duration,
    pub(crate) max: Duration,
}

impl Figures {
    pub(crate) fn enter(&self, phase: Phase) {
        self.phase.store(PHASES.iter().position(|known| *known == phase).unwrap(), Ordering::SeqCst);
    }

    pub(crate) fn phase(&self) -> Phase {
        PHASES[self.phase.load(Ordering::SeqCst)]
    }

    pub(crate) fn took(&self, phase: Phase, call: Call, time: Duration) {
        let micros = u64::try_from(time.as_micros()).unwrap();
        self.micros.lock().unwrap().entry((phase, call)).or_default().push(micros);
    }

    pub(crate) fn hit(&self, phase: Phase) {
        *self.hits.lock().unwrap().entry(phase).or_default() += 1;
    }

    pub(crate) fn hits(&self, phase: Phase) -> u64 {
        self.hits.lock().unwrap().get(&phase).copied().unwrap_or(0)
    }

    pub(crate) fn violated(&self, phase: Phase, is_strict: bool, violation: Violation) {
        *self.violations.lock().unwrap().entry((phase, is_strict, violation)).or_default() += 1;
    }

    /// Reads that broke their class: all but those that lag as they may.
    pub(crate) fn broken_reads(&self) -> u64 {
        let violations = self.violations.lock().unwrap();
        let broken = violations.iter().filter(|((_, _, kind), _)| *kind != Violation::Lags);
        broken.map(|(_, count)| count).sum()
    }

    /// Answers that were never a value of their key.
    pub(crate) fn wrong_reads(&self) -> u64 {
        let violations = self.violations.lock().unwrap();
        let wrong = violations.iter().filter(|((_, _, kind), _)| *kind == Violation::Wrong);
        wrong.map(|(_, count)| count).sum()
    }

    /// Of all kinds of calls together, but for loads, whose time is partly another's loader's.
    pub(crate) fn spread(&self, phase: Phase) -> Spread {
        let micros = self.micros.lock().unwrap();
        let of_phase = micros.iter().filter(|((of, call), _)| *of == phase && *call != Call::Load);
        Spread::of(of_phase.flat_map(|(_, micros)| micros.iter().copied()).collect())
    }

    /// The longest of all calls, loads without the caller's own loader included.
    pub(crate) fn longest(&self) -> Duration {
        let micros = self.micros.lock().unwrap();
        Duration::from_micros(micros.values().flatten().copied().max().unwrap_or(0))
    }
}

impl Spread {
    fn of(mut micros: Vec<u64>) -> Self {
        micros.sort_unstable();
        let at = |percent: usize| {
            Duration::from_micros(micros.get(micros.len() * percent / 100).copied().unwrap_or(0))
        };
        Self {
            calls: micros.len(),
            p50: at(50),
            p99: at(99),
            max: Duration::from_micros(micros.last().copied().unwrap_or(0)),
        }
    }
}

impl fmt::Display for Spread {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ms = |time: Duration| time.as_secs_f64() * 1e3;
        let Self { calls, p50, p99, max } = *self;
        write!(f, "{calls:>6} calls, ms: p50 {:.3} p99 {:.3} max {:.3}", ms(p50), ms(p99), ms(max))
    }
}

impl fmt::Display for Figures {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for phase in PHASES {
            let spread = self.spread(phase);
            if spread.calls == 0 {
                continue;
            }
            writeln!(f, "  {phase:<12?} {spread}; {} not loaded", self.hits(phase))?;
            let micros = self.micros.lock().unwrap();
            for ((_, call), micros) in micros.iter().filter(|((of, _), _)| *of == phase) {
                writeln!(f, "    {call:<16?} {}", Spread::of(micros.clone()))?;
            }
        }
        let violations = self.violations.lock().unwrap();
        for ((phase, is_strict, kind), count) in violations.iter() {
            let usage = if *is_strict { "strict" } else { "eventual" };
            writeln!(f, "  {phase:?}: {count} {usage} reads {kind:?}")?;
        }
        Ok(())
    }
}
