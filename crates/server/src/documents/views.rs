//! Items of views as readers get them, and views in an operator's hands: history and differences.

use std::collections::HashMap;

use recache_api as api;
use recache_engine::{ViewItems, ViewPage};
use recache_model::ids::{JobId, ViewId};
use recache_store::{
    Error, GENERATIONS_TOLD_MAX, GenerationRecord, ItemChange, JobRecord, Restored, Store, TouchOutcome,
    ViewName,
};

use super::{instant, job, json_text, ms};

/// Generations among which the successors of superseded builds are looked for.
const SUCCESSORS_MAX: u32 = GENERATIONS_TOLD_MAX;

/// A page of a view's builds.
pub async fn view_history(
    store: &dyn Store,
    (view, id): (&ViewName, ViewId),
    builds: Vec<JobRecord>,
    next: Option<String>,
) -> Result<api::ViewHistory, Error> {
    let generations = store.generations_list(id, SUCCESSORS_MAX).await?;
    let superseded = builds.iter().filter(|build| build.superseded_by.is_some()).map(|build| build.id);
    let used = store.view_control().builds_used(id, superseded.collect()).await?;
    let used: HashMap<JobId, i64> = used.into_iter().collect();
    let build = |record: JobRecord| {
        let follows = |generation: &&GenerationRecord| {
            record.superseded_by.is_some_and(|version| generation.version >= version)
        };
        let successor = generations.iter().filter(follows).min_by_key(|generation| generation.version);
        api::ViewBuild {
            successor_version: successor.map(|generation| generation.version),
            successor_reused: successor.map(|_| used.get(&record.id).copied().unwrap_or(0)),
            successor_computed: successor.map(|generation| generation.items_computed),
            job: job(record),
        }
    };
    Ok(api::ViewHistory {
        schema: api::ViewHistory::SCHEMA.to_owned(),
        namespace: view.namespace.clone(),
        key: view.key.clone(),
        builds: builds.into_iter().map(build).collect(),
        next,
    })
}

/// A page of the items of one generation.
pub(crate) fn item_page(view: ViewName, found: ViewPage, next: Option<String>) -> api::ItemList {
    api::ItemList {
        stale: found.is_stale(),
        schema: api::ItemList::SCHEMA.to_owned(),
        namespace: view.namespace,
        key: view.key,
        view_id: found.view.to_string(),
        version: found.version,
        recache_version: found.wanted,
        published_at: found.published_at.map(instant),
        age_ms: found.age.map(ms),
        staleness_ms: ms(found.staleness),
        items: found.items.into_iter().map(|(item, value)| item_of(item, &value)).collect(),
        gone: found.gone,
        next,
    }
}

/// Items that were asked for by their keys: those that are there.
pub(crate) fn items_read(view: ViewName, items: Vec<String>, found: ViewItems) -> api::ItemList {
    api::ItemList {
        stale: found.is_stale(),
        schema: api::ItemList::SCHEMA.to_owned(),
        namespace: view.namespace,
        key: view.key,
        view_id: found.view.to_string(),
        version: found.version,
        recache_version: found.wanted,
        published_at: found.published_at.map(instant),
        age_ms: found.age.map(ms),
        staleness_ms: ms(found.staleness),
        items: items
            .into_iter()
            .zip(found.values)
            .filter_map(|(item, value)| Some(item_of(item, &value?)))
            .collect(),
        gone: found.gone,
        next: None,
    }
}

fn item_of(item: String, value: &str) -> api::ViewItem {
    api::ViewItem { item, value: json_text(value) }
}

/// A page of what two generations differ in.
pub fn view_diff(
    view: &ViewName,
    (from_version, to_version): (i64, i64),
    items: Vec<(String, ItemChange)>,
    next: Option<String>,
) -> api::ViewDiff {
    let item = |(item, change)| api::ItemDifference {
        item,
        change: match change {
            ItemChange::Added => api::ItemChange::Added,
            ItemChange::Changed => api::ItemChange::Changed,
            ItemChange::Removed => api::ItemChange::Removed,
        },
    };
    api::ViewDiff {
        schema: api::ViewDiff::SCHEMA.to_owned(),
        namespace: view.namespace.clone(),
        key: view.key.clone(),
        from_version,
        to_version,
        items: items.into_iter().map(item).collect(),
        next,
    }
}

/// What taking a view back did.
pub fn view_restored(view: &ViewName, from_version: i64, restored: &Restored) -> api::ViewRestored {
    api::ViewRestored {
        schema: api::ViewRestored::SCHEMA.to_owned(),
        view_id: restored.view.to_string(),
        namespace: view.namespace.clone(),
        key: view.key.clone(),
        version: restored.version,
        from_version,
        items_changed: restored.items_changed,
        items_removed: restored.items_removed,
        superseded_job_id: restored.superseded.map(|id| id.to_string()),
    }
}

/// What a touch did.
pub fn touched(namespace: String, key: String, outcome: &TouchOutcome) -> api::Touched {
    api::Touched {
        schema: api::Touched::SCHEMA.to_owned(),
        view_id: outcome.view.to_string(),
        namespace,
        key,
        recache_version: outcome.version,
        superseded_job_id: outcome.superseded.map(|id| id.to_string()),
    }
}
