//! Batches: who is admitted, what is counted, how an end is noticed.
//!
//! Deltas gather in [`Effects`] while a transaction runs, and are written as its last statement ([`flush`]), one row for each batch in
//! the order of their ids: they come last in the one order of locks.

use std::collections::{BTreeMap, HashMap};

use recache_model::batch::{BatchCallback, BatchCounts, BatchMoment, BatchState, MemberEnd, NESTING_MAX};
use recache_model::ids::{BatchId, EventId, JobId, WorkflowId};
use recache_model::time::Timestamp;
use recache_model::tracked::{json_problem, name_problem};
use recache_model::workflow::WorkflowState;
use sqlx::Row as _;
use uuid::Uuid;

use super::super::{Connection, Row, ids};
use super::effects::Effects;
use super::jobs::{self, instant};
use super::workflows;
use crate::batches::{BatchDue, BatchFilter, BatchRecord, NewBatch};
use crate::error::{Error, Result};
use crate::events::EventRecord;
use crate::records::{NewJob, NewWorkflow};
use crate::traces::Traced;

/// Rows over which the counts of one batch are spread. As many transactions can count at once.
const SHARDS: u8 = 16;

/// The row of counts that a transaction adds to, by a number drawn for it.
pub(in super::super) fn shard(drawn: Uuid) -> i64 {
    i64::from(drawn.as_bytes()[0] % SHARDS)
}

/// A batch with its counts, from a row of [`batch_select`].
macro_rules! batch_select {
    ($where:literal) => {
        concat!(
            "SELECT b.id, b.namespace, b.action, b.metadata, b.parent_id, b.expected, b.on_success, b.on_finish, \
             b.on_failure, b.success_job, b.finish_job, b.failure_job, b.created_at, b.closed_at, b.cancelled_at, \
             b.cancel_reason, b.finished_at, b.success_told_at, b.finish_told_at, b.failure_told_at, b.trace_context, \
             (SELECT CAST(COALESCE(SUM(c.added), 0) AS BIGINT) FROM batch_counts c WHERE c.batch_id = b.id) AS added, \
             (SELECT CAST(COALESCE(SUM(c.completed), 0) AS BIGINT) FROM batch_counts c WHERE c.batch_id = b.id) AS completed, \
             (SELECT CAST(COALESCE(SUM(c.failed), 0) AS BIGINT) FROM batch_counts c WHERE c.batch_id = b.id) AS failed, \
             (SELECT CAST(COALESCE(SUM(c.cancelled), 0) AS BIGINT) FROM batch_counts c WHERE c.batch_id = b.id) AS cancelled, \
             (SELECT CAST(COALESCE(SUM(c.superseded), 0) AS BIGINT) FROM batch_counts c WHERE c.batch_id = b.id) AS superseded \
             FROM batches b WHERE ",
            $where
        )
    };
}

pub(super) fn counts(row: &Row) -> Result<BatchCounts> {
    let expected: Option<i64> = row.try_get("expected")?;
    let is_closed = row.try_get::<Option<i64>, _>("closed_at")?.is_some();
    let added: i64 = row.try_get("added")?;
    Ok(BatchCounts {
        // What was announced counts until it is known that it will not come.
        total: expected.filter(|_| !is_closed).map_or(added, |expected| expected.max(added)),
        completed: row.try_get("completed")?,
        failed: row.try_get("failed")?,
        cancelled: row.try_get("cancelled")?,
        superseded: row.try_get("superseded")?,
    })
}

fn callback(row: &Row, column: &str) -> Result<Option<BatchCallback>> {
    row.try_get::<Option<String>, _>(column)?.map(|text| jobs::json(column, &text)).transpose()
}

fn job_id(row: &Row, column: &str) -> Result<Option<JobId>> {
    Ok(row.try_get::<Option<Uuid>, _>(column)?.map(JobId::from_uuid))
}

pub(super) fn record(row: &Row) -> Result<BatchRecord> {
    let counts = counts(row)?;
    let closed_at = instant(row, "closed_at")?;
    let expected: Option<i64> = row.try_get("expected")?;
    let reason: Option<String> = row.try_get("cancel_reason")?;
    Ok(BatchRecord {
        definition: NewBatch {
            id: BatchId::from_uuid(row.try_get("id")?),
            namespace: row.try_get("namespace")?,
            action: row.try_get("action")?,
            metadata: row.try_get("metadata")?,
            parent: row.try_get::<Option<Uuid>, _>("parent_id")?.map(BatchId::from_uuid),
            expected: expected.and_then(|expected| u64::try_from(expected).ok()),
            on_success: callback(row, "on_success")?,
            on_finish: callback(row, "on_finish")?,
            on_first_failure: callback(row, "on_failure")?,
            trace_context: row.try_get("trace_context")?,
        },
        state: counts.state(closed_at.is_some()),
        counts,
        created_at: Timestamp::from_micros(row.try_get("created_at")?),
        closed_at,
        cancelled: instant(row, "cancelled_at")?.zip(reason),
        finished_at: instant(row, "finished_at")?,
        success_job: job_id(row, "success_job")?,
        finish_job: job_id(row, "finish_job")?,
        failure_job: job_id(row, "failure_job")?,
        success_told_at: instant(row, "success_told_at")?,
        finish_told_at: instant(row, "finish_told_at")?,
        failure_told_at: instant(row, "failure_told_at")?,
    })
}

/// Refuses what cannot be, with every reason.
pub(super) fn check(batch: &NewBatch) -> Result<()> {
    let mut problems = Vec::new();
    problems.extend(name_problem("namespace", &batch.namespace));
    problems.extend(name_problem("action", &batch.action));
    problems.extend(json_problem("metadata", &batch.metadata));
    if batch.expected.is_some_and(|expected| i64::try_from(expected).is_err()) {
        problems.push("expected is more than can be counted".to_owned());
    }
    if batch.parent == Some(batch.id) {
        problems.push("a batch cannot be a member of itself".to_owned());
    }
    for callback in [&batch.on_success, &batch.on_finish, &batch.on_first_failure].into_iter().flatten() {
        problems.extend(callback.problems());
    }
    if problems.is_empty() {
        return Ok(());
    }
    Err(Error::Invalid(format!("batch {}: {}", batch.id, problems.join("; "))))
}

pub(super) async fn create(
    db: &mut Connection,
    now: Timestamp,
    batch: &NewBatch,
    effects: &mut Effects,
) -> Result<(BatchRecord, bool)> {
    let mut admission = Admission::default();
    let mut depth = 1;
    if let Some(parent) = batch.parent {
        admission.lock(db, parent).await?;
        depth += depth_of(db, parent).await?;
        if depth > i64::try_from(NESTING_MAX).unwrap_or(i64::MAX) {
            return Err(Error::Invalid(format!("batches stand at most {NESTING_MAX} deep in each other")));
        }
    }
    // One that expects nobody is closed from the start.
    let closed_at = (batch.expected == Some(0)).then_some(now.micros());
    let inserted = sqlx::query(
        "INSERT INTO batches (id, namespace, action, metadata, parent_id, depth, expected, on_success, on_finish, \
         on_failure, created_at, closed_at, trace_context) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13) \
         ON CONFLICT (id) DO NOTHING",
    )
    .bind(batch.id.uuid())
    .bind(&batch.namespace)
    .bind(&batch.action)
    .bind(&batch.metadata)
    .bind(batch.parent.map(BatchId::uuid))
    .bind(depth)
    .bind(batch.expected.and_then(|expected| i64::try_from(expected).ok()))
    .bind(batch.on_success.as_ref().map(jobs::to_json).transpose()?)
    .bind(batch.on_finish.as_ref().map(jobs::to_json).transpose()?)
    .bind(batch.on_first_failure.as_ref().map(jobs::to_json).transpose()?)
    .bind(now.micros())
    .bind(closed_at)
    .bind(&batch.trace_context)
    .execute(&mut *db)
    .await?
    .rows_affected();
    let record = get(db, batch.id).await?;
    if inserted == 0 {
        // The same call once more may be another part of a trace.
        let trace_context = record.definition.trace_context.clone();
        if record.definition == (NewBatch { trace_context, ..batch.clone() }) {
            return Ok((record, false));
        }
        return Err(Error::Conflict(format!("another batch `{}` is there already", batch.id)));
    }
    if let Some(parent) = batch.parent {
        admission.admit(db, now, parent, &batch.namespace, 1, effects).await?;
    }
    if closed_at.is_some() {
        effects.batch_touched(batch.id);
    }
    Ok((record, true))
}

async fn depth_of(db: &mut Connection, batch: BatchId) -> Result<i64> {
    let row = sqlx::query("SELECT depth FROM batches WHERE id = $1").bind(batch.uuid()).fetch_one(db).await?;
    Ok(row.try_get("depth")?)
}

pub(super) async fn get(db: &mut Connection, batch: BatchId) -> Result<BatchRecord> {
    let row = sqlx::query(batch_select!("b.id = $1"))
        .bind(batch.uuid())
        .fetch_optional(db)
        .await?
        .ok_or_else(|| Error::not_found("batch", batch))?;
    record(&row)
}

pub(super) async fn list(db: &mut Connection, filter: &BatchFilter) -> Result<Vec<BatchRecord>> {
    let rows = sqlx::query(batch_select!(
        "(CAST($1 AS TEXT) IS NULL OR b.namespace = $1) AND (CAST($2 AS TEXT) IS NULL OR b.action = $2) \
         AND ($3 OR b.parent_id = $4) AND (NOT $5 OR b.finished_at IS NULL) AND ($6 OR b.id < $7) \
         ORDER BY b.id DESC LIMIT $8"
    ))
    .bind(&filter.namespace)
    .bind(&filter.action)
    .bind(filter.parent.is_none())
    .bind(filter.parent.map_or(Uuid::nil(), BatchId::uuid))
    .bind(filter.unfinished)
    .bind(filter.before.is_none())
    .bind(filter.before.map_or(Uuid::nil(), BatchId::uuid))
    .bind(i64::from(filter.rows_max))
    .fetch_all(db)
    .await?;
    rows.iter().map(record).collect()
}

pub(super) async fn close(
    db: &mut Connection,
    now: Timestamp,
    batch: BatchId,
    effects: &mut Effects,
) -> Result<bool> {
    let closed = sqlx::query("UPDATE batches SET closed_at = $2 WHERE id = $1 AND closed_at IS NULL")
        .bind(batch.uuid())
        .bind(now.micros())
        .execute(&mut *db)
        .await?
        .rows_affected();
    if closed == 0 {
        // Tells a closed one from one that is not there.
        get(db, batch).await?;
        return Ok(false);
    }
    effects.batch_touched(batch);
    Ok(true)
}

/// The right to add members, taken before they are inserted: nobody can close these batches until the transaction ends.
///
/// Adding to an open-ended batch shares its row with everybody else who adds; only closing waits. Of one with a total there must never be one
/// too many, so adding to it takes the row: a call with many members at once is the better one.
#[derive(Debug, Default)]
pub(super) struct Admission {
    locked: HashMap<BatchId, (String, Option<i64>)>,
}

impl Admission {
    /// Call in the order of ids.
    pub(super) async fn lock(&mut self, db: &mut Connection, batch: BatchId) -> Result<()> {
        let missing = || Error::not_found("batch", batch);
        let row = sqlx::query("SELECT namespace, expected FROM batches WHERE id = $1")
            .bind(batch.uuid())
            .fetch_optional(&mut *db)
            .await?
            .ok_or_else(missing)?;
        let (namespace, expected): (String, Option<i64>) =
            (row.try_get("namespace")?, row.try_get("expected")?);
        let shared = concat!("SELECT id FROM batches WHERE id = $1", for_share!());
        let alone = concat!("SELECT id FROM batches WHERE id = $1", for_update!());
        let lock = if expected.is_none() { shared } else { alone };
        sqlx::query(lock).bind(batch.uuid()).fetch_optional(db).await?.ok_or_else(missing)?;
        self.locked.insert(batch, (namespace, expected));
        Ok(())
    }

    /// Counts members that are new. Refused when the batch is closed or would have more than it expects.
    pub(super) async fn admit(
        &self,
        db: &mut Connection,
        now: Timestamp,
        batch: BatchId,
        namespace: &str,
        count: i64,
        effects: &mut Effects,
    ) -> Result<()> {
        let (owner, expected) = self
            .locked
            .get(&batch)
            .ok_or_else(|| Error::broken(format!("batch {batch} was not locked before it was added to")))?;
        if owner != namespace {
            return Err(Error::Invalid(format!(
                "batch `{batch}` belongs to namespace `{}`, its member to `{}`",
                owner.escape_debug(),
                namespace.escape_debug()
            )));
        }
        let row = sqlx::query("SELECT closed_at, admitted FROM batches WHERE id = $1")
            .bind(batch.uuid())
            .fetch_one(&mut *db)
            .await?;
        if row.try_get::<Option<i64>, _>("closed_at")?.is_some() {
            return Err(Error::Conflict(format!("batch `{batch}` is closed: nothing can be added to it")));
        }
        if let Some(expected) = *expected {
            let admitted = row.try_get::<i64, _>("admitted")?.saturating_add(count);
            if admitted > expected {
                return Err(Error::Conflict(format!(
                    "batch `{batch}` expects {expected} members, and would have {admitted}"
                )));
            }
            sqlx::query("UPDATE batches SET admitted = $2, closed_at = $3 WHERE id = $1")
                .bind(batch.uuid())
                .bind(admitted)
                .bind((admitted == expected).then_some(now.micros()))
                .execute(db)
                .await?;
            if admitted == expected {
                effects.batch_touched(batch);
            }
        }
        effects.batch_added(batch, count);
        Ok(())
    }
}

pub(super) async fn add_workflow(
    db: &mut Connection,
    now: Timestamp,
    batch: BatchId,
    workflow: &NewWorkflow,
    effects: &mut Effects,
) -> Result<bool> {
    let mut admission = Admission::default();
    admission.lock(db, batch).await?;
    if !workflows::submit(db, now, workflow, effects).await? {
        return Ok(false);
    }
    let row = sqlx::query("UPDATE workflows SET batch_id = $2 WHERE id = $1 RETURNING state")
        .bind(workflow.id.uuid())
        .bind(batch.uuid())
        .fetch_one(&mut *db)
        .await?;
    admission.admit(db, now, batch, &workflow.template.namespace, 1, effects).await?;
    let state: String = row.try_get("state")?;
    let state: WorkflowState =
        state.parse().map_err(|error| Error::broken(format!("workflow {}: {error}", workflow.id)))?;
    effects.batch_moved(batch, None, MemberEnd::of_workflow(state));
    Ok(true)
}

/// A member moved from one end to another, or to none. One that had ended and goes on, or ended otherwise, lets its batch go on.
pub(super) async fn member_moved(
    db: &mut Connection,
    now: Timestamp,
    batch: BatchId,
    from: Option<MemberEnd>,
    to: Option<MemberEnd>,
    effects: &mut Effects,
) -> Result<()> {
    if from == to {
        return Ok(());
    }
    effects.batch_moved(batch, from, to);
    if from.is_some() { reopen(db, now, batch, effects).await } else { Ok(()) }
}

/// A workflow that is a member moved; `batch` is what its row says.
pub(super) async fn workflow_moved(
    db: &mut Connection,
    now: Timestamp,
    batch: Option<Uuid>,
    from: WorkflowState,
    to: WorkflowState,
    effects: &mut Effects,
) -> Result<()> {
    let Some(batch) = batch else { return Ok(()) };
    let (from, to) = (MemberEnd::of_workflow(from), MemberEnd::of_workflow(to));
    member_moved(db, now, BatchId::from_uuid(batch), from, to, effects).await
}

/// The end of a batch was noticed, and is none any more; so with the batches around it.
///
/// Locks the row whatever it says: who notices ends locks it too, and then sees either this change or none.
async fn reopen(db: &mut Connection, now: Timestamp, batch: BatchId, effects: &mut Effects) -> Result<()> {
    let mut next = Some(batch);
    while let Some(batch) = next.take() {
        let row =
            sqlx::query(concat!("SELECT parent_id, finished_as FROM batches WHERE id = $1", for_update!()))
                .bind(batch.uuid())
                .fetch_optional(&mut *db)
                .await?
                .ok_or_else(|| Error::broken(format!("batch {batch} went before its members")))?;
        let finished_as: Option<String> = row.try_get("finished_as")?;
        let Some(state) = finished_as else { break };
        sqlx::query(
            "UPDATE batches SET finished_at = NULL, finished_as = NULL, reopened_at = $2 WHERE id = $1",
        )
        .bind(batch.uuid())
        .bind(now.micros())
        .execute(&mut *db)
        .await?;
        effects.batch_touched(batch);
        let state = BatchState::of_name(&state)
            .ok_or_else(|| Error::broken(format!("batch {batch} ended as {state}")))?;
        if let Some(parent) = row.try_get::<Option<Uuid>, _>("parent_id")?.map(BatchId::from_uuid) {
            effects.batch_moved(parent, MemberEnd::of_batch(state), None);
            next = Some(parent);
        }
    }
    Ok(())
}

/// Writes what the transaction counted. Its last statement.
pub(in super::super) async fn flush(db: &mut Connection, effects: &mut Effects) -> Result<()> {
    let deltas = effects.take_batch_deltas();
    if deltas.is_empty() {
        return Ok(());
    }
    let shard = shard(Uuid::new_v4());
    for (batch, delta) in deltas {
        add(db, batch, shard, delta).await?;
    }
    Ok(())
}

async fn add(db: &mut Connection, batch: BatchId, shard: i64, delta: BatchCounts) -> Result<()> {
    sqlx::query(
        "INSERT INTO batch_counts (batch_id, shard, added, completed, failed, cancelled, superseded) \
         VALUES ($1, $2, $3, $4, $5, $6, $7) ON CONFLICT (batch_id, shard) DO UPDATE SET \
         added = batch_counts.added + excluded.added, completed = batch_counts.completed + excluded.completed, \
         failed = batch_counts.failed + excluded.failed, cancelled = batch_counts.cancelled + excluded.cancelled, \
         superseded = batch_counts.superseded + excluded.superseded",
    )
    .bind(batch.uuid())
    .bind(shard)
    .bind(delta.total)
    .bind(delta.completed)
    .bind(delta.failed)
    .bind(delta.cancelled)
    .bind(delta.superseded)
    .execute(db)
    .await?;
    Ok(())
}

/// What an unfinished batch waits for; without locks.
fn is_due(batch: &BatchRecord) -> bool {
    let owes_job = batch.definition.on_first_failure.is_some() && batch.failure_job.is_none();
    let owes_failure = batch.counts.failed > 0 && (owes_job || batch.failure_told_at.is_none());
    owes_failure || (batch.finished_at.is_none() && batch.state.has_ended())
}

/// Those of the given batches that wait for [`settle`].
pub(super) async fn look(db: &mut Connection, batches: &[BatchId]) -> Result<Vec<BatchId>> {
    let wanted: Vec<Uuid> = batches.iter().map(|batch| batch.uuid()).collect();
    let rows = sqlx::query(concat!(batch_select!("b.id "), in_ids!("$1"), " ORDER BY b.id"))
        .bind(ids(&wanted))
        .fetch_all(db)
        .await?;
    let records = rows.iter().map(record).collect::<Result<Vec<_>>>()?;
    Ok(records.iter().filter(|record| is_due(record)).map(|record| record.definition.id).collect())
}

/// Makes what is owed. Whether the batch has ended now, and what was made that belongs to a trace. Its row is locked first: whoever counted before is seen,
/// and nobody else makes the same.
pub(super) async fn settle(
    db: &mut Connection,
    now: Timestamp,
    batch: BatchId,
    effects: &mut Effects,
) -> Result<(bool, Vec<Traced>)> {
    sqlx::query(concat!("SELECT id FROM batches WHERE id = $1", for_update!()))
        .bind(batch.uuid())
        .fetch_optional(&mut *db)
        .await?
        .ok_or_else(|| Error::not_found("batch", batch))?;
    let record = get(db, batch).await?;
    if !is_due(&record) {
        return Ok((false, Vec::new()));
    }
    let mut traced = Vec::new();
    let definition = &record.definition;
    let has_ended = record.finished_at.is_none() && record.state.has_ended();
    let is_good = has_ended && record.state == BatchState::Completed;
    let make = [
        (
            BatchMoment::FirstFailure,
            &definition.on_first_failure,
            record.failure_job,
            record.failure_told_at,
            record.counts.failed > 0,
        ),
        (BatchMoment::Success, &definition.on_success, record.success_job, record.success_told_at, is_good),
        (BatchMoment::Finish, &definition.on_finish, record.finish_job, record.finish_told_at, has_ended),
    ];
    for (moment, callback, made, told_at, is_time) in make {
        if !is_time {
            continue;
        }
        if let (Some(callback), None) = (callback, made) {
            traced.extend(call_back(db, now, &record, moment, callback, effects).await?);
        }
        if told_at.is_none() {
            tell(db, now, &record, moment, effects).await?;
        }
    }
    if has_ended {
        sqlx::query("UPDATE batches SET finished_at = $2, finished_as = $3 WHERE id = $1")
            .bind(batch.uuid())
            .bind(now.micros())
            .bind(record.state.as_str())
            .execute(db)
            .await?;
        effects.batch_ended(batch);
        if let Some(parent) = definition.parent {
            effects.batch_moved(parent, None, MemberEnd::of_batch(record.state));
        }
    }
    Ok((has_ended, traced))
}

fn counts_told(counts: &BatchCounts) -> serde_json::Value {
    serde_json::json!({
        "total": counts.total,
        "completed": counts.completed,
        "failed": counts.failed,
        "cancelled": counts.cancelled,
        "superseded": counts.superseded,
        "pending": counts.pending(),
    })
}

/// Writes the event of a moment, and that it was written: whoever settles next sees it, whatever becomes of the batch.
async fn tell(
    db: &mut Connection,
    now: Timestamp,
    batch: &BatchRecord,
    moment: BatchMoment,
    effects: &mut Effects,
) -> Result<()> {
    let data = serde_json::json!({
        "batch": batch.definition.id.to_string(),
        "action": batch.definition.action,
        "state": batch.state.as_str(),
        "counts": counts_told(&batch.counts),
    });
    effects.event(EventRecord {
        id: EventId::make(),
        namespace: batch.definition.namespace.clone(),
        name: moment.event().to_owned(),
        at: now,
        job: None,
        workflow: None,
        step: None,
        attempt: None,
        outcome: None,
        correlation_id: None,
        data: data.to_string(),
        problem: None,
        waits_for: None,
    });
    let told = match moment {
        BatchMoment::Success => "UPDATE batches SET success_told_at = $2 WHERE id = $1",
        BatchMoment::Finish => "UPDATE batches SET finish_told_at = $2 WHERE id = $1",
        BatchMoment::FirstFailure => "UPDATE batches SET failure_told_at = $2 WHERE id = $1",
    };
    sqlx::query(told).bind(batch.definition.id.uuid()).bind(now.micros()).execute(db).await?;
    Ok(())
}

async fn call_back(
    db: &mut Connection,
    now: Timestamp,
    batch: &BatchRecord,
    moment: BatchMoment,
    callback: &BatchCallback,
    effects: &mut Effects,
) -> Result<Option<Traced>> {
    let counts = counts_told(&batch.counts);
    // The given input stays as it was written, to the last digit of its numbers.
    let input = format!(
        "{{\"batch\":\"{}\",\"moment\":\"{}\",\"state\":\"{}\",\"counts\":{counts},\"input\":{}}}",
        batch.definition.id,
        moment.as_str(),
        batch.state,
        callback.input
    );
    let mut job = NewJob {
        namespace: batch.definition.namespace.clone(),
        queue: callback.queue.clone(),
        ..NewJob::new(callback.handler.clone(), input)
    };
    let members = traces_of_members(db, batch.definition.id).await?;
    let parent = batch.definition.trace_context.as_deref();
    let traced = Traced::of(job.id, parent, members.iter().map(String::as_str));
    job.trace_context = traced.as_ref().map(|traced| traced.place.to_string());
    jobs::insert(db, now, &job, None).await?;
    effects.queued(&job.queue);
    let made = match moment {
        BatchMoment::Success => "UPDATE batches SET success_job = $2 WHERE id = $1",
        BatchMoment::Finish => "UPDATE batches SET finish_job = $2 WHERE id = $1",
        BatchMoment::FirstFailure => "UPDATE batches SET failure_job = $2 WHERE id = $1",
    };
    sqlx::query(made).bind(batch.definition.id.uuid()).bind(job.id.uuid()).execute(db).await?;
    Ok(traced)
}

/// The traces of some members of a batch that are jobs: of those at the end of the index, so that a large batch costs no more.
async fn traces_of_members(db: &mut Connection, batch: BatchId) -> Result<Vec<String>> {
    const LOOKED_AT: i64 = 64;
    let rows = sqlx::query(
        "SELECT DISTINCT trace_context FROM (SELECT trace_context FROM jobs WHERE batch_id = $1 \
         ORDER BY batch_id DESC, state DESC, id DESC LIMIT $2) AS m WHERE trace_context IS NOT NULL",
    )
    .bind(batch.uuid())
    .bind(LOOKED_AT)
    .fetch_all(db)
    .await?;
    rows.iter().map(|row| Ok(row.try_get("trace_context")?)).collect()
}

pub(super) async fn due(db: &mut Connection, rows_max: u32) -> Result<Vec<BatchDue>> {
    // Looked at page by page: the many that are under way must not hide the few that wait.
    let mut due = Vec::new();
    let mut after = Uuid::nil();
    loop {
        let rows = sqlx::query(batch_select!("b.finished_at IS NULL AND b.id > $1 ORDER BY b.id LIMIT $2"))
            .bind(after)
            .bind(i64::from(rows_max))
            .fetch_all(&mut *db)
            .await?;
        for row in &rows {
            let record = record(row)?;
            after = record.definition.id.uuid();
            if is_due(&record) {
                due.push(BatchDue::Settle(record.definition.id));
            } else if record.cancelled.is_some() {
                due.push(BatchDue::Cancel(record.definition.id));
            }
        }
        let count = u32::try_from(rows.len()).unwrap_or(u32::MAX);
        if count < rows_max || due.len() >= usize::try_from(rows_max).unwrap_or(usize::MAX) {
            return Ok(due);
        }
    }
}

/// The batches that submits name, in the order of their ids, each with the number of its new members.
pub(super) fn tally<'a>(
    members: impl Iterator<Item = (BatchId, &'a str)>,
) -> BTreeMap<(BatchId, &'a str), i64> {
    let mut tally = BTreeMap::new();
    for member in members {
        *tally.entry(member).or_insert(0) += 1;
    }
    tally
}

/// The id of a workflow's row as a member.
pub(super) fn workflow_id(row: &Row) -> Result<WorkflowId> {
    Ok(WorkflowId::from_uuid(row.try_get("id")?))
}
