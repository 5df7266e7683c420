//! A picture that needs no other tool.

use std::fmt::Write as _;

use super::layout::{Layout, Line, layout};
use super::{is_optional, kind};
use crate::template::definition::Template;
use crate::template::step::{Step, StepType};

pub(crate) const BOX_HEIGHT: usize = 44;
const ROW_HEIGHT: usize = 92;
const GAP: usize = 28;
const MARGIN: usize = 24;
const BOX_WIDTH_MIN: usize = 96;
const CHARACTER_WIDTH: usize = 8;
/// Longer names are cut; the whole one is in the box's title.
const LABEL_CHARS_MAX: usize = 40;

const STYLE: &str = "\
.b{fill:#f6f8fa;stroke:#57606a;stroke-width:1.2}\
.o{stroke-dasharray:5 3}\
.l{fill:none;stroke:#57606a;stroke-width:1.2;marker-end:url(#a)}\
.n{font:13px ui-sans-serif,system-ui,sans-serif;fill:#1f2328;text-anchor:middle}\
.k{font:10px ui-sans-serif,system-ui,sans-serif;fill:#57606a;text-anchor:middle}\
@media(prefers-color-scheme:dark){.b{fill:#161b22;stroke:#8b949e}.l{stroke:#8b949e}.n{fill:#e6edf3}.k{fill:#8b949e}#a path{fill:#8b949e}}";

/// An SVG picture: rows from above, dashed what may be left out.
pub fn svg(template: &Template) -> String {
    let layout = layout(template.graph());
    let frame = Frame::new(&layout, template.steps().iter().map(|step| step.name.as_str()));
    let mut out = String::new();
    let title = format!("{}/{} {}", template.namespace(), template.name(), template.version());
    frame.begin(&mut out, &layout, &title, STYLE);
    for one in &layout.lines {
        let class = if is_optional(template, one.child) { "l o" } else { "l" };
        line(&mut out, &frame, &layout, one, class);
    }
    for (index, step) in template.steps().iter().enumerate() {
        let Some(place) = layout.steps.get(index) else { continue };
        let middle = frame.middle(*place, &layout);
        node(&mut out, &frame, middle, step, is_optional(template, index));
    }
    out.push_str("</svg>\n");
    out
}

pub(crate) struct Frame {
    pub(crate) box_width: usize,
    columns: usize,
}

impl Frame {
    /// For boxes in which the longest of these labels fits, cut as [`cut`] cuts it.
    pub(crate) fn new<'a>(layout: &Layout, labels: impl Iterator<Item = &'a str>) -> Self {
        let chars = labels.map(|label| label.chars().count().min(LABEL_CHARS_MAX)).max().unwrap_or(0);
        Self {
            box_width: (chars * CHARACTER_WIDTH + GAP).max(BOX_WIDTH_MIN),
            columns: layout.widths.iter().copied().max().unwrap_or(1),
        }
    }

    /// Writes the picture's beginning: its size, its title, its style, the head of an arrow.
    pub(crate) fn begin(&self, out: &mut String, layout: &Layout, title: &str, style: &str) {
        let width = MARGIN * 2 + self.columns * (self.box_width + GAP) - GAP;
        let height = MARGIN * 2 + (layout.widths.len().max(1) - 1) * ROW_HEIGHT + BOX_HEIGHT;
        let title = escaped(title);
        // Writing to a text cannot fail.
        let _ = writeln!(
            out,
            "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {width} {height}\" width=\"{width}\" \
             height=\"{height}\" role=\"img\" aria-label=\"{title}\">"
        );
        let _ = writeln!(out, "<title>{title}</title>\n<style>{style}</style>");
        out.push_str(
            "<defs><marker id=\"a\" viewBox=\"0 0 8 8\" refX=\"8\" refY=\"4\" markerWidth=\"7\" markerHeight=\"7\" \
             orient=\"auto\"><path d=\"M0 0L8 4L0 8z\" fill=\"#57606a\"/></marker></defs>\n",
        );
    }

    /// The middle of a place; rows are centred.
    pub(crate) fn middle(&self, (row, at): (usize, usize), layout: &Layout) -> (usize, usize) {
        let pitch = self.box_width + GAP;
        let in_row = layout.widths.get(row).copied().unwrap_or(1);
        let indent = self.columns.saturating_sub(in_row) * pitch / 2;
        (MARGIN + indent + at * pitch + self.box_width / 2, MARGIN + row * ROW_HEIGHT + BOX_HEIGHT / 2)
    }
}

pub(crate) fn line(out: &mut String, frame: &Frame, layout: &Layout, line: &Line, class: &str) {
    let (Some(from), Some(to)) = (layout.steps.get(line.parent), layout.steps.get(line.child)) else {
        return;
    };
    let (x, y) = frame.middle(*from, layout);
    let (mut x, mut y) = (x, y + BOX_HEIGHT / 2);
    let _ = write!(out, "<path class=\"{class}\" d=\"M{x} {y}");
    let (end_x, end_y) = frame.middle(*to, layout);
    let turns = line.through.iter().map(|place| frame.middle(*place, layout));
    for (next_x, next_y) in turns.chain([(end_x, end_y - BOX_HEIGHT / 2)]) {
        let half = usize::midpoint(y, next_y);
        let _ = write!(out, "C{x} {half} {next_x} {half} {next_x} {next_y}");
        (x, y) = (next_x, next_y);
    }
    out.push_str("\"/>\n");
}

fn node(out: &mut String, frame: &Frame, (x, y): (usize, usize), step: &Step, is_optional: bool) {
    let (left, top) = (x - frame.box_width / 2, y - BOX_HEIGHT / 2);
    let (right, bottom) = (left + frame.box_width, top + BOX_HEIGHT);
    let dashes = if is_optional { " o" } else { "" };
    let name = escaped(&step.name);
    let _ = write!(out, "<g><title>{name}</title>");
    match step.step_type {
        StepType::Decision => {
            const CORNER: usize = 14;
            let _ = write!(
                out,
                "<path class=\"b{dashes}\" d=\"M{left} {y}L{} {top}L{} {top}L{right} {y}L{} {bottom}L{} {bottom}z\"/>",
                left + CORNER,
                right - CORNER,
                right - CORNER,
                left + CORNER
            );
        }
        kind => {
            let radius = if kind == StepType::DeferredConvergence { BOX_HEIGHT / 2 } else { 6 };
            let _ = write!(
                out,
                "<rect class=\"b{dashes}\" x=\"{left}\" y=\"{top}\" width=\"{}\" height=\"{BOX_HEIGHT}\" rx=\"{radius}\"/>",
                frame.box_width
            );
            if matches!(kind, StepType::Batchable | StepType::BatchWorker) {
                let _ = write!(
                    out,
                    "<rect class=\"b{dashes}\" x=\"{}\" y=\"{}\" width=\"{}\" height=\"{}\" rx=\"4\"/>",
                    left + 3,
                    top + 3,
                    frame.box_width - 6,
                    BOX_HEIGHT - 6
                );
            }
        }
    }
    let label = cut(&step.name);
    let base = if kind(step).is_some() { y - 2 } else { y + 4 };
    let _ = write!(out, "<text class=\"n\" x=\"{x}\" y=\"{base}\">{label}</text>");
    if let Some(kind) = kind(step) {
        let _ = write!(out, "<text class=\"k\" x=\"{x}\" y=\"{}\">{kind}</text>", y + 13);
    }
    out.push_str("</g>\n");
}

/// A label of at most [`LABEL_CHARS_MAX`], escaped.
pub(crate) fn cut(label: &str) -> String {
    match label.char_indices().nth(LABEL_CHARS_MAX) {
        Some((cut, _)) => escaped(&format!("{}…", label.get(..cut).unwrap_or_default())),
        None => escaped(label),
    }
}

/// Text as it may stand in XML, in attributes too.
pub(crate) fn escaped(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for one in text.chars() {
        match one {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            '\'' => out.push_str("&#39;"),
            one if one.is_control() => out.push(' '),
            one => out.push(one),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::escaped;

    #[test]
    fn text_cannot_leave_its_element() {
        assert_eq!(escaped("a\"<script>&'\u{1b}"), "a&quot;&lt;script&gt;&amp;&#39; ");
    }
}
