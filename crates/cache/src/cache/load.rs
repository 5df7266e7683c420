//! `get_or_load`: answer from the cache, from somebody's running load, or from an own one.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::timeout;
use tracing::{Instrument as _, debug, debug_span};

use super::calls::Calls;
use super::fleet::{HeldLease, Turn};
use super::flight::{Fill, Join, Lead, Outcome};
use super::read::{Found, Look};
use super::{Cache, Core, Value};
use crate::clock::Timestamp;
use crate::envelope::{Header, TagSlots};
use crate::epochs::Slot;
use crate::key::Key;
use crate::policy::Policy;
use crate::provider::{Copies, Entry, Item};
use crate::stats::Read;
use crate::usage::Verdict;

/// How often a caller looks into the cache again because a flight of its key landed since it looked. A flight also lands
/// without a result, when its leader is dropped: one more look would not be enough. Without a bound, a provider that
/// forgets at once could keep a caller looking.
const LOOKS_MAX: u32 = 8;

/// Why there is no value.
#[derive(Debug, thiserror::Error)]
pub enum LoadError<E> {
    /// The loader failed. Shared by all who waited for it.
    #[error("{0}")]
    Failed(Arc<E>),
    /// The loader took longer than the policy's hard timeout.
    #[error("no value within {0:?}")]
    TimedOut(Duration),
}

impl<E> Clone for LoadError<E> {
    fn clone(&self) -> Self {
        match self {
            Self::Failed(error) => Self::Failed(Arc::clone(error)),
            Self::TimedOut(limit) => Self::TimedOut(*limit),
        }
    }
}

impl<E> LoadError<E> {
    /// The loader's own error.
    pub fn loader_error(&self) -> Option<&E> {
        match self {
            Self::Failed(error) => Some(error),
            Self::TimedOut(_) => None,
        }
    }
}

/// What a load gave, as its waiters get it.
pub(super) type Loaded<V, E> = Result<Option<Arc<V>>, LoadError<E>>;

/// Where the result of a load goes when it may be stored.
pub(super) struct Fills<'a> {
    pub(super) key: &'a Key,
    pub(super) policy: &'a Policy,
    /// The epochs when the load began; `None` when they were just changing.
    pub(super) stamp: Option<u64>,
    pub(super) tags: TagSlots,
    pub(super) began: Timestamp,
    /// Of the copies in this process, when the load began.
    pub(super) mark: Option<u64>,
}

impl Cache {
    /// The fresh value under `key`; where there is none, what `loader` returns, which is then cached by `policy`.
    ///
    /// - One load of a key runs in the process at a time, and in the fleet where the provider grants leases; who comes
    ///   meanwhile waits and gets the same value.
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
    ) -> Result<Option<Arc<V>>, LoadError<E>>
    where
        V: Value,
        E: Send + Sync + 'static,
        F: Future<Output = Result<Option<V>, E>>,
    {
        if let Some(value) = self.at_hand(key, policy.schema_under(self.schema), |live, _| live.value.clone())
        {
            return Ok(value);
        }
        // In a box, so that the future of a hit stays small.
        Box::pin(self.look_or_load(key, policy, loader)).await
    }

    async fn look_or_load<V, E, F>(
        &self,
        key: &Key,
        policy: &Policy,
        loader: impl FnOnce() -> F,
    ) -> Loaded<V, E>
    where
        V: Value,
        E: Send + Sync + 'static,
        F: Future<Output = Result<Option<V>, E>>,
    {
        let core = &*self.core;
        let policy = &policy.under(self.schema);
        if !self.is_on() {
            return self.load(policy, loader).await;
        }
        let looks_max = if core.retains() { LOOKS_MAX } else { 0 };
        let mut looks_left = looks_max;
        let (lead, look) = loop {
            let landed = core.flights.landed();
            let look = self.look::<V>(key, policy.schema_of()).await;
            match &look.found {
                Found::Fresh(live) => {
                    self.count(key, &look);
                    return Ok(live.value.clone());
                }
                Found::Stale(live) if self.may_serve_stale(key, policy) => {
                    self.count(key, &look);
                    core.calls.counters.stale_served.one();
                    return Ok(live.value.clone());
                }
                Found::Stale(_) | Found::Nothing => {}
            }
            let join = match self.verdict {
                Verdict::ServeUnshared => Join::Lead(core.flights.lead_anew(key)),
                _ => core.flights.join(key, (look.was_answered && looks_left > 0).then_some(landed)),
            };
            match join {
                Join::Lead(lead) => {
                    self.count(key, &look);
                    break (lead, look);
                }
                Join::LookAgain => looks_left -= 1,
                Join::Follow(flight) => {
                    let patience = policy.hard_limit().unwrap_or(Duration::MAX);
                    let Ok(outcome) = timeout(patience, flight.outcome(policy.follow_limit())).await else {
                        self.count(key, &look);
                        return core.give_up(patience, policy, &look);
                    };
                    let Some(outcome) = outcome else {
                        looks_left = looks_max;
                        continue;
                    };
                    self.count(key, &look);
                    if let Some(loaded) = outcome.downcast_ref::<Loaded<V, E>>() {
                        core.calls.counters.coalesced.one();
                        return loaded.clone();
                    }
                    return self.load(policy, loader).await;
                }
            }
        };
        self.lead(lead, key, policy, look, loader).await
    }

    /// Whether a stale value is served without waiting: somebody loads already, or the last load has just failed.
    fn may_serve_stale(&self, key: &Key, policy: &Policy) -> bool {
        let core = &self.core;
        (policy.serves_stale() && core.flights.is_loading(key))
            || (policy.error_throttle().is_some() && core.throttle.is_held(key, core.calls.clock.elapsed()))
    }

    /// Loads as the one in this process who does, gives the outcome to those who wait, and stores it.
    pub(super) async fn lead<V, E, F>(
        &self,
        lead: Lead<'_>,
        key: &Key,
        policy: &Policy,
        look: Look<V>,
        loader: impl FnOnce() -> F,
    ) -> Loaded<V, E>
    where
        V: Value,
        E: Send + Sync + 'static,
        F: Future<Output = Result<Option<V>, E>>,
    {
        let core = &*self.core;
        let fills = self.fills(key, policy);
        let is_kept = !matches!(look.found, Found::Nothing);
        let may_serve_kept = is_kept && (policy.serves_stale() || matches!(look.found, Found::Fresh(_)));
        let turn = if core.keeps(policy) {
            self.turn(key, policy, &look, may_serve_kept).await
        } else {
            Turn::LoadOnly
        };
        let lease = match turn {
            Turn::Load(lease) => lease,
            Turn::LoadOnly => {
                let loaded = self.load(policy, loader).await;
                return core.hand_out(&lead, loaded, key, policy, &look);
            }
            Turn::Answer(live) => {
                let loaded: Loaded<V, E> = Ok(live.value.clone());
                lead.publish_to_present(Arc::new(loaded.clone()));
                return loaded;
            }
            Turn::ServeKept => {
                core.calls.counters.stale_served.one();
                let loaded: Loaded<V, E> = Ok(look.live().and_then(|live| live.value.clone()));
                lead.publish_to_present(Arc::new(loaded.clone()));
                return loaded;
            }
        };
        match self.load(policy, loader).await {
            Ok(value) => {
                let loaded: Loaded<V, E> = Ok(value.clone());
                let outcome: Outcome = Arc::new(loaded.clone());
                lead.publish(outcome);
                core.fill(&lead, fills, value, lease).await;
                loaded
            }
            // Dropped here, the lease is given back.
            failed => core.hand_out(&lead, failed, key, policy, &look),
        }
    }

    /// Runs the loader, within the policy's hard timeout.
    pub(super) async fn load<V, E, F>(&self, policy: &Policy, loader: impl FnOnce() -> F) -> Loaded<V, E>
    where
        F: Future<Output = Result<Option<V>, E>>,
    {
        let Calls { counters, clock, .. } = &self.core.calls;
        counters.loads.one();
        counters.reads.one(self.usage, Read::Loaded);
        let span = debug_span!("cache_load", usage = tracing::field::Empty, outcome = tracing::field::Empty);
        if !span.is_disabled() {
            span.record("usage", counters.reads.name(self.usage));
        }
        let began = clock.elapsed();
        let loading = loader().instrument(span.clone());
        let loaded = match policy.hard_limit() {
            None => loading.await.map_err(|error| LoadError::Failed(Arc::new(error))),
            Some(limit) => match timeout(limit, loading).await {
                Ok(loaded) => loaded.map_err(|error| LoadError::Failed(Arc::new(error))),
                Err(_) => Err(LoadError::TimedOut(limit)),
            },
        };
        counters.load_times.record(clock.elapsed().saturating_sub(began));
        span.record(
            "outcome",
            match &loaded {
                Ok(Some(_)) => "value",
                Ok(None) => "none",
                Err(LoadError::Failed(_)) => "error",
                Err(LoadError::TimedOut(_)) => "timeout",
            },
        );
        match &loaded {
            Ok(_) => {}
            Err(LoadError::Failed(_)) => counters.load_errors.one(),
            Err(LoadError::TimedOut(_)) => counters.load_timeouts.one(),
        }
        loaded.map(|value| value.map(Arc::new))
    }

    /// What has to be known when a load begins.
    pub(super) fn fills<'a>(&self, key: &'a Key, policy: &'a Policy) -> Fills<'a> {
        let core = &self.core;
        let tags = self.tags(policy);
        Fills {
            key,
            policy,
            stamp: core.epochs.stamp(key, tags.as_slice()),
            tags,
            began: core.calls.clock.now(),
            mark: core.calls.provider.copies().map(Copies::mark),
        }
    }

    /// The policy's tags, and for a strict usage the one that all of them share.
    pub(super) fn tags(&self, policy: &Policy) -> TagSlots {
        let mut tags = policy.tag_slots();
        if self.verdict == Verdict::ServeUnshared {
            tags.push(Slot::STRICT);
        }
        tags
    }
}

impl Core {
    /// Whether anything would be stored at all.
    pub(super) fn keeps(&self, policy: &Policy) -> bool {
        self.retains() && (policy.lifetime(false, 0.0).is_some() || policy.lifetime(true, 0.0).is_some())
    }

    /// Gives an outcome that is not stored to those who wait now; in place of an error a kept value, where the policy
    /// prefers that.
    fn hand_out<V, E>(
        &self,
        lead: &Lead<'_>,
        loaded: Loaded<V, E>,
        key: &Key,
        policy: &Policy,
        look: &Look<V>,
    ) -> Loaded<V, E>
    where
        V: Value,
        E: Send + Sync + 'static,
    {
        let kept = look.live().filter(|live| self.calls.clock.now() < live.header.keep_until);
        let loaded = match (loaded, policy.error_throttle(), kept) {
            (Err(_), Some(throttle), Some(live)) => {
                let now = self.calls.clock.elapsed();
                self.throttle.hold(key, now, now.saturating_add(throttle));
                self.calls.counters.stale_served_on_error.one();
                Ok(live.value.clone())
            }
            (loaded, _, _) => loaded,
        };
        lead.publish_to_present(Arc::new(loaded.clone()));
        loaded
    }

    /// What is served to who waits no longer for somebody else's load.
    fn give_up<V: Value, E>(&self, limit: Duration, policy: &Policy, look: &Look<V>) -> Loaded<V, E> {
        self.calls.counters.load_timeouts.one();
        match (policy.error_throttle(), look.live()) {
            (Some(_), Some(live)) => {
                self.calls.counters.stale_served_on_error.one();
                Ok(live.value.clone())
            }
            _ => Err(LoadError::TimedOut(limit)),
        }
    }

    /// Stores a loaded value, unless something has come to pass since its load began that it cannot know of.
    pub(super) async fn fill<V: Value>(
        &self,
        lead: &Lead<'_>,
        fills: Fills<'_>,
        value: Option<Arc<V>>,
        lease: Option<HeldLease>,
    ) {
        let Some(Entry { key, item, keep_for }) = self.entry(&fills, value) else {
            return;
        };
        if !lead.begin_fill() {
            self.refused(&key);
            return;
        }
        let provider = &self.calls.provider;
        let stored = match &lease {
            None => self.calls.run("set", provider.set(&key, item.clone(), keep_for)).await.map(|()| true),
            Some(held) => match provider.leases() {
                Some(leases) => {
                    let fill = leases.fill(&key, held.lease(), item.clone(), keep_for);
                    self.calls.run("fill", fill).await
                }
                None => Ok(false),
            },
        };
        match stored {
            Ok(true) => {
                lead.end_fill(Fill::Stored);
                if let (Some(copies), Some(mark)) = (provider.copies(), fills.mark) {
                    copies.keep(&key, item, keep_for, mark);
                }
                if let Some(lease) = lease {
                    lease.used();
                }
            }
            Ok(false) => {
                lead.end_fill(Fill::NotBegun);
                self.refused(&key);
                if let Some(lease) = lease {
                    lease.used();
                }
            }
            Err(_) => lead.end_fill(Fill::Unknown),
        }
    }

    /// The entry that a load's result makes; `None` when it is not to be stored.
    pub(super) fn entry<V: Value>(&self, fills: &Fills<'_>, value: Option<Arc<V>>) -> Option<Entry> {
        let Fills { key, policy, stamp, tags, began, .. } = *fills;
        let (fresh_for, keep_for) = policy.lifetime(value.is_none(), self.chance.part())?;
        if !self.retains() {
            return None;
        }
        let now = self.calls.clock.now();
        let header = Header {
            written_at: began,
            fresh_until: began.saturating_add(fresh_for),
            keep_until: began.saturating_add(keep_for),
            stamp: stamp.unwrap_or_default(),
            tags,
            schema: policy.schema_of(),
            build_cost: now.saturating_since(began),
            codec: policy.codec_of(),
            is_absent: value.is_none(),
        };
        let keep_for = header.keep_until.saturating_since(now);
        let is_current = stamp.is_some() && self.stamp(key, &header) == stamp;
        if keep_for.is_zero() || !is_current {
            self.refused(key);
            return None;
        }
        let item: Item = self.seal(key, header, value, policy)?;
        Some(Entry { key: key.clone(), item, keep_for })
    }

    fn refused(&self, key: &Key) {
        self.calls.counters.fills_refused.one();
        debug!(%key, "loaded value is not stored: invalidated meanwhile, or its load outlived it");
    }
}

impl fmt::Debug for Fills<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Fills({}, {:?})", self.key, self.stamp)
    }
}
