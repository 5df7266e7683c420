//! What a handler keeps and says during its attempts.

use std::fmt::Debug;

use async_trait::async_trait;
use recache_model::ids::JobId;
use recache_model::time::Timestamp;

use crate::error::Result;
use crate::records::{LeaseToken, Revoked};

/// Largest checkpoint, in bytes.
pub const CHECKPOINT_BYTES_MAX: usize = 64 * 1024;
/// Lines that are kept of a job; older ones make room.
pub const LOG_LINES_MAX: i64 = 1_000;
/// Longest line, in bytes; what is beyond is cut off.
pub const LOG_LINE_BYTES_MAX: usize = 4 * 1024;

/// A line that a handler said.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogLine {
    /// Its number in the job, dense from 1; where the first ones are missing they made room.
    pub seq: i64,
    /// In which attempt.
    pub attempt: u32,
    /// When it was kept.
    pub at: Timestamp,
    /// What was said.
    pub text: String,
}

/// What handlers write besides their result. With a token that is no longer good nothing changes, and the answer says why.
#[async_trait]
pub trait Attempts: Send + Sync + Debug {
    /// Keeps data for the job's next attempt, in place of what was kept before: JSON of at most [`CHECKPOINT_BYTES_MAX`]. `None`
    /// when the token is good.
    async fn checkpoint_save(&self, token: LeaseToken, data: &str) -> Result<Option<Revoked>>;

    /// Keeps lines. `None` when the token is good.
    async fn log_append(&self, token: LeaseToken, lines: Vec<String>) -> Result<Option<Revoked>>;

    /// The newest lines of a job, oldest first.
    async fn log_read(&self, job: JobId, rows_max: u32) -> Result<Vec<LogLine>>;
}
