//! Events that their templates want told at once, to whoever listens in this process.

use recache_store::Signal;
use recache_worker::Event;
use tokio::sync::broadcast::{Receiver, error::RecvError};

use super::envelope;
use crate::engine::Engine;

/// Hears of events of `delivery_mode: fast` or `broadcast` whose steps end in this process from now on, or whose payloads a publisher of
/// this process makes from now on, at most once, and not of what happened before. For all others, and for every process, there are subscribers.
#[derive(Debug)]
pub struct LiveEvents {
    hints: Receiver<Signal>,
}

/// What was heard.
#[derive(Debug, Clone, PartialEq)]
pub enum Live {
    /// Something happened.
    Event(Box<Event>),
    /// The listener was too slow: hints were dropped, and events may have been among them.
    Missed,
}

impl LiveEvents {
    /// The next one; `None` when the store has been closed.
    pub async fn next(&mut self) -> Option<Live> {
        loop {
            match self.hints.recv().await {
                Ok(Signal::Happened(event)) => return Some(Live::Event(Box::new(envelope::event(&event)))),
                Ok(_) => {}
                Err(RecvError::Lagged(_)) => return Some(Live::Missed),
                Err(RecvError::Closed) => return None,
            }
        }
    }
}

impl Engine {
    /// Begins to listen. See [`LiveEvents`].
    pub fn live_events(&self) -> LiveEvents {
        LiveEvents { hints: self.shared.store.subscribe() }
    }
}
