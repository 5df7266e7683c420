//! Every verb at work, as a table and as JSON, over both databases: what they print is the same.

use insta::assert_snapshot;
use recache_model::job::JobState;
use recache_store::conformance::postgres_database;

use super::world::{DONE, FAILED, QUEUED, RUNNING, World, id, narrow, steady};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_verb_works_over_sqlite() {
    every_verb_works(&World::sqlite().await).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_verb_works_over_postgresql() {
    if let Some(database) = postgres_database().await {
        let world = World::filled(database).await;
        every_verb_works(&world).await;
        world.store.close().await;
    }
}

async fn every_verb_works(world: &World) {
    let _steady = steady().bind_to_scope();

    assert_snapshot!("job_list_table", world.run(&["job", "list"]).expect(0));
    assert_snapshot!("job_list_json", world.run(&["job", "list", "--queue", "mail", "-o", "json"]).expect(0));
    let lines = world.run(&["job", "list", "-o", "jsonl"]).expect(0);
    assert_eq!(lines.lines().count(), 6);
    for line in lines.lines() {
        let job: recache_api::Job = serde_json::from_str(line).expect("a job on each line");
        assert!(job.id.starts_with("job_"));
    }

    for (name, job) in [("done", DONE), ("failed", FAILED)] {
        assert_snapshot!(format!("job_show_{name}_table"), world.run(&["job", "show", job]).expect(0));
    }
    for (name, job) in [("running", RUNNING), ("queued", QUEUED)] {
        let shown = world.run(&["job", "show", job]).expect(0);
        narrow().bind(|| assert_snapshot!(format!("job_show_{name}_table"), shown));
    }
    assert_snapshot!("job_show_failed_json", world.run(&["job", "show", FAILED, "-o", "json"]).expect(0));
    assert_snapshot!("job_show_done_json", world.run(&["job", "show", DONE, "-o", "json"]).expect(0));

    assert_snapshot!("view_show_table", world.run(&["view", "show", "shop/prices"]).expect(0));
    assert_snapshot!("view_show_json", world.run(&["view", "show", "shop/prices", "-o", "json"]).expect(0));
    assert_snapshot!("view_show_untouched_table", world.run(&["view", "show", "shop/untouched"]).expect(0));
    let items = world.run(&["view", "items", "shop/prices"]);
    assert_eq!(items.err, "shop/prices: version 2, up to date\n");
    assert_snapshot!("view_items_table", items.expect(0));
    assert_snapshot!("view_items_json", world.run(&["view", "items", "shop/prices", "-o", "json"]).expect(0));
    assert_eq!(
        world.run(&["view", "items", "shop/prices", "-o", "jsonl"]).expect(0),
        "{\"item\":\"sku-1\",\"value\":{\"cents\":120}}\n{\"item\":\"sku-2\",\"value\":{\"cents\":250.10}}\n"
    );
    let explained = world.run(&["view", "explain", "shop/prices", "-o", "json"]).json();
    assert_eq!(
        (&explained["waits_for"], &explained["remedy"]),
        (&"nothing".into(), &serde_json::Value::Null)
    );
    assert_eq!((&explained["live_version"], &explained["recache_version"]), (&2.into(), &2.into()));
    let explained = world.run(&["view", "explain", "shop/untouched"]).expect(0);
    assert!(explained.contains("nothing was ever touched") && explained.contains("--now"), "{explained}");
    let derive = ["view", "derive", "shop/untouched", "--from", "shop/prices"];
    assert!(world.run(&derive).err.contains("touched now"));
    assert!(world.run(&derive).err.contains("said before"));
    world
        .run(&["view", "derive", "shop/prices", "--from", "shop/untouched"])
        .refused(5, &["E-CONFLICT", "made from itself"]);
    let explained = world.run(&["view", "explain", "shop/prices", "-o", "json"]).json();
    assert_eq!(explained["feeds"][0], "shop/untouched");
    world.run(&["view", "derive", "shop/untouched", "--none"]).expect(0);
    let page = ["view", "items", "shop/prices", "--limit", "1", "-o", "jsonl"];
    let first = world.run(&page);
    assert_eq!(first.err, "there are more: --version 2 --after sku-1\n");
    assert_eq!(first.expect(0), "{\"item\":\"sku-1\",\"value\":{\"cents\":120}}\n");
    let rest = world.run(&[&page[..], &["--version", "2", "--after", "sku-1"]].concat());
    assert_eq!((rest.err.as_str(), rest.out.lines().count()), ("", 1), "{rest:?}");
    let gone = world.run(&[&page[..], &["--version", "9", "--after", "sku-1"]].concat());
    gone.refused(5, &["E-CONFLICT", "version 9", "begin again"]);
    assert_eq!(world.run(&["view", "get", "shop/prices", "sku-2"]).expect(0), "{\"cents\":250.10}\n");
    assert_snapshot!(
        "view_get_json",
        world.run(&["view", "get", "shop/prices", "sku-1", "--min-version", "2", "-o", "json"]).expect(0)
    );

    let both = ["view", "get", "shop/prices", "sku-2", "sku-1"];
    let printed = world.run(&[&both[..], &["-o", "jsonl"]].concat()).expect(0);
    assert_eq!(
        printed,
        "{\"item\":\"sku-2\",\"value\":{\"cents\":250.10}}\n{\"item\":\"sku-1\",\"value\":{\"cents\":120}}\n"
    );
    let document = world.run(&[&both[..], &["-o", "json"]].concat()).json();
    assert_eq!(
        (&document["schema"], &document["stale"], &document["items"][0]["item"]),
        (&"recache.view-items.v1".into(), &false.into(), &"sku-2".into())
    );
    let some = world.run(&[&both[..], &["sku-9"]].concat());
    assert!(some.err.contains("no item `sku-9`") && !some.err.contains("`sku-1`"), "{some:?}");
    let some = some.expect(3);
    assert!(some.contains("sku-2") && some.contains("{\"cents\":120}"), "the others are printed: {some}");
    let items = ["view", "items", "shop/prices", "--min-version", "2", "-o", "jsonl"];
    assert_eq!(world.run(&items).expect(0).lines().count(), 2);
    world
        .run(&["view", "items", "shop/prices", "--min-version", "3", "--timeout", "80ms"])
        .refused(124, &["E-TIMED-OUT", "version 3", "nobody has asked for it"]);
    world
        .run(&["view", "items", "shop/prices", "--min-version", "2", "--version", "1", "--limit", "1"])
        .refused(2, &["--min-version"]);

    let cancelled = world.run(&["job", "cancel", QUEUED, "--reason", "not needed", "-o", "json"]);
    assert_snapshot!("job_cancel_json", cancelled.expect(0));
    let again = world.run(&["job", "cancel", QUEUED]).expect(0);
    assert_eq!(again, format!("{QUEUED} was already cancelled\n"));
    let record = world.store.job_get(id(QUEUED)).await.unwrap();
    assert_eq!(record.state, JobState::Cancelled);
    assert_eq!(record.error.unwrap().message, "not needed");

    let retried = world.run(&["job", "retry", FAILED]).expect(0);
    assert_eq!(retried, format!("{FAILED} is now queued\n"));
    let record = world.store.job_get(id(FAILED)).await.unwrap();
    assert_eq!(record.state, JobState::Queued);

    let touched = world.run(&["view", "touch", "shop/prices", "--item", "sku-1"]).expect(0);
    assert_eq!(touched, "shop/prices: version 3 wanted\n");
    let touched = world.run(&["view", "touch", "shop/prices", "--now", "-o", "json"]);
    assert_snapshot!("view_touch_json", touched.expect(0));
    let view = world.store.view_get("shop", "prices").await.unwrap();
    assert_eq!((view.versions.wanted, view.versions.live), (4, 2));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn list_is_filtered_and_read_page_by_page() {
    let world = World::sqlite().await;
    let ids = |arguments: &[&str]| -> Vec<String> {
        let arguments = [&["job", "list", "-o", "jsonl"], arguments].concat();
        let lines = world.run(&arguments).expect(0);
        let id = |line| serde_json::from_str::<recache_api::Job>(line).unwrap().id;
        lines.lines().map(id).collect()
    };
    assert_eq!(ids(&["--state", "failed"]), [FAILED]);
    assert_eq!(ids(&["--queue", "mail"]), [FAILED]);
    assert_eq!(ids(&["--handler", "export"]), [RUNNING]);
    assert_eq!(ids(&["--namespace", "default"]), [RUNNING, FAILED, DONE]);
    assert_eq!(ids(&["--before", RUNNING]), [FAILED, DONE]);

    let page = world.run(&["job", "list", "--namespace", "default", "--limit", "2", "-o", "json"]).json();
    assert_eq!(page["next"], FAILED);
    let last = ["job", "list", "--namespace", "default", "--limit", "2", "--before", FAILED, "-o", "json"];
    let last = world.run(&last).json();
    assert_eq!((&last["next"], &last["jobs"][0]["id"]), (&serde_json::Value::Null, &DONE.into()));

    let none = world.run(&["job", "list", "--queue", "none"]);
    assert_eq!((none.code, none.out.as_str(), none.err.as_str()), (0, "", "no jobs\n"));
    let quiet = world.run(&["job", "list", "--queue", "none", "-q"]);
    assert_eq!((quiet.code, quiet.out.as_str(), quiet.err.as_str()), (0, "", ""));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn get_answers_when_the_version_it_waits_for_is_published() {
    let world = World::sqlite().await;
    let waiting = {
        let mut command =
            world.command(&["view", "get", "shop/prices", "sku-1", "--min-version", "3", "--timeout", "60s"]);
        tokio::task::spawn_blocking(move || super::world::run(&mut command))
    };
    world.build(3, &[("sku-1", "{\"cents\":130}")]).await;
    assert_eq!(waiting.await.unwrap().expect(0), "{\"cents\":130}\n");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn get_gives_up_when_its_time_is_over_and_says_why() {
    let world = World::sqlite().await;
    let get = |version| {
        world.run(&["view", "get", "shop/prices", "sku-1", "--min-version", version, "--timeout", "80ms"])
    };
    get("3").refused(124, &["E-TIMED-OUT", "not live within 80 ms: version 2 is", "nobody has asked for it"]);
    world.touch().await;
    get("3").refused(124, &["its build has not begun"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn stale_view_says_how_far_behind_it_is() {
    let world = World::sqlite().await;
    world.touch().await;
    let got = world.run(&["view", "get", "shop/prices", "sku-1"]);
    assert!(got.err.contains("shop/prices: version 2, ") && got.err.contains(" behind version 3"), "{got:?}");
    assert_eq!(got.expect(0), "{\"cents\":120}\n");
    for verb in [&["get", "shop/prices", "sku-1"][..], &["items", "shop/prices"]] {
        let told = world.run(&[&["view"], verb, &["-o", "json"]].concat()).json();
        assert_eq!((&told["stale"], &told["recache_version"]), (&true.into(), &3.into()), "{told}");
    }
    // What was replaced is stale whatever is live.
    let old =
        world.run(&["view", "items", "shop/prices", "--limit", "1", "--version", "1", "-o", "json"]).json();
    assert_eq!((&old["stale"], &old["version"]), (&true.into(), &1.into()));
    assert!(old["published_at"].is_string() && old["staleness_ms"].as_u64().unwrap() > 0, "{old}");
    world.build_waits(4).await;
    let view = world.run(&["view", "show", "shop/prices", "-o", "json"]).json();
    assert_eq!(view["view"]["recache_status"], "pending");
    assert!(view["view"]["staleness_ms"].as_u64().unwrap() > 1000);
    assert_eq!(
        (&view["build"]["state"], &view["build"]["handler"]),
        (&"queued".into(), &"build_prices".into())
    );
    let shown = world.run(&["view", "show", "shop/prices"]).expect(0);
    let build = view["view"]["build_job_id"].as_str().unwrap();
    assert!(shown.lines().any(|line| line.starts_with(build) && line.contains("queued")), "{shown}");
}
