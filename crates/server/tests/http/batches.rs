use serde_json::{Value, json};

use crate::world::World;

async fn create(world: &World, body: &Value) -> String {
    let answer = world.post("/v1/batches", &body.to_string()).await;
    let id = answer.expect(201)["batch"]["id"].as_str().unwrap().to_owned();
    assert_eq!(answer.header("location"), Some(format!("/v1/batches/{id}").as_str()));
    id
}

async fn ended(world: &World, id: &str) -> Value {
    let answer = world.send("GET", &format!("/v1/batches/{id}"), &[("prefer", "wait=20")], "").await;
    let batch = answer.expect(200)["batch"].clone();
    assert!(!batch["finished_at"].is_null(), "{batch}");
    batch
}

#[tokio::test(flavor = "multi_thread")]
async fn batch_counts_members_of_every_kind_and_calls_back_once() {
    for world in World::both().await {
        let template = "namespace: shop\nname: one\nversion: 1.0.0\nsteps:\n  - name: a\n    handler: {callable: echo}\n";
        world
            .send("PUT", "/v1/templates", &[("content-type", "application/yaml")], template)
            .await
            .expect(201);
        let id = create(
            &world,
            &json!({ "action": "import", "namespace": "shop", "metadata": { "file": 7 },
                "on_finish": { "handler": "echo", "input": { "to": "ops" } },
                "on_first_failure": { "handler": "echo", "queue": "default" } }),
        )
        .await;
        let within =
            create(&world, &json!({ "action": "part", "namespace": "shop", "parent_id": id, "expected": 0 }))
                .await;
        let job = |handler: &str| json!({ "handler": handler, "namespace": "shop", "batch_id": id });
        let jobs = json!({ "jobs": [job("echo"), job("fail")] }).to_string();
        world.post("/v1/jobs/bulk", &jobs).await.expect(200);
        let flow = json!({ "template": "one", "namespace": "shop", "batch_id": id }).to_string();
        world.post_once("w", "/v1/workflows", &flow).await.expect(201);
        world.post_once("w", "/v1/workflows", &flow).await.expect(201);
        let tracked = json!({ "action": "translate", "namespace": "shop", "batch_id": id }).to_string();
        let tracked = world.post("/v1/tracked-jobs", &tracked).await.expect(201)["job"]["id"].clone();
        let report = format!("/v1/tracked-jobs/{}/report", tracked.as_str().unwrap());
        world.post(&report, r#"{"state":"completed"}"#).await.expect(200);

        let open = world.get(&format!("/v1/batches/{id}")).await.expect(200);
        assert_eq!(
            (&open["batch"]["counts"]["total"], &open["batch"]["closed_at"]),
            (&json!(5), &Value::Null)
        );
        assert_eq!(world.post(&format!("/v1/batches/{id}/close"), "").await.expect(200)["changed"], 1);
        assert_eq!(world.post(&format!("/v1/batches/{id}/close"), "").await.expect(200)["changed"], 0);
        let batch = ended(&world, &id).await;
        assert_eq!(batch["state"], "partial_failure", "{batch}");
        assert_eq!(
            batch["counts"],
            json!({ "total": 5, "pending": 0, "completed": 4, "failed": 1, "cancelled": 0, "superseded": 0 })
        );
        assert_eq!(batch["metadata"], json!({ "file": 7 }));
        for callback in ["on_finish", "on_first_failure"] {
            assert!(batch[callback]["job_id"].is_string(), "{batch}");
        }
        let late = json!({ "handler": "echo", "namespace": "shop", "batch_id": id }).to_string();
        assert_eq!(world.post("/v1/jobs", &late).await.code(409), "conflict");

        let mut kinds = Vec::new();
        let mut path = format!("/v1/batches/{id}/members?limit=2");
        loop {
            let page = world.get(&path).await.expect(200);
            kinds.extend(
                page["members"]
                    .as_array()
                    .unwrap()
                    .iter()
                    .map(|one| one["kind"].as_str().unwrap().to_owned()),
            );
            let Some(next) = page["next"].as_str() else { break };
            path = format!("/v1/batches/{id}/members?limit=2&cursor={next}");
        }
        kinds.sort();
        assert_eq!(kinds, ["batch", "job", "job", "tracked", "workflow"]);
        let failed = world.get(&format!("/v1/batches/{id}/members?failed=true")).await.expect(200);
        assert_eq!(failed["members"].as_array().unwrap().len(), 1);
        assert_eq!(failed["members"][0]["code"], "broken");
        let inner = world.get(&format!("/v1/batches?parent={id}")).await.expect(200);
        assert_eq!(inner["batches"][0]["id"], json!(within));
        let listed = world.get("/v1/batches?namespace=shop&action=import&unfinished=true").await.expect(200);
        assert_eq!(listed["batches"], json!([]));
        world.end().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn batch_is_created_once_with_its_id_or_its_key() {
    for world in World::both().await {
        let given = json!({ "action": "a", "id": "0190c7a2-7b5e-7000-8000-000000000001", "expected": 2 });
        let id = create(&world, &given).await;
        assert_eq!(id, "batch_0190c7a2-7b5e-7000-8000-000000000001");
        assert_eq!(world.post("/v1/batches", &given.to_string()).await.expect(200)["changed"], 0);
        let other = json!({ "action": "b", "id": id });
        assert_eq!(world.post("/v1/batches", &other.to_string()).await.code(409), "conflict");
        let made = world.post_once("b", "/v1/batches", r#"{"action":"a"}"#).await.expect(201);
        assert_eq!(world.post_once("b", "/v1/batches", r#"{"action":"a"}"#).await.json(), made);
        let wrong = json!({ "action": "", "id": "x", "parent_id": "y", "expected": -1, "colour": 1 });
        let refused = world.post("/v1/batches", &wrong.to_string()).await;
        assert_eq!(refused.expect(422)["errors"].as_array().unwrap().len(), 3, "{refused:?}");
        let wrong = json!({ "action": "a", "id": "x", "parent_id": "y" });
        let refused = world.post("/v1/batches", &wrong.to_string()).await;
        let pointers: Vec<_> = refused.expect(422)["errors"]
            .as_array()
            .unwrap()
            .iter()
            .map(|one| one["pointer"].clone())
            .collect();
        assert_eq!(pointers, ["/id", "/parent_id"]);
        let orphan = json!({ "action": "a", "parent_id": "batch_01890000-0000-7000-8000-000000000000" });
        assert_eq!(world.post("/v1/batches", &orphan.to_string()).await.code(404), "not_found");
        world.end().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn batch_is_called_off_whole_and_its_failed_jobs_are_run_again() {
    for world in World::both().await {
        let id = create(&world, &json!({ "action": "a" })).await;
        let jobs: Vec<_> = (0..7).map(|_| json!({ "handler": "none", "batch_id": id })).collect();
        world.post("/v1/jobs/bulk", &json!({ "jobs": jobs }).to_string()).await.expect(200);
        let cancel = format!("/v1/batches/{id}/cancel");
        let body = r#"{"reason":"wrong file"}"#;
        let cancelled = world.post_once("c", &cancel, body).await.expect(200);
        assert_eq!(cancelled["changed"], 7, "{cancelled}");
        assert_eq!(world.post_once("c", &cancel, body).await.json(), cancelled);
        let batch = ended(&world, &id).await;
        assert_eq!(
            (&batch["counts"]["cancelled"], &batch["cancel_reason"]),
            (&json!(7), &json!("wrong file"))
        );
        assert_eq!(world.post(&format!("/v1/batches/{id}/retry"), "").await.code(409), "conflict");

        let id = create(&world, &json!({ "action": "a", "expected": 2 })).await;
        let jobs: Vec<_> = (0..2).map(|_| json!({ "handler": "fail", "batch_id": id })).collect();
        world.post("/v1/jobs/bulk", &json!({ "jobs": jobs }).to_string()).await.expect(200);
        assert_eq!(ended(&world, &id).await["state"], "failed");
        let retry = format!("/v1/batches/{id}/retry");
        assert_eq!(world.post(&retry, r#"{"cursor":"AAAA"}"#).await.code(422), "invalid");
        let retried = world.post(&retry, r#"{"reason":"mended"}"#).await.expect(200);
        assert_eq!((&retried["changed"], &retried["next"]), (&json!(2), &Value::Null));
        assert_eq!(ended(&world, &id).await["counts"]["failed"], 2);
        let filter = recache_store::AuditFilter { rows_max: 9, ..Default::default() };
        let rows = world.store.audits().audits_list(filter).await.unwrap();
        let deeds: Vec<_> =
            rows.iter().rev().map(|row| (row.new.action.as_str(), row.new.word.reason.as_str())).collect();
        assert_eq!(
            deeds,
            [
                ("batches.cancel", "wrong file"),
                ("batches.retry", "retried over HTTP"),
                ("batches.retry", "mended")
            ]
        );
        world.end().await;
    }
}
