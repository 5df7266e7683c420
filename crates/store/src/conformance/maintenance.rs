//! Cases: the lead, retention, comparison of counts.

use std::sync::Arc;
use std::time::Duration;

use recache_model::ids::{JobId, SessionId};
use recache_model::job::{ErrorKind, JobError, JobState};
use recache_model::letter::LetterStatus;
use recache_model::limits::Rate;
use recache_model::time::Clock as _;
use recache_model::workflow::WorkflowState;
use uuid::Uuid;

use super::{Subject, work, workflows};
use crate::records::{JobFilter, NewJob, Outcome};
use crate::{Error, HandOver, HistoryRule, Leadership, NewRemoteWorker, SessionsSeen, Word};

const LEASE: Duration = Duration::from_secs(30);
const HOUR: Duration = Duration::from_hours(1);

pub(super) async fn lead(subject: &Subject) -> Leadership {
    let taken = subject.store.maintenance().leader_take("test", Uuid::new_v4(), LEASE).await;
    taken.expect("answered").expect("nobody else leads")
}

fn completed() -> Outcome {
    Outcome::Completed { output: "1".to_owned() }
}

fn failed() -> Outcome {
    Outcome::Failed { error: JobError::new(ErrorKind::Permanent, "no") }
}

async fn count(subject: &Subject) -> usize {
    let filter = JobFilter { rows_max: 1000, ..JobFilter::default() };
    subject.store.jobs_list(filter).await.expect("listed").jobs.len()
}

async fn end(subject: &Subject, job: NewJob, outcome: Outcome) -> JobId {
    subject.store.jobs_submit(vec![job]).await.expect("stored");
    let session = subject.session().await;
    let claimed = subject.claim_one(session).await;
    subject.settle(&claimed, outcome).await;
    claimed.token.job
}

/// Whoever has it keeps it by asking again; another one gets it when its lease has passed or it was given up.
pub async fn one_process_leads_at_a_time(subject: &Subject) {
    let maintenance = subject.store.maintenance();
    let (a, b) = (Uuid::new_v4(), Uuid::new_v4());
    let take = async |holder| maintenance.leader_take("test", holder, LEASE).await.expect("answered");
    let first = take(a).await.expect("nobody leads");
    assert_eq!(take(b).await, None);
    subject.advance(LEASE / 2);
    assert_eq!(take(a).await.as_ref(), Some(&first), "the same token while nobody took it");
    subject.advance(LEASE / 2);
    assert_eq!(take(b).await, None, "it was kept");
    subject.advance(LEASE);
    let second = take(b).await.expect("its lease has passed");
    assert!(second.token > first.token);
    assert_eq!(take(a).await, None);
    let leader = maintenance.leader_find("test").await.expect("answered").expect("b leads");
    assert_eq!((leader.node, leader.since), (None, None), "b did not say who it is");
    maintenance.leader_say(&first, "a").await.expect("answered");
    let leader = maintenance.leader_find("test").await.expect("answered").expect("b leads");
    assert_eq!(leader.node, None, "a leads no more");
    maintenance.leader_say(&second, "b").await.expect("answered");
    let leader = maintenance.leader_find("test").await.expect("answered").expect("b leads");
    assert_eq!(leader.node.as_deref(), Some("b"));
    assert!(leader.since.is_some_and(|since| since < leader.expires_at));
    maintenance.leader_release(&first).await.expect("answered");
    assert_eq!(take(a).await, None, "a late release of the former changes nothing");
    maintenance.leader_release(&second).await.expect("released");
    assert_eq!(maintenance.leader_find("test").await.expect("answered"), None);
    assert!(take(a).await.expect("given up").token > second.token);
    assert!(
        maintenance.leader_take("other", b, LEASE).await.expect("answered").is_some(),
        "each role by itself"
    );
}

/// Those of nodes and those of remote workers apart; one that is over is told until it is swept.
pub async fn sessions_are_counted_with_the_most_silent(subject: &Subject) {
    let maintenance = subject.store.maintenance();
    assert_eq!(maintenance.sessions_seen().await.expect("seen"), SessionsSeen::default());
    let began = subject.store.now().await.expect("answered");
    subject.session().await;
    subject.advance(HOUR);
    subject.session().await;
    let worker = NewRemoteWorker {
        session: SessionId::make(),
        name: "remote".to_owned(),
        secret_digest: "00".to_owned(),
        handlers: Vec::new(),
        queues: vec!["default".to_owned()],
        namespaces: None,
        slots: 1,
        lease: 2 * HOUR,
    };
    subject.store.remote_workers().remote_open(worker).await.expect("opened");
    let seen = maintenance.sessions_seen().await.expect("seen");
    assert_eq!((seen.nodes, seen.remote, seen.overdue), (2, 1, 1));
    assert!(seen.nodes_heard.is_some_and(|heard| heard >= began && heard < began.plus(HOUR)));
    assert!(seen.remote_heard.is_some_and(|heard| heard >= began.plus(HOUR)));
    subject.store.sessions_sweep(10).await.expect("swept");
    let seen = maintenance.sessions_seen().await.expect("seen");
    assert_eq!((seen.nodes, seen.remote, seen.overdue), (1, 1, 0));
}

/// And changes nothing.
pub async fn work_of_a_former_leader_is_refused(subject: &Subject) {
    let job = end(subject, work(), completed()).await;
    let former = lead(subject).await;
    subject.advance(HOUR);
    let present = lead(subject).await;
    let maintenance = subject.store.maintenance();
    let late = maintenance.jobs_remove(&former, JobState::Completed, Duration::ZERO, 10).await;
    assert!(matches!(late, Err(Error::Conflict(_))), "{late:?}");
    assert!(matches!(maintenance.idempotency_keys_expire(&former, 10).await, Err(Error::Conflict(_))));
    assert!(matches!(maintenance.letters_remove(&former, LEASE, 10).await, Err(Error::Conflict(_))));
    let rule = HistoryRule { keep: HOUR, rows_max: 10 };
    assert!(matches!(maintenance.history_tend(&former, rule).await, Err(Error::Conflict(_))));
    let late = maintenance.workflows_remove(&former, WorkflowState::Completed, LEASE, 10).await;
    assert!(matches!(late, Err(Error::Conflict(_))), "{late:?}");
    subject.store.job_get(job).await.expect("still there");
    let removed = maintenance.jobs_remove(&present, JobState::Completed, Duration::ZERO, 10).await;
    assert_eq!(removed.expect("removed"), 1);
}

/// By state and age, a bounded number at a time; with their history, and without what points to them.
pub async fn ended_jobs_are_removed_when_their_time_is_over(subject: &Subject) {
    let keyed = NewJob { idempotency_key: Some("k".to_owned()), ..work() };
    let old = end(subject, keyed.clone(), completed()).await;
    for _ in 0..2 {
        end(subject, work(), completed()).await;
    }
    subject.advance(HOUR);
    let young = end(subject, work(), completed()).await;
    let waiting = work();
    subject.store.jobs_submit(vec![waiting.clone()]).await.expect("stored");
    let lead = lead(subject).await;
    let maintenance = subject.store.maintenance();
    let remove = async |state| maintenance.jobs_remove(&lead, state, HOUR, 2).await.expect("answered");
    assert_eq!(remove(JobState::Cancelled).await, 0);
    assert_eq!(remove(JobState::Completed).await, 2);
    assert_eq!(remove(JobState::Completed).await, 1);
    assert_eq!(remove(JobState::Completed).await, 0);
    assert!(matches!(subject.store.job_get(old).await, Err(Error::NotFound { .. })));
    assert!(subject.store.job_history(old).await.expect("answered").is_empty());
    for job in [young, waiting.id] {
        subject.store.job_get(job).await.expect("there");
    }
    let again = NewJob { id: JobId::make(), ..keyed };
    let answer = subject.store.jobs_submit(vec![again]).await.expect("answered")[0];
    assert_eq!((answer.id, answer.existed), (old, true), "the key outlives its job");
    assert_eq!(count(subject).await, 2);
}

/// Ids are made by callers, and a caller may keep one for long: nothing of the former job is seen or is in the way.
pub async fn job_of_a_removed_ones_id_begins_anew(subject: &Subject) {
    let lead = lead(subject).await;
    let maintenance = subject.store.maintenance();
    let ms = u128::try_from(subject.clock.now().micros() / 1000).expect("after 1970");
    let id = JobId::from_uuid(Uuid::from_u128(ms << 80 | 0x7000_8000_0000_0000_0001));
    subject.advance(HOUR * 24 * 3);
    for keyed in [false, true, false] {
        let key = keyed.then(|| format!("key of {id}"));
        let job = NewJob { id, idempotency_key: key, ..work() };
        assert_eq!(end(subject, job, completed()).await, id);
        assert_eq!(subject.store.job_history(id).await.expect("read").len(), 2);
        subject.assert_sound().await;
        let removed = maintenance.jobs_remove(&lead, JobState::Completed, Duration::ZERO, 10).await;
        assert_eq!(removed.expect("removed"), 1);
        assert!(subject.store.job_history(id).await.expect("answered").is_empty());
    }
    // In a workflow, as a step of it.
    let mut new = workflows::workflow(&[("a", &[])]);
    new.steps[0].job.id = id;
    assert!(subject.store.workflow_submit(new).await.expect("stored"));
    let session = subject.session().await;
    let claimed = subject.claim_one(session).await;
    subject.settle(&claimed, completed()).await;
    subject.assert_sound().await;
}

/// However old; then it goes, and its letter after it.
pub async fn failed_job_stays_while_its_letter_is_open(subject: &Subject) {
    let job = end(subject, work(), failed()).await;
    subject.advance(HOUR);
    let lead = lead(subject).await;
    let maintenance = subject.store.maintenance();
    assert_eq!(maintenance.jobs_remove(&lead, JobState::Failed, HOUR, 10).await.expect("answered"), 0);
    assert_eq!(maintenance.letters_remove(&lead, Duration::ZERO, 10).await.expect("answered"), 0);
    let word = Word::new("ops", "a test");
    subject.store.letters().letter_mark(job, LetterStatus::Discarded, word).await.expect("marked");
    assert_eq!(maintenance.jobs_remove(&lead, JobState::Failed, HOUR, 10).await.expect("answered"), 1);
    let (letter, notes) = subject.store.letters().letter_get(job).await.expect("there without its job");
    assert_eq!((letter.status, notes.len()), (LetterStatus::Discarded, 1));
    assert_eq!(maintenance.letters_remove(&lead, HOUR, 10).await.expect("answered"), 0);
    subject.advance(HOUR);
    assert_eq!(maintenance.letters_remove(&lead, HOUR, 10).await.expect("answered"), 1);
    assert!(matches!(subject.store.letters().letter_get(job).await, Err(Error::NotFound { .. })));
}

/// With all its steps, and no step without it.
pub async fn ended_workflow_is_removed_with_its_steps(subject: &Subject) {
    let session = subject.session().await;
    let (done, steps) = workflows::submit(subject, &[("a", &[]), ("b", &[0])]).await;
    for _ in 0..2 {
        let claimed = subject.claim_one(session).await;
        subject.settle(&claimed, completed()).await;
    }
    let (open, _) = workflows::submit(subject, &[("a", &[]), ("b", &[0])]).await;
    let claimed = subject.claim_one(session).await;
    subject.settle(&claimed, failed()).await;
    subject.advance(HOUR);
    let lead = lead(subject).await;
    let maintenance = subject.store.maintenance();
    assert_eq!(maintenance.jobs_remove(&lead, JobState::Completed, HOUR, 10).await.expect("answered"), 0);
    let remove = async |state| maintenance.workflows_remove(&lead, state, HOUR, 10).await.expect("answered");
    assert_eq!(remove(WorkflowState::Failed).await, 0, "its dead letter is open");
    assert_eq!(remove(WorkflowState::Completed).await, 1);
    assert!(matches!(subject.store.workflow_get(done).await, Err(Error::NotFound { .. })));
    assert!(matches!(subject.store.job_get(steps[1]).await, Err(Error::NotFound { .. })));
    assert!(subject.store.job_history(steps[1]).await.expect("answered").is_empty());
    let word = Word::new("ops", "a test");
    subject
        .store
        .letters()
        .letter_mark(claimed.token.job, LetterStatus::Discarded, word)
        .await
        .expect("marked");
    assert_eq!(remove(WorkflowState::Failed).await, 1);
    assert!(subject.store.workflow_get(open).await.is_err());
    assert_eq!(count(subject).await, 0);
}

/// Page by page; a difference is found, and nothing is mended.
pub async fn counts_of_workflows_are_compared_with_their_steps(subject: &Subject) {
    for _ in 0..3 {
        workflows::submit(subject, &[("a", &[]), ("b", &[0]), ("c", &[0])]).await;
    }
    let session = subject.session().await;
    let claimed = subject.claim(session, 2).await;
    subject.settle(&claimed[0], completed()).await;
    subject.settle(&claimed[1], failed()).await;
    let maintenance = subject.store.maintenance();
    let first = maintenance.counts_compare(None, 2).await.expect("compared");
    assert_eq!((first.workflows, first.differences.len()), (2, 0));
    let second = maintenance.counts_compare(first.last, 2).await.expect("compared");
    assert_eq!((second.workflows, second.differences.len()), (1, 0));
    let third = maintenance.counts_compare(second.last, 2).await.expect("compared");
    assert_eq!((third.workflows, third.last), (0, None));
    // Somebody's hand in the tables.
    subject.tamper("UPDATE workflows SET steps_done = steps_done + 1").await;
    let compared = maintenance.counts_compare(None, 10).await.expect("compared");
    assert_eq!(compared.differences.len(), 3);
    for found in compared.differences {
        assert_eq!(found.kept.done, found.counted.done + 1);
        assert_eq!(found.kept.total(), found.counted.total() + 1);
    }
    subject.tamper("UPDATE workflows SET steps_done = steps_done - 1").await;
}

/// What a rate remembers is worth nothing when its longest period is over.
pub async fn rate_that_nobody_uses_is_forgotten(subject: &Subject) {
    let rate = Rate { starts_max: 1, period: HOUR };
    let to = HandOver {
        queue: "default".to_owned(),
        handler: "work".to_owned(),
        concurrency: None,
        rate: Some(("key".to_owned(), rate)),
    };
    for is_first in [true, false] {
        workflows::submit(subject, &[("a", &[])]).await;
        let session = subject.session().await;
        let turn = subject.claim_one(session).await;
        subject.settle(&turn, Outcome::HandedOver(Arc::new(to.clone()))).await;
        let job = subject.store.job_get(turn.token.job).await.expect("there");
        assert_eq!((job.state, job.attempt), (JobState::Queued, 0));
        assert_eq!(job.due_at.since(subject.clock.now()), if is_first { Duration::ZERO } else { HOUR });
        subject.store.job_cancel(turn.token.job, "seen").await.expect("cancelled");
    }
    let lead = lead(subject).await;
    let expire = async || subject.store.maintenance().step_rates_expire(&lead, 10).await.expect("answered");
    subject.advance(HOUR * 24 * 30);
    assert_eq!(expire().await, 0, "as long as the longest period");
    subject.advance(HOUR);
    assert_eq!(expire().await, 1);
}
