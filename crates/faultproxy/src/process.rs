//! Real servers that a test starts, kills, freezes and starts again.

use std::ffi::{OsStr, OsString};
use std::fs::{self, File};
use std::io;
use std::net::SocketAddr;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::{Instant, sleep, timeout};

use crate::port::Port;

/// Long, because the machine may be building something else meanwhile.
const START_MAX: Duration = Duration::from_secs(30);
/// How long a server may take to end after SIGTERM.
const TERMINATE_MAX: Duration = Duration::from_secs(10);
const PROBE_MAX: Duration = Duration::from_secs(1);
/// A foreign process tells nobody that it is up or gone.
const BETWEEN_LOOKS: Duration = Duration::from_millis(5);

/// Ends the server and removes its data when this test process ends in a way that runs no destructor: its stdin ends then.
const WATCH: &str = r#"read -r _; kill -9 "$1"; rm -rf -- "$2""#;

/// Why a server does not run.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// There is no such program.
    #[error("`{program}` is not on the PATH; {remedy}")]
    Missing {
        /// Its name.
        program: String,
        /// How to get it.
        remedy: String,
    },
    /// It ended, or does not answer.
    #[error("{program} {fate}; its log ends:\n{log}")]
    NotReady {
        /// Its name.
        program: String,
        /// What became of it.
        fate: String,
        /// The last lines.
        log: String,
    },
    /// The operating system refused something.
    #[error("cannot {action} {program}: {source}")]
    System {
        /// What was tried.
        action: &'static str,
        /// With which server.
        program: String,
        /// What the system said.
        source: io::Error,
    },
}

/// How to run a server; from [`ServerProcess::redis`] and its siblings.
#[derive(Debug, Clone)]
#[must_use]
pub struct ServerRecipe {
    program: String,
    remedy: String,
    arguments: Vec<OsString>,
    /// What is said to it, and how its answer begins once it serves; nothing: it serves when it accepts.
    probe: Option<(Vec<u8>, Vec<u8>)>,
}

impl ServerRecipe {
    /// Adds arguments. In each, `{port}` and `{data}` are replaced.
    pub fn args<A: AsRef<OsStr>>(mut self, arguments: impl IntoIterator<Item = A>) -> Self {
        self.arguments.extend(arguments.into_iter().map(|argument| argument.as_ref().to_owned()));
        self
    }

    /// It serves when it answers `question` by something that begins with `answer`.
    pub fn ready_when(mut self, question: impl Into<Vec<u8>>, answer: impl Into<Vec<u8>>) -> Self {
        self.probe = Some((question.into(), answer.into()));
        self
    }

    /// Says how to get the program when it is missing.
    pub fn remedy(mut self, remedy: impl Into<String>) -> Self {
        self.remedy = remedy.into();
        self
    }

    /// A server with port and data that does not run yet: who connects is refused.
    pub fn prepare(self) -> Result<ServerProcess, Error> {
        let system = |action, source| Error::System { action, program: self.program.clone(), source };
        let Some(path) = on_path(&self.program) else {
            return Err(Error::Missing { program: self.program, remedy: self.remedy });
        };
        let port = Port::reserve().map_err(|source| system("reserve a port for", source))?;
        let data =
            TempDir::with_prefix("recache-server-").map_err(|source| system("make a folder for", source))?;
        Ok(ServerProcess { recipe: self, path, port, data, running: None })
    }

    /// The same, running and ready.
    pub async fn start(self) -> Result<ServerProcess, Error> {
        let mut server = self.prepare()?;
        server.start().await?;
        Ok(server)
    }
}

/// A server of a test's own: on a free loopback port that stays its own, with data that is thrown away. Dropping it kills it,
/// also when the test panics; when the test process itself is killed, a watching shell does.
#[derive(Debug)]
pub struct ServerProcess {
    recipe: ServerRecipe,
    path: PathBuf,
    port: Port,
    data: TempDir,
    running: Option<Running>,
}

#[derive(Debug)]
struct Running {
    server: Child,
    watcher: Child,
}

impl ServerProcess {
    /// `redis-server` without persistence. To keep data over a restart add `--appendonly yes --appendfsync always`.
    pub fn redis() -> ServerRecipe {
        Self::generic("redis-server")
            .args(["--port", "{port}", "--bind", "127.0.0.1", "--daemonize", "no", "--dir", "{data}"])
            .args(["--save", "", "--appendonly", "no"])
            .ready_when("PING\r\n", "+PONG")
            .remedy("install it (Debian: apt-get install redis-server)")
    }

    /// `memcached`.
    pub fn memcached() -> ServerRecipe {
        let recipe = Self::generic("memcached")
            .args(["-l", "127.0.0.1", "-p", "{port}", "-U", "0"])
            .ready_when("version\r\n", "VERSION ")
            .remedy("install it (Debian: apt-get install memcached)");
        // It does not run as root unless told as whom.
        if rustix::process::geteuid().is_root() { recipe.args(["-u", "nobody"]) } else { recipe }
    }

    /// Any program. `{port}` and `{data}` in its arguments are replaced; it must ask for its address to be shared
    /// (`SO_REUSEADDR`), as servers do.
    pub fn generic(program: impl Into<String>) -> ServerRecipe {
        ServerRecipe {
            program: program.into(),
            remedy: "install it, or add its folder to the PATH".to_owned(),
            arguments: Vec::new(),
            probe: None,
        }
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.port.address()
    }

    /// The port of [`address`](Self::address).
    pub fn port(&self) -> u16 {
        self.address().port()
    }

    /// Where it keeps its data.
    pub fn data(&self) -> &Path {
        self.data.path()
    }

    /// The id of its process, while it runs.
    pub fn pid(&self) -> Option<u32> {
        self.running.as_ref().map(|running| running.server.id())
    }

    /// Starts it on its port with its data, and returns when it answers. Does nothing when it runs.
    pub async fn start(&mut self) -> Result<(), Error> {
        if self.running.is_some() && self.exit_status().is_none() {
            return Ok(());
        }
        self.kill();
        let log = self.data.path().join("log");
        self.running = Some(self.spawn(&log).map_err(|source| self.system("start", source))?);
        let deadline = Instant::now() + START_MAX;
        let fate = loop {
            if let Some(status) = self.exit_status() {
                break format!("ended at once: {status}");
            }
            if self.answers().await {
                return Ok(());
            }
            if Instant::now() > deadline {
                break format!("did not answer within {START_MAX:?}");
            }
            sleep(BETWEEN_LOOKS).await;
        };
        self.kill();
        let log = fs::read_to_string(&log).unwrap_or_default();
        let lines: Vec<&str> = log.lines().collect();
        let log = lines.get(lines.len().saturating_sub(10)..).unwrap_or_default().join("\n");
        Err(Error::NotReady { program: self.recipe.program.clone(), fate, log })
    }

    /// Kills it (SIGKILL) and starts it again, on the same port with the same data.
    pub async fn restart(&mut self) -> Result<(), Error> {
        self.kill();
        self.start().await
    }

    /// SIGKILL. When it returns, the process is gone and who connects is refused.
    pub fn kill(&mut self) {
        if let Some(mut running) = self.running.take() {
            // The watcher first: once the server's exit status is taken, its id may be given to another process.
            running.dismiss_watcher();
            let _ = running.server.kill();
            let _ = running.server.wait();
        }
    }

    /// SIGTERM; waits for its end, SIGKILL after ten seconds. Answers how it ended; `None` when it did not run.
    pub async fn terminate(&mut self) -> Result<Option<ExitStatus>, Error> {
        if self.running.is_none() {
            return Ok(None);
        }
        self.signal(Signal::TERM)?;
        let deadline = Instant::now() + TERMINATE_MAX;
        let status = loop {
            if let Some(status) = self.exit_status() {
                break Some(status);
            }
            if Instant::now() > deadline {
                break None;
            }
            sleep(BETWEEN_LOOKS).await;
        };
        self.kill();
        Ok(status)
    }

    /// SIGSTOP: connections stay, the system accepts new ones, nothing is answered. Returns when it stands still.
    pub async fn freeze(&self) -> Result<(), Error> {
        self.signal(Signal::STOP)?;
        let deadline = Instant::now() + PROBE_MAX;
        while Instant::now() < deadline && !self.is_stopped().unwrap_or(true) {
            sleep(Duration::from_millis(1)).await;
        }
        Ok(())
    }

    /// SIGCONT: what was sent meanwhile is answered now.
    pub fn thaw(&self) -> Result<(), Error> {
        self.signal(Signal::CONT)
    }

    fn spawn(&self, log: &Path) -> io::Result<Running> {
        let log = File::options().create(true).append(true).open(log)?;
        let data = self.data.path();
        let mut command = Command::new(&self.path);
        for argument in &self.recipe.arguments {
            let filled = argument.to_str().map(|argument| {
                argument
                    .replace("{port}", &self.port().to_string())
                    .replace("{data}", &data.to_string_lossy())
            });
            command.arg(filled.map_or_else(|| argument.clone(), OsString::from));
        }
        let mut server = command
            .current_dir(data)
            .env("LC_ALL", "C")
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            // Ctrl-C and a runner's signal to its group reach the test; the test ends its servers.
            .process_group(0)
            .spawn()?;
        let watcher = Command::new("sh")
            .args(["-c", WATCH, "sh", &server.id().to_string()])
            .arg(data)
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .process_group(0)
            .spawn();
        match watcher {
            Ok(watcher) => Ok(Running { server, watcher }),
            Err(error) => {
                let _ = server.kill();
                let _ = server.wait();
                Err(error)
            }
        }
    }

    async fn answers(&self) -> bool {
        let ask = async {
            let mut stream = TcpStream::connect(self.address()).await?;
            let Some((question, answer)) = &self.recipe.probe else {
                return Ok(true);
            };
            stream.write_all(question).await?;
            let mut heard = vec![0; answer.len()];
            stream.read_exact(&mut heard).await?;
            io::Result::Ok(heard == *answer)
        };
        timeout(PROBE_MAX, ask).await.is_ok_and(|answered| answered.unwrap_or(false))
    }

    fn exit_status(&mut self) -> Option<ExitStatus> {
        let running = self.running.as_mut()?;
        let status = running.server.try_wait().ok()?;
        if status.is_some() {
            running.dismiss_watcher();
        }
        status
    }

    fn signal(&self, signal: Signal) -> Result<(), Error> {
        let not_running = || io::Error::new(io::ErrorKind::NotFound, "it does not run");
        let pid = self.running.as_ref().map(|running| Pid::from_child(&running.server));
        let sent = pid.ok_or_else(not_running).and_then(|pid| Ok(kill_process(pid, signal)?));
        sent.map_err(|source| self.system("send a signal to", source))
    }

    /// Whether the kernel shows all of its threads as stopped, since each stops by itself and one that has not may still answer; `None`
    /// where there is no `/proc`.
    fn is_stopped(&self) -> Option<bool> {
        for thread in fs::read_dir(format!("/proc/{}/task", self.pid()?)).ok()? {
            // One that has ended in between answers nothing.
            let Ok(stat) = fs::read_to_string(thread.ok()?.path().join("stat")) else { continue };
            // The second field is the thread's name in parentheses, and may hold anything.
            let (_, fields) = stat.rsplit_once(')')?;
            if !fields.trim_start().starts_with('T') {
                return Some(false);
            }
        }
        Some(true)
    }

    fn system(&self, action: &'static str, source: io::Error) -> Error {
        Error::System { action, program: self.recipe.program.clone(), source }
    }
}

impl Drop for ServerProcess {
    fn drop(&mut self) {
        self.kill();
    }
}

impl Running {
    /// Twice does no harm.
    fn dismiss_watcher(&mut self) {
        let _ = self.watcher.kill();
        let _ = self.watcher.wait();
    }
}

/// The first executable file of that name on the PATH; a name with a `/` is a path.
fn on_path(program: &str) -> Option<PathBuf> {
    use std::os::unix::fs::PermissionsExt as _;
    let is_executable = |path: &PathBuf| {
        fs::metadata(path).is_ok_and(|data| data.is_file() && data.permissions().mode() & 0o111 != 0)
    };
    if program.contains('/') {
        return Some(PathBuf::from(program)).filter(is_executable);
    }
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path).map(|folder| folder.join(program)).find(is_executable)
}
