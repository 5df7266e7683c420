//! A server, and a client that says everything.

use std::fmt::Write as _;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use recache_cache::{Cache, CacheConfig};
use recache_engine::{Courier, Engine, Options, Posting, Reply};
use recache_server::{App, Auth, Settings, bind, serve};
use recache_store::conformance::{TestDatabase, postgres_database, sqlite_database};
use recache_store::{OpenOptions, Store, open};
use recache_worker::{BuildContext, Context, Failure, Handlers};
use serde_json::Value;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::task::JoinHandle;

use crate::described;

/// Sends nothing, and keeps what it was given. What ends in `/no` is refused, what ends in `/down` is answered with 503.
#[derive(Debug, Default)]
pub(crate) struct KeepingCourier(Mutex<Vec<Posting>>);

impl KeepingCourier {
    pub(crate) fn sent(&self) -> Vec<Posting> {
        self.0.lock().unwrap().clone()
    }
}

#[async_trait]
impl Courier for KeepingCourier {
    fn refuses(&self, url: &str, _: bool) -> Option<String> {
        url.ends_with("/no").then(|| "it is not a public address".to_owned())
    }

    async fn post(&self, posting: Posting) -> Result<Reply, String> {
        let status = if posting.url.ends_with("/down") { 503 } else { 204 };
        self.0.lock().unwrap().push(posting);
        Ok(Reply { status, retry_after: None })
    }
}

pub(crate) struct World {
    pub(crate) courier: Arc<KeepingCourier>,
    pub(crate) address: SocketAddr,
    pub(crate) store: Arc<dyn Store>,
    pub(crate) engine: Engine,
    pub(crate) app: App,
    serving: JoinHandle<Result<(), recache_server::Error>>,
    _database: TestDatabase,
}

/// An answer, taken apart.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) headers: Vec<(String, String)>,
    pub(crate) body: String,
}

impl Answer {
    pub(crate) fn read(text: &str) -> Self {
        let (head, body) = text.split_once("\r\n\r\n").unwrap_or_else(|| panic!("no whole answer: {text:?}"));
        let mut lines = head.lines();
        let status = lines.next().unwrap().split(' ').nth(1).unwrap().parse().unwrap();
        let headers = lines
            .filter_map(|line| line.split_once(':'))
            .map(|(name, value)| (name.to_ascii_lowercase(), value.trim().to_owned()))
            .collect();
        let mut answer = Self { status, headers, body: body.to_owned() };
        if answer.header("transfer-encoding") == Some("chunked") {
            answer.body = dechunk(&answer.body);
        }
        answer
    }

    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str())
    }

    pub(crate) fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }

    /// The document, of an answer that must be good.
    #[track_caller]
    pub(crate) fn expect(&self, status: u16) -> Value {
        assert_eq!(self.status, status, "{self:?}");
        if self.body.is_empty() { Value::Null } else { self.json() }
    }

    /// The code of a problem.
    #[track_caller]
    pub(crate) fn code(&self, status: u16) -> String {
        let problem = self.expect(status);
        assert_eq!(self.header("content-type"), Some("application/problem+json"), "{self:?}");
        assert_eq!(problem["status"], status, "{self:?}");
        assert_eq!(problem["request_id"].as_str(), self.header("x-request-id"), "{self:?}");
        problem["code"].as_str().unwrap().to_owned()
    }
}

fn dechunk(text: &str) -> String {
    let (mut rest, mut whole) = (text, String::new());
    while let Some((size, after)) = rest.split_once("\r\n") {
        let size = usize::from_str_radix(size, 16).unwrap();
        if size == 0 {
            break;
        }
        whole.push_str(&after[..size]);
        rest = &after[size + 2..];
    }
    whole
}

fn handlers() -> Handlers {
    let mut handlers = Handlers::new();
    handlers.job("echo", async |_: Context, input: Value| Ok(input)).unwrap();
    handlers
        .job("fail", async |_: Context, _: Value| {
            Err::<Value, _>(Failure::permanent("broken", "it is broken"))
        })
        .unwrap();
    handlers
        .job("nap", async |_: Context, ms: u64| {
            tokio::time::sleep(std::time::Duration::from_millis(ms)).await;
            Ok(ms)
        })
        .unwrap();
    handlers
        .view("counting", async |build: BuildContext| {
            build.put("same", None, &"x").await?;
            build.put("version", None, &build.version()).await?;
            Ok(())
        })
        .unwrap();
    handlers
}

impl World {
    pub(crate) async fn over(database: TestDatabase, settings: Settings) -> Self {
        Self::guarded(database, settings, Auth::default()).await
    }

    pub(crate) async fn guarded(database: TestDatabase, settings: Settings, auth: Auth) -> Self {
        Self::built(database, settings, auth, None).await
    }

    /// With a cache as it is configured; else with the engine's own, in this process.
    pub(crate) async fn built(
        database: TestDatabase,
        settings: Settings,
        auth: Auth,
        cache: Option<CacheConfig>,
    ) -> Self {
        let store = open(&OpenOptions::new(database.url())).await.unwrap();
        let courier = Arc::new(KeepingCourier::default());
        let mut builder = Engine::builder(store.clone());
        if let Some(config) = cache {
            builder = builder.cache(Cache::from_config(&config, Arc::new(recache_cache::SystemClock)));
        }
        let engine = builder
            .handlers(handlers())
            .courier(courier.clone())
            .options(Options {
                poll: std::time::Duration::from_millis(200),
                queues: vec!["default".to_owned(), "mail".to_owned()],
                ..Options::default()
            })
            .start()
            .await
            .unwrap();
        let app = App::new(engine.clone(), settings, auth);
        let listener = bind("127.0.0.1:0".parse().unwrap(), false).await.unwrap();
        let address = listener.local_addr().unwrap();
        let serving = tokio::spawn(serve(listener, app.clone(), None));
        Self { courier, address, store, engine, app, serving, _database: database }
    }

    pub(crate) async fn sqlite() -> Self {
        Self::over(sqlite_database(), Settings::default()).await
    }

    /// One for each database that can be had.
    pub(crate) async fn both() -> Vec<Self> {
        let mut worlds = vec![Self::sqlite().await];
        if let Some(database) = postgres_database().await {
            worlds.push(Self::over(database, Settings::default()).await);
        }
        worlds
    }

    pub(crate) async fn end(self) {
        self.app.stop().cancel();
        self.serving.await.unwrap().unwrap();
        self.engine.shut_down().await;
        self.store.close().await;
    }

    /// Sends these bytes and reads until the server hangs up.
    pub(crate) async fn raw(&self, bytes: &[u8]) -> String {
        let mut stream = TcpStream::connect(self.address).await.unwrap();
        // The server may answer and hang up before all is sent.
        let _ = stream.write_all(bytes).await;
        let mut answer = Vec::new();
        let _ = stream.read_to_end(&mut answer).await;
        String::from_utf8_lossy(&answer).into_owned()
    }

    /// Sends a request. The answer must be one that the description of the API has.
    pub(crate) async fn send(
        &self,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
        body: &str,
    ) -> Answer {
        let mut text = format!("{method} {path} HTTP/1.1\r\nhost: {}\r\nconnection: close\r\n", self.address);
        for (name, value) in headers {
            write!(text, "{name}: {value}\r\n").unwrap();
        }
        if !body.is_empty() {
            write!(text, "content-length: {}\r\n", body.len()).unwrap();
        }
        text.push_str("\r\n");
        text.push_str(body);
        let answer = Answer::read(&self.raw(text.as_bytes()).await);
        described::hold(method, path, &answer);
        answer
    }

    pub(crate) async fn get(&self, path: &str) -> Answer {
        self.send("GET", path, &[], "").await
    }

    pub(crate) async fn post(&self, path: &str, body: &str) -> Answer {
        self.send("POST", path, &[("content-type", "application/json")], body).await
    }

    pub(crate) async fn post_once(&self, key: &str, path: &str, body: &str) -> Answer {
        let headers = [("content-type", "application/json"), ("idempotency-key", key)];
        self.send("POST", path, &headers, body).await
    }
}
