//! Who takes part: one run of one process. Its number is drawn at its start, so that a process which gets the number of
//! one that ended, on the same host, is not taken for it.

use std::fmt;

use serde::Serialize;

/// One run of one process.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize)]
pub struct Instance {
    /// Name of the machine or container.
    pub host: String,
    /// Number of the process on it.
    pub pid: u32,
    /// Drawn at random when the process started.
    pub boot_nonce: u64,
}

impl Instance {
    /// This process; who starts it knows the host's name and draws the number.
    pub fn new(host: impl Into<String>, pid: u32, boot_nonce: u64) -> Self {
        Self { host: host.into(), pid, boot_nonce }
    }
}

impl fmt::Display for Instance {
    /// `web-1/4711/00c0ffee00c0ffee`
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}/{:016x}", self.host, self.pid, self.boot_nonce)
    }
}
