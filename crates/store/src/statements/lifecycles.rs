//! Limits of time: kept beside the steps and workflows that have any, judged by whoever leads maintenance.

use recache_model::ids::{JobId, WorkflowId};
use recache_model::job::{AfterFailure, ErrorKind, JobError, JobEvent, JobState, after_failure};
use recache_model::letter::LetterStatus;
use recache_model::lifecycle::{LimitName, Passed, Phase, STALLED, Standing, TimeLimits};
use recache_model::retry::RetryPolicy;
use recache_model::time::Timestamp;
use sqlx::Row as _;
use std::time::Duration;
use uuid::Uuid;

use super::super::{Connection, bulk};
use super::effects::Effects;
use super::jobs::{self, Change, Deposit, Locked};
use super::{attempts, letters};
use crate::error::Result;
use crate::flow::{FLOW, LimitsRecord};
use crate::maintenance::LimitsJudged;
use crate::queues::Word;

/// Rows that one statement inserts.
const ROWS_MAX: usize = 2_000;
/// Steps of one workflow, or runs of one step, that one look fails; the next look goes on.
const EXPIRED_MAX: u64 = 200;
/// What has an open letter and no limit left is looked at again after this long: the letter is closed with it.
const LOOK_AGAIN: Duration = Duration::from_mins(5);

/// A row to be.
#[derive(Debug, Clone)]
pub(in super::super) struct LimitRow {
    pub(in super::super) subject: Uuid,
    pub(in super::super) limits: String,
    pub(in super::super) look_at: i64,
}

/// Keeps the limits of what was submitted just now.
pub(super) async fn insert(
    db: &mut Connection,
    now: Timestamp,
    workflow: WorkflowId,
    subjects: impl IntoIterator<Item = (Uuid, TimeLimits)>,
) -> Result<()> {
    let mut rows = Vec::new();
    for (subject, limits) in subjects {
        if let Some(look_at) = limits.first_look(now) {
            rows.push(LimitRow { subject, limits: jobs::to_json(&limits)?, look_at: look_at.micros() });
        }
    }
    for rows in rows.chunks(ROWS_MAX) {
        bulk::lifecycles_insert(db, now, workflow, rows).await?;
    }
    Ok(())
}

/// An operator moves a step on: its limits count from now, and so do those of its workflow and of the step that was split into it, if
/// they had been judged or had ended.
pub(super) async fn renew(
    db: &mut Connection,
    now: Timestamp,
    job: JobId,
    above: [Option<Uuid>; 2],
) -> Result<()> {
    sqlx::query(
        "UPDATE lifecycles SET found = '[]', counted_from = $4, look_at = $4 \
         WHERE subject_id = $1 OR ((subject_id = $2 OR subject_id = $3) AND look_at IS NULL)",
    )
    .bind(job.uuid())
    .bind(above[0])
    .bind(above[1])
    .bind(now.micros())
    .execute(db)
    .await?;
    Ok(())
}

/// Forgets the limits of workflows and their steps.
pub(super) async fn remove(db: &mut Connection, workflow: Uuid) -> Result<()> {
    sqlx::query("DELETE FROM lifecycles WHERE workflow_id = $1").bind(workflow).execute(db).await?;
    Ok(())
}

pub(super) async fn list(
    db: &mut Connection,
    workflow: WorkflowId,
    found_only: bool,
    rows_max: u32,
) -> Result<Vec<LimitsRecord>> {
    let rows = sqlx::query(
        "SELECT j.step, l.limits, l.found, l.counted_from, l.look_at FROM lifecycles l LEFT JOIN jobs j \
         ON j.id = l.subject_id WHERE l.workflow_id = $1 AND (NOT $2 OR l.found <> '[]') \
         ORDER BY CASE WHEN j.step IS NULL THEN 0 ELSE 1 END, j.step LIMIT $3",
    )
    .bind(workflow.uuid())
    .bind(found_only)
    .bind(i64::from(rows_max))
    .fetch_all(db)
    .await?;
    rows.iter()
        .map(|row| {
            Ok(LimitsRecord {
                step: row.try_get("step")?,
                limits: jobs::json("limits", row.try_get("limits")?)?,
                found: jobs::json("found", row.try_get("found")?)?,
                counted_from: Timestamp::from_micros(row.try_get("counted_from")?),
                look_at: jobs::instant(row, "look_at")?,
            })
        })
        .collect()
}

/// Looks at what is due, at most `rows_max`, the longest due first.
pub(super) async fn judge(
    db: &mut Connection,
    now: Timestamp,
    rows_max: u32,
    effects: &mut Effects,
) -> Result<LimitsJudged> {
    let due = sqlx::query(
        "SELECT subject_id, workflow_id FROM lifecycles WHERE look_at IS NOT NULL AND look_at <= $1 \
         ORDER BY look_at LIMIT $2",
    )
    .bind(now.micros())
    .bind(i64::from(rows_max))
    .fetch_all(&mut *db)
    .await?;
    let mut subjects: Vec<(Uuid, Uuid)> = Vec::with_capacity(due.len());
    for row in &due {
        subjects.push((row.try_get("subject_id")?, row.try_get("workflow_id")?));
    }
    let mut workflows: Vec<Uuid> = subjects.iter().map(|(_, workflow)| *workflow).collect();
    workflows.sort_unstable();
    workflows.dedup();
    for workflow in workflows {
        sqlx::query(concat!("SELECT id FROM workflows WHERE id = $1", for_update!()))
            .bind(workflow)
            .fetch_optional(&mut *db)
            .await?;
    }
    let mut judged = LimitsJudged {
        looked_at: u64::try_from(subjects.len()).unwrap_or(u64::MAX),
        ..LimitsJudged::default()
    };
    for (subject, workflow) in subjects {
        let Some(watched) = watched(db, now, subject).await? else { continue };
        let next = if subject == workflow {
            of_workflow(db, now, WorkflowId::from_uuid(workflow), &watched, &mut judged, effects).await?
        } else {
            of_step(db, now, JobId::from_uuid(subject), &watched, &mut judged, effects).await?
        };
        sqlx::query("UPDATE lifecycles SET found = $2, look_at = $3 WHERE subject_id = $1")
            .bind(subject)
            .bind(jobs::to_json(&next.found)?)
            .bind(next.look_at.map(Timestamp::micros))
            .execute(&mut *db)
            .await?;
    }
    Ok(judged)
}

/// A row as it is, under the lock of its workflow.
struct Watched {
    limits: TimeLimits,
    found: Vec<LimitName>,
    counted_from: Timestamp,
}

/// What the row says from now on.
struct Next {
    found: Vec<LimitName>,
    look_at: Option<Timestamp>,
}

impl Next {
    /// Nothing is left to judge.
    fn never(watched: &Watched) -> Self {
        Self { found: watched.found.clone(), look_at: None }
    }
}

/// `None` when it was judged meanwhile.
async fn watched(db: &mut Connection, now: Timestamp, subject: Uuid) -> Result<Option<Watched>> {
    let row = sqlx::query(concat!(
        "SELECT limits, found, counted_from FROM lifecycles WHERE subject_id = $1 AND look_at <= $2",
        for_update!()
    ))
    .bind(subject)
    .bind(now.micros())
    .fetch_optional(db)
    .await?;
    row.map(|row| {
        Ok(Watched {
            limits: jobs::json("limits", row.try_get("limits")?)?,
            found: jobs::json("found", row.try_get("found")?)?,
            counted_from: Timestamp::from_micros(row.try_get("counted_from")?),
        })
    })
    .transpose()
}

async fn of_step(
    db: &mut Connection,
    now: Timestamp,
    id: JobId,
    watched: &Watched,
    judged: &mut LimitsJudged,
    effects: &mut Effects,
) -> Result<Next> {
    let Some(job) = jobs::lock(db, id).await? else { return Ok(Next::never(watched)) };
    if job.state.is_terminal() {
        close_letter(db, now, &job).await?;
        return Ok(Next::never(watched));
    }
    let (phase, since) = phase(db, &job).await?;
    let standing = Standing { counted_from: watched.counted_from, phase, since, found: &watched.found };
    let verdict = watched.limits.judge(now, &standing);
    let mut next = Next { found: watched.found.clone(), look_at: verdict.look_at };
    for passed in &verdict.passed {
        next.found.push(passed.name);
        judged.passed += 1;
        if !passed.limit.fails {
            tell(db, now, &job, passed, "the step", judged).await?;
            continue;
        }
        if expire_step(db, now, &job, passed, judged, effects).await? {
            // What is left of a step that was split is judged with it, or ends by itself.
            return Ok(Next { found: next.found, look_at: None });
        }
        return Ok(Next { found: watched.found.clone(), look_at: Some(now) });
    }
    if let Some(silent) = verdict.stalled {
        judged.stalled += 1;
        take_away(db, now, &job, silent, effects).await?;
        judged.failed += u64::from(job.attempt >= job.attempts_max);
    }
    Ok(while_letter_is_open(now, watched, next))
}

async fn of_workflow(
    db: &mut Connection,
    now: Timestamp,
    id: WorkflowId,
    watched: &Watched,
    judged: &mut LimitsJudged,
    effects: &mut Effects,
) -> Result<Next> {
    let row = sqlx::query("SELECT state FROM workflows WHERE id = $1")
        .bind(id.uuid())
        .fetch_optional(&mut *db)
        .await?;
    let state: Option<String> = row.map(|row| row.try_get("state")).transpose()?;
    if state.as_deref() != Some("running") {
        let ended = sqlx::query(
            "SELECT j.id FROM jobs j JOIN dead_letters d ON d.job_id = j.id WHERE j.workflow_id = $1 \
             AND d.status IN ('pending', 'investigating') AND j.state IN ('completed', 'skipped', 'resolved', 'cancelled') \
             ORDER BY j.id",
        )
        .bind(id.uuid())
        .fetch_all(&mut *db)
        .await?;
        for row in ended {
            if let Some(job) = jobs::lock(db, JobId::from_uuid(row.try_get("id")?)).await? {
                close_letter(db, now, &job).await?;
            }
        }
        return Ok(Next::never(watched));
    }
    let standing = Standing {
        counted_from: watched.counted_from,
        phase: Phase::Other,
        since: watched.counted_from,
        found: &watched.found,
    };
    let verdict = watched.limits.judge(now, &standing);
    let mut next = Next { found: watched.found.clone(), look_at: verdict.look_at };
    for passed in &verdict.passed {
        judged.passed += 1;
        if passed.limit.fails {
            if expire_workflow(db, now, id, passed, judged, effects).await? {
                next.found.push(passed.name);
                return Ok(Next { found: next.found, look_at: None });
            }
            return Ok(Next { found: watched.found.clone(), look_at: Some(now) });
        }
        next.found.push(passed.name);
        // It has no row of its own among the letters and the lines: the step that it waits for now stands for it.
        let first = sqlx::query(
            "SELECT id FROM jobs WHERE workflow_id = $1 AND state IN ('blocked', 'queued', 'running') ORDER BY CASE state \
             WHEN 'running' THEN 1 WHEN 'queued' THEN 2 ELSE 3 END, id LIMIT 1",
        )
        .bind(id.uuid())
        .fetch_optional(&mut *db)
        .await?;
        if let Some(row) = first
            && let Some(job) = jobs::lock(db, JobId::from_uuid(row.try_get("id")?)).await?
        {
            tell(db, now, &job, passed, "the workflow", judged).await?;
        }
    }
    Ok(while_letter_is_open(now, watched, next))
}

fn while_letter_is_open(now: Timestamp, watched: &Watched, next: Next) -> Next {
    let limits = &watched.limits;
    let letter = |name: &LimitName| limits.named(*name).is_some_and(|limit| limit.letter);
    let has_letter = next.found.iter().any(letter);
    let again = has_letter.then(|| now.plus(LOOK_AGAIN));
    Next { look_at: next.look_at.into_iter().chain(again).min(), ..next }
}

/// Where a step is, and since when. Its last row of history says when it came there; one that never moved is where it was made.
async fn phase(db: &mut Connection, job: &Locked) -> Result<(Phase, Timestamp)> {
    let row = sqlx::query(
        "SELECT created_at, started_at, checkpoint_at, EXISTS (SELECT 1 FROM jobs c WHERE c.parent_id = jobs.id) AS is_split \
         FROM jobs WHERE id = $1",
    )
    .bind(job.id.uuid())
    .fetch_one(&mut *db)
    .await?;
    let created_at = Timestamp::from_micros(row.try_get("created_at")?);
    let last = sqlx::query(
        "SELECT at, from_state, detail FROM job_history WHERE job_id = $1 ORDER BY seq DESC LIMIT 1",
    )
    .bind(job.id.uuid())
    .fetch_optional(db)
    .await?;
    let Some(last) = last else {
        let is_first = job.state == JobState::Blocked && job.parent.is_none();
        return Ok((if is_first { Phase::Dependencies } else { Phase::Other }, created_at));
    };
    let since = Timestamp::from_micros(last.try_get("at")?);
    let phase = match job.state {
        JobState::Blocked if job.parent.is_none() && !row.try_get::<bool, _>("is_split")? => {
            Phase::Dependencies
        }
        JobState::Queued
            if last.try_get::<&str, _>("from_state")? == JobState::Running.as_str()
                && last.try_get::<Option<&str>, _>("detail")?.is_some() =>
        {
            Phase::Retry
        }
        JobState::Running if job.handler != FLOW => {
            let progress_at = [jobs::instant(&row, "started_at")?, jobs::instant(&row, "checkpoint_at")?]
                .into_iter()
                .flatten()
                .max();
            Phase::Process { progress_at: progress_at.unwrap_or(since) }
        }
        _ => Phase::Other,
    };
    Ok((phase, since))
}

fn error_of(passed: &Passed, whose: &str) -> JobError {
    JobError {
        code: Some(passed.name.code().to_owned()),
        ..JobError::new(ErrorKind::Timeout, format!("{whose} {passed}"))
    }
}

/// It goes on, and whoever looks at it sees why somebody should.
async fn tell(
    db: &mut Connection,
    now: Timestamp,
    job: &Locked,
    passed: &Passed,
    whose: &str,
    judged: &mut LimitsJudged,
) -> Result<()> {
    let error = error_of(passed, whose);
    tracing::warn!(job_id = %job.id, step = job.step, limit = passed.name.field(), "{}", error.message);
    attempts::write_lines(db, now, job.id, job.attempt, std::slice::from_ref(&error.message)).await?;
    if passed.limit.letter && letters::deposit_stale(db, now, job.id, &error).await? {
        judged.letters += 1;
    }
    Ok(())
}

/// A step fails; one that waits for its runs fails by them, as it does when one of them fails by itself: it never goes on before
/// they have ended. False: there are more of them than one look fails.
async fn expire_step(
    db: &mut Connection,
    now: Timestamp,
    job: &Locked,
    passed: &Passed,
    judged: &mut LimitsJudged,
    effects: &mut Effects,
) -> Result<bool> {
    let error = error_of(passed, "the step");
    if job.state != JobState::Blocked || !is_split(db, job.id).await? {
        expire(db, now, job.id, &error, passed, judged, effects).await?;
        return Ok(true);
    }
    let mut expired = 0;
    while expired < EXPIRED_MAX {
        // The end of one may let another begin.
        let runs = sqlx::query(
            "SELECT id FROM jobs WHERE parent_id = $1 AND state IN ('blocked', 'queued', 'running') ORDER BY id LIMIT $2",
        )
        .bind(job.id.uuid())
        .bind(i64::try_from(EXPIRED_MAX - expired).unwrap_or(0))
        .fetch_all(&mut *db)
        .await?;
        if runs.is_empty() {
            return Ok(true);
        }
        for row in runs {
            expired += 1;
            expire(db, now, JobId::from_uuid(row.try_get("id")?), &error, passed, judged, effects).await?;
        }
    }
    Ok(false)
}

async fn is_split(db: &mut Connection, job: JobId) -> Result<bool> {
    let run = sqlx::query("SELECT id FROM jobs WHERE parent_id = $1 LIMIT 1")
        .bind(job.uuid())
        .fetch_optional(db)
        .await?;
    Ok(run.is_some())
}

/// What of a workflow can move fails, and so does the workflow; what is blocked stays, as behind any failure. False: there is
/// more of it than one look fails.
async fn expire_workflow(
    db: &mut Connection,
    now: Timestamp,
    id: WorkflowId,
    passed: &Passed,
    judged: &mut LimitsJudged,
    effects: &mut Effects,
) -> Result<bool> {
    let error = error_of(passed, "the workflow");
    let mut expired = 0;
    while expired < EXPIRED_MAX {
        // One failure may let another step go on, which then has to fail too.
        let active = sqlx::query(
            "SELECT id FROM jobs WHERE workflow_id = $1 AND state IN ('queued', 'running') ORDER BY id LIMIT $2",
        )
        .bind(id.uuid())
        .bind(i64::try_from(EXPIRED_MAX - expired).unwrap_or(0))
        .fetch_all(&mut *db)
        .await?;
        if active.is_empty() {
            return Ok(true);
        }
        for row in active {
            expired += 1;
            expire(db, now, JobId::from_uuid(row.try_get("id")?), &error, passed, judged, effects).await?;
        }
    }
    Ok(false)
}

async fn expire(
    db: &mut Connection,
    now: Timestamp,
    id: JobId,
    error: &JobError,
    passed: &Passed,
    judged: &mut LimitsJudged,
    effects: &mut Effects,
) -> Result<()> {
    let Some(job) = jobs::lock(db, id).await? else { return Ok(()) };
    let change = Change {
        error: Some(error.clone()),
        by_force: true,
        letter: if passed.limit.letter { Deposit::Written } else { Deposit::LeftOut },
        ..Change::default()
    };
    if jobs::advance(db, now, &job, JobEvent::Expire, change, effects).await?.is_some() {
        judged.failed += 1;
        judged.letters += u64::from(passed.limit.letter);
        tracing::warn!(job_id = %job.id, step = job.step, limit = passed.name.field(), "{}", error.message);
    }
    Ok(())
}

/// An attempt without a checkpoint for too long is taken away from its worker: made again from the last one kept, while attempts are
/// left.
async fn take_away(
    db: &mut Connection,
    now: Timestamp,
    job: &Locked,
    silent: Duration,
    effects: &mut Effects,
) -> Result<()> {
    let message = format!("no checkpoint was kept for {} min", silent.as_secs() / 60);
    let error = JobError { code: Some(STALLED.to_owned()), ..JobError::new(ErrorKind::Timeout, message) };
    let policy = RetryPolicy { attempts_max: job.attempts_max, ..job.retry()? };
    let change = Change { error: Some(error.clone()), by_force: true, ..Change::default() };
    tracing::warn!(job_id = %job.id, step = job.step, "{}", error.message);
    match after_failure(&policy, job.attempt, &error, 0.5) {
        AfterFailure::Retry(after) => {
            let change = Change { due_at: Some(now.plus(after)), ..change };
            jobs::advance(db, now, job, JobEvent::RetryLater, change, effects).await?;
        }
        AfterFailure::Fail => {
            jobs::advance(db, now, job, JobEvent::Fail, change, effects).await?;
        }
    }
    Ok(())
}

/// The letter that a limit left is done with when its step ended well or was called off.
async fn close_letter(db: &mut Connection, now: Timestamp, job: &Locked) -> Result<()> {
    if job.state == JobState::Failed {
        return Ok(());
    }
    let word = Word::new("recache", format!("the step has ended: {}", job.state));
    letters::close(db, now, job.id, LetterStatus::Resolved, &word).await
}
