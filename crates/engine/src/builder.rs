//! From a description to a running engine.

use std::sync::Arc;
use std::sync::atomic::AtomicI64;

use recache_cache::provider::Moka;
use recache_cache::{Cache, CacheConfig, KeyPrefix, SystemClock};
use recache_model::ttl;
use recache_store::{FLOW, Store};
use recache_worker::{Handlers, Subscribers};
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::adaptive::{self, Adaptive};
use crate::batches::{self, MovedBatches};
use crate::by_hand::ByHand;
use crate::deliver::{self, Courier};
use crate::engine::{Engine, Shared};
use crate::epochs::StoreEpochs;
use crate::error::{Error, Result};
use crate::held::HeldJobs;
use crate::limit::Shown;
use crate::options::Options;
use crate::registry::Registered;
use crate::remote;
use crate::rules::Compiled;
use crate::session::Lease;
use crate::standings::Standings;
use crate::stats::Counters;
use crate::templates::Templates;
use crate::touches::Touches;
use crate::views::Heads;
use crate::waiters::Waiters;
use crate::{
    figures, fleet, kept, maintain, prefetch, publishers, pump, reconcile, schedule, session, signals,
};

/// View items that the default cache keeps.
const DEFAULT_CACHE_ENTRIES: u64 = 10_000;
/// Bytes that the default cache keeps.
const DEFAULT_CACHE_BYTES: u64 = 64 * 1024 * 1024;

/// Describes an engine.
#[derive(Debug)]
pub struct Builder {
    store: Arc<dyn Store>,
    handlers: Handlers,
    options: Options,
    cache: Option<Cache>,
    adaptive_ttl: Option<ttl::Settings>,
    subscribers: Subscribers,
    courier: Option<Arc<dyn Courier>>,
}

impl Builder {
    pub(crate) fn new(store: Arc<dyn Store>) -> Self {
        Self {
            store,
            handlers: Handlers::new(),
            options: Options::default(),
            cache: None,
            adaptive_ttl: None,
            subscribers: Subscribers::new(),
            courier: None,
        }
    }

    /// What the worker in this process can do, and which publishers it has. Without handlers the engine only submits, touches, reads, keeps leases and
    /// views moving, and decides what in workflows is the engine's to decide.
    pub fn handlers(mut self, handlers: Handlers) -> Self {
        self.handlers = handlers;
        self
    }

    /// How it runs.
    pub fn options(mut self, options: Options) -> Self {
        self.options = options;
        self
    }

    /// What view items and templates are read through. Default: 10,000 entries, at most 64 MiB, in this process, with
    /// [`StoreEpochs`] in the engine's store. Give a cache of your own these too: without them, a cache in each process
    /// reads no templates.
    pub fn cache(mut self, cache: Cache) -> Self {
        self.cache = Some(cache);
        self
    }

    /// Chooses how long values of analytics, graphs and handlers live in the cache, by what they cost, how often they change and how often
    /// they are asked for; never longer than their usages allow. [`Engine::adaptive`] does the same for values of your own.
    pub fn adaptive_ttl(mut self, settings: ttl::Settings) -> Self {
        self.adaptive_ttl = Some(settings);
        self
    }

    /// Who is told of events in this process. They are made known at the start; what happens while no process has them waits
    /// for them.
    pub fn subscribers(mut self, subscribers: Subscribers) -> Self {
        self.subscribers = subscribers;
        self
    }

    /// Carries webhooks. Without one this process sends none.
    pub fn courier(mut self, courier: Arc<dyn Courier>) -> Self {
        self.courier = Some(courier);
        self
    }

    /// Starts nothing that runs by itself: see [`ByHand`]. For tests.
    pub async fn start_by_hand(self) -> Result<ByHand> {
        let shared = self.shared()?;
        deliver::register(&shared).await?;
        let touches = Touches::start(&shared);
        Ok(ByHand::new(Engine { shared, touches }))
    }

    fn shared(self) -> Result<Arc<Shared>> {
        self.options.check()?;
        let cache = self.cache.unwrap_or_else(|| {
            let clock = Arc::new(SystemClock);
            let moka = Moka::new(DEFAULT_CACHE_ENTRIES, DEFAULT_CACHE_BYTES, clock.clone());
            let prefix = CacheConfig::default().key_prefix;
            let epochs = StoreEpochs::new(Arc::clone(&self.store), &KeyPrefix::new(&prefix));
            Cache::builder(Arc::new(moka), clock).key_prefix(prefix).epochs(Arc::new(epochs)).build()
        });
        if self.handlers.get(FLOW).is_some() {
            return Err(Error::Invalid(format!(
                "the handler `{FLOW}` is the engine's own: use another name"
            )));
        }
        let adaptive = self
            .adaptive_ttl
            .map(|settings| Adaptive::new(&cache, Arc::new(SystemClock), settings, rand::random()))
            .transpose()?;
        let draining = CancellationToken::new();
        Ok(Arc::new(Shared {
            adaptive,
            fleet_reads: fleet::reads(&cache, &self.options.node),
            heads: Heads::new(&cache),
            kept: kept::Kept::new(&cache),
            published: prefetch::Published::default(),
            templates: Templates::new(&cache),
            registry: Registered::new(&cache),
            standings: Standings::new(&cache),
            compiled: Compiled::default(),
            store: self.store,
            limit: Shown::new(&self.options),
            options: self.options,
            handlers: self.handlers,
            cache,
            subscribers: self.subscribers,
            courier: self.courier,
            held: HeldJobs::default(),
            lease: Lease::default(),
            remote: remote::Memory::new(draining.child_token()),
            counters: Counters::default(),
            swept_at: AtomicI64::default(),
            waiters: Arc::new(Waiters::default()),
            batches: MovedBatches::default(),
            work: Notify::new(),
            due: Notify::new(),
            events_due: Notify::new(),
            drafts_due: Notify::new(),
            draining,
            ending: CancellationToken::new(),
            tasks: TaskTracker::new(),
        }))
    }

    /// Opens a session and starts all tasks.
    pub async fn start(self) -> Result<Engine> {
        let shared = self.shared()?;
        deliver::register(&shared).await?;
        let hints = shared.store.subscribe();
        shared.tasks.spawn(signals::run(Arc::clone(&shared), hints));
        session::open(&shared).await?;
        shared.tasks.spawn(session::beat(Arc::clone(&shared)));
        shared.tasks.spawn(pump::run(Arc::clone(&shared)));
        shared.tasks.spawn(session::sweep(Arc::clone(&shared)));
        shared.tasks.spawn(reconcile::run(Arc::clone(&shared)));
        shared.tasks.spawn(prefetch::run(Arc::clone(&shared)));
        shared.tasks.spawn(kept::run(Arc::clone(&shared)));
        shared.tasks.spawn(maintain::run(Arc::clone(&shared)));
        shared.tasks.spawn(figures::run(Arc::clone(&shared)));
        if let Some(adaptive) = &shared.adaptive {
            shared.tasks.spawn(adaptive::run(Arc::clone(&shared), adaptive.clone()));
        }
        shared.tasks.spawn(fleet::run(Arc::clone(&shared)));
        shared.tasks.spawn(schedule::run(Arc::clone(&shared)));
        if deliver::can_deliver(&shared) {
            shared.tasks.spawn(deliver::run(Arc::clone(&shared)));
        }
        if publishers::can_publish(&shared) {
            shared.tasks.spawn(publishers::run(Arc::clone(&shared)));
        }
        shared.tasks.spawn(batches::run(Arc::clone(&shared)));
        let touches = Touches::start(&shared);
        Ok(Engine { shared, touches })
    }
}
