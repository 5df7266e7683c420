//! The suite over PostgreSQL, and what only PostgreSQL offers.
#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs, reason = "a test says what it expects")]

use std::time::Duration;

use recache_store::conformance::{Subject, postgres_database};
use recache_store::{CacheMark, Signal};
use sqlx::{Connection as _, Executor as _, PgConnection, Row as _};

recache_store::conformance_suite!(recache_store::conformance::postgres_database);

/// As an application would have it, with a search path of its own.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn cache_raise_of_an_application_lives_and_dies_with_its_transaction() {
    let Some(database) = postgres_database().await else { return };
    let url = database.url().to_owned();
    let subject = Subject::new(database).await;
    let mut application = PgConnection::connect(&url).await.unwrap();
    let before = subject.store.cache_epochs_read("p", CacheMark::default()).await.unwrap().unwrap().mark;

    application.execute("BEGIN; SELECT recache.cache_raise('p', '{7}'); ROLLBACK").await.unwrap();
    assert_eq!(subject.store.cache_epochs_read("p", before).await.unwrap(), None);

    let mut hints = subject.store.subscribe();
    let heard = tokio::time::timeout(Duration::from_secs(20), async {
        loop {
            let raise = "SELECT recache.cache_raise(prefix => 'p', slots => '{7, 9, 7}') AS version";
            let version: i64 = application.fetch_one(raise).await.unwrap().try_get("version").unwrap();
            // The store may not listen yet.
            let soon = tokio::time::timeout(Duration::from_millis(200), hints.recv()).await;
            if let Ok(Ok(Signal::CacheRaised(prefix, mark))) = soon {
                assert_eq!((prefix.as_str(), mark.incarnation), ("p", before.incarnation));
                return version;
            }
        }
    });
    let version = u64::try_from(heard.await.unwrap()).unwrap();
    let after = subject.store.cache_epochs_read("p", before).await.unwrap().unwrap();
    assert_eq!(after.mark.version, version);
    assert_eq!(after.epochs, [(7, version), (9, version)]);

    application.execute("SELECT recache.cache_raise('new', '{1}')").await.unwrap();
    let new = subject.store.cache_epochs_read("new", CacheMark::default()).await.unwrap().unwrap();
    assert_eq!((new.mark.version, new.epochs), (1, vec![(1, 1)]));
    assert!(new.mark.incarnation > 0);
    subject.store.close().await;
}
