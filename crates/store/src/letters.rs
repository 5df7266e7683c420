//! Dead letters: looking at jobs that failed for good, and doing something about them.

use std::fmt::Debug;
use std::time::Duration;

use async_trait::async_trait;
use recache_model::ids::{JobId, WorkflowId};
use recache_model::job::JobError;
use recache_model::letter::LetterStatus;
use recache_model::time::Timestamp;
use serde::Deserialize;

use crate::error::Result;
use crate::queues::Word;

/// Attempts whose errors a letter keeps: the last ones.
pub const ATTEMPTS_KEPT_MAX: i64 = 100;
/// Notes that one letter may have.
pub const NOTES_MAX: i64 = 1_000;

/// An attempt that did not succeed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FailedAttempt {
    /// Counted from 1.
    pub attempt: u32,
    /// When it ended.
    pub at: Timestamp,
    /// Why.
    pub error: JobError,
}

/// As it stands in the store.
#[derive(Debug, Deserialize)]
pub(crate) struct KeptAttempt {
    pub(crate) attempt: u32,
    pub(crate) at: i64,
    pub(crate) error: JobError,
}

/// Who did what about a letter.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LetterNote {
    /// When.
    pub at: Timestamp,
    /// The status since then.
    pub status: LetterStatus,
    /// Who, and what was said.
    pub word: Word,
}

/// A job as it was when it failed for good.
#[derive(Debug, Clone, PartialEq)]
pub struct Letter {
    /// The job.
    pub job: JobId,
    /// The number of the transition by which it failed; a job that was redriven may fail again.
    pub seq: i64,
    /// Who it belongs to.
    pub namespace: String,
    /// Where it waited.
    pub queue: String,
    /// What did it.
    pub handler: String,
    /// Where the work on it stands.
    pub status: LetterStatus,
    /// The last attempt's error.
    pub error: JobError,
    /// The attempts and their errors, oldest first; the last [`ATTEMPTS_KEPT_MAX`].
    pub attempts: Vec<FailedAttempt>,
    /// JSON for the handler.
    pub input: String,
    /// Larger is more urgent.
    pub priority: i64,
    /// Attempts made.
    pub attempt: u32,
    /// Attempts allowed.
    pub attempts_max: u32,
    /// Ties what belongs together.
    pub correlation_id: String,
    /// Its workflow.
    pub workflow: Option<WorkflowId>,
    /// Its name there.
    pub step: Option<String>,
    /// When it was submitted.
    pub submitted_at: Timestamp,
    /// When it failed.
    pub failed_at: Timestamp,
    /// Since when it has its status.
    pub status_at: Timestamp,
}

/// Which letters; newest jobs first.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct LetterFilter {
    /// Only of this job.
    pub job: Option<JobId>,
    /// Only of this namespace.
    pub namespace: Option<String>,
    /// Only of this queue.
    pub queue: Option<String>,
    /// Only of this handler.
    pub handler: Option<String>,
    /// Only in this status; `None`: open ones.
    pub status: Option<LetterStatus>,
    /// Only those that have had their status for at least this long.
    pub stale_for: Option<Duration>,
    /// Only of jobs older than this one: the last of the page or batch before.
    pub before: Option<JobId>,
}

/// What a bounded batch of changes did. The next batch goes on before `last`; `None` when there is nothing more.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct BatchDone {
    /// So many were changed.
    pub changed: u64,
    /// So many could not be: they changed meanwhile, or another job of their unique key is there.
    pub skipped: u64,
    /// The last one that was looked at.
    pub last: Option<JobId>,
}

/// Dead letters.
#[async_trait]
pub trait Letters: Send + Sync + Debug {
    /// A page of letters.
    async fn letters_list(&self, filter: LetterFilter, rows_max: u32) -> Result<Vec<Letter>>;

    /// How many there are, counted no further than `count_max`.
    async fn letters_count(&self, filter: LetterFilter, count_max: u32) -> Result<u64>;

    /// The newest letter of a job with its notes, oldest first.
    async fn letter_get(&self, job: JobId) -> Result<(Letter, Vec<LetterNote>)>;

    /// Says that somebody looks at an open letter, or that nothing will be done about it. Another status is refused.
    async fn letter_mark(&self, job: JobId, status: LetterStatus, word: Word) -> Result<()>;

    /// Adds a note to the newest letter of a job.
    async fn letter_note(&self, job: JobId, word: Word) -> Result<()>;

    /// Puts the jobs of open letters back to the queue with new attempts, at most `rows_max` in one transaction.
    async fn letters_redrive(&self, filter: LetterFilter, rows_max: u32, word: Word) -> Result<BatchDone>;

    /// Declares a failed job settled: state `resolved`, which counts as done for what waits for it. A job in another state is a conflict.
    async fn job_resolve(&self, job: JobId, word: Word) -> Result<()>;
}
