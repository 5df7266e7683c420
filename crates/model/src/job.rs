//! The life of a job: its states, what moves it, and what a failure leads to.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::retry::RetryPolicy;

/// Where a job stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum JobState {
    /// Waits for other steps of its workflow.
    Blocked,
    /// May be claimed once it is due.
    Queued,
    /// Belongs to a worker session.
    Running,
    /// Its handler succeeded.
    Completed,
    /// Its last attempt failed and no other is allowed. An operator may retry or resolve it.
    Failed,
    /// Somebody called it off.
    Cancelled,
    /// A newer version of the same view made it pointless.
    Superseded,
    /// Its workflow decided that it is not needed.
    Skipped,
    /// It failed, and an operator declared it settled.
    Resolved,
}

/// What can happen to a job.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum JobEvent {
    /// The last step that it waited for is done.
    Unblock,
    /// A worker session takes it.
    Claim,
    /// The worker hands it back unstarted.
    Release,
    /// Its session died, or its lease was taken away, with attempts left.
    Reclaim,
    /// The attempt succeeded.
    Complete,
    /// The attempt failed and another one is allowed.
    RetryLater,
    /// The attempt failed for good.
    Fail,
    /// A user cancels.
    Cancel,
    /// A newer version of its view was wanted.
    Supersede,
    /// Its workflow does not need it.
    Skip,
    /// An operator has it run again.
    OperatorRetry,
    /// An operator declares it settled.
    OperatorResolve,
    /// A later submit of its unique key takes its place while it waits.
    Replace,
    /// It has been split into children and goes on when they have ended.
    Await,
    /// An operator says how it ended, in its worker's stead.
    OperatorComplete,
    /// It took longer than its template allows.
    Expire,
    /// An operator has it run again, and what it waits for has not ended yet.
    OperatorWait,
}

impl JobState {
    /// Every state, in the order of a job's life.
    pub const ALL: [Self; 9] = [
        Self::Blocked,
        Self::Queued,
        Self::Running,
        Self::Completed,
        Self::Failed,
        Self::Cancelled,
        Self::Superseded,
        Self::Skipped,
        Self::Resolved,
    ];

    /// The whole table of transitions, as data: `(from, event, to)`. What is not here cannot happen.
    pub const TRANSITIONS: [(Self, JobEvent, Self); 27] = [
        (Self::Blocked, JobEvent::Unblock, Self::Queued),
        (Self::Blocked, JobEvent::Cancel, Self::Cancelled),
        (Self::Blocked, JobEvent::Supersede, Self::Superseded),
        (Self::Blocked, JobEvent::Skip, Self::Skipped),
        (Self::Queued, JobEvent::Claim, Self::Running),
        (Self::Queued, JobEvent::Cancel, Self::Cancelled),
        (Self::Queued, JobEvent::Supersede, Self::Superseded),
        (Self::Queued, JobEvent::Skip, Self::Skipped),
        (Self::Queued, JobEvent::Replace, Self::Queued),
        (Self::Running, JobEvent::Release, Self::Queued),
        (Self::Running, JobEvent::Reclaim, Self::Queued),
        (Self::Running, JobEvent::Complete, Self::Completed),
        (Self::Running, JobEvent::RetryLater, Self::Queued),
        (Self::Running, JobEvent::Fail, Self::Failed),
        (Self::Running, JobEvent::Cancel, Self::Cancelled),
        (Self::Running, JobEvent::Supersede, Self::Superseded),
        (Self::Running, JobEvent::Skip, Self::Skipped),
        (Self::Running, JobEvent::Await, Self::Blocked),
        (Self::Blocked, JobEvent::OperatorComplete, Self::Completed),
        (Self::Queued, JobEvent::OperatorComplete, Self::Completed),
        (Self::Running, JobEvent::OperatorComplete, Self::Completed),
        (Self::Failed, JobEvent::OperatorRetry, Self::Queued),
        (Self::Failed, JobEvent::OperatorResolve, Self::Resolved),
        (Self::Blocked, JobEvent::Expire, Self::Failed),
        (Self::Queued, JobEvent::Expire, Self::Failed),
        (Self::Running, JobEvent::Expire, Self::Failed),
        (Self::Failed, JobEvent::OperatorWait, Self::Blocked),
    ];

    /// Where `event` leads from here; `None` when it cannot happen here.
    pub fn after(self, event: JobEvent) -> Option<Self> {
        Self::TRANSITIONS.iter().find(|(from, on, _)| *from == self && *on == event).map(|(_, _, to)| *to)
    }

    /// Nothing but an operator moves it from here.
    pub fn is_terminal(self) -> bool {
        !matches!(self, Self::Blocked | Self::Queued | Self::Running)
    }

    /// The name in the store, on the wire and on pages.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Blocked => "blocked",
            Self::Queued => "queued",
            Self::Running => "running",
            Self::Completed => "completed",
            Self::Failed => "failed",
            Self::Cancelled => "cancelled",
            Self::Superseded => "superseded",
            Self::Skipped => "skipped",
            Self::Resolved => "resolved",
        }
    }
}

impl fmt::Display for JobState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

/// The text names no state.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "`{0}` is no job state: expected blocked, queued, running, completed, failed, cancelled, superseded, skipped or resolved"
)]
pub struct UnknownJobState(String);

impl FromStr for JobState {
    type Err = UnknownJobState;

    fn from_str(text: &str) -> Result<Self, UnknownJobState> {
        Self::ALL
            .into_iter()
            .find(|state| state.as_str() == text)
            .ok_or_else(|| UnknownJobState(text.to_owned()))
    }
}

/// Why an attempt did not succeed; the engine acts on it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ErrorKind {
    /// May succeed when tried again.
    Retryable,
    /// Will not succeed however often it is tried.
    Permanent,
    /// Called off.
    Cancelled,
    /// A newer version is wanted.
    Superseded,
    /// Ran longer than the job's timeout.
    Timeout,
    /// The worker lost the job.
    LeaseLost,
    /// The handler panicked.
    Panic,
}

/// An attempt's error, as it is kept in the store (JSON).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct JobError {
    /// What kind of failure it was.
    pub kind: ErrorKind,
    /// A stable word for programs, for example `http_404`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub code: Option<String>,
    /// What happened, for people.
    pub message: String,
    /// How long the other side asked to wait, in milliseconds. Honoured in full.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retry_after_ms: Option<u64>,
}

impl JobError {
    /// An error of a kind, with a message.
    pub fn new(kind: ErrorKind, message: impl Into<String>) -> Self {
        Self { kind, code: None, message: message.into(), retry_after_ms: None }
    }
}

/// Longest message that is kept of an error, in bytes: it stands in the job, its history and its dead letter.
pub const ERROR_MESSAGE_BYTES_MAX: usize = 16 * 1024;

impl JobError {
    /// With its message cut to [`ERROR_MESSAGE_BYTES_MAX`].
    pub fn bounded(mut self) -> Self {
        if self.message.len() > ERROR_MESSAGE_BYTES_MAX {
            let mut end = ERROR_MESSAGE_BYTES_MAX;
            while !self.message.is_char_boundary(end) {
                end -= 1;
            }
            self.message.truncate(end);
        }
        self
    }
}

/// What follows from a failed attempt.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AfterFailure {
    /// Back to the queue, due after this long.
    Retry(Duration),
    /// No more attempts.
    Fail,
}

/// Decides what follows when the `attempt`-th attempt (counted from 1) ends with `error`.
///
/// Retryable errors, timeouts, panics and lost leases run again while the policy has attempts left. A
/// `retry_after` that the other side asked for is a lower bound of the delay and is never cut by the cap.
pub fn after_failure(policy: &RetryPolicy, attempt: u32, error: &JobError, chance: f64) -> AfterFailure {
    let may_run_again = match error.kind {
        ErrorKind::Retryable | ErrorKind::Timeout | ErrorKind::Panic | ErrorKind::LeaseLost => {
            attempt < policy.attempts_max
        }
        ErrorKind::Permanent | ErrorKind::Cancelled | ErrorKind::Superseded => false,
    };
    if !may_run_again {
        return AfterFailure::Fail;
    }
    let asked = Duration::from_millis(error.retry_after_ms.unwrap_or(0));
    AfterFailure::Retry(policy.delay(attempt, chance).max(asked))
}

#[cfg(test)]
mod tests {
    use super::*;

    const EVENTS: [JobEvent; 17] = [
        JobEvent::Unblock,
        JobEvent::Claim,
        JobEvent::Release,
        JobEvent::Reclaim,
        JobEvent::Complete,
        JobEvent::RetryLater,
        JobEvent::Fail,
        JobEvent::Cancel,
        JobEvent::Supersede,
        JobEvent::Skip,
        JobEvent::OperatorRetry,
        JobEvent::OperatorResolve,
        JobEvent::Replace,
        JobEvent::Await,
        JobEvent::OperatorComplete,
        JobEvent::Expire,
        JobEvent::OperatorWait,
    ];

    /// The table once more, written as design says it rather than as code has it: for each state, one
    /// character per event in the order of `EVENTS`; `.` is refused, else the first letter of the new state
    /// (`C` completed, `X` cancelled, `S` superseded, `K` skipped, `O` resolved).
    const EXPECTED: [(JobState, &str); 9] = [
        (JobState::Blocked, "Q......XSK....CF."),
        (JobState::Queued, ".R.....XSK..Q.CF."),
        (JobState::Running, "..QQCQFXSK...BCF."),
        (JobState::Completed, "................."),
        (JobState::Failed, "..........QO....B"),
        (JobState::Cancelled, "................."),
        (JobState::Superseded, "................."),
        (JobState::Skipped, "................."),
        (JobState::Resolved, "................."),
    ];

    #[test]
    fn every_state_answers_every_event_as_designed() {
        for (state, row) in EXPECTED {
            for (event, expected) in EVENTS.into_iter().zip(row.chars()) {
                let letter = match state.after(event) {
                    None => '.',
                    Some(JobState::Blocked) => 'B',
                    Some(JobState::Queued) => 'Q',
                    Some(JobState::Running) => 'R',
                    Some(JobState::Completed) => 'C',
                    Some(JobState::Failed) => 'F',
                    Some(JobState::Cancelled) => 'X',
                    Some(JobState::Superseded) => 'S',
                    Some(JobState::Skipped) => 'K',
                    Some(JobState::Resolved) => 'O',
                };
                assert_eq!(letter, expected, "{state} on {event:?}");
            }
        }
    }

    #[test]
    fn only_an_operator_moves_a_terminal_job() {
        for state in JobState::ALL.into_iter().filter(|state| state.is_terminal()) {
            for event in EVENTS {
                let by_operator = matches!(
                    event,
                    JobEvent::OperatorRetry | JobEvent::OperatorWait | JobEvent::OperatorResolve
                );
                assert!(state.after(event).is_none() || by_operator, "{state} on {event:?}");
            }
        }
    }

    #[test]
    fn every_live_state_can_be_called_off() {
        for state in JobState::ALL.into_iter().filter(|state| !state.is_terminal()) {
            for event in [JobEvent::Cancel, JobEvent::Supersede, JobEvent::Skip] {
                assert!(state.after(event).is_some(), "{state} on {event:?}");
            }
        }
    }

    #[test]
    fn state_reads_back_from_its_name() {
        for state in JobState::ALL {
            assert_eq!(state.as_str().parse(), Ok(state));
        }
        assert!("processing".parse::<JobState>().is_err());
    }

    #[test]
    fn message_of_an_error_is_cut_between_two_characters() {
        let long = JobError::new(ErrorKind::Retryable, "x\u{20ac}".repeat(ERROR_MESSAGE_BYTES_MAX));
        let cut = long.bounded().message;
        assert_eq!(cut.len(), ERROR_MESSAGE_BYTES_MAX, "4 bytes a pair");
        let long = JobError::new(ErrorKind::Retryable, format!("y{cut}"));
        assert_eq!(long.bounded().message.len(), ERROR_MESSAGE_BYTES_MAX - 2);
        let short = JobError::new(ErrorKind::Retryable, "gone");
        assert_eq!(short.clone().bounded(), short);
    }

    #[test]
    fn permanent_error_is_never_tried_again() {
        let error = JobError::new(ErrorKind::Permanent, "no such customer");
        assert_eq!(after_failure(&RetryPolicy::default(), 1, &error, 0.0), AfterFailure::Fail);
    }

    #[test]
    fn retryable_error_is_tried_until_attempts_are_used_up() {
        let policy = RetryPolicy { attempts_max: 3, jitter: 0.0, ..RetryPolicy::default() };
        let error = JobError::new(ErrorKind::Retryable, "connection reset");
        assert_eq!(after_failure(&policy, 1, &error, 0.0), AfterFailure::Retry(Duration::from_secs(1)));
        assert_eq!(after_failure(&policy, 2, &error, 0.0), AfterFailure::Retry(Duration::from_secs(2)));
        assert_eq!(after_failure(&policy, 3, &error, 0.0), AfterFailure::Fail);
    }

    #[test]
    fn retry_after_is_honoured_beyond_the_cap() {
        let policy = RetryPolicy { cap_ms: 1_000, ..RetryPolicy::default() };
        let mut error = JobError::new(ErrorKind::Retryable, "429");
        error.retry_after_ms = Some(60_000);
        assert_eq!(after_failure(&policy, 1, &error, 0.0), AfterFailure::Retry(Duration::from_secs(60)));
    }
}
