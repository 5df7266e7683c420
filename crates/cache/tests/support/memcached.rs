//! memcached processes of a test's own, on free loopback ports, ended by their process ids; and small servers in front of
//! them that behave in ways in which memcached does not on demand.

use std::io::{BufRead, BufReader, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use recache_cache::config::MemcachedServer;
use recache_cache::provider::{Memcached, MemcachedSettings};
use recache_cache::{Clock, KeyPrefix, Provider, SystemClock};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

/// How long a test waits for what must happen.
pub(crate) const PATIENCE: Duration = Duration::from_secs(20);

/// A real memcached. Ends with the value.
#[derive(Debug)]
pub(crate) struct Server {
    port: u16,
    options: Vec<String>,
    process: Mutex<Option<Child>>,
}

impl Server {
    pub(crate) fn start(options: &[&str]) -> Self {
        let options: Vec<_> = options.iter().map(|option| (*option).to_owned()).collect();
        for _ in 0..10 {
            let server = Self { port: free_port(), options: options.clone(), process: Mutex::default() };
            // Somebody else may have taken the port.
            if server.run() {
                return server;
            }
        }
        panic!(
            "memcached does not start; `apt-get install memcached`, or run the tests by `cargo xtask test`"
        )
    }

    /// Takes over a port that is known to be free.
    pub(crate) fn start_on(port: u16, options: &[&str]) -> Self {
        let options = options.iter().map(|option| (*option).to_owned()).collect();
        let server = Self { port, options, process: Mutex::default() };
        assert!(server.run(), "memcached does not start on port {port}");
        server
    }

    /// A port on which nothing listens yet; [`run`](Self::run) starts the server.
    pub(crate) fn later() -> Self {
        Self { port: free_port(), options: Vec::new(), process: Mutex::default() }
    }

    /// Whether it runs and answers now.
    pub(crate) fn run(&self) -> bool {
        let process = Command::new("memcached")
            .args(["-l", "127.0.0.1", "-U", "0", "-t", "2", "-u", "nobody", "-p", &self.port.to_string()])
            .args(&self.options)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn();
        let Ok(process) = process else { return false };
        let mut slot = self.process.lock().unwrap();
        *slot = Some(process);
        for _ in 0..200 {
            if TcpStream::connect(self.address()).is_ok() {
                return slot.as_mut().unwrap().try_wait().unwrap().is_none();
            }
            pause(Duration::from_millis(20));
        }
        false
    }

    /// `kill -9`
    pub(crate) fn kill(&self) {
        if let Some(mut process) = self.process.lock().unwrap().take() {
            // It may be frozen, which does not save it from this.
            let _ = process.kill();
            let _ = process.wait();
        }
    }

    /// Returns when it stands still: the signal is only asked for by the one who sends it, and every thread stops by itself.
    pub(crate) fn freeze(&self) {
        self.signal("STOP");
        let tasks = format!("/proc/{}/task", self.id());
        let is_stopped = |task: std::io::Result<std::fs::DirEntry>| {
            let stat = std::fs::read_to_string(task.unwrap().path().join("stat")).unwrap_or_default();
            stat.rsplit_once(") ").is_none_or(|(_, state)| state.starts_with('T'))
        };
        // Bounded, for systems that have no such folder.
        for _ in 0..100_000 {
            if std::fs::read_dir(&tasks).is_ok_and(|mut tasks| tasks.all(is_stopped)) {
                return;
            }
            std::thread::yield_now();
        }
    }

    pub(crate) fn thaw(&self) {
        self.signal("CONT");
    }

    fn id(&self) -> u32 {
        self.process.lock().unwrap().as_ref().unwrap().id()
    }

    fn signal(&self, signal: &str) {
        assert!(
            Command::new("kill").args(["-s", signal, &self.id().to_string()]).status().unwrap().success()
        );
    }

    pub(crate) fn port(&self) -> u16 {
        self.port
    }

    pub(crate) fn address(&self) -> SocketAddr {
        SocketAddr::from(([127, 0, 0, 1], self.port))
    }

    pub(crate) fn as_configured(&self) -> MemcachedServer {
        MemcachedServer::new("127.0.0.1", self.port)
    }

    pub(crate) fn provider(&self) -> Memcached {
        provider(&[self.port], Arc::new(SystemClock), "p")
    }

    /// Says `command` as it is, and gives back the lines of the answer up to one that begins with a word of `until`.
    pub(crate) fn say(&self, command: &[u8], until: &[&str]) -> Vec<String> {
        let mut stream = TcpStream::connect(self.address()).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream.write_all(command).unwrap();
        let mut lines = Vec::new();
        let mut reader = BufReader::new(stream);
        loop {
            let mut line = Vec::new();
            assert!(reader.read_until(b'\n', &mut line).unwrap() > 0, "the server closed the connection");
            lines.push(String::from_utf8_lossy(&line).trim_end().to_owned());
            let first = lines.last().unwrap().split(' ').next().unwrap();
            if until.contains(&first) {
                return lines;
            }
        }
    }

    /// Seconds that an item will live, -1 for ever, `None` when there is none.
    pub(crate) fn ttl(&self, key: &str) -> Option<i64> {
        let lines = self.say(format!("mg {key} t\r\n").as_bytes(), &["HD", "EN"]);
        lines[0].strip_prefix("HD t").map(|ttl| ttl.parse().unwrap())
    }

    pub(crate) fn stat(&self, name: &str) -> u64 {
        let lines = self.say(b"stats\r\n", &["END"]);
        let line = lines.iter().find_map(|line| line.strip_prefix(&format!("STAT {name} "))).unwrap();
        line.parse().unwrap()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.kill();
    }
}

fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

#[expect(clippy::disallowed_methods, reason = "a process tells nobody that it has begun to listen")]
fn pause(time: Duration) {
    std::thread::sleep(time);
}

pub(crate) fn provider(ports: &[u16], clock: Arc<dyn Clock>, prefix: &str) -> Memcached {
    provider_of(ports, 10, clock, prefix)
}

pub(crate) fn provider_of(
    ports: &[u16],
    max_connections: u32,
    clock: Arc<dyn Clock>,
    prefix: &str,
) -> Memcached {
    let settings = MemcachedSettings {
        servers: ports.iter().map(|port| MemcachedServer::new("127.0.0.1", *port)).collect(),
        max_connections,
        connection_timeout: Duration::from_secs(5),
        clock,
    };
    Memcached::new(settings, &KeyPrefix::new(prefix))
}

/// Waits until it is healthy.
pub(crate) async fn connected(provider: Memcached) -> Memcached {
    until(async || provider.health().await.is_ok()).await;
    provider
}

/// Asks again and again until it is so.
pub(crate) async fn until(condition: impl AsyncFn() -> bool) {
    let asking = async {
        while !condition().await {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    assert!(tokio::time::timeout(PATIENCE, asking).await.is_ok(), "it does not come about");
}

/// What a front does with the commands of a client.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Front {
    /// Knows no meta commands: answers `ERROR` to `mn`, and passes on what comes after.
    Old,
    /// Passes on all, and counts how often it has to wait for more commands: the round trips of one connection.
    Counting,
    /// Holds back every answer until so many lines have come, in each exchange up to its own sum.
    UntilSent(&'static [usize]),
    /// Accepts and says nothing.
    Silent,
    /// Answers whatever comes with nonsense.
    Nonsense,
}

/// The greeting and the probe come first, of a handful of commands each.
const GREETING_LINES_MAX: usize = 40;

/// A server in front of another one.
#[derive(Debug)]
pub(crate) struct Fronted {
    pub(crate) port: u16,
    pub(crate) turns: Arc<AtomicU64>,
    task: tokio::task::JoinHandle<()>,
}

impl Fronted {
    pub(crate) async fn start(front: Front, behind: SocketAddr) -> Self {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let turns = Arc::new(AtomicU64::new(0));
        let counted = Arc::clone(&turns);
        let task = tokio::spawn(async move {
            loop {
                let (client, _) = listener.accept().await.unwrap();
                tokio::spawn(serve(front, client, behind, Arc::clone(&counted)));
            }
        });
        Self { port, turns, task }
    }
}

impl Drop for Fronted {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn serve(front: Front, mut client: tokio::net::TcpStream, behind: SocketAddr, turns: Arc<AtomicU64>) {
    let mut first = [0; 4];
    match front {
        Front::Silent => {
            let mut rest = Vec::new();
            let _ = client.read_to_end(&mut rest).await;
            return;
        }
        Front::Nonsense => {
            let mut bytes = [0; 1_000];
            while client.read(&mut bytes).await.is_ok_and(|count| count > 0) {
                let _ = client.write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n").await;
            }
            return;
        }
        Front::Old => {
            if client.read_exact(&mut first).await.is_err() {
                return;
            }
            assert_eq!(&first, b"mn\r\n", "an old server is asked once, and first");
            client.write_all(b"ERROR\r\n").await.unwrap();
        }
        Front::Counting | Front::UntilSent(_) => {}
    }
    let Ok(mut server) = tokio::net::TcpStream::connect(behind).await else { return };
    let (mut from_client, mut to_client) = client.split();
    let (mut from_server, mut to_server) = server.split();
    let held = tokio::sync::watch::Sender::new(0_usize);
    let up = async {
        let mut bytes = vec![0; 1 << 20];
        loop {
            let count = from_client.read(&mut bytes).await.unwrap_or(0);
            if count == 0 {
                break;
            }
            turns.fetch_add(1, Ordering::SeqCst);
            let lines = bytes[..count].split(|byte| *byte == b'\n').count() - 1;
            held.send_modify(|sent| *sent += lines);
            if to_server.write_all(&bytes[..count]).await.is_err() {
                break;
            }
        }
        let _ = to_server.shutdown().await;
    };
    let down = async {
        let mut bytes = vec![0; 1 << 20];
        let mut hold = held.subscribe();
        let mut is_greeted = false;
        loop {
            let count = from_server.read(&mut bytes).await.unwrap_or(0);
            if count == 0 {
                break;
            }
            if let Front::UntilSent(sums) = front
                && (is_greeted || *hold.borrow() > GREETING_LINES_MAX)
            {
                is_greeted = true;
                let is_sent =
                    |sent: &usize| sums.iter().any(|sum| (*sum..=sum + GREETING_LINES_MAX).contains(sent));
                hold.wait_for(is_sent).await.unwrap();
            }
            if to_client.write_all(&bytes[..count]).await.is_err() {
                break;
            }
        }
        let _ = to_client.shutdown().await;
    };
    tokio::join!(up, down);
}
