//! What `ops/` holds against a running server: names, rules, and a real Prometheus.
#![cfg(unix)]
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stderr,
    clippy::disallowed_methods,
    missing_docs,
    reason = "a test says what it expects, and says loudly what it cannot run"
)]

mod names;
mod otlp;
mod prometheus;
mod served;
