//! Tracked jobs: some other system runs them and reports here. The store is the truth; what it cannot keep is an error of the call.

use std::time::Duration;

use recache_model::ids::JobId;
use recache_model::tracked::Report;
use recache_store::{NewTrackedJob, Tracked, TrackedFilter, TrackedJob};

use crate::engine::{Engine, deadline};
use crate::error::{Error, Result};

impl Engine {
    /// Keeps a job that some other system runs. Creating the same id again is harmless.
    pub async fn track(&self, job: NewTrackedJob) -> Result<Tracked> {
        let id = job.id;
        only(id, self.track_many(vec![job]).await?)
    }

    /// Keeps jobs; all or none.
    pub async fn track_many(&self, jobs: Vec<NewTrackedJob>) -> Result<Vec<Tracked>> {
        Ok(self.shared.store.tracked_jobs().tracked_create(jobs).await?)
    }

    /// Keeps what a job's owner reports. A report that is late or repeated is answered with what stands; one for an unknown job
    /// is an error.
    pub async fn report(&self, job: JobId, report: Report) -> Result<Tracked> {
        only(job, self.report_many(vec![(job, report)]).await?)
    }

    /// Keeps reports; all or none.
    pub async fn report_many(&self, reports: Vec<(JobId, Report)>) -> Result<Vec<Tracked>> {
        let answers = self.shared.store.tracked_jobs().tracked_report(reports).await?;
        for answer in answers.iter().filter(|answer| answer.changed) {
            self.shared.waiters.wake(answer.job.definition.id.uuid());
        }
        Ok(answers)
    }

    /// Says that a job's owner lives; answers what stands, so that the owner learns of a cancel.
    pub async fn heartbeat(&self, job: JobId) -> Result<TrackedJob> {
        Ok(self.shared.store.tracked_jobs().tracked_heartbeat(job).await?)
    }

    /// Takes note of the end of a tracked job. The first word stands.
    pub async fn acknowledge(&self, job: JobId, actor: &str) -> Result<Tracked> {
        Ok(self.shared.store.tracked_jobs().tracked_acknowledge(job, actor).await?)
    }

    /// A tracked job as it stands.
    pub async fn tracked_job(&self, job: JobId) -> Result<TrackedJob> {
        Ok(self.shared.store.tracked_jobs().tracked_get(job).await?)
    }

    /// Tracked jobs, newest first.
    pub async fn tracked_jobs(&self, filter: TrackedFilter) -> Result<Vec<TrackedJob>> {
        Ok(self.shared.store.tracked_jobs().tracked_list(filter).await?)
    }

    /// Waits until a tracked job has ended, for `wait` at most.
    pub async fn wait_for_tracked_job(&self, job: JobId, wait: Duration) -> Result<TrackedJob> {
        let deadline = deadline(wait);
        let watch = self.shared.waiters.watch(job.uuid());
        loop {
            let changed = watch.changed();
            let standing = self.tracked_job(job).await?;
            if standing.course.state.is_terminal() {
                return Ok(standing);
            }
            if tokio::time::timeout_at(deadline, self.pause(changed)).await.is_err() {
                let what = format!("tracked job {job} is {}", standing.course.state);
                return Err(Error::TimedOut { what, waited: wait });
            }
        }
    }
}

/// The answer to a call about one job.
fn only(job: JobId, mut answers: Vec<Tracked>) -> Result<Tracked> {
    answers.pop().ok_or_else(|| Error::Invalid(format!("the store did not answer about tracked job {job}")))
}
