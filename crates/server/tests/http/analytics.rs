use std::time::Duration;

use serde_json::{Value, json};

use crate::world::World;

/// Jobs that ended: three well, one not.
async fn some_work(world: &World) {
    for (handler, count) in [("echo", 3), ("fail", 1)] {
        for _ in 0..count {
            let body = json!({ "handler": handler, "namespace": "shop", "queue": "mail" }).to_string();
            let id = world.post("/v1/jobs", &body).await.expect(201)["id"].as_str().unwrap().to_owned();
            world.send("GET", &format!("/v1/jobs/{id}"), &[("prefer", "wait=20")], "").await.expect(200);
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn performance_and_bottlenecks_are_told_from_what_ended() {
    for world in World::both().await {
        let nothing =
            world.get("/v1/analytics/bottlenecks?min_executions=1&namespace=none").await.expect(200);
        assert_eq!((&nothing["executions"], &nothing["recommendations"]), (&json!(0), &json!([])));
        some_work(&world).await;
        // The window goes up to now.
        let report = world.get("/v1/analytics/performance?hours=24&namespace=shop").await.expect(200);
        assert_eq!(report["schema"], "recache.performance.v1");
        for (name, value) in [
            ("total_tasks", json!(4)),
            ("active_tasks", json!(0)),
            ("completed_tasks", json!(3)),
            ("failed_tasks", json!(1)),
            ("completion_rate", json!(0.75)),
            ("error_rate", json!(0.25)),
        ] {
            assert_eq!(report[name], value, "{name}: {report}");
        }
        for name in [
            "average_task_duration_seconds",
            "average_step_duration_seconds",
            "tasks_per_hour",
            "steps_per_hour",
            "system_health_score",
        ] {
            assert!(report[name].is_f64(), "{name}: {report}");
        }
        // The window begins with a full minute: it is up to one longer than was asked for.
        let hours = 4.0 / report["tasks_per_hour"].as_f64().unwrap();
        assert!((24.0..24.0 + 1.0 / 60.0).contains(&hours), "{hours}");
        let other = world.get("/v1/analytics/performance?namespace=other").await.expect(200);
        assert_eq!(other["total_tasks"], 0);
        let of_handler = world.get("/v1/analytics/performance?handler=fail&queue=mail").await.expect(200);
        assert_eq!((&of_handler["failed_tasks"], &of_handler["completed_tasks"]), (&json!(1), &json!(0)));
        let slow =
            world.get("/v1/analytics/bottlenecks?limit=10&min_executions=3&namespace=shop").await.expect(200);
        let handlers: Vec<&Value> =
            slow["slowest_steps_by_run"].as_array().unwrap().iter().map(|step| &step["handler"]).collect();
        assert_eq!(handlers, ["echo"], "{slow}");
        let used = &slow["resource_use"];
        assert_eq!((used.as_array().unwrap().len(), &used[0]["handler"]), (1, &json!("echo")), "{slow}");
        let (share, busy) = (used[0]["share"].as_f64().unwrap(), used[0]["busy_seconds"].as_f64().unwrap());
        assert!((0.0..=1.0).contains(&share) && busy > 0.0, "{used}");
        assert!(used[0]["running_mean"].as_f64().unwrap() <= busy / 86_400.0, "{used}");
        assert_eq!(slow["error_hot_spots"].as_array().unwrap().len(), 0, "one failure is below the minimum");
        let explained = world.get("/v1/analytics/explain/completion_rate?namespace=shop").await.expect(200);
        assert_eq!(explained["figure"], "completion_rate");
        assert_eq!((&explained["value"], &explained["exact_value"]), (&json!(0.75), &json!(0.75)));
        world.end().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn answers_come_from_the_cache_under_the_keys_that_are_documented() {
    let world = World::sqlite().await;
    some_work(&world).await;
    // Before the epochs of the store were heard nothing is served from the cache.
    let heard = tokio::time::timeout(Duration::from_secs(20), async {
        let hits = async || world.get("/v1/cache/stats").await.expect(200)["process"]["hits"].clone();
        let before = hits().await;
        while hits().await == before {
            world.get("/v1/analytics/performance?hours=8").await.expect(200);
        }
    });
    heard.await.unwrap();
    let first = world.get("/v1/analytics/performance?hours=7").await.expect(200);
    assert_eq!(first["total_tasks"], 4);
    let bottlenecks = world.get("/v1/analytics/bottlenecks?limit=9&min_executions=2").await.expect(200);
    some_work(&world).await;
    let second = world.get("/v1/analytics/performance?hours=7").await.expect(200);
    assert_eq!(second, first, "as old as the time to live allows");
    assert_eq!(
        world.get("/v1/analytics/bottlenecks?limit=9&min_executions=2").await.expect(200),
        bottlenecks
    );
    for key in ["recache:analytics:performance:7", "recache:analytics:bottlenecks:9:2"] {
        let found = world.get(&format!("/v1/cache/explain?key={key}")).await.expect(200);
        assert_eq!(found["verdict"], "hit", "{found}");
        let invalidated = json!({ "key": key, "reason": "test" }).to_string();
        world.post("/v1/cache/invalidate", &invalidated).await.expect(200);
    }
    let third = world.get("/v1/analytics/performance?hours=7").await.expect(200);
    assert_eq!(third["total_tasks"], 8);
    world.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn abusive_windows_are_refused_and_disturb_nobody() {
    let world = World::sqlite().await;
    let bad = [
        "performance?hours=0",
        "performance?hours=-1",
        "performance?hours=745",
        "performance?hours=4294967295",
        "performance?hours=4294967296",
        "performance?hours=1000000000000000000",
        "performance?hours=99999999999999999999999",
        "performance?hours=ten",
        "performance?hours=1.5",
        "performance?hours=1&hours=2",
        "performance?hours=1%27%20OR%201=1--",
        "performance?namespace=",
        "performance?colour=red",
        "bottlenecks?limit=-1",
        "bottlenecks?limit=0",
        "bottlenecks?limit=101",
        "bottlenecks?limit=1000000000000000000",
        "bottlenecks?min_executions=0",
        "bottlenecks?min_executions=1000001",
        "bottlenecks?min_executions=x",
        "explain/completion_rate?hours=0",
    ];
    for path in bad {
        let answer = world.get(&format!("/v1/analytics/{path}")).await;
        assert_eq!(answer.code(400), "invalid_parameter", "{path}");
        assert!(!answer.json()["errors"].as_array().unwrap().is_empty(), "{path}");
    }
    // A name may hold anything: it is looked for as it is.
    let sql = "performance?namespace=%27%3B%20DROP%20TABLE%20jobs%3B--";
    assert_eq!(world.get(&format!("/v1/analytics/{sql}")).await.expect(200)["total_tasks"], 0);
    assert_eq!(world.get("/v1/analytics/explain/nothing").await.code(404), "not_found");
    let ready = tokio::time::timeout(Duration::from_secs(5), world.get("/health/ready")).await.unwrap();
    assert_eq!(ready.status, 200);
    some_work(&world).await;
    world.end().await;
}
