//! What the breaker is built on. Its concurrency test includes the breaker's source and puts `loom`'s types here.

pub(super) use std::sync::Mutex;
pub(super) use std::sync::atomic::{AtomicU64, Ordering};
