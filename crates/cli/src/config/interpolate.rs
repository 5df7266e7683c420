//! `${NAME}` and `${NAME:-default}` inside a string; `$$` is a dollar.
//!
//! As in a shell, a default also stands in for a variable that is set to nothing. A default is taken as it stands: it
//! ends at the first `}` and cannot hold another variable. A `$` before anything else is itself, so that a password
//! with one in it is not torn apart.

use std::borrow::Cow;

/// A string with its variables filled in.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Expanded {
    /// The text.
    pub(super) text: String,
    /// The variables whose values are in it; those whose default was taken are not.
    pub(super) variables: Vec<String>,
    /// Whether the string was one `${…}` and nothing else: then it may stand for a number or a boolean.
    pub(super) whole: bool,
}

/// Why a string cannot be filled in. None of these holds a value.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum Error {
    /// A variable without a default is not set.
    #[error("needs the environment variable {0}, which is not set")]
    NotSet(String),
    /// No `}` follows.
    #[error("has a `${{` without its `}}`")]
    Unclosed,
    /// A `${` inside another.
    #[error("has a variable inside another, which is not supported")]
    Nested,
    /// What stands between the braces is not a name.
    #[error("has a `${{}}` that names no variable")]
    NotAName,
}

impl Error {
    /// What to do about it.
    pub(super) fn remedy(&self) -> String {
        match self {
            Self::NotSet(name) => format!("set {name}, or give it a default: ${{{name}:-default}}"),
            Self::Unclosed | Self::Nested | Self::NotAName => {
                "write ${NAME} or ${NAME:-default}; for a dollar sign itself write $$".to_owned()
            }
        }
    }
}

/// Fills in every variable of `text`; `lookup` gives `None` for one that is not set.
pub(super) fn expand<'v>(text: &str, lookup: impl Fn(&str) -> Option<&'v str>) -> Result<Expanded, Error> {
    let mut expanded = Expanded { text: String::with_capacity(text.len()), variables: vec![], whole: false };
    let mut rest = text;
    while let Some(dollar) = rest.find('$') {
        expanded.text.push_str(&rest[..dollar]);
        rest = &rest[dollar..];
        if rest.starts_with("${") {
            let length = rest.find('}').ok_or(Error::Unclosed)? + 1;
            expanded.whole |= rest.len() == text.len() && length == text.len();
            reference(&rest[..length], &lookup, &mut expanded)?;
            rest = &rest[length..];
        } else {
            expanded.text.push('$');
            rest = rest.strip_prefix("$$").unwrap_or(&rest[1..]);
        }
    }
    expanded.text.push_str(rest);
    Ok(expanded)
}

/// Fills in one `${…}`. What the library would leave standing without a word is refused before it sees it.
fn reference<'v>(
    written: &str,
    lookup: &impl Fn(&str) -> Option<&'v str>,
    expanded: &mut Expanded,
) -> Result<(), Error> {
    let inside = &written[2..written.len() - 1];
    if inside.contains("${") {
        return Err(Error::Nested);
    }
    let (name, has_default) = match inside.split_once(":-") {
        Some((name, _)) => (name, true),
        None => (inside, false),
    };
    let is_name = name.bytes().all(|byte| byte == b'_' || byte.is_ascii_alphanumeric())
        && !name.starts_with(|first: char| first.is_ascii_digit());
    if name.is_empty() || !is_name {
        return Err(Error::NotAName);
    }
    let value: Cow<'_, str> = shellexpand::env_with_context(written, |name: &str| match lookup(name) {
        Some("") if has_default => Ok(None),
        Some(value) => Ok(Some(value)),
        None => Err(()),
    })
    .map_err(|_| Error::NotSet(name.to_owned()))?;
    expanded.text.push_str(&value);
    if lookup(name).is_some_and(|value| !(value.is_empty() && has_default)) {
        expanded.variables.push(name.to_owned());
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lookup(name: &str) -> Option<&'static str> {
        match name {
            "A" => Some("one"),
            "B_2" => Some("two"),
            "DOLLAR" => Some("a$b${A}"),
            "EMPTY" => Some(""),
            _ => None,
        }
    }

    #[test]
    fn variables_are_filled_in() {
        for (text, filled) in [
            ("", ""),
            ("plain", "plain"),
            ("${A}", "one"),
            ("x${A}y${B_2}z", "xoneytwoz"),
            ("${A}${A}", "oneone"),
            ("${NONE:-redis://localhost:6379}", "redis://localhost:6379"),
            ("${A:-default}", "one"),
            ("${NONE:-}", ""),
            ("${NONE:-a:-b}", "a:-b"),
            ("${EMPTY}", ""),
            ("${EMPTY:-default}", "default"),
            ("é${A}é", "éoneé"),
        ] {
            assert_eq!(expand(text, lookup).unwrap().text, filled, "{text}");
        }
    }

    #[test]
    fn dollars_that_start_no_variable_stay() {
        for (text, filled) in [
            ("$$", "$"),
            ("$", "$"),
            ("pa$word", "pa$word"),
            ("$A", "$A"),
            ("$${A}", "${A}"),
            ("$$${A}", "$one"),
            ("$$$$", "$$"),
            ("cost $5 }", "cost $5 }"),
            // What a variable holds is taken as it is: filled in once, never twice.
            ("${DOLLAR}", "a$b${A}"),
            ("${NONE:-a$$b$A}", "a$$b$A"),
        ] {
            assert_eq!(expand(text, lookup).unwrap().text, filled, "{text}");
        }
    }

    #[test]
    fn what_cannot_be_filled_in_is_refused() {
        for (text, error) in [
            ("${NONE}", Error::NotSet("NONE".to_owned())),
            ("${A", Error::Unclosed),
            ("x ${", Error::Unclosed),
            ("${A:-${B_2}}", Error::Nested),
            ("${${A}}", Error::Nested),
            ("${}", Error::NotAName),
            ("${:-x}", Error::NotAName),
            ("${A-b}", Error::NotAName),
            ("${ A }", Error::NotAName),
            ("${1A}", Error::NotAName),
            ("${Ä}", Error::NotAName),
        ] {
            assert_eq!(expand(text, lookup).unwrap_err(), error, "{text}");
        }
    }

    #[test]
    fn only_a_lone_variable_is_whole() {
        for (text, whole) in [
            ("${A}", true),
            ("${NONE:-8080}", true),
            ("${A} ", false),
            ("x${A}", false),
            ("${A}${A}", false),
            ("$${A}", false),
            ("8080", false),
        ] {
            assert_eq!(expand(text, lookup).unwrap().whole, whole, "{text}");
        }
    }

    #[test]
    fn variables_that_were_used_are_named_and_defaults_are_not() {
        let expanded = expand("${A}${NONE:-x}${EMPTY:-y}${EMPTY}", lookup).unwrap();
        assert_eq!(expanded.variables, ["A", "EMPTY"]);
    }
}
