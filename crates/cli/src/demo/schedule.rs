//! Which carrier joins or leaves which alliance, and in what rhythm: an endless list that follows from a seed.
//!
//! Because the list is endless and its numbers are kept in the store, a run that was killed goes on where it was, and
//! a run on a database whose list was done takes the next stretch of it.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

/// The views, by key.
pub(super) const ALLIANCES: [&str; 6] = ["atlas", "harbor", "lantern", "north", "prairie", "summit"];
/// Carriers that each alliance begins with.
const FOUNDERS: usize = 5;
/// An alliance of fewer members takes one in.
const MEMBERS_MIN: usize = 4;
/// An alliance of more members lets one go.
const MEMBERS_MAX: usize = 7;

/// Who belongs to each alliance.
pub(super) type Members = BTreeMap<String, BTreeSet<String>>;

/// When a change is made, seen from the one before it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Moment {
    /// Right after it: part of a burst.
    AtOnce,
    /// This long after it.
    After(Duration),
    /// Just before the running build of the same alliance would finish.
    BeforeFinish,
}

/// One change.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Change {
    /// Its place in the list, from 1.
    pub(super) number: i64,
    pub(super) alliance: &'static str,
    pub(super) carrier: String,
    pub(super) joins: bool,
    pub(super) moment: Moment,
}

/// The list, and the members after what was taken from it.
#[derive(Debug, Clone)]
pub(super) struct Schedule {
    dice: Dice,
    carriers: Vec<String>,
    members: Members,
    number: i64,
    alliance: &'static str,
    burst_left: usize,
}

impl Schedule {
    /// The list of `seed`, over these carriers.
    pub(super) fn new(seed: u64, carriers: Vec<String>) -> Self {
        let members = ALLIANCES.iter().map(|name| ((*name).to_owned(), BTreeSet::new())).collect();
        Self { dice: Dice(seed), carriers, members, number: 0, alliance: ALLIANCES[0], burst_left: 0 }
    }

    /// How many changes of the list found the alliances, before anything is measured.
    pub(super) fn founding() -> i64 {
        i64::try_from(ALLIANCES.len() * FOUNDERS).unwrap_or(i64::MAX)
    }

    /// The members after all changes taken so far.
    pub(super) fn members(&self) -> &Members {
        &self.members
    }

    /// Takes changes up to this number.
    pub(super) fn take_until(&mut self, number: i64) -> Vec<Change> {
        let mut changes = Vec::new();
        while self.number < number {
            changes.push(self.take());
        }
        changes
    }

    fn take(&mut self) -> Change {
        let moment = if self.number < Self::founding() {
            let place = usize::try_from(self.number).unwrap_or(0) / FOUNDERS;
            self.alliance = ALLIANCES[place];
            Moment::AtOnce
        } else {
            self.moment()
        };
        self.number += 1;
        let joins = self.number <= Self::founding() || self.joins();
        let own = self.members.entry(self.alliance.to_owned()).or_default();
        let may: Vec<&String> =
            self.carriers.iter().filter(|carrier| own.contains(*carrier) != joins).collect();
        let carrier = may[self.dice.below(may.len())].clone();
        if joins {
            own.insert(carrier.clone());
        } else {
            own.remove(&carrier);
        }
        Change { number: self.number, alliance: self.alliance, carrier, joins, moment }
    }

    /// Of ten changes outside a burst, three begin one, three aim at a running build, four come by themselves.
    fn moment(&mut self) -> Moment {
        if self.burst_left > 0 {
            self.burst_left -= 1;
            return Moment::AtOnce;
        }
        match self.dice.below(10) {
            0..3 => {
                self.alliance = ALLIANCES[self.dice.below(ALLIANCES.len())];
                self.burst_left = 2 + self.dice.below(6);
                Moment::AtOnce
            }
            3..6 => Moment::BeforeFinish,
            _ => {
                self.alliance = ALLIANCES[self.dice.below(ALLIANCES.len())];
                let ms = u64::try_from(10 + self.dice.below(30)).unwrap_or(10);
                Moment::After(Duration::from_millis(ms))
            }
        }
    }

    fn joins(&mut self) -> bool {
        let count = self.members.get(self.alliance).map_or(0, BTreeSet::len);
        match count {
            ..MEMBERS_MIN => true,
            MEMBERS_MAX.. => false,
            _ => self.dice.below(2) == 0,
        }
    }
}

/// SplitMix64. Not the `rand` crate's: its sequences may change between releases, and a database must find its
/// list again.
#[derive(Debug, Clone)]
pub(super) struct Dice(pub(super) u64);

impl Dice {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A number below `bound`; 0 if that is 0. The bias of the remainder is far below what a demonstration notices.
    pub(super) fn below(&mut self, bound: usize) -> usize {
        let bound = u64::try_from(bound).unwrap_or(u64::MAX);
        self.next().checked_rem(bound).and_then(|number| usize::try_from(number).ok()).unwrap_or(0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn carriers() -> Vec<String> {
        ["9E", "AA", "AS", "B6", "DL", "EV", "F9", "FL", "HA", "MQ"].map(str::to_owned).to_vec()
    }

    #[test]
    fn same_seed_gives_the_same_list_however_it_is_taken() {
        let (mut whole, mut parts) = (Schedule::new(7, carriers()), Schedule::new(7, carriers()));
        let all = whole.take_until(500);
        let mut taken = parts.take_until(123);
        taken.extend(parts.take_until(500));
        assert_eq!(all, taken);
        assert_ne!(all, Schedule::new(8, carriers()).take_until(500));
    }

    #[test]
    fn every_change_changes_something_and_sizes_stay_in_bounds() {
        let mut schedule = Schedule::new(2013, carriers());
        let mut members: BTreeMap<&str, BTreeSet<String>> = BTreeMap::new();
        for change in schedule.take_until(2_000) {
            let own = members.entry(change.alliance).or_default();
            if change.joins {
                assert!(own.insert(change.carrier), "change {}", change.number);
            } else {
                assert!(own.remove(&change.carrier), "change {}", change.number);
            }
            assert!(own.len() <= MEMBERS_MAX);
            assert!(own.len() >= MEMBERS_MIN - 1 || change.number <= Schedule::founding());
        }
        assert!(schedule.members().iter().all(|(alliance, own)| members[alliance.as_str()] == *own));
    }

    #[test]
    fn all_three_rhythms_occur() {
        let changes = Schedule::new(2013, carriers()).take_until(Schedule::founding() + 100);
        let later = &changes[30..];
        assert!(later.iter().any(|change| change.moment == Moment::AtOnce));
        assert!(later.iter().any(|change| change.moment == Moment::BeforeFinish));
        assert!(later.iter().any(|change| matches!(change.moment, Moment::After(_))));
    }
}
