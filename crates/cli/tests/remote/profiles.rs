use std::os::unix::fs::PermissionsExt as _;

use super::{Served, command};

impl Served {
    /// With variables, and without a server that is named by a flag.
    fn with(&self, variables: &[(&str, &str)], arguments: &[&str]) -> super::Ran {
        let output =
            command(self.folder.path()).args(arguments).envs(variables.iter().copied()).output().unwrap();
        let text = |bytes| String::from_utf8(bytes).unwrap();
        super::Ran {
            code: output.status.code().unwrap_or(-1),
            out: text(output.stdout),
            err: text(output.stderr),
        }
    }
}

#[test]
fn profile_names_server_token_and_namespace() {
    let served = Served::start(&[("RECACHE__AUTH__API_KEYS", "true")]);
    let token = served.here(&["token", "create", "both", "--scope", "jobs:*@shop"]).ok();
    let file = served.folder.path().join("token");
    std::fs::write(&file, token).unwrap();
    std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o600)).unwrap();
    let set =
        ["profile", "set", "prod", "--server", &served.url, "--token-file", "token", "--namespace", "shop"];
    served.run(&set).ok();

    // What it says nothing about is as it was: the namespace is the profile's.
    let job = served.run(&["job", "submit", "echo", "--profile", "prod", "-o", "json"]).json();
    let listed = served.with(&[("RECACHE_PROFILE", "prod")], &["job", "list", "-o", "json"]).json();
    assert_eq!((&listed["jobs"][0]["id"], &listed["jobs"][0]["namespace"]), (&job["id"], &"shop".into()));
    // A flag stands above it.
    let other = ["job", "list", "--profile", "prod", "--namespace", "other"];
    served.run(&other).refused(4, &["E-DENIED", "other"]);
    served.run(&["job", "list", "--profile", "prod", "--token", "rck_wrong"]).refused(4, &["E-DENIED"]);

    std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o644)).unwrap();
    served.run(&["job", "list", "--profile", "prod"]).refused(2, &["E-PROFILE", "chmod 600"]);
    served.run(&["profile", "set", "prod", "--no-token-file", "--no-namespace"]).ok();
    served.run(&["job", "list", "--profile", "prod"]).refused(4, &["E-DENIED", "RECACHE_TOKEN"]);
}

#[test]
fn profiles_are_listed_changed_and_removed() {
    let served = Served::start(&[]);
    assert_eq!(served.run(&["profile", "list"]).ok(), "");
    served.run(&["profile", "set", "new"]).refused(2, &["no server is named"]);
    served.run(&["profile", "set", "a b", "--server", "http://a"]).refused(2, &["cannot be the name"]);
    let secret = served.run(&["profile", "set", "a", "--server", "http://u:hunter2@a"]);
    assert!(!secret.err.contains("hunter2"), "{secret:?}");
    secret.refused(2, &["E-PROFILE"]);
    served.run(&["profile", "set", "a", "--server", "http://a"]).ok();
    served.run(&["profile", "set", "b", "--server", "http://b", "--namespace", "n"]).ok();
    let listed = served.run(&["profile", "list", "-o", "json"]).json();
    assert_eq!(
        listed,
        serde_json::json!({ "schema": "recache.profiles.v1", "profiles": [
            { "name": "a", "server": "http://a" }, { "name": "b", "server": "http://b", "namespace": "n" } ] })
    );
    assert!(served.run(&["profile", "show", "b"]).ok().contains("http://b"));
    served.run(&["profile", "remove", "b"]).ok();
    served.run(&["profile", "show", "b"]).refused(3, &["there is no profile `b`; there are a"]);
    served.run(&["profile", "remove", "b"]).refused(3, &["E-PROFILE"]);
    served.run(&["job", "list", "--profile", "b"]).refused(3, &["there is no profile `b`"]);
    std::fs::write(served.folder.path().join("config/recache/profiles.toml"), "[profiles.a]\nserver = 7\n")
        .unwrap();
    served.run(&["job", "list", "--profile", "a"]).refused(2, &["profiles.toml is no file of profiles"]);
    // Who asks no server needs none.
    served.here(&["doctor"]).ok();
}

#[test]
fn profile_and_another_place_are_one_too_many() {
    let served = Served::start(&[]);
    served.run(&["profile", "set", "a", "--server", &served.url]).ok();
    let both = ["job", "list", "--profile", "a", "--server", &served.url];
    served.run(&both).refused(2, &["--server and --profile are both given"]);
    let both = ["job", "list", "--profile", "a", "--database", "sqlite:s.db"];
    served.run(&both).refused(2, &["--profile and --database are both given"]);
    let (profile, server) = (("RECACHE_PROFILE", "a"), ("RECACHE_SERVER", served.url.as_str()));
    served.with(&[profile, server], &["job", "list"]).refused(2, &["RECACHE_SERVER and RECACHE_PROFILE"]);
    served.with(&[("RECACHE_PROFILE", "none"), server], &["job", "list", "--profile", "a"]).ok();
    served.with(&[("RECACHE_PROFILE", "none")], &["job", "list", "--database", "sqlite:s.db"]).ok();
    served.with(&[("RECACHE_PROFILE", "none")], &["job", "list", "--server", &served.url]).ok();
}
