//! Figures over what has run.

use std::fmt::Debug;

use async_trait::async_trait;

use crate::error::Result;

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
}
