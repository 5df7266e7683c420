use serde_json::{Value, json};

use crate::world::World;

const ID: &str = "job_0190c7a2-7b5e-7000-8000-000000000001";

fn path(verb: &str) -> String {
    format!("/v1/tracked-jobs/{ID}{verb}")
}

async fn report(world: &World, body: &Value) -> Value {
    world.post(&path("/report"), &body.to_string()).await.expect(200)
}

#[tokio::test(flavor = "multi_thread")]
async fn tracked_job_moves_forward_only_and_late_reports_are_answered_with_what_stands() {
    for world in World::both().await {
        let new = json!({ "action": "translate", "id": ID, "namespace": "shop", "owner": "w7",
            "context": { "type": "product", "id": "42", "field": "title" }, "metadata": { "to": "de" },
            "stale_after_ms": 60_000 });
        let created = world.post("/v1/tracked-jobs", &new.to_string()).await;
        assert_eq!(created.expect(201)["job"]["state"], "queued");
        assert_eq!(created.header("location"), Some(path("").as_str()));
        let again = world.post("/v1/tracked-jobs", &new.to_string()).await.expect(200);
        assert_eq!((&again["changed"], &again["job"]["id"]), (&json!(false), &json!(ID)));
        let other = json!({ "action": "other", "id": ID, "namespace": "shop" });
        assert_eq!(world.post("/v1/tracked-jobs", &other.to_string()).await.code(409), "conflict");

        let begun =
            report(&world, &json!({ "state": "processing", "items_done": 1, "items_total": 4 })).await;
        assert_eq!((&begun["changed"], &begun["job"]["progress"]), (&json!(true), &json!(0.25)));
        let back = report(&world, &json!({ "state": "queued" })).await;
        assert_eq!((&back["changed"], &back["job"]["state"]), (&json!(false), &json!("processing")));
        assert_eq!(world.post(&path("/acknowledge"), "").await.code(409), "conflict");
        assert_eq!(world.post(&path("/heartbeat"), "").await.expect(200)["changed"], true);
        let done = json!({ "state": "completed", "message": "fine", "data": { "words": 7 } });
        assert_eq!(report(&world, &done).await["changed"], true);
        let repeated = report(&world, &done).await;
        assert_eq!((&repeated["changed"], &repeated["job"]["data"]), (&json!(false), &json!({ "words": 7 })));
        let late = report(&world, &json!({ "state": "failed", "code": "late" })).await;
        assert_eq!((&late["changed"], &late["job"]["state"]), (&json!(false), &json!("completed")));
        assert_eq!(world.post(&path("/heartbeat"), "").await.expect(200)["changed"], false);
        let noted = world.post(&path("/acknowledge"), "").await.expect(200);
        assert_eq!(
            (&noted["changed"], &noted["job"]["acknowledged_by"]),
            (&json!(true), &json!("anonymous"))
        );
        assert_eq!(world.post(&path("/acknowledge"), "").await.expect(200)["changed"], false);
        assert_eq!(world.get(&path("")).await.expect(200)["job"], noted["job"]);
        world.end().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn unknown_ids_and_wrong_reports_are_errors() {
    for world in World::both().await {
        for verb in ["/report", "/heartbeat", "/acknowledge"] {
            assert_eq!(world.post(&path(verb), "{}").await.code(404), "not_found", "{verb}");
        }
        assert_eq!(world.get(&path("")).await.code(404), "not_found");
        let new = json!({ "action": "a", "id": ID }).to_string();
        world.post("/v1/tracked-jobs", &new).await.expect(201);
        for body in [
            json!({ "state": "done" }),
            json!({ "progress": 1.5 }),
            json!({ "items_done": -1 }),
            json!({ "items_done": 3, "items_total": 2 }),
            json!({ "code": "x" }),
            json!({ "status": "completed" }),
        ] {
            assert_eq!(world.post(&path("/report"), &body.to_string()).await.code(422), "invalid", "{body}");
        }
        assert_eq!(world.get(&path("")).await.expect(200)["job"]["revision"], 1, "nothing changed");
        for body in [
            json!({ "action": "a", "id": "x" }),
            json!({ "action": "a", "batch_id": "x" }),
            json!({ "action": "a", "context": { "type": "product" } }),
            json!({ "action": "a", "stale_after_ms": 0 }),
            json!({ "action": "a", "metdata": {} }),
        ] {
            assert_eq!(
                world.post("/v1/tracked-jobs", &body.to_string()).await.code(422),
                "invalid",
                "{body}"
            );
        }
        let orphan = json!({ "action": "a", "batch_id": "batch_01890000-0000-7000-8000-000000000000" });
        assert_eq!(world.post("/v1/tracked-jobs", &orphan.to_string()).await.code(404), "not_found");
        world.end().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn page_finds_its_jobs_again_by_what_they_are_about() {
    for world in World::both().await {
        let mut made = Vec::new();
        for (id, field) in [("42", "title"), ("42", "text"), ("43", "title")] {
            let body = json!({ "action": "translate", "namespace": "shop", "owner": field,
                "context": { "type": "product", "id": id, "field": field } });
            let created = world.post("/v1/tracked-jobs", &body.to_string()).await.expect(201);
            made.push(created["job"]["id"].clone());
        }
        let list = async |query: &str| -> Vec<Value> {
            let page = world.get(&format!("/v1/tracked-jobs?namespace=shop&{query}")).await.expect(200);
            page["jobs"].as_array().unwrap().iter().map(|job| job["id"].clone()).collect()
        };
        assert_eq!(list("context_type=product&context_id=42").await, [made[1].clone(), made[0].clone()]);
        assert_eq!(list("context_type=product&context_id=42&context_field=title").await, [made[0].clone()]);
        assert_eq!(list("owner=title&state=queued&action=translate&unacknowledged=true").await.len(), 2);
        assert_eq!(list("state=failed").await, [Value::Null; 0]);
        let first = world.get("/v1/tracked-jobs?limit=2").await.expect(200);
        let next = format!("/v1/tracked-jobs?limit=2&cursor={}", first["next"].as_str().unwrap());
        assert_eq!(world.get(&next).await.expect(200)["jobs"][0]["id"], made[0]);
        for query in [
            "context_type=product",
            "context_id=42&namespace=shop",
            "context_field=x",
            "context_type=a&context_id=b",
        ] {
            let answer = world.get(&format!("/v1/tracked-jobs?{query}")).await;
            assert_eq!(answer.code(400), "invalid_parameter", "{query}");
        }
        world.end().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn many_are_kept_in_one_go_with_how_they_stand() {
    for world in World::both().await {
        let id = |n: u32| format!("job_0190c7a2-7b5e-7000-8000-{n:012}");
        let one = |n: u32, report: Value| json!({ "job": { "action": "x", "id": id(n), "namespace": "shop" }, "report": report });
        let keep = async |jobs: Value| {
            world.post("/v1/tracked-jobs/bulk", &json!({ "jobs": jobs }).to_string()).await
        };
        let done = json!({ "state": "completed", "data": { "n": 1 } });
        let both = json!([one(1, done), one(2, Value::Null)]);
        let kept = keep(both.clone()).await.expect(200);
        assert_eq!(kept["jobs"], json!([{ "id": id(1), "is_new": true }, { "id": id(2), "is_new": true }]));
        let state = async |n: u32| {
            let job = world.get(&format!("/v1/tracked-jobs/{}", id(n))).await.expect(200);
            job["job"]["state"].as_str().unwrap().to_owned()
        };
        assert_eq!((state(1).await, state(2).await), ("completed".to_owned(), "queued".to_owned()));
        assert_eq!(keep(both).await.expect(200)["jobs"][0]["is_new"], false);
        // One that cannot be kept: none is.
        let mut foreign = one(2, Value::Null);
        foreign["job"]["namespace"] = json!("other");
        assert_eq!(keep(json!([one(3, Value::Null), foreign])).await.code(409), "conflict");
        assert_eq!(world.get(&format!("/v1/tracked-jobs/{}", id(3))).await.code(404), "not_found");
        let nameless = json!([{ "job": { "action": "x" } }, { "job": { "action": "x", "id": "y" } }]);
        let refused = keep(nameless).await;
        assert_eq!(refused.code(422), "invalid");
        let pointers: Vec<_> = refused.json()["errors"]
            .as_array()
            .unwrap()
            .iter()
            .map(|error| error["pointer"].clone())
            .collect();
        assert_eq!(pointers, [json!("/jobs/0/job/id"), json!("/jobs/1/job/id")]);
        world.end().await;
    }
}
