//! The suite over PostgreSQL.
#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs, reason = "a test says what it expects")]

recache_store::conformance_suite!(recache_store::conformance::postgres_database);
