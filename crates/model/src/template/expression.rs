//! Conditions and other expressions over a workflow's input and its steps' results.
//!
//! The language is that of minijinja's expressions, cut down: operators, subscripts, `a if b else c`, the filters and
//! tests listed here, and nothing else, no functions and no methods. A name that does not exist is an error, not an
//! empty value. Source, recursion and work are bounded, whatever is written: whoever may save a template must not be
//! able to stop a server.

use std::fmt;
use std::sync::{Arc, LazyLock};

use minijinja::value::{Serde, ValueKind};
use minijinja::{Environment, UndefinedBehavior, filters, tests};
use serde::Serialize;
use serde_json::Value;

use super::expression_words::{self, Misuse};
use super::limits::{
    EXPRESSION_BYTES_MAX, EXPRESSION_FUEL, EXPRESSION_NESTING_MAX, EXPRESSION_RESULT_PARTS_MAX,
};

/// The filters of the language.
pub const FILTERS: [&str; 8] = ["default", "first", "float", "int", "last", "length", "lower", "upper"];

/// The tests of the language: `x is defined`.
pub const TESTS: [&str; 3] = ["defined", "in", "none"];

static LANGUAGE: LazyLock<Environment<'static>> = LazyLock::new(|| {
    let mut language = Environment::empty();
    language.set_undefined_behavior(UndefinedBehavior::Strict);
    language.set_fuel(Some(EXPRESSION_FUEL));
    language.add_filter("default", filters::default);
    language.add_filter("first", |value: &minijinja::Value| defined(value).and_then(filters::first));
    language.add_filter("float", filters::float);
    language.add_filter("int", filters::int);
    language.add_filter("last", |value: &minijinja::Value| {
        defined(value).and_then(|value| filters::last(value.clone()))
    });
    language.add_filter("length", |value: &minijinja::Value| defined(value).and_then(filters::length));
    language.add_filter("lower", filters::lower);
    language.add_filter("upper", filters::upper);
    language.add_test("defined", tests::is_defined);
    language.add_test("in", tests::is_in);
    language.add_test("none", tests::is_none);
    language
});

/// Some filters take a value that does not exist for an empty one.
fn defined(value: &minijinja::Value) -> Result<&minijinja::Value, minijinja::Error> {
    if value.is_undefined() {
        return Err(minijinja::Error::from(minijinja::ErrorKind::UndefinedError));
    }
    Ok(value)
}

/// A compiled expression. Two are equal when they are written the same.
#[derive(Clone)]
pub struct Expression {
    source: Arc<str>,
    compiled: Arc<minijinja::Expression<'static, 'static>>,
}

/// What an expression can see.
#[derive(Debug, Clone, Copy, Serialize)]
pub struct Scope<'a> {
    /// The workflow's input.
    pub input: &'a Value,
    /// Results of the steps that the step depends on, by their names.
    pub results: &'a serde_json::Map<String, Value>,
    /// In a child of a `for_each`: its element.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub item: Option<&'a Value>,
    /// In a child of a `for_each`: the place of its element, from 0.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub index: Option<usize>,
}

/// Why an expression cannot be compiled or evaluated. It names the expression's own text, never a value.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub struct ExpressionError {
    /// What is wrong.
    pub message: String,
    /// The character of the expression at which it is wrong, from 1, where that is known.
    pub character: Option<usize>,
    /// What to do about it.
    pub suggestion: Option<String>,
}

impl fmt::Display for ExpressionError {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(&self.message)?;
        match self.character {
            Some(character) => write!(out, " (at character {character})"),
            None => Ok(()),
        }
    }
}

impl Expression {
    /// Compiles `source`. Refused are too long a source, wrong syntax, and filters, tests and calls that the language
    /// does not have.
    pub fn compile(source: &str) -> Result<Self, ExpressionError> {
        if source.len() > EXPRESSION_BYTES_MAX {
            let message = format!("it has {} bytes, the limit is {EXPRESSION_BYTES_MAX}", source.len());
            return Err(ExpressionError { message, character: None, suggestion: None });
        }
        if source.trim().is_empty() {
            let message = "it is empty".to_owned();
            return Err(ExpressionError { message, character: None, suggestion: None });
        }
        if let Some(character) = expression_words::too_deep(source, EXPRESSION_NESTING_MAX) {
            let message = format!("its brackets are nested more than {EXPRESSION_NESTING_MAX} deep");
            return Err(ExpressionError { message, character: Some(character), suggestion: None });
        }
        let compiled = LANGUAGE
            .compile_expression_owned(source.to_owned())
            .map_err(|error| ExpressionError::of(&error, source))?;
        if let Some(misuse) = expression_words::misuse(source, &FILTERS, &TESTS) {
            return Err(ExpressionError::of_misuse(&misuse));
        }
        Ok(Self { source: Arc::from(source), compiled: Arc::new(compiled) })
    }

    /// As written.
    pub fn source(&self) -> &str {
        &self.source
    }

    /// The names that it starts from, and with `results.fetch` what it asks of them, as far as that is written out:
    /// sorted, each once.
    pub(super) fn names(&self) -> Vec<String> {
        let mut names: Vec<String> = self.compiled.undeclared_variables(true).into_iter().collect();
        names.sort_unstable();
        names
    }

    /// What it comes to. It cannot take more than [`EXPRESSION_FUEL`] allows.
    pub fn evaluate(&self, scope: &Scope<'_>) -> Result<Value, ExpressionError> {
        let value = self
            .compiled
            .eval(minijinja::Value::from(Serde(scope)))
            .map_err(|error| ExpressionError::of(&error, &self.source))?;
        if value.is_undefined() {
            let message = "it gives nothing: the name or field does not exist".to_owned();
            return Err(ExpressionError { message, character: None, suggestion: None });
        }
        let mut parts_left = EXPRESSION_RESULT_PARTS_MAX;
        to_json(&value, &mut parts_left, 0).map_err(|message| ExpressionError {
            message,
            character: None,
            suggestion: None,
        })
    }

    /// Whether the condition holds. Anything but true or false is an error: the text `"false"` must not count as
    /// true.
    pub fn is_met(&self, scope: &Scope<'_>) -> Result<bool, ExpressionError> {
        match self.evaluate(scope)? {
            Value::Bool(is_met) => Ok(is_met),
            other => {
                let kind = match other {
                    Value::Null => "nothing",
                    Value::Number(_) => "a number",
                    Value::String(_) => "text",
                    Value::Array(_) => "a list",
                    _ => "a mapping",
                };
                let message = format!("a condition must give true or false, this one gives {kind}");
                let suggestion = Some("compare it with something, such as `input.count > 0`".to_owned());
                Err(ExpressionError { message, character: None, suggestion })
            }
        }
    }
}

/// `value` as JSON. Bounded here, because a list that is repeated a million times is free until somebody walks it.
fn to_json(value: &minijinja::Value, parts_left: &mut usize, depth: usize) -> Result<Value, String> {
    const DEPTH_MAX: usize = 128;
    *parts_left = parts_left
        .checked_sub(1)
        .ok_or_else(|| format!("its result holds more than {EXPRESSION_RESULT_PARTS_MAX} values"))?;
    if depth > DEPTH_MAX {
        return Err(format!("its result is nested more than {DEPTH_MAX} deep"));
    }
    let unwritable = || format!("it gives {}, which cannot be written as JSON", value.kind());
    match value.kind() {
        ValueKind::None => Ok(Value::Null),
        ValueKind::Bool => Ok(Value::Bool(value.is_true())),
        ValueKind::Number => serde_json::to_value(value).map_err(|_| unwritable()),
        ValueKind::String => value.as_str().map(Value::from).ok_or_else(unwritable),
        ValueKind::Seq | ValueKind::Iterable => {
            let mut items = Vec::new();
            for item in value.try_iter().map_err(|_| unwritable())? {
                items.push(to_json(&item, parts_left, depth + 1)?);
            }
            Ok(Value::Array(items))
        }
        ValueKind::Map => {
            let mut fields = serde_json::Map::new();
            for key in value.try_iter().map_err(|_| unwritable())? {
                let field = value.get_item(&key).map_err(|_| unwritable())?;
                let name = key.as_str().map_or_else(|| key.to_string(), str::to_owned);
                fields.insert(name, to_json(&field, parts_left, depth + 1)?);
            }
            Ok(Value::Object(fields))
        }
        _ => Err(unwritable()),
    }
}

impl ExpressionError {
    fn of(error: &minijinja::Error, source: &str) -> Self {
        let detail = error.detail().map_or_else(String::new, |detail| format!(": {detail}"));
        let character = error
            .range()
            .and_then(|range| source.get(..range.start))
            .map(|before| before.chars().count().saturating_add(1));
        Self { message: format!("{}{detail}", error.kind()), character, suggestion: None }
    }

    fn of_misuse(misuse: &Misuse) -> Self {
        let (message, suggestion) = match misuse {
            Misuse::Filter { name, .. } => {
                (format!("there is no filter {name:?}"), format!("filters are {}", FILTERS.join(", ")))
            }
            Misuse::Test { name, .. } => {
                (format!("there is no test {name:?}"), format!("tests are {}", TESTS.join(", ")))
            }
            Misuse::Call { .. } => (
                "functions and methods cannot be called".to_owned(),
                format!("use a filter: {}", FILTERS.join(", ")),
            ),
        };
        Self { message, character: Some(misuse.character()), suggestion: Some(suggestion) }
    }
}

impl fmt::Debug for Expression {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.debug_tuple("Expression").field(&self.source).finish()
    }
}

impl PartialEq for Expression {
    fn eq(&self, other: &Self) -> bool {
        self.source == other.source
    }
}
