//! Random graphs of steps with random outcomes: the engine's final states are those of a model that knows nothing of time,
//! transactions and turns.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stderr,
    missing_docs,
    reason = "a test says what it expects, and from which seed it ran"
)]

mod support;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use rand::rngs::SmallRng;
use rand::{Rng as _, SeedableRng as _};
use recache_engine::{Engine, Options};
use recache_model::ids::WorkflowId;
use recache_model::job::JobState;
use recache_model::template::Template;
use recache_model::template::limits::DECISION_DEPTH_MAX;
use recache_model::workflow::WorkflowState;
use recache_store::Store;
use recache_store::conformance::{TestDatabase, postgres_database, sqlite_database};
use recache_worker::{Context, Failure, Handlers};
use serde_json::{Value, json};
use support::{quick, store_of};

/// Chooses the graphs; printed, so that a run can be had again.
const SEED: &str = "RECACHE_RANDOM_SEED";
/// How many graphs on each database. Default 60; 2000 is the long form.
const GRAPHS: &str = "RECACHE_RANDOM_GRAPHS";
/// How large they may be. Default 40, and one of 500; 500 in the long form.
const STEPS: &str = "RECACHE_RANDOM_STEPS";

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Standard,
    Decision,
    Convergence,
}

#[derive(Debug, Clone)]
struct Drawn {
    kind: Kind,
    dependencies: Vec<usize>,
    when: Option<bool>,
    for_each: Option<u64>,
    fails: bool,
    /// What a decision names.
    choice: Vec<usize>,
}

fn draw(random: &mut SmallRng, count: usize, fail_part: f64) -> Vec<Drawn> {
    let mut steps: Vec<Drawn> = Vec::with_capacity(count);
    for index in 0..count {
        let mut dependencies = Vec::new();
        for _ in 0..random.random_range(0..=3) {
            if index > 0 {
                // Near ones mostly, so that there are chains.
                let back = random.random_range(1..=index.min(8));
                dependencies.push(index - back);
            }
        }
        dependencies.sort_unstable();
        dependencies.dedup();
        let kind = match random.random_range(0..10) {
            0..2 => Kind::Decision,
            2..4 if !dependencies.is_empty() => Kind::Convergence,
            _ => Kind::Standard,
        };
        let when = random.random_bool(0.2).then(|| random.random_bool(0.6));
        let for_each =
            (kind == Kind::Standard && random.random_bool(0.05)).then(|| random.random_range(0..4));
        let fails = random.random_bool(fail_part);
        steps.push(Drawn { kind, dependencies, when, for_each, fails, choice: Vec::new() });
    }
    // What no template may say is taken back.
    for index in 0..count {
        let can_be_named: Vec<usize> = (index + 1..count)
            .filter(|later| {
                steps[*later].dependencies.contains(&index) && steps[*later].kind != Kind::Convergence
            })
            .collect();
        if steps[index].kind == Kind::Decision && can_be_named.is_empty() {
            steps[index].kind = Kind::Standard;
        }
        steps[index].choice = can_be_named.into_iter().filter(|_| random.random_bool(0.6)).collect();
    }
    let mut later = vec![false; count];
    let mut depth = vec![0; count];
    for index in 0..count {
        let above = steps[index].dependencies.iter().map(|parent| depth[*parent]).max().unwrap_or(0);
        if steps[index].kind == Kind::Decision && above == DECISION_DEPTH_MAX {
            steps[index].kind = Kind::Standard;
        }
        depth[index] = above + usize::from(steps[index].kind == Kind::Decision);
        let gathers = steps[index].dependencies.iter().any(|parent| later[*parent]);
        if steps[index].kind == Kind::Convergence && !gathers {
            steps[index].kind = Kind::Standard;
        }
        let of_parent = |parent: &usize| later[*parent] || steps[*parent].kind == Kind::Decision;
        later[index] = steps[index].dependencies.iter().any(of_parent)
            || steps[index].when.is_some()
            || steps[index].for_each.is_some();
    }
    // A step that was no convergence any more can be named; that it is not is a choice like any other.
    steps
}

fn template(steps: &[Drawn], number: u64) -> Template {
    let name = |index: &usize| format!("s{index}");
    let list: Vec<Value> = steps
        .iter()
        .enumerate()
        .map(|(index, step)| {
            let choice: Vec<String> = step.choice.iter().map(name).collect();
            let settings = json!({ "fails": step.fails, "choice": choice });
            let mut fields = json!({
                "name": name(&index),
                "type": match step.kind {
                    Kind::Standard => "standard",
                    Kind::Decision => "decision",
                    Kind::Convergence => "deferred_convergence",
                },
                "handler": { "callable": "act", "initialization": settings },
                "dependencies": step.dependencies.iter().map(name).collect::<Vec<_>>(),
            });
            let map = fields.as_object_mut().unwrap();
            if let Some(when) = step.when {
                map.insert("when".to_owned(), json!(if when { "input.yes" } else { "not input.yes" }));
            }
            if let Some(elements) = step.for_each {
                map.insert("for_each".to_owned(), json!(format!("input.lists[{elements}]")));
            }
            fields
        })
        .collect();
    let source = json!({ "name": format!("random-{number}"), "version": "1.0.0", "steps": list }).to_string();
    Template::parse(&source, "random.json").unwrap_or_else(|problems| panic!("{problems}\n{source}"))
}

/// Where each step ends; `None`: it never exists. In the order of the steps, which is topological.
fn model(steps: &[Drawn]) -> Vec<Option<JobState>> {
    let mut ends: Vec<Option<JobState>> = Vec::with_capacity(steps.len());
    let mut above: Vec<Vec<usize>> = Vec::with_capacity(steps.len());
    for (index, step) in steps.iter().enumerate() {
        let mut decisions: Vec<usize> =
            step.dependencies.iter().flat_map(|parent| above[*parent].clone()).collect();
        decisions.extend(step.dependencies.iter().filter(|parent| steps[**parent].kind == Kind::Decision));
        decisions.sort_unstable();
        decisions.dedup();
        let is_made =
            |decision: &usize| matches!(ends[*decision], Some(JobState::Completed | JobState::Skipped));
        let end = decisions.iter().all(is_made).then(|| {
            let before = || step.dependencies.iter().map(|parent| ends[*parent]);
            let not_chosen = |parent: &usize| {
                steps[*parent].kind == Kind::Decision
                    && ends[*parent] == Some(JobState::Completed)
                    && !steps[*parent].choice.contains(&index)
            };
            let is_convergence = step.kind == Kind::Convergence;
            if !is_convergence && step.dependencies.iter().any(not_chosen) {
                return JobState::Skipped;
            }
            if before().any(|end| !matches!(end, Some(JobState::Completed | JobState::Skipped))) {
                return JobState::Blocked;
            }
            let skipped = before().filter(|end| *end == Some(JobState::Skipped)).count();
            let is_needed = if is_convergence { skipped < step.dependencies.len() } else { skipped == 0 };
            if !is_needed || step.when == Some(false) {
                JobState::Skipped
            } else if step.fails && step.for_each != Some(0) {
                // Of a step that is split the runs fail, and it waits for them.
                if step.for_each.is_some() { JobState::Blocked } else { JobState::Failed }
            } else {
                JobState::Completed
            }
        });
        ends.push(end);
        above.push(decisions);
    }
    ends
}

fn handlers() -> Handlers {
    let mut handlers = Handlers::new();
    handlers
        .job("act", async |context: Context, _: Value| {
            let settings = &context.facts().settings;
            if settings["fails"] == true {
                return Err(Failure::permanent("drawn", "it was drawn to fail"));
            }
            Ok(settings["choice"].clone())
        })
        .unwrap();
    handlers
}

fn number<T: std::str::FromStr>(variable: &str, default: T) -> T
where
    T::Err: std::fmt::Debug,
{
    std::env::var(variable).map_or(default, |text| text.parse().expect("a number"))
}

async fn check(engine: &Engine, seed: u64, count: usize) {
    let mut random = SmallRng::seed_from_u64(seed);
    let fail_part = if random.random_bool(0.5) { 0.0 } else { 0.05 };
    let steps = draw(&mut random, count, fail_part);
    let id = WorkflowId::make();
    let input = json!({ "yes": true, "lists": [[], [1], [1, 2], [1, 2, 3]] });
    engine.submit_workflow(id, &template(&steps, seed), &input).await.unwrap();
    let ended = tokio::time::timeout(Duration::from_secs(120), engine.wait_for_workflow(id)).await;
    let record = ended.unwrap_or_else(|_| panic!("seed {seed}: it does not end")).unwrap();
    let found: BTreeMap<String, JobState> = engine
        .store()
        .workflow_steps(id)
        .await
        .unwrap()
        .into_iter()
        .filter(|step| step.job.parent.is_none())
        .map(|step| (step.job.step.unwrap(), step.job.state))
        .collect();
    let expected: BTreeMap<String, JobState> = model(&steps)
        .into_iter()
        .enumerate()
        .filter_map(|(index, end)| Some((format!("s{index}"), end?)))
        .collect();
    let names = found.keys().chain(expected.keys());
    let wrong: std::collections::BTreeSet<&String> =
        names.filter(|name| found.get(*name) != expected.get(*name)).collect();
    for name in &wrong {
        let index: usize = name[1..].parse().unwrap();
        eprintln!("{name}: {:?}, expected {:?}: {:?}", found.get(*name), expected.get(*name), steps[index]);
        for parent in &steps[index].dependencies {
            eprintln!("  after s{parent}: {:?} {:?}", found.get(&format!("s{parent}")), steps[*parent]);
        }
    }
    assert!(wrong.is_empty(), "seed {seed}, {count} steps: {wrong:?}");
    let has_failed = expected.values().any(|state| matches!(state, JobState::Failed | JobState::Blocked));
    let state = if has_failed { WorkflowState::Failed } else { WorkflowState::Completed };
    assert_eq!(record.state, state, "seed {seed}");
}

async fn random_graphs(database: TestDatabase, graphs: u64) {
    let seed = number(SEED, rand::random::<u32>().into());
    let (graphs, steps_max) = (number(GRAPHS, graphs), number(STEPS, 40));
    eprintln!("{SEED}={seed} {GRAPHS}={graphs} {STEPS}={steps_max}");
    let store: Arc<dyn Store> = store_of(&database).await;
    // Two engines: settlements of one workflow meet.
    let start = async || {
        let options = Options { slots: 8, ..quick() };
        Engine::builder(Arc::clone(&store)).handlers(handlers()).options(options).start().await.unwrap()
    };
    let (engine, other) = (start().await, start().await);
    let mut sizes = SmallRng::seed_from_u64(seed);
    for graph in 0..graphs {
        check(&engine, seed + graph, sizes.random_range(1..=steps_max)).await;
    }
    check(&engine, seed + graphs, 500).await;
    assert_eq!(store.maintenance().counts_compare(None, 10_000).await.unwrap().differences, []);
    other.shut_down().await;
    engine.shut_down().await;
    store.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn random_graphs_end_as_the_model_says_sqlite() {
    random_graphs(sqlite_database(), 60).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn random_graphs_end_as_the_model_says_postgres() {
    if let Some(database) = postgres_database().await {
        random_graphs(database, 30).await;
    }
}
