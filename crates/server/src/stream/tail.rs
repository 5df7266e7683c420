//! The one reader of the store's stream.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use recache_model::event::state_changes_of;
use recache_store::{Error, Signal, Store};
use tokio::sync::broadcast::error::RecvError;
use tokio::sync::watch;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::ring::{Ring, Told};

/// Without a hint the store is asked this often.
const POLL: Duration = Duration::from_millis(250);
/// After a hint others may follow: they are waited for this long.
const GATHER: Duration = Duration::from_millis(25);
/// After the store failed it is left alone this long.
const AFTER_FAILURE: Duration = Duration::from_secs(1);
/// Events that are read at once.
pub(super) const PAGE_ROWS: u32 = 200;
/// Events that are handed on at once.
const ROUTED_ROWS: u32 = 500;
/// Changes of state are written for this long after the last stream that wants them: so long may a client be away and miss nothing.
const LINGER: Duration = Duration::from_mins(10);
/// How often the store is told so.
const RENEW_EVERY: Duration = Duration::from_mins(1);

/// Reads while somebody listens.
#[derive(Debug)]
pub(super) struct Tail {
    store: Arc<dyn Store>,
    name: String,
    stop: CancellationToken,
    readers: AtomicUsize,
    /// `None`: it does not run. Held while it begins and ends.
    running: tokio::sync::Mutex<bool>,
    ring: Mutex<Ring>,
    moved: watch::Sender<i64>,
    /// Changes of state that are written for us, and when somebody last wanted them.
    wanted: Mutex<BTreeMap<&'static str, Instant>>,
    /// So that of two who begin to listen none takes away what the other one asked for.
    listening: tokio::sync::Mutex<Option<Instant>>,
}

/// Keeps the tail going until it is dropped.
#[derive(Debug)]
pub(super) struct Reader(Arc<Tail>);

impl Drop for Reader {
    fn drop(&mut self) {
        self.0.readers.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Tail {
    pub(super) fn new(store: Arc<dyn Store>, name: String, stop: CancellationToken) -> Self {
        Self {
            store,
            name,
            stop,
            readers: AtomicUsize::new(0),
            running: tokio::sync::Mutex::new(false),
            ring: Mutex::new(Ring::new(0)),
            moved: watch::Sender::new(0),
            wanted: Mutex::default(),
            listening: tokio::sync::Mutex::new(None),
        }
    }

    pub(super) fn store(&self) -> &dyn Store {
        &*self.store
    }

    fn ring(&self) -> std::sync::MutexGuard<'_, Ring> {
        // A panic elsewhere cannot leave it half changed: it is changed by one call.
        self.ring.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// See [`Ring::after`].
    pub(super) fn after(&self, place: i64, count_max: usize) -> Option<(Vec<Arc<Told>>, i64)> {
        self.ring().after(place, count_max)
    }

    pub(super) fn begins_after(&self) -> i64 {
        self.ring().begins_after()
    }

    /// Told whenever there is more.
    pub(super) fn moved(&self) -> watch::Receiver<i64> {
        self.moved.subscribe()
    }

    /// Begins to read, and has the changes of state written that these types mean. What is committed after this is read.
    pub(super) async fn join(self: &Arc<Self>, types: &[String]) -> Result<Reader, Error> {
        self.want(types).await?;
        let mut running = self.running.lock().await;
        if !*running {
            let extent = self.store.event_stream().stream_extent(types.to_vec()).await?;
            *self.ring() = Ring::new(extent.last);
            *running = true;
            tokio::spawn(Arc::clone(self).run());
        }
        self.readers.fetch_add(1, Ordering::Relaxed);
        Ok(Reader(Arc::clone(self)))
    }

    /// Notes that somebody still wants these.
    pub(super) fn touch(&self, types: &[String]) {
        let now = Instant::now();
        let mut wanted = self.wanted.lock().unwrap_or_else(PoisonError::into_inner);
        for name in state_changes_of(types.iter().map(String::as_str)) {
            wanted.insert(name, now);
        }
    }

    async fn want(&self, types: &[String]) -> Result<(), Error> {
        let new = state_changes_of(types.iter().map(String::as_str));
        if new.is_empty() {
            return Ok(());
        }
        let mut listening = self.listening.lock().await;
        let is_fresh = listening.is_some_and(|at| at.elapsed() < RENEW_EVERY);
        let is_known = {
            let wanted = self.wanted.lock().unwrap_or_else(PoisonError::into_inner);
            new.iter().all(|name| wanted.contains_key(name))
        };
        self.touch(types);
        if is_fresh && is_known {
            return Ok(());
        }
        let listened = self.listen().await;
        *listening = listened.is_ok().then(Instant::now);
        listened
    }

    /// Says to the store what is wanted now.
    async fn listen(&self) -> Result<(), Error> {
        let types: Vec<String> = {
            let mut wanted = self.wanted.lock().unwrap_or_else(PoisonError::into_inner);
            wanted.retain(|_, at| at.elapsed() < LINGER);
            wanted.keys().map(|&name| name.to_owned()).collect()
        };
        if types.is_empty() {
            return Ok(());
        }
        self.store.event_stream().stream_listen(&self.name, types, LINGER).await
    }

    async fn renew(&self) {
        let mut listening = self.listening.lock().await;
        if listening.is_some_and(|at| at.elapsed() < RENEW_EVERY) {
            return;
        }
        match self.listen().await {
            Ok(()) => *listening = Some(Instant::now()),
            // Tried again soon; it is still good for minutes.
            Err(error) => tracing::warn!(%error, "it is not renewed that changes of state are written"),
        }
    }

    async fn run(self: Arc<Self>) {
        let mut hints = self.store.subscribe();
        let mut has_failed = false;
        loop {
            let wait = match self.turn().await {
                Ok(()) => {
                    has_failed = false;
                    POLL
                }
                Err(error) => {
                    if !std::mem::replace(&mut has_failed, true) {
                        tracing::warn!(%error, "streams of events wait for the store");
                    }
                    AFTER_FAILURE
                }
            };
            self.renew().await;
            tokio::select! {
                () = self.stop.cancelled() => return,
                () = tokio::time::sleep(wait) => {}
                () = hint(&mut hints), if !has_failed => tokio::time::sleep(GATHER).await,
            }
            let mut running = self.running.lock().await;
            if self.readers.load(Ordering::Relaxed) == 0 {
                *running = false;
                return;
            }
        }
    }

    /// Hands on what is new, whoever wrote it, and reads it.
    async fn turn(&self) -> Result<(), Error> {
        while self.store.events().events_route(ROUTED_ROWS).await?.events == u64::from(ROUTED_ROWS) {}
        loop {
            let after = self.ring().through();
            let page = self.store.event_stream().stream_read(after, PAGE_ROWS).await?;
            let is_last = u32::try_from(page.len()).unwrap_or(u32::MAX) < PAGE_ROWS;
            if let Some(last) = page.last().map(|placed| placed.place) {
                let told: Vec<_> = page.into_iter().map(|placed| Arc::new(Told::new(placed))).collect();
                let mut ring = self.ring();
                for told in told {
                    ring.push(told);
                }
                drop(ring);
                self.moved.send_replace(last);
            }
            if is_last {
                return Ok(());
            }
        }
    }
}

/// Ends when something may have happened.
async fn hint(hints: &mut tokio::sync::broadcast::Receiver<Signal>) {
    loop {
        match hints.recv().await {
            Ok(Signal::EventsWritten) | Err(RecvError::Lagged(_)) => return,
            Ok(_) => {}
            // The store is closed; polling finds out.
            Err(RecvError::Closed) => std::future::pending().await,
        }
    }
}
