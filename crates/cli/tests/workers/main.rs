//! The workers of `examples/workers` against the real server, and what becomes of their jobs when they, it, or the way between
//! them fail.
#![cfg(unix)]
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stdout,
    clippy::print_stderr,
    missing_docs,
    reason = "a test says what it expects"
)]

mod examples;
mod faults;
mod world;
