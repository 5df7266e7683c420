//! Cases: jobs that some other system runs.

use std::sync::Arc;
use std::time::Duration;

use recache_model::ids::JobId;
use recache_model::time::Clock as _;
use recache_model::tracked::{Report, STALE, STALE_AFTER_MAX, TrackedState};

use super::{Subject, maintenance::lead};
use crate::tracked::STALE_GRACE;
use crate::{Error, JobFilter, NewTrackedJob, Tracked, TrackedContext, TrackedFilter, TrackedJob};

const MINUTE: Duration = Duration::from_mins(1);
/// Longer than any grace: the database was never away.
const ALWAYS: Duration = Duration::from_hours(1_000);

fn context(field: Option<&str>) -> TrackedContext {
    TrackedContext { kind: "product".to_owned(), id: "42".to_owned(), field: field.map(str::to_owned) }
}

async fn create(subject: &Subject, job: NewTrackedJob) -> Tracked {
    subject.store.tracked_jobs().tracked_create(vec![job]).await.expect("created").remove(0)
}

async fn made(subject: &Subject) -> JobId {
    create(subject, NewTrackedJob::new("translate")).await.job.definition.id
}

async fn report(subject: &Subject, job: JobId, report: Report) -> Tracked {
    subject.store.tracked_jobs().tracked_report(vec![(job, report)]).await.expect("kept").remove(0)
}

async fn get(subject: &Subject, job: JobId) -> TrackedJob {
    subject.store.tracked_jobs().tracked_get(job).await.expect("there")
}

/// With all that was said; the same id for something else is a conflict, and then nothing of the call is stored.
pub async fn tracked_job_is_created_once(subject: &Subject) {
    let new = NewTrackedJob {
        namespace: "shop".to_owned(),
        context: Some(context(Some("description"))),
        owner: Some("worker-7".to_owned()),
        metadata: "{\"who\": \"ä\"}".to_owned(),
        stale_after: MINUTE,
        ..NewTrackedJob::new("translate")
    };
    let first = create(subject, new.clone()).await;
    assert_eq!((first.changed, &first.job.definition), (true, &new));
    let now = subject.clock.now();
    assert_eq!((first.job.course.state, first.job.revision), (TrackedState::Queued, 1));
    assert_eq!((first.job.created_at, first.job.stale_at), (now, Some(now.plus(MINUTE))));
    report(subject, new.id, Report::of(TrackedState::Processing)).await;
    let again = create(subject, new.clone()).await;
    assert_eq!((again.changed, again.job.course.state), (false, TrackedState::Processing));
    let other = NewTrackedJob { action: "delete".to_owned(), ..new };
    let fresh = NewTrackedJob::new("translate");
    let refused = subject.store.tracked_jobs().tracked_create(vec![fresh.clone(), other]).await;
    assert!(matches!(refused, Err(Error::Conflict(_))), "{refused:?}");
    let missing = subject.store.tracked_jobs().tracked_get(fresh.id).await;
    assert!(matches!(missing, Err(Error::NotFound { .. })), "all or none");
}

/// State, message, data, progress with totals, and the times of its life.
pub async fn tracked_job_moves_forward_as_its_owner_reports(subject: &Subject) {
    let job = made(subject).await;
    let created = subject.clock.now();
    subject.advance(MINUTE);
    let begun = subject.clock.now();
    let half = Report {
        state: Some(TrackedState::Processing),
        message: Some("page 5".to_owned()),
        items_done: Some(5),
        items_total: Some(10),
        ..Report::default()
    };
    let told = report(subject, job, half).await;
    assert!(told.changed);
    assert_eq!((told.job.course.progress, told.job.course.items_total), (Some(0.5), Some(10)));
    subject.advance(MINUTE);
    let data = Report { data: Some("[1, 2]".to_owned()), ..Report::of(TrackedState::Completed) };
    report(subject, job, data).await;
    let standing = get(subject, job).await;
    assert_eq!((standing.created_at, standing.started_at), (created, Some(begun)));
    assert_eq!((standing.finished_at, standing.stale_at), (Some(subject.clock.now()), None));
    assert_eq!(standing.course.state, TrackedState::Completed);
    assert_eq!(standing.course.data.as_deref(), Some("[1, 2]"));
    assert_eq!((standing.course.message.as_deref(), standing.revision), (Some("page 5"), 3));
    let failed = made(subject).await;
    let code = Report { code: Some("quota".to_owned()), ..Report::of(TrackedState::Failed) };
    report(subject, failed, code).await;
    let standing = get(subject, failed).await;
    assert_eq!((standing.course.code.as_deref(), standing.started_at), (Some("quota"), None));
}

/// To the last column.
pub async fn late_or_repeated_report_is_answered_with_what_stands(subject: &Subject) {
    let job = made(subject).await;
    let first = Report { message: Some("on it".to_owned()), ..Report::of(TrackedState::Processing) };
    report(subject, job, first.clone()).await;
    report(subject, job, Report::progress(0.7)).await;
    subject.advance(Duration::from_secs(5));
    let before = get(subject, job).await;
    for late in [first, Report::progress(0.7), Report::progress(0.3), Report::of(TrackedState::Queued)] {
        let answer = report(subject, job, late).await;
        assert_eq!(answer, Tracked { job: before.clone(), changed: false });
    }
    report(subject, job, Report::of(TrackedState::Cancelled)).await;
    let before = get(subject, job).await;
    for late in [TrackedState::Completed, TrackedState::Failed, TrackedState::Processing] {
        assert_eq!(
            report(subject, job, Report::of(late)).await,
            Tracked { job: before.clone(), changed: false }
        );
    }
    let beaten = subject.store.tracked_jobs().tracked_heartbeat(job).await.expect("answered");
    assert_eq!(beaten, before, "its owner learns that it was cancelled");
    assert_eq!(get(subject, job).await, before);
}

/// Never a silent no-op; and the known jobs of the same call stay as they were.
pub async fn report_for_an_unknown_job_is_an_error_and_changes_nothing(subject: &Subject) {
    let known = made(subject).await;
    let before = get(subject, known).await;
    let unknown = JobId::make();
    let tracked = subject.store.tracked_jobs();
    let report = |job| (job, Report::of(TrackedState::Completed));
    let refused = tracked.tracked_report(vec![report(known), report(unknown)]).await;
    assert!(matches!(&refused, Err(Error::NotFound { id, .. }) if *id == unknown.to_string()), "{refused:?}");
    for refused in [
        tracked.tracked_heartbeat(unknown).await.map(drop),
        tracked.tracked_acknowledge(unknown, "me").await.map(drop),
        tracked.tracked_get(unknown).await.map(drop),
    ] {
        assert!(matches!(refused, Err(Error::NotFound { .. })), "{refused:?}");
    }
    assert_eq!(get(subject, known).await, before);
}

/// From two processes; each is told what stands.
pub async fn concurrent_reports_end_a_job_once(subject: &Subject) {
    let job = made(subject).await;
    let second = subject.second().await;
    let mut tasks = Vec::new();
    for n in 0..16 {
        let store = if n % 2 == 0 { Arc::clone(&subject.store) } else { Arc::clone(&second) };
        let state = if n % 3 == 0 { TrackedState::Completed } else { TrackedState::Failed };
        tasks.push(tokio::spawn(async move {
            store.tracked_jobs().tracked_report(vec![(job, Report::of(state))]).await
        }));
    }
    let mut changed = 0;
    let mut states = std::collections::HashSet::new();
    for task in tasks {
        let answer = task.await.expect("no task fails").expect("answered").remove(0);
        changed += i32::from(answer.changed);
        states.insert(answer.job.course.state);
    }
    assert_eq!((changed, states.len(), get(subject, job).await.revision), (1, 1, 2));
    second.close().await;
}

/// Heard of by report or heartbeat it lives on; in silence it fails, whether it had begun or not, and a late word does not
/// bring it back.
pub async fn silent_job_fails_and_says_why(subject: &Subject) {
    let new = |action: &str| NewTrackedJob { stale_after: MINUTE, ..NewTrackedJob::new(action) };
    let silent = create(subject, new("silent")).await.job.definition.id;
    let beating = create(subject, new("beating")).await.job.definition.id;
    let done = create(subject, new("done")).await.job.definition.id;
    report(subject, done, Report::of(TrackedState::Completed)).await;
    let tracked = subject.store.tracked_jobs();
    let lead = lead(subject).await;
    subject.advance(Duration::from_secs(59));
    assert_eq!(tracked.tracked_fail_stale(&lead, ALWAYS, 10).await.expect("looked"), 0);
    let beaten = tracked.tracked_heartbeat(beating).await.expect("answered");
    assert_eq!((beaten.revision, beaten.heard_at), (1, subject.clock.now()));
    subject.advance(Duration::from_secs(1));
    assert_eq!(tracked.tracked_fail_stale(&lead, ALWAYS, 10).await.expect("looked"), 1);
    let failed = get(subject, silent).await;
    assert_eq!((failed.course.state, failed.course.code.as_deref()), (TrackedState::Failed, Some(STALE)));
    assert!(failed.course.message.is_some_and(|message| message.contains("60000 ms")));
    assert_eq!((failed.finished_at, failed.stale_at), (Some(subject.clock.now()), None));
    assert!(!report(subject, silent, Report::of(TrackedState::Completed)).await.changed);
    assert_eq!(get(subject, beating).await.course.state, TrackedState::Queued);
    assert_eq!(get(subject, done).await.course.state, TrackedState::Completed);
    let former = crate::Leadership { token: lead.token - 1, ..lead };
    let refused = tracked.tracked_fail_stale(&former, ALWAYS, 10).await;
    assert!(matches!(refused, Err(Error::Conflict(_))), "{refused:?}");
}

/// Owners could not be heard while the database was away.
pub async fn jobs_are_not_given_up_for_an_outage_of_the_database(subject: &Subject) {
    let new = |stale_after| NewTrackedJob { stale_after, ..NewTrackedJob::new("work") };
    let short = create(subject, new(Duration::from_secs(10))).await.job.definition.id;
    let long = create(subject, new(MINUTE * 60)).await.job.definition.id;
    subject.advance(MINUTE * 120);
    let tracked = subject.store.tracked_jobs();
    let lead = lead(subject).await;
    for (up_for, failed) in [(Duration::from_secs(9), 0), (Duration::from_secs(10), 1), (STALE_GRACE, 1)] {
        assert_eq!(
            tracked.tracked_fail_stale(&lead, up_for, 10).await.expect("looked"),
            failed,
            "{up_for:?}"
        );
    }
    for job in [short, long] {
        assert_eq!(get(subject, job).await.course.state, TrackedState::Failed);
    }
}

/// The first word stands; before the end there is nothing to take note of.
pub async fn end_of_a_job_is_acknowledged_once(subject: &Subject) {
    let job = made(subject).await;
    let tracked = subject.store.tracked_jobs();
    let early = tracked.tracked_acknowledge(job, "ann").await;
    assert!(matches!(early, Err(Error::Conflict(_))), "{early:?}");
    report(subject, job, Report::of(TrackedState::Failed)).await;
    let noted = tracked.tracked_acknowledge(job, "ann").await.expect("noted");
    assert_eq!(
        (noted.changed, noted.job.acknowledged.clone()),
        (true, Some((subject.clock.now(), "ann".to_owned())))
    );
    subject.advance(MINUTE);
    let again = tracked.tracked_acknowledge(job, "bob").await.expect("answered");
    assert_eq!(again, Tracked { job: noted.job, changed: false });
    assert_eq!(get(subject, job).await, again.job);
    let filter = TrackedFilter { unacknowledged: true, rows_max: 9, ..TrackedFilter::default() };
    assert_eq!(tracked.tracked_list(filter).await.expect("listed").len(), 0);
}

/// Of one field or of all; newest first, page by page; of one namespace only.
pub async fn tracked_jobs_are_found_by_context(subject: &Subject) {
    let new = |namespace: &str, context: Option<TrackedContext>, owner: &str| NewTrackedJob {
        namespace: namespace.to_owned(),
        context,
        owner: Some(owner.to_owned()),
        ..NewTrackedJob::new("translate")
    };
    let mut ids = Vec::new();
    for job in [
        new("a", Some(context(Some("title"))), "x"),
        new("a", Some(context(None)), "y"),
        new("b", Some(context(Some("title"))), "x"),
        new("a", None, "x"),
        new("a", Some(TrackedContext { id: "43".to_owned(), ..context(None) }), "x"),
        new("a", Some(context(Some("title"))), "x"),
    ] {
        ids.push(create(subject, job).await.job.definition.id);
    }
    let tracked = subject.store.tracked_jobs();
    let found = async |filter: TrackedFilter| -> Vec<usize> {
        let listed = tracked.tracked_list(filter).await.expect("listed");
        listed.iter().filter_map(|job| ids.iter().position(|id| *id == job.definition.id)).collect()
    };
    let about = |field| TrackedFilter {
        namespace: Some("a".to_owned()),
        context: Some(context(field)),
        rows_max: 10,
        ..TrackedFilter::default()
    };
    assert_eq!(found(about(None)).await, [5, 1, 0]);
    assert_eq!(found(about(Some("title"))).await, [5, 0]);
    assert_eq!(found(TrackedFilter { rows_max: 1, ..about(None) }).await, [5]);
    assert_eq!(found(TrackedFilter { before: Some(ids[5]), ..about(None) }).await, [1, 0]);
    assert_eq!(found(TrackedFilter { owner: Some("y".to_owned()), ..about(None) }).await, [1]);
    let all = TrackedFilter { rows_max: 10, ..TrackedFilter::default() };
    assert_eq!(found(all.clone()).await, [5, 4, 3, 2, 1, 0]);
    assert_eq!(found(TrackedFilter { namespace: Some("b".to_owned()), ..all.clone() }).await, [2]);
    report(subject, ids[3], Report::of(TrackedState::Failed)).await;
    assert_eq!(found(TrackedFilter { state: Some(TrackedState::Failed), ..all.clone() }).await, [3]);
    assert_eq!(found(TrackedFilter { action: Some("other".to_owned()), ..all }).await, [0_usize; 0]);
    let nowhere = tracked.tracked_list(TrackedFilter { namespace: None, ..about(None) }).await;
    assert!(matches!(nowhere, Err(Error::Invalid(_))), "{nowhere:?}");
}

/// With every reason.
pub async fn tracked_job_that_cannot_be_is_refused(subject: &Subject) {
    let bad = NewTrackedJob {
        namespace: String::new(),
        action: "x".repeat(257),
        context: Some(TrackedContext { kind: String::new(), ..context(Some("a\0b")) }),
        owner: Some(String::new()),
        metadata: "{".to_owned(),
        stale_after: STALE_AFTER_MAX + MINUTE,
        ..NewTrackedJob::new("")
    };
    let tracked = subject.store.tracked_jobs();
    let refused = tracked.tracked_create(vec![bad]).await;
    let Err(Error::Invalid(message)) = &refused else { panic!("{refused:?}") };
    for word in ["namespace", "action", "context type", "context field", "owner", "metadata", "stale_after"] {
        assert!(message.contains(word), "{word} is not in {message}");
    }
    let job = made(subject).await;
    let refused = tracked.tracked_report(vec![(job, Report::progress(1.5))]).await;
    assert!(matches!(refused, Err(Error::Invalid(_))), "{refused:?}");
    let refused = tracked.tracked_acknowledge(job, "").await;
    assert!(matches!(refused, Err(Error::Invalid(_))), "{refused:?}");
    assert_eq!(get(subject, job).await.revision, 1);
}

/// It is in no queue and in no list of jobs.
pub async fn no_worker_gets_a_tracked_job(subject: &Subject) {
    create(subject, NewTrackedJob::new("work")).await;
    let session = subject.session().await;
    assert!(subject.claim(session, 5).await.is_empty());
    let jobs = subject
        .store
        .jobs_list(JobFilter { rows_max: 5, ..JobFilter::default() })
        .await
        .expect("listed")
        .jobs;
    assert!(jobs.is_empty());
}

/// By state; what goes on stays.
pub async fn ended_tracked_jobs_are_removed_when_their_time_is_over(subject: &Subject) {
    let mut jobs = Vec::new();
    for state in
        [TrackedState::Completed, TrackedState::Completed, TrackedState::Failed, TrackedState::Processing]
    {
        let job = made(subject).await;
        report(subject, job, Report::of(state)).await;
        jobs.push(job);
    }
    let tracked = subject.store.tracked_jobs();
    let lead = lead(subject).await;
    let remove = async |state, keep| tracked.tracked_remove(&lead, state, keep, 1).await.expect("removed");
    assert_eq!(remove(TrackedState::Completed, MINUTE).await, 0);
    subject.advance(MINUTE);
    assert_eq!(remove(TrackedState::Completed, MINUTE).await, 1, "no more than asked for");
    assert_eq!(remove(TrackedState::Completed, MINUTE).await, 1);
    assert_eq!(remove(TrackedState::Completed, MINUTE).await, 0);
    assert_eq!(remove(TrackedState::Processing, Duration::ZERO).await, 0);
    assert_eq!(get(subject, jobs[2]).await.course.state, TrackedState::Failed);
    assert!(matches!(tracked.tracked_get(jobs[0]).await, Err(Error::NotFound { .. })));
}
