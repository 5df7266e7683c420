//! The deliveries of one subscriber, as this process makes them.

use std::collections::VecDeque;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt as _;
use futures_util::StreamExt as _;
use futures_util::stream::FuturesUnordered;
use recache_model::event::{AfterTry, Answered, after_answer, rest_after};
use recache_model::retry::RetryPolicy;
use recache_model::time::{Clock as _, SystemClock};
use recache_store::{
    ClaimedDeliveries, ClaimedDelivery, DeliveryEnd, DeliveryOutcome, DeliveryToken, DueSubscriber,
};
use recache_worker::Failure;
use tokio::time::Instant;

use super::envelope;
use crate::engine::Shared;
use crate::stats::{add, one};

/// Deliveries that one claim takes.
const CLAIMED_MAX: u32 = 64;
/// Deliveries to one subscriber under way at once.
const WIDTH: usize = 8;
/// What a process holds when it dies is made again after this long.
const LEASE: Duration = Duration::from_secs(10);
/// Between tries to say what became of deliveries while the store cannot be reached.
const SETTLE_PAUSE: Duration = Duration::from_millis(200);
/// Whoever carries has a limit of its own; this one is for the case that it does not keep it.
const COURIER_GRACE: Duration = Duration::from_secs(1);

/// Delivers until nothing is due, the subscriber fails, or this process ends. Answers how many deliveries were tried.
pub(super) async fn run(shared: &Arc<Shared>, due: DueSubscriber) -> usize {
    let mut tried = 0;
    while !shared.draining.is_cancelled() {
        let claimed = match shared.store.events().deliveries_claim(due.id, LEASE, CLAIMED_MAX).await {
            Ok(Some(claimed)) => claimed,
            Ok(None) => return tried,
            Err(error) => {
                one(&shared.counters.store_errors);
                tracing::warn!(subscriber = due.name, %error, "deliveries wait for the store");
                return tried;
            }
        };
        let ends = deliver(shared, &due, &claimed).await;
        let goes_on = ends.iter().all(|end| end.outcome == DeliveryOutcome::Delivered);
        tried += ends.iter().filter(|end| end.outcome != DeliveryOutcome::Released).count();
        count(shared, &due, &ends);
        settle(shared, ends).await;
        if !goes_on {
            return tried;
        }
    }
    tried
}

/// Makes the deliveries of a claim, some at once, and keeps the claim meanwhile. After the first failure no other one begins:
/// what has not begun is handed back.
async fn deliver(shared: &Arc<Shared>, due: &DueSubscriber, claimed: &ClaimedDeliveries) -> Vec<DeliveryEnd> {
    let mut waiting: VecDeque<&ClaimedDelivery> = claimed.deliveries.iter().collect();
    let mut under_way = FuturesUnordered::new();
    let mut begun: Vec<DeliveryToken> = Vec::new();
    let mut ends: Vec<DeliveryEnd> = Vec::with_capacity(claimed.deliveries.len());
    let mut keep = tokio::time::interval_at(Instant::now() + LEASE / 3, LEASE / 3);
    let mut begins = true;
    loop {
        begins &= !shared.draining.is_cancelled();
        while begins
            && under_way.len() < WIDTH
            && let Some(delivery) = waiting.pop_front()
        {
            begun.push(delivery.token);
            under_way.push(try_one(shared, due, claimed, delivery));
        }
        if under_way.is_empty() {
            break;
        }
        tokio::select! {
            Some(end) = under_way.next() => {
                begins &= end.outcome == DeliveryOutcome::Delivered;
                begun.retain(|token| *token != end.token);
                ends.push(end);
            }
            _ = keep.tick() => {
                if let Err(error) = shared.store.events().deliveries_extend(due.id, claimed.claim, LEASE).await {
                    // Others may take over then: at least once.
                    tracing::warn!(subscriber = due.name, %error, "deliveries under way could not be kept");
                }
            }
            () = shared.ending.cancelled() => break,
        }
    }
    drop(under_way);
    let back = begun.into_iter().chain(waiting.into_iter().map(|delivery| delivery.token));
    ends.extend(back.map(|token| DeliveryEnd {
        token,
        took: Duration::ZERO,
        status: None,
        error: None,
        outcome: DeliveryOutcome::Released,
    }));
    ends
}

/// What one try came to.
struct Tried {
    answered: Option<Answered>,
    snooze: Option<Duration>,
    status: Option<u16>,
    error: Option<String>,
}

impl Tried {
    fn new(answered: Answered, error: Option<String>) -> Self {
        Self { answered: Some(answered), snooze: None, status: None, error }
    }
}

async fn try_one(
    shared: &Arc<Shared>,
    due: &DueSubscriber,
    claimed: &ClaimedDeliveries,
    delivery: &ClaimedDelivery,
) -> DeliveryEnd {
    let began = Instant::now();
    let tried = match &claimed.url {
        Some(url) => post(shared, claimed, url, delivery).await,
        None => tell(shared, &due.name, claimed.timeout, delivery).await,
    };
    let outcome = outcome(&claimed.retry, claimed.failures, delivery, &tried);
    DeliveryEnd {
        token: delivery.token,
        took: began.elapsed(),
        status: tried.status,
        error: tried.error,
        outcome,
    }
}

fn outcome(
    policy: &RetryPolicy,
    failures: u32,
    delivery: &ClaimedDelivery,
    tried: &Tried,
) -> DeliveryOutcome {
    let Some(answered) = &tried.answered else {
        return tried.snooze.map_or(DeliveryOutcome::Released, |after| DeliveryOutcome::Snoozed { after });
    };
    // The row's own limit rather than the policy's of today.
    let attempts_max = if delivery.is_last { delivery.attempt } else { u32::MAX };
    let policy = RetryPolicy { attempts_max, ..*policy };
    let rest = |asked| rest_after(failures.saturating_add(1), asked, rand::random());
    match (after_answer(&policy, delivery.attempt, answered, rand::random()), answered) {
        (AfterTry::Done, _) => DeliveryOutcome::Delivered,
        (AfterTry::Again(after), Answered::Failed { after: asked }) => {
            DeliveryOutcome::Retry { after, rest: rest(*asked) }
        }
        (AfterTry::GiveUp, Answered::Gone) => DeliveryOutcome::Gone,
        (AfterTry::GiveUp, Answered::Failed { after }) => DeliveryOutcome::Dead { rest: Some(rest(*after)) },
        _ => DeliveryOutcome::Dead { rest: None },
    }
}

async fn post(shared: &Shared, claimed: &ClaimedDeliveries, url: &str, delivery: &ClaimedDelivery) -> Tried {
    let Some(courier) = &shared.courier else {
        return Tried { answered: None, snooze: None, status: None, error: None };
    };
    let posting =
        envelope::posting(&delivery.event, url, &claimed.secrets, SystemClock.now(), claimed.timeout);
    let exchange = AssertUnwindSafe(courier.post(posting)).catch_unwind();
    match tokio::time::timeout(claimed.timeout.saturating_add(COURIER_GRACE), exchange).await {
        Ok(Ok(Ok(reply))) => {
            let answered = Answered::by_status(reply.status, reply.retry_after);
            let error = (answered != Answered::Taken).then(|| format!("it answered {}", reply.status));
            Tried { status: Some(reply.status), ..Tried::new(answered, error) }
        }
        Ok(Ok(Err(error))) => Tried::new(Answered::Failed { after: None }, Some(error)),
        Ok(Err(_)) => Tried::new(Answered::Failed { after: None }, Some("the sender panicked".to_owned())),
        Err(_) => Tried::new(Answered::Failed { after: None }, Some(late(claimed.timeout))),
    }
}

fn late(timeout: Duration) -> String {
    format!("no whole answer within {} ms", timeout.as_millis())
}

async fn tell(shared: &Shared, name: &str, timeout: Duration, delivery: &ClaimedDelivery) -> Tried {
    let Some(subscription) = shared.subscribers.get(name) else {
        return Tried { answered: None, snooze: None, status: None, error: None };
    };
    let telling =
        AssertUnwindSafe(subscription.subscriber.told(envelope::event(&delivery.event))).catch_unwind();
    match tokio::time::timeout(timeout, telling).await {
        Ok(Ok(Ok(()))) => Tried::new(Answered::Taken, None),
        Ok(Ok(Err(failure))) => {
            let error = Some(failure.to_string());
            match failure {
                Failure::Retryable { after, .. } => Tried::new(Answered::Failed { after }, error),
                Failure::Permanent { .. } => Tried::new(Answered::Refused, error),
                Failure::Snooze { after } => {
                    Tried { answered: None, snooze: Some(after), status: None, error }
                }
                Failure::Stopped(_) => Tried { answered: None, snooze: None, status: None, error },
            }
        }
        Ok(Err(_)) => {
            Tried::new(Answered::Failed { after: None }, Some("the subscriber panicked".to_owned()))
        }
        Err(_) => Tried::new(Answered::Failed { after: None }, Some(late(timeout))),
    }
}

fn count(shared: &Shared, due: &DueSubscriber, ends: &[DeliveryEnd]) {
    for end in ends {
        match end.outcome {
            DeliveryOutcome::Delivered => one(&shared.counters.delivered),
            DeliveryOutcome::Retry { .. } => one(&shared.counters.delivery_failures),
            DeliveryOutcome::Dead { .. } | DeliveryOutcome::Gone => {
                add(&shared.counters.deliveries_dead, 1);
                tracing::warn!(
                    subscriber = due.name,
                    event_id = %end.token.event,
                    error = end.error,
                    "a delivery was given up"
                );
            }
            DeliveryOutcome::Snoozed { .. } | DeliveryOutcome::Released => {}
        }
    }
}

/// Says what became of them, however long the store is away. If this process ends before, they are made again.
async fn settle(shared: &Shared, ends: Vec<DeliveryEnd>) {
    loop {
        match shared.store.events().deliveries_settle(ends.clone()).await {
            Ok(_) => return,
            Err(error) => {
                one(&shared.counters.store_errors);
                tracing::warn!(%error, deliveries = ends.len(), "what became of deliveries waits for the store");
                tokio::select! {
                    () = shared.ending.cancelled() => return,
                    () = tokio::time::sleep(SETTLE_PAUSE) => {}
                }
            }
        }
    }
}
