//! A backend that several caches share, in memory, which can be made unreachable, slow to tell and forgetful. For what
//! the cache does with a fleet; the real servers have tests of their own.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use recache_cache::epochs::{EpochRecord, Slot};
use recache_cache::provider::{
    Atomics, Capability, Copies, Entry, EpochStore, Error, Item, Lease, Leased, Leases, Message, Messages,
    Moka, Scope, Tiered,
};
use recache_cache::{Cache, Capabilities, Clock, Coherence, Key, KeyPrefix, Provider, Timestamp};
use tokio::sync::{Notify, mpsc};
use tokio::time::Instant;

/// Goes with tokio's paused time.
#[derive(Debug)]
pub(crate) struct TokioClock(Instant);

impl Default for TokioClock {
    fn default() -> Self {
        Self(Instant::now())
    }
}

impl Clock for TokioClock {
    fn now(&self) -> Timestamp {
        Timestamp::from_micros(1_795_000_000_000_000).saturating_add(self.elapsed())
    }

    fn elapsed(&self) -> Duration {
        self.0.elapsed()
    }
}

/// What all nodes share.
#[derive(Debug, Default)]
pub(crate) struct Server {
    state: Mutex<State>,
    lease_over: Notify,
    pub(crate) gets: AtomicU64,
    pub(crate) exchanges: AtomicU64,
}

#[derive(Debug, Default)]
struct State {
    entries: HashMap<Key, (Bytes, Instant)>,
    leases: HashMap<Key, (u128, Instant)>,
    record: EpochRecord,
    listeners: Vec<Listener>,
}

#[derive(Debug)]
struct Listener {
    node: u64,
    sender: mpsc::Sender<Message>,
}

/// One process's way to the server.
#[derive(Debug)]
pub(crate) struct Node {
    server: Arc<Server>,
    number: u64,
    is_cut_off: AtomicBool,
    loses_next_lease: AtomicBool,
    with_messages: bool,
}

impl Server {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap()
    }

    /// A restart that loses the record and keeps the entries, as a store that evicts may do.
    pub(crate) fn lose_epochs(&self) {
        self.state().record = EpochRecord::default();
    }

    pub(crate) fn holds(&self, key: &Key) -> bool {
        self.state().entries.contains_key(key)
    }
}

impl Node {
    pub(crate) fn new(server: &Arc<Server>, number: u64, with_messages: bool) -> Arc<Self> {
        Arc::new(Self {
            server: Arc::clone(server),
            number,
            is_cut_off: AtomicBool::new(false),
            loses_next_lease: AtomicBool::new(false),
            with_messages,
        })
    }

    /// Every call fails, and no message comes or goes.
    pub(crate) fn cut_off(&self, is_cut_off: bool) {
        self.is_cut_off.store(is_cut_off, Ordering::SeqCst);
    }

    /// The next lease is granted, and the answer does not arrive.
    pub(crate) fn lose_next_lease(&self) {
        self.loses_next_lease.store(true, Ordering::SeqCst);
    }

    fn reach(&self) -> Result<MutexGuard<'_, State>, Error> {
        self.server.exchanges.fetch_add(1, Ordering::SeqCst);
        if self.is_cut_off.load(Ordering::SeqCst) {
            return Err(Error::Unavailable { provider: "shared", reason: "cut off".to_owned() });
        }
        Ok(self.server.state())
    }
}

impl State {
    fn live(&self, key: &Key) -> Option<Item> {
        let (bytes, until) = self.entries.get(key)?;
        (Instant::now() < *until).then(|| Item::from(bytes.clone()))
    }

    fn put(&mut self, key: &Key, item: &Item, keep_for: Duration) {
        let until = Instant::now() + keep_for.min(Duration::from_hours(24));
        self.entries.insert(key.clone(), (item.bytes.clone(), until));
    }

    fn standing(&self, key: &Key) -> Option<u128> {
        let (token, until) = self.leases.get(key)?;
        (Instant::now() < *until).then_some(*token)
    }

    fn record(&mut self) -> &mut EpochRecord {
        if self.record.incarnation == 0 {
            let drawn = uuid::Uuid::new_v4().as_u64_pair().0 | 1;
            self.record = EpochRecord { incarnation: drawn, version: 1, epochs: Vec::new() };
        }
        &mut self.record
    }
}

#[async_trait]
impl Provider for Node {
    fn name(&self) -> &'static str {
        "shared"
    }

    fn capabilities(&self) -> Capabilities {
        Capabilities::declared(
            Coherence::Strict,
            &[Capability::Retains, Capability::Shared, Capability::Leases],
        )
    }

    fn peek(&self, _key: &Key, _now: Timestamp) -> Option<Item> {
        None
    }

    async fn get(&self, key: &Key) -> Result<Option<Item>, Error> {
        self.server.gets.fetch_add(1, Ordering::SeqCst);
        Ok(self.reach()?.live(key))
    }

    async fn set(&self, key: &Key, item: Item, keep_for: Duration) -> Result<(), Error> {
        let mut state = self.reach()?;
        state.leases.remove(key);
        state.put(key, &item, keep_for);
        Ok(())
    }

    async fn delete(&self, keys: &[Key]) -> Result<(), Error> {
        let mut state = self.reach()?;
        for key in keys {
            state.entries.remove(key);
            state.leases.remove(key);
        }
        drop(state);
        self.server.lease_over.notify_waiters();
        Ok(())
    }

    async fn replace(&self, key: &Key, seen: &Item, item: Item, keep_for: Duration) -> Result<bool, Error> {
        let mut state = self.reach()?;
        let is_same = state.live(key).is_some_and(|found| found.bytes == seen.bytes);
        if is_same {
            state.put(key, &item, keep_for);
        }
        Ok(is_same)
    }

    async fn get_many(&self, keys: &[Key]) -> Result<Vec<Option<Item>>, Error> {
        let state = self.reach()?;
        Ok(keys.iter().map(|key| state.live(key)).collect())
    }

    async fn set_many(&self, entries: Vec<Entry>) -> Result<(), Error> {
        let mut state = self.reach()?;
        for Entry { key, item, keep_for } in entries {
            state.leases.remove(&key);
            state.put(&key, &item, keep_for);
        }
        Ok(())
    }

    async fn clear(&self, _scope: &Scope) -> Result<(), Error> {
        self.reach().map(|_| ())
    }

    async fn health(&self) -> Result<(), Error> {
        self.reach().map(|_| ())
    }

    fn evictions(&self) -> Option<u64> {
        None
    }

    fn copies(&self) -> Option<&dyn Copies> {
        None
    }

    fn leases(&self) -> Option<&dyn Leases> {
        Some(self)
    }

    fn epochs(&self) -> Option<&dyn EpochStore> {
        Some(self)
    }

    fn atomics(&self) -> Option<&dyn Atomics> {
        None
    }

    fn messages(&self) -> Option<&dyn Messages> {
        self.with_messages.then_some(self)
    }
}

#[async_trait]
impl Leases for Node {
    async fn take(
        &self,
        key: &Key,
        token: u128,
        lease_for: Duration,
        seen: Option<&Item>,
    ) -> Result<Leased, Error> {
        let mut state = self.reach()?;
        let found = state.live(key);
        if found.as_ref().map(|item| &item.bytes) != seen.map(|item| &item.bytes)
            && let Some(item) = found
        {
            return Ok(Leased::Present(item));
        }
        if state.standing(key).is_some_and(|holder| holder != token) {
            return Ok(Leased::Held);
        }
        state.leases.insert(key.clone(), (token, Instant::now() + lease_for));
        if self.loses_next_lease.swap(false, Ordering::SeqCst) {
            return Err(Error::Unavailable { provider: "shared", reason: "the answer was lost".to_owned() });
        }
        Ok(Leased::Granted(Lease { token, fence: 0 }))
    }

    async fn fill(&self, key: &Key, lease: &Lease, item: Item, keep_for: Duration) -> Result<bool, Error> {
        let mut state = self.reach()?;
        let may_fill = state.standing(key) == Some(lease.token);
        if may_fill {
            state.leases.remove(key);
            state.put(key, &item, keep_for);
        }
        drop(state);
        self.server.lease_over.notify_waiters();
        Ok(may_fill)
    }

    async fn release(&self, key: &Key, lease: &Lease) -> Result<(), Error> {
        let mut state = self.reach()?;
        if state.standing(key) == Some(lease.token) {
            state.leases.remove(key);
        }
        drop(state);
        self.server.lease_over.notify_waiters();
        Ok(())
    }

    async fn ended(&self, _key: &Key) {
        self.server.lease_over.notified().await;
    }
}

#[async_trait]
impl EpochStore for Node {
    async fn read(&self, incarnation: u64, version: u64) -> Result<Option<EpochRecord>, Error> {
        let mut state = self.reach()?;
        let record = state.record();
        let is_known = record.incarnation == incarnation && record.version == version;
        Ok((!is_known).then(|| record.clone()))
    }

    async fn raise(&self, slots: &[Slot]) -> Result<EpochRecord, Error> {
        let mut state = self.reach()?;
        let record = state.record();
        record.version += 1;
        for slot in slots {
            match record.epochs.iter_mut().find(|(known, _)| known == slot) {
                Some((_, epoch)) => *epoch += 1,
                None => record.epochs.push((*slot, 1)),
            }
        }
        Ok(record.clone())
    }

    async fn changed(&self) {
        std::future::pending::<()>().await;
    }
}

#[async_trait]
impl Messages for Node {
    async fn publish(&self, _channel: &str, payload: Bytes) -> Result<(), Error> {
        let state = self.reach()?;
        for listener in &state.listeners {
            let _ = listener.sender.try_send(Message::Payload(payload.clone()));
        }
        Ok(())
    }

    fn subscribe(&self, _channel: &str) -> mpsc::Receiver<Message> {
        let (sender, receiver) = mpsc::channel(1_024);
        sender.try_send(Message::Gap).unwrap();
        self.server.state().listeners.push(Listener { node: self.number, sender });
        receiver
    }
}

impl Server {
    /// The messages of a node end silently: nothing comes any more, and nobody says so.
    pub(crate) fn unhook(&self, node: u64) {
        let (silent, _) = mpsc::channel(1);
        for listener in self.state().listeners.iter_mut().filter(|listener| listener.node == node) {
            // Kept alive, so that the listener sees silence and not an end.
            let old = std::mem::replace(&mut listener.sender, silent.clone());
            std::mem::forget(old);
        }
    }
}

/// Caches of several processes over one server.
pub(crate) struct Fleet {
    pub(crate) server: Arc<Server>,
    pub(crate) nodes: Vec<Arc<Node>>,
    pub(crate) caches: Vec<Cache>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Shape {
    /// The shared server alone.
    Far,
    /// Copies in the process, told by messages.
    Tiered,
    /// Copies in the process, told by epochs alone.
    TieredSilent,
}

impl Fleet {
    pub(crate) fn new(shape: Shape, size: u64) -> Self {
        let server = Arc::new(Server::default());
        let clock: Arc<dyn Clock> = Arc::new(TokioClock::default());
        let nodes: Vec<_> =
            (0..size).map(|number| Node::new(&server, number, shape == Shape::Tiered)).collect();
        let caches = nodes
            .iter()
            .map(|node| {
                let far: Arc<dyn Provider> = node.clone();
                let provider: Arc<dyn Provider> = match shape {
                    Shape::Far => far,
                    Shape::Tiered | Shape::TieredSilent => {
                        let near = Arc::new(Moka::new(1_000, 1 << 20, Arc::clone(&clock)));
                        Arc::new(Tiered::new(near, far, KeyPrefix::new("fleet")))
                    }
                };
                Cache::builder(provider, Arc::clone(&clock)).key_prefix("fleet").build()
            })
            .collect();
        Self { server, nodes, caches }
    }

    /// Whose caches have been used, and have heard of each other.
    pub(crate) async fn warm(shape: Shape, size: u64) -> Self {
        let fleet = Self::new(shape, size);
        for cache in &fleet.caches {
            cache.get::<u64>(&fleet.key("none")).await;
        }
        tokio::time::sleep(Duration::from_secs(1)).await;
        fleet
    }

    pub(crate) fn key(&self, name: &str) -> Key {
        self.caches[0].keys().space("things").key([name])
    }
}
