//! Has the publishers of this process make the payloads of events that wait for them.
//!
//! Any process may that has the publisher: drafts are claimed for a time, and what a process had claimed when it died is due again
//! after that. Each publisher has a lane of its own, so that one that hangs holds up no other; and the ends of steps write their drafts
//! and wait for nobody.

use std::collections::HashMap;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;

use futures_util::stream::FuturesUnordered;
use futures_util::{FutureExt as _, StreamExt as _};
use recache_model::event::{publisher_policy, rest_after};
use recache_model::ids::{JobId, WorkflowId};
use recache_store::{ClaimedDraft, DraftEnd, DraftOutcome, DraftToken, Error as StoreError};
use recache_worker::{Failure, PublishContext, Publisher, StepEnd, StepError};
use serde_json::Value;
use tokio::sync::mpsc;
use tokio::time::Instant;

use crate::engine::Shared;
use crate::execute::panic_message;
use crate::stats::{add, one};

/// Payloads that one claim takes, and that are made at once by one publisher.
const CLAIMED_MAX: u32 = 8;
/// What a process holds when it dies is made again after this long.
const LEASE: Duration = Duration::from_secs(10);
/// A lane that has ended begins again after this long at the earliest: others may hold what seems due.
const LANE_PAUSE: Duration = Duration::from_millis(50);
/// Between tries to say what became of payloads while the store cannot be reached.
const SETTLE_PAUSE: Duration = Duration::from_millis(200);

/// Where a publisher's lane stands.
#[derive(Debug)]
enum Lane {
    /// Its end will be heard of.
    UnderWay,
    /// It has ended, after so many failures in a row.
    Rests { until: Instant, failures: u32 },
}

/// How a lane ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct LaneEnd {
    /// Failures in a row.
    failures: u32,
    /// The publisher is left alone for so long.
    rest: Duration,
    /// Tries to make payloads.
    tried: usize,
}

/// Whether this process can make any payload.
pub(crate) fn can_publish(shared: &Shared) -> bool {
    !shared.handlers.publisher_names().is_empty()
}

pub(crate) async fn run(shared: Arc<Shared>) {
    let (ended, mut ends) = mpsc::unbounded_channel();
    let mut lanes: HashMap<String, Lane> = HashMap::new();
    loop {
        let next = match turn(&shared, &mut lanes, &ended).await {
            Ok(next) => next,
            Err(error) => {
                one(&shared.counters.store_errors);
                tracing::warn!(%error, "payloads of events wait for the store");
                shared.options.poll
            }
        };
        let deadline = Instant::now() + next.min(shared.options.poll);
        tokio::select! {
            () = shared.draining.cancelled() => return,
            () = shared.drafts_due.notified() => {}
            Some((publisher, end)) = ends.recv() => {
                let end: LaneEnd = end;
                let until = Instant::now() + end.rest.max(LANE_PAUSE);
                lanes.insert(publisher, Lane::Rests { until, failures: end.failures });
            }
            () = tokio::time::sleep_until(deadline) => {}
        }
    }
}

/// Starts the lanes that have something to do. Answers when to look again.
async fn turn(
    shared: &Arc<Shared>,
    lanes: &mut HashMap<String, Lane>,
    ended: &mpsc::UnboundedSender<(String, LaneEnd)>,
) -> Result<Duration, StoreError> {
    let mut names = shared.handlers.publisher_names();
    names.retain(|name| !matches!(lanes.get(name), Some(Lane::UnderWay)));
    let mut next = shared.options.poll;
    if names.is_empty() {
        return Ok(next);
    }
    let now = Instant::now();
    for due in shared.store.event_drafts().drafts_due(names).await? {
        let (rests, failures) = match lanes.get(&due.publisher) {
            Some(Lane::Rests { until, failures }) => (until.saturating_duration_since(now), *failures),
            _ => (Duration::ZERO, 0),
        };
        let wait = due.wait.max(rests);
        if !wait.is_zero() {
            next = next.min(wait);
            continue;
        }
        lanes.insert(due.publisher.clone(), Lane::UnderWay);
        let (shared, ended) = (Arc::clone(shared), ended.clone());
        shared.tasks.clone().spawn(async move {
            let end = lane(&shared, &due.publisher, failures).await;
            let _ = ended.send((due.publisher, end));
        });
    }
    Ok(next)
}

/// Does once what [`run`] does over and over, and waits for its end. Answers how many payloads were tried.
pub(crate) async fn run_due(shared: &Arc<Shared>) -> Result<usize, StoreError> {
    let names = shared.handlers.publisher_names();
    let mut tried = 0;
    for due in shared.store.event_drafts().drafts_due(names).await? {
        if due.wait.is_zero() {
            tried += lane(shared, &due.publisher, 0).await.tried;
        }
    }
    Ok(tried)
}

/// Has a publisher make payloads until nothing is due, it fails, or this process ends. One that failed is tried with a single one.
async fn lane(shared: &Arc<Shared>, name: &str, failures: u32) -> LaneEnd {
    let mut end = LaneEnd { failures, rest: Duration::ZERO, tried: 0 };
    let Some(publisher) = shared.handlers.get_publisher(name) else { return end };
    while !shared.draining.is_cancelled() {
        let rows_max = if end.failures > 0 { 1 } else { CLAIMED_MAX };
        let claimed = match shared.store.event_drafts().drafts_claim(name, LEASE, rows_max).await {
            Ok(claimed) if claimed.is_empty() => return end,
            Ok(claimed) => claimed,
            Err(error) => {
                one(&shared.counters.store_errors);
                tracing::warn!(publisher = name, %error, "payloads of events wait for the store");
                return end;
            }
        };
        let tries = make(shared, publisher, &claimed).await;
        end.tried += tries.iter().filter(|tried| tried.end.outcome != DraftOutcome::Released).count();
        let failed = tries.iter().any(|tried| tried.is_failure);
        let asked = tries.iter().filter_map(|tried| tried.asked).max();
        settle(shared, tries.into_iter().map(|tried| tried.end).collect()).await;
        if failed {
            end.failures = end.failures.saturating_add(1);
            end.rest = rest_after(end.failures, asked, rand::random());
            return end;
        }
        end.failures = 0;
    }
    end
}

/// What one try came to.
struct Tried {
    end: DraftEnd,
    /// Others would fail, too.
    is_failure: bool,
    /// How long it asked to be left alone.
    asked: Option<Duration>,
}

/// Makes the payloads of a claim, all at once, and keeps the claim meanwhile. What has not ended when this process does is handed back.
async fn make(shared: &Shared, publisher: &Arc<dyn Publisher>, claimed: &[ClaimedDraft]) -> Vec<Tried> {
    let Some(claim) = claimed.first().map(|draft| draft.token.claim) else { return Vec::new() };
    let mut under_way: FuturesUnordered<_> =
        claimed.iter().map(|draft| try_one(shared, publisher, draft)).collect();
    let mut open: Vec<DraftToken> = claimed.iter().map(|draft| draft.token).collect();
    let mut tries = Vec::with_capacity(claimed.len());
    let mut keep = tokio::time::interval_at(Instant::now() + LEASE / 3, LEASE / 3);
    loop {
        tokio::select! {
            tried = under_way.next() => {
                let Some(tried) = tried else { break };
                open.retain(|token| *token != tried.end.token);
                tries.push(tried);
            }
            _ = keep.tick() => {
                if let Err(error) = shared.store.event_drafts().drafts_extend(claim, LEASE).await {
                    // Others may take over then: what is made first counts.
                    tracing::warn!(%error, "payloads under way could not be kept");
                }
            }
            () = shared.ending.cancelled() => break,
        }
    }
    drop(under_way);
    tries.extend(open.into_iter().map(|token| Tried {
        end: DraftEnd { token, outcome: DraftOutcome::Released },
        is_failure: false,
        asked: None,
    }));
    tries
}

async fn try_one(shared: &Shared, publisher: &Arc<dyn Publisher>, draft: &ClaimedDraft) -> Tried {
    let (outcome, is_failure, asked) = match call(shared, publisher, draft).await {
        Ok(payload) => (DraftOutcome::Made { data: payload.to_string() }, false, None),
        Err(Failure::Permanent { code, message }) => {
            (DraftOutcome::Refused { error: format!("{message} ({code})") }, false, None)
        }
        Err(Failure::Snooze { after }) => (DraftOutcome::Snoozed { after }, false, None),
        Err(Failure::Stopped(_)) => (DraftOutcome::Released, false, None),
        Err(Failure::Retryable { message, after, .. }) => (again(draft, message, after), true, after),
    };
    Tried { end: DraftEnd { token: draft.token, outcome }, is_failure, asked }
}

/// Another try, or none.
fn again(draft: &ClaimedDraft, error: String, asked: Option<Duration>) -> DraftOutcome {
    let policy = publisher_policy();
    if draft.attempt >= policy.attempts_max {
        return DraftOutcome::Refused { error: format!("{error}, at the last of {} tries", draft.attempt) };
    }
    let after = policy.delay(draft.attempt, rand::random()).max(asked.unwrap_or_default());
    DraftOutcome::Retry { after, error }
}

async fn call(
    shared: &Shared,
    publisher: &Arc<dyn Publisher>,
    draft: &ClaimedDraft,
) -> Result<Value, Failure> {
    let end = end_of(draft)?;
    let within = shared.options.publisher_timeout;
    // Where it panics before it answers a future, too.
    let making = async { publisher.payload(context(draft), end).await };
    match tokio::time::timeout(within, AssertUnwindSafe(making).catch_unwind()).await {
        Ok(Ok(answer)) => answer,
        Ok(Err(panic)) => {
            Err(Failure::retryable(format!("the publisher panicked: {}", panic_message(&*panic))))
        }
        Err(_) => Err(Failure::retryable(format!("no payload within {} ms", within.as_millis()))),
    }
}

fn context(draft: &ClaimedDraft) -> PublishContext {
    let event = &draft.event;
    PublishContext {
        event_id: event.id.to_string(),
        event: event.name.clone(),
        publisher: event.waits_for.clone().unwrap_or_default(),
        namespace: event.namespace.clone(),
        at_us: event.at.micros(),
        job: event.job.map(JobId::uuid),
        workflow: event.workflow.map(WorkflowId::uuid),
        step: event.step.clone(),
        attempt: event.attempt,
        correlation_id: event.correlation_id.clone(),
        workflow_input: draft.workflow_input.as_deref().and_then(|text| serde_json::from_str(text).ok()),
        tried: draft.attempt,
    }
}

fn end_of(draft: &ClaimedDraft) -> Result<StepEnd, Failure> {
    let broken = |error: serde_json::Error| Failure::permanent("invalid_end", error);
    if draft.event.outcome.as_deref() == Some("completed") {
        return Ok(StepEnd::Completed { result: serde_json::from_str(&draft.ended).map_err(broken)? });
    }
    let error: StepError = serde_json::from_str(&draft.ended).map_err(broken)?;
    Ok(match draft.event.outcome.as_deref() {
        Some("retrying") => StepEnd::Retrying { error },
        _ => StepEnd::Failed { error },
    })
}

/// Says what became of them, however long the store is away. If this process ends before, they are made again.
async fn settle(shared: &Shared, ends: Vec<DraftEnd>) {
    loop {
        match shared.store.event_drafts().drafts_settle(ends.clone()).await {
            Ok(settled) => {
                let count = |value: u64| usize::try_from(value).unwrap_or(usize::MAX);
                add(&shared.counters.payloads_made, count(settled.made));
                add(&shared.counters.payloads_refused, count(settled.refused));
                add(&shared.counters.payload_failures, count(settled.retried));
                return;
            }
            Err(error) => {
                one(&shared.counters.store_errors);
                tracing::warn!(%error, payloads = ends.len(), "what became of payloads waits for the store");
                tokio::select! {
                    () = shared.ending.cancelled() => return,
                    () = tokio::time::sleep(SETTLE_PAUSE) => {}
                }
            }
        }
    }
}
