//! Tracked jobs.

use super::call::Call;
use super::{Client, Result, TrackedJobsQuery};
use crate::tracked::{TrackedJobAnswer, TrackedJobList, TrackedJobsKept};
use crate::tracked_request::{ReportJob, TrackJob, TrackJobs};

impl Client {
    /// Keeps a job that some other system runs.
    pub async fn track_job(&self, job: &TrackJob) -> Result<TrackedJobAnswer> {
        self.call(Call::post(&["v1", "tracked-jobs"], job)?).await
    }

    /// Keeps up to 1,000 such jobs, all or none, with what is reported of them.
    pub async fn track_jobs(&self, jobs: &TrackJobs) -> Result<TrackedJobsKept> {
        self.call(Call::post(&["v1", "tracked-jobs", "bulk"], jobs)?).await
    }

    /// A page of tracked jobs, newest first.
    pub async fn tracked_jobs(&self, query: &TrackedJobsQuery) -> Result<TrackedJobList> {
        self.call(Call::get(&["v1", "tracked-jobs"]).query(query)?).await
    }

    /// A tracked job.
    pub async fn tracked_job(&self, id: &str) -> Result<TrackedJobAnswer> {
        self.call(Call::get(&["v1", "tracked-jobs", id])).await
    }

    /// Says how a tracked job goes.
    pub async fn report_tracked_job(&self, id: &str, report: &ReportJob) -> Result<TrackedJobAnswer> {
        self.call(Call::post(&["v1", "tracked-jobs", id, "report"], report)?).await
    }

    /// Says that its owner lives.
    pub async fn heartbeat_tracked_job(&self, id: &str) -> Result<TrackedJobAnswer> {
        self.call(Call::post_empty(&["v1", "tracked-jobs", id, "heartbeat"])).await
    }

    /// Takes note of its end.
    pub async fn acknowledge_tracked_job(&self, id: &str) -> Result<TrackedJobAnswer> {
        self.call(Call::post_empty(&["v1", "tracked-jobs", id, "acknowledge"])).await
    }
}
