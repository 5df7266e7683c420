//! Views with more items than a build is told of at once: everything is counted as for small ones, on both databases.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    missing_docs,
    reason = "a test says what it expects"
)]

mod support;

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Mutex};

use recache_engine::{Engine, Options};
use recache_store::GenerationRecord;
use recache_store::conformance::TestDatabase;
use recache_worker::{BuildContext, Handlers};
use support::{LIMIT, at_once, quick, soon, store_of, touch, until, view};

on_both_databases!(
    counts_of_a_large_view_are_exact_whatever_changes,
    large_build_that_was_superseded_is_taken_over_page_by_page,
);

/// So many a build lists, and remembers of what it put.
const LISTED: u32 = 300;
/// Some pages.
const ITEMS: u32 = 1_300;

fn key(number: u32) -> String {
    format!("{number:06}")
}

/// What the view is made of: items with their fingerprints.
#[derive(Debug, Default)]
struct World {
    items: Mutex<BTreeMap<String, u32>>,
    computed: AtomicU32,
    /// The build waits to be stopped when it has put everything.
    holds: AtomicBool,
    is_held: AtomicBool,
}

async fn start(database: &TestDatabase, world: &Arc<World>) -> Engine {
    let mut handlers = Handlers::new();
    let of_builder = Arc::clone(world);
    handlers
        .view("large", move |build: BuildContext| {
            let world = Arc::clone(&of_builder);
            async move {
                let items = world.items.lock().unwrap().clone();
                for (item, inputs) in items {
                    let fingerprint = inputs.to_string();
                    // One is kept by name.
                    if item == key(7) && build.keep(&item).await? {
                        continue;
                    }
                    if !build.reuse(&item, &fingerprint).await? {
                        world.computed.fetch_add(1, Ordering::SeqCst);
                        build.put(&item, Some(&fingerprint), &inputs).await?;
                    }
                }
                if world.holds.load(Ordering::SeqCst) {
                    build.flush().await?;
                    world.is_held.store(true, Ordering::SeqCst);
                    build.context().stopped().await;
                }
                Ok(())
            }
        })
        .unwrap();
    *world.items.lock().unwrap() = (0..ITEMS).map(|number| (key(number), 1)).collect();
    let engine = Engine::builder(store_of(database).await)
        .handlers(handlers)
        .options(Options { build_items_listed_max: LISTED, ..quick() });
    let engine = engine.start().await.unwrap();
    engine.define_view(view("v", "large", at_once())).await.unwrap();
    engine
}

async fn publish(engine: &Engine) -> GenerationRecord {
    let version = engine.touch(touch("v", &[])).await.unwrap().version;
    soon(engine.wait_for_version("n", "v", version, LIMIT)).await.unwrap();
    let id = engine.store().view_get("n", "v").await.unwrap().id;
    engine.store().generations_list(id, 1).await.unwrap().remove(0)
}

async fn counts_of_a_large_view_are_exact_whatever_changes(database: TestDatabase) {
    let world = Arc::<World>::default();
    let engine = start(&database, &world).await;
    let first = publish(&engine).await;
    let all = i64::from(ITEMS);
    assert_eq!((first.items_total, first.items_changed, first.items_computed), (all, all, all));
    {
        let mut items = world.items.lock().unwrap();
        // One of the first page, one of a later one, one in between that goes, and new ones before, within and behind.
        for number in [1, 1_111] {
            items.insert(key(number), 2);
        }
        items.remove(&key(500));
        for new in ["!", "000500x", "zzz"] {
            items.insert(format!("{new}new"), 1);
        }
    }
    world.computed.store(0, Ordering::SeqCst);
    let second = publish(&engine).await;
    assert_eq!(world.computed.load(Ordering::SeqCst), 5);
    assert_eq!((second.items_total, second.items_changed, second.items_removed), (all + 2, 5, 1));
    assert_eq!((second.items_computed, second.items_reused), (5, all - 3));
    let read = engine.read_items("n", "v", &["000001", "000002", "000500", "zzznew"]).await.unwrap();
    let values: Vec<_> = read.values.iter().map(|value| value.as_deref().map(String::as_str)).collect();
    assert_eq!(values, [Some("2"), Some("1"), None, Some("1")]);
    // Everything goes but for one, and comes back.
    let whole = std::mem::take(&mut *world.items.lock().unwrap());
    world.items.lock().unwrap().insert(key(3), 1);
    let third = publish(&engine).await;
    assert_eq!((third.items_total, third.items_removed, third.items_reused), (1, all + 1, 1));
    *world.items.lock().unwrap() = whole;
    assert_eq!(publish(&engine).await.items_total, all + 2);
    engine.shut_down().await;
}

async fn large_build_that_was_superseded_is_taken_over_page_by_page(database: TestDatabase) {
    let world = Arc::<World>::default();
    let engine = start(&database, &world).await;
    world.holds.store(true, Ordering::SeqCst);
    engine.touch(touch("v", &[])).await.unwrap();
    until("all is put", async || world.is_held.load(Ordering::SeqCst).then_some(())).await;
    world.holds.store(false, Ordering::SeqCst);
    world.items.lock().unwrap().insert(key(1_234), 2);
    let published = publish(&engine).await;
    let all = i64::from(ITEMS);
    assert_eq!(world.computed.load(Ordering::SeqCst), ITEMS + 1, "the successor computes what changed");
    assert_eq!((published.items_total, published.items_changed), (all, all));
    assert_eq!((published.items_computed, published.items_reused), (1, all - 1));
    engine.shut_down().await;
}
