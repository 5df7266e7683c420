//! How a step's rows are split into batches.

use super::words::words;

/// How a batchable step's rows are split, and what its workers do about failures.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct BatchConfig {
    /// Rows of one batch; by default 1,000.
    pub batch_size: u32,
    /// Batches that run at once, unless the step's result asks for another number; by default 10.
    pub parallelism: u32,
    /// The most that the step's result may ask for; never below `parallelism`.
    pub max_parallel_batches: Option<u32>,
    /// The field by which rows are ordered and a batch knows where it stands; by default `id`.
    pub cursor_field: String,
    /// The field that tells rows apart; by default `id`.
    pub id_field: String,
    /// The batch worker step that is created for each batch; none where only one depends on the batchable step.
    pub worker_template: Option<String>,
    /// A worker is expected to keep a checkpoint after so many rows; none leaves it to the worker.
    pub checkpoint_interval: Option<u32>,
    /// An attempt without a new checkpoint for so many minutes is taken away from its worker, and made again while attempts are left; none means
    /// never.
    pub checkpoint_stall_minutes: Option<u32>,
    /// What a failed batch means for the others; by default nothing.
    pub failure_strategy: FailureStrategy,
}

impl Default for BatchConfig {
    fn default() -> Self {
        Self {
            batch_size: 1_000,
            parallelism: 10,
            max_parallel_batches: None,
            cursor_field: "id".to_owned(),
            id_field: "id".to_owned(),
            worker_template: None,
            checkpoint_interval: None,
            checkpoint_stall_minutes: None,
            failure_strategy: FailureStrategy::default(),
        }
    }
}

words! {
    /// What a failed batch means for the others.
    #[derive(Default)]
    FailureStrategy {
        /// Nothing: they run, and the convergence sees which ones failed.
        #[default]
        ContinueOnFailure = "continue_on_failure",
        /// The workflow fails with it; the others are cancelled.
        FailFast = "fail_fast",
        /// They run; the convergence waits until somebody has resolved the failed one.
        Isolate = "isolate",
    }
}
