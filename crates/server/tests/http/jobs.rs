use serde_json::{Value, json};

use crate::world::World;

async fn submit(world: &World, body: &Value) -> String {
    let answer = world.post("/v1/jobs", &body.to_string()).await;
    let id = answer.expect(201)["id"].as_str().unwrap().to_owned();
    assert_eq!(answer.header("location"), Some(format!("/v1/jobs/{id}").as_str()));
    id
}

async fn ended(world: &World, id: &str) -> Value {
    let answer = world.send("GET", &format!("/v1/jobs/{id}"), &[("prefer", "wait=20")], "").await;
    let details = answer.expect(200);
    assert!(!details["job"]["finished_at"].is_null(), "{details}");
    details
}

#[tokio::test(flavor = "multi_thread")]
async fn job_is_submitted_waited_for_and_read() {
    for world in World::both().await {
        let id =
            submit(&world, &json!({ "handler": "echo", "input": { "n": 1 }, "namespace": "shop" })).await;
        let details = ended(&world, &id).await;
        assert_eq!(details["job"]["state"], "completed");
        assert_eq!(details["job"]["output"], json!({ "n": 1 }));
        assert_eq!(details["job"]["namespace"], "shop");
        assert_eq!(details["attempts"].as_array().unwrap().len(), 1);
        assert_eq!(details["history"][0]["from"], "queued");
        world.end().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn failed_job_is_retried_and_its_audit_says_by_whom() {
    for world in World::both().await {
        let id = submit(&world, &json!({ "handler": "fail" })).await;
        assert_eq!(ended(&world, &id).await["job"]["error"]["code"], "broken");
        let path = format!("/v1/jobs/{id}/retry");
        assert_eq!(world.post(&path, r#"{"reason":"mended"}"#).await.expect(200)["state"], "queued");
        let again = ended(&world, &id).await;
        assert_eq!(again["attempts"].as_array().unwrap().len(), 2);
        let filter = recache_store::AuditFilter { rows_max: 10, ..Default::default() };
        let rows = world.store.audits().audits_list(filter).await.unwrap();
        assert_eq!((rows[0].new.action.as_str(), rows[0].new.target.as_str()), ("jobs.retry", id.as_str()));
        assert_eq!(
            (rows[0].new.word.actor.as_str(), rows[0].new.word.reason.as_str()),
            ("anonymous", "mended")
        );
        assert_eq!(rows[0].outcome, recache_store::AuditOutcome::Done);
        assert!(rows[0].new.before.as_deref().unwrap().contains("failed"));
        world.end().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn waiting_job_is_moved_in_time_and_order_and_cancelled() {
    for world in World::both().await {
        let id = submit(&world, &json!({ "handler": "echo", "delay_ms": 3_600_000, "priority": 1 })).await;
        let path = |verb: &str| format!("/v1/jobs/{id}/{verb}");
        let moved = world.post(&path("priority"), r#"{"priority":9}"#).await.expect(200);
        assert_eq!(moved["job"]["priority"], 9);
        let due = r#"{"due_at":"2099-01-01T00:00:00Z"}"#;
        let moved = world.post(&path("reschedule"), due).await.expect(200);
        assert_eq!(moved["job"]["due_at"], "2099-01-01T00:00:00.000000Z");
        assert_eq!(world.post(&path("reschedule"), "{}").await.code(422), "invalid");
        let both = r#"{"due_at":"2099-01-01T00:00:00Z","delay_ms":1}"#;
        assert_eq!(world.post(&path("reschedule"), both).await.code(422), "invalid");
        let cancelled = world.post(&path("cancel"), "").await.expect(200);
        assert_eq!((&cancelled["state"], &cancelled["changed"]), (&json!("cancelled"), &json!(true)));
        assert_eq!(world.post(&path("cancel"), "").await.expect(200)["changed"], false);
        for verb in ["retry", "priority", "reschedule"] {
            let answer = world.post(&path(verb), r#"{"priority":1,"delay_ms":1}"#).await;
            assert!(matches!(answer.status, 409 | 422), "{verb}: {answer:?}");
        }
        assert_eq!(world.post(&path("priority"), r#"{"priority":1}"#).await.code(409), "conflict");
        assert_eq!(world.post(&path("reschedule"), r#"{"delay_ms":1}"#).await.code(409), "conflict");
        world.end().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn rescheduled_job_runs_when_it_is_due() {
    for world in World::both().await {
        let id = submit(&world, &json!({ "handler": "echo", "delay_ms": 3_600_000 })).await;
        world.post(&format!("/v1/jobs/{id}/reschedule"), r#"{"delay_ms":0}"#).await.expect(200);
        assert_eq!(ended(&world, &id).await["job"]["state"], "completed");
        world.end().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn pages_of_a_list_follow_each_other_without_a_gap() {
    for world in World::both().await {
        let jobs: Vec<_> = (0..7).map(|n| json!({ "handler": "none", "input": n, "queue": "q" })).collect();
        let bulk = world.post("/v1/jobs/bulk", &json!({ "jobs": jobs }).to_string()).await.expect(200);
        let mut expected: Vec<_> = bulk["jobs"]
            .as_array()
            .unwrap()
            .iter()
            .map(|job| job["id"].as_str().unwrap().to_owned())
            .collect();
        expected.sort();
        expected.reverse();
        let mut seen = Vec::new();
        let mut path = "/v1/jobs?queue=q&limit=3".to_owned();
        loop {
            let page = world.get(&path).await.expect(200);
            assert_eq!(page["schema"], "recache.jobs.v1");
            seen.extend(
                page["jobs"].as_array().unwrap().iter().map(|job| job["id"].as_str().unwrap().to_owned()),
            );
            let Some(next) = page["next"].as_str() else { break };
            path = format!("/v1/jobs?queue=q&limit=3&cursor={next}");
        }
        assert_eq!(seen, expected);
        let cursor = path.split_once("cursor=").unwrap().1;
        let other = world.get(&format!("/v1/jobs?queue=other&cursor={cursor}")).await;
        assert_eq!(other.code(400), "invalid_parameter");
        assert_eq!(world.get("/v1/jobs?state=completed").await.expect(200)["jobs"], json!([]));
        world.end().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn list_is_chosen_by_batch_correlation_and_time() {
    for world in World::both().await {
        let batch = world.post("/v1/batches", r#"{"action":"import"}"#).await.expect(201);
        let batch = batch["batch"]["id"].as_str().unwrap_or_else(|| panic!("{batch}")).to_owned();
        let member = submit(&world, &json!({ "handler": "none", "batch_id": batch })).await;
        let correlated = submit(&world, &json!({ "handler": "none", "correlation_id": "order-7" })).await;
        let plain = submit(&world, &json!({ "handler": "none" })).await;
        let made_at = |job: &str| {
            let hex: String = job.trim_start_matches("job_").chars().filter(|c| *c != '-').take(12).collect();
            let ms = i64::from_str_radix(&hex, 16).unwrap();
            recache_api::Instant::from_micros(ms * 1_000).unwrap().to_string()
        };
        let after = format!("created_from={}", made_at(&plain));
        let before = format!("created_before={}", made_at(&member));
        for (query, expected) in [
            (format!("batch={batch}"), vec![&member]),
            (format!("batch={batch}&state=completed"), vec![]),
            ("correlation_id=order-7".to_owned(), vec![&correlated]),
            (format!("correlation_id=order-7&batch={batch}"), vec![]),
            (before, vec![]),
            (format!("created_from={}&handler=none", made_at(&member)), vec![&plain, &correlated, &member]),
        ] {
            let list = world.get(&format!("/v1/jobs?{query}")).await.expect(200);
            let found: Vec<_> =
                list["jobs"].as_array().unwrap().iter().map(|job| job["id"].clone()).collect();
            assert_eq!(json!(found), json!(expected), "{query}");
            assert_eq!(list["next"], json!(null), "{query}");
        }
        // Submits of one millisecond may share it.
        let list = world.get(&format!("/v1/jobs?{after}")).await.expect(200);
        assert_eq!(list["jobs"][0]["id"], json!(plain));
        for wrong in ["batch=seven", "created_from=yesterday", "created_before=", "correlation_id="] {
            assert_eq!(
                world.get(&format!("/v1/jobs?{wrong}")).await.code(400),
                "invalid_parameter",
                "{wrong}"
            );
        }
        world.end().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn bulk_is_all_or_none_and_names_every_wrong_job() {
    let world = World::sqlite().await;
    let body = json!({ "jobs": [
        { "handler": "a" },
        { "handler": "b", "delay_ms": 1, "due_at": "2099-01-01T00:00:00Z" },
        { "handler": "c", "batch_id": "batch_x" },
    ] });
    let answer = world.post("/v1/jobs/bulk", &body.to_string()).await;
    let pointers: Vec<_> =
        answer.expect(422)["errors"].as_array().unwrap().iter().map(|one| one["pointer"].clone()).collect();
    assert_eq!(pointers, [json!("/jobs/1/due_at"), json!("/jobs/2/batch_id")]);
    assert_eq!(world.get("/v1/jobs").await.expect(200)["jobs"], json!([]));
    world.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn unknown_jobs_and_wrong_ids_are_not_found() {
    let world = World::sqlite().await;
    let unknown = "job_01890000-0000-7000-8000-000000000000";
    for id in [unknown, "job_x", "%00", "wf_01890000-0000-7000-8000-000000000000"] {
        let answer = world.get(&format!("/v1/jobs/{id}")).await;
        assert!(matches!(answer.status, 404 | 400), "{answer:?}");
    }
    assert_eq!(world.get(&format!("/v1/jobs/{unknown}")).await.code(404), "not_found");
    world.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn submit_waits_for_the_end_if_it_is_asked_to_and_no_longer_than_that() {
    for world in World::both().await {
        let submit = async |prefer: &str, body: &str| {
            world
                .send("POST", "/v1/jobs", &[("content-type", "application/json"), ("prefer", prefer)], body)
                .await
        };
        let ended = submit("wait=20", r#"{"handler":"echo","input":7}"#).await.expect(201);
        assert_eq!((&ended["job"]["state"], &ended["job"]["output"]), (&json!("completed"), &json!(7)));
        assert_eq!(ended["job"]["id"], ended["id"]);
        let began = tokio::time::Instant::now();
        let standing = submit("wait=1", r#"{"handler":"none"}"#).await.expect(201);
        assert_eq!(standing["job"]["state"], "queued");
        assert!(began.elapsed() >= std::time::Duration::from_secs(1), "it was not waited for");
        assert_eq!(submit("respond-async", r#"{"handler":"echo"}"#).await.expect(201)["job"], Value::Null);
        world.end().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn wait_is_bounded_by_the_server_s_limit() {
    let settings = recache_server::Settings {
        wait_max: std::time::Duration::from_millis(300),
        ..recache_server::Settings::default()
    };
    let world = World::over(recache_store::conformance::sqlite_database(), settings).await;
    let began = tokio::time::Instant::now();
    let headers = [("content-type", "application/json"), ("prefer", "wait=3600")];
    let standing = world.send("POST", "/v1/jobs", &headers, r#"{"handler":"none"}"#).await.expect(201);
    assert_eq!(standing["job"]["state"], "queued");
    assert!(began.elapsed() < std::time::Duration::from_secs(20));
    world.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn jobs_are_cancelled_retried_and_deleted_by_filter() {
    for world in World::both().await {
        for namespace in ["shop", "shop", "other"] {
            let job = json!({ "handler": "echo", "namespace": namespace, "delay_ms": 3_600_000 });
            world.post("/v1/jobs", &job.to_string()).await.expect(201);
        }
        let change =
            async |verb: &str, body: Value| world.post(&format!("/v1/jobs/{verb}"), &body.to_string()).await;
        for verb in ["cancel", "retry", "delete"] {
            let nothing = change(verb, json!({})).await;
            assert_eq!(
                (nothing.code(422), &nothing.json()["errors"][0]["pointer"]),
                ("invalid".to_owned(), &json!("/all"))
            );
            let stranger = json!({ "namespace": "shop", "cursor": "AAAA" });
            assert_eq!(change(verb, stranger).await.code(422), "invalid", "{verb}");
        }
        let preview = change("cancel", json!({ "all": true, "dry_run": true })).await.expect(200);
        assert_eq!((&preview["matching"], &preview["changed"]), (&json!(3), &json!(0)));
        let done = change("cancel", json!({ "namespace": "shop", "reason": "wrong" })).await.expect(200);
        assert_eq!((&done["changed"], &done["skipped"], &done["next"]), (&json!(2), &json!(0), &Value::Null));
        let left = world.get("/v1/jobs?state=queued").await.expect(200);
        assert_eq!(left["jobs"].as_array().unwrap().len(), 1);
        assert_eq!(
            change("retry", json!({ "handler": "echo" })).await.expect(200)["changed"],
            0,
            "none failed"
        );
        assert_eq!(change("delete", json!({ "queue": "default" })).await.expect(200)["changed"], 2);
        assert_eq!(world.get("/v1/jobs?namespace=shop").await.expect(200)["jobs"], json!([]));
        let filter = recache_store::AuditFilter { rows_max: 50, ..Default::default() };
        let rows = world.store.audits().audits_list(filter).await.unwrap();
        let row = rows.iter().find(|row| row.new.action == "jobs.cancel_many").unwrap();
        assert_eq!((row.new.namespace.as_deref(), row.new.word.reason.as_str()), (Some("shop"), "wrong"));
        assert!(row.after.as_ref().unwrap().contains("\"changed\":2"), "{row:?}");
        world.end().await;
    }
}
