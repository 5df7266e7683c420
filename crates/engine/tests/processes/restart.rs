//! PostgreSQL killed under load, with all its processes: what it acknowledged is there when it comes back, and the engine
//! goes on.

use std::net::TcpListener;
use std::os::unix::fs::{PermissionsExt as _, chown};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures_util::future::join_all;
use rand::rngs::SmallRng;
use rand::{Rng as _, SeedableRng as _};
use recache_engine::{Engine, Error};
use recache_store::{OpenOptions, Store, open};
use uuid::Uuid;

use crate::check::{Acknowledged, check_work};
use crate::parent::Log;
use crate::support::{touch, until};
use crate::work::{self, VIEWS, handlers, options};

/// Where the server's programs are, if not where Debian puts them.
const BINARIES: &str = "RECACHE_TEST_POSTGRES_BIN";

fn binaries() -> Option<PathBuf> {
    if let Some(folder) = std::env::var_os(BINARIES) {
        return Some(PathBuf::from(folder));
    }
    let versions = std::fs::read_dir("/usr/lib/postgresql").ok()?;
    let mut found: Vec<PathBuf> = versions.flatten().map(|entry| entry.path().join("bin")).collect();
    found.retain(|folder| folder.join("postgres").exists());
    found.sort();
    found.pop()
}

/// Submit, touch and wait at the same time.
const CLIENTS: usize = 12;

/// PostgreSQL refuses to run as root: then somebody else it is.
fn unprivileged() -> Option<(u32, u32)> {
    let number = |flag: &str, name: &str| -> Option<u32> {
        let told = Command::new("id").args([flag, name]).output().ok()?;
        String::from_utf8(told.stdout).ok()?.trim().parse().ok()
    };
    if number("-u", "root")
        != std::fs::metadata("/proc/self").ok().map(|own| std::os::unix::fs::MetadataExt::uid(&own))
    {
        return None;
    }
    ["postgres", "nobody"].iter().find_map(|name| Some((number("-u", name)?, number("-g", name)?)))
}

/// A server of our own on throw-away data; gone when dropped.
struct Server {
    binaries: PathBuf,
    folder: PathBuf,
    user: Option<(u32, u32)>,
    port: u16,
    process: Option<std::process::Child>,
}

impl Server {
    fn make(binaries: PathBuf) -> Self {
        let folder = std::env::temp_dir().join(format!("recache-server-{}", Uuid::new_v4().simple()));
        std::fs::create_dir_all(&folder).unwrap();
        std::fs::set_permissions(&folder, std::fs::Permissions::from_mode(0o700)).unwrap();
        let user = unprivileged();
        if let Some((user, group)) = user {
            chown(&folder, Some(user), Some(group)).unwrap();
        }
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let server = Self { binaries, folder, user, port, process: None };
        let data = server.data();
        let made = server
            .command("initdb")
            .args(["--no-locale", "--encoding=UTF8", "--auth=trust", "--username=postgres", "-D"])
            .arg(data)
            .output()
            .unwrap();
        assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
        server
    }

    fn data(&self) -> PathBuf {
        self.folder.join("data")
    }

    fn url(&self) -> String {
        format!("postgres://postgres@127.0.0.1:{}/postgres", self.port)
    }

    fn command(&self, program: &str) -> Command {
        let mut command = Command::new(self.binaries.join(program));
        command.current_dir(Path::new("/"));
        if let Some((user, group)) = self.user {
            command.uid(user).gid(group);
        }
        command
    }

    fn start(&mut self) {
        let (data, folder) = (self.data(), self.folder.clone());
        let process = self
            .command("postgres")
            .arg("-D")
            .arg(data)
            .args(["-p", &self.port.to_string(), "-c", "listen_addresses=127.0.0.1", "-k"])
            .arg(folder)
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .process_group(0)
            .spawn()
            .unwrap();
        self.process = Some(process);
    }

    fn is_running(&mut self) -> bool {
        self.process.as_mut().is_some_and(|process| matches!(process.try_wait(), Ok(None)))
    }

    /// `kill -9` of the server and of every process that it started, by their ids.
    fn kill(&mut self) {
        let Some(mut process) = self.process.take() else { return };
        let parent = process.id();
        let children = children_of(parent);
        let _ = process.kill();
        for child in children {
            let _ = Command::new("kill").args(["-9", &child.to_string()]).stderr(Stdio::null()).status();
        }
        let _ = process.wait();
    }
}

fn children_of(parent: u32) -> Vec<u32> {
    let Ok(processes) = std::fs::read_dir("/proc") else { return Vec::new() };
    processes
        .flatten()
        .filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok())
        .filter(|process| {
            let Ok(stat) = std::fs::read_to_string(format!("/proc/{process}/stat")) else { return false };
            // The name, in brackets, may hold spaces; after it come the state and the parent.
            let fields = stat.rsplit_once(')').map_or("", |(_, fields)| fields);
            fields.split_whitespace().nth(1) == Some(parent.to_string().as_str())
        })
        .collect()
}

impl Drop for Server {
    fn drop(&mut self) {
        self.kill();
        let _ = std::fs::remove_dir_all(&self.folder);
    }
}

/// Tries until it is acknowledged; anything but "try again" is a failure of the test.
async fn insist<T>(mut call: impl AsyncFnMut() -> recache_engine::Result<T>) -> T {
    until("an acknowledgement", async || match call().await {
        Ok(value) => Some(value),
        Err(Error::Store(error)) if error.is_retryable() => None,
        Err(error) => panic!("{error:?}"),
    })
    .await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn crash_of_the_database_loses_nothing() {
    let Some(binaries) = binaries() else {
        assert!(std::env::var_os("CI").is_none(), "{BINARIES} is not set and no PostgreSQL was found");
        eprintln!("SKIPPED: no PostgreSQL programs; {BINARIES} is not set");
        return;
    };
    let seed: u64 =
        std::env::var("RECACHE_CRASH_SEED").map_or_else(|_| rand::random(), |seed| seed.parse().unwrap());
    eprintln!("RECACHE_CRASH_SEED={seed}");
    let mut random = SmallRng::seed_from_u64(seed);
    let mut server = Server::make(binaries);
    let store = started(&mut server).await;
    let log = Log::default();
    let said = Arc::clone(&log);
    let say = move |line: String| said.lock().unwrap().push(line);
    let begins = {
        let say = say.clone();
        move |context: &recache_worker::Context| {
            let facts = context.facts();
            say(format!("run {} {} {}", facts.id, facts.attempt, facts.attempt_token));
        }
    };
    let engine = Engine::builder(Arc::clone(&store))
        .handlers(handlers(begins))
        .options(options())
        .start()
        .await
        .unwrap();
    let goes_on = AtomicBool::new(true);
    for key in VIEWS {
        engine.define_view(work::view(key)).await.unwrap();
    }
    let clients = join_all(VIEWS.iter().cycle().take(CLIENTS).map(|key| {
        let (engine, goes_on, say) = (&engine, &goes_on, &say);
        let mut random = SmallRng::seed_from_u64(random.random());
        async move {
            while goes_on.load(Ordering::SeqCst) {
                let job = work::job(&mut random);
                let id = insist(async || engine.submit(job.clone()).await).await;
                say(format!("submit {}", id.uuid()));
                let touched = insist(async || engine.touch(touch(key, &[])).await).await;
                say(format!("touch {key} {}", touched.version));
                let record = insist(async || engine.wait_for_job(id).await).await;
                let output = record.output.as_deref().unwrap_or("-");
                say(format!("outcome {} {} {} {output}", id.uuid(), record.state, record.attempt));
            }
        }
    }));
    let count = || log.lock().unwrap().len();
    let faults = async {
        for _ in 0..2 {
            let before = count();
            until("it is under load", async || (count() > before + 500).then_some(())).await;
            tokio::time::sleep(Duration::from_millis(random.random_range(0..50))).await;
            server.kill();
            let fresh = started(&mut server).await;
            fresh.close().await;
        }
        let before = count();
        until("it works again", async || (count() > before + 200).then_some(())).await;
        goes_on.store(false, Ordering::SeqCst);
    };
    tokio::join!(clients, faults);
    until("all views are built", async || {
        let views = store.views_list(None, None, 10).await.unwrap();
        views.iter().all(|view| view.versions.live == view.versions.wanted).then_some(())
    })
    .await;
    until("the worker let go", async || (engine.held_count() == 0).then_some(())).await;
    engine.shut_down().await;
    store.close().await;
    let store = open(&OpenOptions::new(server.url())).await.unwrap();
    let said = Acknowledged::read(&log.lock().unwrap());
    check_work(&*store, &said).await;
    eprintln!("{} submits, {} runs, touches {:?}", said.submitted.len(), said.runs.len(), said.touches);
    store.close().await;
}

/// Starts the server, until it takes connections.
async fn started(server: &mut Server) -> Arc<dyn Store> {
    server.start();
    let server = Mutex::new(server);
    until("the server takes connections", async || {
        let url = {
            let mut server = server.lock().unwrap();
            // What was killed may hold on to its memory for a moment, and then the new one gives up.
            if !server.is_running() {
                server.start();
            }
            server.url()
        };
        open(&OpenOptions::new(url)).await.ok()
    })
    .await
}
