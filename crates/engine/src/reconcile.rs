//! Starts builds: looks at what is due rather than at messages.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use crate::engine::Shared;
use crate::origin;
use crate::stats::{add, one};

/// Views that one look handles.
const VIEWS_MAX: u32 = 100;
/// Touches that come within this time share one look.
const GATHER: Duration = Duration::from_millis(2);

pub(crate) async fn run(shared: Arc<Shared>) {
    loop {
        // Prepared before the look, so that a touch during it is not missed.
        let due = shared.due.notified();
        let pause = match shared.store.views_reconcile(VIEWS_MAX).await {
            Ok(found) => {
                add(&shared.counters.builds_created, found.builds.len());
                for build in &found.traced {
                    origin::note_build(build);
                }
                if found.builds.len() >= usize::try_from(VIEWS_MAX).unwrap_or(usize::MAX) {
                    Duration::ZERO
                } else {
                    found.next_due.unwrap_or(shared.options.poll).min(shared.options.poll)
                }
            }
            Err(error) => {
                one(&shared.counters.store_errors);
                tracing::warn!(%error, "views not reconciled");
                shared.options.poll
            }
        };
        let deadline = Instant::now() + pause;
        tokio::select! {
            () = shared.ending.cancelled() => return,
            () = tokio::time::sleep_until(deadline) => {}
            () = due => tokio::time::sleep(GATHER.min(pause)).await,
        }
    }
}
