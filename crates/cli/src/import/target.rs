//! Where what was read is kept: in a store, or at a server.

use async_trait::async_trait;
use recache_api::client::{Client, Error as ClientError};
use recache_api::{CreateBatch, JobContext, Json, ReportJob, TrackJob, TrackJobs, TrackReported};
use recache_model::ids::BatchId;
use recache_model::tracked::{Report, TrackedState};
use recache_store::{Error, NewBatch, Store};

use super::{ImportError, Job};

/// An answer, or why this cannot be kept: that is the record's fault, and the import goes on.
type Kept<T> = Result<Result<T, String>, ImportError>;

/// Keeps batches and jobs. All of it can be repeated.
#[async_trait]
pub(crate) trait Target: Sync {
    /// Makes a batch that is not there yet. Whether it is new.
    async fn batch(&self, new: NewBatch) -> Kept<bool>;

    /// How many of these it takes at once, counted from the first.
    fn fitting(&self, jobs: &[Job]) -> usize {
        jobs.len()
    }

    /// Keeps jobs, all or none, each with how it stands. Which of them are new.
    async fn jobs(&self, jobs: &[Job]) -> Kept<Vec<bool>>;

    /// Lets nothing more be added to a batch.
    async fn close(&self, batch: BatchId) -> Result<(), ImportError>;

    /// Notices the ends of batches.
    async fn settle(&self, batches: Vec<BatchId>) -> Result<(), ImportError>;
}

#[async_trait]
impl Target for &dyn Store {
    async fn batch(&self, new: NewBatch) -> Kept<bool> {
        if self.batches().batch_get(new.id).await.is_ok() {
            return Ok(Ok(false));
        }
        Ok(refused(self.batches().batch_create(new).await)?.map(|_| true))
    }

    async fn jobs(&self, jobs: &[Job]) -> Kept<Vec<bool>> {
        let tracked = self.tracked_jobs();
        let new = jobs.iter().map(|(_, job, _)| job.clone()).collect();
        let made = match refused(tracked.tracked_create(new).await)? {
            Ok(made) => made,
            Err(why) => return Ok(Err(why)),
        };
        let reports = jobs.iter().map(|(_, job, report)| (job.id, report.clone())).collect();
        let reported = refused(tracked.tracked_report(reports).await)?;
        Ok(reported.map(|_| made.iter().map(|made| made.changed).collect()))
    }

    async fn close(&self, batch: BatchId) -> Result<(), ImportError> {
        self.batches().batch_close(batch).await?;
        Ok(())
    }

    async fn settle(&self, batches: Vec<BatchId>) -> Result<(), ImportError> {
        self.batches().batches_settle(batches).await?;
        Ok(())
    }
}

/// What the store refuses for good is the record's fault; all else ends the import.
fn refused<T>(answer: Result<T, Error>) -> Kept<T> {
    match answer {
        Ok(value) => Ok(Ok(value)),
        Err(error @ (Error::Invalid(_) | Error::Conflict(_))) => Ok(Err(error.to_string())),
        Err(error) => Err(error.into()),
    }
}

/// A request holds no more than so many bytes of jobs, if one alone is not longer: a server takes 8 MiB unless it is told otherwise.
const REQUEST_BYTES_MAX: usize = 4 * 1024 * 1024;
/// What a job has beside what can be long.
const FIELDS_BYTES: usize = 1_024;

#[async_trait]
impl Target for Client {
    async fn batch(&self, new: NewBatch) -> Kept<bool> {
        match self.batch(&new.id.to_string(), None).await {
            Ok(_) => return Ok(Ok(false)),
            Err(ClientError::Refused(problem)) if problem.code == "not_found" => {}
            Err(error) => return Err(error.into()),
        }
        let asked = CreateBatch {
            action: new.action,
            id: Some(new.id.to_string()),
            namespace: new.namespace,
            parent_id: None,
            expected: new.expected,
            metadata: json(&new.metadata),
            on_success: None,
            on_finish: None,
            on_first_failure: None,
        };
        // A batch that this call finds was made by one before it, whose answer was lost.
        Ok(refused_there(self.create_batch(&asked).await)?.map(|_| true))
    }

    fn fitting(&self, jobs: &[Job]) -> usize {
        let mut bytes = 0;
        let fit = jobs.iter().take_while(|(_, job, report)| {
            bytes += job.metadata.len() + report.data.as_ref().map_or(0, String::len) + FIELDS_BYTES;
            bytes <= REQUEST_BYTES_MAX
        });
        fit.count()
    }

    async fn jobs(&self, jobs: &[Job]) -> Kept<Vec<bool>> {
        let asked = TrackJobs { jobs: jobs.iter().map(asked_for).collect() };
        let kept = refused_there(self.track_jobs(&asked).await)?;
        Ok(kept.map(|kept| kept.jobs.iter().map(|kept| kept.is_new).collect()))
    }

    async fn close(&self, batch: BatchId) -> Result<(), ImportError> {
        self.close_batch(&batch.to_string()).await?;
        Ok(())
    }

    /// The server does so by itself.
    async fn settle(&self, _: Vec<BatchId>) -> Result<(), ImportError> {
        Ok(())
    }
}

fn asked_for((_, job, report): &Job) -> TrackReported {
    let context = job.context.clone();
    TrackReported {
        job: TrackJob {
            action: job.action.clone(),
            id: Some(job.id.to_string()),
            namespace: job.namespace.clone(),
            context: context.map(|context| JobContext {
                kind: context.kind,
                id: context.id,
                field: context.field,
            }),
            batch_id: job.batch.map(|batch| batch.to_string()),
            owner: job.owner.clone(),
            metadata: json(&job.metadata),
            stale_after_ms: Some(u64::try_from(job.stale_after.as_millis()).unwrap_or(u64::MAX)),
        },
        report: Some(reported(report)),
    }
}

fn reported(report: &Report) -> ReportJob {
    use recache_api::TrackedState as Api;
    ReportJob {
        state: report.state.map(|state| match state {
            TrackedState::Queued => Api::Queued,
            TrackedState::Processing => Api::Processing,
            TrackedState::Completed => Api::Completed,
            TrackedState::Failed => Api::Failed,
            TrackedState::Cancelled => Api::Cancelled,
        }),
        message: report.message.clone(),
        code: report.code.clone(),
        data: report.data.as_deref().map(json),
        progress: report.progress,
        items_done: report.items_done,
        items_total: report.items_total,
    }
}

/// It was written from JSON here.
fn json(text: &str) -> Json {
    Json::from_text(text).unwrap_or_else(|_| Json::null())
}

/// What the server refuses for what it says is the record's fault; all else ends the import.
fn refused_there<T>(answer: Result<T, ClientError>) -> Kept<T> {
    match answer {
        Ok(value) => Ok(Ok(value)),
        Err(ClientError::Refused(problem))
            if matches!(problem.code.as_str(), "invalid" | "malformed" | "conflict" | "too_large") =>
        {
            Ok(Err(problem.detail.clone()))
        }
        Err(error) => Err(error.into()),
    }
}
