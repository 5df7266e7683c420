//! The cache of the server that is asked.

use super::call::Call;
use super::{Client, Result};
use crate::cache::{
    CacheChange, CacheExplanation, CacheHealth, CacheOverview, CacheStats, CacheValue, TtlExplanation,
};
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

    /// Why a key, as it is stored, is answered as it is.
    pub async fn explain_cache_key(&self, key: &str) -> Result<CacheExplanation> {
        let query = serde_json::json!({ "key": key });
        self.call(Call::get(&["v1", "cache", "explain"]).query(&query)?).await
    }

    /// What is cached under a key, as it is stored, with its value.
    pub async fn cached_value(&self, key: &str) -> Result<CacheValue> {
        let query = serde_json::json!({ "key": key, "with_value": true });
        self.call(Call::get(&["v1", "cache", "inspect"]).query(&query)?).await
    }

    /// How long values of each class of keys live, and why.
    pub async fn explain_ttl(&self) -> Result<TtlExplanation> {
        self.call(Call::get(&["v1", "cache", "ttl"])).await
    }

    /// Outdates a key, a space, a tag or everything.
    pub async fn invalidate_cache(&self, what: &InvalidateCache) -> Result<CacheChange> {
        self.call(Call::post(&["v1", "cache", "invalidate"], what)?).await
    }
}
