//! Single flight: who loads a key now, who waits for it, and whether the result may still be stored.
//!
//! A *flight* is one running load, or one running write. Others join the newest flight of a key as long as nothing has
//! *refused* it. Whatever makes a flight's result outdated (an invalidation of the key, its space or all; a set; a
//! stricter reader) refuses it: its present waiters are still served, its result is not stored, and whoever comes later
//! starts a new one.
//!
//! A flight whose result is just being stored cannot be refused any more. Who comes to invalidate waits until that is
//! over and removes the entry then; see [`Flights::refuse`].
//!
//! The leader runs the load inside its own call, not in a spawned task: a loader may borrow, and work that nobody waits
//! for any more ends. When the leader is dropped or panics, its [`Lead`] says so on the way out, and one of the
//! followers, each of which has a loader of its own, takes over.
//!
//! Memory: one entry for each load or write that runs at this moment, and the hashes of the last [`RECENT_MAX`] landings.

use std::any::Any;
use std::collections::{HashMap, VecDeque};
use std::hash::BuildHasher;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::timeout;

use crate::key::Key;

/// What a load came to, typed again by those who wait for it.
pub(super) type Outcome = Arc<dyn Any + Send + Sync>;

/// Landings that are remembered, so that who looked into the cache just before one looks again.
const RECENT_MAX: usize = 256;

#[derive(Debug, Default)]
pub(super) struct Flights {
    table: Mutex<Table>,
    /// Written under the table's lock, read without it.
    landed: AtomicU64,
}

#[derive(Debug, Default)]
struct Table {
    running: HashMap<Key, Vec<Arc<Flight>>>,
    /// Hashes of the keys that landed last, the newest in front.
    recent: VecDeque<u64>,
}

#[derive(Debug)]
pub(super) struct Flight(watch::Sender<State>);

#[derive(Default)]
struct State {
    outcome: Option<Outcome>,
    is_write: bool,
    is_refused: bool,
    fill: Fill,
    is_over: bool,
}

/// How far the storing of the result is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) enum Fill {
    #[default]
    NotBegun,
    Running,
    Stored,
    /// Given up half way: the entry may be there or not.
    Unknown,
}

pub(super) enum Join<'a> {
    /// This caller loads.
    Lead(Lead<'a>),
    /// Another one does.
    Follow(Arc<Flight>),
    /// A flight of this key landed since this caller looked into the cache: its result may be there by now.
    LookAgain,
}

impl Flights {
    /// How many flights have landed; read it before looking into the cache.
    pub(super) fn landed(&self) -> u64 {
        self.landed.load(Ordering::SeqCst)
    }

    /// Joins the key's load or starts one. With `landed_seen` it starts none when a flight of the key landed since.
    pub(super) fn join<'a>(&'a self, key: &'a Key, landed_seen: Option<u64>) -> Join<'a> {
        let mut table = self.lock();
        let flights = table.running.get(key).map(Vec::as_slice).unwrap_or_default();
        if let Some(flight) = flights.iter().rev().find(|flight| flight.is_open()) {
            return Join::Follow(Arc::clone(flight));
        }
        if landed_seen.is_some_and(|seen| table.may_have_landed(key, self.landed().saturating_sub(seen))) {
            return Join::LookAgain;
        }
        Join::Lead(self.start(&mut table, key, false))
    }

    /// Whether somebody in this process loads the key, and may still be joined.
    pub(super) fn is_loading(&self, key: &Key) -> bool {
        self.lock().running.get(key).is_some_and(|flights| flights.iter().any(|flight| flight.is_open()))
    }

    /// Refuses the key's flights and starts a load that nobody before it is part of.
    pub(super) fn lead_anew<'a>(&'a self, key: &'a Key) -> Lead<'a> {
        let mut table = self.lock();
        table.refuse(key);
        self.start(&mut table, key, false)
    }

    /// Refuses the key's flights and starts a write, which nobody joins. Also returned: those whose result is being
    /// stored, to be waited for with [`Flight::fill_over`] before the write is carried out.
    pub(super) fn write<'a>(&'a self, key: &'a Key) -> (Lead<'a>, Vec<Arc<Flight>>) {
        let mut table = self.lock();
        let storing = table.refuse(key);
        (self.start(&mut table, key, true), storing)
    }

    /// Refuses the key's flights. Returned: those whose result is being stored, to be waited for with
    /// [`Flight::fill_over`] before the entry is removed.
    pub(super) fn refuse(&self, key: &Key) -> Vec<Arc<Flight>> {
        self.lock().refuse(key)
    }

    /// Refuses every flight of the keys that `concerns`. Those whose result is being stored are left to finish: the
    /// caller has made older entries of these keys unreachable.
    pub(super) fn refuse_where(&self, concerns: impl Fn(&Key) -> bool) {
        for (key, flights) in &self.lock().running {
            if concerns(key) {
                refuse_all(flights);
            }
        }
    }

    fn start<'a>(&'a self, table: &mut Table, key: &'a Key, is_write: bool) -> Lead<'a> {
        let flight = Arc::new(Flight(watch::Sender::new(State { is_write, ..State::default() })));
        table.running.entry(key.clone()).or_default().push(Arc::clone(&flight));
        Lead { flights: self, key, flight }
    }

    fn remove(&self, key: &Key, flight: &Arc<Flight>) {
        let mut table = self.lock();
        if table.remove(key, flight) {
            self.landed.fetch_add(1, Ordering::SeqCst);
        }
    }

    /// No panic can happen while it is held, and if one did the table would still be whole.
    fn lock(&self) -> MutexGuard<'_, Table> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }

    #[cfg(test)]
    fn running_count(&self) -> usize {
        self.lock().running.len()
    }
}

impl Table {
    fn refuse(&self, key: &Key) -> Vec<Arc<Flight>> {
        self.running.get(key).map(|flights| refuse_all(flights)).unwrap_or_default()
    }

    /// Whether a flight of `key` was among the last `landings`; yes when that is too long ago to know.
    fn may_have_landed(&self, key: &Key, landings: u64) -> bool {
        let landings = usize::try_from(landings).unwrap_or(usize::MAX);
        let hash = self.running.hasher().hash_one(key);
        landings > RECENT_MAX || self.recent.iter().take(landings).any(|landed| *landed == hash)
    }

    fn remove(&mut self, key: &Key, flight: &Arc<Flight>) -> bool {
        let Some(flights) = self.running.get_mut(key) else {
            return false;
        };
        let before = flights.len();
        flights.retain(|other| !Arc::ptr_eq(other, flight));
        let is_removed = flights.len() < before;
        if flights.is_empty() {
            self.running.remove(key);
        }
        if is_removed {
            self.recent.truncate(RECENT_MAX - 1);
            self.recent.push_front(self.running.hasher().hash_one(key));
        }
        is_removed
    }
}

fn refuse_all(flights: &[Arc<Flight>]) -> Vec<Arc<Flight>> {
    flights.iter().filter(|flight| flight.refuse() == Fill::Running).cloned().collect()
}

impl Flight {
    /// Nobody may join any more, and the result will not be stored unless that has already begun.
    pub(super) fn refuse(&self) -> Fill {
        let mut fill = Fill::NotBegun;
        self.0.send_if_modified(|state| {
            state.is_refused = true;
            fill = state.fill;
            false
        });
        fill
    }

    /// Waits until the storing of the result is over, one way or the other.
    pub(super) async fn fill_over(&self) -> Fill {
        let mut states = self.0.subscribe();
        match states.wait_for(|state| state.fill != Fill::Running).await {
            Ok(state) => state.fill,
            Err(_) => Fill::Unknown,
        }
    }

    /// Waits for the load's outcome; `None` when the leader went away without one, or after `follow_for`.
    pub(super) async fn outcome(&self, follow_for: Duration) -> Option<Outcome> {
        let mut states = self.0.subscribe();
        let settled = states.wait_for(|state| state.outcome.is_some() || state.is_over);
        if let Ok(state) = timeout(follow_for, settled).await {
            return state.ok().and_then(|state| state.outcome.clone());
        }
        self.refuse();
        None
    }

    fn is_open(&self) -> bool {
        let state = self.0.borrow();
        !state.is_write && !state.is_refused && !state.is_over
    }
}

impl std::fmt::Debug for State {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("State")
            .field("has_outcome", &self.outcome.is_some())
            .field("is_write", &self.is_write)
            .field("is_refused", &self.is_refused)
            .field("fill", &self.fill)
            .field("is_over", &self.is_over)
            .finish()
    }
}

/// The right and the duty to end a flight. Dropping it, for whatever reason, ends the flight.
#[derive(Debug)]
pub(super) struct Lead<'a> {
    flights: &'a Flights,
    key: &'a Key,
    flight: Arc<Flight>,
}

impl Lead<'_> {
    /// Gives the outcome to the waiters and to those who still come while it is being stored.
    pub(super) fn publish(&self, outcome: Outcome) {
        self.flight.0.send_modify(|state| state.outcome = Some(outcome));
    }

    /// Gives the outcome to the present waiters only: who comes later starts anew.
    pub(super) fn publish_to_present(&self, outcome: Outcome) {
        self.flights.remove(self.key, &self.flight);
        self.publish(outcome);
    }

    /// Whether the result may be stored. From here on refusals wait for [`end_fill`](Self::end_fill).
    pub(super) fn begin_fill(&self) -> bool {
        let mut may_fill = false;
        self.flight.0.send_if_modified(|state| {
            may_fill = !state.is_refused;
            if may_fill {
                state.fill = Fill::Running;
            }
            false
        });
        may_fill
    }

    /// The result is stored, or nobody knows.
    pub(super) fn end_fill(&self, fill: Fill) {
        self.flight.0.send_modify(|state| {
            state.fill = fill;
        });
    }
}

impl Drop for Lead<'_> {
    /// First out of the table, then the word to the followers: else a follower could find the dead flight again.
    fn drop(&mut self) {
        self.flights.remove(self.key, &self.flight);
        self.flight.0.send_modify(|state| {
            if state.fill == Fill::Running {
                state.fill = Fill::Unknown;
            }
            state.is_over = true;
        });
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt;

    use super::*;
    use crate::key::KeyPrefix;

    fn key() -> Key {
        KeyPrefix::new("p").space("s").key(["k"])
    }

    #[test]
    fn nothing_stays_behind() {
        let (flights, key) = (Flights::default(), key());
        let Join::Lead(first) = flights.join(&key, None) else { panic!("nobody else is there") };
        assert!(matches!(flights.join(&key, None), Join::Follow(_)));
        let (second, storing) = flights.write(&key);
        assert!(storing.is_empty());
        drop(first);
        assert_eq!(flights.running_count(), 1);
        drop(second);
        assert_eq!(flights.running_count(), 0);
        assert_eq!(flights.landed(), 2);
    }

    #[test]
    fn refused_flight_is_not_joined_and_does_not_fill() {
        let (flights, key) = (Flights::default(), key());
        let Join::Lead(old) = flights.join(&key, None) else { panic!("nobody else is there") };
        assert!(flights.refuse(&key).is_empty());
        assert!(matches!(flights.join(&key, None), Join::Lead(_)));
        assert!(!old.begin_fill());
    }

    #[test]
    fn every_flight_that_is_storing_is_reported_to_every_refusal() {
        let (flights, key) = (Flights::default(), key());
        let Join::Lead(old) = flights.join(&key, None) else { panic!("nobody else is there") };
        assert!(old.begin_fill());
        let (new, storing) = flights.write(&key);
        assert_eq!(storing.len(), 1);
        assert!(new.begin_fill());
        assert_eq!(flights.refuse(&key).len(), 2);
        old.end_fill(Fill::Stored);
        assert_eq!(flights.refuse(&key).len(), 1);
    }

    #[test]
    fn a_write_is_not_joined() {
        let (flights, key) = (Flights::default(), key());
        let (write, _) = flights.write(&key);
        assert!(matches!(flights.join(&key, None), Join::Lead(_)));
        assert!(write.begin_fill());
    }

    #[test]
    fn a_landing_of_the_same_key_since_the_look_is_noticed() {
        let (flights, key) = (Flights::default(), key());
        let other = KeyPrefix::new("p").space("s").key(["other"]);
        let seen = flights.landed();
        drop(flights.join(&other, None));
        assert!(matches!(flights.join(&key, Some(seen)), Join::Lead(_)));
        assert!(matches!(flights.join(&key, Some(seen)), Join::LookAgain));
        assert!(matches!(flights.join(&key, Some(flights.landed())), Join::Lead(_)));
    }

    #[test]
    fn more_landings_than_are_remembered_count_as_one_of_the_same_key() {
        let (flights, key) = (Flights::default(), key());
        let other = KeyPrefix::new("p").space("s").key(["other"]);
        let seen = flights.landed();
        for _ in 0..RECENT_MAX {
            drop(flights.join(&other, None));
        }
        assert!(matches!(flights.join(&key, Some(seen + 1)), Join::Lead(_)));
        drop(flights.join(&other, None));
        assert!(matches!(flights.join(&key, Some(seen)), Join::LookAgain));
        assert!(flights.lock().recent.len() <= RECENT_MAX);
    }

    #[test]
    fn outcome_for_those_present_is_not_joined_by_others() {
        let (flights, key) = (Flights::default(), key());
        let Join::Lead(lead) = flights.join(&key, None) else { panic!("nobody else is there") };
        let Join::Follow(present) = flights.join(&key, None) else { panic!("somebody loads") };
        lead.publish_to_present(Arc::new("error"));
        assert!(matches!(flights.join(&key, None), Join::Lead(_)));
        assert!(present.0.borrow().outcome.is_some());
    }

    #[tokio::test]
    async fn flight_dropped_while_storing_is_unknown() {
        let (flights, key) = (Flights::default(), key());
        let Join::Lead(lead) = flights.join(&key, None) else { panic!("nobody else is there") };
        assert!(lead.begin_fill());
        let storing = flights.refuse(&key);
        drop(lead);
        assert_eq!(storing[0].fill_over().now_or_never(), Some(Fill::Unknown));
        assert!(
            storing[0]
                .outcome(Duration::from_secs(1))
                .now_or_never()
                .is_some_and(|outcome| outcome.is_none())
        );
    }
}
