//! Ways to choose lives, played on traces of reads and changes: how often values are made, and how stale reads are.
//!
//! Everything follows from a trace and a way; staleness is not estimated but read off the trace: a read that is served a
//! value is as stale as the first change since that value was made is old.

mod play;
mod traces;

pub use play::{Outcome, Way, play};
pub use traces::{Departure, Trace, bursts, flights, zipf};

use super::settings::Settings;

/// How a way did beside the adaptive one.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Row {
    /// Which way; of a family of ways, the member with fewest rebuilds whose staleness is no worse than the adaptive one's.
    pub way: Way,
    /// How it did; `None` where no member is as good.
    pub outcome: Option<Outcome>,
    /// What part of its rebuilds the adaptive way saves.
    pub saved: Option<f64>,
    /// The same of what its rebuilds cost.
    pub cost_saved: Option<f64>,
}

/// Lives that are tried of a family of ways: so many between these, each about 2 % longer than the one before.
const LIVES: u32 = 600;
const LIFE_S_RANGE: (f64, f64) = (1.0, 172_800.0);

/// The adaptive way first, then the best fixed life, then the best of those that multiply the lives of what is hot: each such
/// that the 99th percentile of staleness is at most that of the adaptive way.
///
/// Longer lives make values less often and serve them staler; so the longest one that is good enough is looked for by
/// halving, and its neighbours, since traces are not quite so orderly.
pub fn compare(trace: &Trace, settings: &Settings) -> Vec<Row> {
    let adaptive = Way::Adaptive(*settings);
    let base = play(trace, &adaptive);
    let mut rows = vec![Row { way: adaptive, outcome: Some(base), saved: None, cost_saved: None }];
    let families: [fn(f64) -> Way; 2] = [|life_s| Way::Fixed { life_s }, |base_s| Way::Multiply { base_s }];
    for family in families {
        let found = best(trace, family, base.staleness_p99_s);
        rows.push(Row {
            way: found.map_or_else(|| family(LIFE_S_RANGE.0), |(way, _)| way),
            outcome: found.map(|(_, outcome)| outcome),
            saved: found.map(|(_, other)| 1.0 - ratio(base.rebuilds, other.rebuilds)),
            cost_saved: found.map(|(_, other)| 1.0 - base.cost_s / other.cost_s.max(f64::MIN_POSITIVE)),
        });
    }
    rows
}

fn best(trace: &Trace, family: fn(f64) -> Way, staleness_p99_s: f64) -> Option<(Way, Outcome)> {
    /// Neighbours that are looked at on either side.
    const NEIGHBOURS: u32 = 6;
    let (shortest, longest) = LIFE_S_RANGE;
    let at = |place: u32| {
        let part = f64::from(place) / f64::from(LIVES - 1);
        let way = family(shortest * (longest / shortest).powf(part));
        (way, play(trace, &way))
    };
    let is_good = |outcome: &Outcome| outcome.staleness_p99_s <= staleness_p99_s;
    let (mut good, mut bad) = (0, LIVES);
    while bad - good > 1 {
        let middle = u32::midpoint(good, bad);
        if is_good(&at(middle).1) { good = middle } else { bad = middle }
    }
    (good.saturating_sub(1)..LIVES.min(good + NEIGHBOURS))
        .map(at)
        .filter(|(_, outcome)| is_good(outcome))
        .min_by_key(|(_, outcome)| outcome.rebuilds)
}

fn ratio(part: u64, whole: u64) -> f64 {
    let number = |count: u64| f64::from(u32::try_from(count).unwrap_or(u32::MAX));
    if whole == 0 { 1.0 } else { number(part) / number(whole) }
}
