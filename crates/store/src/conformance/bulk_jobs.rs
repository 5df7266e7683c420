//! Cases: many jobs by filter.

use recache_model::ids::JobId;
use recache_model::job::{ErrorKind, JobError, JobState};
use recache_model::unique::{OnDuplicate, UniqueRule};

use super::{Subject, work, workflows};
use crate::records::{JobFilter, NewJob, Outcome};
use crate::{BatchDone, BulkJobChange, Error, LetterFilter, Word};

fn word() -> Word {
    Word::new("ops", "a mistake")
}

fn batch(rows_max: u32) -> JobFilter {
    JobFilter { rows_max, ..JobFilter::default() }
}

fn mail() -> NewJob {
    NewJob { queue: "mail".to_owned(), ..work() }
}

async fn change(subject: &Subject, filter: &JobFilter, change: BulkJobChange) -> BatchDone {
    subject.store.bulk_jobs().jobs_change(filter.clone(), change, word()).await.expect("changed")
}

async fn count(subject: &Subject, filter: &JobFilter, change: BulkJobChange) -> u64 {
    subject.store.bulk_jobs().jobs_count(filter.clone(), change).await.expect("counted")
}

async fn state(subject: &Subject, job: JobId) -> JobState {
    subject.store.job_get(job).await.expect("there").state
}

/// Batch by batch; a running one is told, a step's workflow follows.
pub async fn jobs_of_a_filter_are_cancelled_in_batches(subject: &Subject) {
    let session = subject.session().await;
    subject.store.jobs_submit(vec![work()]).await.expect("stored");
    let running = subject.claim_one(session).await;
    subject.store.jobs_submit((0..4).map(|_| work()).collect()).await.expect("stored");
    let other = mail();
    subject.store.jobs_submit(vec![other.clone()]).await.expect("stored");
    let (workflow, steps) = workflows::submit(subject, &[("a", &[]), ("b", &[0])]).await;
    let mut filter = JobFilter { queue: Some("default".to_owned()), ..batch(3) };
    assert_eq!(count(subject, &filter, BulkJobChange::Cancel).await, 3, "no further than asked");
    assert_eq!(
        count(subject, &JobFilter { rows_max: 100, ..filter.clone() }, BulkJobChange::Cancel).await,
        7
    );
    assert_eq!(state(subject, steps[0]).await, JobState::Queued, "counting changes nothing");
    let mut changed = Vec::new();
    loop {
        let done = change(subject, &filter, BulkJobChange::Cancel).await;
        let Some(last) = done.last else { break };
        filter.before = Some(last);
        changed.push(done.changed);
    }
    assert_eq!(changed, [3, 3, 1]);
    assert_eq!(state(subject, other.id).await, JobState::Queued);
    assert!(subject.store.job_revoked(running.token).await.expect("answered").is_some());
    let record = subject.store.job_get(running.token.job).await.expect("there");
    let error = record.error.expect("a reason");
    assert_eq!((error.kind, error.message.as_str()), (ErrorKind::Cancelled, "a mistake"));
    let record = subject.store.workflow_get(workflow).await.expect("there");
    assert_eq!(record.state, recache_model::workflow::WorkflowState::Cancelled);
}

/// Those whose unique key is taken are left.
pub async fn failed_jobs_of_a_filter_are_retried(subject: &Subject) {
    let unique = || NewJob {
        unique: Some(UniqueRule { on_duplicate: OnDuplicate::Reject, ..UniqueRule::by_key("k") }),
        ..work()
    };
    let jobs = vec![work(), unique(), work()];
    let ids: Vec<JobId> = jobs.iter().map(|job| job.id).collect();
    subject.store.jobs_submit(jobs).await.expect("stored");
    let session = subject.session().await;
    for job in subject.claim(session, 10).await {
        let error = JobError::new(ErrorKind::Permanent, "no");
        subject.settle(&job, Outcome::Failed { error }).await;
    }
    subject.store.jobs_submit(vec![unique()]).await.expect("stored");
    let done = change(subject, &batch(10), BulkJobChange::Retry).await;
    assert_eq!((done.changed, done.skipped), (2, 1));
    let states = [state(subject, ids[0]).await, state(subject, ids[1]).await, state(subject, ids[2]).await];
    assert_eq!(states, [JobState::Queued, JobState::Failed, JobState::Queued]);
    let open = subject.store.letters().letters_list(LetterFilter::default(), 10).await.expect("listed");
    assert_eq!(open.len(), 1, "a retry closes the dead letter");
}

/// But for steps, and for what somebody must look at.
pub async fn ended_jobs_of_a_filter_are_deleted(subject: &Subject) {
    let session = subject.session().await;
    let ended: Vec<NewJob> = (0..3).map(|_| work()).collect();
    subject.store.jobs_submit(ended.clone()).await.expect("stored");
    for job in subject.claim(session, 10).await {
        subject.settle(&job, Outcome::Completed { output: "1".to_owned() }).await;
    }
    let failed = work();
    subject.store.jobs_submit(vec![failed.clone()]).await.expect("stored");
    let claimed = subject.claim_one(session).await;
    let error = JobError::new(ErrorKind::Permanent, "no");
    subject.settle(&claimed, Outcome::Failed { error }).await;
    let (_, steps) = workflows::submit(subject, &[("a", &[])]).await;
    let claimed = subject.claim_one(session).await;
    subject.settle(&claimed, Outcome::Completed { output: "1".to_owned() }).await;
    let waiting = mail();
    subject.store.jobs_submit(vec![waiting.clone()]).await.expect("stored");
    assert_eq!(count(subject, &batch(10), BulkJobChange::Delete).await, 3);
    let first = change(subject, &batch(2), BulkJobChange::Delete).await;
    assert_eq!((first.changed, first.skipped), (2, 0));
    let rest = JobFilter { before: first.last, ..batch(2) };
    assert_eq!(change(subject, &rest, BulkJobChange::Delete).await.changed, 1);
    for job in ended {
        assert!(matches!(subject.store.job_get(job.id).await, Err(Error::NotFound { .. })));
    }
    for kept in [failed.id, steps[0], waiting.id] {
        subject.store.job_get(kept).await.expect("still there");
    }
}

/// And a change needs a word.
pub async fn change_that_makes_no_sense_is_refused(subject: &Subject) {
    let bulk = subject.store.bulk_jobs();
    for (state, change) in [
        (JobState::Completed, BulkJobChange::Cancel),
        (JobState::Queued, BulkJobChange::Retry),
        (JobState::Running, BulkJobChange::Delete),
    ] {
        let filter = JobFilter { state: Some(state), ..batch(1) };
        let answer = bulk.jobs_change(filter, change, word()).await;
        assert!(
            matches!(&answer, Err(Error::Invalid(message)) if message.contains(state.as_str())),
            "{answer:?}"
        );
    }
    let nobody = bulk.jobs_change(batch(1), BulkJobChange::Cancel, Word::new("", "")).await;
    assert!(matches!(nobody, Err(Error::Invalid(_))));
}
