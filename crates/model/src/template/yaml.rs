//! The one door to the YAML library: source text in, [`Tree`] out.
//!
//! It works on parse events rather than through serde: serde stops at the first error and forgets where an
//! object's keys stood, and a template's author wants every problem at once, each with its place. JSON is read
//! as the subset of YAML that it is, but for characters such as U+007F that YAML wants escaped.
//!
//! A value that came through an alias or a merge key keeps the position at which it is written.

use std::collections::HashMap;

use serde_saphyr::granit_parser::{
    self, ErrorKind, Event, Marker, Parser, ScalarStyle, Span, StructureStyle, Tag,
};

use super::limits::{NESTING_MAX, NODES_MAX, TEXT_BYTES_MAX};
use super::problems::{Position, Problems, shown};
use super::scalar;
use super::tree::{Content, Entry, Node, NodeId, Tree, form_problem};

/// Reads `source`. Whatever is wrong with its form goes to `problems`; a tree comes back whenever the source
/// could be read to its end, so that its meaning can be judged too.
pub(super) fn read(source: &str, problems: &mut Problems) -> Option<Tree> {
    let options = granit_parser::options! {
        emit_comments: false,
        emit_unresolved_aliases: true,
        flow_nesting_limit: NESTING_MAX,
        block_nesting_limit: NESTING_MAX,
    };
    let mut parser = Parser::new_from_str_with_options(source, options);
    let mut builder = Builder::new(problems);
    let mut documents = 0_usize;
    while let Some(event) = parser.next_event() {
        let (event, span) = match event {
            Ok(event) => event,
            Err(error) => {
                builder.syntax(error.kind(), &error.info(), error.marker(), source);
                return None;
            }
        };
        if matches!(event, Event::DocumentStart(..)) {
            documents += 1;
            if documents > 1 {
                let at = position(&span.start);
                builder.problem("several_documents", at, "a second document begins here", ONE_FILE_EACH);
                break;
            }
        }
        builder.event(event, &span, source).ok()?;
    }
    builder.finish()
}

const ONE_FILE_EACH: Option<&str> = Some("put each template into a file of its own");

fn position(marker: &Marker) -> Position {
    let number = |value: usize| u32::try_from(value).unwrap_or(u32::MAX);
    Position { line: number(marker.line()), column: number(marker.col()).saturating_add(1) }
}

/// Where a block list begins: at its first dash. The library points behind it when the list is not indented.
fn dash_position(span: &Span, source: &str) -> Position {
    let mut at = position(&span.start);
    let before = span.start.byte_offset().and_then(|offset| source.get(..offset)).unwrap_or_default();
    let trimmed = before.trim_end_matches([' ', '\t']);
    let starts_with_dash = source.get(before.len()..).is_some_and(|rest| rest.starts_with('-'));
    if !starts_with_dash && trimmed.ends_with('-') {
        let behind = u32::try_from(before.len() - trimmed.len() + 1).unwrap_or(0);
        at.column = at.column.saturating_sub(behind).max(1);
    }
    at
}

/// Where the tab stands over which the library stumbled at `marker`: it points behind it.
fn tab_position(marker: &Marker, source: &str) -> Position {
    let mut at = position(marker);
    let before = marker.byte_offset().and_then(|offset| source.get(..offset)).unwrap_or_default();
    let behind = before.len() - before.trim_end_matches('\t').len();
    at.column = at.column.saturating_sub(u32::try_from(behind).unwrap_or(0)).max(1);
    at
}

/// Reading cannot go on; the reason has been told.
struct Stop;

/// The tag of a value, if it has one, and where it stands.
#[derive(Clone, Copy)]
struct Tagged<'t> {
    tag: Option<&'t Tag>,
    at: Option<Position>,
}

impl<'t> Tagged<'t> {
    fn new(tag: Option<&'t Tag>, span: &Span) -> Self {
        Self { tag, at: span.tag_start.as_ref().map(position) }
    }
}

/// How much a value is, its aliases expanded.
#[derive(Clone, Copy, Default)]
struct Size {
    nodes: usize,
    text_bytes: usize,
    nesting: usize,
}

/// A list or object that is not closed yet.
struct Frame {
    position: Position,
    anchor: usize,
    body: Body,
}

enum Body {
    List(Vec<NodeId>),
    Object { entries: Vec<Entry>, seen: HashMap<String, Position>, key: Key, merges: Vec<(NodeId, Position)> },
}

/// The key whose value comes next.
enum Key {
    Awaited,
    Named(String, Position),
    /// `<<`: the value's fields belong to the object itself.
    Merge(Position),
    /// A problem was told; the value is dropped.
    Refused,
}

struct Builder<'p> {
    problems: &'p mut Problems,
    nodes: Vec<Node>,
    /// Of the node of the same index.
    sizes: Vec<Size>,
    /// None while the anchored value is still open.
    anchors: HashMap<usize, Option<NodeId>>,
    frames: Vec<Frame>,
    root: Option<NodeId>,
    /// Entries that merge keys have looked at, and bytes of the keys that they have copied.
    merged: Size,
}

impl<'p> Builder<'p> {
    fn new(problems: &'p mut Problems) -> Self {
        Self {
            problems,
            nodes: Vec::new(),
            sizes: Vec::new(),
            anchors: HashMap::new(),
            frames: Vec::new(),
            root: None,
            merged: Size::default(),
        }
    }

    fn problem(
        &mut self,
        code: &'static str,
        at: Position,
        message: impl Into<String>,
        suggestion: Option<&str>,
    ) {
        form_problem(self.problems, code, Some(at), message, suggestion);
    }

    fn syntax(&mut self, kind: &ErrorKind, message: &str, marker: &Marker, source: &str) {
        if matches!(kind, ErrorKind::RecursionLimitExceeded) {
            self.too_deep(position(marker));
        } else if message.contains("tab") {
            let suggestion = Some("indent with spaces, not with tabs");
            self.problem("syntax", tab_position(marker, source), message, suggestion);
        } else {
            let suggestion = matches!(kind, ErrorKind::UnexpectedCharacter { .. })
                .then_some("within double quotes it can be written as an escape, such as \\u007f");
            self.problem("syntax", position(marker), message, suggestion);
        }
    }

    fn too_deep(&mut self, at: Position) {
        let message = format!("lists and mappings are nested more than {NESTING_MAX} deep");
        self.problem("too_deep", at, message, None);
    }

    fn event(&mut self, event: Event<'_>, span: &Span, source: &str) -> Result<(), Stop> {
        let at = position(&span.start);
        match event {
            Event::Scalar(text, style, anchor, tag) => {
                let is_empty = span.start.index() == span.end.index();
                self.scalar(&text, style, Tagged::new(tag.as_deref(), span), anchor, at, is_empty)
            }
            Event::SequenceStart(style, anchor, tag) => {
                let at = if style == StructureStyle::Block { dash_position(span, source) } else { at };
                self.open("seq", Tagged::new(tag.as_deref(), span), anchor, at, Body::List(Vec::new()))
            }
            Event::MappingStart(_, anchor, tag) => {
                let body = Body::Object {
                    entries: Vec::new(),
                    seen: HashMap::new(),
                    key: Key::Awaited,
                    merges: Vec::new(),
                };
                self.open("map", Tagged::new(tag.as_deref(), span), anchor, at, body)
            }
            Event::SequenceEnd | Event::MappingEnd => self.close(),
            Event::Alias(anchor) => self.alias(anchor, at),
            Event::UnresolvedAlias(name) => {
                let message = format!("the alias {} refers to no anchor above it", shown(&name));
                self.problem("unknown_anchor", at, message, None);
                let id = self.add(Content::Broken, at, Size::default())?;
                self.attach(id, at);
                Ok(())
            }
            // Boundaries and presentation; comments and anchor names are not asked for.
            _ => Ok(()),
        }
    }

    fn scalar(
        &mut self,
        text: &str,
        style: ScalarStyle,
        tag: Tagged<'_>,
        anchor: usize,
        at: Position,
        is_empty: bool,
    ) -> Result<(), Stop> {
        let size = Size { nodes: 1, text_bytes: text.len(), nesting: 0 };
        if self.awaits_key() {
            if is_empty || text.contains('\0') {
                self.problem("bad_key", at, "a key is missing or holds a NUL character", None);
                self.set_key(Key::Refused);
                return Ok(());
            }
            if anchor != 0 {
                let id = self.add(Content::Text(text.to_owned()), at, size)?;
                self.anchors.insert(anchor, Some(id));
            }
            let is_merge = text == "<<" && style == ScalarStyle::Plain && tag.tag.is_none();
            self.name_key(text, at, is_merge);
            return Ok(());
        }
        // An absent value has no place of its own that a reader would recognise: point at its key.
        let at = if is_empty { self.key_position().unwrap_or(at) } else { at };
        let content = if text.contains('\0') {
            Err(("bad_text", "text must not hold a NUL character", None))
        } else {
            meaning(text, style, tag.tag)
        };
        let content = content.unwrap_or_else(|(code, message, suggestion)| {
            let at = if code == "bad_tag" { tag.at.unwrap_or(at) } else { at };
            self.problem(code, at, format!("{}: {message}", shown(text)), suggestion);
            Content::Broken
        });
        let id = self.add(content, at, size)?;
        if anchor != 0 {
            self.anchors.insert(anchor, Some(id));
        }
        self.attach(id, at);
        Ok(())
    }

    fn alias(&mut self, anchor: usize, at: Position) -> Result<(), Stop> {
        let Some(id) = self.anchors.get(&anchor).copied().flatten() else {
            self.problem("unknown_anchor", at, "an alias stands inside the value that it refers to", None);
            let id = self.add(Content::Broken, at, Size::default())?;
            self.attach(id, at);
            return Ok(());
        };
        if self.awaits_key()
            && let Some(Content::Text(text)) = self.nodes.get(id).map(|node| &node.content)
        {
            let text = text.clone();
            self.merged.text_bytes = self.merged.text_bytes.saturating_add(text.len());
            self.within_bounds(self.merged, at)?;
            self.name_key(&text, at, false);
            return Ok(());
        }
        self.attach(id, at);
        Ok(())
    }

    fn open(
        &mut self,
        kind: &str,
        tag: Tagged<'_>,
        anchor: usize,
        at: Position,
        body: Body,
    ) -> Result<(), Stop> {
        if self.frames.len() >= NESTING_MAX {
            self.too_deep(at);
            return Err(Stop);
        }
        let tag_at = tag.at;
        if let Some(tag) = tag.tag
            && !is_plain_tag(tag)
            && !tag.is_yaml_core_schema_tag(kind)
        {
            let message = format!("the tag {} is not supported here", shown(&tag.original()));
            self.problem("bad_tag", tag_at.unwrap_or(at), message, Some("remove the tag"));
        }
        if anchor != 0 {
            self.anchors.insert(anchor, None);
        }
        self.frames.push(Frame { position: at, anchor, body });
        Ok(())
    }

    fn close(&mut self) -> Result<(), Stop> {
        let Some(Frame { position: at, anchor, body }) = self.frames.pop() else { return Ok(()) };
        let mut size = Size { nodes: 1, text_bytes: 0, nesting: 1 };
        let content = match body {
            Body::List(items) => {
                for item in &items {
                    self.grow(&mut size, *item);
                }
                Content::List(items)
            }
            Body::Object { mut entries, mut seen, merges, .. } => {
                for (source, at) in merges {
                    self.merge(source, at, &mut entries, &mut seen)?;
                }
                for entry in &entries {
                    size.text_bytes = size.text_bytes.saturating_add(entry.key.len());
                    self.grow(&mut size, entry.value);
                }
                Content::Object(entries)
            }
        };
        let id = self.add(content, at, size)?;
        if anchor != 0 {
            self.anchors.insert(anchor, Some(id));
        }
        self.attach(id, at);
        Ok(())
    }

    /// Adds the fields of `source`, an object or a list of them, that the object does not have itself.
    fn merge(
        &mut self,
        source: NodeId,
        at: Position,
        entries: &mut Vec<Entry>,
        seen: &mut HashMap<String, Position>,
    ) -> Result<(), Stop> {
        let sources = match self.nodes.get(source).map(|node| &node.content) {
            Some(Content::Object(_)) => vec![source],
            Some(Content::List(items)) => items.clone(),
            _ => Vec::new(),
        };
        let is_mapping =
            |id: &NodeId| matches!(self.nodes.get(*id).map(|node| &node.content), Some(Content::Object(_)));
        if sources.is_empty() || !sources.iter().all(is_mapping) {
            self.problem("bad_merge", at, "`<<` takes a mapping or a list of mappings", None);
            return Ok(());
        }
        for source in sources {
            let Some(Content::Object(fields)) = self.nodes.get(source).map(|node| &node.content) else {
                continue;
            };
            self.merged.nodes = self.merged.nodes.saturating_add(fields.len());
            for field in fields {
                if let Some(position) = field.key_position
                    && !seen.contains_key(&field.key)
                {
                    self.merged.text_bytes = self.merged.text_bytes.saturating_add(field.key.len());
                    seen.insert(field.key.clone(), position);
                    entries.push(field.clone());
                }
            }
            self.within_bounds(self.merged, at)?;
        }
        Ok(())
    }

    fn grow(&self, size: &mut Size, child: NodeId) {
        let child = self.sizes.get(child).copied().unwrap_or_default();
        size.nodes = size.nodes.saturating_add(child.nodes);
        size.text_bytes = size.text_bytes.saturating_add(child.text_bytes);
        size.nesting = size.nesting.max(child.nesting.saturating_add(1));
    }

    fn add(&mut self, content: Content, at: Position, size: Size) -> Result<NodeId, Stop> {
        self.within_bounds(size, at)?;
        self.nodes.push(Node { content, position: Some(at) });
        self.sizes.push(size);
        Ok(self.nodes.len() - 1)
    }

    /// Stops the reading when `size` is too much: this is what ends a "billion laughs".
    fn within_bounds(&mut self, size: Size, at: Position) -> Result<(), Stop> {
        if size.nesting > NESTING_MAX {
            self.too_deep(at);
            return Err(Stop);
        }
        let too_much = if size.nodes > NODES_MAX {
            format!("with its aliases expanded, this holds more than {NODES_MAX} values")
        } else if size.text_bytes > TEXT_BYTES_MAX {
            format!("with its aliases expanded, this holds more than {TEXT_BYTES_MAX} bytes of text")
        } else {
            return Ok(());
        };
        self.problem("too_large", at, too_much, None);
        Err(Stop)
    }

    /// Gives a finished value to whatever it stands in.
    fn attach(&mut self, id: NodeId, at: Position) {
        let Some(frame) = self.frames.last_mut() else {
            self.root = Some(id);
            return;
        };
        match &mut frame.body {
            Body::List(items) => items.push(id),
            Body::Object { entries, key, merges, .. } => match std::mem::replace(key, Key::Awaited) {
                Key::Named(key, position) => {
                    entries.push(Entry { key, key_position: Some(position), value: id });
                }
                Key::Merge(position) => merges.push((id, position)),
                Key::Refused => {}
                Key::Awaited => {
                    *key = Key::Refused;
                    self.problem("bad_key", at, "a key must be text", None);
                }
            },
        }
    }

    fn awaits_key(&self) -> bool {
        matches!(self.frames.last(), Some(Frame { body: Body::Object { key: Key::Awaited, .. }, .. }))
    }

    fn key_position(&self) -> Option<Position> {
        match self.frames.last() {
            Some(Frame { body: Body::Object { key: Key::Named(_, at) | Key::Merge(at), .. }, .. }) => {
                Some(*at)
            }
            _ => None,
        }
    }

    fn set_key(&mut self, next: Key) {
        if let Some(Frame { body: Body::Object { key, .. }, .. }) = self.frames.last_mut() {
            *key = next;
        }
    }

    fn name_key(&mut self, text: &str, at: Position, is_merge: bool) {
        let Some(Frame { body: Body::Object { seen, merges, .. }, .. }) = self.frames.last_mut() else {
            return;
        };
        let first = if is_merge {
            merges.first().map(|(_, first)| *first)
        } else {
            let first = seen.get(text).copied();
            if first.is_none() {
                seen.insert(text.to_owned(), at);
            }
            first
        };
        if let Some(first) = first {
            let message = format!("the key {} is given twice, first at line {}", shown(text), first.line);
            self.problem("duplicate_key", at, message, Some("keep one of the two"));
            self.set_key(Key::Refused);
        } else if is_merge {
            self.set_key(Key::Merge(at));
        } else {
            self.set_key(Key::Named(text.to_owned(), at));
        }
    }

    fn finish(self) -> Option<Tree> {
        let root = self.root?;
        let is_empty = matches!(self.nodes.get(root), Some(Node { content: Content::Null, .. }));
        (!is_empty).then(|| Tree::new(self.nodes, root))
    }
}

/// `!`, which says "not what it looks like, but plain text, list or mapping".
fn is_plain_tag(tag: &Tag) -> bool {
    tag.original() == "!"
}

type Refusal = (&'static str, &'static str, Option<&'static str>);

/// What a scalar means by its text, style and tag.
fn meaning(text: &str, style: ScalarStyle, tag: Option<&Tag>) -> Result<Content, Refusal> {
    let number = || scalar::number(text).map_err(|reason| ("bad_number", reason, QUOTE_IT));
    let Some(tag) = tag else {
        return match style {
            ScalarStyle::Plain => scalar::resolve(text).map_err(|reason| ("bad_number", reason, QUOTE_IT)),
            _ => Ok(Content::Text(text.to_owned())),
        };
    };
    if is_plain_tag(tag) {
        return Ok(Content::Text(text.to_owned()));
    }
    let mismatch = ("bad_tag", "the value is not what its tag says", Some("remove the tag"));
    match tag.core_suffix() {
        Some("str") => Ok(Content::Text(text.to_owned())),
        Some("int") => match number()? {
            Some(number) if !number.is_f64() => Ok(Content::Number(number)),
            _ => Err(mismatch),
        },
        Some("float") => number()?
            .and_then(|number| number.as_f64())
            .and_then(serde_json::Number::from_f64)
            .map(Content::Number)
            .ok_or(mismatch),
        Some("bool") => match scalar::resolve(text) {
            Ok(Content::Bool(value)) => Ok(Content::Bool(value)),
            _ => Err(mismatch),
        },
        Some("null") => match scalar::resolve(text) {
            Ok(Content::Null) => Ok(Content::Null),
            _ => Err(mismatch),
        },
        _ => Err(("bad_tag", "the tag is not supported here", Some("remove the tag"))),
    }
}

const QUOTE_IT: Option<&str> = Some("put it in quotes if it is meant as text");
