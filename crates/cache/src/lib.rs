#![doc = include_str!("../README.md")]

#[cfg(feature = "bench")]
pub mod bench;
pub mod breaker;
mod cache;
pub mod chance;
pub mod clock;
pub mod config;
pub mod coordination;
pub mod envelope;
pub mod epochs;
pub mod fleet_reads;
#[cfg(feature = "cache-redis")]
pub mod foreign;
mod health;
pub mod key;
mod limit;
mod policy;
pub mod provider;
pub mod stats;
mod token;
mod usage;

pub use cache::{
    Answer, BEAT_DEFAULT, Builder, Cache, EntryFacts, Explanation, LAG_MAX_DEFAULT, LoadError,
    OPERATION_TIMEOUT_DEFAULT, QUIET_BEFORE_RECOVERED, Value,
};
pub use chance::{Chance, SystemChance};
pub use clock::{Clock, ManualClock, SystemClock, Timestamp};
pub use config::{CacheConfig, ConfigProblem};
pub use coordination::Coordination;
pub use envelope::{TAGS_MAX, TagSlots};
pub use fleet_reads::{FleetFigures, FleetReads, FleetUsage};
pub use health::{Condition, Health, SwitchedOff};
pub use key::{Key, KeyPrefix, Space};
pub use policy::{
    Codec, ERROR_THROTTLE_DEFAULT, FOLLOW_FOR_DEFAULT, KEEP_FOR_MAX, LEASE_FOR_DEFAULT, Policy,
};
pub use provider::{BreakerReport, Breakers, Capabilities, Guarded, Provider};
pub use stats::{Stats, Tier};
pub use token::{ParseTokenError, Token};
pub use usage::{Coherence, Lifetimes, Usage};
