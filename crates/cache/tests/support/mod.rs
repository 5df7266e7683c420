//! A provider that can be told to misbehave, and a subscriber that counts what is said.

pub(crate) mod shared;

use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, LazyLock, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use recache_cache::provider::{
    Atomics, Capability, Copies, Entry, EpochStore, Error, Item, Known, Leases, Messages, Moka, Scope,
};
use recache_cache::{Cache, Capabilities, Coherence, Key, ManualClock, Policy, Provider, Timestamp};
use tokio::sync::Notify;
use tracing::{Event, Level, Subscriber};
use tracing_subscriber::layer::{Context, Layer, SubscriberExt};

/// How the provider answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Mood {
    Work,
    Fail,
    Hang,
    Panic,
}

/// Moka behind moods, one for reads and one for writes and removals. Counts its calls.
#[derive(Debug)]
pub(crate) struct Moody {
    moka: Moka,
    reads: Mutex<Mood>,
    writes: Mutex<Mood>,
    /// When set, the next `set` reports its arrival and waits to be released before it is carried out.
    gate: Mutex<Option<Arc<Gate>>>,
    pub(crate) calls: AtomicU64,
    pub(crate) sets: AtomicU64,
    coherence: Coherence,
    /// Whether it claims to be outside the process.
    pub(crate) is_shared: AtomicBool,
}

#[derive(Debug, Default)]
pub(crate) struct Gate {
    pub(crate) arrived: Notify,
    pub(crate) release: Notify,
}

impl Moody {
    pub(crate) fn new(clock: Arc<ManualClock>, coherence: Coherence) -> Self {
        Self {
            moka: Moka::new(10_000, 128 << 20, clock),
            reads: Mutex::new(Mood::Work),
            writes: Mutex::new(Mood::Work),
            gate: Mutex::default(),
            calls: AtomicU64::new(0),
            sets: AtomicU64::new(0),
            coherence,
            is_shared: AtomicBool::new(false),
        }
    }

    pub(crate) fn be(&self, mood: Mood) {
        self.reads_be(mood);
        self.writes_be(mood);
    }

    pub(crate) fn reads_be(&self, mood: Mood) {
        *self.reads.lock().unwrap() = mood;
    }

    pub(crate) fn writes_be(&self, mood: Mood) {
        *self.writes.lock().unwrap() = mood;
    }

    pub(crate) fn gate_next_set(&self) -> Arc<Gate> {
        let gate = Arc::new(Gate::default());
        *self.gate.lock().unwrap() = Some(Arc::clone(&gate));
        gate
    }

    async fn pass(&self, mood: &Mutex<Mood>) -> Result<(), Error> {
        self.calls.fetch_add(1, Ordering::SeqCst);
        let mood = *mood.lock().unwrap();
        match mood {
            Mood::Work => Ok(()),
            Mood::Fail => Err(Error::Unavailable { provider: "moody", reason: "told to fail".to_owned() }),
            Mood::Hang => std::future::pending().await,
            Mood::Panic => panic!("told to panic"),
        }
    }
}

#[async_trait]
impl Provider for Moody {
    fn name(&self) -> &'static str {
        "moody"
    }

    fn capabilities(&self) -> Capabilities {
        let is_shared = Known::Has(self.is_shared.load(Ordering::SeqCst));
        self.moka.capabilities().coherent(self.coherence).overridden(Capability::Shared, is_shared)
    }

    fn peek(&self, _key: &Key, _now: Timestamp) -> Option<Item> {
        None
    }

    async fn get(&self, key: &Key) -> Result<Option<Item>, Error> {
        self.pass(&self.reads).await?;
        self.moka.get(key).await
    }

    async fn set(&self, key: &Key, item: Item, keep_for: Duration) -> Result<(), Error> {
        self.pass(&self.writes).await?;
        let gate = self.gate.lock().unwrap().take();
        if let Some(gate) = gate {
            gate.arrived.notify_one();
            gate.release.notified().await;
        }
        self.sets.fetch_add(1, Ordering::SeqCst);
        self.moka.set(key, item, keep_for).await
    }

    async fn delete(&self, keys: &[Key]) -> Result<(), Error> {
        self.pass(&self.writes).await?;
        self.moka.delete(keys).await
    }

    async fn get_many(&self, keys: &[Key]) -> Result<Vec<Option<Item>>, Error> {
        self.pass(&self.reads).await?;
        self.moka.get_many(keys).await
    }

    async fn set_many(&self, entries: Vec<Entry>) -> Result<(), Error> {
        self.pass(&self.writes).await?;
        self.moka.set_many(entries).await
    }

    async fn replace(&self, key: &Key, seen: &Item, item: Item, keep_for: Duration) -> Result<bool, Error> {
        self.pass(&self.writes).await?;
        self.moka.replace(key, seen, item, keep_for).await
    }

    async fn clear(&self, scope: &Scope) -> Result<(), Error> {
        self.pass(&self.writes).await?;
        self.moka.clear(scope).await
    }

    async fn health(&self) -> Result<(), Error> {
        self.pass(&self.reads).await
    }

    fn evictions(&self) -> Option<u64> {
        self.moka.evictions()
    }

    fn copies(&self) -> Option<&dyn Copies> {
        None
    }

    fn leases(&self) -> Option<&dyn Leases> {
        None
    }

    fn epochs(&self) -> Option<&dyn EpochStore> {
        None
    }

    fn atomics(&self) -> Option<&dyn Atomics> {
        None
    }

    fn messages(&self) -> Option<&dyn Messages> {
        None
    }
}

/// A cache over a [`Moody`] provider, with its clock.
pub(crate) struct Bench {
    pub(crate) cache: Cache,
    pub(crate) provider: Arc<Moody>,
    pub(crate) clock: Arc<ManualClock>,
}

impl Bench {
    pub(crate) fn new() -> Self {
        Self::offering(Coherence::Eventual)
    }

    pub(crate) fn offering(coherence: Coherence) -> Self {
        let clock = Arc::new(ManualClock::new(Timestamp::from_micros(1_795_000_000_000_000)));
        let provider = Arc::new(Moody::new(Arc::clone(&clock), coherence));
        let cache = Cache::builder(provider.clone(), clock.clone()).key_prefix("test").build();
        Self { cache, provider, clock }
    }

    pub(crate) fn key(&self, name: &str) -> Key {
        self.cache.keys().space("things").key([name])
    }
}

/// Fresh for a minute.
pub(crate) static POLICY: LazyLock<Policy> = LazyLock::new(policy);

pub(crate) fn policy() -> Policy {
    Policy::new(Duration::from_mins(1))
}

/// Counts events by level.
#[derive(Debug, Clone, Default)]
pub(crate) struct Said {
    errors: Arc<AtomicUsize>,
    warnings: Arc<AtomicUsize>,
    infos: Arc<AtomicUsize>,
}

impl Said {
    /// Listens on this thread until the guard is dropped.
    pub(crate) fn listen() -> (Self, tracing::subscriber::DefaultGuard) {
        let said = Self::default();
        let guard = tracing::subscriber::set_default(tracing_subscriber::registry().with(said.clone()));
        (said, guard)
    }

    pub(crate) fn errors(&self) -> usize {
        self.errors.load(Ordering::SeqCst)
    }

    pub(crate) fn warnings(&self) -> usize {
        self.warnings.load(Ordering::SeqCst)
    }

    pub(crate) fn infos(&self) -> usize {
        self.infos.load(Ordering::SeqCst)
    }
}

impl<S: Subscriber> Layer<S> for Said {
    fn on_event(&self, event: &Event<'_>, _context: Context<'_, S>) {
        match *event.metadata().level() {
            Level::ERROR => self.errors.fetch_add(1, Ordering::SeqCst),
            Level::WARN => self.warnings.fetch_add(1, Ordering::SeqCst),
            Level::INFO => self.infos.fetch_add(1, Ordering::SeqCst),
            _ => 0,
        };
    }
}
