//! Memcached runs the one conformance suite, in both dialects and with the keys spread over several servers.
#![cfg(feature = "cache-memcached")]
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    missing_docs,
    reason = "a test says what it expects"
)]

#[allow(dead_code, reason = "no case moves time here")]
#[macro_use]
mod conformance;
#[allow(dead_code, reason = "each test file uses a part of it")]
#[path = "support/memcached.rs"]
mod server;

use std::sync::{Arc, Mutex, Weak};
use std::time::Duration;

use recache_cache::SystemClock;

use crate::conformance::World;
use crate::server::{Front, Fronted, Server, connected, provider};

/// memcached counts in whole seconds, and what must not end early lives up to two longer.
const TICK: Duration = Duration::from_millis(1_500);

/// The servers that the worlds of this process share: each world has a prefix of its own.
fn shared(place: usize) -> Arc<Server> {
    static SERVERS: Mutex<[Weak<Server>; 3]> = Mutex::new([Weak::new(), Weak::new(), Weak::new()]);
    let mut servers = SERVERS.lock().unwrap();
    if let Some(server) = servers[place].upgrade() {
        return server;
    }
    let server = Arc::new(Server::start(&["-c", "4096"]));
    servers[place] = Arc::downgrade(&server);
    server
}

async fn world(prefix: String, ports: &[u16]) -> World {
    let one = connected(provider(ports, Arc::new(SystemClock), &prefix)).await;
    let other = connected(provider(ports, Arc::new(SystemClock), &prefix)).await;
    World::real(prefix, TICK, Arc::new(one)).with_peer(Arc::new(other))
}

conformance!(meta, async |prefix| {
    let server = shared(0);
    world(prefix, &[server.port()]).await.holding(server)
});

conformance!(classic, async |prefix| {
    let server = shared(0);
    let old = Fronted::start(Front::Old, server.address()).await;
    world(prefix, &[old.port]).await.holding((server, old))
});

conformance!(three_servers, async |prefix| {
    let servers = [shared(0), shared(1), shared(2)];
    world(prefix, &servers.each_ref().map(|server| server.port())).await.holding(servers)
});
