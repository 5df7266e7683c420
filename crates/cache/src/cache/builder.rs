//! How a cache is made: from a provider, or from configuration.

use std::sync::atomic::{AtomicBool, AtomicU64};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tracing::{info, warn};

use super::audit::Audit;
use super::calls::Calls;
use super::flight::Flights;
use super::throttle::Throttle;
use super::upkeep::Upkeep;
use super::{Cache, Core};
use crate::chance::{Chance, SystemChance};
use crate::clock::Clock;
use crate::config::{Backend, CacheConfig, ConfigProblem};
use crate::epochs::Epochs;
use crate::health::Condition;
use crate::key::KeyPrefix;
use crate::provider::{BYTES_MAX_DEFAULT, EpochStore, Moka, Noop, Provider};
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
            condition: self.condition,
            reasons: self.reasons,
            epochs: Epochs::new(),
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
        Cache { lifetime: self.lifetimes.default, verdict, schema: 0, core: Arc::new(core), after: None }
    }

    fn out_of_order(mut self, condition: Condition, reasons: Vec<String>) -> Self {
        self.condition = condition;
        self.reasons = reasons;
        self
    }
}

impl Cache {
    /// The cache that `config` describes. Neither fails nor blocks: with a bad value, an unknown backend or one that is
    /// not built into this version, it warns, runs as no-op, and [`health`](Cache::health) says degraded and why.
    pub fn from_config(config: &CacheConfig, clock: Arc<dyn Clock>) -> Self {
        if !config.enabled {
            info!(provider = "noop", "cache is disabled");
            return noop(config, clock)
                .out_of_order(Condition::Disabled, vec!["disabled: common.cache.enabled is false".to_owned()])
                .build();
        }
        let problems = config.problems();
        if !problems.is_empty() {
            return Self::out_of_order(config, clock, &problems);
        }
        match config.backend() {
            Some(Backend::Moka) => {
                let capacity = config.moka.max_capacity;
                let moka = Moka::new(capacity, BYTES_MAX_DEFAULT, Arc::clone(&clock));
                info!(
                    provider = "moka",
                    max_capacity = capacity,
                    bytes_max = BYTES_MAX_DEFAULT,
                    key_prefix = config.key_prefix,
                    default_ttl_seconds = config.default_ttl_seconds,
                    template_ttl_seconds = config.template_ttl_seconds,
                    analytics_ttl_seconds = config.analytics_ttl_seconds,
                    "cache is active"
                );
                settings(Builder::new(Arc::new(moka), clock), config).build()
            }
            Some(
                Backend::Redis | Backend::Dragonfly | Backend::Valkey | Backend::Memcached | Backend::Tiered,
            )
            | None => {
                let remedy = "set common.cache.backend to \"moka\", or common.cache.enabled to false";
                Self::out_of_order(
                    config,
                    clock,
                    &[ConfigProblem {
                        path: "common.cache.backend".to_owned(),
                        message: format!("backend \"{}\" is not built into this version", config.backend),
                        remedy: remedy.to_owned(),
                    }],
                )
            }
        }
    }

    /// A no-op cache that says in its health why it is one; for who reads the configuration and finds a cache section
    /// that cannot be read at all. Never fails; warns of each problem.
    pub fn out_of_order(config: &CacheConfig, clock: Arc<dyn Clock>, problems: &[ConfigProblem]) -> Self {
        for problem in problems {
            let ConfigProblem { path, message, remedy } = problem;
            warn!(
                provider = "noop",
                path,
                problem = message,
                remedy,
                "cache runs as no-op until this is mended"
            );
        }
        let reasons = problems.iter().map(ToString::to_string).collect();
        noop(config, clock).out_of_order(Condition::Degraded, reasons).build()
    }
}

fn noop(config: &CacheConfig, clock: Arc<dyn Clock>) -> Builder {
    settings(Builder::new(Arc::new(Noop), clock), config)
}

fn settings(builder: Builder, config: &CacheConfig) -> Builder {
    builder.key_prefix(&config.key_prefix).lifetimes(Lifetimes {
        default: Duration::from_secs(config.default_ttl_seconds),
        template: Duration::from_secs(config.template_ttl_seconds),
        analytics: Duration::from_secs(config.analytics_ttl_seconds),
    })
}
