//! Looking for templates.

use recache_model::template::{compare_versions, newest_version};
use recache_model::time::Timestamp;
use sqlx::Row as _;

use super::super::Connection;
use super::workflows::template_record;
use crate::error::{Error, Result};
use crate::records::{TemplateRecord, TemplateSummary};

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

/// SQL cannot order versions, so whole names are read, as many as are needed for `rows_max` rows.
pub(in super::super) async fn list(
    db: &mut Connection,
    namespace: Option<&str>,
    name: Option<&str>,
    rows_max: u32,
) -> Result<Vec<TemplateSummary>> {
    let names = sqlx::query(
        "SELECT namespace, name, CAST(COUNT(*) AS BIGINT) AS versions FROM templates \
         WHERE (CAST($1 AS TEXT) IS NULL OR namespace = $1) AND (CAST($2 AS TEXT) IS NULL OR name = $2) \
         GROUP BY namespace, name ORDER BY namespace, name LIMIT $3",
    )
    .bind(namespace)
    .bind(name)
    .bind(i64::from(rows_max))
    .fetch_all(&mut *db)
    .await?;
    let mut rows_found = 0_i64;
    let mut last = None;
    for row in &names {
        last = Some((row.try_get::<String, _>("namespace")?, row.try_get::<String, _>("name")?));
        rows_found = rows_found.saturating_add(row.try_get("versions")?);
        if rows_found >= i64::from(rows_max) {
            break;
        }
    }
    let Some((last_namespace, last_name)) = last else { return Ok(Vec::new()) };
    let rows = sqlx::query(
        "SELECT digest, namespace, name, version, created_at FROM templates \
         WHERE (CAST($1 AS TEXT) IS NULL OR namespace = $1) AND (CAST($2 AS TEXT) IS NULL OR name = $2) \
         AND (namespace, name) <= ($3, $4) ORDER BY namespace, name",
    )
    .bind(namespace)
    .bind(name)
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
        versions.sort_by(|one, other| compare_versions(&other.version, &one.version));
    }
    found.truncate(usize::try_from(rows_max).unwrap_or(usize::MAX));
    Ok(found)
}
