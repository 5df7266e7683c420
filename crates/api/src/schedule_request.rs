//! What is asked for about schedules.

use serde::{Deserialize, Serialize};

use crate::job_request::SubmitRetry;
use crate::json::Json;

fn default_zone() -> String {
    "UTC".to_owned()
}

/// A schedule to be kept, in place of the one of its name; a pause stays.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct DefineSchedule {
    /// When it ticks: minute, hour, day of month, month, day of week; with six fields the first is the second.
    #[cfg_attr(feature = "openapi", schema(min_length = 1, max_length = 256, example = "30 2 * * MON-FRI"))]
    pub cron: String,
    /// In which time zone: a name of the IANA database.
    #[serde(default = "default_zone")]
    #[cfg_attr(feature = "openapi", schema(min_length = 1, max_length = 256))]
    pub zone: String,
    /// What happens when a tick comes while the former job has not ended.
    #[serde(default)]
    pub overlap: OnOverlap,
    /// What becomes of ticks that nobody saw in time.
    #[serde(default)]
    pub catch_up: OnMissed,
    /// What does its jobs.
    #[cfg_attr(feature = "openapi", schema(min_length = 1, max_length = 256, example = "make_report"))]
    pub handler: String,
    /// Where they wait.
    #[serde(default = "crate::defaults::name")]
    #[cfg_attr(feature = "openapi", schema(min_length = 1, max_length = 256))]
    pub queue: String,
    /// What their handler is given.
    #[serde(default = "Json::null")]
    pub input: Json,
    /// Larger is more urgent.
    #[serde(default)]
    pub priority: i64,
    /// What follows a failure.
    #[serde(default)]
    pub retry: Option<SubmitRetry>,
    /// How long one attempt may run; without it as long as it likes.
    #[serde(default)]
    #[cfg_attr(feature = "openapi", schema(minimum = 1, maximum = 315_360_000_000_i64))]
    pub timeout_ms: Option<u64>,
}

/// What happens when a tick comes while the former job has not ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "snake_case")]
pub enum OnOverlap {
    /// The tick is skipped.
    #[default]
    Skip,
    /// Both run.
    Allow,
    /// The former is cancelled.
    Replace,
}

/// What becomes of ticks that nobody saw in time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "snake_case")]
pub enum OnMissed {
    /// They are gone.
    #[default]
    Skip,
    /// One job stands for all of them.
    Once,
}
