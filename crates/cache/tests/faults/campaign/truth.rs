//! What is true: a register of versions for each key, and what every reader has a right to.
//!
//! A change raises a key's version; then the cache is told. When the telling has returned, the version becomes the *floor*
//! of that node: no read that begins there later may see less. When the telling was confirmed, it becomes the floor of the
//! whole fleet too: for strict usages at once, for others after the lag that they allow. What was not confirmed must have
//! reached everybody once the fault is over and things have settled.

use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use recache_cache::LAG_MAX_DEFAULT;
use serde::{Deserialize, Serialize};
use tokio::time::Instant;

/// Nodes of a campaign.
pub(crate) const NODES: usize = 2;

/// Every so manieth version of a key is a deletion.
const DELETED_EVERY: u64 = 7;

/// The value of a key at one version. All of it follows from key and version, so that a wrong byte shows.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Record {
    key: usize,
    version: u64,
    filler: String,
}

impl Record {
    /// `None`: that version is a deletion.
    pub(crate) fn of(key: usize, version: u64) -> Option<Self> {
        let length = usize::try_from(version * 37 % 1_500).unwrap();
        let filler = format!("{key}/{version} ").chars().cycle().take(length).collect();
        (!version.is_multiple_of(DELETED_EVERY)).then_some(Self { key, version, filler })
    }
}

/// How far an eventual or bounded usage may lag behind a confirmed change: as far as the cache says, and what a busy machine
/// needs beside it.
const LAG_MAX: Duration = LAG_MAX_DEFAULT.saturating_add(Duration::from_millis(500));

/// One key.
#[derive(Debug, Default)]
pub(crate) struct Cell {
    /// The newest version.
    version: AtomicU64,
    /// The newest version whose telling has returned, on each node.
    floors: [AtomicU64; NODES],
    /// When which version was confirmed, in order.
    confirmed: Mutex<Vec<(Instant, u64)>>,
    /// One writer at a time: who writes last is last, as with a row of a database.
    pub(crate) writing: tokio::sync::Mutex<()>,
}

/// How coherent a read must be.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Needs {
    /// What its node was told, and what was confirmed long enough ago.
    Lagging,
    /// What its node was told, and all that was confirmed.
    Strict,
    /// All that was told anywhere: faults are over, everybody has had time to hear.
    Everything,
}

/// What a read that begins now has a right to, at least.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Floor {
    own: u64,
    fleet: u64,
    /// What some node was told and nobody confirmed: only for figures, unless everything is needed.
    anywhere: u64,
    needs: Needs,
}

impl Floor {
    fn admits(self, is_at_least: impl Fn(u64) -> bool) -> Result<(), Violation> {
        if !is_at_least(self.own) {
            Err(Violation::OlderThanOwn)
        } else if !is_at_least(self.fleet) {
            Err(Violation::OlderThanFleet)
        } else if is_at_least(self.anywhere) {
            Ok(())
        } else if self.needs == Needs::Everything {
            Err(Violation::Resurrected)
        } else {
            Err(Violation::Lags)
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Violation {
    /// Not the value of this key at any version that was ever written.
    Wrong,
    /// Older than what this node was told.
    OlderThanOwn,
    /// Older than what was confirmed to another node.
    OlderThanFleet,
    /// Came back: older than what was told somewhere, after everybody has had time to hear.
    Resurrected,
    /// No violation: older than what another node was told, without confirmation or just now.
    Lags,
}

#[derive(Debug)]
pub(crate) struct Truth {
    cells: Vec<Cell>,
    texts: Mutex<Vec<String>>,
}

impl Truth {
    pub(crate) fn new(keys: usize) -> Self {
        let cells: Vec<Cell> = (0..keys).map(|_| Cell::default()).collect();
        for cell in &cells {
            cell.version.store(1, Ordering::SeqCst);
        }
        Self { cells, texts: Mutex::default() }
    }

    pub(crate) fn cell(&self, key: usize) -> &Cell {
        &self.cells[key]
    }

    /// Changes what is true; answers the new version.
    pub(crate) fn change(&self, key: usize) -> u64 {
        self.cells[key].version.fetch_add(1, Ordering::SeqCst) + 1
    }

    /// Changes to the next version that is no deletion.
    pub(crate) fn change_to_value(&self, key: usize) -> (u64, Record) {
        loop {
            let version = self.change(key);
            if let Some(record) = Record::of(key, version) {
                return (version, record);
            }
        }
    }

    /// The node's cache was told of the version, and has returned.
    pub(crate) fn told(&self, node: usize, key: usize, version: u64, is_confirmed: bool) {
        let cell = &self.cells[key];
        cell.floors[node].fetch_max(version, Ordering::SeqCst);
        if is_confirmed {
            cell.confirmed.lock().unwrap().push((Instant::now(), version));
        }
    }

    pub(crate) fn version(&self, key: usize) -> u64 {
        self.cells[key].version.load(Ordering::SeqCst)
    }

    pub(crate) fn floor(&self, node: usize, key: usize, needs: Needs) -> Floor {
        let cell = &self.cells[key];
        let now = Instant::now();
        let confirmed = cell.confirmed.lock().unwrap();
        let is_due = |at: Instant| needs != Needs::Lagging || now.duration_since(at) >= LAG_MAX;
        let fleet = confirmed.iter().rev().find(|(at, _)| is_due(*at)).map_or(0, |(_, version)| *version);
        Floor {
            own: cell.floors[node].load(Ordering::SeqCst),
            fleet,
            anywhere: cell.floors.iter().map(|floor| floor.load(Ordering::SeqCst)).max().unwrap(),
            needs,
        }
    }

    /// What is wrong with an answer that was served.
    pub(crate) fn judge(&self, key: usize, floor: Floor, answer: &Record) -> Result<(), Violation> {
        let is_true = Record::of(key, answer.version).as_ref() == Some(answer);
        if !is_true || answer.version > self.version(key) {
            return Err(Violation::Wrong);
        }
        floor.admits(|at_least| answer.version >= at_least)
    }

    /// The same for the answer that there is nothing: some version since the floor must have been a deletion.
    pub(crate) fn judge_absent(&self, key: usize, floor: Floor) -> Result<(), Violation> {
        let newest = self.version(key);
        floor.admits(|at_least| (at_least..=newest).any(|version| Record::of(key, version).is_none()))
    }

    /// Keeps the first violations for the report.
    pub(crate) fn note(&self, text: impl FnOnce() -> String) {
        let mut texts = self.texts.lock().unwrap();
        if texts.len() < 12 {
            texts.push(text());
        }
    }

    pub(crate) fn notes(&self) -> Vec<String> {
        self.texts.lock().unwrap().clone()
    }
}

/// The register itself must find what it is there for.
mod tests {
    use super::*;

    fn at(version: u64) -> Record {
        Record::of(3, version).unwrap()
    }

    /// What a read of key 3 on a node is judged to be when it gives version 1.
    fn judged(truth: &Truth, node: usize, needs: Needs) -> Result<(), Violation> {
        truth.judge(3, truth.floor(node, 3, needs), &at(1))
    }

    #[tokio::test(start_paused = true)]
    async fn an_answer_below_the_floor_is_found() {
        let truth = Truth::new(4);
        let early = truth.floor(0, 3, Needs::Strict);
        let version = truth.change(3);
        truth.told(0, 3, version, false);
        assert_eq!(truth.judge(3, early, &at(1)), Ok(()), "the read began before the telling");
        assert_eq!(judged(&truth, 0, Needs::Lagging), Err(Violation::OlderThanOwn));
        assert_eq!(judged(&truth, 1, Needs::Strict), Err(Violation::Lags), "nobody confirmed it");
        assert_eq!(judged(&truth, 1, Needs::Everything), Err(Violation::Resurrected));
        truth.told(0, 3, version, true);
        assert_eq!(judged(&truth, 1, Needs::Strict), Err(Violation::OlderThanFleet));
        assert_eq!(judged(&truth, 1, Needs::Lagging), Err(Violation::Lags));
        tokio::time::advance(LAG_MAX).await;
        assert_eq!(judged(&truth, 1, Needs::Lagging), Err(Violation::OlderThanFleet));
        assert_eq!(truth.judge(3, truth.floor(1, 3, Needs::Everything), &at(2)), Ok(()));
    }

    #[tokio::test]
    async fn absence_must_have_been_true_since_the_floor() {
        let truth = Truth::new(4);
        assert_eq!(
            truth.judge_absent(3, truth.floor(0, 3, Needs::Lagging)),
            Ok(()),
            "version 0: before the first there was nothing, and nobody was told of more"
        );
        truth.told(0, 3, 1, true);
        let floor = truth.floor(0, 3, Needs::Lagging);
        assert_eq!(truth.judge_absent(3, floor), Err(Violation::OlderThanOwn));
        while !truth.change(3).is_multiple_of(DELETED_EVERY) {}
        assert_eq!(truth.judge_absent(3, floor), Ok(()));
    }

    #[tokio::test]
    async fn a_foreign_changed_or_invented_answer_is_found() {
        let truth = Truth::new(4);
        let floor = truth.floor(0, 3, Needs::Lagging);
        assert_eq!(truth.judge(2, floor, &at(1)), Err(Violation::Wrong));
        assert_eq!(truth.judge(3, floor, &at(2)), Err(Violation::Wrong), "nobody wrote that yet");
        let mut broken = at(1);
        broken.filler.replace_range(0..1, "x");
        assert_eq!(truth.judge(3, floor, &broken), Err(Violation::Wrong));
    }
}
