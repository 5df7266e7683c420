//! What operators did: who, what, to which thing, why, and how it stood before and after.

use std::fmt::Debug;
use std::time::Duration;

use async_trait::async_trait;
use recache_model::time::Timestamp;
use uuid::Uuid;

use crate::error::Result;
use crate::queues::Word;

/// How long rows are kept: 400 days, a year and what it takes to look back at it.
pub const AUDIT_KEEP: Duration = Duration::from_hours(400 * 24);
/// Longest text of a state before or after, in bytes; what is longer is cut by whoever writes it.
pub const STATE_BYTES_MAX: usize = 16 * 1024;

/// An action that is about to be done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewAudit {
    /// A UUIDv7: rows are in the order of their ids.
    pub id: Uuid,
    /// Who does it, and why.
    pub word: Word,
    /// What: `jobs.cancel`.
    pub action: String,
    /// Where, if that what it is done to belongs to a namespace.
    pub namespace: Option<String>,
    /// To what: an id or a name.
    pub target: String,
    /// The request that asked for it.
    pub request_id: Option<String>,
    /// How it stood before, as JSON.
    pub before: Option<String>,
}

/// What came of an action.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum AuditOutcome {
    /// It was begun; whoever did it did not come back to say more.
    Begun,
    /// It was done.
    Done,
    /// It was not done.
    Refused,
    /// The answer of the store was lost.
    Unknown,
}

impl AuditOutcome {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Begun, Self::Done, Self::Refused, Self::Unknown];

    /// The name in the store.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Begun => "begun",
            Self::Done => "done",
            Self::Refused => "refused",
            Self::Unknown => "unknown",
        }
    }
}

/// An action.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AuditRecord {
    /// What was said of it before.
    pub new: NewAudit,
    /// When it was begun.
    pub at: Timestamp,
    /// What came of it.
    pub outcome: AuditOutcome,
    /// How it stood after, as JSON; of one that was refused, why.
    pub after: Option<String>,
}

/// Which actions to list; newest first.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct AuditFilter {
    /// Only of this namespace.
    pub namespace: Option<String>,
    /// Only of this actor.
    pub actor: Option<String>,
    /// Only to this thing.
    pub target: Option<String>,
    /// Only older than this one.
    pub before: Option<Uuid>,
    /// At most so many.
    pub rows_max: u32,
}

/// The audit.
#[async_trait]
pub trait Audits: Send + Sync + Debug {
    /// Writes that an action is about to be done. Only when this returns it may be.
    async fn audit_begin(&self, audit: NewAudit) -> Result<()>;

    /// Writes what came of it.
    async fn audit_end(&self, id: Uuid, outcome: AuditOutcome, after: Option<String>) -> Result<()>;

    /// Actions, newest first.
    async fn audits_list(&self, filter: AuditFilter) -> Result<Vec<AuditRecord>>;
}
