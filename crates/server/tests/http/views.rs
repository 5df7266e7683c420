use serde_json::{Value, json};

use crate::world::World;

const VIEW: &str = "/v1/views/shop/prices%2Fde";

async fn put(world: &World, path: &str, body: &Value) -> crate::world::Answer {
    world.send("PUT", path, &[("content-type", "application/json")], &body.to_string()).await
}

/// Defined, touched, and its first generation is live.
async fn built(world: &World) -> i64 {
    let definition = json!({ "handler": "counting", "debounce_quiet_ms": 0, "on_touch": "finish" });
    assert_eq!(put(world, VIEW, &definition).await.expect(200)["view"]["key"], "prices/de");
    touch(world, &json!({ "reason": "the first" })).await
}

/// Touches, and waits until that is live.
async fn touch(world: &World, body: &Value) -> i64 {
    let touched = world.post(&format!("{VIEW}/touch"), &body.to_string()).await.expect(200);
    let version = touched["recache_version"].as_i64().unwrap();
    let path = format!("{VIEW}/items/version?min_version={version}");
    let read = world.send("GET", &path, &[("prefer", "wait=20")], "").await.expect(200);
    assert!(read["version"].as_i64().unwrap() >= version, "{read}");
    version
}

/// Its versions begin again at 1, with other content.
#[tokio::test(flavor = "multi_thread")]
async fn reader_of_a_view_that_was_made_anew_is_not_told_that_it_has_it() {
    for world in World::both().await {
        let path = format!("{VIEW}/items/version");
        let mut etags = Vec::new();
        for _ in 0..2 {
            assert_eq!(built(&world).await, 1);
            let read = world.get(&path).await;
            assert_eq!(read.expect(200)["version"], 1);
            etags.push(read.header("etag").unwrap().to_owned());
            assert_eq!(world.send("DELETE", VIEW, &[], "").await.status, 200);
        }
        built(&world).await;
        for etag in &etags {
            assert_eq!(
                world.send("GET", &path, &[("if-none-match", etag)], "").await.status,
                200,
                "{etags:?}"
            );
        }
        world.end().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn view_is_defined_touched_and_read_by_generation() {
    for world in World::both().await {
        assert_eq!(world.get(VIEW).await.code(404), "not_found");
        let version = built(&world).await;
        let read = world.get(&format!("{VIEW}/items/version")).await;
        assert_eq!(read.expect(200)["value"], json!(version));
        let etag = read.header("etag").unwrap().to_owned();
        assert!(etag.starts_with(&format!("W/\"{version}.")), "{etag}");
        let conditional = async |etag: &str| {
            world.send("GET", &format!("{VIEW}/items/version"), &[("if-none-match", etag)], "").await.status
        };
        assert_eq!((conditional(&etag).await, conditional("*").await), (304, 304));
        assert_eq!(conditional(&format!("\"0\", {etag}")).await, 304);
        assert_eq!(conditional(&format!("\"{version}\"")).await, 200, "a number alone names no generation");
        let nothing = [("if-none-match", "*")];
        assert_eq!(world.send("GET", &format!("{VIEW}/items/none"), &nothing, "").await.status, 404);
        let newer = touch(&world, &json!({ "items": ["version"] })).await;
        assert_eq!(conditional(&etag).await, 200);
        let late = world.get(&format!("{VIEW}/items/version?min_version={}", newer + 1)).await;
        assert_eq!(late.code(409), "conflict");
        assert_eq!(world.get(&format!("{VIEW}/items/none")).await.code(404), "not_found");
        assert_eq!(
            world.get(&format!("{VIEW}/items/version?min_version=0")).await.code(400),
            "invalid_parameter"
        );

        let page = world.get(&format!("{VIEW}/items?limit=1")).await.expect(200);
        assert_eq!((&page["version"], &page["items"][0]["item"]), (&json!(newer), &json!("same")));
        touch(&world, &json!({})).await;
        let next = format!("{VIEW}/items?limit=1&cursor={}", page["next"].as_str().unwrap());
        let rest = world.get(&next).await.expect(200);
        assert_eq!(
            (&rest["version"], &rest["items"][0]["value"]),
            (&json!(newer), &json!(newer)),
            "the same generation"
        );
        assert_eq!(rest["next"], Value::Null);

        let shown = world.get(VIEW).await.expect(200);
        assert_eq!(
            (&shown["view"]["recache_status"], &shown["view"]["touch_reason"]),
            (&json!("completed"), &Value::Null)
        );
        let explained = world.get(&format!("{VIEW}/explain")).await.expect(200);
        assert_eq!(explained["waits_for"], "nothing");
        let diff = world.get(&format!("{VIEW}/diff?from={version}&to={newer}")).await.expect(200);
        assert_eq!(diff["items"], json!([{ "item": "version", "change": "changed" }]));
        let history = world.get(&format!("{VIEW}/history?limit=2")).await.expect(200);
        assert_eq!(history["builds"].as_array().unwrap().len(), 2);
        assert!(history["next"].is_string(), "{history}");
        let listed = world.get("/v1/views?namespace=shop").await.expect(200);
        assert_eq!(listed["views"][0]["key"], "prices/de");
        world.end().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn reads_say_whether_they_are_stale_and_are_answered_by_generation() {
    for world in World::both().await {
        let live = built(&world).await;
        let read = async |body: Value| world.post(&format!("{VIEW}/read"), &body.to_string()).await;
        let said = |document: &Value| {
            let field = |name: &str| document[name].clone();
            (field("version"), field("recache_version"), field("stale"))
        };
        let fresh = (json!(live), json!(live), json!(false));
        let item = world.get(&format!("{VIEW}/items/version")).await.expect(200);
        assert_eq!((said(&item), &item["staleness_ms"]), (fresh.clone(), &json!(0)));
        assert!(item["age_ms"].is_u64() && item["published_at"].is_string(), "{item}");
        let page = world.get(&format!("{VIEW}/items?limit=1")).await;
        let etag = page.header("etag").unwrap().to_owned();
        assert_eq!(said(&page.expect(200)), fresh);
        let conditional =
            async |path: &str| world.send("GET", path, &[("if-none-match", etag.as_str())], "").await.status;
        assert_eq!(conditional(&format!("{VIEW}/items?limit=1")).await, 304);

        // In the order in which they are asked for, as often as they are; what is not there is left out.
        let many = read(json!({ "items": ["version", "none", "same", "version"] })).await.expect(200);
        assert_eq!((said(&many), many["schema"].clone()), (fresh, json!("recache.items.v1")));
        let pair = |item: &str, value: Value| json!({ "item": item, "value": value });
        assert_eq!(
            many["items"],
            json!([pair("version", json!(live)), pair("same", json!("x")), pair("version", json!(live))])
        );
        assert_eq!((&many["next"], &many["view_id"]), (&Value::Null, &item["view_id"]));

        world.post(&format!("{VIEW}/pause"), "{}").await.expect(200);
        let wanted = world.post(&format!("{VIEW}/touch"), "{}").await.expect(200)["recache_version"].clone();
        let stale = (json!(live), wanted.clone(), json!(true));
        let one = json!({ "items": ["same"] });
        // A server learns of it within a tenth of a second.
        let reads = async || {
            let item = world.get(&format!("{VIEW}/items/same")).await.expect(200);
            let page = world.get(&format!("{VIEW}/items")).await.expect(200);
            [item, page, read(one.clone()).await.expect(200)]
        };
        let told = tokio::time::timeout(std::time::Duration::from_secs(20), async {
            loop {
                let told = reads().await;
                if told.iter().all(|document| document["staleness_ms"].as_u64().unwrap() > 0) {
                    return told;
                }
            }
        });
        for document in told.await.unwrap() {
            assert_eq!(said(&document), stale, "{document}");
        }
        assert_eq!(conditional(&format!("{VIEW}/items?limit=1")).await, 304, "it is still what is live");
        let least = |version: &Value| json!({ "items": ["same"], "min_version": version });
        assert_eq!(read(least(&wanted)).await.code(409), "conflict");
        assert_eq!(world.get(&format!("{VIEW}/items?min_version={wanted}")).await.code(409), "conflict");
        world.post(&format!("{VIEW}/resume"), "{}").await.expect(200);
        let path = format!("{VIEW}/items?min_version={wanted}");
        let page = world.send("GET", &path, &[("prefer", "wait=20")], "").await.expect(200);
        assert_eq!(said(&page), (wanted.clone(), wanted.clone(), json!(false)));
        assert_eq!(read(least(&wanted)).await.expect(200)["version"], wanted);
        assert_eq!(conditional(&format!("{VIEW}/items?limit=1")).await, 200, "another generation is live");

        for (body, pointer) in [
            (json!({ "items": [] }), "/items"),
            (json!({ "items": vec!["x"; 1_001] }), "/items"),
            (json!({ "items": ["x"], "min_version": 0 }), "/min_version"),
        ] {
            let refused = read(body).await;
            let problem = refused.expect(422);
            assert!(problem["errors"].to_string().contains(pointer), "{problem}");
        }
        assert_eq!(read(json!({ "item": ["x"] })).await.status, 422);
        let both = world.get(&format!("{VIEW}/items?min_version=1&version=1")).await;
        assert_eq!(both.code(400), "invalid_parameter");
        let none = world.post("/v1/views/shop/none/read", &one.to_string()).await;
        assert_eq!(none.code(404), "not_found");
        world.end().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn retention_lease_and_concurrency_are_fields_of_a_definition() {
    for world in World::both().await {
        let definition = json!({ "handler": "counting", "generation_keep_ms": 5_000, "lease_ms": 90_000 });
        let defined = put(&world, VIEW, &definition).await.expect(200);
        assert_eq!(
            (&defined["view"]["generation_keep_ms"], &defined["view"]["lease_ms"]),
            (&json!(5_000), &json!(90_000))
        );
        let pattern = "/v1/view-patterns/shop/few%2F*";
        put(&world, pattern, &json!({ "handler": "counting", "concurrency": 3 })).await.expect(200);
        let listed = world.get("/v1/view-patterns?namespace=shop").await.expect(200);
        assert_eq!(listed["patterns"][0]["concurrency"], 3);
        for (path, wrong) in [
            (VIEW, json!({ "handler": "counting", "generation_keep_ms": 1 })),
            (VIEW, json!({ "handler": "counting", "lease_ms": 86_400_001 })),
            (VIEW, json!({ "handler": "counting", "concurrency": 1 })),
            (pattern, json!({ "handler": "counting", "concurrency": 1_001 })),
            (pattern, json!({ "workflow": "shop/w", "concurrency": 1 })),
            (VIEW, json!({ "workflow": "shop/w", "lease_ms": 90_000 })),
        ] {
            assert_eq!(put(&world, path, &wrong).await.code(422), "invalid", "{wrong}");
        }
        world.end().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn view_is_paused_rolled_back_resumed_and_deleted_with_an_audit() {
    for world in World::both().await {
        let first = built(&world).await;
        let second = touch(&world, &json!({})).await;
        let path = |verb: &str| format!("{VIEW}/{verb}");
        let body = json!({ "to_version": first, "reason": "wrong" }).to_string();
        let restored = world.post_once("k1", &path("rollback"), &body).await.expect(200);
        assert_eq!((&restored["version"], &restored["items_changed"]), (&json!(second + 1), &json!(1)));
        let again = world.post_once("k1", &path("rollback"), &body).await.expect(200);
        assert_eq!(again["version"], restored["version"], "carried out once");
        let read = world.get(&path(&format!("items/version?min_version={}", second + 1))).await.expect(200);
        assert_eq!(read["value"], json!(first));
        assert_eq!(world.post(&path("pause"), "{}").await.expect(200)["changed"], false, "a rollback pauses");
        assert_eq!(world.post(&path("resume"), "{}").await.expect(200)["changed"], true);
        let rebuilt =
            world.post(&path("rebuild"), "{}").await.expect(200)["recache_version"].as_i64().unwrap();
        let read = world
            .send("GET", &path(&format!("items/version?min_version={rebuilt}")), &[("prefer", "wait=20")], "")
            .await;
        assert_eq!(read.expect(200)["value"], json!(rebuilt));
        assert_eq!(world.post(&path("rollback"), r#"{"to_version":99}"#).await.code(409), "conflict");

        let other = "/v1/views/shop/sums";
        put(&world, other, &json!({ "handler": "counting" })).await.expect(200);
        let sources = format!("{other}/sources");
        assert_eq!(
            put(&world, &sources, &json!({ "from": ["shop/prices/de"] })).await.expect(200)["changed"],
            true
        );
        assert_eq!(put(&world, &sources, &json!({ "from": ["prices", "/x"] })).await.code(422), "invalid");
        assert_eq!(world.send("DELETE", VIEW, &[], "").await.code(409), "conflict");
        world.send("DELETE", other, &[], "").await.expect(200);
        let path = format!("{VIEW}?reason=unused");
        assert_eq!(world.send("DELETE", &path, &[], "").await.expect(200)["changed"], true);
        assert_eq!(world.get(VIEW).await.code(404), "not_found");
        let filter = recache_store::AuditFilter { rows_max: 20, ..Default::default() };
        let rows = world.store.audits().audits_list(filter).await.unwrap();
        let deeds: Vec<_> = rows.iter().map(|row| row.new.action.as_str()).collect();
        for deed in ["views.rollback", "views.pause", "views.resume", "views.delete"] {
            assert!(deeds.contains(&deed), "{deed} is not among {deeds:?}");
        }
        assert_eq!(rows[0].new.word.reason, "unused");
        world.end().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn views_are_touched_together_all_or_none() {
    let world = World::sqlite().await;
    built(&world).await;
    let one = json!({ "namespace": "shop", "key": "prices/de", "items": ["a"] });
    let both = json!({ "views": [one, { "namespace": "shop", "key": "none" }] });
    assert_eq!(world.post("/v1/touches", &both.to_string()).await.code(404), "not_found");
    assert_eq!(world.get(VIEW).await.expect(200)["view"]["recache_version"], 1);
    let touched = world.post("/v1/touches", &json!({ "views": [one], "reason": "import" }).to_string()).await;
    assert_eq!(touched.expect(200)["views"][0]["recache_version"], 2);
    assert_eq!(world.get(VIEW).await.expect(200)["view"]["touch_reason"], "import");
    for bad in [r#"{"views":[]}"#, r#"{"views":[{"namespace":"shop"}]}"#, r#"{"touches":[]}"#] {
        assert_eq!(world.post("/v1/touches", bad).await.status, 422, "{bad}");
    }
    let definition = json!({ "handler": "x", "any_staleness": true, "max_staleness_ms": 5 });
    assert_eq!(put(&world, VIEW, &definition).await.code(422), "invalid");
    let definition = json!({ "handler": "x", "queu": "y" });
    assert!(put(&world, VIEW, &definition).await.expect(422).to_string().contains("queu"));
    world.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn pattern_covers_views_that_their_first_touch_makes() {
    const PATTERN: &str = "/v1/view-patterns/shop/alliance%2F*";
    for world in World::both().await {
        let definition = json!({ "handler": "counting", "debounce_quiet_ms": 0,
            "item_value_schema": { "type": ["integer", "string"] } });
        assert_eq!(put(&world, PATTERN, &definition).await.expect(200)["views"], json!(0));
        assert_eq!(world.get("/v1/views/shop/alliance%2F7").await.code(404), "not_found");
        let touched = world.post("/v1/views/shop/alliance%2F7/touch", "{}").await.expect(200);
        assert_eq!(touched["recache_version"], json!(1));
        let shown = world.get("/v1/views/shop/alliance%2F7").await.expect(200);
        assert_eq!(shown["view"]["pattern"], json!("alliance/*"));
        assert_eq!(shown["view"]["item_value_schema"], definition["item_value_schema"]);
        let touched = world.post(&format!("{PATTERN}/touch"), r#"{"reason":"a war"}"#).await.expect(200);
        assert_eq!((&touched["pattern"], &touched["views"]), (&json!("alliance/*"), &json!(1)));
        let listed = world.get("/v1/view-patterns?namespace=shop").await.expect(200);
        assert_eq!(listed["patterns"][0]["handler"], "counting");
        assert_eq!(put(&world, PATTERN, &definition).await.expect(200)["views"], json!(1));
        let wrong = json!({ "handler": "counting", "item_key_schema": { "type": 7 } });
        assert_eq!(put(&world, PATTERN, &wrong).await.code(422), "invalid");
        assert_eq!(put(&world, "/v1/views/shop/a*", &definition).await.status, 422, "a pattern is no view");
        assert_eq!(put(&world, "/v1/view-patterns/shop/a", &definition).await.status, 422);
        world.send("DELETE", PATTERN, &[], "").await.expect(200);
        assert_eq!(world.send("DELETE", PATTERN, &[], "").await.code(404), "not_found");
        assert_eq!(world.post("/v1/views/shop/alliance%2F8/touch", "{}").await.code(404), "not_found");
        world.end().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn rebuild_leaves_a_row_in_the_audit() {
    for world in World::both().await {
        let define = r#"{"handler":"counting"}"#;
        world.send("PUT", "/v1/views/a/v", &[("content-type", "application/json")], define).await.expect(200);
        let touched = world.post("/v1/views/a/v/rebuild", r#"{"reason":"looks odd"}"#).await.expect(200);
        let row = world.get("/v1/audit?target=a/v").await.expect(200)["rows"][0].clone();
        assert_eq!((&row["action"], &row["reason"]), (&json!("views.rebuild"), &json!("looks odd")), "{row}");
        assert_eq!((&row["outcome"], &row["namespace"]), (&json!("done"), &json!("a")), "{row}");
        assert_eq!(row["before"]["wanted_version"], 0, "{row}");
        assert_eq!(row["after"]["wanted_version"], touched["recache_version"], "{row}");
        world.end().await;
    }
}
