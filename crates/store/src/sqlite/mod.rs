//! SQLite: bundled, one file, nothing to install.
//!
//! All writes go through one connection (`writer.rs`), each group of them in one `BEGIN IMMEDIATE` transaction with
//! one `fsync`; reads have connections of their own and never wait for it (WAL). Several processes may share one
//! file on one host; they hear of each other by polling.

mod bulk;
mod bulk_tracked;
mod plans;
mod watch;
mod writer;

use std::fmt;
use std::path::Path;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use recache_model::time::{Clock, SystemClock, Timestamp};
use sqlx::migrate::{MigrateError, Migrator};
use sqlx::pool::PoolConnection;
use sqlx::sqlite::{
    Sqlite, SqliteConnectOptions, SqliteConnection, SqliteJournalMode, SqlitePool, SqlitePoolOptions,
    SqliteRow, SqliteSynchronous,
};
use sqlx::{ConnectOptions as _, Connection as _, Row as _};
use tokio::sync::broadcast;
use tokio::time::Instant;
use uuid::Uuid;

use crate::error::{Error, Result};
use crate::fail::fail_point;
use crate::maintenance::{HistoryRule, HistoryTended, Leadership};
use crate::measured::{Measured, PoolCounts, Times, name_of};
use crate::open::{OpenOptions, Synchronous};
use crate::records::{ClaimRequest, Dispatched, NewJob, Settled, Settlement, Submitted};
use crate::signal::Signal;
use crate::slow_plans::SlowPlans;
use connection::Connection;
use statements::effects::Effects;
use statements::limited::KeyCursor;
use statements::submit::UniqueColumns;
use writer::Writer;

/// What the writer keeps of the file in its memory, at most: -KiB. What is changed again is not read again; the engine's own 2 MB hold
/// little more than the pages of one batch.
const WRITER_CACHE: &str = "-65536";
/// The same of each reader.
const READER_CACHE: &str = "-8192";
/// So many pages are written to the log before it is copied into the file, each once: 16 MiB.
const CHECKPOINT_PAGES: &str = "4000";

macro_rules! for_update {
    () => {
        // The writer is alone while it writes.
        ""
    };
}
macro_rules! for_share {
    () => {
        ""
    };
}
macro_rules! for_update_skip_locked {
    () => {
        ""
    };
}
macro_rules! in_ids {
    ($parameter:literal) => {
        concat!("IN (SELECT unhex(value) FROM json_each(", $parameter, "))")
    };
}
macro_rules! in_texts {
    ($parameter:literal) => {
        concat!("IN (SELECT value FROM json_each(", $parameter, "))")
    };
}
/// A list of pairs of texts, as `serde_json` writes it.
macro_rules! in_pairs {
    ($parameter:literal) => {
        concat!("IN (SELECT value ->> 0, value ->> 1 FROM jsonb_each(", $parameter, "))")
    };
}
macro_rules! numbers_of {
    ($parameter:literal) => {
        concat!("json_each(", $parameter, ") AS n")
    };
}

#[path = "../connection.rs"]
mod connection;
#[path = "../flight_statements.rs"]
mod flight_statements;
#[path = "../implement.rs"]
mod implement;
#[path = "../statements/mod.rs"]
mod statements;

type Engine = Sqlite;
pub(crate) type Row = SqliteRow;
pub(crate) type Work<'c, T> = Pin<Box<dyn Future<Output = Result<T>> + Send + 'c>>;
const KIND: &str = "sqlite";

/// How long a statement waits for another process that writes.
const BUSY_WAIT: Duration = Duration::from_secs(5);
/// Signals kept for a listener that is behind; one that misses some polls.
const SIGNALS_KEPT: usize = 4096;

static MIGRATIONS: Migrator = sqlx::migrate!("./migrations/sqlite");

/// The version of the last migration.
pub(crate) fn newest_schema() -> i64 {
    MIGRATIONS.iter().map(|migration| migration.version).max().unwrap_or(0)
}

/// Another one for other migrations.
#[cfg(any(test, feature = "conformance"))]
pub(crate) fn migrations_digest() -> u64 {
    let mut hasher = std::hash::DefaultHasher::new();
    for migration in MIGRATIONS.iter() {
        std::hash::Hash::hash(&migration.checksum, &mut hasher);
    }
    std::hash::Hasher::finish(&hasher)
}

/// A list of ids as one parameter.
fn ids(ids: &[Uuid]) -> String {
    texts(&ids.iter().map(|id| id.simple().to_string()).collect::<Vec<_>>())
}

/// A list of texts as one parameter.
fn texts(texts: &[String]) -> String {
    serde_json::Value::from(texts).to_string()
}

/// A list of texts as a column has it.
fn texts_of(row: &Row, column: &str) -> Result<Option<Vec<String>>> {
    let text: Option<String> = row.try_get(column)?;
    text.map(|text| statements::jobs::json(column, &text)).transpose()
}

/// A list of numbers as one parameter.
fn numbers(numbers: &[u16]) -> String {
    serde_json::Value::from(numbers).to_string()
}

/// What a connection is made of.
enum Inner {
    /// The one that writes.
    Writer(Box<SqliteConnection>),
    /// One of those that read.
    Reader(PoolConnection<Sqlite>),
}

impl Inner {
    fn get(&mut self) -> &mut SqliteConnection {
        match self {
            Self::Writer(connection) => connection,
            Self::Reader(connection) => connection,
        }
    }
}

impl Connection {
    async fn close(self) -> sqlx::Result<()> {
        match self.inner {
            Inner::Writer(connection) => connection.close().await,
            Inner::Reader(_) => Ok(()),
        }
    }
}

/// Connections that read, and what is measured of them.
#[derive(Debug)]
struct Readers {
    pool: SqlitePool,
    counts: Arc<PoolCounts>,
}

/// The SQLite driver.
pub struct Driver {
    writer: Writer,
    /// `None` for a database in memory, which only one connection can see.
    readers: Option<Readers>,
    /// Where slow statements are noted, if their plans are wanted.
    plans: Option<SlowPlans>,
    clock: Arc<dyn Clock>,
    key_cursor: Arc<KeyCursor>,
    times: Times,
    figures_other: AtomicU64,
    pub(crate) signals: broadcast::Sender<Signal>,
}

impl fmt::Debug for Driver {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("sqlite::Driver").finish_non_exhaustive()
    }
}

impl Driver {
    /// Opens a file, or a database in memory.
    pub async fn open(path: Option<&Path>, options: &OpenOptions) -> Result<Self> {
        let connect = SqliteConnectOptions::new()
            .pragma("cache_size", READER_CACHE)
            .pragma("wal_autocheckpoint", CHECKPOINT_PAGES)
            .create_if_missing(true)
            .journal_mode(SqliteJournalMode::Wal)
            .synchronous(match options.synchronous {
                Synchronous::Full => SqliteSynchronous::Full,
                Synchronous::Normal => SqliteSynchronous::Normal,
            })
            .busy_timeout(BUSY_WAIT)
            .foreign_keys(true)
            .statement_cache_capacity(256)
            .disable_statement_logging();
        let connect = match path {
            Some(path) => connect.filename(path),
            None => connect.in_memory(true),
        };
        let place = |error: Error| match (path, error) {
            (Some(path), Error::Unavailable { message, source }) => {
                Error::Unavailable { message: format!("{}: {message}", path.display()), source }
            }
            (_, error) => error,
        };
        let writing = connect.clone().pragma("cache_size", WRITER_CACHE);
        let mut connection =
            SqliteConnection::connect_with(&writing).await.map_err(|error| place(error.into()))?;
        if options.migrate {
            fail_point!("migrate.before");
            migrate(&mut connection).await.map_err(place)?;
            fail_point!("migrate.after");
        }
        let readers = path.map(|_| {
            let counts = Arc::new(PoolCounts::new());
            let (opened, aged) = (Arc::clone(&counts), Arc::clone(&counts));
            let pool = SqlitePoolOptions::new()
                .max_connections(options.readers_max)
                .before_acquire(move |_, about| {
                    aged.aged(about.age);
                    Box::pin(async { Ok(true) })
                })
                .after_connect(move |_, _| {
                    opened.opened();
                    Box::pin(async { Ok(()) })
                })
                .connect_lazy_with(connect.clone().create_if_missing(false).read_only(true));
            Readers { pool, counts }
        });
        let clock = options.clock.clone().unwrap_or_else(|| Arc::new(SystemClock));
        let (signals, _) = broadcast::channel(SIGNALS_KEPT);
        let (plans, asked) = options.slow_plans.then(|| SlowPlans::new(options.slow)).unzip();
        let connection = Connection::new(Inner::Writer(Box::new(connection)), plans.as_ref(), "migrate");
        let writer = Writer::start(connection, Arc::clone(&clock), signals.clone());
        if let Some(asked) = asked {
            let place = match &readers {
                Some(readers) => plans::Place::Readers(readers.pool.clone()),
                None => plans::Place::Writer(writer.clone()),
            };
            tokio::spawn(plans::run(place, asked));
        }
        let times = Times::new(options.slow);
        let figures_other = AtomicU64::new(0);
        Ok(Self { writer, readers, plans, clock, key_cursor: Arc::default(), times, figures_other, signals })
    }

    /// What was measured. Its pool is that of the connections that read.
    fn measure(&self) -> Measured {
        let pool = self.readers.as_ref().map(|readers| {
            let max = readers.pool.options().get_max_connections();
            readers.counts.read(max, readers.pool.size())
        });
        Measured {
            pool,
            writer: Some(self.writer.measure()),
            statements: self.times.read(),
            figures_other: self.figures_other.load(Ordering::Relaxed),
        }
    }

    async fn write<T, F>(&self, work: F) -> Result<T>
    where
        T: Send + 'static,
        F: for<'c> Fn(&'c mut Connection, Timestamp, &'c mut Effects) -> Work<'c, T> + Send + 'static,
    {
        self.write_as(name_of(&work), work).await
    }

    /// The same under the name of the contract's method, where that is not whose closure it is.
    async fn write_as<T, F>(&self, name: &'static str, work: F) -> Result<T>
    where
        T: Send + 'static,
        F: for<'c> Fn(&'c mut Connection, Timestamp, &'c mut Effects) -> Work<'c, T> + Send + 'static,
    {
        let began = Instant::now();
        let (done, waited) = self.writer.write(name, work).await;
        self.times.add(name, waited, began.elapsed().saturating_sub(waited), done.is_ok());
        done
    }

    async fn submit(&self, new: Vec<NewJob>) -> Result<Vec<Submitted>> {
        let new = Arc::new(new);
        self.write_as("jobs_submit", move |db, now, effects| {
            let new = Arc::clone(&new);
            Box::pin(async move { submit(db, now, &new, effects).await })
        })
        .await
    }

    /// All of it is one transaction.
    async fn dispatch(
        &self,
        settlements: Vec<Settlement>,
        claim: Option<ClaimRequest>,
    ) -> Result<Dispatched> {
        let asked = Arc::new((settlements, claim));
        let cursor = Arc::clone(&self.key_cursor);
        self.write_as("jobs_dispatch", move |db, now, effects| {
            let (asked, cursor) = (Arc::clone(&asked), Arc::clone(&cursor));
            Box::pin(async move {
                let (settlements, claim) = &*asked;
                dispatch(db, now, settlements, claim.as_ref(), &cursor, effects).await
            })
        })
        .await
    }

    /// On one host the database's clock is the host's.
    async fn database_time(&self) -> Result<Timestamp> {
        self.read(|_, now| Box::pin(async move { Ok(now) })).await
    }

    async fn read<T, F>(&self, work: F) -> Result<T>
    where
        T: Send + 'static,
        F: for<'c> FnOnce(&'c mut Connection, Timestamp) -> Work<'c, T> + Send + 'static,
    {
        let (name, began) = (name_of(&work), Instant::now());
        let Some(readers) = &self.readers else {
            let (done, waited) = self.writer.read(name, work).await;
            self.times.add(name, waited, began.elapsed().saturating_sub(waited), done.is_ok());
            return done;
        };
        let (connection, taken) = readers.counts.take(readers.pool.acquire()).await?;
        let mut connection = Connection::new(Inner::Reader(connection), self.plans.as_ref(), name);
        let done = work(&mut connection, self.clock.now()).await;
        self.times.note(name, &taken, done.is_ok());
        done
    }

    fn tell(&self, signals: Vec<Signal>) {
        for signal in signals {
            // Nobody listening is fine.
            let _ = self.signals.send(signal);
        }
    }

    /// There is nothing to tend, for whoever leads.
    async fn tend_history(&self, lead: &Leadership, _: HistoryRule) -> Result<HistoryTended> {
        let lead = lead.clone();
        self.write(work!([lead] db, now, effects => {
            statements::maintenance::check_lead(db, &lead).await?;
            Ok(HistoryTended::default())
        }))
        .await
    }

    async fn shut_down(&self) {
        // The last connection to close must be one that may write: it takes the write-ahead log with it.
        if let Some(readers) = &self.readers {
            readers.pool.close().await;
        }
        self.writer.close().await;
    }
}

async fn submit(
    db: &mut Connection,
    now: Timestamp,
    new: &[NewJob],
    effects: &mut Effects,
) -> Result<Vec<Submitted>> {
    if new.iter().any(NewJob::has_ties) {
        return statements::submit::submit(db, now, new, effects).await;
    }
    statements::jobs::check_alone(new)?;
    let jobs: Vec<&NewJob> = new.iter().collect();
    let fresh = bulk::jobs_insert(db, Some(now), &jobs, &vec![UniqueColumns::default(); new.len()]).await?;
    Ok(statements::jobs::submitted(new, &fresh, effects))
}

async fn dispatch(
    db: &mut Connection,
    now: Timestamp,
    settlements: &[Settlement],
    claim: Option<&ClaimRequest>,
    cursor: &KeyCursor,
    effects: &mut Effects,
) -> Result<Dispatched> {
    let mut settled = vec![None; settlements.len()];
    let plain: Vec<(usize, &Settlement)> =
        settlements.iter().enumerate().filter(|(_, settlement)| !settlement.linked).collect();
    if !plain.is_empty() {
        for place in bulk::settle(db, now, &plain, effects).await? {
            settled[place] = Some(Settled::Accepted);
            effects.made_room(&settlements[place]);
        }
    }
    let places: Vec<usize> = (0..settlements.len()).filter(|place| settled[*place].is_none()).collect();
    if !places.is_empty() {
        let rest: Vec<Settlement> = places.iter().map(|place| settlements[*place].clone()).collect();
        let answers = statements::settle::settle(db, now, &rest, effects).await?;
        for (place, answer) in places.into_iter().zip(answers) {
            settled[place] = Some(answer);
        }
    }
    let settled = settled.into_iter().flatten().collect();
    let Some(claim) = claim else { return Ok(Dispatched { settled, ..Dispatched::default() }) };
    let claimed = bulk::claim_freely(db, now, claim).await?;
    if claimed.is_empty() && bulk::limits_concern(db, claim).await? {
        let claimed = statements::limited::claim(db, now, claim, cursor).await?;
        return Ok(Dispatched { settled, claimed: claimed.jobs, look_again: claimed.look_again });
    }
    effects.claimed(&claimed);
    fail_point!("claim.before_commit");
    Ok(Dispatched { settled, claimed, look_again: None })
}

/// Brings the schema up to date. Another process may be doing the same: then the loser of the race looks again.
async fn migrate(connection: &mut SqliteConnection) -> Result<()> {
    const TRIES_MAX: usize = 5;
    let mut tries = 0;
    loop {
        tries += 1;
        match MIGRATIONS.run_direct(None, &mut *connection, false).await {
            Ok(()) => return Ok(()),
            Err(MigrateError::VersionMissing(version)) => {
                return Err(Error::Invalid(format!(
                    "the database has schema version {version}, which this version of Recache does not know: \
                     it was migrated by a newer one; run that one"
                )));
            }
            Err(error) if tries >= TRIES_MAX => return Err(of_migration(error)),
            Err(_) => {}
        }
    }
}

fn of_migration(error: MigrateError) -> Error {
    match error {
        MigrateError::Execute(error) | MigrateError::ExecuteMigration(error, _) => Error::from(error),
        other => Error::Broken { message: format!("migration: {other}"), source: None },
    }
}
