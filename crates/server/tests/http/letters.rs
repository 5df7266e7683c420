use serde_json::{Value, json};

use crate::world::World;

/// A job that failed for good.
async fn dead(world: &World, namespace: &str, queue: &str) -> String {
    let body = json!({ "handler": "fail", "namespace": namespace, "queue": queue }).to_string();
    let headers = [("content-type", "application/json"), ("prefer", "wait=20")];
    let failed = world.send("POST", "/v1/jobs", &headers, &body).await.expect(201);
    assert_eq!(failed["job"]["state"], "failed", "{failed}");
    failed["id"].as_str().unwrap().to_owned()
}

async fn ids(world: &World, path: &str) -> Vec<String> {
    let page = world.get(path).await.expect(200);
    let letters = page["letters"].as_array().unwrap();
    letters.iter().map(|letter| letter["job_id"].as_str().unwrap().to_owned()).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn dead_letters_are_listed_by_filter_page_by_page() {
    for world in World::both().await {
        let mut all = Vec::new();
        for namespace in ["shop", "shop", "other"] {
            all.push(dead(&world, namespace, "default").await);
        }
        all.reverse();
        assert_eq!(ids(&world, "/v1/dead-letters").await, all);
        assert_eq!(ids(&world, "/v1/dead-letters?namespace=shop").await, all[1..]);
        assert_eq!(ids(&world, "/v1/dead-letters?queue=mail").await, [""; 0]);
        assert_eq!(ids(&world, "/v1/dead-letters?handler=fail&status=pending&limit=2").await, all[..2]);
        assert_eq!(ids(&world, "/v1/dead-letters?stale_ms=3600000").await, [""; 0]);
        let first = world.get("/v1/dead-letters?limit=2").await.expect(200);
        let next = format!("/v1/dead-letters?limit=2&cursor={}", first["next"].as_str().unwrap());
        let second = world.get(&next).await.expect(200);
        assert_eq!((&second["letters"][0]["job_id"], &second["next"]), (&json!(all[2]), &Value::Null));
        assert_eq!(world.get(&next.replace('?', "?queue=q&")).await.code(400), "invalid_parameter");
        assert_eq!(world.get("/v1/dead-letters?status=gone").await.code(400), "invalid_parameter");
        world.end().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn dead_letter_is_looked_into_noted_settled_or_run_again_with_an_audit() {
    for world in World::both().await {
        let id = dead(&world, "shop", "default").await;
        let path = |verb: &str| format!("/v1/dead-letters/{id}/{verb}");
        let why = r#"{"reason":"I look"}"#;
        let looked = world.post(&path("investigate"), why).await.expect(200);
        assert_eq!(looked["letter"]["status"], "investigating");
        let noted = world.post(&path("notes"), r#"{"text":"the address is wrong"}"#).await.expect(200);
        let said: Vec<_> = noted["notes"].as_array().unwrap().iter().map(|note| &note["text"]).collect();
        assert_eq!(said, ["I look", "the address is wrong"]);
        assert_eq!(noted["notes"][0]["actor"], "anonymous");
        assert_eq!(world.post(&path("discard"), "{}").await.code(422), "invalid", "a reason is needed");
        let again = world.post_once("r1", &path("redrive"), r#"{"reason":"mended"}"#).await.expect(200);
        assert_eq!(again["letter"]["job_id"], json!(id));
        assert_eq!(world.post_once("r1", &path("redrive"), r#"{"reason":"mended"}"#).await.json(), again);
        let ended =
            world.send("GET", &format!("/v1/jobs/{id}"), &[("prefer", "wait=20")], "").await.expect(200);
        assert_eq!(ended["attempts"].as_array().unwrap().len(), 2, "{ended}");
        let resolved = world.post(&path("resolve"), r#"{"reason":"by hand"}"#).await.expect(200);
        assert_eq!(resolved["letter"]["status"], "resolved");
        assert_eq!(world.get(&format!("/v1/jobs/{id}")).await.expect(200)["job"]["state"], "resolved");
        for verb in ["redrive", "resolve", "discard"] {
            assert_eq!(world.post(&path(verb), why).await.code(409), "conflict", "{verb}");
        }
        assert_eq!(ids(&world, "/v1/dead-letters?status=resolved").await, [id.as_str()]);
        let unknown = "/v1/dead-letters/job_01890000-0000-7000-8000-000000000000";
        assert_eq!(world.get(unknown).await.code(404), "not_found");
        assert_eq!(world.post(&format!("{unknown}/redrive"), why).await.code(404), "not_found");
        let filter = recache_store::AuditFilter { rows_max: 50, ..Default::default() };
        let rows = world.store.audits().audits_list(filter).await.unwrap();
        let deeds: Vec<_> = rows.iter().rev().map(|row| row.new.action.as_str()).collect();
        assert_eq!(
            deeds[..4],
            ["dead_letters.investigate", "dead_letters.note", "dead_letters.redrive", "dead_letters.resolve"]
        );
        let redrive = &rows[rows.len() - 3];
        assert_eq!((redrive.new.target.as_str(), redrive.new.word.reason.as_str()), (id.as_str(), "mended"));
        assert_eq!(redrive.new.namespace.as_deref(), Some("shop"));
        world.end().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn open_dead_letters_are_redriven_by_filter() {
    for world in World::both().await {
        let mut shop = Vec::new();
        for _ in 0..2 {
            shop.push(dead(&world, "shop", "default").await);
        }
        dead(&world, "other", "default").await;
        world.post("/v1/queues/default/pause", r#"{"reason":"to look"}"#).await.expect(200);
        let redrive = async |body: Value| world.post("/v1/dead-letters/redrive", &body.to_string()).await;
        assert_eq!(redrive(json!({ "reason": "x" })).await.json()["errors"][0]["pointer"], "/all");
        assert_eq!(redrive(json!({ "all": true })).await.json()["errors"][0]["pointer"], "/reason");
        let preview = redrive(json!({ "all": true, "dry_run": true, "reason": "x" })).await.expect(200);
        assert_eq!((&preview["matching"], &preview["changed"]), (&json!(3), &json!(0)));
        let done = redrive(json!({ "namespace": "shop", "reason": "it is back" })).await.expect(200);
        assert_eq!(
            (&done["changed"], &done["skipped"], &done["next"]),
            (&json!(2), &json!(0), &Value::Null),
            "{done}"
        );
        for id in &shop {
            assert_eq!(world.get(&format!("/v1/jobs/{id}")).await.expect(200)["job"]["state"], "queued");
        }
        let stranger = json!({ "namespace": "shop", "reason": "x", "cursor": "AAAA" });
        assert_eq!(redrive(stranger).await.code(422), "invalid");
        assert_eq!(redrive(json!({ "all": true, "reason": "x" })).await.expect(200)["changed"], 1);
        let filter = recache_store::AuditFilter { rows_max: 2, ..Default::default() };
        let row = world.store.audits().audits_list(filter).await.unwrap().remove(1);
        assert_eq!(
            (row.new.action.as_str(), row.new.namespace.as_deref()),
            ("dead_letters.redrive_many", Some("shop"))
        );
        assert!(row.after.unwrap().contains("\"changed\":2"));
        world.end().await;
    }
}
