//! Looking: which tier may answer, and whether what it holds may be served.

use std::sync::Arc;
use std::time::Duration;

use tracing::debug;

use super::entry::{Live, Value};
use super::{Cache, Core};
use crate::clock::Timestamp;
use crate::envelope::Freshness;
use crate::key::Key;
use crate::provider::{self, Copies, Item};
use crate::stats::{Read, Tier};
use crate::usage::Verdict;

/// A value out of the cache, with what is known about it.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Answer<V> {
    /// The value; `None` for the cached answer "there is none".
    pub value: Option<Arc<V>>,
    /// Whether it is still fresh.
    pub is_fresh: bool,
    /// How old the data is that it is based on, at most.
    pub age: Duration,
    /// What it cost to make.
    pub build_cost: Duration,
}

/// What a look into the cache gave.
#[derive(Debug)]
pub(super) enum Found<V> {
    Fresh(Arc<Live<V>>),
    Stale(Arc<Live<V>>),
    Nothing,
}

/// A look into the cache.
#[derive(Debug)]
pub(super) struct Look<V> {
    pub(super) found: Found<V>,
    /// What lies there, servable or not; to be recognised when something else lies there later.
    pub(super) item: Option<Item>,
    /// Whether the provider answered at all.
    pub(super) was_answered: bool,
    /// Where it was found.
    pub(super) tier: Tier,
}

/// How a handle may be answered at this moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Nearness {
    /// By whatever is found first.
    Nearest,
    /// By what all processes share, and by the epochs as they are there now.
    Exact,
}

impl<V> Look<V> {
    pub(super) const NOTHING: Self =
        Self { found: Found::Nothing, item: None, was_answered: false, tier: Tier::Near };

    pub(super) fn live(&self) -> Option<&Arc<Live<V>>> {
        match &self.found {
            Found::Fresh(live) | Found::Stale(live) => Some(live),
            Found::Nothing => None,
        }
    }
}

impl Cache {
    /// The fresh value under `key`. `None` on a miss, and when the cached answer is that there is none.
    pub async fn get<V: Value>(&self, key: &Key) -> Option<Arc<V>> {
        if let Some(value) = self.at_hand(key, self.schema, |live, _| live.value.clone()) {
            return value;
        }
        // In a box, so that the future of a hit stays small.
        match Box::pin(self.look_and_count(key)).await {
            Found::Fresh(live) => live.value.clone(),
            Found::Stale(_) | Found::Nothing => None,
        }
    }

    /// What is kept under `key`, fresh or stale, with its age. `None` on a miss.
    pub async fn lookup<V: Value>(&self, key: &Key) -> Option<Answer<V>> {
        if let Some(answer) = self.at_hand(key, self.schema, |live, now| live.answer(true, now)) {
            return Some(answer);
        }
        let (live, is_fresh) = match self.look_and_count::<V>(key).await {
            Found::Fresh(live) => (live, true),
            Found::Stale(live) => (live, false),
            Found::Nothing => return None,
        };
        Some(live.answer(is_fresh, self.core.calls.clock.now()))
    }

    /// The fresh values under `keys`, in their order; what does not lie in this process in one call of the provider.
    pub async fn get_many<V: Value>(&self, keys: &[Key]) -> Vec<Option<Arc<V>>> {
        let looks = self.look_many::<V>(keys, self.schema).await;
        let fresh = |(key, look): (&Key, Look<V>)| {
            self.count(key, &look);
            match look.found {
                Found::Fresh(live) => live.value.clone(),
                Found::Stale(_) | Found::Nothing => None,
            }
        };
        keys.iter().zip(looks).map(fresh).collect()
    }

    async fn look_and_count<V: Value>(&self, key: &Key) -> Found<V> {
        if !self.is_on() {
            return Found::Nothing;
        }
        let look = self.look(key, self.schema).await;
        self.count(key, &look);
        look.found
    }

    /// What `take` makes of the fresh entry under `key`, when one lies in this process: no future is polled, nothing is
    /// allocated and the clock is read cheaply. Counted as a hit. Whatever is not as plain as that is left to
    /// [`look`](Self::look), which judges alike.
    pub(super) fn at_hand<V: Value, T>(
        &self,
        key: &Key,
        schema: u32,
        take: impl FnOnce(&Live<V>, Timestamp) -> T,
    ) -> Option<T> {
        let age_max = match self.verdict {
            Verdict::Serve => None,
            Verdict::ServeUpToAge(age_max) => Some(age_max),
            // A copy in this process may not do.
            Verdict::ServeUnshared | Verdict::Refuse => return None,
        };
        let core = &*self.core;
        if !core.calls.holds_here() || (core.shares_epochs && self.nearness() == Nearness::Exact) {
            return None;
        }
        let now = core.calls.clock.now_coarse();
        let taken = core.calls.glance(key, now, |item| {
            let live = Live::<V>::kept(item)?;
            let header = &live.header;
            let is_right = header.schema == schema && live.is_reachable(key, &core.epochs);
            let is_fresh = is_right && header.freshness(now, age_max) == Freshness::Fresh;
            is_fresh.then(|| take(live, now))
        })?;
        core.calls.counters.reads.one(self.usage, Read::Hit(Tier::Near));
        debug!(%key, "cache hit");
        Some(taken)
    }

    /// Looks where this handle may look.
    pub(super) async fn look<V: Value>(&self, key: &Key, schema: u32) -> Look<V> {
        let core = &*self.core;
        let nearness = self.nearness();
        if nearness == Nearness::Nearest
            && let Some(look) = self.peek(key, schema)
        {
            return look;
        }
        let mark = core.calls.provider.copies().map(Copies::mark);
        let provider = &core.calls.provider;
        let item = match nearness {
            Nearness::Nearest => core.calls.read("get", provider.get(key)).await,
            // In a box, so that the future of the other one stays small.
            Nearness::Exact => {
                Box::pin(core.exactly(self.verdict == Verdict::ServeUnshared, provider.get(key))).await
            }
        };
        match item {
            Ok(item) => {
                self.judge_and_keep(key, item, mark, schema, core.is_sighted(), core.calls.clock.now_coarse())
            }
            Err(_) => Look::NOTHING,
        }
    }

    /// What lies in this process, when it may be served.
    fn peek<V: Value>(&self, key: &Key, schema: u32) -> Option<Look<V>> {
        let calls = &self.core.calls;
        if !calls.holds_here() {
            return None;
        }
        let about_now = calls.clock.now_coarse();
        let item = calls.peek(key, about_now)?;
        match self.judge(key, &item, schema, about_now) {
            Found::Nothing => None,
            found => Some(Look { found, item: Some(item), was_answered: true, tier: Tier::Near }),
        }
    }

    /// As [`look`](Self::look), in one call of the provider for all that does not lie in this process.
    pub(super) async fn look_many<V: Value>(&self, keys: &[Key], schema: u32) -> Vec<Look<V>> {
        if !self.is_on() {
            return keys.iter().map(|_| Look::NOTHING).collect();
        }
        let core = &*self.core;
        let nearness = self.nearness();
        let mut looks: Vec<Option<Look<V>>> = match nearness {
            Nearness::Nearest => keys.iter().map(|key| self.peek(key, schema)).collect(),
            Nearness::Exact => keys.iter().map(|_| None).collect(),
        };
        let missing: Vec<Key> =
            keys.iter().zip(&looks).filter(|(_, look)| look.is_none()).map(|(key, _)| key.clone()).collect();
        if !missing.is_empty() {
            let mark = core.calls.provider.copies().map(Copies::mark);
            let provider = &core.calls.provider;
            let items = match nearness {
                Nearness::Nearest => core.calls.read("get_many", provider.get_many(&missing)).await,
                Nearness::Exact => {
                    core.exactly(self.verdict == Verdict::ServeUnshared, provider.get_many(&missing)).await
                }
            };
            let was_answered = items.is_ok();
            let is_sighted = core.is_sighted();
            let about_now = core.calls.clock.now_coarse();
            let mut items = items.unwrap_or_default().into_iter();
            for (look, key) in looks.iter_mut().zip(keys).filter(|(look, _)| look.is_none()) {
                let judged =
                    self.judge_and_keep(key, items.next().flatten(), mark, schema, is_sighted, about_now);
                *look = Some(Look { was_answered, ..judged });
            }
        }
        looks.into_iter().map(|look| look.unwrap_or(Look::NOTHING)).collect()
    }

    /// Whether this handle may be answered by a copy, now.
    pub(super) fn nearness(&self) -> Nearness {
        let core = &self.core;
        if !core.shares_epochs {
            return Nearness::Nearest;
        }
        core.attend();
        let bound = match self.verdict {
            Verdict::ServeUnshared => return Nearness::Exact,
            Verdict::ServeUpToAge(age_max) => age_max.min(core.upkeep.lag_max()),
            Verdict::Serve | Verdict::Refuse => core.upkeep.lag_max(),
        };
        let is_heard = self.after.is_none_or(|token| core.has_heard(&token));
        if is_heard && core.is_current(bound) { Nearness::Nearest } else { Nearness::Exact }
    }

    /// What the shared tier answered: judged, by epochs that were read since it was last entered, and copied into this
    /// process where there are copies.
    fn judge_and_keep<V: Value>(
        &self,
        key: &Key,
        item: Option<Item>,
        mark: Option<u64>,
        schema: u32,
        is_sighted: bool,
        about_now: Timestamp,
    ) -> Look<V> {
        let tier = self.core.calls.tier();
        let Some(item) = item else {
            return Look { found: Found::Nothing, item: None, was_answered: true, tier };
        };
        let found = if is_sighted { self.judge(key, &item, schema, about_now) } else { Found::Nothing };
        let look = Look { found, item: Some(item), was_answered: true, tier };
        if let (Some(live), Some(item), Some(mark)) = (look.live(), &look.item, mark) {
            self.core.keep_copy(key, item.clone(), live.header.keep_until, mark);
        }
        look
    }

    /// Whether an item that the shared tier answered may be served; by epochs that were read since it was last entered.
    pub(super) fn judge_shared<V: Value>(
        &self,
        key: &Key,
        item: &Item,
        schema: u32,
        about_now: Timestamp,
    ) -> Found<V> {
        if self.core.is_sighted() { self.judge(key, item, schema, about_now) } else { Found::Nothing }
    }

    /// Whether a stored item may be served to this handle at [about](crate::clock::Clock::now_coarse) this moment. What is not
    /// fresh by that is judged by the exact time.
    pub(super) fn judge<V: Value>(
        &self,
        key: &Key,
        item: &Item,
        schema: u32,
        about_now: Timestamp,
    ) -> Found<V> {
        let core = &self.core;
        let live = match Live::<V>::open(key, item, schema, core.calls.holds_here()) {
            Ok(live) => live,
            Err(error) => {
                core.undecodable(key, &error);
                return Found::Nothing;
            }
        };
        let age_max = match self.verdict {
            Verdict::ServeUpToAge(age_max) => Some(age_max),
            Verdict::Serve | Verdict::ServeUnshared | Verdict::Refuse => None,
        };
        if !live.is_reachable(key, &core.epochs) {
            return Found::Nothing;
        }
        if live.header.freshness(about_now, age_max) == Freshness::Fresh {
            return Found::Fresh(live);
        }
        match live.header.freshness(core.calls.clock.now(), age_max) {
            Freshness::Fresh => Found::Fresh(live),
            Freshness::Stale => Found::Stale(live),
            Freshness::Expired => Found::Nothing,
        }
    }

    pub(super) fn count<V>(&self, key: &Key, look: &Look<V>) {
        let (read, found) = match look.found {
            Found::Fresh(_) => (Read::Hit(look.tier), "hit"),
            Found::Stale(_) => (Read::StaleHit(look.tier), "stale hit"),
            Found::Nothing => (Read::Miss, "miss"),
        };
        self.core.calls.counters.reads.one(self.usage, read);
        debug!(%key, "cache {found}");
    }
}

impl Core {
    /// Carries out a read beside a look at the shared epochs. Both begin after this call did, so what comes back is
    /// judged by every change that was complete before it. When the epochs cannot be had, nothing is known.
    async fn exactly<T>(
        &self,
        is_strict: bool,
        read: impl Future<Output = Result<T, provider::Error>>,
    ) -> Result<T, super::calls::Failure> {
        let Some(store) = self.epoch_store() else {
            if !is_strict {
                return self.calls.run("get", read).await;
            }
            // A backend that kept them before, and has not shown since it came back that it can.
            let (provider, reason) =
                (self.calls.provider.name(), "the shared epochs cannot be had".to_owned());
            return Err(provider::Error::Unavailable { provider, reason }.into());
        };
        let (began, entered) = (self.calls.clock.elapsed(), store.entered());
        let (incarnation, version) = self.epochs.known();
        let both = async {
            let (read, record) = futures_util::future::join(read, store.read(incarnation, version)).await;
            Ok((read?, record?))
        };
        let (read, record) = self.calls.run("get_exactly", both).await?;
        if let Some(record) = record {
            self.epochs.adopt(&record);
        }
        self.upkeep.epochs_heard(began, entered);
        Ok(read)
    }

    pub(super) fn keep_copy(&self, key: &Key, item: Item, keep_until: Timestamp, mark: u64) {
        let keep_for = keep_until.saturating_since(self.calls.clock.now());
        if let Some(copies) = self.calls.provider.copies()
            && !keep_for.is_zero()
        {
            copies.keep(key, item, keep_for, mark);
        }
    }
}
