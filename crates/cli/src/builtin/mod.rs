//! Handlers that come with the command: enough to try a template without writing code.
//!
//! | Name | Settings | Result |
//! |---|---|---|
//! | `echo` | any | `{"input": …, "results": {step: …}, "settings": …}` |
//! | `sleep` | `milliseconds` or `seconds` | `{"slept_ms": …}` |
//! | `fail` | `kind`, `message`, `times` | `{"attempt": …}` once it no longer fails |
//! | `http` | `url`, `method`, `headers`, `body`, `timeout_seconds` | `{"status": …, "headers": {…}, "body": …}` |
//! | `command` | `command`, `arguments`, `input`, `timeout_seconds` | `{"exit_code": 0, "output": …, "stderr": …}` |
//!
//! `command` is there only where the operator names programs that it may run.
//!
//! In a workflow the settings are the step's `handler.initialization`. For a job that stands alone they are its
//! input. A setting that a handler does not know is refused: before a run by [`check`], and again by the attempt, as a
//! permanent failure with code `invalid_settings`.

#[cfg(unix)]
mod command;
mod echo;
mod fail;
mod http;
mod settings;
mod sleep;

use std::sync::Arc;

use recache_model::template::SettingProblem;
use recache_worker::{Context, Failure, Handlers, RegisterError, Registered};
use serde_json::{Map, Value};

use crate::config::{Config, HandlersConfig};

/// The names of those that are always there, in order.
pub(crate) const NAMES: [&str; 4] = ["echo", "fail", "http", "sleep"];

/// The one that is there only when it may run something.
const COMMAND: &str = "command";

/// What only the operator decides, never a template.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Options {
    /// `http` may reach private, loopback, link-local and metadata addresses. Default false.
    pub(crate) allow_private_addresses: bool,
    /// What `command` may run, and whose requests `http` signs.
    pub(crate) handlers: Arc<HandlersConfig>,
}

impl Options {
    /// As configured.
    pub(crate) fn of(config: &Config) -> Self {
        Self {
            allow_private_addresses: config.outbound.allow_private_addresses,
            handlers: Arc::new(config.handlers.clone()),
        }
    }

    /// The names of all that are there.
    pub(crate) fn names(&self) -> Vec<&'static str> {
        let command = (!self.handlers.commands.is_empty()).then_some(COMMAND);
        command.into_iter().chain(NAMES).collect()
    }
}

/// All of them, ready to run.
pub(crate) fn handlers(options: Options) -> Result<Handlers, RegisterError> {
    let mut handlers = Handlers::new();
    #[cfg(unix)]
    if !options.handlers.commands.is_empty() {
        let command = command::Command::new(Arc::clone(&options.handlers));
        handlers.register(COMMAND, Registered::Job(Arc::new(command)))?;
    }
    handlers.job("echo", echo::run)?;
    handlers.job("fail", fail::run)?;
    handlers.register("http", Registered::Job(Arc::new(http::Http::new(options))))?;
    handlers.job("sleep", sleep::run)?;
    Ok(handlers)
}

/// Publishers whose payloads are made where the operator says, by URL.
pub(crate) fn publishers(handlers: &mut Handlers, options: &Options) -> Result<(), RegisterError> {
    for (name, url) in &options.handlers.publishers {
        let publisher = http::HttpPublisher::new(options.clone(), url.clone());
        handlers.register_publisher(name, Arc::new(publisher))?;
    }
    Ok(())
}

/// Those that touch nothing outside of the process.
pub(crate) fn safe_handlers() -> Result<Handlers, RegisterError> {
    let mut handlers = Handlers::new();
    handlers.job("echo", echo::run)?;
    handlers.job("fail", fail::run)?;
    handlers.job("sleep", sleep::run)?;
    Ok(handlers)
}

/// What a handler has against these settings. Nothing for a handler that is not built in.
pub(crate) fn check(handler: &str, settings: &Map<String, Value>, options: &Options) -> Vec<SettingProblem> {
    let found = match handler {
        #[cfg(unix)]
        COMMAND => command::check(settings, &options.handlers),
        "fail" => fail::read(settings).map(drop),
        "http" => http::check(settings, options),
        "sleep" => sleep::read(settings).map(drop),
        _ => Ok(()),
    };
    found.err().unwrap_or_default()
}

/// The settings of this attempt.
fn settings_of(context: &Context, input: &Value) -> Result<Map<String, Value>, Failure> {
    let facts = context.facts();
    let settings = if facts.step.is_some() { &facts.settings } else { input };
    match settings {
        Value::Object(settings) => Ok(settings.clone()),
        Value::Null => Ok(Map::new()),
        _ => Err(Failure::permanent("invalid_settings", "the settings must be an object")),
    }
}

/// The failure of an attempt whose settings are wrong.
fn invalid(problems: &[SettingProblem]) -> Failure {
    let said: Vec<String> = problems
        .iter()
        .map(|problem| match &problem.suggestion {
            Some(help) => format!("{} (help: {help})", problem.message),
            None => problem.message.clone(),
        })
        .collect();
    Failure::permanent("invalid_settings", said.join("; "))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_those_that_are_registered() {
        assert_eq!(handlers(Options::default()).unwrap().names(), NAMES);
        let commands = [("true".to_owned(), "/bin/true".into())].into();
        let allowed = HandlersConfig { commands, ..HandlersConfig::default() };
        let options = Options { handlers: Arc::new(allowed), ..Options::default() };
        let names = options.names();
        assert_eq!(handlers(options).unwrap().names(), names);
        assert_eq!(names, ["command", "echo", "fail", "http", "sleep"]);
    }

    #[test]
    fn unknown_setting_is_refused_with_the_known_ones() {
        for (handler, known) in [("fail", "kind, message, times"), ("sleep", "milliseconds, seconds")] {
            let settings = serde_json::json!({ "secs": 1, "milliseconds": 1 });
            let problems = check(handler, settings.as_object().unwrap(), &Options::default());
            let said = invalid(&problems).to_string();
            assert!(said.contains("has no setting \"secs\"") && said.contains(known), "{said}");
        }
    }

    #[test]
    fn whether_private_addresses_may_be_reached_is_no_setting() {
        let settings = serde_json::json!({ "url": "http://example.com/", "allow_private": true });
        let problems = check("http", settings.as_object().unwrap(), &Options::default());
        assert_eq!(problems[0].setting.as_deref(), Some("allow_private"));
    }
}
