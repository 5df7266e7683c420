//! Given how classes are read, change and cost, the lives that cost least within the budget.

use std::time::Duration;

use super::settings::{Saves, Settings};

/// How often the price is narrowed down, and a life at a price: each step halves what is left.
const PRICE_STEPS: u32 = 36;
const LIFE_STEPS: u32 = 28;
/// Prices that are looked at: from nearly nothing to nearly everything, as powers of e.
const PRICE_LN_RANGE: (f64, f64) = (-40.0, 40.0);

/// What is known of a class.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Rates {
    /// Reads a second.
    pub reads_per_s: f64,
    /// Changes a second of which the cache is not told.
    pub changes_per_s: f64,
    /// What it costs to make a value, in seconds.
    pub rebuild_s: f64,
}

/// The life of a class, and why.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Decision {
    /// How long its values count as fresh.
    pub ttl: Duration,
    /// The share of its reads that is too stale then, as far as reads and changes go on as they did.
    pub stale_share: f64,
    /// How often a value is made then, in a second.
    pub rebuilds_per_s: f64,
    /// What held it, if it was not the balance of cost and staleness.
    pub bound: Option<Bound>,
}

/// What held a life.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Bound {
    /// [`Settings::ttl_min`]
    TtlMin,
    /// [`Settings::ttl_max`]
    TtlMax,
    /// [`Settings::window`]: nothing is believed for longer than it was watched.
    Window,
    /// [`Settings::class_share_max`]
    ClassShareMax,
}

impl Bound {
    /// The name of the setting.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::TtlMin => "ttl_min",
            Self::TtlMax => "ttl_max",
            Self::Window => "window",
            Self::ClassShareMax => "class_share_max",
        }
    }
}

/// The lives of all classes.
#[derive(Debug, Clone, PartialEq)]
pub struct Decisions {
    /// What a read that is too stale is taken to cost, in what is to be [saved](Settings::saves): as little as the budget
    /// allows.
    pub price: f64,
    /// The share of all reads that is too stale then.
    pub stale_share: f64,
    /// One for each class, in order.
    pub classes: Vec<Decision>,
}

/// Decides the lives of classes that share one budget. The settings have no [problems](Settings::problems); rates that are no
/// numbers, or negative, count as 0.
pub fn decide(classes: &[Rates], settings: &Settings) -> Decisions {
    let mean_s = mean_cost(classes, settings);
    let classes: Vec<Class> = classes.iter().map(|rates| Class::new(*rates, settings, mean_s)).collect();
    let at = |price: f64| -> Decisions {
        let decided: Vec<Decision> = classes.iter().map(|class| class.at(price, settings)).collect();
        let reads: f64 = classes.iter().map(|class| class.reads).sum();
        let stale: f64 =
            classes.iter().zip(&decided).map(|(class, decision)| class.reads * decision.stale_share).sum();
        let stale_share = if reads > 0.0 { stale / reads } else { 0.0 };
        Decisions { price, stale_share, classes: decided }
    };
    // The dearer a stale read, the shorter all lives, the fewer stale reads.
    let (mut low, mut high) = PRICE_LN_RANGE;
    let cheapest = at(low.exp());
    if cheapest.stale_share <= settings.stale_share_max {
        return cheapest;
    }
    for _ in 0..PRICE_STEPS {
        let middle = f64::midpoint(low, high);
        if at(middle.exp()).stale_share > settings.stale_share_max { low = middle } else { high = middle }
    }
    at(high.exp())
}

/// What a life that something else decided comes to; nothing [bounds](Decision::bound) it.
pub fn at_life(rates: &Rates, settings: &Settings, ttl: Duration) -> Decision {
    let class = Class::new(*rates, settings, 0.0);
    let seconds = ttl.as_secs_f64();
    Decision {
        ttl,
        stale_share: class.share(seconds),
        rebuilds_per_s: if class.reads > 0.0 { 1.0 / class.cycle_s(seconds) } else { 0.0 },
        bound: None,
    }
}

/// Holds what is measured at the budget: values do not change as evenly as [`decide`] takes them to, so that more reads, or fewer,
/// are too stale than it foresees. By that ratio the share that it may plan with is corrected, a little at each decision (integral
/// control).
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Correction {
    factor: f64,
    seen: (f64, f64),
}

impl Default for Correction {
    fn default() -> Self {
        Self { factor: 1.0, seen: (0.0, 0.0) }
    }
}

impl Correction {
    /// The settings to decide with, after all that was seen up to now: reads, and those among them that were too stale.
    pub fn correct(&mut self, settings: &Settings, (reads, stale): (f64, f64)) -> Settings {
        let (new_reads, new_stale) = (reads - self.seen.0, stale - self.seen.1);
        self.seen = (reads, stale);
        // Counts that were forgotten say nothing.
        if new_reads > 0.0 && new_stale >= 0.0 {
            let ratio = new_stale / new_reads / settings.stale_share_max;
            self.factor = (self.factor / ratio.clamp(0.5, 2.0).sqrt()).clamp(0.001, 2.0);
        }
        Settings { stale_share_max: (settings.stale_share_max * self.factor).max(1e-9), ..*settings }
    }
}

fn sane(value: f64) -> f64 {
    if value.is_finite() { value.max(0.0) } else { 0.0 }
}

/// What a rebuild costs on average when all values live as long as the budget, in seconds: what [`Saves::Both`] weighs with.
fn mean_cost(classes: &[Rates], settings: &Settings) -> f64 {
    let within = settings.staleness.as_secs_f64();
    let (mut rebuilds, mut cost_s) = (0.0, 0.0);
    for rates in classes {
        let reads = sane(rates.reads_per_s);
        // One life, and the wait for the read that ends it.
        let rebuilds_per_s = if reads > 0.0 { 1.0 / (within + 1.0 / reads) } else { 0.0 };
        rebuilds += rebuilds_per_s;
        cost_s += rebuilds_per_s * sane(rates.rebuild_s);
    }
    if rebuilds > 0.0 { cost_s / rebuilds } else { 0.0 }
}

/// A class as the arithmetic needs it.
struct Class {
    /// Reads, changes a second; what a rebuild costs, in seconds, or 1 where each counts the same, or the sum of both by the mean.
    reads: f64,
    changes: f64,
    cost: f64,
    /// Seconds of staleness that are within the budget.
    within: f64,
    /// The longest life that `class_share_max` allows.
    longest: f64,
}

impl Class {
    fn new(rates: Rates, settings: &Settings, mean_s: f64) -> Self {
        let mut class = Self {
            reads: sane(rates.reads_per_s),
            changes: sane(rates.changes_per_s),
            cost: match settings.saves {
                Saves::Both if mean_s > 0.0 => 1.0 + sane(rates.rebuild_s) / mean_s,
                Saves::Cost => sane(rates.rebuild_s),
                Saves::Both | Saves::Rebuilds => 1.0,
            },
            within: settings.staleness.as_secs_f64(),
            // What was watched for a window tells nothing about longer lives.
            longest: settings.ttl_max.min(settings.window).as_secs_f64(),
        };
        if class.share(class.longest) > settings.class_share_max {
            let (low, high) = (class.within, class.longest);
            class.longest = narrow(low, high, |ttl| class.share(ttl) <= settings.class_share_max);
        }
        class
    }

    /// Seconds of a life of `ttl` in which a read is too stale, on average: the integral over ages `a` beyond the budget of the
    /// probability that the value changed before `a - within`.
    fn stale_s(&self, ttl: f64) -> f64 {
        let beyond = ttl - self.within;
        if beyond <= 0.0 || self.changes <= 0.0 {
            return 0.0;
        }
        let expected = self.changes * beyond;
        // The difference of two nearly equal numbers where changes are few: its series then.
        if expected < 1e-4 {
            beyond * expected / 2.0
        } else {
            beyond - (1.0 - (-expected).exp()) / self.changes
        }
    }

    /// From one rebuild to the next: a life, and the wait for the read that ends it.
    fn cycle_s(&self, ttl: f64) -> f64 {
        ttl + 1.0 / self.reads
    }

    /// The share of reads that is too stale.
    fn share(&self, ttl: f64) -> f64 {
        // Per cycle there are reads * ttl reads of the kept value, and the one that had it made.
        if self.reads > 0.0 { self.stale_s(ttl) / self.cycle_s(ttl) } else { 0.0 }
    }

    /// The life with the least cost at this price of a stale read: cost a second is
    /// `(cost + price * reads * stale_s(ttl)) / cycle_s(ttl)`, whose derivative changes its sign once.
    fn at(&self, price: f64, settings: &Settings) -> Decision {
        let rises = |ttl: f64| {
            let beyond = (ttl - self.within).max(0.0);
            let stale_now = -(-self.changes * beyond).exp_m1();
            let weight = price * self.reads;
            weight * (stale_now * self.cycle_s(ttl) - self.stale_s(ttl)) > self.cost
        };
        let least = settings.ttl_min.as_secs_f64();
        let most = settings.ttl_max.min(settings.window).as_secs_f64();
        let (ttl, bound) = if self.reads <= 0.0 {
            (self.longest, None)
        } else {
            // Nothing is too stale within the budget: no shorter life is ever better.
            let best = narrow(self.within, self.longest, |ttl| !rises(ttl));
            let is_longest = best >= self.longest * (1.0 - 1e-9);
            (best, is_longest.then_some(Bound::ClassShareMax))
        };
        let bound = if ttl <= least {
            Some(Bound::TtlMin)
        } else if ttl >= most * (1.0 - 1e-9) {
            Some(if settings.ttl_max <= settings.window { Bound::TtlMax } else { Bound::Window })
        } else {
            bound
        };
        let ttl = ttl.clamp(least, most);
        Decision {
            ttl: Duration::try_from_secs_f64(ttl).unwrap_or(settings.ttl_max),
            stale_share: self.share(ttl),
            rebuilds_per_s: if self.reads > 0.0 { 1.0 / self.cycle_s(ttl) } else { 0.0 },
            bound,
        }
    }
}

/// The largest value between `low` and `high` up to which `holds`; it does for `low`.
fn narrow(low: f64, high: f64, holds: impl Fn(f64) -> bool) -> f64 {
    if low >= high {
        return high;
    }
    if holds(high) {
        return high;
    }
    // By ratio: lives reach from seconds to days.
    let (mut low, mut high) = (low.ln(), high.ln());
    for _ in 0..LIFE_STEPS {
        let middle = f64::midpoint(low, high);
        if holds(middle.exp()) { low = middle } else { high = middle }
    }
    low.exp()
}
