//! The processes of one program, as one group.

use std::sync::atomic::{AtomicI32, Ordering};

use rustix::process::{Pid, Signal, kill_process_group};
use tokio::process::Child;

/// Killed as a whole when it is dropped. Its number is 0 once it has been.
#[derive(Debug)]
pub(super) struct Group(AtomicI32);

impl Group {
    /// Of a child that began a group of its own, and has not been waited for.
    pub(super) fn of(child: &Child) -> Self {
        Self(AtomicI32::new(child.id().and_then(|id| i32::try_from(id).ok()).unwrap_or(0)))
    }

    /// Bounds the address space of each process and leaves no core. What a process begins before that, in its first moments, counts
    /// as soon as it asks for more.
    #[cfg(target_os = "linux")]
    pub(super) fn limit(&self, memory_mib: u32) {
        use rustix::process::{Resource, Rlimit, prlimit};

        let Some(leader) = Pid::from_raw(self.0.load(Ordering::Relaxed)) else { return };
        let to = |bytes: u64| Rlimit { current: Some(bytes), maximum: Some(bytes) };
        // One that has ended already needs no limits.
        let _ = prlimit(Some(leader), Resource::As, to(u64::from(memory_mib) * 1024 * 1024));
        let _ = prlimit(Some(leader), Resource::Core, to(0));
    }

    #[cfg(not(target_os = "linux"))]
    #[expect(clippy::unused_self, reason = "there is no call that limits another process")]
    pub(super) fn limit(&self, _memory_mib: u32) {}

    /// Tells all of it to end.
    pub(super) fn ask_to_end(&self) {
        if let Some(group) = Pid::from_raw(self.0.load(Ordering::Relaxed)) {
            let _ = kill_process_group(group, Signal::TERM);
        }
    }

    /// Ends all of it, once: later its number may be another's.
    pub(super) fn end(&self) {
        if let Some(group) = Pid::from_raw(self.0.swap(0, Ordering::Relaxed)) {
            let _ = kill_process_group(group, Signal::KILL);
        }
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        self.end();
    }
}
