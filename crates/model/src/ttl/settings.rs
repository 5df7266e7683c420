//! What may be set.

use std::time::Duration;

/// Most classes of keys that are told apart; what comes beyond them keeps the life that its caller gave.
pub const CLASSES_MAX: usize = 4_096;
/// Most processes whose observations of one class are kept apart.
pub const INSTANCES_MAX: usize = 512;

/// Longest life of anything: a year.
const TTL_MAX_MAX: Duration = Duration::from_secs(365 * 24 * 3_600);
const WINDOW_MIN: Duration = Duration::from_secs(60);
const WINDOW_MAX: Duration = Duration::from_secs(7 * 24 * 3_600);
/// No share that is checked can be smaller: nobody could measure it.
const SHARE_MIN: f64 = 1e-6;

/// What is to be saved within the budget. Values differ in what they cost to make: what saves most of the one does not save
/// most of the other.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Saves {
    /// The number of rebuilds and the time that they take, each as part of what it would be if all lived as long as the
    /// budget: a rebuild that costs as much as most counts as much for its number as for its cost.
    #[default]
    Both,
    /// The time that rebuilding takes: a value that costs ten times as much is made the less often.
    Cost,
    /// The number of rebuilds, whatever each costs: for sources that count calls.
    Rebuilds,
}

impl Saves {
    /// All of them, the default first.
    pub const ALL: [Self; 3] = [Self::Both, Self::Cost, Self::Rebuilds];

    /// The name in configuration.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Both => "both",
            Self::Cost => "cost",
            Self::Rebuilds => "rebuilds",
        }
    }
}

/// How stale reads may be, and between which bounds lives are chosen.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Settings {
    /// The budget: a read is too stale when what it is served was outdated for longer than this. Default 60 s.
    pub staleness: Duration,
    /// The share of all reads that may be too stale. 0.01 holds the 99th percentile of staleness at the budget. Default 0.01.
    pub stale_share_max: f64,
    /// The share of the reads of any one class that may be too stale. Default 0.1.
    pub class_share_max: f64,
    /// No life is shorter. Default 1 s.
    pub ttl_min: Duration,
    /// No life is longer. Default one day.
    pub ttl_max: Duration,
    /// Over what time reads and changes are counted; no life is longer than what was watched. Default one day, so that the nights are
    /// in it.
    pub window: Duration,
    /// What is to be saved. Default: both.
    pub saves: Saves,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            staleness: Duration::from_secs(60),
            stale_share_max: 0.01,
            class_share_max: 0.1,
            ttl_min: Duration::from_secs(1),
            ttl_max: Duration::from_secs(24 * 3_600),
            window: Duration::from_secs(24 * 3_600),
            saves: Saves::default(),
        }
    }
}

/// A setting that cannot be.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{field}` {message}")]
pub struct SettingsProblem {
    /// Which one.
    pub field: &'static str,
    /// What is wrong with it and what it may be.
    pub message: String,
}

impl Settings {
    /// All that is wrong with them.
    pub fn problems(&self) -> Vec<SettingsProblem> {
        let mut problems = Vec::new();
        let mut refuse = |field, message| problems.push(SettingsProblem { field, message });
        for (field, share) in
            [("stale_share_max", self.stale_share_max), ("class_share_max", self.class_share_max)]
        {
            // Written so that what is no number is refused too.
            if !(SHARE_MIN..1.0).contains(&share) {
                refuse(field, format!("is {share}; it must be a fraction from {SHARE_MIN} to below 1"));
            }
        }
        if self.class_share_max < self.stale_share_max {
            refuse(
                "class_share_max",
                format!(
                    "is {}; it must not be below `stale_share_max`, {}",
                    self.class_share_max, self.stale_share_max
                ),
            );
        }
        for (field, length) in [("staleness", self.staleness), ("ttl_min", self.ttl_min)] {
            if length.is_zero() {
                refuse(field, "is 0; it must be longer".to_owned());
            }
        }
        if self.ttl_max > TTL_MAX_MAX {
            refuse("ttl_max", format!("is {:?}; it must be at most {TTL_MAX_MAX:?}", self.ttl_max));
        }
        if self.ttl_min > self.ttl_max {
            refuse("ttl_min", format!("is {:?}, above `ttl_max`, {:?}", self.ttl_min, self.ttl_max));
        }
        if self.staleness > self.ttl_max {
            refuse(
                "staleness",
                format!(
                    "is {:?}, above `ttl_max`, {:?}: nothing could be too stale",
                    self.staleness, self.ttl_max
                ),
            );
        }
        if !(WINDOW_MIN..=WINDOW_MAX).contains(&self.window) {
            refuse(
                "window",
                format!("is {:?}; it must be from {WINDOW_MIN:?} to {WINDOW_MAX:?}", self.window),
            );
        }
        problems
    }
}
