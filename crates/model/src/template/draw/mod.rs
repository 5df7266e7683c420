//! A template's graph as text, and for tools that draw.
//!
//! Names come from whoever wrote the template: each form escapes them, so that none can be more than a label.

mod dot;
mod layout;
mod mermaid;
mod svg;
mod text;

pub use dot::dot;
pub use mermaid::{escaped as mermaid_label, mermaid};
pub use svg::svg;
pub use text::text;

// For other pictures of graphs.
pub(crate) use layout::layout;
pub(crate) use svg::{BOX_HEIGHT, Frame, cut as svg_label, escaped as xml_text, line};
pub(crate) use text::on_one_line;

use super::definition::Template;
use super::step::{Step, StepType};

/// What a step is, in a word or two, where it is not plain.
fn kind(step: &Step) -> Option<&'static str> {
    match step.step_type {
        StepType::Standard if step.workflow.is_some() => Some("workflow"),
        StepType::Standard if step.for_each.is_some() => Some("for each"),
        StepType::Standard if step.wait_for.is_some() => Some("waits"),
        StepType::Standard => None,
        StepType::Decision => Some("decision"),
        StepType::DeferredConvergence => Some("convergence"),
        StepType::Batchable => Some("batchable"),
        StepType::BatchWorker => Some("batch worker"),
    }
}

/// Whether the step may not be created at all: what a decision chooses, a batch creates, or a condition skips.
fn is_optional(template: &Template, index: usize) -> bool {
    let step_type = |index: usize| template.steps().get(index).map(|step| step.step_type);
    let of_decision = template
        .graph()
        .dependencies(index)
        .iter()
        .any(|parent| step_type(*parent) == Some(StepType::Decision));
    let own = step_type(index);
    own == Some(StepType::BatchWorker)
        || (of_decision && own != Some(StepType::DeferredConvergence))
        || template.steps().get(index).is_some_and(|step| step.when.is_some())
}
