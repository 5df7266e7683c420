//! What of a template becomes jobs, and when: pure.

use std::collections::{BTreeMap, BTreeSet};

use recache_model::expansion::Outline;
use recache_model::ids::WorkflowId;
use recache_model::template::graph::StepIndex;
use recache_model::template::{Lifecycle, Step, StepType, Template};
use recache_model::workflow::StepKind;
use recache_store::{FLOW, NewJob, NewStep, NewWorkflow, Region, RegionStep};
use serde_json::Value;

use crate::error::{Error, Result};
use crate::origin::Origin;
use crate::step_job::ready_job;
use crate::templates::record;

/// Checks that a workflow of this template can be run with this input, and makes it.
pub(crate) fn new_workflow(
    id: WorkflowId,
    template: &Template,
    environment: Option<&str>,
    input: &Value,
    origin: Origin<'_>,
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
    let named = |step: &&Step| {
        let handler = step.handler.as_ref();
        handler
            .is_some_and(|handler| handler.callable == FLOW || handler.claimed_as().as_deref() == Some(FLOW))
    };
    if let Some(step) = steps_of.steps().iter().find(named) {
        return Err(Error::Invalid(format!(
            "step `{}`: the handler `{FLOW}` is the engine's own",
            step.name
        )));
    }
    Ok(NewWorkflow {
        id,
        template: record(template),
        template_raise: None,
        input: input.to_string(),
        correlation_id: origin.correlation_id.to_owned(),
        environment: environment.map(str::to_owned),
        limits: template.lifecycle().map(Lifecycle::of_workflow).unwrap_or_default(),
        takes_over: None,
        steps: first_steps(steps_of, origin)?,
    })
}

/// The steps that are there from the start: those with no decision before them.
fn first_steps(template: &Template, origin: Origin<'_>) -> Result<Vec<NewStep>> {
    let above = decisions_above(template);
    let mut places = BTreeMap::new();
    let mut steps = Vec::new();
    for (index, step) in template.steps().iter().enumerate() {
        if above[index].is_empty() {
            places.insert(index, steps.len());
            steps.push(NewStep {
                kind: kind(step),
                has_rules: has_rules(step),
                ..NewStep::new(&step.name, job(template, step, origin)?, Vec::new())
            });
        }
    }
    for (index, place) in &places {
        let before = template.graph().dependencies(*index).iter();
        steps[*place].waits_for = before.filter_map(|step| places.get(step).copied()).collect();
    }
    Ok(steps)
}

/// The steps behind a decision, of which `choice` are the ones it chose; `None` when it is skipped.
pub(crate) fn region(
    template: &Template,
    decision: StepIndex,
    choice: Option<Vec<String>>,
    origin: Origin<'_>,
) -> Result<Region> {
    let above = decisions_above(template);
    let steps = template.steps();
    let name = |index: &StepIndex| steps[*index].name.clone();
    let behind =
        template.graph().topological_order().iter().filter(|index| above[**index].contains(&decision));
    Ok(Region {
        decision: name(&decision),
        choice: choice.map(|names| names.into_iter().collect::<BTreeSet<_>>()),
        steps: behind
            .map(|index| {
                Ok(RegionStep {
                    outline: Outline {
                        name: name(index),
                        kind: kind(&steps[*index]),
                        dependencies: template.graph().dependencies(*index).iter().map(name).collect(),
                        decisions: above[*index].iter().map(name).collect(),
                    },
                    job: job(template, &steps[*index], origin)?,
                    has_rules: has_rules(&steps[*index]),
                })
            })
            .collect::<Result<_>>()?,
    })
}

/// For each step all decisions before it.
fn decisions_above(template: &Template) -> Vec<BTreeSet<StepIndex>> {
    let mut above = vec![BTreeSet::new(); template.steps().len()];
    if !template.steps().iter().any(|step| step.step_type == StepType::Decision) {
        return above;
    }
    for &index in template.graph().topological_order() {
        let mut found = BTreeSet::new();
        for &parent in template.graph().dependencies(index) {
            found.extend(above[parent].iter().copied());
            if template.steps()[parent].step_type == StepType::Decision {
                found.insert(parent);
            }
        }
        above[index] = found;
    }
    above
}

fn kind(step: &Step) -> StepKind {
    match step.step_type {
        StepType::Decision => StepKind::Decision,
        StepType::DeferredConvergence => StepKind::Convergence,
        _ => StepKind::Plain,
    }
}

/// What the engine has to look at when the step's handler begins or ends.
pub(crate) fn has_rules(step: &Step) -> bool {
    step.result_schema.is_some()
        || step.step_type == StepType::Decision
        || step.wait_for.is_some()
        || step.cache.is_some()
}

/// Whether the engine has to decide something before a handler runs.
fn needs_turn(step: &Step) -> bool {
    step.when.is_some()
        || step.wait_for.is_some()
        || step.for_each.is_some()
        || step.step_type == StepType::BatchWorker
        || run_needs_turn(step)
}

/// The same of each run of a step that is split.
pub(crate) fn run_needs_turn(step: &Step) -> bool {
    step.handler.is_none()
        || step.workflow.is_some()
        || step.cache.is_some()
        || step.concurrency_key.is_some()
        || step.rate_limit.is_some()
}

/// The job of a step, which waits for its handler or for the engine's turn.
fn job(template: &Template, step: &Step, origin: Origin<'_>) -> Result<NewJob> {
    let ready = ready_job(template, step, origin)?;
    Ok(if needs_turn(step) { as_turn(ready) } else { ready })
}

/// As the engine's own to claim.
pub(crate) fn as_turn(job: NewJob) -> NewJob {
    NewJob { queue: FLOW.to_owned(), handler: FLOW.to_owned(), ..job }
}

/// Names of the steps that need not run again when the steps of `failed` and all that stands behind them do.
pub(crate) fn unharmed<'a>(template: &'a Template, failed: &BTreeSet<String>) -> Vec<&'a str> {
    let steps = template.steps();
    let mut is_harmed = vec![false; steps.len()];
    let mut names = Vec::new();
    for &index in template.graph().topological_order() {
        let before = template.graph().dependencies(index);
        is_harmed[index] =
            failed.contains(&steps[index].name) || before.iter().any(|before| is_harmed[*before]);
        if !is_harmed[index] {
            names.push(steps[index].name.as_str());
        }
    }
    names
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
        let new = new_workflow(id, &template, None, &serde_json::json!({ "a": 1 }), Origin::new("c"))
            .expect("a workflow");
        let (fetch, bill) = (&new.steps[0], &new.steps[1]);
        assert_eq!((new.template.name.as_str(), new.template.version.as_str()), ("billing", "1.2.0"));
        assert_eq!(fetch.job.input, "{\"url\":\"http://127.0.0.1/\"}");
        assert_eq!((fetch.job.namespace.as_str(), fetch.job.queue.as_str()), ("shop", "slow"));
        assert_eq!((fetch.job.priority, fetch.job.timeout), (9, Some(Duration::from_secs(7))));
        let expected =
            RetryPolicy { attempts_max: 5, backoff: Backoff::Linear, base_ms: 10, cap_ms: 20, jitter: 0.5 };
        assert_eq!(fetch.job.retry, expected);
        assert_eq!((bill.waits_for.as_slice(), bill.job.retry.attempts_max), ([0].as_slice(), 1));
        assert_eq!(bill.job.correlation_id, "c");
    }

    #[test]
    fn what_stands_behind_a_failed_step_is_harmed_and_the_rest_is_not() {
        let source = "
name: t
version: 1.0.0
steps:
  - { name: a, handler: { callable: h } }
  - { name: b, handler: { callable: h }, depends_on: [a] }
  - { name: c, handler: { callable: h }, depends_on: [a] }
  - { name: d, handler: { callable: h }, depends_on: [b, c] }
  - { name: e, handler: { callable: h }, depends_on: [c] }
";
        let template = Template::parse(source, "t.yaml").expect("a good template");
        let names = |failed: &[&str]| {
            let failed = failed.iter().map(|name| (*name).to_owned()).collect();
            unharmed(&template, &failed).join(" ")
        };
        assert_eq!((names(&["b"]), names(&["a"])), ("a c e".to_owned(), String::new()));
        assert_eq!(names(&["d", "e"]), "a b c");
    }

    #[test]
    fn what_stands_behind_a_decision_is_not_there_at_first() {
        let source = "
name: t
version: 1.0.0
steps:
  - { name: a, handler: { callable: h } }
  - { name: d, type: decision, handler: { callable: h }, depends_on: [a] }
  - { name: x, handler: { callable: h }, depends_on: [d] }
  - { name: y, handler: { callable: h }, depends_on: [x, a] }
  - { name: z, handler: { callable: h }, depends_on: [a] }
";
        let template = Template::parse(source, "t.yaml").expect("a good template");
        let new = new_workflow(WorkflowId::make(), &template, None, &Value::Null, Origin::new("c"))
            .expect("a workflow");
        let names: Vec<(&str, &[usize])> =
            new.steps.iter().map(|step| (step.name.as_str(), step.waits_for.as_slice())).collect();
        assert_eq!(names, [("a", [].as_slice()), ("d", &[0]), ("z", &[0])]);
        let region = region(&template, 1, Some(vec!["x".to_owned()]), Origin::new("c")).expect("a region");
        let behind: Vec<_> = region.steps.iter().map(|step| step.outline.name.as_str()).collect();
        assert_eq!(behind, ["x", "y"]);
        assert_eq!(region.steps[1].outline.dependencies, ["a", "x"]);
        assert_eq!(region.steps[1].outline.decisions, ["d"]);
    }
}
