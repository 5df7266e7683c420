//! Reads a canonical form back into a [`Tree`], without positions.
//!
//! Not through the YAML reader: JSON may hold raw characters (U+007F, for one) that YAML forbids.

use std::collections::HashSet;
use std::fmt;

use serde::de::{DeserializeSeed, Deserializer, Error, MapAccess, SeqAccess, Visitor};
use serde_json::Number;

use super::limits::NESTING_MAX;
use super::problems::{Position, Problems, shown};
use super::tree::{Content, Entry, Node, NodeId, Tree, form_problem};

/// Reads `text`. JSON is strict, so the first error of form is the only one that is told.
pub(super) fn read(text: &str, problems: &mut Problems) -> Option<Tree> {
    let mut nodes = Vec::new();
    let mut reader = serde_json::Deserializer::from_str(text);
    let root = Seed { nodes: &mut nodes, nesting: 0 }.deserialize(&mut reader);
    match root.and_then(|root| reader.end().map(|()| root)) {
        Ok(root) => Some(Tree::new(nodes, root)),
        Err(error) => {
            let number = |value: usize| u32::try_from(value).unwrap_or(u32::MAX);
            let at = Position { line: number(error.line()), column: number(error.column()) };
            form_problem(problems, "syntax", Some(at), error.to_string(), None);
            None
        }
    }
}

/// Reads one value into `nodes` and gives its index. The depth is bounded here, before the JSON reader's own.
struct Seed<'n> {
    nodes: &'n mut Vec<Node>,
    nesting: usize,
}

impl Seed<'_> {
    fn add(self, content: Content) -> NodeId {
        self.nodes.push(Node { content, position: None });
        self.nodes.len() - 1
    }

    fn deeper<E: Error>(&mut self) -> Result<Seed<'_>, E> {
        let nesting = self.nesting + 1;
        if nesting > NESTING_MAX {
            return Err(E::custom(format_args!(
                "lists and mappings are nested more than {NESTING_MAX} deep"
            )));
        }
        Ok(Seed { nodes: self.nodes, nesting })
    }
}

impl<'de> DeserializeSeed<'de> for Seed<'_> {
    type Value = NodeId;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<NodeId, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Seed<'_> {
    type Value = NodeId;

    fn expecting(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str("a JSON value")
    }

    fn visit_unit<E>(self) -> Result<NodeId, E> {
        Ok(self.add(Content::Null))
    }

    fn visit_bool<E>(self, value: bool) -> Result<NodeId, E> {
        Ok(self.add(Content::Bool(value)))
    }

    fn visit_i64<E>(self, value: i64) -> Result<NodeId, E> {
        Ok(self.add(Content::Number(value.into())))
    }

    fn visit_u64<E>(self, value: u64) -> Result<NodeId, E> {
        Ok(self.add(Content::Number(value.into())))
    }

    fn visit_f64<E: Error>(self, value: f64) -> Result<NodeId, E> {
        let value = if value == 0.0 { 0.0 } else { value };
        let number = Number::from_f64(value).ok_or_else(|| E::custom("the number is not finite"))?;
        Ok(self.add(Content::Number(number)))
    }

    fn visit_str<E>(self, value: &str) -> Result<NodeId, E> {
        Ok(self.add(Content::Text(value.to_owned())))
    }

    fn visit_seq<A: SeqAccess<'de>>(mut self, mut access: A) -> Result<NodeId, A::Error> {
        let mut items = Vec::new();
        while let Some(item) = access.next_element_seed(self.deeper()?)? {
            items.push(item);
        }
        Ok(self.add(Content::List(items)))
    }

    fn visit_map<A: MapAccess<'de>>(mut self, mut access: A) -> Result<NodeId, A::Error> {
        let mut entries = Vec::new();
        let mut seen = HashSet::new();
        while let Some(key) = access.next_key::<String>()? {
            if !seen.insert(key.clone()) {
                return Err(A::Error::custom(format_args!("the key {} is given twice", shown(&key))));
            }
            let value = access.next_value_seed(self.deeper()?)?;
            entries.push(Entry { key, key_position: None, value });
        }
        Ok(self.add(Content::Object(entries)))
    }
}
