//! Clients that submit all the time, each request with a key, and repeat it at one node after the other until it is answered.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use reqwest::StatusCode;
use serde_json::{Value, json};
use tokio::task::JoinSet;
use tokio::time::Instant;

/// A client waits no longer for one node: the others may be better.
const NODE_WITHIN: Duration = Duration::from_secs(2);
/// A request that is not answered by then has failed, as its caller sees it.
const ANSWER_WITHIN: Duration = Duration::from_secs(20);
const PAUSE: Duration = Duration::from_millis(30);
/// Between two requests of a client.
const BETWEEN: Duration = Duration::from_millis(40);
const CLIENTS: u64 = 4;

pub(crate) const TEMPLATE: &str = "name: pair\nversion: 1.0.0\nsteps:\n  - name: first\n    handler: { callable: echo }\n  \
- name: second\n    handler: { callable: echo }\n    dependencies: [first]\n";

/// What was answered.
#[derive(Debug, Clone)]
pub(crate) struct Acknowledged {
    pub(crate) id: String,
    pub(crate) asked: Asked,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Asked {
    /// Of a handler in the nodes.
    Echo(u64),
    /// Of a handler in the nodes that takes a while.
    Sleep,
    /// Of a worker elsewhere.
    Double(u64),
    /// Of the template.
    Workflow,
}

impl Asked {
    fn of(number: u64) -> Self {
        match number % 10 {
            0..4 => Self::Echo(number),
            4 => Self::Sleep,
            5..8 => Self::Double(number),
            _ => Self::Workflow,
        }
    }

    fn request(self) -> (&'static str, Value) {
        let retry = json!({ "attempts_max": 8, "backoff": "none", "base_ms": 0, "cap_ms": 0, "jitter": 0.0 });
        let job = |handler: &str, input: Value| json!({ "handler": handler, "input": input, "retry": retry });
        match self {
            Self::Echo(number) => ("/v1/jobs", job("echo", json!(number))),
            Self::Sleep => ("/v1/jobs", job("sleep", json!({ "milliseconds": 1200 }))),
            Self::Double(number) => ("/v1/jobs", job("double", json!(number))),
            Self::Workflow => ("/v1/workflows", json!({ "template": "pair" })),
        }
    }
}

/// What the clients saw.
#[derive(Debug, Default)]
pub(crate) struct Seen {
    pub(crate) acknowledged: Mutex<Vec<Acknowledged>>,
    /// Requests that their callers saw fail, and why.
    pub(crate) failed: Mutex<Vec<String>>,
    pub(crate) repeated: AtomicU64,
    pub(crate) slowest: Mutex<Duration>,
}

impl Seen {
    fn note_time(&self, took: Duration) {
        let mut slowest = self.slowest.lock().unwrap();
        *slowest = (*slowest).max(took);
    }
}

pub(crate) struct Load {
    pub(crate) seen: Arc<Seen>,
    enough: Arc<AtomicBool>,
    clients: JoinSet<()>,
}

impl Load {
    pub(crate) fn start(nodes: &[SocketAddr]) -> Self {
        let (seen, enough) = (Arc::<Seen>::default(), Arc::<AtomicBool>::default());
        let mut clients = JoinSet::new();
        for client in 0..CLIENTS {
            let (seen, enough, nodes) = (Arc::clone(&seen), Arc::clone(&enough), nodes.to_vec());
            clients.spawn(async move {
                let mut caller = Caller::new(nodes, client);
                let mut number = client;
                while !enough.load(Ordering::Relaxed) {
                    let asked = Asked::of(number / CLIENTS + client);
                    let (path, body) = asked.request();
                    let began = Instant::now();
                    match caller.until_answered(path, &format!("load-{number}"), &body, &seen.repeated).await
                    {
                        Ok(answer) => {
                            let id = match asked {
                                Asked::Workflow => &answer["workflow"]["id"],
                                _ => &answer["id"],
                            };
                            let id = id.as_str().or_else(|| answer["id"].as_str()).expect("an id").to_owned();
                            seen.acknowledged.lock().unwrap().push(Acknowledged { id, asked });
                        }
                        Err(why) => seen.failed.lock().unwrap().push(format!("{asked:?}: {why}")),
                    }
                    seen.note_time(began.elapsed());
                    number += CLIENTS;
                    tokio::time::sleep(BETWEEN).await;
                }
            });
        }
        Self { seen, enough, clients }
    }

    /// No more requests; those that are under way are answered.
    pub(crate) async fn end(self) -> Arc<Seen> {
        self.enough.store(true, Ordering::Relaxed);
        self.clients.join_all().await;
        self.seen
    }
}

/// A client that knows all nodes.
pub(crate) struct Caller {
    http: reqwest::Client,
    nodes: Vec<SocketAddr>,
    place: usize,
}

impl Caller {
    pub(crate) fn new(nodes: Vec<SocketAddr>, number: u64) -> Self {
        let place = usize::try_from(number).unwrap() % nodes.len();
        Self { http: reqwest::Client::new(), nodes, place }
    }

    /// Says why when there is no good answer in time, or one that repeating cannot make better.
    pub(crate) async fn until_answered(
        &mut self,
        path: &str,
        key: &str,
        body: &Value,
        repeated: &AtomicU64,
    ) -> Result<Value, String> {
        let deadline = Instant::now() + ANSWER_WITHIN;
        let mut why;
        loop {
            match self.ask(path, key, body).await {
                Ok(answer) => return Ok(answer),
                Err((said, true)) => why = said,
                Err((said, false)) => return Err(said),
            }
            if Instant::now() > deadline {
                return Err(format!("not answered within {ANSWER_WITHIN:?}; at last: {why}"));
            }
            repeated.fetch_add(1, Ordering::Relaxed);
            self.place = (self.place + 1) % self.nodes.len();
            tokio::time::sleep(PAUSE).await;
        }
    }

    /// The error says whether it may go better.
    async fn ask(&self, path: &str, key: &str, body: &Value) -> Result<Value, (String, bool)> {
        let url = format!("http://{}{path}", self.nodes[self.place]);
        let asking = self.http.post(url).timeout(NODE_WITHIN).header("idempotency-key", key).json(body);
        let answer = asking.send().await.map_err(|error| (format!("{error:?}"), true))?;
        let status = answer.status();
        let text = answer.text().await.map_err(|error| (format!("{error:?}"), true))?;
        if status.is_success() {
            return serde_json::from_str(&text).map_err(|error| (format!("{error}: {text}"), false));
        }
        let passes = matches!(
            status,
            StatusCode::TOO_MANY_REQUESTS
                | StatusCode::BAD_GATEWAY
                | StatusCode::SERVICE_UNAVAILABLE
                | StatusCode::GATEWAY_TIMEOUT
        ) || text.contains("\"in_progress\"");
        Err((format!("{status} {text}"), passes))
    }
}
