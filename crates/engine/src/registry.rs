//! The registry of handlers: who can do them, who wants them, how they fare; read through the cache.
//!
//! The store is the truth: workers say there what they can do, with their sessions; templates, views and schedules say what
//! they want done; roll-ups say how it went. What is cached is outdated when a worker comes or goes, when a view, a pattern or
//! a schedule is defined or removed, and, in the put's own transaction, when a template is stored; figures in it are as old as the usage
//! allows, two minutes.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use recache_cache::provider::Capability;
use recache_cache::{Cache, Key, KeyPrefix, Usage};
use recache_model::figures::MinuteTotals;
use recache_model::handlers::{HandlerOffer, Registry, StepUse, registry, steps_of};
use recache_model::ids::SessionId;
use recache_model::template::{Template, newest_version};
use recache_model::time::Timestamp;
use recache_store::{FLOW, Store, TemplateSummary};
use recache_worker::Description;
use serde::{Deserialize, Serialize};
use tokio::sync::Notify;

use crate::adaptive;
use crate::engine::{Engine, Shared};
use crate::error::Result;
use crate::figures::window_minutes;

/// Over how long figures of handlers are told, in hours.
pub const HOURS: u32 = 24;
/// Workers that are told of at most: the newest.
pub const WORKERS_MAX: u32 = 2_000;
/// Versions of templates that are looked at for the newest of each name.
pub const TEMPLATES_MAX: u32 = 5_000;

/// The registry as it was found.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct FoundRegistry {
    /// When.
    pub calculated_at: Timestamp,
    /// Some templates were left out, because there are more than [`TEMPLATES_MAX`] versions.
    pub templates_left_out: bool,
    /// What there is.
    pub registry: Registry,
}

/// The cache as the registry uses it.
#[derive(Debug)]
pub(crate) struct Registered {
    cache: Cache,
    key: Key,
    /// Digests of templates with which this process submitted workflows, at most [`DIGESTS_MAX`].
    submitted: Mutex<BTreeSet<String>>,
    /// What views and schedules want done may have changed.
    wanted: Notify,
}

/// Between two times that what is cached is outdated because of what views and schedules want done.
const WANTED_PAUSE: Duration = Duration::from_millis(500);

/// Digests that are remembered; beyond them a template counts as new once more, which costs no more than a look.
const DIGESTS_MAX: usize = 4_096;

impl Registered {
    pub(crate) fn new(cache: &Cache) -> Self {
        Self {
            cache: cache.for_usage(&Usage::Handlers),
            key: key(cache.keys()),
            submitted: Mutex::default(),
            wanted: Notify::new(),
        }
    }
}

/// Under which key the registry lies in caches with this prefix.
pub(crate) fn key(prefix: &KeyPrefix) -> Key {
    prefix.space("handlers").key(["registry"])
}

/// A worker came or went: no process shows the former registry any more.
pub(crate) async fn changed(shared: &Shared) {
    shared.registry.cache.invalidate(&shared.registry.key).await;
}

/// Views, patterns or schedules were defined or removed. Programs define thousands in a row: what is cached is outdated once for all of
/// them, at once for the first.
pub(crate) fn wanted(shared: &Shared) {
    shared.registry.wanted.notify_one();
}

/// Outdates what is cached for as long as the engine runs, at most once in [`WANTED_PAUSE`].
pub(crate) async fn run(shared: Arc<Shared>) {
    loop {
        tokio::select! {
            () = shared.ending.cancelled() => return,
            () = shared.registry.wanted.notified() => {}
        }
        changed(&shared).await;
        tokio::select! {
            () = shared.ending.cancelled() => return,
            () = tokio::time::sleep(WANTED_PAUSE) => {}
        }
    }
}

/// A workflow was submitted, and with it perhaps a template that nobody had stored before. Where the store keeps the cache's epochs,
/// the submit itself raised them; a backend that all processes share keeps its own.
pub(crate) async fn submitted(shared: &Shared, digest: &str) {
    let Registered { cache, submitted, .. } = &shared.registry;
    if !cache.capabilities().has(Capability::Shared) {
        return;
    }
    let is_new = {
        let mut known = submitted.lock().unwrap_or_else(PoisonError::into_inner);
        if known.len() >= DIGESTS_MAX {
            known.clear();
        }
        known.insert(digest.to_owned())
    };
    if is_new {
        changed(shared).await;
    }
}

/// Says what this process can do.
pub(crate) async fn offer(shared: &Shared, session: SessionId) -> Result<()> {
    let names = shared.handlers.names();
    if names.is_empty() {
        return Ok(());
    }
    let offers = names.into_iter().map(|name| {
        let Description { version, input_schema } = shared.handlers.description(&name);
        HandlerOffer { name, version, input_schema }
    });
    let slots = u32::try_from(shared.options.slots).unwrap_or(u32::MAX).max(1);
    let store = shared.store.handler_offers();
    store.handlers_offer(session, shared.options.queues.clone(), slots, offers.collect()).await?;
    changed(shared).await;
    Ok(())
}

/// The registry, past the cache.
pub async fn registry_of(store: &dyn Store) -> Result<FoundRegistry> {
    let offers = store.handler_offers();
    let workers = offers.handlers_workers(WORKERS_MAX).await?;
    let mut users = offers.handlers_users().await?;
    let (steps, templates_left_out) = steps(store).await?;
    let now = store.now().await?;
    let mut minutes: Vec<MinuteTotals> = window_minutes(store, HOURS).await?;
    // The engine's own work is no handler's.
    users.retain(|users| users.handler != FLOW);
    minutes.retain(|one| one.series.handler != FLOW);
    Ok(FoundRegistry {
        calculated_at: now,
        templates_left_out,
        registry: registry(workers, steps, users, &minutes),
    })
}

/// The steps of the newest version of each template, and whether some were left out.
async fn steps(store: &dyn Store) -> Result<(Vec<StepUse>, bool)> {
    let stored = store.templates_list(None, None, TEMPLATES_MAX).await?;
    let is_cut = stored.len() >= usize::try_from(TEMPLATES_MAX).unwrap_or(usize::MAX);
    let mut by_name: BTreeMap<(&str, &str), Vec<&TemplateSummary>> = BTreeMap::new();
    for one in &stored {
        by_name.entry((&one.namespace, &one.name)).or_default().push(one);
    }
    let mut steps = Vec::new();
    for versions in by_name.into_values() {
        let newest = newest_version(versions.iter().map(|one| one.version.as_str()));
        let Some(newest) = versions.iter().find(|one| Some(one.version.as_str()) == newest) else { continue };
        let record = store.template_get(&newest.digest).await?;
        match Template::from_canonical_json(&record.content) {
            Ok(template) => steps.extend(steps_of(&template)),
            // One that this version of the program cannot read must not hide the others.
            Err(problems) => {
                tracing::warn!(%problems, digest = newest.digest, "a stored template cannot be read");
            }
        }
    }
    Ok((steps, is_cut))
}

impl Engine {
    /// Says that views, patterns or schedules were defined or removed in the store itself, past this engine.
    pub fn handlers_wanted_changed(&self) {
        wanted(&self.shared);
    }

    /// All handlers, as of at most two minutes ago; workers, templates, and what views and schedules want, as they are.
    pub async fn handlers(&self) -> Result<Arc<FoundRegistry>> {
        let store = &*self.shared.store;
        let load = || async move { registry_of(store).await.map(Some) };
        adaptive::through(&self.shared, &Usage::Handlers, "handlers", &self.shared.registry.key, load).await
    }
}
