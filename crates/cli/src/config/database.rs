//! `[database]`: where the truth is kept.

use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use serde_json::Value;

use super::mask::mask;
use super::schema::{ConfigOption, Kind, Refusal};

/// Where the jobs, views and history live, and how hard SQLite tries to keep them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct DatabaseConfig {
    /// Which database. Default: the file `recache.db` in the working directory.
    pub(crate) url: DatabaseUrl,
    /// The most connections to open; PostgreSQL only (SQLite has one writer by design). Default 10.
    pub(crate) max_connections: u32,
    /// The most connections that read; SQLite only. Default 4.
    pub(crate) readers_max: u32,
    /// When SQLite counts a commit as kept; SQLite only. Default [`Synchronous::Full`].
    pub(crate) synchronous: Synchronous,
    /// A connection that is older is replaced; PostgreSQL only. Default 30 min.
    pub(crate) connection_life_max: Duration,
    /// A call that takes longer is logged and counted as slow. Default 1 s.
    pub(crate) slow: Duration,
    /// Whether the plans of slow statements are looked up and logged. Default false.
    pub(crate) slow_plans: bool,
}

impl Default for DatabaseConfig {
    fn default() -> Self {
        Self {
            url: DatabaseUrl::SqliteFile(PathBuf::from("recache.db")),
            max_connections: 10,
            readers_max: 4,
            synchronous: Synchronous::Full,
            connection_life_max: Duration::from_mins(30),
            slow: Duration::from_secs(1),
            slow_plans: false,
        }
    }
}

/// When SQLite counts a commit as kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Synchronous {
    /// After it reached the disk: acknowledged work survives a power cut.
    Full,
    /// Faster, and a power cut can lose work that was already acknowledged. Only ever an explicit choice.
    Normal,
}

/// A database address, taken apart.
#[derive(Clone, PartialEq, Eq)]
pub(crate) enum DatabaseUrl {
    /// A file, made when it is not there.
    SqliteFile(PathBuf),
    /// In memory: gone with the process.
    SqliteMemory,
    /// A server. The text is the whole URL and may hold a password: never print it, show [`DatabaseUrl`] instead.
    Postgres(String),
}

impl DatabaseUrl {
    /// Reads `sqlite:PATH`, `sqlite::memory:`, `postgres://…` or `postgresql://…`.
    ///
    /// A refusal never repeats the text: it may hold a password in a place where no rule would find it.
    pub(super) fn parse(text: &str) -> Result<Self, Refusal> {
        if let Some(path) = text.strip_prefix("sqlite:") {
            return match path {
                ":memory:" => Ok(Self::SqliteMemory),
                "" => Err(Refusal::new("names no file after `sqlite:`", "write sqlite:recache.db")),
                _ if path.starts_with("//") => Err(Refusal::new(
                    "has `//` after `sqlite:`",
                    "write the path at once: sqlite:recache.db, or sqlite:/var/lib/recache.db",
                )),
                _ if path.contains(['?', '\0']) => Err(Refusal::new(
                    "has options after the path of an SQLite file, which are not supported",
                    "write the path alone, and use `synchronous` for how commits are kept",
                )),
                _ => Ok(Self::SqliteFile(PathBuf::from(path))),
            };
        }
        let Some(rest) = ["postgres://", "postgresql://"].iter().find_map(|scheme| text.strip_prefix(scheme))
        else {
            let why = match text.split_once("://") {
                Some((scheme, _)) if scheme.bytes().all(|byte| byte.is_ascii_alphanumeric()) => {
                    format!("has the scheme `{scheme}`, which is not supported")
                }
                _ => "is not a database URL".to_owned(),
            };
            return Err(Refusal::new(why, format!("write {FORM}")));
        };
        check_server(rest)?;
        Ok(Self::Postgres(text.to_owned()))
    }

    fn masked(&self) -> String {
        match self {
            Self::SqliteFile(path) => format!("sqlite:{}", path.display()),
            Self::SqliteMemory => "sqlite::memory:".to_owned(),
            Self::Postgres(url) => mask(url),
        }
    }
}

impl fmt::Display for DatabaseUrl {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.masked())
    }
}

impl fmt::Debug for DatabaseUrl {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "DatabaseUrl({})", self.masked())
    }
}

/// Finds what the driver would only say at the first connection: an empty address, blanks, a port that is none.
fn check_server(rest: &str) -> Result<(), Refusal> {
    let form = "write postgres://USER:PASSWORD@HOST:5432/DATABASE, with %40 for an @ inside the password";
    if rest.is_empty() {
        return Err(Refusal::new("names no server after `://`", form));
    }
    if rest.chars().any(|character| character.is_whitespace() || character.is_control()) {
        return Err(Refusal::new("has a blank or control character in it", form));
    }
    let authority = rest.split(['/', '?', '#']).next().unwrap_or_default();
    let host = authority.rsplit_once('@').map_or(authority, |(_, host)| host);
    let port = match host.strip_prefix('[') {
        Some(inner) => match inner.split_once(']') {
            Some((_, after)) => after.strip_prefix(':'),
            None => return Err(Refusal::new("has a `[` without its `]`", form)),
        },
        None => host.split_once(':').map(|(_, port)| port),
    };
    match port {
        Some(port) if port.parse::<u16>().is_err() => {
            Err(Refusal::new("has no number from 0 to 65535 as its port", form))
        }
        _ => Ok(()),
    }
}

const FORM: &str = "sqlite:PATH, sqlite::memory:, or postgres://USER:PASSWORD@HOST/DATABASE";

pub(super) const OPTIONS: &[ConfigOption] = &[
    ConfigOption {
        path: "database.url",
        meaning: "where jobs, views and history are kept",
        kind: Kind::Text {
            form: FORM,
            write: |config, _, text| {
                config.database.url = DatabaseUrl::parse(text)?;
                Ok(())
            },
        },
        read: |config, _| Value::from(config.database.url.masked()),
    },
    ConfigOption {
        path: "database.max_connections",
        meaning: "the most connections to open (PostgreSQL only)",
        kind: Kind::Whole {
            unit: "connections",
            min: 1,
            max: 1000,
            write: |config, _, count| config.database.max_connections = count,
        },
        read: |config, _| Value::from(config.database.max_connections),
    },
    ConfigOption {
        path: "database.readers_max",
        meaning: "the most connections that read, beside the one that writes (SQLite only)",
        kind: Kind::Whole {
            unit: "connections",
            min: 1,
            max: 64,
            write: |config, _, count| config.database.readers_max = count,
        },
        read: |config, _| Value::from(config.database.readers_max),
    },
    ConfigOption {
        path: "database.synchronous",
        meaning: "when a commit counts as kept (SQLite only); \"normal\" can lose acknowledged work on a power cut",
        kind: Kind::Choice {
            allowed: &["full", "normal"],
            write: |config, _, name| {
                config.database.synchronous =
                    if name == "normal" { Synchronous::Normal } else { Synchronous::Full };
            },
        },
        read: |config, _| {
            Value::from(match config.database.synchronous {
                Synchronous::Full => "full",
                Synchronous::Normal => "normal",
            })
        },
    },
    ConfigOption {
        path: "database.connection_life_max_seconds",
        meaning: "a connection that is older is replaced (PostgreSQL only)",
        kind: Kind::Whole {
            unit: "seconds",
            min: 10,
            max: 86_400,
            write: |config, _, count| {
                config.database.connection_life_max = Duration::from_secs(u64::from(count));
            },
        },
        read: |config, _| Value::from(config.database.connection_life_max.as_secs()),
    },
    ConfigOption {
        path: "database.slow_ms",
        meaning: "a call of the database that takes longer is logged and counted as slow",
        kind: Kind::Whole {
            unit: "milliseconds",
            min: 1,
            max: 3_600_000,
            write: |config, _, count| config.database.slow = Duration::from_millis(u64::from(count)),
        },
        read: |config, _| Value::from(u64::try_from(config.database.slow.as_millis()).unwrap_or(u64::MAX)),
    },
    ConfigOption {
        path: "database.slow_plans",
        meaning: "whether plans of slow statements are looked up and logged, of each once a minute at most",
        kind: Kind::Boolean { write: |config, _, on| config.database.slow_plans = on },
        read: |config, _| Value::from(config.database.slow_plans),
    },
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn database_urls_are_taken_apart() {
        let read = |text| DatabaseUrl::parse(text).unwrap();
        assert_eq!(read("sqlite:a b.db"), DatabaseUrl::SqliteFile(PathBuf::from("a b.db")));
        assert_eq!(read("sqlite:/var/x.db"), DatabaseUrl::SqliteFile(PathBuf::from("/var/x.db")));
        assert_eq!(read("sqlite::memory:"), DatabaseUrl::SqliteMemory);
        for text in [
            "postgres://u:p@h/d",
            "postgresql://h:5433/d",
            "postgres:///d?host=/run/postgresql",
            "postgres://u@[::1]:5432/d",
        ] {
            assert_eq!(read(text), DatabaseUrl::Postgres(text.to_owned()));
        }
    }

    #[test]
    fn wrong_database_urls_are_refused_without_repeating_them() {
        for text in [
            "",
            "sqlite:",
            "sqlite://hunter2.db",
            "sqlite:hunter2.db?mode=ro",
            "mysql://hunter2@h/d",
            "hunter2",
            "postgres:/u:hunter2@h",
            "postgres://",
            "postgres://u:hunter 2@h/d",
            "postgres://u:hunter2@h:port/d",
            "postgres://u:hunter2@h:70000/d",
            "postgres://u:hunter2@[::1/d",
        ] {
            let refusal = DatabaseUrl::parse(text).unwrap_err();
            assert!(!refusal.why.contains("hunter") && !refusal.remedy.contains("hunter"), "{refusal:?}");
        }
    }

    #[test]
    fn password_is_in_neither_debug_nor_display() {
        let url = DatabaseUrl::parse("postgres://u:hunter2@h/d").unwrap();
        assert_eq!(url.to_string(), "postgres://u:***@h/d");
        let config = DatabaseConfig { url, ..DatabaseConfig::default() };
        assert!(!format!("{config:?}").contains("hunter2"));
    }
}
