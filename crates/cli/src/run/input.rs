//! The template's file and the workflow's input: read, bounded, checked.

use std::fmt;
use std::fs::File;
use std::io::{self, ErrorKind, Read};
use std::path::Path;

use recache_model::template::limits::SOURCE_BYTES_MAX;
use recache_model::template::{Problems, SettingProblem, Template};
use serde::de::{DeserializeSeed, Error as _, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Number, Value};

use super::stand_in::StandIns;
use crate::builtin;
use crate::cli_error::{CliError, ExitStatus};

/// Largest input, in bytes.
const INPUT_BYTES_MAX: usize = 4 * 1024 * 1024;
/// Problems of one template that are shown.
pub(super) const PROBLEMS_SHOWN_MAX: usize = 50;

/// A template as it was written, and as it is in the environment that was asked for.
pub(super) struct Chosen {
    pub(super) written: Template,
    pub(super) effective: Template,
}

/// Reads a template and checks all of it: handlers and their settings in the environment that was asked for, too, and
/// whether this version runs all that it asks for.
pub(super) fn read_template(
    path: &Path,
    environment: Option<&str>,
    options: &builtin::Options,
    stand_ins: &StandIns,
) -> Result<Chosen, Vec<CliError>> {
    let (name, source) = read_source(path).map_err(|error| vec![error])?;
    let written = Template::parse(&source, &name).map_err(|problems| told(&problems))?;
    let effective = match environment {
        Some(environment) => written.for_environment(environment).map_err(|problems| {
            told(&problems).into_iter().map(|error| error.at("--environment")).collect::<Vec<_>>()
        })?,
        None => written.clone(),
    };
    let mut errors = told(&written.unsupported());
    if !stand_ins.is_dry()
        && let Err(problems) = effective.check_publishers(&[])
    {
        let help = "this command has no publishers: leave `publisher` out, do a dry run (--results, --handler), which asks none, or submit \
                    the template to a server whose `handlers.publishers` names it";
        errors.extend(told(&problems).into_iter().map(|error| error.help(help)));
    }
    if stand_ins.is_dry() {
        errors.extend(stand_ins.check(&effective));
    } else if let Err(problems) = effective.check_handlers(&options.names()) {
        for mut error in told(&problems) {
            let built_in = format!("this command has {}", options.names().join(", "));
            error.remedy = Some(match error.remedy {
                Some(guess) => format!("{guess} {built_in}"),
                None => built_in,
            });
            errors.push(error);
        }
    }
    let checked = effective.check_settings(|step| {
        let Some(handler) = &step.handler else { return Vec::new() };
        let Some(name) = stand_ins.built_in(step) else { return Vec::new() };
        let mut problems = builtin::check(name, &handler.initialization, options);
        if let (Some(method), false) = (&handler.method, stand_ins.is_dry()) {
            problems.push(SettingProblem {
                setting: None,
                message: format!("handler `{name}` is built in and has no method `{method}`"),
                suggestion: Some("leave `method` out".to_owned()),
            });
        }
        problems
    });
    if let Err(problems) = checked {
        errors.extend(told(&problems));
    }
    if errors.is_empty() { Ok(Chosen { written, effective }) } else { Err(errors) }
}

/// Reads the text of a template, from standard input if the path is `-`; with the name to call it by.
pub(crate) fn read_source(path: &Path) -> Result<(String, String), CliError> {
    read_text_of(path, "template", SOURCE_BYTES_MAX)
}

/// The same of any text.
pub(super) fn read_text_of(path: &Path, what: &str, bytes_max: usize) -> Result<(String, String), CliError> {
    let name = path.display().to_string();
    if name == "-" {
        let name = "standard input".to_owned();
        let text = read_text(io::stdin().lock(), &name, what, bytes_max)?;
        return Ok((name, text));
    }
    let text = read_file(path, what, bytes_max)?;
    Ok((name, text))
}

/// A template's problems, each as an error with its place.
pub(crate) fn told(problems: &Problems) -> Vec<CliError> {
    let mut errors: Vec<CliError> = problems
        .items()
        .iter()
        .take(PROBLEMS_SHOWN_MAX)
        .map(|problem| {
            let place = match (problem.line, problem.column) {
                (Some(line), Some(column)) => format!("{}:{line}:{column}", problems.file()),
                _ => format!("{}{}", problems.file(), problem.path),
            };
            let error = CliError::new("E-TEMPLATE", ExitStatus::Failed, problem.message.clone()).at(place);
            match &problem.suggestion {
                Some(suggestion) => error.help(suggestion.clone()),
                None => error,
            }
        })
        .collect();
    let hidden = problems.items().len().saturating_sub(PROBLEMS_SHOWN_MAX) + problems.unlisted();
    if hidden > 0 {
        let what = format!("and {hidden} more problems");
        errors.push(CliError::new("E-TEMPLATE", ExitStatus::Failed, what).at(problems.file()));
    }
    errors
}

/// Reads the workflow's input: `{}` unless told otherwise.
pub(crate) fn read_input(given: Option<&str>) -> Result<Value, CliError> {
    let (text, place, exit) = match given {
        None => return Ok(Value::Object(Map::new())),
        Some("-") => {
            let text = read_text(io::stdin().lock(), "standard input", "input", INPUT_BYTES_MAX)?;
            (text, "standard input".to_owned(), ExitStatus::Failed)
        }
        Some(given) => match given.strip_prefix('@') {
            Some(path) => {
                let text = read_file(Path::new(path), "input", INPUT_BYTES_MAX)?;
                (text, path.to_owned(), ExitStatus::Failed)
            }
            None => (given.to_owned(), "--input".to_owned(), ExitStatus::Usage),
        },
    };
    parse_json(&text).map_err(|error| {
        let cause = error.to_string();
        let (line, column) = (error.line(), error.column());
        let cause = cause.strip_suffix(&format!(" at line {line} column {column}")).unwrap_or(&cause);
        let help = match exit {
            ExitStatus::Usage => {
                "quote it for the shell, such as --input '{\"name\": \"value\"}', or name a file: --input @input.json"
            }
            _ => "it must hold one JSON value, such as {\"name\": \"value\"}",
        };
        CliError::new("E-INPUT", exit, format!("the input is not JSON: {cause}"))
            .at(format!("{place}:{line}:{column}"))
            .help(help)
    })
}

/// Reads a file that holds one JSON value.
pub(super) fn read_json_file(path: &Path, what: &str) -> Result<Value, CliError> {
    let text = read_file(path, what, INPUT_BYTES_MAX)?;
    parse_json(&text).map_err(|error| {
        CliError::new("E-DRY-RUN", ExitStatus::Failed, format!("the {what} are no JSON: {error}"))
            .at(path.display().to_string())
    })
}

/// Everything in which the input does not fit the template's `input_schema`.
pub(super) fn check(template: &Template, input: &Value) -> Vec<CliError> {
    let Err(mismatches) = template.check_input(input) else { return Vec::new() };
    let error = |what: String| CliError::new("E-INPUT", ExitStatus::Failed, what);
    let mut errors: Vec<CliError> = mismatches
        .items()
        .iter()
        .take(PROBLEMS_SHOWN_MAX)
        .map(|mismatch| {
            let place = if mismatch.path.is_empty() { "the whole input" } else { &mismatch.path };
            error(format!("the input does not fit the template's `input_schema`: {}", mismatch.message))
                .at(place)
        })
        .collect();
    if mismatches.has_more() || mismatches.items().len() > PROBLEMS_SHOWN_MAX {
        errors.push(error("and more".to_owned()));
    }
    errors
}

/// Reads a file of text.
fn read_file(path: &Path, what: &str, bytes_max: usize) -> Result<String, CliError> {
    let name = path.display().to_string();
    let unreadable = |error: &io::Error| {
        let (exit, help) = match error.kind() {
            ErrorKind::NotFound => {
                (ExitStatus::NotFound, "check the path; it starts from the working directory")
            }
            _ => (ExitStatus::Failed, "check that it is a file, and that you may read it"),
        };
        CliError::new("E-FILE", exit, format!("cannot read the {what}: {error}")).at(name.clone()).help(help)
    };
    let file = File::open(path).map_err(|error| unreadable(&error))?;
    if file.metadata().is_ok_and(|metadata| metadata.is_dir()) {
        return Err(unreadable(&io::Error::new(ErrorKind::IsADirectory, "it is a directory")));
    }
    read_text(file, &name, what, bytes_max)
}

fn read_text(source: impl Read, name: &str, what: &str, bytes_max: usize) -> Result<String, CliError> {
    let error = |what: String| CliError::new("E-FILE", ExitStatus::Failed, what);
    let mut bytes = Vec::new();
    let limit = u64::try_from(bytes_max).unwrap_or(u64::MAX).saturating_add(1);
    source.take(limit).read_to_end(&mut bytes).map_err(|cause| {
        error(format!("cannot read the {what}: {cause}")).at(name).help("check that you may read it")
    })?;
    if bytes.len() > bytes_max {
        return Err(error(format!("the {what} is larger than {bytes_max} bytes"))
            .at(name)
            .help("keep large data elsewhere and name it in the input"));
    }
    String::from_utf8(bytes).map_err(|cause| {
        let valid = &cause.as_bytes()[..cause.utf8_error().valid_up_to()];
        let byte = cause.as_bytes().get(valid.len()).copied().unwrap_or_default();
        let before = String::from_utf8_lossy(valid);
        let line = before.matches('\n').count() + 1;
        let column = before.rsplit('\n').next().unwrap_or_default().chars().count() + 1;
        error(format!("the {what} is not UTF-8 text: found the byte 0x{byte:02x}"))
            .at(format!("{name}:{line}:{column}"))
            .help("save it as UTF-8")
    })
}

/// Reads JSON in which no object has a key twice: which of the two was meant nobody can know.
pub(super) fn parse_json(text: &str) -> Result<Value, serde_json::Error> {
    let mut reader = serde_json::Deserializer::from_str(text);
    let value = Strict.deserialize(&mut reader)?;
    reader.end()?;
    Ok(value)
}

#[derive(Clone, Copy)]
struct Strict;

impl<'de> DeserializeSeed<'de> for Strict {
    type Value = Value;

    fn deserialize<D: serde::Deserializer<'de>>(self, from: D) -> Result<Value, D::Error> {
        from.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Strict {
    type Value = Value;

    fn expecting(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str("a JSON value")
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_bool<E>(self, value: bool) -> Result<Value, E> {
        Ok(Value::Bool(value))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Value, E> {
        Ok(Value::from(value))
    }

    fn visit_u64<E>(self, value: u64) -> Result<Value, E> {
        Ok(Value::from(value))
    }

    fn visit_f64<E>(self, value: f64) -> Result<Value, E> {
        Ok(Number::from_f64(value).map_or(Value::Null, Value::Number))
    }

    fn visit_str<E>(self, value: &str) -> Result<Value, E> {
        Ok(Value::from(value))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Value, A::Error> {
        let mut list = Vec::new();
        while let Some(item) = items.next_element_seed(Self)? {
            list.push(item);
        }
        Ok(Value::Array(list))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<Value, A::Error> {
        let mut map = Map::new();
        while let Some(key) = entries.next_key::<String>()? {
            if map.contains_key(&key) {
                return Err(A::Error::custom(format!("the key {key:?} is there twice")));
            }
            let value = entries.next_value_seed(Self)?;
            map.insert(key, value);
        }
        Ok(Value::Object(map))
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn input_is_one_json_value_without_repeated_keys() {
        let text = r#"{"a": [1, -2, 1.5, "x", true, null, {"b": 18446744073709551615}]}"#;
        assert_eq!(
            parse_json(text).unwrap(),
            json!({ "a": [1, -2, 1.5, "x", true, null, { "b": u64::MAX }] })
        );
        for text in ["", "{", "{} {}", "{'a': 1}", r#"{"a": 1, "a": 2}"#, r#"[{"a": {"b": 1, "b": 1}}]"#] {
            assert!(parse_json(text).is_err(), "{text}");
        }
    }

    #[test]
    fn wrong_input_is_told_with_its_place() {
        let error = read_input(Some("{\n  'a': 1}")).unwrap_err();
        assert_eq!(error.place.as_deref(), Some("--input:2:3"));
        assert_eq!(error.what, "the input is not JSON: key must be a string");
        assert_eq!(error.exit, ExitStatus::Usage);
    }
}
