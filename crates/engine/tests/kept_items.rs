//! Views whose values are kept in the cache only: a real Redis that is emptied and killed in the middle of their lives, on both databases.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stderr,
    missing_docs,
    reason = "a test says what it expects"
)]

mod support;

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::sync::atomic::{AtomicI64, AtomicU32, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use recache_cache::provider::Moka;
use recache_cache::{Cache, CacheConfig, SystemClock};
use recache_engine::{Engine, Error};
use recache_faultproxy::ServerProcess;
use recache_model::held_value::digest_of;
use recache_model::template::Template;
use recache_model::view::ViewStatus;
use recache_model::view_options::{BuildWorkflow, ItemsKept, Prefetch, ViewOptions};
use recache_store::conformance::TestDatabase;
use recache_store::{Error as StoreError, NewView, ViewName, Word};
use recache_worker::{BuildContext, Context, Handlers, Touched};
use serde_json::{Value, json};
use support::{LIMIT, at_once, quick, soon, store_of, touch, until, view};

on_both_databases!(
    emptied_cache_is_told_to_every_reader_and_mended_by_one_build,
    build_makes_anew_what_the_cache_has_lost_and_publishes_no_hole,
    generation_is_taken_back_while_its_values_are_there,
    cache_that_is_not_shared_is_refused,
);

/// Who starts no server has none: that fails where the suite must run whole, and says so elsewhere.
async fn redis() -> Option<ServerProcess> {
    match ServerProcess::redis().start().await {
        Ok(server) => Some(server),
        Err(error) if std::env::var_os("CI").is_none() => {
            eprintln!("skipped: {error}");
            None
        }
        Err(error) => panic!("{error}"),
    }
}

fn cache_of(server: &ServerProcess, backend: &str) -> Cache {
    let mut config: CacheConfig = serde_json::from_value(json!({
        "enabled": true, "backend": backend, "redis": { "url": format!("redis://{}", server.address()) },
    }))
    .unwrap();
    config.breaker.timeout_seconds = 1;
    // A busy machine costs no value.
    Cache::configure(&config, Arc::new(SystemClock)).operation_timeout(Duration::from_secs(5)).build()
}

fn empty(server: &ServerProcess) {
    let mut connection = TcpStream::connect(server.address()).unwrap();
    connection.write_all(b"FLUSHALL\r\n").unwrap();
    let mut answer = [0; 5];
    connection.read_exact(&mut answer).unwrap();
    assert_eq!(&answer, b"+OK\r\n");
}

/// Of what items are made, and what was computed.
#[derive(Debug, Default)]
struct World {
    /// Added to the value of `a`, and to nothing else.
    input: AtomicI64,
    /// Stands in all fingerprints, and in no value.
    layout: AtomicI64,
    computed: AtomicU32,
    touched: Mutex<Vec<Touched>>,
}

const ITEMS: [&str; 3] = ["a", "b", "c"];

impl World {
    fn value(&self, item: &str) -> String {
        let input = if item == "a" { self.input.load(Ordering::SeqCst) } else { 0 };
        format!("{item} {input}")
    }

    fn fingerprint(&self, item: &str) -> String {
        format!("{} {}", self.value(item), self.layout.load(Ordering::SeqCst))
    }

    fn compute(&self, item: &str) -> String {
        self.computed.fetch_add(1, Ordering::SeqCst);
        self.value(item)
    }

    fn take_computed(&self) -> u32 {
        self.computed.swap(0, Ordering::SeqCst)
    }
}

const TEMPLATE: &str = "
name: build
namespace: n
version: 1.0.0
steps:
  - { name: all, handler: { callable: part } }
";

fn handlers(world: &Arc<World>) -> Handlers {
    let mut handlers = Handlers::new();
    let of_prints = Arc::clone(world);
    handlers
        .view("prints", move |build: BuildContext| {
            let world = Arc::clone(&of_prints);
            async move {
                let items = ITEMS.map(|item| (item.to_owned(), world.fingerprint(item)));
                build.for_each(items, 2, async |item| Ok(world.compute(&item))).await
            }
        })
        .unwrap();
    let of_touched = Arc::clone(world);
    handlers
        .view("touched", move |build: BuildContext| {
            let world = Arc::clone(&of_touched);
            async move {
                world.touched.lock().unwrap().push(build.touched().clone());
                for item in ITEMS {
                    let is_touched = match build.touched() {
                        Touched::All => true,
                        Touched::Only(items) => items.iter().any(|touched| touched == item),
                    };
                    if is_touched || !build.keep(item).await? {
                        build.put(item, None, &world.compute(item)).await?;
                    }
                }
                Ok(())
            }
        })
        .unwrap();
    let of_part = Arc::clone(world);
    handlers
        .job("part", move |context: Context, _: Value| {
            let world = Arc::clone(&of_part);
            async move {
                let part = context.build_part().await?;
                let items = ITEMS.map(|item| (item.to_owned(), world.fingerprint(item))).to_vec();
                part.for_each(items, 2, async |item| Ok(world.compute(&item))).await?;
                Ok(json!(null))
            }
        })
        .unwrap();
    handlers
}

fn held(view: NewView) -> NewView {
    let options = ViewOptions { items: ItemsKept::CacheOnly, ..view.options };
    NewView { options, ..view }
}

async fn start(database: &TestDatabase, world: &Arc<World>, cache: Cache) -> Engine {
    let engine = Engine::builder(store_of(database).await).handlers(handlers(world)).options(quick());
    engine.cache(cache).start().await.unwrap()
}

async fn publish(engine: &Engine, key: &str, items: &[&str]) -> i64 {
    let version = engine.touch(touch(key, items)).await.unwrap().version;
    soon(engine.wait_for_version("n", key, version, LIMIT)).await.unwrap()
}

/// Version, values and what is gone.
async fn read(engine: &Engine, key: &str) -> (i64, Vec<Option<String>>, Vec<String>) {
    let read = engine.read_items("n", key, &ITEMS).await.unwrap();
    let value = |value: Option<Arc<String>>| Some(serde_json::from_str(&value?).unwrap());
    (read.version, read.values.into_iter().map(value).collect(), read.gone)
}

fn whole(world: &World) -> Vec<Option<String>> {
    ITEMS.map(|item| Some(world.value(item))).to_vec()
}

async fn emptied_cache_is_told_to_every_reader_and_mended_by_one_build(database: TestDatabase) {
    let Some(server) = redis().await else { return };
    let world = Arc::<World>::default();
    let engine = start(&database, &world, cache_of(&server, "redis")).await;
    let prefetch = Some(Prefetch::First(10));
    let options = ViewOptions { prefetch, ..ViewOptions::default() };
    engine.define_view(held(NewView { options, ..view("v", "prints", at_once()) })).await.unwrap();
    publish(&engine, "v", &[]).await;
    assert_eq!(read(&engine, "v").await, (1, whole(&world), vec![]));
    let stored = engine.store().view_read("n", "v", None).await.unwrap();
    assert!(stored.items.len() == 3 && stored.items.iter().all(|(_, value)| digest_of(value).is_some()));
    // One item of three changes; then all fingerprints and no value.
    let counts = async |engine: &Engine| {
        let id = engine.store().view_get("n", "v").await.unwrap().id;
        let newest = engine.store().generations_list(id, 1).await.unwrap().remove(0);
        (newest.items_changed, newest.items_computed, newest.items_reused)
    };
    world.input.store(1, Ordering::SeqCst);
    publish(&engine, "v", &[]).await;
    assert_eq!(counts(&engine).await, (1, 1, 2));
    world.layout.store(1, Ordering::SeqCst);
    publish(&engine, "v", &[]).await;
    assert_eq!(counts(&engine).await, (0, 3, 0));
    assert_eq!(read(&engine, "v").await, (3, whole(&world), vec![]));
    world.take_computed();
    until("the items are fetched", async || (engine.stats().items_prefetched >= 3).then_some(())).await;

    empty(&server);
    let (_, values, gone) = read(&engine, "v").await;
    assert_eq!((values, gone), (vec![None; 3], ITEMS.map(str::to_owned).to_vec()));
    let readers = (0..8).map(|_| {
        let engine = engine.clone();
        let world = Arc::clone(&world);
        tokio::spawn(async move {
            loop {
                let (version, values, gone) = read(&engine, "v").await;
                let is_whole = version > 3 && gone.is_empty();
                // Gone, or the right value (it is there again before it is published); never another one, nor as if there were none.
                for ((item, value), right) in ITEMS.iter().zip(values).zip(whole(&world)) {
                    let is_gone = gone.iter().any(|gone| gone == item);
                    assert!(if is_gone { value.is_none() } else { value == right }, "{item} of {version}");
                }
                let page = engine.list_items("n", "v", None, 2).await.unwrap();
                assert_eq!((page.items.len() + page.gone.len(), page.has_more), (2, true));
                assert_eq!(page.last.as_deref(), Some("b"));
                if is_whole {
                    return;
                }
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        })
    });
    for reader in readers.collect::<Vec<_>>() {
        soon(reader).await.unwrap();
    }
    assert_eq!(
        engine.store().view_get("n", "v").await.unwrap().versions.wanted,
        4,
        "eight readers, one touch"
    );
    assert_eq!(world.take_computed(), 3);
    assert_eq!(counts(&engine).await.0, 0, "the values are those that were there");
    assert!(engine.stats().items_gone > 0 && engine.stats().views_touched_for_gone == 1);
    let word = engine.store().view_get("n", "v").await.unwrap().touched_by.unwrap();
    assert_eq!(word.actor, "recache");
    engine.shut_down().await;
}

/// By whichever way it is built, and although nobody has read what is lost; nor do copies in this process stand for what all share.
async fn build_makes_anew_what_the_cache_has_lost_and_publishes_no_hole(database: TestDatabase) {
    let Some(server) = redis().await else { return };
    let world = Arc::<World>::default();
    let engine = start(&database, &world, cache_of(&server, "tiered")).await;
    engine.put_template(&Template::parse(TEMPLATE, "build.yaml").unwrap()).await.unwrap();
    let workflow: BuildWorkflow = "build".parse().unwrap();
    let by_workflow = NewView { policy: at_once(), ..NewView::by_workflow("n", "by_workflow", workflow) };
    for definition in
        [view("by_print", "prints", at_once()), view("by_touch", "touched", at_once()), by_workflow]
    {
        let key = definition.key.clone();
        engine.define_view(held(definition)).await.unwrap();
        publish(&engine, &key, &[]).await;
        assert_eq!(world.take_computed(), 3, "{key}");
        publish(&engine, &key, &["b"]).await;
        assert_eq!(world.take_computed(), u32::from(key == "by_touch"), "{key}");
        empty(&server);
        let version = publish(&engine, &key, &["b"]).await;
        assert_eq!(world.take_computed(), 3, "{key}");
        assert_eq!(read(&engine, &key).await, (version, whole(&world), vec![]), "{key}");
        let wanted = engine.store().view_get("n", &key).await.unwrap().versions.wanted;
        assert_eq!(wanted, version, "{key}: a build that finds out touches nothing");
    }
    let all = Touched::Only(ITEMS.map(str::to_owned).to_vec());
    assert_eq!(world.touched.lock().unwrap().last(), Some(&all), "what is gone counts as touched");
    engine.shut_down().await;
}

async fn generation_is_taken_back_while_its_values_are_there(database: TestDatabase) {
    let Some(server) = redis().await else { return };
    let world = Arc::<World>::default();
    let engine = start(&database, &world, cache_of(&server, "redis")).await;
    engine.define_view(held(view("v", "prints", at_once()))).await.unwrap();
    publish(&engine, "v", &[]).await;
    let first = whole(&world);
    world.input.store(1, Ordering::SeqCst);
    publish(&engine, "v", &[]).await;
    let id = engine.store().view_get("n", "v").await.unwrap().id;
    let diff = engine.store().view_control().generations_diff(id, 1, 2, None, 10).await.unwrap().unwrap();
    assert_eq!(diff.into_iter().map(|(item, _)| item).collect::<Vec<_>>(), ["a"]);
    let word = || Word::new("ada", "wrong");
    let restored = engine.restore_view(ViewName::new("n", "v"), 1, word()).await.unwrap();
    assert_eq!(read(&engine, "v").await, (restored.version, first, vec![]));
    empty(&server);
    let answer = engine.restore_view(ViewName::new("n", "v"), 2, word()).await;
    let Err(Error::Store(StoreError::Conflict(told))) = answer else { panic!("{answer:?}") };
    assert!(told.starts_with("3 values of version 2"), "{told}");
    engine.shut_down().await;
}

async fn cache_that_is_not_shared_is_refused(database: TestDatabase) {
    let world = Arc::<World>::default();
    let clock = Arc::new(SystemClock);
    let alone = Cache::builder(Arc::new(Moka::new(100, 1 << 20, clock.clone())), clock.clone()).build();
    let off = Cache::configure(&CacheConfig::default(), clock).build();
    for cache in [alone, off] {
        let engine = start(&database, &world, cache).await;
        let answer = engine.define_view(held(view("v", "prints", at_once()))).await;
        let Err(Error::Invalid(told)) = answer else { panic!("{answer:?}") };
        assert!(told.contains("n/v") && told.contains("durable"), "{told}");
        let pattern = held(view("v/*", "prints", at_once()));
        assert!(matches!(engine.define_view_pattern(pattern).await, Err(Error::Invalid(_))));
        // Defined elsewhere, where there is such a cache: its builds wait for an engine that has one, and say so.
        engine.store().view_define(held(view("v", "prints", at_once()))).await.unwrap();
        engine.touch(touch("v", &[])).await.unwrap();
        until("the build waits", async || (engine.stats().snoozed > 0).then_some(())).await;
        let view = engine.store().view_get("n", "v").await.unwrap();
        assert_eq!(view.versions.status, ViewStatus::Processing, "{:?}", view.last_error);
        engine.store().job_cancel(view.build.unwrap(), "seen").await.unwrap();
        engine.shut_down().await;
    }
    assert_eq!(world.take_computed(), 0, "nothing was made that could not be kept");
}

/// No reader fails, nothing is touched, no attempt is spent; when the cache is back, empty, all is made anew.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn cache_that_is_away_lets_builds_wait_and_readers_know() {
    let Some(mut server) = redis().await else { return };
    let database = recache_store::conformance::sqlite_database();
    let world = Arc::<World>::default();
    let engine = start(&database, &world, cache_of(&server, "redis")).await;
    engine.define_view(held(view("v", "prints", at_once()))).await.unwrap();
    publish(&engine, "v", &[]).await;
    server.kill();
    assert_eq!(read(&engine, "v").await, (1, vec![None; 3], ITEMS.map(str::to_owned).to_vec()));
    assert!(engine.read_item("n", "v", "a").await.unwrap().is_gone);
    world.input.store(1, Ordering::SeqCst);
    let version = engine.touch(touch("v", &[])).await.unwrap().version;
    let view = async || engine.store().view_get("n", "v").await.unwrap();
    let build = until("the build waits", async || view().await.build).await;
    until("the build has looked", async || (engine.stats().snoozed > 0).then_some(())).await;
    assert_eq!(view().await.versions.wanted, version, "what cannot be read is not for that gone");
    server.start().await.unwrap();
    soon(engine.wait_for_version("n", "v", version, LIMIT)).await.unwrap();
    assert_eq!(read(&engine, "v").await, (version, whole(&world), vec![]));
    assert_eq!(engine.store().job_get(build).await.unwrap().attempt, 1, "waiting is no attempt");
    engine.shut_down().await;
}
