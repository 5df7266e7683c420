//! `get_or_refresh`: as `get_or_load`, for loaders that may outlive the call. What is stale, or will be soon, is made
//! anew in the background.

use std::sync::Arc;

use tokio::time::timeout;

use super::flight::Join;
use super::load::Loaded;
use super::read::Found;
use super::{Cache, LoadError, Value};
use crate::clock::Timestamp;
use crate::key::Key;
use crate::policy::Policy;
use crate::usage::Verdict;

impl Cache {
    /// As [`get_or_load`](Cache::get_or_load), but the load runs in a task of its own and goes on when this call ends:
    ///
    /// - a stale value is served at once where the policy serves stale ones
    ///   ([`stale_while_revalidate`](Policy::stale_while_revalidate)), and loaded anew in the background;
    /// - past the [`soft_timeout`](Policy::soft_timeout) a stale value is served if there is one;
    /// - past the [`hard_timeout`](Policy::hard_timeout) the call gives up, while the load goes on;
    /// - a fresh value that will end soon may be refreshed ahead of time
    ///   ([`early_refresh`](Policy::early_refresh)).
    ///
    /// A call that is dropped does not end the load. Must be called inside a tokio runtime.
    pub async fn get_or_refresh<V, E, F>(
        &self,
        key: &Key,
        policy: &Policy,
        loader: impl FnOnce() -> F + Send + 'static,
    ) -> Result<Option<Arc<V>>, LoadError<E>>
    where
        V: Value,
        E: Send + Sync + 'static,
        F: Future<Output = Result<Option<V>, E>> + Send + 'static,
    {
        let core = &*self.core;
        if !self.is_on() {
            return self.load(policy, loader).await;
        }
        let policy = &policy.under(self.schema);
        let look = self.look::<V>(key, policy.schema_of()).await;
        let kept = match &look.found {
            Found::Fresh(live) => {
                self.count(key, &look);
                let left = live.header.fresh_until.saturating_since(core.calls.clock.now());
                let is_due = policy.refreshes_early()
                    && policy.is_early(live.header.build_cost, left, core.chance.part())
                    && self.verdict != Verdict::ServeUnshared
                    && !core.flights.is_loading(key);
                let (value, written_at) = (live.value.clone(), live.header.written_at);
                if is_due {
                    self.refresh::<V, E, F>(key, policy, written_at, loader);
                }
                return Ok(value);
            }
            Found::Stale(live) if policy.serves_stale() => {
                self.count(key, &look);
                core.calls.counters.stale_served.one();
                let (value, written_at) = (live.value.clone(), live.header.written_at);
                let is_held = policy.error_throttle().is_some()
                    && core.throttle.is_held(key, core.calls.clock.elapsed());
                if !core.flights.is_loading(key) && !is_held {
                    self.refresh::<V, E, F>(key, policy, written_at, loader);
                }
                return Ok(value);
            }
            Found::Stale(live) => Some(live.value.clone()),
            Found::Nothing => None,
        };
        // The caller's limits are kept here, so that the load itself goes on beyond them.
        let unlimited = policy.without_hard_timeout();
        let (cache, its_key) = (self.clone(), key.clone());
        let mut task = tokio::spawn(async move { cache.get_or_load(&its_key, &unlimited, loader).await });
        let mut soft = None;
        if let (Some(limit), Some(kept)) = (policy.soft_limit(), kept.clone()) {
            match timeout(limit, &mut task).await {
                Ok(loaded) => return joined(loaded).await,
                Err(_) if policy.hard_limit().is_none_or(|hard| limit <= hard) => {
                    core.calls.counters.stale_served.one();
                    return Ok(kept);
                }
                Err(_) => soft = Some(limit),
            }
        }
        let Some(limit) = policy.hard_limit() else { return joined(task.await).await };
        if let Ok(loaded) = timeout(limit.saturating_sub(soft.unwrap_or_default()), &mut task).await {
            return joined(loaded).await;
        }
        core.calls.counters.load_timeouts.one();
        match (policy.error_throttle(), kept) {
            (Some(_), Some(kept)) => {
                core.calls.counters.stale_served_on_error.one();
                Ok(kept)
            }
            _ => Err(LoadError::TimedOut(limit)),
        }
    }

    /// Loads in the background what was `written_at` some time ago, unless somebody does or has done.
    fn refresh<V, E, F>(
        &self,
        key: &Key,
        policy: &Policy,
        written_at: Timestamp,
        loader: impl FnOnce() -> F + Send + 'static,
    ) where
        V: Value,
        E: Send + Sync + 'static,
        F: Future<Output = Result<Option<V>, E>> + Send + 'static,
    {
        let (cache, key, policy) = (self.clone(), key.clone(), *policy);
        tokio::spawn(async move {
            let core = &*cache.core;
            let Join::Lead(lead) = core.flights.join(&key, None) else { return };
            let look = cache.look::<V>(&key, policy.schema_of()).await;
            if matches!(&look.found, Found::Fresh(live) if live.header.written_at > written_at) {
                return;
            }
            core.calls.counters.refreshes.one();
            // An error is counted, and there is nobody to tell: the value that is kept goes on being served.
            let _: Loaded<V, E> = cache.lead(lead, &key, &policy, look, loader).await;
        });
    }
}

/// What the task brought. When its loader panicked, the caller panics as with [`Cache::get_or_load`]; it is never
/// aborted, but for a runtime that ends, and then the caller ends with it.
async fn joined<V, E>(loaded: Result<Loaded<V, E>, tokio::task::JoinError>) -> Loaded<V, E> {
    match loaded.map_err(tokio::task::JoinError::try_into_panic) {
        Ok(loaded) => loaded,
        Err(Ok(panic)) => std::panic::resume_unwind(panic),
        Err(Err(_)) => std::future::pending().await,
    }
}
