//! Hands events to subscribers and sees to their deliveries.
//!
//! Any process may do any of it: events are handed on under a lock that others skip, deliveries are claimed for a time, and what a
//! process had claimed when it died is due again after that. Each subscriber has a lane of its own (`lane.rs`), so that one
//! that hangs holds up nobody else; and steps write their events and look at no subscriber at all.

mod courier;
mod envelope;
mod lane;
mod live;

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use recache_model::event::EventFilter;
use recache_model::ids::SubscriberId;
use recache_store::{DueSubscriber, Error as StoreError, NewSubscriber, SubscriberKind};
use tokio::sync::mpsc;
use tokio::time::Instant;

use crate::engine::{Engine, Shared};
use crate::error::Result;
use crate::stats::{add, one};

pub use courier::{Courier, Posting, Reply};
pub use live::{Live, LiveEvents};

/// Events that one transaction hands on.
const ROUTED_MAX: u32 = 500;
/// A lane that has ended begins again after this long at the earliest: others may hold what seems due.
const LANE_PAUSE: Duration = Duration::from_millis(50);

/// How often it is looked after which changes of state are written: those that nobody listens for any more are not.
const WATCH_EVERY: Duration = Duration::from_mins(1);

/// Makes the subscribers of this process known.
pub(crate) async fn register(shared: &Shared) -> Result<()> {
    for (name, subscription) in shared.subscribers.iter() {
        let subscriber = NewSubscriber {
            name: name.to_owned(),
            kind: SubscriberKind::Handler,
            filter: EventFilter {
                types: subscription.types.clone(),
                namespace: subscription.namespace.clone(),
            },
            retry: recache_model::event::delivery_policy(),
            timeout: subscription.timeout,
        };
        shared.store.events().subscriber_put(subscriber).await?;
    }
    Ok(())
}

impl Engine {
    /// Whoever carries webhooks out of this process, if anybody does.
    pub fn courier(&self) -> Option<&dyn Courier> {
        self.shared.courier.as_deref()
    }
}

/// Whether this process can tell anybody anything.
pub(crate) fn can_deliver(shared: &Shared) -> bool {
    shared.courier.is_some() || !shared.subscribers.is_empty()
}

pub(crate) async fn run(shared: Arc<Shared>) {
    let (ended, mut ends) = mpsc::unbounded_channel();
    // Lanes under way, and until when those that have ended rest.
    let mut lanes: HashMap<SubscriberId, Option<Instant>> = HashMap::new();
    let mut watched: Option<Instant> = None;
    loop {
        if watched.is_none_or(|at| at.elapsed() >= WATCH_EVERY) {
            watched = Some(Instant::now());
            if let Err(error) = shared.store.events().events_watch().await {
                one(&shared.counters.store_errors);
                tracing::warn!(%error, "not sure that all changes of state are written that are asked for");
            }
        }
        let next = match turn(&shared, &mut lanes, &ended).await {
            Ok(next) => next,
            Err(error) => {
                one(&shared.counters.store_errors);
                tracing::warn!(%error, "events wait for the store");
                shared.options.poll
            }
        };
        let deadline = Instant::now() + next.min(shared.options.poll);
        tokio::select! {
            () = shared.draining.cancelled() => return,
            () = shared.events_due.notified() => {}
            Some(lane) = ends.recv() => {
                lanes.insert(lane, Some(Instant::now() + LANE_PAUSE));
            }
            () = tokio::time::sleep_until(deadline) => {}
        }
    }
}

/// Hands on what is new and starts the lanes that have something to do. Answers when to look again.
async fn turn(
    shared: &Arc<Shared>,
    lanes: &mut HashMap<SubscriberId, Option<Instant>>,
    ended: &mpsc::UnboundedSender<SubscriberId>,
) -> std::result::Result<Duration, StoreError> {
    route(shared).await?;
    let mut next = shared.options.poll;
    let now = Instant::now();
    for due in shared.store.events().deliveries_due().await? {
        let Some(wait) = due.wait.filter(|_| is_ours(shared, &due)) else { continue };
        let rests = match lanes.get(&due.id) {
            // Its end will be heard of.
            Some(None) => continue,
            Some(Some(until)) => until.saturating_duration_since(now),
            None => Duration::ZERO,
        };
        let wait = wait.max(rests);
        if !wait.is_zero() {
            next = next.min(wait);
            continue;
        }
        lanes.insert(due.id, None);
        let (shared, ended) = (Arc::clone(shared), ended.clone());
        shared.tasks.clone().spawn(async move {
            let id = due.id;
            lane::run(&shared, due).await;
            let _ = ended.send(id);
        });
    }
    Ok(next)
}

/// Does once what [`run`] does over and over, and waits for its end. Answers how many deliveries were tried.
pub(crate) async fn run_due(shared: &Arc<Shared>) -> std::result::Result<usize, StoreError> {
    route(shared).await?;
    let mut tried = 0;
    for due in shared.store.events().deliveries_due().await? {
        if is_ours(shared, &due) && due.wait.is_some_and(|wait| wait.is_zero()) {
            tried += lane::run(shared, due).await;
        }
    }
    Ok(tried)
}

/// Whether this process can tell this subscriber.
fn is_ours(shared: &Shared, due: &DueSubscriber) -> bool {
    if due.is_webhook { shared.courier.is_some() } else { shared.subscribers.get(&due.name).is_some() }
}

/// Hands on all that is new.
pub(crate) async fn route(shared: &Shared) -> std::result::Result<(), StoreError> {
    loop {
        let routed = shared.store.events().events_route(ROUTED_MAX).await?;
        add(&shared.counters.events_routed, usize::try_from(routed.events).unwrap_or(usize::MAX));
        if routed.events < u64::from(ROUTED_MAX) || shared.draining.is_cancelled() {
            return Ok(());
        }
    }
}
