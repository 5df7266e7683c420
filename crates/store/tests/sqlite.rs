//! The suite over SQLite.
#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs, reason = "a test says what it expects")]

recache_store::conformance_suite!(super::database);

fn database() -> std::future::Ready<Option<recache_store::conformance::TestDatabase>> {
    std::future::ready(Some(recache_store::conformance::sqlite_database()))
}
