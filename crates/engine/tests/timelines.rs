//! Hours of a view's life with moved time, on both databases: what is built, when it is published, how much work is done twice.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    missing_docs,
    reason = "a test says what it expects"
)]

mod support;

use std::collections::VecDeque;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock};
use std::time::Duration;

use recache_engine::{ByHand, Engine};
use recache_model::time::{Clock as _, ManualClock, Timestamp};
use recache_model::view::{OnTouch, ViewPolicy};
use recache_store::conformance::TestDatabase;
use recache_store::{GenerationRecord, OpenOptions, open};
use recache_worker::{BuildContext, Failure, Handlers};
use support::{at_once, quick, touch, view};

on_both_databases!(
    of_three_versions_within_a_long_build_only_the_last_is_published_and_little_is_done_twice,
    change_of_one_item_at_ninety_percent_costs_one_item,
    endless_changes_of_everything_are_published_within_the_staleness_limit,
    endless_changes_of_single_items_are_published_without_a_staleness_limit,
);

const SECOND: Duration = Duration::from_secs(1);
/// What one item takes to compute.
const ITEM: Duration = Duration::from_millis(100);
const BEGIN: Timestamp = Timestamp::from_micros(1_700_000_000_000_000);

/// A change that comes at its time, whatever runs then.
struct Change {
    at: Timestamp,
    /// Which item it changes, and whether the touch says so; `None`: all of them.
    item: Option<usize>,
    is_named: bool,
}

/// The inputs of the view `v`, and the time in which they change.
struct World {
    clock: ManualClock,
    engine: OnceLock<Engine>,
    revisions: Mutex<Vec<u64>>,
    changes: Mutex<VecDeque<Change>>,
    computed: AtomicU64,
}

impl World {
    fn changes(&self) -> std::sync::MutexGuard<'_, VecDeque<Change>> {
        self.changes.lock().unwrap()
    }

    /// After `at` from the beginning.
    fn plan(&self, at: Duration, item: Option<usize>, is_named: bool) {
        self.changes().push_back(Change { at: BEGIN.plus(at), item, is_named });
    }

    /// Makes the changes whose time has come.
    async fn keep_up(&self) {
        loop {
            let change = {
                let mut changes = self.changes();
                let is_due = changes.front().is_some_and(|change| change.at <= self.clock.now());
                if is_due { changes.pop_front() } else { None }
            };
            let Some(change) = change else { return };
            for (item, revision) in self.revisions.lock().unwrap().iter_mut().enumerate() {
                *revision += u64::from(change.item.is_none_or(|changed| changed == item));
            }
            let named = change.item.filter(|_| change.is_named).map(|item| format!("{item:04}"));
            let names: Vec<&str> = named.iter().map(String::as_str).collect();
            self.engine.get().unwrap().touch(touch("v", &names)).await.unwrap();
        }
    }

    async fn build(&self, build: BuildContext) -> Result<(), Failure> {
        let count = self.revisions.lock().unwrap().len();
        for item in 0..count {
            self.keep_up().await;
            let (key, revision) = (format!("{item:04}"), self.revisions.lock().unwrap()[item]);
            let fingerprint = revision.to_string();
            if build.reuse(&key, &fingerprint).await? {
                continue;
            }
            self.clock.advance(ITEM);
            self.computed.fetch_add(1, Ordering::SeqCst);
            build.put(&key, Some(&fingerprint), &revision).await?;
            // The store refuses it, and so ends this build, once a touch has superseded it.
            build.flush().await?;
        }
        Ok(())
    }

    /// Until all changes have come and what they ask for is live.
    async fn play(&self, by_hand: &ByHand) {
        loop {
            self.keep_up().await;
            by_hand.run_due().await.unwrap();
            let versions = by_hand.engine().store().view_get("n", "v").await.unwrap().versions;
            let next = self.changes().front().map(|change| change.at);
            if next.is_none() && versions.live == versions.wanted {
                return;
            }
            let moment = next.into_iter().chain(versions.due_at).min().expect("something is to come");
            self.clock.advance(moment.since(self.clock.now()));
        }
    }
}

async fn start(database: &TestDatabase, items: usize, policy: ViewPolicy) -> (Arc<World>, ByHand) {
    let clock = ManualClock::at(BEGIN);
    let options = OpenOptions { clock: Some(Arc::new(clock.clone())), ..OpenOptions::new(database.url()) };
    let store = open(&options).await.unwrap();
    let world = Arc::new(World {
        clock,
        engine: OnceLock::new(),
        revisions: Mutex::new(vec![0; items]),
        changes: Mutex::default(),
        computed: AtomicU64::new(0),
    });
    let mut handlers = Handlers::new();
    let built = Arc::clone(&world);
    handlers
        .view("slow", move |build: BuildContext| {
            let world = Arc::clone(&built);
            async move { world.build(build).await }
        })
        .unwrap();
    let by_hand = Engine::builder(store).handlers(handlers).options(quick()).start_by_hand().await.unwrap();
    assert!(world.engine.set(by_hand.engine().clone()).is_ok());
    by_hand.engine().define_view(view("v", "slow", policy)).await.unwrap();
    (world, by_hand)
}

/// The published generations, oldest first.
async fn generations(by_hand: &ByHand) -> Vec<GenerationRecord> {
    let store = by_hand.engine().store();
    let id = store.view_get("n", "v").await.unwrap().id;
    let mut generations = store.generations_list(id, 10_000).await.unwrap();
    generations.reverse();
    generations
}

async fn of_three_versions_within_a_long_build_only_the_last_is_published_and_little_is_done_twice(
    database: TestDatabase,
) {
    let (world, by_hand) = start(&database, 600, ViewPolicy::default()).await;
    for second in [0, 5, 10] {
        world.plan(SECOND * second, Some(0), false);
    }
    world.play(&by_hand).await;
    let generations = generations(&by_hand).await;
    assert_eq!(generations.iter().map(|generation| generation.version).collect::<Vec<_>>(), [3]);
    let computed = world.computed.load(Ordering::SeqCst);
    // Twice: the first item, which changed twice; and the item that was under way at each of two changes.
    assert_eq!(computed, 600 + 2 + 2);
    assert!(600 * 100 >= computed * 99, "{computed} items computed to publish 600");
    let took = world.clock.now().since(BEGIN);
    assert!(took <= SECOND * 64, "60 s of work and a quiet second after each touch: {took:?}");
}

async fn change_of_one_item_at_ninety_percent_costs_one_item(database: TestDatabase) {
    for (on_touch, last_computed) in [
        // The build ends, and its successor has one item to compute.
        (OnTouch::Auto, 1),
        // Nothing that was made is made again but the item that changed: it, and the ten that had not been put.
        (OnTouch::Abort, 1 + 10),
    ] {
        let policy = ViewPolicy { on_touch, ..at_once() };
        let (world, by_hand) = start(&database, 100, policy).await;
        let begin = world.clock.now().since(BEGIN);
        world.plan(begin, None, false);
        // A second build of ten seconds, and the change nine seconds after its beginning.
        world.plan(begin + SECOND * 20, None, false);
        world.plan(begin + SECOND * 29, Some(5), true);
        world.play(&by_hand).await;
        let last = generations(&by_hand).await.pop().unwrap();
        assert_eq!((last.items_computed, last.items_total), (last_computed, 100), "{on_touch:?}");
        by_hand
            .engine()
            .store()
            .view_control()
            .view_delete(
                recache_store::ViewName::new("n", "v"),
                recache_store::Word { actor: "test".to_owned(), reason: "the next round".to_owned() },
            )
            .await
            .unwrap();
    }
}

/// One change a second for ten minutes against a build of ten seconds, and how long after each other generations were published.
async fn ten_minutes(database: &TestDatabase, policy: ViewPolicy, is_named: bool) -> Vec<Duration> {
    let (world, by_hand) = start(database, 100, policy).await;
    for second in 0..600 {
        let item = usize::try_from(second).unwrap() * 7 % 100;
        world.plan(SECOND * second, is_named.then_some(item), is_named);
    }
    world.play(&by_hand).await;
    let mut last = BEGIN;
    let mut gaps = Vec::new();
    for generation in generations(&by_hand).await {
        gaps.push(generation.published_at.since(last));
        last = generation.published_at;
    }
    assert!(last >= BEGIN.plus(SECOND * 599), "the last change was published too");
    gaps
}

async fn endless_changes_of_everything_are_published_within_the_staleness_limit(database: TestDatabase) {
    let policy = ViewPolicy { max_staleness_ms: Some(60_000), ..ViewPolicy::default() };
    let gaps = ten_minutes(&database, policy, false).await;
    let longest = gaps.iter().max().unwrap();
    assert!(*longest <= SECOND * 70, "{gaps:?}");
    assert!(gaps.len() <= 13, "builds before the limit are given up: {gaps:?}");
}

async fn endless_changes_of_single_items_are_published_without_a_staleness_limit(database: TestDatabase) {
    let policy = ViewPolicy { max_staleness_ms: None, ..ViewPolicy::default() };
    let gaps = ten_minutes(&database, policy, true).await;
    // The first takes many builds that are given up after a second; every later one a wait, and the work of what changed meanwhile.
    assert!(gaps[0] <= SECOND * 60, "{gaps:?}");
    assert!(gaps[1..].iter().all(|gap| *gap <= SECOND * 22), "{gaps:?}");
}
