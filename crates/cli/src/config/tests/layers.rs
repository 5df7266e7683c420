//! Flag over environment over file over default, for every option there is.

use std::collections::BTreeSet;
use std::time::Duration;

use serde_json::{Value, json};

use super::Scene;
use crate::cli_error::ExitStatus;
use crate::config::database::{DatabaseUrl, Synchronous};
use crate::config::{BuiltinHandlers, Config, LogFormat, Output, schema};

/// One option: who reads it, its default, and three more values, as they are written and as they are read.
struct Row {
    path: &'static str,
    read: fn(&Config) -> Value,
    default: Value,
    file: Value,
    variable: Value,
    flag: Value,
}

fn row(path: &'static str, read: fn(&Config) -> Value, values: [Value; 4]) -> Row {
    let [default, file, variable, flag] = values;
    Row { path, read, default, file, variable, flag }
}

fn ms(duration: Duration) -> Value {
    json!(u64::try_from(duration.as_millis()).unwrap())
}

fn path(path: Option<&std::path::PathBuf>) -> Value {
    json!(path.map(|path| path.display().to_string()).unwrap_or_default())
}

fn cache(config: &Config, pointer: &str) -> Value {
    config.cache.tables().unwrap().pointer(pointer).unwrap().clone()
}

/// The readers. They look at the typed configuration itself, not at the schema's own readers.
fn rows() -> Vec<Row> {
    macro_rules! cached {
        ($($part:literal)/+, $values:expr) => {
            row(
                concat!("common" $(, ".", $part)+),
                |config| cache(config, concat!("/common" $(, "/", $part)+)),
                $values.map(|value| json!(value)),
            )
        };
    }
    let numbers = |values: [u32; 4]| values.map(|value| json!(value));
    let texts = |values: [&str; 4]| values.map(|value| json!(value));
    vec![
        row(
            "database.url",
            |config| match &config.database.url {
                DatabaseUrl::SqliteMemory => json!("sqlite::memory:"),
                DatabaseUrl::SqliteFile(path) => json!(format!("sqlite:{}", path.display())),
                DatabaseUrl::Postgres(url) => json!(url),
            },
            texts(["sqlite:recache.db", "sqlite:other.db", "postgres://db/x", "sqlite::memory:"]),
        ),
        row(
            "database.max_connections",
            |config| json!(config.database.max_connections),
            numbers([10, 1, 1000, 20]),
        ),
        row("database.readers_max", |config| json!(config.database.readers_max), numbers([4, 1, 64, 8])),
        row(
            "database.synchronous",
            |config| json!(if config.database.synchronous == Synchronous::Full { "full" } else { "normal" }),
            texts(["full", "normal", "full", "normal"]),
        ),
        row("engine.slots", |config| json!(config.engine.slots), numbers([8, 1, 10_000, 3])),
        row(
            "database.connection_life_max_seconds",
            |config| json!(config.database.connection_life_max.as_secs()),
            numbers([1_800, 10, 86_400, 60]),
        ),
        row("database.slow_ms", |config| ms(config.database.slow), numbers([1_000, 1, 3_600_000, 200])),
        row(
            "database.slow_plans",
            |config| json!(config.database.slow_plans),
            [false, true, false, true].map(|value| json!(value)),
        ),
        row(
            "engine.queues",
            |config| json!(config.engine.queues.join(", ")),
            texts(["default", "a", "a, b", "mail, default"]),
        ),
        row(
            "engine.adaptive_limit",
            |config| json!(config.engine.adaptive_limit),
            [false, true, false, true].map(|value| json!(value)),
        ),
        row("engine.lease_ms", |config| ms(config.engine.lease), numbers([2000, 1500, 600_000, 3000])),
        row("engine.beat_ms", |config| ms(config.engine.beat), numbers([500, 10, 666, 100])),
        row("engine.sweep_ms", |config| ms(config.engine.sweep), numbers([500, 10, 60_000, 700])),
        row("engine.poll_ms", |config| ms(config.engine.poll), numbers([1000, 10, 60_000, 20])),
        row(
            "engine.claim_rows_max",
            |config| json!(config.engine.claim_rows_max),
            numbers([500, 1, 5000, 2]),
        ),
        row("engine.drain_ms", |config| ms(config.engine.drain), numbers([30_000, 0, 3_600_000, 5])),
        row(
            "engine.generation_keep_ms",
            |config| ms(config.engine.generation_keep),
            numbers([60_000, 0, 86_400_000, 5]),
        ),
        row(
            "engine.keep_done_hours",
            |config| json!(config.engine.keep_done.as_secs() / 3600),
            numbers([168, 1, 87_600, 5]),
        ),
        row(
            "engine.keep_failed_hours",
            |config| json!(config.engine.keep_failed.as_secs() / 3600),
            numbers([720, 1, 87_600, 5]),
        ),
        row(
            "engine.result_bytes_max",
            |config| json!(config.engine.result_bytes_max),
            numbers([8 * 1024 * 1024, 1024, 256 * 1024 * 1024, 4096]),
        ),
        row(
            "engine.publisher_wait_hours",
            |config| json!(config.engine.publisher_wait.as_secs() / 3600),
            numbers([24, 1, 720, 5]),
        ),
        row(
            "engine.publisher_timeout_seconds",
            |config| json!(config.engine.publisher_timeout.as_secs()),
            numbers([30, 1, 3_600, 5]),
        ),
        row(
            "server.address",
            |config| json!(config.server.address.to_string()),
            texts(["127.0.0.1:7878", "[::1]:1", "127.0.0.1:0", "127.0.0.2:80"]),
        ),
        row(
            "server.builtin_handlers",
            |config| {
                json!(match config.server.builtin_handlers {
                    BuiltinHandlers::Off => "off",
                    BuiltinHandlers::Safe => "safe",
                    BuiltinHandlers::All => "all",
                })
            },
            texts(["safe", "off", "all", "off"]),
        ),
        row(
            "server.connections_max",
            |config| json!(config.server.connections_max),
            numbers([4096, 1, 100_000, 5]),
        ),
        row("server.requests_max", |config| json!(config.server.requests_max), numbers([256, 1, 100_000, 5])),
        row("server.waits_max", |config| json!(config.server.waits_max), numbers([1024, 1, 100_000, 5])),
        row("server.streams_max", |config| json!(config.server.streams_max), numbers([2048, 1, 100_000, 5])),
        row(
            "server.streams_per_caller_max",
            |config| json!(config.server.streams_per_caller_max),
            numbers([1024, 1, 100_000, 5]),
        ),
        row("server.wait_max_ms", |config| ms(config.server.wait_max), numbers([30_000, 1, 600_000, 5])),
        row(
            "server.request_max_ms",
            |config| ms(config.server.request_max),
            numbers([30_000, 1, 600_000, 5]),
        ),
        row(
            "server.answer_wait_max_ms",
            |config| ms(config.server.answer_wait_max),
            numbers([30_000, 1, 600_000, 5]),
        ),
        row(
            "server.requests_per_second_max",
            |config| json!(config.server.requests_per_second_max),
            numbers([20_000, 1, 1_000_000, 5]),
        ),
        row(
            "server.body_kib_max",
            |config| json!(config.server.body_kib_max),
            numbers([8192, 1, 262_144, 5]),
        ),
        row(
            "server.tls_certificate_file",
            |config| path(config.server.tls_certificate_file.as_ref()),
            texts(["", "a.pem", "b.pem", "c.pem"]),
        ),
        row(
            "server.tls_key_file",
            |config| path(config.server.tls_key_file.as_ref()),
            texts(["", "a.pem", "b.pem", "c.pem"]),
        ),
        row(
            "auth.api_keys",
            |config| json!(config.auth.api_keys),
            [false, true, false, true].map(Value::from),
        ),
        row("auth.jwt.issuer", |config| json!(config.auth.jwt.issuer), texts(["", "a", "b", "c"])),
        row("auth.jwt.audience", |config| json!(config.auth.jwt.audience), texts(["", "a", "b", "c"])),
        row(
            "auth.jwt.algorithms",
            |config| json!(config.auth.jwt.algorithms.join(",")),
            texts(["", "HS256", "RS256,PS256", "EdDSA"]),
        ),
        row("auth.jwt.secret", |config| json!(config.auth.jwt.secret.0), texts(["", "***", "***", "***"])),
        row(
            "auth.jwt.public_key_file",
            |config| path(config.auth.jwt.public_key_file.as_ref()),
            texts(["", "a.pem", "b.pem", "c.pem"]),
        ),
        row(
            "auth.jwt.keys_file",
            |config| path(config.auth.jwt.keys_file.as_ref()),
            texts(["", "a.json", "b.json", "c.json"]),
        ),
        row(
            "auth.jwt.keys_url",
            |config| json!(config.auth.jwt.keys_url),
            texts(["", "https://a/keys", "https://b/keys", "https://c/keys"]),
        ),
        row(
            "handlers.commands",
            |config| {
                let commands = config.handlers.commands.iter();
                json!(
                    commands
                        .map(|(name, path)| format!("{name}={}", path.display()))
                        .collect::<Vec<_>>()
                        .join(", ")
                )
            },
            texts(["", "a=/bin/true", "a=/bin/true, b=/bin/false", "c=/c"]),
        ),
        row(
            "handlers.commands_at_once",
            |config| json!(config.handlers.commands_at_once),
            numbers([4, 1, 1_000, 5]),
        ),
        row(
            "handlers.command_seconds_max",
            |config| json!(config.handlers.command_seconds_max),
            numbers([3_600, 1, 604_800, 5]),
        ),
        row(
            "handlers.command_memory_mib",
            |config| json!(config.handlers.command_memory_mib),
            numbers([1_024, 16, 16_777_216, 50]),
        ),
        row(
            "handlers.command_output_kib_max",
            |config| json!(config.handlers.command_output_kib_max),
            numbers([1_024, 1, 65_536, 5]),
        ),
        row(
            "handlers.http_signing",
            |config| {
                let hosts = config.handlers.http_signing.iter();
                json!(
                    hosts
                        .map(|(host, secret)| format!("{host}={}", secret.reveal()))
                        .collect::<Vec<_>>()
                        .join(", ")
                )
            },
            texts([
                "",
                "a.example=whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw",
                "b.example=whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw",
                "c.example=whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSx",
            ]),
        ),
        row(
            "handlers.publishers",
            |config| {
                let publishers = config.handlers.publishers.iter();
                json!(publishers.map(|(name, url)| format!("{name}={url}")).collect::<Vec<_>>().join(", "))
            },
            texts([
                "",
                "a=https://a.example/p",
                "a=https://a.example/p, b.c=http://b.example/",
                "c=https://c/p",
            ]),
        ),
        row(
            "outbound.allow_private_addresses",
            |config| json!(config.outbound.allow_private_addresses),
            [false, true, false, true].map(Value::from),
        ),
        row("log.level", |config| json!(config.log.level.name()), texts(["info", "error", "trace", "debug"])),
        row(
            "log.format",
            |config| json!(if config.log.format == LogFormat::Text { "text" } else { "json" }),
            texts(["text", "json", "text", "json"]),
        ),
        row(
            "telemetry.otlp_endpoint",
            |config| json!(config.telemetry.otlp_endpoint),
            texts(["", "http://a:1", "http://b:1", "https://c/x"]),
        ),
        row(
            "telemetry.authorization",
            |config| json!(config.telemetry.authorization.0),
            texts(["", "***", "***", "***"]),
        ),
        row(
            "telemetry.service_name",
            |config| json!(config.telemetry.service_name),
            texts(["recache", "a", "b", "c"]),
        ),
        row(
            "telemetry.traces_per_mille",
            |config| json!(config.telemetry.traces_per_mille),
            numbers([1000, 1, 500, 5]),
        ),
        row(
            "telemetry.logs",
            |config| json!(config.telemetry.logs),
            [true, false, true, false].map(Value::from),
        ),
        row(
            "telemetry.figures_every_seconds",
            |config| json!(config.telemetry.figures_every.as_secs()),
            numbers([15, 1, 3_600, 5]),
        ),
        row(
            "adaptive_ttl.enabled",
            |config| json!(config.adaptive_ttl.enabled),
            [false, true, false, true].map(|value| json!(value)),
        ),
        row(
            "adaptive_ttl.staleness_seconds",
            |config| json!(config.adaptive_ttl.settings.staleness.as_secs()),
            numbers([60, 1, 86_400, 120]),
        ),
        row(
            "adaptive_ttl.stale_share_max",
            |config| json!(config.adaptive_ttl.settings.stale_share_max.to_string()),
            texts(["0.01", "0.02", "0.1", "0.05"]),
        ),
        row(
            "adaptive_ttl.class_share_max",
            |config| json!(config.adaptive_ttl.settings.class_share_max.to_string()),
            texts(["0.1", "0.2", "0.5", "0.3"]),
        ),
        row(
            "adaptive_ttl.ttl_min_seconds",
            |config| json!(config.adaptive_ttl.settings.ttl_min.as_secs()),
            numbers([1, 2, 86_400, 3]),
        ),
        row(
            "adaptive_ttl.ttl_max_seconds",
            |config| json!(config.adaptive_ttl.settings.ttl_max.as_secs()),
            numbers([86_400, 3_600, 31_536_000, 7_200]),
        ),
        row(
            "adaptive_ttl.window_seconds",
            |config| json!(config.adaptive_ttl.settings.window.as_secs()),
            numbers([86_400, 60, 604_800, 3_600]),
        ),
        row(
            "adaptive_ttl.saves",
            |config| json!(config.adaptive_ttl.settings.saves.as_str()),
            texts(["both", "rebuilds", "cost", "rebuilds"]),
        ),
        cached!("cache" / "enabled", [false, true, false, true]),
        cached!("cache" / "backend", ["redis", "in-memory", "tiered", "memcached"]),
        cached!("cache" / "default_ttl_seconds", [3600, 1, 31_536_000, 2]),
        cached!("cache" / "template_ttl_seconds", [3600, 1, 31_536_000, 2]),
        cached!("cache" / "analytics_ttl_seconds", [60, 1, 31_536_000, 2]),
        cached!("cache" / "key_prefix", ["recache", "tasker", "123", "a b"]),
        cached!("cache" / "operation_timeout_ms", [50, 1, 10_000, 2]),
        cached!("cache" / "beat_ms", [500, 10, 600_000, 20]),
        cached!("cache" / "lag_max_ms", [2000, 11, 600_000, 12]),
        cached!("cache" / "tiered" / "far", ["redis", "valkey", "memcached", "dragonfly"]),
        cached!("cache" / "tiered" / "near_max_capacity", [10_000, 1, 1_000_000_000, 2]),
        cached!("cache" / "tiered" / "near_max_bytes", [134_217_728, 1, u32::MAX, 2]),
        cached!("cache" / "redis" / "mode", ["single", "sentinel", "cluster", "single"]),
        cached!("cache" / "redis" / "nodes", ["", "redis://a", "redis://a,redis://b", "redis://c"]),
        cached!("cache" / "redis" / "sentinel_master", ["mymaster", "a", "b", "c"]),
        cached!("cache" / "redis" / "ca_file", ["", "a.pem", "b.pem", "c.pem"]),
        cached!(
            "cache" / "redis" / "url",
            ["redis://localhost:6379", "rediss://a", "redis://b", "redis://c"]
        ),
        cached!("cache" / "redis" / "max_connections", [10, 1, 1000, 2]),
        cached!("cache" / "redis" / "connection_timeout_seconds", [5, 1, 300, 2]),
        cached!("cache" / "redis" / "database", [0, 1, 65_535, 2]),
        cached!("cache" / "memcached" / "url", ["tcp://localhost:11211", "tcp://a", "tcp://b", "tcp://c"]),
        cached!("cache" / "memcached" / "max_connections", [10, 1, 1000, 2]),
        cached!("cache" / "memcached" / "connection_timeout_seconds", [5, 1, 300, 2]),
        cached!("cache" / "moka" / "max_capacity", [10_000, 1, 1_000_000_000, 2]),
        cached!("circuit_breakers" / "component_configs" / "cache" / "failure_threshold", [5, 1, 10_000, 2]),
        cached!("circuit_breakers" / "component_configs" / "cache" / "timeout_seconds", [15, 1, 86_400, 2]),
        cached!("circuit_breakers" / "component_configs" / "cache" / "success_threshold", [2, 1, 1000, 3]),
        cached!("circuit_breakers" / "component_configs" / "cache" / "enabled", [true, false, true, false]),
        cached!("circuit_breakers" / "component_configs" / "cache" / "backoff_factor", [1, 2, 10, 3]),
        cached!(
            "circuit_breakers" / "component_configs" / "cache" / "timeout_seconds_max",
            [300, 1, 86_400, 2]
        ),
        cached!(
            "circuit_breakers" / "component_configs" / "cache" / "half_open_max_wait_ms",
            [5000, 1, 60_000, 2]
        ),
        cached!(
            "circuit_breakers" / "component_configs" / "cache" / "window",
            ["calls", "time", "calls", "time"]
        ),
        cached!("circuit_breakers" / "component_configs" / "cache" / "window_calls", [100, 1, 100_000, 2]),
        cached!("circuit_breakers" / "component_configs" / "cache" / "window_seconds", [10, 1, 3600, 2]),
        cached!("circuit_breakers" / "component_configs" / "cache" / "min_calls", [20, 1, 100_000, 2]),
        cached!("circuit_breakers" / "component_configs" / "cache" / "failure_rate_percent", [50, 1, 100, 2]),
        cached!("circuit_breakers" / "component_configs" / "cache" / "slow_rate_percent", [80, 1, 100, 2]),
        cached!("circuit_breakers" / "component_configs" / "cache" / "slow_call_ms", [25, 1, 60_000, 2]),
    ]
}

#[test]
fn every_option_has_a_reader() {
    let options: BTreeSet<_> = schema::options().map(|option| option.path).collect();
    let readers: BTreeSet<_> = rows().iter().map(|row| row.path).collect();
    assert_eq!(options, readers);
}

#[test]
fn each_layer_wins_over_those_below_and_explain_shows_what_is_read() {
    for row in rows() {
        let (section, key) = row.path.rsplit_once('.').unwrap();
        let text = |value: &Value| value.as_str().map_or_else(|| value.to_string(), ToOwned::to_owned);
        let variable = format!("RECACHE__{}", row.path.to_uppercase().replace('.', "__"));

        let scene = Scene::new();
        assert_layer(&scene, &row, &row.default, &json!({"kind": "default"}), "default");
        let scene = scene.file(&format!("# first\n[{section}]\n{key} = {}\n", row.file));
        let place = json!({
            "kind": "file", "file": "recache.toml", "line": 3, "column": key.len() + 4, "variables": [],
        });
        assert_layer(&scene, &row, &row.file, &place, "recache.toml:3");
        let scene = scene.variable(&variable, &text(&row.variable));
        let place = json!({"kind": "environment", "variable": variable});
        assert_layer(&scene, &row, &row.variable, &place, &format!("environment {variable}"));
        let scene = scene.flag("--set", row.path, &text(&row.flag));
        assert_layer(&scene, &row, &row.flag, &json!({"kind": "flag", "flag": "--set"}), "flag --set");
    }
}

/// Secrets are read as they are and shown as stars.
fn shown(row: &Row, value: &Value) -> Value {
    match (row.path, value.as_str()) {
        ("handlers.http_signing", Some(text)) => match text.split_once('=') {
            Some((host, _)) => json!(format!("{host}=***")),
            None => value.clone(),
        },
        _ => value.clone(),
    }
}

fn assert_layer(scene: &Scene, row: &Row, expected: &Value, origin: &Value, origin_text: &str) {
    assert_eq!((row.read)(&scene.config()), *expected, "{}: read from {origin_text}", row.path);

    let answer = scene.explain(Output::Json, None);
    assert_eq!((answer.exit, answer.err.as_str()), (ExitStatus::Ok, ""));
    let document: Value = serde_json::from_str(&answer.out).unwrap();
    let options = document["options"].as_array().unwrap();
    let told = options.iter().find(|option| option["key"] == row.path).unwrap();
    let expected = &shown(row, expected);
    assert_eq!(told["value"], *expected, "{}: explained from {origin_text}", row.path);
    assert_eq!(told["default"], row.default, "{}", row.path);
    assert_eq!(told["origin"], *origin, "{}", row.path);

    let table = scene.explain(Output::Table, None).out;
    let line = table.lines().find(|line| line.split(' ').next() == Some(row.path)).unwrap();
    let value = expected.as_str().map_or_else(|| expected.to_string(), ToOwned::to_owned);
    let cells: Vec<_> = line.split("  ").map(str::trim).filter(|cell| !cell.is_empty()).collect();
    let expected = [row.path, &value, origin_text].into_iter().filter(|cell| !cell.is_empty());
    assert_eq!(cells, expected.collect::<Vec<_>>());
}

#[test]
fn bounds_are_the_ones_in_the_message_and_hold_at_both_ends() {
    for option in schema::options() {
        let schema::Kind::Whole { min, max, .. } = option.kind else { continue };
        let wrong = [i64::from(min) - 1, i64::from(max) + 1];
        for number in wrong {
            let scene = Scene::new().flag("--set", option.path, &number.to_string());
            let loaded = scene.load();
            let found = loaded.problems.first().or(loaded.warnings.first()).unwrap();
            assert_eq!(
                found.message,
                format!("`{}` is {number}, outside {min}..={max}", option.path),
                "{}",
                option.path
            );
        }
        for number in [min, max] {
            let scene = Scene::new().flag("--set", option.path, &number.to_string());
            let rule = |message: &&str| message.contains("is outside") || message.contains(", outside");
            let loaded = scene.load();
            let (problems, warnings) = super::messages(&loaded);
            assert_eq!(problems.iter().chain(&warnings).filter(|message| rule(message)).count(), 0);
        }
    }
}

#[test]
fn beat_must_fit_three_times_into_the_lease() {
    let fits = Scene::new().file("[engine]\nlease_ms = 900\nbeat_ms = 300\n").config();
    assert_eq!(fits.engine.beat, Duration::from_millis(300));

    let answer = Scene::new().file("[engine]\nlease_ms = 900\nbeat_ms = 301\n").check();
    assert_eq!(
        answer.err,
        "error[E-CONFIG]: `engine.beat_ms` is 301, more than a third of `engine.lease_ms`, which is 900\n  at \
         recache.toml:3:11\n  help: write at most 300, or a lease_ms of at least 903\n1 problem\n"
    );
    let answer = Scene::new().variable("RECACHE__ENGINE__LEASE_MS", "900").check();
    assert_eq!(
        answer.err,
        "error[E-CONFIG]: `engine.lease_ms` is 900, less than three times `engine.beat_ms`, which is 500 by \
         default, from environment variable RECACHE__ENGINE__LEASE_MS\n  help: write at least 1500, or a beat_ms \
         of at most 300\n1 problem\n"
    );
}

#[test]
fn variable_inside_the_file_can_be_a_number_a_boolean_or_text() {
    let scene = Scene::new()
        .file(
            "[engine]\nslots = \"${SLOTS:-12}\"\n[database]\nurl = \"sqlite:${NAME}.db\"\n[common.cache]\nenabled = \
             \"${CACHE:-true}\"\nkey_prefix = \"${PREFIX:-123}\"\n",
        )
        .variable("NAME", "x");
    let config = scene.config();
    assert_eq!(config.engine.slots, 12);
    assert_eq!(config.database.url.to_string(), "sqlite:x.db");
    assert_eq!(cache(&config, "/common/cache/enabled"), json!(true));
    assert_eq!(cache(&config, "/common/cache/key_prefix"), json!("123"));

    let scene = scene.variable("SLOTS", " 7 ").variable("CACHE", "false");
    assert_eq!(scene.config().engine.slots, 7);
    assert_eq!(cache(&scene.config(), "/common/cache/enabled"), json!(false));
    let table = scene.explain(Output::Table, Some("engine")).out;
    assert!(table.contains("recache.toml:2 with SLOTS\n"), "{table}");
}

#[test]
fn number_in_quotes_without_a_variable_is_not_a_number() {
    let loaded = super::load_text("[engine]\nslots = \"12\"\npoll_ms = \"10${X:-0}\"\n");
    let remedies: Vec<_> = loaded.problems.iter().map(|problem| problem.remedy.as_deref().unwrap()).collect();
    assert_eq!(remedies, ["write slots = 12", "write poll_ms = 100"]);
}

#[test]
fn value_that_is_replaced_from_above_is_not_looked_at() {
    let scene = Scene::new()
        .file("[database]\nurl = \"${NOT_SET}\"\n")
        .variable("RECACHE__DATABASE__URL", "nonsense")
        .flag("--database", "database.url", "sqlite::memory:");
    assert_eq!(scene.config().database.url, DatabaseUrl::SqliteMemory);
}

#[test]
fn override_is_taken_as_it_stands() {
    let scene =
        Scene::new().variable("RECACHE__COMMON__CACHE__KEY_PREFIX", "${HOME}$$").variable("HOME", "/root");
    assert_eq!(cache(&scene.config(), "/common/cache/key_prefix"), json!("${HOME}$$"));
}
