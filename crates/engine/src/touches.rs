//! Touches that come at the same time go to the store together.

use std::collections::HashMap;
use std::sync::Arc;

use recache_store::{TOUCH_TRACES_MAX, Touch, TouchOutcome};
use tokio::sync::{mpsc, oneshot};

use crate::engine::Shared;
use crate::error::{Error, Result};
use crate::stats::add;

/// Touches that may wait; more callers wait for a place.
const WAITING_MAX: usize = 10_000;
/// Touches in one transaction.
const GROUP_MAX: usize = 1_000;

type Reply = oneshot::Sender<Result<TouchOutcome>>;

#[derive(Debug, Clone)]
pub(crate) struct Touches {
    queue: mpsc::Sender<(Touch, Reply)>,
}

impl Touches {
    pub(crate) fn start(shared: &Arc<Shared>) -> Self {
        let (queue, waiting) = mpsc::channel(WAITING_MAX);
        shared.tasks.spawn(run(Arc::clone(shared), waiting));
        Self { queue }
    }

    pub(crate) async fn touch(&self, touch: Touch) -> Result<TouchOutcome> {
        // At the door: touches of one view become one, and a bad one must not spoil the others.
        touch.check()?;
        let (reply, answer) = oneshot::channel();
        self.queue.send((touch, reply)).await.map_err(|_| Error::ShuttingDown)?;
        answer.await.map_err(|_| Error::ShuttingDown)?
    }
}

async fn run(shared: Arc<Shared>, mut waiting: mpsc::Receiver<(Touch, Reply)>) {
    let mut group = Vec::with_capacity(GROUP_MAX);
    loop {
        tokio::select! {
            () = shared.ending.cancelled() => return,
            count = waiting.recv_many(&mut group, GROUP_MAX) => if count == 0 { return },
        }
        let (touches, replies) = gather(std::mem::take(&mut group));
        add(&shared.counters.touches_coalesced, replies.iter().map(|replies| replies.len() - 1).sum());
        match shared.store.views_touch(touches.clone()).await {
            Ok(outcomes) => answer(replies, outcomes.into_iter().map(Ok)),
            Err(error) if touches.len() > 1 && !error.is_retryable() => {
                // One of them cannot be made, and so none was: each on its own tells which.
                let mut outcomes = Vec::with_capacity(touches.len());
                for touch in touches {
                    outcomes.push(one_by_one(&shared, touch).await);
                }
                answer(replies, outcomes.into_iter());
            }
            Err(error) => {
                for reply in replies.into_iter().flatten() {
                    let _ = reply.send(Err(same(&error).into()));
                }
            }
        }
    }
}

async fn one_by_one(shared: &Shared, touch: Touch) -> Result<TouchOutcome> {
    let mut outcomes = shared.store.views_touch(vec![touch]).await?;
    outcomes.pop().ok_or(Error::ShuttingDown)
}

fn answer(replies: Vec<Vec<Reply>>, outcomes: impl Iterator<Item = Result<TouchOutcome>>) {
    for (replies, outcome) in replies.into_iter().zip(outcomes) {
        for reply in replies {
            let _ = reply.send(match &outcome {
                Ok(made) => Ok(*made),
                Err(Error::Store(error)) => Err(same(error).into()),
                Err(_) => Err(Error::ShuttingDown),
            });
        }
    }
}

/// The same answer for everyone who shared the statement: above all, what is unknown to one is unknown to all.
fn same(error: &recache_store::Error) -> recache_store::Error {
    use recache_store::Error as Store;
    match error {
        Store::Invalid(message) => Store::Invalid(message.clone()),
        Store::NotFound { what, id } => Store::NotFound { what, id: id.clone() },
        Store::Conflict(message) => Store::Conflict(message.clone()),
        Store::Unavailable { message, .. } => Store::Unavailable { message: message.clone(), source: None },
        Store::Unknown { message, .. } => Store::Unknown { message: message.clone(), source: None },
        Store::Broken { message, .. } => Store::Broken { message: message.clone(), source: None },
    }
}

/// Touches of the same view become one: its items are all of theirs, or "any" if one of them says so.
fn gather(group: Vec<(Touch, Reply)>) -> (Vec<Touch>, Vec<Vec<Reply>>) {
    let mut places: HashMap<(String, String), usize> = HashMap::new();
    let mut touches: Vec<Touch> = Vec::new();
    let mut replies: Vec<Vec<Reply>> = Vec::new();
    for (touch, reply) in group {
        match places.get(&(touch.namespace.clone(), touch.key.clone())) {
            None => {
                places.insert((touch.namespace.clone(), touch.key.clone()), touches.len());
                touches.push(touch);
                replies.push(vec![reply]);
            }
            Some(place) => {
                let one = &mut touches[*place];
                if one.items.is_empty() || touch.items.is_empty() {
                    one.items.clear();
                } else {
                    one.items.extend(touch.items);
                    one.items.sort_unstable();
                    one.items.dedup();
                }
                one.at_once |= touch.at_once;
                // The last word that was said.
                one.word = touch.word.or(one.word.take());
                one.traces.extend(touch.traces);
                one.traces.truncate(usize::from(TOUCH_TRACES_MAX));
                replies[*place].push(reply);
            }
        }
    }
    (touches, replies)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn touch(key: &str, items: &[&str]) -> (Touch, Reply) {
        let touch = Touch {
            namespace: "n".to_owned(),
            key: key.to_owned(),
            items: items.iter().map(|item| (*item).to_owned()).collect(),
            ..Touch::default()
        };
        (touch, oneshot::channel().0)
    }

    #[test]
    fn touches_of_one_view_share_a_statement_and_add_up_their_items() {
        let (touches, replies) =
            gather(vec![touch("a", &["x"]), touch("b", &["y"]), touch("a", &["z", "x"]), touch("b", &[])]);
        assert_eq!(touches.len(), 2);
        assert_eq!(touches[0].items, ["x", "z"]);
        assert!(touches[1].items.is_empty(), "one of them names no items: any may be affected");
        assert_eq!(replies.iter().map(Vec::len).collect::<Vec<_>>(), [2, 2]);
    }
}
