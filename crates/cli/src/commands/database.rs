//! From configuration to an open store.
//!
//! A command that only reads or changes what is there refuses a database that is missing, foreign, not migrated or
//! newer than this program, and leaves it exactly as it was: opening an SQLite file is itself a change (it is
//! created, or put into WAL mode), so the file is looked at first.

use std::fs::File;
use std::io::{ErrorKind, Read as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use recache_model::ids::JobId;
use recache_store::{Error, OpenOptions, Store, newest_schema, open};

use super::failure::{database_code, of_store};
use crate::cli_error::{CliError, ExitStatus};
use crate::config::{DatabaseConfig, DatabaseUrl, Synchronous};

/// The configured database. What it is called on screen holds no password.
#[derive(Debug)]
pub(crate) struct Database {
    /// Where.
    url: DatabaseUrl,
    options: OpenOptions,
}

/// How far opening came.
pub(crate) enum Opened {
    /// All the way.
    Ready(Arc<dyn Store>),
    /// It can be reached, but its schema is not this program's.
    WrongSchema(CliError),
}

impl Database {
    /// The database that the configuration names.
    pub(crate) fn configured(config: &DatabaseConfig) -> Self {
        let url = match &config.url {
            DatabaseUrl::SqliteFile(path) => format!("sqlite:{}", path.display()),
            DatabaseUrl::SqliteMemory => "sqlite::memory:".to_owned(),
            DatabaseUrl::Postgres(url) => url.clone(),
        };
        let options = OpenOptions {
            connections_max: config.max_connections,
            readers_max: config.readers_max,
            synchronous: match config.synchronous {
                Synchronous::Full => recache_store::Synchronous::Full,
                Synchronous::Normal => recache_store::Synchronous::Normal,
            },
            connection_life_max: config.connection_life_max,
            slow: config.slow,
            slow_plans: config.slow_plans,
            ..OpenOptions::new(url)
        };
        Self { url: config.url.clone(), options }
    }

    /// The URL with its password, for a process that this one starts.
    pub(crate) fn secret_url(&self) -> &str {
        &self.options.url
    }

    /// The same, without hearing at once of what other processes do.
    pub(crate) fn deaf(&self) -> Self {
        Self { url: self.url.clone(), options: OpenOptions { listens: false, ..self.options.clone() } }
    }

    /// Where it is, without its password.
    pub(crate) fn place(&self) -> String {
        self.url.to_string()
    }

    /// The SQLite file, if it is one.
    pub(crate) fn file(&self) -> Option<&Path> {
        match &self.url {
            DatabaseUrl::SqliteFile(path) => Some(path),
            DatabaseUrl::SqliteMemory | DatabaseUrl::Postgres(_) => None,
        }
    }

    /// Opens it for a command that may create it, and brings its schema up to date.
    pub(crate) async fn open_or_create(&self) -> Result<Arc<dyn Store>, CliError> {
        if let Some(path) = self.file() {
            match look_at(path) {
                Looked::Missing(error) if folder(path).is_some_and(|folder| !folder.is_dir()) => {
                    return Err(CliError { remedy: make_folder(path), ..error });
                }
                Looked::Usable | Looked::NotOurs(_) | Looked::Missing(_) => {}
                Looked::Unusable(error) => return Err(error),
            }
        } else {
            // Only a URL that cannot be read is invalid here; below it is the schema.
            self.connect(false).await?.close().await;
        }
        match open(&self.options).await {
            Ok(store) => Ok(store),
            Err(error) => Err(self.of_schema(&error)),
        }
    }

    /// Opens it for a command that works with what is there.
    pub(crate) async fn open_existing(&self) -> Result<Arc<dyn Store>, CliError> {
        match self.reach().await? {
            Opened::Ready(store) => Ok(store),
            Opened::WrongSchema(error) => Err(error),
        }
    }

    /// Opens it without changing it, and tells one that cannot be reached from one with another schema.
    pub(crate) async fn reach(&self) -> Result<Opened, CliError> {
        match &self.url {
            DatabaseUrl::SqliteMemory => {
                return Ok(Opened::WrongSchema(
                    self.schema_error("a database in memory is empty at every start of the program")
                        .help("name a file or a server: --database sqlite:recache.db"),
                ));
            }
            DatabaseUrl::SqliteFile(path) => match look_at(path) {
                Looked::Usable => {}
                Looked::NotOurs(error) => return Ok(Opened::WrongSchema(error)),
                Looked::Missing(error) | Looked::Unusable(error) => return Err(error),
            },
            DatabaseUrl::Postgres(_) => {}
        }
        let store = self.connect(false).await?;
        // An id that no job has: all that is asked is whether there is a table to look into.
        let probed = store.job_get(JobId::from_uuid(uuid::Uuid::nil())).await;
        let failed = match probed {
            Ok(_) | Err(Error::NotFound { .. }) => None,
            Err(error) if has_no_tables(&error) => Some(Ok(Opened::WrongSchema(
                self.schema_error("the database has no tables of Recache").help(self.migrate_help()),
            ))),
            Err(error) => Some(Err(of_store(&error).at(self.place()))),
        };
        if let Some(failed) = failed {
            store.close().await;
            return failed;
        }
        match store.schema_version().await {
            Ok(version) if version < newest_schema() => {
                store.close().await;
                let what = format!(
                    "the database has schema version {version}, and this program works with version {}",
                    newest_schema()
                );
                return Ok(Opened::WrongSchema(self.schema_error(what).help(self.migrate_help())));
            }
            Ok(_) => {}
            Err(error) => {
                store.close().await;
                return Err(of_store(&error).at(self.place()));
            }
        }
        // The schema is this program's or a newer one, and the store refuses a newer one before it changes anything.
        let checked = open(&self.options).await;
        store.close().await;
        match checked {
            Ok(store) => {
                tracing::debug!(database = %self.url, schema_version = newest_schema(), "database opened");
                Ok(Opened::Ready(store))
            }
            Err(error @ (Error::Invalid(_) | Error::Broken { .. })) => {
                Ok(Opened::WrongSchema(self.of_schema(&error)))
            }
            Err(error) => Err(of_store(&error).at(self.place())),
        }
    }

    async fn connect(&self, migrate: bool) -> Result<Arc<dyn Store>, CliError> {
        let options = OpenOptions { migrate, ..self.options.clone() };
        open(&options).await.map_err(|error| of_store(&error).at(self.place()))
    }

    /// What went wrong while the schema was looked at or brought up to date.
    fn of_schema(&self, error: &Error) -> CliError {
        match error {
            Error::Invalid(message) => self
                .schema_error(message)
                .help(format!("this program knows schema version {}: install a newer one", newest_schema())),
            _ => of_store(error).at(self.place()),
        }
    }

    fn schema_error(&self, what: impl Into<String>) -> CliError {
        CliError::new("E-DATABASE-SCHEMA", ExitStatus::Conflict, what).at(self.place())
    }

    fn migrate_help(&self) -> String {
        match &self.url {
            DatabaseUrl::Postgres(_) => "run `recache migrate` with the same --database".to_owned(),
            DatabaseUrl::SqliteFile(_) | DatabaseUrl::SqliteMemory => {
                format!("run `recache migrate --database {}`", self.place())
            }
        }
    }
}

/// What an SQLite file looks like before it is opened.
enum Looked {
    /// Like a database that was opened by Recache.
    Usable,
    /// A database, or empty, but Recache has never opened it.
    NotOurs(CliError),
    /// It does not exist.
    Missing(CliError),
    /// It can never be opened.
    Unusable(CliError),
}

/// Looks at the header of an SQLite file, <https://www.sqlite.org/fileformat.html#the_database_header>.
fn look_at(path: &Path) -> Looked {
    const MAGIC: &[u8] = b"SQLite format 3\0";
    const WRITE_VERSION: usize = 18;
    const WAL: u8 = 2;
    const HEADER_BYTES: u64 = 100;

    let shown = path.display();
    let unavailable = |what: String| {
        CliError::new("E-DATABASE-FILE", ExitStatus::Unavailable, what).at(format!("sqlite:{shown}"))
    };
    let not_ours = |what: &str| {
        Looked::NotOurs(
            CliError::new("E-DATABASE-SCHEMA", ExitStatus::Conflict, what)
                .at(format!("sqlite:{shown}"))
                .help(format!("check --database, or run `recache migrate --database sqlite:{shown}`")),
        )
    };
    if path.is_dir() {
        return Looked::Unusable(
            unavailable(format!("`{shown}` is a folder, not a database file"))
                .help(format!("name a file in it: --database sqlite:{}", path.join("recache.db").display())),
        );
    }
    let mut header = Vec::new();
    match File::open(path).and_then(|file| file.take(HEADER_BYTES).read_to_end(&mut header)) {
        Ok(_) => {}
        Err(error) if error.kind() == ErrorKind::NotFound => {
            let missing = unavailable(format!("the database file `{shown}` does not exist"));
            let create = format!("run `recache migrate --database sqlite:{shown}` to create it");
            return Looked::Missing(match make_folder(path) {
                Some(first) => missing.help(format!("check --database, or {first}, then {create}")),
                None => missing.help(format!("check --database, or {create}")),
            });
        }
        Err(error) => {
            return Looked::Unusable(
                unavailable(format!("the database file `{shown}` cannot be read: {error}"))
                    .help("check its permissions and its folder's"),
            );
        }
    }
    if header.is_empty() {
        return not_ours("the database file is empty");
    }
    if !header.starts_with(MAGIC) {
        return Looked::Unusable(
            unavailable(format!("`{shown}` is not an SQLite database"))
                .help("name another file with --database; this one was left as it is"),
        );
    }
    if header.get(WRITE_VERSION) != Some(&WAL) {
        return not_ours(
            "the SQLite database has never been opened by `recache migrate` (it is not in WAL mode)",
        );
    }
    Looked::Usable
}

/// The folder of a file; `None` for one in the working directory.
fn folder(path: &Path) -> Option<PathBuf> {
    path.parent().filter(|folder| !folder.as_os_str().is_empty()).map(Path::to_path_buf)
}

/// What to do about a missing folder.
fn make_folder(path: &Path) -> Option<String> {
    let folder = folder(path).filter(|folder| !folder.exists())?;
    Some(format!("make the folder first: mkdir -p {}", folder.display()))
}

/// The tables or functions that every version of the schema has are not there.
fn has_no_tables(error: &Error) -> bool {
    match database_code(error).as_deref() {
        // PostgreSQL: no such table, function or schema.
        Some("42P01" | "42883" | "3F000") => true,
        // SQLite has one code for every error in a statement.
        Some("1") => error.to_string().contains("no such table"),
        _ => false,
    }
}
