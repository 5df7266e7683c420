//! Environments: their form, and whether the template is still right in each of them.

use std::collections::{BTreeMap, HashMap};
use std::time::Duration;

use serde_json::Value;

use crate::template::definition::Meaning;
use crate::template::environment::{Environment, OverlayTarget, Overlays, RetryOverlay, StepOverlay};
use crate::template::fields::{Fields, Given, Reader};
use crate::template::lifecycle::{Lifecycle, Times};
use crate::template::limits::{ENVIRONMENTS_MAX, STEPS_MAX, TIMEOUT_MS_MAX};
use crate::template::problems::{Path, shown};
use crate::template::shape::{ENVIRONMENT, OVERLAY, OVERLAY_HANDLER};
use crate::template::step::Step;
use crate::template::tree::{Content, Entry};

impl<'t> Reader<'t, '_> {
    /// All environments. `steps` is none when something is wrong with them; only the form is judged then.
    pub(super) fn environments(
        &mut self,
        given: Given<'t>,
        steps: Option<&[Step]>,
        whole: Option<&Lifecycle>,
    ) -> BTreeMap<String, Environment> {
        let path = Path::Field(&Path::Root, given.spelling);
        let mut environments = BTreeMap::new();
        let Some(entries) = self.mapping(given, path) else { return environments };
        if entries.len() > ENVIRONMENTS_MAX {
            let message =
                format!("there are {} environments, the limit is {ENVIRONMENTS_MAX}", entries.len());
            self.problem("too_large", given.key_position, path, message, None);
            return environments;
        }
        for entry in entries {
            let path = Path::Field(&path, entry.key.as_str());
            let node = self.tree.node(entry.value);
            if !self.is_name(&entry.key, "environment", entry.key_position, path) {
                continue;
            }
            let environment = match &node.content {
                Content::Null => Environment::default(),
                _ => self.environment(entry, path, steps, whole).unwrap_or_default(),
            };
            environments.insert(entry.key.clone(), environment);
        }
        environments
    }

    fn environment(
        &mut self,
        entry: &'t Entry,
        path: Path<'_>,
        steps: Option<&[Step]>,
        whole: Option<&Lifecycle>,
    ) -> Option<Environment> {
        let fields = self.fields(self.tree.node(entry.value), path, &ENVIRONMENT)?;
        let mut environment = Environment::default();
        let Some(given) = fields.get("steps") else { return Some(environment) };
        let list = Path::Field(&path, given.spelling);
        let by_name: Option<HashMap<&str, &Step>> =
            steps.map(|steps| steps.iter().map(|step| (step.name.as_str(), step)).collect());
        let mut seen: HashMap<&str, usize> = HashMap::new();
        let mut sources = Vec::new();
        for (index, item) in self.bounded_list(given, list, STEPS_MAX)?.iter().enumerate() {
            let path = Path::Item(&list, index);
            let Some(fields) = self.fields(self.tree.node(*item), path, &OVERLAY) else { continue };
            let Some((name, overlay, retry)) = self.overlay(&fields, path) else { continue };
            let at = Path::Field(&path, "name");
            let given_at = fields.get("name").and_then(|given| given.node.position);
            if seen.insert(name, index).is_some() {
                let message = format!("the environment {} changes {} twice", shown(&entry.key), shown(name));
                let help = Some("put both changes into one entry".to_owned());
                self.problem("duplicate_step", given_at, at, message, help);
                continue;
            }
            if matches!(overlay.target, OverlayTarget::Step(_)) {
                let has_settings = !overlay.initialization.is_empty();
                let step = by_name.as_ref().and_then(|steps| steps.get(name));
                if !self.step_names.is_empty() && !self.step_names.contains(name) {
                    let names: Vec<&str> =
                        self.step_names.iter().copied().chain([OverlayTarget::ALL]).collect();
                    let suggestion = self.suggester.did_you_mean(name, names);
                    let message = format!("there is no step {} for the environment to change", shown(name));
                    self.problem("unknown_step", given_at, at, message, suggestion);
                } else if has_settings && step.is_some_and(|step| step.handler.is_none()) {
                    let message = format!("the step {} has no handler to be given settings", shown(name));
                    self.problem("unknown_step", given_at, at, message, None);
                }
            }
            environment.steps.push(overlay);
            sources.push((fields, retry, index));
        }
        if let Some(steps) = steps {
            self.in_environment(&environment, &sources, steps, whole, list);
        }
        Some(environment)
    }

    /// One overlay, the name of its step, and the fields of its retry policy.
    fn overlay(
        &mut self,
        fields: &Fields<'t>,
        path: Path<'_>,
    ) -> Option<(&'t str, StepOverlay, Option<Fields<'t>>)> {
        let before = self.problems.count();
        let at = |given: Given<'t>| Path::Field(&path, given.spelling);
        let name = self.required(fields, "name", path, &OVERLAY);
        let name = name.and_then(|given| self.text(given, at(given)));
        let mut initialization = serde_json::Map::new();
        if let Some(given) = fields.get("handler") {
            let path = at(given);
            if let Some(handler) = self.fields(given.node, path, &OVERLAY_HANDLER)
                && let Some(given) = handler.get("initialization")
                && let Some(entries) = self.mapping(given, Path::Field(&path, given.spelling))
            {
                initialization = self.tree.to_map(entries);
            }
        }
        let timeout = fields
            .get("timeout_seconds")
            .and_then(|given| self.seconds(given, at(given), false, Duration::from_millis(TIMEOUT_MS_MAX)));
        let (retry, retry_fields) = match fields.get("retry") {
            Some(given) => {
                let (retry, fields) = self.retry_given(given.node, at(given))?;
                (retry, Some(fields))
            }
            None => (RetryOverlay::default(), None),
        };
        if self.problems.count() > before {
            return None;
        }
        let name = name?;
        let target = match name {
            OverlayTarget::ALL => OverlayTarget::All,
            name => OverlayTarget::Step(name.to_owned()),
        };
        Some((name, StepOverlay { target, initialization, timeout, retry }, retry_fields))
    }

    /// Whether every step can still keep its times when the environment has changed it. Each overlay is told about
    /// once, with the first step for which it is wrong.
    fn in_environment(
        &mut self,
        environment: &Environment,
        sources: &[(Fields<'t>, Option<Fields<'t>>, usize)],
        steps: &[Step],
        whole: Option<&Lifecycle>,
        list: Path<'_>,
    ) {
        let overlays = Overlays::of(environment);
        let places: HashMap<&str, usize> = environment
            .steps
            .iter()
            .enumerate()
            .map(|(index, overlay)| (overlay.target.name(), index))
            .collect();
        let mut told = vec![false; environment.steps.len()];
        for step in steps {
            let (mut retry, mut timeout) = (step.retry.clone(), step.timeout);
            // The last that has a say, and the last that has one about retries.
            let (mut last, mut last_retry) = (None, None);
            for overlay in overlays.over(&step.name) {
                retry = overlay.retry.over(&retry);
                timeout = overlay.timeout.or(timeout);
                let place = places.get(overlay.target.name()).copied();
                if overlay.retry != RetryOverlay::default() {
                    (last, last_retry) = (place, place);
                } else if overlay.timeout.is_some() {
                    last = place;
                }
            }
            let Some(place) = last else { continue };
            let Some((fields, _, index)) = sources.get(place) else { continue };
            let retry_fields = last_retry
                .and_then(|place| sources.get(place))
                .and_then(|(_, fields, index)| Some((fields.as_ref()?, *index)));
            let before = self.problems.count();
            if told.get(place).copied().unwrap_or(true) {
                continue;
            }
            let path = Path::Item(&list, *index);
            let agree = match retry_fields {
                Some((fields, index)) => {
                    let item = Path::Item(&list, index);
                    self.delays_agree(&retry, fields, Path::Field(&item, "retry"))
                }
                None => true,
            };
            if agree {
                let wait = step.wait_for.as_ref().and_then(|wait| wait.timeout);
                let times = Times { timeout, retry: &retry, wait, own: step.lifecycle.as_ref(), whole };
                self.times(times, &step.name, path, fields.position);
            }
            if let Some(told) = told.get_mut(place) {
                *told = self.problems.count() > before;
            }
        }
    }
}

/// How many bytes each environment may add to the canonical form, at most: an overlay for all steps is written once
/// and lands on each of them.
pub(super) fn bytes_added(meaning: &Meaning) -> Vec<(&str, usize)> {
    let bytes = |overlay: &StepOverlay| {
        if overlay.initialization.is_empty() {
            0
        } else {
            Value::Object(overlay.initialization.clone()).to_string().len()
        }
    };
    meaning
        .environments
        .iter()
        .map(|(name, environment)| {
            let total = environment.steps.iter().fold(0_usize, |total, overlay| {
                let steps = if overlay.target == OverlayTarget::All { meaning.steps.len() } else { 1 };
                total.saturating_add(bytes(overlay).saturating_mul(steps))
            });
            (name.as_str(), total)
        })
        .collect()
}
