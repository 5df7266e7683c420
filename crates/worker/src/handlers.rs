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

/// A name was registered twice.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("handler `{0}` is registered twice")]
pub struct DuplicateHandler(pub String);

/// Handlers and builders by name.
#[derive(Clone, Default)]
pub struct Handlers {
    by_name: BTreeMap<String, Registered>,
}

impl fmt::Debug for Handlers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.by_name.keys()).finish()
    }
}

impl Handlers {
    /// None yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Registers an async function of context and typed input. Input that does not fit the type is a permanent
    /// failure with code `invalid_input`.
    pub fn job<I, O, F, R>(&mut self, name: &str, function: F) -> Result<(), DuplicateHandler>
    where
        I: DeserializeOwned + Send + 'static,
        O: Serialize + Send + 'static,
        F: Fn(Context, I) -> R + Send + Sync + 'static,
        R: Future<Output = Result<O, Failure>> + Send + 'static,
    {
        self.register(
            name,
            Registered::Job(Arc::new(JobFunction { function, types: std::marker::PhantomData })),
        )
    }

    /// Registers an async function that builds a view.
    pub fn view<F, R>(&mut self, name: &str, function: F) -> Result<(), DuplicateHandler>
    where
        F: Fn(BuildContext) -> R + Send + Sync + 'static,
        R: Future<Output = Result<(), Failure>> + Send + 'static,
    {
        self.register(name, Registered::View(Arc::new(ViewFunction(function))))
    }

    /// Registers anything under a name.
    pub fn register(&mut self, name: &str, registered: Registered) -> Result<(), DuplicateHandler> {
        if self.by_name.contains_key(name) {
            return Err(DuplicateHandler(name.to_owned()));
        }
        self.by_name.insert(name.to_owned(), registered);
        Ok(())
    }

    /// What a name stands for.
    pub fn get(&self, name: &str) -> Option<&Registered> {
        self.by_name.get(name)
    }

    /// All names, in order.
    pub fn names(&self) -> Vec<String> {
        self.by_name.keys().cloned().collect()
    }
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
