use serde_json::{Value, json};

use crate::world::{Answer, World};

const TEMPLATE: &str = "\
namespace: shop
name: order
version: 1.0.0
input_schema: {type: object, required: [n]}
steps:
  - name: fetch
    handler: {callable: none}
  - name: pack
    handler: {callable: echo}
    dependencies: [fetch]
  - name: paid
    dependencies: [pack]
    wait_for: {signal: paid}
";

async fn put(world: &World, text: &str) -> Answer {
    world.send("PUT", "/v1/templates", &[("content-type", "application/yaml")], text).await
}

async fn submit(world: &World) -> String {
    let body = r#"{"template":"order","namespace":"shop","input":{"n":1}}"#;
    let answer = world.post("/v1/workflows", body).await;
    let id = answer.expect(201)["id"].as_str().unwrap().to_owned();
    assert_eq!(answer.header("location"), Some(format!("/v1/workflows/{id}").as_str()));
    id
}

async fn ended(world: &World, id: &str) -> Value {
    world.send("GET", &format!("/v1/workflows/{id}"), &[("prefer", "wait=20")], "").await.expect(200)
}

#[tokio::test(flavor = "multi_thread")]
async fn template_is_stored_compared_checked_and_drawn() {
    for world in World::both().await {
        assert_eq!(put(&world, TEMPLATE).await.expect(201)["templates"][0]["changed"], true);
        assert_eq!(put(&world, TEMPLATE).await.expect(200)["templates"][0]["changed"], false);
        let other = TEMPLATE.replace("callable: none", "callable: other");
        assert_eq!(put(&world, &other).await.code(409), "conflict");
        let newer = other.replace("1.0.0", "1.1.0");
        let dry =
            world.send("PUT", "/v1/templates?dry_run=true", &[("content-type", "text/yaml")], &newer).await;
        assert_eq!(dry.expect(200)["templates"][0]["changed"], false);
        put(&world, &newer).await.expect(201);

        let shown = world.get("/v1/templates/shop/order").await.expect(200);
        assert_eq!(
            (&shown["template"]["version"], &shown["content"]["name"]),
            (&json!("1.1.0"), &json!("order"))
        );
        let versions = world.get("/v1/templates/shop/order/versions").await.expect(200);
        let listed: Vec<_> =
            versions["templates"].as_array().unwrap().iter().map(|one| &one["version"]).collect();
        assert_eq!(listed, ["1.1.0", "1.0.0"]);
        let diff = world.get("/v1/templates/shop/order/diff?from=1.0.0").await.expect(200);
        assert_eq!(
            (&diff["steps"][0]["name"], &diff["steps"][0]["change"]),
            (&json!("fetch"), &json!("changed"))
        );
        let graph = world.get("/v1/templates/shop/order/graph?version=1.0.0").await.expect(200);
        assert_eq!(graph["levels"], json!([["fetch"], ["pack"], ["paid"]]));
        assert_eq!(world.get("/v1/templates/shop/order/analysis").await.expect(200)["nodes"], 3);
        let page = world.get("/v1/templates?namespace=shop&limit=1").await.expect(200);
        assert_eq!((page["templates"].as_array().unwrap().len(), &page["has_more"]), (1, &json!(true)));
        pages_of_templates(&world).await;

        let wrong = "namespace: shop\nname: order\nversion: one\nsteps:\n  - name: a\n    dependencies: [b]\n    colour: red\n";
        let refused = put(&world, wrong).await;
        assert_eq!(refused.code(422), "invalid");
        assert!(refused.json()["errors"].as_array().unwrap().len() >= 3, "{refused:?}");
        assert!(refused.body.contains("line 7"), "{refused:?}");
        let checked =
            world.send("POST", "/v1/templates/check", &[("content-type", "application/yaml")], wrong).await;
        let checked = checked.expect(200);
        assert!(checked["files"][0]["template"].is_null() && !checked["files"][0]["problems"][0].is_null());
        assert_eq!(world.get("/v1/templates/shop/gone").await.code(404), "not_found");
        assert_eq!(world.get("/v1/templates/shop/order?version=9.0.0").await.code(404), "not_found");
        assert_eq!(world.get("/v1/templates/shop/gone/versions").await.code(404), "not_found");
        world.end().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn workflow_is_submitted_moved_on_by_hand_told_and_read() {
    for world in World::both().await {
        put(&world, TEMPLATE).await.expect(201);
        let refused = world.post("/v1/workflows", r#"{"template":"order","namespace":"shop"}"#).await;
        assert_eq!(refused.code(422), "invalid", "the input does not fit");
        let id = submit(&world).await;
        let path = |rest: &str| format!("/v1/workflows/{id}/{rest}");
        let steps = world.get(&path("steps")).await.expect(200);
        let names: Vec<_> = steps["steps"].as_array().unwrap().iter().map(|step| &step["name"]).collect();
        assert_eq!(names, ["fetch", "pack", "paid"]);
        let done =
            world.post(&path("steps/fetch/complete"), r#"{"result":{"rows":3},"reason":"by hand"}"#).await;
        assert_eq!(done.expect(200)["change"], "completed");
        assert_eq!(world.post(&path("steps/gone/complete"), "{}").await.code(404), "not_found");
        assert_eq!(world.post(&path("steps/fetch/resolve"), "{}").await.code(409), "conflict");
        assert_eq!(
            world.post(&path("signals"), r#"{"name":"paid","payload":{"sum":7}}"#).await.expect(200)["count"],
            1
        );
        assert_eq!(
            world.post(&path("signals"), r#"{"name":"paid","payload":{"sum":7}}"#).await.expect(200)["count"],
            0
        );
        let details = ended(&world, &id).await;
        assert_eq!(details["workflow"]["state"], "completed", "{details}");
        assert_eq!(details["signals"][0]["actor"], "anonymous");
        let graph = world.get(&path("graph")).await.expect(200);
        assert_eq!((&graph["nodes"], &graph["workflow_id"]), (&json!(3), &json!(id)));
        let timeline = world.get(&path("timeline")).await.expect(200);
        assert_eq!(timeline["state"], "completed");
        assert!(
            timeline["steps"].as_array().unwrap().iter().any(|step| step["ran_ms"].is_number()),
            "{timeline}"
        );
        let listed = world.get("/v1/workflows?state=completed&template=order").await.expect(200);
        assert_eq!(listed["workflows"][0]["id"], json!(id));
        world.end().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn workflow_submitted_again_with_its_key_is_one() {
    for world in World::both().await {
        put(&world, TEMPLATE).await.expect(201);
        let body = r#"{"template":"order","namespace":"shop","input":{"n":1}}"#;
        let first = world.post_once("w1", "/v1/workflows", body).await;
        let again = world.post_once("w1", "/v1/workflows", body).await;
        assert_eq!(first.expect(201)["id"], again.expect(201)["id"]);
        assert_eq!(again.header("location"), first.header("location"));
        let id = first.json()["id"].as_str().unwrap().to_owned();
        let retry = format!("/v1/workflows/{id}/retry");
        let new = world.post_once("w2", &retry, r#"{"mode":"all"}"#).await.expect(200);
        let same = world.post_once("w2", &retry, r#"{"mode":"all"}"#).await.expect(200);
        assert_eq!((&new["change"], &new["id"]), (&json!("run_again"), &same["id"]));
        let listed = world.get("/v1/workflows?namespace=shop").await.expect(200);
        assert_eq!(listed["workflows"].as_array().unwrap().len(), 2);
        world.end().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn failed_step_is_retried_or_resolved_and_all_is_cancelled() {
    for world in World::both().await {
        let text = "namespace: shop\nname: bad\nversion: 1.0.0\nsteps:\n  - name: a\n    handler: {callable: fail}\n  \
                    - name: b\n    handler: {callable: none}\n    dependencies: [a]\n";
        put(&world, text).await.expect(201);
        let body = r#"{"template":"bad","namespace":"shop"}"#;
        let id = world.post("/v1/workflows", body).await.expect(201)["id"].as_str().unwrap().to_owned();
        let path = |rest: &str| format!("/v1/workflows/{id}/{rest}");
        assert_eq!(ended(&world, &id).await["workflow"]["state"], "failed");
        assert_eq!(world.post(&path("retry"), r#"{"reason":"mended"}"#).await.expect(200)["count"], 1);
        assert_eq!(ended(&world, &id).await["workflow"]["state"], "failed");
        let resolved = world.post(&path("steps/a/resolve"), r#"{"result":null,"reason":"not needed"}"#).await;
        assert_eq!(resolved.expect(200)["change"], "resolved");
        let cancelled = world.post(&path("cancel"), "").await.expect(200);
        assert_eq!(cancelled["count"], 1, "{cancelled}");
        assert_eq!(ended(&world, &id).await["workflow"]["state"], "cancelled");
        let filter = recache_store::AuditFilter { rows_max: 9, ..Default::default() };
        let actions: Vec<_> = world
            .store
            .audits()
            .audits_list(filter)
            .await
            .unwrap()
            .into_iter()
            .map(|row| row.new.action)
            .collect();
        assert_eq!(actions, ["workflows.cancel", "workflows.resolve_step", "workflows.retry"]);
        world.end().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn submit_waits_for_the_end_of_a_workflow() {
    for world in World::both().await {
        let text = "namespace: shop\nname: good\nversion: 1.0.0\nsteps:\n  - name: a\n    handler: {callable: echo}\n";
        put(&world, text).await.expect(201);
        let headers = [("content-type", "application/json"), ("prefer", "wait=20")];
        let body = r#"{"template":"good","namespace":"shop"}"#;
        let ended = world.send("POST", "/v1/workflows", &headers, body).await.expect(201);
        assert_eq!(
            (&ended["workflow"]["state"], &ended["workflow"]["id"]),
            (&json!("completed"), &ended["id"])
        );
        assert_eq!(world.post("/v1/workflows", body).await.expect(201)["workflow"], Value::Null);
        world.end().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn failed_steps_and_all_behind_them_run_again_as_a_new_workflow() {
    for world in World::both().await {
        let text = "namespace: shop\nname: half\nversion: 1.0.0\nsteps:\n  - name: a\n    handler: {callable: echo}\n  \
                    - name: b\n    handler: {callable: fail}\n    dependencies: [a]\n  \
                    - name: c\n    handler: {callable: none}\n    dependencies: [b]\n";
        put(&world, text).await.expect(201);
        let body = r#"{"template":"half","namespace":"shop"}"#;
        let id = world.post("/v1/workflows", body).await.expect(201)["id"].as_str().unwrap().to_owned();
        let retry = format!("/v1/workflows/{id}/retry");
        let mode = r#"{"mode":"downstream","reason":"mended"}"#;
        assert_eq!(ended(&world, &id).await["workflow"]["state"], "failed");
        let new = world.post_once("d", &retry, mode).await.expect(200);
        assert_eq!(world.post_once("d", &retry, mode).await.json(), new, "carried out once");
        assert_eq!(new["change"], "run_failed_again");
        let new = new["id"].as_str().unwrap().to_owned();
        assert_ne!(new, id);
        let details = ended(&world, &new).await;
        let step = |name: &str| {
            let steps = details["steps"].as_array().unwrap();
            steps.iter().find(|step| step["name"] == name).unwrap().clone()
        };
        // The engine itself ends it with the result that stands.
        assert_eq!(
            (&step("a")["state"], &step("a")["handler"]),
            (&json!("completed"), &json!(recache_store::FLOW))
        );
        assert_eq!(step("b")["handler"], "fail");
        assert_eq!(step("b")["attempt"], 1, "run again");
        assert_eq!(world.get("/v1/workflows").await.expect(200)["workflows"].as_array().unwrap().len(), 2);
        world.end().await;
    }
}

/// Names come from whoever writes templates, and pictures are opened by others.
#[tokio::test(flavor = "multi_thread")]
async fn graphs_are_answered_as_text_mermaid_and_svg_and_no_name_leaves_its_label() {
    let world = World::sqlite().await;
    let hostile = "\"]<script>alert(1)</script>&'";
    let template = |name: &str, callable: &str| {
        json!({ "namespace": "shop", "name": "odd", "version": "1.0.0", "steps": [
            { "name": name, "handler": { "callable": callable } },
            { "name": "last", "handler": { "callable": "none" }, "dependencies": [name] },
        ] })
        .to_string()
    };
    assert_eq!(put(&world, &template(hostile, "none")).await.code(422), "invalid", "such a step has no name");
    put(&world, &template("first", hostile)).await.expect(201);
    let id = world.post("/v1/workflows", r#"{"template":"odd","namespace":"shop"}"#).await.expect(201);
    let workflow = format!("/v1/workflows/{}/graph", id["id"].as_str().unwrap());
    for path in [workflow.as_str(), "/v1/templates/shop/odd/graph", "/v1/templates/shop/odd/analysis"] {
        let drawn = async |query: &str, accept: &str| {
            world.send("GET", &format!("{path}{query}"), &[("accept", accept)], "").await
        };
        let svg = drawn("?format=svg", "text/plain").await;
        assert_eq!((svg.status, svg.header("content-type")), (200, Some("image/svg+xml")), "{svg:?}");
        assert!(svg.header("content-security-policy").unwrap().starts_with("default-src 'none'; style-src"));
        assert!(svg.body.starts_with("<svg ") && svg.body.trim_end().ends_with("</svg>"), "{svg:?}");
        assert!(svg.body.contains(">first</text>") && !svg.body.contains("<script"), "{svg:?}");
        assert_eq!(drawn("", "image/svg+xml,*/*;q=0.8").await.body, svg.body);
        let mermaid = drawn("?format=mermaid", "*/*").await;
        assert_eq!(mermaid.header("content-type"), Some("text/vnd.mermaid; charset=utf-8"));
        assert!(
            mermaid.body.starts_with("flowchart TD\n") && !mermaid.body.contains("<script"),
            "{mermaid:?}"
        );
        let text = drawn("", "text/plain").await;
        assert_eq!(
            (text.header("content-type"), text.header("vary")),
            (Some("text/plain; charset=utf-8"), Some("accept"))
        );
        assert_eq!(text.body.lines().filter(|line| line.starts_with("level ")).count(), 2, "{text:?}");
        assert_eq!(text.body.lines().count(), 4, "{text:?}");
        let data = drawn("", "application/json").await.expect(200);
        assert_eq!(drawn("", "image/png").await.expect(200)["schema"], data["schema"]);
        assert_eq!(drawn("?format=png", "*/*").await.code(400), "invalid_parameter");
    }
    let text = world.get("/v1/handlers/graph?namespace=shop&format=text").await;
    let expected = format!("shop/{hostile}  (no worker)\n  -> none in odd\nshop/none  (no worker)\n");
    assert_eq!((text.status, text.body), (200, expected));
    let drawn = world.get("/v1/handlers/graph?format=mermaid").await;
    assert!(drawn.body.starts_with("flowchart LR\n") && !drawn.body.contains("\"]<"), "{drawn:?}");
    assert_eq!(world.get("/v1/handlers/graph?format=svg").await.code(400), "invalid_parameter");
    world.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn graph_that_is_too_large_is_answered_as_data_only() {
    let world = World::sqlite().await;
    let step = |number: usize| {
        let before: Vec<String> = (0..number).map(|before| format!("s{before}")).collect();
        json!({ "name": format!("s{number}"), "handler": { "callable": "none" }, "dependencies": before })
    };
    let steps: Vec<Value> = (0..202).map(step).collect();
    let template = json!({ "namespace": "shop", "name": "dense", "version": "1.0.0", "steps": steps });
    put(&world, &template.to_string()).await.expect(201);
    for path in ["/v1/templates/shop/dense/graph", "/v1/templates/shop/dense/analysis"] {
        world.get(path).await.expect(200);
        for form in ["text", "mermaid", "svg"] {
            let refused = world.get(&format!("{path}?format={form}")).await;
            assert_eq!(refused.code(409), "conflict");
            assert!(
                refused.body.contains("20301 dependencies") && refused.body.contains("format=json"),
                "{refused:?}"
            );
        }
    }
    world.end().await;
}

/// Of two versions of `shop/order`.
async fn pages_of_templates(world: &World) {
    let one = async |path: &str| {
        let page = world.get(path).await.expect(200);
        let versions = page["templates"].as_array().unwrap().iter().map(|one| one["version"].clone());
        (versions.collect::<Vec<_>>(), page["next"].as_str().map(str::to_owned))
    };
    for list in
        ["/v1/templates?namespace=shop&name=order&limit=1", "/v1/templates/shop/order/versions?limit=1"]
    {
        let (first, next) = one(list).await;
        let next = next.expect("there are more");
        let (second, end) = one(&format!("{list}&cursor={next}")).await;
        assert_eq!((first, second, end), (vec![json!("1.1.0")], vec![json!("1.0.0")], None), "{list}");
        let other = list.replace("order", "pack");
        assert_eq!(world.get(&format!("{other}&cursor={next}")).await.code(400), "invalid_parameter");
    }
    let (behind, _) = one("/v1/templates?name=order&after=shop/order@1.1.0").await;
    assert_eq!(behind, ["1.0.0"]);
    assert_eq!(one("/v1/templates?name=order&after=shop/order@1.0.0").await, (vec![], None));
    for wrong in ["after=shop/order", "after=order@1.0.0", "cursor=x", "after=shop/order@1.0.0&cursor=x"] {
        let refused = world.get(&format!("/v1/templates?{wrong}")).await;
        assert_eq!(refused.code(400), "invalid_parameter", "{wrong}");
    }
}
