//! The configured cache, once its backend has had a moment to be connected.

use std::time::Duration;

use recache_cache::provider::{CallClass, Capability, Source};
use recache_cache::{Cache, CacheConfig, Condition, Health};
use tokio::time::{Instant, sleep, timeout_at};

use super::super::failure::Result;
use super::super::{Context, compose};
use crate::cli_error::{CliError, ExitStatus};

/// How often the backend is asked whether it can be used.
const ASK_EVERY: Duration = Duration::from_millis(20);

pub(in crate::commands) struct Opened {
    pub(in crate::commands) cache: Cache,
    pub(super) config: CacheConfig,
    pub(super) health: Health,
}

impl Opened {
    /// The cache as configured, usable or not.
    pub(super) async fn any(patience: Duration, context: &mut Context<'_>) -> Result<Self> {
        let loaded = context.load()?;
        context.log_errors();
        let config = compose::cache_config(&loaded.config.cache).unwrap_or_default();
        let until = Instant::now() + patience;
        loop {
            let cache = compose::cache(&loaded.config.cache, None);
            if !is_without_backend(&cache) {
                wait_for(&cache, until).await;
            }
            let health = cache.health().await;
            // On a busy machine one call may be too slow, and health would hold that against the backend for longer than a
            // command runs: it is asked anew while there is time.
            let is_over = Instant::now() >= until || is_without_backend(&cache);
            if health.condition != Condition::Degraded || is_over {
                return Ok(Self { cache, config, health });
            }
            sleep(ASK_EVERY).await;
        }
    }

    /// The cache as configured; when it cannot be used, why not.
    pub(in crate::commands) async fn usable(patience: Duration, context: &mut Context<'_>) -> Result<Self> {
        let opened = Self::any(patience, context).await?;
        opened.check()?;
        Ok(opened)
    }

    /// Why it cannot be used, and what to do about it.
    pub(super) fn check(&self) -> std::result::Result<(), CliError> {
        let reasons = self.health.reasons.join("; ");
        let unavailable = |code, what| CliError::new(code, ExitStatus::Unavailable, what);
        match self.health.condition {
            Condition::Active => Ok(()),
            Condition::Disabled => {
                let error = unavailable("E-CACHE-DISABLED", format!("the cache is {reasons}"));
                Err(error.help(
                    "set `enabled = true` in `[common.cache]`, or RECACHE__COMMON__CACHE__ENABLED=true",
                ))
            }
            _ if is_without_backend(&self.cache) => {
                let error = unavailable("E-CACHE-DEGRADED", format!("the cache runs as no-op: {reasons}"));
                Err(error.help("run `recache config check`"))
            }
            _ => {
                let what = format!("cache backend `{}` cannot be used: {reasons}", self.health.provider);
                Err(unavailable("E-CACHE-DEGRADED", what)
                    .at(self.place())
                    .help("check that the server runs and answers there, or wait longer with --timeout"))
            }
        }
    }

    /// Where the backend is, without credentials.
    pub(super) fn place(&self) -> String {
        let config = &self.config;
        let backend = if config.backend == "tiered" { &config.tiered.far } else { &config.backend };
        match backend.as_str() {
            "redis" | "dragonfly" | "valkey" => config.redis.url.to_string(),
            "memcached" => config.memcached.url.to_string(),
            _ => "in this process".to_owned(),
        }
    }

    /// Whether entries end with this process.
    pub(super) fn is_in_process(&self) -> bool {
        !self.cache.capabilities().has(Capability::Shared)
    }

    /// Says so when what the verb does can be of no use to anybody else.
    pub(super) fn note_in_process(&self, context: &mut Context<'_>) -> Result<()> {
        if self.is_in_process() {
            let provider = self.health.provider;
            context.note(&format!(
                "backend `{provider}` lives in each process: this is the cache of this command, which ends with it"
            ))?;
        }
        Ok(())
    }
}

/// Disabled, or out of order: there is nothing to wait for.
fn is_without_backend(cache: &Cache) -> bool {
    cache.provider().name() == "noop"
}

/// Waits until the backend can be used and is probed, or it is `until`. What fails until then is not held against it: neither
/// the breakers nor health count it.
async fn wait_for(cache: &Cache, until: Instant) {
    const CLASSES: [CallClass; 2] = [CallClass::Read, CallClass::Write];
    let provider = cache.provider();
    if let Some(breakers) = cache.breakers() {
        for class in CLASSES {
            breakers.disable(class);
        }
    }
    let ready = async {
        while provider.health().await.is_err() {
            sleep(ASK_EVERY).await;
        }
        let is_probed = || {
            let capabilities = provider.capabilities();
            !capabilities.has(Capability::Shared)
                || capabilities.rows().any(|row| row.source == Source::Probed)
        };
        while !is_probed() {
            sleep(ASK_EVERY).await;
        }
    };
    // Health, which is asked next, says what is wrong.
    let _ = timeout_at(until, ready).await;
    if let Some(breakers) = cache.breakers() {
        for class in CLASSES {
            breakers.reset(class);
        }
    }
}
