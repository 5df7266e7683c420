//! How a cache is made from a provider.

use std::sync::atomic::{AtomicBool, AtomicU64};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use super::audit::Audit;
use super::calls::Calls;
use super::flight::Flights;
use super::throttle::Throttle;
use super::upkeep::Upkeep;
use super::{Cache, Core};
use crate::chance::{Chance, SystemChance};
use crate::clock::Clock;
use crate::config::CacheConfig;
use crate::epochs::Epochs;
use crate::health::Condition;
use crate::key::KeyPrefix;
use crate::provider::{Breakers, EpochStore, Provider};
use crate::stats::UsageLabel;
use crate::usage::{Lifetimes, Verdict};

/// How long one call of the provider may take, unless the builder says otherwise.
pub const OPERATION_TIMEOUT_DEFAULT: Duration = Duration::from_millis(50);

/// How often the epochs of all processes are read and a process lets itself be heard, unless the builder says otherwise.
pub const BEAT_DEFAULT: Duration = Duration::from_millis(500);

/// For how long copies are served without a word from the other processes, unless the builder says otherwise. Then the
/// shared tier is asked for each.
pub const LAG_MAX_DEFAULT: Duration = Duration::from_secs(2);

/// Makes a [`Cache`]; from [`Cache::builder`].
#[derive(Debug)]
#[must_use]
pub struct Builder {
    provider: Arc<dyn Provider>,
    clock: Arc<dyn Clock>,
    key_prefix: String,
    operation_timeout: Duration,
    beat: Duration,
    lag_max: Duration,
    epochs: Option<Arc<dyn EpochStore>>,
    chance: Arc<dyn Chance>,
    lifetimes: Lifetimes,
    breakers: Option<Breakers>,
    condition: Condition,
    reasons: Vec<String>,
}

impl Builder {
    pub(super) fn new(provider: Arc<dyn Provider>, clock: Arc<dyn Clock>) -> Self {
        Self {
            provider,
            clock,
            key_prefix: CacheConfig::default().key_prefix,
            operation_timeout: OPERATION_TIMEOUT_DEFAULT,
            beat: BEAT_DEFAULT,
            lag_max: LAG_MAX_DEFAULT,
            epochs: None,
            chance: Arc::new(SystemChance::default()),
            lifetimes: Lifetimes::default(),
            breakers: None,
            condition: Condition::Active,
            reasons: Vec::new(),
        }
    }

    /// With what every key begins. Default `recache`.
    pub fn key_prefix(mut self, key_prefix: impl Into<String>) -> Self {
        self.key_prefix = key_prefix.into();
        self
    }

    /// How long one call of the provider may take. Default 50 ms.
    pub fn operation_timeout(mut self, operation_timeout: Duration) -> Self {
        self.operation_timeout = operation_timeout;
        self
    }

    /// How often the epochs of all processes are read. Default 500 ms.
    pub fn beat(mut self, beat: Duration) -> Self {
        self.beat = beat;
        self
    }

    /// For how long copies in this process are served without a word from the others. Default 2 s.
    pub fn lag_max(mut self, lag_max: Duration) -> Self {
        self.lag_max = lag_max;
        self
    }

    /// Where the epochs of all processes are kept, when that is not the provider: a database that all of them use.
    /// With it even a cache in each process serves strict usages.
    pub fn epochs(mut self, epochs: Arc<dyn EpochStore>) -> Self {
        self.epochs = Some(epochs);
        self
    }

    /// The breakers in front of the provider, to be shown by health; from [`Guarded::breakers`].
    ///
    /// [`Guarded::breakers`]: crate::provider::Guarded::breakers
    pub fn breakers(mut self, breakers: Breakers) -> Self {
        self.breakers = Some(breakers);
        self
    }

    /// Who draws random numbers. Default: the operating system.
    pub fn chance(mut self, chance: Arc<dyn Chance>) -> Self {
        self.chance = chance;
        self
    }

    /// How long the values of each usage live by default.
    pub fn lifetimes(mut self, lifetimes: Lifetimes) -> Self {
        self.lifetimes = lifetimes;
        self
    }

    /// The cache.
    pub fn build(self) -> Cache {
        let core = Core {
            prefix: KeyPrefix::new(&self.key_prefix),
            lifetimes: self.lifetimes,
            breakers: self.breakers,
            condition: self.condition,
            reasons: self.reasons,
            epochs: Epochs::new(self.chance.draw()),
            shares_epochs: self.epochs.is_some() || self.provider.epochs().is_some(),
            hears_keys: self.provider.copies().is_some() && self.provider.messages().is_some(),
            epochs_elsewhere: self.epochs,
            upkeep: Upkeep::new(self.beat, self.lag_max),
            audit: Audit::default(),
            throttle: Throttle::default(),
            calls: Calls::new(self.provider, self.clock, self.operation_timeout),
            instance: self.chance.draw(),
            chance: self.chance,
            sequence: AtomicU64::new(0),
            flights: Flights::default(),
            switched_off: Mutex::default(),
            encode_failure_was_said: AtomicBool::new(false),
        };
        let verdict = if core.condition == Condition::Disabled { Verdict::Refuse } else { Verdict::Serve };
        Cache {
            lifetime: self.lifetimes.default,
            verdict,
            schema: 0,
            usage: UsageLabel::default(),
            core: Arc::new(core),
            after: None,
        }
    }

    pub(super) fn out_of_order(mut self, condition: Condition, reasons: Vec<String>) -> Self {
        self.condition = condition;
        self.reasons = reasons;
        self
    }
}
