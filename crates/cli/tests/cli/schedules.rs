//! `recache schedule`: add, list, show, pause, resume, run, next, delete.

use recache_store::conformance::postgres_database;

use super::world::World;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn schedules_are_kept_looked_at_and_run() {
    schedule_verbs_work(&World::sqlite().await);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn schedules_are_kept_looked_at_and_run_over_postgresql() {
    if let Some(database) = postgres_database().await {
        let world = World::filled(database).await;
        schedule_verbs_work(&world);
        world.store.close().await;
    }
}

fn schedule_verbs_work(world: &World) {
    let schedule = |arguments: &[&str]| world.run(&[&["schedule"], arguments].concat());
    assert!(schedule(&["list"]).err.contains("no schedules"));
    let add =
        ["add", "report", "30 2 * * *", "make_report", "--zone", "Europe/Berlin", "--input", "{\"n\":1}"];
    let added = schedule(&[&add[..], &["-o", "json"]].concat()).json();
    assert_eq!(added["schema"], "recache.schedule.v1");
    let added = &added["schedule"];
    assert_eq!((added["zone"].as_str(), added["input"]["n"].as_i64()), (Some("Europe/Berlin"), Some(1)));
    assert!(added["next_at"].is_string());
    let shown = schedule(&["show", "report"]).expect(0);
    assert!(shown.contains("30 2 * * * in Europe/Berlin") && shown.contains("ticking"), "{shown}");
    assert_eq!(schedule(&["list", "-o", "json"]).json()["schedules"][0]["name"], "report");
    let ticks = schedule(&["next", "report", "--count", "3", "-o", "json"]).json();
    assert_eq!(ticks["ticks"].as_array().unwrap().len(), 3);
    let table =
        schedule(&["next", "--cron", "30 2 * * *", "--zone", "Asia/Kolkata", "--count", "1"]).expect(0);
    assert!(table.contains("T21:00:00Z") && table.contains("02:30:00+05:30"), "{table}");
    schedule(&["next", "--cron", "often"]).refused(2, &["E-INVALID", "often", "30 2 * * MON-FRI"]);
    schedule(&["add", "x", "30 2 * * *", "h", "--zone", "Mars/Olympus"])
        .refused(2, &["Mars/Olympus", "IANA"]);

    let paused = schedule(&["pause", "report", "--reason", "closed", "--actor", "ops"]).expect(0);
    assert!(paused.contains("paused") && paused.contains("by ops: closed"), "{paused}");
    assert!(schedule(&["list"]).expect(0).contains("paused"));
    assert!(schedule(&["resume", "report"]).expect(0).contains("ticking"));
    assert!(schedule(&["resume", "report"]).err.contains("was not paused"));
    let ran = schedule(&["run", "report", "-o", "json"]).json();
    let job =
        world.run(&["job", "show", ran["schedule"]["last_job_id"].as_str().unwrap(), "-o", "json"]).json();
    assert_eq!(
        (job["job"]["handler"].as_str(), job["job"]["state"].as_str()),
        (Some("make_report"), Some("queued"))
    );
    schedule(&["run", "report"]).refused(5, &["E-CONFLICT", "overlap policy is skip"]);
    schedule(&["delete", "report"]).expect(0);
    schedule(&["show", "report"]).refused(3, &["E-NOT-FOUND", "default/report", "recache schedule list"]);
}
