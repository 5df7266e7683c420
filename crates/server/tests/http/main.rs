//! The server over a really bound listener, with real HTTP, on both databases.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stdout,
    missing_docs,
    reason = "a test says what it expects"
)]

mod world;

mod access;
mod description;
mod health;
mod hostile;
mod jobs;
mod once;
mod sdk;
mod tls;
mod views;
mod workers;
mod workflows;
