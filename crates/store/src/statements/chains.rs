//! Views that are made from others: the graph, and what a publication asks of those below.

use std::collections::BTreeSet;

use async_trait::async_trait;
use recache_model::ids::{JobId, ViewId};
use sqlx::Row as _;
use uuid::Uuid;

use super::super::{Connection, Driver, ids};
use super::effects::Effects;
use super::{touch_requests, views};
use crate::chains::{Chains, Neighbours, SOURCES_MAX, ViewName};
use crate::error::{Error, Result};

#[async_trait]
impl Chains for Driver {
    async fn view_derive(&self, view: ViewName, from: Vec<ViewName>) -> Result<bool> {
        if from.len() > SOURCES_MAX {
            return Err(Error::Invalid(format!(
                "view {view} would be made from {} views; at most {SOURCES_MAX} are kept",
                from.len()
            )));
        }
        self.write(work!([view, from] db, now, effects => derive(db, &view, &from, effects).await)).await
    }

    async fn touches_waiting(&self, view: ViewName) -> Result<u64> {
        self.read(look!([view] db, now => touch_requests::waiting(db, &view).await)).await
    }

    async fn view_neighbours(&self, view: ViewName) -> Result<Neighbours> {
        self.read(look!([view] db, now => neighbours(db, &view).await)).await
    }
}

async fn id_of(db: &mut Connection, view: &ViewName) -> Result<Uuid> {
    Ok(views::get(db, &view.namespace, &view.key).await?.id.uuid())
}

/// Alone with the graph until the commit.
pub(super) async fn lock_graph(db: &mut Connection) -> Result<()> {
    sqlx::query("UPDATE view_graph SET version = version + 1 WHERE id = 1").execute(db).await?;
    Ok(())
}

/// The views that are made from one, by name.
pub(super) async fn below(db: &mut Connection, view: ViewId) -> Result<Vec<ViewName>> {
    let rows = sqlx::query(
        "SELECT v.namespace, v.key FROM view_sources s JOIN views v ON v.id = s.view_id WHERE s.source_id = $1 \
         ORDER BY v.namespace, v.key",
    )
    .bind(view.uuid())
    .fetch_all(db)
    .await?;
    rows.iter()
        .map(|row| Ok(ViewName { namespace: row.try_get("namespace")?, key: row.try_get("key")? }))
        .collect()
}

async fn derive(
    db: &mut Connection,
    view: &ViewName,
    from: &[ViewName],
    effects: &mut Effects,
) -> Result<bool> {
    lock_graph(db).await?;
    let id = id_of(db, view).await?;
    let mut sources = BTreeSet::new();
    for source in from {
        sources.insert(id_of(db, source).await?);
    }
    let sources: Vec<Uuid> = sources.into_iter().collect();
    let kept = sqlx::query("SELECT source_id FROM view_sources WHERE view_id = $1 ORDER BY source_id")
        .bind(id)
        .fetch_all(&mut *db)
        .await?;
    let kept = kept.iter().map(|row| Ok(row.try_get("source_id")?)).collect::<Result<BTreeSet<Uuid>>>()?;
    if kept.iter().eq(&sources) {
        return Ok(false);
    }
    if sources.contains(&id) {
        return Err(Error::Conflict(format!("view {view} cannot be made from itself")));
    }
    let circle = sqlx::query(concat!(
        "WITH RECURSIVE above (id) AS (SELECT source_id FROM view_sources WHERE view_id ",
        in_ids!("$1"),
        " UNION SELECT s.source_id FROM view_sources s JOIN above a ON s.view_id = a.id) \
         SELECT id FROM above WHERE id = $2"
    ))
    .bind(ids(&sources))
    .bind(id)
    .fetch_optional(&mut *db)
    .await?;
    if circle.is_some() {
        return Err(Error::Conflict(format!(
            "view {view} would be made from itself: one of those that it shall be made from is made from it"
        )));
    }
    // Whoever publishes one of them now is waited for, and whoever publishes later sees the edge.
    for source in &sources {
        sqlx::query(concat!("SELECT id FROM views WHERE id = $1", for_update!()))
            .bind(source)
            .fetch_optional(&mut *db)
            .await?;
    }
    sqlx::query("DELETE FROM view_sources WHERE view_id = $1").bind(id).execute(&mut *db).await?;
    for source in &sources {
        sqlx::query("INSERT INTO view_sources (view_id, source_id) VALUES ($1, $2)")
            .bind(id)
            .bind(source)
            .execute(&mut *db)
            .await?;
    }
    sqlx::query("INSERT INTO touch_requests (namespace, key, source) VALUES ($1, $2, 'sources')")
        .bind(&view.namespace)
        .bind(&view.key)
        .execute(db)
        .await?;
    effects.touches_asked();
    Ok(true)
}

/// A generation with something new is live: those made from it are touched after the commit, by whoever reconciles views. No lock of theirs is
/// taken here, so that publications wait for nobody but their own view.
///
/// They go on in the trace of the build that published, if one did.
pub(super) async fn published(
    db: &mut Connection,
    view: ViewId,
    build: Option<JobId>,
    effects: &mut Effects,
) -> Result<()> {
    let asked = sqlx::query(
        "INSERT INTO touch_requests (namespace, key, trace_context, source) SELECT v.namespace, v.key, \
         (SELECT trace_context FROM jobs WHERE id = $2), \
         (SELECT 'view ' || p.namespace || '/' || p.key FROM views p WHERE p.id = $1) FROM view_sources s JOIN views v ON v.id = s.view_id WHERE s.source_id = $1",
    )
    .bind(view.uuid())
    .bind(build.map(JobId::uuid))
    .execute(db)
    .await?
    .rows_affected();
    if asked > 0 {
        effects.touches_asked();
    }
    Ok(())
}

async fn neighbours(db: &mut Connection, view: &ViewName) -> Result<Neighbours> {
    let id = id_of(db, view).await?;
    let rows = sqlx::query(
        "SELECT CAST(1 AS BIGINT) AS is_above, v.namespace, v.key FROM view_sources s JOIN views v ON v.id = s.source_id \
         WHERE s.view_id = $1 UNION ALL SELECT 0, v.namespace, v.key FROM view_sources s JOIN views v ON v.id = s.view_id \
         WHERE s.source_id = $1 ORDER BY namespace, key",
    )
    .bind(id)
    .fetch_all(db)
    .await?;
    let mut neighbours = Neighbours::default();
    for row in rows {
        let name = ViewName { namespace: row.try_get("namespace")?, key: row.try_get("key")? };
        if row.try_get::<i64, _>("is_above")? == 1 {
            neighbours.above.push(name);
        } else {
            neighbours.below.push(name);
        }
    }
    Ok(neighbours)
}
