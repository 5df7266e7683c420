//! One builder for programs that embed Recache.

use std::sync::Arc;

use recache_cache::Cache;
use recache_engine::{Courier, Engine, Error, Options, Result};
use recache_model::ids::JobId;
use recache_model::job::JobState;
use recache_store::{NewJob, OpenOptions, Store, open};
use recache_worker::{Handlers, Subscribers};
use serde::Serialize;
use serde::de::DeserializeOwned;

/// Describes a program's engine.
#[derive(Debug)]
pub struct AppBuilder {
    database: OpenOptions,
    handlers: Handlers,
    subscribers: Subscribers,
    options: Options,
    cache: Option<Cache>,
    courier: Option<Arc<dyn Courier>>,
}

/// Begins to describe an engine over the database of this URL: `sqlite:jobs.db`, `sqlite::memory:`, `postgres://…`.
///
/// ```
/// # tokio::runtime::Runtime::new().unwrap().block_on(async {
/// use recache::{Context, Handlers};
///
/// let mut handlers = Handlers::new();
/// handlers.job("double", async |_: Context, n: i64| Ok(n * 2))?;
///
/// let app = recache::app("sqlite::memory:").handlers(handlers).start().await?;
/// assert_eq!(app.run::<i64>("double", &21).await?, 42);
/// app.shut_down().await;
/// # Ok::<(), Box<dyn std::error::Error>>(()) }).unwrap();
/// ```
pub fn app(database_url: &str) -> AppBuilder {
    AppBuilder {
        database: OpenOptions::new(database_url),
        handlers: Handlers::new(),
        subscribers: Subscribers::new(),
        options: Options::default(),
        cache: None,
        courier: None,
    }
}

impl AppBuilder {
    /// What the worker in this process can do; without handlers it only submits, touches and reads.
    pub fn handlers(mut self, handlers: Handlers) -> Self {
        self.handlers = handlers;
        self
    }

    /// Who is told of events here.
    pub fn subscribers(mut self, subscribers: Subscribers) -> Self {
        self.subscribers = subscribers;
        self
    }

    /// How the engine runs.
    pub fn options(mut self, options: Options) -> Self {
        self.options = options;
        self
    }

    /// How the database is opened.
    pub fn database(mut self, options: OpenOptions) -> Self {
        self.database = options;
        self
    }

    /// What views and templates are read through; see [`recache_engine::Builder::cache`].
    pub fn cache(mut self, cache: Cache) -> Self {
        self.cache = Some(cache);
        self
    }

    /// Carries webhooks; without one this process sends none.
    pub fn courier(mut self, courier: Arc<dyn Courier>) -> Self {
        self.courier = Some(courier);
        self
    }

    /// Opens the database, brings its tables up to date, and starts the engine.
    pub async fn start(self) -> Result<App> {
        let store = open(&self.database).await?;
        let mut builder = Engine::builder(Arc::clone(&store))
            .handlers(self.handlers)
            .subscribers(self.subscribers)
            .options(self.options);
        if let Some(cache) = self.cache {
            builder = builder.cache(cache);
        }
        if let Some(courier) = self.courier {
            builder = builder.courier(courier);
        }
        match builder.start().await {
            Ok(engine) => Ok(App { engine, store }),
            Err(error) => {
                store.close().await;
                Err(error)
            }
        }
    }
}

/// A running engine and its database; cheap to clone.
#[derive(Debug, Clone)]
pub struct App {
    engine: Engine,
    store: Arc<dyn Store>,
}

impl App {
    /// The engine: workflows, views, cancelling, events.
    pub fn engine(&self) -> &Engine {
        &self.engine
    }

    /// Stores a job with this input. When this returns, it survives any crash.
    pub async fn submit<I: Serialize + Sync>(&self, handler: &str, input: &I) -> Result<JobId> {
        let input = serde_json::to_string(input)
            .map_err(|error| Error::Invalid(format!("the input is not JSON: {error}")))?;
        self.engine.submit(NewJob::new(handler, input)).await
    }

    /// Waits for a job's end; its result, or an error that says why there is none.
    pub async fn wait<T: DeserializeOwned>(&self, job: JobId) -> Result<T> {
        let record = self.engine.wait_for_job(job).await?;
        match (record.state, &record.output) {
            (JobState::Completed, Some(output)) => serde_json::from_str(output)
                .map_err(|error| Error::Invalid(format!("the result of {job} does not fit: {error}"))),
            (state, _) => {
                let why = record.error.map(|error| format!(": {}", error.message)).unwrap_or_default();
                Err(Error::Invalid(format!("{job} is {state}{why}")))
            }
        }
    }

    /// Submits and waits.
    pub async fn run<T: DeserializeOwned>(
        &self,
        handler: &str,
        input: &(impl Serialize + Sync),
    ) -> Result<T> {
        let job = self.submit(handler, input).await?;
        self.wait(job).await
    }

    /// Lets running handlers end, hands back what is left, and closes the database.
    pub async fn shut_down(&self) {
        self.engine.shut_down().await;
        self.store.close().await;
    }
}
