//! What a template is, once it is known to be right.

use std::collections::{BTreeMap, HashMap, HashSet};

use semver::Version;
use serde_json::{Map, Value};

use super::canonical::{Digest, canonical};
use super::environment::{Environment, Overlays};
use super::events::DomainEvent;
use super::graph::Graph;
use super::json_schema::{JsonSchema, Mismatches};
use super::lifecycle::Lifecycle;
use super::limits::{CANONICAL_BYTES_MAX, SOURCE_BYTES_MAX};
use super::problems::{Path, Position, Problem, Problems, shown};
use super::step::Step;
use super::suggest::Suggester;
use super::tree::{Tree, form_problem};
use super::{json, read, unsupported, yaml};

/// A versioned definition of a workflow: `(namespace, name, version)`, steps and their dependencies.
///
/// There is no way to have one that is not valid. Two templates are equal when they mean the same, wherever they
/// were written; equal templates have equal digests.
#[derive(Debug, Clone)]
pub struct Template {
    pub(super) meaning: Meaning,
    pub(super) graph: Graph,
    pub(super) canonical: String,
    pub(super) file: String,
    /// Where each step names its handler and settings; empty when read from a canonical form.
    pub(super) handlers_at: Vec<HandlerAt>,
    /// Where other fields stand, by pointer; empty when read from a canonical form.
    pub(super) places: HashMap<String, Position>,
}

/// What two equal templates have in common.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Meaning {
    pub(super) name: String,
    pub(super) namespace: String,
    pub(super) version: Version,
    pub(super) description: Option<String>,
    pub(super) metadata: Map<String, Value>,
    pub(super) system_dependencies: SystemDependencies,
    pub(super) domain_events: Vec<DomainEvent>,
    pub(super) input_schema: Option<JsonSchema>,
    pub(super) steps: Vec<Step>,
    pub(super) environments: BTreeMap<String, Environment>,
    pub(super) lifecycle: Option<Lifecycle>,
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

/// The systems that a template works with, for people.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct SystemDependencies {
    /// The one that it is about.
    pub primary: Option<String>,
    /// Others.
    pub secondary: Vec<String>,
}

/// The fields of a template's metadata that have a meaning; its author may keep any others beside them.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Metadata<'a> {
    /// Who wrote it.
    pub author: Option<&'a str>,
    /// Words to find it by.
    pub tags: Vec<&'a str>,
    /// Where it is described.
    pub documentation_url: Option<&'a str>,
    /// When it was written, in its author's words.
    pub created_at: Option<&'a str>,
    /// When it was changed, in its author's words.
    pub updated_at: Option<&'a str>,
    /// Anything else.
    pub notes: Option<&'a str>,
}

impl Template {
    /// Reads a template from YAML or JSON. `name_of_file` is only repeated in problems.
    ///
    /// Every problem is told at once; only a syntax error or a broken bound ends the reading early.
    pub fn parse(source: &str, name_of_file: &str) -> Result<Self, Problems> {
        let mut problems = Problems::new(name_of_file);
        let template =
            source_tree(source, &mut problems).and_then(|tree| read::template(&tree, &mut problems, None));
        problems.into_result(template)
    }

    /// Reads a template likewise, but forgives unknown fields: it is as if they were not written. The second value
    /// tells of them.
    pub fn parse_lenient(source: &str, name_of_file: &str) -> Result<(Self, Problems), Problems> {
        let mut problems = Problems::new(name_of_file);
        let mut forgiven = Problems::new(name_of_file);
        let template = source_tree(source, &mut problems)
            .and_then(|tree| read::template(&tree, &mut problems, Some(&mut forgiven)));
        problems.into_result(template).map(|template| (template, forgiven.sorted()))
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
        let template =
            json::read(text, &mut problems).and_then(|tree| read::template(&tree, &mut problems, None));
        problems.into_result(template)
    }

    /// The name.
    pub fn name(&self) -> &str {
        &self.meaning.name
    }

    /// The namespace; `default` unless given.
    pub fn namespace(&self) -> &str {
        &self.meaning.namespace
    }

    /// The version; orders as versions do, 0.10.0 above 0.9.0.
    pub fn version(&self) -> &Version {
        &self.meaning.version
    }

    /// What it is for, told to people.
    pub fn description(&self) -> Option<&str> {
        self.meaning.description.as_deref()
    }

    /// Whatever its author keeps with it.
    pub fn metadata(&self) -> &Map<String, Value> {
        &self.meaning.metadata
    }

    /// The parts of [`metadata`](Self::metadata) that have a meaning.
    pub fn known_metadata(&self) -> Metadata<'_> {
        let text = |name: &str| self.meaning.metadata.get(name).and_then(Value::as_str);
        let tags = self.meaning.metadata.get("tags").and_then(Value::as_array);
        Metadata {
            author: text("author"),
            tags: tags.into_iter().flatten().filter_map(Value::as_str).collect(),
            documentation_url: text("documentation_url"),
            created_at: text("created_at"),
            updated_at: text("updated_at"),
            notes: text("notes"),
        }
    }

    /// The systems that it works with, for people.
    pub fn system_dependencies(&self) -> &SystemDependencies {
        &self.meaning.system_dependencies
    }

    /// The events that its steps may publish.
    pub fn domain_events(&self) -> &[DomainEvent] {
        &self.meaning.domain_events
    }

    /// What a workflow's input must fit.
    pub fn input_schema(&self) -> Option<&JsonSchema> {
        self.meaning.input_schema.as_ref()
    }

    /// The steps, as declared; at least one.
    pub fn steps(&self) -> &[Step] {
        &self.meaning.steps
    }

    /// What differs from one environment to another.
    pub fn environments(&self) -> &BTreeMap<String, Environment> {
        &self.meaning.environments
    }

    /// How long a workflow may take over its phases.
    pub fn lifecycle(&self) -> Option<&Lifecycle> {
        self.meaning.lifecycle.as_ref()
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

    /// The template as it is in one environment: its overlays applied, and no environments left. What is pinned for a
    /// workflow is the original; this one says what its steps do.
    pub fn for_environment(&self, environment: &str) -> Result<Self, Problems> {
        let Some(found) = self.meaning.environments.get(environment) else {
            let mut problems = Problems::new(&self.file);
            let names = self.meaning.environments.keys().map(String::as_str);
            let suggestion = Suggester::default().did_you_mean(environment, names).or_else(|| {
                let names: Vec<&str> = self.meaning.environments.keys().map(String::as_str).collect();
                (!names.is_empty()).then(|| format!("it has {}", names.join(", ")))
            });
            let message = format!("the template has no environment {}", shown(environment));
            form_problem(&mut problems, "unknown_environment", None, message, suggestion.as_deref());
            return Err(problems);
        };
        let mut effective = self.clone();
        effective.meaning.environments = BTreeMap::new();
        let overlays = Overlays::of(found);
        for step in &mut effective.meaning.steps {
            overlays.apply(step);
        }
        effective.pin();
        Ok(effective)
    }

    /// Whether `input` fits the template's `input_schema`; everything that does not, each with its path.
    pub fn check_input(&self, input: &Value) -> Result<(), Mismatches> {
        self.meaning.input_schema.as_ref().map_or(Ok(()), |schema| schema.check(input))
    }

    /// What this version of the engine does not run: one problem for each field that it would have to ignore, with
    /// its place. Empty when it can run the template; otherwise it must refuse it.
    pub fn unsupported(&self) -> Problems {
        let mut problems = Problems::new(&self.file);
        for (path, message) in unsupported::fields(&self.meaning) {
            let at = self.places.get(&path);
            problems.push(Problem {
                code: "unsupported_field",
                message,
                line: at.map(|at| at.line),
                column: at.map(|at| at.column),
                path,
                suggestion: None,
            });
        }
        problems.sorted()
    }

    /// Whether every handler that the steps name is among `known`, which may hold prefixes and resolvers as
    /// [`claimed_as`](super::Handler::claimed_as) writes them; a problem for each that is not.
    pub fn check_handlers(&self, known: &[&str]) -> Result<(), Problems> {
        let mut problems = Problems::new(&self.file);
        let mut suggester = Suggester::default();
        let names: HashSet<&str> = known.iter().copied().collect();
        for (index, step) in self.meaning.steps.iter().enumerate() {
            let Some(handler) = &step.handler else { continue };
            let callable = handler.callable.as_str();
            if handler.claimed_as().is_some_and(|name| names.contains(name.as_str())) {
                continue;
            }
            let at = self.handlers_at.get(index).and_then(|at| at.callable);
            let steps = Path::Field(&Path::Root, "steps");
            let step_path = Path::Item(&steps, index);
            let handler_path = Path::Field(&step_path, "handler");
            problems.push(Problem {
                code: "unknown_handler",
                message: format!(
                    "step {} names the handler {}, which is not registered",
                    step.name,
                    shown(callable)
                ),
                line: at.map(|at| at.line),
                column: at.map(|at| at.column),
                path: Path::Field(&handler_path, "callable").pointer(),
                suggestion: suggester.did_you_mean(callable, known.iter().copied()),
            });
        }
        problems.into_result(Some(()))
    }

    /// Whether every publisher that the steps' events name is among `known`; a problem for each that is not.
    pub fn check_publishers(&self, known: &[&str]) -> Result<(), Problems> {
        let mut problems = Problems::new(&self.file);
        let mut suggester = Suggester::default();
        for (index, step) in self.meaning.steps.iter().enumerate() {
            for (place, event) in step.publishes_events.iter().enumerate() {
                let Some(publisher) = event.publisher.as_deref().filter(|name| !known.contains(name)) else {
                    continue;
                };
                let path = format!("/steps/{index}/publishes_events/{place}/publisher");
                let at = self.places.get(&path);
                problems.push(Problem {
                    code: "unknown_publisher",
                    message: format!(
                        "the event {} of step {} names the publisher {}, which is not registered",
                        event.name,
                        step.name,
                        shown(publisher)
                    ),
                    line: at.map(|at| at.line),
                    column: at.map(|at| at.column),
                    path,
                    suggestion: suggester.did_you_mean(publisher, known.iter().copied()),
                });
            }
        }
        problems.into_result(Some(()))
    }

    /// Asks `check`, which knows the handlers, about every step's settings; what it finds gets its place: that of
    /// the setting, or of the handler's name.
    pub fn check_settings(&self, check: impl Fn(&Step) -> Vec<SettingProblem>) -> Result<(), Problems> {
        let mut problems = Problems::new(&self.file);
        for (index, step) in self.meaning.steps.iter().enumerate() {
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

    /// Writes the canonical form down; done when everything else is in place.
    pub(super) fn pin(&mut self) -> &str {
        self.canonical = canonical(&self.meaning);
        &self.canonical
    }
}

impl PartialEq for Template {
    fn eq(&self, other: &Self) -> bool {
        self.meaning == other.meaning
    }
}

/// The tree of a source within its bounds.
fn source_tree(source: &str, problems: &mut Problems) -> Option<Tree> {
    if source.len() > SOURCE_BYTES_MAX {
        let message = format!("the template has {} bytes, the limit is {SOURCE_BYTES_MAX}", source.len());
        form_problem(problems, "too_large", None, message, None);
        return None;
    }
    let tree = yaml::read(source, problems);
    if tree.is_none() && problems.is_empty() {
        let at = Some(Position { line: 1, column: 1 });
        let help = Some("a template has at least `name`, `version` and `steps`");
        form_problem(problems, "empty", at, "the file holds no template", help);
    }
    tree
}
