//! `recache job` beyond looking: submit.

use super::world::{World, recache, run};

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
