//! The worker of `recache_worker::remote` against a real server: handlers are the same as beside the engine.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use recache_model::ids::WorkflowId;
use recache_model::job::{ErrorKind, JobState};
use recache_model::retry::{Backoff, RetryPolicy};
use recache_model::template::Template;
use recache_model::view::ViewPolicy;
use recache_model::workflow::WorkflowState;
use recache_store::{JobRecord, NewJob, NewView, Touch};
use recache_worker::remote::{RemoteError, RemoteWorker, ServerOptions};
use recache_worker::{BuildContext, Context, Failure, Handlers};
use serde_json::{Value, json};
use tokio::sync::Notify;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::world::World;

pub(crate) struct Running {
    stop: CancellationToken,
    run: JoinHandle<Result<(), RemoteError>>,
}

impl Running {
    pub(crate) fn start(world: &World, handlers: Handlers) -> Self {
        // A server that is not there is passed over.
        let servers = vec!["http://127.0.0.1:9".to_owned(), format!("http://{}", world.address)];
        let options = ServerOptions {
            servers,
            lease: Duration::from_secs(30),
            grace: Duration::from_secs(1),
            ..ServerOptions::new("")
        };
        let worker = RemoteWorker::new(handlers, options).unwrap();
        let stop = CancellationToken::new();
        let run = tokio::spawn(worker.run(stop.clone()));
        Self { stop, run }
    }

    pub(crate) async fn end(self) {
        self.stop.cancel();
        soon(self.run).await.unwrap().unwrap();
    }
}

async fn soon<T>(future: impl Future<Output = T>) -> T {
    tokio::time::timeout(Duration::from_secs(60), future).await.expect("it ends in time")
}

fn twice() -> RetryPolicy {
    RetryPolicy { attempts_max: 2, backoff: Backoff::None, base_ms: 0, cap_ms: 0, jitter: 0.0 }
}

async fn run(world: &World, job: NewJob) -> JobRecord {
    let id = world.engine.submit(job).await.unwrap();
    soon(world.engine.wait_for_job(id)).await.unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn handlers_run_as_they_do_beside_the_engine() {
    for world in World::both().await {
        let mut handlers = Handlers::new();
        handlers
            .job("page", async |context: Context, last: u32| {
                let from: u32 = context.saved()?.unwrap_or(0);
                if from == 0 {
                    context.log("one").await?;
                    context.log("two").await?;
                    context.progress(0.5, Some("half")).await?;
                    context.save(&7).await?;
                    return Err(Failure::retryable("not yet"));
                }
                Ok(json!([from, last, context.facts().attempt]))
            })
            .unwrap();
        handlers.job("panics", async |_: Context, (): ()| -> Result<(), Failure> { panic!("ouch") }).unwrap();
        let told = Arc::new(AtomicU32::new(0));
        let counter = Arc::clone(&told);
        handlers
            .job("waits", move |context: Context, (): ()| {
                let counter = Arc::clone(&counter);
                async move {
                    context.stopped().await;
                    counter.fetch_add(1, Ordering::SeqCst);
                    context.checkpoint().await
                }
            })
            .unwrap();
        let worker = Running::start(&world, handlers);

        let record = run(&world, NewJob { retry: twice(), ..NewJob::new("page", "3") }).await;
        assert_eq!(record.output.as_deref(), Some("[7,3,2]"));
        let lines = world.store.attempts().log_read(record.id, 10).await.unwrap();
        assert_eq!(lines.iter().map(|line| line.text.as_str()).collect::<Vec<_>>(), ["one", "two"]);
        let record =
            run(&world, NewJob { retry: RetryPolicy::once(), ..NewJob::new("panics", "null") }).await;
        let error = record.error.unwrap();
        assert_eq!((error.kind, error.message.as_str()), (ErrorKind::Panic, "ouch"));
        let record = run(&world, NewJob::new("page", "\"no number\"")).await;
        assert_eq!(record.error.unwrap().code.as_deref(), Some("invalid_input"));

        let id = world.engine.submit(NewJob::new("waits", "null")).await.unwrap();
        soon(async {
            while world.engine.job(id).await.unwrap().state != JobState::Running {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        })
        .await;
        world.engine.cancel_job(id, "no longer wanted").await.unwrap();
        soon(async {
            while told.load(Ordering::SeqCst) == 0 {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        })
        .await;
        assert_eq!(world.engine.job(id).await.unwrap().state, JobState::Cancelled);
        worker.end().await;
        let workers = world.store.handler_offers().handlers_workers(100).await.unwrap();
        assert!(workers.iter().all(|worker| !worker.is_remote), "it has left: {workers:?}");
        world.end().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn running_handlers_are_let_finish_when_the_worker_is_to_stop() {
    let world = World::sqlite().await;
    // The store knows that it runs before the worker does, which may hand back what it has not begun.
    let begun = Arc::new(Notify::new());
    let begins = Arc::clone(&begun);
    let mut handlers = Handlers::new();
    handlers
        .job("slow", move |_: Context, (): ()| {
            begins.notify_one();
            async {
                tokio::time::sleep(Duration::from_millis(500)).await;
                Ok(1)
            }
        })
        .unwrap();
    let worker = Running::start(&world, handlers);
    let id = world.engine.submit(NewJob::new("slow", "null")).await.unwrap();
    soon(begun.notified()).await;
    worker.end().await;
    let record = world.engine.job(id).await.unwrap();
    assert_eq!((record.state, record.attempt), (JobState::Completed, 1));
    world.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn steps_get_what_their_workflow_gives_them() {
    for world in World::both().await {
        let mut handlers = Handlers::new();
        handlers.job("rows", async |_: Context, input: Value| Ok(input["rows"].clone())).unwrap();
        handlers
            .job("each", async |context: Context, _: Value| {
                Ok(json!([context.facts().index, context.item(), context.facts().settings]))
            })
            .unwrap();
        handlers
            .prefix("sum.", async |context: Context, _: Value| {
                Ok(json!([context.facts().handler, context.facts().results]))
            })
            .unwrap();
        let worker = Running::start(&world, handlers);
        let source = "
name: t
version: 1.0.0
steps:
  - { name: rows, handler: { callable: rows } }
  - { name: each, handler: { callable: each, initialization: { x: 1 } }, depends_on: [rows], for_each: { items: results.rows, limit: 10 } }
  - { name: sum, handler: { callable: sum.all, resolver: prefix }, depends_on: [each] }
";
        let template = Template::parse(source, "t.yaml").unwrap_or_else(|problems| panic!("{problems}"));
        let id = WorkflowId::make();
        world.engine.submit_workflow(id, &template, &json!({ "rows": ["a", "b"] })).await.unwrap();
        let record = soon(world.engine.wait_for_workflow(id)).await.unwrap();
        assert_eq!(record.state, WorkflowState::Completed);
        let steps = world.store.workflow_steps(id).await.unwrap();
        let sum = steps.iter().find(|step| step.job.step.as_deref() == Some("sum")).unwrap();
        let output: Value = serde_json::from_str(sum.job.output.as_deref().unwrap()).unwrap();
        let each = json!([[0, "a", { "x": 1 }], [1, "b", { "x": 1 }]]);
        assert_eq!(output, json!(["sum.all", { "each": each }]));
        worker.end().await;
        world.end().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn superseded_build_is_followed_by_one_that_takes_over_what_was_made() {
    for world in World::both().await {
        let (computed, first) = (Arc::new(AtomicU32::new(0)), Arc::new(AtomicU32::new(0)));
        let mut handlers = Handlers::new();
        let (counter, runs) = (Arc::clone(&computed), Arc::clone(&first));
        handlers
            .view("prices", move |build: BuildContext| {
                let (counter, runs) = (Arc::clone(&counter), Arc::clone(&runs));
                async move {
                    let is_first = runs.fetch_add(1, Ordering::SeqCst) == 0;
                    for item in ["a", "b", "c"] {
                        if !build.reuse(item, "f").await? {
                            counter.fetch_add(1, Ordering::SeqCst);
                            build.put(item, Some("f"), &item).await?;
                        }
                        if is_first && item == "b" {
                            build.flush().await?;
                            // Kept: from here on a successor can take them over.
                            runs.fetch_add(100, Ordering::SeqCst);
                            build.context().stopped().await;
                            build.checkpoint().await?;
                        }
                    }
                    Ok(())
                }
            })
            .unwrap();
        let worker = Running::start(&world, handlers);
        let policy = ViewPolicy { debounce_quiet_ms: 0, debounce_max_ms: 0, ..ViewPolicy::default() };
        let view = NewView {
            namespace: "shop".to_owned(),
            key: "tea".to_owned(),
            handler: "prices".to_owned(),
            queue: "default".to_owned(),
            policy,
            retry: RetryPolicy::once(),
            timeout: None,
            rules: recache_model::item_rules::ItemRules::default(),
            options: recache_model::view_options::ViewOptions::default(),
        };
        world.engine.define_view(view).await.unwrap();
        let touch = || Touch {
            namespace: "shop".to_owned(),
            key: "tea".to_owned(),
            at_once: true,
            ..Touch::default()
        };
        world.engine.touch(touch()).await.unwrap();
        soon(async {
            while first.load(Ordering::SeqCst) < 100 {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        })
        .await;
        let version = world.engine.touch(touch()).await.unwrap().version;
        soon(async {
            while world.store.view_get("shop", "tea").await.unwrap().versions.live < version {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        })
        .await;
        assert_eq!(world.store.view_read("shop", "tea", None).await.unwrap().items.len(), 3);
        // Live items are kept without a write.
        let version = world.engine.touch(touch()).await.unwrap().version;
        soon(async {
            while world.store.view_get("shop", "tea").await.unwrap().versions.live < version {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        })
        .await;
        let generations = world
            .store
            .generations_list(world.store.view_get("shop", "tea").await.unwrap().id, 10)
            .await
            .unwrap();
        let counts: Vec<_> =
            generations.iter().map(|one| (one.items_total, one.items_computed, one.items_reused)).collect();
        assert_eq!(counts[0], (3, 0, 3), "{counts:?}");
        assert_eq!(computed.load(Ordering::SeqCst), 3, "each once");
        worker.end().await;
        world.end().await;
    }
}

/// What ends a worker must not be a server that is there.
#[tokio::test(flavor = "multi_thread")]
async fn worker_ends_when_told_to_though_no_server_answers() {
    let options = |server: String| ServerOptions {
        lease: Duration::from_secs(30),
        drain: Duration::from_millis(200),
        grace: Duration::from_millis(200),
        ..ServerOptions::new(server)
    };
    let stuck = |begun: &Arc<AtomicU32>| {
        let (mut handlers, begun) = (Handlers::new(), Arc::clone(begun));
        let run = move |_: Context, (): ()| {
            begun.fetch_add(1, Ordering::SeqCst);
            async { std::future::pending::<Result<(), Failure>>().await }
        };
        handlers.job("stuck", run).unwrap();
        handlers
    };
    let begun = Arc::new(AtomicU32::new(0));
    let never = RemoteWorker::new(stuck(&begun), options("http://127.0.0.1:9".to_owned())).unwrap();
    let stop = CancellationToken::new();
    let run = tokio::spawn(never.run(stop.clone()));
    tokio::time::sleep(Duration::from_millis(100)).await;
    stop.cancel();
    soon(run).await.unwrap().expect("it has nothing to tell");

    for holds in [false, true] {
        let world = World::sqlite().await;
        let worker = RemoteWorker::new(stuck(&begun), options(format!("http://{}", world.address))).unwrap();
        let stop = CancellationToken::new();
        let run = tokio::spawn(worker.run(stop.clone()));
        soon(async {
            let is_there = |listed: &Value| {
                listed["workers"].as_array().unwrap().iter().any(|worker| worker["is_remote"] == true)
            };
            while !is_there(&world.get("/v1/workers").await.expect(200)) {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        })
        .await;
        if holds {
            world.engine.submit(NewJob::new("stuck", "null")).await.unwrap();
            soon(async {
                while begun.load(Ordering::SeqCst) == 0 {
                    tokio::time::sleep(Duration::from_millis(10)).await;
                }
            })
            .await;
        }
        world.end().await;
        stop.cancel();
        let ended = soon(run).await.unwrap();
        match ended {
            Ok(()) => assert!(!holds),
            Err(error) => assert!(holds && matches!(error, RemoteError::Unheard { jobs: 1 }), "{error}"),
        }
    }
}

#[test]
fn options_that_cannot_work_are_refused_with_every_reason() {
    let options = ServerOptions { slots: 0, ..ServerOptions::new("ftp://x") };
    let error = RemoteWorker::new(Handlers::new(), options).unwrap_err().to_string();
    for part in ["ftp://x", "no handlers", "slots"] {
        assert!(error.contains(part), "{error}");
    }
}

/// A workflow's steps put parts of a generation from afar; a second one keeps what the first made.
#[tokio::test(flavor = "multi_thread")]
async fn steps_of_a_workflow_build_a_view_from_afar() {
    const VIEW: &str = "/v1/views/shop/tea";
    for world in World::both().await {
        let computed = Arc::new(AtomicU32::new(0));
        let counter = Arc::clone(&computed);
        let mut handlers = Handlers::new();
        handlers
            .job("part", move |context: Context, _: Value| {
                let counter = Arc::clone(&counter);
                async move {
                    let part = context.build_part().await?;
                    let items = ["a", "b"].map(|item| (item.to_owned(), "f".to_owned()));
                    part.for_each(items.to_vec(), 2, |item| {
                        counter.fetch_add(1, Ordering::SeqCst);
                        async move { Ok(item) }
                    })
                    .await?;
                    let before: Vec<Option<i64>> = part.previous(&["version".to_owned()]).await?;
                    part.put("version", None, &(before[0].unwrap_or(0) + 1)).await?;
                    part.keep(&["a".to_owned(), "none".to_owned()]).await
                }
            })
            .unwrap();
        let worker = Running::start(&world, handlers);
        let template = "{ name: tea, namespace: shop, version: 1.0.0, steps: [{ name: one, handler: { callable: part } }] }";
        let template = Template::parse(template, "tea.yaml").unwrap();
        world.engine.put_template(&template).await.unwrap();
        let wrong = json!({ "handler": "x", "workflow": "tea" });
        let headers = [("content-type", "application/json")];
        assert_eq!(world.send("PUT", VIEW, &headers, &wrong.to_string()).await.code(422), "invalid");
        let definition = json!({ "workflow": "shop/tea@^1", "debounce_quiet_ms": 0, "prefetch_first": 5 });
        let defined = world.send("PUT", VIEW, &headers, &definition.to_string()).await.expect(200);
        assert_eq!(
            (&defined["view"]["workflow"], &defined["view"]["prefetch_first"]),
            (&json!("shop/tea@^1"), &json!(5))
        );
        for version in 1..=2 {
            world.post(&format!("{VIEW}/touch"), "{}").await.expect(200);
            let path = format!("{VIEW}/items/version?min_version={version}");
            let read = world.send("GET", &path, &[("prefer", "wait=20")], "").await.expect(200);
            assert_eq!(read["value"], json!(version));
        }
        assert_eq!(computed.load(Ordering::SeqCst), 2, "the second took them over");
        // Outside of such a workflow there is no part.
        let alone = world.engine.submit_workflow(WorkflowId::make(), &template, &Value::Null).await.unwrap();
        let ended = soon(world.engine.wait_for_workflow(alone)).await.unwrap();
        assert_eq!(ended.state, WorkflowState::Failed);
        worker.end().await;
        world.end().await;
    }
}
