//! For Mermaid, which pages of many tools show as a picture.

use std::fmt::Write as _;

use super::{is_optional, kind};
use crate::template::definition::Template;
use crate::template::step::StepType;

/// A Mermaid flow chart. Steps have ids of their own, so that a name such as `end`, a word of Mermaid's, harms nothing.
pub fn mermaid(template: &Template) -> String {
    let mut out = String::from("flowchart TD\n");
    for (index, step) in template.steps().iter().enumerate() {
        let label = match kind(step) {
            Some(kind) => format!("{}<br/>{kind}", escaped(&step.name)),
            None => escaped(&step.name),
        };
        let (open, close) = match step.step_type {
            StepType::Decision => ("{", "}"),
            StepType::DeferredConvergence => ("([", "])"),
            StepType::Batchable | StepType::BatchWorker => ("[[", "]]"),
            StepType::Standard => ("[", "]"),
        };
        let _ = writeln!(out, "    s{index}{open}\"{label}\"{close}");
    }
    for index in 0..template.steps().len() {
        let arrow = if is_optional(template, index) { "-.->" } else { "-->" };
        for parent in template.graph().dependencies(index) {
            let _ = writeln!(out, "    s{parent} {arrow} s{index}");
        }
    }
    out
}

/// A label that cannot leave its quotes. Mermaid reads HTML entities, without their `&`, in them.
pub fn escaped(label: &str) -> String {
    let mut out = String::with_capacity(label.len());
    for one in label.chars() {
        if one.is_ascii_alphanumeric() || matches!(one, '_' | '-' | '.' | ' ') {
            out.push(one);
        } else {
            let _ = write!(out, "#{};", u32::from(one));
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_label_cannot_leave_its_quotes() {
        assert_eq!(escaped("a\"]; click x"), "a#34;#93;#59; click x");
        assert_eq!(escaped("<b>&é"), "#60;b#62;#38;#233;");
    }
}
