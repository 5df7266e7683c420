//! `fail`: fails as it is told to, to see what a failure does to a workflow.

use recache_model::template::SettingProblem;
use recache_worker::{Context, Failure};
use serde_json::{Map, Value, json};

use super::settings::Reader;

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Settings {
    permanent: bool,
    message: String,
    /// The first so many attempts fail; `None`: all do.
    times: Option<u32>,
}

/// `kind` is `retryable` (default) or `permanent`, `message` is what the failure says, `times` how many attempts fail
/// (default: all).
pub(super) fn read(settings: &Map<String, Value>) -> Result<Settings, Vec<SettingProblem>> {
    let mut reader = Reader::new("fail", settings, &["kind", "message", "times"]);
    let permanent = match reader.text("kind") {
        None | Some("retryable") => false,
        Some("permanent") => true,
        Some(_) => {
            reader.refuse("kind", "there is no such kind", Some("write `retryable` or `permanent`"));
            false
        }
    };
    let message = reader.text("message").unwrap_or("failed, as it was told to").to_owned();
    let times = reader.whole("times", u64::from(u32::MAX)).and_then(|times| u32::try_from(times).ok());
    reader.finish(Some(Settings { permanent, message, times }))
}

/// Fails, or returns `{"attempt": …}`.
pub(super) async fn run(context: Context, input: Value) -> Result<Value, Failure> {
    let settings =
        read(&super::settings_of(&context, &input)?).map_err(|problems| super::invalid(&problems))?;
    context.checkpoint().await?;
    let attempt = context.facts().attempt;
    if settings.times.is_some_and(|times| attempt > times) {
        return Ok(json!({ "attempt": attempt }));
    }
    Err(if settings.permanent {
        Failure::permanent("fail", settings.message)
    } else {
        Failure::Retryable { code: Some("fail".to_owned()), message: settings.message, after: None }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn defaults_fail_every_attempt_and_may_be_retried() {
        let settings = read(&Map::new()).unwrap();
        assert!(!settings.permanent && settings.times.is_none());
    }

    #[test]
    fn every_wrong_setting_is_told_at_once() {
        let settings = json!({ "kind": "fatal", "message": 7, "times": -1, "after": 2 });
        let problems = read(settings.as_object().unwrap()).unwrap_err();
        let mut named: Vec<_> = problems.iter().filter_map(|problem| problem.setting.as_deref()).collect();
        named.sort_unstable();
        assert_eq!(named, ["after", "kind", "message", "times"]);
    }
}
