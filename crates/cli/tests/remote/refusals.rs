use super::{Served, command};

#[test]
fn verb_without_a_form_against_a_server_says_so_by_name() {
    let served = Served::start(&[]);
    for (arguments, name) in [
        (&["queue", "pause", "q", "--reason", "x", "--actor", "ann"][..], "--actor"),
        (&["schedule", "pause", "s", "--reason", "x", "--actor", "ann"], "--actor"),
        (&["cache", "get", "a", "b", "--after", "1f.3.9.2a.1"], "--after"),
        (&["cache", "set", "a", "b", "--value", "1", "--ttl", "1s"], "recache cache set"),
        (&["cache", "del", "a", "b"], "recache cache invalidate"),
        (&["cache", "bench"], "recache cache bench"),
    ] {
        served.there(arguments).refused(2, &["E-UNSUPPORTED", name]);
    }
    served.there(&["doctor"]).refused(2, &["--server"]);
}

#[test]
fn server_and_database_together_are_one_too_many() {
    let served = Served::start(&[]);
    let both = ["job", "list", "--server", &served.url, "--database", "sqlite:s.db"];
    served.run(&both).refused(2, &["--server and --database are both given"]);
    served.run(&["job", "list", "--server", "localhost"]).refused(2, &["is no URL of a server"]);
    served.run(&["job", "list", "--token", "x"]).refused(2, &["none is named"]);
    let with = |variables: &[(&str, &str)], arguments: &[&str]| {
        let mut command = command(served.folder.path());
        let output = command.args(arguments).envs(variables.iter().copied()).output().unwrap();
        (output.status.code().unwrap(), String::from_utf8(output.stderr).unwrap())
    };
    let server = ("RECACHE_SERVER", served.url.as_str());
    let (code, said) = with(&[server, ("RECACHE_DATABASE", "sqlite:s.db")], &["job", "list"]);
    assert!(code == 2 && said.contains("RECACHE_SERVER and RECACHE_DATABASE"), "{said}");
    // The flag says which: this database does not exist.
    let (code, said) = with(&[server], &["job", "list", "--database", "sqlite:none.db"]);
    assert!(code != 0 && said.contains("none.db"), "{code} {said}");
    assert_eq!(with(&[server], &["job", "list"]).0, 0);
}

#[test]
fn token_opens_what_its_scopes_say_and_is_never_shown() {
    let served = Served::start(&[("RECACHE__AUTH__API_KEYS", "true")]);
    served.there(&["job", "list"]).refused(4, &["E-DENIED", "RECACHE_TOKEN"]);
    let scope = ["token", "create", "reader", "--scope", "jobs:read@shop"];
    let token = served.here(&scope).ok();
    let token = token.trim();
    served.there(&["job", "list", "--token", token]).ok();
    let refused = served.there(&["-vv", "job", "submit", "echo", "--token", token]);
    assert!(!refused.err.contains(token.rsplit('_').next().unwrap()), "{refused:?}");
    refused.refused(4, &["E-DENIED", "jobs:write"]);
    let of_others = served.there(&["job", "list", "--namespace", "other", "--token", token]);
    of_others.refused(4, &["E-DENIED", "other"]);
    let unknown = "job_01890000-0000-7000-8000-000000000000";
    served.there(&["job", "show", unknown, "--token", token]).refused(3, &["E-NOT-FOUND", "does not exist"]);
    let mut by_variable = command(served.folder.path());
    by_variable.args(["job", "list"]).env("RECACHE_SERVER", &served.url).env("RECACHE_TOKEN", token);
    assert!(by_variable.output().unwrap().status.success());
}

#[test]
fn server_that_does_not_answer_is_unavailable_after_a_while() {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    drop(listener);
    let folder = tempfile::tempdir().unwrap();
    let output = command(folder.path()).args(["job", "list", "--server", &url]).output().unwrap();
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(output.status.code() == Some(6) && said.contains("E-UNAVAILABLE"), "{said}");
    assert!(said.contains("refused"), "{said}");
}
