use std::fs;
use std::io::{Read as _, Write as _};

use recache_engine::Engine;
use recache_store::{OpenOptions, open};
use recache_worker::{BuildContext, Handlers};
use serde_json::Value;

use super::{Ran, Served, both, text};

#[tokio::test(flavor = "multi_thread")]
async fn jobs_are_submitted_waited_for_listed_cancelled_and_retried() {
    for served in both().await {
        let done = served.there(&["job", "submit", "echo", "--input", "{\"n\":1.50}", "-o", "json"]).json();
        let done = text(&done["id"]);
        let waited = served.there(&["job", "wait", done, "--timeout", "20s", "-o", "json"]).json();
        assert_eq!(waited["job"]["state"], "completed");
        assert_eq!(served.same(&["job", "show", done]), waited);
        assert_eq!(served.same(&["job", "wait", done])["job"]["id"], done);
        let failed = served.there(&["job", "submit", "fail", "--attempts", "1"]).ok();
        let failed = failed.trim();
        assert_eq!(served.there(&["job", "wait", failed, "--timeout", "20s"]).code, 7);
        assert_eq!(served.here(&["job", "wait", failed, "--timeout", "20s"]).code, 7);
        let page = served.same(&["job", "list", "--limit", "1"]);
        let next = text(&page["next"]);
        assert_eq!(next, failed, "an id, not a cursor");
        assert_eq!(served.same(&["job", "list", "--before", next])["jobs"][0]["id"], done);
        served.same(&["job", "list", "--state", "failed", "--handler", "fail", "--namespace", "default"]);
        served.same(&["job", "list", "--queue", "none"]);
        let shown = served.same(&["job", "show", done]);
        let of = [
            "--correlation-id",
            text(&shown["job"]["correlation_id"]),
            "--created-from",
            "2026-05-01T12:00:00Z",
        ];
        let listed = served.same(&[&["job", "list"][..], &of].concat());
        assert_eq!((listed["jobs"].as_array().unwrap().len(), &listed["jobs"][0]["id"]), (1, &done.into()));
        let none = served.same(&["job", "list", "--created-before", "2026-05-01T12:00:00Z"]);
        assert_eq!((&none["jobs"], &none["next"]), (&Value::Array(Vec::new()), &Value::Null));
        let batch = served.there(&["batch", "create", "import", "-o", "json"]).json();
        let batch = text(&batch["batch"]["id"]);
        assert_eq!(served.same(&["job", "list", "--batch", batch])["jobs"], Value::Array(Vec::new()));

        let late = served.there(&["job", "submit", "echo", "--delay", "2h", "--idempotency-key", "k"]).ok();
        let again = served.there(&["job", "submit", "echo", "--delay", "2h", "--idempotency-key", "k"]);
        assert_eq!((&again.out, again.err.contains("was there already")), (&late, true));
        let late = late.trim();
        served.there(&["job", "wait", late, "--timeout", "100ms"]).refused(124, &["E-TIMED-OUT", "queued"]);
        served.here(&["job", "wait", late, "--timeout", "100ms"]).refused(124, &["E-TIMED-OUT", "queued"]);
        let cancelled = served.there(&["job", "cancel", late, "--reason", "wrong", "-o", "json"]).json();
        assert_eq!((&cancelled["state"], &cancelled["changed"]), (&"cancelled".into(), &true.into()));
        let shown = served.same(&["job", "show", late]);
        assert_eq!(shown["history"][0]["error"]["message"], "wrong", "{shown}");
        let retried = served.there(&["job", "retry", failed, "-o", "json"]).json();
        assert_eq!(retried["state"], "queued");
        assert_eq!(served.there(&["job", "wait", failed, "--timeout", "20s"]).code, 7);
        for (here, there) in [
            (served.here(&["job", "retry", done]), served.there(&["job", "retry", done])),
            (served.here(&["job", "cancel", done]), served.there(&["job", "cancel", done])),
        ] {
            assert_eq!((here.code, there.code), (5, 5), "{there:?}");
            assert!(there.err.contains("E-CONFLICT"), "{there:?}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_said_of_a_job_when_it_is_submitted_is_kept() {
    const SAID: [&str; 12] = [
        "--attempts",
        "7",
        "--backoff",
        "linear",
        "--backoff-base",
        "2h",
        "--backoff-cap",
        "1h",
        "--jitter",
        "0",
        "--correlation-id",
        "order-7",
    ];
    for served in both().await {
        for is_there in [true, false] {
            let submit = |more: &[&str]| {
                let arguments = [&["job", "submit", "fail"][..], &SAID, more].concat();
                let ran = if is_there { served.there(&arguments) } else { served.here(&arguments) };
                ran.ok().trim().to_owned()
            };
            let late = submit(&["--due-at", "2099-01-01T00:00:00Z"]);
            let late = served.there(&["job", "show", &late, "-o", "json"]).json()["job"].clone();
            assert_eq!(late["due_at"], "2099-01-01T00:00:00.000000Z");
            assert_eq!((&late["correlation_id"], &late["attempts_max"]), (&"order-7".into(), &7.into()));
            let failing = submit(&[]);
            let mut job = Value::Null;
            for _ in 0..200 {
                job = served.there(&["job", "show", &failing, "-o", "json"]).json()["job"].clone();
                if job["attempt"] == 1 && job["state"] == "queued" {
                    break;
                }
                tokio::time::sleep(std::time::Duration::from_millis(50)).await;
            }
            let at = |field: &str| text(&job[field]).parse::<recache_api::Instant>().unwrap().micros();
            let wait_s = (at("due_at") - at("started_at")) / 1_000_000;
            // As the first wait says, cut by the longest.
            assert!((3_600..3_620).contains(&wait_s), "{job}");
        }
        for (wrong, named) in [(["--jitter", "1.5"], "jitter"), (["--backoff-cap", "x"], "backoff-cap")] {
            for ran in [
                served.there(&[&["job", "submit", "echo"][..], &wrong].concat()),
                served.here(&[&["job", "submit", "echo"][..], &wrong].concat()),
            ] {
                assert_ne!(ran.code, 0, "{ran:?}");
                assert!(ran.err.contains(named), "{ran:?}");
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn jobs_are_changed_by_filter() {
    for served in both().await {
        for _ in 0..3 {
            served.there(&["job", "submit", "echo", "--delay", "2h", "--queue", "late"]).ok();
        }
        let counted = served.same(&["job", "cancel", "--queue", "late", "--dry-run"]);
        assert_eq!((&counted["matching"], &counted["changed"]), (&3.into(), &0.into()));
        assert_eq!(served.there(&["job", "cancel", "--queue", "late"]).ok(), "3 changed\n");
        assert_eq!(served.same(&["job", "retry", "--all", "--dry-run"])["matching"], 0);
        assert_eq!(served.there(&["job", "delete", "--queue", "late", "-o", "json"]).json()["changed"], 3);
        assert_eq!(served.same(&["job", "list", "--queue", "late"])["jobs"], serde_json::json!([]));
    }
}

/// This program reads, the server keeps: what it made is what a database would have got.
#[test]
fn tracker_in_a_redis_is_taken_over_by_a_server() {
    let Ok(url) = std::env::var("RECACHE_TEST_REDIS_URL") else {
        assert!(
            std::env::var_os("CI").is_none(),
            "RECACHE_TEST_REDIS_URL is not set: run `cargo xtask test`"
        );
        eprintln!("SKIPPED: no Redis; RECACHE_TEST_REDIS_URL is not set");
        return;
    };
    let prefix = format!("there{}_", std::process::id());
    let place = url.strip_prefix("redis://").unwrap().split('/').next().unwrap();
    let mut redis = std::net::TcpStream::connect(place).unwrap();
    for (key, value) in [
        ("job_1", r#"{"status":"completed","action":"translate","batch_id":"b1","result":{"n":1}}"#),
        ("job_2", r#"{"status":"processing","progress":40}"#),
        ("job_odd", r#"{"status":"odd"}"#),
        ("batch_b1", r#"{"action":"import","total":1}"#),
    ] {
        let quoted = serde_json::to_string(value).unwrap();
        redis.write_all(format!("SET {prefix}{key} {quoted}\r\n").as_bytes()).unwrap();
        let mut answer = [0; 64];
        let count = redis.read(&mut answer).unwrap();
        assert_eq!(&answer[..count], b"+OK\r\n");
    }
    let served = Served::start(&[]);
    let import = ["job", "import", "--redis", &url, "--prefix", &prefix, "-o", "json"];
    let counts = |ran: &Ran| {
        assert_eq!(ran.code, 1, "{ran:?}");
        let document: Value = serde_json::from_str(&ran.out).unwrap();
        assert_eq!(document["unread"].as_array().unwrap().len(), 1, "{document}");
        ["jobs_new", "jobs_known", "batches_new", "batches_known"]
            .map(|name| document[name].as_u64().unwrap())
    };
    assert_eq!(counts(&served.there(&import)), [2, 0, 1, 0]);
    let jobs = served.same(&["job", "tracked"]);
    let states: Vec<_> = jobs["jobs"].as_array().unwrap().iter().map(|job| text(&job["state"])).collect();
    assert!(states.contains(&"completed") && states.contains(&"processing"), "{jobs}");
    let batches = served.same(&["batch", "list"]);
    assert_eq!(batches["batches"][0]["state"], "completed", "{batches}");
    assert_eq!(counts(&served.there(&import)), [0, 2, 0, 1]);
    assert_eq!(counts(&served.here(&import)), [0, 2, 0, 1]);
}

#[tokio::test(flavor = "multi_thread")]
async fn tracked_jobs_are_reported_and_found_again() {
    for served in both().await {
        let track = ["job", "track", "translate", "--context", "product/42/title", "--owner", "w7"];
        let id = served.there(&track).ok();
        let id = id.trim();
        let report = ["job", "report", id, "--state", "processing", "--done", "1", "--total", "4"];
        let reported = served.there(&[&report[..], &["-o", "json"]].concat()).json();
        assert_eq!((&reported["job"]["progress"], &reported["changed"]), (&0.25.into(), &true.into()));
        assert!(served.there(&report).err.contains("nothing changed"));
        served.there(&["job", "heartbeat", id]).ok();
        served.there(&["job", "ack", id]).refused(5, &["E-CONFLICT"]);
        served.there(&["job", "report", id, "--state", "completed", "--data", "{\"n\":1}"]).ok();
        served.there(&["job", "ack", id]).ok();
        served.same(&["job", "show", id]);
        assert_eq!(served.same(&["job", "tracked", "--context", "product/42"])["jobs"][0]["id"], id);
        served.same(&["job", "tracked", "--unacknowledged"]);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn workflows_are_submitted_looked_at_and_moved_on() {
    for served in both().await {
        let template = "namespace: shop\nname: order\nversion: 1.0.0\nsteps:\n  - name: fetch\n    handler: {callable: none}\n  \
                        - name: paid\n    dependencies: [fetch]\n    wait_for: {signal: paid}\n";
        fs::write(served.folder.path().join("order.yaml"), template).unwrap();
        served.here(&["template", "apply", "order.yaml"]).ok();
        let submit = ["workflow", "submit", "shop/order", "--input", "{\"n\":1}", "-o", "json"];
        let submitted = served.there(&submit).json();
        let id = text(&submitted["id"]);
        served.there(&["workflow", "complete", id, "fetch", "--result", "{}", "--reason", "by hand"]).ok();
        served.there(&["workflow", "signal", id, "paid", "--payload", "{\"sum\":7}"]).ok();
        assert!(
            served
                .there(&["workflow", "signal", id, "paid", "--payload", "{\"sum\":7}"])
                .ok()
                .contains("before")
        );
        let mut state = String::new();
        for _ in 0..200 {
            let shown = served.there(&["workflow", "show", id, "-o", "json"]).json();
            state = text(&shown["workflow"]["state"]).to_owned();
            if state == "completed" {
                break;
            }
            tokio::time::sleep(std::time::Duration::from_millis(50)).await;
        }
        assert_eq!(state, "completed");
        served.same(&["workflow", "show", id]);
        let again =
            served.there(&["workflow", "retry", id, "--all", "--reason", "again", "-o", "json"]).json();
        let again = text(&again["id"]);
        let cancelled = served.there(&["workflow", "cancel", again, "-o", "json"]).json();
        assert_eq!(cancelled["count"], 2);
        let anew = ["workflow", "retry", again, "--downstream", "--reason", "again", "-o", "json"];
        assert_eq!(served.there(&anew).json()["change"], "run_failed_again");
        let page = served.same(&["workflow", "list", "--limit", "2"]);
        served.same(&["workflow", "list", "--before", text(&page["next"]), "--template", "order"]);
        served.same(&["workflow", "list", "--state", "cancelled", "--namespace", "shop"]);
        served.there(&["workflow", "resolve", id, "fetch", "--reason", "x"]).refused(5, &["E-CONFLICT"]);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn batches_and_dead_letters_are_kept_in_hand() {
    for served in both().await {
        let create =
            ["batch", "create", "import", "--metadata", "{\"file\":7}", "--on-finish", "echo", "-o", "json"];
        let created = served.there(&create).json();
        let batch = text(&created["batch"]["id"]);
        let submit = ["job", "submit", "fail", "--attempts", "1", "--batch", batch];
        let job = served.there(&submit).ok();
        let job = job.trim();
        assert_eq!(served.there(&["job", "wait", job, "--timeout", "20s"]).code, 7);
        let closed = served.there(&["batch", "close", batch, "-o", "json"]).json();
        assert_eq!((&closed["changed"], &closed["batch"]["counts"]["failed"]), (&1.into(), &1.into()));
        assert!(served.there(&["batch", "close", batch]).err.contains("closed before"));
        for _ in 0..200 {
            let shown = served.there(&["batch", "show", batch, "-o", "json"]).json();
            if shown["batch"]["finished_at"].is_string() {
                break;
            }
            tokio::time::sleep(std::time::Duration::from_millis(50)).await;
        }
        assert!(served.same(&["batch", "show", batch])["batch"]["on_finish"]["job_id"].is_string());
        assert_eq!(served.same(&["batch", "members", batch, "--failed"])["members"][0]["id"], job);
        assert_eq!(served.same(&["batch", "list", "--action", "import"])["batches"][0]["id"], batch);
        served.same(&["batch", "list", "--unfinished"]);

        assert_eq!(served.same(&["dead", "list"])["letters"][0]["job_id"], job);
        served.same(&["dead", "list", "--status", "resolved", "--stale", "1h"]);
        served.there(&["dead", "investigate", job, "--reason", "I look"]).ok();
        served.there(&["dead", "note", job, "the address is wrong"]).ok();
        let shown = served.same(&["dead", "show", job]);
        assert_eq!(
            (&shown["letter"]["status"], &shown["notes"][0]["actor"]),
            (&"investigating".into(), &"anonymous".into())
        );
        served.same(&["dead", "redrive", "--all", "--reason", "x", "--dry-run"]);
        let redriven = served.there(&["dead", "redrive", "--all", "--reason", "mended", "-o", "json"]).json();
        assert_eq!((&redriven["changed"], &redriven["next"]), (&1.into(), &serde_json::Value::Null));
        assert_eq!(served.there(&["job", "wait", job, "--timeout", "20s"]).code, 7);
        let retried = served.there(&["batch", "retry", batch, "-o", "json"]).json();
        assert_eq!(retried["changed"], 1, "{retried}");
        assert_eq!(served.there(&["job", "wait", job, "--timeout", "20s"]).code, 7);
        served.same(&["dead", "redrive", job, "--queue", "none", "--reason", "x", "--dry-run"]);
        let elsewhere = ["dead", "redrive", job, "--queue", "none", "--reason", "x"];
        served.there(&elsewhere).refused(5, &["E-CONFLICT", "was not redriven"]);
        served.there(&["dead", "redrive", job, "--reason", "again"]).ok();
        assert_eq!(served.there(&["job", "wait", job, "--timeout", "20s"]).code, 7);
        served.there(&["dead", "resolve", job, "--reason", "by hand"]).ok();
        served.there(&["dead", "discard", job, "--reason", "x"]).refused(5, &["E-CONFLICT"]);
        served.same(&["dead", "show", job]);
        let other = served.there(&["batch", "create", "other", "--expect", "3"]).ok();
        let cancelled =
            served.there(&["batch", "cancel", other.trim(), "--reason", "wrong file", "-o", "json"]).json();
        assert_eq!(cancelled["batch"]["cancel_reason"], "wrong file");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn queues_are_paused_drained_resumed_and_limited() {
    for served in both().await {
        let pause = ["queue", "pause", "mail", "--reason", "it moves", "--for", "2h", "-o", "json"];
        assert_eq!(served.there(&pause).json()["queue"]["pause"]["reason"], "it moves");
        served.there(&["job", "submit", "echo", "--queue", "mail"]).ok();
        assert_eq!(served.same(&["queue", "show", "mail"])["queue"]["queued"], 1);
        assert!(served.there(&["queue", "list"]).ok().contains("anonymous: it moves"));
        let drained = ["queue", "drain", "mail", "--reason", "r", "--timeout", "10s", "-o", "json"];
        assert_eq!(served.there(&drained).json()["queue"]["running"], 0);
        assert!(served.there(&["queue", "resume", "mail"]).ok().contains("open"));
        assert!(served.there(&["queue", "resume", "mail"]).err.contains("was not paused"));
        served.there(&["queue", "limit", "mail", "--running", "5", "--rate", "100/1m"]).ok();
        served.there(&["queue", "limit", "--handler", "send", "--running", "2"]).ok();
        served.there(&["queue", "limit", "--key", "k", "--namespace", "shop", "--running", "3"]).ok();
        assert_eq!(served.same(&["queue", "limits"])["limits"].as_array().unwrap().len(), 3);
        served.there(&["queue", "limit", "mail", "--off"]).ok();
        assert_eq!(served.same(&["queue", "limits"])["limits"].as_array().unwrap().len(), 2);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn views_are_touched_listed_and_read() {
    for served in both().await {
        for view in ["shop/prices", "shop/sums/de", "shop/names"] {
            served.here(&["view", "define", view, "--handler", "nobody"]).ok();
        }
        let page = served.same(&["view", "list", "--limit", "2"]);
        assert_eq!(page["next"], "shop/prices");
        assert_eq!(served.same(&["view", "list", "--after", "shop/prices"])["views"][0]["key"], "sums/de");
        served.same(&["view", "list", "--namespace", "shop", "--status", "idle", "--limit", "1"]);
        served.same(&["view", "list", "--status", "failed"]);
        let touched = served.there(&[
            "view",
            "touch",
            "shop/prices",
            "--item",
            "a",
            "--now",
            "--reason",
            "r",
            "-o",
            "json",
        ]);
        assert_eq!(touched.json()["recache_version"], 1);
        for _ in 0..200 {
            let history = served.there(&["view", "history", "shop/prices", "-o", "json"]).json();
            if !history["builds"].as_array().unwrap().is_empty() {
                break;
            }
            tokio::time::sleep(std::time::Duration::from_millis(50)).await;
        }
        let history = served.same(&["view", "history", "shop/prices"]);
        assert_eq!(history["builds"].as_array().unwrap().len(), 1, "{history}");
        assert_eq!(served.same(&["view", "show", "shop/sums/de"])["view"]["key"], "sums/de");
        served.there(&["view", "get", "shop/prices", "a"]).refused(3, &["E-NOT-FOUND", "no generation yet"]);
        let late = ["view", "get", "shop/prices", "a", "--min-version", "1", "--timeout", "300ms"];
        served.there(&late).refused(124, &["E-TIMED-OUT", "is not live"]);
        served.there(&["view", "show", "shop/none"]).refused(3, &["E-NOT-FOUND"]);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn item_is_read_as_soon_as_its_version_is_live() {
    for served in both().await {
        // Another process builds: the server has no handler for it.
        let store = open(&OpenOptions::new(served.url_of_database())).await.unwrap();
        let mut handlers = Handlers::new();
        let build = async |build: BuildContext| {
            build.put("version", None, &build.version()).await?;
            Ok(())
        };
        handlers.view("counting", build).unwrap();
        let engine = Engine::builder(store.clone()).handlers(handlers).start().await.unwrap();
        served.here(&["view", "define", "shop/prices", "--handler", "counting"]).ok();
        let touched = served.there(&["view", "touch", "shop/prices", "--now", "-o", "json"]).json();
        assert_eq!(touched["recache_version"], 1);
        let get = ["view", "get", "shop/prices", "version", "--min-version", "1", "--timeout", "30s"];
        assert_eq!(served.there(&get).ok(), "1\n");
        let read = served.same(&["view", "get", "shop/prices", "version"]);
        assert_eq!((&read["schema"], &read["version"]), (&"recache.view-value.v1".into(), &1.into()));
        let several = served.same(&["view", "get", "shop/prices", "version", "version"]);
        assert_eq!((&several["stale"], &several["items"][1]["value"]), (&false.into(), &1.into()));
        let several = served.there(&["view", "get", "shop/prices", "none", "version", "-o", "jsonl"]);
        assert_eq!(
            (several.code, several.out.as_str()),
            (3, "{\"item\":\"version\",\"value\":1}\n"),
            "{several:?}"
        );
        let items = ["view", "items", "shop/prices", "--min-version", "1", "--timeout", "30s"];
        assert_eq!(served.same(&items)["items"][0]["item"], "version");
        let late = ["view", "items", "shop/prices", "--min-version", "9", "--timeout", "300ms"];
        served.there(&late).refused(124, &["E-TIMED-OUT", "version 9"]);
        served
            .there(&["view", "get", "shop/prices", "none"])
            .refused(3, &["E-NOT-FOUND", "has no item `none`"]);
        assert_eq!(served.same(&["view", "show", "shop/prices"])["generations"][0]["version"], 1);
        let rebuilt =
            served.there(&["view", "rebuild", "shop/prices", "--reason", "again", "-o", "json"]).json();
        let version = rebuilt["recache_version"].to_string();
        let get = ["view", "get", "shop/prices", "version", "--min-version", &version, "--timeout", "30s"];
        served.there(&get).ok();
        assert_eq!(
            served.same(&["view", "diff", "shop/prices", "1", &version])["items"][0]["item"],
            "version"
        );
        assert_eq!(served.same(&["view", "items", "shop/prices"])["items"][0]["item"], "version");
        served.same(&["view", "items", "shop/prices", "--limit", "1", "--version", "1"]);
        let after = ["--limit", "5", "--version", "1", "--after", "version"];
        assert_eq!(
            served.same(&[&["view", "items", "shop/prices"], &after[..]].concat())["items"],
            serde_json::json!([])
        );
        let gone = ["view", "items", "shop/prices", "--limit", "5", "--version", "77"];
        served.there(&gone).refused(5, &["E-CONFLICT", "no longer kept"]);
        served.same(&["view", "diff", "shop/prices", "1", &version, "--limit", "5000"]);
        let back = ["view", "rollback", "shop/prices", "--to", "1", "--reason", "wrong", "-o", "json"];
        assert_eq!(served.there(&back).json()["items_changed"], 1);
        assert!(
            served.there(&["view", "pause", "shop/prices", "--reason", "x"]).ok().contains("paused before")
        );
        assert!(served.same(&["view", "explain", "shop/prices"])["reason"].is_string());
        assert!(served.there(&["view", "resume", "shop/prices"]).ok().contains("begin again"));
        let define =
            ["view", "define", "shop/sums", "--handler", "nobody", "--any-staleness", "--attempts", "7"];
        served.there(&define).ok();
        let defined = served.same(&define);
        assert_eq!(
            (&defined["policy"]["max_staleness_ms"], &defined["retry"]["attempts_max"]),
            (&serde_json::Value::Null, &7.into())
        );
        let derived = served.there(&["view", "derive", "shop/sums", "--from", "shop/prices"]);
        assert!(derived.err.contains("built from them"), "{derived:?}");
        served.there(&["view", "delete", "shop/prices", "--reason", "x"]).refused(5, &["E-CONFLICT"]);
        served.there(&["view", "delete", "shop/sums", "--reason", "unused"]).ok();
        served.there(&["view", "show", "shop/sums"]).refused(3, &["E-NOT-FOUND"]);
        engine.shut_down().await;
        store.close().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn schedules_are_added_looked_at_paused_and_deleted() {
    for served in both().await {
        let add = [
            "schedule",
            "add",
            "report",
            "30 2 * * MON-FRI",
            "none",
            "--zone",
            "Europe/Berlin",
            "--input",
            "[1]",
        ];
        let added = served.there(&[&add[..], &["--attempts", "5", "-o", "json"]].concat()).json();
        assert_eq!(
            (&added["schedule"]["retry"]["attempts_max"], &added["changed"]),
            (&5.into(), &true.into())
        );
        assert_eq!(served.same(&["schedule", "show", "report"])["schedule"]["input"], serde_json::json!([1]));
        assert_eq!(served.same(&["schedule", "list"])["schedules"].as_array().unwrap().len(), 1);
        served.same(&["schedule", "list", "--namespace", "other"]);
        served.same(&["schedule", "next", "report", "--count", "3"]);
        served.same(&["schedule", "next", "--cron", "*/5 * * * *", "--zone", "Asia/Tokyo"]);
        let run = served.there(&["schedule", "run", "report", "-o", "json"]).json();
        assert!(text(&run["schedule"]["last_job_id"]).starts_with("job_"), "{run}");
        served.there(&["schedule", "pause", "report", "--reason", "closed"]).ok();
        assert_eq!(served.same(&["schedule", "show", "report"])["schedule"]["pause_reason"], "closed");
        served.there(&["schedule", "resume", "report"]).ok();
        assert!(served.there(&["schedule", "resume", "report"]).err.contains("was not paused"));
        served.there(&["schedule", "add", "bad", "61 * * * *", "x"]).refused(2, &["E-INVALID"]);
        assert!(served.there(&["schedule", "delete", "report"]).err.contains("`default/report` is gone"));
        served.there(&["schedule", "show", "report"]).refused(3, &["E-NOT-FOUND"]);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn templates_are_applied_listed_shown_and_compared() {
    for served in both().await {
        for (file, version) in [("a.yaml", "1.0.0"), ("b.yaml", "1.1.0")] {
            let step = if version == "1.0.0" { "one" } else { "two" };
            let template = format!(
                "namespace: shop\nname: order\nversion: {version}\nsteps:\n  - name: {step}\n    handler: {{callable: echo}}\n"
            );
            fs::write(served.folder.path().join(file), template).unwrap();
        }
        let applied = served.there(&["template", "apply", "a.yaml", "b.yaml"]).ok();
        assert_eq!(applied.matches(" stored\n").count(), 2, "{applied}");
        assert!(served.there(&["template", "apply", "a.yaml"]).ok().contains("is stored already"));
        served.same(&["template", "list"]);
        served.same(&["template", "list", "--namespace", "shop", "--limit", "1"]);
        served.same(&["template", "show", "shop/order@1.0.0"]);
        served.same(&["template", "diff", "shop/order@1.0.0", "shop/order"]);
        served.same(&["template", "diff", "a.yaml", "shop/order"]);
        served.same(&["template", "graph", "shop/order"]);
        served.same(&["template", "check", "a.yaml", "b.yaml"]);
        let checked = |served: &super::Served, arguments: &[&str]| {
            let arguments = [&["template"], arguments].concat();
            let (here, there) = (served.here(&arguments), served.there(&arguments));
            assert_eq!(here, there, "{arguments:?}");
            there
        };
        checked(&served, &["analyze", "shop/order"]);
        checked(&served, &["analyze", "shop/order", "--as", "mermaid"]);
        checked(&served, &["analyze", "b.yaml", "--history"]);
        let odd = "namespace: shop\nname: odd\nversion: 1.0.0\ncolour: red\nsteps:\n  - name: one\n    handler: {callable: echo}\n";
        fs::write(served.folder.path().join("odd.yaml"), odd).unwrap();
        assert_eq!(served.run(&["template", "check", "odd.yaml"]).code, 1);
        let wrong = served.there(&["template", "check", "odd.yaml"]);
        assert!(
            wrong.code == 1 && wrong.err.contains("odd.yaml:4:1") && wrong.err.contains("colour"),
            "{wrong:?}"
        );
        let forgiven = served.there(&["template", "check", "--lenient", "odd.yaml"]);
        assert!(forgiven.code == 0 && forgiven.out.contains("1 warning"), "{forgiven:?}");
        let dry = checked(&served, &["apply", "--dry-run", "--lenient", "odd.yaml", "b.yaml"]);
        assert_eq!(dry.out, "shop/odd 1.0.0 would be stored\nshop/order 1.1.0 is stored already\n");
        served.there(&["template", "show", "shop/odd"]).refused(3, &["E-NOT-FOUND"]);
        served.there(&["template", "apply", "--lenient", "odd.yaml"]).ok();
        checked(&served, &["apply", "--dry-run", "--lenient", "odd.yaml"]);
        served.same(&["template", "show", "shop/odd"]);
        fs::write(
            served.folder.path().join("a.yaml"),
            "namespace: shop\nname: order\nversion: 1.0.0\nsteps: []\n",
        )
        .unwrap();
        assert_ne!(served.there(&["template", "apply", "a.yaml"]).code, 0);
        served.there(&["template", "show", "shop/none"]).refused(3, &["E-NOT-FOUND"]);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn events_and_figures_are_looked_at() {
    for served in both().await {
        let template = "namespace: shop\nname: order\nversion: 1.0.0\nsteps:\n  - name: one\n    handler: {callable: echo}\n    \
                        publishes_events: [order.placed]\n";
        fs::write(served.folder.path().join("order.yaml"), template).unwrap();
        served.there(&["template", "apply", "order.yaml"]).ok();
        let submitted = served.there(&["workflow", "submit", "shop/order", "-o", "json"]).json();
        let show = ["workflow", "show", text(&submitted["id"]), "-o", "json"];
        while served.there(&show).json()["workflow"]["state"] == "running" {}
        // As ended, whenever it is looked at.
        for form in ["text", "mermaid", "svg"] {
            let analyze = ["workflow", "analyze", text(&submitted["id"]), "--as", form];
            assert_eq!(served.here(&analyze), served.there(&analyze));
        }
        let listed = served.same(&["event", "list", "--type", "order.placed"]);
        served.same(&["event", "show", text(&listed["events"][0]["id"])]);
        served.same(&["event", "list", "--refused"]);
        served
            .there(&["event", "show", "evt_01890000-0000-7000-8000-000000000000"])
            .refused(3, &["E-NOT-FOUND"]);
        for arguments in
            [&["analytics", "performance", "--hours", "1"][..], &["analytics", "bottlenecks", "--limit", "3"]]
        {
            let exact = [arguments, &["--exact", "-o", "json"]].concat();
            let (report, counted) =
                (served.there(&[arguments, &["-o", "json"]].concat()), served.there(&exact));
            let (report, counted, here) = (report.json(), counted.json(), served.here(&exact).json());
            assert!(text(&report["schema"]).starts_with("recache."), "{report}");
            // The workflow has ended, and is counted however short ago that was.
            let fields = match arguments[1] {
                "performance" => &["schema", "completed_tasks", "total_tasks"][..],
                _ => &["schema", "slowest_steps_by_run", "slowest_workflows"],
            };
            for field in fields {
                assert!(!counted[field].is_null(), "{field}: {counted}");
                assert_eq!(counted[field], here[field], "{field}");
            }
            served.there(arguments).ok();
        }
        assert_eq!(served.same(&["event", "subscribers"])["subscribers"], serde_json::json!([]));
        served.there(&["event", "subscribers", "nobody"]).refused(3, &["E-NOT-FOUND"]);
        served.there(&["event", "unsubscribe", "nobody"]).refused(3, &["E-NOT-FOUND"]);
        served.here(&["webhook", "add", "hook", "https://example.com/", "--event", "*"]).ok();
        served.same(&["event", "subscribers"]);
        served.same(&["event", "subscribers", "hook"]);
        served.there(&["event", "unsubscribe", "hook"]).refused(5, &["recache webhook remove hook"]);
        served.same(&["webhook", "list"]);
        let add =
            ["webhook", "add", "other", "https://example.com/x", "--event", "job.failed", "--attempts", "3"];
        let secret = served.there(&[&add[..], &["-o", "json"]].concat()).json();
        assert!(text(&secret["secret"]).starts_with("whsec_"), "shown once");
        served.there(&add).refused(5, &["E-CONFLICT"]);
        let paused = served.there(&["webhook", "pause", "other", "--reason", "moves", "-o", "json"]).json();
        assert_eq!((&paused["state"], &paused["state_reason"]), (&"paused".into(), &"moves".into()));
        served.same(&["webhook", "show", "other"]);
        served.there(&["webhook", "resume", "other"]).ok();
        assert!(served.there(&["webhook", "resume", "other"]).err.contains("was not paused"));
        assert_ne!(
            served.there(&["webhook", "rotate", "other", "-o", "json"]).json()["secret"],
            secret["secret"]
        );
        served.same(&["webhook", "deliveries", "other"]);
        assert!(served.there(&["webhook", "redeliver", "other", "--dead"]).err.contains("0 to be delivered"));
        assert!(served.there(&["webhook", "remove", "other"]).err.contains("is gone"));
        served.there(&["webhook", "show", "other"]).refused(3, &["E-NOT-FOUND"]);
        served.same(&["webhook", "deliveries"]);
        let explained = served.there(&["analytics", "explain", "completion_rate", "-o", "json"]).json();
        assert_eq!(explained["figure"], "completion_rate");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn cache_of_the_server_is_looked_at_and_outdated() {
    let cached = [("RECACHE__COMMON__CACHE__ENABLED", "true"), ("RECACHE__COMMON__CACHE__BACKEND", "moka")];
    let served = super::Served::start(&cached);
    // On a busy machine a call may be slow, which health holds against the cache for a while.
    let health = served.there(&["cache", "health", "-o", "json"]);
    let told: serde_json::Value = serde_json::from_str(&health.out).unwrap();
    assert_eq!(
        (&told["provider"], health.code == 0),
        (&"moka".into(), told["condition"] == "active"),
        "{told}"
    );
    let stats = served.there(&["cache", "stats"]).ok();
    assert!(stats.contains("moka") && stats.contains("all processes: 1 heard of"), "{stats}");
    served.there(&["cache", "get", "shop", "article", "42"]).refused(3, &["E-NOT-FOUND"]);
    let explained = served.there(&["cache", "explain", "shop", "article", "42", "-o", "json"]).json();
    assert!(text(&explained["verdict"]).starts_with("miss"), "{explained}");
    assert!(served.there(&["cache", "explain"]).ok().contains("local_only"));
    assert_eq!(served.there(&["cache", "ttl", "explain", "-o", "json"]).json()["enabled"], false);
    let changed = served.there(&["cache", "invalidate", "shop", "article", "42", "-o", "json"]).json();
    assert!(text(&changed["name"]).ends_with(":shop:article:42"), "{changed}");
    assert_eq!(served.there(&["cache", "invalidate", "--tag", "t", "-o", "json"]).json()["changed"], "tag");
    served.there(&["cache", "invalidate", "--all"]).refused(2, &["E-CACHE-ALL"]);
    assert_eq!(
        served.there(&["cache", "invalidate", "--all", "--yes", "-o", "json"]).json()["changed"],
        "all"
    );
    let off = super::Served::start(&[("RECACHE__COMMON__CACHE__ENABLED", "false")]);
    let disabled = off.there(&["cache", "health"]);
    assert!(disabled.code == 6 && disabled.err.contains("E-CACHE-DISABLED"), "{disabled:?}");
    // Told nothing, it has one in its own memory.
    let told = super::Served::start(&[]).there(&["cache", "health", "-o", "json"]);
    assert!(told.out.contains("moka") && !told.err.contains("E-CACHE-DISABLED"), "{told:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn handlers_are_told_by_a_server_as_by_its_database() {
    for served in both().await {
        // Workers are in the registry with their first beat.
        let deadline = tokio::time::Instant::now() + std::time::Duration::from_secs(20);
        let there = loop {
            let list = served.there(&["handler", "list", "-o", "json"]).json();
            let handlers = list["handlers"].as_array().unwrap().clone();
            if handlers.iter().any(|one| one["name"] == "echo" && one["workers"] == 1) {
                break handlers;
            }
            assert!(tokio::time::Instant::now() < deadline, "{list}");
        };
        let here = served.here(&["handler", "list", "-o", "json"]).json();
        assert_eq!(here["handlers"].as_array().unwrap(), &there);
        let shown = |shown: serde_json::Value| shown["handler"].clone();
        assert_eq!(
            shown(served.here(&["handler", "show", "*/echo", "-o", "json"]).json()),
            shown(served.there(&["handler", "show", "*/echo", "-o", "json"]).json())
        );
        let graph = served.there(&["handler", "graph", "-o", "json"]).json();
        assert_eq!(graph["nodes"], served.here(&["handler", "graph", "-o", "json"]).json()["nodes"]);
        served.there(&["handler", "show", "shop/nobody"]).refused(3, &["E-NOT-FOUND"]);
    }
}
