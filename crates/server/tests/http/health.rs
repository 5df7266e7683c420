use recache_server::{Error, bind};
use serde_json::json;

use crate::world::World;

#[tokio::test(flavor = "multi_thread")]
async fn ready_follows_the_store_and_live_does_not() {
    let world = World::sqlite().await;
    assert_eq!(world.get("/health/live").await.status, 200);
    let ready = world.get("/health/ready").await.expect(200);
    assert_eq!((&ready["status"], &ready["store"]), (&json!("ready"), &json!("sqlite")));
    let details = world.get("/health/detailed").await.expect(200);
    assert_eq!(details["database"]["kind"], "sqlite");
    assert_eq!(details["cache"]["condition"], "active");
    let database = &details["database"];
    assert_eq!((&database["pool"]["max"], &database["pool"]["busy"]), (&json!(4), &json!(0)));
    assert!(database["writer"]["calls"].as_u64().unwrap() > 0, "{database}");
    assert!(database["writer"]["band"].is_string(), "{database}");

    // A store that cannot write is never called ready; a verdict is good for a second.
    world.store.close().await;
    let deadline = tokio::time::Instant::now() + std::time::Duration::from_secs(5);
    let not_ready = loop {
        let answer = world.get("/health/ready").await;
        if answer.status == 503 {
            break answer.json();
        }
        assert!(tokio::time::Instant::now() < deadline, "{answer:?}");
    };
    assert!(not_ready["reasons"][0].as_str().unwrap().contains("cannot commit"), "{not_ready}");
    assert_eq!(world.get("/health").await.status, 503);
    assert_eq!(world.get("/health/live").await.status, 200);
    assert_eq!(world.get("/health/detailed").await.status, 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn details_say_who_works_who_leads_and_when_dead_workers_were_looked_for() {
    for world in World::both().await {
        let worker = r#"{"name":"w","handlers":[{"name":"none"}],"lease_ms":60000}"#;
        world.post("/v1/workers", worker).await.expect(201);
        let maintenance = world.store.maintenance();
        let lease = std::time::Duration::from_secs(60);
        let lead = loop {
            let taken = maintenance.leader_take("maintenance", uuid::Uuid::new_v4(), lease).await.unwrap();
            if let Some(lead) = taken {
                break lead;
            }
        };
        maintenance.leader_say(&lead, "node-7").await.unwrap();
        let deadline = tokio::time::Instant::now() + std::time::Duration::from_secs(20);
        let details = loop {
            let details = world.get("/health/detailed").await.expect(200);
            if !details["sweep"]["last_at"].is_null() && details["workers"]["remote"] == 1 {
                break details;
            }
            assert!(tokio::time::Instant::now() < deadline, "{details}");
            tokio::time::sleep(std::time::Duration::from_millis(50)).await;
        };
        assert_eq!(details["workers"]["nodes"], 1, "{details}");
        assert!(details["workers"]["nodes_silent_ms"].as_u64().unwrap() < 60_000, "{details}");
        assert!(details["workers"]["remote_silent_ms"].is_u64(), "{details}");
        assert_eq!(details["leader"]["node"], "node-7", "{details}");
        assert!(
            details["leader"]["since"].as_str().unwrap() < details["leader"]["expires_at"].as_str().unwrap()
        );
        assert_eq!(details["sweep"]["overdue"], 0, "{details}");
        // How it fares depends on the machine; the only tier fares as the cache does.
        let condition = &details["cache"]["condition"];
        let tier = json!([{ "tier": "near", "provider": "moka", "condition": condition }]);
        assert_eq!(details["cache"]["tiers"], tier, "{details}");
        let capabilities = details["cache"]["capabilities"].as_array().unwrap();
        assert!(capabilities.iter().any(|one| one["capability"] == "retains"), "{details}");
        world.end().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn details_ask_the_store_once_a_second_however_many_look() {
    let world = World::sqlite().await;
    world.get("/health/detailed").await.expect(200);
    let calls = async |name: &str| {
        let figures = world.app.figures().await.unwrap();
        let line = format!("recache_database_call_duration_seconds_count{{statement=\"{name}\"");
        figures.lines().find(|one| one.starts_with(&line)).map(str::to_owned)
    };
    for name in ["sessions_seen", "leader_find"] {
        let before = calls(name).await;
        assert!(before.is_some(), "{name}: {}", world.app.figures().await.unwrap());
        for _ in 0..50 {
            world.get("/health/detailed").await.expect(200);
        }
        let count =
            |line: Option<String>| -> u64 { line.unwrap().rsplit(' ').next().unwrap().parse().unwrap() };
        assert!(count(calls(name).await) - count(before) < 25, "{name} is asked by every look");
    }
    world.end().await;
}

#[tokio::test]
async fn taken_and_foreign_addresses_are_refused() {
    let first = bind("127.0.0.1:0".parse().unwrap(), false).await.unwrap();
    let address = first.local_addr().unwrap();
    assert!(matches!(bind(address, false).await, Err(Error::AddressInUse(taken)) if taken == address));
    let anywhere = "0.0.0.0:0".parse().unwrap();
    assert!(matches!(bind(anywhere, false).await, Err(Error::NotLoopback(_))));
    assert!(bind(anywhere, true).await.is_ok(), "with authentication any address may be served");
}

#[tokio::test(flavor = "multi_thread")]
async fn metrics_are_openmetrics_text_with_bounded_labels() {
    let world = World::sqlite().await;
    for path in ["/v1/jobs", "/v1/jobs/job_x", "/nothing/at/all", "/nothing/else"] {
        world.get(path).await;
    }
    world.send("BREW", "/v1/jobs", &[], "").await;
    let answer = world.get("/metrics").await;
    assert_eq!(answer.status, 200);
    assert!(answer.header("content-type").unwrap().starts_with("application/openmetrics-text"));
    assert!(answer.body.ends_with("# EOF\n"));
    let requests: Vec<_> =
        answer.body.lines().filter(|line| line.starts_with("recache_http_requests_total{")).collect();
    let with = |part: &str| requests.iter().filter(|line| line.contains(part)).count();
    assert_eq!(with("route=\"/v1/jobs/{id}\""), 1, "{requests:?}");
    assert_eq!(with("route=\"unmatched\",status=\"4xx\""), 1, "{requests:?}");
    assert_eq!(with("method=\"other\""), 1, "{requests:?}");
    assert!(!answer.body.contains("nothing") && !answer.body.contains("job_x"));
    for name in [
        "recache_http_request_duration_seconds_bucket",
        "recache_engine_attempts_started_total",
        "recache_database_pool_band{band=\"low\"}",
        "recache_database_writer_band{band=\"critical\"} 0",
        "recache_database_writer_busy_seconds_total",
        "recache_figures_other_total 0",
    ] {
        assert!(answer.body.contains(name), "{name}");
    }
    world.end().await;
}
