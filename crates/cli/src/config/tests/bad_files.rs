//! What wrong files, variables and flags look like to whoever has to mend them: word for word.

use super::{Scene, load_text};
use crate::cli_error::ExitStatus;
use crate::config::Style;

const NO_COLOUR: Style = Style::Terminal { width: 100, colour: false };

#[track_caller]
fn assert_plain(scene: &Scene, expected: &str) {
    let answer = scene.check();
    assert_eq!(answer.err, expected);
    assert_eq!((answer.exit, answer.out.as_str()), (ExitStatus::Failed, ""));
}

#[track_caller]
fn assert_drawn(scene: &Scene, expected: &str) {
    let answer = scene.check_with(None, NO_COLOUR);
    // The drawing ends some lines with a blank.
    let lines: Vec<_> = answer.err.lines().map(str::trim_end).collect();
    assert_eq!(lines.join("\n"), expected.trim_matches('\n'));
}

#[test]
fn syntax_errors_are_shown_one_a_line_and_hide_nothing_else_behind_guesses() {
    let scene = Scene::new().file("[engine]\nslots = = 4\nlease_ms = 0\n[log\nlevel = \"info\"\n");
    assert_plain(
        &scene,
        "\
error[E-CONFIG]: not TOML: extra `=`, expected nothing
  at recache.toml:2:9
error[E-CONFIG]: not TOML: unclosed table, expected `]`
  at recache.toml:4:5
2 problems
",
    );
    assert_drawn(
        &scene,
        "
E-CONFIG

  × not TOML: extra `=`, expected nothing
   ╭─[recache.toml:2:9]
 1 │ [engine]
 2 │ slots = = 4
   ·         ─
 3 │ lease_ms = 0
   ╰────
E-CONFIG

  × not TOML: unclosed table, expected `]`
   ╭─[recache.toml:4:5]
 3 │ lease_ms = 0
 4 │ [log
   ·     ▲
 5 │ level = \"info\"
   ╰────
2 problems
",
    );
}

#[test]
fn duplicate_key_is_a_syntax_error() {
    assert_plain(
        &Scene::new().file("[engine]\nslots = 4\nslots = 5\n"),
        "error[E-CONFIG]: not TOML: duplicate key\n  at recache.toml:3:1\n1 problem\n",
    );
}

#[test]
fn unknown_keys_and_sections_are_shown_with_a_suggestion_and_what_is_allowed() {
    let scene =
        Scene::new().file("[server]\nadress = \"127.0.0.1:1\"\nslots = 3\n[engin]\nslots = 1\nx = 2\n");
    assert_plain(
        &scene,
        "\
error[E-CONFIG]: unknown option `server.adress`
  at recache.toml:2:1
  help: did you mean `address`? allowed in [server]: address, builtin_handlers, connections_max, requests_max, waits_max, streams_max, streams_per_caller_max, wait_max_ms, request_max_ms, answer_wait_max_ms, requests_per_second_max, body_kib_max, tls_certificate_file, tls_key_file
error[E-CONFIG]: unknown option `server.slots`
  at recache.toml:3:1
  help: did you mean `engine.slots`? allowed in [server]: address, builtin_handlers, connections_max, requests_max, waits_max, streams_max, streams_per_caller_max, wait_max_ms, request_max_ms, answer_wait_max_ms, requests_per_second_max, body_kib_max, tls_certificate_file, tls_key_file
error[E-CONFIG]: unknown section `engin`
  at recache.toml:4:2
  help: did you mean `engine`? allowed at the top: database, engine, server, auth, handlers, outbound, log, telemetry, adaptive_ttl, common
3 problems
",
    );
    assert_drawn(
        &Scene::new().file("[server]\nadress = \"127.0.0.1:1\"\n"),
        "
E-CONFIG

  × unknown option `server.adress`
   ╭─[recache.toml:2:1]
 1 │ [server]
 2 │ adress = \"127.0.0.1:1\"
   · ──────
   ╰────
  help: did you mean `address`? allowed in [server]: address, builtin_handlers, connections_max,
        requests_max, waits_max, streams_max, streams_per_caller_max, wait_max_ms, request_max_ms,
        answer_wait_max_ms, requests_per_second_max, body_kib_max, tls_certificate_file,
        tls_key_file
1 problem
",
    );
}

#[test]
fn wrong_type_after_expansion_points_at_the_value_and_names_the_variable() {
    let scene = Scene::new()
        .file("[engine]\nslots = \"${SLOTS:-4}\"\npoll_ms = \"${POLL:-soon}\"\n")
        .variable("SLOTS", "many");
    assert_plain(
        &scene,
        "\
error[E-CONFIG]: `engine.slots` needs a whole number of jobs from 1 to 10000, found the text `many` (with SLOTS)
  at recache.toml:2:9
  help: write the number alone, without a unit or quotes
error[E-CONFIG]: `engine.poll_ms` needs a whole number of milliseconds from 10 to 60000, found the text `soon`
  at recache.toml:3:11
  help: write the number alone, without a unit or quotes
2 problems
",
    );
}

#[test]
fn wrong_types_say_what_was_found() {
    let loaded = load_text(
        "[engine]\nslots = 1.5\nlease_ms = [1]\nbeat_ms = true\nsweep_ms = 1979-05-27\npoll_ms = {}\ndrain_ms = \
         99999999999999999999999999999999999999999\n[log]\nlevel = 3\n[common.cache]\nenabled = 1\n",
    );
    let found: Vec<_> = loaded
        .problems
        .iter()
        .chain(&loaded.warnings)
        .map(|problem| problem.message.rsplit(", found ").next().unwrap())
        .collect();
    assert_eq!(
        found,
        [
            "a decimal number",
            "an array",
            "`true`",
            "a date or time",
            "a table",
            "a number with too many digits",
            "the number 3",
            "the number 1"
        ]
    );
}

#[test]
fn variable_that_is_not_set_is_named() {
    let scene = Scene::new().file("[database]\nurl = \"postgres://app:${DB_PASSWORD}@db/app\"\n");
    assert_plain(
        &scene,
        "\
error[E-CONFIG]: `database.url` needs the environment variable DB_PASSWORD, which is not set
  at recache.toml:2:7
  help: set DB_PASSWORD, or give it a default: ${DB_PASSWORD:-default}
1 problem
",
    );
    assert_drawn(
        &scene,
        "
E-CONFIG

  × `database.url` needs the environment variable DB_PASSWORD, which is not set
   ╭─[recache.toml:2:7]
 1 │ [database]
 2 │ url = \"postgres://app:${DB_PASSWORD}@db/app\"
   ·       ──────────────────────────────────────
   ╰────
  help: set DB_PASSWORD, or give it a default: ${DB_PASSWORD:-default}
1 problem
",
    );
}

#[test]
fn broken_interpolation_says_what_is_broken() {
    assert_plain(
        &Scene::new().file(
            "[database]\nurl = \"sqlite:${NAME\"\n[server]\naddress = \"${A:-${B}}\"\n[log]\nlevel = \"${}\"\n",
        ),
        "\
error[E-CONFIG]: `database.url` has a `${` without its `}`
  at recache.toml:2:7
  help: write ${NAME} or ${NAME:-default}; for a dollar sign itself write $$
error[E-CONFIG]: `server.address` has a variable inside another, which is not supported
  at recache.toml:4:11
  help: write ${NAME} or ${NAME:-default}; for a dollar sign itself write $$
error[E-CONFIG]: `log.level` has a `${}` that names no variable
  at recache.toml:6:9
  help: write ${NAME} or ${NAME:-default}; for a dollar sign itself write $$
3 problems
",
    );
}

#[test]
fn value_out_of_range_names_the_range() {
    assert_plain(
        &Scene::new().file("[engine]\nslots = 0\nlease_ms = 600001\npoll_ms = -5\n"),
        "\
error[E-CONFIG]: `engine.slots` is 0, outside 1..=10000
  at recache.toml:2:9
  help: write a whole number of jobs from 1 to 10000
error[E-CONFIG]: `engine.lease_ms` is 600001, outside 200..=600000
  at recache.toml:3:12
  help: write a whole number of milliseconds from 200 to 600000
error[E-CONFIG]: `engine.poll_ms` is -5, outside 10..=60000
  at recache.toml:4:11
  help: write a whole number of milliseconds from 10 to 60000
3 problems
",
    );
}

#[test]
fn bad_durations_urls_and_addresses_say_what_to_write() {
    assert_plain(
        &Scene::new().file(
            "[engine]\nlease_ms = \"2s\"\n[database]\nurl = \"mysql://db/x\"\n[server]\naddress = \
             \"0.0.0.0:7878\"\n[common.cache.redis]\nurl = \"localhost:6379\"\n",
        ),
        "\
error[E-CONFIG]: `engine.lease_ms` needs a whole number of milliseconds from 200 to 600000, found the text `2s`
  at recache.toml:2:12
  help: write lease_ms = 2000
error[E-CONFIG]: `database.url` has the scheme `mysql`, which is not supported
  at recache.toml:4:7
  help: write sqlite:PATH, sqlite::memory:, or postgres://USER:PASSWORD@HOST/DATABASE
error[E-CONFIG]: `server.address` is `0.0.0.0:7878`, which other machines can reach, and no authentication is configured
  at recache.toml:6:11
  help: set auth.api_keys = true and make a key with `recache token create`, or write 127.0.0.1:7878
error[E-CONFIG]: `common.cache.redis.url` is not a URL
  at recache.toml:8:7
  help: write redis://HOST:6379, or rediss://HOST:6379 with TLS
4 problems
",
    );
}

#[test]
fn problems_of_every_layer_are_shown_at_once_in_order() {
    let scene = Scene::new()
        .file("colour = true\n[log]\nformat = \"jsn\"\n[common.cache]\nbackend = \"radis\"\n")
        .variable("RECACHE__ENGINE__SLOTZ", "3")
        .variable("RECACHE__ENGINE__SLOTS", "x")
        .variable("RECACHE__ENGINE", "x")
        .variable("RECACHE__", "x")
        .flag("--address", "server.address", "0.0.0.0:80")
        .flag("--set", "log.levle", "info");
    assert_plain(
        &scene,
        "\
error[E-CONFIG]: unknown option `colour`
  at recache.toml:1:1
  help: allowed at the top: database, engine, server, auth, handlers, outbound, log, telemetry, adaptive_ttl, common
error[E-CONFIG]: `log.format` is `jsn`, which is not known
  at recache.toml:3:10
  help: did you mean \"json\"? allowed: text, json
error[E-CONFIG]: `` is no option, from environment variable RECACHE__
  help: run `recache config explain` for the list of options
error[E-CONFIG]: `engine` is a section, not an option, from environment variable RECACHE__ENGINE
  help: run `recache config explain` for the list of options
error[E-CONFIG]: `engine.slotz` is no option, from environment variable RECACHE__ENGINE__SLOTZ
  help: did you mean `RECACHE__ENGINE__SLOTS`?
error[E-CONFIG]: `engine.slots` needs a whole number of jobs from 1 to 10000, found the text `x`, from environment variable RECACHE__ENGINE__SLOTS
  help: write the number alone, without a unit or quotes
error[E-CONFIG]: `log.levle` is no option, from flag --set
  help: did you mean `log.level`?
error[E-CONFIG]: `server.address` is `0.0.0.0:80`, which other machines can reach, and no authentication is configured, from flag --address
  help: set auth.api_keys = true and make a key with `recache token create`, or write 127.0.0.1:80
error[E-CONFIG]: `common.cache.backend` is `radis`, which is not known
  at recache.toml:5:11
  help: did you mean \"redis\"? allowed: redis, dragonfly, valkey, memcached, moka, memory, in-memory, tiered
9 problems
",
    );
}

#[test]
fn value_without_a_place_in_the_file_is_drawn_without_a_snippet() {
    assert_drawn(
        &Scene::new().variable("RECACHE__ENGINE__SLOTS", "0"),
        "
E-CONFIG

  × `engine.slots` is 0, outside 1..=10000, from environment variable RECACHE__ENGINE__SLOTS
  help: write a whole number of jobs from 1 to 10000
1 problem
",
    );
}

#[test]
fn colours_are_used_only_when_asked_for() {
    let scene = Scene::new().file("[engine]\nslots = 0\n");
    let drawn = |colour| scene.check_with(None, Style::Terminal { width: 100, colour }).err;
    assert!(drawn(true).contains('\u{1b}'));
    assert!(!drawn(false).contains('\u{1b}'));
    assert!(!scene.check().err.contains('\u{1b}'));
}

#[test]
fn control_characters_of_a_value_do_not_reach_the_terminal() {
    let scene = Scene::new().file("[log]\nlevel = \"\\u001b[2Jred\"\n\"a\\u001b[2J\" = 1\n");
    for style in [Style::Plain, NO_COLOUR] {
        let answer = scene.check_with(None, style);
        assert!(answer.err.contains("\\u{1b}[2Jred") && !answer.err.contains('\u{1b}'), "{}", answer.err);
    }
}

#[test]
fn endless_problems_are_counted_not_shown() {
    use std::fmt::Write as _;
    let mut text = String::new();
    for number in 0..1000 {
        writeln!(text, "x{number} = 1").unwrap();
    }
    let answer = Scene::new().file(&text).check();
    assert!(answer.err.ends_with("and 950 more\n1000 problems\n"), "{}", answer.err);
}

#[test]
fn deep_nesting_is_refused_not_fatal() {
    let text = format!("x = {}{}", "[".repeat(100_000), "]".repeat(100_000));
    assert_eq!(Scene::new().file(&text).check().exit, ExitStatus::Failed);
}
