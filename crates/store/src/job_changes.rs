//! Changing a job that waits.

use std::fmt::Debug;

use async_trait::async_trait;
use recache_model::ids::JobId;

use crate::error::Result;
use crate::records::{Due, JobRecord};

/// Changes of queued jobs that are not builds of views: their views decide about those. A job in another state is a conflict. Each answers
/// the job as it stood before and as it stands now.
#[async_trait]
pub trait JobChanges: Send + Sync + Debug {
    /// Says when it may run.
    async fn job_reschedule(&self, job: JobId, due: Due) -> Result<(JobRecord, JobRecord)>;

    /// Says how urgent it is.
    async fn job_prioritize(&self, job: JobId, priority: i64) -> Result<(JobRecord, JobRecord)>;
}
