//! Real processes: nodes of the server, and workers.

use std::io::{BufRead as _, BufReader};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use serde_json::{Value, json};
use tokio::time::Instant;

/// Nothing here takes this long, even where other programs want both cores.
const LIMIT: Duration = Duration::from_secs(60);

/// A process that ends with its test.
pub(crate) struct Process(Child);

impl Process {
    pub(crate) fn signal(&self, name: &str) {
        let done = Command::new("kill").args([&format!("-{name}"), &self.0.id().to_string()]).status();
        assert!(done.unwrap().success(), "the process is there to get {name}");
    }

    /// Waits until it ends by itself.
    pub(crate) async fn ended(mut self) -> Option<i32> {
        let child = &mut self.0;
        until("the process ends", async || child.try_wait().unwrap()).await.code()
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// `recache serve`.
pub(crate) struct Node {
    pub(crate) process: Process,
    pub(crate) address: SocketAddr,
}

impl Node {
    pub(crate) fn start(database: &str) -> Self {
        let mut child = Command::new(env!("CARGO_BIN_EXE_recache"))
            .args(["serve", "--database", database])
            .env("RECACHE__SERVER__ADDRESS", "127.0.0.1:0")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(child.stderr.take().unwrap()).lines();
        let mut said = Vec::new();
        let address = loop {
            let Some(line) = lines.next() else { panic!("the server did not start: {said:?}") };
            let line = line.unwrap();
            if let Some((_, rest)) = line.split_once("http://") {
                break rest.split('/').next().unwrap().parse().unwrap();
            }
            said.push(line);
        };
        // What it says later is read, so that it never waits for a reader.
        std::thread::spawn(move || lines.for_each(drop));
        Self { process: Process(child), address }
    }

    async fn ask(&self, method: reqwest::Method, path: &str, body: Option<&Value>) -> Value {
        let client = reqwest::Client::new();
        let mut request = client.request(method, format!("http://{}{path}", self.address)).timeout(LIMIT);
        if let Some(body) = body {
            request = request.json(body);
        }
        let answer = request.send().await.unwrap();
        let (status, text) = (answer.status(), answer.text().await.unwrap());
        assert!(status.is_success(), "{path}: {status} {text}");
        serde_json::from_str(&text).unwrap()
    }

    pub(crate) async fn submit(&self, handler: &str, input: &Value) -> String {
        let retry = json!({ "attempts_max": 5, "backoff": "none", "base_ms": 0, "cap_ms": 0, "jitter": 0.0 });
        let job = json!({ "handler": handler, "input": input, "retry": retry });
        let done = self.ask(reqwest::Method::POST, "/v1/jobs", Some(&job)).await;
        done["id"].as_str().unwrap().to_owned()
    }

    pub(crate) async fn job(&self, id: &str) -> Value {
        self.ask(reqwest::Method::GET, &format!("/v1/jobs/{id}"), None).await
    }

    pub(crate) async fn cancel(&self, id: &str) {
        self.ask(reqwest::Method::POST, &format!("/v1/jobs/{id}/cancel"), Some(&json!({}))).await;
    }

    /// How many there are besides the nodes themselves.
    pub(crate) async fn workers(&self) -> usize {
        let listed = self.ask(reqwest::Method::GET, "/v1/workers", None).await;
        listed["workers"].as_array().unwrap().iter().filter(|worker| worker["is_remote"] == true).count()
    }

    /// The job, once it is in this state.
    pub(crate) async fn job_in(&self, id: &str, state: &str) -> Value {
        until(&format!("{id} is {state}"), async || {
            let details = self.job(id).await;
            (details["job"]["state"] == state).then_some(details)
        })
        .await
    }
}

/// How often a job's history says that it completed.
pub(crate) fn completions(details: &Value) -> usize {
    details["history"].as_array().unwrap().iter().filter(|row| row["to"] == "completed").count()
}

fn examples() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../examples/workers")
}

/// A worker of the examples, for servers at these addresses. `None`, and loud, where its language is not there; under CI that is
/// a failure.
pub(crate) fn worker(file: &str, servers: &[SocketAddr]) -> Option<Process> {
    let php = std::env::var("RECACHE_TEST_PHP").unwrap_or_else(|_| "php".to_owned());
    let program = match file.rsplit('.').next().unwrap() {
        "py" => "python3",
        "php" => &php,
        _ => "bash",
    };
    let needs: &[&str] = if program == "bash" { &["bash", "curl", "jq"] } else { &[program] };
    for needed in needs {
        if Command::new(needed).arg("--version").stdout(Stdio::null()).stderr(Stdio::null()).status().is_err()
        {
            assert!(std::env::var_os("CI").is_none(), "{needed} is missing");
            eprintln!("SKIPPED: {needed} is missing, so {file} is not tried; install it");
            return None;
        }
    }
    let urls: Vec<String> = servers.iter().map(|address| format!("http://{address}")).collect();
    let child = Command::new(program)
        .arg(examples().join(file))
        .env("RECACHE_URL", urls.join(","))
        .stdin(Stdio::null())
        .spawn()
        .unwrap();
    Some(Process(child))
}

/// `recache worker`, for servers at these addresses.
pub(crate) fn built_in_worker(servers: &[SocketAddr], variables: &[(&str, &str)]) -> Process {
    let mut command = Command::new(env!("CARGO_BIN_EXE_recache"));
    command.arg("worker").envs(variables.iter().copied());
    for address in servers {
        command.args(["--server", &format!("http://{address}")]);
    }
    Process(command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap())
}

/// Waits until `look` finds something; says what it waited for when it never comes.
pub(crate) async fn until<T>(what: &str, mut look: impl AsyncFnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + LIMIT;
    loop {
        if let Some(found) = look().await {
            return found;
        }
        assert!(Instant::now() < deadline, "in vain: {what}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}
