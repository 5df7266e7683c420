//! What all servers have in common: an account, a port, a start that is checked, an end.

use std::fs::{self, File};
use std::io::{self, Read as _, Write as _};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use super::leftover::RunFolder;
use crate::Failure;
use crate::process::{self, Signal};

/// Long, because a fresh machine may be building something else meanwhile.
const START_MAX: Duration = Duration::from_mins(1);
const PROBE_MAX: Duration = Duration::from_secs(1);
/// A port is free when it is looked for, and may be taken when it is used.
const PORTS_TRIED_MAX: u32 = 3;

/// A running server, stopped when dropped.
#[derive(Debug)]
pub(super) struct Server {
    child: Child,
    stop: Signal,
    /// What tests connect to.
    pub(super) url: String,
}

impl Drop for Server {
    fn drop(&mut self) {
        process::stop(&mut self.child, self.stop);
    }
}

/// Whom the servers run as: ourselves, or somebody without rights when we are root, as PostgreSQL demands.
#[derive(Debug)]
pub(super) struct Account {
    ids: Option<(u32, u32)>,
}

impl Account {
    /// `nobody` before `postgres`: the latter owns the machine's own databases.
    pub(super) fn choose() -> Result<Self, Failure> {
        if process::user_id() != Some(0) {
            return Ok(Self { ids: None });
        }
        let id = |option: &str, name: &str| {
            process::first_line(Command::new("id").args([option, name]))?.parse().ok()
        };
        let ids =
            ["nobody", "postgres"].into_iter().find_map(|name| Some((id("-u", name)?, id("-g", name)?)));
        match ids {
            Some(ids) if ids.0 != 0 => Ok(Self { ids: Some(ids) }),
            _ => Err(Failure::new(
                "we are root, and there is neither a user `nobody` nor `postgres` to run servers as",
            )),
        }
    }

    /// Makes an empty folder that only this account can look into.
    pub(super) fn create_folder(&self, path: &Path) -> Result<(), Failure> {
        let make = || -> io::Result<()> {
            fs::create_dir(path)?;
            fs::set_permissions(path, fs::Permissions::from_mode(0o700))?;
            match self.ids {
                Some((user, group)) => std::os::unix::fs::chown(path, Some(user), Some(group)),
                None => Ok(()),
            }
        };
        make().map_err(Failure::at(format_args!("cannot make `{}`", path.display())))
    }

    /// A command that runs as this account, in that folder, with an environment that nobody's settings reach.
    pub(super) fn command(&self, program: &Path, folder: &Path) -> Command {
        let mut command = Command::new(program);
        command.current_dir(folder).stdin(Stdio::null()).env_clear();
        command.env("PATH", std::env::var_os("PATH").unwrap_or_default()).env("LC_ALL", "C").env("TZ", "UTC");
        if let Some((user, group)) = self.ids {
            command.uid(user).gid(group);
        }
        command
    }
}

/// How to start one kind of server.
pub(super) struct Recipe<'a> {
    pub(super) name: &'static str,
    pub(super) stop: Signal,
    /// Where it runs and keeps its log.
    pub(super) folder: PathBuf,
    pub(super) command: &'a dyn Fn(u16) -> Command,
    pub(super) url: &'a dyn Fn(u16) -> String,
    /// What is said to it first, and how its answer begins once it serves.
    pub(super) probe: (&'a [u8], &'a [u8]),
}

impl Recipe<'_> {
    /// Starts it and waits until it answers.
    pub(super) fn start(&self, run: &RunFolder) -> Result<Server, Failure> {
        let mut failure = Failure::new(String::new());
        for _ in 0..PORTS_TRIED_MAX {
            match self.start_on(free_port()?, run) {
                Ok(server) => return Ok(server),
                Err(cause) => failure = cause,
            }
        }
        Err(failure)
    }

    fn start_on(&self, port: u16, run: &RunFolder) -> Result<Server, Failure> {
        let name = self.name;
        let log = self.folder.with_extension("log");
        let open = || {
            let file = File::create(&log)?;
            Ok((file.try_clone()?, file))
        };
        let (stdout, stderr) =
            open().map_err(Failure::at::<io::Error>(format_args!("cannot write {name}'s log")))?;
        let child = (self.command)(port)
            .stdout(stdout)
            .stderr(stderr)
            // Ctrl-C goes to the foreground group: the chore, not the servers.
            .process_group(0)
            .spawn()
            .map_err(Failure::at(format_args!("cannot start {name}")))?;
        let mut server = Server { child, stop: self.stop, url: (self.url)(port) };
        run.note(name, server.child.id())?;
        let mut is_gone = false;
        let is_up = process::wait_until(START_MAX, || {
            is_gone = !matches!(server.child.try_wait(), Ok(None));
            is_gone || answers(port, self.probe)
        });
        // Asked once more: what answered may be another's, on a port that ours did not get.
        is_gone = is_gone || !matches!(server.child.try_wait(), Ok(None));
        if is_up && !is_gone {
            return Ok(server);
        }
        let fate = if is_gone { "ended at once" } else { "did not answer" };
        let log = fs::read_to_string(&log).unwrap_or_default();
        let lines: Vec<&str> = log.lines().collect();
        let last = lines.get(lines.len().saturating_sub(10)..).unwrap_or_default().join("\n  ");
        Err(Failure::new(format!("{name} {fate}; its log ends:\n  {last}")))
    }
}

fn free_port() -> Result<u16, Failure> {
    TcpListener::bind((Ipv4Addr::LOCALHOST, 0))
        .and_then(|listener| listener.local_addr())
        .map(|address| address.port())
        .map_err(Failure::at("no free loopback port"))
}

fn answers(port: u16, (question, answer): (&[u8], &[u8])) -> bool {
    let ask = || -> io::Result<bool> {
        let mut stream =
            TcpStream::connect_timeout(&SocketAddr::from((Ipv4Addr::LOCALHOST, port)), PROBE_MAX)?;
        stream.set_read_timeout(Some(PROBE_MAX))?;
        stream.write_all(question)?;
        let mut heard = vec![0; answer.len()];
        stream.read_exact(&mut heard)?;
        Ok(heard == answer)
    };
    ask().unwrap_or(false)
}

/// 128 random bits in hexadecimal, from the system.
pub(super) fn random_text() -> Result<String, Failure> {
    let mut bytes = [0; 16];
    File::open("/dev/urandom")
        .and_then(|mut source| source.read_exact(&mut bytes))
        .map_err(Failure::at("cannot read /dev/urandom"))?;
    Ok(format!("{:032x}", u128::from_ne_bytes(bytes)))
}
