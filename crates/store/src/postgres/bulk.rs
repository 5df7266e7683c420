//! Many rows in one statement: lists travel as arrays that `unnest` takes apart.

use std::collections::{BTreeSet, HashMap, HashSet};

use recache_model::ids::{BatchId, JobId, ViewId, WorkflowId};
use recache_model::limits::NamespacedKey;
use recache_model::time::Timestamp;
use recache_model::unique::PartsHash;
use recache_model::view::Versions;
use recache_model::workflow::WorkflowState;
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
use super::statements::{batches, jobs};
use super::{Connection, Row, history_days};
use crate::error::{Error, Result};
use crate::events::EventRecord;
use crate::flights::Leg;
use crate::letters::ATTEMPTS_KEPT_MAX;
use crate::records::{ClaimRequest, ClaimedJob, Due, NewJob, Settlement, StagedItem, ViewRecord};

/// One statement, and so one round trip and one commit. Answers the ids that were new. A row that meets another of its
/// unique key is left out like one whose id is there.
pub(super) async fn jobs_insert(
    db: &mut Connection,
    now: Option<Timestamp>,
    new: &[&NewJob],
    uniques: &[UniqueColumns],
) -> Result<HashSet<Uuid>> {
    let column = |value: fn(&NewJob) -> &str| new.iter().map(|job| value(job)).collect::<Vec<&str>>();
    let retries = new.iter().map(|job| jobs::to_json(&job.retry)).collect::<Result<Vec<_>>>()?;
    let (mut instants, mut delays) = (Vec::with_capacity(new.len()), Vec::with_capacity(new.len()));
    for job in new {
        let (instant, delay) = match job.due {
            Due::Now => (None, 0),
            Due::In(delay) => (None, jobs::delay_micros(delay)),
            Due::At(instant) => (Some(instant.micros()), 0),
        };
        instants.push(instant);
        delays.push(delay);
    }
    let inserted = sqlx::query(
        "WITH t AS MATERIALIZED (SELECT COALESCE($14::bigint, clock()) AS now) \
         INSERT INTO jobs (id, namespace, queue, handler, state, priority, due_at, input, retry, attempts_max, \
         timeout_ms, correlation_id, trace_context, created_at, unique_key, unique_ended, \
         concurrency_key, batch_id) \
         SELECT id, namespace, queue, handler, 'queued', priority, COALESCE(instant, t.now + delay), input, retry, \
         attempts_max, timeout_ms, correlation_id, trace_context, t.now, unique_key, unique_ended, \
         concurrency_key, batch_id \
         FROM t, unnest($1::uuid[], $2::text[], $3::text[], $4::text[], $5::bigint[], $6::bigint[], $7::bigint[], \
         $8::text[], $9::text[], $10::bigint[], $11::bigint[], $12::text[], $13::text[], $15::text[], $16::bigint[], \
         $17::text[], $18::uuid[]) \
         AS n (id, namespace, queue, handler, priority, instant, delay, input, retry, attempts_max, timeout_ms, \
         correlation_id, trace_context, unique_key, unique_ended, concurrency_key, batch_id) ON CONFLICT DO NOTHING RETURNING id",
    )
    .bind(new.iter().map(|job| job.id.uuid()).collect::<Vec<_>>())
    .bind(column(|job| &job.namespace))
    .bind(column(|job| &job.queue))
    .bind(column(|job| &job.handler))
    .bind(new.iter().map(|job| job.priority).collect::<Vec<_>>())
    .bind(instants)
    .bind(delays)
    .bind(column(|job| &job.input))
    .bind(retries)
    .bind(new.iter().map(|job| i64::from(job.retry.attempts_max)).collect::<Vec<_>>())
    .bind(new.iter().map(|job| jobs::timeout_ms(job.timeout)).collect::<Vec<_>>())
    .bind(column(|job| &job.correlation_id))
    .bind(new.iter().map(|job| job.trace_context.as_deref()).collect::<Vec<_>>())
    .bind(now.map(Timestamp::micros))
    .bind(uniques.iter().map(|unique| unique.key.as_deref()).collect::<Vec<_>>())
    .bind(uniques.iter().map(|unique| unique.ended).collect::<Vec<_>>())
    .bind(new.iter().map(|job| job.concurrency_key.as_deref()).collect::<Vec<_>>())
    .bind(new.iter().map(|job| job.batch.map(BatchId::uuid)).collect::<Vec<_>>())
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
    let retries = rows.iter().map(|row| jobs::to_json(&row.job.retry)).collect::<Result<Vec<_>>>()?;
    let calls = rows
        .iter()
        .map(|row| row.job.call.as_ref().map(jobs::to_json).transpose())
        .collect::<Result<Vec<_>>>()?;
    let column = |value: fn(&NewJob) -> &str| rows.iter().map(|row| value(row.job)).collect::<Vec<&str>>();
    sqlx::query(
        "INSERT INTO jobs (id, namespace, queue, handler, state, priority, due_at, input, retry, attempts_max, \
         timeout_ms, correlation_id, trace_context, workflow_id, step, waiting_on, created_at, concurrency_key, step_kind, \
         has_rules, parent_id, item, item_index, skips, message, publishes, call, transitions, finished_at) \
         SELECT id, namespace, queue, handler, state, priority, due_at, input, retry, attempts_max, timeout_ms, \
         correlation_id, trace_context, $1, step, waiting_on, $2, concurrency_key, step_kind, has_rules, parent_id, item, \
         item_index, skips, message, publishes, call, CASE WHEN state = 'skipped' THEN 1 ELSE 0 END, \
         CASE WHEN state = 'skipped' THEN CAST($2 AS BIGINT) END \
         FROM unnest($3::uuid[], $4::text[], $5::text[], $6::text[], $7::text[], $8::bigint[], $9::bigint[], $10::text[], \
         $11::text[], $12::bigint[], $13::bigint[], $14::text[], $15::text[], $16::text[], $17::bigint[], $18::text[], \
         $19::text[], $20::bigint[], $21::uuid[], $22::text[], $23::bigint[], $24::bigint[], $25::text[], \
         $26::text[], $27::text[]) \
         AS n (id, namespace, queue, handler, state, priority, due_at, input, retry, attempts_max, timeout_ms, \
         correlation_id, trace_context, step, waiting_on, concurrency_key, step_kind, has_rules, parent_id, item, \
         item_index, skips, message, publishes, call)",
    )
    .bind(workflow.uuid())
    .bind(now.micros())
    .bind(rows.iter().map(|row| row.job.id.uuid()).collect::<Vec<_>>())
    .bind(column(|job| &job.namespace))
    .bind(column(|job| &job.queue))
    .bind(column(|job| &job.handler))
    .bind(rows.iter().map(|row| row.state().as_str()).collect::<Vec<_>>())
    .bind(rows.iter().map(|row| row.job.priority).collect::<Vec<_>>())
    .bind(rows.iter().map(|row| jobs::due_micros(row.job.due, now)).collect::<Vec<_>>())
    .bind(column(|job| &job.input))
    .bind(retries)
    .bind(rows.iter().map(|row| i64::from(row.job.retry.attempts_max)).collect::<Vec<_>>())
    .bind(rows.iter().map(|row| jobs::timeout_ms(row.job.timeout)).collect::<Vec<_>>())
    .bind(column(|job| &job.correlation_id))
    .bind(rows.iter().map(|row| row.job.trace_context.as_deref()).collect::<Vec<_>>())
    .bind(rows.iter().map(|row| row.step).collect::<Vec<_>>())
    .bind(rows.iter().map(|row| i64::try_from(row.waiting_on).unwrap_or(i64::MAX)).collect::<Vec<_>>())
    .bind(rows.iter().map(|row| row.job.concurrency_key.as_deref()).collect::<Vec<_>>())
    .bind(rows.iter().map(StepRow::kind_column).collect::<Vec<_>>())
    .bind(rows.iter().map(|row| i64::from(row.has_rules)).collect::<Vec<_>>())
    .bind(rows.iter().map(|row| row.parent).collect::<Vec<_>>())
    .bind(rows.iter().map(|row| row.item.map(|(item, _)| item)).collect::<Vec<_>>())
    .bind(rows.iter().map(|row| row.item.map(|(_, index)| index)).collect::<Vec<_>>())
    .bind(rows.iter().map(|row| row.skips).collect::<Vec<_>>())
    .bind(rows.iter().map(|row| row.skipped).collect::<Vec<_>>())
    .bind(rows.iter().map(|row| row.job.publishes.as_deref()).collect::<Vec<_>>())
    .bind(calls)
    .execute(&mut *db)
    .await?;
    history_forget(db, now, rows.iter().map(|row| row.job.id.uuid())).await
}

/// A job whose id was another one's long ago has nothing of that one's history. It was inserted in this transaction: nobody else sees it.
pub(super) async fn history_forget(
    db: &mut Connection,
    now: Timestamp,
    inserted: impl Iterator<Item = Uuid> + Send,
) -> Result<()> {
    let old: Vec<Uuid> = inserted.filter(|id| history_days::may_have_history(*id, now)).collect();
    history_remove(db, &old).await
}

/// Of jobs that are removed because their time is over, those whose history is to be removed with them: the rest goes with its day.
pub(super) async fn history_outliving(
    db: &mut Connection,
    now: Timestamp,
    jobs: &[Uuid],
) -> Result<Vec<Uuid>> {
    history_days::outliving(db, now, jobs).await
}

pub(super) async fn history_remove(db: &mut Connection, jobs: &[Uuid]) -> Result<()> {
    history_days::remove(db, jobs).await
}

/// Who waits for whom: the child for the parent.
pub(super) async fn edges_insert(db: &mut Connection, edges: &[(Uuid, Uuid)]) -> Result<()> {
    sqlx::query("INSERT INTO job_edges (parent_id, child_id) SELECT * FROM unnest($1::uuid[], $2::uuid[])")
        .bind(edges.iter().map(|(parent, _)| *parent).collect::<Vec<_>>())
        .bind(edges.iter().map(|(_, child)| *child).collect::<Vec<_>>())
        .execute(db)
        .await?;
    Ok(())
}

/// Locks the views and then the workflows that jobs belong to, each by id. What a job belongs to never changes; what is read after
/// this statement is as it is under the locks.
pub(super) async fn links_lock(db: &mut Connection, jobs: &[Uuid]) -> Result<()> {
    sqlx::query(
        "WITH v AS MATERIALIZED (SELECT id FROM views WHERE id IN (SELECT view_id FROM jobs WHERE id = ANY($1)) \
         ORDER BY id FOR UPDATE), \
         w AS MATERIALIZED (SELECT id FROM workflows WHERE id IN (SELECT workflow_id FROM jobs WHERE id = ANY($1)) \
         ORDER BY id FOR UPDATE) SELECT (SELECT count(*) FROM v) AS views, (SELECT count(*) FROM w) AS workflows",
    )
    .bind(jobs)
    .execute(db)
    .await?;
    Ok(())
}

/// Steps that completed, with their history; what waited for them and now waits for less, or for nothing more; and the counts of
/// their workflows. One statement, since a step of a small workflow is settled alone and each exchange more would be felt.
///
/// Where a child ended, of a step that was split, its parent's end is still to come: then nothing is counted here.
pub(super) async fn steps_finish(
    db: &mut Connection,
    now: Timestamp,
    completions: &[Completion<'_>],
) -> Result<FinishedRows> {
    let rows = sqlx::query(
        "WITH held AS MATERIALIZED (SELECT j.id, j.session_id, s.output, GREATEST(j.started_at, $5) AS at \
         FROM unnest($1::uuid[], $2::bigint[], $3::uuid[], $4::text[]) AS s (id, epoch, claim, output) \
         JOIN jobs j ON j.id = s.id WHERE j.state = 'running' AND j.epoch = s.epoch AND j.claim = s.claim \
         AND j.workflow_id IS NOT NULL ORDER BY j.id FOR UPDATE OF j), \
         done AS (UPDATE jobs j SET state = 'completed', output = h.output, session_id = NULL, waiting_on = 0, \
         transitions = j.transitions + 1, finished_at = h.at FROM held h WHERE j.id = h.id \
         RETURNING j.id, j.workflow_id, j.parent_id, j.attempt, j.epoch, j.transitions, j.finished_at, j.namespace, j.step, \
         j.correlation_id, j.publishes, h.session_id AS held_by), \
         less AS (SELECT e.child_id, count(*) AS n FROM job_edges e JOIN done d ON d.id = e.parent_id \
         WHERE d.parent_id IS NULL GROUP BY e.child_id), \
         moved AS (UPDATE jobs c SET waiting_on = c.waiting_on - less.n, \
         state = CASE WHEN c.waiting_on = less.n THEN 'queued' ELSE c.state END, \
         due_at = CASE WHEN c.waiting_on = less.n AND c.due_at < $5 THEN $5 ELSE c.due_at END, \
         transitions = c.transitions + CASE WHEN c.waiting_on = less.n THEN 1 ELSE 0 END \
         FROM less WHERE c.id = less.child_id AND c.state = 'blocked' \
         RETURNING c.id, c.workflow_id, c.queue, c.handler, c.state, c.transitions, c.attempt, c.epoch, c.skips, c.step_kind), \
         log AS (INSERT INTO job_history (job_id, seq, at, from_state, to_state, attempt, epoch, session_id, detail) \
         SELECT id, transitions, finished_at, 'running', 'completed', attempt, epoch, held_by, NULL FROM done UNION ALL \
         SELECT id, transitions, $5, 'blocked', 'queued', attempt, epoch, NULL, NULL FROM moved WHERE state = 'queued'), \
         delta AS (SELECT workflow_id, sum(ended)::bigint AS ended, sum(unblocked)::bigint AS unblocked \
         FROM (SELECT workflow_id, 1 AS ended, 0 AS unblocked FROM done UNION ALL \
         SELECT workflow_id, 0, 1 FROM moved WHERE state = 'queued') AS one GROUP BY workflow_id), \
         counted AS (UPDATE workflows w SET steps_blocked = w.steps_blocked - d.unblocked, \
         steps_active = w.steps_active - d.ended + d.unblocked, steps_done = w.steps_done + d.ended, \
         state = 'running', finished_at = NULL FROM delta d WHERE w.id = d.workflow_id \
         AND NOT EXISTS (SELECT 1 FROM done WHERE parent_id IS NOT NULL) \
         RETURNING w.id, w.steps_blocked, w.steps_active, w.steps_done, w.steps_failed, w.steps_cancelled, w.batch_id, \
         w.parent_job_id) \
         SELECT 'ended' AS what, id, workflow_id, parent_id, attempt, finished_at, namespace, step, correlation_id, publishes, \
         NULL::text AS queue, NULL::text AS handler, NULL::bigint AS skips, NULL::text AS step_kind, \
         NULL::bigint AS steps_blocked, NULL::bigint AS steps_active, NULL::bigint AS steps_done, \
         NULL::bigint AS steps_failed, NULL::bigint AS steps_cancelled, NULL::uuid AS batch_id, NULL::uuid AS parent_job_id \
         FROM done UNION ALL \
         SELECT 'unblocked', id, workflow_id, NULL, NULL, NULL, NULL, NULL, NULL, NULL, queue, handler, skips, step_kind, \
         NULL, NULL, NULL, NULL, NULL, NULL, NULL FROM moved WHERE state = 'queued' UNION ALL \
         SELECT 'counted', id, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, steps_blocked, \
         steps_active, steps_done, steps_failed, steps_cancelled, batch_id, parent_job_id FROM counted",
    )
    .bind(completions.iter().map(|one| one.token.job.uuid()).collect::<Vec<_>>())
    .bind(completions.iter().map(|one| one.token.epoch).collect::<Vec<_>>())
    .bind(completions.iter().map(|one| one.token.claim).collect::<Vec<_>>())
    .bind(completions.iter().map(|one| one.output).collect::<Vec<_>>())
    .bind(now.micros())
    .fetch_all(db)
    .await?;
    let mut finished = FinishedRows::default();
    let (mut counted, mut has_children) = (Vec::new(), false);
    for row in rows {
        match row.try_get::<&str, _>("what")? {
            "ended" => {
                has_children |= row.try_get::<Option<Uuid>, _>("parent_id")?.is_some();
                finished.ended.push(row);
            }
            "unblocked" => finished.unblocked.push(row),
            _ => counted.push(row),
        }
    }
    finished.counted = (!has_children).then_some(counted);
    Ok(finished)
}

/// Adds to the counts of workflows, and has them run until somebody says otherwise. Answers their counts.
pub(super) async fn workflows_count(db: &mut Connection, rows: &[CountRow]) -> Result<Vec<Row>> {
    let column = |value: fn(&CountRow) -> i64| rows.iter().map(value).collect::<Vec<_>>();
    Ok(sqlx::query(
        "UPDATE workflows w SET steps_blocked = w.steps_blocked + d.blocked, steps_active = w.steps_active + d.active, \
         steps_done = w.steps_done + d.done, state = 'running', finished_at = NULL \
         FROM unnest($1::uuid[], $2::bigint[], $3::bigint[], $4::bigint[]) AS d (id, blocked, active, done) \
         WHERE w.id = d.id RETURNING w.id, w.steps_blocked, w.steps_active, w.steps_done, w.steps_failed, \
         w.steps_cancelled, w.batch_id, w.parent_job_id",
    )
    .bind(rows.iter().map(|row| row.workflow).collect::<Vec<_>>())
    .bind(column(|row| row.delta.blocked))
    .bind(column(|row| row.delta.active))
    .bind(column(|row| row.delta.done))
    .fetch_all(db)
    .await?)
}

/// Workflows that run no longer.
pub(super) async fn workflows_end(
    db: &mut Connection,
    now: Timestamp,
    ended: &[(Uuid, WorkflowState)],
) -> Result<()> {
    sqlx::query(
        "UPDATE workflows w SET state = d.state, finished_at = $3 FROM unnest($1::uuid[], $2::text[]) AS d (id, state) \
         WHERE w.id = d.id",
    )
    .bind(ended.iter().map(|(workflow, _)| *workflow).collect::<Vec<_>>())
    .bind(ended.iter().map(|(_, state)| state.as_str()).collect::<Vec<_>>())
    .bind(now.micros())
    .execute(db)
    .await?;
    Ok(())
}

/// Events; one whose payload was refused counts as handed on.
pub(super) async fn events_insert(db: &mut Connection, now: Timestamp, events: &[EventRecord]) -> Result<()> {
    let texts = |value: fn(&EventRecord) -> Option<&str>| events.iter().map(value).collect::<Vec<_>>();
    sqlx::query(
        "INSERT INTO events (id, namespace, type, at, job_id, workflow_id, step, attempt, outcome, correlation_id, data, \
         problem, routed_at) SELECT id, namespace, type, at, job_id, workflow_id, step, attempt, outcome, correlation_id, \
         data, problem, CASE WHEN problem IS NULL THEN NULL ELSE CAST($13 AS BIGINT) END \
         FROM unnest($1::uuid[], $2::text[], $3::text[], $4::bigint[], $5::uuid[], $6::uuid[], $7::text[], $8::bigint[], \
         $9::text[], $10::text[], $11::text[], $12::text[]) AS n (id, namespace, type, at, job_id, workflow_id, step, \
         attempt, outcome, correlation_id, data, problem)",
    )
    .bind(events.iter().map(|event| event.id.uuid()).collect::<Vec<_>>())
    .bind(texts(|event| Some(&event.namespace)))
    .bind(texts(|event| Some(&event.name)))
    .bind(events.iter().map(|event| event.at.micros()).collect::<Vec<_>>())
    .bind(events.iter().map(|event| event.job.map(JobId::uuid)).collect::<Vec<_>>())
    .bind(events.iter().map(|event| event.workflow.map(WorkflowId::uuid)).collect::<Vec<_>>())
    .bind(texts(|event| event.step.as_deref()))
    .bind(events.iter().map(|event| event.attempt.map(i64::from)).collect::<Vec<_>>())
    .bind(texts(|event| event.outcome.as_deref()))
    .bind(texts(|event| event.correlation_id.as_deref()))
    .bind(texts(|event| Some(&event.data)))
    .bind(texts(|event| event.problem.as_deref()))
    .bind(now.micros())
    .execute(db)
    .await?;
    Ok(())
}

pub(super) async fn drafts_insert(db: &mut Connection, now: Timestamp, drafts: &[NewDraft]) -> Result<()> {
    let texts = |value: fn(&NewDraft) -> Option<&str>| drafts.iter().map(value).collect::<Vec<_>>();
    sqlx::query(
        "INSERT INTO event_drafts (id, namespace, type, at, job_id, workflow_id, step, attempt, outcome, correlation_id, publisher, \
         mode, payload_schema, ended, due_at) SELECT id, namespace, type, at, job_id, workflow_id, step, attempt, outcome, \
         correlation_id, publisher, mode, payload_schema, ended, $15 \
         FROM unnest($1::uuid[], $2::text[], $3::text[], $4::bigint[], $5::uuid[], $6::uuid[], $7::text[], $8::bigint[], \
         $9::text[], $10::text[], $11::text[], $12::text[], $13::text[], $14::text[]) AS n (id, namespace, type, at, job_id, \
         workflow_id, step, attempt, outcome, correlation_id, publisher, mode, payload_schema, ended)",
    )
    .bind(drafts.iter().map(|draft| draft.event.id.uuid()).collect::<Vec<_>>())
    .bind(texts(|draft| Some(&draft.event.namespace)))
    .bind(texts(|draft| Some(&draft.event.name)))
    .bind(drafts.iter().map(|draft| draft.event.at.micros()).collect::<Vec<_>>())
    .bind(drafts.iter().map(|draft| draft.event.job.map(JobId::uuid)).collect::<Vec<_>>())
    .bind(drafts.iter().map(|draft| draft.event.workflow.map(WorkflowId::uuid)).collect::<Vec<_>>())
    .bind(texts(|draft| draft.event.step.as_deref()))
    .bind(drafts.iter().map(|draft| draft.event.attempt.map(i64::from)).collect::<Vec<_>>())
    .bind(texts(|draft| draft.event.outcome.as_deref()))
    .bind(texts(|draft| draft.event.correlation_id.as_deref()))
    .bind(texts(|draft| Some(&draft.publisher)))
    .bind(texts(|draft| Some(draft.mode)))
    .bind(texts(|draft| draft.schema.as_deref()))
    .bind(texts(NewDraft::ended))
    .bind(now.micros())
    .execute(db)
    .await?;
    Ok(())
}

/// Deliveries that ended, and their tries. Answers the events of those whose claim was good. The subscriber stands in each row: by
/// itself it would have all that waits for it looked through.
pub(super) async fn deliveries_settle(
    db: &mut Connection,
    now: Timestamp,
    subscriber: Uuid,
    ends: &[DeliveryRow<'_>],
) -> Result<Vec<Row>> {
    Ok(sqlx::query(
        "WITH ended AS MATERIALIZED (SELECT $1::uuid AS subscriber, s.* FROM unnest($2::uuid[], $3::uuid[], $4::text[], $5::bigint[], $6::bigint[], \
         $7::bigint[], $8::text[], $9::bigint[]) AS s (event_id, claim, state, due_at, uncount, status, error, took_us)), \
         settled AS (UPDATE deliveries d SET state = s.state, due_at = COALESCE(s.due_at, d.due_at), \
         attempt = d.attempt - s.uncount, claim = NULL, ended_at = CASE WHEN s.state = 'pending' THEN NULL \
         ELSE CAST($10 AS BIGINT) END, status = COALESCE(s.status, d.status), error = CASE WHEN s.state = 'delivered' THEN NULL \
         ELSE COALESCE(s.error, d.error) END FROM ended s WHERE d.subscriber_id = s.subscriber AND d.event_id = s.event_id \
         AND d.claim = s.claim AND d.state = 'pending' RETURNING d.event_id, d.attempt, s.uncount, s.status, s.error, s.took_us), \
         tries AS (INSERT INTO delivery_attempts AS a (subscriber_id, event_id, attempt, at, took_us, status, error) \
         SELECT $1, event_id, attempt, $10, took_us, status, error FROM settled WHERE uncount = 0 \
         ON CONFLICT (subscriber_id, event_id, attempt) DO UPDATE SET at = excluded.at, took_us = excluded.took_us, \
         status = excluded.status, error = excluded.error) SELECT event_id FROM settled",
    )
    .bind(subscriber)
    .bind(ends.iter().map(|end| end.event).collect::<Vec<_>>())
    .bind(ends.iter().map(|end| end.claim).collect::<Vec<_>>())
    .bind(ends.iter().map(|end| end.state).collect::<Vec<_>>())
    .bind(ends.iter().map(|end| end.due_at).collect::<Vec<_>>())
    .bind(ends.iter().map(|end| end.uncount).collect::<Vec<_>>())
    .bind(ends.iter().map(|end| end.status).collect::<Vec<_>>())
    .bind(ends.iter().map(|end| end.error).collect::<Vec<_>>())
    .bind(ends.iter().map(|end| end.took_us).collect::<Vec<_>>())
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
    sqlx::query(
        "INSERT INTO lifecycles (subject_id, workflow_id, limits, counted_from, look_at) \
         SELECT subject, $1, limits, $2, look_at FROM unnest($3::uuid[], $4::text[], $5::bigint[]) \
         AS n (subject, limits, look_at)",
    )
    .bind(workflow.uuid())
    .bind(now.micros())
    .bind(rows.iter().map(|row| row.subject).collect::<Vec<_>>())
    .bind(rows.iter().map(|row| row.limits.as_str()).collect::<Vec<_>>())
    .bind(rows.iter().map(|row| row.look_at).collect::<Vec<_>>())
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
    sqlx::query(
        "INSERT INTO idempotency_keys (namespace, key, job_id, body, expires_at) \
         SELECT * FROM unnest($1::text[], $2::text[], $3::uuid[], $4::text[], $5::bigint[]) \
         ON CONFLICT (namespace, key) DO UPDATE SET job_id = excluded.job_id, body = excluded.body, \
         expires_at = excluded.expires_at WHERE idempotency_keys.expires_at <= $6",
    )
    .bind(rows.iter().map(|row| row.namespace).collect::<Vec<_>>())
    .bind(rows.iter().map(|row| row.key).collect::<Vec<_>>())
    .bind(rows.iter().map(|row| row.job).collect::<Vec<_>>())
    .bind(rows.iter().map(|row| row.body.as_str()).collect::<Vec<_>>())
    .bind(rows.iter().map(|row| row.expires_at).collect::<Vec<_>>())
    .bind(now.micros())
    .execute(db)
    .await?;
    Ok(())
}

/// What these keys stand for now.
pub(super) async fn idempotency_keys_read(db: &mut Connection, rows: &[KeyRow<'_>]) -> Result<Vec<Row>> {
    Ok(sqlx::query(
        "SELECT k.namespace, k.key, k.job_id, k.body FROM unnest($1::text[], $2::text[]) AS n (namespace, key) \
         JOIN idempotency_keys k ON k.namespace = n.namespace AND k.key = n.key",
    )
    .bind(rows.iter().map(|row| row.namespace).collect::<Vec<_>>())
    .bind(rows.iter().map(|row| row.key).collect::<Vec<_>>())
    .fetch_all(db)
    .await?)
}

/// What the one statement did.
#[derive(Debug)]
pub(super) struct SettledAndClaimed {
    /// The places of the settlements whose token was good.
    pub(super) accepted: Vec<usize>,
    /// In order.
    pub(super) claimed: Vec<ClaimedJob>,
    /// Nothing was claimed, because limits have a say.
    pub(super) is_limited: bool,
}

/// Settles jobs that belong to nothing else and claims more: one statement, one round trip, one commit.
/// Answers the places of the settlements whose token was good, and the claimed jobs in order.
///
/// What is settled is locked in id order first, so that two processes with overlapping batches wait for each
/// other in one direction; `held` carries everything along, because a join of two lists without statistics is
/// planned as a loop in a loop. What is claimed is locked in the scan of the index itself, one scan per queue,
/// so that the backlog of one queue costs the others nothing; a lock on a CTE above it would lock nothing. A
/// session that has died gets nothing: what it took would only be taken away again, at the cost of an attempt. Ends of one
/// batch's members are counted in one row, drawn by chance so that few statements wait for each other.
///
/// Where limits or concurrency keys have a say, this statement claims nothing and says so: they need more than one
/// statement (`statements/limited.rs`). Looking costs a probe of two small indexes.
pub(super) async fn settle_and_claim(
    db: &mut Connection,
    now: Option<Timestamp>,
    settlements: &[(usize, &Settlement)],
    claim: Option<&ClaimRequest>,
    effects: &mut Effects,
) -> Result<SettledAndClaimed> {
    let count = settlements.len();
    let mut states: Vec<&str> = Vec::with_capacity(count);
    let mut outputs: Vec<Option<&str>> = Vec::with_capacity(count);
    let mut errors: Vec<Option<String>> = Vec::with_capacity(count);
    let mut delays: Vec<Option<i64>> = Vec::with_capacity(count);
    let mut uncounts: Vec<i64> = Vec::with_capacity(count);
    for (_, settlement) in settlements {
        let SettledColumns { state, output, error, delay_us, uncount } = columns(&settlement.outcome)?;
        states.push(state);
        outputs.push(output);
        errors.push(error);
        delays.push(delay_us);
        uncounts.push(uncount);
    }
    let nothing: &[String] = &[];
    let (session, queues, handlers, rows_max) = match claim {
        Some(claim) => (claim.session.uuid(), &*claim.queues, &*claim.handlers, claim.rows_max),
        None => (Uuid::nil(), nothing, nothing, 0),
    };
    let number = Uuid::new_v4();
    let rows = sqlx::query(
        "WITH t AS MATERIALIZED (SELECT now, EXISTS (SELECT 1 FROM sessions WHERE sessions.id = $11 \
         AND expires_at > now) AS is_alive, \
         (SELECT namespaces FROM sessions WHERE sessions.id = $11) AS namespaces, EXISTS (SELECT 1 FROM limits WHERE (scope = 'queue' AND name = ANY($12)) \
         OR (scope = 'handler' AND name = ANY($13))) OR EXISTS (SELECT 1 FROM jobs WHERE state = 'queued' \
         AND concurrency_key IS NOT NULL AND queue = ANY($12)) AS is_limited FROM COALESCE($9::bigint, clock()) AS now), \
         held AS MATERIALIZED (SELECT j.id, j.session_id, s.state, s.output, s.error, s.delay, s.uncount \
         FROM unnest($1::uuid[], $2::bigint[], $3::uuid[], $4::text[], $5::text[], $6::text[], $7::bigint[], $8::bigint[]) \
         AS s (id, epoch, claim, state, output, error, delay, uncount) JOIN jobs j ON j.id = s.id \
         WHERE j.state = 'running' AND j.epoch = s.epoch AND j.claim = s.claim AND j.workflow_id IS NULL \
         AND j.view_id IS NULL ORDER BY j.id FOR UPDATE OF j), \
         done AS (UPDATE jobs j SET state = h.state, output = COALESCE(h.output, j.output), \
         error = COALESCE(h.error, j.error), due_at = COALESCE(t.now + h.delay, j.due_at), \
         attempt = j.attempt - h.uncount, session_id = NULL, transitions = j.transitions + 1, \
         finished_at = CASE WHEN h.state = 'queued' THEN NULL ELSE t.now END FROM held h, t WHERE j.id = h.id \
         RETURNING j.id, j.state, j.queue, j.transitions, j.attempt, j.epoch, j.batch_id, h.session_id, h.error AS detail), \
         due AS MATERIALIZED (SELECT c.id, c.priority, c.due_at FROM t CROSS JOIN LATERAL (SELECT queue \
         FROM unnest($12::text[]) AS u (queue) WHERE NOT EXISTS (SELECT 1 FROM queues p WHERE p.name = u.queue \
         AND p.paused_until > t.now)) AS q CROSS JOIN LATERAL (SELECT id, priority, due_at FROM jobs WHERE jobs.queue = q.queue AND state = 'queued' \
         AND concurrency_key IS NULL AND due_at <= t.now AND attempt < attempts_max AND handler = ANY($13) \
         AND (t.namespaces IS NULL OR namespace = ANY(t.namespaces)) AND t.is_alive AND NOT t.is_limited \
         ORDER BY priority DESC, due_at, id LIMIT $14 FOR UPDATE SKIP LOCKED) AS c), \
         picked AS MATERIALIZED (SELECT id FROM due ORDER BY priority DESC, due_at, id LIMIT $14), \
         taken AS (UPDATE jobs j SET state = 'running', epoch = j.epoch + 1, claim = $10, session_id = $11, \
         attempt = j.attempt + 1, started_at = t.now, transitions = j.transitions + 1, progress = NULL, message = NULL \
         FROM picked, t WHERE j.id = picked.id RETURNING j.id, j.state, j.namespace, j.queue, j.handler, j.input, j.attempt, \
         j.retry, j.attempts_max, j.timeout_ms, j.correlation_id, j.trace_context, j.workflow_id, j.step, j.view_id, j.epoch, \
         j.due_at, j.priority, j.checkpoint, j.transitions, j.session_id), \
         counted AS (INSERT INTO batch_counts AS c (batch_id, shard, added, completed, failed, cancelled, superseded) \
         SELECT batch_id, $16, 0, count(*) FILTER (WHERE state = 'completed'), count(*) FILTER (WHERE state = 'failed'), 0, 0 \
         FROM done WHERE batch_id IS NOT NULL AND state <> 'queued' GROUP BY batch_id ORDER BY batch_id \
         ON CONFLICT (batch_id, shard) DO UPDATE SET completed = c.completed + excluded.completed, \
         failed = c.failed + excluded.failed), \
         log AS (INSERT INTO job_history (job_id, seq, at, from_state, to_state, attempt, epoch, session_id, detail) \
         SELECT id, transitions, t.now, 'running', state, attempt, epoch, session_id, detail FROM done, t UNION ALL \
         SELECT id, transitions, t.now, 'queued', 'running', attempt, epoch, session_id, NULL FROM taken, t), \
         dead AS (INSERT INTO dead_letters (job_id, seq, namespace, queue, handler, status, error, attempts, input, \
         priority, retry, attempt, attempts_max, timeout_ms, correlation_id, submitted_at, failed_at, status_at) \
         SELECT j.id, d.transitions, j.namespace, j.queue, j.handler, 'pending', d.detail, '[' || COALESCE((SELECT \
         string_agg('{\"attempt\":' || h.attempt || ',\"at\":' || h.at || ',\"error\":' || h.detail || '}', ',' ORDER BY h.seq) \
         || ',' FROM job_failures(d.id, $15) AS h), '') || '{\"attempt\":' || d.attempt || ',\"at\":' \
         || t.now || ',\"error\":' || d.detail || '}]', j.input, j.priority, j.retry, d.attempt, j.attempts_max, \
         j.timeout_ms, j.correlation_id, j.created_at, t.now, t.now \
         FROM done d JOIN jobs j ON j.id = d.id, t WHERE d.state = 'failed' AND d.detail IS NOT NULL) \
         SELECT TRUE AS is_claim, id, state, t.now, namespace, queue, handler, input, attempt, retry, attempts_max, \
         timeout_ms, correlation_id, trace_context, workflow_id, step, view_id, epoch, due_at, priority, checkpoint, NULL AS batch_id FROM taken, t \
         UNION ALL SELECT FALSE, id, state, NULL, NULL, queue, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, \
         NULL, NULL, NULL, NULL, NULL, NULL, batch_id FROM done UNION ALL SELECT NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, \
         NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL FROM t WHERE t.is_limited",
    )
    .bind(settlements.iter().map(|(_, settlement)| settlement.token.job.uuid()).collect::<Vec<_>>())
    .bind(settlements.iter().map(|(_, settlement)| settlement.token.epoch).collect::<Vec<_>>())
    .bind(settlements.iter().map(|(_, settlement)| settlement.token.claim).collect::<Vec<_>>())
    .bind(states)
    .bind(outputs)
    .bind(errors)
    .bind(delays)
    .bind(uncounts)
    .bind(now.map(Timestamp::micros))
    .bind(number)
    .bind(session)
    .bind(queues)
    .bind(handlers)
    .bind(i64::try_from(rows_max).unwrap_or(i64::MAX))
    .bind(ATTEMPTS_KEPT_MAX - 1)
    .bind(batches::shard(number))
    .fetch_all(db)
    .await?;
    let mut places: HashMap<Uuid, usize> =
        settlements.iter().map(|(place, settlement)| (settlement.token.job.uuid(), *place)).collect();
    let mut accepted = Vec::with_capacity(count);
    let mut taken = Vec::with_capacity(rows.len().saturating_sub(count));
    let mut is_limited = false;
    for row in &rows {
        let Some(is_claim) = row.try_get::<Option<bool>, _>("is_claim")? else {
            is_limited = true;
            continue;
        };
        if is_claim {
            let (priority, due_at): (i64, i64) = (row.try_get("priority")?, row.try_get("due_at")?);
            let job = jobs::claimed(row, number, Timestamp::from_micros(row.try_get("now")?))?;
            taken.push(((std::cmp::Reverse(priority), due_at, job.token.job), job));
        } else {
            if row.try_get::<&str, _>("state")? == "queued" {
                effects.queued(row.try_get("queue")?);
            } else if let Some(batch) = row.try_get::<Option<Uuid>, _>("batch_id")? {
                effects.batch_touched(BatchId::from_uuid(batch));
            }
            accepted.extend(places.remove(&row.try_get::<Uuid, _>("id")?));
        }
    }
    taken.sort_by_key(|(order, _)| *order);
    let claimed = taken.into_iter().map(|(_, job)| job).collect();
    Ok(SettledAndClaimed { accepted, claimed, is_limited })
}

pub(super) async fn items_stage(
    db: &mut Connection,
    view: ViewId,
    lease_epoch: i64,
    made_by: Option<JobId>,
    items: &[&StagedItem],
) -> Result<()> {
    let mut values = Vec::with_capacity(items.len());
    for item in items {
        values.push(
            item.value.as_deref().ok_or_else(|| Error::broken("an item without a value was to be staged"))?,
        );
    }
    sqlx::query(
        "INSERT INTO view_staged (view_id, item, lease_epoch, fingerprint, digest, value, made_by) \
         SELECT $1, item, $2, fingerprint, digest, value, $7 \
         FROM unnest($3::text[], $4::text[], $5::text[], $6::text[]) AS n (item, fingerprint, digest, value) \
         ON CONFLICT (view_id, item) DO UPDATE SET lease_epoch = excluded.lease_epoch, \
         fingerprint = excluded.fingerprint, digest = excluded.digest, value = excluded.value, made_by = excluded.made_by",
    )
    .bind(view.uuid())
    .bind(lease_epoch)
    .bind(items.iter().map(|item| item.item.as_str()).collect::<Vec<_>>())
    .bind(items.iter().map(|item| item.fingerprint.as_deref()).collect::<Vec<_>>())
    .bind(values.iter().map(|value| digest(value)).collect::<Vec<_>>())
    .bind(values)
    .bind(made_by.map(JobId::uuid))
    .execute(db)
    .await?;
    Ok(())
}

/// Writes back what touches changed of views that are locked; and from which version on any of their items may be affected, 0 where none was said.
pub(super) async fn views_touched(db: &mut Connection, views: &[(&ViewRecord, i64)]) -> Result<()> {
    let micros = |of: fn(&Versions) -> Option<Timestamp>| -> Vec<Option<i64>> {
        views.iter().map(|(view, _)| of(&view.versions).map(Timestamp::micros)).collect()
    };
    let build = |view: &ViewRecord| view.build.filter(|_| view.versions.has_build).map(JobId::uuid);
    sqlx::query(
        "UPDATE views SET recache_version = n.wanted, processing_version = n.processing, recache_status = n.status, \
         lease_epoch = n.lease_epoch, build_job_id = n.build, dirty_since = n.dirty_since, \
         dirty_since_begin = n.dirty_since_begin, touched_at = n.touched_at, due_at = n.due_at, began_at = n.began_at, \
         waits_since = n.waits_since, touched_by = n.actor, touch_reason = n.reason, touch_source = n.source, \
         all_touched_version = GREATEST(all_touched_version, n.all_touched) \
         FROM unnest($1::uuid[], $2::bigint[], $3::bigint[], $4::text[], $5::bigint[], $6::uuid[], $7::bigint[], $8::bigint[], \
         $9::bigint[], $10::bigint[], $11::bigint[], $12::bigint[], $13::text[], $14::text[], $15::text[], $16::bigint[]) \
         AS n (id, wanted, processing, status, lease_epoch, build, dirty_since, dirty_since_begin, touched_at, due_at, began_at, \
         waits_since, actor, reason, source, all_touched) WHERE views.id = n.id",
    )
    .bind(views.iter().map(|(view, _)| view.id.uuid()).collect::<Vec<_>>())
    .bind(views.iter().map(|(view, _)| view.versions.wanted).collect::<Vec<_>>())
    .bind(views.iter().map(|(view, _)| view.versions.processing).collect::<Vec<_>>())
    .bind(views.iter().map(|(view, _)| view.versions.status.as_str()).collect::<Vec<_>>())
    .bind(views.iter().map(|(view, _)| view.versions.lease_epoch).collect::<Vec<_>>())
    .bind(views.iter().map(|(view, _)| build(view)).collect::<Vec<_>>())
    .bind(micros(|versions| versions.dirty_since))
    .bind(micros(|versions| versions.dirty_since_begin))
    .bind(micros(|versions| versions.touched_at))
    .bind(micros(|versions| versions.due_at))
    .bind(micros(|versions| versions.began_at))
    .bind(micros(|versions| versions.waits_since))
    .bind(views.iter().map(|(view, _)| view.touched_by.as_ref().map(|word| word.actor.as_str())).collect::<Vec<_>>())
    .bind(views.iter().map(|(view, _)| view.touched_by.as_ref().map(|word| word.reason.as_str())).collect::<Vec<_>>())
    .bind(views.iter().map(|(view, _)| view.touch_source.kept()).collect::<Vec<_>>())
    .bind(views.iter().map(|(_, all_touched)| *all_touched).collect::<Vec<_>>())
    .execute(db)
    .await?;
    Ok(())
}

/// Items that touches named, each once, with the version that they ask for.
pub(super) async fn touched_items(db: &mut Connection, items: &[(ViewId, &str, i64)]) -> Result<()> {
    sqlx::query(
        "INSERT INTO view_touched_items (view_id, item, version) SELECT view_id, item, version \
         FROM unnest($1::uuid[], $2::text[], $3::bigint[]) AS n (view_id, item, version) \
         ON CONFLICT (view_id, item) DO UPDATE SET version = excluded.version",
    )
    .bind(items.iter().map(|(view, _, _)| view.uuid()).collect::<Vec<_>>())
    .bind(items.iter().map(|(_, item, _)| *item).collect::<Vec<_>>())
    .bind(items.iter().map(|(_, _, version)| *version).collect::<Vec<_>>())
    .execute(db)
    .await?;
    Ok(())
}

/// Flights of the example, numbered from `first`.
pub(super) async fn flights_insert(db: &mut Connection, first: i64, legs: &[Leg]) -> Result<()> {
    sqlx::query(
        "INSERT INTO example_flights (number, carrier, dest, arr_delay) \
         SELECT $1 + place - 1, carrier, dest, arr_delay FROM unnest($2::text[], $3::text[], $4::bigint[]) \
         WITH ORDINALITY AS n (carrier, dest, arr_delay, place)",
    )
    .bind(first)
    .bind(legs.iter().map(|leg| leg.carrier.as_str()).collect::<Vec<_>>())
    .bind(legs.iter().map(|leg| leg.dest.as_str()).collect::<Vec<_>>())
    .bind(legs.iter().map(|leg| leg.arr_delay).collect::<Vec<_>>())
    .execute(db)
    .await?;
    Ok(())
}

/// The advisory locks that concurrency keys share. Few, because a transaction may hold all of them and the server keeps
/// locks in a table of fixed size; many enough that two claims of different keys seldom meet.
const KEY_LOCKS: u64 = 64;
/// The first half of the advisory locks' name: "rcky" as a number, so that they meet no one else's.
const KEY_LOCK_SPACE: i32 = 0x7263_6b79;

/// Keeps other claims from counting or taking jobs of these keys until this transaction ends.
pub(super) async fn keys_lock(db: &mut Connection, keys: &BTreeSet<NamespacedKey>) -> Result<()> {
    let mut numbers = BTreeSet::new();
    for (namespace, key) in keys {
        let mut hash = PartsHash::default();
        hash.part(namespace);
        hash.part(key);
        let number = u64::from_str_radix(&hash.hex(8), 16).unwrap_or(0) % KEY_LOCKS;
        numbers.insert(i32::try_from(number).unwrap_or(0));
    }
    // Sorted, and taken in the order of the list.
    let numbers: Vec<i32> = numbers.into_iter().collect();
    sqlx::query("SELECT pg_advisory_xact_lock($1, number) FROM unnest($2::integer[]) AS n (number)")
        .bind(KEY_LOCK_SPACE)
        .bind(numbers)
        .execute(db)
        .await?;
    Ok(())
}

/// Of each key as many of its most urgent jobs as it has room for, locked.
pub(super) async fn keyed_candidates(
    db: &mut Connection,
    now: Timestamp,
    queue: &str,
    keys: &[(&NamespacedKey, u64)],
    handlers: &[String],
) -> Result<Vec<Row>> {
    Ok(sqlx::query(
        "SELECT c.* FROM unnest($3::text[], $4::text[], $5::bigint[]) AS k (namespace, key, free) \
         CROSS JOIN LATERAL (SELECT id, queue, handler, namespace, concurrency_key, priority, due_at FROM jobs \
         WHERE jobs.queue = $1 AND state = 'queued' AND concurrency_key IS NOT NULL AND jobs.namespace = k.namespace \
         AND jobs.concurrency_key = k.key AND due_at <= $2 AND attempt < attempts_max AND handler = ANY($6) \
         ORDER BY priority DESC, due_at, id LIMIT k.free FOR UPDATE SKIP LOCKED) AS c",
    )
    .bind(queue)
    .bind(now.micros())
    .bind(keys.iter().map(|(key, _)| key.0.as_str()).collect::<Vec<_>>())
    .bind(keys.iter().map(|(key, _)| key.1.as_str()).collect::<Vec<_>>())
    .bind(keys.iter().map(|(_, free)| i64::try_from(*free).unwrap_or(i64::MAX)).collect::<Vec<_>>())
    .bind(handlers)
    .fetch_all(db)
    .await?)
}

/// Tables whose statements are planned once and join: with how the database looks at each. The parts of the history are not among
/// them: they are read by their primary key alone.
const JOINED: [(&str, &str); 5] = [
    ("jobs", "ANALYZE recache.jobs"),
    ("workflows", "ANALYZE recache.workflows"),
    ("job_edges", "ANALYZE recache.job_edges"),
    ("events", "ANALYZE recache.events"),
    ("deliveries", "ANALYZE recache.deliveries"),
];
/// A table with fewer changed rows is planned for well enough as an empty one.
const CHANGES_MIN: i64 = 500;

/// Looks at tables that nobody has looked at yet. Plans that are kept are made anew by that.
pub(super) async fn statistics_refresh(db: &mut Connection) -> Result<u64> {
    let rows = sqlx::query(
        "SELECT relname FROM pg_stat_user_tables WHERE schemaname = 'recache' AND last_analyze IS NULL \
         AND last_autoanalyze IS NULL AND n_mod_since_analyze >= $1",
    )
    .bind(CHANGES_MIN)
    .fetch_all(&mut *db)
    .await?;
    let mut looked_at = 0;
    for row in rows {
        let name: String = row.try_get("relname")?;
        if let Some((_, analyze)) = JOINED.iter().find(|(table, _)| *table == name) {
            sqlx::query(*analyze).execute(&mut *db).await?;
            looked_at += 1;
        }
    }
    Ok(looked_at)
}
