//! Changing a job that waits.

use async_trait::async_trait;
use recache_model::ids::JobId;
use recache_model::job::JobState;

use super::super::{Connection, Driver};
use super::effects::Effects;
use super::jobs::{self, due_micros};
use super::lists;
use crate::error::{Error, Result};
use crate::flow::FLOW;
use crate::job_changes::JobChanges;
use crate::records::{Due, JobRecord};

#[async_trait]
impl JobChanges for Driver {
    async fn job_reschedule(&self, job: JobId, due: Due) -> Result<(JobRecord, JobRecord)> {
        self.write(work!([] db, now, effects => {
            let before = waiting(db, job, "rescheduled").await?;
            if before.handler == FLOW {
                return Err(Error::Conflict(format!("job `{job}` waits for a decision of the engine, not for its time")));
            }
            sqlx::query("UPDATE jobs SET due_at = $2 WHERE id = $1")
                .bind(job.uuid())
                .bind(due_micros(due, now))
                .execute(&mut *db)
                .await?;
            changed(db, before, effects).await
        }))
        .await
    }

    async fn job_prioritize(&self, job: JobId, priority: i64) -> Result<(JobRecord, JobRecord)> {
        self.write(work!([] db, now, effects => {
            let before = waiting(db, job, "moved in its queue").await?;
            sqlx::query("UPDATE jobs SET priority = $2 WHERE id = $1")
                .bind(job.uuid())
                .bind(priority)
                .execute(&mut *db)
                .await?;
            changed(db, before, effects).await
        }))
        .await
    }
}

/// The job, locked, if it waits in its queue.
async fn waiting(db: &mut Connection, job: JobId, what: &str) -> Result<JobRecord> {
    let locked = jobs::lock(db, job).await?.ok_or_else(|| Error::not_found("job", job))?;
    if locked.view.is_some() {
        return Err(Error::Conflict(format!("job `{job}` builds a view, which decides when it is built")));
    }
    if locked.state != JobState::Queued {
        let state = locked.state;
        return Err(Error::Conflict(format!("job `{job}` is {state}; only a queued job can be {what}")));
    }
    lists::get(db, job).await
}

async fn changed(
    db: &mut Connection,
    before: JobRecord,
    effects: &mut Effects,
) -> Result<(JobRecord, JobRecord)> {
    effects.queued(&before.queue);
    let after = lists::get(db, before.id).await?;
    Ok((before, after))
}
