//! An analysis as text, and as a picture: the critical path stands out, and so does what failed or waits.
//!
//! Names come from whoever wrote the template: each form escapes them, so that none can be more than a label.

use std::collections::HashMap;
use std::fmt::Write as _;
use std::time::Duration;

use super::{Basis, Measure, StepPlan};
use crate::job::JobState;
use crate::template::draw::{
    BOX_HEIGHT, Frame, layout, line, mermaid_label, on_one_line, svg_label, xml_text,
};
use crate::template::graph::{Graph, StepIndex};

/// Steps of a graph that a server draws.
pub const DRAWN_STEPS_MAX: usize = 5_000;
/// Dependencies of such a graph.
pub const DRAWN_LINES_MAX: usize = 20_000;

/// A graph is too large to be drawn for somebody else.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error(
    "the graph has {steps} steps and {lines} dependencies: drawn are at most {DRAWN_STEPS_MAX} and {DRAWN_LINES_MAX}"
)]
pub struct TooLarge {
    /// How many steps it has.
    pub steps: usize,
    /// How many dependencies.
    pub lines: usize,
}

/// Whether a graph is small enough for a picture that somebody else pays for: some megabytes at most.
pub fn check_size(graph: &Graph) -> Result<(), TooLarge> {
    let steps = graph.len();
    let lines = (0..steps).map(|step| graph.dependencies(step).len()).sum();
    if steps <= DRAWN_STEPS_MAX && lines <= DRAWN_LINES_MAX {
        return Ok(());
    }
    Err(TooLarge { steps, lines })
}

/// What is drawn.
#[derive(Debug, Clone, Copy)]
pub struct Drawing<'a> {
    /// What it is called.
    pub title: &'a str,
    /// The steps.
    pub graph: &'a Graph,
    /// Their names, by number.
    pub names: &'a [String],
    /// Their states, by number; `None` in a template.
    pub states: &'a [Option<JobState>],
    /// What lengths are made of.
    pub measure: Measure,
    /// Every step's place in time, by its number.
    pub steps: &'a [StepPlan],
    /// The longest way through, from its first step to its last.
    pub critical_path: &'a [StepIndex],
}

impl Drawing<'_> {
    fn name(&self, step: StepIndex) -> &str {
        self.names.get(step).map_or("", String::as_str)
    }

    fn state(&self, step: StepIndex) -> Option<JobState> {
        self.states.get(step).copied().flatten()
    }

    fn is_critical(&self, step: StepIndex) -> bool {
        self.steps.get(step).is_some_and(|step| step.is_critical)
    }

    /// Of each step of the critical path the one that follows it there.
    fn critical_lines(&self) -> HashMap<StepIndex, StepIndex> {
        self.critical_path.iter().copied().zip(self.critical_path.iter().copied().skip(1)).collect()
    }

    /// What stands below a step's name.
    fn facts(&self, step: StepIndex) -> String {
        let Some(plan) = self.steps.get(step) else { return String::new() };
        let mut facts = Vec::new();
        facts.extend(self.state(step).map(|state| state.as_str().to_owned()));
        if self.measure == Measure::Time {
            let about = matches!(plan.basis, Basis::Measured | Basis::Elapsed);
            facts.push(format!("{}{}", if about { "" } else { "~" }, shown(plan.duration)));
        }
        if !plan.slack.is_zero() {
            facts.push(format!("slack {}", self.length(plan.slack)));
        }
        facts.join(", ")
    }

    /// A length, in time or in steps.
    fn length(&self, length: Duration) -> String {
        match self.measure {
            Measure::Time => shown(length),
            Measure::Steps if length.as_secs() == 1 => "1 step".to_owned(),
            Measure::Steps => format!("{} steps", length.as_secs()),
        }
    }
}

/// One line a step, by levels; `*` is on the critical path.
///
/// ```text
/// level 1
///   * fetch (completed, 1.2 s)
/// level 2
///     tax (running, ~2.0 s, slack 1.5 s) <- fetch
///   * bill (queued, ~3.5 s) <- fetch
/// ```
pub fn text(drawing: &Drawing<'_>) -> String {
    let mut out = String::new();
    for (level, steps) in drawing.graph.levels().iter().enumerate() {
        // Writing to a text cannot fail.
        let _ = writeln!(out, "level {}", level + 1);
        for &step in steps {
            let mark = if drawing.is_critical(step) { '*' } else { ' ' };
            let facts = drawing.facts(step);
            let facts = if facts.is_empty() { facts } else { format!(" ({facts})") };
            let waits: Vec<&str> =
                drawing.graph.dependencies(step).iter().map(|before| drawing.name(*before)).collect();
            let waits = if waits.is_empty() {
                String::new()
            } else {
                format!(" <- {}", on_one_line(&waits.join(", ")))
            };
            let _ = writeln!(out, "  {mark} {}{facts}{waits}", on_one_line(drawing.name(step)));
        }
    }
    out
}

/// A Mermaid flow chart: thick lines on the critical path, colours by state.
pub fn mermaid(drawing: &Drawing<'_>) -> String {
    let mut out = String::from("flowchart TD\n");
    for step in 0..drawing.graph.len() {
        let facts = drawing.facts(step);
        let facts = if facts.is_empty() { facts } else { format!("<br/>{}", mermaid_label(&facts)) };
        let class =
            drawing.state(step).and_then(class).map_or_else(String::new, |class| format!(":::{class}"));
        let _ = writeln!(out, "    s{step}[\"{}{facts}\"]{class}", mermaid_label(drawing.name(step)));
    }
    let critical = drawing.critical_lines();
    for child in 0..drawing.graph.len() {
        for &parent in drawing.graph.dependencies(child) {
            let arrow = if critical.get(&parent) == Some(&child) { "==>" } else { "-->" };
            let _ = writeln!(out, "    s{parent} {arrow} s{child}");
        }
    }
    out.push_str(
        "    classDef done fill:#dafbe1,stroke:#1a7f37\n    classDef active fill:#ddf4ff,stroke:#0969da\n    \
         classDef bad fill:#ffebe9,stroke:#cf222e\n    classDef waits stroke-dasharray:5 3\n",
    );
    out
}

const STYLE: &str = "\
.b{fill:#f6f8fa;stroke:#57606a;stroke-width:1.2}\
.c{stroke-width:2.8}\
.done{fill:#dafbe1;stroke:#1a7f37}.active{fill:#ddf4ff;stroke:#0969da}.bad{fill:#ffebe9;stroke:#cf222e}\
.waits{stroke-dasharray:5 3}\
.l{fill:none;stroke:#57606a;stroke-width:1.2;marker-end:url(#a)}\
.n{font:13px ui-sans-serif,system-ui,sans-serif;fill:#1f2328;text-anchor:middle}\
.k{font:10px ui-sans-serif,system-ui,sans-serif;fill:#57606a;text-anchor:middle}\
@media(prefers-color-scheme:dark){.b{fill:#161b22;stroke:#8b949e}.done{fill:#12261e;stroke:#3fb950}\
.active{fill:#0c2d6b;stroke:#58a6ff}.bad{fill:#3c1618;stroke:#f85149}.l{stroke:#8b949e}.n{fill:#e6edf3}\
.k{fill:#8b949e}#a path{fill:#8b949e}}";

/// An SVG picture: rows from above, strong what is on the critical path, colours by state.
pub fn svg(drawing: &Drawing<'_>) -> String {
    let layout = layout(drawing.graph);
    let facts: Vec<String> = (0..drawing.graph.len()).map(|step| drawing.facts(step)).collect();
    let labels = drawing.names.iter().map(String::as_str).chain(facts.iter().map(String::as_str));
    let frame = Frame::new(&layout, labels);
    let mut out = String::new();
    frame.begin(&mut out, &layout, drawing.title, STYLE);
    let critical = drawing.critical_lines();
    for one in &layout.lines {
        let class = if critical.get(&one.parent) == Some(&one.child) { "l c" } else { "l" };
        line(&mut out, &frame, &layout, one, class);
    }
    for (step, facts) in facts.iter().enumerate() {
        let Some(place) = layout.steps.get(step) else { continue };
        let (x, y) = frame.middle(*place, &layout);
        let name = drawing.name(step);
        let state = drawing.state(step).and_then(class).unwrap_or_default();
        let critical = if drawing.is_critical(step) { " c" } else { "" };
        let _ = write!(
            out,
            "<g><title>{}</title><rect class=\"b {state}{critical}\" x=\"{}\" y=\"{}\" width=\"{}\" height=\"{}\" rx=\"6\"/>",
            xml_text(name),
            x - frame.box_width / 2,
            y - BOX_HEIGHT / 2,
            frame.box_width,
            BOX_HEIGHT
        );
        let _ = write!(out, "<text class=\"n\" x=\"{x}\" y=\"{}\">{}</text>", y - 2, svg_label(name));
        let _ = writeln!(out, "<text class=\"k\" x=\"{x}\" y=\"{}\">{}</text></g>", y + 13, svg_label(facts));
    }
    out.push_str("</svg>\n");
    out
}

fn class(state: JobState) -> Option<&'static str> {
    match state {
        JobState::Completed | JobState::Skipped | JobState::Resolved => Some("done"),
        JobState::Running => Some("active"),
        JobState::Failed | JobState::Cancelled | JobState::Superseded => Some("bad"),
        JobState::Blocked => Some("waits"),
        JobState::Queued => None,
    }
}

/// A duration with one unit, or two where one says too little.
fn shown(duration: Duration) -> String {
    let (ms, seconds) = (duration.as_millis(), duration.as_secs());
    if seconds == 0 {
        format!("{ms} ms")
    } else if seconds < 60 {
        format!("{seconds}.{} s", duration.subsec_millis() / 100)
    } else if seconds < 3_600 {
        format!("{} m {} s", seconds / 60, seconds % 60)
    } else {
        format!("{} h {} m", seconds / 3_600, seconds % 3_600 / 60)
    }
}
