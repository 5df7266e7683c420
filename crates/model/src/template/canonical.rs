//! The canonical form: one text for one meaning, whatever the formatting, spelling or key order of the source.
//!
//! Rules: no white space; keys sorted by bytes; every field with a default is written out, so that a later change
//! of a default does not change what was pinned; what has no value and no default is left out. A field that a
//! later version adds is left out while it has its default, so that old digests stay.

use std::fmt;

use serde_json::{Map, Value, json};

use super::definition::{RetrySpec, Step, StepType};

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

/// The fields of a template that its canonical form holds.
pub(super) struct Meaning<'a> {
    pub(super) name: &'a str,
    pub(super) namespace: &'a str,
    pub(super) version: &'a semver::Version,
    pub(super) description: Option<&'a str>,
    pub(super) metadata: &'a Map<String, Value>,
    pub(super) steps: &'a [Step],
}

/// The canonical form.
pub(super) fn canonical(meaning: &Meaning<'_>) -> String {
    let mut fields = json!({
        "name": meaning.name,
        "namespace_name": meaning.namespace,
        "version": meaning.version.to_string(),
        "metadata": meaning.metadata,
    });
    if let Some(description) = meaning.description {
        fields["description"] = description.into();
    }
    fields["steps"] = meaning.steps.iter().map(step).collect();
    let mut text = String::new();
    write_sorted(&fields, &mut text);
    text
}

fn step(step: &Step) -> Value {
    let StepType::Standard = step.step_type;
    let mut fields = json!({
        "name": step.name,
        "type": "standard",
        "handler": { "callable": step.handler.callable, "initialization": step.handler.initialization },
        "dependencies": step.dependencies,
        "retry": retry(&step.retry),
        "priority": step.priority,
    });
    if let Some(description) = &step.description {
        fields["description"] = description.as_str().into();
    }
    if let Some(timeout) = step.timeout {
        fields["timeout_seconds"] = match timeout.subsec_nanos() {
            0 => timeout.as_secs().into(),
            _ => timeout.as_secs_f64().into(),
        };
    }
    if let Some(queue) = &step.queue {
        fields["queue"] = queue.as_str().into();
    }
    fields
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
