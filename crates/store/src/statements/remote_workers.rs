//! Workers that reach the store only through a server node.

use std::collections::HashSet;
use std::time::Duration;

use async_trait::async_trait;
use recache_model::ids::{JobId, SessionId};
use recache_model::time::{Timestamp, micros};
use sqlx::Row as _;
use uuid::Uuid;

use super::super::{Connection, Driver, Row, ids, texts};
use super::effects::Effects;
use super::{attempts, items, jobs, sessions, settle};
use crate::error::{Error, Result};
use crate::records::{LeaseToken, Revoked, Settled, Settlement};
use crate::remote_workers::{
    BuildSum, HELD_ROWS_MAX, HeldJob, NewRemoteWorker, RemoteBeat, RemoteWorker, RemoteWorkers,
};

#[async_trait]
impl RemoteWorkers for Driver {
    async fn remote_open(&self, worker: NewRemoteWorker) -> Result<()> {
        self.write(work!([worker] db, now, effects => open(db, now, &worker).await)).await
    }

    async fn remote_find(&self, session: SessionId) -> Result<Option<RemoteWorker>> {
        self.read(look!([] db, now => find(db, session).await)).await
    }

    async fn remote_beat(
        &self,
        session: SessionId,
        lease: Duration,
        named: Vec<LeaseToken>,
        are_all_named: bool,
    ) -> Result<RemoteBeat> {
        self.write(work!([named] db, now, effects => {
            beat(db, now, session, lease, &named, are_all_named, effects).await
        }))
        .await
    }

    async fn remote_held(&self, session: SessionId) -> Result<Vec<HeldJob>> {
        self.read(look!([] db, now => held(db, now, session).await)).await
    }

    async fn remote_held_by(&self, tokens: Vec<LeaseToken>) -> Result<Vec<HeldJob>> {
        self.read(look!([tokens] db, now => held_by(db, now, &tokens).await)).await
    }

    async fn remote_end(&self, settlement: Settlement) -> Result<Settled> {
        self.write(work!([settlement] db, now, effects => end(db, now, &settlement, effects).await)).await
    }

    async fn remote_log(&self, token: LeaseToken, first: u64, lines: Vec<String>) -> Result<Option<Revoked>> {
        self.write(work!([lines] db, now, effects => {
            attempts::append(db, now, token, Some(first), &lines).await
        }))
        .await
    }

    async fn remote_build_sum(
        &self,
        token: LeaseToken,
        kept: Vec<String>,
    ) -> Result<std::result::Result<BuildSum, Revoked>> {
        self.write(work!([kept] db, now, effects => build_sum(db, token, &kept).await)).await
    }
}

async fn open(db: &mut Connection, now: Timestamp, worker: &NewRemoteWorker) -> Result<()> {
    sessions::open(db, now, worker.session, &worker.name, worker.lease).await?;
    if let Some(namespaces) = &worker.namespaces {
        sqlx::query("UPDATE sessions SET namespaces = $2 WHERE id = $1")
            .bind(worker.session.uuid())
            .bind(texts(namespaces))
            .execute(&mut *db)
            .await?;
    }
    sqlx::query(
        "INSERT INTO remote_workers (session_id, name, secret_digest, handlers, queues, slots, lease_us) \
         VALUES ($1, $2, $3, $4, $5, $6, $7) ON CONFLICT (session_id) DO NOTHING",
    )
    .bind(worker.session.uuid())
    .bind(&worker.name)
    .bind(&worker.secret_digest)
    .bind(jobs::to_json(&worker.handlers)?)
    .bind(jobs::to_json(&worker.queues)?)
    .bind(i64::from(worker.slots))
    .bind(micros(worker.lease))
    .execute(db)
    .await?;
    Ok(())
}

macro_rules! worker_columns {
    () => {
        "SELECT w.session_id, w.name, w.secret_digest, w.handlers, w.queues, w.slots, w.lease_us, s.namespaces, \
         s.started_at, s.beat_at, s.expires_at FROM remote_workers w JOIN sessions s ON s.id = w.session_id"
    };
}

async fn find(db: &mut Connection, session: SessionId) -> Result<Option<RemoteWorker>> {
    let row = sqlx::query(concat!(worker_columns!(), " WHERE w.session_id = $1"))
        .bind(session.uuid())
        .fetch_optional(db)
        .await?;
    row.as_ref().map(worker).transpose()
}

fn worker(row: &Row) -> Result<RemoteWorker> {
    Ok(RemoteWorker {
        registered: NewRemoteWorker {
            session: SessionId::from_uuid(row.try_get("session_id")?),
            name: row.try_get("name")?,
            secret_digest: row.try_get("secret_digest")?,
            handlers: jobs::json("handlers", row.try_get("handlers")?)?,
            queues: jobs::json("queues", row.try_get("queues")?)?,
            namespaces: sessions::namespaces(row)?,
            slots: jobs::count(row, "slots")?,
            lease: jobs::duration(row.try_get("lease_us")?).unwrap_or_default(),
        },
        registered_at: Timestamp::from_micros(row.try_get("started_at")?),
        beat_at: Timestamp::from_micros(row.try_get("beat_at")?),
        expires_at: Timestamp::from_micros(row.try_get("expires_at")?),
    })
}

async fn beat(
    db: &mut Connection,
    now: Timestamp,
    session: SessionId,
    lease: Duration,
    named: &[LeaseToken],
    are_all_named: bool,
    effects: &mut Effects,
) -> Result<RemoteBeat> {
    let beat = sessions::beat(db, now, session, lease, named).await?;
    let mut forgotten = 0;
    if beat.known && are_all_named {
        for job in forgotten_jobs(db, now.minus(lease), session, named).await? {
            sessions::take_away(db, now, &job, "its worker did not know of it any more", effects).await?;
            forgotten += 1;
        }
    }
    Ok(RemoteBeat { known: beat.known, revoked: beat.revoked, forgotten })
}

/// Running jobs of a session that began before `before` and are not named; locked.
async fn forgotten_jobs(
    db: &mut Connection,
    before: Timestamp,
    session: SessionId,
    named: &[LeaseToken],
) -> Result<Vec<jobs::Locked>> {
    let rows = sqlx::query(
        "SELECT id FROM jobs WHERE state = 'running' AND session_id = $1 AND started_at < $2 ORDER BY id",
    )
    .bind(session.uuid())
    .bind(before.micros())
    .fetch_all(&mut *db)
    .await?;
    let named: HashSet<JobId> = named.iter().map(|token| token.job).collect();
    let mut found =
        rows.iter().map(|row| Ok(JobId::from_uuid(row.try_get("id")?))).collect::<Result<Vec<_>>>()?;
    found.retain(|job| !named.contains(job));
    if found.is_empty() {
        return Ok(Vec::new());
    }
    jobs::lock_links(db, &found).await?;
    let mut locked = Vec::with_capacity(found.len());
    for job in found {
        locked.extend(jobs::lock(db, job).await?.filter(|job| job.session == Some(session.uuid())));
    }
    Ok(locked)
}

macro_rules! held_columns {
    () => {
        "SELECT id, namespace, queue, handler, input, attempt, retry, attempts_max, timeout_ms, correlation_id, \
         trace_context, workflow_id, step, view_id, epoch, due_at, checkpoint, claim, started_at FROM jobs \
         WHERE state = 'running' AND "
    };
}

async fn held(db: &mut Connection, now: Timestamp, session: SessionId) -> Result<Vec<HeldJob>> {
    let rows = sqlx::query(concat!(held_columns!(), "session_id = $1 ORDER BY started_at, id LIMIT $2"))
        .bind(session.uuid())
        .bind(i64::from(HELD_ROWS_MAX))
        .fetch_all(db)
        .await?;
    rows.iter().map(|row| held_job(row, now)).collect()
}

async fn held_by(db: &mut Connection, now: Timestamp, tokens: &[LeaseToken]) -> Result<Vec<HeldJob>> {
    let wanted: Vec<Uuid> = tokens.iter().map(|token| token.job.uuid()).collect();
    let rows =
        sqlx::query(concat!(held_columns!(), "id ", in_ids!("$1"))).bind(ids(&wanted)).fetch_all(db).await?;
    let mut held = rows.iter().map(|row| held_job(row, now)).collect::<Result<Vec<_>>>()?;
    let good: HashSet<LeaseToken> = tokens.iter().copied().collect();
    held.retain(|held| good.contains(&held.job.token));
    Ok(held)
}

fn held_job(row: &Row, now: Timestamp) -> Result<HeldJob> {
    let claim: Uuid = row.try_get("claim")?;
    let mut job = jobs::claimed(row, claim, now)?;
    // Whether a limit had a say in its claim is not kept: to look once too often does no harm.
    job.is_limited = true;
    let started = jobs::instant(row, "started_at")?;
    Ok(HeldJob { job, ran: started.map(|at| now.since(at)).unwrap_or_default() })
}

async fn end(
    db: &mut Connection,
    now: Timestamp,
    settlement: &Settlement,
    effects: &mut Effects,
) -> Result<Settled> {
    let token = settlement.token;
    jobs::lock_links(db, &[token.job]).await?;
    let Some(job) = jobs::lock(db, token.job).await? else { return Ok(Settled::Refused(Revoked::Gone)) };
    if let Err(revoked) = job.held_by(token) {
        return Ok(Settled::Refused(revoked));
    }
    let mut settled = settle::settle(db, now, std::slice::from_ref(settlement), effects).await?;
    // Its worker did not say so: what it says later is not a repetition of this.
    sqlx::query("UPDATE jobs SET epoch = epoch + 1 WHERE id = $1").bind(token.job.uuid()).execute(db).await?;
    effects.revoked(token.job);
    settled.pop().ok_or_else(|| Error::broken("a settlement was not answered"))
}

async fn build_sum(
    db: &mut Connection,
    token: LeaseToken,
    kept: &[String],
) -> Result<std::result::Result<BuildSum, Revoked>> {
    let view = match items::held_view(db, token).await? {
        Ok(view) => view,
        Err(revoked) => return Ok(Err(revoked)),
    };
    let keys =
        |rows: &[Row]| rows.iter().map(|row| Ok(row.try_get("item")?)).collect::<Result<Vec<String>>>();
    let live = sqlx::query("SELECT item FROM view_items WHERE view_id = $1 AND died IS NULL ORDER BY item")
        .bind(view.id.uuid())
        .fetch_all(&mut *db)
        .await?;
    let live = keys(&live)?;
    let put = sqlx::query("SELECT item FROM view_staged WHERE view_id = $1 AND lease_epoch = $2")
        .bind(view.id.uuid())
        .bind(view.versions.lease_epoch)
        .fetch_all(db)
        .await?;
    let put: HashSet<String> = keys(&put)?.into_iter().collect();
    let kept: HashSet<&str> = kept.iter().map(String::as_str).collect();
    let there: HashSet<&str> = live.iter().map(String::as_str).collect();
    if let Some(unknown) = kept.iter().find(|item| !there.contains(**item)) {
        return Err(Error::Invalid(format!(
            "the item `{}` cannot be kept: it is not in the live generation",
            unknown.escape_debug()
        )));
    }
    let count = |many: usize| u64::try_from(many).unwrap_or(u64::MAX);
    let kept_only = kept.iter().filter(|item| !put.contains(**item)).count();
    let removed = live.iter().filter(|item| !kept.contains(item.as_str()) && !put.contains(*item));
    Ok(Ok(BuildSum {
        removed: removed.cloned().collect(),
        total: count(put.len() + kept_only),
        put: count(put.len()),
        kept: count(kept_only),
    }))
}
