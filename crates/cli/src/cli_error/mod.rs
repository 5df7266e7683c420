//! How the command says that something went wrong: what, where, how to mend it, and the exit code.

mod exit_status;

use std::io::{self, Write};

pub(crate) use exit_status::ExitStatus;

/// An error as the person at the terminal sees it.
///
/// `what` names the thing and its values, in lower case and without a full stop. Nothing in it may be secret: it
/// is printed as it stands, only control characters are made visible.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{what}")]
pub(crate) struct CliError {
    /// A stable code that can be looked up, such as `E-CONFIG`.
    pub(crate) code: &'static str,
    /// What happened.
    pub(crate) what: String,
    /// Where: a file with line and column, an address, a flag.
    pub(crate) place: Option<String>,
    /// What to do about it.
    pub(crate) remedy: Option<String>,
    /// What the process answers to its caller.
    pub(crate) exit: ExitStatus,
}

impl CliError {
    /// An error with neither place nor remedy yet.
    pub(crate) fn new(code: &'static str, exit: ExitStatus, what: impl Into<String>) -> Self {
        Self { code, what: what.into(), place: None, remedy: None, exit }
    }

    /// Says where it happened.
    pub(crate) fn at(mut self, place: impl Into<String>) -> Self {
        self.place = Some(place.into());
        self
    }

    /// Says how to mend it.
    pub(crate) fn help(mut self, remedy: impl Into<String>) -> Self {
        self.remedy = Some(remedy.into());
        self
    }

    /// Writes `error[CODE]: …` with its place and remedy below; meant for stderr.
    pub(crate) fn write(&self, out: &mut dyn Write) -> io::Result<()> {
        self.write_as("error", out)
    }

    /// Writes the same block as a warning: something is wrong, and the command goes on without it.
    pub(crate) fn write_warning(&self, out: &mut dyn Write) -> io::Result<()> {
        self.write_as("warning", out)
    }

    fn write_as(&self, severity: &str, out: &mut dyn Write) -> io::Result<()> {
        writeln!(out, "{severity}[{}]: {}", self.code, lines_below(&self.what))?;
        if let Some(place) = &self.place {
            writeln!(out, "  at {}", lines_below(place))?;
        }
        if let Some(remedy) = &self.remedy {
            writeln!(out, "  help: {}", lines_below(remedy))?;
        }
        Ok(())
    }
}

/// Indents the lines after the first, so that a block stays one block, and makes control characters visible, so
/// that a value from a file cannot move the cursor or change the terminal's colours.
fn lines_below(text: &str) -> String {
    let mut shown = String::with_capacity(text.len());
    for character in text.trim_end().chars() {
        match character {
            '\n' => shown.push_str("\n    "),
            _ if character.is_control() => shown.extend(character.escape_default()),
            _ => shown.push(character),
        }
    }
    shown
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(error: &CliError) -> String {
        let mut out = Vec::new();
        error.write(&mut out).unwrap();
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn error_is_shown_with_place_and_remedy() {
        let error = CliError::new("E-QUEUE-PAUSED", ExitStatus::Conflict, "queue `mail` is paused")
            .at("http://127.0.0.1:7878")
            .help("run `recache queue resume mail`");
        assert_eq!(
            shown(&error),
            "error[E-QUEUE-PAUSED]: queue `mail` is paused\n  at http://127.0.0.1:7878\n  help: run `recache queue resume mail`\n"
        );
        assert_eq!(error.to_string(), "queue `mail` is paused");
    }

    #[test]
    fn error_without_place_and_remedy_is_one_line() {
        let error = CliError::new("E-JOB", ExitStatus::NotFound, "no job `7`");
        assert_eq!(shown(&error), "error[E-JOB]: no job `7`\n");
    }

    #[test]
    fn warning_has_the_same_shape() {
        let mut out = Vec::new();
        CliError::new("E-CONFIG", ExitStatus::Failed, "odd").help("mend it").write_warning(&mut out).unwrap();
        assert_eq!(String::from_utf8(out).unwrap(), "warning[E-CONFIG]: odd\n  help: mend it\n");
    }

    #[test]
    fn control_characters_are_visible_and_further_lines_are_indented() {
        let error = CliError::new("E-X", ExitStatus::Failed, "one\ntwo \u{1b}[31mred\n");
        assert_eq!(shown(&error), "error[E-X]: one\n    two \\u{1b}[31mred\n");
    }
}
