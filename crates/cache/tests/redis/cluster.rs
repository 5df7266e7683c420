//! A cluster of three nodes: the whole suite, keys that move, and a node that dies.

use std::sync::Arc;
use std::time::Duration;

use recache_cache::config::{RedisConfig, RedisMode};
use recache_cache::provider::{Entry, Redis, RedisSettings};
use recache_cache::{Key, KeyPrefix, Provider};
use tokio::time::{Instant, sleep};

use crate::conformance::{World, conformance};
use crate::redis_server::{RedisServer, free_port};
use crate::{KEEP_FOR, config, item, key, put, read, until, until_healthy};

const TICK: Duration = Duration::from_millis(150);
const SLOTS: u32 = 16_384;

pub(crate) struct Nodes(Vec<RedisServer>);

async fn nodes() -> Nodes {
    let mut nodes = Vec::new();
    for _ in 0..3 {
        let bus = free_port().to_string();
        let options = ["--cluster-enabled", "yes", "--cluster-port", &bus, "--cluster-node-timeout", "1000"];
        let require = ["--cluster-require-full-coverage", "no", "--cluster-allow-reads-when-down", "no"];
        let node = RedisServer::start_with(&[&options[..], &require[..]].concat()).await;
        nodes.push((node, bus));
    }
    for (index, (node, _)) in (0_u32..).zip(&nodes) {
        let first = SLOTS * index / 3;
        let last = SLOTS * (index + 1) / 3 - 1;
        let _: () = node.ask(&["CLUSTER", "ADDSLOTSRANGE", &first.to_string(), &last.to_string()]).await;
        let (first, bus) = &nodes[0];
        if index > 0 {
            let _: () = node.ask(&["CLUSTER", "MEET", "127.0.0.1", &first.port().to_string(), bus]).await;
        }
    }
    let nodes = Nodes(nodes.into_iter().map(|(node, _)| node).collect());
    for node in &nodes.0 {
        until("the cluster stands", async || {
            let info: String = node.ask(&["CLUSTER", "INFO"]).await;
            let slots: Vec<redis::Value> = node.ask(&["CLUSTER", "SLOTS"]).await;
            info.contains("cluster_state:ok") && slots.len() == 3
        })
        .await;
    }
    nodes
}

fn of(nodes: &Nodes, prefix: &str) -> Arc<Redis> {
    let config = RedisConfig { mode: RedisMode::Cluster, ..config(&nodes.0[0].url()) };
    Arc::new(Redis::new(&RedisSettings::from_config(&config).unwrap(), KeyPrefix::new(prefix)))
}

/// Once every node can be written to.
async fn ready(redis: &Redis) {
    until_healthy(redis).await;
    until("every node is there", async || {
        let keys: Vec<_> = (0..50).map(|number| key(&number.to_string())).collect();
        redis.delete(&keys).await.is_ok()
    })
    .await;
}

async fn world(nodes: Arc<Nodes>, prefix: String) -> World {
    let (provider, peer) = (of(&nodes, &prefix), of(&nodes, &prefix));
    ready(&provider).await;
    ready(&peer).await;
    World::real(prefix, TICK, provider).with_peer(peer).holding(nodes)
}

conformance!(table_only redis_cluster, nodes(), world);

async fn slot_of(node: &RedisServer, key: &Key) -> String {
    let slot: u32 = node.ask(&["CLUSTER", "KEYSLOT", key.as_str()]).await;
    slot.to_string()
}

/// The node that has the slot, by asking each.
async fn owner(nodes: &Nodes, key: &Key) -> usize {
    for (index, node) in nodes.0.iter().enumerate() {
        if node.try_ask::<Option<String>>(&["GET", key.as_str()]).await.is_ok() {
            return index;
        }
    }
    panic!("nobody has it");
}

#[tokio::test]
async fn a_slot_that_moved_is_followed() {
    let nodes = nodes().await;
    let redis = of(&nodes, "p");
    ready(&redis).await;
    let key = key("moves");
    let (from, slot) = (owner(&nodes, &key).await, slot_of(&nodes.0[0], &key).await);
    let to = (from + 1) % 3;
    let id: String = nodes.0[to].ask(&["CLUSTER", "MYID"]).await;
    for node in [to, from, (from + 2) % 3] {
        let _: () = nodes.0[node].ask(&["CLUSTER", "SETSLOT", &slot, "NODE", &id]).await;
    }
    put(&*redis, &key, b"v").await.unwrap();
    assert_eq!(owner(&nodes, &key).await, to);
    assert_eq!(read(&*redis, &key).await.unwrap(), b"v");
    let leases = redis.leases().unwrap();
    leases.take(&key, 7, Duration::from_secs(60), Some(&item(b"v"))).await.unwrap();
}

#[tokio::test]
async fn a_slot_under_way_is_read_and_leased_where_its_key_is() {
    let nodes = nodes().await;
    let redis = of(&nodes, "p");
    ready(&redis).await;
    let key = key("under way");
    let (from, slot) = (owner(&nodes, &key).await, slot_of(&nodes.0[0], &key).await);
    let to = (from + 1) % 3;
    put(&*redis, &key, b"v").await.unwrap();
    let (source, target): (String, String) =
        (nodes.0[from].ask(&["CLUSTER", "MYID"]).await, nodes.0[to].ask(&["CLUSTER", "MYID"]).await);
    let _: () = nodes.0[to].ask(&["CLUSTER", "SETSLOT", &slot, "IMPORTING", &source]).await;
    let _: () = nodes.0[from].ask(&["CLUSTER", "SETSLOT", &slot, "MIGRATING", &target]).await;
    let port = nodes.0[to].port().to_string();
    let _: () = nodes.0[from].ask(&["MIGRATE", "127.0.0.1", &port, key.as_str(), "0", "1000"]).await;
    assert_eq!(read(&*redis, &key).await.unwrap(), b"v", "asked there, this once");
    let id = &target;
    for node in [to, from, (from + 2) % 3] {
        let _: () = nodes.0[node].ask(&["CLUSTER", "SETSLOT", &slot, "NODE", id]).await;
    }
    assert_eq!(read(&*redis, &key).await.unwrap(), b"v");
}

#[tokio::test]
async fn a_dead_node_takes_only_its_keys_along_and_costs_no_wait() {
    let mut nodes = nodes().await;
    let redis = of(&nodes, "p");
    ready(&redis).await;
    let keys: Vec<_> = (0..30).map(|number| key(&number.to_string())).collect();
    let entries = keys.iter().map(|key| Entry { key: key.clone(), item: item(b"v"), keep_for: KEEP_FOR });
    redis.set_many(entries.collect()).await.unwrap();
    let mut owners = Vec::new();
    for key in &keys {
        owners.push(owner(&nodes, key).await);
    }
    nodes.0[2].kill();
    sleep(Duration::from_millis(100)).await;
    for (key, owner) in keys.iter().zip(&owners) {
        let start = Instant::now();
        let found = redis.get(key).await;
        assert!(start.elapsed() < Duration::from_millis(500), "{:?}", start.elapsed());
        assert_eq!(found.is_ok(), *owner != 2, "{found:?}");
    }
    nodes.0[2].start_again().await;
    until("it is found again", async || {
        put(&*redis, &keys[owners.iter().position(|owner| *owner == 2).unwrap()], b"v").await.is_ok()
    })
    .await;
}
