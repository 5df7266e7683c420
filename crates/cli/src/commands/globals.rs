//! The flags that every command takes.

use std::path::PathBuf;

use clap::{ArgAction, Args, ValueEnum};

use crate::output::Format;

const HEADING: &str = "Global flags";

// No doc comment: clap would show it as the summary of the whole program.
#[derive(Debug, Args)]
pub(crate) struct Globals {
    /// Configuration file; default recache.toml, if there is one
    /// [env: RECACHE_CONFIG]
    #[arg(long, global = true, value_name = "FILE", help_heading = HEADING)]
    pub(crate) config: Option<PathBuf>,

    /// Database: sqlite:PATH, sqlite::memory: or postgres://USER:PASSWORD@HOST/NAME
    /// [env: RECACHE_DATABASE]
    #[arg(long, global = true, value_name = "URL", help_heading = HEADING)]
    database: Option<String>,

    /// How data is printed; default table, for `run` json
    #[arg(short, long, global = true, value_name = "FORMAT", help_heading = HEADING)]
    pub(crate) output: Option<Format>,

    /// When colours are used; NO_COLOR turns them off
    #[arg(long, global = true, value_name = "WHEN", default_value = "auto", help_heading = HEADING)]
    pub(crate) color: Colour,

    /// Say nothing on stderr but errors
    #[arg(short, long, global = true, help_heading = HEADING, conflicts_with = "verbose")]
    pub(crate) quiet: bool,

    /// Log more on stderr; twice for even more
    #[arg(short, long, global = true, action = ArgAction::Count, help_heading = HEADING)]
    pub(crate) verbose: u8,
}

/// When colours are used.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Colour {
    /// On a terminal, unless NO_COLOR is set
    Auto,
    /// Always
    Always,
    /// Never
    Never,
}

impl Colour {
    /// Whether to use colours on a stream. `no_color` is the variable's value: set to anything but nothing, it means no.
    pub(crate) fn is_on(self, is_terminal: bool, no_color: Option<&str>) -> bool {
        match self {
            Self::Auto => is_terminal && no_color.is_none_or(str::is_empty),
            Self::Always => true,
            Self::Never => false,
        }
    }
}

impl Globals {
    /// Whether the command line itself names a database.
    pub(crate) fn has_database_flag(&self) -> bool {
        self.database.is_some()
    }

    /// The database that the command line names, if it does: who said so, and the URL. An empty variable says nothing.
    pub(crate) fn database<'a>(&'a self, variable: Option<&'a str>) -> Option<(&'static str, &'a str)> {
        match (&self.database, variable) {
            (Some(url), _) => Some(("--database", url)),
            (None, Some(url)) if !url.is_empty() => Some(("--database (RECACHE_DATABASE)", url)),
            (None, _) => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::Colour;

    #[test]
    fn colours_are_for_terminals_unless_somebody_says_otherwise() {
        for (colour, is_terminal, no_color, expected) in [
            (Colour::Auto, true, None, true),
            (Colour::Auto, true, Some(""), true),
            (Colour::Auto, true, Some("1"), false),
            (Colour::Auto, false, None, false),
            (Colour::Always, false, Some("1"), true),
            (Colour::Never, true, None, false),
        ] {
            assert_eq!(
                colour.is_on(is_terminal, no_color),
                expected,
                "{colour:?} {is_terminal} {no_color:?}"
            );
        }
    }
}
