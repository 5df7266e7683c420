//! A server of ours on loopback that keeps what it is sent and answers as its paths say.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc;
use std::sync::{Arc, Mutex};
use std::time::Duration;

/// What was sent.
#[derive(Debug, Clone)]
pub(crate) struct Request {
    pub(crate) path: String,
    pub(crate) body: String,
    headers: Vec<(String, String)>,
}

impl Request {
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str())
    }
}

/// The server; its threads end with the test.
pub(crate) struct Receiver {
    address: SocketAddr,
    kept: Arc<Mutex<Vec<Request>>>,
    came: Mutex<mpsc::Receiver<Request>>,
}

impl Receiver {
    pub(crate) fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let kept = Arc::new(Mutex::new(Vec::new()));
        let (tell, came) = mpsc::channel();
        let hung = Arc::new(AtomicUsize::new(0));
        let all = Arc::clone(&kept);
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let (all, tell, hung) = (Arc::clone(&all), tell.clone(), Arc::clone(&hung));
                std::thread::spawn(move || {
                    let Ok(mut stream) = stream else { return };
                    let Some(request) = read(&stream) else { return };
                    all.lock().unwrap().push(request.clone());
                    let _ = tell.send(request.clone());
                    answer(&mut stream, &request, &hung);
                });
            }
        });
        Self { address, kept, came: Mutex::new(came) }
    }

    pub(crate) fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }

    /// The next request.
    pub(crate) fn next(&self) -> Request {
        self.came.lock().unwrap().recv_timeout(Duration::from_secs(60)).expect("a request comes")
    }

    pub(crate) fn requests(&self) -> Vec<Request> {
        self.kept.lock().unwrap().clone()
    }

    pub(crate) fn paths(&self) -> Vec<String> {
        self.requests().into_iter().map(|request| request.path).collect()
    }
}

fn read(stream: &TcpStream) -> Option<Request> {
    let mut reader = BufReader::new(stream);
    let mut line = String::new();
    reader.read_line(&mut line).ok()?;
    let target = line.split(' ').nth(1)?.to_owned();
    let path = target.split('?').next()?.to_owned();
    let (mut headers, mut length) = (Vec::new(), 0);
    loop {
        let mut line = String::new();
        reader.read_line(&mut line).ok()?;
        let Some((name, value)) = line.trim_end().split_once(": ") else { break };
        if name.eq_ignore_ascii_case("content-length") {
            length = value.parse().ok()?;
        }
        headers.push((name.to_ascii_lowercase(), value.to_owned()));
    }
    let mut body = vec![0; length];
    reader.read_exact(&mut body).ok()?;
    Some(Request { path, body: String::from_utf8(body).ok()?, headers })
}

fn answer(stream: &mut TcpStream, request: &Request, hung: &AtomicUsize) {
    let path = request.path.as_str();
    let plain = |status: &str, more: &str| {
        format!("HTTP/1.1 {status} X\r\ncontent-length: 0\r\nconnection: close\r\n{more}\r\n")
    };
    let with_body = |kind: &str, body: &str| {
        let length = body.len();
        format!(
            "HTTP/1.1 200 OK\r\ncontent-type: {kind}\r\ncontent-length: {length}\r\nconnection: close\r\n\r\n{body}"
        )
    };
    let text = match path {
        "/busy" => plain("429", "retry-after: 3600\r\n"),
        "/moved" => plain("302", "location: /elsewhere\r\n"),
        "/hangs" => return hang(),
        "/first-hangs" | "/first-hangs-echo" if hung.fetch_add(1, Ordering::SeqCst) == 0 => return hang(),
        "/echo" | "/first-hangs-echo" => with_body("application/json", &request.body),
        "/text" => with_body("text/plain", &request.body),
        "/slow-body" => {
            let _ = stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 1000000\r\n\r\nx");
            return hang();
        }
        path => match path.strip_prefix("/status/") {
            Some(status) => plain(status, ""),
            None => plain("204", ""),
        },
    };
    let _ = stream.write_all(text.as_bytes());
}

/// Longer than any test.
#[allow(clippy::disallowed_methods, reason = "a server that never answers waits for time alone")]
fn hang() {
    std::thread::sleep(Duration::from_secs(600));
}
