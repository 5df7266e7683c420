//! Small workflows of which the answers are known.

use std::time::Duration;

use recache_model::analysis::{
    Basis, DRAWN_STEPS_MAX, Drawing, Measure, NoCompletion, Spread, StepFacts, StepHistory, TooLarge,
    analyze, check_size, mermaid, svg, text,
};
use recache_model::job::JobState::{self, Blocked, Completed, Failed, Queued, Skipped};
use recache_model::template::graph::Graph;

use super::{at, in_state};

/// fetch, then tax and bill beside each other, then ship.
fn diamond() -> Graph {
    Graph::new(vec![vec![], vec![0], vec![0], vec![1, 2]]).unwrap()
}

fn history(run_s: u64, wait_s: u64) -> StepHistory {
    let spread = |seconds| Spread::exactly(Duration::from_secs(seconds));
    StepHistory { samples: 9, run: spread(run_s), wait: spread(wait_s) }
}

#[test]
fn template_without_history_counts_steps() {
    let analysis = analyze(&diamond(), &[], at(0));
    assert_eq!((analysis.measure, analysis.critical_path.length), (Measure::Steps, Duration::from_secs(3)));
    assert_eq!(analysis.critical_path.steps, [0, 1, 3]);
    assert_eq!((analysis.edges, analysis.roots, analysis.leaves), (4, vec![0], vec![3]));
    assert_eq!(analysis.completion, Err(NoCompletion::NotRunning));
    assert_eq!(analysis.parallelism.possible_max, 2);
    assert!((analysis.parallelism.possible_mean - 4.0 / 3.0).abs() < 1e-12);
    assert_eq!(analysis.parallelism.used_mean, None);
}

#[test]
fn running_workflow_is_estimated_from_history_and_what_was_measured() {
    let facts = [
        StepFacts { started_at: Some(at(100)), finished_at: Some(at(110)), ..in_state(JobState::Completed) },
        StepFacts { started_at: Some(at(110)), history: Some(history(8, 1)), ..in_state(JobState::Running) },
        StepFacts { due_at: Some(at(117)), history: Some(history(3, 1)), ..in_state(JobState::Queued) },
        StepFacts { history: Some(history(2, 1)), ..in_state(JobState::Blocked) },
    ];
    let analysis = analyze(&diamond(), &facts, at(115));
    let basis: Vec<Basis> = analysis.steps.iter().map(|step| step.basis).collect();
    assert_eq!(basis, [Basis::Measured, Basis::History, Basis::History, Basis::History]);
    assert_eq!(analysis.critical_path.length, Duration::from_secs(10 + 8 + 2));
    // Tax has 3 s left; bill is due in 2 s, waits 1 s and runs 3 s; ship waits 1 s and runs 2 s.
    let completion = analysis.completion.unwrap();
    assert_eq!(completion.remaining, Duration::from_secs(6 + 3));
    assert_eq!(
        (completion.remaining_low, completion.remaining_high),
        (completion.remaining, completion.remaining)
    );
    assert_eq!(analysis.parallelism.running, 1);
    assert_eq!((analysis.parallelism.used_max, analysis.parallelism.used_mean), (1, Some(1.0)));
}

#[test]
fn step_of_which_nothing_is_known_is_taken_for_an_average_one() {
    let mut facts = [10, 20, 0, 0].map(|s| StepFacts::known(Duration::from_secs(s)));
    (facts[2], facts[3]) = (StepFacts::default(), StepFacts::default());
    for step in &mut facts {
        step.state = Some(JobState::Blocked);
    }
    facts[0].state = Some(JobState::Queued);
    let analysis = analyze(&diamond(), &facts, at(0));
    assert_eq!(
        (analysis.steps[2].basis, analysis.steps[2].duration),
        (Basis::Assumed, Duration::from_secs(15))
    );
    let completion = analysis.completion.unwrap();
    assert_eq!(completion.steps_assumed, 2);
    assert!(
        completion.remaining_low < completion.remaining && completion.remaining < completion.remaining_high
    );
}

#[test]
fn nobody_estimates_what_is_stuck_ended_or_unknown() {
    let completion =
        |states: [JobState; 4]| analyze(&diamond(), &states.map(in_state), at(0)).completion.unwrap_err();
    assert_eq!(completion([Completed, Failed, Completed, Blocked]), NoCompletion::Stuck);
    assert_eq!(completion([Completed, Skipped, Completed, Completed]), NoCompletion::Ended);
    assert_eq!(completion([Queued, Blocked, Blocked, Blocked]), NoCompletion::NothingMeasured);
}

#[test]
fn retries_are_told_with_their_due_time() {
    let facts = [
        StepFacts { attempt: 1, attempts_max: 3, ..in_state(JobState::Completed) },
        StepFacts { attempt: 2, attempts_max: 3, ..in_state(JobState::Running) },
        StepFacts { attempt: 1, attempts_max: 3, due_at: Some(at(30)), ..in_state(JobState::Queued) },
        in_state(JobState::Blocked),
    ];
    let retries = analyze(&diamond(), &facts, at(20)).retries;
    let told: Vec<_> = retries.iter().map(|retry| (retry.step, retry.attempt, retry.due_in)).collect();
    assert_eq!(told, [(1, 2, None), (2, 1, Some(Duration::from_secs(10)))]);
}

#[test]
fn step_that_blocks_more_alone_comes_first() {
    // 0 and 1 both hold 2 up; only 1 holds 3 and 4 up.
    let graph = Graph::new(vec![vec![], vec![], vec![0, 1], vec![1], vec![3]]).unwrap();
    let facts = [Failed, Failed, Blocked, Blocked, Blocked].map(in_state);
    let blocked = analyze(&graph, &facts, at(0)).blocked;
    let told: Vec<_> =
        blocked.root_causes.iter().map(|c| (c.step, c.frees, c.blocks, c.chain.clone())).collect();
    assert_eq!(told, [(1, 2, 3, vec![3, 4]), (0, 0, 1, vec![2])]);
    assert_eq!((blocked.waiting, blocked.stuck), (3, 3));
}

#[test]
fn pictures_show_the_critical_path_and_escape_names() {
    let graph = diamond();
    let names = ["fetch", "<tax>", "bill", "ship\"];"].map(str::to_owned);
    let facts = [1, 5, 2, 1].map(|s| StepFacts::known(Duration::from_secs(s)));
    let analysis = analyze(&graph, &facts, at(0));
    let drawing = Drawing {
        title: "a & b",
        graph: &graph,
        names: &names,
        states: &[],
        measure: analysis.measure,
        steps: &analysis.steps,
        critical_path: &analysis.critical_path.steps,
    };
    let expected = "level 1\n  * fetch (~1.0 s)\nlevel 2\n  * <tax> (~5.0 s) <- fetch\n    bill (~2.0 s, slack 3.0 s) <- \
                    fetch\nlevel 3\n  * ship\"]; (~1.0 s) <- <tax>, bill\n";
    assert_eq!(text(&drawing), expected);
    let drawn = mermaid(&drawing);
    assert!(drawn.contains("s0 ==> s1\n") && drawn.contains("s0 --> s2\n"), "{drawn}");
    assert!(drawn.contains("s3[\"ship#34;#93;#59;<br/>"), "{drawn}");
    let drawn = svg(&drawing);
    assert!(drawn.contains("aria-label=\"a &amp; b\"") && drawn.contains("&lt;tax&gt;"), "{drawn}");
    assert_eq!(drawn.matches("class=\"b  c\"").count(), 3, "{drawn}");
    assert_eq!(drawn.matches("class=\"l c\"").count(), 2, "{drawn}");
}

#[test]
fn graph_that_is_too_large_is_not_drawn_for_others() {
    let chain = |steps: usize| {
        Graph::new((0..steps).map(|step| step.checked_sub(1).into_iter().collect()).collect()).unwrap()
    };
    assert_eq!(check_size(&chain(DRAWN_STEPS_MAX)), Ok(()));
    let steps = DRAWN_STEPS_MAX + 1;
    assert_eq!(check_size(&chain(steps)), Err(TooLarge { steps, lines: DRAWN_STEPS_MAX }));
    // Few steps, and all that can be between them.
    let dense = Graph::new((0..202).map(|step| (0..step).collect()).collect()).unwrap();
    assert_eq!(check_size(&dense), Err(TooLarge { steps: 202, lines: 20_301 }));
}
