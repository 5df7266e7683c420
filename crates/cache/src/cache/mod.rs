//! The cache that callers use. It stands between them and a [`Provider`], and takes every failure upon itself.

mod builder;
mod calls;
mod entry;
mod flight;
mod load;
mod write;

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tracing::{debug, warn};

pub use self::builder::{Builder, OPERATION_TIMEOUT_DEFAULT};
use self::calls::Calls;
pub use self::calls::QUIET_BEFORE_RECOVERED;
use self::entry::Live;
pub use self::entry::Value;
use self::flight::Flights;
use crate::clock::{Clock, Timestamp};
use crate::envelope::{DecodeError, Freshness, Header};
use crate::epochs::Epochs;
use crate::health::{Condition, Health, SwitchedOff};
use crate::key::{Key, KeyPrefix};
use crate::policy::Policy;
use crate::provider::{Capabilities, Capability, Item, Provider, Reach};
use crate::stats::{Read, Stats, Tier, UsageLabel};
use crate::usage::{Lifetimes, Usage, Verdict, judge};

/// Names kept in health, so that made-up usages cannot grow it without end.
const SWITCHED_OFF_MAX: usize = 64;

/// A cache that never fails its caller. Clones share everything; keep one, or one [`for_usage`](Cache::for_usage).
///
/// No method returns an error of the cache. When the provider fails, is slow or answers nonsense, a read misses and a
/// write does nothing; it is counted ([`Stats`]), warned of once, and shown in [`health`](Cache::health). Each call of
/// the provider is cut off after the operation timeout (50 ms), and no method makes more than three.
///
/// A tokio runtime with its timer is needed as soon as something has to be waited for: a provider outside the process,
/// or another caller's load.
#[derive(Debug, Clone)]
pub struct Cache {
    core: Arc<Core>,
    verdict: Verdict,
    lifetime: Duration,
    schema: u32,
    usage: UsageLabel,
}

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

/// What all handles of one cache share.
#[derive(Debug)]
struct Core {
    calls: Calls,
    prefix: KeyPrefix,
    lifetimes: Lifetimes,
    condition: Condition,
    reasons: Vec<String>,
    epochs: Epochs,
    flights: Flights,
    switched_off: Mutex<Vec<SwitchedOff>>,
    encode_failure_was_said: AtomicBool,
}

/// What a look into the cache gave.
enum Found<V> {
    Fresh(Arc<Live<V>>),
    Stale(Arc<Live<V>>),
    Nothing,
}

impl Cache {
    /// A cache over a provider of your own. From configuration: [`Cache::from_config`].
    pub fn builder(provider: Arc<dyn Provider>, clock: Arc<dyn Clock>) -> Builder {
        Builder::new(provider, clock)
    }

    /// Where this cache's keys begin.
    pub fn keys(&self) -> &KeyPrefix {
        &self.core.prefix
    }

    /// The handle for one usage, with the coherence that it needs. When the provider cannot give it, the handle reads
    /// nothing, writes nothing and calls every loader; that is warned of once and shown in health.
    ///
    /// A bounded usage never gets a value that is older than its bound, whoever wrote it. A strict usage shares no load
    /// that began before its call.
    pub fn for_usage(&self, usage: &Usage) -> Self {
        let core = &self.core;
        let needs = usage.coherence(&core.lifetimes);
        let offered = core.capabilities().coherence();
        let verdict = match core.condition {
            Condition::Disabled => Verdict::Refuse,
            Condition::Active | Condition::Degraded => judge(needs, offered),
        };
        if verdict == Verdict::Refuse && core.condition != Condition::Disabled {
            core.switch_off(SwitchedOff { usage: usage.name().to_owned(), needs, offered });
        }
        Self {
            core: Arc::clone(core),
            verdict,
            lifetime: usage.lifetime(&core.lifetimes),
            schema: self.schema,
            usage: core.calls.counters.reads.label(usage.name()),
        }
    }

    /// The handle for values that are laid out by `fingerprint`, to be changed with the layout: what was written under
    /// another one is a counted miss. A policy's own [`schema`](Policy::schema) comes first.
    pub fn with_schema(&self, fingerprint: u32) -> Self {
        Self { schema: fingerprint, ..self.clone() }
    }

    /// Whether this handle ever serves anything. False for a disabled cache and for a usage that is switched off.
    pub fn is_on(&self) -> bool {
        self.verdict != Verdict::Refuse
    }

    /// The policy that configuration gives to this handle's usage.
    pub fn default_policy(&self) -> Policy {
        Policy::new(self.lifetime)
    }

    /// The fresh value under `key`. `None` on a miss, and when the cached answer is that there is none.
    pub async fn get<V: Value>(&self, key: &Key) -> Option<Arc<V>> {
        if let Some(value) = self.at_hand(key, self.schema, |live, _| live.value.clone()) {
            return value;
        }
        match self.look_and_count(key).await {
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

    /// The fresh values under `keys`, in their order, in one call of the provider.
    pub async fn get_many<V: Value>(&self, keys: &[Key]) -> Vec<Option<Arc<V>>> {
        let core = &self.core;
        let read = if self.is_on() && !keys.is_empty() {
            core.calls.run("get_many", core.calls.provider.get_many(keys, Reach::Nearest)).await.ok()
        } else {
            return keys.iter().map(|_| None).collect();
        };
        let mut items = read.unwrap_or_default().into_iter();
        let mut values = Vec::with_capacity(keys.len());
        for key in keys {
            let found = self.judge::<V>(key, items.next().flatten(), self.schema);
            self.count(key, &found);
            values.push(match found {
                Found::Fresh(live) => live.value.clone(),
                Found::Stale(_) | Found::Nothing => None,
            });
        }
        values
    }

    /// The counters of all handles of this cache.
    pub fn stats(&self) -> Stats {
        self.core.calls.counters.snapshot(self.core.calls.provider.evictions())
    }

    /// Asks the provider how it is, within the operation timeout.
    pub async fn health(&self) -> Health {
        let core = &self.core;
        let mut condition = core.condition;
        let mut reasons = core.reasons.clone();
        if condition == Condition::Active {
            let answer = core.calls.run("health", core.calls.provider.health()).await;
            if let Err(failure) = answer {
                reasons.push(failure.to_string());
            } else if core.calls.is_failing() {
                reasons.push(format!("calls failed within the last {QUIET_BEFORE_RECOVERED:?}"));
            }
            if !reasons.is_empty() {
                condition = Condition::Degraded;
            }
        }
        Health {
            is_healthy: condition != Condition::Degraded,
            condition,
            provider: core.calls.provider.name(),
            reasons,
            switched_off: core.switched_off.lock().unwrap_or_else(PoisonError::into_inner).clone(),
        }
    }

    async fn look_and_count<V: Value>(&self, key: &Key) -> Found<V> {
        if !self.is_on() {
            return Found::Nothing;
        }
        let (found, _) = self.look(key, self.schema).await;
        self.count(key, &found);
        found
    }

    /// What `take` makes of the fresh entry under `key`, when one lies in this process: no future is polled, nothing is
    /// allocated and the clock is read once, cheaply. Counted as a hit. Whatever is not as plain as that is left to
    /// [`look`](Self::look), which judges alike.
    fn at_hand<V: Value, T>(
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
        let now = core.calls.clock.now_coarse();
        let item = core.calls.peek(key, now)?;
        let live = Live::<V>::kept(&item)?;
        let header = &live.header;
        let is_right = header.schema == schema && live.is_reachable(key, &core.epochs);
        if !is_right || header.freshness(now, age_max) != Freshness::Fresh {
            return None;
        }
        core.calls.counters.reads.one(self.usage, Read::Hit(Tier::Near));
        debug!(%key, "cache hit");
        Some(take(live, now))
    }

    /// Looks, and says whether the provider answered at all.
    async fn look<V: Value>(&self, key: &Key, schema: u32) -> (Found<V>, bool) {
        let calls = &self.core.calls;
        match calls.run("get", calls.provider.get(key, Reach::Nearest)).await {
            Ok(item) => (self.judge(key, item, schema), true),
            Err(_) => (Found::Nothing, false),
        }
    }

    /// Whether a stored item may be served to this handle, now.
    fn judge<V: Value>(&self, key: &Key, item: Option<Item>, schema: u32) -> Found<V> {
        let core = &self.core;
        let Some(item) = item else {
            return Found::Nothing;
        };
        let live = match Live::<V>::open(key, &item, schema) {
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
        match live.header.freshness(core.calls.clock.now(), age_max) {
            Freshness::Fresh => Found::Fresh(live),
            Freshness::Stale => Found::Stale(live),
            Freshness::Expired => Found::Nothing,
        }
    }

    fn count<V>(&self, key: &Key, found: &Found<V>) {
        let tier = self.core.calls.tier();
        let (read, message) = match found {
            Found::Fresh(_) => (Read::Hit(tier), "cache hit"),
            Found::Stale(_) => (Read::StaleHit(tier), "cache stale hit"),
            Found::Nothing => (Read::Miss, "cache miss"),
        };
        self.core.calls.counters.reads.one(self.usage, read);
        debug!(%key, "{message}");
    }
}

impl Core {
    fn capabilities(&self) -> Capabilities {
        self.calls.provider.capabilities()
    }

    fn retains(&self) -> bool {
        self.capabilities().has(Capability::Retains)
    }

    fn stamp(&self, key: &Key, header: &Header) -> Option<u64> {
        self.epochs.stamp(key, header.tags.as_slice())
    }

    /// Value and header as an item that the provider will take; `None` when there is no such thing, which is counted.
    fn seal<V: Value>(
        &self,
        key: &Key,
        header: Header,
        policy: &Policy,
        value: Option<Arc<V>>,
    ) -> Option<Item> {
        let capabilities = self.capabilities();
        // Bytes that stay in this process are not read as long as the value is beside them.
        let compress_from = policy.compress_from_bytes().filter(|_| capabilities.has(Capability::Shared));
        let item = match Live::new(header, value).seal(key, compress_from) {
            Ok(item) => item,
            Err(error) => {
                self.calls.counters.encode_errors.one();
                if !self.encode_failure_was_said.swap(true, Ordering::Relaxed) {
                    warn!(%error, space = key.space_text(), "value is not cached; further ones are only counted");
                }
                return None;
            }
        };
        if capabilities.limit(Capability::MaxValueBytes).is_some_and(|max| item.bytes.len() > max) {
            self.calls.counters.too_large.one();
            debug!(%key, bytes = item.bytes.len(), "value is too large to be cached");
            return None;
        }
        Some(item)
    }

    fn undecodable(&self, key: &Key, error: &DecodeError) {
        self.calls.counters.decode_errors.one();
        debug!(%key, %error, "stored entry is not usable");
    }

    fn switch_off(&self, usage: SwitchedOff) {
        let mut switched_off = self.switched_off.lock().unwrap_or_else(PoisonError::into_inner);
        if switched_off.len() >= SWITCHED_OFF_MAX
            || switched_off.iter().any(|known| known.usage == usage.usage)
        {
            return;
        }
        warn!(
            usage = usage.usage,
            needs = %usage.needs,
            offered = %usage.offered,
            provider = self.calls.provider.name(),
            "cache is off for this usage: the provider is not coherent enough"
        );
        switched_off.push(usage);
    }
}
