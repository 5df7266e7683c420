//! The suite over SQLite.
#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs, reason = "a test says what it expects")]

async fn database() -> Option<recache_store::conformance::TestDatabase> {
    Some(recache_store::conformance::sqlite_database())
}

recache_store::conformance_suite!(super::database);
