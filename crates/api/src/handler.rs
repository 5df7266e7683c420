//! The registry of handlers: who can do them, who wants them, how they fare.

use serde::{Deserialize, Serialize};

use crate::analytics::DurationSpread;
use crate::instant::Instant;
use crate::json::Json;

/// A version of a handler that some worker has.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct HandlerVersion {
    /// As its workers call it; `null` for those that name none.
    pub version: Option<String>,
    /// How many workers have it.
    pub workers: u64,
    /// What it takes, as JSON Schema; `null` where no worker says so.
    #[cfg_attr(feature = "openapi", schema(value_type = Json, required = false))]
    pub input_schema: Option<Json>,
    /// Workers say different things under this one version.
    pub is_schema_disputed: bool,
}

/// A handler as one namespace sees it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Handler {
    /// Whose jobs; `*` where workers offer it to all namespaces and none is known to use it.
    pub namespace: String,
    /// As jobs name it: a name, `order.*` for a prefix, `@name` for a resolver.
    pub name: String,
    /// The newest version that a worker has: the highest release, or, without one, the highest pre-release.
    pub newest_version: Option<String>,
    /// What workers have, the newest first; those without a number last.
    pub versions: Vec<HandlerVersion>,
    /// Workers that may have its jobs. 0: its jobs wait.
    pub workers: u64,
    /// Steps that it does, of the newest version of each template.
    pub steps: u64,
    /// Views that it builds.
    pub views: u64,
    /// Schedules that make jobs for it.
    pub schedules: u64,
    /// Its jobs that ended in the window.
    pub executions: u64,
    /// Of those that ended well or failed, the fraction that failed.
    pub error_rate: Option<f64>,
    /// How long its last attempts ran.
    pub run_seconds: DurationSpread,
    /// How long they were due before.
    pub wait_seconds: DurationSpread,
}

/// Handlers by namespace and name.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct HandlerList {
    /// [`HandlerList::SCHEMA`]
    pub schema: String,
    /// When it was calculated.
    pub calculated_at: Instant,
    /// Over how long figures are told.
    pub hours: u32,
    /// Some templates were left out: there are too many.
    pub templates_left_out: bool,
    /// The namespaces of the handlers below.
    pub namespaces: Vec<String>,
    /// The handlers.
    pub handlers: Vec<Handler>,
}

impl HandlerList {
    /// The name and version of this shape.
    pub const SCHEMA: &'static str = "recache.handlers.v1";
}

/// A worker that can do it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct HandlerWorker {
    /// `ses_…`
    pub session: String,
    /// What it calls itself, for people.
    pub name: String,
    /// It talks to a server and not to the database.
    pub is_remote: bool,
    /// Which version it has.
    pub version: Option<String>,
    /// From which queues it takes jobs.
    pub queues: Vec<String>,
    /// How many jobs it runs at once, of all its handlers.
    pub slots: u32,
    /// When it registered.
    pub registered_at: Instant,
    /// When it was last heard of.
    pub heard_at: Instant,
}

/// A step that it does.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct HandlerStep {
    /// The template's name.
    pub template: String,
    /// Its version.
    pub version: String,
    /// The step.
    pub step: String,
    /// Handlers of the steps that it waits for.
    pub follows: Vec<String>,
}

/// A code with which it fails.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct HandlerFailure {
    /// The code, or the kind of error where it has none.
    pub code: String,
    /// How often in the window.
    pub failures: u64,
}

/// A handler with all that is known of it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct HandlerDetails {
    /// [`HandlerDetails::SCHEMA`]
    pub schema: String,
    /// When it was calculated.
    pub calculated_at: Instant,
    /// Over how long figures are told.
    pub hours: u32,
    /// The handler.
    pub handler: Handler,
    /// Workers that may have its jobs, the newest first; at most 1,000.
    pub workers: Vec<HandlerWorker>,
    /// Steps that it does; at most 1,000.
    pub steps: Vec<HandlerStep>,
    /// Handlers whose steps come right before one of its own.
    pub follows: Vec<String>,
    /// Handlers whose steps come right after.
    pub precedes: Vec<String>,
    /// With what it fails, the most frequent first.
    pub failures: Vec<HandlerFailure>,
}

impl HandlerDetails {
    /// The name and version of this shape.
    pub const SCHEMA: &'static str = "recache.handler.v1";
}

/// A handler in the graph.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct HandlerNode {
    /// Whose jobs.
    pub namespace: String,
    /// As jobs name it.
    pub name: String,
    /// Some worker may have its jobs.
    pub is_served: bool,
}

/// Steps of one handler come right after steps of another.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct HandlerEdge {
    /// Who the templates belong to.
    pub namespace: String,
    /// The handler that comes first.
    pub before: String,
    /// The handler that follows.
    pub after: String,
    /// In which templates, by name.
    pub templates: Vec<String>,
}

/// How handlers hang together.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct HandlerGraph {
    /// [`HandlerGraph::SCHEMA`]
    pub schema: String,
    /// When it was calculated.
    pub calculated_at: Instant,
    /// The handlers.
    pub nodes: Vec<HandlerNode>,
    /// What follows what. Over several templates this may run in circles.
    pub edges: Vec<HandlerEdge>,
}

impl HandlerGraph {
    /// The name and version of this shape.
    pub const SCHEMA: &'static str = "recache.handler-graph.v1";
}
