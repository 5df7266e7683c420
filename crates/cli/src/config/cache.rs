//! `[common.cache]` and the cache's breaker: the tables of the cache crate, checked here, handed on as they are.
//!
//! A problem in these tables never stops a start: the cache then runs as no-op until the file is mended. So
//! [`CacheConfig::tables`] gives nothing at all when one of them had a problem, rather than a half of what was meant.

use serde_json::{Value, json};

use super::mask::mask;
use super::schema::{ConfigOption, Kind, Refusal};

/// The tables whose problems are warnings.
pub(super) const SECTIONS: &[&str] = &["common.cache", "common.circuit_breakers.component_configs.cache"];

/// What the file, the environment and the flags say about the cache.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct CacheConfig {
    tables: Value,
    sound: bool,
    chosen: bool,
}

impl CacheConfig {
    /// The cache's tables, nested as in the file: `{"common": {"cache": …, "circuit_breakers": …}}`, with every
    /// option present. `None` when there was a problem in them: run the cache as no-op. May hold passwords.
    pub(crate) fn tables(&self) -> Option<&Value> {
        self.sound.then_some(&self.tables)
    }

    /// Whether anybody said if there is to be a cache, or which: where nobody did, a server has one in its own memory.
    pub(crate) fn is_chosen(&self) -> bool {
        self.chosen
    }

    /// Says that there was a problem in these tables.
    pub(super) fn distrust(&mut self) {
        self.sound = false;
    }

    fn at(&self, path: &str) -> Value {
        self.tables.pointer(&pointer(path)).cloned().unwrap_or(Value::Null)
    }

    fn put(&mut self, path: &str, value: impl Into<Value>) {
        self.chosen |= [ENABLED, BACKEND].contains(&path);
        if let Some(place) = self.tables.pointer_mut(&pointer(path)) {
            *place = value.into();
        }
    }
}

impl std::fmt::Debug for CacheConfig {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // The tables hold URLs with passwords.
        formatter.debug_struct("CacheConfig").field("sound", &self.sound).finish_non_exhaustive()
    }
}

impl Default for CacheConfig {
    fn default() -> Self {
        let cache = recache_cache::CacheConfig {
            backend: "redis".to_owned(),
            ..recache_cache::CacheConfig::default()
        };
        let breaker = table(&cache.breaker);
        let mut cache = table(&cache);
        // A list and a path that may be missing are texts here.
        for place in ["/redis/nodes", "/redis/ca_file"] {
            if let Some(place) = cache.pointer_mut(place) {
                *place = Value::from("");
            }
        }
        let tables = json!({
            "common": { "cache": cache, "circuit_breakers": { "component_configs": { "cache": breaker } } },
        });
        Self { tables, sound: true, chosen: false }
    }
}

/// The defaults are the cache crate's; they hold no secret that writing them out would mask.
fn table(config: &impl serde::Serialize) -> Value {
    serde_json::to_value(config).unwrap_or_default()
}

fn pointer(path: &str) -> String {
    format!("/{}", path.replace('.', "/"))
}

const fn whole(
    path: &'static str,
    meaning: &'static str,
    unit: &'static str,
    min: u32,
    max: u32,
) -> ConfigOption {
    ConfigOption {
        path,
        meaning,
        kind: Kind::Whole { unit, min, max, write: |config, path, count| config.cache.put(path, count) },
        read: |config, path| config.cache.at(path),
    }
}

/// A URL with one of these schemes and something behind it. The text is never repeated: it may hold a password.
fn check_url(text: &str, schemes: &[&str], form: &str) -> Result<(), Refusal> {
    let remedy = || format!("write {form}");
    let Some((scheme, rest)) = text.split_once("://") else {
        return Err(Refusal::new("is not a URL", remedy()));
    };
    if !schemes.contains(&scheme) {
        let known = scheme.bytes().all(|byte| byte.is_ascii_alphanumeric());
        let why = if known {
            format!("has the scheme `{scheme}`, not one of {}", schemes.join(", "))
        } else {
            "is not a URL".to_owned()
        };
        return Err(Refusal::new(why, remedy()));
    }
    if rest.is_empty() || rest.chars().any(|character| character.is_whitespace() || character.is_control()) {
        return Err(Refusal::new("names no server, or has a blank in it", remedy()));
    }
    Ok(())
}

const ENABLED: &str = "common.cache.enabled";
const BACKEND: &str = "common.cache.backend";
const BACKENDS: &[&str] =
    &["redis", "dragonfly", "valkey", "memcached", "moka", "memory", "in-memory", "tiered"];
const FAR_BACKENDS: &[&str] = &["redis", "dragonfly", "valkey", "memcached"];
const NODES_FORM: &str = "redis://HOST:26379, several with commas between";
const REDIS_FORM: &str = "redis://HOST:6379, or rediss://HOST:6379 with TLS";
const MEMCACHED_FORM: &str = "tcp://HOST:11211";
const KEY_PREFIX_BYTES_MAX: usize = 100;
const YEAR_SECONDS: u32 = 31_536_000;

pub(super) const OPTIONS: &[ConfigOption] = &[
    ConfigOption {
        path: ENABLED,
        meaning: "whether anything is cached at all; where neither this nor `backend` is said, a server caches in its own memory",
        kind: Kind::Boolean { write: |config, path, on| config.cache.put(path, on) },
        read: |config, path| config.cache.at(path),
    },
    ConfigOption {
        path: BACKEND,
        meaning: "what holds the cached values",
        kind: Kind::Choice { allowed: BACKENDS, write: |config, path, name| config.cache.put(path, name) },
        read: |config, path| config.cache.at(path),
    },
    whole(
        "common.cache.default_ttl_seconds",
        "how long a value is kept when nothing else says so",
        "seconds",
        1,
        YEAR_SECONDS,
    ),
    whole("common.cache.template_ttl_seconds", "how long a template is kept", "seconds", 1, YEAR_SECONDS),
    whole(
        "common.cache.analytics_ttl_seconds",
        "how long an analytics answer is kept",
        "seconds",
        1,
        YEAR_SECONDS,
    ),
    ConfigOption {
        path: "common.cache.key_prefix",
        meaning: "what every key starts with, so that two deployments can share one backend",
        kind: Kind::Text {
            form: "1 to 100 bytes",
            write: |config, path, text| {
                if text.is_empty() || text.len() > KEY_PREFIX_BYTES_MAX || text.chars().any(char::is_control)
                {
                    return Err(Refusal::new(
                        "is empty, longer than 100 bytes, or has a control character in it",
                        "write a short name, for example \"recache\"",
                    ));
                }
                config.cache.put(path, text);
                Ok(())
            },
        },
        read: |config, path| config.cache.at(path),
    },
    whole(
        "common.cache.operation_timeout_ms",
        "how long one call of the backend may take",
        "milliseconds",
        1,
        10_000,
    ),
    whole(
        "common.cache.beat_ms",
        "how often a process asks what the others have invalidated",
        "milliseconds",
        10,
        600_000,
    ),
    whole(
        "common.cache.lag_max_ms",
        "for how long copies in a process are served without a word from the others; longer than a beat",
        "milliseconds",
        11,
        600_000,
    ),
    choice("common.cache.tiered.far", "the tier that all processes share", FAR_BACKENDS),
    whole(
        "common.cache.tiered.near_max_capacity",
        "the most copies held in each process",
        "entries",
        1,
        1_000_000_000,
    ),
    whole("common.cache.tiered.near_max_bytes", "how much these take at most", "bytes", 1, u32::MAX),
    ConfigOption {
        path: "common.cache.redis.url",
        meaning: "where Redis, Dragonfly or Valkey listens",
        kind: Kind::Text {
            form: REDIS_FORM,
            write: |config, path, text| {
                check_url(text, &["redis", "rediss"], REDIS_FORM)?;
                config.cache.put(path, text);
                Ok(())
            },
        },
        read: |config, path| masked(&config.cache.at(path)),
    },
    whole(
        "common.cache.redis.max_connections",
        "the most connections to open to Redis",
        "connections",
        1,
        1000,
    ),
    whole(
        "common.cache.redis.connection_timeout_seconds",
        "how long connecting to Redis may take",
        "seconds",
        1,
        300,
    ),
    whole("common.cache.redis.database", "which of the server's numbered databases to use", "", 0, 65_535),
    choice("common.cache.redis.mode", "how the servers are found", &["single", "sentinel", "cluster"]),
    ConfigOption {
        path: "common.cache.redis.nodes",
        meaning: "the sentinels, or more nodes of the cluster to begin with",
        kind: Kind::Text {
            form: NODES_FORM,
            write: |config, path, text| {
                for node in text.split(',').map(str::trim).filter(|node| !node.is_empty()) {
                    check_url(node, &["redis", "rediss"], NODES_FORM)?;
                }
                config.cache.put(path, text);
                Ok(())
            },
        },
        read: |config, path| masked(&config.cache.at(path)),
    },
    plain_text("common.cache.redis.sentinel_master", "what the sentinels call the master", "a name"),
    plain_text(
        "common.cache.redis.ca_file",
        "the certificate authorities to trust with rediss://, in PEM; those that browsers trust when it is empty",
        "a path",
    ),
    ConfigOption {
        path: "common.cache.memcached.url",
        meaning: "where Memcached listens; several servers with commas between",
        kind: Kind::Text {
            form: MEMCACHED_FORM,
            write: |config, path, text| {
                check_url(text, &["tcp"], MEMCACHED_FORM)?;
                config.cache.put(path, text);
                Ok(())
            },
        },
        read: |config, path| masked(&config.cache.at(path)),
    },
    whole(
        "common.cache.memcached.max_connections",
        "the most connections to open to each Memcached server",
        "connections",
        1,
        1000,
    ),
    whole(
        "common.cache.memcached.connection_timeout_seconds",
        "how long connecting to Memcached may take",
        "seconds",
        1,
        300,
    ),
    whole("common.cache.moka.max_capacity", "the most entries held in memory", "entries", 1, 1_000_000_000),
    whole(
        "common.circuit_breakers.component_configs.cache.failure_threshold",
        "how many failures in a row open the breaker",
        "failures",
        1,
        10_000,
    ),
    whole(
        "common.circuit_breakers.component_configs.cache.timeout_seconds",
        "how long the breaker stays open before it tries again",
        "seconds",
        1,
        86_400,
    ),
    whole(
        "common.circuit_breakers.component_configs.cache.success_threshold",
        "how many calls must succeed to close the breaker",
        "calls",
        1,
        1_000,
    ),
    ConfigOption {
        path: "common.circuit_breakers.component_configs.cache.enabled",
        meaning: "whether a backend that does not answer is cut off",
        kind: Kind::Boolean { write: |config, path, on| config.cache.put(path, on) },
        read: |config, path| config.cache.at(path),
    },
    whole(
        "common.circuit_breakers.component_configs.cache.backoff_factor",
        "by what that time is multiplied each time that a trial fails",
        "times",
        1,
        10,
    ),
    whole(
        "common.circuit_breakers.component_configs.cache.timeout_seconds_max",
        "the longest that the breaker stays open, however often a trial failed",
        "seconds",
        1,
        86_400,
    ),
    whole(
        "common.circuit_breakers.component_configs.cache.half_open_max_wait_ms",
        "how long after its last call a trial may be undecided",
        "milliseconds",
        1,
        60_000,
    ),
    ConfigOption {
        path: "common.circuit_breakers.component_configs.cache.window",
        meaning: "what the rates are taken from: the last calls, or the last time",
        kind: Kind::Choice {
            allowed: &["calls", "time"],
            write: |config, path, name| config.cache.put(path, name),
        },
        read: |config, path| config.cache.at(path),
    },
    whole(
        "common.circuit_breakers.component_configs.cache.window_calls",
        "size of a window of calls",
        "calls",
        1,
        100_000,
    ),
    whole(
        "common.circuit_breakers.component_configs.cache.window_seconds",
        "size of a window of time",
        "seconds",
        1,
        3_600,
    ),
    whole(
        "common.circuit_breakers.component_configs.cache.min_calls",
        "how many calls there must be in the window before a rate opens the breaker",
        "calls",
        1,
        100_000,
    ),
    whole(
        "common.circuit_breakers.component_configs.cache.failure_rate_percent",
        "the share of failed calls that opens the breaker",
        "percent",
        1,
        100,
    ),
    whole(
        "common.circuit_breakers.component_configs.cache.slow_rate_percent",
        "the share of slow calls that opens the breaker",
        "percent",
        1,
        100,
    ),
    whole(
        "common.circuit_breakers.component_configs.cache.slow_call_ms",
        "a call that takes longer is slow",
        "milliseconds",
        1,
        60_000,
    ),
];

const fn choice(path: &'static str, meaning: &'static str, allowed: &'static [&'static str]) -> ConfigOption {
    ConfigOption {
        path,
        meaning,
        kind: Kind::Choice { allowed, write: |config, path, name| config.cache.put(path, name) },
        read: |config, path| config.cache.at(path),
    }
}

const fn plain_text(path: &'static str, meaning: &'static str, form: &'static str) -> ConfigOption {
    ConfigOption {
        path,
        meaning,
        kind: Kind::Text {
            form,
            write: |config, path, text| {
                config.cache.put(path, text);
                Ok(())
            },
        },
        read: |config, path| config.cache.at(path),
    }
}

fn masked(value: &Value) -> Value {
    value.as_str().map_or(Value::Null, |text| Value::from(mask(text)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_cache_option_has_a_place_in_the_tables_and_in_a_cache_section() {
        let cache = CacheConfig::default();
        for option in OPTIONS {
            assert_ne!(cache.at(option.path), Value::Null, "{}", option.path);
            assert!(SECTIONS.iter().any(|section| option.path.starts_with(section)), "{}", option.path);
        }
    }

    #[test]
    fn every_place_in_the_tables_has_an_option() {
        fn leaves(value: &Value) -> usize {
            value.as_object().map_or(1, |table| table.values().map(leaves).sum())
        }
        assert_eq!(leaves(&CacheConfig::default().tables), OPTIONS.len());
    }

    #[test]
    fn wrong_cache_urls_are_refused_without_repeating_them() {
        for text in ["hunter2", "http://hunter2", "hunter2 x://h", "redis://", "redis://hunter2 h"] {
            let refusal = check_url(text, &["redis"], REDIS_FORM).unwrap_err();
            assert!(!format!("{refusal:?}").contains("hunter2"), "{refusal:?}");
        }
        check_url("redis://:p@h:6379", &["redis"], REDIS_FORM).unwrap();
    }

    #[test]
    fn distrusted_tables_are_not_handed_out() {
        let mut cache = CacheConfig::default();
        assert!(cache.tables().is_some());
        cache.distrust();
        assert_eq!(cache.tables(), None);
    }
}
