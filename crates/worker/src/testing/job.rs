//! A job as a handler finds it.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use serde_json::Value;
use uuid::Uuid;

use super::ended::Ended;
use super::reported::Reported;
use super::running::Running;
use crate::build::Touched;
use crate::context::JobFacts;
use crate::handlers::{Call, Handlers};
use crate::stop::Stop;

/// How many attempts there may be, unless said otherwise: as many as of a job that is submitted.
const ATTEMPTS_MAX: u32 = 3;
/// How long a handler has to stop, unless said otherwise.
const GRACE: Duration = Duration::from_secs(5);

/// Why a document is no job.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("this is no job: {0}")]
pub struct DocumentError(String);

/// Whether a handler has reported what is waited for.
pub(super) type Condition = Arc<dyn Fn(&Reported) -> bool + Send + Sync>;

/// An item that exists before a build.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Existing {
    pub(super) fingerprint: Option<String>,
    pub(super) value: Value,
}

/// The view that is built.
#[derive(Debug, Clone)]
pub(super) struct Build {
    pub(super) key: String,
    pub(super) version: i64,
    pub(super) live_version: i64,
    pub(super) touched: Touched,
    pub(super) live: BTreeMap<String, Existing>,
    pub(super) staged: BTreeMap<String, Existing>,
}

/// One attempt of a job, to be [run](Self::run). What is not said is as of a job that was just submitted: the first attempt of three, in
/// namespace `default`, with the input `null`.
#[derive(Clone)]
pub struct TestJob {
    pub(super) facts: JobFacts,
    pub(super) input: Value,
    pub(super) timeout: Option<Duration>,
    pub(super) grace: Duration,
    pub(super) build: Option<Build>,
    pub(super) stops: Vec<(Stop, Condition)>,
    pub(super) unreachable: Option<Condition>,
    /// The name under which a handler is registered, and a custom resolver's too, where it is not the job's own.
    pub(super) claimed_as: Option<String>,
    /// What is wrong with the job itself: told when it runs, so that making one needs no `?`.
    pub(super) problem: Option<String>,
}

impl fmt::Debug for TestJob {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TestJob")
            .field("facts", &self.facts)
            .field("input", &self.input)
            .field("build", &self.build)
            .finish_non_exhaustive()
    }
}

impl TestJob {
    /// The first attempt of a job of this handler.
    pub fn new(handler: &str) -> Self {
        let facts = JobFacts {
            id: Uuid::from_u128(1),
            handler: handler.to_owned(),
            namespace: "default".to_owned(),
            attempt: 1,
            attempts_max: ATTEMPTS_MAX,
            attempt_token: "test-1".to_owned(),
            correlation_id: "test".to_owned(),
            ..JobFacts::default()
        };
        Self {
            facts,
            input: Value::Null,
            timeout: None,
            grace: GRACE,
            build: None,
            stops: Vec::new(),
            unreachable: None,
            claimed_as: None,
            problem: None,
        }
    }

    /// From a job as a server gives it to a worker (`jobs` of the answer to `POST /v1/workers/{session}/call`), or as much of one as matters: all
    /// but `handler` may be left out. A field that no job has is refused.
    ///
    /// ```
    /// use recache_worker::testing::{Settlement, TestJob};
    /// use recache_worker::{Context, Handlers};
    /// use serde_json::json;
    ///
    /// # tokio::runtime::Runtime::new()?.block_on(async {
    /// let mut handlers = Handlers::new();
    /// handlers.job("double", async |_: Context, number: i64| Ok(2 * number))?;
    /// let job = TestJob::from_document(r#"{ "handler": "double", "input": 21, "attempt": 2 }"#)?;
    /// assert_eq!(job.run(&handlers).await.settlement, Settlement::Completed(json!(42)));
    /// # Ok::<(), Box<dyn std::error::Error>>(()) })?;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn from_document(json: &str) -> Result<Self, DocumentError> {
        let document: Document =
            serde_json::from_str(json).map_err(|error| DocumentError(error.to_string()))?;
        let mut job = Self::new(&document.handler);
        let facts = &mut job.facts;
        if let Some(id) = document.id {
            let bare = id.rsplit('_').next().unwrap_or_default();
            facts.id =
                Uuid::parse_str(bare).map_err(|_| DocumentError(format!("`{id}` is no id of a job")))?;
        }
        facts.method = document.method;
        facts.namespace = document.namespace.unwrap_or_else(|| facts.namespace.clone());
        facts.attempt = document.attempt.unwrap_or(facts.attempt);
        facts.attempts_max = document.attempts_max.unwrap_or(facts.attempts_max.max(facts.attempt));
        facts.attempt_token = document.token.unwrap_or_else(|| format!("test-{}", facts.attempt));
        facts.correlation_id = document.correlation_id.unwrap_or_else(|| facts.correlation_id.clone());
        facts.trace_context = document.trace_context;
        facts.step = document.step;
        facts.settings = document.settings.unwrap_or_default();
        facts.results = document.results;
        (facts.item, facts.index, facts.signal) = (document.item, document.index, document.signal);
        facts.checkpoint = document.checkpoint.map(|checkpoint| checkpoint.to_string());
        job.input = document.input;
        job.timeout = document.timeout_ms.map(Duration::from_millis);
        job.claimed_as = document.claimed_as;
        if document.build {
            job.builds();
        }
        Ok(job)
    }

    /// What the job was submitted with.
    pub fn input<T: Serialize + ?Sized>(mut self, input: &T) -> Self {
        self.input = self.value("the input", input);
        self
    }

    /// Whose it is.
    pub fn namespace(mut self, namespace: &str) -> Self {
        namespace.clone_into(&mut self.facts.namespace);
        self
    }

    /// Which attempt it is, counted from 1, and how many there may be.
    pub fn attempt(mut self, attempt: u32, attempts_max: u32) -> Self {
        (self.facts.attempt, self.facts.attempts_max) = (attempt, attempts_max);
        self.facts.attempt_token = format!("test-{attempt}");
        self
    }

    /// What an earlier attempt kept.
    pub fn checkpoint<T: Serialize + ?Sized>(mut self, checkpoint: &T) -> Self {
        self.facts.checkpoint = Some(self.value("the checkpoint", checkpoint).to_string());
        self
    }

    /// How long the attempt may run; then it is [stopped](Stop::Timeout).
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.timeout = Some(timeout);
        self
    }

    /// How long the handler has to stop by itself when it shall; then it is dropped. Five seconds unless said otherwise.
    pub fn grace(mut self, grace: Duration) -> Self {
        self.grace = grace;
        self
    }

    /// Everything else that is known of the job: `job.facts(|facts| facts.correlation_id = "order-7".to_owned())`.
    pub fn facts(mut self, change: impl FnOnce(&mut JobFacts)) -> Self {
        change(&mut self.facts);
        self
    }

    /// It is a step of a workflow, of this name.
    pub fn step(mut self, step: &str) -> Self {
        self.facts.step = Some(step.to_owned());
        self
    }

    /// The step asks for this method of the handler.
    pub fn method(mut self, method: &str) -> Self {
        self.facts.method = Some(method.to_owned());
        self
    }

    /// The step has this [`Resolver`](crate::Resolver) find its handler.
    pub fn resolver(mut self, resolver: &str) -> Self {
        self.claimed_as = Some(format!("@{resolver}"));
        self
    }

    /// What a step returned that this one waited for.
    pub fn result<T: Serialize + ?Sized>(mut self, step: &str, result: &T) -> Self {
        let result = self.value("a result", result);
        self.facts.results.insert(step.to_owned(), result);
        self
    }

    /// The element, and its place, that this run of a split step is for.
    pub fn item<T: Serialize + ?Sized>(mut self, item: &T, index: u64) -> Self {
        self.facts.item = Some(self.value("the element", item));
        self.facts.index = Some(index);
        self
    }

    /// What came with the signal or approval that the step waited for.
    pub fn signal<T: Serialize + ?Sized>(mut self, signal: &T) -> Self {
        self.facts.signal = Some(self.value("the signal", signal));
        self
    }

    /// The step's `handler.initialization`.
    pub fn settings<T: Serialize + ?Sized>(mut self, settings: &T) -> Self {
        self.facts.settings = self.value("the settings", settings);
        self
    }

    /// The view that is built: by the handler, or, for a [part](crate::Context::build_part), by the step's workflow. Version 1, of which nothing
    /// is live yet, unless said otherwise.
    pub fn view(mut self, key: &str) -> Self {
        key.clone_into(&mut self.builds().key);
        self
    }

    /// The version that the build makes, and the one that readers see meanwhile.
    pub fn version(mut self, version: i64, live_version: i64) -> Self {
        let build = self.builds();
        (build.version, build.live_version) = (version, live_version);
        self
    }

    /// An item of the live version.
    pub fn live<T: Serialize + ?Sized>(mut self, item: &str, fingerprint: Option<&str>, value: &T) -> Self {
        let existing =
            Existing { value: self.value("an item", value), fingerprint: fingerprint.map(str::to_owned) };
        let build = self.builds();
        build.live.insert(item.to_owned(), existing);
        if build.live_version == 0 {
            (build.live_version, build.version) = (build.version, build.version + 1);
        }
        self
    }

    /// An item that a build made which came to nothing: one with its fingerprint can be taken over.
    pub fn staged<T: Serialize + ?Sized>(mut self, item: &str, fingerprint: Option<&str>, value: &T) -> Self {
        let existing =
            Existing { value: self.value("an item", value), fingerprint: fingerprint.map(str::to_owned) };
        self.builds().staged.insert(item.to_owned(), existing);
        self
    }

    /// Only these items were touched since the live version; without it anything may have changed.
    pub fn touched(mut self, items: &[&str]) -> Self {
        self.builds().touched = Touched::Only(items.iter().map(|item| (*item).to_owned()).collect());
        self
    }

    /// The handler shall stop, for this reason, as soon as it has reported what `when` looks for; `|_| true`: before it begins. It is called after every
    /// report, and must not wait.
    pub fn stop_when(mut self, why: Stop, when: impl Fn(&Reported) -> bool + Send + Sync + 'static) -> Self {
        self.stops.push((why, Arc::new(when)));
        self
    }

    /// Whoever keeps the job cannot be reached as soon as the handler has reported what `when` looks for: reports fail from then on.
    pub fn unreachable_when(mut self, when: impl Fn(&Reported) -> bool + Send + Sync + 'static) -> Self {
        self.unreachable = Some(Arc::new(when));
        self
    }

    /// Runs it to its end.
    pub async fn run(self, handlers: &Handlers) -> Ended {
        self.start(handlers).end().await
    }

    /// Begins it, beside the test.
    pub fn start(self, handlers: &Handlers) -> Running {
        Running::start(self, handlers.clone())
    }

    pub(super) fn claimed_as(&self, handlers: &Handlers) -> String {
        let name = &self.facts.handler;
        let names = handlers.names();
        // As a template with `resolver: prefix` would, if only such a name can be meant.
        let family = || {
            let family = name.rsplit_once('.').map(|(family, _)| format!("{family}.*"))?;
            (!names.contains(name) && names.contains(&family)).then_some(family)
        };
        self.claimed_as.clone().or_else(family).unwrap_or_else(|| name.clone())
    }

    pub(super) fn call(&self) -> Call {
        Call { callable: self.facts.handler.clone(), method: self.facts.method.clone() }
    }

    fn builds(&mut self) -> &mut Build {
        self.build.get_or_insert_with(|| Build {
            key: "view".to_owned(),
            version: 1,
            live_version: 0,
            touched: Touched::All,
            live: BTreeMap::new(),
            staged: BTreeMap::new(),
        })
    }

    fn value<T: Serialize + ?Sized>(&mut self, what: &str, value: &T) -> Value {
        serde_json::to_value(value).unwrap_or_else(|error| {
            self.problem.get_or_insert_with(|| format!("{what} is no JSON: {error}"));
            Value::Null
        })
    }
}

/// A job of the worker protocol.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Document {
    handler: String,
    token: Option<String>,
    id: Option<String>,
    claimed_as: Option<String>,
    method: Option<String>,
    namespace: Option<String>,
    #[serde(rename = "queue")]
    _queue: Option<String>,
    attempt: Option<u32>,
    attempts_max: Option<u32>,
    correlation_id: Option<String>,
    trace_context: Option<String>,
    timeout_ms: Option<u64>,
    #[serde(default)]
    input: Value,
    checkpoint: Option<Value>,
    #[serde(default)]
    build: bool,
    #[serde(default, rename = "again")]
    _again: bool,
    step: Option<String>,
    settings: Option<Value>,
    #[serde(default)]
    results: BTreeMap<String, Value>,
    item: Option<Value>,
    index: Option<u64>,
    signal: Option<Value>,
}
