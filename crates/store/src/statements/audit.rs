//! What operators did.

use async_trait::async_trait;
use recache_model::time::Timestamp;
use sqlx::Row as _;
use uuid::Uuid;

use super::super::{Connection, Driver, Row};
use crate::audit::{AUDIT_KEEP, AuditFilter, AuditOutcome, AuditRecord, Audits, NewAudit, STATE_BYTES_MAX};
use crate::error::{Error, Result};
use crate::queues::Word;

#[async_trait]
impl Audits for Driver {
    async fn audit_begin(&self, audit: NewAudit) -> Result<()> {
        audit.word.check()?;
        check_state(audit.before.as_deref())?;
        self.write(work!([audit] db, now, effects => {
            sqlx::query(
                "INSERT INTO audit_rows (id, at, actor, action, namespace, target, reason, request_id, before, outcome) \
                 VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, 'begun')",
            )
            .bind(audit.id)
            .bind(now.micros())
            .bind(&audit.word.actor)
            .bind(&audit.action)
            .bind(&audit.namespace)
            .bind(&audit.target)
            .bind(&audit.word.reason)
            .bind(&audit.request_id)
            .bind(&audit.before)
            .execute(db)
            .await?;
            Ok(())
        }))
        .await
    }

    async fn audit_end(&self, id: Uuid, outcome: AuditOutcome, after: Option<String>) -> Result<()> {
        check_state(after.as_deref())?;
        self.write(work!([after] db, now, effects => {
            sqlx::query("UPDATE audit_rows SET outcome = $2, after = $3 WHERE id = $1")
                .bind(id)
                .bind(outcome.as_str())
                .bind(&*after)
                .execute(db)
                .await?;
            Ok(())
        }))
        .await
    }

    async fn audits_list(&self, filter: AuditFilter) -> Result<Vec<AuditRecord>> {
        self.read(look!([filter] db, now => {
            let rows = sqlx::query(
                "SELECT id, at, actor, action, namespace, target, reason, request_id, before, after, outcome FROM audit_rows \
                 WHERE (CAST($1 AS TEXT) IS NULL OR namespace = $1) AND (CAST($2 AS TEXT) IS NULL OR actor = $2) \
                 AND (CAST($3 AS TEXT) IS NULL OR target = $3) AND ($4 OR id < $5) ORDER BY id DESC LIMIT $6",
            )
            .bind(&filter.namespace)
            .bind(&filter.actor)
            .bind(&filter.target)
            .bind(filter.before.is_none())
            .bind(filter.before.unwrap_or(Uuid::nil()))
            .bind(i64::from(filter.rows_max))
            .fetch_all(db)
            .await?;
            rows.iter().map(record).collect()
        }))
        .await
    }
}

/// Removes rows whose time is over. They are found by their ids, which begin with the millisecond in which they were made.
pub(super) async fn expire(db: &mut Connection, now: Timestamp, rows_max: u32) -> Result<u64> {
    let ms = u128::try_from(now.minus(AUDIT_KEEP).micros() / 1_000).unwrap_or(0);
    let gone = sqlx::query(
        "DELETE FROM audit_rows WHERE id IN (SELECT id FROM audit_rows WHERE id < $1 ORDER BY id LIMIT $2)",
    )
    .bind(Uuid::from_u128(ms << 80))
    .bind(i64::from(rows_max))
    .execute(db)
    .await?;
    Ok(gone.rows_affected())
}

fn check_state(state: Option<&str>) -> Result<()> {
    match state {
        Some(state) if state.len() > STATE_BYTES_MAX => {
            Err(Error::Invalid(format!("a state of {} bytes is too long for the audit", state.len())))
        }
        _ => Ok(()),
    }
}

fn record(row: &Row) -> Result<AuditRecord> {
    let outcome: String = row.try_get("outcome")?;
    let outcome = AuditOutcome::ALL
        .into_iter()
        .find(|known| known.as_str() == outcome)
        .ok_or_else(|| Error::broken(format!("outcome is {outcome}")))?;
    let (actor, reason): (String, String) = (row.try_get("actor")?, row.try_get("reason")?);
    Ok(AuditRecord {
        new: NewAudit {
            id: row.try_get("id")?,
            word: Word::new(actor, reason),
            action: row.try_get("action")?,
            namespace: row.try_get("namespace")?,
            target: row.try_get("target")?,
            request_id: row.try_get("request_id")?,
            before: row.try_get("before")?,
        },
        at: Timestamp::from_micros(row.try_get("at")?),
        outcome,
        after: row.try_get("after")?,
    })
}
