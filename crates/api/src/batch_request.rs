//! What is asked for about batches.

use serde::{Deserialize, Serialize};

use crate::json::Json;

/// A batch to be kept. Members name it where they are made: `batch_id` of a job, a tracked job or a workflow, `parent_id` of a batch.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct CreateBatch {
    /// What is done.
    #[cfg_attr(feature = "openapi", schema(min_length = 1, max_length = 256, example = "import"))]
    pub action: String,
    /// Its id, a UUID with or without `batch_`; made when it is not given. Creating the same batch again is harmless.
    #[serde(default)]
    #[cfg_attr(feature = "openapi", schema(min_length = 1, max_length = 64))]
    pub id: Option<String>,
    /// Who it and its members belong to.
    #[serde(default = "crate::defaults::name")]
    #[cfg_attr(feature = "openapi", schema(min_length = 1, max_length = 256))]
    pub namespace: String,
    /// `batch_…`: it is a member of this one.
    #[serde(default)]
    #[cfg_attr(feature = "openapi", schema(min_length = 1, max_length = 64))]
    pub parent_id: Option<String>,
    /// How many members it will have: it closes by itself with the last one. Without it members may be added until it is closed.
    #[serde(default)]
    #[cfg_attr(feature = "openapi", schema(maximum = 1_000_000_000))]
    pub expected: Option<u64>,
    /// What is kept with it.
    #[serde(default = "crate::defaults::empty_object")]
    pub metadata: Json,
    /// The job to make when all members have ended and none badly.
    #[serde(default)]
    pub on_success: Option<CallBack>,
    /// The job to make when all members have ended, however.
    #[serde(default)]
    pub on_finish: Option<CallBack>,
    /// The job to make when the first member fails.
    #[serde(default)]
    pub on_first_failure: Option<CallBack>,
}

/// A job that is made once at some moment of a batch.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct CallBack {
    /// What does it.
    #[cfg_attr(feature = "openapi", schema(min_length = 1, max_length = 256))]
    pub handler: String,
    /// Where it waits.
    #[serde(default = "crate::defaults::name")]
    #[cfg_attr(feature = "openapi", schema(min_length = 1, max_length = 256))]
    pub queue: String,
    /// What it is given beside the batch's id, moment, state and counts.
    #[serde(default = "Json::null")]
    pub input: Json,
}

/// That the failed jobs of a batch are run again.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct RetryBatch {
    /// `next` of the call before.
    #[serde(default)]
    #[cfg_attr(feature = "openapi", schema(min_length = 1, max_length = 4_096))]
    pub cursor: Option<String>,
    /// Why; kept in the history of each job and in the audit.
    #[serde(default)]
    #[cfg_attr(feature = "openapi", schema(min_length = 1, max_length = 1_000))]
    pub reason: Option<String>,
}
