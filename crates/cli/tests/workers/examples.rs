//! Each example: it does jobs, stops what is cancelled, and ends well when it is told to.

use std::time::Duration;

use serde_json::json;
use tokio::time::Instant;

use crate::world::{Node, built_in_worker, completions, until, worker};

async fn works(file: &str) {
    let folder = tempfile::tempdir().unwrap();
    let node = Node::start(&format!("sqlite:{}", folder.path().join("s.db").display()));
    let Some(process) = worker(file, &[node.address]) else { return };
    let id = node.submit("double", &json!(21)).await;
    let details = node.job_in(&id, "completed").await;
    assert_eq!((&details["job"]["output"], &details["job"]["attempt"]), (&json!(42), &json!(1)), "{details}");

    // Longer than its lease: it is heard of while the handler runs.
    let id = node.submit("slow", &json!(5)).await;
    let details = node.job_in(&id, "completed").await;
    assert_eq!(details["job"]["attempt"], 1, "{details}");

    let id = node.submit("slow", &json!(600)).await;
    node.job_in(&id, "running").await;
    node.cancel(&id).await;
    let began = Instant::now();
    let next = node.submit("double", &json!(1)).await;
    node.job_in(&next, "completed").await;
    assert!(began.elapsed() < Duration::from_secs(30), "its handler has stopped: {:?}", began.elapsed());
    assert_eq!(node.job(&id).await["job"]["state"], "cancelled");

    let id = node.submit("slow", &json!(2)).await;
    node.job_in(&id, "running").await;
    process.signal("TERM");
    assert_eq!(process.ended().await, Some(0), "{file} ends well");
    let details = node.job(&id).await;
    assert_eq!(
        (completions(&details), &details["job"]["attempt"]),
        (1, &json!(1)),
        "what ran was let finish"
    );
    until("its session has ended", async || (node.workers().await == 0).then_some(())).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn python_worker_does_jobs_and_stops_when_told() {
    works("worker.py").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn php_worker_does_jobs_and_stops_when_told() {
    works("worker.php").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn bash_worker_does_jobs_and_stops_when_told() {
    works("worker.sh").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn command_line_worker_does_jobs_of_the_built_in_handlers() {
    let folder = tempfile::tempdir().unwrap();
    let node = Node::start(&format!("sqlite:{}", folder.path().join("s.db").display()));
    // The first one is not there: it is passed over.
    let process = built_in_worker(&["127.0.0.1:9".parse().unwrap(), node.address], &[]);
    let id = node.submit("echo", &json!({ "x": 1 })).await;
    let details = node.job_in(&id, "completed").await;
    assert_eq!(details["job"]["attempt"], 1, "{details}");
    process.signal("TERM");
    assert_eq!(process.ended().await, Some(0));
    until("its session has ended", async || (node.workers().await == 0).then_some(())).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn command_line_worker_runs_programs_where_it_may() {
    let folder = tempfile::tempdir().unwrap();
    let node = Node::start(&format!("sqlite:{}", folder.path().join("s.db").display()));
    let _process = built_in_worker(&[node.address], &[("RECACHE__HANDLERS__COMMANDS", "greet=/bin/echo")]);
    let id = node.submit("command", &json!({ "command": "greet", "arguments": ["hello"] })).await;
    let details = node.job_in(&id, "completed").await;
    assert_eq!(details["job"]["output"]["output"], "hello\n", "{details}");
}

#[test]
fn example_fits_on_a_page() {
    for file in ["worker.py", "worker.php", "worker.sh"] {
        let path = format!("{}/../../examples/workers/{file}", env!("CARGO_MANIFEST_DIR"));
        let lines = std::fs::read_to_string(path).unwrap().lines().count();
        assert!(lines <= 60, "{file} has {lines} lines");
    }
}
