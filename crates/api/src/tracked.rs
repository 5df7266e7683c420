//! Tracked jobs on the wire.

use serde::{Deserialize, Serialize};

use crate::instant::Instant;
use crate::json::Json;

/// Where a tracked job stands, as its owner reported.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "snake_case")]
pub enum TrackedState {
    /// Its owner has not begun.
    Queued,
    /// Its owner works on it.
    Processing,
    /// It ended well.
    Completed,
    /// It ended badly, or nothing was heard of it for too long.
    Failed,
    /// Somebody called it off.
    Cancelled,
}

/// What a tracked job is about.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct TrackedContext {
    /// A kind of thing.
    #[serde(rename = "type")]
    pub kind: String,
    /// Which one.
    pub id: String,
    /// Which part of it.
    pub field: Option<String>,
}

/// A job that some other system runs, as it stands here.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct TrackedJob {
    /// `job_…`
    pub id: String,
    /// Who it belongs to.
    pub namespace: String,
    /// What is done.
    pub action: String,
    /// Where it stands.
    pub state: TrackedState,
    /// What it is about.
    pub context: Option<TrackedContext>,
    /// `batch_…`: the batch that it is a member of.
    pub batch_id: Option<String>,
    /// Who runs it.
    pub owner: Option<String>,
    /// What was kept with it.
    pub metadata: Json,
    /// What its owner last said; of a failed job, why it failed.
    pub message: Option<String>,
    /// A stable word for why it failed; `stale`: nothing was heard of it.
    pub code: Option<String>,
    /// What it made, or is making.
    pub data: Option<Json>,
    /// 0 to 1.
    pub progress: Option<f64>,
    /// Things done.
    pub items_done: Option<i64>,
    /// Things to do.
    pub items_total: Option<i64>,
    /// How often it changed; heartbeats do not count.
    pub revision: i64,
    /// After this long without a word it is taken for dead.
    pub stale_after_ms: u64,
    /// When that is; `null` when it has ended.
    pub stale_at: Option<Instant>,
    /// When it was created.
    pub created_at: Instant,
    /// When something was heard of it last.
    pub heard_at: Instant,
    /// When it was first reported as processing.
    pub started_at: Option<Instant>,
    /// When it ended.
    pub finished_at: Option<Instant>,
    /// When somebody took note of its end.
    pub acknowledged_at: Option<Instant>,
    /// Who that was.
    pub acknowledged_by: Option<String>,
}

/// Tracked jobs, newest first.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct TrackedJobList {
    /// [`TrackedJobList::SCHEMA`]
    pub schema: String,
    /// The page.
    pub jobs: Vec<TrackedJob>,
    /// Where the next page begins: list the jobs before this id. `null` on the last page.
    pub next: Option<String>,
}

impl TrackedJobList {
    /// The name and version of this shape.
    pub const SCHEMA: &'static str = "recache.tracked-jobs.v1";

    /// A page.
    pub fn new(jobs: Vec<TrackedJob>, next: Option<String>) -> Self {
        Self { schema: Self::SCHEMA.to_owned(), jobs, next }
    }
}

/// One tracked job, after a call about it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct TrackedJobAnswer {
    /// [`TrackedJobAnswer::SCHEMA`]
    pub schema: String,
    /// What stands now.
    pub job: TrackedJob,
    /// Whether this call made it so; a report that is late or repeated changes nothing.
    pub changed: bool,
}

impl TrackedJobAnswer {
    /// The name and version of this shape.
    pub const SCHEMA: &'static str = "recache.tracked-job.v1";

    /// What stands.
    pub fn new(job: TrackedJob, changed: bool) -> Self {
        Self { schema: Self::SCHEMA.to_owned(), job, changed }
    }
}

/// What keeping several tracked jobs did.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct TrackedJobsKept {
    /// [`TrackedJobsKept::SCHEMA`]
    pub schema: String,
    /// One for each job, in order.
    pub jobs: Vec<TrackedJobKept>,
}

/// What became of one of them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct TrackedJobKept {
    /// `job_…`
    pub id: String,
    /// Whether it was not there before.
    pub is_new: bool,
}

impl TrackedJobsKept {
    /// The name and version of this shape.
    pub const SCHEMA: &'static str = "recache.tracked-jobs-kept.v1";

    /// What became of each.
    pub fn new(jobs: Vec<TrackedJobKept>) -> Self {
        Self { schema: Self::SCHEMA.to_owned(), jobs }
    }
}

/// What was taken over from another tracker.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct TrackedImport {
    /// [`TrackedImport::SCHEMA`]
    pub schema: String,
    /// Jobs that are new here.
    pub jobs_new: u64,
    /// Jobs that were here before.
    pub jobs_known: u64,
    /// Batches that are new here.
    pub batches_new: u64,
    /// Batches that were here before.
    pub batches_known: u64,
    /// Batches that still run there, and stay open here for what comes.
    #[serde(default)]
    pub batches_open: u64,
    /// What could not be taken over whole.
    pub unread: Vec<TrackedImportUnread>,
}

/// A key of another tracker that could not be taken over whole.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct TrackedImportUnread {
    /// The key.
    pub key: String,
    /// Why.
    pub reason: String,
}

impl TrackedImport {
    /// The name and version of this shape.
    pub const SCHEMA: &'static str = "recache.tracked-import.v1";

    /// Nothing yet, but for what could not be read.
    pub fn new(unread: Vec<TrackedImportUnread>) -> Self {
        let schema = Self::SCHEMA.to_owned();
        Self { schema, jobs_new: 0, jobs_known: 0, batches_new: 0, batches_known: 0, batches_open: 0, unread }
    }
}
