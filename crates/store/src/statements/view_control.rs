//! Views in an operator's hands. As everywhere: the row is locked, `model::view` decides, the row is written back.

use async_trait::async_trait;
use recache_model::ids::{JobId, ViewId};
use recache_model::job::{ErrorKind, JobError, JobEvent};
use recache_model::time::Timestamp;
use sqlx::Row as _;
use uuid::Uuid;

use super::super::{Connection, Driver, ids};
use super::effects::Effects;
use super::jobs::{self, Change, job_columns};
use super::{build_workflows, chains, views};
use crate::chains::ViewName;
use crate::error::{Error, Result};
use crate::queues::Word;
use crate::records::{JobRecord, ViewRecord};
use crate::view_control::{ItemChange, Restored, ViewControl};

/// Names of views that keep another one from being deleted which the refusal gives.
const NAMED_MAX: usize = 5;

/// Rows of items that two generations, `$2` and the later `$3`, do not share.
macro_rules! differing {
    () => {
        "WHERE i.view_id = $1 AND ((i.born > $2 AND i.born <= $3 AND (i.died IS NULL OR i.died > $3)) \
         OR (i.born <= $2 AND i.died > $2 AND i.died <= $3))"
    };
}

#[async_trait]
impl ViewControl for Driver {
    async fn view_pause(&self, view: ViewName, word: Word) -> Result<bool> {
        word.check()?;
        self.write(work!([view, word] db, now, effects => pause(db, now, &view, &word, effects).await)).await
    }

    async fn view_resume(&self, view: ViewName) -> Result<bool> {
        self.write(work!([view] db, now, effects => resume(db, &view, effects).await)).await
    }

    async fn view_restore(&self, view: ViewName, version: i64, word: Word) -> Result<Restored> {
        word.check()?;
        self.write(
            work!([view, word] db, now, effects => restore(db, now, &view, version, &word, effects).await),
        )
        .await
    }

    async fn generations_diff(
        &self,
        view: ViewId,
        from: i64,
        to: i64,
        after: Option<String>,
        rows_max: u32,
    ) -> Result<Option<Vec<(String, ItemChange)>>> {
        self.read(look!([after] db, now => diff(db, view, (from, to), after.as_deref(), rows_max).await))
            .await
    }

    async fn view_builds(
        &self,
        view: ViewId,
        before: Option<JobId>,
        rows_max: u32,
    ) -> Result<Vec<JobRecord>> {
        self.read(look!([] db, now => builds(db, view, before, rows_max).await)).await
    }

    async fn builds_used(&self, view: ViewId, builds: Vec<JobId>) -> Result<Vec<(JobId, i64)>> {
        self.read(look!([builds] db, now => used(db, view, &builds).await)).await
    }

    async fn view_delete(&self, view: ViewName, word: Word) -> Result<()> {
        word.check()?;
        self.write(work!([view, word] db, now, effects => delete(db, now, &view, &word, effects).await)).await
    }

    async fn views_remove_deleted(&self, rows_max: u32) -> Result<u64> {
        self.write(work!([] db, now, effects => remove_deleted(db, rows_max).await)).await
    }
}

async fn pause(
    db: &mut Connection,
    now: Timestamp,
    name: &ViewName,
    word: &Word,
    effects: &mut Effects,
) -> Result<bool> {
    let mut view = views::lock_named(db, &name.namespace, &name.key).await?;
    if view.versions.is_paused {
        return Ok(false);
    }
    let policy = view.definition.policy;
    if view.versions.pause(&policy, now) {
        end_build(db, now, &mut view, ErrorKind::Cancelled, "its view is paused", effects).await?;
    }
    views::save(db, &view).await?;
    say_paused(db, now, view.id, word).await?;
    effects.view_changed(view.id);
    Ok(true)
}

async fn say_paused(db: &mut Connection, now: Timestamp, view: ViewId, word: &Word) -> Result<()> {
    sqlx::query("UPDATE views SET paused_at = $2, paused_by = $3, pause_reason = $4 WHERE id = $1")
        .bind(view.uuid())
        .bind(now.micros())
        .bind(&word.actor)
        .bind(&word.reason)
        .execute(db)
        .await?;
    Ok(())
}

async fn resume(db: &mut Connection, name: &ViewName, effects: &mut Effects) -> Result<bool> {
    let view = views::lock_named(db, &name.namespace, &name.key).await?;
    sqlx::query("UPDATE views SET paused_at = NULL, paused_by = NULL, pause_reason = NULL WHERE id = $1")
        .bind(view.id.uuid())
        .execute(db)
        .await?;
    effects.view_changed(view.id);
    Ok(view.versions.is_paused)
}

/// Ends the build job that the rules have taken from the view.
async fn end_build(
    db: &mut Connection,
    now: Timestamp,
    view: &mut ViewRecord,
    kind: ErrorKind,
    why: &str,
    effects: &mut Effects,
) -> Result<Option<JobId>> {
    let Some(build) = view.build.take() else { return Ok(None) };
    build_workflows::before_end(db, build).await?;
    let Some(job) = jobs::lock(db, build).await? else { return Ok(None) };
    let is_superseded = kind == ErrorKind::Superseded;
    let change = Change {
        error: Some(JobError::new(kind, why)),
        superseded_by: is_superseded.then_some(view.versions.wanted),
        ..Change::default()
    };
    let event = if is_superseded { JobEvent::Supersede } else { JobEvent::Cancel };
    jobs::advance(db, now, &job, event, change, effects).await?;
    Ok(Some(build))
}

async fn restore(
    db: &mut Connection,
    now: Timestamp,
    name: &ViewName,
    version: i64,
    word: &Word,
    effects: &mut Effects,
) -> Result<Restored> {
    let mut view = views::lock_named(db, &name.namespace, &name.key).await?;
    let live = view.versions.live;
    if version == live {
        return Err(Error::Conflict(format!("version {version} of view {name} is the live one")));
    }
    if !are_kept(db, view.id, &[version]).await? {
        return Err(Error::Conflict(format!(
            "version {version} of view {name} is no longer kept, or was never published"
        )));
    }
    let touched = view.versions.restore();
    let mut superseded = None;
    if touched.supersedes {
        let why = format!("version {version} is live again: {}", word.reason);
        superseded = end_build(db, now, &mut view, ErrorKind::Superseded, &why, effects).await?;
    }
    let new = touched.version;
    // The build after the pause must not take these for what the inputs say: they count as touched after the restoration.
    sqlx::query(concat!(
        "INSERT INTO view_touched_items (view_id, item, version) SELECT i.view_id, i.item, CAST($4 AS BIGINT) FROM view_items i ",
        differing!(),
        " GROUP BY i.view_id, i.item ON CONFLICT (view_id, item) DO UPDATE SET version = excluded.version"
    ))
    .bind(view.id.uuid())
    .bind(version)
    .bind(live)
    .bind(new + 1)
    .execute(&mut *db)
    .await?;
    let died = sqlx::query(
        "UPDATE view_items SET died = $3 WHERE view_id = $1 AND died IS NULL AND born > $2 \
         AND NOT EXISTS (SELECT 1 FROM view_items o WHERE o.view_id = view_items.view_id AND o.item = view_items.item \
         AND o.born <= $2 AND o.died > $2 AND o.digest = view_items.digest)",
    )
    .bind(view.id.uuid())
    .bind(version)
    .bind(new)
    .execute(&mut *db)
    .await?
    .rows_affected();
    let born = sqlx::query(
        "INSERT INTO view_items (view_id, item, born, died, fingerprint, digest, value) \
         SELECT o.view_id, o.item, CAST($3 AS BIGINT), NULL, o.fingerprint, o.digest, o.value FROM view_items o WHERE o.view_id = $1 \
         AND o.born <= $2 AND o.died > $2 AND NOT EXISTS (SELECT 1 FROM view_items l WHERE l.view_id = o.view_id \
         AND l.item = o.item AND l.died IS NULL)",
    )
    .bind(view.id.uuid())
    .bind(version)
    .bind(new)
    .execute(&mut *db)
    .await?
    .rows_affected();
    let replaced: i64 = sqlx::query(
        "SELECT CAST(COUNT(*) AS BIGINT) AS count FROM view_items n WHERE n.view_id = $1 AND n.born = $2 \
         AND EXISTS (SELECT 1 FROM view_items o WHERE o.view_id = n.view_id AND o.item = n.item AND o.died = $2)",
    )
    .bind(view.id.uuid())
    .bind(new)
    .fetch_one(&mut *db)
    .await?
    .try_get("count")?;
    let items_removed = died.saturating_sub(u64::try_from(replaced).unwrap_or(0));
    let restored = Restored { view: view.id, version: new, items_changed: born, items_removed, superseded };
    let readable_until = views::readable_until(&view.definition, now);
    record_restored(db, now, &restored, version, word, readable_until).await?;
    view.last_recached_at = Some(now);
    view.last_error = None;
    view.live_stamp = Some(Uuid::new_v4());
    views::save(db, &view).await?;
    say_paused(db, now, view.id, word).await?;
    if born > 0 || items_removed > 0 {
        chains::published(db, view.id, None, effects).await?;
    }
    effects.published(view.id, new);
    effects.view_changed(view.id);
    Ok(restored)
}

async fn record_restored(
    db: &mut Connection,
    now: Timestamp,
    restored: &Restored,
    from: i64,
    word: &Word,
    readable_until: Option<i64>,
) -> Result<()> {
    sqlx::query("UPDATE generations SET replaced_at = $2, readable_until = $3 WHERE view_id = $1 AND replaced_at IS NULL")
        .bind(restored.view.uuid())
        .bind(now.micros())
        .bind(readable_until)
        .execute(&mut *db)
        .await?;
    let number = |count: u64| i64::try_from(count).unwrap_or(i64::MAX);
    sqlx::query(
        "INSERT INTO generations (view_id, version, published_at, items_total, items_changed, items_removed, \
         items_computed, items_reused, build_us, restored_from, restored_by, restore_reason) \
         SELECT $1, $2, $3, CAST(COUNT(*) AS BIGINT), $4, $5, 0, CAST(COUNT(*) AS BIGINT), 0, $6, $7, $8 \
         FROM view_items WHERE view_id = $1 AND died IS NULL",
    )
    .bind(restored.view.uuid())
    .bind(restored.version)
    .bind(now.micros())
    .bind(number(restored.items_changed))
    .bind(number(restored.items_removed))
    .bind(from)
    .bind(&word.actor)
    .bind(&word.reason)
    .execute(db)
    .await?;
    Ok(())
}

/// Whether all of these generations can still be read.
async fn are_kept(db: &mut Connection, view: ViewId, versions: &[i64]) -> Result<bool> {
    for version in versions {
        let row = sqlx::query(
            "SELECT 1 AS kept FROM generations g JOIN views v ON v.id = g.view_id WHERE g.view_id = $1 \
             AND g.version = $2 AND g.version >= v.oldest_version",
        )
        .bind(view.uuid())
        .bind(version)
        .fetch_optional(&mut *db)
        .await?;
        if row.is_none() {
            return Ok(false);
        }
    }
    Ok(true)
}

async fn diff(
    db: &mut Connection,
    view: ViewId,
    (from, to): (i64, i64),
    after: Option<&str>,
    rows_max: u32,
) -> Result<Option<Vec<(String, ItemChange)>>> {
    if !are_kept(db, view, &[from, to]).await? {
        return Ok(None);
    }
    let rows = sqlx::query(concat!(
        "SELECT i.item, MAX(CASE WHEN i.born <= $2 THEN i.digest END) AS older, \
         MAX(CASE WHEN i.born > $2 THEN i.digest END) AS newer FROM view_items i ",
        differing!(),
        " AND i.item > $4 GROUP BY i.item \
         HAVING COALESCE(MAX(CASE WHEN i.born <= $2 THEN i.digest END), '') \
         <> COALESCE(MAX(CASE WHEN i.born > $2 THEN i.digest END), '') ORDER BY i.item LIMIT $5"
    ))
    .bind(view.uuid())
    .bind(from.min(to))
    .bind(from.max(to))
    .bind(after.unwrap_or(""))
    .bind(i64::from(rows_max.max(1)))
    .fetch_all(db)
    .await?;
    let mut changes = Vec::with_capacity(rows.len());
    for row in rows {
        let (older, newer): (Option<String>, Option<String>) = (row.try_get("older")?, row.try_get("newer")?);
        let (first, second) = if from <= to { (older, newer) } else { (newer, older) };
        let change = match (first.is_some(), second.is_some()) {
            (true, true) => ItemChange::Changed,
            (false, _) => ItemChange::Added,
            (true, false) => ItemChange::Removed,
        };
        changes.push((row.try_get("item")?, change));
    }
    Ok(Some(changes))
}

async fn builds(
    db: &mut Connection,
    view: ViewId,
    before: Option<JobId>,
    rows_max: u32,
) -> Result<Vec<JobRecord>> {
    let rows = sqlx::query(concat!(
        "SELECT ",
        job_columns!(),
        " FROM jobs WHERE view_id = $1 AND ($2 OR id < $3) ORDER BY id DESC LIMIT $4"
    ))
    .bind(view.uuid())
    .bind(before.is_none())
    .bind(before.map_or(Uuid::nil(), JobId::uuid))
    .bind(i64::from(rows_max))
    .fetch_all(db)
    .await?;
    rows.iter().map(jobs::record).collect()
}

/// The row stays, without a name, until nothing refers to it: its build jobs are removed when their time has come.
async fn delete(
    db: &mut Connection,
    now: Timestamp,
    name: &ViewName,
    word: &Word,
    effects: &mut Effects,
) -> Result<()> {
    chains::lock_graph(db).await?;
    let mut view = views::lock_named(db, &name.namespace, &name.key).await?;
    let below = chains::below(db, view.id).await?;
    if !below.is_empty() {
        let names: Vec<String> = below.iter().take(NAMED_MAX).map(ToString::to_string).collect();
        let more = if below.len() > NAMED_MAX { " and others" } else { "" };
        return Err(Error::Conflict(format!(
            "view {name} cannot be deleted: {}{more} is made from it",
            names.join(", ")
        )));
    }
    let why = format!("its view was deleted by {}: {}", word.actor, word.reason);
    end_build(db, now, &mut view, ErrorKind::Cancelled, &why, effects).await?;
    sqlx::query("DELETE FROM view_sources WHERE view_id = $1").bind(view.id.uuid()).execute(&mut *db).await?;
    sqlx::query(
        "UPDATE views SET namespace = '', key = $2, recache_status = 'failed', last_error = $3, \
         processing_version = NULL, began_at = NULL, build_job_id = NULL, due_at = NULL, dirty_since = NULL, \
         dirty_since_begin = NULL, lease_epoch = lease_epoch + 1 WHERE id = $1",
    )
    .bind(view.id.uuid())
    .bind(view.id.to_string())
    .bind(&why)
    .execute(db)
    .await?;
    effects.view_changed(view.id);
    Ok(())
}

async fn remove_deleted(db: &mut Connection, rows_max: u32) -> Result<u64> {
    let row = sqlx::query(
        "SELECT id FROM views v WHERE namespace = '' AND (EXISTS (SELECT 1 FROM view_items i WHERE i.view_id = v.id) \
         OR EXISTS (SELECT 1 FROM view_staged s WHERE s.view_id = v.id) \
         OR EXISTS (SELECT 1 FROM view_kept k WHERE k.view_id = v.id) \
         OR EXISTS (SELECT 1 FROM view_touched_items t WHERE t.view_id = v.id) \
         OR EXISTS (SELECT 1 FROM generations g WHERE g.view_id = v.id) \
         OR EXISTS (SELECT 1 FROM build_work w WHERE w.view_id = v.id) \
         OR NOT EXISTS (SELECT 1 FROM jobs j WHERE j.view_id = v.id)) ORDER BY id LIMIT 1",
    )
    .fetch_optional(&mut *db)
    .await?;
    let Some(row) = row else { return Ok(0) };
    let view: Uuid = row.try_get("id")?;
    let mut removed = 0;
    for statement in [
        "DELETE FROM view_items WHERE view_id = $1 AND (item, born) IN \
         (SELECT item, born FROM view_items WHERE view_id = $1 LIMIT $2)",
        "DELETE FROM view_staged WHERE view_id = $1 AND item IN \
         (SELECT item FROM view_staged WHERE view_id = $1 LIMIT $2)",
        "DELETE FROM view_kept WHERE view_id = $1 AND id IN (SELECT id FROM view_kept WHERE view_id = $1 LIMIT $2)",
        "DELETE FROM view_touched_items WHERE view_id = $1 AND item IN \
         (SELECT item FROM view_touched_items WHERE view_id = $1 LIMIT $2)",
        "DELETE FROM generations WHERE view_id = $1 AND version IN \
         (SELECT version FROM generations WHERE view_id = $1 LIMIT $2)",
        "DELETE FROM build_work WHERE view_id = $1 AND job_id IN \
         (SELECT job_id FROM build_work WHERE view_id = $1 LIMIT $2)",
    ] {
        let left = i64::from(rows_max) - i64::try_from(removed).unwrap_or(i64::MAX);
        if left <= 0 {
            return Ok(removed);
        }
        removed += sqlx::query(statement).bind(view).bind(left).execute(&mut *db).await?.rows_affected();
    }
    if removed == 0 {
        removed =
            sqlx::query("DELETE FROM views WHERE id = $1").bind(view).execute(db).await?.rows_affected();
    }
    Ok(removed)
}

async fn used(db: &mut Connection, view: ViewId, builds: &[JobId]) -> Result<Vec<(JobId, i64)>> {
    let builds: Vec<Uuid> = builds.iter().map(|build| build.uuid()).collect();
    let rows = sqlx::query(concat!(
        "SELECT job_id, items_used FROM build_work WHERE view_id = $1 AND job_id ",
        in_ids!("$2")
    ))
    .bind(view.uuid())
    .bind(ids(&builds))
    .fetch_all(db)
    .await?;
    rows.iter()
        .map(|row| Ok((JobId::from_uuid(row.try_get("job_id")?), row.try_get("items_used")?)))
        .collect()
}
