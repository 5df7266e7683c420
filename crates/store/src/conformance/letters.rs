//! Cases: dead letters, and an operator's word on failed jobs.

use std::time::Duration;

use recache_model::ids::JobId;
use recache_model::job::{ErrorKind, JobError, JobState};
use recache_model::letter::LetterStatus;
use recache_model::unique::{OnDuplicate, UniqueRule};
use recache_model::workflow::WorkflowState;

use super::{Subject, work, workflows};
use crate::records::{NewJob, Outcome};
use crate::{Error, Letter, LetterFilter, Word};

fn word(reason: &str) -> Word {
    Word::new("ops", reason)
}

fn permanent(message: &str) -> Outcome {
    Outcome::Failed { error: JobError::new(ErrorKind::Permanent, message) }
}

/// Fails jobs for good; answers their ids.
async fn dead(subject: &Subject, jobs: Vec<NewJob>) -> Vec<JobId> {
    let count = jobs.len();
    let ids = jobs.iter().map(|job| job.id).collect();
    subject.store.jobs_submit(jobs).await.expect("stored");
    let session = subject.session().await;
    let claimed = subject.claim(session, count).await;
    assert_eq!(claimed.len(), count);
    let settlements =
        claimed.iter().map(|job| crate::Settlement::of(job, permanent("no such mailbox"))).collect();
    subject.store.jobs_dispatch(settlements, None).await.expect("settled");
    ids
}

async fn list(subject: &Subject, filter: LetterFilter) -> Vec<Letter> {
    subject.store.letters().letters_list(filter, 100).await.expect("listed")
}

async fn status(subject: &Subject, job: JobId) -> LetterStatus {
    subject.store.letters().letter_get(job).await.expect("there").0.status
}

async fn state(subject: &Subject, job: JobId) -> JobState {
    subject.store.job_get(job).await.expect("there").state
}

/// With all its attempts and their errors.
pub async fn failed_job_leaves_a_letter_with_its_attempts(subject: &Subject) {
    let new =
        NewJob { namespace: "shop".to_owned(), priority: 4, input: "{\"to\":\"a\"}".to_owned(), ..work() };
    subject.store.jobs_submit(vec![new.clone(), work()]).await.expect("stored");
    let session = subject.session().await;
    let claimed = subject.claim(session, 1).await.remove(0);
    let refused =
        JobError { code: Some("x\"y".to_owned()), ..JobError::new(ErrorKind::Retryable, "refused\n\"") };
    subject.settle(&claimed, Outcome::Retry { error: refused.clone(), after: Duration::from_secs(1) }).await;
    subject.advance(Duration::from_secs(2));
    let claimed = subject.claim(session, 1).await.remove(0);
    subject.settle(&claimed, permanent("no such mailbox")).await;
    let letters = list(subject, LetterFilter::default()).await;
    assert_eq!(letters.len(), 1);
    let letter = &letters[0];
    assert_eq!((letter.job, letter.status, &letter.input), (new.id, LetterStatus::Pending, &new.input));
    assert_eq!((letter.namespace.as_str(), letter.priority, letter.attempt), ("shop", 4, 2));
    assert_eq!(letter.error.message, "no such mailbox");
    let attempts: Vec<_> = letter.attempts.iter().map(|kept| (kept.attempt, kept.error.clone())).collect();
    assert_eq!(attempts, [(1, refused), (2, JobError::new(ErrorKind::Permanent, "no such mailbox"))]);
    assert_eq!(letter.failed_at, subject.store.now().await.expect("answered"));
    // A job whose worker died with its last attempt leaves one too; a build does not.
    let once = NewJob { retry: recache_model::retry::RetryPolicy::once(), ..work() };
    subject.store.jobs_submit(vec![once.clone()]).await.expect("stored");
    subject.claim(session, 10).await;
    subject.advance(Duration::from_secs(11));
    subject.store.sessions_sweep(10).await.expect("swept");
    let (letter, _) = subject.store.letters().letter_get(once.id).await.expect("there");
    assert_eq!((letter.error.kind, letter.attempts.len()), (ErrorKind::LeaseLost, 1));
}

/// One by one or by filter, a bounded number at a time.
pub async fn redriven_letters_put_their_jobs_back_to_the_queue(subject: &Subject) {
    let jobs: Vec<NewJob> =
        (0..5).map(|_| work()).chain([NewJob { handler: "build".to_owned(), ..work() }]).collect();
    let jobs = dead(subject, jobs).await;
    let letters = subject.store.letters();
    let one = LetterFilter { job: Some(jobs[0]), ..LetterFilter::default() };
    assert_eq!(letters.letters_redrive(one.clone(), 10, word("mended")).await.expect("redriven").changed, 1);
    assert_eq!(
        (state(subject, jobs[0]).await, status(subject, jobs[0]).await),
        (JobState::Queued, LetterStatus::Redriven)
    );
    assert_eq!(letters.letters_redrive(one, 10, word("again")).await.expect("answered").changed, 0);
    let filter = LetterFilter { handler: Some("work".to_owned()), ..LetterFilter::default() };
    assert_eq!(letters.letters_count(filter.clone(), 3).await.expect("counted"), 3, "no further");
    assert_eq!(letters.letters_count(filter.clone(), 100).await.expect("counted"), 4);
    let mut batch = filter.clone();
    let mut changed = Vec::new();
    loop {
        let done = letters.letters_redrive(batch.clone(), 3, word("mended")).await.expect("redriven");
        let Some(last) = done.last else { break };
        batch.before = Some(last);
        changed.push(done.changed);
    }
    assert_eq!(changed, [3, 1]);
    assert_eq!(state(subject, jobs[5]).await, JobState::Failed, "another handler's");
    let history = subject.store.job_history(jobs[1]).await.expect("read");
    assert_eq!(history.last().expect("rows").detail.as_deref(), Some("ops: mended"));
    let (_, notes) = letters.letter_get(jobs[1]).await.expect("there");
    assert_eq!(
        (notes.len(), notes[0].status, notes[0].word.clone()),
        (1, LetterStatus::Redriven, word("mended"))
    );
    // It may fail again: that is another letter.
    let session = subject.session().await;
    for job in subject.claim(session, 10).await {
        assert_eq!(job.attempts_max, 4, "a new set of attempts");
        subject.settle(&job, permanent("still not")).await;
    }
    assert_eq!(list(subject, filter).await.len(), 5);
    assert_eq!(status(subject, jobs[0]).await, LetterStatus::Pending);
}

/// And the others go.
pub async fn letter_whose_unique_key_is_taken_is_skipped(subject: &Subject) {
    let unique = || NewJob {
        unique: Some(UniqueRule { on_duplicate: OnDuplicate::Reject, ..UniqueRule::by_key("k") }),
        ..work()
    };
    let jobs = dead(subject, vec![work(), unique(), work()]).await;
    subject.store.jobs_submit(vec![unique()]).await.expect("stored");
    let filter = LetterFilter::default();
    let done = subject.store.letters().letters_redrive(filter, 10, word("mended")).await.expect("redriven");
    assert_eq!((done.changed, done.skipped), (2, 1));
    assert_eq!(
        (state(subject, jobs[1]).await, status(subject, jobs[1]).await),
        (JobState::Failed, LetterStatus::Pending)
    );
}

/// By whom and why is kept; what is closed stays so.
pub async fn letter_is_investigated_noted_and_discarded(subject: &Subject) {
    let job = dead(subject, vec![work()]).await[0];
    let letters = subject.store.letters();
    letters.letter_mark(job, LetterStatus::Investigating, word("I look")).await.expect("marked");
    letters.letter_note(job, word("the address is wrong")).await.expect("noted");
    assert_eq!(list(subject, LetterFilter::default()).await.len(), 1, "still open");
    subject.advance(Duration::from_secs(60));
    let stale =
        |seconds| LetterFilter { stale_for: Some(Duration::from_secs(seconds)), ..LetterFilter::default() };
    assert_eq!((list(subject, stale(60)).await.len(), list(subject, stale(61)).await.len()), (1, 0));
    letters.letter_mark(job, LetterStatus::Discarded, word("nobody needs it")).await.expect("marked");
    assert!(list(subject, LetterFilter::default()).await.is_empty());
    let discarded = LetterFilter { status: Some(LetterStatus::Discarded), ..LetterFilter::default() };
    assert_eq!(list(subject, discarded.clone()).await.len(), 1);
    let (_, notes) = letters.letter_get(job).await.expect("there");
    let said: Vec<_> = notes.iter().map(|note| (note.status, note.word.reason.as_str())).collect();
    assert_eq!(
        said,
        [
            (LetterStatus::Investigating, "I look"),
            (LetterStatus::Investigating, "the address is wrong"),
            (LetterStatus::Discarded, "nobody needs it")
        ]
    );
    assert_eq!(state(subject, job).await, JobState::Failed);
    let again = letters.letter_mark(job, LetterStatus::Investigating, word("no")).await;
    assert!(matches!(again, Err(Error::Conflict(_))), "{again:?}");
    let other = letters.letter_mark(job, LetterStatus::Redriven, word("no")).await;
    assert!(matches!(other, Err(Error::Invalid(_))), "{other:?}");
    assert!(matches!(letters.letters_redrive(discarded, 1, word("no")).await, Err(Error::Invalid(_))));
    assert!(matches!(letters.letter_note(job, word("")).await, Err(Error::Invalid(_))));
    let unknown = letters.letter_get(JobId::make()).await;
    assert!(matches!(unknown, Err(Error::NotFound { .. })));
}

/// An operator's retry of the job itself is a redrive too.
pub async fn retry_of_the_job_closes_its_letter(subject: &Subject) {
    let job = dead(subject, vec![work()]).await[0];
    subject.store.job_retry(job).await.expect("queued");
    assert_eq!(status(subject, job).await, LetterStatus::Redriven);
}

/// With the operator's word; a job in another state is a conflict.
pub async fn resolved_job_is_settled_by_an_operator(subject: &Subject) {
    let job = dead(subject, vec![work()]).await[0];
    let letters = subject.store.letters();
    assert!(matches!(letters.job_resolve(job, word("")).await, Err(Error::Invalid(_))));
    letters.job_resolve(job, word("done by hand")).await.expect("resolved");
    assert_eq!(
        (state(subject, job).await, status(subject, job).await),
        (JobState::Resolved, LetterStatus::Resolved)
    );
    let history = subject.store.job_history(job).await.expect("read");
    assert_eq!(history.last().expect("rows").detail.as_deref(), Some("ops: done by hand"));
    let again = letters.job_resolve(job, word("again")).await;
    assert!(matches!(&again, Err(Error::Conflict(message)) if message.contains("resolved")), "{again:?}");
    assert!(matches!(letters.job_resolve(JobId::make(), word("x")).await, Err(Error::NotFound { .. })));
}

/// What waited for the failed step goes on.
pub async fn resolved_step_counts_as_done(subject: &Subject) {
    let (workflow, steps) = workflows::submit(subject, &[("a", &[]), ("b", &[0])]).await;
    let session = subject.session().await;
    let claimed = subject.claim_one(session).await;
    subject.settle(&claimed, permanent("no")).await;
    let (letter, _) = subject.store.letters().letter_get(steps[0]).await.expect("there");
    assert_eq!((letter.workflow, letter.step.as_deref()), (Some(workflow), Some("a")));
    subject.store.letters().job_resolve(steps[0], word("done by hand")).await.expect("resolved");
    let claimed = subject.claim_one(session).await;
    assert_eq!(claimed.token.job, steps[1]);
    subject.settle(&claimed, Outcome::Completed { output: "1".to_owned() }).await;
    let record = subject.store.workflow_get(workflow).await.expect("there");
    assert_eq!(record.state, WorkflowState::Completed);
}
