//! `kill -9` while workflows of every kind of step run: each of them ends with the one right result.

use std::sync::Arc;
use std::time::Duration;

use rand::rngs::SmallRng;
use rand::{Rng as _, SeedableRng as _};
use recache_engine::{Engine, Options};
use recache_model::ids::WorkflowId;
use recache_model::job::JobState;
use recache_model::template::Template;
use recache_model::time::Timestamp;
use recache_model::workflow::WorkflowState;
use recache_store::conformance::{TestDatabase, postgres_database, sqlite_database};
use recache_store::{SignalKind, SignalRecord, Store, WorkflowFilter};
use recache_worker::{Context, Handlers};
use serde_json::{Value, json};

use crate::parent::{Child, Log};
use crate::support::{store_of, until};
use crate::work::{self, DIAMOND, diamond_output};

/// Chooses the moments; printed, so that a run can be had again.
const SEED: &str = "RECACHE_CRASH_SEED";
const KILLS: u64 = 20;
const WORKFLOWS_A_CHILD: usize = 3;

/// A decision behind which stand a branch, a list, batches, a sub-workflow and a signal; all of them are summed up.
const EVERYTHING: &str = "
name: everything
namespace: n
version: 1.0.0
steps:
  - { name: d, type: decision, handler: { callable: choose } }
  - { name: left, handler: { callable: add, initialization: { own: 1 } }, depends_on: [d] }
  - { name: right, handler: { callable: add, initialization: { own: 2 } }, depends_on: [d] }
  - { name: list, handler: { callable: numbers }, depends_on: [d] }
  - { name: each, handler: { callable: plus }, depends_on: [list], for_each: results.list }
  - name: split
    type: batchable
    handler: { callable: rows }
    depends_on: [d]
    batch_config: { batch_size: 10, parallelism: 3 }
  - { name: work, type: batch_worker, handler: { callable: count }, depends_on: [split] }
  - { name: part, workflow: diamond, depends_on: [d] }
  - { name: told, wait_for: { signal: go }, depends_on: [d] }
  - { name: never, handler: { callable: add, initialization: { own: 9 } }, depends_on: [list], when: 'input.start < 0' }
  - { name: end, type: deferred_convergence, handler: { callable: sum }, depends_on: [left, right, each, work, part, told, never] }
environments:
  crash: { steps: [{ name: ALL, retry: { max_attempts: 100, backoff_base_ms: 1 } }] }
";

fn expected(start: i64) -> i64 {
    let branch = start + if start % 2 == 0 { 1 } else { 2 };
    branch + (190 + 20 * start) + 95 + diamond_output(start) + 5
}

fn sum(value: &Value) -> i64 {
    match value {
        Value::Array(items) => items.iter().map(sum).sum(),
        Value::Object(fields) => fields
            .iter()
            .filter(|(name, _)| !["completed", "failed"].contains(&name.as_str()))
            .map(|(_, field)| sum(field))
            .sum(),
        other => other.as_i64().unwrap_or(0),
    }
}

fn handlers() -> Handlers {
    let mut handlers = work::handlers(|_| {});
    handlers
        .job("choose", async |_: Context, input: Value| {
            let branch = if input["start"].as_i64().unwrap() % 2 == 0 { "left" } else { "right" };
            Ok(json!([branch, "list", "split", "part", "told"]))
        })
        .unwrap();
    handlers.job("numbers", async |_: Context, _: Value| Ok((0..20).collect::<Vec<i64>>())).unwrap();
    let plus = async |context: Context, input: Value| {
        Ok(context.item().unwrap().as_i64().unwrap() + input["start"].as_i64().unwrap())
    };
    handlers.job("plus", plus).unwrap();
    handlers.job("rows", async |_: Context, _: Value| Ok(json!({ "rows": 95 }))).unwrap();
    let count = async |context: Context, _: Value| {
        let cursor = &context.item().unwrap()["cursor"];
        // Row by row, and on from where an earlier attempt was killed.
        let (start, end) = (cursor["start"].as_i64().unwrap(), cursor["end"].as_i64().unwrap());
        let mut done: i64 = context.saved()?.unwrap_or(0);
        while start + done < end {
            done += 5.min(end - start - done);
            context.save(&done).await?;
        }
        Ok(done)
    };
    handlers.job("count", count).unwrap();
    let total = async |context: Context, _: Value| Ok(context.facts().results.values().map(sum).sum::<i64>());
    handlers.job("sum", total).unwrap();
    handlers
}

async fn engine(store: &Arc<dyn Store>) -> Engine {
    let options = Options { poll: Duration::from_millis(50), ..work::options() };
    let engine =
        Engine::builder(Arc::clone(store)).handlers(handlers()).options(options).start().await.unwrap();
    engine.put_template(&Template::parse(DIAMOND, "diamond.yaml").unwrap()).await.unwrap();
    engine
}

fn go() -> SignalRecord {
    SignalRecord {
        kind: SignalKind::Signal,
        name: "go".to_owned(),
        payload: "5".to_owned(),
        actor: "test".to_owned(),
        received_at: Timestamp::from_micros(0),
    }
}

/// Submits, tells and works until it is killed; says what was acknowledged.
pub(crate) async fn load(store: Arc<dyn Store>, seed: u64, say: impl Fn(&str)) {
    let mut random = SmallRng::seed_from_u64(seed);
    let engine = engine(&store).await;
    say("ready");
    let template = Template::parse(EVERYTHING, "everything.yaml").unwrap();
    for _ in 0..WORKFLOWS_A_CHILD {
        let start: i64 = random.random_range(0..100);
        let id = WorkflowId::make();
        engine.submit_workflow_in(id, &template, Some("crash"), &json!({ "start": start })).await.unwrap();
        say(&format!("flow {} {start}", id.uuid()));
        tokio::time::sleep(Duration::from_millis(random.random_range(0..40))).await;
        engine.signal(id, go()).await.unwrap();
    }
    std::future::pending::<()>().await;
}

/// Tells every workflow what it may not have been told, and works until all have ended.
pub(crate) async fn quiet(store: Arc<dyn Store>, say: impl Fn(&str)) {
    let engine = engine(&store).await;
    let filter = WorkflowFilter {
        state: Some(WorkflowState::Running),
        template: Some("everything".to_owned()),
        rows_max: 1_000,
        ..WorkflowFilter::default()
    };
    for workflow in store.flows().workflows_list(filter.clone()).await.unwrap() {
        // One that has ended meanwhile was told.
        let _ = engine.signal(workflow.id, go()).await;
    }
    until("all have ended", async || {
        let running = WorkflowFilter { template: None, ..filter.clone() };
        store.flows().workflows_list(running).await.unwrap().is_empty().then_some(())
    })
    .await;
    engine.shut_down().await;
    store.close().await;
    say("quiet");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn crash_of_workflows_sqlite() {
    killed_at_random(sqlite_database()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn crash_of_workflows_postgres() {
    if let Some(database) = postgres_database().await {
        killed_at_random(database).await;
    }
}

async fn killed_at_random(database: TestDatabase) {
    let seed = std::env::var(SEED).map_or_else(|_| rand::random(), |text| text.parse().expect("a number"));
    eprintln!("{SEED}={seed}");
    let mut random = SmallRng::seed_from_u64(seed);
    let log = Log::default();
    for kill in 0..KILLS {
        let mut child = Child::start("flow", database.url(), random.random(), &log);
        child.hear("ready").await.expect("it starts");
        let delay_ms = if kill % 5 == 4 { 600..900 } else { 5..250 };
        tokio::time::sleep(Duration::from_millis(random.random_range(delay_ms))).await;
        child.kill();
    }
    let mut last = Child::start("flow-quiet", database.url(), 0, &log);
    last.hear("quiet").await.expect("it comes to rest");
    last.end().await;

    let store = store_of(&database).await;
    let said: Vec<String> = log.lock().unwrap().clone();
    let flows: Vec<(WorkflowId, i64)> = said
        .iter()
        .filter_map(|line| line.strip_prefix("flow "))
        .map(|line| {
            let (id, start) = line.split_once(' ').unwrap();
            (WorkflowId::from_uuid(id.parse().unwrap()), start.parse().unwrap())
        })
        .collect();
    assert!(flows.len() >= usize::try_from(KILLS).unwrap(), "{} were at stake", flows.len());
    for (id, start) in &flows {
        let steps = check_workflow(&*store, *id).await;
        let end = steps.iter().find(|job| job.step.as_deref() == Some("end")).unwrap();
        assert_eq!(end.output, Some(expected(*start).to_string()), "{id} from {start}");
        // Eleven declared, twenty of the list, ten batches: none twice, none missing.
        assert_eq!(steps.len(), 41, "{id}");
        let part = steps.iter().find_map(|job| job.sub_workflow).unwrap();
        check_workflow(&*store, part).await;
    }
    let filter = WorkflowFilter { rows_max: 10_000, ..WorkflowFilter::default() };
    let all = store.flows().workflows_list(filter).await.unwrap();
    let (whole, parts): (Vec<_>, Vec<_>) = all.iter().partition(|one| one.parent_step.is_none());
    assert_eq!(whole.len(), parts.len(), "one sub-workflow each, whatever was killed in between");
    assert_eq!(store.maintenance().counts_compare(None, 10_000).await.unwrap().differences, []);
    eprintln!("{} workflows, {} acknowledged", whole.len(), flows.len());
    store.close().await;
}

/// Completed, and each step by legal moves without a gap.
async fn check_workflow(store: &dyn Store, id: WorkflowId) -> Vec<recache_store::JobRecord> {
    assert_eq!(store.workflow_get(id).await.unwrap().state, WorkflowState::Completed);
    let mut jobs = Vec::new();
    for step in store.workflow_steps(id).await.unwrap() {
        let job = step.job;
        assert!(matches!(job.state, JobState::Completed | JobState::Skipped), "{job:?}");
        let history = store.job_history(job.id).await.unwrap();
        for (row, seq) in history.iter().zip(1..) {
            assert_eq!(row.seq, seq, "{history:?}");
            let moved = (row.from, row.to);
            assert!(JobState::TRANSITIONS.iter().any(|(from, _, to)| (*from, *to) == moved), "{history:?}");
        }
        assert!(history.windows(2).all(|pair| pair[0].to == pair[1].from), "{history:?}");
        assert_eq!(history.last().map(|row| row.to), Some(job.state));
        jobs.push(job);
    }
    jobs
}
