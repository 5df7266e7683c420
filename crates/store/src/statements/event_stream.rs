//! The stream of events: places are given, read, and forgotten.

use std::time::Duration;

use async_trait::async_trait;
use recache_model::event::{EventFilter, state_changes_of};
use recache_model::time::Timestamp;
use recache_model::unique::key_problem;
use sqlx::Row as _;
use uuid::Uuid;

use super::super::{Connection, Driver, ids};
use super::{events, jobs, subscribers};
use crate::error::{Error, Result};
use crate::event_stream::{EventStream, LISTENERS_MAX, PlacedEvent, StreamExtent};

#[async_trait]
impl EventStream for Driver {
    async fn stream_extent(&self, types: Vec<String>) -> Result<StreamExtent> {
        self.read(look!([types] db, now => extent(db, &types).await)).await
    }

    async fn stream_read(&self, after: i64, rows_max: u32) -> Result<Vec<PlacedEvent>> {
        self.read(look!([] db, now => events::placed(db, after, rows_max).await)).await
    }

    async fn stream_listen(&self, listener: &str, types: Vec<String>, keep: Duration) -> Result<()> {
        let listener = listener.to_owned();
        if let Some(problem) = key_problem("name of a listener", &listener) {
            return Err(Error::Invalid(problem));
        }
        EventFilter::of(types.iter().cloned())
            .check()
            .map_err(|problem| Error::Invalid(problem.to_string()))?;
        self.write(
            work!([listener, types] db, now, effects => listen(db, now, &listener, &types, keep).await),
        )
        .await
    }
}

/// In one statement, so that all of it is of one moment.
async fn extent(db: &mut Connection, types: &[String]) -> Result<StreamExtent> {
    let rows = sqlx::query(
        "SELECT s.last_place, s.removed_through, w.type, w.since_place FROM event_stream s LEFT JOIN events_wanted w \
         ON 1 = 1 WHERE s.id = 1",
    )
    .fetch_all(db)
    .await?;
    let first = rows.first().ok_or_else(|| Error::broken("the row of the stream of events is gone"))?;
    let (last, removed_through) = (first.try_get("last_place")?, first.try_get("removed_through")?);
    let mut unwritten_through = Some(0);
    for wanted in state_changes_of(types.iter().map(String::as_str)) {
        let mut since = None;
        for row in &rows {
            if row.try_get::<Option<String>, _>("type")?.as_deref() == Some(wanted) {
                since = row.try_get::<Option<i64>, _>("since_place")?;
            }
        }
        unwritten_through = unwritten_through.zip(since).map(|(one, other): (i64, i64)| one.max(other));
    }
    Ok(StreamExtent { last, removed_through, unwritten_through })
}

/// Gives places to events that are being handed on. The row stays locked until the transaction ends: the next one's places are
/// not seen before these.
pub(super) async fn place(db: &mut Connection, now: Timestamp, of: &[Uuid]) -> Result<()> {
    let count = i64::try_from(of.len()).unwrap_or(i64::MAX);
    let before = advance(db, count).await? - count;
    sqlx::query(concat!(
        "UPDATE events SET routed_at = $1, place = $2 + n.number FROM (SELECT id, row_number() OVER (ORDER BY at, id) \
         AS number FROM events WHERE id ",
        in_ids!("$3"),
        ") AS n WHERE events.id = n.id"
    ))
    .bind(now.micros())
    .bind(before)
    .bind(ids(of))
    .execute(db)
    .await?;
    Ok(())
}

/// Leaves out places. Answers the last one that is given now.
pub(super) async fn advance(db: &mut Connection, by: i64) -> Result<i64> {
    let row =
        sqlx::query("UPDATE event_stream SET last_place = last_place + $1 WHERE id = 1 RETURNING last_place")
            .bind(by)
            .fetch_one(db)
            .await?;
    Ok(row.try_get("last_place")?)
}

/// Events up to this place are no longer all there.
pub(super) async fn removed(db: &mut Connection, through: i64) -> Result<()> {
    sqlx::query("UPDATE event_stream SET removed_through = $1 WHERE id = 1 AND removed_through < $1")
        .bind(through)
        .execute(db)
        .await?;
    Ok(())
}

async fn listen(
    db: &mut Connection,
    now: Timestamp,
    listener: &str,
    types: &[String],
    keep: Duration,
) -> Result<()> {
    let row = sqlx::query(
        "SELECT CAST(count(*) AS BIGINT) AS count FROM event_listeners WHERE name <> $1 AND until > $2",
    )
    .bind(listener)
    .bind(now.micros())
    .fetch_one(&mut *db)
    .await?;
    if row.try_get::<i64, _>("count")? >= i64::from(LISTENERS_MAX) {
        return Err(Error::Conflict(format!(
            "{LISTENERS_MAX} listeners read the events already; that is the limit"
        )));
    }
    sqlx::query(
        "INSERT INTO event_listeners (name, types, until) VALUES ($1, $2, $3) \
         ON CONFLICT (name) DO UPDATE SET types = excluded.types, until = excluded.until",
    )
    .bind(listener)
    .bind(jobs::to_json(&types)?)
    .bind(now.plus(keep).micros())
    .execute(&mut *db)
    .await?;
    subscribers::watch(db, now).await
}

/// Makes whoever changes what is wanted wait for each other: of two that each look before the other has committed, one would take
/// away what the other one has just asked for.
pub(super) async fn lock(db: &mut Connection) -> Result<()> {
    sqlx::query(concat!("SELECT id FROM event_stream WHERE id = 1", for_update!())).fetch_one(db).await?;
    Ok(())
}

/// What those ask for that still listen. Those that do not any more are forgotten.
pub(super) async fn listened(db: &mut Connection, now: Timestamp) -> Result<Vec<String>> {
    sqlx::query("DELETE FROM event_listeners WHERE until <= $1").bind(now.micros()).execute(&mut *db).await?;
    let rows = sqlx::query("SELECT types FROM event_listeners").fetch_all(db).await?;
    let mut patterns = Vec::new();
    for row in &rows {
        patterns.extend(jobs::json::<Vec<String>>("types", row.try_get("types")?)?);
    }
    Ok(patterns)
}
