//! What can go wrong with the engine, by what the caller can do about it.

use std::time::Duration;

/// An error of the engine.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The store says so.
    #[error(transparent)]
    Store(#[from] recache_store::Error),
    /// Fix the input.
    #[error("{0}")]
    Invalid(String),
    /// It did not happen in time; it may still.
    #[error("not within {} ms: {what}", .waited.as_millis())]
    TimedOut {
        /// What was waited for.
        what: String,
        /// How long.
        waited: Duration,
    },
    /// The engine is shutting down.
    #[error("the engine is shutting down")]
    ShuttingDown,
}

/// The result of a call to the engine.
pub type Result<T> = std::result::Result<T, Error>;
