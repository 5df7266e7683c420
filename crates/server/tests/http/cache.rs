use std::time::Duration;

use recache_cache::CacheConfig;
use recache_server::{Auth, Settings};
use recache_store::AuditFilter;
use recache_store::conformance::sqlite_database;
use serde_json::json;

use crate::world::World;

#[tokio::test(flavor = "multi_thread")]
async fn cache_is_looked_at_and_outdated() {
    let world = World::sqlite().await;
    let overview = world.get("/v1/cache").await.expect(200);
    assert_eq!(
        (&overview["schema"], &overview["key_prefix"]),
        (&json!("recache.cache-overview.v1"), &json!("recache"))
    );
    let usages = overview["usages"].as_array().unwrap();
    assert!(usages.iter().any(|usage| usage["usage"] == "analytics" && usage["is_on"] == true), "{overview}");
    assert_eq!(world.get("/v1/cache/health").await.expect(200)["condition"], "active");
    let hits = async || world.get("/v1/cache/stats").await.expect(200)["process"]["hits"].as_u64().unwrap();
    let before = hits().await;
    let report = "/v1/analytics/performance?hours=3";
    // The first reads may come before the epochs of the store were heard.
    let hit = tokio::time::timeout(Duration::from_secs(20), async {
        while hits().await == before {
            world.get(report).await.expect(200);
        }
    });
    hit.await.unwrap();

    let key = "recache:analytics:performance:3";
    let seen = world.get(&format!("/v1/cache/inspect?key={key}")).await.expect(200);
    assert_eq!((&seen["key"], &seen["is_fresh"], &seen["value"]), (&json!(key), &json!(true), &json!(null)));
    assert_eq!(seen["is_absent"], false);
    let whole = world.get(&format!("/v1/cache/inspect?key={key}&with_value=true")).await.expect(200);
    assert_eq!(whole["value"]["total_tasks"], 0, "{whole}");
    let explained = world.get(&format!("/v1/cache/explain?key={key}")).await.expect(200);
    assert_eq!(explained["verdict"], "hit");

    let mut asked = 0;
    for body in [
        json!({ "key": key }),
        json!({ "space": "analytics" }),
        json!({ "tag": "t" }),
        json!({ "all": true }),
    ] {
        world.get(report).await.expect(200);
        // On a busy machine the store may take longer than the cache waits: then it is not confirmed, and asked for again.
        let until = tokio::time::Instant::now() + Duration::from_secs(20);
        loop {
            asked += 1;
            let changed = world.post("/v1/cache/invalidate", &body.to_string()).await.expect(200);
            assert_eq!(changed["action"], "invalidated", "{body}");
            if changed["is_confirmed"] == true {
                break;
            }
            assert!(tokio::time::Instant::now() < until, "never confirmed: {changed}");
        }
        let is_gone = world.get(&format!("/v1/cache/inspect?key={key}")).await.status == 404;
        assert_eq!(is_gone, body.get("tag").is_none(), "{body}");
    }
    let audits = world
        .store
        .audits()
        .audits_list(AuditFilter { rows_max: 1_000, ..Default::default() })
        .await
        .unwrap();
    assert_eq!(audits.iter().filter(|row| row.new.action == "cache.invalidate").count(), asked);
    for body in [
        "{}",
        r#"{"key":"recache:a:b","all":true}"#,
        r#"{"key":"other:a:b"}"#,
        r#"{"all":false}"#,
        r#"{"space":""}"#,
    ] {
        assert_eq!(world.post("/v1/cache/invalidate", body).await.code(422), "invalid", "{body}");
    }
    for query in
        ["", "?key=", "?key=other:a:b", "?key=recache", "?key=recache:a%20b:c", "?key=recache:a:b&x=1"]
    {
        assert_eq!(
            world.get(&format!("/v1/cache/inspect{query}")).await.code(400),
            "invalid_parameter",
            "{query}"
        );
    }
    world.end().await;
}

/// Nobody listens at the backend's address.
#[tokio::test(flavor = "multi_thread")]
async fn cache_that_is_away_fails_nobody() {
    let config = json!({ "enabled": true, "backend": "redis", "redis": { "url": "redis://127.0.0.1:1" } });
    let config: CacheConfig = serde_json::from_value(config).unwrap();
    let world = World::built(sqlite_database(), Settings::default(), Auth::default(), Some(config)).await;
    assert_eq!(world.get("/health/ready").await.status, 200);
    let health = world.get("/v1/cache/health").await.expect(200);
    assert_eq!(health["condition"], "degraded", "{health}");
    for path in
        ["/v1/cache", "/v1/cache/stats", "/v1/cache/explain?key=recache:a:b", "/v1/analytics/performance"]
    {
        world.get(path).await.expect(200);
    }
    assert_eq!(world.get("/v1/cache/inspect?key=recache:a:b").await.code(404), "not_found");
    let changed = world.post("/v1/cache/invalidate", r#"{"space":"analytics"}"#).await.expect(200);
    assert_eq!(changed["is_confirmed"], false, "{changed}");
    world.end().await;
}
