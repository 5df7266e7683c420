//! Every option that takes a text: whether it can hold a secret, and how one gets into it.

use serde_json::Value;

use crate::{PLANTED, recache};

/// What an option is planted with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Slot {
    /// A URL; `PLANTED` stands for the secret.
    Url(&'static str),
    /// The whole value is secret.
    Whole,
    /// The file that it names holds a secret.
    File,
    /// It can hold none: it is a name or a choice, and is shown.
    Open,
}

/// Whoever adds an option says here what it may hold.
pub(crate) const SLOTS: &[(&str, Slot)] = &[
    ("database.url", Slot::Url("postgres://app:PLANTED@127.0.0.1:1/app?password=PLANTED")),
    ("engine.queues", Slot::Open),
    ("server.address", Slot::Open),
    ("server.tls_certificate_file", Slot::File),
    ("server.tls_key_file", Slot::File),
    ("auth.jwt.issuer", Slot::Open),
    ("auth.jwt.audience", Slot::Open),
    ("auth.jwt.algorithms", Slot::Open),
    ("auth.jwt.secret", Slot::Whole),
    ("auth.jwt.public_key_file", Slot::File),
    ("auth.jwt.keys_file", Slot::File),
    ("auth.jwt.keys_url", Slot::Url("https://127.0.0.1:1/keys?token=PLANTED")),
    ("handlers.commands", Slot::Open),
    ("handlers.http_signing", Slot::Url("a.example=whsec_PLANTED, b.example=PLANTED")),
    (
        "handlers.publishers",
        Slot::Url("a=https://127.0.0.1:1/p?token=PLANTED, b=https://u:PLANTED@127.0.0.1:1/"),
    ),
    ("adaptive_ttl.stale_share_max", Slot::Open),
    ("adaptive_ttl.class_share_max", Slot::Open),
    ("telemetry.otlp_endpoint", Slot::Url("http://u:PLANTED@127.0.0.1:1")),
    ("telemetry.authorization", Slot::Whole),
    ("telemetry.service_name", Slot::Open),
    ("common.cache.key_prefix", Slot::Open),
    ("common.cache.redis.url", Slot::Url("redis://app:PLANTED@127.0.0.1:1")),
    ("common.cache.redis.nodes", Slot::Url("redis://app:PLANTED@127.0.0.1:1")),
    ("common.cache.redis.sentinel_master", Slot::Open),
    ("common.cache.redis.ca_file", Slot::File),
    ("common.cache.memcached.url", Slot::Url("tcp://app:PLANTED@127.0.0.1:1")),
];

/// The variable that sets an option.
pub(crate) fn variable(path: &str) -> String {
    format!("RECACHE__{}", path.to_ascii_uppercase().replace('.', "__"))
}

/// Each slot that can hold a secret, with its variable and what it is planted with.
pub(crate) fn planted(folder: &std::path::Path) -> Vec<(&'static str, String, String)> {
    let mut planted = Vec::new();
    for (path, slot) in SLOTS {
        let value = match slot {
            Slot::Open => continue,
            Slot::Url(url) => url.replace("PLANTED", PLANTED),
            Slot::Whole => PLANTED.to_owned(),
            Slot::File => {
                let file = folder.join(format!("{path}.pem"));
                let text = format!(
                    "{{\"keys\":[{{\"kty\":\"oct\",\"k\":7,\"{PLANTED}\":\"{PLANTED}\"}}]}}\n-----BEGIN PRIVATE KEY-----\n{PLANTED}\n-----END PRIVATE KEY-----\n"
                );
                std::fs::write(&file, text).unwrap();
                file.display().to_string()
            }
        };
        planted.push((*path, variable(path), value));
    }
    planted
}

/// The options that take a text of a form, as the binary itself lists them.
fn texts() -> Vec<String> {
    let folder = tempfile::tempdir().unwrap();
    let output = recache(folder.path(), &["config", "explain", "-o", "json"], &[]).output().unwrap();
    let listed: Value = serde_json::from_slice(&output.stdout).unwrap();
    let options = listed["options"].as_array().unwrap();
    assert!(options.len() > 50, "all of them: {}", options.len());
    let is_text = |option: &&Value| {
        let accepts = option["accepts"].as_str().unwrap();
        !accepts.starts_with("one of") && !accepts.starts_with("a whole number") && accepts != "true or false"
    };
    options.iter().filter(is_text).map(|option| option["key"].as_str().unwrap().to_owned()).collect()
}

#[test]
fn every_option_that_takes_a_text_is_planted_or_known_to_hold_no_secret() {
    let mut listed = texts();
    listed.sort_unstable();
    let mut known: Vec<String> = SLOTS.iter().map(|(path, _)| (*path).to_owned()).collect();
    known.sort_unstable();
    assert_eq!(listed, known, "say in SLOTS what a new option may hold");
}
