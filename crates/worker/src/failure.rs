//! How a handler fails; the kind decides what the engine does.

use std::time::Duration;

use crate::link::LinkError;
use crate::stop::Stop;

/// An attempt's failure.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Failure {
    /// May succeed when tried again: it is, while the job's policy has attempts left.
    #[error("{message}")]
    Retryable {
        /// A stable word for programs.
        code: Option<String>,
        /// What happened.
        message: String,
        /// How long the other side asked to wait; honoured in full.
        after: Option<Duration>,
    },
    /// Will not succeed however often it is tried: the job fails at once.
    #[error("{message} ({code})")]
    Permanent {
        /// A stable word for programs.
        code: String,
        /// What happened.
        message: String,
    },
    /// Not yet: the job comes back later, and this attempt does not count.
    #[error("put off for {} ms", .after.as_millis())]
    Snooze {
        /// For how long.
        after: Duration,
    },
    /// The handler noticed that it shall stop, and did.
    #[error("stopped: {0}")]
    Stopped(Stop),
}

#[expect(
    clippy::needless_pass_by_value,
    reason = "an error is given away to its failure; asking for a reference would only add a sign at every call"
)]
impl Failure {
    /// A failure that may go away.
    pub fn retryable(message: impl ToString) -> Self {
        Self::Retryable { code: None, message: message.to_string(), after: None }
    }

    /// A failure that may go away after this long.
    pub fn retryable_after(message: impl ToString, after: Duration) -> Self {
        Self::Retryable { code: None, message: message.to_string(), after: Some(after) }
    }

    /// No failure: what the job waits for is not there yet. However often it is put off, its attempts stay.
    pub fn snooze(after: Duration) -> Self {
        Self::Snooze { after }
    }

    /// A failure that stays.
    pub fn permanent(code: impl Into<String>, message: impl ToString) -> Self {
        Self::Permanent { code: code.into(), message: message.to_string() }
    }
}

impl From<LinkError> for Failure {
    fn from(error: LinkError) -> Self {
        match error {
            LinkError::Revoked(stop) => Self::Stopped(stop),
            LinkError::Unavailable(message) => Self::retryable(message),
            LinkError::Refused(message) => Self::permanent("refused", message),
        }
    }
}
