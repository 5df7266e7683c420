//! `recache view define|list|history|diff|rebuild|pause|resume|rollback|delete`.

use std::time::Duration;

use recache_model::handlers::HandlerOffer;
use recache_model::ids::SessionId;
use recache_model::job::{ErrorKind, JobError};
use recache_store::conformance::postgres_database;
use recache_store::{ClaimRequest, OpenOptions, Outcome, Settlement, open};

use super::world::World;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn views_are_defined_compared_taken_back_and_deleted() {
    view_verbs_work(&World::sqlite().await).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn views_are_defined_compared_taken_back_and_deleted_over_postgresql() {
    if let Some(database) = postgres_database().await {
        let world = World::filled(database).await;
        view_verbs_work(&world).await;
        world.store.close().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn explain_says_what_a_view_waits_for_and_what_to_do() {
    views_are_explained(&World::sqlite().await).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn explain_says_what_a_view_waits_for_and_what_to_do_over_postgresql() {
    if let Some(database) = postgres_database().await {
        let world = World::filled(database).await;
        views_are_explained(&world).await;
        world.store.close().await;
    }
}

/// No engine is at work. The commands look at the clock, and the world's own stands still in the past.
async fn views_are_explained(world: &World) {
    let explain = |view: &str| world.run(&["view", "explain", view, "-o", "json"]).json();
    let waits = |view: &str| {
        let told = explain(view);
        (told["waits_for"].as_str().unwrap().to_owned(), told["remedy"].as_str().map(str::to_owned))
    };
    let is = |waits_for: &str, remedy: Option<&str>| (waits_for.to_owned(), remedy.map(str::to_owned));
    assert_eq!(waits("shop/prices"), is("nothing", None));
    assert_eq!(waits("shop/untouched"), is("untouched", Some("recache view touch shop/untouched --now")));
    world.touch().await;
    assert_eq!(waits("shop/prices"), is("reconciler", Some("recache serve")), "nobody reconciles");
    let told = explain("shop/prices");
    assert_eq!((&told["touched"]["by"], &told["handler"]), (&"call".into(), &"build_prices".into()));
    assert!(told["reason"].as_str().unwrap().contains("no engine is at work"), "{told}");

    world.build_waits(4).await;
    assert_eq!(waits("shop/prices"), is("worker", Some("recache worker list")), "nobody offers the handler");
    world.run(&["queue", "pause", "default", "--reason", "stock-taking"]).expect(0);
    assert_eq!(waits("shop/prices"), is("queue", Some("recache queue resume default")));
    world.run(&["queue", "resume", "default"]).expect(0);

    let store = open(&OpenOptions::new(world.url())).await.unwrap();
    let (session, lease) = (SessionId::make(), Duration::from_mins(10));
    store.session_open(session, "w1", lease).await.unwrap();
    let offer = async |queue: &str| {
        let handler = HandlerOffer { name: "build_prices".to_owned(), version: None, input_schema: None };
        let offers = store.handler_offers();
        assert!(offers.handlers_offer(session, vec![queue.to_owned()], 4, vec![handler]).await.unwrap());
    };
    offer("mail").await;
    let told = explain("shop/prices");
    assert_eq!((&told["workers"], &told["waits_for"]), (&0.into(), &"worker".into()));
    assert!(
        told["reason"].as_str().unwrap().contains("`w1` offers it, but takes from other queues"),
        "{told}"
    );
    offer("default").await;
    assert_eq!(waits("shop/prices"), is("worker", None), "it is only a matter of time");
    let told = explain("shop/prices");
    assert!(told["expected_at"].is_string() && told["workers"] == 1, "{told}");
    let limit = ["queue", "limit", "--handler", "build_prices"];
    world.run(&[&limit[..], &["--running", "0"]].concat()).expect(0);
    let running = "recache job list --handler build_prices --state running";
    assert_eq!(waits("shop/prices"), is("limit", Some(running)));
    world.run(&[&limit[..], &["--off"]].concat()).expect(0);
    world.run(&["queue", "limit", "default", "--running", "1"]).expect(0);
    assert_eq!(waits("shop/prices").0, "limit", "`export` runs in that queue");
    world.run(&["queue", "limit", "default", "--off"]).expect(0);

    let request = ClaimRequest {
        session,
        queues: vec!["default".to_owned()],
        handlers: vec!["build_prices".to_owned()],
        rows_max: 1,
    };
    let build = store.jobs_dispatch(Vec::new(), Some(request)).await.unwrap().claimed.remove(0);
    store.build_begin(build.token).await.unwrap().unwrap();
    let show = format!("recache job show {}", build.token.job);
    assert_eq!(waits("shop/prices"), is("build", Some(&show)));
    assert!(explain("shop/prices")["reason"].as_str().unwrap().contains("is being built by `w1`"));
    store.session_beat(session, Duration::ZERO, Vec::new()).await.unwrap();
    assert_eq!(waits("shop/prices"), is("takeover", Some("recache serve")), "its worker is dead");
    store.session_beat(session, lease, Vec::new()).await.unwrap();
    let error = JobError::new(ErrorKind::Retryable, "the supplier is away");
    let outcome = Outcome::Retry { error, after: Duration::from_mins(5) };
    store.jobs_dispatch(vec![Settlement::of(&build, outcome)], None).await.unwrap();
    assert_eq!(waits("shop/prices"), is("retry", Some(&show)));
    let told = explain("shop/prices");
    assert!(told["until"].is_string(), "{told}");
    for text in ["attempt 1 of 3", "the supplier is away"] {
        assert!(told["reason"].as_str().unwrap().contains(text), "{told}");
    }
    world.run(&["job", "cancel", &build.token.job.to_string(), "--reason", "enough"]).expect(0);
    assert_eq!(waits("shop/prices"), is("touch", Some("recache view touch shop/prices --now")));

    // What it is made from.
    world.run(&["view", "derive", "shop/untouched", "--from", "shop/prices"]).expect(0);
    let told = explain("shop/untouched");
    assert_eq!((&told["touches_waiting"], &told["waits_for"]), (&1.into(), &"reconciler".into()), "{told}");
    assert_eq!(told["remedy"], "recache serve");
    store.views_reconcile(10).await.unwrap();
    let told = explain("shop/untouched");
    assert_eq!((&told["touches_waiting"], &told["touched"]["by"]), (&0.into(), &"sources".into()), "{told}");
    assert_eq!(
        (&told["waits_for"], &told["behind_above"][0]["view"]),
        (&"debounce".into(), &"shop/prices".into())
    );
    assert!(told["until"].is_string(), "{told}");
    let shown = world.run(&["view", "explain", "shop/untouched"]).expect(0);
    for text in ["because it was said what it is made from", "behind above", "could not be built", "to act"] {
        assert!(shown.contains(text), "`{text}` is not in:\n{shown}");
    }
    world.build(5, &[("sku-1", "{\"cents\":1}")]).await;
    assert_eq!(explain("shop/untouched")["touches_waiting"], 1);
    store.views_reconcile(10).await.unwrap();
    let told = explain("shop/untouched");
    assert_eq!((&told["touched"]["by"], &told["touched"]["view"]), (&"view".into(), &"shop/prices".into()));
    let shown = world.run(&["view", "explain", "shop/untouched"]).expect(0);
    assert!(shown.contains("because shop/prices was published"), "{shown}");
    world.run(&["view", "pause", "shop/prices", "--reason", "odd"]).expect(0);
    let told = explain("shop/untouched");
    assert_eq!(told["behind_above"][0]["is_paused"], true, "{told}");
    store.close().await;
}

async fn view_verbs_work(world: &World) {
    let view = |arguments: &[&str]| world.run(&[&["view"], arguments].concat());
    // Versions 1 and 2 are there; 3 has one item less and one more.
    world.build(3, &[("sku-1", "{\"cents\":120}"), ("sku-3", "{\"cents\":5}")]).await;

    let diff = view(&["diff", "shop/prices", "1", "3", "-o", "json"]).json();
    let changes: Vec<_> =
        diff["items"].as_array().unwrap().iter().map(|row| row["change"].as_str().unwrap()).collect();
    assert_eq!((&diff["schema"], changes), (&"recache.view-diff.v1".into(), vec!["changed", "added"]));
    let page = view(&["diff", "shop/prices", "1", "3", "--limit", "1"]);
    assert!(page.err.contains("--after sku-1"), "{page:?}");
    assert!(view(&["diff", "shop/prices", "2", "2"]).err.contains("do not differ"));
    view(&["diff", "shop/prices", "1", "9"]).refused(5, &["E-CONFLICT", "is not kept"]);

    view(&["rollback", "shop/prices", "--to", "1"]).refused(2, &["--reason"]);
    let back = ["rollback", "shop/prices", "--to", "1", "--reason", "wrong prices", "--actor", "ada"];
    let done = view(&back);
    assert!(done.out.contains("version 4 is live with the content of 1"), "{done:?}");
    assert!(done.err.contains("recache view resume shop/prices"), "{done:?}");
    assert_eq!(view(&["get", "shop/prices", "sku-1"]).expect(0), "{\"cents\":100}\n");
    view(&["rollback", "shop/prices", "--to", "4", "--reason", "x"])
        .refused(5, &["E-CONFLICT", "is the live one"]);
    let shown = view(&["show", "shop/prices"]).expect(0);
    for text in ["by ada: wrong prices", "restored from 1"] {
        assert!(shown.contains(text), "`{text}` is not in:\n{shown}");
    }
    view(&["rebuild", "shop/prices", "--reason", "try again"]).expect(0);
    let explained = view(&["explain", "shop/prices", "-o", "json"]).json();
    assert_eq!(explained["waits_for"], "resume");
    assert_eq!(explained["remedy"], "recache view resume shop/prices");
    assert!(view(&["list"]).expect(0).contains("pending, paused"));
    assert!(view(&["resume", "shop/prices"]).expect(0).contains("begin again"));
    assert!(view(&["resume", "shop/prices"]).expect(0).contains("was not paused"));
    assert_eq!(view(&["explain", "shop/prices", "-o", "json"]).json()["waits_for"], "reconciler");
    assert!(view(&["pause", "shop/prices", "--reason", "later"]).expect(0).contains("paused"));
    assert!(view(&["pause", "shop/prices", "--reason", "later"]).expect(0).contains("before"));

    let history = view(&["history", "shop/prices", "-o", "json"]).json();
    let states: Vec<_> = history["builds"]
        .as_array()
        .unwrap()
        .iter()
        .map(|build| build["job"]["state"].as_str().unwrap())
        .collect();
    assert_eq!(states, ["completed", "completed", "completed"]);
    let page = view(&["history", "shop/prices", "--limit", "1"]);
    assert!(page.err.contains("--before job_"), "{page:?}");

    view(&["resume", "shop/prices"]).expect(0);
    world.build_twice(7, &[("sku-1", "1"), ("sku-2", "2"), ("sku-3", "3")], &["sku-2", "sku-3"]).await;
    let history = view(&["history", "shop/prices", "--limit", "2", "-o", "json"]).json();
    let of = |build: &serde_json::Value| {
        (build["job"]["state"].clone(), build["successor_version"].clone(), build["successor_reused"].clone())
    };
    assert_eq!(of(&history["builds"][0]), ("completed".into(), ().into(), ().into()), "{history}");
    assert_eq!(of(&history["builds"][1]), ("superseded".into(), 7.into(), 2.into()), "{history}");
    assert!(view(&["history", "shop/prices"]).expect(0).contains("2 by 7"));

    let define = [
        "define",
        "shop/new",
        "--handler",
        "build_new",
        "--quiet-for",
        "5s",
        "--on-touch",
        "auto",
        "--any-staleness",
    ];
    let defined = view(&[&define[..], &["-o", "json"]].concat()).json();
    assert_eq!(
        (&defined["policy"]["debounce_quiet_ms"], &defined["policy"]["on_touch"]),
        (&5000.into(), &"auto".into())
    );
    assert_eq!(defined["policy"]["max_staleness_ms"], serde_json::Value::Null);
    view(&["define", "shop/new"]).refused(2, &["--handler"]);
    let kept = ["define", "shop/new", "--handler", "x", "--keep-generations", "24h", "--lease", "1m"];
    let shown = view(&kept).expect(0);
    assert!(shown.contains("generations kept") && shown.contains("lease"), "{shown}");
    let shown = view(&["show", "shop/new", "-o", "json"]).json();
    assert_eq!(
        (&shown["view"]["generation_keep_ms"], &shown["view"]["lease_ms"]),
        (&86_400_000.into(), &60_000.into())
    );
    view(&["define", "shop/new", "--handler", "x", "--keep-generations", "9999h"])
        .refused(2, &["generation_keep_ms"]);
    view(&["define", "shop/new", "--handler", "x", "--lease", "1ms"]).refused(2, &["lease_ms"]);
    view(&["define", "shop/new", "--handler", "x", "--concurrency", "2"]).refused(2, &["of a pattern"]);
    view(&["define", "shop/few/*", "--handler", "x", "--concurrency", "2"]).expect(0);
    assert!(view(&["patterns", "-o", "json"]).expect(0).contains("\"concurrency\": 2"));
    view(&["delete", "shop/few/*", "--reason", "unused"]).expect(0);
    view(&["define", "a", "--handler", "x"]).refused(2, &["NAMESPACE/KEY"]);
    let listed = view(&["list", "--namespace", "shop", "--status", "idle", "-o", "json"]).json();
    assert_eq!(listed["views"][0]["key"], "new");
    let page = view(&["list", "--limit", "1", "-o", "json"]).json();
    let next = page["next"].as_str().unwrap().to_owned();
    assert_ne!(
        view(&["list", "--limit", "1", "--after", &next, "-o", "json"]).json()["views"],
        page["views"]
    );
    view(&["list", "--status", "sleeping"]).refused(2, &["pending"]);

    view(&["derive", "shop/new", "--from", "shop/prices"]).expect(0);
    view(&["delete", "shop/prices", "--reason", "unused"]).refused(5, &["E-CONFLICT", "shop/new"]);
    view(&["delete", "shop/new", "--reason", "unused"]).expect(0);
    view(&["delete", "shop/prices", "--reason", "unused"]).expect(0);
    view(&["show", "shop/prices"]).refused(3, &["E-NOT-FOUND"]);
    patterns_work(world);
}

fn patterns_work(world: &World) {
    let view = |arguments: &[&str]| world.run(&[&["view"], arguments].concat());
    let file = std::env::temp_dir().join(format!("recache-schema-{}.json", std::process::id()));
    std::fs::write(&file, "{\"type\":\"object\"}").unwrap();
    let schema = file.to_str().unwrap();
    let define = ["define", "shop/alliance/*", "--handler", "build_alliance", "--item-value-schema", schema];
    assert!(view(&define).expect(0).contains("0 views changed"));
    assert!(view(&["touch", "shop/alliance/*"]).expect(0).contains("0 views touched"), "it makes none");
    assert!(view(&["touch", "shop/alliance/7"]).expect(0).contains("version 1 wanted"));
    let shown = view(&["show", "shop/alliance/7"]).expect(0);
    for text in ["build_alliance", "made from", "shop/alliance/*", "item values fit"] {
        assert!(shown.contains(text), "`{text}` is not in:\n{shown}");
    }
    let touched = view(&["touch", "shop/alliance/*", "--item", "a", "-o", "json"]).json();
    assert_eq!((&touched["schema"], &touched["views"]), (&"recache.views-matching.v1".into(), &1.into()));
    view(&["touch", "shop/alliance/*", "--now"]).refused(2, &["--now", "debounce"]);
    let listed = view(&["patterns", "--namespace", "shop", "-o", "json"]).json();
    assert_eq!(
        (&listed["patterns"][0]["pattern"], &listed["patterns"][0]["item_value_schema"]["type"]),
        (&"alliance/*".into(), &"object".into())
    );
    assert!(view(&["patterns"]).expect(0).contains("shop/alliance/*"));
    assert!(view(&define).expect(0).contains("1 views changed"));
    std::fs::write(&file, "{\"type\":7}").unwrap();
    view(&define).refused(2, &["item_value_schema"]);
    std::fs::write(&file, "{").unwrap();
    view(&define).refused(2, &["--item-value-schema", "no JSON"]);
    std::fs::remove_file(&file).unwrap();
    view(&define).refused(2, &["--item-value-schema"]);
    view(&["delete", "shop/alliance/*", "--reason", "unused"]).expect(0);
    view(&["touch", "shop/alliance/8"]).refused(3, &["E-NOT-FOUND"]);
    view(&["show", "shop/alliance/7"]).expect(0);
}
