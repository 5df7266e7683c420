//! Figures over what has run.

use std::collections::BTreeMap;

use async_trait::async_trait;
use sqlx::Row as _;

use super::super::{Connection, Driver};
use crate::error::Result;
use crate::figures::{Figures, StepFigure, StepFigures};

/// Versions of a template whose workflows are looked at.
const VERSIONS_MAX: i64 = 4;

#[async_trait]
impl Figures for Driver {
    async fn step_figures(
        &self,
        namespace: &str,
        name: &str,
        digest: &str,
        workflows_max: u32,
    ) -> Result<StepFigures> {
        let (namespace, name, digest) = (namespace.to_owned(), name.to_owned(), digest.to_owned());
        self.read(look!([namespace, name, digest] db, now => {
            step_figures(db, &namespace, &name, &digest, workflows_max).await
        }))
        .await
    }
}

async fn step_figures(
    db: &mut Connection,
    namespace: &str,
    name: &str,
    digest: &str,
    workflows_max: u32,
) -> Result<StepFigures> {
    let versions = sqlx::query(
        "SELECT digest FROM templates WHERE namespace = $1 AND name = $2 \
         ORDER BY CASE WHEN digest = $3 THEN 0 ELSE 1 END, created_at DESC LIMIT $4",
    )
    .bind(namespace)
    .bind(name)
    .bind(digest)
    .bind(VERSIONS_MAX)
    .fetch_all(&mut *db)
    .await?;
    let mut found = StepFigures::default();
    let mut steps: BTreeMap<String, StepFigure> = BTreeMap::new();
    for version in versions {
        let version: String = version.try_get("digest")?;
        let left = i64::from(workflows_max) - i64::try_from(found.workflows).unwrap_or(i64::MAX);
        if left <= 0 {
            break;
        }
        let row = sqlx::query(
            "SELECT CAST(count(*) AS BIGINT) AS workflows FROM (SELECT id FROM workflows WHERE template_digest = $1 \
             AND finished_at IS NOT NULL ORDER BY finished_at DESC LIMIT $2) AS w",
        )
        .bind(&version)
        .bind(left)
        .fetch_one(&mut *db)
        .await?;
        found.workflows += u64::try_from(row.try_get::<i64, _>("workflows")?).unwrap_or(0);
        let rows = sqlx::query(
            "SELECT step, CAST(count(*) AS BIGINT) AS runs, SUM(run) AS run_sum, SUM(run * run) AS run_squares, \
             SUM(wait) AS wait_sum, SUM(wait * wait) AS wait_squares FROM (SELECT step, \
             CAST(finished_at - started_at AS DOUBLE PRECISION) / 1000000 AS run, \
             CAST(CASE WHEN started_at > due_at THEN started_at - due_at ELSE 0 END AS DOUBLE PRECISION) / 1000000 AS wait \
             FROM jobs WHERE state = 'completed' AND started_at IS NOT NULL AND workflow_id IN (SELECT id FROM workflows \
             WHERE template_digest = $1 AND finished_at IS NOT NULL ORDER BY finished_at DESC LIMIT $2)) AS s GROUP BY step",
        )
        .bind(&version)
        .bind(left)
        .fetch_all(&mut *db)
        .await?;
        for row in &rows {
            let step: String = row.try_get("step")?;
            let figure = steps.entry(step.clone()).or_default();
            figure.step = step;
            figure.count += u64::try_from(row.try_get::<i64, _>("runs")?).unwrap_or(0);
            figure.run_sum += row.try_get::<f64, _>("run_sum")?;
            figure.run_squares += row.try_get::<f64, _>("run_squares")?;
            figure.wait_sum += row.try_get::<f64, _>("wait_sum")?;
            figure.wait_squares += row.try_get::<f64, _>("wait_squares")?;
        }
    }
    found.steps = steps.into_values().collect();
    Ok(found)
}
