//! The job of a step: what its template says, as the store keeps it and a worker gets it.

use std::collections::HashMap;

use recache_model::event::StepEvent;
use recache_model::lifecycle::TimeLimits;
use recache_model::template::{Handler, JsonSchema, Step, Template, limits_of_step};
use recache_store::{FLOW, NewJob, StepCall};
use serde_json::Value;

use crate::error::{Error, Result};
use crate::origin::Origin;

/// The job of a step as its handler gets it.
pub(crate) fn ready_job(template: &Template, step: &Step, origin: Origin<'_>) -> Result<NewJob> {
    let plain = match &step.handler {
        None => NewJob::new(FLOW, "{}"),
        Some(handler) => {
            let name = handler.claimed_as().unwrap_or_else(|| handler.callable.clone());
            NewJob::new(name, Value::Object(handler.initialization.clone()).to_string())
        }
    };
    Ok(NewJob {
        namespace: template.namespace().to_owned(),
        queue: step.queue.clone().unwrap_or_else(|| plain.queue.clone()),
        priority: i64::from(step.priority),
        retry: step.retry.policy(),
        timeout: step.timeout,
        correlation_id: origin.correlation_id.to_owned(),
        trace_context: origin.traceparent.map(str::to_owned),
        call: step.handler.as_ref().and_then(call),
        publishes: as_text(step, &events(template, step))?,
        limits: limits_of_step(step.lifecycle.as_ref(), template.lifecycle()),
        ..plain
    })
}

/// The same of each run of a step that is split; what that publishes is another thing than what the step does. How long it all
/// takes is the step's matter. One that keeps no checkpoint for `stall_minutes` is taken away from its worker.
pub(crate) fn ready_run(
    template: &Template,
    step: &Step,
    stall_minutes: Option<u32>,
    origin: Origin<'_>,
) -> Result<NewJob> {
    let publishes = as_text(step, &StepEvent::of_run(events(template, step)))?;
    let ready = ready_job(template, step, origin)?;
    let limits = TimeLimits { duration: None, dependencies: None, stall_minutes, ..ready.limits };
    Ok(NewJob { publishes, limits, ..ready })
}

/// What a step's job keeps of its handler besides the name.
fn call(handler: &Handler) -> Option<StepCall> {
    handler
        .is_more_than_a_name()
        .then(|| StepCall { callable: handler.callable.clone(), method: handler.method.clone() })
}

/// The events that a step publishes, with the schemas that the template declares for them.
fn events(template: &Template, step: &Step) -> Vec<StepEvent> {
    if step.publishes_events.is_empty() {
        return Vec::new();
    }
    let declared: HashMap<&str, &JsonSchema> = template
        .domain_events()
        .iter()
        .filter_map(|event| Some((event.name.as_str(), event.schema.as_ref()?)))
        .collect();
    step.publishes_events
        .iter()
        .map(|event| {
            let schema = event.schema.as_ref().or_else(|| declared.get(event.name.as_str()).copied());
            StepEvent::new(event, schema)
        })
        .collect()
}

/// As the job keeps them; `None` where there are none.
fn as_text(step: &Step, events: &[StepEvent]) -> Result<Option<String>> {
    if events.is_empty() {
        return Ok(None);
    }
    serde_json::to_string(events)
        .map(Some)
        .map_err(|error| Error::Invalid(format!("step `{}`: its events are no JSON: {error}", step.name)))
}

#[cfg(test)]
mod tests {
    use recache_model::event::At;

    use super::*;

    const SOURCE: &str = "
name: t
version: 1.0.0
domain_events: [{ name: e.all, schema: { type: object } }]
steps:
  - name: a
    handler: { callable: shop.order, method: refund, resolver: prefix }
    publishes_events: [e.done, { name: e.failed, condition: failure }, { name: e.all, condition: always }]
  - { name: b, handler: { callable: h } }
";

    fn published(job: &NewJob) -> Vec<(String, At)> {
        let events: Vec<StepEvent> =
            serde_json::from_str(job.publishes.as_deref().unwrap_or("[]")).expect("a list of events");
        events.into_iter().map(|event| (event.name, event.at)).collect()
    }

    #[test]
    fn what_a_step_calls_and_publishes_reaches_its_job() {
        let template = Template::parse(SOURCE, "t.yaml").expect("a good template");
        let [a, b] = [0, 1]
            .map(|index| ready_job(&template, &template.steps()[index], Origin::new("c")).expect("a job"));
        assert_eq!(a.handler, "shop.*");
        let call = StepCall { callable: "shop.order".to_owned(), method: Some("refund".to_owned()) };
        assert_eq!(a.call, Some(call));
        let names = ["e.done", "e.failed", "e.all"].map(str::to_owned);
        let expected: Vec<_> = names.into_iter().zip([At::Success, At::Failure, At::Always]).collect();
        assert_eq!(published(&a), expected);
        assert!(a.publishes.is_some_and(|text| text.contains("\"schema\":{\"type\":\"object\"}")));
        assert_eq!((b.handler.as_str(), b.call, b.publishes), ("h", None, None));
    }

    #[test]
    fn a_run_publishes_its_failures_and_leaves_success_to_its_step() {
        let template = Template::parse(SOURCE, "t.yaml").expect("a good template");
        let run = ready_run(&template, &template.steps()[0], Some(3), Origin::new("c")).expect("a job");
        let names = ["e.failed", "e.all", "e.all"].map(str::to_owned);
        let ends = [At::Failure, At::RetryableFailure, At::Failure];
        assert_eq!(published(&run), names.into_iter().zip(ends).collect::<Vec<_>>());
        assert_eq!(run.limits.stall_minutes, Some(3));
        assert_eq!(run.call.and_then(|call| call.method).as_deref(), Some("refund"));
    }
}
