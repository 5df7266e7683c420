//! Keeping the tables small and true.

use async_trait::async_trait;
use recache_model::time::Timestamp;
use sqlx::Row as _;

use super::super::{Connection, Driver};
use crate::error::{Error, Result};
use crate::maintenance::Maintenance;

#[async_trait]
impl Maintenance for Driver {
    async fn idempotency_keys_expire(&self, rows_max: u32) -> Result<u64> {
        self.write(work!([] db, now, effects => idempotency_keys_expire(db, now, rows_max).await)).await
    }
}

async fn idempotency_keys_expire(db: &mut Connection, now: Timestamp, rows_max: u32) -> Result<u64> {
    let gone = sqlx::query(
        "DELETE FROM idempotency_keys WHERE (namespace, key) IN (SELECT namespace, key FROM idempotency_keys \
         WHERE expires_at <= $1 ORDER BY expires_at LIMIT $2)",
    )
    .bind(now.micros())
    .bind(i64::from(rows_max))
    .execute(db)
    .await?;
    Ok(gone.rows_affected())
}

/// 0 where nobody has migrated yet.
pub(in super::super) async fn schema_version(db: &mut Connection) -> Result<i64> {
    let found = sqlx::query("SELECT MAX(version) AS version FROM _sqlx_migrations WHERE success")
        .fetch_one(db)
        .await
        .map_err(Error::from);
    match found {
        Ok(row) => Ok(row.try_get::<Option<i64>, _>("version")?.unwrap_or(0)),
        Err(error) if error.is_missing_table() => Ok(0),
        Err(error) => Err(error),
    }
}
