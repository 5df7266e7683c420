//! What the engine does not run yet. A template that asks for it is right, and kept; a workflow of it is refused, because
//! running it would mean ignoring what it asks for.
//!
//! Whoever teaches the engine a field takes its line away here; a test in the engine holds that each field of the shape
//! is either honoured or refused.

use super::definition::Meaning;
use crate::event::is_reserved;

/// The fields that `meaning` gives and the engine cannot honour: each with its pointer and what to say about it.
pub(super) fn fields(meaning: &Meaning) -> Vec<(String, String)> {
    let mut found = Vec::new();
    for (index, event) in meaning.domain_events.iter().enumerate() {
        found.extend(reserved(&event.name).map(|message| (format!("/domain_events/{index}/name"), message)));
    }
    for (index, step) in meaning.steps.iter().enumerate() {
        if step.handler.as_ref().is_some_and(|handler| handler.claimed_as().is_none()) {
            let message =
                format!("the step {} cannot be found by its prefix: its callable has no dot", step.name);
            found.push((format!("/steps/{index}/handler/resolver"), message));
        }
        for (place, event) in step.publishes_events.iter().enumerate() {
            let path = format!("/steps/{index}/publishes_events/{place}");
            found.extend(reserved(&event.name).map(|message| (format!("{path}/name"), message)));
        }
    }
    found
}

/// An event of a template must not look like a change of state that the engine tells of.
fn reserved(name: &str) -> Option<String> {
    is_reserved(name).then(|| {
        format!("the event {name} cannot be published: names that begin with job., workflow. or view. are those of state changes")
    })
}
