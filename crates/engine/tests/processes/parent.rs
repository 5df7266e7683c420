//! Children and what they said. None outlives its guard: it is killed when that is dropped, and ends by itself when
//! this process is gone, because its standard input ends.

use std::io::{BufRead as _, BufReader, Write as _};
use std::process::{Command, Stdio};
use std::sync::{Arc, Mutex};

use tokio::sync::mpsc;

use crate::support::soon;

pub(crate) const ROLE: &str = "RECACHE_TEST_ROLE";
pub(crate) const URL: &str = "RECACHE_TEST_URL";
pub(crate) const SEED: &str = "RECACHE_TEST_SEED";

/// Lines of all children of one test, in the order in which this process read them.
pub(crate) type Log = Arc<Mutex<Vec<String>>>;

#[derive(Debug)]
pub(crate) struct Child {
    process: std::process::Child,
    lines: mpsc::UnboundedReceiver<String>,
    reader: Option<std::thread::JoinHandle<()>>,
}

impl Child {
    pub(crate) fn start(role: &str, url: &str, seed: u64, log: &Log) -> Self {
        Self::start_with(role, url, seed, log, &[])
    }

    /// With more in its environment.
    pub(crate) fn start_with(
        role: &str,
        url: &str,
        seed: u64,
        log: &Log,
        environment: &[(&str, &str)],
    ) -> Self {
        let mut process = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "child::child_process", "--nocapture", "--test-threads", "1"])
            .envs([(ROLE, role), (URL, url), (SEED, &seed.to_string())])
            .envs(environment.iter().copied())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut output = BufReader::new(process.stdout.take().unwrap());
        let (said, lines) = mpsc::unbounded_channel();
        let log = Arc::clone(log);
        let reader = std::thread::spawn(move || {
            let mut line = Vec::new();
            while output.read_until(b'\n', &mut line).is_ok_and(|count| count > 0) {
                // What a killed child had not finished to say was not said.
                if line.ends_with(b"\n")
                    && let Some((_, text)) = String::from_utf8_lossy(&line).trim_end().split_once('@')
                {
                    log.lock().unwrap().push(text.to_owned());
                    let _ = said.send(text.to_owned());
                }
                line.clear();
            }
        });
        Self { process, lines, reader: Some(reader) }
    }

    /// Waits until it says a line that begins so; answers the rest of it. `None`: it ended before.
    pub(crate) async fn hear(&mut self, begin: &str) -> Option<String> {
        soon(async {
            while let Some(line) = self.lines.recv().await {
                if let Some(rest) = line.strip_prefix(begin) {
                    return Some(rest.trim().to_owned());
                }
            }
            None
        })
        .await
    }

    pub(crate) fn tell(&mut self, line: &str) {
        writeln!(self.process.stdin.as_mut().unwrap(), "{line}").unwrap();
    }

    pub(crate) fn signal(&self, name: &str) {
        let status =
            Command::new("kill").args([format!("-{name}"), self.process.id().to_string()]).status().unwrap();
        assert!(status.success(), "kill -{name}");
    }

    /// `kill -9`. When this returns it is gone, and all that it said is in the log.
    pub(crate) fn kill(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
        if let Some(reader) = self.reader.take() {
            let _ = reader.join();
        }
    }

    /// Its end, as it chose.
    pub(crate) async fn end(mut self) {
        while soon(self.lines.recv()).await.is_some() {}
        assert!(self.process.wait().unwrap().success());
    }
}

impl Drop for Child {
    fn drop(&mut self) {
        self.kill();
    }
}
