//! `get_or_load`: answer from the cache, from somebody's running load, or from an own one.

use std::sync::Arc;

use tracing::debug;

use super::flight::{Fill, Join, Lead, Outcome};
use super::{Cache, Core, Found, Value};
use crate::clock::Timestamp;
use crate::envelope::{Header, TagSlots};
use crate::key::Key;
use crate::policy::Policy;
use crate::usage::Verdict;

/// How often a caller looks into the cache again because a flight of its key landed since it looked. A flight also lands
/// without a result, when its leader is dropped: one more look would not be enough. Without a bound, a provider that
/// forgets at once could keep a caller looking.
const LOOKS_MAX: u32 = 8;

/// What a load gave, as its waiters get it.
type Loaded<V, E> = Result<Option<Arc<V>>, Arc<E>>;

impl Cache {
    /// The fresh value under `key`; where there is none, what `loader` returns, which is then cached by `policy`.
    ///
    /// - One load of a key runs in the process at a time; who comes meanwhile waits and gets the same value.
    /// - The load runs inside the call of the first who came. When that call is dropped or its loader panics, one of
    ///   the waiters takes over with its own loader.
    /// - `Ok(None)` from the loader means that there is no such thing, and is cached for the policy's negative-for, if
    ///   it has one. An error goes to those who wait at that moment, and is not cached.
    /// - An invalidation, or a newer [`set`](Cache::set), during the load wins: the result is given to those who waited
    ///   before it and is not stored, and who comes after it starts a new load.
    ///
    /// All callers of a key should use one type of value and of error; one who does not is served by its own loader.
    /// The loader must not ask for the same key: it would wait for itself until the policy's follow-for is over.
    pub async fn get_or_load<V, E, F>(
        &self,
        key: &Key,
        policy: &Policy,
        loader: impl FnOnce() -> F,
    ) -> Result<Option<Arc<V>>, Arc<E>>
    where
        V: Value,
        E: Send + Sync + 'static,
        F: Future<Output = Result<Option<V>, E>>,
    {
        let core = &*self.core;
        let policy = &policy.under(self.schema);
        if let Some(value) = self.at_hand(key, policy.schema_of(), |live, _| live.value.clone()) {
            return Ok(value);
        }
        if !self.is_on() {
            return core.load(loader).await;
        }
        let looks_max = if core.retains() { LOOKS_MAX } else { 0 };
        let mut looks_left = looks_max;
        let lead = loop {
            let landed = core.flights.landed();
            let (found, was_answered) = self.look::<V>(key, policy.schema_of()).await;
            if let Found::Fresh(live) = &found {
                self.count(key, &found);
                return Ok(live.value.clone());
            }
            let join = match self.verdict {
                Verdict::ServeUnshared => Join::Lead(core.flights.lead_anew(key)),
                _ => core.flights.join(key, (was_answered && looks_left > 0).then_some(landed)),
            };
            match join {
                Join::Lead(lead) => {
                    self.count(key, &found);
                    break lead;
                }
                Join::LookAgain => looks_left -= 1,
                Join::Follow(flight) => {
                    let Some(outcome) = flight.outcome(policy.follow_limit()).await else {
                        looks_left = looks_max;
                        continue;
                    };
                    self.count(key, &found);
                    if let Some(loaded) = outcome.downcast_ref::<Loaded<V, E>>() {
                        core.calls.counters.coalesced.one();
                        return loaded.clone();
                    }
                    return core.load(loader).await;
                }
            }
        };
        let stamp = core.epochs.stamp(key, &[]);
        let began = core.calls.clock.now();
        let loaded = core.load(loader).await;
        let outcome: Outcome = Arc::new(loaded.clone());
        match &loaded {
            Err(_) => lead.publish_to_present(outcome),
            Ok(value) => {
                lead.publish(outcome);
                core.fill(&lead, key, policy, (stamp, began), value.clone()).await;
            }
        }
        loaded
    }
}

impl Core {
    async fn load<V, E, F>(&self, loader: impl FnOnce() -> F) -> Loaded<V, E>
    where
        F: Future<Output = Result<Option<V>, E>>,
    {
        self.calls.counters.loads.one();
        let began = self.calls.clock.now();
        let loaded = loader().await;
        self.calls.counters.load_times.record(self.calls.clock.now().saturating_since(began));
        if loaded.is_err() {
            self.calls.counters.load_errors.one();
        }
        loaded.map(|value| value.map(Arc::new)).map_err(Arc::new)
    }

    /// Stores a loaded value, unless something has come to pass since its load began that it cannot know of.
    async fn fill<V: Value>(
        &self,
        lead: &Lead<'_>,
        key: &Key,
        policy: &Policy,
        (stamp, began): (Option<u64>, Timestamp),
        value: Option<Arc<V>>,
    ) {
        let Some((fresh_for, keep_for)) = policy.lifetime(value.is_none()) else {
            return;
        };
        if !self.retains() {
            return;
        }
        let now = self.calls.clock.now();
        let header = Header {
            tags: TagSlots::default(),
            schema: policy.schema_of(),
            written_at: began,
            fresh_until: began.saturating_add(fresh_for),
            keep_until: began.saturating_add(keep_for),
            stamp: stamp.unwrap_or_default(),
            build_cost: now.saturating_since(began),
            codec: policy.codec_of(),
            is_absent: value.is_none(),
        };
        let Some(item) = self.seal(key, header, policy, value) else {
            return;
        };
        let keep_for = header.keep_until.saturating_since(now);
        let is_reachable = stamp.is_some() && self.stamp(key, &header) == stamp;
        if keep_for.is_zero() || !is_reachable || !lead.begin_fill() {
            self.calls.counters.fills_refused.one();
            debug!(%key, "loaded value is not stored: invalidated meanwhile, or its load outlived it");
            return;
        }
        let stored = self.calls.run("set", self.calls.provider.set(key, item, keep_for)).await;
        lead.end_fill(if stored.is_ok() { Fill::Stored } else { Fill::Unknown });
    }
}
