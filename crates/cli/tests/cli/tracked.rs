//! `recache job track|report|heartbeat|ack|tracked`, and `job show` of such a job.

use recache_store::conformance::postgres_database;

use super::world::{UNKNOWN, World};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn jobs_of_others_are_tracked() {
    tracking_verbs_work(&World::sqlite().await);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn jobs_of_others_are_tracked_over_postgresql() {
    if let Some(database) = postgres_database().await {
        let world = World::filled(database).await;
        tracking_verbs_work(&world);
        world.store.close().await;
    }
}

fn tracking_verbs_work(world: &World) {
    let job = |arguments: &[&str]| world.run(&[&["job"], arguments].concat());
    assert!(job(&["tracked"]).err.contains("no tracked jobs"));
    let track =
        ["track", "translate", "--context", "product/42/title", "--owner", "w7", "--metadata", "{\"n\":1}"];
    let made = job(&[&track[..], &["--stale-after", "2m", "-o", "json"]].concat()).json();
    assert_eq!(
        (made["schema"].as_str(), made["changed"].as_bool()),
        (Some("recache.tracked-job.v1"), Some(true))
    );
    assert_eq!(
        (made["job"]["context"]["type"].as_str(), made["job"]["stale_after_ms"].as_u64()),
        (Some("product"), Some(120_000))
    );
    let id = made["job"]["id"].as_str().unwrap().to_owned();
    let again = job(&["track", "translate", "--id", &id, "--context", "product/42/title"]);
    assert!(again.err.contains("was there already"), "{again:?}");
    job(&["track", "other", "--id", &id]).refused(5, &["E-CONFLICT", &id]);

    let half =
        ["report", &id, "--state", "processing", "--done", "3", "--total", "12", "--message", "page 3"];
    let shown = job(&half).expect(0);
    for text in ["processing", "25 %, 3 of 12", "page 3", "product/42/title", "without a word"] {
        assert!(shown.contains(text), "`{text}` is not in:\n{shown}");
    }
    let late = job(&["report", &id, "--done", "1", "-o", "json"]);
    assert!(late.err.contains("nothing changed"), "{late:?}");
    assert_eq!((late.json()["job"]["items_done"].as_i64()), Some(3));
    job(&["heartbeat", &id]).expect(0);
    job(&["ack", &id]).refused(5, &["E-CONFLICT", "is processing"]);
    let failed = job(&["report", &id, "--state", "failed", "--code", "quota", "-o", "json"]).json();
    assert_eq!((failed["changed"].as_bool(), failed["job"]["code"].as_str()), (Some(true), Some("quota")));
    assert!(job(&["heartbeat", &id]).err.contains("it has ended: failed"));
    assert!(job(&["ack", &id, "--actor", "ann"]).expect(0).contains("by ann"));
    assert!(job(&["ack", &id, "--actor", "bob"]).err.contains("before"));

    let listed = job(&["tracked", "--context", "product/42", "-o", "json"]).json();
    assert_eq!(
        (listed["schema"].as_str(), listed["jobs"][0]["id"].as_str()),
        (Some("recache.tracked-jobs.v1"), Some(&*id))
    );
    assert!(job(&["tracked", "--unacknowledged"]).err.contains("no tracked jobs"));
    job(&["track", "second"]).expect(0);
    let page = job(&["tracked", "--limit", "1"]);
    assert!(page.err.contains("there are more: --before job_"), "{page:?}");
    assert!(job(&["show", &id]).expect(0).contains("tracked job"));
    job(&["show", UNKNOWN]).refused(3, &["E-NOT-FOUND", UNKNOWN, "recache job list"]);
    job(&["report", UNKNOWN, "--state", "completed"]).refused(3, &["E-NOT-FOUND", UNKNOWN, "job tracked"]);
    job(&["report", &id, "--progress", "1.5"]).refused(2, &["E-INVALID", "progress is 1.5"]);
    job(&["track", "x", "--context", "product"]).refused(2, &["TYPE/ID"]);
}
