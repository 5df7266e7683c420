//! Cases: what a handler keeps and says during its attempts, and snoozing.

use std::time::Duration;

use recache_model::ids::JobId;
use recache_model::job::{ErrorKind, JobError, JobState};

use super::{Subject, work};
use crate::attempts::{CHECKPOINT_BYTES_MAX, LOG_LINE_BYTES_MAX, LOG_LINES_MAX};
use crate::records::{ClaimedJob, NewJob, Outcome, Revoked, Settled};
use crate::{Error, Word};

async fn claimed(subject: &Subject) -> ClaimedJob {
    subject.store.jobs_submit(vec![work()]).await.expect("stored");
    let session = subject.session().await;
    subject.claim_one(session).await
}

fn retry() -> Outcome {
    let error = JobError::new(ErrorKind::Retryable, "no");
    Outcome::Retry { error, after: Duration::ZERO }
}

async fn again(subject: &Subject) -> ClaimedJob {
    let session = subject.session().await;
    subject.claim_one(session).await
}

/// Whatever ended the attempt: an error, a worker that died, a snooze.
pub async fn checkpoint_reaches_the_next_attempt(subject: &Subject) {
    let attempts = subject.store.attempts();
    let first = claimed(subject).await;
    assert_eq!(first.checkpoint, None);
    for data in ["{\"page\":1}", "{\"page\":2}"] {
        assert_eq!(attempts.checkpoint_save(first.token, data).await.expect("kept"), None);
    }
    subject.settle(&first, retry()).await;
    let second = again(subject).await;
    assert_eq!((second.attempt, second.checkpoint.as_deref()), (2, Some("{\"page\":2}")));
    let late = attempts.checkpoint_save(first.token, "1").await.expect("answered");
    assert_eq!(late, Some(Revoked::TakenOver), "of a former attempt");
    subject.advance(Duration::from_secs(11));
    subject.store.sessions_sweep(10).await.expect("swept");
    let third = again(subject).await;
    assert_eq!(third.checkpoint.as_deref(), Some("{\"page\":2}"), "nothing is lost with the worker");
    subject.settle(&third, Outcome::Failed { error: JobError::new(ErrorKind::Permanent, "no") }).await;
    let word = Word::new("ops", "mended");
    let filter = crate::LetterFilter::default();
    subject.store.letters().letters_redrive(filter, 1, word).await.expect("redriven");
    assert_eq!(
        again(subject).await.checkpoint.as_deref(),
        Some("{\"page\":2}"),
        "nor by an operator's retry"
    );
}

/// Also where a concurrency key has a say in the claim.
pub async fn checkpoint_reaches_a_job_with_a_concurrency_key(subject: &Subject) {
    subject
        .store
        .jobs_submit(vec![NewJob { concurrency_key: Some("k".to_owned()), ..work() }])
        .await
        .expect("stored");
    let first = again(subject).await;
    subject.store.attempts().checkpoint_save(first.token, "[1]").await.expect("kept");
    subject.settle(&first, retry()).await;
    assert_eq!(again(subject).await.checkpoint.as_deref(), Some("[1]"));
}

/// And what was kept before stays.
pub async fn checkpoint_that_is_too_large_is_refused(subject: &Subject) {
    let first = claimed(subject).await;
    let attempts = subject.store.attempts();
    let largest = format!("\"{}\"", "x".repeat(CHECKPOINT_BYTES_MAX - 2));
    assert_eq!(attempts.checkpoint_save(first.token, &largest).await.expect("kept"), None);
    let answer = attempts.checkpoint_save(first.token, &format!("{largest} ")).await;
    assert!(matches!(&answer, Err(Error::Invalid(message)) if message.contains("65536")), "{answer:?}");
    subject.settle(&first, retry()).await;
    assert_eq!(again(subject).await.checkpoint, Some(largest));
}

/// In order, over all attempts; the oldest make room, and long ones are cut.
pub async fn log_keeps_the_newest_lines(subject: &Subject) {
    let attempts = subject.store.attempts();
    let first = claimed(subject).await;
    let line = |n: i64| format!("line {n}");
    assert_eq!(attempts.log_append(first.token, vec![line(1), line(2)]).await.expect("kept"), None);
    subject.settle(&first, retry()).await;
    subject.advance(Duration::from_secs(1));
    let second = again(subject).await;
    let odd = format!("{}\u{20ac}\0", "x".repeat(LOG_LINE_BYTES_MAX - 1));
    attempts.log_append(second.token, vec!["a\0b".to_owned(), odd]).await.expect("kept");
    assert_eq!(
        attempts.log_append(first.token, vec![line(9)]).await.expect("answered"),
        Some(Revoked::TakenOver)
    );
    let kept = attempts.log_read(first.token.job, 100).await.expect("read");
    let texts: Vec<_> = kept.iter().map(|line| (line.seq, line.attempt, line.text.as_str())).collect();
    let cut = "x".repeat(LOG_LINE_BYTES_MAX - 1);
    assert_eq!(
        texts,
        [(1, 1, "line 1"), (2, 1, "line 2"), (3, 2, "a\u{fffd}b"), (4, 2, cut.as_str())],
        "no character is cut in two"
    );
    assert!(kept[2].at > kept[1].at);
    let many = (0..LOG_LINES_MAX).map(line).collect();
    attempts.log_append(second.token, many).await.expect("kept");
    let kept = attempts.log_read(first.token.job, 10_000).await.expect("read");
    assert_eq!((kept.len(), kept[0].seq, kept[999].seq), (1_000, 5, 1_004));
    assert_eq!(attempts.log_read(first.token.job, 2).await.expect("read")[0].seq, 1_003);
    assert!(attempts.log_read(JobId::make(), 2).await.expect("read").is_empty());
}

/// The attempt does not count, however often.
pub async fn snoozed_job_comes_back_later_with_its_attempts_unused(subject: &Subject) {
    let mut job = claimed(subject).await;
    subject.store.attempts().checkpoint_save(job.token, "7").await.expect("kept");
    for _ in 0..5 {
        assert_eq!(job.attempt, 1);
        let snoozed = Outcome::Snoozed { after: Duration::from_mins(1) };
        assert_eq!(subject.settle(&job, snoozed.clone()).await, Settled::Accepted);
        assert_eq!(subject.settle(&job, snoozed).await, Settled::Accepted, "the same answer again");
        let record = subject.store.job_get(job.token.job).await.expect("there");
        assert_eq!((record.state, record.attempt, record.error), (JobState::Queued, 0, None));
        let session = subject.session().await;
        assert!(subject.claim(session, 1).await.is_empty());
        subject.advance(Duration::from_mins(1));
        job = again(subject).await;
    }
    assert_eq!(job.checkpoint.as_deref(), Some("7"));
}

/// With the job, when its time is over.
pub async fn log_is_removed_with_its_job(subject: &Subject) {
    let job = claimed(subject).await;
    subject.store.attempts().log_append(job.token, vec!["x".to_owned()]).await.expect("kept");
    subject.settle(&job, Outcome::Completed { output: "1".to_owned() }).await;
    let lead = super::maintenance::lead(subject).await;
    let maintenance = subject.store.maintenance();
    let removed = maintenance.jobs_remove(&lead, JobState::Completed, Duration::ZERO, 10).await;
    assert_eq!(removed.expect("removed"), 1);
    assert!(subject.store.attempts().log_read(job.token.job, 10).await.expect("read").is_empty());
}
