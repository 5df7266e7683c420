//! From what workers, templates and roll-ups say to one entry for each handler of each namespace.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::{ANY_NAMESPACE, HandlerUsers, StepUse, Worker};
use crate::figures::{Distribution, Kind, MinuteTotals, Totals};
use crate::template::{compare_versions, newest_version};

/// A version of a handler that some worker has.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Version {
    /// As its workers call it; `None` for those that name none.
    pub version: Option<String>,
    /// How many workers have it.
    pub workers: u64,
    /// What it takes, as the newest worker says that says so.
    pub input_schema: Option<Value>,
    /// Another worker with the same version says something else: two builds under one number.
    pub is_schema_disputed: bool,
}

/// A handler as one namespace sees it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Entry {
    /// Whose jobs; [`ANY_NAMESPACE`] where no namespace is known to use it.
    pub namespace: String,
    /// As jobs name it.
    pub name: String,
    /// What workers have, the newest first; those without a number last.
    pub versions: Vec<Version>,
    /// The newest of them: the highest release, or, without one, the highest pre-release.
    pub newest: Option<String>,
    /// Who can do it, by their places in [`Registry::workers`]. Empty: its jobs wait.
    pub workers: Vec<usize>,
    /// The steps that it does, of the newest version of each template.
    pub steps: Vec<StepUse>,
    /// Handlers whose steps come right before one of its own.
    pub follows: Vec<String>,
    /// Handlers whose steps come right after.
    pub precedes: Vec<String>,
    /// Views that it builds.
    pub views: u64,
    /// Schedules that make jobs for it.
    pub schedules: u64,
    /// Its jobs that ended in the window.
    pub executions: u64,
    /// Of those that ended well or failed, the fraction that failed.
    pub error_rate: Option<f64>,
    /// How long its last attempts ran.
    pub run: Distribution,
    /// How long they were due before.
    pub wait: Distribution,
    /// Of failures, how many with which code; the most frequent first.
    pub codes: Vec<(String, u64)>,
}

/// That steps of one handler come right after steps of another.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Follows {
    /// Who the templates belong to.
    pub namespace: String,
    /// What comes first.
    pub before: String,
    /// What follows.
    pub after: String,
    /// In which templates, by name.
    pub templates: Vec<String>,
}

/// All handlers.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct Registry {
    /// By namespace and name.
    pub entries: Vec<Entry>,
    /// Who can do them, the newest first.
    pub workers: Vec<Worker>,
    /// How they hang together, by namespace and names.
    pub follows: Vec<Follows>,
}

impl Registry {
    /// A handler of a namespace.
    pub fn find(&self, namespace: &str, name: &str) -> Option<&Entry> {
        let place = self.entries.binary_search_by(|entry| {
            (entry.namespace.as_str(), entry.name.as_str()).cmp(&(namespace, name))
        });
        place.ok().and_then(|place| self.entries.get(place))
    }
}

/// An entry while it is added up.
#[derive(Default)]
struct Draft {
    workers: Vec<usize>,
    steps: Vec<StepUse>,
    follows: BTreeSet<String>,
    precedes: BTreeSet<String>,
    views: u64,
    schedules: u64,
    totals: Totals,
}

/// Namespace and name.
type Name = (String, String);

/// What there is. `workers` are the newest first; `minutes` are of the window over which figures are told.
pub fn registry(
    workers: Vec<Worker>,
    steps: Vec<StepUse>,
    users: Vec<HandlerUsers>,
    minutes: &[MinuteTotals],
) -> Registry {
    let mut drafts: BTreeMap<Name, Draft> = BTreeMap::new();
    let mut follows: BTreeMap<(String, String, String), BTreeSet<String>> = BTreeMap::new();
    for step in steps {
        let (namespace, handler) = (step.namespace.clone(), step.handler.clone());
        for before in &step.follows {
            drafts.entry((namespace.clone(), before.clone())).or_default().precedes.insert(handler.clone());
            follows
                .entry((namespace.clone(), before.clone(), handler.clone()))
                .or_default()
                .insert(step.template.clone());
        }
        let draft = drafts.entry((namespace, handler)).or_default();
        draft.follows.extend(step.follows.iter().cloned());
        draft.steps.push(step);
    }
    for HandlerUsers { namespace, handler, views, schedules } in users {
        let draft = drafts.entry((namespace, handler)).or_default();
        draft.views = draft.views.saturating_add(views);
        draft.schedules = draft.schedules.saturating_add(schedules);
    }
    for one in minutes.iter().filter(|one| one.series.kind != Kind::Workflow) {
        let name = (one.series.namespace.clone(), one.series.handler.clone());
        drafts.entry(name).or_default().totals.merge(&one.totals);
    }
    offer(&mut drafts, &workers);
    let entries = drafts.into_iter().map(|(name, draft)| entry(name, draft, &workers)).collect();
    let follows = follows
        .into_iter()
        .map(|((namespace, before, after), templates)| Follows {
            namespace,
            before,
            after,
            templates: templates.into_iter().collect(),
        })
        .collect();
    Registry { entries, workers, follows }
}

/// Gives workers to the entries of the namespaces that they serve.
fn offer(drafts: &mut BTreeMap<Name, Draft>, workers: &[Worker]) {
    // First those that name their namespaces: what they name is known to be wanted there.
    for worker in workers {
        for namespace in worker.namespaces.iter().flatten() {
            for handler in &worker.handlers {
                drafts.entry((namespace.clone(), handler.name.clone())).or_default();
            }
        }
    }
    let mut known: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for (namespace, name) in drafts.keys() {
        known.entry(name.clone()).or_default().push(namespace.clone());
    }
    for (place, worker) in workers.iter().enumerate() {
        for handler in &worker.handlers {
            let namespaces = known.get(&handler.name).map(Vec::as_slice).unwrap_or_default();
            if namespaces.is_empty() {
                let any = (ANY_NAMESPACE.to_owned(), handler.name.clone());
                drafts.entry(any).or_default().workers.push(place);
            }
            for namespace in namespaces.iter().filter(|namespace| worker.serves(namespace)) {
                let name = (namespace.clone(), handler.name.clone());
                drafts.entry(name).or_default().workers.push(place);
            }
        }
    }
}

fn entry((namespace, name): Name, draft: Draft, workers: &[Worker]) -> Entry {
    let Draft { workers: mut places, mut steps, follows, precedes, views, schedules, totals } = draft;
    // A worker that names a handler twice has it once.
    places.dedup();
    steps.sort();
    let mut by_version: BTreeMap<Option<&str>, Version> = BTreeMap::new();
    for worker in places.iter().filter_map(|place| workers.get(*place)) {
        let Some(offer) = worker.handlers.iter().find(|offer| offer.name == name) else { continue };
        let version = by_version.entry(offer.version.as_deref()).or_insert_with(|| Version {
            version: offer.version.clone(),
            workers: 0,
            input_schema: None,
            is_schema_disputed: false,
        });
        version.workers += 1;
        match (&version.input_schema, &offer.input_schema) {
            (Some(known), Some(said)) => version.is_schema_disputed |= known != said,
            (None, said) => version.input_schema.clone_from(said),
            (Some(_), None) => {}
        }
    }
    let mut versions: Vec<Version> = by_version.into_values().collect();
    versions.sort_by(|one, other| match (&one.version, &other.version) {
        (Some(one), Some(other)) => compare_versions(other, one),
        (one, other) => other.is_some().cmp(&one.is_some()),
    });
    let newest = newest_version(versions.iter().filter_map(|version| version.version.as_deref()));
    let mut codes: Vec<(String, u64)> =
        totals.codes.iter().map(|(code, count)| (code.clone(), *count)).collect();
    codes.sort_by_key(|(_, count)| std::cmp::Reverse(*count));
    Entry {
        newest: newest.map(str::to_owned),
        versions,
        namespace,
        name,
        workers: places,
        steps,
        follows: follows.into_iter().collect(),
        precedes: precedes.into_iter().collect(),
        views,
        schedules,
        executions: totals.executed(),
        error_rate: totals.error_rate(),
        run: Distribution::of(totals.ran_us, &totals.ran),
        wait: Distribution::of(totals.waited_us, &totals.waited),
        codes,
    }
}
