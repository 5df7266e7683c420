//! What connects a context to whoever keeps the job's state.

use std::fmt::Debug;

use async_trait::async_trait;

use crate::build::Touched;
use crate::known::KnownSource;
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

/// What a step's part of a build starts from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PartSource {
    /// The view's namespace.
    pub namespace: String,
    /// The view's key.
    pub key: String,
    /// The version to make.
    pub version: i64,
    /// What readers see now; 0 for nothing.
    pub live_version: i64,
    /// What changed since then.
    pub touched: Touched,
}

/// What a step says about items that it does not put.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Keep {
    /// These stay where they were made from the same inputs: item and fingerprint.
    Unchanged(Vec<(String, String)>),
    /// These live items stay.
    Live(Vec<String>),
    /// Every live item stays that no step puts or drops.
    Rest,
    /// These go, although the rest stays.
    Dropped(Vec<String>),
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

    /// Begins a step's part of the build that its workflow does. Refused where it does none.
    async fn part(&self) -> Result<PartSource, LinkError> {
        Err(LinkError::Refused("whoever runs this handler knows no builds by workflow".to_owned()))
    }

    /// Keeps items that the step does not put. Answers for each whether it is kept.
    async fn keep(&self, keep: Keep) -> Result<Vec<bool>, LinkError> {
        let _ = keep;
        Err(LinkError::Refused("whoever runs this handler knows no builds by workflow".to_owned()))
    }

    /// Whoever tells of the items of a build page by page; `None`: they are all told of when it begins.
    fn known(&self) -> Option<&dyn KnownSource> {
        None
    }

    /// Values, as JSON, of those of these items that are live while a build goes on: keys and values.
    async fn previous(&self, items: Vec<String>) -> Result<Vec<(String, String)>, LinkError> {
        let _ = items;
        Err(LinkError::Refused("whoever runs this handler has no generation before".to_owned()))
    }
}
