//! The server over a really bound listener, with real HTTP, on both databases.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
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
mod tls;
mod views;
mod workflows;
