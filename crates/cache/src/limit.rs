//! The time limit of one call, which costs nothing when the call need not wait.

use std::pin::pin;
use std::task::Poll;
use std::time::Duration;

use tokio::task::coop::unconstrained;
use tokio::time::sleep;

/// What `call` gives; `None` when it has to be waited for and nothing comes within `limit` from then on. `waits` is told once
/// that it has to be.
///
/// A call that is answered at its first poll, as those of an in-process provider are, costs no timer and needs no runtime.
/// Every other one is polled as often as it is woken: [`timeout`](tokio::time::timeout) after a first look would poll it
/// once more, and through two layers of calls that is four polls of a read where two do (Redis, `callgrind`).
pub(crate) async fn within<F: Future>(
    limit: Option<Duration>,
    waits: impl FnOnce(),
    call: F,
) -> Option<F::Output> {
    let mut call = pin!(call);
    let mut timer = pin!(None);
    let mut waits = Some(waits);
    std::future::poll_fn(|context| {
        if let Poll::Ready(answer) = call.as_mut().poll(context) {
            return Poll::Ready(Some(answer));
        }
        if let Some(waits) = waits.take() {
            waits();
            // Not held back by what the call itself did: a task that is always busy would never see its limit.
            timer.set(limit.map(|limit| unconstrained(sleep(limit))));
        }
        match timer.as_mut().as_pin_mut() {
            Some(timer) => timer.poll(context).map(|()| None),
            None => Poll::Pending,
        }
    })
    .await
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;
    use std::future::{pending, ready};

    use futures_util::FutureExt as _;
    use tokio::task::yield_now;
    use tokio::time::Instant;

    use super::*;

    const LIMIT: Duration = Duration::from_millis(50);

    #[test]
    fn an_answer_at_once_needs_no_runtime_and_waits_for_nothing() {
        let answer = within(Some(LIMIT), || panic!("it need not be waited for"), ready(7)).now_or_never();
        assert_eq!(answer, Some(Some(7)));
    }

    #[tokio::test(start_paused = true)]
    async fn what_does_not_come_is_given_up_at_the_limit() {
        let (began, waited) = (Instant::now(), Cell::new(0));
        assert_eq!(within(Some(LIMIT), || waited.set(waited.get() + 1), pending::<()>()).await, None);
        assert!(began.elapsed() >= LIMIT && began.elapsed() < LIMIT * 2 && waited.get() == 1);
    }

    #[tokio::test(start_paused = true)]
    async fn a_call_is_polled_only_when_it_is_woken() {
        let polls = Cell::new(0);
        let mut call = pin!(async {
            sleep(LIMIT / 2).await;
            7
        });
        let counted = std::future::poll_fn(|context| {
            polls.set(polls.get() + 1);
            call.as_mut().poll(context)
        });
        assert_eq!(within(Some(LIMIT), || {}, within(Some(LIMIT), || {}, counted)).await, Some(Some(7)));
        assert_eq!(polls.get(), 2);
    }

    #[tokio::test]
    async fn a_call_that_is_always_busy_sees_its_limit() {
        let busy = async {
            loop {
                yield_now().await;
            }
        };
        assert_eq!(
            within::<futures_util::future::Map<_, fn(()) -> ()>>(Some(LIMIT), || {}, busy.map(|()| ())).await,
            None
        );
    }

    #[tokio::test(start_paused = true)]
    async fn without_a_limit_it_is_waited_for() {
        let late = async {
            sleep(LIMIT * 100).await;
            7
        };
        assert_eq!(within(None, || {}, late).await, Some(7));
    }
}
