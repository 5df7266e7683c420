//! Views that workflows build, by whole engines, on both databases; and readers who are slower than generations come and go.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    missing_docs,
    reason = "a test says what it expects"
)]

mod support;

use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU32, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use recache_engine::{Engine, Options};
use recache_model::job::JobState;
use recache_model::template::Template;
use recache_model::view::ViewStatus;
use recache_model::view_options::{BuildWorkflow, Prefetch, ViewOptions};
use recache_model::workflow::WorkflowState;
use recache_store::conformance::TestDatabase;
use recache_store::{NewView, OpenOptions, open};
use recache_worker::{BuildContext, BuildPart, Context, Failure, Handlers};
use serde_json::{Value, json};
use support::{Faulty, LIMIT, at_once, quick, retries, soon, store_of, touch, until, view};

on_both_databases!(
    workflow_builds_whole_generations_and_a_newer_touch_supersedes_it_as_a_whole,
    failed_workflow_is_tried_again_and_takes_over_what_was_made,
    build_goes_on_after_the_process_that_ran_it_died,
    view_without_its_template_says_so_and_heals_by_a_touch,
    reader_whose_generation_was_removed_reads_the_live_one_in_one_statement,
    items_that_are_asked_for_are_in_the_cache_before_the_first_reader,
);

const TEMPLATE: &str = "
name: build
namespace: n
version: 1.2.0
steps:
  - { name: p0, handler: { callable: part, initialization: { index: 0 } } }
  - { name: p1, handler: { callable: part, initialization: { index: 1 } } }
  - { name: p2, handler: { callable: part, initialization: { index: 2 } } }
  - { name: sum, handler: { callable: sum }, depends_on: [p0, p1, p2] }
";

fn by_workflow() -> NewView {
    let workflow: BuildWorkflow = "build@^1".parse().unwrap();
    NewView { policy: at_once(), retry: retries(3, 10), ..NewView::by_workflow("n", "v", workflow) }
}

/// What the steps look at and tell.
#[derive(Debug, Default)]
struct World {
    /// Of which the items are made.
    input: AtomicI64,
    /// Parts wait at their gate while it is set.
    holds: AtomicBool,
    /// So many runs of `sum` fail for good.
    failures: AtomicU32,
    /// Values that were computed.
    computed: AtomicU32,
    /// Parts that wait, or have waited, at the gate.
    waiting: Mutex<Vec<BuildPart>>,
}

fn handlers(world: &Arc<World>) -> Handlers {
    let mut handlers = Handlers::new();
    let of_part = Arc::clone(world);
    handlers
        .job("part", move |context: Context, _: Value| {
            let world = Arc::clone(&of_part);
            async move {
                let part = context.build_part().await?;
                let index = context.facts().settings["index"].as_u64().unwrap();
                let input = world.input.load(Ordering::SeqCst);
                // The first is made of the input, the others never change.
                let mark = if index == 0 { input } else { 0 };
                let item = (format!("item-{index}"), mark.to_string());
                part.for_each(vec![item], 1, |_| async {
                    world.computed.fetch_add(1, Ordering::SeqCst);
                    Ok(mark)
                })
                .await?;
                if world.holds.load(Ordering::SeqCst) {
                    world.waiting.lock().unwrap().push(part.clone());
                    context.stopped().await;
                }
                Ok(json!(mark))
            }
        })
        .unwrap();
    let of_sum = Arc::clone(world);
    handlers
        .job("sum", move |context: Context, _: Value| {
            let world = Arc::clone(&of_sum);
            async move {
                if world
                    .failures
                    .fetch_update(Ordering::SeqCst, Ordering::SeqCst, |left| left.checked_sub(1))
                    .is_ok()
                {
                    return Err(Failure::permanent("broken", "it is broken"));
                }
                let part = context.build_part().await?;
                let sum: i64 = context.facts().results.values().filter_map(Value::as_i64).sum();
                part.put("sum", None, &sum).await?;
                Ok(sum)
            }
        })
        .unwrap();
    handlers
}

async fn start(database: &TestDatabase, world: &Arc<World>) -> Engine {
    // What a dead process held is taken after a lease.
    let options = Options { lease: Duration::from_secs(2), ..quick() };
    let engine = Engine::builder(store_of(database).await).handlers(handlers(world)).options(options);
    let engine = engine.start().await.unwrap();
    engine.put_template(&Template::parse(TEMPLATE, "build.yaml").unwrap()).await.unwrap();
    engine.define_view(by_workflow()).await.unwrap();
    engine
}

async fn publish(engine: &Engine, world: &World, input: i64) -> i64 {
    world.input.store(input, Ordering::SeqCst);
    let version = engine.touch(touch("v", &[])).await.unwrap().version;
    soon(engine.wait_for_version("n", "v", version, LIMIT)).await.unwrap()
}

/// `item-0` and `sum` of one generation.
async fn read(engine: &Engine) -> (i64, Vec<String>) {
    let read = engine.read_items("n", "v", &["item-0", "item-1", "sum"]).await.unwrap();
    (read.version, read.values.iter().map(|value| value.as_ref().expect("a miss").to_string()).collect())
}

async fn workflow_builds_whole_generations_and_a_newer_touch_supersedes_it_as_a_whole(
    database: TestDatabase,
) {
    let world = Arc::<World>::default();
    let engine = start(&database, &world).await;
    publish(&engine, &world, 5).await;
    assert_eq!(read(&engine).await, (1, ["5", "0", "5"].map(str::to_owned).to_vec()));
    publish(&engine, &world, 6).await;
    assert_eq!(world.computed.load(Ordering::SeqCst), 4, "three, and the one that changed");
    let generations = engine.store().generations_list(engine.store().view_get("n", "v").await.unwrap().id, 1);
    let newest = generations.await.unwrap().remove(0);
    assert_eq!((newest.items_total, newest.items_computed, newest.items_reused), (4, 2, 2));

    let reading = tokio::spawn({
        let engine = engine.clone();
        async move {
            let mut last = 0;
            while last < 4 {
                let (version, values) = read(&engine).await;
                assert!(version >= last && values[0] == values[2], "{version} after {last}: {values:?}");
                last = version;
                tokio::time::sleep(Duration::from_millis(2)).await;
            }
        }
    });
    // Superseded while its parts are at work: all of them stop, and what they say later is not heard.
    world.holds.store(true, Ordering::SeqCst);
    world.input.store(7, Ordering::SeqCst);
    engine.touch(touch("v", &[])).await.unwrap();
    let late = until("all parts are at work", async || {
        let waiting = world.waiting.lock().unwrap();
        (waiting.len() == 3).then(|| waiting[0].clone())
    })
    .await;
    let build = engine.store().view_get("n", "v").await.unwrap().build.expect("it builds");
    let workflow = engine.store().job_get(build).await.unwrap().sub_workflow.expect("a workflow does it");
    world.holds.store(false, Ordering::SeqCst);
    world.input.store(8, Ordering::SeqCst);
    let superseded = engine.touch(touch("v", &[])).await.unwrap();
    assert_eq!(superseded.superseded, Some(build));
    let ended = engine.store().workflow_get(workflow).await.unwrap();
    assert_eq!(ended.state, WorkflowState::Cancelled);
    assert!(matches!(late.put("sum", None, &-1).await, Err(Failure::Stopped(_))));
    soon(engine.wait_for_version("n", "v", 4, LIMIT)).await.unwrap();
    assert_eq!(read(&engine).await, (4, ["8", "0", "8"].map(str::to_owned).to_vec()));
    soon(reading).await.unwrap();
    let job = engine.store().job_get(build).await.unwrap();
    assert_eq!((job.state, job.superseded_by), (JobState::Superseded, Some(4)));
    engine.shut_down().await;
}

async fn failed_workflow_is_tried_again_and_takes_over_what_was_made(database: TestDatabase) {
    let world = Arc::<World>::default();
    let engine = start(&database, &world).await;
    world.failures.store(2, Ordering::SeqCst);
    publish(&engine, &world, 5).await;
    assert_eq!(read(&engine).await, (1, ["5", "0", "5"].map(str::to_owned).to_vec()));
    assert_eq!(world.computed.load(Ordering::SeqCst), 3, "the second and third workflow took them over");
    // For good: what is live stays, and the view says why.
    world.failures.store(3, Ordering::SeqCst);
    world.input.store(6, Ordering::SeqCst);
    engine.touch(touch("v", &[])).await.unwrap();
    let failed = until("the build fails", async || {
        let view = engine.store().view_get("n", "v").await.unwrap();
        (view.versions.status == ViewStatus::Failed).then_some(view)
    })
    .await;
    assert!(failed.last_error.is_some_and(|error| error.contains("workflow show")));
    assert_eq!(read(&engine).await.1[0], "5");
    publish(&engine, &world, 7).await;
    assert_eq!(read(&engine).await.1[0], "7");
    engine.shut_down().await;
}

async fn build_goes_on_after_the_process_that_ran_it_died(database: TestDatabase) {
    let world = Arc::<World>::default();
    world.holds.store(true, Ordering::SeqCst);
    let (url, in_it) = (database.url().to_owned(), Arc::clone(&world));
    let process = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    process.spawn(async move {
        let store = open(&OpenOptions::new(&url)).await.unwrap();
        let options = Options { lease: Duration::from_secs(1), beat: Duration::from_millis(100), ..quick() };
        let engine =
            Engine::builder(store).handlers(handlers(&in_it)).options(options).start().await.unwrap();
        engine.put_template(&Template::parse(TEMPLATE, "build.yaml").unwrap()).await.unwrap();
        engine.define_view(by_workflow()).await.unwrap();
        engine.touch(touch("v", &[])).await.unwrap();
        std::future::pending::<()>().await;
    });
    until("all parts are at work", async || (world.waiting.lock().unwrap().len() == 3).then_some(())).await;
    // As near to `kill -9` as a thread gets: nothing is settled, handed back or closed.
    process.shutdown_background();
    world.holds.store(false, Ordering::SeqCst);
    let engine = start(&database, &world).await;
    soon(engine.wait_for_version("n", "v", 1, LIMIT)).await.unwrap();
    assert_eq!(read(&engine).await, (1, ["0", "0", "0"].map(str::to_owned).to_vec()));
    assert_eq!(world.computed.load(Ordering::SeqCst), 3, "what the dead process put was taken over");
    engine.shut_down().await;
}

async fn view_without_its_template_says_so_and_heals_by_a_touch(database: TestDatabase) {
    let world = Arc::<World>::default();
    let engine = Engine::builder(store_of(&database).await).handlers(handlers(&world)).options(quick());
    let engine = engine.start().await.unwrap();
    engine.define_view(by_workflow()).await.unwrap();
    engine.touch(touch("v", &[])).await.unwrap();
    let failed = until("the build fails", async || {
        let view = engine.store().view_get("n", "v").await.unwrap();
        (view.versions.status == ViewStatus::Failed).then_some(view)
    })
    .await;
    let why = failed.last_error.unwrap_or_default();
    assert!(why.contains("n/build") && why.contains("^1"), "{why}");
    engine.put_template(&Template::parse(TEMPLATE, "build.yaml").unwrap()).await.unwrap();
    publish(&engine, &world, 1).await;
    engine.shut_down().await;
}

async fn reader_whose_generation_was_removed_reads_the_live_one_in_one_statement(database: TestDatabase) {
    let mut handlers = Handlers::new();
    handlers
        .view("two", async |build: BuildContext| {
            build.put("a", None, &build.version()).await?;
            build.put("b", None, &build.version()).await
        })
        .unwrap();
    let faulty = Faulty::over(store_of(&database).await);
    let engine = Engine::builder(faulty.clone()).handlers(handlers).options(quick()).start().await.unwrap();
    engine.define_view(view("v", "two", at_once())).await.unwrap();
    let version = engine.touch(touch("v", &[])).await.unwrap().version;
    soon(engine.wait_for_version("n", "v", version, LIMIT)).await.unwrap();
    faulty.generations_are_gone.store(true, Ordering::SeqCst);
    let read = engine.read_items("n", "v", &["b", "none", "a", "b"]).await.unwrap();
    let values: Vec<_> = read.values.iter().map(|value| value.as_deref().map(String::as_str)).collect();
    assert_eq!((read.version, values), (1, vec![Some("1"), None, Some("1"), Some("1")]));
    faulty.generations_are_gone.store(false, Ordering::SeqCst);
    faulty.generation_reads.store(0, Ordering::SeqCst);
    let read = engine.read_items("n", "v", &["b", "none", "a", "b"]).await.unwrap();
    let values: Vec<_> = read.values.iter().map(|value| value.as_deref().map(String::as_str)).collect();
    assert_eq!(values, [Some("1"), None, Some("1"), Some("1")]);
    assert_eq!(faulty.generation_reads.load(Ordering::SeqCst), 1, "one statement for all of them");
    engine.shut_down().await;
}

async fn items_that_are_asked_for_are_in_the_cache_before_the_first_reader(database: TestDatabase) {
    let mut handlers = Handlers::new();
    handlers
        .view("many", async |build: BuildContext| {
            for item in ["a", "b", "c", "d"] {
                build.put(item, None, &build.version()).await?;
            }
            Ok(())
        })
        .unwrap();
    let faulty = Faulty::over(store_of(&database).await);
    let engine = Engine::builder(faulty.clone()).handlers(handlers).options(quick()).start().await.unwrap();
    let fetched = |prefetch| ViewOptions { prefetch: Some(prefetch), ..ViewOptions::default() };
    let items = Prefetch::Items(["b", "none", "c"].map(str::to_owned).to_vec());
    let mut ahead = 0;
    for (key, prefetch, there, expected) in
        [("named", items, vec!["b", "c", "none"], 2), ("first", Prefetch::First(3), vec!["a", "b", "c"], 3)]
    {
        let options = fetched(prefetch);
        engine.define_view(NewView { options, ..view(key, "many", at_once()) }).await.unwrap();
        engine.touch(touch(key, &[])).await.unwrap();
        ahead += expected;
        until("the items are fetched", async || (engine.stats().items_prefetched == ahead).then_some(()))
            .await;
        faulty.generation_reads.store(0, Ordering::SeqCst);
        assert_eq!(engine.read_items("n", key, &there).await.unwrap().version, 1);
        assert_eq!(faulty.generation_reads.load(Ordering::SeqCst), 0, "no reader asked the store");
        engine.read_item("n", key, "d").await.unwrap();
        assert_eq!(faulty.generation_reads.load(Ordering::SeqCst), 1, "which was not asked for");
    }
    engine.define_view(view("plain", "many", at_once())).await.unwrap();
    engine.touch(touch("plain", &[])).await.unwrap();
    soon(engine.wait_for_version("n", "plain", 1, LIMIT)).await.unwrap();
    engine.shut_down().await;
    assert_eq!(engine.stats().items_prefetched, ahead, "nobody asked for those");
}
