//! Tokens of callers: given to commands and workers, sent to servers that do not know them.

use crate::running::Served;
use crate::{PLANTED, assert_hidden, recache, said, text};

/// No server is there.
const NOWHERE: &str = "http://127.0.0.1:1";

#[test]
fn token_of_a_command_is_in_none_of_its_messages() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    let variables = [("RECACHE_TOKEN", PLANTED), ("RECACHE_SERVER", NOWHERE)];
    let with_user = format!("http://u:{PLANTED}@127.0.0.1:1");
    // A command asks again for ten seconds: all of them at once.
    std::thread::scope(|scope| {
        for verb in [&["job", "list"][..], &["job", "submit", "echo"]] {
            let flags = [verb, &["--server", NOWHERE, "--token", PLANTED, "-vv"]].concat();
            scope.spawn(move || said(folder, &flags, &[("RECACHE__LOG__LEVEL", "trace")]));
            scope.spawn(move || said(folder, verb, &variables));
            said(folder, &[verb, &["--help"]].concat(), &variables);
            // Where it does not belong.
            said(folder, &[verb, &["--server", &with_user]].concat(), &[]);
        }
    });
}

#[test]
fn token_of_a_worker_is_in_none_of_its_messages() {
    let folder = tempfile::tempdir().unwrap();
    let with_user = format!("http://u:{PLANTED}@127.0.0.1:1");
    for arguments in
        [&["worker", "--server", NOWHERE, "--token", PLANTED][..], &["worker", "--server", &with_user]]
    {
        let mut command = recache(folder.path(), arguments, &[("RECACHE__LOG__LEVEL", "trace")]);
        command.stdout(std::process::Stdio::piped()).stderr(std::process::Stdio::piped());
        let child = command.spawn().unwrap();
        std::thread::scope(|scope| {
            let id = child.id().to_string();
            scope.spawn(move || {
                // Long enough for some calls that nobody answers.
                let _ = std::process::Command::new("sleep").arg("1.5").status();
                let _ = std::process::Command::new("kill").args(["-TERM", &id]).status();
            });
            assert_hidden("a worker", &text(&child.wait_with_output().unwrap()));
        });
    }
}

#[test]
fn token_that_is_refused_is_in_no_answer_and_no_log() {
    let served = Served::start(&[("RECACHE__AUTH__API_KEYS", "true")]);
    for token in [
        PLANTED.to_owned(),
        format!("rck_0011223344556677_{PLANTED}"),
        format!("{PLANTED}.{PLANTED}.{PLANTED}"),
    ] {
        for header in [
            format!("authorization: Bearer {token}"),
            format!("authorization: {token}"),
            format!("cookie: {token}"),
        ] {
            for path in ["/v1/jobs", "/metrics", "/nowhere", "/v1/events"] {
                let answer = served.ask("GET", path, &header, "");
                assert!(answer.starts_with("HTTP/1.1 4"), "{answer}");
                assert_hidden(path, &answer);
            }
        }
    }
    assert_hidden("the server", &served.end());
}
