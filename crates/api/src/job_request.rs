//! What is asked for about jobs.

use serde::{Deserialize, Serialize};

use crate::instant::Instant;
use crate::job::{Job, JobState, JobSubmitted};
use crate::json::Json;
use crate::view::Backoff;

/// A job to be submitted.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct SubmitJob {
    /// What does it.
    #[cfg_attr(feature = "openapi", schema(min_length = 1, max_length = 256, example = "echo"))]
    pub handler: String,
    /// Who it belongs to.
    #[serde(default = "crate::defaults::name")]
    #[cfg_attr(feature = "openapi", schema(min_length = 1, max_length = 256))]
    pub namespace: String,
    /// Where it waits.
    #[serde(default = "crate::defaults::name")]
    #[cfg_attr(feature = "openapi", schema(min_length = 1, max_length = 256))]
    pub queue: String,
    /// What its handler is given.
    #[serde(default = "Json::null")]
    pub input: Json,
    /// Larger is more urgent.
    #[serde(default)]
    pub priority: i64,
    /// It may run after so long; not together with `due_at`.
    #[serde(default)]
    #[cfg_attr(feature = "openapi", schema(maximum = 315_360_000_000_i64))]
    pub delay_ms: Option<u64>,
    /// It may run from this instant on.
    #[serde(default)]
    pub due_at: Option<Instant>,
    /// What follows a failure.
    #[serde(default)]
    pub retry: Option<SubmitRetry>,
    /// How long one attempt may run; without it as long as it likes.
    #[serde(default)]
    #[cfg_attr(feature = "openapi", schema(minimum = 1, maximum = 315_360_000_000_i64))]
    pub timeout_ms: Option<u64>,
    /// Ties what belongs together across logs, history and processes. Made when it is not given.
    #[serde(default)]
    #[cfg_attr(feature = "openapi", schema(min_length = 1, max_length = 256))]
    pub correlation_id: Option<String>,
    /// W3C `traceparent`. The header of that name when it is not given.
    #[serde(default)]
    #[cfg_attr(feature = "openapi", schema(min_length = 1, max_length = 256))]
    pub trace_context: Option<String>,
    /// Makes this submit safe to repeat for 7 days. The header `Idempotency-Key` when it is not given.
    #[serde(default)]
    #[cfg_attr(feature = "openapi", schema(min_length = 1, max_length = 256))]
    pub idempotency_key: Option<String>,
    /// No second one of the same job.
    #[serde(default)]
    pub unique: Option<SubmitUnique>,
    /// Of the jobs of one namespace with the same key one runs at a time, unless its limit allows more.
    #[serde(default)]
    #[cfg_attr(feature = "openapi", schema(min_length = 1, max_length = 256))]
    pub concurrency_key: Option<String>,
    /// `batch_…`: it is a member of this batch.
    #[serde(default)]
    #[cfg_attr(feature = "openapi", schema(min_length = 1, max_length = 64))]
    pub batch_id: Option<String>,
}

/// What follows a failure; what is not given is as it is by default.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct SubmitRetry {
    /// Attempts, the first one included.
    #[serde(default)]
    #[cfg_attr(feature = "openapi", schema(minimum = 1, maximum = 10_000))]
    pub attempts_max: Option<u32>,
    /// How the wait between them grows.
    #[serde(default)]
    pub backoff: Option<Backoff>,
    /// The first wait.
    #[serde(default)]
    #[cfg_attr(feature = "openapi", schema(maximum = 315_360_000_000_i64))]
    pub base_ms: Option<u64>,
    /// The longest wait.
    #[serde(default)]
    #[cfg_attr(feature = "openapi", schema(maximum = 315_360_000_000_i64))]
    pub cap_ms: Option<u64>,
    /// The fraction of a wait that chance may take away.
    #[serde(default)]
    #[cfg_attr(feature = "openapi", schema(minimum = 0, maximum = 1))]
    pub jitter: Option<f64>,
}

/// When two jobs of one namespace and handler are the same.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct SubmitUnique {
    /// Jobs with different keys differ.
    #[serde(default)]
    #[cfg_attr(feature = "openapi", schema(min_length = 1, max_length = 256))]
    pub key: Option<String>,
    /// Jobs with different inputs differ.
    #[serde(default)]
    pub by_input: bool,
    /// Jobs that were submitted in different periods of this length differ.
    #[serde(default)]
    #[cfg_attr(feature = "openapi", schema(minimum = 1, maximum = 315_360_000_000_i64))]
    pub per_ms: Option<u64>,
    /// Ended jobs in these states stand in the way too.
    #[serde(default)]
    #[cfg_attr(feature = "openapi", schema(max_items = 9))]
    pub also_ended: Vec<JobState>,
    /// What to do when the job is there already.
    #[serde(default)]
    pub if_there: IfThere,
}

/// What a submit does when the same job is there already.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "snake_case")]
pub enum IfThere {
    /// Answer the job that is there.
    #[default]
    Return,
    /// Refuse, as a conflict.
    Reject,
    /// Let it take over the new input while it is queued.
    Replace,
}

/// Jobs to be submitted, all or none.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct SubmitJobs {
    /// The jobs.
    #[cfg_attr(feature = "openapi", schema(min_items = 1, max_items = 1_000))]
    pub jobs: Vec<SubmitJob>,
}

/// What submitting several jobs did.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct JobsSubmitted {
    /// [`JobsSubmitted::SCHEMA`]
    pub schema: String,
    /// One for each job, in order.
    pub jobs: Vec<JobSubmitted>,
}

impl JobsSubmitted {
    /// The name and version of this shape.
    pub const SCHEMA: &'static str = "recache.jobs-submitted.v1";

    /// What became of each.
    pub fn new(jobs: Vec<JobSubmitted>) -> Self {
        Self { schema: Self::SCHEMA.to_owned(), jobs }
    }
}

/// Why an operator does something.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct Because {
    /// Why; kept in history and in the audit.
    #[serde(default)]
    #[cfg_attr(feature = "openapi", schema(min_length = 1, max_length = 1_000))]
    pub reason: Option<String>,
}

/// Which jobs are cancelled, run again or deleted. Builds of views are never among them: their views look after them.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct ChangeJobs {
    /// Only of this namespace.
    #[serde(default)]
    #[cfg_attr(feature = "openapi", schema(min_length = 1, max_length = 256))]
    pub namespace: Option<String>,
    /// Only of this queue.
    #[serde(default)]
    #[cfg_attr(feature = "openapi", schema(min_length = 1, max_length = 256))]
    pub queue: Option<String>,
    /// Only of this handler.
    #[serde(default)]
    #[cfg_attr(feature = "openapi", schema(min_length = 1, max_length = 256))]
    pub handler: Option<String>,
    /// All there are; must be said where nothing else chooses.
    #[serde(default)]
    pub all: bool,
    /// Count, and change nothing.
    #[serde(default)]
    pub dry_run: bool,
    /// `next` of the call before, with the same filter.
    #[serde(default)]
    #[cfg_attr(feature = "openapi", schema(min_length = 1, max_length = 4_096))]
    pub cursor: Option<String>,
    /// Why; kept in the history of each job and in the audit.
    #[serde(default)]
    #[cfg_attr(feature = "openapi", schema(min_length = 1, max_length = 1_000))]
    pub reason: Option<String>,
}

/// When a queued job may run; one of the two.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct Reschedule {
    /// After so long; 0 is at once.
    #[serde(default)]
    #[cfg_attr(feature = "openapi", schema(maximum = 315_360_000_000_i64))]
    pub delay_ms: Option<u64>,
    /// From this instant on.
    #[serde(default)]
    pub due_at: Option<Instant>,
    /// Why; kept in the audit.
    #[serde(default)]
    #[cfg_attr(feature = "openapi", schema(min_length = 1, max_length = 1_000))]
    pub reason: Option<String>,
}

/// How urgent a queued job is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct Prioritize {
    /// Larger is more urgent.
    pub priority: i64,
    /// Why; kept in the audit.
    #[serde(default)]
    #[cfg_attr(feature = "openapi", schema(min_length = 1, max_length = 1_000))]
    pub reason: Option<String>,
}

/// A job that was changed, as it stands now.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct JobUpdated {
    /// [`JobUpdated::SCHEMA`]
    pub schema: String,
    /// The job.
    pub job: Job,
}

impl JobUpdated {
    /// The name and version of this shape.
    pub const SCHEMA: &'static str = "recache.job-updated.v1";

    /// A job as it stands now.
    pub fn new(job: Job) -> Self {
        Self { schema: Self::SCHEMA.to_owned(), job }
    }
}
