//! The cache of the server that is asked.

use super::call::Call;
use super::{Client, Result};
use crate::cache::{CacheChange, CacheHealth, CacheOverview, CacheStats};
use crate::cache_request::InvalidateCache;

impl Client {
    /// What the configured cache can do, how that is known, and for what it is used.
    pub async fn cache(&self) -> Result<CacheOverview> {
        self.call(Call::get(&["v1", "cache"])).await
    }

    /// What the server's process counted.
    pub async fn cache_stats(&self) -> Result<CacheStats> {
        self.call(Call::get(&["v1", "cache", "stats"])).await
    }

    /// Whether the cache can be used, and why not.
    pub async fn cache_health(&self) -> Result<CacheHealth> {
        self.call(Call::get(&["v1", "cache", "health"])).await
    }

    /// Outdates a key, a space, a tag or everything.
    pub async fn invalidate_cache(&self, what: &InvalidateCache) -> Result<CacheChange> {
        self.call(Call::post(&["v1", "cache", "invalidate"], what)?).await
    }
}
