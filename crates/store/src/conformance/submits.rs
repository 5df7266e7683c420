//! Cases: idempotency keys and unique keys.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use recache_model::ids::JobId;
use recache_model::job::{ErrorKind, JobError, JobState};
use recache_model::unique::{IDEMPOTENCY_KEEP, OnDuplicate, UniqueRule};

use super::{Subject, work};
use crate::records::{Due, JobFilter, NewJob, Outcome, Submitted};
use crate::{Error, Store};

fn keyed(key: &str) -> NewJob {
    NewJob { idempotency_key: Some(key.to_owned()), ..work() }
}

fn unique(on_duplicate: OnDuplicate) -> NewJob {
    NewJob { unique: Some(UniqueRule { on_duplicate, ..UniqueRule::by_key("nightly") }), ..work() }
}

async fn submit(subject: &Subject, job: &NewJob) -> Submitted {
    subject.store.jobs_submit(vec![job.clone()]).await.expect("stored")[0]
}

async fn count(subject: &Subject) -> usize {
    let filter = JobFilter { rows_max: 1000, ..JobFilter::default() };
    subject.store.jobs_list(filter).await.expect("listed").jobs.len()
}

/// Everything that concurrent submits answer, from two stores at once.
async fn race(subject: &Subject, job: impl Fn(usize) -> NewJob) -> Vec<crate::Result<Submitted>> {
    let second = subject.second().await;
    let mut submits = Vec::new();
    for n in 0..16 {
        let store: Arc<dyn Store> = if n % 2 == 0 { Arc::clone(&subject.store) } else { Arc::clone(&second) };
        let job = job(n);
        submits.push(tokio::spawn(async move { Ok(store.jobs_submit(vec![job]).await?[0]) }));
    }
    let mut answers = Vec::new();
    for submit in submits {
        answers.push(submit.await.expect("no submit panics"));
    }
    second.close().await;
    answers
}

/// The second one brings another id, as a program does that was started again, and gets the id of the first.
pub async fn repeated_idempotency_key_finds_the_first_job(subject: &Subject) {
    let first = keyed("order-7");
    assert_eq!(submit(subject, &first).await, Submitted { id: first.id, existed: false, replaced: false });
    let again = submit(subject, &keyed("order-7")).await;
    assert_eq!(again, Submitted { id: first.id, existed: true, replaced: false });
    let elsewhere = NewJob { namespace: "other".to_owned(), ..keyed("order-7") };
    assert_eq!(submit(subject, &elsewhere).await.id, elsewhere.id, "a key belongs to its namespace");
    let twice =
        subject.store.jobs_submit(vec![keyed("a"), keyed("a"), keyed("order-7")]).await.expect("stored");
    assert_eq!((twice[0].existed, twice[1].existed), (false, true));
    assert_eq!((twice[1].id, twice[2].id), (twice[0].id, first.id));
    // What became of the job does not matter.
    let session = subject.session().await;
    for job in subject.claim(session, 10).await {
        subject.settle(&job, Outcome::Completed { output: "1".to_owned() }).await;
    }
    assert_eq!(submit(subject, &keyed("order-7")).await.id, first.id);
    assert_eq!(count(subject).await, 3);
}

/// Whatever differs: input, queue, handler, priority, due time.
pub async fn idempotency_key_with_another_body_is_a_conflict_and_stores_nothing(subject: &Subject) {
    submit(subject, &keyed("k")).await;
    let others = [
        NewJob { input: "2".to_owned(), ..keyed("k") },
        NewJob { queue: "q".to_owned(), ..keyed("k") },
        NewJob { handler: "h".to_owned(), ..keyed("k") },
        NewJob { priority: 1, ..keyed("k") },
        NewJob { due: Due::In(Duration::from_secs(1)), ..keyed("k") },
        NewJob { timeout: Some(Duration::from_secs(1)), ..keyed("k") },
        NewJob { unique: Some(UniqueRule::default()), ..keyed("k") },
    ];
    for other in others {
        let answer = subject.store.jobs_submit(vec![work(), other]).await;
        let Err(Error::Conflict(message)) = answer else { panic!("refused: {answer:?}") };
        assert!(message.contains("idempotency key `k`"), "{message}");
    }
    let within = vec![keyed("l"), NewJob { input: "2".to_owned(), ..keyed("l") }];
    assert!(matches!(subject.store.jobs_submit(within).await, Err(Error::Conflict(_))));
    assert_eq!(count(subject).await, 1);
}

/// Not a moment before; and its row goes with maintenance, a bounded number at a time.
pub async fn idempotency_key_is_forgotten_after_seven_days(subject: &Subject) {
    let first = submit(subject, &keyed("k")).await;
    for key in ["a", "b", "c"] {
        submit(subject, &keyed(key)).await;
    }
    subject.advance(IDEMPOTENCY_KEEP.saturating_sub(Duration::from_secs(1)));
    assert_eq!(submit(subject, &keyed("k")).await.id, first.id);
    let maintenance = subject.store.maintenance();
    let lead = super::maintenance::lead(subject).await;
    assert_eq!(maintenance.idempotency_keys_expire(&lead, 100).await.expect("answered"), 0);
    subject.advance(Duration::from_secs(1));
    let second = NewJob { input: "2".to_owned(), ..keyed("k") };
    assert_eq!(submit(subject, &second).await.id, second.id, "free again, for any body");
    let expire = async || maintenance.idempotency_keys_expire(&lead, 2).await.expect("answered");
    assert_eq!((expire().await, expire().await, expire().await), (2, 1, 0));
    assert_eq!(submit(subject, &NewJob { input: "2".to_owned(), ..keyed("k") }).await.id, second.id);
}

/// One of them stores it, all of them answer it.
pub async fn concurrent_submits_of_one_idempotency_key_are_one_job(subject: &Subject) {
    let answers = race(subject, |_| keyed("k")).await;
    let answers: Vec<Submitted> =
        answers.into_iter().map(|answer| answer.expect("stored or found")).collect();
    assert_eq!(answers.iter().map(|answer| answer.id).collect::<HashSet<_>>().len(), 1);
    assert_eq!(answers.iter().filter(|answer| !answer.existed).count(), 1);
    assert_eq!(count(subject).await, 1);
}

/// And all that came with it.
pub async fn second_job_of_a_unique_key_is_refused_where_the_rule_says_so(subject: &Subject) {
    let first = submit(subject, &unique(OnDuplicate::Reject)).await;
    let answer = subject.store.jobs_submit(vec![work(), unique(OnDuplicate::Reject)]).await;
    let Err(Error::Conflict(message)) = answer else { panic!("refused: {answer:?}") };
    assert!(message.contains(&first.id.to_string()), "{message}");
    let twins = vec![
        NewJob { namespace: "n".to_owned(), ..unique(OnDuplicate::Reject) },
        NewJob { namespace: "n".to_owned(), ..unique(OnDuplicate::Reject) },
    ];
    assert!(matches!(subject.store.jobs_submit(twins).await, Err(Error::Conflict(_))));
    assert_eq!(count(subject).await, 1);
}

/// Other keys, other handlers and other namespaces are other jobs.
pub async fn second_job_of_a_unique_key_finds_the_first(subject: &Subject) {
    let first = submit(subject, &unique(OnDuplicate::Return)).await;
    let mut second = NewJob { input: "2".to_owned(), ..unique(OnDuplicate::Return) };
    second.idempotency_key = Some("k".to_owned());
    assert_eq!(submit(subject, &second).await, Submitted { id: first.id, existed: true, replaced: false });
    assert_eq!(
        submit(subject, &second).await.id,
        first.id,
        "its idempotency key stands for the first job too"
    );
    let again = NewJob { id: JobId::make(), ..second };
    assert_eq!(submit(subject, &again).await.id, first.id);
    let mut others = vec![
        NewJob { namespace: "n".to_owned(), ..unique(OnDuplicate::Return) },
        NewJob { handler: "build".to_owned(), ..unique(OnDuplicate::Return) },
        NewJob { unique: Some(UniqueRule::by_key("weekly")), ..work() },
        work(),
    ];
    let by_arguments = UniqueRule { by_arguments: true, ..UniqueRule::default() };
    for input in ["{\"a\":1,\"b\":2}", "{\"b\":2,\"a\":1}", "{\"a\":1}"] {
        let unique = Some(by_arguments.clone());
        others.push(NewJob { unique, input: input.to_owned(), ..work() });
    }
    let answers = subject.store.jobs_submit(others).await.expect("stored");
    let existed: Vec<bool> = answers.iter().map(|answer| answer.existed).collect();
    assert_eq!(existed, [false, false, false, false, false, true, false]);
    assert_eq!(answers[5].id, answers[4].id);
}

/// It keeps its id and its history; once it runs it is too late.
pub async fn queued_job_takes_over_what_its_replacement_says(subject: &Subject) {
    let first =
        submit(subject, &NewJob { due: Due::In(Duration::from_hours(1)), ..unique(OnDuplicate::Replace) })
            .await;
    let second = NewJob {
        input: "{\"n\":2}".to_owned(),
        priority: 9,
        timeout: Some(Duration::from_secs(7)),
        queue: "default".to_owned(),
        ..unique(OnDuplicate::Replace)
    };
    assert_eq!(submit(subject, &second).await, Submitted { id: first.id, existed: true, replaced: true });
    let job = subject.store.job_get(first.id).await.expect("there");
    assert_eq!((job.input, job.priority, job.timeout), (second.input, 9, second.timeout));
    assert_eq!((job.attempts_max, job.correlation_id), (3, second.correlation_id));
    let history = subject.store.job_history(first.id).await.expect("read");
    assert_eq!((history[0].from, history[0].to), (JobState::Queued, JobState::Queued));
    let session = subject.session().await;
    let claimed = subject.claim_one(session).await;
    assert_eq!(claimed.input, "{\"n\":2}", "due at once, as the replacement is");
    let late = subject.store.jobs_submit(vec![unique(OnDuplicate::Replace)]).await;
    assert!(matches!(&late, Err(Error::Conflict(message)) if message.contains("running")), "{late:?}");
    let error = JobError::new(ErrorKind::Retryable, "no");
    subject.settle(&claimed, Outcome::Retry { error, after: Duration::from_hours(1) }).await;
    let third = NewJob { input: "3".to_owned(), ..unique(OnDuplicate::Replace) };
    assert!(submit(subject, &third).await.replaced);
    let job = subject.store.job_get(first.id).await.expect("there");
    assert_eq!((job.attempt, job.attempts_max), (1, 4), "a new set of attempts");
    assert_eq!(subject.claim_one(session).await.input, "3");
    assert_eq!(count(subject).await, 1);
}

/// However it ended.
pub async fn unique_key_is_free_once_its_job_has_ended(subject: &Subject) {
    let session = subject.session().await;
    let ends = [
        Outcome::Completed { output: "1".to_owned() },
        Outcome::Failed { error: JobError::new(ErrorKind::Permanent, "no") },
    ];
    for end in ends {
        let job = submit(subject, &unique(OnDuplicate::Reject)).await;
        assert!(!job.existed);
        let claimed = subject.claim_one(session).await;
        assert!(subject.store.jobs_submit(vec![unique(OnDuplicate::Reject)]).await.is_err());
        subject.settle(&claimed, end).await;
    }
    let job = submit(subject, &unique(OnDuplicate::Reject)).await;
    subject.store.job_cancel(job.id, "no").await.expect("cancelled");
    assert!(!submit(subject, &unique(OnDuplicate::Reject)).await.existed);
}

/// Where the rule names the state.
pub async fn unique_key_may_outlast_the_end_of_its_job(subject: &Subject) {
    let once = |on_duplicate| {
        let rule =
            UniqueRule { also_ended: vec![JobState::Completed], on_duplicate, ..UniqueRule::by_key("once") };
        NewJob { unique: Some(rule), ..work() }
    };
    let session = subject.session().await;
    let first = submit(subject, &once(OnDuplicate::Return)).await;
    let claimed = subject.claim_one(session).await;
    subject.settle(&claimed, Outcome::Failed { error: JobError::new(ErrorKind::Permanent, "no") }).await;
    let second = submit(subject, &once(OnDuplicate::Return)).await;
    assert_ne!(second.id, first.id, "a failed one does not stand in the way");
    let claimed = subject.claim_one(session).await;
    subject.settle(&claimed, Outcome::Completed { output: "1".to_owned() }).await;
    assert_eq!(submit(subject, &once(OnDuplicate::Return)).await.id, second.id);
    let late = subject.store.jobs_submit(vec![once(OnDuplicate::Replace)]).await;
    assert!(matches!(&late, Err(Error::Conflict(message)) if message.contains("completed")), "{late:?}");
}

/// By the store's clock.
pub async fn unique_key_holds_for_its_period(subject: &Subject) {
    let hourly = || {
        let rule = UniqueRule { period: Some(Duration::from_hours(1)), ..UniqueRule::default() };
        NewJob { unique: Some(rule), ..work() }
    };
    let first = submit(subject, &hourly()).await;
    assert_eq!(submit(subject, &hourly()).await.id, first.id);
    subject.advance(Duration::from_hours(1));
    let second = submit(subject, &hourly()).await;
    assert!(!second.existed, "the first is still queued, in another period");
    assert_eq!(submit(subject, &hourly()).await.id, second.id);
}

/// An operator cannot do what a submit may not.
pub async fn retry_into_a_taken_unique_key_is_a_conflict(subject: &Subject) {
    let session = subject.session().await;
    let first = submit(subject, &unique(OnDuplicate::Return)).await;
    let claimed = subject.claim_one(session).await;
    subject.settle(&claimed, Outcome::Failed { error: JobError::new(ErrorKind::Permanent, "no") }).await;
    let second = submit(subject, &unique(OnDuplicate::Return)).await;
    let answer = subject.store.job_retry(first.id).await;
    assert!(matches!(&answer, Err(Error::Conflict(message)) if message.contains("unique key")), "{answer:?}");
    subject.store.job_cancel(second.id, "no").await.expect("cancelled");
    subject.store.job_retry(first.id).await.expect("free now");
    let claimed = subject.claim_one(session).await;
    subject.settle(&claimed, Outcome::Failed { error: JobError::new(ErrorKind::Permanent, "no") }).await;
    // A rule by which a resolved job stands in the way of the one that is there by now.
    let rule = UniqueRule { also_ended: vec![JobState::Resolved], ..UniqueRule::by_key("resolved") };
    let resolved = || NewJob { unique: Some(rule.clone()), ..work() };
    let first = submit(subject, &resolved()).await;
    let claimed = subject.claim_one(session).await;
    subject.settle(&claimed, Outcome::Failed { error: JobError::new(ErrorKind::Permanent, "no") }).await;
    submit(subject, &resolved()).await;
    let answer = subject.store.letters().job_resolve(first.id, crate::Word::new("ops", "done")).await;
    assert!(matches!(&answer, Err(Error::Conflict(message)) if message.contains("unique key")), "{answer:?}");
}

/// Over two processes, for each policy.
pub async fn concurrent_submits_of_one_unique_key_are_one_job(subject: &Subject) {
    let answers = race(subject, |n| NewJob { input: n.to_string(), ..unique(OnDuplicate::Return) }).await;
    let ids: HashSet<JobId> = answers.into_iter().map(|answer| answer.expect("stored or found").id).collect();
    assert_eq!(ids.len(), 1);
    let named = |key: &str, on_duplicate, n: usize| NewJob {
        unique: Some(UniqueRule { on_duplicate, ..UniqueRule::by_key(key) }),
        input: n.to_string(),
        ..work()
    };
    let answers = race(subject, |n| named("rejects", OnDuplicate::Reject, n)).await;
    assert_eq!(answers.iter().filter(|answer| answer.is_ok()).count(), 1);
    assert!(
        answers.iter().filter_map(|answer| answer.as_ref().err()).all(|e| matches!(e, Error::Conflict(_)))
    );
    let answers = race(subject, |n| named("replaces", OnDuplicate::Replace, n)).await;
    let answers: Vec<Submitted> =
        answers.into_iter().map(|answer| answer.expect("stored or replaced")).collect();
    assert_eq!(answers.iter().filter(|answer| answer.replaced).count(), 15);
    assert_eq!(count(subject).await, 3);
}

/// With every reason.
pub async fn keys_that_cannot_be_are_refused(subject: &Subject) {
    let rule = UniqueRule { also_ended: vec![JobState::Queued], ..UniqueRule::by_key("x".repeat(257)) };
    let job = NewJob { unique: Some(rule), idempotency_key: Some(String::new()), ..work() };
    let answer = subject.store.jobs_submit(vec![job]).await;
    let Err(Error::Invalid(message)) = answer else { panic!("refused: {answer:?}") };
    for reason in ["unique key", "idempotency key", "queued"] {
        assert!(message.contains(reason), "{message}");
    }
    let mut workflow = super::workflows::two_steps_of_one_name();
    "other".clone_into(&mut workflow.steps[1].name);
    workflow.steps[1].job.unique = Some(UniqueRule::default());
    let answer = subject.store.workflow_submit(workflow).await;
    assert!(matches!(&answer, Err(Error::Invalid(message)) if message.contains("other")), "{answer:?}");
}

/// And asking changes nothing.
pub async fn schema_version_is_that_of_the_last_migration(subject: &Subject) {
    assert_eq!(subject.store.schema_version().await.expect("answered"), crate::newest_schema());
}
