//! What a template is, once it is known to be right.

use std::collections::{HashMap, HashSet};
use std::time::Duration;

use semver::Version;
use serde_json::{Map, Value};

use super::canonical::{Digest, Meaning, canonical};
use super::graph::Graph;
use super::limits::{CANONICAL_BYTES_MAX, SOURCE_BYTES_MAX};
use super::problems::{Path, Position, Problem, Problems, shown};
use super::suggest::Suggester;
use super::tree::form_problem;
use super::{json, read, yaml};

/// A versioned definition of a workflow: `(namespace, name, version)`, steps and their dependencies.
///
/// There is no way to have one that is not valid. Two templates are equal when they mean the same, wherever they
/// were written; equal templates have equal digests.
#[derive(Debug, Clone)]
pub struct Template {
    pub(super) name: String,
    pub(super) namespace: String,
    pub(super) version: Version,
    pub(super) description: Option<String>,
    pub(super) metadata: Map<String, Value>,
    pub(super) steps: Vec<Step>,
    pub(super) graph: Graph,
    pub(super) canonical: String,
    pub(super) file: String,
    /// Where each step names its handler and settings; empty when read from a canonical form.
    pub(super) handlers_at: Vec<HandlerAt>,
}

/// Where a step's handler stands in the source.
#[derive(Debug, Clone, Default)]
pub(super) struct HandlerAt {
    /// Its name.
    pub(super) callable: Option<Position>,
    /// The names of its settings.
    pub(super) settings: HashMap<String, Position>,
}

/// What a handler has against a step's settings, in [`Template::check_settings`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SettingProblem {
    /// The setting; none when one is missing, or when they do not go together.
    pub setting: Option<String>,
    /// What is wrong, naming the setting and its value.
    pub message: String,
    /// What to do about it.
    pub suggestion: Option<String>,
}

/// One step of a template.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct Step {
    /// Unique within the template.
    pub name: String,
    /// For people.
    pub description: Option<String>,
    /// What kind of step it is.
    pub step_type: StepType,
    /// The code that does it.
    pub handler: Handler,
    /// Names of the steps that must be done before, in the order in which those are declared.
    pub dependencies: Vec<String>,
    /// What happens after a failure.
    pub retry: RetrySpec,
    /// How long one attempt may run, in whole milliseconds; none leaves it to whoever runs it.
    pub timeout: Option<Duration>,
    /// The queue that its job goes to; none leaves it to whoever runs it.
    pub queue: Option<String>,
    /// Larger is more urgent; from -100 to 100, by default 0.
    pub priority: i32,
}

/// What kind of step it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum StepType {
    /// Runs once when its dependencies are done.
    #[default]
    Standard,
}

/// The code that does a step.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct Handler {
    /// The name under which the handler is registered.
    pub callable: String,
    /// Handed to the handler; by default empty.
    pub initialization: Map<String, Value>,
}

/// How a failed attempt is followed by another.
#[derive(Debug, Clone, PartialEq)]
pub struct RetrySpec {
    /// Whether a failure may be retried at all; by default true.
    pub retryable: bool,
    /// How often the step is tried in all, at least once; by default 3.
    pub max_attempts: u32,
    /// How delays grow; by default exponentially.
    pub backoff: BackoffSpec,
    /// The first delay, in milliseconds; by default 1,000.
    pub backoff_base_ms: u64,
    /// The longest delay, in milliseconds, never below the first; by default 300,000.
    pub max_backoff_ms: u64,
    /// Which part of a delay is left to chance, from 0 to 1; by default 0.1.
    pub jitter: f64,
}

impl Default for RetrySpec {
    fn default() -> Self {
        Self {
            retryable: true,
            max_attempts: 3,
            backoff: BackoffSpec::Exponential,
            backoff_base_ms: 1_000,
            max_backoff_ms: 300_000,
            jitter: 0.1,
        }
    }
}

/// How the delay grows from attempt to attempt.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BackoffSpec {
    /// No delay.
    None,
    /// By the base each time.
    Linear,
    /// Doubles each time.
    Exponential,
    /// By the Fibonacci numbers times the base.
    Fibonacci,
}

impl BackoffSpec {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::None, Self::Linear, Self::Exponential, Self::Fibonacci];

    /// The word for it in a template.
    pub fn word(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Linear => "linear",
            Self::Exponential => "exponential",
            Self::Fibonacci => "fibonacci",
        }
    }
}

impl Template {
    /// Reads a template from YAML or JSON. `name_of_file` is only repeated in problems.
    ///
    /// Every problem is told at once; only a syntax error or a broken bound ends the reading early.
    pub fn parse(source: &str, name_of_file: &str) -> Result<Self, Problems> {
        let mut problems = Problems::new(name_of_file);
        if source.len() > SOURCE_BYTES_MAX {
            let message = format!("the template has {} bytes, the limit is {SOURCE_BYTES_MAX}", source.len());
            form_problem(&mut problems, "too_large", None, message, None);
            return problems.into_result(None);
        }
        let tree = yaml::read(source, &mut problems);
        if tree.is_none() && problems.is_empty() {
            let at = Some(Position { line: 1, column: 1 });
            let help = Some("a template has at least `name`, `version` and `steps`");
            form_problem(&mut problems, "empty", at, "the file holds no template", help);
        }
        let template = tree.and_then(|tree| read::template(&tree, &mut problems));
        problems.into_result(template)
    }

    /// Reads what [`canonical_json`](Self::canonical_json) wrote. The result is equal to the original, but
    /// has no positions. What was not written by it is judged like any other source.
    pub fn from_canonical_json(text: &str) -> Result<Self, Problems> {
        let mut problems = Problems::new("canonical form");
        if text.len() > CANONICAL_BYTES_MAX {
            let message =
                format!("the template has {} bytes, the limit is {CANONICAL_BYTES_MAX}", text.len());
            form_problem(&mut problems, "too_large", None, message, None);
            return problems.into_result(None);
        }
        let template = json::read(text, &mut problems).and_then(|tree| read::template(&tree, &mut problems));
        problems.into_result(template)
    }

    /// The name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The namespace; `default` unless given.
    pub fn namespace(&self) -> &str {
        &self.namespace
    }

    /// The version; orders as versions do, 0.10.0 above 0.9.0.
    pub fn version(&self) -> &Version {
        &self.version
    }

    /// What it is for, told to people.
    pub fn description(&self) -> Option<&str> {
        self.description.as_deref()
    }

    /// Whatever its author keeps with it.
    pub fn metadata(&self) -> &Map<String, Value> {
        &self.metadata
    }

    /// The steps, as declared; at least one.
    pub fn steps(&self) -> &[Step] {
        &self.steps
    }

    /// The steps' graph; its indices are those of [`steps`](Self::steps).
    pub fn graph(&self) -> &Graph {
        &self.graph
    }

    /// The one text for what this template means, to be pinned.
    pub fn canonical_json(&self) -> &str {
        &self.canonical
    }

    /// Digest of the canonical form.
    pub fn digest(&self) -> Digest {
        Digest::of(&self.canonical)
    }

    /// Whether every handler that the steps name is among `known`; a problem for each that is not.
    pub fn check_handlers(&self, known: &[&str]) -> Result<(), Problems> {
        let mut problems = Problems::new(&self.file);
        let mut suggester = Suggester::default();
        let names: HashSet<&str> = known.iter().copied().collect();
        for (index, step) in self.steps.iter().enumerate() {
            let callable = step.handler.callable.as_str();
            if names.contains(callable) {
                continue;
            }
            let at = self.handlers_at.get(index).and_then(|at| at.callable);
            let steps = Path::Field(&Path::Root, "steps");
            let step_path = Path::Item(&steps, index);
            let handler = Path::Field(&step_path, "handler");
            problems.push(Problem {
                code: "unknown_handler",
                message: format!(
                    "step {} names the handler {}, which is not registered",
                    step.name,
                    shown(callable)
                ),
                line: at.map(|at| at.line),
                column: at.map(|at| at.column),
                path: Path::Field(&handler, "callable").pointer(),
                suggestion: suggester.did_you_mean(callable, known.iter().copied()),
            });
        }
        problems.into_result(Some(()))
    }

    /// Asks `check`, which knows the handlers, about every step's settings; what it finds gets its place: that of
    /// the setting, or of the handler's name.
    pub fn check_settings(&self, check: impl Fn(&Step) -> Vec<SettingProblem>) -> Result<(), Problems> {
        let mut problems = Problems::new(&self.file);
        for (index, step) in self.steps.iter().enumerate() {
            for found in check(step) {
                let places = self.handlers_at.get(index);
                let setting = found.setting.as_deref();
                let at = places.and_then(|at| {
                    setting.and_then(|setting| at.settings.get(setting).copied()).or(at.callable)
                });
                let steps = Path::Field(&Path::Root, "steps");
                let step_path = Path::Item(&steps, index);
                let handler = Path::Field(&step_path, "handler");
                let settings = Path::Field(&handler, "initialization");
                problems.push(Problem {
                    code: "bad_setting",
                    message: format!("step {}: {}", step.name, found.message),
                    line: at.map(|at| at.line),
                    column: at.map(|at| at.column),
                    path: setting
                        .map_or_else(|| settings.pointer(), |name| Path::Field(&settings, name).pointer()),
                    suggestion: found.suggestion,
                });
            }
        }
        problems.into_result(Some(()))
    }

    /// What two equal templates have in common.
    pub(super) fn meaning(&self) -> Meaning<'_> {
        Meaning {
            name: &self.name,
            namespace: &self.namespace,
            version: &self.version,
            description: self.description.as_deref(),
            metadata: &self.metadata,
            steps: &self.steps,
        }
    }

    /// Writes the canonical form down; done once, when everything else is in place.
    pub(super) fn pin(&mut self) -> &str {
        self.canonical = canonical(&self.meaning());
        &self.canonical
    }
}

impl PartialEq for Template {
    fn eq(&self, other: &Self) -> bool {
        self.name == other.name
            && self.namespace == other.namespace
            && self.version == other.version
            && self.description == other.description
            && self.metadata == other.metadata
            && self.steps == other.steps
    }
}
