//! `recache serve` and `recache bench` as processes.
#![cfg(unix)]
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::disallowed_methods,
    clippy::format_push_string,
    missing_docs,
    reason = "a test says what it expects"
)]

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::process::{Child, Command, Stdio};

struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn recache(arguments: &[&str], address: &str) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_recache"));
    command.args(arguments).env("RECACHE__SERVER__ADDRESS", address).stdin(Stdio::null());
    command
}

#[test]
fn serve_answers_health_and_ends_well_when_told_to() {
    let folder = tempfile::tempdir().unwrap();
    let database = format!("sqlite:{}", folder.path().join("s.db").display());
    let mut child = Running(
        recache(&["serve", "--database", &database], "127.0.0.1:0")
            .stderr(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap(),
    );
    let mut lines = BufReader::new(child.0.stderr.take().unwrap()).lines();
    let address = loop {
        let line = lines.next().expect("it says where it listens").unwrap();
        if let Some((_, rest)) = line.split_once("http://") {
            break rest.trim_end_matches("/health").to_owned();
        }
    };
    let mut stream = TcpStream::connect(&address).unwrap();
    stream.write_all(b"GET /health/ready HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n").unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");

    let terminated = Command::new("kill").args(["-TERM", &child.0.id().to_string()]).status().unwrap();
    assert!(terminated.success());
    assert_eq!(child.0.wait().unwrap().code(), Some(0));
}

/// A server on a port of its own, and where it is.
struct Served {
    child: Running,
    address: String,
    folder: tempfile::TempDir,
}

impl Served {
    fn start(variables: &[(&str, &str)]) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let mut command = recache(&["serve", "--database", "sqlite:s.db"], "127.0.0.1:0");
        command.current_dir(folder.path()).stderr(Stdio::piped()).envs(variables.iter().copied());
        let mut child = Running(command.spawn().unwrap());
        let mut lines = BufReader::new(child.0.stderr.take().unwrap()).lines();
        let address = loop {
            let line = lines.next().expect("it says where it listens").unwrap();
            if let Some((_, rest)) = line.split_once("http://") {
                break rest.trim_end_matches("/health").to_owned();
            }
        };
        // Somebody must read what it says, or it stops at a full pipe.
        std::thread::spawn(move || lines.for_each(drop));
        Self { child, address, folder }
    }

    fn run(&self, arguments: &[&str]) -> (i32, String, String) {
        let mut command = recache(arguments, "127.0.0.1:0");
        let output =
            command.args(["--database", "sqlite:s.db"]).current_dir(self.folder.path()).output().unwrap();
        let text = |bytes| String::from_utf8(bytes).unwrap();
        (output.status.code().unwrap_or(-1), text(output.stdout), text(output.stderr))
    }

    fn ask(
        &self,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
        body: &str,
    ) -> (u16, serde_json::Value) {
        let mut stream = TcpStream::connect(&self.address).unwrap();
        let mut text = format!("{method} {path} HTTP/1.1\r\nhost: {}\r\nconnection: close\r\n", self.address);
        for (name, value) in headers {
            text += &format!("{name}: {value}\r\n");
        }
        if !body.is_empty() {
            text += &format!("content-type: application/json\r\ncontent-length: {}\r\n", body.len());
        }
        stream.write_all(format!("{text}\r\n{body}").as_bytes()).unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        let (head, body) = answer.split_once("\r\n\r\n").unwrap();
        let status = head.split(' ').nth(1).unwrap().parse().unwrap();
        (status, serde_json::from_str(body).unwrap_or_default())
    }

    fn terminate(&mut self) -> i32 {
        let kill = Command::new("kill").args(["-TERM", &self.child.0.id().to_string()]).status().unwrap();
        assert!(kill.success());
        self.child.0.wait().unwrap().code().unwrap()
    }
}

#[test]
fn first_job_is_submitted_watched_and_read_as_the_readme_says() {
    let mut served = Served::start(&[]);
    let job = r#"{"handler":"echo","input":{"hello":"world"}}"#;
    let (status, submitted) = served.ask("POST", "/v1/jobs", &[], job);
    assert_eq!(status, 201, "{submitted}");
    let path = format!("/v1/jobs/{}", submitted["id"].as_str().unwrap());
    let (_, details) = served.ask("GET", &path, &[("prefer", "wait=10")], "");
    assert_eq!(details["job"]["state"], "completed", "{details}");
    assert_eq!(details["job"]["output"]["input"]["hello"], "world");
    let (_, listed) = served.ask("GET", "/v1/jobs?state=completed&limit=5", &[], "");
    assert_eq!(listed["jobs"][0]["id"], submitted["id"]);
    let (_, said, _) = served.run(&["job", "show", submitted["id"].as_str().unwrap(), "-o", "json"]);
    let shown: serde_json::Value = serde_json::from_str(&said).unwrap();
    assert_eq!(shown, details, "the command line says the same document");
    assert_eq!(served.terminate(), 0);
}

#[test]
fn address_that_others_can_reach_needs_authentication_and_the_refusal_says_how() {
    let folder = tempfile::tempdir().unwrap();
    let output =
        recache(&["serve", "--database", "sqlite:s.db"], "0.0.0.0:0").current_dir(folder.path()).output();
    let said = String::from_utf8(output.unwrap().stderr).unwrap();
    for part in ["no authentication is configured", "auth.api_keys = true", "recache token create"] {
        assert!(said.contains(part), "{said}");
    }
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0);
    let half = recache(&["serve", "--database", "sqlite:s.db"], "127.0.0.1:0")
        .env("RECACHE__AUTH__JWT__ISSUER", "https://issuer")
        .current_dir(folder.path())
        .output();
    let said = String::from_utf8(half.unwrap().stderr).unwrap();
    assert!(said.contains("E-AUTH") && said.contains("give one of secret"), "{said}");
}

#[test]
fn key_opens_what_its_scopes_say_until_it_is_revoked() {
    let served = Served::start(&[("RECACHE__AUTH__API_KEYS", "true")]);
    assert_eq!(served.ask("GET", "/v1/jobs", &[], "").0, 401);
    let (code, token, note) = served.run(&["token", "create", "deploy", "--scope", "jobs:read"]);
    assert!(code == 0 && token.starts_with("rck_") && note.contains("shown once"), "{note}");
    let bearer = format!("Bearer {}", token.trim());
    let with = [("authorization", bearer.as_str())];
    assert_eq!(served.ask("GET", "/v1/jobs", &with, "").0, 200);
    assert_eq!(served.ask("POST", "/v1/jobs", &with, r#"{"handler":"echo"}"#).0, 403);

    let (_, listed, _) = served.run(&["token", "list", "-o", "json"]);
    let listed: serde_json::Value = serde_json::from_str(&listed).unwrap();
    assert_eq!(
        (&listed["keys"][0]["name"], &listed["keys"][0]["scopes"][0]),
        (&"deploy".into(), &"jobs:read".into())
    );
    assert!(!listed.to_string().contains(token.trim().rsplit('_').next().unwrap()));
    let (code, _, said) = served.run(&["token", "create", "deploy", "--scope", "jobs:read"]);
    assert_eq!(code, 5, "{said}");
    let (code, _, said) = served.run(&["token", "create", "x", "--scope", "jbos:read"]);
    assert!(code == 2 && said.contains("`jbos`") && said.contains("jobs"), "{said}");

    let (code, said, _) = served.run(&["token", "revoke", "deploy", "--reason", "leaked"]);
    assert!(code == 0 && said.contains("is revoked"), "{said}");
    let revoked = std::time::Instant::now();
    while served.ask("GET", "/v1/jobs", &with, "").0 == 200 {
        assert!(revoked.elapsed().as_secs() < 5, "it is still good");
    }
    let (_, said, _) = served.run(&["token", "revoke", "deploy"]);
    assert!(said.contains("was revoked before"), "{said}");
}

#[test]
fn running_job_of_a_stopped_server_goes_back_to_the_queue() {
    let mut served = Served::start(&[("RECACHE__ENGINE__DRAIN_MS", "300")]);
    let (_, submitted) = served.ask("POST", "/v1/jobs", &[], r#"{"handler":"sleep","input":{"seconds":60}}"#);
    let id = submitted["id"].as_str().unwrap().to_owned();
    while served.ask("GET", &format!("/v1/jobs/{id}"), &[], "").1["job"]["state"] != "running" {}
    let told = std::time::Instant::now();
    assert_eq!(served.terminate(), 0);
    assert!(told.elapsed().as_secs() < 10, "drain and grace, and no more");
    let (_, said, _) = served.run(&["job", "show", &id, "-o", "json"]);
    let shown: serde_json::Value = serde_json::from_str(&said).unwrap();
    assert_eq!(shown["job"]["state"], "queued", "{shown}");
}

#[test]
fn start_says_one_line_for_each_choice() {
    let folder = tempfile::tempdir().unwrap();
    let mut command = recache(&["serve", "--database", "sqlite:s.db"], "127.0.0.1:0");
    command.current_dir(folder.path()).stderr(Stdio::piped()).env("RECACHE__LOG__FORMAT", "json");
    let mut child = Running(command.spawn().unwrap());
    let lines = BufReader::new(child.0.stderr.take().unwrap()).lines();
    let said: Vec<String> = lines.map(Result::unwrap).take_while(|line| !line.contains("http://")).collect();
    for choice in ["\"message\":\"database\"", "\"message\":\"cache\"", "auth: none", "\"message\":\"work\""]
    {
        assert_eq!(said.iter().filter(|line| line.contains(choice)).count(), 1, "{choice}: {said:#?}");
    }
}

#[test]
fn log_has_the_configured_level_and_form() {
    let said = |level: &str, format: &str| {
        let folder = tempfile::tempdir().unwrap();
        let database = format!("sqlite:{}", folder.path().join("s.db").display());
        let child = Running(
            recache(&["serve", "--database", &database], "127.0.0.1:0")
                .env("RECACHE__LOG__LEVEL", level)
                .env("RECACHE__LOG__FORMAT", format)
                .env("RECACHE__COMMON__CACHE__ENABLED", "true")
                .env("RECACHE__COMMON__CACHE__BACKEND", "moka")
                .stderr(Stdio::piped())
                .spawn()
                .unwrap(),
        );
        let mut child = child;
        let lines = BufReader::new(child.0.stderr.take().unwrap()).lines();
        // The line that says where it listens is the last of the start.
        lines.map(Result::unwrap).take_while(|line| !line.contains("http://")).collect::<Vec<_>>()
    };
    let text = said("info", "text");
    assert!(text.iter().any(|line| line.contains("cache is active")), "{text:?}");
    let json = said("info", "json");
    let documents: Vec<serde_json::Value> =
        json.iter().map(|line| serde_json::from_str(line).expect("one JSON object a line")).collect();
    assert!(documents.iter().any(|line| line["fields"]["provider"] == "moka"), "{json:?}");
    assert!(said("warn", "text").is_empty());
}

#[test]
fn taken_port_is_named_with_its_remedy_and_no_database_is_made() {
    let folder = tempfile::tempdir().unwrap();
    let database = format!("sqlite:{}", folder.path().join("s.db").display());
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let output = recache(&["serve", "--database", &database], &address).output().unwrap();
    let said = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(6), "{said}");
    for part in ["error[E-ADDRESS]", &address, "in use", "help: stop the other process"] {
        assert!(said.contains(part), "{said}");
    }
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0);
}

#[test]
fn bench_jobs_drains_all_that_it_submits_and_leaves_nothing() {
    let temporary = tempfile::tempdir().unwrap();
    let output = recache(&["bench", "jobs", "--jobs", "300", "--singles", "5", "-o", "json"], "127.0.0.1:0")
        .env("TMPDIR", temporary.path())
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let report: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(report["schema"], "recache.bench/1");
    let names: Vec<&str> =
        report["rows"].as_array().unwrap().iter().map(|row| row["name"].as_str().unwrap()).collect();
    for name in ["submit, in bulk", "drain", "one job, submit to done p50", "one job, submit to done p99"] {
        assert!(names.contains(&name), "{names:?}");
    }
    assert!(report["rows"].as_array().unwrap().iter().all(|row| row["value"].as_f64().unwrap() > 0.0));
    assert_eq!(std::fs::read_dir(temporary.path()).unwrap().count(), 0);
}

#[test]
fn bench_workflows_runs_every_shape_to_its_end() {
    let arguments = ["bench", "workflows", "--singles", "2", "--many", "5", "-o", "json"];
    let shapes = "linear4,diamond4,dag7,tree8,conditional5,batch1000,fan1000";
    let output = recache(&[&arguments[..], &["--shapes", shapes]].concat(), "127.0.0.1:0").output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let report: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    let names: Vec<&str> =
        report["rows"].as_array().unwrap().iter().filter_map(|row| row["name"].as_str()).collect();
    for shape in shapes.split(',') {
        assert!(
            names.iter().any(|name| name.starts_with(&format!("{shape}: ")) && name.ends_with("p99")),
            "{names:?}"
        );
    }
    let unknown = recache(&["bench", "workflows", "--shapes", "ring"], "127.0.0.1:0").output().unwrap();
    assert!(
        String::from_utf8_lossy(&unknown.stderr).contains("there is no shape `ring`: linear4"),
        "{unknown:?}"
    );
}

#[test]
fn bench_touch_sees_every_build_stopped() {
    let output =
        recache(&["bench", "touch", "--rounds", "10", "-o", "json"], "127.0.0.1:0").output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let report: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(report["rows"].as_array().unwrap().len(), 6);
}

#[test]
fn webhooks_to_addresses_that_are_not_public_are_refused_and_the_secret_is_shown_once() {
    let served = Served::start(&[]);
    for url in [
        "https://127.0.0.1/hook",
        "https://10.0.0.1/",
        "https://169.254.169.254/latest/meta-data/",
        "https://[::1]/",
        "https://[::ffff:127.0.0.1]/",
        "https://[::ffff:7f00:1]/",
        "https://[64:ff9b::10.0.0.1]/",
        "https://2130706433/",
        "https://0x7f.1/",
        "http://example.com/",
        "https://user:hunter2@example.com/",
        "ftp://example.com/",
        "file:///etc/passwd",
        "example.com",
    ] {
        let body = serde_json::json!({ "name": "x", "url": url, "types": ["*"] }).to_string();
        let (status, refused) = served.ask("POST", "/v1/webhooks", &[], &body);
        assert_eq!((status, &refused["errors"][0]["pointer"]), (422, &"/url".into()), "{url}: {refused}");
        assert!(!refused.to_string().contains("hunter2"), "{refused}");
    }
    let body = r#"{"name":"shop","url":"https://shop.example/hooks?key=canary","types":["order.*"]}"#;
    let (status, made) = served.ask("POST", "/v1/webhooks", &[], body);
    assert_eq!(status, 201, "{made}");
    let secret = made["secret"].as_str().unwrap().strip_prefix("whsec_").unwrap().to_owned();
    let (_, shown) = served.ask("GET", "/v1/webhooks/shop", &[], "");
    let (_, listed) = served.ask("GET", "/v1/webhooks", &[], "");
    let (_, audit) = served.ask("GET", "/v1/audit", &[], "");
    let (_, said, _) = served.run(&["webhook", "show", "shop", "-o", "json"]);
    assert_eq!(serde_json::from_str::<serde_json::Value>(&said).unwrap(), shown, "the same document");
    for text in [shown.to_string(), listed.to_string(), audit.to_string()] {
        assert!(text.contains("shop") && !text.contains(&secret) && !text.contains("canary"), "{text}");
    }
}

/// What the process holds, in bytes.
#[cfg(target_os = "linux")]
fn resident_bytes(child: &Running) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{}/status", child.0.id())).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    line.trim().trim_end_matches(" kB").parse::<u64>().unwrap() * 1024
}

/// Sends a head and as much of a body as the server takes. What it answers, up to its status.
#[cfg(target_os = "linux")]
fn send_body(address: &str, head: &str, body: impl Iterator<Item = Vec<u8>>) -> String {
    let mut stream = TcpStream::connect(address).unwrap();
    let head = format!(
        "POST /v1/jobs HTTP/1.1\r\nhost: {address}\r\nconnection: close\r\ncontent-type: application/json\r\n{head}\r\n"
    );
    stream.write_all(head.as_bytes()).unwrap();
    for part in body {
        // It may hang up before all is sent.
        if stream.write_all(&part).is_err() {
            break;
        }
    }
    let mut answer = [0; 12];
    let _ = stream.read_exact(&mut answer);
    String::from_utf8_lossy(&answer).into_owned()
}

/// One of each kind, at once; each must be refused, or be hung up on.
#[cfg(target_os = "linux")]
fn hostile_bodies(address: &str) {
    const BYTES: usize = 2 * 1024 * 1024;
    let sized = |body: String| {
        let head = format!("content-length: {}\r\n", body.len());
        (head, vec![body.into_bytes()])
    };
    let chunk = || format!("100000\r\n{}\r\n", "x".repeat(0x10_0000)).into_bytes();
    let bodies = [
        // More than any body may have: chunk after chunk, or as it was announced.
        ("transfer-encoding: chunked\r\n".to_owned(), std::iter::repeat_with(chunk).take(32).collect()),
        ("content-length: 10000000000\r\n".to_owned(), vec![vec![b' '; 16 * 1024 * 1024]]),
        // Deep, with a key again and again, and with a hundred thousand that nobody knows.
        sized("[".repeat(BYTES)),
        sized(format!("{{{}\"a\":1}}", "\"a\":1,".repeat(BYTES / 6))),
        sized(format!(
            "{{{}\"a\":1}}",
            (0..BYTES / 12).map(|key| format!("\"k{key}\":1,")).collect::<Vec<_>>().concat()
        )),
        sized(format!("{{\"handler\":\"{}", "\\u0041".repeat(BYTES / 6))),
    ];
    std::thread::scope(|scope| {
        for (head, parts) in bodies {
            scope.spawn(move || {
                let said = send_body(address, &head, parts.into_iter());
                let is_refused = said.starts_with("HTTP/1.1 4") || said.chars().all(|letter| letter == '\0');
                assert!(is_refused, "{head}: {said}");
            });
        }
    });
}

#[cfg(target_os = "linux")]
#[test]
fn hostile_bodies_leave_memory_as_it_was_and_others_unharmed() {
    const SLACK: u64 = 48 * 1024 * 1024;
    let mut served = Served::start(&[]);
    let round = || {
        hostile_bodies(&served.address);
        let (status, said) = served.ask("POST", "/v1/jobs", &[], r#"{"handler":"echo"}"#);
        assert_eq!(status, 201, "{said}");
    };
    // What is taken once (caches, threads, the allocator's own) is not what grows.
    for _ in 0..3 {
        round();
    }
    let before = resident_bytes(&served.child);
    for _ in 0..6 {
        round();
    }
    let after = resident_bytes(&served.child);
    assert!(after < before + SLACK, "{} MiB before, {} MiB after", before >> 20, after >> 20);
    assert_eq!(served.terminate(), 0);
}
