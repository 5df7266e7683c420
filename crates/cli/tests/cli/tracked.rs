//! `recache job track|report|heartbeat|ack|tracked`, and `job show` of such a job.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;

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

/// Sends commands to the Redis of the tests, each as its words.
fn redis(url: &str, commands: &[&[&str]]) {
    let place = url.strip_prefix("redis://").expect("an address").trim_end_matches('/');
    let place = place.split('/').next().expect("a host and a port");
    let mut stream = TcpStream::connect(place).expect("the Redis is there");
    for words in commands {
        let mut text = format!("*{}\r\n", words.len());
        for word in *words {
            let length = word.len().to_string();
            text.extend(["$", &length, "\r\n", word, "\r\n"]);
        }
        stream.write_all(text.as_bytes()).expect("sent");
        let mut answer = [0; 64];
        let count = stream.read(&mut answer).expect("answered");
        assert_ne!(answer[..count].first(), Some(&b'-'), "{}", String::from_utf8_lossy(&answer[..count]));
    }
}

/// Against a real Redis; what cannot be read is named, and importing again finds what is there.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn tracker_in_a_redis_is_taken_over() {
    let Ok(url) = std::env::var("RECACHE_TEST_REDIS_URL") else {
        assert!(
            std::env::var_os("CI").is_none(),
            "RECACHE_TEST_REDIS_URL is not set: run `cargo xtask test`"
        );
        eprintln!("SKIPPED: no Redis; RECACHE_TEST_REDIS_URL is not set");
        return;
    };
    let world = World::sqlite().await;
    let prefix = format!("old{}*_", std::process::id());
    let key = |name: &str| format!("{prefix}{name}");
    let uuid = "0190c7a2-7b5e-7000-8000-000000000007";
    let done =
        r#"{"status":"completed","action":"translate","context":{"type":"product","id":42},"batch_id":"b1"}"#;
    let running = r#"{"status":"processing","progress":40,"message":"page 2","user_id":9}"#;
    redis(
        &url,
        &[
            &["SET", &key("job_1"), done],
            &["SET", &key(&format!("job_{uuid}")), &format!("s:{}:\"{running}\";", running.len())],
            &["SET", &key("job_odd"), r#"{"status":"odd"}"#],
            &["HSET", &key("job_hash"), "status", "queued"],
            &["SET", &key("batch_b1"), r#"{"action":"import","total":3}"#],
            &["SET", &key("batch_jobs_b1"), &format!(r#"["1","{uuid}","gone"]"#)],
            &["SADD", &key("batch_jobs_b2"), uuid],
            &["SET", &key("lock"), "1"],
            &["SET", &format!("old{}x_job_1", std::process::id()), "not ours"],
        ],
    );
    let import = || world.run(&["job", "import", "--redis", &url, "--prefix", &prefix, "-o", "json"]);
    let first = import();
    assert_eq!(first.code, 1, "{first:?}");
    let document: serde_json::Value = serde_json::from_str(&first.out).unwrap();
    let count = |name: &str| document[name].as_u64().unwrap();
    assert_eq!(
        (document["schema"].as_str(), count("jobs_new"), count("batches_new")),
        (Some("recache.tracked-import.v1"), 2, 2)
    );
    let mut unread: Vec<(String, String)> = Vec::new();
    for one in document["unread"].as_array().unwrap() {
        let key = one["key"].as_str().unwrap().strip_prefix(&prefix).expect("only keys of the prefix");
        unread.push((key.to_owned(), one["reason"].as_str().unwrap().to_owned()));
    }
    unread.sort();
    for ((key, reason), (wanted, part)) in unread.iter().zip([
        ("batch_b1", "3 jobs; 2 were found"),
        ("batch_jobs_b1", "`gone`"),
        ("batch_jobs_b2", "batch `b1` too"),
        ("job_hash", "hash"),
        ("job_odd", "`odd`"),
        ("lock", "neither job nor batch"),
    ]) {
        assert!(key == wanted && reason.contains(part), "{key}: {reason}");
    }
    assert_eq!(unread.len(), 6);
    let shown = world.run(&["job", "show", uuid, "-o", "json"]).json();
    assert_eq!((&shown["job"]["state"], &shown["job"]["progress"]), (&"processing".into(), &0.4.into()));
    assert_eq!((&shown["job"]["owner"], &shown["job"]["message"]), (&"9".into(), &"page 2".into()));
    let found = world.run(&["job", "tracked", "--context", "product/42", "-o", "json"]).json();
    assert_eq!(found["jobs"][0]["state"], "completed");
    let batch = found["jobs"][0]["batch_id"].as_str().unwrap();
    let batch = world.run(&["batch", "show", batch, "-o", "json"]).json();
    assert_eq!(
        (batch["batch"]["counts"]["completed"].as_u64(), batch["batch"]["counts"]["pending"].as_u64()),
        (Some(1), Some(1))
    );

    redis(
        &url,
        &[&["SET", &key(&format!("job_{uuid}")), r#"{"status":"failed","error":"no quota","user_id":9}"#]],
    );
    let again: serde_json::Value = serde_json::from_str(&import().out).unwrap();
    assert_eq!((again["jobs_new"].as_u64(), again["jobs_known"].as_u64()), (Some(0), Some(2)));
    let shown = world.run(&["job", "show", uuid, "-o", "json"]).json();
    assert_eq!((&shown["job"]["state"], &shown["job"]["message"]), (&"failed".into(), &"no quota".into()));
    let nowhere = ["job", "import", "--redis", "redis://secret:word@127.0.0.1:1", "--prefix", "x"];
    let refused = world.run(&nowhere);
    assert!(!refused.err.contains("word"), "{refused:?}");
    refused.refused(6, &["E-REDIS", "--redis"]);
}

/// The source goes on: what it adds to a batch that ran is a member, what it adds to one that had ended is kept without.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn batch_that_still_runs_there_takes_what_comes_later() {
    let Ok(url) = std::env::var("RECACHE_TEST_REDIS_URL") else {
        assert!(
            std::env::var_os("CI").is_none(),
            "RECACHE_TEST_REDIS_URL is not set: run `cargo xtask test`"
        );
        eprintln!("SKIPPED: no Redis; RECACHE_TEST_REDIS_URL is not set");
        return;
    };
    let world = World::sqlite().await;
    let prefix = format!("later{}_", std::process::id());
    let key = |name: &str| format!("{prefix}{name}");
    let job = |state: &str, batch: &str| format!(r#"{{"status":"{state}","batch_id":"{batch}"}}"#);
    redis(
        &url,
        &[
            // It says so, though all of its jobs have ended.
            &["SET", &key("batch_says"), r#"{"status":"processing"}"#],
            &["SET", &key("job_1"), &job("completed", "says")],
            // It says nothing, and one of its jobs runs.
            &["SET", &key("batch_runs"), "{}"],
            &["SET", &key("job_2"), &job("processing", "runs")],
            &["SET", &key("batch_ended"), "{}"],
            &["SET", &key("job_3"), &job("completed", "ended")],
        ],
    );
    let import = || world.run(&["job", "import", "--redis", &url, "--prefix", &prefix, "-o", "json"]);
    let counts = |document: &serde_json::Value| {
        ["jobs_new", "jobs_known", "batches_new", "batches_open"].map(|name| document[name].as_u64().unwrap())
    };
    assert_eq!(counts(&import().json()), [3, 0, 3, 2]);

    redis(
        &url,
        &[
            &["SET", &key("job_4"), &job("completed", "says")],
            &["SET", &key("batch_says"), r#"{"status":"completed"}"#],
            &["SET", &key("job_2"), &job("completed", "runs")],
            &["SET", &key("job_5"), &job("failed", "runs")],
            &["SET", &key("job_6"), &job("processing", "ended")],
        ],
    );
    for jobs in [[3, 3], [0, 6]] {
        let again = import();
        assert_eq!(again.code, 1, "{again:?}");
        let document: serde_json::Value = serde_json::from_str(&again.out).unwrap();
        assert_eq!(counts(&document), [jobs[0], jobs[1], 0, 0], "{document}");
        let unread = document["unread"].as_array().unwrap();
        assert_eq!(unread.len(), 1, "{document}");
        assert_eq!(unread[0]["key"], key("job_6"));
        assert!(unread[0]["reason"].as_str().unwrap().contains("kept without batch"), "{document}");
    }
    let batches = world.run(&["batch", "list", "-o", "json"]).json();
    let mut states: Vec<_> = batches["batches"]
        .as_array()
        .unwrap()
        .iter()
        .map(|batch| (batch["state"].as_str().unwrap(), batch["counts"]["total"].as_u64().unwrap()))
        .collect();
    states.sort_unstable();
    assert_eq!(states, [("completed", 1), ("completed", 2), ("partial_failure", 2)]);
    let running = world.run(&["job", "tracked", "--state", "processing", "-o", "json"]).json();
    assert_eq!(running["jobs"].as_array().unwrap().len(), 1, "{running}");
}

/// Whatever stands under a key: one that is too long to be read does not keep the others from being taken over.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn key_that_is_too_long_is_reported_and_left_out() {
    let Ok(url) = std::env::var("RECACHE_TEST_REDIS_URL") else {
        assert!(
            std::env::var_os("CI").is_none(),
            "RECACHE_TEST_REDIS_URL is not set: run `cargo xtask test`"
        );
        eprintln!("SKIPPED: no Redis; RECACHE_TEST_REDIS_URL is not set");
        return;
    };
    let world = World::sqlite().await;
    let prefix = format!("long{}_", std::process::id());
    let names = ["batch_jobs_long", "batch_long", "job_long"];
    let keys = names.map(|name| format!("{prefix}{name}"));
    let fill = "for i = 1, 1000001 do redis.call('RPUSH', KEYS[1], 'x') end return 1";
    for key in &keys {
        redis(&url, &[&["EVAL", fill, "1", key]]);
    }
    redis(&url, &[&["SET", &format!("{prefix}job_1"), r#"{"status":"completed"}"#]]);
    let ran = world.run(&["job", "import", "--redis", &url, "--prefix", &prefix, "-o", "json"]);
    redis(&url, &[&["DEL", &keys[0], &keys[1], &keys[2]]]);
    assert_eq!(ran.code, 1, "{ran:?}");
    let document: serde_json::Value = serde_json::from_str(&ran.out).unwrap();
    assert_eq!(document["jobs_new"], 1, "{document}");
    let mut unread: Vec<_> = document["unread"].as_array().unwrap().iter().collect();
    unread.sort_by_key(|one| one["key"].as_str());
    for (one, key) in unread.iter().zip(&keys) {
        assert_eq!(one["key"], *key);
        assert!(one["reason"].as_str().unwrap().contains("1000001 elements"), "{one}");
    }
    assert_eq!(unread.len(), 3);
}
