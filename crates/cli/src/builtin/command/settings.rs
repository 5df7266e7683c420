//! The settings of a `command` step.

use std::path::PathBuf;
use std::time::Duration;

use recache_model::template::SettingProblem;
use recache_worker::Context;
use serde_json::{Map, Value, json};

use super::super::settings::Reader;
use crate::config::HandlersConfig;

/// Arguments of one call, and bytes of one of them.
const ARGUMENTS_MAX: usize = 256;
const ARGUMENT_BYTES_MAX: usize = 32 * 1024;
const TIMEOUT_DEFAULT: Duration = Duration::from_secs(60);

/// What to run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Call {
    pub(super) name: String,
    pub(super) program: PathBuf,
    pub(super) arguments: Vec<String>,
    input: Option<Value>,
    pub(super) timeout: Duration,
}

impl Call {
    /// What it finds on its standard input.
    pub(super) fn stdin(&self, context: &Context, input: &Value) -> Vec<u8> {
        match &self.input {
            Some(Value::String(text)) => text.clone().into_bytes(),
            Some(other) => other.to_string().into_bytes(),
            None => {
                let facts = context.facts();
                let known = json!({
                    "input": input, "results": facts.results, "item": facts.item, "signal": facts.signal,
                });
                known.to_string().into_bytes()
            }
        }
    }
}

/// Reads the settings.
pub(super) fn read(
    settings: &Map<String, Value>,
    config: &HandlersConfig,
) -> Result<Call, Vec<SettingProblem>> {
    let known = &["command", "arguments", "input", "timeout_seconds"];
    let mut reader = Reader::new("command", settings, known);
    let program = read_program(&mut reader, config);
    let arguments = read_arguments(&mut reader);
    let longest = Duration::from_secs(u64::from(config.command_seconds_max));
    let timeout = match reader.number("timeout_seconds", longest.as_secs_f64()) {
        None => TIMEOUT_DEFAULT.min(longest),
        Some(seconds) => Duration::try_from_secs_f64(seconds).unwrap_or_default(),
    };
    if timeout.is_zero() {
        reader.refuse("timeout_seconds", "it must be more than 0", None);
    }
    let input = reader.get("input").cloned();
    let call = program.zip(arguments).map(|((name, program), arguments)| Call {
        name,
        program,
        arguments,
        input,
        timeout,
    });
    reader.finish(call)
}

fn read_program(reader: &mut Reader<'_>, config: &HandlersConfig) -> Option<(String, PathBuf)> {
    let allowed: Vec<&str> = config.commands.keys().map(String::as_str).collect();
    let allowed = format!("the configuration allows {}", allowed.join(", "));
    if reader.get("command").is_none() {
        reader.refuse_all("lacks `command`", Some(&allowed));
        return None;
    }
    let name = reader.text("command")?;
    let found = config.commands.get(name);
    if found.is_none() {
        reader.refuse("command", "no such program may be run", Some(&allowed));
    }
    Some((name.to_owned(), found?.clone()))
}

fn read_arguments(reader: &mut Reader<'_>) -> Option<Vec<String>> {
    let Some(given) = reader.get("arguments") else { return Some(Vec::new()) };
    let texts = given.as_array().and_then(|given| {
        given.iter().map(|one| one.as_str().map(str::to_owned)).collect::<Option<Vec<String>>>()
    });
    // They may hold a secret, so they are never repeated.
    let Some(texts) = texts else {
        reader.refuse_unseen("arguments", "cannot use its `arguments`: they must be a list of texts", None);
        return None;
    };
    let is_long = texts.iter().any(|text| text.len() > ARGUMENT_BYTES_MAX);
    if is_long || texts.len() > ARGUMENTS_MAX {
        let bounds = format!("{ARGUMENTS_MAX} of {ARGUMENT_BYTES_MAX} bytes are the most");
        reader.refuse_unseen(
            "arguments",
            "cannot use its `arguments`: they are too many or too long",
            Some(&bounds),
        );
        return None;
    }
    if texts.iter().any(|text| text.contains('\0')) {
        reader.refuse_unseen("arguments", "cannot use its `arguments`: one holds a zero byte", None);
        return None;
    }
    Some(texts)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config() -> HandlersConfig {
        let commands = [("sort".to_owned(), PathBuf::from("/usr/bin/sort"))].into();
        HandlersConfig { commands, command_seconds_max: 30, ..HandlersConfig::default() }
    }

    fn told(settings: &Value) -> Result<Call, String> {
        read(settings.as_object().unwrap(), &config())
            .map_err(|problems| problems.into_iter().map(|one| one.message + "\n").collect())
    }

    #[test]
    fn settings_become_a_call() {
        let call =
            told(&json!({ "command": "sort", "arguments": ["-r", "; rm -rf /"], "timeout_seconds": 0.5 }))
                .unwrap();
        assert_eq!(call.program, PathBuf::from("/usr/bin/sort"));
        assert_eq!(call.arguments, ["-r", "; rm -rf /"]);
        assert_eq!(call.timeout, Duration::from_millis(500));
        assert_eq!(told(&json!({ "command": "sort" })).unwrap().timeout, Duration::from_secs(30));
    }

    #[test]
    fn nothing_runs_but_what_is_allowed_within_its_bounds() {
        for (settings, part) in [
            (json!({}), "lacks `command`"),
            (json!({ "command": "/usr/bin/sort" }), "no such program"),
            (json!({ "command": "../sort" }), "no such program"),
            (json!({ "command": "sort", "arguments": "-r hunter2" }), "a list of texts"),
            (json!({ "command": "sort", "arguments": ["hunter2", 1] }), "a list of texts"),
            (json!({ "command": "sort", "arguments": ["hunter2\u{0}"] }), "a zero byte"),
            (json!({ "command": "sort", "arguments": vec!["hunter2"; 257] }), "too many"),
            (json!({ "command": "sort", "timeout_seconds": 31 }), "from 0 to 30"),
            (json!({ "command": "sort", "timeout_seconds": 0 }), "more than 0"),
            (json!({ "command": "sort", "env": {} }), "no setting \"env\""),
        ] {
            let said = told(&settings).unwrap_err();
            assert!(said.contains(part) && !said.contains("hunter2"), "{settings}: {said}");
        }
    }
}
