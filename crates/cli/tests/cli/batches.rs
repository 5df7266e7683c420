//! `recache batch`: create, list, show, members, close, cancel, retry; `job submit --batch`, `job track --batch`.

use recache_store::conformance::postgres_database;

use super::world::World;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn batches_are_kept_looked_at_and_called_off() {
    batch_verbs_work(&World::sqlite().await);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn batches_are_kept_looked_at_and_called_off_over_postgresql() {
    if let Some(database) = postgres_database().await {
        let world = World::filled(database).await;
        batch_verbs_work(&world);
        world.store.close().await;
    }
}

fn batch_verbs_work(world: &World) {
    let batch = |arguments: &[&str]| world.run(&[&["batch"], arguments].concat());
    let job = |arguments: &[&str]| world.run(&[&["job"], arguments].concat());
    let unknown = "batch_00000000-0000-7000-8000-0000000000ff";
    assert!(batch(&["list"]).err.contains("no batches"));
    let create =
        ["create", "import", "--on-finish", "report", "--on-first-failure", "alert", "--input", "{\"n\":1}"];
    let made = batch(&[&create[..], &["-o", "json"]].concat()).json();
    assert_eq!((made["schema"].as_str(), made["changed"].as_u64()), (Some("recache.batch.v1"), Some(1)));
    assert_eq!(made["batch"]["on_finish"]["input"]["n"], 1);
    let id = made["batch"]["id"].as_str().unwrap().to_owned();
    batch(&["create", "other", "--id", &id]).refused(5, &["E-CONFLICT", &id]);

    let member = job(&["submit", "nobody_does_it", "--batch", &id]).expect(0);
    assert!(job(&["show", member.trim()]).expect(0).contains(&id));
    let tracked = job(&["track", "translate", "--batch", &id, "-o", "json"]).json();
    let tracked = tracked["job"]["id"].as_str().unwrap().to_owned();
    let failed = ["report", &tracked, "--state", "failed", "--message", "no quota"];
    assert!(job(&failed).expect(0).contains(&id));
    let shown = batch(&["show", &id]).expect(0);
    for text in ["processing", "2, 1 pending", "alert: job_", "open: members may be added"] {
        assert!(shown.contains(text), "`{text}` is not in:\n{shown}");
    }
    let members = batch(&["members", &id, "--failed"]).expect(0);
    assert!(members.contains(&tracked) && members.contains("no quota") && !members.contains(member.trim()));
    let page = batch(&["members", &id, "--limit", "1", "-o", "json"]).json();
    let next = page["next"].as_str().unwrap();
    let rest = batch(&["members", &id, "--after", next, "-o", "json"]).json();
    assert_eq!((rest["members"].as_array().unwrap().len(), rest["next"].is_null()), (1, true));

    let retried = batch(&["retry", &id]);
    assert!(retried.err.contains("0 jobs run again"), "jobs of others stay failed: {retried:?}");
    assert!(batch(&["close", &id]).expect(0).contains("closed"));
    assert!(batch(&["close", &id]).err.contains("was closed before"));
    job(&["submit", "x", "--batch", &id]).refused(5, &["E-CONFLICT", "is closed"]);
    let cancelled = batch(&["cancel", &id, "--reason", "wrong file", "-o", "json"]);
    assert!(cancelled.err.contains("1 members called off"), "{cancelled:?}");
    let document = cancelled.json();
    assert_eq!(
        (document["batch"]["state"].as_str(), document["changed"].as_u64()),
        (Some("failed"), Some(1))
    );
    assert!(
        document["batch"]["on_finish"]["job_id"].is_string() && document["batch"]["finished_at"].is_string()
    );
    let finish = document["batch"]["on_finish"]["job_id"].as_str().unwrap();
    let made = job(&["show", finish, "-o", "json"]).json();
    assert_eq!(
        (&made["job"]["input"]["moment"], &made["job"]["input"]["counts"]["total"]),
        (&"finish".into(), &2.into())
    );
    let listed = batch(&["list", "-o", "json"]).json();
    assert_eq!(
        (listed["schema"].as_str(), listed["batches"][0]["id"].as_str()),
        (Some("recache.batches.v1"), Some(&*id))
    );
    assert!(batch(&["list", "--unfinished"]).err.contains("no batches"));
    batch(&["show", unknown]).refused(3, &["E-NOT-FOUND", unknown, "recache batch list"]);
    job(&["submit", "x", "--batch", unknown]).refused(3, &["E-NOT-FOUND", unknown]);
}
