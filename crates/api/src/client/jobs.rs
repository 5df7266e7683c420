//! Jobs.

use std::time::Duration;

use super::call::Call;
use super::{Client, JobsQuery, Result};
use crate::job::{JobChange, JobDetails, JobList, JobSubmitted};
use crate::job_request::{
    Because, ChangeJobs, JobUpdated, JobsSubmitted, Prioritize, Reschedule, SubmitJob, SubmitJobs,
};
use crate::letter::BulkChange;

impl Client {
    /// Submits a job. With `wait` the answer comes when it has ended, or after that time.
    pub async fn submit_job(&self, job: &SubmitJob, wait: Option<Duration>) -> Result<JobSubmitted> {
        let call = Call::post(&["v1", "jobs"], job)?.wait(wait);
        // A key of the job's own is the header's too: the server takes no two.
        self.call(call.key(job.idempotency_key.clone())).await
    }

    /// Submits up to 1,000 jobs, all or none.
    pub async fn submit_jobs(&self, jobs: &SubmitJobs) -> Result<JobsSubmitted> {
        self.call(Call::post(&["v1", "jobs", "bulk"], jobs)?).await
    }

    /// A page of jobs, newest first.
    pub async fn jobs(&self, query: &JobsQuery) -> Result<JobList> {
        self.call(Call::get(&["v1", "jobs"]).query(query)?).await
    }

    /// A job with its attempts. With `wait` the answer comes when it has ended, or after that time.
    pub async fn job(&self, id: &str, wait: Option<Duration>) -> Result<JobDetails> {
        self.call(Call::get(&["v1", "jobs", id]).wait(wait)).await
    }

    /// Cancels a job that has not ended.
    pub async fn cancel_job(&self, id: &str, because: &Because) -> Result<JobChange> {
        self.call(Call::post(&["v1", "jobs", id, "cancel"], because)?).await
    }

    /// Runs a failed job again.
    pub async fn retry_job(&self, id: &str, because: &Because) -> Result<JobChange> {
        self.call(Call::post(&["v1", "jobs", id, "retry"], because)?).await
    }

    /// Says when a queued job may run.
    pub async fn reschedule_job(&self, id: &str, when: &Reschedule) -> Result<JobUpdated> {
        self.call(Call::post(&["v1", "jobs", id, "reschedule"], when)?).await
    }

    /// Says how urgent a queued job is.
    pub async fn prioritize_job(&self, id: &str, how: &Prioritize) -> Result<JobUpdated> {
        self.call(Call::post(&["v1", "jobs", id, "priority"], how)?).await
    }

    /// Cancels some thousands of jobs by filter; `next` of the answer says that there may be more.
    pub async fn cancel_jobs(&self, which: &ChangeJobs) -> Result<BulkChange> {
        self.call(Call::post(&["v1", "jobs", "cancel"], which)?).await
    }

    /// Runs some thousands of failed jobs again, by filter.
    pub async fn retry_jobs(&self, which: &ChangeJobs) -> Result<BulkChange> {
        self.call(Call::post(&["v1", "jobs", "retry"], which)?).await
    }

    /// Deletes some thousands of ended jobs with their history, by filter.
    pub async fn delete_jobs(&self, which: &ChangeJobs) -> Result<BulkChange> {
        self.call(Call::post(&["v1", "jobs", "delete"], which)?).await
    }
}
