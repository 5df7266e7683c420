//! Keys of those who ask over HTTP.

use async_trait::async_trait;
use recache_model::time::Timestamp;
use sqlx::Row as _;

use super::super::{Connection, Driver, Row};
use super::jobs::{instant, json, to_json};
use crate::api_keys::{ApiKeyRecord, ApiKeys, DIGEST_BYTES, KEYS_LISTED_MAX, NewApiKey};
use crate::error::{Error, Result};
use crate::queues::Word;

/// Longest name of a key, in bytes.
const NAME_BYTES_MAX: usize = 128;

macro_rules! columns {
    () => {
        "id, name, salt, digest, scopes, created_at, created_by, expires_at, last_used_at, revoked_at, revoked_by, revoke_reason"
    };
}

#[async_trait]
impl ApiKeys for Driver {
    async fn api_key_put(&self, key: NewApiKey) -> Result<ApiKeyRecord> {
        check(&key)?;
        self.write(work!([key] db, now, effects => put(db, now, &key).await)).await
    }

    async fn api_key_get(&self, id: &str) -> Result<ApiKeyRecord> {
        let id = id.to_owned();
        self.read(look!([id] db, now => get(db, &id).await)).await
    }

    async fn api_keys_list(&self) -> Result<Vec<ApiKeyRecord>> {
        self.read(look!([] db, now => {
            let rows = sqlx::query(concat!("SELECT ", columns!(), " FROM api_keys ORDER BY created_at DESC, id LIMIT $1"))
                .bind(KEYS_LISTED_MAX)
                .fetch_all(db)
                .await?;
            rows.iter().map(record).collect()
        }))
        .await
    }

    async fn api_key_revoke(&self, id_or_name: &str, word: Word) -> Result<bool> {
        word.check()?;
        let asked = id_or_name.to_owned();
        self.write(work!([asked, word] db, now, effects => revoke(db, now, &asked, &word).await)).await
    }

    async fn api_key_used(&self, id: &str) -> Result<()> {
        let id = id.to_owned();
        self.write(work!([id] db, now, effects => {
            sqlx::query("UPDATE api_keys SET last_used_at = $2 WHERE id = $1")
                .bind(&*id)
                .bind(now.micros())
                .execute(db)
                .await?;
            Ok(())
        }))
        .await
    }
}

fn check(key: &NewApiKey) -> Result<()> {
    let mut problems = Vec::new();
    for (what, text) in [("id", &key.id), ("name", &key.name), ("creator", &key.created_by)] {
        if text.is_empty() || text.len() > 2 * NAME_BYTES_MAX || text.contains('\0') {
            problems
                .push(format!("{what} of the key must have 1 to {} bytes and no NUL", 2 * NAME_BYTES_MAX));
        }
    }
    if key.scopes.is_empty() {
        problems.push("a key without a scope is good for nothing".to_owned());
    }
    if problems.is_empty() { Ok(()) } else { Err(Error::Invalid(problems.join("; "))) }
}

async fn put(db: &mut Connection, now: Timestamp, key: &NewApiKey) -> Result<ApiKeyRecord> {
    let stored = sqlx::query(
        "INSERT INTO api_keys (id, name, salt, digest, scopes, created_at, created_by, expires_at) \
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8) ON CONFLICT DO NOTHING",
    )
    .bind(&key.id)
    .bind(&key.name)
    .bind(key.salt.as_slice())
    .bind(key.digest.as_slice())
    .bind(to_json(&key.scopes)?)
    .bind(now.micros())
    .bind(&key.created_by)
    .bind(key.lifetime.map(|lifetime| now.plus(lifetime).micros()))
    .execute(&mut *db)
    .await?
    .rows_affected();
    if stored == 0 {
        return Err(Error::Conflict(format!(
            "a key called `{}` is there: revoke it, or choose another name",
            key.name
        )));
    }
    get(db, &key.id).await
}

async fn get(db: &mut Connection, id: &str) -> Result<ApiKeyRecord> {
    let row = sqlx::query(concat!("SELECT ", columns!(), " FROM api_keys WHERE id = $1"))
        .bind(id)
        .fetch_optional(db)
        .await?
        .ok_or_else(|| Error::not_found("API key", id))?;
    record(&row)
}

async fn revoke(db: &mut Connection, now: Timestamp, asked: &str, word: &Word) -> Result<bool> {
    let revoked = sqlx::query(
        "UPDATE api_keys SET revoked_at = $2, revoked_by = $3, revoke_reason = $4 \
         WHERE (id = $1 OR name = $1) AND revoked_at IS NULL",
    )
    .bind(asked)
    .bind(now.micros())
    .bind(&word.actor)
    .bind(&word.reason)
    .execute(&mut *db)
    .await?
    .rows_affected();
    if revoked > 0 {
        return Ok(true);
    }
    let known = sqlx::query("SELECT id FROM api_keys WHERE id = $1 OR name = $1 LIMIT 1")
        .bind(asked)
        .fetch_optional(db)
        .await?;
    known.map(|_| false).ok_or_else(|| Error::not_found("API key", asked))
}

fn record(row: &Row) -> Result<ApiKeyRecord> {
    let bytes = |column: &str| -> Result<[u8; DIGEST_BYTES]> {
        let bytes: Vec<u8> = row.try_get(column)?;
        bytes.try_into().map_err(|_| Error::broken(format!("api_keys.{column} has another length")))
    };
    let revoked = match instant(row, "revoked_at")? {
        Some(at) => {
            let (actor, reason): (String, String) =
                (row.try_get("revoked_by")?, row.try_get("revoke_reason")?);
            Some((at, Word::new(actor, reason)))
        }
        None => None,
    };
    Ok(ApiKeyRecord {
        id: row.try_get("id")?,
        name: row.try_get("name")?,
        salt: bytes("salt")?,
        digest: bytes("digest")?,
        scopes: json("scopes", row.try_get("scopes")?)?,
        created_at: Timestamp::from_micros(row.try_get("created_at")?),
        created_by: row.try_get("created_by")?,
        expires_at: instant(row, "expires_at")?,
        last_used_at: instant(row, "last_used_at")?,
        revoked,
    })
}
