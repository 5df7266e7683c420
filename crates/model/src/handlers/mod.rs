//! Which handlers there are: who can do them, who wants them, in which versions, and how they fare.
//!
//! A handler belongs to no namespace by itself: a worker offers it for some namespaces or for all. An entry of the [`Registry`] is
//! a handler *as one namespace sees it*: its steps, views and schedules, its figures, and the workers that may have its jobs.

mod registry;

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::ids::SessionId;
use crate::template::{Handler, Template};
use crate::time::Timestamp;

pub use registry::{Entry, Follows, Registry, Version, registry};

/// In place of a namespace: of a handler that some worker offers to all namespaces, and that none is known to use.
pub const ANY_NAMESPACE: &str = "*";
/// Longest JSON Schema of a handler's input, in bytes.
pub const INPUT_SCHEMA_BYTES_MAX: usize = 16 * 1024;

/// That a worker can do something.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct HandlerOffer {
    /// As jobs name it.
    pub name: String,
    /// Which version of it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub version: Option<String>,
    /// What it takes, as JSON Schema; for people and tools, nothing is checked by it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub input_schema: Option<Value>,
}

/// A worker that said what it can do.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Worker {
    /// Its session, which has not ended.
    #[serde(with = "session_text")]
    pub session: SessionId,
    /// What it calls itself, for people.
    pub name: String,
    /// It talks to a server and not to the database.
    pub is_remote: bool,
    /// What it can do.
    pub handlers: Vec<HandlerOffer>,
    /// From which queues it takes jobs.
    pub queues: Vec<String>,
    /// How many it runs at once.
    pub slots: u32,
    /// Of whose jobs it may have; `None`: of all.
    pub namespaces: Option<Vec<String>>,
    /// When it registered.
    pub started_at: Timestamp,
    /// When it was last heard of.
    pub beat_at: Timestamp,
    /// When its session ends unless it is heard of.
    pub expires_at: Timestamp,
}

impl Worker {
    /// Whether it may have jobs of a namespace.
    pub fn serves(&self, namespace: &str) -> bool {
        match &self.namespaces {
            None => true,
            Some(names) => names.iter().any(|name| name == namespace),
        }
    }
}

/// A step of a template that a handler does.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct StepUse {
    /// Who the template belongs to.
    pub namespace: String,
    /// The template's name.
    pub template: String,
    /// Its version.
    pub version: String,
    /// The step.
    pub step: String,
    /// Under which name its jobs are given to workers.
    pub handler: String,
    /// The same of the steps that it waits for.
    pub follows: Vec<String>,
}

/// What names a handler without a template.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HandlerUsers {
    /// Who they belong to.
    pub namespace: String,
    /// Which handler.
    pub handler: String,
    /// Views that it builds.
    pub views: u64,
    /// Schedules that make jobs for it.
    pub schedules: u64,
}

/// The handlers of a template's steps. Steps without a handler hand their place on: what waits for one of them follows what it waited for.
pub fn steps_of(template: &Template) -> Vec<StepUse> {
    let steps = template.steps();
    let graph = template.graph();
    let handler =
        |step: usize| steps.get(step).and_then(|step| step.handler.as_ref()).and_then(Handler::claimed_as);
    // In the order of the graph, so that what comes before is known.
    let mut before: Vec<BTreeSet<String>> = vec![BTreeSet::new(); steps.len()];
    for level in graph.levels() {
        for &step in level {
            let mut names = BTreeSet::new();
            for &needed in graph.dependencies(step) {
                match handler(needed) {
                    Some(name) => {
                        names.insert(name);
                    }
                    None => names.extend(before.get(needed).into_iter().flatten().cloned()),
                }
            }
            if let Some(slot) = before.get_mut(step) {
                *slot = names;
            }
        }
    }
    steps
        .iter()
        .zip(before)
        .enumerate()
        .filter_map(|(place, (step, follows))| {
            Some(StepUse {
                namespace: template.namespace().to_owned(),
                template: template.name().to_owned(),
                version: template.version().to_string(),
                step: step.name.clone(),
                handler: handler(place)?,
                follows: follows.into_iter().collect(),
            })
        })
        .collect()
}

/// A session's id as it is shown.
mod session_text {
    use serde::{Deserialize as _, Deserializer, Serializer};

    use crate::ids::SessionId;

    pub(super) fn serialize<S: Serializer>(session: &SessionId, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(session)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<SessionId, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}
