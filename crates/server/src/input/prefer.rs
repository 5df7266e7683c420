//! `Prefer: wait=N` (RFC 7240): answer when it has ended, or after so many seconds.

use std::convert::Infallible;
use std::time::Duration;

use axum::extract::FromRequestParts;
use axum::http::request::Parts;

use crate::state::App;

/// For how long the caller would wait; `None` when it did not say so. Longer than the server allows becomes what it allows. A
/// preference that cannot be read is passed over, as the RFC asks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Wait(pub(crate) Option<Duration>);

impl FromRequestParts<App> for Wait {
    type Rejection = Infallible;

    async fn from_request_parts(parts: &mut Parts, app: &App) -> Result<Self, Infallible> {
        let texts = parts.headers.get_all("prefer").iter().filter_map(|value| value.to_str().ok());
        let wait = texts.flat_map(|text| text.split([',', ';'])).find_map(read);
        Ok(Self(wait.map(|wait| wait.min(app.settings().wait_max))))
    }
}

fn read(preference: &str) -> Option<Duration> {
    let (name, value) = preference.split_once('=')?;
    let seconds = value.trim().trim_matches('"').parse::<u32>().ok()?;
    name.trim().eq_ignore_ascii_case("wait").then(|| Duration::from_secs(seconds.into()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn seconds_are_read_wherever_they_stand() {
        assert_eq!(read(" Wait = 10"), Some(Duration::from_secs(10)));
        assert_eq!(read("wait=\"7\""), Some(Duration::from_secs(7)));
        for text in ["wait", "wait=", "wait=-1", "wait=1.5", "wait=99999999999", "respond-async"] {
            assert_eq!(read(text), None, "{text}");
        }
    }
}
