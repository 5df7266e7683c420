//! Views whose values are kept in the cache only: what the command line reads, and what it says when the cache has lost them.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::sync::Arc;
use std::time::Duration;

use recache_cache::{Cache, CacheConfig, SystemClock};
use recache_engine::Engine;
use recache_faultproxy::ServerProcess;
use recache_store::conformance::{TestDatabase, postgres_database, sqlite_database};
use recache_store::{OpenOptions, Touch, open};
use recache_worker::{BuildContext, Handlers};
use serde_json::json;

use super::world::{Ran, recache, run};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn values_are_read_from_the_cache_and_said_to_be_gone() {
    read_and_lost(sqlite_database()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn values_are_read_from_the_cache_and_said_to_be_gone_over_postgresql() {
    if let Some(database) = postgres_database().await {
        read_and_lost(database).await;
    }
}

async fn read_and_lost(database: TestDatabase) {
    let server = match ServerProcess::redis().start().await {
        Ok(server) => server,
        Err(error) if std::env::var_os("CI").is_none() => {
            eprintln!("skipped: {error}");
            return;
        }
        Err(error) => panic!("{error}"),
    };
    let url = format!("redis://{}", server.address());
    let folder = tempfile::tempdir().unwrap();
    let file = |cache: &str| format!("[common.cache]\noperation_timeout_ms = 5000\n{cache}");
    let with = file(&format!("enabled = true\nbackend = \"redis\"\n[common.cache.redis]\nurl = \"{url}\"\n"));
    std::fs::write(folder.path().join("with.toml"), with).unwrap();
    let alone = file("enabled = true\nbackend = \"moka\"\n");
    std::fs::write(folder.path().join("alone.toml"), alone).unwrap();
    let view = |config: &str, arguments: &[&str]| -> Ran {
        let mut command = recache(folder.path());
        let command = command.env("RECACHE_DATABASE", database.url());
        run(command.args(["view", "--config", config]).args(arguments))
    };

    let config: CacheConfig = serde_json::from_value(json!({
        "enabled": true, "backend": "redis", "operation_timeout_ms": 5000, "redis": { "url": url },
    }))
    .unwrap();
    let mut handlers = Handlers::new();
    handlers
        .view("build_pages", async |build: BuildContext| {
            build.put("a", Some("1"), &"page a").await?;
            build.put("b", Some("1"), &build.version()).await
        })
        .unwrap();
    let store = open(&OpenOptions::new(database.url())).await.unwrap();
    let cache = Cache::configure(&config, Arc::new(SystemClock)).build();
    let engine = Engine::builder(store).handlers(handlers).cache(cache).start().await.unwrap();

    let define = ["define", "shop/pages", "--handler", "build_pages", "--quiet-for", "0s", "--cache-only"];
    view("alone.toml", &define).refused(2, &["E-CACHE-ONLY", "all processes share", "--server"]);
    assert!(view("with.toml", &define).expect(0).contains("kept in the cache only"));
    view("with.toml", &define[..define.len() - 1]).refused(5, &["E-CONFLICT", "delete it first"]);
    let publish = async || {
        let touch = Touch { namespace: "shop".to_owned(), key: "pages".to_owned(), ..Touch::default() };
        let version = engine.touch(touch).await.unwrap().version;
        engine.wait_for_version("shop", "pages", version, Duration::from_secs(30)).await.unwrap();
    };
    publish().await;
    publish().await;
    assert_eq!(view("with.toml", &["get", "shop/pages", "a"]).expect(0), "\"page a\"\n");
    let items = view("with.toml", &["items", "shop/pages", "-o", "json"]).json();
    assert_eq!((&items["items"][1]["item"], &items["items"][1]["value"]), (&json!("b"), &json!(2)));
    view("alone.toml", &["get", "shop/pages", "a"]).refused(6, &["E-CACHE-ONLY", "all processes share"]);
    // Nobody builds any more: what is gone stays gone, and is asked for.
    engine.shut_down().await;
    let mut connection = TcpStream::connect(server.address()).unwrap();
    connection.write_all(b"FLUSHALL\r\n").unwrap();
    connection.read_exact(&mut [0; 5]).unwrap();
    view("with.toml", &["get", "shop/pages", "a"]).refused(6, &["E-GONE", "the view is touched"]);
    let lost = view("with.toml", &["items", "shop/pages"]);
    assert!(lost.code == 6 && lost.err.contains("2 of those"), "{lost:?}");
    let shown = view("with.toml", &["show", "shop/pages", "-o", "json"]).json();
    assert_eq!(
        (&shown["view"]["recache_version"], &shown["view"]["touched_by"]),
        (&json!(4), &json!("recache"))
    );
    let back = ["rollback", "shop/pages", "--to", "1", "--reason", "x"];
    view("with.toml", &back).refused(5, &["E-GONE", "2 of those of version 1", "recache view rebuild"]);
    engine.store().close().await;
}
