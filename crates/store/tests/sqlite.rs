//! The suite over SQLite.
#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs, reason = "a test says what it expects")]

use std::sync::Arc;

use recache_store::{NewJob, OpenOptions, open};

recache_store::conformance_suite!(super::database);

fn database() -> std::future::Ready<Option<recache_store::conformance::TestDatabase>> {
    std::future::ready(Some(recache_store::conformance::sqlite_database()))
}

/// Reads and writes side by side: each is counted where it waited.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn writer_and_readers_are_measured() {
    let database = recache_store::conformance::sqlite_database();
    let options = OpenOptions { readers_max: 2, ..OpenOptions::new(database.url()) };
    let store = open(&options).await.unwrap();
    let before = store.measured().writer.unwrap().used;
    let id = store.jobs_submit(vec![NewJob::new("first", "{}")]).await.unwrap()[0].id;
    let mut calls = tokio::task::JoinSet::new();
    for _ in 0..200 {
        let store = Arc::clone(&store);
        calls.spawn(async move {
            store.jobs_submit(vec![NewJob::new("more", "{}")]).await.unwrap();
            store.job_get(id).await.unwrap();
        });
    }
    calls.join_all().await;
    let measured = store.measured();
    let writer = measured.writer.unwrap();
    let (calls, groups) = (writer.used.calls - before.calls, writer.used.groups - before.groups);
    assert_eq!(calls, 201);
    assert!((2..calls).contains(&groups), "some shared a transaction: {groups}");
    assert!(!writer.used.busy.is_zero() && !writer.used.waited.is_zero(), "{writer:?}");
    assert!(writer.used.busy <= writer.used.over && writer.state.utilisation > 0.0, "{writer:?}");
    assert_eq!(writer.state.waiting, 0);
    let pool = measured.pool.unwrap();
    assert_eq!((pool.state.max, pool.state.busy, pool.state.waiting), (2, 0, 0));
    assert_eq!(pool.used.taken, 200);
    assert!((1..=2).contains(&pool.used.busy_peak) && pool.opened >= 1, "{pool:?}");
    let submit = measured.statements.iter().find(|one| one.name == "jobs_submit").unwrap();
    assert_eq!(submit.count, 201, "{submit:?}");
    assert!(measured.statements.iter().any(|one| one.name == "job_get" && one.count == 200), "{measured:?}");
    store.close().await;
}
