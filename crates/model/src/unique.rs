//! Which jobs count as the same, and what a second submit of the same job does.
//!
//! A *unique key* keeps two of the same job from being there at once. What "the same" means is a rule of the submit: by a
//! name, by handler and arguments, within a period, and in which states the first one still stands in the way. An
//! *idempotency key* is something else: it makes one submit safe to repeat, for [`IDEMPOTENCY_KEEP`], whatever
//! became of the job.

use std::time::Duration;

use serde_json::Value;

use crate::job::JobState;
use crate::time::{Timestamp, micros};

/// How long an idempotency key is remembered: 7 days.
pub const IDEMPOTENCY_KEEP: Duration = Duration::from_hours(7 * 24);
/// Longest idempotency key, unique key or concurrency key, in bytes.
pub const KEY_BYTES_MAX: usize = 256;

/// What a submit does when the same job is there already.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum OnDuplicate {
    /// The submit is refused as a conflict, and with it all jobs of the call.
    Reject,
    /// The submit answers the id of the job that is there.
    #[default]
    Return,
    /// While the job that is there is still queued, it takes over everything that the new one says, and keeps its id. Once it
    /// runs or has ended the submit is refused, because the new arguments would be lost.
    Replace,
}

/// When two jobs of one namespace and handler count as the same.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct UniqueRule {
    /// Jobs with different keys differ. Without one, all jobs of the handler are alike as far as this goes.
    pub key: Option<String>,
    /// Jobs with different arguments differ: the input as a JSON value, whatever the order of its keys. Numbers are compared
    /// as 64-bit numbers.
    pub by_arguments: bool,
    /// Jobs submitted in different periods differ. Periods follow each other from 1970 on: with 1 h, what is submitted at
    /// 10:59 and at 11:01 differs.
    pub period: Option<Duration>,
    /// States besides those of a job that has not ended in which the first one still stands in the way of a second: for
    /// "once a day, even when it is done", [`JobState::Completed`]. A job that retention has removed stands in no way.
    pub also_ended: Vec<JobState>,
    /// What a second submit does.
    pub on_duplicate: OnDuplicate,
}

impl UniqueRule {
    /// One job of this key that has not ended; a second submit finds it.
    pub fn by_key(key: impl Into<String>) -> Self {
        Self { key: Some(key.into()), ..Self::default() }
    }

    /// What is wrong with it.
    pub fn problems(&self) -> Vec<String> {
        let mut problems = Vec::new();
        if let Some(key) = &self.key {
            problems.extend(key_problem("unique key", key));
        }
        if self.period.is_some_and(|period| period < Duration::from_millis(1)) {
            problems.push("unique period must be at least 1 ms".to_owned());
        }
        for state in &self.also_ended {
            if !state.is_terminal() {
                problems.push(format!(
                    "unique: a job that is {state} always stands in the way; name only states of jobs that ended"
                ));
            }
        }
        problems
    }

    /// The text that is the same for jobs that count as the same: 32 hexadecimal digits.
    pub fn identity(&self, namespace: &str, handler: &str, input: &str, now: Timestamp) -> String {
        let mut hash = PartsHash::default();
        hash.part(namespace);
        hash.part(handler);
        hash.maybe(self.key.as_deref());
        let arguments = self.by_arguments.then(|| {
            let mut text = String::new();
            match serde_json::from_str::<Value>(input) {
                Ok(value) => write_sorted(&value, &mut text),
                Err(_) => text.push_str(input),
            }
            text
        });
        hash.maybe(arguments.as_deref());
        let period = self.period.map(|period| {
            let length = micros(period).max(1);
            format!("{length}:{}", now.micros().div_euclid(length))
        });
        hash.maybe(period.as_deref());
        hash.hex(32)
    }

    /// The states of [`UniqueRule::also_ended`] as the store keeps them: one bit each ([`ended_bit`]).
    pub fn ended_bits(&self) -> i64 {
        self.also_ended.iter().fold(0, |bits, state| bits | ended_bit(*state))
    }
}

/// The bit of a terminal state; 0 for any other. The store's unique index spells the same numbers.
pub fn ended_bit(state: JobState) -> i64 {
    match state {
        JobState::Blocked | JobState::Queued | JobState::Running => 0,
        JobState::Completed => 1,
        JobState::Failed => 2,
        JobState::Cancelled => 4,
        JobState::Superseded => 8,
        JobState::Skipped => 16,
        JobState::Resolved => 32,
    }
}

/// What is wrong with a key of this kind, if anything.
pub fn key_problem(kind: &str, key: &str) -> Option<String> {
    (key.is_empty() || key.len() > KEY_BYTES_MAX || key.contains('\0')).then(|| {
        format!("{kind} must have 1 to {KEY_BYTES_MAX} bytes and no NUL, and has {} bytes", key.len())
    })
}

/// Hashes a row of texts so that no two rows share a hash by the way they are joined.
#[derive(Debug, Default)]
pub struct PartsHash(blake3::Hasher);

impl PartsHash {
    /// The next text.
    pub fn part(&mut self, text: &str) {
        self.0.update(&u64::try_from(text.len()).unwrap_or(u64::MAX).to_le_bytes());
        self.0.update(text.as_bytes());
    }

    /// The next text, or that there is none, which differs from every text.
    pub fn maybe(&mut self, text: Option<&str>) {
        match text {
            Some(text) => {
                self.part("some");
                self.part(text);
            }
            None => self.part("none"),
        }
    }

    /// The first `digits` hexadecimal digits, at most 64.
    pub fn hex(&self, digits: usize) -> String {
        let mut hex = self.0.finalize().to_hex().to_string();
        hex.truncate(digits);
        hex
    }
}

/// JSON with the keys of every object sorted, whatever the map behind [`Value`] does.
fn write_sorted(value: &Value, text: &mut String) {
    match value {
        Value::Array(elements) => {
            text.push('[');
            for element in elements {
                write_sorted(element, text);
                text.push(',');
            }
            text.push(']');
        }
        Value::Object(fields) => {
            let mut fields: Vec<_> = fields.iter().collect();
            fields.sort_by_key(|(name, _)| *name);
            text.push('{');
            for (name, field) in fields {
                text.push_str(&Value::from(name.as_str()).to_string());
                text.push(':');
                write_sorted(field, text);
                text.push(',');
            }
            text.push('}');
        }
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {
            text.push_str(&value.to_string());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOUR: Duration = Duration::from_hours(1);

    fn at(seconds: i64) -> Timestamp {
        Timestamp::from_micros(seconds * 1_000_000)
    }

    #[test]
    fn jobs_differ_by_what_the_rule_names_and_by_nothing_else() {
        let id = |rule: &UniqueRule, input: &str| rule.identity("n", "h", input, at(0));
        let rule = UniqueRule::default();
        assert_eq!(id(&rule, "1"), id(&rule, "2"));
        assert_ne!(rule.identity("n", "h", "1", at(0)), rule.identity("n", "g", "1", at(0)));
        assert_ne!(rule.identity("n", "h", "1", at(0)), rule.identity("m", "h", "1", at(0)));
        let keyed = UniqueRule::by_key("k");
        assert_ne!(id(&keyed, "1"), id(&rule, "1"));
        assert_ne!(id(&keyed, "1"), id(&UniqueRule::by_key("l"), "1"));
        let by_arguments = UniqueRule { by_arguments: true, ..UniqueRule::default() };
        assert_ne!(id(&by_arguments, "1"), id(&by_arguments, "2"));
        assert_eq!(
            id(&by_arguments, r#"{"a":1,"b":{"c":[2,3],"d":null}}"#),
            id(&by_arguments, r#" {"b": {"d":null, "c":[2, 3]}, "a":1}"#)
        );
        assert_ne!(id(&by_arguments, "[[1],2]"), id(&by_arguments, "[[1,2]]"));
    }

    #[test]
    fn parts_are_not_confused_by_how_they_are_joined() {
        let rule = UniqueRule::default();
        assert_ne!(rule.identity("ab", "c", "", at(0)), rule.identity("a", "bc", "", at(0)));
        assert_ne!(
            UniqueRule::by_key("none").identity("n", "h", "", at(0)),
            UniqueRule::default().identity("n", "h", "", at(0))
        );
    }

    #[test]
    fn periods_follow_each_other_without_overlap() {
        let rule = UniqueRule { period: Some(HOUR), ..UniqueRule::default() };
        let id = |seconds| rule.identity("n", "h", "", at(seconds));
        assert_eq!(id(0), id(3599));
        assert_ne!(id(3599), id(3600));
        assert_ne!(id(-1), id(0), "before 1970 too");
        let other = UniqueRule { period: Some(HOUR * 2), ..UniqueRule::default() };
        assert_ne!(id(0), other.identity("n", "h", "", at(0)), "another length is another rule");
    }

    #[test]
    fn each_terminal_state_has_a_bit_of_its_own() {
        let bits: Vec<i64> = JobState::ALL.into_iter().map(ended_bit).filter(|bit| *bit != 0).collect();
        assert_eq!(bits, [1, 2, 4, 8, 16, 32]);
        let rule =
            UniqueRule { also_ended: vec![JobState::Completed, JobState::Resolved], ..UniqueRule::default() };
        assert_eq!(rule.ended_bits(), 33);
    }

    #[test]
    fn every_problem_of_a_rule_is_named() {
        let rule = UniqueRule {
            key: Some(String::new()),
            period: Some(Duration::ZERO),
            also_ended: vec![JobState::Running],
            ..UniqueRule::default()
        };
        assert_eq!(rule.problems().len(), 3, "{:?}", rule.problems());
        assert!(UniqueRule::by_key("k").problems().is_empty());
    }
}
