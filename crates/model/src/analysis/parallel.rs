//! How much could run at once, and how much did.

use std::time::Duration;

use super::facts::StepFacts;
use super::schedule::Planned;
use crate::job::JobState;
use crate::template::graph::Graph;
use crate::time::Timestamp;

/// How much runs at once.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Parallelism {
    /// Steps of the widest level.
    pub level_width_max: usize,
    /// All steps, one after the other.
    pub work: Duration,
    /// Most steps at once, when each begins as early as it can: more workers than this make nothing faster.
    pub possible_max: usize,
    /// Steps at once on average, then: work by the length of the critical path.
    pub possible_mean: f64,
    /// Steps that run now.
    pub running: usize,
    /// Most steps that ran at once so far, each by its last attempt.
    pub used_max: usize,
    /// Steps that ran at once on average, from the first start until now or the last end; `None` when none has begun.
    pub used_mean: Option<f64>,
}

pub(super) fn parallelism(
    graph: &Graph,
    facts: &[StepFacts],
    planned: &Planned,
    now: Timestamp,
) -> Parallelism {
    let work = planned.steps.iter().fold(Duration::ZERO, |sum, step| sum.saturating_add(step.duration));
    let length = planned.critical_path.length;
    let possible = planned
        .steps
        .iter()
        .map(|step| (micros(step.earliest_start), micros(step.earliest_start.saturating_add(step.duration))));

    let used: Vec<(i64, i64)> = facts
        .iter()
        .filter_map(|step| {
            let ran = step.ran(now)?;
            let started = step.started_at?;
            Some((started.micros(), started.plus(ran).micros()))
        })
        .collect();
    let ran = used.iter().map(|(start, end)| end.saturating_sub(*start)).fold(0, i64::saturating_add);
    let first = used.iter().map(|(start, _)| *start).min();
    let last = used.iter().map(|(_, end)| *end).max();
    let used_mean = first.zip(last).and_then(|(first, last)| {
        ratio(
            Duration::from_micros(u64::try_from(ran).unwrap_or(0)),
            Timestamp::from_micros(last).since(Timestamp::from_micros(first)),
        )
    });
    Parallelism {
        level_width_max: graph.levels().iter().map(Vec::len).max().unwrap_or(0),
        work,
        possible_max: most_at_once(possible),
        possible_mean: ratio(work, length).unwrap_or(0.0),
        running: facts.iter().filter(|step| step.state == Some(JobState::Running)).count(),
        used_max: most_at_once(used.into_iter()),
        used_mean,
    }
}

fn ratio(of: Duration, by: Duration) -> Option<f64> {
    (!by.is_zero()).then(|| of.as_secs_f64() / by.as_secs_f64())
}

/// Most intervals that overlap. What ends when another begins does not overlap it; what takes no time overlaps nothing.
fn most_at_once(intervals: impl Iterator<Item = (i64, i64)>) -> usize {
    let mut changes: Vec<(i64, bool)> = Vec::new();
    for (start, end) in intervals {
        if start < end {
            changes.push((start, true));
            changes.push((end, false));
        }
    }
    // Ends before starts of the same instant.
    changes.sort_unstable();
    let (mut at_once, mut most) = (0_usize, 0);
    for (_, begins) in changes {
        at_once = if begins { at_once + 1 } else { at_once.saturating_sub(1) };
        most = most.max(at_once);
    }
    most
}

fn micros(duration: Duration) -> i64 {
    crate::time::micros(duration)
}
