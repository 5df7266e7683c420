//! How things are named on the command line.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

/// A view: `NAMESPACE/KEY`. The key may hold further slashes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ViewName {
    /// Who it belongs to.
    pub(crate) namespace: String,
    /// Its key there.
    pub(crate) key: String,
}

impl ViewName {
    /// As the store names it.
    pub(crate) fn in_store(&self) -> recache_store::ViewName {
        recache_store::ViewName::new(&self.namespace, &self.key)
    }
}

impl fmt::Display for ViewName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.namespace, self.key)
    }
}

impl FromStr for ViewName {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text.split_once('/') {
            Some((namespace, key)) if !namespace.is_empty() && !key.is_empty() => {
                Ok(Self { namespace: namespace.to_owned(), key: key.to_owned() })
            }
            _ => Err("expected NAMESPACE/KEY, for example shop/prices".to_owned()),
        }
    }
}

/// The longest wait that can be asked for.
const WAIT_MAX: Duration = Duration::from_hours(24);

/// The longest life of a cached value that can be asked for: ten years.
const LIFE_MAX: Duration = recache_cache::KEEP_FOR_MAX;

/// Reads a length of time: `500ms`, `5s`, `2m`, `1h 30m`.
pub(crate) fn wait(text: &str) -> Result<Duration, String> {
    let form = "expected a length of time with its unit, at most 24h: 500ms, 5s, 2m";
    length(text).filter(|wait| *wait <= WAIT_MAX).ok_or_else(|| form.to_owned())
}

/// Reads how long a value lives: `60s`, `2h`.
pub(crate) fn life(text: &str) -> Result<Duration, String> {
    let form = "expected a length of time with its unit, from 1ms to 87600h: 500ms, 60s, 2h";
    let lives = |life: &Duration| (Duration::from_millis(1)..=LIFE_MAX).contains(life);
    length(text).filter(lives).ok_or_else(|| form.to_owned())
}

fn length(text: &str) -> Option<Duration> {
    Duration::try_from(text.parse::<jiff::SignedDuration>().ok()?).ok()
}

/// The longest delay or period that can be asked for.
const FAR_MAX: Duration = Duration::from_hours(10 * 365 * 24);

/// Reads a delay or a period, which may be longer than a wait: `30s`, `2h`, `90d`.
pub(crate) fn far(text: &str) -> Result<Duration, String> {
    let form = "expected a length of time with its unit, at most 10 years: 30s, 2h, 90d";
    let read: jiff::Span = text.parse().map_err(|_| form.to_owned())?;
    let signed = read
        .to_duration(jiff::SpanRelativeTo::days_are_24_hours())
        .map_err(|_| format!("{form} (no months and no years: they differ in length)"))?;
    let far = Duration::try_from(signed).map_err(|_| form.to_owned())?;
    if far <= FAR_MAX { Ok(far) } else { Err(form.to_owned()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn view_name_is_split_at_its_first_slash() {
        let name: ViewName = "shop/prices/de".parse().unwrap();
        assert_eq!((name.namespace.as_str(), name.key.as_str()), ("shop", "prices/de"));
        assert_eq!(name.to_string(), "shop/prices/de");
        for text in ["", "shop", "/prices", "shop/"] {
            assert!(text.parse::<ViewName>().unwrap_err().contains("NAMESPACE/KEY"), "{text}");
        }
    }

    #[test]
    fn wait_needs_a_unit_and_an_end() {
        assert_eq!(wait("500ms"), Ok(Duration::from_millis(500)));
        assert_eq!(wait("5s"), Ok(Duration::from_secs(5)));
        assert_eq!(wait("1h 30m"), Ok(Duration::from_mins(90)));
        assert_eq!(wait("24h"), Ok(WAIT_MAX));
        for text in ["", "5", "-5s", "5 apples", "24h 1s", "99999999999999h"] {
            assert!(wait(text).is_err(), "{text}");
        }
    }

    #[test]
    fn life_is_neither_nothing_nor_longer_than_anything_is_kept() {
        assert_eq!(life("1ms"), Ok(Duration::from_millis(1)));
        assert_eq!(life("87600h"), Ok(LIFE_MAX));
        for text in ["", "60", "0s", "999us", "-1s", "87600h 1s"] {
            assert!(life(text).is_err(), "{text}");
        }
    }

    #[test]
    fn delay_may_be_days_but_not_months() {
        assert_eq!(far("90d"), Ok(Duration::from_hours(90 * 24)));
        assert_eq!(far("1h 30m"), Ok(Duration::from_mins(90)));
        for text in ["", "5", "-5s", "1mo", "1y", "4000d"] {
            assert!(far(text).is_err(), "{text}");
        }
    }
}
