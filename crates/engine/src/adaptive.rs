//! Lives of cached values by what they cost to make, how often they change and how often they are asked for
//! ([`recache_model::ttl`]), within a budget of staleness.
//!
//! What is seen is counted in this process, by class of keys; a hit costs one exchange less a lock, and never another read. Now and
//! then, in one batch, what all processes saw is merged through the backend, where that can swap values (counters that only grow: an
//! answer that is lost, or a merge that is repeated, changes nothing), and the lives are decided anew.
//!
//! Whether a value that was made again has changed is told by its bytes. One that was made before its life was over had been invalidated:
//! that it changed is then no surprise, and nobody was served the old one.

use std::collections::{HashMap, HashSet};
use std::hash::{BuildHasher as _, RandomState};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use recache_cache::provider::Capability;
use recache_cache::{Cache, Clock, Key, LoadError, Policy, Space, Timestamp as Instant, Usage};
use recache_model::time::Timestamp;
use recache_model::ttl::{
    Bound, CLASSES_MAX, Classes, Correction, Decision, Observation, Observed, Phase, Settings, at_life,
    decide,
};
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::engine::Shared;
use crate::error::{Error, Result, loaded};

/// Keys whose last making is remembered; beyond them the oldest knowledge is dropped.
pub const KEYS_MAX: usize = 10_000;
/// Decisions in a window of observation.
const DECISIONS: u32 = 24;
/// The merged record is not larger; beyond it processes keep to themselves what they saw.
const RECORD_BYTES_MAX: usize = 1024 * 1024;
/// Between two merges.
const SHARE_PAUSE: Duration = Duration::from_secs(30);
/// How often another process's change of the record is met before the merge is left to the next time.
const MERGES_MAX: u32 = 8;

/// Chooses lives. Cheap to clone; all clones count together.
#[derive(Debug, Clone)]
pub struct Adaptive(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    cache: Cache,
    clock: Arc<dyn Clock>,
    settings: Settings,
    /// This run of this process among those that share what they saw.
    instance: u64,
    space: Space,
    hasher: RandomState,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    classes: Classes,
    correction: Correction,
    keys: HashMap<Key, Known>,
    /// What was decided last.
    lives: HashMap<(String, Phase), Decision>,
    /// How long the usage under which a class is read lets its values live.
    usages: HashMap<String, Duration>,
    /// When lives are decided next, in microseconds.
    decide_at_us: i64,
}

/// What is known of a key's last making here.
#[derive(Debug, Clone)]
struct Known {
    class: String,
    made_at: Instant,
    life: Duration,
    fingerprint: u64,
    reads: u64,
    /// Of those, not yet counted for the class.
    reads_new: u64,
    unchanged_lives: u32,
}

/// A class in one phase: what was seen, and the life that is in force.
#[derive(Debug, Clone, PartialEq)]
pub struct ClassLife {
    /// The class of keys.
    pub class: String,
    /// How its values fared before: 0 for those that have just changed, 3 for those that rested for long.
    pub phase: u8,
    /// What was seen.
    pub observed: Observed,
    /// How long values live that are made now, and what that comes to: as it was decided last, by what had been
    /// seen then, and never longer than `usage`.
    pub decision: Decision,
    /// How long the usage under which it is read lets its values live; `None` where this process has not read it.
    pub usage: Option<Duration>,
}

impl ClassLife {
    /// What held the life, if it was not the balance of cost and staleness: a setting, or `usage`.
    pub fn bound(&self) -> Option<&'static str> {
        if self.usage == Some(self.decision.ttl) {
            return Some("usage");
        }
        self.decision.bound.map(Bound::as_str)
    }
}

impl Adaptive {
    /// Over this cache. Settings that cannot be are refused, with every reason.
    pub fn new(cache: &Cache, clock: Arc<dyn Clock>, settings: Settings, instance: u64) -> Result<Self> {
        let problems: Vec<String> = settings.problems().iter().map(ToString::to_string).collect();
        if !problems.is_empty() {
            return Err(Error::Invalid(problems.join("; ")));
        }
        Ok(Self(Arc::new(Inner {
            space: cache.keys().space("ttl"),
            cache: cache.clone(),
            clock,
            settings,
            instance,
            hasher: RandomState::new(),
            state: Mutex::default(),
        })))
    }

    /// The settings.
    pub fn settings(&self) -> &Settings {
        &self.0.settings
    }

    /// As [`Cache::get_or_load`] with a life that was chosen for the key's class; the usage's own lifetime is never exceeded. Classes are names of the program's own: there are at most
    /// [`CLASSES_MAX`], and those beyond live as long as the usage says.
    pub async fn get_or_load<T, E, F>(
        &self,
        usage: &Usage,
        class: &str,
        key: &Key,
        loader: impl FnOnce() -> F,
    ) -> std::result::Result<Option<Arc<T>>, LoadError<E>>
    where
        T: Serialize + DeserializeOwned + Send + Sync + 'static,
        E: Send + Sync + 'static,
        F: Future<Output = std::result::Result<Option<T>, E>>,
    {
        self.decide_if_due();
        let cache = self.0.cache.for_usage(usage);
        let longest = usage.lifetime(cache.lifetimes());
        let life = self.note_read(class, key, longest).min(longest);
        let load = || {
            let (began, loading) = (self.0.clock.now(), loader());
            async move {
                let loaded = loading.await?;
                if let Some(value) = &loaded {
                    let cost = self.0.clock.now().saturating_since(began);
                    self.note_made(class, key, life, cost, value);
                }
                Ok(loaded)
            }
        };
        cache.get_or_load(key, &Policy::new(life), load).await
    }

    /// Says that the value of a key has changed: nobody is served the old one any more, and it counts as what the class was told of.
    pub async fn invalidate(&self, class: &str, key: &Key) {
        self.0.cache.invalidate(key).await;
        let mut state = self.state();
        let phase = state.phase(key);
        if let Some(known) = state.keys.get_mut(key) {
            // Its next making is no surprise.
            known.life = Duration::MAX;
        }
        self.observe(&mut state, class, phase, Observation::Invalidated(1));
    }

    /// Takes over what other processes saw, and gives them what this one did. False: the backend cannot swap values, or it did not
    /// come about this time; nothing is lost by that.
    pub async fn share(&self) -> bool {
        let Some(atomics) = self.0.cache.provider().atomics() else { return false };
        if !self.0.cache.capabilities().has(Capability::Shared) {
            return false;
        }
        let key = self.record_key();
        let keep_for = self.0.settings.window.saturating_mul(2);
        for _ in 0..MERGES_MAX {
            let Ok(stored) = atomics.read(&key).await else { return false };
            // What cannot be read was written by another version, or is no record: it is replaced.
            let theirs = stored.as_deref().and_then(|bytes| serde_json::from_slice::<Classes>(bytes).ok());
            let merged = {
                let mut state = self.state();
                state.classes.merge(&theirs.unwrap_or_default());
                state.classes.forget(self.now(), self.0.settings.window);
                serde_json::to_vec(&state.classes).unwrap_or_default()
            };
            if merged.len() > RECORD_BYTES_MAX {
                tracing::warn!(
                    bytes = merged.len(),
                    "lives of cached values are decided by this process alone: too many classes"
                );
                return false;
            }
            match atomics.compare_and_swap(&key, stored.as_deref(), Some(merged.into()), keep_for).await {
                Ok(true) => return true,
                Ok(false) => {}
                // It may have been done: to merge it again does no harm.
                Err(_) => return false,
            }
        }
        false
    }

    /// Takes over what other processes saw, and gives them nothing. False: there is no record, or none that can be read.
    pub async fn learn(&self) -> bool {
        let Some(atomics) = self.0.cache.provider().atomics() else { return false };
        let stored = atomics.read(&self.record_key()).await.ok().flatten();
        let theirs = stored.and_then(|bytes| serde_json::from_slice::<Classes>(&bytes).ok());
        let is_there = theirs.is_some();
        self.state().classes.merge(&theirs.unwrap_or_default());
        is_there
    }

    /// What was seen of each class, and the lives that are in force. Where this process has decided nothing yet, those
    /// that it would decide now.
    pub fn explain(&self) -> Vec<ClassLife> {
        let state = self.state();
        let settings = &self.0.settings;
        let observed = state.classes.observed(self.now(), settings);
        let rates: Vec<_> = observed.iter().map(|(_, _, observed)| observed.rates).collect();
        let has_decided = state.decide_at_us > 0;
        let would_be = if has_decided {
            Vec::new()
        } else {
            let corrected = Correction::clone(&state.correction).correct(settings, state.classes.stale());
            decide(&rates, &corrected).classes
        };
        observed
            .into_iter()
            .enumerate()
            .map(|(place, (class, phase, observed))| {
                let name = (class.to_owned(), phase);
                let decided = would_be.get(place).or_else(|| state.lives.get(&name)).copied();
                // What was not there when lives were decided last lives as long as the budget allows.
                let decided =
                    decided.unwrap_or_else(|| at_life(&observed.rates, settings, settings.staleness));
                let usage = state.usages.get(class).copied();
                let decision = match usage.filter(|usage| *usage < decided.ttl) {
                    Some(usage) => at_life(&observed.rates, settings, usage),
                    None => decided,
                };
                ClassLife { class: name.0, phase: phase.number(), observed, decision, usage }
            })
            .collect()
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn record_key(&self) -> Key {
        self.0.space.key(["classes"])
    }

    fn now(&self) -> Timestamp {
        Timestamp::from_micros(self.0.clock.now().as_micros())
    }

    fn observe(&self, state: &mut State, class: &str, phase: Phase, seen: Observation) {
        // A class too many is not counted: its values live as long as their usage says.
        let _ = state.classes.observe(class, phase, self.0.instance, self.now(), &self.0.settings, seen);
    }

    /// Counts a read, and tells how long a value of this key may live if it is made now.
    fn note_read(&self, class: &str, key: &Key, longest: Duration) -> Duration {
        let mut state = self.state();
        // Bounded as the classes are that are counted: it is dropped with them when lives are decided.
        if let Some(usage) = state.usages.get_mut(class) {
            *usage = longest;
        } else if state.usages.len() < CLASSES_MAX {
            state.usages.insert(class.to_owned(), longest);
        }
        let phase = state.phase(key);
        match state.keys.get_mut(key) {
            Some(known) => {
                known.reads = known.reads.saturating_add(1);
                known.reads_new = known.reads_new.saturating_add(1);
            }
            None => self.observe(&mut state, class, phase, Observation::Reads(1)),
        }
        let decided = state.lives.get(&(class.to_owned(), phase)).copied();
        decided.map_or(self.0.settings.staleness, |decided| decided.ttl)
    }

    fn note_made<T: Serialize>(&self, class: &str, key: &Key, life: Duration, cost: Duration, value: &T) {
        // What cannot be written down is not cached either.
        let Ok(bytes) = serde_json::to_vec(value) else { return };
        let (fingerprint, now) = (self.0.hasher.hash_one(&bytes), self.0.clock.now());
        let mut state = self.state();
        let phase = state.phase(key);
        let former = state.keys.get(key).cloned();
        let seen = match &former {
            Some(former) if now >= former.made_at.saturating_add(former.life) => Observation::Rebuilt {
                age: now.saturating_since(former.made_at),
                changed: fingerprint != former.fingerprint,
                cost,
                life: former.life,
                reads: former.reads,
            },
            _ => Observation::Made { cost },
        };
        self.observe(&mut state, class, phase, seen);
        if let Some(former) = &former
            && former.reads_new > 0
        {
            self.observe(&mut state, class, phase, Observation::Reads(former.reads_new));
        }
        let unchanged_lives = match (&former, seen) {
            (Some(former), Observation::Rebuilt { changed: false, .. }) => {
                former.unchanged_lives.saturating_add(1)
            }
            _ => 0,
        };
        state.make_room();
        let known = Known {
            class: class.to_owned(),
            made_at: now,
            life,
            fingerprint,
            reads: 1,
            reads_new: 0,
            unchanged_lives,
        };
        state.keys.insert(key.clone(), known);
    }

    fn decide_if_due(&self) {
        let now = self.now();
        let mut state = self.state();
        if now.micros() < state.decide_at_us {
            return;
        }
        let pause = (self.0.settings.window / DECISIONS).max(Duration::from_secs(1));
        state.decide_at_us = now.plus(pause).micros();
        let reads: Vec<(String, Phase, u64)> = state
            .keys
            .values_mut()
            .filter(|known| known.reads_new > 0)
            .map(|known| {
                let reads = std::mem::take(&mut known.reads_new);
                (known.class.clone(), Phase::after(known.unchanged_lives), reads)
            })
            .collect();
        for (class, phase, reads) in reads {
            self.observe(&mut state, &class, phase, Observation::Reads(reads));
        }
        let State { classes, correction, lives, usages, .. } = &mut *state;
        classes.forget(now, self.0.settings.window);
        let corrected = correction.correct(&self.0.settings, classes.stale());
        let observed = classes.observed(now, &self.0.settings);
        let rates: Vec<_> = observed.iter().map(|(_, _, observed)| observed.rates).collect();
        let decided = decide(&rates, &corrected).classes;
        let seen: HashSet<&str> = observed.iter().map(|(class, _, _)| *class).collect();
        usages.retain(|class, _| seen.contains(class.as_str()));
        *lives = observed
            .iter()
            .zip(decided)
            .map(|((class, phase, _), decision)| (((*class).to_owned(), *phase), decision))
            .collect();
    }
}

/// Through the cache by the usage's own policy, or, where lives are chosen, by the class's.
pub(crate) async fn through<T, F>(
    shared: &Shared,
    usage: &Usage,
    class: &str,
    key: &Key,
    loader: impl FnOnce() -> F,
) -> Result<Arc<T>>
where
    T: Serialize + DeserializeOwned + Send + Sync + 'static,
    F: Future<Output = Result<Option<T>>>,
{
    if let Some(adaptive) = &shared.adaptive {
        return loaded(adaptive.get_or_load(usage, class, key, loader).await);
    }
    let cache = shared.cache.for_usage(usage);
    loaded(cache.get_or_load(key, &cache.default_policy(), loader).await)
}

/// Shares what was seen for as long as the engine runs, and once more at its end.
pub(crate) async fn run(shared: Arc<Shared>, adaptive: Adaptive) {
    loop {
        tokio::select! {
            () = shared.ending.cancelled() => break,
            () = tokio::time::sleep(SHARE_PAUSE.mul_f64(0.75 + rand::random::<f64>() * 0.5)) => {}
        }
        adaptive.share().await;
    }
    adaptive.share().await;
}

impl State {
    fn phase(&self, key: &Key) -> Phase {
        self.keys.get(key).map_or_else(|| Phase::after(0), |known| Phase::after(known.unchanged_lives))
    }

    /// Forgets the older half when there are too many keys: what is forgotten counts as made for the first time when it is made again.
    fn make_room(&mut self) {
        if self.keys.len() < KEYS_MAX {
            return;
        }
        let mut ages: Vec<Instant> = self.keys.values().map(|known| known.made_at).collect();
        ages.sort_unstable();
        if let Some(median) = ages.get(ages.len() / 2).copied() {
            self.keys.retain(|_, known| known.made_at > median);
        }
    }
}
