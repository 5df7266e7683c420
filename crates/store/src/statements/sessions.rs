//! Worker sessions: open, beat, close, sweep.

use std::time::Duration;

use recache_model::ids::{JobId, SessionId, ViewId};
use recache_model::job::{AfterFailure, ErrorKind, JobError, JobEvent, after_failure};
use recache_model::time::Timestamp;
use sqlx::Row as _;
use uuid::Uuid;

use super::super::{Connection, Row, texts_of};
use super::effects::Effects;
use super::jobs::{self, Change};
use super::views;
use crate::error::Result;
use crate::fail::fail_point;
use crate::flow::FLOW;
use crate::records::{Beat, LeaseToken, SessionRecord, Swept};

pub(in super::super) async fn open(
    db: &mut Connection,
    now: Timestamp,
    session: SessionId,
    node: &str,
    lease: Duration,
) -> Result<()> {
    sqlx::query(
        "INSERT INTO sessions (id, node, started_at, beat_at, expires_at) VALUES ($1, $2, $3, $3, $4) \
         ON CONFLICT (id) DO UPDATE SET beat_at = excluded.beat_at, expires_at = excluded.expires_at",
    )
    .bind(session.uuid())
    .bind(node)
    .bind(now.micros())
    .bind(now.plus(lease).micros())
    .execute(db)
    .await?;
    Ok(())
}

/// Of whose jobs a session may have; `None`: of all.
pub(super) fn namespaces(row: &Row) -> Result<Option<Vec<String>>> {
    texts_of(row, "namespaces")
}

pub(in super::super) async fn beat(
    db: &mut Connection,
    now: Timestamp,
    session: SessionId,
    lease: Duration,
    held: &[LeaseToken],
) -> Result<Beat> {
    let known = sqlx::query("UPDATE sessions SET beat_at = $2, expires_at = $3 WHERE id = $1")
        .bind(session.uuid())
        .bind(now.micros())
        .bind(now.plus(lease).micros())
        .execute(&mut *db)
        .await?
        .rows_affected()
        == 1;
    let revoked = if held.is_empty() { Vec::new() } else { jobs::revoked(db, held).await? };
    Ok(Beat { known, revoked })
}

pub(in super::super) async fn get(db: &mut Connection, session: SessionId) -> Result<Option<SessionRecord>> {
    let row = sqlx::query("SELECT node, beat_at, expires_at FROM sessions WHERE id = $1")
        .bind(session.uuid())
        .fetch_optional(db)
        .await?;
    row.map(|row| {
        Ok(SessionRecord {
            node: row.try_get("node")?,
            beat_at: Timestamp::from_micros(row.try_get("beat_at")?),
            expires_at: Timestamp::from_micros(row.try_get("expires_at")?),
        })
    })
    .transpose()
}

pub(in super::super) async fn close(
    db: &mut Connection,
    now: Timestamp,
    session: SessionId,
    effects: &mut Effects,
) -> Result<()> {
    for job in held(db, session, &[]).await? {
        take_away(db, now, &job, "its worker shut down before it ended", effects).await?;
    }
    sqlx::query("DELETE FROM sessions WHERE id = $1").bind(session.uuid()).execute(db).await?;
    Ok(())
}

pub(in super::super) async fn reclaim(
    db: &mut Connection,
    now: Timestamp,
    session: SessionId,
    known: &[JobId],
    effects: &mut Effects,
) -> Result<usize> {
    let unheard = held(db, session, known).await?;
    for job in &unheard {
        // Its worker never heard that it had it, so the attempt did not begin and does not count.
        let change = Change { by_force: true, uncount_attempt: true, ..Change::default() };
        jobs::advance(db, now, job, JobEvent::Release, change, effects).await?;
    }
    Ok(unheard.len())
}

/// What a session holds but for what it is known to have; locked.
async fn held(db: &mut Connection, session: SessionId, known: &[JobId]) -> Result<Vec<jobs::Locked>> {
    let rows = sqlx::query("SELECT id FROM jobs WHERE state = 'running' AND session_id = $1 ORDER BY id")
        .bind(session.uuid())
        .fetch_all(&mut *db)
        .await?;
    let mut ids =
        rows.iter().map(|row| Ok(JobId::from_uuid(row.try_get("id")?))).collect::<Result<Vec<_>>>()?;
    ids.retain(|job| !known.contains(job));
    jobs::lock_links(db, &ids).await?;
    let mut held = Vec::with_capacity(ids.len());
    for job in ids {
        held.extend(jobs::lock(db, job).await?.filter(|job| job.session == Some(session.uuid())));
    }
    Ok(held)
}

pub(in super::super) async fn sweep(
    db: &mut Connection,
    now: Timestamp,
    rows_max: u32,
    effects: &mut Effects,
) -> Result<Swept> {
    let rows = sqlx::query(
        "SELECT id FROM jobs WHERE state = 'running' AND session_id IS NOT NULL AND NOT EXISTS \
         (SELECT 1 FROM sessions WHERE sessions.id = jobs.session_id AND sessions.expires_at > $1) \
         AND (view_id IS NULL OR NOT EXISTS (SELECT 1 FROM sessions s JOIN views v ON v.id = jobs.view_id \
         WHERE s.id = jobs.session_id AND s.beat_at + v.build_lease_ms * 1000 > $1)) \
         ORDER BY id LIMIT $2",
    )
    .bind(now.micros())
    .bind(i64::from(rows_max))
    .fetch_all(&mut *db)
    .await?;
    let lost = rows.iter().map(|row| Ok(JobId::from_uuid(row.try_get("id")?))).collect::<Result<Vec<_>>>()?;
    let mut swept = Swept::default();
    jobs::lock_links(db, &lost).await?;
    for job in lost {
        // Between the look and the lock the session may have beaten or the job may have been settled.
        let Some(job) = jobs::lock(db, job).await? else { continue };
        let Some(session) = job.session else { continue };
        if is_alive(db, now, session, job.view).await? {
            continue;
        }
        fail_point!("reap.between");
        if take_away(db, now, &job, "its worker stopped beating", effects).await? {
            swept.requeued += 1;
        } else {
            swept.failed += 1;
        }
    }
    let removed = sqlx::query(
        "DELETE FROM sessions WHERE expires_at <= $1 AND NOT EXISTS \
         (SELECT 1 FROM jobs WHERE jobs.state = 'running' AND jobs.session_id = sessions.id)",
    )
    .bind(now.micros())
    .execute(&mut *db)
    .await?;
    swept.sessions = usize::try_from(removed.rows_affected()).unwrap_or(usize::MAX);
    let next = sqlx::query("SELECT MIN(expires_at) AS next FROM sessions WHERE expires_at > $1")
        .bind(now.micros())
        .fetch_one(db)
        .await?;
    let next: Option<i64> = next.try_get("next")?;
    swept.next_in = next.map(|at| Timestamp::from_micros(at).since(now));
    Ok(swept)
}

/// Whether what a session holds must be left alone: anything, or the build of `view`.
async fn is_alive(db: &mut Connection, now: Timestamp, session: Uuid, view: Option<ViewId>) -> Result<bool> {
    // Locked, so that a beat cannot slip in between this look and the take-away.
    let row = sqlx::query(concat!("SELECT beat_at, expires_at FROM sessions WHERE id = $1", for_update!()))
        .bind(session)
        .fetch_optional(&mut *db)
        .await?;
    let Some(row) = row else { return Ok(false) };
    if row.try_get::<i64, _>("expires_at")? > now.micros() {
        return Ok(true);
    }
    let Some(view) = view else { return Ok(false) };
    let lease = sqlx::query("SELECT build_lease_ms FROM views WHERE id = $1")
        .bind(view.uuid())
        .fetch_optional(db)
        .await?;
    let lease_ms = lease.map(|row| row.try_get::<Option<i64>, _>("build_lease_ms")).transpose()?.flatten();
    let beat_at: i64 = row.try_get("beat_at")?;
    Ok(lease_ms.is_some_and(|ms| beat_at.saturating_add(ms.saturating_mul(1_000)) > now.micros()))
}

/// Back to the queue at once, or failed when no attempt is left. True when it goes back.
pub(super) async fn take_away(
    db: &mut Connection,
    now: Timestamp,
    job: &jobs::Locked,
    why: &str,
    effects: &mut Effects,
) -> Result<bool> {
    if job.handler == FLOW {
        // A turn of the engine's own is no attempt.
        let change = Change { by_force: true, uncount_attempt: true, ..Change::default() };
        jobs::advance(db, now, job, JobEvent::Release, change, effects).await?;
        return Ok(true);
    }
    let error = JobError::new(ErrorKind::LeaseLost, why);
    // `attempts_max` of the row rather than of the policy: an operator may have granted more.
    let policy = recache_model::retry::RetryPolicy { attempts_max: job.attempts_max, ..job.retry()? };
    let change = Change { error: Some(error.clone()), by_force: true, ..Change::default() };
    if matches!(after_failure(&policy, job.attempt, &error, 0.0), AfterFailure::Retry(_)) {
        jobs::advance(db, now, job, JobEvent::Reclaim, change, effects).await?;
        return Ok(true);
    }
    jobs::advance(db, now, job, JobEvent::Fail, change, effects).await?;
    if let Some(view) = job.view {
        views::build_ended(db, now, view, &format!("{why}, and no attempt is left"), effects).await?;
    }
    Ok(false)
}
