//! Why a request is not done: the one type that every error answer is made from.
//!
//! A handler returns a [`Refusal`]; [`crate::frame`] writes it as `application/problem+json` with the request's id. What a driver or
//! a database said goes into the log and never into an answer: it may hold SQL, addresses or secrets.

use std::time::Duration;

use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use recache_api::{FieldProblem, Problem};

/// What kind of refusal it is: a stable word, its HTTP status, and a title.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Code {
    /// The body is not JSON, or not one JSON value.
    Malformed,
    /// A parameter of the query or the path, or a header, is wrong.
    InvalidParameter,
    /// Fields of the body are wrong, or what they ask for cannot be stored.
    Invalid,
    /// Nobody knows who asks.
    Unauthenticated,
    /// Whoever asks may not do that.
    Forbidden,
    /// There is no such thing, or not for whoever asks.
    NotFound,
    /// The path exists, but not with this method.
    MethodNotAllowed,
    /// The request's body took too long to come.
    TooSlow,
    /// What stands in the store does not allow it.
    Conflict,
    /// The same request is being carried out at this moment.
    InProgress,
    /// The idempotency key was used for another request.
    KeyReused,
    /// The job is no longer the worker's.
    LeaseLost,
    /// The worker's session has ended.
    SessionEnded,
    /// The body is larger than allowed.
    TooLarge,
    /// The body is of a kind that is not read here.
    UnsupportedMediaType,
    /// The request names another host than this one.
    Misdirected,
    /// Too many requests of this caller.
    TooManyRequests,
    /// Our bug.
    Internal,
    /// The database cannot do it now, or the server is stopping.
    Unavailable,
    /// More is asked of the server than it can do.
    Overloaded,
    /// The answer to a commit was lost.
    OutcomeUnknown,
    /// It was not done in time.
    TimedOut,
}

impl Code {
    /// All of them.
    pub const ALL: [Self; 22] = [
        Self::Malformed,
        Self::InvalidParameter,
        Self::Invalid,
        Self::Unauthenticated,
        Self::Forbidden,
        Self::NotFound,
        Self::MethodNotAllowed,
        Self::TooSlow,
        Self::Conflict,
        Self::InProgress,
        Self::KeyReused,
        Self::LeaseLost,
        Self::SessionEnded,
        Self::TooLarge,
        Self::UnsupportedMediaType,
        Self::Misdirected,
        Self::TooManyRequests,
        Self::Internal,
        Self::Unavailable,
        Self::Overloaded,
        Self::OutcomeUnknown,
        Self::TimedOut,
    ];

    const fn parts(self) -> (&'static str, StatusCode, &'static str) {
        match self {
            Self::Malformed => ("malformed", StatusCode::BAD_REQUEST, "The request cannot be read"),
            Self::InvalidParameter => ("invalid_parameter", StatusCode::BAD_REQUEST, "A parameter is wrong"),
            Self::Invalid => ("invalid", StatusCode::UNPROCESSABLE_ENTITY, "The request is wrong"),
            Self::Unauthenticated => ("unauthenticated", StatusCode::UNAUTHORIZED, "Credentials are needed"),
            Self::Forbidden => ("forbidden", StatusCode::FORBIDDEN, "Not permitted"),
            Self::NotFound => ("not_found", StatusCode::NOT_FOUND, "Not found"),
            Self::MethodNotAllowed => {
                ("method_not_allowed", StatusCode::METHOD_NOT_ALLOWED, "Not with this method")
            }
            Self::TooSlow => ("too_slow", StatusCode::REQUEST_TIMEOUT, "The request took too long to come"),
            Self::Conflict => ("conflict", StatusCode::CONFLICT, "What is there does not allow it"),
            Self::InProgress => ("in_progress", StatusCode::CONFLICT, "The same request is under way"),
            Self::KeyReused => (
                "key_reused",
                StatusCode::UNPROCESSABLE_ENTITY,
                "The idempotency key belongs to another request",
            ),
            Self::LeaseLost => ("lease_lost", StatusCode::CONFLICT, "The job is no longer the worker's"),
            Self::SessionEnded => ("session_ended", StatusCode::GONE, "The worker's session has ended"),
            Self::TooLarge => ("too_large", StatusCode::PAYLOAD_TOO_LARGE, "The request is too large"),
            Self::UnsupportedMediaType => {
                ("unsupported_media_type", StatusCode::UNSUPPORTED_MEDIA_TYPE, "Not in this form")
            }
            Self::Misdirected => ("misdirected", StatusCode::MISDIRECTED_REQUEST, "Meant for another server"),
            Self::TooManyRequests => {
                ("too_many_requests", StatusCode::TOO_MANY_REQUESTS, "Too many requests")
            }
            Self::Internal => ("internal", StatusCode::INTERNAL_SERVER_ERROR, "A bug of the server"),
            Self::Unavailable => ("unavailable", StatusCode::SERVICE_UNAVAILABLE, "Not possible now"),
            Self::Overloaded => ("overloaded", StatusCode::SERVICE_UNAVAILABLE, "Too much to do"),
            Self::OutcomeUnknown => {
                ("outcome_unknown", StatusCode::SERVICE_UNAVAILABLE, "Nobody knows whether it was done")
            }
            Self::TimedOut => ("timed_out", StatusCode::GATEWAY_TIMEOUT, "Not done in time"),
        }
    }

    /// The word for programs.
    pub const fn word(self) -> &'static str {
        self.parts().0
    }

    /// The HTTP status.
    pub const fn status(self) -> StatusCode {
        self.parts().1
    }

    /// What it is, for people.
    pub const fn title(self) -> &'static str {
        self.parts().2
    }

    /// The code that an HTTP status stands for when nothing else is known.
    pub(crate) fn of_status(status: StatusCode) -> Self {
        let known = Self::ALL.into_iter().find(|code| code.status() == status);
        known.unwrap_or(if status.is_server_error() { Self::Internal } else { Self::InvalidParameter })
    }
}

/// Why a request is not done.
#[derive(Debug, Clone)]
pub struct Refusal {
    code: Code,
    problem: Box<Problem>,
    retry_after: Option<Duration>,
}

impl Refusal {
    /// A refusal of this kind; `detail` names the values of this time.
    pub fn new(code: Code, detail: impl Into<String>) -> Self {
        let (word, status, title) = code.parts();
        Self {
            code,
            problem: Box::new(Problem::new(status.as_u16(), word, title, detail)),
            retry_after: None,
        }
    }

    /// What to do about it.
    pub fn remedy(mut self, remedy: impl Into<String>) -> Self {
        self.problem.remedy = Some(remedy.into());
        self
    }

    /// After how long it may go better.
    pub fn retry_after(mut self, after: Duration) -> Self {
        self.retry_after = Some(after);
        self
    }

    /// What is wrong, field by field.
    pub fn errors(mut self, errors: Vec<FieldProblem>) -> Self {
        self.problem.errors = errors;
        self
    }

    /// One field is wrong.
    pub fn field(code: Code, pointer: impl Into<String>, message: impl Into<String>) -> Self {
        let (pointer, message) = (pointer.into(), message.into());
        Self::new(code, format!("`{pointer}` {message}")).errors(vec![FieldProblem { pointer, message }])
    }

    /// There is no such thing, or not for whoever asks: the two look the same.
    pub fn not_found(what: &str, id: &str) -> Self {
        Self::new(Code::NotFound, format!("{what} `{id}` does not exist"))
    }

    /// Its kind.
    pub fn code(&self) -> Code {
        self.code
    }
}

impl From<recache_store::Error> for Refusal {
    fn from(error: recache_store::Error) -> Self {
        use recache_store::Error;
        match &error {
            Error::Invalid(message) => Self::new(Code::Invalid, message.clone()),
            Error::NotFound { what, id } => Self::not_found(what, id),
            Error::Conflict(message) => Self::new(Code::Conflict, message.clone()),
            Error::Unavailable { .. } => {
                tracing::warn!(%error, "the store cannot do it now");
                Self::new(Code::Unavailable, "the database cannot do it now; nothing was changed")
                    .remedy("try again")
                    .retry_after(Duration::from_secs(1))
            }
            Error::Unknown { .. } => {
                tracing::warn!(%error, "the outcome of a commit is unknown");
                Self::unknown()
            }
            Error::Broken { .. } => {
                tracing::error!(%error, "the store is not as it should be");
                Self::internal()
            }
        }
    }
}

impl From<recache_engine::Error> for Refusal {
    fn from(error: recache_engine::Error) -> Self {
        use recache_engine::Error;
        match error {
            Error::Store(error) => error.into(),
            Error::Invalid(message) => Self::new(Code::Invalid, message),
            Error::TimedOut { .. } => Self::new(Code::TimedOut, error.to_string()),
            Error::ShuttingDown => Self::stopping(),
        }
    }
}

impl Refusal {
    /// Nobody knows whether the change is there. What to do about it is added where the request's key is known.
    pub(crate) fn unknown() -> Self {
        let detail = "the answer to the commit was lost: the change may or may not be there";
        Self::new(Code::OutcomeUnknown, detail).retry_after(Duration::from_secs(1))
    }

    /// The server is being stopped.
    pub(crate) fn stopping() -> Self {
        Self::new(Code::Unavailable, "the server is stopping; nothing was changed")
            .remedy("try again, at another server if there is one")
            .retry_after(Duration::from_secs(1))
    }

    /// Our bug; what happened is in the log.
    pub(crate) fn internal() -> Self {
        Self::new(Code::Internal, "the server failed; the log says why under the request's id")
    }
}

impl IntoResponse for Refusal {
    /// Without a body: the frame writes it, which knows the request's id.
    fn into_response(self) -> Response {
        let mut response = self.code.status().into_response();
        if let Some(after) = self.retry_after {
            // Rounded up: whoever comes back too early is refused again.
            let seconds = after.as_secs() + u64::from(after.subsec_nanos() > 0);
            response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from(seconds.max(1)));
        }
        if self.code == Code::Unauthenticated {
            response.headers_mut().insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
        }
        response.extensions_mut().insert(self);
        response
    }
}

impl Refusal {
    /// The document, with what only the frame knows.
    pub(crate) fn into_problem(self, request_id: &str, key: Option<&str>) -> Problem {
        let mut problem = *self.problem;
        problem.request_id = Some(request_id.to_owned());
        if self.code == Code::OutcomeUnknown && problem.remedy.is_none() {
            problem.remedy = Some(match key {
                Some(key) => format!("repeat the request with its idempotency key `{key}`: that is safe"),
                None => "look whether the change is there before you repeat the request; \
                         with an `Idempotency-Key` it could be repeated safely"
                    .to_owned(),
            });
        }
        problem
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn codes_are_words_of_their_own() {
        let words: BTreeSet<_> = Code::ALL.iter().map(|code| code.word()).collect();
        assert_eq!(words.len(), Code::ALL.len());
        for word in words {
            assert!(word.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'_'), "{word}");
        }
    }

    #[test]
    fn what_a_driver_said_is_not_in_the_answer() {
        let secret = || "connect to postgres://app:hunter2@db failed near SELECT".to_owned();
        for error in [
            recache_store::Error::Unavailable { message: secret(), source: None },
            recache_store::Error::Unknown { message: secret(), source: None },
            recache_store::Error::Broken { message: secret(), source: None },
        ] {
            let said = serde_json::to_string(&Refusal::from(error).into_problem("r", None)).unwrap();
            assert!(!said.contains("hunter2") && !said.contains("SELECT"), "{said}");
        }
    }

    #[test]
    fn unknown_outcome_names_the_key_that_makes_a_repetition_safe() {
        let with = Refusal::unknown().into_problem("r", Some("order-7"));
        assert!(with.remedy.unwrap().contains("`order-7`"));
        let without = Refusal::unknown().into_problem("r", None);
        assert!(without.remedy.unwrap().contains("look whether"));
    }
}
