//! Items whose values are kept in the cache only.

use std::collections::HashMap;

use async_trait::async_trait;
use recache_model::held_value::{STANDS, standing_for};
use recache_model::ids::ViewId;
use recache_model::time::Timestamp;
use recache_model::view_options::ItemsKept;
use sqlx::Row as _;
use uuid::Uuid;

use super::super::{Connection, Driver, Row, texts};
use super::effects::Effects;
use super::{build_workflows, items, views};
use crate::chains::ViewName;
use crate::error::{Error, Result};
use crate::held_items::{HELD_ITEMS_MAX, HeldItem, HeldItems, HeldPlace, HeldView, item_digest};
use crate::queues::Word;
use crate::records::{LeaseToken, NewView, Revoked, StagedItem, Touch};

/// Who touches a view whose values are gone, and why.
const ACTOR: &str = "recache";
const REASON: &str = "values are gone from the cache, which alone had them";

#[async_trait]
impl HeldItems for Driver {
    async fn build_holds(&self, token: LeaseToken) -> Result<Option<HeldView>> {
        self.read(look!([] db, now => holds(db, token).await)).await
    }

    async fn build_put_held(&self, token: LeaseToken, items: Vec<StagedItem>) -> Result<Option<Revoked>> {
        self.write(work!([items] db, now, effects => put(db, token, &items).await)).await
    }

    async fn held_page(
        &self,
        view: ViewId,
        place: HeldPlace,
        after: Option<String>,
        rows_max: u32,
    ) -> Result<Vec<HeldItem>> {
        self.read(look!([after] db, now => page(db, view, place, after.as_deref(), rows_max).await)).await
    }

    async fn staged_gone(&self, view: ViewId, items: Vec<HeldItem>) -> Result<u64> {
        check(&items)?;
        self.write(work!([items] db, now, effects => staged_gone(db, view, &items).await)).await
    }

    async fn items_gone(&self, view: ViewId, items: Vec<HeldItem>) -> Result<u64> {
        check(&items)?;
        self.write(work!([items] db, now, effects => gone_in_build(db, now, view, &items).await)).await
    }

    async fn items_lost(&self, view: ViewName, items: Vec<HeldItem>) -> Result<Option<i64>> {
        check(&items)?;
        self.write(work!([view, items] db, now, effects => lost(db, now, &view, &items, effects).await)).await
    }
}

/// Refuses a definition by which values that only the cache has would be the store's: they are not there to be moved.
pub(super) async fn check_definition(
    db: &mut Connection,
    namespace: &str,
    key: &str,
    view: &NewView,
) -> Result<()> {
    if view.options.items == ItemsKept::CacheOnly {
        return Ok(());
    }
    let rows = sqlx::query(concat!(
        "SELECT key, options FROM views WHERE namespace = $1 AND (key = $2 OR pattern = $2) ORDER BY id",
        for_update!()
    ))
    .bind(namespace)
    .bind(key)
    .fetch_all(db)
    .await?;
    for row in rows {
        if build_workflows::options(&row)?.items == ItemsKept::CacheOnly {
            let key: String = row.try_get("key")?;
            return Err(Error::Conflict(format!(
                "the values of view {namespace}/{key} are kept in the cache only, and cannot be moved into the database: define it as \
                 cache-only, or delete it first"
            )));
        }
    }
    Ok(())
}

fn check(items: &[HeldItem]) -> Result<()> {
    if items.len() > HELD_ITEMS_MAX {
        return Err(Error::Invalid(format!(
            "{} items in one call; the limit is {HELD_ITEMS_MAX}",
            items.len()
        )));
    }
    Ok(())
}

async fn holds(db: &mut Connection, token: LeaseToken) -> Result<Option<HeldView>> {
    let row = sqlx::query(
        "SELECT v.id, v.namespace, v.key, v.options FROM jobs j LEFT JOIN workflows w ON w.id = j.workflow_id \
         LEFT JOIN jobs b ON b.id = w.build_job_id JOIN views v ON v.id = COALESCE(j.view_id, b.view_id) WHERE j.id = $1",
    )
    .bind(token.job.uuid())
    .fetch_optional(db)
    .await?;
    let Some(row) = row else { return Ok(None) };
    if build_workflows::options(&row)?.items != ItemsKept::CacheOnly {
        return Ok(None);
    }
    let name = ViewName { namespace: row.try_get("namespace")?, key: row.try_get("key")? };
    Ok(Some(HeldView { view: ViewId::from_uuid(row.try_get("id")?), name }))
}

async fn put(db: &mut Connection, token: LeaseToken, staged: &[StagedItem]) -> Result<Option<Revoked>> {
    let (view, is_part) = match items::held_to_put(db, token).await? {
        Ok(held) => held,
        Err(revoked) => return Ok(Some(revoked)),
    };
    if view.definition.options.items != ItemsKept::CacheOnly {
        return Err(Error::Conflict(format!(
            "the build of job `{}` keeps its values in the store",
            token.job
        )));
    }
    items::check_rules(&view.definition.rules, staged)?;
    let stands = |item: &StagedItem| StagedItem {
        value: item.value.as_deref().map(|value| standing_for(&item_digest(value))),
        ..item.clone()
    };
    items::stage(db, token, &view, is_part, &staged.iter().map(stands).collect::<Vec<_>>()).await?;
    Ok(None)
}

async fn page(
    db: &mut Connection,
    view: ViewId,
    place: HeldPlace,
    after: Option<&str>,
    rows_max: u32,
) -> Result<Vec<HeldItem>> {
    let (statement, version) = match place {
        HeldPlace::Live => (
            "SELECT item, value FROM view_items WHERE view_id = $1 AND died IS NULL AND gone_at IS NULL AND item > $2 \
             AND substr(value, 1, 1) = $3 AND $5 = 0 ORDER BY item LIMIT $4",
            0,
        ),
        HeldPlace::Version(version) => (
            "SELECT item, value FROM view_items WHERE view_id = $1 AND born <= $5 AND (died IS NULL OR died > $5) AND item > $2 \
             AND substr(value, 1, 1) = $3 ORDER BY item LIMIT $4",
            version,
        ),
        HeldPlace::Staged => (
            "SELECT item, value FROM view_staged WHERE view_id = $1 AND item > $2 \
             AND substr(value, 1, 1) = $3 AND $5 = 0 ORDER BY item LIMIT $4",
            0,
        ),
    };
    let rows = sqlx::query(statement)
        .bind(view.uuid())
        .bind(after.unwrap_or(""))
        .bind(STANDS)
        .bind(i64::from(rows_max.max(1)))
        .bind(version)
        .fetch_all(db)
        .await?;
    rows.iter().map(held).collect()
}

fn held(row: &Row) -> Result<HeldItem> {
    Ok(HeldItem { item: row.try_get("item")?, stands: row.try_get("value")? })
}

/// Those of these items that stand there as they are given.
fn same(items: &[HeldItem], rows: &[Row]) -> Result<Vec<String>> {
    let given: HashMap<&str, &str> =
        items.iter().map(|held| (held.item.as_str(), held.stands.as_str())).collect();
    let mut same = Vec::with_capacity(rows.len());
    for row in rows {
        let held = held(row)?;
        if given.get(held.item.as_str()) == Some(&held.stands.as_str()) {
            same.push(held.item);
        }
    }
    Ok(same)
}

fn keys(items: &[HeldItem]) -> Vec<String> {
    items.iter().map(|held| held.item.clone()).collect()
}

async fn staged_gone(db: &mut Connection, view: ViewId, items: &[HeldItem]) -> Result<u64> {
    views::lock(db, view).await?;
    let rows = sqlx::query(concat!(
        "SELECT item, value FROM view_staged WHERE view_id = $1 AND item ",
        in_texts!("$2")
    ))
    .bind(view.uuid())
    .bind(texts(&keys(items)))
    .fetch_all(&mut *db)
    .await?;
    let gone = same(items, &rows)?;
    let deleted =
        sqlx::query(concat!("DELETE FROM view_staged WHERE view_id = $1 AND item ", in_texts!("$2")))
            .bind(view.uuid())
            .bind(texts(&gone))
            .execute(db)
            .await?;
    Ok(deleted.rows_affected())
}

/// Marks them, where they are not yet; the view is locked. Answers which of all of them are live, marked now or before.
async fn gone(db: &mut Connection, now: Timestamp, view: ViewId, items: &[HeldItem]) -> Result<Vec<String>> {
    let rows = sqlx::query(concat!(
        "SELECT item, value FROM view_items WHERE view_id = $1 AND died IS NULL AND item ",
        in_texts!("$2")
    ))
    .bind(view.uuid())
    .bind(texts(&keys(items)))
    .fetch_all(&mut *db)
    .await?;
    let gone = same(items, &rows)?;
    sqlx::query(concat!(
        "UPDATE view_items SET gone_at = $2 WHERE view_id = $1 AND died IS NULL AND gone_at IS NULL AND item ",
        in_texts!("$3")
    ))
    .bind(view.uuid())
    .bind(now.micros())
    .bind(texts(&gone))
    .execute(db)
    .await?;
    Ok(gone)
}

/// What is gone counts as touched in the version that is built.
async fn gone_in_build(db: &mut Connection, now: Timestamp, view: ViewId, items: &[HeldItem]) -> Result<u64> {
    let view = views::lock(db, view).await?;
    let gone = gone(db, now, view.id, items).await?;
    if let Some(version) = view.versions.processing {
        sqlx::query(concat!(
            "INSERT INTO view_touched_items (view_id, item, version) SELECT view_id, item, CAST($2 AS BIGINT) FROM view_items \
             WHERE view_id = $1 AND died IS NULL AND item ",
            in_texts!("$3"),
            " ON CONFLICT (view_id, item) DO UPDATE SET version = CASE WHEN excluded.version > view_touched_items.version \
             THEN excluded.version ELSE view_touched_items.version END"
        ))
        .bind(view.id.uuid())
        .bind(version)
        .bind(texts(&gone))
        .execute(db)
        .await?;
    }
    Ok(u64::try_from(gone.len()).unwrap_or(u64::MAX))
}

async fn lost(
    db: &mut Connection,
    now: Timestamp,
    name: &ViewName,
    told: &[HeldItem],
    effects: &mut Effects,
) -> Result<Option<i64>> {
    let view = views::lock_named(db, &name.namespace, &name.key).await?;
    let mut wanted = gone(db, now, view.id, told).await?;
    let touched = touched(db, view.id.uuid(), view.versions.live, &wanted).await?;
    wanted.retain(|item| !touched.contains(item));
    let is_all_touched = touched_whole(db, view.id.uuid(), view.versions.live).await?;
    if wanted.is_empty() || is_all_touched {
        return Ok(None);
    }
    let touch = Touch {
        namespace: name.namespace.clone(),
        key: name.key.clone(),
        items: wanted,
        word: Some(Word::new(ACTOR, REASON)),
        ..Touch::default()
    };
    Ok(views::touch(db, now, &[touch], effects).await?.first().map(|outcome| outcome.version))
}

async fn touched_whole(db: &mut Connection, view: Uuid, live_version: i64) -> Result<bool> {
    let row =
        sqlx::query("SELECT all_touched_version FROM views WHERE id = $1").bind(view).fetch_one(db).await?;
    Ok(row.try_get::<i64, _>("all_touched_version")? > live_version)
}

async fn touched(
    db: &mut Connection,
    view: Uuid,
    live_version: i64,
    items: &[String],
) -> Result<std::collections::HashSet<String>> {
    let rows = sqlx::query(concat!(
        "SELECT item FROM view_touched_items WHERE view_id = $1 AND version > $2 AND item ",
        in_texts!("$3")
    ))
    .bind(view)
    .bind(live_version)
    .bind(texts(items))
    .fetch_all(db)
    .await?;
    rows.iter().map(|row| Ok(row.try_get("item")?)).collect()
}
