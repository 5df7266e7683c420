//! Makes the jobs of schedules whose ticks are due. Every process looks; the one that has the lead acts, and keeps it while it
//! lives. What the store refuses twice cannot happen twice, whoever leads.

use std::sync::Arc;
use std::time::Duration;

use recache_model::ids::JobId;
use recache_store::Error as StoreError;
use recache_store::schedules::trace_of_tick;
use tokio::time::Instant;
use uuid::Uuid;

use crate::engine::Shared;
use crate::stats::{add, one};

const ROLE: &str = "scheduler";
/// Schedules that one transaction looks after.
const ROWS_MAX: u32 = 100;
/// The lead is kept for so many polls: a scheduler that died is replaced after that.
const LEASE_POLLS: u32 = 3;

pub(crate) async fn run(shared: Arc<Shared>) {
    let holder = Uuid::new_v4();
    let mut lead = None;
    loop {
        let pause = match shared.store.schedules().schedules_next().await {
            Ok(None) => shared.options.poll,
            Ok(Some(wait)) if !wait.is_zero() => wait.min(shared.options.poll),
            Ok(Some(_)) => match fire(&shared, holder).await {
                Ok(taken) => {
                    lead = taken;
                    // Whoever leads looks again at once: more than one batch may be due.
                    if lead.is_some() { Duration::ZERO } else { shared.options.poll }
                }
                Err(StoreError::Conflict(_)) => shared.options.poll,
                Err(error) => {
                    one(&shared.counters.store_errors);
                    tracing::warn!(%error, "schedules wait for the store");
                    shared.options.poll
                }
            },
            Err(error) => {
                one(&shared.counters.store_errors);
                tracing::warn!(%error, "schedules wait for the store");
                shared.options.poll
            }
        };
        let deadline = Instant::now() + pause;
        tokio::select! {
            () = shared.draining.cancelled() => break,
            () = tokio::time::sleep_until(deadline) => {}
        }
    }
    if let Some(lead) = lead
        && let Err(error) = shared.store.maintenance().leader_release(&lead).await
    {
        tracing::debug!(%error, "the lead of the scheduler was not given up; it ends by itself");
    }
}

/// The span with which the trace of a tick begins; it is over when it begins.
fn note_tick(job: JobId, per_mille: u32) {
    let place = trace_of_tick(job, per_mille);
    tracing::info_span!(
        "tick",
        trace_id = place.trace_id(),
        span_id = place.span_id(),
        sampled = place.is_sampled(),
        job_id = %job,
    );
}

async fn fire(shared: &Shared, holder: Uuid) -> Result<Option<recache_store::Leadership>, StoreError> {
    let lease = shared.options.poll.saturating_mul(LEASE_POLLS);
    let Some(lead) = shared.store.maintenance().leader_take(ROLE, holder, lease).await? else {
        return Ok(None);
    };
    let per_mille = shared.options.traces_per_mille;
    let fired = shared.store.schedules().schedules_fire(&lead, ROWS_MAX, per_mille).await?;
    for job in fired.jobs.iter().filter(|_| per_mille > 0) {
        note_tick(*job, per_mille);
    }
    add(&shared.counters.scheduled, fired.jobs.len());
    if !fired.jobs.is_empty() || fired.skipped > 0 {
        tracing::debug!(jobs = fired.jobs.len(), skipped = fired.skipped, "ticks of schedules");
    }
    Ok(Some(lead))
}
