//! One step of a template, and the policy by which it is tried again.

use std::time::Duration;

use serde_json::{Map, Value};

use super::batch::BatchConfig;
use super::events::PublishedEvent;
use super::expression::Expression;
use super::flow::{CacheReuse, ConcurrencyKey, ForEach, RateLimit, SubWorkflow, WaitFor};
use super::json_schema::JsonSchema;
use super::lifecycle::Lifecycle;
use super::words::words;
use crate::retry::{Backoff, RetryPolicy};

/// One step of a template.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct Step {
    /// Unique within the template.
    pub name: String,
    /// For people.
    pub description: Option<String>,
    /// What kind of step it is.
    pub step_type: StepType,
    /// The code that does it; none only for a step that is a sub-workflow or does nothing but wait.
    pub handler: Option<Handler>,
    /// The system that it works with, for people.
    pub system_dependency: Option<String>,
    /// Names of the steps that must be done before, in the order in which those are declared.
    pub dependencies: Vec<String>,
    /// What happens after a failure.
    pub retry: RetrySpec,
    /// How long one attempt may run, in whole milliseconds; none leaves it to whoever runs it.
    pub timeout: Option<Duration>,
    /// The queue that its job goes to; none leaves it to whoever runs it.
    pub queue: Option<String>,
    /// Larger is more urgent; from -100 to 100, by default 0.
    pub priority: i32,
    /// Events that tell of its end.
    pub publishes_events: Vec<PublishedEvent>,
    /// How its rows are split into batches.
    pub batch_config: Option<BatchConfig>,
    /// What its result must fit.
    pub result_schema: Option<JsonSchema>,
    /// How long it may take over its phases.
    pub lifecycle: Option<Lifecycle>,
    /// Whether it runs at all; otherwise it is skipped.
    pub when: Option<Expression>,
    /// Runs once for each of these.
    pub for_each: Option<ForEach>,
    /// How many runs that have a key in common may run at once.
    pub concurrency_key: Option<ConcurrencyKey>,
    /// How often it may be started.
    pub rate_limit: Option<RateLimit>,
    /// What it waits for, after its dependencies and before its handler.
    pub wait_for: Option<WaitFor>,
    /// The workflow that does it, in place of a handler.
    pub workflow: Option<SubWorkflow>,
    /// When an earlier result serves instead of a run.
    pub cache: Option<CacheReuse>,
}

words! {
    /// What kind of step it is.
    #[derive(Default)]
    #[non_exhaustive]
    StepType {
        /// Runs once when its dependencies are done.
        #[default]
        Standard = "standard",
        /// Its result names which of the steps that depend on it are created.
        Decision = "decision",
        /// Runs when those of its dependencies that were created are done.
        DeferredConvergence = "deferred_convergence",
        /// Its result says how rows are split into batches.
        Batchable = "batchable",
        /// Created once for each batch.
        BatchWorker = "batch_worker",
    }
}

/// The code that does a step.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct Handler {
    /// The name under which the handler is registered.
    pub callable: String,
    /// Which of the handler's methods is called; none means its main one.
    pub method: Option<String>,
    /// Who finds the handler by its name; none leaves it to whoever runs it.
    pub resolver: Option<String>,
    /// Handed to the handler; by default empty.
    pub initialization: Map<String, Value>,
}

impl Handler {
    /// Under which name its jobs are given to workers: the callable itself; `order.*` where the resolver `prefix` shall find whoever does all
    /// that begins with `order.`; `@name` where a resolver of that name shall find the handler. `None`: a callable without a dot has no
    /// prefix.
    pub fn claimed_as(&self) -> Option<String> {
        match self.resolver.as_deref() {
            None | Some("exact") => Some(self.callable.clone()),
            Some("prefix") => Some(format!("{}.*", self.callable.rsplit_once('.')?.0)),
            Some(resolver) => Some(format!("@{resolver}")),
        }
    }

    /// Whether it is more than a name: a worker must be told the rest.
    pub fn is_more_than_a_name(&self) -> bool {
        self.method.is_some() || !matches!(self.resolver.as_deref(), None | Some("exact"))
    }
}

/// How a failed attempt is followed by another.
#[derive(Debug, Clone, PartialEq)]
pub struct RetrySpec {
    /// Whether a failure may be retried at all; by default true.
    pub retryable: bool,
    /// How often the step is tried in all, at least once; by default 3.
    pub max_attempts: u32,
    /// How delays grow; by default exponentially.
    pub backoff: BackoffSpec,
    /// The first delay, in milliseconds; by default 1,000.
    pub backoff_base_ms: u64,
    /// The longest delay, in milliseconds, never below the first; by default 300,000.
    pub max_backoff_ms: u64,
    /// Which part of a delay is left to chance, from 0 to 1; by default 0.1.
    pub jitter: f64,
}

impl Default for RetrySpec {
    fn default() -> Self {
        Self {
            retryable: true,
            max_attempts: 3,
            backoff: BackoffSpec::Exponential,
            backoff_base_ms: 1_000,
            max_backoff_ms: 300_000,
            jitter: 0.1,
        }
    }
}

impl RetrySpec {
    /// The policy that a job keeps.
    pub fn policy(&self) -> RetryPolicy {
        RetryPolicy {
            attempts_max: if self.retryable { self.max_attempts.max(1) } else { 1 },
            backoff: match self.backoff {
                BackoffSpec::None => Backoff::None,
                BackoffSpec::Linear => Backoff::Linear,
                BackoffSpec::Exponential => Backoff::Exponential,
                BackoffSpec::Fibonacci => Backoff::Fibonacci,
            },
            base_ms: self.backoff_base_ms,
            cap_ms: self.max_backoff_ms,
            jitter: self.jitter,
        }
    }
}

words! {
    /// How the delay grows from attempt to attempt.
    BackoffSpec {
        /// No delay.
        None = "none",
        /// By the base each time.
        Linear = "linear",
        /// Doubles each time.
        Exponential = "exponential",
        /// By the Fibonacci numbers times the base.
        Fibonacci = "fibonacci",
    }
}
