//! The same answers as networkx; `networkx_answers.py` made the file. `cargo xtask graphs --seed S` has it make another one, which
//! `RECACHE_NETWORKX_ANSWERS` names then.

use std::time::Duration;

use recache_model::analysis::{StepFacts, analyze};
use recache_model::template::graph::Graph;
use recache_model::time::Timestamp;
use serde::Deserialize;

#[derive(Deserialize)]
struct Answer {
    d: Vec<Vec<usize>>,
    w: Vec<u64>,
    l: u64,
    g: Vec<usize>,
}

#[test]
fn longest_paths_and_levels_are_those_of_networkx() {
    let mut compared = 0;
    let answers = match std::env::var_os("RECACHE_NETWORKX_ANSWERS") {
        Some(path) => std::fs::read_to_string(path).unwrap(),
        None => include_str!("networkx.jsonl").to_owned(),
    };
    for line in answers.lines() {
        let answer: Answer = serde_json::from_str(line).unwrap();
        let graph = Graph::new(answer.d.clone()).unwrap();
        let facts: Vec<StepFacts> =
            answer.w.iter().map(|seconds| StepFacts::known(Duration::from_secs(*seconds))).collect();
        let analysis = analyze(&graph, &facts, Timestamp::default());
        assert_eq!(analysis.critical_path.length, Duration::from_secs(answer.l), "{line}");
        let levels: Vec<usize> = analysis.steps.iter().map(|step| step.level).collect();
        assert_eq!(levels, answer.g, "{line}");
        let path = &analysis.critical_path.steps;
        assert_eq!(path.iter().map(|step| answer.w[*step]).sum::<u64>(), answer.l, "{line}");
        for pair in path.windows(2) {
            assert!(answer.d[pair[1]].contains(&pair[0]), "{line}");
        }
        compared += 1;
    }
    assert_eq!(compared, 500);
    println!("{compared} random graphs have the longest paths and levels that networkx finds");
}
