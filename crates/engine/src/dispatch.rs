//! One call to the store that settles what has ended and claims what comes next, repeated until it is answered.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use recache_store::{ClaimRequest, Dispatched, Settlement};

use crate::engine::Shared;
use crate::execute::Ended;
use crate::stats::one;

/// After a failed call to the store, the first wait; doubles up to [`RETRY_PAUSE_MAX`].
pub(crate) const RETRY_PAUSE: Duration = Duration::from_millis(20);
const RETRY_PAUSE_MAX: Duration = Duration::from_secs(1);

/// What is asked.
pub(crate) struct Call {
    pub(crate) settling: Vec<Ended>,
    pub(crate) claim: Option<ClaimRequest>,
    /// After a failure, before it is repeated.
    pub(crate) pause: Duration,
    /// Counts the failures, for whoever goes by them.
    pub(crate) failures: Option<Arc<AtomicU32>>,
}

/// What came of it.
pub(crate) enum Answer {
    /// `has_claimed`: it was asked for jobs too, which it is not any more after a call that failed.
    Given { dispatched: Dispatched, has_claimed: bool },
    /// It was to claim only, and failed. It is not repeated: by then the right to claim may be gone.
    Failed,
    /// This process ends before the store could be reached.
    Ending,
}

pub(crate) struct Done {
    pub(crate) settlements: Vec<Settlement>,
    pub(crate) answer: Answer,
    pub(crate) call: Call,
}

pub(crate) async fn run(shared: Arc<Shared>, mut call: Call) -> Done {
    let settlements: Vec<Settlement> =
        call.settling.iter().filter_map(|ended| ended.settlement.clone()).collect();
    let mut claim = call.claim.clone();
    let answer = loop {
        let error = match shared.store.jobs_dispatch(settlements.clone(), claim.clone()).await {
            Ok(dispatched) => {
                call.pause = RETRY_PAUSE;
                break Answer::Given { dispatched, has_claimed: claim.is_some() };
            }
            Err(error) => error,
        };
        one(&shared.counters.store_errors);
        if let Some(failures) = &call.failures {
            failures.fetch_add(1, Ordering::Relaxed);
        }
        if let Some(claim) = claim.take()
            && matches!(error, recache_store::Error::Unknown { .. })
        {
            shared.lease.doubt(claim.session);
        }
        tracing::warn!(%error, settlements = settlements.len(), "settlements wait for the store");
        if shared.ending.is_cancelled() {
            break Answer::Ending;
        }
        tokio::select! {
            () = tokio::time::sleep(call.pause) => {}
            () = shared.ending.cancelled() => {}
        }
        call.pause = (call.pause * 2).min(RETRY_PAUSE_MAX);
        if settlements.is_empty() {
            break Answer::Failed;
        }
        // Repeating is safe: a settlement that got through is answered the same way again.
    };
    Done { settlements, answer, call }
}
