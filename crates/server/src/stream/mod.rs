//! Events as they happen, for many clients at once.
//!
//! One task of the process, the *tail*, reads the store's stream of events and keeps the newest in a *ring*, written out once for
//! all. Each client has a *feed*: it takes from the ring what its filter lets through. One that resumes further back than the ring
//! goes reads the store itself until it has caught up, a few of those at a time. One that cannot keep up is ended, with a word, and
//! resumes where it was; so a slow client costs the process a few buffers and nobody else anything.

mod feed;
mod filter;
mod frames;
mod ring;
mod tail;

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use recache_store::{Store, StreamExtent};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use crate::refusal::{Code, Refusal};
use crate::settings::Settings;
use tail::Tail;

pub(crate) use feed::{Feed, Opening};
pub(crate) use filter::StreamFilter;

/// Clients that read the store by themselves at once, because the ring does not go back far enough for them.
const REPLAYS_MAX: usize = 4;
/// Whoever finds no room is told to come back after this long.
const COME_BACK_AFTER: Duration = Duration::from_secs(5);

/// All streams of this process.
#[derive(Debug)]
pub(crate) struct Streams {
    tail: Arc<Tail>,
    places: Arc<Semaphore>,
    replays: Semaphore,
    per_caller_max: Option<usize>,
    of_callers: Arc<Mutex<HashMap<Arc<str>, usize>>>,
}

impl Streams {
    /// Ends with `stop`. Callers are told apart only where they are known.
    pub(crate) fn new(
        store: &Arc<dyn Store>,
        settings: &Settings,
        knows_callers: bool,
        stop: &CancellationToken,
    ) -> Self {
        // In the store each process has its own name, so that none forgets what another one listens for.
        let name = format!("server-{}", Uuid::now_v7());
        Self {
            tail: Arc::new(Tail::new(Arc::clone(store), name, stop.clone())),
            places: Arc::new(Semaphore::new(settings.streams_max)),
            replays: Semaphore::new(REPLAYS_MAX),
            per_caller_max: knows_callers.then_some(settings.streams_per_caller_max),
            of_callers: Arc::default(),
        }
    }

    /// A place for one more stream.
    pub(crate) fn place(&self, caller: &Arc<str>) -> Result<Place, Refusal> {
        let Ok(permit) = Arc::clone(&self.places).try_acquire_owned() else {
            return Err(Refusal::new(Code::Overloaded, "as many streams are open as the server allows")
                .remedy("close others, or raise `server.streams_max`")
                .retry_after(COME_BACK_AFTER));
        };
        // A panic elsewhere cannot leave a map of counts half changed.
        let mut of_callers = self.of_callers.lock().unwrap_or_else(PoisonError::into_inner);
        let count = of_callers.get(caller).copied().unwrap_or(0);
        if self.per_caller_max.is_some_and(|max| count >= max) {
            let detail = format!("{count} streams of `{caller}` are open, as many as a caller may have");
            return Err(Refusal::new(Code::TooManyRequests, detail)
                .remedy("read several things in one stream, or raise `server.streams_per_caller_max`")
                .retry_after(COME_BACK_AFTER));
        }
        of_callers.insert(Arc::clone(caller), count + 1);
        let of_callers = Arc::clone(&self.of_callers);
        Ok(Place { _permit: permit, caller: Arc::clone(caller), of_callers })
    }

    /// What the store says of its stream, to whoever wants these types.
    async fn extent(&self, types: &[String]) -> Result<StreamExtent, recache_store::Error> {
        self.tail.store().event_stream().stream_extent(types.to_vec()).await
    }
}

/// The place of a stream, until it is dropped.
#[derive(Debug)]
pub(crate) struct Place {
    _permit: OwnedSemaphorePermit,
    caller: Arc<str>,
    of_callers: Arc<Mutex<HashMap<Arc<str>, usize>>>,
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut of_callers = self.of_callers.lock().unwrap_or_else(PoisonError::into_inner);
        match of_callers.get_mut(&self.caller) {
            Some(count) if *count > 1 => *count -= 1,
            _ => {
                of_callers.remove(&self.caller);
            }
        }
    }
}
