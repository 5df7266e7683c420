//! What one side of the comparison did.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use serde::Serialize;
use tokio::sync::watch;

use super::schedule::ALLIANCES;

/// The figures of one side. Their names are those of the JSON document, and stay.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub(super) struct Figures {
    /// One for every change.
    pub(super) builds_requested: u64,
    /// Builds that began to run.
    pub(super) builds_started: u64,
    /// Build jobs that ended because a newer version was wanted, whether or not they had begun to run.
    pub(super) builds_superseded: u64,
    /// Builds whose result readers got to see.
    pub(super) builds_published: u64,
    /// Item values computed, in all builds.
    pub(super) items_computed: u64,
    /// Items that a published build took over instead of computing them.
    pub(super) items_reused: u64,
    /// Of the computed ones: of no use to any reader. Either they were never published, or out of date when their
    /// rebuild ended, or made from the same inputs as the value that had been there.
    pub(super) items_wasted: u64,
    /// `items_wasted` in percent of `items_computed`.
    pub(super) wasted_percent: f64,
    /// Of the computed ones: the same inputs had been computed just before for the same item.
    pub(super) items_computed_again: u64,
    /// From the last change until every alliance shows it.
    pub(super) fresh_after_ms: u64,
    /// From the last change until nothing is left to be built.
    pub(super) idle_after_ms: u64,
    /// Reads, each of several items.
    pub(super) reads: u64,
    pub(super) reads_per_second: u64,
    pub(super) read_p50_us: u64,
    pub(super) read_p99_us: u64,
    /// Reads that found nothing where there had been something.
    pub(super) misses: u64,
    /// Reads whose items contradict each other.
    pub(super) torn_reads: u64,
    /// Alliances whose items are not what they must be when all is done.
    pub(super) alliances_wrong: Vec<String>,
}

#[derive(Debug, Default)]
struct Built {
    started: u64,
    computed: u64,
    computed_again: u64,
    wasted: u64,
    /// Fingerprint of what was computed last, by alliance and item.
    last: HashMap<(String, String), String>,
    /// Computed and not yet seen by a reader, by alliance.
    unpublished: HashMap<String, HashMap<(String, String), u64>>,
    /// A version that is complete and may have been published, by alliance.
    complete: HashMap<String, (i64, Vec<(String, String)>)>,
}

/// Kept by the handlers of one side while they build.
#[derive(Debug, Default)]
pub(super) struct Tally(Mutex<Built>);

impl Tally {
    fn built(&self) -> MutexGuard<'_, Built> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Forgets the counts, not what is known of values: measuring begins.
    pub(super) fn begin(&self) {
        let mut built = self.built();
        (built.started, built.computed, built.computed_again, built.wasted) = (0, 0, 0, 0);
        built.unpublished.clear();
        built.complete.clear();
    }

    /// A build began to run.
    pub(super) fn started(&self) {
        self.built().started += 1;
    }

    /// A value was computed. True: from the same inputs as the last one for this item.
    pub(super) fn computed(&self, alliance: &str, item: &str, fingerprint: &str) -> bool {
        let mut built = self.built();
        built.computed += 1;
        let before = built.last.insert((alliance.to_owned(), item.to_owned()), fingerprint.to_owned());
        let is_again = before.as_deref() == Some(fingerprint);
        built.computed_again += u64::from(is_again);
        *built
            .unpublished
            .entry(alliance.to_owned())
            .or_default()
            .entry((item.to_owned(), fingerprint.to_owned()))
            .or_default() += 1;
        is_again
    }

    /// A build is complete and goes to publication; whether it gets there shows in [`published`](Self::published).
    pub(super) fn complete(&self, alliance: &str, version: i64, items: Vec<(String, String)>) {
        self.built().complete.insert(alliance.to_owned(), (version, items));
    }

    /// This version is live: of what was computed, its items were of use, once each, and the rest will never be,
    /// for publication forgets what earlier builds had staged.
    pub(super) fn published(&self, alliance: &str, live: i64) {
        let mut built = self.built();
        let Some((version, items)) = built.complete.remove(alliance) else { return };
        if version != live {
            return;
        }
        let unpublished = built.unpublished.remove(alliance).unwrap_or_default();
        let all: u64 = unpublished.values().sum();
        let used = items.iter().filter(|item| unpublished.contains_key(*item)).count();
        built.wasted += all - u64::try_from(used).unwrap_or(0).min(all);
    }

    /// So many computed values turned out to be of no use.
    pub(super) fn wasted(&self, count: u64) {
        self.built().wasted += count;
    }

    /// Fills in what is counted here. What was never published is of no use by now.
    pub(super) fn fill(&self, figures: &mut Figures, counts_publication: bool) {
        let built = self.built();
        let left: u64 = built.unpublished.values().flat_map(HashMap::values).sum();
        figures.builds_started = built.started;
        figures.items_computed = built.computed;
        figures.items_computed_again = built.computed_again;
        figures.items_wasted = built.wasted + if counts_publication { left } else { 0 };
        figures.wasted_percent = percent(figures.items_wasted, figures.items_computed);
    }
}

/// To one decimal place; 0 of nothing.
fn percent(part: u64, whole: u64) -> f64 {
    let per_thousand = (part * 1000 + whole / 2).checked_div(whole).unwrap_or(0);
    f64::from(u32::try_from(per_thousand).unwrap_or(u32::MAX)) / 10.0
}

/// Whole milliseconds.
pub(super) fn milliseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

/// How far the running build of each alliance is: items done, of how many. Whoever makes the changes looks at it to
/// come just before the end.
#[derive(Debug)]
pub(super) struct Progress(BTreeMap<&'static str, watch::Sender<(usize, usize)>>);

impl Progress {
    pub(super) fn new() -> Self {
        Self(ALLIANCES.iter().map(|name| (*name, watch::Sender::new((0, 0)))).collect())
    }

    /// A build of so many items begins.
    pub(super) fn begin(&self, alliance: &str, items: usize) {
        if let Some(progress) = self.0.get(alliance) {
            progress.send_replace((0, items));
        }
    }

    /// One item more is done.
    pub(super) fn advance(&self, alliance: &str) {
        if let Some(progress) = self.0.get(alliance) {
            progress.send_modify(|(done, _)| *done += 1);
        }
    }

    /// Waits until a build of `alliance` has nine tenths of its items and not all; at most `wait`.
    pub(super) async fn nearly_done(&self, alliance: &str, wait: Duration) {
        if let Some(progress) = self.0.get(alliance) {
            let mut progress = progress.subscribe();
            let nearly = progress.wait_for(|(done, items)| done * 10 >= items * 9 && done < items);
            let _ = tokio::time::timeout(wait, nearly).await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn item(name: &str, fingerprint: &str) -> (String, String) {
        (name.to_owned(), fingerprint.to_owned())
    }

    #[test]
    fn what_was_computed_for_a_superseded_build_and_then_published_is_not_wasted() {
        let tally = Tally::default();
        tally.computed("north", "ATL", "1"); // by a build that is superseded
        tally.computed("north", "BOS", "1"); // likewise, and BOS changes before the next
        tally.computed("north", "BOS", "2");
        tally.complete("north", 3, vec![item("ATL", "1"), item("BOS", "2"), item("MIA", "0")]);
        tally.published("north", 3);
        tally.computed("north", "ATL", "2"); // never published
        let mut figures = Figures::default();
        tally.fill(&mut figures, true);
        assert_eq!((figures.items_computed, figures.items_wasted), (4, 2));
        assert!((figures.wasted_percent - 50.0).abs() < f64::EPSILON);
    }

    #[test]
    fn a_complete_build_that_was_refused_publishes_nothing() {
        let tally = Tally::default();
        tally.computed("north", "ATL", "1");
        tally.complete("north", 3, vec![item("ATL", "1")]);
        tally.published("north", 2);
        tally.computed("north", "ATL", "1");
        tally.complete("north", 4, vec![item("ATL", "1")]);
        tally.published("north", 4);
        let mut figures = Figures::default();
        tally.fill(&mut figures, true);
        assert_eq!(
            (figures.items_wasted, figures.items_computed_again),
            (1, 1),
            "one of the two was in vain"
        );
    }

    #[tokio::test]
    async fn nearly_done_is_nine_tenths_and_not_the_end() {
        let progress = Progress::new();
        progress.begin("north", 10);
        let long = Duration::from_hours(1);
        let mut waiting = std::pin::pin!(progress.nearly_done("north", long));
        for done in 0..9 {
            let waits = tokio::time::timeout(Duration::ZERO, &mut waiting).await;
            assert!(waits.is_err(), "after {done} of 10");
            progress.advance("north");
        }
        waiting.await;
    }
}
