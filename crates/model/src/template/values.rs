//! The values of fields: type, range, allowed characters.

use std::fmt::Display;
use std::time::Duration;

use super::fields::{Given, Reader};
use super::limits::NAME_BYTES_MAX;
use super::problems::{Path, Position, shown};
use super::scalar;
use super::tree::{Content, Entry, NodeId};
use super::words::Word;

impl<'t> Reader<'t, '_> {
    /// Tells that `given` is not `wanted`, unless something was told about it already.
    pub(super) fn wrong_type(&mut self, given: Given<'t>, path: Path<'_>, wanted: &str) {
        let found = &given.node.content;
        let suggestion = match found {
            Content::Broken => return,
            Content::Number(_) | Content::Bool(_) if wanted == TEXT => Some("put it in quotes".to_owned()),
            Content::Text(text) if wanted == LIST => Some(format!("write it as [{}]", shown(text))),
            Content::Text(_) if wanted == BOOLEAN => Some("write `true` or `false`".to_owned()),
            Content::Text(text) if matches!(scalar::number(text), Ok(Some(_))) => {
                Some("remove the quotes".to_owned())
            }
            _ => None,
        };
        let message = format!("`{}` must be {wanted}, found {}", given.spelling, found.kind());
        self.problem("wrong_type", given.node.position, path, message, suggestion);
    }

    /// Any text.
    pub(super) fn text(&mut self, given: Given<'t>, path: Path<'_>) -> Option<&'t str> {
        let Content::Text(text) = &given.node.content else {
            self.wrong_type(given, path, TEXT);
            return None;
        };
        Some(text)
    }

    /// The name of something: short, and safe in keys, paths and logs.
    pub(super) fn name(&mut self, given: Given<'t>, path: Path<'_>) -> Option<&'t str> {
        let text = self.text(given, path)?;
        self.is_name(text, given.spelling, given.node.position, path).then_some(text)
    }

    /// Whether `text` is a name; if not, it is told as a bad `what`.
    pub(super) fn is_name(&mut self, text: &str, what: &str, at: Option<Position>, path: Path<'_>) -> bool {
        let reason = if text.is_empty() {
            "it is empty".to_owned()
        } else if text.len() > NAME_BYTES_MAX {
            format!("it has {} bytes, the limit is {NAME_BYTES_MAX}", text.len())
        } else if let Some(stranger) =
            text.chars().find(|one| !(one.is_ascii_alphanumeric() || matches!(one, '_' | '.' | '-')))
        {
            format!("it holds {stranger:?}")
        } else {
            return true;
        };
        let message = format!("`{what}` is not a name: {} ({reason})", shown(text));
        let suggestion = Some("use letters, digits, `_`, `.` and `-`".to_owned());
        self.problem("bad_name", at, path, message, suggestion);
        false
    }

    /// One of a few words; `what` says what it is a word for.
    pub(super) fn word<W: Word>(&mut self, given: Given<'t>, path: Path<'_>, what: &str) -> Option<W> {
        let text = self.text(given, path)?;
        let found = W::WORDS.iter().copied().find(|word| word.as_word() == text);
        if found.is_none() {
            let words: Vec<&str> = W::WORDS.iter().map(|word| word.as_word()).collect();
            let suggestion = self.suggester.did_you_mean(text, words.iter().copied());
            let suggestion = suggestion.or_else(|| Some(format!("use one of {}", words.join(", "))));
            let message = format!("there is no {what} {}", shown(text));
            self.problem("unknown_value", given.node.position, path, message, suggestion);
        }
        found
    }

    /// A list of texts, at most `max`.
    pub(super) fn texts(&mut self, given: Given<'t>, path: Path<'_>, max: usize) -> Vec<String> {
        let items = self.bounded_list(given, path, max).unwrap_or_default();
        let mut texts = Vec::with_capacity(items.len());
        for (index, item) in items.iter().enumerate() {
            let item = Given { node: self.tree.node(*item), ..given };
            texts.extend(self.text(item, Path::Item(&path, index)).map(str::to_owned));
        }
        texts
    }

    /// The items of a list, at most `max`.
    pub(super) fn bounded_list(
        &mut self,
        given: Given<'t>,
        path: Path<'_>,
        max: usize,
    ) -> Option<&'t [NodeId]> {
        let items = self.list(given, path)?;
        if items.len() > max {
            let message = format!("`{}` has {} entries, the limit is {max}", given.spelling, items.len());
            self.problem("too_large", given.node.position, path, message, None);
            return None;
        }
        Some(items)
    }

    /// A whole number from `min` to `max` that counts something.
    pub(super) fn count(&mut self, given: Given<'t>, path: Path<'_>, min: u32, max: u32) -> Option<u32> {
        self.integer(given, path, min.into(), max.into()).and_then(|value| u32::try_from(value).ok())
    }

    /// `true` or `false`.
    pub(super) fn boolean(&mut self, given: Given<'t>, path: Path<'_>) -> Option<bool> {
        let Content::Bool(value) = &given.node.content else {
            self.wrong_type(given, path, BOOLEAN);
            return None;
        };
        Some(*value)
    }

    /// A whole number from `min` to `max`.
    pub(super) fn integer(&mut self, given: Given<'t>, path: Path<'_>, min: i64, max: i64) -> Option<i64> {
        let Content::Number(number) = &given.node.content else {
            self.wrong_type(given, path, "a whole number");
            return None;
        };
        if number.is_f64() {
            let message = format!("`{}` must be a whole number, found {number}", given.spelling);
            self.problem("wrong_type", given.node.position, path, message, None);
            return None;
        }
        let value = number.as_i64().filter(|value| (min..=max).contains(value));
        if value.is_none() {
            self.out_of_range(given, path, number, &min, &max);
        }
        value
    }

    /// Seconds, fractions allowed down to a millisecond, above zero (or from zero if `zero_allowed`) up to
    /// `max`.
    pub(super) fn seconds(
        &mut self,
        given: Given<'t>,
        path: Path<'_>,
        zero_allowed: bool,
        max: Duration,
    ) -> Option<Duration> {
        const MILLISECOND_NANOS: u32 = 1_000_000;
        let Content::Number(number) = &given.node.content else {
            self.wrong_type(given, path, "a number of seconds");
            return None;
        };
        let value = number.as_f64().and_then(|value| Duration::try_from_secs_f64(value).ok());
        let Some(value) = value.filter(|value| *value <= max) else {
            let min = if zero_allowed { "0" } else { "0.001" };
            self.out_of_range(given, path, number, &min, &max.as_secs());
            return None;
        };
        // Not by the rounded value alone: 1e-10 is not zero.
        let is_zero = value.is_zero() && number.as_f64() == Some(0.0);
        if is_zero && !zero_allowed {
            self.out_of_range(given, path, number, &"0.001", &max.as_secs());
            return None;
        }
        if value.subsec_nanos() % MILLISECOND_NANOS != 0 || (value.is_zero() && !is_zero) {
            let message = format!("`{}` must be whole milliseconds, found {number} s", given.spelling);
            self.problem("out_of_range", given.node.position, path, message, None);
            return None;
        }
        Some(value)
    }

    /// A part of a whole, from 0 to 1.
    pub(super) fn fraction(&mut self, given: Given<'t>, path: Path<'_>) -> Option<f64> {
        let Content::Number(number) = &given.node.content else {
            self.wrong_type(given, path, "true, false or a number from 0 to 1");
            return None;
        };
        let value = number.as_f64().filter(|value| (0.0..=1.0).contains(value));
        if value.is_none() {
            self.out_of_range(given, path, number, &0, &1);
        }
        value
    }

    /// The items of a list.
    pub(super) fn list(&mut self, given: Given<'t>, path: Path<'_>) -> Option<&'t [NodeId]> {
        let Content::List(items) = &given.node.content else {
            self.wrong_type(given, path, LIST);
            return None;
        };
        Some(items)
    }

    /// The fields of a mapping that may hold anything.
    pub(super) fn mapping(&mut self, given: Given<'t>, path: Path<'_>) -> Option<&'t [Entry]> {
        let Content::Object(entries) = &given.node.content else {
            self.wrong_type(given, path, "a mapping");
            return None;
        };
        Some(entries)
    }

    fn out_of_range(
        &mut self,
        given: Given<'t>,
        path: Path<'_>,
        found: &dyn Display,
        min: &dyn Display,
        max: &dyn Display,
    ) {
        let message = format!("`{}` must be from {min} to {max}, found {found}", given.spelling);
        self.problem("out_of_range", given.node.position, path, message, None);
    }
}

const TEXT: &str = "text";
const BOOLEAN: &str = "true or false";
const LIST: &str = "a list";
