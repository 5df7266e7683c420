//! Instants on the wire.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// An instant: RFC 3339 in UTC, always with six digits of a second, so that texts sort as instants do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Instant(jiff::Timestamp);

/// The instant lies outside the years -9999 to 9999.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{micros} microseconds since 1970 cannot be written as a date")]
pub struct OutOfRange {
    micros: i64,
}

impl Instant {
    /// The earliest instant that can be written.
    pub const MIN: Self = Self(jiff::Timestamp::MIN);
    /// The latest instant that can be written.
    pub const MAX: Self = Self(jiff::Timestamp::MAX);

    /// From microseconds since 1970-01-01 UTC.
    pub fn from_micros(micros: i64) -> Result<Self, OutOfRange> {
        jiff::Timestamp::from_microsecond(micros).map(Self).map_err(|_| OutOfRange { micros })
    }

    /// Microseconds since 1970-01-01 UTC.
    pub fn micros(self) -> i64 {
        self.0.as_microsecond()
    }
}

impl fmt::Display for Instant {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:.6}", self.0)
    }
}

impl FromStr for Instant {
    type Err = jiff::Error;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        text.parse().map(Self)
    }
}

impl Serialize for Instant {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Instant {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        jiff::Timestamp::deserialize(deserializer).map(Self)
    }
}

#[cfg(feature = "openapi")]
impl utoipa::PartialSchema for Instant {
    fn schema() -> utoipa::openapi::RefOr<utoipa::openapi::schema::Schema> {
        use utoipa::openapi::schema::{KnownFormat, ObjectBuilder, SchemaFormat, Type};
        ObjectBuilder::new()
            .schema_type(Type::String)
            .format(Some(SchemaFormat::KnownFormat(KnownFormat::DateTime)))
            .description(Some("An instant: RFC 3339, in UTC where it is answered."))
            .build()
            .into()
    }
}

#[cfg(feature = "openapi")]
impl utoipa::ToSchema for Instant {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn instant_is_written_with_microseconds_and_read_back() {
        for (micros, text) in [
            (1_700_000_000_000_000, "\"2023-11-14T22:13:20.000000Z\""),
            (1_700_000_000_000_001, "\"2023-11-14T22:13:20.000001Z\""),
            (-1, "\"1969-12-31T23:59:59.999999Z\""),
        ] {
            let instant = Instant::from_micros(micros).unwrap();
            assert_eq!(serde_json::to_string(&instant).unwrap(), text);
            assert_eq!(serde_json::from_str::<Instant>(text).unwrap(), instant);
            assert_eq!(instant.micros(), micros);
        }
    }

    #[test]
    fn instant_of_another_zone_is_read() {
        let instant: Instant = serde_json::from_str("\"2023-11-14T23:13:20+01:00\"").unwrap();
        assert_eq!(instant.to_string(), "2023-11-14T22:13:20.000000Z");
    }

    #[test]
    fn instant_beyond_the_calendar_is_refused() {
        assert_eq!(Instant::from_micros(i64::MAX), Err(OutOfRange { micros: i64::MAX }));
        assert!(serde_json::from_str::<Instant>("\"tomorrow\"").is_err());
    }
}
