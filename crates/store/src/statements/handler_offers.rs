//! Which worker can do what, and what is done by whom.

use std::collections::BTreeMap;

use async_trait::async_trait;
use recache_model::handlers::{HandlerOffer, HandlerUsers, Worker};
use recache_model::ids::SessionId;
use recache_model::time::Timestamp;
use recache_model::unique::PartsHash;
use sqlx::Row as _;

use super::super::{Connection, Driver, Row};
use super::{jobs, sessions};
use crate::error::Result;
use crate::handler_offers::{HandlerOffers, USERS_ROWS_MAX};
use crate::remote_workers::RemoteHandler;

#[async_trait]
impl HandlerOffers for Driver {
    async fn handlers_offer(
        &self,
        session: SessionId,
        queues: Vec<String>,
        slots: u32,
        handlers: Vec<HandlerOffer>,
    ) -> Result<bool> {
        self.write(work!([queues, handlers] db, now, effects => {
            offer(db, session, &queues, slots, &handlers).await
        }))
        .await
    }

    async fn handlers_workers(&self, workers_max: u32) -> Result<Vec<Worker>> {
        self.read(look!([] db, now => workers(db, workers_max).await)).await
    }

    async fn handlers_users(&self) -> Result<Vec<HandlerUsers>> {
        self.read(look!([] db, now => users(db).await)).await
    }

    async fn handlers_mark(&self) -> Result<String> {
        self.read(look!([] db, now => mark(db).await)).await
    }
}

async fn offer(
    db: &mut Connection,
    session: SessionId,
    queues: &[String],
    slots: u32,
    handlers: &[HandlerOffer],
) -> Result<bool> {
    // From the session's own row, so that one that was swept meanwhile is no error.
    let written = sqlx::query(
        "INSERT INTO worker_offers (session_id, handlers, queues, slots) \
         SELECT id, CAST($2 AS TEXT), CAST($3 AS TEXT), CAST($4 AS BIGINT) FROM sessions WHERE id = $1 \
         ON CONFLICT (session_id) DO UPDATE SET handlers = excluded.handlers, queues = excluded.queues, slots = excluded.slots",
    )
    .bind(session.uuid())
    .bind(jobs::to_json(&handlers)?)
    .bind(jobs::to_json(&queues)?)
    .bind(i64::from(slots))
    .execute(db)
    .await?;
    Ok(written.rows_affected() == 1)
}

async fn workers(db: &mut Connection, workers_max: u32) -> Result<Vec<Worker>> {
    let limit = i64::from(workers_max);
    let mut found = Vec::new();
    let rows = sqlx::query(
        "SELECT s.id, s.node AS name, o.handlers, o.queues, o.slots, s.namespaces, s.started_at, s.beat_at, s.expires_at \
         FROM worker_offers o JOIN sessions s ON s.id = o.session_id ORDER BY s.id DESC LIMIT $1",
    )
    .bind(limit)
    .fetch_all(&mut *db)
    .await?;
    for row in &rows {
        let handlers: Vec<HandlerOffer> = jobs::json("handlers", row.try_get("handlers")?)?;
        found.push(worker(row, handlers, false)?);
    }
    let rows = sqlx::query(
        "SELECT s.id, w.name, w.handlers, w.queues, w.slots, s.namespaces, s.started_at, s.beat_at, s.expires_at \
         FROM remote_workers w JOIN sessions s ON s.id = w.session_id ORDER BY s.id DESC LIMIT $1",
    )
    .bind(limit)
    .fetch_all(db)
    .await?;
    for row in &rows {
        let handlers: Vec<RemoteHandler> = jobs::json("handlers", row.try_get("handlers")?)?;
        let offers = handlers.into_iter().map(|handler| HandlerOffer {
            name: handler.name,
            version: handler.version,
            input_schema: handler.input_schema,
        });
        found.push(worker(row, offers.collect(), true)?);
    }
    // Ids of sessions rise with time.
    found.sort_by_key(|worker| std::cmp::Reverse(worker.session.uuid()));
    found.truncate(usize::try_from(workers_max).unwrap_or(usize::MAX));
    Ok(found)
}

fn worker(row: &Row, handlers: Vec<HandlerOffer>, is_remote: bool) -> Result<Worker> {
    Ok(Worker {
        session: SessionId::from_uuid(row.try_get("id")?),
        name: row.try_get("name")?,
        is_remote,
        handlers,
        queues: jobs::json("queues", row.try_get("queues")?)?,
        slots: jobs::count(row, "slots")?,
        namespaces: sessions::namespaces(row)?,
        started_at: Timestamp::from_micros(row.try_get("started_at")?),
        beat_at: Timestamp::from_micros(row.try_get("beat_at")?),
        expires_at: Timestamp::from_micros(row.try_get("expires_at")?),
    })
}

async fn users(db: &mut Connection) -> Result<Vec<HandlerUsers>> {
    let mut found: BTreeMap<(String, String), HandlerUsers> = BTreeMap::new();
    for (is_view, count) in [
        (
            true,
            "SELECT namespace, handler, CAST(count(*) AS BIGINT) AS users FROM \
             (SELECT namespace, handler FROM views LIMIT $1) AS u GROUP BY namespace, handler",
        ),
        (
            false,
            "SELECT namespace, handler, CAST(count(*) AS BIGINT) AS users FROM \
             (SELECT namespace, handler FROM schedules LIMIT $1) AS u GROUP BY namespace, handler",
        ),
    ] {
        let rows = sqlx::query(count).bind(i64::from(USERS_ROWS_MAX)).fetch_all(&mut *db).await?;
        for row in &rows {
            let (namespace, handler): (String, String) = (row.try_get("namespace")?, row.try_get("handler")?);
            let users = u64::try_from(row.try_get::<i64, _>("users")?).unwrap_or(0);
            let one = found.entry((namespace.clone(), handler.clone())).or_insert(HandlerUsers {
                namespace,
                handler,
                views: 0,
                schedules: 0,
            });
            if is_view { one.views = users } else { one.schedules = users }
        }
    }
    Ok(found.into_values().collect())
}

/// Of each table what no change of it leaves as it was. Templates are never changed, and sessions begin at one time each; their sum is kept
/// within an integer's range.
const MARKS: [&str; 3] = [
    "SELECT CAST(count(*) AS BIGINT) AS present, CAST(COALESCE(max(created_at), 0) AS BIGINT) AS times, CAST(0 AS BIGINT) AS sizes \
     FROM templates",
    "SELECT CAST(count(*) AS BIGINT) AS present, CAST(COALESCE(sum(s.started_at % 4294967296), 0) AS BIGINT) AS times, \
     CAST(COALESCE(sum(length(o.handlers) + length(o.queues) + o.slots), 0) AS BIGINT) AS sizes \
     FROM worker_offers o JOIN sessions s ON s.id = o.session_id",
    "SELECT CAST(count(*) AS BIGINT) AS present, CAST(COALESCE(sum(s.started_at % 4294967296), 0) AS BIGINT) AS times, \
     CAST(COALESCE(sum(length(w.handlers) + length(w.queues) + w.slots), 0) AS BIGINT) AS sizes \
     FROM remote_workers w JOIN sessions s ON s.id = w.session_id",
];

async fn mark(db: &mut Connection) -> Result<String> {
    let mut hash = PartsHash::default();
    for one in MARKS {
        let row = sqlx::query(one).fetch_one(&mut *db).await?;
        for column in ["present", "times", "sizes"] {
            hash.part(&row.try_get::<i64, _>(column)?.to_string());
        }
    }
    for HandlerUsers { namespace, handler, views, schedules } in users(db).await? {
        hash.part(&namespace);
        hash.part(&handler);
        hash.part(&format!("{views} {schedules}"));
    }
    Ok(hash.hex(MARK_DIGITS))
}

const MARK_DIGITS: usize = 32;
