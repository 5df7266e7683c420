//! Patterns of views: what covers a key that no view has yet, and touches of all that match.

use async_trait::async_trait;
use recache_model::ids::ViewId;
use recache_model::item_rules::ItemRules;
use recache_model::limits::Limit;
use recache_model::time::Timestamp;
use recache_model::view_pattern::{covers, is_pattern, meant, prefix};
use sqlx::Row as _;

use super::super::{Connection, Driver, Row};
use super::effects::Effects;
use super::{build_workflows, held_items, jobs, queues, views};
use crate::error::{Error, Result};
use crate::queues::{LimitScope, Word};
use crate::records::{NewView, Touch, VIEW_KEY_BYTES_MAX};
use crate::view_patterns::{PatternRecord, TouchedMatching, ViewPatterns};

/// Patterns of one namespace.
const PATTERNS_MAX: i64 = 1_000;
/// Keys that one step of touching by pattern looks at, for each view that it may touch.
const LOOKED_AT_FACTOR: u32 = 10;

macro_rules! pattern_columns {
    () => {
        "namespace, pattern, handler, queue, policy, retry, timeout_ms, item_key_schema, item_value_schema, created_at, options"
    };
}

#[async_trait]
impl ViewPatterns for Driver {
    async fn pattern_define(&self, pattern: NewView) -> Result<u64> {
        self.write(work!([pattern] db, now, effects => define(db, now, &pattern, effects).await)).await
    }

    async fn patterns_list(
        &self,
        namespace: Option<&str>,
        after: Option<(String, String)>,
        rows_max: u32,
    ) -> Result<Vec<PatternRecord>> {
        let namespace = namespace.map(str::to_owned);
        self.read(
            look!([namespace, after] db, now => list(db, namespace.as_deref(), after.as_ref(), rows_max).await),
        )
        .await
    }

    async fn pattern_delete(&self, namespace: &str, pattern: &str) -> Result<()> {
        let (namespace, pattern) = (namespace.to_owned(), pattern.to_owned());
        self.write(work!([namespace, pattern] db, now, effects => delete(db, now, &namespace, &pattern, effects).await))
            .await
    }

    async fn views_touch_matching(
        &self,
        namespace: &str,
        pattern: &str,
        items: Vec<String>,
        word: Option<Word>,
        after: Option<String>,
        rows_max: u32,
    ) -> Result<TouchedMatching> {
        let touch = Touch {
            namespace: namespace.to_owned(),
            key: pattern.to_owned(),
            items,
            word,
            ..Touch::default()
        };
        touch.check()?;
        self.write(work!([touch, after] db, now, effects =>
            touch_matching(db, now, &touch, after.as_deref(), rows_max.max(1), effects).await))
            .await
    }
}

/// The schemas of a row of views or of patterns.
pub(super) fn rules(row: &Row) -> Result<ItemRules> {
    let schema = |column: &str| -> Result<Option<serde_json::Value>> {
        let text: Option<String> = row.try_get(column)?;
        text.as_deref().map(|text| jobs::json(column, text)).transpose()
    };
    Ok(ItemRules { key_schema: schema("item_key_schema")?, value_schema: schema("item_value_schema")? })
}

fn record(row: &Row) -> Result<PatternRecord> {
    let (policy, retry): (String, String) = (row.try_get("policy")?, row.try_get("retry")?);
    Ok(PatternRecord {
        definition: NewView {
            namespace: row.try_get("namespace")?,
            key: row.try_get("pattern")?,
            handler: row.try_get("handler")?,
            queue: row.try_get("queue")?,
            policy: jobs::json("policy", &policy)?,
            retry: jobs::json("retry", &retry)?,
            timeout: jobs::milliseconds(row, "timeout_ms")?,
            rules: rules(row)?,
            options: build_workflows::options(row)?,
        },
        created_at: Timestamp::from_micros(row.try_get("created_at")?),
    })
}

async fn define(
    db: &mut Connection,
    now: Timestamp,
    pattern: &NewView,
    effects: &mut Effects,
) -> Result<u64> {
    pattern.check_pattern()?;
    let count: i64 = sqlx::query(
        "SELECT CAST(COUNT(*) AS BIGINT) AS count FROM view_patterns WHERE namespace = $1 AND pattern <> $2",
    )
    .bind(&pattern.namespace)
    .bind(&pattern.key)
    .fetch_one(&mut *db)
    .await?
    .try_get("count")?;
    if count >= PATTERNS_MAX {
        return Err(Error::Conflict(format!(
            "namespace {} has {count} patterns of views; the limit is {PATTERNS_MAX}",
            pattern.namespace
        )));
    }
    lock_made(db, &pattern.namespace, &pattern.key).await?;
    held_items::check_definition(db, &pattern.namespace, &pattern.key, pattern).await?;
    limit_builds(db, now, &pattern.namespace, &pattern.key, pattern.options.concurrency, effects).await?;
    let (key_schema, value_schema) = schemas(&pattern.rules);
    for statement in [
        "INSERT INTO view_patterns (namespace, pattern, handler, queue, policy, retry, timeout_ms, item_key_schema, \
         item_value_schema, created_at, options) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11) ON CONFLICT (namespace, pattern) \
         DO UPDATE SET handler = excluded.handler, queue = excluded.queue, policy = excluded.policy, \
         retry = excluded.retry, timeout_ms = excluded.timeout_ms, item_key_schema = excluded.item_key_schema, \
         item_value_schema = excluded.item_value_schema, options = excluded.options",
        "UPDATE views SET handler = $3, queue = $4, policy = $5, retry = $6, timeout_ms = $7, item_key_schema = $8, \
         item_value_schema = $9, options = $11 WHERE namespace = $1 AND pattern = $2 AND $10 > 0",
    ] {
        let changed = sqlx::query(statement)
            .bind(&pattern.namespace)
            .bind(&pattern.key)
            .bind(&pattern.handler)
            .bind(&pattern.queue)
            .bind(jobs::to_json(&pattern.policy)?)
            .bind(jobs::to_json(&pattern.retry)?)
            .bind(jobs::timeout_ms(pattern.timeout))
            .bind(&key_schema)
            .bind(&value_schema)
            .bind(now.micros())
            .bind(build_workflows::options_text(&pattern.options)?)
            .execute(&mut *db)
            .await?
            .rows_affected();
        if statement.starts_with("UPDATE") {
            views::follow_pattern(db, pattern).await?;
            return Ok(changed);
        }
    }
    Ok(0)
}

/// So many builds of the views of a pattern run at once; `None`: as many as there are.
async fn limit_builds(
    db: &mut Connection,
    now: Timestamp,
    namespace: &str,
    pattern: &str,
    concurrency: Option<u32>,
    effects: &mut Effects,
) -> Result<()> {
    let scope = LimitScope::Key { namespace: namespace.to_owned(), key: views::builds_key(pattern) };
    let limit = Limit { running_max: concurrency, rate: None };
    let word = Word::new("pattern of views", pattern);
    queues::set(db, now, &scope, limit, &word, effects).await
}

/// Locks the views that were made from a pattern, in the one order of locks.
async fn lock_made(db: &mut Connection, namespace: &str, pattern: &str) -> Result<()> {
    sqlx::query(concat!(
        "SELECT id FROM views WHERE namespace = $1 AND pattern = $2 ORDER BY id",
        for_update!()
    ))
    .bind(namespace)
    .bind(pattern)
    .fetch_all(db)
    .await?;
    Ok(())
}

/// As they are kept.
pub(super) fn schemas(rules: &ItemRules) -> (Option<String>, Option<String>) {
    let text = |schema: &Option<serde_json::Value>| schema.as_ref().map(ToString::to_string);
    (text(&rules.key_schema), text(&rules.value_schema))
}

async fn list(
    db: &mut Connection,
    namespace: Option<&str>,
    after: Option<&(String, String)>,
    rows_max: u32,
) -> Result<Vec<PatternRecord>> {
    let rows = sqlx::query(concat!(
        "SELECT ",
        pattern_columns!(),
        " FROM view_patterns WHERE (CAST($1 AS TEXT) IS NULL OR namespace = $1) \
         AND (CAST($2 AS TEXT) IS NULL OR (namespace, pattern) > ($2, $3)) ORDER BY namespace, pattern LIMIT $4"
    ))
    .bind(namespace)
    .bind(after.map(|(namespace, _)| namespace))
    .bind(after.map(|(_, pattern)| pattern))
    .bind(i64::from(rows_max))
    .fetch_all(db)
    .await?;
    rows.iter().map(record).collect()
}

async fn delete(
    db: &mut Connection,
    now: Timestamp,
    namespace: &str,
    pattern: &str,
    effects: &mut Effects,
) -> Result<()> {
    lock_made(db, namespace, pattern).await?;
    limit_builds(db, now, namespace, pattern, None, effects).await?;
    sqlx::query(
        "UPDATE jobs SET concurrency_key = NULL WHERE state = 'queued' AND namespace = $1 AND concurrency_key = $2 AND view_id IS NOT NULL",
    )
    .bind(namespace)
    .bind(views::builds_key(pattern))
    .execute(&mut *db)
    .await?;
    let mut gone = 0;
    for statement in [
        "UPDATE views SET pattern = NULL WHERE namespace = $1 AND pattern = $2",
        "DELETE FROM view_patterns WHERE namespace = $1 AND pattern = $2",
    ] {
        gone = sqlx::query(statement).bind(namespace).bind(pattern).execute(&mut *db).await?.rows_affected();
    }
    if gone == 0 {
        return Err(Error::not_found("pattern of views", format!("{namespace}/{pattern}")));
    }
    Ok(())
}

/// Makes the view that no row has yet, if a pattern covers its key. False: none does. Two who make it at once make one.
pub(super) async fn make(db: &mut Connection, now: Timestamp, namespace: &str, key: &str) -> Result<bool> {
    if is_pattern(key) {
        return Ok(false);
    }
    let rows = sqlx::query("SELECT pattern FROM view_patterns WHERE namespace = $1")
        .bind(namespace)
        .fetch_all(&mut *db)
        .await?;
    let patterns = rows.iter().map(|row| Ok(row.try_get("pattern")?)).collect::<Result<Vec<String>>>()?;
    let Some(pattern) = meant(patterns.iter().map(String::as_str), key) else { return Ok(false) };
    let row = sqlx::query(concat!(
        "SELECT ",
        pattern_columns!(),
        " FROM view_patterns WHERE namespace = $1 AND pattern = $2"
    ))
    .bind(namespace)
    .bind(pattern)
    .fetch_optional(&mut *db)
    .await?;
    let Some(row) = row else { return Ok(false) };
    let view = NewView { key: key.to_owned(), ..record(&row)?.definition };
    // No view can have this key, so none has: a request for it must not keep others waiting.
    if view.check().is_err() {
        return Ok(false);
    }
    let (key_schema, value_schema) = schemas(&view.rules);
    sqlx::query(
        "INSERT INTO views (id, namespace, key, handler, queue, policy, retry, timeout_ms, created_at, item_key_schema, \
         item_value_schema, pattern, options, build_lease_ms) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14) \
         ON CONFLICT (namespace, key) DO NOTHING",
    )
    .bind(ViewId::make().uuid())
    .bind(namespace)
    .bind(key)
    .bind(&view.handler)
    .bind(&view.queue)
    .bind(jobs::to_json(&view.policy)?)
    .bind(jobs::to_json(&view.retry)?)
    .bind(jobs::timeout_ms(view.timeout))
    .bind(now.micros())
    .bind(key_schema)
    .bind(value_schema)
    .bind(pattern)
    .bind(build_workflows::options_text(&view.options)?)
    .bind(views::millis(view.options.lease_ms))
    .execute(db)
    .await?;
    Ok(true)
}

async fn touch_matching(
    db: &mut Connection,
    now: Timestamp,
    touch: &Touch,
    after: Option<&str>,
    rows_max: u32,
    effects: &mut Effects,
) -> Result<TouchedMatching> {
    let (namespace, pattern) = (&touch.namespace, &touch.key);
    if pattern.is_empty() || pattern.len() > VIEW_KEY_BYTES_MAX || pattern.contains('\0') {
        return Err(Error::Invalid(format!(
            "a pattern must have 1 to {VIEW_KEY_BYTES_MAX} bytes and no NUL, and has {} bytes",
            pattern.len()
        )));
    }
    let looked_at_max = rows_max.saturating_mul(LOOKED_AT_FACTOR);
    let rows = sqlx::query(
        "SELECT key FROM views WHERE namespace = $1 AND substr(key, 1, length($2)) = $2 \
         AND (CAST($3 AS TEXT) IS NULL OR key > $3) ORDER BY key LIMIT $4",
    )
    .bind(namespace)
    .bind(prefix(pattern))
    .bind(after)
    .bind(i64::from(looked_at_max))
    .fetch_all(&mut *db)
    .await?;
    let touched_max = usize::try_from(rows_max).unwrap_or(usize::MAX);
    let mut touches = Vec::new();
    let mut next = None;
    for row in &rows {
        let key: String = row.try_get("key")?;
        next = Some(key.clone());
        if covers(pattern, &key) {
            touches.push(Touch { key, ..touch.clone() });
            if touches.len() >= touched_max {
                break;
            }
        }
    }
    let is_last =
        rows.len() < usize::try_from(looked_at_max).unwrap_or(usize::MAX) && touches.len() < touched_max;
    views::touch(db, now, &touches, effects).await?;
    Ok(TouchedMatching {
        touched: u64::try_from(touches.len()).unwrap_or(u64::MAX),
        next: next.filter(|_| !is_last),
    })
}
