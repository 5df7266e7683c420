//! Reads a handler's settings and collects everything that is wrong with them.

use recache_model::template::SettingProblem;
use serde_json::{Map, Value};

/// Walks the settings of one handler.
#[derive(Debug)]
pub(super) struct Reader<'a> {
    handler: &'static str,
    settings: &'a Map<String, Value>,
    problems: Vec<SettingProblem>,
}

impl<'a> Reader<'a> {
    /// Refuses at once whatever is not `known`.
    pub(super) fn new(
        handler: &'static str,
        settings: &'a Map<String, Value>,
        known: &'static [&'static str],
    ) -> Self {
        let mut reader = Self { handler, settings, problems: Vec::new() };
        for name in settings.keys().filter(|name| !known.contains(&name.as_str())) {
            let near = known
                .iter()
                .map(|candidate| (strsim::osa_distance(candidate, name), candidate))
                .filter(|(distance, _)| *distance <= name.len().div_ceil(3).min(4))
                .min();
            let guess = near.map(|(_, near)| format!("did you mean `{near}`? ")).unwrap_or_default();
            reader.problems.push(SettingProblem {
                setting: Some(name.clone()),
                message: format!("handler `{handler}` has no setting {name:?}"),
                suggestion: Some(format!("{guess}it knows {}", known.join(", "))),
            });
        }
        reader
    }

    /// A setting that was given; null counts as not given.
    pub(super) fn get(&self, name: &str) -> Option<&'a Value> {
        self.settings.get(name).filter(|value| !value.is_null())
    }

    /// Records a problem with one setting.
    pub(super) fn refuse(&mut self, name: &str, why: &str, help: Option<&str>) {
        let message = match self.get(name) {
            Some(value) => format!("`{name}` of handler `{}` is {}: {why}", self.handler, shown(value)),
            None => format!("`{name}` of handler `{}`: {why}", self.handler),
        };
        self.problems.push(SettingProblem {
            setting: Some(name.to_owned()),
            message,
            suggestion: help.map(str::to_owned),
        });
    }

    /// Records a problem with one setting whose value may be a secret and is not repeated.
    pub(super) fn refuse_unseen(&mut self, name: &str, why: &str, help: Option<&str>) {
        self.problems.push(SettingProblem {
            setting: Some(name.to_owned()),
            message: format!("handler `{}` {why}", self.handler),
            suggestion: help.map(str::to_owned),
        });
    }

    /// Records a problem with what is not there, or does not go together.
    pub(super) fn refuse_all(&mut self, why: &str, help: Option<&str>) {
        self.problems.push(SettingProblem {
            setting: None,
            message: format!("handler `{}` {why}", self.handler),
            suggestion: help.map(str::to_owned),
        });
    }

    /// Text.
    pub(super) fn text(&mut self, name: &str) -> Option<&'a str> {
        let value = self.get(name)?;
        let text = value.as_str();
        if text.is_none() {
            self.refuse(name, "it must be text", None);
        }
        text
    }

    /// A whole number from 0 to `max`.
    pub(super) fn whole(&mut self, name: &str, max: u64) -> Option<u64> {
        let number = self.get(name)?.as_u64().filter(|number| *number <= max);
        if number.is_none() {
            self.refuse(name, &format!("it must be a whole number from 0 to {max}"), None);
        }
        number
    }

    /// A number from 0 to `max`.
    pub(super) fn number(&mut self, name: &str, max: f64) -> Option<f64> {
        let number = self.get(name)?.as_f64().filter(|number| (0.0..=max).contains(number));
        if number.is_none() {
            self.refuse(name, &format!("it must be a number from 0 to {max}"), None);
        }
        number
    }

    /// What was read, if nothing was refused. `None` must not come without a problem.
    pub(super) fn finish<T>(self, read: Option<T>) -> Result<T, Vec<SettingProblem>> {
        match read {
            Some(read) if self.problems.is_empty() => Ok(read),
            _ => Err(self.problems),
        }
    }
}

/// A value as it may appear in a message: one line, not endless.
fn shown(value: &Value) -> String {
    const CHARACTERS_MAX: usize = 60;
    let text = value.to_string();
    match text.char_indices().nth(CHARACTERS_MAX) {
        None => text,
        Some((cut, _)) => format!("{}…", &text[..cut]),
    }
}
