//! What failed steps hold up, and which of them to mend first.

use std::time::Duration;

use super::facts::StepFacts;
use super::schedule::StepPlan;
use crate::job::JobState;
use crate::template::graph::{Graph, StepIndex};

/// Most root causes that are named; the others are counted. One bit each in the pass that counts what they block.
pub const ROOT_CAUSES_MAX: usize = 64;
/// Most steps that a chain names.
pub const CHAIN_STEPS_MAX: usize = 20;

/// What is held up.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Blocked {
    /// Steps that wait for others.
    pub waiting: usize,
    /// Steps among them that no longer wait for work but for somebody: below a step that failed or was called off.
    pub stuck: usize,
    /// Steps that hold others up and will not go on by themselves, the one first whose mending frees most. At most
    /// [`ROOT_CAUSES_MAX`].
    pub root_causes: Vec<RootCause>,
    /// How many there are.
    pub root_causes_total: usize,
}

/// A step that ended without being done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RootCause {
    /// Which one.
    pub step: StepIndex,
    /// Steps that nothing else holds up: mending this one alone frees them.
    pub frees: usize,
    /// How long those run.
    pub frees_work: Duration,
    /// Steps that it holds up, alone or with others.
    pub blocks: usize,
    /// The longest chain of steps that it holds up, without itself; at most [`CHAIN_STEPS_MAX`] are named.
    pub chain: Vec<StepIndex>,
    /// How many steps that chain has.
    pub chain_steps: usize,
}

/// Which stuck steps are above a step.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Above {
    None,
    /// This one only.
    One(StepIndex),
    Several,
}

impl Above {
    fn and(self, other: Self) -> Self {
        match (self, other) {
            (Self::None, other) => other,
            (one, Self::None) => one,
            (Self::One(one), Self::One(other)) if one == other => self,
            _ => Self::Several,
        }
    }
}

pub(super) fn blocked(graph: &Graph, facts: &[StepFacts], plans: &[StepPlan]) -> Blocked {
    let is_waiting = |step: StepIndex| facts[step].state == Some(JobState::Blocked);
    let mut above = vec![Above::None; graph.len()];
    let mut freed = vec![(0_usize, Duration::ZERO); graph.len()];
    let (mut waiting, mut stuck) = (0, 0);
    for &step in graph.topological_order() {
        let held = graph.dependencies(step).iter().map(|&dependency| {
            if facts[dependency].is_stuck() { Above::One(dependency) } else { above[dependency] }
        });
        above[step] = held.fold(Above::None, Above::and);
        if !is_waiting(step) {
            // Whatever was above it, it has gone on, or ended.
            above[step] = Above::None;
            continue;
        }
        waiting += 1;
        stuck += usize::from(above[step] != Above::None);
        if let Above::One(cause) = above[step] {
            freed[cause].0 += 1;
            freed[cause].1 = freed[cause].1.saturating_add(plans[step].duration);
        }
    }

    // The longest chain of waiting steps below each step, and its first step.
    let mut below: Vec<(usize, Option<StepIndex>)> = vec![(0, None); graph.len()];
    for &step in graph.topological_order().iter().rev() {
        for &next in graph.dependents(step).iter().filter(|next| is_waiting(**next)) {
            if below[next].0 + 1 > below[step].0 {
                below[step] = (below[next].0 + 1, Some(next));
            }
        }
    }

    let mut causes: Vec<StepIndex> = (0..graph.len())
        .filter(|&step| facts[step].is_stuck() && graph.dependents(step).iter().any(|next| is_waiting(*next)))
        .collect();
    causes.sort_by(|&one, &other| {
        let key = |step: StepIndex| (freed[step], below[step].0);
        key(other).cmp(&key(one)).then(one.cmp(&other))
    });
    let root_causes_total = causes.len();
    causes.truncate(ROOT_CAUSES_MAX);
    let blocks = blocks(graph, &causes, is_waiting);
    let mut root_causes: Vec<RootCause> = causes
        .iter()
        .zip(blocks)
        .map(|(&step, blocks)| RootCause {
            step,
            frees: freed[step].0,
            frees_work: freed[step].1,
            blocks,
            chain: std::iter::successors(below[step].1, |next| below[*next].1)
                .take(CHAIN_STEPS_MAX)
                .collect(),
            chain_steps: below[step].0,
        })
        .collect();
    root_causes.sort_by(|one, other| {
        let key = |cause: &RootCause| (cause.frees, cause.frees_work, cause.blocks);
        key(other).cmp(&key(one)).then(one.step.cmp(&other.step))
    });
    Blocked { waiting, stuck, root_causes, root_causes_total }
}

/// How many waiting steps are below each cause: one pass for all of them, with a bit for each.
fn blocks(graph: &Graph, causes: &[StepIndex], is_waiting: impl Fn(StepIndex) -> bool) -> Vec<usize> {
    let mut marks = vec![0_u64; graph.len()];
    let mut own = vec![0_u64; graph.len()];
    for (bit, &cause) in causes.iter().enumerate().take(ROOT_CAUSES_MAX) {
        own[cause] = 1 << bit;
    }
    let mut counts = vec![0; causes.len()];
    for &step in graph.topological_order() {
        if !is_waiting(step) {
            continue;
        }
        let mut mark =
            graph.dependencies(step).iter().fold(0, |mark, &above| mark | marks[above] | own[above]);
        marks[step] = mark;
        while mark != 0 {
            if let Some(count) =
                usize::try_from(mark.trailing_zeros()).ok().and_then(|bit| counts.get_mut(bit))
            {
                *count += 1;
            }
            mark &= mark - 1;
        }
    }
    counts
}
