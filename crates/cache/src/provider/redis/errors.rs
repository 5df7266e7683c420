//! What the client and the server report, as what a caller can do about it. Only codes are passed on: what a server
//! says beside them may name keys, users or places.

use redis::{ErrorKind, RedisError, ServerError};

use crate::provider::Error;

/// Name of this provider in errors, logs and health.
pub(super) const NAME: &str = "redis";

pub(super) fn unavailable(reason: impl Into<String>) -> Error {
    Error::Unavailable { provider: NAME, reason: reason.into() }
}

pub(super) fn refused(reason: impl Into<String>) -> Error {
    Error::Refused { provider: NAME, reason: reason.into() }
}

pub(super) fn protocol(reason: impl Into<String>) -> Error {
    Error::Protocol { provider: NAME, reason: reason.into() }
}

/// Why one exchange gave no answer.
#[derive(Debug, Clone)]
pub(super) enum Failure {
    /// There is no connection, or it broke; why.
    Gone(String),
    /// The bytes that came are not the protocol.
    Garbled,
    /// The server answered with an error.
    Told(ServerError),
}

/// Where a cluster says that a key is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Redirect {
    pub(super) slot: u16,
    pub(super) place: (String, u16),
    /// It is only asked there this once; the slot has not moved yet.
    pub(super) is_asking: bool,
}

impl Failure {
    /// Of what the client reports; it puts some answers of the server into its own type.
    pub(super) fn of(error: RedisError) -> Self {
        if error.kind() == ErrorKind::Parse {
            return Self::Garbled;
        }
        if let Some(code) = error.code()
            && !error.is_io_error()
        {
            let code = code.to_owned();
            return match error.into_server_errors().and_then(|errors| errors.first().cloned()) {
                Some((_, told)) => Self::Told(told),
                None => Self::Gone(format!("the server says {code}")),
            };
        }
        Self::Gone(broken(&error))
    }

    pub(super) fn code(&self) -> Option<&str> {
        match self {
            Self::Told(told) => Some(told.code()),
            Self::Gone(_) | Self::Garbled => None,
        }
    }

    /// `MOVED 3999 127.0.0.1:6381`, `ASK …`. An empty host means that of who was asked.
    pub(super) fn redirect(&self, asked_host: &str) -> Option<Redirect> {
        let Self::Told(told) = self else { return None };
        let is_asking = match told.code() {
            "MOVED" => false,
            "ASK" => true,
            _ => return None,
        };
        let (slot, place) = told.details()?.split_once(' ')?;
        let (host, port) = place.rsplit_once(':')?;
        let host = if host.is_empty() { asked_host } else { host };
        Some(Redirect { slot: slot.parse().ok()?, place: (host.to_owned(), port.parse().ok()?), is_asking })
    }

    pub(super) fn into_error(self) -> Error {
        match self {
            Self::Gone(reason) => unavailable(reason),
            Self::Garbled => protocol("its bytes cannot be read"),
            Self::Told(told) => from_server(told.code()),
        }
    }
}

/// Unavailable is what speaks against the server as a whole: its breaker counts it. Refused is what it does not take
/// while all else goes on. A server that is full still answers and still removes, so that is a refusal.
fn from_server(code: &str) -> Error {
    match code {
        "OOM" => refused("it is full (OOM); give it more memory or an eviction policy"),
        "NOPERM" => refused("the user may not do this (NOPERM); its access rules must allow it"),
        "LOADING" | "BUSY" | "MASTERDOWN" | "CLUSTERDOWN" | "TRYAGAIN" | "MISCONF" | "READONLY"
        | "NOREPLICAS" | "NOAUTH" | "WRONGPASS" | "MOVED" | "ASK" | "UNKILLABLE" => {
            unavailable(format!("the server says {code}"))
        }
        _ => refused(format!("the server says {code}")),
    }
}

/// An error below the protocol, in the operating system's words and without addresses.
fn broken(error: &RedisError) -> String {
    match error.kind() {
        ErrorKind::Io if error.is_connection_refusal() => "connection refused".to_owned(),
        ErrorKind::Io if error.is_timeout() => "timed out".to_owned(),
        ErrorKind::Io => "connection broken".to_owned(),
        ErrorKind::AuthenticationFailed => "authentication failed; check user and password".to_owned(),
        _ => error.category().to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_speaks_against_the_server_is_a_failure_and_what_it_refuses_is_none() {
        for code in ["LOADING", "READONLY", "MISCONF", "CLUSTERDOWN", "NOAUTH", "MASTERDOWN", "MOVED"] {
            assert!(from_server(code).is_failure(), "{code}");
        }
        for code in ["OOM", "NOPERM", "WRONGTYPE", "ERR", "CROSSSLOT"] {
            assert!(!from_server(code).is_failure(), "{code}");
        }
    }
}
