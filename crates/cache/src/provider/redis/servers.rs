//! From a key to the server that has it: one server, or the nodes of a cluster.
//!
//! A cluster's map is learned in the background and again when a node says that it is wrong. A call follows one
//! redirection at once, if it has a connection there; it never waits for one.

use std::collections::{BTreeMap, HashMap};
use std::sync::atomic::AtomicU64;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use redis::{Cmd, Pipeline, Value, cmd};
use tokio::runtime::Handle;
use tokio::sync::{Notify, watch};
use tokio::time::{sleep, timeout};

use super::connect::Dial;
use super::errors::{Failure, Redirect, protocol};
use super::lane::AbortOnDrop;
use super::node::{Line, Node, Target};
use super::script::Script;
use super::settings::{Login, Place, RedisSettings, ServersAt, nowhere};
use super::slots::{SLOTS, slot_of};
use super::value;
use crate::provider::Error;

/// The map is read again after this, even when no node complains.
const MAP_READ_EVERY: Duration = Duration::from_secs(30);
/// And no sooner than this after the last time, however many complain.
const MAP_READ_PAUSE: Duration = Duration::from_millis(100);

/// All servers of one provider.
#[derive(Debug)]
pub(super) enum Servers {
    One(Arc<Node>),
    Cluster(Arc<Cluster>, std::sync::OnceLock<AbortOnDrop>),
}

/// Which of some keys a server has, by slot; as places in the list of keys.
pub(super) struct Share {
    pub(super) node: Arc<Node>,
    pub(super) slots: Vec<Vec<usize>>,
}

impl Servers {
    /// Connects in the background; `opened` counts how often a server was entered, `entered` every connection.
    pub(super) fn new(
        settings: &RedisSettings,
        opened: Arc<watch::Sender<u64>>,
        entered: Arc<AtomicU64>,
    ) -> Self {
        let dial = Arc::new(Dial {
            has_tls: settings.has_tls,
            ca_file: settings.ca_file.clone(),
            timeout: settings.connection_timeout,
            opened,
            entered,
        });
        let (login, max) = (settings.login.clone(), settings.connections_max);
        let one = |target| Self::One(Arc::new(Node::new(target, login.clone(), Arc::clone(&dial), max)));
        match &settings.servers {
            ServersAt::One(place) => one(Target::At(place.clone())),
            ServersAt::Sentinels { sentinels, master } => {
                one(Target::Master { sentinels: sentinels.clone(), name: master.clone() })
            }
            ServersAt::Cluster(seeds) => {
                let cluster = Cluster {
                    seeds: seeds.clone(),
                    login,
                    dial,
                    connections_max: max,
                    map: RwLock::default(),
                    is_wrong: Notify::new(),
                };
                let servers = Self::Cluster(Arc::new(cluster), std::sync::OnceLock::new());
                servers.start();
                servers
            }
        }
    }

    /// Begins to connect, where that could not be begun before for want of a runtime.
    pub(super) fn start(&self) {
        match self {
            Self::One(node) => node.start(),
            Self::Cluster(cluster, task) => {
                if task.get().is_none()
                    && let Ok(runtime) = Handle::try_current()
                {
                    task.get_or_init(|| {
                        AbortOnDrop(runtime.spawn(keep_map(Arc::clone(cluster))).abort_handle())
                    });
                }
            }
        }
    }

    /// The server that has `key`.
    pub(super) fn of(&self, key: &str) -> Result<Arc<Node>, Error> {
        self.start();
        match self {
            Self::One(node) => Ok(Arc::clone(node)),
            Self::Cluster(cluster, _) => cluster.of_slot(slot_of(key)).ok_or_else(nowhere),
        }
    }

    /// Every server that is known.
    pub(super) fn all(&self) -> Vec<Arc<Node>> {
        self.start();
        match self {
            Self::One(node) => vec![Arc::clone(node)],
            Self::Cluster(cluster, _) => cluster.map.read().unwrap_or_else(PoisonError::into_inner).nodes(),
        }
    }

    /// Who has which of `keys`.
    pub(super) fn shares<'a>(&self, keys: impl Iterator<Item = &'a str>) -> Result<Vec<Share>, Error> {
        self.start();
        let cluster = match self {
            Self::One(node) => {
                return Ok(vec![Share {
                    node: Arc::clone(node),
                    slots: vec![keys.enumerate().map(|(at, _)| at).collect()],
                }]);
            }
            Self::Cluster(cluster, _) => cluster,
        };
        let mut by_slot: BTreeMap<u16, Vec<usize>> = BTreeMap::new();
        for (index, key) in keys.enumerate() {
            by_slot.entry(slot_of(key)).or_default().push(index);
        }
        let mut shares: Vec<Share> = Vec::new();
        for (slot, indices) in by_slot {
            let node = cluster.of_slot(slot).ok_or_else(nowhere)?;
            match shares.iter_mut().find(|share| Arc::ptr_eq(&share.node, &node)) {
                Some(share) => share.slots.push(indices),
                None => shares.push(Share { node, slots: vec![indices] }),
            }
        }
        Ok(shares)
    }

    /// One command about `key`.
    pub(super) async fn one(&self, key: &str, line: Line, command: &Cmd) -> Result<Value, Error> {
        let found;
        let node = match self {
            Self::One(node) => node,
            Self::Cluster(..) => {
                found = self.of(key)?;
                &found
            }
        };
        match node.one(line, command).await {
            Ok(value) => Ok(value),
            Err(failure) => match self.redirected(&failure, node) {
                Some((node, redirect)) => {
                    // In a box, so that the future of an answer at once stays small.
                    Box::pin(follow(&node, line, &redirect, command)).await.map_err(Failure::into_error)
                }
                None => Err(failure.into_error()),
            },
        }
    }

    /// A script about keys that share the slot of `key`. Sent whole only when the server does not have it.
    pub(super) async fn script(
        &self,
        script: &Script,
        keys: &[&str],
        arguments: &[&[u8]],
    ) -> Result<Value, Error> {
        let Some(key) = keys.first() else { return Err(nowhere()) };
        let mut node = self.of(key)?;
        let mut is_asking = None;
        // As it is known there, then in full, and the same once more after a redirection.
        let mut command = script.by_name(keys, arguments);
        for _ in 0..4 {
            let answer = match &is_asking {
                Some(redirect) => follow(&node, Line::Ordered, redirect, &command).await,
                None => node.one(Line::Ordered, &command).await,
            };
            let failure = match answer {
                Ok(value) => return Ok(value),
                Err(failure) => failure,
            };
            if failure.code() == Some("NOSCRIPT") {
                command = script.in_full(keys, arguments);
            } else if let (None, Some((there, redirect))) = (&is_asking, self.redirected(&failure, &node)) {
                node = there;
                is_asking = Some(redirect);
            } else {
                return Err(failure.into_error());
            }
        }
        Err(nowhere())
    }

    /// Commands about one key that take effect together or not at all; their answers.
    pub(super) async fn transaction(&self, key: &str, commands: &[Cmd]) -> Result<Vec<Value>, Error> {
        let mut pipeline = Pipeline::with_capacity(commands.len() + 2);
        transact(&mut pipeline, commands.iter().cloned());
        let node = self.of(key)?;
        let answers =
            node.many(Line::Ordered, &pipeline).await.map_err(|failure| self.broke(failure, &node))?;
        let told = answers.iter().find_map(|answer| match answer {
            Value::ServerError(told) => Some(Failure::Told(told.clone())),
            _ => None,
        });
        let answers = match told {
            None => answers,
            Some(failure) => match self.redirected(&failure, &node) {
                Some((there, redirect)) if !redirect.is_asking => {
                    there.many(Line::Ordered, &pipeline).await.map_err(Failure::into_error)?
                }
                _ => return Err(failure.into_error()),
            },
        };
        value::first_error(&answers)?;
        answers.into_iter().next_back().map_or_else(|| Err(protocol("no answer to EXEC")), value::array)
    }

    /// Where to go instead, when a node says so; the map is mended.
    fn redirected(&self, failure: &Failure, asked: &Node) -> Option<(Arc<Node>, Redirect)> {
        let Self::Cluster(cluster, _) = self else { return None };
        if let Some(redirect) = failure.redirect(asked.host()) {
            return Some((cluster.redirect(&redirect), redirect));
        }
        if matches!(failure, Failure::Gone(_)) || matches!(failure.code(), Some("CLUSTERDOWN" | "READONLY")) {
            cluster.is_wrong.notify_one();
        }
        None
    }

    /// The answers of one node to several commands say of a redirection: the next call is to go right.
    pub(super) fn learn(&self, values: &[Value], asked: &Node) {
        for value in values {
            if let Value::ServerError(told) = value {
                let _ = self.redirected(&Failure::Told(told.clone()), asked);
            }
        }
    }

    /// What a call to one node broke on.
    pub(super) fn broke(&self, failure: Failure, asked: &Node) -> Error {
        let _ = self.redirected(&failure, asked);
        failure.into_error()
    }
}

/// Frames `commands` so that they take effect together or not at all.
pub(super) fn transact(pipeline: &mut Pipeline, commands: impl IntoIterator<Item = Cmd>) {
    pipeline.cmd("MULTI");
    for command in commands {
        pipeline.add_command(command);
    }
    pipeline.cmd("EXEC");
}

async fn follow(node: &Node, line: Line, redirect: &Redirect, command: &Cmd) -> Result<Value, Failure> {
    if !redirect.is_asking {
        return node.one(line, command).await;
    }
    let mut commands = Pipeline::with_capacity(2);
    commands.add_command(cmd("ASKING")).add_command(command.clone());
    match node.many(line, &commands).await?.pop() {
        Some(Value::ServerError(told)) => Err(Failure::Told(told)),
        Some(value) => Ok(value),
        None => Err(Failure::Garbled),
    }
}

/// The nodes of a cluster.
#[derive(Debug)]
pub(super) struct Cluster {
    seeds: Vec<Place>,
    login: Login,
    dial: Arc<Dial>,
    connections_max: usize,
    map: RwLock<Map>,
    is_wrong: Notify,
}

#[derive(Debug, Default)]
struct Map {
    nodes: HashMap<Place, Arc<Node>>,
    /// The place of each slot's master.
    slots: Vec<Option<Place>>,
}

impl Map {
    fn nodes(&self) -> Vec<Arc<Node>> {
        self.nodes.values().cloned().collect()
    }
}

impl Cluster {
    fn of_slot(&self, slot: u16) -> Option<Arc<Node>> {
        let map = self.map.read().unwrap_or_else(PoisonError::into_inner);
        let place = map.slots.get(usize::from(slot))?.as_ref()?;
        map.nodes.get(place).cloned()
    }

    fn node(&self, place: &Place) -> Arc<Node> {
        let mut map = self.map.write().unwrap_or_else(PoisonError::into_inner);
        Arc::clone(map.nodes.entry(place.clone()).or_insert_with(|| self.make(place)))
    }

    fn make(&self, place: &Place) -> Arc<Node> {
        let (login, dial) = (self.login.clone(), Arc::clone(&self.dial));
        Arc::new(Node::new(Target::At(place.clone()), login, dial, self.connections_max))
    }

    /// The node that a redirection names.
    fn redirect(&self, redirect: &Redirect) -> Arc<Node> {
        let node = self.node(&redirect.place);
        if !redirect.is_asking {
            let mut map = self.map.write().unwrap_or_else(PoisonError::into_inner);
            if let Some(place) = map.slots.get_mut(usize::from(redirect.slot)) {
                *place = Some(redirect.place.clone());
            }
            self.is_wrong.notify_one();
        }
        node
    }

    /// Asks whoever is connected; true when the map is known now.
    async fn read_map(&self) -> bool {
        let nodes = self.map.read().unwrap_or_else(PoisonError::into_inner).nodes();
        for node in nodes.iter().filter(|node| node.is_open()) {
            let mut question = cmd("CLUSTER");
            question.arg("SLOTS");
            let Ok(Ok(answer)) = timeout(self.dial.timeout, node.one(Line::Any, &question)).await else {
                continue;
            };
            if let Some(ranges) = ranges(answer, node.host()).filter(|ranges| !ranges.is_empty()) {
                self.take(&ranges);
                return true;
            }
        }
        false
    }

    /// Takes a map over: opens what is new in it, closes what is not in it.
    fn take(&self, ranges: &[Range]) {
        let mut slots = vec![None; usize::from(SLOTS)];
        for Range { first, last, place } in ranges {
            for slot in *first..=*last {
                if let Some(known) = slots.get_mut(usize::from(slot)) {
                    *known = Some(place.clone());
                }
            }
        }
        let mut map = self.map.write().unwrap_or_else(PoisonError::into_inner);
        map.slots = slots;
        map.nodes.retain(|place, _| ranges.iter().any(|range| range.place == *place));
        for Range { place, .. } in ranges {
            map.nodes.entry(place.clone()).or_insert_with(|| self.make(place));
        }
    }
}

/// Keeps the map of the cluster right. Where every node of the map is gone it begins again with the seeds.
async fn keep_map(cluster: Arc<Cluster>) {
    loop {
        if cluster.read_map().await {
            let _ = timeout(MAP_READ_EVERY, cluster.is_wrong.notified()).await;
        } else {
            for seed in &cluster.seeds {
                cluster.node(seed);
            }
        }
        sleep(MAP_READ_PAUSE).await;
    }
}

#[derive(Debug, PartialEq, Eq)]
struct Range {
    first: u16,
    last: u16,
    place: Place,
}

/// Reads `CLUSTER SLOTS`; replicas are left out. A node that does not know its own host leaves it empty.
fn ranges(answer: Value, asked_host: &str) -> Option<Vec<Range>> {
    let mut ranges = Vec::new();
    for range in value::array(answer).ok()? {
        let mut parts = value::array(range).ok()?.into_iter();
        let mut number = || u16::try_from(value::integer(&parts.next()?).ok()?).ok();
        let (first, last) = (number()?, number()?);
        let mut master = value::array(parts.next()?).ok()?.into_iter();
        let host = value::text(master.next()?).filter(|host| !host.is_empty() && host != "?");
        let port = u16::try_from(value::integer(&master.next()?).ok()?).ok()?;
        ranges.push(Range { first, last, place: (host.unwrap_or_else(|| asked_host.to_owned()), port) });
    }
    Some(ranges)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_map_of_a_cluster_is_read_without_its_replicas() {
        let node = |host: &str, port| {
            Value::Array(vec![
                Value::BulkString(host.into()),
                Value::Int(port),
                Value::BulkString(b"id".to_vec()),
            ])
        };
        let range = |first, last, nodes: Vec<Value>| {
            Value::Array([vec![Value::Int(first), Value::Int(last)], nodes].concat())
        };
        let answer = Value::Array(vec![
            range(0, 99, vec![node("10.0.0.1", 7_000), node("10.0.0.2", 7_001)]),
            range(100, 16_383, vec![node("", 7_002)]),
        ]);
        let read = ranges(answer, "asked");
        let place = |host: &str, port| (host.to_owned(), port);
        assert_eq!(
            read,
            Some(vec![
                Range { first: 0, last: 99, place: place("10.0.0.1", 7_000) },
                Range { first: 100, last: 16_383, place: place("asked", 7_002) },
            ])
        );
        assert_eq!(ranges(Value::Okay, "asked"), None);
    }
}
