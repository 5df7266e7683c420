//! The nodes: real processes on addresses that stay theirs.

use std::net::SocketAddr;
use std::time::Duration;

use recache_faultproxy::{Error, ServerProcess};
use recache_store::conformance::{TestDatabase, empty_postgres_database};

use crate::world::until;

/// As configured below; a dead node's jobs are taken away when both have passed.
pub(crate) const LEASE: Duration = Duration::from_secs(2);
pub(crate) const SWEEP: Duration = Duration::from_millis(500);

pub(crate) struct Fleet {
    pub(crate) nodes: Vec<ServerProcess>,
    _redis: ServerProcess,
    /// The last to go.
    _database: TestDatabase,
}

impl Fleet {
    /// Three nodes that serve. `None`, and loud, where PostgreSQL or Redis are missing; under CI that is a failure.
    pub(crate) async fn start() -> Option<Self> {
        let database = empty_postgres_database().await?;
        let redis = match ServerProcess::redis().start().await {
            Ok(redis) => redis,
            Err(missing @ Error::Missing { .. }) => {
                assert!(std::env::var_os("CI").is_none(), "{missing}");
                eprintln!("SKIPPED: {missing}");
                return None;
            }
            Err(error) => panic!("{error}"),
        };
        let mut nodes = Vec::new();
        for _ in 0..3 {
            let mut node = ServerProcess::generic(env!("CARGO_BIN_EXE_recache"))
                .args(["serve", "--config", "{data}/recache.toml"])
                .ready_when(
                    "GET /health/ready HTTP/1.1\r\nhost: 127.0.0.1\r\nconnection: close\r\n\r\n",
                    "HTTP/1.1 200",
                )
                .prepare()
                .unwrap();
            let config = configuration(node.address(), database.url(), redis.address());
            std::fs::write(node.data().join("recache.toml"), config).unwrap();
            node.start().await.unwrap();
            nodes.push(node);
        }
        Some(Self { nodes, _redis: redis, _database: database })
    }

    pub(crate) fn addresses(&self) -> Vec<SocketAddr> {
        self.nodes.iter().map(ServerProcess::address).collect()
    }

    /// What the nodes have said, where something went wrong.
    pub(crate) fn complaints(&self) -> String {
        let mut all = String::new();
        for node in &self.nodes {
            let log = std::fs::read_to_string(node.data().join("log")).unwrap_or_default();
            for line in log.lines().filter(|line| line.contains("ERROR") || line.contains("panic")) {
                all.push_str(&format!("{}: {line}\n", node.port()));
            }
        }
        all
    }
}

fn configuration(address: SocketAddr, database: &str, redis: SocketAddr) -> String {
    format!(
        "[server]\naddress = \"{address}\"\n\
         [database]\nurl = \"{database}\"\nmax_connections = 6\n\
         [engine]\nslots = 8\nlease_ms = {}\nsweep_ms = {}\ndrain_ms = 4000\n\
         [common.cache]\nenabled = true\nbackend = \"redis\"\n\
         [common.cache.redis]\nurl = \"redis://{redis}\"\n",
        LEASE.as_millis(),
        SWEEP.as_millis(),
    )
}

/// Waits until this node says that its cache is there.
pub(crate) async fn cache_is_active(address: SocketAddr) {
    until("the cache is there", async || {
        let answer = reqwest::get(format!("http://{address}/v1/cache/health")).await.ok()?;
        let text = answer.text().await.ok()?;
        (text.contains("\"active\"") && text.contains("redis")).then_some(())
    })
    .await;
}
