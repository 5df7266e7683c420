//! Views whose values are kept in the cache only, over HTTP, built by a worker elsewhere.

use recache_cache::CacheConfig;
use recache_server::{Auth, Settings};
use recache_store::conformance::{postgres_database, sqlite_database};
use recache_worker::{BuildContext, Handlers};
use serde_json::json;

use crate::sdk::Running;
use crate::world::World;

const VIEW: &str = "/v1/views/shop/pages";
const JSON: [(&str, &str); 1] = [("content-type", "application/json")];

fn definition(more: &serde_json::Value) -> String {
    let mut definition = json!({ "handler": "pages", "debounce_quiet_ms": 0 });
    definition.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    definition.to_string()
}

#[tokio::test(flavor = "multi_thread")]
async fn cache_of_this_process_alone_is_refused() {
    let world = World::sqlite().await;
    let answer = world.send("PUT", VIEW, &JSON, &definition(&json!({ "cache_only": true }))).await;
    assert_eq!(answer.code(422), "invalid");
    assert!(answer.body.contains("all processes share"), "{answer:?}");
    let pattern = "/v1/view-patterns/shop/page%2F*";
    let answer = world.send("PUT", pattern, &JSON, &definition(&json!({ "cache_only": true }))).await;
    assert_eq!(answer.code(422), "invalid");
    world.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn values_of_the_cache_alone_are_put_from_afar_and_said_to_be_gone() {
    let Ok(url) = std::env::var("RECACHE_TEST_REDIS_URL") else {
        assert!(std::env::var_os("CI").is_none(), "no RECACHE_TEST_REDIS_URL: run `cargo xtask test`");
        eprintln!("not run: no RECACHE_TEST_REDIS_URL; use `cargo xtask test`");
        return;
    };
    for database in [Some(sqlite_database()), postgres_database().await].into_iter().flatten() {
        let config: CacheConfig = serde_json::from_value(json!({
            "enabled": true, "backend": "redis", "operation_timeout_ms": 5000, "redis": { "url": url },
            "key_prefix": format!("http-kept-{}", recache_model::ids::JobId::make()),
        }))
        .unwrap();
        let world = World::built(database, Settings::default(), Auth::default(), Some(config)).await;
        let mut handlers = Handlers::new();
        handlers
            .view("pages", async |build: BuildContext| {
                let before: Vec<Option<i64>> = build.previous(&["version".to_owned()]).await?;
                for item in ["a", "b"] {
                    if !build.reuse(item, "1").await? {
                        build.put(item, Some("1"), &format!("page {item}")).await?;
                    }
                }
                build.put("version", None, &(before[0].unwrap_or(0) + 1)).await
            })
            .unwrap();
        let worker = Running::start(&world, handlers);
        let defined = world.send("PUT", VIEW, &JSON, &definition(&json!({ "cache_only": true }))).await;
        assert_eq!(defined.expect(200)["view"]["cache_only"], json!(true));
        let publish = async |version: i64| {
            world.post(&format!("{VIEW}/touch"), "{}").await.expect(200);
            let path = format!("{VIEW}/items/version?min_version={version}");
            world.send("GET", &path, &[("prefer", "wait=30")], "").await.expect(200)["value"].clone()
        };
        assert_eq!(publish(1).await, json!(1));
        assert_eq!(publish(2).await, json!(2), "what was there before is read through the cache");
        let list = world.get(&format!("{VIEW}/items")).await.expect(200);
        assert_eq!((&list["items"][1]["value"], &list["gone"]), (&json!("page b"), &json!(null)));
        // Whoever builds rests, so that what is gone stays gone for a while.
        worker.end().await;
        world.engine.cache().clear().await;
        let gone = world.send("GET", &format!("{VIEW}/items/a"), &[("if-none-match", "\"2\"")], "").await;
        assert_eq!(gone.code(503), "unavailable");
        assert_eq!(gone.header("retry-after"), Some("1"), "{gone:?}");
        let list = world.get(&format!("{VIEW}/items?limit=2")).await.expect(200);
        assert_eq!((&list["items"], &list["gone"]), (&json!([]), &json!(["a", "b"])));
        let cursor = list["next"].as_str().expect("there is one more");
        let list = world.get(&format!("{VIEW}/items?cursor={cursor}")).await.expect(200);
        assert_eq!(list["gone"], json!(["version"]));
        let back = json!({ "to_version": 1, "reason": "x" }).to_string();
        let answer = world.post(&format!("{VIEW}/rollback"), &back).await;
        assert!(answer.code(409) == "conflict" && answer.body.contains("of version 1"), "{answer:?}");
        let durable = world.send("PUT", VIEW, &JSON, &definition(&json!({}))).await;
        assert_eq!(durable.code(409), "conflict");
        world.end().await;
    }
}
