//! What a source says before anybody asks what it means: values with their positions.
//!
//! Nodes live in one vector and refer to each other by index, so that an alias costs one index and neither
//! building nor dropping a tree recurses.

use serde_json::{Map, Number, Value};

use super::problems::{Path, Position, Problem, Problems};

/// Index of a node in its tree.
pub(super) type NodeId = usize;

/// A document.
#[derive(Debug)]
pub(super) struct Tree {
    nodes: Vec<Node>,
    root: NodeId,
}

/// One value.
#[derive(Debug)]
pub(super) struct Node {
    pub(super) content: Content,
    /// Where it begins; none when it was read from a canonical form.
    pub(super) position: Option<Position>,
}

/// What a value is.
#[derive(Debug)]
pub(super) enum Content {
    Null,
    Bool(bool),
    Number(Number),
    Text(String),
    List(Vec<NodeId>),
    Object(Vec<Entry>),
    /// A problem was already told about it; whoever meets it stays silent.
    Broken,
}

/// A field of an object.
#[derive(Debug, Clone)]
pub(super) struct Entry {
    pub(super) key: String,
    pub(super) key_position: Option<Position>,
    pub(super) value: NodeId,
}

impl Content {
    /// What it is called in a message.
    pub(super) fn kind(&self) -> &'static str {
        match self {
            Self::Null => "nothing",
            Self::Bool(_) => "true or false",
            Self::Number(_) => "a number",
            Self::Text(_) => "text",
            Self::List(_) => "a list",
            Self::Object(_) => "a mapping",
            Self::Broken => "an unreadable value",
        }
    }
}

impl Tree {
    /// A tree over `nodes`; every index in it is below `nodes.len()`.
    pub(super) fn new(nodes: Vec<Node>, root: NodeId) -> Self {
        Self { nodes, root }
    }

    /// The outermost value.
    pub(super) fn root(&self) -> &Node {
        self.node(self.root)
    }

    /// The node `id` of this tree.
    pub(super) fn node(&self, id: NodeId) -> &Node {
        static MISSING: Node = Node { content: Content::Broken, position: None };
        self.nodes.get(id).unwrap_or(&MISSING)
    }

    /// Where the value stands to which `pointer` leads from `node`: its key, where it has one. As near as there is
    /// something, if there is no such value.
    pub(super) fn position_of(&self, node: &Node, pointer: &str) -> Option<Position> {
        let (mut node, mut at) = (node, node.position);
        for segment in pointer.split('/').skip(1) {
            let segment = segment.replace("~1", "/").replace("~0", "~");
            match &node.content {
                Content::Object(entries) => {
                    let Some(entry) = entries.iter().find(|entry| entry.key == segment) else { break };
                    node = self.node(entry.value);
                    at = entry.key_position.or(at);
                }
                Content::List(items) => {
                    let index = segment.parse::<usize>().ok();
                    let Some(item) = index.and_then(|index| items.get(index)) else { break };
                    node = self.node(*item);
                    at = node.position.or(at);
                }
                _ => break,
            }
        }
        at
    }

    /// `node` as plain JSON. Recurses, at most as deep as the reader allowed nesting.
    pub(super) fn to_json(&self, node: &Node) -> Value {
        match &node.content {
            Content::Null | Content::Broken => Value::Null,
            Content::Bool(value) => Value::Bool(*value),
            Content::Number(value) => Value::Number(value.clone()),
            Content::Text(value) => Value::String(value.clone()),
            Content::List(items) => items.iter().map(|item| self.to_json(self.node(*item))).collect(),
            Content::Object(entries) => Value::Object(self.to_map(entries)),
        }
    }

    /// `entries` as a JSON object.
    pub(super) fn to_map(&self, entries: &[Entry]) -> Map<String, Value> {
        entries.iter().map(|entry| (entry.key.clone(), self.to_json(self.node(entry.value)))).collect()
    }
}

/// A problem of the document's form, which is known before there are paths.
pub(super) fn form_problem(
    problems: &mut Problems,
    code: &'static str,
    position: Option<Position>,
    message: impl Into<String>,
    suggestion: Option<&str>,
) {
    problems.push(Problem {
        code,
        message: message.into(),
        line: position.map(|at| at.line),
        column: position.map(|at| at.column),
        path: Path::Root.pointer(),
        suggestion: suggestion.map(str::to_owned),
    });
}
