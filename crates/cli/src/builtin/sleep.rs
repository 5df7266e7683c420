//! `sleep`: waits, and stops at once when it shall.

use std::time::Duration;

use recache_model::template::SettingProblem;
use recache_worker::{Context, Failure};
use serde_json::{Map, Value, json};
use tokio::time::Instant;

use super::settings::Reader;

/// The longest sleep: 30 days.
const SECONDS_MAX: u32 = 30 * 24 * 60 * 60;
/// Between two checkpoints, for the case that the signal to stop was lost.
const CHECK_PAUSE: Duration = Duration::from_millis(250);

/// How long to sleep.
pub(super) fn read(settings: &Map<String, Value>) -> Result<Duration, Vec<SettingProblem>> {
    let mut reader = Reader::new("sleep", settings, &["milliseconds", "seconds"]);
    let pause = match (reader.get("milliseconds"), reader.get("seconds")) {
        (Some(_), None) => {
            reader.whole("milliseconds", u64::from(SECONDS_MAX) * 1_000).map(Duration::from_millis)
        }
        (None, Some(_)) => reader
            .number("seconds", f64::from(SECONDS_MAX))
            .and_then(|seconds| Duration::try_from_secs_f64(seconds).ok()),
        (None, None) => {
            reader.refuse_all("must be told how long", Some("give `milliseconds` or `seconds`"));
            None
        }
        (Some(_), Some(_)) => {
            reader.refuse_all("is given both `milliseconds` and `seconds`", Some("keep one of them"));
            None
        }
    };
    reader.finish(pause)
}

/// Sleeps, then returns `{"slept_ms": …}`.
pub(super) async fn run(context: Context, input: Value) -> Result<Value, Failure> {
    let pause = read(&super::settings_of(&context, &input)?).map_err(|problems| super::invalid(&problems))?;
    let until = Instant::now() + pause;
    loop {
        context.checkpoint().await?;
        let left = until.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Ok(json!({ "slept_ms": u64::try_from(pause.as_millis()).unwrap_or(u64::MAX) }));
        }
        tokio::select! {
            why = context.stopped() => return Err(Failure::Stopped(why)),
            () = tokio::time::sleep(left.min(CHECK_PAUSE)) => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn told(settings: &Value) -> Result<Duration, String> {
        read(settings.as_object().unwrap()).map_err(|problems| problems[0].message.clone())
    }

    #[test]
    fn how_long_is_given_in_one_unit() {
        assert_eq!(told(&json!({ "milliseconds": 20 })), Ok(Duration::from_millis(20)));
        assert_eq!(told(&json!({ "seconds": 0.5 })), Ok(Duration::from_millis(500)));
        for wrong in [
            json!({}),
            json!({ "seconds": 1, "milliseconds": 1 }),
            json!({ "seconds": -1 }),
            json!({ "seconds": 1e300 }),
            json!({ "milliseconds": 1.5 }),
            json!({ "milliseconds": "20" }),
        ] {
            assert!(told(&wrong).is_err(), "{wrong}");
        }
    }
}
