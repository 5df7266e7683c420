//! What the caches of a whole fleet answered: the reads that each process counted for itself ([`Stats`]), summed over all of them, those
//! that have ended included.
//!
//! Each process adds what is new since the last time, every now and then ([`FleetReads::share`]), to one record in the backend. The record
//! has a part for each run of a process, in numbered batches ([`Coordination::merged`]): an answer that is lost, a call that is
//! repeated and a process that dies leave nothing counted twice, and what was shared stays. A process that is killed takes
//! with it what it counted since it shared last.

use std::sync::Arc;

use serde::Serialize;
use tokio::sync::Mutex;

use crate::cache::Cache;
use crate::chance::{Chance, SystemChance};
use crate::clock::Clock;
use crate::coordination::{Coordination, Error, Gauge, Instance, Limits, Strategy, Tally};
use crate::provider::MonotonicClock;
use crate::stats::{Stats, UsageReads};
use crate::usage::Usage;

/// The usages that are told apart, in the order in which the record has them; all others are `other`. When it changes, [`NAME`] does.
const USAGES: [Usage; 7] = [
    Usage::Template,
    Usage::Analytics,
    Usage::GraphAnalysis,
    Usage::Handlers,
    Usage::HealthDetail,
    Usage::JobState,
    Usage::ViewItem,
];
const OTHER: &str = "other";
/// Hits, stale hits, misses, loads.
const KINDS: usize = 4;
const CELLS: usize = (USAGES.len() + 1) * KINDS;
/// Of the record. A version that counts other things has a record of its own.
const NAME: &str = "cache-reads-1";

/// Reads of all processes. Cheap to clone; all clones share as one process.
#[derive(Debug, Clone)]
pub struct FleetReads(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    cache: Cache,
    instance: Instance,
    clock: Arc<dyn Clock>,
    chance: Arc<dyn Chance>,
    limits: Limits,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    coordination: Option<Coordination>,
    /// What was handed to it.
    given: Vec<u64>,
}

/// What all processes together have counted.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct FleetFigures {
    /// How it is summed. `local_only`: over this process alone, because the backend cannot.
    pub strategy: Strategy,
    /// Why so, in words.
    pub why: &'static str,
    /// Processes that were heard of within [`Limits::instance_expiry`].
    pub instances: u64,
    /// By usage: those that were ever asked for.
    pub usages: Vec<FleetUsage>,
}

/// Reads of one usage in all processes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct FleetUsage {
    /// Its name; `other` for all that are the program's own.
    pub usage: &'static str,
    /// Answered with a fresh entry, out of the process or by the backend.
    pub hits: u64,
    /// Answered with an entry past its freshness.
    pub stale_hits: u64,
    /// Not answered.
    pub misses: u64,
    /// Runs of a loader: values that were made again.
    pub loads: u64,
}

impl FleetReads {
    /// Of this cache, in this run of this process.
    pub fn new(cache: &Cache, instance: Instance, clock: Arc<dyn Clock>) -> Self {
        Self::with_limits(cache, instance, clock, Limits::default())
    }

    /// The same with limits of the caller's.
    pub fn with_limits(cache: &Cache, instance: Instance, clock: Arc<dyn Clock>, limits: Limits) -> Self {
        Self(Arc::new(Inner {
            cache: cache.clone(),
            instance,
            clock,
            chance: Arc::new(SystemChance::default()),
            limits,
            state: Mutex::default(),
        }))
    }

    /// Adds what this process counted since the last time, and says that it lives. What an error leaves behind goes with the next
    /// call: nothing has to be repeated.
    pub async fn share(&self) -> Result<(), Error> {
        let mut state = self.0.state.lock().await;
        let (tally, present) = self.kept(&mut state)?;
        let counted = cells(&self.0.cache.stats());
        let deltas: Vec<i64> = counted
            .iter()
            .zip(&state.given)
            .map(|(now, given)| i64::try_from(now.saturating_sub(*given)).unwrap_or(i64::MAX))
            .collect();
        // From here on it is the tally's to bring it there: it keeps what it could not send.
        state.given = counted;
        tally.add(&deltas).await?;
        present.set(1).await
    }

    /// What all have shared. Adds nothing: who only looks is not counted among them.
    pub async fn read(&self) -> Result<FleetFigures, Error> {
        let mut state = self.0.state.lock().await;
        let (tally, present) = self.kept(&mut state)?;
        let explanation = state.coordination.as_ref().map(|kept| kept.explain().clone());
        drop(state);
        let (totals, instances) = (tally.totals().await?, present.readings().await?.len());
        Ok(FleetFigures {
            strategy: explanation.as_ref().map_or(Strategy::LocalOnly, |explanation| explanation.strategy),
            why: explanation.map_or("", |explanation| explanation.why),
            instances: u64::try_from(instances).unwrap_or(u64::MAX),
            usages: usages(&totals),
        })
    }

    /// Where it is kept. A backend that is not connected yet can do nothing together: until it is, this process counts for itself, and
    /// then hands over all of it.
    fn kept(&self, state: &mut State) -> Result<(Tally, Gauge), Error> {
        let provider = self.0.cache.provider();
        let chosen =
            Strategy::choose(provider.name(), &provider.capabilities(), provider.atomics().is_some());
        let is_better = |kept: &Coordination| {
            kept.strategy() == Strategy::LocalOnly && chosen.strategy != Strategy::LocalOnly
        };
        let former = state.coordination.take().filter(|kept| !is_better(kept));
        let kept = former.unwrap_or_else(|| {
            state.given = vec![0; CELLS];
            Coordination::with_limits(
                Arc::clone(provider),
                self.0.cache.keys(),
                self.0.instance.clone(),
                Arc::clone(&self.0.clock),
                Arc::clone(&self.0.chance),
                Arc::new(MonotonicClock::new()),
                self.0.limits.clone(),
            )
            .merged()
        });
        let parts = (kept.tally(NAME, CELLS)?, kept.gauge(NAME));
        state.coordination = Some(kept);
        Ok(parts)
    }
}

fn cells(stats: &Stats) -> Vec<u64> {
    let mut cells = vec![0_u64; CELLS];
    for UsageReads { usage, near, far, misses, loads } in &stats.usages {
        let place = USAGES.iter().position(|known| known.name() == usage).unwrap_or(USAGES.len());
        let counts = [near.hits + far.hits, near.stale_hits + far.stale_hits, *misses, *loads];
        for (cell, count) in cells.iter_mut().skip(place * KINDS).zip(counts) {
            *cell = cell.saturating_add(count);
        }
    }
    cells
}

fn usages(totals: &[i64]) -> Vec<FleetUsage> {
    // Only ever added to: below zero is nothing that we wrote.
    let totals: Vec<u64> = totals.iter().map(|total| u64::try_from(*total).unwrap_or(0)).collect();
    let names = USAGES.iter().map(name).chain([OTHER]);
    let rows = names.zip(totals.chunks_exact(KINDS)).filter_map(|(usage, counts)| {
        let &[hits, stale_hits, misses, loads] = counts else { return None };
        let is_used = counts.iter().any(|count| *count > 0);
        is_used.then_some(FleetUsage { usage, hits, stale_hits, misses, loads })
    });
    rows.collect()
}

/// Whatever the application uses the cache for is one.
fn name(usage: &Usage) -> &'static str {
    usage.own_name().unwrap_or(OTHER)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_usage_has_a_place_of_its_own_and_the_rest_is_one() {
        let reads = |usage: &str, hits, misses| {
            let mut reads = UsageReads { usage: usage.to_owned(), misses, ..UsageReads::default() };
            (reads.near.hits, reads.far.hits, reads.loads) = (hits, 1, 2);
            reads
        };
        let all = [reads("view_item", 5, 3), reads("mine", 7, 0), reads("default", 1, 4)];
        let stats = Stats { usages: all.to_vec(), ..Stats::default() };
        let totals: Vec<i64> = cells(&stats).iter().map(|cell| i64::try_from(*cell).unwrap()).collect();
        let row = |usage, hits, misses, loads| FleetUsage { usage, hits, stale_hits: 0, misses, loads };
        assert_eq!(usages(&totals), [row("view_item", 6, 3, 2), row("other", 10, 4, 4)]);
        assert!(USAGES.iter().all(|usage| name(usage) == usage.name()));
    }
}
