//! What readers of a view are told of its generation, and pages through the cache, on both databases.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    missing_docs,
    reason = "a test says what it expects"
)]

mod support;

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use recache_cache::provider::Moka;
use recache_cache::{Cache, SystemClock};
use recache_engine::{Engine, Error};
use recache_store::conformance::TestDatabase;
use recache_store::{Store, ViewName, Word};
use recache_worker::{BuildContext, Handlers};
use support::{Faulty, LIMIT, at_once, quick, soon, store_of, touch, until, view};

on_both_databases!(
    reader_is_told_whether_what_it_reads_is_stale_and_for_how_long,
    pages_go_through_the_cache_and_are_never_of_another_generation,
    list_waits_for_the_version_that_a_touch_asked_for,
);

/// Each item of `v` is the version, and so much more.
async fn start(store: Arc<dyn Store>, more: &Arc<AtomicI64>) -> Engine {
    let mut handlers = Handlers::new();
    let more = Arc::clone(more);
    handlers
        .view("versions", move |build: BuildContext| {
            let more = more.load(Ordering::SeqCst);
            async move {
                for item in ["a", "b", "c"] {
                    build.put(item, None, &(build.version() + more)).await?;
                }
                Ok(())
            }
        })
        .unwrap();
    let clock = Arc::new(SystemClock);
    let cache = Cache::builder(Arc::new(Moka::new(1_000, 1 << 20, clock.clone())), clock).build();
    let engine =
        Engine::builder(store).handlers(handlers).options(quick()).cache(cache).start().await.unwrap();
    engine.define_view(view("v", "versions", at_once())).await.unwrap();
    engine
}

async fn publish(engine: &Engine) -> i64 {
    let version = engine.touch(touch("v", &[])).await.unwrap().version;
    soon(engine.wait_for_version("n", "v", version, LIMIT)).await.unwrap()
}

async fn close(engine: Engine) {
    engine.shut_down().await;
    engine.store().close().await;
}

fn word() -> Word {
    Word::new("ada", "not now")
}

async fn reader_is_told_whether_what_it_reads_is_stale_and_for_how_long(database: TestDatabase) {
    let engine = start(store_of(&database).await, &Arc::default()).await;
    let nothing = engine.read_items("n", "v", &["a"]).await.unwrap();
    assert_eq!((nothing.version, nothing.wanted, nothing.is_stale(), nothing.age), (0, 0, false, None));
    let live = publish(&engine).await;
    let read = engine.read_item("n", "v", "a").await.unwrap();
    assert_eq!(
        (read.version, read.wanted, read.is_stale(), read.staleness),
        (live, live, false, Duration::ZERO)
    );
    let younger = read.age.expect("it was published");
    let view = engine.store().view_get("n", "v").await.unwrap().id;
    assert_eq!(read.view, view);
    let name = ViewName::new("n", "v");
    engine.store().view_control().view_pause(name.clone(), word()).await.unwrap();
    let wanted = engine.touch(touch("v", &[])).await.unwrap().version;
    until("the staleness grows", async || {
        let read = engine.read_item("n", "v", "a").await.unwrap();
        let items = engine.read_items("n", "v", &["a", "none"]).await.unwrap();
        let page = engine.list_items("n", "v", None, 2).await.unwrap();
        for (version, told) in [
            (read.version, (read.wanted, read.is_stale())),
            (items.version, (items.wanted, items.is_stale())),
            (page.version, (page.wanted, page.is_stale())),
        ] {
            assert_eq!((version, told), (live, (wanted, true)));
        }
        let grown = Duration::from_millis(20);
        let all = [read.staleness, items.staleness, page.staleness].iter().all(|behind| *behind >= grown);
        let older = [read.age, items.age, page.age].iter().all(|age| age.unwrap() > younger);
        (all && older).then_some(())
    })
    .await;
    engine.store().view_control().view_resume(name).await.unwrap();
    soon(engine.wait_for_version("n", "v", wanted, LIMIT)).await.unwrap();
    let read = engine.read_items("n", "v", &["a"]).await.unwrap();
    assert_eq!((read.version, read.is_stale(), read.staleness), (wanted, false, Duration::ZERO));

    // One that was replaced is stale since then at least, whatever is live.
    let old = engine.list_items("n", "v", Some((live, "a".to_owned())), 2).await.unwrap();
    assert_eq!((old.version, old.wanted, old.is_stale()), (live, wanted, true));
    assert!(old.age.unwrap() >= old.staleness && old.staleness > Duration::ZERO, "{old:?}");
    assert_eq!(old.items.iter().map(|(item, _)| item.as_str()).collect::<Vec<_>>(), ["b", "c"]);
    close(engine).await;
}

async fn pages_go_through_the_cache_and_are_never_of_another_generation(database: TestDatabase) {
    let faulty = Faulty::over(store_of(&database).await);
    let more = Arc::new(AtomicI64::new(0));
    let engine = start(faulty.clone(), &more).await;
    let looks = || faulty.generation_pages.load(Ordering::SeqCst);
    let page = async |from: Option<(i64, &str)>, rows_max: u32| {
        let from = from.map(|(version, after)| (version, after.to_owned()));
        let page = engine.list_items("n", "v", from, rows_max).await.unwrap();
        (page.version, page.items, page.has_more)
    };
    let rows = |version: i64, items: &[&str]| -> Vec<(String, String)> {
        let value = version + more.load(Ordering::SeqCst);
        items.iter().map(|item| ((*item).to_owned(), value.to_string())).collect()
    };
    for round in 0..2 {
        for _ in 0..3 {
            let version = publish(&engine).await;
            let before = looks();
            for _ in 0..3 {
                assert_eq!(page(None, 2).await, (version, rows(version, &["a", "b"]), true), "{round}");
                assert_eq!(page(Some((version, "b")), 2).await, (version, rows(version, &["c"]), false));
                assert_eq!(page(None, 3).await, (version, rows(version, &["a", "b", "c"]), false));
            }
            assert_eq!(looks() - before, 3, "each page is looked up once");
        }
        // Its versions begin again at 1, with other content. What is cached of the first one is not reachable.
        engine.store().view_control().view_delete(ViewName::new("n", "v"), word()).await.unwrap();
        engine.define_view(view("v", "versions", at_once())).await.unwrap();
        more.fetch_add(1_000, Ordering::SeqCst);
        assert_eq!(page(None, 2).await, (0, Vec::new(), false));
    }
    let gone = engine.list_items("n", "v", Some((7, "a".to_owned())), 2).await;
    assert!(matches!(gone, Err(Error::Store(recache_store::Error::Conflict(_)))), "{gone:?}");
    close(engine).await;
}

async fn list_waits_for_the_version_that_a_touch_asked_for(database: TestDatabase) {
    let engine = start(store_of(&database).await, &Arc::default()).await;
    publish(&engine).await;
    for _ in 0..5 {
        let wanted = engine.touch(touch("v", &[])).await.unwrap().version;
        let page = soon(engine.list_items_since("n", "v", wanted, LIMIT, 10)).await.unwrap();
        assert!(page.version >= wanted, "{page:?}");
    }
    let newest = engine.store().view_get("n", "v").await.unwrap().versions.wanted;
    let late = engine.list_items_since("n", "v", newest + 1, Duration::from_millis(20), 10).await;
    assert!(matches!(late, Err(Error::TimedOut { .. })), "{late:?}");
    close(engine).await;
}
