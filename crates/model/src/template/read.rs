//! From a tree to a template: what each field means, and everything that is wrong with it.

use std::collections::{HashMap, HashSet};
use std::time::Duration;

use semver::Version;
use serde_json::{Map, Value};

use super::definition::{BackoffSpec, Handler, HandlerAt, RetrySpec, Step, StepType, Template};
use super::fields::{Field, Fields, Given, Reader, Schema};
use super::graph::{self, Graph};
use super::limits::{
    ATTEMPTS_MAX, BACKOFF_MS_MAX, CALLABLE_BYTES_MAX, CANONICAL_BYTES_MAX, PRIORITY_MAX, PRIORITY_MIN,
    STEPS_MAX, TIMEOUT_MS_MAX, VERSION_BYTES_MAX,
};
use super::problems::{Path, Position, Problems, shown};
use super::suggest::Suggester;
use super::tree::{Content, Node, Tree};

const DEFAULT_NAMESPACE: &str = "default";

const TEMPLATE: Schema = Schema {
    what: "the template",
    fields: &[
        Field { name: "name", aliases: &[] },
        Field { name: "namespace_name", aliases: &["namespace"] },
        Field { name: "version", aliases: &[] },
        Field { name: "description", aliases: &[] },
        Field { name: "metadata", aliases: &[] },
        Field { name: "steps", aliases: &[] },
    ],
    unsupported: &[
        "input_schema",
        "environments",
        "lifecycle",
        "domain_events",
        "system_dependencies",
        "concurrency_key",
        "rate_limit",
        "cache",
    ],
};

const STEP: Schema = Schema {
    what: "the step",
    fields: &[
        Field { name: "name", aliases: &[] },
        Field { name: "description", aliases: &[] },
        Field { name: "handler", aliases: &[] },
        Field { name: "type", aliases: &["step_type"] },
        Field { name: "dependencies", aliases: &["depends_on", "depends_on_step", "depends_on_steps"] },
        Field { name: "retry", aliases: &[] },
        Field { name: "timeout_seconds", aliases: &[] },
        Field { name: "queue", aliases: &[] },
        Field { name: "priority", aliases: &[] },
    ],
    unsupported: &[
        "lifecycle",
        "domain_events",
        "system_dependencies",
        "publishes_events",
        "batch_config",
        "result_schema",
        "when",
        "for_each",
        "concurrency_key",
        "rate_limit",
        "wait_for",
        "workflow",
        "cache",
    ],
};

const HANDLER: Schema = Schema {
    what: "the handler",
    fields: &[Field { name: "callable", aliases: &[] }, Field { name: "initialization", aliases: &[] }],
    unsupported: &["method", "resolver"],
};

const RETRY: Schema = Schema {
    what: "the retry policy",
    fields: &[
        Field { name: "retryable", aliases: &[] },
        Field { name: "max_attempts", aliases: &["limit"] },
        Field { name: "backoff", aliases: &[] },
        Field { name: "backoff_base_ms", aliases: &["initial_delay"] },
        Field { name: "max_backoff_ms", aliases: &["max_delay"] },
        Field { name: "jitter", aliases: &[] },
    ],
    unsupported: &[],
};

/// Step types that a later version will know.
const STEP_TYPES_UNSUPPORTED: [&str; 6] =
    ["decision", "deferred", "deferred_convergence", "batchable", "batch_worker", "workflow"];

/// The template that `tree` describes; none only if a problem was told.
pub(super) fn template(tree: &Tree, problems: &mut Problems) -> Option<Template> {
    let file = problems.file().to_owned();
    let mut reader = Reader { tree, problems, suggester: Suggester::default() };
    let path = Path::Root;
    let fields = reader.fields(tree.root(), path, &TEMPLATE)?;
    let name = reader
        .required(&fields, "name", path, &TEMPLATE)
        .and_then(|given| reader.name(given, Path::Field(&path, given.spelling)));
    let namespace = match fields.get("namespace_name") {
        Some(given) => reader.name(given, Path::Field(&path, given.spelling)),
        None => Some(DEFAULT_NAMESPACE),
    };
    let version =
        reader.required(&fields, "version", path, &TEMPLATE).and_then(|given| reader.version(given));
    let description = reader.description(&fields, path);
    let metadata = reader.free_mapping(&fields, "metadata", path);
    let steps = reader.required(&fields, "steps", path, &TEMPLATE).and_then(|given| reader.steps(given));
    let (steps, graph, handlers_at) = steps?;
    let mut template = Template {
        name: name?.to_owned(),
        namespace: namespace?.to_owned(),
        version: version?,
        description,
        metadata,
        steps,
        graph,
        canonical: String::new(),
        file,
        handlers_at,
    };
    let canonical_bytes = template.pin().len();
    if canonical_bytes > CANONICAL_BYTES_MAX {
        let message = format!(
            "with its aliases expanded and defaults written out, the template has {canonical_bytes} bytes, \
             the limit is {CANONICAL_BYTES_MAX}"
        );
        reader.problem("too_large", tree.root().position, path, message, None);
    }
    Some(template)
}

/// A step as read, before it is known what its dependencies refer to.
struct Draft<'t> {
    name: Option<(&'t str, Option<Position>)>,
    dependencies: Vec<Dependency<'t>>,
    /// None if something about it is wrong.
    step: Option<Step>,
    handler_at: HandlerAt,
}

#[derive(Clone, Copy)]
struct Dependency<'t> {
    name: &'t str,
    at: Option<Position>,
    /// The field that names it.
    spelling: &'t str,
    /// Its place in that field's list; none where the field is a single name.
    index: Option<usize>,
}

impl Dependency<'_> {
    fn with_path<T>(&self, step: usize, act: impl FnOnce(Path<'_>) -> T) -> T {
        let steps = Path::Field(&Path::Root, "steps");
        let step = Path::Item(&steps, step);
        let field = Path::Field(&step, self.spelling);
        match self.index {
            Some(index) => act(Path::Item(&field, index)),
            None => act(field),
        }
    }
}

type Steps = (Vec<Step>, Graph, Vec<HandlerAt>);

impl<'t> Reader<'t, '_> {
    fn version(&mut self, given: Given<'t>) -> Option<Version> {
        let path = Path::Field(&Path::Root, given.spelling);
        let help = Some("write three numbers, such as \"1.0.0\"".to_owned());
        let at = given.node.position;
        let text = match &given.node.content {
            Content::Broken => return None,
            Content::Text(text) => text,
            other => {
                let message = format!("`version` must be text such as 1.0.0, found {}", other.kind());
                self.problem("bad_version", at, path, message, help);
                return None;
            }
        };
        let reason = if text.len() > VERSION_BYTES_MAX {
            format!("it has {} bytes, the limit is {VERSION_BYTES_MAX}", text.len())
        } else {
            match Version::parse(text) {
                Ok(version) => return Some(version),
                Err(error) => error.to_string(),
            }
        };
        let message = format!("`version` is not a semantic version: {} ({reason})", shown(text));
        self.problem("bad_version", at, path, message, help);
        None
    }

    fn description(&mut self, fields: &Fields<'t>, path: Path<'_>) -> Option<String> {
        let given = fields.get("description")?;
        self.text(given, Path::Field(&path, given.spelling)).map(str::to_owned)
    }

    fn free_mapping(&mut self, fields: &Fields<'t>, name: &str, path: Path<'_>) -> Map<String, Value> {
        let Some(given) = fields.get(name) else { return Map::new() };
        let entries = self.mapping(given, Path::Field(&path, given.spelling)).unwrap_or_default();
        self.tree.to_map(entries)
    }

    fn steps(&mut self, given: Given<'t>) -> Option<Steps> {
        let path = Path::Field(&Path::Root, given.spelling);
        let items = self.list(given, path)?;
        if items.is_empty() {
            let message = "a template needs at least one step".to_owned();
            self.problem("no_steps", given.node.position, path, message, None);
            return None;
        }
        if items.len() > STEPS_MAX {
            let message = format!("the template has {} steps, the limit is {STEPS_MAX}", items.len());
            self.problem("too_many_steps", given.node.position, path, message, None);
            return None;
        }
        let mut drafts = Vec::with_capacity(items.len());
        for (index, item) in items.iter().enumerate() {
            let node = self.tree.node(*item);
            if let Some(draft) = self.step(node, Path::Item(&path, index)) {
                drafts.push(draft);
            } else {
                // Keeps the numbering; a problem was told.
                drafts.push(Draft {
                    name: None,
                    dependencies: Vec::new(),
                    step: None,
                    handler_at: HandlerAt::default(),
                });
            }
        }
        let edges = self.edges(&drafts, path);
        let graph = self.graph(&drafts, &edges)?;
        let handlers_at = drafts.iter().map(|draft| draft.handler_at.clone()).collect();
        let names: Vec<&str> = drafts.iter().map(|draft| draft.name.map_or("", |(name, _)| name)).collect();
        let mut steps = Vec::with_capacity(drafts.len());
        for (index, draft) in drafts.into_iter().enumerate() {
            let mut step = draft.step?;
            step.dependencies =
                graph.dependencies(index).iter().map(|dependency| names[*dependency].to_owned()).collect();
            steps.push(step);
        }
        Some((steps, graph, handlers_at))
    }

    fn step(&mut self, node: &'t Node, path: Path<'_>) -> Option<Draft<'t>> {
        let fields = self.fields(node, path, &STEP)?;
        let at = |given: Given<'t>| Path::Field(&path, given.spelling);
        let before = self.problems.count();
        let name = self.required(&fields, "name", path, &STEP);
        let checked_name = name.and_then(|given| self.name(given, at(given)));
        let description = self.description(&fields, path);
        let handler =
            self.required(&fields, "handler", path, &STEP).and_then(|given| self.handler(given, at(given)));
        let step_type = match fields.get("type") {
            Some(given) => self.step_type(given, at(given)),
            None => Some(StepType::default()),
        };
        let dependencies =
            fields.get("dependencies").map(|given| self.dependencies(given, at(given))).unwrap_or_default();
        let retry = match fields.get("retry") {
            Some(given) => self.retry(given.node, at(given)),
            None => Some(RetrySpec::default()),
        };
        let timeout = fields
            .get("timeout_seconds")
            .and_then(|given| self.seconds(given, at(given), false, Duration::from_millis(TIMEOUT_MS_MAX)));
        let queue = fields.get("queue").and_then(|given| self.name(given, at(given))).map(str::to_owned);
        let priority = match fields.get("priority") {
            Some(given) => self
                .integer(given, at(given), PRIORITY_MIN.into(), PRIORITY_MAX.into())
                .and_then(|value| i32::try_from(value).ok()),
            None => Some(0),
        };
        let handler_at = handler.as_ref().map(|(_, at)| at.clone()).unwrap_or_default();
        let is_right = self.problems.count() == before;
        let step = match (checked_name, handler, step_type, retry, priority) {
            (Some(name), Some((handler, _)), Some(step_type), Some(retry), Some(priority)) if is_right => {
                Some(Step {
                    name: name.to_owned(),
                    description,
                    step_type,
                    handler,
                    dependencies: Vec::new(),
                    retry,
                    timeout,
                    queue,
                    priority,
                })
            }
            _ => None,
        };
        // A name that is not allowed still names the step: those that depend on it are not wrong as well.
        let name = name.and_then(|given| match &given.node.content {
            Content::Text(text) => Some((text.as_str(), given.node.position)),
            _ => None,
        });
        Some(Draft { name, dependencies, step, handler_at })
    }

    fn handler(&mut self, given: Given<'t>, path: Path<'_>) -> Option<(Handler, HandlerAt)> {
        let fields = self.fields(given.node, path, &HANDLER)?;
        let initialization = self.free_mapping(&fields, "initialization", path);
        let settings = match fields.get("initialization").map(|given| &given.node.content) {
            Some(Content::Object(entries)) => {
                entries.iter().filter_map(|entry| Some((entry.key.clone(), entry.key_position?))).collect()
            }
            _ => HashMap::new(),
        };
        let given = self.required(&fields, "callable", path, &HANDLER)?;
        let path = Path::Field(&path, given.spelling);
        let callable = self.text(given, path)?;
        let reason = if callable.is_empty() {
            "it is empty".to_owned()
        } else if callable.len() > CALLABLE_BYTES_MAX {
            format!("it has {} bytes, the limit is {CALLABLE_BYTES_MAX}", callable.len())
        } else if let Some(stranger) = callable.chars().find(|one| one.is_whitespace() || one.is_control()) {
            format!("it holds {stranger:?}")
        } else {
            let at = HandlerAt { callable: given.node.position, settings };
            return Some((Handler { callable: callable.to_owned(), initialization }, at));
        };
        let message = format!("`callable` does not name a handler: {} ({reason})", shown(callable));
        self.problem("bad_name", given.node.position, path, message, None);
        None
    }

    fn step_type(&mut self, given: Given<'t>, path: Path<'_>) -> Option<StepType> {
        let word = self.text(given, path)?;
        if word == "standard" {
            return Some(StepType::Standard);
        }
        let at = given.node.position;
        if STEP_TYPES_UNSUPPORTED.contains(&word) {
            let message = format!("the step type `{word}` is not supported by this version");
            self.problem("unsupported_value", at, path, message, Some("use `standard`".to_owned()));
        } else {
            let known = std::iter::once("standard").chain(STEP_TYPES_UNSUPPORTED);
            let suggestion = self.suggester.did_you_mean(word, known);
            let suggestion = suggestion.or_else(|| Some("use `standard`".to_owned()));
            let message = format!("there is no step type {}", shown(word));
            self.problem("unknown_value", at, path, message, suggestion);
        }
        None
    }

    fn dependencies(&mut self, given: Given<'t>, path: Path<'_>) -> Vec<Dependency<'t>> {
        let spelling = given.spelling;
        if spelling == "depends_on_step" {
            let name = self.text(given, path);
            let at = given.node.position;
            return name.map(|name| Dependency { name, at, spelling, index: None }).into_iter().collect();
        }
        let mut dependencies = Vec::new();
        for (index, item) in self.list(given, path).unwrap_or_default().iter().enumerate() {
            let node = self.tree.node(*item);
            let item = Given { spelling, key_position: given.key_position, node };
            match &node.content {
                Content::Text(name) => {
                    dependencies.push(Dependency { name, at: node.position, spelling, index: Some(index) });
                }
                _ => self.wrong_type(item, Path::Item(&path, index), "a list of steps' names"),
            }
        }
        dependencies
    }

    fn retry(&mut self, node: &'t Node, path: Path<'_>) -> Option<RetrySpec> {
        let mut retry = RetrySpec::default();
        let fields = self.fields(node, path, &RETRY)?;
        let before = self.problems.count();
        let at = |given: Given<'t>| Path::Field(&path, given.spelling);
        if let Some(given) = fields.get("retryable")
            && let Some(retryable) = self.boolean(given, at(given))
        {
            retry.retryable = retryable;
        }
        if let Some(given) = fields.get("max_attempts")
            && let Some(value) = self.integer(given, at(given), 0, ATTEMPTS_MAX.into())
        {
            // None at all would be a step that never runs; 0 has always meant "once, without retries".
            retry.max_attempts = u32::try_from(value).unwrap_or(ATTEMPTS_MAX).max(1);
        }
        if let Some(given) = fields.get("backoff")
            && let Some(backoff) = self.backoff(given, at(given))
        {
            retry.backoff = backoff;
        }
        let base = fields.get("backoff_base_ms");
        if let Some(value) = base.and_then(|given| self.delay(given, at(given), "initial_delay")) {
            retry.backoff_base_ms = value;
        }
        let cap = fields.get("max_backoff_ms");
        if let Some(value) = cap.and_then(|given| self.delay(given, at(given), "max_delay")) {
            retry.max_backoff_ms = value;
        }
        if let Some(given) = fields.get("jitter") {
            match &given.node.content {
                Content::Bool(true) => {}
                Content::Bool(false) => retry.jitter = 0.0,
                _ => {
                    if let Some(value) = self.fraction(given, at(given)) {
                        retry.jitter = value;
                    }
                }
            }
        }
        if self.problems.count() > before {
            return None;
        }
        if let Some(given) = base.or(cap)
            && retry.backoff_base_ms > retry.max_backoff_ms
        {
            let message = format!(
                "the first delay, {} ms, is longer than the longest, {} ms",
                retry.backoff_base_ms, retry.max_backoff_ms
            );
            let suggestion = Some("raise `max_backoff_ms`, or lower `backoff_base_ms`".to_owned());
            self.problem("out_of_range", given.node.position, at(given), message, suggestion);
            return None;
        }
        Some(retry)
    }

    fn backoff(&mut self, given: Given<'t>, path: Path<'_>) -> Option<BackoffSpec> {
        let word = self.text(given, path)?;
        let found = BackoffSpec::ALL.into_iter().find(|backoff| backoff.word() == word);
        if found.is_none() {
            let words = BackoffSpec::ALL.map(BackoffSpec::word);
            let suggestion = self.suggester.did_you_mean(word, words);
            let suggestion = suggestion.or_else(|| Some(format!("use one of {}", words.join(", "))));
            let message = format!("there is no backoff {}", shown(word));
            self.problem("unknown_value", given.node.position, path, message, suggestion);
        }
        found
    }

    /// A delay in milliseconds, or in seconds where it is spelled `in_seconds`.
    fn delay(&mut self, given: Given<'t>, path: Path<'_>, in_seconds: &str) -> Option<u64> {
        if given.spelling == in_seconds {
            let delay = self.seconds(given, path, true, Duration::from_millis(BACKOFF_MS_MAX))?;
            return u64::try_from(delay.as_millis()).ok();
        }
        let max = i64::try_from(BACKOFF_MS_MAX).unwrap_or(i64::MAX);
        self.integer(given, path, 0, max).and_then(|value| u64::try_from(value).ok())
    }

    /// For each step the steps that it depends on; names that are given twice or refer to nothing are told.
    fn edges(&mut self, drafts: &[Draft<'t>], path: Path<'_>) -> Vec<Vec<usize>> {
        let mut by_name: HashMap<&str, usize> = HashMap::new();
        for (index, draft) in drafts.iter().enumerate() {
            let Some((name, at)) = draft.name else { continue };
            if let Some(first) = by_name.get(name) {
                let first_at = drafts.get(*first).and_then(|draft| draft.name).and_then(|(_, at)| at);
                let place = first_at.map_or_else(String::new, |at| format!(", first at line {}", at.line));
                let message = format!("two steps are named {}{place}", shown(name));
                let step = Path::Item(&path, index);
                let suggestion = Some("give each step a name of its own".to_owned());
                self.problem("duplicate_step", at, Path::Field(&step, "name"), message, suggestion);
            } else {
                by_name.insert(name, index);
            }
        }
        let mut edges = Vec::with_capacity(drafts.len());
        for (index, draft) in drafts.iter().enumerate() {
            let mut needed = HashSet::new();
            for dependency in &draft.dependencies {
                let Some(&target) = by_name.get(dependency.name) else {
                    let names = drafts.iter().filter_map(|draft| draft.name.map(|(name, _)| name));
                    let suggestion = self.suggester.did_you_mean(dependency.name, names);
                    let message = format!("there is no step {} to depend on", shown(dependency.name));
                    dependency.with_path(index, |path| {
                        self.problem("unknown_dependency", dependency.at, path, message, suggestion);
                    });
                    continue;
                };
                if !needed.insert(target) {
                    let message = format!("the dependency {} is given twice", shown(dependency.name));
                    let suggestion = Some("keep one of the two".to_owned());
                    dependency.with_path(index, |path| {
                        self.problem("duplicate_dependency", dependency.at, path, message, suggestion);
                    });
                }
            }
            edges.push(needed.into_iter().collect());
        }
        edges
    }

    /// The graph, or the circles that keep it from being one.
    fn graph(&mut self, drafts: &[Draft<'t>], edges: &[Vec<usize>]) -> Option<Graph> {
        let cycles = match Graph::new(edges.to_vec()) {
            Ok(graph) => return Some(graph),
            Err(graph::Error::Cycles(cycles)) => cycles,
            Err(graph::Error::UnknownStep { .. }) => return None,
        };
        let name = |index: usize| drafts.get(index).and_then(|draft| draft.name).map_or("", |(name, _)| name);
        for cycle in cycles {
            let Some(&first) = cycle.first() else { continue };
            let next = name(cycle.get(1).copied().unwrap_or(first));
            let through = drafts
                .get(first)
                .and_then(|draft| draft.dependencies.iter().find(|dependency| dependency.name == next));
            let Some(through) = through else { continue };
            let message = if cycle.len() == 1 {
                format!("the step {} depends on itself", shown(name(first)))
            } else {
                let names: Vec<String> =
                    cycle.iter().chain([&first]).map(|step| shown(name(*step))).collect();
                format!("steps depend on each other in a circle: {}", names.join(" -> "))
            };
            let suggestion = Some("remove one of these dependencies".to_owned());
            through.with_path(first, |path| self.problem("cycle", through.at, path, message, suggestion));
        }
        None
    }
}
