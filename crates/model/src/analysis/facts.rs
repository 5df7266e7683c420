//! What is known of a step before anything is concluded from it.

use std::time::Duration;

use crate::job::JobState;
use crate::time::Timestamp;

/// What is known of a step.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct StepFacts {
    /// Where it stands; `None` in a template, where nothing runs.
    pub state: Option<JobState>,
    /// When its last attempt began.
    pub started_at: Option<Timestamp>,
    /// When it ended.
    pub finished_at: Option<Timestamp>,
    /// When it may run.
    pub due_at: Option<Timestamp>,
    /// Attempts made.
    pub attempt: u32,
    /// Attempts allowed.
    pub attempts_max: u32,
    /// How the same step fared in earlier workflows.
    pub history: Option<StepHistory>,
}

/// How a step fared in workflows that have ended.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct StepHistory {
    /// How often it was measured; at least once.
    pub samples: u64,
    /// How long it ran.
    pub run: Spread,
    /// How long it was due before it began.
    pub wait: Spread,
}

/// A mean and how far single values are from it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Spread {
    /// The mean.
    pub mean: Duration,
    /// The standard deviation.
    pub deviation: Duration,
}

impl Spread {
    /// Always the same.
    pub const fn exactly(mean: Duration) -> Self {
        Self { mean, deviation: Duration::ZERO }
    }

    /// From a count, a sum and a sum of squares, in seconds; `None` for no values, or for sums that no values have.
    pub fn of_sums(count: u64, sum: f64, squares: f64) -> Option<Self> {
        let count = of_count(count);
        if count < 1.0 || !sum.is_finite() || !squares.is_finite() || sum < 0.0 {
            return None;
        }
        let mean = sum / count;
        // Rounding may leave a little less than nothing.
        let deviation = (squares / count - mean * mean).max(0.0).sqrt();
        Some(Self {
            mean: Duration::try_from_secs_f64(mean).ok()?,
            deviation: Duration::try_from_secs_f64(deviation).ok()?,
        })
    }
}

impl StepFacts {
    /// A step of a template of which it is known how long it runs.
    pub fn known(run: Duration) -> Self {
        let history = StepHistory { samples: 1, run: Spread::exactly(run), wait: Spread::default() };
        Self { history: Some(history), ..Self::default() }
    }

    /// It ended such that what depends on it may go on.
    pub(super) fn is_done(&self) -> bool {
        matches!(self.state, Some(JobState::Completed | JobState::Skipped | JobState::Resolved))
    }

    /// It ended such that what depends on it waits until somebody mends it.
    pub(super) fn is_stuck(&self) -> bool {
        matches!(self.state, Some(JobState::Failed | JobState::Cancelled | JobState::Superseded))
    }

    /// How long its last attempt ran, or has been running.
    pub(super) fn ran(&self, now: Timestamp) -> Option<Duration> {
        let started = self.started_at?;
        match (self.state, self.finished_at) {
            (_, Some(finished)) => Some(finished.since(started)),
            (Some(JobState::Running), None) => Some(now.since(started)),
            _ => None,
        }
    }
}

/// A count as a number to reckon with; beyond four thousand millions it is that.
pub(super) fn of_count(count: u64) -> f64 {
    f64::from(u32::try_from(count).unwrap_or(u32::MAX))
}
