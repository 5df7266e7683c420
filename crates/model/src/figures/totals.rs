//! What is added up, and by what it is told apart.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::gathered::OTHER;
use super::sketch::Sketch;
use crate::job::JobState;

/// Codes of errors that are counted apart; what is beyond them counts as `other`.
pub const CODES_MAX: usize = 32;

/// The handler of what is the engine's own to do: a step while its next move is the engine's, a build that a workflow does.
pub const ENGINE_HANDLER: &str = "recache.flow";

/// What ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// A workflow.
    Workflow,
    /// A step of one.
    Step,
    /// A job that is no step.
    Job,
}

/// By what totals are told apart; empty where it does not apply.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Series {
    /// What ended.
    pub kind: Kind,
    /// Who it belongs to.
    pub namespace: String,
    /// The name of the workflow's template.
    pub template: String,
    /// The step's name in it.
    pub step: String,
    /// What did it.
    pub handler: String,
    /// Where it waited.
    pub queue: String,
}

impl Series {
    /// The series of those of its kind that were too many to be told apart.
    #[must_use]
    pub fn as_other(&self) -> Self {
        let other = |name: &str| if name.is_empty() { String::new() } else { OTHER.to_owned() };
        Self {
            kind: self.kind,
            namespace: other(&self.namespace),
            template: other(&self.template),
            step: other(&self.step),
            // What the engine does itself is no work of handlers, also where nobody is told apart.
            handler: if self.handler == ENGINE_HANDLER { self.handler.clone() } else { other(&self.handler) },
            queue: other(&self.queue),
        }
    }

    /// Whether it stands for those that were too many to be told apart.
    pub fn is_other(&self) -> bool {
        self.namespace == OTHER
    }

    /// Whether it is work of handlers: steps and jobs, but for what the engine does itself.
    pub fn is_of_handlers(&self) -> bool {
        self.kind != Kind::Workflow && self.handler != ENGINE_HANDLER
    }
}

/// How one thing ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ended {
    /// In which state. Of workflows only `completed`, `failed` and `cancelled`.
    pub state: JobState,
    /// From its submit to its end.
    pub lasted: Duration,
    /// How long its last attempt ran; `None` for workflows, and for what never began.
    pub ran: Option<Duration>,
    /// How long it was due before that attempt began.
    pub waited: Option<Duration>,
    /// The code of its error, or its kind.
    pub code: Option<String>,
}

/// Counts, sums and distributions.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Totals {
    /// Ended well: completed, skipped or resolved.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub completed: u64,
    /// Failed for good.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub failed: u64,
    /// Called off.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub cancelled: u64,
    /// A newer version was wanted.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub superseded: u64,
    /// Durations from submit to end, together, in microseconds.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub lasted_us: u64,
    /// How they are spread.
    #[serde(default, skip_serializing_if = "Sketch::is_empty")]
    pub lasted: Sketch,
    /// Run times of last attempts, together, in microseconds.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub ran_us: u64,
    /// How they are spread.
    #[serde(default, skip_serializing_if = "Sketch::is_empty")]
    pub ran: Sketch,
    /// Waits before them, together, in microseconds.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub waited_us: u64,
    /// How they are spread.
    #[serde(default, skip_serializing_if = "Sketch::is_empty")]
    pub waited: Sketch,
    /// Of failures, how many with which code.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub codes: BTreeMap<String, u64>,
    /// How long it ran where it was on the critical path of a workflow that was looked at, in microseconds.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub critical_us: u64,
    /// How long the critical paths of the workflows were that were looked at and had this step, in microseconds.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub paths_us: u64,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde asks for it so")]
fn is_zero(value: &u64) -> bool {
    *value == 0
}

impl Totals {
    /// Adds one that ended. One that has not ended is not counted.
    pub fn add(&mut self, ended: &Ended) {
        let count = match ended.state {
            JobState::Completed | JobState::Skipped | JobState::Resolved => &mut self.completed,
            JobState::Failed => &mut self.failed,
            JobState::Cancelled => &mut self.cancelled,
            JobState::Superseded => &mut self.superseded,
            JobState::Blocked | JobState::Queued | JobState::Running => return,
        };
        *count = count.saturating_add(1);
        let note = |sum: &mut u64, sketch: &mut Sketch, duration: Duration| {
            *sum = sum.saturating_add(u64::try_from(duration.as_micros()).unwrap_or(u64::MAX));
            sketch.insert(duration);
        };
        note(&mut self.lasted_us, &mut self.lasted, ended.lasted);
        if let Some(ran) = ended.ran {
            note(&mut self.ran_us, &mut self.ran, ran);
        }
        if let Some(waited) = ended.waited {
            note(&mut self.waited_us, &mut self.waited, waited);
        }
        if ended.state == JobState::Failed {
            self.count_code(ended.code.as_deref().unwrap_or("unknown"), 1);
        }
    }

    /// Adds other totals.
    pub fn merge(&mut self, other: &Self) {
        for (mine, theirs) in [
            (&mut self.completed, other.completed),
            (&mut self.failed, other.failed),
            (&mut self.cancelled, other.cancelled),
            (&mut self.superseded, other.superseded),
            (&mut self.lasted_us, other.lasted_us),
            (&mut self.ran_us, other.ran_us),
            (&mut self.waited_us, other.waited_us),
            (&mut self.critical_us, other.critical_us),
            (&mut self.paths_us, other.paths_us),
        ] {
            *mine = mine.saturating_add(theirs);
        }
        self.lasted.merge(&other.lasted);
        self.ran.merge(&other.ran);
        self.waited.merge(&other.waited);
        for (code, count) in &other.codes {
            self.count_code(code, *count);
        }
    }

    /// All that ended.
    pub fn ended(&self) -> u64 {
        self.completed
            .saturating_add(self.failed)
            .saturating_add(self.cancelled)
            .saturating_add(self.superseded)
    }

    /// Those that a handler ran: without what was skipped, called off or completed by hand before it began.
    pub fn executed(&self) -> u64 {
        self.ran.count()
    }

    /// The part of what ended well or failed that failed; `None` where neither did.
    pub fn error_rate(&self) -> Option<f64> {
        let decided = self.completed.saturating_add(self.failed);
        (decided > 0).then(|| super::float(self.failed) / super::float(decided))
    }

    fn count_code(&mut self, code: &str, count: u64) {
        let is_known = self.codes.contains_key(code) || self.codes.len() < CODES_MAX;
        let slot = self.codes.entry(if is_known { code } else { "other" }.to_owned()).or_default();
        *slot = slot.saturating_add(count);
    }
}
