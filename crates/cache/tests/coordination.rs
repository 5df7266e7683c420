//! Counters, gauges, histograms and locks of a fleet, by each of the three strategies, on random schedules.
//!
//! The backend is in memory: it keeps the promises of [`Atomics`], takes a random time for each call and, when told to,
//! loses answers. Time is the runtime's paused time, so that a run is its seed.
#![allow(clippy::unwrap_used, clippy::panic, missing_docs, reason = "a test says what it expects")]

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use proptest::prelude::*;
use recache_cache::chance::Seeded;
use recache_cache::coordination::{Coordination, Error, Instance, Limits, Strategy as Protocol};
use recache_cache::provider::{
    self, Atomics, Capability, Copies, Entry, EpochStore, Item, Leases, Messages, MonotonicClock, Noop, Scope,
};
use recache_cache::{
    Cache, Capabilities, Chance, Coherence, FleetReads, Key, KeyPrefix, ManualClock, Provider, SystemChance,
    Timestamp, Usage,
};
use tokio::time::{Instant, advance, sleep};

/// A number below `end`.
fn below(chance: &Seeded, end: u64) -> u64 {
    (chance.draw() >> 33) % end
}

#[derive(Debug)]
struct Memory {
    having: Vec<Capability>,
    values: Mutex<HashMap<Key, (Bytes, Instant)>>,
    random: Seeded,
    delay_us_max: u64,
    /// Of a thousand calls that change something, so many are carried out and not answered well.
    lost_answers: AtomicU64,
    /// Of a thousand calls, so many fail before they are carried out.
    failures: AtomicU64,
    adds: AtomicU64,
    swaps: AtomicU64,
}

impl Memory {
    fn new(seed: u64, having: &[Capability]) -> Arc<Self> {
        Arc::new(Self {
            having: having.to_vec(),
            values: Mutex::default(),
            random: Seeded::new(seed),
            delay_us_max: 2_000,
            lost_answers: AtomicU64::new(0),
            failures: AtomicU64::new(0),
            adds: AtomicU64::new(0),
            swaps: AtomicU64::new(0),
        })
    }

    fn of(protocol: Protocol, seed: u64) -> Arc<Self> {
        Self::new(seed, capabilities_of(protocol))
    }

    async fn pass_time(&self) {
        sleep(Duration::from_micros(below(&self.random, self.delay_us_max))).await;
    }

    async fn exchange<T>(
        &self,
        changes: bool,
        act: impl FnOnce(&mut HashMap<Key, (Bytes, Instant)>) -> T,
    ) -> Result<T, provider::Error> {
        let broken =
            || provider::Error::Unavailable { provider: "memory", reason: "told to fail".to_owned() };
        self.pass_time().await;
        if below(&self.random, 1_000) < self.failures.load(Ordering::SeqCst) {
            return Err(broken());
        }
        let answer = {
            let mut values = self.values.lock().unwrap();
            let now = Instant::now();
            values.retain(|_, (_, until)| now < *until);
            act(&mut values)
        };
        let is_lost = changes && below(&self.random, 1_000) < self.lost_answers.load(Ordering::SeqCst);
        self.pass_time().await;
        if is_lost { Err(broken()) } else { Ok(answer) }
    }
}

#[async_trait]
impl Atomics for Memory {
    async fn add(&self, key: &Key, delta: i64, keep_for: Duration) -> Result<i64, provider::Error> {
        assert!(self.having.contains(&Capability::AtomicIncrement), "it was not offered");
        self.adds.fetch_add(1, Ordering::SeqCst);
        self.exchange(true, |values| {
            let old =
                values.get(key).map_or(0, |(text, _)| std::str::from_utf8(text).unwrap().parse().unwrap());
            values.insert(key.clone(), (Bytes::from((old + delta).to_string()), Instant::now() + keep_for));
            old + delta
        })
        .await
    }

    async fn read(&self, key: &Key) -> Result<Option<Bytes>, provider::Error> {
        self.exchange(false, |values| values.get(key).map(|(value, _)| value.clone())).await
    }

    async fn compare_and_swap(
        &self,
        key: &Key,
        expected: Option<&[u8]>,
        new: Option<Bytes>,
        keep_for: Duration,
    ) -> Result<bool, provider::Error> {
        self.swaps.fetch_add(1, Ordering::SeqCst);
        self.exchange(true, |values| {
            let is_same = values.get(key).map(|(value, _)| value.as_ref()) == expected;
            if is_same {
                match new {
                    Some(new) => values.insert(key.clone(), (new, Instant::now() + keep_for)),
                    None => values.remove(key),
                };
            }
            is_same
        })
        .await
    }
}

/// Of no use here but for its capabilities and atomics.
#[async_trait]
impl Provider for Memory {
    fn name(&self) -> &'static str {
        "memory"
    }
    fn capabilities(&self) -> Capabilities {
        Capabilities::declared(Coherence::Strict, &self.having)
    }
    fn peek(&self, key: &Key, now: Timestamp) -> Option<Item> {
        Noop.peek(key, now)
    }
    async fn get(&self, key: &Key) -> Result<Option<Item>, provider::Error> {
        Noop.get(key).await
    }
    async fn set(&self, key: &Key, item: Item, keep_for: Duration) -> Result<(), provider::Error> {
        Noop.set(key, item, keep_for).await
    }
    async fn delete(&self, keys: &[Key]) -> Result<(), provider::Error> {
        Noop.delete(keys).await
    }
    async fn replace(
        &self,
        key: &Key,
        seen: &Item,
        item: Item,
        keep_for: Duration,
    ) -> Result<bool, provider::Error> {
        Noop.replace(key, seen, item, keep_for).await
    }
    async fn get_many(&self, keys: &[Key]) -> Result<Vec<Option<Item>>, provider::Error> {
        Noop.get_many(keys).await
    }
    async fn set_many(&self, entries: Vec<Entry>) -> Result<(), provider::Error> {
        Noop.set_many(entries).await
    }
    async fn clear(&self, scope: &Scope) -> Result<(), provider::Error> {
        Noop.clear(scope).await
    }
    async fn health(&self) -> Result<(), provider::Error> {
        Ok(())
    }
    fn evictions(&self) -> Option<u64> {
        None
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
        Some(self)
    }
    fn messages(&self) -> Option<&dyn Messages> {
        None
    }
}

const PROTOCOLS: [Protocol; 3] =
    [Protocol::DistributedAtomic, Protocol::DistributedBasic, Protocol::LocalOnly];

fn capabilities_of(protocol: Protocol) -> &'static [Capability] {
    match protocol {
        Protocol::DistributedAtomic => {
            &[Capability::Shared, Capability::AtomicIncrement, Capability::CompareAndSwap]
        }
        Protocol::DistributedBasic => &[Capability::Shared, Capability::CompareAndSwap],
        Protocol::LocalOnly => &[],
    }
}

fn limits() -> Limits {
    // Generous in time, so that a contended run ends by its attempts if at all; each test of a limit sets its own.
    Limits { operation_timeout: Duration::from_mins(10), attempts_max: 10_000, ..Limits::default() }
}

fn wall() -> Arc<ManualClock> {
    Arc::new(ManualClock::new(Timestamp::from_micros(1_795_000_000_000_000)))
}

fn process(memory: &Arc<Memory>, number: u32, clock: &Arc<ManualClock>, limits: Limits) -> Coordination {
    Coordination::with_limits(
        memory.clone(),
        &KeyPrefix::new("test"),
        Instance::new("host", number, u64::from(number) * 7),
        clock.clone(),
        Arc::new(Seeded::new(u64::from(number) * 1_000 + 99)),
        Arc::new(MonotonicClock::new()),
        limits,
    )
}

/// So many processes of one fleet; with `local_only` it is one, since they would have nothing in common.
fn fleet(protocol: Protocol, memory: &Arc<Memory>, size: u32, limits: &Limits) -> Vec<Coordination> {
    let clock = wall();
    let size = if protocol == Protocol::LocalOnly { 1 } else { size };
    let fleet: Vec<_> = (0..size).map(|number| process(memory, number, &clock, limits.clone())).collect();
    assert!(fleet.iter().all(|process| process.strategy() == protocol));
    fleet
}

fn run<T>(test: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .start_paused(true)
        .build()
        .unwrap()
        .block_on(test)
}

async fn join_all<T: 'static>(tasks: Vec<tokio::task::JoinHandle<T>>) -> Vec<T> {
    let mut answers = Vec::new();
    for task in tasks {
        answers.push(task.await.unwrap());
    }
    answers
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn no_count_is_lost_or_made_twice(seed in any::<u64>(), processes in 1_u32..5, tasks in 1_i64..6, each in 1_i64..12) {
        for protocol in PROTOCOLS {
            run(async {
                let memory = Memory::of(protocol, seed);
                let fleet = fleet(protocol, &memory, processes, &limits());
                let mut running = Vec::new();
                for process in &fleet {
                    for task in 0..tasks {
                        let counter = process.counter("hits");
                        running.push(tokio::spawn(async move {
                            let mut seen = Vec::new();
                            for number in 0..each {
                                let delta = if (task + number) % 3 == 0 { -1 } else { 2 };
                                seen.push((delta, counter.add(delta).await.unwrap()));
                            }
                            seen
                        }));
                    }
                }
                let expected: i64 = join_all(running).await.iter().flatten().map(|(delta, _)| delta).sum();
                for process in &fleet {
                    assert_eq!(process.counter("hits").total().await.unwrap(), expected, "{protocol:?}");
                    assert_eq!(process.counter("others").total().await.unwrap(), 0);
                }
            });
        }
    }

    /// A tenth of all answers is lost, whether or not the change was made. Merged parts count each once all the same; with
    /// a server that adds, what is not certain is told as such, and the total lies between.
    #[test]
    fn lost_answers_lose_no_merged_count(seed in any::<u64>(), processes in 1_u32..4) {
        run(async {
            let memory = Memory::of(Protocol::DistributedBasic, seed);
            let fleet = fleet(Protocol::DistributedBasic, &memory, processes, &limits());
            memory.lost_answers.store(100, Ordering::SeqCst);
            memory.failures.store(50, Ordering::SeqCst);
            let mut running = Vec::new();
            for counter in fleet.iter().map(|process| process.counter("hits")).cycle().take(12) {
                running.push(tokio::spawn(async move {
                    for _ in 0..10 {
                        // On an error it is kept and sent with the next one: it is not to be repeated.
                        let _ = counter.add(1).await;
                    }
                }));
            }
            join_all(running).await;
            memory.lost_answers.store(0, Ordering::SeqCst);
            memory.failures.store(0, Ordering::SeqCst);
            for process in &fleet {
                process.counter("hits").add(0).await.unwrap();
            }
            assert_eq!(fleet[0].counter("hits").total().await.unwrap(), 120);
        });
        run(async {
            let memory = Memory::of(Protocol::DistributedAtomic, seed);
            let fleet = fleet(Protocol::DistributedAtomic, &memory, processes, &limits());
            memory.lost_answers.store(100, Ordering::SeqCst);
            let (mut certain, mut unknown) = (0, 0);
            for process in fleet.iter().cycle().take(100) {
                match process.counter("hits").add(1).await {
                    Ok(_) => certain += 1,
                    Err(Error::Unknown { .. }) => unknown += 1,
                    Err(error) => panic!("{error}"),
                }
            }
            let total = fleet[0].counter("hits").total().await.unwrap();
            assert!((certain..=certain + unknown).contains(&total) && certain + unknown == 100);
        });
    }

    /// Calls are given up at random moments, and sent again by others or not at all.
    #[test]
    fn given_up_counts_are_neither_lost_nor_doubled_once_another_came(seed in any::<u64>()) {
        run(async {
            let memory = Memory::of(Protocol::DistributedBasic, seed);
            let fleet = fleet(Protocol::DistributedBasic, &memory, 3, &limits());
            let random = Arc::new(Seeded::new(seed));
            let begun = Arc::new(AtomicU64::new(0));
            let mut running = Vec::new();
            for counter in fleet.iter().map(|process| process.counter("hits")).cycle().take(9) {
                let (random, begun) = (Arc::clone(&random), Arc::clone(&begun));
                running.push(tokio::spawn(async move {
                    for _ in 0..10 {
                        let patience = Duration::from_micros(below(&random, 6_000));
                        begun.fetch_add(1, Ordering::SeqCst);
                        let _ = tokio::time::timeout(patience, counter.add(1)).await;
                    }
                }));
            }
            join_all(running).await;
            for process in &fleet {
                process.counter("hits").add(0).await.unwrap();
            }
            let total = fleet[0].counter("hits").total().await.unwrap();
            assert_eq!(u64::try_from(total).unwrap(), begun.load(Ordering::SeqCst));
        });
    }

    /// Never two at once, and each with a higher fence than all before it; some holders stall past their time, some
    /// never release, some answers are lost.
    #[test]
    fn lock_has_one_holder_at_a_time(seed in any::<u64>(), processes in 1_u32..5, lost in 0_u64..60) {
        for protocol in PROTOCOLS {
            run(async {
                let memory = Memory::of(protocol, seed);
                memory.lost_answers.store(lost, Ordering::SeqCst);
                let fleet = fleet(protocol, &memory, processes, &limits());
                let is_taken = Arc::new(AtomicBool::new(false));
                let fences = Arc::new(Mutex::new(Vec::new()));
                let random = Arc::new(Seeded::new(seed ^ 5));
                let mut running = Vec::new();
                for lock in fleet.iter().map(|process| process.lock("nightly")).cycle().take(8) {
                    let (is_taken, fences, random) = (Arc::clone(&is_taken), Arc::clone(&fences), Arc::clone(&random));
                    running.push(tokio::spawn(async move {
                        for _ in 0..4 {
                            let life = Duration::from_millis(60);
                            let Ok(Some(mut held)) = lock.take_within(life, Duration::from_secs(30)).await else { continue };
                            assert!(held.is_held());
                            assert!(!is_taken.swap(true, Ordering::SeqCst), "{protocol:?}: two holders; fence {}, before {:?}", held.fence(), fences.lock().unwrap());
                            fences.lock().unwrap().push(held.fence());
                            let plan = below(&random, 4);
                            if plan == 1 && held.extend(Duration::from_millis(90)).await.is_ok_and(|it| it) {
                                assert!(held.remaining() <= Duration::from_millis(90));
                            }
                            sleep(Duration::from_millis(below(&random, 20)).min(held.remaining())).await;
                            if plan == 3 {
                                // Stalls: what it does after its time it does not do as the holder.
                                sleep(held.remaining().saturating_sub(Duration::from_millis(1))).await;
                            }
                            is_taken.store(false, Ordering::SeqCst);
                            if plan == 3 {
                                sleep(Duration::from_millis(50)).await;
                            }
                            if plan != 2 {
                                let was_held = held.is_held();
                                let released = held.release().await;
                                assert!(was_held || !released.is_ok_and(|it| it) || protocol == Protocol::DistributedBasic);
                            }
                        }
                    }));
                }
                join_all(running).await;
                let fences = fences.lock().unwrap();
                assert!(fences.is_sorted_by(|a, b| a < b), "{protocol:?}: {fences:?}");
                assert!(fences.len() >= 20, "{protocol:?}: only {} holders", fences.len());
            });
        }
    }
}

#[tokio::test(start_paused = true)]
async fn only_the_holders_token_releases_and_a_lost_lock_is_not_touched() {
    for protocol in PROTOCOLS {
        let memory = Memory::of(protocol, 1);
        let fleet = fleet(protocol, &memory, 2, &limits());
        let (one, two) = (fleet[0].lock("l"), fleet[fleet.len() - 1].lock("l"));
        let life = Duration::from_millis(500);
        let mut first = one.take(life).await.unwrap().unwrap();
        assert!(two.take(life).await.unwrap().is_none(), "{protocol:?}");
        assert!(first.extend(life).await.unwrap());
        advance(Duration::from_millis(501)).await;
        assert!(!first.is_held());
        // Whoever must watch it for its whole life has to wait for that once more.
        let second = two.take_within(life, Duration::from_secs(5)).await.unwrap().unwrap();
        assert!(second.fence() > first.fence() && second.token() != first.token());
        assert!(!first.extend(life).await.unwrap(), "lost");
        assert!(!first.release().await.unwrap(), "{protocol:?}: it is not its own any more");
        assert!(one.take(life).await.unwrap().is_none(), "{protocol:?}: the second still holds it");
        assert!(second.release().await.unwrap());
        assert!(one.take(life).await.unwrap().is_some());
    }
}

#[tokio::test(start_paused = true)]
async fn lock_never_outlives_its_maximum() {
    for protocol in PROTOCOLS {
        let memory = Memory::of(protocol, 1);
        let limits = Limits { lock_life_max: Duration::from_secs(3), ..limits() };
        let fleet = fleet(protocol, &memory, 1, &limits);
        let lock = fleet[0].lock("l");
        for life in [Duration::ZERO, Duration::from_secs(4)] {
            assert!(matches!(lock.take(life).await, Err(Error::Invalid(_))));
        }
        let mut held = lock.take(Duration::from_secs(2)).await.unwrap().unwrap();
        advance(Duration::from_millis(1_500)).await;
        assert!(matches!(held.extend(Duration::from_secs(2)).await, Err(Error::Invalid(_))));
        assert!(held.is_held() && held.extend(Duration::from_secs(1)).await.unwrap());
        advance(Duration::from_secs(1)).await;
        assert!(!held.is_held());
    }
}

#[tokio::test(start_paused = true)]
async fn fence_rises_over_a_loss_of_all_data() {
    for protocol in [Protocol::DistributedAtomic, Protocol::DistributedBasic] {
        let memory = Memory::of(protocol, 1);
        let clock = wall();
        let process = process(&memory, 1, &clock, limits());
        let lock = process.lock("l");
        let mut last = 0;
        for _ in 0..3 {
            for _ in 0..3 {
                let held = lock.take(Duration::from_secs(1)).await.unwrap().unwrap();
                assert!(held.fence() > last, "{protocol:?}");
                last = held.fence();
                held.release().await.unwrap();
            }
            clock.advance(Duration::from_secs(1));
            memory.values.lock().unwrap().clear();
        }
    }
}

#[tokio::test(start_paused = true)]
async fn gauges_are_summed_or_last_and_expire_with_their_instance() {
    for protocol in [Protocol::DistributedAtomic, Protocol::DistributedBasic] {
        let memory = Memory::of(protocol, 1);
        let clock = wall();
        let fleet: Vec<_> = (0..3).map(|number| process(&memory, number, &clock, limits())).collect();
        for (process, value) in fleet.iter().zip([10, 20, 30]) {
            clock.advance(Duration::from_micros(1));
            process.gauge("connections").set(1).await.unwrap();
            process.gauge("connections").set(value).await.unwrap();
        }
        let gauge = fleet[0].gauge("connections");
        assert_eq!(gauge.sum().await.unwrap(), 60, "{protocol:?}");
        assert_eq!(gauge.last().await.unwrap().unwrap().value, 30);
        // The first two keep on; the third is not heard of again.
        for _ in 0..3 {
            clock.advance(Duration::from_secs(25));
            advance(Duration::from_secs(25)).await;
            fleet[0].gauge("connections").set(11).await.unwrap();
            fleet[1].gauge("connections").set(-5).await.unwrap();
        }
        assert_eq!(gauge.sum().await.unwrap(), 6, "{protocol:?}");
        assert_eq!(gauge.readings().await.unwrap().len(), 2);
    }
    let memory = Memory::of(Protocol::LocalOnly, 1);
    let (one, two) = (process(&memory, 1, &wall(), limits()), process(&memory, 2, &wall(), limits()));
    one.gauge("g").set(4).await.unwrap();
    two.gauge("g").set(5).await.unwrap();
    assert_eq!((one.gauge("g").sum().await.unwrap(), two.gauge("g").sum().await.unwrap()), (4, 5));
    advance(Duration::from_secs(61)).await;
    assert_eq!(one.gauge("g").last().await.unwrap(), None);
}

#[tokio::test(start_paused = true)]
async fn counts_of_instances_that_are_gone_stay_and_those_who_return_count_on() {
    let memory = Memory::of(Protocol::DistributedBasic, 1);
    let clock = wall();
    let fleet: Vec<_> = (0..3).map(|number| process(&memory, number, &clock, limits())).collect();
    for _ in 0..3 {
        for process in &fleet {
            process.counter("c").add(1).await.unwrap();
        }
        clock.advance(Duration::from_mins(2));
    }
    assert_eq!(fleet[0].counter("c").total().await.unwrap(), 9);
}

/// Two of them in one process do not take each other's batches for their own.
#[tokio::test(start_paused = true)]
async fn one_instance_may_coordinate_through_several_handles() {
    let memory = Memory::of(Protocol::DistributedBasic, 1);
    let make = || {
        let instance = Instance::new("host", 1, 1);
        Coordination::new(
            memory.clone(),
            &KeyPrefix::new("p"),
            instance,
            wall(),
            Arc::new(SystemChance::default()),
        )
    };
    let (one, two) = (make(), make());
    assert_eq!(one.counter("c").add(1).await.unwrap(), 1);
    assert_eq!(two.counter("c").add(1).await.unwrap(), 2);
    assert_eq!(one.counter("c").add(1).await.unwrap(), 3);
}

#[tokio::test(start_paused = true)]
async fn histograms_of_all_instances_are_one() {
    for protocol in PROTOCOLS {
        let memory = Memory::of(protocol, 3);
        let fleet = fleet(protocol, &memory, 3, &limits());
        let bounds = [10, 100, 1_000];
        let histograms: Vec<_> =
            fleet.iter().map(|process| process.histogram("wait_us", &bounds).unwrap()).collect();
        let running = histograms.iter().cycle().take(12).cloned().map(|histogram| {
            tokio::spawn(async move { histogram.observe(&[10, 11, 100, 5_000]).await.unwrap() })
        });
        join_all(running.collect()).await;
        let seen = histograms[0].read().await.unwrap();
        assert_eq!((seen.buckets.as_slice(), seen.sum, seen.count()), (&[12, 24, 0, 12][..], 12 * 5_121, 48));
        assert_eq!((seen.quantile_bound(0.5), seen.quantile_bound(0.99)), (Some(100), None));
        // Other bounds are another histogram: their cells would not mean the same.
        assert_eq!(fleet[0].histogram("wait_us", &[10]).unwrap().read().await.unwrap().count(), 0);
        for bad in [&[][..], &[2, 1], &[1, 1]] {
            assert!(matches!(fleet[0].histogram("wait_us", bad), Err(Error::Invalid(_))));
        }
    }
}

#[tokio::test(start_paused = true)]
async fn strategies_are_different_protocols() {
    let [atomic, basic, local] = PROTOCOLS.map(|protocol| Memory::of(protocol, 1));
    for memory in [&atomic, &basic, &local] {
        process(memory, 1, &wall(), limits()).counter("c").add(5).await.unwrap();
    }
    let traffic = |memory: &Memory| (memory.adds.load(Ordering::SeqCst), memory.swaps.load(Ordering::SeqCst));
    assert_eq!((traffic(&atomic), traffic(&basic), traffic(&local)), ((1, 0), (0, 1), (0, 0)));
}

/// Many counts at once cost few exchanges, where each exchange may lose against others.
#[tokio::test(start_paused = true)]
async fn merged_counts_travel_together() {
    let memory = Memory::of(Protocol::DistributedBasic, 1);
    let process = process(&memory, 1, &wall(), limits());
    let running = (0..1_000).map(|_| {
        let counter = process.counter("c");
        tokio::spawn(async move { counter.add(1).await.unwrap() })
    });
    join_all(running.collect()).await;
    assert_eq!(process.counter("c").total().await.unwrap(), 1_000);
    assert!(memory.swaps.load(Ordering::SeqCst) <= 2);
}

#[test]
fn strategy_follows_from_the_capabilities_and_is_explained() {
    use Capability::{AtomicIncrement, CompareAndSwap, Shared};
    let choose = |having: &[Capability], has_atomics| {
        Protocol::choose("redis", &Capabilities::declared(Coherence::Strict, having), has_atomics)
    };
    for (having, has_atomics, strategy) in [
        (&[Shared, AtomicIncrement, CompareAndSwap][..], true, Protocol::DistributedAtomic),
        (&[Shared, CompareAndSwap], true, Protocol::DistributedBasic),
        (&[Shared, AtomicIncrement], true, Protocol::LocalOnly),
        (&[AtomicIncrement, CompareAndSwap], true, Protocol::LocalOnly),
        (&[Shared, AtomicIncrement, CompareAndSwap], false, Protocol::LocalOnly),
        (&[], false, Protocol::LocalOnly),
    ] {
        assert_eq!(choose(having, has_atomics).strategy, strategy, "{having:?}");
    }
    assert_eq!(
        choose(&[Shared, CompareAndSwap], true).to_string(),
        "distributed_basic over redis: it is shared and has compare and swap, but does not add atomically; \
         shared yes (Declared); atomic_increment no (Declared); compare_and_swap yes (Declared)"
    );
}

#[tokio::test(start_paused = true)]
async fn operations_end_at_their_limit_and_unreadable_records_are_told() {
    for protocol in [Protocol::DistributedAtomic, Protocol::DistributedBasic] {
        let memory = Memory::of(protocol, 1);
        let process = process(&memory, 1, &wall(), Limits::default());
        memory.failures.store(1_000, Ordering::SeqCst);
        let began = Instant::now();
        process.counter("c").add(1).await.unwrap_err();
        process.lock("l").take(Duration::from_secs(1)).await.unwrap_err();
        process.gauge("g").set(1).await.unwrap_err();
        assert!(began.elapsed() <= Duration::from_millis(1_500), "{protocol:?}: {:?}", began.elapsed());
        memory.failures.store(0, Ordering::SeqCst);
        process.counter("d").add(1).await.unwrap();
        for (value, _) in memory.values.lock().unwrap().values_mut() {
            *value = Bytes::from_static(b"\xffnonsense");
        }
        let error = process.counter("d").total().await.unwrap_err();
        assert!(matches!(&error, Error::Unreadable { name, .. } if name == "d"), "{error}");
    }
}

/// Three processes count reads while a tenth of all answers is lost; one is killed, one restarts, and all are silent for longer than an
/// instance is waited for.
#[test]
fn reads_of_a_fleet_are_summed_exactly_over_lost_answers_restarts_and_silence() {
    for protocol in [Protocol::DistributedAtomic, Protocol::DistributedBasic] {
        run(async {
            let memory = Memory::of(protocol, 11);
            memory.lost_answers.store(100, Ordering::SeqCst);
            memory.failures.store(50, Ordering::SeqCst);
            let clock = wall();
            let start = |number: u32, boot: u64| {
                let cache = Cache::builder(memory.clone(), clock.clone()).key_prefix("test").build();
                let instance = Instance::new("host", number, boot);
                (FleetReads::with_limits(&cache, instance, clock.clone(), limits()), cache)
            };
            let read = async |cache: &Cache, usage: &Usage, times: u64| {
                let cache = cache.for_usage(usage);
                for number in 0..times {
                    cache.get::<u64>(&cache.keys().space("s").key([number.to_string()])).await;
                }
            };
            let share = async |reads: &FleetReads| while reads.share().await.is_err() {};
            let misses = async |reads: &FleetReads| loop {
                let Ok(found) = reads.read().await else { continue };
                assert_eq!(found.strategy, Protocol::DistributedBasic, "never by additions that may be lost");
                let of = |usage: &str| {
                    found.usages.iter().find(|one| one.usage == usage).map_or(0, |one| one.misses)
                };
                return (of("view_item"), of("other"), found.instances);
            };
            let mine = Usage::user("mine", Coherence::Eventual);
            let nodes = [start(0, 1), start(1, 1), start(2, 1)];
            for _ in 0..5 {
                for (reads, cache) in &nodes {
                    read(cache, &Usage::ViewItem, 7).await;
                    read(cache, &mine, 2).await;
                    // Whether or not it succeeds: what was not sent goes with the next one.
                    let _ = reads.share().await;
                }
            }
            let [first, second, third] = nodes;
            share(&first.0).await;
            share(&second.0).await;
            share(&third.0).await;
            assert_eq!(misses(&first.0).await, (105, 30, 3));
            // It is killed with what it has not shared.
            read(&third.1, &Usage::ViewItem, 40).await;
            drop(third);
            clock.advance(Duration::from_mins(2));
            let second_again = start(1, 2);
            read(&second_again.1, &Usage::ViewItem, 10).await;
            share(&second_again.0).await;
            assert_eq!(
                misses(&first.0).await,
                (115, 30, 1),
                "who is silent is not heard of, and has counted"
            );
            // It was only slow: its part was folded away meanwhile, and is not counted again.
            read(&second.1, &mine, 1).await;
            share(&second.0).await;
            share(&first.0).await;
            assert_eq!(misses(&second_again.0).await, (115, 31, 3));
        });
    }
}

#[test]
fn reads_are_those_of_this_process_alone_where_nothing_is_shared() {
    run(async {
        let memory = Memory::of(Protocol::LocalOnly, 1);
        let clock = wall();
        let cache = Cache::builder(memory, clock.clone()).build();
        let reads = FleetReads::new(&cache, Instance::new("host", 1, 1), clock);
        cache.for_usage(&Usage::JobState).get::<u64>(&cache.keys().space("s").key(["k"])).await;
        reads.share().await.unwrap();
        let found = reads.read().await.unwrap();
        assert_eq!((found.strategy, found.instances), (Protocol::LocalOnly, 1));
        assert_eq!(found.usages.iter().map(|one| one.usage).collect::<Vec<_>>(), ["job_state"]);
        assert!(found.why.contains("not shared"), "{found:?}");
    });
}
