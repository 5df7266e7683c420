//! A workflow's state, derived from the counts of its steps.

use std::fmt;
use std::str::FromStr;

use crate::job::JobState;

/// Where a workflow stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum WorkflowState {
    /// Some step is queued or running.
    Running,
    /// Every step ended well.
    Completed,
    /// A step failed for good and nothing else can go on. Retrying or resolving that step moves it again.
    Failed,
    /// Somebody called it off.
    Cancelled,
}

impl WorkflowState {
    /// The name in the store and on the wire.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Running => "running",
            Self::Completed => "completed",
            Self::Failed => "failed",
            Self::Cancelled => "cancelled",
        }
    }
}

impl fmt::Display for WorkflowState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

/// The text names no workflow state.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is no workflow state: expected running, completed, failed or cancelled")]
pub struct UnknownWorkflowState(String);

impl FromStr for WorkflowState {
    type Err = UnknownWorkflowState;

    fn from_str(text: &str) -> Result<Self, UnknownWorkflowState> {
        [Self::Running, Self::Completed, Self::Failed, Self::Cancelled]
            .into_iter()
            .find(|state| state.as_str() == text)
            .ok_or_else(|| UnknownWorkflowState(text.to_owned()))
    }
}

/// What a step is to the others, as far as moving them by its end needs to know.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum StepKind {
    /// Nothing special.
    #[default]
    Plain,
    /// Its result says which of its dependents are created.
    Decision,
    /// Runs when those of its dependencies that were created are done, however many were skipped.
    Convergence,
    /// One of the runs that another step was split into; a failure holds that one up.
    Child,
    /// Likewise, but a failure only counts as an end.
    TolerantChild,
    /// Likewise, but a failure cancels the other children.
    FailFastChild,
}

impl StepKind {
    /// Every kind.
    pub const ALL: [Self; 6] = [
        Self::Plain,
        Self::Decision,
        Self::Convergence,
        Self::Child,
        Self::TolerantChild,
        Self::FailFastChild,
    ];

    /// The name in the store.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Plain => "plain",
            Self::Decision => "decision",
            Self::Convergence => "convergence",
            Self::Child => "child",
            Self::TolerantChild => "tolerant_child",
            Self::FailFastChild => "fail_fast_child",
        }
    }

    /// The kind of that name.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.as_str() == name)
    }

    /// The state that counts for the workflow: a failure that is tolerated is as good as an end.
    pub fn counted(self, state: JobState) -> JobState {
        if self == Self::TolerantChild && state == JobState::Failed { JobState::Resolved } else { state }
    }
}

/// How many steps are where. Kept by deltas in the transaction that moves a step.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct StepCounts {
    /// Wait for others.
    pub blocked: i64,
    /// Queued or running.
    pub active: i64,
    /// Completed, skipped or resolved.
    pub done: i64,
    /// Failed for good.
    pub failed: i64,
    /// Cancelled or superseded.
    pub cancelled: i64,
}

impl StepCounts {
    /// Counts one step in `state`; `by` is 1 when it enters, -1 when it leaves.
    pub fn add(&mut self, state: JobState, by: i64) {
        let slot = match state {
            JobState::Blocked => &mut self.blocked,
            JobState::Queued | JobState::Running => &mut self.active,
            JobState::Completed | JobState::Skipped | JobState::Resolved => &mut self.done,
            JobState::Failed => &mut self.failed,
            JobState::Cancelled | JobState::Superseded => &mut self.cancelled,
        };
        *slot += by;
    }

    /// What they were before `delta` was added.
    #[must_use]
    pub fn minus(&self, delta: &Self) -> Self {
        Self {
            blocked: self.blocked - delta.blocked,
            active: self.active - delta.active,
            done: self.done - delta.done,
            failed: self.failed - delta.failed,
            cancelled: self.cancelled - delta.cancelled,
        }
    }

    /// All steps.
    pub fn total(&self) -> i64 {
        self.blocked + self.active + self.done + self.failed + self.cancelled
    }

    /// The state that follows. While anything can still go on the workflow runs; a failed step decides before
    /// a cancelled one, because it asks for somebody's attention.
    pub fn state(&self) -> WorkflowState {
        if self.active > 0 {
            WorkflowState::Running
        } else if self.failed > 0 {
            WorkflowState::Failed
        } else if self.cancelled > 0 {
            WorkflowState::Cancelled
        } else if self.blocked > 0 {
            // Nothing is active, failed or cancelled, yet something waits: the counts are between two
            // statements of one transaction. Nobody sees it committed; the store's suite checks that.
            WorkflowState::Running
        } else {
            WorkflowState::Completed
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn workflow_runs_while_a_step_is_active_even_after_a_failure() {
        let counts = StepCounts { active: 1, failed: 1, blocked: 3, ..StepCounts::default() };
        assert_eq!(counts.state(), WorkflowState::Running);
    }

    #[test]
    fn workflow_fails_when_only_steps_behind_a_failure_are_left() {
        let counts = StepCounts { blocked: 3, failed: 1, done: 4, ..StepCounts::default() };
        assert_eq!(counts.state(), WorkflowState::Failed);
    }

    #[test]
    fn workflow_completes_when_every_step_ended_well() {
        let mut counts = StepCounts::default();
        for state in [JobState::Completed, JobState::Skipped, JobState::Resolved] {
            counts.add(state, 1);
        }
        assert_eq!(counts.state(), WorkflowState::Completed);
        assert_eq!(counts.total(), 3);
    }

    #[test]
    fn workflow_without_steps_is_complete() {
        assert_eq!(StepCounts::default().state(), WorkflowState::Completed);
    }
}
