//! Lives of cached values that follow what is seen, and are shared through a backend that can swap values.
#![allow(clippy::unwrap_used, clippy::panic, missing_docs, reason = "a test says what it expects")]

use std::convert::Infallible;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use recache_cache::provider::{Moka, Redis, RedisSettings};
use recache_cache::{Cache, Coherence, Key, KeyPrefix, ManualClock, SystemClock, Timestamp, Usage};
use recache_engine::adaptive::{Adaptive, ClassLife};
use recache_model::ttl::{Saves, Settings};

const SECOND: Duration = Duration::from_secs(1);

fn usage() -> Usage {
    Usage::user("test", Coherence::Eventual)
}

fn settings() -> Settings {
    Settings {
        staleness: 10 * SECOND,
        ttl_max: 600 * SECOND,
        window: 3_600 * SECOND,
        saves: Saves::Rebuilds,
        ..Settings::default()
    }
}

struct World {
    clock: Arc<ManualClock>,
    cache: Cache,
    adaptive: Adaptive,
    loads: AtomicU64,
}

impl World {
    fn new() -> Self {
        let clock = Arc::new(ManualClock::new(Timestamp::from_micros(1_795_000_000_000_000)));
        let moka = Moka::new(1_000, 1 << 20, clock.clone());
        let cache = Cache::builder(Arc::new(moka), clock.clone()).build();
        let adaptive = Adaptive::new(&cache, clock.clone(), settings(), 1).unwrap();
        Self { clock, cache, adaptive, loads: AtomicU64::new(0) }
    }

    fn key(&self, name: &str) -> Key {
        self.cache.keys().space("s").key([name])
    }

    /// Reads, at a moment at which the truth is this value.
    async fn read(&self, class: &str, value: u64) -> u64 {
        let load = || async {
            self.loads.fetch_add(1, Ordering::SeqCst);
            Ok::<_, Infallible>(Some(value))
        };
        *self.adaptive.get_or_load(&usage(), class, &self.key(class), load).await.unwrap().unwrap()
    }

    /// Reads every second for so long; the truth changes every `change_s` seconds. Answers the loads of the last half.
    async fn watch(&self, class: &str, seconds: u64, change_s: u64) -> u64 {
        let mut before = 0;
        for second in 0..seconds {
            if second == seconds / 2 {
                before = self.loads.load(Ordering::SeqCst);
            }
            self.read(class, second / change_s).await;
            self.clock.advance(SECOND);
        }
        self.loads.load(Ordering::SeqCst) - before
    }

    fn life(&self, class: &str) -> Duration {
        let lives = self.adaptive.explain();
        let lives = lives.iter().filter(|one| one.class == class).map(|one| one.decision.ttl);
        lives.max().unwrap_or_default()
    }
}

#[tokio::test]
async fn value_that_hardly_ever_changes_lives_longer_than_one_that_changes_often() {
    let world = World::new();
    let steady = world.watch("steady", 3_600, 100_000).await;
    let restless = world.watch("restless", 3_600, 15).await;
    let (long, short) = (world.life("steady"), world.life("restless"));
    assert!(long > short * 3, "{long:?} and {short:?}");
    assert!(steady * 2 < restless, "{steady} and {restless} loads");
    assert!(short >= settings().staleness, "within its budget no read is too stale: {short:?}");
}

/// What is told is what values get that are made now: as decided last, however the correction would go on, and no longer
/// than the usage allows.
#[tokio::test]
async fn explanation_tells_the_life_that_is_in_force() {
    let world = World::new();
    // Bursts, so that the correction moves at each decision.
    world.watch("one", 1_800, 15).await;
    let told = world.adaptive.explain();
    assert_eq!(world.adaptive.explain(), told, "to look changes nothing");
    world.clock.advance(SECOND);
    let later = world.adaptive.explain();
    let lives = |told: &[ClassLife]| -> Vec<Duration> { told.iter().map(|one| one.decision.ttl).collect() };
    assert_eq!(lives(&later), lives(&told), "nothing was decided meanwhile");
    // The key's value is made anew, and lives as long as one of the phases was told.
    let key = world.key("one");
    world.cache.invalidate(&key).await;
    let before = world.loads.load(Ordering::SeqCst);
    world.read("one", 1_000_000).await;
    let (mut lived, longest) = (Duration::ZERO, 600 * SECOND);
    while world.loads.load(Ordering::SeqCst) == before + 1 && lived < longest {
        world.clock.advance(SECOND);
        lived += SECOND;
        world.adaptive.explain();
        world.read("one", 1_000_000).await;
    }
    let is_told = lives(&told).iter().any(|life| lived >= *life && lived <= *life + SECOND);
    assert!(is_told, "it lived for {lived:?}, told were {:?}", lives(&told));

    // A usage that allows less.
    let short = Usage::Analytics;
    let load = || async { Ok::<_, Infallible>(Some(1)) };
    let key = world.key("short");
    for _ in 0..400 {
        world.adaptive.get_or_load(&short, "short", &key, load).await.unwrap();
        world.clock.advance(10 * SECOND);
    }
    let allowed = short.lifetime(world.cache.lifetimes());
    let told = world.adaptive.explain();
    let held: Vec<_> = told.iter().filter(|one| one.class == "short").collect();
    let is_within = |one: &&ClassLife| one.usage == Some(allowed) && one.decision.ttl <= allowed;
    assert!(!held.is_empty() && held.iter().all(is_within), "{held:?}");
    assert!(held.iter().any(|one| one.decision.ttl == allowed && one.bound() == Some("usage")), "{held:?}");
}

#[tokio::test]
async fn hit_makes_nothing_and_an_invalidation_is_no_surprise() {
    let world = World::new();
    for _ in 0..50 {
        assert_eq!(world.read("one", 7).await, 7);
    }
    assert_eq!(world.loads.load(Ordering::SeqCst), 1);
    world.adaptive.invalidate("one", &world.key("one")).await;
    assert_eq!(world.read("one", 8).await, 8, "the new value, at once");
    world.clock.advance(3_600 * SECOND);
    world.read("one", 8).await;
    let told = world.adaptive.explain();
    let sum = |of: fn(&ClassLife) -> f64| told.iter().map(of).sum::<f64>();
    assert!(sum(|one| one.observed.changed) < 0.5, "that it changed was told: {told:?}");
}

#[test]
fn settings_that_cannot_be_are_refused_by_name() {
    let world = World::new();
    let bad = Settings { stale_share_max: f64::NAN, ttl_min: Duration::MAX, ..settings() };
    let refused = Adaptive::new(&world.cache, Arc::new(SystemClock), bad, 1).unwrap_err().to_string();
    assert!(refused.contains("`stale_share_max`") && refused.contains("`ttl_min`"), "{refused}");
}

#[tokio::test]
async fn process_alone_keeps_to_itself_what_it_saw() {
    let world = World::new();
    world.watch("one", 60, 100).await;
    assert!(!world.adaptive.share().await && !world.adaptive.learn().await);
}

/// Two processes on one server: what either saw, both know, however often it is merged.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn processes_share_what_they_saw_through_redis() {
    let Ok(url) = std::env::var("RECACHE_TEST_REDIS_URL") else {
        assert!(std::env::var("CI").is_err(), "RECACHE_TEST_REDIS_URL is not set");
        return;
    };
    let prefix = format!("ttl-{}", uuid::Uuid::new_v4());
    let clock = Arc::new(ManualClock::new(Timestamp::from_micros(1_795_000_000_000_000)));
    let mut processes = Vec::new();
    for instance in [1, 2] {
        let redis = Redis::new(&RedisSettings::single(&url).unwrap(), KeyPrefix::new(&prefix));
        let cache = Cache::builder(Arc::new(redis), clock.clone()).key_prefix(&prefix).build();
        while cache.provider().health().await.is_err() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        let adaptive = Adaptive::new(&cache, clock.clone(), settings(), instance).unwrap();
        processes.push((cache, adaptive));
    }
    for (place, (cache, adaptive)) in processes.iter().enumerate() {
        let class = format!("class {place}");
        let key = cache.keys().space("s").key([&class]);
        for _ in 0..10 {
            let load = || async { Ok::<_, Infallible>(Some(1)) };
            adaptive.get_or_load(&usage(), &class, &key, load).await.unwrap();
        }
    }
    for _ in 0..3 {
        for (_, adaptive) in &processes {
            assert!(adaptive.share().await);
        }
    }
    clock.advance(200 * SECOND);
    // Its life is over: it is made again, and whether it has changed is known then.
    for (place, (cache, adaptive)) in processes.iter().enumerate() {
        let class = format!("class {place}");
        let key = cache.keys().space("s").key([&class]);
        let load = || async { Ok::<_, Infallible>(Some(1)) };
        adaptive.get_or_load(&usage(), &class, &key, load).await.unwrap();
    }
    for _ in 0..2 {
        for (_, adaptive) in &processes {
            assert!(adaptive.share().await);
        }
    }
    let reader = Adaptive::new(&processes[0].0, clock.clone(), settings(), 3).unwrap();
    assert!(reader.learn().await);
    let told = reader.explain();
    for class in ["class 0", "class 1"] {
        let reads: f64 = told
            .iter()
            .filter(|one| one.class == class)
            .map(|one| one.observed.rates.reads_per_s * 200.0)
            .sum();
        assert!((10.5..11.5).contains(&reads), "{class}: {reads} reads in {told:?}");
    }
}
