//! `command`: a program that the operator has allowed, run without a shell.
//!
//! A template names one of the programs of `handlers.commands` and gives its arguments, each handed over as it is. The
//! program gets a folder of its own, which is removed after it, and an environment that says only what stands in
//! [`environment`]: nothing of the worker's own. On its standard input comes `input`, or else what is known of the step:
//! `{"input", "results", "item", "signal"}`. What it writes to its standard output is the result, as JSON where it is JSON.
//!
//! | It ends with | The attempt |
//! |---|---|
//! | 0 | completed: `{"exit_code", "output", "stderr"}` |
//! | 64, 65, 66, 67, 72, 77, 78 | failed for good, code `command_exit_…`: [`EXITS_FOR_GOOD`] |
//! | anything else, or by a signal | may be tried again; code `command_exit_…`, `command_signal_…` |
//!
//! Bounds: time, processes at once, address space, bytes of its output. It is one process group, and the whole group is told to
//! end (`SIGTERM`, five seconds later `SIGKILL`) when the job shall stop; whatever is left of the group when the program has
//! ended, or when the attempt is dropped, is killed. A worker that is killed itself leaves its programs running: the job is
//! then run again elsewhere beside it, so a program should take `RECACHE_ATTEMPT_TOKEN` to those it writes to.

mod group;
mod settings;

use std::fs::Permissions;
use std::io;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::{ExitStatus, Stdio};
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use recache_model::template::SettingProblem;
use recache_worker::{Context, Failure, Handler};
use serde_json::{Map, Value, json};
use tempfile::TempDir;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWriteExt as _};
use tokio::process::{Child, ChildStdin, Command as Process};
use tokio::sync::Semaphore;
use tokio::time::{Instant, sleep_until, timeout};

use self::group::Group;
use self::settings::Call;
use crate::config::HandlersConfig;

/// By `sysexits.h`: called wrongly, wrong data, no input, no such user, a file of the system missing, no permission, set up
/// wrongly. The next attempt would meet them too; the others there (no host, not available, input and output, "try again") pass.
const EXITS_FOR_GOOD: [i32; 7] = [64, 65, 66, 67, 72, 77, 78];
/// Between being told to end and being ended.
const GRACE: Duration = Duration::from_secs(5);
/// What is kept of the end of its standard error.
const STDERR_BYTES_KEPT: usize = 4 * 1024;
/// At once from a pipe.
const READ_BYTES: usize = 16 * 1024;

/// Whether the settings can be used.
pub(super) fn check(
    settings: &Map<String, Value>,
    config: &HandlersConfig,
) -> Result<(), Vec<SettingProblem>> {
    settings::read(settings, config).map(drop)
}

/// The handler.
#[derive(Debug)]
pub(super) struct Command {
    config: Arc<HandlersConfig>,
    turns: Arc<Semaphore>,
}

/// What a program has said, and how it ended.
#[derive(Debug)]
struct Ended {
    status: ExitStatus,
    stdout: Vec<u8>,
    stderr: String,
}

/// Why there is no end to tell of.
#[derive(Debug)]
enum Broken {
    TooMuchOutput,
    Io(io::Error),
}

impl Command {
    pub(super) fn new(config: Arc<HandlersConfig>) -> Self {
        let turns = usize::try_from(config.commands_at_once).unwrap_or(Semaphore::MAX_PERMITS);
        Self { config, turns: Arc::new(Semaphore::new(turns)) }
    }

    fn start(&self, call: &Call, context: &Context, folder: &Path) -> Result<(Child, Group), Failure> {
        let mut process = Process::new(&call.program);
        process
            .args(&call.arguments)
            .env_clear()
            .envs(environment(context, folder))
            .current_dir(folder)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .process_group(0);
        let child = process.spawn().map_err(|error| {
            let message = format!("`{}` cannot be started: {error}", call.name);
            // A file that is not there, or that nobody may run, is the operator's to mend; a full process table ends.
            match error.kind() {
                io::ErrorKind::NotFound | io::ErrorKind::PermissionDenied => {
                    Failure::permanent("command_not_runnable", message)
                }
                _ => Failure::retryable(message),
            }
        })?;
        let group = Group::of(&child);
        group.limit(self.config.command_memory_mib);
        Ok((child, group))
    }

    async fn carry_out(&self, call: &Call, context: &Context, input: &Value) -> Result<Value, Failure> {
        let stdin = call.stdin(context, input);
        let until = Instant::now() + call.timeout;
        let turn = tokio::select! {
            why = context.stopped() => return Err(Failure::Stopped(why)),
            () = sleep_until(until) => return Err(timed_out(call, "all others that may run at once were at work")),
            turn = self.turns.acquire() => turn,
        };
        let _turn = turn.map_err(|_| Failure::retryable("the worker shuts down"))?;
        let folder = own_folder()
            .map_err(|error| Failure::retryable(format!("no folder can be made to run it in: {error}")))?;
        let (mut child, group) = self.start(call, context, folder.path())?;
        let output_bytes_max = usize::try_from(self.config.command_output_kib_max)
            .map_or(usize::MAX, |kib| kib.saturating_mul(1024));
        let stopped = {
            let mut running = std::pin::pin!(attend(&mut child, &group, stdin, output_bytes_max));
            tokio::select! {
                why = context.stopped() => Failure::Stopped(why),
                () = sleep_until(until) => timed_out(call, "it was still running"),
                ended = &mut running => {
                    return match ended {
                        Ok(ended) => told(call, &ended),
                        Err(Broken::TooMuchOutput) => {
                            let message = format!("`{}` wrote more than {output_bytes_max} bytes", call.name);
                            Err(Failure::permanent("command_output_too_large", message))
                        }
                        Err(Broken::Io(error)) => {
                            Err(Failure::retryable(format!("`{}`: {error}", call.name)))
                        }
                    };
                }
            }
        };
        group.ask_to_end();
        let _ = timeout(GRACE, child.wait()).await;
        // Whether it did or not.
        group.end();
        let _ = child.wait().await;
        Err(stopped)
    }
}

#[async_trait]
impl Handler for Command {
    async fn run(&self, context: Context, input: Value) -> Result<Value, Failure> {
        let settings = super::settings_of(&context, &input)?;
        let call = settings::read(&settings, &self.config).map_err(|problems| super::invalid(&problems))?;
        context.checkpoint().await?;
        self.carry_out(&call, &context, &input).await
    }
}

/// That nobody else can look into.
fn own_folder() -> io::Result<TempDir> {
    tempfile::Builder::new().prefix("recache-").permissions(Permissions::from_mode(0o700)).tempdir()
}

/// All that a program finds in its environment.
fn environment(context: &Context, folder: &Path) -> Vec<(&'static str, std::ffi::OsString)> {
    let facts = context.facts();
    let mut environment = vec![
        ("PATH", "/usr/local/bin:/usr/bin:/bin".into()),
        ("LANG", "C.UTF-8".into()),
        ("HOME", folder.into()),
        ("TMPDIR", folder.into()),
        ("RECACHE_JOB_ID", facts.id.to_string().into()),
        ("RECACHE_NAMESPACE", facts.namespace.clone().into()),
        ("RECACHE_ATTEMPT", facts.attempt.to_string().into()),
        ("RECACHE_ATTEMPT_TOKEN", facts.attempt_token.clone().into()),
        ("RECACHE_CORRELATION_ID", facts.correlation_id.clone().into()),
    ];
    if let Some(trace) = &facts.trace_context {
        environment.push(("TRACEPARENT", trace.clone().into()));
    }
    environment
}

/// Feeds it, hears it, and waits for its end. What it leaves running would keep its output open: that ends with it.
async fn attend(
    child: &mut Child,
    group: &Group,
    stdin: Vec<u8>,
    output_bytes_max: usize,
) -> Result<Ended, Broken> {
    let (input, output, errors) = (child.stdin.take(), child.stdout.take(), child.stderr.take());
    let feed = async {
        feed(input, &stdin).await;
        Ok(())
    };
    let end = async {
        let status = child.wait().await.map_err(Broken::Io)?;
        group.end();
        Ok(status)
    };
    let (stdout, stderr, status, ()) =
        tokio::try_join!(read_all(output, output_bytes_max), read_end(errors), end, feed)?;
    Ok(Ended { status, stdout, stderr })
}

/// That it does not read what it is given is its own affair.
async fn feed(pipe: Option<ChildStdin>, input: &[u8]) {
    if let Some(mut pipe) = pipe {
        let _ = pipe.write_all(input).await;
        let _ = pipe.shutdown().await;
    }
}

async fn read_all(pipe: Option<impl AsyncRead + Unpin>, bytes_max: usize) -> Result<Vec<u8>, Broken> {
    let mut read = Vec::new();
    let Some(mut pipe) = pipe else { return Ok(read) };
    let mut piece = vec![0; READ_BYTES];
    loop {
        let bytes = pipe.read(&mut piece).await.map_err(Broken::Io)?;
        if bytes == 0 {
            return Ok(read);
        }
        if read.len() + bytes > bytes_max {
            return Err(Broken::TooMuchOutput);
        }
        read.extend_from_slice(piece.get(..bytes).unwrap_or_default());
    }
}

/// The end of what comes, however much comes.
async fn read_end(pipe: Option<impl AsyncRead + Unpin>) -> Result<String, Broken> {
    let mut end = Vec::new();
    let Some(mut pipe) = pipe else { return Ok(String::new()) };
    let mut piece = vec![0; READ_BYTES];
    loop {
        let bytes = pipe.read(&mut piece).await.map_err(Broken::Io)?;
        if bytes == 0 {
            return Ok(String::from_utf8_lossy(&end).trim_end().to_owned());
        }
        end.extend_from_slice(piece.get(..bytes).unwrap_or_default());
        end.drain(..end.len().saturating_sub(STDERR_BYTES_KEPT));
    }
}

/// What its end means.
fn told(call: &Call, ended: &Ended) -> Result<Value, Failure> {
    let Ended { status, stdout, stderr } = ended;
    let said = if stderr.is_empty() { String::new() } else { format!(": {stderr}") };
    let Some(code) = status.code() else {
        let signal = std::os::unix::process::ExitStatusExt::signal(status).unwrap_or_default();
        return Err(Failure::Retryable {
            code: Some(format!("command_signal_{signal}")),
            message: format!("`{}` was ended by signal {signal}{said}", call.name),
            after: None,
        });
    };
    if code == 0 {
        let output: Value = serde_json::from_slice(stdout)
            .unwrap_or_else(|_| Value::from(String::from_utf8_lossy(stdout).into_owned()));
        return Ok(json!({ "exit_code": 0, "output": output, "stderr": stderr }));
    }
    let (word, message) =
        (format!("command_exit_{code}"), format!("`{}` ended with {code}{said}", call.name));
    if EXITS_FOR_GOOD.contains(&code) {
        return Err(Failure::permanent(word, message));
    }
    Err(Failure::Retryable { code: Some(word), message, after: None })
}

fn timed_out(call: &Call, why: &str) -> Failure {
    Failure::Retryable {
        code: Some("command_timeout".to_owned()),
        message: format!("`{}` did not end within {} ms: {why}", call.name, call.timeout.as_millis()),
        after: None,
    }
}
