//! The load: tasks that read, load, change and invalidate, and hold every answer against the truth.

use std::sync::Arc;
use std::time::Duration;

use recache_cache::{Cache, Key, Policy};
use recache_faultproxy::Random;
use tokio::time::{Instant, sleep};

use super::figures::{Call, Figures, Phase};
use super::truth::{Floor, Needs, Record, Truth, Violation};

/// Keys of each usage.
pub(crate) const KEYS: usize = 40;

/// One usage on one node.
#[derive(Debug, Clone)]
pub(crate) struct Handle {
    pub(crate) node: usize,
    pub(crate) cache: Cache,
    pub(crate) is_strict: bool,
    /// Where its keys begin in the truth.
    pub(crate) first: usize,
    pub(crate) space: &'static str,
}

/// What all tasks share.
#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) truth: Truth,
    pub(crate) figures: Figures,
    pub(crate) policy: Policy,
}

impl Handle {
    pub(crate) fn key(&self, number: usize) -> Key {
        self.cache.keys().space(self.space).key([format!("{number:03}")])
    }

    /// One call, chosen by chance.
    pub(crate) async fn act(&self, shared: &Shared, random: &mut Random) {
        let number = usize::try_from(random.below(u64::try_from(KEYS).unwrap())).unwrap();
        match random.below(1_000) {
            0..450 => self.get(shared, number).await,
            450..550 => self.get_many(shared, number).await,
            550..850 => self.load(shared, number, random).await,
            850..950 => self.invalidate(shared, number).await,
            950..995 => self.set(shared, number).await,
            _ => self.invalidate_space(shared).await,
        }
    }

    pub(crate) async fn get(&self, shared: &Shared, number: usize) {
        let key = self.key(number);
        let floor = self.floor(shared, number);
        let clock = Stopwatch::start(shared, Call::Get);
        let answer = self.cache.get::<Record>(&key).await;
        clock.stop();
        self.judge_if_there(shared, number, floor, answer, "get");
    }

    async fn get_many(&self, shared: &Shared, number: usize) {
        let numbers: Vec<usize> = (0..8).map(|step| (number + step * 5) % KEYS).collect();
        let keys: Vec<Key> = numbers.iter().map(|number| self.key(*number)).collect();
        let floors: Vec<Floor> = numbers.iter().map(|&number| self.floor(shared, number)).collect();
        let clock = Stopwatch::start(shared, Call::GetMany);
        let answers = self.cache.get_many::<Record>(&keys).await;
        clock.stop();
        assert_eq!(answers.len(), keys.len());
        for ((number, floor), answer) in numbers.into_iter().zip(floors).zip(answers) {
            self.judge_if_there(shared, number, floor, answer, "get_many");
        }
    }

    pub(crate) async fn load(&self, shared: &Shared, number: usize, random: &mut Random) {
        let key = self.key(number);
        let cell = self.first + number;
        let [before, after] = [random.below(3), random.below(3)].map(Duration::from_millis);
        let floor = self.floor(shared, number);
        let mut loading = Duration::ZERO;
        let clock = Stopwatch::start(shared, Call::Load);
        let loaded = self
            .cache
            .get_or_load(&key, &shared.policy, async || {
                let began = Instant::now();
                sleep(before).await;
                let record = Record::of(cell, shared.truth.version(cell));
                sleep(after).await;
                loading = began.elapsed();
                Ok::<_, std::convert::Infallible>(record)
            })
            .await;
        clock.stop_without(loading);
        let answer = loaded.expect("the loader never fails, so the cache may not");
        let is_hit = loading.is_zero();
        if let Some(record) = answer {
            self.judge(shared, number, floor, &record, "get_or_load");
        } else {
            let judged = shared.truth.judge_absent(cell, floor);
            self.note(shared, judged, || format!("get_or_load of {cell} gave none, floor {floor:?}"));
        }
        if is_hit {
            shared.figures.hit(shared.figures.phase());
        }
    }

    pub(crate) async fn invalidate(&self, shared: &Shared, number: usize) {
        let (key, cell) = (self.key(number), self.first + number);
        let _writing = shared.truth.cell(cell).writing.lock().await;
        let version = shared.truth.change(cell);
        let clock = Stopwatch::start(shared, Call::Invalidate);
        let token = self.cache.invalidate(&key).await;
        clock.stop();
        shared.truth.told(self.node, cell, version, token.is_confirmed());
    }

    async fn set(&self, shared: &Shared, number: usize) {
        let (key, cell) = (self.key(number), self.first + number);
        let _writing = shared.truth.cell(cell).writing.lock().await;
        let (version, record) = shared.truth.change_to_value(cell);
        let clock = Stopwatch::start(shared, Call::Set);
        let token = self.cache.set(&key, record, &shared.policy).await;
        clock.stop();
        shared.truth.told(self.node, cell, version, token.is_confirmed());
    }

    async fn invalidate_space(&self, shared: &Shared) {
        let cells = self.first..self.first + KEYS;
        let mut writing = Vec::new();
        for cell in cells.clone() {
            writing.push(shared.truth.cell(cell).writing.lock().await);
        }
        let versions: Vec<u64> = cells.clone().map(|cell| shared.truth.change(cell)).collect();
        let clock = Stopwatch::start(shared, Call::InvalidateSpace);
        let token = self.cache.invalidate_space(&self.cache.keys().space(self.space)).await;
        clock.stop();
        for (cell, version) in cells.zip(versions) {
            shared.truth.told(self.node, cell, version, token.is_confirmed());
        }
    }

    fn floor(&self, shared: &Shared, number: usize) -> Floor {
        let needs = match (shared.figures.phase(), self.is_strict) {
            (Phase::Settled, _) => Needs::Everything,
            (_, true) => Needs::Strict,
            (_, false) => Needs::Lagging,
        };
        shared.truth.floor(self.node, self.first + number, needs)
    }

    fn judge_if_there(
        &self,
        shared: &Shared,
        number: usize,
        floor: Floor,
        answer: Option<Arc<Record>>,
        call: &str,
    ) {
        if let Some(record) = answer {
            shared.figures.hit(shared.figures.phase());
            self.judge(shared, number, floor, &record, call);
        }
    }

    fn judge(&self, shared: &Shared, number: usize, floor: Floor, record: &Record, call: &str) {
        let cell = self.first + number;
        let judged = shared.truth.judge(cell, floor, record);
        self.note(shared, judged, || format!("{call} of {cell} gave {record:?}, floor {floor:?}"));
    }

    fn note(&self, shared: &Shared, judged: Result<(), Violation>, text: impl FnOnce() -> String) {
        let Err(violation) = judged else { return };
        let phase = shared.figures.phase();
        shared.figures.violated(phase, self.is_strict, violation);
        if violation != Violation::Lags {
            let (node, space) = (self.node, self.space);
            shared.truth.note(|| format!("{phase:?}, node {node}, {space}: {violation:?}: {}", text()));
        }
    }
}

/// Times one call; it counts for the phase in which it began.
struct Stopwatch<'a> {
    figures: &'a Figures,
    phase: Phase,
    call: Call,
    began: Instant,
}

impl<'a> Stopwatch<'a> {
    fn start(shared: &'a Shared, call: Call) -> Self {
        let figures = &shared.figures;
        Self { figures, phase: figures.phase(), call, began: Instant::now() }
    }

    fn stop(self) {
        self.stop_without(Duration::ZERO);
    }

    fn stop_without(self, not_counted: Duration) {
        self.figures.took(self.phase, self.call, self.began.elapsed().saturating_sub(not_counted));
    }
}
