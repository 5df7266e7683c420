//! Batches as seen by their members: list, cancel, retry, compare, remove; and the contract carried out.

use std::time::Duration;

use async_trait::async_trait;
use recache_model::batch::{BatchCounts, MemberEnd};
use recache_model::ids::{BatchId, JobId};
use recache_model::job::{ErrorKind, JobError, JobEvent};
use recache_model::time::Timestamp;
use recache_model::tracked::{Report, TrackedState};
use sqlx::Row as _;
use uuid::Uuid;

use super::super::{Connection, Driver, Row, ids};
use super::batches::{add_workflow, check, close, create, due, get, list, look, settle, workflow_id};
use super::effects::Effects;
use super::jobs::{self, Change, instant};
use super::letters::move_in_batch;
use super::maintenance::check_lead;
use super::{tracked, workflows};
use crate::batches::{
    BatchDifference, BatchDue, BatchFilter, BatchMember, BatchRecord, Batches, BatchesCompared,
    BatchesSettled, MemberKind, NewBatch,
};
use crate::error::{Error, Result};
use crate::fail::fail_point;
use crate::letters::BatchDone;
use crate::maintenance::Leadership;
use crate::queues::Word;
use crate::records::NewWorkflow;

#[async_trait]
impl Batches for Driver {
    async fn batch_create(&self, batch: NewBatch) -> Result<(BatchRecord, bool)> {
        check(&batch)?;
        self.write(work!([batch] db, now, effects => create(db, now, &batch, effects).await)).await
    }

    async fn batch_get(&self, batch: BatchId) -> Result<BatchRecord> {
        self.read(look!([] db, now => get(db, batch).await)).await
    }

    async fn batches_list(&self, filter: BatchFilter) -> Result<Vec<BatchRecord>> {
        self.read(look!([filter] db, now => list(db, &filter).await)).await
    }

    async fn batch_close(&self, batch: BatchId) -> Result<bool> {
        self.write(work!([] db, now, effects => close(db, now, batch, effects).await)).await
    }

    async fn batch_add_workflow(&self, batch: BatchId, workflow: NewWorkflow) -> Result<bool> {
        self.write(work!([workflow] db, now, effects => {
            add_workflow(db, now, batch, &workflow, effects).await
        }))
        .await
    }

    async fn batch_cancel(&self, batch: BatchId, reason: &str, rows_max: u32) -> Result<u64> {
        let reason = reason.to_owned();
        let report = Report { message: Some(reason.clone()), ..Report::of(TrackedState::Cancelled) };
        if let Some(problem) = report.problems().pop() {
            return Err(Error::Invalid(format!("reason: {problem}")));
        }
        self.write(work!([reason, report] db, now, effects => {
            cancel(db, now, batch, &reason, &report, rows_max, effects).await
        }))
        .await
    }

    async fn batch_retry(
        &self,
        batch: BatchId,
        word: Word,
        after: Option<JobId>,
        rows_max: u32,
    ) -> Result<BatchDone> {
        word.check()?;
        self.write(work!([word] db, now, effects => {
            retry(db, now, batch, &word, after, rows_max, effects).await
        }))
        .await
    }

    async fn batch_members(
        &self,
        batch: BatchId,
        failed: bool,
        after: Option<Uuid>,
        rows_max: u32,
    ) -> Result<Vec<BatchMember>> {
        self.read(look!([] db, now => members(db, batch, failed, after, rows_max).await)).await
    }

    async fn batches_settle(&self, batches: Vec<BatchId>) -> Result<BatchesSettled> {
        let mut all = BatchesSettled::default();
        if batches.is_empty() {
            return Ok(all);
        }
        let waiting = self.read(look!([batches] db, now => look(db, &batches).await)).await?;
        // Each in a transaction of its own: none waits for another's lock.
        for batch in waiting {
            let settled = self.write(work!([] db, now, effects => {
                let settled = settle(db, now, batch, effects).await?;
                if settled.0 {
                    fail_point!("batch.before_commit");
                }
                Ok(settled)
            }));
            let (is_over, traced) = settled.await?;
            all.ended.extend(is_over.then_some(batch));
            all.traced.extend(traced);
        }
        Ok(all)
    }

    async fn batches_due(&self, rows_max: u32) -> Result<Vec<BatchDue>> {
        self.read(look!([] db, now => due(db, rows_max.max(1)).await)).await
    }

    async fn batches_compare(&self, after: Option<BatchId>, rows_max: u32) -> Result<BatchesCompared> {
        self.read(look!([] db, now => compare(db, after, rows_max).await)).await
    }

    async fn batches_remove(&self, leadership: &Leadership, keep: Duration, rows_max: u32) -> Result<u64> {
        let lead = leadership.clone();
        self.write(work!([lead] db, now, effects => {
            check_lead(db, &lead).await?;
            remove(db, now.minus(keep), rows_max).await
        }))
        .await
    }
}

/// A batch and those within it.
async fn tree(db: &mut Connection, batch: BatchId) -> Result<Vec<Uuid>> {
    let rows = sqlx::query(
        "WITH RECURSIVE tree (id) AS (SELECT id FROM batches WHERE id = $1 UNION ALL \
         SELECT b.id FROM batches b JOIN tree t ON b.parent_id = t.id) SELECT id FROM tree ORDER BY id",
    )
    .bind(batch.uuid())
    .fetch_all(db)
    .await?;
    if rows.is_empty() {
        return Err(Error::not_found("batch", batch));
    }
    rows.iter().map(|row| Ok(row.try_get("id")?)).collect()
}

async fn cancel(
    db: &mut Connection,
    now: Timestamp,
    batch: BatchId,
    reason: &str,
    report: &Report,
    rows_max: u32,
    effects: &mut Effects,
) -> Result<u64> {
    let tree = tree(db, batch).await?;
    let marked = sqlx::query(concat!(
        "UPDATE batches SET cancelled_at = $2, cancel_reason = $3, closed_at = COALESCE(closed_at, $2) \
         WHERE cancelled_at IS NULL AND finished_at IS NULL AND id ",
        in_ids!("$1"),
        " RETURNING id"
    ))
    .bind(ids(&tree))
    .bind(now.micros())
    .bind(reason)
    .fetch_all(&mut *db)
    .await?;
    for row in marked {
        effects.batch_touched(BatchId::from_uuid(row.try_get("id")?));
    }
    let mut left = i64::from(rows_max);
    let mut cancelled = 0;
    let rows = sqlx::query(concat!(
        "SELECT id FROM jobs WHERE state IN ('blocked', 'queued', 'running') AND batch_id ",
        in_ids!("$1"),
        " ORDER BY id LIMIT $2"
    ))
    .bind(ids(&tree))
    .bind(left)
    .fetch_all(&mut *db)
    .await?;
    for row in &rows {
        left -= 1;
        let Some(job) = jobs::lock(db, JobId::from_uuid(row.try_get("id")?)).await? else { continue };
        let change = Change { error: Some(JobError::new(ErrorKind::Cancelled, reason)), ..Change::default() };
        let moved = jobs::advance(db, now, &job, JobEvent::Cancel, change, effects).await?;
        // One that ended meanwhile is answered for too: there may be more after it.
        let _ = moved;
        cancelled += 1;
    }
    let rows = sqlx::query(concat!(
        "SELECT id FROM tracked_jobs WHERE state IN ('queued', 'processing') AND batch_id ",
        in_ids!("$1"),
        " ORDER BY id LIMIT $2"
    ))
    .bind(ids(&tree))
    .bind(left)
    .fetch_all(&mut *db)
    .await?;
    let reports = rows
        .iter()
        .map(|row| Ok((JobId::from_uuid(row.try_get("id")?), report.clone())))
        .collect::<Result<Vec<_>>>()?;
    let done = tracked::report(db, now, &reports, effects).await?.len();
    cancelled += u64::try_from(done).unwrap_or(u64::MAX);
    left -= i64::try_from(done).unwrap_or(i64::MAX);
    let rows = sqlx::query(concat!(
        "SELECT id FROM workflows WHERE state = 'running' AND batch_id ",
        in_ids!("$1"),
        " ORDER BY id LIMIT $2"
    ))
    .bind(ids(&tree))
    .bind(left)
    .fetch_all(&mut *db)
    .await?;
    for row in &rows {
        workflows::cancel(db, now, workflow_id(row)?, reason, effects).await?;
        cancelled += 1;
    }
    Ok(cancelled)
}

async fn retry(
    db: &mut Connection,
    now: Timestamp,
    batch: BatchId,
    word: &Word,
    after: Option<JobId>,
    rows_max: u32,
    effects: &mut Effects,
) -> Result<BatchDone> {
    let tree = tree(db, batch).await?;
    if let Some((_, reason)) = get(db, batch).await?.cancelled {
        return Err(Error::Conflict(format!("batch `{batch}` was cancelled: {reason}")));
    }
    // What was called off within it stays so.
    let rows =
        sqlx::query(concat!("SELECT id FROM batches WHERE cancelled_at IS NULL AND id ", in_ids!("$1")))
            .bind(ids(&tree))
            .fetch_all(&mut *db)
            .await?;
    let tree = rows.iter().map(|row| Ok(row.try_get("id")?)).collect::<Result<Vec<Uuid>>>()?;
    let rows = sqlx::query(concat!(
        "SELECT id FROM (SELECT id FROM jobs WHERE state = 'failed' AND id > $2 AND batch_id ",
        in_ids!("$1"),
        " UNION ALL SELECT j.id FROM workflows w JOIN jobs j ON j.workflow_id = w.id WHERE j.state = 'failed' \
         AND j.id > $2 AND w.batch_id ",
        in_ids!("$1"),
        ") AS failed ORDER BY id LIMIT $3"
    ))
    .bind(ids(&tree))
    .bind(after.map_or(Uuid::nil(), JobId::uuid))
    .bind(i64::from(rows_max))
    .fetch_all(&mut *db)
    .await?;
    let failed =
        rows.iter().map(|row| Ok(JobId::from_uuid(row.try_get("id")?))).collect::<Result<Vec<_>>>()?;
    let mut done = BatchDone { last: failed.last().copied(), ..BatchDone::default() };
    jobs::lock_links(db, &failed).await?;
    for job in failed {
        let change = Change { renew_attempts: true, word: Some(word.clone()), ..Change::default() };
        if move_in_batch(db, now, job, JobEvent::OperatorRetry, change, effects).await? {
            done.changed += 1;
        } else {
            done.skipped += 1;
        }
    }
    Ok(done)
}

/// Members whose state is as these conditions say: of jobs and tracked jobs, of workflows, of batches. Texts of their own, so that each uses
/// the index of its batch and state.
macro_rules! members_select {
    ($of_jobs:literal, $of_batches:literal) => {
        concat!(
            "SELECT kind, id, state, error, code, message, finished_at FROM (\
             SELECT 'job' AS kind, id, state, error, CAST(NULL AS TEXT) AS code, CAST(NULL AS TEXT) AS message, finished_at \
             FROM jobs WHERE batch_id = $1 AND id > $2",
            $of_jobs,
            " UNION ALL SELECT 'tracked', id, state, NULL, code, message, finished_at FROM tracked_jobs \
             WHERE batch_id = $1 AND id > $2",
            $of_jobs,
            " UNION ALL SELECT 'workflow', id, state, NULL, NULL, NULL, finished_at FROM workflows \
             WHERE batch_id = $1 AND id > $2",
            $of_jobs,
            " UNION ALL SELECT 'batch', id, COALESCE(finished_as, 'processing'), NULL, NULL, NULL, finished_at FROM batches \
             WHERE parent_id = $1 AND id > $2",
            $of_batches,
            ") AS m ORDER BY id LIMIT $3"
        )
    };
}

async fn members(
    db: &mut Connection,
    batch: BatchId,
    failed: bool,
    after: Option<Uuid>,
    rows_max: u32,
) -> Result<Vec<BatchMember>> {
    get(db, batch).await?;
    let text = if failed {
        members_select!(" AND state = 'failed'", " AND finished_as IN ('failed', 'partial_failure')")
    } else {
        members_select!("", "")
    };
    let rows = sqlx::query(text)
        .bind(batch.uuid())
        .bind(after.unwrap_or(Uuid::nil()))
        .bind(i64::from(rows_max))
        .fetch_all(db)
        .await?;
    rows.iter().map(member).collect()
}

fn member(row: &Row) -> Result<BatchMember> {
    let kind: String = row.try_get("kind")?;
    let error: Option<JobError> =
        row.try_get::<Option<String>, _>("error")?.map(|text| jobs::json("error", &text)).transpose()?;
    let (code, message) = match error {
        Some(error) => (error.code, Some(error.message)),
        None => (row.try_get("code")?, row.try_get("message")?),
    };
    Ok(BatchMember {
        kind: match kind.as_str() {
            "job" => MemberKind::Job,
            "tracked" => MemberKind::Tracked,
            "workflow" => MemberKind::Workflow,
            _ => MemberKind::Batch,
        },
        id: row.try_get("id")?,
        state: row.try_get("state")?,
        code,
        message,
        finished_at: instant(row, "finished_at")?,
    })
}

/// How a member ended, by the name of its state, whatever kind of member it is.
fn end_of(state: &str) -> Option<MemberEnd> {
    match state {
        "completed" | "skipped" | "resolved" => Some(MemberEnd::Completed),
        "failed" | "partial_failure" => Some(MemberEnd::Failed),
        "cancelled" => Some(MemberEnd::Cancelled),
        "superseded" => Some(MemberEnd::Superseded),
        _ => None,
    }
}

/// One statement, and so one moment: a member moves and is counted in one transaction. Of batches that had ended once retention may have
/// removed members; those are not looked at.
async fn compare(db: &mut Connection, after: Option<BatchId>, rows_max: u32) -> Result<BatchesCompared> {
    let rows = sqlx::query(
        "WITH page AS (SELECT id FROM batches WHERE finished_at IS NULL AND reopened_at IS NULL AND id > $1 \
         ORDER BY id LIMIT $2), \
         kept AS (SELECT c.batch_id, CAST(SUM(c.added) AS BIGINT) AS added, CAST(SUM(c.completed) AS BIGINT) AS completed, \
         CAST(SUM(c.failed) AS BIGINT) AS failed, CAST(SUM(c.cancelled) AS BIGINT) AS cancelled, \
         CAST(SUM(c.superseded) AS BIGINT) AS superseded FROM batch_counts c WHERE c.batch_id IN (SELECT id FROM page) \
         GROUP BY c.batch_id), \
         counted AS (SELECT batch_id, state, CAST(count(*) AS BIGINT) AS members FROM (\
         SELECT batch_id, state FROM jobs WHERE batch_id IN (SELECT id FROM page) UNION ALL \
         SELECT batch_id, state FROM tracked_jobs WHERE batch_id IN (SELECT id FROM page) UNION ALL \
         SELECT batch_id, state FROM workflows WHERE batch_id IN (SELECT id FROM page) UNION ALL \
         SELECT parent_id, COALESCE(finished_as, 'processing') FROM batches WHERE parent_id IN (SELECT id FROM page)) AS m \
         GROUP BY batch_id, state) \
         SELECT p.id, COALESCE(k.added, 0) AS added, COALESCE(k.completed, 0) AS completed, \
         COALESCE(k.failed, 0) AS failed, COALESCE(k.cancelled, 0) AS cancelled, COALESCE(k.superseded, 0) AS superseded, \
         n.state, n.members FROM page p LEFT JOIN kept k ON k.batch_id = p.id LEFT JOIN counted n ON n.batch_id = p.id \
         ORDER BY p.id",
    )
    .bind(after.map_or(Uuid::nil(), BatchId::uuid))
    .bind(i64::from(rows_max))
    .fetch_all(db)
    .await?;
    let mut found: Vec<BatchDifference> = Vec::new();
    for row in &rows {
        let batch = BatchId::from_uuid(row.try_get("id")?);
        if found.last().is_none_or(|last| last.batch != batch) {
            let kept = BatchCounts {
                total: row.try_get("added")?,
                completed: row.try_get("completed")?,
                failed: row.try_get("failed")?,
                cancelled: row.try_get("cancelled")?,
                superseded: row.try_get("superseded")?,
            };
            found.push(BatchDifference { batch, kept, counted: BatchCounts::default() });
        }
        let state: Option<String> = row.try_get("state")?;
        if let (Some(state), Some(last)) = (state, found.last_mut()) {
            let members: i64 = row.try_get("members")?;
            last.counted.total += members;
            match end_of(&state) {
                None => {}
                Some(MemberEnd::Completed) => last.counted.completed += members,
                Some(MemberEnd::Failed) => last.counted.failed += members,
                Some(MemberEnd::Cancelled) => last.counted.cancelled += members,
                Some(MemberEnd::Superseded) => last.counted.superseded += members,
            }
        }
    }
    Ok(BatchesCompared {
        batches: u64::try_from(found.len()).unwrap_or(u64::MAX),
        last: found.last().map(|last| last.batch),
        differences: found.into_iter().filter(|one| one.kept != one.counted).collect(),
    })
}

async fn remove(db: &mut Connection, ended_before: Timestamp, rows_max: u32) -> Result<u64> {
    let rows = sqlx::query(concat!(
        "SELECT id FROM batches WHERE finished_at IS NOT NULL AND finished_at <= $1 \
         AND NOT EXISTS (SELECT 1 FROM jobs m WHERE m.batch_id = batches.id) \
         AND NOT EXISTS (SELECT 1 FROM tracked_jobs m WHERE m.batch_id = batches.id) \
         AND NOT EXISTS (SELECT 1 FROM workflows m WHERE m.batch_id = batches.id) \
         AND NOT EXISTS (SELECT 1 FROM batches m WHERE m.parent_id = batches.id) \
         AND (parent_id IS NULL OR EXISTS (SELECT 1 FROM batches p WHERE p.id = batches.parent_id \
         AND p.finished_at IS NOT NULL)) ORDER BY finished_at LIMIT $2",
        for_update_skip_locked!()
    ))
    .bind(ended_before.micros())
    .bind(i64::from(rows_max))
    .fetch_all(&mut *db)
    .await?;
    let gone = rows.iter().map(|row| Ok(row.try_get("id")?)).collect::<Result<Vec<Uuid>>>()?;
    if gone.is_empty() {
        return Ok(0);
    }
    sqlx::query(concat!("DELETE FROM batch_counts WHERE batch_id ", in_ids!("$1")))
        .bind(ids(&gone))
        .execute(&mut *db)
        .await?;
    let removed = sqlx::query(concat!("DELETE FROM batches WHERE id ", in_ids!("$1")))
        .bind(ids(&gone))
        .execute(db)
        .await?;
    Ok(removed.rows_affected())
}
