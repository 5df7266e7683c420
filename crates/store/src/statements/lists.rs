//! Looking at jobs.

use recache_model::ids::{JobId, SessionId};
use recache_model::time::Timestamp;
use sqlx::Row as _;
use uuid::Uuid;

use super::super::Connection;
use super::jobs::{count, job_columns, record, state};
use crate::error::{Error, Result};
use crate::records::{HistoryRow, JobFilter, JobRecord};

pub(in super::super) async fn get(db: &mut Connection, job: JobId) -> Result<JobRecord> {
    let row = sqlx::query(concat!("SELECT ", job_columns!(), " FROM jobs WHERE id = $1"))
        .bind(job.uuid())
        .fetch_optional(db)
        .await?
        .ok_or_else(|| Error::not_found("job", job))?;
    record(&row)
}

pub(in super::super) async fn list(db: &mut Connection, filter: &JobFilter) -> Result<Vec<JobRecord>> {
    let rows = sqlx::query(concat!(
        "SELECT ",
        job_columns!(),
        " FROM jobs WHERE (CAST($1 AS TEXT) IS NULL OR namespace = $1) AND (CAST($2 AS TEXT) IS NULL OR state = $2) \
         AND (CAST($3 AS TEXT) IS NULL OR queue = $3) AND (CAST($4 AS TEXT) IS NULL OR handler = $4) AND ($5 OR id < $6) \
         ORDER BY id DESC LIMIT $7"
    ))
    .bind(&filter.namespace)
    .bind(filter.state.map(recache_model::job::JobState::as_str))
    .bind(&filter.queue)
    .bind(&filter.handler)
    .bind(filter.before.is_none())
    .bind(filter.before.map_or(Uuid::nil(), JobId::uuid))
    .bind(i64::from(filter.rows_max))
    .fetch_all(db)
    .await?;
    rows.iter().map(record).collect()
}

/// Of a job that is gone there may be history that nobody is to see.
pub(in super::super) async fn history(db: &mut Connection, job: JobId) -> Result<Vec<HistoryRow>> {
    let rows = sqlx::query(
        "SELECT seq, at, from_state, to_state, attempt, epoch, session_id, detail FROM job_history \
         WHERE job_id = $1 AND EXISTS (SELECT 1 FROM jobs WHERE jobs.id = $1) ORDER BY seq",
    )
    .bind(job.uuid())
    .fetch_all(db)
    .await?;
    rows.iter()
        .map(|row| {
            Ok(HistoryRow {
                seq: row.try_get("seq")?,
                at: Timestamp::from_micros(row.try_get("at")?),
                from: state(row, "from_state")?,
                to: state(row, "to_state")?,
                attempt: count(row, "attempt")?,
                epoch: row.try_get("epoch")?,
                session: row.try_get::<Option<Uuid>, _>("session_id")?.map(SessionId::from_uuid),
                detail: row.try_get("detail")?,
            })
        })
        .collect()
}
