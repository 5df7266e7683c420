//! A client of the server: one method a route, typed by the documents.
//!
//! ```no_run
//! use recache_api::SubmitJob;
//! use recache_api::client::{Client, Options};
//!
//! # async fn run(make_key: fn() -> String) -> Result<(), recache_api::client::Error> {
//! let client = Client::new("http://127.0.0.1:7878", Options { token: None, ..Options::new(make_key) })?;
//! let job: SubmitJob = serde_json::from_str(r#"{"handler":"echo"}"#).expect("a job");
//! let submitted = client.submit_job(&job, None).await?;
//! println!("{}", client.job(&submitted.id, Some(std::time::Duration::from_secs(10))).await?.job.id);
//! # Ok(()) }
//! ```
//!
//! A call whose answer is lost, or that the server cannot carry out now, is repeated for [`Options::patience`]; every write carries an
//! `Idempotency-Key`, so that it is carried out once. Redirects are not followed: a token is for one server.

mod analytics;
mod batches;
mod cache;
mod call;
mod events;
mod handlers;
mod health;
mod jobs;
mod letters;
mod queries;
mod queues;
mod schedules;
mod stream;
mod templates;
mod tracked;
mod views;
mod webhooks;
mod workflows;

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use reqwest::Url;

use crate::problem::Problem;

pub use queries::{
    AuditQuery, BatchMembersQuery, BatchesQuery, BottlenecksQuery, DeliveriesQuery, EventsQuery, JobsQuery,
    LettersQuery, PutTemplate, SchedulesQuery, StreamQuery, TemplatesQuery, TrackedJobsQuery,
    ViewBuildsQuery, ViewDiffQuery, ViewItemsQuery, ViewsQuery, WindowQuery, WorkflowsQuery,
};

pub use stream::{EventStream, Streamed};

/// How a client calls.
#[derive(Clone)]
pub struct Options {
    /// An API key or a JWT, where the server asks for one.
    pub token: Option<String>,
    /// For how long a call is repeated that gets no answer, or that the server cannot carry out now. Default 10 s.
    pub patience: Duration,
    /// How long an answer may take, waits that were asked for not counted. Default 65 s: longer than the server lets a request take.
    pub answer_within: Duration,
    /// How long a connection may take. Default 5 s.
    pub connect_within: Duration,
    /// Makes a text that nobody has made before: the `Idempotency-Key` of a write.
    pub make_key: Arc<dyn Fn() -> String + Send + Sync>,
}

impl Options {
    /// The defaults. `make_key` makes a text that nobody has made before, such as a random UUID: it becomes the `Idempotency-Key` of a write.
    pub fn new(make_key: impl Fn() -> String + Send + Sync + 'static) -> Self {
        Self {
            token: None,
            patience: Duration::from_secs(10),
            answer_within: Duration::from_secs(65),
            connect_within: Duration::from_secs(5),
            make_key: Arc::new(make_key),
        }
    }
}

impl fmt::Debug for Options {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let token = self.token.as_ref().map(|_| "…");
        out.debug_struct("Options")
            .field("token", &token)
            .field("patience", &self.patience)
            .finish_non_exhaustive()
    }
}

/// Why a call brought nothing.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// What was asked for cannot be sent.
    #[error("{0}")]
    Invalid(String),
    /// The server says why not.
    #[error("{}", .0.detail)]
    Refused(Box<Problem>),
    /// There was no answer.
    #[error("no answer from {server}: {reason}")]
    Unreachable {
        /// Whom was asked.
        server: String,
        /// What happened.
        reason: String,
    },
    /// There was an answer that is none of Recache's.
    #[error("the answer of {server} cannot be read: {reason}")]
    Unreadable {
        /// Whom was asked.
        server: String,
        /// What is wrong with it.
        reason: String,
    },
}

/// The result of a call.
pub type Result<T> = std::result::Result<T, Error>;

/// A client of one server; cheap to clone.
#[derive(Debug, Clone)]
pub struct Client {
    http: reqwest::Client,
    server: Url,
    options: Options,
}

impl Client {
    /// A client of the server at this URL, `http://` or `https://`. Connects when it is first used.
    pub fn new(server: &str, options: Options) -> Result<Self> {
        // What may hold a password or a token is not repeated.
        let shown =
            if server.contains(['@', '?']) { "what is given".to_owned() } else { format!("`{server}`") };
        let wrong = |reason: String| Error::Invalid(format!("{shown} is no URL of a server: {reason}"));
        let url = Url::parse(server).map_err(|error| wrong(error.to_string()))?;
        if !matches!(url.scheme(), "http" | "https") || url.cannot_be_a_base() {
            return Err(wrong("write http://HOST:PORT or https://HOST:PORT".to_owned()));
        }
        if !url.username().is_empty() || url.password().is_some() || url.query().is_some() {
            return Err(wrong("it must hold neither a user nor a query; a token is given apart".to_owned()));
        }
        let http = reqwest::Client::builder()
            .tcp_nodelay(true)
            .connect_timeout(options.connect_within)
            .redirect(reqwest::redirect::Policy::none())
            .build()
            .map_err(|error| Error::Invalid(error.to_string()))?;
        Ok(Self { http, server: url, options })
    }

    /// Whom it asks.
    pub fn server(&self) -> &str {
        self.server.as_str()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn server_is_a_plain_url() {
        let client = |text: &str| Client::new(text, Options::new(String::new));
        assert_eq!(client("http://127.0.0.1:7878").unwrap().server(), "http://127.0.0.1:7878/");
        for text in ["", "localhost:7878", "ftp://a", "http://user:pw@a", "http://a/?x=1", "data:x"] {
            let Err(Error::Invalid(said)) = client(text) else { panic!("{text}") };
            assert!(!said.contains("pw"), "{said}");
        }
    }

    #[test]
    fn token_is_not_shown() {
        let options = Options { token: Some("rck_secret".to_owned()), ..Options::new(String::new) };
        let client = Client::new("http://a", options).unwrap();
        assert!(!format!("{client:?}").contains("secret"));
    }
}
