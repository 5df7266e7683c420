//! Plans of slow statements, as they come into the log.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    missing_docs,
    reason = "a test says what it expects"
)]

use std::io::Write;
use std::sync::{Arc, Mutex, OnceLock};
use std::time::Duration;

use recache_store::conformance::{TestDatabase, postgres_database, sqlite_database};
use recache_store::{JobFilter, NewJob, OpenOptions, Store, open};

const SECRET: &str = "hunter2";

/// What was logged, by everybody in this process.
fn log() -> &'static Mutex<Vec<u8>> {
    static LOG: OnceLock<Mutex<Vec<u8>>> = OnceLock::new();
    LOG.get_or_init(|| {
        let writer = || Log;
        let subscriber = tracing_subscriber::fmt().json().with_writer(writer).finish();
        tracing::subscriber::set_global_default(subscriber).expect("nobody else has set one");
        Mutex::default()
    })
}

struct Log;

impl Write for Log {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        log().lock().unwrap().write(bytes)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

async fn store(url: &str, slow_plans: bool) -> Arc<dyn Store> {
    log();
    let options = OpenOptions { slow: Duration::ZERO, slow_plans, ..OpenOptions::new(url) };
    open(&options).await.expect("a fresh database opens")
}

/// Lines about this database's statements: where it is told from others by the text of its plans.
fn lines(of: &str) -> Vec<serde_json::Value> {
    let text = String::from_utf8(log().lock().unwrap().clone()).unwrap();
    let read = |line: &str| serde_json::from_str::<serde_json::Value>(line).unwrap();
    text.lines().map(read).filter(|line| line["fields"]["message"] == of).collect()
}

async fn plans_are_logged(database: TestDatabase, parameter: &str, is_ours: impl Fn(&str) -> bool) {
    let store = store(database.url(), true).await;
    let job = NewJob { correlation_id: SECRET.to_owned(), ..NewJob::new("once", SECRET) };
    let id = store.jobs_submit(vec![job]).await.unwrap()[0].id;
    for _ in 0..3 {
        store.job_get(id).await.unwrap();
        store.jobs_list(JobFilter { rows_max: 10, ..JobFilter::default() }).await.unwrap();
    }
    let found = tokio::time::timeout(Duration::from_secs(20), async {
        loop {
            let found: Vec<_> = lines("plan of a slow statement")
                .into_iter()
                .filter(|line| is_ours(line["fields"]["plan"].as_str().unwrap()))
                .collect();
            let has = |call: &str| found.iter().any(|line| line["fields"]["statement"] == call);
            if has("job_get") && has("jobs_submit") && has("jobs_list") {
                return found;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    });
    let found = found.await.unwrap_or_else(|_| panic!("{}", String::from_utf8_lossy(&log().lock().unwrap())));
    let mut texts: Vec<_> = found.iter().map(|line| line["fields"]["sql"].as_str().unwrap()).collect();
    texts.sort_unstable();
    let times = texts.len();
    texts.dedup();
    assert_eq!(texts.len(), times, "each once: {texts:#?}");
    let of_get = found.iter().find(|line| line["fields"]["statement"] == "job_get").unwrap();
    assert!(of_get["fields"]["plan"].as_str().unwrap().contains(parameter), "{of_get}");
    assert_eq!(
        store.jobs_list(JobFilter { rows_max: 10, ..JobFilter::default() }).await.unwrap().jobs.len(),
        1,
        "nothing was done twice"
    );
    store.close().await;
    assert_eq!(lines("slow statement without its plan"), Vec::<serde_json::Value>::new());
    assert!(!String::from_utf8_lossy(&log().lock().unwrap()).contains(SECRET));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn plan_of_a_slow_statement_is_logged_without_its_parameters_sqlite() {
    plans_are_logged(sqlite_database(), "(id=?)", |plan| !plan.contains("cost=")).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn plan_of_a_slow_statement_is_logged_without_its_parameters_postgres() {
    let Some(database) = postgres_database().await else { return };
    plans_are_logged(database, "$1", |plan| plan.contains("cost=")).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn database_in_memory_explains_on_its_only_connection() {
    let store = store("sqlite::memory:", true).await;
    store.schema_version().await.unwrap();
    let found = tokio::time::timeout(Duration::from_secs(20), async {
        loop {
            let found = lines("plan of a slow statement");
            if found.iter().any(|line| line["fields"]["statement"] == "schema_version") {
                return;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    });
    found.await.unwrap();
    let writer = store.measured().writer.unwrap();
    assert!(writer.used.calls >= 1 && store.measured().pool.is_none(), "{writer:?}");
    store.close().await;
}
