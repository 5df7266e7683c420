//! One thing that is wrong with the configuration, and how it is shown.

use std::fmt;
use std::io::{self, Write};
use std::ops::Range;
use std::sync::Arc;

use miette::{
    Diagnostic, GraphicalReportHandler, GraphicalTheme, LabeledSpan, NamedSource, Severity, SourceCode,
};

use super::schema::Zone;
use super::source::SourceFile;
use crate::cli_error::{CliError, ExitStatus};

/// The code of every problem with the configuration.
pub(super) const CODE: &str = "E-CONFIG";

/// A place in the file. Line and column count from 1, the column in characters.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Position {
    /// The file's name, as the user gave it.
    pub(crate) file: Arc<str>,
    /// The line.
    pub(crate) line: usize,
    /// The column.
    pub(crate) column: usize,
    /// The bytes of the text that are meant.
    pub(crate) span: Range<usize>,
}

impl fmt::Display for Position {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}:{}:{}", self.file, self.line, self.column)
    }
}

/// Where a value comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Place {
    /// A place in the file.
    File(Position),
    /// The file as a whole: it cannot be read.
    WholeFile(Arc<str>),
    /// An environment variable.
    Environment(String),
    /// A flag of the command line.
    Flag(String),
}

/// One thing that is wrong: where, what, and what to do. Holds no secret.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub(crate) struct Problem {
    /// Whom it stops.
    pub(crate) zone: Zone,
    /// The option or section, when it is about one.
    pub(crate) path: Option<String>,
    /// What is wrong, in one line.
    pub(crate) message: String,
    /// What to do about it.
    pub(crate) remedy: Option<String>,
    /// Where.
    pub(crate) place: Place,
}

impl Problem {
    /// The message; a value that has no place in the file says where it comes from.
    fn what(&self) -> String {
        match &self.place {
            Place::Environment(name) => format!("{}, from environment variable {name}", self.message),
            Place::Flag(name) => format!("{}, from flag {name}", self.message),
            Place::File(_) | Place::WholeFile(_) => self.message.clone(),
        }
    }

    /// As the command's own error.
    pub(crate) fn to_error(&self) -> CliError {
        let error = CliError::new(CODE, ExitStatus::Failed, self.what());
        let error = match &self.place {
            Place::File(position) => error.at(position.to_string()),
            Place::WholeFile(file) => error.at(file.as_ref()),
            Place::Environment(_) | Place::Flag(_) => error,
        };
        match &self.remedy {
            Some(remedy) => error.help(remedy.as_str()),
            None => error,
        }
    }

    /// File first, from top to bottom; then the environment; then flags.
    pub(super) fn order(&self) -> (u8, usize) {
        match &self.place {
            Place::WholeFile(_) => (0, 0),
            Place::File(position) => (1, position.span.start),
            Place::Environment(_) => (2, 0),
            Place::Flag(_) => (3, 0),
        }
    }
}

/// How reports are drawn.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Style {
    /// Lines that a program can read: `error[E-CONFIG]: …`, `  at file:line:column`, `  help: …`.
    Plain,
    /// For a terminal: the lines of the file with a caret, in colour when wanted.
    Terminal {
        /// How many characters fit on a line.
        width: usize,
        /// Whether colours may be used.
        colour: bool,
    },
}

/// The most problems that are shown; a file that is wrong from end to end would hide the first ones.
const SHOWN_MAX: usize = 50;

/// Shows the problems, as errors or as warnings, on `out` (stderr).
pub(super) fn write_all(
    problems: &[Problem],
    severity: Severity,
    source: Option<&SourceFile>,
    style: Style,
    out: &mut dyn Write,
) -> io::Result<()> {
    for problem in problems.iter().take(SHOWN_MAX) {
        match style {
            Style::Plain if severity == Severity::Error => problem.to_error().write(out)?,
            Style::Plain => problem.to_error().write_warning(out)?,
            Style::Terminal { width, colour } => {
                let report = Report::new(problem, severity, source);
                let theme =
                    if colour { GraphicalTheme::unicode() } else { GraphicalTheme::unicode_nocolor() };
                let mut shown = String::new();
                GraphicalReportHandler::new_themed(theme)
                    .with_width(width)
                    .with_links(false)
                    .render_report(&mut shown, &report)
                    .map_err(io::Error::other)?;
                writeln!(out, "{}", shown.trim_end())?;
            }
        }
    }
    if problems.len() > SHOWN_MAX {
        writeln!(out, "and {} more", problems.len() - SHOWN_MAX)?;
    }
    Ok(())
}

/// A value for a message: one line, no control characters, not too long.
pub(super) fn short(text: &str) -> String {
    const CHARACTERS_MAX: usize = 60;
    let masked = super::mask::mask(text);
    let mut shown: String = masked.chars().take(CHARACTERS_MAX).flat_map(visible).collect();
    if masked.chars().nth(CHARACTERS_MAX).is_some() {
        shown.push('…');
    }
    shown
}

fn visible(character: char) -> Box<dyn Iterator<Item = char>> {
    if character.is_control() {
        Box::new(character.escape_default())
    } else {
        Box::new(std::iter::once(character))
    }
}

/// A problem together with the text that it points into, as the drawing library wants it.
#[derive(Debug)]
struct Report {
    what: String,
    remedy: Option<String>,
    severity: Severity,
    source: Option<NamedSource<String>>,
    span: Option<Range<usize>>,
}

impl Report {
    fn new(problem: &Problem, severity: Severity, source: Option<&SourceFile>) -> Self {
        let (source, span) = match (&problem.place, source) {
            (Place::File(position), Some(source)) => (
                Some(NamedSource::new(source.name.as_ref(), source.shown.clone())),
                Some(position.span.clone()),
            ),
            _ => (None, None),
        };
        let what = match &problem.place {
            Place::WholeFile(file) => format!("{file}: {}", problem.what()),
            _ => problem.what(),
        };
        Self { what, remedy: problem.remedy.clone(), severity, source, span }
    }
}

impl fmt::Display for Report {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.what)
    }
}

impl std::error::Error for Report {}

impl Diagnostic for Report {
    fn code<'a>(&'a self) -> Option<Box<dyn fmt::Display + 'a>> {
        Some(Box::new(CODE))
    }

    fn severity(&self) -> Option<Severity> {
        Some(self.severity)
    }

    fn help<'a>(&'a self) -> Option<Box<dyn fmt::Display + 'a>> {
        self.remedy.as_ref().map(|remedy| -> Box<dyn fmt::Display + 'a> { Box::new(remedy) })
    }

    fn source_code(&self) -> Option<&dyn SourceCode> {
        self.source.as_ref().map(|source| -> &dyn SourceCode { source })
    }

    fn labels(&self) -> Option<Box<dyn Iterator<Item = LabeledSpan> + '_>> {
        let span = self.span.clone()?;
        Some(Box::new(std::iter::once(LabeledSpan::new(None, span.start, span.len()))))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_in_messages_are_short_visible_and_masked() {
        assert_eq!(short("a\nb\u{1b}[31m"), "a\\nb\\u{1b}[31m");
        assert_eq!(short("redis://:hunter2@h"), "redis://:***@h");
        assert_eq!(short(&"x".repeat(61)), format!("{}…", "x".repeat(60)));
        assert_eq!(short(&"é".repeat(60)), "é".repeat(60));
    }
}
