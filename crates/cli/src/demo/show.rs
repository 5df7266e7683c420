//! What the demo says on stderr while it runs: bars on a terminal, plain lines elsewhere.

use std::io::Write as _;
use std::time::Duration;

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

/// Between two frames of a bar that nothing else moves.
const FRAME: Duration = Duration::from_millis(100);

/// Says what goes on.
#[derive(Debug, Clone, Copy)]
pub(super) struct Show {
    is_terminal: bool,
}

/// One phase under way.
#[derive(Debug)]
pub(super) struct Bar(ProgressBar);

/// A line that stays. Whoever closed stderr does not want it.
pub(super) fn line(text: &str) {
    let _ = writeln!(anstream::stderr().lock(), "{text}");
}

impl Show {
    pub(super) fn new(is_terminal: bool) -> Self {
        Self { is_terminal }
    }

    /// A phase begins; `steps` of 0 if nobody knows how many there are.
    pub(super) fn phase(self, text: &str, steps: usize) -> Bar {
        if !self.is_terminal {
            line(&format!("{text} ..."));
            return Bar(ProgressBar::with_draw_target(None, ProgressDrawTarget::hidden()));
        }
        let bar = ProgressBar::new(u64::try_from(steps).unwrap_or(u64::MAX));
        let template = if steps > 0 {
            "{spinner} {prefix:<46} {bar:24} {pos:>5}/{len} {elapsed:>4}  {wide_msg}"
        } else {
            "{spinner} {prefix:<46} {elapsed:>4}  {wide_msg}"
        };
        // The template is a constant; were it wrong, the bar would look plain and the demo go on.
        if let Ok(style) = ProgressStyle::with_template(template) {
            bar.set_style(style);
        }
        bar.set_prefix(text.to_owned());
        bar.enable_steady_tick(FRAME);
        Bar(bar)
    }
}

impl Bar {
    pub(super) fn step(&self) {
        self.0.inc(1);
    }

    pub(super) fn say(&self, text: &str) {
        self.0.set_message(text.to_owned());
    }

    /// The phase is over, and this is what came of it.
    pub(super) fn done(&self, text: &str) {
        self.0.finish_and_clear();
        line(text);
    }
}

impl Drop for Bar {
    fn drop(&mut self) {
        self.0.finish_and_clear();
    }
}
