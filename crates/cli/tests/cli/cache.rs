//! `recache cache` against real servers: every verb, wrong input, nobody listening, a disabled cache.
//!
//! Servers come from `cargo xtask servers` (`RECACHE_TEST_REDIS_URL`, `RECACHE_TEST_MEMCACHED_URL`); where there is none
//! its tests say so and do nothing.

use std::io::Write as _;
use std::net::TcpListener;
use std::process::Stdio;

use serde_json::{Value, json};
use tempfile::TempDir;

use super::world::{Ran, recache, run};

/// A folder with a configuration file, and the binary in it.
struct Configured {
    folder: TempDir,
}

impl Configured {
    /// A key prefix of its own, so that tests share a server and see nothing of each other.
    fn with(cache: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let prefix = format!("cli-{}", uuid());
        let text = format!("[common.cache]\nkey_prefix = \"{prefix}\"\noperation_timeout_ms = 1000\n{cache}");
        std::fs::write(folder.path().join("recache.toml"), text).unwrap();
        Self { folder }
    }

    fn backend(name: &str, url: &str) -> Self {
        Self::with(&format!("enabled = true\nbackend = \"{name}\"\n[common.cache.{name}]\nurl = \"{url}\"\n"))
    }

    fn cache(&self, arguments: &[&str]) -> Ran {
        let arguments = [&["cache", "--timeout", "20s"], arguments].concat();
        run(recache(self.folder.path()).args(arguments))
    }

    /// Runs a verb that must work, and reads its document.
    fn document(&self, arguments: &[&str]) -> Value {
        self.cache(&[arguments, &["-o", "json"]].concat()).json()
    }
}

/// Differs from run to run and from test to test.
fn uuid() -> String {
    let folder = tempfile::tempdir().unwrap();
    let name = folder.path().file_name().unwrap().to_string_lossy().replace('.', "");
    format!("{}-{name}", std::process::id())
}

fn redis() -> Option<Configured> {
    served("redis", "RECACHE_TEST_REDIS_URL")
}

fn memcached() -> Option<Configured> {
    served("memcached", "RECACHE_TEST_MEMCACHED_URL")
}

fn served(backend: &str, variable: &str) -> Option<Configured> {
    let url = std::env::var(variable).ok();
    if url.is_none() {
        eprintln!("not run: no {variable}; use `cargo xtask test`");
    }
    url.map(|url| Configured::backend(backend, &url))
}

/// A port on which nobody listens.
fn nobody() -> String {
    let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    format!("127.0.0.1:{port}")
}

#[test]
fn values_are_kept_for_the_next_command_in_redis() {
    redis().iter().for_each(values_are_kept);
}

#[test]
fn values_are_kept_for_the_next_command_in_memcached() {
    memcached().iter().for_each(values_are_kept);
}

fn values_are_kept(world: &Configured) {
    // As it was written, digit by digit.
    let text = "{\"cents\":12345678901234567890123,\"cents\":1.10}";
    let token = world.cache(&["set", "shop", "a:1", "ü", "--value", text, "--ttl", "60s"]).expect(0);
    assert_eq!(world.cache(&["get", "shop", "a:1", "ü"]).expect(0), format!("{text}\n"));
    let after = ["get", "shop", "a:1", "ü", "--after", token.trim()];
    assert_eq!(world.cache(&after).expect(0), format!("{text}\n"));
    world.cache(&["get", "shop", "a", "1", "ü"]).refused(3, &["E-NOT-FOUND", "nothing is stored"]);

    let shown = world.cache(&["get", "shop", "a:1", "ü", "--meta"]).expect(0);
    for fact in ["value", "12345678901234567890123", "age", "fresh for", "tier", "far"] {
        assert!(shown.contains(fact), "{fact} is not in:\n{shown}");
    }
    let got: Value = world.document(&["get", "shop", "a:1", "ü"]);
    assert_eq!((&got["schema"], &got["tier"]), (&json!("recache.cache-value.v1"), &json!("far")));
    assert_eq!((&got["is_fresh"], &got["is_absent"]), (&json!(true), &json!(false)));
    let fresh_for = got["fresh_for_ms"].as_u64().unwrap();
    assert!((1..=60_000).contains(&fresh_for), "{got}");
    let key = got["key"].as_str().unwrap();
    assert!(key.ends_with(":shop:a%3A1:%C3%BC"), "{key}");
    assert_eq!(world.cache(&["get", "--raw", key]).expect(0), format!("{text}\n"));

    let explained = world.document(&["explain", "--raw", key]);
    assert_eq!((&explained["verdict"], &explained["entry"]["state"]), (&json!("hit"), &json!("fresh")));
    assert_eq!(explained["entry"]["codec"], "json");
    let shown = world.cache(&["explain", "--raw", key]).expect(0);
    assert!(shown.contains("hit") && shown.contains("codec"), "{shown}");

    world.cache(&["set", "shop", "short", "--value", "1", "--ttl", "1ms"]).expect(0);
    world.cache(&["get", "shop", "short"]).refused(3, &["E-NOT-FOUND"]);

    world.cache(&["del", "shop", "a:1", "ü"]).expect(0);
    world.cache(&["get", "shop", "a:1", "ü"]).refused(3, &[key]);
    world.cache(&["del", "shop", "a:1", "ü"]).expect(0);
}

#[test]
fn invalidation_reaches_what_it_names_and_nothing_else_in_redis() {
    redis().iter().for_each(invalidation_reaches_what_it_names);
}

#[test]
fn invalidation_reaches_what_it_names_and_nothing_else_in_memcached() {
    memcached().iter().for_each(invalidation_reaches_what_it_names);
}

fn invalidation_reaches_what_it_names(world: &Configured) {
    let fill = || {
        for (space, part, tag) in [("s", "1", "red"), ("s", "2", "blue"), ("t", "1", "red")] {
            world.cache(&["set", space, part, "--value", "7", "--ttl", "60s", "--tag", tag]).expect(0);
        }
    };
    let left = || -> Vec<String> {
        let keys = [("s", "1"), ("s", "2"), ("t", "1")];
        let is_there = |(space, part): &(&str, &str)| world.cache(&["get", space, part]).code == 0;
        keys.into_iter().filter(is_there).map(|(space, part)| format!("{space}{part}")).collect()
    };
    for (what, expected) in [
        (&["s", "1"][..], &["s2", "t1"][..]),
        (&["--space", "s"], &["t1"]),
        (&["--tag", "red"], &["s2"]),
        (&["--all", "--yes"], &[]),
    ] {
        fill();
        assert_eq!(left(), ["s1", "s2", "t1"], "before {what:?}");
        let change = world.document(&[&["invalidate"], what].concat());
        assert_eq!((&change["action"], &change["is_confirmed"]), (&json!("invalidated"), &json!(true)));
        assert_eq!(left(), expected, "after {what:?}");
    }
    let said = world.cache(&["invalidate", "--tag", "red"]);
    assert!(said.err.contains("invalidated tag red: confirmed"), "{said:?}");
    assert_eq!(said.expect(0).trim().split('.').count(), 5, "a token");
}

#[test]
fn looks_tell_backend_capabilities_and_usages() {
    for (world, provider) in [(redis(), "redis"), (memcached(), "memcached")] {
        let Some(world) = world else { continue };
        let health = world.document(&["health"]);
        assert_eq!((&health["condition"], &health["provider"]), (&json!("active"), &json!(provider)));
        assert_eq!(health["breakers"][0]["state"], "closed");
        assert!(world.cache(&["health"]).expect(0).contains("active"));

        let overview = world.document(&["explain"]);
        let capability = |name: &str| {
            let rows = overview["capabilities"].as_array().unwrap();
            rows.iter().find(|row| row["capability"] == name).unwrap().clone()
        };
        assert_eq!(capability("compare_and_swap")["value"], "yes");
        assert_eq!(capability("compare_and_swap")["source"], "probed");
        assert_eq!((&overview["coherence"], &overview["provider"]), (&json!("strict"), &json!(provider)));
        assert_eq!(overview["coordination"], "distributed_atomic", "{overview:#}");
        assert!(overview["usages"].as_array().unwrap().iter().all(|usage| usage["is_on"] == true));
        let shown = world.cache(&["explain"]).expect(0);
        for text in ["CAPABILITY", "coordination", "template", "probed"] {
            assert!(shown.contains(text), "{text} is not in:\n{shown}");
        }

        let stats = world.document(&["stats"]);
        assert_eq!((&stats["provider"], &stats["evictions"]), (&json!(provider), &json!(0)));
        assert_eq!(stats["process"]["calls"][0]["operation"], "health");
        assert!(world.cache(&["stats"]).expect(0).contains("call of health"));
    }
}

#[test]
fn usages_that_a_bare_process_cannot_serve_are_shown_as_off() {
    let world = Configured::with("enabled = true\nbackend = \"moka\"\n");
    let overview = world.document(&["explain"]);
    assert_eq!(overview["coordination"], "local_only");
    let off: Vec<_> =
        overview["usages"].as_array().unwrap().iter().filter(|usage| usage["is_on"] == false).collect();
    assert_eq!(off.iter().map(|usage| &usage["usage"]).collect::<Vec<_>>(), ["template", "job_state"]);
    let set = world.cache(&["set", "s", "k", "--value", "1", "--ttl", "60s"]);
    assert!(set.err.contains("lives in each process"), "{set:?}");
    set.expect(0);
    world.cache(&["get", "s", "k"]).refused(3, &["this one has just begun", "redis or memcached"]);
}

#[test]
fn wrong_input_is_a_usage_error_and_changes_nothing() {
    for world in [redis(), memcached()].into_iter().flatten() {
        world.cache(&["set", "s", "k", "--value", "1", "--ttl", "60s"]).expect(0);
        let many_tags: Vec<String> = (0..17).map(|tag| format!("--tag=t{tag}")).collect();
        let many_tags: Vec<&str> = many_tags.iter().map(String::as_str).collect();
        let set = ["set", "s", "k", "--value", "2", "--ttl", "60s"];
        for (arguments, texts) in [
            (&["get"][..], &["SPACE PART"][..]),
            (&["get", "s"], &["E-CACHE-KEY", "names a space and no key"]),
            (&["get", "--raw", "else:s:k"], &["E-CACHE-KEY", "is no key of this cache", "--raw", "cli-"]),
            (&["get", "s", "k", "--raw", "x"], &["cannot be used with"]),
            (&["get", "s", "k", "--after", "1.2"], &["not a token"]),
            (&["get", "s", "k", "--timeout", "5"], &["500ms, 5s, 2m"]),
            (
                &["set", "s", "k", "--value", "{", "--ttl", "60s"],
                &["E-CACHE-VALUE", "is not JSON", "--value"],
            ),
            (&["set", "s", "k", "--value", "1 2", "--ttl", "60s"], &["E-CACHE-VALUE"]),
            (&["set", "s", "k", "--value", "", "--ttl", "60s"], &["E-CACHE-VALUE"]),
            (&["set", "s", "k", "--value", "2", "--ttl", "60"], &["with its unit"]),
            (&["set", "s", "k", "--value", "2", "--ttl", "0s"], &["from 1ms"]),
            (&["set", "s", "k", "--value", "2"], &["--ttl"]),
            (&["set", "s", "--value", "2", "--ttl", "60s"], &["E-CACHE-KEY"]),
            (&[&set[..], &many_tags].concat(), &["E-CACHE-TAGS", "16 at most"]),
            (&["del", "s"], &["E-CACHE-KEY"]),
            (&["invalidate"], &["--space"]),
            (&["invalidate", "s"], &["E-CACHE-KEY"]),
            (&["invalidate", "--all"], &["E-CACHE-ALL", "--yes"]),
            (&["invalidate", "s", "k", "--yes"], &["--all"]),
            (&["invalidate", "--tag", "t", "--space", "s"], &["cannot be used with"]),
            (&["explain", "s"], &["E-CACHE-KEY"]),
        ] {
            world.cache(arguments).refused(2, texts);
        }
        assert_eq!(world.cache(&["get", "s", "k"]).expect(0), "1\n");
    }
}

#[test]
fn value_is_read_from_standard_input() {
    let Some(world) = redis() else { return };
    let set = |input: &[u8]| {
        let program = recache(world.folder.path());
        let mut command = std::process::Command::new(program.get_program());
        command
            .current_dir(world.folder.path())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        command.args(["cache", "--timeout", "20s", "set", "s", "k", "--value", "-", "--ttl", "60s"]);
        let mut child = command.spawn().unwrap();
        child.stdin.take().unwrap().write_all(input).unwrap();
        child.wait_with_output().unwrap().status.code()
    };
    assert_eq!(set(b"[1,\n 2]\n"), Some(0));
    assert_eq!(world.cache(&["get", "s", "k"]).expect(0), "[1,  2]\n");
    assert_eq!(set(b"[1"), Some(2));
    assert_eq!(set(b"\"\xff\""), Some(2));
    assert_eq!(world.cache(&["get", "s", "k"]).expect(0), "[1,  2]\n");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn values_of_programs_are_shown_as_json_or_refused_as_postcard() {
    let Some(world) = redis() else { return };
    let url = std::env::var("RECACHE_TEST_REDIS_URL").unwrap();
    let text = std::fs::read_to_string(world.folder.path().join("recache.toml")).unwrap();
    let prefix = text.split("key_prefix = \"").nth(1).unwrap().split('"').next().unwrap();
    let config = recache_cache::CacheConfig {
        enabled: true,
        backend: "redis".to_owned(),
        key_prefix: prefix.to_owned(),
        operation_timeout_ms: 1_000,
        redis: recache_cache::config::RedisConfig {
            url: recache_cache::config::ServerUrl::new(url),
            ..recache_cache::config::RedisConfig::default()
        },
        ..recache_cache::CacheConfig::default()
    };
    let cache = recache_cache::Cache::from_config(&config, std::sync::Arc::new(recache_cache::SystemClock));
    while cache.provider().health().await.is_err() {
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    }
    let policy = recache_cache::Policy::new(std::time::Duration::from_mins(1));
    let space = cache.keys().space("s");
    let laid_out = cache.with_schema(7);
    laid_out.set(&space.key(["json"]), vec![1, 2], &policy).await;
    cache.set(&space.key(["postcard"]), vec![1, 2], &policy.codec(recache_cache::Codec::Postcard)).await;
    assert_eq!(world.cache(&["get", "s", "json"]).expect(0), "[1,2]\n");
    world.cache(&["get", "s", "postcard"]).refused(1, &["E-CACHE-CODEC", "postcard"]);
    assert_eq!(world.document(&["explain", "s", "postcard"])["entry"]["codec"], "postcard");
}

#[test]
fn value_that_the_backend_does_not_take_is_told() {
    let Some(world) = memcached() else { return };
    let folder = world.folder.path();
    std::fs::write(folder.join("large.json"), format!("\"{}\"", noise(3 << 20))).unwrap();
    let large = std::fs::File::open(folder.join("large.json")).unwrap();
    let program = recache(folder);
    let mut command = std::process::Command::new(program.get_program());
    command.current_dir(folder).stdin(large);
    command.args(["cache", "--timeout", "20s", "set", "s", "k", "--value", "-", "--ttl", "60s"]);
    let output = command.output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(said.contains("E-CACHE-VALUE") && said.contains("was not stored"), "{said}");
}

/// Text that does not become smaller.
fn noise(bytes: usize) -> String {
    let mut state = 7_u64;
    let mut next = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        char::from(b'0' + u8::try_from((state >> 33) % 75).unwrap())
    };
    (0..bytes).map(|_| next()).map(|letter| if letter == '\\' { '!' } else { letter }).collect()
}

/// One of each verb, none of them wrong in itself.
const VERBS: &[&[&str]] = &[
    &["get", "s", "k"],
    &["set", "s", "k", "--value", "1", "--ttl", "60s"],
    &["del", "s", "k"],
    &["invalidate", "s", "k"],
    &["invalidate", "--all", "--yes"],
    &["stats"],
    &["explain"],
    &["explain", "s", "k"],
];

#[test]
fn nobody_listening_is_told_within_the_time_given() {
    for (backend, scheme) in [("redis", "redis"), ("memcached", "tcp")] {
        let place = nobody();
        let world = Configured::backend(backend, &format!("{scheme}://{place}"));
        for verb in VERBS {
            let verb = [verb, &["--timeout", "300ms"][..]].concat();
            world.cache(&verb).refused(6, &["E-CACHE-DEGRADED", backend, &place, "--timeout"]);
        }
        let health = world.cache(&["health", "--timeout", "300ms", "-o", "json"]);
        assert!(health.err.contains("E-CACHE-DEGRADED"), "{health:?}");
        let health: Value = serde_json::from_str(&health.expect(6)).unwrap();
        assert_eq!(health["condition"], "degraded");
        assert!(!health["reasons"].as_array().unwrap().is_empty());
    }
}

#[test]
fn disabled_cache_is_told_by_every_verb() {
    let world = Configured::with("enabled = false\nbackend = \"moka\"\n");
    for verb in VERBS {
        world.cache(verb).refused(6, &["E-CACHE-DISABLED", "enabled is false", "enabled = true"]);
    }
    let health = world.cache(&["health"]);
    assert!(health.err.contains("E-CACHE-DISABLED") && health.out.contains("disabled"), "{health:?}");
    health.expect(6);
}

#[test]
fn cache_that_is_out_of_order_is_told_by_every_verb() {
    let world = Configured::with("enabled = true\nbackend = \"paper\"\n");
    for verb in VERBS {
        world.cache(verb).refused(6, &["E-CACHE-DEGRADED", "no-op", "recache config check"]);
    }
}

#[test]
fn bench_measures_the_near_tier_without_a_backend_and_says_what_is_missing() {
    let world = Configured::with("enabled = true\nbackend = \"moka\"\n");
    let bench = world.cache(&["bench", "--seconds", "1"]);
    assert!(bench.err.contains("only the near tier was measured"), "{bench:?}");
    let text = bench.expect(0);
    for measure in ["near hit, get", "near hit, get_or_load", "moka get", "quick_cache get"] {
        assert!(text.contains(measure), "{measure} is not in:\n{text}");
    }
    world.cache(&["bench", "--seconds", "0"]).refused(2, &["1..=60"]);
}

#[test]
fn bench_of_a_backend_puts_its_peer_beside_it() {
    for (world, peer) in [(redis(), "bare client"), (memcached(), "bare socket")] {
        let Some(world) = world else { continue };
        let bench = world.document(&["bench", "--seconds", "1"]);
        assert_eq!(bench["missing"], json!([]));
        let rows = bench["rows"].as_array().unwrap();
        let row = |measure: &str| {
            let found = rows.iter().find(|row| row["measure"].as_str().unwrap().contains(measure));
            found.unwrap_or_else(|| panic!("{measure} is not in {bench:#}")).clone()
        };
        for measure in ["GET p50", "GET p99", "get_many of 100"] {
            assert_eq!(row(measure)["beside_name"], peer, "{measure}");
            assert!(row(measure)["ratio"].as_f64().unwrap() > 0.0, "{measure}");
        }
        assert!(row("one cold key: loads")["value"].as_f64().unwrap() >= 1.0);
        assert!(row("p99 of a caller")["value"].as_f64().unwrap() >= 100.0, "a load takes that long");
        assert!(row("rebuilds")["value"].as_f64().unwrap() > 0.0);
        assert!(row("breaker open: p50")["value"].as_f64().unwrap() > 0.0);
    }
}

#[test]
fn bench_of_a_backend_that_is_down_measures_what_it_can() {
    let place = nobody();
    let world = Configured::backend("redis", &format!("redis://{place}"));
    let bench = world.cache(&["bench", "--seconds", "1"]);
    assert!(bench.err.contains("backend `redis` was not measured"), "{bench:?}");
    let text = bench.expect(6);
    assert!(
        text.contains("near hit") && text.contains("backend down, breaker open") && !text.contains("GET"),
        "{text}"
    );
}

#[test]
fn lives_are_simulated_on_three_traces() {
    let folder = tempfile::tempdir().expect("a folder");
    let simulate = |more: &[&str]| {
        let mut command = recache(folder.path());
        command.args(["cache", "ttl", "simulate", "--flight-reads", "1"]).args(more);
        run(&mut command)
    };
    let found = simulate(&["--days", "1", "-o", "json"]).json();
    let rows = found["rows"].as_array().expect("rows");
    for saves in ["both", "cost", "rebuilds"] {
        let ways: Vec<_> = rows.iter().filter(|row| row["saves"] == saves).map(|row| &row["way"]).collect();
        assert_eq!(
            ways,
            ["adaptive", "fixed", "multiply", "told", "possible"].repeat(3),
            "{saves}: {rows:?}"
        );
    }
    for row in rows {
        assert!(
            row["rebuilds"].as_u64() > Some(0) && row["reads"].as_u64() > row["rebuilds"].as_u64(),
            "{row}"
        );
        assert_eq!(row["saved"].is_null(), row["way"] == "adaptive", "{row}");
    }
    simulate(&["--share", "NaN"]).refused(2, &["`stale_share_max` is NaN"]);
    simulate(&["--share", "-1"]).refused(2, &["`stale_share_max` is -1"]);
    simulate(&["--staleness", "48h"]).refused(2, &["`staleness` is", "above `ttl_max`"]);
    simulate(&["--days", "0"]).refused(2, &["1..=28"]);
}
