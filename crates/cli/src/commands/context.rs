//! What a command works with: flags, configuration, and where its output goes.

use std::io::{self, IsTerminal as _, Write};
use std::sync::Arc;

use miette::Severity;
use recache_store::Store;
use serde::Serialize;
use tracing::level_filters::LevelFilter;
use tracing_subscriber::Layer as _;
use tracing_subscriber::filter::filter_fn;
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::util::SubscriberInitExt as _;

use super::database::Database;
use super::failure::{Failure, Result};
use super::globals::Globals;
use crate::cli_error::ExitStatus;
use crate::config::{self, Environment, Flag, Loaded, LogConfig, LogFormat, LogLevel, Style};
use crate::output::{self, Format, Table};
use crate::profiles::Profile;
use crate::telemetry::Spans;

/// What a command is given.
pub(crate) struct Context<'a> {
    /// The flags that every command takes.
    pub(crate) globals: Globals,
    /// What the process was started with.
    pub(crate) environment: Environment,
    /// The profile that was named, by a flag or by a variable, where the command asks servers.
    pub(crate) profile: Option<Profile>,
    /// For data (stdout).
    pub(crate) out: &'a mut dyn Write,
    /// For everything else (stderr).
    pub(crate) err: &'a mut dyn Write,
}

impl Context<'_> {
    /// The configuration: flags over environment over file over defaults. Problems are shown and stop the command; those
    /// of the cache's own sections are only warnings.
    pub(crate) fn load(&mut self) -> Result<Loaded> {
        let loaded = config::load_file(self.globals.config.as_deref(), &self.environment, &self.flags());
        if loaded.problems.is_empty() {
            if !self.globals.quiet {
                loaded.write_problems(self.style(), Severity::Warning, self.err)?;
            }
            Ok(loaded)
        } else {
            loaded.write_problems(self.style(), Severity::Warning, self.err)?;
            Err(Failure::Reported(ExitStatus::Failed))
        }
    }

    /// The database that the configuration names, and a log on stderr; not opened yet.
    pub(crate) fn database(&mut self) -> Result<Database> {
        let loaded = self.load()?;
        self.log();
        Ok(Database::configured(&loaded.config.database))
    }

    /// Opens the configured database, which must exist and have the schema that this program knows.
    pub(crate) async fn open(&mut self) -> Result<Arc<dyn Store>> {
        Ok(self.database()?.open_existing().await?)
    }

    /// Who gives the command: as told, or else the user's name on this machine.
    pub(crate) fn actor(&self, told: Option<&str>) -> String {
        let user = self.environment.variable("USER").filter(|user| !user.is_empty());
        told.or(user).unwrap_or("command line").to_owned()
    }

    /// The options that flags set.
    pub(crate) fn flags(&self) -> Vec<Flag> {
        let database = self.globals.database(self.environment.variable("RECACHE_DATABASE"));
        let flag = |(name, value): (&str, &str)| Flag {
            name: name.to_owned(),
            path: "database.url".to_owned(),
            value: value.to_owned(),
        };
        database.map(flag).into_iter().collect()
    }

    /// How problems with the configuration are drawn.
    pub(crate) fn style(&self) -> Style {
        const WIDTH: usize = 100;
        if io::stderr().is_terminal() {
            Style::Terminal { width: WIDTH, colour: self.colour(true) }
        } else {
            Style::Plain
        }
    }

    fn colour(&self, is_terminal: bool) -> bool {
        self.globals.color.is_on(is_terminal, self.environment.variable("NO_COLOR"))
    }

    /// Lets the crates below log to stderr, for commands that are over soon: what is odd, or more with `-v`.
    pub(crate) fn log(&self) {
        self.log_at(self.asked_level().unwrap_or(LevelFilter::WARN), LogFormat::Text);
    }

    /// The same for one that says itself what is odd: only errors, or more with `-v`.
    pub(crate) fn log_errors(&self) {
        self.log_at(self.asked_level().unwrap_or(LevelFilter::ERROR), LogFormat::Text);
    }

    /// The same for one that runs on: `[log]` says how much and in which form; `-q` and `-v` stand above its level.
    pub(crate) fn log_as_configured(&self, config: &LogConfig, spans: Option<Spans>) {
        let level = match config.level {
            LogLevel::Error => LevelFilter::ERROR,
            LogLevel::Warn => LevelFilter::WARN,
            LogLevel::Info => LevelFilter::INFO,
            LogLevel::Debug => LevelFilter::DEBUG,
            LogLevel::Trace => LevelFilter::TRACE,
        };
        self.log_to(self.asked_level().unwrap_or(level), config.format, spans);
    }

    fn asked_level(&self) -> Option<LevelFilter> {
        match (self.globals.quiet, self.globals.verbose) {
            (true, _) => Some(LevelFilter::ERROR),
            (false, 0) => None,
            (false, 1) => Some(LevelFilter::INFO),
            (false, _) => Some(LevelFilter::DEBUG),
        }
    }

    fn log_at(&self, level: LevelFilter, format: LogFormat) {
        self.log_to(level, format, None);
    }

    /// `spans` hear what they want to hear, whatever the level of the log.
    fn log_to(&self, level: LevelFilter, format: LogFormat, spans: Option<Spans>) {
        let log = tracing_subscriber::fmt::layer()
            .with_writer(io::stderr)
            .with_ansi(self.colour(io::stderr().is_terminal()));
        let log = match format {
            LogFormat::Text => log.with_filter(level).boxed(),
            LogFormat::Json => log.json().with_filter(level).boxed(),
        };
        let spans = spans.map(|spans| spans.with_filter(filter_fn(Spans::is_told)));
        // A second one is not needed: the first stays.
        let _ = tracing_subscriber::registry().with(log).with(spans).try_init();
    }

    /// An empty table with these columns.
    pub(crate) fn table<const N: usize>(&self, header: [&'static str; N]) -> Table {
        Table::new(header, output::terminal_width(), self.colour(io::stdout().is_terminal()))
    }

    /// How data is printed.
    pub(crate) fn format(&self) -> Format {
        self.globals.output.unwrap_or(Format::Table)
    }

    /// Prints one document, over several lines or on one.
    pub(crate) fn print<T: Serialize>(&mut self, document: &T) -> Result<()> {
        let text = match self.format() {
            Format::Jsonl => serde_json::to_string(document),
            Format::Json | Format::Table => serde_json::to_string_pretty(document),
        };
        writeln!(self.out, "{}", text.map_err(io::Error::from)?)?;
        Ok(())
    }

    /// Prints each element of a list on a line of its own.
    pub(crate) fn print_lines<T: Serialize>(&mut self, elements: &[T]) -> Result<()> {
        let mut text = String::new();
        for element in elements {
            text.push_str(&serde_json::to_string(element).map_err(io::Error::from)?);
            text.push('\n');
        }
        self.out.write_all(text.as_bytes())?;
        Ok(())
    }

    /// Prints text for people.
    pub(crate) fn print_text(&mut self, text: &str) -> Result<()> {
        self.out.write_all(text.as_bytes())?;
        Ok(())
    }

    /// Says something beside the data, unless asked to be quiet.
    pub(crate) fn note(&mut self, text: &str) -> Result<()> {
        if !self.globals.quiet {
            writeln!(self.err, "{text}")?;
        }
        Ok(())
    }
}
