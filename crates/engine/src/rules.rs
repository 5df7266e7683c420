//! What a step's template says about its result: what it must fit, what it decides, whether it is kept for later.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use recache_cache::{Coherence, Key, Policy, Usage};
use recache_model::template::graph::StepIndex;
use recache_model::template::{ExpressionError, Scope, Step, StepType, Template, decision_names};
use recache_model::unique::PartsHash;
use recache_store::{ClaimedJob, Outcome, StepInputs};
use recache_worker::Failure;
use serde_json::{Map, Value};

use crate::engine::Shared;
use crate::origin::Origin;
use crate::plan;
use crate::templates::template_by_digest;

/// Templates that are kept compiled; when there are more, all are forgotten.
const TEMPLATES_MAX: usize = 256;

/// By digest and environment.
type ByContent = BTreeMap<(String, Option<String>), Arc<Template>>;

/// Templates as they are in one environment, compiled.
#[derive(Debug, Default)]
pub(crate) struct Compiled(Mutex<ByContent>);

impl Compiled {
    fn map(&self) -> std::sync::MutexGuard<'_, ByContent> {
        // A panic elsewhere cannot leave a map of shared values half changed.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

async fn compiled(
    shared: &Shared,
    digest: &str,
    environment: Option<&str>,
) -> Result<Arc<Template>, Failure> {
    let key = (digest.to_owned(), environment.map(str::to_owned));
    if let Some(found) = shared.compiled.map().get(&key) {
        return Ok(Arc::clone(found));
    }
    let record = template_by_digest(shared, digest).await.map_err(Failure::retryable)?;
    let read = Template::from_canonical_json(&record.content)
        .and_then(|template| match environment {
            Some(environment) => template.for_environment(environment),
            None => Ok(template),
        })
        .map_err(|problems| Failure::permanent("bad_template", problems))?;
    let read = Arc::new(read);
    let mut map = shared.compiled.map();
    if map.len() >= TEMPLATES_MAX {
        map.clear();
    }
    map.insert(key, Arc::clone(&read));
    Ok(read)
}

/// A step with its template, and what its expressions see.
#[derive(Debug)]
pub(crate) struct Rules {
    pub(crate) template: Arc<Template>,
    pub(crate) index: StepIndex,
    pub(crate) input: Value,
    pub(crate) results: Map<String, Value>,
    item: Option<(Value, usize)>,
    correlation_id: String,
    traceparent: Option<String>,
}

impl Rules {
    pub(crate) async fn of(shared: &Shared, job: &ClaimedJob, inputs: &StepInputs) -> Result<Self, Failure> {
        let name = job.step.as_deref().unwrap_or_default();
        Self::of_step(shared, name, Origin::of(job), inputs).await
    }

    pub(crate) async fn of_step(
        shared: &Shared,
        step: &str,
        origin: Origin<'_>,
        inputs: &StepInputs,
    ) -> Result<Self, Failure> {
        let template = compiled(shared, &inputs.template_digest, inputs.environment.as_deref()).await?;
        // A run of a step that was split is called `step[0]`; no name of a step has a bracket.
        let name = step.split('[').next().unwrap_or_default();
        let index = template.steps().iter().position(|one| one.name == name).ok_or_else(|| {
            Failure::permanent("unknown_step", format!("the template has no step `{name}`"))
        })?;
        let parse = |what: &str, text: &str| {
            serde_json::from_str(text)
                .map_err(|error| Failure::permanent("invalid_input", format!("{what} is not JSON: {error}")))
        };
        let mut results = Map::new();
        for (step, output) in &inputs.results {
            results.insert(step.clone(), parse("a result", output)?);
        }
        let item = match &inputs.item {
            Some((item, index)) => {
                Some((parse("an element", item)?, usize::try_from(*index).unwrap_or(usize::MAX)))
            }
            None => None,
        };
        let input = parse("the workflow's input", &inputs.workflow_input)?;
        let correlation_id = origin.correlation_id.to_owned();
        let traceparent = origin.traceparent.map(str::to_owned);
        Ok(Self { template, index, input, results, item, correlation_id, traceparent })
    }

    pub(crate) fn step(&self) -> &Step {
        // The index was found in this template.
        &self.template.steps()[self.index]
    }

    pub(crate) fn evaluate<T>(
        &self,
        field: &str,
        evaluate: impl FnOnce(&Scope<'_>) -> Result<T, ExpressionError>,
    ) -> Result<T, Failure> {
        let scope = Scope {
            input: &self.input,
            results: &self.results,
            item: self.item.as_ref().map(|(item, _)| item),
            index: self.item.as_ref().map(|(_, index)| *index),
        };
        evaluate(&scope)
            .map_err(|error| Failure::permanent("expression_failed", format!("`{field}`: {error}")))
    }

    /// How the step ends with this result, if it may have it.
    pub(crate) fn concluded(&self, shared: &Shared, result: &Value) -> Result<Outcome, Failure> {
        let step = self.step();
        if let Some(schema) = &step.result_schema {
            schema.check(result).map_err(|mismatches| {
                let why = format!("the result does not fit the step's `result_schema`: {mismatches}");
                Failure::permanent("result_does_not_fit", why)
            })?;
        }
        if step.step_type != StepType::Decision {
            return completed(shared, result);
        }
        let names = decision_names(&self.template, self.index, result)
            .map_err(|error| Failure::permanent(error.code, error.message))?;
        let Outcome::Completed { output } = completed(shared, result)? else {
            return Err(Failure::permanent("invalid_output", "a result completes a step"));
        };
        let origin =
            Origin { correlation_id: &self.correlation_id, traceparent: self.traceparent.as_deref() };
        let region =
            plan::region(&self.template, self.index, Some(names), origin).map_err(crate::turn::no_job)?;
        Ok(Outcome::Decided { output, region: Arc::new(region) })
    }

    /// Where the step's result is kept for the same inputs; `None` where it is not.
    fn cache_key(&self, shared: &Shared) -> Result<Option<(Key, Policy)>, Failure> {
        let step = self.step();
        let Some(reuse) = &step.cache else { return Ok(None) };
        let mut hash = PartsHash::default();
        if let Some(handler) = &step.handler {
            hash.part(&handler.callable);
            hash.part(handler.method.as_deref().unwrap_or_default());
            hash.part(handler.resolver.as_deref().unwrap_or_default());
            hash.part(&Value::Object(handler.initialization.clone()).to_string());
        }
        for input in &reuse.inputs {
            hash.part(&self.evaluate("cache.inputs", |scope| input.evaluate(scope))?.to_string());
        }
        let space = shared.cache.keys().space("step_result");
        let key = space.key([self.template.namespace(), self.template.name(), &step.name, &hash.hex(64)]);
        let policy = Policy::new(reuse.ttl)
            .value_bytes_max(usize::try_from(shared.options.result_bytes_max).unwrap_or(usize::MAX));
        Ok(Some((key, policy)))
    }
}

fn usage() -> Usage {
    // What its template declares as inputs decides alone: an old result is as good as a new one.
    Usage::user("step_result", Coherence::Eventual)
}

/// An earlier result of the step with the same inputs, where its template lets one serve.
pub(crate) async fn cached(shared: &Shared, rules: &Rules) -> Result<Option<Value>, Failure> {
    let Some((key, _)) = rules.cache_key(shared)? else { return Ok(None) };
    let text = shared.cache.for_usage(&usage()).get::<String>(&key).await;
    Ok(text.and_then(|text| serde_json::from_str(&text).ok()))
}

/// Keeps a result that a handler has just returned, where the template says so.
pub(crate) async fn keep(shared: &Shared, rules: &Rules, output: &str) {
    if let Ok(Some((key, policy))) = rules.cache_key(shared) {
        shared.cache.for_usage(&usage()).set(&key, output.to_owned(), &policy).await;
    }
}

/// Completed with this result, unless it is too large.
pub(crate) fn completed(shared: &Shared, result: &Value) -> Result<Outcome, Failure> {
    let output =
        serde_json::to_string(result).map_err(|error| Failure::permanent("invalid_output", error))?;
    check_size(shared, &output)?;
    Ok(Outcome::Completed { output })
}

pub(crate) fn check_size(shared: &Shared, output: &str) -> Result<(), Failure> {
    let bytes_max = shared.options.result_bytes_max;
    if u64::try_from(output.len()).is_ok_and(|bytes| bytes <= bytes_max) {
        return Ok(());
    }
    let why = format!("the result has {} bytes, the limit is {bytes_max}", output.len());
    Err(Failure::permanent("result_too_large", why))
}
