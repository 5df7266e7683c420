//! Entries on a server that speaks the protocol of Redis: Redis, Valkey and Dragonfly; one server, one that sentinels
//! name, or a cluster; over TLS with the feature `cache-redis-tls`.
//!
//! A hit is a plain `GET`. Scripts run only where several things must happen in one step, each with all its keys named
//! and in one slot. Nothing here waits for a connection: while there is none, calls fail at once, and a task in the
//! background connects again.

mod atomics;
mod connect;
mod entries;
mod epochs;
mod errors;
mod known;
mod lane;
mod leases;
mod messages;
mod names;
mod node;
mod probe;
mod script;
mod servers;
mod settings;
mod slots;
#[cfg(feature = "cache-redis-tls")]
mod tls;
mod value;
mod wakes;
mod writes;

use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock, PoisonError, RwLock};
use std::time::Duration;

use tokio::runtime::Handle;
use tokio::sync::watch;
use tokio::time::{sleep, timeout};
use tracing::debug;

pub use self::known::Detector;
use self::known::KnownServer;
use self::lane::AbortOnDrop;
use self::messages::Hub;
use self::node::{Line, field};
use self::probe::{PROBE_WITHIN, probe, unprobed};
use self::servers::Servers;
pub use self::settings::RedisSettings;
use self::wakes::Wakes;
use crate::key::KeyPrefix;
use crate::provider::{Capabilities, Capability};
use crate::usage::Coherence;

/// When a probe that the server did not take is repeated.
const PROBE_AGAIN_AFTER: Duration = Duration::from_secs(1);

/// How often the server is asked how much it dropped for want of space.
const EVICTIONS_READ_EVERY: Duration = Duration::from_secs(60);

/// Entries on Redis and its like.
///
/// Coherence is strict: every read is answered by the master of its key, and what a server forgets when it restarts or
/// hands over takes the whole cache with it (see [`EpochStore`](crate::provider::EpochStore)). A master that its cluster
/// or its sentinels have given up and that a process still reaches may serve that process until it notices.
#[derive(Debug)]
pub struct Redis {
    inner: Arc<Inner>,
    tasks: OnceLock<[AbortOnDrop; 2]>,
}

#[derive(Debug)]
struct Inner {
    servers: Arc<Servers>,
    prefix: KeyPrefix,
    epochs_name: String,
    wakes: Arc<Wakes>,
    hub: Arc<Hub>,
    opened: Arc<watch::Sender<u64>>,
    /// Counts connections, each before it is used.
    entered: Arc<AtomicU64>,
    abilities: Abilities,
    evictions: AtomicU64,
    known: Option<KnownServer>,
    detectors: Vec<Detector>,
}

impl Redis {
    /// Neither waits nor fails: it connects in the background. The prefix is that of the cache which uses it; the epochs
    /// and the wakes of the deployment are kept under it.
    pub fn new(settings: &RedisSettings, prefix: KeyPrefix) -> Self {
        Self::with_detectors(settings, prefix, Vec::new())
    }

    /// As [`new`](Self::new), with detectors for servers that are not known here.
    pub fn with_detectors(settings: &RedisSettings, prefix: KeyPrefix, detectors: Vec<Detector>) -> Self {
        let (opened, entered) = (Arc::new(watch::Sender::new(0)), Arc::new(AtomicU64::new(0)));
        debug!(provider = errors::NAME, mode = settings.servers.kind(), "cache server is being connected");
        let inner = Inner {
            servers: Arc::new(Servers::new(settings, Arc::clone(&opened), Arc::clone(&entered))),
            epochs_name: names::epochs(&prefix),
            wakes: Arc::new(Wakes::new(names::wakes(&prefix))),
            prefix,
            hub: Arc::default(),
            opened,
            entered,
            abilities: Abilities::new(&unprobed("", settings.known.or(Some(KnownServer::Redis)), &[])),
            evictions: AtomicU64::new(u64::MAX),
            known: settings.known,
            detectors,
        };
        let redis = Self { inner: Arc::new(inner), tasks: OnceLock::new() };
        redis.start();
        redis
    }

    /// Begins what goes on in the background; with the first call, where there was no runtime before.
    fn start(&self) {
        self.inner.servers.start();
        if self.tasks.get().is_none()
            && let Ok(runtime) = Handle::try_current()
        {
            self.tasks.get_or_init(|| {
                let inner = &self.inner;
                let listening = messages::listen(
                    Arc::clone(&inner.hub),
                    Arc::clone(&inner.wakes),
                    Arc::clone(&inner.servers),
                );
                [
                    AbortOnDrop(runtime.spawn(learn(Arc::clone(inner))).abort_handle()),
                    AbortOnDrop(runtime.spawn(listening).abort_handle()),
                ]
            });
        }
    }

    fn has(&self, capability: Capability) -> bool {
        self.inner.abilities.has(capability)
    }

    /// From now on this process hears of ended leases and changed epochs.
    fn hear_wakes(&self) {
        self.start();
        if self.inner.wakes.want() {
            self.inner.hub.look();
        }
    }
}

/// What the server can do, as far as it is known; asked several times at every read, so without a lock.
#[derive(Debug)]
struct Abilities {
    all: RwLock<Capabilities>,
    /// Those that it has, a bit each.
    had: AtomicU32,
}

impl Abilities {
    fn new(all: &Capabilities) -> Self {
        Self { had: AtomicU32::new(all.bits()), all: RwLock::new(*all) }
    }

    fn all(&self) -> Capabilities {
        *self.all.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn has(&self, capability: Capability) -> bool {
        self.had.load(Ordering::Acquire) & capability.bit() != 0
    }

    fn learn(&self, all: &Capabilities) {
        let mut known = self.all.write().unwrap_or_else(PoisonError::into_inner);
        *known = *all;
        self.had.store(all.bits(), Ordering::Release);
    }
}

/// What this code does itself, whatever the server.
fn declared() -> Capabilities {
    let mut capabilities = Capabilities::unknown().coherent(Coherence::Strict);
    for capability in
        [Capability::Retains, Capability::Shared, Capability::Namespaces, Capability::Tags, Capability::Batch]
    {
        capabilities.claim(capability, crate::provider::Known::Has(true), crate::provider::Source::Declared);
    }
    capabilities
}

/// Probes the server whenever it was entered anew, and asks now and then what it dropped.
async fn learn(inner: Arc<Inner>) {
    let mut opened = inner.opened.subscribe();
    loop {
        let is_known = *opened.borrow_and_update() == 0 || learn_once(&inner).await;
        tokio::select! {
            changed = opened.changed() => if changed.is_err() { return },
            () = sleep(PROBE_AGAIN_AFTER), if !is_known => {}
            () = sleep(EVICTIONS_READ_EVERY) => read_evictions(&inner).await,
        }
    }
}

/// Whether the server has shown what it can do.
async fn learn_once(inner: &Inner) -> bool {
    let info = inner.servers.all().iter().find(|node| node.is_open()).map(|node| node.identity());
    let info = info.as_ref().map_or("", |identity| &identity.info);
    let unprobed = unprobed(info, inner.known, &inner.detectors);
    let probing = probe(&inner.servers, &inner.prefix, inner.wakes.channel(), &unprobed);
    let probed = timeout(PROBE_WITHIN, Box::pin(probing)).await;
    let is_known = matches!(probed, Ok(Ok(_)));
    if let Ok(Ok(capabilities)) = probed {
        inner.abilities.learn(&capabilities);
        debug!(
            provider = errors::NAME,
            version = field(info, "redis_version").unwrap_or("unknown"),
            "cache server is probed"
        );
    }
    let known = inner.servers.all().into_iter().map(|node| evicted(&node.identity().info));
    if let Some(sum) = known.sum::<Option<u64>>() {
        inner.evictions.store(sum, Ordering::Relaxed);
    }
    is_known
}

/// How many entries a server has dropped for want of space, by what it says of itself.
fn evicted(info: &str) -> Option<u64> {
    field(info, "evicted_keys")?.parse().ok()
}

/// Of all servers together, and of all who use them.
async fn read_evictions(inner: &Inner) {
    let mut sum = 0_u64;
    let mut question = redis::cmd("INFO");
    question.arg("stats");
    for node in inner.servers.all() {
        let Ok(Ok(answer)) = timeout(PROBE_WITHIN, node.one(Line::Any, &question)).await else { return };
        let Some(info) = value::text(answer) else { return };
        let Some(evicted) = evicted(&info) else { return };
        sum = sum.saturating_add(evicted);
    }
    inner.evictions.store(sum, Ordering::Relaxed);
}

/// A life in whole milliseconds, as the server takes it: at least one.
fn millis(life: Duration) -> String {
    life.min(crate::KEEP_FOR_MAX).as_millis().max(1).to_string()
}
