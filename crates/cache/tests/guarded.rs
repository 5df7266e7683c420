//! A provider behind its breakers: what is cut off, what is counted, and that nothing is sent while they are open.
#![allow(clippy::unwrap_used, clippy::panic, missing_docs, reason = "a test says what it expects")]

#[allow(dead_code, reason = "each test file uses a part of it")]
mod support;

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use recache_cache::breaker::Settings;
use recache_cache::epochs::{EpochRecord, Slot};
use recache_cache::provider::{
    Atomics, BreakerReport, CallClass, Capability, Copies, Entry, EpochStore, Error, Guarded, Item, Lease,
    Leased, Leases, Message, Messages, Scope,
};
use recache_cache::{Cache, Capabilities, Coherence, Key, KeyPrefix, ManualClock, Provider, Timestamp};
use tokio::sync::mpsc;
use tokio::time::{Instant, advance, sleep, timeout};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Mood {
    Work,
    Fail,
    Break,
    Refuse,
    Panic,
    /// Works, after so many milliseconds.
    Late(u64),
}

/// Answers by its mood; counts calls by their class.
#[derive(Debug)]
struct Scripted {
    mood: Mutex<Mood>,
    reads: AtomicU64,
    writes: AtomicU64,
    passed: AtomicU64,
}

impl Scripted {
    fn be(&self, mood: Mood) {
        *self.mood.lock().unwrap() = mood;
    }

    fn calls(&self) -> (u64, u64) {
        (self.reads.load(Ordering::SeqCst), self.writes.load(Ordering::SeqCst))
    }

    async fn read_as<T>(&self, answer: T) -> Result<T, Error> {
        self.reads.fetch_add(1, Ordering::SeqCst);
        self.act(answer).await
    }

    async fn write_as<T>(&self, answer: T) -> Result<T, Error> {
        self.writes.fetch_add(1, Ordering::SeqCst);
        self.act(answer).await
    }

    async fn act<T>(&self, answer: T) -> Result<T, Error> {
        let (provider, reason) = ("scripted", "told to".to_owned());
        let mood = *self.mood.lock().unwrap();
        match mood {
            Mood::Work => Ok(answer),
            Mood::Fail => Err(Error::Unavailable { provider, reason }),
            Mood::Break => Err(Error::Protocol { provider, reason }),
            Mood::Refuse => Err(Error::Refused { provider, reason }),
            Mood::Panic => panic!("told to panic"),
            Mood::Late(ms) => {
                sleep(Duration::from_millis(ms)).await;
                Ok(answer)
            }
        }
    }
}

#[async_trait]
impl Provider for Scripted {
    fn name(&self) -> &'static str {
        "scripted"
    }
    fn capabilities(&self) -> Capabilities {
        Capabilities::declared(
            Coherence::Strict,
            &[Capability::Retains, Capability::Leases, Capability::Tags],
        )
        .limited(Capability::MaxValueBytes, 77)
    }
    fn peek(&self, _: &Key, _: Timestamp) -> Option<Item> {
        Some(Item::from(Bytes::from_static(b"near")))
    }
    async fn get(&self, _: &Key) -> Result<Option<Item>, Error> {
        self.read_as(None).await
    }
    async fn set(&self, _: &Key, _: Item, _: Duration) -> Result<(), Error> {
        self.write_as(()).await
    }
    async fn delete(&self, _: &[Key]) -> Result<(), Error> {
        self.write_as(()).await
    }
    async fn replace(&self, _: &Key, _: &Item, _: Item, _: Duration) -> Result<bool, Error> {
        self.write_as(true).await
    }
    async fn get_many(&self, keys: &[Key]) -> Result<Vec<Option<Item>>, Error> {
        self.read_as(vec![None; keys.len()]).await
    }
    async fn set_many(&self, _: Vec<Entry>) -> Result<(), Error> {
        self.write_as(()).await
    }
    async fn clear(&self, _: &Scope) -> Result<(), Error> {
        self.write_as(()).await
    }
    async fn health(&self) -> Result<(), Error> {
        self.read_as(()).await
    }
    fn evictions(&self) -> Option<u64> {
        Some(3)
    }
    fn copies(&self) -> Option<&dyn Copies> {
        self.passed.fetch_add(1, Ordering::SeqCst);
        None
    }

    fn leases(&self) -> Option<&dyn Leases> {
        Some(self)
    }
    fn epochs(&self) -> Option<&dyn EpochStore> {
        Some(self)
    }
    fn atomics(&self) -> Option<&dyn Atomics> {
        Some(self)
    }
    fn messages(&self) -> Option<&dyn Messages> {
        Some(self)
    }
}

#[async_trait]
impl Leases for Scripted {
    async fn take(&self, _: &Key, _: u128, _: Duration, _: Option<&Item>) -> Result<Leased, Error> {
        self.write_as(Leased::Held).await
    }
    async fn fill(&self, _: &Key, _: &Lease, _: Item, _: Duration) -> Result<bool, Error> {
        self.write_as(true).await
    }
    async fn release(&self, _: &Key, _: &Lease) -> Result<(), Error> {
        self.write_as(()).await
    }
    async fn ended(&self, _: &Key) {
        self.passed.fetch_add(1, Ordering::SeqCst);
    }
}

#[async_trait]
impl EpochStore for Scripted {
    async fn read(&self, _: u64, _: u64) -> Result<Option<EpochRecord>, Error> {
        self.read_as(None).await
    }
    async fn raise(&self, _: &[Slot]) -> Result<EpochRecord, Error> {
        self.write_as(EpochRecord::default()).await
    }
    async fn changed(&self) {
        self.passed.fetch_add(1, Ordering::SeqCst);
    }
}

#[async_trait]
impl Atomics for Scripted {
    async fn add(&self, _: &Key, delta: i64, _: Duration) -> Result<i64, Error> {
        self.write_as(delta).await
    }
    async fn read(&self, _: &Key) -> Result<Option<Bytes>, Error> {
        self.read_as(None).await
    }
    async fn compare_and_swap(
        &self,
        _: &Key,
        _: Option<&[u8]>,
        _: Option<Bytes>,
        _: Duration,
    ) -> Result<bool, Error> {
        self.write_as(true).await
    }
}

#[async_trait]
impl Messages for Scripted {
    async fn publish(&self, _: &str, _: Bytes) -> Result<(), Error> {
        self.write_as(()).await
    }
    fn subscribe(&self, _: &str) -> mpsc::Receiver<Message> {
        self.passed.fetch_add(1, Ordering::SeqCst);
        mpsc::channel(1).1
    }
}

fn guarded() -> (Guarded, Arc<Scripted>) {
    guarded_by(&Settings::default())
}

fn guarded_by(settings: &Settings) -> (Guarded, Arc<Scripted>) {
    let scripted = Arc::new(Scripted {
        mood: Mutex::new(Mood::Work),
        reads: AtomicU64::new(0),
        writes: AtomicU64::new(0),
        passed: AtomicU64::new(0),
    });
    (Guarded::new(scripted.clone(), settings), scripted)
}

fn key() -> Key {
    KeyPrefix::new("p").space("s").key(["k"])
}

fn item() -> Item {
    Item::from(Bytes::from_static(b"v"))
}

const MINUTE: Duration = Duration::from_mins(1);

async fn get(guarded: &Guarded) -> Result<Option<Item>, Error> {
    guarded.get(&key()).await
}

fn states(guarded: &Guarded) -> [&'static str; 2] {
    guarded.breakers().reports().map(|report| report.state)
}

/// Every call once; answers how many were cut off.
async fn every_read(guarded: &Guarded) -> usize {
    let cut_off = [
        get(guarded).await.err(),
        guarded.get_many(&[key()]).await.err(),
        guarded.health().await.err(),
        guarded.epochs().unwrap().read(0, 0).await.err(),
        guarded.atomics().unwrap().read(&key()).await.err(),
    ];
    cut_off.iter().flatten().filter(|error| matches!(error, Error::CutOff { .. })).count()
}

async fn every_write(guarded: &Guarded) -> usize {
    let lease = Lease { token: 1, fence: 0 };
    let leases = guarded.leases().unwrap();
    let atomics = guarded.atomics().unwrap();
    let scope = Scope::Prefix(KeyPrefix::new("p"));
    let entry = Entry { key: key(), item: item(), keep_for: MINUTE };
    let cut_off = [
        guarded.set(&key(), item(), MINUTE).await.err(),
        guarded.delete(&[key()]).await.err(),
        guarded.replace(&key(), &item(), item(), MINUTE).await.err(),
        guarded.set_many(vec![entry]).await.err(),
        guarded.clear(&scope).await.err(),
        leases.take(&key(), 1, MINUTE, None).await.err(),
        leases.fill(&key(), &lease, item(), MINUTE).await.err(),
        leases.release(&key(), &lease).await.err(),
        guarded.epochs().unwrap().raise(&[Slot::EVERYTHING]).await.err(),
        atomics.add(&key(), 1, MINUTE).await.err(),
        atomics.compare_and_swap(&key(), None, None, MINUTE).await.err(),
        guarded.messages().unwrap().publish("c", Bytes::new()).await.err(),
    ];
    cut_off.iter().flatten().filter(|error| matches!(error, Error::CutOff { .. })).count()
}

#[tokio::test(start_paused = true)]
async fn each_call_goes_through_its_class_and_none_is_sent_while_that_is_open() {
    let (guarded, scripted) = guarded();
    assert_eq!((every_read(&guarded).await, every_write(&guarded).await), (0, 0));
    assert_eq!(scripted.calls(), (5, 12));

    guarded.breakers().force_open(CallClass::Read);
    assert_eq!((every_read(&guarded).await, every_write(&guarded).await), (5, 0));
    assert_eq!(scripted.calls(), (5, 24));

    guarded.breakers().reset(CallClass::Read);
    guarded.breakers().force_open(CallClass::Write);
    // Health asks, and tells that writes are cut off.
    assert_eq!((every_read(&guarded).await, every_write(&guarded).await), (1, 12));
    assert_eq!(scripted.calls(), (10, 24));
}

#[tokio::test(start_paused = true)]
async fn what_makes_no_call_passes_an_open_breaker() {
    let (guarded, scripted) = guarded();
    guarded.breakers().force_open(CallClass::Read);
    guarded.breakers().force_open(CallClass::Write);
    assert!(guarded.peek(&key(), Timestamp::from_micros(0)).is_some());
    assert!(guarded.copies().is_none());
    guarded.leases().unwrap().ended(&key()).await;
    guarded.epochs().unwrap().changed().await;
    guarded.messages().unwrap().subscribe("c");
    assert_eq!(scripted.passed.load(Ordering::SeqCst), 4);
    assert_eq!((guarded.name(), guarded.evictions()), ("scripted", Some(3)));
    assert_eq!(guarded.capabilities(), scripted.capabilities());
    assert!(guarded.get_many(&[]).await.unwrap().is_empty());
    guarded.delete(&[]).await.unwrap();
    guarded.set_many(Vec::new()).await.unwrap();
    assert_eq!(scripted.calls(), (0, 0));
}

#[tokio::test(start_paused = true)]
async fn five_failures_open_reads_only_and_two_probes_close_them() {
    let (guarded, scripted) = guarded();
    for mood in [Mood::Fail, Mood::Break, Mood::Fail, Mood::Break, Mood::Fail] {
        scripted.be(mood);
        assert!(get(&guarded).await.unwrap_err().is_failure());
    }
    assert_eq!(states(&guarded), ["open", "closed"]);
    let error = get(&guarded).await.unwrap_err();
    assert_eq!(error.to_string(), "scripted is cut off: its breaker is open");
    guarded.set(&key(), item(), MINUTE).await.unwrap_err();

    scripted.be(Mood::Work);
    advance(Duration::from_secs(15)).await;
    get(&guarded).await.unwrap();
    assert_eq!(states(&guarded), ["half-open", "closed"]);
    guarded.health().await.unwrap();
    assert_eq!(states(&guarded), ["closed", "closed"]);
    assert_eq!(scripted.calls().0, 7);
}

#[tokio::test(start_paused = true)]
async fn misses_and_refusals_are_not_failures_and_a_refusal_closes_nothing() {
    let (guarded, scripted) = guarded_by(&Settings { permits: 1, ..Settings::default() });
    for mood in [Mood::Work, Mood::Refuse] {
        scripted.be(mood);
        for _ in 0..200 {
            let _ = get(&guarded).await;
        }
    }
    assert_eq!(states(&guarded)[0], "closed");
    scripted.be(Mood::Fail);
    for _ in 0..5 {
        get(&guarded).await.unwrap_err();
    }
    advance(Duration::from_secs(15)).await;
    scripted.be(Mood::Refuse);
    for _ in 0..10 {
        assert!(matches!(get(&guarded).await, Err(Error::Refused { .. })));
    }
    assert_eq!(states(&guarded)[0], "half-open");
}

#[tokio::test(start_paused = true)]
async fn call_without_an_answer_ends_at_its_limit_as_a_failure() {
    let (guarded, scripted) = guarded();
    let guarded = guarded.call_timeout(Duration::from_millis(20));
    scripted.be(Mood::Late(1_000_000));
    let began = Instant::now();
    for _ in 0..5 {
        let error = get(&guarded).await.unwrap_err();
        assert_eq!(error.to_string(), "scripted is not available: no answer within 20ms");
    }
    assert_eq!(began.elapsed(), Duration::from_millis(100));
    assert_eq!(states(&guarded)[0], "open");
}

#[tokio::test(start_paused = true)]
async fn answers_that_are_slow_but_in_time_open_it_by_their_rate() {
    let (guarded, scripted) = guarded();
    for (late_ms, state) in [(25, "closed"), (26, "open")] {
        scripted.be(Mood::Late(late_ms));
        for _ in 0..20 {
            get(&guarded).await.unwrap();
        }
        assert_eq!(states(&guarded)[0], state, "{late_ms} ms");
        guarded.breakers().reset(CallClass::Read);
    }
}

#[tokio::test(start_paused = true)]
async fn dropped_call_counts_as_a_failure_only_when_it_was_slow() {
    let (guarded, scripted) = guarded();
    scripted.be(Mood::Late(1_000));
    for (given_up_ms, state) in [(25, "closed"), (26, "open")] {
        for _ in 0..5 {
            timeout(Duration::from_millis(given_up_ms), get(&guarded)).await.unwrap_err();
        }
        assert_eq!(states(&guarded)[0], state, "{given_up_ms} ms");
    }
}

#[tokio::test(start_paused = true)]
async fn dropped_probes_give_their_permits_back() {
    let (guarded, scripted) = guarded();
    scripted.be(Mood::Fail);
    for _ in 0..5 {
        get(&guarded).await.unwrap_err();
    }
    advance(Duration::from_secs(15)).await;
    scripted.be(Mood::Late(1_000));
    for _ in 0..10 {
        timeout(Duration::from_millis(5), get(&guarded)).await.unwrap_err();
    }
    scripted.be(Mood::Work);
    get(&guarded).await.unwrap();
    get(&guarded).await.unwrap();
    assert_eq!(states(&guarded)[0], "closed");
}

#[tokio::test]
async fn panics_count_as_failures() {
    let (guarded, scripted) = guarded();
    let guarded = Arc::new(guarded);
    scripted.be(Mood::Panic);
    for _ in 0..5 {
        let guarded = Arc::clone(&guarded);
        tokio::spawn(async move { get(&guarded).await.is_ok() }).await.unwrap_err();
    }
    assert_eq!(states(&guarded)[0], "open");
}

/// The cache's own limit ends a call by dropping it.
#[tokio::test(start_paused = true)]
async fn cache_over_a_hanging_backend_is_cut_off_and_then_costs_no_wait() {
    for cache_limit_ms in [40, 50, 60] {
        let (guarded, scripted) = guarded();
        let breakers = guarded.breakers();
        let cache = Cache::builder(Arc::new(guarded), Arc::new(ManualClock::default()))
            .operation_timeout(Duration::from_millis(cache_limit_ms))
            .build();
        let key = cache.keys().space("things").key(["a"]);
        scripted.be(Mood::Late(1_000_000));
        let began = Instant::now();
        for _ in 0..5 {
            let _ = cache.get::<u32>(&key).await;
        }
        // A look is two reads, of the entry and of the epochs: it opens after fewer than five looks.
        assert!(began.elapsed() <= Duration::from_millis(5 * cache_limit_ms.min(50)));
        assert_eq!(breakers.reports()[0].state, "open", "with a limit of {cache_limit_ms} ms");
        let (began, sent) = (Instant::now(), scripted.calls().0);
        for _ in 0..100 {
            let _ = cache.get::<u32>(&key).await;
        }
        assert_eq!((began.elapsed(), scripted.calls().0), (Duration::ZERO, sent));
    }
}

#[tokio::test(start_paused = true)]
async fn report_tells_state_since_rates_and_refusals() {
    let (guarded, scripted) = guarded();
    get(&guarded).await.unwrap();
    scripted.be(Mood::Fail);
    get(&guarded).await.unwrap_err();
    let BreakerReport { failure_rate, window_calls, failures_in_a_row, .. } = guarded.breakers().reports()[0];
    assert_eq!((window_calls, failures_in_a_row), (2, 1));
    assert!((failure_rate - 0.5).abs() < f64::EPSILON);
    for _ in 0..6 {
        get(&guarded).await.unwrap_err();
    }
    advance(Duration::from_secs(3)).await;
    let report = guarded.breakers().reports()[0];
    assert_eq!((report.backend, report.class, report.state), ("scripted", CallClass::Read, "open"));
    assert_eq!((report.since, report.next_probe_in), (Duration::from_secs(3), Some(Duration::from_secs(12))));
    assert_eq!((report.opened, report.refused, report.is_refusing), (1, 2, true));
}

/// Opening, half-open and closing are each said once, however many calls there are.
#[tokio::test(start_paused = true)]
async fn each_change_is_logged_once() {
    let (said, _guard) = support::Said::listen();
    let (guarded, scripted) = guarded();
    scripted.be(Mood::Fail);
    for _ in 0..100 {
        get(&guarded).await.unwrap_err();
    }
    assert_eq!((said.errors(), said.infos()), (1, 0));
    scripted.be(Mood::Work);
    advance(Duration::from_secs(15)).await;
    for _ in 0..100 {
        get(&guarded).await.unwrap();
    }
    assert_eq!((said.errors(), said.warnings(), said.infos()), (1, 0, 2));
}
