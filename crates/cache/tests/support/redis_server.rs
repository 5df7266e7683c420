//! A real `redis-server` of the test's own: a free port, a folder that is thrown away, ended by its process id.
#![allow(dead_code, reason = "no file of tests uses all of it")]

use std::fs;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use redis::aio::MultiplexedConnection;
use redis::{AsyncConnectionConfig, FromRedisValue};
use tempfile::TempDir;
use tokio::time::{Instant, sleep};

/// How long a server may take until it answers.
const START_WITHIN: Duration = Duration::from_secs(20);

#[derive(Debug)]
pub(crate) struct RedisServer {
    child: Child,
    port: u16,
    folder: TempDir,
    arguments: Vec<String>,
}

impl RedisServer {
    pub(crate) async fn start() -> Self {
        Self::start_with(&[]).await
    }

    /// With further options, as on its command line.
    pub(crate) async fn start_with(options: &[&str]) -> Self {
        let server = Self::spawn(free_port(), options);
        server.wait_until_ready().await;
        server
    }

    /// Started, and perhaps not ready yet.
    pub(crate) fn spawn(port: u16, options: &[&str]) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let arguments: Vec<_> = options.iter().map(|&option| option.to_owned()).collect();
        let child = launch(port, folder.path(), &arguments);
        Self { child, port, folder, arguments }
    }

    pub(crate) fn port(&self) -> u16 {
        self.port
    }

    pub(crate) fn url(&self) -> String {
        format!("redis://127.0.0.1:{}", self.port)
    }

    pub(crate) fn folder(&self) -> &Path {
        self.folder.path()
    }

    pub(crate) async fn wait_until_ready(&self) {
        let deadline = Instant::now() + START_WITHIN;
        while !self.answers().await {
            assert!(Instant::now() < deadline, "redis-server on port {} does not start", self.port);
            sleep(Duration::from_millis(10)).await;
        }
    }

    async fn answers(&self) -> bool {
        let Ok(mut connection) = self.try_connect().await else { return false };
        match redis::cmd("PING").query_async::<String>(&mut connection).await {
            Ok(_) => true,
            Err(error) => error.code() == Some("NOAUTH"),
        }
    }

    async fn try_connect(&self) -> redis::RedisResult<MultiplexedConnection> {
        let config = AsyncConnectionConfig::new().set_response_timeout(Some(Duration::from_secs(10)));
        redis::Client::open(self.url())?.get_multiplexed_async_connection_with_config(&config).await
    }

    /// For the test to look into the server, or to change its settings.
    pub(crate) async fn connect(&self) -> MultiplexedConnection {
        self.try_connect().await.unwrap()
    }

    pub(crate) async fn ask<T: FromRedisValue>(&self, command: &[&str]) -> T {
        self.try_ask(command).await.unwrap()
    }

    pub(crate) async fn try_ask<T: FromRedisValue>(&self, command: &[&str]) -> redis::RedisResult<T> {
        let mut connection = self.try_connect().await?;
        let (name, arguments) = command.split_first().unwrap();
        redis::cmd(name).arg(arguments).query_async(&mut connection).await
    }

    pub(crate) fn kill(&mut self) {
        let _ = self.child.kill();
        self.child.wait().unwrap();
    }

    /// Ended as an operator ends it: what its settings keep is kept.
    pub(crate) async fn shut_down(&mut self) {
        let _: redis::RedisResult<()> = self.try_ask(&["SHUTDOWN", "SAVE"]).await;
        self.child.wait().unwrap();
    }

    /// Again on the same port, with the same folder.
    pub(crate) async fn start_again(&mut self) {
        self.child = launch(self.port, self.folder.path(), &self.arguments);
        self.wait_until_ready().await;
    }

    /// Stopped, not ended: its connections stay and nothing comes from it. Returns when it stands still: the signal is only asked for by the one who sends it, and every thread stops by itself.
    pub(crate) fn freeze(&self) {
        self.signal("-STOP");
        let tasks = format!("/proc/{}/task", self.child.id());
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
        self.signal("-CONT");
    }

    fn signal(&self, signal: &str) {
        let done = Command::new("kill").args([signal, &self.child.id().to_string()]).status().unwrap();
        assert!(done.success());
    }
}

impl Drop for RedisServer {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn launch(port: u16, folder: &Path, arguments: &[String]) -> Child {
    let mut command = Command::new("redis-server");
    // A sentinel writes into its file, which says all else; so it comes first.
    let (file, options) = match arguments.split_first() {
        Some((file, options)) if Path::new(file).is_file() => (Some(file), options),
        _ => (None, arguments),
    };
    command.args(file).args(["--port", &port.to_string(), "--bind", "127.0.0.1"]);
    command.arg("--dir").arg(folder).args(["--appendonly", "no", "--protected-mode", "no"]);
    if !options.iter().any(|option| option == "--save") {
        command.args(["--save", ""]);
    }
    command.args(options).current_dir(folder);
    let log = fs::OpenOptions::new().create(true).append(true).open(folder.join("log")).unwrap();
    command.stdin(Stdio::null()).stdout(log).stderr(Stdio::null());
    match command.spawn() {
        Ok(child) => child,
        Err(error) => panic!("redis-server cannot be started ({error}); `cargo xtask test` installs it"),
    }
}

/// A port of the loopback that nobody uses. Somebody might take it before the server does; then the test says so.
pub(crate) fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

/// A folder for what a test writes before its servers start.
pub(crate) fn file(folder: &TempDir, name: &str, text: &str) -> PathBuf {
    let path = folder.path().join(name);
    fs::write(&path, text).unwrap();
    path
}
