//! Measures a running server: requests a second and their times, one after the other, and what becomes of it when three times as much is
//! asked of it as it can do.
//!
//! ```console
//! $ RECACHE__SERVER__REQUESTS_PER_SECOND_MAX=1000000 recache serve &
//! $ cargo run --release -p recache-server --example http_load -- 127.0.0.1:7878 10
//! ```
//!
//! Address, seconds a row, and names of rows if not all are wanted. Beside the server's rows stands a peer in the same run: axum that answers
//! `hello` and does nothing else, under three times too much as well: what it loses then is the machine's, which has to carry the load's
//! part too. The load comes from the same machine and takes its part of the cores.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stdout,
    reason = "a measurement says what it sees, and stops where something is wrong"
)]

mod figures;
mod load;
mod wire;

use std::net::SocketAddr;
use std::time::Duration;

use recache_worker::remote::{RemoteWorker, ServerOptions};
use recache_worker::{BuildContext, Handlers};
use tokio_util::sync::CancellationToken;

use load::{closed, open};
use wire::{Request, once};

/// Connections that ask one after the other.
const CONNECTIONS: usize = 64;
/// Connections of those who do not wait for answers before they ask for more; fewer than the server takes.
const OPEN_CONNECTIONS: usize = 900;
const VIEW: &str = "/v1/views/bench/load";

#[tokio::main]
async fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [address, seconds, wanted @ ..] = arguments.as_slice() else {
        println!("usage: http_load ADDRESS SECONDS [ROW…]");
        return;
    };
    let address: SocketAddr = address.parse().expect("an address");
    let time = Duration::from_secs(seconds.parse().expect("a number of seconds"));
    let is_wanted = |name: &str| wanted.is_empty() || wanted.iter().any(|one| one == name);
    make_view(address).await;

    let submit = Request::post("/v1/jobs", r#"{"handler":"nobody.does.this","queue":"bench"}"#);
    let many = format!(
        r#"{{"jobs":[{}]}}"#,
        vec![r#"{"handler":"nobody.does.this","queue":"bench"}"#; 100].join(",")
    );
    let rows = [
        ("hello", Request::get("/"), hello().await, 1),
        ("live", Request::get("/health/live"), address, 1),
        ("submit", submit.clone(), address, 1),
        ("submit-100", Request::post("/v1/jobs/bulk", &many), address, 100),
        ("touch", Request::post(&format!("{VIEW}/touch"), "{}"), address, 1),
        ("item", Request::get(&format!("{VIEW}/items/a")), address, 1),
    ];
    for (name, request, address, things) in &rows {
        if is_wanted(name) {
            let seen = closed(*address, request, CONNECTIONS, time).await;
            println!("{name:<12} {}", seen.line(*things));
        }
    }
    for (name, place) in [("hello-x3", 0), ("submit-x3", 2), ("item-x3", 5)] {
        if is_wanted(name) {
            let (_, request, address, _) = &rows[place];
            let capacity = closed(*address, request, CONNECTIONS, time).await;
            let offered = capacity.per_second() * 3.0;
            let seen = open(*address, request, OPEN_CONNECTIONS, offered, time).await;
            println!("{name:<12} {}", seen.beside(&capacity, offered));
        }
    }
}

/// A view with one generation, and nobody who builds another.
async fn make_view(address: SocketAddr) {
    let mut handlers = Handlers::new();
    handlers
        .view("bench.load", async |build: BuildContext| build.put("a", None, &"x".repeat(100)).await)
        .unwrap();
    let options = ServerOptions {
        queues: vec!["bench.views".to_owned()],
        ..ServerOptions::new(format!("http://{address}"))
    };
    let stop = CancellationToken::new();
    let worker = RemoteWorker::new(handlers, options).unwrap();
    let running = tokio::spawn(worker.run(stop.clone()));
    let define = r#"{"handler":"bench.load","queue":"bench.views","debounce_quiet_ms":0}"#;
    for request in
        [Request::new("PUT", VIEW, define), Request::post(&format!("{VIEW}/touch"), r#"{"at_once":true}"#)]
    {
        assert_eq!(once(address, &request).await, 200, "the view is made");
    }
    while once(address, &Request::get(&format!("{VIEW}/items/a"))).await != 200 {
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    stop.cancel();
    running.await.unwrap().unwrap();
}

/// The peer.
async fn hello() -> SocketAddr {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let router = axum::Router::new().route("/", axum::routing::get(|| async { "hello" }));
    tokio::spawn(async move { axum::serve(listener, router).await });
    address
}
