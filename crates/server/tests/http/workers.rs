//! The worker protocol, as a worker sees it.

use std::time::Duration;

use serde_json::{Value, json};
use tokio::time::Instant;

use crate::world::{Answer, World};

/// A worker that counts its claims.
struct Worker {
    path: String,
    secret: String,
    claims: u64,
}

impl Worker {
    async fn register(world: &World, more: Value) -> Self {
        let mut body = json!({ "name": "till", "handlers": [{ "name": "sum", "version": "1.0.0" }, { "name": "prices" }] });
        body.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        let session = world.post("/v1/workers", &body.to_string()).await.expect(201);
        let path = format!("/v1/workers/{}", session["session"].as_str().unwrap());
        Self { path, secret: session["secret"].as_str().unwrap().to_owned(), claims: 0 }
    }

    async fn send(&self, world: &World, method: &str, verb: &str, body: &Value) -> Answer {
        let headers = [("content-type", "application/json"), ("recache-session-secret", &*self.secret)];
        world.send(method, &format!("{}{verb}", self.path), &headers, &body.to_string()).await
    }

    async fn call(&self, world: &World, body: Value) -> Value {
        self.send(world, "POST", "/call", &body).await.expect(200)
    }

    async fn claim(&mut self, world: &World, held: &[&str]) -> Value {
        self.claims += 1;
        let claim = json!({ "max": 1, "number": self.claims });
        self.call(world, json!({ "held": held, "claim": claim, "wait_ms": 20_000 })).await
    }
}

fn token(answer: &Value) -> String {
    answer["jobs"][0]["token"].as_str().unwrap_or_else(|| panic!("no job: {answer}")).to_owned()
}

async fn submit(world: &World, input: &str) -> String {
    let body = format!(r#"{{"handler":"sum","input":{input}}}"#);
    world.post("/v1/jobs", &body).await.expect(201)["id"].as_str().unwrap().to_owned()
}

async fn job(world: &World, id: &str) -> Value {
    world.get(&format!("/v1/jobs/{id}")).await.expect(200)
}

#[tokio::test(flavor = "multi_thread")]
async fn job_is_claimed_reported_and_settled() {
    for world in World::both().await {
        let mut worker = Worker::register(&world, json!({ "lease_ms": 30_000 })).await;
        let id = submit(&world, r#"{"n":12345678901234567890.10}"#).await;
        let answer = worker.claim(&world, &[]).await;
        assert_eq!((&answer["alive"], &answer["jobs"][0]["id"]), (&json!(true), &json!(id)));
        let token = token(&answer);
        let report = json!({ "token": token, "progress": 0.5, "message": "half", "lines": ["one"], "first_line": 1,
            "checkpoint": { "page": 7 } });
        let answer = worker.call(&world, json!({ "held": [token], "reports": [report] })).await;
        assert_eq!(answer["reported"], json!([{ "token": token, "result": "accepted", "reason": null }]));
        let end = format!(
            r#"{{"settle":[{{"token":"{token}","outcome":"completed","output":{{"n":0.10000000000000000000001}}}}]}}"#
        );
        for _ in 0..2 {
            let headers = [("content-type", "application/json"), ("recache-session-secret", &*worker.secret)];
            let answer = world.send("POST", &format!("{}/call", worker.path), &headers, &end).await;
            assert_eq!(answer.expect(200)["settled"][0]["result"], "accepted", "also when repeated");
        }
        let answer = world.get(&format!("/v1/jobs/{id}")).await;
        assert!(answer.body.contains("12345678901234567890.10"), "input keeps its digits: {}", answer.body);
        assert!(answer.body.contains("0.10000000000000000000001"), "and output: {}", answer.body);
        let details = answer.json();
        assert_eq!(
            (&details["job"]["state"], &details["log"][0]["text"]),
            (&json!("completed"), &json!("one"))
        );
        let workers = world.get("/v1/workers").await.expect(200);
        assert_eq!(workers["workers"][0]["handlers"][0]["version"], "1.0.0");
        let id = submit(&world, "1").await;
        let end = json!({ "token": self::token(&worker.claim(&world, &[]).await), "outcome": "completed", "output": null });
        assert_eq!(worker.call(&world, json!({ "settle": [end] })).await["settled"][0]["result"], "accepted");
        assert_eq!(job(&world, &id).await["job"]["output"], Value::Null);
        assert_eq!(worker.send(&world, "DELETE", "", &json!({})).await.expect(200)["changed"], true);
        assert_eq!(worker.call(&world, json!({})).await["alive"], false);
        world.end().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_meant_is_refused_by_name() {
    let world = World::sqlite().await;
    let worker = Worker::register(&world, json!({ "lease_ms": 30_000 })).await;
    let bad = json!({
        "settle": [
            { "token": "x", "outcome": "released" },
            { "token": "0190a0a0-0000-7000-8000-000000000000-1-0190a0a0000070008000000000000000", "outcome": "completed", "after_ms": 3 },
            { "token": "0190a0a0-0000-7000-8000-000000000001-1-0190a0a0000070008000000000000000", "outcome": "failed" },
        ],
        "claim": { "max": 1 },
    });
    let problem = worker.send(&world, "POST", "/call", &bad).await.expect(422);
    let pointers: Vec<_> = problem["errors"]
        .as_array()
        .unwrap()
        .iter()
        .map(|error| error["pointer"].as_str().unwrap())
        .collect();
    assert_eq!(pointers, ["/settle/0/token", "/settle/1/after_ms", "/settle/2/error", "/held"]);
    let unknown = worker.send(&world, "POST", "/call", &json!({ "hold": [] })).await;
    assert_eq!(unknown.code(422), "invalid");
    let stranger = Worker { path: worker.path.clone(), secret: "x".to_owned(), claims: 0 };
    assert_eq!(stranger.send(&world, "POST", "/call", &json!({})).await.code(404), "not_found");
    let none = world.post(&format!("{}/call", worker.path), "{}").await;
    assert_eq!(none.code(400), "invalid_parameter", "without its secret");
    let flow = json!({ "name": "w", "handlers": [{ "name": "recache.flow" }] });
    assert_eq!(world.post("/v1/workers", &flow.to_string()).await.code(422), "invalid");
    world.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn view_is_built_over_http_and_a_late_item_is_refused() {
    for world in World::both().await {
        let mut worker = Worker::register(&world, json!({ "lease_ms": 30_000 })).await;
        let view = recache_store::NewView {
            namespace: "shop".to_owned(),
            key: "tea".to_owned(),
            handler: "prices".to_owned(),
            queue: "default".to_owned(),
            policy: recache_model::view::ViewPolicy {
                debounce_quiet_ms: 0,
                debounce_max_ms: 0,
                ..Default::default()
            },
            retry: recache_model::retry::RetryPolicy::once(),
            timeout: None,
            rules: recache_model::item_rules::ItemRules::default(),
            options: recache_model::view_options::ViewOptions::default(),
        };
        world.engine.define_view(view).await.unwrap();
        let touch = || recache_store::Touch {
            namespace: "shop".to_owned(),
            key: "tea".to_owned(),
            at_once: true,
            ..recache_store::Touch::default()
        };
        world.engine.touch(touch()).await.unwrap();
        let first = token(&worker.claim(&world, &[]).await);
        let begun = worker.send(&world, "POST", "/build", &json!({ "token": first })).await.expect(200);
        assert_eq!((&begun["version"], &begun["live"]), (&json!(1), &json!([])));
        let items = json!({ "token": first, "items": [{ "item": "a", "fingerprint": "f", "value": null }] });
        worker.send(&world, "POST", "/items", &items).await.expect(200);
        world.engine.touch(touch()).await.unwrap();
        let late = worker.send(&world, "POST", "/items", &items).await;
        assert_eq!(late.code(409), "lease_lost");
        assert!(late.body.contains("superseded"), "{}", late.body);
        // It hears first that the first build was superseded, if nobody told it yet.
        let mut answer = worker.claim(&world, &[]).await;
        while answer["jobs"] == json!([]) {
            answer = worker.claim(&world, &[]).await;
        }
        let second = token(&answer);
        let begun = worker.send(&world, "POST", "/build", &json!({ "token": second })).await.expect(200);
        assert_eq!(begun["staged"], json!([{ "item": "a", "fingerprint": "f" }]));
        let items = json!({ "token": second, "items": [{ "item": "a" }, { "item": "b", "value": 2 }] });
        worker.send(&world, "POST", "/items", &items).await.expect(200);
        let end =
            json!({ "token": second, "outcome": "built", "version": begun["version"], "taken_over": 1 });
        let answer = worker.call(&world, json!({ "settle": [end] })).await;
        assert_eq!(answer["settled"][0]["result"], "accepted");
        let read = world.store.view_read("shop", "tea", None).await.unwrap();
        assert_eq!(read.items, [("a".to_owned(), "null".to_owned()), ("b".to_owned(), "2".to_owned())]);
        world.end().await;
    }
}

/// What is measured is printed; a busy machine must not fail the case.
#[tokio::test(flavor = "multi_thread")]
async fn cancel_is_pushed_to_a_waiting_worker() {
    for world in World::both().await {
        let mut worker = Worker::register(&world, json!({ "lease_ms": 60_000 })).await;
        let mut waits = Vec::new();
        for _ in 0..50 {
            let id = submit(&world, "1").await;
            let token = token(&worker.claim(&world, &[]).await);
            let waiting = worker.call(&world, json!({ "held": [token], "wait_ms": 20_000 }));
            let cancelling = async {
                tokio::time::sleep(Duration::from_millis(10)).await;
                let began = Instant::now();
                world.post(&format!("/v1/jobs/{id}/cancel"), "{}").await.expect(200);
                began
            };
            let told = async { (waiting.await, Instant::now()) };
            let ((answer, at), began) = tokio::join!(told, cancelling);
            assert_eq!(answer["stop"], json!([{ "token": token, "reason": "cancelled" }]));
            waits.push(at.saturating_duration_since(began));
            assert_eq!(job(&world, &id).await["job"]["state"], "cancelled");
        }
        waits.sort_unstable();
        let kind = world.store.kind();
        println!(
            "cancel asked for over HTTP to its worker, {kind}: p50 {:?}, p98 {:?}",
            waits[25], waits[48]
        );
        world.end().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn server_that_stops_answers_who_waits_and_takes_what_ended() {
    let world = World::sqlite().await;
    let mut worker = Worker::register(&world, json!({ "lease_ms": 60_000 })).await;
    let id = submit(&world, "1").await;
    let token = token(&worker.claim(&world, &[]).await);
    let end = json!({ "token": token, "outcome": "completed", "output": 1 });
    let waiting = worker.call(
        &world,
        json!({ "held": [], "settle": [end], "claim": { "max": 1, "number": 2 }, "wait_ms": 20_000 }),
    );
    let stopping = async {
        tokio::time::sleep(Duration::from_millis(100)).await;
        world.app.stop().cancel();
    };
    let began = Instant::now();
    let (answer, ()) = tokio::join!(waiting, stopping);
    assert_eq!((&answer["draining"], &answer["settled"][0]["result"]), (&json!(true), &json!("accepted")));
    assert!(began.elapsed() < Duration::from_secs(10), "{:?}", began.elapsed());
    let id = id.parse().unwrap();
    assert_eq!(world.store.job_get(id).await.unwrap().state, recache_model::job::JobState::Completed);
    world.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn list_names_processes_at_the_database_and_remote_workers_and_each_by_its_session() {
    for world in World::both().await {
        let worker = r#"{"name":"far","handlers":[{"name":"none"}],"lease_ms":60000}"#;
        let remote = world.post("/v1/workers", worker).await.expect(201)["session"].clone();
        // A process says what it can do after its session is opened.
        let deadline = Instant::now() + Duration::from_secs(20);
        let list = loop {
            let list = world.get("/v1/workers").await.expect(200);
            if list["workers"].as_array().unwrap().len() == 2 {
                break list;
            }
            assert!(Instant::now() < deadline, "{list}");
        };
        let find = |is_remote: bool| {
            let all = list["workers"].as_array().unwrap();
            all.iter().find(|one| one["is_remote"] == is_remote).unwrap().clone()
        };
        let (far, node) = (find(true), find(false));
        assert_eq!(
            (&far["session"], &far["name"], &far["lease_ms"]),
            (&remote, &json!("far"), &json!(60_000))
        );
        let handlers = node["handlers"].as_array().unwrap();
        assert!(handlers.iter().any(|one| one["name"] == "echo"), "{node}");
        assert_eq!(node["queues"], json!(["default", "mail"]));
        for one in [far, node] {
            let path = format!("/v1/workers/{}", one["session"].as_str().unwrap());
            assert_eq!(world.get(&path).await.expect(200)["worker"]["name"], one["name"]);
        }
        let unknown = world.get("/v1/workers/ses_01890000-0000-7000-8000-000000000000").await;
        assert_eq!(unknown.code(404), "not_found");
        world.end().await;
    }
}
