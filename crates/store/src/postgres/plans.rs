//! Plans of slow statements. A statement is explained as its session has it, prepared and with its generic plan: parameters are shown
//! as `$1`, and what they were is not known here.

use std::sync::Arc;

use sqlx::postgres::{PgConnection, PgPool};
use sqlx::{AssertSqlSafe, Connection as _, Executor as _, Row as _};
use tokio::sync::mpsc;

use crate::measured::PoolCounts;
use crate::slow_plans::{Asked, PLAN_WITHIN};

/// A session that does not have the statement prepares it under this name.
const NAME: &str = "recache_plan";

/// Explains what is asked for, one after the other, for as long as somebody may ask.
pub(super) async fn run(pool: PgPool, counts: Arc<PoolCounts>, mut asked: mpsc::Receiver<Asked>) {
    while let Some(asked) = asked.recv().await {
        let plan = match tokio::time::timeout(PLAN_WITHIN, explain(&pool, &counts, &asked)).await {
            Ok(plan) => plan.map_err(|error| error.to_string()),
            Err(_) => Err("the database did not say in time".to_owned()),
        };
        asked.log(plan);
    }
}

async fn explain(pool: &PgPool, counts: &PoolCounts, asked: &Asked) -> sqlx::Result<Vec<String>> {
    let (mut connection, taken) = counts.take(pool.acquire()).await?;
    let plan = explain_on(&mut connection, asked).await;
    if plan.is_err() {
        // It may have a statement of that name: no other connection has.
        connection.close_on_drop();
    }
    drop(taken);
    plan
}

async fn explain_on(connection: &mut PgConnection, asked: &Asked) -> sqlx::Result<Vec<String>> {
    let mut db = connection.begin().await?;
    // Nothing is changed, and who holds a table is not waited for.
    db.execute(
        "SET TRANSACTION READ ONLY; SET LOCAL lock_timeout TO '200ms'; SET LOCAL statement_timeout TO '1s'",
    )
    .await?;
    let known = "SELECT name, COALESCE(cardinality(parameter_types), 0) AS parameters FROM pg_prepared_statements \
                 WHERE statement = $1 LIMIT 1";
    let mut prepared = sqlx::query(known).bind(asked.sql.as_str()).fetch_optional(&mut *db).await?;
    let is_ours = prepared.is_none();
    if is_ours {
        let prepare = asked.behind(&format!("PREPARE {NAME} AS"));
        let known = "SELECT name, COALESCE(cardinality(parameter_types), 0) AS parameters FROM pg_prepared_statements \
                     WHERE name = $1";
        sqlx::raw_sql(prepare).execute(&mut *db).await?;
        prepared = sqlx::query(known).bind(NAME).fetch_optional(&mut *db).await?;
    }
    let prepared = prepared.ok_or(sqlx::Error::RowNotFound)?;
    let (name, count): (String, i32) = (prepared.try_get("name")?, prepared.try_get("parameters")?);
    let nulls = vec!["NULL"; usize::try_from(count).unwrap_or_default()].join(", ");
    let arguments = if nulls.is_empty() { nulls } else { format!("({nulls})") };
    let explain = format!("EXPLAIN EXECUTE \"{}\"{arguments}", name.replace('"', "\"\""));
    let rows = sqlx::raw_sql(AssertSqlSafe(explain)).fetch_all(&mut *db).await?;
    db.rollback().await?;
    if is_ours {
        sqlx::raw_sql("DEALLOCATE recache_plan").execute(connection).await?;
    }
    rows.iter().map(|row| row.try_get(0)).collect()
}
