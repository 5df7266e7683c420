//! Tracked jobs: run by some other system, kept here.

use std::fmt::Debug;
use std::time::Duration;

use async_trait::async_trait;
use recache_model::ids::{BatchId, JobId};
use recache_model::time::Timestamp;
use recache_model::tracked::{Course, Report, STALE_AFTER_DEFAULT, TrackedState};

use crate::error::Result;
use crate::maintenance::Leadership;

/// What a tracked job is about, so that a page finds its jobs again.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TrackedContext {
    /// A kind of thing: `product`.
    pub kind: String,
    /// Which one: `42`.
    pub id: String,
    /// Which part of it: `description`.
    pub field: Option<String>,
}

/// A tracked job to be kept.
#[derive(Debug, Clone, PartialEq)]
pub struct NewTrackedJob {
    /// Given or made; creating it again is harmless.
    pub id: JobId,
    /// Who it belongs to.
    pub namespace: String,
    /// What is done.
    pub action: String,
    /// What it is about.
    pub context: Option<TrackedContext>,
    /// It is a member of this batch.
    pub batch: Option<BatchId>,
    /// Who runs it.
    pub owner: Option<String>,
    /// JSON that is kept with it and never looked at.
    pub metadata: String,
    /// After this long without a word it is taken for dead, and failed.
    pub stale_after: Duration,
}

impl NewTrackedJob {
    /// A tracked job with defaults: namespace `default`, no context, no owner, stale after an hour.
    pub fn new(action: impl Into<String>) -> Self {
        Self {
            id: JobId::make(),
            namespace: "default".to_owned(),
            action: action.into(),
            context: None,
            batch: None,
            owner: None,
            metadata: "{}".to_owned(),
            stale_after: STALE_AFTER_DEFAULT,
        }
    }
}

/// A tracked job as it stands.
#[derive(Debug, Clone, PartialEq)]
pub struct TrackedJob {
    /// What was created.
    pub definition: NewTrackedJob,
    /// What was reported of it.
    pub course: Course,
    /// How often it changed; 1 for one that was only created. Heartbeats do not count.
    pub revision: i64,
    /// When it was created.
    pub created_at: Timestamp,
    /// When something was heard of it last.
    pub heard_at: Timestamp,
    /// When it is taken for dead; `None` when it has ended.
    pub stale_at: Option<Timestamp>,
    /// When it was first reported as processing.
    pub started_at: Option<Timestamp>,
    /// When it ended.
    pub finished_at: Option<Timestamp>,
    /// When somebody took note of its end, and who.
    pub acknowledged: Option<(Timestamp, String)>,
}

/// The answer to a call about a tracked job.
#[derive(Debug, Clone, PartialEq)]
pub struct Tracked {
    /// What stands now.
    pub job: TrackedJob,
    /// Whether this call made it so.
    pub changed: bool,
}

/// Which tracked jobs to list; newest first.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct TrackedFilter {
    /// Only of this namespace.
    pub namespace: Option<String>,
    /// Only about this; without a field, about any field of it. Needs the namespace.
    pub context: Option<TrackedContext>,
    /// Only in this state.
    pub state: Option<TrackedState>,
    /// Only of this action.
    pub action: Option<String>,
    /// Only of this owner.
    pub owner: Option<String>,
    /// Only those that nobody has acknowledged.
    pub unacknowledged: bool,
    /// Only older than this one.
    pub before: Option<JobId>,
    /// At most so many.
    pub rows_max: u32,
}

/// Longest list of creations or reports in one call.
pub const TRACKED_ROWS_MAX: usize = 10_000;

/// Jobs that some other system runs. The table is the truth; no cache has a say in it.
#[async_trait]
pub trait TrackedJobs: Send + Sync + Debug {
    /// Keeps jobs; all or none. One whose id is there already is answered as it stands; with another namespace, action, context
    /// or batch it is a conflict.
    async fn tracked_create(&self, jobs: Vec<NewTrackedJob>) -> Result<Vec<Tracked>>;

    /// Keeps what owners report; all or none. A report that is late or repeated is answered with what stands, and changes
    /// nothing. An unknown id is an error.
    async fn tracked_report(&self, reports: Vec<(JobId, Report)>) -> Result<Vec<Tracked>>;

    /// Says that the owner lives. Answers what stands, so that an owner learns when its job was cancelled or given up.
    async fn tracked_heartbeat(&self, job: JobId) -> Result<TrackedJob>;

    /// Takes note of a job's end. The first one stands; a job that has not ended is a conflict.
    async fn tracked_acknowledge(&self, job: JobId, actor: &str) -> Result<Tracked>;

    /// One job.
    async fn tracked_get(&self, job: JobId) -> Result<TrackedJob>;

    /// Jobs, newest first.
    async fn tracked_list(&self, filter: TrackedFilter) -> Result<Vec<TrackedJob>>;

    /// Fails jobs of which nothing was heard for too long. `up_for` is how long the caller has seen this database answer: while it
    /// did not, no owner could say a word, so a job is given its whole time again, but no more than
    /// [`STALE_GRACE`]. Answers how many.
    async fn tracked_fail_stale(
        &self,
        leadership: &Leadership,
        up_for: Duration,
        rows_max: u32,
    ) -> Result<u64>;

    /// Removes jobs that ended in `state` at least `keep` ago. Answers how many.
    async fn tracked_remove(
        &self,
        leadership: &Leadership,
        state: TrackedState,
        keep: Duration,
        rows_max: u32,
    ) -> Result<u64>;
}

/// Owners have this long to be heard again after the database was away.
pub const STALE_GRACE: Duration = Duration::from_mins(1);
