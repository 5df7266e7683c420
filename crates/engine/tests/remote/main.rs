//! Workers in other processes, as an engine serves them, on both databases.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stderr,
    missing_docs,
    reason = "a test says what it expects"
)]

#[path = "../support/mod.rs"]
mod support;
mod world;

mod claims;
mod ends;
mod losses;
mod sessions;
mod stops;
