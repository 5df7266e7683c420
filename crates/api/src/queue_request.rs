//! What is asked for about queues and limits.

use serde::{Deserialize, Serialize};

use crate::instant::Instant;

/// That nothing of a queue is to begin.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct PauseQueue {
    /// Why; shown to whoever looks, and kept in the audit.
    #[cfg_attr(feature = "openapi", schema(min_length = 1, max_length = 1_000))]
    pub reason: String,
    /// The pause ends by itself after so long; not together with `until`.
    #[serde(default)]
    #[cfg_attr(feature = "openapi", schema(minimum = 1, maximum = 315_360_000_000_i64))]
    pub for_ms: Option<u64>,
    /// It ends by itself at this instant.
    #[serde(default)]
    pub until: Option<Instant>,
}

/// What a limit is of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "snake_case")]
pub enum LimitOf {
    /// All jobs of a queue.
    Queue,
    /// All jobs of a handler, in whatever queue.
    Handler,
    /// All jobs of a concurrency key of a namespace.
    Key,
}

/// A limit, set as a whole in place of the former one.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct SetLimit {
    /// What it is of.
    pub scope: LimitOf,
    /// The queue, handler or concurrency key.
    #[cfg_attr(feature = "openapi", schema(min_length = 1, max_length = 256))]
    pub name: String,
    /// Whose concurrency key it is; default `default`. Only with scope `key`.
    #[serde(default)]
    #[cfg_attr(feature = "openapi", schema(min_length = 1, max_length = 256))]
    pub namespace: Option<String>,
    /// Jobs that may run at once; 0 lets none begin.
    #[serde(default)]
    pub running_max: Option<u32>,
    /// Starts in any stretch of time of `period_ms`.
    #[serde(default)]
    #[cfg_attr(feature = "openapi", schema(minimum = 1))]
    pub starts_max: Option<u32>,
    /// The length of that stretch, up to 31 days.
    #[serde(default)]
    #[cfg_attr(feature = "openapi", schema(minimum = 1, maximum = 2_678_400_000_i64))]
    pub period_ms: Option<u64>,
    /// Remove the limit instead.
    #[serde(default)]
    pub off: bool,
    /// Why; kept in the audit.
    #[serde(default)]
    #[cfg_attr(feature = "openapi", schema(min_length = 1, max_length = 1_000))]
    pub reason: Option<String>,
}
