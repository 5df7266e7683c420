//! `recache audit list` and `recache worker list`: who did what with a database, and who works on it.

use std::time::Duration;

use recache_model::event::{EventFilter, delivery_policy};
use recache_model::handlers::HandlerOffer;
use recache_store::conformance::postgres_database;
use recache_store::{NewSubscriber, SubscriberKind};
use serde_json::{Value, json};

use super::world::{FAILED, QUEUED, RUNNING, World};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_operators_do_is_in_the_audit() {
    let world = World::sqlite().await;
    subscribe(&world).await;
    operators_are_audited(&world);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_operators_do_is_in_the_audit_over_postgresql() {
    if let Some(database) = postgres_database().await {
        let world = World::filled(database).await;
        subscribe(&world).await;
        operators_are_audited(&world);
        world.store.close().await;
    }
}

/// A program that is told of events.
async fn subscribe(world: &World) {
    let mailer = NewSubscriber {
        name: "mailer".to_owned(),
        kind: SubscriberKind::Handler,
        filter: EventFilter::of(["*"]),
        retry: delivery_policy(),
        timeout: Duration::from_secs(5),
    };
    world.store.events().subscriber_put(mailer).await.unwrap();
}

fn operators_are_audited(world: &World) {
    assert!(world.run(&["audit", "list"]).err.contains("nothing was done"));
    let batch = world.run(&["batch", "create", "import", "-o", "json"]).json()["batch"]["id"].clone();
    let batch = batch.as_str().unwrap();
    world.run(&["schedule", "add", "nightly", "0 3 * * *", "resize"]).expect(0);
    let done: &[(&[&str], &str, &str, &str)] = &[
        (
            &["token", "create", "deploy", "--scope", "jobs:write"],
            "tokens.create",
            "deploy",
            "from the command",
        ),
        (&["token", "revoke", "deploy", "--reason", "leaked"], "tokens.revoke", "deploy", "leaked"),
        (&["job", "cancel", QUEUED, "--reason", "wrong"], "jobs.cancel", QUEUED, "wrong"),
        (&["job", "cancel", "--queue", "none"], "jobs.cancel_many", "by filter", "command line"),
        (&["job", "delete", "--handler", "none"], "jobs.delete_many", "by filter", "command line"),
        (&["queue", "pause", "mail", "--reason", "it moves"], "queues.pause", "mail", "it moves"),
        (&["queue", "resume", "mail"], "queues.resume", "mail", "command line"),
        (&["queue", "limit", "mail", "--running", "5"], "queues.limit", "queue mail", "command line"),
        (
            &["dead", "investigate", FAILED, "--reason", "I look"],
            "dead_letters.investigate",
            FAILED,
            "I look",
        ),
        (&["dead", "note", FAILED, "wrong address"], "dead_letters.note", FAILED, "wrong address"),
        (&["dead", "discard", FAILED, "--reason", "a test"], "dead_letters.discard", FAILED, "a test"),
        (&["dead", "redrive", "--all", "--reason", "back"], "dead_letters.redrive_many", "by filter", "back"),
        (&["job", "retry", FAILED], "jobs.retry", FAILED, "command line"),
        (&["view", "rebuild", "shop/prices", "--reason", "odd"], "views.rebuild", "shop/prices", "odd"),
        (&["view", "pause", "shop/prices", "--reason", "p"], "views.pause", "shop/prices", "p"),
        (&["view", "resume", "shop/prices"], "views.resume", "shop/prices", "command line"),
        (
            &["view", "rollback", "shop/prices", "--to", "1", "--reason", "r"],
            "views.rollback",
            "shop/prices",
            "r",
        ),
        (&["view", "delete", "shop/untouched", "--reason", "d"], "views.delete", "shop/untouched", "d"),
        (
            &["webhook", "add", "w", "https://example.com/", "--event", "*"],
            "webhooks.create",
            "w",
            "command line",
        ),
        (&["webhook", "pause", "w", "--reason", "p"], "webhooks.pause", "w", "p"),
        (&["webhook", "resume", "w"], "webhooks.resume", "w", "command line"),
        (&["webhook", "rotate", "w"], "webhooks.rotate", "w", "command line"),
        (&["webhook", "redeliver", "w", "--dead"], "webhooks.redeliver", "w", "command line"),
        (&["webhook", "remove", "w"], "webhooks.delete", "w", "command line"),
        (&["schedule", "pause", "nightly", "--reason", "p"], "schedules.pause", "default/nightly", "p"),
        (&["schedule", "resume", "nightly"], "schedules.resume", "default/nightly", "command line"),
        (&["schedule", "run", "nightly"], "schedules.run", "default/nightly", "command line"),
        (&["schedule", "delete", "nightly"], "schedules.delete", "default/nightly", "command line"),
        (&["batch", "retry", batch, "--reason", "again"], "batches.retry", batch, "again"),
        (&["batch", "cancel", batch, "--reason", "enough"], "batches.cancel", batch, "enough"),
        (&["event", "unsubscribe", "mailer"], "subscribers.forget", "mailer", "command line"),
    ];
    for (arguments, action, target, reason) in done {
        let mut command = world.command(arguments);
        super::world::run(command.env("USER", "alice")).expect(0);
        let rows = world.run(&["audit", "list", "--limit", "1", "-o", "json"]).json()["rows"].clone();
        let row = &rows[0];
        let shown = (&row["action"], &row["target"], &row["actor"], &row["outcome"]);
        assert_eq!(shown, (&json!(action), &json!(target), &json!("alice"), &json!("done")), "{row}");
        assert!(row["reason"].as_str().unwrap().contains(reason), "{row}");
        assert_eq!(row["request_id"], Value::Null);
        assert!(row["after"].is_object(), "{row}");
    }
    let refused = world.run(&["job", "retry", RUNNING]);
    refused.refused(5, &["E-CONFLICT"]);
    let list = world.run(&["audit", "list", "-o", "json"]).json();
    assert_eq!(list["rows"].as_array().unwrap().len(), done.len() + 1);
    let row = &list["rows"][0];
    assert_eq!((&row["outcome"], &row["after"]), (&json!("refused"), &json!("E-CONFLICT")));
    assert_eq!(row["before"], json!({ "state": "running" }));
    let mail = world.run(&["audit", "list", "--target", "mail", "-o", "json"]).json();
    assert_eq!(
        (&mail["rows"][1]["before"], &mail["rows"][1]["after"]),
        (&json!({ "paused": false }), &json!({ "paused": true }))
    );
    let page = world.run(&["audit", "list", "--actor", "alice", "--limit", "2"]);
    assert!(page.err.contains("there are more: --before "), "{page:?}");
    let table = page.expect(0);
    assert!(table.contains("subscribers.forget") && !table.contains("tokens.create"), "{table}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn workers_are_listed_with_when_they_were_heard_of() {
    let world = World::sqlite().await;
    assert!(world.run(&["worker", "list"]).err.contains("nobody works"));
    let offer = HandlerOffer { name: "resize".to_owned(), version: None, input_schema: None };
    let kept = world.store.handler_offers().handlers_offer(
        world.session,
        vec!["default".to_owned()],
        3,
        vec![offer],
    );
    assert!(kept.await.unwrap());
    let table = world.run(&["worker", "list"]).expect(0);
    for text in ["test", "node", "resize", "HEARD"] {
        assert!(table.contains(text), "{text} is not in {table}");
    }
    let worker = world.run(&["worker", "list", "-o", "json"]).json()["workers"][0].clone();
    assert_eq!((&worker["is_remote"], &worker["slots"]), (&json!(false), &json!(3)));
    world.run(&["worker", "list", "--slots", "3"]).refused(2, &["--slots"]);
}
