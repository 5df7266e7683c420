//! What decides when, how often and in whose stead a step runs.

use std::time::Duration;

use semver::VersionReq;

use super::expression::Expression;
use super::words::words;

/// A step that runs once for each element of a list.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct ForEach {
    /// Gives the list. Each child sees its element as `item` and its place, from 0, as `index`.
    pub items: Expression,
    /// A longer list fails the step; by default 1,000.
    pub limit: u32,
}

/// How many runs that have a key in common may run at once, in the whole namespace.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct ConcurrencyKey {
    /// Gives the key: text or a number.
    pub key: Expression,
    /// How many may run at once; by default 1.
    pub limit: u32,
}

/// How often a step may be started, in the whole namespace.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct RateLimit {
    /// Starts in each period.
    pub limit: u32,
    /// The period, in whole milliseconds; by default a second.
    pub per: Duration,
    /// Gives the key that has the rate to itself; none means that all runs of the step share it.
    pub key: Option<Expression>,
}

/// What a step waits for, after its dependencies and before its handler.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct WaitFor {
    /// What it is.
    pub awaited: Awaited,
    /// How long it may take; none means as long as it likes.
    pub timeout: Option<Duration>,
    /// What happens when it did not come; by default the step fails.
    pub on_timeout: OnTimeout,
}

/// What a step can wait for.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Awaited {
    /// A signal of this name, sent by another system.
    Signal(String),
    /// An approval of this name, given by a person.
    Approval(String),
}

impl Awaited {
    /// Its name.
    pub fn name(&self) -> &str {
        match self {
            Self::Signal(name) | Self::Approval(name) => name,
        }
    }

    /// Whether a person gives it.
    pub fn is_approval(&self) -> bool {
        matches!(self, Self::Approval(_))
    }
}

words! {
    /// What happens when what a step waits for did not come in time.
    #[derive(Default)]
    OnTimeout {
        /// The step fails.
        #[default]
        Fail = "fail",
        /// It is skipped.
        Skip = "skip",
        /// It runs all the same.
        Proceed = "proceed",
    }
}

/// A workflow that does a step, in place of a handler.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct SubWorkflow {
    /// Name of its template.
    pub name: String,
    /// The template's namespace; none means that of this one.
    pub namespace: Option<String>,
    /// Which versions will do, the newest of them is taken; none means any.
    pub version: Option<VersionReq>,
    /// Gives its input; none means that of this workflow.
    pub input: Option<Expression>,
}

/// When an earlier result of a step serves instead of a run.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct CacheReuse {
    /// What the result depends on: the same values, the same result. At least one.
    pub inputs: Vec<Expression>,
    /// How long a result serves, in whole milliseconds; by default a day.
    pub ttl: Duration,
}
