use std::collections::BTreeMap;
use std::time::Duration;

use recache_server::{Auth, Grant, Grants, Settings, make_key};
use recache_store::conformance::{postgres_database, sqlite_database};
use recache_store::{AuditFilter, Word};
use serde_json::Value;

use crate::description::operations;
use crate::world::{Answer, World};

async fn guarded() -> World {
    let auth = Auth { api_keys: true, jwt: None };
    World::guarded(sqlite_database(), Settings::default(), auth).await
}

/// Makes a key with these scopes.
async fn token(world: &World, name: &str, scopes: &[&str], lifetime: Option<Duration>) -> String {
    let grants = Grants::new(scopes.iter().map(|scope| scope.parse::<Grant>().unwrap()).collect());
    let random = |bytes: &mut [u8]| {
        for chunk in bytes.chunks_mut(16) {
            let uuid = uuid::Uuid::new_v4();
            chunk.copy_from_slice(&uuid.as_bytes()[..chunk.len()]);
        }
    };
    let (token, key) = make_key(name, &grants, lifetime, "test", random);
    world.store.api_keys().api_key_put(key).await.unwrap();
    token
}

async fn ask(world: &World, token: Option<&str>, method: &str, path: &str, body: &str) -> Answer {
    let bearer = token.map(|token| format!("Bearer {token}"));
    let mut headers = vec![("content-type", "application/json")];
    headers.extend(bearer.as_deref().map(|bearer| ("authorization", bearer)));
    world.send(method, path, &headers, body).await
}

/// What each operation may be entered with, by hand: this list is the expectation, not what the code says.
fn expected() -> BTreeMap<&'static str, &'static str> {
    [
        ("GET /health", ""),
        ("GET /health/live", ""),
        ("GET /health/ready", ""),
        ("GET /v1/openapi.json", ""),
        ("GET /health/detailed", "health:read"),
        ("GET /metrics", "metrics:read"),
        ("GET /v1/analytics/bottlenecks", "analytics:read"),
        ("GET /v1/analytics/explain/{figure}", "analytics:read"),
        ("GET /v1/analytics/performance", "analytics:read"),
        ("GET /v1/audit", "audit:read"),
        ("GET /v1/batches", "batches:read"),
        ("POST /v1/batches", "batches:write"),
        ("GET /v1/batches/{id}", "batches:read"),
        ("POST /v1/batches/{id}/cancel", "batches:operate"),
        ("POST /v1/batches/{id}/close", "batches:write"),
        ("GET /v1/batches/{id}/members", "batches:read"),
        ("POST /v1/batches/{id}/retry", "batches:operate"),
        ("GET /v1/dead-letters", "dead_letters:read"),
        ("POST /v1/dead-letters/redrive", "dead_letters:operate"),
        ("GET /v1/dead-letters/{id}", "dead_letters:read"),
        ("POST /v1/dead-letters/{id}/discard", "dead_letters:operate"),
        ("POST /v1/dead-letters/{id}/investigate", "dead_letters:operate"),
        ("POST /v1/dead-letters/{id}/notes", "dead_letters:operate"),
        ("POST /v1/dead-letters/{id}/redrive", "dead_letters:operate"),
        ("POST /v1/dead-letters/{id}/resolve", "dead_letters:operate"),
        ("GET /v1/limits", "queues:read"),
        ("PUT /v1/limits", "queues:operate"),
        ("GET /v1/queues", "queues:read"),
        ("GET /v1/queues/{queue}", "queues:read"),
        ("POST /v1/queues/{queue}/drain", "queues:operate"),
        ("POST /v1/queues/{queue}/pause", "queues:operate"),
        ("POST /v1/queues/{queue}/resume", "queues:operate"),
        ("GET /v1/schedules", "schedules:read"),
        ("DELETE /v1/schedules/{namespace}/{schedule}", "schedules:operate"),
        ("GET /v1/schedules/{namespace}/{schedule}", "schedules:read"),
        ("PUT /v1/schedules/{namespace}/{schedule}", "schedules:write"),
        ("POST /v1/schedules/{namespace}/{schedule}/pause", "schedules:operate"),
        ("POST /v1/schedules/{namespace}/{schedule}/resume", "schedules:operate"),
        ("POST /v1/schedules/{namespace}/{schedule}/run", "schedules:operate"),
        ("GET /v1/schedules/{namespace}/{schedule}/ticks", "schedules:read"),
        ("GET /v1/ticks", "schedules:read"),
        ("GET /v1/tracked-jobs", "tracked_jobs:read"),
        ("POST /v1/tracked-jobs", "tracked_jobs:write"),
        ("POST /v1/tracked-jobs/bulk", "tracked_jobs:write"),
        ("GET /v1/tracked-jobs/{id}", "tracked_jobs:read"),
        ("POST /v1/tracked-jobs/{id}/acknowledge", "tracked_jobs:write"),
        ("POST /v1/tracked-jobs/{id}/heartbeat", "tracked_jobs:write"),
        ("POST /v1/tracked-jobs/{id}/report", "tracked_jobs:write"),
        ("GET /v1/cache", "cache:read"),
        ("GET /v1/cache/explain", "cache:read"),
        ("GET /v1/cache/health", "cache:read"),
        ("GET /v1/cache/inspect", "cache:read"),
        ("POST /v1/cache/invalidate", "cache:operate"),
        ("GET /v1/cache/stats", "cache:read"),
        ("GET /v1/cache/ttl", "cache:read"),
        ("GET /v1/deliveries", "subscribers:read"),
        ("GET /v1/events", "events:read"),
        ("GET /v1/events/kept", "events:read"),
        ("GET /v1/events/kept/{id}", "events:read"),
        ("GET /v1/handlers", "handlers:read"),
        ("GET /v1/handlers/graph", "handlers:read"),
        ("GET /v1/handlers/{namespace}/{name}", "handlers:read"),
        ("GET /v1/jobs", "jobs:read"),
        ("POST /v1/jobs", "jobs:write"),
        ("POST /v1/jobs/bulk", "jobs:write"),
        ("POST /v1/jobs/cancel", "jobs:operate"),
        ("POST /v1/jobs/delete", "jobs:operate"),
        ("POST /v1/jobs/retry", "jobs:operate"),
        ("GET /v1/jobs/{id}", "jobs:read"),
        ("POST /v1/jobs/{id}/cancel", "jobs:operate"),
        ("POST /v1/jobs/{id}/priority", "jobs:operate"),
        ("POST /v1/jobs/{id}/reschedule", "jobs:operate"),
        ("POST /v1/jobs/{id}/retry", "jobs:operate"),
        ("GET /v1/subscribers", "subscribers:read"),
        ("DELETE /v1/subscribers/{name}", "subscribers:operate"),
        ("GET /v1/subscribers/{name}", "subscribers:read"),
        ("GET /v1/templates", "templates:read"),
        ("PUT /v1/templates", "templates:write"),
        ("POST /v1/templates/analysis", "templates:read"),
        ("POST /v1/templates/check", "templates:read"),
        ("GET /v1/templates/{namespace}/{name}", "templates:read"),
        ("GET /v1/templates/{namespace}/{name}/analysis", "templates:read"),
        ("GET /v1/templates/{namespace}/{name}/diff", "templates:read"),
        ("GET /v1/templates/{namespace}/{name}/graph", "templates:read"),
        ("GET /v1/templates/{namespace}/{name}/versions", "templates:read"),
        ("POST /v1/touches", "views:write"),
        ("GET /v1/view-patterns", "views:read"),
        ("DELETE /v1/view-patterns/{namespace}/{pattern}", "views:operate"),
        ("PUT /v1/view-patterns/{namespace}/{pattern}", "views:write"),
        ("POST /v1/view-patterns/{namespace}/{pattern}/touch", "views:write"),
        ("GET /v1/views", "views:read"),
        ("DELETE /v1/views/{namespace}/{key}", "views:operate"),
        ("GET /v1/views/{namespace}/{key}", "views:read"),
        ("PUT /v1/views/{namespace}/{key}", "views:write"),
        ("GET /v1/views/{namespace}/{key}/diff", "views:read"),
        ("GET /v1/views/{namespace}/{key}/explain", "views:read"),
        ("GET /v1/views/{namespace}/{key}/history", "views:read"),
        ("GET /v1/views/{namespace}/{key}/items", "views:read"),
        ("GET /v1/views/{namespace}/{key}/items/{item}", "views:read"),
        ("POST /v1/views/{namespace}/{key}/pause", "views:operate"),
        ("POST /v1/views/{namespace}/{key}/read", "views:read"),
        ("POST /v1/views/{namespace}/{key}/rebuild", "views:write"),
        ("POST /v1/views/{namespace}/{key}/resume", "views:operate"),
        ("POST /v1/views/{namespace}/{key}/rollback", "views:operate"),
        ("PUT /v1/views/{namespace}/{key}/sources", "views:write"),
        ("POST /v1/views/{namespace}/{key}/touch", "views:write"),
        ("GET /v1/webhooks", "webhooks:read"),
        ("POST /v1/webhooks", "webhooks:operate"),
        ("DELETE /v1/webhooks/{name}", "webhooks:operate"),
        ("GET /v1/webhooks/{name}", "webhooks:read"),
        ("GET /v1/webhooks/{name}/deliveries", "webhooks:read"),
        ("POST /v1/webhooks/{name}/pause", "webhooks:operate"),
        ("POST /v1/webhooks/{name}/redeliver", "webhooks:operate"),
        ("POST /v1/webhooks/{name}/resume", "webhooks:operate"),
        ("POST /v1/webhooks/{name}/rotate", "webhooks:operate"),
        ("GET /v1/workers", "workers:read"),
        ("POST /v1/workers", "workers:run"),
        ("DELETE /v1/workers/{session}", "workers:run"),
        ("GET /v1/workers/{session}", "workers:read"),
        ("POST /v1/workers/{session}/build", "workers:run"),
        ("POST /v1/workers/{session}/call", "workers:run"),
        ("POST /v1/workers/{session}/items", "workers:run"),
        ("POST /v1/workers/{session}/keep", "workers:run"),
        ("POST /v1/workers/{session}/part", "workers:run"),
        ("POST /v1/workers/{session}/previous", "workers:run"),
        ("GET /v1/workflows", "workflows:read"),
        ("POST /v1/workflows", "workflows:write"),
        ("GET /v1/workflows/{id}", "workflows:read"),
        ("POST /v1/workflows/{id}/approvals", "workflows:operate"),
        ("POST /v1/workflows/{id}/cancel", "workflows:operate"),
        ("GET /v1/workflows/{id}/graph", "workflows:read"),
        ("POST /v1/workflows/{id}/retry", "workflows:operate"),
        ("POST /v1/workflows/{id}/signals", "workflows:write"),
        ("GET /v1/workflows/{id}/steps", "workflows:read"),
        ("POST /v1/workflows/{id}/steps/{step}/complete", "workflows:operate"),
        ("POST /v1/workflows/{id}/steps/{step}/resolve", "workflows:operate"),
        ("GET /v1/workflows/{id}/timeline", "workflows:read"),
    ]
    .into()
}

const TEMPLATE: &str =
    "namespace: a\nname: order\nversion: 1.0.0\nsteps:\n  - name: fetch\n    handler: {callable: none}\n";

const HOOK: &str = r#"{"name":"order","namespace":"a","url":"https://example.com/","types":["*"]}"#;

/// Things of namespace `a`.
struct Things {
    job: String,
    workflow: String,
    batch: String,
    letter: String,
    tracked: String,
    event: String,
}

/// Makes them, as somebody who may do everything.
async fn things(world: &World, admin: &str) -> Things {
    let stored = world
        .send(
            "PUT",
            "/v1/templates",
            &[("content-type", "application/yaml"), ("authorization", &format!("Bearer {admin}"))],
            TEMPLATE,
        )
        .await;
    stored.expect(201);
    let job = ask(world, Some(admin), "POST", "/v1/jobs", r#"{"handler":"none","namespace":"a"}"#).await;
    let job = job.expect(201)["id"].as_str().unwrap().to_owned();
    let workflow =
        ask(world, Some(admin), "POST", "/v1/workflows", r#"{"template":"order","namespace":"a"}"#).await;
    let workflow = workflow.expect(201)["id"].as_str().unwrap().to_owned();
    let id = async |path: &str, body: &str, pointer: &str| {
        let made = ask(world, Some(admin), "POST", path, body).await.expect(201);
        made.pointer(pointer).unwrap().as_str().unwrap().to_owned()
    };
    let batch = id("/v1/batches", r#"{"action":"x","namespace":"a"}"#, "/batch/id").await;
    let tracked = id("/v1/tracked-jobs", r#"{"action":"x","namespace":"a"}"#, "/job/id").await;
    let letter = id("/v1/jobs", r#"{"handler":"fail","namespace":"a"}"#, "/id").await;
    let waiting = format!("Bearer {admin}");
    let waiting = [("authorization", waiting.as_str()), ("prefer", "wait=20")];
    let failed = world.send("GET", &format!("/v1/jobs/{letter}"), &waiting, "").await.expect(200);
    assert_eq!(failed["job"]["state"], "failed");
    for name in ["report", "gone"] {
        let schedule = r#"{"cron":"0 0 1 1 *","handler":"none"}"#;
        ask(world, Some(admin), "PUT", &format!("/v1/schedules/a/{name}"), schedule).await.expect(200);
    }
    for key in ["prices", "base", "gone"] {
        let defined = r#"{"handler":"counting","debounce_quiet_ms":0}"#;
        ask(world, Some(admin), "PUT", &format!("/v1/views/a/{key}"), defined).await.expect(200);
    }
    ask(world, Some(admin), "POST", "/v1/views/a/prices/touch", "{}").await.expect(200);
    let bearer = format!("Bearer {admin}");
    let live = [("authorization", bearer.as_str()), ("prefer", "wait=20")];
    world.send("GET", "/v1/views/a/prices/items/version?min_version=1", &live, "").await.expect(200);

    ask(world, Some(admin), "POST", "/v1/webhooks", HOOK).await.expect(201);
    let events = "/v1/events?namespace=a&types=job.cancelled&seconds=0";
    assert_eq!(ask(world, Some(admin), "GET", events, "").await.status, 200);
    let other = ask(world, Some(admin), "POST", "/v1/jobs", r#"{"handler":"none","namespace":"a"}"#).await;
    let other = other.expect(201)["id"].as_str().unwrap().to_owned();
    ask(world, Some(admin), "POST", &format!("/v1/jobs/{other}/cancel"), "{}").await.expect(200);
    let kept = ask(world, Some(admin), "GET", "/v1/events/kept?type=job.cancelled", "").await.expect(200);
    let event = kept["events"][0]["id"].as_str().unwrap().to_owned();
    Things { job, workflow, batch, letter, tracked, event }
}

/// Every operation of the description with a body that is right, on things of namespace `a`.
fn requests(things: &Things) -> Vec<(String, String, String, String)> {
    let api = recache_server::api();
    operations(&api)
        .into_iter()
        .map(|(method, route, _)| {
            let id = match route.split('/').nth(2) {
                Some("workflows") => &things.workflow,
                Some("batches") => &things.batch,
                Some("dead-letters") => &things.letter,
                Some("events") => &things.event,
                Some("tracked-jobs") => &things.tracked,
                _ => &things.job,
            };
            let mut path = route.replace("{id}", id).replace("{step}", "fetch");
            // What is deleted is nothing that others look at.
            path = path.replace("{queue}", "q");
            path = path.replace("{schedule}", if method == "DELETE" { "gone" } else { "report" });
            let name = if method == "DELETE" { "gone" } else { "order" };
            path = path.replace("{namespace}", "a").replace("{name}", name).replace("{item}", "version");
            path = path.replace("{session}", "ses_01890000-0000-7000-8000-000000000000");
            path = path.replace("{key}", if method == "DELETE" { "gone" } else { "prices" });
            path = path.replace("{pattern}", if method == "DELETE" { "gone*" } else { "p*" });
            match route.as_str() {
                "/v1/templates/{namespace}/{name}/diff" => path.push_str("?from=1.0.0"),
                "/v1/views/{namespace}/{key}/diff" => path.push_str("?from=1&to=1"),
                "/v1/ticks" => path.push_str("?cron=0%200%201%201%20*"),
                "/v1/cache/explain" | "/v1/cache/inspect" => path.push_str("?key=recache:x:y"),
                "/v1/analytics/explain/{figure}" => {
                    "/v1/analytics/explain/completion_rate?namespace=a".clone_into(&mut path);
                }
                "/v1/events" => path.push_str("?namespace=a&seconds=0"),
                // The template's step is done by it.
                "/v1/handlers/{namespace}/{name}" => "/v1/handlers/a/none".clone_into(&mut path),
                "/v1/analytics/performance"
                | "/v1/analytics/bottlenecks"
                | "/v1/events/kept"
                | "/v1/handlers"
                | "/v1/handlers/graph"
                | "/v1/jobs"
                | "/v1/workflows"
                | "/v1/deliveries"
                | "/v1/subscribers"
                | "/v1/webhooks"
                | "/v1/templates"
                | "/v1/audit"
                | "/v1/view-patterns"
                | "/v1/views"
                | "/v1/batches"
                | "/v1/dead-letters"
                | "/v1/schedules"
                | "/v1/tracked-jobs"
                    if method == "GET" =>
                {
                    path.push_str("?namespace=a");
                }
                _ => {}
            }
            let body = match (method.as_str(), route.as_str()) {
                ("GET" | "DELETE", _) => String::new(),
                ("POST", "/v1/workers") => {
                    r#"{"name":"w","handlers":[{"name":"none"}],"namespaces":["a"]}"#.to_owned()
                }
                (_, "/v1/touches") => r#"{"views":[{"namespace":"a","key":"prices"}]}"#.to_owned(),
                ("PUT", "/v1/views/{namespace}/{key}" | "/v1/view-patterns/{namespace}/{pattern}") => {
                    r#"{"handler":"counting"}"#.to_owned()
                }
                (_, "/v1/views/{namespace}/{key}/sources") => r#"{"from":["a/base"]}"#.to_owned(),
                (_, "/v1/views/{namespace}/{key}/read") => r#"{"items":["version"]}"#.to_owned(),
                (_, "/v1/views/{namespace}/{key}/rollback") => r#"{"to_version":1}"#.to_owned(),
                (_, "/v1/limits") => r#"{"scope":"queue","name":"q","running_max":5}"#.to_owned(),
                (_, "/v1/queues/{queue}/pause" | "/v1/queues/{queue}/drain") => {
                    r#"{"reason":"x"}"#.to_owned()
                }
                (_, "/v1/dead-letters/redrive") => r#"{"namespace":"a","reason":"x"}"#.to_owned(),
                (_, "/v1/dead-letters/{id}/notes") => r#"{"text":"x"}"#.to_owned(),
                (_, route) if route.starts_with("/v1/dead-letters/") => r#"{"reason":"x"}"#.to_owned(),
                (_, "/v1/batches" | "/v1/tracked-jobs") => r#"{"action":"x","namespace":"a"}"#.to_owned(),
                (_, "/v1/batches/{id}/close") => String::new(),
                ("PUT", "/v1/schedules/{namespace}/{schedule}") => {
                    r#"{"cron":"0 0 1 1 *","handler":"none"}"#.to_owned()
                }
                ("POST", "/v1/jobs") => r#"{"handler":"none","namespace":"a"}"#.to_owned(),
                // Others look at the jobs that are there.
                (_, "/v1/jobs/cancel" | "/v1/jobs/retry" | "/v1/jobs/delete") => {
                    r#"{"namespace":"a","dry_run":true}"#.to_owned()
                }
                (_, "/v1/tracked-jobs/bulk") => {
                    r#"{"jobs":[{"job":{"action":"x","namespace":"a","id":"job_0190c7a2-7b5e-7000-8000-00000000000f"}}]}"#
                        .to_owned()
                }
                (_, "/v1/jobs/bulk") => r#"{"jobs":[{"handler":"none","namespace":"a"}]}"#.to_owned(),
                (_, "/v1/cache/invalidate") => r#"{"tag":"x"}"#.to_owned(),
                ("POST", "/v1/webhooks") => HOOK.to_owned(),
                (_, "/v1/webhooks/{name}/redeliver") => r#"{"dead":true}"#.to_owned(),
                (_, "/v1/jobs/{id}/priority") => r#"{"priority":1}"#.to_owned(),
                (_, "/v1/jobs/{id}/reschedule") => r#"{"delay_ms":1}"#.to_owned(),
                ("POST", "/v1/workflows") => r#"{"template":"order","namespace":"a"}"#.to_owned(),
                (_, "/v1/workflows/{id}/approvals" | "/v1/workflows/{id}/signals") => {
                    r#"{"name":"x"}"#.to_owned()
                }
                (_, "/v1/templates" | "/v1/templates/analysis" | "/v1/templates/check") => {
                    serde_json::json!({ "namespace": "a", "name": "order", "version": "1.0.0",
                        "steps": [{ "name": "fetch", "handler": { "callable": "none" } }] })
                    .to_string()
                }
                _ => "{}".to_owned(),
            };
            (method, route, path, body)
        })
        .collect()
}

/// Roles on namespaces, and what each may enter: on things of namespace `a`, and what belongs to no namespace.
#[tokio::test(flavor = "multi_thread")]
async fn every_route_answers_each_role_on_each_namespace_as_the_table_says() {
    let world = guarded().await;
    let expected = expected();
    let scopes: &[(&str, &[&str])] = &[
        ("nothing", &["nothing:read"]),
        ("viewer", &["*:read"]),
        ("writer", &["*:write"]),
        ("operator", &["*:read", "*:write", "*:operate"]),
        ("admin", &["*:*"]),
        ("admin_a", &["*:*@a"]),
        ("viewer_a", &["*:read@a"]),
        ("admin_b", &["*:*@b"]),
        ("jobs_reader", &["jobs:read"]),
        ("jobs_operator_a", &["jobs:operate@a"]),
    ];
    let mut tokens = BTreeMap::new();
    for (name, scopes) in scopes {
        tokens.insert(*name, token(&world, name, scopes, None).await);
    }
    let admin = tokens["admin"].clone();
    let things = things(&world, &admin).await;
    let mut wrong = Vec::new();
    let mut asked = 0;
    for (method, route, path, body) in requests(&things) {
        let name = format!("{method} {route}");
        let needed = *expected.get(name.as_str()).unwrap_or_else(|| panic!("{name} is not in the table"));
        let may = |role: &str| -> bool {
            let (resource, action) = needed.split_once(':').unwrap();
            let is_global = matches!(resource, "metrics" | "health" | "queues" | "cache");
            match role {
                "viewer" => action == "read",
                "writer" => action == "write",
                "operator" => action != "run",
                "admin" => true,
                "admin_a" => !is_global,
                "viewer_a" => !is_global && action == "read",
                "jobs_reader" => needed == "jobs:read",
                "jobs_operator_a" => needed == "jobs:operate",
                // What is checked and thrown away belongs to nobody; a list holds what is his; a session that does not exist
                // is nobody's.
                "admin_b" => {
                    matches!(name.as_str(), "POST /v1/templates/check" | "GET /v1/workers" | "GET /v1/ticks")
                        || route.contains("{session}")
                }
                _ => false,
            }
        };
        let bad = format!("{}x", &admin[..admin.len() - 1]);
        let unknown = format!("rck_0000000000000000_{}", &admin[admin.len() - 43..]);
        for (who, token) in
            [("none", None), ("wrong", Some(bad.as_str())), ("unknown", Some(unknown.as_str()))]
        {
            asked += 1;
            let answer = ask(&world, token, &method, &path, &body).await;
            let is_right = if needed.is_empty() { answer.status < 300 } else { answer.status == 401 };
            if !is_right {
                wrong.push(format!("{name} as {who}: {}", answer.status));
            }
        }
        for (role, token) in &tokens {
            asked += 1;
            let answer = ask(&world, Some(token), &method, &path, &body).await;
            let allowed = needed.is_empty() || may(role);
            // Nothing is cached under the key that is asked for.
            let is_gone = (method == "DELETE" || route == "/v1/cache/inspect") && answer.status == 404;
            // There is no such session: whoever may run workers is told what else is wrong.
            let is_heard = route.contains("{session}") && matches!(answer.status, 400..=422);
            let is_good = answer.status < 300 || answer.status == 409 || is_gone || is_heard;
            let is_good = is_good && !matches!(answer.status, 401 | 403);
            let is_right = if allowed { is_good } else { matches!(answer.status, 403 | 404) };
            if !is_right {
                wrong.push(format!("{name} as {role}: {} {}", answer.status, answer.body));
            }
            if *role == "admin_b" && route.contains("{id}") && answer.status != 404 {
                wrong.push(format!("{name}: a foreign id must not exist, but {}", answer.status));
            }
        }
    }
    assert!(wrong.is_empty(), "{} of {asked}:\n{}", wrong.len(), wrong.join("\n"));
    assert_eq!(expected.len(), requests(&things).len());
    world.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn foreign_id_is_answered_like_one_that_does_not_exist() {
    let world = guarded().await;
    let (a, b) = (token(&world, "a", &["*:*@a"], None).await, token(&world, "b", &["*:*@b"], None).await);
    let job = ask(&world, Some(&a), "POST", "/v1/jobs", r#"{"handler":"none","namespace":"a"}"#).await;
    let id = job.expect(201)["id"].as_str().unwrap().to_owned();
    let foreign = ask(&world, Some(&b), "GET", &format!("/v1/jobs/{id}"), "").await;
    let unknown = "job_01890000-0000-7000-8000-000000000000";
    let missing = ask(&world, Some(&b), "GET", &format!("/v1/jobs/{unknown}"), "").await;
    let (foreign, missing) = (foreign.expect(404), missing.expect(404));
    assert_eq!(
        foreign["detail"].as_str().unwrap().replace(&id, "ID"),
        missing["detail"].as_str().unwrap().replace(unknown, "ID")
    );
    assert_eq!(
        ask(&world, Some(&a), "GET", "/v1/jobs", "").await.expect(200)["jobs"].as_array().unwrap().len(),
        1
    );
    assert_eq!(ask(&world, Some(&b), "GET", "/v1/jobs", "").await.expect(200)["jobs"], serde_json::json!([]));
    assert_eq!(ask(&world, Some(&b), "GET", "/v1/jobs?namespace=a", "").await.code(403), "forbidden");
    let both = token(&world, "both", &["*:*@a", "*:*@b"], None).await;
    assert_eq!(ask(&world, Some(&both), "GET", "/v1/jobs", "").await.code(400), "invalid_parameter");
    world.end().await;
}

/// Of each operation that takes the key, what cannot be repeated with these things: there is nothing that it could be done to.
const NOTHING_TO_DO: [&str; 9] = [
    // Nothing of it has failed.
    "POST /v1/batches/{id}/retry",
    "POST /v1/jobs/{id}/retry",
    "POST /v1/workflows/{id}/steps/{step}/resolve",
    // Of these only the first finds the letter open.
    "POST /v1/dead-letters/{id}/discard",
    "POST /v1/dead-letters/{id}/redrive",
    "POST /v1/dead-letters/{id}/resolve",
    // What has the name is a webhook.
    "DELETE /v1/subscribers/{name}",
    "POST /v1/webhooks",
    "POST /v1/webhooks/{name}/redeliver",
];
/// Their answers hold what is shown only once: repeated, they are carried out again.
const SHOWN_ONCE: [&str; 2] = ["POST /v1/webhooks", "POST /v1/webhooks/{name}/rotate"];
/// They keep the key with the job, and say so in the document.
const BY_THE_JOB: [&str; 2] = ["POST /v1/jobs", "POST /v1/jobs/bulk"];

#[tokio::test(flavor = "multi_thread")]
async fn every_operation_that_takes_the_key_is_carried_out_once_and_refuses_what_is_no_repetition() {
    let world = guarded().await;
    let admin = token(&world, "admin", &["*:*"], None).await;
    let things = things(&world, &admin).await;
    let bearer = format!("Bearer {admin}");
    let ask = async |key: &str, method: &str, path: &str, body: &str| {
        let headers = [
            ("content-type", "application/json"),
            ("authorization", bearer.as_str()),
            ("idempotency-key", key),
        ];
        world.send(method, path, &headers, body).await
    };
    let gone = HOOK.replace("order", "gone");
    ask("hook", "POST", "/v1/webhooks", &gone).await.expect(201);
    ask("pattern", "PUT", "/v1/view-patterns/a/gone*", r#"{"handler":"counting"}"#).await.expect(200);
    let api = recache_server::api();
    let takes_key = |method: &str, route: &str| {
        let parameters = &api["paths"][route][method.to_lowercase()]["parameters"];
        parameters.as_array().is_some_and(|all| all.iter().any(|one| one["name"] == "Idempotency-Key"))
    };
    let report = format!("/v1/tracked-jobs/{}/report", things.tracked);
    ask("report", "POST", &report, r#"{"state":"completed"}"#).await.expect(200);
    let (mut wrong, mut asked) = (Vec::new(), 0);
    let mut requests = requests(&things);
    // What ends things comes last.
    let ends =
        |route: &str| ["cancel", "discard", "redrive", "resolve"].iter().any(|end| route.ends_with(end));
    requests.sort_by_key(|(_, route, _, _)| ends(route));
    for (place, (method, route, path, body)) in requests.into_iter().enumerate() {
        let name = format!("{method} {route}");
        if !takes_key(&method, &route) {
            let is_call_of_worker = route.starts_with("/v1/workers");
            let changes_nothing = expected()[name.as_str()].ends_with(":read") || method == "GET";
            assert!(changes_nothing || is_call_of_worker, "{name} takes no key");
            continue;
        }
        asked += 1;
        for malformed in ["", &"k".repeat(300), "ä"] {
            let answer = ask(malformed, &method, &path, &body).await;
            if (answer.status, answer.body.contains("Idempotency-Key")) != (400, true) {
                wrong.push(format!("{name} with the key `{malformed}`: {} {}", answer.status, answer.body));
            }
        }
        let key = format!("walk-{place}");
        let first = ask(&key, &method, &path, &body).await;
        if first.status >= 300 {
            if !NOTHING_TO_DO.contains(&name.as_str()) {
                wrong.push(format!("{name}: {} {}", first.status, first.body));
            }
            continue;
        }
        if first.header("idempotency-replayed").is_some() {
            wrong.push(format!("{name} repeats what was not there"));
        }
        if SHOWN_ONCE.contains(&name.as_str()) {
            continue;
        }
        let again = ask(&key, &method, &path, &body).await;
        let is_by_the_job = BY_THE_JOB.contains(&name.as_str());
        let is_repeated = if is_by_the_job {
            again.status == 200 && again.body.contains(r#""existed":true"#)
        } else {
            again.header("idempotency-replayed") == Some("true")
                && (again.status, &again.body) == (first.status, &first.body)
        };
        if !is_repeated {
            wrong.push(format!("{name} again: {again:?}, not {first:?}"));
        }
        let other = if is_by_the_job { body.replace("none", "other") } else { format!("{body} ") };
        let other = ask(&key, &method, &path, &other).await;
        let code = if is_by_the_job { "conflict" } else { "key_reused" };
        if !matches!(other.status, 409 | 422) || other.json()["code"] != code {
            wrong.push(format!("{name} with another body: {} {}", other.status, other.body));
        }
    }
    assert!(wrong.is_empty(), "{} of {asked}:\n{}", wrong.len(), wrong.join("\n"));
    assert_eq!(asked, 61);
    world.end().await;
}

/// What is said of an id of another namespace, and of one that does not exist: the same, and nothing was changed.
#[tokio::test(flavor = "multi_thread")]
async fn batch_of_another_namespace_takes_no_members_and_is_not_there() {
    let world = guarded().await;
    let (a, b) = (token(&world, "a", &["*:*@a"], None).await, token(&world, "b", &["*:*@b"], None).await);
    let template = TEMPLATE.replace("namespace: a", "namespace: b");
    let bearer = format!("Bearer {b}");
    let headers = [("content-type", "application/yaml"), ("authorization", bearer.as_str())];
    world.send("PUT", "/v1/templates", &headers, &template).await.expect(201);
    let batch = ask(&world, Some(&a), "POST", "/v1/batches", r#"{"action":"x","namespace":"a"}"#).await;
    let batch = batch.expect(201)["batch"]["id"].as_str().unwrap().to_owned();
    let unknown = "batch_01890000-0000-7000-8000-000000000000";
    for (path, body) in [
        ("/v1/jobs", r#"{"handler":"none","namespace":"b","batch_id":"ID"}"#),
        ("/v1/jobs/bulk", r#"{"jobs":[{"handler":"none","namespace":"b","batch_id":"ID"}]}"#),
        ("/v1/tracked-jobs", r#"{"action":"x","namespace":"b","batch_id":"ID"}"#),
        ("/v1/batches", r#"{"action":"x","namespace":"b","parent_id":"ID"}"#),
        ("/v1/workflows", r#"{"template":"order","namespace":"b","batch_id":"ID"}"#),
    ] {
        let foreign = ask(&world, Some(&b), "POST", path, &body.replace("ID", &batch)).await;
        let missing = ask(&world, Some(&b), "POST", path, &body.replace("ID", unknown)).await;
        let said =
            |answer: &Answer, id: &str| answer.expect(404)["detail"].as_str().unwrap().replace(id, "ID");
        assert_eq!(said(&foreign, &batch), said(&missing, unknown), "{path}");
    }
    let standing = ask(&world, Some(&a), "GET", &format!("/v1/batches/{batch}"), "").await;
    assert_eq!(standing.expect(200)["batch"]["counts"]["total"], 0);
    let listed = ask(&world, Some(&b), "GET", "/v1/jobs", "").await.expect(200);
    assert_eq!(listed["jobs"], serde_json::json!([]));
    world.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn key_ends_with_its_lifetime_and_within_five_seconds_of_its_revocation() {
    let world = guarded().await;
    let short = token(&world, "short", &["jobs:read"], Some(Duration::from_secs(1))).await;
    let long = token(&world, "long", &["jobs:read"], None).await;
    let status = async |token: &str| ask(&world, Some(token), "GET", "/v1/jobs", "").await.status;
    assert_eq!((status(&short).await, status(&long).await), (200, 200));
    world.store.api_keys().api_key_revoke("long", Word::new("test", "leaked")).await.unwrap();
    let revoked = tokio::time::Instant::now();
    for token in [&long, &short] {
        while status(token).await != 401 {
            assert!(revoked.elapsed() < Duration::from_secs(5), "it is still good");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }
    let used = world.store.api_keys().api_key_get(long.split('_').nth(1).unwrap()).await.unwrap();
    assert!(used.last_used_at.is_some(), "its use was noted");
    world.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_guesses_tokens_does_not_keep_those_out_who_have_one() {
    let world = guarded().await;
    let mut goods = Vec::new();
    for number in 0..20 {
        goods.push(token(&world, &format!("good-{number}"), &["jobs:read"], None).await);
    }
    let secret = &goods[0][goods[0].len() - 43..];
    let mut tokens: Vec<_> = (0..900).map(|number| format!("rck_{number:016x}_{secret}")).collect();
    // In the middle of the flood; none of them was known before.
    tokens.splice(600..600, goods.iter().cloned());
    let statuses = futures_util::future::join_all(
        tokens.iter().map(async |token| ask(&world, Some(token), "GET", "/v1/jobs", "").await.status),
    )
    .await;
    let (mut of_good, mut of_guesses) = (Vec::new(), Vec::new());
    for (token, status) in tokens.iter().zip(statuses) {
        if goods.contains(token) { of_good.push(status) } else { of_guesses.push(status) }
    }
    assert!(of_guesses.iter().all(|status| matches!(status, 401 | 429)), "{of_guesses:?}");
    assert!(of_guesses.contains(&429), "the store is not asked for each of them");
    assert_eq!(of_good, [200; 20], "{of_guesses:?}");
    world.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn credentials_of_other_forms_are_refused() {
    let world = guarded().await;
    let good = token(&world, "good", &["jobs:read"], None).await;
    let bearer = format!("Bearer {good}");
    let cases: Vec<Vec<(&str, &str)>> = vec![
        vec![("authorization", &good)],
        vec![("authorization", "Basic YTpi")],
        vec![("authorization", "Bearer ")],
        vec![("authorization", &bearer), ("authorization", &bearer)],
        vec![("authorization", "Bearer a.b.c")],
    ];
    for headers in cases {
        let answer = world.send("GET", "/v1/jobs", &headers, "").await;
        assert_eq!(answer.code(401), "unauthenticated", "{headers:?}");
        assert_eq!(answer.header("www-authenticate"), Some("Bearer"));
        assert!(!answer.body.contains(&good));
    }
    let lower =
        world.send("GET", "/v1/jobs", &[("authorization", &bearer.replace("Bearer", "bearer"))], "").await;
    assert_eq!(lower.status, 200);
    world.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn audit_says_who_did_what_and_why() {
    for database in [Some(sqlite_database()), postgres_database().await].into_iter().flatten() {
        let world = World::guarded(database, Settings::default(), Auth { api_keys: true, jwt: None }).await;
        let ops = token(&world, "ops", &["*:*"], None).await;
        let job = ask(&world, Some(&ops), "POST", "/v1/jobs", r#"{"handler":"none","namespace":"a"}"#).await;
        let id = job.expect(201)["id"].as_str().unwrap().to_owned();
        let path = format!("/v1/jobs/{id}/cancel");
        ask(&world, Some(&ops), "POST", &path, r#"{"reason":"wrong customer"}"#).await.expect(200);
        ask(&world, Some(&ops), "POST", &format!("/v1/jobs/{id}/retry"), "{}").await.expect(409);
        let audit = ask(&world, Some(&ops), "GET", "/v1/audit?limit=1", "").await.expect(200);
        assert_eq!(audit["rows"][0]["action"], "jobs.retry");
        assert_eq!(
            (&audit["rows"][0]["outcome"], &audit["rows"][0]["after"]),
            (&"refused".into(), &"conflict".into())
        );
        let next = format!("/v1/audit?limit=1&cursor={}", audit["next"].as_str().unwrap());
        let row = ask(&world, Some(&ops), "GET", &next, "").await.expect(200)["rows"][0].clone();
        let expected: Value = serde_json::json!({
            "actor": "key:ops", "action": "jobs.cancel", "namespace": "a", "target": id, "reason": "wrong customer",
            "outcome": "done", "before": { "state": "queued" }, "after": { "state": "cancelled" },
        });
        for (name, value) in expected.as_object().unwrap() {
            assert_eq!(&row[name], value, "{row}");
        }
        assert!(row["request_id"].is_string());
        let filter = AuditFilter { rows_max: 10, ..AuditFilter::default() };
        assert_eq!(world.store.audits().audits_list(filter).await.unwrap().len(), 2);
        world.end().await;
    }
}
