//! One way on one trace.

use std::time::Duration;

use super::traces::Trace;
use crate::time::Timestamp;
use crate::ttl::{Classes, Correction, Observation, Phase, Rates, Settings, decide};

/// A way to choose lives.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Way {
    /// By what was observed, under a budget. A class of which nothing is known yet lives as long as the budget.
    Adaptive(Settings),
    /// By the same rule, told beforehand how often each key is read and changes on average, and what it costs: all there is
    /// to learn, without having to.
    Told(Settings),
    /// Always the same.
    Fixed {
        /// How long.
        life_s: f64,
    },
    /// What is hot lives longer: with each life in which a key was read ten times or more the next one is half as long again,
    /// up to ten times the base; with fewer than two reads it is the base again.
    Multiply {
        /// The shortest life.
        base_s: f64,
    },
}

/// Decisions in a window of observation.
const DECISIONS: f64 = 24.0;

/// How a way did.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Outcome {
    /// Reads.
    pub reads: u64,
    /// Values that were made.
    pub rebuilds: u64,
    /// What that cost, in seconds.
    pub cost_s: f64,
    /// The staleness, in seconds, that one read in a hundred exceeds.
    pub staleness_p99_s: f64,
    /// The share of reads that were stale at all.
    pub stale_share: f64,
}

/// A kept value.
#[derive(Clone, Copy)]
struct Kept {
    made_at: f64,
    ends_at: f64,
    /// How many of the key's changes it holds.
    changes: usize,
    reads: u32,
    life_s: f64,
    /// Lives before it, in a row, that ended unchanged.
    unchanged_lives: u32,
}

/// Plays a way on a trace.
pub fn play(trace: &Trace, way: &Way) -> Outcome {
    let keys = trace.changes.len();
    let mut kept: Vec<Option<Kept>> = vec![None; keys];
    let mut happened = vec![0_usize; keys];
    let mut lives = Lives::new(*way, trace);
    let mut outcome = Outcome::default();
    let mut staleness = Vec::new();
    for &(at, key) in &trace.reads {
        outcome.reads += 1;
        let changes = &trace.changes[key];
        while changes.get(happened[key]).is_some_and(|change| *change <= at) {
            happened[key] += 1;
        }
        lives.decide(at);
        match &mut kept[key] {
            Some(value) if at < value.ends_at => {
                lives.read(key, value.unchanged_lives);
                value.reads = value.reads.saturating_add(1);
                if let Some(first) = changes.get(value.changes).filter(|first| **first <= at) {
                    staleness.push(at - first);
                }
            }
            former => {
                outcome.rebuilds += 1;
                outcome.cost_s += trace.costs[key];
                let unchanged_lives = match former {
                    Some(former) if former.changes == happened[key] => former.unchanged_lives + 1,
                    _ => 0,
                };
                lives.seen(key, at, trace.costs[key], former.as_ref(), happened[key]);
                lives.read(key, unchanged_lives);
                let life_s = lives.life(key, former.as_ref(), unchanged_lives);
                *former = Some(Kept {
                    made_at: at,
                    ends_at: at + life_s,
                    changes: happened[key],
                    reads: 1,
                    life_s,
                    unchanged_lives,
                });
            }
        }
    }
    staleness.sort_unstable_by(|one, other| other.total_cmp(one));
    // Reads that are not in the list are not stale at all.
    let hundredth = usize::try_from(outcome.reads / 100).unwrap_or(usize::MAX);
    outcome.staleness_p99_s = staleness.get(hundredth).copied().unwrap_or(0.0);
    outcome.stale_share = super::ratio(u64::try_from(staleness.len()).unwrap_or(u64::MAX), outcome.reads);
    outcome
}

/// Where lives come from. Keys are classes of their own.
struct Lives {
    way: Way,
    classes: Classes,
    correction: Correction,
    /// By key and phase: reads that were not counted yet; they are flushed in batches.
    reads: Vec<[u64; PHASES]>,
    decided: Vec<[f64; PHASES]>,
    decide_at: f64,
    names: Vec<String>,
}

const PHASES: usize = Phase::ALL.len();

impl Lives {
    fn new(way: Way, trace: &Trace) -> Self {
        let keys = trace.changes.len();
        let first = match way {
            Way::Adaptive(settings) | Way::Told(settings) => settings.staleness.as_secs_f64(),
            Way::Fixed { life_s } => life_s,
            Way::Multiply { base_s } => base_s,
        };
        let mut decided = vec![[first; PHASES]; keys];
        if let Way::Told(settings) = way {
            for (decided, decision) in decided.iter_mut().zip(decide(&rates(trace), &settings).classes) {
                *decided = [decision.ttl.as_secs_f64(); PHASES];
            }
        }
        Self {
            way,
            classes: Classes::default(),
            correction: Correction::default(),
            reads: vec![[0; PHASES]; keys],
            decided,
            decide_at: 0.0,
            names: (0..keys).map(|key| key.to_string()).collect(),
        }
    }

    fn read(&mut self, key: usize, unchanged_lives: u32) {
        if matches!(self.way, Way::Adaptive(_)) {
            self.reads[key][place(Phase::after(unchanged_lives))] += 1;
        }
    }

    fn decide(&mut self, at: f64) {
        let Way::Adaptive(settings) = self.way else { return };
        if at < self.decide_at {
            return;
        }
        self.decide_at = at + settings.window.as_secs_f64() / DECISIONS;
        let now = instant(at);
        for (key, phases) in self.reads.iter_mut().enumerate() {
            for (phase, reads) in Phase::ALL.into_iter().zip(phases) {
                let reads = std::mem::take(reads);
                if reads > 0 {
                    let seen = Observation::Reads(reads);
                    // There are fewer keys than classes may be.
                    let _ = self.classes.observe(&self.names[key], phase, 1, now, &settings, seen);
                }
            }
        }
        self.classes.forget(now, settings.window);
        let corrected = self.correction.correct(&settings, self.classes.stale());
        let observed = self.classes.observed(now, &settings);
        let rates: Vec<_> = observed.iter().map(|(_, _, observed)| observed.rates).collect();
        for ((name, phase, _), decision) in observed.iter().zip(decide(&rates, &corrected).classes) {
            if let Some(decided) = name.parse().ok().and_then(|key: usize| self.decided.get_mut(key)) {
                decided[place(*phase)] = decision.ttl.as_secs_f64();
            }
        }
    }

    /// A value was made.
    fn seen(&mut self, key: usize, at: f64, cost_s: f64, former: Option<&Kept>, happened: usize) {
        let Way::Adaptive(settings) = self.way else { return };
        let seconds = |value: f64| Duration::try_from_secs_f64(value).unwrap_or_default();
        let cost = seconds(cost_s);
        let seen = match former {
            Some(former) => Observation::Rebuilt {
                age: seconds(at - former.made_at),
                changed: happened > former.changes,
                cost,
                life: seconds(former.life_s),
                reads: former.reads.into(),
            },
            None => Observation::Made { cost },
        };
        let phase = Phase::after(former.map_or(0, |former| former.unchanged_lives));
        let _ = self.classes.observe(&self.names[key], phase, 1, instant(at), &settings, seen);
    }

    /// How long a new value lives.
    fn life(&self, key: usize, former: Option<&Kept>, unchanged_lives: u32) -> f64 {
        match self.way {
            Way::Fixed { life_s } => life_s,
            Way::Multiply { base_s } => match former {
                Some(former) if former.reads >= 10 => (former.life_s * 1.5).min(base_s * 10.0),
                Some(former) if former.reads >= 2 => former.life_s,
                _ => base_s,
            },
            Way::Adaptive(_) | Way::Told(_) => self.decided[key][place(Phase::after(unchanged_lives))],
        }
    }
}

/// How each key fares over the whole trace.
fn rates(trace: &Trace) -> Vec<Rates> {
    let seconds = trace.reads.last().map_or(1.0, |(at, _)| at.max(1.0));
    let float = |count: usize| f64::from(u32::try_from(count).unwrap_or(u32::MAX));
    let mut reads = vec![0; trace.changes.len()];
    for (_, key) in &trace.reads {
        reads[*key] += 1;
    }
    let keys = reads.iter().zip(&trace.changes).zip(&trace.costs);
    keys.map(|((reads, changes), cost_s)| Rates {
        reads_per_s: float(*reads) / seconds,
        changes_per_s: float(changes.len()) / seconds,
        rebuild_s: *cost_s,
    })
    .collect()
}

fn place(phase: Phase) -> usize {
    usize::from(phase.number())
}

fn instant(at_s: f64) -> Timestamp {
    Timestamp::default().plus(Duration::try_from_secs_f64(at_s).unwrap_or_default())
}
