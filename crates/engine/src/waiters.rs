//! Callers that wait for a job, a workflow or a view.

use std::collections::HashMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::Notify;
use uuid::Uuid;

/// Who waits for what. Costs one atomic read where nobody waits.
#[derive(Debug, Default)]
pub(crate) struct Waiters {
    count: AtomicUsize,
    by_id: Mutex<HashMap<Uuid, Arc<Notify>>>,
}

impl Waiters {
    /// Registers; hold it while looking, so that no change slips through between look and wait.
    pub(crate) fn watch(self: &Arc<Self>, id: Uuid) -> Watch {
        let mut by_id = self.by_id.lock().unwrap_or_else(PoisonError::into_inner);
        self.count.fetch_add(1, Ordering::SeqCst);
        let notify = Arc::clone(by_id.entry(id).or_default());
        Watch { waiters: Arc::clone(self), id, notify }
    }

    /// Something changed about `id`.
    pub(crate) fn wake(&self, id: Uuid) {
        if self.count.load(Ordering::SeqCst) == 0 {
            return;
        }
        if let Some(notify) = self.by_id.lock().unwrap_or_else(PoisonError::into_inner).get(&id) {
            notify.notify_waiters();
        }
    }
}

#[derive(Debug)]
pub(crate) struct Watch {
    waiters: Arc<Waiters>,
    id: Uuid,
    notify: Arc<Notify>,
}

impl Watch {
    /// Prepare it before the look, await it after.
    pub(crate) fn changed(&self) -> tokio::sync::futures::Notified<'_> {
        self.notify.notified()
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        let mut by_id = self.waiters.by_id.lock().unwrap_or_else(PoisonError::into_inner);
        self.waiters.count.fetch_sub(1, Ordering::SeqCst);
        // Ours and the map's: nobody else waits for it.
        if Arc::strong_count(&self.notify) <= 2 {
            by_id.remove(&self.id);
        }
    }
}
