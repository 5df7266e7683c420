//! From a template to a workflow.

use std::collections::HashMap;

use recache_model::event::StepEvent;
use recache_model::ids::WorkflowId;
use recache_model::template::{Handler, JsonSchema, Step, Template};
use recache_store::{NewJob, NewStep, NewWorkflow, StepCall};
use serde_json::Value;

use crate::engine::Engine;
use crate::error::{Error, Result};
use crate::templates::record;

impl Engine {
    /// Stores a workflow of this template with all its steps; the template's content is pinned by its digest.
    ///
    /// Refused is input that does not fit the template's `input_schema`, and a template that asks for what this version
    /// does not run: see [`Template::unsupported`].
    pub async fn submit_workflow(
        &self,
        id: WorkflowId,
        template: &Template,
        input: &Value,
    ) -> Result<WorkflowId> {
        self.submit_workflow_in(id, template, None, input).await
    }

    /// The same, with the overlays of one of the template's environments applied to its steps. What is pinned is the
    /// template as it was written.
    pub async fn submit_workflow_in(
        &self,
        id: WorkflowId,
        template: &Template,
        environment: Option<&str>,
        input: &Value,
    ) -> Result<WorkflowId> {
        let mut new = new_workflow(id, template, environment, input)?;
        new.template_raise = Some(self.shared.templates.raise(&new.template));
        self.shared.store.workflow_submit(new).await?;
        Ok(id)
    }
}

fn new_workflow(
    id: WorkflowId,
    template: &Template,
    environment: Option<&str>,
    input: &Value,
) -> Result<NewWorkflow> {
    let effective = environment.map(|environment| template.for_environment(environment)).transpose();
    let effective = effective.map_err(|problems| Error::Invalid(problems.to_string()))?;
    let steps_of = effective.as_ref().unwrap_or(template);
    let unsupported = template.unsupported();
    if !unsupported.is_empty() {
        return Err(Error::Invalid(unsupported.to_string()));
    }
    template.check_input(input).map_err(|problems| {
        Error::Invalid(format!("the input does not fit the template's `input_schema`: {problems}"))
    })?;

    let correlation_id = id.uuid().to_string();
    let places: HashMap<&str, usize> =
        steps_of.steps().iter().enumerate().map(|(place, step)| (step.name.as_str(), place)).collect();
    let mut steps = Vec::with_capacity(steps_of.steps().len());
    for step in steps_of.steps() {
        let waits_for = step
            .dependencies
            .iter()
            .map(|name| {
                places.get(name.as_str()).copied().ok_or_else(|| {
                    Error::Invalid(format!("step `{}` waits for `{name}`, which is not there", step.name))
                })
            })
            .collect::<Result<Vec<usize>>>()?;
        let handler = step
            .handler
            .as_ref()
            .ok_or_else(|| Error::Invalid(format!("step `{}` has no handler to run it", step.name)))?;
        let name = handler.claimed_as().unwrap_or_else(|| handler.callable.clone());
        let plain = NewJob::new(name, Value::Object(handler.initialization.clone()).to_string());
        let job = NewJob {
            namespace: template.namespace().to_owned(),
            queue: step.queue.clone().unwrap_or_else(|| plain.queue.clone()),
            priority: i64::from(step.priority),
            retry: step.retry.policy(),
            timeout: step.timeout,
            correlation_id: correlation_id.clone(),
            call: call(handler),
            publishes: publishes(template, step)?,
            ..plain
        };
        steps.push(NewStep { name: step.name.clone(), job, waits_for });
    }
    Ok(NewWorkflow {
        id,
        template: record(template),
        template_raise: None,
        input: input.to_string(),
        correlation_id,
        steps,
    })
}

/// What a step's job keeps of its handler besides the name. Whoever makes a step's job gives it this.
pub(crate) fn call(handler: &Handler) -> Option<StepCall> {
    handler
        .is_more_than_a_name()
        .then(|| StepCall { callable: handler.callable.clone(), method: handler.method.clone() })
}

/// What a step's job keeps of the events that it publishes, with the schemas that the template declares for them. `None` for a step that
/// publishes nothing. Whoever makes a step's job gives it this.
pub(crate) fn publishes(template: &Template, step: &Step) -> Result<Option<String>> {
    if step.publishes_events.is_empty() {
        return Ok(None);
    }
    let declared: HashMap<&str, &JsonSchema> = template
        .domain_events()
        .iter()
        .filter_map(|event| Some((event.name.as_str(), event.schema.as_ref()?)))
        .collect();
    let events: Vec<StepEvent> = step
        .publishes_events
        .iter()
        .map(|event| {
            let schema = event.schema.as_ref().or_else(|| declared.get(event.name.as_str()).copied());
            StepEvent::new(&event.name, event.condition, event.delivery_mode, schema)
        })
        .collect();
    serde_json::to_string(&events)
        .map(Some)
        .map_err(|error| Error::Invalid(format!("step `{}`: its events are no JSON: {error}", step.name)))
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use recache_model::retry::{Backoff, RetryPolicy};

    use super::*;

    #[test]
    fn every_field_of_a_step_reaches_its_job() {
        let source = "
name: billing
namespace: shop
version: 1.2.0
steps:
  - name: fetch
    handler: { callable: http, initialization: { url: 'http://127.0.0.1/' } }
    timeout_seconds: 7
    queue: slow
    priority: 9
    retry: { max_attempts: 5, backoff: linear, backoff_base_ms: 10, max_backoff_ms: 20, jitter: 0.5 }
  - name: bill
    handler: { callable: echo }
    depends_on: [fetch]
    retry: { retryable: false }
";
        let template = Template::parse(source, "billing.yaml").expect("a good template");
        let id = WorkflowId::make();
        let new = new_workflow(id, &template, None, &serde_json::json!({ "a": 1 })).expect("a workflow");
        let (fetch, bill) = (&new.steps[0], &new.steps[1]);
        assert_eq!((new.template.name.as_str(), new.template.version.as_str()), ("billing", "1.2.0"));
        assert_eq!(fetch.job.input, "{\"url\":\"http://127.0.0.1/\"}");
        assert_eq!((fetch.job.namespace.as_str(), fetch.job.queue.as_str()), ("shop", "slow"));
        assert_eq!((fetch.job.priority, fetch.job.timeout), (9, Some(Duration::from_secs(7))));
        let expected =
            RetryPolicy { attempts_max: 5, backoff: Backoff::Linear, base_ms: 10, cap_ms: 20, jitter: 0.5 };
        assert_eq!(fetch.job.retry, expected);
        assert_eq!((bill.waits_for.as_slice(), bill.job.retry.attempts_max), ([0].as_slice(), 1));
        assert_eq!(bill.job.correlation_id, id.uuid().to_string());
    }
}
