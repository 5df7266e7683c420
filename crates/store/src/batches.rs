//! Batches: jobs, workflows, tracked jobs and further batches that are watched together.

use std::fmt::Debug;
use std::time::Duration;

use async_trait::async_trait;
use recache_model::batch::{BatchCallback, BatchCounts, BatchState};
use recache_model::ids::{BatchId, JobId};
use recache_model::time::Timestamp;
use uuid::Uuid;

use crate::error::Result;
use crate::letters::BatchDone;
use crate::maintenance::Leadership;
use crate::queues::Word;
use crate::records::NewWorkflow;
use crate::traces::Traced;

/// A batch to be kept.
#[derive(Debug, Clone, PartialEq)]
pub struct NewBatch {
    /// Given or made; creating it again is harmless.
    pub id: BatchId,
    /// Who it and its members belong to.
    pub namespace: String,
    /// What is done.
    pub action: String,
    /// JSON that is kept with it and never looked at.
    pub metadata: String,
    /// It is a member of this one.
    pub parent: Option<BatchId>,
    /// How many members it will have: it closes by itself with the last one. `None`: members may be added until it is closed.
    pub expected: Option<u64>,
    /// The job to make when all members have ended and none badly.
    pub on_success: Option<BatchCallback>,
    /// The job to make when all members have ended, however.
    pub on_finish: Option<BatchCallback>,
    /// The job to make when the first member fails.
    pub on_first_failure: Option<BatchCallback>,
    /// The place in a trace of the call that makes it (W3C `traceparent`): its callbacks go on in it. It makes no other batch of it.
    pub trace_context: Option<String>,
}

impl NewBatch {
    /// A batch with defaults: namespace `default`, open-ended, in no other one, without callbacks.
    pub fn new(action: impl Into<String>) -> Self {
        Self {
            id: BatchId::make(),
            namespace: "default".to_owned(),
            action: action.into(),
            metadata: "{}".to_owned(),
            parent: None,
            expected: None,
            on_success: None,
            on_finish: None,
            on_first_failure: None,
            trace_context: None,
        }
    }
}

/// What came of a look at batches.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct BatchesSettled {
    /// Those that have ended now.
    pub ended: Vec<BatchId>,
    /// Callbacks that were made and belong to a trace.
    pub traced: Vec<Traced>,
}

/// A batch as it stands: one moment, in which its counts add up.
#[derive(Debug, Clone, PartialEq)]
pub struct BatchRecord {
    /// What was created.
    pub definition: NewBatch,
    /// How its members stand.
    pub counts: BatchCounts,
    /// What follows from that.
    pub state: BatchState,
    /// When it was created.
    pub created_at: Timestamp,
    /// Since when no members can be added.
    pub closed_at: Option<Timestamp>,
    /// When it was cancelled, and why.
    pub cancelled: Option<(Timestamp, String)>,
    /// When its end was noticed; its callbacks were made then.
    pub finished_at: Option<Timestamp>,
    /// The job that was made for success.
    pub success_job: Option<JobId>,
    /// The job that was made for the end.
    pub finish_job: Option<JobId>,
    /// The job that was made for the first failure.
    pub failure_job: Option<JobId>,
    /// When the event of its success was written.
    pub success_told_at: Option<Timestamp>,
    /// When that of its end was.
    pub finish_told_at: Option<Timestamp>,
    /// When that of its first failure was.
    pub failure_told_at: Option<Timestamp>,
}

/// What kind of thing a member is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum MemberKind {
    /// A job of ours.
    Job,
    /// A job of another system.
    Tracked,
    /// A workflow.
    Workflow,
    /// A batch within the batch.
    Batch,
}

impl MemberKind {
    /// The name in the store and on the wire.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Job => "job",
            Self::Tracked => "tracked",
            Self::Workflow => "workflow",
            Self::Batch => "batch",
        }
    }
}

/// A member of a batch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BatchMember {
    /// What it is.
    pub kind: MemberKind,
    /// Which one.
    pub id: Uuid,
    /// The name of its state.
    pub state: String,
    /// A stable word for why it failed.
    pub code: Option<String>,
    /// Why it failed, for people.
    pub message: Option<String>,
    /// When it ended.
    pub finished_at: Option<Timestamp>,
}

/// Which batches to list; newest first.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct BatchFilter {
    /// Only of this namespace.
    pub namespace: Option<String>,
    /// Only of this action.
    pub action: Option<String>,
    /// Only those within this one.
    pub parent: Option<BatchId>,
    /// Only those whose end was not noticed yet.
    pub unfinished: bool,
    /// Only older than this one.
    pub before: Option<BatchId>,
    /// At most so many.
    pub rows_max: u32,
}

/// A batch whose counts are not those of its members.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BatchDifference {
    /// Which one.
    pub batch: BatchId,
    /// What is kept.
    pub kept: BatchCounts,
    /// What its members say.
    pub counted: BatchCounts,
}

/// What a comparison of batches found.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct BatchesCompared {
    /// Batches that were looked at.
    pub batches: u64,
    /// Where to go on; `None` at the end.
    pub last: Option<BatchId>,
    /// What was found.
    pub differences: Vec<BatchDifference>,
}

/// A batch that waits for somebody to act.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BatchDue {
    /// It has ended or failed first: [`Batches::batches_settle`].
    Settle(BatchId),
    /// It was cancelled and has members that were not: [`Batches::batch_cancel`].
    Cancel(BatchId),
}

/// Batches.
///
/// The counts change in the transaction that changes a member, so that `completed + failed + cancelled + superseded + pending
/// = total` at every commit, and the state follows from them. The end of a batch is noticed by
/// [`batches_settle`](Self::batches_settle), which makes the callbacks: each once in the life of the batch.
#[async_trait]
pub trait Batches: Send + Sync + Debug {
    /// Keeps a batch. True when it is new; another one of the same id is a conflict. In a closed parent it is a conflict.
    async fn batch_create(&self, batch: NewBatch) -> Result<(BatchRecord, bool)>;

    /// A batch.
    async fn batch_get(&self, batch: BatchId) -> Result<BatchRecord>;

    /// Batches, newest first.
    async fn batches_list(&self, filter: BatchFilter) -> Result<Vec<BatchRecord>>;

    /// No more members can be added; the total is what was added. True when this call closed it.
    async fn batch_close(&self, batch: BatchId) -> Result<bool>;

    /// Stores a workflow as a member. True when it is new.
    async fn batch_add_workflow(&self, batch: BatchId, workflow: NewWorkflow) -> Result<bool>;

    /// Cancels a batch and those within it: closes it, and calls off at most `rows_max` of its members that have not ended. Answers how
    /// many; call again until it is 0. Of what calls it off first the reason stands.
    async fn batch_cancel(&self, batch: BatchId, reason: &str, rows_max: u32) -> Result<u64>;

    /// Puts failed jobs of the batch, of its workflows and of the batches within it back to the queue: those after `after`, at most
    /// `rows_max`. The batch goes on then. Tracked jobs stay failed: their states only move forward. A cancelled batch is a conflict.
    async fn batch_retry(
        &self,
        batch: BatchId,
        word: Word,
        after: Option<JobId>,
        rows_max: u32,
    ) -> Result<BatchDone>;

    /// Members in the order of their ids: those after `after`, at most `rows_max`. `failed`: only those that failed.
    async fn batch_members(
        &self,
        batch: BatchId,
        failed: bool,
        after: Option<Uuid>,
        rows_max: u32,
    ) -> Result<Vec<BatchMember>>;

    /// Looks whether these batches have ended or failed first, and if so makes their callbacks and counts them in their parents.
    /// Costs one look where there is nothing to do.
    async fn batches_settle(&self, batches: Vec<BatchId>) -> Result<BatchesSettled>;

    /// Batches that wait for somebody to act, because whoever should have died before.
    async fn batches_due(&self, rows_max: u32) -> Result<Vec<BatchDue>>;

    /// Compares the counts of unfinished batches with their members. Changes nothing.
    async fn batches_compare(&self, after: Option<BatchId>, rows_max: u32) -> Result<BatchesCompared>;

    /// Removes batches that ended at least `keep` ago and whose members are gone. Answers how many.
    async fn batches_remove(&self, leadership: &Leadership, keep: Duration, rows_max: u32) -> Result<u64>;
}
