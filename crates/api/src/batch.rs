//! Batches on the wire.

use serde::{Deserialize, Serialize};

use crate::instant::Instant;
use crate::json::Json;

/// Where a batch stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "snake_case")]
pub enum BatchState {
    /// None of its members has ended.
    Pending,
    /// Some have ended; others have not, or may still be added.
    Processing,
    /// All have ended, and none of them badly.
    Completed,
    /// All have ended, and none of them well.
    Failed,
    /// All have ended, some well and some not.
    PartialFailure,
}

/// How the members of a batch stand: `completed + failed + cancelled + superseded + pending = total`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct BatchCounts {
    /// Members, or the total that was announced where that is more.
    pub total: i64,
    /// Have not ended.
    pub pending: i64,
    /// Ended well.
    pub completed: i64,
    /// Ended badly.
    pub failed: i64,
    /// Called off.
    pub cancelled: i64,
    /// Made pointless by a newer version.
    pub superseded: i64,
}

/// The job that is made at some moment of a batch.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct BatchCallback {
    /// What does it.
    pub handler: String,
    /// Where it waits.
    pub queue: String,
    /// What it is given beside the batch's id, moment, state and counts.
    pub input: Json,
    /// `job_…`: the job, once it was made.
    pub job_id: Option<String>,
}

/// A batch as it stands.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Batch {
    /// `batch_…`
    pub id: String,
    /// Who it belongs to.
    pub namespace: String,
    /// What is done.
    pub action: String,
    /// Where it stands.
    pub state: BatchState,
    /// How its members stand.
    pub counts: BatchCounts,
    /// `batch_…`: the batch that it is a member of.
    pub parent_id: Option<String>,
    /// How many members it will have; `null`: members may be added until it is closed.
    pub expected: Option<u64>,
    /// What was kept with it.
    pub metadata: Json,
    /// When all have ended, and none badly.
    pub on_success: Option<BatchCallback>,
    /// When all have ended, however.
    pub on_finish: Option<BatchCallback>,
    /// When the first member fails.
    pub on_first_failure: Option<BatchCallback>,
    /// When it was created.
    pub created_at: Instant,
    /// Since when no members can be added.
    pub closed_at: Option<Instant>,
    /// When it was cancelled.
    pub cancelled_at: Option<Instant>,
    /// Why.
    pub cancel_reason: Option<String>,
    /// When its end was noticed; its callbacks were made then.
    pub finished_at: Option<Instant>,
}

/// Batches, newest first.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct BatchList {
    /// [`BatchList::SCHEMA`]
    pub schema: String,
    /// The page.
    pub batches: Vec<Batch>,
    /// Where the next page begins: list the batches before this id. `null` on the last page.
    pub next: Option<String>,
}

impl BatchList {
    /// The name and version of this shape.
    pub const SCHEMA: &'static str = "recache.batches.v1";

    /// A page.
    pub fn new(batches: Vec<Batch>, next: Option<String>) -> Self {
        Self { schema: Self::SCHEMA.to_owned(), batches, next }
    }
}

/// One batch, after a call about it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct BatchAnswer {
    /// [`BatchAnswer::SCHEMA`]
    pub schema: String,
    /// What stands now.
    pub batch: Batch,
    /// Members, or the batch itself, that this call changed.
    pub changed: u64,
    /// Of a retry: there may be more, repeat the call with this as `cursor`. `null`: all were looked at.
    pub next: Option<String>,
}

impl BatchAnswer {
    /// The name and version of this shape.
    pub const SCHEMA: &'static str = "recache.batch.v1";

    /// What stands.
    pub fn new(batch: Batch, changed: u64) -> Self {
        Self { schema: Self::SCHEMA.to_owned(), batch, changed, next: None }
    }
}

/// A member of a batch.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct BatchMember {
    /// `job`, `tracked`, `workflow` or `batch`.
    pub kind: String,
    /// `job_…`, `wf_…` or `batch_…`
    pub id: String,
    /// The name of its state.
    pub state: String,
    /// A stable word for why it failed.
    pub code: Option<String>,
    /// Why it failed.
    pub message: Option<String>,
    /// When it ended.
    pub finished_at: Option<Instant>,
}

/// Members in the order of their ids.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct BatchMemberList {
    /// [`BatchMemberList::SCHEMA`]
    pub schema: String,
    /// The page.
    pub members: Vec<BatchMember>,
    /// Where the next page begins: list the members after this id. `null` on the last page.
    pub next: Option<String>,
}

impl BatchMemberList {
    /// The name and version of this shape.
    pub const SCHEMA: &'static str = "recache.batch-members.v1";

    /// A page.
    pub fn new(members: Vec<BatchMember>, next: Option<String>) -> Self {
        Self { schema: Self::SCHEMA.to_owned(), members, next }
    }
}
