//! What keeps the tables small and true: asked for by whichever process leads it.

use std::fmt::Debug;

use async_trait::async_trait;

use crate::error::Result;

/// Work that no user asked for. Every call is bounded by `rows_max`, so that none holds locks for long.
#[async_trait]
pub trait Maintenance: Send + Sync + Debug {
    /// Forgets idempotency keys whose time is over. Answers how many.
    async fn idempotency_keys_expire(&self, rows_max: u32) -> Result<u64>;
}
