//! A server that runs with all of it, at work: everything that it says, answers and sends.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::TcpStream;
use std::process::{Child, Stdio};
use std::sync::{Arc, Mutex};

use recache_faultproxy::{Error, ServerProcess};
use recache_store::conformance::{TestDatabase, postgres_database};
use serde_json::{Value, json};
use sqlx::Connection as _;

use crate::receiver::Receiver;
use crate::{PLANTED, assert_hidden, recache, said};

/// `recache serve` that keeps all that it says.
pub(crate) struct Served {
    child: Child,
    address: String,
    said: Arc<Mutex<String>>,
    reading: Option<std::thread::JoinHandle<()>>,
    folder: tempfile::TempDir,
}

impl Served {
    pub(crate) fn start(variables: &[(&str, &str)]) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let mut variables = variables.to_vec();
        variables.extend([("RECACHE__SERVER__ADDRESS", "127.0.0.1:0"), ("RECACHE__LOG__LEVEL", "trace")]);
        let mut command = recache(folder.path(), &["serve"], &variables);
        let mut child = command.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
        let mut lines = BufReader::new(child.stderr.take().unwrap()).lines();
        let said = Arc::new(Mutex::new(String::new()));
        let keep = |said: &Mutex<String>, line: &str| {
            let mut said = said.lock().unwrap();
            said.push_str(line);
            said.push('\n');
        };
        let address = loop {
            let line = lines.next().unwrap_or_else(|| panic!("it starts: {}", said.lock().unwrap())).unwrap();
            keep(&said, &line);
            if let Some((_, rest)) = line.split_once("health on http://") {
                break rest.split('/').next().unwrap().to_owned();
            }
        };
        let keeping = Arc::clone(&said);
        let reading =
            std::thread::spawn(move || lines.map_while(Result::ok).for_each(|line| keep(&keeping, &line)));
        Self { child, address, said, reading: Some(reading), folder }
    }

    /// The whole answer; looked at.
    #[track_caller]
    pub(crate) fn ask(&self, method: &str, path: &str, header: &str, body: &str) -> String {
        let mut stream = TcpStream::connect(&self.address).unwrap();
        let header = if header.is_empty() { String::new() } else { format!("{header}\r\n") };
        let head =
            format!("{method} {path} HTTP/1.1\r\nhost: {}\r\nconnection: close\r\n{header}", self.address);
        let body = format!("content-type: application/json\r\ncontent-length: {}\r\n\r\n{body}", body.len());
        stream.write_all(format!("{head}{body}").as_bytes()).unwrap();
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).unwrap();
        String::from_utf8_lossy(&answer).into_owned()
    }

    fn hidden(&self, method: &str, path: &str, header: &str, body: &str) -> String {
        let answer = self.ask(method, path, header, body);
        assert_hidden(path, &answer);
        answer
    }

    /// Tells it to stop; all that it said.
    pub(crate) fn end(mut self) -> String {
        let told = std::process::Command::new("kill").args(["-TERM", &self.child.id().to_string()]).status();
        assert!(told.unwrap().success());
        assert!(self.child.wait().unwrap().success());
        self.reading.take().unwrap().join().unwrap();
        let said = self.said.lock().unwrap().clone();
        assert!(said.contains("stopping"), "the whole log is here");
        said
    }
}

impl Drop for Served {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn token(claims: &Value) -> String {
    use jsonwebtoken::{EncodingKey, Header, encode};
    encode(&Header::default(), claims, &EncodingKey::from_secret(PLANTED.as_bytes())).unwrap()
}

/// A database on the test's PostgreSQL with a role of its own, whose password is what is planted; SQLite where there is none.
async fn database() -> (Option<TestDatabase>, String) {
    let Some(database) = postgres_database().await else { return (None, "sqlite:s.db".to_owned()) };
    let role = format!("planted_{}", std::process::id());
    let mut server = sqlx::PgConnection::connect(database.url()).await.unwrap();
    // Neither name nor password holds a quote.
    let made = format!("CREATE ROLE {role} LOGIN SUPERUSER PASSWORD '{PLANTED}'");
    sqlx::query(sqlx::AssertSqlSafe(made)).execute(&mut server).await.unwrap();
    let (scheme, rest) = database.url().split_once("://").unwrap();
    let place = rest.rsplit_once('@').map_or(rest, |(_, place)| place);
    let url = format!("{scheme}://{role}:{PLANTED}@{place}");
    (Some(database), url)
}

#[tokio::test(flavor = "multi_thread")]
async fn server_at_work_says_none_of_its_secrets() {
    let redis = ServerProcess::redis()
        .args(["--requirepass", PLANTED])
        .ready_when("PING\r\n", "-NOAUTH")
        .start()
        .await;
    let redis = match redis {
        Ok(redis) => redis,
        Err(missing @ Error::Missing { .. }) => {
            assert!(std::env::var_os("CI").is_none(), "{missing}");
            eprintln!("SKIPPED: {missing}");
            return;
        }
        Err(error) => panic!("{error}"),
    };
    let collector = Receiver::start();
    let (collector_url, redis_url) = (collector.url(""), format!("redis://:{PLANTED}@{}", redis.address()));
    let authorization = format!("Bearer {PLANTED}");
    let (_database, database) = database().await;
    // Everything that can be there at once, and is right.
    let variables = [
        ("RECACHE__AUTH__API_KEYS", "true"),
        ("RECACHE__AUTH__JWT__ISSUER", "https://issuer"),
        ("RECACHE__AUTH__JWT__AUDIENCE", "recache"),
        ("RECACHE__AUTH__JWT__ALGORITHMS", "HS256"),
        ("RECACHE__AUTH__JWT__SECRET", PLANTED),
        ("RECACHE__DATABASE__URL", database.as_str()),
        ("RECACHE__COMMON__CACHE__ENABLED", "true"),
        ("RECACHE__COMMON__CACHE__BACKEND", "redis"),
        ("RECACHE__COMMON__CACHE__REDIS__URL", redis_url.as_str()),
        ("RECACHE__TELEMETRY__OTLP_ENDPOINT", collector_url.as_str()),
        ("RECACHE__TELEMETRY__AUTHORIZATION", authorization.as_str()),
        ("RECACHE__TELEMETRY__FIGURES_EVERY_SECONDS", "1"),
        ("RECACHE__OUTBOUND__ALLOW_PRIVATE_ADDRESSES", "true"),
        ("RECACHE__SERVER__BUILTIN_HANDLERS", "all"),
    ];
    let served = Served::start(&variables);
    let bearer = token(
        &json!({ "iss": "https://issuer", "aud": "recache", "sub": "alice", "exp": 4_000_000_000_u64, "scope": "*:*" }),
    );
    let bearer = format!("authorization: Bearer {bearer}");
    for path in [
        "/health",
        "/health/ready",
        "/health/live",
        "/health/detailed",
        "/metrics",
        "/v1/openapi.json",
        "/docs",
        "/v1/cache",
        "/v1/cache/stats",
        "/v1/cache/health",
        "/v1/audit",
        "/v1/workers",
        "/v1/nothing",
        "/v1/jobs?limit=x",
        "/v1/events/kept",
    ] {
        served.hidden("GET", path, &bearer, "");
    }
    let health = served.hidden("GET", "/v1/cache/health", &bearer, "");
    assert!(health.contains("active"), "the password is right: {health}");
    served.hidden("POST", "/v1/jobs", &bearer, "{");
    served.hidden("POST", "/v1/jobs", &bearer, &format!("{{\"handler\":\"echo\",\"input\":\"{PLANTED}\"}}"));

    // A step that sends a secret, to nobody.
    let input = json!({ "url": format!("http://127.0.0.1:1/?key={PLANTED}"), "headers": { "authorization": PLANTED } });
    let job = json!({ "handler": "http", "input": input, "retry": { "attempts_max": 1 } });
    let submitted = served.hidden("POST", "/v1/jobs", &bearer, &job.to_string());
    let id = submitted.split("\"id\":\"").nth(1).expect(&submitted).split('"').next().unwrap().to_owned();
    let ended = served.ask("GET", &format!("/v1/jobs/{id}"), &format!("{bearer}\r\nprefer: wait=20"), "");
    let ended: Value = serde_json::from_str(ended.split_once("\r\n\r\n").unwrap().1).unwrap();
    assert_eq!(ended["job"]["state"], "failed", "{ended}");
    assert_hidden("the error of a step", &ended["attempts"].to_string());
    assert_hidden("the error of a job", &ended["job"]["error"].to_string());

    // A webhook whose receiver is away, with a secret in its address; its own secret is told once.
    let hook = json!({ "name": "shop", "url": format!("https://127.0.0.1:1/hook?key={PLANTED}"), "types": ["job.*"] });
    let added = served.ask("POST", "/v1/webhooks", &bearer, &hook.to_string());
    let secret = added.split("whsec_").nth(1).map(|rest| rest.split('"').next().unwrap().to_owned());
    let secret = secret.unwrap_or_else(|| panic!("it is shown once: {added}"));
    for path in ["/v1/webhooks", "/v1/webhooks/shop", "/v1/webhooks/shop/deliveries"] {
        let answer = served.ask("GET", path, &bearer, "");
        assert!(answer.starts_with("HTTP/1.1 200") && !answer.contains(&secret), "{answer}");
    }
    served.hidden("POST", "/v1/jobs", &bearer, r#"{"handler":"echo"}"#);

    let others = &variables[5..11];
    for command in [
        &["doctor"][..],
        &["doctor", "-o", "json"],
        &["config", "explain"],
        &["cache", "stats"],
        &["webhook", "list"],
    ] {
        let output = recache(served.folder.path(), command, others).output().unwrap();
        let text = crate::text(&output);
        assert!(!text.contains(&secret), "{text}");
        if command[0] != "webhook" {
            said(served.folder.path(), command, others);
        }
    }
    // Spans, figures and log lines have been sent by now.
    until_three_kinds(&collector);
    let log = served.end();
    assert_hidden("the log", &log);
    assert!(!log.contains(&secret), "the log shows a webhook's secret");
    for sent in collector.requests() {
        assert_eq!(
            sent.header("authorization"),
            Some(authorization.as_str()),
            "the collector is told who sends"
        );
        assert_hidden(&sent.path, &sent.body);
    }
}

fn until_three_kinds(collector: &Receiver) {
    let mut kinds = std::collections::BTreeSet::new();
    while kinds.len() < 3 {
        kinds.insert(collector.next().path);
    }
}
