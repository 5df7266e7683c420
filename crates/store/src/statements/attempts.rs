//! What a handler keeps and says: checkpoints and log lines.

use async_trait::async_trait;
use recache_model::ids::JobId;
use recache_model::time::Timestamp;
use sqlx::Row as _;

use super::super::{Connection, Driver};
use super::jobs;
use crate::attempts::{Attempts, CHECKPOINT_BYTES_MAX, LOG_LINE_BYTES_MAX, LOG_LINES_MAX, LogLine};
use crate::error::{Error, Result};
use crate::records::{LeaseToken, Revoked};

#[async_trait]
impl Attempts for Driver {
    async fn checkpoint_save(&self, token: LeaseToken, data: &str) -> Result<Option<Revoked>> {
        let data = data.to_owned();
        self.write(work!([data] db, now, effects => save(db, now, token, &data).await)).await
    }

    async fn log_append(&self, token: LeaseToken, lines: Vec<String>) -> Result<Option<Revoked>> {
        self.write(work!([lines] db, now, effects => append(db, now, token, None, &lines).await)).await
    }

    async fn log_read(&self, job: JobId, rows_max: u32) -> Result<Vec<LogLine>> {
        self.read(look!([] db, now => read(db, job, rows_max).await)).await
    }
}

async fn save(db: &mut Connection, now: Timestamp, token: LeaseToken, data: &str) -> Result<Option<Revoked>> {
    if data.len() > CHECKPOINT_BYTES_MAX {
        return Err(Error::Invalid(format!(
            "a checkpoint has at most {CHECKPOINT_BYTES_MAX} bytes, and this one has {}",
            data.len()
        )));
    }
    let changed = sqlx::query(
        "UPDATE jobs SET checkpoint = $4, checkpoint_at = $5 WHERE id = $1 AND state = 'running' AND epoch = $2 \
         AND claim = $3",
    )
    .bind(token.job.uuid())
    .bind(token.epoch)
    .bind(token.claim)
    .bind(data)
    .bind(now.micros())
    .execute(&mut *db)
    .await?
    .rows_affected();
    if changed == 1 { Ok(None) } else { Ok(jobs::revoked(db, &[token]).await?.pop().map(|(_, why)| why)) }
}

/// `first`: the worker's own number of the first line in this attempt, where it counts them. What it said before is left out.
pub(super) async fn append(
    db: &mut Connection,
    now: Timestamp,
    token: LeaseToken,
    first: Option<u64>,
    lines: &[String],
) -> Result<Option<Revoked>> {
    // Locked, so that two calls of one attempt give each line a number of its own.
    let Some(job) = jobs::lock(db, token.job).await? else { return Ok(Some(Revoked::Gone)) };
    if let Err(revoked) = job.held_by(token) {
        return Ok(Some(revoked));
    }
    let Some(first) = first else {
        write_lines(db, now, job.id, job.attempt, lines).await?;
        return Ok(None);
    };
    let first = i64::try_from(first).unwrap_or(i64::MAX);
    let said = lines_said(db, token).await?;
    let known = usize::try_from(said.saturating_sub(first).saturating_add(1)).unwrap_or(0);
    let new = lines.get(known..).unwrap_or_default();
    if new.is_empty() {
        return Ok(None);
    }
    let seq = write_lines(db, now, job.id, job.attempt, new).await?;
    // The number of the last one tells all.
    sqlx::query("UPDATE job_logs SET epoch = $3, line = $4 WHERE job_id = $1 AND seq = $2")
        .bind(token.job.uuid())
        .bind(seq)
        .bind(token.epoch)
        .bind(first.saturating_add(i64::try_from(lines.len()).unwrap_or(i64::MAX)).saturating_sub(1))
        .execute(db)
        .await?;
    Ok(None)
}

/// The number of the last line that was said in this attempt. The newest lines are those that are kept, so it is known however many there
/// were.
async fn lines_said(db: &mut Connection, token: LeaseToken) -> Result<i64> {
    let row =
        sqlx::query("SELECT COALESCE(MAX(line), 0) AS line FROM job_logs WHERE job_id = $1 AND epoch = $2")
            .bind(token.job.uuid())
            .bind(token.epoch)
            .fetch_one(db)
            .await?;
    Ok(row.try_get("line")?)
}

/// Adds lines to a job's log, whoever says them; the job is locked. Answers the number of the last one.
pub(super) async fn write_lines(
    db: &mut Connection,
    now: Timestamp,
    job: JobId,
    attempt: u32,
    lines: &[String],
) -> Result<i64> {
    let row = sqlx::query("SELECT COALESCE(MAX(seq), 0) AS seq FROM job_logs WHERE job_id = $1")
        .bind(job.uuid())
        .fetch_one(&mut *db)
        .await?;
    let mut seq: i64 = row.try_get("seq")?;
    for line in lines {
        seq += 1;
        sqlx::query("INSERT INTO job_logs (job_id, seq, attempt, at, text) VALUES ($1, $2, $3, $4, $5)")
            .bind(job.uuid())
            .bind(seq)
            .bind(i64::from(attempt))
            .bind(now.micros())
            .bind(cut(line))
            .execute(&mut *db)
            .await?;
    }
    sqlx::query("DELETE FROM job_logs WHERE job_id = $1 AND seq <= $2")
        .bind(job.uuid())
        .bind(seq - LOG_LINES_MAX)
        .execute(db)
        .await?;
    Ok(seq)
}

/// At most [`LOG_LINE_BYTES_MAX`], without a NUL, which PostgreSQL cannot keep.
fn cut(line: &str) -> String {
    let mut end = line.len().min(LOG_LINE_BYTES_MAX);
    while !line.is_char_boundary(end) {
        end -= 1;
    }
    line[..end].replace('\0', "\u{fffd}")
}

async fn read(db: &mut Connection, job: JobId, rows_max: u32) -> Result<Vec<LogLine>> {
    let rows = sqlx::query(
        "SELECT seq, attempt, at, text FROM job_logs WHERE job_id = $1 ORDER BY seq DESC LIMIT $2",
    )
    .bind(job.uuid())
    .bind(i64::from(rows_max))
    .fetch_all(db)
    .await?;
    rows.iter()
        .rev()
        .map(|row| {
            Ok(LogLine {
                seq: row.try_get("seq")?,
                attempt: jobs::count(row, "attempt")?,
                at: Timestamp::from_micros(row.try_get("at")?),
                text: row.try_get("text")?,
            })
        })
        .collect()
}
