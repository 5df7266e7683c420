//! From configuration to the parts of an engine.

use std::sync::Arc;
use std::time::Duration;

use recache_cache::config::Backend;
use recache_cache::{Cache, CacheConfig, ConfigProblem, KeyPrefix, SystemClock};
use recache_engine::{Options, StoreEpochs};
use recache_model::retention::Retention;
use recache_store::Store;
use serde::de::DeserializeOwned;
use serde_json::Value;

use crate::config::{self, Config};

/// The engine's options as configured; what the configuration does not name keeps its default.
pub(super) fn options(config: &Config, node: &str) -> Options {
    let engine = &config.engine;
    let count = |value: u32| usize::try_from(value).unwrap_or(usize::MAX);
    Options {
        slots: count(engine.slots),
        queues: engine.queues.clone(),
        adaptive_limit: engine.adaptive_limit,
        lease: engine.lease,
        beat: engine.beat,
        sweep: engine.sweep,
        poll: engine.poll,
        claim_rows_max: count(engine.claim_rows_max),
        drain: engine.drain,
        generation_keep: engine.generation_keep,
        retention: Retention { done: engine.keep_done, failed: engine.keep_failed },
        result_bytes_max: u64::from(engine.result_bytes_max),
        publisher_wait: engine.publisher_wait,
        publisher_timeout: engine.publisher_timeout,
        grace: Duration::from_secs(5),
        traces_per_mille: config.telemetry.traces_begun_per_mille(),
        node: format!("{node}, pid {}", std::process::id()),
        ..Options::default()
    }
}

/// With what the keys of the configured cache begin.
pub(in crate::commands) fn key_prefix(config: &config::CacheConfig) -> KeyPrefix {
    let read = config.tables().and_then(|tables| read(tables).ok());
    KeyPrefix::new(&read.unwrap_or_default().key_prefix)
}

/// The cache as configured. One in this process has its epochs in the store, where there is one; a backend that all
/// processes share keeps them itself, for those too who have no store. Whatever is wrong with its sections, there is a cache: one that
/// does nothing, and says why. Where nobody chose one, whoever has a store, and so work to do, has a cache in its own memory.
pub(super) fn cache(config: &config::CacheConfig, store: Option<&Arc<dyn Store>>) -> Cache {
    let clock = Arc::new(SystemClock);
    match cache_config(config) {
        Ok(read) => {
            let config = match store {
                Some(_) if !config.is_chosen() => {
                    CacheConfig { enabled: true, backend: CacheConfig::default().backend, ..read }
                }
                _ => read,
            };
            let builder = Cache::configure(&config, clock);
            match store.filter(|_| config.backend() == Some(Backend::Moka)) {
                Some(store) => {
                    let prefix = KeyPrefix::new(&config.key_prefix);
                    builder.epochs(Arc::new(StoreEpochs::new(Arc::clone(store), &prefix))).build()
                }
                None => builder.build(),
            }
        }
        Err(problem) => Cache::out_of_order(&CacheConfig::default(), clock, &[problem]),
    }
}

/// The cache crate's own form of its sections.
pub(super) fn cache_config(config: &config::CacheConfig) -> Result<CacheConfig, ConfigProblem> {
    let problem = |message, remedy: &str| ConfigProblem {
        path: "common.cache".to_owned(),
        message,
        remedy: remedy.to_owned(),
    };
    match config.tables().map(read) {
        Some(Ok(config)) => Ok(config),
        Some(Err(message)) => Err(problem(message, "run `recache config check`")),
        None => Err(problem("its sections have problems".to_owned(), "mend what was warned of")),
    }
}

fn read(tables: &Value) -> Result<CacheConfig, String> {
    let mut config: CacheConfig = table(tables, "/common/cache")?;
    config.breaker = table(tables, "/common/circuit_breakers/component_configs/cache")?;
    Ok(config)
}

fn table<T: DeserializeOwned>(tables: &Value, pointer: &str) -> Result<T, String> {
    let table = tables.pointer(pointer).cloned().unwrap_or_else(|| Value::Object(serde_json::Map::new()));
    serde_json::from_value(table).map_err(|error| error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Environment;

    fn loaded(text: &str) -> config::Loaded {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("recache.toml");
        std::fs::write(&path, text).unwrap();
        config::load_file(Some(&path), &Environment::of_process(), &[])
    }

    #[test]
    fn every_cache_option_of_the_file_reaches_the_cache() {
        let loaded = loaded(
            "[common.cache]\nenabled = true\nbackend = \"moka\"\ndefault_ttl_seconds = 7\nkey_prefix = \"p\"\n\
             [common.cache.redis]\ndatabase = 3\n[common.cache.moka]\nmax_capacity = 99\n\
             [common.circuit_breakers.component_configs.cache]\nfailure_threshold = 8\n",
        );
        assert!(loaded.is_clean());
        let config = read(loaded.config.cache.tables().unwrap()).unwrap();
        assert_eq!((config.enabled, config.backend.as_str()), (true, "moka"));
        assert_eq!((config.default_ttl_seconds, config.key_prefix.as_str()), (7, "p"));
        assert_eq!((config.redis.database, config.moka.max_capacity), (3, 99));
        assert_eq!(config.breaker.failure_threshold, 8);
        assert!(config.problems().is_empty());
    }

    #[tokio::test]
    async fn bad_cache_section_gives_a_cache_that_does_nothing_and_says_why() {
        let loaded = loaded("[common.cache]\nenabled = true\nbackend = \"paper\"\n");
        let store = recache_store::open(&recache_store::OpenOptions::new("sqlite::memory:")).await.unwrap();
        let health = cache(&loaded.config.cache, Some(&store)).health().await;
        assert_eq!(health.condition, recache_cache::Condition::Degraded);
        assert!(!health.reasons.is_empty());
    }

    #[tokio::test]
    async fn configured_cache_in_each_process_serves_templates() {
        let loaded =
            loaded("[common.cache]\nenabled = true\nbackend = \"moka\"\nkey_prefix = \"shop one\"\n");
        let store = recache_store::open(&recache_store::OpenOptions::new("sqlite::memory:")).await.unwrap();
        let cache = cache(&loaded.config.cache, Some(&store));
        assert!(cache.for_usage(&recache_cache::Usage::Template).is_on());
        let key = cache.keys().template("n", "a", "1.0.0");
        assert!(cache.invalidate(&key).await.is_confirmed());
        let prefix = key_prefix(&loaded.config.cache);
        assert_eq!(&prefix, cache.keys());
        let record = store.cache_epochs_read(prefix.as_str(), recache_store::CacheMark::default()).await;
        assert_eq!(record.unwrap().unwrap().epochs.len(), 1, "it was raised in the store");
    }

    /// Each option alone changes what the engine gets: one that nobody reads cannot.
    #[test]
    fn every_engine_option_reaches_the_engine() {
        let of = |text: &str| {
            let loaded = loaded(text);
            assert!(loaded.is_clean(), "{text}");
            let options = options(&loaded.config, "test");
            assert!(options.check().is_ok(), "{text}");
            format!("{options:?}")
        };
        let plain = of("");
        for path in config::paths().filter(|path| path.starts_with("engine.")) {
            let name = path.trim_start_matches("engine.");
            let value = match name {
                "adaptive_limit" => "true",
                "queues" => "\"mail\"",
                // More than the default, and less than what others allow: three beats fit a lease.
                "lease_ms" => "9000",
                "beat_ms" => "11",
                "result_bytes_max" => "4096",
                _ => "13",
            };
            assert_ne!(of(&format!("[engine]\n{name} = {value}\n")), plain, "nobody reads {path}");
        }
    }
}
