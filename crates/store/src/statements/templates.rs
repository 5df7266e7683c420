//! Looking for templates.

use std::cmp::Ordering;

use recache_model::template::{compare_versions, newest_version};
use recache_model::time::Timestamp;
use sqlx::Row as _;

use super::super::Connection;
use super::workflows::template_record;
use crate::error::{Error, Result};
use crate::records::{TemplateFilter, TemplateRecord, TemplateSummary};

pub(in super::super) async fn find(
    db: &mut Connection,
    namespace: &str,
    name: &str,
    version: Option<&str>,
) -> Result<TemplateRecord> {
    let id = || match version {
        Some(version) => format!("{namespace}/{name} {version}"),
        None => format!("{namespace}/{name}"),
    };
    let newest;
    let version = if let Some(version) = version {
        version
    } else {
        let versions: Vec<String> =
            sqlx::query("SELECT version FROM templates WHERE namespace = $1 AND name = $2")
                .bind(namespace)
                .bind(name)
                .fetch_all(&mut *db)
                .await?
                .iter()
                .map(|row| row.try_get("version"))
                .collect::<std::result::Result<_, _>>()?;
        newest = newest_version(versions.iter().map(String::as_str)).map(str::to_owned);
        newest.as_deref().ok_or_else(|| Error::not_found("template", id()))?
    };
    let row = sqlx::query(
        "SELECT digest, namespace, name, version, content FROM templates \
         WHERE namespace = $1 AND name = $2 AND version = $3",
    )
    .bind(namespace)
    .bind(name)
    .bind(version)
    .fetch_optional(db)
    .await?
    .ok_or_else(|| Error::not_found("template", id()))?;
    template_record(&row)
}

/// SQL cannot order versions, so whole names are read, as many as are needed for the rows that are asked for.
pub(in super::super) async fn list(
    db: &mut Connection,
    filter: &TemplateFilter,
) -> Result<Vec<TemplateSummary>> {
    let TemplateFilter { namespace, name, after, rows_max } = filter;
    let rows_max = *rows_max;
    // No namespace is empty: all are behind that.
    let (from_namespace, from_name) =
        after.as_ref().map_or(("", ""), |after| (after.namespace.as_str(), after.name.as_str()));
    let names = sqlx::query(
        "SELECT namespace, name, CAST(COUNT(*) AS BIGINT) AS versions FROM templates \
         WHERE (CAST($1 AS TEXT) IS NULL OR namespace = $1) AND (CAST($2 AS TEXT) IS NULL OR name = $2) \
         AND (namespace, name) >= ($3, $4) GROUP BY namespace, name ORDER BY namespace, name LIMIT $5",
    )
    .bind(namespace)
    .bind(name)
    .bind(from_namespace)
    .bind(from_name)
    // The name in which the page begins may have nothing left for it.
    .bind(i64::from(rows_max).saturating_add(i64::from(after.is_some())))
    .fetch_all(&mut *db)
    .await?;
    let mut rows_found = 0_i64;
    let mut last = None;
    for row in &names {
        let (namespace, name) = (row.try_get::<String, _>("namespace")?, row.try_get::<String, _>("name")?);
        // Of the name in which the page begins, nobody knows yet how much is behind its place.
        if (namespace.as_str(), name.as_str()) != (from_namespace, from_name) {
            rows_found = rows_found.saturating_add(row.try_get("versions")?);
        }
        last = Some((namespace, name));
        if rows_found >= i64::from(rows_max) {
            break;
        }
    }
    let Some((last_namespace, last_name)) = last else { return Ok(Vec::new()) };
    let rows = sqlx::query(
        "SELECT digest, namespace, name, version, created_at FROM templates \
         WHERE (CAST($1 AS TEXT) IS NULL OR namespace = $1) AND (CAST($2 AS TEXT) IS NULL OR name = $2) \
         AND (namespace, name) >= ($3, $4) AND (namespace, name) <= ($5, $6) ORDER BY namespace, name",
    )
    .bind(namespace)
    .bind(name)
    .bind(from_namespace)
    .bind(from_name)
    .bind(last_namespace)
    .bind(last_name)
    .fetch_all(db)
    .await?;
    let mut found = rows
        .iter()
        .map(|row| {
            Ok(TemplateSummary {
                digest: row.try_get("digest")?,
                namespace: row.try_get("namespace")?,
                name: row.try_get("name")?,
                version: row.try_get("version")?,
                created_at: Timestamp::from_micros(row.try_get("created_at")?),
            })
        })
        .collect::<Result<Vec<_>>>()?;
    let same_name = |one: &TemplateSummary, other: &TemplateSummary| {
        one.namespace == other.namespace && one.name == other.name
    };
    for versions in found.chunk_by_mut(same_name) {
        versions.sort_by(|one, other| newest_first(&one.version, &other.version));
    }
    if let Some(after) = after {
        let is_before = |one: &TemplateSummary| {
            (&one.namespace, &one.name) == (&after.namespace, &after.name)
                && newest_first(&one.version, &after.version) != Ordering::Greater
        };
        found.retain(|one| !is_before(one));
    }
    found.truncate(usize::try_from(rows_max).unwrap_or(usize::MAX));
    Ok(found)
}

/// By precedence, and where two have the same by their text, so that each has a place of its own.
fn newest_first(one: &str, other: &str) -> Ordering {
    compare_versions(other, one).then_with(|| other.cmp(one))
}
