//! Cases: workers that reach the store only through a server node.

use std::time::Duration;

use recache_model::ids::SessionId;
use recache_model::job::{ErrorKind, JobError, JobState};
use recache_model::limits::Limit;
use uuid::Uuid;

use super::views::definition;
use super::{Subject, work};
use crate::records::{LeaseToken, NewJob, Outcome, Revoked, Settled, Settlement, StagedItem, Touch};
use crate::remote_workers::{BuildSum, NewRemoteWorker, RemoteHandler};
use crate::{Error, LimitScope};

const LEASE: Duration = Duration::from_secs(10);
const LONGER: Duration = Duration::from_secs(11);

fn worker(namespaces: Option<&[&str]>) -> NewRemoteWorker {
    NewRemoteWorker {
        session: SessionId::make(),
        name: "till-7".to_owned(),
        secret_digest: "d".to_owned(),
        handlers: vec![RemoteHandler {
            name: "work".to_owned(),
            version: Some("1.2.0".to_owned()),
            input_schema: None,
        }],
        queues: vec!["default".to_owned()],
        namespaces: namespaces.map(|names| names.iter().map(|name| (*name).to_owned()).collect()),
        slots: 3,
        lease: LEASE,
    }
}

async fn opened(subject: &Subject, namespaces: Option<&[&str]>) -> SessionId {
    let worker = worker(namespaces);
    let session = worker.session;
    subject.store.remote_workers().remote_open(worker).await.expect("opened");
    session
}

fn of(namespace: &str) -> NewJob {
    NewJob { namespace: namespace.to_owned(), ..work() }
}

/// All that a node must know is in the store: another one finds it.
pub async fn remote_worker_is_known_until_its_session_ends(subject: &Subject) {
    let new = worker(Some(&["shop", "it's"]));
    let remote = subject.store.remote_workers();
    for _ in 0..2 {
        remote.remote_open(new.clone()).await.expect("opened");
    }
    let found = remote.remote_find(new.session).await.expect("read").expect("known");
    assert_eq!(found.registered, new);
    let local = subject.session().await;
    assert_eq!(remote.remote_find(local).await.expect("read"), None, "no remote worker's");
    subject.advance(LONGER);
    subject.store.sessions_sweep(10).await.expect("swept");
    assert_eq!(remote.remote_find(new.session).await.expect("read"), None);
    assert!(!remote.remote_beat(new.session, LEASE, Vec::new(), true).await.expect("answered").known);
}

/// Whatever has a say in the claim.
pub async fn session_gets_only_jobs_of_its_namespaces(subject: &Subject) {
    let keyed = |namespace| NewJob { concurrency_key: Some("k".to_owned()), priority: -1, ..of(namespace) };
    let session = opened(subject, Some(&["a", "b"])).await;
    let namespaces = |claimed: Vec<crate::ClaimedJob>| {
        let mut names: Vec<String> = claimed.into_iter().map(|job| job.namespace).collect();
        names.sort_unstable();
        names
    };
    subject.store.jobs_submit(vec![of("c"), of("a"), of("b")]).await.expect("stored");
    assert_eq!(namespaces(subject.claim(session, 10).await), ["a", "b"]);
    subject.store.jobs_submit(vec![of("c"), of("b"), keyed("c"), keyed("a")]).await.expect("stored");
    assert_eq!(namespaces(subject.claim(session, 10).await), ["a", "b"], "a key has a say");
    let limit = Limit { running_max: Some(100), rate: None };
    let scope = LimitScope::Handler("work".to_owned());
    subject.store.queues().limit_set(scope, limit, "ops").await.expect("set");
    subject.store.jobs_submit(vec![of("c"), of("a")]).await.expect("stored");
    assert_eq!(namespaces(subject.claim(session, 10).await), ["a"], "a limit has a say");
    let all = opened(subject, None).await;
    assert_eq!(namespaces(subject.claim(all, 10).await), ["c", "c", "c", "c"]);
}

/// The answer to a claim was lost, and the worker lives on: its job is in no state that nothing looks at.
pub async fn job_that_its_worker_does_not_name_is_taken_away(subject: &Subject) {
    let session = opened(subject, None).await;
    subject.store.jobs_submit(vec![work(), work()]).await.expect("stored");
    let jobs = subject.claim(session, 2).await;
    let remote = subject.store.remote_workers();
    let beat = async |are_all_named| {
        subject.advance(LEASE / 2);
        remote.remote_beat(session, LEASE, vec![jobs[0].token], are_all_named).await.expect("answered")
    };
    assert_eq!(beat(true).await.forgotten, 0, "it may be on its way to the worker");
    assert_eq!(beat(false).await.forgotten, 0);
    assert_eq!(beat(false).await.forgotten, 0, "nothing follows from a call that does not name all");
    let beat = beat(true).await;
    assert!(beat.known && beat.revoked.is_empty() && beat.forgotten == 1, "{beat:?}");
    let record = subject.store.job_get(jobs[1].token.job).await.expect("there");
    assert_eq!((record.state, record.attempt), (JobState::Queued, 1), "an attempt, as far as anybody knows");
    assert_eq!(record.error.expect("kept").kind, ErrorKind::LeaseLost);
    let named = vec![jobs[0].token, jobs[1].token];
    let beat = remote.remote_beat(session, LEASE, named, true).await.expect("answered");
    assert_eq!(beat.revoked, [(jobs[1].token.job, Revoked::TakenOver)]);
}

/// What a node needs that did not make the claim.
pub async fn jobs_are_found_by_session_and_by_token(subject: &Subject) {
    let session = opened(subject, None).await;
    subject.store.jobs_submit(vec![work(), work()]).await.expect("stored");
    let mut jobs = subject.claim(session, 2).await;
    subject.advance(Duration::from_secs(3));
    let remote = subject.store.remote_workers();
    let held = remote.remote_held(session).await.expect("read");
    assert_eq!(held.len(), 2);
    assert_eq!(held[0].ran, Duration::from_secs(3));
    for (held, job) in held.iter().zip(&mut jobs) {
        job.is_limited = true;
        job.waited = held.job.waited;
        assert_eq!(held.job, *job);
    }
    let foreign = LeaseToken { claim: Uuid::new_v4(), ..jobs[1].token };
    let found = remote.remote_held_by(vec![jobs[0].token, foreign]).await.expect("read");
    assert_eq!(found.iter().map(|held| held.job.token).collect::<Vec<_>>(), [jobs[0].token]);
    subject.settle(&jobs[0], Outcome::Completed { output: "1".to_owned() }).await;
    assert_eq!(remote.remote_held_by(vec![jobs[0].token]).await.expect("read"), []);
    assert_eq!(remote.remote_held(session).await.expect("read").len(), 1);
}

/// What its worker says afterwards is not taken for a repetition.
pub async fn attempt_that_is_ended_by_force_voids_its_token(subject: &Subject) {
    let session = opened(subject, None).await;
    subject.store.jobs_submit(vec![work()]).await.expect("stored");
    let job = subject.claim_one(session).await;
    let error = JobError::new(ErrorKind::Timeout, "ran longer than 5 ms");
    let ended = Settlement::of(&job, Outcome::Retry { error, after: Duration::ZERO });
    let remote = subject.store.remote_workers();
    assert_eq!(remote.remote_end(ended.clone()).await.expect("answered"), Settled::Accepted);
    let late = subject.settle(&job, Outcome::Completed { output: "1".to_owned() }).await;
    assert_eq!(late, Settled::Refused(Revoked::TakenOver));
    let again = remote.remote_end(ended).await.expect("answered");
    assert_eq!(again, Settled::Refused(Revoked::TakenOver), "and ends nothing twice");
    let next = subject.claim_one(session).await;
    assert_eq!(next.attempt, 2);
    assert_eq!(subject.settle(&next, Outcome::Completed { output: "2".to_owned() }).await, Settled::Accepted);
}

/// A repeated call adds no line twice; another attempt counts from 1 again, even one of the same number.
pub async fn numbered_lines_are_kept_once(subject: &Subject) {
    let session = opened(subject, None).await;
    subject.store.jobs_submit(vec![work()]).await.expect("stored");
    let job = subject.claim_one(session).await;
    let remote = subject.store.remote_workers();
    let say = async |token, first, lines: &[&str]| {
        let lines = lines.iter().map(|line| (*line).to_owned()).collect();
        remote.remote_log(token, first, lines).await.expect("answered")
    };
    assert_eq!(say(job.token, 1, &["one", "two"]).await, None);
    assert_eq!(say(job.token, 1, &["one", "two"]).await, None);
    assert_eq!(say(job.token, 2, &["two", "three"]).await, None);
    let read = async || {
        let lines = subject.store.attempts().log_read(job.token.job, 10).await.expect("read");
        lines.into_iter().map(|line| line.text).collect::<Vec<_>>()
    };
    assert_eq!(read().await, ["one", "two", "three"]);
    subject.settle(&job, Outcome::Released).await;
    let again = subject.claim_one(session).await;
    assert_eq!(again.attempt, job.attempt);
    assert_eq!(say(again.token, 1, &["one"]).await, None);
    assert_eq!(say(job.token, 4, &["late"]).await, Some(Revoked::TakenOver));
    assert_eq!(read().await, ["one", "two", "three", "one"]);
}

/// Computed from what is stored, so that a worker need not name what goes.
pub async fn sum_of_a_build_names_what_would_be_gone(subject: &Subject) {
    let session = subject.session().await;
    subject.store.view_define(definition("prices")).await.expect("defined");
    let item = |key: &str, value: Option<&str>| StagedItem {
        item: key.to_owned(),
        fingerprint: Some("f".to_owned()),
        value: value.map(str::to_owned),
    };
    let remote = subject.store.remote_workers();
    let build = async |items: Vec<StagedItem>| {
        let touch = Touch {
            namespace: "shop".to_owned(),
            key: "prices".to_owned(),
            at_once: true,
            ..Touch::default()
        };
        subject.store.views_touch(vec![touch]).await.expect("touched");
        subject.store.views_reconcile(10).await.expect("reconciled");
        let job = subject.claim_one(session).await;
        let start = subject.store.build_begin(job.token).await.expect("answered").expect("good");
        assert_eq!(subject.store.build_put(job.token, items).await.expect("answered"), None);
        (job, start.version)
    };
    let (first, version) = build(["a", "b", "c"].map(|key| item(key, Some("1"))).to_vec()).await;
    let sum = remote.remote_build_sum(first.token, Vec::new()).await.expect("answered").expect("good");
    assert_eq!(sum, BuildSum { removed: Vec::new(), total: 3, put: 3, kept: 0 });
    let publication =
        crate::Publication { version, output: "{}".to_owned(), ..crate::Publication::default() };
    subject.store.build_publish(first.token, publication).await.expect("published");
    let (second, _) = build(vec![item("a", Some("2")), item("d", Some("4"))]).await;
    let sum = remote.remote_build_sum(second.token, vec!["b".to_owned()]).await.expect("answered");
    let expected = BuildSum { removed: vec!["c".to_owned()], total: 3, put: 2, kept: 1 };
    assert_eq!(sum, Ok(expected));
    let unknown = remote.remote_build_sum(second.token, vec!["x".to_owned()]).await;
    assert!(matches!(unknown, Err(Error::Invalid(_))), "what is not live would be missing: {unknown:?}");
    assert_eq!(
        remote.remote_build_sum(first.token, Vec::new()).await.expect("answered"),
        Err(Revoked::Finished)
    );
    subject.settle(&second, Outcome::Released).await;
}
