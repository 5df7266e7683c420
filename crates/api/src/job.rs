//! Jobs on the wire.

use serde::{Deserialize, Serialize};

use crate::instant::Instant;
use crate::json::Json;

/// Where a job stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
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
    /// Its last attempt failed and no other is allowed.
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

/// What kind of failure ended an attempt.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
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

/// An attempt's error.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct JobError {
    /// What kind of failure it was.
    pub kind: ErrorKind,
    /// A stable word for programs, for example `http_404`.
    pub code: Option<String>,
    /// What happened, for people.
    pub message: String,
    /// How long the other side asked to wait.
    pub retry_after_ms: Option<u64>,
}

/// A job as it stands.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Job {
    /// `job_…`
    pub id: String,
    /// Who it belongs to.
    pub namespace: String,
    /// Where it waits or waited.
    pub queue: String,
    /// What does it.
    pub handler: String,
    /// Where it stands.
    pub state: JobState,
    /// Larger is more urgent.
    pub priority: i64,
    /// Attempts made.
    pub attempt: u32,
    /// Attempts allowed.
    pub attempts_max: u32,
    /// How long one attempt may run; `null`: as long as it likes.
    pub timeout_ms: Option<u64>,
    /// When it was submitted.
    pub created_at: Instant,
    /// When it may run, for the first time or again.
    pub due_at: Instant,
    /// When its last attempt began.
    pub started_at: Option<Instant>,
    /// When it ended.
    pub finished_at: Option<Instant>,
    /// 0 to 1, as its handler reported.
    pub progress: Option<f64>,
    /// What its handler last said.
    pub message: Option<String>,
    /// The last attempt's error.
    pub error: Option<JobError>,
    /// What its handler is given.
    pub input: Json,
    /// What its handler answered.
    pub output: Option<Json>,
    /// `ses_…`: the worker session that runs it.
    pub session_id: Option<String>,
    /// `wf_…`: the workflow that it is a step of.
    pub workflow_id: Option<String>,
    /// Its name in the workflow.
    pub step: Option<String>,
    /// `batch_…`: the batch that it is a member of.
    pub batch_id: Option<String>,
    /// `view_…`: the view that it builds.
    pub view_id: Option<String>,
    /// The version that it builds.
    pub view_version: Option<i64>,
    /// The version for whose sake it was ended.
    pub superseded_by: Option<i64>,
    /// Ties what belongs together across logs, history and processes.
    pub correlation_id: String,
    /// W3C `traceparent` of the submit.
    pub trace_context: Option<String>,
    /// With which others it may not run.
    pub concurrency_key: Option<String>,
}

/// One transition of a job.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct JobHistoryRow {
    /// Its number, dense from 1.
    pub seq: i64,
    /// When.
    pub at: Instant,
    /// From where.
    pub from: JobState,
    /// To where.
    pub to: JobState,
    /// How long the job had been in `from`.
    pub spent_ms: u64,
    /// The attempt at that time.
    pub attempt: u32,
    /// The worker session that had it, before or after.
    pub session_id: Option<String>,
    /// The error that ended the attempt.
    pub error: Option<JobError>,
    /// Why, where it was no error.
    pub detail: Option<String>,
}

/// Jobs, newest first.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct JobList {
    /// [`JobList::SCHEMA`]
    pub schema: String,
    /// The page. It may hold fewer than were asked for, even none, and still have a `next`: one page looks at 50,000 jobs at most.
    pub jobs: Vec<Job>,
    /// Where the next page begins; `null` on the last one, and only there.
    pub next: Option<String>,
}

impl JobList {
    /// The name and version of this shape.
    pub const SCHEMA: &'static str = "recache.jobs.v1";

    /// A page.
    pub fn new(jobs: Vec<Job>, next: Option<String>) -> Self {
        Self { schema: Self::SCHEMA.to_owned(), jobs, next }
    }
}

/// One job with its history.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct JobDetails {
    /// [`JobDetails::SCHEMA`]
    pub schema: String,
    /// The job.
    pub job: Job,
    /// Its transitions, oldest first.
    pub history: Vec<JobHistoryRow>,
    /// Its attempts, oldest first.
    pub attempts: Vec<JobAttempt>,
    /// The newest lines that its handler said, oldest first.
    pub log: Vec<JobLogLine>,
}

/// One attempt of a job.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct JobAttempt {
    /// Counted from 1. An attempt that was handed back or put off does not count: the next one has the same number.
    pub attempt: u32,
    /// When it began.
    pub started_at: Instant,
    /// When it ended; `null` while it runs.
    pub ended_at: Option<Instant>,
    /// The state that it led to; `null` while it runs.
    pub ended_as: Option<JobState>,
    /// Why it did not succeed.
    pub error: Option<JobError>,
}

/// A line that a handler said.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct JobLogLine {
    /// Its number in the job; the first ones make room for more.
    pub seq: i64,
    /// In which attempt.
    pub attempt: u32,
    /// When.
    pub at: Instant,
    /// What.
    pub text: String,
}

impl JobDetails {
    /// The name and version of this shape.
    pub const SCHEMA: &'static str = "recache.job.v1";

    /// A job with its history.
    pub fn new(
        job: Job,
        history: Vec<JobHistoryRow>,
        attempts: Vec<JobAttempt>,
        log: Vec<JobLogLine>,
    ) -> Self {
        Self { schema: Self::SCHEMA.to_owned(), job, history, attempts, log }
    }
}

/// What a cancel or a retry did.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct JobChange {
    /// [`JobChange::SCHEMA`]
    pub schema: String,
    /// `job_…`
    pub id: String,
    /// Where it stands now.
    pub state: JobState,
    /// Whether this call brought it there.
    pub changed: bool,
}

impl JobChange {
    /// The name and version of this shape.
    pub const SCHEMA: &'static str = "recache.job-change.v1";

    /// What a call did to a job.
    pub fn new(id: String, state: JobState, changed: bool) -> Self {
        Self { schema: Self::SCHEMA.to_owned(), id, state, changed }
    }
}

/// What a submit did.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct JobSubmitted {
    /// [`JobSubmitted::SCHEMA`]
    pub schema: String,
    /// `job_…`: the job that the submit stands for.
    pub id: String,
    /// It was there before, by its id, its idempotency key or its unique key.
    pub existed: bool,
    /// It was there before, and waits now with what this submit said.
    pub replaced: bool,
    /// How it stands when this is answered, where that was waited for; otherwise `null`.
    pub job: Option<Job>,
}

impl JobSubmitted {
    /// The name and version of this shape.
    pub const SCHEMA: &'static str = "recache.job-submitted.v1";

    /// What a submit answered.
    pub fn new(id: String, existed: bool, replaced: bool) -> Self {
        Self { schema: Self::SCHEMA.to_owned(), id, existed, replaced, job: None }
    }
}
