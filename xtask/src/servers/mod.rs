//! The servers that tests and benches run against: ours, on free loopback ports, with throw-away data.
//!
//! Who stops them? Not the chore itself, which may be interrupted or killed at any point. It starts a *guard*: this same
//! program in a process group of its own, so that Ctrl-C does not reach it. The guard starts the servers as its children,
//! tells their addresses on its stdout and then waits for the end of its stdin. That pipe closes when the chore ends, however
//! it ends: done, failed, panicked, interrupted, killed. Then the guard stops its children and removes their data. Should the
//! guard itself be killed, the next one finds its folder and cleans up behind it (`leftover.rs`).

mod guard;
mod leftover;
mod memcached;
mod postgres;
mod redis;
mod server;

use std::ffi::OsString;
use std::io::{BufRead, BufReader};
use std::os::unix::process::CommandExt as _;
use std::process::{Child, Command, ExitCode, Stdio};

pub(crate) use guard::run as guard;

use crate::find::{Found, Tool};
use crate::{Failure, install, process};

/// A folder that is there for as long as the servers are: what tests make once for all lies in it.
const SHARED_VARIABLE: &str = "RECACHE_TEST_SHARED";

/// How the guard is called: not for people, hence not in the usage.
pub(crate) const GUARD_CHORE: &str = "servers-guard";
const FSYNC_OPTION: &str = "--fsync";
/// The guard's last line: all servers answer.
const READY: &str = "ready";
/// For tests that run a PostgreSQL of their own, to crash or freeze it.
const POSTGRES_BIN_VARIABLE: &str = "RECACHE_TEST_POSTGRES_BIN";

/// Whether PostgreSQL waits for the disk before it answers that something is committed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) enum Fsync {
    /// As it should: what is measured is what it costs.
    #[default]
    On,
    /// For the suite, which makes and drops hundreds of databases. What is lost is a promise about the loss of power, which no test brings
    /// about; whoever kills the server still finds what was answered.
    Off,
}

impl Fsync {
    fn as_str(self) -> &'static str {
        match self {
            Self::On => "on",
            Self::Off => "off",
        }
    }
}

/// The running servers; dropping it stops them, and waits until they are gone.
#[derive(Debug)]
pub(crate) struct Servers {
    guard: Child,
    variables: Vec<(String, OsString)>,
}

impl Servers {
    /// Starts what was found, and returns when each answers.
    pub(crate) fn start(found: &Found, fsync: Fsync) -> Result<Self, Failure> {
        let program = std::env::current_exe().map_err(Failure::at("cannot find this program"))?;
        let mut command = Command::new(program);
        command.arg(GUARD_CHORE).args([FSYNC_OPTION, fsync.as_str()]);
        for (option, path) in [
            ("--postgres-bin", &found.postgres_bin),
            ("--redis", &found.redis),
            ("--memcached", &found.memcached),
        ] {
            if let Some(path) = path {
                command.arg(option).arg(path);
            }
        }
        let guard = command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .process_group(0)
            .spawn()
            .map_err(Failure::at("cannot start the servers' guard"))?;
        let mut servers = Self { guard, variables: Vec::new() };
        servers.variables = servers.read_variables()?;
        if let Some(folder) = &found.postgres_bin {
            servers.variables.push((POSTGRES_BIN_VARIABLE.to_owned(), folder.into()));
        }
        // No servers: the tests that need them start them themselves.
        for (tool, program) in [(Tool::Php, &found.php), (Tool::Prometheus, &found.prometheus)] {
            if let Some(program) = program {
                servers.variables.push((tool.variable().to_owned(), program.into()));
            }
        }
        Ok(servers)
    }

    fn read_variables(&mut self) -> Result<Vec<(String, OsString)>, Failure> {
        let mut variables = Vec::new();
        let lines = self.guard.stdout.take().map(|pipe| BufReader::new(pipe).lines());
        for line in lines.into_iter().flatten() {
            let line = line.map_err(Failure::at("cannot hear the servers' guard"))?;
            if line == READY {
                return Ok(variables);
            }
            if let Some((name, value)) = line.split_once('=') {
                variables.push((name.to_owned(), value.into()));
            }
        }
        Err(Failure::new("the servers were not started"))
    }

    /// Gives a command the addresses, and takes away those of servers that we did not start: a suite that drops
    /// databases must not meet one that somebody needs.
    pub(crate) fn offer_to(&self, command: &mut Command) {
        for tool in Tool::ALL {
            command.env_remove(tool.variable());
        }
        command.env_remove(POSTGRES_BIN_VARIABLE);
        command.envs(self.variables.iter().map(|(name, value)| (name, value)));
    }
}

impl Drop for Servers {
    fn drop(&mut self) {
        drop(self.guard.stdin.take());
        // A guard that fails says why and still cleans up; one that a signal ended (it has no exit code) cannot.
        if !self.guard.wait().is_ok_and(|status| status.code().is_some()) {
            eprintln!("xtask: the servers' guard was killed; the next run cleans up behind it");
        }
    }
}

/// Runs a command with the servers and answers with its exit code.
pub(crate) fn run(command: &[String]) -> Result<ExitCode, Failure> {
    let Some((program, arguments)) = command.split_first() else {
        return Err(Failure::new("no command is named"));
    };
    let servers = Servers::start(&install::find_or_install()?, Fsync::On)?;
    let mut command = Command::new(program);
    command.args(arguments);
    servers.offer_to(&mut command);
    let status = process::status(&mut command)?;
    // A command that a signal ended has no code: it failed.
    let code = status.code().and_then(|code| u8::try_from(code).ok()).unwrap_or(1);
    Ok(ExitCode::from(code))
}
