//! How work went, what is slow and what fails.

use serde::{Deserialize, Serialize};

use crate::Instant;

/// How work went in a window.
///
/// A *task* is a workflow or a job that is no step of one; a *step* is anything that a handler ran: a step of a
/// workflow, or such a job, without what ended before it began and what the engine does itself. Rates are fractions
/// from 0 to 1 and `null` where nothing ended. Means are exact; quantiles are off by at most 1 %.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct PerformanceReport {
    /// [`PerformanceReport::SCHEMA`]
    pub schema: String,
    /// How long the window is, but for the up to 60 seconds by which it begins earlier: at a full minute.
    pub hours: u32,
    /// Where it begins: at a full minute.
    pub analysis_period_start: Instant,
    /// Where it ends, and when this was calculated.
    pub calculated_at: Instant,
    /// Tasks that ended in the window, and those that have not ended.
    pub total_tasks: u64,
    /// Tasks that have not ended, whenever they were submitted.
    pub active_tasks: u64,
    /// Those of them that were submitted in the window.
    #[serde(default)]
    pub active_tasks_submitted: u64,
    /// Tasks that ended well in the window.
    pub completed_tasks: u64,
    /// Tasks that failed.
    pub failed_tasks: u64,
    /// Tasks that were called off.
    pub cancelled_tasks: u64,
    /// Tasks that a newer version made pointless.
    pub superseded_tasks: u64,
    /// Of the tasks that ended in the window, the fraction that ended well.
    pub completion_rate: Option<f64>,
    /// Of all tasks, those that have not ended too, the fraction that ended well.
    pub completion_rate_of_total: Option<f64>,
    /// Of the tasks that ended in the window, the fraction that failed.
    pub error_rate: Option<f64>,
    /// Mean of `task_duration_seconds`.
    pub average_task_duration_seconds: Option<f64>,
    /// Mean of `step_duration_seconds`.
    pub average_step_duration_seconds: Option<f64>,
    /// Tasks that ended in the window and `active_tasks_submitted`, by its hours.
    pub tasks_per_hour: f64,
    /// Tasks that ended in the window, by its hours.
    pub tasks_ended_per_hour: f64,
    /// Steps that ended in the window, by its hours.
    pub steps_per_hour: f64,
    /// From 0, bad, to 1: the weighed mean of `health_parts`.
    pub system_health_score: Option<f64>,
    /// What it is made of.
    pub health_parts: Vec<HealthScorePart>,
    /// From submit to end, of tasks.
    pub task_duration_seconds: DurationSpread,
    /// From the start of the last attempt to the end, of steps.
    pub step_duration_seconds: DurationSpread,
    /// From when that attempt was due to its start.
    pub queue_wait_seconds: DurationSpread,
    /// The window in 24 parts.
    pub trend: Vec<TrendBucket>,
}

impl PerformanceReport {
    /// The name and version of this shape.
    pub const SCHEMA: &'static str = "recache.performance.v1";
}

/// Mean and quantiles, in seconds; `null` where nothing was measured.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct DurationSpread {
    /// How many were measured.
    pub count: u64,
    /// All of them together.
    #[serde(default)]
    pub sum: f64,
    /// The mean.
    pub mean: Option<f64>,
    /// Half of them are no longer.
    pub p50: Option<f64>,
    /// Nine in ten are no longer.
    pub p90: Option<f64>,
    /// 99 in a hundred are no longer.
    pub p99: Option<f64>,
}

/// A part of a health score.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct HealthScorePart {
    /// What it is about.
    pub name: String,
    /// From 0, bad, to 1: `good` by `whole`, and 1 where that is 0.
    pub score: f64,
    /// What part of the whole it makes.
    pub weight: f64,
    /// Tasks or steps that ended well, or the seconds that nine in ten steps run at most.
    #[serde(default)]
    pub good: f64,
    /// Those, and those that failed, or the seconds that nine in ten wait at most.
    #[serde(default)]
    pub whole: f64,
}

/// A part of a window.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct TrendBucket {
    /// Where it begins.
    pub start: Instant,
    /// Tasks that ended well.
    pub completed_tasks: u64,
    /// Tasks that failed.
    pub failed_tasks: u64,
    /// Steps that ended.
    pub steps: u64,
}

/// What is slow and what fails in a window. Each list is ordered by how bad it is.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct BottleneckReport {
    /// [`BottleneckReport::SCHEMA`]
    pub schema: String,
    /// How long the window is.
    pub hours: u32,
    /// Where it begins.
    pub analysis_period_start: Instant,
    /// Where it ends, and when this was calculated.
    pub calculated_at: Instant,
    /// Entries that each list has at most.
    pub limit: u32,
    /// What ended less often is in no list.
    pub min_executions: u64,
    /// Steps that ran and ended in the window; 0 means that there is nothing to say.
    pub executions: u64,
    /// By mean run time.
    pub slowest_steps_by_run: Vec<SlowStepEntry>,
    /// By mean wait.
    pub slowest_steps_by_wait: Vec<SlowStepEntry>,
    /// By their part of their workflows' critical paths.
    pub slowest_steps_by_critical_share: Vec<SlowStepEntry>,
    /// By mean duration.
    pub slowest_workflows: Vec<SlowWorkflowEntry>,
    /// By number.
    pub error_hot_spots: Vec<ErrorHotSpot>,
    /// By the time of workers that they take.
    #[serde(default)]
    pub resource_use: Vec<ResourceUseEntry>,
    /// Only what figures here speak for.
    pub recommendations: Vec<RecommendationEntry>,
}

impl BottleneckReport {
    /// The name and version of this shape.
    pub const SCHEMA: &'static str = "recache.bottlenecks.v1";
}

/// A step, or a job that is none, and how long it takes.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct SlowStepEntry {
    /// Who it belongs to.
    pub namespace: String,
    /// The name of its workflow's template; `null` for a job that is no step.
    pub template: Option<String>,
    /// Its name there.
    pub step: Option<String>,
    /// What does it.
    pub handler: String,
    /// How often it ran, and ended.
    pub executions: u64,
    /// Of those that ended well or failed, the fraction that failed.
    pub error_rate: Option<f64>,
    /// How long its last attempts ran.
    pub run_seconds: DurationSpread,
    /// How long they were due before.
    pub wait_seconds: DurationSpread,
    /// What part it makes of the critical paths of its workflows: of the first 20 that completed in each minute.
    pub critical_share: Option<f64>,
}

/// A template and how long its workflows take.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct SlowWorkflowEntry {
    /// Who it belongs to.
    pub namespace: String,
    /// Its name.
    pub template: String,
    /// How many ended.
    pub executions: u64,
    /// Of those that ended well or failed, the fraction that failed.
    pub error_rate: Option<f64>,
    /// From submit to end.
    pub duration_seconds: DurationSpread,
}

/// A code with which something fails.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct ErrorHotSpot {
    /// Who it belongs to.
    pub namespace: String,
    /// What fails.
    pub handler: String,
    /// With which code, or which kind of error where it has no code.
    pub code: String,
    /// How often.
    pub failures: u64,
    /// What part of all that this handler ended.
    pub share: f64,
}

/// A handler and how much of the workers' time it takes.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct ResourceUseEntry {
    /// Who it belongs to.
    pub namespace: String,
    /// What takes it.
    pub handler: String,
    /// How often it ran, and ended.
    pub executions: u64,
    /// How long its last attempts ran, together.
    pub busy_seconds: f64,
    /// What part that is of all that ran in the window.
    pub share: f64,
    /// How many of them ran at once on average: `busy_seconds` by the length of the window.
    pub running_mean: f64,
}

/// What to do, and why.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct RecommendationEntry {
    /// `add_workers`, `shorten_step` or `fix_error`.
    pub kind: String,
    /// What is meant.
    pub subject: String,
    /// What was measured.
    pub evidence: String,
}

/// Where a figure comes from.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct FigureExplanation {
    /// [`FigureExplanation::SCHEMA`]
    pub schema: String,
    /// The field's name.
    pub figure: String,
    /// How it is calculated.
    pub formula: String,
    /// From what.
    pub source: String,
    /// What it is, from roll-ups and what was counted since.
    pub value: Option<f64>,
    /// What it is when all is counted from the rows of jobs and workflows themselves.
    pub exact_value: Option<f64>,
    /// The numbers that the formula names.
    pub inputs: Vec<FigureInput>,
}

impl FigureExplanation {
    /// The name and version of this shape.
    pub const SCHEMA: &'static str = "recache.figure.v1";
}

/// A number that a formula names.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct FigureInput {
    /// Its name.
    pub name: String,
    /// From roll-ups.
    pub value: Option<f64>,
    /// Counted from rows.
    pub exact_value: Option<f64>,
}
