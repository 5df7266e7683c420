//! Many tracked jobs in one statement.

use std::collections::HashSet;

use recache_model::ids::BatchId;
use recache_model::time::{Timestamp, micros};
use serde_json::json;
use sqlx::Row as _;
use uuid::Uuid;

use super::Connection;
use crate::error::Result;
use crate::tracked::{NewTrackedJob, TrackedJob};

fn hex(id: Uuid) -> String {
    id.simple().to_string()
}

/// Answers the ids that were new.
pub(super) async fn tracked_insert(
    db: &mut Connection,
    now: Timestamp,
    new: &[&NewTrackedJob],
) -> Result<HashSet<Uuid>> {
    let list: Vec<_> = new
        .iter()
        .map(|job| {
            let context = job.context.as_ref();
            json!([
                hex(job.id.uuid()),
                job.namespace,
                job.action,
                context.map(|context| &context.kind),
                context.map(|context| &context.id),
                context.and_then(|context| context.field.as_ref()),
                job.owner,
                job.metadata,
                micros(job.stale_after),
                now.plus(job.stale_after).micros(),
                job.batch.map(BatchId::uuid).map(hex),
            ])
        })
        .collect();
    let rows = sqlx::query(
        "INSERT INTO tracked_jobs (id, namespace, action, context_type, context_id, context_field, owner, metadata, \
         state, revision, stale_after_us, stale_at, created_at, heard_at, batch_id) \
         SELECT unhex(value ->> 0), value ->> 1, value ->> 2, value ->> 3, value ->> 4, value ->> 5, value ->> 6, value ->> 7, \
         'queued', 1, value ->> 8, value ->> 9, $2, $2, unhex(value ->> 10) FROM jsonb_each($1) WHERE TRUE \
         ON CONFLICT (id) DO NOTHING RETURNING id",
    )
    .bind(serde_json::Value::from(list).to_string())
    .bind(now.micros())
    .fetch_all(db)
    .await?;
    rows.iter().map(|row| Ok(row.try_get("id")?)).collect()
}

/// Writes back what reports have changed.
pub(super) async fn tracked_store(db: &mut Connection, jobs: &[&TrackedJob]) -> Result<()> {
    let list: Vec<_> = jobs
        .iter()
        .map(|job| {
            let course = &job.course;
            json!([
                hex(job.definition.id.uuid()),
                course.state.as_str(),
                course.message,
                course.code,
                course.data,
                course.progress,
                course.items_done,
                course.items_total,
                job.revision,
                job.heard_at.micros(),
                job.stale_at.map(Timestamp::micros),
                job.started_at.map(Timestamp::micros),
                job.finished_at.map(Timestamp::micros),
            ])
        })
        .collect();
    sqlx::query(
        "UPDATE tracked_jobs SET state = n.value ->> 1, message = n.value ->> 2, code = n.value ->> 3, data = n.value ->> 4, \
         progress = n.value ->> 5, items_done = n.value ->> 6, items_total = n.value ->> 7, revision = n.value ->> 8, \
         heard_at = n.value ->> 9, stale_at = n.value ->> 10, started_at = n.value ->> 11, finished_at = n.value ->> 12 \
         FROM jsonb_each($1) AS n WHERE tracked_jobs.id = unhex(n.value ->> 0)",
    )
    .bind(serde_json::Value::from(list).to_string())
    .execute(db)
    .await?;
    Ok(())
}
