//! Hints of the store, turned into wake-ups. A lost hint costs a poll interval, never a result.

use std::sync::Arc;

use recache_store::{FLOW, Signal};
use tokio::sync::broadcast::{self, error::RecvError};

use crate::engine::Shared;
use crate::held::stop_for;
use crate::{prefetch, remote};

pub(crate) async fn run(shared: Arc<Shared>, mut hints: broadcast::Receiver<Signal>) {
    loop {
        let hint = tokio::select! {
            () = shared.ending.cancelled() => return,
            hint = hints.recv() => hint,
        };
        match hint {
            Ok(hint) => follow(&shared, hint).await,
            Err(RecvError::Lagged(_)) => {
                shared.work.notify_one();
                shared.remote.wake_all();
                shared.due.notify_one();
                shared.events_due.notify_one();
                shared.drafts_due.notify_one();
                shared.heads.forget();
            }
            Err(RecvError::Closed) => return,
        }
    }
}

async fn follow(shared: &Arc<Shared>, hint: Signal) {
    match hint {
        Signal::Queued(queue) => {
            shared.remote.queued(&queue);
            if queue == FLOW || shared.options.queues.contains(&queue) {
                shared.work.notify_one();
            }
        }
        Signal::Revoked(job) => {
            shared.waiters.wake(job.uuid());
            // A hint is not believed: the store says whether the token is still good, and why not.
            if let Some(token) = shared.held.token_of(job)
                && let Ok(Some(why)) = shared.store.job_revoked(token).await
            {
                shared.held.stop(token, stop_for(why));
            }
            remote::revoked(shared, job).await;
        }
        Signal::ViewChanged(view) => {
            shared.due.notify_one();
            shared.waiters.wake(view.uuid());
        }
        Signal::Published(view, version) => {
            shared.heads.published(view, version);
            prefetch::published(shared, view, version);
            shared.waiters.wake(view.uuid());
        }
        Signal::EventsWritten => shared.events_due.notify_one(),
        Signal::DraftsWritten => shared.drafts_due.notify_one(),
        Signal::TouchesAsked => shared.due.notify_one(),
        Signal::BatchMoved(batch) => shared.batches.tell(batch),
        Signal::BatchEnded(batch) => shared.waiters.wake(batch.uuid()),
        // Whoever listens does so for itself: `epochs.rs`, `deliver/live.rs`.
        Signal::CacheRaised(..) | Signal::Happened(_) => {}
    }
}
