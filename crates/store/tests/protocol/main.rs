//! The protocol of views, twice: every state that it can reach, explored as a value; and the real stores taken through the same steps.
//!
//! What holds is design.md, section 8, points 3 to 6: a word with an old token changes nothing; what is live never goes back; what
//! is wanted is built; of one view there is one build.
#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs, reason = "a test says what it expects")]

mod drive;
mod explore;
mod model;

use recache_model::view::OnTouch;
use recache_store::conformance::{postgres_database, sqlite_database};

/// Three workers, two views, three versions of each, two workers that die or sleep.
#[test]
fn protocol_holds_in_every_state_when_touches_abort() {
    let (states, steps) = explore::explore(OnTouch::Abort, 2);
    assert!(states > 10_000, "only {states} states and {steps} steps were looked at");
}

#[test]
fn protocol_holds_in_every_state_when_builds_finish() {
    let (states, steps) = explore::explore(OnTouch::Finish, 2);
    assert!(states > 10_000, "only {states} states and {steps} steps were looked at");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sqlite_does_what_the_protocol_says() {
    drive::walks(sqlite_database(), 40).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn postgresql_does_what_the_protocol_says() {
    if let Some(database) = postgres_database().await {
        drive::walks(database, 8).await;
    }
}
