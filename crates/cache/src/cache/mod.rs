//! The cache that callers use. It stands between them and a [`Provider`], and takes every failure upon itself.

mod audit;
mod backplane;
mod builder;
mod calls;
mod configured;
mod entry;
mod explain;
mod fleet;
mod flight;
mod load;
mod load_many;
mod read;
mod refresh;
mod throttle;
mod upkeep;
mod write;

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tracing::{debug, warn};

use self::audit::Audit;
pub use self::builder::{BEAT_DEFAULT, Builder, LAG_MAX_DEFAULT, OPERATION_TIMEOUT_DEFAULT};
use self::calls::Calls;
pub use self::calls::QUIET_BEFORE_RECOVERED;
use self::entry::Live;
pub use self::entry::Value;
pub use self::explain::{EntryFacts, Explanation};
use self::flight::Flights;
pub use self::load::LoadError;
pub use self::read::Answer;
use self::throttle::Throttle;
use self::upkeep::Upkeep;
use crate::chance::Chance;
use crate::clock::Clock;
use crate::envelope::{DecodeError, Header};
use crate::epochs::Epochs;
use crate::health::{Condition, Health, SwitchedOff};
use crate::key::{Key, KeyPrefix};
use crate::policy::Policy;
use crate::provider::{Breakers, Capabilities, Capability, EpochStore, Item, Provider};
use crate::stats::{Stats, UsageLabel};
use crate::token::Token;
use crate::usage::{Coherence, Lifetimes, Usage, Verdict, judge};

/// Names kept in health, so that made-up usages cannot grow it without end.
const SWITCHED_OFF_MAX: usize = 64;

/// A cache that never fails its caller. Clones share everything; keep one, or one [`for_usage`](Cache::for_usage).
///
/// No method returns an error of the cache. When the provider fails, is slow or answers nonsense, a read misses and a
/// write does nothing; it is counted ([`Stats`]), warned of once, and shown in [`health`](Cache::health). Each call of
/// the provider is cut off after the operation timeout (50 ms).
///
/// A tokio runtime with its timer is needed as soon as something has to be waited for: a provider outside the process,
/// or another caller's load.
#[derive(Debug, Clone)]
pub struct Cache {
    core: Arc<Core>,
    verdict: Verdict,
    lifetime: Duration,
    after: Option<Token>,
    schema: u32,
    usage: UsageLabel,
}

/// What all handles of one cache share.
#[derive(Debug)]
struct Core {
    calls: Calls,
    prefix: KeyPrefix,
    lifetimes: Lifetimes,
    condition: Condition,
    reasons: Vec<String>,
    breakers: Option<Breakers>,
    epochs: Epochs,
    /// Whether they are kept for all processes somewhere; looked up once, since hits ask.
    shares_epochs: bool,
    /// Whether other processes tell of changed keys by messages, likewise.
    hears_keys: bool,
    /// Where they are kept for all processes, when that is not the provider.
    epochs_elsewhere: Option<Arc<dyn EpochStore>>,
    upkeep: Upkeep,
    audit: Audit,
    flights: Flights,
    throttle: Throttle,
    chance: Arc<dyn Chance>,
    /// This process among those that share the backend; drawn at random.
    instance: u64,
    /// Messages sent so far.
    sequence: AtomicU64,
    switched_off: Mutex<Vec<SwitchedOff>>,
    encode_failure_was_said: AtomicBool,
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
    /// that began before its call, and is answered by what all processes share, never by a copy in this one.
    pub fn for_usage(&self, usage: &Usage) -> Self {
        let core = &self.core;
        let needs = usage.coherence(&core.lifetimes);
        let offered = core.coherence();
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
            after: None,
            schema: self.schema,
            usage: core.calls.counters.reads.label(usage.name()),
        }
    }

    /// The handle for values that are laid out by `fingerprint`, to be changed with the layout: what was written under
    /// another one is a counted miss. A policy's own [`schema`](Policy::schema) comes first.
    pub fn with_schema(&self, fingerprint: u32) -> Self {
        Self { schema: fingerprint, ..self.clone() }
    }

    /// A handle that answers nothing from before the change that left `token`, on whatever node that was made.
    pub fn after(&self, token: &Token) -> Self {
        Self { after: Some(*token), ..self.clone() }
    }

    /// Whether this handle ever serves anything. False for a disabled cache and for a usage that is switched off.
    pub fn is_on(&self) -> bool {
        self.verdict != Verdict::Refuse
    }

    /// The policy that configuration gives to this handle's usage.
    pub fn default_policy(&self) -> Policy {
        Policy::new(self.lifetime)
    }

    /// The lives that configuration gives to values.
    pub fn lifetimes(&self) -> &Lifetimes {
        &self.core.lifetimes
    }

    /// The counters of all handles of this cache.
    pub fn stats(&self) -> Stats {
        self.core.calls.counters.snapshot(self.core.calls.provider.evictions())
    }

    /// What the provider can do and how that is known.
    pub fn capabilities(&self) -> Capabilities {
        self.core.capabilities()
    }

    /// The breakers in front of the provider: reads first. None for a provider in this process.
    pub fn breakers(&self) -> Option<&Breakers> {
        self.core.breakers.as_ref()
    }

    /// The provider below, for what stands beside the cache: [`coordination`](crate::coordination).
    pub fn provider(&self) -> &Arc<dyn Provider> {
        &self.core.calls.provider
    }

    /// Asks the provider how it is, within the operation timeout.
    pub async fn health(&self) -> Health {
        let core = &self.core;
        core.attend();
        let mut condition = core.condition;
        let mut reasons = core.reasons.clone();
        if condition == Condition::Active {
            let answer = core.calls.run("health", core.calls.provider.health()).await;
            if let Err(failure) = answer {
                reasons.push(failure.to_string());
            } else if core.calls.is_failing() {
                reasons.push(format!("calls failed within the last {QUIET_BEFORE_RECOVERED:?}"));
            }
            let owed = if core.epoch_store().is_some() { core.epochs.owed_slots().len() } else { 0 };
            if owed > 0 {
                reasons.push(format!("{owed} invalidations wait to be sent to the other processes"));
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
            breakers: core.breakers.as_ref().map(|breakers| breakers.reports().to_vec()).unwrap_or_default(),
            switched_off: core.switched_off.lock().unwrap_or_else(PoisonError::into_inner).clone(),
        }
    }
}

impl Core {
    fn capabilities(&self) -> Capabilities {
        self.calls.provider.capabilities()
    }

    /// What can be given with the epochs that are kept for all processes. Where they are, each read can be checked
    /// against them, so every usage can be served.
    fn coherence(&self) -> Coherence {
        if self.epochs_elsewhere.is_some() { Coherence::Strict } else { self.capabilities().coherence() }
    }

    fn retains(&self) -> bool {
        self.capabilities().has(Capability::Retains)
    }

    /// Where all processes keep their epochs, if they do.
    fn epoch_store(&self) -> Option<&dyn EpochStore> {
        self.epochs_elsewhere.as_deref().or_else(|| self.calls.provider.epochs())
    }

    /// Whether a changed key raises its epoch. Other processes with copies of their own may hear of it by nothing else, where nobody
    /// carries messages. And where the epochs are kept elsewhere, a provider that comes back with what it held long ago goes
    /// back alone: what was only removed from it would be there again.
    fn tells_keys_by_epoch(&self) -> bool {
        let provider = &self.calls.provider;
        let has_copies = provider.copies().is_some() || !self.capabilities().has(Capability::Shared);
        let is_only_word = has_copies && provider.messages().is_none() && provider.epochs().is_some();
        self.epochs_elsewhere.is_some() || is_only_word
    }

    /// What an entry with this header must carry to be served now.
    fn stamp(&self, key: &Key, header: &Header) -> Option<u64> {
        self.epochs.stamp(key, header.tags.as_slice())
    }

    /// Value and header as an item that the provider will take; `None` when there is no such thing, which is counted.
    fn seal<V: Value>(
        &self,
        key: &Key,
        header: Header,
        value: Option<Arc<V>>,
        policy: &Policy,
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
        let provider_max = capabilities.limit(Capability::MaxValueBytes);
        if [provider_max, policy.size_limit()].into_iter().flatten().any(|max| item.bytes.len() > max) {
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
