//! Cases: limits of time, judged by whoever leads maintenance.

use std::sync::Arc;
use std::time::Duration;

use recache_model::ids::{JobId, WorkflowId};
use recache_model::job::{ErrorKind, JobError, JobState};
use recache_model::letter::LetterStatus;
use recache_model::lifecycle::{Limit, LimitName, TimeLimits};
use recache_model::workflow::{StepKind, WorkflowState};

use super::maintenance::lead;
use super::{Subject, work, workflows};
use crate::flow::{Child, Children};
use crate::letters::LetterFilter;
use crate::maintenance::LimitsJudged;
use crate::records::{NewWorkflow, Outcome, Revoked, Settled};
use crate::{Error, Letter, Word};

/// A minute.
const MINUTE: Duration = Duration::from_mins(1);

#[expect(clippy::unnecessary_wraps, reason = "as the fields have it")]
fn limit(minutes: u32, fails: bool, letter: bool) -> Option<Limit> {
    Some(Limit { minutes, fails, letter })
}

/// Fails, with a letter.
fn fatal(minutes: u32) -> Option<Limit> {
    limit(minutes, true, true)
}

fn completed() -> Outcome {
    Outcome::Completed { output: "1".to_owned() }
}

fn failing() -> Outcome {
    Outcome::Failed { error: JobError::new(ErrorKind::Permanent, "no") }
}

/// A workflow whose steps have these limits each.
fn limited(steps: &[(&str, &[usize])], limits: &[TimeLimits]) -> NewWorkflow {
    let mut new = workflows::workflow(steps);
    for (step, limits) in new.steps.iter_mut().zip(limits) {
        step.job.limits = *limits;
    }
    new
}

async fn submit(subject: &Subject, new: &NewWorkflow) -> Vec<JobId> {
    subject.store.workflow_submit(new.clone()).await.expect("stored");
    new.steps.iter().map(|step| step.job.id).collect()
}

async fn judge(subject: &Subject) -> LimitsJudged {
    let lead = lead(subject).await;
    let judged = subject.store.maintenance().lifecycles_judge(&lead, 100).await.expect("judged");
    subject.store.maintenance().leader_release(&lead).await.expect("given up");
    subject.assert_sound().await;
    judged
}

async fn state(subject: &Subject, job: JobId) -> JobState {
    subject.store.job_get(job).await.expect("there").state
}

async fn code(subject: &Subject, job: JobId) -> String {
    let error = subject.store.job_get(job).await.expect("there").error;
    error.and_then(|error| error.code).unwrap_or_default()
}

async fn workflow_state(subject: &Subject, id: WorkflowId) -> WorkflowState {
    subject.store.workflow_get(id).await.expect("there").state
}

async fn letters(subject: &Subject) -> Vec<Letter> {
    subject.store.letters().letters_list(LetterFilter::default(), 100).await.expect("listed")
}

async fn found(subject: &Subject, id: WorkflowId) -> Vec<(Option<String>, Vec<LimitName>)> {
    let listed = subject.store.flows().limits_list(id, true, 100).await.expect("listed");
    listed.into_iter().map(|one| (one.step, one.found)).collect()
}

/// What it waited for has not ended, so a retry has it wait again, with its time renewed; and the end of that lets it run.
pub async fn step_that_waits_too_long_for_others_fails_and_can_be_retried_behind_them(subject: &Subject) {
    let new = limited(
        &[("a", &[]), ("b", &[0])],
        &[TimeLimits::default(), TimeLimits { dependencies: fatal(5), ..TimeLimits::default() }],
    );
    let jobs = submit(subject, &new).await;
    let session = subject.session().await;
    let a = subject.claim_one(session).await;
    subject.advance(MINUTE * 4 + Duration::from_micros(59_999_999));
    assert_eq!(judge(subject).await, LimitsJudged::default(), "not a moment too soon");
    subject.advance(Duration::from_micros(1));
    let judged = judge(subject).await;
    assert_eq!((judged.looked_at, judged.passed, judged.failed, judged.letters), (1, 1, 1, 1));
    assert_eq!(state(subject, jobs[1]).await, JobState::Failed);
    assert_eq!(code(subject, jobs[1]).await, "lifecycle_dependencies");
    let letter = &letters(subject).await[0];
    assert_eq!((letter.job, letter.error.kind), (jobs[1], ErrorKind::Timeout));
    let said =
        "the step has waited for other steps for 5 min, `max_waiting_for_dependencies_minutes` allows 5 min";
    assert_eq!(letter.error.message, said);
    assert_eq!(workflow_state(subject, new.id).await, WorkflowState::Running, "the other step still runs");

    subject.store.job_retry(jobs[1]).await.expect("retried");
    assert_eq!(state(subject, jobs[1]).await, JobState::Blocked);
    assert!(letters(subject).await.is_empty(), "the letter is redriven");
    subject.advance(MINUTE * 3);
    assert_eq!(judge(subject).await.passed, 0, "its time counts anew");
    subject.advance(MINUTE);
    judge(subject).await;
    assert_eq!(
        state(subject, jobs[1]).await,
        JobState::Blocked,
        "from when it was retried, it waited in `blocked`"
    );
    subject.store.session_beat(session, MINUTE, Vec::new()).await.expect("answered");
    subject.settle(&a, completed()).await;
    let b = subject.claim_one(session).await;
    subject.settle(&b, completed()).await;
    assert_eq!(workflow_state(subject, new.id).await, WorkflowState::Completed);
}

/// The letter is there once, says why, and is closed when the step has ended by itself.
pub async fn limit_that_only_tells_leaves_a_letter_and_the_step_goes_on(subject: &Subject) {
    let new =
        limited(&[("a", &[])], &[TimeLimits { process: limit(2, false, true), ..TimeLimits::default() }]);
    let jobs = submit(subject, &new).await;
    let session = subject.session().await;
    let a = subject.claim_one(session).await;
    subject.advance(MINUTE * 2);
    let judged = judge(subject).await;
    assert_eq!((judged.passed, judged.failed, judged.letters), (1, 0, 1));
    assert_eq!(state(subject, jobs[0]).await, JobState::Running);
    let letter = letters(subject).await.remove(0);
    assert_eq!((letter.job, letter.status), (jobs[0], LetterStatus::Pending));
    assert_eq!(letter.error.code.as_deref(), Some("lifecycle_process"));
    let lines = subject.store.attempts().log_read(jobs[0], 10).await.expect("read");
    assert_eq!(lines.len(), 1);
    assert!(lines[0].text.contains("`max_steps_in_process_minutes` allows 2 min"), "{lines:?}");
    assert_eq!(found(subject, new.id).await, [(Some("a".to_owned()), vec![LimitName::Process])]);
    subject.advance(MINUTE * 5);
    assert_eq!(judge(subject).await.passed, 0, "found once");
    assert_eq!(letters(subject).await.len(), 1);
    let word = Word::new("ops", "I look");
    let redriven = subject.store.letters().letters_redrive(LetterFilter::default(), 10, word).await;
    assert_eq!(redriven.expect("answered").skipped, 1, "a step that goes on is not redriven");
    assert_eq!(subject.settle(&a, completed()).await, Settled::Accepted);
    subject.advance(MINUTE * 5);
    judge(subject).await;
    assert!(letters(subject).await.is_empty());
    let (letter, notes) = subject.store.letters().letter_get(jobs[0]).await.expect("there");
    assert_eq!(letter.status, LetterStatus::Resolved);
    assert_eq!(notes[0].word.reason, "the step has ended: completed");
}

/// One open letter for a job: the failure's word replaces the limit's.
pub async fn letter_of_a_limit_says_what_a_later_failure_says(subject: &Subject) {
    let limits = TimeLimits { duration: limit(1, false, true), ..TimeLimits::default() };
    let new = limited(&[("a", &[])], &[limits]);
    let jobs = submit(subject, &new).await;
    let session = subject.session().await;
    let a = subject.claim_one(session).await;
    subject.advance(MINUTE);
    assert_eq!(judge(subject).await.letters, 1);
    subject
        .store
        .letters()
        .letter_mark(jobs[0], LetterStatus::Investigating, Word::new("ops", "I look"))
        .await
        .expect("marked");
    subject.settle(&a, failing()).await;
    let letters = letters(subject).await;
    assert_eq!(letters.len(), 1);
    assert_eq!((letters[0].status, letters[0].error.message.as_str()), (LetterStatus::Investigating, "no"));
    assert_eq!(letters[0].attempts.len(), 1);
}

/// A delay that was asked for counts as waiting.
pub async fn step_that_waits_too_long_for_its_next_attempt_fails(subject: &Subject) {
    let limits = TimeLimits { retry: fatal(3), ..TimeLimits::default() };
    let new = limited(&[("a", &[]), ("b", &[0])], &[limits, TimeLimits::default()]);
    let jobs = submit(subject, &new).await;
    let session = subject.session().await;
    subject.advance(MINUTE * 10);
    judge(subject).await;
    let a = subject.claim_one(session).await;
    let error = JobError::new(ErrorKind::Retryable, "429");
    subject.settle(&a, Outcome::Retry { error, after: MINUTE * 60 }).await;
    subject.advance(MINUTE * 3);
    let judged = judge(subject).await;
    assert_eq!((judged.passed, judged.failed), (1, 1));
    assert_eq!(state(subject, jobs[0]).await, JobState::Failed);
    assert_eq!(code(subject, jobs[0]).await, "lifecycle_retry");
    assert_eq!(workflow_state(subject, new.id).await, WorkflowState::Failed);
    assert_eq!(letters(subject).await[0].attempts.len(), 1, "the attempt that failed is in the letter");
}

/// Its worker's token is void from then on; without a letter where none is asked for.
pub async fn running_step_that_is_at_work_too_long_is_taken_away_and_fails(subject: &Subject) {
    let new =
        limited(&[("a", &[])], &[TimeLimits { process: limit(2, true, false), ..TimeLimits::default() }]);
    let jobs = submit(subject, &new).await;
    let session = subject.session().await;
    let a = subject.claim_one(session).await;
    subject.advance(MINUTE * 2);
    let judged = judge(subject).await;
    assert_eq!((judged.passed, judged.failed, judged.letters), (1, 1, 0));
    assert!(letters(subject).await.is_empty());
    assert_eq!(subject.settle(&a, completed()).await, Settled::Refused(Revoked::Finished));
    assert_eq!(
        subject.store.attempts().checkpoint_save(a.token, "1").await.expect("answered"),
        Some(Revoked::Finished)
    );
    assert_eq!(workflow_state(subject, new.id).await, WorkflowState::Failed);
    // An operator has it run again, with its time renewed.
    subject.store.job_retry(jobs[0]).await.expect("retried");
    judge(subject).await;
    let again = subject.claim_one(session).await;
    subject.advance(MINUTE);
    assert_eq!(judge(subject).await.failed, 0);
    assert_eq!(subject.settle(&again, completed()).await, Settled::Accepted);
}

/// The next attempt has the checkpoint; the last one's stall is a failure.
pub async fn attempt_without_a_checkpoint_is_made_again_and_one_that_keeps_some_stays(subject: &Subject) {
    let mut new = limited(&[("a", &[])], &[TimeLimits { stall_minutes: Some(2), ..TimeLimits::default() }]);
    new.steps[0].job.retry.attempts_max = 2;
    let jobs = submit(subject, &new).await;
    let session = subject.session().await;
    let first = subject.claim_one(session).await;
    subject.advance(MINUTE);
    assert_eq!(subject.store.attempts().checkpoint_save(first.token, "7").await.expect("kept"), None);
    subject.advance(MINUTE);
    assert_eq!(judge(subject).await.stalled, 0, "a checkpoint was kept a minute ago");
    subject.advance(MINUTE);
    let judged = judge(subject).await;
    assert_eq!((judged.stalled, judged.failed), (1, 0));
    let job = subject.store.job_get(jobs[0]).await.expect("there");
    assert_eq!(
        (job.state, job.error.and_then(|error| error.code).as_deref()),
        (JobState::Queued, Some("checkpoint_stalled"))
    );
    assert_eq!(subject.settle(&first, completed()).await, Settled::Refused(Revoked::TakenOver));
    subject.advance(MINUTE);
    let second = subject.claim_one(session).await;
    assert_eq!((second.attempt, second.checkpoint.as_deref()), (2, Some("7")));
    subject.advance(MINUTE * 4);
    judge(subject).await;
    assert_eq!(state(subject, jobs[0]).await, JobState::Failed);
    assert_eq!(letters(subject).await.len(), 1);
}

/// What runs is told, what is queued does not begin, what is blocked stays as behind any failure; a retry goes on from there.
pub async fn workflow_that_takes_too_long_fails_with_all_that_moves(subject: &Subject) {
    let mut new = limited(&[("a", &[]), ("b", &[]), ("c", &[0, 1])], &[]);
    new.limits = TimeLimits { duration: fatal(30), ..TimeLimits::default() };
    let jobs = submit(subject, &new).await;
    let session = subject.session().await;
    let running = subject.claim(session, 1).await.remove(0);
    subject.advance(MINUTE * 30);
    let judged = judge(subject).await;
    assert_eq!((judged.looked_at, judged.passed, judged.failed, judged.letters), (1, 1, 2, 2));
    let mut states = Vec::new();
    for job in &jobs {
        states.push(state(subject, *job).await);
    }
    assert_eq!(states, [JobState::Failed, JobState::Failed, JobState::Blocked]);
    assert_eq!(workflow_state(subject, new.id).await, WorkflowState::Failed);
    assert_eq!(found(subject, new.id).await, [(None, vec![LimitName::Duration])]);
    assert_eq!(subject.settle(&running, completed()).await, Settled::Refused(Revoked::Finished));
    assert_eq!(code(subject, jobs[0]).await, "lifecycle_duration");
    subject.advance(MINUTE * 30);
    assert_eq!(judge(subject).await.looked_at, 0, "it was judged");
    let word = Word::new("ops", "more time");
    let retried = subject.store.flows().workflow_retry_failed(new.id, word).await;
    assert_eq!(retried.expect("answered"), 2);
    assert_eq!(judge(subject).await.failed, 0, "it has its time anew");
    for _ in 0..2 {
        for job in subject.claim(session, 2).await {
            subject.settle(&job, completed()).await;
        }
    }
    assert_eq!(workflow_state(subject, new.id).await, WorkflowState::Completed);
}

/// Its runs fail, begun or not, and what that means is what any failure of a run means.
pub async fn split_step_that_takes_too_long_fails_by_its_runs(subject: &Subject) {
    let limits = TimeLimits { duration: fatal(4), ..TimeLimits::default() };
    let new = limited(&[("a", &[])], &[limits]);
    let jobs = submit(subject, &new).await;
    let session = subject.session().await;
    let turn = subject.claim_one(session).await;
    let child = |item: &str| Child { job: work(), item: item.to_owned(), has_rules: false };
    let children = Children {
        kind: StepKind::Child,
        parallelism: Some(2),
        jobs: vec![child("1"), child("2"), child("3")],
    };
    subject.settle(&turn, Outcome::Split(Arc::new(children))).await;
    let run = subject.claim(session, 1).await.remove(0);
    subject.settle(&run, completed()).await;
    subject.advance(MINUTE * 4);
    let judged = judge(subject).await;
    assert_eq!((judged.passed, judged.failed), (1, 2), "those that had not ended");
    assert_eq!(state(subject, jobs[0]).await, JobState::Blocked);
    assert_eq!(workflow_state(subject, new.id).await, WorkflowState::Failed);
    let word = Word::new("ops", "again");
    assert_eq!(subject.store.flows().workflow_retry_failed(new.id, word).await.expect("answered"), 2);
    for job in subject.claim(session, 5).await {
        subject.settle(&job, completed()).await;
    }
    assert_eq!(state(subject, jobs[0]).await, JobState::Queued, "its turn to gather");
}

/// What it would gather has not ended: it stays as it is, and goes on when somebody has mended its run.
pub async fn split_step_behind_a_failed_run_is_left_alone(subject: &Subject) {
    let limits = TimeLimits { duration: fatal(4), ..TimeLimits::default() };
    let new = limited(&[("a", &[])], &[limits]);
    let jobs = submit(subject, &new).await;
    let session = subject.session().await;
    let turn = subject.claim_one(session).await;
    let child = Child { job: work(), item: "1".to_owned(), has_rules: false };
    let children = Children { kind: StepKind::Child, parallelism: None, jobs: vec![child] };
    subject.settle(&turn, Outcome::Split(Arc::new(children))).await;
    let run = subject.claim_one(session).await;
    subject.settle(&run, failing()).await;
    subject.advance(MINUTE * 4);
    let judged = judge(subject).await;
    assert_eq!((judged.passed, judged.failed), (1, 0));
    assert_eq!(state(subject, jobs[0]).await, JobState::Blocked);
    subject.store.job_retry(run.token.job).await.expect("retried");
    let run = subject.claim_one(session).await;
    subject.settle(&run, completed()).await;
    assert_eq!(state(subject, jobs[0]).await, JobState::Queued);
    subject.advance(MINUTE * 4);
    assert_eq!(judge(subject).await.failed, 1, "its time was renewed with its run's, and has passed again");
}

/// Counted and shown, and nothing else.
pub async fn limit_without_consequences_is_shown(subject: &Subject) {
    let mut new = limited(&[("a", &[])], &[]);
    new.limits = TimeLimits { duration: limit(1, false, false), ..TimeLimits::default() };
    let jobs = submit(subject, &new).await;
    subject.advance(MINUTE * 7);
    let judged = judge(subject).await;
    assert_eq!((judged.passed, judged.failed, judged.letters), (1, 0, 0));
    assert!(letters(subject).await.is_empty());
    assert_eq!(state(subject, jobs[0]).await, JobState::Queued);
    assert_eq!(found(subject, new.id).await, [(None, vec![LimitName::Duration])]);
    let lines = subject.store.attempts().log_read(jobs[0], 10).await.expect("read");
    assert_eq!(lines[0].text, "the workflow has taken 7 min, `max_duration_minutes` allows 1 min");
    assert_eq!(judge(subject).await.looked_at, 0, "no limit is left");
}

/// A leader that has lost its lead judges nothing, and two that follow each other find a limit once.
pub async fn limit_is_found_once_whoever_judges(subject: &Subject) {
    let limits = TimeLimits {
        duration: limit(1, false, true),
        process: limit(9, true, true),
        ..TimeLimits::default()
    };
    submit(subject, &limited(&[("a", &[])], &[limits])).await;
    subject.advance(MINUTE);
    let former = lead(subject).await;
    subject.advance(MINUTE);
    assert_eq!(judge(subject).await.passed, 1);
    let refused = subject.store.maintenance().lifecycles_judge(&former, 10).await;
    assert!(matches!(refused, Err(Error::Conflict(_))), "{refused:?}");
    let other = subject.second().await;
    subject.advance(MINUTE);
    let lead = lead(subject).await;
    assert_eq!(other.maintenance().lifecycles_judge(&lead, 10).await.expect("judged").passed, 0);
    other.close().await;
}

/// They have no row; one that has ended is not looked at again.
pub async fn steps_without_limits_are_never_looked_at(subject: &Subject) {
    let new = limited(&[("a", &[]), ("b", &[0])], &[]);
    submit(subject, &new).await;
    subject.advance(MINUTE * 600);
    assert_eq!(judge(subject).await, LimitsJudged::default());
    assert!(subject.store.flows().limits_list(new.id, false, 10).await.expect("listed").is_empty());
    let alone =
        crate::NewJob { limits: TimeLimits { duration: fatal(1), ..TimeLimits::default() }, ..work() };
    assert!(matches!(subject.store.jobs_submit(vec![alone]).await, Err(Error::Invalid(_))));
}
