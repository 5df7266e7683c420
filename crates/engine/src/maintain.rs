//! Keeps the tables small and compares what is counted with what is there. One process at a time leads it; when that one
//! dies another takes the lead after its lease, and what the former still sends is refused.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use recache_model::event::{DELIVERY_AGE_MAX, DeliveryState};
use recache_model::ids::{BatchId, WorkflowId};
use recache_model::job::JobState;
use recache_model::retention::Retention;
use recache_model::tracked::TrackedState;
use recache_model::workflow::WorkflowState;
use recache_store::{Error as StoreError, HistoryRule, HistoryTended, Leadership};
use tokio::time::Instant;
use uuid::Uuid;

use crate::deliver;
use crate::engine::Shared;
use crate::stats::{add, one};

/// The role of the process that keeps the tables small and true.
pub const ROLE: &str = "maintenance";
/// Rows that one transaction removes.
const ROWS_MAX: u32 = 1_000;
/// Workflows that one transaction removes: each with all its steps.
const WORKFLOWS_MAX: u32 = 20;
/// Steps and workflows whose limits one transaction judges.
const LIMITS_MAX: u32 = 100;
/// Workflows that one look compares.
const COMPARED_MAX: u32 = 1_000;
/// Batches that one look compares: each with all its members.
const BATCHES_COMPARED_MAX: u32 = 10;
/// Between two batches, so that others have their turn.
const BATCH_PAUSE: Duration = Duration::from_millis(20);
/// Between two looks at the days of history.
const HISTORY_EVERY: Duration = Duration::from_mins(10);
/// The same when something was held up.
const HISTORY_AGAIN: Duration = Duration::from_mins(1);
/// The lead is kept for so many pauses: one that is missed costs nothing.
const LEASE_PAUSES: u32 = 3;

pub(crate) async fn run(shared: Arc<Shared>) {
    let holder = Uuid::new_v4();
    let mut compare_at = Instant::now() + shared.options.compare;
    let mut history_at = Instant::now();
    let mut lead: Option<Leadership> = None;
    let mut up_since = Instant::now();
    loop {
        let pause = shared.options.maintain.mul_f64(0.75 + rand::random::<f64>() * 0.5);
        tokio::select! {
            () = shared.draining.cancelled() => break,
            () = tokio::time::sleep(pause) => {}
        }
        match take_lead(&shared, holder).await {
            Ok(taken) => {
                if taken.is_some() && lead.is_none() {
                    tracing::info!("this process leads maintenance");
                    say_who(&shared, taken.as_ref()).await;
                }
                lead = taken;
            }
            Err(error) => {
                one(&shared.counters.store_errors);
                tracing::warn!(%error, "maintenance waits: the store cannot be reached");
                up_since = Instant::now();
                continue;
            }
        }
        let Some(taken) = &lead else { continue };
        let is_time = Instant::now() >= compare_at;
        if is_time {
            compare_at = Instant::now() + shared.options.compare;
        }
        let mut done = pass(&shared, taken, up_since.elapsed(), is_time).await;
        if done.is_ok() && Instant::now() >= history_at {
            done = tend_history(&shared, taken).await.map(|pause| history_at = Instant::now() + pause);
        }
        match done {
            Ok(()) => {}
            Err(StoreError::Conflict(why)) => {
                tracing::info!(why, "maintenance goes on elsewhere");
                lead = None;
            }
            Err(error) => {
                one(&shared.counters.store_errors);
                tracing::warn!(%error, "maintenance not finished");
                up_since = Instant::now();
            }
        }
    }
    if let Some(lead) = lead
        && let Err(error) = shared.store.maintenance().leader_release(&lead).await
    {
        tracing::debug!(%error, "the lead of maintenance was not given up; it ends by itself");
    }
}

/// For people who look; that it was not said changes nothing.
async fn say_who(shared: &Shared, lead: Option<&Leadership>) {
    if let Some(lead) = lead
        && let Err(error) = shared.store.maintenance().leader_say(lead, &shared.options.node).await
    {
        tracing::debug!(%error, "it was not said who leads maintenance");
    }
}

async fn pass(
    shared: &Shared,
    lead: &Leadership,
    up_for: Duration,
    is_time_to_compare: bool,
) -> Result<(), StoreError> {
    // For the case that no process delivers: what nobody asked for must not wait for ever.
    deliver::route(shared).await?;
    // Not worth more than a word: the database does it by itself a little later.
    match shared.store.maintenance().statistics_refresh(lead).await {
        Ok(0) => {}
        Ok(tables) => tracing::debug!(tables, "the database has looked at tables that were new"),
        Err(error @ StoreError::Conflict(_)) => return Err(error),
        Err(error) => tracing::debug!(%error, "the database was not asked to look at its tables"),
    }
    fail_stale(shared, lead, up_for).await?;
    judge_limits(shared, lead).await?;
    remove(shared, lead).await?;
    if is_time_to_compare {
        compare(shared).await?;
        compare_batches(shared).await?;
    }
    Ok(())
}

async fn take_lead(shared: &Shared, holder: Uuid) -> Result<Option<Leadership>, StoreError> {
    let lease = shared.options.maintain.saturating_mul(LEASE_PAUSES);
    shared.store.maintenance().leader_take(ROLE, holder, lease).await
}

/// Tracked jobs whose owners are silent, in batches until one is not full.
async fn fail_stale(shared: &Shared, lead: &Leadership, up_for: Duration) -> Result<(), StoreError> {
    loop {
        let failed = shared.store.tracked_jobs().tracked_fail_stale(lead, up_for, ROWS_MAX).await?;
        add(&shared.counters.tracked_stale, usize::try_from(failed).unwrap_or(usize::MAX));
        if failed > 0 {
            tracing::warn!(count = failed, "tracked jobs failed: nothing was heard of them for too long");
        }
        if failed < u64::from(ROWS_MAX) || shared.draining.is_cancelled() {
            return Ok(());
        }
        tokio::time::sleep(BATCH_PAUSE).await;
    }
}

/// Limits of time that have passed, in batches until one is not full.
pub(crate) async fn judge_limits(shared: &Shared, lead: &Leadership) -> Result<u64, StoreError> {
    let mut passed = 0;
    loop {
        let judged = shared.store.maintenance().lifecycles_judge(lead, LIMITS_MAX).await?;
        passed += judged.passed + judged.stalled;
        let count = |value: u64| usize::try_from(value).unwrap_or(usize::MAX);
        add(&shared.counters.limits_passed, count(judged.passed));
        add(&shared.counters.stalled, count(judged.stalled));
        if judged.looked_at < u64::from(LIMITS_MAX) || shared.draining.is_cancelled() {
            return Ok(passed);
        }
        tokio::time::sleep(BATCH_PAUSE).await;
    }
}

/// Something whose time may be over.
#[derive(Debug, Clone, Copy)]
enum Removal {
    Keys,
    Rates,
    Jobs(JobState, Duration),
    Workflows(WorkflowState, Duration),
    Tracked(TrackedState, Duration),
    Batches(Duration),
    Letters(Duration),
    Ticks(Duration),
    /// Keeps events back that waited too long for their publishers.
    LateDrafts,
    /// Gives deliveries up whose time is over; they are removed later.
    LateDeliveries,
    Deliveries(DeliveryState, Duration),
    Events(Duration),
    DeletedViews,
}

impl Removal {
    /// All there is to remove, in this order.
    fn all(retention: Retention) -> Vec<Self> {
        let jobs = JobState::ALL.into_iter();
        let jobs = jobs.filter_map(|state| Some(Self::Jobs(state, retention.of_job(state)?)));
        let workflows =
            [WorkflowState::Completed, WorkflowState::Failed, WorkflowState::Cancelled].into_iter();
        let workflows =
            workflows.filter_map(|state| Some(Self::Workflows(state, retention.of_workflow(state)?)));
        let tracked = TrackedState::ALL.into_iter();
        let tracked = tracked.filter_map(|state| Some(Self::Tracked(state, retention.of_tracked(state)?)));
        // A batch goes after its members.
        let ends = [
            Self::Batches(retention.done),
            Self::Keys,
            Self::Rates,
            Self::Letters(retention.failed),
            Self::Ticks(retention.failed),
        ];
        let events = [
            Self::LateDrafts,
            Self::LateDeliveries,
            Self::Deliveries(DeliveryState::Delivered, retention.done),
            Self::Deliveries(DeliveryState::Dead, retention.failed),
            Self::Events(retention.done),
            Self::DeletedViews,
        ];
        jobs.chain(workflows).chain(tracked).chain(ends).chain(events).collect()
    }

    fn rows_max(self) -> u32 {
        if matches!(self, Self::Workflows(..)) { WORKFLOWS_MAX } else { ROWS_MAX }
    }

    async fn batch(self, shared: &Shared, lead: &Leadership) -> Result<u64, StoreError> {
        let (store, rows_max) = (shared.store.maintenance(), self.rows_max());
        match self {
            Self::Keys => store.idempotency_keys_expire(lead, rows_max).await,
            Self::Rates => store.step_rates_expire(lead, rows_max).await,
            Self::Jobs(state, keep) => store.jobs_remove(lead, state, keep, rows_max).await,
            Self::Workflows(state, keep) => store.workflows_remove(lead, state, keep, rows_max).await,
            Self::Tracked(state, keep) => {
                shared.store.tracked_jobs().tracked_remove(lead, state, keep, rows_max).await
            }
            Self::Batches(keep) => shared.store.batches().batches_remove(lead, keep, rows_max).await,
            Self::Letters(keep) => store.letters_remove(lead, keep, rows_max).await,
            Self::Ticks(keep) => shared.store.schedules().ticks_remove(lead, keep, rows_max).await,
            Self::LateDrafts => {
                let wait = shared.options.publisher_wait;
                let late = shared.store.event_drafts().drafts_expire(lead, wait, rows_max).await?;
                add(&shared.counters.payloads_refused, usize::try_from(late).unwrap_or(usize::MAX));
                Ok(late)
            }
            Self::LateDeliveries => {
                shared.store.events().deliveries_expire(lead, DELIVERY_AGE_MAX, rows_max).await
            }
            Self::Deliveries(state, keep) => {
                shared.store.events().deliveries_remove(lead, state, keep, rows_max).await
            }
            Self::Events(keep) => shared.store.events().events_remove(lead, keep, rows_max).await,
            Self::DeletedViews => shared.store.view_control().views_remove_deleted(rows_max).await,
        }
    }
}

/// Everything whose time is over, each in batches until one is not full. The lead is kept while it goes on; one that was lost
/// ends it.
async fn remove(shared: &Shared, lead: &Leadership) -> Result<(), StoreError> {
    for removal in Removal::all(shared.options.retention) {
        loop {
            let removed = removal.batch(shared, lead).await?;
            add(&shared.counters.removed, usize::try_from(removed).unwrap_or(usize::MAX));
            if shared.draining.is_cancelled() {
                return Ok(());
            }
            if removed < u64::from(removal.rows_max()) {
                break;
            }
            if take_lead(shared, lead.holder).await?.as_ref() != Some(lead) {
                return Err(StoreError::Conflict("the lead was lost".to_owned()));
            }
            tokio::time::sleep(BATCH_PAUSE).await;
        }
    }
    Ok(())
}

/// Makes the next days of history and drops what is over, until nothing is left to do. Answers when to look again.
async fn tend_history(shared: &Shared, lead: &Leadership) -> Result<Duration, StoreError> {
    let rule = HistoryRule { keep: shared.options.retention.done, rows_max: ROWS_MAX };
    loop {
        let tended = shared.store.maintenance().history_tend(lead, rule).await?;
        let counters = &shared.counters;
        counters.history_days_made.fetch_add(tended.made, Ordering::Relaxed);
        counters.history_days_dropped.fetch_add(tended.dropped, Ordering::Relaxed);
        counters.history_parts.store(tended.parts, Ordering::Relaxed);
        counters.history_outside_bytes.store(tended.outside_bytes, Ordering::Relaxed);
        if tended.made + tended.dropped > 0 {
            let HistoryTended { made, dropped, carried, .. } = tended;
            tracing::info!(made, dropped, carried_rows = carried, "days of the history of jobs");
        }
        if let Some(why) = tended.held_up {
            one(&counters.history_held_up);
            tracing::warn!(
                why,
                "a day of the history of jobs could not be made or dropped; it is tried again"
            );
            return Ok(HISTORY_AGAIN);
        }
        if !tended.has_more || shared.draining.is_cancelled() {
            return Ok(HISTORY_EVERY);
        }
        if take_lead(shared, lead.holder).await?.as_ref() != Some(lead) {
            return Err(StoreError::Conflict("the lead was lost".to_owned()));
        }
        tokio::time::sleep(BATCH_PAUSE).await;
    }
}

/// A difference is a bug of ours or somebody's hand in the tables: it is said loudly, and nothing is mended that nobody
/// understands.
async fn compare(shared: &Shared) -> Result<(), StoreError> {
    let mut after: Option<WorkflowId> = None;
    let mut workflows = 0;
    loop {
        let compared = shared.store.maintenance().counts_compare(after, COMPARED_MAX).await?;
        add(&shared.counters.count_differences, compared.differences.len());
        for difference in &compared.differences {
            tracing::error!(
                workflow_id = %difference.workflow,
                kept = ?difference.kept,
                counted = ?difference.counted,
                "a workflow's counts are not those of its steps"
            );
        }
        workflows += compared.workflows;
        let is_end = compared.workflows < u64::from(COMPARED_MAX);
        if is_end || compared.last.is_none() || shared.draining.is_cancelled() {
            tracing::debug!(workflows, "counts compared");
            return Ok(());
        }
        after = compared.last;
        tokio::time::sleep(BATCH_PAUSE).await;
    }
}

/// The same for batches that have not ended.
async fn compare_batches(shared: &Shared) -> Result<(), StoreError> {
    let mut after: Option<BatchId> = None;
    loop {
        let compared = shared.store.batches().batches_compare(after, BATCHES_COMPARED_MAX).await?;
        add(&shared.counters.batch_differences, compared.differences.len());
        for difference in &compared.differences {
            tracing::error!(
                batch_id = %difference.batch,
                kept = ?difference.kept,
                counted = ?difference.counted,
                "a batch's counts are not those of its members"
            );
        }
        let is_end = compared.batches < u64::from(BATCHES_COMPARED_MAX);
        if is_end || compared.last.is_none() || shared.draining.is_cancelled() {
            return Ok(());
        }
        after = compared.last;
        tokio::time::sleep(BATCH_PAUSE).await;
    }
}
