//! JSON Schemas inside a template: compiled when the template is checked, bounded, and without any look elsewhere.
//!
//! Everybody who may save a template decides what runs here, so a schema must not be able to take the process down or
//! to keep it busy: `schema_bounds` says how. Patterns run on an engine whose time is linear in the text.

use std::fmt;
use std::sync::Arc;

use jsonschema::{Draft, PatternOptions, Validator};
use serde_json::{Value, json};

use super::limits::{SCHEMA_MISMATCHES_MAX, SCHEMA_PATTERN_COMPILED_BYTES_MAX, SCHEMA_WORK_MAX};
use super::schema_bounds::{self, Parts};

pub(super) use super::schema_bounds::{Budget, Fault};

/// A JSON Schema: draft 2020-12 unless its `$schema` names 2019-09 or draft 7. `format` is checked, not only noted.
#[derive(Clone)]
pub struct JsonSchema {
    source: Value,
    compiled: Arc<Validator>,
    /// How many keywords can be looked at for one value, at most.
    cost: u64,
}

/// Where a value does not fit a schema.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mismatch {
    /// JSON pointer into the value; empty for the whole of it.
    pub path: String,
    /// What is wrong there. It never repeats the value, which may be a secret.
    pub message: String,
}

impl fmt::Display for Mismatch {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        if !self.path.is_empty() {
            write!(out, "{}: ", self.path)?;
        }
        out.write_str(&self.message)
    }
}

/// Everything in which a value does not fit a schema; never empty when returned as an error.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub struct Mismatches {
    items: Vec<Mismatch>,
    has_more: bool,
}

impl Mismatches {
    /// The first of them, at most [`SCHEMA_MISMATCHES_MAX`].
    pub fn items(&self) -> &[Mismatch] {
        &self.items
    }

    /// Whether there are more than are listed.
    pub fn has_more(&self) -> bool {
        self.has_more
    }
}

impl fmt::Display for Mismatches {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, mismatch) in self.items.iter().enumerate() {
            let between = if index > 0 { "; " } else { "" };
            write!(out, "{between}{mismatch}")?;
        }
        if self.has_more { out.write_str("; and more") } else { Ok(()) }
    }
}

impl JsonSchema {
    /// Compiles `source`, or says everything that is wrong with it, with pointers into it.
    pub(super) fn compile(source: Value, budget: &mut Budget) -> Result<Self, Vec<Fault>> {
        let parts = schema_bounds::inspect(&source, budget)?;
        let mut faults = meta_faults(&source, parts.draft);
        if faults.is_empty() {
            faults = part_faults(&parts);
        }
        if !faults.is_empty() {
            return Err(faults);
        }
        let (draft, cost) = (parts.draft, parts.cost);
        match options(draft).build(&source) {
            Ok(compiled) => Ok(Self { source, compiled: Arc::new(compiled), cost }),
            Err(error) => {
                let message = error.masked_with("the value").to_string();
                Err(vec![Fault { path: error.instance_path().to_string(), message }])
            }
        }
    }

    /// Compiles a schema that stands alone, within the bounds of one template; everything that is wrong with it, in one text.
    pub fn new(source: Value) -> Result<Self, String> {
        Self::compile(source, &mut Budget::default()).map_err(|faults| {
            let told: Vec<String> =
                faults.iter().map(|fault| format!("{}: {}", fault.path, fault.message)).collect();
            told.join("; ")
        })
    }

    /// The schema as written.
    pub fn source(&self) -> &Value {
        &self.source
    }

    /// Whether `value` fits; otherwise everything that does not, each with its path. A value so large that checking it
    /// could take longer than [`SCHEMA_WORK_MAX`] allows is refused unchecked.
    pub fn check(&self, value: &Value) -> Result<(), Mismatches> {
        let work = self.cost.saturating_mul(size(value));
        if work > SCHEMA_WORK_MAX {
            let message = format!(
                "it is too large for its schema: checking may take {work} steps, the limit is {SCHEMA_WORK_MAX}"
            );
            return Err(Mismatches {
                items: vec![Mismatch { path: String::new(), message }],
                has_more: false,
            });
        }
        let mut errors = self.compiled.iter_errors(value);
        let items: Vec<Mismatch> = errors
            .by_ref()
            .take(SCHEMA_MISMATCHES_MAX)
            .map(|error| Mismatch {
                path: error.instance_path().to_string(),
                message: error.masked_with("the value").to_string(),
            })
            .collect();
        if items.is_empty() {
            return Ok(());
        }
        Err(Mismatches { items, has_more: errors.next().is_some() })
    }
}

impl fmt::Debug for JsonSchema {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.debug_tuple("JsonSchema").field(&self.source).finish()
    }
}

impl PartialEq for JsonSchema {
    fn eq(&self, other: &Self) -> bool {
        self.source == other.source
    }
}

fn options(draft: Draft) -> jsonschema::ValidationOptions<'static> {
    let patterns = PatternOptions::regex()
        .size_limit(SCHEMA_PATTERN_COMPILED_BYTES_MAX)
        .dfa_size_limit(SCHEMA_PATTERN_COMPILED_BYTES_MAX);
    jsonschema::options()
        .with_draft(draft)
        .offline()
        .with_pattern_options(patterns)
        .should_validate_formats(true)
        .should_ignore_unknown_formats(false)
}

/// What the draft's own schema has against `source`.
fn meta_faults(source: &Value, draft: Draft) -> Vec<Fault> {
    let validator = match draft {
        Draft::Draft7 => jsonschema::draft7::meta::validator(),
        Draft::Draft201909 => jsonschema::draft201909::meta::validator(),
        _ => jsonschema::draft202012::meta::validator(),
    };
    validator
        .iter_errors(source)
        .take(SCHEMA_MISMATCHES_MAX)
        .map(|error| Fault { path: error.instance_path().to_string(), message: error.to_string() })
        .collect()
}

/// What is wrong with single patterns and formats: the compiler would stop at the first of them.
fn part_faults(parts: &Parts<'_>) -> Vec<Fault> {
    let options = options(parts.draft);
    let mut faults = Vec::new();
    for (path, pattern) in &parts.patterns {
        if options.build(&json!({ "pattern": pattern })).is_err() {
            let message = format!(
                "the pattern {pattern:?} cannot be used: it is no regular expression, too large, or looks around"
            );
            faults.push(Fault { path: path.clone(), message });
        }
    }
    for (path, format) in &parts.formats {
        if !options.is_known_format(parts.draft, format) {
            faults.push(Fault { path: path.clone(), message: format!("the format {format:?} is not known") });
        }
    }
    faults
}

/// How much a value is: its parts, and its text in pieces of 64 bytes. Does not recurse, whatever the nesting.
fn size(value: &Value) -> u64 {
    const PIECE_BYTES: usize = 64;
    let text = |text: &str| u64::try_from(text.len() / PIECE_BYTES).unwrap_or(u64::MAX);
    let mut total = 0_u64;
    let mut open = vec![value];
    while let Some(value) = open.pop() {
        total = total.saturating_add(1);
        match value {
            Value::String(value) => total = total.saturating_add(text(value)),
            Value::Array(items) => open.extend(items),
            Value::Object(fields) => {
                for (key, field) in fields {
                    total = total.saturating_add(text(key));
                    open.push(field);
                }
            }
            _ => {}
        }
    }
    total
}
