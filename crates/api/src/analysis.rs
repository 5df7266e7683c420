//! What a graph of steps says about time and trouble.

use serde::{Deserialize, Serialize};

use crate::{Instant, JobError, JobState};

/// The analysis of a template's graph, or of a workflow's.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct GraphAnalysis {
    /// [`GraphAnalysis::SCHEMA`]
    pub schema: String,
    /// What it is called.
    pub title: String,
    /// The workflow; `null` for a template.
    pub workflow_id: Option<String>,
    /// When it was looked at.
    pub calculated_at: Instant,
    /// Ended workflows whose steps told how long steps run.
    pub history_workflows: u64,
    /// What lengths are made of.
    pub measure: LengthMeasure,
    /// How many steps there are.
    pub nodes: u64,
    /// How many dependencies there are.
    pub edges: u64,
    /// Names of steps by levels: those of one level do not wait for each other.
    pub levels: Vec<Vec<String>>,
    /// Steps that depend on nothing.
    pub roots: Vec<String>,
    /// Steps on which nothing depends.
    pub leaves: Vec<String>,
    /// Steps that wait for each other in a circle. Always empty: such a template is refused before.
    pub cycles: Vec<Vec<String>>,
    /// The longest way through.
    pub critical_path: CriticalPath,
    /// How much runs at once.
    pub parallelism: Parallelism,
    /// What is held up, and by what.
    pub blocked: BlockedSteps,
    /// Steps that run again, or shall.
    pub retries: Vec<StepRetry>,
    /// When it will be over; `null` where nobody can say.
    pub completion: Option<CompletionEstimate>,
    /// Why nobody can say: `not_running`, `ended`, `stuck` or `nothing_measured`.
    pub no_completion: Option<String>,
    /// Every step, in the order of the template.
    pub steps: Vec<AnalyzedStep>,
}

impl GraphAnalysis {
    /// The name and version of this shape.
    pub const SCHEMA: &'static str = "recache.graph-analysis.v1";
}

/// What lengths are made of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "snake_case")]
pub enum LengthMeasure {
    /// Milliseconds.
    Time,
    /// Nothing is known of how long steps run: each counts as 1000, so that a length is a number of steps by 1000.
    Steps,
}

/// The longest way through.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct CriticalPath {
    /// From the first step to the last.
    pub steps: Vec<String>,
    /// How long they run together.
    pub length_ms: u64,
}

/// How much runs at once.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Parallelism {
    /// Steps of the widest level.
    pub level_width_max: u64,
    /// All steps, one after the other.
    pub work_ms: u64,
    /// Most steps at once, when each begins as early as it can.
    pub possible_max: u64,
    /// Steps at once on average, then.
    pub possible_mean: f64,
    /// Steps that run now.
    pub running: u64,
    /// Most steps that ran at once so far, each by its last attempt.
    pub used_max: u64,
    /// Steps that ran at once on average so far; `null` when none has begun.
    pub used_mean: Option<f64>,
}

/// What is held up, and by what.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct BlockedSteps {
    /// Steps that wait for others.
    pub waiting: u64,
    /// Steps among them below one that failed or was called off.
    pub stuck: u64,
    /// What to mend, the one first that frees most; at most 64.
    pub root_causes: Vec<RootCause>,
    /// How many there are.
    pub root_causes_total: u64,
}

/// A step that ended without being done, and holds others up.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct RootCause {
    /// Its name.
    pub step: String,
    /// Where it stands.
    pub state: Option<JobState>,
    /// Why.
    pub error: Option<JobError>,
    /// Steps that mending this one alone frees.
    pub frees_steps: u64,
    /// How long those run.
    pub frees_work_ms: u64,
    /// Steps that it holds up, alone or with others.
    pub blocks_steps: u64,
    /// The longest chain of steps that it holds up; the first 20 of them.
    pub blocked_chain: Vec<String>,
    /// How many steps that chain has.
    pub blocked_chain_steps: u64,
}

/// A step that is not at its first attempt any more.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct StepRetry {
    /// Its name.
    pub step: String,
    /// Where it stands.
    pub state: Option<JobState>,
    /// Attempts made.
    pub attempt: u32,
    /// Attempts allowed.
    pub attempts_max: u32,
    /// Until its next attempt; `null` when it runs, or has ended.
    pub due_in_ms: Option<u64>,
    /// Why the last attempt failed.
    pub error: Option<JobError>,
}

/// How long until all is done, if no attempt fails and workers are there.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct CompletionEstimate {
    /// The mean.
    pub remaining_ms: u64,
    /// Where the interval begins that holds the end with probability `confidence`.
    pub remaining_low_ms: u64,
    /// Where it ends.
    pub remaining_high_ms: u64,
    /// As a fraction.
    pub confidence: f64,
    /// Steps that are left of which nothing is known.
    pub steps_assumed: u64,
}

/// A step's place in time, as if every step began when the last one that it waits for ended.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct AnalyzedStep {
    /// Its name.
    pub name: String,
    /// Where it stands; `null` in a template.
    pub state: Option<JobState>,
    /// From 1.
    pub level: u64,
    /// The names of the steps that it waits for.
    pub waits_for: Vec<String>,
    /// How long it runs.
    pub duration_ms: u64,
    /// From where that is known.
    pub duration_basis: DurationBasis,
    /// When it can begin, from the beginning of all.
    pub earliest_start_ms: u64,
    /// How much later it may begin and nothing ends later.
    pub slack_ms: u64,
    /// It is on the critical path.
    pub is_critical: bool,
}

/// From where a step's duration is known.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "snake_case")]
pub enum DurationBasis {
    /// It has ended, and ran so long.
    Measured,
    /// It has been running for so long, which is longer than it used to.
    Elapsed,
    /// It ran so long in earlier workflows, on average.
    History,
    /// Nothing is known of it: the average of those that are known.
    Assumed,
    /// Nothing is known of any step.
    Counted,
}
