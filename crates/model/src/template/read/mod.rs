//! From a tree to a template: what each field means, and everything that is wrong with it.

mod environments;
mod flow;
mod links;
mod parts;
mod retry;
mod step;
mod steps;

use std::collections::{BTreeMap, HashMap, HashSet};

use semver::Version;
use serde_json::{Map, Value};

use super::definition::{Meaning, SystemDependencies, Template};
use super::events::DomainEvent;
use super::fields::{Fields, Given, Reader};
use super::json_schema::Budget;
use super::limits::{CANONICAL_BYTES_MAX, EVENTS_MAX, NAMES_MAX, VERSION_BYTES_MAX};
use super::problems::{Path, Problems, shown};
use super::shape::{DOMAIN_EVENT, METADATA, SYSTEM_DEPENDENCIES, TEMPLATE};
use super::suggest::Suggester;
use super::tree::{Content, Tree};

const DEFAULT_NAMESPACE: &str = "default";

/// The template that `tree` describes; none only if a problem was told. Unknown fields are problems, unless there is a
/// place for those that are `forgiven`.
pub(super) fn template<'t, 'p>(
    tree: &'t Tree,
    problems: &'p mut Problems,
    forgiven: Option<&'p mut Problems>,
) -> Option<Template> {
    let file = problems.file().to_owned();
    let mut reader: Reader<'t, 'p> = Reader {
        tree,
        problems,
        forgiven,
        suggester: Suggester::default(),
        places: HashMap::new(),
        step_names: HashSet::new(),
        expressions: 0,
        schemas: Budget::default(),
    };
    let path = Path::Root;
    let at = |given: Given<'t>| Path::Field(&path, given.spelling);
    let fields = reader.fields(tree.root(), path, &TEMPLATE)?;
    let name =
        reader.required(&fields, "name", path, &TEMPLATE).and_then(|given| reader.name(given, at(given)));
    let namespace = match fields.get("namespace_name") {
        Some(given) => reader.name(given, at(given)),
        None => Some(DEFAULT_NAMESPACE),
    };
    let version =
        reader.required(&fields, "version", path, &TEMPLATE).and_then(|given| reader.version(given));
    let description = reader.description(&fields, path);
    let metadata = reader.metadata(&fields);
    let system_dependencies = reader.system_dependencies(&fields);
    let domain_events = reader.domain_events(&fields);
    let input_schema = fields.get("input_schema").and_then(|given| reader.schema(given, at(given)));
    let lifecycle = fields.get("lifecycle").and_then(|given| reader.lifecycle(given, at(given)));
    let steps = reader
        .required(&fields, "steps", path, &TEMPLATE)
        .and_then(|given| reader.steps(given, lifecycle.as_ref()));
    let environments = match fields.get("environments") {
        Some(given) => {
            let steps = steps.as_ref().map(|steps| steps.all.as_slice());
            reader.environments(given, steps, lifecycle.as_ref())
        }
        None => BTreeMap::new(),
    };
    let steps = steps?;
    let mut template = Template {
        meaning: Meaning {
            name: name?.to_owned(),
            namespace: namespace?.to_owned(),
            version: version?,
            description,
            metadata,
            system_dependencies,
            domain_events,
            input_schema,
            steps: steps.all,
            environments,
            lifecycle,
        },
        graph: steps.graph,
        canonical: String::new(),
        file,
        handlers_at: steps.handlers_at,
        places: HashMap::new(),
    };
    let canonical_bytes = template.pin().len();
    let at = tree.root().position;
    if canonical_bytes > CANONICAL_BYTES_MAX {
        let message = format!(
            "with its aliases expanded and defaults written out, the template has {canonical_bytes} bytes, \
             the limit is {CANONICAL_BYTES_MAX}"
        );
        reader.problem("too_large", at, path, message, None);
    }
    for (environment, bytes) in environments::bytes_added(&template.meaning) {
        let bytes = canonical_bytes.saturating_add(bytes);
        if bytes > CANONICAL_BYTES_MAX {
            let message = format!(
                "in the environment {}, the template has up to {bytes} bytes, the limit is {CANONICAL_BYTES_MAX}",
                shown(environment)
            );
            reader.problem("too_large", at, path, message, None);
        }
    }
    template.places = reader.places;
    Some(template)
}

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

    fn metadata(&mut self, fields: &Fields<'t>) -> Map<String, Value> {
        let Some(given) = fields.get("metadata") else { return Map::new() };
        let path = Path::Field(&Path::Root, given.spelling);
        let Some(entries) = self.mapping(given, path) else { return Map::new() };
        if let Some(known) = self.fields(given.node, path, &METADATA) {
            for name in ["author", "documentation_url", "created_at", "updated_at", "notes"] {
                if let Some(given) = known.get(name) {
                    self.text(given, Path::Field(&path, given.spelling));
                }
            }
            if let Some(given) = known.get("tags") {
                self.texts(given, Path::Field(&path, given.spelling), NAMES_MAX);
            }
        }
        self.tree.to_map(entries)
    }

    fn system_dependencies(&mut self, fields: &Fields<'t>) -> SystemDependencies {
        let mut systems = SystemDependencies::default();
        let Some(given) = fields.get("system_dependencies") else { return systems };
        let path = Path::Field(&Path::Root, given.spelling);
        let Some(fields) = self.fields(given.node, path, &SYSTEM_DEPENDENCIES) else { return systems };
        if let Some(given) = fields.get("primary") {
            systems.primary = self.text(given, Path::Field(&path, given.spelling)).map(str::to_owned);
        }
        if let Some(given) = fields.get("secondary") {
            systems.secondary = self.texts(given, Path::Field(&path, given.spelling), NAMES_MAX);
        }
        systems
    }

    fn domain_events(&mut self, fields: &Fields<'t>) -> Vec<DomainEvent> {
        let Some(given) = fields.get("domain_events") else { return Vec::new() };
        let path = Path::Field(&Path::Root, given.spelling);
        let items = self.bounded_list(given, path, EVENTS_MAX).unwrap_or_default();
        let mut events: Vec<DomainEvent> = Vec::new();
        for (index, item) in items.iter().enumerate() {
            let path = Path::Item(&path, index);
            let at = |given: Given<'t>| Path::Field(&path, given.spelling);
            let Some(fields) = self.fields(self.tree.node(*item), path, &DOMAIN_EVENT) else { continue };
            let description = self.description(&fields, path);
            let schema = fields.get("schema").and_then(|given| self.schema(given, at(given)));
            let Some(given) = self.required(&fields, "name", path, &DOMAIN_EVENT) else { continue };
            let Some(name) = self.name(given, at(given)) else { continue };
            if events.iter().any(|event| event.name == name) {
                let message = format!("two domain events are named {}", shown(name));
                let help = Some("give each event a name of its own".to_owned());
                self.problem("duplicate_event", given.node.position, at(given), message, help);
            }
            events.push(DomainEvent { name: name.to_owned(), description, schema });
        }
        events
    }
}
