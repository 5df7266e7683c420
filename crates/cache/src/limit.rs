//! The time limit of calls, which costs little when they end in time.
//!
//! A timer of tokio's for each call is begun and given up again without ever ending; left out, a read of 30 us over loopback took 0.3
//! to 0.6 us less (Redis). So calls that wait have a place in a list here, and one task of each runtime looks at the list every now and then
//! for as long as it makes calls, often enough that it sees every call before its time is over, and is there when it is.

use std::mem;
use std::pin::pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Poll, Waker};
use std::time::Duration;

use tokio::runtime::{Handle, Id};
use tokio::time::{Instant, sleep, sleep_until};

/// How often one limit is looked for within its time.
const LOOKS: u32 = 8;
/// Not more often than that: tokio's timers know nothing finer.
const LOOK_EVERY_MIN: Duration = Duration::from_millis(1);

/// What `call` gives; `None` when it has to be waited for and nothing comes within the limit from then on. `since` tells when
/// that is, and is asked once, when it has to be.
///
/// A call that is answered at its first poll, as those of an in-process provider are, costs nothing and needs no runtime.
/// Every other one is polled as often as it is woken: a first look with a timeout around it would poll it once more, and
/// through two layers of calls that is four polls of a read where two do (Redis, `callgrind`).
pub(crate) async fn within<F: Future>(
    limit: Option<&Limit>,
    since: impl FnOnce() -> Instant,
    call: F,
) -> Option<F::Output> {
    let mut call = pin!(call);
    let mut since = Some(since);
    let mut place: Option<Place<'_>> = None;
    std::future::poll_fn(|context| {
        if let Poll::Ready(answer) = call.as_mut().poll(context) {
            return Poll::Ready(Some(answer));
        }
        let Some(limit) = limit else { return Poll::Pending };
        let goes_on = match (&place, since.take()) {
            (None, Some(since)) => place.insert(Place::of(limit, since() + limit.time)).stay(context.waker()),
            (Some(place), _) => Instant::now() < place.end && place.stay(context.waker()),
            (None, None) => false,
        };
        if goes_on { Poll::Pending } else { Poll::Ready(None) }
    })
    .await
}

/// How long each of some calls may take. Clones watch over their calls together.
#[derive(Debug, Clone)]
pub(crate) struct Limit {
    time: Duration,
    waiting: Arc<Mutex<Waiting>>,
}

/// The calls that wait.
#[derive(Debug, Default)]
struct Waiting {
    /// Until when each waits, and who is to be told then; nothing once that is done, or the place is free.
    places: Vec<Option<(Instant, Waker)>>,
    free: Vec<usize>,
    /// In which runtimes there is a task that looks at them, and whether a call came there since it looked last. A runtime
    /// that nobody drives for a while makes no calls either, and holds up none of another's.
    watched: Vec<(Id, bool)>,
}

impl Limit {
    pub(crate) fn new(time: Duration) -> Self {
        Self { time, waiting: Arc::default() }
    }

    pub(crate) fn time(&self) -> Duration {
        self.time
    }

    /// A task that looks at those who wait, in the runtime that is to run it.
    fn watch(&self, runtime: &Handle) {
        let watch = Watch { waiting: Arc::clone(&self.waiting), runtime: runtime.id() };
        let every = (self.time / LOOKS).max(LOOK_EVERY_MIN);
        runtime.spawn(async move {
            loop {
                match watch.look(Instant::now()) {
                    Look::Again(None) => sleep(every).await,
                    Look::Again(Some(first)) => sleep_until(first.min(Instant::now() + every)).await,
                    Look::Over => break,
                }
            }
        });
    }
}

impl Waiting {
    /// Takes note of a call in `runtime`; answers whether somebody looks there.
    fn has_come(&mut self, runtime: Id) -> bool {
        let watched = self.watched.iter_mut().find(|(watched, _)| *watched == runtime);
        let is_watched = watched.map(|(_, came)| *came = true).is_some();
        if !is_watched {
            self.watched.push((runtime, true));
        }
        is_watched
    }
}

fn locked(waiting: &Mutex<Waiting>) -> MutexGuard<'_, Waiting> {
    waiting.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Where a call waits; left when this is dropped.
struct Place<'a> {
    limit: &'a Limit,
    at: usize,
    end: Instant,
}

impl<'a> Place<'a> {
    fn of(limit: &'a Limit, end: Instant) -> Self {
        let mut waiting = locked(&limit.waiting);
        let at = waiting.free.pop().unwrap_or_else(|| {
            waiting.places.push(None);
            waiting.places.len() - 1
        });
        Self { limit, at, end }
    }

    /// From now on `waker` is to be told, in the runtime that this is called in; false outside of one, where nobody looks.
    fn stay(&self, waker: &Waker) -> bool {
        let Ok(runtime) = Handle::try_current() else { return false };
        let waker = waker.clone();
        let mut waiting = locked(&self.limit.waiting);
        let is_watched = waiting.has_come(runtime.id());
        let before = waiting.places.get_mut(self.at).and_then(|place| place.replace((self.end, waker)));
        // Dropping a waker may drop a call, and that takes the lock.
        drop(waiting);
        drop(before);
        if !is_watched {
            self.limit.watch(&runtime);
        }
        true
    }
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        let mut waiting = locked(&self.limit.waiting);
        let left = waiting.places.get_mut(self.at).and_then(Option::take);
        waiting.free.push(self.at);
        drop(waiting);
        drop(left);
    }
}

/// Held by the task that looks.
struct Watch {
    waiting: Arc<Mutex<Waiting>>,
    runtime: Id,
}

/// When to look again.
enum Look {
    /// When the first who waits has to be told, at the latest.
    Again(Option<Instant>),
    /// No call came here since the last look, and none waits.
    Over,
}

impl Watch {
    /// Tells those whose time is over.
    fn look(&self, now: Instant) -> Look {
        let mut waiting = locked(&self.waiting);
        let here = waiting.watched.iter_mut().find(|(watched, _)| *watched == self.runtime);
        let came = here.is_some_and(|(_, came)| mem::take(came));
        let goes_on = came || waiting.free.len() < waiting.places.len();
        let is_over = |place: &mut Option<(Instant, Waker)>| place.take_if(|(end, _)| *end <= now);
        let over: Vec<_> = waiting.places.iter_mut().filter_map(is_over).collect();
        let first = waiting.places.iter().flatten().map(|(end, _)| *end).min();
        drop(waiting);
        for (_, waker) in over {
            waker.wake();
        }
        if goes_on { Look::Again(first) } else { Look::Over }
    }
}

impl Drop for Watch {
    /// Whoever waits, or came after the last look, finds somebody else who looks.
    fn drop(&mut self) {
        let mut waiting = locked(&self.waiting);
        waiting.watched.retain(|(watched, _)| *watched != self.runtime);
        let left: Vec<_> = waiting.places.iter_mut().filter_map(Option::take).collect();
        drop(waiting);
        for (_, waker) in left {
            waker.wake();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;
    use std::future::{pending, ready};

    use futures_util::FutureExt as _;
    use tokio::runtime::{Builder, Runtime};
    use tokio::task::yield_now;

    use super::*;

    type BusyFor = std::pin::Pin<Box<dyn Future<Output = ()>>>;

    const TIME: Duration = Duration::from_millis(50);

    fn is_watched(limit: &Limit) -> bool {
        !locked(&limit.waiting).watched.is_empty()
    }

    fn runtime() -> Runtime {
        Builder::new_current_thread().enable_time().start_paused(true).build().unwrap()
    }

    #[test]
    fn an_answer_at_once_needs_no_runtime_and_waits_for_nothing() {
        let limit = Limit::new(TIME);
        let waits = || panic!("it need not be waited for");
        assert_eq!(within(Some(&limit), waits, ready(7)).now_or_never(), Some(Some(7)));
    }

    #[test]
    fn outside_a_runtime_nothing_is_waited_for() {
        let limit = Limit::new(TIME);
        assert_eq!(within(Some(&limit), Instant::now, pending::<()>()).now_or_never(), Some(None));
        assert!(!is_watched(&limit));
    }

    #[tokio::test(start_paused = true)]
    async fn what_does_not_come_is_given_up_at_the_limit() {
        let (limit, waited) = (Limit::new(TIME), Cell::new(0));
        for round in 1..=2 {
            let began = Instant::now();
            let waits = || {
                waited.set(waited.get() + 1);
                Instant::now()
            };
            assert_eq!(within(Some(&limit), waits, pending::<()>()).await, None);
            let took = began.elapsed();
            assert_eq!(took, TIME);
            assert_eq!(waited.get(), round);
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_call_is_polled_only_when_it_is_woken() {
        let (limit, polls) = (Limit::new(TIME), Cell::new(0));
        let mut call = pin!(async {
            sleep(TIME / 2).await;
            7
        });
        let counted = std::future::poll_fn(|context| {
            polls.set(polls.get() + 1);
            call.as_mut().poll(context)
        });
        let inner = within(Some(&limit), Instant::now, counted);
        assert_eq!(within(Some(&limit), Instant::now, inner).await, Some(Some(7)));
        assert_eq!(polls.get(), 2);
    }

    #[tokio::test]
    async fn a_call_that_is_always_busy_sees_its_limit() {
        let limit = Limit::new(TIME);
        let busy = async {
            loop {
                yield_now().await;
            }
        };
        assert_eq!(within::<BusyFor>(Some(&limit), Instant::now, Box::pin(busy)).await, None);
    }

    #[tokio::test(start_paused = true)]
    async fn without_a_limit_it_is_waited_for() {
        let late = async {
            sleep(TIME * 100).await;
            7
        };
        assert_eq!(within(None, Instant::now, late).await, Some(7));
    }

    #[tokio::test(start_paused = true)]
    async fn each_of_many_ends_at_its_own_time_and_leaves_its_place() {
        let limit = Limit::new(TIME);
        let calls = (0..100_u32).map(|number| {
            let limit = limit.clone();
            async move {
                let (late, began) = (Duration::from_millis(u64::from(number)), Instant::now());
                let call = async {
                    sleep(late).await;
                    number
                };
                let answer = within(Some(&limit), Instant::now, call).await;
                assert_eq!(answer, (late <= TIME).then_some(number));
                assert_eq!(began.elapsed(), late.min(TIME));
            }
        });
        futures_util::future::join_all(calls).await;
        let waiting = locked(&limit.waiting);
        assert!(waiting.places.iter().all(Option::is_none));
        assert_eq!(waiting.free.len(), waiting.places.len());
    }

    #[tokio::test(start_paused = true)]
    async fn whoever_waits_now_is_told_not_whoever_did() {
        let limit = Limit::new(TIME);
        let mut call = Box::pin(async move { within(Some(&limit), Instant::now, pending::<()>()).await });
        // Looked at by one task first, and then waited for by another.
        assert_eq!((&mut call).now_or_never(), None);
        assert_eq!(tokio::spawn(call).await.unwrap(), None);
    }

    #[tokio::test(start_paused = true)]
    async fn nobody_looks_while_no_calls_are_made() {
        let limit = Limit::new(TIME);
        for _ in 0..2 {
            for _ in 0..10 {
                let call = sleep(Duration::from_millis(2));
                assert_eq!(within(Some(&limit), Instant::now, call).await, Some(()));
                assert!(is_watched(&limit));
            }
            sleep(TIME).await;
            assert!(!is_watched(&limit));
        }
    }

    #[test]
    fn a_runtime_that_ends_leaves_its_calls_to_the_next() {
        let limit = Limit::new(TIME);
        let other = limit.clone();
        let mut call = Box::pin(async move { within(Some(&other), Instant::now, pending::<()>()).await });
        for _ in 0..2 {
            let runtime = runtime();
            runtime.block_on(async { assert_eq!((&mut call).now_or_never(), None) });
            assert!(is_watched(&limit));
            drop(runtime);
            assert!(!is_watched(&limit));
        }
        assert_eq!(runtime().block_on(call), None);
    }

    /// Two runtimes share a cache, and nobody drives the one that made a call before.
    #[test]
    fn a_runtime_that_stands_still_holds_up_no_call_of_another() {
        let limit = Limit::new(TIME);
        let call = || async { within(Some(&limit), Instant::now, sleep(Duration::from_millis(1))).await };
        let standing = runtime();
        assert_eq!(standing.block_on(call()), Some(()));
        assert_eq!(runtime().block_on(within(Some(&limit), Instant::now, pending::<()>())), None);
        assert!(is_watched(&limit), "the one that stands still looks on when it is driven again");
        assert_eq!(standing.block_on(call()), Some(()));
        drop(standing);
        assert!(!is_watched(&limit));
    }
}
