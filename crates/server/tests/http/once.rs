use std::time::Duration;

use recache_server::Settings;
use recache_store::conformance::{postgres_database, sqlite_database};
use recache_store::snapshot::sqlx;
use recache_store::{AuditFilter, AuditOutcome};
use serde_json::json;
use tokio::io::AsyncWriteExt as _;
use tokio::net::TcpStream;

use crate::world::World;

#[tokio::test(flavor = "multi_thread")]
async fn submit_repeated_with_its_key_is_one_job() {
    for world in World::both().await {
        let body = r#"{"handler":"none","input":{"a":1}}"#;
        let first = world.post_once("k1", "/v1/jobs", body).await.expect(201);
        let again = world.post_once("k1", "/v1/jobs", body).await.expect(200);
        assert_eq!((&again["id"], &again["existed"]), (&first["id"], &json!(true)));
        assert_eq!(world.post_once("k1", "/v1/jobs", r#"{"handler":"other"}"#).await.code(409), "conflict");
        let differs = r#"{"handler":"none","idempotency_key":"k2"}"#;
        assert_eq!(world.post_once("k1", "/v1/jobs", differs).await.code(422), "invalid");

        let bulk = r#"{"jobs":[{"handler":"a"},{"handler":"a"},{"handler":"a","idempotency_key":"own"}]}"#;
        let first = world.post_once("b1", "/v1/jobs/bulk", bulk).await.expect(200);
        let again = world.post_once("b1", "/v1/jobs/bulk", bulk).await.expect(200);
        for place in 0..3 {
            assert_eq!(first["jobs"][place]["id"], again["jobs"][place]["id"]);
            assert_eq!(again["jobs"][place]["existed"], true);
        }
        world.end().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn write_repeated_with_its_key_is_carried_out_once_and_answered_the_same() {
    for world in World::both().await {
        let job = world.post("/v1/jobs", r#"{"handler":"none"}"#).await.expect(201);
        let path = format!("/v1/jobs/{}/cancel", job["id"].as_str().unwrap());
        let first = world.post_once("c1", &path, r#"{"reason":"x"}"#).await;
        assert_eq!(first.header("idempotency-replayed"), None);
        assert_eq!(first.expect(200)["changed"], true);
        let again = world.post_once("c1", &path, r#"{"reason":"x"}"#).await;
        assert_eq!(again.header("idempotency-replayed"), Some("true"));
        assert_eq!(again.body, first.body, "not `changed: false`, which is the truth of a second cancel");
        let other = world.post_once("c1", &path, r#"{"reason":"y"}"#).await;
        assert_eq!(other.code(422), "key_reused");
        world.end().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn refused_write_is_tried_anew_with_its_key() {
    for world in World::both().await {
        let job = world.post("/v1/jobs", r#"{"handler":"fail","delay_ms":3600000}"#).await.expect(201);
        let id = job["id"].as_str().unwrap().to_owned();
        let retry = format!("/v1/jobs/{id}/retry");
        assert_eq!(world.post_once("r1", &retry, "{}").await.code(409), "conflict");
        world.post(&format!("/v1/jobs/{id}/reschedule"), r#"{"delay_ms":0}"#).await.expect(200);
        let wait = world.send("GET", &format!("/v1/jobs/{id}"), &[("prefer", "wait=20")], "").await;
        assert_eq!(wait.expect(200)["job"]["state"], "failed");
        assert_eq!(world.post_once("r1", &retry, "{}").await.expect(200)["state"], "queued");
        world.end().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn concurrent_repetitions_are_carried_out_once() {
    for world in World::both().await {
        let job = world.post("/v1/jobs", r#"{"handler":"none"}"#).await.expect(201);
        let path = format!("/v1/jobs/{}/cancel", job["id"].as_str().unwrap());
        let all = futures_util::future::join_all((0..16).map(|_| world.post_once("c1", &path, "{}"))).await;
        let mut done = 0;
        for answer in &all {
            match answer.status {
                200 => {
                    assert_eq!(answer.json()["changed"], true, "{answer:?}");
                    done += 1;
                }
                _ => assert_eq!(answer.code(409), "in_progress"),
            }
        }
        assert!(done >= 1);
        let history = world.store.audits();
        let filter = recache_store::AuditFilter { rows_max: 50, ..Default::default() };
        assert_eq!(history.audits_list(filter).await.unwrap().len(), 1);
        world.end().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn key_that_cannot_be_is_refused() {
    let world = World::sqlite().await;
    let job = world.post("/v1/jobs", r#"{"handler":"none"}"#).await.expect(201);
    let path = format!("/v1/jobs/{}/cancel", job["id"].as_str().unwrap());
    for key in ["", &"k".repeat(300), "ä"] {
        for path in ["/v1/jobs", path.as_str()] {
            let answer = world.post_once(key, path, r#"{"handler":"none"}"#).await;
            assert_eq!(answer.code(400), "invalid_parameter", "{key} {path}");
        }
    }
    world.end().await;
}

/// Nothing of the database is written while it is held: of SQLite all of it, of PostgreSQL the jobs.
async fn hold(url: &str) -> Box<dyn std::any::Any> {
    if url.starts_with("postgres") {
        let pool = sqlx::PgPool::connect(url).await.unwrap();
        let mut held = pool.begin().await.unwrap();
        sqlx::query("LOCK TABLE recache.jobs IN SHARE ROW EXCLUSIVE MODE").execute(&mut *held).await.unwrap();
        Box::new(held)
    } else {
        let pool = sqlx::SqlitePool::connect(url).await.unwrap();
        Box::new(pool.begin_with("BEGIN IMMEDIATE").await.unwrap())
    }
}

/// Waits until the server's figures have this line.
async fn figures_have(world: &World, line: &str) {
    let looking = async {
        while !world.app.figures().await.unwrap().lines().any(|one| one == line) {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(10), looking).await.unwrap_or_else(|_| panic!("never `{line}`"));
}

#[tokio::test(flavor = "multi_thread")]
async fn caller_that_hangs_up_leaves_no_row_of_the_audit_that_is_only_begun() {
    for database in [Some(sqlite_database()), postgres_database().await].into_iter().flatten() {
        let url = database.url().to_owned();
        let world = World::over(database, Settings::default()).await;
        let job = world.post("/v1/jobs", r#"{"handler":"none"}"#).await.expect(201);
        let id = job["id"].as_str().unwrap();
        let held = hold(&url).await;
        let mut client = TcpStream::connect(world.address).await.unwrap();
        let request = format!("POST /v1/jobs/{id}/cancel HTTP/1.1\r\nhost: {}\r\n\r\n", world.address);
        client.write_all(request.as_bytes()).await.unwrap();
        figures_have(&world, "recache_http_requests_working 1").await;
        if url.starts_with("postgres") {
            while outcomes(&world).await.is_empty() {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
            assert_eq!(outcomes(&world).await, [AuditOutcome::Begun]);
        }
        drop(client);
        figures_have(&world, "recache_http_connections 0").await;
        drop(held);
        let ending = async {
            while outcomes(&world).await != [AuditOutcome::Done] {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        };
        let ended = tokio::time::timeout(Duration::from_secs(10), ending).await;
        assert!(ended.is_ok(), "{url}: {:?}", outcomes(&world).await);
        let stands = world.get(&format!("/v1/jobs/{id}")).await.expect(200);
        assert_eq!(stands["job"]["state"], "cancelled");
        world.end().await;
    }
}

async fn outcomes(world: &World) -> Vec<AuditOutcome> {
    let filter = AuditFilter { rows_max: 10, ..AuditFilter::default() };
    world.store.audits().audits_list(filter).await.unwrap().into_iter().map(|row| row.outcome).collect()
}
