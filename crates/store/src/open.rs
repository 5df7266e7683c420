//! From a URL to a store.

use std::path::PathBuf;
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use recache_model::time::Clock;

use crate::contract::Store;
use crate::error::{Error, Result};
use crate::flights::FlightStore;
use crate::{postgres, sqlite};

/// Which database, and where.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum DatabaseUrl {
    /// A database in this process's memory, gone with it.
    Memory,
    /// An SQLite file.
    File(PathBuf),
    /// A PostgreSQL server.
    Postgres(String),
}

impl FromStr for DatabaseUrl {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        if text.starts_with("postgres://") || text.starts_with("postgresql://") {
            return Ok(Self::Postgres(text.to_owned()));
        }
        match text.strip_prefix("sqlite:").map(|rest| rest.strip_prefix("//").unwrap_or(rest)) {
            Some(":memory:") => Ok(Self::Memory),
            Some(path) if !path.is_empty() => Ok(Self::File(PathBuf::from(path))),
            _ => Err(Error::Invalid(
                "the database URL must be sqlite:PATH, sqlite::memory: or postgres://user:password@host/database"
                    .to_owned(),
            )),
        }
    }
}

/// When SQLite waits for the disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Synchronous {
    /// At every commit: what was acknowledged survives a power cut.
    #[default]
    Full,
    /// At checkpoints only: a power cut can lose what was acknowledged since. An explicit choice.
    Normal,
}

/// How to open a store.
#[derive(Debug, Clone)]
pub struct OpenOptions {
    /// `sqlite:PATH`, `sqlite::memory:` or `postgres://…`.
    pub url: String,
    /// Connections at most; PostgreSQL only. Default 10.
    pub connections_max: u32,
    /// Connections that read, at most; SQLite only, which has one more that writes. Default 4.
    pub readers_max: u32,
    /// SQLite only. Default full.
    pub synchronous: Synchronous,
    /// Bring the schema up to date while opening. Default true.
    pub migrate: bool,
    /// A connection that is older is replaced when it is next given back or asked for; PostgreSQL only. Default 30 minutes.
    pub connection_life_max: Duration,
    /// A call that takes longer is logged and counted as slow. Default 1 s.
    pub slow: Duration,
    /// Looks up the plans of statements that take as long, and logs them: of each once a minute at most, after it has run. Default false.
    pub slow_plans: bool,
    /// Hear at once of what other processes do; PostgreSQL only. Without it they are found out by beats and polls, as when every notification is lost. Default
    /// true.
    pub listens: bool,
    /// Judges deadlines instead of the database's own clock. For tests that move time.
    pub clock: Option<Arc<dyn Clock>>,
}

impl OpenOptions {
    /// Options for `url`, else defaults.
    pub fn new(url: impl Into<String>) -> Self {
        Self {
            url: url.into(),
            connections_max: 10,
            readers_max: 4,
            synchronous: Synchronous::Full,
            migrate: true,
            connection_life_max: Duration::from_secs(30 * 60),
            slow: Duration::from_secs(1),
            slow_plans: false,
            listens: true,
            clock: None,
        }
    }
}

/// The version of the tables that this version of Recache works with: that of its last migration.
pub fn newest_schema() -> i64 {
    sqlite::newest_schema()
}

/// Opens the store that `options.url` names, and brings its schema up to date if asked.
pub async fn open(options: &OpenOptions) -> Result<Arc<dyn Store>> {
    Ok(match options.url.parse()? {
        DatabaseUrl::Postgres(url) => Arc::new(postgres::Driver::open(&url, options).await?),
        DatabaseUrl::Memory => Arc::new(sqlite::Driver::open(None, options).await?),
        DatabaseUrl::File(path) => Arc::new(sqlite::Driver::open(Some(&path), options).await?),
    })
}

/// Like [`open`], with access to the example's flights in the same database.
pub async fn open_with_flights(options: &OpenOptions) -> Result<(Arc<dyn Store>, Arc<dyn FlightStore>)> {
    Ok(match options.url.parse()? {
        DatabaseUrl::Postgres(url) => pair(postgres::Driver::open(&url, options).await?),
        DatabaseUrl::Memory => pair(sqlite::Driver::open(None, options).await?),
        DatabaseUrl::File(path) => pair(sqlite::Driver::open(Some(&path), options).await?),
    })
}

fn pair<D: Store + FlightStore + 'static>(driver: D) -> (Arc<dyn Store>, Arc<dyn FlightStore>) {
    let driver = Arc::new(driver);
    let store: Arc<dyn Store> = Arc::<D>::clone(&driver);
    (store, driver)
}
