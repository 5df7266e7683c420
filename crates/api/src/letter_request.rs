//! What is asked for about dead letters.

use serde::{Deserialize, Serialize};

/// Why something is done about a dead letter.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct LetterWord {
    /// Why; kept with the dead letter and in the audit.
    #[cfg_attr(feature = "openapi", schema(min_length = 1, max_length = 1_000))]
    pub reason: String,
}

/// A note on a dead letter.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct NoteLetter {
    /// What to note.
    #[cfg_attr(feature = "openapi", schema(min_length = 1, max_length = 1_000))]
    pub text: String,
}

/// Which open dead letters are put back to the queue.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct RedriveLetters {
    /// `job_…`: only that of this job.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "openapi", schema(min_length = 1, max_length = 64))]
    pub job_id: Option<String>,
    /// Only of this namespace.
    #[serde(default)]
    #[cfg_attr(feature = "openapi", schema(min_length = 1, max_length = 256))]
    pub namespace: Option<String>,
    /// Only of this queue.
    #[serde(default)]
    #[cfg_attr(feature = "openapi", schema(min_length = 1, max_length = 256))]
    pub queue: Option<String>,
    /// Only of this handler.
    #[serde(default)]
    #[cfg_attr(feature = "openapi", schema(min_length = 1, max_length = 256))]
    pub handler: Option<String>,
    /// Only those whose status is at least this old.
    #[serde(default)]
    #[cfg_attr(feature = "openapi", schema(maximum = 315_360_000_000_i64))]
    pub stale_ms: Option<u64>,
    /// All that are open; must be said where nothing else chooses.
    #[serde(default)]
    pub all: bool,
    /// Count, and change nothing.
    #[serde(default)]
    pub dry_run: bool,
    /// `next` of the call before, with the same filter.
    #[serde(default)]
    #[cfg_attr(feature = "openapi", schema(min_length = 1, max_length = 4_096))]
    pub cursor: Option<String>,
    /// Why; kept with each dead letter and in the audit.
    #[cfg_attr(feature = "openapi", schema(min_length = 1, max_length = 1_000))]
    pub reason: String,
}
