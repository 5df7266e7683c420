//! The server over a really bound listener, with real HTTP, on both databases.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stdout,
    clippy::print_stderr,
    missing_docs,
    reason = "a test says what it expects"
)]

mod described;
mod world;

mod access;
mod analytics;
mod batches;
mod cache;
mod client;
mod description;
mod events;
mod handlers;
mod health;
mod hostile;
mod jobs;
mod kept;
mod letters;
mod once;
mod queues;
mod schedules;
mod sdk;
mod tls;
mod tokens;
mod tracked;
mod views;
mod webhooks;
mod workers;
mod workflows;
