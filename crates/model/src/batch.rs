//! Batches: jobs, workflows, tracked jobs and further batches that are watched together. What their counts come to.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::job::JobState;
use crate::tracked::{TrackedState, json_problem, name_problem};
use crate::workflow::WorkflowState;

/// Where a batch stands. Derived from its counts, never kept beside them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum BatchState {
    /// None of its members has ended.
    Pending,
    /// Some have ended; others have not, or may still be added.
    Processing,
    /// All have ended, and none of them badly.
    Completed,
    /// All have ended, and none of them well.
    Failed,
    /// All have ended, some well and some not.
    PartialFailure,
}

impl BatchState {
    /// Every state.
    pub const ALL: [Self; 5] =
        [Self::Pending, Self::Processing, Self::Completed, Self::Failed, Self::PartialFailure];

    /// The name in the store and on the wire.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Pending => "pending",
            Self::Processing => "processing",
            Self::Completed => "completed",
            Self::Failed => "failed",
            Self::PartialFailure => "partial_failure",
        }
    }

    /// The state of this name.
    pub fn of_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|state| state.as_str() == name)
    }

    /// All members have ended.
    pub fn has_ended(self) -> bool {
        !matches!(self, Self::Pending | Self::Processing)
    }
}

impl fmt::Display for BatchState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

/// How a member of a batch ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum MemberEnd {
    /// Well: completed, skipped, or declared settled by an operator.
    Completed,
    /// Badly.
    Failed,
    /// Called off.
    Cancelled,
    /// Made pointless by a newer version.
    Superseded,
}

impl MemberEnd {
    /// Of a job; `None` while it has not ended.
    pub fn of_job(state: JobState) -> Option<Self> {
        match state {
            JobState::Blocked | JobState::Queued | JobState::Running => None,
            JobState::Completed | JobState::Skipped | JobState::Resolved => Some(Self::Completed),
            JobState::Failed => Some(Self::Failed),
            JobState::Cancelled => Some(Self::Cancelled),
            JobState::Superseded => Some(Self::Superseded),
        }
    }

    /// Of a tracked job; `None` while it has not ended.
    pub fn of_tracked(state: TrackedState) -> Option<Self> {
        match state {
            TrackedState::Queued | TrackedState::Processing => None,
            TrackedState::Completed => Some(Self::Completed),
            TrackedState::Failed => Some(Self::Failed),
            TrackedState::Cancelled => Some(Self::Cancelled),
        }
    }

    /// Of a workflow; `None` while it runs.
    pub fn of_workflow(state: WorkflowState) -> Option<Self> {
        match state {
            WorkflowState::Running => None,
            WorkflowState::Completed => Some(Self::Completed),
            WorkflowState::Failed => Some(Self::Failed),
            WorkflowState::Cancelled => Some(Self::Cancelled),
        }
    }

    /// Of a batch within a batch; `None` while it has not ended. One that failed in part has failed.
    pub fn of_batch(state: BatchState) -> Option<Self> {
        match state {
            BatchState::Pending | BatchState::Processing => None,
            BatchState::Completed => Some(Self::Completed),
            BatchState::Failed | BatchState::PartialFailure => Some(Self::Failed),
        }
    }
}

/// How many members a batch has, and how those ended that have; also a difference of two such counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct BatchCounts {
    /// Members, or the total that was announced where that is more.
    pub total: i64,
    /// Ended well.
    pub completed: i64,
    /// Ended badly.
    pub failed: i64,
    /// Called off.
    pub cancelled: i64,
    /// Made pointless by a newer version.
    pub superseded: i64,
}

impl BatchCounts {
    /// Counts a member's move from one end to another; `None` stands for one that has not ended.
    pub fn moved(&mut self, from: Option<MemberEnd>, to: Option<MemberEnd>) {
        for (end, by) in [(from, -1), (to, 1)] {
            match end {
                None => {}
                Some(MemberEnd::Completed) => self.completed += by,
                Some(MemberEnd::Failed) => self.failed += by,
                Some(MemberEnd::Cancelled) => self.cancelled += by,
                Some(MemberEnd::Superseded) => self.superseded += by,
            }
        }
    }

    /// All that have ended.
    pub fn ended(&self) -> i64 {
        self.completed + self.failed + self.cancelled + self.superseded
    }

    /// All that have not.
    pub fn pending(&self) -> i64 {
        self.total - self.ended()
    }

    /// The state that follows. A batch to which members may still be added has not ended, however many of them have. Superseded
    /// members are neither good nor bad.
    pub fn state(&self, is_closed: bool) -> BatchState {
        if !is_closed || self.pending() > 0 {
            return if self.ended() == 0 { BatchState::Pending } else { BatchState::Processing };
        }
        if self.failed + self.cancelled == 0 {
            BatchState::Completed
        } else if self.completed == 0 {
            BatchState::Failed
        } else {
            BatchState::PartialFailure
        }
    }
}

/// At what moment of a batch a job is made.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum BatchMoment {
    /// It has ended, and none of its members badly.
    Success,
    /// It has ended, however.
    Finish,
    /// One of its members failed: the first.
    FirstFailure,
}

impl BatchMoment {
    /// The name in the input of the job that is made.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Success => "success",
            Self::Finish => "finish",
            Self::FirstFailure => "first_failure",
        }
    }

    /// The name of the event that tells of it; see [`BATCH_EVENTS`](crate::event::BATCH_EVENTS).
    pub const fn event(self) -> &'static str {
        match self {
            Self::Success => "batch.success",
            Self::Finish => "batch.finish",
            Self::FirstFailure => "batch.first_failure",
        }
    }
}

/// The job that is made at some moment of a batch.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct BatchCallback {
    /// What does it.
    pub handler: String,
    /// Where it waits.
    pub queue: String,
    /// JSON that it is given, as `input` beside the batch's id, moment, state and counts.
    pub input: String,
}

impl BatchCallback {
    /// A job of this handler in queue `default`, with input `null`.
    pub fn new(handler: impl Into<String>) -> Self {
        Self { handler: handler.into(), queue: "default".to_owned(), input: "null".to_owned() }
    }

    /// What is wrong with it.
    pub fn problems(&self) -> Vec<String> {
        let names =
            [name_problem("callback handler", &self.handler), name_problem("callback queue", &self.queue)];
        names.into_iter().flatten().chain(json_problem("callback input", &self.input)).collect()
    }
}

/// How deep batches may stand in batches.
pub const NESTING_MAX: usize = 8;

#[cfg(test)]
mod tests {
    use super::*;

    fn counts(total: i64, completed: i64, failed: i64, cancelled: i64, superseded: i64) -> BatchCounts {
        BatchCounts { total, completed, failed, cancelled, superseded }
    }

    #[test]
    fn state_follows_from_the_counts() {
        for (counts, is_closed, state) in [
            (counts(0, 0, 0, 0, 0), false, BatchState::Pending),
            (counts(0, 0, 0, 0, 0), true, BatchState::Completed),
            (counts(3, 0, 0, 0, 0), true, BatchState::Pending),
            (counts(3, 1, 0, 0, 0), true, BatchState::Processing),
            (counts(3, 3, 0, 0, 0), false, BatchState::Processing),
            (counts(3, 3, 0, 0, 0), true, BatchState::Completed),
            (counts(3, 2, 0, 0, 1), true, BatchState::Completed),
            (counts(3, 2, 1, 0, 0), true, BatchState::PartialFailure),
            (counts(3, 2, 0, 1, 0), true, BatchState::PartialFailure),
            (counts(3, 0, 2, 1, 0), true, BatchState::Failed),
            (counts(3, 0, 0, 3, 0), true, BatchState::Failed),
        ] {
            assert_eq!(counts.state(is_closed), state, "{counts:?} closed: {is_closed}");
        }
    }

    #[test]
    fn sum_of_all_ends_and_what_is_pending_is_the_total() {
        let ends = [
            None,
            Some(MemberEnd::Completed),
            Some(MemberEnd::Failed),
            Some(MemberEnd::Cancelled),
            Some(MemberEnd::Superseded),
        ];
        for from in ends {
            for to in ends {
                let mut counts = counts(10, 2, 2, 2, 2);
                counts.moved(from, to);
                let ended = counts.completed + counts.failed + counts.cancelled + counts.superseded;
                assert_eq!(ended + counts.pending(), counts.total);
                counts.moved(to, from);
                assert_eq!(counts, self::counts(10, 2, 2, 2, 2));
            }
        }
    }

    #[test]
    fn member_has_ended_exactly_when_its_state_is_terminal() {
        for state in JobState::ALL {
            assert_eq!(MemberEnd::of_job(state).is_some(), state.is_terminal(), "{state}");
        }
        for state in TrackedState::ALL {
            assert_eq!(MemberEnd::of_tracked(state).is_some(), state.is_terminal(), "{state}");
        }
        for state in BatchState::ALL {
            assert_eq!(MemberEnd::of_batch(state).is_some(), state.has_ended(), "{state}");
            assert_eq!(BatchState::of_name(state.as_str()), Some(state));
        }
    }
}
