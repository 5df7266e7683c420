//! The documented file, where files are found, and what the cache's own sections may do to a start.

use serde_json::{Value, json};

use super::{Scene, load_text, messages};
use crate::cli_error::ExitStatus;
use crate::config::{Output, Style};

/// The cache configuration of the documentation, word for word.
const DOCUMENTED: &str = r#"
[common.cache]
enabled = true                 # default false
backend = "redis"              # dragonfly | memcached | moka | memory | in-memory | tiered
default_ttl_seconds = 3600
template_ttl_seconds = 3600
analytics_ttl_seconds = 60
key_prefix = "tasker"

[common.cache.redis]
url = "${REDIS_URL:-redis://localhost:6379}"
max_connections = 10
connection_timeout_seconds = 5
database = 0

[common.cache.memcached]
url = "tcp://memcached.internal:11211"
connection_timeout_seconds = 5

[common.cache.moka]
max_capacity = 10000

[common.circuit_breakers.component_configs.cache]
failure_threshold = 5          # open after 5 consecutive failures
timeout_seconds = 15           # test recovery after 15 s
success_threshold = 2          # close after 2 successes
"#;

fn documented(redis_url: &str) -> Value {
    json!({"common": {
        "cache": {
            "enabled": true,
            "backend": "redis",
            "default_ttl_seconds": 3600,
            "template_ttl_seconds": 3600,
            "analytics_ttl_seconds": 60,
            "key_prefix": "tasker",
            // Not in the file: their defaults.
            "operation_timeout_ms": 50,
            "beat_ms": 500,
            "lag_max_ms": 2000,
            "tiered": {"far": "redis", "near_max_capacity": 10_000, "near_max_bytes": 134_217_728},
            "redis": {
                "url": redis_url,
                "max_connections": 10,
                "connection_timeout_seconds": 5,
                "database": 0,
                "mode": "single",
                "nodes": "",
                "sentinel_master": "mymaster",
                "ca_file": "",
            },
            "memcached": {
                "url": "tcp://memcached.internal:11211",
                "max_connections": 10,
                "connection_timeout_seconds": 5,
            },
            "moka": {"max_capacity": 10000},
        },
        "circuit_breakers": {"component_configs": {"cache": {
            "failure_threshold": 5,
            "timeout_seconds": 15,
            "success_threshold": 2,
            // Not in the file: their defaults.
            "enabled": true,
            "backoff_factor": 1,
            "timeout_seconds_max": 300,
            "half_open_max_wait_ms": 5000,
            "window": "calls",
            "window_calls": 100,
            "window_seconds": 10,
            "min_calls": 20,
            "failure_rate_percent": 50,
            "slow_rate_percent": 80,
            "slow_call_ms": 25,
        }}},
    }})
}

#[test]
fn documented_file_loads_with_no_problem() {
    let scene = Scene::new().file(DOCUMENTED);
    assert_eq!(scene.config().cache.tables(), Some(&documented("redis://localhost:6379")));
    let answer = scene.check();
    assert_eq!(
        (answer.exit, answer.out.as_str(), answer.err.as_str()),
        (ExitStatus::Ok, "recache.toml: no problems\n", "")
    );

    let scene = scene.variable("REDIS_URL", "rediss://:secret@cache:6380");
    assert_eq!(scene.config().cache.tables(), Some(&documented("rediss://:secret@cache:6380")));
}

#[test]
fn every_backend_of_the_documentation_is_known() {
    for backend in ["redis", "dragonfly", "memcached", "moka", "memory", "in-memory", "tiered"] {
        let config = Scene::new().file(&format!("[common.cache]\nbackend = \"{backend}\"\n")).config();
        assert_eq!(config.cache.tables().unwrap()["common"]["cache"]["backend"], backend);
    }
}

#[test]
fn problem_inside_the_cache_s_sections_is_a_warning_and_the_cache_gets_nothing() {
    for text in [
        "[common.cache]\nbackend = \"radis\"\n",
        "[common.cache]\ncolour = 1\n",
        "[common.cache.valkey]\nurl = \"x\"\n",
        "[common.cache.redis]\nurl = \"${NOT_SET}\"\n",
        "[common.cache]\nredis = 5\n",
        "[common]\ncache = 5\n",
        "[common.circuit_breakers.component_configs.cache]\nfailure_threshold = 0\n",
    ] {
        let loaded = load_text(text);
        let (problems, warnings) = messages(&loaded);
        assert_eq!((problems.len(), warnings.len()), (0, 1), "{text}: {problems:?} {warnings:?}");
        assert_eq!(loaded.config.cache.tables(), None, "{text}");
        assert_eq!(Scene::new().file(text).check().exit, ExitStatus::Failed, "{text}");
    }
}

#[test]
fn problem_outside_the_cache_s_sections_stops_a_start_and_leaves_the_cache_alone() {
    for text in [
        "[common.cash]\nenabled = true\n",
        "[common.circuit_breakers.component_configs.web]\ntimeout_seconds = 1\n",
        "common = 5\n",
        "colour = 1\n",
        "[engine]\nslots = 0\n",
        "[server]\naddress = \"0.0.0.0:1\"\n",
        "\"engine.slots\" = 4\n",
        "[[engine]]\nslots = 4\n",
    ] {
        let loaded = load_text(text);
        let (problems, warnings) = messages(&loaded);
        assert_eq!((problems.len(), warnings.len()), (1, 0), "{text}: {problems:?} {warnings:?}");
        assert!(loaded.config.cache.tables().is_some(), "{text}");
        assert_eq!(Scene::new().file(text).check().exit, ExitStatus::Failed, "{text}");
    }
}

#[test]
fn cache_problem_is_shown_as_a_warning_when_something_starts() {
    let scene = Scene::new().file("[common.cache]\nbackend = \"radis\"\n");
    let mut err = Vec::new();
    scene.load().write_problems(Style::Plain, miette::Severity::Warning, &mut err).unwrap();
    assert_eq!(
        String::from_utf8(err).unwrap(),
        "warning[E-CONFIG]: `common.cache.backend` is `radis`, which is not known\n  at recache.toml:2:11\n  help: \
         did you mean \"redis\"? allowed: redis, dragonfly, valkey, memcached, moka, memory, in-memory, tiered\n"
    );
}

#[test]
fn file_is_looked_for_in_the_documented_order() {
    let slots = |scene: &Scene, config: Option<&str>| {
        let path = config.map(std::path::Path::new);
        crate::config::load_file(path, &scene.environment, &[]).config.engine.slots
    };
    let scene = Scene::new();
    assert_eq!(slots(&scene, None), 8, "no file: the default");
    let scene = scene.file("[engine]\nslots = 1\n");
    assert_eq!(slots(&scene, None), 1, "recache.toml in the working directory");
    let scene = scene.file_named("two.toml", "[engine]\nslots = 2\n").variable("RECACHE_CONFIG", "two.toml");
    assert_eq!(slots(&scene, None), 2, "RECACHE_CONFIG");
    let scene = scene.file_named("three.toml", "[engine]\nslots = 3\n");
    assert_eq!(slots(&scene, Some("three.toml")), 3, "--config");
    let scene = scene.variable("RECACHE_CONFIG", "");
    assert_eq!(slots(&scene, None), 1, "an empty RECACHE_CONFIG names nothing");
}

#[test]
fn file_that_was_named_must_be_there_and_be_readable() {
    let answer = Scene::new().check_with(Some("no.toml"), Style::Plain);
    assert_eq!(answer.exit, ExitStatus::Failed);
    assert_eq!(
        answer.err,
        "error[E-CONFIG]: cannot read the configuration file: No such file or directory (os error 2)\n  at no.toml\n  \
         help: check --config and RECACHE_CONFIG, and that the file can be read\n1 problem\n"
    );
    let scene = Scene::new();
    std::fs::create_dir(scene.directory.path().join("recache.toml")).unwrap();
    assert_eq!(scene.load().problems.len(), 1, "a directory is not passed over in silence");
    std::fs::write(scene.directory.path().join("latin1.toml"), b"# \xe9\n").unwrap();
    assert!(scene.check_with(Some("latin1.toml"), Style::Plain).err.contains("valid UTF-8"));
    std::fs::write(scene.directory.path().join("big.toml"), " ".repeat(1024 * 1024 + 1)).unwrap();
    assert!(scene.check_with(Some("big.toml"), Style::Plain).err.contains("larger than 1048576 bytes"));
}

#[test]
fn without_a_file_check_says_so() {
    let answer = Scene::new().check();
    assert_eq!((answer.exit, answer.out.as_str()), (ExitStatus::Ok, "no configuration file: no problems\n"));
}

#[test]
fn explain_shows_one_option_whole() {
    let scene = Scene::new().file("[engine]\nlease_ms = 3000\n");
    let answer = scene.explain(Output::Table, Some("engine.lease_ms"));
    assert_eq!(answer.exit, ExitStatus::Ok);
    assert_eq!(
        answer.out,
        "engine.lease_ms = 3000\n  meaning   how long a worker may be silent before its jobs go to others\n  accepts   \
         a whole number of milliseconds from 200 to 600000\n  default   2000\n  origin    recache.toml:2\n  variable  \
         RECACHE__ENGINE__LEASE_MS\n"
    );
}

#[test]
fn explain_shows_a_section_as_a_table() {
    let scene = Scene::new()
        .file("[database]\nmax_connections = 3\n")
        .variable("RECACHE__DATABASE__SYNCHRONOUS", "normal");
    assert_eq!(
        scene.explain(Output::Table, Some("database")).out,
        "KEY                                   VALUE              ORIGIN\n\
         database.url                          sqlite:recache.db  default\n\
         database.max_connections              3                  recache.toml:2\n\
         database.readers_max                  4                  default\n\
         database.synchronous                  normal             environment RECACHE__DATABASE__SYNCHRONOUS\n\
         database.connection_life_max_seconds  1800               default\n\
         database.slow_ms                      1000               default\n\
         database.slow_plans                   false              default\n"
    );
}

#[test]
fn explain_names_its_shape_and_file_in_json() {
    let answer = Scene::new().file("").explain(Output::Json, Some("log"));
    let document: Value = serde_json::from_str(&answer.out).unwrap();
    assert_eq!(document["schema"], "recache.config.v1");
    assert_eq!(document["file"], "recache.toml");
    assert_eq!(document["options"].as_array().unwrap().len(), 2);
}

#[test]
fn explain_of_an_unknown_key_is_a_usage_error() {
    let answer = Scene::new().explain(Output::Table, Some("engine.slot"));
    assert_eq!((answer.exit, answer.out.as_str()), (ExitStatus::Usage, ""));
    assert_eq!(
        answer.err,
        "error[E-CONFIG-KEY]: no option or section `engine.slot`\n  help: did you mean `engine.slots`?\n"
    );
}

#[test]
fn explain_shows_the_default_beside_a_problem_and_fails() {
    let answer = Scene::new().file("[engine]\nslots = 0\n").explain(Output::Table, Some("engine.slots"));
    assert_eq!(answer.exit, ExitStatus::Failed);
    assert!(answer.out.starts_with("engine.slots = 8\n") && answer.out.contains("origin    default\n"));
    assert!(answer.err.starts_with("error[E-CONFIG]: `engine.slots` is 0, outside 1..=10000\n"));
}
