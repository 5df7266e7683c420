//! Who in this process waits for what another one does. Messages are hints: who waits bounds the wait and looks again.

use std::collections::HashMap;
use std::future::Future;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::Notify;

use crate::key::Key;

/// The epochs have changed.
pub(super) const EPOCHS: &str = "e";

/// The leases of these keys have ended. Keys contain no spaces.
pub(super) fn of_keys<'a>(keys: impl IntoIterator<Item = &'a Key>) -> String {
    let mut text = "l".to_owned();
    for key in keys {
        text.push(' ');
        text.push_str(key.as_str());
    }
    text
}

#[derive(Debug)]
pub(super) struct Wakes {
    channel: String,
    is_wanted: AtomicBool,
    waiting: Arc<Mutex<HashMap<String, Waiters>>>,
    epochs: Arc<Notify>,
}

#[derive(Debug, Default)]
struct Waiters {
    count: usize,
    wake: Arc<Notify>,
}

impl Wakes {
    pub(super) fn new(channel: String) -> Self {
        Self { channel, is_wanted: AtomicBool::new(false), waiting: Arc::default(), epochs: Arc::default() }
    }

    pub(super) fn channel(&self) -> &str {
        &self.channel
    }

    /// Whether somebody has ever waited; true when this is the first.
    pub(super) fn want(&self) -> bool {
        !self.is_wanted.swap(true, Ordering::AcqRel)
    }

    pub(super) fn is_wanted(&self) -> bool {
        self.is_wanted.load(Ordering::Acquire)
    }

    /// Waits from the call on.
    pub(super) fn lease_ended(&self, key: &str) -> impl Future<Output = ()> + Send + use<> {
        let wake = {
            let mut waiting = locked(&self.waiting);
            let waiters = waiting.entry(key.to_owned()).or_default();
            waiters.count += 1;
            Arc::clone(&waiters.wake)
        };
        let woken = wake.notified_owned();
        let waiter = Waiter { waiting: Arc::clone(&self.waiting), key: key.to_owned() };
        async move {
            woken.await;
            drop(waiter);
        }
    }

    /// Waits from the call on.
    pub(super) fn epochs_changed(&self) -> impl Future<Output = ()> + Send + use<> {
        Arc::clone(&self.epochs).notified_owned()
    }

    /// A message of another process, or of this one.
    pub(super) fn hear(&self, message: &[u8]) {
        let Ok(message) = std::str::from_utf8(message) else { return };
        if message == EPOCHS {
            self.epochs.notify_waiters();
        } else if let Some(keys) = message.strip_prefix("l ") {
            let waiting = locked(&self.waiting);
            for key in keys.split(' ') {
                if let Some(waiters) = waiting.get(key) {
                    waiters.wake.notify_waiters();
                }
            }
        }
    }

    /// Messages may have been missed: everybody looks.
    pub(super) fn hear_all(&self) {
        self.epochs.notify_waiters();
        for waiters in locked(&self.waiting).values() {
            waiters.wake.notify_waiters();
        }
    }
}

/// Forgets who waits no more.
struct Waiter {
    waiting: Arc<Mutex<HashMap<String, Waiters>>>,
    key: String,
}

impl Drop for Waiter {
    fn drop(&mut self) {
        let mut waiting = locked(&self.waiting);
        if let Some(waiters) = waiting.get_mut(&self.key) {
            waiters.count -= 1;
            if waiters.count == 0 {
                waiting.remove(&self.key);
            }
        }
    }
}

fn locked(waiting: &Mutex<HashMap<String, Waiters>>) -> MutexGuard<'_, HashMap<String, Waiters>> {
    waiting.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::key::KeyPrefix;

    #[tokio::test]
    async fn a_message_wakes_who_waits_for_its_keys_and_nobody_is_kept() {
        let wakes = Wakes::new("c".to_owned());
        let keys = ["a", "b", "c"].map(|name| KeyPrefix::new("p").space("s").key([name]));
        let [a, b, other] = [0, 1, 2].map(|at: usize| Box::pin(wakes.lease_ended(keys[at].as_str())));
        wakes.hear(of_keys(&keys[..2]).as_bytes());
        a.await;
        b.await;
        assert_eq!(locked(&wakes.waiting).len(), 1);
        wakes.hear_all();
        other.await;
        assert!(locked(&wakes.waiting).is_empty());
    }
}
