//! Steps in bulk, children of steps, and steps that wait without a lease.

use std::collections::HashSet;

use recache_model::expansion::{NOTHING_GATHERED, skipped_with};
use recache_model::ids::{JobId, WorkflowId};
use recache_model::job::{JobEvent, JobState};
use recache_model::time::Timestamp;
use recache_model::workflow::{StepCounts, StepKind};
use sqlx::Row as _;
use uuid::Uuid;

use super::super::{Connection, Row, bulk};
use super::effects::Effects;
use super::jobs::{self, Following, Locked, Transition};
use super::lifecycles;
use super::workflows::{self, has_arrived};
use crate::error::{Error, Result};
use crate::flow::{Children, FLOW};
use crate::records::NewJob;

/// Rows that one statement inserts.
const ROWS_MAX: usize = 2_000;

/// A step to be inserted.
#[derive(Debug, Clone)]
pub(in super::super) struct StepRow<'a> {
    pub(in super::super) job: &'a NewJob,
    pub(in super::super) step: &'a str,
    /// `blocked` when it waits for anything.
    pub(in super::super) waiting_on: usize,
    pub(in super::super) kind: StepKind,
    pub(in super::super) has_rules: bool,
    pub(in super::super) parent: Option<Uuid>,
    /// JSON, and its place.
    pub(in super::super) item: Option<(&'a str, i64)>,
    /// Dependencies that were skipped.
    pub(in super::super) skips: i64,
    /// It is not needed.
    pub(in super::super) skipped: Option<&'a str>,
}

impl<'a> StepRow<'a> {
    /// A plain step that waits for nothing.
    pub(super) fn new(job: &'a NewJob, step: &'a str) -> Self {
        Self {
            job,
            step,
            waiting_on: 0,
            kind: StepKind::Plain,
            has_rules: false,
            parent: None,
            item: None,
            skips: 0,
            skipped: None,
        }
    }

    /// As it is stored: nothing for a plain one.
    pub(in super::super) fn kind_column(&self) -> Option<&'static str> {
        (self.kind != StepKind::Plain).then(|| self.kind.as_str())
    }

    pub(in super::super) fn state(&self) -> JobState {
        if self.skipped.is_some() {
            JobState::Skipped
        } else if self.waiting_on > 0 {
            JobState::Blocked
        } else {
            JobState::Queued
        }
    }
}

pub(super) async fn insert(
    db: &mut Connection,
    now: Timestamp,
    workflow: WorkflowId,
    rows: &[StepRow<'_>],
    effects: &mut Effects,
) -> Result<()> {
    let mut names = HashSet::with_capacity(rows.len());
    if let Some(twice) = rows.iter().find(|row| !names.insert(row.step)) {
        return Err(Error::Invalid(format!("two steps are called `{}`", twice.step)));
    }
    for row in rows {
        if row.state() == JobState::Queued {
            effects.queued(&row.job.queue);
        }
    }
    let limited = rows.iter().filter(|row| row.skipped.is_none());
    lifecycles::insert(db, now, workflow, limited.map(|row| (row.job.id.uuid(), row.job.limits))).await?;
    for rows in rows.chunks(ROWS_MAX) {
        bulk::steps_insert(db, now, workflow, rows).await?;
        for row in rows {
            let Some(reason) = row.skipped else { continue };
            let transition = Transition {
                job: row.job.id,
                seq: 1,
                from: JobState::Blocked,
                to: JobState::Skipped,
                attempt: 0,
                epoch: 0,
                session: None,
                detail: Some(reason),
            };
            jobs::history(db, &transition, now).await?;
        }
    }
    Ok(())
}

/// Parent and child each.
pub(super) async fn edges_insert(db: &mut Connection, edges: &[(Uuid, Uuid)]) -> Result<()> {
    for edges in edges.chunks(ROWS_MAX) {
        bulk::edges_insert(db, edges).await?;
    }
    Ok(())
}

/// Inserts what a step is split into; it waits for as many as are answered.
pub(super) async fn split(
    db: &mut Connection,
    now: Timestamp,
    workflow: WorkflowId,
    step: &Locked,
    children: &Children,
    effects: &mut Effects,
) -> Result<i64> {
    jobs::check(children.jobs.iter().map(|child| &child.job))?;
    let name = step.step.as_deref().unwrap_or_default();
    let names: Vec<String> = (0..children.jobs.len()).map(|index| format!("{name}[{index}]")).collect();
    let at_once = children.parallelism.unwrap_or(usize::MAX);
    let mut delta = StepCounts::default();
    let mut rows = Vec::with_capacity(names.len());
    for (index, (child, name)) in children.jobs.iter().zip(&names).enumerate() {
        let row = StepRow {
            // What is held back waits for a place; `child_moved` gives it.
            waiting_on: usize::from(index >= at_once),
            kind: children.kind,
            has_rules: child.has_rules,
            parent: Some(step.id.uuid()),
            item: Some((&child.item, i64::try_from(index).unwrap_or(i64::MAX))),
            ..StepRow::new(&child.job, name)
        };
        delta.add(row.state(), 1);
        rows.push(row);
    }
    insert(db, now, workflow, &rows, effects).await?;
    workflows::count(db, now, workflow, delta, effects).await?;
    i64::try_from(rows.len()).map_err(|_| Error::broken("too many children"))
}

/// Whether the step that was split goes on without this child.
fn counts_as_ended(kind: StepKind, state: JobState) -> bool {
    has_arrived(state) || (kind == StepKind::TolerantChild && state == JobState::Failed)
}

/// A child moved: its parent waits for one less, or for one more again, and a sibling takes its place. Answers how many steps were
/// unblocked.
pub(super) async fn child_moved(
    db: &mut Connection,
    now: Timestamp,
    child: &Locked,
    parent: JobId,
    to: JobState,
    following: &mut Vec<Following>,
    effects: &mut Effects,
) -> Result<i64> {
    let (had_ended, has_ended) = (counts_as_ended(child.kind, child.state), counts_as_ended(child.kind, to));
    let mut moved = 0;
    if had_ended && !has_ended {
        // An operator has a failed child run again: the parent waits for it, unless it has gone on already.
        sqlx::query("UPDATE jobs SET waiting_on = waiting_on + 1 WHERE id = $1 AND state = 'blocked'")
            .bind(parent.uuid())
            .execute(&mut *db)
            .await?;
    }
    if !had_ended && has_ended {
        moved += parent_waits_less(db, now, parent, 1, effects).await?;
    }
    if child.kind == StepKind::FailFastChild && to == JobState::Failed {
        let rows = sqlx::query(
            "SELECT id FROM jobs WHERE parent_id = $1 AND state IN ('blocked', 'queued', 'running') ORDER BY id",
        )
        .bind(parent.uuid())
        .fetch_all(&mut *db)
        .await?;
        let name = child.step.as_deref().unwrap_or_default();
        for row in rows {
            following.push(Following {
                job: JobId::from_uuid(row.try_get("id")?),
                event: JobEvent::Cancel,
                reason: format!("`{name}` failed, and the batch fails with it"),
            });
        }
        return Ok(moved);
    }
    if to.is_terminal() && !child.state.is_terminal() {
        moved += release_next(db, now, parent, 1, effects).await?;
    }
    Ok(moved)
}

/// So many children of a step completed: it waits for so many less, and as many of those that are held back begin. Answers how many
/// steps were unblocked.
pub(super) async fn children_ended(
    db: &mut Connection,
    now: Timestamp,
    parent: JobId,
    count: i64,
    effects: &mut Effects,
) -> Result<i64> {
    let moved = parent_waits_less(db, now, parent, count, effects).await?;
    Ok(moved + release_next(db, now, parent, count, effects).await?)
}

async fn parent_waits_less(
    db: &mut Connection,
    now: Timestamp,
    parent: JobId,
    count: i64,
    effects: &mut Effects,
) -> Result<i64> {
    let row = sqlx::query(
        "UPDATE jobs SET waiting_on = waiting_on - $3, \
         state = CASE WHEN waiting_on = $3 THEN 'queued' ELSE state END, \
         due_at = CASE WHEN waiting_on = $3 THEN $2 ELSE due_at END, \
         transitions = transitions + CASE WHEN waiting_on = $3 THEN CAST(1 AS BIGINT) ELSE CAST(0 AS BIGINT) END \
         WHERE id = $1 AND state = 'blocked' RETURNING id, queue, state, transitions, attempt, epoch",
    )
    .bind(parent.uuid())
    .bind(now.micros())
    .bind(count)
    .fetch_optional(&mut *db)
    .await?;
    match row {
        Some(row) if jobs::state(&row, "state")? == JobState::Queued => {
            unblocked(db, now, &row, effects).await?;
            Ok(1)
        }
        _ => Ok(0),
    }
}

/// The first children that are held back begin, so many of them.
async fn release_next(
    db: &mut Connection,
    now: Timestamp,
    parent: JobId,
    count: i64,
    effects: &mut Effects,
) -> Result<i64> {
    let rows = sqlx::query(
        "UPDATE jobs SET waiting_on = 0, state = 'queued', due_at = $2, transitions = transitions + 1 \
         WHERE id IN (SELECT id FROM jobs WHERE parent_id = $1 AND state = 'blocked' ORDER BY item_index LIMIT $3) \
         RETURNING id, queue, state, transitions, attempt, epoch",
    )
    .bind(parent.uuid())
    .bind(now.micros())
    .bind(count)
    .fetch_all(&mut *db)
    .await?;
    for row in &rows {
        unblocked(db, now, row, effects).await?;
    }
    i64::try_from(rows.len()).map_err(|_| Error::broken("too many children"))
}

/// Writes the history of a step that has just gone from `blocked` to `queued`.
pub(super) async fn unblocked(
    db: &mut Connection,
    now: Timestamp,
    row: &Row,
    effects: &mut Effects,
) -> Result<()> {
    let job = JobId::from_uuid(row.try_get("id")?);
    effects.unblocked(row.try_get("queue")?, job);
    let transition = Transition {
        job,
        seq: row.try_get("transitions")?,
        from: JobState::Blocked,
        to: JobState::Queued,
        attempt: jobs::count(row, "attempt")?,
        epoch: row.try_get("epoch")?,
        session: None,
        detail: None,
    };
    jobs::history(db, &transition, now).await
}

/// What a step waits for, counted anew.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Waits {
    /// Steps that have not ended so that it goes on.
    pub(super) open: i64,
    /// Steps that were skipped.
    pub(super) skipped: i64,
}

/// What a step that has not begun waits for. Its workflow is locked.
pub(super) async fn waits_of(db: &mut Connection, job: &Locked) -> Result<Waits> {
    let row = sqlx::query(
        "SELECT CAST(COALESCE(SUM(CASE WHEN p.state IN ('completed', 'skipped', 'resolved') THEN 0 ELSE 1 END), 0) AS BIGINT) \
         AS open, CAST(COALESCE(SUM(CASE WHEN p.state = 'skipped' THEN 1 ELSE 0 END), 0) AS BIGINT) AS skipped \
         FROM job_edges e JOIN jobs p ON p.id = e.parent_id WHERE e.child_id = $1",
    )
    .bind(job.id.uuid())
    .fetch_one(db)
    .await?;
    Ok(Waits { open: row.try_get("open")?, skipped: row.try_get("skipped")? })
}

/// Keeps how many of those were skipped; what follows when it waits for nothing more.
pub(super) async fn skips_set(
    db: &mut Connection,
    job: JobId,
    waits: &Waits,
    effects: &mut Effects,
) -> Result<Option<Following>> {
    let row = sqlx::query("UPDATE jobs SET skips = $2 WHERE id = $1 RETURNING id, step_kind, handler")
        .bind(job.uuid())
        .bind(waits.skipped)
        .fetch_one(&mut *db)
        .await?;
    if waits.open > 0 { Ok(None) } else { after_skips(db, &row, effects).await }
}

/// What becomes of a step that waits for nothing more, and some of what it waited for was skipped. A convergence runs if anything was not; any other
/// step is skipped too, a decision by the engine, which knows what stands behind it.
pub(super) async fn after_skips(
    db: &mut Connection,
    row: &Row,
    effects: &mut Effects,
) -> Result<Option<Following>> {
    let job = JobId::from_uuid(row.try_get("id")?);
    let kind = jobs::kind(row)?;
    let is_turn = row.try_get::<&str, _>("handler")? == FLOW;
    if kind == StepKind::Decision && !is_turn {
        sqlx::query("UPDATE jobs SET queue = $2, handler = $2 WHERE id = $1")
            .bind(job.uuid())
            .bind(FLOW)
            .execute(db)
            .await?;
        effects.queued(FLOW);
        return Ok(None);
    }
    let before = sqlx::query(
        "SELECT p.step, p.state FROM job_edges e JOIN jobs p ON p.id = e.parent_id WHERE e.child_id = $1 ORDER BY p.step",
    )
    .bind(job.uuid())
    .fetch_all(db)
    .await?;
    let mut skipped = Vec::with_capacity(before.len());
    for row in &before {
        if jobs::state(row, "state")? == JobState::Skipped {
            skipped.push(row.try_get::<&str, _>("step")?);
        }
    }
    let reason = match (kind, skipped.first()) {
        (StepKind::Convergence, _) if skipped.len() < before.len() => return Ok(None),
        (StepKind::Convergence, _) => NOTHING_GATHERED.to_owned(),
        (_, Some(name)) if !is_turn => skipped_with(name),
        _ => return Ok(None),
    };
    Ok(Some(Following { job, event: JobEvent::Skip, reason }))
}

/// Something that a step may wait for has happened: its turn comes at once.
pub(super) async fn wake(
    db: &mut Connection,
    now: Timestamp,
    job: JobId,
    effects: &mut Effects,
) -> Result<()> {
    let woken = sqlx::query(
        "UPDATE jobs SET due_at = $2 WHERE id = $1 AND state = 'queued' AND handler = $3 AND due_at > $2",
    )
    .bind(job.uuid())
    .bind(now.micros())
    .bind(FLOW)
    .execute(db)
    .await?
    .rows_affected();
    if woken > 0 {
        effects.queued(FLOW);
    }
    Ok(())
}
