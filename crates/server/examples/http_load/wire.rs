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
}

impl Wire {
    pub(crate) async fn open(address: SocketAddr) -> Self {
        let stream = TcpStream::connect(address).await.expect("the server can be reached");
        stream.set_nodelay(true).expect("it can be set");
        Self { stream, buffer: Vec::with_capacity(4_096) }
    }

    /// The status of the whole answer; `None` when the connection ended before.
    pub(crate) async fn ask(&mut self, request: &Request) -> Option<u16> {
        self.stream.write_all(&request.0).await.ok()?;
        self.buffer.clear();
        loop {
            if let Some((status, bytes)) = answer(&self.buffer)
                && self.buffer.len() >= bytes
            {
                return Some(status);
            }
            if self.stream.read_buf(&mut self.buffer).await.ok()? == 0 {
                return None;
            }
        }
    }
}

/// Status and length of an answer whose head is there.
fn answer(bytes: &[u8]) -> Option<(u16, usize)> {
    let head_bytes = bytes.windows(4).position(|four| four == b"\r\n\r\n")? + 4;
    let head = std::str::from_utf8(bytes.get(..head_bytes)?).ok()?;
    let status = head.get(9..12)?.parse().ok()?;
    let length = head.lines().find_map(|line| {
        let (name, value) = line.split_once(':')?;
        name.eq_ignore_ascii_case("content-length").then(|| value.trim().parse::<usize>().ok())?
    });
    Some((status, head_bytes + length.unwrap_or(0)))
}

pub(crate) async fn once(address: SocketAddr, request: &Request) -> u16 {
    Wire::open(address).await.ask(request).await.expect("an answer")
}
