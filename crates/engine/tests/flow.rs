//! Steps of every kind, seen from outside, on both databases.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    missing_docs,
    reason = "a test says what it expects"
)]

mod support;

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use recache_engine::{Engine, Options};
use recache_model::ids::WorkflowId;
use recache_model::job::JobState;
use recache_model::template::Template;
use recache_model::time::Timestamp;
use recache_model::workflow::WorkflowState;
use recache_store::conformance::TestDatabase;
use recache_store::{FLOW, SignalKind, SignalRecord, StepRecord, Word};
use recache_worker::{Context, Failure, Handlers};
use serde_json::{Value, json};
use support::{quick, soon, store_of, until};
use tokio::sync::Notify;

on_both_databases!(
    result_that_does_not_fit_its_schema_fails_the_step_with_every_pointer,
    large_result_reaches_what_waits_for_it_and_a_larger_one_is_refused,
    step_whose_condition_is_false_is_skipped_with_what_needs_it,
    condition_that_cannot_be_evaluated_fails_the_step,
    decision_creates_what_it_names,
    decision_that_names_what_it_cannot_is_a_typed_failure,
    nested_decision_that_is_not_chosen_settles_what_stands_behind_it,
    two_decisions_at_once_create_what_stands_behind_both_once,
    list_is_split_and_results_are_gathered_in_order,
    list_beyond_its_limit_is_a_typed_failure_and_an_empty_one_is_done,
    failed_child_holds_its_step_up_until_it_is_retried,
    batches_run_as_many_at_once_as_configured,
    failed_batch_does_what_its_strategy_says,
    signal_is_waited_for_and_kept_when_it_comes_first,
    wait_that_times_out_does_what_is_written,
    sub_workflow_does_a_step_and_its_failure_comes_up,
    cancelling_a_workflow_reaches_its_sub_workflows,
    workflow_that_calls_itself_ends_at_the_depth_limit,
    operator_completes_and_resolves_steps,
    workflow_runs_again_as_a_new_one,
    failed_steps_and_what_stands_behind_them_run_again_in_a_new_workflow,
    decision_that_was_made_is_not_made_again,
    limit_of_a_workflow_that_has_passed_ends_it_while_its_handler_runs,
    concurrency_key_of_a_step_holds_over_workflows,
    rate_of_a_step_holds_back_its_starts,
    cached_result_serves_instead_of_a_run,
    ten_thousand_children_are_made_at_once_and_cancelled_at_once,
);

fn template(source: &str) -> Template {
    Template::parse(source, "t.yaml").unwrap_or_else(|problems| panic!("{problems}"))
}

/// Handlers that most cases need: `echo` gives its settings back, `input` the workflow's input, `results` what it waited for,
/// `item` what it is for, `fail` fails for good unless the switch is off.
fn handlers(is_mended: &Arc<AtomicU64>) -> Handlers {
    let mut handlers = Handlers::new();
    handlers
        .job("echo", async |context: Context, _: Value| Ok(context.facts().settings.get("give").cloned()))
        .unwrap();
    handlers.job("input", async |_: Context, input: Value| Ok(input)).unwrap();
    handlers.job("results", async |context: Context, _: Value| Ok(context.facts().results.clone())).unwrap();
    handlers
        .job("item", async |context: Context, _: Value| Ok(json!([context.facts().index, context.item()])))
        .unwrap();
    handlers.job("signal", async |context: Context, _: Value| Ok(context.signal().cloned())).unwrap();
    let is_mended = Arc::clone(is_mended);
    handlers
        .job("fail", move |context: Context, _: Value| {
            let is_mended = is_mended.load(Ordering::SeqCst) > 0;
            async move {
                let which = context.facts().settings.get("only").and_then(Value::as_u64);
                if is_mended || (which.is_some() && which != context.facts().index) {
                    return Ok(context.facts().index);
                }
                Err(Failure::permanent("broken", "it is broken"))
            }
        })
        .unwrap();
    handlers
}

async fn start(database: &TestDatabase, handlers: Handlers) -> Engine {
    start_with(database, handlers, quick()).await
}

async fn start_with(database: &TestDatabase, handlers: Handlers, options: Options) -> Engine {
    Engine::builder(store_of(database).await).handlers(handlers).options(options).start().await.unwrap()
}

async fn plain(database: &TestDatabase) -> Engine {
    start(database, handlers(&Arc::default())).await
}

async fn submit(engine: &Engine, source: &str, input: &Value) -> WorkflowId {
    engine.submit_workflow(WorkflowId::make(), &template(source), input).await.unwrap()
}

/// Runs to the end; its state and its steps by name.
async fn run(engine: &Engine, source: &str, input: Value) -> (WorkflowState, BTreeMap<String, StepRecord>) {
    let id = submit(engine, source, &input).await;
    let record = soon(engine.wait_for_workflow(id)).await.unwrap();
    (record.state, steps(engine, id).await)
}

async fn steps(engine: &Engine, id: WorkflowId) -> BTreeMap<String, StepRecord> {
    let steps = engine.store().workflow_steps(id).await.unwrap();
    steps.into_iter().map(|step| (step.job.step.clone().unwrap(), step)).collect()
}

fn output(step: &StepRecord) -> Value {
    step.job.output.as_deref().map_or(Value::Null, |text| serde_json::from_str(text).unwrap())
}

fn code(step: &StepRecord) -> &str {
    step.job.error.as_ref().and_then(|error| error.code.as_deref()).unwrap_or_default()
}

fn states(steps: &BTreeMap<String, StepRecord>) -> Vec<(&str, JobState)> {
    steps.iter().map(|(name, step)| (name.as_str(), step.job.state)).collect()
}

/// Nothing differs from what is counted, however a case ended.
async fn end(engine: Engine) {
    let compared = engine.store().maintenance().counts_compare(None, 1_000).await.unwrap();
    assert_eq!(compared.differences, []);
    engine.shut_down().await;
}

async fn result_that_does_not_fit_its_schema_fails_the_step_with_every_pointer(database: TestDatabase) {
    let engine = plain(&database).await;
    let source = "
name: t
version: 1.0.0
steps:
  - name: a
    handler: { callable: input }
    result_schema: { type: object, properties: { n: { type: integer }, list: { items: { type: string } } } }
  - { name: b, handler: { callable: results }, depends_on: [a] }
";
    let (state, found) = run(&engine, source, json!({ "n": "x", "list": ["y", 7] })).await;
    assert_eq!(state, WorkflowState::Failed);
    assert_eq!((code(&found["a"]), found["a"].job.attempt), ("result_does_not_fit", 1));
    let why = &found["a"].job.error.as_ref().unwrap().message;
    assert!(why.contains("/n: ") && why.contains("/list/1: "), "{why}");
    assert_eq!(found["b"].job.state, JobState::Blocked);
    let (state, found) = run(&engine, source, json!({ "n": 1 })).await;
    assert_eq!((state, output(&found["b"])), (WorkflowState::Completed, json!({ "a": { "n": 1 } })));
    end(engine).await;
}

async fn large_result_reaches_what_waits_for_it_and_a_larger_one_is_refused(database: TestDatabase) {
    let options = Options { result_bytes_max: 100_000, ..quick() };
    let engine = start_with(&database, handlers(&Arc::default()), options).await;
    let source = "
name: t
version: 1.0.0
steps:
  - { name: a, handler: { callable: input } }
  - { name: b, handler: { callable: results }, depends_on: [a] }
";
    let large = Value::from("x".repeat(90_000));
    let (state, found) = run(&engine, source, large.clone()).await;
    assert_eq!(state, WorkflowState::Completed);
    assert_eq!((output(&found["a"]), output(&found["b"])), (large.clone(), json!({ "a": large })));
    let listed = engine.store().job_get(found["a"].job.id).await.unwrap();
    assert_eq!(listed.output.map(|text| text.len()), Some(90_002));
    let (state, found) = run(&engine, source, Value::from("x".repeat(100_000))).await;
    assert_eq!((state, code(&found["a"])), (WorkflowState::Failed, "result_too_large"));
    // What the last steps of a sub-workflow give counts together.
    let inner = "
name: inner
version: 1.0.0
steps:
  - { name: a, handler: { callable: input } }
  - { name: b, handler: { callable: input } }
";
    engine.put_template(&template(inner)).await.unwrap();
    let outer =
        "{ name: outer, version: 1.0.0, steps: [{ name: s, workflow: { name: inner, input: input } }] }";
    let (state, found) = run(&engine, outer, Value::from("z".repeat(40_000))).await;
    assert_eq!(
        (state, output(&found["s"])["b"].as_str().map(str::len)),
        (WorkflowState::Completed, Some(40_000))
    );
    let (state, found) = run(&engine, outer, Value::from("z".repeat(60_000))).await;
    assert_eq!((state, code(&found["s"])), (WorkflowState::Failed, "result_too_large"));
    // A plain job's result goes the same way.
    let job = recache_store::NewJob::new("input", Value::from("y".repeat(50_000)).to_string());
    let job = engine.submit(job).await.unwrap();
    let record = soon(engine.wait_for_job(job)).await.unwrap();
    assert_eq!(record.output.map(|text| text.len()), Some(50_002));
    end(engine).await;
}

const CONDITIONS: &str = "
name: t
version: 1.0.0
steps:
  - { name: a, handler: { callable: input } }
  - { name: big, handler: { callable: echo }, depends_on: [a], when: 'results.a.n > 10' }
  - { name: after_big, handler: { callable: echo }, depends_on: [big] }
  - { name: last_big, handler: { callable: echo }, depends_on: [after_big, a] }
  - { name: small, handler: { callable: echo, initialization: { give: s } }, depends_on: [a], when: 'not results.a.n > 10' }
  - { name: either, type: deferred_convergence, handler: { callable: results }, depends_on: [last_big, small] }
  - { name: nothing, type: deferred_convergence, handler: { callable: results }, depends_on: [big, last_big] }
";

async fn step_whose_condition_is_false_is_skipped_with_what_needs_it(database: TestDatabase) {
    let engine = plain(&database).await;
    let (state, found) = run(&engine, CONDITIONS, json!({ "n": 1 })).await;
    assert_eq!(state, WorkflowState::Completed);
    let (completed, skipped) = (JobState::Completed, JobState::Skipped);
    assert_eq!(
        states(&found),
        [
            ("a", completed),
            ("after_big", skipped),
            ("big", skipped),
            ("either", completed),
            ("last_big", skipped),
            ("nothing", skipped),
            ("small", completed)
        ]
    );
    let reason = |name: &str| found[name].job.message.clone().unwrap();
    assert_eq!(reason("big"), "its condition is not met: results.a.n > 10");
    assert_eq!(reason("after_big"), "`big`, on which it depends, was skipped");
    assert_eq!(reason("last_big"), "`after_big`, on which it depends, was skipped");
    assert_eq!(reason("nothing"), "all steps that it gathers were skipped");
    assert_eq!(output(&found["either"]), json!({ "small": "s" }));
    let history = engine.store().job_history(found["big"].job.id).await.unwrap();
    assert_eq!(history.last().unwrap().detail.as_deref(), Some("its condition is not met: results.a.n > 10"));
    let (_, found) = run(&engine, CONDITIONS, json!({ "n": 11 })).await;
    assert_eq!(found["small"].job.state, skipped);
    assert_eq!(found["nothing"].job.state, completed);
    assert_eq!(found["big"].job.attempt, 1, "the engine's turn is no attempt");
    end(engine).await;
}

async fn condition_that_cannot_be_evaluated_fails_the_step(database: TestDatabase) {
    let engine = plain(&database).await;
    let (state, found) = run(&engine, CONDITIONS, json!({ "m": 1 })).await;
    assert_eq!(state, WorkflowState::Failed);
    assert_eq!((code(&found["big"]), code(&found["small"])), ("expression_failed", "expression_failed"));
    assert_eq!(found["either"].job.state, JobState::Blocked);
    end(engine).await;
}

const DECISION: &str = "
name: t
version: 1.0.0
steps:
  - { name: d, type: decision, handler: { callable: input } }
  - { name: a, handler: { callable: echo, initialization: { give: 1 } }, depends_on: [d] }
  - { name: b, handler: { callable: echo, initialization: { give: 2 } }, depends_on: [d] }
  - { name: a2, handler: { callable: echo, initialization: { give: 3 } }, depends_on: [a] }
  - { name: c, type: deferred_convergence, handler: { callable: results }, depends_on: [a2, b] }
";

async fn decision_creates_what_it_names(database: TestDatabase) {
    let engine = plain(&database).await;
    let (state, found) = run(&engine, DECISION, json!(["a"])).await;
    assert_eq!(state, WorkflowState::Completed);
    assert_eq!(found["b"].job.message.as_deref(), Some("the decision `d` did not choose it"));
    assert_eq!(found["b"].job.state, JobState::Skipped);
    assert_eq!(output(&found["c"]), json!({ "a2": 3 }));
    let waits_for: std::collections::BTreeSet<_> = found["c"].waits_for.iter().map(String::as_str).collect();
    assert_eq!(waits_for, ["a2", "b"].into());
    let (state, found) = run(&engine, DECISION, json!({ "steps": ["a", "b"] })).await;
    assert_eq!((state, output(&found["c"])), (WorkflowState::Completed, json!({ "a2": 3, "b": 2 })));
    let (state, found) = run(&engine, DECISION, json!([])).await;
    assert_eq!(state, WorkflowState::Completed);
    assert_eq!(found.values().filter(|step| step.job.state == JobState::Skipped).count(), 4);
    end(engine).await;
}

async fn decision_that_names_what_it_cannot_is_a_typed_failure(database: TestDatabase) {
    let engine = plain(&database).await;
    for (result, expected) in [
        (json!(["a", "nobody"]), "unknown_step"),
        (json!(["c"]), "unknown_step"),
        (json!("a"), "invalid_decision"),
        (json!(vec!["a"; 1_001]), "too_many_steps"),
    ] {
        let (state, found) = run(&engine, DECISION, result).await;
        assert_eq!((state, code(&found["d"])), (WorkflowState::Failed, expected));
        assert_eq!(found.len(), 1, "what stands behind a decision does not exist before it is made");
    }
    end(engine).await;
}

async fn nested_decision_that_is_not_chosen_settles_what_stands_behind_it(database: TestDatabase) {
    let engine = plain(&database).await;
    let source = "
name: t
version: 1.0.0
steps:
  - { name: d, type: decision, handler: { callable: input } }
  - { name: e, type: decision, handler: { callable: echo, initialization: { give: [y] } }, depends_on: [d] }
  - { name: x, handler: { callable: echo, initialization: { give: x } }, depends_on: [d] }
  - { name: y, handler: { callable: echo, initialization: { give: y } }, depends_on: [e] }
  - { name: z, handler: { callable: echo }, depends_on: [e] }
  - { name: end, type: deferred_convergence, handler: { callable: results }, depends_on: [x, y, z] }
";
    let (state, found) = run(&engine, source, json!(["x"])).await;
    assert_eq!((state, output(&found["end"])), (WorkflowState::Completed, json!({ "x": "x" })));
    assert_eq!(found["y"].job.message.as_deref(), Some("`e`, on which it depends, was skipped"));
    let (state, found) = run(&engine, source, json!(["x", "e"])).await;
    assert_eq!((state, output(&found["end"])), (WorkflowState::Completed, json!({ "x": "x", "y": "y" })));
    // A decision that is there from the start and is skipped: by a condition, and by what it depends on.
    let source = "
name: u
version: 1.0.0
steps:
  - { name: first, handler: { callable: echo }, when: 'input' }
  - { name: d, type: decision, handler: { callable: echo }, when: 'false' }
  - { name: e, type: decision, handler: { callable: echo }, depends_on: [first] }
  - { name: x, handler: { callable: echo }, depends_on: [d] }
  - { name: y, handler: { callable: echo }, depends_on: [e] }
  - { name: end, type: deferred_convergence, handler: { callable: results }, depends_on: [x, y] }
";
    let (state, found) = run(&engine, source, json!(false)).await;
    assert_eq!(state, WorkflowState::Completed);
    assert!(found.values().all(|step| step.job.state == JobState::Skipped), "{:?}", states(&found));
    assert_eq!(found.len(), 6);
    end(engine).await;
}

async fn two_decisions_at_once_create_what_stands_behind_both_once(database: TestDatabase) {
    let source = "
name: t
version: 1.0.0
steps:
  - { name: d, type: decision, handler: { callable: meet, initialization: { give: [x, both] } } }
  - { name: e, type: decision, handler: { callable: meet, initialization: { give: [both] } } }
  - { name: x, handler: { callable: echo, initialization: { give: x } }, depends_on: [d] }
  - { name: y, handler: { callable: echo }, depends_on: [e] }
  - { name: both, handler: { callable: echo, initialization: { give: both } }, depends_on: [d, e] }
  - { name: end, type: deferred_convergence, handler: { callable: results }, depends_on: [x, y, both] }
";
    let barrier = Arc::new(tokio::sync::Barrier::new(2));
    let with_meet = |barrier: &Arc<tokio::sync::Barrier>| {
        let (mut handlers, barrier) = (handlers(&Arc::default()), Arc::clone(barrier));
        handlers
            .job("meet", move |context: Context, _: Value| {
                let barrier = Arc::clone(&barrier);
                async move {
                    barrier.wait().await;
                    Ok(context.facts().settings.get("give").cloned())
                }
            })
            .unwrap();
        handlers
    };
    // Two engines, so that two settlements meet in the store. SQLite has one writer, whoever calls.
    let one = Options { slots: 1, claim_rows_max: 1, ..quick() };
    let engine = start_with(&database, with_meet(&barrier), one.clone()).await;
    let other = start_with(&database, with_meet(&barrier), one).await;
    for _ in 0..5 {
        let (state, found) = run(&engine, source, json!({})).await;
        assert_eq!(state, WorkflowState::Completed);
        assert_eq!(found.len(), 6);
        assert_eq!(output(&found["end"]), json!({ "x": "x", "both": "both" }));
    }
    other.shut_down().await;
    end(engine).await;
}

async fn list_is_split_and_results_are_gathered_in_order(database: TestDatabase) {
    let engine = plain(&database).await;
    let source = "
name: t
version: 1.0.0
steps:
  - { name: list, handler: { callable: input } }
  - name: each
    handler: { callable: item }
    depends_on: [list]
    for_each: 'results.list'
    result_schema: { type: array }
  - { name: all, handler: { callable: results }, depends_on: [each] }
";
    let items: Vec<Value> = (0..60).map(|index| json!({ "n": index })).collect();
    let (state, found) = run(&engine, source, json!(items)).await;
    assert_eq!(state, WorkflowState::Completed);
    let expected: Vec<Value> = items.iter().enumerate().map(|(index, item)| json!([index, item])).collect();
    assert_eq!(output(&found["all"]), json!({ "each": expected }));
    assert_eq!(found["each[59]"].job.parent, Some(found["each"].job.id));
    assert_eq!(found.len(), 63);
    end(engine).await;
}

async fn list_beyond_its_limit_is_a_typed_failure_and_an_empty_one_is_done(database: TestDatabase) {
    let engine = plain(&database).await;
    let source = "
name: t
version: 1.0.0
steps:
  - { name: each, handler: { callable: item }, for_each: { items: input, limit: 3 } }
  - { name: all, handler: { callable: results }, depends_on: [each] }
";
    let (_, found) = run(&engine, source, json!([1, 2, 3, 4])).await;
    assert_eq!((code(&found["each"]), found.len()), ("too_many_children", 2));
    let (_, found) = run(&engine, source, json!("abc")).await;
    assert_eq!(code(&found["each"]), "not_a_list");
    let (state, found) = run(&engine, source, json!([])).await;
    assert_eq!((state, output(&found["all"])), (WorkflowState::Completed, json!({ "each": [] })));
    end(engine).await;
}

async fn failed_child_holds_its_step_up_until_it_is_retried(database: TestDatabase) {
    let is_mended = Arc::new(AtomicU64::new(0));
    let engine = start(&database, handlers(&is_mended)).await;
    let source = "
name: t
version: 1.0.0
steps:
  - { name: each, handler: { callable: fail, initialization: { only: 1 } }, for_each: input }
  - { name: all, handler: { callable: results }, depends_on: [each] }
";
    let id = submit(&engine, source, &json!([1, 2, 3])).await;
    assert_eq!(soon(engine.wait_for_workflow(id)).await.unwrap().state, WorkflowState::Failed);
    let found = steps(&engine, id).await;
    assert_eq!((found["each"].job.state, found["each[1]"].job.state), (JobState::Blocked, JobState::Failed));
    is_mended.store(1, Ordering::SeqCst);
    let word = Word::new("ann", "mended");
    assert_eq!(engine.retry_failed_steps(id, word.clone()).await.unwrap(), 1);
    assert_eq!(soon(engine.wait_for_workflow(id)).await.unwrap().state, WorkflowState::Completed);
    assert_eq!(output(&steps(&engine, id).await["all"]), json!({ "each": [0, 1, 2] }));
    assert_eq!(engine.retry_failed_steps(id, word).await.unwrap(), 0);
    end(engine).await;
}

fn batch(strategy: &str) -> String {
    format!(
        "
name: {strategy}
version: 1.0.0
steps:
  - name: split
    type: batchable
    handler: {{ callable: input }}
    batch_config: {{ batch_size: 10, parallelism: 2, failure_strategy: {strategy} }}
  - {{ name: work, type: batch_worker, handler: {{ callable: work }}, depends_on: [split] }}
  - {{ name: end, type: deferred_convergence, handler: {{ callable: results }}, depends_on: [work] }}
"
    )
}

async fn batches_run_as_many_at_once_as_configured(database: TestDatabase) {
    let (running, most) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicU64::new(0)));
    let mut handlers = handlers(&Arc::default());
    let (now, peak) = (Arc::clone(&running), Arc::clone(&most));
    handlers
        .job("work", move |context: Context, _: Value| {
            let (now, peak) = (Arc::clone(&now), Arc::clone(&peak));
            async move {
                peak.fetch_max(now.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
                tokio::time::sleep(Duration::from_millis(10)).await;
                now.fetch_sub(1, Ordering::SeqCst);
                Ok(context.item().unwrap()["cursor"].clone())
            }
        })
        .unwrap();
    let engine = start(&database, handlers).await;
    let (state, found) = run(&engine, &batch("isolate"), json!({ "rows": 75 })).await;
    assert_eq!(state, WorkflowState::Completed);
    let work = output(&found["work"]);
    assert_eq!((&work["completed"], &work["failed"]), (&json!(8), &json!(0)));
    assert_eq!(work["batches"][7]["result"], json!({ "start": 70, "end": 75 }));
    assert_eq!(most.load(Ordering::SeqCst), 2, "as many at once as may be, and no more");
    let (state, found) = run(&engine, &batch("fail_fast"), json!({ "cursors": [] })).await;
    assert_eq!((state, found.len()), (WorkflowState::Completed, 3));
    let (_, found) = run(&engine, &batch("fail_fast"), json!({ "rows": 10, "parallelism": 3 })).await;
    assert_eq!(code(&found["work"]), "too_parallel");
    end(engine).await;
}

async fn failed_batch_does_what_its_strategy_says(database: TestDatabase) {
    let is_mended = Arc::new(AtomicU64::new(0));
    let mut handlers = handlers(&is_mended);
    let mended = Arc::clone(&is_mended);
    handlers
        .job("work", move |context: Context, _: Value| {
            let is_mended = mended.load(Ordering::SeqCst) > 0;
            async move {
                match context.facts().index {
                    Some(1) if !is_mended => Err(Failure::permanent("bad_rows", "no")),
                    index => Ok(index),
                }
            }
        })
        .unwrap();
    let engine = start(&database, handlers).await;
    let rows = json!({ "rows": 50 });

    let (state, found) = run(&engine, &batch("continue_on_failure"), rows.clone()).await;
    assert_eq!(state, WorkflowState::Completed);
    let work = output(&found["work"]);
    assert_eq!((&work["completed"], &work["failed"]), (&json!(4), &json!(1)));
    assert_eq!(work["batches"][1]["error"]["code"], json!("bad_rows"));
    assert_eq!(output(&found["end"])["work"], work, "the convergence sees which ones failed");

    let (state, found) = run(&engine, &batch("fail_fast"), rows.clone()).await;
    assert_eq!(state, WorkflowState::Failed);
    assert_eq!(found["work[4]"].job.state, JobState::Cancelled);
    assert_eq!(found["end"].job.state, JobState::Blocked);

    let id = submit(&engine, &batch("isolate"), &rows).await;
    assert_eq!(soon(engine.wait_for_workflow(id)).await.unwrap().state, WorkflowState::Failed);
    let found = steps(&engine, id).await;
    assert_eq!(found["work[4]"].job.state, JobState::Completed, "the others run");
    assert_eq!(found["end"].job.state, JobState::Blocked);
    let word = Word::new("ann", "rows removed");
    engine.resolve_step(id, "work[1]", Some(&json!("by hand")), word).await.unwrap();
    assert_eq!(soon(engine.wait_for_workflow(id)).await.unwrap().state, WorkflowState::Completed);
    let work = output(&steps(&engine, id).await["work"]);
    assert_eq!(work["batches"][1], json!({ "state": "resolved", "result": "by hand" }));

    // A tolerated failure that is retried before the others have ended is waited for again.
    is_mended.store(1, Ordering::SeqCst);
    let (state, _) = run(&engine, &batch("continue_on_failure"), rows).await;
    assert_eq!(state, WorkflowState::Completed);
    end(engine).await;
}

fn told(name: &str, payload: &Value) -> SignalRecord {
    SignalRecord {
        kind: SignalKind::Signal,
        name: name.to_owned(),
        payload: payload.to_string(),
        actor: "shop".to_owned(),
        received_at: Timestamp::from_micros(0),
    }
}

async fn signal_is_waited_for_and_kept_when_it_comes_first(database: TestDatabase) {
    let engine = plain(&database).await;
    let source = "
name: t
version: 1.0.0
steps:
  - { name: a, handler: { callable: signal }, wait_for: { signal: paid } }
  - { name: b, depends_on: [a], wait_for: { approval: boss, timeout_seconds: 600 } }
";
    let id = submit(&engine, source, &json!({})).await;
    let waits = until("the step waits without a worker", async || {
        let job = steps(&engine, id).await["a"].job.clone();
        let has_been = engine.store().job_history(job.id).await.unwrap().len() >= 2;
        (has_been && job.state == JobState::Queued && job.handler == FLOW).then_some(job)
    });
    let job = waits.await;
    assert_eq!((job.attempt, job.session), (0, None));
    assert_eq!(engine.store().workflow_get(id).await.unwrap().state, WorkflowState::Running);
    let boss = SignalRecord { kind: SignalKind::Approval, ..told("boss", &json!("yes")) };
    assert!(engine.signal(id, boss.clone()).await.unwrap(), "before anybody waits");
    assert!(engine.signal(id, told("paid", &json!({ "sum": 7 }))).await.unwrap());
    assert!(!engine.signal(id, told("paid", &json!({ "sum": 7 }))).await.unwrap(), "told before");
    let other = engine.signal(id, told("paid", &json!({ "sum": 8 }))).await.unwrap_err().to_string();
    assert!(other.contains("another payload"), "{other}");
    assert_eq!(soon(engine.wait_for_workflow(id)).await.unwrap().state, WorkflowState::Completed);
    let found = steps(&engine, id).await;
    assert_eq!((output(&found["a"]), output(&found["b"])), (json!({ "sum": 7 }), json!("yes")));
    let late = engine.signal(id, told("late", &json!(1))).await.unwrap_err().to_string();
    assert!(late.contains("completed"), "{late}");
    assert!(engine.signal(WorkflowId::make(), boss).await.is_err());
    assert_eq!(engine.store().flows().signals_list(id).await.unwrap().len(), 2);
    end(engine).await;
}

async fn wait_that_times_out_does_what_is_written(database: TestDatabase) {
    let engine = plain(&database).await;
    let wait = |on_timeout: &str| {
        format!("wait_for: {{ signal: s, timeout_seconds: 0.05, on_timeout: {on_timeout} }}")
    };
    let source = format!(
        "
name: t
version: 1.0.0
steps:
  - {{ name: f, handler: {{ callable: signal }}, {} }}
  - {{ name: s, handler: {{ callable: signal }}, {} }}
  - {{ name: p, handler: {{ callable: signal }}, {} }}
",
        wait("fail"),
        wait("skip"),
        wait("proceed")
    );
    let id = submit(&engine, &source, &json!({})).await;
    assert_eq!(soon(engine.wait_for_workflow(id)).await.unwrap().state, WorkflowState::Failed);
    let found = steps(&engine, id).await;
    assert_eq!(code(&found["f"]), "wait_timed_out");
    assert_eq!(found["s"].job.message.as_deref(), Some("the signal `s` did not come in time"));
    assert_eq!((found["s"].job.state, found["p"].job.state), (JobState::Skipped, JobState::Completed));
    // Retried, it waits anew.
    engine.retry_failed_steps(id, Word::new("ann", "again")).await.unwrap();
    engine.signal(id, told("s", &json!(1))).await.unwrap();
    assert_eq!(soon(engine.wait_for_workflow(id)).await.unwrap().state, WorkflowState::Completed);
    end(engine).await;
}

const PART: &str = "
name: part
version: 1.2.0
input_schema: { type: object, required: [n] }
steps:
  - { name: first, handler: { callable: input } }
  - { name: last, handler: { callable: fail }, depends_on: [first], when: 'input.n == 0' }
  - { name: other, handler: { callable: results }, depends_on: [first] }
";

async fn sub_workflow_does_a_step_and_its_failure_comes_up(database: TestDatabase) {
    let is_mended = Arc::new(AtomicU64::new(0));
    let engine = start(&database, handlers(&is_mended)).await;
    engine.put_template(&template(PART)).await.unwrap();
    engine.put_template(&template(&PART.replace("1.2.0", "2.0.0").replace("[n]", "[m]"))).await.unwrap();
    let source = "
name: whole
version: 1.0.0
steps:
  - { name: part, workflow: { name: part, version: ^1, input: 'input.part' } }
  - { name: end, handler: { callable: results }, depends_on: [part] }
";
    let (state, found) = run(&engine, source, json!({ "part": { "n": 5 } })).await;
    assert_eq!(state, WorkflowState::Completed);
    assert_eq!(output(&found["end"]), json!({ "part": { "other": { "first": { "n": 5 } } } }));
    let sub = engine.store().workflow_get(found["part"].job.sub_workflow.unwrap()).await.unwrap();
    assert_eq!((sub.template_version.as_str(), sub.parent_step), ("1.2.0", Some(found["part"].job.id)));

    let id = submit(&engine, source, &json!({ "part": { "n": 0 } })).await;
    assert_eq!(soon(engine.wait_for_workflow(id)).await.unwrap().state, WorkflowState::Failed);
    assert_eq!(code(&steps(&engine, id).await["part"]), "sub_workflow");
    is_mended.store(1, Ordering::SeqCst);
    engine.retry_failed_steps(id, Word::new("ann", "mended")).await.unwrap();
    assert_eq!(soon(engine.wait_for_workflow(id)).await.unwrap().state, WorkflowState::Completed);

    let (_, found) = run(&engine, source, json!({ "part": { "m": 0 } })).await;
    assert_eq!(code(&found["part"]), "invalid_workflow");
    let (_, found) =
        run(&engine, &source.replace("^1", "^3").replace("1.0.0", "1.0.1"), json!({ "part": { "n": 1 } }))
            .await;
    assert_eq!(code(&found["part"]), "unknown_workflow");
    end(engine).await;
}

async fn cancelling_a_workflow_reaches_its_sub_workflows(database: TestDatabase) {
    let (began, told_to_stop) = (Arc::new(Notify::new()), Arc::new(Notify::new()));
    let mut handlers = handlers(&Arc::default());
    let (start_of, stop_of) = (Arc::clone(&began), Arc::clone(&told_to_stop));
    handlers
        .job("slow", move |context: Context, _: Value| {
            let (began, told_to_stop) = (Arc::clone(&start_of), Arc::clone(&stop_of));
            async move {
                began.notify_one();
                let why = context.stopped().await;
                told_to_stop.notify_one();
                Err::<(), _>(Failure::Stopped(why))
            }
        })
        .unwrap();
    let engine = start(&database, handlers).await;
    let inner = "
name: inner
version: 1.0.0
steps:
  - { name: slow, handler: { callable: slow } }
  - { name: after, handler: { callable: echo }, depends_on: [slow] }
";
    let middle = "{ name: middle, version: 1.0.0, steps: [{ name: m, workflow: inner }] }";
    engine.put_template(&template(inner)).await.unwrap();
    engine.put_template(&template(middle)).await.unwrap();
    let outer = "{ name: outer, version: 1.0.0, steps: [{ name: o, workflow: middle }] }";
    let id = submit(&engine, outer, &json!({})).await;
    soon(began.notified()).await;
    let stopped = engine.cancel_workflow(id, "enough").await.unwrap();
    assert_eq!(stopped.len(), 1);
    soon(told_to_stop.notified()).await;
    let mut next = Some(id);
    let mut seen = 0;
    while let Some(id) = next {
        assert_eq!(engine.store().workflow_get(id).await.unwrap().state, WorkflowState::Cancelled);
        next = steps(&engine, id).await.values().find_map(|step| step.job.sub_workflow);
        seen += 1;
    }
    assert_eq!(seen, 3);
    // A single step that a workflow does takes that one with it.
    let id = submit(&engine, outer, &json!({})).await;
    soon(began.notified()).await;
    let step = steps(&engine, id).await["o"].job.clone();
    engine.cancel_job(step.id, "not this one").await.unwrap();
    soon(told_to_stop.notified()).await;
    let middle = step.sub_workflow.unwrap();
    assert_eq!(engine.store().workflow_get(middle).await.unwrap().state, WorkflowState::Cancelled);
    end(engine).await;
}

async fn workflow_that_calls_itself_ends_at_the_depth_limit(database: TestDatabase) {
    let engine = plain(&database).await;
    let source = "{ name: self, version: 1.0.0, steps: [{ name: s, workflow: self }] }";
    engine.put_template(&template(source)).await.unwrap();
    let id = submit(&engine, source, &json!({})).await;
    assert_eq!(soon(engine.wait_for_workflow(id)).await.unwrap().state, WorkflowState::Failed);
    let (mut next, mut depth, mut last) = (Some(id), 0, String::new());
    while let Some(id) = next {
        let step = steps(&engine, id).await["s"].clone();
        (last, depth) = (code(&step).to_owned(), depth + 1);
        let filter = recache_store::WorkflowFilter { rows_max: 100, ..Default::default() };
        let all = engine.store().flows().workflows_list(filter).await.unwrap();
        next = all.iter().find(|one| one.parent_step == Some(step.job.id)).map(|one| one.id);
    }
    assert_eq!((depth, last.as_str()), (11, "sub_workflow_too_deep"));
    end(engine).await;
}

async fn operator_completes_and_resolves_steps(database: TestDatabase) {
    let mut with_slow = handlers(&Arc::default());
    let told_to_stop = Arc::new(Notify::new());
    let stop_of = Arc::clone(&told_to_stop);
    with_slow
        .job("slow", move |context: Context, _: Value| {
            let told_to_stop = Arc::clone(&stop_of);
            async move {
                let why = context.stopped().await;
                told_to_stop.notify_one();
                Err::<(), _>(Failure::Stopped(why))
            }
        })
        .unwrap();
    let engine = start(&database, with_slow).await;
    let source = "
name: t
version: 1.0.0
steps:
  - { name: a, handler: { callable: slow }, result_schema: { type: integer } }
  - { name: d, type: decision, handler: { callable: fail }, depends_on: [a] }
  - { name: x, handler: { callable: results }, depends_on: [d, a] }
  - { name: y, handler: { callable: echo }, depends_on: [d] }
";
    let word = || Word::new("ann", "seen by hand");
    let id = submit(&engine, source, &json!({})).await;
    until("the handler runs", async || {
        (steps(&engine, id).await["a"].job.state == JobState::Running).then_some(())
    })
    .await;
    let wrong = engine.complete_step(id, "a", &json!("x"), word()).await.unwrap_err().to_string();
    assert!(wrong.contains("result_does_not_fit"), "{wrong}");
    assert_eq!(engine.complete_step(id, "a", &json!(3), word()).await.unwrap(), JobState::Completed);
    soon(told_to_stop.notified()).await;
    assert_eq!(soon(engine.wait_for_workflow(id)).await.unwrap().state, WorkflowState::Failed);
    let twice = engine.complete_step(id, "a", &json!(4), word()).await.unwrap_err().to_string();
    assert!(twice.contains("completed"), "{twice}");
    let unknown =
        engine.resolve_step(id, "d", Some(&json!(["nobody"])), word()).await.unwrap_err().to_string();
    assert!(unknown.contains("unknown_step"), "{unknown}");
    assert_eq!(engine.resolve_step(id, "d", Some(&json!(["x"])), word()).await.unwrap(), JobState::Resolved);
    assert_eq!(soon(engine.wait_for_workflow(id)).await.unwrap().state, WorkflowState::Completed);
    let found = steps(&engine, id).await;
    assert_eq!(output(&found["x"]), json!({ "a": 3, "d": ["x"] }));
    assert_eq!(found["y"].job.state, JobState::Skipped);
    let history = engine.store().job_history(found["a"].job.id).await.unwrap();
    assert_eq!(history.last().unwrap().detail.as_deref(), Some("ann: seen by hand"));
    assert!(engine.complete_step(id, "nobody", &json!(1), word()).await.is_err());
    end(engine).await;
}

async fn workflow_runs_again_as_a_new_one(database: TestDatabase) {
    let engine = plain(&database).await;
    let source = "
name: t
version: 1.0.0
steps: [{ name: a, handler: { callable: echo, initialization: { give: 1 } } }]
environments: { test: { steps: [{ name: a, handler: { initialization: { give: 2 } } }] } }
";
    let id = WorkflowId::make();
    engine.submit_workflow_in(id, &template(source), Some("test"), &json!({ "n": 1 })).await.unwrap();
    soon(engine.wait_for_workflow(id)).await.unwrap();
    let again = engine.run_again(id).await.unwrap();
    let record = soon(engine.wait_for_workflow(again)).await.unwrap();
    assert_eq!((record.environment.as_deref(), record.input.as_str()), (Some("test"), "{\"n\":1}"));
    assert_eq!(output(&steps(&engine, again).await["a"]), json!(2));
    end(engine).await;
}

/// A tolerated failure had been followed by more steps: they run again, with it; what stands beside it does not.
async fn failed_steps_and_what_stands_behind_them_run_again_in_a_new_workflow(database: TestDatabase) {
    let is_mended = Arc::new(AtomicU64::new(0));
    let mut handlers = handlers(&is_mended);
    let ran = Arc::new(Mutex::new(Vec::new()));
    let log = Arc::clone(&ran);
    handlers
        .job("note", move |context: Context, _: Value| {
            let name = context.facts().step.clone().unwrap_or_default();
            log.lock().unwrap().push(name.clone());
            async move { Ok(json!({ "by": name, "from": context.facts().results.clone() })) }
        })
        .unwrap();
    let engine = start(&database, handlers).await;
    let source = "
name: t
version: 1.0.0
steps:
  - { name: split, type: batchable, handler: { callable: echo, initialization: { give: { rows: 2000 } } } }
  - { name: work, type: batch_worker, handler: { callable: fail, initialization: { only: 1 } }, depends_on: [split], retry: { retryable: false } }
  - { name: after, handler: { callable: note }, depends_on: [work] }
  - { name: beside, handler: { callable: note }, depends_on: [split], publishes_events: [done] }
  - { name: end, handler: { callable: note }, depends_on: [after, beside] }
";
    let id = submit(&engine, source, &json!({})).await;
    assert_eq!(soon(engine.wait_for_workflow(id)).await.unwrap().state, WorkflowState::Completed);
    let first = steps(&engine, id).await;
    assert_eq!(output(&first["work"])["failed"], json!(1));
    let mut names = std::mem::take(&mut *ran.lock().unwrap());
    names.sort();
    assert_eq!(names, ["after", "beside", "end"]);

    is_mended.store(1, Ordering::SeqCst);
    let again = engine.run_failed_again(id).await.unwrap();
    assert_ne!(again, id);
    assert_eq!(soon(engine.wait_for_workflow(again)).await.unwrap().state, WorkflowState::Completed);
    assert_eq!(*ran.lock().unwrap(), ["after", "end"], "what stands beside the failure keeps its result");
    let second = steps(&engine, again).await;
    assert_eq!(output(&second["beside"]), output(&first["beside"]));
    assert_eq!((output(&second["work"])["failed"].clone(), second.len()), (json!(0), first.len()));
    assert_eq!(output(&second["end"])["from"]["beside"], output(&first["beside"]));
    let told = engine.store().events().events_list(recache_store::EventQuery::default(), 10).await.unwrap();
    assert_eq!(told.len(), 1, "what was done once is told once: {told:?}");
    assert_eq!(steps(&engine, id).await["work[1]"].job.state, JobState::Failed, "the old one stays as it is");

    let nothing = engine.run_failed_again(again).await.unwrap_err().to_string();
    assert!(nothing.contains("no step of workflow"), "{nothing}");
    end(engine).await;
}

/// What it chose is there again, with the results of what had run; only what failed is done anew.
async fn decision_that_was_made_is_not_made_again(database: TestDatabase) {
    let is_mended = Arc::new(AtomicU64::new(0));
    let mut handlers = handlers(&is_mended);
    let asked = Arc::new(AtomicU64::new(0));
    let count = Arc::clone(&asked);
    handlers
        .job("decide", move |_: Context, _: Value| {
            count.fetch_add(1, Ordering::SeqCst);
            async move { Ok(json!(["x", "y"])) }
        })
        .unwrap();
    let engine = start(&database, handlers).await;
    let source = "
name: t
version: 1.0.0
steps:
  - { name: choose, type: decision, handler: { callable: decide } }
  - { name: x, handler: { callable: echo, initialization: { give: 7 } }, depends_on: [choose] }
  - { name: y, handler: { callable: fail }, depends_on: [choose], retry: { retryable: false } }
  - { name: z, handler: { callable: echo }, depends_on: [choose] }
  - { name: gather, type: deferred_convergence, handler: { callable: results }, depends_on: [x, y, z] }
";
    let id = submit(&engine, source, &json!({})).await;
    assert_eq!(soon(engine.wait_for_workflow(id)).await.unwrap().state, WorkflowState::Failed);
    is_mended.store(1, Ordering::SeqCst);
    let again = engine.run_failed_again(id).await.unwrap();
    assert_eq!(soon(engine.wait_for_workflow(again)).await.unwrap().state, WorkflowState::Completed);
    assert_eq!(asked.load(Ordering::SeqCst), 1, "the decision stands");
    let found = steps(&engine, again).await;
    assert_eq!((found["x"].job.handler.as_str(), found["y"].job.handler.as_str()), (FLOW, "fail"));
    assert_eq!(found["z"].job.state, JobState::Skipped);
    assert_eq!(output(&found["gather"]), json!({ "x": 7, "y": null }));
    end(engine).await;
}

/// The leader finds it by itself, the handler is told to stop, and the reason is there to read.
async fn limit_of_a_workflow_that_has_passed_ends_it_while_its_handler_runs(database: TestDatabase) {
    let (began, told_to_stop) = (Arc::new(Notify::new()), Arc::new(Notify::new()));
    let mut handlers = handlers(&Arc::default());
    let (start_of, stop_of) = (Arc::clone(&began), Arc::clone(&told_to_stop));
    handlers
        .job("slow", move |context: Context, _: Value| {
            let (began, told_to_stop) = (Arc::clone(&start_of), Arc::clone(&stop_of));
            async move {
                began.notify_one();
                let why = context.stopped().await;
                told_to_stop.notify_one();
                Err::<(), _>(Failure::Stopped(why))
            }
        })
        .unwrap();
    let clock = recache_model::time::ManualClock::at(Timestamp::from_micros(1_700_000_000_000_000));
    let open = recache_store::OpenOptions {
        clock: Some(Arc::new(clock.clone())),
        ..recache_store::OpenOptions::new(database.url())
    };
    let store = recache_store::open(&open).await.unwrap();
    // By the moved clock no session dies.
    let options = Options { lease: Duration::from_hours(1), maintain: Duration::from_millis(50), ..quick() };
    let engine = Engine::builder(store).handlers(handlers).options(options).start().await.unwrap();
    let source = "
name: t
version: 1.0.0
lifecycle: { max_duration_minutes: 5, auto_fail_on_timeout: true }
steps:
  - { name: a, handler: { callable: slow } }
  - { name: b, handler: { callable: echo }, depends_on: [a] }
";
    let id = submit(&engine, source, &json!({})).await;
    soon(began.notified()).await;
    clock.advance(Duration::from_mins(5));
    assert_eq!(soon(engine.wait_for_workflow(id)).await.unwrap().state, WorkflowState::Failed);
    soon(told_to_stop.notified()).await;
    let found = steps(&engine, id).await;
    assert_eq!((code(&found["a"]), found["b"].job.state), ("lifecycle_duration", JobState::Blocked));
    assert_eq!(engine.stats().limits_passed, 1);
    end(engine).await;
}

async fn concurrency_key_of_a_step_holds_over_workflows(database: TestDatabase) {
    let (running, most) = (Arc::new(Mutex::new(BTreeMap::<String, u64>::new())), Arc::new(AtomicU64::new(0)));
    let mut handlers = handlers(&Arc::default());
    let (now, peak) = (Arc::clone(&running), Arc::clone(&most));
    handlers
        .job("work", move |_: Context, input: Value| {
            let (now, peak) = (Arc::clone(&now), Arc::clone(&peak));
            let key = input["customer"].as_str().unwrap().to_owned();
            async move {
                let mine = {
                    let mut now = now.lock().unwrap();
                    let mine = now.entry(key.clone()).or_default();
                    *mine += 1;
                    *mine
                };
                peak.fetch_max(mine, Ordering::SeqCst);
                // On a busy machine the second one may come late: the first waits for it.
                for _ in 0..200 {
                    if peak.load(Ordering::SeqCst) >= 2 {
                        break;
                    }
                    tokio::time::sleep(Duration::from_millis(10)).await;
                }
                tokio::time::sleep(Duration::from_millis(20)).await;
                *now.lock().unwrap().get_mut(&key).unwrap() -= 1;
                Ok(())
            }
        })
        .unwrap();
    let engine = start(&database, handlers).await;
    let source = "
name: t
version: 1.0.0
steps:
  - { name: a, handler: { callable: work }, concurrency_key: { key: 'input.customer', limit: 2 } }
";
    let mut ids = Vec::new();
    for index in 0..8 {
        let customer = if index < 6 { "one" } else { "other" };
        ids.push(submit(&engine, source, &json!({ "customer": customer })).await);
    }
    for id in ids {
        assert_eq!(soon(engine.wait_for_workflow(id)).await.unwrap().state, WorkflowState::Completed);
    }
    assert_eq!(most.load(Ordering::SeqCst), 2);
    let (_, found) = run(&engine, source, json!({ "customer": ["no text"] })).await;
    assert_eq!(code(&found["a"]), "bad_key");
    end(engine).await;
}

async fn rate_of_a_step_holds_back_its_starts(database: TestDatabase) {
    let engine = plain(&database).await;
    let source = "
name: t
version: 1.0.0
steps:
  - { name: a, handler: { callable: echo }, rate_limit: { limit: 2, per_seconds: 1, key: 'input' } }
";
    let began = std::time::Duration::from_millis(900);
    let mut ids = Vec::new();
    for _ in 0..3 {
        ids.push(submit(&engine, source, &json!("one")).await);
    }
    let mut started = Vec::new();
    for id in ids {
        assert_eq!(soon(engine.wait_for_workflow(id)).await.unwrap().state, WorkflowState::Completed);
        started.push(steps(&engine, id).await["a"].job.started_at.unwrap());
    }
    started.sort();
    assert!(started[2].since(started[0]) >= began, "{started:?}");
    assert!(started[1].since(started[0]) < began, "{started:?}");
    end(engine).await;
}

async fn cached_result_serves_instead_of_a_run(database: TestDatabase) {
    let runs = Arc::new(AtomicU64::new(0));
    let mut handlers = handlers(&Arc::default());
    let counted = Arc::clone(&runs);
    handlers
        .job("count", move |_: Context, _: Value| {
            let run = counted.fetch_add(1, Ordering::SeqCst) + 1;
            async move { Ok(run) }
        })
        .unwrap();
    let engine = start(&database, handlers).await;
    let source = "
name: t
version: 1.0.0
steps:
  - { name: a, handler: { callable: count }, cache: { inputs: ['input.n'], ttl_seconds: 600 } }
";
    for (input, expected) in [
        (json!({ "n": 1, "m": 1 }), 1),
        (json!({ "n": 1, "m": 2 }), 1),
        (json!({ "n": 2, "m": 2 }), 2),
        (json!({ "n": 1 }), 1),
    ] {
        let (state, found) = run(&engine, source, input.clone()).await;
        assert_eq!((state, output(&found["a"])), (WorkflowState::Completed, json!(expected)), "{input}");
    }
    assert_eq!((runs.load(Ordering::SeqCst), engine.stats().reused), (2, 2));
    end(engine).await;
}

async fn ten_thousand_children_are_made_at_once_and_cancelled_at_once(database: TestDatabase) {
    let engine = start_with(
        &database,
        handlers(&Arc::default()),
        Options { queues: vec!["none".to_owned()], ..quick() },
    )
    .await;
    let source = "
name: t
version: 1.0.0
steps:
  - { name: each, handler: { callable: item }, for_each: { items: 'input', limit: 10000 } }
";
    let items: Vec<u32> = (0..10_000).collect();
    let id = submit(&engine, source, &json!(items)).await;
    let counts = until("the children are there", async || {
        let counts = engine.store().workflow_get(id).await.unwrap().counts;
        (counts.total() > 1).then_some(counts)
    })
    .await;
    assert_eq!((counts.blocked, counts.active), (1, 10_000), "all of them in one transaction");
    assert!(engine.cancel_workflow(id, "enough").await.unwrap().is_empty());
    let counts = engine.store().workflow_get(id).await.unwrap().counts;
    assert_eq!((counts.cancelled, counts.total()), (10_001, 10_001));
    end(engine).await;
}
