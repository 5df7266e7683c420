//! Ways to choose lives, played on traces of reads and changes: how often values are made, and how stale reads are.
//!
//! Everything follows from a trace and a way; staleness is not estimated but read off the trace: a read that is served a
//! value is as stale as the first change since that value was made is old.

mod least;
mod play;
mod traces;

pub use least::{Least, least};
pub use play::{Outcome, Way, play};
pub use traces::{Departure, Trace, bursts, flights, zipf};

use std::time::Duration;

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

/// Members of a family of ways that are tried: of lives so many between these, each about 2 % longer than the one before.
const LIVES: u32 = 600;
/// Shares of stale reads that the rule is given to plan with when it is told all rates.
const STALE_SHARE_RANGE: (f64, f64) = (1e-5, 0.5);
const LIFE_S_RANGE: (f64, f64) = (1.0, 172_800.0);

/// The adaptive way first, then the best fixed life, the best of those that multiply the lives of what is hot, and the best
/// that the same rule does when it is told all rates beforehand: each such that the 99th percentile of staleness is at most
/// that of the adaptive way. How far the adaptive one is from what is possible at all says [`least`].
///
/// Longer lives make values less often and serve them staler; so the longest one that is good enough is looked for by
/// halving, and its neighbours, since traces are not quite so orderly.
pub fn compare(trace: &Trace, settings: &Settings) -> Vec<Row> {
    let adaptive = Way::Adaptive(*settings);
    let base = play(trace, &adaptive);
    let mut rows = vec![Row { way: adaptive, outcome: Some(base), saved: None, cost_saved: None }];
    let life = |part: f64| between(LIFE_S_RANGE, part);
    // At the staleness that the adaptive way has, some share of reads may be staler.
    let staleness = Duration::try_from_secs_f64(base.staleness_p99_s).unwrap_or_default();
    let told = |part: f64| {
        let stale_share_max = between(STALE_SHARE_RANGE, part);
        let class_share_max = settings.class_share_max.max(stale_share_max);
        Way::Told(Settings { staleness, stale_share_max, class_share_max, ..*settings })
    };
    let families: [&dyn Fn(f64) -> Way; 3] =
        [&|part| Way::Fixed { life_s: life(part) }, &|part| Way::Multiply { base_s: life(part) }, &told];
    for family in families {
        let found = best(trace, family, base.staleness_p99_s);
        rows.push(Row {
            way: found.map_or_else(|| family(0.0), |(way, _)| way),
            outcome: found.map(|(_, outcome)| outcome),
            saved: found.map(|(_, other)| 1.0 - ratio(base.rebuilds, other.rebuilds)),
            cost_saved: found.map(|(_, other)| 1.0 - base.cost_s / other.cost_s.max(f64::MIN_POSITIVE)),
        });
    }
    rows
}

/// So far from one end to the other, by ratio.
fn between((low, high): (f64, f64), part: f64) -> f64 {
    low * (high / low).powf(part)
}

/// Of a family of ways, from the least stale one at 0 to the stalest at 1.
fn best(trace: &Trace, family: &dyn Fn(f64) -> Way, staleness_p99_s: f64) -> Option<(Way, Outcome)> {
    /// Neighbours that are looked at on either side.
    const NEIGHBOURS: u32 = 6;
    let at = |place: u32| {
        let way = family(f64::from(place) / f64::from(LIVES - 1));
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
