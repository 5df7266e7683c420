//! Keeps the runtime's timer from being woken by every call.
//!
//! Each call has a time limit, and so begins a timer that hardly ever ends. When a timer is to end before all others, tokio
//! wakes the thread that waits for I/O so that it waits for less long; with nothing else going on that is so for each call:
//! two writes to an eventfd and a change of threads, an eighth of a read over loopback (Redis, `strace`). While calls are
//! made, one timer that always ends sooner spares them that. It is an aid only: no limit depends on it.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tokio::runtime::Handle;
use tokio::time::sleep;

#[derive(Debug, Clone)]
pub(super) struct Awake {
    flags: Arc<Flags>,
    step: Duration,
}

#[derive(Debug, Default)]
struct Flags {
    is_kept: AtomicBool,
    was_used: AtomicBool,
}

impl Awake {
    /// For calls that may take `limit`.
    pub(super) fn new(limit: Duration) -> Self {
        Self { flags: Arc::default(), step: limit / 2 }
    }

    /// A call is made that is to be waited for.
    pub(super) fn keep(&self) {
        self.flags.was_used.store(true, Ordering::Relaxed);
        if self.flags.is_kept.load(Ordering::Relaxed) || self.step.is_zero() {
            return;
        }
        let Ok(runtime) = Handle::try_current() else { return };
        if self.flags.is_kept.swap(true, Ordering::Relaxed) {
            return;
        }
        let (kept, step) = (Kept(Arc::clone(&self.flags)), self.step);
        runtime.spawn(async move {
            while kept.0.was_used.swap(false, Ordering::Relaxed) {
                sleep(step).await;
            }
        });
    }
}

/// Until the calls have ended, or the runtime has.
struct Kept(Arc<Flags>);

impl Drop for Kept {
    fn drop(&mut self) {
        self.0.is_kept.store(false, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn it_ends_when_no_calls_are_made_and_begins_anew() {
        let awake = Awake::new(Duration::from_millis(50));
        for _ in 0..2 {
            awake.keep();
            for _ in 0..10 {
                sleep(Duration::from_millis(20)).await;
                awake.keep();
                assert!(awake.flags.is_kept.load(Ordering::Relaxed));
            }
            sleep(Duration::from_millis(51)).await;
            assert!(!awake.flags.is_kept.load(Ordering::Relaxed));
        }
    }

    #[test]
    fn a_runtime_that_ends_leaves_it_to_the_next() {
        let awake = Awake::new(Duration::from_millis(50));
        for _ in 0..2 {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
            runtime.block_on(async { awake.keep() });
            assert!(awake.flags.is_kept.load(Ordering::Relaxed));
            drop(runtime);
            assert!(!awake.flags.is_kept.load(Ordering::Relaxed));
        }
        awake.keep();
        assert!(!awake.flags.is_kept.load(Ordering::Relaxed), "outside a runtime there is nothing to keep");
    }
}
