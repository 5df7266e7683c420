//! Views under many readers, many touches, and builders that die: in a short form here, as long as it takes with `RECACHE_LONG=1`, where limits
//! of time are held too that a busy machine may break.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stdout,
    missing_docs,
    reason = "a test says what it expects"
)]

mod support;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicUsize, Ordering};
use std::time::Duration;

use recache_engine::{Engine, Options};
use recache_model::view::{OnTouch, ViewPolicy};
use recache_store::conformance::TestDatabase;
use recache_store::{NewView, OpenOptions, ViewName, Word, open};
use recache_worker::{BuildContext, Failure, Handlers, Stop};
use support::{Faulty, at_once, quick, retries, soon, store_of, touch, until, view};
use tokio::sync::mpsc;
use tokio::time::Instant;

on_both_databases!(
    readers_miss_nothing_and_never_see_half_a_generation_while_builders_die,
    touches_of_one_view_make_no_more_builds_than_its_debounce_allows,
    newest_version_is_live_one_build_after_the_last_touch,
    touch_stops_the_handler_of_another_process_with_notifications_and_without,
);

const READERS: usize = 64;
const ITEMS: [&str; 8] = ["a", "b", "c", "d", "e", "f", "g", "h"];

fn is_long() -> bool {
    std::env::var_os("RECACHE_LONG").is_some()
}

/// A node that builds, in a runtime of its own: dropping that is as near to `kill -9` as a thread gets. Nothing is settled, handed back or closed.
fn start_builder(url: String) -> tokio::runtime::Runtime {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    runtime.spawn(async move {
        let mut handlers = Handlers::new();
        handlers
            .view("stamp", async |build: BuildContext| {
                for item in ITEMS {
                    build.put(item, None, &build.version()).await?;
                    build.flush().await?;
                    tokio::time::sleep(Duration::from_millis(3)).await;
                    build.checkpoint().await?;
                }
                Ok(())
            })
            .unwrap();
        let store = open(&OpenOptions::new(&url)).await.unwrap();
        let options = Options { lease: Duration::from_secs(1), beat: Duration::from_millis(100), ..quick() };
        let _engine = Engine::builder(store).handlers(handlers).options(options).start().await.unwrap();
        std::future::pending::<()>().await;
    });
    runtime
}

async fn readers_miss_nothing_and_never_see_half_a_generation_while_builders_die(database: TestDatabase) {
    let (publications, kill_after) = if is_long() { (1_000, 2_000) } else { (25, 600) };
    let options =
        Options { generation_keep: Duration::from_secs(3), maintain: Duration::from_millis(200), ..quick() };
    let engine = Engine::builder(store_of(&database).await).options(options).start().await.unwrap();
    let policy = ViewPolicy { on_touch: OnTouch::Finish, ..at_once() };
    engine.define_view(NewView { retry: retries(50, 10), ..view("v", "stamp", policy) }).await.unwrap();
    let mut builder = Some(start_builder(database.url().to_owned()));
    let first = engine.touch(touch("v", &[])).await.unwrap().version;
    engine.wait_for_version("n", "v", first, support::LIMIT).await.unwrap();

    let (is_over, reads, newest) =
        (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)), Arc::new(AtomicI64::new(0)));
    let mut readers = Vec::new();
    for _ in 0..READERS {
        let (engine, is_over, reads, newest) =
            (engine.clone(), Arc::clone(&is_over), Arc::clone(&reads), Arc::clone(&newest));
        readers.push(tokio::spawn(async move {
            let mut last = 0;
            while !is_over.load(Ordering::SeqCst) {
                let read = engine.read_items("n", "v", &ITEMS).await.unwrap();
                assert!(read.version >= last, "from {last} back to {}", read.version);
                last = read.version;
                for value in &read.values {
                    let value = value.as_ref().expect("a miss");
                    assert_eq!(value.as_str(), last.to_string(), "an item of another generation");
                }
                reads.fetch_add(1, Ordering::SeqCst);
                newest.fetch_max(last, Ordering::SeqCst);
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        }));
    }
    let (mut published, mut kills, mut born) = (0, 0, Instant::now());
    while published < publications || kills < 3 {
        let wanted = engine.touch(touch("v", &[])).await.unwrap().version;
        if born.elapsed() >= Duration::from_millis(kill_after) {
            // In the middle of a build: it has begun and not ended.
            until("the build runs", async || {
                let versions = engine.store().view_get("n", "v").await.unwrap().versions;
                (versions.processing.is_some() || versions.live >= wanted).then_some(())
            })
            .await;
            builder.take().unwrap().shutdown_background();
            kills += 1;
            builder = Some(start_builder(database.url().to_owned()));
            born = Instant::now();
        }
        engine.wait_for_version("n", "v", wanted, Duration::from_mins(1)).await.unwrap();
        published += 1;
    }
    is_over.store(true, Ordering::SeqCst);
    for reader in readers {
        reader.await.unwrap();
    }
    let live = engine.store().view_get("n", "v").await.unwrap().versions.live;
    assert!(newest.load(Ordering::SeqCst) >= live - 1, "the readers kept up");
    println!("{} reads, {published} publications, {kills} kills", reads.load(Ordering::SeqCst));
    builder.take().unwrap().shutdown_background();
    engine.shut_down().await;
}

/// An engine with one view, whose builds take so long.
async fn with_builds_of(database: &TestDatabase, takes: Duration, policy: ViewPolicy) -> Engine {
    let mut handlers = Handlers::new();
    handlers
        .view("slow", move |build: BuildContext| async move {
            let began = Instant::now();
            while began.elapsed() < takes {
                build.checkpoint().await?;
                tokio::time::sleep(Duration::from_millis(2)).await;
            }
            build.put("x", None, &build.version()).await
        })
        .unwrap();
    let store = store_of(database).await;
    let engine = Engine::builder(store).handlers(handlers).options(quick()).start().await.unwrap();
    engine.define_view(view("v", "slow", policy)).await.unwrap();
    engine
}

/// Touches `per_second` times a second; how long each took, and the version of the last.
async fn touch_for(engine: &Engine, per_second: u32, lasts: Duration) -> (Vec<Duration>, i64) {
    let count = per_second * u32::try_from(lasts.as_secs()).unwrap();
    let mut ticks = tokio::time::interval(Duration::from_secs(1) / per_second);
    let mut touches = tokio::task::JoinSet::new();
    for _ in 0..count {
        ticks.tick().await;
        let engine = engine.clone();
        touches.spawn(async move {
            let began = Instant::now();
            let version = engine.touch(touch("v", &[])).await.unwrap().version;
            (began.elapsed(), version)
        });
    }
    let mut took = Vec::new();
    let mut last = 0;
    while let Some(touched) = touches.join_next().await {
        let (elapsed, version) = touched.unwrap();
        took.push(elapsed);
        last = last.max(version);
    }
    took.sort();
    (took, last)
}

async fn touches_of_one_view_make_no_more_builds_than_its_debounce_allows(database: TestDatabase) {
    let seconds = if is_long() { 60 } else { 5 };
    let policy = ViewPolicy { debounce_quiet_ms: 1_000, debounce_max_ms: 1_000, ..ViewPolicy::default() };
    let engine = with_builds_of(&database, Duration::from_millis(20), policy).await;
    let (took, last) = touch_for(&engine, 1_000, Duration::from_secs(seconds)).await;
    let ended = Instant::now();
    engine.wait_for_version("n", "v", last, Duration::from_mins(1)).await.unwrap();
    let (late, builds) = (ended.elapsed(), engine.stats().builds_created);
    let p99 = took[took.len() * 99 / 100];
    println!(
        "{} touches, {builds} builds, newest live {late:?} after the last, touch p99 {p99:?}",
        took.len()
    );
    assert!(builds <= seconds + 2, "{builds} builds in {seconds} s");
    if is_long() {
        assert!(late <= Duration::from_secs(2) && p99 <= Duration::from_millis(10), "{late:?} {p99:?}");
    }
    engine.shut_down().await;
}

async fn newest_version_is_live_one_build_after_the_last_touch(database: TestDatabase) {
    let takes = Duration::from_millis(300);
    let engine = with_builds_of(&database, takes, at_once()).await;
    let (_, last) = touch_for(&engine, 100, Duration::from_secs(if is_long() { 20 } else { 2 })).await;
    let ended = Instant::now();
    let live = engine.wait_for_version("n", "v", last, Duration::from_mins(1)).await.unwrap();
    let late = ended.elapsed();
    println!("newest live {late:?} after the last touch, a build takes {takes:?}");
    assert_eq!(live, last);
    if is_long() {
        assert!(late <= takes + Duration::from_millis(50), "{late:?}");
    }
    let builds = engine.store().view_get("n", "v").await.unwrap();
    assert_eq!((builds.build, builds.versions.due_at), (None, None), "nothing more runs or waits");
    engine.shut_down().await;
}

/// One engine touches, another one builds, over connections of their own: once as the database tells it, and once with no hint of any kind, so that its beat
/// must find out.
async fn touch_stops_the_handler_of_another_process_with_notifications_and_without(database: TestDatabase) {
    let rounds: usize = if is_long() { 300 } else { 5 };
    for is_deaf in [false, true] {
        let (said, mut heard) = mpsc::unbounded_channel();
        let mut handlers = Handlers::new();
        handlers
            .view("endless", move |build: BuildContext| {
                let said = said.clone();
                async move {
                    let _ = said.send(None);
                    let why = build.context().stopped().await;
                    let _ = said.send(Some((why, Instant::now())));
                    Err(Failure::Stopped(why))
                }
            })
            .unwrap();
        let mut store = store_of(&database).await;
        if is_deaf {
            store = Faulty::deaf(store);
        }
        // As it is by default: what is measured is its beat, its polling and its patience.
        let builder = Engine::builder(store).handlers(handlers).start().await.unwrap();
        let toucher = Engine::builder(store_of(&database).await).options(quick()).start().await.unwrap();
        let (key, policy) = (format!("v{is_deaf}"), ViewPolicy { max_staleness_ms: None, ..at_once() });
        toucher.define_view(view(&key, "endless", policy)).await.unwrap();
        toucher.touch(touch(&key, &[])).await.unwrap();
        let mut took = Vec::new();
        for _ in 0..rounds {
            assert!(soon(heard.recv()).await.unwrap().is_none(), "it begins");
            let began = Instant::now();
            let touched = toucher.touch(touch(&key, &[])).await.unwrap();
            assert!(touched.superseded.is_some(), "it runs");
            let (why, at) = soon(heard.recv()).await.unwrap().expect("it is stopped");
            assert_eq!(why, Stop::Superseded);
            took.push(at.saturating_duration_since(began));
        }
        took.sort();
        let (p50, p99) = (took[took.len() / 2], took[took.len() * 99 / 100]);
        println!("touch to stopped handler, deaf {is_deaf}: p50 {p50:?}, p99 {p99:?}");
        if is_long() {
            let most = Duration::from_millis(if is_deaf { 1_000 } else { 20 });
            assert!(p99 <= most, "{p99:?}");
        }
        let name = ViewName::new("n", key);
        toucher.store().view_control().view_delete(name, Word::new("test", "done")).await.unwrap();
        for engine in [builder, toucher] {
            engine.shut_down().await;
            engine.store().close().await;
        }
    }
}
