//! Lives of cached values: the rule against brute force, merging against its laws, ways against each other on traces.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    missing_docs,
    reason = "a test says what it expects"
)]

mod merging;
mod rule;
mod settings;
mod traces;
