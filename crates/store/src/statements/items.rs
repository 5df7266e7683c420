//! Items of views: what a build starts from, stages and publishes, and what readers find.

use std::time::Duration;

use recache_model::ids::ViewId;
use recache_model::item_rules::{ItemRules, item_problems};
use recache_model::job::JobEvent;
use recache_model::template::JsonSchema;
use recache_model::time::Timestamp;
use recache_model::view_options::ItemsKept;
use sqlx::Row as _;

use super::super::{Connection, Row, bulk, texts};
use super::effects::Effects;
use super::jobs::{self, Change};
use super::{build_workflows, chains, views};
use crate::error::{Error, Result};
use crate::held_items::item_digest;
use crate::records::{
    BuildStart, GENERATIONS_TOLD_MAX, GenerationsRemoved, ItemMark, LeaseToken, Publication, Published,
    Revoked, StagedItem, TouchedItems, ViewRead, ViewRecord,
};
use crate::schemas;

/// Problems of one call that are told.
const PROBLEMS_MAX: usize = 20;

/// The view whose build `token` holds, locked, or why the token is no longer good.
pub(super) async fn held_view(
    db: &mut Connection,
    token: LeaseToken,
) -> Result<std::result::Result<ViewRecord, Revoked>> {
    let row = sqlx::query("SELECT view_id FROM jobs WHERE id = $1")
        .bind(token.job.uuid())
        .fetch_optional(&mut *db)
        .await?;
    let Some(row) = row else { return Ok(Err(Revoked::Gone)) };
    let Some(view) = row.try_get::<Option<uuid::Uuid>, _>("view_id")? else {
        return Err(Error::Invalid(format!("job `{}` builds no view", token.job)));
    };
    let view = views::lock(db, ViewId::from_uuid(view)).await?;
    let Some(job) = jobs::lock(db, token.job).await? else { return Ok(Err(Revoked::Gone)) };
    if let Err(revoked) = job.held_by(token) {
        return Ok(Err(revoked));
    }
    if view.build != Some(token.job) {
        return Ok(Err(Revoked::Superseded));
    }
    Ok(Ok(view))
}

/// The build begins: it takes the newest version wanted.
pub(super) async fn take_version(
    db: &mut Connection,
    now: Timestamp,
    token: LeaseToken,
) -> Result<std::result::Result<ViewRecord, Revoked>> {
    let mut view = match held_view(db, token).await? {
        Ok(view) => view,
        Err(revoked) => return Ok(Err(revoked)),
    };
    let version = view.versions.begin(now);
    views::save(db, &view).await?;
    sqlx::query("UPDATE jobs SET view_version = $2, progress = NULL, message = NULL WHERE id = $1")
        .bind(token.job.uuid())
        .bind(version)
        .execute(db)
        .await?;
    Ok(Ok(view))
}

/// With all items that exist; of more than `known_max`, where that is given, none.
pub(in super::super) async fn begin(
    db: &mut Connection,
    now: Timestamp,
    token: LeaseToken,
    known_max: Option<u32>,
) -> Result<std::result::Result<BuildStart, Revoked>> {
    let view = match take_version(db, now, token).await? {
        Ok(view) => view,
        Err(revoked) => return Ok(Err(revoked)),
    };
    let version = view.versions.processing.ok_or_else(|| Error::broken("a build began without a version"))?;
    let live_version = view.versions.live;
    let touched = touched(db, view.id, live_version).await?;
    let mut known = Vec::with_capacity(2);
    for statement in [
        "SELECT item, CASE WHEN gone_at IS NULL THEN fingerprint END AS fingerprint, digest, gone_at IS NOT NULL AS is_gone \
         FROM view_items WHERE view_id = $1 AND died IS NULL ORDER BY item LIMIT $2",
        "SELECT item, fingerprint, digest, FALSE AS is_gone FROM view_staged WHERE view_id = $1 ORDER BY item LIMIT $2",
    ] {
        let rows_max = known_max.map_or(i64::MAX, |max| i64::from(max) + 1);
        known.push(sqlx::query(statement).bind(view.id.uuid()).bind(rows_max).fetch_all(&mut *db).await?);
    }
    let is_more =
        |rows: &Vec<Row>| known_max.is_some_and(|max| u32::try_from(rows.len()).is_ok_and(|rows| rows > max));
    let is_large = known.iter().any(is_more);
    if is_large {
        known.iter_mut().for_each(Vec::clear);
    }
    let staged = known.pop().unwrap_or_default();
    let live = known.pop().unwrap_or_default();
    Ok(Ok(BuildStart {
        view: view.id,
        is_held: view.definition.options.items == ItemsKept::CacheOnly,
        namespace: view.definition.namespace,
        key: view.definition.key,
        version,
        live_version,
        touched,
        live: live.iter().map(mark).collect::<Result<_>>()?,
        staged: staged.iter().map(mark).collect::<Result<_>>()?,
        is_large,
    }))
}

pub(super) async fn touched(db: &mut Connection, view: ViewId, live_version: i64) -> Result<TouchedItems> {
    let all: i64 = sqlx::query("SELECT all_touched_version FROM views WHERE id = $1")
        .bind(view.uuid())
        .fetch_one(&mut *db)
        .await?
        .try_get("all_touched_version")?;
    if all > live_version || live_version == 0 {
        return Ok(TouchedItems::All);
    }
    let rows =
        sqlx::query("SELECT item FROM view_touched_items WHERE view_id = $1 AND version > $2 ORDER BY item")
            .bind(view.uuid())
            .bind(live_version)
            .fetch_all(db)
            .await?;
    Ok(TouchedItems::Only(rows.iter().map(|row| Ok(row.try_get("item")?)).collect::<Result<_>>()?))
}

pub(super) fn mark(row: &Row) -> Result<ItemMark> {
    Ok(ItemMark {
        item: row.try_get("item")?,
        fingerprint: row.try_get("fingerprint")?,
        digest: row.try_get("digest")?,
        is_gone: row.try_get("is_gone")?,
    })
}

/// The digest under which two values are the same value.
pub(in super::super) fn digest(value: &str) -> String {
    item_digest(value)
}

pub(in super::super) async fn put(
    db: &mut Connection,
    token: LeaseToken,
    items: &[StagedItem],
) -> Result<Option<Revoked>> {
    let (view, is_part) = match held_to_put(db, token).await? {
        Ok(held) => held,
        Err(revoked) => return Ok(Some(revoked)),
    };
    check_rules(&view.definition.rules, items)?;
    stage(db, token, &view, is_part, items).await?;
    Ok(None)
}

/// Keeps what a build, or a part of one, puts; all of it was judged.
pub(super) async fn stage(
    db: &mut Connection,
    token: LeaseToken,
    view: &ViewRecord,
    is_part: bool,
    items: &[StagedItem],
) -> Result<()> {
    let epoch = view.versions.lease_epoch;
    if is_part {
        build_workflows::check_put_once(db, view, token, &names(items)).await?;
    }
    let reused: Vec<String> =
        items.iter().filter(|item| item.value.is_none()).map(|item| item.item.clone()).collect();
    if !reused.is_empty() {
        let found = sqlx::query(concat!(
            "UPDATE view_staged SET lease_epoch = $2 WHERE view_id = $1 AND item ",
            in_texts!("$3")
        ))
        .bind(view.id.uuid())
        .bind(epoch)
        .bind(texts(&reused))
        .execute(&mut *db)
        .await?
        .rows_affected();
        if found != u64::try_from(reused.len()).unwrap_or(u64::MAX) {
            return Err(Error::Conflict("an item to be taken over is not staged, or named twice".to_owned()));
        }
    }
    let new: Vec<&StagedItem> = items.iter().filter(|item| item.value.is_some()).collect();
    if !new.is_empty() {
        bulk::items_stage(db, view.id, epoch, view.build, &new).await?;
    }
    if is_part {
        build_workflows::mark_put(db, view.id, token, &names(items)).await?;
    }
    Ok(())
}

/// The view whose build `token` holds, or is a part of; and whether it is a part. A build that has not begun is a conflict.
pub(super) async fn held_to_put(
    db: &mut Connection,
    token: LeaseToken,
) -> Result<std::result::Result<(ViewRecord, bool), Revoked>> {
    let row = sqlx::query("SELECT workflow_id FROM jobs WHERE id = $1")
        .bind(token.job.uuid())
        .fetch_optional(&mut *db)
        .await?;
    let is_step =
        row.map(|row| row.try_get::<Option<uuid::Uuid>, _>("workflow_id")).transpose()?.flatten().is_some();
    if is_step {
        return Ok(build_workflows::held_part(db, token).await?.map(|(view, _)| (view, true)));
    }
    let held = held_view(db, token).await?;
    if held.as_ref().is_ok_and(|view| view.versions.processing.is_none()) {
        return Err(Error::Conflict(format!("the build of job `{}` has not begun", token.job)));
    }
    Ok(held.map(|view| (view, false)))
}

fn names(items: &[StagedItem]) -> Vec<String> {
    items.iter().map(|item| item.item.clone()).collect()
}

/// All that is wrong with all of the items. Here rather than where they are made: no builder, wherever it runs, gets past it.
pub(super) fn check_rules(rules: &ItemRules, items: &[StagedItem]) -> Result<()> {
    if rules.is_empty() {
        return Ok(());
    }
    let compiled = |schema: &Option<serde_json::Value>| -> Result<Option<JsonSchema>> {
        let Some(schema) = schema else { return Ok(None) };
        match &*schemas::compiled(schema) {
            Ok(schema) => Ok(Some(schema.clone())),
            Err(why) => Err(Error::broken(format!("a view's schema can no longer be used: {why}"))),
        }
    };
    let (key_schema, value_schema) = (compiled(&rules.key_schema)?, compiled(&rules.value_schema)?);
    let mut problems = Vec::new();
    for item in items {
        // What is taken over was checked when it was put.
        let Some(value) = &item.value else { continue };
        problems.extend(item_problems(&item.item, value, key_schema.as_ref(), value_schema.as_ref()));
        if problems.len() > PROBLEMS_MAX {
            problems.truncate(PROBLEMS_MAX);
            problems.push("and more".to_owned());
            break;
        }
    }
    if problems.is_empty() { Ok(()) } else { Err(Error::Invalid(problems.join("; "))) }
}

pub(in super::super) async fn publish(
    db: &mut Connection,
    now: Timestamp,
    token: LeaseToken,
    publication: &Publication,
    effects: &mut Effects,
) -> Result<Published> {
    let mut view = match held_view(db, token).await? {
        Ok(view) => view,
        Err(revoked) => return already_published(db, token, publication.version, revoked).await,
    };
    let version = publication.version;
    let before = view.versions;
    let policy = view.definition.policy;
    if view.versions.publish(&policy, version, now).is_err() {
        return Ok(Published::Refused(Revoked::Superseded));
    }
    // The constraint on one live row per item wants the old row closed before the new one is born.
    for (statement, from_version) in [
        // Same value, other inputs: only the fingerprint is new, and no reader sees it. What was gone is there again.
        (
            "UPDATE view_items SET fingerprint = s.fingerprint, gone_at = NULL FROM view_staged s WHERE view_items.view_id = $1 \
             AND view_items.died IS NULL AND s.view_id = $1 AND s.item = view_items.item AND s.lease_epoch = $2 \
             AND s.digest = view_items.digest AND $3 > 0",
            version,
        ),
        (
            "UPDATE view_items SET died = $3 FROM view_staged s WHERE view_items.view_id = $1 \
             AND view_items.died IS NULL AND s.view_id = $1 AND s.item = view_items.item AND s.lease_epoch = $2 \
             AND s.digest <> view_items.digest",
            version,
        ),
    ] {
        sqlx::query(statement)
            .bind(view.id.uuid())
            .bind(before.lease_epoch)
            .bind(from_version)
            .execute(&mut *db)
            .await?;
    }
    let changed = sqlx::query(
        "INSERT INTO view_items (view_id, item, born, fingerprint, digest, value) \
         SELECT s.view_id, s.item, $3, s.fingerprint, s.digest, s.value FROM view_staged s \
         WHERE s.view_id = $1 AND s.lease_epoch = $2 AND NOT EXISTS \
         (SELECT 1 FROM view_items i WHERE i.view_id = $1 AND i.item = s.item AND i.died IS NULL)",
    )
    .bind(view.id.uuid())
    .bind(before.lease_epoch)
    .bind(version)
    .execute(&mut *db)
    .await?
    .rows_affected();
    if !publication.removed.is_empty() {
        sqlx::query(concat!(
            "UPDATE view_items SET died = $2 WHERE view_id = $1 AND died IS NULL AND item ",
            in_texts!("$3")
        ))
        .bind(view.id.uuid())
        .bind(version)
        .bind(texts(&publication.removed))
        .execute(&mut *db)
        .await?;
    }
    // What builds before made, and this one took over: theirs, whoever took it over in between.
    sqlx::query(
        "INSERT INTO build_work (view_id, job_id, version, items_used) SELECT view_id, made_by, CAST($3 AS BIGINT), COUNT(*) \
         FROM view_staged WHERE view_id = $1 AND lease_epoch = $2 AND made_by <> $4 GROUP BY view_id, made_by \
         ON CONFLICT DO NOTHING",
    )
    .bind(view.id.uuid())
    .bind(before.lease_epoch)
    .bind(version)
    .bind(token.job.uuid())
    .execute(&mut *db)
    .await?;
    for statement in [
        "DELETE FROM view_staged WHERE view_id = $1 AND $2 > 0",
        "DELETE FROM view_kept WHERE view_id = $1 AND $2 > 0",
        "DELETE FROM view_touched_items WHERE view_id = $1 AND version <= $2",
    ] {
        sqlx::query(statement).bind(view.id.uuid()).bind(version).execute(&mut *db).await?;
    }
    let Some(job) = jobs::lock(db, token.job).await? else { return Ok(Published::Refused(Revoked::Gone)) };
    let change = Change { output: Some(publication.output.clone()), ..Change::default() };
    jobs::advance(db, now, &job, JobEvent::Complete, change, effects).await?;
    record_generation(db, now, &view, token, publication, changed).await?;
    view.build = None;
    view.last_recached_at = Some(now);
    view.last_error = None;
    view.live_stamp = Some(uuid::Uuid::new_v4());
    views::save(db, &view).await?;
    if changed > 0 || !publication.removed.is_empty() {
        chains::published(db, view.id, Some(token.job), effects).await?;
    }
    effects.published(view.id, version);
    effects.view_changed(view.id);
    Ok(Published::Live { changed })
}

/// A publication whose answer was lost is repeated with the same token: it gets the same answer.
async fn already_published(
    db: &mut Connection,
    token: LeaseToken,
    version: i64,
    revoked: Revoked,
) -> Result<Published> {
    let row = sqlx::query(
        "SELECT g.items_changed FROM generations g JOIN jobs j ON j.view_id = g.view_id \
         WHERE g.version = $1 AND g.job_id = $2 AND j.id = $2 AND j.state = 'completed' AND j.epoch = $3 \
         AND j.claim = $4",
    )
    .bind(version)
    .bind(token.job.uuid())
    .bind(token.epoch)
    .bind(token.claim)
    .fetch_optional(db)
    .await?;
    Ok(match row {
        Some(row) => {
            Published::Live { changed: u64::try_from(row.try_get::<i64, _>("items_changed")?).unwrap_or(0) }
        }
        None => Published::Refused(revoked),
    })
}

async fn record_generation(
    db: &mut Connection,
    now: Timestamp,
    view: &ViewRecord,
    token: LeaseToken,
    publication: &Publication,
    changed: u64,
) -> Result<()> {
    sqlx::query("UPDATE generations SET replaced_at = $2, readable_until = $3 WHERE view_id = $1 AND replaced_at IS NULL")
        .bind(view.id.uuid())
        .bind(now.micros())
        .bind(views::readable_until(&view.definition, now))
        .execute(&mut *db)
        .await?;
    let number = |count: u64| i64::try_from(count).unwrap_or(i64::MAX);
    sqlx::query(
        "INSERT INTO generations (view_id, version, job_id, published_at, items_total, items_changed, \
         items_removed, items_computed, items_reused, build_us) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10)",
    )
    .bind(view.id.uuid())
    .bind(publication.version)
    .bind(token.job.uuid())
    .bind(now.micros())
    .bind(number(publication.items_total))
    .bind(number(changed))
    .bind(i64::try_from(publication.removed.len()).unwrap_or(i64::MAX))
    .bind(number(publication.items_computed))
    .bind(number(publication.items_reused))
    .bind(jobs::duration_micros(view.versions.last_build).unwrap_or(0))
    .execute(db)
    .await?;
    Ok(())
}

/// One statement, so one snapshot: version and items always belong together.
pub(in super::super) async fn read_live(
    db: &mut Connection,
    now: Timestamp,
    namespace: &str,
    key: &str,
    items: Option<&[String]>,
) -> Result<ViewRead> {
    let query = match items {
        None => sqlx::query(
            "SELECT v.id, v.live_version, v.recache_version, v.last_recached_at, v.dirty_since, v.live_stamp, i.item, i.value \
             FROM views v LEFT JOIN view_items i ON i.view_id = v.id AND i.born <= v.live_version \
             AND (i.died IS NULL OR i.died > v.live_version) \
             WHERE v.namespace = $1 AND v.key = $2 ORDER BY i.item",
        )
        .bind(namespace)
        .bind(key),
        Some(items) => sqlx::query(concat!(
            "SELECT v.id, v.live_version, v.recache_version, v.last_recached_at, v.dirty_since, v.live_stamp, i.item, i.value \
             FROM views v LEFT JOIN view_items i ON i.view_id = v.id AND i.born <= v.live_version \
             AND (i.died IS NULL OR i.died > v.live_version) AND i.item ",
            in_texts!("$3"),
            " WHERE v.namespace = $1 AND v.key = $2 ORDER BY i.item"
        ))
        .bind(namespace)
        .bind(key)
        .bind(texts(items)),
    };
    let rows = query.fetch_all(db).await?;
    let Some(first) = rows.first() else {
        return Err(Error::not_found("view", format!("{namespace}/{key}")));
    };
    let staleness =
        jobs::instant(first, "dirty_since")?.map_or(std::time::Duration::ZERO, |since| now.since(since));
    let published_at = jobs::instant(first, "last_recached_at")?;
    Ok(ViewRead {
        view: ViewId::from_uuid(first.try_get("id")?),
        version: first.try_get("live_version")?,
        wanted: first.try_get("recache_version")?,
        published_at,
        age: published_at.map(|at| now.since(at)),
        staleness,
        stamp: first.try_get("live_stamp")?,
        items: found_items(&rows)?,
    })
}

fn found_items(rows: &[Row]) -> Result<Vec<(String, String)>> {
    let mut items = Vec::with_capacity(rows.len());
    for row in rows {
        if let (Some(item), Some(value)) =
            (row.try_get::<Option<String>, _>("item")?, row.try_get::<Option<String>, _>("value")?)
        {
            items.push((item, value));
        }
    }
    Ok(items)
}

/// One statement again: whether the generation is still kept is judged in the snapshot of its items.
pub(in super::super) async fn read_generation(
    db: &mut Connection,
    view: ViewId,
    version: i64,
    items: &[String],
) -> Result<Option<Vec<(String, String)>>> {
    let rows = sqlx::query(concat!(
        "SELECT v.oldest_version, v.live_version, i.item, i.value FROM views v LEFT JOIN view_items i \
         ON i.view_id = v.id AND i.born <= $2 AND (i.died IS NULL OR i.died > $2) AND i.item ",
        in_texts!("$3"),
        " WHERE v.id = $1 ORDER BY i.item"
    ))
    .bind(view.uuid())
    .bind(version)
    .bind(texts(items))
    .fetch_all(db)
    .await?;
    let Some(first) = rows.first() else { return Err(Error::not_found("view", view)) };
    let (oldest, live): (i64, i64) = (first.try_get("oldest_version")?, first.try_get("live_version")?);
    if version < oldest || version > live {
        return Ok(None);
    }
    Ok(Some(found_items(&rows)?))
}

/// The same, page by page.
pub(in super::super) async fn page_generation(
    db: &mut Connection,
    view: ViewId,
    version: i64,
    after: Option<&str>,
    rows_max: u32,
) -> Result<Option<Vec<(String, String)>>> {
    let rows = sqlx::query(
        "SELECT v.oldest_version, v.live_version, i.item, i.value FROM views v LEFT JOIN view_items i \
         ON i.view_id = v.id AND i.born <= $2 AND (i.died IS NULL OR i.died > $2) AND i.item > $3 \
         WHERE v.id = $1 ORDER BY i.item LIMIT $4",
    )
    .bind(view.uuid())
    .bind(version)
    // Before every item: none has an empty key.
    .bind(after.unwrap_or(""))
    .bind(i64::from(rows_max.max(1)))
    .fetch_all(db)
    .await?;
    let Some(first) = rows.first() else { return Err(Error::not_found("view", view)) };
    let (oldest, live): (i64, i64) = (first.try_get("oldest_version")?, first.try_get("live_version")?);
    if version < oldest || version > live {
        return Ok(None);
    }
    Ok(Some(found_items(&rows)?))
}

/// Generations that are looked at by one call, and rows that it removes.
const VIEWS_MAX: u16 = 200;
const ROWS_REMOVED_MAX: u64 = 5_000;

/// Which generations nobody reads any more is told by the few rows that are not marked yet, never by all there have been.
pub(in super::super) async fn remove_old(
    db: &mut Connection,
    now: Timestamp,
    keep: Duration,
) -> Result<GenerationsRemoved> {
    let rows = sqlx::query(
        "SELECT view_id, MAX(version) AS version FROM generations WHERE is_readable AND replaced_at IS NOT NULL \
         AND ((readable_until IS NULL AND replaced_at <= $1) OR readable_until <= $2) GROUP BY view_id ORDER BY view_id LIMIT $3",
    )
    .bind(now.minus(keep).micros())
    .bind(now.micros())
    .bind(i64::from(VIEWS_MAX))
    .fetch_all(&mut *db)
    .await?;
    let mut removed = GenerationsRemoved { rows: 0, is_more: rows.len() >= usize::from(VIEWS_MAX) };
    for row in rows {
        let left = ROWS_REMOVED_MAX.saturating_sub(removed.rows);
        if left == 0 {
            removed.is_more = true;
            break;
        }
        let view = views::lock(db, ViewId::from_uuid(row.try_get("view_id")?)).await?.id;
        let (rows, is_done) = remove_unread(db, view, row.try_get("version")?, left).await?;
        removed.rows += rows;
        removed.is_more |= !is_done;
    }
    Ok(removed)
}

/// Removes what only generations up to `newest_unread` could see, and what is said of those that are too old to be told of. Answers how many rows, of `rows_max`
/// at most, and whether that was all.
async fn remove_unread(
    db: &mut Connection,
    view: ViewId,
    newest_unread: i64,
    rows_max: u64,
) -> Result<(u64, bool)> {
    let oldest_kept: Option<i64> =
        sqlx::query("SELECT MIN(version) AS version FROM generations WHERE view_id = $1 AND version > $2")
            .bind(view.uuid())
            .bind(newest_unread)
            .fetch_one(&mut *db)
            .await?
            .try_get("version")?;
    let Some(oldest_kept) = oldest_kept else { return Ok((0, true)) };
    // First of all: whoever reads is told that it is not kept, before anything of it goes.
    sqlx::query("UPDATE views SET oldest_version = $2 WHERE id = $1 AND oldest_version < $2")
        .bind(view.uuid())
        .bind(oldest_kept)
        .execute(&mut *db)
        .await?;
    let mut removed = 0;
    for statement in [
        "DELETE FROM view_items WHERE view_id = $1 AND (item, born) IN (SELECT item, born FROM view_items \
         WHERE view_id = $1 AND died IS NOT NULL AND died <= $2 AND $4 > 0 LIMIT $3)",
        "DELETE FROM generations WHERE view_id = $1 AND version IN (SELECT version FROM generations \
         WHERE view_id = $1 AND version < $2 AND version < (SELECT version FROM generations \
         WHERE view_id = $1 ORDER BY version DESC LIMIT 1 OFFSET $4) ORDER BY version LIMIT $3)",
    ] {
        let left = rows_max.saturating_sub(removed);
        removed += sqlx::query(statement)
            .bind(view.uuid())
            .bind(oldest_kept)
            .bind(i64::try_from(left).unwrap_or(i64::MAX))
            .bind(i64::from(GENERATIONS_TOLD_MAX) - 1)
            .execute(&mut *db)
            .await?
            .rows_affected();
        if removed >= rows_max {
            return Ok((removed, false));
        }
    }
    sqlx::query(
        "DELETE FROM build_work WHERE view_id = $1 AND version < (SELECT MIN(version) FROM generations WHERE view_id = $1)",
    )
    .bind(view.uuid())
    .execute(&mut *db)
    .await?;
    // Not looked at again.
    sqlx::query(
        "UPDATE generations SET is_readable = FALSE WHERE view_id = $1 AND version < $2 AND is_readable",
    )
    .bind(view.uuid())
    .bind(oldest_kept)
    .execute(db)
    .await?;
    Ok((removed, true))
}
