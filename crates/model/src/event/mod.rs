//! Events: what the end of a step tells the world, what a payload must be, and who is told.
//!
//! A step's event is decided in the transaction that ends the step ([`at_end`]), whoever ends it: its worker, the sweep that
//! takes it from a dead one, an operator. Its payload is the step's result, or the error of a failed end ([`payload`]), or what a
//! publisher makes of these afterwards; one that is too large or does not fit its schema is kept with the reason and told to
//! nobody ([`checked`]).

mod delivery;
mod draft;
mod filter;

use std::time::Duration;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::job::{ErrorKind, JobError, JobState};
use crate::template::{DeliveryMode, EventCondition, JsonSchema, PublishedEvent};

pub use delivery::{
    AfterTry, Answered, DELIVERY_AGE_MAX, DeliveryState, UnknownDeliveryState, after_answer, delivery_policy,
    rest_after,
};
pub use draft::{PUBLISHER_TIMEOUT, PUBLISHER_WAIT, publisher_policy};
pub use filter::{
    BATCH_EVENTS, EventFilter, FilterProblem, NAMES_RESERVED, STATE_CHANGES, TYPES_MAX, is_reserved,
    state_changes_of,
};

/// Largest payload, in bytes of JSON.
pub const PAYLOAD_BYTES_MAX: usize = 64 * 1024;
/// Longest reason that is kept for a payload that was refused, in bytes.
const PROBLEM_BYTES_MAX: usize = 2 * 1024;

/// An event that a step publishes, as it is kept with its job: what the template says, resolved.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct StepEvent {
    /// What happened.
    pub name: String,
    /// At which end.
    pub at: At,
    /// What the payload must fit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub schema: Option<Value>,
    /// Kept, and told to every subscriber.
    pub durable: bool,
    /// Told at once to whoever listens in the process that ended the step, or that made its payload.
    pub live: bool,
    /// Which publisher makes its payload; `None`: the result, or the error, is the payload.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub publisher: Option<String>,
}

/// At which end of a step an event is published.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum At {
    /// It completed.
    Success,
    /// It failed for good.
    Failure,
    /// An attempt failed and another one follows.
    RetryableFailure,
    /// It failed for good, with an error that no retry mends.
    PermanentFailure,
    /// At every one of these.
    Always,
}

impl StepEvent {
    /// From what a template says; `schema` is the step's own or else the one that the template declares under this name.
    pub fn new(event: &PublishedEvent, schema: Option<&JsonSchema>) -> Self {
        let mode = event.delivery_mode;
        Self {
            name: event.name.clone(),
            at: match event.condition {
                EventCondition::Success => At::Success,
                EventCondition::Failure => At::Failure,
                EventCondition::RetryableFailure => At::RetryableFailure,
                EventCondition::PermanentFailure => At::PermanentFailure,
                EventCondition::Always => At::Always,
            },
            schema: schema.map(|schema| schema.source().clone()),
            durable: mode != DeliveryMode::Fast,
            live: mode != DeliveryMode::Durable,
            publisher: event.publisher.clone(),
        }
    }

    /// What one run of a step that is split publishes of `events`: its failures. The step publishes its success as a whole.
    pub fn of_run(events: Vec<Self>) -> Vec<Self> {
        let mut kept = Vec::with_capacity(events.len());
        for event in events {
            match event.at {
                At::Success => {}
                At::Failure | At::RetryableFailure | At::PermanentFailure => kept.push(event),
                At::Always => {
                    kept.push(Self { at: At::RetryableFailure, ..event.clone() });
                    kept.push(Self { at: At::Failure, ..event });
                }
            }
        }
        kept
    }
}

/// How an attempt of a step ended, as far as events are concerned.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StepEnd {
    /// The step completed.
    Completed,
    /// The attempt failed; another one follows.
    Retrying,
    /// The step failed for good.
    Failed(ErrorKind),
}

impl StepEnd {
    /// What a move of a step's job means. Cancelling, skipping and resolving are no ends of its own; neither is a job that
    /// is handed back or put off without an error.
    pub fn of(from: JobState, to: JobState, error: Option<&JobError>) -> Option<Self> {
        match (from, to, error) {
            (_, JobState::Completed, _) => Some(Self::Completed),
            (JobState::Running, JobState::Queued, Some(_)) => Some(Self::Retrying),
            (_, JobState::Failed, error) => {
                Some(Self::Failed(error.map_or(ErrorKind::Permanent, |error| error.kind)))
            }
            _ => None,
        }
    }

    /// The word for it on the wire.
    pub const fn word(self) -> &'static str {
        match self {
            Self::Completed => "completed",
            Self::Retrying => "retrying",
            Self::Failed(_) => "failed",
        }
    }
}

/// Those of the declared events that this end publishes, in their order.
pub fn at_end(declared: &[StepEvent], end: StepEnd) -> impl Iterator<Item = &StepEvent> {
    declared.iter().filter(move |event| match event.at {
        At::Always => true,
        At::Success => end == StepEnd::Completed,
        At::Failure => matches!(end, StepEnd::Failed(_)),
        At::RetryableFailure => end == StepEnd::Retrying,
        At::PermanentFailure => end == StepEnd::Failed(ErrorKind::Permanent),
    })
}

/// What an event carries.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Payload {
    /// JSON; `null` where it was refused.
    pub data: String,
    /// Why it was refused. Such an event is kept and shown, and told to nobody.
    pub problem: Option<String>,
}

/// The payload of an end: the result of a completed step, else `{"kind", "code", "message"}` of the error.
pub fn payload(
    end: StepEnd,
    output: Option<&str>,
    error: Option<&JobError>,
    schema: Option<Result<&JsonSchema, &str>>,
) -> Payload {
    checked(facts(end, output, error), schema)
}

/// What came of an end, as JSON: the result of a completed step, else the error.
pub fn facts(end: StepEnd, output: Option<&str>, error: Option<&JobError>) -> String {
    match (end, output) {
        (StepEnd::Completed, output) => output.unwrap_or("null").to_owned(),
        _ => serde_json::to_string(&error).unwrap_or_else(|_| "null".to_owned()),
    }
}

/// A payload, or why it is refused. `schema` is `Err` where it cannot be used, which refuses every payload.
pub fn checked(text: String, schema: Option<Result<&JsonSchema, &str>>) -> Payload {
    match problem(&text, schema) {
        None => Payload { data: text, problem: None },
        Some(problem) => Payload::refused(problem),
    }
}

impl Payload {
    /// None, and why.
    pub fn refused(problem: String) -> Self {
        Self { data: "null".to_owned(), problem: Some(bounded(problem)) }
    }
}

fn problem(text: &str, schema: Option<Result<&JsonSchema, &str>>) -> Option<String> {
    if text.len() > PAYLOAD_BYTES_MAX {
        return Some(format!("the payload has {} bytes, the limit is {PAYLOAD_BYTES_MAX}", text.len()));
    }
    let schema = match schema? {
        Ok(schema) => schema,
        Err(why) => return Some(format!("the event's schema cannot be used: {why}")),
    };
    match serde_json::from_str::<Value>(text) {
        Ok(value) => schema
            .check(&value)
            .err()
            .map(|mismatches| format!("the payload does not fit the event's schema: {mismatches}")),
        Err(error) => Some(format!("the payload is no JSON: {error}")),
    }
}

fn bounded(mut text: String) -> String {
    if text.len() > PROBLEM_BYTES_MAX {
        let mut end = PROBLEM_BYTES_MAX;
        while !text.is_char_boundary(end) {
            end -= 1;
        }
        text.truncate(end);
    }
    text
}

/// A duration as whole milliseconds; saturates.
pub(crate) fn whole_ms(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn event(at: At) -> StepEvent {
        StepEvent { name: format!("{at:?}"), at, schema: None, durable: true, live: false, publisher: None }
    }

    #[test]
    fn each_end_publishes_what_its_conditions_say() {
        let declared: Vec<StepEvent> =
            [At::Success, At::Failure, At::RetryableFailure, At::PermanentFailure, At::Always]
                .into_iter()
                .map(event)
                .collect();
        for (end, expected) in [
            (StepEnd::Completed, "Success Always"),
            (StepEnd::Retrying, "RetryableFailure Always"),
            (StepEnd::Failed(ErrorKind::Retryable), "Failure Always"),
            (StepEnd::Failed(ErrorKind::LeaseLost), "Failure Always"),
            (StepEnd::Failed(ErrorKind::Permanent), "Failure PermanentFailure Always"),
        ] {
            let found: Vec<&str> = at_end(&declared, end).map(|event| event.name.as_str()).collect();
            assert_eq!(found.join(" "), expected, "{end:?}");
        }
    }

    #[test]
    fn only_ends_of_the_step_s_own_are_ends() {
        use JobState::{
            Blocked, Cancelled, Completed, Failed, Queued, Resolved, Running, Skipped, Superseded,
        };
        let error = JobError::new(ErrorKind::Timeout, "too long");
        assert_eq!(StepEnd::of(Running, Completed, None), Some(StepEnd::Completed));
        assert_eq!(StepEnd::of(Running, Queued, Some(&error)), Some(StepEnd::Retrying));
        assert_eq!(StepEnd::of(Running, Queued, None), None, "handed back");
        assert_eq!(StepEnd::of(Running, Failed, Some(&error)), Some(StepEnd::Failed(ErrorKind::Timeout)));
        for (from, to) in [
            (Running, Cancelled),
            (Running, Superseded),
            (Queued, Skipped),
            (Failed, Resolved),
            (Failed, Queued),
        ] {
            assert_eq!(StepEnd::of(from, to, None), None, "{from} to {to}");
        }
        assert_eq!(StepEnd::of(Blocked, Queued, None), None);
    }

    #[test]
    fn payload_is_the_result_or_the_error() {
        let done = payload(StepEnd::Completed, Some("{\"id\":7}"), None, None);
        assert_eq!(done, Payload { data: "{\"id\":7}".to_owned(), problem: None });
        let error = JobError {
            code: Some("no_stock".to_owned()),
            ..JobError::new(ErrorKind::Permanent, "none left")
        };
        let failed = payload(StepEnd::Failed(ErrorKind::Permanent), Some("1"), Some(&error), None);
        let data: Value = serde_json::from_str(&failed.data).unwrap();
        assert_eq!(data, json!({ "kind": "permanent", "code": "no_stock", "message": "none left" }));
    }

    #[test]
    fn payload_that_does_not_fit_is_kept_back_with_the_reason() {
        let schema = JsonSchema::new(json!({ "type": "object", "required": ["id"] })).unwrap();
        let fits = payload(StepEnd::Completed, Some("{\"id\":1}"), None, Some(Ok(&schema)));
        assert_eq!(fits.problem, None);
        let refused = payload(StepEnd::Completed, Some("{\"secret\":\"hunter2\"}"), None, Some(Ok(&schema)));
        let why = refused.problem.unwrap();
        assert!(why.contains("\"id\" is a required property") && !why.contains("hunter2"), "{why}");
        assert_eq!(refused.data, "null");
        let large = format!("\"{}\"", "x".repeat(PAYLOAD_BYTES_MAX));
        let refused = payload(StepEnd::Completed, Some(&large), None, None);
        assert!(refused.problem.unwrap().contains("the limit is 65536"));
        assert!(payload(StepEnd::Completed, Some("1"), None, Some(Err("it is odd"))).problem.is_some());
    }

    #[test]
    fn modes_say_whether_an_event_is_kept_and_whether_it_is_told_at_once() {
        for (mode, durable, live) in [
            (DeliveryMode::Durable, true, false),
            (DeliveryMode::Fast, false, true),
            (DeliveryMode::Broadcast, true, true),
        ] {
            let event = StepEvent::new(&published(mode, None), None);
            assert_eq!((event.durable, event.live), (durable, live), "{mode:?}");
        }
    }

    fn published(delivery_mode: DeliveryMode, publisher: Option<&str>) -> PublishedEvent {
        PublishedEvent {
            name: "e".to_owned(),
            description: None,
            condition: EventCondition::Success,
            schema: None,
            delivery_mode,
            publisher: publisher.map(str::to_owned),
        }
    }

    /// What is kept with jobs that are there already has no publisher, and is read and written as before.
    #[test]
    fn publisher_is_kept_only_where_there_is_one() {
        let plain = StepEvent::new(&published(DeliveryMode::Durable, None), None);
        let text = serde_json::to_string(&plain).unwrap();
        assert_eq!(text, r#"{"name":"e","at":"success","durable":true,"live":false}"#);
        assert_eq!(serde_json::from_str::<StepEvent>(&text).unwrap(), plain);
        let made = StepEvent::new(&published(DeliveryMode::Durable, Some("p")), None);
        let text = serde_json::to_string(&made).unwrap();
        assert!(text.ends_with(r#""publisher":"p"}"#), "{text}");
        assert_eq!(serde_json::from_str::<StepEvent>(&text).unwrap(), made);
    }
}
