//! Which entries of the caches are still reachable: one record for each key prefix, one epoch for each slot.
//!
//! An epoch is the version of the record at which its slot was raised last, so that what is new since a version is found
//! without a log. Who raises holds the record's row until his commit: versions are committed in their order.

use sqlx::Row as _;
use uuid::Uuid;

use super::super::{Connection, numbers};
use super::effects::Effects;
use crate::error::{Error, Result};
use crate::records::{CacheMark, CacheRaise, CacheRecord};

/// Longer than any prefix of a key.
const PREFIX_BYTES_MAX: usize = 200;
/// One more than the largest slot that fits.
const SLOTS_MAX: u16 = 1 << 15;

/// What a look at the record gave.
#[derive(Debug)]
pub(in super::super) enum Seen {
    Unchanged,
    Changed(CacheRecord),
    /// There is none, or an older one than somebody has seen before.
    Lost,
}

/// Costs one indexed row when nothing has changed.
pub(in super::super) async fn read(db: &mut Connection, prefix: &str, known: CacheMark) -> Result<Seen> {
    check_prefix(prefix)?;
    let row = sqlx::query("SELECT incarnation, version FROM cache_record WHERE prefix = $1")
        .bind(prefix)
        .fetch_optional(&mut *db)
        .await?;
    let Some(row) = row else { return Ok(Seen::Lost) };
    let mark = CacheMark {
        incarnation: unsigned(row.try_get("incarnation")?)?,
        version: unsigned(row.try_get("version")?)?,
    };
    if mark == known {
        return Ok(Seen::Unchanged);
    }
    if mark.incarnation == known.incarnation && mark.version < known.version {
        return Ok(Seen::Lost);
    }
    match record(db, prefix, known).await? {
        Some(record) => Ok(Seen::Changed(record)),
        None => Ok(Seen::Lost),
    }
}

/// Makes the record if there is none. One that is older than `known` has gone back in time, with a database that was
/// restored or a standby that took over: it becomes another incarnation.
pub(in super::super) async fn begin(
    db: &mut Connection,
    prefix: &str,
    known: CacheMark,
    effects: &mut Effects,
) -> Result<CacheRecord> {
    check_prefix(prefix)?;
    let (known_incarnation, known_version) = (signed(known.incarnation)?, signed(known.version)?);
    let begun = sqlx::query(
        "INSERT INTO cache_record (prefix, incarnation, version) VALUES ($1, $2, 1) ON CONFLICT (prefix) DO UPDATE \
         SET incarnation = excluded.incarnation, version = cache_record.version + 1 \
         WHERE cache_record.incarnation = $3 AND cache_record.version < $4",
    )
    .bind(prefix)
    .bind(draw_incarnation())
    .bind(known_incarnation)
    .bind(known_version)
    .execute(&mut *db)
    .await?
    .rows_affected();
    let record = record(db, prefix, known).await?.ok_or_else(|| {
        Error::broken(format!("no record of epochs for `{prefix}` although it was just made"))
    })?;
    if begun > 0 {
        effects.cache_raised(prefix, record.mark);
    }
    Ok(record)
}

/// Raises the epochs of the slots, in the transaction of the caller: its last statements, because others wait for the
/// record from now on.
pub(in super::super) async fn raise(
    db: &mut Connection,
    raise: &CacheRaise,
    known: CacheMark,
    effects: &mut Effects,
) -> Result<CacheRecord> {
    let CacheRaise { prefix, slots } = raise;
    check_prefix(prefix)?;
    if let Some(slot) = slots.iter().find(|slot| **slot >= SLOTS_MAX) {
        return Err(Error::Invalid(format!("slot {slot} is out of range: there are {SLOTS_MAX} of them")));
    }
    let (known_incarnation, known_version) = (signed(known.incarnation)?, signed(known.version)?);
    let row = sqlx::query(
        "INSERT INTO cache_record (prefix, incarnation, version) VALUES ($1, $2, 1) ON CONFLICT (prefix) DO UPDATE \
         SET version = cache_record.version + 1, incarnation = CASE WHEN cache_record.incarnation = $3 \
         AND cache_record.version < $4 THEN excluded.incarnation ELSE cache_record.incarnation END RETURNING version",
    )
    .bind(prefix)
    .bind(draw_incarnation())
    .bind(known_incarnation)
    .bind(known_version)
    .fetch_one(&mut *db)
    .await?;
    let version: i64 = row.try_get("version")?;
    sqlx::query(concat!(
        "INSERT INTO cache_epochs (prefix, slot, epoch) SELECT DISTINCT CAST($1 AS TEXT), n.value, \
         CAST($3 AS BIGINT) FROM ",
        numbers_of!("$2"),
        " WHERE TRUE ON CONFLICT (prefix, slot) DO UPDATE SET epoch = excluded.epoch"
    ))
    .bind(prefix)
    .bind(numbers(slots))
    .bind(version)
    .execute(&mut *db)
    .await?;
    let record = record(db, prefix, known).await?.ok_or_else(|| {
        Error::broken(format!("no record of epochs for `{prefix}` although it was just raised"))
    })?;
    effects.cache_raised(prefix, record.mark);
    Ok(record)
}

/// In one statement, so that the version is that of the epochs.
async fn record(db: &mut Connection, prefix: &str, known: CacheMark) -> Result<Option<CacheRecord>> {
    let rows = sqlx::query(
        "SELECT r.incarnation, r.version, e.slot, e.epoch FROM cache_record r LEFT JOIN cache_epochs e \
         ON e.prefix = r.prefix AND (r.incarnation <> $2 OR e.epoch > $3) WHERE r.prefix = $1",
    )
    .bind(prefix)
    .bind(signed(known.incarnation)?)
    .bind(signed(known.version)?)
    .fetch_all(db)
    .await?;
    let Some(first) = rows.first() else { return Ok(None) };
    let mark = CacheMark {
        incarnation: unsigned(first.try_get("incarnation")?)?,
        version: unsigned(first.try_get("version")?)?,
    };
    let mut epochs = Vec::with_capacity(rows.len());
    for row in &rows {
        let Some(slot) = row.try_get::<Option<i64>, _>("slot")? else { continue };
        let slot =
            u16::try_from(slot).map_err(|_| Error::broken(format!("slot {slot} of a cache's epochs")))?;
        epochs.push((slot, unsigned(row.try_get("epoch")?)?));
    }
    Ok(Some(CacheRecord { mark, epochs }))
}

/// 62 bits of chance, and never 0.
fn draw_incarnation() -> i64 {
    let (high, _) = Uuid::new_v4().as_u64_pair();
    i64::try_from(high >> 1).unwrap_or(i64::MAX).max(1)
}

fn check_prefix(prefix: &str) -> Result<()> {
    if prefix.len() > PREFIX_BYTES_MAX {
        return Err(Error::Invalid(format!(
            "a cache's key prefix has {} bytes; at most {PREFIX_BYTES_MAX} fit",
            prefix.len()
        )));
    }
    Ok(())
}

fn signed(number: u64) -> Result<i64> {
    i64::try_from(number).map_err(|_| Error::Invalid(format!("{number} is no number of a record of epochs")))
}

fn unsigned(number: i64) -> Result<u64> {
    u64::try_from(number).map_err(|_| Error::broken(format!("{number} in a record of epochs")))
}
