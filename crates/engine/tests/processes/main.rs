//! Whole processes over one database: killed, frozen, and left without their database.
//!
//! A child is this test program again, told by the environment what to be ([`child`]).
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stderr,
    missing_docs,
    reason = "a test says what it expects, and from which seed it ran"
)]

#[path = "../support/mod.rs"]
mod support;

mod around;
mod check;
mod child;
mod crash;
mod fail_points;
mod flow;
mod frozen;
mod parent;
mod restart;
mod work;
