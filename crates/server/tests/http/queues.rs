use serde_json::{Value, json};

use crate::world::World;

async fn audits(world: &World) -> Vec<(String, String, String)> {
    let filter = recache_store::AuditFilter { rows_max: 50, ..Default::default() };
    let rows = world.store.audits().audits_list(filter).await.unwrap();
    rows.into_iter().rev().map(|row| (row.new.action, row.new.word.actor, row.new.word.reason)).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn queue_is_paused_drained_resumed_and_shown_with_an_audit() {
    for world in World::both().await {
        let empty = world.get("/v1/queues/mail").await.expect(200);
        assert_eq!((&empty["schema"], &empty["queue"]["queued"]), (&json!("recache.queue.v1"), &json!(0)));
        assert_eq!(
            world.post("/v1/queues/mail/pause", "{}").await.code(422),
            "invalid",
            "a reason is needed"
        );
        let both = r#"{"reason":"x","for_ms":1,"until":"2099-01-01T00:00:00Z"}"#;
        assert_eq!(world.post("/v1/queues/mail/pause", both).await.code(422), "invalid");
        let past = r#"{"reason":"x","until":"2001-01-01T00:00:00Z"}"#;
        assert_eq!(world.post("/v1/queues/mail/pause", past).await.code(422), "invalid");
        let body = r#"{"reason":"it moves","for_ms":7200000}"#;
        let paused = world.post_once("p1", "/v1/queues/mail/pause", body).await.expect(200);
        assert_eq!(
            (&paused["queue"]["pause"]["reason"], &paused["queue"]["pause"]["actor"], &paused["changed"]),
            (&json!("it moves"), &json!("anonymous"), &json!(true))
        );
        assert!(paused["queue"]["pause"]["until"].is_string(), "{paused}");
        world.post("/v1/jobs", r#"{"handler":"echo","queue":"mail"}"#).await.expect(201);
        let listed = world.get("/v1/queues").await.expect(200);
        assert_eq!(
            (&listed["queues"][0]["name"], &listed["queues"][0]["queued"]),
            (&json!("mail"), &json!(1))
        );
        let resumed = world.post("/v1/queues/mail/resume", "").await.expect(200);
        assert_eq!((&resumed["changed"], &resumed["queue"]["pause"]), (&json!(true), &Value::Null));
        assert_eq!(world.post("/v1/queues/mail/resume", "").await.expect(200)["changed"], false);
        let long = format!("/v1/queues/{}", "q".repeat(300));
        assert_eq!(world.get(&long).await.code(400), "invalid_parameter");
        let deeds: Vec<_> = audits(&world).await;
        let deeds: Vec<_> = deeds
            .iter()
            .map(|(action, actor, reason)| (action.as_str(), actor.as_str(), reason.as_str()))
            .collect();
        assert_eq!(
            deeds,
            [
                ("queues.pause", "anonymous", "x"),
                ("queues.pause", "anonymous", "it moves"),
                ("queues.resume", "anonymous", "resumed over HTTP"),
                ("queues.resume", "anonymous", "resumed over HTTP"),
            ]
        );
        world.end().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn drain_waits_until_nothing_runs_and_no_longer_than_it_is_told() {
    for world in World::both().await {
        let job = world.post("/v1/jobs", r#"{"handler":"nap","input":1500}"#).await.expect(201);
        let path = format!("/v1/jobs/{}", job["id"].as_str().unwrap());
        while world.get(&path).await.expect(200)["job"]["state"] != "running" {
            tokio::time::sleep(std::time::Duration::from_millis(20)).await;
        }
        let drain = "/v1/queues/default/drain";
        let json = ("content-type", "application/json");
        let hurried = world.send("POST", drain, &[json], r#"{"reason":"r"}"#).await.expect(200);
        assert_eq!(hurried["queue"]["running"], 1, "nobody asked to wait");
        let drained = world.send("POST", drain, &[json, ("prefer", "wait=20")], r#"{"reason":"r"}"#).await;
        let drained = drained.expect(200);
        assert_eq!(drained["queue"]["running"], 0);
        assert_eq!(drained["queue"]["pause"]["reason"], "r", "it stays paused");
        assert_eq!(world.get(&path).await.expect(200)["job"]["state"], "completed");
        world.end().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn limits_are_set_as_a_whole_listed_and_removed() {
    for world in World::both().await {
        let put = async |body: Value| {
            let headers = [("content-type", "application/json")];
            world.send("PUT", "/v1/limits", &headers, &body.to_string()).await
        };
        put(json!({ "scope": "queue", "name": "mail", "running_max": 5, "starts_max": 100, "period_ms": 60_000 }))
            .await
            .expect(200);
        put(json!({ "scope": "handler", "name": "send", "running_max": 2 })).await.expect(200);
        let set = put(json!({ "scope": "key", "namespace": "shop", "name": "k", "running_max": 3,
            "reason": "they asked" }));
        let limits = set.await.expect(200);
        let scopes: Vec<_> =
            limits["limits"].as_array().unwrap().iter().map(|limit| limit["scope"].clone()).collect();
        assert_eq!(scopes, ["queue", "handler", "key"]);
        assert_eq!(world.get("/v1/limits").await.expect(200), limits);
        assert_eq!(world.get("/v1/queues/mail").await.expect(200)["queue"]["starts_max"], 100);
        let off = put(json!({ "scope": "queue", "name": "mail", "off": true })).await.expect(200);
        assert_eq!(off["limits"].as_array().unwrap().len(), 2);
        for (body, pointer) in [
            (json!({ "scope": "queue", "name": "m" }), "/running_max"),
            (json!({ "scope": "queue", "name": "m", "starts_max": 1 }), "/period_ms"),
            (json!({ "scope": "queue", "name": "m", "period_ms": 1 }), "/starts_max"),
            (json!({ "scope": "queue", "name": "m", "off": true, "running_max": 1 }), "/off"),
            (json!({ "scope": "queue", "name": "m", "namespace": "x", "running_max": 1 }), "/namespace"),
            (json!({ "scope": "table", "name": "m", "running_max": 1 }), "/scope"),
            (json!({ "scope": "queue", "name": "m", "starts_max": 0, "period_ms": 1 }), "/starts_max"),
            (
                json!({ "scope": "queue", "name": "m", "starts_max": 1, "period_ms": 2_678_400_001_i64 }),
                "/period_ms",
            ),
        ] {
            let refused = put(body.clone()).await;
            assert_eq!(refused.code(422), "invalid", "{body}");
            assert_eq!(refused.json()["errors"][0]["pointer"], pointer, "{body}");
        }
        let filter = recache_store::AuditFilter { rows_max: 1, ..Default::default() };
        let row = world.store.audits().audits_list(filter).await.unwrap().remove(0);
        assert_eq!((row.new.action.as_str(), row.new.target.as_str()), ("queues.limit", "queue/mail"));
        assert!(row.new.before.unwrap().contains("\"starts_max\":100") && row.after.unwrap() == "null");
        world.end().await;
    }
}
