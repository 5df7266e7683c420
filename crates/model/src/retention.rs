//! How long what has ended is kept.

use std::time::Duration;

use crate::job::JobState;
use crate::tracked::TrackedState;
use crate::workflow::WorkflowState;

const DAY: Duration = Duration::from_hours(24);

/// How long after its end something is removed, with its history. A failed job whose dead letter is open stays until
/// somebody has dealt with it, however long that takes; a step stays as long as its workflow.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Retention {
    /// Completed, cancelled, superseded and skipped jobs; completed and cancelled workflows. Default 7 days.
    pub done: Duration,
    /// Failed and resolved jobs, failed workflows, and dead letters after they were dealt with. Default 30 days.
    pub failed: Duration,
}

impl Default for Retention {
    fn default() -> Self {
        Self { done: 7 * DAY, failed: 30 * DAY }
    }
}

impl Retention {
    /// How long a job in this state is kept; `None`: it has not ended.
    pub fn of_job(&self, state: JobState) -> Option<Duration> {
        match state {
            JobState::Blocked | JobState::Queued | JobState::Running => None,
            JobState::Completed | JobState::Cancelled | JobState::Superseded | JobState::Skipped => {
                Some(self.done)
            }
            JobState::Failed | JobState::Resolved => Some(self.failed),
        }
    }

    /// How long a tracked job in this state is kept; `None`: it has not ended.
    pub fn of_tracked(&self, state: TrackedState) -> Option<Duration> {
        match state {
            TrackedState::Queued | TrackedState::Processing => None,
            TrackedState::Completed | TrackedState::Cancelled => Some(self.done),
            TrackedState::Failed => Some(self.failed),
        }
    }

    /// How long a workflow in this state is kept; `None`: it has not ended.
    pub fn of_workflow(&self, state: WorkflowState) -> Option<Duration> {
        match state {
            WorkflowState::Running => None,
            WorkflowState::Completed | WorkflowState::Cancelled => Some(self.done),
            WorkflowState::Failed => Some(self.failed),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_has_ended_is_ever_removed() {
        let retention = Retention::default();
        for state in JobState::ALL {
            assert_eq!(retention.of_job(state).is_some(), state.is_terminal(), "{state}");
        }
        for state in TrackedState::ALL {
            assert_eq!(retention.of_tracked(state).is_some(), state.is_terminal(), "{state}");
        }
        assert_eq!(retention.of_workflow(WorkflowState::Running), None);
    }

    #[test]
    fn what_failed_is_kept_longer() {
        let retention = Retention::default();
        assert!(retention.of_job(JobState::Failed) > retention.of_job(JobState::Completed));
        assert!(
            retention.of_workflow(WorkflowState::Failed) > retention.of_workflow(WorkflowState::Cancelled)
        );
    }
}
