//! Workflows and their steps.

use serde::{Deserialize, Serialize};

use crate::instant::Instant;
use crate::job::{JobError, JobState};
use crate::json::Json;

/// Steps by where they stand.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct StepCounts {
    /// Wait for others.
    pub blocked: i64,
    /// Queued or running, or waiting for a signal or another workflow.
    pub active: i64,
    /// Completed, skipped or resolved; or failed where that is tolerated.
    pub done: i64,
    /// Failed for good.
    pub failed: i64,
    /// Cancelled.
    pub cancelled: i64,
}

/// A workflow.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Workflow {
    /// Its id.
    pub id: String,
    /// Who it belongs to.
    pub namespace: String,
    /// Name of its template.
    pub template: String,
    /// Version of its template.
    pub version: String,
    /// The environment whose overlays its steps have.
    pub environment: Option<String>,
    /// `running`, `completed`, `failed` or `cancelled`.
    pub state: String,
    /// Steps by where they stand.
    pub steps: StepCounts,
    /// `job_…`: the step of another workflow, or the build of a view, that it does.
    pub parent_step: Option<String>,
    /// When it was submitted.
    pub created_at: Instant,
    /// When it ended.
    pub finished_at: Option<Instant>,
}

/// A page of workflows, newest first.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct WorkflowList {
    /// [`WorkflowList::SCHEMA`]
    pub schema: String,
    /// The page.
    pub workflows: Vec<Workflow>,
    /// What to give as `before` for the next page.
    pub next: Option<String>,
}

impl WorkflowList {
    /// The name and version of this shape.
    pub const SCHEMA: &'static str = "recache.workflows.v1";

    /// A page.
    pub fn new(workflows: Vec<Workflow>, next: Option<String>) -> Self {
        Self { schema: Self::SCHEMA.to_owned(), workflows, next }
    }
}

/// One step, or one run of a step that was split.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct WorkflowStep {
    /// Its name; `name[0]` for a run of a step that was split.
    pub name: String,
    /// Its job.
    pub job_id: String,
    /// Where it stands.
    pub state: JobState,
    /// What does it; `recache.flow` while that is for the engine to decide.
    pub handler: String,
    /// Attempts made.
    pub attempt: u32,
    /// Steps that it waits for.
    pub waits_for: Vec<String>,
    /// Why it was skipped, or what its handler said.
    pub message: Option<String>,
    /// The last attempt's error.
    pub error: Option<JobError>,
    /// Its result.
    pub output: Option<Json>,
    /// The workflow that does it.
    pub sub_workflow: Option<String>,
}

/// A signal or an approval that came.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct WorkflowSignal {
    /// `signal` or `approval`.
    pub kind: String,
    /// Its name.
    pub name: String,
    /// What came with it.
    pub payload: Json,
    /// Who sent it.
    pub actor: String,
    /// When.
    pub received_at: Instant,
}

/// A workflow with its steps.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct WorkflowDetails {
    /// [`WorkflowDetails::SCHEMA`]
    pub schema: String,
    /// The workflow.
    pub workflow: Workflow,
    /// Its input.
    pub input: Json,
    /// In the order in which they were created.
    pub steps: Vec<WorkflowStep>,
    /// In the order in which they came.
    pub signals: Vec<WorkflowSignal>,
    /// Limits of time that have passed: the workflow's own first.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub limits: Vec<PassedLimit>,
}

/// A limit of time that has passed, of a workflow or of one of its steps.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct PassedLimit {
    /// The step; none: the workflow itself.
    pub step: Option<String>,
    /// The field of the template that sets it.
    pub limit: String,
    /// What it allows.
    pub minutes: u32,
}

impl WorkflowDetails {
    /// The name and version of this shape.
    pub const SCHEMA: &'static str = "recache.workflow.v1";

    /// A workflow with its steps.
    pub fn new(
        workflow: Workflow,
        input: Json,
        steps: Vec<WorkflowStep>,
        signals: Vec<WorkflowSignal>,
    ) -> Self {
        Self { schema: Self::SCHEMA.to_owned(), workflow, input, steps, signals, limits: Vec::new() }
    }

    /// With the limits of time that have passed.
    #[must_use]
    pub fn with_limits(self, limits: Vec<PassedLimit>) -> Self {
        Self { limits, ..self }
    }
}

/// What a command did to a workflow.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct WorkflowChange {
    /// [`WorkflowChange::SCHEMA`]
    pub schema: String,
    /// The workflow; the new one where it was run again.
    pub id: String,
    /// What was done: `submitted`, `cancelled`, `retried`, `run_again`, `run_failed_again`, `told`, `completed`, `resolved`.
    pub change: String,
    /// The step, where one was meant.
    pub step: Option<String>,
    /// How many steps it concerned; 0 when nothing had to be changed.
    pub count: u64,
    /// Of a submit: how it stands when this is answered, where that was waited for; otherwise `null`.
    pub workflow: Option<Workflow>,
}

impl WorkflowChange {
    /// The name and version of this shape.
    pub const SCHEMA: &'static str = "recache.workflow-change.v1";

    /// A change.
    pub fn new(id: String, change: &str, step: Option<String>, count: u64) -> Self {
        Self { schema: Self::SCHEMA.to_owned(), id, change: change.to_owned(), step, count, workflow: None }
    }
}
