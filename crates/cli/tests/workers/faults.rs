//! Workers, nodes and the way between them are killed, frozen and cut.

use std::time::Duration;

use recache_faultproxy::{Chance, Cut, CutAt, Ending, Lane, Plan, Proxy};
use recache_store::conformance::{postgres_database, sqlite_database};
use serde_json::{Value, json};
use tokio::time::Instant;

use crate::world::{Node, completions, until, worker};

#[tokio::test(flavor = "multi_thread")]
async fn crash_of_a_worker_gives_its_jobs_to_others_within_five_seconds() {
    let database = sqlite_database();
    let node = Node::start(database.url());
    let Some(first) = worker("worker.py", &[node.address]) else { return };
    let id = node.submit("slow", &json!(600)).await;
    node.job_in(&id, "running").await;
    let _second = worker("worker.py", &[node.address]).unwrap();
    until("both are there", async || (node.workers().await == 2).then_some(())).await;
    first.signal("KILL");
    let began = Instant::now();
    let again = until("it runs again", async || {
        let details = node.job(&id).await;
        (details["job"]["attempt"] == 2 && details["job"]["state"] == "running").then_some(details)
    })
    .await;
    let took = began.elapsed();
    println!("kill -9 of a worker to its job running elsewhere: {took:?}");
    assert!(took <= Duration::from_secs(5), "{took:?}");
    let error = &again["attempts"][0]["error"];
    assert_eq!(error["kind"], "lease_lost", "and says why: {again}");
}

#[tokio::test(flavor = "multi_thread")]
async fn frozen_worker_changes_nothing_when_it_wakes() {
    let database = sqlite_database();
    let node = Node::start(database.url());
    let Some(first) = worker("worker.py", &[node.address]) else { return };
    let id = node.submit("slow", &json!(1)).await;
    node.job_in(&id, "running").await;
    first.signal("STOP");
    until("its session has ended", async || (node.workers().await == 0).then_some(())).await;
    let second = worker("worker.py", &[node.address]).unwrap();
    let before = node.job_in(&id, "completed").await;
    assert_eq!(before["job"]["attempt"], 2);
    second.signal("TERM");
    second.ended().await;
    // Its handler ends now, and its settlement is refused.
    first.signal("CONT");
    let next = node.submit("double", &json!(4)).await;
    assert_eq!(node.job_in(&next, "completed").await["job"]["output"], 8, "it registers again and goes on");
    tokio::time::sleep(Duration::from_secs(2)).await;
    assert_eq!(node.job(&id).await, before, "nothing that anybody sees has changed");
}

/// Of two servers the one that a worker asks stands still: it asks the other one, in the same session, and hears there of what is cancelled.
#[tokio::test(flavor = "multi_thread")]
async fn frozen_server_keeps_no_worker_from_hearing_of_a_cancel() {
    let Some(database) = postgres_database().await else { return };
    let (first, second) = (Node::start(database.url()), Node::start(database.url()));
    for file in ["worker.py", "worker.php", "worker.sh"] {
        let Some(process) = worker(file, &[first.address, second.address]) else { return };
        let id = second.submit("slow", &json!(600)).await;
        second.job_in(&id, "running").await;
        first.process.signal("STOP");
        second.cancel(&id).await;
        let began = Instant::now();
        let next = second.submit("double", &json!(1)).await;
        let details = second.job_in(&next, "completed").await;
        let took = began.elapsed();
        first.process.signal("CONT");
        println!("{file}: from a cancel beside a frozen server to the next job's end: {took:?}");
        assert!(took < Duration::from_secs(15), "{file}: {took:?}");
        assert_eq!(details["job"]["attempt"], 1, "{file}: {details}");
        process.signal("TERM");
        assert_eq!(process.ended().await, Some(0), "{file}");
    }
}

/// Every one is done, once, with its result; and no attempt was lost without a word.
async fn check(node: &Node, ids: &[(String, i64)]) -> u64 {
    let mut attempts = 0;
    for (id, input) in ids {
        let details = node.job_in(id, "completed").await;
        assert_eq!(details["job"]["output"], json!(input * 2), "{details}");
        assert_eq!(completions(&details), 1, "one outcome: {details}");
        let told = details["attempts"].as_array().unwrap();
        let lost = told.iter().filter(|attempt| attempt["ended_as"] != "completed");
        for attempt in lost {
            assert_ne!(attempt["error"], Value::Null, "an attempt that was lost says so: {details}");
        }
        attempts += details["job"]["attempt"].as_u64().unwrap();
    }
    attempts
}

#[tokio::test(flavor = "multi_thread")]
async fn crash_of_a_node_under_its_workers_loses_and_doubles_nothing() {
    let Some(database) = postgres_database().await else { return };
    let (first, second) = (Node::start(database.url()), Node::start(database.url()));
    let mut workers = Vec::new();
    for _ in 0..3 {
        let Some(process) = worker("worker.py", &[first.address, second.address]) else { return };
        workers.push(process);
    }
    until("all are there", async || (second.workers().await == 3).then_some(())).await;
    let mut ids = Vec::new();
    for input in 0..300 {
        ids.push((second.submit("double", &json!(input)).await, input));
        if input == 150 {
            first.process.signal("KILL");
        }
    }
    let attempts = check(&second, &ids).await;
    println!("300 jobs over the death of a node: {attempts} attempts");
    assert_eq!(second.workers().await, 3, "the workers go on, in the same sessions or new ones");
}

#[tokio::test(flavor = "multi_thread")]
async fn lost_answers_lose_no_job_and_no_attempt() {
    let database = sqlite_database();
    let node = Node::start(database.url());
    let proxy = Proxy::start(node.address).unwrap();
    // Every answer of the protocol begins with its schema: a session's, or a call's.
    let cut = Cut {
        at: CutAt::Before(b"\"schema\":\"recache.worker-".to_vec()),
        ending: Ending::Reset,
        chance: Chance::percent(20),
        once: false,
    };
    proxy.set(Plan::default().to_client(Lane { cut: Some(cut), ..Lane::default() })).await;
    let Some(process) = worker("worker.py", &[proxy.address()]) else { return };
    let mut ids = Vec::new();
    for input in 0..200 {
        ids.push((node.submit("double", &json!(input)).await, input));
    }
    let attempts = check(&node, &ids).await;
    let cuts = proxy.counts().cuts;
    println!("200 jobs, {cuts} answers lost: {attempts} attempts");
    assert!(cuts > 20, "the fault took place: {cuts}");
    assert_eq!(attempts, 200, "the answers were repeated, and no attempt was wasted");
    proxy.heal().await;
    process.signal("TERM");
    assert_eq!(process.ended().await, Some(0));
}
