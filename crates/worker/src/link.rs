//! What connects a context to whoever keeps the job's state.

use std::fmt::Debug;

use async_trait::async_trait;

use crate::stop::Stop;

/// Why the other side did not do it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum LinkError {
    /// The job is no longer this worker's to change.
    #[error("{0}")]
    Revoked(Stop),
    /// It could not be reached; the attempt may be repeated.
    #[error("{0}")]
    Unavailable(String),
    /// What was sent is wrong.
    #[error("{0}")]
    Refused(String),
}

/// An item on its way to the store.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Item {
    /// Its key.
    pub key: String,
    /// Of its inputs.
    pub fingerprint: Option<String>,
    /// Its value as JSON; `None` takes over what an earlier build made.
    pub value: Option<String>,
}

/// The worker's side of a lease. Every call carries the job's token; with one that is no longer good, nothing
/// changes and the answer says so.
#[async_trait]
pub trait Link: Send + Sync + Debug {
    /// Asks whether the job is still this worker's.
    async fn check(&self) -> Result<(), LinkError>;

    /// Reports progress, 0 to 1.
    async fn progress(&self, fraction: f64, message: Option<String>) -> Result<(), LinkError>;

    /// Keeps JSON for the job's next attempt.
    async fn save(&self, checkpoint: String) -> Result<(), LinkError>;

    /// Keeps lines with the job.
    async fn log(&self, lines: Vec<String>) -> Result<(), LinkError>;

    /// Puts items of a build where no reader looks.
    async fn put(&self, items: Vec<Item>) -> Result<(), LinkError>;
}
