//! `recache job` beyond looking: submit.

use super::world::{FAILED, RUNNING, World, recache, run};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn submit_stores_a_job_and_finds_it_again_by_its_keys() {
    let world = World::sqlite().await;
    let submit =
        |arguments: &[&str]| world.run(&[&["job", "submit", "send", "-o", "json"], arguments].concat());
    let first =
        submit(&["--input", "{\"to\":1}", "--idempotency-key", "k", "--priority", "-2", "--delay", "1h"])
            .json();
    assert_eq!((first["existed"].as_bool(), first["replaced"].as_bool()), (Some(false), Some(false)));
    let id = first["id"].as_str().unwrap();
    let job = world.run(&["job", "show", id, "-o", "json"]).json()["job"].clone();
    assert_eq!((job["priority"].as_i64(), job["input"]["to"].as_i64()), (Some(-2), Some(1)));
    assert_ne!(job["due_at"], job["created_at"]);
    let again =
        submit(&["--input", "{\"to\":1}", "--idempotency-key", "k", "--priority", "-2", "--delay", "1h"])
            .json();
    assert_eq!((again["id"].as_str(), again["existed"].as_bool()), (Some(id), Some(true)));
    submit(&["--input", "2", "--idempotency-key", "k"]).refused(5, &["E-CONFLICT", "idempotency key `k`"]);

    let unique = submit(&["--unique", "nightly", "--input", "1"]).json()["id"].as_str().unwrap().to_owned();
    let replaced = submit(&["--unique", "nightly", "--input", "2", "--if-there", "replace"]).json();
    assert_eq!(
        (replaced["id"].as_str(), replaced["replaced"].as_bool()),
        (Some(unique.as_str()), Some(true))
    );
    submit(&["--unique", "nightly", "--if-there", "reject"]).refused(5, &["E-CONFLICT", &unique]);
    let table = world.run(&["job", "submit", "send", "--unique", "nightly"]);
    assert!(table.err.contains("it was there already"), "{}", table.err);
    assert_eq!(table.expect(0), format!("{unique}\n"));
    let by_input = |input| submit(&["--unique-by-input", "--unique-per", "1d", "--input", input]).json();
    assert_eq!(by_input("{\"a\":1,\"b\":2}")["id"], by_input("{\"b\":2,\"a\":1}")["id"]);
    submit(&["--unique", "n", "--unique-also", "running"])
        .refused(2, &["running", "states of jobs that ended"]);
    submit(&["--input", "{"]).refused(2, &["E-INPUT", "--input:1:"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn show_lists_attempts_with_their_errors_and_what_was_said() {
    let world = World::sqlite().await;
    let shown = world.run(&["job", "show", FAILED, "-o", "json"]).json();
    let attempts = shown["attempts"].as_array().unwrap();
    let told = |n: usize| {
        let attempt = &attempts[n];
        let error = &attempt["error"]["message"];
        (attempt["attempt"].as_u64(), attempt["ended_as"].as_str(), error.as_str())
    };
    assert_eq!(attempts.len(), 2);
    assert_eq!(told(0), (Some(1), Some("queued"), Some("connection refused\u{1b}[31m")));
    assert_eq!(told(1), (Some(2), Some("failed"), Some("no such mailbox")));
    let running = world.run(&["job", "show", RUNNING, "-o", "json"]).json();
    assert!(running["attempts"][0]["ended_at"].is_null() && running["log"].as_array().unwrap().is_empty());
    world.say(RUNNING, "page 2 begins").await;
    let table = world.run(&["job", "show", RUNNING]).expect(0);
    assert!(table.contains("page 2 begins") && table.contains("SAID AT"), "{table}");
    assert_eq!(world.run(&["job", "show", RUNNING, "-o", "json"]).json()["log"][0]["text"], "page 2 begins");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_jobs_are_cancelled_retried_and_deleted_by_filter() {
    let world = World::sqlite().await;
    let job = |arguments: &[&str]| world.run(&[&["job"], arguments].concat());
    job(&["delete"]).refused(2, &["--queue"]);
    job(&["cancel"]).refused(2, &["<ID>"]);
    job(&["retry", FAILED, "--all"]).refused(2, &["cannot be used with"]);
    let preview = job(&["cancel", "--queue", "default", "--dry-run", "-o", "json"]).json();
    assert_eq!(
        (preview["schema"].as_str(), preview["matching"].as_u64()),
        (Some("recache.bulk-change.v1"), Some(2))
    );
    let cancelled = job(&["cancel", "--queue", "default", "--reason", "a mistake", "-o", "json"]).json();
    assert_eq!(cancelled["changed"], 2);
    assert_eq!(job(&["cancel", "--all"]).expect(0), "0 changed\n");
    assert_eq!(job(&["retry", "--handler", "send_mail"]).expect(0), "1 changed\n");
    assert_eq!(job(&["delete", "--queue", "mail", "--dry-run"]).expect(0), "0 match; nothing was changed\n");
    let before = job(&["list", "-o", "jsonl"]).expect(0).lines().count();
    let deleted = job(&["delete", "--all", "-o", "json"]).json()["changed"].as_u64().unwrap();
    assert_eq!(deleted, 3, "one was completed, two were cancelled");
    assert_eq!(job(&["list", "-o", "jsonl"]).expect(0).lines().count(), before - 3);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn database_of_an_older_version_is_named_and_left_as_it_is() {
    let world = World::sqlite().await;
    let folder = world.closed_folder().await;
    let file = std::fs::read_dir(&folder).unwrap().map(|entry| entry.unwrap().path());
    let file = file.into_iter().find(|path| path.extension().is_some_and(|end| end == "db")).unwrap();
    let url = format!("sqlite:{}", file.display());
    let mut older = <sqlx::SqliteConnection as sqlx::Connection>::connect(&url).await.unwrap();
    sqlx::query("DELETE FROM _sqlx_migrations WHERE version > 1").execute(&mut older).await.unwrap();
    sqlx::Connection::close(older).await.unwrap();
    let listed = run(recache(&folder).args(["job", "list", "--database", &url]));
    listed.refused(5, &["E-DATABASE-SCHEMA", "schema version 1", "run `recache migrate"]);
}
