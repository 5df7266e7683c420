//! The cache's part of the configuration: `[common.cache]` with its tables, and
//! `[common.circuit_breakers.component_configs.cache]`. Unknown keys are refused when it is read, bad values are told
//! all at once by [`CacheConfig::problems`].

mod check;
mod memcached_server;

use std::fmt;
use std::time::Duration;

pub use self::memcached_server::MemcachedServer;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::breaker;

/// `[common.cache]`
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct CacheConfig {
    /// Whether to cache. Default false.
    pub enabled: bool,
    /// `redis`, `dragonfly`, `valkey`, `memcached`, `moka` (also `memory`, `in-memory`) or `tiered`. Default `moka`.
    pub backend: String,
    /// How long values live that have no time of their own, in seconds. Default 3600.
    pub default_ttl_seconds: u64,
    /// How long templates live, in seconds. Default 3600.
    pub template_ttl_seconds: u64,
    /// How long analytics live, in seconds. Default 60.
    pub analytics_ttl_seconds: u64,
    /// With what every key begins, so that deployments can share a server. Default `recache`.
    pub key_prefix: String,
    /// How long one call of the backend may take, in milliseconds. Default 50.
    pub operation_timeout_ms: u64,
    /// How often a process asks what the others have invalidated and lets itself be heard, in milliseconds. Default 500.
    pub beat_ms: u64,
    /// For how long copies in a process are served without a word from the others, in milliseconds. Longer than a
    /// beat. Default 2000.
    pub lag_max_ms: u64,
    /// `[common.cache.tiered]`
    pub tiered: TieredConfig,
    /// `[common.cache.redis]`
    pub redis: RedisConfig,
    /// `[common.cache.memcached]`
    pub memcached: MemcachedConfig,
    /// `[common.cache.moka]`
    pub moka: MokaConfig,
    /// `[common.circuit_breakers.component_configs.cache]`. It does not stand in `[common.cache]`: who reads the
    /// file puts it here.
    #[serde(skip)]
    pub breaker: BreakerConfig,
}

impl Default for CacheConfig {
    fn default() -> Self {
        Self {
            enabled: false,
            backend: "moka".to_owned(),
            default_ttl_seconds: 3_600,
            template_ttl_seconds: 3_600,
            analytics_ttl_seconds: 60,
            key_prefix: "recache".to_owned(),
            operation_timeout_ms: 50,
            beat_ms: 500,
            lag_max_ms: 2_000,
            tiered: TieredConfig::default(),
            redis: RedisConfig::default(),
            memcached: MemcachedConfig::default(),
            moka: MokaConfig::default(),
            breaker: BreakerConfig::default(),
        }
    }
}

/// `[common.cache.tiered]`
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct TieredConfig {
    /// The tier that all processes share: `redis`, `dragonfly`, `valkey` or `memcached`. Default `redis`.
    pub far: String,
    /// Copies held at most in each process. Default 10000.
    pub near_max_capacity: u64,
    /// Bytes that these take at most. Default 128 MiB.
    pub near_max_bytes: u64,
}

impl Default for TieredConfig {
    fn default() -> Self {
        Self {
            far: "redis".to_owned(),
            near_max_capacity: crate::provider::CAPACITY_DEFAULT,
            near_max_bytes: crate::provider::BYTES_MAX_DEFAULT,
        }
    }
}

impl TieredConfig {
    /// The shared tier, when it can be one.
    pub fn far(&self) -> Option<Backend> {
        match self.far.as_str() {
            "redis" => Some(Backend::Redis),
            "dragonfly" => Some(Backend::Dragonfly),
            "valkey" => Some(Backend::Valkey),
            "memcached" => Some(Backend::Memcached),
            _ => None,
        }
    }
}

/// `[common.cache.redis]`; also read for Dragonfly and Valkey.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct RedisConfig {
    /// `redis://` or `rediss://`. Default `redis://localhost:6379`.
    pub url: ServerUrl,
    /// Connections held at most to each server, opened as they are needed. Where somebody listens for messages, one more
    /// does that. Default 10.
    pub max_connections: u32,
    /// How long a connection may take to come about, in seconds. Default 5.
    pub connection_timeout_seconds: u64,
    /// Number of the database, where the URL names none. Default 0.
    pub database: u32,
    /// How the servers are found. Default `single`.
    pub mode: RedisMode,
    /// With `mode = "sentinel"` the sentinels, as `redis://host:26379`; with `cluster` further nodes to begin with. TLS,
    /// user and password of the servers themselves are those of `url`. A list, or a text with commas. Default none.
    #[serde(deserialize_with = "one_or_many")]
    pub nodes: Vec<ServerUrl>,
    /// What the sentinels call the master; its place is theirs to tell, not `url`'s. Default `mymaster`.
    pub sentinel_master: String,
    /// File of the certificate authorities to trust with `rediss://`, in PEM. Default: those that browsers trust.
    #[serde(deserialize_with = "empty_as_none")]
    pub ca_file: Option<String>,
}

/// How the servers of Redis are found.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum RedisMode {
    /// One server, at `url`.
    #[default]
    Single,
    /// The master that the sentinels name.
    Sentinel,
    /// A cluster, of which `url` and `nodes` are some.
    Cluster,
}

impl Default for RedisConfig {
    fn default() -> Self {
        Self {
            url: ServerUrl::new("redis://localhost:6379"),
            max_connections: 10,
            connection_timeout_seconds: 5,
            database: 0,
            mode: RedisMode::default(),
            nodes: Vec::new(),
            sentinel_master: "mymaster".to_owned(),
            ca_file: None,
        }
    }
}

/// `[common.cache.memcached]`
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct MemcachedConfig {
    /// `tcp://host:port`, or several servers as `tcp://host:port,host:port`. Default `tcp://localhost:11211`.
    pub url: ServerUrl,
    /// Connections held at most, to each server. Default 10.
    pub max_connections: u32,
    /// How long a connection may take to come about, in seconds. Default 5.
    pub connection_timeout_seconds: u64,
}

impl Default for MemcachedConfig {
    fn default() -> Self {
        Self {
            url: ServerUrl::new("tcp://localhost:11211"),
            max_connections: 10,
            connection_timeout_seconds: 5,
        }
    }
}

impl MemcachedConfig {
    /// The servers that `url` names; what is wrong with it otherwise, without its credentials.
    pub fn servers(&self) -> Result<Vec<MemcachedServer>, String> {
        MemcachedServer::list(&self.url)
    }
}

/// `[common.cache.moka]`
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct MokaConfig {
    /// Entries held at most. Default 10000. A limit in bytes holds beside it, see
    /// [`Moka`](crate::provider::Moka).
    pub max_capacity: u64,
}

impl Default for MokaConfig {
    fn default() -> Self {
        Self { max_capacity: crate::provider::CAPACITY_DEFAULT }
    }
}

/// `[common.circuit_breakers.component_configs.cache]`; see [`crate::breaker`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct BreakerConfig {
    /// Whether there is one. Default true.
    pub enabled: bool,
    /// Consecutive failures that open it. Default 5.
    pub failure_threshold: u32,
    /// How long it stays open before it is tried, in seconds. Default 15.
    pub timeout_seconds: u64,
    /// By what that time is multiplied each time that a trial fails; 1 leaves it as it is. Default 1.
    pub backoff_factor: u32,
    /// It never stays open for longer, in seconds, unless `timeout_seconds` itself is longer. Default 300.
    pub timeout_seconds_max: u64,
    /// Successes in a trial that close it, and calls that a trial admits. Default 2.
    pub success_threshold: u32,
    /// How long after its last admission a trial may be undecided, in milliseconds. Default 5000.
    pub half_open_max_wait_ms: u64,
    /// Which results the rates are taken from: those of the last `calls`, or of the last `time`. Default `calls`.
    pub window: String,
    /// Size of a window of calls. Default 100.
    pub window_calls: u32,
    /// Size of a window of time, in seconds. Default 10.
    pub window_seconds: u64,
    /// Results that there must be in the window before a rate opens it. Default 20.
    pub min_calls: u32,
    /// Share of failed calls that opens it, in percent. Default 50.
    pub failure_rate_percent: u32,
    /// Share of slow calls that opens it, in percent. Default 80.
    pub slow_rate_percent: u32,
    /// A call that takes longer is slow, in milliseconds. Default 25.
    pub slow_call_ms: u64,
}

impl Default for BreakerConfig {
    fn default() -> Self {
        Self {
            enabled: true,
            failure_threshold: 5,
            timeout_seconds: 15,
            backoff_factor: 1,
            timeout_seconds_max: 300,
            success_threshold: 2,
            half_open_max_wait_ms: 5_000,
            window: "calls".to_owned(),
            window_calls: 100,
            window_seconds: 10,
            min_calls: 20,
            failure_rate_percent: 50,
            slow_rate_percent: 80,
            slow_call_ms: 25,
        }
    }
}

impl BreakerConfig {
    /// The breaker that it describes. A window that it does not know is one of calls; `problems` tells of it.
    pub fn settings(&self) -> breaker::Settings {
        breaker::Settings {
            is_enabled: self.enabled,
            failure_threshold: self.failure_threshold,
            window: match self.window.as_str() {
                "time" => breaker::Window::Time(Duration::from_secs(self.window_seconds)),
                _ => breaker::Window::Calls(self.window_calls),
            },
            min_calls: self.min_calls,
            failure_rate_percent: self.failure_rate_percent,
            slow_rate_percent: self.slow_rate_percent,
            slow_after: Duration::from_millis(self.slow_call_ms),
            open_for: Duration::from_secs(self.timeout_seconds),
            backoff_factor: self.backoff_factor,
            open_for_max: Duration::from_secs(self.timeout_seconds_max),
            permits: self.success_threshold,
            half_open_max_wait: Duration::from_millis(self.half_open_max_wait_ms),
        }
    }
}

/// Which backend a configuration names.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Backend {
    /// `redis`
    Redis,
    /// `dragonfly`
    Dragonfly,
    /// `valkey`
    Valkey,
    /// `memcached`
    Memcached,
    /// `moka`, `memory`, `in-memory`
    Moka,
    /// `tiered`
    Tiered,
}

impl Backend {
    /// As configuration names it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Redis => "redis",
            Self::Dragonfly => "dragonfly",
            Self::Valkey => "valkey",
            Self::Memcached => "memcached",
            Self::Moka => "moka",
            Self::Tiered => "tiered",
        }
    }
}

impl CacheConfig {
    /// The backend, when its name is known.
    pub fn backend(&self) -> Option<Backend> {
        match self.backend.as_str() {
            "redis" => Some(Backend::Redis),
            "dragonfly" => Some(Backend::Dragonfly),
            "valkey" => Some(Backend::Valkey),
            "memcached" => Some(Backend::Memcached),
            "moka" | "memory" | "in-memory" => Some(Backend::Moka),
            "tiered" => Some(Backend::Tiered),
            _ => None,
        }
    }
}

/// Something in the configuration that cannot be used.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConfigProblem {
    /// Where: `common.cache.backend`.
    pub path: String,
    /// What is wrong, with the value, unless it may hold a password.
    pub message: String,
    /// What to write instead.
    pub remedy: String,
}

impl fmt::Display for ConfigProblem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}; {}", self.path, self.message, self.remedy)
    }
}

/// A list of addresses, or one text with commas between them, as an environment variable has it.
fn one_or_many<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<ServerUrl>, D::Error> {
    #[derive(Deserialize)]
    #[serde(untagged)]
    enum Nodes {
        One(String),
        Many(Vec<ServerUrl>),
    }
    Ok(match Nodes::deserialize(deserializer)? {
        Nodes::Many(nodes) => nodes,
        Nodes::One(text) => {
            let named = text.split(',').map(str::trim).filter(|node| !node.is_empty());
            named.map(ServerUrl::new).collect()
        }
    })
}

fn empty_as_none<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<String>, D::Error> {
    Ok(Option::<String>::deserialize(deserializer)?.filter(|text| !text.is_empty()))
}

/// The address of a server. It may hold a password, so it is shown without what stands between scheme and host.
#[derive(Clone, PartialEq, Eq, Deserialize)]
#[serde(transparent)]
pub struct ServerUrl(String);

impl ServerUrl {
    /// An address, not checked.
    pub fn new(url: impl Into<String>) -> Self {
        Self(url.into())
    }

    /// The address with its password, for who connects.
    pub fn expose(&self) -> &str {
        &self.0
    }

    /// Scheme and the rest.
    fn split(&self) -> Option<(&str, &str)> {
        self.0.split_once("://")
    }
}

impl fmt::Display for ServerUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // By the last `@`, not by parsing: a password with odd characters must not end up half shown. What follows `?`
        // may hold credentials too.
        let Some((scheme, rest)) = self.split() else {
            return f.write_str("***");
        };
        let (user, rest) = match rest.rsplit_once('@') {
            Some((_, rest)) => ("***@", rest),
            None => ("", rest),
        };
        let (place, query) = match rest.split_once('?') {
            Some((place, _)) => (place, "?***"),
            None => (rest, ""),
        };
        write!(f, "{scheme}://{user}{place}{query}")
    }
}

impl fmt::Debug for ServerUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "\"{self}\"")
    }
}

impl Serialize for ServerUrl {
    /// Masked: what is written out is for people to read.
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}
