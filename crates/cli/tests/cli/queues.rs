//! `recache queue`: pause, drain, resume, limit, look.

use recache_store::conformance::postgres_database;
use serde_json::Value;

use super::world::{RUNNING, World};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn queues_are_paused_limited_and_shown() {
    queue_verbs_work(&World::sqlite().await);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn queues_are_paused_limited_and_shown_over_postgresql() {
    if let Some(database) = postgres_database().await {
        let world = World::filled(database).await;
        queue_verbs_work(&world);
        world.store.close().await;
    }
}

fn queue_verbs_work(world: &World) {
    let queue = |arguments: &[&str]| world.run(&[&["queue"], arguments].concat());
    let listed = queue(&["list", "-o", "json"]).json();
    assert_eq!(
        (listed["schema"].as_str(), listed["queues"][0]["name"].as_str()),
        (Some("recache.queues.v1"), Some("default"))
    );
    let names: Vec<Value> = queue(&["list", "-o", "jsonl"])
        .expect(0)
        .lines()
        .map(|line| serde_json::from_str::<Value>(line).unwrap()["queued"].clone())
        .collect();
    assert_eq!(names, [1]);

    queue(&["pause", "mail"]).refused(2, &["--reason"]);
    let paused = queue(&["pause", "mail", "--reason", "it moves", "--actor", "ops", "--for", "2h"]).expect(0);
    for text in ["paused", "ops", "it moves", "until"] {
        assert!(paused.contains(text), "{paused}");
    }
    let table = queue(&["list"]).expect(0);
    assert!(table.contains("ops: it moves") && table.contains("open"), "{table}");
    assert!(queue(&["show", "mail", "-o", "json"]).json()["queue"]["pause"]["until"].is_string());
    let drained = queue(&["drain", "default", "--reason", "r", "--timeout", "200ms"]);
    drained.refused(124, &["E-TIMED-OUT", "1 of its jobs still run"]);
    world.run(&["job", "cancel", RUNNING]).expect(0);
    assert_eq!(queue(&["drain", "default", "--reason", "r", "-o", "json"]).json()["queue"]["running"], 0);
    for name in ["default", "mail"] {
        assert!(queue(&["resume", name]).expect(0).contains("open"));
    }
    assert!(queue(&["resume", "mail"]).err.contains("was not paused"));

    queue(&["limit", "mail"]).refused(2, &["--running"]);
    queue(&["limit", "--running", "1"]).refused(2, &["NAME"]);
    queue(&["limit", "mail", "--rate", "0/1m"]).refused(2, &["at least 1 start"]);
    let set = queue(&["limit", "mail", "--running", "5", "--rate", "100/1m", "--actor", "ops"]).expect(0);
    assert!(set.contains("5 at once, 100 starts in 1 m 0 s") && set.contains("ops"), "{set}");
    queue(&["limit", "--handler", "send_mail", "--running", "2"]).expect(0);
    let limits =
        queue(&["limit", "--key", "k", "--namespace", "shop", "--running", "3", "-o", "json"]).json();
    let scopes: Vec<_> =
        limits["limits"].as_array().unwrap().iter().map(|limit| limit["scope"].as_str()).collect();
    assert_eq!(scopes, [Some("queue"), Some("handler"), Some("key")]);
    assert_eq!(limits["limits"][2]["namespace"], "shop");
    assert_eq!(queue(&["show", "mail", "-o", "json"]).json()["queue"]["period_ms"], 60_000);
    queue(&["limit", "mail", "--off"]).expect(0);
    assert_eq!(queue(&["limits", "-o", "jsonl"]).expect(0).lines().count(), 2);
}
