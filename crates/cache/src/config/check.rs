//! Values that parse and cannot be used.

use std::ops::RangeInclusive;

use super::{BreakerConfig, CacheConfig, ConfigProblem, RedisConfig, RedisMode, ServerUrl};

/// Ten years. A longer time is a slip of the keyboard.
const SECONDS_MAX: u64 = 10 * 365 * 86_400;

/// A call that is given up later than this is no bound.
const OPERATION_TIMEOUT_MS_MAX: u64 = 10_000;
/// Ten minutes: beyond it nobody would call two caches coherent.
const BEAT_MS_MAX: u64 = 600_000;
const LAG_MS_MAX: u64 = 600_000;

/// A longer prefix would be replaced by its digest in keys, see [`key`](crate::key).
const KEY_PREFIX_BYTES_MAX: usize = 64;

/// Ten times as long after each failed trial is more than anybody wants.
const BACKOFF_FACTOR_MAX: u64 = 10;
/// A trial with more calls is no trial.
const PERMITS_MAX: u64 = 1_000;
/// A minute: no cache is waited for longer.
const WAIT_MS_MAX: u64 = 60_000;
/// Two bytes for each are held.
const WINDOW_CALLS_MAX: u64 = 100_000;
/// An hour.
const WINDOW_SECONDS_MAX: u64 = 3_600;

impl CacheConfig {
    /// Everything that is wrong with the values, in the order of the file. All tables are checked, also those of
    /// backends that are not chosen.
    pub fn problems(&self) -> Vec<ConfigProblem> {
        let mut found = Found(Vec::new());
        if self.backend().is_none() {
            found.add(
                "common.cache.backend",
                format!("unknown backend {:?}", self.backend),
                "choose redis, dragonfly, valkey, memcached, moka, memory, in-memory or tiered",
            );
        }
        found.seconds("common.cache.default_ttl_seconds", self.default_ttl_seconds);
        found.seconds("common.cache.template_ttl_seconds", self.template_ttl_seconds);
        found.seconds("common.cache.analytics_ttl_seconds", self.analytics_ttl_seconds);
        found.key_prefix(&self.key_prefix);
        found.milliseconds(
            "common.cache.operation_timeout_ms",
            self.operation_timeout_ms,
            1..=OPERATION_TIMEOUT_MS_MAX,
        );
        found.milliseconds("common.cache.beat_ms", self.beat_ms, 10..=BEAT_MS_MAX);
        found.milliseconds(
            "common.cache.lag_max_ms",
            self.lag_max_ms,
            self.beat_ms.saturating_add(1)..=LAG_MS_MAX,
        );

        let tiered = &self.tiered;
        if tiered.far().is_none() {
            found.add(
                "common.cache.tiered.far",
                format!("unknown backend {:?}", tiered.far),
                "choose redis, dragonfly, valkey or memcached",
            );
        }
        found.at_least_one("common.cache.tiered.near_max_capacity", tiered.near_max_capacity);
        found.at_least_one("common.cache.tiered.near_max_bytes", tiered.near_max_bytes);

        found.0.extend(self.redis.problems());

        let memcached = &self.memcached;
        if let Err(problem) = memcached.servers() {
            let remedy = "write tcp://host:port, or tcp://host:port,host:port for several servers";
            found.add(
                "common.cache.memcached.url",
                format!("not an address of such a server: {problem}"),
                remedy,
            );
        }
        found.at_least_one("common.cache.memcached.max_connections", memcached.max_connections.into());
        found.seconds(
            "common.cache.memcached.connection_timeout_seconds",
            memcached.connection_timeout_seconds,
        );

        found.at_least_one("common.cache.moka.max_capacity", self.moka.max_capacity);

        found.breaker(&self.breaker);
        found.0
    }
}

impl RedisConfig {
    /// Everything that is wrong with this table.
    pub fn problems(&self) -> Vec<ConfigProblem> {
        let mut found = Found(Vec::new());
        found.url("common.cache.redis.url", &self.url, &["redis", "rediss"]);
        found.at_least_one("common.cache.redis.max_connections", self.max_connections.into());
        found.seconds("common.cache.redis.connection_timeout_seconds", self.connection_timeout_seconds);
        for node in &self.nodes {
            found.url("common.cache.redis.nodes", node, &["redis", "rediss"]);
        }
        match self.mode {
            RedisMode::Single if !self.nodes.is_empty() => found.add(
                "common.cache.redis.nodes",
                "nodes are named and the mode is single",
                "set mode to \"sentinel\" or \"cluster\", or leave nodes out",
            ),
            RedisMode::Sentinel if self.nodes.is_empty() => found.add(
                "common.cache.redis.nodes",
                "no sentinel is named",
                "name the sentinels: nodes = [\"redis://host:26379\"]",
            ),
            RedisMode::Sentinel if self.sentinel_master.is_empty() => found.add(
                "common.cache.redis.sentinel_master",
                "the name is empty",
                "write what the sentinels call the master, often mymaster",
            ),
            RedisMode::Cluster if self.database != 0 => found.add(
                "common.cache.redis.database",
                format!("a cluster has no database {}", self.database),
                "leave it at 0",
            ),
            RedisMode::Single | RedisMode::Sentinel | RedisMode::Cluster => {}
        }
        found.0
    }
}

struct Found(Vec<ConfigProblem>);

impl Found {
    fn add(&mut self, path: &str, message: impl Into<String>, remedy: impl Into<String>) {
        self.0.push(ConfigProblem { path: path.to_owned(), message: message.into(), remedy: remedy.into() });
    }

    fn seconds(&mut self, path: &str, seconds: u64) {
        if !(1..=SECONDS_MAX).contains(&seconds) {
            self.add(
                path,
                format!("{seconds} s is out of range"),
                format!("give 1 to {SECONDS_MAX} seconds"),
            );
        }
    }

    fn milliseconds(&mut self, path: &str, milliseconds: u64, range: RangeInclusive<u64>) {
        if !range.contains(&milliseconds) {
            let (least, most) = (range.start(), range.end());
            self.add(
                path,
                format!("{milliseconds} ms is out of range"),
                format!("give {least} to {most} milliseconds"),
            );
        }
    }

    fn at_least_one(&mut self, path: &str, number: u64) {
        if number == 0 {
            self.add(path, "0 is too small", "give 1 or more");
        }
    }

    fn within(&mut self, path: &str, number: u64, range: RangeInclusive<u64>) {
        if !range.contains(&number) {
            self.add(
                path,
                format!("{number} is out of range"),
                format!("give {} to {}", range.start(), range.end()),
            );
        }
    }

    fn breaker(&mut self, breaker: &BreakerConfig) {
        let at = |key: &str| format!("common.circuit_breakers.component_configs.cache.{key}");
        self.at_least_one(&at("failure_threshold"), breaker.failure_threshold.into());
        self.seconds(&at("timeout_seconds"), breaker.timeout_seconds);
        self.within(&at("backoff_factor"), breaker.backoff_factor.into(), 1..=BACKOFF_FACTOR_MAX);
        self.seconds(&at("timeout_seconds_max"), breaker.timeout_seconds_max);
        self.within(&at("success_threshold"), breaker.success_threshold.into(), 1..=PERMITS_MAX);
        self.within(&at("half_open_max_wait_ms"), breaker.half_open_max_wait_ms, 1..=WAIT_MS_MAX);
        if !["calls", "time"].contains(&breaker.window.as_str()) {
            self.add(&at("window"), format!("unknown window {:?}", breaker.window), "choose calls or time");
        }
        self.within(&at("window_calls"), breaker.window_calls.into(), 1..=WINDOW_CALLS_MAX);
        self.within(&at("window_seconds"), breaker.window_seconds, 1..=WINDOW_SECONDS_MAX);
        self.within(&at("min_calls"), breaker.min_calls.into(), 1..=WINDOW_CALLS_MAX);
        self.within(&at("failure_rate_percent"), breaker.failure_rate_percent.into(), 1..=100);
        self.within(&at("slow_rate_percent"), breaker.slow_rate_percent.into(), 1..=100);
        self.within(&at("slow_call_ms"), breaker.slow_call_ms, 1..=WAIT_MS_MAX);
    }

    fn key_prefix(&mut self, prefix: &str) {
        let path = "common.cache.key_prefix";
        if prefix.is_empty() {
            self.add(
                path,
                "the prefix is empty",
                "name the deployment, so that none shares keys with it by chance",
            );
        } else if crate::KeyPrefix::new(prefix).as_str().len() > KEY_PREFIX_BYTES_MAX {
            self.add(
                path,
                format!("the prefix takes more than {KEY_PREFIX_BYTES_MAX} bytes in a key"),
                "shorten it; letters, digits, '.', '_' and '-' take one byte, others three for each of their bytes",
            );
        }
    }

    fn url(&mut self, path: &str, url: &ServerUrl, schemes: &[&str]) {
        let is_good = url.split().is_some_and(|(scheme, rest)| {
            let host = rest.rsplit_once('@').map_or(rest, |(_, host)| host);
            schemes.contains(&scheme) && !host.is_empty() && !host.starts_with(['/', ':'])
        });
        if !is_good {
            let expected: Vec<_> = schemes.iter().map(|scheme| format!("{scheme}://host:port")).collect();
            self.add(path, "not an address of such a server", format!("write {}", expected.join(" or ")));
        }
    }
}
