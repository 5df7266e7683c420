//! Views that are made from others, built by an engine, on both databases.
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

use recache_engine::{Engine, Error};
use recache_store::ViewName;
use recache_store::conformance::TestDatabase;
use recache_worker::{BuildContext, Handlers};
use support::{at_once, quick, store_of, touch, until, view};

on_both_databases!(change_runs_down_the_chain_and_stops_where_nothing_changed,);

/// `raw` is a number, `sign` whether it is positive, `word` that as a word.
async fn change_runs_down_the_chain_and_stops_where_nothing_changed(database: TestDatabase) {
    let number = Arc::new(AtomicI64::new(1));
    let engine_of_builders: Arc<tokio::sync::OnceCell<Engine>> = Arc::default();
    let mut handlers = Handlers::new();
    let raw = Arc::clone(&number);
    handlers
        .view("raw", move |build: BuildContext| {
            let number = raw.load(Ordering::SeqCst);
            async move { build.put("n", None, &number).await }
        })
        .unwrap();
    for (key, above) in [("sign", "raw"), ("word", "sign")] {
        let engine = Arc::clone(&engine_of_builders);
        handlers
            .view(key, move |build: BuildContext| {
                let engine = Arc::clone(&engine);
                async move {
                    let engine = engine.get().expect("it runs");
                    let found = engine.read_items("n", above, &["n"]).await.expect("read");
                    let value = found.values[0].clone().unwrap_or_default();
                    let made = if key == "sign" {
                        (!value.starts_with('-')).to_string()
                    } else {
                        format!("\"is {value}\"")
                    };
                    let made: serde_json::Value = serde_json::from_str(&made).expect("JSON");
                    build.put("n", None, &made).await
                }
            })
            .unwrap();
    }
    let store = store_of(&database).await;
    let engine = Engine::builder(store).handlers(handlers).options(quick()).start().await.unwrap();
    assert!(engine_of_builders.set(engine.clone()).is_ok());
    for key in ["raw", "sign", "word"] {
        engine.define_view(view(key, key, at_once())).await.unwrap();
    }
    let name = |key: &str| ViewName::new("n", key);
    engine.derive_view(name("sign"), vec![name("raw")]).await.unwrap();
    engine.derive_view(name("word"), vec![name("sign")]).await.unwrap();
    let circle = engine.derive_view(name("raw"), vec![name("word")]).await;
    assert!(matches!(circle, Err(Error::Store(recache_store::Error::Conflict(_)))), "{circle:?}");
    let word = async || engine.read_items("n", "word", &["n"]).await.unwrap().values[0].clone();
    engine.touch(touch("raw", &[])).await.unwrap();
    until("the word follows", async || {
        (word().await.as_deref().map(String::as_str) == Some("\"is true\"")).then_some(())
    })
    .await;
    number.store(-5, Ordering::SeqCst);
    engine.touch(touch("raw", &[])).await.unwrap();
    until("the word follows", async || {
        (word().await.as_deref().map(String::as_str) == Some("\"is false\"")).then_some(())
    })
    .await;
    let before = settled(&engine).await;
    number.store(-7, Ordering::SeqCst);
    let touched = engine.touch(touch("raw", &[])).await.unwrap();
    engine.wait_for_version("n", "raw", touched.version, Duration::from_mins(1)).await.unwrap();
    engine.wait_for_version("n", "sign", before[1] + 1, Duration::from_mins(1)).await.unwrap();
    let after = settled(&engine).await;
    assert!(after[0] > before[0] && after[1] > before[1], "{before:?} {after:?}");
    assert_eq!(after[2], before[2], "the sign is what it was: the word was not made again");
    let page = engine.list_items("n", "raw", None, 10).await.unwrap();
    assert_eq!((page.items, page.has_more), (vec![("n".to_owned(), "-7".to_owned())], false));
    engine.shut_down().await;
}

/// The live versions, once nothing has been wanted or published for a while.
async fn settled(engine: &Engine) -> [i64; 3] {
    const LOOKS: u32 = 40;
    let (mut last, mut same) = ([0; 3], 0);
    until("nothing is wanted any more", async || {
        let mut live = [0; 3];
        let mut is_done = true;
        for (place, key) in ["raw", "sign", "word"].into_iter().enumerate() {
            let versions = engine.store().view_get("n", key).await.unwrap().versions;
            live[place] = versions.live;
            is_done &= versions.live == versions.wanted;
        }
        same = if is_done && live == last { same + 1 } else { 0 };
        last = live;
        (same >= LOOKS).then_some(live)
    })
    .await
}
