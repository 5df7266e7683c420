//! Builds whose inputs are rows of the application's own database, which change while they are read.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    missing_docs,
    reason = "a test says what it expects"
)]

use std::sync::Arc;
use std::time::Duration;

use recache::store::snapshot::sqlx;
use recache::{
    BuildContext, Engine, Failure, Handlers, NewView, OnTouch, OpenOptions, SnapshotReads, Touch, ViewPolicy,
    open,
};
use recache_store::conformance::postgres_database;
use tokio::sync::Notify;

const LIMIT: Duration = Duration::from_secs(30);
const READ: &str = "SELECT value FROM inputs WHERE id = $1";

/// A build reads half of its inputs; all of them change, with a touch; then it reads on.
macro_rules! build_sees_one_moment {
    ($pool:expr, $url:expr) => {{
        let pool = $pool;
        for statement in [
            "CREATE TABLE inputs (id BIGINT PRIMARY KEY, value BIGINT NOT NULL)",
            "INSERT INTO inputs VALUES (1, 10), (2, 20)",
        ] {
            sqlx::query(statement).execute(&pool).await.unwrap();
        }
        let (has_begun, may_go_on) = (Arc::new(Notify::new()), Arc::new(Notify::new()));
        let (begun, going_on, inputs) = (Arc::clone(&has_begun), Arc::clone(&may_go_on), pool.clone());
        let mut handlers = Handlers::new();
        handlers
            .view("sum", move |build: BuildContext| {
                let (begun, going_on, inputs) = (Arc::clone(&begun), Arc::clone(&going_on), inputs.clone());
                async move {
                    let mut snapshot = build.snapshot(&inputs).await?;
                    let mut sum = 0;
                    for id in [1_i64, 2] {
                        let read = sqlx::query_as(READ).bind(id).fetch_one(&mut *snapshot).await;
                        let (value,): (i64,) = read.map_err(Failure::retryable)?;
                        sum += value;
                        if (build.version(), id) == (1, 1) {
                            begun.notify_one();
                            going_on.notified().await;
                        }
                    }
                    drop(snapshot);
                    let before: Vec<Option<Vec<i64>>> = build.previous(&["sums".to_owned()]).await?;
                    let mut sums = before.into_iter().flatten().next().unwrap_or_default();
                    sums.push(sum);
                    build.put("sums", None, &sums).await
                }
            })
            .unwrap();
        let store = open(&OpenOptions::new($url)).await.unwrap();
        let engine = Engine::builder(store).handlers(handlers).start().await.unwrap();
        let policy = ViewPolicy {
            debounce_quiet_ms: 0,
            debounce_max_ms: 0,
            on_touch: OnTouch::Finish,
            ..ViewPolicy::default()
        };
        engine.define_view(NewView { policy, ..NewView::new("n", "v", "sum") }).await.unwrap();
        let touch = || Touch { namespace: "n".into(), key: "v".into(), ..Touch::default() };
        engine.touch(touch()).await.unwrap();
        tokio::time::timeout(LIMIT, has_begun.notified()).await.unwrap();
        sqlx::query("UPDATE inputs SET value = value + 1").execute(&pool).await.unwrap();
        let second = engine.touch(touch()).await.unwrap().version;
        may_go_on.notify_one();
        let sums = engine.read_items_since("n", "v", &["sums"], second, LIMIT).await.unwrap();
        assert_eq!(sums.values[0].as_deref().map(String::as_str), Some("[30,32]"), "31 was never the sum");
        engine.shut_down().await;
    }};
}

#[tokio::test(flavor = "multi_thread")]
async fn build_sees_its_inputs_at_one_moment_in_sqlite() {
    let folder = tempfile::tempdir().unwrap();
    let options = sqlx::sqlite::SqliteConnectOptions::new()
        .filename(folder.path().join("application.db"))
        .create_if_missing(true)
        .journal_mode(sqlx::sqlite::SqliteJournalMode::Wal);
    let pool = sqlx::SqlitePool::connect_with(options).await.unwrap();
    build_sees_one_moment!(pool.clone(), "sqlite::memory:");
    pool.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn build_sees_its_inputs_at_one_moment_in_postgresql() {
    let Some(database) = postgres_database().await else { return };
    let pool = sqlx::PgPool::connect(database.url()).await.unwrap();
    build_sees_one_moment!(pool.clone(), database.url());
    let mut snapshot = recache::store::snapshot::SnapshotPool::snapshot(&pool).await.unwrap();
    let refused = sqlx::query("UPDATE inputs SET value = 0").execute(&mut *snapshot).await;
    assert!(
        refused.is_err_and(|error| error.to_string().contains("read-only")),
        "nothing is written through it"
    );
    drop(snapshot);
    pool.close().await;
}
