//! Measures streams of events: so many clients of one running server hear of jobs that end.
//!
//! ```console
//! $ RECACHE__SERVER__STREAMS_MAX=2000 RECACHE__SERVER__CONNECTIONS_MAX=4000 recache serve &
//! $ cargo run --release -p recache-server --example event_streams -- 127.0.0.1:7878 1000 50
//! ```
//!
//! Address, clients, jobs. Each job is submitted when the one before was heard of by everybody; what is measured is the time from the
//! answer to its submit until a client hears that it has completed.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::print_stdout,
    clippy::indexing_slicing,
    reason = "a measurement says what it sees, and stops where something is wrong"
)]

use std::time::Duration;

use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::TcpStream;
use tokio::sync::mpsc;
use tokio::time::{Instant, timeout};

#[tokio::main]
async fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [address, clients, jobs] = arguments.as_slice() else {
        println!("usage: event_streams ADDRESS CLIENTS JOBS");
        return;
    };
    let (clients, jobs): (usize, usize) =
        (clients.parse().expect("a number"), jobs.parse().expect("a number"));
    let (heard, mut hearing) = mpsc::unbounded_channel();
    let begun = Instant::now();
    for _ in 0..clients {
        let lines = listen(address).await;
        tokio::spawn(follow(lines, heard.clone()));
    }
    println!("{clients} clients listen after {:.2} s", begun.elapsed().as_secs_f64());
    let mut took = Vec::with_capacity(clients * jobs);
    for number in 0..jobs {
        let job = submit(address).await;
        let submitted = Instant::now();
        for _ in 0..clients {
            let next = timeout(Duration::from_secs(30), hearing.recv()).await;
            let (at, id): (Instant, String) = next.expect("all hear of it").expect("clients go on");
            assert_eq!(id, job, "job {number}: nobody hears of anything else, or twice");
            took.push(at.saturating_duration_since(submitted));
        }
    }
    took.sort();
    let at = |per_mille: usize| took[(took.len() - 1) * per_mille / 1_000].as_secs_f64() * 1e3;
    println!(
        "{} events told: p50 {:.0} ms, p99 {:.0} ms, longest {:.0} ms",
        took.len(),
        at(500),
        at(990),
        at(1_000)
    );
}

/// Opens a stream, and waits until it is open.
async fn listen(address: &str) -> BufReader<TcpStream> {
    let mut stream = TcpStream::connect(address).await.expect("the server can be reached");
    let ask = format!("GET /v1/events?types=job.completed HTTP/1.1\r\nhost: {address}\r\n\r\n");
    stream.write_all(ask.as_bytes()).await.unwrap();
    let mut lines = BufReader::new(stream);
    let mut line = String::new();
    loop {
        line.clear();
        let count = lines.read_line(&mut line).await.unwrap();
        assert!(count > 0 && !line.starts_with("HTTP/1.1 5"), "refused: raise server.streams_max");
        if line.starts_with("event: open") {
            return lines;
        }
    }
}

async fn follow(mut lines: BufReader<TcpStream>, heard: mpsc::UnboundedSender<(Instant, String)>) {
    let mut line = String::new();
    loop {
        line.clear();
        if lines.read_line(&mut line).await.unwrap_or(0) == 0 {
            return;
        }
        let Some(document) = line.strip_prefix("data: {\"id\":\"evt_").map(|_| &line["data: ".len()..])
        else {
            continue;
        };
        let event: serde_json::Value = serde_json::from_str(document).expect("a document");
        let id = event["job_id"].as_str().expect("a job").to_owned();
        if heard.send((Instant::now(), id)).is_err() {
            return;
        }
    }
}

async fn submit(address: &str) -> String {
    let body = r#"{"handler":"echo"}"#;
    let mut stream = TcpStream::connect(address).await.expect("the server can be reached");
    let head = format!("POST /v1/jobs HTTP/1.1\r\nhost: {address}\r\nconnection: close\r\n");
    let ask = format!("{head}content-type: application/json\r\ncontent-length: {}\r\n\r\n{body}", body.len());
    stream.write_all(ask.as_bytes()).await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    let document: serde_json::Value = serde_json::from_str(answer.split_once("\r\n\r\n").unwrap().1).unwrap();
    document["id"].as_str().expect("an id").to_owned()
}
