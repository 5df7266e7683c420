//! The configuration as a user meets it: files, variables and flags in; values, reports and exit codes out.

mod bad_files;
mod layers;
mod secrets;
mod whole_file;

use std::collections::BTreeMap;
use std::num::NonZeroUsize;

use super::command::{CheckArgs, ExplainArgs, check, explain};
use super::{Config, Environment, Flag, Loaded, Output, Style, load, load_file, source};
use crate::cli_error::ExitStatus;

/// What a command answered.
#[derive(Debug)]
struct Answer {
    exit: ExitStatus,
    out: String,
    err: String,
}

/// A working directory of its own, with variables and flags.
struct Scene {
    directory: tempfile::TempDir,
    environment: Environment,
    flags: Vec<Flag>,
}

impl Scene {
    fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let environment = Environment {
            variables: BTreeMap::new(),
            directory: directory.path().to_path_buf(),
            cores: NonZeroUsize::new(4).unwrap(),
        };
        Self { directory, environment, flags: Vec::new() }
    }

    fn file(self, text: &str) -> Self {
        self.file_named("recache.toml", text)
    }

    fn file_named(self, name: &str, text: &str) -> Self {
        std::fs::write(self.directory.path().join(name), text).unwrap();
        self
    }

    fn variable(mut self, name: &str, value: &str) -> Self {
        self.environment.variables.insert(name.to_owned(), value.to_owned());
        self
    }

    fn flag(mut self, name: &str, path: &str, value: &str) -> Self {
        self.flags.push(Flag { name: name.to_owned(), path: path.to_owned(), value: value.to_owned() });
        self
    }

    fn load(&self) -> Loaded {
        load_file(None, &self.environment, &self.flags)
    }

    /// The configuration, when nothing is wrong with it.
    fn config(&self) -> Config {
        let loaded = self.load();
        assert!(loaded.is_clean(), "{:#?} {:#?}", loaded.problems, loaded.warnings);
        loaded.config
    }

    fn check(&self) -> Answer {
        self.check_with(None, Style::Plain)
    }

    fn check_with(&self, config: Option<&str>, style: Style) -> Answer {
        let args = CheckArgs { config: config.map(Into::into), flags: self.flags.clone(), style };
        answer(|out, err| check(&args, &self.environment, out, err).unwrap())
    }

    fn explain(&self, output: Output, key: Option<&str>) -> Answer {
        let args = ExplainArgs {
            config: None,
            flags: self.flags.clone(),
            style: Style::Plain,
            output,
            key: key.map(ToOwned::to_owned),
        };
        answer(|out, err| explain(&args, &self.environment, out, err).unwrap())
    }
}

fn answer(run: impl FnOnce(&mut Vec<u8>, &mut Vec<u8>) -> ExitStatus) -> Answer {
    let (mut out, mut err) = (Vec::new(), Vec::new());
    let exit = run(&mut out, &mut err);
    Answer { exit, out: String::from_utf8(out).unwrap(), err: String::from_utf8(err).unwrap() }
}

/// The messages of what stops a start, and of what only stops the cache.
fn messages(loaded: &Loaded) -> (Vec<&str>, Vec<&str>) {
    (
        loaded.problems.iter().map(|problem| problem.message.as_str()).collect(),
        loaded.warnings.iter().map(|problem| problem.message.as_str()).collect(),
    )
}

/// Loads from a text without any surroundings.
fn load_text(text: &str) -> Loaded {
    let environment = Environment {
        variables: BTreeMap::new(),
        directory: "/nowhere".into(),
        cores: NonZeroUsize::new(4).unwrap(),
    };
    load::load(Some(source::SourceFile::new("recache.toml", text.to_owned())), &environment, &[])
}
