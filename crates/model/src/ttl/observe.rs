//! What processes saw of each class, kept such that it can be merged in any order and any number of times.
//!
//! Each process counts into parts of its own, one for each stretch of time, and only upwards; of two copies of a part the
//! larger numbers hold. That makes merging commutative, associative and idempotent (a grow-only counter for each process: M.
//! Shapiro and others, Conflict-Free Replicated Data Types, 2011): a part that arrives late, twice or never does no
//! other harm than to be missing.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::rule::Rates;
use super::settings::{CLASSES_MAX, INSTANCES_MAX, Settings};
use crate::time::{Timestamp, micros};

/// Stretches of time that are kept: the present one and the one before.
pub const WINDOWS_KEPT: i64 = 2;

/// What is known of how a value fared: how many lives in a row it has ended unchanged. Changes come in bursts, so that a value which
/// has just changed is more likely to change again than one that has rested for long; each phase has rates of its own. (Caches
/// have long taken the age of a document for a sign of how long it will stay: J. Gwertzman, M. Seltzer, World Wide Web Cache
/// Consistency, USENIX 1996. Here it is only told apart, and the rates are measured.)
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
pub struct Phase(u8);

impl Phase {
    const COUNT: u8 = 4;
    /// All, from the most restless.
    pub const ALL: [Self; 4] = [Self(0), Self(1), Self(2), Self(3)];

    /// After so many lives in a row that ended unchanged: none, one or two, three to six, more.
    pub fn after(unchanged_lives: u32) -> Self {
        let doublings = unchanged_lives.saturating_add(1).ilog2();
        Self(u8::try_from(doublings).unwrap_or(u8::MAX).min(Self::COUNT - 1))
    }

    /// Its number, from 0.
    pub const fn number(self) -> u8 {
        self.0
    }
}

/// Something that was seen of a class.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Observation {
    /// Values were read, so many.
    Reads(u64),
    /// A value was made again after its life, and nobody had said that it changed.
    Rebuilt {
        /// How old the former one was.
        age: Duration,
        /// It was another value than before.
        changed: bool,
        /// How long it took to make.
        cost: Duration,
        /// How long the former one was served.
        life: Duration,
        /// How often the former one was read.
        reads: u64,
    },
    /// A value was made for the first time, or after it had been invalidated: that it changed is no surprise, and
    /// nobody was served it.
    Made {
        /// How long it took to make.
        cost: Duration,
    },
    /// Values were invalidated, so many.
    Invalidated(u64),
}

/// Counts of one process over one stretch of time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Part {
    /// Values read.
    pub reads: u64,
    /// Values made again after their life.
    pub rebuilt: u64,
    /// Those that had changed.
    pub changed: u64,
    /// How old the former ones were, together.
    pub age_us: u64,
    /// Values made.
    pub made: u64,
    /// How long that took.
    pub cost_us: u64,
    /// Values invalidated.
    pub invalidated: u64,
    /// Reads that were too stale, about, in thousandths.
    pub too_stale_milli: u64,
}

/// The part of the reads of a life that were too stale, when all that is known is that the value had changed when it was made
/// again at this age: the change is as likely at any moment before, and the reads are anywhere in its life.
fn too_stale(age: Duration, life: Duration, budget: Duration) -> f64 {
    let (age, beyond) = (age.as_secs_f64(), life.saturating_sub(budget).as_secs_f64());
    let life = life.as_secs_f64();
    if age > 0.0 && life > 0.0 { beyond * beyond / (2.0 * age * life) } else { 0.0 }
}

impl Part {
    fn add(&mut self, seen: Observation, budget: Duration) {
        let us = |duration: Duration| u64::try_from(micros(duration)).unwrap_or(0);
        let mut made = |cost: Duration| {
            self.made = self.made.saturating_add(1);
            self.cost_us = self.cost_us.saturating_add(us(cost));
        };
        match seen {
            Observation::Reads(count) => self.reads = self.reads.saturating_add(count),
            Observation::Rebuilt { age, changed, cost, life, reads } => {
                made(cost);
                if changed {
                    let stale = too_stale(age, life, budget) * float(reads) * 1_000.0;
                    let stale = Duration::try_from_secs_f64(stale).unwrap_or_default().as_secs();
                    self.too_stale_milli = self.too_stale_milli.saturating_add(stale);
                }
                self.rebuilt = self.rebuilt.saturating_add(1);
                self.changed = self.changed.saturating_add(u64::from(changed));
                self.age_us = self.age_us.saturating_add(us(age));
            }
            Observation::Made { cost } => made(cost),
            Observation::Invalidated(count) => self.invalidated = self.invalidated.saturating_add(count),
        }
    }

    fn merge(&mut self, other: &Self) {
        for (mine, theirs) in [
            (&mut self.reads, other.reads),
            (&mut self.rebuilt, other.rebuilt),
            (&mut self.changed, other.changed),
            (&mut self.age_us, other.age_us),
            (&mut self.made, other.made),
            (&mut self.cost_us, other.cost_us),
            (&mut self.invalidated, other.invalidated),
            (&mut self.too_stale_milli, other.too_stale_milli),
        ] {
            *mine = (*mine).max(theirs);
        }
    }
}

/// Number of the stretch of time, process, phase.
type PartKey = (i64, u64, Phase);
/// Parts that one class has at most.
const PARTS_MAX: usize = INSTANCES_MAX * 2 * 4;

/// All classes, as far as this process knows them.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Classes {
    /// By class; then by the number of the stretch of time, by process, and by phase.
    #[serde(with = "listed")]
    classes: BTreeMap<String, BTreeMap<PartKey, Part>>,
    /// When anything was first seen, in microseconds.
    since_us: Option<i64>,
}

/// Parts as a list: formats whose keys are texts can hold it.
mod listed {
    use std::collections::BTreeMap;

    use serde::{Deserialize as _, Deserializer, Serializer};

    use super::{Part, PartKey};

    type Parts = BTreeMap<String, BTreeMap<PartKey, Part>>;

    pub(super) fn serialize<S: Serializer>(classes: &Parts, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_map(
            classes.iter().map(|(class, parts)| (class, parts.iter().collect::<Vec<(&PartKey, &Part)>>())),
        )
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Parts, D::Error> {
        let listed = BTreeMap::<String, Vec<(PartKey, Part)>>::deserialize(deserializer)?;
        Ok(listed.into_iter().map(|(class, parts)| (class, parts.into_iter().collect())).collect())
    }
}

/// What is concluded of one class.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Observed {
    /// What goes into the decision.
    pub rates: Rates,
    /// Values made again after their life within the window, about.
    pub rebuilt: f64,
    /// Those that had changed.
    pub changed: f64,
    /// Values that were invalidated.
    pub invalidated: f64,
}

impl Classes {
    /// Counts what was seen. False when there are too many classes, or processes, to tell this one apart: nothing is
    /// counted then.
    #[must_use]
    pub fn observe(
        &mut self,
        class: &str,
        phase: Phase,
        instance: u64,
        now: Timestamp,
        settings: &Settings,
        seen: Observation,
    ) -> bool {
        if !self.classes.contains_key(class) && self.classes.len() >= CLASSES_MAX {
            return false;
        }
        let key = (number(now, settings.window), instance, phase);
        let parts = self.classes.entry(class.to_owned()).or_default();
        if !parts.contains_key(&key) && parts.len() >= PARTS_MAX {
            return false;
        }
        parts.entry(key).or_default().add(seen, settings.staleness);
        self.since_us = Some(self.since_us.map_or(now.micros(), |since| since.min(now.micros())));
        true
    }

    /// Takes over what another process knows; what is beyond the limits is left out.
    pub fn merge(&mut self, other: &Self) {
        for (class, parts) in &other.classes {
            if !self.classes.contains_key(class) && self.classes.len() >= CLASSES_MAX {
                continue;
            }
            let mine = self.classes.entry(class.clone()).or_default();
            for (key, part) in parts {
                if mine.contains_key(key) || mine.len() < PARTS_MAX {
                    mine.entry(*key).or_default().merge(part);
                }
            }
        }
        self.since_us = match (self.since_us, other.since_us) {
            (Some(mine), Some(theirs)) => Some(mine.min(theirs)),
            (mine, theirs) => mine.or(theirs),
        };
    }

    /// Forgets what is older than the stretch before the present one, and classes of which nothing is left.
    pub fn forget(&mut self, now: Timestamp, window: Duration) {
        let oldest = number(now, window) - (WINDOWS_KEPT - 1);
        for parts in self.classes.values_mut() {
            parts.retain(|(number, _, _), _| *number >= oldest);
        }
        self.classes.retain(|_, parts| !parts.is_empty());
    }

    /// Only what `instance` counted itself, to be sent to the others.
    pub fn of_instance(&self, instance: u64) -> Self {
        let classes = self.classes.iter().filter_map(|(class, parts)| {
            let own: BTreeMap<_, _> = parts
                .iter()
                .filter(|((_, of, _), _)| *of == instance)
                .map(|(key, part)| (*key, *part))
                .collect();
            (!own.is_empty()).then(|| (class.clone(), own))
        });
        Self { classes: classes.collect(), since_us: self.since_us }
    }

    /// How many classes there are.
    pub fn len(&self) -> usize {
        self.classes.len()
    }

    /// Whether nothing was seen.
    pub fn is_empty(&self) -> bool {
        self.classes.is_empty()
    }

    /// What is concluded of each phase of each class that was read, at `now`: over the last window, the stretch before the
    /// present one counted as far as it lies in it.
    ///
    /// From `n` values made again, `x` of which had changed, at ages of `a` on average, follow
    /// `-ln((n - x + 1/2) / (n + 1/2)) / a` changes a second: several changes of one life look like one, and this makes up for
    /// it (Cho and Garcia-Molina). Of one that was hardly seen the rate of all classes in that phase is believed: as if it had
    /// been watched beforehand until its first change at that rate (the exponential prior, the widest with that mean).
    pub fn observed(&self, now: Timestamp, settings: &Settings) -> Vec<(&str, Phase, Observed)> {
        let window = settings.window;
        let present = number(now, window);
        let window_us = seconds_us(micros(window));
        let into =
            seconds_us(now.micros().saturating_sub(present.saturating_mul(micros(window)))) / window_us;
        let known_us = self.since_us.map_or(0.0, |since| seconds_us(now.micros().saturating_sub(since)));
        // Before a whole window has passed, rates are over the time that has; over a second at least.
        let over_s = (known_us.min(window_us) / 1e6).max(1.0);

        let mut counted: BTreeMap<(&str, Phase), Counted> = BTreeMap::new();
        for (class, parts) in &self.classes {
            for ((number, _, phase), part) in parts {
                let weight = match present - number {
                    0 => 1.0,
                    1 => 1.0 - into,
                    _ => 0.0,
                };
                counted.entry((class, *phase)).or_default().add(part, weight);
            }
        }
        let mut by_phase: BTreeMap<Phase, Common> = BTreeMap::new();
        let mut all = Common::default();
        for ((_, phase), one) in &counted {
            by_phase.entry(*phase).or_default().add(one);
            all.add(one);
        }
        let Some(any) = all.changes_per_s() else { return Vec::new() };
        counted
            .into_iter()
            .filter(|(_, one)| one.reads > 0.0)
            .map(|((class, phase), one)| {
                let common = by_phase.get(&phase).and_then(Common::changes_per_s).unwrap_or(any);
                let rates = Rates {
                    reads_per_s: one.reads / over_s,
                    changes_per_s: (one.changes() + 1.0) / (one.age_s + 1.0 / common),
                    rebuild_s: if one.made > 0.0 { one.cost_s / one.made } else { all.rebuild_s() },
                };
                let observed = Observed {
                    rates,
                    rebuilt: one.rebuilt,
                    changed: one.changed,
                    invalidated: one.invalidated,
                };
                (class, phase, observed)
            })
            .collect()
    }
}

/// What classes have in common.
#[derive(Debug, Clone, Copy, Default)]
struct Common {
    rates: f64,
    classes: f64,
    made: f64,
    cost_s: f64,
}

impl Common {
    fn add(&mut self, one: &Counted) {
        if one.age_s > 0.0 {
            // A class in which no change was seen is taken to have been about to.
            self.rates += one.changes().max(0.5) / one.age_s;
            self.classes += 1.0;
        }
        self.made += one.made;
        self.cost_s += one.cost_s;
    }

    /// The mean of the rates: each class counts once, however long it was watched. Those that change seldom are watched long; in
    /// the sum of all time they would hide the others.
    fn changes_per_s(&self) -> Option<f64> {
        (self.classes > 0.0).then(|| self.rates / self.classes)
    }

    fn rebuild_s(&self) -> f64 {
        if self.made > 0.0 { self.cost_s / self.made } else { 0.0 }
    }
}

impl Classes {
    /// Reads, and those that were too stale, about, as far as they are kept.
    pub fn stale(&self) -> (f64, f64) {
        let parts = self.classes.values().flat_map(BTreeMap::values);
        parts.fold((0.0, 0.0), |(reads, stale), part| {
            (reads + float(part.reads), stale + float(part.too_stale_milli) / 1_000.0)
        })
    }
}

/// Counts, weighed.
#[derive(Debug, Clone, Copy, Default)]
struct Counted {
    reads: f64,
    rebuilt: f64,
    changed: f64,
    age_s: f64,
    made: f64,
    cost_s: f64,
    invalidated: f64,
}

impl Counted {
    fn add(&mut self, part: &Part, weight: f64) {
        self.reads += weight * float(part.reads);
        self.rebuilt += weight * float(part.rebuilt);
        self.changed += weight * float(part.changed);
        self.age_s += weight * float(part.age_us) / 1e6;
        self.made += weight * float(part.made);
        self.cost_s += weight * float(part.cost_us) / 1e6;
        self.invalidated += weight * float(part.invalidated);
    }

    /// How many changes there were, also where several came in one life.
    fn changes(&self) -> f64 {
        if self.rebuilt <= 0.0 {
            return 0.0;
        }
        -((self.rebuilt - self.changed + 0.5) / (self.rebuilt + 0.5)).ln() * self.rebuilt
    }
}

/// The stretch of time that an instant is in.
fn number(at: Timestamp, window: Duration) -> i64 {
    at.micros().div_euclid(micros(window).max(1))
}

fn seconds_us(micros: i64) -> f64 {
    float(u64::try_from(micros).unwrap_or(0))
}

/// A count as a number to reckon with, exact to 32 bits at either end.
fn float(count: u64) -> f64 {
    let high = u32::try_from(count >> 32).unwrap_or(u32::MAX);
    let low = u32::try_from(count & u64::from(u32::MAX)).unwrap_or(u32::MAX);
    f64::from(high) * 4_294_967_296.0 + f64::from(low)
}
