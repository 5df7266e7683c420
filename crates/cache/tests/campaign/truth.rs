//! What is true: a register of versions for each key, and what every reader has a right to.
//!
//! A change raises a key's version; then the cache is told; when the telling has returned, the version becomes the *floor*:
//! no read that begins later on that node may see less. For a strict usage the floor holds on every node.

use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

use serde::{Deserialize, Serialize};

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
        (version % DELETED_EVERY != 0).then_some(Self { key, version, filler })
    }
}

/// One key.
#[derive(Debug, Default)]
pub(crate) struct Cell {
    /// The newest version.
    version: AtomicU64,
    /// The newest version whose telling has returned, on each node.
    floors: [AtomicU64; NODES],
    /// One writer at a time: who writes last is last, as with a row of a database.
    pub(crate) writing: tokio::sync::Mutex<()>,
}

/// What a read that begins now has a right to.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Floor {
    own: u64,
    fleet: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Violation {
    /// Not the value of this key at any version that was ever written.
    Wrong,
    /// Older than what this node was told.
    OlderThanOwn,
    /// Older than what another node was told.
    OlderThanFleet,
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
    pub(crate) fn told(&self, node: usize, key: usize, version: u64) {
        self.cells[key].floors[node].fetch_max(version, Ordering::SeqCst);
    }

    pub(crate) fn version(&self, key: usize) -> u64 {
        self.cells[key].version.load(Ordering::SeqCst)
    }

    pub(crate) fn floor(&self, node: usize, key: usize) -> Floor {
        let floors = &self.cells[key].floors;
        Floor {
            own: floors[node].load(Ordering::SeqCst),
            fleet: floors.iter().map(|floor| floor.load(Ordering::SeqCst)).max().unwrap(),
        }
    }

    /// What is wrong with an answer that was served.
    pub(crate) fn judge(&self, key: usize, floor: Floor, answer: &Record) -> Result<(), Violation> {
        let is_true = Record::of(key, answer.version).as_ref() == Some(answer);
        if !is_true || answer.version > self.version(key) {
            Err(Violation::Wrong)
        } else if answer.version < floor.own {
            Err(Violation::OlderThanOwn)
        } else if answer.version < floor.fleet {
            Err(Violation::OlderThanFleet)
        } else {
            Ok(())
        }
    }

    /// The same for the answer that there is nothing: some version since the floor must have been a deletion.
    pub(crate) fn judge_absent(&self, key: usize, floor: Floor) -> Result<(), Violation> {
        let has_deletion =
            |from: u64| (from..=self.version(key)).any(|version| Record::of(key, version).is_none());
        match (has_deletion(floor.own), has_deletion(floor.fleet)) {
            (false, _) => Err(Violation::OlderThanOwn),
            (true, false) => Err(Violation::OlderThanFleet),
            (true, true) => Ok(()),
        }
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

    #[test]
    fn an_answer_below_the_floor_is_found() {
        let truth = Truth::new(4);
        let early = truth.floor(0, 3);
        let version = truth.change(3);
        truth.told(0, 3, version);
        assert_eq!(truth.judge(3, early, &at(1)), Ok(()), "the read began before the telling");
        assert_eq!(truth.judge(3, truth.floor(0, 3), &at(1)), Err(Violation::OlderThanOwn));
        assert_eq!(truth.judge(3, truth.floor(1, 3), &at(1)), Err(Violation::OlderThanFleet));
        assert_eq!(truth.judge(3, truth.floor(0, 3), &at(2)), Ok(()));
        assert_eq!(truth.judge_absent(3, truth.floor(0, 3)), Err(Violation::OlderThanOwn));
        while truth.change(3) % DELETED_EVERY != 0 {}
        assert_eq!(truth.judge_absent(3, truth.floor(0, 3)), Ok(()));
    }

    #[test]
    fn a_foreign_changed_or_invented_answer_is_found() {
        let truth = Truth::new(4);
        let floor = truth.floor(0, 3);
        assert_eq!(truth.judge(2, floor, &at(1)), Err(Violation::Wrong));
        assert_eq!(truth.judge(3, floor, &at(2)), Err(Violation::Wrong), "nobody wrote that yet");
        let mut broken = at(1);
        broken.filler.replace_range(0..1, "x");
        assert_eq!(truth.judge(3, floor, &broken), Err(Violation::Wrong));
    }
}
