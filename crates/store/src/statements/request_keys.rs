//! Keys of requests.

use std::time::Duration;

use async_trait::async_trait;
use recache_model::time::Timestamp;
use recache_model::unique::{IDEMPOTENCY_KEEP, key_problem};
use sqlx::Row as _;
use uuid::Uuid;

use super::super::{Connection, Driver};
use crate::error::{Error, Result};
use crate::request_keys::{ANSWER_BYTES_MAX, Begun, KeptAnswer, NewRequest, RequestKeys};

#[async_trait]
impl RequestKeys for Driver {
    async fn request_begin(&self, request: NewRequest) -> Result<Begun> {
        if let Some(problem) = key_problem("idempotency key", &request.key) {
            return Err(Error::Invalid(problem));
        }
        self.write(work!([request] db, now, effects => begin(db, now, &request).await)).await
    }

    async fn request_hold(&self, caller: &str, key: &str, seed: Uuid, hold: Duration) -> Result<bool> {
        let (caller, key) = (caller.to_owned(), key.to_owned());
        self.write(work!([caller, key] db, now, effects => {
            let held = sqlx::query(
                "UPDATE request_keys SET held_until = $4 WHERE caller = $1 AND key = $2 AND seed = $3 AND status IS NULL",
            )
            .bind(&*caller)
            .bind(&*key)
            .bind(seed)
            .bind(now.plus(hold).micros())
            .execute(db)
            .await?;
            Ok(held.rows_affected() > 0)
        }))
        .await
    }

    async fn request_end(&self, caller: &str, key: &str, seed: Uuid, answer: KeptAnswer) -> Result<()> {
        if answer.body.len() > ANSWER_BYTES_MAX {
            return Err(Error::Invalid(format!("an answer of {} bytes is not kept", answer.body.len())));
        }
        let (caller, key) = (caller.to_owned(), key.to_owned());
        self.write(work!([caller, key, answer] db, now, effects => {
            sqlx::query(
                "UPDATE request_keys SET status = $4, body = $5, location = $6 WHERE caller = $1 AND key = $2 AND seed = $3",
            )
            .bind(&*caller)
            .bind(&*key)
            .bind(seed)
            .bind(i64::from(answer.status))
            .bind(&answer.body)
            .bind(&answer.location)
            .execute(db)
            .await?;
            Ok(())
        }))
        .await
    }

    async fn request_release(&self, caller: &str, key: &str, seed: Uuid, is_undone: bool) -> Result<()> {
        let (caller, key) = (caller.to_owned(), key.to_owned());
        self.write(work!([caller, key] db, now, effects => {
            let released = if is_undone {
                sqlx::query("DELETE FROM request_keys WHERE caller = $1 AND key = $2 AND seed = $3 AND status IS NULL")
            } else {
                sqlx::query("UPDATE request_keys SET held_until = 0 WHERE caller = $1 AND key = $2 AND seed = $3 AND status IS NULL")
            };
            released.bind(&*caller).bind(&*key).bind(seed).execute(db).await?;
            Ok(())
        }))
        .await
    }
}

async fn begin(db: &mut Connection, now: Timestamp, request: &NewRequest) -> Result<Begun> {
    let held_until = now.plus(request.hold).micros();
    let fresh = sqlx::query(
        "INSERT INTO request_keys (caller, key, fingerprint, seed, held_until, expires_at) VALUES ($1, $2, $3, $4, $5, $6) \
         ON CONFLICT (caller, key) DO UPDATE SET fingerprint = excluded.fingerprint, seed = excluded.seed, \
         held_until = excluded.held_until, expires_at = excluded.expires_at, status = NULL, body = NULL, location = NULL \
         WHERE request_keys.expires_at <= $7 RETURNING seed",
    )
    .bind(&request.caller)
    .bind(&request.key)
    .bind(&request.fingerprint)
    .bind(request.seed)
    .bind(held_until)
    .bind(now.plus(IDEMPOTENCY_KEEP).micros())
    .bind(now.micros())
    .fetch_optional(&mut *db)
    .await?;
    if fresh.is_some() {
        return Ok(Begun::Now(request.seed));
    }
    let known = sqlx::query(concat!(
        "SELECT fingerprint, seed, held_until, status, body, location FROM request_keys WHERE caller = $1 AND key = $2",
        for_update!()
    ))
    .bind(&request.caller)
    .bind(&request.key)
    .fetch_optional(&mut *db)
    .await?;
    // Let go of between the two statements: whoever comes next takes it up.
    let Some(known) = known else { return Ok(Begun::Running) };
    if known.try_get::<String, _>("fingerprint")? != request.fingerprint {
        return Ok(Begun::Different);
    }
    if let Some(status) = known.try_get::<Option<i64>, _>("status")? {
        let status = u16::try_from(status).map_err(|_| Error::broken(format!("status is {status}")))?;
        return Ok(Begun::Done(KeptAnswer {
            status,
            body: known.try_get::<Option<String>, _>("body")?.unwrap_or_default(),
            location: known.try_get("location")?,
        }));
    }
    if known.try_get::<i64, _>("held_until")? > now.micros() {
        return Ok(Begun::Running);
    }
    sqlx::query("UPDATE request_keys SET held_until = $3 WHERE caller = $1 AND key = $2")
        .bind(&request.caller)
        .bind(&request.key)
        .bind(held_until)
        .execute(db)
        .await?;
    Ok(Begun::Now(known.try_get("seed")?))
}

/// Removes those whose time is over.
pub(super) async fn expire(db: &mut Connection, now: Timestamp, rows_max: u32) -> Result<u64> {
    let gone = sqlx::query(
        "DELETE FROM request_keys WHERE (caller, key) IN (SELECT caller, key FROM request_keys \
         WHERE expires_at <= $1 ORDER BY expires_at LIMIT $2)",
    )
    .bind(now.micros())
    .bind(i64::from(rows_max))
    .execute(db)
    .await?;
    Ok(gone.rows_affected())
}
