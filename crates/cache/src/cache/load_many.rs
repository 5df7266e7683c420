//! `get_or_load_many`: what is missing is loaded in one batch.
//!
//! No lease is held while another one is waited for, or two processes with overlapping batches would wait for each
//! other: first all leases are asked for without waiting and what was granted is loaded and stored; then, one after the
//! other, what somebody else held.

use std::sync::Arc;

use futures_util::future::join_all;

use super::fleet::{HeldLease, Turn};
use super::flight::{Flight, Join, Lead};
use super::load::{Fills, LoadError, Loaded};
use super::read::{Found, Look};
use super::{Cache, Value};
use crate::key::Key;
use crate::policy::Policy;
use crate::usage::Verdict;

/// One key that this call leads.
struct Led<'a, V> {
    place: usize,
    key: &'a Key,
    lead: Lead<'a>,
    look: Look<V>,
}

/// One key that this call loads now.
struct Load<'a> {
    place: usize,
    key: &'a Key,
    lead: Lead<'a>,
    fills: Fills<'a>,
    lease: Option<HeldLease>,
    may_store: bool,
}

/// What becomes of the keys.
struct Courses<'a, V> {
    values: Vec<Option<Arc<V>>>,
    follows: Vec<(usize, &'a Key, Arc<Flight>)>,
    loads: Vec<Load<'a>>,
    held: Vec<Led<'a, V>>,
}

impl Cache {
    /// The values under `keys`, in their order; what is missing is loaded with one call of `loader`, which gets the
    /// missing keys and answers as many values, in their order. What it answers too few counts as absent. It is called
    /// again only for keys that somebody else was loading and did not finish.
    ///
    /// As [`get_or_load`](Cache::get_or_load), for each key: loads that run are joined, results are cached by `policy`,
    /// an invalidation meanwhile wins, an error is not cached. Stale values are not served.
    pub async fn get_or_load_many<V, E, F>(
        &self,
        keys: &[Key],
        policy: &Policy,
        loader: impl Fn(Vec<Key>) -> F,
    ) -> Result<Vec<Option<Arc<V>>>, LoadError<E>>
    where
        V: Value,
        E: Send + Sync + 'static,
        F: Future<Output = Result<Vec<Option<V>>, E>>,
    {
        let core = &*self.core;
        let policy = &policy.under(self.schema);
        let mut courses = self.courses::<V>(keys, policy).await;
        let loads = std::mem::take(&mut courses.loads);
        self.load_batch(loads, policy, &loader, &mut courses.values).await?;
        for Led { place, key, lead, look } in std::mem::take(&mut courses.held) {
            let load = || async { Ok(loader(vec![key.clone()]).await?.pop().flatten()) };
            let value = self.lead(lead, key, policy, look, load).await?;
            put(&mut courses.values, place, value);
        }
        let mut left = Vec::new();
        for (place, key, flight) in std::mem::take(&mut courses.follows) {
            let outcome = flight.outcome(policy.follow_limit()).await;
            match outcome.as_ref().and_then(|outcome| outcome.downcast_ref::<Loaded<V, E>>()) {
                Some(loaded) => {
                    core.calls.counters.coalesced.one();
                    put(&mut courses.values, place, loaded.clone()?);
                }
                None => left.push((place, key)),
            }
        }
        if !left.is_empty() {
            let missing = left.iter().map(|(_, key)| (*key).clone()).collect();
            let loaded = self.load(policy, || async { loader(missing).await.map(Some) }).await?;
            let mut brought = loaded.and_then(Arc::into_inner).unwrap_or_default().into_iter();
            for (place, _) in left {
                put(&mut courses.values, place, brought.next().flatten().map(Arc::new));
            }
        }
        Ok(courses.values)
    }

    /// Finds what is there, joins what is loaded, and asks for the leases of the rest.
    async fn courses<'a, V: Value>(&'a self, keys: &'a [Key], policy: &'a Policy) -> Courses<'a, V> {
        let core = &*self.core;
        let mut values = Vec::with_capacity(keys.len());
        let (mut follows, mut led) = (Vec::new(), Vec::new());
        for (place, (key, look)) in
            keys.iter().zip(self.look_many::<V>(keys, policy.schema_of()).await).enumerate()
        {
            if self.is_on() {
                self.count(key, &look);
            }
            if let Found::Fresh(live) = &look.found {
                values.push(live.value.clone());
                continue;
            }
            values.push(None);
            match self.verdict {
                Verdict::Refuse | Verdict::ServeUnshared => {
                    led.push(Led { place, key, lead: core.flights.lead_anew(key), look });
                }
                Verdict::Serve | Verdict::ServeUpToAge(_) => match core.flights.join(key, None) {
                    Join::Follow(flight) => follows.push((place, key, flight)),
                    Join::Lead(lead) => led.push(Led { place, key, lead, look }),
                    Join::LookAgain => {}
                },
            }
        }
        let may_take = self.is_on() && core.keeps(policy);
        let asked = led.into_iter().map(|led| async move {
            let fills = self.fills(led.key, policy);
            // As if there were something to serve meanwhile: who is told so does not wait.
            let turn =
                if may_take { self.turn(led.key, policy, &led.look, true).await } else { Turn::LoadOnly };
            (led, fills, turn)
        });
        let mut courses = Courses { values, follows, loads: Vec::new(), held: Vec::new() };
        for (led, fills, turn) in join_all(asked).await {
            let (lease, may_store) = match turn {
                Turn::Load(lease) => (lease, true),
                Turn::LoadOnly => (None, false),
                Turn::ServeKept => {
                    courses.held.push(led);
                    continue;
                }
                // Those who wait here ask for themselves.
                Turn::Answer(live) => {
                    put(&mut courses.values, led.place, live.value.clone());
                    continue;
                }
            };
            let Led { place, key, lead, .. } = led;
            courses.loads.push(Load { place, key, lead, fills, lease, may_store });
        }
        courses
    }

    /// Loads in one call of the loader, hands the results out and stores them.
    async fn load_batch<V, E, F>(
        &self,
        loads: Vec<Load<'_>>,
        policy: &Policy,
        loader: &impl Fn(Vec<Key>) -> F,
        values: &mut [Option<Arc<V>>],
    ) -> Result<(), LoadError<E>>
    where
        V: Value,
        E: Send + Sync + 'static,
        F: Future<Output = Result<Vec<Option<V>>, E>>,
    {
        if loads.is_empty() {
            return Ok(());
        }
        let core = &*self.core;
        let missing = loads.iter().map(|load| load.key.clone()).collect();
        let batch = match self.load(policy, || async { loader(missing).await.map(Some) }).await {
            Ok(batch) => batch,
            Err(error) => {
                for Load { lead, .. } in loads {
                    lead.publish_to_present(Arc::new(Loaded::<V, E>::Err(error.clone())));
                }
                return Err(error);
            }
        };
        let mut brought = batch.and_then(Arc::into_inner).unwrap_or_default().into_iter();
        let mut stores = Vec::with_capacity(loads.len());
        for Load { place, lead, fills, lease, may_store, .. } in loads {
            let value = brought.next().flatten().map(Arc::new);
            put(values, place, value.clone());
            let outcome = Arc::new(Loaded::<V, E>::Ok(value.clone()));
            if may_store {
                lead.publish(outcome);
                stores.push(async move { core.fill(&lead, fills, value, lease).await });
            } else {
                lead.publish_to_present(outcome);
            }
        }
        join_all(stores).await;
        Ok(())
    }
}

fn put<V>(values: &mut [Option<Arc<V>>], place: usize, value: Option<Arc<V>>) {
    if let Some(slot) = values.get_mut(place) {
        *slot = value;
    }
}
