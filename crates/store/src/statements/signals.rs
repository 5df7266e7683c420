//! What workflows are told.

use recache_model::ids::WorkflowId;
use recache_model::time::Timestamp;
use sqlx::Row as _;

use super::super::{Connection, Row};
use super::effects::Effects;
use crate::error::{Error, Result};
use crate::flow::{FLOW, SIGNAL_BYTES_MAX, SIGNALS_MAX, SignalKind, SignalRecord};
use crate::queues::Word;

/// Longest name of a signal, in bytes.
const NAME_BYTES_MAX: usize = 128;

pub(super) async fn send(
    db: &mut Connection,
    now: Timestamp,
    workflow: WorkflowId,
    signal: &SignalRecord,
    effects: &mut Effects,
) -> Result<bool> {
    check(signal)?;
    // Locked: a step that begins to wait looks for signals under the same lock.
    let row = sqlx::query(concat!("SELECT state FROM workflows WHERE id = $1", for_update!()))
        .bind(workflow.uuid())
        .fetch_optional(&mut *db)
        .await?
        .ok_or_else(|| Error::not_found("workflow", workflow))?;
    let told = sqlx::query(
        "SELECT payload FROM workflow_signals WHERE workflow_id = $1 AND kind = $2 AND name = $3",
    )
    .bind(workflow.uuid())
    .bind(signal.kind.as_str())
    .bind(&signal.name)
    .fetch_optional(&mut *db)
    .await?;
    if let Some(told) = told {
        let payload: String = told.try_get("payload")?;
        if payload == signal.payload {
            return Ok(false);
        }
        return Err(Error::Conflict(format!(
            "workflow `{workflow}` was told the {} `{}` with another payload, and it stands",
            signal.kind.as_str(),
            signal.name
        )));
    }
    let state: String = row.try_get("state")?;
    if state != "running" && state != "failed" {
        return Err(Error::Conflict(format!(
            "workflow `{workflow}` is {state}: nothing in it waits any more"
        )));
    }
    let count = sqlx::query(
        "SELECT CAST(count(*) AS BIGINT) AS signals FROM workflow_signals WHERE workflow_id = $1",
    )
    .bind(workflow.uuid())
    .fetch_one(&mut *db)
    .await?;
    if count.try_get::<i64, _>("signals")? >= SIGNALS_MAX {
        return Err(Error::Conflict(format!(
            "workflow `{workflow}` was told {SIGNALS_MAX} signals, which is the limit"
        )));
    }
    sqlx::query(
        "INSERT INTO workflow_signals (workflow_id, kind, name, payload, actor, received_at) \
         VALUES ($1, $2, $3, $4, $5, $6)",
    )
    .bind(workflow.uuid())
    .bind(signal.kind.as_str())
    .bind(&signal.name)
    .bind(&signal.payload)
    .bind(&signal.actor)
    .bind(now.micros())
    .execute(&mut *db)
    .await?;
    // Whoever waits has its turn; one that waits for something else waits again.
    let woken = sqlx::query(
        "UPDATE jobs SET due_at = $2 WHERE workflow_id = $1 AND state = 'queued' AND handler = $3 AND due_at > $2",
    )
    .bind(workflow.uuid())
    .bind(now.micros())
    .bind(FLOW)
    .execute(db)
    .await?
    .rows_affected();
    if woken > 0 {
        effects.queued(FLOW);
    }
    Ok(true)
}

fn check(signal: &SignalRecord) -> Result<()> {
    let mut problems = Vec::new();
    if signal.name.is_empty() || signal.name.len() > NAME_BYTES_MAX || signal.name.contains('\0') {
        problems.push(format!(
            "the name must have 1 to {NAME_BYTES_MAX} bytes and no NUL, and has {} bytes",
            signal.name.len()
        ));
    }
    if signal.actor.is_empty() || signal.actor.len() > Word::ACTOR_BYTES_MAX || signal.actor.contains('\0') {
        problems.push(format!(
            "the actor must have 1 to {} bytes and no NUL, and has {} bytes",
            Word::ACTOR_BYTES_MAX,
            signal.actor.len()
        ));
    }
    if signal.payload.len() > SIGNAL_BYTES_MAX {
        problems
            .push(format!("the payload has {} bytes, the limit is {SIGNAL_BYTES_MAX}", signal.payload.len()));
    }
    if let Err(error) = serde_json::from_str::<serde::de::IgnoredAny>(&signal.payload) {
        problems.push(format!("the payload is not JSON: {error}"));
    }
    if problems.is_empty() { Ok(()) } else { Err(Error::Invalid(problems.join("; "))) }
}

pub(super) async fn list(db: &mut Connection, workflow: WorkflowId) -> Result<Vec<SignalRecord>> {
    let rows = sqlx::query(
        "SELECT kind, name, payload, actor, received_at FROM workflow_signals WHERE workflow_id = $1 \
         ORDER BY received_at, kind, name",
    )
    .bind(workflow.uuid())
    .fetch_all(db)
    .await?;
    rows.iter().map(record).collect()
}

fn record(row: &Row) -> Result<SignalRecord> {
    let kind: String = row.try_get("kind")?;
    Ok(SignalRecord {
        kind: match kind.as_str() {
            "signal" => SignalKind::Signal,
            "approval" => SignalKind::Approval,
            _ => return Err(Error::broken(format!("kind of a signal is {kind}"))),
        },
        name: row.try_get("name")?,
        payload: row.try_get("payload")?,
        actor: row.try_get("actor")?,
        received_at: Timestamp::from_micros(row.try_get("received_at")?),
    })
}

/// Whether the workflow was told.
pub(super) async fn is_told(
    db: &mut Connection,
    workflow: WorkflowId,
    kind: SignalKind,
    name: &str,
) -> Result<bool> {
    let row =
        sqlx::query("SELECT 1 FROM workflow_signals WHERE workflow_id = $1 AND kind = $2 AND name = $3")
            .bind(workflow.uuid())
            .bind(kind.as_str())
            .bind(name)
            .fetch_optional(db)
            .await?;
    Ok(row.is_some())
}
