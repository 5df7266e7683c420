//! What is wrong with a template: all of it at once, each with its place.

use std::fmt;

use super::limits::PROBLEMS_MAX;

/// A place in a source text, counted from 1; columns are characters, not bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Position {
    /// The line.
    pub line: u32,
    /// The character within the line.
    pub column: u32,
}

/// One thing that is wrong.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// Stable word for the kind of problem, such as `unknown_field`.
    pub code: &'static str,
    /// What is wrong, naming the thing and the values.
    pub message: String,
    /// Line, counted from 1; absent when the template was read from its canonical form.
    pub line: Option<u32>,
    /// Column in characters, counted from 1; absent when `line` is.
    pub column: Option<u32>,
    /// JSON pointer to the value, such as `/steps/2/retry/max_attempts`; empty for the whole document.
    pub path: String,
    /// What to do about it.
    pub suggestion: Option<String>,
}

/// All problems of one template, in the order of their places. Never empty when returned as an error.
///
/// Displayed one per line as `file:line:column: message (help: suggestion)`.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub struct Problems {
    file: String,
    items: Vec<Problem>,
    unlisted: usize,
}

impl Problems {
    /// An empty collection for `file`.
    pub(super) fn new(file: &str) -> Self {
        Self { file: file.to_owned(), items: Vec::new(), unlisted: 0 }
    }

    /// Adds one; beyond [`PROBLEMS_MAX`] it is only counted.
    pub(super) fn push(&mut self, problem: Problem) {
        if self.items.len() < PROBLEMS_MAX {
            self.items.push(problem);
        } else {
            self.unlisted += 1;
        }
    }

    /// `value` if nothing is wrong, otherwise the problems sorted by place.
    pub(super) fn into_result<T>(self, value: Option<T>) -> Result<T, Self> {
        match value {
            Some(value) if self.items.is_empty() => Ok(value),
            _ => Err(self.sorted()),
        }
    }

    /// The same, in the order of their places.
    pub(super) fn sorted(mut self) -> Self {
        self.items
            .sort_by_key(|problem| (problem.line.unwrap_or(u32::MAX), problem.column.unwrap_or(u32::MAX)));
        self
    }

    /// How many were found, listed or not.
    pub(super) fn count(&self) -> usize {
        self.items.len() + self.unlisted
    }

    /// Name of the file, as it was given.
    pub fn file(&self) -> &str {
        &self.file
    }

    /// The problems, at most [`PROBLEMS_MAX`] of them.
    pub fn items(&self) -> &[Problem] {
        &self.items
    }

    /// How many more were found but not listed.
    pub fn unlisted(&self) -> usize {
        self.unlisted
    }

    /// Whether nothing is wrong.
    pub fn is_empty(&self) -> bool {
        self.items.is_empty()
    }
}

impl fmt::Display for Problems {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, problem) in self.items.iter().enumerate() {
            if index > 0 {
                writeln!(out)?;
            }
            write!(out, "{}:", self.file)?;
            match (problem.line, problem.column) {
                (Some(line), Some(column)) => write!(out, "{line}:{column}:")?,
                _ if problem.path.is_empty() => {}
                _ => write!(out, "{}:", problem.path)?,
            }
            write!(out, " {}", problem.message)?;
            if let Some(suggestion) = &problem.suggestion {
                write!(out, " (help: {suggestion})")?;
            }
        }
        if self.unlisted > 0 {
            write!(out, "\n{}: and {} more", self.file, self.unlisted)?;
        }
        Ok(())
    }
}

/// Characters of somebody's text that a message repeats.
const SHOWN_CHARS_MAX: usize = 80;

/// Somebody's text as it may appear in a message: quoted, one line, no control characters, not endless.
pub(super) fn shown(text: &str) -> String {
    match text.char_indices().nth(SHOWN_CHARS_MAX) {
        None => format!("{text:?}"),
        Some((cut, _)) => format!("{:?}...", &text[..cut]),
    }
}

/// The way from the document's root to a value, rendered only when a problem needs it.
#[derive(Debug, Clone, Copy)]
pub(super) enum Path<'a> {
    Root,
    Field(&'a Path<'a>, &'a str),
    Item(&'a Path<'a>, usize),
}

impl Path<'_> {
    /// The JSON pointer.
    pub(super) fn pointer(&self) -> String {
        let mut segments = Vec::new();
        let mut at = self;
        loop {
            match at {
                Path::Root => break,
                Path::Field(parent, name) => {
                    segments.push(name.replace('~', "~0").replace('/', "~1"));
                    at = parent;
                }
                Path::Item(parent, index) => {
                    segments.push(index.to_string());
                    at = parent;
                }
            }
        }
        segments.iter().rev().fold(String::new(), |pointer, segment| pointer + "/" + segment)
    }
}
