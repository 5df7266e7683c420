//! Several `recache serve` on one PostgreSQL with one Redis in front, under load, while each in turn is killed, frozen, or stopped and started
//! again.
//!
//! `RECACHE_TEST_FLEET_ROUNDS=N` makes it N times as long.
#![cfg(unix)]
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stdout,
    clippy::print_stderr,
    clippy::format_push_string,
    clippy::disallowed_methods,
    missing_docs,
    reason = "a test says what it expects"
)]

mod check;
mod faults;
mod keys;
mod load;
mod nodes;
mod rolling;

#[allow(dead_code, reason = "the tests of workers use the rest")]
#[path = "../workers/world.rs"]
mod world;

/// How often every node has its turn.
fn rounds() -> u32 {
    let asked = std::env::var("RECACHE_TEST_FLEET_ROUNDS").ok();
    asked.map_or(1, |text| text.parse().expect("RECACHE_TEST_FLEET_ROUNDS is a number"))
}
