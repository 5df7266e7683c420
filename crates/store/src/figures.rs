//! Figures over what has run.

use std::fmt::Debug;

use async_trait::async_trait;

use recache_model::figures::{Active, By, Filter, Minute, MinuteTotals, SERIES_MAX};
use recache_model::ids::WorkflowId;
use recache_model::time::Timestamp;

use crate::error::Result;
use crate::maintenance::Leadership;

/// How the steps of a template's earlier workflows fared.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct StepFigures {
    /// How many workflows were looked at: the newest that have ended.
    pub workflows: u64,
    /// Their completed steps, by name.
    pub steps: Vec<StepFigure>,
}

/// Sums over the completed runs of one step, in seconds.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct StepFigure {
    /// Its name.
    pub step: String,
    /// How many runs.
    pub count: u64,
    /// From their last start to their end.
    pub run_sum: f64,
    /// The same, squared.
    pub run_squares: f64,
    /// From when they were last due to that start.
    pub wait_sum: f64,
    /// The same, squared.
    pub wait_squares: f64,
}

/// What is asked about what has run. Nothing here changes anything that a job, a workflow or a view is.
#[async_trait]
pub trait Figures: Send + Sync + Debug {
    /// How the steps of the newest `workflows_max` workflows of a template fared that have ended. Workflows of the version with this
    /// digest come first, then those of the versions stored last. What it costs follows from `workflows_max`, not from
    /// how many workflows there ever were.
    async fn step_figures(
        &self,
        namespace: &str,
        name: &str,
        digest: &str,
        workflows_max: u32,
    ) -> Result<StepFigures>;

    /// A text that is another one as soon as any step of the workflow has changed its state, was put off or was added. It costs one look
    /// at an index, not the steps themselves. Of a workflow that does not exist it is that of one without steps.
    async fn workflow_mark(&self, workflow: WorkflowId) -> Result<String>;

    /// How many workflows of the template with this digest have ended, counted up to `count_max`.
    async fn workflows_ended(&self, digest: &str, count_max: u32) -> Result<u32>;

    /// The last minute that was folded; `None` when none was.
    async fn folded(&self) -> Result<Option<Minute>>;

    /// Folds the next minutes, up to and including `last`, after the one that was folded last; at first
    /// from the first in which anything ended. `again` minutes before them are folded once more, so that what was committed late
    /// is counted too. Where more rows would be counted than `limits` allow, so many fewer minutes are folded, but always
    /// one. Answers the last one that is folded now; `None` when nothing has ever ended.
    async fn fold(
        &self,
        leadership: &Leadership,
        last: Minute,
        again: u32,
        limits: FoldLimits,
    ) -> Result<Option<Minute>>;

    /// Totals of minutes: folded ones where they are folded, others counted now from the rows themselves. Counts at most
    /// [`COUNTED_ROWS_MAX`] rows; beyond that it is unavailable until they are folded. What it holds in memory follows
    /// from how far totals are told apart, and not from how many minutes or rows there are.
    async fn minutes(&self, asked: &MinutesAsked) -> Result<Vec<MinuteTotals>>;

    /// What has not ended, and how much of it was submitted at or after `since`.
    async fn active(&self, filter: &Filter, since: Timestamp) -> Result<Active>;

    /// Removes folded minutes before `first`, at most `rows_max` rows. Answers how many.
    async fn minutes_remove(&self, leadership: &Leadership, first: Minute, rows_max: u32) -> Result<u64>;
}

/// Which totals of minutes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MinutesAsked {
    /// From this minute on.
    pub first: Minute,
    /// Before this one.
    pub end: Minute,
    /// All counted from the rows themselves; nothing that was folded is believed.
    pub exact: bool,
    /// How far they are told apart.
    pub by: By,
    /// Of what.
    pub filter: Filter,
    /// Series that are told apart, in each minute or part.
    pub series_max: usize,
}

impl MinutesAsked {
    /// All from `first` to before `end`.
    pub fn new(first: Minute, end: Minute, by: By) -> Self {
        Self { first, end, exact: false, by, filter: Filter::default(), series_max: SERIES_MAX }
    }
}

/// What one fold takes on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FoldLimits {
    /// Minutes.
    pub minutes: u32,
    /// Rows of jobs and workflows that are counted, where they are more than one minute's.
    pub rows: u64,
    /// Series that are told apart in a minute; what is beyond them is folded under
    /// [`OTHER`](recache_model::figures::OTHER).
    pub series: usize,
}

impl Default for FoldLimits {
    fn default() -> Self {
        Self { minutes: 60, rows: COUNTED_ROWS_MAX, series: SERIES_MAX }
    }
}

/// Rows of jobs and workflows that are counted for one answer, and for one fold of several minutes.
pub const COUNTED_ROWS_MAX: u64 = 2_000_000;
