//! The command line against a real server says what it says against the server's database.
#![cfg(unix)]
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    missing_docs,
    reason = "a test says what it expects"
)]

use std::io::{BufRead as _, BufReader};
use std::process::{Child, Command, Stdio};

use serde_json::Value;

struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// A server on a port of its own, over a database of its own.
struct Served {
    _child: Running,
    url: String,
    folder: tempfile::TempDir,
    database: String,
    _guard: Option<recache_store::conformance::TestDatabase>,
}

/// What came of a command.
#[derive(Debug, PartialEq, Eq)]
struct Ran {
    code: i32,
    out: String,
    err: String,
}

impl Ran {
    #[track_caller]
    fn ok(self) -> String {
        assert_eq!(self.code, 0, "{self:?}");
        self.out
    }

    #[track_caller]
    fn json(self) -> Value {
        let out = self.ok();
        serde_json::from_str(&out).unwrap_or_else(|error| panic!("{error}: {out}"))
    }

    #[track_caller]
    fn refused(self, code: i32, texts: &[&str]) {
        assert_eq!((self.code, self.out.as_str()), (code, ""), "{self:?}");
        for text in texts {
            assert!(self.err.contains(text), "`{text}` is not in {self:?}");
        }
    }
}

fn command(folder: &std::path::Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_recache"));
    for (name, _) in std::env::vars_os() {
        if name.to_string_lossy().starts_with("RECACHE") {
            command.env_remove(name);
        }
    }
    command.current_dir(folder).stdin(Stdio::null()).env("USER", "tester");
    command.env("XDG_CONFIG_HOME", folder.join("config"));
    command
}

impl Served {
    fn start(variables: &[(&str, &str)]) -> Self {
        Self::over("sqlite:s.db".to_owned(), None, variables)
    }

    fn over(
        database: String,
        guard: Option<recache_store::conformance::TestDatabase>,
        variables: &[(&str, &str)],
    ) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let mut serve = command(folder.path());
        serve.args(["serve", "--database", &database]).env("RECACHE__SERVER__ADDRESS", "127.0.0.1:0");
        let mut child =
            Running(serve.envs(variables.iter().copied()).stderr(Stdio::piped()).spawn().unwrap());
        let mut lines = BufReader::new(child.0.stderr.take().unwrap()).lines();
        let url = loop {
            let line = lines.next().expect("it says where it listens").unwrap();
            if let Some((_, rest)) = line.split_once("http://") {
                break format!("http://{}", rest.trim_end_matches("/health"));
            }
        };
        // Somebody must read what it says, or it stops at a full pipe.
        std::thread::spawn(move || lines.for_each(drop));
        Self { _child: child, url, folder, database, _guard: guard }
    }

    /// Where the database is, from wherever one stands.
    fn url_of_database(&self) -> String {
        let folder = self.folder.path().display();
        self.database.replace("sqlite:", &format!("sqlite:{folder}/"))
    }

    fn run(&self, arguments: &[&str]) -> Ran {
        let output = command(self.folder.path()).args(arguments).output().unwrap();
        let text = |bytes| String::from_utf8(bytes).unwrap();
        Ran { code: output.status.code().unwrap_or(-1), out: text(output.stdout), err: text(output.stderr) }
    }

    /// Through the server.
    fn there(&self, arguments: &[&str]) -> Ran {
        self.run(&[arguments, &["--server", &self.url]].concat())
    }

    /// Through the database.
    fn here(&self, arguments: &[&str]) -> Ran {
        self.run(&[arguments, &["--database", &self.database]].concat())
    }

    /// Both ways, in every form: stdout and exit code are the same.
    #[track_caller]
    fn same(&self, arguments: &[&str]) -> Value {
        for format in ["table", "jsonl", "json"] {
            let arguments = [arguments, &["-o", format]].concat();
            let (here, there) = (self.here(&arguments), self.there(&arguments));
            assert_eq!(
                (steady(&here.out), here.code),
                (steady(&there.out), there.code),
                "{arguments:?}: {there:?}"
            );
            if format == "json" {
                return there.json();
            }
        }
        Value::Null
    }
}

/// Without the times that pass between two looks.
fn steady(text: &str) -> String {
    let is_passing = |line: &&str| !line.contains("staleness_ms") && !line.starts_with("staleness");
    text.lines().filter(is_passing).collect::<Vec<_>>().join("\n")
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_else(|| panic!("{value} is no text"))
}

/// The same scenario over both databases.
async fn both() -> Vec<Served> {
    let mut worlds = vec![Served::start(&[])];
    if let Some(database) = recache_store::conformance::postgres_database().await {
        let url = database.url().to_string();
        worlds.push(Served::over(url, Some(database), &[]));
    }
    worlds
}

#[path = "remote/client.rs"]
mod client;
#[path = "remote/fleet_figures.rs"]
mod fleet_figures;
#[path = "remote/nouns.rs"]
mod nouns;
#[path = "remote/profiles.rs"]
mod profiles;
#[path = "remote/refusals.rs"]
mod refusals;
