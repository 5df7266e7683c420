//! As little HTTP/1.1 as will do, so that the load costs little.

use std::net::SocketAddr;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

/// A request, ready to be sent.
#[derive(Debug, Clone)]
pub(crate) struct Request(Vec<u8>);

impl Request {
    pub(crate) fn new(method: &str, path: &str, body: &str) -> Self {
        let body_head = match body {
            "" => String::new(),
            body => format!("content-type: application/json\r\ncontent-length: {}\r\n", body.len()),
        };
        Self(format!("{method} {path} HTTP/1.1\r\nhost: 127.0.0.1\r\n{body_head}\r\n{body}").into_bytes())
    }

    pub(crate) fn get(path: &str) -> Self {
        Self::new("GET", path, "")
    }

    pub(crate) fn post(path: &str, body: &str) -> Self {
        Self::new("POST", path, body)
    }
}

/// A connection that stays.
#[derive(Debug)]
pub(crate) struct Wire {
    stream: TcpStream,
    buffer: Vec<u8>,
    is_ended: bool,
}

impl Wire {
    pub(crate) async fn open(address: SocketAddr) -> Self {
        let stream = TcpStream::connect(address).await.expect("the server can be reached");
        stream.set_nodelay(true).expect("it can be set");
        Self { stream, buffer: Vec::with_capacity(4_096), is_ended: false }
    }

    /// Whether the last answer was to be the last one.
    pub(crate) fn is_ended(&self) -> bool {
        self.is_ended
    }

    /// The status of the whole answer; `None` when the connection ended before.
    pub(crate) async fn ask(&mut self, request: &Request) -> Option<u16> {
        self.stream.write_all(&request.0).await.ok()?;
        self.buffer.clear();
        loop {
            if let Some(answer) = answer(&self.buffer)
                && self.buffer.len() >= answer.bytes
            {
                self.is_ended = answer.ends_connection;
                return Some(answer.status);
            }
            if self.stream.read_buf(&mut self.buffer).await.ok()? == 0 {
                return None;
            }
        }
    }
}

/// What the head of an answer says.
struct Answer {
    status: u16,
    /// With the body.
    bytes: usize,
    ends_connection: bool,
}

/// Once the head is there.
fn answer(bytes: &[u8]) -> Option<Answer> {
    let head_bytes = bytes.windows(4).position(|four| four == b"\r\n\r\n")? + 4;
    let head = std::str::from_utf8(bytes.get(..head_bytes)?).ok()?;
    let status = head.get(9..12)?.parse().ok()?;
    let (mut body_bytes, mut ends_connection) = (0, false);
    for (name, value) in head.lines().filter_map(|line| line.split_once(':')) {
        if name.eq_ignore_ascii_case("content-length") {
            body_bytes = value.trim().parse().ok()?;
        } else if name.eq_ignore_ascii_case("connection") {
            ends_connection = value.trim().eq_ignore_ascii_case("close");
        }
    }
    Some(Answer { status, bytes: head_bytes + body_bytes, ends_connection })
}

pub(crate) async fn once(address: SocketAddr, request: &Request) -> u16 {
    Wire::open(address).await.ask(request).await.expect("an answer")
}
