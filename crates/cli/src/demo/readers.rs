//! Readers that read all the time and hold what they get against itself.
//!
//! Every read asks for an alliance's summary and a few of its items. The summary lists the fingerprint of every
//! item, so a read can be judged by itself: an item that the summary names and that is absent is a *miss*, as is an
//! absent summary; an item with another fingerprint, or one that the summary does not name, is a *torn read*.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use recache_engine::Engine;
use serde::Deserialize;
use tokio::task::JoinSet;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::figures::{SUMMARY, Summary};
use super::schedule::{ALLIANCES, Dice};
use super::tally::Figures;
use super::without::Table;

/// Readers at once.
pub(super) const READERS: usize = 4;
/// Each rests this long between two reads, so that the machine has time for the builds.
const READ_PAUSE: Duration = Duration::from_millis(2);
/// Items of a read besides the summary.
const ITEMS_A_READ: usize = 4;
/// The namespace of the demo's views.
pub(super) const NAMESPACE: &str = "alliance";

/// What readers read from.
#[derive(Debug, Clone)]
pub(super) enum Source {
    Views(Engine),
    Table(Arc<Table>),
}

impl Source {
    async fn read(&self, alliance: &str, items: &[&str]) -> recache_engine::Result<Vec<Option<Arc<String>>>> {
        Ok(match self {
            Self::Views(engine) => engine.read_items(NAMESPACE, alliance, items).await?.values,
            Self::Table(table) => table.read(alliance, items),
        })
    }
}

#[derive(Debug, Default)]
struct Seen {
    latencies_us: Vec<u64>,
    misses: u64,
    torn: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Verdict {
    Whole,
    Miss,
    Torn,
}

/// Running readers.
#[derive(Debug)]
pub(super) struct Readers {
    tasks: JoinSet<recache_engine::Result<Seen>>,
    stop: CancellationToken,
    began: Instant,
}

impl Readers {
    /// Every alliance must be readable by now.
    pub(super) fn start(source: &Source, seed: u64) -> Self {
        let (mut tasks, stop) = (JoinSet::new(), CancellationToken::new());
        for number in 0..READERS {
            let dice = Dice(seed ^ u64::try_from(number + 1).unwrap_or(0).rotate_left(32));
            tasks.spawn(read_on(source.clone(), dice, stop.clone()));
        }
        Self { tasks, stop, began: Instant::now() }
    }

    /// Ends them and fills in what they saw.
    pub(super) async fn finish(mut self, figures: &mut Figures) -> recache_engine::Result<()> {
        let took = self.began.elapsed();
        self.stop.cancel();
        let mut latencies = Vec::new();
        while let Some(seen) = self.tasks.join_next().await {
            let seen = seen.unwrap_or_else(|_| Err(recache_engine::Error::ShuttingDown))?;
            latencies.extend(seen.latencies_us);
            figures.misses += seen.misses;
            figures.torn_reads += seen.torn;
        }
        latencies.sort_unstable();
        figures.reads = u64::try_from(latencies.len()).unwrap_or(u64::MAX);
        let ms = u64::try_from(took.as_millis()).unwrap_or(u64::MAX).max(1);
        figures.reads_per_second = figures.reads * 1000 / ms;
        let rank = |percent: usize| {
            let rank = (latencies.len() * percent).div_ceil(100);
            rank.checked_sub(1).and_then(|place| latencies.get(place)).copied().unwrap_or(0)
        };
        (figures.read_p50_us, figures.read_p99_us) = (rank(50), rank(99));
        Ok(())
    }
}

async fn read_on(source: Source, mut dice: Dice, stop: CancellationToken) -> recache_engine::Result<Seen> {
    let mut seen = Seen::default();
    let mut known: BTreeMap<&str, Vec<String>> = BTreeMap::new();
    while stop.run_until_cancelled(tokio::time::sleep(READ_PAUSE)).await.is_some() {
        let alliance = ALLIANCES[dice.below(ALLIANCES.len())];
        let items = known.entry(alliance).or_default();
        let mut asked = vec![SUMMARY.to_owned()];
        for _ in 0..ITEMS_A_READ.min(items.len()) {
            let item = &items[dice.below(items.len())];
            if !asked.contains(item) {
                asked.push(item.clone());
            }
        }
        let names: Vec<&str> = asked.iter().map(String::as_str).collect();
        let began = Instant::now();
        let found = source.read(alliance, &names).await?;
        seen.latencies_us.push(u64::try_from(began.elapsed().as_micros()).unwrap_or(u64::MAX));
        let (verdict, summary) = judge(&names, &found);
        match verdict {
            Verdict::Whole => {}
            Verdict::Miss => seen.misses += 1,
            Verdict::Torn => seen.torn += 1,
        }
        if let Some(summary) = summary {
            *items = summary.into_keys().collect();
        }
    }
    Ok(seen)
}

#[derive(Debug, Deserialize)]
struct Marked {
    fingerprint: String,
}

/// The first name asked for is the summary. A value that cannot be read contradicts everything.
fn judge(asked: &[&str], found: &[Option<Arc<String>>]) -> (Verdict, Option<Summary>) {
    let Some(Some(summary)) = found.first() else { return (Verdict::Miss, None) };
    let Ok(summary) = serde_json::from_str::<Summary>(summary) else { return (Verdict::Torn, None) };
    let mut verdict = Verdict::Whole;
    for (name, value) in asked.iter().zip(found).skip(1) {
        match (summary.get(*name), value) {
            (None, None) => {}
            (Some(_), None) => verdict = Verdict::Miss,
            (expected, Some(value)) => {
                let marked = serde_json::from_str::<Marked>(value).ok().map(|marked| marked.fingerprint);
                if marked.as_ref() != expected || marked.is_none() {
                    return (Verdict::Torn, Some(summary));
                }
            }
        }
    }
    (verdict, Some(summary))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn verdict(found: &[Option<&str>]) -> Verdict {
        let found: Vec<_> = found.iter().map(|value| value.map(|text| Arc::new(text.to_owned()))).collect();
        judge(&[SUMMARY, "ATL", "BOS"], &found).0
    }

    #[test]
    fn a_read_is_judged_by_its_own_summary() {
        let summary = Some(r#"{"ATL":"1:AA+DL"}"#);
        let (same, other) = (Some(r#"{"fingerprint":"1:AA+DL"}"#), Some(r#"{"fingerprint":"1:AA+UA"}"#));
        assert_eq!(verdict(&[summary, same, None]), Verdict::Whole);
        assert_eq!(verdict(&[summary, None, None]), Verdict::Miss, "named and absent");
        assert_eq!(verdict(&[None, same, None]), Verdict::Miss, "no summary");
        assert_eq!(verdict(&[summary, other, None]), Verdict::Torn, "of another build");
        assert_eq!(verdict(&[summary, same, same]), Verdict::Torn, "not named and there");
        assert_eq!(verdict(&[summary, Some("{}"), None]), Verdict::Torn, "cannot be read");
    }
}
