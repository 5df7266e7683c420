//! What is asked for about views.

use serde::{Deserialize, Serialize};

use crate::job_request::SubmitRetry;
use crate::json::Json;
use crate::view::OnTouch;

/// How a view is built. What is not given is as it is by default, also when the view is there already.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct DefineView {
    /// The handler that builds it. Either this or `workflow` must be given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "openapi", schema(min_length = 1, max_length = 256, example = "build_prices"))]
    pub handler: Option<String>,
    /// The template of the workflow that builds it, `NAME`, `NAMESPACE/NAME` or `NAMESPACE/NAME@RANGE`; without a namespace the view's. Each build
    /// takes the newest stored version in the range.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "openapi", schema(min_length = 1, max_length = 600))]
    pub workflow: Option<String>,
    /// Where its builds wait, `default` if not given; not together with `workflow`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "openapi", schema(min_length = 1, max_length = 256))]
    pub queue: Option<String>,
    /// A build waits until no touch came for this long. Default 1,000.
    #[serde(default)]
    #[cfg_attr(feature = "openapi", schema(maximum = 86_400_000))]
    pub debounce_quiet_ms: Option<u64>,
    /// It waits no longer than this after the first touch. Default 10,000.
    #[serde(default)]
    #[cfg_attr(feature = "openapi", schema(maximum = 86_400_000))]
    pub debounce_max_ms: Option<u64>,
    /// What a touch does to a running build. Default `abort`.
    #[serde(default)]
    pub on_touch: Option<OnTouch>,
    /// Beyond this much behind, a build is let through although touches keep coming. Default 300,000.
    #[serde(default)]
    #[cfg_attr(feature = "openapi", schema(maximum = 315_360_000_000_i64))]
    pub max_staleness_ms: Option<u64>,
    /// No build is let through for that; not together with `max_staleness_ms`.
    #[serde(default)]
    pub any_staleness: bool,
    /// What follows a failed build.
    #[serde(default)]
    pub retry: Option<SubmitRetry>,
    /// How long a build may run; without it as long as it likes.
    #[serde(default)]
    #[cfg_attr(feature = "openapi", schema(minimum = 1, maximum = 315_360_000_000_i64))]
    pub timeout_ms: Option<u64>,
    /// Keep the values of its items in the cache only, which must be one that all processes share. What it loses is made anew. Once said of a view, it
    /// cannot be taken back.
    #[serde(default)]
    pub cache_only: bool,
    /// So many items of each new generation, the first by key, go into the cache before anybody asks for them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "openapi", schema(minimum = 1, maximum = 10_000))]
    pub prefetch_first: Option<u32>,
    /// These items of each new generation do; not together with `prefetch_first`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "openapi", schema(min_items = 1, max_items = 10_000))]
    pub prefetch_items: Option<Vec<String>>,
    /// How long a generation can be read after it was replaced. Without it as the processes are configured (`engine.generation_keep_ms`).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "openapi", schema(minimum = 1_000, maximum = 2_592_000_000_i64))]
    pub generation_keep_ms: Option<u64>,
    /// How long the worker of a build may be silent before the build is given to another one; it counts where it is longer than the worker's own lease. Not
    /// together with `workflow`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "openapi", schema(minimum = 1_000, maximum = 86_400_000))]
    pub lease_ms: Option<u64>,
    /// Of a pattern: so many of its views are built at once. Not together with `workflow`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "openapi", schema(minimum = 1, maximum = 1_000))]
    pub concurrency: Option<u32>,
    /// A JSON Schema that the key of every item must fit which a build puts; checked as a JSON string.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub item_key_schema: Option<Json>,
    /// A JSON Schema that its value must fit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub item_value_schema: Option<Json>,
}

/// That the inputs of every view changed whose key a pattern covers.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct TouchMatching {
    /// The items that are affected; none: any may be.
    #[serde(default)]
    #[cfg_attr(feature = "openapi", schema(max_items = 10_000))]
    pub items: Vec<String>,
    /// Why; shown with each view until its next touch.
    #[serde(default)]
    #[cfg_attr(feature = "openapi", schema(min_length = 1, max_length = 1_000))]
    pub reason: Option<String>,
}

/// That a view's inputs changed.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct TouchView {
    /// The items that are affected; none: any may be.
    #[serde(default)]
    #[cfg_attr(feature = "openapi", schema(max_items = 10_000))]
    pub items: Vec<String>,
    /// Build at once, without debounce.
    #[serde(default)]
    pub at_once: bool,
    /// Why; shown with the view until its next touch.
    #[serde(default)]
    #[cfg_attr(feature = "openapi", schema(min_length = 1, max_length = 1_000))]
    pub reason: Option<String>,
}

/// One of several views to be touched.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct TouchOne {
    /// Who it belongs to.
    #[cfg_attr(feature = "openapi", schema(min_length = 1, max_length = 256))]
    pub namespace: String,
    /// Its key there.
    #[cfg_attr(feature = "openapi", schema(min_length = 1, max_length = 1024))]
    pub key: String,
    /// The items that are affected; none: any may be.
    #[serde(default)]
    #[cfg_attr(feature = "openapi", schema(max_items = 10_000))]
    pub items: Vec<String>,
}

/// Views to be touched, all or none.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct TouchViews {
    /// Which.
    #[cfg_attr(feature = "openapi", schema(min_items = 1, max_items = 1_000))]
    pub views: Vec<TouchOne>,
    /// Why; shown with each view until its next touch.
    #[serde(default)]
    #[cfg_attr(feature = "openapi", schema(min_length = 1, max_length = 1_000))]
    pub reason: Option<String>,
}

/// Which items are read, all of one generation.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct ReadItems {
    /// Their keys.
    #[cfg_attr(feature = "openapi", schema(min_items = 1, max_items = 1_000))]
    pub items: Vec<String>,
    /// Of this version or a newer one: what a touch answered. With `Prefer: wait=SECONDS` it is waited for; 409 when it is not live.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "openapi", schema(minimum = 1))]
    pub min_version: Option<i64>,
}

/// Which generation is to be live again.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct RollBackView {
    /// Its version.
    #[cfg_attr(feature = "openapi", schema(minimum = 1))]
    pub to_version: i64,
    /// Why; kept in history and in the audit.
    #[serde(default)]
    #[cfg_attr(feature = "openapi", schema(min_length = 1, max_length = 1_000))]
    pub reason: Option<String>,
}

/// From which others a view is made.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct DeriveView {
    /// All of them, as `namespace/key`; none: it is made from no view.
    #[cfg_attr(feature = "openapi", schema(max_items = 100))]
    pub from: Vec<String>,
}
