//! For Graphviz.

use std::fmt::Write as _;

use super::{is_optional, kind};
use crate::template::definition::Template;
use crate::template::step::StepType;

/// A Graphviz digraph.
pub fn dot(template: &Template) -> String {
    let mut out = String::new();
    let title = format!("{}/{} {}", template.namespace(), template.name(), template.version());
    let _ = writeln!(out, "digraph {} {{", quoted(&title));
    out.push_str("    rankdir=TB;\n    node [shape=box, fontname=\"sans-serif\"];\n");
    for (index, step) in template.steps().iter().enumerate() {
        let label = match kind(step) {
            Some(kind) => format!("{}\n{kind}", step.name),
            None => step.name.clone(),
        };
        let shape = match step.step_type {
            StepType::Decision => ", shape=diamond",
            StepType::DeferredConvergence => ", shape=oval",
            StepType::Batchable | StepType::BatchWorker => ", peripheries=2",
            StepType::Standard => "",
        };
        let style = if is_optional(template, index) { ", style=dashed" } else { "" };
        let _ = writeln!(out, "    s{index} [label={}{shape}{style}];", quoted(&label));
    }
    for index in 0..template.steps().len() {
        for parent in template.graph().dependencies(index) {
            let _ = writeln!(out, "    s{parent} -> s{index};");
        }
    }
    out.push_str("}\n");
    out
}

/// A quoted id: only the quote and the backslash are special in it.
fn quoted(text: &str) -> String {
    let mut out = String::from("\"");
    for one in text.chars() {
        match one {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            one if one.is_control() => out.push(' '),
            one => out.push(one),
        }
    }
    out.push('"');
    out
}

#[cfg(test)]
mod tests {
    use super::quoted;

    #[test]
    fn a_label_cannot_leave_its_quotes() {
        assert_eq!(quoted("a\"b\\\"c\nd\u{7}"), "\"a\\\"b\\\\\\\"c\\nd \"");
    }
}
