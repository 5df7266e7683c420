//! Many rows in one statement: lists travel as one JSON parameter that `json_each` takes apart. Where its elements are lists
//! themselves it is `jsonb_each`: the other one writes each element as text, which every `->>` reads anew.

use std::collections::{BTreeSet, HashMap, HashSet};

use recache_model::batch::MemberEnd;
use recache_model::ids::{BatchId, JobId, ViewId, WorkflowId};
use recache_model::limits::NamespacedKey;
use recache_model::time::Timestamp;
use recache_model::workflow::WorkflowState;
use serde_json::json;
use sqlx::Row as _;
use uuid::Uuid;

use super::statements::deliveries::DeliveryRow;
use super::statements::effects::Effects;
use super::statements::event_drafts::NewDraft;
use super::statements::finished::{Completion, CountRow, FinishedRows};
use super::statements::items::digest;
use super::statements::lifecycles::LimitRow;
use super::statements::settle::{SettledColumns, columns};
use super::statements::steps::StepRow;
use super::statements::submit::{KeyRow, UniqueColumns};
use super::statements::{jobs, letters};
use super::{Connection, Row, ids, texts};
use crate::error::{Error, Result};
use crate::events::EventRecord;
use crate::flights::Leg;
use crate::records::{ClaimRequest, ClaimedJob, NewJob, Settlement, StagedItem, ViewRecord};

/// Whether a claim from these queues, for these handlers, has to heed limits.
macro_rules! limits_concern {
    ($queues:literal, $handlers:literal) => {
        concat!(
            "EXISTS (SELECT 1 FROM limits WHERE (scope = 'queue' AND name IN (SELECT value FROM json_each(",
            $queues,
            "))) OR (scope = 'handler' AND name IN (SELECT value FROM json_each(",
            $handlers,
            ")))) OR EXISTS (SELECT 1 FROM jobs WHERE state = 'queued' AND concurrency_key IS NOT NULL \
             AND queue IN (SELECT value FROM json_each(",
            $queues,
            ")))"
        )
    };
}

fn hex(id: Uuid) -> String {
    id.simple().to_string()
}

/// Answers the ids that were new. A row that meets another of its unique key is left out like one whose id is there.
pub(super) async fn jobs_insert(
    db: &mut Connection,
    now: Option<Timestamp>,
    new: &[&NewJob],
    uniques: &[UniqueColumns],
) -> Result<HashSet<Uuid>> {
    let now = now.ok_or_else(|| Error::broken("SQLite has no clock of its own"))?;
    let mut rows = Vec::with_capacity(new.len());
    for (job, unique) in new.iter().zip(uniques) {
        rows.push(json!([
            hex(job.id.uuid()),
            job.namespace,
            job.queue,
            job.handler,
            job.priority,
            jobs::due_micros(job.due, now),
            job.input,
            jobs::to_json(&job.retry)?,
            job.retry.attempts_max,
            jobs::timeout_ms(job.timeout),
            job.correlation_id,
            job.trace_context,
            unique.key,
            unique.ended,
            job.concurrency_key,
            job.batch.map(|batch| hex(batch.uuid())),
        ]));
    }
    let inserted = sqlx::query(
        "INSERT INTO jobs (id, namespace, queue, handler, state, priority, due_at, input, retry, attempts_max, \
         timeout_ms, correlation_id, trace_context, created_at, unique_key, unique_ended, \
         concurrency_key, batch_id) \
         SELECT unhex(value ->> 0), value ->> 1, value ->> 2, value ->> 3, 'queued', value ->> 4, value ->> 5, \
         value ->> 6, value ->> 7, value ->> 8, value ->> 9, value ->> 10, value ->> 11, $2, value ->> 12, \
         value ->> 13, value ->> 14, unhex(value ->> 15) FROM jsonb_each($1) WHERE TRUE ON CONFLICT DO NOTHING RETURNING id",
    )
    .bind(serde_json::Value::from(rows).to_string())
    .bind(now.micros())
    .fetch_all(db)
    .await?;
    jobs::ids_of(&inserted)
}

/// Steps of a workflow, in one statement. The caller cuts the list.
pub(super) async fn steps_insert(
    db: &mut Connection,
    now: Timestamp,
    workflow: WorkflowId,
    rows: &[StepRow<'_>],
) -> Result<()> {
    let mut list = Vec::with_capacity(rows.len());
    for row in rows {
        let job = row.job;
        list.push(json!([
            hex(job.id.uuid()),
            job.namespace,
            job.queue,
            job.handler,
            row.state().as_str(),
            job.priority,
            jobs::due_micros(job.due, now),
            job.input,
            jobs::to_json(&job.retry)?,
            job.retry.attempts_max,
            jobs::timeout_ms(job.timeout),
            job.correlation_id,
            job.trace_context,
            row.step,
            row.waiting_on,
            job.concurrency_key,
            row.kind_column(),
            i64::from(row.has_rules),
            row.parent.map(hex),
            row.item.map(|(item, _)| item),
            row.item.map(|(_, index)| index),
            row.skips,
            row.skipped,
            job.publishes,
            job.call.as_ref().map(jobs::to_json).transpose()?,
        ]));
    }
    sqlx::query(
        "INSERT INTO jobs (id, namespace, queue, handler, state, priority, due_at, input, retry, attempts_max, \
         timeout_ms, correlation_id, trace_context, workflow_id, step, waiting_on, created_at, concurrency_key, step_kind, \
         has_rules, parent_id, item, item_index, skips, message, publishes, call, transitions, finished_at) \
         SELECT unhex(value ->> 0), value ->> 1, value ->> 2, value ->> 3, value ->> 4, value ->> 5, value ->> 6, \
         value ->> 7, value ->> 8, value ->> 9, value ->> 10, value ->> 11, value ->> 12, $1, value ->> 13, value ->> 14, \
         $2, value ->> 15, value ->> 16, value ->> 17, unhex(value ->> 18), value ->> 19, value ->> 20, value ->> 21, \
         value ->> 22, value ->> 23, value ->> 24, CASE WHEN value ->> 4 = 'skipped' THEN 1 ELSE 0 END, \
         CASE WHEN value ->> 4 = 'skipped' THEN $2 END FROM jsonb_each($3)",
    )
    .bind(workflow.uuid())
    .bind(now.micros())
    .bind(serde_json::Value::from(list).to_string())
    .execute(db)
    .await?;
    Ok(())
}

/// Who waits for whom: the child for the parent.
pub(super) async fn edges_insert(db: &mut Connection, edges: &[(Uuid, Uuid)]) -> Result<()> {
    let list: Vec<_> = edges.iter().map(|(parent, child)| json!([hex(*parent), hex(*child)])).collect();
    sqlx::query(
        "INSERT INTO job_edges (parent_id, child_id) SELECT unhex(value ->> 0), unhex(value ->> 1) FROM jsonb_each($1)",
    )
    .bind(serde_json::Value::from(list).to_string())
    .execute(db)
    .await?;
    Ok(())
}

/// The one writer needs no lock.
#[expect(clippy::unused_async, reason = "the other engine's waits")]
pub(super) async fn links_lock(_: &mut Connection, _: &[Uuid]) -> Result<()> {
    Ok(())
}

/// Steps that completed, with their history; what waited for them and now waits for less, or for nothing more.
pub(super) async fn steps_finish(
    db: &mut Connection,
    now: Timestamp,
    completions: &[Completion<'_>],
) -> Result<FinishedRows> {
    let ended = steps_complete(db, now, completions).await?;
    let mut alone = Vec::with_capacity(ended.len());
    for row in &ended {
        if row.try_get::<Option<Uuid>, _>("parent_id")?.is_none() {
            alone.push(row.try_get("id")?);
        }
    }
    let unblocked = if alone.is_empty() { Vec::new() } else { steps_unblock(db, now, &alone).await? };
    Ok(FinishedRows { ended, unblocked, counted: None })
}

/// Answers those whose tokens were good.
async fn steps_complete(
    db: &mut Connection,
    now: Timestamp,
    completions: &[Completion<'_>],
) -> Result<Vec<Row>> {
    let rows: Vec<_> = completions
        .iter()
        .map(|one| json!([hex(one.token.job.uuid()), one.token.epoch, hex(one.token.claim), one.output]))
        .collect();
    let rows = serde_json::Value::from(rows).to_string();
    sqlx::query(
        "INSERT INTO job_history (job_id, seq, at, from_state, to_state, attempt, epoch, session_id, detail) \
         SELECT j.id, j.transitions + 1, MAX(COALESCE(j.started_at, $2), $2), 'running', 'completed', j.attempt, j.epoch, \
         j.session_id, NULL FROM jsonb_each($1) s CROSS JOIN jobs j WHERE j.id = unhex(s.value ->> 0) \
         AND j.state = 'running' AND j.epoch = s.value ->> 1 AND j.claim = unhex(s.value ->> 2) \
         AND j.workflow_id IS NOT NULL",
    )
    .bind(&rows)
    .bind(now.micros())
    .execute(&mut *db)
    .await?;
    Ok(sqlx::query(
        "UPDATE jobs SET state = 'completed', output = s.value ->> 3, session_id = NULL, waiting_on = 0, \
         transitions = transitions + 1, finished_at = MAX(COALESCE(started_at, $2), $2) \
         FROM jsonb_each($1) s WHERE jobs.id = unhex(s.value ->> 0) AND jobs.state = 'running' \
         AND jobs.epoch = s.value ->> 1 AND jobs.claim = unhex(s.value ->> 2) AND jobs.workflow_id IS NOT NULL \
         RETURNING jobs.id, workflow_id, parent_id, attempt, finished_at, namespace, step, correlation_id, publishes",
    )
    .bind(&rows)
    .bind(now.micros())
    .fetch_all(db)
    .await?)
}

/// What waits for any of `ended` waits for less. Answers what waits for nothing more, and keeps its history.
async fn steps_unblock(db: &mut Connection, now: Timestamp, ended: &[Uuid]) -> Result<Vec<Row>> {
    let moved = sqlx::query(
        "UPDATE jobs SET waiting_on = waiting_on - less.n, \
         state = CASE WHEN waiting_on = less.n THEN 'queued' ELSE state END, \
         due_at = CASE WHEN waiting_on = less.n AND due_at < $2 THEN $2 ELSE due_at END, \
         transitions = transitions + CASE WHEN waiting_on = less.n THEN 1 ELSE 0 END \
         FROM (SELECT child_id, count(*) AS n FROM job_edges WHERE parent_id IN (SELECT unhex(value) FROM json_each($1)) \
         GROUP BY child_id) AS less WHERE jobs.id = less.child_id AND jobs.state = 'blocked' \
         RETURNING jobs.id, workflow_id, queue, handler, state, transitions, attempt, epoch, skips, step_kind",
    )
    .bind(ids(ended))
    .bind(now.micros())
    .fetch_all(&mut *db)
    .await?;
    let mut unblocked = Vec::with_capacity(moved.len());
    let mut log = Vec::new();
    for row in moved {
        if row.try_get::<&str, _>("state")? == "queued" {
            log.push(json!([
                hex(row.try_get("id")?),
                row.try_get::<i64, _>("transitions")?,
                row.try_get::<i64, _>("attempt")?,
                row.try_get::<i64, _>("epoch")?
            ]));
            unblocked.push(row);
        }
    }
    if !log.is_empty() {
        sqlx::query(
            "INSERT INTO job_history (job_id, seq, at, from_state, to_state, attempt, epoch, session_id, detail) \
             SELECT unhex(value ->> 0), value ->> 1, $2, 'blocked', 'queued', value ->> 2, value ->> 3, NULL, NULL \
             FROM jsonb_each($1)",
        )
        .bind(serde_json::Value::from(log).to_string())
        .bind(now.micros())
        .execute(db)
        .await?;
    }
    Ok(unblocked)
}

/// Adds to the counts of workflows, and has them run until somebody says otherwise. Answers their counts.
pub(super) async fn workflows_count(db: &mut Connection, rows: &[CountRow]) -> Result<Vec<Row>> {
    let rows: Vec<_> = rows
        .iter()
        .map(|row| json!([hex(row.workflow), row.delta.blocked, row.delta.active, row.delta.done]))
        .collect();
    Ok(sqlx::query(
        "UPDATE workflows SET steps_blocked = steps_blocked + (d.value ->> 1), \
         steps_active = steps_active + (d.value ->> 2), steps_done = steps_done + (d.value ->> 3), state = 'running', \
         finished_at = NULL FROM jsonb_each($1) d WHERE workflows.id = unhex(d.value ->> 0) \
         RETURNING workflows.id, steps_blocked, steps_active, steps_done, steps_failed, steps_cancelled, batch_id, parent_job_id",
    )
    .bind(serde_json::Value::from(rows).to_string())
    .fetch_all(db)
    .await?)
}

/// Workflows that run no longer.
pub(super) async fn workflows_end(
    db: &mut Connection,
    now: Timestamp,
    ended: &[(Uuid, WorkflowState)],
) -> Result<()> {
    let rows: Vec<_> =
        ended.iter().map(|(workflow, state)| json!([hex(*workflow), state.as_str()])).collect();
    sqlx::query(
        "UPDATE workflows SET state = d.value ->> 1, finished_at = $2 FROM jsonb_each($1) d \
         WHERE workflows.id = unhex(d.value ->> 0)",
    )
    .bind(serde_json::Value::from(rows).to_string())
    .bind(now.micros())
    .execute(db)
    .await?;
    Ok(())
}

/// Events; one whose payload was refused counts as handed on.
pub(super) async fn events_insert(db: &mut Connection, now: Timestamp, events: &[EventRecord]) -> Result<()> {
    let rows: Vec<_> = events
        .iter()
        .map(|event| {
            json!([
                hex(event.id.uuid()),
                event.namespace,
                event.name,
                event.at.micros(),
                event.job.map(|job| hex(job.uuid())),
                event.workflow.map(|workflow| hex(workflow.uuid())),
                event.step,
                event.attempt,
                event.outcome,
                event.correlation_id,
                event.data,
                event.problem,
            ])
        })
        .collect();
    sqlx::query(
        "INSERT INTO events (id, namespace, type, at, job_id, workflow_id, step, attempt, outcome, correlation_id, data, \
         problem, routed_at) SELECT unhex(value ->> 0), value ->> 1, value ->> 2, value ->> 3, unhex(value ->> 4), \
         unhex(value ->> 5), value ->> 6, value ->> 7, value ->> 8, value ->> 9, value ->> 10, value ->> 11, \
         CASE WHEN value ->> 11 IS NULL THEN NULL ELSE $2 END FROM jsonb_each($1)",
    )
    .bind(serde_json::Value::from(rows).to_string())
    .bind(now.micros())
    .execute(db)
    .await?;
    Ok(())
}

pub(super) async fn drafts_insert(db: &mut Connection, now: Timestamp, drafts: &[NewDraft]) -> Result<()> {
    let rows: Vec<_> = drafts
        .iter()
        .map(|draft| {
            let event = &draft.event;
            json!([
                hex(event.id.uuid()),
                event.namespace,
                event.name,
                event.at.micros(),
                event.job.map(|job| hex(job.uuid())),
                event.workflow.map(|workflow| hex(workflow.uuid())),
                event.step,
                event.attempt,
                event.outcome,
                event.correlation_id,
                draft.publisher,
                draft.mode,
                draft.schema,
                draft.ended(),
            ])
        })
        .collect();
    sqlx::query(
        "INSERT INTO event_drafts (id, namespace, type, at, job_id, workflow_id, step, attempt, outcome, correlation_id, publisher, \
         mode, payload_schema, ended, due_at) SELECT unhex(value ->> 0), value ->> 1, value ->> 2, value ->> 3, unhex(value ->> 4), \
         unhex(value ->> 5), value ->> 6, value ->> 7, value ->> 8, value ->> 9, value ->> 10, value ->> 11, value ->> 12, \
         value ->> 13, $2 FROM jsonb_each($1)",
    )
    .bind(serde_json::Value::from(rows).to_string())
    .bind(now.micros())
    .execute(db)
    .await?;
    Ok(())
}

/// Deliveries that ended, and their tries. Answers the events of those whose claim was good.
pub(super) async fn deliveries_settle(
    db: &mut Connection,
    now: Timestamp,
    subscriber: Uuid,
    ends: &[DeliveryRow<'_>],
) -> Result<Vec<Row>> {
    let rows: Vec<_> = ends
        .iter()
        .map(|end| {
            json!([
                hex(end.event),
                hex(end.claim),
                end.state,
                end.due_at,
                end.uncount,
                end.status,
                end.error,
                end.took_us,
                hex(subscriber)
            ])
        })
        .collect();
    let rows = serde_json::Value::from(rows).to_string();
    // The try first: it is told by the claim, which the delivery then loses.
    sqlx::query(
        "INSERT INTO delivery_attempts (subscriber_id, event_id, attempt, at, took_us, status, error) \
         SELECT $2, d.event_id, d.attempt, $3, s.value ->> 7, s.value ->> 5, s.value ->> 6 FROM jsonb_each($1) s \
         CROSS JOIN deliveries d WHERE d.subscriber_id = $2 AND d.event_id = unhex(s.value ->> 0) \
         AND d.claim = unhex(s.value ->> 1) AND d.state = 'pending' AND s.value ->> 4 = 0 \
         ON CONFLICT (subscriber_id, event_id, attempt) DO UPDATE SET at = excluded.at, took_us = excluded.took_us, \
         status = excluded.status, error = excluded.error",
    )
    .bind(&rows)
    .bind(subscriber)
    .bind(now.micros())
    .execute(&mut *db)
    .await?;
    // The subscriber comes with each row: by itself it would have all that waits for it looked through.
    Ok(sqlx::query(
        "UPDATE deliveries SET state = s.value ->> 2, due_at = COALESCE(s.value ->> 3, due_at), \
         attempt = attempt - (s.value ->> 4), claim = NULL, \
         ended_at = CASE WHEN s.value ->> 2 = 'pending' THEN NULL ELSE $2 END, status = COALESCE(s.value ->> 5, status), \
         error = CASE WHEN s.value ->> 2 = 'delivered' THEN NULL ELSE COALESCE(s.value ->> 6, error) END \
         FROM jsonb_each($1) s WHERE deliveries.subscriber_id = unhex(s.value ->> 8) \
         AND deliveries.event_id = unhex(s.value ->> 0) AND deliveries.claim = unhex(s.value ->> 1) \
         AND deliveries.state = 'pending' RETURNING event_id",
    )
    .bind(&rows)
    .bind(now.micros())
    .fetch_all(db)
    .await?)
}

/// Limits of steps, and of a workflow.
pub(super) async fn lifecycles_insert(
    db: &mut Connection,
    now: Timestamp,
    workflow: WorkflowId,
    rows: &[LimitRow],
) -> Result<()> {
    let rows: Vec<_> = rows.iter().map(|row| json!([hex(row.subject), row.limits, row.look_at])).collect();
    sqlx::query(
        "INSERT INTO lifecycles (subject_id, workflow_id, limits, counted_from, look_at) \
         SELECT unhex(value ->> 0), $1, value ->> 1, $2, value ->> 2 FROM jsonb_each($3)",
    )
    .bind(workflow.uuid())
    .bind(now.micros())
    .bind(serde_json::Value::from(rows).to_string())
    .execute(db)
    .await?;
    Ok(())
}

/// Keeps idempotency keys, unless they are there and not yet expired.
pub(super) async fn idempotency_keys_keep(
    db: &mut Connection,
    now: Timestamp,
    rows: &[KeyRow<'_>],
) -> Result<()> {
    let rows: Vec<_> = rows
        .iter()
        .map(|row| json!([row.namespace, row.key, hex(row.job), row.body, row.expires_at]))
        .collect();
    sqlx::query(
        "INSERT INTO idempotency_keys (namespace, key, job_id, body, expires_at) \
         SELECT value ->> 0, value ->> 1, unhex(value ->> 2), value ->> 3, value ->> 4 FROM jsonb_each($1) WHERE TRUE \
         ON CONFLICT (namespace, key) DO UPDATE SET job_id = excluded.job_id, body = excluded.body, \
         expires_at = excluded.expires_at WHERE idempotency_keys.expires_at <= $2",
    )
    .bind(serde_json::Value::from(rows).to_string())
    .bind(now.micros())
    .execute(db)
    .await?;
    Ok(())
}

/// What these keys stand for now.
pub(super) async fn idempotency_keys_read(db: &mut Connection, rows: &[KeyRow<'_>]) -> Result<Vec<Row>> {
    let rows: Vec<_> = rows.iter().map(|row| json!([row.namespace, row.key])).collect();
    Ok(sqlx::query(
        "SELECT k.namespace, k.key, k.job_id, k.body FROM jsonb_each($1) n CROSS JOIN idempotency_keys k \
         WHERE k.namespace = n.value ->> 0 AND k.key = n.value ->> 1",
    )
    .bind(serde_json::Value::from(rows).to_string())
    .fetch_all(db)
    .await?)
}

/// Settles jobs that belong to nothing else. Answers the places of those whose token was good.
pub(super) async fn settle(
    db: &mut Connection,
    now: Timestamp,
    settlements: &[(usize, &Settlement)],
    effects: &mut Effects,
) -> Result<Vec<usize>> {
    let mut rows = Vec::with_capacity(settlements.len());
    for (_, settlement) in settlements {
        let SettledColumns { state, output, error, delay_us, uncount } = columns(&settlement.outcome)?;
        rows.push(json!([
            hex(settlement.token.job.uuid()),
            settlement.token.epoch,
            hex(settlement.token.claim),
            state,
            output,
            error,
            delay_us.map(|delay_us| now.micros().saturating_add(delay_us)),
            uncount,
        ]));
    }
    // Two statements in one: on its way to the thread that runs it, each costs more than to run it.
    let settled = sqlx::query(
        "INSERT INTO job_history (job_id, seq, at, from_state, to_state, attempt, epoch, session_id, detail) \
         SELECT j.id, j.transitions + 1, $2, 'running', s.value ->> 3, j.attempt - (s.value ->> 7), j.epoch, \
         j.session_id, s.value ->> 5 FROM jsonb_each($1) s CROSS JOIN jobs j \
         WHERE j.id = unhex(s.value ->> 0) AND j.state = 'running' AND j.epoch = s.value ->> 1 \
         AND j.claim = unhex(s.value ->> 2) AND j.workflow_id IS NULL AND j.view_id IS NULL; \
         UPDATE jobs SET state = s.value ->> 3, output = COALESCE(s.value ->> 4, output), \
         error = COALESCE(s.value ->> 5, error), due_at = COALESCE(s.value ->> 6, due_at), \
         attempt = attempt - (s.value ->> 7), session_id = NULL, transitions = transitions + 1, \
         finished_at = CASE WHEN s.value ->> 3 = 'queued' THEN NULL ELSE $2 END \
         FROM jsonb_each($1) s WHERE jobs.id = unhex(s.value ->> 0) AND jobs.state = 'running' \
         AND jobs.epoch = s.value ->> 1 AND jobs.claim = unhex(s.value ->> 2) \
         AND jobs.workflow_id IS NULL AND jobs.view_id IS NULL RETURNING jobs.id, state, queue, batch_id",
    )
    .bind(serde_json::Value::from(rows).to_string())
    .bind(now.micros())
    .fetch_all(&mut *db)
    .await?;
    let mut places: HashMap<Uuid, usize> =
        settlements.iter().map(|(place, settlement)| (settlement.token.job.uuid(), *place)).collect();
    let mut accepted = Vec::with_capacity(settled.len());
    for row in &settled {
        match row.try_get("state")? {
            "queued" => effects.queued(row.try_get("queue")?),
            "failed" => letters::deposit(db, now, JobId::from_uuid(row.try_get("id")?)).await?,
            _ => {}
        }
        if let Some(batch) = row.try_get::<Option<Uuid>, _>("batch_id")?
            && let end @ Some(_) = MemberEnd::of_job(jobs::state(row, "state")?)
        {
            // Gathered: one statement for each batch at the end of the transaction.
            effects.batch_moved(BatchId::from_uuid(batch), None, end);
        }
        accepted.extend(places.remove(&row.try_get::<Uuid, _>("id")?));
    }
    Ok(accepted)
}

/// Nothing is claimed where limits concern the claim ([`limits_concern`]).
pub(super) async fn claim_freely(
    db: &mut Connection,
    now: Timestamp,
    request: &ClaimRequest,
) -> Result<Vec<ClaimedJob>> {
    let rows_max = i64::try_from(request.rows_max).unwrap_or(i64::MAX);
    let claim = Uuid::new_v4();
    // One scan of the index per queue, so that the backlog of one costs the others nothing. A session that has died
    // gets nothing: what it took would only be taken away again, at the cost of an attempt. For `LIMIT $6` alone SQLite would
    // parse and plan it anew each time.
    let claimed = sqlx::query(concat!(
        "UPDATE jobs SET state = 'running', epoch = epoch + 1, claim = $1, session_id = $2, attempt = attempt + 1, \
         started_at = $3, transitions = transitions + 1, progress = NULL, message = NULL \
         WHERE rowid IN (SELECT c.rowid FROM json_each($4) q CROSS JOIN jobs c \
         WHERE NOT EXISTS (SELECT 1 FROM queues p WHERE p.name = q.value AND p.paused_until > $3) AND c.rowid IN (SELECT rowid FROM jobs WHERE queue = q.value AND state = 'queued' \
         AND concurrency_key IS NULL AND due_at <= $3 \
         AND attempt < attempts_max AND handler IN (SELECT value FROM json_each($5)) \
         AND (NOT EXISTS (SELECT 1 FROM sessions WHERE id = $2 AND namespaces IS NOT NULL) OR jobs.namespace IN \
         (SELECT n.value FROM sessions s CROSS JOIN json_each(s.namespaces) n WHERE s.id = $2)) \
         ORDER BY priority DESC, due_at, id LIMIT $6 + 0) ORDER BY c.priority DESC, c.due_at, c.id LIMIT $6 + 0) \
         AND EXISTS (SELECT 1 FROM sessions WHERE sessions.id = $2 AND expires_at > $3) AND NOT (",
        limits_concern!("$4", "$5"),
        ") RETURNING id, namespace, queue, handler, input, attempt, retry, attempts_max, timeout_ms, correlation_id, \
         trace_context, workflow_id, step, view_id, epoch, due_at, priority, transitions, checkpoint; \
         INSERT INTO job_history (job_id, seq, at, from_state, to_state, attempt, epoch, session_id, detail) \
         SELECT id, transitions, $3, 'queued', 'running', attempt, epoch, $2, NULL FROM jobs \
         WHERE session_id = $2 AND claim = $1",
    ))
    .bind(claim)
    .bind(request.session.uuid())
    .bind(now.micros())
    .bind(texts(&request.queues))
    .bind(texts(&request.handlers))
    .bind(rows_max)
    .fetch_all(db)
    .await?;
    let mut taken = Vec::with_capacity(claimed.len());
    for row in &claimed {
        let (priority, due_at): (i64, i64) = (row.try_get("priority")?, row.try_get("due_at")?);
        let job = jobs::claimed(row, claim, now)?;
        taken.push(((std::cmp::Reverse(priority), due_at, job.token.job), job));
    }
    taken.sort_by_key(|(order, _)| *order);
    Ok(taken.into_iter().map(|(_, job)| job).collect())
}

pub(super) async fn items_stage(
    db: &mut Connection,
    view: ViewId,
    lease_epoch: i64,
    made_by: Option<JobId>,
    items: &[&StagedItem],
) -> Result<()> {
    let mut rows = Vec::with_capacity(items.len());
    for item in items {
        let value =
            item.value.as_deref().ok_or_else(|| Error::broken("an item without a value was to be staged"))?;
        rows.push(json!([item.item, item.fingerprint, digest(value), value]));
    }
    sqlx::query(
        "INSERT INTO view_staged (view_id, item, lease_epoch, fingerprint, digest, value, made_by) \
         SELECT $1, value ->> 0, $2, value ->> 1, value ->> 2, value ->> 3, $4 FROM jsonb_each($3) WHERE TRUE \
         ON CONFLICT (view_id, item) DO UPDATE SET lease_epoch = excluded.lease_epoch, \
         fingerprint = excluded.fingerprint, digest = excluded.digest, value = excluded.value, made_by = excluded.made_by",
    )
    .bind(view.uuid())
    .bind(lease_epoch)
    .bind(serde_json::Value::from(rows).to_string())
    .bind(made_by.map(JobId::uuid))
    .execute(db)
    .await?;
    Ok(())
}

/// Writes back what touches changed of views that are locked; and from which version on any of their items may be affected, 0 where none was said.
pub(super) async fn views_touched(db: &mut Connection, views: &[(&ViewRecord, i64)]) -> Result<()> {
    let row = |(view, all_touched): &(&ViewRecord, i64)| {
        let versions = &view.versions;
        let micros = |at: Option<Timestamp>| at.map(Timestamp::micros);
        json!([
            view.id.uuid().simple().to_string(),
            versions.wanted,
            versions.processing,
            versions.status.as_str(),
            versions.lease_epoch,
            view.build.filter(|_| versions.has_build).map(|build| build.uuid().simple().to_string()),
            micros(versions.dirty_since),
            micros(versions.dirty_since_begin),
            micros(versions.touched_at),
            micros(versions.due_at),
            micros(versions.began_at),
            micros(versions.waits_since),
            view.touched_by.as_ref().map(|word| word.actor.as_str()),
            view.touched_by.as_ref().map(|word| word.reason.as_str()),
            view.touch_source.kept(),
            all_touched,
        ])
    };
    let rows: Vec<_> = views.iter().map(row).collect();
    sqlx::query(
        "UPDATE views SET recache_version = n.value ->> 1, processing_version = n.value ->> 2, \
         recache_status = n.value ->> 3, lease_epoch = n.value ->> 4, build_job_id = unhex(n.value ->> 5), \
         dirty_since = n.value ->> 6, dirty_since_begin = n.value ->> 7, touched_at = n.value ->> 8, \
         due_at = n.value ->> 9, began_at = n.value ->> 10, waits_since = n.value ->> 11, touched_by = n.value ->> 12, \
         touch_reason = n.value ->> 13, touch_source = n.value ->> 14, \
         all_touched_version = max(all_touched_version, n.value ->> 15) \
         FROM jsonb_each($1) AS n WHERE views.id = unhex(n.value ->> 0)",
    )
    .bind(serde_json::Value::from(rows).to_string())
    .execute(db)
    .await?;
    Ok(())
}

/// Items that touches named, each once, with the version that they ask for.
pub(super) async fn touched_items(db: &mut Connection, items: &[(ViewId, &str, i64)]) -> Result<()> {
    let row = |(view, item, version): &(ViewId, &str, i64)| {
        json!([view.uuid().simple().to_string(), item, version])
    };
    let rows: Vec<_> = items.iter().map(row).collect();
    sqlx::query(
        "INSERT INTO view_touched_items (view_id, item, version) SELECT unhex(value ->> 0), value ->> 1, value ->> 2 \
         FROM jsonb_each($1) WHERE TRUE ON CONFLICT (view_id, item) DO UPDATE SET version = excluded.version",
    )
    .bind(serde_json::Value::from(rows).to_string())
    .execute(db)
    .await?;
    Ok(())
}

/// Flights of the example, numbered from `first`.
pub(super) async fn flights_insert(db: &mut Connection, first: i64, legs: &[Leg]) -> Result<()> {
    let rows: Vec<_> = legs.iter().map(|leg| json!([leg.carrier, leg.dest, leg.arr_delay])).collect();
    sqlx::query(
        "INSERT INTO example_flights (number, carrier, dest, arr_delay) \
         SELECT $1 + key, value ->> 0, value ->> 1, value ->> 2 FROM jsonb_each($2)",
    )
    .bind(first)
    .bind(serde_json::Value::from(rows).to_string())
    .execute(db)
    .await?;
    Ok(())
}

/// Whether limits or keys have a say in what this request may take.
pub(super) async fn limits_concern(db: &mut Connection, request: &ClaimRequest) -> Result<bool> {
    let row = sqlx::query(concat!("SELECT ", limits_concern!("$1", "$2"), " AS concern"))
        .bind(texts(&request.queues))
        .bind(texts(&request.handlers))
        .fetch_one(db)
        .await?;
    Ok(row.try_get("concern")?)
}

/// The one writer needs no lock.
#[expect(clippy::unused_async, reason = "the other engine's waits")]
pub(super) async fn keys_lock(_: &mut Connection, _: &BTreeSet<NamespacedKey>) -> Result<()> {
    Ok(())
}

/// Of each key as many of its most urgent jobs as it has room for.
pub(super) async fn keyed_candidates(
    db: &mut Connection,
    now: Timestamp,
    queue: &str,
    keys: &[(&NamespacedKey, u64)],
    handlers: &[String],
) -> Result<Vec<Row>> {
    let handlers = texts(handlers);
    let mut rows = Vec::new();
    // One at a time: a LIMIT cannot name another table's column here, and nothing travels.
    for (key, free) in keys {
        let found = sqlx::query(
            "SELECT id, queue, handler, namespace, concurrency_key, priority, due_at FROM jobs WHERE queue = $1 \
             AND state = 'queued' AND concurrency_key IS NOT NULL AND namespace = $3 AND concurrency_key = $4 \
             AND due_at <= $2 AND attempt < attempts_max AND handler IN (SELECT value FROM json_each($5)) \
             ORDER BY priority DESC, due_at, id LIMIT $6",
        )
        .bind(queue)
        .bind(now.micros())
        .bind(&key.0)
        .bind(&key.1)
        .bind(&handlers)
        .bind(i64::try_from(*free).unwrap_or(i64::MAX))
        .fetch_all(&mut *db)
        .await?;
        rows.extend(found);
    }
    Ok(rows)
}

/// History is one table here, and goes with its job.
#[expect(clippy::unused_async, reason = "the other engine's waits")]
pub(super) async fn history_outliving(_: &mut Connection, _: Timestamp, jobs: &[Uuid]) -> Result<Vec<Uuid>> {
    Ok(jobs.to_vec())
}

/// It goes with its job, always.
#[expect(clippy::unused_async, reason = "the other engine's waits")]
pub(super) async fn history_forget(
    _: &mut Connection,
    _: Timestamp,
    _: impl Iterator<Item = Uuid> + Send,
) -> Result<()> {
    Ok(())
}

pub(super) async fn history_remove(db: &mut Connection, jobs: &[Uuid]) -> Result<()> {
    sqlx::query("DELETE FROM job_history WHERE job_id IN (SELECT unhex(value) FROM json_each($1))")
        .bind(ids(jobs))
        .execute(db)
        .await?;
    Ok(())
}

/// SQLite plans our statements by their indexes alone.
#[expect(clippy::unused_async, reason = "the other engine's waits")]
pub(super) async fn statistics_refresh(_: &mut Connection) -> Result<u64> {
    Ok(0)
}
