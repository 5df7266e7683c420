//! Changing many jobs by filter, a bounded batch at a time.

use std::fmt::Debug;

use async_trait::async_trait;
use recache_model::job::JobState;

use crate::error::Result;
use crate::letters::BatchDone;
use crate::queues::Word;
use crate::records::JobFilter;

/// What happens to each job that a filter finds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum BulkJobChange {
    /// Jobs that have not ended are cancelled.
    Cancel,
    /// Failed jobs go back to the queue with new attempts.
    Retry,
    /// Jobs that have ended are removed with their history. Steps stay with their workflow, and failed jobs whose dead letter is open stay.
    Delete,
}

impl BulkJobChange {
    /// The states of the jobs that it is about.
    pub fn states(self) -> Vec<JobState> {
        let is_meant = |state: &JobState| match self {
            Self::Cancel => !state.is_terminal(),
            Self::Retry => *state == JobState::Failed,
            Self::Delete => state.is_terminal(),
        };
        JobState::ALL.into_iter().filter(is_meant).collect()
    }
}

/// Jobs by filter. Builds of views are never among them: their views look after them.
#[async_trait]
pub trait BulkJobs: Send + Sync + Debug {
    /// How many jobs a change would be about, counted no further than `filter.rows_max`. Changes nothing.
    async fn jobs_count(&self, filter: JobFilter, change: BulkJobChange) -> Result<u64>;

    /// Changes at most `filter.rows_max` jobs in one transaction, newest first. The next batch goes on before
    /// [`BatchDone::last`].
    async fn jobs_change(&self, filter: JobFilter, change: BulkJobChange, word: Word) -> Result<BatchDone>;
}
