use std::time::Duration;

use recache_model::webhook::{Secret, signatures};
use recache_store::AuditFilter;
use serde_json::{Value, json};

use crate::world::World;

fn hook(name: &str, url: &str) -> String {
    json!({ "name": name, "url": url, "types": ["job.completed"], "attempts_max": 2 }).to_string()
}

async fn until<T>(what: &str, mut look: impl AsyncFnMut() -> Option<T>) -> T {
    let found = tokio::time::timeout(Duration::from_secs(20), async {
        loop {
            if let Some(found) = look().await {
                return found;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    });
    found.await.unwrap_or_else(|_| panic!("{what}"))
}

#[tokio::test(flavor = "multi_thread")]
async fn webhook_is_made_told_and_its_secret_shown_once() {
    for world in World::both().await {
        let made =
            world.post_once("k", "/v1/webhooks", &hook("shop a", "https://example.com/ok?token=t0ken")).await;
        let made_document = made.expect(201);
        let secret = made_document["secret"].as_str().unwrap().to_owned();
        assert_eq!(made.header("location"), Some("/v1/webhooks/shop%20a"));
        let place = "/v1/webhooks/shop%20a";
        let shown = world.get(place).await.expect(200);
        assert_eq!(
            (&shown["url"], &shown["state"]),
            (&json!("https://example.com/ok?***"), &json!("active"))
        );

        let job = world.post("/v1/jobs", r#"{"handler":"echo"}"#).await.expect(201)["id"].clone();
        let posting = until("it is sent", async || world.courier.sent().first().cloned()).await;
        let body: Value = serde_json::from_str(&posting.body).unwrap();
        assert_eq!((&body["type"], &body["job_id"]), (&json!("job.completed"), &job));
        let key: Secret = secret.parse().unwrap();
        let signed = signatures([&key], &posting.id, posting.timestamp_seconds, posting.body.as_bytes());
        assert_eq!(posting.signature, signed);
        let path = format!("{place}/deliveries?state=delivered&event={}", posting.id);
        let delivered = until("it is noted", async || {
            let deliveries = world.get(&path).await.expect(200)["deliveries"].clone();
            deliveries.get(0).cloned()
        })
        .await;
        assert_eq!((&delivered["status"], &delivered["attempts"][0]["status"]), (&json!(204), &json!(204)));
        let all = world.get(&format!("/v1/deliveries?event={}", posting.id)).await.expect(200);
        assert_eq!(all["deliveries"], json!([delivered]));
        let first = world.get("/v1/deliveries?limit=1").await.expect(200);
        if let Some(next) = first["next"].as_str() {
            let second = world.get(&format!("/v1/deliveries?limit=1&cursor={next}")).await.expect(200);
            assert_ne!(second["deliveries"], first["deliveries"]);
            assert_eq!(
                world.get(&format!("{place}/deliveries?cursor={next}")).await.code(400),
                "invalid_parameter"
            );
        }
        assert_eq!(world.get("/v1/deliveries?namespace=a").await.expect(200)["deliveries"], json!([]));
        assert_eq!(world.get("/v1/deliveries?event=x").await.code(400), "invalid_parameter");
        let again =
            world.post(&format!("{place}/redeliver"), &json!({ "event": posting.id }).to_string()).await;
        assert_eq!(again.expect(200)["count"], 1);
        let second = until("it is sent again", async || world.courier.sent().get(1).cloned()).await;
        assert_eq!(second.id, posting.id);

        // The repetition of a creation is carried out again: it finds the webhook, and shows no secret.
        let repeated =
            world.post_once("k", "/v1/webhooks", &hook("shop a", "https://example.com/ok?token=t0ken")).await;
        assert_eq!(repeated.code(409), "conflict");
        let audits =
            world.store.audits().audits_list(AuditFilter { rows_max: 100, ..Default::default() }).await;
        let audits = format!("{:?}", audits.unwrap());
        let list = world.get("/v1/webhooks").await.body;
        let audit = world.get("/v1/audit").await.body;
        assert!(audits.contains("webhooks.create") && list.contains("shop a"));
        let plain = secret.strip_prefix("whsec_").unwrap();
        for text in [&audits, &list, &audit, &repeated.body, &world.get(place).await.body] {
            assert!(!text.contains(plain) && !text.contains("t0ken"), "{text}");
        }
        world.end().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn webhook_is_paused_resumed_rotated_and_removed() {
    for world in World::both().await {
        let secret =
            world.post("/v1/webhooks", &hook("s", "https://example.com/ok")).await.expect(201)["secret"]
                .clone();
        let call = async |verb: &str, body: &str| world.post(&format!("/v1/webhooks/s/{verb}"), body).await;
        let paused = call("pause", r#"{"reason":"their server moves"}"#).await.expect(200);
        assert_eq!((&paused["state"], &paused["changed"]), (&json!("paused"), &json!(true)));
        assert_eq!(call("pause", "").await.expect(200)["changed"], false);
        world.post("/v1/jobs", r#"{"handler":"echo"}"#).await.expect(201);
        until("it waits", async || {
            (world.get("/v1/webhooks/s").await.expect(200)["waiting"] == json!(1)).then_some(())
        })
        .await;
        assert!(world.courier.sent().is_empty());
        let rotated = call("rotate", r#"{"overlap_seconds":3600}"#).await.expect(200);
        assert_ne!(rotated["secret"], secret);
        assert!(rotated["old_secret_until"].is_string());
        assert_eq!(call("rotate", "{}").await.code(409), "conflict");
        assert_eq!(call("resume", "").await.expect(200)["changed"], true);
        let posting = until("it is sent", async || world.courier.sent().first().cloned()).await;
        let keys: Vec<Secret> =
            [&rotated["secret"], &secret].map(|text| text.as_str().unwrap().parse().unwrap()).into();
        let signed = signatures(&keys, &posting.id, posting.timestamp_seconds, posting.body.as_bytes());
        assert_eq!(posting.signature, signed);
        assert!(
            call("rotate", r#"{"again":true,"overlap_seconds":0}"#).await.expect(200)["old_secret_until"]
                .is_null()
        );
        let gone = world.send("DELETE", "/v1/webhooks/s?reason=done", &[], "").await.expect(200);
        assert_eq!(gone["state"], "gone");
        assert_eq!(world.get("/v1/webhooks/s").await.code(404), "not_found");
        assert_eq!(call("pause", "").await.code(404), "not_found");
        world.end().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_told_is_refused_with_every_reason() {
    let world = World::sqlite().await;
    let body = json!({ "name": "x", "url": "https://10.0.0.1/no", "types": ["job.nothing"] });
    let refused = world.post("/v1/webhooks", &body.to_string()).await.expect(422);
    let pointers: Vec<_> =
        refused["errors"].as_array().unwrap().iter().map(|error| error["pointer"].clone()).collect();
    assert_eq!(pointers, [json!("/types"), json!("/url")]);
    for body in [
        "{}",
        r#"{"name":"","url":"u","types":["*"]}"#,
        r#"{"name":"x","url":"u","types":[]}"#,
        r#"{"name":"x","url":"u","types":["*"],"timeout_ms":0}"#,
        r#"{"name":"x","url":"u","types":["*"],"attempts_max":1000000000000000000}"#,
        r#"{"name":"x","url":"u","types":["*"],"secret":"mine"}"#,
    ] {
        assert_eq!(world.post("/v1/webhooks", body).await.code(422), "invalid", "{body}");
    }
    world.post("/v1/webhooks", &hook("x", "https://example.com/down")).await.expect(201);
    for body in ["{}", r#"{"dead":true,"event":"evt_x"}"#, r#"{"event":"evt_x"}"#] {
        assert_eq!(world.post("/v1/webhooks/x/redeliver", body).await.code(422), "invalid", "{body}");
    }
    let unknown = r#"{"event":"evt_01890000-0000-7000-8000-000000000000"}"#;
    assert_eq!(world.post("/v1/webhooks/x/redeliver", unknown).await.code(404), "not_found");
    assert_eq!(
        world.post("/v1/webhooks/x/rotate", r#"{"overlap_seconds":604801}"#).await.code(422),
        "invalid"
    );
    assert_eq!(world.get("/v1/webhooks/x/deliveries?state=lost").await.code(400), "invalid_parameter");
    assert_eq!(world.get("/v1/webhooks/none/deliveries").await.code(404), "not_found");
    world.end().await;
}
