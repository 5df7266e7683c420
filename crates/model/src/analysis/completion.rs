//! When it will be over.
//!
//! The graph is played through: every step that is left draws a duration from its history, its wait in the queue
//! included, and begins when the last one that it waits for has ended. A duration is a least value and an exponential rest
//! with the mean and deviation that were measured: the shifted exponential model of service times (for instance Lee et
//! al., Speeding Up Distributed Machine Learning Using Codes, IEEE Transactions on Information Theory 64, 2018). That ways share
//! steps is thereby accounted for, which neither PERT (one path only) nor moments of maxima (Clark 1961, taken as
//! independent: 72 % of ends in an interval of 90 %) do. Left out: attempts that will fail, and workers that are too few.

use std::time::Duration;

use super::facts::{Spread, StepFacts};
use super::schedule::Planned;
use crate::job::JobState;
use crate::template::graph::Graph;
use crate::time::Timestamp;

/// How probable it is that the end lies in the interval that is told.
pub const CONFIDENCE: f64 = 0.90;
/// How often a graph is played through, at least and at most, and how many durations are drawn at most, if that leaves
/// the least number of rounds: the time it takes is linear in the size of the graph.
const ROUNDS_MIN: usize = 40;
const ROUNDS_MAX: usize = 1_000;
const DRAWS_MAX: usize = 1_000_000;

/// How long until all is done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Completion {
    /// The mean.
    pub remaining: Duration,
    /// The interval that holds the end with probability [`CONFIDENCE`]: its beginning.
    pub remaining_low: Duration,
    /// Its end.
    pub remaining_high: Duration,
    /// Steps that are left of which nothing is known: they are taken for as long as the known ones, give or take as much.
    pub steps_assumed: usize,
}

/// Why nobody can say when it will be over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NoCompletion {
    /// Nothing runs: it is a template.
    NotRunning,
    /// It is over.
    Ended,
    /// A step failed or was called off: it will not be done before somebody mends that.
    Stuck,
    /// No step was ever measured.
    NothingMeasured,
}

impl NoCompletion {
    /// The name on the wire and on screen.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::NotRunning => "not_running",
            Self::Ended => "ended",
            Self::Stuck => "stuck",
            Self::NothingMeasured => "nothing_measured",
        }
    }
}

pub(super) fn completion(
    graph: &Graph,
    facts: &[StepFacts],
    planned: &Planned,
    now: Timestamp,
) -> Result<Completion, NoCompletion> {
    if facts.iter().all(|step| step.state.is_none()) {
        return Err(NoCompletion::NotRunning);
    }
    if facts.iter().any(StepFacts::is_stuck) {
        return Err(NoCompletion::Stuck);
    }
    if facts.iter().all(StepFacts::is_done) {
        return Err(NoCompletion::Ended);
    }
    let assumed = planned.assumed.ok_or(NoCompletion::NothingMeasured)?;
    // Nothing but its mean is known: the widest distribution with that mean is the exponential one.
    let assumed = Spread { mean: assumed, deviation: assumed };

    let rounds = (DRAWS_MAX / graph.len().max(1)).clamp(ROUNDS_MIN, ROUNDS_MAX);
    let mut chance = Chance::new();
    let mut steps_assumed = 0;
    // When each step ends, in seconds from now, in every round; and the last of all.
    let mut ends = vec![0.0_f64; graph.len() * rounds];
    let mut last = vec![0.0_f64; rounds];
    let mut end = vec![0.0_f64; rounds];
    for &step in graph.topological_order() {
        let known = &facts[step];
        if known.is_done() {
            continue;
        }
        steps_assumed += usize::from(known.history.is_none());
        let run = Rest::of(known.history.map_or(assumed, |history| history.run));
        let wait = Rest::of(known.history.map(|history| history.wait).unwrap_or_default());
        let is_running = known.state == Some(JobState::Running);
        let ran = known.ran(now).unwrap_or_default().as_secs_f64();
        end.fill(known.due_at.map_or(Duration::ZERO, |due| due.since(now)).as_secs_f64());
        for &before in graph.dependencies(step) {
            let ended = &ends[before * rounds..(before + 1) * rounds];
            for (end, ended) in end.iter_mut().zip(ended) {
                *end = end.max(*ended);
            }
        }
        let left = if is_running { run.after(ran) } else { run };
        for (end, last) in end.iter_mut().zip(&mut last) {
            *end += left.draw(&mut chance);
            if !is_running {
                *end += wait.draw(&mut chance);
            }
            *last = last.max(*end);
        }
        ends[step * rounds..(step + 1) * rounds].copy_from_slice(&end);
    }
    last.sort_unstable_by(f64::total_cmp);
    let seconds = |value: f64| Duration::try_from_secs_f64(value.max(0.0)).unwrap_or(Duration::MAX);
    // One in twenty rounds lies outside on either side: half of what CONFIDENCE leaves.
    let outside = rounds / 20;
    Ok(Completion {
        remaining: seconds(
            last.iter().sum::<f64>() / super::facts::of_count(u64::try_from(rounds).unwrap_or(1)),
        ),
        remaining_low: seconds(last[outside]),
        remaining_high: seconds(last[rounds - 1 - outside]),
        steps_assumed,
    })
}

/// A duration with a least value and an exponential rest, in seconds.
#[derive(Clone, Copy)]
struct Rest {
    least: f64,
    mean: f64,
}

impl Rest {
    /// With this mean and deviation. No such one deviates by more than its mean: then it is exponential.
    fn of(spread: Spread) -> Self {
        let mean = spread.mean.as_secs_f64();
        let rest = spread.deviation.as_secs_f64().min(mean);
        Self { least: mean - rest, mean: rest }
    }

    /// What is left of it after `elapsed`: an exponential rest has no memory.
    fn after(self, elapsed: f64) -> Self {
        Self { least: (self.least - elapsed).max(0.0), mean: self.mean }
    }

    fn draw(self, chance: &mut Chance) -> f64 {
        if self.mean > 0.0 { self.least + self.mean * chance.exponential() } else { self.least }
    }
}

const QUANTILES: usize = 1 << 10;

/// Exponential values with mean 1, the same ones at every call: an estimate is a function of what is known. Xorshift
/// (Marsaglia 2003) draws among equally probable quantiles.
struct Chance {
    state: u64,
    quantiles: Vec<f64>,
}

impl Chance {
    fn new() -> Self {
        let of = |place: u32| -(1.0 - (f64::from(place) + 0.5) / 1024.0_f64).ln();
        Self { state: 0x9e37_79b9_7f4a_7c15, quantiles: (0..1024).map(of).collect() }
    }

    fn exponential(&mut self) -> f64 {
        self.state ^= self.state << 13;
        self.state ^= self.state >> 7;
        self.state ^= self.state << 17;
        let place = usize::try_from(self.state >> 54).unwrap_or(0) % QUANTILES;
        self.quantiles.get(place).copied().unwrap_or(1.0)
    }
}
