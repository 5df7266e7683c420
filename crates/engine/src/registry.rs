//! The registry of handlers: who can do them, who wants them, how they fare; read through the cache.
//!
//! The store is the truth: workers say there what they can do, with their sessions; templates, views and schedules say what
//! they want done; roll-ups say how it went. What is cached lies under a mark of all that but the figures, which the store tells: when a
//! worker comes or goes, when a template, a view, a pattern or a schedule is stored or removed, by whatever program, the mark is another
//! one, and what was cached is not found any more. Figures in it are as old as the usage allows, two minutes.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use recache_cache::{Cache, Key, Space, Usage};
use recache_model::figures::MinuteTotals;
use recache_model::handlers::{HandlerOffer, Registry, StepUse, registry, steps_of};
use recache_model::ids::SessionId;
use recache_model::template::{Template, newest_version};
use recache_model::time::Timestamp;
use recache_store::{FLOW, Store, TemplateFilter, TemplateSummary};
use recache_worker::Description;
use serde::{Deserialize, Serialize};
use tokio::time::Instant;

use crate::adaptive;
use crate::engine::{Engine, Shared};
use crate::error::Result;
use crate::figures::window_series;

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
    /// The store's mark when all of this had been read.
    mark: String,
}

/// For so long a mark is believed: what other programs change shows so much later at most.
const MARK_FRESH: Duration = Duration::from_millis(500);
/// How often it is read anew because it changed meanwhile, before it is told as it was read.
const READS_MAX: usize = 4;

/// The cache as the registry uses it.
#[derive(Debug)]
pub(crate) struct Registered {
    space: Space,
    mark: Mutex<Mark>,
}

/// What the store said last of the registry's mark.
#[derive(Debug, Default)]
struct Mark {
    /// When, and what.
    last: Option<(Instant, String)>,
    /// How often this process knew that it was outdated.
    changes: u64,
}

impl Registered {
    pub(crate) fn new(cache: &Cache) -> Self {
        Self { space: cache.keys().space("handlers"), mark: Mutex::default() }
    }

    fn locked(&self) -> MutexGuard<'_, Mark> {
        self.mark.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The registry's mark as it is.
    async fn mark(&self, store: &dyn Store) -> Result<String> {
        let changes = {
            let mark = self.locked();
            match &mark.last {
                Some((at, mark)) if at.elapsed() < MARK_FRESH => return Ok(mark.clone()),
                _ => mark.changes,
            }
        };
        let asked = Instant::now();
        let found = store.handler_offers().handlers_mark().await?;
        let mut mark = self.locked();
        // Something may have changed since it was asked.
        if mark.changes == changes {
            mark.last = Some((asked, found.clone()));
        }
        Ok(found)
    }

    fn of(&self, mark: &str) -> Key {
        self.space.key(["registry", mark])
    }
}

/// This process changed what the registry shows: it asks for the mark before it shows it again.
pub(crate) fn changed(shared: &Shared) {
    let mut mark = shared.registry.locked();
    mark.last = None;
    mark.changes = mark.changes.wrapping_add(1);
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
    changed(shared);
    Ok(())
}

/// The registry, past the cache.
pub async fn registry_of(store: &dyn Store) -> Result<FoundRegistry> {
    let (steps, templates_left_out) = steps(store).await?;
    let offers = store.handler_offers();
    let workers = offers.handlers_workers(WORKERS_MAX).await?;
    let mut users = offers.handlers_users().await?;
    let now = store.now().await?;
    let mut minutes: Vec<MinuteTotals> = window_series(store, HOURS).await?;
    let mark = offers.handlers_mark().await?;
    // The engine's own work is no handler's, and those that could not be told apart are none.
    users.retain(|users| users.handler != FLOW);
    minutes.retain(|one| one.series.handler != FLOW && !one.series.is_other());
    Ok(FoundRegistry {
        calculated_at: now,
        templates_left_out,
        registry: registry(workers, steps, users, &minutes),
        mark,
    })
}

/// The steps of the newest version of each template, and whether some were left out.
async fn steps(store: &dyn Store) -> Result<(Vec<StepUse>, bool)> {
    let filter = TemplateFilter { rows_max: TEMPLATES_MAX, ..TemplateFilter::default() };
    let stored = store.templates_list(filter).await?;
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
        changed(&self.shared);
    }

    /// All handlers: workers, templates, and what views and schedules want, as they are, or were half a second ago where another process
    /// changed them; figures as of at most two minutes ago.
    pub async fn handlers(&self) -> Result<Arc<FoundRegistry>> {
        let Shared { registry, cache, .. } = &*self.shared;
        let store = &*self.shared.store;
        for _ in 0..READS_MAX {
            let mark = registry.mark(store).await?;
            let key = registry.of(&mark);
            let load = || async move { registry_of(store).await.map(Some) };
            let found = adaptive::through(&self.shared, &Usage::Handlers, "handlers", &key, load).await?;
            if found.mark == mark {
                return Ok(found);
            }
            // What changed while it was read would lie under the mark of before, to which a worker that leaves again returns.
            cache.for_usage(&Usage::Handlers).invalidate(&key).await;
            changed(&self.shared);
        }
        Ok(Arc::new(registry_of(store).await?))
    }
}
