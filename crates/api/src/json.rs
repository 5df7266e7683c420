//! JSON that is passed on as it was written.

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

/// A JSON value as its author wrote it: numbers keep all their digits, objects their order and repeated keys.
///
/// Only line breaks between tokens are replaced by blanks, so that a document can stand on one line. Can be read from
/// text, not from a [`serde_json::Value`].
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Json(Box<RawValue>);

impl Json {
    /// From the text of one JSON value.
    pub fn from_text(text: &str) -> Result<Self, serde_json::Error> {
        // A string in valid JSON holds no raw line break: each of them is between tokens.
        RawValue::from_string(text.replace(['\n', '\r'], " ")).map(Self)
    }

    /// `null`.
    pub fn null() -> Self {
        Self(Box::default())
    }

    /// A JSON string.
    pub fn of_string(text: &str) -> Self {
        // A string is always a JSON value.
        Self(serde_json::value::to_raw_value(text).unwrap_or_default())
    }

    /// For fields where `null` is a value like any other, and only a missing field is none.
    pub(crate) fn given<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<Option<Self>, D::Error> {
        Self::deserialize(deserializer).map(Some)
    }

    /// The text, on one line.
    pub fn text(&self) -> &str {
        self.0.get()
    }
}

impl PartialEq for Json {
    fn eq(&self, other: &Self) -> bool {
        self.text() == other.text()
    }
}

impl Eq for Json {}

#[cfg(feature = "openapi")]
impl utoipa::PartialSchema for Json {
    fn schema() -> utoipa::openapi::RefOr<utoipa::openapi::schema::Schema> {
        use utoipa::openapi::schema::{ObjectBuilder, SchemaType};
        ObjectBuilder::new()
            .schema_type(SchemaType::AnyValue)
            .description(Some("Any JSON value, passed on as it was written."))
            .build()
            .into()
    }
}

#[cfg(feature = "openapi")]
impl utoipa::ToSchema for Json {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn value_is_passed_on_digit_by_digit_on_one_line() {
        let text = "{\n  \"n\": 123456789012345678901234567890.10,\r\n  \"n\": \"a\\nb\"\n}";
        let json = Json::from_text(text).unwrap();
        let line = "{   \"n\": 123456789012345678901234567890.10,    \"n\": \"a\\nb\" }";
        assert_eq!(serde_json::to_string(&json).unwrap(), line);
        assert_eq!(serde_json::from_str::<Json>(line).unwrap(), json);
    }

    #[test]
    fn null_is_null() {
        assert_eq!(Json::null().text(), "null");
    }

    #[test]
    fn text_that_is_no_value_is_refused_or_becomes_a_string() {
        for text in ["", "{", "1 2", "\"a\nb\u{1}\""] {
            assert!(Json::from_text(text).is_err(), "{text:?}");
        }
        assert_eq!(Json::of_string("a\"b\n").text(), r#""a\"b\n""#);
    }
}
