//! The critical path method (Kelley and Walker, 1959): earliest and latest starts, slack, the longest way through.

use std::time::Duration;

use super::facts::StepFacts;
use crate::job::JobState;
use crate::template::graph::{Graph, StepIndex};
use crate::time::Timestamp;

/// What lengths are made of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Measure {
    /// Time, measured or expected.
    Time,
    /// Nothing is known of any step: each counts as one second, so that a length in seconds is a number of steps.
    Steps,
}

/// From where a step's duration is known.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Basis {
    /// It has ended, and ran so long.
    Measured,
    /// It has been running for so long, which is longer than it used to.
    Elapsed,
    /// It ran so long in earlier workflows, on average.
    History,
    /// Nothing is known of it: it is taken for as long as the steps that are known, on average.
    Assumed,
    /// Nothing is known of any step.
    Counted,
}

impl Basis {
    /// The name on the wire and on screen.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Measured => "measured",
            Self::Elapsed => "elapsed",
            Self::History => "history",
            Self::Assumed => "assumed",
            Self::Counted => "counted",
        }
    }
}

/// A step's place in time, as if every step began when the last one that it waits for ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StepPlan {
    /// How many steps are below it on the longest chain.
    pub level: usize,
    /// How long it runs.
    pub duration: Duration,
    /// From where that is known.
    pub basis: Basis,
    /// When it can begin, from the beginning of all.
    pub earliest_start: Duration,
    /// How much later it may begin and nothing ends later.
    pub slack: Duration,
    /// It is on the critical path. Others may have no slack either, where several ways are equally long.
    pub is_critical: bool,
}

/// The longest way through.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct CriticalPath {
    /// From the first to the last. Of ways that are equally long, the one with the lowest steps, seen from its end.
    pub steps: Vec<StepIndex>,
    /// How long they run together.
    pub length: Duration,
}

/// What [`plan`] concludes.
pub(super) struct Planned {
    pub(super) measure: Measure,
    pub(super) steps: Vec<StepPlan>,
    pub(super) critical_path: CriticalPath,
    /// How long a step of which nothing is known is taken to run.
    pub(super) assumed: Option<Duration>,
}

pub(super) fn plan(graph: &Graph, facts: &[StepFacts], now: Timestamp) -> Planned {
    let known: Vec<Option<(Duration, Basis)>> = facts.iter().map(|step| known(step, now)).collect();
    let assumed = mean(known.iter().flatten().map(|(duration, _)| *duration));
    let measure = if assumed.is_some() { Measure::Time } else { Measure::Steps };
    let unknown = assumed.map_or((Duration::from_secs(1), Basis::Counted), |mean| (mean, Basis::Assumed));

    let mut steps: Vec<StepPlan> = (known.into_iter().enumerate())
        .map(|(step, known)| {
            let (duration, basis) = known.unwrap_or(unknown);
            StepPlan {
                level: graph.level(step).unwrap_or(0),
                duration,
                basis,
                earliest_start: Duration::ZERO,
                slack: Duration::ZERO,
                is_critical: false,
            }
        })
        .collect();
    for &step in graph.topological_order() {
        let ends = graph.dependencies(step).iter().map(|&dependency| end(&steps[dependency]));
        steps[step].earliest_start = ends.max().unwrap_or(Duration::ZERO);
    }
    let length = steps.iter().map(end).max().unwrap_or(Duration::ZERO);

    // The latest end of a step is the earliest of the latest starts that wait for it.
    let mut latest_start = vec![Duration::ZERO; steps.len()];
    for &step in graph.topological_order().iter().rev() {
        let before = graph.dependents(step).iter().map(|&waiting| latest_start[waiting]).min();
        latest_start[step] = before.unwrap_or(length).saturating_sub(steps[step].duration);
        steps[step].slack = latest_start[step].saturating_sub(steps[step].earliest_start);
    }

    let mut path = Vec::new();
    let mut next = (0..steps.len()).find(|step| end(&steps[*step]) == length);
    while let Some(step) = next {
        path.push(step);
        steps[step].is_critical = true;
        let begins = steps[step].earliest_start;
        next = graph.dependencies(step).iter().copied().find(|before| end(&steps[*before]) == begins);
    }
    path.reverse();
    Planned { measure, steps, critical_path: CriticalPath { steps: path, length }, assumed }
}

fn end(step: &StepPlan) -> Duration {
    step.earliest_start.saturating_add(step.duration)
}

/// A step's duration, if anything tells it.
fn known(step: &StepFacts, now: Timestamp) -> Option<(Duration, Basis)> {
    let used_to = step.history.map(|history| history.run.mean);
    let ran = step.ran(now);
    if step.finished_at.is_some() {
        // What ended without ever having begun took no time.
        return Some((ran.unwrap_or_default(), Basis::Measured));
    }
    match (ran.filter(|_| step.state == Some(JobState::Running)), used_to) {
        (Some(ran), Some(used_to)) if used_to > ran => Some((used_to, Basis::History)),
        (Some(ran), _) => Some((ran, Basis::Elapsed)),
        (None, Some(used_to)) => Some((used_to, Basis::History)),
        (None, None) => None,
    }
}

fn mean(durations: impl Iterator<Item = Duration>) -> Option<Duration> {
    let (mut count, mut sum) = (0_u32, Duration::ZERO);
    for one in durations {
        count = count.saturating_add(1);
        sum = sum.saturating_add(one);
    }
    sum.checked_div(count)
}
