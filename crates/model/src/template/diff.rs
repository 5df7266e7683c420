//! What changed from one template to another: in their meaning, not in their text.

use std::collections::{BTreeSet, HashMap};

use serde_json::{Map, Value};

use super::definition::Template;

/// What changed from one template to another.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct Diff {
    /// Fields of the template itself, by path.
    pub fields: Vec<FieldChange>,
    /// Steps, in the order of the new template; those that are gone last.
    pub steps: Vec<StepChange>,
    /// Whether steps that are in both stand in another order. It changes nothing but the order in which they are shown.
    pub is_reordered: bool,
}

/// A field whose value changed.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct FieldChange {
    /// The way to it from the template or the step: `retry.max_attempts`.
    pub path: String,
    /// Its value before; none when it was not given.
    pub old: Option<Value>,
    /// Its value now; none when it is not given.
    pub new: Option<Value>,
}

/// A step that changed.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub enum StepChange {
    /// It is new.
    Added {
        /// Its name.
        name: String,
    },
    /// It is gone.
    Removed {
        /// Its name.
        name: String,
    },
    /// Some of its fields changed.
    Changed {
        /// Its name.
        name: String,
        /// Which, by path.
        fields: Vec<FieldChange>,
    },
}

impl Diff {
    /// What changed from `old` to `new`. Empty exactly when they are equal.
    pub fn between(old: &Template, new: &Template) -> Self {
        let (mut old_fields, mut new_fields) = (fields_of(old), fields_of(new));
        let old_steps = take_steps(&mut old_fields);
        let new_steps = take_steps(&mut new_fields);
        let mut fields = Vec::new();
        compare(&Value::Object(old_fields), &Value::Object(new_fields), "", &mut fields);

        let by_name: HashMap<&str, &Value> =
            old_steps.iter().map(|(name, step)| (name.as_str(), step)).collect();
        let mut steps = Vec::new();
        for (name, step) in &new_steps {
            match by_name.get(name.as_str()) {
                None => steps.push(StepChange::Added { name: name.clone() }),
                Some(before) => {
                    let mut fields = Vec::new();
                    compare(before, step, "", &mut fields);
                    if !fields.is_empty() {
                        steps.push(StepChange::Changed { name: name.clone(), fields });
                    }
                }
            }
        }
        let is_new: BTreeSet<&str> = new_steps.iter().map(|(name, _)| name.as_str()).collect();
        let is_old: BTreeSet<&str> = by_name.keys().copied().collect();
        for (name, _) in &old_steps {
            if !is_new.contains(name.as_str()) {
                steps.push(StepChange::Removed { name: name.clone() });
            }
        }
        let kept_old = old_steps.iter().map(|(name, _)| name.as_str()).filter(|name| is_new.contains(name));
        let kept_new = new_steps.iter().map(|(name, _)| name.as_str()).filter(|name| is_old.contains(name));
        Self { fields, steps, is_reordered: !kept_old.eq(kept_new) }
    }

    /// Whether nothing changed.
    pub fn is_empty(&self) -> bool {
        self.fields.is_empty() && self.steps.is_empty() && !self.is_reordered
    }
}

/// The canonical form holds all that a template means.
fn fields_of(template: &Template) -> Map<String, Value> {
    match serde_json::from_str(template.canonical_json()) {
        Ok(Value::Object(fields)) => fields,
        _ => Map::new(),
    }
}

fn take_steps(fields: &mut Map<String, Value>) -> Vec<(String, Value)> {
    let Some(Value::Array(steps)) = fields.remove("steps") else { return Vec::new() };
    steps
        .into_iter()
        .map(|step| {
            let name = step.get("name").and_then(Value::as_str).unwrap_or_default().to_owned();
            (name, step)
        })
        .collect()
}

/// Objects are compared field by field, all else as a whole. Recurses as deep as a template is nested.
fn compare(old: &Value, new: &Value, path: &str, changes: &mut Vec<FieldChange>) {
    if old == new {
        return;
    }
    let (Value::Object(old_fields), Value::Object(new_fields)) = (old, new) else {
        changes.push(FieldChange { path: path.to_owned(), old: Some(old.clone()), new: Some(new.clone()) });
        return;
    };
    let names: BTreeSet<&String> = old_fields.keys().chain(new_fields.keys()).collect();
    for name in names {
        let path = if path.is_empty() { name.clone() } else { format!("{path}.{name}") };
        match (old_fields.get(name), new_fields.get(name)) {
            (Some(old), Some(new)) => compare(old, new, &path, changes),
            (old, new) => changes.push(FieldChange { path, old: old.cloned(), new: new.cloned() }),
        }
    }
}
