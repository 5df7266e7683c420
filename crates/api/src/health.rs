//! Whether a server lives, can work, and how it does.

use serde::{Deserialize, Serialize};

use crate::cache::CacheCapability;
use crate::instant::Instant;

/// Whether the server can do its work.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "snake_case")]
pub enum HealthStatus {
    /// A write would be accepted and committed.
    Ready,
    /// It would not.
    NotReady,
}

/// Whether the server can do its work, and why not.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Health {
    /// [`Health::SCHEMA`]
    pub schema: String,
    /// The verdict.
    pub status: HealthStatus,
    /// Why it is not ready; empty when it is.
    pub reasons: Vec<String>,
    /// What does not work and does not matter for the verdict: a cache that is gone makes everything slower and nothing wrong.
    pub degraded: Vec<String>,
    /// The version of the program.
    pub version: String,
    /// `postgresql` or `sqlite`.
    pub store: String,
    /// When this was found out: a verdict is at most a second old.
    pub checked_at: Instant,
}

impl Health {
    /// The name and version of this shape.
    pub const SCHEMA: &'static str = "recache.health.v1";
}

/// A server, looked at closely.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct HealthDetails {
    /// [`HealthDetails::SCHEMA`]
    pub schema: String,
    /// The verdict.
    pub health: Health,
    /// The database.
    pub database: DatabaseHealth,
    /// The cache.
    pub cache: ServerCacheHealth,
    /// The work.
    pub work: WorkHealth,
    /// Workers of the whole database; `null` when it did not say in time.
    #[serde(default)]
    pub workers: Option<WorkersHealth>,
    /// Which process keeps the tables small and true; `null` when none does, or the database did not say in time.
    #[serde(default)]
    pub leader: Option<LeaderHealth>,
    /// How jobs of dead workers are taken back.
    #[serde(default)]
    pub sweep: SweepHealth,
}

impl HealthDetails {
    /// The name and version of this shape.
    pub const SCHEMA: &'static str = "recache.health-details.v1";
}

/// Workers that have a session, counted.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct WorkersHealth {
    /// Processes at the database that run jobs.
    pub nodes: u64,
    /// For how long nothing was heard of the most silent of them; `null` when there is none.
    pub nodes_silent_ms: Option<u64>,
    /// Remote workers.
    pub remote: u64,
    /// The same of them.
    pub remote_silent_ms: Option<u64>,
}

/// The process that leads the maintenance of the tables.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct LeaderHealth {
    /// What it calls itself; `null` where an older version leads, which does not say.
    pub node: Option<String>,
    /// Since when it leads; `null` likewise.
    pub since: Option<Instant>,
    /// When another one takes the lead unless it keeps it.
    pub expires_at: Instant,
}

/// How jobs of dead workers are taken back.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct SweepHealth {
    /// When this process last looked for dead workers, by the database's clock; `null` before its first look.
    pub last_at: Option<Instant>,
    /// Workers of the whole database whose time is over and whom no process has swept yet; `null` when it did not say in time.
    pub overdue: Option<u64>,
}

/// A place where the cache keeps values.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct CacheTier {
    /// `near`: in this process. `far`: a server that all share.
    pub tier: String,
    /// What it is: `moka`, `redis`, `memcached`.
    pub provider: String,
    /// `active` or `degraded`.
    pub condition: String,
}

/// How the database does.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct DatabaseHealth {
    /// `postgresql` or `sqlite`.
    pub kind: String,
    /// The version of its tables; `null` when it cannot be asked.
    pub schema_version: Option<i64>,
    /// How long one small transaction took; `null` when none was committed.
    pub commit_ms: Option<u64>,
    /// How far its clock is from this machine's; positive when it is ahead.
    pub clock_ahead_ms: Option<i64>,
    /// Its pool of connections; on SQLite of those that read. `null` for a database in memory.
    pub pool: Option<PoolHealth>,
    /// The one writer of SQLite; `null` on PostgreSQL.
    pub writer: Option<WriterHealth>,
}

/// How full a pool of connections is.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct PoolHealth {
    /// Connections that it may have.
    pub max: u32,
    /// Connections that it has.
    pub size: u32,
    /// Those in use.
    pub busy: u32,
    /// Callers who wait for one.
    pub waiting: u32,
    /// The part in use, 0 to 1.
    pub utilisation: f64,
    /// `low`, `moderate`, `high` or `critical`.
    pub band: String,
    /// Connections taken since the start.
    pub taken: u64,
    /// Takings that waited for longer than a millisecond.
    pub waited: u64,
    /// How long takings waited, together.
    pub waited_ms: u64,
    /// Connections opened since the start; old ones are replaced.
    pub opened: u64,
    /// How old the oldest one was.
    pub age_max_ms: u64,
    /// How large it should be; `null` where it is as it should be, or too little was seen.
    pub advice: Option<PoolAdvice>,
}

/// How large a pool should be, and why.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct PoolAdvice {
    /// So many connections: `database.max_connections`, on SQLite `database.readers_max`.
    pub connections: u32,
    /// What was measured.
    pub why: String,
}

/// How full the one writer of a database is.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct WriterHealth {
    /// The part of the last ten seconds in which it wrote, 0 to 1.
    pub utilisation: f64,
    /// Callers who wait for their turn.
    pub waiting: u32,
    /// Callers that one transaction carries at most.
    pub group_max: u32,
    /// `low`, `moderate`, `high` or `critical`.
    pub band: String,
    /// Calls written since the start.
    pub calls: u64,
    /// Transactions that carried them.
    pub transactions: u64,
    /// How long calls waited for their turn, together.
    pub waited_ms: u64,
    /// How long transactions were open, together.
    pub busy_ms: u64,
    /// What to do; `null` where it has time to spare, or too little was seen.
    pub advice: Option<String>,
}

/// How many jobs may run in a process at once.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct LimitHealth {
    /// So many; 0: none may begin.
    pub limit: u32,
    /// The highest that it may be: `engine.slots`.
    pub slots: u32,
    /// Whether it follows what is measured: `engine.adaptive_limit`.
    pub is_adaptive: bool,
    /// `steady`, `rises`, `slowdown`, `pool_wait`, `resting`, `probing`, `new_normal` or `looking`.
    pub reason: String,
}

/// How the cache does.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct ServerCacheHealth {
    /// What it caches in.
    pub provider: String,
    /// `active`, `disabled` or `degraded`.
    pub condition: String,
    /// Why it is degraded.
    pub reasons: Vec<String>,
    /// Its breakers that are not closed.
    pub breakers: Vec<String>,
    /// Reads that it answered.
    pub hits: u64,
    /// Reads that it did not.
    pub misses: u64,
    /// Where it keeps values, the nearest first; none when it does not cache.
    #[serde(default)]
    pub tiers: Vec<CacheTier>,
    /// What it can do, and who says so.
    #[serde(default)]
    pub capabilities: Vec<CacheCapability>,
}

/// How the work goes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct WorkHealth {
    /// Jobs that this process holds.
    pub held: u64,
    /// How many may run here at once.
    pub limit: LimitHealth,
    /// Attempts that began here.
    pub started: u64,
    /// Attempts that ended well here.
    pub completed: u64,
    /// Jobs that failed for good here.
    pub failed: u64,
    /// Jobs of dead workers that were taken back here.
    pub swept: u64,
    /// Calls to the store that failed and were tried again.
    pub store_errors: u64,
    /// For how long the job has been due that waits longest in a queue that is not paused; `null` when none does, or nobody could say in time.
    pub oldest_due_ms: Option<u64>,
    /// Events that wait for their publishers; `null` where the store did not say in time.
    pub events_unmade: Option<u64>,
    /// Requests being worked on.
    pub requests_working: u64,
    /// Requests that wait for something to happen.
    pub requests_waiting: u64,
}
