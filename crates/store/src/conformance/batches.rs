//! Cases: members that are watched together.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use recache_model::batch::{BatchCallback, BatchCounts, BatchState, NESTING_MAX};
use recache_model::ids::{BatchId, JobId};
use recache_model::job::{ErrorKind, JobError, JobState};
use recache_model::time::Clock as _;
use recache_model::tracked::{Report, TrackedState};
use recache_model::workflow::WorkflowState;

use super::{Subject, maintenance::lead, workflows};
use crate::{
    BatchDue, BatchFilter, BatchRecord, Error, EventQuery, JobFilter, MemberKind, NewBatch, NewJob,
    NewTrackedJob, NewWorkflow, Outcome, Settlement, Store, Word,
};

/// More than any case has.
const MANY: u32 = 1_000;

async fn create(subject: &Subject, batch: NewBatch) -> BatchId {
    subject.store.batches().batch_create(batch).await.expect("created").0.definition.id
}

async fn get(subject: &Subject, batch: BatchId) -> BatchRecord {
    subject.store.batches().batch_get(batch).await.expect("there")
}

fn member(batch: BatchId) -> NewJob {
    NewJob {
        batch: Some(batch),
        retry: recache_model::retry::RetryPolicy::once(),
        ..NewJob::new("work", "null")
    }
}

async fn add(subject: &Subject, batch: BatchId, count: usize) -> Vec<JobId> {
    let jobs: Vec<NewJob> = (0..count).map(|_| member(batch)).collect();
    let submitted = subject.store.jobs_submit(jobs).await.expect("stored");
    submitted.into_iter().map(|submitted| submitted.id).collect()
}

async fn track(subject: &Subject, batch: BatchId) -> JobId {
    let job = NewTrackedJob { batch: Some(batch), ..NewTrackedJob::new("work") };
    let id = job.id;
    subject.store.tracked_jobs().tracked_create(vec![job]).await.expect("created");
    id
}

async fn report(subject: &Subject, job: JobId, report: Report) {
    subject.store.tracked_jobs().tracked_report(vec![(job, report)]).await.expect("kept");
}

async fn close(subject: &Subject, batch: BatchId) {
    assert!(subject.store.batches().batch_close(batch).await.expect("closed"));
}

async fn settle(subject: &Subject, batch: BatchId) -> bool {
    !subject.store.batches().batches_settle(vec![batch]).await.expect("settled").ended.is_empty()
}

fn completed() -> Outcome {
    Outcome::Completed { output: "1".to_owned() }
}

fn failed(message: &str) -> Outcome {
    let mut error = JobError::new(ErrorKind::Permanent, message);
    error.code = Some("no".to_owned());
    Outcome::Failed { error }
}

/// Claims what is there and settles all of it in one call.
async fn run(subject: &Subject, count: usize, outcome: impl Fn(usize) -> Outcome) {
    let session = subject.session().await;
    let claimed = subject.claim(session, count).await;
    assert_eq!(claimed.len(), count);
    let settlements = claimed.iter().enumerate().map(|(n, job)| Settlement::of(job, outcome(n))).collect();
    subject.store.jobs_dispatch(settlements, None).await.expect("settled");
}

fn counts(total: i64, completed: i64, failed: i64, cancelled: i64) -> BatchCounts {
    BatchCounts { total, completed, failed, cancelled, superseded: 0 }
}

fn workflow() -> NewWorkflow {
    workflows::workflow(&[("only", &[])])
}

async fn callbacks_of(subject: &Subject, handler: &str) -> Vec<serde_json::Value> {
    let filter = JobFilter { handler: Some(handler.to_owned()), rows_max: MANY, ..JobFilter::default() };
    let jobs = subject.store.jobs_list(filter).await.expect("listed").jobs;
    jobs.iter().map(|job| serde_json::from_str(&job.input).expect("JSON")).collect()
}

/// The same id with the same words; other words are a conflict.
pub async fn batch_is_created_once(subject: &Subject) {
    let batch = NewBatch {
        namespace: "default".to_owned(),
        metadata: "[1]".to_owned(),
        expected: Some(7),
        on_finish: Some(BatchCallback { input: "{\"n\": 1.50}".to_owned(), ..BatchCallback::new("report") }),
        ..NewBatch::new("import")
    };
    let batches = subject.store.batches();
    let (record, is_new) = batches.batch_create(batch.clone()).await.expect("created");
    assert_eq!((is_new, &record.definition, record.state), (true, &batch, BatchState::Pending));
    assert_eq!((record.counts, record.counts.pending()), (counts(7, 0, 0, 0), 7));
    let (again, is_new) = batches.batch_create(batch.clone()).await.expect("answered");
    assert_eq!((is_new, again), (false, record));
    let other = NewBatch { action: "export".to_owned(), ..batch };
    let refused = batches.batch_create(other).await;
    assert!(matches!(refused, Err(Error::Conflict(_))), "{refused:?}");
    let unknown = batches.batch_get(BatchId::make()).await;
    assert!(matches!(unknown, Err(Error::NotFound { .. })), "{unknown:?}");
}

/// Whatever moves a member, and in whatever company.
pub async fn counts_follow_every_member(subject: &Subject) {
    let (batch, other) =
        (create(subject, NewBatch::new("a")).await, create(subject, NewBatch::new("b")).await);
    let jobs = add(subject, batch, 4).await;
    add(subject, other, 1).await;
    subject.store.jobs_submit(vec![NewJob::new("work", "null")]).await.expect("stored");
    let tracked = track(subject, batch).await;
    assert_eq!(get(subject, batch).await.counts, counts(5, 0, 0, 0));
    assert_eq!(get(subject, batch).await.state, BatchState::Pending);
    subject.store.job_cancel(jobs[3], "no").await.expect("cancelled");
    report(subject, tracked, Report::of(TrackedState::Processing)).await;
    assert_eq!(get(subject, batch).await.counts, counts(5, 0, 0, 1));
    // One call settles members of two batches and of none.
    run(subject, 5, |n| if n == 1 { failed("one") } else { completed() }).await;
    assert_eq!(get(subject, batch).await.counts, counts(5, 2, 1, 1));
    assert_eq!(get(subject, other).await.counts, counts(1, 1, 0, 0));
    report(subject, tracked, Report::of(TrackedState::Completed)).await;
    report(subject, tracked, Report::of(TrackedState::Completed)).await;
    let record = get(subject, batch).await;
    assert_eq!((record.counts, record.counts.pending()), (counts(5, 3, 1, 1), 0));
    assert_eq!(record.state, BatchState::Processing, "it is open");
    assert_eq!(subject.store.job_get(jobs[0]).await.expect("there").batch, Some(batch));
    close(subject, batch).await;
    assert_eq!(get(subject, batch).await.state, BatchState::PartialFailure, "at the commit of the close");
    let again = subject.store.batches().batch_close(batch).await.expect("answered");
    assert!(!again);
}

/// A retry that is to come, a lost lease and an attempt that is handed back are no ends.
pub async fn member_that_goes_on_is_pending(subject: &Subject) {
    let batch = create(subject, NewBatch::new("a")).await;
    let job = NewJob { batch: Some(batch), ..NewJob::new("work", "null") };
    subject.store.jobs_submit(vec![job]).await.expect("stored");
    let session = subject.session().await;
    let claimed = subject.claim_one(session).await;
    let error = JobError::new(ErrorKind::Retryable, "later");
    subject.settle(&claimed, Outcome::Retry { error, after: Duration::ZERO }).await;
    let claimed = subject.claim_one(session).await;
    subject.settle(&claimed, Outcome::Released).await;
    subject.claim_one(session).await;
    assert_eq!(get(subject, batch).await.counts, counts(1, 0, 0, 0));
    subject.advance(Duration::from_mins(1));
    subject.store.sessions_sweep(10).await.expect("swept");
    assert_eq!(get(subject, batch).await.counts, counts(1, 0, 0, 0));
    let session = subject.session().await;
    let claimed = subject.claim_one(session).await;
    subject.settle(&claimed, completed()).await;
    subject.settle(&claimed, completed()).await;
    assert_eq!(get(subject, batch).await.counts, counts(1, 1, 0, 0), "a repeated settlement counts once");
}

/// All of a call or none; but what was stored before is found.
pub async fn closed_batch_takes_no_more(subject: &Subject) {
    let batch = create(subject, NewBatch::new("a")).await;
    let first = member(batch);
    subject.store.jobs_submit(vec![first.clone()]).await.expect("stored");
    close(subject, batch).await;
    let refused = subject.store.jobs_submit(vec![NewJob::new("work", "null"), member(batch)]).await;
    assert!(matches!(&refused, Err(Error::Conflict(message)) if message.contains("closed")), "{refused:?}");
    let again = subject.store.jobs_submit(vec![first]).await.expect("answered");
    assert!(again[0].existed);
    let tracked = NewTrackedJob { batch: Some(batch), ..NewTrackedJob::new("x") };
    let refused = subject.store.tracked_jobs().tracked_create(vec![tracked]).await;
    assert!(matches!(refused, Err(Error::Conflict(_))), "{refused:?}");
    let refused = subject.store.batches().batch_add_workflow(batch, workflow()).await;
    assert!(matches!(refused, Err(Error::Conflict(_))), "{refused:?}");
    let inner = NewBatch { parent: Some(batch), ..NewBatch::new("b") };
    let refused = subject.store.batches().batch_create(inner).await;
    assert!(matches!(refused, Err(Error::Conflict(_))), "{refused:?}");
    assert_eq!(get(subject, batch).await.counts, counts(1, 0, 0, 0));
    let jobs = subject
        .store
        .jobs_list(JobFilter { rows_max: MANY, ..JobFilter::default() })
        .await
        .expect("listed")
        .jobs;
    assert_eq!(jobs.len(), 1);
}

/// With the last one it expects; never one too many.
pub async fn batch_with_a_total_closes_itself(subject: &Subject) {
    let batch = create(subject, NewBatch { expected: Some(3), ..NewBatch::new("a") }).await;
    add(subject, batch, 2).await;
    run(subject, 2, |_| completed()).await;
    let record = get(subject, batch).await;
    assert_eq!((record.counts, record.counts.pending()), (counts(3, 2, 0, 0), 1));
    assert_eq!((record.state, record.closed_at), (BatchState::Processing, None));
    let refused = subject.store.jobs_submit(vec![member(batch), member(batch)]).await;
    assert!(
        matches!(&refused, Err(Error::Conflict(message)) if message.contains("expects 3")),
        "{refused:?}"
    );
    add(subject, batch, 1).await;
    let record = get(subject, batch).await;
    assert_eq!((record.counts, record.closed_at), (counts(3, 2, 0, 0), Some(subject.clock.now())));
    run(subject, 1, |_| completed()).await;
    assert_eq!(get(subject, batch).await.state, BatchState::Completed);
    let early = create(subject, NewBatch { expected: Some(9), ..NewBatch::new("a") }).await;
    add(subject, early, 1).await;
    close(subject, early).await;
    assert_eq!(get(subject, early).await.counts.total, 1, "what was announced will not come");
    let empty = create(subject, NewBatch { expected: Some(0), ..NewBatch::new("a") }).await;
    assert_eq!(get(subject, empty).await.state, BatchState::Completed);
    assert!(settle(subject, empty).await);
    run(subject, 1, |_| completed()).await;
}

/// By several at once; with the batch's id, its counts and the input as it was given.
pub async fn end_of_a_batch_calls_back_once(subject: &Subject) {
    let call =
        |name: &str| Some(BatchCallback { input: "{\"n\": 1.50}".to_owned(), ..BatchCallback::new(name) });
    let batch = create(
        subject,
        NewBatch {
            on_success: call("good"),
            on_finish: call("over"),
            on_first_failure: call("bad"),
            ..NewBatch::new("a")
        },
    )
    .await;
    add(subject, batch, 3).await;
    run(subject, 3, |_| completed()).await;
    assert!(!settle(subject, batch).await, "it is open");
    close(subject, batch).await;
    let second = subject.second().await;
    let mut tasks = Vec::new();
    for n in 0..8 {
        let store = if n % 2 == 0 { Arc::clone(&subject.store) } else { Arc::clone(&second) };
        tasks.push(tokio::spawn(async move { store.batches().batches_settle(vec![batch]).await }));
    }
    let mut ended = 0;
    for task in tasks {
        ended += task.await.expect("no task fails").expect("settled").ended.len();
    }
    assert_eq!(ended, 1);
    for (handler, moment) in [("good", "success"), ("over", "finish")] {
        let made = callbacks_of(subject, handler).await;
        assert_eq!(made.len(), 1, "{handler}");
        assert_eq!((&made[0]["batch"], &made[0]["moment"]), (&batch.to_string().into(), &moment.into()));
        assert_eq!((&made[0]["state"], &made[0]["counts"]["completed"]), (&"completed".into(), &3.into()));
    }
    assert!(callbacks_of(subject, "bad").await.is_empty());
    let record = get(subject, batch).await;
    assert_eq!((record.finished_at, record.failure_job), (Some(subject.clock.now()), None));
    let made = subject.store.job_get(record.success_job.expect("made")).await.expect("there");
    assert!(made.input.contains("\"input\":{\"n\": 1.50}"), "as it was written: {}", made.input);
    second.close().await;
}

/// While others go on, and only for the first.
pub async fn first_failure_calls_back_while_the_batch_goes_on(subject: &Subject) {
    let callback = |name: &str| Some(BatchCallback::new(name));
    let batch = create(
        subject,
        NewBatch { on_first_failure: callback("bad"), on_success: callback("good"), ..NewBatch::new("a") },
    )
    .await;
    add(subject, batch, 3).await;
    run(subject, 1, |_| failed("one")).await;
    assert!(!settle(subject, batch).await, "it has not ended");
    run(subject, 1, |_| failed("two")).await;
    settle(subject, batch).await;
    assert_eq!(callbacks_of(subject, "bad").await.len(), 1);
    assert!(get(subject, batch).await.failure_job.is_some());
    run(subject, 1, |_| completed()).await;
    close(subject, batch).await;
    assert!(settle(subject, batch).await);
    assert_eq!((callbacks_of(subject, "bad").await.len(), callbacks_of(subject, "good").await.len()), (1, 0));
}

/// With or without jobs that are called back, whoever settles, and though the batch ends a second time.
pub async fn moments_of_a_batch_are_events_and_each_is_told_once(subject: &Subject) {
    let batch = create(subject, NewBatch::new("a")).await;
    add(subject, batch, 3).await;
    run(subject, 1, |_| failed("one")).await;
    settle(subject, batch).await;
    settle(subject, batch).await;
    let told = async || {
        let events = subject.store.events().events_list(EventQuery::default(), MANY).await.expect("listed");
        let mut names: Vec<String> = events.iter().map(|event| event.name.clone()).collect();
        names.sort();
        (names, events)
    };
    assert_eq!(told().await.0, ["batch.first_failure"]);
    run(subject, 2, |n| if n == 0 { failed("two") } else { completed() }).await;
    close(subject, batch).await;
    let second = subject.second().await;
    let (left, right) = tokio::join!(
        subject.store.batches().batches_settle(vec![batch]),
        second.batches().batches_settle(vec![batch])
    );
    assert_eq!(left.expect("settled").ended.len() + right.expect("settled").ended.len(), 1);
    let (names, events) = told().await;
    assert_eq!(names, ["batch.finish", "batch.first_failure"]);
    let finish = events.iter().find(|event| event.name == "batch.finish").expect("told");
    let data: serde_json::Value = serde_json::from_str(&finish.data).expect("JSON");
    assert_eq!((&data["batch"], &data["state"]), (&batch.to_string().into(), &"partial_failure".into()));
    assert_eq!((&data["counts"]["failed"], &data["counts"]["completed"]), (&2.into(), &1.into()));
    // It goes on, and ends well after all.
    let word = Word::new("ada", "once more");
    subject.store.batches().batch_retry(batch, word, None, MANY).await.expect("retried");
    run(subject, 2, |_| completed()).await;
    assert!(settle(subject, batch).await);
    assert_eq!(told().await.0, ["batch.finish", "batch.first_failure", "batch.success"]);
    second.close().await;
}

/// Of every kind, in the order of their ids, page by page.
pub async fn failed_members_are_listed_with_their_errors(subject: &Subject) {
    let batch = create(subject, NewBatch::new("a")).await;
    add(subject, batch, 2).await;
    run(subject, 2, |n| if n == 0 { failed("no such file") } else { completed() }).await;
    let tracked = track(subject, batch).await;
    let why = Report { message: Some("quota".to_owned()), ..Report::of(TrackedState::Failed) };
    report(subject, tracked, why).await;
    let workflow = workflow();
    let batches = subject.store.batches();
    assert!(batches.batch_add_workflow(batch, workflow.clone()).await.expect("added"));
    assert!(!batches.batch_add_workflow(batch, workflow.clone()).await.expect("answered"), "only once");
    run(subject, 1, |_| failed("step")).await;
    assert_eq!(subject.store.workflow_get(workflow.id).await.expect("there").state, WorkflowState::Failed);
    assert_eq!(get(subject, batch).await.counts, counts(4, 1, 3, 0));
    let failed = batches.batch_members(batch, true, None, MANY).await.expect("listed");
    let mut said: Vec<(MemberKind, Option<&str>)> =
        failed.iter().map(|member| (member.kind, member.message.as_deref())).collect();
    said.sort_by_key(|(kind, _)| kind.as_str());
    let expected = [
        (MemberKind::Job, Some("no such file")),
        (MemberKind::Tracked, Some("quota")),
        (MemberKind::Workflow, None),
    ];
    assert_eq!(said, expected);
    assert!(failed.iter().any(|member| member.code.as_deref() == Some("no")));
    let first = batches.batch_members(batch, false, None, 3).await.expect("listed");
    let rest = batches.batch_members(batch, false, Some(first[2].id), 3).await.expect("listed");
    assert_eq!((first.len(), rest.len()), (3, 1));
    let unknown = batches.batch_members(BatchId::make(), false, None, 1).await;
    assert!(matches!(unknown, Err(Error::NotFound { .. })), "{unknown:?}");
}

/// A batch within a batch is one of its members; one that failed in part has failed.
pub async fn end_of_an_inner_batch_counts_in_the_outer_one(subject: &Subject) {
    let outer =
        create(subject, NewBatch { on_finish: Some(BatchCallback::new("over")), ..NewBatch::new("a") }).await;
    let inner = |action: &str| NewBatch { parent: Some(outer), ..NewBatch::new(action) };
    let (good, bad) = (create(subject, inner("good")).await, create(subject, inner("bad")).await);
    close(subject, outer).await;
    add(subject, good, 1).await;
    run(subject, 1, |_| completed()).await;
    add(subject, bad, 2).await;
    run(subject, 2, |n| if n == 0 { failed("one") } else { completed() }).await;
    for inner in [good, bad] {
        close(subject, inner).await;
        assert!(!get(subject, outer).await.state.has_ended());
        assert!(settle(subject, inner).await);
    }
    let record = get(subject, outer).await;
    assert_eq!((record.counts, record.state), (counts(2, 1, 1, 0), BatchState::PartialFailure));
    assert!(settle(subject, outer).await);
    assert_eq!(callbacks_of(subject, "over").await.len(), 1);
    let filter = BatchFilter { parent: Some(outer), rows_max: 9, ..BatchFilter::default() };
    let listed = subject.store.batches().batches_list(filter).await.expect("listed");
    assert_eq!(listed.iter().map(|one| one.definition.id).collect::<Vec<_>>(), [bad, good]);
}

/// Jobs, jobs of others, workflows and inner batches; a running job's worker loses it.
pub async fn cancelled_batch_calls_off_its_members(subject: &Subject) {
    let batch = create(subject, NewBatch::new("a")).await;
    let inner = create(subject, NewBatch { parent: Some(batch), ..NewBatch::new("b") }).await;
    let done = add(subject, batch, 1).await[0];
    run(subject, 1, |_| completed()).await;
    let jobs = [add(subject, batch, 2).await, add(subject, inner, 2).await].concat();
    let tracked = track(subject, inner).await;
    let workflow = workflow();
    subject.store.batches().batch_add_workflow(batch, workflow.clone()).await.expect("added");
    let session = subject.session().await;
    let running = subject.claim(session, 1).await.remove(0);
    let batches = subject.store.batches();
    let mut calls = 0;
    while batches.batch_cancel(batch, "wrong file", 2).await.expect("cancelled") > 0 {
        calls += 1;
    }
    assert_eq!(calls, 3, "no more than asked for at once");
    for job in jobs {
        assert_eq!(subject.store.job_get(job).await.expect("there").state, JobState::Cancelled);
    }
    assert_eq!(subject.store.job_get(done).await.expect("there").state, JobState::Completed);
    let standing = subject.store.tracked_jobs().tracked_get(tracked).await.expect("there");
    assert_eq!(standing.course.message.as_deref(), Some("wrong file"));
    assert_eq!(subject.store.workflow_get(workflow.id).await.expect("there").state, WorkflowState::Cancelled);
    assert!(matches!(subject.settle(&running, completed()).await, crate::Settled::Refused(_)));
    assert!(settle(subject, inner).await);
    let record = get(subject, batch).await;
    assert_eq!(record.cancelled.as_ref().map(|(_, reason)| reason.as_str()), Some("wrong file"));
    assert_eq!((record.counts, record.state), (counts(5, 1, 1, 3), BatchState::PartialFailure));
    let refused = subject.store.jobs_submit(vec![member(batch)]).await;
    assert!(matches!(refused, Err(Error::Conflict(_))), "{refused:?}");
    assert!(settle(subject, batch).await);
    assert_eq!(batches.batch_cancel(batch, "again", 9).await.expect("answered"), 0);
    let refused = batches.batch_retry(batch, Word::new("me", "why not"), None, 9).await;
    assert!(matches!(refused, Err(Error::Conflict(_))), "{refused:?}");
}

/// With its outer batch; success is called back when it comes, the end only the first time.
pub async fn retried_batch_goes_on(subject: &Subject) {
    let callback = |name: &str| Some(BatchCallback::new(name));
    let outer = create(subject, NewBatch { on_finish: callback("all over"), ..NewBatch::new("o") }).await;
    let batch = create(
        subject,
        NewBatch {
            parent: Some(outer),
            on_success: callback("good"),
            on_finish: callback("over"),
            ..NewBatch::new("a")
        },
    )
    .await;
    close(subject, outer).await;
    add(subject, batch, 3).await;
    close(subject, batch).await;
    run(subject, 3, |n| if n == 0 { completed() } else { failed("one") }).await;
    assert!(settle(subject, batch).await && settle(subject, outer).await);
    assert_eq!(get(subject, outer).await.state, BatchState::Failed);
    let batches = subject.store.batches();
    let word = || Word::new("ops", "the disk is back");
    let first = batches.batch_retry(outer, word(), None, 1).await.expect("retried");
    let rest = batches.batch_retry(outer, word(), first.last, 9).await.expect("retried");
    assert_eq!((first.changed, rest.changed), (1, 1));
    for (batch, counts) in [(batch, counts(3, 1, 0, 0)), (outer, counts(1, 0, 0, 0))] {
        let record = get(subject, batch).await;
        assert_eq!((record.counts, record.finished_at), (counts, None));
    }
    run(subject, 2, |_| completed()).await;
    assert_eq!(get(subject, batch).await.state, BatchState::Completed);
    assert!(settle(subject, batch).await && settle(subject, outer).await);
    assert_eq!(get(subject, outer).await.state, BatchState::Completed);
    for handler in ["good", "over", "all over"] {
        assert_eq!(callbacks_of(subject, handler).await.len(), 1, "{handler}");
    }
}

/// Found by whoever looks, after whoever should have died.
pub async fn batch_that_waits_for_somebody_is_found(subject: &Subject) {
    let (ended, open, cancelled, failing) = (
        create(subject, NewBatch::new("ended")).await,
        create(subject, NewBatch::new("open")).await,
        create(subject, NewBatch::new("cancelled")).await,
        create(subject, NewBatch { on_first_failure: Some(BatchCallback::new("bad")), ..NewBatch::new("f") })
            .await,
    );
    add(subject, failing, 2).await;
    run(subject, 1, |_| failed("one")).await;
    add(subject, open, 1).await;
    add(subject, cancelled, 2).await;
    close(subject, ended).await;
    let batches = subject.store.batches();
    assert_eq!(batches.batch_cancel(cancelled, "no", 1).await.expect("cancelled"), 1);
    // One at a time: those that wait for nobody must not hide the others.
    let due = batches.batches_due(1).await.expect("looked");
    assert_eq!(due, [BatchDue::Settle(ended)]);
    let due = batches.batches_due(MANY).await.expect("looked");
    assert_eq!(due, [BatchDue::Settle(ended), BatchDue::Cancel(cancelled), BatchDue::Settle(failing)]);
    for batch in [ended, failing] {
        settle(subject, batch).await;
    }
    while batches.batch_cancel(cancelled, "no", 1).await.expect("cancelled") > 0 {}
    settle(subject, cancelled).await;
    assert_eq!(batches.batches_due(MANY).await.expect("looked"), []);
}

/// Over two processes, with everybody looking on: at every commit the sum is the total.
pub async fn concurrent_writers_are_counted_exactly(subject: &Subject) {
    // With `RECACHE_LONG` 100,800 members by 64 writers.
    let is_long = std::env::var_os("RECACHE_LONG").is_some();
    let (writers_max, rounds_max, each) = if is_long { (64, 105, 15) } else { (16, 6, 5) };
    let batch =
        create(subject, NewBatch { on_finish: Some(BatchCallback::new("over")), ..NewBatch::new("a") }).await;
    let second = subject.second().await;
    let is_over = Arc::new(AtomicBool::new(false));
    let looking = tokio::spawn(look_on(Arc::clone(&second), batch, each, Arc::clone(&is_over)));
    let mut writers = Vec::new();
    for n in 0..writers_max {
        let store = if n % 2 == 0 { Arc::clone(&subject.store) } else { Arc::clone(&second) };
        writers.push(tokio::spawn(async move {
            for round in 0..rounds_max {
                let new = || NewTrackedJob { batch: Some(batch), ..NewTrackedJob::new("x") };
                let jobs: Vec<NewTrackedJob> = (0..each).map(|_| new()).collect();
                let ids: Vec<JobId> = jobs.iter().map(|job| job.id).collect();
                store.tracked_jobs().tracked_create(jobs).await.expect("created");
                let states = [TrackedState::Completed, TrackedState::Failed, TrackedState::Cancelled];
                let state = |place: usize| states[(n + round + place) % states.len()];
                let reports = ids.iter().enumerate().map(|(place, id)| (*id, Report::of(state(place))));
                store.tracked_jobs().tracked_report(reports.collect()).await.expect("kept");
                store.batches().batches_settle(vec![batch]).await.expect("settled");
            }
        }));
    }
    for writer in writers {
        writer.await.expect("no writer fails");
    }
    close(subject, batch).await;
    settle(subject, batch).await;
    is_over.store(true, Ordering::SeqCst);
    assert!(looking.await.expect("no look fails") > 0);
    let record = get(subject, batch).await;
    let total = i64::try_from(writers_max * rounds_max * each).expect("small");
    assert_eq!((record.counts.total, record.counts.pending()), (total, 0));
    assert_eq!(
        (record.counts.completed, record.counts.failed, record.counts.cancelled),
        (total / 3, total / 3, total / 3)
    );
    assert_eq!(callbacks_of(subject, "over").await.len(), 1);
    second.close().await;
}

async fn look_on(store: Arc<dyn Store>, batch: BatchId, each: usize, is_over: Arc<AtomicBool>) -> usize {
    let each = i64::try_from(each).expect("small");
    let mut looks = 0;
    let mut ended = 0;
    while !is_over.load(Ordering::SeqCst) {
        let counts = store.batches().batch_get(batch).await.expect("there").counts;
        let sum = counts.completed + counts.failed + counts.cancelled + counts.superseded + counts.pending();
        assert_eq!(sum, counts.total);
        assert!(counts.pending() >= 0 && counts.ended() >= ended, "{counts:?} after {ended}");
        assert_eq!(counts.ended() % each, 0, "half a call is never seen: {counts:?}");
        ended = counts.ended();
        looks += 1;
        let compared = store.batches().batches_compare(None, 10).await.expect("compared");
        assert!(compared.differences.is_empty(), "{:?}", compared.differences);
    }
    looks
}

/// A wrong count is found, and nothing is mended that nobody understands.
pub async fn counts_of_batches_are_compared_with_their_members(subject: &Subject) {
    let batch = create(subject, NewBatch::new("a")).await;
    add(subject, batch, 3).await;
    run(subject, 2, |n| if n == 0 { failed("one") } else { completed() }).await;
    let batches = subject.store.batches();
    let compared = batches.batches_compare(None, 10).await.expect("compared");
    assert_eq!((compared.batches, compared.last, compared.differences.len()), (1, Some(batch), 0));
    subject.tamper("UPDATE batch_counts SET failed = failed + 1 WHERE added > 0").await;
    let found = batches.batches_compare(None, 10).await.expect("compared").differences;
    assert_eq!((found[0].batch, found[0].kept.failed, found[0].counted.failed), (batch, 2, 1));
    subject.tamper("UPDATE batch_counts SET failed = failed - 1 WHERE added > 0").await;
    assert_eq!(batches.batches_compare(Some(batch), 10).await.expect("compared").batches, 0);
}

/// Members stay until their batch has ended, the batch until its members are gone.
pub async fn ended_batch_is_removed_after_its_members(subject: &Subject) {
    let batch = create(subject, NewBatch::new("a")).await;
    add(subject, batch, 1).await;
    run(subject, 1, |_| completed()).await;
    let tracked = track(subject, batch).await;
    report(subject, tracked, Report::of(TrackedState::Completed)).await;
    subject.advance(Duration::from_mins(1));
    let lead = lead(subject).await;
    let remove_members = async || {
        let store = subject.store.maintenance();
        let jobs = store.jobs_remove(&lead, JobState::Completed, Duration::ZERO, 9).await.expect("removed");
        let store = subject.store.tracked_jobs();
        jobs + store.tracked_remove(&lead, TrackedState::Completed, Duration::ZERO, 9).await.expect("removed")
    };
    assert_eq!(remove_members().await, 0, "the batch has not ended");
    close(subject, batch).await;
    assert!(settle(subject, batch).await);
    let batches = subject.store.batches();
    let remove = async |keep| batches.batches_remove(&lead, keep, 9).await.expect("removed");
    assert_eq!(remove(Duration::ZERO).await, 0, "its members are there");
    assert_eq!(remove_members().await, 2);
    assert_eq!(remove(Duration::from_mins(1)).await, 0, "not yet");
    assert_eq!(remove(Duration::ZERO).await, 1);
    assert!(matches!(batches.batch_get(batch).await, Err(Error::NotFound { .. })));
}

/// With every reason, and nothing stored.
pub async fn batch_that_cannot_be_is_refused(subject: &Subject) {
    let batches = subject.store.batches();
    let bad = NewBatch {
        namespace: String::new(),
        metadata: "{".to_owned(),
        on_success: Some(BatchCallback {
            input: "[".to_owned(),
            queue: String::new(),
            ..BatchCallback::new("")
        }),
        ..NewBatch::new("")
    };
    let refused = batches.batch_create(bad).await;
    let Err(Error::Invalid(message)) = &refused else { panic!("{refused:?}") };
    for word in ["namespace", "action", "metadata", "callback handler", "callback queue", "callback input"] {
        assert!(message.contains(word), "{word} is not in {message}");
    }
    let orphan = NewBatch { parent: Some(BatchId::make()), ..NewBatch::new("a") };
    assert!(matches!(batches.batch_create(orphan).await, Err(Error::NotFound { .. })));
    let refused = subject.store.jobs_submit(vec![member(BatchId::make())]).await;
    assert!(matches!(refused, Err(Error::NotFound { .. })), "{refused:?}");
    let other = create(subject, NewBatch { namespace: "other".to_owned(), ..NewBatch::new("a") }).await;
    let refused = subject.store.jobs_submit(vec![member(other)]).await;
    assert!(matches!(refused, Err(Error::Invalid(_))), "{refused:?}");
    let mut parent = None;
    for _ in 0..NESTING_MAX {
        parent = Some(create(subject, NewBatch { parent, ..NewBatch::new("a") }).await);
    }
    let refused = batches.batch_create(NewBatch { parent, ..NewBatch::new("a") }).await;
    assert!(matches!(refused, Err(Error::Invalid(_))), "{refused:?}");
    assert!(matches!(batches.batch_cancel(BatchId::make(), "x", 1).await, Err(Error::NotFound { .. })));
    assert!(matches!(batches.batch_close(BatchId::make()).await, Err(Error::NotFound { .. })));
}
