//! Reads of an application's own database at one moment.
//!
//! A build whose inputs are many rows reads them with several statements, while others change them. Without a snapshot what it makes may
//! be of no moment at all. A snapshot that is taken within a build sees every change whose touch the build answers for: the touch was
//! committed before the version was taken, and the change before the touch or with it. What comes later touches the view anew.
//!
//! Take it on the primary: a replica that lags may be behind the touch. It holds a connection of the pool until it is dropped, and on PostgreSQL it holds up
//! the removal of dead rows; so read first, drop it, and compute then.

use std::fmt;
use std::ops::{Deref, DerefMut};
use std::time::Duration;

use async_trait::async_trait;
use sqlx::{Database, Executor as _, PgPool, Postgres, Sqlite, SqlitePool, Transaction};

pub use sqlx;

use crate::error::{Error, Result};

/// PostgreSQL ends a snapshot that is not read from for this long: a builder that forgot it must not hold up the removal of dead rows for ever.
pub const IDLE_MAX: Duration = Duration::from_mins(5);

/// A connection that sees its database as it was at one moment. Over when it is dropped; nothing that is written through it stays.
pub struct Snapshot<D: Database>(Transaction<'static, D>);

impl<D: Database> fmt::Debug for Snapshot<D> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Snapshot").finish_non_exhaustive()
    }
}

impl<D: Database> Deref for Snapshot<D> {
    type Target = D::Connection;

    fn deref(&self) -> &D::Connection {
        &self.0
    }
}

impl<D: Database> DerefMut for Snapshot<D> {
    fn deref_mut(&mut self) -> &mut D::Connection {
        &mut self.0
    }
}

/// A pool of the application's that snapshots can be taken on.
#[async_trait]
pub trait SnapshotPool: Send + Sync {
    /// What it is connected to.
    type Database: Database;

    /// Sees the database as it is now, until it is dropped.
    async fn snapshot(&self) -> Result<Snapshot<Self::Database>>;
}

fn refused(error: &sqlx::Error) -> Error {
    Error::unavailable(format!("no snapshot could be taken of the application's database: {error}"))
}

#[async_trait]
impl SnapshotPool for PgPool {
    type Database = Postgres;

    async fn snapshot(&self) -> Result<Snapshot<Postgres>> {
        let mut transaction = self.begin().await.map_err(|error| refused(&error))?;
        let idle = format!("SET LOCAL idle_in_transaction_session_timeout = {}", IDLE_MAX.as_millis());
        // The snapshot is that of the first statement that reads.
        for statement in
            ["SET TRANSACTION ISOLATION LEVEL REPEATABLE READ READ ONLY", idle.as_str(), "SELECT 1"]
        {
            transaction
                .execute(sqlx::AssertSqlSafe(statement.to_owned()))
                .await
                .map_err(|error| refused(&error))?;
        }
        Ok(Snapshot(transaction))
    }
}

#[async_trait]
impl SnapshotPool for SqlitePool {
    type Database = Sqlite;

    /// In WAL mode nobody waits for it; in the others writers do.
    async fn snapshot(&self) -> Result<Snapshot<Sqlite>> {
        let mut transaction = self.begin().await.map_err(|error| refused(&error))?;
        // A transaction begins with its first read.
        transaction.execute("SELECT 1 FROM sqlite_schema LIMIT 1").await.map_err(|error| refused(&error))?;
        Ok(Snapshot(transaction))
    }
}
