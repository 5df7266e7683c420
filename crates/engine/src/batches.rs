//! Batches: what is watched together. Counts and states are the store's, exact at every commit; here their ends are noticed.
//!
//! Whoever changes a member tells this process of its batch, and [`run`] looks at it soon after: once for all that changed meanwhile. What was
//! not told, because somebody died in between, is found by looking at all unfinished batches now and then.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use recache_model::ids::BatchId;
use recache_store::{BatchDone, BatchDue, BatchFilter, BatchMember, BatchRecord, NewBatch, Word};
use tokio::sync::Notify;
use tokio::time::Instant;
use uuid::Uuid;

use crate::engine::{Engine, Shared, deadline};
use crate::error::{Error, Result};
use crate::origin;
use crate::stats::{add, one};

/// Changes that come within this time share one look.
const GATHER: Duration = Duration::from_millis(10);
/// Batches that one look takes.
const LOOKS_MAX: usize = 500;
/// Batches that one search for forgotten ones finds.
const DUE_MAX: u32 = 500;
/// Between two searches, in polls: only what a dead process left is found by them.
const SEARCH_POLLS: u32 = 5;
/// Members that one transaction cancels or retries.
const MEMBERS_MAX: u32 = 500;

/// Batches that were told of and not yet looked at.
#[derive(Debug, Default)]
pub(crate) struct MovedBatches {
    moved: Mutex<BTreeSet<BatchId>>,
    told: Notify,
}

impl MovedBatches {
    pub(crate) fn tell(&self, batch: BatchId) {
        self.moved.lock().unwrap_or_else(PoisonError::into_inner).insert(batch);
        self.told.notify_one();
    }

    fn take(&self) -> Vec<BatchId> {
        let mut moved = self.moved.lock().unwrap_or_else(PoisonError::into_inner);
        std::mem::take(&mut *moved).into_iter().collect()
    }
}

pub(crate) async fn run(shared: Arc<Shared>) {
    let mut search_at = Instant::now();
    loop {
        let told = shared.batches.told.notified();
        if Instant::now() >= search_at {
            let pause = shared.options.poll.saturating_mul(SEARCH_POLLS);
            search_at = Instant::now() + pause.mul_f64(0.75 + rand::random::<f64>() * 0.5);
            search(&shared).await;
        }
        let moved = shared.batches.take();
        for part in moved.chunks(LOOKS_MAX) {
            look(&shared, part).await;
        }
        tokio::select! {
            () = shared.ending.cancelled() => return,
            () = tokio::time::sleep_until(search_at) => {}
            () = told => tokio::time::sleep(GATHER).await,
        }
    }
}

/// One look at all that is to be looked at.
pub(crate) async fn pass(shared: &Shared) {
    search(shared).await;
    for part in shared.batches.take().chunks(LOOKS_MAX) {
        look(shared, part).await;
    }
}

async fn look(shared: &Shared, batches: &[BatchId]) {
    match shared.store.batches().batches_settle(batches.to_vec()).await {
        Ok(settled) => {
            add(&shared.counters.batches_ended, settled.ended.len());
            for batch in settled.ended {
                shared.waiters.wake(batch.uuid());
            }
            for callback in &settled.traced {
                origin::note_callback(callback);
            }
        }
        Err(error) => {
            // The next search finds them.
            one(&shared.counters.store_errors);
            tracing::warn!(%error, "batches not looked at");
        }
    }
}

async fn search(shared: &Shared) {
    let due = match shared.store.batches().batches_due(DUE_MAX).await {
        Ok(due) => due,
        Err(error) => {
            one(&shared.counters.store_errors);
            tracing::warn!(%error, "batches not searched");
            return;
        }
    };
    for due in due {
        match due {
            BatchDue::Settle(batch) => look(shared, &[batch]).await,
            BatchDue::Cancel(batch) => {
                // Its first reason stands.
                let reason = "its batch was cancelled";
                if let Err(error) = shared.store.batches().batch_cancel(batch, reason, MEMBERS_MAX).await {
                    one(&shared.counters.store_errors);
                    tracing::warn!(%error, batch_id = %batch, "members of a cancelled batch not called off yet");
                }
            }
        }
    }
}

impl Engine {
    /// Keeps a batch. True when it is new; creating the same one again is harmless.
    pub async fn create_batch(&self, batch: NewBatch) -> Result<(BatchRecord, bool)> {
        Ok(self.shared.store.batches().batch_create(batch).await?)
    }

    /// A batch: counts and state of one moment.
    pub async fn batch(&self, batch: BatchId) -> Result<BatchRecord> {
        Ok(self.shared.store.batches().batch_get(batch).await?)
    }

    /// Batches, newest first.
    pub async fn batches(&self, filter: BatchFilter) -> Result<Vec<BatchRecord>> {
        Ok(self.shared.store.batches().batches_list(filter).await?)
    }

    /// No more members can be added. True when this call closed it.
    pub async fn close_batch(&self, batch: BatchId) -> Result<bool> {
        Ok(self.shared.store.batches().batch_close(batch).await?)
    }

    /// Members in the order of their ids, those after `after`; `failed`: only those that failed, with their errors.
    pub async fn batch_members(
        &self,
        batch: BatchId,
        failed: bool,
        after: Option<Uuid>,
        rows_max: u32,
    ) -> Result<Vec<BatchMember>> {
        Ok(self.shared.store.batches().batch_members(batch, failed, after, rows_max).await?)
    }

    /// Calls off a batch with all that is in it. When this returns every member has ended; if it is given up half way, some engine goes
    /// on with it. Answers how many it called off.
    pub async fn cancel_batch(&self, batch: BatchId, reason: &str) -> Result<u64> {
        let mut cancelled = 0;
        loop {
            let some = self.shared.store.batches().batch_cancel(batch, reason, MEMBERS_MAX).await?;
            if some == 0 {
                return Ok(cancelled);
            }
            cancelled += some;
        }
    }

    /// Runs the failed jobs of a batch again, those of its workflows and of the batches within it; the batch goes on.
    pub async fn retry_batch(&self, batch: BatchId, word: Word) -> Result<BatchDone> {
        let mut sum = BatchDone::default();
        loop {
            let done =
                self.shared.store.batches().batch_retry(batch, word.clone(), sum.last, MEMBERS_MAX).await?;
            sum.changed += done.changed;
            sum.skipped += done.skipped;
            let Some(last) = done.last else { return Ok(sum) };
            sum.last = Some(last);
        }
    }

    /// Waits until a batch has ended and its callbacks are made, for `wait` at most.
    pub async fn wait_for_batch(&self, batch: BatchId, wait: Duration) -> Result<BatchRecord> {
        let deadline = deadline(wait);
        let watch = self.shared.waiters.watch(batch.uuid());
        loop {
            let changed = watch.changed();
            let record = self.batch(batch).await?;
            if record.finished_at.is_some() {
                return Ok(record);
            }
            if tokio::time::timeout_at(deadline, self.pause(changed)).await.is_err() {
                let counts = record.counts;
                let what =
                    format!("batch {batch}: {} of {} members have ended", counts.ended(), counts.total);
                return Err(Error::TimedOut { what, waited: wait });
            }
        }
    }
}
