//! From the registry of handlers to its documents.

use std::collections::BTreeSet;

use recache_api as api;
use recache_engine::registry::{FoundRegistry, HOURS};
use recache_model::figures::Distribution;
use recache_model::handlers::{Entry, HandlerOffer, Registry, Version, Worker};

use super::analytics::spread;
use super::records::{instant, json_value, ms};

/// Workers and steps of one handler that are told of.
const LISTED_MAX: usize = 1_000;

/// A worker, remote or at the database.
pub fn worker(worker: Worker) -> api::Worker {
    let handler = |offer: HandlerOffer| api::WorkerHandler {
        name: offer.name,
        version: offer.version,
        input_schema: offer.input_schema.as_ref().map(json_value),
    };
    api::Worker {
        session: worker.session.to_string(),
        name: worker.name,
        is_remote: worker.is_remote,
        handlers: worker.handlers.into_iter().map(handler).collect(),
        queues: worker.queues,
        namespaces: worker.namespaces,
        slots: worker.slots,
        lease_ms: ms(worker.expires_at.since(worker.beat_at)),
        registered_at: instant(worker.started_at),
        heard_at: instant(worker.beat_at),
        expires_at: instant(worker.expires_at),
    }
}

/// All handlers, or those of a namespace.
pub fn handler_list(found: &FoundRegistry, namespace: Option<&str>) -> api::HandlerList {
    let entries: Vec<&Entry> = entries(&found.registry, namespace).collect();
    let namespaces: BTreeSet<&str> = entries.iter().map(|entry| entry.namespace.as_str()).collect();
    api::HandlerList {
        schema: api::HandlerList::SCHEMA.to_owned(),
        calculated_at: instant(found.calculated_at),
        hours: HOURS,
        templates_left_out: found.templates_left_out,
        namespaces: namespaces.into_iter().map(str::to_owned).collect(),
        handlers: entries.into_iter().map(handler).collect(),
    }
}

/// A handler of a namespace; `None` where there is none.
pub fn handler_details(found: &FoundRegistry, namespace: &str, name: &str) -> Option<api::HandlerDetails> {
    let registry = &found.registry;
    let entry = registry.find(namespace, name)?;
    let workers = entry.workers.iter().take(LISTED_MAX).filter_map(|place| registry.workers.get(*place));
    Some(api::HandlerDetails {
        schema: api::HandlerDetails::SCHEMA.to_owned(),
        calculated_at: instant(found.calculated_at),
        hours: HOURS,
        handler: handler(entry),
        workers: workers
            .map(|worker| api::HandlerWorker {
                session: worker.session.to_string(),
                name: worker.name.clone(),
                is_remote: worker.is_remote,
                version: worker
                    .handlers
                    .iter()
                    .find(|offer| offer.name == entry.name)
                    .and_then(|offer| offer.version.clone()),
                queues: worker.queues.clone(),
                slots: worker.slots,
                registered_at: instant(worker.started_at),
                heard_at: instant(worker.beat_at),
            })
            .collect(),
        steps: entry
            .steps
            .iter()
            .take(LISTED_MAX)
            .map(|step| api::HandlerStep {
                template: step.template.clone(),
                version: step.version.clone(),
                step: step.step.clone(),
                follows: step.follows.clone(),
            })
            .collect(),
        follows: entry.follows.clone(),
        precedes: entry.precedes.clone(),
        failures: entry
            .codes
            .iter()
            .map(|(code, failures)| api::HandlerFailure { code: code.clone(), failures: *failures })
            .collect(),
    })
}

/// How all handlers hang together, or those of a namespace.
pub fn handler_graph(found: &FoundRegistry, namespace: Option<&str>) -> api::HandlerGraph {
    let edges =
        found.registry.follows.iter().filter(|edge| namespace.is_none_or(|name| edge.namespace == name));
    api::HandlerGraph {
        schema: api::HandlerGraph::SCHEMA.to_owned(),
        calculated_at: instant(found.calculated_at),
        nodes: entries(&found.registry, namespace)
            .map(|entry| api::HandlerNode {
                namespace: entry.namespace.clone(),
                name: entry.name.clone(),
                is_served: !entry.workers.is_empty(),
            })
            .collect(),
        edges: edges
            .map(|edge| api::HandlerEdge {
                namespace: edge.namespace.clone(),
                before: edge.before.clone(),
                after: edge.after.clone(),
                templates: edge.templates.clone(),
            })
            .collect(),
    }
}

fn entries<'a>(registry: &'a Registry, namespace: Option<&'a str>) -> impl Iterator<Item = &'a Entry> {
    registry.entries.iter().filter(move |entry| namespace.is_none_or(|name| entry.namespace == name))
}

fn handler(entry: &Entry) -> api::Handler {
    let spread = |of: &Distribution| spread(of);
    api::Handler {
        namespace: entry.namespace.clone(),
        name: entry.name.clone(),
        newest_version: entry.newest.clone(),
        versions: entry.versions.iter().map(version).collect(),
        workers: count(entry.workers.len()),
        steps: count(entry.steps.len()),
        views: entry.views,
        schedules: entry.schedules,
        executions: entry.executions,
        error_rate: entry.error_rate,
        run_seconds: spread(&entry.run),
        wait_seconds: spread(&entry.wait),
    }
}

fn version(version: &Version) -> api::HandlerVersion {
    api::HandlerVersion {
        version: version.version.clone(),
        workers: version.workers,
        input_schema: version.input_schema.as_ref().map(json_value),
        is_schema_disputed: version.is_schema_disputed,
    }
}

fn count(count: usize) -> u64 {
    u64::try_from(count).unwrap_or(u64::MAX)
}
