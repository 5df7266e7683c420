//! What the engine does, seen from outside, on both databases.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    missing_docs,
    reason = "a test says what it expects"
)]

mod support;

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use recache_engine::{Engine, Error, Options};
use recache_model::ids::{JobId, SessionId, WorkflowId};
use recache_model::job::{ErrorKind, JobState};
use recache_model::retry::RetryPolicy;
use recache_model::template::Template;
use recache_model::view::{ViewPolicy, ViewStatus};
use recache_model::workflow::WorkflowState;
use recache_store::conformance::TestDatabase;
use recache_store::{ClaimRequest, Due, NewJob, Store};
use recache_worker::{BuildContext, Context, Failure, Handlers, Stop};
use serde_json::{Value, json};
use support::{Faulty, at_once, quick, retries, soon, store_of, touch, until, view};
use tokio::sync::{Barrier, Notify, mpsc, oneshot};

on_both_databases!(
    job_completes_with_its_output,
    retryable_failure_is_tried_again_after_its_backoff,
    permanent_failure_ends_the_job_at_once,
    handler_that_only_says_it_was_stopped_is_a_failure_like_any_other,
    panic_is_captured_counted_and_tried_again,
    handler_that_panics_while_it_is_dropped_still_ends_its_attempt,
    slow_handler_is_told_then_dropped_and_its_job_times_out,
    cancel_reaches_a_running_handler,
    progress_is_kept_with_the_job,
    diamond_runs_in_order_and_hands_results_on,
    failed_step_fails_its_workflow_and_holds_back_what_waits_for_it,
    touched_view_is_built_published_and_read,
    touch_stops_a_running_build_and_its_successor_takes_over_what_was_made,
    reader_waits_for_its_own_write_or_is_told,
    endless_touches_cannot_keep_a_view_stale_for_ever,
    debounce_waits_no_longer_than_its_maximum,
    failing_build_leaves_the_live_version,
    silent_worker_gets_a_new_session_after_it_was_swept,
    job_of_a_dead_session_runs_again,
    claim_that_is_carried_out_after_it_was_given_up_is_handed_back,
    shutdown_hands_back_what_was_not_started,
    store_that_hangs_does_not_keep_a_shutdown,
    worker_leaves_jobs_of_other_handlers_alone,
    two_engines_share_the_work_without_overlap,
    work_is_found_without_any_hint,
    finished_work_outlives_an_outage_of_the_store,
    claim_whose_answer_was_lost_costs_no_attempt,
    bad_touch_fails_nobody_else,
    lost_answer_of_a_shared_touch_is_called_unknown_to_all,
    longest_waits_are_not_an_overflow,
    nothing_is_begun_on_a_lease_that_may_have_passed,
);

async fn start(store: &Arc<dyn Store>, handlers: Handlers) -> Engine {
    start_with(store, handlers, quick()).await
}

async fn start_with(store: &Arc<dyn Store>, handlers: Handlers, options: Options) -> Engine {
    Engine::builder(Arc::clone(store)).handlers(handlers).options(options).start().await.unwrap()
}

async fn job_completes_with_its_output(database: TestDatabase) {
    let mut handlers = Handlers::new();
    handlers.job("double", async |_: Context, n: i64| Ok(n * 2)).unwrap();
    let engine = start(&store_of(&database).await, handlers).await;
    let job = engine.submit(NewJob::new("double", "21")).await.unwrap();
    let record = soon(engine.wait_for_job(job)).await.unwrap();
    assert_eq!(
        (record.state, record.output.as_deref(), record.attempt),
        (JobState::Completed, Some("42"), 1)
    );
    let moves: Vec<_> =
        engine.store().job_history(job).await.unwrap().iter().map(|row| (row.seq, row.to)).collect();
    assert_eq!(moves, [(1, JobState::Running), (2, JobState::Completed)]);
    engine.shut_down().await;
}

async fn retryable_failure_is_tried_again_after_its_backoff(database: TestDatabase) {
    let mut handlers = Handlers::new();
    let flaky = async |context: Context, (): ()| match context.facts().attempt {
        attempt @ 1..=2 => Err(Failure::retryable(format!("attempt {attempt} of a flaky thing"))),
        attempt => Ok(attempt),
    };
    handlers.job("flaky", flaky).unwrap();
    let engine = start(&store_of(&database).await, handlers).await;
    let job = NewJob { retry: retries(5, 60), ..NewJob::new("flaky", "null") };
    let job = engine.submit(job).await.unwrap();
    let record = soon(engine.wait_for_job(job)).await.unwrap();
    assert_eq!((record.state, record.attempt), (JobState::Completed, 3));
    let history = engine.store().job_history(job).await.unwrap();
    let waits: Vec<Duration> = history
        .windows(2)
        .filter(|pair| pair[0].to == JobState::Queued)
        .map(|pair| pair[1].at.since(pair[0].at))
        .collect();
    assert_eq!(waits.len(), 2);
    assert!(waits[0] >= Duration::from_millis(60) && waits[1] >= Duration::from_millis(120), "{waits:?}");
    assert!(history[1].detail.as_ref().unwrap().contains("attempt 1 of a flaky thing"));
    assert_eq!(engine.stats().retried, 2);
    engine.shut_down().await;
}

async fn permanent_failure_ends_the_job_at_once(database: TestDatabase) {
    let mut handlers = Handlers::new();
    let refuse = async |_: Context, (): ()| Err::<(), _>(Failure::permanent("no_customer", "there is none"));
    handlers.job("refuse", refuse).unwrap();
    let engine = start(&store_of(&database).await, handlers).await;
    let job = engine.submit(NewJob { retry: retries(9, 1), ..NewJob::new("refuse", "null") }).await.unwrap();
    let record = soon(engine.wait_for_job(job)).await.unwrap();
    let error = record.error.unwrap();
    assert_eq!((record.state, record.attempt), (JobState::Failed, 1));
    assert_eq!((error.kind, error.code.as_deref()), (ErrorKind::Permanent, Some("no_customer")));
    engine.shut_down().await;
}

/// A handler that claims to have been stopped, when nobody did, must not leave its job running with a session that lives.
async fn handler_that_only_says_it_was_stopped_is_a_failure_like_any_other(database: TestDatabase) {
    let mut handlers = Handlers::new();
    for (name, why) in [
        ("cancelled", Stop::Cancelled),
        ("superseded", Stop::Superseded),
        ("lost", Stop::LeaseLost),
        ("timeout", Stop::Timeout),
        ("shutdown", Stop::Shutdown),
    ] {
        let pretend = move |_: Context, (): ()| async move { Err::<(), _>(Failure::Stopped(why)) };
        handlers.job(name, pretend).unwrap();
    }
    let names = handlers.names();
    let engine = start(&store_of(&database).await, handlers).await;
    for name in names {
        let job = engine.submit(NewJob { retry: retries(2, 1), ..NewJob::new(&name, "null") }).await.unwrap();
        let record = soon(engine.wait_for_job(job)).await.unwrap();
        assert_eq!((record.state, record.attempt), (JobState::Failed, 2), "{name}");
        assert!(record.error.unwrap().message.contains("nobody had asked it to"), "{name}");
    }
    engine.shut_down().await;
}

async fn panic_is_captured_counted_and_tried_again(database: TestDatabase) {
    let mut handlers = Handlers::new();
    let shaky = async |context: Context, (): ()| {
        assert!(context.facts().attempt > 1, "the first attempt goes wrong");
        Ok(())
    };
    handlers.job("shaky", shaky).unwrap();
    let engine = start(&store_of(&database).await, handlers).await;
    let job = engine.submit(NewJob { retry: retries(2, 1), ..NewJob::new("shaky", "null") }).await.unwrap();
    let record = soon(engine.wait_for_job(job)).await.unwrap();
    let error = record.error.unwrap();
    assert_eq!((record.state, record.attempt, error.kind), (JobState::Completed, 2, ErrorKind::Panic));
    assert!(error.message.contains("the first attempt goes wrong"), "{}", error.message);
    assert_eq!(engine.stats().panicked, 1);
    engine.shut_down().await;
}

struct PanicsWhenDropped;

impl Drop for PanicsWhenDropped {
    fn drop(&mut self) {
        assert!(std::thread::panicking(), "dropped in the middle of its work");
    }
}

async fn handler_that_panics_while_it_is_dropped_still_ends_its_attempt(database: TestDatabase) {
    let mut handlers = Handlers::new();
    let stubborn = async |_: Context, (): ()| {
        let _guard = PanicsWhenDropped;
        std::future::pending::<()>().await;
        Ok(())
    };
    handlers.job("stubborn", stubborn).unwrap();
    let engine = start(&store_of(&database).await, handlers).await;
    let job = NewJob {
        timeout: Some(Duration::from_millis(20)),
        retry: retries(1, 1),
        ..NewJob::new("stubborn", "null")
    };
    let job = engine.submit(job).await.unwrap();
    let record = soon(engine.wait_for_job(job)).await.unwrap();
    assert_eq!(record.state, JobState::Failed);
    until("the slot is free again", async || (engine.held_count() == 0).then_some(())).await;
    engine.shut_down().await;
}

struct TellsWhenDropped(mpsc::UnboundedSender<Option<Stop>>);

impl Drop for TellsWhenDropped {
    fn drop(&mut self) {
        let _ = self.0.send(None);
    }
}

async fn slow_handler_is_told_then_dropped_and_its_job_times_out(database: TestDatabase) {
    let (said, mut heard) = mpsc::unbounded_channel();
    let mut handlers = Handlers::new();
    handlers
        .job("slow", move |context: Context, (): ()| {
            let said = said.clone();
            async move {
                let _end = TellsWhenDropped(said.clone());
                let _ = said.send(Some(context.stopped().await));
                std::future::pending::<()>().await;
                Ok(())
            }
        })
        .unwrap();
    let engine = start(&store_of(&database).await, handlers).await;
    let job = NewJob {
        timeout: Some(Duration::from_millis(50)),
        retry: retries(1, 1),
        ..NewJob::new("slow", "null")
    };
    let job = engine.submit(job).await.unwrap();
    assert_eq!(soon(heard.recv()).await, Some(Some(Stop::Timeout)));
    assert_eq!(soon(heard.recv()).await, Some(None), "dropped after its grace");
    let record = soon(engine.wait_for_job(job)).await.unwrap();
    assert_eq!((record.state, record.error.unwrap().kind), (JobState::Failed, ErrorKind::Timeout));
    engine.shut_down().await;
}

async fn cancel_reaches_a_running_handler(database: TestDatabase) {
    let (said, mut heard) = mpsc::unbounded_channel();
    let mut handlers = Handlers::new();
    handlers
        .job("patient", move |context: Context, (): ()| {
            let said = said.clone();
            async move {
                let _ = said.send(None);
                let _ = said.send(Some(context.stopped().await));
                Ok("too late")
            }
        })
        .unwrap();
    let engine = start(&store_of(&database).await, handlers).await;
    let job = engine.submit(NewJob::new("patient", "null")).await.unwrap();
    assert_eq!(soon(heard.recv()).await, Some(None));
    assert_eq!(engine.cancel_job(job, "not wanted").await.unwrap(), (JobState::Cancelled, true));
    assert_eq!(soon(heard.recv()).await, Some(Some(Stop::Cancelled)));
    until("the worker lets go", async || (engine.held_count() == 0).then_some(())).await;
    let record = engine.job(job).await.unwrap();
    assert_eq!((record.state, record.output), (JobState::Cancelled, None));
    assert_eq!(engine.cancel_job(job, "again").await.unwrap(), (JobState::Cancelled, false));
    engine.shut_down().await;
}

async fn progress_is_kept_with_the_job(database: TestDatabase) {
    let (said, mut heard) = mpsc::unbounded_channel();
    let go_on = Arc::new(Notify::new());
    let mut handlers = Handlers::new();
    let gate = Arc::clone(&go_on);
    handlers
        .job("steady", move |context: Context, (): ()| {
            let (said, gate) = (said.clone(), Arc::clone(&gate));
            async move {
                context.progress(0.5, Some("half way")).await?;
                let _ = said.send(());
                gate.notified().await;
                Ok(())
            }
        })
        .unwrap();
    let engine = start(&store_of(&database).await, handlers).await;
    let job = engine.submit(NewJob::new("steady", "null")).await.unwrap();
    soon(heard.recv()).await.unwrap();
    let record = engine.job(job).await.unwrap();
    assert_eq!((record.progress, record.message.as_deref()), (Some(0.5), Some("half way")));
    go_on.notify_one();
    assert_eq!(soon(engine.wait_for_job(job)).await.unwrap().state, JobState::Completed);
    engine.shut_down().await;
}

const DIAMOND: &str = "
name: diamond
namespace: n
version: 1.0.0
steps:
  - name: a
    handler: { callable: add, initialization: { own: 1 } }
  - name: b
    handler: { callable: add, initialization: { own: 10 } }
    depends_on: [a]
  - name: c
    handler: { callable: add, initialization: { own: 100 } }
    depends_on: [a]
  - name: d
    handler: { callable: add, initialization: { own: 1000 } }
    depends_on: [b, c]
";

async fn diamond_runs_in_order_and_hands_results_on(database: TestDatabase) {
    let mut handlers = Handlers::new();
    let add = async |context: Context, input: Value| {
        let facts = context.facts();
        let before: i64 = facts.results.values().filter_map(Value::as_i64).sum();
        Ok(before + facts.settings["own"].as_i64().unwrap() + input["start"].as_i64().unwrap())
    };
    handlers.job("add", add).unwrap();
    let engine = start(&store_of(&database).await, handlers).await;
    let template = Template::parse(DIAMOND, "diamond.yaml").unwrap();
    let workflow =
        engine.submit_workflow(WorkflowId::make(), &template, &json!({ "start": 5 })).await.unwrap();
    let record = soon(engine.wait_for_workflow(workflow)).await.unwrap();
    assert_eq!((record.state, record.counts.done), (WorkflowState::Completed, 4));
    let steps: HashMap<String, _> = engine
        .store()
        .workflow_steps(workflow)
        .await
        .unwrap()
        .into_iter()
        .map(|step| (step.job.step.clone().unwrap(), step.job))
        .collect();
    let output = |step: &str| steps[step].output.as_deref().unwrap().to_owned();
    assert_eq!([output("a"), output("b"), output("c"), output("d")], ["6", "21", "111", "1137"]);
    for (before, after) in [("a", "b"), ("a", "c"), ("b", "d"), ("c", "d")] {
        assert!(steps[before].finished_at <= steps[after].started_at, "{before} ended before {after} began");
    }
    engine.shut_down().await;
}

async fn failed_step_fails_its_workflow_and_holds_back_what_waits_for_it(database: TestDatabase) {
    let mut handlers = Handlers::new();
    let add = async |context: Context, _: Value| match context.facts().step.as_deref() {
        Some("b") => Err(Failure::permanent("broken", "b is broken")),
        _ => Ok(()),
    };
    handlers.job("add", add).unwrap();
    let engine = start(&store_of(&database).await, handlers).await;
    let template = Template::parse(DIAMOND, "diamond.yaml").unwrap();
    let workflow = engine.submit_workflow(WorkflowId::make(), &template, &json!({})).await.unwrap();
    let record = soon(engine.wait_for_workflow(workflow)).await.unwrap();
    assert_eq!(record.state, WorkflowState::Failed);
    let states: Vec<_> =
        engine.store().workflow_steps(workflow).await.unwrap().iter().map(|step| step.job.state).collect();
    assert_eq!(states, [JobState::Completed, JobState::Failed, JobState::Completed, JobState::Blocked]);
    engine.shut_down().await;
}

/// A view whose items are what `inputs` holds: fingerprint and value are the input itself.
fn mirror(handlers: &mut Handlers, inputs: &Arc<Mutex<Vec<(String, i64)>>>) {
    let inputs = Arc::clone(inputs);
    handlers
        .view("mirror", move |build: BuildContext| {
            let items: Vec<(String, i64)> = inputs.lock().unwrap().clone();
            async move {
                for (item, value) in items {
                    build.checkpoint().await?;
                    let fingerprint = value.to_string();
                    if !build.reuse(&item, &fingerprint).await? {
                        build.put(&item, Some(&fingerprint), &value).await?;
                    }
                }
                Ok(())
            }
        })
        .unwrap();
}

fn text(value: Option<&Arc<String>>) -> Option<&str> {
    value.map(|value| value.as_str())
}

async fn touched_view_is_built_published_and_read(database: TestDatabase) {
    let inputs = Arc::new(Mutex::new(vec![("tea".to_owned(), 250), ("coffee".to_owned(), 310)]));
    let mut handlers = Handlers::new();
    mirror(&mut handlers, &inputs);
    let engine = start(&store_of(&database).await, handlers).await;
    engine.define_view(view("prices", "mirror", at_once())).await.unwrap();
    let before = engine.read_items("n", "prices", &["tea"]).await.unwrap();
    assert_eq!((before.version, before.values), (0, vec![None]));

    let touched = engine.touch(touch("prices", &[])).await.unwrap();
    soon(engine.wait_for_version("n", "prices", touched.version, support::LIMIT)).await.unwrap();
    let read = engine.read_items("n", "prices", &["coffee", "milk", "tea"]).await.unwrap();
    assert_eq!(read.version, 1);
    let values: Vec<_> = read.values.iter().map(|value| text(value.as_ref())).collect();
    assert_eq!(values, [Some("310"), None, Some("250")]);

    *inputs.lock().unwrap() = vec![("tea".to_owned(), 260), ("milk".to_owned(), 120)];
    let touched = engine.touch(touch("prices", &[])).await.unwrap();
    soon(engine.wait_for_version("n", "prices", touched.version, support::LIMIT)).await.unwrap();
    let read = engine.read_items("n", "prices", &["coffee", "milk", "tea"]).await.unwrap();
    let values: Vec<_> = read.values.iter().map(|value| text(value.as_ref())).collect();
    assert_eq!(values, [None, Some("120"), Some("260")]);
    let record = engine.store().view_get("n", "prices").await.unwrap();
    assert_eq!((record.versions.status, record.versions.live), (ViewStatus::Completed, 2));
    engine.shut_down().await;
}

async fn touch_stops_a_running_build_and_its_successor_takes_over_what_was_made(database: TestDatabase) {
    let (said, mut heard) = mpsc::unbounded_channel();
    let mut handlers = Handlers::new();
    handlers
        .view("long", move |build: BuildContext| {
            let said = said.clone();
            async move {
                for n in 0..10 {
                    let (item, fingerprint) = (format!("item-{n}"), "same".to_owned());
                    if !build.reuse(&item, &fingerprint).await? {
                        build.put(&item, Some(&fingerprint), &n).await?;
                    }
                    if n == 6 && build.version() == 1 {
                        build.flush().await?;
                        let _ = said.send(None);
                        let why = build.context().stopped().await;
                        let _ = said.send(Some(why));
                        return Err(Failure::Stopped(why));
                    }
                }
                Ok(())
            }
        })
        .unwrap();
    let engine = start(&store_of(&database).await, handlers).await;
    engine.define_view(view("v", "long", at_once())).await.unwrap();
    engine.touch(touch("v", &[])).await.unwrap();
    assert_eq!(soon(heard.recv()).await, Some(None));
    let first = engine.store().view_get("n", "v").await.unwrap().build.unwrap();
    let touched = engine.touch(touch("v", &[])).await.unwrap();
    assert_eq!((touched.version, touched.superseded), (2, Some(first)));
    assert_eq!(soon(heard.recv()).await, Some(Some(Stop::Superseded)));
    soon(engine.wait_for_version("n", "v", 2, support::LIMIT)).await.unwrap();

    let ended = soon(engine.wait_for_job(first)).await.unwrap();
    assert_eq!((ended.state, ended.superseded_by), (JobState::Superseded, Some(2)));
    let generation = engine.store().generations_list(touched.view, 10).await.unwrap().remove(0);
    assert_eq!((generation.items_total, generation.items_computed, generation.items_reused), (10, 3, 7));
    until("the worker let go of both builds", async || (engine.held_count() == 0).then_some(())).await;
    let stats = engine.stats();
    assert_eq!((stats.published, stats.superseded, stats.items_computed, stats.items_reused), (1, 1, 3, 7));
    engine.shut_down().await;
}

async fn reader_waits_for_its_own_write_or_is_told(database: TestDatabase) {
    let inputs = Arc::new(Mutex::new(vec![("x".to_owned(), 7)]));
    let gate = Arc::new(Notify::new());
    let mut handlers = Handlers::new();
    let held = Arc::clone(&gate);
    handlers
        .view("gated", move |build: BuildContext| {
            let (held, items) = (Arc::clone(&held), inputs.lock().unwrap().clone());
            async move {
                held.notified().await;
                for (item, value) in items {
                    build.put(&item, None, &value).await?;
                }
                Ok(())
            }
        })
        .unwrap();
    let engine = start(&store_of(&database).await, handlers).await;
    engine.define_view(view("v", "gated", at_once())).await.unwrap();
    let version = engine.touch(touch("v", &[])).await.unwrap().version;
    let short = Duration::from_millis(50);
    let told = engine.read_items_since("n", "v", &["x"], version, short).await.unwrap_err();
    assert!(matches!(told, Error::TimedOut { waited, .. } if waited == short), "{told}");
    gate.notify_one();
    let read = soon(engine.read_items_since("n", "v", &["x"], version, support::LIMIT)).await.unwrap();
    assert_eq!((read.version, text(read.values[0].as_ref())), (version, Some("7")));
    engine.shut_down().await;
}

async fn endless_touches_cannot_keep_a_view_stale_for_ever(database: TestDatabase) {
    let store = store_of(&database).await;
    let endless = Arc::new(AtomicBool::new(true));
    let mut handlers = Handlers::new();
    let (toucher, goes_on) = (Arc::clone(&store), Arc::clone(&endless));
    handlers
        .view("overtaken", move |build: BuildContext| {
            let (toucher, goes_on) = (Arc::clone(&toucher), Arc::clone(&goes_on));
            async move {
                // Every build is overtaken while it runs.
                if goes_on.load(Ordering::SeqCst) {
                    toucher.views_touch(vec![touch("v", &[])]).await.map_err(Failure::retryable)?;
                }
                build.put("made", None, &build.version()).await
            }
        })
        .unwrap();
    let engine = start(&store, handlers).await;
    let limit = Duration::from_millis(400);
    let policy = ViewPolicy { max_staleness_ms: Some(400), ..at_once() };
    engine.define_view(view("v", "overtaken", policy)).await.unwrap();
    engine.touch(touch("v", &[])).await.unwrap();
    let first_touch = store.view_get("n", "v").await.unwrap().versions.dirty_since.unwrap();
    let live = soon(engine.wait_for_version("n", "v", 1, support::LIMIT)).await.unwrap();
    endless.store(false, Ordering::SeqCst);
    let generation = store
        .generations_list(store.view_get("n", "v").await.unwrap().id, 100)
        .await
        .unwrap()
        .pop()
        .expect("one was published");
    assert!(live > 1, "builds were superseded before one was let through");
    assert!(generation.published_at.since(first_touch) >= limit, "not before the limit was reached");
    let newest = store.view_get("n", "v").await.unwrap().versions.wanted;
    soon(engine.wait_for_version("n", "v", newest, support::LIMIT)).await.unwrap();
    engine.shut_down().await;
}

async fn debounce_waits_no_longer_than_its_maximum(database: TestDatabase) {
    let mut handlers = Handlers::new();
    mirror(&mut handlers, &Arc::default());
    let engine = start(&store_of(&database).await, handlers).await;
    let policy = ViewPolicy { debounce_quiet_ms: 3_600_000, debounce_max_ms: 300, ..ViewPolicy::default() };
    engine.define_view(view("v", "mirror", policy)).await.unwrap();
    for _ in 0..5 {
        engine.touch(touch("v", &[])).await.unwrap();
    }
    let first_touch = engine.store().view_get("n", "v").await.unwrap().versions.dirty_since.unwrap();
    let live = soon(engine.wait_for_version("n", "v", 1, support::LIMIT)).await.unwrap();
    assert_eq!((live, engine.stats().builds_created), (5, 1), "one build serves all touches");
    let record = engine.store().view_get("n", "v").await.unwrap();
    let waited = record.last_recached_at.unwrap().since(first_touch);
    assert!(waited >= Duration::from_millis(300), "{waited:?}");
    engine.shut_down().await;
}

async fn failing_build_leaves_the_live_version(database: TestDatabase) {
    let mut handlers = Handlers::new();
    let moody = async |build: BuildContext| {
        build.put("x", None, &build.version()).await?;
        build.flush().await?;
        if build.version() == 2 { Err(Failure::permanent("bad_input", "cannot be built")) } else { Ok(()) }
    };
    handlers.view("moody", moody).unwrap();
    let engine = start(&store_of(&database).await, handlers).await;
    engine.define_view(view("v", "moody", at_once())).await.unwrap();
    engine.touch(touch("v", &[])).await.unwrap();
    soon(engine.wait_for_version("n", "v", 1, support::LIMIT)).await.unwrap();
    engine.touch(touch("v", &[])).await.unwrap();
    let failed = until("the build fails", async || {
        let record = engine.store().view_get("n", "v").await.unwrap();
        (record.versions.status == ViewStatus::Failed).then_some(record)
    })
    .await;
    assert_eq!((failed.versions.live, failed.versions.wanted), (1, 2));
    assert!(failed.last_error.unwrap().contains("cannot be built"));
    let read = engine.read_item("n", "v", "x").await.unwrap();
    assert_eq!((read.version, text(read.value.as_ref())), (1, Some("1")));
    engine.touch(touch("v", &[])).await.unwrap();
    soon(engine.wait_for_version("n", "v", 3, support::LIMIT)).await.unwrap();
    engine.shut_down().await;
}

async fn silent_worker_gets_a_new_session_after_it_was_swept(database: TestDatabase) {
    let store = store_of(&database).await;
    let cut = Faulty::over(Arc::clone(&store));
    let (said, mut heard) = mpsc::unbounded_channel();
    let mut handlers = Handlers::new();
    handlers
        .job("patient", move |context: Context, (): ()| {
            let said = said.clone();
            async move {
                let facts = context.facts();
                let _ = said.send((facts.attempt, facts.attempt_token.clone(), None));
                if facts.attempt == 1 {
                    let why = context.stopped().await;
                    let _ = said.send((facts.attempt, String::new(), Some(why)));
                }
                Ok(context.facts().attempt)
            }
        })
        .unwrap();
    let options = Options { lease: Duration::from_millis(900), ..quick() };
    let faulty: Arc<dyn Store> = Arc::<Faulty>::clone(&cut);
    let engine = start_with(&faulty, handlers, options.clone()).await;
    let sweeper = start_with(&store, Handlers::new(), options).await;
    let job = engine.submit(NewJob::new("patient", "null")).await.unwrap();
    let (attempt, first_token, _) = soon(heard.recv()).await.unwrap();
    assert_eq!(attempt, 1);
    cut.beats_fail.store(true, Ordering::SeqCst);
    until("the job is taken away", async || {
        (engine.job(job).await.unwrap().state == JobState::Queued).then_some(())
    })
    .await;
    cut.beats_fail.store(false, Ordering::SeqCst);
    let (attempt, _, why) = soon(heard.recv()).await.unwrap();
    assert_eq!((attempt, why), (1, Some(Stop::LeaseLost)));
    let (attempt, second_token, _) = soon(heard.recv()).await.unwrap();
    assert_eq!(attempt, 2);
    assert_ne!(first_token, second_token, "each attempt has a token of its own");
    let record = soon(engine.wait_for_job(job)).await.unwrap();
    assert_eq!((record.state, record.output.as_deref()), (JobState::Completed, Some("2")));
    let mut sessions: Vec<SessionId> = cut.sessions.lock().unwrap().clone();
    let opened = sessions.len();
    sessions.sort();
    sessions.dedup();
    assert!(opened >= 2 && sessions.len() == opened, "every session is new: {sessions:?}");
    assert_eq!(sweeper.stats().swept + engine.stats().swept, 1);
    engine.shut_down().await;
    sweeper.shut_down().await;
}

async fn job_of_a_dead_session_runs_again(database: TestDatabase) {
    let store = store_of(&database).await;
    let dead = SessionId::make();
    store.session_open(dead, "a process that died", Duration::from_millis(1)).await.unwrap();
    let jobs = [
        NewJob { retry: retries(2, 1), ..NewJob::new("count", "null") },
        NewJob { retry: retries(1, 1), ..NewJob::new("count", "null") },
    ];
    store.jobs_submit(jobs.to_vec()).await.unwrap();
    let claim = ClaimRequest {
        session: dead,
        queues: vec!["default".to_owned()],
        handlers: vec!["count".to_owned()],
        rows_max: 10,
    };
    // A claim is refused to a session that is no longer alive; this one lives just long enough.
    store.session_beat(dead, Duration::from_mins(1), vec![]).await.unwrap();
    assert_eq!(store.jobs_dispatch(vec![], Some(claim)).await.unwrap().claimed.len(), 2);
    store.session_beat(dead, Duration::from_millis(1), vec![]).await.unwrap();

    let mut handlers = Handlers::new();
    handlers.job("count", async |context: Context, (): ()| Ok(context.facts().attempt)).unwrap();
    let options = Options { lease: Duration::from_millis(500), ..quick() };
    let engine = start_with(&store, handlers, options).await;
    let again = soon(engine.wait_for_job(jobs[0].id)).await.unwrap();
    assert_eq!((again.state, again.output.as_deref()), (JobState::Completed, Some("2")));
    let over = soon(engine.wait_for_job(jobs[1].id)).await.unwrap();
    assert_eq!((over.state, over.error.unwrap().kind), (JobState::Failed, ErrorKind::LeaseLost));
    engine.shut_down().await;
}

/// The connection of a claim is lost, the session asks what it holds, and only then the database carries the claim out.
async fn claim_that_is_carried_out_after_it_was_given_up_is_handed_back(database: TestDatabase) {
    let store = store_of(&database).await;
    let mut handlers = Handlers::new();
    handlers.job("work", async |_: Context, (): ()| Ok(())).unwrap();
    let options = Options { lease: Duration::from_millis(500), ..quick() };
    let engine = start_with(&store, handlers, options).await;
    let done = engine.submit(NewJob::new("work", "null")).await.unwrap();
    soon(engine.wait_for_job(done)).await.unwrap();
    let history = store.job_history(done).await.unwrap();
    let session = history.iter().find_map(|row| row.session).unwrap();
    // In a queue of which the engine takes nothing, so that it stays where it is put.
    let late = NewJob { queue: "elsewhere".to_owned(), ..NewJob::new("work", "null") };
    store.jobs_submit(vec![late.clone()]).await.unwrap();
    let claim = ClaimRequest {
        session,
        queues: vec!["elsewhere".to_owned()],
        handlers: vec!["work".to_owned()],
        rows_max: 1,
    };
    assert_eq!(store.jobs_dispatch(vec![], Some(claim)).await.unwrap().claimed.len(), 1);
    let handed_back = until("it is handed back", async || {
        let job = store.job_get(late.id).await.unwrap();
        (job.state == JobState::Queued).then_some(job)
    });
    assert_eq!(handed_back.await.attempt, 0, "nobody ran it, so no attempt is used");
    engine.shut_down().await;
}

async fn shutdown_hands_back_what_was_not_started(database: TestDatabase) {
    let store = store_of(&database).await;
    let runs = Arc::new(AtomicU32::new(0));
    let gate = Arc::new(Notify::new());
    let mut handlers = Handlers::new();
    handlers.job("fast", async |_: Context, (): ()| Ok(())).unwrap();
    let (counted, held) = (Arc::clone(&runs), Arc::clone(&gate));
    handlers
        .job("held", move |_: Context, (): ()| {
            counted.fetch_add(1, Ordering::SeqCst);
            let held = Arc::clone(&held);
            async move {
                held.notified().await;
                Ok("finished while it shut down")
            }
        })
        .unwrap();
    let engine = start_with(&store, handlers, Options { slots: 1, ..quick() }).await;
    // Fast jobs teach the engine to claim ahead.
    let fast: Vec<NewJob> = (0..200).map(|_| NewJob::new("fast", "null")).collect();
    for job in engine.submit_many(fast).await.unwrap() {
        soon(engine.wait_for_job(job.id)).await.unwrap();
    }
    let held: Vec<NewJob> = (0..20).map(|_| NewJob::new("held", "null")).collect();
    engine.submit_many(held).await.unwrap();
    until("it claimed ahead and one runs", async || {
        (engine.held_count() > 1 && runs.load(Ordering::SeqCst) == 1).then_some(())
    })
    .await;
    let of_held = |state| recache_store::JobFilter {
        handler: Some("held".to_owned()),
        state: Some(state),
        rows_max: 100,
        ..recache_store::JobFilter::default()
    };
    let mut ends = Box::pin(engine.shut_down());
    tokio::select! {
        biased;
        () = &mut ends => panic!("one is still running"),
        () = std::future::ready(()) => {}
    }
    // It has begun to shut down. Now the slot becomes free.
    gate.notify_one();
    soon(ends).await;
    let back = store.jobs_list(of_held(JobState::Queued)).await.unwrap().jobs;
    assert_eq!(back.len(), 19, "what was not started is back in the queue");
    assert!(back.iter().all(|job| job.attempt == 0), "being handed back costs no attempt");
    assert_eq!(runs.load(Ordering::SeqCst), 1, "nothing was begun while it shut down");
    assert_eq!(
        store.jobs_list(of_held(JobState::Completed)).await.unwrap().jobs.len(),
        1,
        "what ran was let finish"
    );
    store.close().await;
}

async fn store_that_hangs_does_not_keep_a_shutdown(database: TestDatabase) {
    let store = store_of(&database).await;
    let cut = Faulty::over(Arc::clone(&store));
    let faulty: Arc<dyn Store> = Arc::<Faulty>::clone(&cut);
    let engine = start_with(&faulty, Handlers::new(), quick()).await;
    cut.hangs.store(true, Ordering::SeqCst);
    until("a call hangs", async || (cut.hung.load(Ordering::SeqCst) > 0).then_some(())).await;
    soon(engine.shut_down()).await;
}

async fn worker_leaves_jobs_of_other_handlers_alone(database: TestDatabase) {
    let store = store_of(&database).await;
    let named = |name: &'static str| {
        let mut handlers = Handlers::new();
        handlers.job(name, move |_: Context, (): ()| async move { Ok(name) }).unwrap();
        handlers
    };
    let tea = start(&store, named("tea")).await;
    let for_coffee = tea.submit(NewJob::new("coffee", "null")).await.unwrap();
    let for_tea = tea.submit(NewJob::new("tea", "null")).await.unwrap();
    assert_eq!(soon(tea.wait_for_job(for_tea)).await.unwrap().output.as_deref(), Some("\"tea\""));
    let waiting = tea.job(for_coffee).await.unwrap();
    assert_eq!((waiting.state, waiting.attempt), (JobState::Queued, 0));
    let coffee = start(&store, named("coffee")).await;
    assert_eq!(soon(coffee.wait_for_job(for_coffee)).await.unwrap().output.as_deref(), Some("\"coffee\""));
    tea.shut_down().await;
    coffee.shut_down().await;
}

async fn two_engines_share_the_work_without_overlap(database: TestDatabase) {
    let ran: Arc<Mutex<Vec<(JobId, u8)>>> = Arc::default();
    // With one slot each, only two engines at once can pass this.
    let meeting = Arc::new(Barrier::new(2));
    let mut engines = Vec::new();
    for me in 0..2u8 {
        let (ran, meeting) = (Arc::clone(&ran), Arc::clone(&meeting));
        let mut handlers = Handlers::new();
        handlers
            .job("meet", move |context: Context, (): ()| {
                let (ran, meeting) = (Arc::clone(&ran), Arc::clone(&meeting));
                async move {
                    ran.lock().unwrap().push((JobId::from_uuid(context.facts().id), me));
                    meeting.wait().await;
                    Ok(())
                }
            })
            .unwrap();
        let store = store_of(&database).await;
        engines.push(start_with(&store, handlers, Options { slots: 1, ..quick() }).await);
    }
    let jobs: Vec<NewJob> = (0..20).map(|_| NewJob::new("meet", "null")).collect();
    for job in engines[0].submit_many(jobs).await.unwrap() {
        let record = soon(engines[0].wait_for_job(job.id)).await.unwrap();
        assert_eq!((record.state, record.attempt), (JobState::Completed, 1));
    }
    let mut ran = ran.lock().unwrap().clone();
    assert_eq!(ran.iter().filter(|(_, who)| *who == 0).count(), 10, "each ran half of them");
    ran.sort();
    ran.dedup_by_key(|(job, _)| *job);
    assert_eq!(ran.len(), 20, "and none ran twice");
    for engine in engines {
        engine.shut_down().await;
    }
}

async fn work_is_found_without_any_hint(database: TestDatabase) {
    let inputs = Arc::new(Mutex::new(vec![("x".to_owned(), 1)]));
    let (said, mut heard) = mpsc::unbounded_channel();
    let mut handlers = Handlers::new();
    mirror(&mut handlers, &inputs);
    handlers.job("quick", async |_: Context, (): ()| Ok(())).unwrap();
    handlers
        .job("patient", move |context: Context, (): ()| {
            let said = said.clone();
            async move {
                let _ = said.send(None);
                let _ = said.send(Some(context.stopped().await));
                Ok(())
            }
        })
        .unwrap();
    let deaf: Arc<dyn Store> = Faulty::deaf(store_of(&database).await);
    // Everything but the poll would take a minute.
    let poll = Duration::from_millis(300);
    let options = Options { poll, sweep: Duration::from_mins(1), lease: Duration::from_mins(1), ..quick() };
    let engine = start_with(&deaf, handlers, options).await;
    engine.define_view(view("v", "mirror", at_once())).await.unwrap();
    for _ in 0..3 {
        let job = engine.submit(NewJob::new("quick", "null")).await.unwrap();
        let record = soon(engine.wait_for_job(job)).await.unwrap();
        let waited = record.started_at.unwrap().since(record.created_at);
        assert!(waited <= poll * 5 / 4 + Duration::from_secs(2), "{waited:?}");
        let version = engine.touch(touch("v", &[])).await.unwrap().version;
        soon(engine.wait_for_version("n", "v", version, support::LIMIT)).await.unwrap();
    }
    let job = engine.submit(NewJob::new("patient", "null")).await.unwrap();
    assert_eq!(soon(heard.recv()).await, Some(None));
    engine.cancel_job(job, "not wanted").await.unwrap();
    assert_eq!(soon(heard.recv()).await, Some(Some(Stop::Cancelled)), "the beat says so");
    engine.shut_down().await;
}

async fn finished_work_outlives_an_outage_of_the_store(database: TestDatabase) {
    let cut = Faulty::over(store_of(&database).await);
    let runs = Arc::new(AtomicU32::new(0));
    let (said, mut heard) = mpsc::unbounded_channel();
    let mut handlers = Handlers::new();
    let (counted, switch) = (Arc::clone(&runs), Arc::clone(&cut));
    handlers
        .job("unlucky", move |_: Context, (): ()| {
            counted.fetch_add(1, Ordering::SeqCst);
            switch.dispatch_fails.store(true, Ordering::SeqCst);
            switch.beats_fail.store(true, Ordering::SeqCst);
            let _ = said.send(());
            async { Ok("made before the outage ended") }
        })
        .unwrap();
    let faulty: Arc<dyn Store> = Arc::<Faulty>::clone(&cut);
    let options = Options { lease: Duration::from_millis(600), ..quick() };
    let engine = start_with(&faulty, handlers, options).await;
    let job = engine.submit(NewJob { retry: retries(1, 1), ..NewJob::new("unlucky", "null") }).await.unwrap();
    soon(heard.recv()).await.unwrap();
    until("the settlement was refused a few times", async || {
        (engine.stats().store_errors >= 4).then_some(())
    })
    .await;
    assert_eq!(engine.job(job).await.unwrap().state, JobState::Running);
    cut.dispatch_fails.store(false, Ordering::SeqCst);
    cut.beats_fail.store(false, Ordering::SeqCst);
    let record = soon(engine.wait_for_job(job)).await.unwrap();
    assert_eq!((record.state, runs.load(Ordering::SeqCst)), (JobState::Completed, 1));
    engine.shut_down().await;
}

async fn claim_whose_answer_was_lost_costs_no_attempt(database: TestDatabase) {
    let cut = Faulty::over(store_of(&database).await);
    let mut handlers = Handlers::new();
    handlers.job("once", async |context: Context, (): ()| Ok(context.facts().attempt)).unwrap();
    let faulty: Arc<dyn Store> = Arc::<Faulty>::clone(&cut);
    let engine = start(&faulty, handlers).await;
    for _ in 0..5 {
        cut.lose_claim.store(true, Ordering::SeqCst);
        let job = NewJob { retry: retries(1, 1), ..NewJob::new("once", "null") };
        let job = engine.submit(job).await.unwrap();
        let record = soon(engine.wait_for_job(job)).await.unwrap();
        assert!(!cut.lose_claim.load(Ordering::SeqCst), "an answer was lost");
        assert_eq!((record.state, record.output.as_deref()), (JobState::Completed, Some("1")));
    }
    engine.shut_down().await;
}

/// Touches `others` in one statement: a first touch is held back until all of them wait behind it.
async fn touch_together(
    engine: &Engine,
    cut: &Faulty,
    others: Vec<recache_store::Touch>,
) -> Vec<recache_engine::Result<recache_store::TouchOutcome>> {
    let (open, gate) = oneshot::channel();
    *cut.touch_gate.lock().unwrap() = Some(gate);
    let before = engine.stats().touches;
    let first = tokio::spawn({
        let engine = engine.clone();
        async move { engine.touch(touch("first", &[])).await }
    });
    until("the first touch is at the gate", async || cut.touch_gate.lock().unwrap().is_none().then_some(()))
        .await;
    let count = u64::try_from(others.len()).unwrap();
    let waiting: Vec<_> = others
        .into_iter()
        .map(|other| {
            let engine = engine.clone();
            tokio::spawn(async move { engine.touch(other).await })
        })
        .collect();
    until("the others wait", async || (engine.stats().touches == before + 1 + count).then_some(())).await;
    // Counted, and queued by the same poll.
    tokio::task::yield_now().await;
    open.send(()).unwrap();
    first.await.unwrap().unwrap();
    let mut answers = Vec::new();
    for one in waiting {
        answers.push(soon(one).await.unwrap());
    }
    answers
}

async fn bad_touch_fails_nobody_else(database: TestDatabase) {
    let cut = Faulty::over(store_of(&database).await);
    let faulty: Arc<dyn Store> = Arc::<Faulty>::clone(&cut);
    let engine = start(&faulty, Handlers::new()).await;
    for key in ["first", "good", "bad"] {
        engine.define_view(view(key, "nobody", ViewPolicy::default())).await.unwrap();
    }
    let answers = touch_together(
        &engine,
        &cut,
        vec![touch("good", &["x"]), touch("bad", &["a\0b"]), touch("none", &[])],
    )
    .await;
    assert_eq!(answers[0].as_ref().unwrap().version, 1);
    assert!(matches!(answers[1], Err(Error::Store(recache_store::Error::Invalid(_)))), "{:?}", answers[1]);
    assert!(
        matches!(answers[2], Err(Error::Store(recache_store::Error::NotFound { .. }))),
        "{:?}",
        answers[2]
    );
    assert_eq!(engine.store().view_get("n", "bad").await.unwrap().versions.wanted, 0, "nothing was changed");
    engine.shut_down().await;
}

async fn lost_answer_of_a_shared_touch_is_called_unknown_to_all(database: TestDatabase) {
    let cut = Faulty::over(store_of(&database).await);
    let faulty: Arc<dyn Store> = Arc::<Faulty>::clone(&cut);
    let engine = start(&faulty, Handlers::new()).await;
    for key in ["first", "a", "b"] {
        engine.define_view(view(key, "nobody", ViewPolicy::default())).await.unwrap();
    }
    cut.lose_touch.store(true, Ordering::SeqCst);
    let answers =
        touch_together(&engine, &cut, vec![touch("a", &[]), touch("b", &[]), touch("b", &["x"])]).await;
    for answer in answers {
        let error = answer.expect_err("its answer was lost");
        assert!(matches!(error, Error::Store(recache_store::Error::Unknown { .. })), "{error:?}");
    }
    engine.shut_down().await;
}

async fn longest_waits_are_not_an_overflow(database: TestDatabase) {
    let inputs = Arc::new(Mutex::new(vec![("x".to_owned(), 1)]));
    let mut handlers = Handlers::new();
    mirror(&mut handlers, &inputs);
    let later =
        async |_: Context, (): ()| Err::<(), _>(Failure::retryable_after("come back later", Duration::MAX));
    handlers.job("later", later).unwrap();
    handlers.job("quick", async |_: Context, (): ()| Ok(())).unwrap();
    let options = Options { drain: Duration::MAX, ..quick() };
    let engine = start_with(&store_of(&database).await, handlers, options).await;
    let job = engine
        .submit(NewJob { retry: retries(3, RetryPolicy::DELAY_MS_MAX), ..NewJob::new("later", "null") })
        .await
        .unwrap();
    until("it failed once", async || (engine.stats().retried == 1).then_some(())).await;
    let never =
        NewJob { due: Due::In(Duration::MAX), timeout: Some(Duration::MAX), ..NewJob::new("quick", "null") };
    let never = engine.submit(never).await.unwrap();
    let quick = NewJob { timeout: Some(Duration::MAX), ..NewJob::new("quick", "null") };
    let quick = engine.submit(quick).await.unwrap();
    assert_eq!(soon(engine.wait_for_job(quick)).await.unwrap().state, JobState::Completed);
    for waiting in [job, never] {
        assert_eq!(engine.job(waiting).await.unwrap().state, JobState::Queued);
    }
    engine.define_view(view("v", "mirror", at_once())).await.unwrap();
    let version = engine.touch(touch("v", &[])).await.unwrap().version;
    let read = soon(engine.read_items_since("n", "v", &["x"], version, Duration::MAX)).await.unwrap();
    assert_eq!(text(read.values[0].as_ref()), Some("1"));
    soon(engine.shut_down()).await;
}

async fn nothing_is_begun_on_a_lease_that_may_have_passed(database: TestDatabase) {
    let cut = Faulty::over(store_of(&database).await);
    let gate = Arc::new(Notify::new());
    let (said, mut heard) = mpsc::unbounded_channel();
    let mut handlers = Handlers::new();
    handlers.job("fast", async |_: Context, (): ()| Ok(())).unwrap();
    let (held, beats) = (Arc::clone(&gate), Arc::clone(&cut));
    handlers
        .job("held", move |_: Context, first: bool| {
            let _ = said.send(beats.beats_fail.load(Ordering::SeqCst));
            let held = Arc::clone(&held);
            async move {
                if first {
                    held.notified().await;
                }
                Ok(())
            }
        })
        .unwrap();
    let faulty: Arc<dyn Store> = Arc::<Faulty>::clone(&cut);
    let options = Options { slots: 1, lease: Duration::from_millis(900), ..quick() };
    let engine = start_with(&faulty, handlers, options).await;
    // Fast jobs teach the engine to claim ahead.
    let fast: Vec<NewJob> = (0..200).map(|_| NewJob::new("fast", "null")).collect();
    for job in engine.submit_many(fast).await.unwrap() {
        soon(engine.wait_for_job(job.id)).await.unwrap();
    }
    let first = engine.submit(NewJob { priority: 1, ..NewJob::new("held", "true") }).await.unwrap();
    assert_eq!(soon(heard.recv()).await, Some(false));
    let second = engine.submit(NewJob::new("held", "false")).await.unwrap();
    until("it has both", async || (engine.held_count() == 2).then_some(())).await;
    let before = engine.stats().store_errors;
    cut.beats_fail.store(true, Ordering::SeqCst);
    // Two thirds of the lease are six beats.
    until("no beat was answered for long", async || {
        (engine.stats().store_errors >= before + 7).then_some(())
    })
    .await;
    gate.notify_one();
    soon(engine.wait_for_job(first)).await.unwrap();
    cut.beats_fail.store(false, Ordering::SeqCst);
    soon(engine.wait_for_job(second)).await.unwrap();
    assert_eq!(soon(heard.recv()).await, Some(false), "it began only when a beat was answered");
    engine.shut_down().await;
}
