//! What steps of one kind need from steps of another: decisions and what they can name, convergences and what they
//! gather, batches and their workers.
//!
//! A step whose kind is not known, because something about it is wrong, is given the benefit of the doubt.

use std::collections::HashMap;

use super::steps::Draft;
use crate::template::fields::Reader;
use crate::template::graph::{Graph, StepIndex};
use crate::template::problems::{Path, Position, shown};
use crate::template::step::StepType;

impl<'t> Reader<'t, '_> {
    /// Tells every link that leads nowhere.
    pub(super) fn links(&mut self, drafts: &[Draft<'t>], graph: &Graph) {
        let mut by_name: HashMap<&str, StepIndex> = HashMap::new();
        for (index, draft) in drafts.iter().enumerate() {
            if let Some((name, _)) = draft.name {
                by_name.entry(name).or_insert(index);
            }
        }
        let steps = Links { drafts, graph, by_name };
        let created_later = steps.created_later();
        let mut has_batchable = vec![false; drafts.len()];
        for index in 0..drafts.len() {
            match steps.kind(index) {
                Some(StepType::Decision) => self.decision(&steps, index),
                Some(StepType::DeferredConvergence) => self.convergence(&steps, index, &created_later),
                Some(StepType::Batchable) => self.batchable(&steps, index, &mut has_batchable),
                Some(StepType::Standard) => self.batch_config_of(&steps, index),
                Some(StepType::BatchWorker) | None => {}
            }
        }
        for (index, has_batchable) in has_batchable.iter().enumerate() {
            if steps.kind(index) == Some(StepType::BatchWorker) {
                self.batch_worker(&steps, index, *has_batchable);
            }
        }
    }

    fn decision(&mut self, steps: &Links<'_, '_>, index: StepIndex) {
        let dependents = steps.graph.dependents(index);
        let can_be_named = |step: &StepIndex| {
            !matches!(steps.kind(*step), Some(StepType::DeferredConvergence | StepType::BatchWorker))
        };
        if !dependents.iter().any(can_be_named) {
            let message = format!(
                "the decision {} can name no step: none depends on it{}",
                steps.shown(index),
                if dependents.is_empty() { "" } else { " but convergences and batch workers" }
            );
            let help = "let the steps that it chooses from depend on it";
            self.link("decision_without_targets", steps, index, "/type", message, help);
        }
        for worker in dependents.iter().filter(|step| steps.kind(**step) == Some(StepType::BatchWorker)) {
            let message = format!(
                "the decision {} can never name the batch worker {}, which only a batchable step creates",
                steps.shown(index),
                steps.shown(*worker)
            );
            let help = "let the batchable step depend on the decision, not its worker";
            self.link("unreachable_target", steps, *worker, "/dependencies", message, help);
        }
    }

    fn convergence(&mut self, steps: &Links<'_, '_>, index: StepIndex, created_later: &[bool]) {
        let dependencies = steps.graph.dependencies(index);
        if dependencies.is_empty() && !steps.has_dependencies(index) {
            let message =
                format!("the convergence {} gathers nothing: it has no dependencies", steps.shown(index));
            let help = "name the steps that it gathers in `dependencies`";
            self.link("convergence_over_nothing", steps, index, "/type", message, help);
        } else if !dependencies.is_empty()
            && !dependencies.iter().any(|step| created_later.get(*step).copied().unwrap_or(true))
        {
            let message = format!(
                "the convergence {} gathers nothing: all that it depends on is there from the start",
                steps.shown(index)
            );
            let help = "use the type `standard`, or depend on what a decision or a batch creates";
            self.link("convergence_over_nothing", steps, index, "/type", message, help);
        }
    }

    fn batchable(&mut self, steps: &Links<'_, '_>, index: StepIndex, has_batchable: &mut [bool]) {
        let mut mark = |step: StepIndex| {
            if let Some(has_batchable) = has_batchable.get_mut(step) {
                *has_batchable = true;
            }
        };
        let dependents = steps.graph.dependents(index);
        let workers: Vec<StepIndex> = dependents
            .iter()
            .copied()
            .filter(|step| steps.kind(*step) == Some(StepType::BatchWorker))
            .collect();
        let named = steps.worker_template(index);
        let Some(named) = named else {
            for worker in &workers {
                mark(*worker);
            }
            let may_be_worker = dependents.iter().any(|step| steps.kind(*step).is_none());
            let message = match workers.len() {
                1 => return,
                0 if may_be_worker || steps.is_broken(index) => return,
                0 => format!("the batchable step {} has no batch worker", steps.shown(index)),
                _ => format!("the batchable step {} has several batch workers", steps.shown(index)),
            };
            let help = "name its batch worker in `batch_config.worker_template`";
            self.link("batchable_without_worker", steps, index, "/type", message, help);
            return;
        };
        let field = "/batch_config/worker_template";
        let Some(worker) = steps.by_name.get(named).copied() else {
            let names = steps.names_of(StepType::BatchWorker);
            let help = self
                .suggester
                .did_you_mean(named, names.iter().copied())
                .unwrap_or_else(|| "name a step of type `batch_worker`".to_owned());
            let message =
                format!("there is no step {} to be the batch worker of {}", shown(named), steps.shown(index));
            self.link("batchable_without_worker", steps, index, field, message, &help);
            return;
        };
        mark(worker);
        match steps.kind(worker) {
            None | Some(StepType::BatchWorker) => {}
            Some(other) => {
                let message = format!(
                    "the step {}, named as the batch worker of {}, is of type `{}`",
                    shown(named),
                    steps.shown(index),
                    other.word()
                );
                self.link(
                    "batchable_without_worker",
                    steps,
                    index,
                    field,
                    message,
                    "give it the type `batch_worker`",
                );
                return;
            }
        }
        if !steps.graph.dependencies(worker).contains(&index) && !steps.is_broken(worker) {
            let message = format!(
                "the batch worker {} does not depend on {}, which creates it",
                shown(named),
                steps.shown(index)
            );
            let help = format!("add {} to its `dependencies`", steps.shown(index));
            self.link("batch_worker_without_batchable", steps, worker, "/type", message, &help);
        }
    }

    fn batch_worker(&mut self, steps: &Links<'_, '_>, index: StepIndex, has_batchable: bool) {
        let may_have_one = steps.graph.dependencies(index).iter().any(|step| steps.kind(*step).is_none());
        if !has_batchable && !may_have_one && !steps.is_broken(index) {
            let message = format!("no batchable step creates the batch worker {}", steps.shown(index));
            let help = "let it depend on a step of type `batchable`, and name it in that one's `batch_config.worker_template`";
            self.link("batch_worker_without_batchable", steps, index, "/type", message, help);
        }
        if let Some(named) = steps.worker_template(index)
            && Some(named) != steps.name(index)
        {
            let message =
                format!("the batch worker {} names another worker, {}", steps.shown(index), shown(named));
            let help = "name the worker in the `batch_config` of the batchable step";
            let field = "/batch_config/worker_template";
            self.link("batchable_without_worker", steps, index, field, message, help);
        }
    }

    /// A step that is no batch and has a batch configuration.
    fn batch_config_of(&mut self, steps: &Links<'_, '_>, index: StepIndex) {
        if steps
            .drafts
            .get(index)
            .and_then(|draft| draft.step.as_ref())
            .is_some_and(|step| step.batch_config.is_some())
        {
            let message = format!("{} has a `batch_config`, but is no batch", steps.shown(index));
            let help = "give it the type `batchable` or `batch_worker`, or remove `batch_config`";
            self.link("conflicting_fields", steps, index, "/batch_config", message, help);
        }
    }

    /// Tells a problem at a step's field, or at the step where it does not give that.
    fn link(
        &mut self,
        code: &'static str,
        steps: &Links<'_, '_>,
        index: StepIndex,
        field: &str,
        message: String,
        help: &str,
    ) {
        let parent = Path::Field(&Path::Root, "steps");
        let path = Path::Item(&parent, index);
        let at =
            self.places.get(&format!("{}{field}", path.pointer())).copied().or_else(|| steps.position(index));
        self.problem_with_help(code, at, path, field, message, help);
    }
}

/// The steps as links are looked up in them.
struct Links<'a, 't> {
    drafts: &'a [Draft<'t>],
    graph: &'a Graph,
    by_name: HashMap<&'t str, StepIndex>,
}

impl<'t> Links<'_, 't> {
    fn kind(&self, step: StepIndex) -> Option<StepType> {
        self.drafts.get(step).and_then(|draft| draft.step_type)
    }

    fn name(&self, step: StepIndex) -> Option<&'t str> {
        self.drafts.get(step).and_then(|draft| draft.name).map(|(name, _)| name)
    }

    fn shown(&self, step: StepIndex) -> String {
        shown(self.name(step).unwrap_or_default())
    }

    fn position(&self, step: StepIndex) -> Option<Position> {
        self.drafts.get(step).and_then(|draft| draft.position)
    }

    /// Whether something about the step was told already.
    fn is_broken(&self, step: StepIndex) -> bool {
        self.drafts.get(step).is_none_or(|draft| draft.step.is_none())
    }

    fn has_dependencies(&self, step: StepIndex) -> bool {
        self.drafts.get(step).is_some_and(|draft| !draft.dependencies.is_empty())
    }

    fn worker_template(&self, step: StepIndex) -> Option<&str> {
        let step = self.drafts.get(step)?.step.as_ref()?;
        step.batch_config.as_ref()?.worker_template.as_deref()
    }

    fn names_of(&self, kind: StepType) -> Vec<&'t str> {
        let of_kind = |step: &StepIndex| self.kind(*step) == Some(kind);
        (0..self.drafts.len()).filter(of_kind).filter_map(|step| self.name(step)).collect()
    }

    /// Which steps are not there from the start: what a decision chooses, a batch creates, a condition may skip, and
    /// all that comes after. What is not known may be.
    fn created_later(&self) -> Vec<bool> {
        let mut later = vec![false; self.drafts.len()];
        for &index in self.graph.topological_order() {
            let of_parent = self.graph.dependencies(index).iter().any(|parent| {
                matches!(self.kind(*parent), Some(StepType::Decision) | None)
                    || later.get(*parent).copied().unwrap_or(true)
            });
            let conditional = self
                .drafts
                .get(index)
                .and_then(|draft| draft.step.as_ref())
                .is_none_or(|step| step.when.is_some() || step.for_each.is_some());
            if let Some(flag) = later.get_mut(index) {
                *flag = of_parent
                    || conditional
                    || matches!(self.kind(index), Some(StepType::BatchWorker) | None);
            }
        }
        later
    }
}
