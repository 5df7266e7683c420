//! From templates to the documents of the wire contract.

use recache_api::{
    Json, TemplateChange, TemplateDiff, TemplateFieldChange, TemplateProblem, TemplateStepChange,
    TemplateSummary,
};
use recache_model::template::{Diff, FieldChange, Problems, StepChange, Template};
use serde_json::Value;

/// A template without its content.
pub(super) fn summary(template: &Template) -> TemplateSummary {
    TemplateSummary {
        namespace: template.namespace().to_owned(),
        name: template.name().to_owned(),
        version: template.version().to_string(),
        digest: template.digest().to_string(),
        created_at: None,
    }
}

/// What is wrong, or deserves a look.
pub(super) fn problems(problems: &Problems) -> Vec<TemplateProblem> {
    let document = |problem: &recache_model::template::Problem| TemplateProblem {
        code: problem.code.to_owned(),
        message: problem.message.clone(),
        line: problem.line,
        column: problem.column,
        path: problem.path.clone(),
        suggestion: problem.suggestion.clone(),
    };
    problems.items().iter().map(document).collect()
}

/// What changed.
pub(super) fn diff(old: TemplateSummary, new: TemplateSummary, diff: &Diff) -> TemplateDiff {
    let fields = |fields: &[FieldChange]| fields.iter().map(field).collect::<Vec<_>>();
    let steps = diff.steps.iter().filter_map(|step| match step {
        StepChange::Added { name } => Some((name, TemplateChange::Added, Vec::new())),
        StepChange::Removed { name } => Some((name, TemplateChange::Removed, Vec::new())),
        StepChange::Changed { name, fields: changed } => {
            Some((name, TemplateChange::Changed, fields(changed)))
        }
        _ => None,
    });
    TemplateDiff {
        schema: TemplateDiff::SCHEMA.to_owned(),
        old,
        new,
        fields: fields(&diff.fields),
        steps: steps
            .map(|(name, change, fields)| TemplateStepChange { name: name.clone(), change, fields })
            .collect(),
        is_reordered: diff.is_reordered,
    }
}

fn field(change: &FieldChange) -> TemplateFieldChange {
    let json =
        |value: &Option<Value>| value.as_ref().and_then(|value| Json::from_text(&value.to_string()).ok());
    TemplateFieldChange { path: change.path.clone(), old: json(&change.old), new: json(&change.new) }
}
