//! Publishers: what makes the payload of an event from the end of a step.

use async_trait::async_trait;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use uuid::Uuid;

use crate::failure::Failure;

/// What an event is about whose payload is to be made.
#[derive(Debug, Clone, PartialEq)]
pub struct PublishContext {
    /// `evt_…`: the event's id, the same at every try.
    pub event_id: String,
    /// What happened: the event's name.
    pub event: String,
    /// The publisher's own name, as the template gives it.
    pub publisher: String,
    /// Whose it is.
    pub namespace: String,
    /// When the step ended, in microseconds since 1970 UTC.
    pub at_us: i64,
    /// The step's job.
    pub job: Option<Uuid>,
    /// Its workflow.
    pub workflow: Option<Uuid>,
    /// The step.
    pub step: Option<String>,
    /// The attempt that ended.
    pub attempt: Option<u32>,
    /// Ties what belongs together.
    pub correlation_id: Option<String>,
    /// What the workflow began with; `None` where that is no longer kept.
    pub workflow_input: Option<Value>,
    /// Which try to make this payload it is, counted from 1.
    pub tried: u32,
}

/// How the attempt of a step ended whose event is published.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "outcome", rename_all = "snake_case")]
pub enum StepEnd<R = Value> {
    /// The step completed.
    Completed {
        /// With this result.
        result: R,
    },
    /// The attempt failed; another one follows.
    Retrying {
        /// Why.
        error: StepError,
    },
    /// The step failed for good.
    Failed {
        /// Why.
        error: StepError,
    },
}

/// Why an attempt of a step failed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StepError {
    /// What kind of failure: `retryable`, `permanent`, `timeout`, `panic`, `lease_lost`.
    pub kind: String,
    /// A stable word for programs.
    #[serde(default)]
    pub code: Option<String>,
    /// What happened.
    pub message: String,
}

impl StepEnd {
    /// The same with a result of a type; one that does not fit is a permanent failure with code `invalid_result`.
    pub fn typed<R: DeserializeOwned>(self) -> Result<StepEnd<R>, Failure> {
        Ok(match self {
            Self::Completed { result } => StepEnd::Completed {
                result: serde_json::from_value(result)
                    .map_err(|error| Failure::permanent("invalid_result", error))?,
            },
            Self::Retrying { error } => StepEnd::Retrying { error },
            Self::Failed { error } => StepEnd::Failed { error },
        })
    }
}

/// Makes payloads of events. It is called after the step's end is committed, in any process that has it: the step has ended
/// whatever comes of it. It may be called more than once for one event; what it answers first counts.
#[async_trait]
pub trait Publisher: Send + Sync + 'static {
    /// The payload. A retryable failure is tried again later, a bounded number of times; after a permanent one the event is kept back with the
    /// reason, and told to nobody. Snoozing puts it off without counting.
    async fn payload(&self, context: PublishContext, end: StepEnd) -> Result<Value, Failure>;
}

pub(crate) struct PublisherFunction<F, R, O> {
    pub(crate) function: F,
    pub(crate) types: std::marker::PhantomData<fn(R) -> O>,
}

#[async_trait]
impl<F, R, O, P> Publisher for PublisherFunction<F, R, O>
where
    R: DeserializeOwned + Send + 'static,
    O: Serialize + Send + 'static,
    F: Fn(PublishContext, StepEnd<R>) -> P + Send + Sync + 'static,
    P: Future<Output = Result<O, Failure>> + Send + 'static,
{
    async fn payload(&self, context: PublishContext, end: StepEnd) -> Result<Value, Failure> {
        let payload = (self.function)(context, end.typed()?).await?;
        serde_json::to_value(payload).map_err(|error| Failure::permanent("invalid_payload", error))
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn end_has_one_form_and_its_result_a_type() {
        let end: StepEnd = serde_json::from_value(json!({ "outcome": "completed", "result": 7 })).unwrap();
        assert_eq!(end.clone().typed::<u8>(), Ok(StepEnd::Completed { result: 7 }));
        let Err(Failure::Permanent { code, .. }) = end.typed::<String>() else { panic!("7 is no text") };
        assert_eq!(code, "invalid_result");
        let error = json!({ "kind": "permanent", "code": "no_stock", "message": "none left" });
        let end: StepEnd = serde_json::from_value(json!({ "outcome": "failed", "error": error })).unwrap();
        let typed = end.typed::<u8>().unwrap();
        assert_eq!(serde_json::to_value(typed).unwrap(), json!({ "outcome": "failed", "error": error }));
    }
}
