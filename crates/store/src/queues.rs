//! Queues as an operator sees them: paused or not, limited or not, how full.

use std::fmt::Debug;

use async_trait::async_trait;
use recache_model::limits::Limit;
use recache_model::time::Timestamp;

use crate::error::Result;
use crate::records::Due;

/// No count of waiting jobs goes further: a look at a full queue must not cost more than a look at a long one.
pub const COUNTED_MAX: i64 = 100_000;
/// Queues that one list shows.
pub const LISTED_MAX: i64 = 1_000;

/// Who says so, and why.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Word {
    /// A person or a program.
    pub actor: String,
    /// Kept and shown.
    pub reason: String,
}

impl Word {
    /// Longest actor, in bytes.
    pub const ACTOR_BYTES_MAX: usize = 256;
    /// Longest reason, in bytes.
    pub const REASON_BYTES_MAX: usize = 4 * 1024;

    /// Words of this actor.
    pub fn new(actor: impl Into<String>, reason: impl Into<String>) -> Self {
        Self { actor: actor.into(), reason: reason.into() }
    }

    /// Refuses what cannot be kept, with every reason.
    pub(crate) fn check(&self) -> Result<()> {
        let mut problems = Vec::new();
        for (what, text, bytes_max) in
            [("actor", &self.actor, Self::ACTOR_BYTES_MAX), ("reason", &self.reason, Self::REASON_BYTES_MAX)]
        {
            if text.is_empty() || text.len() > bytes_max || text.contains('\0') {
                problems.push(format!(
                    "{what} must have 1 to {bytes_max} bytes and no NUL, and has {} bytes",
                    text.len()
                ));
            }
        }
        if problems.is_empty() { Ok(()) } else { Err(crate::Error::Invalid(problems.join("; "))) }
    }
}

/// That nothing of a queue begins.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pause {
    /// Since when.
    pub at: Timestamp,
    /// It ends by itself then.
    pub until: Option<Timestamp>,
    /// Who, and why.
    pub word: Word,
}

/// A queue as it stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct QueueRecord {
    /// Its name.
    pub name: String,
    /// Whether it is paused.
    pub pause: Option<Pause>,
    /// What it allows.
    pub limit: Limit,
    /// Jobs that wait, due or not; no more than [`COUNTED_MAX`] are counted.
    pub queued: i64,
    /// Jobs that run.
    pub running: i64,
    /// Since when the first of the most urgent ones could have begun; `None` when nothing is due.
    pub due_since: Option<Timestamp>,
}

/// What a limit is of.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum LimitScope {
    /// All jobs of a queue.
    Queue(String),
    /// All jobs of a handler, in whatever queue.
    Handler(String),
    /// All jobs of a concurrency key. Where none is set, one of them may run at once.
    Key {
        /// Whose key it is.
        namespace: String,
        /// The key.
        key: String,
    },
}

/// A limit and whose word it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LimitRecord {
    /// Of what.
    pub scope: LimitScope,
    /// How much.
    pub limit: Limit,
    /// Who set it.
    pub actor: String,
    /// When.
    pub changed_at: Timestamp,
}

/// Pausing and limiting. What is set here holds for every claim that begins after, in every process.
#[async_trait]
pub trait Queues: Send + Sync + Debug {
    /// Queues that hold jobs, are paused or are limited, by name; at most [`LISTED_MAX`].
    async fn queues_list(&self) -> Result<Vec<QueueRecord>>;

    /// One queue. One that nobody has used is empty, not missing.
    async fn queue_get(&self, queue: &str) -> Result<QueueRecord>;

    /// Lets nothing of the queue begin, until somebody resumes it or `until` has come. What runs goes on. Pausing again changes
    /// the end and the reason.
    async fn queue_pause(&self, queue: &str, until: Option<Due>, word: Word) -> Result<()>;

    /// Ends a pause. False when there was none.
    async fn queue_resume(&self, queue: &str) -> Result<bool>;

    /// Sets a limit in place of the former one; one that limits nothing removes it.
    async fn limit_set(&self, scope: LimitScope, limit: Limit, actor: &str) -> Result<()>;

    /// All limits, by scope and name.
    async fn limits_list(&self) -> Result<Vec<LimitRecord>>;
}
