//! What a build knows of items that exist, page by page.

use async_trait::async_trait;
use sqlx::Row as _;
use uuid::Uuid;

use super::super::{Connection, Driver, Row};
use super::{items, jobs};
use crate::error::{Error, Result};
use crate::known_items::{KNOWN_PAGE_ROWS, KnownItems, KnownPages, KnownPlace, KnownStarts};
use crate::records::{BuildStart, ItemMark, LeaseToken, Revoked};

// The end of a range stands by itself in a statement, or not at all: beside an `OR` no index ends a scan there, and each page would be read with
// all that follow it.

/// There is no end; says of what type the parameter is that stands for it.
macro_rules! to_the_end {
    () => {
        "CAST($3 AS TEXT) IS NULL"
    };
}

macro_rules! live_rows {
    ($end:expr) => {
        concat!(
            "SELECT item, CASE WHEN gone_at IS NULL THEN fingerprint END AS fingerprint, digest, gone_at IS NOT NULL AS is_gone \
             FROM view_items WHERE view_id = $1 AND died IS NULL AND item >= $2 AND ",
            $end,
            " AND $4 >= 0 ORDER BY item"
        )
    };
}

macro_rules! staged_rows {
    ($end:expr) => {
        concat!(
            "SELECT item, fingerprint, digest, FALSE AS is_gone FROM view_staged WHERE view_id = $1 AND item >= $2 AND ",
            $end,
            " AND lease_epoch <> $4 ORDER BY item"
        )
    };
}

macro_rules! put_rows {
    ($end:expr) => {
        concat!(
            "SELECT item, EXISTS (SELECT 1 FROM view_staged s WHERE s.view_id = $1 AND s.item = view_items.item AND s.lease_epoch = $4) AS is_put \
             FROM view_items WHERE view_id = $1 AND died IS NULL AND item >= $2 AND ",
            $end,
            " ORDER BY item"
        )
    };
}

type Held<T> = std::result::Result<T, Revoked>;

#[async_trait]
impl KnownItems for Driver {
    async fn build_open(&self, token: LeaseToken, known_max: u32) -> Result<Held<BuildStart>> {
        self.write(work!([] db, now, effects => items::begin(db, now, token, Some(known_max)).await)).await
    }

    async fn known_pages(&self, token: LeaseToken) -> Result<Held<KnownPages>> {
        self.read(look!([] db, now => pages(db, token).await)).await
    }

    async fn known_read(
        &self,
        token: LeaseToken,
        place: KnownPlace,
        from: String,
        until: Option<String>,
    ) -> Result<Held<Vec<ItemMark>>> {
        self.read(look!([from, until] db, now => read(db, token, place, &from, until.as_deref()).await)).await
    }

    async fn known_put(
        &self,
        token: LeaseToken,
        from: String,
        until: Option<String>,
    ) -> Result<Held<Vec<(String, bool)>>> {
        self.read(look!([from, until] db, now => put(db, token, &from, until.as_deref()).await)).await
    }

    async fn known_new(&self, token: LeaseToken) -> Result<Held<u64>> {
        self.read(look!([] db, now => new(db, token).await)).await
    }
}

/// The view that the token builds, and the epoch of its build. Nothing is locked: once the token is void, whatever was read is for nothing.
async fn built(db: &mut Connection, token: LeaseToken) -> Result<Held<(Uuid, i64)>> {
    if let Some((_, revoked)) = jobs::revoked(db, &[token]).await?.pop() {
        return Ok(Err(revoked));
    }
    let row = sqlx::query(
        "SELECT v.id, v.lease_epoch FROM jobs j JOIN views v ON v.id = j.view_id WHERE j.id = $1",
    )
    .bind(token.job.uuid())
    .fetch_optional(db)
    .await?;
    match row {
        Some(row) => Ok(Ok((row.try_get("id")?, row.try_get("lease_epoch")?))),
        None => Err(Error::Invalid(format!("job `{}` builds no view", token.job))),
    }
}

async fn pages(db: &mut Connection, token: LeaseToken) -> Result<Held<KnownPages>> {
    let (view, epoch) = match built(db, token).await? {
        Ok(built) => built,
        Err(revoked) => return Ok(Err(revoked)),
    };
    let mut found = Vec::with_capacity(2);
    for (count, starts) in [
        (
            "SELECT CAST(COUNT(*) AS BIGINT) AS count FROM view_items WHERE view_id = $1 AND died IS NULL AND $2 >= 0",
            "SELECT item FROM (SELECT item, ROW_NUMBER() OVER (ORDER BY item) AS place FROM view_items \
             WHERE view_id = $1 AND died IS NULL) AS placed WHERE (place - 1) % $3 = 0 AND $2 >= 0 ORDER BY item",
        ),
        (
            "SELECT CAST(COUNT(*) AS BIGINT) AS count FROM view_staged WHERE view_id = $1 AND lease_epoch <> $2",
            "SELECT item FROM (SELECT item, ROW_NUMBER() OVER (ORDER BY item) AS place FROM view_staged \
             WHERE view_id = $1 AND lease_epoch <> $2) AS placed WHERE (place - 1) % $3 = 0 ORDER BY item",
        ),
    ] {
        let count: i64 =
            sqlx::query(count).bind(view).bind(epoch).fetch_one(&mut *db).await?.try_get("count")?;
        let rows = sqlx::query(starts)
            .bind(view)
            .bind(epoch)
            .bind(i64::from(KNOWN_PAGE_ROWS))
            .fetch_all(&mut *db)
            .await?;
        let starts = rows.iter().map(|row| Ok(row.try_get("item")?)).collect::<Result<_>>()?;
        found.push(KnownStarts { count: u64::try_from(count).unwrap_or(0), starts });
    }
    let staged = found.pop().unwrap_or_default();
    Ok(Ok(KnownPages { live: found.pop().unwrap_or_default(), staged }))
}

async fn read(
    db: &mut Connection,
    token: LeaseToken,
    place: KnownPlace,
    from: &str,
    until: Option<&str>,
) -> Result<Held<Vec<ItemMark>>> {
    let (view, epoch) = match built(db, token).await? {
        Ok(built) => built,
        Err(revoked) => return Ok(Err(revoked)),
    };
    let statement = match (place, until) {
        (KnownPlace::Live, Some(_)) => live_rows!("item < $3"),
        (KnownPlace::Live, None) => live_rows!(to_the_end!()),
        (KnownPlace::Staged, Some(_)) => staged_rows!("item < $3"),
        (KnownPlace::Staged, None) => staged_rows!(to_the_end!()),
    };
    let rows = sqlx::query(statement).bind(view).bind(from).bind(until).bind(epoch).fetch_all(db).await?;
    rows.iter().map(items::mark).collect::<Result<_>>().map(Ok)
}

async fn put(
    db: &mut Connection,
    token: LeaseToken,
    from: &str,
    until: Option<&str>,
) -> Result<Held<Vec<(String, bool)>>> {
    let (view, epoch) = match built(db, token).await? {
        Ok(built) => built,
        Err(revoked) => return Ok(Err(revoked)),
    };
    let rows = sqlx::query(match until {
        Some(_) => put_rows!("item < $3"),
        None => put_rows!(to_the_end!()),
    })
    .bind(view)
    .bind(from)
    .bind(until)
    .bind(epoch)
    .fetch_all(db)
    .await?;
    let marked = |row: &Row| Ok((row.try_get("item")?, row.try_get("is_put")?));
    rows.iter().map(marked).collect::<Result<_>>().map(Ok)
}

async fn new(db: &mut Connection, token: LeaseToken) -> Result<Held<u64>> {
    let (view, epoch) = match built(db, token).await? {
        Ok(built) => built,
        Err(revoked) => return Ok(Err(revoked)),
    };
    let count: i64 = sqlx::query(
        "SELECT CAST(COUNT(*) AS BIGINT) AS count FROM view_staged s WHERE s.view_id = $1 AND s.lease_epoch = $2 \
         AND NOT EXISTS (SELECT 1 FROM view_items i WHERE i.view_id = $1 AND i.item = s.item AND i.died IS NULL)",
    )
    .bind(view)
    .bind(epoch)
    .fetch_one(db)
    .await?
    .try_get("count")?;
    Ok(Ok(u64::try_from(count).unwrap_or(0)))
}
