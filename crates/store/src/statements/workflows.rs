//! Workflows: templates pinned, steps inserted, states derived.

use std::collections::HashMap;

use recache_model::ids::{JobId, WorkflowId};
use recache_model::job::{ErrorKind, JobError, JobEvent, JobState};
use recache_model::time::Timestamp;
use recache_model::workflow::{StepCounts, WorkflowState};
use sqlx::Row as _;
use uuid::Uuid;

use super::super::{Connection, Row};
use super::cache_epochs;
use super::effects::Effects;
use super::jobs::{self, Change, Links, Transition};
use crate::error::{Error, Result};
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
    if let Some(step) = workflow.steps.iter().find(|step| step.job.has_keys()) {
        return Err(Error::Invalid(format!(
            "step `{}`: a step has no unique key and no idempotency key of its own; its workflow has an id",
            step.name
        )));
    }
    let is_new_template = template_insert(db, now, &workflow.template).await?;
    let is_new = insert(db, now, workflow, effects).await?;
    if is_new_template {
        template_raise(db, workflow.template_raise.as_ref(), effects).await?;
    }
    Ok(is_new)
}

async fn insert(
    db: &mut Connection,
    now: Timestamp,
    workflow: &NewWorkflow,
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
         finished_at, steps_blocked, steps_active, steps_done, steps_failed, steps_cancelled) \
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, 0, 0, 0) ON CONFLICT (id) DO NOTHING",
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
    .execute(&mut *db)
    .await?
    .rows_affected();
    if inserted == 0 {
        return Ok(false);
    }
    for step in &workflow.steps {
        let links = Links {
            step: Some((workflow.id, &step.name)),
            waiting_on: step.waits_for.len(),
            ..Links::default()
        };
        if jobs::insert(db, now, &step.job, links).await? == JobState::Queued {
            effects.queued(&step.job.queue);
        }
    }
    for step in &workflow.steps {
        for parent in &step.waits_for {
            let parent = workflow.steps.get(*parent).ok_or_else(|| {
                Error::Invalid(format!("step `{}` waits for a step that is not there", step.name))
            })?;
            sqlx::query("INSERT INTO job_edges (parent_id, child_id) VALUES ($1, $2)")
                .bind(parent.job.id.uuid())
                .bind(step.job.id.uuid())
                .execute(&mut *db)
                .await?;
        }
    }
    Ok(true)
}

/// A step moved: unblocks what waited for it, keeps the counts, derives the workflow's state. The workflow's
/// row is locked by the caller.
pub(super) async fn step_moved(
    db: &mut Connection,
    now: Timestamp,
    workflow: WorkflowId,
    step: JobId,
    from: JobState,
    to: JobState,
    effects: &mut Effects,
) -> Result<()> {
    let mut delta = StepCounts::default();
    delta.add(from, -1);
    delta.add(to, 1);
    if matches!(to, JobState::Completed | JobState::Skipped | JobState::Resolved) {
        let unblocked = unblock(db, now, step, effects).await?;
        delta.add(JobState::Blocked, -unblocked);
        delta.add(JobState::Queued, unblocked);
    }
    if delta == StepCounts::default() {
        return Ok(());
    }
    let row = sqlx::query(
        "UPDATE workflows SET steps_blocked = steps_blocked + $2, steps_active = steps_active + $3, \
         steps_done = steps_done + $4, steps_failed = steps_failed + $5, steps_cancelled = steps_cancelled + $6, \
         state = 'running', finished_at = NULL WHERE id = $1 \
         RETURNING steps_blocked, steps_active, steps_done, steps_failed, steps_cancelled",
    )
    .bind(workflow.uuid())
    .bind(delta.blocked)
    .bind(delta.active)
    .bind(delta.done)
    .bind(delta.failed)
    .bind(delta.cancelled)
    .fetch_one(&mut *db)
    .await?;
    let state = counts(&row)?.state();
    if state != WorkflowState::Running {
        sqlx::query("UPDATE workflows SET state = $2, finished_at = $3 WHERE id = $1")
            .bind(workflow.uuid())
            .bind(state.as_str())
            .bind(now.micros())
            .execute(db)
            .await?;
    }
    Ok(())
}

async fn unblock(db: &mut Connection, now: Timestamp, parent: JobId, effects: &mut Effects) -> Result<i64> {
    let rows = sqlx::query(
        "UPDATE jobs SET waiting_on = waiting_on - 1, \
         state = CASE WHEN waiting_on = 1 THEN 'queued' ELSE state END, \
         due_at = CASE WHEN waiting_on = 1 AND due_at < $2 THEN $2 ELSE due_at END, \
         transitions = transitions + CASE WHEN waiting_on = 1 THEN CAST(1 AS BIGINT) ELSE CAST(0 AS BIGINT) END \
         WHERE state = 'blocked' AND id IN (SELECT child_id FROM job_edges WHERE parent_id = $1) \
         RETURNING id, queue, state, transitions, attempt, epoch",
    )
    .bind(parent.uuid())
    .bind(now.micros())
    .fetch_all(&mut *db)
    .await?;
    let mut unblocked = 0;
    for row in rows {
        if jobs::state(&row, "state")? != JobState::Queued {
            continue;
        }
        unblocked += 1;
        let queue: String = row.try_get("queue")?;
        effects.queued(&queue);
        let transition = Transition {
            job: JobId::from_uuid(row.try_get("id")?),
            seq: row.try_get("transitions")?,
            from: JobState::Blocked,
            to: JobState::Queued,
            attempt: jobs::count(&row, "attempt")?,
            epoch: row.try_get("epoch")?,
            session: None,
            detail: None,
        };
        jobs::history(db, &transition, now).await?;
    }
    Ok(unblocked)
}

pub(in super::super) async fn cancel(
    db: &mut Connection,
    now: Timestamp,
    workflow: WorkflowId,
    reason: &str,
    effects: &mut Effects,
) -> Result<Vec<JobId>> {
    sqlx::query(concat!("SELECT id FROM workflows WHERE id = $1", for_update!()))
        .bind(workflow.uuid())
        .fetch_optional(&mut *db)
        .await?
        .ok_or_else(|| Error::not_found("workflow", workflow))?;
    let rows = sqlx::query(
        "SELECT id FROM jobs WHERE workflow_id = $1 AND state IN ('blocked', 'queued', 'running') ORDER BY id",
    )
    .bind(workflow.uuid())
    .fetch_all(&mut *db)
    .await?;
    let mut running = Vec::new();
    for row in rows {
        let id = JobId::from_uuid(row.try_get("id")?);
        let Some(job) = jobs::lock(db, id).await? else { continue };
        let change = Change { error: Some(JobError::new(ErrorKind::Cancelled, reason)), ..Change::default() };
        if jobs::advance(db, now, &job, JobEvent::Cancel, change, effects).await?.is_some()
            && job.state == JobState::Running
        {
            running.push(id);
        }
    }
    Ok(running)
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

pub(in super::super) async fn get(db: &mut Connection, workflow: WorkflowId) -> Result<WorkflowRecord> {
    let row = sqlx::query(
        "SELECT w.id, w.namespace, w.template_digest, w.state, w.input, w.correlation_id, w.created_at, \
         w.finished_at, w.steps_blocked, w.steps_active, w.steps_done, w.steps_failed, w.steps_cancelled, \
         t.name AS template_name, t.version AS template_version \
         FROM workflows w JOIN templates t ON t.digest = w.template_digest WHERE w.id = $1",
    )
    .bind(workflow.uuid())
    .fetch_optional(db)
    .await?
    .ok_or_else(|| Error::not_found("workflow", workflow))?;
    let state: String = row.try_get("state")?;
    Ok(WorkflowRecord {
        id: WorkflowId::from_uuid(row.try_get("id")?),
        namespace: row.try_get("namespace")?,
        template_name: row.try_get("template_name")?,
        template_version: row.try_get("template_version")?,
        template_digest: row.try_get("template_digest")?,
        state: state.parse().map_err(|error| Error::broken(format!("workflow {workflow}: {error}")))?,
        input: row.try_get("input")?,
        correlation_id: row.try_get("correlation_id")?,
        counts: counts(&row)?,
        created_at: Timestamp::from_micros(row.try_get("created_at")?),
        finished_at: jobs::instant(&row, "finished_at")?,
    })
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

pub(in super::super) async fn step_inputs(db: &mut Connection, job: JobId) -> Result<StepInputs> {
    let workflow = sqlx::query(
        "SELECT w.input, j.call FROM jobs j JOIN workflows w ON w.id = j.workflow_id WHERE j.id = $1",
    )
    .bind(job.uuid())
    .fetch_optional(&mut *db)
    .await?
    .ok_or_else(|| Error::not_found("step", job))?;
    let rows = sqlx::query(
        "SELECT p.step, p.output FROM job_edges e JOIN jobs p ON p.id = e.parent_id \
         WHERE e.child_id = $1 AND p.output IS NOT NULL ORDER BY p.step",
    )
    .bind(job.uuid())
    .fetch_all(db)
    .await?;
    Ok(StepInputs {
        workflow_input: workflow.try_get("input")?,
        call: jobs::call(&workflow)?,
        results: rows
            .iter()
            .map(|row| Ok((row.try_get("step")?, row.try_get("output")?)))
            .collect::<Result<_>>()?,
    })
}
