//! PostgreSQL: many processes on one database, everything in the schema `recache`.
//!
//! Writes are short `READ COMMITTED` transactions with `synchronous_commit = on` whatever the role's default;
//! deadlocks and serialisation failures are tried again here. Hints travel by `LISTEN/NOTIFY` (`listener.rs`), sent
//! outside the transactions that cause them.

mod bulk;
mod bulk_tracked;
mod history_days;
mod listener;
mod plans;
#[cfg(feature = "pressure")]
pub mod pressure;
mod watch;

use std::fmt;
use std::pin::Pin;
use std::str::FromStr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use recache_model::time::{Clock, SystemClock, Timestamp};
use sqlx::migrate::{MigrateError, Migrator};
use sqlx::pool::PoolConnection;
use sqlx::postgres::{PgConnectOptions, PgConnection, PgPool, PgPoolOptions, PgRow, Postgres};
use sqlx::{ConnectOptions as _, Connection as _, Executor as _, Row as _, Transaction};
use tokio::sync::broadcast;
use uuid::Uuid;

use crate::error::{Error, Result};
use crate::fail::fail_point;
use crate::measured::{Measured, PoolCounts, Taken, Times, name_of};
use crate::open::OpenOptions;
use crate::records::{ClaimRequest, Dispatched, NewJob, Settled, Settlement, Submitted};
use crate::signal::Signal;
use crate::slow_plans::SlowPlans;
use connection::Connection;
use history_days::OUTSIDE;
use listener::Listener;
use statements::effects::Effects;
use statements::limited::{KeyCursor, LimitedClaim};
use statements::submit::UniqueColumns;

macro_rules! for_update {
    () => {
        " FOR UPDATE"
    };
}
macro_rules! for_share {
    () => {
        " FOR SHARE"
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
/// A list of pairs of texts, as `serde_json` writes it.
macro_rules! in_pairs {
    ($parameter:literal) => {
        concat!(
            "IN (SELECT e.value ->> 0, e.value ->> 1 FROM json_array_elements(CAST(",
            $parameter,
            " AS json)) AS e (value))"
        )
    };
}
macro_rules! numbers_of {
    ($parameter:literal) => {
        concat!("unnest(CAST(", $parameter, " AS bigint[])) AS n (value)")
    };
}

#[path = "../connection.rs"]
#[expect(
    clippy::duplicate_mod,
    reason = "one text, compiled against each engine's types; see statements/mod.rs"
)]
mod connection;
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

type Engine = Postgres;
pub(crate) type Row = PgRow;
pub(crate) type Work<'c, T> = Pin<Box<dyn Future<Output = Result<T>> + Send + 'c>>;
const KIND: &str = "postgresql";

/// How long a call waits for a connection before it says "try again".
const ACQUIRE_WAIT: Duration = Duration::from_secs(2);
/// A connection that was used this recently is taken to be alive.
const TRUSTED_AFTER_USE: Duration = Duration::from_millis(500);
/// How often a transaction that lost a deadlock is tried again.
const TRIES_MAX: usize = 5;
/// Signals kept for a listener that is behind; one that misses some polls.
const SIGNALS_KEPT: usize = 4096;

static MIGRATIONS: Migrator = sqlx::migrate!("./migrations/postgres");

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
fn ids(ids: &[Uuid]) -> Vec<Uuid> {
    ids.to_vec()
}

/// A list of texts as one parameter.
fn texts(texts: &[String]) -> Vec<String> {
    texts.to_vec()
}

/// A list of texts as a column has it.
fn texts_of(row: &Row, column: &str) -> Result<Option<Vec<String>>> {
    Ok(row.try_get(column)?)
}

/// A list of numbers as one parameter.
fn numbers(numbers: &[u16]) -> Vec<i64> {
    numbers.iter().map(|number| i64::from(*number)).collect()
}

/// The PostgreSQL driver.
pub struct Driver {
    pool: PgPool,
    clock: Option<Arc<dyn Clock>>,
    listener: Listener,
    key_cursor: Arc<KeyCursor>,
    counts: Arc<PoolCounts>,
    times: Times,
    figures_other: AtomicU64,
    /// Where slow statements are noted, if their plans are wanted.
    plans: Option<SlowPlans>,
    pub(crate) signals: broadcast::Sender<Signal>,
}

/// What a connection is made of.
enum Inner {
    /// One of the pool.
    Pooled(PoolConnection<Postgres>),
    /// One in a transaction, which is undone when it is dropped.
    Transaction(Transaction<'static, Postgres>),
}

impl Inner {
    fn get(&mut self) -> &mut PgConnection {
        match self {
            Self::Pooled(connection) => connection,
            Self::Transaction(transaction) => transaction,
        }
    }
}

impl Connection {
    /// Begins a transaction.
    async fn begin(mut self) -> sqlx::Result<Self> {
        if let Inner::Pooled(connection) = self.inner {
            self.inner = Inner::Transaction(Transaction::begin(connection, None).await?);
        }
        Ok(self)
    }

    async fn commit(self) -> sqlx::Result<()> {
        match self.inner {
            Inner::Transaction(transaction) => transaction.commit().await,
            Inner::Pooled(_) => Ok(()),
        }
    }

    async fn rollback(self) -> sqlx::Result<()> {
        match self.inner {
            Inner::Transaction(transaction) => transaction.rollback().await,
            Inner::Pooled(_) => Ok(()),
        }
    }
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
        let counts = Arc::new(PoolCounts::new());
        let (opened, aged) = (Arc::clone(&counts), Arc::clone(&counts));
        let pool = PgPoolOptions::new()
            .max_connections(options.connections_max)
            .acquire_timeout(ACQUIRE_WAIT)
            .max_lifetime(options.connection_life_max)
            // A round trip for each use would be a fifth of a short call; a connection that was used a moment ago
            // is trusted, one that rested is asked first.
            .test_before_acquire(false)
            .before_acquire(move |connection, about| {
                aged.aged(about.age);
                Box::pin(async move {
                    if about.idle_for < TRUSTED_AFTER_USE {
                        return Ok(true);
                    }
                    Ok(connection.ping().await.is_ok())
                })
            })
            .after_connect(move |connection, _| {
                opened.opened();
                Box::pin(async move {
                    // Planning "settle and claim" takes 1.4 ms, running it 0.1 ms, and no plan of ours depends on a
                    // parameter's value. Set after connecting rather than as start-up options, which transaction poolers refuse.
                    // A generic plan is made once, and on a fresh database that is before there are rows or statistics: then
                    // reading a whole table looks cheapest, and is done until the first ANALYZE, a minute of work later. With
                    // sequential scans off an index is used wherever there is one.
                    // A process that is stopped in the middle of a transaction would keep its locks, and with them
                    // every sweep, waiting for as long as it is stopped.
                    connection
                        .execute(
                            "SET search_path TO recache; SET synchronous_commit TO on; SET jit TO off; \
                             SET plan_cache_mode TO force_generic_plan; SET enable_seqscan TO off; \
                             SET idle_in_transaction_session_timeout TO '3s'",
                        )
                        .await?;
                    Ok(())
                })
            })
            .connect_lazy_with(connect.clone());
        // Tried alone first: a pool only says that it waited in vain, a connection says why.
        let unreachable = |error: Error| match error {
            Error::Unavailable { message, source } | Error::Broken { message, source } => {
                let message = format!("{}:{}: {message}", connect.get_host(), connect.get_port());
                Error::Unavailable { message, source }
            }
            other => other,
        };
        match tokio::time::timeout(ACQUIRE_WAIT, PgConnection::connect_with(&connect)).await {
            Ok(Ok(connection)) => connection.close().await?,
            Ok(Err(error)) => return Err(unreachable(error.into())),
            Err(_) => {
                let message = format!("no answer within {} ms", ACQUIRE_WAIT.as_millis());
                return Err(unreachable(Error::unavailable(message)));
            }
        }
        if options.migrate {
            let mut connection = pool.acquire().await?;
            connection.execute("CREATE SCHEMA IF NOT EXISTS recache").await.or_else(ignore_race)?;
            fail_point!("migrate.before");
            MIGRATIONS.run_direct(None, &mut *connection, false).await.map_err(of_migration)?;
            fail_point!("migrate.after");
        }
        let (signals, _) = broadcast::channel(SIGNALS_KEPT);
        let listener = Listener::start(pool.clone(), connect, signals.clone(), options.listens);
        let key_cursor = Arc::default();
        let times = Times::new(options.slow);
        let plans = options.slow_plans.then(|| {
            let (plans, asked) = SlowPlans::new(options.slow);
            tokio::spawn(plans::run(pool.clone(), Arc::clone(&counts), asked));
            plans
        });
        let clock = options.clock.clone();
        let figures_other = AtomicU64::new(0);
        let driver = Self { pool, clock, listener, key_cursor, counts, times, figures_other, plans, signals };
        if options.migrate {
            driver.make_history_days().await;
        }
        Ok(driver)
    }

    /// A connection of the pool, counted for as long as it is held, for a method of this name.
    async fn take(&self, call: &'static str) -> Result<(Connection, Taken<'_>)> {
        let (connection, taken) = self.counts.take(self.pool.acquire()).await?;
        Ok((Connection::new(Inner::Pooled(connection), self.plans.as_ref(), call), taken))
    }

    /// What was measured.
    fn measure(&self) -> Measured {
        let max = self.pool.options().get_max_connections();
        let pool = Some(self.counts.read(max, self.pool.size()));
        let figures_other = self.figures_other.load(Ordering::Relaxed);
        Measured { pool, writer: None, statements: self.times.read(), figures_other }
    }

    async fn now_on(&self, db: &mut Connection) -> Result<Timestamp> {
        if let Some(now) = self.moved_time() {
            return Ok(now);
        }
        let row = sqlx::query("SELECT clock() AS now").fetch_one(db).await?;
        Ok(Timestamp::from_micros(row.try_get("now")?))
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
        let name = name_of(work);
        let (connection, taken) = self.take(name).await?;
        let done = self.write_on(connection, work).await;
        self.times.note(name, &taken, done.is_ok());
        done
    }

    async fn write_on<T, F>(&self, connection: Connection, work: &F) -> Result<T>
    where
        F: for<'c> Fn(&'c mut Connection, Timestamp, &'c mut Effects) -> Work<'c, T> + Send,
    {
        let mut transaction = connection.begin().await?;
        let now = self.now_on(&mut transaction).await?;
        let mut effects = Effects::default();
        let value = match finish(work, &mut transaction, now, &mut effects).await {
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

    /// Without a transaction around it where the one statement is all there is.
    async fn submit(&self, new: Vec<NewJob>) -> Result<Vec<Submitted>> {
        // An id of long ago may have been a job's that is gone: what is left of that one goes in the same transaction.
        let now = self.moved_time().unwrap_or_else(|| SystemClock.now());
        let is_old = |job: &NewJob| history_days::may_have_history(job.id.uuid(), now);
        if new.iter().any(|job| job.has_ties() || is_old(job)) {
            let new = Arc::new(new);
            return self
                .write(move |db, now, effects| {
                    let new = Arc::clone(&new);
                    Box::pin(async move { statements::submit::submit(db, now, &new, effects).await })
                })
                .await;
        }
        statements::jobs::check_alone(&new)?;
        let (mut connection, taken) = self.take("jobs_submit").await?;
        let mut effects = Effects::default();
        let jobs: Vec<&NewJob> = new.iter().collect();
        let uniques = vec![UniqueColumns::default(); new.len()];
        let fresh = bulk::jobs_insert(&mut connection, self.moved_time(), &jobs, &uniques).await;
        self.times.note("jobs_submit", &taken, fresh.is_ok());
        let fresh = fresh.map_err(as_of_commit)?;
        let submitted = statements::jobs::submitted(&new, &fresh, &mut effects);
        self.tell(effects.into_signals());
        Ok(submitted)
    }

    /// One statement for everything that belongs to nothing else, which is all there is on the busiest path.
    async fn dispatch(
        &self,
        settlements: Vec<Settlement>,
        claim: Option<ClaimRequest>,
    ) -> Result<Dispatched> {
        let plain: Vec<(usize, &Settlement)> =
            settlements.iter().enumerate().filter(|(_, settlement)| !settlement.linked).collect();
        let mut answer = Dispatched::default();
        let mut settled = vec![None; settlements.len()];
        let has_linked = plain.len() < settlements.len();
        let mut is_limited = false;
        if !plain.is_empty() || !has_linked {
            // With linked settlements to come, the claim waits: they may unblock what it can then take.
            let claim_now = claim.as_ref().filter(|_| !has_linked);
            let mut tries = 1;
            loop {
                let (mut connection, taken) = self.take("jobs_dispatch").await?;
                let mut effects = Effects::default();
                let now = self.moved_time();
                let done =
                    bulk::settle_and_claim(&mut connection, now, &plain, claim_now, &mut effects).await;
                self.times.note("jobs_dispatch", &taken, done.is_ok());
                match done {
                    Ok(done) => {
                        for place in done.accepted {
                            settled[place] = Some(Settled::Accepted);
                            effects.made_room(&settlements[place]);
                        }
                        self.tell(effects.into_signals());
                        answer.claimed = done.claimed;
                        is_limited = done.is_limited;
                        break;
                    }
                    Err(error) if tries < TRIES_MAX && lost_a_race(&error) => tries += 1,
                    Err(error) => return Err(as_of_commit(error)),
                }
            }
        }
        let places: Vec<usize> = (0..settlements.len()).filter(|place| settled[*place].is_none()).collect();
        let claim = claim.filter(|_| has_linked || is_limited);
        if !places.is_empty() || claim.is_some() {
            let rest: Vec<Settlement> = places.iter().map(|place| settlements[*place].clone()).collect();
            let (answers, claimed) = self.settle_then_claim(rest, claim, is_limited).await?;
            for (place, answer) in places.into_iter().zip(answers) {
                settled[place] = Some(answer);
            }
            answer.claimed.extend(claimed.jobs);
            answer.look_again = claimed.look_again;
        }
        answer.settled = settled.into_iter().flatten().collect();
        Ok(answer)
    }

    /// In one transaction: settlements one by one, then a claim, which may be one under limits.
    async fn settle_then_claim(
        &self,
        settlements: Vec<Settlement>,
        claim: Option<ClaimRequest>,
        is_limited: bool,
    ) -> Result<(Vec<Settled>, LimitedClaim)> {
        let asked = Arc::new((settlements, claim));
        let cursor = Arc::clone(&self.key_cursor);
        self.write(move |db, now, effects| {
            let (asked, cursor) = (Arc::clone(&asked), Arc::clone(&cursor));
            Box::pin(async move {
                let (settlements, claim) = &*asked;
                let answers = statements::settle::settle(db, now, settlements, effects).await?;
                let Some(claim) = claim else { return Ok((answers, LimitedClaim::default())) };
                if !is_limited {
                    let done = bulk::settle_and_claim(db, Some(now), &[], Some(claim), effects).await?;
                    if !done.is_limited {
                        effects.claimed(&done.claimed);
                        fail_point!("claim.before_commit");
                        return Ok((answers, LimitedClaim { jobs: done.claimed, look_again: None }));
                    }
                }
                Ok((answers, statements::limited::claim(db, now, claim, &cursor).await?))
            })
        })
        .await
    }

    /// What stands in for the database's clock, if anything does.
    fn moved_time(&self) -> Option<Timestamp> {
        self.clock.as_ref().map(|clock| clock.now())
    }

    async fn database_time(&self) -> Result<Timestamp> {
        let (mut connection, taken) = self.take("now").await?;
        let now = self.now_on(&mut connection).await;
        self.times.note("now", &taken, now.is_ok());
        now
    }

    /// The time that readers get is for showing only, so it needs no round trip.
    async fn read<T, F>(&self, work: F) -> Result<T>
    where
        T: Send + 'static,
        F: for<'c> FnOnce(&'c mut Connection, Timestamp) -> Work<'c, T> + Send + 'static,
    {
        let name = name_of(&work);
        let (mut connection, taken) = self.take(name).await?;
        let now = self.moved_time().unwrap_or_else(|| SystemClock.now());
        let done = work(&mut connection, now).await;
        self.times.note(name, &taken, done.is_ok());
        done
    }

    fn tell(&self, signals: Vec<Signal>) {
        for signal in &signals {
            // Nobody listening is fine.
            let _ = self.signals.send(signal.clone());
        }
        // Who changed a member looks at its batch; at 1,000 changes a second others are better left alone.
        self.listener
            .send(signals.into_iter().filter(|signal| !matches!(signal, Signal::BatchMoved(_))).collect());
    }

    async fn shut_down(&self) {
        self.listener.stop().await;
        self.pool.close().await;
    }
}

/// The work, and what it counted as its last statement.
async fn finish<T, F>(work: &F, db: &mut Connection, now: Timestamp, effects: &mut Effects) -> Result<T>
where
    F: for<'c> Fn(&'c mut Connection, Timestamp, &'c mut Effects) -> Work<'c, T> + Send,
{
    let value = work(db, now, effects).await?;
    statements::events::flush(db, now, effects).await?;
    statements::batches::flush(db, effects).await?;
    Ok(value)
}

/// Two processes that create the schema at the same time: the second one's error says that it is there.
fn ignore_race(error: sqlx::Error) -> Result<sqlx::postgres::PgQueryResult> {
    match error.as_database_error().and_then(sqlx::error::DatabaseError::code).as_deref() {
        Some("23505" | "42P06") => Ok(sqlx::postgres::PgQueryResult::default()),
        _ => Err(error.into()),
    }
}

/// A lone statement is its own commit: when the connection broke under it, nobody knows what became of it.
fn as_of_commit(error: Error) -> Error {
    match error {
        Error::Unavailable {
            source: Some(source @ (sqlx::Error::Io(_) | sqlx::Error::Protocol(_))), ..
        } => Error::of_commit(source),
        other => other,
    }
}

fn lost_a_race(error: &Error) -> bool {
    let (Error::Unavailable { source: Some(source), .. } | Error::Broken { source: Some(source), .. }) =
        error
    else {
        return false;
    };
    source.as_database_error().is_some_and(|error| {
        // A row of history whose way to its part was found just before another part was made for it: then no constraint of ours is named.
        let is_of_part = || error.constraint().is_none() && error.table() == Some(OUTSIDE);
        match error.code().as_deref() {
            Some("40001" | "40P01") => true,
            Some("23514") => is_of_part(),
            _ => false,
        }
    })
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
