use serde_json::{Value, json};

use crate::world::{Answer, World};

const SCHEDULE: &str = "/v1/schedules/shop/report";

async fn put(world: &World, path: &str, body: &Value) -> Answer {
    world.send("PUT", path, &[("content-type", "application/json")], &body.to_string()).await
}

#[tokio::test(flavor = "multi_thread")]
async fn schedule_is_kept_paused_resumed_run_and_deleted_with_an_audit() {
    for world in World::both().await {
        assert_eq!(world.get(SCHEDULE).await.code(404), "not_found");
        let body = json!({ "cron": "30 2 * * *", "zone": "Europe/Berlin", "handler": "none", "input": { "n": 1 },
            "priority": -3, "catch_up": "once", "retry": { "attempts_max": 7 }, "timeout_ms": 1000 });
        let kept = put(&world, SCHEDULE, &body).await.expect(200);
        assert_eq!(kept["schema"], "recache.schedule.v1");
        for (name, value) in body.as_object().unwrap().iter().filter(|(name, _)| *name != "retry") {
            assert_eq!(&kept["schedule"][name], value, "{kept}");
        }
        assert_eq!(kept["schedule"]["retry"]["attempts_max"], 7);
        assert!(kept["schedule"]["next_at"].is_string());
        assert_eq!(put(&world, SCHEDULE, &body).await.expect(200)["schedule"], kept["schedule"]);

        let path = |verb: &str| format!("{SCHEDULE}/{verb}");
        let paused = world.post(&path("pause"), r#"{"reason":"closed"}"#).await.expect(200);
        assert_eq!(
            (&paused["schedule"]["pause_reason"], &paused["schedule"]["pause_actor"]),
            (&json!("closed"), &json!("anonymous"))
        );
        assert_eq!(world.post(&path("resume"), "").await.expect(200)["changed"], true);
        assert_eq!(world.post(&path("resume"), "").await.expect(200)["changed"], false);
        let ran = world.post_once("r", &path("run"), "").await.expect(200);
        let job = ran["schedule"]["last_job_id"].as_str().unwrap();
        assert_eq!(
            world.get(&format!("/v1/jobs/{job}")).await.expect(200)["job"]["input"],
            json!({ "n": 1 })
        );
        assert_eq!(world.post_once("r", &path("run"), "").await.json(), ran);
        assert_eq!(world.post(&path("run"), "").await.code(409), "conflict", "the former one has not ended");
        let ticks = world.get(&path("ticks?count=3")).await.expect(200);
        assert_eq!((&ticks["zone"], ticks["ticks"].as_array().unwrap().len()), (&json!("Europe/Berlin"), 3));
        let gone = world.send("DELETE", &format!("{SCHEDULE}?reason=unused"), &[], "").await.expect(200);
        assert_eq!(gone["schedule"]["name"], "report");
        assert_eq!(world.get(SCHEDULE).await.code(404), "not_found");
        assert_eq!(world.post(&path("pause"), "").await.code(404), "not_found");
        let filter = recache_store::AuditFilter { rows_max: 50, ..Default::default() };
        let rows = world.store.audits().audits_list(filter).await.unwrap();
        let deeds: Vec<_> =
            rows.iter().rev().map(|row| (row.new.action.as_str(), row.new.word.reason.as_str())).collect();
        assert_eq!(deeds[0], ("schedules.pause", "closed"));
        assert_eq!(deeds.last(), Some(&("schedules.delete", "unused")));
        assert!(rows.iter().all(|row| row.new.target == "shop/report"));
        world.end().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn schedules_are_listed_page_by_page_and_wrong_ones_refused() {
    for world in World::both().await {
        for name in ["a", "b/c", "d\u{e9}"] {
            let path = format!("/v1/schedules/shop/{}", name.replace('/', "%2F").replace('\u{e9}', "%C3%A9"));
            put(&world, &path, &json!({ "cron": "0 0 1 1 *", "handler": "none" })).await.expect(200);
        }
        put(&world, "/v1/schedules/other/a", &json!({ "cron": "0 0 1 1 *", "handler": "none" }))
            .await
            .expect(200);
        let mut names = Vec::new();
        let mut path = "/v1/schedules?namespace=shop&limit=2".to_owned();
        loop {
            let page = world.get(&path).await.expect(200);
            names.extend(page["schedules"].as_array().unwrap().iter().map(|one| one["name"].clone()));
            let Some(next) = page["next"].as_str() else { break };
            path = format!("/v1/schedules?namespace=shop&limit=2&cursor={next}");
        }
        assert_eq!(names, ["a", "b/c", "d\u{e9}"]);
        assert_eq!(world.get("/v1/schedules").await.expect(200)["schedules"][0]["namespace"], "other");
        for body in [
            json!({ "cron": "often", "handler": "none" }),
            json!({ "cron": "0 0 * * *", "zone": "Mars/Olympus", "handler": "none" }),
            json!({ "cron": "0 0 30 2 *", "handler": "none" }),
            json!({ "cron": "0 0 * * *" }),
            json!({ "cron": "0 0 * * *", "handler": "none", "overlap": "both" }),
            json!({ "cron": "0 0 * * *", "handler": "none", "catchup": "once" }),
        ] {
            assert_eq!(put(&world, SCHEDULE, &body).await.code(422), "invalid", "{body}");
        }
        let ticks =
            world.get("/v1/ticks?cron=30%202%20*%20*%20*&zone=Asia/Kolkata&count=1").await.expect(200);
        assert!(ticks["ticks"][0].as_str().unwrap().contains("T21:00:00"), "{ticks}");
        assert_eq!(world.get("/v1/ticks?cron=often").await.code(400), "invalid_parameter");
        assert_eq!(world.get("/v1/ticks").await.code(400), "invalid_parameter");
        world.end().await;
    }
}
