//! The graph of steps: small cases by hand, large ones for their stack, random ones for their rules.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    missing_docs,
    reason = "a test says what it expects"
)]

use proptest::collection::vec;
use proptest::prelude::*;
use recache_model::template::graph::{Error, Graph};

/// Every order, level and neighbour of `graph` agrees with `dependencies`.
fn check(graph: &Graph, dependencies: &[Vec<usize>]) {
    assert_eq!(graph.len(), dependencies.len());
    let mut place = vec![None; dependencies.len()];
    for (at, &step) in graph.topological_order().iter().enumerate() {
        assert_eq!(place[step].replace(at), None, "step {step} comes twice");
    }
    assert!(place.iter().all(Option::is_some), "a step is missing");
    for (step, needed) in dependencies.iter().enumerate() {
        let mut level = 0;
        for &dependency in needed {
            assert!(place[dependency] < place[step], "{dependency} before {step}");
            assert!(graph.dependencies(step).contains(&dependency));
            assert!(graph.dependents(dependency).contains(&step));
            level = level.max(graph.level(dependency).unwrap() + 1);
        }
        assert_eq!(graph.level(step), Some(level));
        assert!(graph.levels()[level].contains(&step));
        assert!(graph.dependencies(step).iter().all(|dependency| needed.contains(dependency)));
        assert!(graph.dependents(step).iter().all(|dependent| dependencies[*dependent].contains(&step)));
    }
    assert_eq!(graph.levels().iter().map(Vec::len).sum::<usize>(), dependencies.len());
    let roots: Vec<_> = (0..dependencies.len()).filter(|step| dependencies[*step].is_empty()).collect();
    assert_eq!(graph.roots().collect::<Vec<_>>(), roots);
    let leaves: Vec<_> = (0..dependencies.len())
        .filter(|step| !dependencies.iter().any(|needed| needed.contains(step)))
        .collect();
    assert_eq!(graph.leaves().collect::<Vec<_>>(), leaves);
}

fn cycles(dependencies: Vec<Vec<usize>>) -> Vec<Vec<usize>> {
    match Graph::new(dependencies) {
        Err(Error::Cycles(cycles)) => cycles,
        other => panic!("expected cycles, got {other:?}"),
    }
}

#[test]
fn a_diamond_has_three_levels() {
    let dependencies = vec![vec![1, 2], vec![3], vec![3], vec![]];
    let graph = Graph::new(dependencies.clone()).unwrap();
    check(&graph, &dependencies);
    assert_eq!(graph.levels(), [vec![3], vec![1, 2], vec![0]]);
    assert_eq!(graph.dependents(3), [1, 2]);
    assert_eq!(graph.roots().collect::<Vec<_>>(), [3]);
    assert_eq!(graph.leaves().collect::<Vec<_>>(), [0]);
}

#[test]
fn no_steps_make_an_empty_graph() {
    let graph = Graph::new(Vec::new()).unwrap();
    assert!(graph.is_empty());
    assert!(graph.levels().is_empty());
    assert_eq!(graph.level(0), None);
    assert!(graph.dependents(0).is_empty());
}

#[test]
fn a_dependency_named_twice_counts_once() {
    let graph = Graph::new(vec![vec![], vec![0, 0]]).unwrap();
    assert_eq!(graph.dependencies(1), [0]);
    assert_eq!(graph.dependents(0), [1]);
}

#[test]
fn a_dependency_on_no_step_is_refused() {
    let error = Graph::new(vec![vec![], vec![2]]).unwrap_err();
    assert_eq!(error, Error::UnknownStep { step: 1, dependency: 2, steps: 2 });
    assert_eq!(error.to_string(), "step 1 depends on step 2, but there are only 2");
}

#[test]
fn separate_cycles_are_found_together() {
    // 0 needs itself; 1, 2 and 3 run in a circle; 4 waits for the circle; 5 and 6 need each other.
    let dependencies = vec![vec![0], vec![3], vec![1], vec![2], vec![1], vec![4, 6], vec![5]];
    assert_eq!(cycles(dependencies), [vec![0], vec![1, 3, 2], vec![5, 6]]);
}

#[test]
fn a_chain_of_100_000_steps_needs_no_deep_stack() {
    const STEPS: usize = 100_000;
    let work = || {
        // Both ways round, so that neither search direction is the lucky one.
        let ahead: Vec<Vec<usize>> =
            (0..STEPS).map(|step| if step + 1 < STEPS { vec![step + 1] } else { vec![] }).collect();
        let graph = Graph::new(ahead.clone()).unwrap();
        assert_eq!(graph.levels().len(), STEPS);
        assert_eq!(graph.topological_order()[0], STEPS - 1);
        let back: Vec<Vec<usize>> =
            (0..STEPS).map(|step| step.checked_sub(1).into_iter().collect()).collect();
        assert_eq!(Graph::new(back).unwrap().level(STEPS - 1), Some(STEPS - 1));
        let mut ring = ahead;
        ring[STEPS - 1].push(0);
        let found = cycles(ring);
        assert_eq!(found.len(), 1);
        assert_eq!(found[0].len(), STEPS);
    };
    // A recursion of this depth would not fit: 64 KiB is less than a byte a step.
    std::thread::Builder::new().stack_size(64 * 1024).spawn(work).unwrap().join().unwrap();
}

#[test]
fn dense_layers_are_walked_once_an_edge() {
    // 20 layers of 100: 190,000 edges, but 100 to the twentieth paths.
    let dependencies: Vec<Vec<usize>> = (0..2_000)
        .map(|step| if step < 100 { vec![] } else { (step / 100 * 100 - 100..step / 100 * 100).collect() })
        .collect();
    let graph = Graph::new(dependencies.clone()).unwrap();
    assert_eq!(graph.levels().len(), 20);
    let mut closed = dependencies;
    closed[0].push(1_999);
    let found = cycles(closed);
    assert_eq!(found.len(), 1);
    assert_eq!(found[0].len(), 20);
}

/// A random acyclic graph: steps renamed at random, so that order of declaration says nothing.
fn acyclic() -> impl Strategy<Value = Vec<Vec<usize>>> {
    (1_usize..40).prop_flat_map(|steps| {
        let names = Just((0..steps).collect::<Vec<_>>()).prop_shuffle();
        let edges = vec((0..steps, 0..steps), 0..steps * 3);
        (names, edges).prop_map(move |(names, edges)| {
            let mut dependencies = vec![Vec::new(); steps];
            for (one, other) in edges {
                if one != other {
                    dependencies[names[one.max(other)]].push(names[one.min(other)]);
                }
            }
            dependencies
        })
    })
}

proptest! {
    #[test]
    fn an_acyclic_graph_is_ordered_after_every_edge(dependencies in acyclic()) {
        check(&Graph::new(dependencies.clone()).unwrap(), &dependencies);
    }

    #[test]
    fn a_graph_is_refused_exactly_for_real_cycles(
        edges in vec((0_usize..12, 0_usize..12), 0..30),
    ) {
        let mut dependencies = vec![Vec::new(); 12];
        for (step, dependency) in &edges {
            dependencies[*step].push(*dependency);
        }
        // The slow and obvious way: who reaches whom.
        let mut reaches = [[false; 12]; 12];
        for (step, dependency) in &edges {
            reaches[*step][*dependency] = true;
        }
        for via in 0..12 {
            for from in 0..12 {
                for to in 0..12 {
                    reaches[from][to] |= reaches[from][via] && reaches[via][to];
                }
            }
        }
        match Graph::new(dependencies.clone()) {
            Ok(graph) => {
                prop_assert!((0..12).all(|step| !reaches[step][step]));
                check(&graph, &dependencies);
            }
            Err(Error::Cycles(cycles)) => {
                for cycle in &cycles {
                    for (at, step) in cycle.iter().enumerate() {
                        let next = cycle[(at + 1) % cycle.len()];
                        prop_assert!(dependencies[*step].contains(&next), "{cycle:?}");
                        prop_assert!(!cycle[..at].contains(step), "{cycle:?}");
                    }
                    prop_assert_eq!(cycle.first(), cycle.iter().min());
                }
                // Every step in a circle is in one knot with a cycle told, and each knot is told once.
                for step in (0..12).filter(|step| reaches[*step][*step]) {
                    let told = cycles
                        .iter()
                        .filter(|cycle| reaches[step][cycle[0]] && reaches[cycle[0]][step])
                        .count();
                    prop_assert_eq!(told, 1);
                }
            }
            Err(other) => prop_assert!(false, "{}", other),
        }
    }
}
