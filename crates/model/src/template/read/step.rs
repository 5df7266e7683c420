//! One step.

use std::collections::HashMap;
use std::time::Duration;

use super::flow::Visible;
use super::steps::{Dependency, Draft};
use crate::template::definition::HandlerAt;
use crate::template::fields::{Fields, Given, Reader};
use crate::template::lifecycle::{self, Lifecycle, Times};
use crate::template::limits::{CALLABLE_BYTES_MAX, PRIORITY_MAX, PRIORITY_MIN, TIMEOUT_MS_MAX};
use crate::template::problems::{Path, shown};
use crate::template::shape::{HANDLER, STEP};
use crate::template::step::{Handler, RetrySpec, Step, StepType};
use crate::template::tree::{Content, Node};

impl<'t> Reader<'t, '_> {
    /// A step; none only if it is no object at all.
    pub(super) fn step(
        &mut self,
        node: &'t Node,
        path: Path<'_>,
        whole: Option<&Lifecycle>,
    ) -> Option<Draft<'t>> {
        let fields = self.fields(node, path, &STEP)?;
        let at = |given: Given<'t>| Path::Field(&path, given.spelling);
        let before = self.problems.count();
        let name = self.required(&fields, "name", path, &STEP);
        let checked_name = name.and_then(|given| self.name(given, at(given)));
        let description = self.description(&fields, path);
        let handler = match fields.get("handler") {
            Some(given) => self.handler(given, at(given)),
            None => None,
        };
        let step_type = match fields.get("type") {
            Some(given) => self.word::<StepType>(given, at(given), "step type"),
            None => Some(StepType::default()),
        };
        let system_dependency =
            fields.get("system_dependency").and_then(|given| self.text(given, at(given))).map(str::to_owned);
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
        let publishes_events = fields
            .get("publishes_events")
            .map(|given| self.published_events(given, at(given)))
            .unwrap_or_default();
        let batch_config = fields.get("batch_config").and_then(|given| self.batch(given, at(given)));
        let result_schema = fields.get("result_schema").and_then(|given| self.schema(given, at(given)));
        let own = fields.get("lifecycle").and_then(|given| self.lifecycle(given, at(given)));

        let names: Vec<&str> = dependencies.iter().map(|dependency| dependency.name).collect();
        let visible = Visible { results: &names, is_for_each: fields.get("for_each").is_some() };
        // Asked once for the step, before there are children.
        let whole_step = Visible { is_for_each: false, ..visible };
        let when = fields.get("when").and_then(|given| self.expression(given, at(given), whole_step));
        let for_each = fields.get("for_each").and_then(|given| self.for_each(given, at(given), visible));
        let concurrency_key =
            fields.get("concurrency_key").and_then(|given| self.concurrency_key(given, at(given), visible));
        let rate_limit =
            fields.get("rate_limit").and_then(|given| self.rate_limit(given, at(given), visible));
        let wait_for = fields.get("wait_for").and_then(|given| self.wait_for(given, at(given)));
        let workflow = fields.get("workflow").and_then(|given| self.sub_workflow(given, at(given), visible));
        let cache = fields.get("cache").and_then(|given| self.cache_reuse(given, at(given), visible));

        self.combinations(&fields, path, step_type);
        if let (Some(retry), Some(name)) = (&retry, checked_name) {
            let wait = wait_for.as_ref().and_then(|wait| wait.timeout);
            let times = Times { timeout, retry, wait, own: own.as_ref(), whole };
            self.times(times, name, path, fields.position);
        }

        let handler_at = handler.as_ref().map(|(_, at)| at.clone()).unwrap_or_default();
        let is_right = self.problems.count() == before;
        let step = match (checked_name, step_type, retry, priority) {
            (Some(name), Some(step_type), Some(retry), Some(priority)) if is_right => Some(Step {
                name: name.to_owned(),
                description,
                step_type,
                handler: handler.map(|(handler, _)| handler),
                system_dependency,
                dependencies: Vec::new(),
                retry,
                timeout,
                queue,
                priority,
                publishes_events,
                batch_config,
                result_schema,
                lifecycle: own,
                when,
                for_each,
                concurrency_key,
                rate_limit,
                wait_for,
                workflow,
                cache,
            }),
            _ => None,
        };
        // A name that is not allowed still names the step: those that depend on it are not wrong as well.
        let name = name.and_then(|given| match &given.node.content {
            Content::Text(text) => Some((text.as_str(), given.node.position)),
            _ => None,
        });
        Some(Draft { name, dependencies, step_type, step, handler_at, position: node.position })
    }

    /// Fields that do not go together, and a step with nobody to do it.
    fn combinations(&mut self, fields: &Fields<'t>, path: Path<'_>, step_type: Option<StepType>) {
        let (handler, workflow) = (fields.get("handler"), fields.get("workflow"));
        match (handler, workflow) {
            (Some(_), Some(second)) => {
                let message = "a step is done by a handler or by a workflow, not by both".to_owned();
                let help = Some("keep one, and give the other to a step of its own".to_owned());
                self.problem(
                    "conflicting_fields",
                    second.key_position,
                    Path::Field(&path, "workflow"),
                    message,
                    help,
                );
            }
            (None, None) if fields.get("wait_for").is_none() => {
                self.required(fields, "handler", path, &STEP);
            }
            _ => {}
        }
        let Some(step_type) = step_type.filter(|step_type| *step_type != StepType::Standard) else { return };
        for name in ["workflow", "for_each", "wait_for", "cache"] {
            let Some(given) = fields.get(name) else { continue };
            let may = match name {
                // Whoever decides or gathers may wait for a word first.
                "wait_for" => {
                    !matches!(step_type, StepType::Batchable | StepType::BatchWorker) && handler.is_some()
                }
                "cache" => step_type == StepType::BatchWorker,
                _ => false,
            };
            if !may {
                let message = format!("a step of type `{}` cannot have `{name}`", step_type.word());
                let help = Some("give it to a step of its own, of type `standard`".to_owned());
                self.problem(
                    "conflicting_fields",
                    given.key_position,
                    Path::Field(&path, name),
                    message,
                    help,
                );
            }
        }
    }

    /// Times that no run could keep. They are told at the step's fields, or at `position` where it has none.
    pub(super) fn times(
        &mut self,
        times: Times<'_>,
        name: &str,
        path: Path<'_>,
        position: Option<crate::template::problems::Position>,
    ) {
        for found in lifecycle::impossible(times) {
            let base = path.pointer();
            let pointer = found.field.iter().fold(String::new(), |pointer, field| pointer + "/" + field);
            let at = self.places.get(&format!("{base}{pointer}")).copied().or(position);
            let message = format!("step {}: {}", shown(name), found.message);
            self.problem_with_help("impossible_time", at, path, &pointer, message, found.suggestion);
        }
    }

    fn handler(&mut self, given: Given<'t>, path: Path<'_>) -> Option<(Handler, HandlerAt)> {
        let fields = self.fields(given.node, path, &HANDLER)?;
        let at = |given: Given<'t>| Path::Field(&path, given.spelling);
        let initialization = fields.get("initialization");
        let settings = match initialization.map(|given| &given.node.content) {
            Some(Content::Object(entries)) => {
                entries.iter().filter_map(|entry| Some((entry.key.clone(), entry.key_position?))).collect()
            }
            _ => HashMap::new(),
        };
        let initialization = initialization
            .and_then(|given| self.mapping(given, at(given)))
            .map(|entries| self.tree.to_map(entries))
            .unwrap_or_default();
        let method =
            fields.get("method").and_then(|given| self.callable(given, at(given))).map(str::to_owned);
        let resolver =
            fields.get("resolver").and_then(|given| self.callable(given, at(given))).map(str::to_owned);
        let given = self.required(&fields, "callable", path, &HANDLER)?;
        let callable = self.callable(given, at(given))?.to_owned();
        let places = HandlerAt { callable: given.node.position, settings };
        Some((Handler { callable, method, resolver, initialization }, places))
    }

    /// The name of code that somebody registered.
    pub(super) fn callable(&mut self, given: Given<'t>, path: Path<'_>) -> Option<&'t str> {
        let callable = self.text(given, path)?;
        let reason = if callable.is_empty() {
            "it is empty".to_owned()
        } else if callable.len() > CALLABLE_BYTES_MAX {
            format!("it has {} bytes, the limit is {CALLABLE_BYTES_MAX}", callable.len())
        } else if let Some(stranger) = callable.chars().find(|one| one.is_whitespace() || one.is_control()) {
            format!("it holds {stranger:?}")
        } else {
            return Some(callable);
        };
        let kind = if given.spelling == "callable" { "handler" } else { given.spelling };
        let message = format!("`{}` does not name a {kind}: {} ({reason})", given.spelling, shown(callable));
        self.problem("bad_name", given.node.position, path, message, None);
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
}
