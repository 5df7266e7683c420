//! Workers that reach the store only through a server node.
//!
//! A node may die or be exchanged for another between two calls of a worker, so all that is known of one is a row. Its session is
//! an ordinary one: it lives while the worker is heard of, and is swept like any other.

use std::fmt::Debug;
use std::time::Duration;

use async_trait::async_trait;
use recache_model::ids::{JobId, SessionId};
use recache_model::time::Timestamp;
use serde::{Deserialize, Serialize};

use crate::error::Result;
use crate::records::{ClaimedJob, LeaseToken, Revoked, Settled, Settlement};

/// Jobs of one session that are read at once.
pub const HELD_ROWS_MAX: u32 = 10_000;

/// A handler that a remote worker has.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RemoteHandler {
    /// As jobs name it.
    pub name: String,
    /// Which version of it, for people.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub version: Option<String>,
    /// What it takes, as JSON Schema; for people and tools.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub input_schema: Option<serde_json::Value>,
}

/// A worker that registers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewRemoteWorker {
    /// Its session, which is opened with it.
    pub session: SessionId,
    /// What it calls itself, for people.
    pub name: String,
    /// Of the secret that its calls bring.
    pub secret_digest: String,
    /// What it can do.
    pub handlers: Vec<RemoteHandler>,
    /// From which queues it takes jobs.
    pub queues: Vec<String>,
    /// Of whose jobs it may have; `None`: of all. The store gives it no others.
    pub namespaces: Option<Vec<String>>,
    /// How many jobs it runs at once.
    pub slots: u32,
    /// How long its session lives when nothing is heard of it.
    pub lease: Duration,
}

/// A worker as it is known.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RemoteWorker {
    /// As it registered.
    pub registered: NewRemoteWorker,
    /// When.
    pub registered_at: Timestamp,
    /// When it was last heard of.
    pub beat_at: Timestamp,
    /// When its session ends unless it is heard of.
    pub expires_at: Timestamp,
}

/// A job that a session holds.
#[derive(Debug, Clone, PartialEq)]
pub struct HeldJob {
    /// As it was claimed.
    pub job: ClaimedJob,
    /// How long its attempt has been running.
    pub ran: Duration,
}

/// The answer to a worker's sign of life.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct RemoteBeat {
    /// The session is known; if not, it has ended, and all its jobs are lost.
    pub known: bool,
    /// Jobs among those named that are no longer the session's.
    pub revoked: Vec<(JobId, Revoked)>,
    /// Jobs that the session held for longer than its lease without naming them: they were taken away.
    pub forgotten: usize,
}

/// What a build would publish.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct BuildSum {
    /// Live items that it neither put nor kept, by key.
    pub removed: Vec<String>,
    /// Items of its generation.
    pub total: u64,
    /// Items that it put.
    pub put: u64,
    /// Live items that it keeps.
    pub kept: u64,
}

/// What a node does in the name of workers elsewhere.
#[async_trait]
pub trait RemoteWorkers: Send + Sync + Debug {
    /// Opens a worker's session. Doing it again with the same session changes nothing but its deadline.
    async fn remote_open(&self, worker: NewRemoteWorker) -> Result<()>;

    /// A worker by its session; `None` when the session has ended, or is not a remote worker's.
    async fn remote_find(&self, session: SessionId) -> Result<Option<RemoteWorker>>;

    /// Extends the session by `lease` from now, and tells which of the named tokens are no longer good. Where the worker named all that it
    /// holds, jobs that it has held for longer than a lease and did not name are taken away: it lost them.
    async fn remote_beat(
        &self,
        session: SessionId,
        lease: Duration,
        named: Vec<LeaseToken>,
        are_all_named: bool,
    ) -> Result<RemoteBeat>;

    /// What the session holds, the oldest first.
    async fn remote_held(&self, session: SessionId) -> Result<Vec<HeldJob>>;

    /// Those of these tokens that are good, with their jobs.
    async fn remote_held_by(&self, tokens: Vec<LeaseToken>) -> Result<Vec<HeldJob>>;

    /// Ends an attempt against its worker's will: its token is void afterwards.
    async fn remote_end(&self, settlement: Settlement) -> Result<Settled>;

    /// Keeps lines that the worker numbers: `first` is the number of the first one in this attempt, from 1. Lines that are kept already are
    /// left out. `None` when the token is good.
    async fn remote_log(&self, token: LeaseToken, first: u64, lines: Vec<String>) -> Result<Option<Revoked>>;

    /// What the build that `token` holds would publish if it ended now and kept these live items. An item to be kept that is not live is an
    /// error.
    async fn remote_build_sum(
        &self,
        token: LeaseToken,
        kept: Vec<String>,
    ) -> Result<std::result::Result<BuildSum, Revoked>>;
}
