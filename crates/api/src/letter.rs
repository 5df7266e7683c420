//! Dead letters on the wire.

use serde::{Deserialize, Serialize};

use crate::instant::Instant;
use crate::job::JobError;
use crate::json::Json;

/// Where the work on a dead letter stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "snake_case")]
pub enum LetterStatus {
    /// Nobody has looked at it.
    Pending,
    /// Somebody does.
    Investigating,
    /// Its job was put back to the queue.
    Redriven,
    /// Somebody declared its job settled.
    Resolved,
    /// Nothing will be done about it.
    Discarded,
}

/// An attempt that did not succeed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct FailedAttempt {
    /// Counted from 1.
    pub attempt: u32,
    /// When it ended.
    pub at: Instant,
    /// Why.
    pub error: JobError,
}

/// Who did what about a dead letter.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct LetterNote {
    /// When.
    pub at: Instant,
    /// The status since then.
    pub status: LetterStatus,
    /// Who.
    pub actor: String,
    /// What was said.
    pub text: String,
}

/// A job as it was when it failed for good.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Letter {
    /// `job_…`
    pub job_id: String,
    /// The number of the transition by which it failed.
    pub seq: i64,
    /// Who it belongs to.
    pub namespace: String,
    /// Where it waited.
    pub queue: String,
    /// What did it.
    pub handler: String,
    /// Where the work on it stands.
    pub status: LetterStatus,
    /// Since when.
    pub status_at: Instant,
    /// Why the job is dead, in a few words.
    pub reason: String,
    /// The last attempt's error.
    pub error: JobError,
    /// The attempts and their errors, oldest first; the last 100.
    pub attempts: Vec<FailedAttempt>,
    /// Attempts made.
    pub attempt: u32,
    /// Attempts that were allowed.
    pub attempts_max: u32,
    /// What the handler was given.
    pub input: Json,
    /// Larger is more urgent.
    pub priority: i64,
    /// `wf_…`: the workflow that it is a step of.
    pub workflow_id: Option<String>,
    /// Its name in the workflow.
    pub step: Option<String>,
    /// Ties what belongs together.
    pub correlation_id: String,
    /// When it was submitted.
    pub submitted_at: Instant,
    /// When it failed.
    pub failed_at: Instant,
}

/// Dead letters, newest jobs first.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct LetterList {
    /// [`LetterList::SCHEMA`]
    pub schema: String,
    /// The page.
    pub letters: Vec<Letter>,
    /// Where the next page begins: list the letters of jobs before this id. `null` on the last page.
    pub next: Option<String>,
}

impl LetterList {
    /// The name and version of this shape.
    pub const SCHEMA: &'static str = "recache.dead-letters.v1";

    /// A page.
    pub fn new(letters: Vec<Letter>, next: Option<String>) -> Self {
        Self { schema: Self::SCHEMA.to_owned(), letters, next }
    }
}

/// One dead letter with its notes.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct LetterDetails {
    /// [`LetterDetails::SCHEMA`]
    pub schema: String,
    /// The letter.
    pub letter: Letter,
    /// What was done about it, oldest first.
    pub notes: Vec<LetterNote>,
}

impl LetterDetails {
    /// The name and version of this shape.
    pub const SCHEMA: &'static str = "recache.dead-letter.v1";

    /// A letter with its notes.
    pub fn new(letter: Letter, notes: Vec<LetterNote>) -> Self {
        Self { schema: Self::SCHEMA.to_owned(), letter, notes }
    }
}

/// What a change by filter did, or would do.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct BulkChange {
    /// [`BulkChange::SCHEMA`]
    pub schema: String,
    /// So many were changed.
    pub changed: u64,
    /// So many could not be.
    pub skipped: u64,
    /// With a preview: so many match, counted no further than 100,000; nothing was changed.
    pub matching: Option<u64>,
    /// There may be more: repeat the call with this as `cursor`. `null`: all were looked at.
    pub next: Option<String>,
}

impl BulkChange {
    /// The name and version of this shape.
    pub const SCHEMA: &'static str = "recache.bulk-change.v1";

    /// What was done.
    pub fn done(changed: u64, skipped: u64) -> Self {
        Self { schema: Self::SCHEMA.to_owned(), changed, skipped, matching: None, next: None }
    }

    /// What would be looked at.
    pub fn preview(matching: u64) -> Self {
        Self { schema: Self::SCHEMA.to_owned(), changed: 0, skipped: 0, matching: Some(matching), next: None }
    }
}
