//! One job at a time: insert, lock, move.

use std::collections::HashSet;
use std::time::Duration;

use recache_model::batch::MemberEnd;
use recache_model::event::StepEnd;
use recache_model::ids::{BatchId, JobId, SessionId, ViewId, WorkflowId};
use recache_model::job::{ErrorKind, JobError, JobEvent, JobState};
use recache_model::letter::LetterStatus;
use recache_model::retry::RetryPolicy;
use recache_model::time::{Timestamp, micros};
use recache_model::workflow::StepKind;
use sqlx::Row as _;
use uuid::Uuid;

use super::super::{Connection, Row, bulk, ids};
use super::effects::Effects;
use super::events::Ended;
use super::{batches, build_workflows, events, letters, lifecycles, steps, views, workflows};
use crate::error::{Error, Result};
use crate::flow::RESULT_INLINE_BYTES_MAX;
use crate::queues::Word;
use crate::records::{ClaimedJob, Due, JobRecord, LeaseToken, NewJob, Revoked, StepCall, Submitted};

/// The columns of [`record`], in no particular order.
macro_rules! job_columns {
    () => {
        "id, namespace, queue, handler, state, priority, due_at, input, COALESCE(output, (SELECT r.output FROM job_results r \
         WHERE r.job_id = jobs.id)) AS output, error, attempt, attempts_max, \
         timeout_ms, epoch, session_id, transitions, correlation_id, trace_context, workflow_id, step, view_id, \
         view_version, superseded_by, progress, message, created_at, started_at, finished_at, concurrency_key, \
         step_kind, parent_id, sub_workflow_id, batch_id, publishes, call"
    };
}
pub(super) use job_columns;

pub(in super::super) fn state(row: &Row, column: &str) -> Result<JobState> {
    let text: String = row.try_get(column)?;
    text.parse().map_err(|error| Error::broken(format!("{column}: {error}")))
}

pub(in super::super) fn count(row: &Row, column: &str) -> Result<u32> {
    let value: i64 = row.try_get(column)?;
    u32::try_from(value).map_err(|_| Error::broken(format!("{column} is {value}")))
}

pub(in super::super) fn milliseconds(row: &Row, column: &str) -> Result<Option<Duration>> {
    let value: Option<i64> = row.try_get(column)?;
    Ok(value.map(|ms| Duration::from_millis(u64::try_from(ms).unwrap_or(0))))
}

pub(in super::super) fn instant(row: &Row, column: &str) -> Result<Option<Timestamp>> {
    Ok(row.try_get::<Option<i64>, _>(column)?.map(Timestamp::from_micros))
}

pub(in super::super) fn json<T: serde::de::DeserializeOwned>(column: &str, text: &str) -> Result<T> {
    serde_json::from_str(text).map_err(|error| Error::broken(format!("{column}: {error}")))
}

pub(in super::super) fn to_json<T: serde::Serialize>(value: &T) -> Result<String> {
    serde_json::to_string(value)
        .map_err(|error| Error::Invalid(format!("cannot be written as JSON: {error}")))
}

pub(in super::super) fn due_micros(due: Due, now: Timestamp) -> i64 {
    match due {
        Due::Now => now.micros(),
        Due::In(delay) => now.plus(delay).micros(),
        Due::At(instant) => instant.micros(),
    }
}

pub(in super::super) fn timeout_ms(timeout: Option<Duration>) -> Option<i64> {
    timeout.map(|timeout| i64::try_from(timeout.as_millis()).unwrap_or(i64::MAX).max(1))
}

/// What a step is to the others; a job of no workflow is plain.
pub(super) fn kind(row: &Row) -> Result<StepKind> {
    let name: Option<String> = row.try_get("step_kind")?;
    name.map_or(Ok(StepKind::Plain), |name| {
        StepKind::from_name(&name).ok_or_else(|| Error::broken(format!("step_kind is {name}")))
    })
}

pub(super) fn record(row: &Row) -> Result<JobRecord> {
    Ok(JobRecord {
        id: JobId::from_uuid(row.try_get("id")?),
        namespace: row.try_get("namespace")?,
        queue: row.try_get("queue")?,
        handler: row.try_get("handler")?,
        state: state(row, "state")?,
        priority: row.try_get("priority")?,
        due_at: Timestamp::from_micros(row.try_get("due_at")?),
        input: row.try_get("input")?,
        output: row.try_get("output")?,
        error: row.try_get::<Option<String>, _>("error")?.map(|text| json("error", &text)).transpose()?,
        attempt: count(row, "attempt")?,
        attempts_max: count(row, "attempts_max")?,
        timeout: milliseconds(row, "timeout_ms")?,
        epoch: row.try_get("epoch")?,
        session: row.try_get::<Option<Uuid>, _>("session_id")?.map(SessionId::from_uuid),
        transitions: row.try_get("transitions")?,
        correlation_id: row.try_get("correlation_id")?,
        trace_context: row.try_get("trace_context")?,
        concurrency_key: row.try_get("concurrency_key")?,
        call: call(row)?,
        publishes: row.try_get("publishes")?,
        batch: row.try_get::<Option<Uuid>, _>("batch_id")?.map(BatchId::from_uuid),
        workflow: row.try_get::<Option<Uuid>, _>("workflow_id")?.map(WorkflowId::from_uuid),
        step: row.try_get("step")?,
        kind: kind(row)?,
        parent: row.try_get::<Option<Uuid>, _>("parent_id")?.map(JobId::from_uuid),
        sub_workflow: row.try_get::<Option<Uuid>, _>("sub_workflow_id")?.map(WorkflowId::from_uuid),
        view: row.try_get::<Option<Uuid>, _>("view_id")?.map(ViewId::from_uuid),
        view_version: row.try_get("view_version")?,
        superseded_by: row.try_get("superseded_by")?,
        progress: row.try_get("progress")?,
        message: row.try_get("message")?,
        created_at: Timestamp::from_micros(row.try_get("created_at")?),
        started_at: instant(row, "started_at")?,
        finished_at: instant(row, "finished_at")?,
    })
}

/// What a step calls, where its handler's name does not say it all.
pub(super) fn call(row: &Row) -> Result<Option<StepCall>> {
    row.try_get::<Option<String>, _>("call")?.map(|text| json("call", &text)).transpose()
}

/// Longest name of a namespace, queue, handler or step, in bytes.
const NAME_BYTES_MAX: usize = 256;

/// The same for jobs that stand alone.
pub(in super::super) fn check_alone(new: &[NewJob]) -> Result<()> {
    if let Some(job) =
        new.iter().find(|job| job.publishes.is_some() || job.call.is_some() || !job.limits.is_empty())
    {
        return Err(Error::Invalid(format!(
            "job {}: only a step of a workflow publishes events, calls methods or has limits of its phases; of other jobs, ask for their changes of state",
            job.id
        )));
    }
    check(new)
}

/// Refuses what could never run, with every reason.
pub(in super::super) fn check<'a>(new: impl IntoIterator<Item = &'a NewJob>) -> Result<()> {
    let mut problems = Vec::new();
    for job in new {
        for (field, text) in [("namespace", &job.namespace), ("queue", &job.queue), ("handler", &job.handler)]
        {
            if text.is_empty() || text.len() > NAME_BYTES_MAX || text.contains('\0') {
                problems.push(format!(
                    "job {}: {field} must have 1 to {NAME_BYTES_MAX} bytes and no NUL, and has {} bytes",
                    job.id,
                    text.len()
                ));
            }
        }
        let said = job.retry.problems().into_iter().chain(job.key_problems());
        problems.extend(said.map(|problem| format!("job {}: {problem}", job.id)));
        if job.input.contains('\0') {
            problems.push(format!("job {}: input holds a NUL byte, which is not JSON", job.id));
        }
    }
    if problems.is_empty() { Ok(()) } else { Err(Error::Invalid(problems.join("; "))) }
}

/// The longest delay that is kept, in microseconds: 146,000 years. Added to any present it stays in range.
const DELAY_US_MAX: i64 = i64::MAX / 2;

/// A delay as the database adds it to its clock.
pub(in super::super) fn delay_micros(delay: Duration) -> i64 {
    micros(delay).min(DELAY_US_MAX)
}

/// What became of a submit without keys, from the ids that were new.
pub(in super::super) fn submitted(
    new: &[NewJob],
    fresh: &HashSet<Uuid>,
    effects: &mut Effects,
) -> Vec<Submitted> {
    new.iter()
        .map(|job| {
            let existed = !fresh.contains(&job.id.uuid());
            if !existed {
                effects.queued(&job.queue);
            }
            Submitted { id: job.id, existed, replaced: false }
        })
        .collect()
}

/// The ids that an insert answers.
pub(in super::super) fn ids_of(rows: &[Row]) -> Result<HashSet<Uuid>> {
    rows.iter().map(|row| Ok(row.try_get("id")?)).collect()
}

/// A job that was just claimed, from the columns that the bulk statement returns.
pub(in super::super) fn claimed(row: &Row, claim: Uuid, now: Timestamp) -> Result<ClaimedJob> {
    let retry: &str = row.try_get("retry")?;
    Ok(ClaimedJob {
        token: LeaseToken { job: JobId::from_uuid(row.try_get("id")?), epoch: row.try_get("epoch")?, claim },
        namespace: row.try_get("namespace")?,
        queue: row.try_get("queue")?,
        handler: row.try_get("handler")?,
        input: row.try_get("input")?,
        attempt: count(row, "attempt")?,
        retry: json("retry", retry)?,
        attempts_max: count(row, "attempts_max")?,
        timeout: milliseconds(row, "timeout_ms")?,
        correlation_id: row.try_get("correlation_id")?,
        trace_context: row.try_get("trace_context")?,
        workflow: row.try_get::<Option<Uuid>, _>("workflow_id")?.map(WorkflowId::from_uuid),
        step: row.try_get("step")?,
        view: row.try_get::<Option<Uuid>, _>("view_id")?.map(ViewId::from_uuid),
        waited: Duration::from_micros(
            u64::try_from(now.micros().saturating_sub(row.try_get::<i64, _>("due_at")?)).unwrap_or(0),
        ),
        checkpoint: row.try_get("checkpoint")?,
        is_limited: false,
    })
}

/// Inserts one job, which may build a version of a view.
pub(super) async fn insert(
    db: &mut Connection,
    now: Timestamp,
    job: &NewJob,
    build: Option<(ViewId, i64)>,
) -> Result<()> {
    sqlx::query(
        "INSERT INTO jobs (id, namespace, queue, handler, state, priority, due_at, input, retry, attempts_max, \
         timeout_ms, correlation_id, trace_context, view_id, view_version, created_at, concurrency_key) \
         VALUES ($1, $2, $3, $4, 'queued', $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16)",
    )
    .bind(job.id.uuid())
    .bind(&job.namespace)
    .bind(&job.queue)
    .bind(&job.handler)
    .bind(job.priority)
    .bind(due_micros(job.due, now))
    .bind(&job.input)
    .bind(to_json(&job.retry)?)
    .bind(i64::from(job.retry.attempts_max))
    .bind(timeout_ms(job.timeout))
    .bind(&job.correlation_id)
    .bind(&job.trace_context)
    .bind(build.map(|(view, _)| view.uuid()))
    .bind(build.map(|(_, version)| version))
    .bind(now.micros())
    .bind(&job.concurrency_key)
    .execute(db)
    .await?;
    Ok(())
}

/// A locked job, as far as moving it needs to know.
#[derive(Debug, Clone)]
pub(in super::super) struct Locked {
    pub(super) id: JobId,
    pub(in super::super) state: JobState,
    pub(super) queue: String,
    pub(super) epoch: i64,
    claim: Option<Uuid>,
    pub(super) attempt: u32,
    pub(super) attempts_max: u32,
    retry: String,
    transitions: i64,
    started_at: Option<Timestamp>,
    pub(super) session: Option<Uuid>,
    pub(super) workflow: Option<WorkflowId>,
    pub(super) view: Option<ViewId>,
    /// What it publishes at its ends.
    publishes: Option<String>,
    pub(super) batch: Option<BatchId>,
    pub(super) handler: String,
    pub(super) namespace: String,
    pub(super) step: Option<String>,
    pub(super) kind: StepKind,
    pub(super) parent: Option<JobId>,
    pub(super) sub_workflow: Option<WorkflowId>,
}

impl Locked {
    pub(super) fn retry(&self) -> Result<RetryPolicy> {
        json("retry", &self.retry)
    }

    /// Whether `token` is the one that was issued last and not taken away since.
    pub(super) fn issued(&self, token: LeaseToken) -> bool {
        self.epoch == token.epoch && self.claim == Some(token.claim)
    }

    /// Whether `token` still gives the right to the job.
    pub(super) fn held_by(&self, token: LeaseToken) -> std::result::Result<(), Revoked> {
        if self.state == JobState::Running && self.issued(token) {
            Ok(())
        } else {
            Err(Revoked::by_state(self.state))
        }
    }
}

/// Locks a job. Its view and workflow must be locked before ([`lock_links`]).
pub(in super::super) async fn lock(db: &mut Connection, job: JobId) -> Result<Option<Locked>> {
    let row = sqlx::query(concat!(
        "SELECT id, state, queue, epoch, claim, attempt, attempts_max, retry, transitions, started_at, session_id, \
         workflow_id, view_id, handler, namespace, step, step_kind, parent_id, sub_workflow_id, batch_id, publishes \
         FROM jobs WHERE id = $1",
        for_update!()
    ))
    .bind(job.uuid())
    .fetch_optional(db)
    .await?;
    row.map(|row| {
        Ok(Locked {
            id: JobId::from_uuid(row.try_get("id")?),
            state: state(&row, "state")?,
            queue: row.try_get("queue")?,
            epoch: row.try_get("epoch")?,
            claim: row.try_get("claim")?,
            attempt: count(&row, "attempt")?,
            attempts_max: count(&row, "attempts_max")?,
            retry: row.try_get("retry")?,
            transitions: row.try_get("transitions")?,
            started_at: instant(&row, "started_at")?,
            session: row.try_get("session_id")?,
            workflow: row.try_get::<Option<Uuid>, _>("workflow_id")?.map(WorkflowId::from_uuid),
            view: row.try_get::<Option<Uuid>, _>("view_id")?.map(ViewId::from_uuid),
            publishes: row.try_get("publishes")?,
            batch: row.try_get::<Option<Uuid>, _>("batch_id")?.map(BatchId::from_uuid),
            handler: row.try_get("handler")?,
            namespace: row.try_get("namespace")?,
            step: row.try_get("step")?,
            kind: kind(&row)?,
            parent: row.try_get::<Option<Uuid>, _>("parent_id")?.map(JobId::from_uuid),
            sub_workflow: row.try_get::<Option<Uuid>, _>("sub_workflow_id")?.map(WorkflowId::from_uuid),
        })
    })
    .transpose()
}

/// Locks the views and workflows that these jobs belong to, in the one order.
pub(super) async fn lock_links(db: &mut Connection, jobs: &[JobId]) -> Result<()> {
    let jobs: Vec<Uuid> = jobs.iter().map(|job| job.uuid()).collect();
    bulk::links_lock(db, &jobs).await
}

/// What a move changes besides the state.
#[derive(Debug, Clone, Default)]
pub(super) struct Change {
    /// The result.
    pub(super) output: Option<String>,
    /// The attempt's error; kept in history too.
    pub(super) error: Option<JobError>,
    /// When it may run again; now if not said.
    pub(super) due_at: Option<Timestamp>,
    /// The version for whose sake it ends.
    pub(super) superseded_by: Option<i64>,
    /// Not its worker says so: the worker's token becomes void, whatever the event.
    pub(super) by_force: bool,
    /// The attempt did not count.
    pub(super) uncount_attempt: bool,
    /// An operator grants a new set of attempts.
    pub(super) renew_attempts: bool,
    /// Who says so, and why; kept in history where there is no error.
    pub(super) word: Option<Word>,
    /// Why, for people; kept with the job and in history where there is neither an error nor a word.
    pub(super) note: Option<String>,
    /// Children or steps that it waits for from now on.
    pub(super) waiting_on: i64,
    /// What becomes of its dead letter.
    pub(super) letter: Deposit,
}

/// Whether somebody need look at a job that fails.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) enum Deposit {
    /// It leaves a dead letter.
    #[default]
    Written,
    /// Nobody asked for one.
    LeftOut,
}

/// Moves a locked job as the table of transitions allows, with its history row and what follows for its
/// workflow. `None` when the event cannot happen in its state. Taking a running job away from its worker
/// (cancel, supersede, reclaim) raises the epoch, so that the worker's token is void for good.
pub(super) async fn advance(
    db: &mut Connection,
    now: Timestamp,
    job: &Locked,
    event: JobEvent,
    change: Change,
    effects: &mut Effects,
) -> Result<Option<JobState>> {
    let mut following = Vec::new();
    let to = advance_one(db, now, job, event, change, &mut following, effects).await?;
    follow(db, now, following, effects).await?;
    Ok(to)
}

/// Carries out what follows for other steps, and what follows from that. A list rather than recursion: a chain of skipped steps
/// may be as long as a template.
pub(super) async fn follow(
    db: &mut Connection,
    now: Timestamp,
    mut following: Vec<Following>,
    effects: &mut Effects,
) -> Result<()> {
    while let Some(next) = following.pop() {
        let Some(job) = lock(db, next.job).await? else { continue };
        let error =
            (next.event == JobEvent::Cancel).then(|| JobError::new(ErrorKind::Cancelled, &next.reason));
        let note = error.is_none().then_some(next.reason);
        let change = Change { error, note, by_force: true, ..Change::default() };
        advance_one(db, now, &job, next.event, change, &mut following, effects).await?;
    }
    Ok(())
}

/// What happens to another step because one has moved.
#[derive(Debug)]
pub(super) struct Following {
    pub(super) job: JobId,
    pub(super) event: JobEvent,
    pub(super) reason: String,
}

async fn advance_one(
    db: &mut Connection,
    now: Timestamp,
    job: &Locked,
    event: JobEvent,
    mut change: Change,
    following: &mut Vec<Following>,
    effects: &mut Effects,
) -> Result<Option<JobState>> {
    // One that never began may have failed because it waited for too long: what it waits for is looked at again.
    let waits = if event == JobEvent::OperatorRetry && job.started_at.is_none() && job.parent.is_none() {
        steps::waits_of(db, job).await?
    } else {
        steps::Waits::default()
    };
    let event = if waits.open > 0 { JobEvent::OperatorWait } else { event };
    change.waiting_on += waits.open;
    let Some(to) = job.state.after(event) else { return Ok(None) };
    // The clock was read before the job was locked, and the claim that was waited for has a later time.
    let now = job.started_at.map_or(now, |started| started.max(now));
    let takes_away = job.state == JobState::Running
        && (change.by_force
            || matches!(
                event,
                JobEvent::Cancel
                    | JobEvent::Supersede
                    | JobEvent::Reclaim
                    | JobEvent::OperatorComplete
                    | JobEvent::Expire
            ));
    let epoch = if takes_away { job.epoch + 1 } else { job.epoch };
    let attempt = if change.uncount_attempt { job.attempt.saturating_sub(1) } else { job.attempt };
    let attempts_max = if change.renew_attempts {
        job.attempt.saturating_add(job.retry()?.attempts_max)
    } else {
        job.attempts_max
    };
    let is_renewed = matches!(event, JobEvent::OperatorRetry | JobEvent::OperatorWait);
    let due_at = (to == JobState::Queued).then(|| change.due_at.unwrap_or(now).micros());
    let error = change.error.as_ref().map(to_json).transpose()?;
    let said =
        change.word.as_ref().map(|word| format!("{}: {}", word.actor, word.reason)).or(change.note.clone());
    let (output, spilled) = match change.output {
        Some(output) if output.len() > RESULT_INLINE_BYTES_MAX => (None, Some(output)),
        output => (output, None),
    };
    if let Some(output) = &spilled {
        spill(db, job.id, output).await?;
    }
    // Blocked, it waits for as many as is said; anywhere else for nothing, but a step that is called off keeps its count.
    let waiting_on = match to {
        JobState::Blocked => Some(change.waiting_on),
        JobState::Completed | JobState::Failed => Some(0),
        _ => None,
    };
    sqlx::query(
        "UPDATE jobs SET state = $2, epoch = $3, attempt = $4, attempts_max = $5, due_at = COALESCE($6, due_at), \
         output = COALESCE($7, output), error = COALESCE($8, error), superseded_by = COALESCE($9, superseded_by), \
         finished_at = $10, session_id = NULL, transitions = transitions + 1, message = COALESCE($11, message), \
         waiting_on = COALESCE($12, waiting_on), \
         wait_until = CASE WHEN $13 THEN NULL ELSE wait_until END WHERE id = $1",
    )
    .bind(job.id.uuid())
    .bind(to.as_str())
    .bind(epoch)
    .bind(i64::from(attempt))
    .bind(i64::from(attempts_max))
    .bind(due_at)
    .bind(&output)
    .bind(&error)
    .bind(change.superseded_by)
    .bind(to.is_terminal().then_some(now.micros()))
    .bind(change.note)
    .bind(waiting_on)
    .bind(is_renewed)
    .execute(&mut *db)
    .await?;
    history(
        db,
        &Transition {
            job: job.id,
            seq: job.transitions + 1,
            from: job.state,
            to,
            attempt,
            epoch,
            session: job.session,
            detail: error.as_deref().or(said.as_deref()),
        },
        now,
    )
    .await?;
    if let Some(declared) = &job.publishes
        && let Some(end) = StepEnd::of(job.state, to, change.error.as_ref())
    {
        let output = output.as_deref().or(spilled.as_deref());
        let ended = Ended { end, attempt: job.attempt, output, error: change.error.as_ref() };
        events::publish(db, now, job.id, declared, &ended, effects).await?;
    }
    if change.letter == Deposit::Written {
        follow_letter(db, now, job, event, to, change.word).await?;
    }
    if let Some(workflow) = job.workflow
        && (is_renewed || event == JobEvent::OperatorResolve)
    {
        let above = [Some(workflow.uuid()), job.parent.map(JobId::uuid)];
        lifecycles::renew(db, now, job.id, above).await?;
    }
    if waits.skipped > 0 {
        following.extend(steps::skips_set(db, job.id, &waits, effects).await?);
    }
    if to == JobState::Queued {
        effects.queued(&job.queue);
    }
    if takes_away {
        effects.revoked(job.id);
    }
    if let Some(sub_workflow) = job.sub_workflow {
        let why = match (event, to) {
            (_, JobState::Cancelled) => Some("the step or the build that it does was cancelled"),
            (_, JobState::Superseded) => Some("the build that it does was superseded"),
            (JobEvent::Fail | JobEvent::RetryLater, _) if job.view.is_some() => {
                Some("the build that it does has failed")
            }
            (JobEvent::Expire, _) => Some("the step that it does took too long"),
            _ => None,
        };
        if let Some(why) = why {
            workflows::cancel(db, now, sub_workflow, why, effects).await?;
        }
    }
    if let Some(workflow) = job.workflow {
        workflows::step_moved(db, now, workflow, job, to, following, effects).await?;
    }
    if let Some(batch) = job.batch {
        let (from, to) = (MemberEnd::of_job(job.state), MemberEnd::of_job(to));
        batches::member_moved(db, now, batch, from, to, effects).await?;
    }
    Ok(Some(to))
}

/// A result that is too large for the job's row goes to a table of its own.
async fn spill(db: &mut Connection, job: JobId, output: &str) -> Result<()> {
    sqlx::query(
        "INSERT INTO job_results (job_id, output) VALUES ($1, $2) ON CONFLICT (job_id) DO UPDATE SET \
         output = excluded.output",
    )
    .bind(job.uuid())
    .bind(output)
    .execute(db)
    .await?;
    Ok(())
}

/// A job that fails for good leaves a dead letter; an operator who moves it on is done with the letter.
async fn follow_letter(
    db: &mut Connection,
    now: Timestamp,
    job: &Locked,
    event: JobEvent,
    to: JobState,
    word: Option<Word>,
) -> Result<()> {
    let status = match event {
        JobEvent::OperatorRetry | JobEvent::OperatorWait => LetterStatus::Redriven,
        JobEvent::OperatorResolve => LetterStatus::Resolved,
        _ if to == JobState::Failed && job.view.is_none() => return letters::deposit(db, now, job.id).await,
        _ => return Ok(()),
    };
    let word = word.unwrap_or_else(|| Word::new("operator", "the job itself was retried"));
    letters::close(db, now, job.id, status, &word).await
}

/// A queued job takes over what another one of its unique key says, and keeps its id, its history and its last error.
pub(super) async fn replace(
    db: &mut Connection,
    now: Timestamp,
    job: &Locked,
    new: &NewJob,
    effects: &mut Effects,
) -> Result<()> {
    sqlx::query(
        "UPDATE jobs SET queue = $2, input = $3, priority = $4, due_at = $5, retry = $6, attempts_max = attempt + $7, \
         timeout_ms = $8, correlation_id = $9, trace_context = $10, concurrency_key = $11, checkpoint = NULL, \
         transitions = transitions + 1 WHERE id = $1",
    )
    .bind(job.id.uuid())
    .bind(&new.queue)
    .bind(&new.input)
    .bind(new.priority)
    .bind(due_micros(new.due, now))
    .bind(to_json(&new.retry)?)
    .bind(i64::from(new.retry.attempts_max))
    .bind(timeout_ms(new.timeout))
    .bind(&new.correlation_id)
    .bind(&new.trace_context)
    .bind(&new.concurrency_key)
    .execute(&mut *db)
    .await?;
    let transition = Transition {
        job: job.id,
        seq: job.transitions + 1,
        from: job.state,
        to: job.state,
        attempt: job.attempt,
        epoch: job.epoch,
        session: None,
        detail: Some("replaced by a later submit of its unique key"),
    };
    history(db, &transition, now).await?;
    effects.queued(&new.queue);
    Ok(())
}

/// A history row to be.
pub(super) struct Transition<'a> {
    pub(super) job: JobId,
    pub(super) seq: i64,
    pub(super) from: JobState,
    pub(super) to: JobState,
    pub(super) attempt: u32,
    pub(super) epoch: i64,
    pub(super) session: Option<Uuid>,
    pub(super) detail: Option<&'a str>,
}

pub(super) async fn history(db: &mut Connection, row: &Transition<'_>, now: Timestamp) -> Result<()> {
    sqlx::query(
        "INSERT INTO job_history (job_id, seq, at, from_state, to_state, attempt, epoch, session_id, detail) \
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9)",
    )
    .bind(row.job.uuid())
    .bind(row.seq)
    .bind(now.micros())
    .bind(row.from.as_str())
    .bind(row.to.as_str())
    .bind(i64::from(row.attempt))
    .bind(row.epoch)
    .bind(row.session)
    .bind(row.detail)
    .execute(db)
    .await?;
    Ok(())
}

pub(in super::super) async fn cancel(
    db: &mut Connection,
    now: Timestamp,
    job: JobId,
    reason: &str,
    effects: &mut Effects,
) -> Result<(JobState, bool)> {
    lock_links(db, &[job]).await?;
    build_workflows::before_end(db, job).await?;
    let locked = lock(db, job).await?.ok_or_else(|| Error::not_found("job", job))?;
    let error = JobError::new(ErrorKind::Cancelled, reason);
    let change = Change { error: Some(error), ..Change::default() };
    match advance(db, now, &locked, JobEvent::Cancel, change, effects).await? {
        Some(state) => {
            if let Some(view) = locked.view {
                views::build_ended(db, now, view, &format!("its build was cancelled: {reason}"), effects)
                    .await?;
            }
            Ok((state, true))
        }
        None => Ok((locked.state, false)),
    }
}

pub(in super::super) async fn retry(
    db: &mut Connection,
    now: Timestamp,
    job: JobId,
    effects: &mut Effects,
) -> Result<()> {
    lock_links(db, &[job]).await?;
    let locked = lock(db, job).await?.ok_or_else(|| Error::not_found("job", job))?;
    if locked.view.is_some() {
        return Err(Error::Conflict(format!("job `{job}` builds a view: touch or rebuild the view instead")));
    }
    if let Some(workflow) = locked.workflow {
        build_workflows::check_goes_on(db, workflow).await?;
    }
    let change = Change { renew_attempts: true, ..Change::default() };
    match advance(db, now, &locked, JobEvent::OperatorRetry, change, effects).await {
        Err(error) if error.is_unique_violation() => Err(Error::Conflict(format!(
            "another job of the unique key of `{job}` is there: wait until it has ended"
        ))),
        Err(error) => Err(error),
        Ok(Some(_)) => Ok(()),
        Ok(None) => {
            Err(Error::Conflict(format!("job `{job}` is {}; only a failed job can be retried", locked.state)))
        }
    }
}

pub(in super::super) async fn progress(
    db: &mut Connection,
    token: LeaseToken,
    progress: f64,
    message: Option<&str>,
) -> Result<Option<Revoked>> {
    if !(0.0..=1.0).contains(&progress) {
        return Err(Error::Invalid(format!("progress is {progress}; it must be between 0 and 1")));
    }
    let changed = sqlx::query(
        "UPDATE jobs SET progress = $4, message = COALESCE($5, message) \
         WHERE id = $1 AND state = 'running' AND epoch = $2 AND claim = $3",
    )
    .bind(token.job.uuid())
    .bind(token.epoch)
    .bind(token.claim)
    .bind(progress)
    .bind(message)
    .execute(&mut *db)
    .await?
    .rows_affected();
    if changed == 1 { Ok(None) } else { Ok(revoked(db, &[token]).await?.pop().map(|(_, why)| why)) }
}

/// Which of these tokens are no longer good, and why.
pub(in super::super) async fn revoked(
    db: &mut Connection,
    tokens: &[LeaseToken],
) -> Result<Vec<(JobId, Revoked)>> {
    let wanted: Vec<Uuid> = tokens.iter().map(|token| token.job.uuid()).collect();
    let rows = sqlx::query(concat!("SELECT id, state, epoch, claim FROM jobs WHERE id ", in_ids!("$1")))
        .bind(ids(&wanted))
        .fetch_all(db)
        .await?;
    let mut found = std::collections::HashMap::with_capacity(rows.len());
    for row in rows {
        let id: Uuid = row.try_get("id")?;
        let epoch: i64 = row.try_get("epoch")?;
        let claim: Option<Uuid> = row.try_get("claim")?;
        found.insert(id, (state(&row, "state")?, epoch, claim));
    }
    Ok(tokens
        .iter()
        .filter_map(|token| match found.get(&token.job.uuid()) {
            None => Some((token.job, Revoked::Gone)),
            Some((JobState::Running, epoch, claim))
                if *epoch == token.epoch && *claim == Some(token.claim) =>
            {
                None
            }
            Some((state, _, _)) => Some((token.job, Revoked::by_state(*state))),
        })
        .collect())
}

/// The database's value of a duration in microseconds.
pub(super) fn duration(value: Option<i64>) -> Option<Duration> {
    value.map(|us| Duration::from_micros(u64::try_from(us).unwrap_or(0)))
}

/// A duration as the database keeps it.
pub(super) fn duration_micros(value: Option<Duration>) -> Option<i64> {
    value.map(micros)
}
