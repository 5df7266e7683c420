//! Level by level, for a terminal.

use std::fmt::Write as _;

use super::{is_optional, kind};
use crate::template::definition::Template;

/// One line a step, by levels: steps of one level do not wait for each other.
///
/// ```text
/// level 1
///   fetch
/// level 2
///   route (decision) <- fetch
/// level 3
///   by_hand (waits, may be left out) <- route
/// ```
pub fn text(template: &Template) -> String {
    let mut out = String::new();
    for (level, steps) in template.graph().levels().iter().enumerate() {
        // Writing to a text cannot fail.
        let _ = writeln!(out, "level {}", level + 1);
        for &index in steps {
            let Some(step) = template.steps().get(index) else { continue };
            let optional = is_optional(template, index).then_some("may be left out");
            let notes: Vec<&str> = kind(step).into_iter().chain(optional).collect();
            let notes = if notes.is_empty() { String::new() } else { format!(" ({})", notes.join(", ")) };
            let waits = if step.dependencies.is_empty() {
                String::new()
            } else {
                format!(" <- {}", on_one_line(&step.dependencies.join(", ")))
            };
            let _ = writeln!(out, "  {}{notes}{waits}", on_one_line(&step.name));
        }
    }
    out
}

/// A name that cannot be more than a part of its line.
pub(crate) fn on_one_line(name: &str) -> String {
    name.chars().map(|one| if one.is_control() { '\u{fffd}' } else { one }).collect()
}

#[cfg(test)]
mod tests {
    use super::on_one_line;

    #[test]
    fn a_name_cannot_begin_a_line_or_move_the_cursor() {
        assert_eq!(on_one_line("a\nlevel 9\u{1b}[2J"), "a\u{fffd}level 9\u{fffd}[2J");
    }
}
