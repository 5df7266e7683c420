//! How much is worked on at once. What is too much is refused quickly, so that the rest is done in time.
//!
//! A request takes a place at work, or stands in a queue for one. The queue has an end, and whoever stands in it waits only for a moment: less
//! when it has not been empty for a while, for then the server has more to do than it can, and waiting makes answers late without making more
//! of them (as in CoDel, RFC 8289). No kind of request takes all places: a flood of reads leaves some to writes, and the other way round.
//! Whoever looks after the server finds a place whatever it has to do.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use axum::extract::FromRequestParts;
use axum::http::Method;
use axum::http::request::Parts;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::Instant;

use crate::refusal::{Code, Refusal};
use crate::settings::Settings;
use crate::state::App;

/// Requests of those who look after the server at once; they take none of the other places.
const LOOKS_MAX: usize = 32;
/// A wait for a place that is longer says that the server has more to do than it can.
const QUEUE_TARGET: Duration = Duration::from_millis(5);
/// When waits were longer for so long, nobody waits for more than [`QUEUE_TARGET`].
const QUEUE_INTERVAL: Duration = Duration::from_millis(100);
/// However few places there are, so many may stand in the queue.
const QUEUE_MIN: usize = 16;

/// What kind of request it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) enum Kind {
    /// Health and figures.
    Look,
    /// Something is read.
    Read,
    /// Something is changed.
    Write,
    /// A worker says what became of its jobs.
    Work,
}

impl Kind {
    pub(crate) const ALL: [Self; 4] = [Self::Look, Self::Read, Self::Write, Self::Work];

    pub(super) fn of(method: &Method, route: Option<&str>) -> Self {
        match route {
            Some(route) if route == "/metrics" || route.starts_with("/health") => Self::Look,
            Some(route) if route.starts_with("/v1/workers/") => Self::Work,
            _ if matches!(*method, Method::GET | Method::HEAD | Method::OPTIONS) => Self::Read,
            _ => Self::Write,
        }
    }

    /// In labels of figures.
    pub(crate) const fn word(self) -> &'static str {
        match self {
            Self::Look => "look",
            Self::Read => "read",
            Self::Write => "write",
            Self::Work => "work",
        }
    }
}

/// How many of a kind may be worked on at once.
const fn share(kind: Kind, requests_max: usize) -> usize {
    match kind {
        Kind::Look => LOOKS_MAX,
        // A quarter is for the others.
        Kind::Read | Kind::Write | Kind::Work => requests_max - requests_max / 4,
    }
}

/// The places at work, and those for waiting.
#[derive(Debug)]
pub(crate) struct Admission {
    working: Arc<Semaphore>,
    of_kind: [Arc<Semaphore>; 4],
    waiting: Arc<Semaphore>,
    wait: Duration,
    queued: AtomicUsize,
    queued_max: usize,
    /// Since when waits are too long.
    late_since: Mutex<Option<Instant>>,
}

impl Admission {
    pub(crate) fn new(settings: &Settings) -> Self {
        let requests_max = settings.requests_max;
        Self {
            working: Arc::new(Semaphore::new(requests_max)),
            of_kind: Kind::ALL.map(|kind| Arc::new(Semaphore::new(share(kind, requests_max)))),
            waiting: Arc::new(Semaphore::new(settings.waits_max)),
            wait: settings.admission_wait,
            queued: AtomicUsize::new(0),
            queued_max: (requests_max / 2).max(QUEUE_MIN),
            late_since: Mutex::new(None),
        }
    }

    /// Refuses at once what would stand in a queue that is full, before anything is done for it.
    pub(super) fn check(&self, kind: Kind) -> Result<(), Refusal> {
        if kind != Kind::Look && self.queued_count() >= self.queued_max { Err(too_many()) } else { Ok(()) }
    }

    /// A place at work, or the refusal, soon.
    pub(super) async fn admit(&self, kind: Kind) -> Result<Turn, Refusal> {
        if let Some(turn) = self.try_admit(kind) {
            self.note_wait(Duration::ZERO, Instant::now());
            return Ok(turn);
        }
        self.check(kind)?;
        let began = Instant::now();
        let _queued = Queued::enter(&self.queued);
        let taking = async {
            let of_kind = Arc::clone(self.of_kind(kind)).acquire_owned().await.ok()?;
            let working = match kind {
                Kind::Look => None,
                _ => Some(Arc::clone(&self.working).acquire_owned().await.ok()?),
            };
            Some(Turn::new(of_kind, working))
        };
        let taken = tokio::time::timeout(self.patience(began), taking).await;
        self.note_wait(began.elapsed(), Instant::now());
        taken.ok().flatten().ok_or_else(too_many)
    }

    fn try_admit(&self, kind: Kind) -> Option<Turn> {
        let of_kind = Arc::clone(self.of_kind(kind)).try_acquire_owned().ok()?;
        let working = match kind {
            Kind::Look => None,
            _ => Some(Arc::clone(&self.working).try_acquire_owned().ok()?),
        };
        Some(Turn::new(of_kind, working))
    }

    fn of_kind(&self, kind: Kind) -> &Arc<Semaphore> {
        let [look, read, write, work] = &self.of_kind;
        match kind {
            Kind::Look => look,
            Kind::Read => read,
            Kind::Write => write,
            Kind::Work => work,
        }
    }

    /// How long whoever comes now waits for a place.
    fn patience(&self, now: Instant) -> Duration {
        // A panic elsewhere cannot leave an instant half changed.
        let late_since = *self.late_since.lock().unwrap_or_else(PoisonError::into_inner);
        let is_late = late_since.is_some_and(|since| now.duration_since(since) >= QUEUE_INTERVAL);
        if is_late { self.wait.min(QUEUE_TARGET) } else { self.wait }
    }

    fn note_wait(&self, waited: Duration, now: Instant) {
        let mut late_since = self.late_since.lock().unwrap_or_else(PoisonError::into_inner);
        *late_since = if waited < QUEUE_TARGET { None } else { Some(late_since.unwrap_or(now)) };
    }

    /// Places at work that are taken.
    pub(crate) fn working_count(&self, settings: &Settings) -> usize {
        settings.requests_max.saturating_sub(self.working.available_permits())
    }

    /// Places for waiting that are taken.
    pub(crate) fn waiting_count(&self, settings: &Settings) -> usize {
        settings.waits_max.saturating_sub(self.waiting.available_permits())
    }

    /// Requests that stand in the queue.
    pub(crate) fn queued_count(&self) -> usize {
        self.queued.load(Ordering::Relaxed)
    }
}

fn too_many() -> Refusal {
    overloaded("as many requests are being worked on as the server allows")
}

fn overloaded(detail: &str) -> Refusal {
    Refusal::new(Code::Overloaded, detail).remedy("try again later").retry_after(Duration::from_secs(1))
}

/// One that stands in the queue.
struct Queued<'a>(&'a AtomicUsize);

impl<'a> Queued<'a> {
    fn enter(count: &'a AtomicUsize) -> Self {
        count.fetch_add(1, Ordering::Relaxed);
        Self(count)
    }
}

impl Drop for Queued<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

type Places = (OwnedSemaphorePermit, Option<OwnedSemaphorePermit>);

/// A request's place at work.
#[derive(Debug, Clone)]
pub(crate) struct Turn(Arc<Mutex<Option<Places>>>);

impl Turn {
    fn new(of_kind: OwnedSemaphorePermit, working: Option<OwnedSemaphorePermit>) -> Self {
        Self(Arc::new(Mutex::new(Some((of_kind, working)))))
    }

    /// Changes the place at work for one where it can wait. What is left to do afterwards is small: it takes no new place.
    pub(crate) fn wait(&self, admission: &Admission) -> Result<OwnedSemaphorePermit, Refusal> {
        let place = Arc::clone(&admission.waiting)
            .try_acquire_owned()
            .map_err(|_| overloaded("as many requests wait as the server allows"))?;
        // A panic elsewhere cannot leave it half changed.
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = None;
        Ok(place)
    }
}

impl FromRequestParts<App> for Turn {
    type Rejection = Refusal;

    async fn from_request_parts(parts: &mut Parts, _: &App) -> Result<Self, Refusal> {
        parts.extensions.get::<Self>().cloned().ok_or_else(Refusal::internal)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn admission(requests_max: usize) -> Admission {
        Admission::new(&Settings { requests_max, ..Settings::default() })
    }

    #[test]
    fn kind_follows_from_route_and_method() {
        for (method, route, kind) in [
            (Method::GET, Some("/health/ready"), Kind::Look),
            (Method::GET, Some("/metrics"), Kind::Look),
            (Method::POST, Some("/v1/workers/{session}/call"), Kind::Work),
            (Method::POST, Some("/v1/workers"), Kind::Write),
            (Method::GET, Some("/v1/jobs"), Kind::Read),
            (Method::HEAD, None, Kind::Read),
            (Method::DELETE, None, Kind::Write),
        ] {
            assert_eq!(Kind::of(&method, route), kind, "{method} {route:?}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn no_kind_takes_all_places_and_looks_take_none_of_them() {
        let admission = admission(8);
        let mut reads = Vec::new();
        for _ in 0..6 {
            reads.push(admission.admit(Kind::Read).await.unwrap());
        }
        assert_eq!(admission.admit(Kind::Read).await.unwrap_err().code(), Code::Overloaded);
        let writes =
            [admission.admit(Kind::Write).await.unwrap(), admission.admit(Kind::Work).await.unwrap()];
        assert!(admission.admit(Kind::Write).await.is_err(), "now all are taken");
        let mut looks = Vec::new();
        for _ in 0..LOOKS_MAX {
            looks.push(admission.admit(Kind::Look).await.unwrap());
        }
        assert!(admission.admit(Kind::Look).await.is_err());
        drop((reads, writes));
        assert!(admission.admit(Kind::Read).await.is_ok());
    }

    #[tokio::test(start_paused = true)]
    async fn queue_has_an_end_and_who_does_not_fit_is_refused_at_once() {
        let admission = Arc::new(admission(1));
        let turn = admission.admit(Kind::Write).await.unwrap();
        let mut waiting = tokio::task::JoinSet::new();
        for _ in 0..QUEUE_MIN {
            let admission = Arc::clone(&admission);
            waiting.spawn(async move { admission.admit(Kind::Write).await.is_ok() });
        }
        tokio::task::yield_now().await;
        assert_eq!(admission.queued_count(), QUEUE_MIN);
        let asked = Instant::now();
        assert!(admission.check(Kind::Read).is_err() && admission.admit(Kind::Write).await.is_err());
        assert!(admission.check(Kind::Look).is_ok());
        assert_eq!(asked.elapsed(), Duration::ZERO);
        // The first in the queue has the place when it is free; with it the next one, and so on.
        drop(turn);
        assert!(waiting.join_all().await.into_iter().all(|admitted| admitted));
        assert_eq!(admission.queued_count(), 0, "nobody is counted who has gone");
    }

    #[tokio::test(start_paused = true)]
    async fn patience_shrinks_while_the_queue_stands_and_comes_back() {
        let admission = admission(1);
        let turn = admission.admit(Kind::Read).await.unwrap();
        let wait = async || {
            let began = Instant::now();
            assert!(admission.admit(Kind::Read).await.is_err());
            began.elapsed()
        };
        assert!(wait().await >= Duration::from_millis(20));
        tokio::time::advance(QUEUE_INTERVAL).await;
        assert!(wait().await < Duration::from_millis(10), "it has been late for a while");
        drop(turn);
        let turn = admission.admit(Kind::Read).await.unwrap();
        assert!(wait().await >= Duration::from_millis(20), "somebody found a place at once");
        drop(turn);
    }
}
