//! What the command line says of the cache.

use serde::{Deserialize, Serialize};

use crate::json::Json;

/// What is cached under a key.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct CacheValue {
    /// [`CacheValue::SCHEMA`]
    pub schema: String,
    /// The key as it is stored.
    pub key: String,
    /// Whether the answer is "there is none"; the value is then `null`.
    pub is_absent: bool,
    /// The value, as it was written.
    pub value: Option<Json>,
    /// Whether it is still fresh.
    pub is_fresh: bool,
    /// `near`: out of this process; `far`: from the backend.
    pub tier: String,
    /// How old the data is that it is based on, at most.
    pub age_ms: u64,
    /// For how long it is still fresh.
    pub fresh_for_ms: u64,
    /// For how long it is still kept.
    pub keep_for_ms: u64,
    /// What it cost to make.
    pub build_cost_ms: u64,
}

impl CacheValue {
    /// The name and version of this shape.
    pub const SCHEMA: &'static str = "recache.cache-value.v1";
}

/// What was changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "snake_case")]
pub enum Changed {
    /// The value of one key.
    Key,
    /// Every key of a space.
    Space,
    /// Every entry with a tag.
    Tag,
    /// Everything under the prefix.
    All,
}

/// A change of the cache.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct CacheChange {
    /// [`CacheChange::SCHEMA`]
    pub schema: String,
    /// `set`, `deleted`, `invalidated`.
    pub action: String,
    /// What kind of thing.
    pub changed: Changed,
    /// Which: the key as it is stored, the space, the tag, the prefix.
    pub name: String,
    /// Hand it to a read, and that sees nothing from before the change.
    pub token: String,
    /// Whether what all processes share has taken note of it.
    pub is_confirmed: bool,
}

impl CacheChange {
    /// The name and version of this shape.
    pub const SCHEMA: &'static str = "recache.cache-change.v1";
}

/// One breaker in front of the backend.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct CacheBreaker {
    /// `read` or `write`.
    pub class: String,
    /// `closed`, `open`, `half-open`, `forced open`, `disabled`.
    pub state: String,
    /// Failures since the last success.
    pub failures_in_a_row: u32,
}

/// Whether the cache does what it was configured to do.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct CacheHealth {
    /// [`CacheHealth::SCHEMA`]
    pub schema: String,
    /// `active`, `disabled`, `degraded`.
    pub condition: String,
    /// The provider in use; `noop` when nothing is cached.
    pub provider: String,
    /// Why it is disabled or degraded.
    pub reasons: Vec<String>,
    /// Reads first; none for a provider in the process.
    pub breakers: Vec<CacheBreaker>,
}

impl CacheHealth {
    /// The name and version of this shape.
    pub const SCHEMA: &'static str = "recache.cache-health.v1";
}

/// What was counted.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct CacheStats {
    /// [`CacheStats::SCHEMA`]
    pub schema: String,
    /// The provider in use.
    pub provider: String,
    /// Entries that the backend dropped for want of space, by all who use it; `null` when it does not tell.
    pub evictions: Option<u64>,
    /// The counters of the process that was asked. Counters may be added.
    pub process: serde_json::Value,
    /// What the caches of all processes answered; `null` when the backend did not say, and `fleet_reason` then says why.
    #[serde(default)]
    pub fleet: Option<CacheFleet>,
    /// Why there is no `fleet`.
    #[serde(default)]
    pub fleet_reason: Option<String>,
}

/// What the caches of all processes over one backend and key prefix answered, those that have ended included.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct CacheFleet {
    /// How it is summed: `distributed_basic` (one record with a part for each process, merged by compare and swap), or `local_only`: this process alone.
    pub strategy: String,
    /// Why so.
    pub strategy_reason: String,
    /// Processes that were heard of within the last minute.
    pub instances: u64,
    /// By usage: those that were ever asked for.
    pub usages: Vec<CacheFleetUsage>,
}

/// Reads of one usage in all processes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct CacheFleetUsage {
    /// Its name; `other` for all that are a program's own.
    pub usage: String,
    /// Answered with a fresh entry.
    pub hits: u64,
    /// Answered with an entry past its freshness.
    pub stale_hits: u64,
    /// Not answered.
    pub misses: u64,
    /// Values that were made again.
    pub rebuilds: u64,
}

impl CacheStats {
    /// The name and version of this shape.
    pub const SCHEMA: &'static str = "recache.cache-stats.v1";
}

/// What the backend can do, in one respect.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct CacheCapability {
    /// Which: `compare_and_swap`.
    pub capability: String,
    /// `yes`, `no`, a number of bytes, `unlimited`.
    pub value: String,
    /// Who says so: `probed`, `declared`, `known_table`, `detector`, `unknown`.
    pub source: String,
}

/// Whether the cache is used for something.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct CacheUsage {
    /// Its name.
    pub usage: String,
    /// The coherence that it needs.
    pub needs: String,
    /// Whether the cache is on for it.
    pub is_on: bool,
}

/// What the configured cache can do and what follows from that.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct CacheOverview {
    /// [`CacheOverview::SCHEMA`]
    pub schema: String,
    /// The provider in use.
    pub provider: String,
    /// With what every key begins.
    pub key_prefix: String,
    /// The strongest coherence that it gives.
    pub coherence: String,
    /// How a fleet coordinates over it: `distributed_atomic`, `distributed_basic`, `local_only`.
    pub coordination: String,
    /// Why so.
    pub coordination_reason: String,
    /// The capability table.
    pub capabilities: Vec<CacheCapability>,
    /// The usages that have a name.
    pub usages: Vec<CacheUsage>,
}

impl CacheOverview {
    /// The name and version of this shape.
    pub const SCHEMA: &'static str = "recache.cache-overview.v1";
}

/// What is known of one stored entry without its value.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct CacheEntry {
    /// `fresh`, `stale`, `expired`, `outdated: …`, `not readable: …`
    pub state: String,
    /// Bytes, envelope included.
    pub bytes: u64,
    /// How old the data is that it is based on.
    pub age_ms: u64,
    /// For how long it is still fresh.
    pub fresh_for_ms: u64,
    /// For how long it is still kept.
    pub keep_for_ms: u64,
    /// What it cost to make.
    pub build_cost_ms: u64,
    /// The epochs under which it was made, in hexadecimal.
    pub stamp: String,
    /// Those that it would have to carry now; `null` while they change.
    pub stamp_now: Option<String>,
    /// Whether it says that there is no such thing.
    pub is_absent: bool,
    /// Fingerprint of the value's layout.
    pub layout: u32,
    /// `json` or `postcard`; `null` where the entry cannot be read.
    pub codec: Option<String>,
}

/// Why a key is answered as it is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct CacheExplanation {
    /// [`CacheExplanation::SCHEMA`]
    pub schema: String,
    /// The key as it is stored.
    pub key: String,
    /// The provider.
    pub provider: String,
    /// `hit`, `stale: …`, `miss: …`, `off: …`
    pub verdict: String,
    /// Whether a copy in the process would do, and why not.
    pub near: String,
    /// What lies in the process.
    pub near_entry: Option<CacheEntry>,
    /// What lies in the tier that all processes share, or in the only one.
    pub entry: Option<CacheEntry>,
}

impl CacheExplanation {
    /// The name and version of this shape.
    pub const SCHEMA: &'static str = "recache.cache-explanation.v1";
}

/// One figure of a bench.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct CacheBenchRow {
    /// What was measured.
    pub measure: String,
    /// The cache's figure.
    pub value: f64,
    /// In what.
    pub unit: String,
    /// What it is to be compared with: `moka get`.
    pub beside_name: Option<String>,
    /// That one's figure, of the same run and in the same unit.
    pub beside: Option<f64>,
    /// The cache's figure in parts of the other one.
    pub ratio: Option<f64>,
}

/// What the cache costs on this machine.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct CacheBench {
    /// [`CacheBench::SCHEMA`]
    pub schema: String,
    /// How long each measurement lasted.
    pub seconds: u64,
    /// The figures.
    pub rows: Vec<CacheBenchRow>,
    /// What could not be measured, and why.
    pub missing: Vec<String>,
}

/// Ways to choose lives of cached values, played on traces of reads and changes.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct TtlSimulation {
    /// [`TtlSimulation::SCHEMA`]
    pub schema: String,
    /// A read is too stale when what it is served was outdated for longer.
    pub staleness_ms: u64,
    /// The share of all reads that may be too stale.
    pub stale_share_max: f64,
    /// From which the traces are drawn.
    pub seed: u64,
    /// For each trace, and each of the things that can be saved, the adaptive way first.
    pub rows: Vec<TtlSimulationRow>,
}

impl TtlSimulation {
    /// The name and version of this shape.
    pub const SCHEMA: &'static str = "recache.ttl-simulation.v1";
}

/// How a way did on a trace.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct TtlSimulationRow {
    /// Which trace.
    pub trace: String,
    /// What the adaptive way was to save: `both`, `cost` or `rebuilds`.
    pub saves: String,
    /// `adaptive`; `fixed`, `multiply`, `told` (the same rule that knows all rates beforehand); or `possible`: lower bounds
    /// of rebuilds and of what they cost, each by itself, for who knows the future.
    pub way: String,
    /// Of the ways of that name the one with fewest rebuilds that is no staler than the adaptive one: its life, or its base.
    /// `null` for others.
    pub life_ms: Option<u64>,
    /// How often values were read.
    pub reads: u64,
    /// How often they were made.
    pub rebuilds: u64,
    /// What that cost.
    pub cost_ms: u64,
    /// One read in a hundred was staler.
    pub staleness_p99_ms: u64,
    /// What part of the rebuilds of this way the adaptive one saves; `null` for itself.
    pub saved: Option<f64>,
    /// The same of what its rebuilds cost.
    pub cost_saved: Option<f64>,
}

impl CacheBench {
    /// The name and version of this shape.
    pub const SCHEMA: &'static str = "recache.cache-bench.v1";
}

/// How long values of each class of keys live, and why.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct TtlExplanation {
    /// [`TtlExplanation::SCHEMA`]
    pub schema: String,
    /// Whether lives are chosen; otherwise there are no classes.
    pub enabled: bool,
    /// A read is too stale when what it is served was outdated for longer.
    pub staleness_ms: u64,
    /// The share of all reads that may be too stale.
    pub stale_share_max: f64,
    /// `cost` or `rebuilds`: what is saved.
    pub saves: String,
    /// By class and phase.
    pub classes: Vec<TtlClass>,
}

impl TtlExplanation {
    /// The name and version of this shape.
    pub const SCHEMA: &'static str = "recache.ttl.v1";
}

/// A class of keys in one phase: what was seen, and the life that is in force.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct TtlClass {
    /// Its name.
    pub class: String,
    /// How its values fared before: 0 for those that have just changed, 3 for those that rested for long.
    pub phase: u8,
    /// Reads a second.
    pub reads_per_s: f64,
    /// Changes a second of which the cache was not told.
    pub changes_per_s: f64,
    /// What it costs to make a value.
    pub rebuild_ms: f64,
    /// Values made again after their life, about.
    pub rebuilt: f64,
    /// Those that had changed.
    pub changed: f64,
    /// Values that were invalidated.
    pub invalidated: f64,
    /// How long values live that are made now: as decided last, and no longer than `usage_ms`.
    pub ttl_ms: u64,
    /// How long their usage lets them live; `null` where the process that answers has not read them.
    #[serde(default)]
    pub usage_ms: Option<u64>,
    /// The share of its reads that is too stale then.
    pub stale_share: f64,
    /// How often a value is made then, in a second.
    pub rebuilds_per_s: f64,
    /// What held the life, if it was not the balance of cost and staleness: a setting, or `usage`.
    pub bound: Option<String>,
}
