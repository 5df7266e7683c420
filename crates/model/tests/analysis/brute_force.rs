//! Random small graphs, and the slow and obvious way to each answer.

use std::collections::BTreeSet;
use std::time::Duration;

use proptest::collection::vec;
use proptest::prelude::*;
use recache_model::analysis::{Basis, StepFacts, analyze};
use recache_model::job::JobState;
use recache_model::template::graph::Graph;
use recache_model::time::Timestamp;

/// A random acyclic graph; steps are renamed, so that order of declaration says nothing.
fn acyclic(steps_max: usize) -> impl Strategy<Value = Vec<Vec<usize>>> {
    (1..steps_max).prop_flat_map(|steps| {
        let names = Just((0..steps).collect::<Vec<_>>()).prop_shuffle();
        let edges = vec((0..steps, 0..steps), 0..steps * 2);
        (names, edges).prop_map(move |(names, edges)| {
            let mut dependencies = vec![BTreeSet::new(); steps];
            for (one, other) in edges {
                if one != other {
                    dependencies[names[one.max(other)]].insert(names[one.min(other)]);
                }
            }
            dependencies.into_iter().map(|needed| needed.into_iter().collect()).collect()
        })
    })
}

/// Every way from a root to a leaf.
fn paths(dependencies: &[Vec<usize>]) -> Vec<Vec<usize>> {
    fn ways_to(step: usize, dependencies: &[Vec<usize>]) -> Vec<Vec<usize>> {
        if dependencies[step].is_empty() {
            return vec![vec![step]];
        }
        let mut ways = Vec::new();
        for before in &dependencies[step] {
            for mut way in ways_to(*before, dependencies) {
                way.push(step);
                ways.push(way);
            }
        }
        ways
    }
    (0..dependencies.len())
        .filter(|step| !dependencies.iter().any(|needed| needed.contains(step)))
        .flat_map(|leaf| ways_to(leaf, dependencies))
        .collect()
}

/// All that can be reached from `from` by going through waiting steps only.
fn waiting_below(from: usize, dependencies: &[Vec<usize>], states: &[JobState]) -> BTreeSet<usize> {
    let mut below = BTreeSet::new();
    let mut open = vec![from];
    while let Some(step) = open.pop() {
        for next in 0..dependencies.len() {
            if dependencies[next].contains(&step) && states[next] == JobState::Blocked && below.insert(next) {
                open.push(next);
            }
        }
    }
    below
}

proptest! {
    #[test]
    fn slack_is_what_the_longest_way_through_a_step_leaves(
        dependencies in acyclic(9),
        seconds in vec(0_u64..20, 9),
    ) {
        let graph = Graph::new(dependencies.clone()).unwrap();
        let facts: Vec<StepFacts> = seconds[..dependencies.len()]
            .iter()
            .map(|seconds| StepFacts::known(Duration::from_secs(*seconds)))
            .collect();
        let analysis = analyze(&graph, &facts, Timestamp::default());
        let ways = paths(&dependencies);
        let length = |way: &Vec<usize>| way.iter().map(|step| seconds[*step]).sum::<u64>();
        let longest = ways.iter().map(length).max().unwrap();
        prop_assert_eq!(analysis.critical_path.length, Duration::from_secs(longest));
        for step in 0..dependencies.len() {
            let through = ways.iter().filter(|way| way.contains(&step)).map(length).max().unwrap();
            prop_assert_eq!(analysis.steps[step].slack, Duration::from_secs(longest - through), "step {}", step);
        }
        let critical: BTreeSet<usize> = analysis.critical_path.steps.iter().copied().collect();
        for (step, plan) in analysis.steps.iter().enumerate() {
            prop_assert_eq!(plan.is_critical, critical.contains(&step));
        }
        // Second by second, and in the middle of each.
        let most = (0..longest).map(|second| {
            let now = Duration::from_millis(second * 1_000 + 500);
            analysis.steps.iter().filter(|p| p.earliest_start < now && now < p.earliest_start + p.duration).count()
        });
        prop_assert_eq!(analysis.parallelism.possible_max, most.max().unwrap_or(0));
        prop_assert_eq!(analysis.parallelism.work, Duration::from_secs(seconds[..dependencies.len()].iter().sum()));
    }

    #[test]
    fn root_causes_free_and_block_what_walking_the_graph_finds(
        dependencies in acyclic(14),
        chances in vec(0_u8..10, 14),
    ) {
        let graph = Graph::new(dependencies.clone()).unwrap();
        // States as they can be: a step whose dependencies are not all done waits.
        let mut states = vec![JobState::Completed; dependencies.len()];
        for &step in graph.topological_order() {
            let done = dependencies[step].iter().all(|before| states[*before] == JobState::Completed);
            states[step] = match chances[step] {
                _ if !done => JobState::Blocked,
                0..=4 => JobState::Completed,
                5 | 6 => JobState::Failed,
                7 => JobState::Cancelled,
                8 => JobState::Running,
                _ => JobState::Queued,
            };
        }
        let facts: Vec<StepFacts> = states.iter().map(|state| super::in_state(*state)).collect();
        let analysis = analyze(&graph, &facts, Timestamp::default());
        let is_stuck = |step: usize| matches!(states[step], JobState::Failed | JobState::Cancelled);
        let held: Vec<BTreeSet<usize>> = (0..dependencies.len())
            .map(|step| if is_stuck(step) { waiting_below(step, &dependencies, &states) } else { BTreeSet::new() })
            .collect();
        let expected: BTreeSet<usize> = (0..dependencies.len()).filter(|step| !held[*step].is_empty()).collect();
        let found: BTreeSet<usize> = analysis.blocked.root_causes.iter().map(|cause| cause.step).collect();
        prop_assert_eq!(&found, &expected);
        prop_assert_eq!(analysis.blocked.root_causes_total, expected.len());
        for cause in &analysis.blocked.root_causes {
            prop_assert_eq!(cause.blocks, held[cause.step].len());
            let alone = held[cause.step]
                .iter()
                .filter(|step| expected.iter().filter(|other| held[**other].contains(step)).count() == 1)
                .count();
            prop_assert_eq!(cause.frees, alone, "step {}", cause.step);
            prop_assert_eq!(cause.frees_work, Duration::from_secs(u64::try_from(alone).unwrap()));
            prop_assert_eq!(cause.chain.len(), cause.chain_steps);
            let mut before = cause.step;
            for &next in &cause.chain {
                prop_assert!(dependencies[next].contains(&before) && states[next] == JobState::Blocked);
                before = next;
            }
        }
        let order: Vec<usize> = analysis.blocked.root_causes.iter().map(|cause| cause.frees).collect();
        prop_assert!(order.windows(2).all(|pair| pair[0] >= pair[1]), "{:?}", order);
        let all: BTreeSet<usize> = held.iter().flatten().copied().collect();
        prop_assert_eq!(analysis.blocked.stuck, all.len());
        prop_assert_eq!(analysis.blocked.waiting, states.iter().filter(|s| **s == JobState::Blocked).count());
        prop_assert!(analysis.steps.iter().all(|step| step.basis == Basis::Counted));
    }
}
