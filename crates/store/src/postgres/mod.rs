//! PostgreSQL: many processes on one database, everything in the schema `recache`.
//!
//! Writes are short `READ COMMITTED` transactions with `synchronous_commit = on` whatever the role's default;
//! deadlocks and serialisation failures are tried again here. Hints travel by `LISTEN/NOTIFY` ([`listener`]), sent
//! outside the transactions that cause them.

mod bulk;
mod listener;

use std::fmt;
use std::pin::Pin;
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use recache_model::time::{Clock, Timestamp};
use sqlx::migrate::{MigrateError, Migrator};
use sqlx::postgres::{PgConnectOptions, PgConnection, PgPool, PgPoolOptions, PgRow};
use sqlx::{ConnectOptions as _, Executor as _, Row as _};
use tokio::sync::broadcast;
use uuid::Uuid;

use crate::error::{Error, Result};
use crate::open::OpenOptions;
use crate::signal::Signal;
use listener::Listener;
use statements::effects::Effects;

macro_rules! for_update {
    () => {
        " FOR UPDATE"
    };
}
macro_rules! for_update_skip_locked {
    () => {
        " FOR UPDATE SKIP LOCKED"
    };
}
macro_rules! in_ids {
    ($parameter:literal) => {
        concat!("= ANY(", $parameter, ")")
    };
}
macro_rules! in_texts {
    ($parameter:literal) => {
        concat!("= ANY(", $parameter, ")")
    };
}

#[path = "../flight_statements.rs"]
#[expect(
    clippy::duplicate_mod,
    reason = "one text, compiled against each engine's types; see statements/mod.rs"
)]
mod flight_statements;
#[path = "../implement.rs"]
#[expect(
    clippy::duplicate_mod,
    reason = "one text, compiled against each engine's types; see statements/mod.rs"
)]
mod implement;
#[path = "../statements/mod.rs"]
#[expect(
    clippy::duplicate_mod,
    reason = "one text, compiled against each engine's types; see statements/mod.rs"
)]
mod statements;

pub(crate) type Connection = PgConnection;
pub(crate) type Row = PgRow;
pub(crate) type Work<'c, T> = Pin<Box<dyn Future<Output = Result<T>> + Send + 'c>>;
const KIND: &str = "postgresql";

/// How long a call waits for a connection before it says "try again".
const ACQUIRE_WAIT: Duration = Duration::from_secs(2);
/// How often a transaction that lost a deadlock is tried again.
const TRIES_MAX: usize = 5;
/// Signals kept for a listener that is behind; one that misses some polls.
const SIGNALS_KEPT: usize = 4096;

static MIGRATIONS: Migrator = sqlx::migrate!("./migrations/postgres");

/// A list of ids as one parameter.
fn ids(ids: &[Uuid]) -> Vec<Uuid> {
    ids.to_vec()
}

/// A list of texts as one parameter.
fn texts(texts: &[String]) -> Vec<String> {
    texts.to_vec()
}

/// The PostgreSQL driver.
pub struct Driver {
    pool: PgPool,
    clock: Option<Arc<dyn Clock>>,
    listener: Listener,
    pub(crate) signals: broadcast::Sender<Signal>,
}

impl fmt::Debug for Driver {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("postgres::Driver").finish_non_exhaustive()
    }
}

impl Driver {
    /// Connects, migrates if asked, and begins to listen.
    pub async fn open(url: &str, options: &OpenOptions) -> Result<Self> {
        let connect = PgConnectOptions::from_str(url)
            .map_err(|error| Error::Invalid(format!("the database URL cannot be read: {error}")))?
            .application_name("recache")
            .statement_cache_capacity(256)
            .disable_statement_logging();
        let pool = PgPoolOptions::new()
            .max_connections(options.connections_max)
            .acquire_timeout(ACQUIRE_WAIT)
            .after_connect(|connection, _| {
                Box::pin(async move {
                    // Set after connecting rather than as start-up options, which transaction poolers refuse.
                    // A process that is stopped in the middle of a transaction would keep its locks, and with them
                    // every sweep, waiting for as long as it is stopped.
                    connection
                        .execute(
                            "SET search_path TO recache; SET synchronous_commit TO on; SET jit TO off; \
                             SET idle_in_transaction_session_timeout TO '3s'",
                        )
                        .await?;
                    Ok(())
                })
            })
            .connect_with(connect.clone())
            .await
            .map_err(|error| match Error::from(error) {
                Error::Unavailable { message, source } | Error::Broken { message, source } => {
                    Error::Unavailable {
                        message: format!("{}:{}: {message}", connect.get_host(), connect.get_port()),
                        source,
                    }
                }
                other => other,
            })?;
        if options.migrate {
            let mut connection = pool.acquire().await?;
            connection.execute("CREATE SCHEMA IF NOT EXISTS recache").await.or_else(ignore_race)?;
            MIGRATIONS.run_direct(None, &mut *connection, false).await.map_err(of_migration)?;
        }
        let (signals, _) = broadcast::channel(SIGNALS_KEPT);
        let listener = Listener::start(pool.clone(), connect, signals.clone());
        Ok(Self { pool, clock: options.clock.clone(), listener, signals })
    }

    async fn now_on(&self, db: &mut PgConnection) -> Result<Timestamp> {
        match &self.clock {
            Some(clock) => Ok(clock.now()),
            None => {
                let row = sqlx::query("SELECT clock() AS now").fetch_one(db).await?;
                Ok(Timestamp::from_micros(row.try_get("now")?))
            }
        }
    }

    async fn write<T, F>(&self, work: F) -> Result<T>
    where
        T: Send + 'static,
        F: for<'c> Fn(&'c mut Connection, Timestamp, &'c mut Effects) -> Work<'c, T> + Send + 'static,
    {
        let mut tries = 1;
        loop {
            match self.try_write(&work).await {
                Err(error) if tries < TRIES_MAX && lost_a_race(&error) => tries += 1,
                other => return other,
            }
        }
    }

    async fn try_write<T, F>(&self, work: &F) -> Result<T>
    where
        F: for<'c> Fn(&'c mut Connection, Timestamp, &'c mut Effects) -> Work<'c, T> + Send,
    {
        let mut transaction = self.pool.begin().await?;
        let now = self.now_on(&mut transaction).await?;
        let mut effects = Effects::default();
        let value = match work(&mut transaction, now, &mut effects).await {
            Ok(value) => value,
            Err(error) => {
                transaction.rollback().await?;
                return Err(error);
            }
        };
        transaction.commit().await.map_err(Error::of_commit)?;
        self.tell(effects.into_signals());
        Ok(value)
    }

    async fn read<T, F>(&self, work: F) -> Result<T>
    where
        T: Send + 'static,
        F: for<'c> FnOnce(&'c mut Connection, Timestamp) -> Work<'c, T> + Send + 'static,
    {
        let mut connection = self.pool.acquire().await?;
        let now = self.now_on(&mut connection).await?;
        work(&mut connection, now).await
    }

    fn tell(&self, signals: Vec<Signal>) {
        for signal in &signals {
            // Nobody listening is fine.
            let _ = self.signals.send(signal.clone());
        }
        self.listener.send(signals);
    }

    async fn shut_down(&self) {
        self.listener.stop().await;
        self.pool.close().await;
    }
}

/// Two processes that create the schema at the same time: the second one's error says that it is there.
fn ignore_race(error: sqlx::Error) -> Result<sqlx::postgres::PgQueryResult> {
    match error.as_database_error().and_then(sqlx::error::DatabaseError::code).as_deref() {
        Some("23505" | "42P06") => Ok(sqlx::postgres::PgQueryResult::default()),
        _ => Err(error.into()),
    }
}

fn lost_a_race(error: &Error) -> bool {
    let (Error::Unavailable { source: Some(source), .. } | Error::Broken { source: Some(source), .. }) =
        error
    else {
        return false;
    };
    source
        .as_database_error()
        .and_then(sqlx::error::DatabaseError::code)
        .is_some_and(|code| code == "40001" || code == "40P01")
}

fn of_migration(error: MigrateError) -> Error {
    match error {
        MigrateError::Execute(error) | MigrateError::ExecuteMigration(error, _) => Error::from(error),
        MigrateError::VersionMissing(version) => Error::Invalid(format!(
            "the database has schema version {version}, which this version of Recache does not know: \
             it was migrated by a newer one; run that one"
        )),
        other => Error::Broken { message: format!("migration: {other}"), source: None },
    }
}
