//! Events that a workflow tells the world.

use super::json_schema::JsonSchema;
use super::words::words;

/// An event that the template's steps may publish.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct DomainEvent {
    /// Unique within the template.
    pub name: String,
    /// For people.
    pub description: Option<String>,
    /// What its payload must fit, unless the step that publishes it has a schema of its own.
    pub schema: Option<JsonSchema>,
}

/// An event that a step publishes at its end.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct PublishedEvent {
    /// Unique within the step.
    pub name: String,
    /// For people.
    pub description: Option<String>,
    /// At which end; by default success.
    pub condition: EventCondition,
    /// What its payload must fit.
    pub schema: Option<JsonSchema>,
    /// How it travels; by default durably.
    pub delivery_mode: DeliveryMode,
    /// The registered publisher that makes its payload; none means the step's result is the payload.
    pub publisher: Option<String>,
}

words! {
    /// The end of a step at which an event is published.
    #[derive(Default)]
    EventCondition {
        /// It completed.
        #[default]
        Success = "success",
        /// It failed for good, for whatever reason.
        Failure = "failure",
        /// An attempt failed and another one follows.
        RetryableFailure = "retryable_failure",
        /// It failed with an error that no retry mends.
        PermanentFailure = "permanent_failure",
        /// At every end.
        Always = "always",
    }
}

words! {
    /// How an event travels.
    #[derive(Default)]
    DeliveryMode {
        /// Stored with the step's outcome; delivered at least once.
        #[default]
        Durable = "durable",
        /// To subscribers of this process, at most once.
        Fast = "fast",
        /// Both: at once to those of this process, durably to all.
        Broadcast = "broadcast",
    }
}
