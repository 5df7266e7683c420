//! Figures over what has ended: sketches against sorted lists, reports against brute force, also from what was merged, requests that are refused.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    missing_docs,
    reason = "a test says what it expects"
)]

mod gathered;
mod reports;
mod requests;
mod sketches;
