//! The running of workflows beyond plain steps: what the engine decides about a step goes into the store with the settlement of its
//! turn; what the store knows of a step's situation comes out.
//!
//! A step that needs a decision of the engine's before its handler runs (a condition, a list to split, a signal to wait
//! for, a workflow in its stead) is at first a job of the queue and the handler [`FLOW`]. Only engines claim it, never a worker
//! in another language; each claim is a *turn*, whose end is one of the outcomes here.

use std::collections::BTreeSet;
use std::fmt::Debug;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use recache_model::expansion::Outline;
use recache_model::ids::{JobId, WorkflowId};
use recache_model::job::{JobError, JobState};
use recache_model::lifecycle::{LimitName, TimeLimits};
use recache_model::limits::Rate;
use recache_model::time::Timestamp;
use recache_model::workflow::{StepKind, WorkflowState};

use crate::error::Result;
use crate::queues::Word;
use crate::records::{NewJob, NewWorkflow, StepInputs, WorkflowRecord};

/// The queue and the handler of a step while its next move is the engine's.
pub const FLOW: &str = recache_model::figures::ENGINE_HANDLER;

/// A result larger than this, in bytes, stands in a table of its own and not in the row of its job.
pub const RESULT_INLINE_BYTES_MAX: usize = 32 * 1024;

/// Largest payload of a signal, in bytes.
pub const SIGNAL_BYTES_MAX: usize = 64 * 1024;

/// Most signals that one workflow keeps.
pub const SIGNALS_MAX: i64 = 1_000;

/// The steps behind a decision, to be created or skipped when it ends; see [`recache_model::expansion`].
#[derive(Debug, Clone, PartialEq)]
pub struct Region {
    /// Name of the decision.
    pub decision: String,
    /// What it chose; `None` when it is skipped.
    pub choice: Option<BTreeSet<String>>,
    /// All steps that it stands before, in topological order.
    pub steps: Vec<RegionStep>,
}

/// A step that may be created.
#[derive(Debug, Clone, PartialEq)]
pub struct RegionStep {
    /// What it is and stands behind.
    pub outline: Outline,
    /// The job that does it.
    pub job: NewJob,
    /// Its template is looked at when it ends.
    pub has_rules: bool,
}

/// What a step is split into.
#[derive(Debug, Clone, PartialEq)]
pub struct Children {
    /// What their failures mean.
    pub kind: StepKind,
    /// So many of them run at once; `None`: all.
    pub parallelism: Option<usize>,
    /// The children, in order. None at all: the step goes on at once.
    pub jobs: Vec<Child>,
}

/// One run of a step that is split.
#[derive(Debug, Clone, PartialEq)]
pub struct Child {
    /// The job that does it.
    pub job: NewJob,
    /// JSON that it is for.
    pub item: String,
    /// Its template is looked at when it ends.
    pub has_rules: bool,
}

/// From the engine to a handler.
#[derive(Debug, Clone, PartialEq)]
pub struct HandOver {
    /// Where the step waits from now on.
    pub queue: String,
    /// What does it.
    pub handler: String,
    /// With which others it may not run, and how many of them may at once.
    pub concurrency: Option<(String, u32)>,
    /// How often steps of this key may begin. One that may not waits for its turn.
    pub rate: Option<(String, Rate)>,
}

/// What a step waits for without a lease and without a slot.
#[derive(Debug, Clone, PartialEq)]
pub enum Waiting {
    /// A signal or an approval.
    Signal {
        /// Which.
        kind: SignalKind,
        /// Its name.
        name: String,
        /// For how long at most, from the first time on.
        timeout: Option<Duration>,
    },
    /// The end of a workflow that begins now.
    NewWorkflow(Arc<NewWorkflow>),
    /// The end of the workflow that has begun.
    Workflow,
}

/// Who sends it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum SignalKind {
    /// Another system.
    Signal,
    /// A person.
    Approval,
}

impl SignalKind {
    /// The name in the store.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Signal => "signal",
            Self::Approval => "approval",
        }
    }
}

/// Something that a workflow is told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SignalRecord {
    /// What it is.
    pub kind: SignalKind,
    /// Its name: a workflow is told each once.
    pub name: String,
    /// JSON for whoever waits.
    pub payload: String,
    /// Who sent it.
    pub actor: String,
    /// When it came; what a sender gives here is ignored.
    pub received_at: Timestamp,
}

/// What is known of a step at its turn.
#[derive(Debug, Clone, PartialEq)]
pub struct StepSituation {
    /// Input and results.
    pub inputs: StepInputs,
    /// Names and states of what it depends on, by name.
    pub dependencies: Vec<(String, JobState)>,
    /// Whether it was split: how many children it has. They have all ended.
    pub children: Option<u64>,
    /// When waiting ends that began at an earlier turn.
    pub wait_until: Option<Timestamp>,
    /// What time it is for the store.
    pub now: Timestamp,
    /// The workflow that does it.
    pub sub_workflow: Option<(WorkflowId, WorkflowState)>,
    /// The result that it had in the workflow that its own runs again in part.
    pub given: Option<String>,
    /// Workflows above the step's own.
    pub depth: u32,
    /// What the workflow was told.
    pub signals: Vec<SignalRecord>,
}

/// How a child ended.
#[derive(Debug, Clone, PartialEq)]
pub struct ChildEnd {
    /// Its state.
    pub state: JobState,
    /// Its result.
    pub output: Option<String>,
    /// Its last error.
    pub error: Option<JobError>,
}

/// How an operator ends a step.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Ending {
    /// In place of its handler, with this result.
    Complete {
        /// JSON.
        output: String,
    },
    /// It failed, and is settled; dependents may be given a result.
    Resolve {
        /// JSON.
        output: Option<String>,
    },
}

/// Limits of time of a workflow or of one of its steps.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LimitsRecord {
    /// The step; `None`: the workflow itself.
    pub step: Option<String>,
    /// What they are.
    pub limits: TimeLimits,
    /// Those that have passed.
    pub found: Vec<LimitName>,
    /// Since when its duration counts.
    pub counted_from: Timestamp,
    /// When it is looked at next; `None` when it has ended, or no limit is left.
    pub look_at: Option<Timestamp>,
}

/// Which workflows to list; newest first.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct WorkflowFilter {
    /// Only of this namespace.
    pub namespace: Option<String>,
    /// Only in this state.
    pub state: Option<WorkflowState>,
    /// Only of templates of this name.
    pub template: Option<String>,
    /// Only older than this one: the last of the page before.
    pub before: Option<WorkflowId>,
    /// At most so many.
    pub rows_max: u32,
}

/// The running of workflows.
#[async_trait]
pub trait Flows: Send + Sync + Debug {
    /// What is known of a step at its turn.
    async fn step_situation(&self, job: JobId) -> Result<StepSituation>;

    /// How the children of a step ended, in order; `None` when their results come to more than `bytes_max`.
    async fn children_read(&self, job: JobId, bytes_max: u64) -> Result<Option<Vec<ChildEnd>>>;

    /// Names and results of the steps on which no other one depends, by name; `None` when they come to more than `bytes_max`.
    async fn workflow_results(
        &self,
        workflow: WorkflowId,
        bytes_max: u64,
    ) -> Result<Option<Vec<(String, String)>>>;

    /// Tells a workflow something. False when it was told before; another payload than then is a conflict, and so is a workflow
    /// that has ended.
    async fn signal_send(&self, workflow: WorkflowId, signal: SignalRecord) -> Result<bool>;

    /// What a workflow was told, in order.
    async fn signals_list(&self, workflow: WorkflowId) -> Result<Vec<SignalRecord>>;

    /// Workflows, newest first.
    async fn workflows_list(&self, filter: WorkflowFilter) -> Result<Vec<WorkflowRecord>>;

    /// Puts all failed steps of a workflow back to the queue with their attempts renewed. Answers how many.
    async fn workflow_retry_failed(&self, workflow: WorkflowId, word: Word) -> Result<u64>;

    /// Ends a step in its worker's stead: a step that has not ended is completed, one that failed is resolved. What stands behind a
    /// decision is created by `region`. Another state is a conflict.
    async fn step_end(
        &self,
        job: JobId,
        ending: Ending,
        region: Option<Region>,
        word: Word,
    ) -> Result<JobState>;

    /// The limits of time of a workflow and its steps: its own first, then by the steps' names; at most `rows_max`. `found_only`: only
    /// where one has passed.
    async fn limits_list(
        &self,
        workflow: WorkflowId,
        found_only: bool,
        rows_max: u32,
    ) -> Result<Vec<LimitsRecord>>;

    /// The job of a step, by its name.
    async fn step_find(&self, workflow: WorkflowId, step: &str) -> Result<JobId>;
}
