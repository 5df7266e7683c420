//! What is planted stands in a wrong place, or its server is away: the message that says so does not repeat it.

use crate::slots::{SLOTS, Slot, planted, variable};
use crate::{PLANTED, said};

/// Commands that read the configuration, and end by themselves.
const COMMANDS: &[&[&str]] = &[
    &["config", "check"],
    &["config", "explain"],
    &["config", "explain", "-o", "json"],
    &["doctor"],
    &["doctor", "-o", "json"],
    &["migrate"],
    &["job", "list"],
    &["cache", "stats"],
    &["cache", "get", "k"],
    &["token", "list"],
];

#[test]
fn no_command_shows_what_the_configuration_holds() {
    let folder = tempfile::tempdir().unwrap();
    for (path, name, value) in planted(folder.path()) {
        for command in COMMANDS {
            let mut variables = vec![(name.as_str(), value.as_str()), ("RECACHE__LOG__LEVEL", "trace")];
            variables.extend(around(path));
            said(folder.path(), command, &variables);
        }
    }
}

#[test]
fn start_that_fails_does_not_say_what_its_configuration_holds() {
    let folder = tempfile::tempdir().unwrap();
    for (path, name, value) in planted(folder.path()) {
        if path.starts_with("common.cache") || path == "telemetry.authorization" {
            // These start all the same.
            continue;
        }
        let mut variables = vec![
            (name.as_str(), value.as_str()),
            ("RECACHE__SERVER__ADDRESS", "127.0.0.1:0"),
            ("RECACHE__LOG__LEVEL", "trace"),
        ];
        variables.extend(around(path));
        if path == "auth.jwt.keys_url" || path == "auth.jwt.secret" {
            // They would be good: one more thing is wrong.
            variables.push(("RECACHE__AUTH__JWT__ALGORITHMS", "none"));
        }
        let (text, code) = said(folder.path(), &["serve"], &variables);
        assert_ne!(code, 0, "{path}: {text}");
    }
}

/// What makes an option mean something.
fn around(path: &str) -> Vec<(&'static str, &'static str)> {
    let mut around = Vec::new();
    if path.starts_with("common.cache") {
        around.push(("RECACHE__COMMON__CACHE__ENABLED", "true"));
        let backend = if path.contains("memcached") { "memcached" } else { "redis" };
        around.push(("RECACHE__COMMON__CACHE__BACKEND", backend));
        if path.ends_with("nodes") {
            around.push(("RECACHE__COMMON__CACHE__REDIS__MODE", "sentinel"));
        }
    }
    if path.starts_with("auth.jwt") {
        around.push(("RECACHE__AUTH__JWT__ISSUER", "https://issuer"));
        around.push(("RECACHE__AUTH__JWT__AUDIENCE", "recache"));
        if path != "auth.jwt.algorithms" {
            around.push(("RECACHE__AUTH__JWT__ALGORITHMS", "RS256"));
        }
    }
    match path {
        "server.tls_key_file" => {
            around.push(("RECACHE__SERVER__TLS_CERTIFICATE_FILE", "server.tls_key_file.pem"));
        }
        "server.tls_certificate_file" => {
            around.push(("RECACHE__SERVER__TLS_KEY_FILE", "server.tls_key_file.pem"));
        }
        _ => {}
    }
    around
}

/// A value that cannot be read is told of without being repeated, whatever it was meant to be.
#[test]
fn value_that_is_refused_is_not_repeated() {
    let folder = tempfile::tempdir().unwrap();
    for (path, slot) in SLOTS {
        if matches!(slot, Slot::Open | Slot::File) {
            continue;
        }
        let name = variable(path);
        for wrong in [
            format!("//:{PLANTED}@"),
            format!("postgress://app:{PLANTED}@db/app"),
            format!("redis:/:{PLANTED}@cache"),
            format!("http://app:{PLANTED}@[/"),
            format!("\u{7f}://app:{PLANTED}@db"),
        ] {
            said(folder.path(), &["config", "check"], &[(&name, &wrong)]);
            said(folder.path(), &["doctor"], &[(&name, &wrong)]);
            let file = folder.path().join("wrong.toml");
            let (section, key) = path.rsplit_once('.').unwrap();
            std::fs::write(&file, format!("[{section}]\n{key} = {}\n", toml::Value::String(wrong.clone())))
                .unwrap();
            said(folder.path(), &["config", "check", "--config", "wrong.toml"], &[]);
        }
    }
}
