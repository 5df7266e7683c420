//! The shape of every document, pinned: a change of one of these snapshots is a change of the wire contract.
#![allow(clippy::unwrap_used, missing_docs, reason = "a test says what it expects")]

use std::fmt::Debug;

use recache_api::{
    Backoff, BulkChange, Check, CheckStatus, Diagnosis, ErrorKind, FailedAttempt, FieldProblem, Generation,
    Instant, Job, JobAttempt, JobChange, JobDetails, JobError, JobHistoryRow, JobList, JobLogLine, JobState,
    JobSubmitted, Json, Letter, LetterDetails, LetterList, LetterNote, LetterStatus, Limit, LimitList,
    Migration, OnTouch, Problem, Queue, QueueAnswer, QueueList, QueuePause, RetryPolicy, Schedule,
    ScheduleAnswer, ScheduleList, Ticks, Touched, View, ViewDetails, ViewItem, ViewItems, ViewPolicy,
    ViewStatus, ViewValue,
};
use serde::Serialize;
use serde::de::DeserializeOwned;

/// As it is printed; and what is printed is read back as the same document.
fn printed<T: Serialize + DeserializeOwned + PartialEq + Debug>(document: &T) -> String {
    let text = serde_json::to_string_pretty(document).unwrap();
    assert_eq!(&serde_json::from_str::<T>(&text).unwrap(), document);
    text
}

fn at(seconds: i64) -> Instant {
    Instant::from_micros(1_700_000_000_000_000 + seconds * 1_000_000).unwrap()
}

fn text(text: &str) -> String {
    text.to_owned()
}

fn error() -> JobError {
    JobError {
        kind: ErrorKind::LeaseLost,
        code: Some(text("http_503")),
        message: text("gone"),
        retry_after_ms: Some(1500),
    }
}

fn job() -> Job {
    Job {
        id: text("job_1"),
        namespace: text("default"),
        queue: text("mail"),
        handler: text("send_mail"),
        state: JobState::Running,
        priority: -3,
        attempt: 2,
        attempts_max: 5,
        timeout_ms: Some(90_000),
        created_at: at(0),
        due_at: at(1),
        started_at: Some(at(2)),
        finished_at: None,
        progress: Some(0.25),
        message: Some(text("page 1")),
        error: Some(error()),
        input: Json::from_text("{\"n\": 10.50}").unwrap(),
        output: None,
        session_id: Some(text("ses_1")),
        workflow_id: Some(text("wf_1")),
        step: Some(text("send")),
        batch_id: Some(text("batch_1")),
        view_id: Some(text("view_1")),
        view_version: Some(7),
        superseded_by: None,
        correlation_id: text("order-7"),
        trace_context: Some(text("00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01")),
        concurrency_key: Some(text("customer-42")),
    }
}

fn view() -> View {
    View {
        id: text("view_1"),
        namespace: text("shop"),
        key: text("prices"),
        recache_status: ViewStatus::Processing,
        recache_version: 8,
        processing_version: Some(8),
        live_version: 7,
        staleness_ms: 1200,
        dirty_since: Some(at(3)),
        touched_at: Some(at(4)),
        touched_by: None,
        touch_reason: None,
        pause: None,
        due_at: None,
        last_recached_at: Some(at(2)),
        last_build_ms: Some(400),
        last_error: Some(text("no such table")),
        build_job_id: Some(text("job_1")),
        handler: text("build_prices"),
        queue: text("default"),
        policy: ViewPolicy {
            debounce_quiet_ms: 1000,
            debounce_max_ms: 10_000,
            on_touch: OnTouch::Finish,
            max_staleness_ms: None,
        },
        retry: RetryPolicy {
            attempts_max: 3,
            backoff: Backoff::Fibonacci,
            base_ms: 1000,
            cap_ms: 300_000,
            jitter: 0.1,
        },
        timeout_ms: None,
        workflow: None,
        cache_only: false,
        prefetch_first: None,
        prefetch_items: None,
        generation_keep_ms: None,
        lease_ms: None,
        concurrency: None,
        pattern: None,
        item_key_schema: None,
        item_value_schema: None,
    }
}

#[test]
fn documents_of_jobs_keep_their_shape() {
    insta::assert_snapshot!("jobs", printed(&JobList::new(vec![job()], Some(text("job_1")))));
    let row = JobHistoryRow {
        seq: 1,
        at: at(2),
        from: JobState::Queued,
        to: JobState::Running,
        spent_ms: 1000,
        attempt: 1,
        session_id: Some(text("ses_1")),
        error: Some(error()),
        detail: Some(text("taken back")),
    };
    let attempt = JobAttempt {
        attempt: 1,
        started_at: at(2),
        ended_at: Some(at(3)),
        ended_as: Some(JobState::Queued),
        error: Some(error()),
    };
    let line = JobLogLine { seq: 1, attempt: 1, at: at(2), text: text("page 1 begins") };
    let details = JobDetails::new(job(), vec![row], vec![attempt], vec![line]);
    insta::assert_snapshot!("job", printed(&details));
    insta::assert_snapshot!("job_submitted", printed(&JobSubmitted::new(text("job_1"), true, false)));
    insta::assert_snapshot!("bulk_change", printed(&BulkChange::preview(7)));
    assert_eq!(BulkChange::done(1, 2).matching, None);
    insta::assert_snapshot!("job_change", printed(&JobChange::new(text("job_1"), JobState::Queued, true)));
}

#[test]
fn documents_of_queues_keep_their_shape() {
    let pause = QueuePause { at: at(1), until: None, actor: text("ops"), reason: text("it moves") };
    let queue = Queue {
        name: text("mail"),
        pause: Some(pause),
        queued: 3,
        running: 1,
        due_since: Some(at(0)),
        running_max: Some(5),
        starts_max: Some(100),
        period_ms: Some(60_000),
    };
    insta::assert_snapshot!("queues", printed(&QueueList::new(vec![queue.clone()])));
    let answer = QueueAnswer::new(queue, true);
    assert!(printed(&answer).starts_with("{\n  \"schema\": \"recache.queue.v1\",\n  \"queue\": {"));
    let limit = Limit {
        scope: text("key"),
        namespace: Some(text("shop")),
        name: text("customer-42"),
        running_max: Some(2),
        starts_max: None,
        period_ms: None,
        actor: text("ops"),
        changed_at: at(2),
    };
    insta::assert_snapshot!("limits", printed(&LimitList::new(vec![limit])));
}

#[test]
fn documents_of_dead_letters_keep_their_shape() {
    let letter = Letter {
        job_id: text("job_1"),
        seq: 4,
        namespace: text("default"),
        queue: text("mail"),
        handler: text("send_mail"),
        status: LetterStatus::Investigating,
        status_at: at(5),
        reason: text("no attempt is left"),
        error: error(),
        attempts: vec![FailedAttempt { attempt: 1, at: at(3), error: error() }],
        attempt: 1,
        attempts_max: 1,
        input: Json::from_text("{}").unwrap(),
        priority: 0,
        workflow_id: None,
        step: None,
        correlation_id: text("order-7"),
        submitted_at: at(0),
        failed_at: at(3),
    };
    insta::assert_snapshot!("letters", printed(&LetterList::new(vec![letter.clone()], Some(text("job_1")))));
    let note = LetterNote {
        at: at(5),
        status: LetterStatus::Investigating,
        actor: text("ops"),
        text: text("I look"),
    };
    insta::assert_snapshot!("letter", printed(&LetterDetails::new(letter, vec![note])));
}

#[test]
fn documents_of_schedules_keep_their_shape() {
    let schedule = Schedule {
        namespace: text("default"),
        name: text("report"),
        cron: text("30 2 * * *"),
        zone: text("Europe/Berlin"),
        overlap: text("skip"),
        catch_up: text("once"),
        handler: text("make_report"),
        queue: text("default"),
        input: Json::from_text("null").unwrap(),
        priority: 0,
        retry: view().retry,
        timeout_ms: Some(1000),
        next_at: Some(at(9)),
        last_tick_at: None,
        last_job_id: Some(text("job_1")),
        ticks_skipped: 2,
        paused_at: Some(at(1)),
        pause_actor: Some(text("ops")),
        pause_reason: Some(text("closed")),
    };
    insta::assert_snapshot!("schedules", printed(&ScheduleList::new(vec![schedule.clone()], None)));
    let answer = ScheduleAnswer::new(schedule, true);
    assert!(printed(&answer).starts_with("{\n  \"schema\": \"recache.schedule.v1\",\n  \"schedule\": {"));
    insta::assert_snapshot!("ticks", printed(&Ticks::new(text("UTC"), vec![at(1), at(2)])));
}

#[test]
fn documents_of_views_keep_their_shape() {
    let generation = Generation {
        version: 7,
        job_id: Some(text("job_1")),
        restored: None,
        published_at: at(2),
        replaced_at: None,
        items_total: 3,
        items_changed: 2,
        items_removed: 1,
        items_computed: 2,
        items_reused: 1,
        build_ms: 400,
    };
    insta::assert_snapshot!("view", printed(&ViewDetails::new(view(), Some(job()), vec![generation])));
    let value = Json::from_text("[1, 2.50]").unwrap();
    let items = ViewItems {
        schema: text(ViewItems::SCHEMA),
        view_id: text("view_1"),
        namespace: text("shop"),
        key: text("prices"),
        version: 7,
        recache_version: 8,
        published_at: Some(at(2)),
        staleness_ms: 1200,
        stale: true,
        items: vec![ViewItem { item: text("sku-1"), value: value.clone() }],
    };
    insta::assert_snapshot!("view_items", printed(&items));
    let read = ViewValue {
        schema: text(ViewValue::SCHEMA),
        view_id: text("view_1"),
        namespace: text("shop"),
        key: text("prices"),
        item: text("sku-1"),
        value,
        version: 7,
        recache_version: 8,
        published_at: Some(at(2)),
        staleness_ms: 1200,
        stale: true,
    };
    insta::assert_snapshot!("view_value", printed(&read));
    let touched = Touched {
        schema: text(Touched::SCHEMA),
        view_id: text("view_1"),
        namespace: text("shop"),
        key: text("prices"),
        recache_version: 9,
        superseded_job_id: Some(text("job_1")),
    };
    insta::assert_snapshot!("touch", printed(&touched));
}

#[test]
fn documents_of_operations_keep_their_shape() {
    insta::assert_snapshot!("migration", printed(&Migration::new(text("sqlite:recache.db"), 1)));
    let check = |name, status| Check {
        name: text(name),
        status,
        message: text("found"),
        place: Some(text("sqlite:recache.db")),
        remedy: None,
    };
    let checks = vec![check("database", CheckStatus::Ok), check("disk", CheckStatus::Warn)];
    insta::assert_snapshot!("diagnosis", printed(&Diagnosis::new(checks)));
}

#[test]
fn diagnosis_is_as_bad_as_its_worst_check() {
    let diagnosis = |statuses: &[CheckStatus]| {
        let check = |status: &CheckStatus| Check {
            name: text("disk"),
            status: *status,
            message: String::new(),
            place: None,
            remedy: None,
        };
        Diagnosis::new(statuses.iter().map(check).collect()).status
    };
    assert_eq!(diagnosis(&[]), CheckStatus::Ok);
    assert_eq!(diagnosis(&[CheckStatus::Warn, CheckStatus::Ok]), CheckStatus::Warn);
    assert_eq!(diagnosis(&[CheckStatus::Ok, CheckStatus::Fail, CheckStatus::Warn]), CheckStatus::Fail);
}

#[test]
fn problem_keeps_its_shape() {
    let mut problem = Problem::new(409, "conflict", "Conflict", "job `job_1` is completed");
    problem.remedy = Some(text("submit a new one"));
    problem.request_id = Some(text("req_1"));
    problem.errors =
        vec![FieldProblem { pointer: text("/retry/attempts_max"), message: text("must be at least 1") }];
    insta::assert_snapshot!("problem", printed(&problem));
    assert_eq!(Problem::MEDIA_TYPE, "application/problem+json");
}

#[test]
fn every_word_of_an_enum_is_pinned() {
    fn words<T: Serialize>(values: &[T]) -> String {
        let word = |value| serde_json::to_value(value).unwrap().as_str().unwrap().to_owned();
        values.iter().map(word).collect::<Vec<_>>().join(" ")
    }
    use {ErrorKind as E, JobState as J, ViewStatus as V};
    assert_eq!(
        words(&[
            J::Blocked,
            J::Queued,
            J::Running,
            J::Completed,
            J::Failed,
            J::Cancelled,
            J::Superseded,
            J::Skipped,
            J::Resolved
        ]),
        "blocked queued running completed failed cancelled superseded skipped resolved"
    );
    assert_eq!(
        words(&[E::Retryable, E::Permanent, E::Cancelled, E::Superseded, E::Timeout, E::LeaseLost, E::Panic]),
        "retryable permanent cancelled superseded timeout lease_lost panic"
    );
    assert_eq!(
        words(&[V::Idle, V::Pending, V::Processing, V::Completed, V::Failed]),
        "idle pending processing completed failed"
    );
    assert_eq!(words(&[OnTouch::Abort, OnTouch::Finish, OnTouch::Auto]), "abort finish auto");
    assert_eq!(
        words(&[Backoff::None, Backoff::Linear, Backoff::Exponential, Backoff::Fibonacci]),
        "none linear exponential fibonacci"
    );
    assert_eq!(words(&[CheckStatus::Ok, CheckStatus::Warn, CheckStatus::Fail]), "ok warn fail");
}

#[test]
fn field_that_is_not_known_yet_is_passed_over() {
    let text = r#"{"schema":"recache.job-change.v1","id":"job_1","state":"queued","changed":true,"new":1}"#;
    assert!(serde_json::from_str::<JobChange>(text).is_ok());
}
