//! The list of steps: names, dependencies, graph.

use std::collections::{HashMap, HashSet};

use crate::template::definition::HandlerAt;
use crate::template::fields::{Given, Reader};
use crate::template::graph::{self, Graph};
use crate::template::lifecycle::Lifecycle;
use crate::template::limits::STEPS_MAX;
use crate::template::problems::{Path, Position, shown};
use crate::template::step::{Step, StepType};

/// A step as read, before it is known what its dependencies refer to.
#[derive(Debug, Default)]
pub(super) struct Draft<'t> {
    pub(super) name: Option<(&'t str, Option<Position>)>,
    pub(super) dependencies: Vec<Dependency<'t>>,
    /// None if it is not known.
    pub(super) step_type: Option<StepType>,
    /// None if something about it is wrong.
    pub(super) step: Option<Step>,
    pub(super) handler_at: HandlerAt,
    /// Where the step begins.
    pub(super) position: Option<Position>,
}

#[derive(Debug, Clone, Copy)]
pub(super) struct Dependency<'t> {
    pub(super) name: &'t str,
    pub(super) at: Option<Position>,
    /// The field that names it.
    pub(super) spelling: &'t str,
    /// Its place in that field's list; none where the field is a single name.
    pub(super) index: Option<usize>,
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

/// All steps, right and complete.
#[derive(Debug)]
pub(super) struct Steps {
    pub(super) all: Vec<Step>,
    pub(super) graph: Graph,
    pub(super) handlers_at: Vec<HandlerAt>,
}

impl<'t> Reader<'t, '_> {
    pub(super) fn steps(&mut self, given: Given<'t>, whole: Option<&Lifecycle>) -> Option<Steps> {
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
            // An empty one keeps the numbering; a problem was told.
            drafts.push(self.step(node, Path::Item(&path, index), whole).unwrap_or_default());
        }
        self.step_names = drafts.iter().filter_map(|draft| draft.name.map(|(name, _)| name)).collect();
        let edges = self.edges(&drafts, path);
        let graph = self.graph(&drafts, &edges)?;
        self.links(&drafts, &graph);
        let handlers_at = drafts.iter().map(|draft| draft.handler_at.clone()).collect();
        let names: Vec<&str> = drafts.iter().map(|draft| draft.name.map_or("", |(name, _)| name)).collect();
        let mut steps = Vec::with_capacity(drafts.len());
        for (index, draft) in drafts.into_iter().enumerate() {
            let mut step = draft.step?;
            step.dependencies =
                graph.dependencies(index).iter().map(|dependency| names[*dependency].to_owned()).collect();
            steps.push(step);
        }
        Some(Steps { all: steps, graph, handlers_at })
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
