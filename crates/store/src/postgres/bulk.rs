//! Many rows in one statement: lists travel as arrays that `unnest` takes apart.

use std::collections::HashMap;

use recache_model::ids::ViewId;
use recache_model::time::Timestamp;
use sqlx::Row as _;
use uuid::Uuid;

use super::Connection;
use super::statements::effects::Effects;
use super::statements::items::digest;
use super::statements::jobs;
use crate::error::{Error, Result};
use crate::flights::Leg;
use crate::records::{ClaimRequest, ClaimedJob, NewJob, Outcome, Settlement, StagedItem, Submitted};

pub(super) async fn jobs_insert(
    db: &mut Connection,
    now: Timestamp,
    new: &[NewJob],
    effects: &mut Effects,
) -> Result<Vec<Submitted>> {
    jobs::check(new)?;
    let column = |value: fn(&NewJob) -> &str| new.iter().map(value).collect::<Vec<&str>>();
    let retries = new.iter().map(|job| jobs::to_json(&job.retry)).collect::<Result<Vec<_>>>()?;
    let inserted = sqlx::query(
        "INSERT INTO jobs (id, namespace, queue, handler, state, priority, due_at, input, retry, attempts_max, \
         timeout_ms, correlation_id, trace_context, created_at) \
         SELECT id, namespace, queue, handler, 'queued', priority, due_at, input, retry, attempts_max, timeout_ms, \
         correlation_id, trace_context, $13 \
         FROM unnest($1::uuid[], $2::text[], $3::text[], $4::text[], $5::bigint[], $6::bigint[], $7::text[], \
         $8::text[], $9::bigint[], $10::bigint[], $11::text[], $12::text[]) AS n (id, namespace, queue, handler, \
         priority, due_at, input, retry, attempts_max, timeout_ms, correlation_id, trace_context) \
         ON CONFLICT (id) DO NOTHING RETURNING id",
    )
    .bind(new.iter().map(|job| job.id.uuid()).collect::<Vec<_>>())
    .bind(column(|job| &job.namespace))
    .bind(column(|job| &job.queue))
    .bind(column(|job| &job.handler))
    .bind(new.iter().map(|job| job.priority).collect::<Vec<_>>())
    .bind(new.iter().map(|job| jobs::due_micros(job.due, now)).collect::<Vec<_>>())
    .bind(column(|job| &job.input))
    .bind(retries)
    .bind(new.iter().map(|job| i64::from(job.retry.attempts_max)).collect::<Vec<_>>())
    .bind(new.iter().map(|job| jobs::timeout_ms(job.timeout)).collect::<Vec<_>>())
    .bind(column(|job| &job.correlation_id))
    .bind(new.iter().map(|job| job.trace_context.as_deref()).collect::<Vec<_>>())
    .bind(now.micros())
    .fetch_all(db)
    .await?;
    let mut fresh = std::collections::HashSet::with_capacity(inserted.len());
    for row in &inserted {
        fresh.insert(row.try_get::<Uuid, _>("id")?);
    }
    Ok(new
        .iter()
        .map(|job| {
            let existed = !fresh.contains(&job.id.uuid());
            if !existed {
                effects.queued(&job.queue);
            }
            Submitted { id: job.id, existed }
        })
        .collect())
}

/// Settles jobs that belong to nothing else. Answers the places of those whose token was good.
pub(super) async fn settle(
    db: &mut Connection,
    now: Timestamp,
    settlements: &[(usize, &Settlement)],
    effects: &mut Effects,
) -> Result<Vec<usize>> {
    let count = settlements.len();
    let mut states: Vec<&str> = Vec::with_capacity(count);
    let mut outputs: Vec<Option<&str>> = Vec::with_capacity(count);
    let mut errors: Vec<Option<String>> = Vec::with_capacity(count);
    let mut dues: Vec<Option<i64>> = Vec::with_capacity(count);
    let mut uncounts: Vec<i64> = Vec::with_capacity(count);
    for (_, settlement) in settlements {
        let (state, output, error, due, uncount) = match &settlement.outcome {
            Outcome::Completed { output } => ("completed", Some(output.as_str()), None, None, 0),
            Outcome::Retry { error, after } => {
                ("queued", None, Some(jobs::to_json(error)?), Some(now.plus(*after).micros()), 0)
            }
            Outcome::Failed { error } => ("failed", None, Some(jobs::to_json(error)?), None, 0),
            Outcome::Released => ("queued", None, None, Some(now.micros()), 1),
        };
        states.push(state);
        outputs.push(output);
        errors.push(error);
        dues.push(due);
        uncounts.push(uncount);
    }
    // Locked in id order first, so that two processes with overlapping batches wait for each other in one
    // direction; the locked rows themselves then carry the session into history before it is cleared.
    let settled = sqlx::query(
        "WITH s AS (SELECT * FROM unnest($1::uuid[], $2::bigint[], $3::uuid[], $4::text[], $5::text[], $6::text[], \
         $7::bigint[], $8::bigint[]) AS s (id, epoch, claim, state, output, error, due_at, uncount)), \
         held AS (SELECT j.id, j.session_id FROM jobs j JOIN s ON s.id = j.id WHERE j.state = 'running' \
         AND j.epoch = s.epoch AND j.claim = s.claim AND j.workflow_id IS NULL AND j.view_id IS NULL \
         ORDER BY j.id FOR UPDATE OF j), \
         done AS (UPDATE jobs j SET state = s.state, output = COALESCE(s.output, j.output), \
         error = COALESCE(s.error, j.error), due_at = COALESCE(s.due_at, j.due_at), attempt = j.attempt - s.uncount, \
         session_id = NULL, transitions = j.transitions + 1, \
         finished_at = CASE WHEN s.state = 'queued' THEN NULL ELSE $9 END \
         FROM s JOIN held ON held.id = s.id WHERE j.id = s.id \
         RETURNING j.id, j.state, j.queue, j.transitions, j.attempt, j.epoch, held.session_id, s.error AS detail), \
         log AS (INSERT INTO job_history (job_id, seq, at, from_state, to_state, attempt, epoch, session_id, detail) \
         SELECT id, transitions, $9, 'running', state, attempt, epoch, session_id, detail FROM done) \
         SELECT id, state, queue FROM done",
    )
    .bind(settlements.iter().map(|(_, settlement)| settlement.token.job.uuid()).collect::<Vec<_>>())
    .bind(settlements.iter().map(|(_, settlement)| settlement.token.epoch).collect::<Vec<_>>())
    .bind(settlements.iter().map(|(_, settlement)| settlement.token.claim).collect::<Vec<_>>())
    .bind(states)
    .bind(outputs)
    .bind(errors)
    .bind(dues)
    .bind(uncounts)
    .bind(now.micros())
    .fetch_all(db)
    .await?;
    let mut places: HashMap<Uuid, usize> =
        settlements.iter().map(|(place, settlement)| (settlement.token.job.uuid(), *place)).collect();
    let mut accepted = Vec::with_capacity(settled.len());
    for row in &settled {
        if row.try_get::<&str, _>("state")? == "queued" {
            effects.queued(row.try_get("queue")?);
        }
        accepted.extend(places.remove(&row.try_get::<Uuid, _>("id")?));
    }
    Ok(accepted)
}

pub(super) async fn claim(
    db: &mut Connection,
    now: Timestamp,
    request: &ClaimRequest,
) -> Result<Vec<ClaimedJob>> {
    let claim = Uuid::new_v4();
    // One scan of the index per queue, so that the backlog of one costs the others nothing. The rows
    // themselves are locked, in the scan; a lock on a CTE or a subquery above it would lock nothing. A session that has
    // died gets nothing: what it took would only be taken away again, at the cost of an attempt.
    let claimed = sqlx::query(
        "WITH due AS MATERIALIZED (SELECT c.id, c.priority, c.due_at FROM unnest($4::text[]) AS q (queue) \
         CROSS JOIN LATERAL (SELECT id, priority, due_at FROM jobs WHERE jobs.queue = q.queue AND state = 'queued' \
         AND due_at <= $3 AND attempt < attempts_max AND handler = ANY($5) \
         AND EXISTS (SELECT 1 FROM sessions WHERE sessions.id = $2 AND expires_at > $3) \
         ORDER BY priority DESC, due_at, id LIMIT $6 FOR UPDATE SKIP LOCKED) AS c), \
         picked AS MATERIALIZED (SELECT id FROM due ORDER BY priority DESC, due_at, id LIMIT $6), \
         taken AS (UPDATE jobs j SET state = 'running', epoch = j.epoch + 1, claim = $1, session_id = $2, \
         attempt = j.attempt + 1, started_at = $3, transitions = j.transitions + 1, progress = NULL, message = NULL \
         FROM picked WHERE j.id = picked.id RETURNING j.*), \
         log AS (INSERT INTO job_history (job_id, seq, at, from_state, to_state, attempt, epoch, session_id) \
         SELECT id, transitions, $3, 'queued', 'running', attempt, epoch, session_id FROM taken) \
         SELECT id, namespace, queue, handler, input, attempt, retry, attempts_max, timeout_ms, correlation_id, \
         trace_context, workflow_id, step, view_id, epoch, due_at, priority FROM taken",
    )
    .bind(claim)
    .bind(request.session.uuid())
    .bind(now.micros())
    .bind(&request.queues)
    .bind(&request.handlers)
    .bind(i64::try_from(request.rows_max).unwrap_or(i64::MAX))
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
    items: &[&StagedItem],
) -> Result<()> {
    let mut values = Vec::with_capacity(items.len());
    for item in items {
        values.push(
            item.value.as_deref().ok_or_else(|| Error::broken("an item without a value was to be staged"))?,
        );
    }
    sqlx::query(
        "INSERT INTO view_staged (view_id, item, lease_epoch, fingerprint, digest, value) \
         SELECT $1, item, $2, fingerprint, digest, value \
         FROM unnest($3::text[], $4::text[], $5::text[], $6::text[]) AS n (item, fingerprint, digest, value) \
         ON CONFLICT (view_id, item) DO UPDATE SET lease_epoch = excluded.lease_epoch, \
         fingerprint = excluded.fingerprint, digest = excluded.digest, value = excluded.value",
    )
    .bind(view.uuid())
    .bind(lease_epoch)
    .bind(items.iter().map(|item| item.item.as_str()).collect::<Vec<_>>())
    .bind(items.iter().map(|item| item.fingerprint.as_deref()).collect::<Vec<_>>())
    .bind(values.iter().map(|value| digest(value)).collect::<Vec<_>>())
    .bind(values)
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
