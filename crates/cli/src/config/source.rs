//! The file's text, and the values in it with their places.

use std::ops::Range;
use std::sync::Arc;

use toml::de::{DeInteger, DeTable, DeValue};

use super::mask::mask_source;
use super::problem::{Place, Position, Problem, short};
use super::schema::{self, Zone};

/// A configuration file that was read.
pub(crate) struct SourceFile {
    /// Its name, as the user gave it.
    pub(super) name: Arc<str>,
    text: String,
    /// The text with its secrets hidden: the only one that may be shown. Offsets are the same in both.
    pub(super) shown: String,
}

impl std::fmt::Debug for SourceFile {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("SourceFile").field("name", &self.name).finish_non_exhaustive()
    }
}

/// A value as something outside wrote it: not yet what an option accepts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Raw {
    /// Text in quotes in the file.
    Quoted(String),
    /// Text from outside the file, which may stand for a number or a boolean too.
    Loose(String),
    /// A whole number.
    Whole(i128),
    /// `true` or `false`.
    Boolean(bool),
    /// Something that no option accepts, by name.
    Other(&'static str),
}

/// A known option that the file sets.
#[derive(Debug)]
pub(super) struct Entry {
    /// The option's path.
    pub(super) path: &'static str,
    /// Its value; variables in it are not yet filled in.
    pub(super) raw: Raw,
    /// Where the value stands.
    pub(super) position: Position,
}

impl SourceFile {
    /// Takes the text and prepares what may be shown of it.
    pub(super) fn new(name: &str, text: String) -> Self {
        let shown = mask_source(&text);
        Self { name: Arc::from(name), text, shown }
    }

    /// Every known option in the file; what is not known, or does not parse, becomes a problem.
    ///
    /// A file that does not parse gives its syntax errors and nothing else: the rest would be guesses.
    pub(super) fn entries(&self, problems: &mut Vec<Problem>) -> Vec<Entry> {
        let (table, errors) = DeTable::parse_recoverable(&self.text);
        if !errors.is_empty() {
            let mut last_line = 0;
            for error in &errors {
                let position = self.position(error.span().unwrap_or(0..0));
                // What follows on the same line is most often the same mistake again.
                if position.line == last_line {
                    continue;
                }
                last_line = position.line;
                problems.push(Problem {
                    zone: Zone::Core,
                    path: None,
                    message: format!("not TOML: {}", short(error.message())),
                    remedy: None,
                    place: Place::File(position),
                });
            }
            return Vec::new();
        }
        let mut entries = Vec::new();
        self.walk(table.get_ref(), "", &mut entries, problems);
        entries
    }

    fn walk(
        &self,
        table: &DeTable<'_>,
        section: &str,
        entries: &mut Vec<Entry>,
        problems: &mut Vec<Problem>,
    ) {
        for (key, value) in table {
            let name: &str = key.get_ref();
            let path = if section.is_empty() { name.to_owned() } else { format!("{section}.{name}") };
            // A dot inside a quoted key is part of the name, and no name of ours has one.
            let known = !name.contains('.');
            if let Some(option) = schema::option(&path).filter(|_| known) {
                let position = self.position(value.span());
                entries.push(Entry { path: option.path, raw: raw(value.get_ref()), position });
            } else if schema::is_section(&path) && known {
                match value.get_ref() {
                    DeValue::Table(inner) => self.walk(inner, &path, entries, problems),
                    other => problems.push(Problem {
                        zone: schema::zone(&path),
                        message: format!("`{path}` is a section, found {}", describe(&raw(other))),
                        remedy: Some(format!("write [{path}] on a line of its own, its options below it")),
                        place: Place::File(self.position(value.span())),
                        path: Some(path),
                    }),
                }
            } else {
                let is_table = value.get_ref().is_table();
                problems.push(unknown(section, name, is_table, Place::File(self.position(key.span()))));
            }
        }
    }

    /// Line and column of a span. A span that the parser got wrong is brought to the end of the text.
    fn position(&self, span: Range<usize>) -> Position {
        let start = self.text.floor_char_boundary(span.start);
        let end = self.text.floor_char_boundary(span.end).max(start);
        let before = &self.text[..start];
        let line_start = before.rfind('\n').map_or(0, |newline| newline + 1);
        Position {
            file: Arc::clone(&self.name),
            line: before.matches('\n').count() + 1,
            column: before[line_start..].chars().count() + 1,
            span: start..end,
        }
    }
}

/// The problem of a name that does not exist. `section` is where it stands, empty at the top of the file.
pub(super) fn unknown(section: &str, name: &str, is_table: bool, place: Place) -> Problem {
    let path = if section.is_empty() { name.to_owned() } else { format!("{section}.{name}") };
    let names = schema::names_in(section);
    let what = if is_table { "section" } else { "option" };
    let near = schema::nearest(name, names.iter().copied()).map(ToOwned::to_owned).or_else(|| {
        // Right name, wrong section.
        schema::options()
            .map(|option| option.path)
            .find(|known| known.rsplit('.').next() == Some(name))
            .map(ToOwned::to_owned)
    });
    let guess = near.map(|near| format!("did you mean `{near}`? ")).unwrap_or_default();
    let r#where = if section.is_empty() { "at the top".to_owned() } else { format!("in [{section}]") };
    Problem {
        zone: schema::zone(&path),
        message: format!("unknown {what} `{}`", short(&path)),
        remedy: Some(format!("{guess}allowed {where}: {}", names.join(", "), where = r#where)),
        path: Some(path),
        place,
    }
}

/// Reads text from outside the file as a number or a boolean, if it is one.
pub(super) fn scalar(text: &str) -> Option<Raw> {
    let value = DeValue::parse(text.trim()).ok()?;
    match raw(value.get_ref()) {
        scalar @ (Raw::Whole(_) | Raw::Boolean(_)) => Some(scalar),
        Raw::Quoted(_) | Raw::Loose(_) | Raw::Other(_) => None,
    }
}

/// What was found, as a phrase.
pub(super) fn describe(raw: &Raw) -> String {
    match raw {
        Raw::Quoted(text) | Raw::Loose(text) => format!("the text `{}`", short(text)),
        Raw::Whole(number) => format!("the number {number}"),
        Raw::Boolean(boolean) => format!("`{boolean}`"),
        Raw::Other(name) => (*name).to_owned(),
    }
}

fn raw(value: &DeValue<'_>) -> Raw {
    match value {
        DeValue::String(text) => Raw::Quoted(text.as_ref().to_owned()),
        DeValue::Integer(integer) => {
            whole(integer).map_or(Raw::Other("a number with too many digits"), Raw::Whole)
        }
        DeValue::Boolean(boolean) => Raw::Boolean(*boolean),
        DeValue::Float(_) => Raw::Other("a decimal number"),
        DeValue::Datetime(_) => Raw::Other("a date or time"),
        DeValue::Array(_) => Raw::Other("an array"),
        DeValue::Table(_) => Raw::Other("a table"),
    }
}

fn whole(integer: &DeInteger<'_>) -> Option<i128> {
    i128::from_str_radix(integer.as_str(), integer.radix()).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_count_characters_and_lines_count_from_one() {
        let source = SourceFile::new("x.toml", "a = 1\né = \"ü\" # x".to_owned());
        let at = |span: Range<usize>| source.position(span).to_string();
        assert_eq!(at(0..1), "x.toml:1:1");
        assert_eq!(at(6..8), "x.toml:2:1");
        assert_eq!(at(11..15), "x.toml:2:5");
        assert_eq!(at(900..901), "x.toml:2:12");
    }

    #[test]
    fn text_from_outside_may_be_a_number_or_a_boolean() {
        for (text, expected) in [
            ("8080", Some(Raw::Whole(8080))),
            (" 8_080 ", Some(Raw::Whole(8080))),
            ("0x10", Some(Raw::Whole(16))),
            ("-1", Some(Raw::Whole(-1))),
            ("true", Some(Raw::Boolean(true))),
            ("yes", None),
            ("1.5", None),
            ("", None),
            ("[1]", None),
            ("1 # one", None),
        ] {
            assert_eq!(scalar(text), expected, "{text}");
        }
    }
}
