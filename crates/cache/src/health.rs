//! What the cache says of itself.

use serde::Serialize;

use crate::provider::BreakerReport;
use crate::usage::Coherence;

/// Whether the cache does what it was configured to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Condition {
    /// It caches.
    Active,
    /// It was told not to.
    Disabled,
    /// It was told to and cannot: every read misses, no write is kept.
    Degraded,
}

/// The cache's state at one moment.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[non_exhaustive]
pub struct Health {
    /// Active or disabled: nothing needs to be mended.
    pub is_healthy: bool,
    /// Whether it caches.
    pub condition: Condition,
    /// The provider in use: `moka`, or `noop` when it does not cache.
    pub provider: &'static str,
    /// Why it is disabled or degraded; one line for each reason.
    pub reasons: Vec<String>,
    /// The breakers in front of the backend, reads first; none for a provider in this process.
    pub breakers: Vec<BreakerReport>,
    /// Usages that were asked for and cannot be served coherently by this provider.
    pub switched_off: Vec<SwitchedOff>,
}

/// A usage that the provider cannot honour.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct SwitchedOff {
    /// Name of the usage.
    pub usage: String,
    /// What it needs.
    pub needs: Coherence,
    /// What the provider gives.
    pub offered: Coherence,
}
