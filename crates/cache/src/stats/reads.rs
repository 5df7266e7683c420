//! Reads, by usage, tier and what they found.

use std::sync::{Mutex, MutexGuard, PoisonError};

use serde::Serialize;

use super::Tier;
use super::stripes::Stripes;

/// Usages that are counted apart: the unnamed one, 14 more in the order in which they are asked for, and `other` for all
/// that come later.
pub const USAGES_MAX: usize = 16;

const KINDS: usize = 6;
const CELLS: usize = USAGES_MAX * KINDS;

/// What a handle without a usage is called.
const UNNAMED: &str = "default";
const OTHER: &str = "other";
/// Place of `other`.
const OTHER_LABEL: u8 = 15;

/// Reads of one usage.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct UsageReads {
    /// Its name; `default` for handles without a usage, `other` for all beyond [`USAGES_MAX`].
    pub usage: String,
    /// Answered out of this process.
    pub near: TierReads,
    /// Answered by a shared backend.
    pub far: TierReads,
    /// Not answered.
    pub misses: u64,
    /// Runs of a loader.
    pub loads: u64,
}

/// Reads that one tier answered.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct TierReads {
    /// With a fresh entry.
    pub hits: u64,
    /// With an entry past its freshness.
    pub stale_hits: u64,
}

/// What a read found, or what came of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Read {
    Hit(Tier),
    StaleHit(Tier),
    Miss,
    Loaded,
}

impl Read {
    #[inline]
    fn kind(self) -> usize {
        match self {
            Self::Hit(Tier::Near) => 0,
            Self::Hit(Tier::Far) => 1,
            Self::StaleHit(Tier::Near) => 2,
            Self::StaleHit(Tier::Far) => 3,
            Self::Miss => 4,
            Self::Loaded => 5,
        }
    }
}

/// Place of a usage in the counters. The default is that of handles without a usage.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct UsageLabel(u8);

#[derive(Debug, Default)]
pub(crate) struct Reads {
    cells: Stripes<CELLS>,
    /// Of the labels from 1 on.
    names: Mutex<Vec<String>>,
}

impl Reads {
    /// The label of a usage, the same for the same name.
    pub(crate) fn label(&self, name: &str) -> UsageLabel {
        let mut names = self.names();
        let place = names.iter().position(|known| known == name).unwrap_or_else(|| {
            if names.len() < usize::from(OTHER_LABEL) - 1 {
                names.push(name.to_owned());
                names.len() - 1
            } else {
                usize::from(OTHER_LABEL) - 1
            }
        });
        UsageLabel(u8::try_from(place + 1).unwrap_or(OTHER_LABEL))
    }

    /// For spans.
    pub(crate) fn name(&self, usage: UsageLabel) -> String {
        match usage.0 {
            0 => UNNAMED.to_owned(),
            label => {
                let named = self.names().get(usize::from(label) - 1).cloned();
                named.unwrap_or_else(|| OTHER.to_owned())
            }
        }
    }

    #[inline]
    pub(crate) fn one(&self, usage: UsageLabel, read: Read) {
        self.cells.one(usize::from(usage.0) * KINDS + read.kind());
    }

    pub(super) fn snapshot(&self) -> Vec<UsageReads> {
        let names = self.names();
        let named = names.iter().zip(1..).map(|(name, label)| (name.as_str(), UsageLabel(label)));
        let other = (OTHER, UsageLabel(OTHER_LABEL));
        let all = std::iter::once((UNNAMED, UsageLabel::default())).chain(named).chain([other]);
        all.map(|(name, label)| self.of(name, label))
            .filter(|reads| reads.misses > 0 || reads.loads > 0 || reads.is_answered())
            .collect()
    }

    fn of(&self, name: &str, label: UsageLabel) -> UsageReads {
        let count = |read: Read| self.cells.sum(usize::from(label.0) * KINDS + read.kind());
        let answered =
            |tier| TierReads { hits: count(Read::Hit(tier)), stale_hits: count(Read::StaleHit(tier)) };
        UsageReads {
            usage: name.to_owned(),
            near: answered(Tier::Near),
            far: answered(Tier::Far),
            misses: count(Read::Miss),
            loads: count(Read::Loaded),
        }
    }

    fn names(&self) -> MutexGuard<'_, Vec<String>> {
        self.names.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl UsageReads {
    fn is_answered(&self) -> bool {
        self.near != TierReads::default() || self.far != TierReads::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_usage_tier_and_finding_has_a_place_of_its_own() {
        let reads = Reads::default();
        let finds = [
            Read::Hit(Tier::Near),
            Read::Hit(Tier::Far),
            Read::StaleHit(Tier::Near),
            Read::StaleHit(Tier::Far),
        ];
        for (usage, times) in [(UsageLabel::default(), 1), (reads.label("a"), 10), (reads.label("b"), 100)] {
            for (find, more) in finds.into_iter().chain([Read::Miss, Read::Loaded]).zip(0..) {
                (0..times + more).for_each(|_| reads.one(usage, find));
            }
        }
        let counted: Vec<_> = reads
            .snapshot()
            .iter()
            .map(|UsageReads { usage, near, far, misses, loads }| {
                (usage.clone(), [near.hits, far.hits, near.stale_hits, far.stale_hits, *misses, *loads])
            })
            .collect();
        let of = |first: u64| std::array::from_fn(|more| first + u64::try_from(more).unwrap());
        assert_eq!(
            counted,
            [("default".to_owned(), of(1)), ("a".to_owned(), of(10)), ("b".to_owned(), of(100))]
        );
    }

    #[test]
    fn usages_beyond_the_bound_are_counted_together() {
        let reads = Reads::default();
        for number in 0..100 {
            let label = reads.label(&format!("usage {number}"));
            assert_eq!(label, reads.label(&format!("usage {number}")));
            reads.one(label, Read::Miss);
        }
        reads.one(UsageLabel::default(), Read::Miss);
        let counted = reads.snapshot();
        assert_eq!(counted.len(), USAGES_MAX);
        assert_eq!(counted.last().map(|reads| (reads.usage.as_str(), reads.misses)), Some(("other", 86)));
        assert!(counted.iter().take(USAGES_MAX - 1).all(|reads| reads.misses == 1));
    }
}
