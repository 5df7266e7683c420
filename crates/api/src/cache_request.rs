//! What is asked for about the cache.

use serde::{Deserialize, Serialize};

/// What is to be outdated: exactly one of these.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct InvalidateCache {
    /// A key as it is stored, prefix included.
    #[serde(default)]
    #[cfg_attr(feature = "openapi", schema(min_length = 1, max_length = 4096))]
    pub key: Option<String>,
    /// Every key of this space.
    #[serde(default)]
    #[cfg_attr(feature = "openapi", schema(min_length = 1, max_length = 256))]
    pub space: Option<String>,
    /// Every entry that was stored with this tag.
    #[serde(default)]
    #[cfg_attr(feature = "openapi", schema(min_length = 1, max_length = 256))]
    pub tag: Option<String>,
    /// Everything under the configured key prefix.
    #[serde(default)]
    pub all: bool,
    /// Why; kept in the audit.
    #[serde(default)]
    #[cfg_attr(feature = "openapi", schema(min_length = 1, max_length = 1000))]
    pub reason: Option<String>,
}
