//! `recache dead`: list, show, redrive, resolve, discard, note.

use recache_store::conformance::postgres_database;

use super::world::{DONE, FAILED, World};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn dead_letters_are_looked_at_and_dealt_with() {
    dead_verbs_work(&World::sqlite().await);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn dead_letters_are_looked_at_and_dealt_with_over_postgresql() {
    if let Some(database) = postgres_database().await {
        let world = World::filled(database).await;
        dead_verbs_work(&world);
        world.store.close().await;
    }
}

fn dead_verbs_work(world: &World) {
    let dead = |arguments: &[&str]| world.run(&[&["dead"], arguments].concat());
    let listed = dead(&["list", "-o", "json"]).json();
    assert_eq!(listed["schema"], "recache.dead-letters.v1");
    let letter = &listed["letters"][0];
    assert_eq!((letter["job_id"].as_str(), letter["status"].as_str()), (Some(FAILED), Some("pending")));
    assert_eq!(letter["attempts"][0]["error"]["message"], "connection refused\u{1b}[31m");
    assert_eq!(letter["attempts"][1]["error"]["code"], "smtp_550");
    let table = dead(&["list", "--queue", "mail", "--handler", "send_mail"]).expect(0);
    assert!(table.contains("permanent smtp_550: no such mailbox"), "{table}");
    assert!(dead(&["list", "--namespace", "other"]).err.contains("no dead letters"));
    let shown = dead(&["show", FAILED]).expect(0);
    for text in
        ["pending", "no further attempt can succeed", "retryable: connection refused", "{\"to\":\"a@b.c\"}"]
    {
        assert!(shown.contains(text), "{text}: {shown}");
    }
    dead(&["show", DONE]).refused(3, &["E-NOT-FOUND", "dead letter"]);
    dead(&["note", FAILED, "the address is wrong", "--actor", "ops"]).expect(0);
    let shown = dead(&["investigate", FAILED, "--reason", "I look", "--actor", "ops"]).expect(0);
    assert!(shown.contains("investigating") && shown.contains("the address is wrong"), "{shown}");

    dead(&["redrive", "--reason", "mended"]).refused(2, &["<ID>"]);
    let preview = dead(&["redrive", "--all", "--reason", "mended", "--dry-run", "-o", "json"]).json();
    assert_eq!((preview["matching"].as_u64(), preview["changed"].as_u64()), (Some(1), Some(0)));
    let none = dead(&["redrive", "--queue", "other", "--reason", "mended", "-o", "json"]).json();
    assert_eq!(none["changed"], 0);
    let done = dead(&["redrive", "--handler", "send_mail", "--reason", "mended", "-o", "json"]).json();
    assert_eq!((done["changed"].as_u64(), done["skipped"].as_u64()), (Some(1), Some(0)));
    assert_eq!(world.run(&["job", "show", FAILED, "-o", "json"]).json()["job"]["state"], "queued");
    dead(&["redrive", FAILED, "--reason", "again"]).refused(5, &["E-CONFLICT", "redriven"]);
    dead(&["discard", FAILED, "--reason", "no"]).refused(5, &["E-CONFLICT", "redriven"]);
    dead(&["resolve", FAILED, "--reason", "no"]).refused(5, &["E-CONFLICT", "queued"]);
    assert_eq!(dead(&["list", "--status", "redriven", "-o", "jsonl"]).expect(0).lines().count(), 1);
    dead(&["list", "--status", "lost"]).refused(2, &["pending, investigating"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn failed_job_is_resolved_or_discarded_with_a_reason() {
    let world = World::sqlite().await;
    world.run(&["dead", "resolve", FAILED]).refused(2, &["--reason"]);
    let shown =
        world.run(&["dead", "resolve", FAILED, "--reason", "done by hand", "--actor", "ops"]).expect(0);
    assert!(shown.contains("resolved") && shown.contains("done by hand"), "{shown}");
    let job = world.run(&["job", "show", FAILED, "-o", "json"]).json();
    assert_eq!(job["job"]["state"], "resolved");
    assert_eq!(job["history"].as_array().unwrap().last().unwrap()["detail"], "ops: done by hand");
    let world = World::sqlite().await;
    let shown = world.run(&["dead", "discard", FAILED, "--reason", "a test"]).expect(0);
    assert!(shown.contains("discarded"), "{shown}");
    assert!(world.run(&["dead", "list"]).err.contains("no dead letters"));
}
