#![doc = include_str!("../README.md")]

pub mod breaker;
mod cache;
pub mod clock;
pub mod config;
pub mod coordination;
pub mod envelope;
pub mod epochs;
mod health;
pub mod key;
mod policy;
pub mod provider;
mod stats;
mod usage;

pub use cache::{Answer, Builder, Cache, OPERATION_TIMEOUT_DEFAULT, QUIET_BEFORE_RECOVERED, Value};
pub use clock::{Clock, ManualClock, SystemClock, Timestamp};
pub use config::{CacheConfig, ConfigProblem};
pub use coordination::Coordination;
pub use health::{Condition, Health, SwitchedOff};
pub use key::{Key, KeyPrefix, Space};
pub use policy::{Codec, FOLLOW_FOR_DEFAULT, KEEP_FOR_MAX, Policy};
pub use provider::{BreakerReport, Breakers, Capabilities, Guarded, Provider};
pub use stats::Stats;
pub use usage::{Coherence, Lifetimes, Usage};
