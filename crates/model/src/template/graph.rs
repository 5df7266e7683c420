//! The graph of a workflow's steps: order, levels, neighbours, cycles.
//!
//! Steps are numbered as they are declared. Everything here is linear in steps and dependencies, and nothing
//! recurses: a chain of 100,000 steps needs no deep stack.

use std::collections::VecDeque;

/// Index of a step, in declaration order.
pub type StepIndex = usize;

/// Why steps make no graph that could be run.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// A step depends on one that does not exist.
    #[error("step {step} depends on step {dependency}, but there are only {steps}")]
    UnknownStep {
        /// The step.
        step: StepIndex,
        /// What it depends on.
        dependency: StepIndex,
        /// How many steps there are.
        steps: usize,
    },
    /// Some steps wait for each other in a circle.
    #[error("{} of the steps' dependencies run in a circle, the first one through {:?}", .0.len(), .0.first())]
    Cycles(Vec<Cycle>),
}

/// Steps that wait for each other: each depends on the next, the last on the first.
pub type Cycle = Vec<StepIndex>;

/// An acyclic graph of steps.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Graph {
    dependencies: Vec<Vec<StepIndex>>,
    dependents: Vec<Vec<StepIndex>>,
    order: Vec<StepIndex>,
    level_of: Vec<usize>,
    levels: Vec<Vec<StepIndex>>,
}

impl Graph {
    /// The graph in which step *i* depends on `dependencies[i]`; what is named twice counts once.
    ///
    /// Cycles are reported one for each knot of steps that can reach each other, so that separate mistakes are
    /// seen together; each begins at its lowest step, and they are sorted.
    pub fn new(mut dependencies: Vec<Vec<StepIndex>>) -> Result<Self, Error> {
        let steps = dependencies.len();
        let mut dependents = vec![Vec::new(); steps];
        for (step, needed) in dependencies.iter_mut().enumerate() {
            needed.sort_unstable();
            needed.dedup();
            for &dependency in needed.iter() {
                match dependents.get_mut(dependency) {
                    Some(waiting) => waiting.push(step),
                    None => return Err(Error::UnknownStep { step, dependency, steps }),
                }
            }
        }
        let mut waits_for: Vec<usize> = dependencies.iter().map(Vec::len).collect();
        let mut level_of = vec![0; steps];
        let mut ready: VecDeque<StepIndex> = (0..steps).filter(|step| waits_for[*step] == 0).collect();
        let mut order = Vec::with_capacity(steps);
        while let Some(step) = ready.pop_front() {
            order.push(step);
            for &waiting in &dependents[step] {
                level_of[waiting] = level_of[waiting].max(level_of[step] + 1);
                waits_for[waiting] -= 1;
                if waits_for[waiting] == 0 {
                    ready.push_back(waiting);
                }
            }
        }
        if order.len() < steps {
            return Err(Error::Cycles(cycles(&dependencies)));
        }
        let depth = level_of.iter().max().map_or(0, |deepest| deepest + 1);
        let mut levels = vec![Vec::new(); depth];
        for (step, level) in level_of.iter().enumerate() {
            levels[*level].push(step);
        }
        Ok(Self { dependencies, dependents, order, level_of, levels })
    }

    /// How many steps there are.
    pub fn len(&self) -> usize {
        self.order.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.order.is_empty()
    }

    /// All steps, each after everything that it depends on; level by level.
    pub fn topological_order(&self) -> &[StepIndex] {
        &self.order
    }

    /// Steps by level: a step's level is the length of the longest chain of dependencies below it. Steps of
    /// one level do not depend on each other.
    pub fn levels(&self) -> &[Vec<StepIndex>] {
        &self.levels
    }

    /// The level of `step`; none if there is no such step.
    pub fn level(&self, step: StepIndex) -> Option<usize> {
        self.level_of.get(step).copied()
    }

    /// What `step` depends on directly, ascending; empty if there is no such step.
    pub fn dependencies(&self, step: StepIndex) -> &[StepIndex] {
        self.dependencies.get(step).map_or(&[], Vec::as_slice)
    }

    /// What depends on `step` directly, ascending; empty if there is no such step.
    pub fn dependents(&self, step: StepIndex) -> &[StepIndex] {
        self.dependents.get(step).map_or(&[], Vec::as_slice)
    }

    /// Steps that depend on nothing.
    pub fn roots(&self) -> impl Iterator<Item = StepIndex> {
        without(&self.dependencies)
    }

    /// Steps on which nothing depends.
    pub fn leaves(&self) -> impl Iterator<Item = StepIndex> {
        without(&self.dependents)
    }
}

/// The steps whose list of neighbours is empty.
fn without(neighbours: &[Vec<StepIndex>]) -> impl Iterator<Item = StepIndex> {
    neighbours.iter().enumerate().filter(|(_, others)| others.is_empty()).map(|(step, _)| step)
}

/// One cycle of each strongly connected knot.
///
/// Within a knot every step has a dependency in the same knot, so following one such dependency after the other
/// must come back to a step already passed: that is the cycle, found without searching.
fn cycles(dependencies: &[Vec<StepIndex>]) -> Vec<Cycle> {
    let knot_of = knots(dependencies);
    let mut told = vec![false; dependencies.len()];
    let mut passed_at = vec![usize::MAX; dependencies.len()];
    let mut found = Vec::new();
    for start in 0..dependencies.len() {
        let knot = knot_of[start];
        if told[knot] {
            continue;
        }
        told[knot] = true;
        let mut walk = Vec::new();
        let mut step = start;
        loop {
            if passed_at[step] != usize::MAX {
                let mut cycle = walk.split_off(passed_at[step]);
                let lowest = cycle.iter().enumerate().min_by_key(|(_, step)| **step);
                let lowest = lowest.map_or(0, |(at, _)| at);
                cycle.rotate_left(lowest);
                found.push(cycle);
                break;
            }
            passed_at[step] = walk.len();
            walk.push(step);
            match dependencies[step].iter().find(|next| knot_of[**next] == knot) {
                Some(next) => step = *next,
                // A step on its own, in no circle.
                None => break,
            }
        }
    }
    found.sort();
    found
}

/// The strongly connected knot of every step, by Tarjan's algorithm with its stack on the heap. Knots are named
/// by one of their steps.
fn knots(dependencies: &[Vec<StepIndex>]) -> Vec<StepIndex> {
    const UNSEEN: usize = usize::MAX;
    let steps = dependencies.len();
    let mut seen_at = vec![UNSEEN; steps];
    let mut lowest = vec![UNSEEN; steps];
    let mut knot_of = vec![UNSEEN; steps];
    let mut next_seen = 0;
    let mut open: Vec<StepIndex> = Vec::new();
    // A step and how many of its dependencies have been followed.
    let mut path: Vec<(StepIndex, usize)> = Vec::new();
    for start in 0..steps {
        if seen_at[start] != UNSEEN {
            continue;
        }
        path.push((start, 0));
        while let Some((step, followed)) = path.last_mut() {
            let step = *step;
            if *followed == 0 && seen_at[step] == UNSEEN {
                seen_at[step] = next_seen;
                lowest[step] = next_seen;
                next_seen += 1;
                open.push(step);
            }
            if let Some(&next) = dependencies[step].get(*followed) {
                *followed += 1;
                if seen_at[next] == UNSEEN {
                    path.push((next, 0));
                } else if knot_of[next] == UNSEEN {
                    lowest[step] = lowest[step].min(seen_at[next]);
                }
                continue;
            }
            path.pop();
            if let Some((parent, _)) = path.last() {
                lowest[*parent] = lowest[*parent].min(lowest[step]);
            }
            if lowest[step] == seen_at[step] {
                while let Some(member) = open.pop() {
                    knot_of[member] = step;
                    if member == step {
                        break;
                    }
                }
            }
        }
    }
    knot_of
}
