//! What a record of a cache-kept tracker says. Such trackers agree on little, so several spellings are read; what cannot be
//! read is refused with its reason, never guessed.

use recache_model::tracked::{Report, TrackedState};
use recache_store::TrackedContext;
use serde_json::{Map, Value};

/// A job as it was tracked.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct JobRecord {
    pub(super) action: String,
    pub(super) context: Option<TrackedContext>,
    pub(super) owner: Option<String>,
    pub(super) batch: Option<String>,
    pub(super) report: Report,
    /// All of it, to be kept beside.
    pub(super) original: Value,
}

/// A batch as it was tracked.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct BatchRecord {
    pub(super) action: String,
    pub(super) total: Option<u64>,
    /// `None`: it does not say.
    pub(super) has_ended: Option<bool>,
    pub(super) original: Value,
}

/// The JSON of a stored string. PHP's caches put a string into `s:LENGTH:"…";` around it.
pub(super) fn json(bytes: &[u8]) -> Result<Value, String> {
    let bytes = unwrapped(bytes).unwrap_or(bytes);
    serde_json::from_slice(bytes).map_err(|error| {
        if bytes.starts_with(b"a:") || bytes.starts_with(b"O:") {
            "it is a serialised PHP value, not JSON".to_owned()
        } else {
            format!("not JSON: {error}")
        }
    })
}

fn unwrapped(bytes: &[u8]) -> Option<&[u8]> {
    let rest = bytes.strip_prefix(b"s:")?;
    let colon = rest.iter().position(|byte| *byte == b':')?;
    let length: usize = std::str::from_utf8(&rest[..colon]).ok()?.parse().ok()?;
    let inner = rest[colon + 1..].strip_prefix(b"\"")?.strip_suffix(b"\";")?;
    (inner.len() == length).then_some(inner)
}

/// Reads a job.
pub(super) fn job(original: Value) -> Result<JobRecord, String> {
    let fields = object(&original)?;
    let state = text(fields, &["status", "state"]).ok_or("it has no status")?;
    let state = state_of(&state).ok_or_else(|| format!("its status is `{}`", state.escape_debug()))?;
    let failed = state == TrackedState::Failed;
    let message = text(fields, &["message", "status_message"]);
    let error = text(fields, &["error", "error_message", "exception"]).filter(|_| failed);
    let count = |names: &[&str]| number(fields, names).and_then(whole);
    let (items_done, items_total) =
        (count(&["processed", "items_done", "current", "done"]), count(&["total", "items_total"]));
    let are_counts = items_done.zip(items_total).is_some_and(|(done, total)| 0 <= done && done <= total);
    let data = ["data", "result", "output"].iter().find_map(|name| fields.get(*name));
    Ok(JobRecord {
        action: text(fields, &["action", "type", "name", "job"]).unwrap_or_else(|| "imported".to_owned()),
        context: context(fields),
        owner: text(fields, &["owner", "user_id", "user", "worker"]),
        batch: text(fields, &["batch_id", "batch"]),
        report: Report {
            state: Some(state),
            message: error.or(message),
            code: None,
            data: data.filter(|data| !data.is_null()).map(ToString::to_string),
            progress: number(fields, &["progress", "percentage"]).and_then(fraction),
            items_done: items_done.filter(|_| are_counts),
            items_total: items_total.filter(|_| are_counts),
        },
        original,
    })
}

/// Reads a batch.
pub(super) fn batch(original: Value) -> Result<BatchRecord, String> {
    let fields = object(&original)?;
    let total = number(fields, &["total", "total_jobs", "count"]).and_then(whole);
    Ok(BatchRecord {
        action: text(fields, &["action", "type", "name"]).unwrap_or_else(|| "imported".to_owned()),
        total: total.and_then(|total| u64::try_from(total).ok()),
        has_ended: has_ended(fields),
        original,
    })
}

/// By its status; else by the moment of its end; else by the count of jobs that are still to come.
fn has_ended(fields: &Map<String, Value>) -> Option<bool> {
    let by_status = text(fields, &["status", "state"]).and_then(|status| {
        let partly = matches!(status.to_ascii_lowercase().as_str(), "partial_failure" | "partially_failed");
        state_of(&status).map(TrackedState::is_terminal).or(partly.then_some(true))
    });
    let ends = ["finished_at", "completed_at", "cancelled_at", "ended_at"];
    let by_end = || text(fields, &ends).map(|_| true);
    let by_rest = || number(fields, &["pending", "pending_jobs"]).map(|pending| pending <= 0.0);
    by_status.or_else(by_end).or_else(by_rest)
}

/// Reads the ids of a batch's jobs.
pub(super) fn ids(list: &Value) -> Result<Vec<String>, String> {
    let elements = list.as_array().ok_or("it is no list")?;
    elements.iter().map(|element| scalar(element).ok_or_else(|| format!("{element} is no id"))).collect()
}

fn object(value: &Value) -> Result<&Map<String, Value>, String> {
    value.as_object().ok_or_else(|| "it is no object".to_owned())
}

fn state_of(name: &str) -> Option<TrackedState> {
    Some(match name.to_ascii_lowercase().as_str() {
        "queued" | "pending" | "waiting" => TrackedState::Queued,
        "processing" | "running" | "in_progress" | "started" => TrackedState::Processing,
        "completed" | "complete" | "done" | "finished" | "success" => TrackedState::Completed,
        "failed" | "error" => TrackedState::Failed,
        "cancelled" | "canceled" => TrackedState::Cancelled,
        _ => return None,
    })
}

fn context(fields: &Map<String, Value>) -> Option<TrackedContext> {
    let inner = fields.get("context").and_then(Value::as_object);
    let part = |name: &str| {
        let within = inner.and_then(|inner| inner.get(name)).and_then(scalar);
        within.or_else(|| text(fields, &[&format!("context_{name}")]))
    };
    Some(TrackedContext { kind: part("type")?, id: part("id")?, field: part("field") })
}

fn text(fields: &Map<String, Value>, names: &[&str]) -> Option<String> {
    names.iter().find_map(|name| scalar(fields.get(*name)?)).filter(|text| !text.is_empty())
}

fn scalar(value: &Value) -> Option<String> {
    match value {
        Value::String(text) => Some(text.clone()),
        Value::Number(number) => Some(number.to_string()),
        _ => None,
    }
}

fn number(fields: &Map<String, Value>, names: &[&str]) -> Option<f64> {
    names.iter().find_map(|name| match fields.get(*name)? {
        Value::Number(number) => number.as_f64(),
        Value::String(text) => text.trim_end_matches('%').parse().ok(),
        _ => None,
    })
}

fn whole(number: f64) -> Option<i64> {
    // Beyond it a float does not hold every whole number.
    let is_whole = number.fract() == 0.0 && (0.0..=9_007_199_254_740_992.0).contains(&number);
    is_whole.then(|| format!("{number:.0}").parse().ok()).flatten()
}

/// 0 to 1 as it is; more than 1 was meant of 100.
fn fraction(number: f64) -> Option<f64> {
    let fraction = if number > 1.0 { number / 100.0 } else { number };
    (0.0..=1.0).contains(&fraction).then_some(fraction)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn job_is_read_in_the_spellings_of_others() {
        let read = job(json!({
            "id": 7, "status": "Running", "action": "translate", "message": "page 2", "progress": 40,
            "context": {"type": "product", "id": 42, "field": "title"}, "user_id": 9, "batch_id": "b1",
            "processed": 2, "total": 5, "result": {"n": 1},
        }))
        .unwrap();
        assert_eq!((read.action.as_str(), read.owner.as_deref()), ("translate", Some("9")));
        assert_eq!(read.context.map(|context| context.id).as_deref(), Some("42"));
        assert_eq!((read.report.state, read.report.progress), (Some(TrackedState::Processing), Some(0.4)));
        assert_eq!((read.report.items_done, read.report.items_total), (Some(2), Some(5)));
        assert_eq!(read.report.data.as_deref(), Some("{\"n\":1}"));
        let flat =
            job(json!({"state": "error", "error": "no quota", "context_type": "a", "context_id": "b"}))
                .unwrap();
        assert_eq!((flat.report.message.as_deref(), flat.context.is_some()), (Some("no quota"), true));
        assert!(flat.report.problems().is_empty());
    }

    #[test]
    fn batch_has_ended_when_it_says_so() {
        for (value, has_ended) in [
            (json!({"status": "processing"}), Some(false)),
            (json!({"status": "Pending", "finished_at": "2026-01-01"}), Some(false)),
            (json!({"status": "partial_failure"}), Some(true)),
            (json!({"state": "cancelled"}), Some(true)),
            (json!({"finished_at": 1_700_000_000}), Some(true)),
            (json!({"finished_at": null, "pending_jobs": 2}), Some(false)),
            (json!({"pending_jobs": 0}), Some(true)),
            (json!({"status": "odd"}), None),
            (json!({"total": 3}), None),
        ] {
            assert_eq!(batch(value.clone()).map(|batch| batch.has_ended), Ok(has_ended), "{value}");
        }
    }

    #[test]
    fn what_cannot_be_read_is_refused_with_its_reason() {
        for (value, reason) in
            [(json!([]), "no object"), (json!({}), "no status"), (json!({"status": "odd"}), "`odd`")]
        {
            let error = job(value).unwrap_err();
            assert!(error.contains(reason), "{error}");
        }
        assert!(ids(&json!({})).is_err() && ids(&json!([[1]])).is_err());
        assert_eq!(ids(&json!(["a", 7])), Ok(vec!["a".to_owned(), "7".to_owned()]));
    }

    #[test]
    fn string_of_a_php_cache_is_unwrapped() {
        assert_eq!(json(b"{\"a\":1}"), Ok(json!({"a": 1})));
        assert_eq!(json(b"s:7:\"{\"a\":1}\";"), Ok(json!({"a": 1})));
        assert!(json(b"s:8:\"{\"a\":1}\";").is_err(), "its length is wrong");
        assert!(json(b"a:1:{i:0;i:1;}").unwrap_err().contains("PHP"));
        assert!(json(b"\xff").is_err());
    }
}
