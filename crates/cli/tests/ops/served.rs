//! A server of our own, and how it is asked.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::TcpStream;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};

/// A process that ends with the test.
pub(crate) struct Running(pub(crate) Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// `recache serve` on a port of its own.
pub(crate) struct Served {
    pub(crate) address: String,
    /// What it wrote to stderr.
    pub(crate) said: Arc<Mutex<Vec<String>>>,
    child: Running,
    _folder: tempfile::TempDir,
}

/// The binary, with what it is told by its environment.
pub(crate) fn recache(arguments: &[&str], variables: &[(&str, &str)]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_recache"));
    command.args(arguments).envs(variables.iter().copied()).stdin(Stdio::null()).stderr(Stdio::piped());
    command
}

impl Served {
    pub(crate) fn start(variables: &[(&str, &str)]) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let mut command = recache(&["serve", "--database", "sqlite:s.db"], variables);
        command
            .env("RECACHE__SERVER__ADDRESS", "127.0.0.1:0")
            .env("RECACHE__COMMON__CACHE__ENABLED", "true")
            .env("RECACHE__COMMON__CACHE__BACKEND", "moka")
            .current_dir(folder.path());
        let mut child = Running(command.spawn().unwrap());
        let mut lines = BufReader::new(child.0.stderr.take().unwrap()).lines();
        let said: Arc<Mutex<Vec<String>>> = Arc::default();
        let address = loop {
            let line = lines.next().expect("it says where it listens").unwrap();
            said.lock().unwrap().push(line.clone());
            if let Some((_, rest)) = line.split_once("http://")
                && let Some(address) = rest.strip_suffix("/health")
            {
                break address.to_owned();
            }
        };
        let keeping = Arc::clone(&said);
        std::thread::spawn(move || {
            for line in lines.map_while(Result::ok) {
                keeping.lock().unwrap().push(line);
            }
        });
        Self { address, said, child, _folder: folder }
    }

    /// Tells it to stop, and waits until it has.
    pub(crate) fn terminate(&mut self) -> Option<i32> {
        terminate(&mut self.child)
    }

    pub(crate) fn get(&self, path: &str) -> String {
        ask(
            &self.address,
            &format!("GET {path} HTTP/1.1\r\nhost: {}\r\nconnection: close\r\n\r\n", self.address),
        )
    }

    pub(crate) fn post(&self, path: &str, body: &str) -> String {
        self.post_with("", path, body)
    }

    /// With more headers, each with its line's end.
    pub(crate) fn post_with(&self, headers: &str, path: &str, body: &str) -> String {
        let (address, length) = (&self.address, body.len());
        let head = format!("POST {path} HTTP/1.1\r\nhost: {address}\r\nconnection: close\r\n{headers}");
        ask(
            address,
            &format!("{head}content-type: application/json\r\ncontent-length: {length}\r\n\r\n{body}"),
        )
    }
}

/// Tells a process to stop, and waits until it has.
pub(crate) fn terminate(running: &mut Running) -> Option<i32> {
    let told = Command::new("kill").args(["-TERM", &running.0.id().to_string()]).status().unwrap();
    assert!(told.success());
    running.0.wait().unwrap().code()
}

/// The body of an answer that is good.
pub(crate) fn ask(address: &str, request: &str) -> String {
    let mut stream = TcpStream::connect(address).unwrap();
    stream.write_all(request.as_bytes()).unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    assert!(head.starts_with("HTTP/1.1 2"), "{answer}");
    body.to_owned()
}
