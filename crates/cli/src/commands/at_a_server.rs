//! Every verb says whether it works at a server. A verb that is new is in the table below, or this test fails.

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use clap::CommandFactory as _;
use recache_api::Problem;

use super::{Cli, against, run};

/// What a verb does with `--server`.
enum At {
    /// It asks the server, here with these arguments.
    Asks(&'static str),
    /// It reads somewhere else first, and asks then: a test of its own is elsewhere.
    AsksLater,
    /// It says why not, in these words.
    Refuses(&'static str, &'static str),
    /// It has no such flag, for this reason.
    Has(&'static str),
}

use At::{Asks, AsksLater, Has, Refuses};

const JOB: &str = "job_0190c7a2-7b5e-7000-8000-000000000001";
const WORKFLOW: &str = "wf_0190c7a2-7b5e-7000-8000-000000000001";
const BATCH: &str = "batch_0190c7a2-7b5e-7000-8000-000000000001";
const EVENT: &str = "evt_0190c7a2-7b5e-7000-8000-000000000001";
const FILE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../examples/templates/hello.yaml");

/// `JOB` and the like stand for ids, `FILE` for the path of a template.
const VERBS: &[(&str, At)] = &[
    ("demo", Has("it is a world of its own")),
    ("run", Has("it runs a template in this process, and keeps nothing")),
    ("serve", Has("it is the server")),
    ("worker list", Asks("")),
    ("audit list", Asks("")),
    ("migrate", Has("a server that runs has the schema it needs; one that does not cannot be asked")),
    ("doctor", Has("it looks at this machine: configuration, database, disk, clock")),
    ("bench jobs", Has("it measures this machine")),
    ("bench batch", Has("it measures this machine")),
    ("bench workflows", Has("it measures this machine")),
    ("bench views", Has("it measures this machine")),
    ("bench touch", Has("it measures this machine")),
    ("bench pressure", Has("it measures this machine")),
    ("bench saturation", Has("it measures this machine")),
    ("completions", Has("nothing is asked")),
    ("profile list", Has("profiles are a file here")),
    ("profile show", Has("profiles are a file here")),
    ("profile set", Has("profiles are a file here")),
    ("profile remove", Has("profiles are a file here")),
    ("config check", Has("configuration is a file here")),
    ("config explain", Has("configuration is a file here")),
    ("token create", Has("whoever gives rights away must reach the database, not only a server")),
    ("token list", Has("whoever gives rights away must reach the database, not only a server")),
    ("token revoke", Has("whoever gives rights away must reach the database, not only a server")),
    ("job submit", Asks("echo")),
    ("job list", Asks("")),
    ("job show", Asks("JOB")),
    ("job wait", Asks("JOB --timeout 1s")),
    ("job cancel", Asks("--queue q")),
    ("job retry", Asks("--all --dry-run")),
    ("job delete", Asks("--handler h")),
    ("job track", Asks("translate")),
    ("job report", Asks("JOB --state processing")),
    ("job heartbeat", Asks("JOB")),
    ("job ack", Asks("JOB")),
    ("job tracked", Asks("")),
    ("job import", AsksLater),
    ("batch create", Asks("import")),
    ("batch list", Asks("")),
    ("batch show", Asks("BATCH")),
    ("batch members", Asks("BATCH")),
    ("batch close", Asks("BATCH")),
    ("batch cancel", Asks("BATCH")),
    ("batch retry", Asks("BATCH")),
    ("queue list", Asks("")),
    ("queue show", Asks("q")),
    ("queue pause", Asks("q --reason x")),
    ("queue drain", Asks("q --reason x")),
    ("queue resume", Asks("q")),
    ("queue limit", Asks("q --running 1")),
    ("queue limits", Asks("")),
    ("dead list", Asks("")),
    ("dead show", Asks("JOB")),
    ("dead redrive", Asks("JOB --dry-run --reason x")),
    ("dead resolve", Asks("JOB --reason x")),
    ("dead investigate", Asks("JOB --reason x")),
    ("dead discard", Asks("JOB --reason x")),
    ("dead note", Asks("JOB x")),
    ("schedule list", Asks("")),
    ("schedule show", Asks("s")),
    ("schedule add", Asks("s @daily h")),
    ("schedule pause", Asks("s --reason x")),
    ("schedule resume", Asks("s")),
    ("schedule run", Asks("s")),
    ("schedule next", Asks("s")),
    ("schedule delete", Asks("s")),
    ("workflow analyze", Asks("WORKFLOW")),
    ("workflow submit", Asks("shop/order")),
    ("workflow list", Asks("")),
    ("workflow show", Asks("WORKFLOW")),
    ("workflow cancel", Asks("WORKFLOW --reason x")),
    ("workflow retry", Asks("WORKFLOW --reason x")),
    ("workflow signal", Asks("WORKFLOW paid")),
    ("workflow approve", Asks("WORKFLOW boss")),
    ("workflow complete", Asks("WORKFLOW fetch --reason x")),
    ("workflow resolve", Asks("WORKFLOW fetch --reason x")),
    ("view define", Asks("a/b --handler h")),
    ("view list", Asks("")),
    ("view patterns", Asks("")),
    ("view touch", Asks("a/b")),
    ("view rebuild", Asks("a/b --reason x")),
    ("view show", Asks("a/b")),
    ("view explain", Asks("a/b")),
    ("view history", Asks("a/b")),
    ("view derive", Asks("a/b --none")),
    ("view items", Asks("a/b")),
    ("view get", Asks("a/b c")),
    ("view pause", Asks("a/b --reason x")),
    ("view resume", Asks("a/b")),
    ("view diff", Asks("a/b 1 2 --limit 5000")),
    ("view rollback", Asks("a/b --to 1 --reason x")),
    ("view delete", Asks("a/b --reason x")),
    ("event list", Asks("")),
    ("event show", Asks("EVENT")),
    ("event subscribers", Asks("")),
    ("event unsubscribe", Asks("s")),
    ("webhook add", Asks("w https://example.com/ --event *")),
    ("webhook list", Asks("")),
    ("webhook show", Asks("w")),
    ("webhook remove", Asks("w")),
    ("webhook pause", Asks("w --reason x")),
    ("webhook resume", Asks("w")),
    ("webhook rotate", Asks("w")),
    ("webhook deliveries", Asks("")),
    ("webhook redeliver", Asks("w --dead")),
    ("template check", Asks("FILE")),
    ("template show", Asks("shop/order")),
    ("template diff", Asks("shop/order@1.0.0 shop/order")),
    ("template list", Asks("")),
    ("template apply", Asks("FILE")),
    ("template graph", Asks("shop/order")),
    ("template analyze", Asks("shop/order")),
    ("health", Asks("")),
    ("handler list", Asks("")),
    ("handler show", Asks("a/b")),
    ("handler graph", Asks("")),
    ("analytics performance", Asks("")),
    ("analytics bottlenecks", Asks("")),
    ("analytics explain", Asks("completion_rate")),
    ("cache get", Asks("a b")),
    ("cache set", Refuses("a b --value 1 --ttl 1s", "values are made by the programs that know how")),
    ("cache del", Refuses("a b", "`recache cache invalidate` outdates a value everywhere")),
    ("cache invalidate", Asks("a b")),
    ("cache stats", Asks("")),
    ("cache health", Asks("")),
    ("cache explain", Asks("a b")),
    ("cache bench", Refuses("", "it measures the machine that it runs on")),
    ("cache ttl explain", Asks("")),
    ("cache ttl simulate", Has("it reckons with recorded traces, and asks nobody")),
];

/// They take such a flag all the same: the first is of a noun that asks servers, the second is told which server a profile names.
const OTHERWISE: [&str; 2] = ["cache ttl simulate", "profile set"];

/// Answers that nothing is there, and counts who asks.
struct Empty {
    url: String,
    asked: Arc<AtomicUsize>,
}

impl Empty {
    fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let asked = Arc::new(AtomicUsize::new(0));
        let counted = Arc::clone(&asked);
        // Ends with the process: nothing waits for it.
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                counted.fetch_add(1, Ordering::SeqCst);
                answer(stream);
            }
        });
        Self { url, asked }
    }
}

fn answer(mut stream: TcpStream) {
    let mut reader = BufReader::new(stream.try_clone().unwrap());
    let (mut line, mut length) = (String::new(), 0);
    while reader.read_line(&mut line).is_ok_and(|read| read > 2) {
        if let Some(value) = line.to_ascii_lowercase().strip_prefix("content-length:") {
            length = value.trim().parse().unwrap();
        }
        line.clear();
    }
    let mut body = vec![0; length];
    reader.read_exact(&mut body).unwrap();
    let problem = Problem::new(404, "not_found", "Not found", "nothing is here");
    let problem = serde_json::to_string(&problem).unwrap();
    let _ = write!(
        stream,
        "HTTP/1.1 404 Not Found\r\ncontent-type: application/problem+json\r\ncontent-length: {}\r\nconnection: close\r\n\r\n{problem}",
        problem.len()
    );
}

/// All that can be called, `noun verb`.
fn leaves(command: &clap::Command, path: &str, found: &mut Vec<(String, bool)>) {
    for one in command.get_subcommands() {
        let path = format!("{path} {}", one.get_name());
        if one.has_subcommands() {
            leaves(one, &path, found);
        } else {
            let has_flag = one.get_arguments().any(|argument| argument.get_id() == against::SERVER);
            found.push((path.trim().to_owned(), has_flag));
        }
    }
}

#[test]
fn every_verb_asks_a_server_or_says_why_it_cannot() {
    let mut root = Cli::command();
    root.build();
    let mut found = Vec::new();
    leaves(&root, "", &mut found);
    let named: BTreeSet<&str> = VERBS.iter().map(|(verb, _)| *verb).collect();
    let there: BTreeSet<&str> = found.iter().map(|(verb, _)| verb.as_str()).collect();
    assert_eq!(named, there, "the table names every verb, and no other");

    let server = Empty::start();
    let mut wrong = Vec::new();
    for (verb, at) in VERBS {
        let has_flag = found.iter().any(|(path, has_flag)| path == verb && *has_flag);
        let (arguments, refusal) = match at {
            Asks(arguments) => (arguments, None),
            Refuses(arguments, why) => (arguments, Some(why)),
            AsksLater if has_flag => continue,
            AsksLater => {
                wrong.push(format!("`{verb}` takes no --server"));
                continue;
            }
            Has(why) => {
                if has_flag != OTHERWISE.contains(verb) {
                    wrong.push(format!("`{verb}` takes --server, and yet: {why}"));
                }
                continue;
            }
        };
        let before = server.asked.load(Ordering::SeqCst);
        let words = ["recache"].into_iter().chain(verb.split(' ')).chain(arguments.split_whitespace());
        let arguments = words
            .map(|word| match word {
                "JOB" => JOB,
                "WORKFLOW" => WORKFLOW,
                "BATCH" => BATCH,
                "EVENT" => EVENT,
                "FILE" => FILE,
                other => other,
            })
            .chain(["--server", server.url.as_str()])
            .map(OsString::from);
        let (mut out, mut err) = (Vec::new(), Vec::new());
        let status = run(arguments, &mut out, &mut err);
        let said = String::from_utf8(err).unwrap();
        let asked = server.asked.load(Ordering::SeqCst) - before;
        let is_right = match refusal {
            None => asked > 0 && !said.contains("E-UNSUPPORTED"),
            Some(why) => asked == 0 && said.contains(*why),
        };
        if !is_right {
            wrong.push(format!("`{verb}` asked {asked} times: {status:?} {said}"));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}
