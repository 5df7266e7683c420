//! What can go wrong with a store, by what the caller can do about it.

/// An error of the store. Nothing was changed, except where [`Error::Unknown`] says that nobody knows.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Fix the input: it can never be stored.
    #[error("{0}")]
    Invalid(String),
    /// There is no such thing.
    #[error("{what} `{id}` does not exist")]
    NotFound {
        /// The kind of thing.
        what: &'static str,
        /// How it was asked for.
        id: String,
    },
    /// What stands in the store does not allow it.
    #[error("{0}")]
    Conflict(String),
    /// The database cannot be reached or cannot write now; try again later.
    #[error("the database cannot do it now: {message}")]
    Unavailable {
        /// What it said, with the remedy where one is known.
        message: String,
        /// What lies below.
        #[source]
        source: Option<sqlx::Error>,
    },
    /// The answer to a commit was lost: the change may or may not be there. Repeating the call with the same
    /// ids and tokens is safe and tells.
    #[error("the outcome of a commit is unknown: {message}")]
    Unknown {
        /// What happened.
        message: String,
        /// What lies below.
        #[source]
        source: Option<sqlx::Error>,
    },
    /// Our bug, or somebody changed the tables by hand.
    #[error("the store is not as it should be: {message}")]
    Broken {
        /// What was found.
        message: String,
        /// What lies below.
        #[source]
        source: Option<sqlx::Error>,
    },
}

impl Error {
    /// Whether the same call may succeed later.
    pub fn is_retryable(&self) -> bool {
        matches!(self, Self::Unavailable { .. } | Self::Unknown { .. })
    }

    /// The database's own error below, if it was one.
    fn database(&self) -> Option<&(dyn sqlx::error::DatabaseError + 'static)> {
        match self {
            Self::Unavailable { source, .. } | Self::Unknown { source, .. } | Self::Broken { source, .. } => {
                source.as_ref()?.as_database_error()
            }
            Self::Invalid(_) | Self::NotFound { .. } | Self::Conflict(_) => None,
        }
    }

    /// A unique index or a primary key did not let a row in.
    pub(crate) fn is_unique_violation(&self) -> bool {
        self.database().is_some_and(sqlx::error::DatabaseError::is_unique_violation)
    }

    /// A table, or the schema it would be in, is not there.
    pub(crate) fn is_missing_table(&self) -> bool {
        self.database().is_some_and(|error| match error.code().as_deref() {
            Some("42P01" | "3F000") => true,
            Some("1") => error.message().starts_with("no such table"),
            _ => false,
        })
    }

    /// A submit whose outcome is unknown names the idempotency keys that make it safe to repeat; at most this many.
    pub(crate) fn naming_keys(self, mut keys: Vec<String>) -> Self {
        const NAMED_MAX: usize = 3;
        let Self::Unknown { message, source } = self else { return self };
        let more = if keys.len() > NAMED_MAX { ", …" } else { "" };
        keys.truncate(NAMED_MAX);
        let message = match keys.as_slice() {
            [] => message,
            _ => {
                format!("{message}; repeating it is safe with idempotency key `{}`{more}", keys.join("`, `"))
            }
        };
        Self::Unknown { message, source }
    }

    pub(crate) fn broken(message: impl Into<String>) -> Self {
        Self::Broken { message: message.into(), source: None }
    }

    pub(crate) fn not_found(what: &'static str, id: impl std::fmt::Display) -> Self {
        Self::NotFound { what, id: id.to_string() }
    }

    pub(crate) fn unavailable(message: impl Into<String>) -> Self {
        Self::Unavailable { message: message.into(), source: None }
    }

    /// The failure of a commit: unlike any other statement's, its effect is not known when the connection broke, nor
    /// when the server was being stopped: PostgreSQL then may say so after the commit is on disk.
    pub(crate) fn of_commit(error: sqlx::Error) -> Self {
        match error {
            sqlx::Error::Io(_) | sqlx::Error::Protocol(_) | sqlx::Error::WorkerCrashed => {
                Self::Unknown { message: error.to_string(), source: Some(error) }
            }
            sqlx::Error::Database(ref db) if db.code().is_some_and(|code| ends_connection(&code)) => {
                Self::Unknown { message: error.to_string(), source: Some(error) }
            }
            other => Self::from(other),
        }
    }
}

/// Connection failures, operator intervention, system and internal errors: after them the server has hung up, whatever it
/// had done before.
fn ends_connection(code: &str) -> bool {
    code.len() == 5 && ["08", "57", "58", "XX"].iter().any(|class| code.starts_with(class))
}

/// The primary result code of an SQLite error, which the low byte of its extended code is; `None` for an SQLSTATE.
fn sqlite_code(code: &str) -> Option<u16> {
    code.parse::<u16>().ok().filter(|_| code.len() < 5).map(|code| code & 0xff)
}

/// What to do about a failure of SQLite that may pass; `None` for one that is ours.
fn of_sqlite(primary: u16) -> Option<&'static str> {
    Some(match primary {
        5 | 6 => "another process holds it: try again",
        8 => "the database file is read-only: check its permissions and its folder's",
        10 => "the disk cannot be read or written: check that it is there and not full",
        11 => "the database file is damaged: restore it from a backup",
        13 => "the disk is full: free space on the volume of the database file",
        14 => "the database file cannot be opened: check that its folder exists and is writable",
        26 => "the file is not an SQLite database: name another one",
        _ => return None,
    })
}

/// The same for PostgreSQL, by SQLSTATE.
fn of_postgres(code: &str) -> Option<&'static str> {
    Some(match code {
        "40001" | "40P01" => "another process holds it: try again",
        // A transaction that stood still for too long was ended by the server.
        "25P03" => "try again",
        "25006" => "the server is a read-only replica: connect to the primary",
        // Connection, resources, an object that cannot be had now, an operator's intervention, the system.
        _ if ["08", "53", "55", "57", "58"].iter().any(|class| code.starts_with(class)) => "try again",
        _ => return None,
    })
}

impl From<sqlx::Error> for Error {
    fn from(error: sqlx::Error) -> Self {
        let message = match &error {
            sqlx::Error::Database(db) => {
                let code = db.code().unwrap_or_default();
                let remedy = match sqlite_code(&code) {
                    Some(primary) => of_sqlite(primary),
                    None => of_postgres(&code),
                };
                match remedy {
                    Some(remedy) => format!("{} ({remedy})", db.message()),
                    None => return Self::Broken { message: error.to_string(), source: Some(error) },
                }
            }
            sqlx::Error::ColumnDecode { .. }
            | sqlx::Error::ColumnNotFound(_)
            | sqlx::Error::Decode(_)
            | sqlx::Error::Encode(_)
            | sqlx::Error::RowNotFound
            | sqlx::Error::TypeNotFound { .. } => {
                return Self::Broken { message: error.to_string(), source: Some(error) };
            }
            other => other.to_string(),
        };
        Self::Unavailable { message, source: Some(error) }
    }
}

/// The result of a call to the store.
pub type Result<T> = std::result::Result<T, Error>;

#[cfg(test)]
mod tests {
    use std::borrow::Cow;

    use super::*;

    #[derive(Debug)]
    struct Said(&'static str);

    impl std::fmt::Display for Said {
        fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
            f.write_str(self.0)
        }
    }

    impl std::error::Error for Said {}

    impl sqlx::error::DatabaseError for Said {
        fn message(&self) -> &str {
            self.0
        }

        fn code(&self) -> Option<Cow<'_, str>> {
            Some(Cow::Borrowed(self.0))
        }

        fn as_error(&self) -> &(dyn std::error::Error + Send + Sync + 'static) {
            self
        }

        fn as_error_mut(&mut self) -> &mut (dyn std::error::Error + Send + Sync + 'static) {
            self
        }

        fn into_error(self: Box<Self>) -> Box<dyn std::error::Error + Send + Sync + 'static> {
            self
        }

        fn kind(&self) -> sqlx::error::ErrorKind {
            sqlx::error::ErrorKind::Other
        }
    }

    fn commit_answered(code: &'static str) -> Error {
        Error::of_commit(sqlx::Error::Database(Box::new(Said(code))))
    }

    #[test]
    fn commit_that_a_stopping_server_answers_is_unknown() {
        // admin_shutdown, crash_shutdown, connection_failure, io_error
        for code in ["57P01", "57P02", "08006", "58030"] {
            assert!(matches!(commit_answered(code), Error::Unknown { .. }), "{code}");
        }
    }

    #[test]
    fn commit_that_the_database_refused_changed_nothing() {
        // serialization_failure, idle_in_transaction_session_timeout, SQLite's busy and full
        for code in ["40001", "25P03", "5", "13"] {
            assert!(matches!(commit_answered(code), Error::Unavailable { .. }), "{code}");
        }
        assert!(matches!(commit_answered("23505"), Error::Broken { .. }));
    }

    #[test]
    fn unknown_outcome_of_a_submit_names_its_idempotency_keys() {
        let named = |keys: &[&str]| {
            let keys = keys.iter().map(|key| (*key).to_owned()).collect();
            commit_answered("57P01").naming_keys(keys).to_string()
        };
        assert!(named(&["order-7"]).ends_with("repeating it is safe with idempotency key `order-7`"));
        assert!(named(&["a", "b", "c", "d"]).ends_with("`a`, `b`, `c`, …"));
        assert!(!named(&[]).contains("key"));
        let known = commit_answered("40001").naming_keys(vec!["order-7".to_owned()]);
        assert!(!known.to_string().contains("order-7"), "nothing was changed: there is nothing to find out");
    }

    #[test]
    fn extended_codes_of_sqlite_are_known_by_their_low_byte() {
        for (code, primary) in [("13", 13), ("1544", 8), ("4874", 10), ("261", 5)] {
            assert_eq!(sqlite_code(code), Some(primary), "{code}");
            assert!(of_sqlite(primary).is_some());
        }
        for code in ["57P01", "40001", "53300", ""] {
            assert_eq!(sqlite_code(code), None, "{code}");
        }
        assert!(of_sqlite(19).is_none(), "a violated constraint is our bug");
    }

    #[test]
    fn only_failures_of_postgresql_that_may_pass_are_tried_again() {
        for code in ["40001", "08006", "53300", "55P03", "57P01", "25006"] {
            assert!(of_postgres(code).is_some(), "{code}");
        }
        for code in ["23505", "42P01", "22001"] {
            assert!(of_postgres(code).is_none(), "{code}");
        }
    }
}
