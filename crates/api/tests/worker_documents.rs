//! The shape of the worker protocol's documents, pinned.
#![allow(clippy::unwrap_used, missing_docs, reason = "a test says what it expects")]

use recache_api::{
    BeginBuild, Instant, Json, PutItems, RegisterWorker, Worker, WorkerAnswer, WorkerBuild, WorkerCall,
    WorkerDone, WorkerHandler, WorkerJob, WorkerKnownItem, WorkerList, WorkerLoss, WorkerResult,
    WorkerSession, WorkerStop, WorkerStopReason, WorkerVerdict,
};
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::fmt::Debug;

fn printed<T: Serialize + DeserializeOwned + PartialEq + Debug>(document: &T) -> String {
    let text = serde_json::to_string_pretty(document).unwrap();
    assert_eq!(&serde_json::from_str::<T>(&text).unwrap(), document);
    text
}

fn text(text: &str) -> String {
    text.to_owned()
}

fn json(text: &str) -> Json {
    Json::from_text(text).unwrap()
}

#[test]
fn requests_are_read_with_their_defaults_and_nothing_unknown() {
    let least: RegisterWorker = serde_json::from_str(r#"{"name":"w","handlers":[{"name":"h"}]}"#).unwrap();
    insta::assert_snapshot!(printed(&least));
    let all = r#"{"held":["t1"],"settle":[{"token":"t2","outcome":"completed","output":{"n":1.50}},
        {"token":"t3","outcome":"failed","error":{"message":"no"}},{"token":"t4","outcome":"snoozed","after_ms":5},
        {"token":"t5","outcome":"released"},{"token":"t6","outcome":"built","version":7,"kept":["a"],"taken_over":2}],
        "reports":[{"token":"t1","progress":0.5,"message":"half","lines":["one"],"first_line":1,"checkpoint":{"page":7}}],
        "claim":{"max":2,"number":9},"wait_ms":1000}"#;
    let call: WorkerCall = serde_json::from_str(all).unwrap();
    insta::assert_snapshot!(printed(&call));
    let empty: WorkerCall = serde_json::from_str("{}").unwrap();
    assert_eq!(empty, WorkerCall::default());
    for unknown in [r#"{"hold":[]}"#, r#"{"claim":{"max":1,"sequence":2}}"#] {
        assert!(serde_json::from_str::<WorkerCall>(unknown).is_err(), "{unknown}");
    }
    let items = r#"{"token":"t","items":[{"item":"a","value":null},{"item":"b","fingerprint":"f"}]}"#;
    let items: PutItems = serde_json::from_str(items).unwrap();
    assert_eq!(items.items[0].value.as_ref().map(Json::text), Some("null"), "null is a value");
    assert_eq!(items.items[1].value, None, "and nothing is none");
    insta::assert_snapshot!(printed(&items));
    printed(&BeginBuild { token: text("t") });
}

#[test]
fn answers() {
    let job = WorkerJob {
        token: text("t1"),
        id: text("job_1"),
        handler: text("h"),
        claimed_as: text("h"),
        method: None,
        namespace: text("default"),
        queue: text("default"),
        attempt: 1,
        attempts_max: 3,
        correlation_id: text("c"),
        trace_context: None,
        timeout_ms: Some(5000),
        input: json("{\"n\":1.50}"),
        checkpoint: None,
        build: false,
        again: false,
        step: Some(text("s")),
        settings: Some(json("{}")),
        results: [(text("before"), json("[1]"))].into(),
        item: None,
        index: None,
        signal: None,
    };
    let answer = WorkerAnswer {
        schema: text(WorkerAnswer::SCHEMA),
        alive: true,
        draining: false,
        settled: vec![WorkerVerdict { token: text("t2"), result: WorkerResult::Accepted, reason: None }],
        reported: vec![WorkerVerdict {
            token: text("t3"),
            result: WorkerResult::LeaseLost,
            reason: Some(WorkerLoss::TakenOver),
        }],
        stop: vec![WorkerStop { token: text("t4"), reason: WorkerStopReason::Superseded }],
        jobs: vec![job],
    };
    insta::assert_snapshot!(printed(&answer));
    insta::assert_snapshot!(printed(&WorkerSession::new(text("ses_1"), text("s3cret"), 3000)));
    let known = |item: &str| WorkerKnownItem { item: text(item), fingerprint: Some(text("f")), gone: false };
    insta::assert_snapshot!(printed(&WorkerBuild {
        schema: text(WorkerBuild::SCHEMA),
        namespace: text("shop"),
        key: text("prices"),
        version: 7,
        live_version: 5,
        touched: Some(vec![text("a")]),
        live: vec![known("a")],
        staged: vec![known("b")],
    }));
    insta::assert_snapshot!(printed(&WorkerDone::new(true)));
    let at = Instant::from_micros(1_700_000_000_000_000).unwrap();
    insta::assert_snapshot!(printed(&WorkerList::new(vec![Worker {
        session: text("ses_1"),
        name: text("w"),
        is_remote: true,
        handlers: vec![WorkerHandler { name: text("h"), version: Some(text("1.0.0")), input_schema: None }],
        queues: vec![text("default")],
        namespaces: None,
        slots: 2,
        lease_ms: 3000,
        registered_at: at,
        heard_at: at,
        expires_at: at,
    }])));
}
