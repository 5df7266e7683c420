//! Random graphs of steps with random outcomes: the engine's final states are those of a model that knows nothing of time,
//! transactions and turns, nor of engines that vanish in the middle of what they do.
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
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use rand::rngs::SmallRng;
use rand::{Rng as _, SeedableRng as _};
use recache_engine::{Engine, Options};
use recache_model::ids::WorkflowId;
use recache_model::job::JobState;
use recache_model::template::Template;
use recache_model::template::limits::DECISION_DEPTH_MAX;
use recache_model::workflow::WorkflowState;
use recache_store::conformance::{TestDatabase, postgres_database, sqlite_database};
use recache_store::{OpenOptions, Store, open};
use recache_worker::{Context, Failure, Handlers};
use serde_json::{Value, json};
use support::{quick, store_of};

/// Chooses the graphs; printed, so that a run can be had again.
const SEED: &str = "RECACHE_RANDOM_SEED";
/// How many graphs on each database. Default 60; 2000 is the long form.
const GRAPHS: &str = "RECACHE_RANDOM_GRAPHS";
/// How large they may be. Default 40, and one of 500; 500 in the long form.
const STEPS: &str = "RECACHE_RANDOM_STEPS";
/// How many graphs on each database beside engines that vanish. Default 4.
const CRASHED_GRAPHS: &str = "RECACHE_RANDOM_CRASHED_GRAPHS";
/// How long what an engine held is lost where it vanishes.
const LEASE: Duration = Duration::from_secs(1);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Standard,
    Decision,
    Convergence,
    /// Says how many rows there are for the [`Kind::Worker`] that follows it.
    Batches {
        rows: u64,
    },
    /// One run for each row. One of them fails, where there is such a one.
    Worker {
        strategy: Strategy,
        rows: u64,
        fails_at: Option<u64>,
    },
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Strategy {
    ContinueOnFailure,
    FailFast,
    Isolate,
}

impl Strategy {
    fn name(self) -> &'static str {
        match self {
            Self::ContinueOnFailure => "continue_on_failure",
            Self::FailFast => "fail_fast",
            Self::Isolate => "isolate",
        }
    }

    /// How a step ends of which a run fails.
    fn end(self) -> JobState {
        match self {
            Self::ContinueOnFailure => JobState::Completed,
            // With the run that failed, until somebody has retried or resolved it.
            Self::FailFast | Self::Isolate => JobState::Blocked,
        }
    }
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
    while steps.len() < count {
        let index = steps.len();
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
        let kind = match random.random_range(0..20) {
            0..4 => Kind::Decision,
            4..8 if !dependencies.is_empty() => Kind::Convergence,
            8 if index + 1 < count => Kind::Batches { rows: random.random_range(0..4) },
            _ => Kind::Standard,
        };
        let when = random.random_bool(0.2).then(|| random.random_bool(0.6));
        let for_each =
            (kind == Kind::Standard && random.random_bool(0.05)).then(|| random.random_range(0..4));
        let fails = random.random_bool(fail_part);
        steps.push(Drawn { kind, dependencies, when, for_each, fails, choice: Vec::new() });
        if let Kind::Batches { rows } = kind {
            let strategies = [Strategy::ContinueOnFailure, Strategy::FailFast, Strategy::Isolate];
            let strategy = strategies[random.random_range(0..strategies.len())];
            let fails_at =
                (rows > 0 && random.random_bool(fail_part * 4.0)).then(|| random.random_range(0..rows));
            steps.push(Drawn {
                kind: Kind::Worker { strategy, rows, fails_at },
                dependencies: vec![index],
                when: None,
                for_each: None,
                fails: false,
                choice: Vec::new(),
            });
        }
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
            let mut settings = json!({ "fails": step.fails, "result": choice });
            match step.kind {
                Kind::Batches { rows } => settings["result"] = json!({ "rows": rows }),
                Kind::Worker { fails_at, .. } => settings["fails_at"] = json!(fails_at),
                Kind::Standard | Kind::Decision | Kind::Convergence => {}
            }
            let mut fields = json!({
                "name": name(&index),
                "type": match step.kind {
                    Kind::Standard => "standard",
                    Kind::Decision => "decision",
                    Kind::Convergence => "deferred_convergence",
                    Kind::Batches { .. } => "batchable",
                    Kind::Worker { .. } => "batch_worker",
                },
                // Engines that vanish cost attempts, and no ends.
                "retry": { "max_attempts": 1_000, "backoff": "none" },
                "handler": { "callable": "act", "initialization": settings },
                "dependencies": step.dependencies.iter().map(name).collect::<Vec<_>>(),
            });
            let map = fields.as_object_mut().unwrap();
            if let Some(when) = step.when {
                map.insert("when".to_owned(), json!(if when { "input.yes" } else { "not input.yes" }));
            }
            if let Some(Kind::Worker { strategy, .. }) = steps.get(index + 1).map(|next| next.kind)
                && matches!(step.kind, Kind::Batches { .. })
            {
                let config = json!({ "batch_size": 1, "parallelism": 2, "failure_strategy": strategy.name(),
                    "worker_template": name(&(index + 1)) });
                map.insert("batch_config".to_owned(), config);
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
            } else if let Kind::Worker { strategy, fails_at: Some(_), .. } = step.kind {
                strategy.end()
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
            // So that an engine that vanishes leaves some in the middle.
            tokio::time::sleep(Duration::from_millis(5)).await;
            let settings = &context.facts().settings;
            let place = context.item().map(|item| item["batch"].clone());
            if settings["fails"] == true
                || (!settings["fails_at"].is_null() && place == Some(settings["fails_at"].clone()))
            {
                return Err(Failure::permanent("drawn", "it was drawn to fail"));
            }
            Ok(settings["result"].clone())
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

async fn check(engine: &Engine, seed: u64, count: usize) -> WorkflowId {
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
    id
}

/// Engines that take part one after the other and vanish in the middle of what they do, with their connections, as if their process were
/// killed. What they held is lost until its lease is over.
struct Vanishing {
    is_over: Arc<AtomicBool>,
    thread: JoinHandle<u32>,
}

impl Vanishing {
    fn begin(url: String, seed: u64) -> Self {
        let is_over = Arc::new(AtomicBool::new(false));
        let ends = Arc::clone(&is_over);
        // Where what they leave behind is dropped.
        let outside = tokio::runtime::Handle::current();
        let thread = std::thread::spawn(move || {
            let mut random = SmallRng::seed_from_u64(seed);
            let mut vanished = 0;
            while !ends.load(Ordering::SeqCst) {
                let lives = Duration::from_millis(random.random_range(20..500));
                let runtime = tokio::runtime::Builder::new_multi_thread()
                    .worker_threads(1)
                    .enable_all()
                    .build()
                    .unwrap();
                let left = runtime.block_on(async {
                    let store = open(&OpenOptions::new(&url)).await.unwrap();
                    let options = Options { slots: 8, lease: LEASE, ..quick() };
                    let engine = Engine::builder(Arc::clone(&store))
                        .handlers(handlers())
                        .options(options)
                        .start()
                        .await
                        .unwrap();
                    tokio::time::sleep(lives).await;
                    (engine, store)
                });
                runtime.shutdown_background();
                let _entered = outside.enter();
                drop(left);
                vanished += 1;
            }
            vanished
        });
        Self { is_over, thread }
    }

    fn end(self) -> u32 {
        self.is_over.store(true, Ordering::SeqCst);
        self.thread.join().unwrap()
    }
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

/// The same beside engines that vanish.
async fn random_crashes(database: TestDatabase) {
    let seed = number(SEED, rand::random::<u32>().into());
    let (graphs, steps_max) = (number(CRASHED_GRAPHS, 4), number(STEPS, 200));
    eprintln!("{SEED}={seed} {CRASHED_GRAPHS}={graphs} {STEPS}={steps_max}");
    let store: Arc<dyn Store> = store_of(&database).await;
    // Slow enough that the others have work.
    let options = Options { slots: 1, lease: LEASE, ..quick() };
    let engine =
        Engine::builder(Arc::clone(&store)).handlers(handlers()).options(options).start().await.unwrap();
    let vanishing = Vanishing::begin(database.url().to_owned(), seed);
    let mut sizes = SmallRng::seed_from_u64(seed);
    let mut lost = 0;
    for graph in 0..graphs {
        let id = check(&engine, seed + graph, sizes.random_range(steps_max / 2..=steps_max)).await;
        let steps = store.workflow_steps(id).await.unwrap();
        lost += steps.iter().filter(|step| step.job.attempt > 1).count();
    }
    let vanished = vanishing.end();
    eprintln!("{vanished} engines vanished, {lost} steps had more than one attempt");
    assert!(lost > 0, "none of {vanished} engines that vanished held anything");
    assert_eq!(store.maintenance().counts_compare(None, 10_000).await.unwrap().differences, []);
    engine.shut_down().await;
    store.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn random_graphs_end_as_the_model_says_though_engines_vanish_sqlite() {
    random_crashes(sqlite_database()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn random_graphs_end_as_the_model_says_though_engines_vanish_postgres() {
    if let Some(database) = postgres_database().await {
        random_crashes(database).await;
    }
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
