//! What is asked for about workflows, and how one went over time.

use serde::{Deserialize, Serialize};

use crate::instant::Instant;
use crate::job::JobState;
use crate::json::Json;
use crate::workflow::WorkflowStep;

/// A workflow of a stored template, to be submitted.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct SubmitWorkflow {
    /// Name of the template.
    #[cfg_attr(feature = "openapi", schema(min_length = 1, max_length = 256))]
    pub template: String,
    /// Who it belongs to: the template's namespace.
    #[serde(default = "crate::defaults::name")]
    #[cfg_attr(feature = "openapi", schema(min_length = 1, max_length = 256))]
    pub namespace: String,
    /// Version of the template; without it the newest.
    #[serde(default)]
    #[cfg_attr(feature = "openapi", schema(min_length = 1, max_length = 256))]
    pub version: Option<String>,
    /// The environment whose overlays its steps have.
    #[serde(default)]
    #[cfg_attr(feature = "openapi", schema(min_length = 1, max_length = 256))]
    pub environment: Option<String>,
    /// What its steps see; it must fit the template's `input_schema`.
    #[serde(default = "crate::defaults::empty_object")]
    pub input: Json,
    /// `batch_…`: it is a member of this batch.
    #[serde(default)]
    #[cfg_attr(feature = "openapi", schema(min_length = 1, max_length = 64))]
    pub batch_id: Option<String>,
}

/// Which steps are run again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "snake_case")]
pub enum RetryMode {
    /// Those that failed; what they held up follows by itself.
    #[default]
    Failed,
    /// Those that failed and all that stands behind them, as a new workflow, whose other steps have the results of the old one.
    Downstream,
    /// All, as a new workflow of the same template, environment and input; the old one stays as it is.
    All,
}

/// That a workflow is run again.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct RetryWorkflow {
    /// Which steps.
    #[serde(default)]
    pub mode: RetryMode,
    /// Why; kept in history and in the audit.
    #[serde(default)]
    #[cfg_attr(feature = "openapi", schema(min_length = 1, max_length = 1_000))]
    pub reason: Option<String>,
}

/// Something that a workflow is told.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct SendSignal {
    /// Its name: a workflow is told each once.
    #[cfg_attr(feature = "openapi", schema(min_length = 1, max_length = 256))]
    pub name: String,
    /// What comes with it.
    #[serde(default = "crate::defaults::empty_object")]
    pub payload: Json,
}

/// A result for a step that has not ended, in place of its handler's.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct CompleteStep {
    /// It must fit the step's `result_schema`.
    #[serde(default = "crate::defaults::empty_object")]
    pub result: Json,
    /// Why; kept in history and in the audit.
    #[serde(default)]
    #[cfg_attr(feature = "openapi", schema(min_length = 1, max_length = 1_000))]
    pub reason: Option<String>,
}

/// That a failed step is settled.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct ResolveStep {
    /// What those that wait for it see; without it they see none.
    #[serde(default)]
    pub result: Option<Json>,
    /// Why; kept in history and in the audit.
    #[serde(default)]
    #[cfg_attr(feature = "openapi", schema(min_length = 1, max_length = 1_000))]
    pub reason: Option<String>,
}

/// The steps of a workflow.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct WorkflowStepList {
    /// [`WorkflowStepList::SCHEMA`]
    pub schema: String,
    /// `wf_…`
    pub workflow_id: String,
    /// In the order in which they were created.
    pub steps: Vec<WorkflowStep>,
}

impl WorkflowStepList {
    /// The name and version of this shape.
    pub const SCHEMA: &'static str = "recache.workflow-steps.v1";

    /// The steps of a workflow.
    pub fn new(workflow_id: String, steps: Vec<WorkflowStep>) -> Self {
        Self { schema: Self::SCHEMA.to_owned(), workflow_id, steps }
    }
}

/// How the steps of a workflow went over time.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct WorkflowTimeline {
    /// [`WorkflowTimeline::SCHEMA`]
    pub schema: String,
    /// `wf_…`
    pub workflow_id: String,
    /// `running`, `completed`, `failed` or `cancelled`.
    pub state: String,
    /// When it was submitted.
    pub created_at: Instant,
    /// When it ended.
    pub finished_at: Option<Instant>,
    /// By when their last attempts began; those that have not begun come last.
    pub steps: Vec<TimelineStep>,
}

impl WorkflowTimeline {
    /// The name and version of this shape.
    pub const SCHEMA: &'static str = "recache.workflow-timeline.v1";
}

/// A step over time.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct TimelineStep {
    /// Its name.
    pub name: String,
    /// `job_…`
    pub job_id: String,
    /// Where it stands.
    pub state: JobState,
    /// Attempts made.
    pub attempt: u32,
    /// When it may run, for the first time or again.
    pub due_at: Instant,
    /// When its last attempt began.
    pub started_at: Option<Instant>,
    /// When it ended.
    pub finished_at: Option<Instant>,
    /// How long its last attempt waited after it was due; `null` before it began.
    pub waited_ms: Option<u64>,
    /// How long its last attempt ran, so far or in all; `null` before it began.
    pub ran_ms: Option<u64>,
}
