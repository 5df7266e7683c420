//! Plans of slow statements: `EXPLAIN QUERY PLAN` by their texts, in which parameters are `?`.

use std::collections::HashMap;

use sqlx::Row as _;
use sqlx::sqlite::{SqlitePool, SqliteRow};
use tokio::sync::mpsc;

use super::writer::Writer;
use crate::error::{Error, Result};
use crate::slow_plans::{Asked, PLAN_WITHIN};

/// Where plans are looked up.
#[derive(Debug)]
pub(super) enum Place {
    /// On a connection that reads.
    Readers(SqlitePool),
    /// On the only one that there is.
    Writer(Writer),
}

/// Explains what is asked for, one after the other, for as long as somebody may ask.
pub(super) async fn run(place: Place, mut asked: mpsc::Receiver<Asked>) {
    while let Some(asked) = asked.recv().await {
        let plan = match tokio::time::timeout(PLAN_WITHIN, explain(&place, &asked)).await {
            Ok(plan) => plan.map_err(|error| error.to_string()),
            Err(_) => Err("the database did not say in time".to_owned()),
        };
        asked.log(plan);
    }
}

async fn explain(place: &Place, asked: &Asked) -> Result<Vec<String>> {
    let explain = asked.behind("EXPLAIN QUERY PLAN");
    let rows = match place {
        Place::Readers(pool) => sqlx::raw_sql(explain).fetch_all(&mut *pool.acquire().await?).await?,
        Place::Writer(writer) => {
            let rows = writer.read("plan", move |db, _| {
                Box::pin(async move { Ok(sqlx::raw_sql(explain).fetch_all(db).await?) })
            });
            rows.await.0?
        }
    };
    lines(&rows).map_err(Error::from)
}

/// One line for each node, further in than the one that it belongs to.
fn lines(rows: &[SqliteRow]) -> sqlx::Result<Vec<String>> {
    let mut depths: HashMap<i64, usize> = HashMap::new();
    let mut lines = Vec::with_capacity(rows.len());
    for row in rows {
        let (id, parent): (i64, i64) = (row.try_get("id")?, row.try_get("parent")?);
        let depth = depths.get(&parent).map_or(0, |depth| depth + 1);
        depths.insert(id, depth);
        let detail: String = row.try_get("detail")?;
        lines.push(format!("{}{detail}", "  ".repeat(depth)));
    }
    Ok(lines)
}
