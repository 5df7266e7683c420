//! No secret is ever shown: not in a value, a message, a line of the file, a debug print.

use miette::Severity;

use super::Scene;
use crate::config::{Output, Style};

const SECRET: &str = "hunter2";

/// Everything that can be shown of a scene.
fn everything(scene: &Scene) -> String {
    let loaded = scene.load();
    let mut shown = format!("{loaded:?} {:?} {:?}", scene.environment, scene.flags);
    for style in [
        Style::Plain,
        Style::Terminal { width: 80, colour: false },
        Style::Terminal { width: 80, colour: true },
    ] {
        shown.push_str(&scene.check_with(None, style).err);
        let mut err = Vec::new();
        loaded.write_problems(style, Severity::Warning, &mut err).unwrap();
        shown.push_str(&String::from_utf8(err).unwrap());
    }
    for key in [None, Some("database"), Some("database.url"), Some("common.cache.redis.url")] {
        for output in [Output::Table, Output::Json] {
            let answer = scene.explain(output, key);
            shown.push_str(&answer.out);
            shown.push_str(&answer.err);
        }
    }
    shown
}

#[track_caller]
fn assert_hidden(scene: &Scene) {
    let shown = everything(scene);
    assert!(!shown.contains(SECRET), "{shown}");
}

#[test]
fn good_urls_are_shown_without_their_passwords() {
    let scene = Scene::new()
        .file(&format!(
            "[database]\nurl = \"postgres://app:{SECRET}@db:5432/app\"\n[common.cache.redis]\nurl = \
             \"redis://:{SECRET}@cache\"\n[common.cache.memcached]\nurl = \"tcp://u:{SECRET}@cache\"\n"
        ))
        .variable("UNRELATED", SECRET);
    assert_hidden(&scene);
    let table = scene.explain(Output::Table, None).out;
    for shown in ["postgres://app:***@db:5432/app", "redis://:***@cache", "tcp://u:***@cache"] {
        assert!(table.contains(shown), "{table}");
    }
    // What is masked for show is whole for use.
    assert!(scene.config().cache.tables().unwrap().to_string().contains(SECRET));
}

#[test]
fn password_in_the_query_is_hidden() {
    let url = format!("postgres://db/app?user=app&password={SECRET}&sslmode=require");
    let scene = Scene::new().file(&format!("[database]\nurl = \"{url}\"\n"));
    assert_hidden(&scene);
    assert!(scene.explain(Output::Table, None).out.contains("app&password=***&sslmode=require"));
}

#[test]
fn passwords_from_variables_overrides_and_flags_are_hidden() {
    let url = format!("postgres://app:{SECRET}@db/app");
    let from_file =
        Scene::new().file("[database]\nurl = \"postgres://app:${PW}@db/app\"\n").variable("PW", SECRET);
    let whole = Scene::new().file("[database]\nurl = \"${DATABASE_URL}\"\n").variable("DATABASE_URL", &url);
    let variable = Scene::new().variable("RECACHE__DATABASE__URL", &url);
    let flag = Scene::new().flag("--database", "database.url", &url);
    for scene in [from_file, whole, variable, flag] {
        assert_hidden(&scene);
        assert!(scene.explain(Output::Table, None).out.contains("postgres://app:***@db/app"));
    }
}

#[test]
fn password_in_a_bad_value_is_hidden_in_the_message_and_in_the_line() {
    for url in [
        format!("mysql://app:{SECRET}@db/app"),
        format!("postgres:/app:{SECRET}@db/app"),
        format!("postgres//app:{SECRET}@db/app"),
        format!("postgres://app:{SECRET}@db:port/app"),
        format!("postgres://app:{SECRET} @db/app"),
        format!("postgres://app:p@ss:{SECRET}@[::1/app"),
        format!("postgres://app:it's\\\"{SECRET}@db:x/app"),
    ] {
        for option in [
            "[database]\nurl",
            "[common.cache.redis]\nurl",
            "[server]\naddress",
            "[log]\nlevel",
            "[engine]\nslots",
        ] {
            let scene = Scene::new().file(&format!("{option} = \"{url}\"\n"));
            assert!(!scene.load().is_clean());
            assert_hidden(&scene);
        }
    }
}

#[test]
fn password_beside_an_error_is_hidden() {
    for text in [
        format!("[database]\nurl = \"postgres://app:{SECRET}@db/app\"\nslots = 1\n"),
        format!("[database]\n# was postgres://app:{SECRET}@db/app\nslots = 1\n"),
        format!("database = {{ url = \"postgres://app:{SECRET}@db/app\", slots = 1 }}\n"),
        format!("[database]\nurl = \"postgres://app:{SECRET}@db/app\nslots = 1\n"),
        format!("[database]\nurl = postgres://app:{SECRET}@db/app\n"),
        format!("[database]\npassword = \"{SECRET}\"\n"),
        format!("[database]\npassword = {SECRET}\n"),
        format!("[database]\npassword = \"a&{SECRET}\"\n"),
        format!("[common.cache.redis]\nauth_token = '{SECRET}'\n"),
        format!("[database]\nurl = \"\"\"postgres://app:\\\n  {SECRET}@db:x/app\"\"\"\nslots = 1\n"),
        format!("[database]\nurl = '''postgres://app:\n{SECRET}@db/app'''\n"),
        format!("[database]\nurl = '''postgres://app:\n{SECRET}@db/app\nslots = 1\n"),
        format!("[database]\nurl = \"${{DB_PASSWORD:-{SECRET}\"\n"),
    ] {
        let scene = Scene::new().file(&text);
        assert!(!scene.load().is_clean());
        assert_hidden(&scene);
    }
}

#[test]
fn secret_variable_in_the_wrong_place_is_hidden() {
    for option in
        ["engine]\nslots", "log]\nlevel", "server]\naddress", "common.cache]\nenabled", "database]\nurl"]
    {
        let scene =
            Scene::new().file(&format!("[{option} = \"${{API_TOKEN}}\"\n")).variable("API_TOKEN", SECRET);
        assert!(!scene.load().is_clean());
        assert_hidden(&scene);
    }
}

#[test]
fn unknown_override_does_not_show_its_value() {
    assert_hidden(&Scene::new().variable("RECACHE__DATABASE__PASSWORD", SECRET).flag(
        "--set",
        "database.password",
        SECRET,
    ));
}

#[test]
fn place_of_an_error_beside_a_hidden_password_is_still_right() {
    let scene =
        Scene::new().file(&format!("database = {{ url = \"postgres://app:{SECRET}@db/app\", slots = 1 }}\n"));
    let answer = scene.check_with(None, Style::Terminal { width: 100, colour: false });
    assert!(answer.err.contains("[recache.toml:1:53]"), "{}", answer.err);
    assert!(answer.err.contains("postgres://app:*******@db/app\", slots = 1 }"), "{}", answer.err);
    assert!(scene.check().err.contains("at recache.toml:1:53\n"), "{}", scene.check().err);
}
