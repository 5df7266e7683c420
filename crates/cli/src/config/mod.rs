//! `recache.toml`: found, read, filled in from the environment and flags, checked, and explained.
//!
//! A flag wins over an environment variable, that over the file, that over the default. In the file, `${NAME}` and
//! `${NAME:-default}` inside a string stand for environment variables. Every problem is found in one go, and each
//! says where it is and what to do.
//!
//! Nothing here reads the process's environment but [`Environment::of_process`]; everything else is given it.
//!
//! Only the value that wins is checked. A flag can therefore stand in for a variable that is not set, and a wrong
//! value that something above it replaces goes unnoticed; unknown options are reported wherever they are.

mod command;
mod environment;

mod auth;
mod cache;
mod database;
mod engine;
mod handlers;
mod log;
mod outbound;
mod server;
mod telemetry;
mod ttl;

mod schema;

mod interpolate;
mod load;
mod source;

mod explain;
mod mask;
mod problem;

#[cfg(test)]
mod tests;

use std::num::NonZeroUsize;

pub(crate) use auth::{AuthConfig, JwtConfig};
pub(crate) use cache::CacheConfig;
pub(crate) use command::{CheckArgs, ExplainArgs, check, explain, load_file};
pub(crate) use database::{DatabaseConfig, DatabaseUrl, Synchronous};
pub(crate) use engine::EngineConfig;
pub(crate) use environment::Environment;
pub(crate) use explain::Output;
pub(crate) use handlers::{HandlersConfig, parse_command};
pub(crate) use load::{Flag, Loaded};
pub(crate) use log::{LogConfig, LogFormat, LogLevel};
pub(crate) use outbound::OutboundConfig;
pub(crate) use problem::{Problem, Style};
pub(crate) use server::{BuiltinHandlers, ServerConfig};
pub(crate) use telemetry::TelemetryConfig;
pub(crate) use ttl::TtlConfig;

/// Everything that can be configured, with plain types: no text is left to be read later.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Config {
    /// `[database]`
    pub(crate) database: DatabaseConfig,
    /// `[engine]`
    pub(crate) engine: EngineConfig,
    /// `[server]`
    pub(crate) server: ServerConfig,
    /// `[auth]`
    pub(crate) auth: AuthConfig,
    /// `[handlers]`
    pub(crate) handlers: HandlersConfig,
    /// `[outbound]`
    pub(crate) outbound: OutboundConfig,
    /// `[log]`
    pub(crate) log: LogConfig,
    /// `[telemetry]`
    pub(crate) telemetry: TelemetryConfig,
    /// `[adaptive_ttl]`
    pub(crate) adaptive_ttl: TtlConfig,
    /// `[common.cache]` and `[common.circuit_breakers.component_configs.cache]`
    pub(crate) cache: CacheConfig,
}

impl Config {
    /// What holds when nothing is said, on a machine with so many cores.
    pub(crate) fn defaults(cores: NonZeroUsize) -> Self {
        Self {
            database: DatabaseConfig::default(),
            engine: EngineConfig::defaults(cores),
            server: ServerConfig::default(),
            auth: AuthConfig::default(),
            handlers: HandlersConfig::default(),
            outbound: OutboundConfig::default(),
            log: LogConfig::default(),
            telemetry: TelemetryConfig::default(),
            adaptive_ttl: TtlConfig::default(),
            cache: CacheConfig::default(),
        }
    }
}

/// The paths of all options.
#[cfg(test)]
pub(crate) fn paths() -> impl Iterator<Item = &'static str> {
    schema::options().map(|option| option.path)
}
