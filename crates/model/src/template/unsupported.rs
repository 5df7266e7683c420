//! What the engine does not run yet. A template that asks for it is right, and kept; a workflow of it is refused, because
//! running it would mean ignoring what it asks for.
//!
//! Whoever teaches the engine a field takes its line away here; a test in the engine holds that each field of the shape
//! is either honoured or refused.

use super::definition::Meaning;
use super::step::{Handler, Step, StepType};

/// The fields that `meaning` gives and the engine cannot honour: each with its pointer and what to say about it.
pub(super) fn fields(meaning: &Meaning) -> Vec<(String, String)> {
    let mut found = Vec::new();
    for (field, is_given) in
        [("domain_events", !meaning.domain_events.is_empty()), ("lifecycle", meaning.lifecycle.is_some())]
    {
        if is_given {
            found.push((format!("/{field}"), format!("not supported yet by this version: `{field}`")));
        }
    }
    for (index, step) in meaning.steps.iter().enumerate() {
        for (field, is_given) in step_fields(step) {
            if is_given {
                let name = field.replace('/', ".");
                let message =
                    format!("not supported yet by this version: `{name}` of the step {}", step.name);
                found.push((format!("/steps/{index}/{field}"), message));
            }
        }
    }
    found
}

fn step_fields(step: &Step) -> [(&'static str, bool); 6] {
    let of_handler = |pick: fn(&Handler) -> bool| step.handler.as_ref().is_some_and(pick);
    let is_split_twice = step.for_each.is_some()
        && !matches!(step.step_type, StepType::Standard | StepType::DeferredConvergence);
    [
        ("handler/method", of_handler(|handler| handler.method.is_some())),
        ("handler/resolver", of_handler(|handler| handler.resolver.is_some())),
        ("publishes_events", !step.publishes_events.is_empty()),
        (
            "batch_config/checkpoint_stall_minutes",
            step.batch_config.as_ref().is_some_and(|config| config.checkpoint_stall_minutes.is_some()),
        ),
        ("lifecycle", step.lifecycle.is_some()),
        // A decision, a batchable step or a batch worker that runs once for each element.
        ("for_each", is_split_twice),
    ]
}
