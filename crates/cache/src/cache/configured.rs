//! How a cache is made from configuration. Whatever is wrong with that, there is a cache.

use std::sync::Arc;
use std::time::Duration;

use tracing::{info, warn};

use super::Cache;
use super::builder::Builder;
use crate::clock::Clock;
use crate::config::{Backend, CacheConfig, ConfigProblem};
use crate::health::Condition;
use crate::key::KeyPrefix;
use crate::provider::{Breakers, Near, Noop, Provider, Tiered};
use crate::usage::Lifetimes;

impl Cache {
    /// The cache that `config` describes. Neither fails nor blocks: with a bad value, an unknown backend or one that is
    /// not built in, it warns, runs as no-op, and [`health`](Cache::health) says degraded and why. A server that cannot
    /// be reached is connected in the background, for as long as that takes.
    pub fn from_config(config: &CacheConfig, clock: Arc<dyn Clock>) -> Self {
        Self::configure(config, clock).build()
    }

    /// The same before it is built, to be given more: [`Builder::epochs`], for instance.
    pub fn configure(config: &CacheConfig, clock: Arc<dyn Clock>) -> Builder {
        if !config.enabled {
            info!(provider = "noop", "cache is disabled");
            let reason = "disabled: common.cache.enabled is false".to_owned();
            return noop(config, clock).out_of_order(Condition::Disabled, vec![reason]);
        }
        let problems = config.problems();
        let made = if problems.is_empty() { compose(config, &clock) } else { Err(problems) };
        match made {
            Ok(parts) => parts.builder(config, clock),
            Err(problems) => degraded(config, clock, &problems),
        }
    }

    /// A no-op cache that says in its health why it is one; for who reads the configuration and finds a cache section
    /// that cannot be read at all. Never fails; warns of each problem.
    pub fn out_of_order(config: &CacheConfig, clock: Arc<dyn Clock>, problems: &[ConfigProblem]) -> Self {
        degraded(config, clock, problems).build()
    }
}

/// What a configured cache is made of.
struct Parts {
    provider: Arc<dyn Provider>,
    breakers: Option<Breakers>,
}

impl Parts {
    fn builder(self, config: &CacheConfig, clock: Arc<dyn Clock>) -> Builder {
        let builder = settings(Builder::new(self.provider, clock), config);
        match self.breakers {
            Some(breakers) => builder.breakers(breakers),
            None => builder,
        }
    }
}

fn compose(config: &CacheConfig, clock: &Arc<dyn Clock>) -> Result<Parts, Vec<ConfigProblem>> {
    let Some(backend) = config.backend() else { return Err(config.problems()) };
    if backend != Backend::Tiered {
        return single(config, backend, "common.cache.backend", clock);
    }
    let tiered = &config.tiered;
    let Some(far) = tiered.far() else { return Err(config.problems()) };
    let Parts { provider: far, breakers } = single(config, far, "common.cache.tiered.far", clock)?;
    let near = Near::new(tiered.near_max_capacity, tiered.near_max_bytes, Arc::clone(clock));
    info!(
        provider = "tiered",
        far = far.name(),
        near_max_capacity = tiered.near_max_capacity,
        near_max_bytes = tiered.near_max_bytes,
        beat_ms = config.beat_ms,
        lag_max_ms = config.lag_max_ms,
        "cache has two tiers"
    );
    let provider = Tiered::new(Arc::new(near), far, KeyPrefix::new(&config.key_prefix));
    Ok(Parts { provider: Arc::new(provider), breakers })
}

/// One tier.
fn single(
    config: &CacheConfig,
    backend: Backend,
    path: &str,
    clock: &Arc<dyn Clock>,
) -> Result<Parts, Vec<ConfigProblem>> {
    match backend {
        Backend::Redis | Backend::Dragonfly | Backend::Valkey => redis(config, backend, path),
        Backend::Memcached => memcached(config, path, clock),
        Backend::Moka => moka(config, path, clock),
        Backend::Tiered => Err(vec![ConfigProblem {
            path: path.to_owned(),
            message: "a tier cannot be tiered itself".to_owned(),
            remedy: "choose redis, dragonfly, valkey or memcached".to_owned(),
        }]),
    }
}

#[cfg(feature = "cache-redis")]
fn redis(config: &CacheConfig, backend: Backend, _: &str) -> Result<Parts, Vec<ConfigProblem>> {
    use crate::provider::{Redis, RedisSettings};

    let settings = RedisSettings::from_config(&config.redis)?.of_backend(backend);
    let redis = &config.redis;
    info!(
        provider = "redis",
        backend = backend.name(),
        url = %redis.url,
        max_connections = redis.max_connections,
        connection_timeout_seconds = redis.connection_timeout_seconds,
        database = redis.database,
        key_prefix = config.key_prefix,
        default_ttl_seconds = config.default_ttl_seconds,
        template_ttl_seconds = config.template_ttl_seconds,
        analytics_ttl_seconds = config.analytics_ttl_seconds,
        "cache is active"
    );
    Ok(guarded(config, Arc::new(Redis::new(&settings, KeyPrefix::new(&config.key_prefix)))))
}

#[cfg(not(feature = "cache-redis"))]
fn redis(config: &CacheConfig, _: Backend, path: &str) -> Result<Parts, Vec<ConfigProblem>> {
    Err(not_built_in(config, path, "cache-redis"))
}

#[cfg(feature = "cache-memcached")]
fn memcached(config: &CacheConfig, path: &str, clock: &Arc<dyn Clock>) -> Result<Parts, Vec<ConfigProblem>> {
    use crate::provider::{Memcached, MemcachedSettings};

    let memcached = &config.memcached;
    let settings = MemcachedSettings::from_config(memcached, Arc::clone(clock))
        .map_err(|message| unusable(path, message))?;
    info!(
        provider = "memcached",
        url = %memcached.url,
        max_connections = memcached.max_connections,
        connection_timeout_seconds = memcached.connection_timeout_seconds,
        key_prefix = config.key_prefix,
        default_ttl_seconds = config.default_ttl_seconds,
        template_ttl_seconds = config.template_ttl_seconds,
        analytics_ttl_seconds = config.analytics_ttl_seconds,
        "cache is active"
    );
    let memcached = Memcached::new(settings, &KeyPrefix::new(&config.key_prefix));
    Ok(guarded(config, Arc::new(memcached)))
}

#[cfg(not(feature = "cache-memcached"))]
fn memcached(config: &CacheConfig, path: &str, _: &Arc<dyn Clock>) -> Result<Parts, Vec<ConfigProblem>> {
    Err(not_built_in(config, path, "cache-memcached"))
}

#[cfg(feature = "cache-moka")]
#[expect(clippy::unnecessary_wraps, reason = "its twin for programs without moka fails")]
fn moka(config: &CacheConfig, _: &str, clock: &Arc<dyn Clock>) -> Result<Parts, Vec<ConfigProblem>> {
    use crate::provider::{BYTES_MAX_DEFAULT, Moka};

    let max_capacity = config.moka.max_capacity;
    info!(
        provider = "moka",
        max_capacity,
        bytes_max = BYTES_MAX_DEFAULT,
        key_prefix = config.key_prefix,
        default_ttl_seconds = config.default_ttl_seconds,
        template_ttl_seconds = config.template_ttl_seconds,
        analytics_ttl_seconds = config.analytics_ttl_seconds,
        "cache is active"
    );
    let provider = Arc::new(Moka::new(max_capacity, BYTES_MAX_DEFAULT, Arc::clone(clock)));
    Ok(Parts { provider, breakers: None })
}

#[cfg(not(feature = "cache-moka"))]
fn moka(config: &CacheConfig, path: &str, _: &Arc<dyn Clock>) -> Result<Parts, Vec<ConfigProblem>> {
    Err(not_built_in(config, path, "cache-moka"))
}

/// Behind its breakers, as every backend outside the process is.
#[cfg(any(feature = "cache-redis", feature = "cache-memcached"))]
fn guarded(config: &CacheConfig, provider: Arc<dyn Provider>) -> Parts {
    use crate::provider::Guarded;

    let limit = Duration::from_millis(config.operation_timeout_ms);
    let guarded = Guarded::new(provider, &config.breaker.settings()).call_timeout(limit);
    let breakers = Some(guarded.breakers());
    Parts { provider: Arc::new(guarded), breakers }
}

#[cfg(feature = "cache-memcached")]
fn unusable(path: &str, message: String) -> Vec<ConfigProblem> {
    let remedy = "mend the section of this backend".to_owned();
    vec![ConfigProblem { path: path.to_owned(), message, remedy }]
}

#[cfg(not(all(feature = "cache-redis", feature = "cache-memcached", feature = "cache-moka")))]
fn not_built_in(config: &CacheConfig, path: &str, feature: &str) -> Vec<ConfigProblem> {
    let backend = if path.ends_with("far") { &config.tiered.far } else { &config.backend };
    vec![ConfigProblem {
        path: path.to_owned(),
        message: format!("backend \"{backend}\" is not built into this program"),
        remedy: format!("build it with the feature `{feature}`, or choose another backend"),
    }]
}

fn degraded(config: &CacheConfig, clock: Arc<dyn Clock>, problems: &[ConfigProblem]) -> Builder {
    for problem in problems {
        let ConfigProblem { path, message, remedy } = problem;
        warn!(provider = "noop", path, problem = message, remedy, "cache runs as no-op until this is mended");
    }
    let reasons = problems.iter().map(ToString::to_string).collect();
    noop(config, clock).out_of_order(Condition::Degraded, reasons)
}

fn noop(config: &CacheConfig, clock: Arc<dyn Clock>) -> Builder {
    settings(Builder::new(Arc::new(Noop), clock), config)
}

fn settings(builder: Builder, config: &CacheConfig) -> Builder {
    builder
        .key_prefix(&config.key_prefix)
        .operation_timeout(Duration::from_millis(config.operation_timeout_ms))
        .beat(Duration::from_millis(config.beat_ms))
        .lag_max(Duration::from_millis(config.lag_max_ms))
        .lifetimes(Lifetimes {
            default: Duration::from_secs(config.default_ttl_seconds),
            template: Duration::from_secs(config.template_ttl_seconds),
            analytics: Duration::from_secs(config.analytics_ttl_seconds),
        })
}
