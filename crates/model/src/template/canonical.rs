//! The canonical form: one text for one meaning, whatever the formatting, spelling or key order of the source.
//!
//! Rules: no white space; keys sorted by bytes; every field with a default is written out, so that a later change
//! of a default does not change what was pinned; what has no value and no default is left out. A field that a
//! later version adds is left out while it has its default, so that old digests stay.

use std::fmt;
use std::time::Duration;

use serde_json::{Map, Value, json};

use super::batch::BatchConfig;
use super::definition::{Meaning, SystemDependencies};
use super::environment::{Environment, RetryOverlay, StepOverlay};
use super::events::{DomainEvent, PublishedEvent};
use super::expression::Expression;
use super::flow::{Awaited, CacheReuse, ConcurrencyKey, ForEach, RateLimit, SubWorkflow, WaitFor};
use super::json_schema::JsonSchema;
use super::lifecycle::Lifecycle;
use super::step::{Handler, RetrySpec, Step};

/// Digest (BLAKE3) of a template's canonical form. Displayed in hexadecimal.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Digest([u8; 32]);

impl Digest {
    /// The digest of `canonical`.
    pub(super) fn of(canonical: &str) -> Self {
        Self(*blake3::hash(canonical.as_bytes()).as_bytes())
    }

    /// The bytes.
    pub fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(out, "{byte:02x}"))
    }
}

/// The canonical form.
pub(super) fn canonical(meaning: &Meaning) -> String {
    let mut fields = Object::default();
    fields.put("name", meaning.name.as_str());
    fields.put("namespace_name", meaning.namespace.as_str());
    fields.put("version", meaning.version.to_string());
    fields.put("metadata", meaning.metadata.clone());
    fields.put_some("description", meaning.description.as_deref());
    fields.put_unless_empty("system_dependencies", system_dependencies(&meaning.system_dependencies));
    fields.put_list("domain_events", &meaning.domain_events, domain_event);
    fields.put_some("input_schema", meaning.input_schema.as_ref().map(schema));
    fields.put("steps", meaning.steps.iter().map(step).collect::<Value>());
    let environments: Map<String, Value> =
        meaning.environments.iter().map(|(name, one)| (name.clone(), environment(one))).collect();
    fields.put_unless_empty("environments", environments);
    fields.put_some("lifecycle", meaning.lifecycle.as_ref().map(lifecycle));
    let mut text = String::new();
    write_sorted(&Value::Object(fields.0), &mut text);
    text
}

fn step(step: &Step) -> Value {
    let mut fields = Object::default();
    fields.put("name", step.name.as_str());
    fields.put("type", step.step_type.word());
    fields.put("dependencies", step.dependencies.clone());
    fields.put("retry", retry(&step.retry));
    fields.put("priority", step.priority);
    fields.put_some("handler", step.handler.as_ref().map(handler));
    fields.put_some("description", step.description.as_deref());
    fields.put_some("timeout_seconds", step.timeout.map(seconds));
    fields.put_some("queue", step.queue.as_deref());
    fields.put_some("system_dependency", step.system_dependency.as_deref());
    fields.put_list("publishes_events", &step.publishes_events, published_event);
    fields.put_some("batch_config", step.batch_config.as_ref().map(batch));
    fields.put_some("result_schema", step.result_schema.as_ref().map(schema));
    fields.put_some("lifecycle", step.lifecycle.as_ref().map(lifecycle));
    fields.put_some("when", step.when.as_ref().map(Expression::source));
    fields.put_some("for_each", step.for_each.as_ref().map(for_each));
    fields.put_some("concurrency_key", step.concurrency_key.as_ref().map(concurrency_key));
    fields.put_some("rate_limit", step.rate_limit.as_ref().map(rate_limit));
    fields.put_some("wait_for", step.wait_for.as_ref().map(wait_for));
    fields.put_some("workflow", step.workflow.as_ref().map(sub_workflow));
    fields.put_some("cache", step.cache.as_ref().map(cache));
    fields.into()
}

fn handler(handler: &Handler) -> Value {
    let mut fields = Object::default();
    fields.put("callable", handler.callable.as_str());
    fields.put("initialization", handler.initialization.clone());
    fields.put_some("method", handler.method.as_deref());
    fields.put_some("resolver", handler.resolver.as_deref());
    fields.into()
}

fn retry(retry: &RetrySpec) -> Value {
    json!({
        "retryable": retry.retryable,
        "max_attempts": retry.max_attempts,
        "backoff": retry.backoff.word(),
        "backoff_base_ms": retry.backoff_base_ms,
        "max_backoff_ms": retry.max_backoff_ms,
        "jitter": retry.jitter,
    })
}

fn system_dependencies(systems: &SystemDependencies) -> Map<String, Value> {
    let mut fields = Object::default();
    fields.put_some("primary", systems.primary.as_deref());
    fields.put_list("secondary", &systems.secondary, |name| name.as_str().into());
    fields.0
}

fn domain_event(event: &DomainEvent) -> Value {
    let mut fields = Object::default();
    fields.put("name", event.name.as_str());
    fields.put_some("description", event.description.as_deref());
    fields.put_some("schema", event.schema.as_ref().map(schema));
    fields.into()
}

fn published_event(event: &PublishedEvent) -> Value {
    let mut fields = Object::default();
    fields.put("name", event.name.as_str());
    fields.put("condition", event.condition.word());
    fields.put("delivery_mode", event.delivery_mode.word());
    fields.put_some("description", event.description.as_deref());
    fields.put_some("schema", event.schema.as_ref().map(schema));
    fields.put_some("publisher", event.publisher.as_deref());
    fields.into()
}

fn schema(schema: &JsonSchema) -> Value {
    schema.source().clone()
}

fn batch(batch: &BatchConfig) -> Value {
    let mut fields = Object::default();
    fields.put("batch_size", batch.batch_size);
    fields.put("parallelism", batch.parallelism);
    fields.put("cursor_field", batch.cursor_field.as_str());
    fields.put("id_field", batch.id_field.as_str());
    fields.put("failure_strategy", batch.failure_strategy.word());
    fields.put_some("max_parallel_batches", batch.max_parallel_batches);
    fields.put_some("worker_template", batch.worker_template.as_deref());
    fields.put_some("checkpoint_interval", batch.checkpoint_interval);
    fields.put_some("checkpoint_stall_minutes", batch.checkpoint_stall_minutes);
    fields.into()
}

fn lifecycle(lifecycle: &Lifecycle) -> Value {
    let mut fields = Object::default();
    fields.put("staleness_action", lifecycle.staleness_action.word());
    fields.put("auto_fail_on_timeout", lifecycle.auto_fail_on_timeout);
    fields.put("auto_dlq_on_timeout", lifecycle.auto_dlq_on_timeout);
    fields.put_some("max_duration_minutes", lifecycle.max_duration_minutes);
    fields.put_some("max_waiting_for_dependencies_minutes", lifecycle.max_waiting_for_dependencies_minutes);
    fields.put_some("max_waiting_for_retry_minutes", lifecycle.max_waiting_for_retry_minutes);
    fields.put_some("max_steps_in_process_minutes", lifecycle.max_steps_in_process_minutes);
    fields.into()
}

fn for_each(for_each: &ForEach) -> Value {
    json!({ "items": for_each.items.source(), "limit": for_each.limit })
}

fn concurrency_key(concurrency: &ConcurrencyKey) -> Value {
    json!({ "key": concurrency.key.source(), "limit": concurrency.limit })
}

fn rate_limit(rate: &RateLimit) -> Value {
    let mut fields = Object::default();
    fields.put("limit", rate.limit);
    fields.put("per_seconds", seconds(rate.per));
    fields.put_some("key", rate.key.as_ref().map(Expression::source));
    fields.into()
}

fn wait_for(wait: &WaitFor) -> Value {
    let mut fields = Object::default();
    match &wait.awaited {
        Awaited::Signal(name) => fields.put("signal", name.as_str()),
        Awaited::Approval(name) => fields.put("approval", name.as_str()),
    }
    if let Some(timeout) = wait.timeout {
        fields.put("on_timeout", wait.on_timeout.word());
        fields.put("timeout_seconds", seconds(timeout));
    }
    fields.into()
}

fn sub_workflow(workflow: &SubWorkflow) -> Value {
    let mut fields = Object::default();
    fields.put("name", workflow.name.as_str());
    fields.put_some("namespace_name", workflow.namespace.as_deref());
    fields.put_some("version", workflow.version.as_ref().map(ToString::to_string));
    fields.put_some("input", workflow.input.as_ref().map(Expression::source));
    fields.into()
}

fn cache(cache: &CacheReuse) -> Value {
    let inputs: Value = cache.inputs.iter().map(|input| Value::from(input.source())).collect();
    json!({ "inputs": inputs, "ttl_seconds": seconds(cache.ttl) })
}

fn environment(environment: &Environment) -> Value {
    let mut fields = Object::default();
    fields.put_list("steps", &environment.steps, overlay);
    fields.into()
}

fn overlay(overlay: &StepOverlay) -> Value {
    let mut fields = Object::default();
    fields.put("name", overlay.target.name());
    if !overlay.initialization.is_empty() {
        fields.put("handler", json!({ "initialization": overlay.initialization }));
    }
    fields.put_some("timeout_seconds", overlay.timeout.map(seconds));
    fields.put_unless_empty("retry", retry_overlay(&overlay.retry));
    fields.into()
}

fn retry_overlay(retry: &RetryOverlay) -> Map<String, Value> {
    let mut fields = Object::default();
    fields.put_some("retryable", retry.retryable);
    fields.put_some("max_attempts", retry.max_attempts);
    fields.put_some("backoff", retry.backoff.map(super::step::BackoffSpec::word));
    fields.put_some("backoff_base_ms", retry.backoff_base_ms);
    fields.put_some("max_backoff_ms", retry.max_backoff_ms);
    fields.put_some("jitter", retry.jitter);
    fields.0
}

/// Whole seconds as an integer, others with their fraction.
fn seconds(time: Duration) -> Value {
    match time.subsec_nanos() {
        0 => time.as_secs().into(),
        _ => time.as_secs_f64().into(),
    }
}

/// An object under construction.
#[derive(Default)]
struct Object(Map<String, Value>);

impl Object {
    fn put(&mut self, name: &str, value: impl Into<Value>) {
        self.0.insert(name.to_owned(), value.into());
    }

    fn put_some(&mut self, name: &str, value: Option<impl Into<Value>>) {
        if let Some(value) = value {
            self.put(name, value);
        }
    }

    fn put_list<T>(&mut self, name: &str, items: &[T], write: impl Fn(&T) -> Value) {
        if !items.is_empty() {
            self.put(name, items.iter().map(write).collect::<Value>());
        }
    }

    fn put_unless_empty(&mut self, name: &str, fields: Map<String, Value>) {
        if !fields.is_empty() {
            self.put(name, fields);
        }
    }
}

impl From<Object> for Value {
    fn from(object: Object) -> Self {
        Self::Object(object.0)
    }
}

/// Writes `value` with sorted keys. Sorted here, because whether a JSON map keeps its keys sorted depends on a
/// feature that any crate of the build can switch. Recurses as deep as the template is nested, which is bounded.
fn write_sorted(value: &Value, text: &mut String) {
    match value {
        Value::Array(items) => {
            text.push('[');
            for (index, item) in items.iter().enumerate() {
                if index > 0 {
                    text.push(',');
                }
                write_sorted(item, text);
            }
            text.push(']');
        }
        Value::Object(fields) => {
            let mut fields: Vec<_> = fields.iter().collect();
            fields.sort_unstable_by_key(|(key, _)| *key);
            text.push('{');
            for (index, (key, field)) in fields.into_iter().enumerate() {
                if index > 0 {
                    text.push(',');
                }
                text.push_str(&Value::from(key.as_str()).to_string());
                text.push(':');
                write_sorted(field, text);
            }
            text.push('}');
        }
        scalar => text.push_str(&scalar.to_string()),
    }
}
