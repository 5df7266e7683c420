//! Retry policies.

use std::time::Duration;

use crate::template::environment::RetryOverlay;
use crate::template::fields::{Fields, Given, Reader};
use crate::template::limits::{ATTEMPTS_MAX, BACKOFF_MS_MAX};
use crate::template::problems::Path;
use crate::template::shape::RETRY;
use crate::template::step::RetrySpec;
use crate::template::tree::{Content, Node};

impl<'t> Reader<'t, '_> {
    /// A whole policy: what is not given has its default.
    pub(super) fn retry(&mut self, node: &'t Node, path: Path<'_>) -> Option<RetrySpec> {
        let base = RetrySpec::default();
        let (given, fields) = self.retry_given(node, path)?;
        let retry = given.over(&base);
        self.delays_agree(&retry, &fields, path).then_some(retry)
    }

    /// What is given of a policy; none only if a problem was told.
    pub(super) fn retry_given(
        &mut self,
        node: &'t Node,
        path: Path<'_>,
    ) -> Option<(RetryOverlay, Fields<'t>)> {
        let mut retry = RetryOverlay::default();
        let fields = self.fields(node, path, &RETRY)?;
        let before = self.problems.count();
        let at = |given: Given<'t>| Path::Field(&path, given.spelling);
        if let Some(given) = fields.get("retryable") {
            retry.retryable = self.boolean(given, at(given));
        }
        if let Some(given) = fields.get("max_attempts") {
            let value = self.integer(given, at(given), 0, ATTEMPTS_MAX.into());
            // None at all would be a step that never runs; 0 has always meant "once, without retries".
            retry.max_attempts = value.map(|value| u32::try_from(value).unwrap_or(ATTEMPTS_MAX).max(1));
        }
        if let Some(given) = fields.get("backoff") {
            retry.backoff = self.word(given, at(given), "backoff");
        }
        if let Some(given) = fields.get("backoff_base_ms") {
            retry.backoff_base_ms = self.delay(given, at(given), "initial_delay");
        }
        if let Some(given) = fields.get("max_backoff_ms") {
            retry.max_backoff_ms = self.delay(given, at(given), "max_delay");
        }
        if let Some(given) = fields.get("jitter") {
            retry.jitter = match &given.node.content {
                Content::Bool(true) => Some(RetrySpec::default().jitter),
                Content::Bool(false) => Some(0.0),
                _ => self.fraction(given, at(given)),
            };
        }
        (self.problems.count() == before).then_some((retry, fields))
    }

    /// Whether the first delay is not longer than the longest; told at the field among `fields` that says so.
    pub(super) fn delays_agree(&mut self, retry: &RetrySpec, fields: &Fields<'t>, path: Path<'_>) -> bool {
        let agree = retry.backoff_base_ms <= retry.max_backoff_ms;
        if !agree {
            let message = format!(
                "the first delay, {} ms, is longer than the longest, {} ms",
                retry.backoff_base_ms, retry.max_backoff_ms
            );
            let suggestion = Some("raise `max_backoff_ms`, or lower `backoff_base_ms`".to_owned());
            match fields.get("backoff_base_ms").or_else(|| fields.get("max_backoff_ms")) {
                Some(given) => {
                    let path = Path::Field(&path, given.spelling);
                    self.problem("out_of_range", given.node.position, path, message, suggestion);
                }
                // An overlay that gives neither, where another one does.
                None => self.problem("out_of_range", fields.position, path, message, suggestion),
            }
        }
        agree
    }

    /// A delay in milliseconds, or in seconds where it is spelled `in_seconds`.
    fn delay(&mut self, given: Given<'t>, path: Path<'_>, in_seconds: &str) -> Option<u64> {
        if given.spelling == in_seconds {
            let delay = self.seconds(given, path, true, Duration::from_millis(BACKOFF_MS_MAX))?;
            return u64::try_from(delay.as_millis()).ok();
        }
        let max = i64::try_from(BACKOFF_MS_MAX).unwrap_or(i64::MAX);
        self.integer(given, path, 0, max).and_then(|value| u64::try_from(value).ok())
    }
}
