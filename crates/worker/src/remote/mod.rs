//! Runs the same [`Handlers`](crate::Handlers) against a server, over the worker protocol: no database, any number of machines.
//!
//! ```no_run
//! use recache_worker::remote::{RemoteWorker, ServerOptions};
//! use recache_worker::{Context, Handlers};
//! use tokio_util::sync::CancellationToken;
//!
//! # async fn run() -> Result<(), Box<dyn std::error::Error>> {
//! let mut handlers = Handlers::new();
//! handlers.job("double", async |_: Context, n: i64| Ok(n * 2))?;
//! let options = ServerOptions { slots: 8, ..ServerOptions::new("http://127.0.0.1:7878") };
//! let stop = CancellationToken::new(); // cancel it to let running jobs end and then leave
//! RemoteWorker::new(handlers, options)?.run(stop).await?;
//! # Ok(()) }
//! ```
//!
//! Contexts work as they do beside the engine. What the worker says is repeated, with growing pauses and at other servers where several
//! are named, until it is answered; a session that ended meanwhile is followed by a new one. What the protocol promises stands in
//! `docs/reference/worker-protocol.md`.

mod attempt;
mod client;
mod link;
mod run;

use std::time::Duration;

pub use run::RemoteWorker;

/// How a remote worker runs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServerOptions {
    /// URLs of servers; the next one is asked when one does not answer.
    pub servers: Vec<String>,
    /// The API key or JWT, where the server asks for one.
    pub token: Option<String>,
    /// What the worker calls itself, for people. Default: the process id.
    pub name: String,
    /// From which queues it takes jobs. Default: `default`.
    pub queues: Vec<String>,
    /// Of whose jobs it may have. Default: of all that its key may serve.
    pub namespaces: Option<Vec<String>>,
    /// Handlers that may run at once. Default 8.
    pub slots: usize,
    /// How long the worker may be silent before its jobs go to others. Default 3 s.
    pub lease: Duration,
    /// At shutdown running handlers may go on this long before they are told to stop. Default 30 s.
    pub drain: Duration,
    /// A handler that was told to stop may go on this long before it is dropped. Default 5 s.
    pub grace: Duration,
}

impl ServerOptions {
    /// Defaults, for this server.
    pub fn new(server: impl Into<String>) -> Self {
        Self {
            servers: vec![server.into()],
            token: None,
            name: format!("pid {}", std::process::id()),
            queues: vec!["default".to_owned()],
            namespaces: None,
            slots: 8,
            lease: Duration::from_secs(3),
            drain: Duration::from_secs(30),
            grace: Duration::from_secs(5),
        }
    }
}

/// Why a remote worker does not run.
#[derive(Debug, thiserror::Error)]
pub enum RemoteError {
    /// The options cannot work.
    #[error("{0}")]
    Invalid(String),
    /// The server refused what the worker asked for, and would again.
    #[error("{status} {code}: {detail}")]
    Refused {
        /// The HTTP status.
        status: u16,
        /// The problem's code.
        code: String,
        /// What it said.
        detail: String,
    },
    /// The worker was to end, and until its time was over no server could be told what became of its jobs.
    #[error(
        "no server could be told of the ends of {jobs} jobs in time; they run again when their lease has passed"
    )]
    Unheard {
        /// How many it held.
        jobs: usize,
    },
}
