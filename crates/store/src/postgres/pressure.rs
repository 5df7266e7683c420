//! What benches do to a PostgreSQL past the contract: a transaction that stays open, and more finished jobs than anybody waits for.

use std::time::Duration;

use recache_model::ids::JobId;
use sqlx::postgres::PgConnection;
use sqlx::{AssertSqlSafe, Connection as _, Executor as _};

use crate::error::{Error, Result};

/// Rows that one statement copies.
const COPIED: u32 = 100_000;
/// Copies are spread over so much time.
const SPREAD: Duration = Duration::from_hours(12);

/// A transaction that has seen something and changes nothing: the database may clear away nothing that ended since it began.
#[derive(Debug)]
pub struct HeldTransaction(PgConnection);

impl HeldTransaction {
    /// Begins one on a connection of its own.
    pub async fn begin(url: &str) -> Result<Self> {
        let mut connection = PgConnection::connect(url).await?;
        for statement in [
            "SET idle_in_transaction_session_timeout = 0",
            "BEGIN ISOLATION LEVEL REPEATABLE READ",
            "SELECT pg_current_xact_id()",
        ] {
            connection.execute(statement).await?;
        }
        Ok(Self(connection))
    }

    /// Ends it.
    pub async fn end(self) -> Result<()> {
        Ok(self.0.close().await?)
    }
}

/// Writes `count` copies of a job that has ended, with its history, as if they had ended `age` ago, spread over half a day.
pub async fn copy_finished(url: &str, job: JobId, age: Duration, count: u32) -> Result<()> {
    let mut db = PgConnection::connect(url).await?;
    let now: i64 = sqlx::query_scalar("SELECT recache.clock() / 1000").fetch_one(&mut db).await?;
    let milliseconds = |time: Duration| {
        i64::try_from(time.as_millis())
            .map_err(|_| Error::Invalid("that is longer ago than anything".to_owned()))
    };
    let (begin, spread) = (now - milliseconds(age)?, milliseconds(SPREAD)?);
    // Ids rise with the time, as they do.
    let at = format!("{begin} + n * {spread} / {count}");
    let id = format!("(lpad(to_hex({at}), 12, '0') || lpad(to_hex(n), 20, '0'))::uuid");
    let mut first = 0;
    while first < count {
        let past = count.min(first + COPIED);
        for (table, key, time) in [("jobs", "id", "finished_at"), ("job_history", "job_id", "at")] {
            let others = columns_but(&mut db, table, [key, time]).await?;
            let copy = format!(
                "INSERT INTO recache.{table} ({key}, {time}, {others}) SELECT {id}, ({at}) * 1000, {others} \
                 FROM (SELECT * FROM recache.{table} WHERE {key} = '{}') AS one, \
                 generate_series({first}::bigint, {past}::bigint - 1) AS n",
                job.uuid()
            );
            db.execute(AssertSqlSafe(copy)).await?;
        }
        first = past;
    }
    Ok(db.close().await?)
}

/// Has the database clear away what is dead and look at what is there, as it does by itself after a while.
pub async fn settle_down(url: &str) -> Result<()> {
    let mut db = PgConnection::connect(url).await?;
    for statement in ["VACUUM (ANALYZE) recache.jobs", "VACUUM (ANALYZE) recache.job_history"] {
        db.execute(statement).await?;
    }
    Ok(db.close().await?)
}

async fn columns_but(db: &mut PgConnection, table: &str, without: [&str; 2]) -> Result<String> {
    let mut names: Vec<String> = sqlx::query_scalar(
        "SELECT column_name::text FROM information_schema.columns \
         WHERE table_schema = 'recache' AND table_name = $1 AND is_generated = 'NEVER' ORDER BY ordinal_position",
    )
    .bind(table)
    .fetch_all(db)
    .await?;
    names.retain(|name| !without.contains(&name.as_str()));
    Ok(names.join(", "))
}
