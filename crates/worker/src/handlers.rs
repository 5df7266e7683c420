//! Handlers by name.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use async_trait::async_trait;
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

use crate::build::BuildContext;
use crate::context::Context;
use crate::failure::Failure;
use crate::publisher::{PublishContext, Publisher, PublisherFunction, StepEnd};

/// Does a job.
#[async_trait]
pub trait Handler: Send + Sync + 'static {
    /// One attempt. The input is the job's; the output is kept with it.
    async fn run(&self, context: Context, input: Value) -> Result<Value, Failure>;
}

/// Builds a view.
#[async_trait]
pub trait Builder: Send + Sync + 'static {
    /// One attempt. What was put is published when it returns `Ok`.
    async fn build(&self, context: BuildContext) -> Result<(), Failure>;
}

/// What a name stands for.
#[derive(Clone)]
pub enum Registered {
    /// Does jobs.
    Job(Arc<dyn Handler>),
    /// Builds views.
    View(Arc<dyn Builder>),
}

/// Why something cannot be registered.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RegisterError {
    /// The name is taken.
    #[error("handler `{0}` is registered twice")]
    Duplicate(String),
    /// The name is none.
    #[error("`{name}` cannot be registered: {why}")]
    Invalid {
        /// As it was given.
        name: String,
        /// What is wrong with it.
        why: &'static str,
    },
}

/// What is told of a handler to people and tools, in the registry of handlers. Nothing is decided by it.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Description {
    /// Its version: `1.4.0`. Versions are put in order as semantic versions are.
    pub version: Option<String>,
    /// What it takes, as JSON Schema, at most [`INPUT_SCHEMA_BYTES_MAX`] bytes. A handler's input is checked by its type, and by its
    /// template's schema; this only tells.
    pub input_schema: Option<Value>,
}

/// Longest JSON Schema of a handler's input, in bytes.
pub const INPUT_SCHEMA_BYTES_MAX: usize = 16 * 1024;

/// What a step of a template calls.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Call {
    /// The handler's name, as the template writes it.
    pub callable: String,
    /// Which of its methods; `None`: its main one.
    pub method: Option<String>,
}

/// Finds handlers by rules of its own, for templates that name it as `handler.resolver`.
pub trait Resolver: Send + Sync + 'static {
    /// The handler that this call means; `None`: there is none, which fails the step for good. Asked at every attempt: it must be quick.
    fn resolve(&self, call: &Call) -> Option<Arc<dyn Handler>>;
}

/// Why a call means nothing here; its code is that of the failure.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NotFound {
    /// `unknown_handler` or `unknown_method`.
    pub code: &'static str,
    /// What is not there.
    pub message: String,
}

/// With what the work of a resolver is marked, where handlers are named.
const RESOLVER_MARK: char = '@';
/// How the work for all names that begin alike is marked.
const PREFIX_MARK: &str = ".*";
const NAME_BYTES_MAX: usize = 256;

/// Handlers, builders and publishers by name.
///
/// A template finds a handler by its `callable` ([`job`](Self::job)), one of its methods by `method`
/// ([`method`](Self::method)), any of a family of names by `resolver: prefix` ([`prefix`](Self::prefix)), or by a
/// resolver of your own ([`resolver`](Self::resolver)). It finds the publisher of an event by its name alone
/// ([`publisher`](Self::publisher)); publishers and handlers may have the same names.
#[derive(Clone, Default)]
pub struct Handlers {
    by_name: BTreeMap<String, Registered>,
    /// By handler and method.
    methods: BTreeMap<(String, String), Arc<dyn Handler>>,
    resolvers: BTreeMap<String, Arc<dyn Resolver>>,
    publishers: BTreeMap<String, Arc<dyn Publisher>>,
    descriptions: BTreeMap<String, Description>,
}

impl fmt::Debug for Handlers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.names()).finish()
    }
}

impl Handlers {
    /// None yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Registers an async function of context and typed input. Input that does not fit the type is a permanent
    /// failure with code `invalid_input`.
    pub fn job<I, O, F, R>(&mut self, name: &str, function: F) -> Result<(), RegisterError>
    where
        I: DeserializeOwned + Send + 'static,
        O: Serialize + Send + 'static,
        F: Fn(Context, I) -> R + Send + Sync + 'static,
        R: Future<Output = Result<O, Failure>> + Send + 'static,
    {
        self.register(name, Registered::Job(handler(function)))
    }

    /// Registers a method of a handler, for steps that name it as `handler.method`. The handler itself need not be there: then
    /// it has no main method.
    pub fn method<I, O, F, R>(&mut self, name: &str, method: &str, function: F) -> Result<(), RegisterError>
    where
        I: DeserializeOwned + Send + 'static,
        O: Serialize + Send + 'static,
        F: Fn(Context, I) -> R + Send + Sync + 'static,
        R: Future<Output = Result<O, Failure>> + Send + 'static,
    {
        check_name(name)?;
        check_name(method)?;
        if matches!(self.by_name.get(name), Some(Registered::View(_))) {
            let why = "it builds views, and such a handler has no methods";
            return Err(RegisterError::Invalid { name: name.to_owned(), why });
        }
        let key = (name.to_owned(), method.to_owned());
        if self.methods.contains_key(&key) {
            return Err(RegisterError::Duplicate(format!("{name}.{method}")));
        }
        self.methods.insert(key, handler(function));
        Ok(())
    }

    /// Registers one function for every name that begins with `prefix`, which ends with a dot, for steps that say
    /// `handler.resolver: prefix`. Which name was called is in the context's facts. A name belongs to the prefix up to its last dot, and to
    /// no shorter one.
    pub fn prefix<I, O, F, R>(&mut self, prefix: &str, function: F) -> Result<(), RegisterError>
    where
        I: DeserializeOwned + Send + 'static,
        O: Serialize + Send + 'static,
        F: Fn(Context, I) -> R + Send + Sync + 'static,
        R: Future<Output = Result<O, Failure>> + Send + 'static,
    {
        let Some(family) = prefix.strip_suffix('.') else {
            return Err(RegisterError::Invalid { name: prefix.to_owned(), why: "a prefix ends with a dot" });
        };
        check_name(family)?;
        self.insert(format!("{family}{PREFIX_MARK}"), Registered::Job(handler(function)))
    }

    /// Registers who finds handlers for steps that name it as `handler.resolver`.
    pub fn resolver(&mut self, name: &str, resolver: Arc<dyn Resolver>) -> Result<(), RegisterError> {
        check_name(name)?;
        if ["exact", "prefix"].contains(&name) {
            return Err(RegisterError::Invalid { name: name.to_owned(), why: "it is built in" });
        }
        if self.resolvers.contains_key(name) {
            return Err(RegisterError::Duplicate(name.to_owned()));
        }
        self.resolvers.insert(name.to_owned(), resolver);
        Ok(())
    }

    /// Registers an async function that builds a view.
    pub fn view<F, R>(&mut self, name: &str, function: F) -> Result<(), RegisterError>
    where
        F: Fn(BuildContext) -> R + Send + Sync + 'static,
        R: Future<Output = Result<(), Failure>> + Send + 'static,
    {
        self.register(name, Registered::View(Arc::new(ViewFunction(function))))
    }

    /// Registers an async function that makes payloads of events from the ends of steps, for events with `publisher: NAME`. A result that does
    /// not fit the type is a permanent failure with code `invalid_result`: take [`Value`] to see all of them.
    ///
    /// ```
    /// use recache_worker::{Failure, Handlers, PublishContext, StepEnd};
    /// use serde_json::json;
    ///
    /// let mut handlers = Handlers::new();
    /// handlers.publisher("order_payload", async |context: PublishContext, end: StepEnd| {
    ///     Ok::<_, Failure>(match end {
    ///         StepEnd::Completed { result } => json!({ "order": result["id"], "step": context.step }),
    ///         StepEnd::Retrying { error } | StepEnd::Failed { error } => json!({ "why": error.message }),
    ///     })
    /// })?;
    /// # Ok::<(), recache_worker::RegisterError>(())
    /// ```
    pub fn publisher<R, O, F, P>(&mut self, name: &str, function: F) -> Result<(), RegisterError>
    where
        R: DeserializeOwned + Send + 'static,
        O: Serialize + Send + 'static,
        F: Fn(PublishContext, StepEnd<R>) -> P + Send + Sync + 'static,
        P: Future<Output = Result<O, Failure>> + Send + 'static,
    {
        let types = std::marker::PhantomData;
        self.register_publisher(name, Arc::new(PublisherFunction { function, types }))
    }

    /// Registers any publisher under a name.
    pub fn register_publisher(
        &mut self,
        name: &str,
        publisher: Arc<dyn Publisher>,
    ) -> Result<(), RegisterError> {
        check_name(name)?;
        if self.publishers.contains_key(name) {
            let why = "a publisher has this name already";
            return Err(RegisterError::Invalid { name: name.to_owned(), why });
        }
        self.publishers.insert(name.to_owned(), publisher);
        Ok(())
    }

    /// The publisher of this name.
    pub fn get_publisher(&self, name: &str) -> Option<&Arc<dyn Publisher>> {
        self.publishers.get(name)
    }

    /// All publishers, in order.
    pub fn publisher_names(&self) -> Vec<String> {
        self.publishers.keys().cloned().collect()
    }

    /// Registers anything under a name.
    pub fn register(&mut self, name: &str, registered: Registered) -> Result<(), RegisterError> {
        check_name(name)?;
        let has_methods = self.methods.keys().any(|(handler, _)| handler == name);
        if has_methods && matches!(registered, Registered::View(_)) {
            let why = "it has methods, and a handler that builds views has none";
            return Err(RegisterError::Invalid { name: name.to_owned(), why });
        }
        self.insert(name.to_owned(), registered)
    }

    /// Describes what is registered under a name: a handler, `order.*` for a prefix, `@name` for a resolver.
    pub fn describe(&mut self, name: &str, description: Description) -> Result<(), RegisterError> {
        let invalid = |why| Err(RegisterError::Invalid { name: name.to_owned(), why });
        if !self.names().iter().any(|known| known == name) {
            return invalid("nothing is registered under this name");
        }
        let is_version = |version: &String| {
            (1..=NAME_BYTES_MAX).contains(&version.len()) && !version.chars().any(char::is_control)
        };
        if !description.version.iter().all(is_version) {
            return invalid("a version has 1 to 256 bytes and no control characters");
        }
        match &description.input_schema {
            None | Some(Value::Bool(_)) => {}
            Some(schema @ Value::Object(_)) if schema.to_string().len() <= INPUT_SCHEMA_BYTES_MAX => {}
            Some(Value::Object(_)) => return invalid("a schema has at most 16 KiB"),
            Some(_) => return invalid("a JSON Schema is an object, true or false"),
        }
        self.descriptions.insert(name.to_owned(), description);
        Ok(())
    }

    /// What was told of it; nothing where nothing was.
    pub fn description(&self, name: &str) -> Description {
        self.descriptions.get(name).cloned().unwrap_or_default()
    }

    fn insert(&mut self, name: String, registered: Registered) -> Result<(), RegisterError> {
        if self.by_name.contains_key(&name) {
            return Err(RegisterError::Duplicate(name));
        }
        self.by_name.insert(name, registered);
        Ok(())
    }

    /// What a name stands for by itself.
    pub fn get(&self, name: &str) -> Option<&Registered> {
        self.by_name.get(name)
    }

    /// What does the work of a job whose handler is `name`; `call` is there for a step that asks for a method or a resolver.
    pub fn find(&self, name: &str, call: Option<&Call>) -> Result<Registered, NotFound> {
        let unknown = |message: String| NotFound { code: "unknown_handler", message };
        if let (Some(resolver), Some(call)) = (name.strip_prefix(RESOLVER_MARK), call) {
            let resolver = self
                .resolvers
                .get(resolver)
                .ok_or_else(|| unknown(format!("no resolver `{resolver}` here")))?;
            let found = resolver.resolve(call);
            return found
                .map(Registered::Job)
                .ok_or_else(|| unknown(format!("the resolver knows no handler `{}`", call.callable)));
        }
        match call.and_then(|call| call.method.as_ref()) {
            Some(method) => {
                let found = self.methods.get(&(name.to_owned(), method.clone()));
                let missing = || NotFound {
                    code: "unknown_method",
                    message: format!("handler `{name}` has no method `{method}` here"),
                };
                found.cloned().map(Registered::Job).ok_or_else(missing)
            }
            None => self.get(name).cloned().ok_or_else(|| unknown(format!("no handler `{name}` here"))),
        }
    }

    /// All that jobs can name, in order: handlers, `order.*` for a prefix, `@name` for a resolver.
    pub fn names(&self) -> Vec<String> {
        let resolvers = self.resolvers.keys().map(|name| format!("{RESOLVER_MARK}{name}"));
        let methods = self.methods.keys().map(|(name, _)| name.clone());
        let mut names: Vec<String> = self.by_name.keys().cloned().chain(methods).chain(resolvers).collect();
        names.sort_unstable();
        names.dedup();
        names
    }
}

fn check_name(name: &str) -> Result<(), RegisterError> {
    let why = if name.is_empty() || name.len() > NAME_BYTES_MAX {
        "a name has 1 to 256 bytes"
    } else if name.starts_with(RESOLVER_MARK) || name.ends_with(PREFIX_MARK) {
        "names that begin with `@` or end with `.*` have a meaning of their own"
    } else if name.chars().any(char::is_control) {
        "a name holds no control characters"
    } else {
        return Ok(());
    };
    Err(RegisterError::Invalid { name: name.to_owned(), why })
}

fn handler<I, O, F, R>(function: F) -> Arc<dyn Handler>
where
    I: DeserializeOwned + Send + 'static,
    O: Serialize + Send + 'static,
    F: Fn(Context, I) -> R + Send + Sync + 'static,
    R: Future<Output = Result<O, Failure>> + Send + 'static,
{
    Arc::new(JobFunction { function, types: std::marker::PhantomData })
}

impl fmt::Debug for Registered {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Job(_) => "Job",
            Self::View(_) => "View",
        })
    }
}

struct JobFunction<F, I, O> {
    function: F,
    types: std::marker::PhantomData<fn(I) -> O>,
}

#[async_trait]
impl<F, I, O, R> Handler for JobFunction<F, I, O>
where
    I: DeserializeOwned + Send + 'static,
    O: Serialize + Send + 'static,
    F: Fn(Context, I) -> R + Send + Sync + 'static,
    R: Future<Output = Result<O, Failure>> + Send + 'static,
{
    async fn run(&self, context: Context, input: Value) -> Result<Value, Failure> {
        let input =
            serde_json::from_value(input).map_err(|error| Failure::permanent("invalid_input", error))?;
        let output = (self.function)(context, input).await?;
        serde_json::to_value(output).map_err(|error| Failure::permanent("invalid_output", error))
    }
}

struct ViewFunction<F>(F);

#[async_trait]
impl<F, R> Builder for ViewFunction<F>
where
    F: Fn(BuildContext) -> R + Send + Sync + 'static,
    R: Future<Output = Result<(), Failure>> + Send + 'static,
{
    async fn build(&self, context: BuildContext) -> Result<(), Failure> {
        (self.0)(context).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Everything;

    #[async_trait]
    impl Handler for Everything {
        async fn run(&self, _: Context, input: Value) -> Result<Value, Failure> {
            Ok(input)
        }
    }

    struct OnlyOrders;

    impl Resolver for OnlyOrders {
        fn resolve(&self, call: &Call) -> Option<Arc<dyn Handler>> {
            let found: Arc<dyn Handler> = Arc::new(Everything);
            call.callable.starts_with("orders.").then_some(found)
        }
    }

    fn handlers() -> Handlers {
        let mut handlers = Handlers::new();
        let nothing = || async |_: Context, input: Value| Ok(input);
        handlers.job("orders", nothing()).unwrap();
        handlers.method("orders", "quick", nothing()).unwrap();
        handlers.prefix("mail.", nothing()).unwrap();
        handlers.resolver("registry", Arc::new(OnlyOrders)).unwrap();
        handlers.view("prices", async |_: BuildContext| Ok(())).unwrap();
        handlers
    }

    fn call(callable: &str, method: Option<&str>) -> Call {
        Call { callable: callable.to_owned(), method: method.map(str::to_owned) }
    }

    #[test]
    fn names_are_what_jobs_can_name() {
        assert_eq!(handlers().names(), ["@registry", "mail.*", "orders", "prices"]);
    }

    #[test]
    fn call_is_found_by_name_method_prefix_and_resolver() {
        let handlers = handlers();
        let found = |name: &str, call: Option<Call>| handlers.find(name, call.as_ref());
        assert!(found("orders", None).is_ok());
        assert!(found("orders", Some(call("orders", Some("quick")))).is_ok());
        assert!(found("mail.*", Some(call("mail.send", None))).is_ok());
        assert!(found("@registry", Some(call("orders.check", None))).is_ok());
        for (name, asked, code) in [
            ("order", None, "unknown_handler"),
            ("orders", Some(call("orders", Some("slow"))), "unknown_method"),
            ("@registry", Some(call("bank.pay", None)), "unknown_handler"),
            ("@other", Some(call("orders.check", None)), "unknown_handler"),
        ] {
            assert_eq!(found(name, asked).unwrap_err().code, code, "{name}");
        }
    }

    #[test]
    fn publishers_have_names_of_their_own() {
        let mut handlers = handlers();
        let make = || async |_: PublishContext, end: StepEnd| Ok(end);
        handlers.publisher("orders", make()).unwrap();
        assert!(handlers.publisher("orders", make()).is_err());
        assert!(handlers.publisher("", make()).is_err() && handlers.publisher("a.*", make()).is_err());
        assert_eq!(handlers.publisher_names(), ["orders"]);
        assert!(handlers.get_publisher("orders").is_some() && handlers.get_publisher("mail").is_none());
        assert_eq!(handlers.names(), ["@registry", "mail.*", "orders", "prices"]);
    }

    #[test]
    fn description_is_of_what_is_registered_and_within_its_limits() {
        let mut handlers = handlers();
        let described = |version: &str, schema: Value| Description {
            version: Some(version.to_owned()),
            input_schema: Some(schema),
        };
        let good = described("1.2.0", serde_json::json!({ "type": "object" }));
        for name in ["orders", "mail.*", "@registry", "prices"] {
            handlers.describe(name, good.clone()).unwrap();
            assert_eq!(handlers.description(name), good);
        }
        assert_eq!(handlers.description("unknown"), Description::default());
        let large = serde_json::json!({ "title": "x".repeat(INPUT_SCHEMA_BYTES_MAX) });
        for (name, bad) in [
            ("unknown", good.clone()),
            ("orders", described("", Value::Bool(true))),
            ("orders", described("1\n", Value::Bool(true))),
            ("orders", described("1", Value::from(7))),
            ("orders", described("1", large)),
        ] {
            assert!(handlers.describe(name, bad).is_err(), "{name}");
        }
        assert_eq!(handlers.description("orders"), good, "what is refused changes nothing");
    }

    #[test]
    fn what_cannot_be_called_is_refused_when_it_is_registered() {
        let mut handlers = handlers();
        let nothing = || async |_: Context, input: Value| Ok(input);
        for name in ["", "@x", "a.*", "a\nb"] {
            assert!(matches!(handlers.job(name, nothing()), Err(RegisterError::Invalid { .. })), "{name:?}");
        }
        assert_eq!(handlers.job("orders", nothing()), Err(RegisterError::Duplicate("orders".to_owned())));
        assert!(handlers.method("orders", "quick", nothing()).is_err());
        assert!(handlers.method("prices", "quick", nothing()).is_err());
        assert!(handlers.prefix("mail", nothing()).is_err() && handlers.prefix("mail.", nothing()).is_err());
        assert!(handlers.resolver("prefix", Arc::new(OnlyOrders)).is_err());
        assert!(handlers.resolver("registry", Arc::new(OnlyOrders)).is_err());
    }
}
