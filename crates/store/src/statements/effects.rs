//! What a transaction does that others may want to hear of once it is committed.

use std::collections::BTreeSet;

use recache_model::ids::{JobId, ViewId};

use crate::events::EventRecord;
use crate::records::{CacheMark, Settlement};
use crate::signal::Signal;

/// Collected while a transaction runs, announced after its commit.
#[derive(Debug, Default)]
pub(in super::super) struct Effects {
    queued: BTreeSet<String>,
    signals: Vec<Signal>,
    events_written: bool,
}

impl Effects {
    pub(in super::super) fn queued(&mut self, queue: &str) {
        if !self.queued.contains(queue) {
            self.queued.insert(queue.to_owned());
        }
    }

    /// A settled job that limits concern may let another one begin.
    pub(in super::super) fn made_room(&mut self, settlement: &Settlement) {
        if let Some(queue) = &settlement.limited_queue {
            self.queued(queue);
        }
    }

    pub(in super::super) fn revoked(&mut self, job: JobId) {
        self.signals.push(Signal::Revoked(job));
    }

    pub(in super::super) fn view_changed(&mut self, view: ViewId) {
        self.signals.push(Signal::ViewChanged(view));
    }

    pub(in super::super) fn published(&mut self, view: ViewId, version: i64) {
        self.signals.push(Signal::Published(view, version));
    }

    pub(in super::super) fn cache_raised(&mut self, prefix: &str, mark: CacheMark) {
        self.signals.push(Signal::CacheRaised(prefix.to_owned(), mark));
    }

    /// Somebody may have to be told.
    pub(in super::super) fn events_written(&mut self) {
        self.events_written = true;
    }

    /// Whoever listens in this process hears of it at once.
    pub(in super::super) fn happened(&mut self, event: EventRecord) {
        self.signals.push(Signal::Happened(Box::new(event)));
    }

    pub(in super::super) fn into_signals(self) -> Vec<Signal> {
        let mut signals = self.signals;
        signals.extend(self.queued.into_iter().map(Signal::Queued));
        if self.events_written {
            signals.push(Signal::EventsWritten);
        }
        signals
    }
}
