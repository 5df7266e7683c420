//! From templates to the documents of the wire contract.

use recache_api::{
    Instant, Json, TemplateChange, TemplateDetails, TemplateDiff, TemplateFieldChange, TemplateGraph,
    TemplateProblem, TemplateStepChange, TemplateSummary,
};
use recache_model::template::{Diff, FieldChange, Problems, StepChange, Template};
use serde_json::Value;

/// A template without its content.
pub fn summary(template: &Template) -> TemplateSummary {
    TemplateSummary {
        namespace: template.namespace().to_owned(),
        name: template.name().to_owned(),
        version: template.version().to_string(),
        digest: template.digest().to_string(),
        created_at: None,
    }
}

/// A stored template without its content.
pub fn stored(summary: recache_store::TemplateSummary) -> TemplateSummary {
    TemplateSummary {
        namespace: summary.namespace,
        name: summary.name,
        version: summary.version,
        digest: summary.digest,
        created_at: Instant::from_micros(summary.created_at.micros()).ok(),
    }
}

/// A template with its content, as it was written or as it is in one of its environments.
pub fn details(summary: TemplateSummary, template: &Template) -> TemplateDetails {
    let environments = template.environments().keys().cloned().collect();
    let content = Json::from_text(template.canonical_json())
        .unwrap_or_else(|_| Json::of_string(template.canonical_json()));
    TemplateDetails::new(summary, content, environments, problems(&template.unsupported()))
}

/// How a template's steps hang together.
pub fn graph(summary: TemplateSummary, template: &Template) -> TemplateGraph {
    let name = |index: usize| template.steps().get(index).map(|step| step.name.clone()).unwrap_or_default();
    let levels =
        template.graph().levels().iter().map(|level| level.iter().copied().map(name).collect()).collect();
    let lines = template
        .steps()
        .iter()
        .flat_map(|step| step.dependencies.iter().map(|parent| [parent.clone(), step.name.clone()]));
    TemplateGraph::new(summary, levels, lines.collect())
}

/// What is wrong, or deserves a look.
pub fn problems(problems: &Problems) -> Vec<TemplateProblem> {
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
pub fn diff(old: TemplateSummary, new: TemplateSummary, diff: &Diff) -> TemplateDiff {
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
