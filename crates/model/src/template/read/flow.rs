//! Expressions, and what decides by them when, how often and in whose stead a step runs.

use std::time::Duration;

use semver::VersionReq;

use crate::template::expression::Expression;
use crate::template::fields::{Given, Reader};
use crate::template::flow::{
    Awaited, CacheReuse, ConcurrencyKey, ForEach, OnTimeout, RateLimit, SubWorkflow, WaitFor,
};
use crate::template::limits::{
    CACHE_INPUTS_MAX, CACHE_MS_MAX, EXPRESSIONS_MAX, FOR_EACH_CHILDREN_DEFAULT, FOR_EACH_CHILDREN_MAX,
    RATE_PERIOD_MS_MAX, RUNS_MAX, VERSION_BYTES_MAX, WAIT_MS_MAX,
};
use crate::template::problems::{Path, shown};
use crate::template::shape::{CACHE, CONCURRENCY, FOR_EACH, RATE_LIMIT, WAIT_FOR, WORKFLOW};
use crate::template::tree::Content;

/// What expressions of one step can see.
#[derive(Debug, Clone, Copy)]
pub(super) struct Visible<'a> {
    /// Names of the steps whose results are there.
    pub(super) results: &'a [&'a str],
    /// Whether it has children, which see `item` and `index`.
    pub(super) is_for_each: bool,
}

impl<'t> Reader<'t, '_> {
    /// An expression, compiled, that asks only for what is there.
    pub(super) fn expression(
        &mut self,
        given: Given<'t>,
        path: Path<'_>,
        visible: Visible<'_>,
    ) -> Option<Expression> {
        let source = self.text(given, path)?;
        let at = given.node.position;
        self.expressions = self.expressions.saturating_add(1);
        if self.expressions > EXPRESSIONS_MAX {
            if self.expressions == EXPRESSIONS_MAX + 1 {
                let message = format!("the template has more than {EXPRESSIONS_MAX} expressions");
                self.problem("too_large", at, path, message, None);
            }
            return None;
        }
        let expression = match Expression::compile(source) {
            Ok(expression) => expression,
            Err(error) => {
                let message =
                    format!("`{}` is no usable expression: {error}: {}", given.spelling, shown(source));
                self.problem("bad_expression", at, path, message, error.suggestion);
                return None;
            }
        };
        let before = self.problems.count();
        for name in expression.names() {
            let mut segments = name.split('.');
            let root = segments.next().unwrap_or_default();
            let known: &[&str] = if visible.is_for_each {
                &["input", "results", "item", "index"]
            } else {
                &["input", "results"]
            };
            if !known.contains(&root) {
                let message = format!("`{}` asks for {}, which is not there", given.spelling, shown(root));
                let guess = self.suggester.did_you_mean(root, known.iter().copied());
                let suggestion = guess.or_else(|| Some(format!("it can see {}", known.join(", "))));
                self.problem("bad_expression", at, path, message, suggestion);
            } else if root == "results"
                && let Some(step) = segments.next()
                && !visible.results.contains(&step)
            {
                let message = format!(
                    "`{}` asks for the result of {}, on which the step does not depend",
                    given.spelling,
                    shown(step)
                );
                let guess = self.suggester.did_you_mean(step, visible.results.iter().copied());
                let suggestion = guess.or_else(|| Some("add it to the step's `dependencies`".to_owned()));
                self.problem("bad_expression", at, path, message, suggestion);
            }
        }
        (self.problems.count() == before).then_some(expression)
    }

    /// `for_each`: the list's expression, or that with a limit.
    pub(super) fn for_each(
        &mut self,
        given: Given<'t>,
        path: Path<'_>,
        visible: Visible<'_>,
    ) -> Option<ForEach> {
        let visible = Visible { is_for_each: false, ..visible };
        if is_text(given) {
            let items = self.expression(given, path, visible)?;
            return Some(ForEach { items, limit: FOR_EACH_CHILDREN_DEFAULT });
        }
        let fields = self.fields(given.node, path, &FOR_EACH)?;
        let at = |given: Given<'t>| Path::Field(&path, given.spelling);
        let limit = match fields.get("limit") {
            Some(given) => self.count(given, at(given), 1, FOR_EACH_CHILDREN_MAX),
            None => Some(FOR_EACH_CHILDREN_DEFAULT),
        };
        let items = self.required(&fields, "items", path, &FOR_EACH)?;
        let items = self.expression(items, at(items), visible)?;
        Some(ForEach { items, limit: limit? })
    }

    /// `concurrency_key`: the key's expression, or that with a limit.
    pub(super) fn concurrency_key(
        &mut self,
        given: Given<'t>,
        path: Path<'_>,
        visible: Visible<'_>,
    ) -> Option<ConcurrencyKey> {
        if is_text(given) {
            return Some(ConcurrencyKey { key: self.expression(given, path, visible)?, limit: 1 });
        }
        let fields = self.fields(given.node, path, &CONCURRENCY)?;
        let at = |given: Given<'t>| Path::Field(&path, given.spelling);
        let limit = match fields.get("limit") {
            Some(given) => self.count(given, at(given), 1, RUNS_MAX),
            None => Some(1),
        };
        let key = self.required(&fields, "key", path, &CONCURRENCY)?;
        let key = self.expression(key, at(key), visible)?;
        Some(ConcurrencyKey { key, limit: limit? })
    }

    /// `rate_limit`.
    pub(super) fn rate_limit(
        &mut self,
        given: Given<'t>,
        path: Path<'_>,
        visible: Visible<'_>,
    ) -> Option<RateLimit> {
        let before = self.problems.count();
        let fields = self.fields(given.node, path, &RATE_LIMIT)?;
        let at = |given: Given<'t>| Path::Field(&path, given.spelling);
        let limit = self.required(&fields, "limit", path, &RATE_LIMIT);
        let limit = limit.and_then(|given| self.count(given, at(given), 1, RUNS_MAX));
        let per = match fields.get("per_seconds") {
            Some(given) => self.seconds(given, at(given), false, Duration::from_millis(RATE_PERIOD_MS_MAX)),
            None => Some(Duration::from_secs(1)),
        };
        let key = fields.get("key").and_then(|given| self.expression(given, at(given), visible));
        if self.problems.count() > before {
            return None;
        }
        Some(RateLimit { limit: limit?, per: per?, key })
    }

    /// `wait_for`: a signal or an approval.
    pub(super) fn wait_for(&mut self, given: Given<'t>, path: Path<'_>) -> Option<WaitFor> {
        let before = self.problems.count();
        let fields = self.fields(given.node, path, &WAIT_FOR)?;
        let at = |given: Given<'t>| Path::Field(&path, given.spelling);
        let timeout = fields
            .get("timeout_seconds")
            .and_then(|given| self.seconds(given, at(given), false, Duration::from_millis(WAIT_MS_MAX)));
        let on_timeout = match fields.get("on_timeout") {
            Some(given) => self.word(given, at(given), "end of a wait")?,
            None => OnTimeout::default(),
        };
        let awaited = match (fields.get("signal"), fields.get("approval")) {
            (Some(given), None) => self.name(given, at(given)).map(|name| Awaited::Signal(name.to_owned())),
            (None, Some(given)) => self.name(given, at(given)).map(|name| Awaited::Approval(name.to_owned())),
            (Some(_), Some(second)) => {
                let message = "a step waits for a signal or for an approval, not for both".to_owned();
                let help = Some("keep one, and give the other to a step of its own".to_owned());
                self.problem("conflicting_fields", second.key_position, at(second), message, help);
                None
            }
            (None, None) => {
                let message = "`wait_for` lacks `signal` or `approval`".to_owned();
                self.problem("missing_field", fields.position, path, message, None);
                None
            }
        };
        if let (Some(given), None, true) =
            (fields.get("on_timeout"), timeout, fields.get("timeout_seconds").is_none())
        {
            let message = "`on_timeout` says nothing without `timeout_seconds`".to_owned();
            let help = Some("give `timeout_seconds`, or remove `on_timeout`".to_owned());
            self.problem("conflicting_fields", given.key_position, at(given), message, help);
        }
        if self.problems.count() > before {
            return None;
        }
        Some(WaitFor { awaited: awaited?, timeout, on_timeout })
    }

    /// `workflow`: the template's name, or that with what else is to be said.
    pub(super) fn sub_workflow(
        &mut self,
        given: Given<'t>,
        path: Path<'_>,
        visible: Visible<'_>,
    ) -> Option<SubWorkflow> {
        if is_text(given) {
            let name = self.name(given, path)?.to_owned();
            return Some(SubWorkflow { name, namespace: None, version: None, input: None });
        }
        let before = self.problems.count();
        let fields = self.fields(given.node, path, &WORKFLOW)?;
        let at = |given: Given<'t>| Path::Field(&path, given.spelling);
        let name = self.required(&fields, "name", path, &WORKFLOW);
        let name = name.and_then(|given| self.name(given, at(given))).map(str::to_owned);
        let namespace =
            fields.get("namespace_name").and_then(|given| self.name(given, at(given))).map(str::to_owned);
        let version = fields.get("version").and_then(|given| self.version_range(given, at(given)));
        let input = fields.get("input").and_then(|given| self.expression(given, at(given), visible));
        if self.problems.count() > before {
            return None;
        }
        Some(SubWorkflow { name: name?, namespace, version, input })
    }

    fn version_range(&mut self, given: Given<'t>, path: Path<'_>) -> Option<VersionReq> {
        let text = self.text(given, path)?;
        let reason = if text.len() > VERSION_BYTES_MAX {
            format!("it has {} bytes, the limit is {VERSION_BYTES_MAX}", text.len())
        } else {
            match VersionReq::parse(text) {
                Ok(range) => return Some(range),
                Err(error) => error.to_string(),
            }
        };
        let message = format!("`{}` is no range of versions: {} ({reason})", given.spelling, shown(text));
        let help = Some("write \"=1.2.0\" for one, \"^1.2\" for those that are compatible".to_owned());
        self.problem("bad_version", given.node.position, path, message, help);
        None
    }

    /// `cache`.
    pub(super) fn cache_reuse(
        &mut self,
        given: Given<'t>,
        path: Path<'_>,
        visible: Visible<'_>,
    ) -> Option<CacheReuse> {
        const DAY: Duration = Duration::from_secs(24 * 60 * 60);
        let before = self.problems.count();
        let fields = self.fields(given.node, path, &CACHE)?;
        let at = |given: Given<'t>| Path::Field(&path, given.spelling);
        let ttl = match fields.get("ttl_seconds") {
            Some(given) => self.seconds(given, at(given), false, Duration::from_millis(CACHE_MS_MAX)),
            None => Some(DAY),
        };
        let given = self.required(&fields, "inputs", path, &CACHE)?;
        let path = at(given);
        let items = self.bounded_list(given, path, CACHE_INPUTS_MAX)?;
        if items.is_empty() {
            let message = "a result is used again for the same inputs; name at least one".to_owned();
            let help = Some("write [\"input\"] for the workflow's whole input".to_owned());
            self.problem("missing_field", given.node.position, path, message, help);
        }
        let mut inputs = Vec::with_capacity(items.len());
        for (index, item) in items.iter().enumerate() {
            let item = Given { node: self.tree.node(*item), ..given };
            inputs.extend(self.expression(item, Path::Item(&path, index), visible));
        }
        if self.problems.count() > before {
            return None;
        }
        Some(CacheReuse { inputs, ttl: ttl? })
    }
}

/// Whether the short form was written.
fn is_text(given: Given<'_>) -> bool {
    matches!(given.node.content, Content::Text(_))
}
