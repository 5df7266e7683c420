//! Queues and limits on the wire.

use serde::{Deserialize, Serialize};

use crate::instant::Instant;

/// That nothing of a queue begins.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct QueuePause {
    /// Since when.
    pub at: Instant,
    /// It ends by itself then; `null`: somebody must resume it.
    pub until: Option<Instant>,
    /// Who paused it.
    pub actor: String,
    /// Why.
    pub reason: String,
}

/// A queue as it stands.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Queue {
    /// Its name.
    pub name: String,
    /// `null` while it is open.
    pub pause: Option<QueuePause>,
    /// Jobs that wait, due or not; no more than 100,000 are counted.
    pub queued: i64,
    /// Jobs that run.
    pub running: i64,
    /// Since when the first of the most urgent jobs could have begun.
    pub due_since: Option<Instant>,
    /// Jobs that may run at once.
    pub running_max: Option<u32>,
    /// Starts in any stretch of time of `period_ms`.
    pub starts_max: Option<u32>,
    /// The length of that stretch.
    pub period_ms: Option<u64>,
}

/// Queues by name.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct QueueList {
    /// [`QueueList::SCHEMA`]
    pub schema: String,
    /// All of them, at most 1,000.
    pub queues: Vec<Queue>,
}

impl QueueList {
    /// The name and version of this shape.
    pub const SCHEMA: &'static str = "recache.queues.v1";

    /// A list.
    pub fn new(queues: Vec<Queue>) -> Self {
        Self { schema: Self::SCHEMA.to_owned(), queues }
    }
}

/// One queue, after a call about it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct QueueAnswer {
    /// [`QueueAnswer::SCHEMA`]
    pub schema: String,
    /// What stands now.
    pub queue: Queue,
    /// Whether this call made it so.
    pub changed: bool,
}

impl QueueAnswer {
    /// The name and version of this shape.
    pub const SCHEMA: &'static str = "recache.queue.v1";

    /// What stands.
    pub fn new(queue: Queue, changed: bool) -> Self {
        Self { schema: Self::SCHEMA.to_owned(), queue, changed }
    }
}

/// What a queue, a handler or a concurrency key allows.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Limit {
    /// `queue`, `handler` or `key`.
    pub scope: String,
    /// Whose concurrency key it is; `null` for queues and handlers.
    pub namespace: Option<String>,
    /// The queue, handler or key.
    pub name: String,
    /// Jobs that may run at once.
    pub running_max: Option<u32>,
    /// Starts in any stretch of time of `period_ms`.
    pub starts_max: Option<u32>,
    /// The length of that stretch.
    pub period_ms: Option<u64>,
    /// Who set it.
    pub actor: String,
    /// When.
    pub changed_at: Instant,
}

/// Limits by scope and name.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct LimitList {
    /// [`LimitList::SCHEMA`]
    pub schema: String,
    /// All of them.
    pub limits: Vec<Limit>,
}

impl LimitList {
    /// The name and version of this shape.
    pub const SCHEMA: &'static str = "recache.limits.v1";

    /// A list.
    pub fn new(limits: Vec<Limit>) -> Self {
        Self { schema: Self::SCHEMA.to_owned(), limits }
    }
}
