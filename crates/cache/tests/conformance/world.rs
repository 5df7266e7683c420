//! What a case plays in: one provider, perhaps seen by two processes, with a prefix of its own and a way to let time pass.
#![allow(dead_code, reason = "not every file of tests has a server, and not every one moves time")]

use std::any::Any;
use std::fmt;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use recache_cache::provider::{Atomics, Capability, EpochStore, Item, Leases, Messages};
use recache_cache::{Clock, Key, KeyPrefix, ManualClock, Provider, SystemClock};
use tokio::task::JoinHandle;

/// Long enough that no case sees its end.
pub(crate) const KEEP_FOR: Duration = Duration::from_mins(10);

/// How long a case waits for what must happen, before it calls it missing.
pub(crate) const PATIENCE: Duration = Duration::from_secs(10);

#[derive(Debug)]
enum Time {
    /// Only when the case moves it: exact.
    Moved(Arc<ManualClock>),
    /// On the server, as it does.
    Passes {
        /// The least time by which the backend tells moments apart.
        tick: Duration,
    },
}

pub(crate) struct World {
    pub(crate) provider: Arc<dyn Provider>,
    peer: Option<Arc<dyn Provider>>,
    time: Time,
    prefix: String,
    skipped: Mutex<Option<String>>,
    /// What the provider needs as long as it is used: its server.
    held: Vec<Box<dyn Any + Send + Sync>>,
}

impl fmt::Debug for World {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "World({})", self.provider.name())
    }
}

impl World {
    /// For a provider that judges time by `clock`.
    pub(crate) fn moved(prefix: String, clock: Arc<ManualClock>, provider: Arc<dyn Provider>) -> Self {
        Self::new(prefix, Time::Moved(clock), provider)
    }

    /// For a provider whose backend has a clock of its own, which ends entries up to one `tick` early or late.
    pub(crate) fn real(prefix: String, tick: Duration, provider: Arc<dyn Provider>) -> Self {
        Self::new(prefix, Time::Passes { tick }, provider)
    }

    fn new(prefix: String, time: Time, provider: Arc<dyn Provider>) -> Self {
        Self { provider, peer: None, time, prefix, skipped: Mutex::default(), held: Vec::new() }
    }

    /// The same backend as another process sees it.
    pub(crate) fn with_peer(mut self, peer: Arc<dyn Provider>) -> Self {
        self.peer = Some(peer);
        self
    }

    /// Keeps `thing` as long as this world.
    pub(crate) fn holding(mut self, thing: impl Any + Send + Sync) -> Self {
        self.held.push(Box::new(thing));
        self
    }

    /// Another process on the same backend; the provider itself where there is none.
    pub(crate) fn peer(&self) -> &Arc<dyn Provider> {
        self.peer.as_ref().unwrap_or(&self.provider)
    }

    /// A time of `count` units in which this backend can tell moments apart.
    pub(crate) fn ticks(&self, count: u32) -> Duration {
        match self.time {
            Time::Moved(_) => Duration::from_secs(1) * count,
            Time::Passes { tick } => tick * count,
        }
    }

    /// Lets `count` ticks pass, and where the backend is inexact so much more that what lasts so long is over.
    pub(crate) async fn pass(&self, count: u32) {
        match &self.time {
            Time::Moved(clock) => clock.advance(self.ticks(count)),
            Time::Passes { tick } => tokio::time::sleep(*tick * count + *tick).await,
        }
    }

    /// The clock, where the case moves time and may be exact about it.
    pub(crate) fn clock(&self) -> Option<&ManualClock> {
        match &self.time {
            Time::Moved(clock) => Some(clock),
            Time::Passes { .. } => None,
        }
    }

    /// What lies in this process under `key`, now.
    pub(crate) fn peek(&self, key: &Key) -> Option<Item> {
        let now = self.clock().map_or_else(|| SystemClock.now(), Clock::now);
        self.provider.peek(key, now)
    }

    pub(crate) fn prefix(&self) -> KeyPrefix {
        KeyPrefix::new(&self.prefix)
    }

    /// Another prefix that begins alike.
    pub(crate) fn prefix_beside(&self) -> KeyPrefix {
        KeyPrefix::new(&format!("{}2", self.prefix))
    }

    pub(crate) fn prefix_text(&self) -> &str {
        &self.prefix
    }

    pub(crate) fn key(&self, name: &str) -> Key {
        self.prefix().space("s").key([name])
    }

    pub(crate) async fn put(&self, key: &Key, bytes: &[u8]) {
        self.provider.set(key, item(bytes), KEEP_FOR).await.unwrap();
    }

    pub(crate) async fn read(&self, key: &Key) -> Option<Vec<u8>> {
        self.provider.get(key).await.unwrap().map(|item| item.bytes.to_vec())
    }

    pub(crate) fn has(&self, capability: Capability) -> bool {
        self.provider.capabilities().has(capability)
    }

    /// Whether the case does not apply for want of `capability`; says so.
    pub(crate) fn lacks(&self, capability: Capability) -> bool {
        let lacks = !self.has(capability);
        if lacks {
            self.skip(capability.name());
        }
        lacks
    }

    /// Takes note that the case does not apply.
    #[expect(clippy::print_stdout, reason = "what was skipped is printed")]
    pub(crate) fn skip(&self, needs: &str) {
        println!("skipped for {}: needs {needs}", self.provider.name());
        *self.skipped.lock().unwrap() = Some(needs.to_owned());
    }

    pub(crate) fn leases(&self) -> Option<&dyn Leases> {
        let leases = self.provider.leases();
        if leases.is_none() {
            self.skip("leases");
        }
        leases
    }

    pub(crate) fn epochs(&self) -> Option<&dyn EpochStore> {
        let epochs = self.provider.epochs();
        if epochs.is_none() {
            self.skip("epochs");
        }
        epochs
    }

    pub(crate) fn atomics(&self) -> Option<&dyn Atomics> {
        let atomics = self.provider.atomics();
        if atomics.is_none() {
            self.skip("atomics");
        }
        atomics
    }

    pub(crate) fn messages(&self) -> Option<&dyn Messages> {
        let messages = self.provider.messages();
        if messages.is_none() {
            self.skip("messages");
        }
        messages
    }

    /// What the table says of a case that was played here and did not fail.
    pub(crate) fn cell(&self) -> String {
        match &*self.skipped.lock().unwrap() {
            None => "pass".to_owned(),
            Some(needs) => format!("declared unsupported ({needs})"),
        }
    }
}

pub(crate) fn item(bytes: &[u8]) -> Item {
    Item::from(Bytes::copy_from_slice(bytes))
}

/// A key prefix that nothing else uses.
pub(crate) fn prefix() -> String {
    format!("t{}", uuid::Uuid::new_v4().simple())
}

#[expect(clippy::print_stdout, reason = "the table is for people")]
pub(crate) async fn print_table(provider: &str, cells: Vec<(&'static str, JoinHandle<String>)>) {
    let mut failed = Vec::new();
    for (case, cell) in cells {
        let cell = cell.await.unwrap_or_else(|_| {
            failed.push(case);
            "FAILED".to_owned()
        });
        println!("{provider} | {case} | {cell}");
    }
    assert!(failed.is_empty(), "failed: {failed:?}");
}
