//! What a transaction does that others may want to hear of once it is committed.

use std::collections::{BTreeMap, BTreeSet};

use recache_model::batch::{BatchCounts, MemberEnd};
use recache_model::ids::{BatchId, JobId, ViewId};

use super::event_drafts::NewDraft;
use crate::events::EventRecord;
use crate::records::{CacheMark, ClaimedJob, Settlement};
use crate::signal::Signal;

/// Collected while a transaction runs, announced after its commit.
#[derive(Debug, Default)]
pub(in super::super) struct Effects {
    queued: BTreeSet<String>,
    /// By queue, what waits for nothing more since this transaction. Nobody need hear of it where the same transaction claims all of it.
    unblocked: BTreeMap<String, BTreeSet<JobId>>,
    /// What the transaction counts, to be written as its last statement.
    batch_deltas: BTreeMap<BatchId, BatchCounts>,
    /// Batches whose end may have come.
    batches_touched: BTreeSet<BatchId>,
    are_touches_asked: bool,
    signals: Vec<Signal>,
    events_written: bool,
    /// To be written as one of the last statements.
    events: Vec<EventRecord>,
    /// The same of events without payloads.
    drafts: Vec<NewDraft>,
    drafts_written: bool,
}

impl Effects {
    pub(in super::super) fn queued(&mut self, queue: &str) {
        if !self.queued.contains(queue) {
            self.queued.insert(queue.to_owned());
        }
    }

    /// A job waits for nothing more.
    pub(in super::super) fn unblocked(&mut self, queue: &str, job: JobId) {
        if let Some(jobs) = self.unblocked.get_mut(queue) {
            jobs.insert(job);
        } else {
            self.unblocked.insert(queue.to_owned(), BTreeSet::from([job]));
        }
    }

    /// These have a worker already.
    pub(in super::super) fn claimed(&mut self, claimed: &[ClaimedJob]) {
        if self.unblocked.is_empty() {
            return;
        }
        let taken: BTreeSet<JobId> = claimed.iter().map(|job| job.token.job).collect();
        self.unblocked.retain(|_, jobs| !jobs.is_subset(&taken));
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

    /// New members of a batch.
    pub(in super::super) fn batch_added(&mut self, batch: BatchId, count: i64) {
        self.batch_deltas.entry(batch).or_default().total += count;
    }

    /// A member of a batch ended, or goes on.
    pub(in super::super) fn batch_moved(
        &mut self,
        batch: BatchId,
        from: Option<MemberEnd>,
        to: Option<MemberEnd>,
    ) {
        self.batch_deltas.entry(batch).or_default().moved(from, to);
        self.batches_touched.insert(batch);
    }

    /// The end of a batch may have come, and it should be looked at.
    pub(in super::super) fn batch_touched(&mut self, batch: BatchId) {
        self.batches_touched.insert(batch);
    }

    pub(in super::super) fn batch_ended(&mut self, batch: BatchId) {
        self.signals.push(Signal::BatchEnded(batch));
    }

    /// Requests for touches were written.
    pub(in super::super) fn touches_asked(&mut self) {
        self.are_touches_asked = true;
    }

    /// What is to be counted; nothing is left.
    pub(in super::super) fn take_batch_deltas(&mut self) -> BTreeMap<BatchId, BatchCounts> {
        let mut deltas = std::mem::take(&mut self.batch_deltas);
        deltas.retain(|_, delta| *delta != BatchCounts::default());
        deltas
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

    /// Something to be kept.
    pub(in super::super) fn event(&mut self, event: EventRecord) {
        self.events.push(event);
    }

    /// What is to be kept; nothing is left.
    pub(in super::super) fn take_events(&mut self) -> Vec<EventRecord> {
        std::mem::take(&mut self.events)
    }

    /// Something that a publisher has to make a payload for.
    pub(in super::super) fn draft(&mut self, draft: NewDraft) {
        self.drafts.push(draft);
    }

    /// What is to be kept; nothing is left.
    pub(in super::super) fn take_drafts(&mut self) -> Vec<NewDraft> {
        std::mem::take(&mut self.drafts)
    }

    /// Publishers have something to do.
    pub(in super::super) fn drafts_written(&mut self) {
        self.drafts_written = true;
    }

    /// Whoever listens in this process hears of it at once.
    pub(in super::super) fn happened(&mut self, event: EventRecord) {
        self.signals.push(Signal::Happened(Box::new(event)));
    }

    pub(in super::super) fn into_signals(self) -> Vec<Signal> {
        let mut signals = self.signals;
        let mut queued = self.queued;
        queued.extend(self.unblocked.into_keys());
        signals.extend(queued.into_iter().map(Signal::Queued));
        signals.extend(self.events_written.then_some(Signal::EventsWritten));
        signals.extend(self.drafts_written.then_some(Signal::DraftsWritten));
        signals.extend(self.are_touches_asked.then_some(Signal::TouchesAsked));
        signals.extend(self.batches_touched.into_iter().map(Signal::BatchMoved));
        signals
    }
}
