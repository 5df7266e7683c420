//! Dry runs: results that are given instead of handlers, and built-in handlers in place of others.
//!
//! A dry run keeps nothing and calls nothing but what it is told to: it is for templates, not for work.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use async_trait::async_trait;
use recache_model::template::{Handler as StepHandler, Step, Template};
use recache_worker::{Call, Context, Failure, Handler, Handlers, RegisterError, Registered, Resolver};
use serde::Deserialize;
use serde_json::Value;

use super::input::read_json_file;
use super::{RunArgs, builtin};
use crate::cli_error::{CliError, ExitStatus};

/// A result that is one of these is a failure.
const FAIL: &str = "$fail";

/// What stands in for handlers.
#[derive(Debug, Clone, Default)]
pub(super) struct StandIns {
    results: Option<BTreeMap<String, Value>>,
    /// Patterns of callables and the built-in handlers that do them; the first that fits counts.
    mapped: Vec<(String, String)>,
    /// The built-in handlers that there are.
    names: Vec<&'static str>,
}

/// `{"$fail": {…}}` in place of a result.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Given {
    kind: GivenKind,
    #[serde(default)]
    code: Option<String>,
    message: String,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
enum GivenKind {
    Retryable,
    Permanent,
}

/// Reads `PATTERN=HANDLER`.
pub(super) fn parse_mapping(text: &str) -> Result<(String, String), String> {
    let Some((pattern, name)) = text.split_once('=') else {
        return Err("write PATTERN=HANDLER, such as 'orders.*=echo'".to_owned());
    };
    if pattern.is_empty() {
        return Err("the pattern is empty; * means every handler".to_owned());
    }
    if !builtin::NAMES.contains(&name) {
        return Err(format!("`{name}` is not built in; there are {}", builtin::NAMES.join(", ")));
    }
    Ok((pattern.to_owned(), name.to_owned()))
}

/// Whether `text` is of the form of `pattern`, in which `*` stands for anything, dots too.
fn fits(pattern: &str, text: &str) -> bool {
    let mut parts = pattern.split('*');
    let Some(mut rest) = parts.next().and_then(|first| text.strip_prefix(first)) else { return false };
    let mut parts = parts.peekable();
    if parts.peek().is_none() {
        return rest.is_empty();
    }
    while let Some(part) = parts.next() {
        if parts.peek().is_none() {
            return rest.ends_with(part);
        }
        match rest.find(part) {
            Some(at) => rest = &rest[at + part.len()..],
            None => return false,
        }
    }
    true
}

impl StandIns {
    /// What the arguments ask for; all that is wrong with it.
    pub(super) fn read(
        args: &RunArgs,
        options: &builtin::Options,
        has_database: bool,
    ) -> Result<Self, Vec<CliError>> {
        let mut errors = Vec::new();
        let results = args.results.as_deref().and_then(|path| {
            let read =
                read_json_file(path, "results").and_then(|value| results(value, &path.display().to_string()));
            read.map_err(|error| errors.push(error)).ok()
        });
        let stand_ins = Self { results, mapped: args.handlers.clone(), names: options.names() };
        if has_database && (args.results.is_some() || !args.handlers.is_empty()) {
            let what = "a dry run cannot have a database: what is given would stand in for the handlers of other workflows too";
            errors.push(CliError::new("E-DRY-RUN", ExitStatus::Usage, what).help("leave --database out"));
        }
        if errors.is_empty() { Ok(stand_ins) } else { Err(errors) }
    }

    /// Whether anything stands in for anything.
    pub(super) fn is_dry(&self) -> bool {
        self.results.is_some() || !self.mapped.is_empty()
    }

    /// The result that is given for a step.
    fn given(&self, step: &str) -> Option<&Value> {
        self.results.as_ref()?.get(step)
    }

    /// The built-in handler that does what a step calls; `None`: none does, or a result is given.
    pub(super) fn built_in(&self, step: &Step) -> Option<&str> {
        if self.given(&step.name).is_some() {
            return None;
        }
        self.does(&step.handler.as_ref()?.callable)
    }

    fn does(&self, callable: &str) -> Option<&str> {
        let mapped = self.mapped.iter().find(|(pattern, _)| fits(pattern, callable));
        mapped
            .map(|(_, name)| name.as_str())
            .or_else(|| self.names.iter().copied().find(|name| *name == callable))
    }

    /// Steps that nothing would do, and results that no step takes.
    pub(super) fn check(&self, template: &Template) -> Vec<CliError> {
        let error = |what: String| CliError::new("E-DRY-RUN", ExitStatus::Failed, what);
        let mut errors = Vec::new();
        for step in template.steps() {
            let Some(handler) = &step.handler else { continue };
            if self.given(&step.name).is_none() && self.does(&handler.callable).is_none() {
                let what = format!("step {}: nothing does `{}`", step.name, handler.callable);
                let help = format!(
                    "give its result as \"{}\" in --results, or say --handler '{}=echo'",
                    step.name, handler.callable
                );
                errors.push(error(what).at(template.name()).help(help));
            }
        }
        let names: BTreeSet<&str> = template.steps().iter().map(|step| step.name.as_str()).collect();
        for name in self.results.iter().flatten().map(|(name, _)| name) {
            if !names.contains(name.as_str()) {
                let what = format!("there is a result for `{name}`, and no such step");
                errors.push(error(what).at("--results").help("results are named by steps"));
            }
        }
        errors
    }

    /// Handlers for all that the steps call.
    pub(super) fn handlers(
        &self,
        template: &Template,
        built_in: Handlers,
    ) -> Result<Handlers, RegisterError> {
        if !self.is_dry() {
            return Ok(built_in);
        }
        let doer = Arc::new(StandIn { stand_ins: self.clone(), built_in });
        let mut handlers = Handlers::new();
        let mut seen = BTreeSet::new();
        for handler in template.steps().iter().filter_map(|step| step.handler.as_ref()) {
            let name = handler.claimed_as().unwrap_or_else(|| handler.callable.clone());
            if seen.insert((name, handler.method.clone())) {
                register(&mut handlers, handler, &doer)?;
            }
        }
        Ok(handlers)
    }
}

fn register(
    handlers: &mut Handlers,
    handler: &StepHandler,
    doer: &Arc<StandIn>,
) -> Result<(), RegisterError> {
    let of = |callable: Option<String>| {
        let doer = Arc::clone(doer);
        move |context: Context, input: Value| {
            let (doer, callable) = (Arc::clone(&doer), callable.clone());
            async move { doer.run_as(callable, context, input).await }
        }
    };
    match (handler.resolver.as_deref(), &handler.method) {
        (None | Some("exact"), None) => handlers.register(
            &handler.callable,
            Registered::Job(Arc::new(As(handler.callable.clone(), Arc::clone(doer)))),
        ),
        (None | Some("exact"), Some(method)) => {
            handlers.method(&handler.callable, method, of(Some(handler.callable.clone())))
        }
        (Some("prefix"), _) => {
            let family = handler.callable.rsplit_once('.').map_or("", |(family, _)| family);
            handlers.prefix(&format!("{family}."), of(None))
        }
        (Some(resolver), _) => handlers.resolver(resolver, Arc::new(Everything(Arc::clone(doer)))),
    }
}

/// Does every step of a dry run.
struct StandIn {
    stand_ins: StandIns,
    built_in: Handlers,
}

impl StandIn {
    async fn run_as(
        &self,
        callable: Option<String>,
        context: Context,
        input: Value,
    ) -> Result<Value, Failure> {
        context.checkpoint().await?;
        let step = context.facts().step.clone().unwrap_or_default();
        if let Some(given) = self.stand_ins.given(&step) {
            return taken(given);
        }
        let callable = callable.unwrap_or_else(|| context.facts().handler.clone());
        let found = self.stand_ins.does(&callable).and_then(|name| self.built_in.get(name));
        match found {
            Some(Registered::Job(handler)) => handler.run(context, input).await,
            _ => Err(Failure::permanent("no_result", format!("no result is given for step `{step}`"))),
        }
    }
}

/// A handler of its own name.
struct As(String, Arc<StandIn>);

#[async_trait]
impl Handler for As {
    async fn run(&self, context: Context, input: Value) -> Result<Value, Failure> {
        self.1.run_as(Some(self.0.clone()), context, input).await
    }
}

struct Everything(Arc<StandIn>);

impl Resolver for Everything {
    fn resolve(&self, call: &Call) -> Option<Arc<dyn Handler>> {
        Some(Arc::new(As(call.callable.clone(), Arc::clone(&self.0))))
    }
}

fn taken(given: &Value) -> Result<Value, Failure> {
    let Some(fail) = given.get(FAIL) else { return Ok(given.clone()) };
    let Given { kind, code, message } =
        serde_json::from_value(fail.clone()).map_err(|error| Failure::permanent("no_result", error))?;
    Err(match kind {
        GivenKind::Permanent => Failure::permanent(code.unwrap_or_else(|| "given".to_owned()), message),
        GivenKind::Retryable => Failure::Retryable { code, message, after: None },
    })
}

fn results(value: Value, file: &str) -> Result<BTreeMap<String, Value>, CliError> {
    let error = |what: String| CliError::new("E-DRY-RUN", ExitStatus::Failed, what).at(file);
    let Value::Object(results) = value else {
        return Err(error("results are an object: step names and their results".to_owned())
            .help("such as {\"fetch\": {\"rows\": 7}}"));
    };
    for (step, given) in &results {
        if let Some(fail) = given.get(FAIL)
            && let Err(cause) = serde_json::from_value::<Given>(fail.clone())
        {
            return Err(error(format!("the failure of step `{step}` cannot be read: {cause}"))
                .help("such as {\"$fail\": {\"kind\": \"permanent\", \"code\": \"no_stock\", \"message\": \"none left\"}}"));
        }
    }
    Ok(results.into_iter().collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pattern_fits_with_stars_for_anything() {
        for (pattern, text, expected) in [
            ("*", "anything.at.all", true),
            ("orders.*", "orders.check", true),
            ("orders.*", "orders", false),
            ("*.check", "orders.check", true),
            ("o*s.c*k", "orders.check", true),
            ("o*x*k", "orders.check", false),
            ("orders", "orders", true),
            ("orders", "orders.check", false),
            ("a*a", "a", false),
        ] {
            assert_eq!(fits(pattern, text), expected, "{pattern} {text}");
        }
    }

    #[test]
    fn mapping_names_a_built_in_handler() {
        assert_eq!(parse_mapping("a.*=echo"), Ok(("a.*".to_owned(), "echo".to_owned())));
        for wrong in ["a", "=echo", "a=shout"] {
            assert!(parse_mapping(wrong).is_err(), "{wrong}");
        }
    }
}
