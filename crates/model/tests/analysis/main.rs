//! The analysis of graphs: against networkx, against brute force, against simulated ends, and by hand.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    missing_docs,
    reason = "a test says what it expects"
)]

mod brute_force;
mod by_hand;
mod ends;
mod networkx;
mod size;

use recache_model::analysis::StepFacts;
use recache_model::job::JobState;
use recache_model::time::Timestamp;

/// An instant, in seconds.
fn at(seconds: i64) -> Timestamp {
    Timestamp::from_micros(seconds * 1_000_000)
}

fn in_state(state: JobState) -> StepFacts {
    StepFacts { state: Some(state), ..StepFacts::default() }
}
