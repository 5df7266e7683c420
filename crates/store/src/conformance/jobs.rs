//! Cases: submit, claim, settle, cancel, retry.

use std::collections::HashSet;
use std::time::Duration;

use recache_model::ids::JobId;
use recache_model::job::{ErrorKind, JobError, JobState};
use uuid::Uuid;

use super::{Subject, work};
use crate::records::{ClaimRequest, Due, JobFilter, NewJob, Outcome, Revoked, Settled, Settlement};
use crate::{Error, Signal};

fn completed() -> Outcome {
    Outcome::Completed { output: "{\"ok\":true}".to_owned() }
}

fn error() -> JobError {
    JobError::new(ErrorKind::Retryable, "connection reset")
}

async fn state(subject: &Subject, job: JobId) -> JobState {
    subject.store.job_get(job).await.expect("the job is there").state
}

/// A job is found again with everything that was said of it.
pub async fn submitted_job_is_there_as_submitted(subject: &Subject) {
    let new = NewJob {
        namespace: "shop".to_owned(),
        queue: "mail".to_owned(),
        priority: 7,
        timeout: Some(Duration::from_secs(30)),
        trace_context: Some("00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01".to_owned()),
        ..NewJob::new("send", "{\"to\":\"a@b\"}")
    };
    let submitted = subject.store.jobs_submit(vec![new.clone()]).await.expect("stored");
    assert_eq!((submitted[0].id, submitted[0].existed), (new.id, false));
    let job = subject.store.job_get(new.id).await.expect("there");
    assert_eq!(job.state, JobState::Queued);
    assert_eq!((job.namespace, job.queue, job.handler), (new.namespace, new.queue, new.handler));
    assert_eq!((job.input, job.priority, job.timeout), (new.input, new.priority, new.timeout));
    assert_eq!((job.correlation_id, job.trace_context), (new.correlation_id, new.trace_context));
    assert_eq!((job.attempt, job.attempts_max, job.transitions), (0, 3, 0));
}

/// The caller's id makes a repeated submit harmless.
pub async fn same_id_submitted_twice_is_one_job(subject: &Subject) {
    let new = work();
    subject.store.jobs_submit(vec![new.clone()]).await.expect("stored");
    let again = subject.store.jobs_submit(vec![new.clone(), work()]).await.expect("stored");
    assert_eq!(again.iter().map(|s| s.existed).collect::<Vec<_>>(), [true, false]);
    let all = subject
        .store
        .jobs_list(JobFilter { rows_max: 10, ..JobFilter::default() })
        .await
        .expect("listed")
        .jobs;
    assert_eq!(all.len(), 2);
}

/// One impossible job keeps the others out, and every reason is named at once.
pub async fn submit_stores_all_or_none(subject: &Subject) {
    let mut never = work();
    never.retry.attempts_max = 0;
    never.retry.jitter = f64::NAN;
    let nameless = NewJob { queue: String::new(), handler: "nul\0".to_owned(), ..work() };
    let answer = subject.store.jobs_submit(vec![work(), never, nameless]).await;
    let Err(Error::Invalid(message)) = answer else { panic!("refused: {answer:?}") };
    for reason in ["attempts_max", "jitter", "queue", "handler"] {
        assert!(message.contains(reason), "{message}");
    }
    let refused = super::workflows::two_steps_of_one_name();
    assert!(subject.store.workflow_submit(refused).await.is_err());
    let all = subject
        .store
        .jobs_list(JobFilter { rows_max: 10, ..JobFilter::default() })
        .await
        .expect("listed")
        .jobs;
    assert_eq!(all.len(), 0, "nothing of what was refused is stored");
}

/// Larger priority first, then earlier due time, then smaller id.
pub async fn claim_goes_by_priority_then_due_time_then_id(subject: &Subject) {
    let mut jobs = Vec::new();
    for (priority, wait_ms) in [(0, 5), (0, 1), (5, 9), (5, 9), (-3, 0)] {
        jobs.push(NewJob { priority, due: Due::In(Duration::from_millis(wait_ms)), ..work() });
    }
    subject.store.jobs_submit(jobs.clone()).await.expect("stored");
    subject.advance(Duration::from_secs(1));
    let session = subject.session().await;
    let mut claimed = subject.claim(session, 3).await;
    claimed.extend(subject.claim(session, 3).await);
    let order: Vec<JobId> = claimed.iter().map(|job| job.token.job).collect();
    assert_eq!(order, [2, 3, 1, 0, 4].map(|place: usize| jobs[place].id));
}

/// Jobs of other queues and handlers stay where they are.
pub async fn claim_takes_only_named_queues_and_handlers(subject: &Subject) {
    let foreign_queue = NewJob { queue: "other".to_owned(), ..work() };
    let foreign_handler = NewJob::new("unheard-of", "{}");
    let mine = work();
    subject
        .store
        .jobs_submit(vec![foreign_queue.clone(), foreign_handler.clone(), mine.clone()])
        .await
        .expect("stored");
    let session = subject.session().await;
    let claimed = subject.claim(session, 10).await;
    assert_eq!(claimed.len(), 1);
    assert_eq!(claimed[0].token.job, mine.id);
    assert_eq!(state(subject, foreign_queue.id).await, JobState::Queued);
    assert_eq!(state(subject, foreign_handler.id).await, JobState::Queued);
}

/// Over several queues the order is the same as in one.
pub async fn claim_merges_queues_by_priority(subject: &Subject) {
    let mut jobs = Vec::new();
    for (queue, priority) in [("a", 1), ("b", 3), ("a", 2), ("b", 0)] {
        jobs.push(NewJob { queue: queue.to_owned(), priority, ..work() });
    }
    subject.store.jobs_submit(jobs.clone()).await.expect("stored");
    let request = ClaimRequest {
        session: subject.session().await,
        queues: vec!["a".to_owned(), "b".to_owned()],
        handlers: vec!["work".to_owned()],
        rows_max: 3,
    };
    let claimed = subject.store.jobs_dispatch(Vec::new(), Some(request)).await.expect("answered").claimed;
    let order: Vec<JobId> = claimed.iter().map(|job| job.token.job).collect();
    assert_eq!(order, [1, 2, 0].map(|place: usize| jobs[place].id));
}

/// Not a microsecond early.
pub async fn delayed_job_is_not_claimed_before_it_is_due(subject: &Subject) {
    let delay = Duration::from_secs(60);
    subject.store.jobs_submit(vec![NewJob { due: Due::In(delay), ..work() }]).await.expect("stored");
    let session = subject.session().await;
    let moment = Duration::from_micros(1);
    subject.advance(delay.saturating_sub(moment));
    assert!(subject.claim(session, 1).await.is_empty());
    subject.advance(moment);
    assert_eq!(subject.claim(session, 1).await.len(), 1);
}

/// A claimed job is gone from the queue.
pub async fn no_job_is_given_to_two_claims(subject: &Subject) {
    subject.store.jobs_submit(vec![work()]).await.expect("stored");
    let (one, other) = (subject.session().await, subject.session().await);
    let job = subject.claim_one(one).await;
    assert!(subject.claim(other, 10).await.is_empty());
    assert_eq!((job.attempt, job.token.epoch), (1, 1));
}

/// The whole life of a job that goes well.
pub async fn completed_job_keeps_its_output_and_history(subject: &Subject) {
    subject.store.jobs_submit(vec![work()]).await.expect("stored");
    let session = subject.session().await;
    let job = subject.claim_one(session).await;
    subject.advance(Duration::from_millis(5));
    assert_eq!(subject.settle(&job, completed()).await, Settled::Accepted);
    let record = subject.store.job_get(job.token.job).await.expect("there");
    assert_eq!((record.state, record.output.as_deref()), (JobState::Completed, Some("{\"ok\":true}")));
    assert_eq!(
        record.finished_at.map(|end| end.since(record.started_at.unwrap_or_default())),
        Some(Duration::from_millis(5))
    );
    let history = subject.store.job_history(job.token.job).await.expect("read");
    let steps: Vec<_> = history.iter().map(|row| (row.seq, row.from, row.to, row.session)).collect();
    assert_eq!(
        steps,
        [
            (1, JobState::Queued, JobState::Running, Some(session)),
            (2, JobState::Running, JobState::Completed, Some(session)),
        ]
    );
}

/// A failure for good is final, with its error.
pub async fn failed_job_keeps_its_error(subject: &Subject) {
    subject.store.jobs_submit(vec![work()]).await.expect("stored");
    let session = subject.session().await;
    let job = subject.claim_one(session).await;
    subject.settle(&job, Outcome::Failed { error: error() }).await;
    let record = subject.store.job_get(job.token.job).await.expect("there");
    assert_eq!((record.state, record.error), (JobState::Failed, Some(error())));
    assert!(subject.claim(session, 1).await.is_empty());
}

/// Retry is a due time, not a wait in the worker.
pub async fn retried_job_comes_back_when_it_is_due(subject: &Subject) {
    subject.store.jobs_submit(vec![work()]).await.expect("stored");
    let session = subject.session().await;
    let job = subject.claim_one(session).await;
    let after = Duration::from_secs(30);
    subject.settle(&job, Outcome::Retry { error: error(), after }).await;
    assert!(subject.claim(session, 1).await.is_empty());
    subject.advance(after);
    let again = subject.claim_one(session).await;
    assert_eq!((again.token.job, again.attempt, again.token.epoch), (job.token.job, 2, 2));
    assert_ne!(again.token.claim, job.token.claim);
    assert_eq!(subject.store.job_get(job.token.job).await.expect("there").error, Some(error()));
}

/// Handing back what was not started costs no attempt.
pub async fn released_job_comes_back_at_once_and_does_not_count(subject: &Subject) {
    subject.store.jobs_submit(vec![work()]).await.expect("stored");
    let session = subject.session().await;
    let job = subject.claim_one(session).await;
    assert_eq!(subject.settle(&job, Outcome::Released).await, Settled::Accepted);
    assert_eq!(subject.claim_one(session).await.attempt, 1);
}

/// A settlement whose answer was lost can be sent again.
pub async fn repeated_settlement_gets_the_same_answer_and_no_new_row(subject: &Subject) {
    subject.store.jobs_submit(vec![work(), work()]).await.expect("stored");
    let session = subject.session().await;
    let jobs = subject.claim(session, 2).await;
    subject.settle(&jobs[0], completed()).await;
    subject.settle(&jobs[1], Outcome::Retry { error: error(), after: Duration::from_secs(1) }).await;
    for job in &jobs {
        let before = subject.store.job_get(job.token.job).await.expect("there");
        assert_eq!(subject.settle(job, completed()).await, Settled::Accepted);
        assert_eq!(subject.store.job_get(job.token.job).await.expect("there"), before);
    }
}

/// Neither another epoch nor another claim number will do.
pub async fn settlement_with_a_foreign_token_is_refused(subject: &Subject) {
    subject.store.jobs_submit(vec![work()]).await.expect("stored");
    let session = subject.session().await;
    let job = subject.claim_one(session).await;
    let mut other_epoch = job.clone();
    other_epoch.token.epoch += 1;
    let mut other_claim = job.clone();
    other_claim.token.claim = Uuid::new_v4();
    let mut other_job = job.clone();
    other_job.token.job = JobId::make();
    assert_eq!(subject.settle(&other_epoch, completed()).await, Settled::Refused(Revoked::TakenOver));
    assert_eq!(subject.settle(&other_claim, completed()).await, Settled::Refused(Revoked::TakenOver));
    assert_eq!(subject.settle(&other_job, completed()).await, Settled::Refused(Revoked::Gone));
    assert_eq!(state(subject, job.token.job).await, JobState::Running);
}

/// After an acknowledged cancel nothing is accepted.
pub async fn settlement_of_a_cancelled_job_is_refused(subject: &Subject) {
    subject.store.jobs_submit(vec![work()]).await.expect("stored");
    let session = subject.session().await;
    let job = subject.claim_one(session).await;
    let answer = subject.store.job_cancel(job.token.job, "not needed").await.expect("cancelled");
    assert_eq!(answer, (JobState::Cancelled, true));
    assert_eq!(subject.settle(&job, completed()).await, Settled::Refused(Revoked::Cancelled));
    assert_eq!(subject.store.job_revoked(job.token).await.expect("answered"), Some(Revoked::Cancelled));
}

/// What ends and what comes next travel together.
pub async fn settlements_and_claim_share_one_call(subject: &Subject) {
    subject.store.jobs_submit((0..4).map(|_| work()).collect()).await.expect("stored");
    let session = subject.session().await;
    let first = subject.claim(session, 2).await;
    let mut settlements: Vec<Settlement> = first.iter().map(|job| Settlement::of(job, completed())).collect();
    settlements[1].token.epoch = 99;
    let request = ClaimRequest {
        session,
        queues: vec!["default".to_owned()],
        handlers: vec!["work".to_owned()],
        rows_max: 10,
    };
    let answer = subject.store.jobs_dispatch(settlements, Some(request)).await.expect("answered");
    assert_eq!(answer.settled, [Settled::Accepted, Settled::Refused(Revoked::TakenOver)]);
    assert_eq!(answer.claimed.len(), 2);
}

/// A second cancel finds it done.
pub async fn cancelled_job_stays_cancelled(subject: &Subject) {
    let job = work();
    subject.store.jobs_submit(vec![job.clone()]).await.expect("stored");
    subject.store.job_cancel(job.id, "first").await.expect("cancelled");
    assert_eq!(
        subject.store.job_cancel(job.id, "second").await.expect("answered"),
        (JobState::Cancelled, false)
    );
    let error = subject.store.job_get(job.id).await.expect("there").error.expect("kept");
    assert_eq!((error.kind, error.message.as_str()), (ErrorKind::Cancelled, "first"));
    let session = subject.session().await;
    assert!(subject.claim(session, 1).await.is_empty());
}

/// Never a silent no-op.
pub async fn cancel_of_an_unknown_job_is_an_error(subject: &Subject) {
    let answer = subject.store.job_cancel(JobId::make(), "x").await;
    assert!(matches!(answer, Err(Error::NotFound { what: "job", .. })), "{answer:?}");
}

/// With a new set of attempts.
pub async fn operator_retry_runs_a_failed_job_again(subject: &Subject) {
    let mut new = work();
    new.retry.attempts_max = 1;
    subject.store.jobs_submit(vec![new.clone()]).await.expect("stored");
    let session = subject.session().await;
    let job = subject.claim_one(session).await;
    subject.settle(&job, Outcome::Failed { error: error() }).await;
    subject.store.job_retry(new.id).await.expect("retried");
    let again = subject.claim_one(session).await;
    assert_eq!((again.attempt, again.attempts_max), (2, 2));
    subject.settle(&again, completed()).await;
    assert_eq!(state(subject, new.id).await, JobState::Completed);
}

/// Only what failed is retried.
pub async fn operator_retry_of_another_state_is_a_conflict(subject: &Subject) {
    let job = work();
    subject.store.jobs_submit(vec![job.clone()]).await.expect("stored");
    let answer = subject.store.job_retry(job.id).await;
    assert!(matches!(answer, Err(Error::Conflict(_))), "{answer:?}");
}

/// Progress is a write like any other: fenced and checked.
pub async fn progress_needs_a_good_token_and_a_fraction(subject: &Subject) {
    subject.store.jobs_submit(vec![work()]).await.expect("stored");
    let session = subject.session().await;
    let job = subject.claim_one(session).await;
    let store = &subject.store;
    assert_eq!(store.job_progress(job.token, 0.5, Some("half".to_owned())).await.expect("kept"), None);
    assert_eq!(store.job_progress(job.token, 0.75, None).await.expect("kept"), None);
    let record = store.job_get(job.token.job).await.expect("there");
    assert_eq!((record.progress, record.message.as_deref()), (Some(0.75), Some("half")));
    for nonsense in [-0.1, 1.1, f64::NAN] {
        assert!(matches!(store.job_progress(job.token, nonsense, None).await, Err(Error::Invalid(_))));
    }
    let mut stale = job.token;
    stale.epoch -= 1;
    assert_eq!(store.job_progress(stale, 0.9, None).await.expect("answered"), Some(Revoked::TakenOver));
    assert_eq!(store.job_get(job.token.job).await.expect("there").progress, Some(0.75));
}

/// Eight claimers at once, over two connections to the database: every job exactly once.
pub async fn concurrent_claims_never_overlap(subject: &Subject) {
    let jobs: Vec<NewJob> = (0..400).map(|_| work()).collect();
    subject.store.jobs_submit(jobs).await.expect("stored");
    let second = subject.second().await;
    let mut claimers = Vec::new();
    for n in 0..8 {
        let store = if n % 2 == 0 { subject.store.clone() } else { second.clone() };
        let session = subject.session().await;
        claimers.push(tokio::spawn(async move {
            let mut mine = Vec::new();
            loop {
                let request = ClaimRequest {
                    session,
                    queues: vec!["default".to_owned()],
                    handlers: vec!["work".to_owned()],
                    rows_max: 7,
                };
                let claimed = store.jobs_dispatch(Vec::new(), Some(request)).await.expect("answered").claimed;
                if claimed.is_empty() {
                    return mine;
                }
                mine.extend(claimed.into_iter().map(|job| job.token.job));
            }
        }));
    }
    let mut seen = HashSet::new();
    for claimer in claimers {
        for job in claimer.await.expect("no claimer fails") {
            assert!(seen.insert(job), "{job} was given twice");
        }
    }
    assert_eq!(seen.len(), 400);
    second.close().await;
}

/// After its commit a submit is announced in the process.
pub async fn hints_follow_a_submit(subject: &Subject) {
    let mut hints = subject.store.subscribe();
    subject.store.jobs_submit(vec![work()]).await.expect("stored");
    assert_eq!(hints.recv().await.expect("heard"), Signal::Queued("default".to_owned()));
}

/// Quotes, control characters, emoji, NUL-free but nasty: nothing is interpreted.
pub async fn text_of_any_kind_comes_back_unchanged(subject: &Subject) {
    let nasty = "\"'; DROP TABLE jobs; -- \\ \u{1F680} \u{7f} \r\n\t $1 ${x} %s 漢字";
    let input = serde_json::json!({ "text": nasty }).to_string();
    let new = NewJob { namespace: nasty.to_owned(), queue: nasty.to_owned(), input, ..work() };
    subject.store.jobs_submit(vec![new.clone()]).await.expect("stored");
    let request = ClaimRequest {
        session: subject.session().await,
        queues: vec![nasty.to_owned()],
        handlers: vec!["work".to_owned()],
        rows_max: 1,
    };
    let claimed = subject.store.jobs_dispatch(Vec::new(), Some(request)).await.expect("answered").claimed;
    assert_eq!(claimed.len(), 1);
    assert_eq!((&claimed[0].input, &claimed[0].namespace), (&new.input, &new.namespace));
    subject.settle(&claimed[0], Outcome::Completed { output: new.input.clone() }).await;
    assert_eq!(subject.store.job_get(new.id).await.expect("there").output, Some(new.input));
}
