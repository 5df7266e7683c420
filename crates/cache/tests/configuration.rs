//! The given configuration works as it stands, and a bad one never stops the start.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    missing_docs,
    reason = "a test says what it expects"
)]

#[allow(dead_code, reason = "each test file uses a part of it")]
mod support;

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use recache_cache::breaker::{Settings, Window};
use recache_cache::config::{
    Backend, BreakerConfig, MemcachedConfig, MokaConfig, RedisConfig, RedisMode, ServerUrl, TieredConfig,
};
use recache_cache::{Cache, CacheConfig, Condition, ConfigProblem, ManualClock, Policy, Usage};
use serde::Deserialize;
use support::{POLICY, Said};

const GIVEN: &str = r#"
[common.cache]
enabled = true
backend = "redis"
default_ttl_seconds = 1800
template_ttl_seconds = 900
analytics_ttl_seconds = 30
key_prefix = "tasker"
operation_timeout_ms = 40
beat_ms = 300
lag_max_ms = 1200

[common.cache.tiered]
far = "memcached"
near_max_capacity = 30000
near_max_bytes = 4096

[common.cache.redis]
url = "redis://user:secret@redis.internal:6379"
max_connections = 20
connection_timeout_seconds = 6
database = 3
mode = "sentinel"
nodes = ["redis://sentinel.internal:26379"]
sentinel_master = "orders"
ca_file = "/etc/ca.pem"

[common.cache.memcached]
url = "tcp://memcached.internal:11211"
max_connections = 21
connection_timeout_seconds = 7

[common.cache.moka]
max_capacity = 20000

[common.circuit_breakers.component_configs.cache]
failure_threshold = 6
timeout_seconds = 16
success_threshold = 3
enabled = false
backoff_factor = 2
timeout_seconds_max = 120
half_open_max_wait_ms = 700
window = "time"
window_calls = 50
window_seconds = 20
min_calls = 9
failure_rate_percent = 40
slow_rate_percent = 60
slow_call_ms = 30
"#;

/// The file around the cache's tables, as who reads it has it.
#[derive(Deserialize)]
struct File {
    common: Common,
}

#[derive(Deserialize)]
struct Common {
    cache: CacheConfig,
    circuit_breakers: CircuitBreakers,
}

#[derive(Deserialize)]
struct CircuitBreakers {
    component_configs: ComponentConfigs,
}

#[derive(Deserialize)]
struct ComponentConfigs {
    cache: BreakerConfig,
}

fn given() -> CacheConfig {
    let common = toml::from_str::<File>(GIVEN).unwrap().common;
    CacheConfig { breaker: common.circuit_breakers.component_configs.cache, ..common.cache }
}

fn moka() -> CacheConfig {
    CacheConfig { enabled: true, ..CacheConfig::default() }
}

fn cache(config: &CacheConfig) -> Cache {
    Cache::from_config(config, Arc::new(ManualClock::default()))
}

#[test]
fn every_given_key_is_read() {
    let expected = CacheConfig {
        enabled: true,
        backend: "redis".to_owned(),
        default_ttl_seconds: 1_800,
        template_ttl_seconds: 900,
        analytics_ttl_seconds: 30,
        key_prefix: "tasker".to_owned(),
        operation_timeout_ms: 40,
        beat_ms: 300,
        lag_max_ms: 1_200,
        tiered: TieredConfig {
            far: "memcached".to_owned(),
            near_max_capacity: 30_000,
            near_max_bytes: 4_096,
        },
        redis: RedisConfig {
            url: ServerUrl::new("redis://user:secret@redis.internal:6379"),
            max_connections: 20,
            connection_timeout_seconds: 6,
            database: 3,
            mode: RedisMode::Sentinel,
            nodes: vec![ServerUrl::new("redis://sentinel.internal:26379")],
            sentinel_master: "orders".to_owned(),
            ca_file: Some("/etc/ca.pem".to_owned()),
        },
        memcached: MemcachedConfig {
            url: ServerUrl::new("tcp://memcached.internal:11211"),
            max_connections: 21,
            connection_timeout_seconds: 7,
        },
        moka: MokaConfig { max_capacity: 20_000 },
        breaker: BreakerConfig {
            enabled: false,
            failure_threshold: 6,
            timeout_seconds: 16,
            backoff_factor: 2,
            timeout_seconds_max: 120,
            success_threshold: 3,
            half_open_max_wait_ms: 700,
            window: "time".to_owned(),
            window_calls: 50,
            window_seconds: 20,
            min_calls: 9,
            failure_rate_percent: 40,
            slow_rate_percent: 60,
            slow_call_ms: 30,
        },
    };
    assert_eq!(given(), expected);
    assert_eq!(given().problems(), []);
}

#[test]
fn nothing_given_means_the_defaults() {
    let config: CacheConfig = toml::from_str("").unwrap();
    assert_eq!(config, CacheConfig::default());
    assert_eq!(config.problems(), []);
    assert!(!config.enabled);
    assert_eq!(
        (config.default_ttl_seconds, config.template_ttl_seconds, config.analytics_ttl_seconds),
        (3_600, 3_600, 60)
    );
    assert_eq!(config.moka.max_capacity, 10_000);
    assert_eq!(
        (config.redis.max_connections, config.redis.connection_timeout_seconds, config.redis.database),
        (10, 5, 0)
    );
    assert_eq!((config.memcached.max_connections, config.memcached.connection_timeout_seconds), (10, 5));
    assert_eq!(config.memcached.servers().unwrap()[0].to_string(), "localhost:11211");
    let breaker = &config.breaker;
    assert_eq!((breaker.failure_threshold, breaker.timeout_seconds, breaker.success_threshold), (5, 15, 2));
    assert_eq!(breaker.settings(), Settings::default(), "the breaker's own defaults are the configuration's");
}

#[test]
fn every_key_of_the_breaker_reaches_it() {
    let mut given = given().breaker;
    let expected = Settings {
        is_enabled: false,
        failure_threshold: 6,
        window: Window::Time(Duration::from_secs(20)),
        min_calls: 9,
        failure_rate_percent: 40,
        slow_rate_percent: 60,
        slow_after: Duration::from_millis(30),
        open_for: Duration::from_secs(16),
        backoff_factor: 2,
        open_for_max: Duration::from_mins(2),
        permits: 3,
        half_open_max_wait: Duration::from_millis(700),
    };
    assert_eq!(given.settings(), expected);
    given.window = "calls".to_owned();
    assert_eq!(given.settings(), Settings { window: Window::Calls(50), ..expected });
}

#[test]
fn redis_may_be_a_cluster_or_stand_behind_sentinels() {
    let read = |text: &str| toml::from_str::<RedisConfig>(text).unwrap();
    let paths =
        |config: &RedisConfig| config.problems().into_iter().map(|problem| problem.path).collect::<Vec<_>>();
    let cluster = read("mode = \"cluster\"\nnodes = [\"redis://two:7001\"]\nca_file = \"/etc/ca.pem\"");
    assert_eq!((cluster.mode, cluster.nodes.len()), (RedisMode::Cluster, 1));
    assert_eq!(cluster.ca_file.as_deref(), Some("/etc/ca.pem"));
    assert_eq!(cluster.problems(), []);
    let sentinel = read("mode = \"sentinel\"\nnodes = [\"redis://s:26379\"]\nsentinel_master = \"main\"");
    assert_eq!((sentinel.mode, sentinel.sentinel_master.as_str()), (RedisMode::Sentinel, "main"));
    assert_eq!(sentinel.problems(), []);

    assert_eq!(paths(&read("nodes = [\"redis://h\"]")), ["common.cache.redis.nodes"]);
    assert_eq!(paths(&read("mode = \"sentinel\"")), ["common.cache.redis.nodes"]);
    assert_eq!(paths(&read("mode = \"cluster\"\nnodes = [\"h:1\"]")), ["common.cache.redis.nodes"]);
    assert_eq!(paths(&read("mode = \"cluster\"\ndatabase = 1")), ["common.cache.redis.database"]);
    let unnamed = read("mode = \"sentinel\"\nnodes = [\"redis://s\"]\nsentinel_master = \"\"");
    assert_eq!(paths(&unnamed), ["common.cache.redis.sentinel_master"]);
    assert!(toml::from_str::<RedisConfig>("mode = \"ring\"").is_err());
    let secret = read("mode = \"cluster\"\nnodes = [\"redis://u:secret@two\"]");
    assert!(
        !toml::to_string(&secret).unwrap().contains("secret") && !format!("{secret:?}").contains("secret")
    );
}

#[test]
fn unknown_keys_are_refused_in_every_table() {
    for text in
        ["ttl = 1", "[redis]\npool = 1", "[memcached]\npool = 1", "[moka]\nmax_bytes = 1", "[breaker]"]
    {
        let error = toml::from_str::<CacheConfig>(text).unwrap_err();
        assert!(error.to_string().contains("unknown field"), "{text}: {error}");
    }
    assert!(toml::from_str::<BreakerConfig>("threshold = 1").is_err());
}

#[test]
fn all_problems_are_told_at_once_with_their_paths() {
    let config = CacheConfig {
        backend: "reddis".to_owned(),
        default_ttl_seconds: 0,
        template_ttl_seconds: u64::MAX,
        analytics_ttl_seconds: 0,
        key_prefix: String::new(),
        operation_timeout_ms: 0,
        beat_ms: 0,
        lag_max_ms: 0,
        tiered: TieredConfig { far: "moka".to_owned(), near_max_capacity: 0, near_max_bytes: 0 },
        redis: RedisConfig {
            url: ServerUrl::new("http://user:secret@host"),
            max_connections: 0,
            connection_timeout_seconds: 0,
            ..RedisConfig::default()
        },
        memcached: MemcachedConfig {
            url: ServerUrl::new("tcp://user:secret@host:0"),
            max_connections: 0,
            connection_timeout_seconds: 0,
        },
        moka: MokaConfig { max_capacity: 0 },
        breaker: BreakerConfig {
            enabled: true,
            failure_threshold: 0,
            timeout_seconds: 0,
            backoff_factor: 0,
            timeout_seconds_max: 0,
            success_threshold: 0,
            half_open_max_wait_ms: 0,
            window: "moon".to_owned(),
            window_calls: 0,
            window_seconds: 0,
            min_calls: 0,
            failure_rate_percent: 101,
            slow_rate_percent: 0,
            slow_call_ms: 0,
        },
        ..CacheConfig::default()
    };
    let problems = config.problems();
    let paths: Vec<_> = problems.iter().map(|problem| problem.path.trim_start_matches("common.")).collect();
    assert_eq!(
        paths,
        [
            "cache.backend",
            "cache.default_ttl_seconds",
            "cache.template_ttl_seconds",
            "cache.analytics_ttl_seconds",
            "cache.key_prefix",
            "cache.operation_timeout_ms",
            "cache.beat_ms",
            "cache.lag_max_ms",
            "cache.tiered.far",
            "cache.tiered.near_max_capacity",
            "cache.tiered.near_max_bytes",
            "cache.redis.url",
            "cache.redis.max_connections",
            "cache.redis.connection_timeout_seconds",
            "cache.memcached.url",
            "cache.memcached.max_connections",
            "cache.memcached.connection_timeout_seconds",
            "cache.moka.max_capacity",
            "circuit_breakers.component_configs.cache.failure_threshold",
            "circuit_breakers.component_configs.cache.timeout_seconds",
            "circuit_breakers.component_configs.cache.backoff_factor",
            "circuit_breakers.component_configs.cache.timeout_seconds_max",
            "circuit_breakers.component_configs.cache.success_threshold",
            "circuit_breakers.component_configs.cache.half_open_max_wait_ms",
            "circuit_breakers.component_configs.cache.window",
            "circuit_breakers.component_configs.cache.window_calls",
            "circuit_breakers.component_configs.cache.window_seconds",
            "circuit_breakers.component_configs.cache.min_calls",
            "circuit_breakers.component_configs.cache.failure_rate_percent",
            "circuit_breakers.component_configs.cache.slow_rate_percent",
            "circuit_breakers.component_configs.cache.slow_call_ms",
        ]
    );
    for problem in &problems {
        assert!(!problem.message.is_empty() && !problem.remedy.is_empty());
        assert!(!problem.to_string().contains("secret"), "{problem}");
    }
}

#[test]
fn every_backend_has_its_names() {
    let backend = |name: &str| CacheConfig { backend: name.to_owned(), ..moka() }.backend();
    for name in ["moka", "memory", "in-memory"] {
        assert_eq!(backend(name), Some(Backend::Moka));
    }
    assert_eq!(backend("redis"), Some(Backend::Redis));
    assert_eq!(backend("dragonfly"), Some(Backend::Dragonfly));
    assert_eq!(backend("valkey"), Some(Backend::Valkey));
    assert_eq!(backend("memcached"), Some(Backend::Memcached));
    assert_eq!(backend("tiered"), Some(Backend::Tiered));
    assert_eq!(backend("Redis"), None);
}

#[test]
fn too_long_a_prefix_is_a_problem_before_it_is_hashed() {
    let problems = |prefix: String| CacheConfig { key_prefix: prefix, ..moka() }.problems().len();
    assert_eq!(problems("x".repeat(64)), 0);
    assert_eq!(problems("x".repeat(65)), 1);
    assert_eq!(problems("é".repeat(11)), 1);
}

#[test]
fn passwords_are_never_shown() {
    for (url, shown) in [
        ("redis://user:secret@host:6379/1", "redis://***@host:6379/1"),
        ("redis://user:se?cr/e@t@host", "redis://***@host"),
        ("redis://host?password=secret", "redis://host?***"),
        ("redis://host:6379", "redis://host:6379"),
        ("secret", "***"),
    ] {
        let url = ServerUrl::new(url);
        assert_eq!(url.to_string(), shown);
        assert_eq!(format!("{url:?}"), format!("\"{shown}\""));
        assert_eq!(serde_json::to_string(&url).unwrap(), format!("\"{shown}\""));
    }
    assert!(!format!("{:?}", given()).contains("secret"));
    assert!(!toml::to_string(&given()).unwrap().contains("secret"));
    assert!(given().redis.url.expose().contains("secret"));
}

#[tokio::test]
async fn moka_is_active_and_said_so_at_info() {
    let (said, _listening) = Said::listen();
    for name in ["moka", "memory", "in-memory"] {
        let cache = cache(&CacheConfig { backend: name.to_owned(), ..moka() });
        let health = cache.health().await;
        assert_eq!((health.is_healthy, health.condition, health.provider), (true, Condition::Active, "moka"));
        let key = cache.keys().space("s").key(["k"]);
        cache.set(&key, 1_u64, &POLICY).await;
        assert!(cache.get::<u64>(&key).await.is_some());
    }
    assert_eq!((said.warnings(), said.infos()), (0, 3));
}

#[tokio::test]
async fn configured_values_are_used() {
    let clock = Arc::new(ManualClock::default());
    let config = CacheConfig {
        key_prefix: "shop".to_owned(),
        default_ttl_seconds: 10,
        template_ttl_seconds: 20,
        analytics_ttl_seconds: 5,
        moka: MokaConfig { max_capacity: 50 },
        ..moka()
    };
    let cache = Cache::from_config(&config, clock.clone());
    let seconds = |seconds| Policy::new(Duration::from_secs(seconds));
    assert_eq!(cache.keys().as_str(), "shop");
    assert_eq!(cache.default_policy(), seconds(10));
    assert_eq!(cache.for_usage(&Usage::Template).default_policy(), seconds(20));
    assert_eq!(cache.for_usage(&Usage::ViewItem).default_policy(), seconds(10));
    assert_eq!(cache.for_usage(&Usage::GraphAnalysis).default_policy(), seconds(90));
    assert_eq!(cache.for_usage(&Usage::Handlers).default_policy(), seconds(120));
    assert_eq!(cache.for_usage(&Usage::HealthDetail).default_policy(), seconds(60));
    let analytics = cache.for_usage(&Usage::Analytics);
    assert_eq!(analytics.default_policy(), seconds(5));

    let key = cache.keys().analytics_performance(24);
    cache.set(&key, 1_u64, &seconds(3_600)).await;
    clock.advance(Duration::from_secs(5));
    assert!(analytics.get::<u64>(&key).await.is_none(), "analytics are bounded by their time");

    let space = cache.keys().space("s");
    let keys: Vec<_> = (0..500).map(|number| space.key([number.to_string()])).collect();
    for key in &keys {
        cache.set(key, 1_u64, &POLICY).await;
        cache.get::<u64>(key).await;
    }
    let evicted = cache.stats().evictions.unwrap();
    assert!(evicted > 100, "{evicted} of 500 entries evicted with room for 50");
}

#[tokio::test]
async fn disabled_is_healthy_and_caches_nothing() {
    let (said, _listening) = Said::listen();
    let cache = cache(&CacheConfig { enabled: false, backend: "nonsense".to_owned(), ..moka() });
    let health = cache.health().await;
    assert_eq!((health.is_healthy, health.condition, health.provider), (true, Condition::Disabled, "noop"));
    assert!(health.reasons[0].contains("disabled"));
    let templates = cache.for_usage(&Usage::Template);
    let loads = AtomicUsize::new(0);
    let key = cache.keys().space("s").key(["k"]);
    for handle in [&cache, &templates, &cache, &templates] {
        let load = || async { Ok::<_, String>(Some(loads.fetch_add(1, Ordering::SeqCst))) };
        handle.get_or_load(&key, &POLICY, load).await.unwrap();
        assert!(handle.get::<usize>(&key).await.is_none());
    }
    assert_eq!(loads.load(Ordering::SeqCst), 4);
    assert!(cache.health().await.switched_off.is_empty());
    assert_eq!((said.warnings(), said.infos()), (0, 1));
}

const BUILT_IN: [(&str, &str, bool); 6] = [
    ("redis", "redis", cfg!(feature = "cache-redis")),
    ("dragonfly", "redis", cfg!(feature = "cache-redis")),
    ("valkey", "redis", cfg!(feature = "cache-redis")),
    ("memcached", "memcached", cfg!(feature = "cache-memcached")),
    ("moka", "moka", cfg!(feature = "cache-moka")),
    ("tiered", "tiered", cfg!(feature = "cache-redis")),
];

#[tokio::test]
async fn backend_that_is_not_built_in_degrades_by_name() {
    for (name, _, _) in BUILT_IN.into_iter().filter(|(_, _, is_built_in)| !is_built_in) {
        let (said, _listening) = Said::listen();
        let cache = cache(&CacheConfig { backend: name.to_owned(), ..moka() });
        assert_eq!(said.warnings(), 1);
        let health = cache.health().await;
        assert_eq!(
            (health.is_healthy, health.condition, health.provider),
            (false, Condition::Degraded, "noop")
        );
        assert!(health.reasons[0].contains("is not built into this program"), "{:?}", health.reasons);
        assert!(health.reasons[0].contains(if name == "tiered" { "redis" } else { name }));
    }
}

#[tokio::test]
async fn backend_that_is_built_in_starts_at_once_though_nobody_listens() {
    for (name, provider, is_built_in) in BUILT_IN {
        if !is_built_in {
            continue;
        }
        let began = tokio::time::Instant::now();
        let nobody = "127.0.0.1:1";
        let cache = cache(&CacheConfig {
            backend: name.to_owned(),
            redis: RedisConfig { url: ServerUrl::new(format!("redis://{nobody}")), ..RedisConfig::default() },
            memcached: MemcachedConfig {
                url: ServerUrl::new(format!("tcp://{nobody}")),
                ..MemcachedConfig::default()
            },
            ..moka()
        });
        let key = cache.keys().space("s").key(["k"]);
        let loaded = cache.get_or_load(&key, &POLICY, || async { Ok::<_, String>(Some(1_u64)) }).await;
        assert_eq!(loaded.unwrap().as_deref(), Some(&1), "{name}");
        assert!(began.elapsed() < Duration::from_secs(1), "{name}: {:?}", began.elapsed());
        let health = cache.health().await;
        assert_eq!((health.provider, health.is_healthy), (provider, name == "moka"), "{name}: {health:?}");
    }
}

#[tokio::test]
async fn bad_values_degrade_with_every_reason_and_still_serve() {
    let (said, _listening) = Said::listen();
    let cache = cache(&CacheConfig { backend: "reddis".to_owned(), default_ttl_seconds: 0, ..moka() });
    assert_eq!(said.warnings(), 2);
    let health = cache.health().await;
    assert_eq!((health.is_healthy, health.reasons.len()), (false, 2));
    assert!(health.reasons[0].contains("unknown backend \"reddis\""), "{:?}", health.reasons);
    let key = cache.keys().space("s").key(["k"]);
    let loaded = cache.get_or_load(&key, &POLICY, || async { Ok::<_, String>(Some(1_u64)) }).await;
    assert_eq!(loaded.unwrap().as_deref(), Some(&1));
    assert!(cache.get::<u64>(&key).await.is_none());
}

#[tokio::test]
async fn section_that_cannot_be_read_degrades_with_the_readers_words() {
    let problem = ConfigProblem {
        path: "common.cache.enabled".to_owned(),
        message: "expected a boolean, found \"maybe\"".to_owned(),
        remedy: "write true or false".to_owned(),
    };
    let cache = Cache::out_of_order(&CacheConfig::default(), Arc::new(ManualClock::default()), &[problem]);
    let health = cache.health().await;
    assert!(!health.is_healthy);
    assert_eq!(
        health.reasons,
        ["common.cache.enabled: expected a boolean, found \"maybe\"; write true or false"]
    );
}
