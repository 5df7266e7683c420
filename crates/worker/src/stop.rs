//! Telling a running handler to stop.

use std::fmt;
use std::sync::{Arc, OnceLock};

use tokio_util::sync::CancellationToken;

/// Why a handler shall stop.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Stop {
    /// Somebody cancelled the job.
    Cancelled,
    /// A newer version of the view is wanted.
    Superseded,
    /// The job is no longer this worker's.
    LeaseLost,
    /// It ran longer than it may.
    Timeout,
    /// The worker shuts down; the job will run again elsewhere.
    Shutdown,
}

impl fmt::Display for Stop {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Cancelled => "the job was cancelled",
            Self::Superseded => "a newer version of the view is wanted",
            Self::LeaseLost => "the job is no longer this worker's",
            Self::Timeout => "the job ran longer than it may",
            Self::Shutdown => "the worker shuts down",
        })
    }
}

/// Set once, seen by every clone; the first reason stands.
#[derive(Debug, Clone, Default)]
pub struct StopSignal {
    token: CancellationToken,
    reason: Arc<OnceLock<Stop>>,
}

impl StopSignal {
    /// A signal that is not set.
    pub fn new() -> Self {
        Self::default()
    }

    /// Sets it. A later reason changes nothing.
    pub fn stop(&self, reason: Stop) {
        let _ = self.reason.set(reason);
        self.token.cancel();
    }

    /// Why to stop, if it is set. Costs nanoseconds.
    pub fn reason(&self) -> Option<Stop> {
        self.reason.get().copied()
    }

    /// Waits until it is set.
    pub async fn stopped(&self) -> Stop {
        self.token.cancelled().await;
        self.reason().unwrap_or(Stop::LeaseLost)
    }
}
