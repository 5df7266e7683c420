//! Workflows: templates pinned, steps inserted, states derived.

use std::collections::HashMap;

use recache_model::ids::{JobId, WorkflowId};
use recache_model::job::{ErrorKind, JobError, JobState};
use recache_model::time::Timestamp;
use recache_model::workflow::{StepCounts, WorkflowState};
use sqlx::Row as _;
use uuid::Uuid;

use super::super::{Connection, Row};
use super::effects::Effects;
use super::jobs::{self, Following, Locked};
use super::steps::{self, StepRow};
use super::{batches, cache_epochs, given, lifecycles};
use crate::error::{Error, Result};
use crate::fail::fail_point;
use crate::flow::WorkflowFilter;
use crate::records::{
    CacheMark, CacheRaise, NewWorkflow, StepInputs, StepRecord, TemplateRecord, WorkflowRecord,
};

pub(in super::super) async fn template_put(
    db: &mut Connection,
    now: Timestamp,
    template: &TemplateRecord,
    raise: Option<&CacheRaise>,
    effects: &mut Effects,
) -> Result<()> {
    if template_insert(db, now, template).await? {
        template_raise(db, raise, effects).await?;
    }
    Ok(())
}

/// What says that there is no such template is outdated.
async fn template_raise(
    db: &mut Connection,
    raise: Option<&CacheRaise>,
    effects: &mut Effects,
) -> Result<()> {
    if let Some(raise) = raise {
        cache_epochs::raise(db, raise, CacheMark::default(), effects).await?;
    }
    Ok(())
}

/// True when it is new.
async fn template_insert(db: &mut Connection, now: Timestamp, template: &TemplateRecord) -> Result<bool> {
    let inserted = sqlx::query(
        "INSERT INTO templates (digest, namespace, name, version, content, created_at) \
         VALUES ($1, $2, $3, $4, $5, $6) ON CONFLICT DO NOTHING",
    )
    .bind(&template.digest)
    .bind(&template.namespace)
    .bind(&template.name)
    .bind(&template.version)
    .bind(&template.content)
    .bind(now.micros())
    .execute(&mut *db)
    .await?
    .rows_affected();
    if inserted > 0 {
        return Ok(true);
    }
    let row = sqlx::query("SELECT digest FROM templates WHERE namespace = $1 AND name = $2 AND version = $3")
        .bind(&template.namespace)
        .bind(&template.name)
        .bind(&template.version)
        .fetch_optional(db)
        .await?
        .ok_or_else(|| Error::broken(format!("template {} is stored under another name", template.digest)))?;
    let stored: String = row.try_get("digest")?;
    if stored == template.digest {
        return Ok(false);
    }
    Err(Error::Conflict(format!(
        "template {}/{} {} is stored with other content; versions are immutable: raise `version`",
        template.namespace, template.name, template.version
    )))
}

pub(in super::super) async fn template_get(db: &mut Connection, digest: &str) -> Result<TemplateRecord> {
    let row =
        sqlx::query("SELECT digest, namespace, name, version, content FROM templates WHERE digest = $1")
            .bind(digest)
            .fetch_optional(db)
            .await?
            .ok_or_else(|| Error::not_found("template", digest))?;
    template_record(&row)
}

pub(super) fn template_record(row: &Row) -> Result<TemplateRecord> {
    Ok(TemplateRecord {
        digest: row.try_get("digest")?,
        namespace: row.try_get("namespace")?,
        name: row.try_get("name")?,
        version: row.try_get("version")?,
        content: row.try_get("content")?,
    })
}

pub(in super::super) async fn submit(
    db: &mut Connection,
    now: Timestamp,
    workflow: &NewWorkflow,
    effects: &mut Effects,
) -> Result<bool> {
    jobs::check(workflow.steps.iter().map(|step| &step.job))?;
    if let Some(step) = workflow.steps.iter().find(|step| step.job.has_ties()) {
        return Err(Error::Invalid(format!(
            "step `{}`: a step has no unique key, no idempotency key and no batch of its own; its workflow has an id",
            step.name
        )));
    }
    let is_new_template = template_insert(db, now, &workflow.template).await?;
    let is_new = insert(db, now, workflow, None, effects).await?;
    if is_new_template {
        template_raise(db, workflow.template_raise.as_ref(), effects).await?;
    }
    Ok(is_new)
}

/// What a workflow is a part of.
#[derive(Debug, Clone, Copy)]
pub(super) struct Above {
    /// `None`: the build of a view.
    pub(super) workflow: Option<WorkflowId>,
    /// The step, or the build job, that it does.
    pub(super) step: JobId,
    pub(super) depth: i64,
    /// The build that all of it does.
    pub(super) build: Option<OfBuild>,
}

/// A build that a workflow does: its job, and the view's lease epoch, which another beginning of the build raises.
#[derive(Debug, Clone, Copy)]
pub(super) struct OfBuild {
    pub(super) job: JobId,
    pub(super) lease_epoch: i64,
}

/// True when it is new.
pub(super) async fn insert(
    db: &mut Connection,
    now: Timestamp,
    workflow: &NewWorkflow,
    above: Option<Above>,
    effects: &mut Effects,
) -> Result<bool> {
    let mut counts = StepCounts::default();
    for step in &workflow.steps {
        let waits = !step.waits_for.is_empty();
        counts.add(if waits { JobState::Blocked } else { JobState::Queued }, 1);
    }
    let state = counts.state();
    let inserted = sqlx::query(
        "INSERT INTO workflows (id, namespace, template_digest, state, input, correlation_id, created_at, \
         finished_at, steps_blocked, steps_active, steps_done, steps_failed, steps_cancelled, environment, parent_id, \
         parent_job_id, depth, build_job_id, build_epoch) \
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, 0, 0, 0, $11, $12, $13, $14, $15, $16) ON CONFLICT (id) DO NOTHING",
    )
    .bind(workflow.id.uuid())
    .bind(&workflow.template.namespace)
    .bind(&workflow.template.digest)
    .bind(state.as_str())
    .bind(&workflow.input)
    .bind(&workflow.correlation_id)
    .bind(now.micros())
    .bind((state != WorkflowState::Running).then_some(now.micros()))
    .bind(counts.blocked)
    .bind(counts.active)
    .bind(&workflow.environment)
    .bind(above.and_then(|above| above.workflow).map(WorkflowId::uuid))
    .bind(above.map(|above| above.step.uuid()))
    .bind(above.map_or(0, |above| above.depth))
    .bind(above.and_then(|above| above.build).map(|build| build.job.uuid()))
    .bind(above.and_then(|above| above.build).map(|build| build.lease_epoch))
    .execute(&mut *db)
    .await?
    .rows_affected();
    if inserted == 0 {
        return Ok(false);
    }
    let mut edges = Vec::new();
    let mut rows = Vec::with_capacity(workflow.steps.len());
    for step in &workflow.steps {
        for parent in &step.waits_for {
            let parent = workflow.steps.get(*parent).ok_or_else(|| {
                Error::Invalid(format!("step `{}` waits for a step that is not there", step.name))
            })?;
            edges.push((parent.job.id.uuid(), step.job.id.uuid()));
        }
        rows.push(StepRow {
            waiting_on: step.waits_for.len(),
            kind: step.kind,
            has_rules: step.has_rules,
            ..StepRow::new(&step.job, &step.name)
        });
    }
    steps::insert(db, now, workflow.id, &rows, effects).await?;
    fail_point!("workflow.after_rows");
    steps::edges_insert(db, &edges).await?;
    lifecycles::insert(db, now, workflow.id, [(workflow.id.uuid(), workflow.limits)]).await?;
    if let Some(takes_over) = &workflow.takes_over {
        given::take_over(db, workflow.id, takes_over, effects).await?;
    }
    Ok(true)
}

/// A step moved: unblocks what waited for it, keeps the counts, derives the workflow's state. The workflow's
/// row is locked by the caller. What follows for other steps is added to `following`.
pub(super) async fn step_moved(
    db: &mut Connection,
    now: Timestamp,
    workflow: WorkflowId,
    step: &Locked,
    to: JobState,
    following: &mut Vec<Following>,
    effects: &mut Effects,
) -> Result<()> {
    let mut delta = StepCounts::default();
    delta.add(step.kind.counted(step.state), -1);
    delta.add(step.kind.counted(to), 1);
    let unblocked = match step.parent {
        Some(parent) => steps::child_moved(db, now, step, parent, to, following, effects).await?,
        None if has_arrived(to) => {
            unblock(db, now, step.id, to == JobState::Skipped, following, effects).await?
        }
        None => 0,
    };
    delta.add(JobState::Blocked, -unblocked);
    delta.add(JobState::Queued, unblocked);
    count(db, now, workflow, delta, effects).await
}

/// Ended so that what waits for it goes on.
pub(super) fn has_arrived(state: JobState) -> bool {
    matches!(state, JobState::Completed | JobState::Skipped | JobState::Resolved)
}

/// Adds to a workflow's counts and derives its state; the step that it does, if it does one, is told of its end.
pub(super) async fn count(
    db: &mut Connection,
    now: Timestamp,
    workflow: WorkflowId,
    delta: StepCounts,
    effects: &mut Effects,
) -> Result<()> {
    if delta == StepCounts::default() {
        return Ok(());
    }
    let row = sqlx::query(
        "UPDATE workflows SET steps_blocked = steps_blocked + $2, steps_active = steps_active + $3, \
         steps_done = steps_done + $4, steps_failed = steps_failed + $5, steps_cancelled = steps_cancelled + $6, \
         state = 'running', finished_at = NULL WHERE id = $1 \
         RETURNING steps_blocked, steps_active, steps_done, steps_failed, steps_cancelled, batch_id, parent_job_id",
    )
    .bind(workflow.uuid())
    .bind(delta.blocked)
    .bind(delta.active)
    .bind(delta.done)
    .bind(delta.failed)
    .bind(delta.cancelled)
    .fetch_one(&mut *db)
    .await?;
    let counts = counts(&row)?;
    let state = counts.state();
    batches::workflow_moved(db, now, row.try_get("batch_id")?, counts.minus(&delta).state(), state, effects)
        .await?;
    if state != WorkflowState::Running {
        sqlx::query("UPDATE workflows SET state = $2, finished_at = $3 WHERE id = $1")
            .bind(workflow.uuid())
            .bind(state.as_str())
            .bind(now.micros())
            .execute(&mut *db)
            .await?;
        if let Some(parent) = row.try_get::<Option<Uuid>, _>("parent_job_id")? {
            steps::wake(db, now, JobId::from_uuid(parent), effects).await?;
        }
    }
    Ok(())
}

async fn unblock(
    db: &mut Connection,
    now: Timestamp,
    parent: JobId,
    is_skipped: bool,
    following: &mut Vec<Following>,
    effects: &mut Effects,
) -> Result<i64> {
    let rows = sqlx::query(
        "UPDATE jobs SET waiting_on = waiting_on - 1, skips = skips + $3, \
         state = CASE WHEN waiting_on = 1 THEN 'queued' ELSE state END, \
         due_at = CASE WHEN waiting_on = 1 AND due_at < $2 THEN $2 ELSE due_at END, \
         transitions = transitions + CASE WHEN waiting_on = 1 THEN CAST(1 AS BIGINT) ELSE CAST(0 AS BIGINT) END \
         WHERE state = 'blocked' AND id IN (SELECT child_id FROM job_edges WHERE parent_id = $1) \
         RETURNING id, queue, handler, state, transitions, attempt, epoch, skips, step_kind",
    )
    .bind(parent.uuid())
    .bind(now.micros())
    .bind(i64::from(is_skipped))
    .fetch_all(&mut *db)
    .await?;
    let mut unblocked = 0;
    for row in rows {
        if jobs::state(&row, "state")? != JobState::Queued {
            continue;
        }
        unblocked += 1;
        steps::unblocked(db, now, &row, effects).await?;
        if row.try_get::<i64, _>("skips")? > 0 {
            following.extend(steps::after_skips(db, &row, effects).await?);
        }
    }
    Ok(unblocked)
}

/// Cancels a workflow and every one that does a step of it, in a few statements whatever their size.
pub(in super::super) async fn cancel(
    db: &mut Connection,
    now: Timestamp,
    workflow: WorkflowId,
    reason: &str,
    effects: &mut Effects,
) -> Result<Vec<JobId>> {
    let workflows = lock_tree(db, workflow).await?;
    let error = jobs::to_json(&JobError::new(ErrorKind::Cancelled, reason))?;
    let mut running = Vec::new();
    for workflow in workflows {
        // Locked, because a claim does not ask the workflow.
        let rows = sqlx::query(concat!(
            "SELECT id, state FROM jobs WHERE workflow_id = $1 AND state IN ('blocked', 'queued', 'running') ORDER BY id",
            for_update!()
        ))
        .bind(workflow.uuid())
        .fetch_all(&mut *db)
        .await?;
        let mut delta = StepCounts::default();
        for row in &rows {
            let state = jobs::state(row, "state")?;
            delta.add(state, -1);
            delta.add(JobState::Cancelled, 1);
            if state == JobState::Running {
                let job = JobId::from_uuid(row.try_get("id")?);
                effects.revoked(job);
                running.push(job);
            }
        }
        if rows.is_empty() {
            continue;
        }
        sqlx::query(
            "INSERT INTO job_history (job_id, seq, at, from_state, to_state, attempt, epoch, session_id, detail) \
             SELECT id, transitions + 1, CASE WHEN started_at > $2 THEN started_at ELSE $2 END, state, 'cancelled', attempt, \
             epoch + CASE WHEN state = 'running' THEN 1 ELSE 0 END, session_id, $3 FROM jobs \
             WHERE workflow_id = $1 AND state IN ('blocked', 'queued', 'running')",
        )
        .bind(workflow.uuid())
        .bind(now.micros())
        .bind(&error)
        .execute(&mut *db)
        .await?;
        sqlx::query(
            "UPDATE jobs SET epoch = epoch + CASE WHEN state = 'running' THEN 1 ELSE 0 END, state = 'cancelled', \
             error = $3, session_id = NULL, finished_at = CASE WHEN started_at > $2 THEN started_at ELSE $2 END, \
             transitions = transitions + 1 WHERE workflow_id = $1 AND state IN ('blocked', 'queued', 'running')",
        )
        .bind(workflow.uuid())
        .bind(now.micros())
        .bind(&error)
        .execute(&mut *db)
        .await?;
        count(db, now, workflow, delta, effects).await?;
    }
    Ok(running)
}

/// A workflow and all that do steps below it, locked from the top down: a lower one is never locked before one above it.
pub(super) async fn lock_tree(db: &mut Connection, workflow: WorkflowId) -> Result<Vec<WorkflowId>> {
    sqlx::query(concat!("SELECT id FROM workflows WHERE id = $1", for_update!()))
        .bind(workflow.uuid())
        .fetch_optional(&mut *db)
        .await?
        .ok_or_else(|| Error::not_found("workflow", workflow))?;
    let mut found = vec![workflow];
    let mut next = 0;
    while let Some(above) = found.get(next).copied() {
        next += 1;
        let rows = sqlx::query(concat!(
            "SELECT id FROM workflows WHERE parent_id = $1 AND state = 'running' ORDER BY id",
            for_update!()
        ))
        .bind(above.uuid())
        .fetch_all(&mut *db)
        .await?;
        for row in rows {
            found.push(WorkflowId::from_uuid(row.try_get("id")?));
        }
    }
    Ok(found)
}

pub(super) fn counts(row: &Row) -> Result<StepCounts> {
    Ok(StepCounts {
        blocked: row.try_get("steps_blocked")?,
        active: row.try_get("steps_active")?,
        done: row.try_get("steps_done")?,
        failed: row.try_get("steps_failed")?,
        cancelled: row.try_get("steps_cancelled")?,
    })
}

/// The job waits for this workflow from now on.
pub(super) async fn put_below(db: &mut Connection, job: JobId, below: WorkflowId) -> Result<()> {
    sqlx::query("UPDATE jobs SET sub_workflow_id = $2 WHERE id = $1")
        .bind(job.uuid())
        .bind(below.uuid())
        .execute(db)
        .await?;
    Ok(())
}

/// Whether the workflow that the job waits for goes on.
pub(super) async fn is_below_running(db: &mut Connection, job: JobId) -> Result<bool> {
    let row = sqlx::query(
        "SELECT 1 FROM jobs j JOIN workflows s ON s.id = j.sub_workflow_id WHERE j.id = $1 AND s.state = 'running'",
    )
    .bind(job.uuid())
    .fetch_optional(db)
    .await?;
    Ok(row.is_some())
}

/// The columns of [`record`], and where they are from.
macro_rules! workflow_columns {
    () => {
        "w.id, w.namespace, w.template_digest, w.state, w.input, w.correlation_id, w.created_at, w.environment, \
         w.parent_job_id, w.finished_at, w.steps_blocked, w.steps_active, w.steps_done, w.steps_failed, \
         w.steps_cancelled, t.name AS template_name, t.version AS template_version \
         FROM workflows w JOIN templates t ON t.digest = w.template_digest"
    };
}

pub(in super::super) async fn get(db: &mut Connection, workflow: WorkflowId) -> Result<WorkflowRecord> {
    let row = sqlx::query(concat!("SELECT ", workflow_columns!(), " WHERE w.id = $1"))
        .bind(workflow.uuid())
        .fetch_optional(db)
        .await?
        .ok_or_else(|| Error::not_found("workflow", workflow))?;
    record(&row)
}

fn record(row: &Row) -> Result<WorkflowRecord> {
    let id = WorkflowId::from_uuid(row.try_get("id")?);
    let state: String = row.try_get("state")?;
    Ok(WorkflowRecord {
        id,
        namespace: row.try_get("namespace")?,
        template_name: row.try_get("template_name")?,
        template_version: row.try_get("template_version")?,
        template_digest: row.try_get("template_digest")?,
        state: state.parse().map_err(|error| Error::broken(format!("workflow {id}: {error}")))?,
        input: row.try_get("input")?,
        correlation_id: row.try_get("correlation_id")?,
        environment: row.try_get("environment")?,
        parent_step: row.try_get::<Option<Uuid>, _>("parent_job_id")?.map(JobId::from_uuid),
        counts: counts(row)?,
        created_at: Timestamp::from_micros(row.try_get("created_at")?),
        finished_at: jobs::instant(row, "finished_at")?,
    })
}

pub(super) async fn list(db: &mut Connection, filter: &WorkflowFilter) -> Result<Vec<WorkflowRecord>> {
    let rows = sqlx::query(concat!(
        "SELECT ",
        workflow_columns!(),
        " WHERE (CAST($1 AS TEXT) IS NULL OR w.namespace = $1) AND (CAST($2 AS TEXT) IS NULL OR w.state = $2) \
         AND (CAST($3 AS TEXT) IS NULL OR t.name = $3) AND ($4 OR w.id < $5) ORDER BY w.id DESC LIMIT $6"
    ))
    .bind(&filter.namespace)
    .bind(filter.state.map(WorkflowState::as_str))
    .bind(&filter.template)
    .bind(filter.before.is_none())
    .bind(filter.before.map_or(Uuid::nil(), WorkflowId::uuid))
    .bind(i64::from(filter.rows_max))
    .fetch_all(db)
    .await?;
    rows.iter().map(record).collect()
}

pub(in super::super) async fn steps(db: &mut Connection, workflow: WorkflowId) -> Result<Vec<StepRecord>> {
    let rows = sqlx::query(concat!(
        "SELECT ",
        jobs::job_columns!(),
        " FROM jobs WHERE workflow_id = $1 ORDER BY id"
    ))
    .bind(workflow.uuid())
    .fetch_all(&mut *db)
    .await?;
    let edges = sqlx::query(
        "SELECT e.child_id, p.step FROM job_edges e JOIN jobs p ON p.id = e.parent_id \
         WHERE p.workflow_id = $1 ORDER BY p.id",
    )
    .bind(workflow.uuid())
    .fetch_all(db)
    .await?;
    let mut waits_for: HashMap<Uuid, Vec<String>> = HashMap::new();
    for edge in edges {
        waits_for.entry(edge.try_get("child_id")?).or_default().push(edge.try_get("step")?);
    }
    rows.iter()
        .map(|row| {
            let job = jobs::record(row)?;
            let waits_for = waits_for.remove(&job.id.uuid()).unwrap_or_default();
            Ok(StepRecord { job, waits_for })
        })
        .collect()
}

/// Two kinds of rows in one round trip, which every attempt of a step makes: what is known of it, then the results before it. A
/// child sees what the step saw that was split into it.
pub(in super::super) async fn step_inputs(db: &mut Connection, job: JobId) -> Result<StepInputs> {
    let rows = sqlx::query(
        "SELECT 0 AS place, CAST(NULL AS TEXT) AS step, w.input AS output, w.template_digest, w.environment, j.has_rules, \
         j.item, j.item_index, j.call FROM jobs j JOIN workflows w ON w.id = j.workflow_id WHERE j.id = $1 \
         UNION ALL SELECT 1, p.step, COALESCE(p.output, (SELECT r.output FROM job_results r WHERE r.job_id = p.id)), \
         NULL, NULL, 0, NULL, NULL, NULL FROM jobs j JOIN job_edges e ON e.child_id = COALESCE(j.parent_id, j.id) \
         JOIN jobs p ON p.id = e.parent_id WHERE j.id = $1 ORDER BY place, step",
    )
    .bind(job.uuid())
    .fetch_all(db)
    .await?;
    let Some((row, before)) = rows.split_first().filter(|(row, _)| matches!(is_step(row), Ok(true))) else {
        return Err(Error::not_found("step", job));
    };
    let mut results = Vec::with_capacity(before.len());
    for row in before {
        if let Some(output) = row.try_get::<Option<String>, _>("output")? {
            results.push((row.try_get("step")?, output));
        }
    }
    let item: Option<String> = row.try_get("item")?;
    let index = row.try_get::<Option<i64>, _>("item_index")?.and_then(|index| u64::try_from(index).ok());
    Ok(StepInputs {
        workflow_input: row.try_get("output")?,
        call: jobs::call(row)?,
        results,
        template_digest: row.try_get("template_digest")?,
        environment: row.try_get("environment")?,
        has_rules: row.try_get::<i64, _>("has_rules")? != 0,
        item: item.zip(index),
    })
}

/// The row of the step itself; a job of no workflow has none.
fn is_step(row: &Row) -> Result<bool> {
    Ok(row.try_get::<Option<String>, _>("template_digest")?.is_some())
}
