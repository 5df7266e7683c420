//! The commonest end of a step, many at once: it completed, with a result that fits its row.
//!
//! Whatever the number of steps and workflows, this is one statement for the ends, what they unblock and the counts of all workflows (a few
//! on SQLite, where a statement costs no exchange), and one for each step that was split. Ends that a statement does not find, because
//! their tokens are no longer good, are left to be settled one by one, which says why.

use std::collections::BTreeMap;

use recache_model::event::StepEnd;
use recache_model::ids::{JobId, WorkflowId};
use recache_model::job::JobState;
use recache_model::time::Timestamp;
use recache_model::workflow::{StepCounts, WorkflowState};
use sqlx::Row as _;
use uuid::Uuid;

use super::super::{Connection, Row, bulk};
use super::effects::Effects;
use super::events::{self, Ended, Publisher};
use super::jobs::{self, Following};
use super::{batches, steps, workflows};
use crate::error::{Error, Result};
use crate::fail::fail_point;
use crate::flow::RESULT_INLINE_BYTES_MAX;
use crate::records::{LeaseToken, Outcome, Settlement};

/// A step that completed.
#[derive(Debug, Clone, Copy)]
pub(in super::super) struct Completion<'a> {
    pub(in super::super) token: LeaseToken,
    pub(in super::super) output: &'a str,
}

/// What became of completions.
#[derive(Default)]
pub(in super::super) struct FinishedRows {
    /// The steps whose tokens were good.
    pub(in super::super) ended: Vec<Row>,
    /// What waits for nothing more.
    pub(in super::super) unblocked: Vec<Row>,
    /// The workflows with their new counts; `None`: they are still to be counted.
    pub(in super::super) counted: Option<Vec<Row>>,
}

/// What is added to a workflow's counts.
#[derive(Debug, Clone, Copy)]
pub(in super::super) struct CountRow {
    pub(in super::super) workflow: Uuid,
    pub(in super::super) delta: StepCounts,
}

/// A completion among the settlements, if it is one that this module can carry out.
fn completion(settlement: &Settlement) -> Option<Completion<'_>> {
    match &settlement.outcome {
        Outcome::Completed { output } if output.len() <= RESULT_INLINE_BYTES_MAX => {
            Some(Completion { token: settlement.token, output })
        }
        _ => None,
    }
}

/// Completes what can be; answers the places of the settlements that stand by it. What they belong to is locked by the caller.
pub(super) async fn complete(
    db: &mut Connection,
    now: Timestamp,
    settlements: &[Settlement],
    effects: &mut Effects,
) -> Result<Vec<usize>> {
    let completions: Vec<Completion<'_>> = settlements.iter().filter_map(completion).collect();
    if completions.is_empty() {
        return Ok(Vec::new());
    }
    let mut places: BTreeMap<Uuid, usize> = settlements
        .iter()
        .enumerate()
        .filter(|(_, settlement)| completion(settlement).is_some())
        .map(|(place, settlement)| (settlement.token.job.uuid(), place))
        .collect();
    let FinishedRows { ended: rows, unblocked, counted } = bulk::steps_finish(db, now, &completions).await?;
    fail_point!("settle.after_state");
    let mut accepted = Vec::with_capacity(rows.len());
    let mut deltas: BTreeMap<Uuid, StepCounts> = BTreeMap::new();
    let mut children = BTreeMap::<Uuid, (Uuid, i64)>::new();
    for row in &rows {
        let id: Uuid = row.try_get("id")?;
        let workflow: Uuid = row.try_get("workflow_id")?;
        let place = places.remove(&id).ok_or_else(|| Error::broken("a step ended that nobody settled"))?;
        accepted.push(place);
        effects.made_room(&settlements[place]);
        let delta = deltas.entry(workflow).or_default();
        delta.add(JobState::Running, -1);
        delta.add(JobState::Completed, 1);
        if let Some(parent) = row.try_get::<Option<Uuid>, _>("parent_id")? {
            children.entry(parent).or_insert((workflow, 0)).1 += 1;
        }
        if let (Some(declared), Outcome::Completed { output }) =
            (row.try_get::<Option<String>, _>("publishes")?, &settlements[place].outcome)
        {
            let who = Publisher {
                job: JobId::from_uuid(id),
                namespace: row.try_get("namespace")?,
                workflow: Some(WorkflowId::from_uuid(workflow)),
                step: row.try_get("step")?,
                correlation_id: row.try_get("correlation_id")?,
            };
            let end = Ended {
                end: StepEnd::Completed,
                attempt: jobs::count(row, "attempt")?,
                output: Some(output),
                error: None,
            };
            events::gather(
                Timestamp::from_micros(row.try_get("finished_at")?),
                &who,
                &declared,
                &end,
                effects,
            )?;
        }
    }
    let mut following = Vec::new();
    for (parent, (workflow, count)) in children {
        let unblocked = steps::children_ended(db, now, JobId::from_uuid(parent), count, effects).await?;
        let delta = deltas.entry(workflow).or_default();
        delta.add(JobState::Blocked, -unblocked);
        delta.add(JobState::Queued, unblocked);
    }
    unblock(db, &unblocked, &mut deltas, &mut following, effects).await?;
    fail_point!("settle.after_unblock");
    let counted = match counted {
        Some(counted) => counted,
        None => count(db, &deltas).await?,
    };
    end(db, now, &counted, &deltas, effects).await?;
    jobs::follow(db, now, following, effects).await?;
    Ok(accepted)
}

/// What waits for nothing more goes on.
async fn unblock(
    db: &mut Connection,
    unblocked: &[Row],
    deltas: &mut BTreeMap<Uuid, StepCounts>,
    following: &mut Vec<Following>,
    effects: &mut Effects,
) -> Result<()> {
    for row in unblocked {
        let delta = deltas.entry(row.try_get("workflow_id")?).or_default();
        delta.add(JobState::Blocked, -1);
        delta.add(JobState::Queued, 1);
        effects.unblocked(row.try_get("queue")?, JobId::from_uuid(row.try_get("id")?));
        if row.try_get::<i64, _>("skips")? > 0 {
            following.extend(steps::after_skips(db, row, effects).await?);
        }
    }
    Ok(())
}

async fn count(db: &mut Connection, deltas: &BTreeMap<Uuid, StepCounts>) -> Result<Vec<Row>> {
    let rows: Vec<CountRow> =
        deltas.iter().map(|(workflow, delta)| CountRow { workflow: *workflow, delta: *delta }).collect();
    bulk::workflows_count(db, &rows).await
}

/// Derives states from counts; what a workflow does that has ended is told of it.
async fn end(
    db: &mut Connection,
    now: Timestamp,
    counted: &[Row],
    deltas: &BTreeMap<Uuid, StepCounts>,
    effects: &mut Effects,
) -> Result<()> {
    let mut ended: Vec<(Uuid, WorkflowState)> = Vec::new();
    let mut parents = Vec::new();
    for row in counted {
        let workflow: Uuid = row.try_get("id")?;
        let counts = workflows::counts(row)?;
        let delta = deltas.get(&workflow).copied().unwrap_or_default();
        let (before, state) = (counts.minus(&delta).state(), counts.state());
        batches::workflow_moved(db, now, row.try_get("batch_id")?, before, state, effects).await?;
        if state != WorkflowState::Running {
            ended.push((workflow, state));
            parents.extend(row.try_get::<Option<Uuid>, _>("parent_job_id")?);
        }
    }
    if !ended.is_empty() {
        bulk::workflows_end(db, now, &ended).await?;
    }
    for parent in parents {
        steps::wake(db, now, JobId::from_uuid(parent), effects).await?;
    }
    Ok(())
}
