//! Views: the row is locked, `model::view` decides, the row is written back.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::time::Duration;

use recache_model::ids::{JobId, ViewId};
use recache_model::job::{ErrorKind, JobError, JobEvent};
use recache_model::time::Timestamp;
use recache_model::trace::TraceContext;
use recache_model::unique::KEY_BYTES_MAX;
use recache_model::view::Versions;
use sqlx::Row as _;
use uuid::Uuid;

use super::super::{Connection, Row, bulk, ids};
use super::effects::Effects;
use super::jobs::{self, Change};
use super::{build_workflows, held_items, touch_requests, view_patterns};
use crate::error::{Error, Result};
use crate::fail::fail_point;
use crate::flow::FLOW;
use crate::held_items::item_digest;
use crate::queues::Word;
use crate::records::{
    Due, GenerationRecord, NewJob, NewView, Reconciled, TOUCH_TRACES_MAX, Touch, TouchOutcome, TouchSource,
    ViewRecord,
};
use crate::traces::Traced;
use crate::view_control::{Restoration, ViewPause};

macro_rules! view_columns {
    () => {
        "id, namespace, key, handler, queue, policy, retry, timeout_ms, recache_version, processing_version, \
         live_version, recache_status, lease_epoch, build_job_id, dirty_since, dirty_since_begin, touched_at, \
         due_at, began_at, last_build_us, last_recached_at, last_error, paused_at, paused_by, pause_reason, \
         touched_by, touch_reason, waits_since, item_key_schema, item_value_schema, pattern, live_stamp, options, touch_source"
    };
}

pub(super) fn record(row: &Row) -> Result<ViewRecord> {
    let status: String = row.try_get("recache_status")?;
    let policy: String = row.try_get("policy")?;
    let retry: String = row.try_get("retry")?;
    let build: Option<Uuid> = row.try_get("build_job_id")?;
    let paused_at = jobs::instant(row, "paused_at")?;
    let pause = match (paused_at, word(row, "paused_by", "pause_reason")?) {
        (Some(at), Some(word)) => Some(ViewPause { at, word }),
        _ => None,
    };
    Ok(ViewRecord {
        id: ViewId::from_uuid(row.try_get("id")?),
        definition: NewView {
            namespace: row.try_get("namespace")?,
            key: row.try_get("key")?,
            handler: row.try_get("handler")?,
            queue: row.try_get("queue")?,
            policy: jobs::json("policy", &policy)?,
            retry: jobs::json("retry", &retry)?,
            timeout: jobs::milliseconds(row, "timeout_ms")?,
            rules: view_patterns::rules(row)?,
            options: build_workflows::options(row)?,
        },
        versions: Versions {
            wanted: row.try_get("recache_version")?,
            processing: row.try_get("processing_version")?,
            live: row.try_get("live_version")?,
            status: status.parse().map_err(|error| Error::broken(format!("recache_status: {error}")))?,
            lease_epoch: row.try_get("lease_epoch")?,
            has_build: build.is_some(),
            dirty_since: jobs::instant(row, "dirty_since")?,
            dirty_since_begin: jobs::instant(row, "dirty_since_begin")?,
            touched_at: jobs::instant(row, "touched_at")?,
            waits_since: jobs::instant(row, "waits_since")?,
            due_at: jobs::instant(row, "due_at")?,
            began_at: jobs::instant(row, "began_at")?,
            last_build: jobs::duration(row.try_get("last_build_us")?),
            is_paused: paused_at.is_some(),
        },
        build: build.map(JobId::from_uuid),
        last_recached_at: jobs::instant(row, "last_recached_at")?,
        last_error: row.try_get("last_error")?,
        pause,
        touched_by: word(row, "touched_by", "touch_reason")?,
        touch_source: TouchSource::from_kept(row.try_get::<Option<&str>, _>("touch_source")?),
        pattern: row.try_get("pattern")?,
        live_stamp: row.try_get("live_stamp")?,
    })
}

fn word(row: &Row, actor: &str, reason: &str) -> Result<Option<Word>> {
    let (actor, reason): (Option<String>, Option<String>) = (row.try_get(actor)?, row.try_get(reason)?);
    Ok(actor.zip(reason).map(|(actor, reason)| Word { actor, reason }))
}

pub(in super::super) async fn define(
    db: &mut Connection,
    now: Timestamp,
    view: &NewView,
) -> Result<ViewRecord> {
    view.check()?;
    if view.options.concurrency.is_some() {
        let named = format!("{}/{}", view.namespace, view.key);
        return Err(Error::Invalid(format!(
            "view {named}: `concurrency` is of a pattern: of one view never more than one build runs"
        )));
    }
    held_items::check_definition(db, &view.namespace, &view.key, view).await?;
    let (key_schema, value_schema) = view_patterns::schemas(&view.rules);
    let row = sqlx::query(concat!(
        "INSERT INTO views (id, namespace, key, handler, queue, policy, retry, timeout_ms, created_at, item_key_schema, \
         item_value_schema, options) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12) \
         ON CONFLICT (namespace, key) DO UPDATE SET handler = excluded.handler, queue = excluded.queue, \
         policy = excluded.policy, retry = excluded.retry, timeout_ms = excluded.timeout_ms, \
         item_key_schema = excluded.item_key_schema, item_value_schema = excluded.item_value_schema, \
         options = excluded.options, pattern = NULL RETURNING ",
        view_columns!()
    ))
    .bind(ViewId::make().uuid())
    .bind(&view.namespace)
    .bind(&view.key)
    .bind(&view.handler)
    .bind(&view.queue)
    .bind(jobs::to_json(&view.policy)?)
    .bind(jobs::to_json(&view.retry)?)
    .bind(jobs::timeout_ms(view.timeout))
    .bind(now.micros())
    .bind(key_schema)
    .bind(value_schema)
    .bind(build_workflows::options_text(&view.options)?)
    .fetch_one(&mut *db)
    .await?;
    let record = record(&row)?;
    follow_definition(db, record.id, &record.definition).await?;
    Ok(record)
}

/// Builds that wait, in their first attempt or for another one, are made as their view is defined now: handler, queue, retry, attempts, timeout. An attempt
/// that is queued already is made, however few shall be. One that a workflow does goes on.
macro_rules! builds_follow {
    ($which:literal) => {
        concat!(
            "UPDATE jobs SET handler = $1, queue = $2, retry = $3, timeout_ms = CAST($5 AS BIGINT), attempts_max = \
             CASE WHEN attempt >= CAST($4 AS BIGINT) THEN attempt + 1 ELSE CAST($4 AS BIGINT) END, \
             concurrency_key = CAST($6 AS TEXT) \
             WHERE state = 'queued' AND sub_workflow_id IS NULL AND (handler <> $1 OR queue <> $2 OR retry <> $3 \
             OR COALESCE(timeout_ms, 0) <> COALESCE(CAST($5 AS BIGINT), 0) \
             OR COALESCE(concurrency_key, '') <> COALESCE(CAST($6 AS TEXT), '')) AND ",
            $which
        )
    };
}

/// What is still readable of generations that were replaced is kept as long as their view says now.
macro_rules! kept_follow {
    ($which:literal) => {
        concat!(
            "UPDATE generations SET readable_until = replaced_at + CAST($1 AS BIGINT) * 1000 WHERE is_readable \
             AND replaced_at IS NOT NULL AND COALESCE(readable_until - replaced_at, -1) <> COALESCE(CAST($1 AS BIGINT) * 1000, -1) AND ",
            $which
        )
    };
}

pub(super) async fn follow_definition(db: &mut Connection, view: ViewId, definition: &NewView) -> Result<()> {
    sqlx::query(builds_follow!("view_id = $7"))
        .bind(&definition.handler)
        .bind(&definition.queue)
        .bind(jobs::to_json(&definition.retry)?)
        .bind(i64::from(definition.retry.attempts_max))
        .bind(jobs::timeout_ms(definition.timeout))
        .bind(None::<&str>)
        .bind(view.uuid())
        .execute(&mut *db)
        .await?;
    sqlx::query(kept_follow!("view_id = $2"))
        .bind(millis(definition.options.generation_keep_ms))
        .bind(view.uuid())
        .execute(&mut *db)
        .await?;
    sqlx::query("UPDATE views SET build_lease_ms = CAST($2 AS BIGINT) WHERE id = $1")
        .bind(view.uuid())
        .bind(millis(definition.options.lease_ms))
        .execute(db)
        .await?;
    Ok(())
}

/// As the store keeps a length of time that a definition gives in milliseconds.
pub(super) fn millis(ms: Option<u64>) -> Option<i64> {
    ms.map(|ms| i64::try_from(ms).unwrap_or(i64::MAX))
}

/// Until when a generation that is replaced now can be read, where its view says so.
pub(super) fn readable_until(definition: &NewView, now: Timestamp) -> Option<i64> {
    definition.options.generation_keep_ms.map(|ms| now.plus(Duration::from_millis(ms)).micros())
}

/// With which others a build of a view of a pattern may not run.
pub(super) fn builds_key(pattern: &str) -> String {
    let key = format!("views {pattern}");
    if key.len() <= KEY_BYTES_MAX { key } else { format!("views {}", item_digest(pattern)) }
}

/// The same of all views that were made from a pattern.
pub(super) async fn follow_pattern(db: &mut Connection, pattern: &NewView) -> Result<()> {
    sqlx::query(builds_follow!(
        "id IN (SELECT build_job_id FROM views WHERE namespace = $7 AND pattern = $8 AND build_job_id IS NOT NULL)"
    ))
    .bind(&pattern.handler)
    .bind(&pattern.queue)
    .bind(jobs::to_json(&pattern.retry)?)
    .bind(i64::from(pattern.retry.attempts_max))
    .bind(jobs::timeout_ms(pattern.timeout))
    .bind(pattern.options.concurrency.map(|_| builds_key(&pattern.key)))
    .bind(&pattern.namespace)
    .bind(&pattern.key)
    .execute(&mut *db)
    .await?;
    sqlx::query(kept_follow!("view_id IN (SELECT id FROM views WHERE namespace = $2 AND pattern = $3)"))
        .bind(millis(pattern.options.generation_keep_ms))
        .bind(&pattern.namespace)
        .bind(&pattern.key)
        .execute(&mut *db)
        .await?;
    sqlx::query("UPDATE views SET build_lease_ms = CAST($3 AS BIGINT) WHERE namespace = $1 AND pattern = $2")
        .bind(&pattern.namespace)
        .bind(&pattern.key)
        .bind(millis(pattern.options.lease_ms))
        .execute(db)
        .await?;
    Ok(())
}

pub(in super::super) async fn get(db: &mut Connection, namespace: &str, key: &str) -> Result<ViewRecord> {
    let row =
        sqlx::query(concat!("SELECT ", view_columns!(), " FROM views WHERE namespace = $1 AND key = $2"))
            .bind(namespace)
            .bind(key)
            .fetch_optional(db)
            .await?
            .ok_or_else(|| Error::not_found("view", format!("{namespace}/{key}")))?;
    record(&row)
}

/// The view, made now where a pattern covers its key and nobody touched it before.
pub(super) async fn get_or_make(
    db: &mut Connection,
    now: Timestamp,
    namespace: &str,
    key: &str,
) -> Result<ViewRecord> {
    match get(db, namespace, key).await {
        Err(Error::NotFound { .. }) if view_patterns::make(db, now, namespace, key).await? => {
            get(db, namespace, key).await
        }
        found => found,
    }
}

pub(in super::super) async fn list(
    db: &mut Connection,
    namespace: Option<&str>,
    after: Option<&(String, String)>,
    rows_max: u32,
) -> Result<Vec<ViewRecord>> {
    let rows = sqlx::query(concat!(
        "SELECT ",
        view_columns!(),
        " FROM views WHERE namespace <> '' AND (CAST($1 AS TEXT) IS NULL OR namespace = $1) \
         AND (CAST($2 AS TEXT) IS NULL OR (namespace, key) > ($2, $3)) ORDER BY namespace, key LIMIT $4"
    ))
    .bind(namespace)
    .bind(after.map(|(namespace, _)| namespace))
    .bind(after.map(|(_, key)| key))
    .bind(i64::from(rows_max))
    .fetch_all(db)
    .await?;
    rows.iter().map(record).collect()
}

pub(super) async fn lock(db: &mut Connection, view: ViewId) -> Result<ViewRecord> {
    let row = sqlx::query(concat!("SELECT ", view_columns!(), " FROM views WHERE id = $1", for_update!()))
        .bind(view.uuid())
        .fetch_optional(db)
        .await?
        .ok_or_else(|| Error::not_found("view", view))?;
    record(&row)
}

pub(super) async fn lock_named(db: &mut Connection, namespace: &str, key: &str) -> Result<ViewRecord> {
    let row = sqlx::query(concat!(
        "SELECT ",
        view_columns!(),
        " FROM views WHERE namespace = $1 AND key = $2",
        for_update!()
    ))
    .bind(namespace)
    .bind(key)
    .fetch_optional(db)
    .await?
    .ok_or_else(|| Error::not_found("view", format!("{namespace}/{key}")))?;
    record(&row)
}

/// Writes back what the rules may have changed.
pub(super) async fn save(db: &mut Connection, view: &ViewRecord) -> Result<()> {
    let versions = &view.versions;
    sqlx::query(
        "UPDATE views SET recache_version = $2, processing_version = $3, live_version = $4, recache_status = $5, \
         lease_epoch = $6, build_job_id = $7, dirty_since = $8, dirty_since_begin = $9, touched_at = $10, \
         due_at = $11, began_at = $12, last_build_us = $13, last_recached_at = $14, last_error = $15, touched_by = $16, \
         touch_reason = $17, waits_since = $18, live_stamp = $19, touch_source = $20 WHERE id = $1",
    )
    .bind(view.id.uuid())
    .bind(versions.wanted)
    .bind(versions.processing)
    .bind(versions.live)
    .bind(versions.status.as_str())
    .bind(versions.lease_epoch)
    .bind(view.build.filter(|_| versions.has_build).map(JobId::uuid))
    .bind(versions.dirty_since.map(Timestamp::micros))
    .bind(versions.dirty_since_begin.map(Timestamp::micros))
    .bind(versions.touched_at.map(Timestamp::micros))
    .bind(versions.due_at.map(Timestamp::micros))
    .bind(versions.began_at.map(Timestamp::micros))
    .bind(jobs::duration_micros(versions.last_build))
    .bind(view.last_recached_at.map(Timestamp::micros))
    .bind(&view.last_error)
    .bind(view.touched_by.as_ref().map(|word| &word.actor))
    .bind(view.touched_by.as_ref().map(|word| &word.reason))
    .bind(versions.waits_since.map(Timestamp::micros))
    .bind(view.live_stamp)
    .bind(view.touch_source.kept())
    .execute(db)
    .await?;
    Ok(())
}

pub(in super::super) async fn touch(
    db: &mut Connection,
    now: Timestamp,
    touches: &[Touch],
    effects: &mut Effects,
) -> Result<Vec<TouchOutcome>> {
    touch_from(db, now, touches, &[], effects).await
}

/// `sources`: by which way each touch came, in their order; by a call where nothing is said.
pub(super) async fn touch_from(
    db: &mut Connection,
    now: Timestamp,
    touches: &[Touch],
    sources: &[TouchSource],
    effects: &mut Effects,
) -> Result<Vec<TouchOutcome>> {
    for touch in touches {
        touch.check()?;
    }
    if touches.is_empty() {
        return Ok(Vec::new());
    }
    if let [touch] = touches {
        let source = sources.first().cloned().unwrap_or_default();
        return Ok(vec![touch_one(db, now, touch, source, effects).await?]);
    }
    touch_many(db, now, touches, sources, effects).await
}

/// What touches did to the views that they named, to be written together.
#[derive(Debug, Default)]
struct ManyTouched {
    /// The versions from which on any item may be affected.
    all: HashMap<ViewId, i64>,
    /// The versions for which items were named.
    items: BTreeMap<(ViewId, String), i64>,
}

/// Several touches, in as many statements as one however many they are; builds that they end, and traces, cost some of their own.
async fn touch_many(
    db: &mut Connection,
    now: Timestamp,
    touches: &[Touch],
    sources: &[TouchSource],
    effects: &mut Effects,
) -> Result<Vec<TouchOutcome>> {
    let mut views = lock_touched(db, now, touches).await?;
    let mut touched = ManyTouched::default();
    let mut outcomes = Vec::with_capacity(touches.len());
    for (place, touch) in touches.iter().enumerate() {
        let view = views.get_mut(&(touch.namespace.clone(), touch.key.clone()));
        let view = view.ok_or_else(|| Error::broken("a view that is to be touched was not locked"))?;
        let source = sources.get(place).cloned().unwrap_or_default();
        let (version, superseded) = apply(db, now, view, touch, source, effects).await?;
        if touch.items.is_empty() {
            touched.all.insert(view.id, version);
        }
        touched.items.extend(touch.items.iter().map(|item| ((view.id, item.clone()), version)));
        for trace in touch.traces.iter().take(usize::from(TOUCH_TRACES_MAX)) {
            keep_trace(db, now, view.id, trace).await?;
        }
        effects.view_changed(view.id);
        outcomes.push(TouchOutcome { view: view.id, version, superseded });
    }
    let rows: Vec<(&ViewRecord, i64)> =
        views.values().map(|view| (view, touched.all.get(&view.id).copied().unwrap_or_default())).collect();
    bulk::views_touched(db, &rows).await?;
    if !touched.items.is_empty() {
        let items: Vec<_> =
            touched.items.iter().map(|((view, item), version)| (*view, item.as_str(), *version)).collect();
        bulk::touched_items(db, &items).await?;
    }
    Ok(outcomes)
}

/// Locks the views that touches name, and the workflows that do their builds: all views before the first workflow, as the order of locks wants it. Those
/// that a pattern covers are made first.
async fn lock_touched(
    db: &mut Connection,
    now: Timestamp,
    touches: &[Touch],
) -> Result<HashMap<(String, String), ViewRecord>> {
    let names: BTreeSet<(String, String)> =
        touches.iter().map(|touch| (touch.namespace.clone(), touch.key.clone())).collect();
    let pairs = jobs::to_json(&names)?;
    let there =
        sqlx::query(concat!("SELECT namespace, key FROM views WHERE (namespace, key) ", in_pairs!("$1")))
            .bind(&pairs)
            .fetch_all(&mut *db)
            .await?;
    if there.len() < names.len() {
        let mut known = BTreeSet::new();
        for row in &there {
            known.insert((row.try_get::<String, _>("namespace")?, row.try_get::<String, _>("key")?));
        }
        for (namespace, key) in names.difference(&known) {
            if !view_patterns::make(db, now, namespace, key).await? {
                return Err(Error::not_found("view", format!("{namespace}/{key}")));
            }
        }
    }
    let rows = sqlx::query(concat!(
        "SELECT ",
        view_columns!(),
        " FROM views WHERE (namespace, key) ",
        in_pairs!("$1"),
        " ORDER BY id",
        for_update!()
    ))
    .bind(&pairs)
    .fetch_all(&mut *db)
    .await?;
    let mut locked = HashMap::with_capacity(rows.len());
    let mut builds = Vec::new();
    for row in &rows {
        let view = record(row)?;
        let name = (view.definition.namespace.clone(), view.definition.key.clone());
        if view.definition.handler == FLOW {
            builds.push(view.id.uuid());
        }
        locked.insert(name, view);
    }
    // Deleted since it was looked for.
    if let Some((namespace, key)) = names.iter().find(|name| !locked.contains_key(*name)) {
        return Err(Error::not_found("view", format!("{namespace}/{key}")));
    }
    if !builds.is_empty() {
        build_workflows::lock_all(db, &builds).await?;
    }
    Ok(locked)
}

/// Has the rules say what a touch does to a view, which is locked, and ends the build that it supersedes. Answers the version that is wanted now.
async fn apply(
    db: &mut Connection,
    now: Timestamp,
    view: &mut ViewRecord,
    touch: &Touch,
    source: TouchSource,
    effects: &mut Effects,
) -> Result<(i64, Option<JobId>)> {
    view.touched_by.clone_from(&touch.word);
    view.touch_source = source;
    let policy = view.definition.policy;
    let touched =
        if touch.at_once { view.versions.rebuild(&policy, now) } else { view.versions.touch(&policy, now) };
    let mut superseded = None;
    if touched.supersedes
        && let Some(build) = view.build.take()
    {
        if view.definition.handler == FLOW {
            build_workflows::before_end(db, build).await?;
        }
        supersede(db, now, build, touched.version, effects).await?;
        fail_point!("supersede.between");
        superseded = Some(build);
    }
    Ok((touched.version, superseded))
}

async fn touch_one(
    db: &mut Connection,
    now: Timestamp,
    touch: &Touch,
    source: TouchSource,
    effects: &mut Effects,
) -> Result<TouchOutcome> {
    let mut view = match lock_named(db, &touch.namespace, &touch.key).await {
        Err(Error::NotFound { .. }) if view_patterns::make(db, now, &touch.namespace, &touch.key).await? => {
            lock_named(db, &touch.namespace, &touch.key).await?
        }
        found => found?,
    };
    let (version, superseded) = apply(db, now, &mut view, touch, source, effects).await?;
    bulk::views_touched(db, &[(&view, if touch.items.is_empty() { version } else { 0 })]).await?;
    let items: BTreeSet<&str> = touch.items.iter().map(String::as_str).collect();
    if !items.is_empty() {
        let items: Vec<_> = items.into_iter().map(|item| (view.id, item, version)).collect();
        bulk::touched_items(db, &items).await?;
    }
    for trace in touch.traces.iter().take(usize::from(TOUCH_TRACES_MAX)) {
        keep_trace(db, now, view.id, trace).await?;
    }
    effects.view_changed(view.id);
    Ok(TouchOutcome { view: view.id, version, superseded })
}

/// Keeps the trace of a touch for the build that will answer it. The view's row is locked.
async fn keep_trace(db: &mut Connection, now: Timestamp, view: ViewId, trace: &str) -> Result<()> {
    if trace.parse::<TraceContext>().is_err() {
        return Ok(());
    }
    sqlx::query(
        "INSERT INTO view_touch_traces (view_id, trace_context, at) SELECT id, CAST($2 AS TEXT), CAST($3 AS BIGINT) FROM views \
         WHERE id = $1 AND (SELECT count(*) FROM view_touch_traces WHERE view_id = $1) < $4 \
         ON CONFLICT (view_id, trace_context) DO NOTHING",
    )
    .bind(view.uuid())
    .bind(trace)
    .bind(now.micros())
    .bind(i64::from(TOUCH_TRACES_MAX))
    .execute(db)
    .await?;
    Ok(())
}

/// The traces of the touches that builds of these views answer, by view, the newest first; they are taken away.
async fn take_traces(db: &mut Connection, views: &[Uuid]) -> Result<HashMap<Uuid, Vec<String>>> {
    let mut taken: HashMap<Uuid, Vec<(i64, String)>> = HashMap::new();
    if views.is_empty() {
        return Ok(HashMap::new());
    }
    let rows = sqlx::query(concat!(
        "DELETE FROM view_touch_traces WHERE view_id ",
        in_ids!("$1"),
        " RETURNING view_id, trace_context, at"
    ))
    .bind(ids(views))
    .fetch_all(db)
    .await?;
    for row in &rows {
        taken
            .entry(row.try_get("view_id")?)
            .or_default()
            .push((row.try_get("at")?, row.try_get("trace_context")?));
    }
    let newest_first = |mut traces: Vec<(i64, String)>| {
        traces.sort_unstable();
        traces.into_iter().rev().map(|(_, trace)| trace).collect()
    };
    Ok(taken.into_iter().map(|(view, traces)| (view, newest_first(traces))).collect())
}

async fn supersede(
    db: &mut Connection,
    now: Timestamp,
    build: JobId,
    version: i64,
    effects: &mut Effects,
) -> Result<()> {
    let Some(job) = jobs::lock(db, build).await? else { return Ok(()) };
    let change = Change {
        error: Some(JobError::new(ErrorKind::Superseded, format!("version {version} is wanted"))),
        superseded_by: Some(version),
        ..Change::default()
    };
    jobs::advance(db, now, &job, JobEvent::Supersede, change, effects).await?;
    Ok(())
}

/// A build job ended without a version. The view's row is locked by the caller.
pub(super) async fn build_ended(
    db: &mut Connection,
    now: Timestamp,
    view: ViewId,
    why: &str,
    effects: &mut Effects,
) -> Result<()> {
    let mut view = lock(db, view).await?;
    let policy = view.definition.policy;
    view.versions.build_ended(&policy, now);
    view.build = None;
    view.last_error = Some(why.to_owned());
    effects.view_changed(view.id);
    save(db, &view).await
}

pub(in super::super) async fn reconcile(
    db: &mut Connection,
    now: Timestamp,
    rows_max: u32,
    effects: &mut Effects,
) -> Result<Reconciled> {
    let are_more = touch_requests::take(db, now, effects).await?;
    let rows = sqlx::query(concat!(
        "SELECT ",
        view_columns!(),
        " FROM views WHERE due_at IS NOT NULL AND paused_at IS NULL AND due_at <= $1 ORDER BY due_at LIMIT $2",
        for_update_skip_locked!()
    ))
    .bind(now.micros())
    .bind(i64::from(rows_max))
    .fetch_all(&mut *db)
    .await?;
    let mut reconciled = Reconciled::default();
    let mut views = rows.iter().map(record).collect::<Result<Vec<_>>>()?;
    views.retain(|view| view.versions.is_due(now));
    let named: Vec<Uuid> = views.iter().map(|view| view.id.uuid()).collect();
    let traces = take_traces(db, &named).await?;
    for mut view in views {
        let mut job = build_job(&view);
        let from = traces.get(&view.id.uuid()).map(Vec::as_slice).unwrap_or_default();
        let parent = from.first().map(String::as_str);
        if let Some(traced) = Traced::of(job.id, parent, from.iter().map(String::as_str)) {
            job.trace_context = Some(traced.place.to_string());
            reconciled.traced.push(traced);
        }
        view.versions.build_created();
        view.build = Some(job.id);
        jobs::insert(db, now, &job, Some((view.id, view.versions.wanted))).await?;
        save(db, &view).await?;
        effects.queued(&job.queue);
        reconciled.builds.push((job.id, job.queue));
    }
    let next: Option<i64> =
        sqlx::query("SELECT MIN(due_at) AS due_at FROM views WHERE due_at IS NOT NULL AND paused_at IS NULL")
            .fetch_one(db)
            .await?
            .try_get("due_at")?;
    let next_due = next.map(|due| Timestamp::from_micros(due).since(now));
    reconciled.next_due = if are_more { Some(Duration::ZERO) } else { next_due };
    Ok(reconciled)
}

fn build_job(view: &ViewRecord) -> NewJob {
    let definition = &view.definition;
    let input = serde_json::json!({ "namespace": definition.namespace, "key": definition.key });
    let concurrency = definition.options.concurrency.and(view.pattern.as_deref());
    NewJob {
        concurrency_key: concurrency.map(builds_key),
        namespace: definition.namespace.clone(),
        queue: definition.queue.clone(),
        retry: definition.retry,
        timeout: definition.timeout,
        due: Due::Now,
        ..NewJob::new(&definition.handler, input.to_string())
    }
}

macro_rules! generation_columns {
    () => {
        "version, job_id, published_at, replaced_at, items_total, items_changed, items_removed, items_computed, \
         items_reused, build_us, restored_from, restored_by, restore_reason"
    };
}

pub(in super::super) async fn generations(
    db: &mut Connection,
    view: ViewId,
    rows_max: u32,
) -> Result<Vec<GenerationRecord>> {
    let rows = sqlx::query(concat!(
        "SELECT ",
        generation_columns!(),
        " FROM generations WHERE view_id = $1 ORDER BY version DESC LIMIT $2"
    ))
    .bind(view.uuid())
    .bind(i64::from(rows_max))
    .fetch_all(db)
    .await?;
    rows.iter().map(generation_record).collect()
}

pub(in super::super) async fn generation(
    db: &mut Connection,
    view: ViewId,
    version: i64,
) -> Result<Option<GenerationRecord>> {
    let row = sqlx::query(concat!(
        "SELECT ",
        generation_columns!(),
        " FROM generations WHERE view_id = $1 AND version = $2"
    ))
    .bind(view.uuid())
    .bind(version)
    .fetch_optional(db)
    .await?;
    row.as_ref().map(generation_record).transpose()
}

fn generation_record(row: &Row) -> Result<GenerationRecord> {
    Ok(GenerationRecord {
        version: row.try_get("version")?,
        job: row.try_get::<Option<Uuid>, _>("job_id")?.map(JobId::from_uuid),
        published_at: Timestamp::from_micros(row.try_get("published_at")?),
        replaced_at: jobs::instant(row, "replaced_at")?,
        items_total: row.try_get("items_total")?,
        items_changed: row.try_get("items_changed")?,
        items_removed: row.try_get("items_removed")?,
        items_computed: row.try_get("items_computed")?,
        items_reused: row.try_get("items_reused")?,
        build: jobs::duration(row.try_get("build_us")?).unwrap_or_default(),
        restored: row
            .try_get::<Option<i64>, _>("restored_from")?
            .zip(word(row, "restored_by", "restore_reason")?)
            .map(|(from, word)| Restoration { from, word }),
    })
}
