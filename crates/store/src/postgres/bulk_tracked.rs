//! Many tracked jobs in one statement.

use std::collections::HashSet;

use recache_model::ids::BatchId;
use recache_model::time::{Timestamp, micros};
use sqlx::Row as _;
use uuid::Uuid;

use super::Connection;
use crate::error::Result;
use crate::tracked::{NewTrackedJob, TrackedJob};

/// Answers the ids that were new.
pub(super) async fn tracked_insert(
    db: &mut Connection,
    now: Timestamp,
    new: &[&NewTrackedJob],
) -> Result<HashSet<Uuid>> {
    let context = |value: fn(&crate::tracked::TrackedContext) -> Option<&str>| {
        new.iter().map(|job| job.context.as_ref().and_then(value)).collect::<Vec<Option<&str>>>()
    };
    let rows = sqlx::query(
        "INSERT INTO tracked_jobs (id, namespace, action, context_type, context_id, context_field, owner, metadata, \
         state, revision, stale_after_us, stale_at, created_at, heard_at, batch_id) \
         SELECT n.id, n.namespace, n.action, n.kind, n.context, n.field, n.owner, n.metadata, 'queued', 1, n.stale_after, \
         n.stale_at, $11, $11, n.batch FROM unnest($1::uuid[], $2::text[], $3::text[], $4::text[], $5::text[], $6::text[], \
         $7::text[], $8::text[], $9::bigint[], $10::bigint[], $12::uuid[]) \
         AS n (id, namespace, action, kind, context, field, owner, metadata, stale_after, stale_at, batch) \
         ORDER BY n.id ON CONFLICT (id) DO NOTHING RETURNING id",
    )
    .bind(new.iter().map(|job| job.id.uuid()).collect::<Vec<_>>())
    .bind(new.iter().map(|job| job.namespace.as_str()).collect::<Vec<_>>())
    .bind(new.iter().map(|job| job.action.as_str()).collect::<Vec<_>>())
    .bind(context(|context| Some(context.kind.as_str())))
    .bind(context(|context| Some(context.id.as_str())))
    .bind(context(|context| context.field.as_deref()))
    .bind(new.iter().map(|job| job.owner.as_deref()).collect::<Vec<_>>())
    .bind(new.iter().map(|job| job.metadata.as_str()).collect::<Vec<_>>())
    .bind(new.iter().map(|job| micros(job.stale_after)).collect::<Vec<_>>())
    .bind(new.iter().map(|job| now.plus(job.stale_after).micros()).collect::<Vec<_>>())
    .bind(now.micros())
    .bind(new.iter().map(|job| job.batch.map(BatchId::uuid)).collect::<Vec<_>>())
    .fetch_all(db)
    .await?;
    rows.iter().map(|row| Ok(row.try_get("id")?)).collect()
}

/// Writes back what reports have changed; the rows are locked.
pub(super) async fn tracked_store(db: &mut Connection, jobs: &[&TrackedJob]) -> Result<()> {
    sqlx::query(
        "UPDATE tracked_jobs SET state = n.state, message = n.message, code = n.code, data = n.data, progress = n.progress, \
         items_done = n.items_done, items_total = n.items_total, revision = n.revision, heard_at = n.heard_at, \
         stale_at = n.stale_at, started_at = n.started_at, finished_at = n.finished_at \
         FROM unnest($1::uuid[], $2::text[], $3::text[], $4::text[], $5::text[], $6::float8[], $7::bigint[], $8::bigint[], \
         $9::bigint[], $10::bigint[], $11::bigint[], $12::bigint[], $13::bigint[]) \
         AS n (id, state, message, code, data, progress, items_done, items_total, revision, heard_at, stale_at, started_at, \
         finished_at) WHERE tracked_jobs.id = n.id",
    )
    .bind(jobs.iter().map(|job| job.definition.id.uuid()).collect::<Vec<_>>())
    .bind(jobs.iter().map(|job| job.course.state.as_str()).collect::<Vec<_>>())
    .bind(jobs.iter().map(|job| job.course.message.as_deref()).collect::<Vec<_>>())
    .bind(jobs.iter().map(|job| job.course.code.as_deref()).collect::<Vec<_>>())
    .bind(jobs.iter().map(|job| job.course.data.as_deref()).collect::<Vec<_>>())
    .bind(jobs.iter().map(|job| job.course.progress).collect::<Vec<_>>())
    .bind(jobs.iter().map(|job| job.course.items_done).collect::<Vec<_>>())
    .bind(jobs.iter().map(|job| job.course.items_total).collect::<Vec<_>>())
    .bind(jobs.iter().map(|job| job.revision).collect::<Vec<_>>())
    .bind(jobs.iter().map(|job| job.heard_at.micros()).collect::<Vec<_>>())
    .bind(jobs.iter().map(|job| job.stale_at.map(Timestamp::micros)).collect::<Vec<_>>())
    .bind(jobs.iter().map(|job| job.started_at.map(Timestamp::micros)).collect::<Vec<_>>())
    .bind(jobs.iter().map(|job| job.finished_at.map(Timestamp::micros)).collect::<Vec<_>>())
    .execute(db)
    .await?;
    Ok(())
}
