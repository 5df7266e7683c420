//! What handlers take when few run.

use std::collections::BTreeMap;
use std::time::Duration;

use super::Runs;

/// Handlers that are told apart; others have no say.
pub const HANDLERS_MAX: usize = 1_000;
/// Runs of a handler in a window that say something about their mean.
const RUNS_MIN: u32 = 10;
/// What takes less is over before anything could stand in its way; and so small a difference is none.
const NOTABLE: Duration = Duration::from_millis(2);
/// No handler counts as slower.
const SLOWDOWN_MAX: f64 = 20.0;

/// The least means that were seen, in seconds.
#[derive(Debug, Clone, PartialEq, Default)]
pub(super) struct Baselines {
    by_handler: BTreeMap<String, f64>,
}

impl Baselines {
    /// How many times longer jobs took than when few run, on average; `None` when too few ended to tell. Takes note of what was seen.
    pub(super) fn slowdown(&mut self, runs: &[Runs]) -> Option<f64> {
        let (mut slowdowns, mut count) = (0.0, 0.0);
        for of in runs.iter().filter(|of| of.count >= RUNS_MIN) {
            let mean = of.sum.as_secs_f64() / f64::from(of.count);
            let Some(least) = self.least(&of.handler, mean) else { continue };
            let slowdown = if mean - least < NOTABLE.as_secs_f64() { 1.0 } else { mean / least.max(1e-6) };
            // By time and not by number: a slot is taken for as long as a job runs.
            slowdowns += slowdown.min(SLOWDOWN_MAX) * of.sum.as_secs_f64();
            count += of.sum.as_secs_f64();
        }
        (count > 0.0).then(|| (slowdowns / count).max(1.0))
    }

    fn least(&mut self, handler: &str, mean: f64) -> Option<f64> {
        if let Some(least) = self.by_handler.get_mut(handler) {
            // Half of the way down, so that one lucky window does not settle it.
            if mean < *least {
                *least = f64::midpoint(mean, *least);
            }
            return Some(*least);
        }
        if self.by_handler.len() >= HANDLERS_MAX {
            return None;
        }
        self.by_handler.insert(handler.to_owned(), mean);
        Some(mean)
    }

    /// What was seen is how long it takes now.
    pub(super) fn accept(&mut self, runs: &[Runs]) {
        for of in runs.iter().filter(|of| of.count >= RUNS_MIN) {
            if let Some(least) = self.by_handler.get_mut(&of.handler) {
                *least = of.sum.as_secs_f64() / f64::from(of.count);
            }
        }
    }
}
