//! From the store's records to the documents of the wire contract.

use std::time::Duration;

use recache_api as api;
use recache_model::batch::{BatchCallback, BatchState};
use recache_model::ids::{BatchId, JobId, WorkflowId};
use recache_model::job::{ErrorKind, JobError, JobState};
use recache_model::letter::LetterStatus;
use recache_model::lifecycle::LimitName;
use recache_model::retry::{Backoff, RetryPolicy};
use recache_model::time::Timestamp;
use recache_model::tracked::TrackedState;
use recache_model::view::{OnTouch, ViewPolicy, ViewStatus};
use recache_model::view_options::{ItemsKept, Prefetch};
use recache_store::{
    BatchMember, BatchRecord, GenerationRecord, HistoryRow, JobRecord, Letter, LetterNote, LimitRecord,
    LimitScope, LimitsRecord, LogLine, MemberKind, PatternRecord, QueueRecord, ScheduleRecord, SignalRecord,
    StepRecord, TrackedJob, ViewRecord, WorkflowRecord,
};

/// An instant of the store.
pub fn instant(at: Timestamp) -> api::Instant {
    let end = if at.micros() < 0 { api::Instant::MIN } else { api::Instant::MAX };
    // Beyond the calendar only where a due time was asked for that never comes.
    api::Instant::from_micros(at.micros()).unwrap_or(end)
}

/// Whole milliseconds; saturates.
pub fn ms(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

/// What a handler wrote. What is no JSON, which the store does not let in, is shown as text.
pub(super) fn json(text: &str) -> api::Json {
    api::Json::from_text(text).unwrap_or_else(|_| api::Json::of_string(text))
}

/// A job.
pub fn job(record: JobRecord) -> api::Job {
    api::Job {
        id: record.id.to_string(),
        namespace: record.namespace,
        queue: record.queue,
        handler: record.handler,
        state: job_state(record.state),
        priority: record.priority,
        attempt: record.attempt,
        attempts_max: record.attempts_max,
        timeout_ms: record.timeout.map(ms),
        created_at: instant(record.created_at),
        due_at: instant(record.due_at),
        started_at: record.started_at.map(instant),
        finished_at: record.finished_at.map(instant),
        progress: record.progress,
        message: record.message,
        error: record.error.map(job_error),
        input: json(&record.input),
        output: record.output.as_deref().map(json),
        session_id: record.session.map(|id| id.to_string()),
        workflow_id: record.workflow.map(|id| id.to_string()),
        step: record.step,
        batch_id: record.batch.map(|id| id.to_string()),
        view_id: record.view.map(|id| id.to_string()),
        view_version: record.view_version,
        superseded_by: record.superseded_by,
        correlation_id: record.correlation_id,
        trace_context: record.trace_context,
        concurrency_key: record.concurrency_key,
    }
}

/// A job that some other system runs.
pub fn tracked(job: TrackedJob) -> api::TrackedJob {
    let (definition, course) = (job.definition, job.course);
    let (acknowledged_at, acknowledged_by) = job.acknowledged.unzip();
    api::TrackedJob {
        id: definition.id.to_string(),
        namespace: definition.namespace,
        action: definition.action,
        state: match course.state {
            TrackedState::Queued => api::TrackedState::Queued,
            TrackedState::Processing => api::TrackedState::Processing,
            TrackedState::Completed => api::TrackedState::Completed,
            TrackedState::Failed => api::TrackedState::Failed,
            TrackedState::Cancelled => api::TrackedState::Cancelled,
        },
        context: definition.context.map(|context| api::TrackedContext {
            kind: context.kind,
            id: context.id,
            field: context.field,
        }),
        batch_id: definition.batch.map(|id| id.to_string()),
        owner: definition.owner,
        metadata: json(&definition.metadata),
        message: course.message,
        code: course.code,
        data: course.data.as_deref().map(json),
        progress: course.progress,
        items_done: course.items_done,
        items_total: course.items_total,
        revision: job.revision,
        stale_after_ms: ms(definition.stale_after),
        stale_at: job.stale_at.map(instant),
        created_at: instant(job.created_at),
        heard_at: instant(job.heard_at),
        started_at: job.started_at.map(instant),
        finished_at: job.finished_at.map(instant),
        acknowledged_at: acknowledged_at.map(instant),
        acknowledged_by,
    }
}

/// A batch.
pub fn batch(record: BatchRecord) -> api::Batch {
    let (definition, counts) = (record.definition, record.counts);
    let callback = |callback: Option<BatchCallback>, made: Option<JobId>| {
        callback.map(|callback| api::BatchCallback {
            input: json(&callback.input),
            handler: callback.handler,
            queue: callback.queue,
            job_id: made.map(|id| id.to_string()),
        })
    };
    let (cancelled_at, cancel_reason) = record.cancelled.unzip();
    api::Batch {
        id: definition.id.to_string(),
        namespace: definition.namespace,
        action: definition.action,
        state: match record.state {
            BatchState::Pending => api::BatchState::Pending,
            BatchState::Processing => api::BatchState::Processing,
            BatchState::Completed => api::BatchState::Completed,
            BatchState::Failed => api::BatchState::Failed,
            BatchState::PartialFailure => api::BatchState::PartialFailure,
        },
        counts: api::BatchCounts {
            total: counts.total,
            pending: counts.pending(),
            completed: counts.completed,
            failed: counts.failed,
            cancelled: counts.cancelled,
            superseded: counts.superseded,
        },
        parent_id: definition.parent.map(|id| id.to_string()),
        expected: definition.expected,
        metadata: json(&definition.metadata),
        on_success: callback(definition.on_success, record.success_job),
        on_finish: callback(definition.on_finish, record.finish_job),
        on_first_failure: callback(definition.on_first_failure, record.failure_job),
        created_at: instant(record.created_at),
        closed_at: record.closed_at.map(instant),
        cancelled_at: cancelled_at.map(instant),
        cancel_reason,
        finished_at: record.finished_at.map(instant),
    }
}

/// A member of a batch.
pub fn batch_member(member: BatchMember) -> api::BatchMember {
    api::BatchMember {
        kind: member.kind.as_str().to_owned(),
        id: match member.kind {
            MemberKind::Job | MemberKind::Tracked => JobId::from_uuid(member.id).to_string(),
            MemberKind::Workflow => WorkflowId::from_uuid(member.id).to_string(),
            MemberKind::Batch => BatchId::from_uuid(member.id).to_string(),
        },
        state: member.state,
        code: member.code,
        message: member.message,
        finished_at: member.finished_at.map(instant),
    }
}

/// The transitions of a job that was submitted at `created_at`.
pub fn history(created_at: Timestamp, rows: Vec<HistoryRow>) -> Vec<api::JobHistoryRow> {
    let mut since = created_at;
    rows.into_iter()
        .map(|row| {
            let spent_ms = ms(row.at.since(since));
            since = row.at;
            // The store keeps either in one column; an error is an object there.
            let error = row.detail.as_deref().and_then(|text| serde_json::from_str::<JobError>(text).ok());
            api::JobHistoryRow {
                seq: row.seq,
                at: instant(row.at),
                from: job_state(row.from),
                to: job_state(row.to),
                spent_ms,
                attempt: row.attempt,
                session_id: row.session.map(|id| id.to_string()),
                detail: if error.is_some() { None } else { row.detail },
                error: error.map(job_error),
            }
        })
        .collect()
}

/// The attempts that a history tells of.
pub fn attempts(history: &[api::JobHistoryRow]) -> Vec<api::JobAttempt> {
    let mut attempts: Vec<api::JobAttempt> = Vec::new();
    for row in history {
        if row.to == api::JobState::Running {
            attempts.push(api::JobAttempt {
                attempt: row.attempt,
                started_at: row.at,
                ended_at: None,
                ended_as: None,
                error: None,
            });
        } else if row.from == api::JobState::Running
            && let Some(last) = attempts.last_mut()
        {
            last.ended_at = Some(row.at);
            last.ended_as = Some(row.to);
            last.error.clone_from(&row.error);
        }
    }
    attempts
}

/// Lines that a handler said.
pub fn log(lines: Vec<LogLine>) -> Vec<api::JobLogLine> {
    let line = |line: LogLine| api::JobLogLine {
        seq: line.seq,
        attempt: line.attempt,
        at: instant(line.at),
        text: line.text,
    };
    lines.into_iter().map(line).collect()
}

/// Where a job stands.
pub fn job_state(state: JobState) -> api::JobState {
    match state {
        JobState::Blocked => api::JobState::Blocked,
        JobState::Queued => api::JobState::Queued,
        JobState::Running => api::JobState::Running,
        JobState::Completed => api::JobState::Completed,
        JobState::Failed => api::JobState::Failed,
        JobState::Cancelled => api::JobState::Cancelled,
        JobState::Superseded => api::JobState::Superseded,
        JobState::Skipped => api::JobState::Skipped,
        JobState::Resolved => api::JobState::Resolved,
    }
}

pub(super) fn job_error(error: JobError) -> api::JobError {
    api::JobError {
        kind: match error.kind {
            ErrorKind::Retryable => api::ErrorKind::Retryable,
            ErrorKind::Permanent => api::ErrorKind::Permanent,
            ErrorKind::Cancelled => api::ErrorKind::Cancelled,
            ErrorKind::Superseded => api::ErrorKind::Superseded,
            ErrorKind::Timeout => api::ErrorKind::Timeout,
            ErrorKind::LeaseLost => api::ErrorKind::LeaseLost,
            ErrorKind::Panic => api::ErrorKind::Panic,
        },
        code: error.code,
        message: error.message,
        retry_after_ms: error.retry_after_ms,
    }
}

/// A schedule.
pub fn schedule(record: ScheduleRecord) -> api::Schedule {
    let definition = record.definition;
    let (paused_at, word) = record.pause.unzip();
    let (pause_actor, pause_reason) = word.map(|word| (word.actor, word.reason)).unzip();
    api::Schedule {
        namespace: definition.namespace,
        name: definition.name,
        cron: definition.cron,
        zone: definition.zone,
        overlap: definition.overlap.to_string(),
        catch_up: definition.catch_up.to_string(),
        handler: definition.handler,
        queue: definition.queue,
        input: json(&definition.input),
        priority: definition.priority,
        retry: retry_policy(definition.retry),
        timeout_ms: definition.timeout.map(ms),
        next_at: record.next_at.map(instant),
        last_tick_at: record.last_tick_at.map(instant),
        last_job_id: record.last_job.map(|id| id.to_string()),
        ticks_skipped: record.ticks_skipped,
        paused_at: paused_at.map(instant),
        pause_actor,
        pause_reason,
    }
}

/// A dead letter.
pub fn letter(letter: Letter) -> api::Letter {
    api::Letter {
        job_id: letter.job.to_string(),
        seq: letter.seq,
        namespace: letter.namespace,
        queue: letter.queue,
        handler: letter.handler,
        status: letter_status(letter.status),
        status_at: instant(letter.status_at),
        reason: recache_model::letter::reason(&letter.error, letter.attempt, letter.attempts_max),
        error: job_error(letter.error),
        attempts: letter
            .attempts
            .into_iter()
            .map(|kept| api::FailedAttempt {
                attempt: kept.attempt,
                at: instant(kept.at),
                error: job_error(kept.error),
            })
            .collect(),
        attempt: letter.attempt,
        attempts_max: letter.attempts_max,
        input: json(&letter.input),
        priority: letter.priority,
        workflow_id: letter.workflow.map(|id| id.to_string()),
        step: letter.step,
        correlation_id: letter.correlation_id,
        submitted_at: instant(letter.submitted_at),
        failed_at: instant(letter.failed_at),
    }
}

fn letter_status(status: LetterStatus) -> api::LetterStatus {
    match status {
        LetterStatus::Pending => api::LetterStatus::Pending,
        LetterStatus::Investigating => api::LetterStatus::Investigating,
        LetterStatus::Redriven => api::LetterStatus::Redriven,
        LetterStatus::Resolved => api::LetterStatus::Resolved,
        LetterStatus::Discarded => api::LetterStatus::Discarded,
    }
}

/// A note on a dead letter.
pub fn letter_note(note: LetterNote) -> api::LetterNote {
    api::LetterNote {
        at: instant(note.at),
        status: letter_status(note.status),
        actor: note.word.actor,
        text: note.word.reason,
    }
}

/// A queue.
pub fn queue(record: QueueRecord) -> api::Queue {
    let rate = record.limit.rate;
    api::Queue {
        name: record.name,
        pause: record.pause.map(|pause| api::QueuePause {
            at: instant(pause.at),
            until: pause.until.map(instant),
            actor: pause.word.actor,
            reason: pause.word.reason,
        }),
        queued: record.queued,
        running: record.running,
        due_since: record.due_since.map(instant),
        running_max: record.limit.running_max,
        starts_max: rate.map(|rate| rate.starts_max),
        period_ms: rate.map(|rate| ms(rate.period)),
    }
}

/// A limit.
pub fn limit(record: LimitRecord) -> api::Limit {
    let (scope, namespace, name) = match record.scope {
        LimitScope::Queue(name) => ("queue", None, name),
        LimitScope::Handler(name) => ("handler", None, name),
        LimitScope::Key { namespace, key } => ("key", Some(namespace), key),
    };
    let rate = record.limit.rate;
    api::Limit {
        scope: scope.to_owned(),
        namespace,
        name,
        running_max: record.limit.running_max,
        starts_max: rate.map(|rate| rate.starts_max),
        period_ms: rate.map(|rate| ms(rate.period)),
        actor: record.actor,
        changed_at: instant(record.changed_at),
    }
}

pub(super) fn view_status(status: ViewStatus) -> api::ViewStatus {
    match status {
        ViewStatus::Idle => api::ViewStatus::Idle,
        ViewStatus::Pending => api::ViewStatus::Pending,
        ViewStatus::Processing => api::ViewStatus::Processing,
        ViewStatus::Completed => api::ViewStatus::Completed,
        ViewStatus::Failed => api::ViewStatus::Failed,
    }
}

/// A view, with its staleness at `now`.
pub fn view(record: ViewRecord, now: Timestamp) -> api::View {
    let (versions, definition) = (record.versions, record.definition);
    api::View {
        id: record.id.to_string(),
        namespace: definition.namespace,
        key: definition.key,
        recache_status: view_status(versions.status),
        recache_version: versions.wanted,
        processing_version: versions.processing,
        live_version: versions.live,
        staleness_ms: ms(versions.staleness(now)),
        dirty_since: versions.dirty_since.map(instant),
        touched_at: versions.touched_at.map(instant),
        touched_by: record.touched_by.as_ref().map(|word| word.actor.clone()),
        touch_reason: record.touched_by.map(|word| word.reason),
        pause: record.pause.map(|pause| api::ViewPause {
            at: instant(pause.at),
            actor: pause.word.actor,
            reason: pause.word.reason,
        }),
        due_at: versions.due_at.map(instant),
        last_recached_at: record.last_recached_at.map(instant),
        last_build_ms: versions.last_build.map(ms),
        last_error: record.last_error,
        build_job_id: record.build.map(|id| id.to_string()),
        cache_only: definition.options.items == ItemsKept::CacheOnly,
        prefetch_first: prefetch_first(definition.options.prefetch.as_ref()),
        generation_keep_ms: definition.options.generation_keep_ms,
        lease_ms: definition.options.lease_ms,
        concurrency: definition.options.concurrency,
        prefetch_items: prefetch_items(definition.options.prefetch),
        workflow: definition.options.workflow.map(|workflow| workflow.to_string()),
        handler: definition.handler,
        queue: definition.queue,
        policy: view_policy(&definition.policy),
        retry: retry_policy(definition.retry),
        timeout_ms: definition.timeout.map(ms),
        pattern: record.pattern,
        item_key_schema: schema_text(definition.rules.key_schema.as_ref()),
        item_value_schema: schema_text(definition.rules.value_schema.as_ref()),
    }
}

/// A pattern of views.
pub fn view_pattern(record: PatternRecord) -> api::ViewPattern {
    let definition = record.definition;
    api::ViewPattern {
        policy: view_policy(&definition.policy),
        retry: retry_policy(definition.retry),
        timeout_ms: definition.timeout.map(ms),
        item_key_schema: schema_text(definition.rules.key_schema.as_ref()),
        item_value_schema: schema_text(definition.rules.value_schema.as_ref()),
        created_at: instant(record.created_at),
        namespace: definition.namespace,
        pattern: definition.key,
        cache_only: definition.options.items == ItemsKept::CacheOnly,
        prefetch_first: prefetch_first(definition.options.prefetch.as_ref()),
        generation_keep_ms: definition.options.generation_keep_ms,
        lease_ms: definition.options.lease_ms,
        concurrency: definition.options.concurrency,
        prefetch_items: prefetch_items(definition.options.prefetch),
        workflow: definition.options.workflow.map(|workflow| workflow.to_string()),
        handler: definition.handler,
        queue: definition.queue,
    }
}

fn prefetch_first(prefetch: Option<&Prefetch>) -> Option<u32> {
    if let Some(Prefetch::First(count)) = prefetch { Some(*count) } else { None }
}

fn prefetch_items(prefetch: Option<Prefetch>) -> Option<Vec<String>> {
    if let Some(Prefetch::Items(items)) = prefetch { Some(items) } else { None }
}

fn schema_text(schema: Option<&serde_json::Value>) -> Option<api::Json> {
    schema.map(|schema| json_text(&schema.to_string()))
}

fn view_policy(policy: &ViewPolicy) -> api::ViewPolicy {
    api::ViewPolicy {
        debounce_quiet_ms: policy.debounce_quiet_ms,
        debounce_max_ms: policy.debounce_max_ms,
        on_touch: match policy.on_touch {
            OnTouch::Abort => api::OnTouch::Abort,
            OnTouch::Finish => api::OnTouch::Finish,
            OnTouch::Auto => api::OnTouch::Auto,
        },
        max_staleness_ms: policy.max_staleness_ms,
    }
}

pub(super) fn retry_policy(policy: RetryPolicy) -> api::RetryPolicy {
    api::RetryPolicy {
        attempts_max: policy.attempts_max,
        backoff: match policy.backoff {
            Backoff::None => api::Backoff::None,
            Backoff::Linear => api::Backoff::Linear,
            Backoff::Exponential => api::Backoff::Exponential,
            Backoff::Fibonacci => api::Backoff::Fibonacci,
        },
        base_ms: policy.base_ms,
        cap_ms: policy.cap_ms,
        jitter: policy.jitter,
    }
}

/// A generation.
pub fn generation(record: &GenerationRecord) -> api::Generation {
    api::Generation {
        version: record.version,
        job_id: record.job.map(|id| id.to_string()),
        restored: record.restored.as_ref().map(|restored| api::Restoration {
            from_version: restored.from,
            actor: restored.word.actor.clone(),
            reason: restored.word.reason.clone(),
        }),
        published_at: instant(record.published_at),
        replaced_at: record.replaced_at.map(instant),
        items_total: record.items_total,
        items_changed: record.items_changed,
        items_removed: record.items_removed,
        items_computed: record.items_computed,
        items_reused: record.items_reused,
        build_ms: ms(record.build),
    }
}

/// The items of a read.
pub fn items(namespace: &str, key: &str, read: recache_store::ViewRead) -> api::ViewItems {
    api::ViewItems {
        schema: api::ViewItems::SCHEMA.to_owned(),
        view_id: read.view.to_string(),
        namespace: namespace.to_owned(),
        key: key.to_owned(),
        version: read.version,
        recache_version: read.wanted,
        published_at: read.published_at.map(instant),
        staleness_ms: ms(read.staleness),
        stale: read.wanted > read.version,
        items: read
            .items
            .into_iter()
            .map(|(item, value)| api::ViewItem { item, value: json(&value) })
            .collect(),
    }
}

/// JSON that the store keeps as text.
pub fn json_text(text: &str) -> api::Json {
    json(text)
}

/// A value as it is written.
pub(crate) fn json_value(value: &serde_json::Value) -> api::Json {
    json(&value.to_string())
}

/// A workflow.
pub fn workflow(record: WorkflowRecord) -> api::Workflow {
    let counts = record.counts;
    api::Workflow {
        id: record.id.to_string(),
        namespace: record.namespace,
        template: record.template_name,
        version: record.template_version,
        environment: record.environment,
        state: record.state.as_str().to_owned(),
        steps: api::StepCounts {
            blocked: counts.blocked,
            active: counts.active,
            done: counts.done,
            failed: counts.failed,
            cancelled: counts.cancelled,
        },
        parent_step: record.parent_step.map(|step| step.to_string()),
        created_at: instant(record.created_at),
        finished_at: record.finished_at.map(instant),
    }
}

/// A step of a workflow.
pub fn workflow_step(record: StepRecord) -> api::WorkflowStep {
    let sub_workflow = record.job.sub_workflow.map(|workflow| workflow.to_string());
    let waits_for = record.waits_for;
    let job = job(record.job);
    api::WorkflowStep {
        name: job.step.unwrap_or_default(),
        job_id: job.id,
        state: job.state,
        handler: job.handler,
        attempt: job.attempt,
        waits_for,
        message: job.message,
        error: job.error,
        output: job.output,
        sub_workflow,
    }
}

/// The limits of time that have passed, one by one.
pub fn passed_limits(record: &LimitsRecord) -> Vec<api::PassedLimit> {
    let passed = |name: &LimitName| {
        let limit = record.limits.named(*name)?;
        Some(api::PassedLimit {
            step: record.step.clone(),
            limit: name.field().to_owned(),
            minutes: limit.minutes,
        })
    };
    record.found.iter().filter_map(passed).collect()
}

/// What a workflow was told.
pub fn workflow_signal(signal: SignalRecord) -> api::WorkflowSignal {
    api::WorkflowSignal {
        kind: signal.kind.as_str().to_owned(),
        name: signal.name,
        payload: json(&signal.payload),
        actor: signal.actor,
        received_at: instant(signal.received_at),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn states_have_the_same_names_in_store_and_on_the_wire() {
        for state in JobState::ALL {
            assert_eq!(serde_json::to_value(job_state(state)).unwrap(), state.as_str());
        }
    }

    #[test]
    fn due_time_that_never_comes_is_the_end_of_the_calendar() {
        assert_eq!(instant(Timestamp::from_micros(i64::MAX)), api::Instant::MAX);
        assert_eq!(instant(Timestamp::from_micros(i64::MIN)), api::Instant::MIN);
    }
}
