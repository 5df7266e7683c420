//! The real binary over real databases: what it prints, with which exit code, and that a refused command changes
//! nothing.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stderr,
    missing_docs,
    reason = "a test says what it expects, and says loudly what it cannot run"
)]

mod analysis;
mod analytics;
mod audit;
mod batches;
mod cache;
mod dead;
mod handlers;
mod jobs;
mod kept;
mod operations;
mod output;
mod queues;
mod refused;
mod schedules;
mod templates;
mod tracked;
mod verbs;
mod views;
mod workflows;
mod world;
