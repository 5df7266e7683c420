//! What a policy allows beyond freshness: stale values while somebody loads or when loading fails, limits of patience,
//! refreshing ahead of time, batches, longer life.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    missing_docs,
    reason = "a test says what it expects"
)]

#[allow(dead_code, reason = "each test file uses a part of it")]
mod support;

use std::convert::Infallible;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use recache_cache::provider::Moka;
use recache_cache::{Cache, Clock, Key, LoadError, Policy, TagSlots};
use support::shared::{Fleet, Shape, TokioClock};
use tokio::time::{Instant, sleep};

const SECOND: Duration = Duration::from_secs(1);

/// A cache in this process whose time is tokio's, and a source that counts how often it is asked.
struct Bench {
    cache: Cache,
    source: Arc<Source>,
    key: Key,
}

#[derive(Default)]
struct Source {
    loads: AtomicU64,
    millis: AtomicU64,
    fails: std::sync::atomic::AtomicBool,
}

impl Source {
    /// Answers the number of the load, after its time.
    async fn load(self: Arc<Self>) -> Result<Option<u64>, &'static str> {
        let number = self.loads.fetch_add(1, Ordering::SeqCst) + 1;
        let fails = self.fails.load(Ordering::SeqCst);
        sleep(Duration::from_millis(self.millis.load(Ordering::SeqCst))).await;
        if fails { Err("the source is down") } else { Ok(Some(number)) }
    }

    fn takes(&self, time: Duration) {
        self.millis.store(u64::try_from(time.as_millis()).unwrap(), Ordering::SeqCst);
    }

    fn fail(&self, fails: bool) {
        self.fails.store(fails, Ordering::SeqCst);
    }

    fn loads(&self) -> u64 {
        self.loads.load(Ordering::SeqCst)
    }
}

impl Bench {
    fn new() -> Self {
        let clock: Arc<dyn Clock> = Arc::new(TokioClock::default());
        let provider = Arc::new(Moka::new(1_000, 1 << 20, Arc::clone(&clock)));
        let cache = Cache::builder(provider, clock).key_prefix("test").build();
        let key = cache.keys().space("things").key(["k"]);
        Self { cache, source: Arc::default(), key }
    }

    async fn refresh(&self, policy: &Policy) -> Result<u64, LoadError<&'static str>> {
        let source = Arc::clone(&self.source);
        let value = self.cache.get_or_refresh(&self.key, policy, move || source.load()).await;
        value.map(|value| *value.unwrap())
    }

    async fn load(&self, policy: &Policy) -> Result<u64, LoadError<&'static str>> {
        let source = Arc::clone(&self.source);
        let value = self.cache.get_or_load(&self.key, policy, || source.load()).await;
        value.map(|value| *value.unwrap())
    }
}

/// Fresh for ten seconds, kept for a minute.
fn kept() -> Policy {
    Policy::new(SECOND * 10).keep_for(SECOND * 60)
}

#[tokio::test(start_paused = true)]
async fn stale_value_is_served_at_once_while_it_is_loaded_in_the_background() {
    let bench = Bench::new();
    let policy = kept().stale_while_revalidate();
    assert_eq!(bench.refresh(&policy).await.unwrap(), 1);
    bench.source.takes(SECOND);
    sleep(SECOND * 11).await;
    let began = Instant::now();
    for _ in 0..5 {
        assert_eq!(bench.refresh(&policy).await.unwrap(), 1);
    }
    assert!(began.elapsed() < SECOND / 10, "nobody waits");
    sleep(SECOND * 2).await;
    assert_eq!(bench.refresh(&policy).await.unwrap(), 2);
    assert_eq!(bench.source.loads(), 2, "one load for all of them");
    assert_eq!(bench.cache.stats().refreshes, 1);
}

#[tokio::test(start_paused = true)]
async fn stale_value_beyond_its_keep_for_is_waited_for() {
    let bench = Bench::new();
    let policy = kept().stale_while_revalidate();
    assert_eq!(bench.refresh(&policy).await.unwrap(), 1);
    sleep(SECOND * 61).await;
    assert_eq!(bench.refresh(&policy).await.unwrap(), 2);
}

#[tokio::test(start_paused = true)]
async fn with_a_borrowing_loader_one_caller_loads_and_the_others_get_the_stale_value() {
    let bench = Bench::new();
    let policy = kept().stale_while_revalidate();
    assert_eq!(bench.load(&policy).await.unwrap(), 1);
    bench.source.takes(SECOND);
    sleep(SECOND * 11).await;
    let (loader, other) = tokio::join!(bench.load(&policy), async {
        sleep(SECOND / 2).await;
        let began = Instant::now();
        let value = bench.load(&policy).await;
        assert!(began.elapsed() < SECOND / 10);
        value
    });
    assert_eq!((loader.unwrap(), other.unwrap()), (2, 1));
}

#[tokio::test(start_paused = true)]
async fn an_invalidated_value_is_never_served_stale() {
    let bench = Bench::new();
    let policy = kept().stale_while_revalidate().stale_if_error(SECOND);
    assert_eq!(bench.refresh(&policy).await.unwrap(), 1);
    bench.cache.invalidate(&bench.key).await;
    assert_eq!(bench.refresh(&policy).await.unwrap(), 2);
    bench.cache.clear().await;
    bench.source.fail(true);
    assert!(bench.refresh(&policy).await.is_err());
}

#[tokio::test(start_paused = true)]
async fn failing_source_gives_the_stale_value_and_is_asked_once_per_throttle() {
    let bench = Bench::new();
    let policy = kept().stale_if_error(SECOND * 5);
    assert_eq!(bench.load(&policy).await.unwrap(), 1);
    bench.source.fail(true);
    sleep(SECOND * 11).await;
    for _ in 0..10 {
        assert_eq!(bench.load(&policy).await.unwrap(), 1);
    }
    assert_eq!(bench.source.loads(), 2);
    sleep(SECOND * 5).await;
    assert_eq!(bench.load(&policy).await.unwrap(), 1);
    assert_eq!(bench.source.loads(), 3);
    bench.source.fail(false);
    sleep(SECOND * 5).await;
    assert_eq!(bench.load(&policy).await.unwrap(), 4);
    bench.source.fail(true);
    sleep(SECOND * 61).await;
    let error = bench.load(&policy).await.unwrap_err();
    assert_eq!(error.loader_error(), Some(&"the source is down"), "nothing is kept any more");
}

#[tokio::test(start_paused = true)]
async fn without_leave_a_failing_source_gives_its_error() {
    let bench = Bench::new();
    assert_eq!(bench.load(&kept()).await.unwrap(), 1);
    bench.source.fail(true);
    sleep(SECOND * 11).await;
    assert!(bench.load(&kept()).await.is_err());
}

#[tokio::test(start_paused = true)]
async fn past_the_soft_timeout_the_stale_value_is_served_and_the_load_goes_on() {
    let bench = Bench::new();
    let policy = kept().soft_timeout(SECOND / 10);
    assert_eq!(bench.refresh(&policy).await.unwrap(), 1);
    bench.source.takes(SECOND * 3);
    sleep(SECOND * 11).await;
    let began = Instant::now();
    assert_eq!(bench.refresh(&policy).await.unwrap(), 1);
    assert!(began.elapsed() <= SECOND / 5);
    sleep(SECOND * 3).await;
    assert_eq!(bench.refresh(&policy).await.unwrap(), 2);
    assert_eq!(bench.source.loads(), 2);
}

#[tokio::test(start_paused = true)]
async fn past_the_hard_timeout_the_caller_gives_up_and_the_load_is_kept() {
    let bench = Bench::new();
    let policy = kept().hard_timeout(SECOND);
    bench.source.takes(SECOND * 3);
    let began = Instant::now();
    assert!(matches!(bench.refresh(&policy).await, Err(LoadError::TimedOut(limit)) if limit == SECOND));
    assert_eq!(began.elapsed().as_secs(), 1);
    sleep(SECOND * 3).await;
    assert_eq!(bench.refresh(&policy).await.unwrap(), 1, "what it brought is stored");
    assert_eq!(bench.source.loads(), 1);
}

#[tokio::test(start_paused = true)]
async fn past_the_hard_timeout_a_stale_value_is_served_where_errors_may_be_covered() {
    let bench = Bench::new();
    let policy = kept().hard_timeout(SECOND).stale_if_error(SECOND * 5);
    assert_eq!(bench.refresh(&policy).await.unwrap(), 1);
    bench.source.takes(SECOND * 3);
    sleep(SECOND * 11).await;
    assert_eq!(bench.refresh(&policy).await.unwrap(), 1);
    assert_eq!(bench.load(&policy).await.unwrap(), 1, "the borrowing loader is dropped at its limit");
    assert!(bench.cache.stats().load_timeouts >= 1);
}

#[tokio::test(start_paused = true)]
async fn dropped_call_does_not_end_its_background_load() {
    let bench = Bench::new();
    bench.source.takes(SECOND);
    let given_up = tokio::time::timeout(SECOND / 2, bench.refresh(&kept())).await;
    assert!(given_up.is_err());
    sleep(SECOND).await;
    assert_eq!(bench.refresh(&kept()).await.unwrap(), 1);
    assert_eq!(bench.source.loads(), 1);
}

#[tokio::test(start_paused = true)]
#[should_panic(expected = "the loader's own")]
async fn panic_of_a_background_loader_reaches_its_caller() {
    let bench = Bench::new();
    let load = || async {
        sleep(SECOND).await;
        panic!("the loader's own")
    };
    let _ = bench.cache.get_or_refresh::<u64, Infallible, _>(&bench.key, &kept(), load).await;
}

#[tokio::test(start_paused = true)]
async fn early_refresh_makes_at_most_one_load_a_lifetime_for_the_whole_fleet() {
    let fleet = Fleet::new(Shape::Far, 5);
    let key = fleet.key("k");
    let source = Arc::new(Source::default());
    source.takes(SECOND / 10);
    let policy = Policy::new(SECOND * 10).early_refresh(1.0);
    let began = Instant::now();
    let mut waits = 0;
    let mut reads = 0;
    while began.elapsed() < SECOND * 200 {
        for cache in &fleet.caches {
            let (asked, source) = (Instant::now(), Arc::clone(&source));
            cache.get_or_refresh(&key, &policy, move || source.load()).await.unwrap().unwrap();
            reads += 1;
            waits += u32::from(asked.elapsed() > SECOND / 20);
        }
        sleep(SECOND / 100).await;
    }
    let lifetimes = 20.0;
    let loads = f64::from(u32::try_from(source.loads()).unwrap());
    // A lifetime is cut a little short by each early refresh: the reads of five nodes make 20.8 of 20.
    assert!(loads <= lifetimes * 1.10, "{loads} loads in {lifetimes} lifetimes");
    assert!(waits <= 6, "{waits} of {reads} reads waited");
}

#[tokio::test(start_paused = true)]
async fn jitter_lets_values_that_were_loaded_together_end_apart() {
    let bench = Bench::new();
    let policy = Policy::new(SECOND * 100).jitter(0.5);
    let keys: Vec<_> =
        (0..200).map(|number| bench.cache.keys().space("things").key([number.to_string()])).collect();
    for key in &keys {
        bench.cache.set(key, 1_u64, &policy).await;
    }
    sleep(SECOND * 75).await;
    let left = bench.cache.get_many::<u64>(&keys).await.iter().flatten().count();
    assert!((50..150).contains(&left), "{left} of 200 are fresh at three quarters");
    sleep(SECOND * 25).await;
    assert_eq!(bench.cache.get_many::<u64>(&keys).await.iter().flatten().count(), 0);
}

#[tokio::test(start_paused = true)]
async fn invalidating_a_tag_ends_what_has_it_and_nothing_else() {
    let bench = Bench::new();
    let space = bench.cache.keys().space("things");
    let keys = ["red", "both", "blue", "none"].map(|name| space.key([name]));
    let tagged = |tags: &[&str]| Policy::new(SECOND * 60).tags(TagSlots::of(tags).unwrap());
    for (key, tags) in keys.iter().zip([&["red"][..], &["red", "blue"], &["blue"], &[]]) {
        bench.cache.set(key, 1_u64, &tagged(tags)).await;
    }
    bench.cache.invalidate_tag("red").await;
    let found = bench.cache.get_many::<u64>(&keys).await;
    assert_eq!(found.iter().map(Option::is_some).collect::<Vec<_>>(), [false, false, true, true]);
}

#[tokio::test(start_paused = true)]
async fn extending_prolongs_the_life_and_not_the_youth_of_a_value() {
    let bench = Bench::new();
    let policy = Policy::new(SECOND * 10);
    assert!(!bench.cache.extend(&bench.key, &policy).await, "nothing to extend");
    bench.cache.set(&bench.key, 7_u64, &policy).await;
    sleep(SECOND * 9).await;
    assert!(bench.cache.extend(&bench.key, &policy).await);
    sleep(SECOND * 9).await;
    let answer = bench.cache.lookup::<u64>(&bench.key).await.unwrap();
    assert_eq!((answer.value.as_deref(), answer.age), (Some(&7), SECOND * 18));
    bench.cache.invalidate(&bench.key).await;
    assert!(!bench.cache.extend(&bench.key, &policy).await, "what was invalidated stays so");
}

#[tokio::test(start_paused = true)]
async fn batch_loads_only_what_is_missing_and_in_one_call() {
    let bench = Bench::new();
    let space = bench.cache.keys().space("things");
    let keys: Vec<_> = ["a", "b", "absent", "c", "a"].map(|name| space.key([name])).into();
    bench.cache.set(&keys[1], "kept".to_owned(), &kept()).await;
    let calls = AtomicU64::new(0);
    let loader = |missing: Vec<Key>| {
        calls.fetch_add(1, Ordering::SeqCst);
        assert_eq!(missing.len(), 3, "{missing:?}");
        async move {
            let value = |key: &Key| (!key.as_str().ends_with("absent")).then(|| key.as_str().to_owned());
            Ok::<_, Infallible>(missing.iter().map(value).collect())
        }
    };
    let policy = kept().negative_for(SECOND * 60);
    for _ in 0..2 {
        let found = bench.cache.get_or_load_many::<String, _, _>(&keys, &policy, loader).await.unwrap();
        let found: Vec<_> = found.iter().map(|value| value.as_ref().map(|value| value.as_str())).collect();
        let expected =
            [Some("test:things:a"), Some("kept"), None, Some("test:things:c"), Some("test:things:a")];
        assert_eq!(found, expected);
    }
    assert_eq!(calls.load(Ordering::SeqCst), 1, "the second time all of it is there");
}

#[tokio::test(start_paused = true)]
async fn failing_batch_gives_its_error_and_caches_nothing() {
    let bench = Bench::new();
    let keys = [bench.key.clone()];
    let failing = |_: Vec<Key>| async { Err::<Vec<Option<u64>>, _>("down") };
    let error = bench.cache.get_or_load_many(&keys, &kept(), failing).await.unwrap_err();
    assert_eq!(error.loader_error(), Some(&"down"));
    let working = |_: Vec<Key>| async { Ok::<_, &str>(vec![Some(3_u64)]) };
    assert_eq!(bench.cache.get_or_load_many(&keys, &kept(), working).await.unwrap()[0].as_deref(), Some(&3));
}

#[tokio::test(start_paused = true)]
async fn value_beyond_the_policys_size_is_served_and_not_stored() {
    let bench = Bench::new();
    let policy = kept().value_bytes_max(100);
    let load = || async { Ok::<_, Infallible>(Some("x".repeat(200))) };
    assert_eq!(bench.cache.get_or_load(&bench.key, &policy, load).await.unwrap().unwrap().len(), 200);
    assert!(bench.cache.get::<String>(&bench.key).await.is_none());
    assert_eq!(bench.cache.stats().too_large, 1);
}

#[tokio::test(start_paused = true)]
async fn explanation_says_what_lies_where_and_what_is_answered() {
    let fleet = Fleet::warm(Shape::Tiered, 2).await;
    let (cache, key) = (&fleet.caches[0], fleet.key("k"));
    assert_eq!(cache.explain(&key).await.verdict, "miss: nothing is stored under the key");
    cache.set(&key, 1_u64, &kept()).await;
    let explanation = cache.explain(&key).await;
    assert_eq!((explanation.verdict.as_str(), explanation.near.as_str()), ("hit", "copies may answer"));
    assert!(explanation.near_entry.is_some() && explanation.entry.is_some());
    cache.invalidate_space(&key.space()).await;
    let explanation = cache.explain(&key).await;
    assert!(explanation.verdict.starts_with("miss: outdated"), "{explanation:?}");
    fleet.nodes[0].cut_off(true);
    let verdict = cache.explain(&key).await.verdict;
    assert!(verdict.contains("cut off"), "{verdict}");
}
