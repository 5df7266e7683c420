//! Views in an operator's hands: history, differences, and why one is where it is.

use std::collections::HashMap;
use std::time::Duration;

use recache_api as api;
use recache_engine::{ViewItems, ViewPage};
use recache_model::ids::{JobId, ViewId, WorkflowId};
use recache_model::time::Timestamp;
use recache_model::view_wait::{BuildJob, ViewWait, wait_of};
use recache_store::{
    Error, GENERATIONS_TOLD_MAX, GenerationRecord, ItemChange, JobRecord, Restored, Store, TouchOutcome, ViewName, ViewRecord,
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

/// Why a view is behind, and what it waits for, as things stand in the store now.
pub async fn view_explanation(store: &dyn Store, view: &ViewName) -> Result<api::ViewExplanation, Error> {
    let record = store.view_get(&view.namespace, &view.key).await?;
    let build = match record.build {
        Some(job) => Some(store.job_get(job).await?),
        None => None,
    };
    let now = store.now().await?;
    let wait = wait_of(&record.versions, build.as_ref().map(waiting), now);
    let queue_paused = match store.queues().queue_get(&record.definition.queue).await {
        Ok(queue) => queue.pause.map(|pause| format!("{}: {}", pause.word.actor, pause.word.reason)),
        Err(Error::NotFound { .. }) => None,
        Err(error) => return Err(error),
    };
    let neighbours = store.chains().view_neighbours(view.clone()).await?;
    let workflow = build.as_ref().and_then(|job| job.sub_workflow);
    let (reason, remedy) = words(view, &record, wait, queue_paused.as_deref(), workflow);
    Ok(api::ViewExplanation {
        schema: api::ViewExplanation::SCHEMA.to_owned(),
        namespace: view.namespace.clone(),
        key: view.key.clone(),
        live_version: record.versions.live,
        recache_version: record.versions.wanted,
        staleness_ms: ms(record.versions.staleness(now)),
        waits_for: wait.as_str().to_owned(),
        until: until(wait).map(instant),
        build_job_id: record.build.map(|job| job.to_string()),
        reason,
        remedy,
        derived_from: neighbours.above.iter().map(ToString::to_string).collect(),
        feeds: neighbours.below.iter().map(ToString::to_string).collect(),
    })
}

fn waiting(job: &JobRecord) -> BuildJob {
    BuildJob { state: job.state, due_at: job.due_at, has_workflow: job.sub_workflow.is_some() }
}

fn until(wait: ViewWait) -> Option<Timestamp> {
    match wait {
        ViewWait::Debounce { until } => Some(until),
        ViewWait::Retry { at } => Some(at),
        _ => None,
    }
}

/// Why it is where it is, and the one command that would help, where one would.
fn words(
    view: &ViewName,
    record: &ViewRecord,
    wait: ViewWait,
    queue_paused: Option<&str>,
    workflow: Option<WorkflowId>,
) -> (String, Option<String>) {
    let definition = &record.definition;
    let now = || Some(format!("recache view touch {view} --now"));
    let worker = match &definition.options.workflow {
        Some(template) => format!("an engine, which begins the workflow `{template}`"),
        None => format!("a worker of queue `{}` that knows `{}`", definition.queue, definition.handler),
    };
    match wait {
        ViewWait::Untouched => ("nothing was ever touched".to_owned(), now()),
        ViewWait::Nothing => ("the newest version is live".to_owned(), None),
        ViewWait::Debounce { .. } => {
            let quiet = Duration::from_millis(definition.policy.debounce_quiet_ms);
            (format!("further touches may come: it is built when none came for {quiet:?}"), now())
        }
        ViewWait::Reconciler => {
            let why = "it is due, and the next engine that looks at views creates its build job";
            (why.to_owned(), Some("run a worker or a server, if none runs: recache serve".to_owned()))
        }
        ViewWait::Worker => match queue_paused {
            Some(why) => (
                format!("its build is queued, and queue `{}` is paused by {why}", definition.queue),
                Some(format!("recache queue resume {}", definition.queue)),
            ),
            None => (format!("its build is queued and waits for {worker}"), None),
        },
        ViewWait::Retry { .. } => {
            let error = record.last_error.as_deref().unwrap_or("see its job");
            (format!("its build failed and is tried again: {error}"), None)
        }
        ViewWait::Build { version, is_overtaken } => {
            let next = if is_overtaken { "; a newer one is wanted already and built next" } else { "" };
            match workflow {
                Some(id) => (
                    format!("version {version} is being built by workflow {id}{next}"),
                    Some(format!("recache workflow show {id}")),
                ),
                None => (format!("version {version} is being built{next}"), None),
            }
        }
        ViewWait::Touch => {
            let error = record.last_error.as_deref().unwrap_or("no reason was kept");
            (format!("the newest version could not be built: {error}"), now())
        }
        ViewWait::Resume => {
            let word =
                record.pause.as_ref().map(|pause| format!("{}: {}", pause.word.actor, pause.word.reason));
            let word = word.unwrap_or_else(|| "somebody".to_owned());
            (format!("its builds are paused by {word}"), Some(format!("recache view resume {view}")))
        }
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
