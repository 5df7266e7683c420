//! Where workers wait for jobs.
//!
//! Workers that can take the same jobs are of one *kind*. When a queue has jobs one worker of each kind that serves it is woken; one that took
//! as many as it could wakes the next. So five hundred idle workers do not all ask the store about one job, and looking without a hint is
//! done for a kind, not by each of its workers.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use recache_store::NewRemoteWorker;
use tokio::sync::Notify;
use tokio::time::Instant;

#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct KindKey {
    handlers: Vec<String>,
    queues: Vec<String>,
    namespaces: Option<Vec<String>>,
}

/// Workers that can take the same jobs.
#[derive(Debug)]
pub(super) struct Kind {
    pub(super) handlers: Vec<String>,
    pub(super) queues: Vec<String>,
    /// Wakes the one that has waited longest; without one, the next that comes to wait.
    work: Notify,
    looked: Mutex<Instant>,
    /// Something is due then that was put off here.
    due: Mutex<Option<Instant>>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Kind {
    /// Waits to be woken.
    pub(super) async fn woken(&self) {
        self.work.notified().await;
    }

    /// There is more to claim than one of them could take.
    pub(super) fn wake_one(&self) {
        self.work.notify_one();
    }

    /// One of them looks now.
    pub(super) fn look(&self) {
        let now = Instant::now();
        *lock(&self.looked) = now;
        let mut due = lock(&self.due);
        if due.is_some_and(|due| due <= now) {
            *due = None;
        }
    }

    /// When one of them is to look again, if nothing wakes any.
    pub(super) fn next_look(&self, poll: Duration) -> Instant {
        let poll = *lock(&self.looked) + poll;
        lock(&self.due).map_or(poll, |due| due.min(poll))
    }

    pub(super) fn look_at(&self, instant: Instant) {
        let mut due = lock(&self.due);
        *due = Some(due.map_or(instant, |due| due.min(instant)));
    }
}

#[derive(Debug, Default)]
pub(super) struct Lobby {
    kinds: Mutex<BTreeMap<KindKey, Arc<Kind>>>,
}

impl Lobby {
    pub(super) fn kind(&self, worker: &NewRemoteWorker) -> Arc<Kind> {
        let sorted = |mut names: Vec<String>| {
            names.sort_unstable();
            names.dedup();
            names
        };
        let key = KindKey {
            handlers: sorted(worker.handlers.iter().map(|handler| handler.name.clone()).collect()),
            queues: sorted(worker.queues.clone()),
            namespaces: worker.namespaces.clone().map(sorted),
        };
        let kind = Kind {
            handlers: key.handlers.clone(),
            queues: key.queues.clone(),
            work: Notify::new(),
            looked: Mutex::new(Instant::now()),
            due: Mutex::new(None),
        };
        Arc::clone(lock(&self.kinds).entry(key).or_insert_with(|| Arc::new(kind)))
    }

    /// Kinds of which nobody is left.
    pub(super) fn forget_the_empty(&self) {
        lock(&self.kinds).retain(|_, kind| Arc::strong_count(kind) > 1);
    }

    pub(super) fn queued(&self, queue: &str) {
        for kind in lock(&self.kinds).values() {
            if kind.queues.iter().any(|one| one == queue) {
                kind.wake_one();
            }
        }
    }

    pub(super) fn wake_all(&self) {
        lock(&self.kinds).values().for_each(|kind| kind.wake_one());
    }

    /// What was put off is due then.
    pub(super) fn look_at(&self, instant: Instant) {
        lock(&self.kinds).values().for_each(|kind| kind.look_at(instant));
    }
}
