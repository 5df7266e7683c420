//! Dead letters: jobs that failed for good, and what an operator does about them.

use std::fmt;
use std::str::FromStr;

use crate::job::{ErrorKind, JobError};
use crate::lifecycle;

/// Where the work on a dead letter stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum LetterStatus {
    /// Nobody has looked at it.
    Pending,
    /// Somebody does.
    Investigating,
    /// Its job was put back to the queue.
    Redriven,
    /// Somebody declared its job settled.
    Resolved,
    /// Nothing will be done about it; its job stays failed.
    Discarded,
}

impl LetterStatus {
    /// Every status.
    pub const ALL: [Self; 5] =
        [Self::Pending, Self::Investigating, Self::Redriven, Self::Resolved, Self::Discarded];

    /// Something may still be done about it.
    pub fn is_open(self) -> bool {
        matches!(self, Self::Pending | Self::Investigating)
    }

    /// Whether it may go from here to `to`: an open one anywhere but back, a closed one nowhere.
    pub fn may_become(self, to: Self) -> bool {
        self.is_open() && to != Self::Pending && self != to
    }

    /// The name in the store and on the wire.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Pending => "pending",
            Self::Investigating => "investigating",
            Self::Redriven => "redriven",
            Self::Resolved => "resolved",
            Self::Discarded => "discarded",
        }
    }
}

impl fmt::Display for LetterStatus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

/// The text names no status.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "`{0}` is no status of a dead letter: expected pending, investigating, redriven, resolved or discarded"
)]
pub struct UnknownLetterStatus(String);

impl FromStr for LetterStatus {
    type Err = UnknownLetterStatus;

    fn from_str(text: &str) -> Result<Self, UnknownLetterStatus> {
        Self::ALL
            .into_iter()
            .find(|status| status.as_str() == text)
            .ok_or_else(|| UnknownLetterStatus(text.to_owned()))
    }
}

/// Why a job is dead, in a few words for people; `error` is its last attempt's.
pub fn reason(error: &JobError, attempt: u32, attempts_max: u32) -> String {
    if error.code.as_deref().is_some_and(lifecycle::is_code) {
        return error.message.clone();
    }
    let what = match error.kind {
        ErrorKind::Permanent => return "its handler says that no further attempt can succeed".to_owned(),
        ErrorKind::Cancelled | ErrorKind::Superseded => "it was called off",
        ErrorKind::Retryable => "failed",
        ErrorKind::Timeout => "ran too long",
        ErrorKind::LeaseLost => "lost its worker",
        ErrorKind::Panic => "panicked",
    };
    format!("attempt {attempt} of {attempts_max} {what}, and no attempt is left")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn closed_letter_stays_as_it_is() {
        for from in LetterStatus::ALL {
            for to in LetterStatus::ALL {
                let expected = match from {
                    LetterStatus::Pending => to != LetterStatus::Pending,
                    LetterStatus::Investigating => {
                        !matches!(to, LetterStatus::Pending | LetterStatus::Investigating)
                    }
                    LetterStatus::Redriven | LetterStatus::Resolved | LetterStatus::Discarded => false,
                };
                assert_eq!(from.may_become(to), expected, "{from} to {to}");
            }
        }
    }

    #[test]
    fn status_reads_back_from_its_name() {
        for status in LetterStatus::ALL {
            assert_eq!(status.as_str().parse(), Ok(status));
        }
        assert!("dead".parse::<LetterStatus>().is_err());
    }

    #[test]
    fn reason_says_whether_attempts_were_used_up() {
        let lost = JobError::new(ErrorKind::LeaseLost, "its worker stopped beating");
        assert_eq!(reason(&lost, 3, 3), "attempt 3 of 3 lost its worker, and no attempt is left");
        let code = Some(lifecycle::LimitName::Duration.code().to_owned());
        let late = JobError { code, ..JobError::new(ErrorKind::Timeout, "it has taken 9 min") };
        assert_eq!(reason(&late, 1, 3), "it has taken 9 min", "attempts have nothing to do with it");
        let permanent = JobError::new(ErrorKind::Permanent, "no such customer");
        assert!(!reason(&permanent, 1, 3).contains("attempt 1"));
    }
}
