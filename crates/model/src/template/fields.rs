//! The fields of an object: which there are, under which spellings, and which are refused.

use super::problems::{Path, Position, Problem, Problems, shown};
use super::suggest::Suggester;
use super::tree::{Content, Node, Tree};

/// A field and the other names that it goes by.
pub(super) struct Field {
    pub(super) name: &'static str,
    pub(super) aliases: &'static [&'static str],
}

/// What an object may hold.
pub(super) struct Schema {
    /// The object, as a message calls it.
    pub(super) what: &'static str,
    pub(super) fields: &'static [Field],
    /// Known to a later version; accepting them now would mean ignoring them.
    pub(super) unsupported: &'static [&'static str],
}

/// A field as its author gave it.
#[derive(Clone, Copy)]
pub(super) struct Given<'t> {
    /// The name that was written: the field's own or an alias.
    pub(super) spelling: &'t str,
    /// Where that name stands.
    pub(super) key_position: Option<Position>,
    pub(super) node: &'t Node,
}

/// The fields that an object gives.
pub(super) struct Fields<'t> {
    given: Vec<(&'static str, Given<'t>)>,
    /// Where the object begins.
    position: Option<Position>,
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
    pub(super) suggester: Suggester,
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
        self.problems.push(Problem {
            code,
            message,
            line: at.map(|at| at.line),
            column: at.map(|at| at.column),
            path: path.pointer(),
            suggestion,
        });
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
                let node = self.tree.node(entry.value);
                given.push((field.name, Given { spelling, key_position: at, node }));
            } else if schema.unsupported.contains(&spelling) {
                let message = format!("`{spelling}` of {} is not supported by this version", schema.what);
                self.problem("unsupported_field", at, here, message, Some("remove it".to_owned()));
            } else {
                let names = schema
                    .fields
                    .iter()
                    .flat_map(|field| std::iter::once(field.name).chain(field.aliases.iter().copied()));
                let suggestion = self.suggester.did_you_mean(spelling, names);
                let message = format!("{} has no field {}", schema.what, shown(spelling));
                self.problem("unknown_field", at, here, message, suggestion);
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
