//! The fields of an object: which there are and under which spellings.

use super::problems::{Path, Position, Problem, Problems, shown};
use super::suggest::Suggester;
use super::tree::{Content, Node, Tree};

/// A field and the other names that it goes by.
#[derive(Debug)]
pub(super) struct Field {
    pub(super) name: &'static str,
    pub(super) aliases: &'static [&'static str],
    pub(super) inside: Inside,
    /// Tells people and tools something, and changes nothing about how a workflow runs.
    pub(super) is_note: bool,
    /// Whether its place is kept, for those who judge the template after it was read.
    pub(super) is_placed: bool,
}

/// What a field's value holds.
#[derive(Debug, Clone, Copy)]
pub(super) enum Inside {
    /// No fields of ours: a scalar, a list of them, or whatever its author likes.
    Value,
    /// One object.
    Object(&'static Schema),
    /// A list of objects.
    List(&'static Schema),
    /// Objects by names that their author chooses.
    Named(&'static Schema),
}

impl Field {
    pub(super) const fn new(name: &'static str) -> Self {
        Self { name, aliases: &[], inside: Inside::Value, is_note: false, is_placed: false }
    }

    pub(super) const fn alias(mut self, aliases: &'static [&'static str]) -> Self {
        self.aliases = aliases;
        self
    }

    pub(super) const fn holds(mut self, inside: Inside) -> Self {
        self.inside = inside;
        self
    }

    pub(super) const fn note(mut self) -> Self {
        self.is_note = true;
        self
    }

    pub(super) const fn placed(mut self) -> Self {
        self.is_placed = true;
        self
    }
}

/// What an object may hold.
#[derive(Debug)]
pub(super) struct Schema {
    /// The object, as a message calls it.
    pub(super) what: &'static str,
    pub(super) fields: &'static [Field],
    /// Whether its author may add fields of any name.
    pub(super) is_open: bool,
}

/// A field as its author gave it.
#[derive(Debug, Clone, Copy)]
pub(super) struct Given<'t> {
    /// The name that was written: the field's own or an alias.
    pub(super) spelling: &'t str,
    /// Where that name stands.
    pub(super) key_position: Option<Position>,
    pub(super) node: &'t Node,
}

/// The fields that an object gives.
#[derive(Debug)]
pub(super) struct Fields<'t> {
    given: Vec<(&'static str, Given<'t>)>,
    /// Where the object begins.
    pub(super) position: Option<Position>,
}

impl<'t> Fields<'t> {
    /// The field of this name, however it was spelled. One without a value counts as not given.
    pub(super) fn get(&self, name: &str) -> Option<Given<'t>> {
        let (_, given) = self.given.iter().find(|(known, _)| *known == name)?;
        (!matches!(given.node.content, Content::Null)).then_some(*given)
    }
}

/// Walks a tree and collects what is wrong with its meaning.
pub(super) struct Reader<'t, 'p> {
    pub(super) tree: &'t Tree,
    pub(super) problems: &'p mut Problems,
    /// Where unknown fields go when they are forgiven.
    pub(super) forgiven: Option<&'p mut Problems>,
    pub(super) suggester: Suggester,
    /// Places of fields that are judged later, by pointer.
    pub(super) places: std::collections::HashMap<String, Position>,
    /// Names of the steps, also of those with which something is wrong.
    pub(super) step_names: std::collections::HashSet<&'t str>,
    /// How many expressions have been compiled.
    pub(super) expressions: usize,
    /// What schemas may still cost together.
    pub(super) schemas: super::json_schema::Budget,
}

impl<'t> Reader<'t, '_> {
    /// Records a problem.
    pub(super) fn problem(
        &mut self,
        code: &'static str,
        at: Option<Position>,
        path: Path<'_>,
        message: String,
        suggestion: Option<String>,
    ) {
        self.problems.push(problem(code, at, path, message, suggestion));
    }

    /// Records a problem of something below `path`, to which the pointer `below` leads.
    pub(super) fn problem_below(
        &mut self,
        code: &'static str,
        at: Option<Position>,
        path: Path<'_>,
        below: &str,
        message: String,
    ) {
        let mut found = problem(code, at, path, message, None);
        found.path.push_str(below);
        self.problems.push(found);
    }

    /// The same, with something to do about it.
    pub(super) fn problem_with_help(
        &mut self,
        code: &'static str,
        at: Option<Position>,
        path: Path<'_>,
        below: &str,
        message: String,
        help: &str,
    ) {
        let mut found = problem(code, at, path, message, Some(help.to_owned()));
        found.path.push_str(below);
        self.problems.push(found);
    }

    /// The fields of `node`, which must be an object after `schema`; every field that it should not have is
    /// a problem.
    pub(super) fn fields(&mut self, node: &'t Node, path: Path<'_>, schema: &Schema) -> Option<Fields<'t>> {
        let entries = match &node.content {
            Content::Object(entries) => entries,
            Content::Broken => return None,
            other => {
                let message = format!("{} must be a mapping, found {}", schema.what, other.kind());
                self.problem("wrong_type", node.position, path, message, None);
                return None;
            }
        };
        let mut given: Vec<(&'static str, Given<'t>)> = Vec::new();
        for entry in entries {
            let spelling = entry.key.as_str();
            let at = entry.key_position;
            let here = Path::Field(&path, spelling);
            let known = schema
                .fields
                .iter()
                .find(|field| field.name == spelling || field.aliases.contains(&spelling));
            if let Some(field) = known {
                if let Some((_, first)) = given.iter().find(|(name, _)| *name == field.name) {
                    let message =
                        format!("`{spelling}` and `{}` are two spellings of one field", first.spelling);
                    let suggestion = Some(format!("keep `{}`", field.name));
                    self.problem("spelled_twice", at, here, message, suggestion);
                    continue;
                }
                if let (true, Some(at)) = (field.is_placed, at) {
                    self.places.insert(Path::Field(&path, field.name).pointer(), at);
                }
                let node = self.tree.node(entry.value);
                given.push((field.name, Given { spelling, key_position: at, node }));
            } else if !schema.is_open {
                let names = schema
                    .fields
                    .iter()
                    .flat_map(|field| std::iter::once(field.name).chain(field.aliases.iter().copied()));
                let suggestion = self.suggester.did_you_mean(spelling, names);
                let message = format!("{} has no field {}", schema.what, shown(spelling));
                let problem = problem("unknown_field", at, here, message, suggestion);
                match &mut self.forgiven {
                    Some(forgiven) => forgiven.push(problem),
                    None => self.problems.push(problem),
                }
            }
        }
        Some(Fields { given, position: node.position })
    }

    /// The field `name`; its absence is a problem of the object.
    pub(super) fn required(
        &mut self,
        fields: &Fields<'t>,
        name: &'static str,
        path: Path<'_>,
        schema: &Schema,
    ) -> Option<Given<'t>> {
        let given = fields.get(name);
        if given.is_none() {
            let at = fields
                .given
                .iter()
                .find(|(known, _)| *known == name)
                .map_or(fields.position, |(_, given)| given.key_position);
            let message = format!("{} lacks `{name}`", schema.what);
            self.problem("missing_field", at, path, message, None);
        }
        given
    }
}

fn problem(
    code: &'static str,
    at: Option<Position>,
    path: Path<'_>,
    message: String,
    suggestion: Option<String>,
) -> Problem {
    Problem {
        code,
        message,
        line: at.map(|at| at.line),
        column: at.map(|at| at.column),
        path: path.pointer(),
        suggestion,
    }
}
