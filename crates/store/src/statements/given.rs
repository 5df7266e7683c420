//! Results that a workflow takes over from the one that it runs again in part.

use recache_model::ids::WorkflowId;

use super::super::{Connection, texts};
use super::effects::Effects;
use crate::error::Result;
use crate::flow::FLOW;
use crate::records::TakeOver;

/// Copies the results and has their steps end with them. What is not there, or did not end well, is run.
pub(super) async fn take_over(
    db: &mut Connection,
    workflow: WorkflowId,
    takes_over: &TakeOver,
    effects: &mut Effects,
) -> Result<()> {
    sqlx::query(concat!(
        "INSERT INTO given_results (workflow_id, step, output) SELECT $1, step, COALESCE(output, (SELECT r.output \
         FROM job_results r WHERE r.job_id = jobs.id), 'null') FROM jobs WHERE workflow_id = $2 AND parent_id IS NULL \
         AND state IN ('completed', 'resolved') AND step ",
        in_texts!("$3")
    ))
    .bind(workflow.uuid())
    .bind(takes_over.from.uuid())
    .bind(texts(&takes_over.steps))
    .execute(&mut *db)
    .await?;
    sqlx::query("UPDATE workflows SET again_of = $2 WHERE id = $1")
        .bind(workflow.uuid())
        .bind(takes_over.from.uuid())
        .execute(&mut *db)
        .await?;
    make_turns(db, workflow, effects).await
}

/// Steps whose results are there already become the engine's own to end. They tell nobody a second time of what they did once.
pub(super) async fn make_turns(
    db: &mut Connection,
    workflow: WorkflowId,
    effects: &mut Effects,
) -> Result<()> {
    let made = sqlx::query(
        "UPDATE jobs SET queue = $2, handler = $2, publishes = NULL WHERE workflow_id = $1 AND parent_id IS NULL \
         AND state IN ('blocked', 'queued') AND step IN (SELECT g.step FROM given_results g WHERE g.workflow_id = $1)",
    )
    .bind(workflow.uuid())
    .bind(FLOW)
    .execute(db)
    .await?
    .rows_affected();
    if made > 0 {
        effects.queued(FLOW);
    }
    Ok(())
}
