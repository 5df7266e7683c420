use std::collections::BTreeSet;

use serde_json::Value;

use crate::world::World;

/// Each operation of the description: method, path, itself.
pub(crate) fn operations(api: &Value) -> Vec<(String, String, Value)> {
    let mut operations = Vec::new();
    for (path, item) in api["paths"].as_object().unwrap() {
        for (method, operation) in item.as_object().unwrap() {
            operations.push((method.to_ascii_uppercase(), path.clone(), operation.clone()));
        }
    }
    operations
}

#[tokio::test(flavor = "multi_thread")]
async fn description_is_openapi_3_1_and_every_reference_in_it_leads_somewhere() {
    let world = World::sqlite().await;
    let answer = world.get("/v1/openapi.json").await;
    let api = answer.expect(200);
    assert!(api["openapi"].as_str().unwrap().starts_with("3.1"), "{}", api["openapi"]);
    let mut todo = vec![&api];
    let mut references = 0;
    while let Some(value) = todo.pop() {
        match value {
            Value::Object(object) => {
                if let Some(Value::String(reference)) = object.get("$ref") {
                    references += 1;
                    let pointer = reference.strip_prefix('#').unwrap();
                    assert!(api.pointer(pointer).is_some(), "{reference}");
                }
                todo.extend(object.values());
            }
            Value::Array(array) => todo.extend(array),
            _ => {}
        }
    }
    assert!(references > 20, "{references}");
    let output = &api["components"]["schemas"]["Job"]["properties"]["output"];
    assert!(
        output["anyOf"].is_array() && output.get("oneOf").is_none(),
        "null is a JSON value too: {output}"
    );
    let ids: BTreeSet<_> =
        operations(&api).into_iter().map(|(_, _, one)| one["operationId"].to_string()).collect();
    assert_eq!(ids.len(), operations(&api).len(), "operation ids are unique: {ids:?}");
    world.end().await;
}

#[test]
fn every_route_names_its_permission_but_those_that_are_open_on_purpose() {
    let api = recache_server::api();
    let open: Vec<_> = operations(&api)
        .into_iter()
        .filter(|(_, _, operation)| operation["x-permission"].as_str().is_none())
        .map(|(method, path, operation)| {
            assert_eq!(operation["security"], serde_json::json!([]), "{method} {path}");
            format!("{method} {path}")
        })
        .collect();
    assert_eq!(open, ["GET /health", "GET /health/live", "GET /health/ready", "GET /v1/openapi.json"]);
    assert_eq!(recache_server::open_pages(), ["/docs"]);
}

#[test]
fn every_answer_is_described_by_its_status() {
    let api = recache_server::api();
    let statuses = |wanted: &str| {
        let found =
            operations(&api).into_iter().find(|(method, path, _)| format!("{method} {path}") == wanted);
        let (_, _, operation) = found.unwrap();
        operation["responses"].as_object().unwrap().keys().cloned().collect::<Vec<_>>().join(" ")
    };
    for (method, path, operation) in operations(&api) {
        for (status, response) in operation["responses"].as_object().unwrap() {
            let status: u16 = status.parse().unwrap_or_else(|_| panic!("{method} {path}: answer `{status}`"));
            assert!(!response["description"].as_str().unwrap().is_empty(), "{method} {path}: {status}");
            let is_problem = response["content"].get("application/problem+json").is_some();
            assert_eq!(is_problem, status >= 400, "{method} {path}: {status}");
        }
    }
    assert_eq!(statuses("GET /health/live"), "200 429 500 503 504");
    assert_eq!(statuses("GET /metrics"), "200 401 403 421 429 500 503 504");
    assert_eq!(statuses("GET /v1/jobs/{id}"), "200 400 401 403 404 421 422 429 500 503 504");
    assert_eq!(statuses("GET /v1/workflows/{id}/graph"), "200 400 401 403 404 409 421 422 429 500 503 504");
    assert_eq!(
        statuses("POST /v1/jobs"),
        "200 201 400 401 403 404 408 409 413 415 421 422 429 500 503 504",
        "it may be asked to wait"
    );
    assert_eq!(
        statuses("POST /v1/workers/{session}/call"),
        "200 400 401 403 404 408 409 410 413 415 421 422 429 500 503"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn explorer_works_without_a_look_elsewhere() {
    let world = World::sqlite().await;
    let page = world.get("/docs/").await;
    assert_eq!(page.status, 200, "{page:?}");
    assert!(page.header("content-security-policy").unwrap().contains("script-src 'self'"));
    assert!(!page.body.contains("http://") && !page.body.contains("https://"), "{}", page.body);
    assert!(!page.body.contains("<script>"), "no script in the page itself");
    let script = world.get("/docs/swagger-initializer.js").await;
    assert!(script.body.contains("/v1/openapi.json"), "{}", script.body);
    assert_eq!(world.get("/docs/nothing.js").await.code(404), "not_found");
    world.end().await;
}
