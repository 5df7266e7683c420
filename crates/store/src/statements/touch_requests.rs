//! Touches that applications asked for in transactions of their own: taken and carried out by whoever reconciles views.

use std::collections::{BTreeMap, BTreeSet};

use recache_model::time::Timestamp;
use sqlx::Row as _;

use super::super::Connection;
use super::effects::Effects;
use super::views;
use crate::chains::{TOUCHES_COUNTED_MAX, ViewName};
use crate::error::{Error, Result};
use crate::records::{TOUCH_TRACES_MAX, Touch, TouchSource};

/// Requests that one transaction takes.
const REQUESTS_MAX: u16 = 1_000;
/// More items of one view are better said as "all".
const ITEMS_MAX: usize = 10_000;

/// What was asked of one view.
struct Wanted {
    /// `None`: all of it.
    items: Option<BTreeSet<String>>,
    /// Of whoever asked.
    traces: BTreeSet<String>,
    /// By which ways: of several the last in their order is told, a view above rather than anything else.
    source: TouchSource,
}

/// Touches what was asked for. True when there may be more.
///
/// All requests of one view are one touch. A request that cannot be read touches all of its view rather than nothing, and one for a view
/// that is gone is dropped: none of them may keep the others waiting.
pub(super) async fn take(db: &mut Connection, now: Timestamp, effects: &mut Effects) -> Result<bool> {
    let rows = sqlx::query(concat!(
        "DELETE FROM touch_requests WHERE id IN (SELECT id FROM touch_requests ORDER BY id LIMIT $1",
        for_update_skip_locked!(),
        ") RETURNING namespace, key, items, trace_context, source"
    ))
    .bind(i64::from(REQUESTS_MAX))
    .fetch_all(&mut *db)
    .await?;
    if rows.is_empty() {
        return Ok(false);
    }
    let mut wanted: BTreeMap<(String, String), Wanted> = BTreeMap::new();
    for row in &rows {
        let items: Option<String> = row.try_get("items")?;
        let items = items.and_then(|items| serde_json::from_str::<BTreeSet<String>>(&items).ok());
        let known = wanted.entry((row.try_get("namespace")?, row.try_get("key")?)).or_insert_with(|| {
            Wanted { items: Some(BTreeSet::new()), traces: BTreeSet::new(), source: TouchSource::Sql }
        });
        let source = TouchSource::from_kept(row.try_get::<Option<&str>, _>("source")?.or(Some("sql")));
        known.source = known.source.clone().max(source);
        known.traces.extend(row.try_get::<Option<String>, _>("trace_context")?);
        known.items = match (known.items.take(), items.filter(|items| !items.is_empty())) {
            (Some(mut known), Some(items)) => {
                known.extend(items);
                Some(known)
            }
            _ => None,
        };
    }
    let mut touches = Vec::with_capacity(wanted.len());
    let mut sources = Vec::with_capacity(wanted.len());
    for ((namespace, key), Wanted { items, traces, source }) in wanted {
        match views::get_or_make(db, now, &namespace, &key).await {
            Err(Error::NotFound { .. }) => {
                tracing::warn!(namespace, key, "a touch was asked for a view that is not there");
                continue;
            }
            found => found?,
        };
        let items = items.filter(|items| items.len() <= ITEMS_MAX).unwrap_or_default();
        let items = items.into_iter().collect();
        let traces = traces.into_iter().take(usize::from(TOUCH_TRACES_MAX)).collect();
        let touch = Touch { namespace, key, items, traces, ..Touch::default() };
        let is_good = touch.check().is_ok();
        sources.push(source);
        touches.push(if is_good { touch } else { Touch { items: Vec::new(), ..touch } });
    }
    views::touch_from(db, now, &touches, &sources, effects).await?;
    Ok(rows.len() >= usize::from(REQUESTS_MAX))
}

/// How many wait for one view, up to a limit.
pub(super) async fn waiting(db: &mut Connection, view: &ViewName) -> Result<u64> {
    let row = sqlx::query(
        "SELECT CAST(COUNT(*) AS BIGINT) AS count FROM (SELECT 1 FROM touch_requests WHERE namespace = $1 AND key = $2 LIMIT $3) AS w",
    )
    .bind(&view.namespace)
    .bind(&view.key)
    .bind(i64::from(TOUCHES_COUNTED_MAX))
    .fetch_one(db)
    .await?;
    Ok(u64::try_from(row.try_get::<i64, _>("count")?).unwrap_or(0))
}
