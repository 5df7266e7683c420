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
use super::statements::settle::{SettledColumns, columns};
use crate::error::{Error, Result};
use crate::flights::Leg;
use crate::records::{ClaimRequest, ClaimedJob, Due, NewJob, Settlement, StagedItem, Submitted};

/// One statement, and so one round trip and one commit.
pub(super) async fn jobs_insert(
    db: &mut Connection,
    now: Option<Timestamp>,
    new: &[NewJob],
    effects: &mut Effects,
) -> Result<Vec<Submitted>> {
    jobs::check(new)?;
    let column = |value: fn(&NewJob) -> &str| new.iter().map(value).collect::<Vec<&str>>();
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
         timeout_ms, correlation_id, trace_context, created_at) \
         SELECT id, namespace, queue, handler, 'queued', priority, COALESCE(instant, t.now + delay), input, retry, \
         attempts_max, timeout_ms, correlation_id, trace_context, t.now \
         FROM t, unnest($1::uuid[], $2::text[], $3::text[], $4::text[], $5::bigint[], $6::bigint[], $7::bigint[], \
         $8::text[], $9::text[], $10::bigint[], $11::bigint[], $12::text[], $13::text[]) AS n (id, namespace, queue, \
         handler, priority, instant, delay, input, retry, attempts_max, timeout_ms, correlation_id, trace_context) \
         ON CONFLICT (id) DO NOTHING RETURNING id",
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
    .fetch_all(db)
    .await?;
    jobs::submitted(new, &inserted, effects)
}

/// Settles jobs that belong to nothing else and claims more: one statement, one round trip, one commit.
/// Answers the places of the settlements whose token was good, and the claimed jobs in order.
///
/// What is settled is locked in id order first, so that two processes with overlapping batches wait for each
/// other in one direction; `held` carries everything along, because a join of two lists without statistics is
/// planned as a loop in a loop. What is claimed is locked in the scan of the index itself, one scan per queue,
/// so that the backlog of one queue costs the others nothing; a lock on a CTE above it would lock nothing. A
/// session that has died gets nothing: what it took would only be taken away again, at the cost of an attempt.
pub(super) async fn settle_and_claim(
    db: &mut Connection,
    now: Option<Timestamp>,
    settlements: &[(usize, &Settlement)],
    claim: Option<&ClaimRequest>,
    effects: &mut Effects,
) -> Result<(Vec<usize>, Vec<ClaimedJob>)> {
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
         AND expires_at > now) AS is_alive FROM COALESCE($9::bigint, clock()) AS now), \
         held AS MATERIALIZED (SELECT j.id, j.session_id, s.state, s.output, s.error, s.delay, s.uncount \
         FROM unnest($1::uuid[], $2::bigint[], $3::uuid[], $4::text[], $5::text[], $6::text[], $7::bigint[], $8::bigint[]) \
         AS s (id, epoch, claim, state, output, error, delay, uncount) JOIN jobs j ON j.id = s.id \
         WHERE j.state = 'running' AND j.epoch = s.epoch AND j.claim = s.claim AND j.workflow_id IS NULL \
         AND j.view_id IS NULL ORDER BY j.id FOR UPDATE OF j), \
         done AS (UPDATE jobs j SET state = h.state, output = COALESCE(h.output, j.output), \
         error = COALESCE(h.error, j.error), due_at = COALESCE(t.now + h.delay, j.due_at), \
         attempt = j.attempt - h.uncount, session_id = NULL, transitions = j.transitions + 1, \
         finished_at = CASE WHEN h.state = 'queued' THEN NULL ELSE t.now END FROM held h, t WHERE j.id = h.id \
         RETURNING j.id, j.state, j.queue, j.transitions, j.attempt, j.epoch, h.session_id, h.error AS detail), \
         due AS MATERIALIZED (SELECT c.id, c.priority, c.due_at FROM t, unnest($12::text[]) AS q (queue) \
         CROSS JOIN LATERAL (SELECT id, priority, due_at FROM jobs WHERE jobs.queue = q.queue AND state = 'queued' \
         AND due_at <= t.now AND attempt < attempts_max AND handler = ANY($13) AND t.is_alive \
         ORDER BY priority DESC, due_at, id LIMIT $14 FOR UPDATE SKIP LOCKED) AS c), \
         picked AS MATERIALIZED (SELECT id FROM due ORDER BY priority DESC, due_at, id LIMIT $14), \
         taken AS (UPDATE jobs j SET state = 'running', epoch = j.epoch + 1, claim = $10, session_id = $11, \
         attempt = j.attempt + 1, started_at = t.now, transitions = j.transitions + 1, progress = NULL, message = NULL \
         FROM picked, t WHERE j.id = picked.id RETURNING j.*), \
         log AS (INSERT INTO job_history (job_id, seq, at, from_state, to_state, attempt, epoch, session_id, detail) \
         SELECT id, transitions, t.now, 'running', state, attempt, epoch, session_id, detail FROM done, t UNION ALL \
         SELECT id, transitions, t.now, 'queued', 'running', attempt, epoch, session_id, NULL FROM taken, t) \
         SELECT TRUE AS is_claim, id, state, t.now, namespace, queue, handler, input, attempt, retry, attempts_max, \
         timeout_ms, correlation_id, trace_context, workflow_id, step, view_id, epoch, due_at, priority FROM taken, t \
         UNION ALL SELECT FALSE, id, state, NULL, NULL, queue, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, \
         NULL, NULL, NULL, NULL, NULL FROM done",
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
    .fetch_all(db)
    .await?;
    let mut places: HashMap<Uuid, usize> =
        settlements.iter().map(|(place, settlement)| (settlement.token.job.uuid(), *place)).collect();
    let mut accepted = Vec::with_capacity(count);
    let mut taken = Vec::with_capacity(rows.len().saturating_sub(count));
    for row in &rows {
        if row.try_get("is_claim")? {
            let (priority, due_at): (i64, i64) = (row.try_get("priority")?, row.try_get("due_at")?);
            let job = jobs::claimed(row, number, Timestamp::from_micros(row.try_get("now")?))?;
            taken.push(((std::cmp::Reverse(priority), due_at, job.token.job), job));
        } else {
            if row.try_get::<&str, _>("state")? == "queued" {
                effects.queued(row.try_get("queue")?);
            }
            accepted.extend(places.remove(&row.try_get::<Uuid, _>("id")?));
        }
    }
    taken.sort_by_key(|(order, _)| *order);
    Ok((accepted, taken.into_iter().map(|(_, job)| job).collect()))
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
