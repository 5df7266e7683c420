//! The registry of handlers, and what is cached of graphs and of health.

use std::time::Duration;

use recache_server::{Auth, Grant, Grants, Settings, make_key};
use recache_store::conformance::sqlite_database;
use serde_json::{Value, json};
use tokio::time::Instant;

use crate::world::World;

const ORDER: &str = "namespace: shop\nname: order\nversion: VERSION\nsteps:\n  - name: check\n    handler: {callable: none}\n  \
                     - name: say\n    dependencies: [check]\n    handler: {callable: echo}\n";

async fn put_order(world: &World, version: &str) {
    let yaml = [("content-type", "application/yaml")];
    world.send("PUT", "/v1/templates", &yaml, &ORDER.replace("VERSION", version)).await.expect(201);
}

/// Asks until the answer is as wanted: workers are in the registry with their first beat.
async fn until(world: &World, path: &str, wanted: impl Fn(&Value) -> bool) -> Value {
    let deadline = Instant::now() + Duration::from_secs(20);
    loop {
        let answer = world.get(path).await.expect(200);
        if wanted(&answer) {
            return answer;
        }
        assert!(Instant::now() < deadline, "in vain: {answer}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

fn find<'a>(list: &'a Value, namespace: &str, name: &str) -> &'a Value {
    let handlers = list["handlers"].as_array().unwrap();
    handlers
        .iter()
        .find(|one| one["namespace"] == namespace && one["name"] == name)
        .unwrap_or_else(|| panic!("{namespace}/{name} is not in {list}"))
}

#[tokio::test(flavor = "multi_thread")]
async fn handlers_are_told_with_their_workers_steps_and_figures() {
    for world in World::both().await {
        put_order(&world, "0.9.0").await;
        put_order(&world, "0.10.0").await;
        let job = r#"{"handler":"fail","namespace":"shop"}"#;
        let job = world.post("/v1/jobs", job).await.expect(201)["id"].as_str().unwrap().to_owned();
        world.send("GET", &format!("/v1/jobs/{job}"), &[("prefer", "wait=20")], "").await.expect(200);
        let remote = r#"{"name":"till","handlers":[{"name":"echo","version":"2.0.0","input_schema":{"type":"object"}}],
            "namespaces":["shop"]}"#;
        world.post("/v1/workers", remote).await.expect(201);
        let list = until(&world, "/v1/handlers", |list| {
            let handlers = list["handlers"].as_array().unwrap();
            handlers.iter().any(|one| one["name"] == "echo" && one["workers"] == 2)
        })
        .await;
        assert_eq!(list["schema"], "recache.handlers.v1");
        assert_eq!(list["namespaces"], json!(["*", "shop"]));
        let echo = find(&list, "shop", "echo");
        assert_eq!((&echo["newest_version"], &echo["steps"]), (&json!("2.0.0"), &json!(1)));
        assert_eq!(echo["versions"][0]["input_schema"], json!({ "type": "object" }));
        assert_eq!(find(&list, "shop", "none")["workers"], 0, "wanted, and offered by nobody");
        assert_eq!(find(&list, "*", "counting")["workers"], 1, "offered to all, and used by none");
        let of_shop = world.get("/v1/handlers?namespace=shop").await.expect(200);
        assert_eq!(of_shop["namespaces"], json!(["shop"]));

        let details = world.get("/v1/handlers/shop/echo").await.expect(200);
        assert_eq!(details["schema"], "recache.handler.v1");
        assert_eq!(
            details["steps"],
            json!([{ "template": "order", "version": "0.10.0", "step": "say", "follows": ["none"] }])
        );
        assert_eq!((&details["follows"], &details["precedes"]), (&json!(["none"]), &json!([])));
        let workers = details["workers"].as_array().unwrap();
        assert_eq!(workers.iter().filter(|one| one["is_remote"] == true).count(), 1, "{details}");
        let failing = world.get("/v1/handlers/shop/fail").await.expect(200);
        assert_eq!(
            (&failing["handler"]["executions"], &failing["handler"]["error_rate"]),
            (&json!(1), &json!(1.0))
        );
        assert_eq!(failing["failures"], json!([{ "code": "broken", "failures": 1 }]));

        let graph = world.get("/v1/handlers/graph?namespace=shop").await.expect(200);
        let edges =
            json!([{ "namespace": "shop", "before": "none", "after": "echo", "templates": ["order"] }]);
        assert_eq!((&graph["schema"], &graph["edges"]), (&json!("recache.handler-graph.v1"), &edges));
        assert_eq!(world.get("/v1/handlers/shop/nobody").await.code(404), "not_found");
        assert_eq!(world.get("/v1/handlers?hours=1").await.code(400), "invalid_parameter");
        world.end().await;
    }
}

/// What a caller of one namespace sees is of that namespace; what is no worker's schema is refused by name.
#[tokio::test(flavor = "multi_thread")]
async fn foreign_handlers_are_not_there_and_wrong_schemas_are_refused() {
    let auth = Auth { api_keys: true, jwt: None };
    let world = World::guarded(sqlite_database(), Settings::default(), auth).await;
    let mut bearers = Vec::new();
    for (name, scopes) in [("a", &["*:*@a"][..]), ("b", &["*:*@b"])] {
        let grants = Grants::new(scopes.iter().map(|scope| scope.parse::<Grant>().unwrap()).collect());
        let random = |bytes: &mut [u8]| bytes.fill(u8::try_from(name.len()).unwrap() + name.as_bytes()[0]);
        let (token, key) = make_key(name, &grants, None, "test", random);
        world.store.api_keys().api_key_put(key).await.unwrap();
        bearers.push(format!("Bearer {token}"));
    }
    let ask = async |who: usize, method: &str, path: &str, body: &str| {
        let headers = [("content-type", "application/json"), ("authorization", bearers[who].as_str())];
        world.send(method, path, &headers, body).await
    };
    let worker = r#"{"name":"w","handlers":[{"name":"charge"}],"namespaces":["a"]}"#;
    ask(0, "POST", "/v1/workers", worker).await.expect(201);
    let mine = ask(0, "GET", "/v1/handlers/a/charge", "").await.expect(200);
    assert_eq!(mine["workers"].as_array().unwrap().len(), 1);
    assert_eq!(ask(1, "GET", "/v1/handlers/a/charge", "").await.code(404), "not_found");
    assert_eq!(ask(1, "GET", "/v1/handlers", "").await.expect(200)["handlers"], json!([]));
    assert_eq!(ask(1, "GET", "/v1/handlers/graph", "").await.expect(200)["nodes"], json!([]));
    let bad = r#"{"name":"w","handlers":[{"name":"charge","input_schema":7}],"namespaces":["a"]}"#;
    let refused = ask(0, "POST", "/v1/workers", bad).await;
    assert_eq!(refused.code(422), "invalid");
    assert!(refused.body.contains("input schema of `charge`"), "{}", refused.body);
    world.end().await;
}

/// A graph is analysed once for as long as no step changes, and anew as soon as one has.
#[tokio::test(flavor = "multi_thread")]
async fn analysis_is_cached_until_a_step_changes() {
    for world in World::both().await {
        let template = ORDER.replace("VERSION", "1.0.0").replace("none", "echo");
        let template = template.replace("callable: echo}\n  - name: say", "callable: nobody}\n  - name: say");
        let yaml = [("content-type", "application/yaml")];
        world.send("PUT", "/v1/templates", &yaml, &template).await.expect(201);
        let workflow = r#"{"template":"order","namespace":"shop"}"#;
        let id = world.post("/v1/workflows", workflow).await.expect(201)["id"].as_str().unwrap().to_owned();
        for path in [format!("/v1/workflows/{id}/graph"), "/v1/templates/shop/order/analysis".to_owned()] {
            // Before the epochs of the store were heard nothing is served from the cache.
            let deadline = Instant::now() + Duration::from_secs(20);
            loop {
                let (one, other) = (world.get(&path).await.expect(200), world.get(&path).await.expect(200));
                if one["calculated_at"] == other["calculated_at"] {
                    break;
                }
                assert!(Instant::now() < deadline, "it is never cached: {path}");
            }
        }
        let before = world.get(&format!("/v1/workflows/{id}/graph")).await.expect(200);
        let complete = format!("/v1/workflows/{id}/steps/check/complete");
        world.post(&complete, r#"{"reason":"by hand"}"#).await.expect(200);
        let after = world.get(&format!("/v1/workflows/{id}/graph")).await.expect(200);
        assert_ne!(before["calculated_at"], after["calculated_at"], "a step has changed");
        assert_eq!(before["blocked"]["waiting"], 1, "{before}");
        assert_eq!(after["blocked"]["waiting"], 0, "{after}");
        // When the workflow has ended, it tells how long steps run.
        world.send("GET", &format!("/v1/workflows/{id}"), &[("prefer", "wait=20")], "").await.expect(200);
        let template = world.get("/v1/templates/shop/order/analysis").await.expect(200);
        assert_eq!(template["history_workflows"], 1, "{template}");
        world.end().await;
    }
}

/// What is kept of a look at the store ends when a queue is paused or resumed.
#[tokio::test(flavor = "multi_thread")]
async fn detail_of_health_is_kept_for_seconds_and_follows_a_pause_at_once() {
    let world = World::sqlite().await;
    world.post("/v1/jobs", r#"{"handler":"nobody","queue":"q"}"#).await.expect(201);
    let due = async || world.get("/health/detailed").await.expect(200)["work"]["oldest_due_ms"].clone();
    until(&world, "/health/detailed", |details| details["work"]["oldest_due_ms"].is_u64()).await;
    world.post("/v1/queues/q/pause", r#"{"reason":"x"}"#).await.expect(200);
    assert_eq!(due().await, Value::Null, "what waits in a paused queue is not late");
    world.post("/v1/queues/q/resume", "{}").await.expect(200);
    assert!(due().await.is_u64(), "at once");
    world.end().await;
}
