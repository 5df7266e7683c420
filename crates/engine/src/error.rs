//! What can go wrong with the engine, by what the caller can do about it.

use std::sync::Arc;
use std::time::Duration;

use recache_cache::LoadError;

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

/// What was had through the cache from a loader that always has something.
pub(crate) fn loaded<T>(loaded: std::result::Result<Option<Arc<T>>, LoadError<Error>>) -> Result<Arc<T>> {
    match loaded {
        Ok(Some(found)) => Ok(found),
        Ok(None) => Err(unavailable("the cache says that there is nothing")),
        // The error itself where nobody else waits for it, else what can be said of it again.
        Err(LoadError::Failed(error)) => {
            Err(Arc::try_unwrap(error).unwrap_or_else(|shared| unavailable(&shared.to_string())))
        }
        Err(error @ LoadError::TimedOut(_)) => Err(unavailable(&error.to_string())),
    }
}

fn unavailable(message: &str) -> Error {
    recache_store::Error::Unavailable { message: message.to_owned(), source: None }.into()
}
