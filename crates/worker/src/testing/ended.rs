//! How an attempt ended.

use std::collections::BTreeMap;
use std::time::Duration;

use serde_json::Value;

use super::job::{Build, Existing, TestJob};
use super::reported::Reported;
use super::running::Done;
use crate::build::BuildSummary;
use crate::failure::Failure;
use crate::stop::Stop;

/// What becomes of the job.
#[derive(Debug, Clone, PartialEq)]
pub enum Settlement {
    /// It has its result.
    Completed(Value),
    /// The next generation of its view is whole.
    Built(Built),
    /// The attempt failed, and another one follows.
    Retrying {
        /// A stable word for programs; `panic` for one.
        code: Option<String>,
        /// What happened.
        message: String,
        /// How long the other side asked to wait; without it the job's policy says.
        after: Option<Duration>,
    },
    /// It failed for good: by its kind of failure, or because no attempt is left.
    Failed {
        /// A stable word for programs.
        code: Option<String>,
        /// What happened.
        message: String,
    },
    /// It comes back later, and the attempt does not count.
    Snoozed {
        /// After this long.
        after: Duration,
    },
    /// It was stopped, for this reason.
    Stopped(Stop),
}

/// A generation of a view.
#[derive(Debug, Clone, PartialEq)]
pub struct Built {
    /// What the build did.
    pub summary: BuildSummary,
    /// The items that readers see when it is published: put, taken over, kept.
    pub items: BTreeMap<String, Value>,
}

/// How an attempt ended, and what was reported meanwhile.
#[derive(Debug, Clone)]
pub struct Ended {
    /// What becomes of the job.
    pub settlement: Settlement,
    /// Everything that the handler said.
    pub reported: Reported,
    pub(super) job: TestJob,
}

impl Ended {
    /// The result, if there is one.
    pub fn output(&self) -> Option<&Value> {
        match &self.settlement {
            Settlement::Completed(output) => Some(output),
            _ => None,
        }
    }

    /// The failure's code, if it failed, for now or for good, and has one.
    pub fn code(&self) -> Option<&str> {
        match &self.settlement {
            Settlement::Retrying { code, .. } | Settlement::Failed { code, .. } => code.as_deref(),
            _ => None,
        }
    }

    /// The job as the next attempt finds it: with the last checkpoint of this one, and the items that it put for the taking. `None`: the job has
    /// ended. It begins anew whatever was to stop this one.
    pub fn next_attempt(&self) -> Option<TestJob> {
        let counts = match self.settlement {
            Settlement::Retrying { .. } => true,
            Settlement::Stopped(Stop::Timeout | Stop::LeaseLost) => {
                if self.job.facts.attempt >= self.job.facts.attempts_max {
                    return None;
                }
                true
            }
            // A newer version is built by the same job.
            Settlement::Snoozed { .. } | Settlement::Stopped(Stop::Shutdown | Stop::Superseded) => false,
            Settlement::Completed(_)
            | Settlement::Built(_)
            | Settlement::Failed { .. }
            | Settlement::Stopped(Stop::Cancelled) => return None,
        };
        let mut job = TestJob { stops: Vec::new(), unreachable: None, ..self.job.clone() };
        if counts {
            job = job.attempt(self.job.facts.attempt + 1, self.job.facts.attempts_max);
        }
        if let Some(checkpoint) = self.reported.checkpoints.last() {
            job.facts.checkpoint = Some(checkpoint.to_string());
        }
        if let Some(build) = &mut job.build {
            stage(build, &self.reported);
            if self.settlement == Settlement::Stopped(Stop::Superseded) {
                build.version += 1;
            }
        }
        Some(job)
    }
}

/// What was put can be taken over by the next build.
fn stage(build: &mut Build, reported: &Reported) {
    for put in &reported.items {
        if let Some(value) = &put.value {
            let existing = Existing { fingerprint: put.fingerprint.clone(), value: value.clone() };
            build.staged.insert(put.item.clone(), existing);
        }
    }
}

impl Settlement {
    /// As whoever keeps the job judges.
    pub(super) fn of(
        job: &TestJob,
        result: Result<Done, Failure>,
        stopped: Option<Stop>,
        reported: &Reported,
    ) -> Self {
        let may_retry = job.facts.attempt < job.facts.attempts_max;
        match result {
            Ok(Done::Result(output)) => Self::Completed(output),
            Ok(Done::Built(summary)) => {
                let items = job.build.as_ref().map(|build| generation(build, &summary, reported));
                Self::Built(Built { summary, items: items.unwrap_or_default() })
            }
            Err(Failure::Snooze { after }) => Self::Snoozed { after },
            Err(Failure::Retryable { code, message, after }) if may_retry => {
                Self::Retrying { code, message, after }
            }
            Err(Failure::Retryable { code, message, .. }) => Self::Failed { code, message },
            Err(Failure::Permanent { code, message }) => Self::Failed { code: Some(code), message },
            Err(Failure::Stopped(_)) => {
                if let Some(why) = stopped {
                    return Self::Stopped(why);
                }
                let message = "the handler stopped, and nobody had asked it to".to_owned();
                if may_retry {
                    Self::Retrying { code: None, message, after: None }
                } else {
                    Self::Failed { code: None, message }
                }
            }
        }
    }
}

/// What readers see of a build that is whole.
fn generation(build: &Build, summary: &BuildSummary, reported: &Reported) -> BTreeMap<String, Value> {
    let mut items: BTreeMap<String, Value> = build
        .live
        .iter()
        .filter(|(item, _)| !summary.removed.contains(item))
        .map(|(item, existing)| (item.clone(), existing.value.clone()))
        .collect();
    for put in &reported.items {
        let staged = || build.staged.get(&put.item).map(|existing| existing.value.clone());
        if let Some(value) = put.value.clone().or_else(staged) {
            items.insert(put.item.clone(), value);
        }
    }
    items
}
