//! Faults under load: two nodes (two caches of one deployment, each behind a fault proxy of its own) share one server; tasks on
//! both read, load, change and invalidate, and hold every answer against a register of truth. A test begins a fault, ends it,
//! and asks for the figures.
//!
//! The short form runs with the suite. `cargo xtask faults` runs the same with [`SECONDS_VARIABLE`] set.

pub(crate) mod figures;
mod load;
pub(crate) mod raw;
pub(crate) mod scripts;
pub(crate) mod truth;

use std::fmt::Write as _;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use recache_cache::config::ServerUrl;
use recache_cache::{Cache, CacheConfig, Coherence, Policy, SystemClock, Usage};
use recache_faultproxy::{Plan, Proxy, Random, ServerProcess, ServerRecipe};
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep, timeout};

use self::figures::{Figures, Phase};
use self::load::{Handle, KEYS, Shared};
use self::truth::{NODES, Truth};

/// How long each fault lasts, in seconds.
pub(crate) const SECONDS_VARIABLE: &str = "RECACHE_FAULT_SECONDS";

/// Tasks for each usage on each node, and the pause between two calls of one task.
const LOAD_SHORT: (u64, Duration) = (1, Duration::from_millis(2));
const LOAD_LONG: (u64, Duration) = (2, Duration::from_millis(1));

/// Until keys are there, and connections.
const WARM_UP: Duration = Duration::from_millis(200);

/// How long an impatient caller waits at most.
const PATIENCE_MAX_US: u64 = 2_500;

/// Often, so that things settle soon.
const BEAT: Duration = Duration::from_millis(200);

/// How long the breaker stays open; configuration counts in seconds.
pub(crate) const OPEN_FOR: Duration = Duration::from_secs(1);

/// After a fault, caching again within this.
pub(crate) const CLOSED_AGAIN_MAX: Duration = OPEN_FOR.saturating_add(Duration::from_secs(2));

/// The same as it is asserted: beside other tests there is room for a busy machine.
pub(crate) fn closed_again_max() -> Duration {
    if is_long() { CLOSED_AGAIN_MAX } else { CLOSED_AGAIN_MAX * 2 }
}

/// What a fault may add to the 99th of a hundred calls in its first second, and once the breaker is open.
const ADDED_FIRST_MAX: Duration = Duration::from_millis(60);
const ADDED_LATER_MAX: Duration = Duration::from_millis(1);

/// No call of the cache takes longer.
pub(crate) const CALL_MAX: Duration = Duration::from_millis(100);

/// No caller waits longer for anything but his own loader. Far above what is promised, and far below the life of a lease
/// that nobody holds.
const LONGEST_MAX: Duration = Duration::from_secs(2);

/// What the machine may add to a call in the short form, beside other tests.
const BUSY_MACHINE: Duration = Duration::from_millis(400);

/// Which backend is under test.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Backend {
    Redis,
    Memcached,
    /// A tier in each process in front of Redis.
    TieredRedis,
    /// A tier in each process in front of Memcached.
    TieredMemcached,
    /// A cache in each process and nothing shared: what the register must find out.
    Moka,
}

impl Backend {
    pub(crate) fn server(self) -> ServerRecipe {
        match self {
            Self::Redis | Self::TieredRedis | Self::Moka => ServerProcess::redis(),
            Self::Memcached | Self::TieredMemcached => ServerProcess::memcached(),
        }
    }

    /// A node's cache.
    fn cache(self, port: u16) -> Cache {
        Cache::from_config(&self.config(port), Arc::new(SystemClock))
    }

    fn config(self, port: u16) -> CacheConfig {
        let mut config = CacheConfig {
            enabled: true,
            backend: match self {
                Self::Redis => "redis",
                Self::Memcached => "memcached",
                Self::TieredRedis | Self::TieredMemcached => "tiered",
                Self::Moka => "moka",
            }
            .to_owned(),
            key_prefix: "faults".to_owned(),
            ..CacheConfig::default()
        };
        config.redis.url = ServerUrl::new(format!("redis://127.0.0.1:{port}"));
        config.memcached.url = ServerUrl::new(format!("tcp://127.0.0.1:{port}"));
        if self == Self::TieredMemcached {
            "memcached".clone_into(&mut config.tiered.far);
        }
        config.beat_ms = u64::try_from(BEAT.as_millis()).unwrap();
        config.breaker.timeout_seconds = OPEN_FOR.as_secs();
        config
    }
}

/// How long a fault lasts: `short`, or what [`SECONDS_VARIABLE`] says.
pub(crate) fn fault_for(short: Duration) -> Duration {
    match std::env::var(SECONDS_VARIABLE) {
        Ok(text) => Duration::from_secs(text.parse().expect("RECACHE_FAULT_SECONDS is a number of seconds")),
        Err(_) => short,
    }
}

/// Whether this is the long form, on a machine of its own.
pub(crate) fn is_long() -> bool {
    std::env::var_os(SECONDS_VARIABLE).is_some()
}

/// One of them.
pub(crate) type Course = Pin<Box<dyn Future<Output = ()> + Send>>;

/// Runs campaigns: side by side in the short form, where most of the time is waiting, and one after another in the long form,
/// which measures. A campaign that fails does not keep the others from going on.
pub(crate) async fn all(campaigns: Vec<(&str, Course)>) {
    let mut running = Vec::new();
    let mut failed = Vec::new();
    for (name, campaign) in campaigns {
        let mut task = tokio::spawn(campaign);
        if is_long() && (&mut task).await.is_err() {
            failed.push(name);
        } else if !is_long() {
            running.push((name, task));
        }
    }
    for (name, task) in running {
        if task.await.is_err() {
            failed.push(name);
        }
    }
    assert!(failed.is_empty(), "failed, see above: {failed:?}");
}

pub(crate) struct Campaign {
    name: String,
    pub(crate) server: ServerProcess,
    pub(crate) proxies: Vec<Proxy>,
    pub(crate) caches: Vec<Cache>,
    handles: Vec<Handle>,
    shared: Arc<Shared>,
    tasks: Vec<JoinHandle<()>>,
    stop: watch::Sender<bool>,
    recovery: Vec<Duration>,
    remarks: Vec<String>,
    /// How long a caller may wait at most, his own loader not counted.
    pub(crate) longest_max: Duration,
}

impl Campaign {
    /// Server, proxies and caches, everything well, and the load running.
    pub(crate) async fn begin(name: &str, backend: Backend) -> Self {
        Self::begin_with(name, backend.server(), backend).await
    }

    /// The same with a server of another kind.
    pub(crate) async fn begin_with(name: &str, recipe: ServerRecipe, backend: Backend) -> Self {
        let mut campaign = Self::prepare(name, recipe, backend);
        campaign.server.start().await.unwrap();
        campaign.start_load();
        campaign.caching_again().await;
        campaign.recovery.clear();
        sleep(WARM_UP).await;
        campaign.calm().await;
        campaign
    }

    /// The same with a server that does not run yet, and without load.
    pub(crate) fn prepare(name: &str, recipe: ServerRecipe, backend: Backend) -> Self {
        let server = recipe.prepare().unwrap();
        let proxies: Vec<Proxy> = (0..NODES).map(|_| Proxy::start(server.address()).unwrap()).collect();
        let caches: Vec<Cache> = proxies.iter().map(|proxy| backend.cache(proxy.port())).collect();
        let usages = [("eventual", Coherence::Eventual), ("strict", Coherence::Strict)];
        let mut handles = Vec::new();
        for (node, cache) in caches.iter().enumerate() {
            for (number, (space, coherence)) in usages.iter().enumerate() {
                handles.push(Handle {
                    node,
                    cache: cache.for_usage(&Usage::user(*space, *coherence)),
                    is_strict: *coherence == Coherence::Strict,
                    first: number * KEYS,
                    space,
                });
            }
        }
        let policy = Policy::new(Duration::from_mins(10)).negative_for(Duration::from_mins(10));
        let shared = Shared { truth: Truth::new(usages.len() * KEYS), figures: Figures::default(), policy };
        Self {
            name: name.to_owned(),
            server,
            proxies,
            caches,
            handles,
            shared: Arc::new(shared),
            tasks: Vec::new(),
            stop: watch::Sender::new(false),
            recovery: Vec::new(),
            remarks: Vec::new(),
            longest_max: LONGEST_MAX,
        }
    }

    pub(crate) fn start_load(&mut self) {
        self.start_tasks(None);
    }

    /// Each call is given up after a time drawn at random, often too short for it; counts those that were.
    pub(crate) fn start_impatient_load(&mut self) -> Arc<AtomicU64> {
        let given_up = Arc::new(AtomicU64::new(0));
        self.start_tasks(Some(&given_up));
        given_up
    }

    fn start_tasks(&mut self, given_up: Option<&Arc<AtomicU64>>) {
        let (tasks, pause) = if is_long() { LOAD_LONG } else { LOAD_SHORT };
        for handle in &self.handles {
            for _ in 0..tasks {
                let number = u64::try_from(self.tasks.len()).unwrap();
                let mut random = Random::fork(self.proxies[0].seed(), number);
                let (handle, shared, stop) =
                    (handle.clone(), Arc::clone(&self.shared), self.stop.subscribe());
                let given_up = given_up.cloned();
                self.tasks.push(tokio::spawn(async move {
                    while !*stop.borrow() {
                        let patience = Duration::from_micros(random.below(PATIENCE_MAX_US));
                        let act = handle.act(&shared, &mut random);
                        match &given_up {
                            None => act.await,
                            Some(given_up) => {
                                if timeout(patience, act).await.is_err() {
                                    given_up.fetch_add(1, Ordering::Relaxed);
                                }
                            }
                        }
                        sleep(pause).await;
                    }
                }));
            }
        }
    }

    /// Stops the load, which goes on with another one.
    pub(crate) async fn stop_load(&mut self) {
        self.stop.send_replace(true);
        for task in self.tasks.drain(..) {
            task.await.expect("a task of the load panicked");
        }
        self.stop.send_replace(false);
    }

    /// Some time without faults, for comparison.
    async fn calm(&self) {
        self.shared.figures.enter(Phase::Calm);
        sleep(fault_for(Duration::from_millis(500)) / 4).await;
    }

    /// A fault has just begun: lets it last.
    pub(crate) async fn suffer(&self, time: Duration) {
        let first = time.min(Duration::from_secs(1));
        self.shared.figures.enter(Phase::FirstSecond);
        sleep(first).await;
        self.shared.figures.enter(Phase::Later);
        sleep(time.saturating_sub(first)).await;
    }

    /// For the report.
    pub(crate) fn remark(&mut self, text: String) {
        self.remarks.push(text);
    }

    pub(crate) fn figures(&self) -> &Figures {
        &self.shared.figures
    }

    /// The same plan on all nodes.
    pub(crate) async fn plan(&self, plan: &Plan) {
        for proxy in &self.proxies {
            proxy.set(plan.clone()).await;
        }
    }

    pub(crate) async fn heal(&self) {
        for proxy in &self.proxies {
            proxy.heal().await;
        }
    }

    /// The fault is over: waits until every node caches again, which must be soon.
    pub(crate) async fn caching_again(&mut self) {
        self.shared.figures.enter(Phase::After);
        let began = Instant::now();
        for cache in &self.caches {
            // Long: what is measured is asserted below, and a failure should say how long it took.
            let patience = CLOSED_AGAIN_MAX * 4;
            timeout(patience, caches(cache, &self.shared.policy)).await.unwrap_or_else(|_| {
                panic!("{}: still not caching {patience:?} after the fault ended", self.name)
            });
        }
        self.recovery.push(began.elapsed());
    }

    /// Ends the load, looks at every key on every node once more, prints the figures, and holds them against the promises.
    pub(crate) async fn end(self) -> Seen {
        let seen = self.over().await;
        seen.assert_kept();
        seen
    }

    /// The same, and promises nothing.
    pub(crate) async fn over(mut self) -> Seen {
        self.shared.figures.enter(Phase::After);
        sleep(Duration::from_millis(200)).await;
        self.stop_load().await;
        // What is owed is sent with the next beat, and heard with the one after.
        sleep(BEAT * 3).await;
        self.shared.figures.enter(Phase::Settled);
        let mut random = Random::new(0);
        for handle in &self.handles {
            for number in 0..KEYS {
                handle.get(&self.shared, number).await;
                handle.load(&self.shared, number, &mut random).await;
                handle.get(&self.shared, number).await;
            }
        }
        let seen = Seen { campaign: self };
        seen.print();
        seen
    }
}

/// Returns when what is set is found.
async fn caches(cache: &Cache, policy: &Policy) {
    let key = cache.keys().space("probe").key(["probe"]);
    for number in 0_u64.. {
        cache.set(&key, number, policy).await;
        if cache.get::<u64>(&key).await.as_deref() == Some(&number) {
            return;
        }
        sleep(Duration::from_millis(10)).await;
    }
}

/// What a campaign that is over has seen.
pub(crate) struct Seen {
    campaign: Campaign,
}

impl Seen {
    pub(crate) fn figures(&self) -> &Figures {
        &self.campaign.shared.figures
    }

    /// Stored bytes that were found to be no entry, on all nodes.
    pub(crate) fn decode_errors(&self) -> u64 {
        self.campaign.caches.iter().map(|cache| cache.stats().decode_errors).sum()
    }

    pub(crate) fn proxies(&self) -> &[Proxy] {
        &self.campaign.proxies
    }

    #[expect(clippy::print_stdout, reason = "figures are for people")]
    fn print(&self) {
        let Campaign { name, proxies, caches, recovery, remarks, shared, .. } = &self.campaign;
        // In one piece: campaigns that run side by side print into one another otherwise.
        let mut text = format!("\n{name}: caching again after {recovery:?}\n");
        for remark in remarks {
            writeln!(text, "  {remark}").unwrap();
        }
        write!(text, "{}", shared.figures).unwrap();
        for (node, (proxy, cache)) in proxies.iter().zip(caches).enumerate() {
            writeln!(text, "  node {node}: {:?}\n    {:?}", proxy.counts(), cache.stats()).unwrap();
        }
        for note in shared.truth.notes() {
            writeln!(text, "  {note}").unwrap();
        }
        print!("{text}");
    }

    fn assert_kept(&self) {
        let Campaign { name, recovery, shared, handles, .. } = &self.campaign;
        let figures = &shared.figures;
        assert_eq!(figures.broken_reads(), 0, "{name}: reads that broke their class; see above");
        assert!(handles.iter().all(|handle| handle.cache.is_on()), "{name}: a usage was switched off");
        assert!(figures.hits(Phase::Settled) > 0, "{name}: nothing is cached in the end");
        let slowest_recovery = recovery.iter().max().copied().unwrap_or_default();
        assert!(slowest_recovery <= closed_again_max(), "{name}: caching again after {slowest_recovery:?}");
        let longest = figures.longest();
        assert!(
            longest <= self.campaign.longest_max,
            "{name}: a caller waited {longest:?}, loaders not counted"
        );
    }

    /// Calls are fast while the server is away: in the long form as fast as is promised, beside other tests within bounds
    /// that show whether somebody waits.
    pub(crate) fn assert_latency(&self) {
        let (name, figures) = (&self.campaign.name, self.figures());
        let calm = figures.spread(Phase::Calm).p99;
        for (phase, promised) in [(Phase::FirstSecond, ADDED_FIRST_MAX), (Phase::Later, ADDED_LATER_MAX)] {
            let spread = figures.spread(phase);
            let bound = if is_long() { calm + promised } else { CALL_MAX + BUSY_MACHINE };
            assert!(spread.calls == 0 || spread.p99 <= bound, "{name}, {phase:?}: {spread}; bound {bound:?}");
        }
    }
}
