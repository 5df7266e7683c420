//! The proxy that tests hold.

use std::collections::BTreeMap;
use std::hash::{BuildHasher as _, Hasher as _, RandomState};
use std::io;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::{JoinHandle, JoinSet};

use crate::counts::{Counters, Counts, count};
use crate::plan::{Accept, Chance, Ending, Flow, Lane, Plan};
use crate::port::{Deaf, Port};
use crate::pump::{Connection, reset};
use crate::random::Random;

/// The environment variable that gives a proxy its seed, in decimal or as `0x…`.
pub const SEED_VARIABLE: &str = "RECACHE_FAULT_SEED";

/// Which way bytes go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Direction {
    /// From the client.
    ToServer,
    /// From the server.
    ToClient,
}

impl Direction {
    pub(crate) fn number(self) -> u64 {
        match self {
            Self::ToServer => 0,
            Self::ToClient => 1,
        }
    }

    pub(crate) fn lane_of(self, plan: &Plan) -> &Lane {
        match self {
            Self::ToServer => &plan.to_server,
            Self::ToClient => &plan.to_client,
        }
    }
}

/// One connection of a proxy; they are numbered from 0 as they are accepted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct ConnectionId(pub(crate) u64);

/// A TCP proxy on a loopback port of its own. Dropping it ends its connections and frees the port.
///
/// Needs a tokio runtime with I/O and time.
#[derive(Debug)]
pub struct Proxy {
    address: SocketAddr,
    shared: Arc<Shared>,
    accepting: JoinHandle<()>,
    /// The change that the accepting task has carried out last.
    carried_out: watch::Receiver<u64>,
}

/// What the proxy and its connections share.
#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) seed: u64,
    pub(crate) counters: Counters,
    table: Mutex<Table>,
    /// Counts the changes of the table.
    version: watch::Sender<u64>,
    next_id: AtomicU64,
}

#[derive(Debug)]
struct Table {
    upstream: SocketAddr,
    plan: Arc<Plan>,
    own_plans: BTreeMap<ConnectionId, Arc<Plan>>,
    live: BTreeMap<ConnectionId, watch::Sender<Option<Ending>>>,
    random: Random,
}

impl Proxy {
    /// A proxy in front of `upstream`. Its seed is [`SEED_VARIABLE`] or drawn, and printed.
    pub fn start(upstream: SocketAddr) -> io::Result<Self> {
        let seed = match std::env::var(SEED_VARIABLE) {
            Ok(text) => parse_seed(&text).ok_or_else(|| {
                let text = format!("{SEED_VARIABLE} is \"{text}\": give a number, as 17 or 0x11");
                io::Error::new(io::ErrorKind::InvalidInput, text)
            })?,
            Err(_) => RandomState::new().build_hasher().finish(),
        };
        Self::start_with_seed(upstream, seed)
    }

    /// A proxy whose seed the test gives.
    #[expect(clippy::print_stderr, reason = "whoever reads why a test failed needs the seed")]
    pub fn start_with_seed(upstream: SocketAddr, seed: u64) -> io::Result<Self> {
        let port = Port::reserve()?;
        let address = port.address();
        eprintln!("fault proxy {address} -> {upstream}: repeat with {SEED_VARIABLE}={seed:#x}");
        let shared = Arc::new(Shared {
            seed,
            counters: Counters::default(),
            table: Mutex::new(Table {
                upstream,
                plan: Arc::default(),
                own_plans: BTreeMap::new(),
                live: BTreeMap::new(),
                random: Random::fork(seed, u64::MAX),
            }),
            version: watch::Sender::new(0),
            next_id: AtomicU64::new(0),
        });
        let (done, carried_out) = watch::channel(0);
        let door = Door::Open(port.listen()?);
        let accepting = tokio::spawn(accept(port, door, Arc::clone(&shared), done));
        Ok(Self { address, shared, accepting, carried_out })
    }

    /// Where clients connect.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// The port of [`address`](Self::address).
    pub fn port(&self) -> u16 {
        self.address.port()
    }

    /// What everything random follows from.
    pub fn seed(&self) -> u64 {
        self.shared.seed
    }

    /// What was done so far.
    pub fn counts(&self) -> Counts {
        self.shared.counters.snapshot()
    }

    /// From now on this is done, to connections that live and to new ones, except those with a plan of their own. When it
    /// returns, new connections meet it; what a live connection is writing at this moment may still get through.
    pub async fn set(&self, plan: Plan) {
        self.change(|table| table.plan = Arc::new(plan)).await;
    }

    /// Gives one connection a plan of its own, of which only the lanes count.
    pub async fn set_for(&self, connection: ConnectionId, plan: Plan) {
        self.change(|table| {
            if table.live.contains_key(&connection) {
                table.own_plans.insert(connection, Arc::new(plan));
            }
        })
        .await;
    }

    /// No more faults, on no connection.
    pub async fn heal(&self) {
        self.change(|table| {
            table.plan = Arc::default();
            table.own_plans.clear();
        })
        .await;
    }

    /// New connections go to another server, as after a failover.
    pub async fn redirect(&self, upstream: SocketAddr) {
        self.change(|table| table.upstream = upstream).await;
    }

    /// The connections that live, oldest first.
    pub fn connections(&self) -> Vec<ConnectionId> {
        self.shared.table().live.keys().copied().collect()
    }

    /// Ends all live connections; answers how many.
    pub fn end_all(&self, ending: Ending) -> u64 {
        self.end_some(Chance::ALWAYS, ending)
    }

    /// Ends each live connection with this chance; answers how many.
    pub fn end_some(&self, chance: Chance, ending: Ending) -> u64 {
        let mut table = self.shared.table();
        let Table { live, random, .. } = &mut *table;
        let hit = live.values().filter(|_| chance.is_hit(random)).map(|orders| order(orders, ending));
        let ended = count(hit.filter(|&is_new| is_new).count());
        self.shared.counters.ended.add(ended);
        ended
    }

    /// Ends one connection; answers whether it lived.
    pub fn end(&self, connection: ConnectionId, ending: Ending) -> bool {
        let has_ended = self.shared.table().live.get(&connection).is_some_and(|orders| order(orders, ending));
        self.shared.counters.ended.add(u64::from(has_ended));
        has_ended
    }

    async fn change(&self, change: impl FnOnce(&mut Table)) {
        let version = self.shared.change(change);
        let mut carried_out = self.carried_out.clone();
        // An error: the accepting task has ended, and with it all connections.
        let _ = carried_out.wait_for(|done| *done >= version).await;
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

/// Gives the order, unless one was given before.
fn order(orders: &watch::Sender<Option<Ending>>, ending: Ending) -> bool {
    orders.send_if_modified(|order| order.is_none() && order.replace(ending).is_none())
}

impl Shared {
    fn table(&self) -> MutexGuard<'_, Table> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Answers the number of the change.
    fn change(&self, change: impl FnOnce(&mut Table)) -> u64 {
        let mut table = self.table();
        change(&mut table);
        self.version.send_modify(|version| *version += 1);
        *self.version.borrow()
    }

    pub(crate) fn changes(&self) -> watch::Receiver<u64> {
        self.version.subscribe()
    }

    pub(crate) fn plan_for(&self, connection: ConnectionId) -> Arc<Plan> {
        let table = self.table();
        Arc::clone(table.own_plans.get(&connection).unwrap_or(&table.plan))
    }

    /// Takes a cut that fires once out of the plan; false when another connection has, or the plan is another one.
    pub(crate) fn take_cut(&self, connection: ConnectionId, direction: Direction, seen: &Arc<Plan>) -> bool {
        let mut is_ours = false;
        self.change(|table| {
            let plan = table.own_plans.get_mut(&connection).unwrap_or(&mut table.plan);
            is_ours = Arc::ptr_eq(plan, seen);
            if is_ours {
                match direction {
                    Direction::ToServer => Arc::make_mut(plan).to_server.cut = None,
                    Direction::ToClient => Arc::make_mut(plan).to_client.cut = None,
                }
            }
        });
        is_ours
    }

    pub(crate) fn count_arrival(&self, lane: &Lane, bytes: usize) {
        if lane.flow == Flow::Hold {
            self.counters.held_bytes.add(count(bytes));
        }
        if !lane.delay.is_zero() || !lane.jitter.is_zero() {
            self.counters.delayed_bytes.add(count(bytes));
        }
    }
}

/// What clients meet.
enum Door {
    Open(TcpListener),
    Closed,
    /// Held, so that nobody is answered.
    Deaf(Deaf),
}

impl Door {
    /// The door that `accept` wants; a door that cannot be had is a closed one.
    async fn turned(self, accept: Accept, port: &Port) -> Self {
        match (self, accept) {
            (_, Accept::Refuse) => Self::Closed,
            (Self::Deaf(deaf), Accept::Ignore) => Self::Deaf(deaf),
            (Self::Open(listener), Accept::Forward | Accept::Hang | Accept::Reset) => Self::Open(listener),
            (door, Accept::Ignore) => {
                drop(door);
                port.ignore().await.map_or(Self::Closed, Self::Deaf)
            }
            (door, Accept::Forward | Accept::Hang | Accept::Reset) => {
                drop(door);
                port.listen().map_or(Self::Closed, Self::Open)
            }
        }
    }

    async fn accept(&self) -> io::Result<(TcpStream, SocketAddr)> {
        match self {
            Self::Open(listener) => listener.accept().await,
            Self::Closed | Self::Deaf(_) => std::future::pending().await,
        }
    }
}

async fn accept(port: Port, mut door: Door, shared: Arc<Shared>, done: watch::Sender<u64>) {
    // Dropped with this task, and all connections with it.
    let mut running = JoinSet::new();
    let mut changes = shared.changes();
    loop {
        let version = *changes.borrow_and_update();
        let accept = shared.table().plan.accept;
        door = door.turned(accept, &port).await;
        done.send_replace(version);
        let client = tokio::select! {
            _ = changes.changed() => continue,
            Some(_) = running.join_next() => continue,
            accepted = door.accept() => match accepted {
                Ok((client, _)) => client,
                // Such as no file descriptors: the next may succeed.
                Err(_) => continue,
            },
        };
        shared.counters.connections.one();
        let id = ConnectionId(shared.next_id.fetch_add(1, Ordering::Relaxed));
        let (orders, received) = watch::channel(None);
        let upstream = {
            let mut table = shared.table();
            let turn_away = table.plan.turn_away;
            let is_turned_away = table.plan.accept == Accept::Reset || turn_away.is_hit(&mut table.random);
            (!is_turned_away).then(|| {
                table.live.insert(id, orders);
                table.upstream
            })
        };
        let Some(upstream) = upstream else {
            shared.counters.turned_away.one();
            reset(client);
            continue;
        };
        let connection = Connection { id, shared: Arc::clone(&shared), orders: received };
        running.spawn(async move {
            let shared = Arc::clone(&connection.shared);
            connection.run(client, upstream).await;
            let mut table = shared.table();
            table.live.remove(&id);
            table.own_plans.remove(&id);
        });
    }
}

fn parse_seed(text: &str) -> Option<u64> {
    match text.strip_prefix("0x") {
        Some(hex) => u64::from_str_radix(hex, 16).ok(),
        None => text.parse().ok(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn seed_is_read_as_it_is_printed() {
        assert_eq!(parse_seed("0x1f"), Some(31));
        assert_eq!(parse_seed("31"), Some(31));
        assert_eq!(parse_seed("many"), None);
    }
}
