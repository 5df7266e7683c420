//! How a command ends otherwise than well, and what the store's errors come to: the one place that gives them exit codes.

use std::io;

use recache_store::Error;

use crate::cli_error::{CliError, ExitStatus};

/// Why a command did not do what it was asked.
#[derive(Debug)]
pub(crate) enum Failure {
    /// To be shown.
    Said(CliError),
    /// Already shown.
    Reported(ExitStatus),
    /// Stdout or stderr cannot be written.
    Output(io::Error),
}

/// The result of a step of a command.
pub(crate) type Result<T> = std::result::Result<T, Failure>;

/// The result of a command.
pub(crate) type Outcome = Result<ExitStatus>;

impl From<CliError> for Failure {
    fn from(error: CliError) -> Self {
        Self::Said(error)
    }
}

impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Self {
        Self::Output(error)
    }
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        Self::Said(of_store(&error))
    }
}

/// The store's error as the command's own.
pub(crate) fn of_store(error: &Error) -> CliError {
    let what = error.to_string();
    match error {
        Error::Invalid(_) => CliError::new("E-INVALID", ExitStatus::Usage, what),
        Error::NotFound { what: kind, .. } => {
            let error = CliError::new("E-NOT-FOUND", ExitStatus::NotFound, what);
            match *kind {
                "dead letter" => error.help("run `recache dead list`, and check --database"),
                "event" => error.help("run `recache event list`, and check --database"),
                "subscriber" => error.help("run `recache event subscribers`, and check --database"),
                "webhook" => error.help("run `recache webhook list`, and check --database"),
                "schedule" => error.help("run `recache schedule list`, and check --database"),
                "tracked job" => error.help("run `recache job tracked`, and check --database"),
                "batch" => error.help("run `recache batch list`, and check --database"),
                "job" => error.help("run `recache job list`, and check --database"),
                "workflow" => error.help("check the id, and --database"),
                _ => error.help("check the name, and --database"),
            }
        }
        Error::Conflict(_) => CliError::new("E-CONFLICT", ExitStatus::Conflict, what),
        Error::Unavailable { .. } | Error::Broken { .. } if is_refused(error) => {
            CliError::new("E-DENIED", ExitStatus::Denied, what)
                .help("check user and password in --database, and the user's rights on schema `recache`")
        }
        Error::Unavailable { .. } | Error::Broken { .. } if is_read_only(error) => {
            CliError::new("E-UNAVAILABLE", ExitStatus::Unavailable, what)
                .help("check the permissions of the database file and of its folder: both must be writable")
        }
        Error::Unavailable { .. } => CliError::new("E-UNAVAILABLE", ExitStatus::Unavailable, what)
            .help("check that the database runs and accepts connections"),
        Error::Unknown { .. } => CliError::new("E-OUTCOME-UNKNOWN", ExitStatus::Unavailable, what)
            .help("look whether the change is there before you repeat the command"),
        Error::Broken { .. } => CliError::new("E-BROKEN", ExitStatus::Failed, what)
            .help("if `recache doctor` finds nothing wrong, this is a bug: please report it"),
    }
}

/// The engine's error as the command's own.
pub(crate) fn of_engine(error: &recache_engine::Error) -> CliError {
    use recache_engine::Error as EngineError;
    match error {
        EngineError::Store(error) => of_store(error),
        EngineError::Invalid(_) => CliError::new("E-INVALID", ExitStatus::Usage, error.to_string()),
        EngineError::TimedOut { .. } => CliError::new("E-TIMEOUT", ExitStatus::TimedOut, error.to_string()),
        EngineError::ShuttingDown => {
            CliError::new("E-UNAVAILABLE", ExitStatus::Unavailable, error.to_string())
        }
    }
}

/// The database's own error code: SQLSTATE, or SQLite's number.
pub(crate) fn database_code(error: &Error) -> Option<String> {
    let (Error::Unavailable { source, .. } | Error::Unknown { source, .. } | Error::Broken { source, .. }) =
        error
    else {
        return None;
    };
    Some(source.as_ref()?.as_database_error()?.code()?.into_owned())
}

/// PostgreSQL does not let the user in, or not at the tables.
fn is_refused(error: &Error) -> bool {
    database_code(error).is_some_and(|code| (code.len() == 5 && code.starts_with("28")) || code == "42501")
}

/// SQLite may not write the file or its folder. The low byte of an extended code is the primary one.
fn is_read_only(error: &Error) -> bool {
    const READ_ONLY: u32 = 8;
    const CANNOT_OPEN: u32 = 14;
    let code = database_code(error).filter(|code| code.len() < 5).and_then(|code| code.parse::<u32>().ok());
    code.is_some_and(|code| matches!(code & 0xff, READ_ONLY | CANNOT_OPEN))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_error_of_the_store_has_its_code_and_exit_status() {
        let message = || "m".to_owned();
        for (error, code, exit) in [
            (Error::Invalid(message()), "E-INVALID", ExitStatus::Usage),
            (Error::NotFound { what: "job", id: message() }, "E-NOT-FOUND", ExitStatus::NotFound),
            (Error::NotFound { what: "view", id: message() }, "E-NOT-FOUND", ExitStatus::NotFound),
            (Error::Conflict(message()), "E-CONFLICT", ExitStatus::Conflict),
            (
                Error::Unavailable { message: message(), source: None },
                "E-UNAVAILABLE",
                ExitStatus::Unavailable,
            ),
            (
                Error::Unknown { message: message(), source: None },
                "E-OUTCOME-UNKNOWN",
                ExitStatus::Unavailable,
            ),
            (Error::Broken { message: message(), source: None }, "E-BROKEN", ExitStatus::Failed),
        ] {
            let said = of_store(&error);
            assert_eq!((said.code, said.exit, said.what), (code, exit, error.to_string()));
        }
    }
}
