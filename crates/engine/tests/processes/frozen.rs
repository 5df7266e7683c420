//! A worker that stands still longer than its lease: whatever it says afterwards is too late.

use std::time::Duration;

use recache_model::job::JobState;
use recache_model::retry::RetryPolicy;
use recache_store::conformance::{TestDatabase, postgres_database, sqlite_database};
use recache_store::{ClaimRequest, NewJob, Store};

use crate::check;
use crate::parent::{Child, Log};
use crate::support::{at_once, soon, store_of, touch, until, view};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn frozen_sqlite() {
    late_worker_changes_nothing(sqlite_database()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn frozen_postgres() {
    if let Some(database) = postgres_database().await {
        late_worker_changes_nothing(database).await;
    }
}

/// Stops a child between two of its transactions.
async fn freeze(child: &Child, store: &dyn Store) {
    loop {
        child.signal("STOP");
        // A beat may have been under way, with the only lock that SQLite has.
        if tokio::time::timeout(Duration::from_secs(1), store.check_writable())
            .await
            .is_ok_and(|done| done.is_ok())
        {
            return;
        }
        child.signal("CONT");
    }
}

async fn late_worker_changes_nothing(database: TestDatabase) {
    let store = store_of(&database).await;
    let definition =
        recache_store::NewView { retry: RetryPolicy::default(), ..view("v", "work-view", at_once()) };
    let id = store.view_define(definition).await.unwrap().id;
    let log = Log::default();
    let mut first = Child::start("frozen", database.url(), 0, &log);
    first.hear("ready").await.expect("it starts");
    store.views_touch(vec![touch("v", &[])]).await.unwrap();
    let job = NewJob::new("work", "null");
    let job = store.jobs_submit(vec![job]).await.unwrap()[0].id;
    first.hear("inside").await.expect("it begins one");
    first.hear("inside").await.expect("it begins the other");
    freeze(&first, &*store).await;

    let mut second = Child::start("steady", database.url(), 0, &log);
    second.hear("ready").await.expect("it starts");
    let build = until("the second builds the view and does the job", async || {
        let live = store.view_get("n", "v").await.unwrap().versions.live;
        let done = store.job_get(job).await.unwrap().state == JobState::Completed;
        (live == 1 && done).then_some(())?;
        store.generations_list(id, 10).await.unwrap().remove(0).job
    })
    .await;
    // The second ends, so that nobody but the late one can change anything.
    second.kill();
    let seen = || async {
        let (read, record) =
            (store.view_read("n", "v", None).await.unwrap(), store.view_get("n", "v").await.unwrap());
        let generations = store.generations_list(id, 10).await.unwrap();
        (
            (read.version, read.items, read.published_at),
            record,
            generations,
            check::job(&*store, job).await,
            check::job(&*store, build).await,
        )
    };
    let before = seen().await;
    let (record, history) = &before.3;
    check::check_owner_changed(record, history);
    check::check_owner_changed(&before.4.0, &before.4.1);

    first.signal("CONT");
    first.tell("go");
    for done in ["late job-done", "late view-done"] {
        let heard = || log.lock().unwrap().iter().any(|line| line.starts_with(done));
        until(done, async || heard().then_some(())).await;
    }
    let late: Vec<String> =
        log.lock().unwrap().iter().filter(|line| line.starts_with("late ")).cloned().collect();
    assert_eq!(late.len(), 11, "{late:?}");
    for line in &late {
        assert!(line.ends_with(" true"), "not refused: {line}");
    }

    // It has a session of its own again, and works.
    let useful = NewJob::new("work", "null");
    let useful = store.jobs_submit(vec![useful]).await.unwrap()[0].id;
    let (done, moves) = until("the late one does something useful", async || {
        let (record, history) = check::job(&*store, useful).await;
        record.state.is_terminal().then_some((record, history))
    })
    .await;
    check::check_done_by_another_session(&done, &moves, history);
    let after = seen().await;
    assert_eq!(before, after, "what came late changed something");
    first.kill();

    // Nor is anything late staged for the next build.
    store.views_touch(vec![touch("v", &[])]).await.unwrap();
    let session = recache_model::ids::SessionId::make();
    store.session_open(session, "the test", Duration::from_mins(1)).await.unwrap();
    let claim = ClaimRequest {
        session,
        queues: vec!["default".to_owned()],
        handlers: vec!["work-view".to_owned()],
        rows_max: 1,
    };
    let token = until("the next build can be claimed", async || {
        store.views_reconcile(10).await.unwrap();
        let claimed = store.jobs_dispatch(vec![], Some(claim.clone())).await.unwrap().claimed;
        claimed.first().map(|job| job.token)
    })
    .await;
    let start = store.build_begin(token).await.unwrap().unwrap();
    assert_eq!((start.live_version, start.staged.len()), (1, 0), "{:?}", start.staged);
    store.close().await;
}

/// A process that is stopped inside a transaction would hold its locks for as long as it is stopped. (SQLite has no
/// remedy: there the one writer's lock is the file's.)
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn frozen_transaction_postgres() {
    let Some(database) = postgres_database().await else { return };
    let store = store_of(&database).await;
    store.view_define(view("v0", "nobody", at_once())).await.unwrap();
    let log = Log::default();
    let mut child = Child::start("toucher", database.url(), 0, &log);
    child.hear("ready").await.expect("it starts");
    // Until it really was inside one.
    while !log.lock().unwrap().iter().any(|line| line == "ended by the server") {
        child.signal("STOP");
        soon(store.views_touch(vec![touch("v0", &[])])).await.unwrap();
        child.signal("CONT");
        let version = store.view_get("n", "v0").await.unwrap().versions.wanted;
        until("it goes on, or says why not", async || {
            let wanted = store.view_get("n", "v0").await.unwrap().versions.wanted;
            (wanted > version + 5).then_some(())
        })
        .await;
    }
    drop(child);
    store.close().await;
}
