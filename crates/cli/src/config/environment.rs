//! What the process was started with: variables, working directory, cores.

use std::collections::BTreeMap;
use std::num::NonZeroUsize;
use std::path::PathBuf;

/// The surroundings of the command. Given to everything that depends on them, so that tests are pure.
#[derive(Clone)]
pub(crate) struct Environment {
    /// The environment variables.
    pub(crate) variables: BTreeMap<String, String>,
    /// Where relative paths start.
    pub(crate) directory: PathBuf,
    /// How many threads can run at once.
    pub(crate) cores: NonZeroUsize,
}

impl Environment {
    /// The surroundings of this process. A variable whose name or value is no text is read as far as it is text.
    pub(crate) fn of_process() -> Self {
        let text = |value: std::ffi::OsString| value.to_string_lossy().into_owned();
        Self {
            variables: std::env::vars_os().map(|(name, value)| (text(name), text(value))).collect(),
            // A relative path is as good as an absolute one here; only the directory itself may be gone.
            directory: std::env::current_dir().unwrap_or_else(|_| PathBuf::from(".")),
            cores: std::thread::available_parallelism().unwrap_or(NonZeroUsize::MIN),
        }
    }

    /// The variable's value; `None` when it is not set. A variable that is set to nothing gives `Some("")`.
    pub(crate) fn variable(&self, name: &str) -> Option<&str> {
        self.variables.get(name).map(String::as_str)
    }
}

impl std::fmt::Debug for Environment {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // The variables hold secrets; their number is all that is safe to show.
        formatter
            .debug_struct("Environment")
            .field("variables", &self.variables.len())
            .field("directory", &self.directory)
            .field("cores", &self.cores)
            .finish()
    }
}
