//! What is asked for and reported about tracked jobs.

use serde::{Deserialize, Serialize};

use crate::json::Json;
use crate::tracked::TrackedState;

/// A job that some other system runs, to be kept.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct TrackJob {
    /// What is done.
    #[cfg_attr(feature = "openapi", schema(min_length = 1, max_length = 256, example = "translate"))]
    pub action: String,
    /// Its id, a UUID with or without `job_`; made when it is not given. Creating it again is harmless.
    #[serde(default)]
    #[cfg_attr(feature = "openapi", schema(min_length = 1, max_length = 64))]
    pub id: Option<String>,
    /// Who it belongs to.
    #[serde(default = "crate::defaults::name")]
    #[cfg_attr(feature = "openapi", schema(min_length = 1, max_length = 256))]
    pub namespace: String,
    /// What it is about, so that a page finds its jobs again.
    #[serde(default)]
    pub context: Option<JobContext>,
    /// `batch_…`: it is a member of this batch.
    #[serde(default)]
    #[cfg_attr(feature = "openapi", schema(min_length = 1, max_length = 64))]
    pub batch_id: Option<String>,
    /// Who runs it.
    #[serde(default)]
    #[cfg_attr(feature = "openapi", schema(min_length = 1, max_length = 256))]
    pub owner: Option<String>,
    /// What is kept with it.
    #[serde(default = "crate::defaults::empty_object")]
    pub metadata: Json,
    /// After this long without a word it is taken for dead, and failed. Default an hour, at most 30 days.
    #[serde(default)]
    #[cfg_attr(feature = "openapi", schema(minimum = 1, maximum = 2_592_000_000_i64))]
    pub stale_after_ms: Option<u64>,
}

/// Jobs that some other system runs, or ran, to be kept in one go.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct TrackJobs {
    /// The jobs.
    #[cfg_attr(feature = "openapi", schema(min_items = 1, max_items = 1_000))]
    pub jobs: Vec<TrackReported>,
}

/// A job to be kept, and how it stands if it has begun.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct TrackReported {
    /// The job. Its `id` must be given: it makes the call safe to repeat.
    pub job: TrackJob,
    /// How it goes.
    #[serde(default)]
    pub report: Option<ReportJob>,
}

/// What a job is about.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct JobContext {
    /// A kind of thing.
    #[serde(rename = "type")]
    #[cfg_attr(feature = "openapi", schema(min_length = 1, max_length = 256, example = "product"))]
    pub kind: String,
    /// Which one.
    #[cfg_attr(feature = "openapi", schema(min_length = 1, max_length = 256, example = "42"))]
    pub id: String,
    /// Which part of it.
    #[serde(default)]
    #[cfg_attr(feature = "openapi", schema(min_length = 1, max_length = 256))]
    pub field: Option<String>,
}

/// How a tracked job goes; what is left out stays as it is.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct ReportJob {
    /// Where it stands; states only move forward.
    #[serde(default)]
    pub state: Option<TrackedState>,
    /// For people.
    #[serde(default)]
    #[cfg_attr(feature = "openapi", schema(max_length = 16_384))]
    pub message: Option<String>,
    /// A stable word for why it failed; only with state `failed`.
    #[serde(default)]
    #[cfg_attr(feature = "openapi", schema(min_length = 1, max_length = 256))]
    pub code: Option<String>,
    /// What it made, or is making.
    #[serde(default)]
    pub data: Option<Json>,
    /// 0 to 1; without it, `items_done` of `items_total`.
    #[serde(default)]
    #[cfg_attr(feature = "openapi", schema(minimum = 0, maximum = 1))]
    pub progress: Option<f64>,
    /// Things done.
    #[serde(default)]
    #[cfg_attr(feature = "openapi", schema(minimum = 0))]
    pub items_done: Option<i64>,
    /// Things to do.
    #[serde(default)]
    #[cfg_attr(feature = "openapi", schema(minimum = 0))]
    pub items_total: Option<i64>,
}
