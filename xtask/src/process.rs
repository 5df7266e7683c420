//! Child processes: run one, listen to one, send one a signal.

use std::io::{BufRead, BufReader, Read, Write};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc::{self, Sender};
use std::thread;
use std::time::Duration;

use crate::Failure;

/// How long the pipes of a finished command may stay open before nobody reads them any more: a process that a test
/// left behind holds them, and would hold us.
const PIPES_LEFT_OPEN_MAX: Duration = Duration::from_secs(5);

/// The cargo that runs us, so that both are of one toolchain.
pub(crate) fn cargo() -> Command {
    let mut cargo = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    cargo.current_dir(crate::workspace_root());
    cargo
}

/// The platform that the toolchain builds for unless told otherwise.
pub(crate) fn host() -> Result<String, Failure> {
    let rustc = std::env::var_os("RUSTC").unwrap_or_else(|| "rustc".into());
    let output = Command::new(rustc).arg("-vV").output().map_err(Failure::at("cannot start `rustc`"))?;
    let text = String::from_utf8_lossy(&output.stdout);
    let host = text.lines().find_map(|line| line.strip_prefix("host: "));
    host.map(str::to_owned).ok_or_else(|| Failure::new("`rustc -vV` names no host"))
}

/// Runs to the end with our own stdin, stdout and stderr.
pub(crate) fn status(command: &mut Command) -> Result<ExitStatus, Failure> {
    let program = command.get_program().to_string_lossy().into_owned();
    command.status().map_err(Failure::at(format_args!("cannot start `{program}`")))
}

/// The first line of what a command prints; `None` when it cannot be started, fails or prints nothing.
pub(crate) fn first_line(command: &mut Command) -> Option<String> {
    let output = command.stdin(Stdio::null()).stderr(Stdio::null()).output().ok()?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    output.status.success().then(|| text.lines().next().map(str::to_owned)).flatten()
}

/// Runs to the end, passes stdout and stderr through as they come, and keeps the lines (without colour) that
/// `is_kept` names.
pub(crate) fn stream(
    command: &mut Command,
    is_kept: fn(&str) -> bool,
) -> Result<(ExitStatus, Vec<String>), Failure> {
    let program = command.get_program().to_string_lossy().into_owned();
    let mut child = command
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(Failure::at(format_args!("cannot start `{program}`")))?;
    let (kept, lines) = mpsc::channel();
    if let Some(pipe) = child.stdout.take() {
        let kept = kept.clone();
        thread::spawn(move || pass_through(pipe, std::io::stdout(), is_kept, &kept));
    }
    if let Some(pipe) = child.stderr.take() {
        let kept = kept.clone();
        thread::spawn(move || pass_through(pipe, std::io::stderr(), is_kept, &kept));
    }
    drop(kept);
    let status = child.wait().map_err(Failure::at(format_args!("cannot wait for `{program}`")))?;
    let mut found = Vec::new();
    // Ends when both pipes are closed.
    while let Ok(line) = lines.recv_timeout(PIPES_LEFT_OPEN_MAX) {
        found.push(line);
    }
    Ok((status, found))
}

fn pass_through(pipe: impl Read, mut sink: impl Write, is_kept: fn(&str) -> bool, kept: &Sender<String>) {
    let mut pipe = BufReader::new(pipe);
    let mut bytes = Vec::new();
    while pipe.read_until(b'\n', &mut bytes).is_ok_and(|count| count > 0) {
        // A closed terminal must not end the suite: what it says is read on.
        let _ = sink.write_all(&bytes).and_then(|()| sink.flush());
        let line = without_colour(&String::from_utf8_lossy(&bytes));
        if is_kept(&line) {
            let _ = kept.send(line);
        }
        bytes.clear();
    }
}

/// Removes the escape sequences (`ESC [ … letter`) that colour a line, and its end.
fn without_colour(line: &str) -> String {
    let mut plain = String::with_capacity(line.len());
    let mut characters = line.trim_end().chars();
    while let Some(character) = characters.next() {
        if character == '\u{1b}' {
            characters.by_ref().find(char::is_ascii_alphabetic);
        } else {
            plain.push(character);
        }
    }
    plain
}

/// Who we are; 0 is root.
pub(crate) fn user_id() -> Option<u32> {
    first_line(Command::new("id").arg("-u"))?.parse().ok()
}

/// A signal, by the name that `kill` knows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Signal {
    /// PostgreSQL stops at once, takes its backends and its shared memory along, and writes nothing more.
    Quit,
    Kill,
}

impl Signal {
    fn name(self) -> &'static str {
        match self {
            Self::Quit => "QUIT",
            Self::Kill => "KILL",
        }
    }
}

/// Sends a signal to one process. The shell's own `kill` does it: the standard library can only send KILL, and only to a
/// child; a crate for this one call would be the only one that a chore needs.
pub(crate) fn send(signal: Signal, pid: u32) {
    let _ = Command::new("sh")
        .args(["-c", "kill -s \"$1\" \"$2\"", "sh", signal.name(), &pid.to_string()])
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status();
}

/// Asks `is_so` until it says yes, for about `patience`; false when it never did.
pub(crate) fn wait_until(patience: Duration, mut is_so: impl FnMut() -> bool) -> bool {
    const BETWEEN: Duration = Duration::from_millis(20);
    let rounds = patience.as_millis() / BETWEEN.as_millis();
    for _ in 0..=rounds {
        if is_so() {
            return true;
        }
        #[expect(
            clippy::disallowed_methods,
            reason = "a foreign process tells nobody that it is up or gone"
        )]
        thread::sleep(BETWEEN);
    }
    false
}

/// Stops a child and takes its exit status; KILL follows when it has not gone within five seconds.
pub(crate) fn stop(child: &mut Child, signal: Signal) {
    if signal != Signal::Kill {
        send(signal, child.id());
        // An error means that there is no such child any more.
        if wait_until(Duration::from_secs(5), || !matches!(child.try_wait(), Ok(None))) {
            return;
        }
    }
    let _ = child.kill();
    let _ = child.wait();
}

/// What tells a process from a later one with the same id: when it was born, and on Linux in which boot. `None` when
/// there is no such process, or only its unread exit status.
pub(crate) fn birth(pid: u32) -> Option<String> {
    let Ok(boot) = std::fs::read_to_string("/proc/sys/kernel/random/boot_id") else {
        let born = first_line(Command::new("ps").args(["-o", "lstart=", "-p", &pid.to_string()]))?;
        return Some(born.split_whitespace().collect::<Vec<_>>().join("_"));
    };
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The second field is the program's name in parentheses, and may hold anything.
    let (_, fields) = stat.rsplit_once(')')?;
    let fields: Vec<&str> = fields.split_whitespace().collect();
    let is_dead = matches!(*fields.first()?, "Z" | "X");
    let started = fields.get(19)?;
    (!is_dead).then(|| format!("{started}@{}", boot.trim()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn colour_is_removed() {
        assert_eq!(
            without_colour("\u{1b}[32;1m     Summary\u{1b}[0m [   0.1s] 3 tests run\r\n"),
            "     Summary [   0.1s] 3 tests run"
        );
    }

    #[test]
    fn lines_are_kept_from_both_pipes_and_the_status_is_passed_on() {
        let mut command = Command::new("sh");
        command.args(["-c", "echo one-kept; echo two; echo three-kept >&2; exit 3"]);
        let (status, mut lines) = stream(&mut command, |line| line.ends_with("-kept")).unwrap();
        lines.sort();
        assert_eq!(lines, ["one-kept", "three-kept"]);
        assert_eq!(status.code(), Some(3));
    }

    #[test]
    fn a_process_that_was_waited_for_has_no_birth() {
        let mut child = Command::new("cat").stdin(Stdio::piped()).spawn().unwrap();
        let id = child.id();
        let born = birth(id);
        assert!(born.is_some());
        assert_eq!(birth(id), born, "two looks at one process agree");
        stop(&mut child, Signal::Quit);
        assert_eq!(birth(id), None);
    }
}
