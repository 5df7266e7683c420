//! Large graphs: time and stack.

use std::time::{Duration, Instant};

use recache_model::analysis::{Spread, StepFacts, StepHistory, analyze};
use recache_model::job::JobState;
use recache_model::template::graph::Graph;

use super::{at, in_state};

const STEPS: usize = 100_000;

/// Layers of `width` steps; each waits for `degree` steps of the layer before.
fn layers(steps: usize, width: usize, degree: usize) -> Vec<Vec<usize>> {
    (0..steps)
        .map(|step| {
            let layer = step / width;
            if layer == 0 {
                return Vec::new();
            }
            (0..degree).map(|next| (layer - 1) * width + (step + next) % width).collect()
        })
        .collect()
}

/// As at work: the first half is done, but for one step in `failed_each`; the others have a history.
fn facts(graph: &Graph, failed_each: usize) -> Vec<StepFacts> {
    let spread = |seconds| Spread { mean: Duration::from_secs(seconds), deviation: Duration::from_secs(1) };
    let history = Some(StepHistory { samples: 50, run: spread(7), wait: spread(1) });
    let mut facts = vec![StepFacts { history, ..in_state(JobState::Blocked) }; graph.len()];
    for &step in graph.topological_order() {
        let is_ready =
            graph.dependencies(step).iter().all(|before| facts[*before].state == Some(JobState::Completed));
        if is_ready && step < graph.len() / 2 {
            let state =
                if step % failed_each == failed_each - 1 { JobState::Failed } else { JobState::Completed };
            let started = i64::try_from(step % 777).unwrap();
            facts[step] = StepFacts {
                started_at: Some(at(started)),
                finished_at: Some(at(started + 1 + i64::try_from(step % 13).unwrap())),
                ..in_state(state)
            };
        }
    }
    facts
}

#[test]
fn layered_graph_of_3_5_thousand_million_paths_is_walked_once() {
    let graph = Graph::new(layers(60, 3, 3)).unwrap();
    let analysis = analyze(&graph, &[], at(0));
    assert_eq!(analysis.critical_path.length, Duration::from_secs(20));
    assert_eq!(analysis.parallelism.level_width_max, 3);
    assert!(analysis.steps.iter().all(|step| step.slack.is_zero()));
    assert_eq!(analysis.critical_path.steps.len(), 20);
}

/// The limit holds for a release build, as `cargo test --release`; a debug build is some ten times slower.
#[test]
#[expect(clippy::disallowed_methods, reason = "what is tested is how long it takes")]
fn a_hundred_thousand_steps_take_less_than_200_ms() {
    let limit = Duration::from_millis(if cfg!(debug_assertions) { 8_000 } else { 200 });
    let shapes = [
        ("chain", layers(STEPS, 1, 1)),
        ("layers", layers(STEPS, 100, 5)),
        ("wide", layers(STEPS, STEPS / 2, 2)),
    ];
    for (name, dependencies) in shapes {
        for (trouble, failed_each) in [("nothing failed", STEPS), ("some failed", 997)] {
            let best = (0..3)
                .map(|_| {
                    let dependencies = dependencies.clone();
                    let began = Instant::now();
                    let graph = Graph::new(dependencies).unwrap();
                    let built = began.elapsed();
                    let facts = facts(&graph, failed_each);
                    let began = Instant::now();
                    let analysis = analyze(&graph, &facts, at(1_000));
                    let analyzed = began.elapsed();
                    assert_eq!(analysis.completion.is_ok(), failed_each == STEPS, "{name}");
                    assert_eq!(analysis.blocked.root_causes_total > 0, failed_each < STEPS, "{name}");
                    built + analyzed
                })
                .min()
                .unwrap();
            println!("{name}, {trouble}: {STEPS} steps, graph and analysis in {best:?}");
            assert!(best < limit, "{name}, {trouble}: {best:?}");
        }
    }
}

#[test]
fn deep_graphs_need_no_deep_stack() {
    let work = || {
        let graph = Graph::new(layers(STEPS, 1, 1)).unwrap();
        let mut facts = vec![in_state(JobState::Blocked); STEPS];
        facts[0] = in_state(JobState::Failed);
        let analysis = analyze(&graph, &facts, at(0));
        assert_eq!(
            (analysis.blocked.root_causes[0].frees, analysis.blocked.root_causes[0].blocks),
            (STEPS - 1, STEPS - 1)
        );
        assert_eq!(analysis.blocked.root_causes[0].chain_steps, STEPS - 1);
    };
    std::thread::Builder::new().stack_size(128 * 1024).spawn(work).unwrap().join().unwrap();
}
